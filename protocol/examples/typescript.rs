//! Prints the dashboard's messages as TypeScript: `cargo run -p pistat-protocol --features
//! typescript --example typescript > web/src/protocol/types.ts`.
//!
//! With `--check FILE` it prints nothing and fails when the file is not what it would print.

use std::process::ExitCode;

use pistat_protocol::{account, api, dashboard, history, stats, status, task};
use ts_rs::{Config, TS};

macro_rules! declarations {
    ($($type:ty),* $(,)?) => {
        [$(format!("export {}", <$type>::decl(&Config::default()))),*]
    };
}

fn types() -> String {
    let declarations = declarations![
        account::Role,
        account::Account,
        stats::Sample,
        stats::Disk,
        stats::Power,
        status::ExecutionPolicy,
        status::Info,
        task::RunState,
        task::ArgumentValue,
        task::Stream,
        task::Ends,
        task::ArgumentKind,
        task::ArgumentView,
        task::TaskView,
        dashboard::MachineStatus,
        dashboard::Obstacle,
        dashboard::CannotRun,
        dashboard::Machine,
        dashboard::Run,
        dashboard::Group,
        dashboard::EventKind,
        dashboard::Severity,
        dashboard::Event,
        dashboard::Me,
        dashboard::ControllerView,
        dashboard::Pulse,
        dashboard::OutputPiece,
        dashboard::Completion,
        dashboard::Change,
        dashboard::Action,
        dashboard::ServerMessage,
        dashboard::ClientMessage,
        api::Login,
        api::SignedIn,
        api::SessionView,
        api::LoginLink,
        api::NewRun,
        api::GroupOptions,
        api::AcceptedRuns,
        api::PatchMachine,
        api::NewAccount,
        api::NewToken,
        api::EnrolmentToken,
        api::JoinTokenView,
        api::NewJoinToken,
        api::JoinTokenInfo,
        api::Installation,
        api::AgentProgram,
        api::NewEnrolment,
        api::Enrolment,
        api::History,
        history::Column,
        history::Origin,
        history::MachineHistory,
        history::FleetHistory,
        api::Problem,
    ];
    // Identifiers and times are texts there; Rust checks them, the browser repeats what it was
    // given.
    let texts = ["PiId", "AccountName", "TaskId", "Tag", "TokenName", "RunId", "Target", "Session", "Timestamp"];
    let texts = texts.map(|name| format!("export type {name} = string;")).join("\n");
    let constants = format!(
        "export const MAX_FOLLOWED = {};\nexport const MACHINES_PER_MESSAGE = {};",
        dashboard::MAX_FOLLOWED,
        dashboard::MACHINES_PER_MESSAGE
    );
    format!(
        "// Generated from protocol/src by protocol/examples/typescript.rs; never edited.\n\n{texts}\n\n{constants}\n\n{}\n",
        declarations.join("\n\n")
    )
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, file] = arguments.as_slice() else {
        print!("{}", types());
        return ExitCode::SUCCESS;
    };
    if flag == "--check" && std::fs::read_to_string(file).is_ok_and(|text| text == types()) {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "{file} is not what protocol/ says: run `cargo run -p pistat-protocol --features typescript --example typescript > {file}`"
    );
    ExitCode::FAILURE
}
