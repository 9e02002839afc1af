//! The embedded MQTT broker.
//!
//! [`Broker::start`] → [`Broker::addresses`], [`Broker::handle`], [`Broker::shutdown`]. Strangers meet the front door
//! ([`session`]), which speaks MQTT 3.1.1 and 5 on one port; every message that is accepted passes rumqttd's log once
//! and in one order (`spine`); the hub reads it there and delivers through our own topic tree. `rumqttd` itself never
//! sees a client.

mod access;
mod events;
mod filter;
mod limits;
mod statistics;

use std::net::SocketAddr;
use std::path::PathBuf;

use pistat_protocol::topic::Topics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use access::{CONTROLLER_USER, Directory, Identity, SecretHash};
pub use events::{BrokerEvent, Protocol};
pub use limits::{Limits, SlowSubscriber};
pub use statistics::Statistics;

/// How the broker is run.
#[derive(Debug, Clone, Default)]
pub struct BrokerConfig {
    /// Where plain MQTT is spoken; `None` for no such port.
    pub listen: Option<SocketAddr>,
    /// Where MQTT over TLS is spoken.
    pub tls: Option<TlsListener>,
    /// The folder for what must outlive a restart: retained messages and the last wills of connected clients.
    /// `None` keeps them in memory only.
    pub state: Option<PathBuf>,
    /// The topics of Pi Stat, which have rules of their own.
    pub topics: Topics,
    /// Every bound.
    pub limits: Limits,
}

/// A port for MQTT over TLS. Certificate and key are read again when the files change.
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// Where the broker listens; the ports are known even if 0 was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Plain MQTT.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over TLS.
    pub mqtts: Option<SocketAddr>,
}

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be opened.
    #[error("cannot listen for {what} on {address}: {source}{hint}")]
    Listen {
        /// MQTT or MQTT over TLS.
        what: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// The system's word.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The certificate or its key is unusable.
    #[error("cannot use the certificate {} with the key {}: {reason}", cert.display(), key.display())]
    Certificate {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The state folder is unusable.
    #[error("cannot keep retained messages in {}: {source}", path.display())]
    State {
        /// The folder or file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The engine did not start.
    #[error("the message log did not start: {0}")]
    Engine(String),
}

/// Why the broker died of itself.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The log lost a message, which it must never do.
    #[error("the message log skipped from {expected} to {found}")]
    LogJumped {
        /// The offset that should have come.
        expected: u64,
        /// The offset that came.
        found: u64,
    },
    /// The log's own thread has ended.
    #[error("the message log has stopped")]
    LogStopped,
    /// One of the broker's tasks has panicked.
    #[error("a part of the broker has failed: {0}")]
    Failed(String),
}

/// A running broker. Stop it with [`Broker::shutdown`]; dropping it ends its tasks without the courtesies.
pub struct Broker {}

impl Broker {
    /// Opens the ports and starts. The receiver tells what happens; it may be ignored.
    ///
    /// # Errors
    /// A port is taken, the certificate is unusable, the state folder cannot be written.
    pub async fn start(config: BrokerConfig, directory: Directory) -> Result<(Self, mpsc::Receiver<BrokerEvent>), StartError> {
        todo!()
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        todo!()
    }

    /// What other parts of the program hold.
    pub fn handle(&self) -> BrokerHandle {
        todo!()
    }

    /// Resolves only if the broker dies of itself.
    pub async fn failed(&mut self) -> BrokerError {
        todo!()
    }

    /// Stops: no more connections, MQTT 5 clients are told, retained messages are on disk, every task has ended.
    /// Wills of connected clients are kept for the next start, as after an unclean stop.
    pub async fn shutdown(self) {
        todo!()
    }
}

/// A running broker for those who do not own it.
#[derive(Clone)]
pub struct BrokerHandle {}

impl BrokerHandle {
    /// Serves MQTT on any byte stream, as if it had come through a port.
    pub fn serve<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        todo!()
    }

    /// Accounts have changed: sessions whose credential is gone or changed, or whose rights shrank, end at once.
    pub fn set_directory(&self, directory: Directory) {
        todo!()
    }

    /// Every counter, now.
    pub fn statistics(&self) -> Statistics {
        todo!()
    }
}
