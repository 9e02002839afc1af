//! What travels between controller and browser: the views that REST and the WebSocket feed share,
//! and the feed's messages.
//!
//! The feed is one [`ServerMessage::Snapshot`], whose first machines come before it as
//! [`ServerMessage::Machines`] if there are many, then [`ServerMessage::Changes`], each a batch.
//! TypeScript types are generated from this file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    account::Role,
    api::GroupOptions,
    id::{AccountName, PiId, RunId, Tag, Target, TaskId},
    stats::Sample,
    status::Info,
    task::{Arguments, RunState, RunStatus, Stream, TaskView},
    time::Timestamp,
};

/// How many runs a browser follows at a time: it keeps to that, and of more the controller lets go
/// of the oldest.
pub const MAX_FOLLOWED: usize = 16;

/// How many machines come in one message of a snapshot at most: what is in one is in memory at a
/// time, here and there.
pub const MACHINES_PER_MESSAGE: usize = 100;

/// How a machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MachineStatus {
    /// Connected, samples arrive.
    Online,
    /// Connected, but no sample for three intervals.
    Stale,
    /// Not connected.
    Offline,
}

/// A machine, as REST and the feed show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Machine {
    /// Its stable id.
    pub id: PiId,
    /// The label in force: a person's, else the agent's, else the id.
    pub label: String,
    /// How it stands.
    pub status: MachineStatus,
    /// When the controller last received a sample or `online` from it; null if never since its
    /// start.
    pub last_seen: Option<Timestamp>,
    /// Its responsibility.
    pub assignment: Option<String>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// The cadence that was set here; null is the agent's own.
    pub interval_seconds: Option<f64>,
    /// What it is.
    pub info: Option<Arc<Info>>,
    /// Its newest sample.
    pub stats: Option<Arc<Sample>>,
    /// CPU per cent of the last minutes, oldest first, one value each ten seconds; null where there
    /// was no sample.
    pub recent_cpu_percent: Vec<Option<u8>>,
    /// The tasks of the catalogue that cannot run there, by the reason. Every other task can.
    /// The feed goes to all dashboards alike, so it leaves out [`Obstacle::Role`]: a browser
    /// compares `role` of the task with its own.
    #[serde(default)]
    pub cannot_run: Vec<CannotRun>,
}

/// Why a machine cannot run a task, for any requester and any arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// The requester's role does not suffice.
    Role,
    /// The machine is not among those of the task's `on`.
    NotOn,
    /// The agent was started with `--register-only`.
    RegisterOnly,
    /// The agent runs only the tasks that its own configuration lists, and this is none of them.
    NotListed,
    /// The task needs root, and the machine has no root runner.
    NoRunner,
}

/// Tasks that a machine cannot run for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CannotRun {
    /// The reason, for programs.
    pub reason: Obstacle,
    /// The reason, and what to do, for people. It follows "reboot cannot run on pi-1: ".
    pub message: String,
    /// The tasks, in the order of the catalogue.
    pub tasks: Vec<TaskId>,
}

/// A run, as REST and the feed show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Which task.
    pub task: TaskId,
    /// On which machine.
    pub pi: PiId,
    /// Where it stands.
    pub state: RunState,
    /// Its arguments, defaults filled in.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, crate::task::ArgumentValue>))]
    pub args: Arguments,
    /// Who asked.
    pub requested_by: String,
    /// The id that the requester gave.
    pub request_id: Option<String>,
    /// The group that it belongs to.
    pub group: Option<RunId>,
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
    /// Bytes of output, stored or left out.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub output_bytes: u64,
    /// Bytes of output that were not stored: dropped while the controller was away, or left out
    /// beyond the output limit.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub dropped_bytes: u64,
}

impl From<&Run> for RunStatus {
    fn from(run: &Run) -> Self {
        Self {
            state: run.state,
            task: run.task.clone(),
            requested_by: run.requested_by.clone(),
            request_id: run.request_id.clone(),
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            exit_code: run.exit_code,
            reason: run.reason.clone(),
        }
    }
}

