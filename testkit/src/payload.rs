//! Payloads in which everything is left out that a test does not name.

use pistat_protocol::{
    id::{PiId, RunId},
    order::ExecuteOrder,
    status::{ExecutionPolicy, Info, Session},
    task::{Ends, OutputChunk, Report, RunState, Stream},
};

use crate::credential::random;

/// What a test's machine reports about itself, in a new session.
pub fn info() -> Info {
    Info {
        label: None,
        model: Some("Test machine".into()),
        serial: None,
        os: None,
        kernel: None,
        arch: None,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: "boot-1".into(),
        boot_time: None,
        session: Session::from_random(random()),
        execution_policy: ExecutionPolicy::Controller,
        listed_tasks: None,
        runner: false,
        interval_seconds: 5.0,
        capabilities: Vec::new(),
        known_runs: Vec::new(),
        storage_wear_percent: None,
        updates_pending: None,
        reboot_required: None,
        failed_units: None,
        orders_refused: None,
        last_order_refused: None,
    }
}

/// An order that runs these words for at most a minute.
///
/// # Panics
/// Never: `test` is a task's name.
pub fn order(pi: &PiId, run: RunId, session: &Session, argv: &[&str]) -> ExecuteOrder {
    ExecuteOrder {
        pi: pi.clone(),
        run,
        session: session.clone(),
        task: "test".parse().expect("a task's name"),
        argv: argv.iter().map(ToString::to_string).collect(),
        timeout_milliseconds: 60_000,
        grace_milliseconds: 1_000,
        environment: [].into(),
        working_directory: None,
        root: false,
        ends: Ends::Exit,
        concurrency: 8,
        requested_by: "test".into(),
        nonce: None,
    }
}

/// A report of a state, after this boot.
pub fn report(state: RunState, boot_id: &str) -> Report {
    Report {
        state,
        started_at: None,
        finished_at: None,
        elapsed_milliseconds: None,
        exit_code: None,
        reason: None,
        boot_id: boot_id.into(),
        output_chunks: None,
        output_bytes: None,
        dropped_bytes: 0,
        nonce: None,
    }
}

/// A chunk of a run's standard output.
pub fn chunk(seq: u64, data: &str) -> OutputChunk {
    let (stream, data) = (Some(Stream::Stdout), data.to_owned());
    OutputChunk { seq, stream, data, gap_bytes: None, is_final: false, dropped_bytes: None }
}

/// A run id that nothing else has.
///
/// # Panics
/// The system's clock is before 1970.
pub fn run_id() -> RunId {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    RunId::from_parts(u64::try_from(now.as_millis()).expect("a clock of this age"), random())
}
