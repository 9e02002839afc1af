//! Tasks and runs as they travel: requests, reports, output, acknowledgements, states, and the
//! catalogue's public face.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    account::Role,
    id::{AccountName, PiId, RunId, TaskId},
    status::Nonce,
    time::Timestamp,
};

/// Where a run stands. The agent reports, the controller alone decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Accepted and on disk; not yet sent.
    Queued,
    /// Sent to the agent as a signed order.
    Dispatched,
    /// The agent started the process.
    Running,
    /// Ended with exit code 0, or as `ends` asks.
    Succeeded,
    /// Ended with another exit code, by a signal, or could not be started.
    Failed,
    /// Ended by its time limit.
    TimedOut,
    /// Ended by a person.
    Cancelled,
    /// Never ran: not on the allow-list, bad argument, no permission, register-only.
    Rejected,
    /// Never ran: waited too long for an offline machine.
    Expired,
    /// The machine came back without it, was forgotten, or stayed silent for too long.
    Lost,
}

impl RunState {
    /// All states, in the order of a run's life.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Dispatched,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Rejected,
        Self::Expired,
        Self::Lost,
    ];

    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Dispatched | Self::Running)
    }

    /// The state's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dispatched => "dispatched",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Lost => "lost",
        }
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for RunState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|state| state.as_str()).collect();
            format!("{text:?} is not a state of a run: the states are {}", names.join(", "))
        })
    }
}

/// The value of one argument, from JSON or from the command line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(untagged)]
pub enum ArgumentValue {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(#[cfg_attr(feature = "typescript", ts(type = "number"))] i64),
    /// A decimal number.
    Number(f64),
    /// Text.
    Text(String),
}

impl std::fmt::Display for ArgumentValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// The arguments of a run, by name.
pub type Arguments = BTreeMap<String, ArgumentValue>;

/// A request over MQTT: the payload of `<pi>/task/request`.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Run a task.
    Run(RunRequest),
    /// Cancel a run.
    Cancel(RunId),
}

/// The JSON form of a request to run a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Which task.
    pub task: TaskId,
    /// Its arguments.
    #[serde(default)]
    pub args: Arguments,
    /// Two requests of one account with the same id are one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The longest `request_id`, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// An agent's report about a run: the payload of `report`, repeated until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `running`, or how it ended; `rejected` when the agent refused it, `lost` when it found it
    /// interrupted; `dispatched` only with a nonce.
    pub state: RunState,
    /// When the process was started, by the machine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the process ended, by the machine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Running time by the machine's monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_milliseconds: Option<u64>,
    /// The process's exit code; 128 + n when signal n ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// A message for a person, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The boot during which it ran.
    pub boot_id: String,
    /// How many chunks of output there are; given with a final state, so that the end of the output
    /// is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_chunks: Option<u64>,
    /// How many bytes of text there were, those that were dropped included; given with a final
    /// state, so that what never arrived is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Bytes of output that were dropped while the controller was away.
    #[serde(default)]
    pub dropped_bytes: u64,
    /// With the state `dispatched` alone: the root runner's nonce, with which the controller is
    /// asked to sign the order again. Not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
}

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The most bytes of data in one chunk of output.
pub const MAX_CHUNK_BYTES: usize = 16 * 1024;

/// The most bytes of unacknowledged output that an agent holds for one run.
pub const OUTPUT_WINDOW_BYTES: usize = 1024 * 1024;

/// A piece of output: the payload of `output`.
///
/// When the run ends, one retained chunk with `final` repeats the last 16 KiB for late subscribers;
/// it is never appended to the stored output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputChunk {
    /// Counts the chunks of this run, from 0.
    pub seq: u64,
    /// Where it came from; absent in the final repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// The text.
    pub data: String,
    /// Bytes that were dropped just before this chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_bytes: Option<u64>,
    /// Whether this is the retained repetition of the end.
    #[serde(default, rename = "final", skip_serializing_if = "is_false")]
    pub is_final: bool,
    /// All bytes that were dropped; given with `final`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_bytes: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What the controller has on its disk: the payload of `ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Output up to and with this chunk; null before the first.
    pub seq: Option<u64>,
    /// The newest state whose report is on disk; null before the first report.
    pub state: Option<RunState>,
}

