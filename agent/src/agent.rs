//! The agent's one loop, which owns all of its state.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{AgentError, AgentOptions, Incoming, Outgoing};

/// The agent.
pub(crate) struct Agent {
    options: AgentOptions,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Agent {
    /// An agent that has read its folder.
    pub(crate) fn start(options: AgentOptions, outgoing: mpsc::Sender<Outgoing>) -> Result<Self, AgentError> {
        let made = std::fs::create_dir_all(&options.runs);
        made.map_err(|source| AgentError::Runs { path: options.runs.clone(), source })?;
        Ok(Self { options, outgoing })
    }

    /// Runs until it is asked to stop.
    pub(crate) async fn run(
        self,
        mut incoming: mpsc::Receiver<Incoming>,
        stop: CancellationToken,
    ) -> Result<(), AgentError> {
        tracing::debug!(pi = %self.options.pi, open = !self.outgoing.is_closed(), "started");
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                heard = incoming.recv() => if heard.is_none() { return Err(AgentError::ConnectionGone) },
            }
        }
    }
}
