//! `pistat-agent`: reads its configuration, enrols, connects, and runs the agent until it is asked to stop.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