/// A run on many machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Group {
    /// Its id.
    pub id: RunId,
    /// Which task.
    pub task: TaskId,
    /// What it was aimed at.
    pub target: Target,
    /// Its runs' arguments, defaults filled in.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, crate::task::ArgumentValue>))]
    pub args: Arguments,
    /// How it goes about it.
    pub options: GroupOptions,
    /// Who asked.
    pub requested_by: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// How many runs it has.
    pub total: u32,
    /// How many runs are in each state; states without a run are left out.
    pub states: std::collections::BTreeMap<RunState, u32>,
    /// Why the rest was not started, when it was stopped.
    pub stopped: Option<String>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A run's life, or a refused request.
    Task,
    /// Something is wrong with a machine, or right again.
    Alert,
    /// Clients of the broker: connects, takeovers, refusals.
    Mqtt,
    /// A machine was renamed, assigned, tagged or set.
    Label,
    /// Accounts, sign-ins and enrolments.
    Access,
    /// The controller itself.
    System,
}

impl EventKind {
    /// The kind's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Alert => "alert",
            Self::Mqtt => "mqtt",
            Self::Label => "label",
            Self::Access => "access",
            Self::System => "system",
        }
    }
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
}

/// One line of the audit log: the payload of `controller/event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// The register's own sequence: the order of events, whatever clocks do.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// What about.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// Which machine.
    pub pi: Option<PiId>,
    /// Which run.
    pub run: Option<RunId>,
    /// Whose doing.
    pub account: Option<String>,
    /// One line for a person.
    pub text: String,
}

/// Who is signed in: `GET /api/me`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Me {
    /// The account.
    pub account: AccountName,
    /// Its role.
    pub role: Role,
}

/// What the controller says about itself in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct ControllerView {
    /// Its version.
    pub version: String,
    /// The topic prefix.
    pub prefix: String,
    /// The port of plain MQTT, when the embedded broker listens.
    pub mqtt_port: Option<u16>,
    /// The external broker, without its password.
    pub external_broker: Option<String>,
    /// Where a client of the broker connects, ours or another, without credentials:
    /// `mqtt://host:1883`.
    pub mqtt_url: Option<String>,
}

/// Numbers of the broker and the feed, once a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Pulse {
    /// Connected MQTT clients.
    pub mqtt_clients: u32,
    /// Messages that the broker accepted, in the last seconds.
    pub mqtt_messages_per_second: f32,
    /// Connected dashboards.
    pub dashboards: u32,
}

/// A piece of stored output, as followers get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct OutputPiece {
    /// The chunk's number.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub seq: u64,
    /// Where it came from.
    pub stream: Stream,
    /// The text.
    pub data: String,
    /// Bytes that are missing just before it.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub gap_bytes: u64,
}

/// A candidate of Tab completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Completion {
    /// The text that replaces the word, quoted if it must be.
    pub value: String,
    /// What it is, in a few words.
    pub hint: String,
}

/// One change of what the dashboard shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Change {
    /// A machine is new or changed in anything but its sample.
    Machine {
        /// All of it; `stats` and `recent_cpu_percent` are left as they were when null or empty.
        machine: Box<Machine>,
    },
    /// A machine has a new sample (and is online).
    Stats {
        /// Which machine.
        pi: PiId,
        /// The sample.
        stats: Arc<Sample>,
    },
    /// A machine was forgotten.
    Forgotten {
        /// Which machine.
        pi: PiId,
    },
    /// A run is new or changed.
    Run {
        /// All of it.
        run: Box<Run>,
    },
    /// A group is new or changed.
    Group {
        /// All of it.
        group: Group,
    },
    /// Something happened.
    Event {
        /// What.
        event: Event,
    },
    /// The catalogue was read again.
    Tasks {
        /// All of it.
        tasks: Vec<TaskView>,
    },
    /// Numbers of the broker and the feed.
    Pulse {
        /// The numbers.
        pulse: Pulse,
    },
}

