//! The agent without its connection: what a machine publishes, and what it does with what it hears.
//!
//! Used by the `pistat-agent` binary over its own connection, and inside the controller, for the
//! controller's own machine, over the controller's. It never opens a socket to a broker itself.
//! Whoever embeds it is the process's only spawner of children: orphans of tasks are adopted and
//! reaped here.

mod agent;
mod backlog;
mod cadence;
pub mod config;
pub mod connection;
pub mod credential;
pub mod enroll;
pub mod facts;
mod memory;
pub mod mqtt;
pub mod options;
#[cfg(test)]
mod recorded;
pub mod runner;
mod stats;
mod task;
mod waiting;
mod wire;

use bytes::Bytes;
use pistat_protocol::topic::Topic;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use crate::options::{AgentOptions, Policy};

/// What the agent hears from whoever holds its connection.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// The connection is up and every filter of [`pistat_protocol::topic::Topics::agent_filters`]
    /// is subscribed.
    Connected,
    /// The connection is gone. What was handed over and not yet sent may be dropped: the agent
    /// repeats what matters.
    Disconnected,
    /// A message on one of the agent's topics.
    Message {
        /// Its topic.
        topic: Topic,
        /// Its payload.
        payload: Bytes,
        /// Whether it was delivered with the retain flag: such an order never runs.
        retain: bool,
    },
}

/// What the agent publishes.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its topic.
    pub topic: Topic,
    /// Its payload.
    pub payload: Vec<u8>,
    /// 0 or 1.
    pub qos: u8,
    /// Whether the broker keeps it.
    pub retain: bool,
}

/// Why the agent ended without having been asked to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The folder for the state of runs cannot be used.
    #[error("the folder for the state of runs, {path}, cannot be used: {source}")]
    Runs {
        /// Which folder.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Whoever holds the connection went away.
    #[error("the agent's connection ended without having been asked to")]
    ConnectionGone,
}

/// Keeps what this process has in memory from everybody but root: no core dump, no debugger, no
/// `/proc/<pid>/mem` and `environ` for another process of the same user, such as a task
/// (`PR_SET_DUMPABLE`, prctl(2)). What it starts begins anew, so tasks are as debuggable as ever.
pub fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    // It fails for no value that is given here.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Runs the agent until `stop` is cancelled.
///
/// On `stop`, running tasks are ended, and `offline` is the last thing that is published (unless
/// the embedder publishes the status itself).
///
/// # Errors
/// The folder for the state of runs cannot be used, or the connection's holder went away.
pub async fn run(
    options: AgentOptions,
    incoming: mpsc::Receiver<Incoming>,
    outgoing: mpsc::Sender<Outgoing>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    agent::Agent::start(options, outgoing)?.run(incoming, stop).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The controller runs the agent as a task on a runtime with several threads.
    #[test]
    fn an_embedder_may_move_it_between_threads() {
        fn movable<T: Send>(_: impl Fn(AgentOptions, mpsc::Receiver<Incoming>, mpsc::Sender<Outgoing>) -> T) {}
        movable(|options, incoming, outgoing| run(options, incoming, outgoing, CancellationToken::new()));
    }
}
