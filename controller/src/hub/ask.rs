//! What the web server and the command line may ask of the hub, and how it answers: each question
//! carries its own way back.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use pistat_protocol::{
    account::{Account, Role},
    api::{AcceptedRuns, Enrolment, JoinTokenInfo, NewAccount, NewJoinToken, NewRun, PatchMachine, SessionView},
    dashboard::{Group, Machine, Run, ServerMessage},
    id::{AccountName, PiId, RunId, Target, TokenName},
    order::JoinToken,
    task::{RunState, TaskView},
    time::Timestamp,
};
use tokio::sync::{broadcast, oneshot, watch};

use super::{
    feed::{FeedCounts, Frame},
    histogram::Histogram,
};
use crate::access::{Caller, SecretHash, Use};

/// What kind of refusal it is, so that each way in can answer in its own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedKind {
    /// The request itself is wrong.
    Invalid,
    /// The credential is not known.
    Unauthenticated,
    /// The caller may not.
    Forbidden,
    /// There is no such thing.
    Missing,
    /// It does not fit the present state.
    Conflict,
    /// It cannot be done now.
    Unavailable,
}

/// Why a question is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refused {
    /// Which kind.
    pub kind: RefusedKind,
    /// A message that a person can act on.
    pub detail: String,
}

#[expect(clippy::needless_pass_by_value, reason = "callers hand over a sentence or an error, whichever they have")]
impl Refused {
    /// A refusal of this kind.
    pub fn new(kind: RefusedKind, detail: impl ToString) -> Self {
        Self { kind, detail: detail.to_string() }
    }

    /// [`RefusedKind::Invalid`].
    pub fn bad(detail: impl ToString) -> Self {
        Self::new(RefusedKind::Invalid, detail)
    }

    /// [`RefusedKind::Unauthenticated`].
    pub fn unauthenticated(detail: impl ToString) -> Self {
        Self::new(RefusedKind::Unauthenticated, detail)
    }

    /// [`RefusedKind::Forbidden`].
    pub fn forbidden(detail: impl ToString) -> Self {
        Self::new(RefusedKind::Forbidden, detail)
    }

    /// [`RefusedKind::Missing`].
    pub fn missing(detail: impl ToString) -> Self {
        Self::new(RefusedKind::Missing, detail)
    }

    /// [`RefusedKind::Conflict`].
    pub fn conflict(detail: impl ToString) -> Self {
        Self::new(RefusedKind::Conflict, detail)
    }

    /// [`RefusedKind::Unavailable`].
    pub fn unavailable(detail: impl ToString) -> Self {
        Self::new(RefusedKind::Unavailable, detail)
    }
}

/// The way back of an answer.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// How far a run's output has come, for those who follow it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The next chunk that will be stored.
    pub next_chunk: u64,
    /// Whether the run is final, and with it its output.
    pub is_final: bool,
}

/// What the terminal needs to find things by name.
#[derive(Debug, Clone)]
pub struct Names {
    /// All machines.
    pub machines: Vec<Machine>,
    /// The catalogue.
    pub tasks: Vec<TaskView>,
    /// The newest runs.
    pub runs: Vec<Run>,
}

/// Numbers for `/metrics`.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// All machines with their newest samples.
    pub machines: Vec<Machine>,
    /// Open runs by state.
    pub open_runs: BTreeMap<RunState, u32>,
    /// Finished runs since the start, by task and final state.
    pub finished_runs: BTreeMap<(String, RunState), u64>,
    /// The running time of finished runs since the start, by task.
    pub run_seconds: BTreeMap<String, Histogram>,
    /// Tasks of the catalogue.
    pub tasks: usize,
    /// How long the controller has run.
    pub uptime_seconds: u64,
    /// Whether there is a connection to the broker.
    pub connected: bool,
    /// Messages that wait to be published.
    pub outbox: usize,
    /// Commits that wait for the disk.
    pub commits: usize,
    /// Connected dashboards.
    pub dashboards: usize,
    /// What was written for dashboards since the start.
    pub feed: FeedCounts,
    /// Messages that were refused since the start: malformed, foreign, retained requests.
    pub refused_messages: u64,
    /// The broker's counters, when it is ours.
    pub broker: Option<pistat_broker::Statistics>,
}

/// A dashboard's start: what is, and what changes from exactly then on.
pub type Joined = (ServerMessage, broadcast::Receiver<Frame>);

