//! What an agent is told by its embedder: identity, cadence, policy, folders.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use pistat_protocol::{
    id::{PiId, TaskId},
    order::PublicKey,
    status::ExecutionPolicy,
};

use pistat_support::notify::Notify;

/// What the agent is willing to run. It comes last and wins over every order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any order that the controller signed.
    #[default]
    Controller,
    /// Only these tasks; where a command is given, an order's argv must equal it.
    Listed(BTreeMap<TaskId, Option<Vec<String>>>),
    /// Nothing: `--register-only`.
    Never,
}

impl Policy {
    /// The policy's name in `info`.
    pub fn name(&self) -> ExecutionPolicy {
        match self {
            Self::Controller => ExecutionPolicy::Controller,
            Self::Listed(_) => ExecutionPolicy::Listed,
            Self::Never => ExecutionPolicy::Never,
        }
    }

    /// The listed tasks, for `info`; `None` with any other policy.
    pub fn listed(&self) -> Option<Vec<TaskId>> {
        if let Self::Listed(tasks) = self { Some(tasks.keys().cloned().collect()) } else { None }
    }
}

/// What an agent needs to know. [`AgentOptions::new`] has sensible values for what is not asked
/// for.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// The machine's stable name.
    pub pi: PiId,
    /// The agent's own label; it counts until somebody renames the machine.
    pub label: Option<String>,
    /// The cadence of samples; the controller's setting wins over it.
    pub interval: Duration,
    /// What the agent is willing to run.
    pub policy: Policy,
    /// The folder for the state of runs: each is on disk before the agent acts. It is made when
    /// missing.
    pub runs: PathBuf,
    /// The controller's key that was pinned: only its orders count.
    pub controller_key: PublicKey,
    /// Whether `status` is the agent's to publish; not inside the controller, whose status is the
    /// controller's.
    pub publishes_status: bool,
    /// The nice value of tasks, 0 to 19.
    pub nice: i32,
    /// Where `proc`, `sys`, `etc` and `run` are: `/`, except in tests.
    pub root: PathBuf,
    /// How many samples are kept while disconnected, one a minute at most.
    pub backlog_samples: usize,
    /// The socket of the root runner; tasks with `root = true` are refused while nothing is there.
    pub runner_socket: PathBuf,
    /// Words before each task's own: of a program that confines itself and then becomes the task.
    /// Without any, tasks are started as they are.
    pub launcher: Vec<OsString>,
    /// How long running tasks may take to end when the agent is stopped.
    pub stop_grace: Duration,
    /// Whom the agent's loop tells that it goes round; nobody inside the controller, whose own loop
    /// does.
    pub notify: Option<Arc<Notify>>,
}

/// The default cadence of samples.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// A day at one sample a minute: 1.1 to 1.6 MB when full, as a Pi's sample has 0.7 to 1.1 kB.
pub const DEFAULT_BACKLOG_SAMPLES: usize = 24 * 60;

/// How long running tasks may take to end when whoever runs them is stopped.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// Where the root runner listens.
pub const DEFAULT_RUNNER_SOCKET: &str = "/run/pistat-runner.sock";

impl AgentOptions {
    /// Options with the defaults of `config/agent.toml`.
    pub fn new(pi: PiId, runs: PathBuf, controller_key: PublicKey) -> Self {
        Self {
            pi,
            label: None,
            interval: DEFAULT_INTERVAL,
            policy: Policy::default(),
            runs,
            controller_key,
            publishes_status: true,
            nice: 5,
            root: PathBuf::from("/"),
            backlog_samples: DEFAULT_BACKLOG_SAMPLES,
            runner_socket: PathBuf::from(DEFAULT_RUNNER_SOCKET),
            launcher: Vec::new(),
            stop_grace: STOP_GRACE,
            notify: None,
        }
    }
}