/// From the controller to a browser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServerMessage {
    /// Machines of the snapshot that follows, if it has more than [`MACHINES_PER_MESSAGE`].
    Machines {
        /// The next ones, by id.
        machines: Vec<Machine>,
    },
    /// Everything, at the start and whenever a browser had fallen behind.
    Snapshot {
        /// The controller's clock.
        now: Timestamp,
        /// Who is signed in.
        me: Me,
        /// The controller.
        controller: Box<ControllerView>,
        /// All machines, by id; the last of them, if [`ServerMessage::Machines`] had the others.
        machines: Vec<Machine>,
        /// The newest runs, newest first.
        runs: Vec<Run>,
        /// The newest groups, newest first.
        groups: Vec<Group>,
        /// The newest events, newest first.
        events: Vec<Event>,
        /// The catalogue.
        tasks: Vec<TaskView>,
        /// Numbers of the broker and the feed.
        pulse: Pulse,
    },
    /// What changed since.
    Changes {
        /// The controller's clock.
        now: Timestamp,
        /// In order.
        changes: Vec<Change>,
    },
    /// Answer to `ping`.
    Pong {
        /// The ping's number.
        id: u32,
    },
    /// Output of a followed run.
    Output {
        /// Which run.
        run: RunId,
        /// In order.
        pieces: Vec<OutputPiece>,
        /// Whether the run is final and this was the end.
        done: bool,
    },
    /// A run is not followed, or no longer: nothing of its output comes until it is asked for
    /// again.
    Unfollowed {
        /// Which run.
        run: RunId,
        /// Why, for a person.
        reason: String,
    },
    /// Text for the terminal: UTF-8 with ANSI colours (SGR) and `\n` only.
    Text {
        /// The command's number.
        id: u32,
        /// The text.
        text: String,
    },
    /// A question that must be answered with `confirm`.
    Ask {
        /// The command's number.
        id: u32,
        /// The question.
        question: String,
    },
    /// The command started these runs: the terminal shows them until they end.
    Started {
        /// The command's number.
        id: u32,
        /// One run for each machine.
        runs: Vec<RunId>,
        /// Their group.
        group: Option<RunId>,
    },
    /// The dashboard is asked to do something itself.
    Perform {
        /// The command's number.
        id: u32,
        /// What.
        action: Action,
    },
    /// The command is done.
    Done {
        /// The command's number.
        id: u32,
        /// Whether it did what it was asked.
        ok: bool,
    },
    /// Answer to `complete`.
    Completions {
        /// The question's number.
        id: u32,
        /// Where the completed word begins, in UTF-16 code units of the line.
        start: u32,
        /// The candidates, best first.
        candidates: Vec<Completion>,
    },
    /// The session ended: sign in again.
    Expired,
}

/// What a terminal command asks of the dashboard itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Action {
    /// Empty the terminal.
    Clear,
    /// Change the theme.
    Theme {
        /// Its name, or null to list them.
        name: Option<String>,
    },
}

/// From a browser to the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum ClientMessage {
    /// The key of the page's session: the first message of a feed that was opened with a session's
    /// cookie.
    Session {
        /// The key, as the answer to the sign-in had it.
        key: String,
    },
    /// Measures the round trip.
    Ping {
        /// A number of the browser's.
        id: u32,
    },
    /// Somebody looks at these machines: they sample every second. An empty list ends it.
    Watch {
        /// Which machines.
        pis: Vec<PiId>,
    },
    /// Whether the dashboard is visible. In a hidden tab it receives occasional samples only, and a
    /// fresh snapshot once it is visible again.
    Visible {
        /// Yes or no.
        visible: bool,
    },
    /// Send a run's output from chunk `from` on, and what follows.
    Follow {
        /// Which run.
        run: RunId,
        /// The first chunk.
        #[cfg_attr(feature = "typescript", ts(type = "number"))]
        from: u64,
    },
    /// No more output of this run.
    Unfollow {
        /// Which run.
        run: RunId,
    },
    /// A line of the terminal.
    Command {
        /// A number of the browser's.
        id: u32,
        /// The line.
        line: String,
    },
    /// The answer to `ask`.
    Confirm {
        /// The command's number.
        id: u32,
        /// Yes or no.
        yes: bool,
    },
    /// Tab was pressed.
    Complete {
        /// A number of the browser's.
        id: u32,
        /// The line.
        line: String,
        /// Where the cursor is, in UTF-16 code units.
        cursor: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_messages_refuse_unknown_fields() {
        assert!(serde_json::from_str::<ClientMessage>(r#"{"type":"ping","id":1}"#).is_ok());
        assert!(serde_json::from_str::<ClientMessage>(r#"{"type":"ping","id":1,"x":2}"#).is_err());
        assert!(serde_json::from_str::<ClientMessage>(r#"{"type":"shell","line":"ls"}"#).is_err());
    }
}
