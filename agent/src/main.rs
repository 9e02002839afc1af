//! `pistat-agent`: reads its configuration, enrols, connects, and runs the agent until it is asked
//! to stop.
//!
//! `pistat-agent enroll`, with the same flags, only sees to it that the controller lets this
//! machine in, and ends.
//!
//! Exit codes: 0 asked to stop, or let in; 64 wrong usage or configuration, 75 not let in in time,
//! 78 not enrolled and no token, 1 a crash.

mod logging;

use std::{io::Write, os::unix::fs::DirBuilderExt, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use pistat_agent::{
    AgentOptions, Incoming, Outgoing,
    config::{Config, Flags},
    connection::{self, Login},
    credential::CredentialError,
    enroll::{EnrollError, Enrolment, Rejoin, enroll},
    facts,
    mqtt::Endpoint,
    runner,
};
use pistat_protocol::order::PublicKey;
use pistat_support::notify::Notify;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

/// musl's own takes all room that it has of a size before it takes any again: an idle agent grew by
/// 2 kB a minute.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

/// `EX_TEMPFAIL` of sysexits.h.
const NOT_LET_IN: u8 = 75;

/// `EX_CONFIG` of sysexits.h: the service's unit does not restart after it.
const NOT_ENROLLED: u8 = 78;

/// How many messages may wait for the agent: acknowledgements come in bursts.
const INCOMING: usize = 64;

/// How many messages may wait for the connection. Each may be a chunk of output, so this is at most
/// half a megabyte.
const OUTGOING: usize = 32;

/// How long `enroll` waits for the controller.
const ENROLL_LIMIT: Duration = Duration::from_secs(30);

/// The command line and the file are read on a stack of their own, which is given back: they take
/// more of it than all that comes later.
const CONFIGURATION_STACK: usize = 512 * 1024;

/// After being asked to stop: for tasks to end, the last messages to be acknowledged, and
/// DISCONNECT.
const STOP_LIMIT: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    pistat_agent::keep_memory_private();
    // Root's part, which systemd starts: it shares the binary's pages and none of its
    // configuration.
    let first = std::env::args_os().nth(1);
    if first.as_ref().is_some_and(|word| word == "runner") {
        logging::start(tracing::Level::INFO);
        return runner::main();
    }
    let only_enrolls = first.is_some_and(|word| word == "enroll");
    let config = match aside(move || configuration(only_enrolls)) {
        Ok(config) => config,
        Err(code) => return code,
    };
    logging::start(config.log_level);
    match run(&config, only_enrolls) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, ExitCode> + Send + 'static) -> Result<T, ExitCode> {
    let thread = std::thread::Builder::new().stack_size(CONFIGURATION_STACK).spawn(work);
    let thread = thread.map_err(|error| {
        complain(&format!("a thread cannot be started: {error}"));
        ExitCode::FAILURE
    })?;
    // It has complained itself.
    thread.join().unwrap_or(Err(ExitCode::FAILURE))
}

fn configuration(only_enrolls: bool) -> Result<Config, ExitCode> {
    let words = std::env::args_os().enumerate().filter(|(at, _)| !(only_enrolls && *at == 1)).map(|(_, word)| word);
    let flags = Flags::read(words).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
    })?;
    Config::load(&flags).map_err(|problems| {
        for problem in problems.0 {
            complain(&problem);
        }
        ExitCode::from(USAGE)
    })
}

fn complain(problem: &str) {
    let _ = writeln!(std::io::stderr(), "pistat-agent: {problem}");
}

fn run(config: &Config, only_enrolls: bool) -> anyhow::Result<ExitCode> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.state);
    if let Err(error) = made {
        complain(&format!(
            "the state folder {} cannot be made: {error}; choose another with --state",
            config.state.display()
        ));
        return Ok(ExitCode::from(USAGE));
    }
    let endpoint = match Endpoint::new(config.address.clone(), config.topics.clone(), config.ca.as_deref()) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            complain(&error.to_string());
            return Ok(ExitCode::from(USAGE));
        }
    };
    // One thread; what may hang on a name server or a disk gets others for seconds. Besides these,
    // where there are sensors, the sampler keeps one of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_stack_size(256 * 1024)
        .build()
        .context("the runtime cannot be started")?;
    // As a task of the runtime, which is woken without a system call; what `block_on` runs itself
    // is not.
    let served = runtime.spawn(serve(config.clone(), endpoint, only_enrolls));
    let code = runtime.block_on(served).context("the agent failed")?;
    // A thread that hangs on a disk must not hold up the end.
    runtime.shutdown_background();
    code
}

