//! One way to stop: a signal, or the first part that dies. Both end everything in the same order,
//! within the same time.

use tokio::signal::unix::{SignalKind, signal};

/// Why the controller ended; its exit code says which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Somebody asked: Ctrl-C or SIGTERM.
    Asked,
    /// A part died of itself: which, and why.
    Crashed(String),
}

impl Ended {
    /// 0 when asked, 70 (`EX_SOFTWARE` of sysexits.h) when crashed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Asked => 0,
            Self::Crashed(_) => 70,
        }
    }
}

/// Signals that matter.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Stop.
    Stop,
    /// Read the catalogue again.
    Reload,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.terminate.recv() => Request::Stop,
            _ = self.hangup.recv() => Request::Reload,
        }
    }
}
