//! The controller's own machine: the same agent as on every Pi, over the controller's own
//! connection.

use std::{ffi::OsString, path::PathBuf};

use pistat_agent::{AgentError, AgentOptions, Incoming, Outgoing};
use pistat_protocol::{id::PiId, order::PublicKey, topic::Topics};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bridge;

/// How many messages wait for the agent: orders and acknowledgements of its own runs.
pub(crate) const INCOMING: usize = 256;

/// How many messages of the agent wait for the bridge: a few pages of output.
const OUTGOING: usize = 64;

/// How this machine's agent differs from another: its status is the controller's, and its tasks are
/// started by this launcher.
pub(crate) fn options(runs: PathBuf, launcher: Vec<OsString>, key: PublicKey) -> AgentOptions {
    let mut options = AgentOptions::new(PiId::controller(), runs, key);
    options.publishes_status = false;
    options.launcher = launcher;
    options
}

/// Runs the agent until `stop` is cancelled.
pub(crate) async fn run(
    options: AgentOptions,
    topics: Topics,
    incoming: mpsc::Receiver<Incoming>,
    bridge: mpsc::Sender<bridge::Outgoing>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let (sender, outgoing) = mpsc::channel(OUTGOING);
    let agent = pistat_agent::run(options, incoming, sender, stop);
    let (result, ()) = tokio::join!(agent, forward(outgoing, topics, bridge));
    result
}

async fn forward(mut outgoing: mpsc::Receiver<Outgoing>, topics: Topics, bridge: mpsc::Sender<bridge::Outgoing>) {
    while let Some(Outgoing { topic, payload, qos, retain }) = outgoing.recv().await {
        let message = bridge::Outgoing { topic: topics.format(&topic), payload, qos, retain, correlation: None };
        if bridge.send(message).await.is_err() {
            return;
        }
    }
}