async fn serve(config: Config, endpoint: Endpoint, only_enrolls: bool) -> anyhow::Result<ExitCode> {
    let notify = Arc::new(Notify::from_environment());
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be listened to")?;
    let stop = CancellationToken::new();
    let asked = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        notify.stopping();
        stop.cancel();
        tokio::time::sleep(STOP_LIMIT).await;
        tracing::warn!("something did not end in time");
    };
    let not_in_time = async {
        if !only_enrolls {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(ENROLL_LIMIT).await;
    };
    tokio::select! {
        biased;
        code = enroll_and_run(&config, endpoint, &notify, stop.clone(), only_enrolls) => code,
        () = not_in_time => {
            complain(&format!("the controller has not let this machine in within {} seconds", ENROLL_LIMIT.as_secs()));
            Ok(ExitCode::from(NOT_LET_IN))
        }
        () = asked => Ok(ExitCode::SUCCESS),
    }
}

async fn enroll_and_run(
    config: &Config,
    endpoint: Endpoint,
    notify: &Arc<Notify>,
    stop: CancellationToken,
    only_enrolls: bool,
) -> anyhow::Result<ExitCode> {
    let enrolment = Enrolment {
        endpoint: &endpoint,
        pi: &config.pi,
        label: config.label.as_deref(),
        serial: facts::serial(Path::new("/")),
        token: config.token.as_ref(),
        folder: &config.state,
    };
    // Not being able to reach the controller is not a failure of the service to start.
    notify.ready();
    let enrolled = tokio::select! {
        enrolled = enroll(&enrolment) => enrolled,
        // It may take until somebody has switched the controller on; afterwards the agent's own
        // loop says that it lives.
        () = notify.watchdog() => unreachable!("the watchdog is told for ever"),
        () = stop.cancelled() => return Ok(ExitCode::from(if only_enrolls { NOT_LET_IN } else { 0 })),
    };
    let (credential, key) = match enrolled {
        Ok(enrolled) => enrolled,
        Err(error) => return refuse(&error),
    };
    let (hear, heard) = mpsc::channel(INCOMING);
    let (say, said) = mpsc::channel(OUTGOING);
    let rejoin = config.token.clone().filter(|_| config.address.login.is_none()).map(|token| Rejoin {
        token,
        credential: credential.clone(),
        label: config.label.clone(),
    });
    let login = Login { secret: credential.secret, anonymous: credential.anonymous };
    let connection = connection::keep(endpoint, config.pi.clone(), login, rejoin, hear, said);
    // Who speaks over it closes its side at the end; the connection then says goodbye.
    if only_enrolls {
        let (is_let_in, ()) = tokio::join!(knock(heard, say, &stop), connection);
        return Ok(ExitCode::from(if is_let_in { 0 } else { NOT_LET_IN }));
    }
    let options = AgentOptions { notify: Some(notify.clone()), ..options(config, key) };
    let (ended, ()) = tokio::join!(pistat_agent::run(options, heard, say, stop), connection);
    ended?;
    Ok(ExitCode::SUCCESS)
}

fn options(config: &Config, key: PublicKey) -> AgentOptions {
    let mut options = AgentOptions::new(config.pi.clone(), config.state.join("runs"), key);
    options.label.clone_from(&config.label);
    options.interval = config.interval;
    options.policy = config.policy.clone();
    options.nice = config.nice;
    options.backlog_samples = config.backlog_samples;
    options.runner_socket.clone_from(&config.runner_socket);
    options
}

/// Whether the controller took the credential before this was stopped: an earlier enrolment may
/// have been revoked meanwhile. Leaves at once.
async fn knock(mut heard: mpsc::Receiver<Incoming>, say: mpsc::Sender<Outgoing>, stop: &CancellationToken) -> bool {
    let connected = async { while heard.recv().await.is_some_and(|heard| !matches!(heard, Incoming::Connected)) {} };
    let is_let_in = tokio::select! {
        () = connected => true,
        () = stop.cancelled() => false,
    };
    drop(say);
    // What comes until then is for the agent, which is not here.
    while heard.recv().await.is_some() {}
    is_let_in
}

fn refuse(error: &EnrollError) -> anyhow::Result<ExitCode> {
    let code = match error {
        EnrollError::NoToken
        | EnrollError::OtherName { .. }
        | EnrollError::Credential(CredentialError::OtherBoard { .. }) => NOT_ENROLLED,
        EnrollError::Credential(CredentialError::Folder { .. } | CredentialError::Damaged { .. }) => USAGE,
        EnrollError::Credential(CredentialError::Random(_)) => anyhow::bail!("{error}"),
    };
    complain(&error.to_string());
    Ok(ExitCode::from(code))
}