/// The state of a run, decided by the controller: the retained payload of `<pi>/task/<run>/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// Where it stands.
    pub state: RunState,
    /// Which task.
    pub task: TaskId,
    /// Who asked.
    pub requested_by: String,
    /// The id that the requester gave.
    pub request_id: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// A message for a person.
    pub reason: Option<String>,
}

/// A finished run, for Home Assistant's event entity: the payload of `<pi>/task/result`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The final state: Home Assistant's name for the kind of event.
    pub event_type: RunState,
    /// Which run.
    pub run: RunId,
    /// On which machine.
    pub pi: PiId,
    /// Which task.
    pub task: TaskId,
    /// Who asked.
    pub requested_by: String,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// A message for a person.
    pub reason: Option<String>,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// The answer to an MQTT 5 request that named a response topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RequestAnswer {
    /// The runs that were accepted.
    Accepted {
        /// One run for each machine.
        runs: Vec<RunId>,
    },
    /// Why nothing was accepted.
    Refused {
        /// A message for a person.
        error: String,
    },
}

/// What a task's success looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// Its process exits with code 0.
    #[default]
    Exit,
    /// The machine comes back with another boot id.
    Restart,
    /// The machine goes offline for good.
    PowerOff,
}

/// A task of the catalogue without its command: what `controller/tasks` and `GET /api/tasks` show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// Its display name.
    pub label: String,
    /// What it does.
    pub description: String,
    /// Its arguments, in the order of the file.
    pub args: Vec<ArgumentView>,
    /// Its time limit.
    pub timeout_seconds: f64,
    /// The least role that may run it.
    pub role: Role,
    /// Whether interactive users are asked for confirmation.
    pub confirm: bool,
    /// How many runs of it a machine does at a time.
    pub concurrency: u32,
    /// The machines on which it may run: pi-ids, `@tag` or `@all`.
    pub on: Vec<String>,
    /// Whether it needs the root runner.
    pub root: bool,
    /// What its success looks like.
    pub ends: Ends,
    /// When it runs by itself: five fields of crontab(5) and a time zone.
    pub schedule: Option<String>,
}

/// One argument of a task, for forms and completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArgumentView {
    /// Its name.
    pub name: String,
    /// Its display name.
    pub label: String,
    /// What values it takes.
    pub kind: ArgumentKind,
    /// The value when none is given; without one the argument must be given.
    pub default: Option<ArgumentValue>,
}

/// What values an argument takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ArgumentKind {
    /// One of a list.
    Choices {
        /// The list.
        choices: Vec<String>,
    },
    /// A whole number in a range.
    Integer {
        /// The least value.
        #[cfg_attr(feature = "typescript", ts(type = "number"))]
        min: i64,
        /// The greatest value.
        #[cfg_attr(feature = "typescript", ts(type = "number"))]
        max: i64,
    },
    /// A decimal number in a range.
    Number {
        /// The least value.
        min: f64,
        /// The greatest value.
        max: f64,
    },
    /// Text of which the whole matches a regular expression.
    Pattern {
        /// The regular expression.
        pattern: String,
        /// The most characters.
        max_length: u32,
    },
    /// `true` or `false`.
    Boolean,
    /// The pi-id of a known machine.
    Machine,
}

/// A name for who asked: an account, or the schedule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requester {
    /// An account, by any way in.
    Account(AccountName),
    /// The catalogue's schedule.
    Schedule,
    /// Somebody whom an external broker let publish.
    External,
}

impl std::fmt::Display for Requester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Account(name) => name.fmt(f),
            Self::Schedule => f.write_str("schedule"),
            Self::External => f.write_str("mqtt"),
        }
    }
}