/// What changes with an account's token.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rotation {
    pub(crate) role: Option<Role>,
    /// How long it lasts from now on; as long as before without it.
    pub(crate) lifetime: Option<Duration>,
}

/// Who signs in.
#[derive(Debug, Clone)]
pub(crate) struct Browser {
    pub(crate) address: IpAddr,
    pub(crate) user_agent: Option<String>,
}

/// A session that has begun, with its two secrets.
#[derive(Debug, Clone)]
pub(crate) struct SignedIn {
    pub(crate) caller: Caller,
    pub(crate) address: IpAddr,
    pub(crate) cookie: String,
    pub(crate) key: String,
}

/// A question to the hub.
pub(crate) enum Ask {
    /// A dashboard joins, or had fallen behind; and whether nobody looks at it.
    Join(Caller, bool, Reply<Joined>),
    /// Nobody looks at a dashboard any more: what it is to hear from now on.
    Hide(Reply<broadcast::Receiver<Frame>>),
    /// The fleet, as this caller sees it.
    Machines(Caller, Reply<Vec<Machine>>),
    /// One machine, as this caller sees it.
    Machine(Caller, PiId, Reply<Machine>),
    /// The machines of a target; none of them may be unknown.
    Target(Target, Reply<Vec<PiId>>),
    /// Machines, tasks and runs, for finding by name.
    Names(Reply<Names>),
    /// The catalogue.
    Tasks(Reply<Vec<TaskView>>),
    /// Label, assignment, tags, cadence.
    Patch(Caller, PiId, PatchMachine, Reply<Machine>),
    /// A machine is to be forgotten.
    Forget(Caller, PiId, Reply<()>),
    /// A task is to be run.
    Run(Caller, NewRun, Reply<AcceptedRuns>),
    /// A run, or every run of a group, is to end.
    Cancel(Caller, RunId, Reply<()>),
    /// An open run as it is now; `None` when it is final or unknown here.
    OpenRun(RunId, Reply<Option<Run>>),
    /// A group.
    Group(RunId, Reply<Group>),
    /// How far a run's output has come.
    Follow(RunId, Reply<watch::Receiver<Progress>>),
    /// Somebody looks at these machines.
    Watch(Vec<PiId>),
    /// A browser signs in by a code or an account's token.
    SignIn(pistat_protocol::api::Login, Browser, Reply<SignedIn>),
    /// A browser signs out.
    SignOut(SecretHash, Reply<()>),
    /// A credential is used.
    Used(SecretHash, Use),
    /// The sessions that the caller may see.
    Sessions(Caller, Reply<Vec<SessionView>>),
    /// A session ends, by its name.
    EndSession(Caller, String, Reply<()>),
    /// All sessions of an account end.
    EndSessions(Caller, AccountName, Reply<()>),
    /// A new sign-in link for this account: its code, and when it stops working.
    LoginLink(Caller, Reply<(String, Timestamp)>),
    /// Bad credentials came from an address: how long its answer waits.
    BadCredentials(IpAddr, Reply<Duration>),
    /// All accounts.
    Accounts(Reply<Vec<Account>>),
    /// A new account; the answer is its token.
    AddAccount(Caller, NewAccount, Reply<String>),
    /// An account goes.
    RemoveAccount(Caller, AccountName, Reply<()>),
    /// An account gets a new token, or another role, or another end.
    RotateAccount(Caller, AccountName, Rotation, Reply<String>),
    /// The join token.
    JoinToken(Reply<JoinToken>),
    /// All join tokens, without their secrets.
    JoinTokens(Reply<Vec<JoinTokenInfo>>),
    /// A new named join token; the answer is its text.
    AddJoinToken(Caller, NewJoinToken, Reply<String>),
    /// A join token goes.
    RemoveJoinToken(Caller, TokenName, Reply<()>),
    /// A new join token.
    RotateJoinToken(Caller, Reply<JoinToken>),
    /// Machines that enrolled or may.
    Enrolments(Reply<Vec<Enrolment>>),
    /// A single-use token for a pi-id.
    AddAgent(Caller, PiId, Reply<String>),
    /// One new enrolment is allowed; the answer is the token for it.
    ResetAgent(Caller, PiId, Reply<String>),
    /// Numbers for `/metrics`.
    Numbers(Reply<Box<Numbers>>),
}
