//! `pistat`: reads the command line, starts the controller, prints what a person needs first, and
//! ends with an exit code that says how it went.

use std::{io::IsTerminal, path::Path, process::ExitCode};

use pistat::{
    Controller,
    cli::{self, Entry},
    config::{Broker, Config, Flags, environment},
    confine,
    install::{self, Architecture},
    logging,
    own_address::{self, OwnAddress},
    start::Welcome,
};

/// As many files as the packaged service may open: far more than the broker's connections.
const OPEN_FILES: u64 = 65_536;

fn main() -> ExitCode {
    if let Some(code) = confine::start(std::env::args_os()) {
        return code;
    }
    // Before any secret is read, by the command line too.
    pistat_agent::keep_memory_private();
    match cli::start(std::env::args_os()) {
        Entry::Done(code) => code,
        Entry::Serve(flags) => serve(&flags),
    }
}

fn serve(flags: &Flags) -> ExitCode {
    let config = match Config::load(flags, environment()) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            return ExitCode::from(64);
        }
    };
    logging::to_stderr(config.log_level.as_str());
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the system refuses what the controller needs: {error}");
            return ExitCode::from(71);
        }
    };
    runtime.block_on(run(config, &flags.file()))
}

/// Each machine is an open socket, and a shell allows 1,024 of them unless somebody asks for more.
/// What the system does not grant, the broker refuses.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let allowed = getrlimit(Resource::Nofile);
    let wanted = allowed.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if allowed.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: allowed.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the number of open files cannot be raised; a large fleet may not fit");
        }
    }
}

async fn run(config: Config, file: &Path) -> ExitCode {
    let told = config.clone();
    match Controller::start(config, file).await {
        Ok(controller) => {
            welcome(&controller, &told);
            ExitCode::from(controller.run().await.exit_code())
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The sign-in link, the broker's address, and how to add a Pi.
fn welcome(controller: &Controller, config: &Config) {
    let (addresses, own_address, welcome) = (controller.addresses(), controller.own_address(), controller.welcome());
    for sentence in &welcome.damaged {
        println!("note        {sentence}");
    }
    println!("\n  Pi Stat {}\n", env!("CARGO_PKG_VERSION"));
    // What is kept, such as a journal or a container's log, is read by others: by whoever may ask
    // for `service-log`, for one.
    let is_terminal = std::io::stdout().is_terminal();
    if is_terminal {
        println!("  dashboard   {}/#login={}", own_address.here(), welcome.code);
        println!("              (works once, for 15 minutes; `pistat login` prints another)");
    } else {
        println!("  dashboard   {}   `pistat login` prints a link to sign in", own_address.here());
    }
    if let Some(mqtt) = addresses.mqtt {
        let host = own_address::host(mqtt, || "localhost".into());
        let admin_token = config.state.join("admin.token");
        println!("  mqtt        mqtt://{host}:{}   user admin, password in {}", mqtt.port(), admin_token.display());
    }
    if let Some(mqtts) = addresses.mqtts {
        println!("  mqtt, TLS   mqtts://{}:{}", own_address::host(mqtts, || "localhost".into()), mqtts.port());
    }
    if let Broker::External(url) = &config.mqtt.broker {
        println!("  mqtt        {url}   the broker of mqtt.broker, which says who may connect");
    }
    if is_terminal {
        println!("  add a Pi    {}\n", add_a_pi(own_address, welcome));
    } else {
        let join_token = config.state.join("join.token");
        println!(
            "  add a Pi    the dashboard and `pistat agent add pi-1` show how; the join token is in {}\n",
            join_token.display()
        );
    }
}

/// What is typed on a Pi: the command that installs an agent where this controller has one, else
/// how an agent is started that is there already. An agent for one processor is of no use on
/// another, so the first says for which there is none.
fn add_a_pi(own_address: &OwnAddress, welcome: &Welcome) -> String {
    let (url, token) = (own_address.of_agent("pi-1"), welcome.join_token.to_string());
    let script = &welcome.install_script;
    let indent = " ".repeat(14);
    if script.architectures.is_empty() || own_address.is_of_another_broker() {
        return format!(
            "PISTAT_AGENT_TOKEN={token} \\\n{indent}  pistat-agent --controller-url {url} --pi-id pi-1 --label \"Rack Pi 1\""
        );
    }
    let command = install::command(&url, "pi-1", "Rack Pi 1", &token, &script.sha256);
    let has = |architecture: &Architecture| script.architectures.contains(architecture);
    let missing: Vec<_> = Architecture::ALL.into_iter().filter(|architecture| !has(architecture)).collect();
    if missing.is_empty() {
        return command;
    }
    let (available, missing) = (install::names(script.architectures.iter().copied()), install::names(missing));
    format!("{command}\n{indent}(for {available}; there is no agent for {missing} here: docs/install.md)")
}
