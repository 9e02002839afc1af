//! The embedded MQTT broker.
//!
//! [`Broker::start`] → [`Broker::addresses`], [`Broker::handle`], [`Broker::shutdown`]. Clients
//! talk to `session`, which speaks MQTT 3.1.1 and 5 on one port; every accepted message passes
//! rumqttd's log once and in one order (`spine`); the hub reads it there and delivers it through
//! our own topic tree. No client ever talks to `rumqttd` itself.

mod access;
mod admission;
mod contract;
mod events;
mod filter;
mod front;
mod hub;
mod incomplete;
mod limits;
mod listener;
mod message;
mod outbox;
mod packet;
mod rates;
mod retained;
mod session;
mod spine;
mod statistics;
mod store;
mod tls;
mod topic_tree;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use pistat_protocol::topic::Topics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use access::Access;
use admission::Admission;
use events::Events;
use front::Front;
use hub::Hub;
use message::Clock;
use statistics::Counters;
use store::{Restored, Store};

pub use access::table::{Grants, Party, births};
pub use access::{CONTROLLER_USER, Directory, Identity, SecretHash};
pub use events::{BrokerEvent, Protocol};
pub use limits::{Bounds, Limits, SlowSubscriber};
pub use statistics::Statistics;
pub use tls::Certificate;

/// Reads the first packet of a stream as a session does; returns its length if it is valid. For
/// fuzzing.
#[doc(hidden)]
pub fn read_packet(bytes: &[u8], v5: bool) -> Option<usize> {
    let frame = packet::split(bytes, Limits::default().packet_bytes).ok().flatten()?;
    let understood = if frame.header == packet::PacketType::Connect.header() {
        packet::decode_connect(&frame).is_ok()
    } else {
        packet::decode(&frame, v5).is_ok()
    };
    understood.then_some(frame.length)
}

/// How the broker is run.
#[derive(Debug, Clone, Default)]
pub struct BrokerConfig {
    /// Where plain MQTT is spoken; `None` for no such port.
    pub listen: Option<SocketAddr>,
    /// Where MQTT over TLS is spoken.
    pub tls: Option<TlsListener>,
    /// The folder for what must outlive a restart: retained messages, the last wills of connected
    /// clients, and sessions that are to be kept. `None` keeps them in memory only.
    pub state: Option<PathBuf>,
    /// The topics of Pi Stat, which have rules of their own.
    pub topics: Topics,
    /// Home Assistant's discovery prefix where it is not `homeassistant`: accounts have the same
    /// rights under both.
    pub discovery: Option<String>,
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
        /// The system's error.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The certificate or its key is unusable.
    #[error(transparent)]
    Certificate(#[from] pistat_support::tls::TlsError),
    /// The state folder is unusable.
    #[error("cannot keep retained messages in {}: {source}", path.display())]
    State {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
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

/// A running broker. Stop it with [`Broker::shutdown`]; dropping it asks its tasks to end without
/// waiting for them.
pub struct Broker {
    front: Arc<Front>,
    addresses: Addresses,
    /// What must not end while the broker runs: the hub and the ports.
    hub: Option<JoinHandle<Result<hub::Stopped, BrokerError>>>,
    ports: JoinSet<()>,
    _stop_on_drop: DropGuard,
}

impl Broker {
    /// Opens the ports and starts. The receiver gets the broker's events; it may be ignored.
    ///
    /// # Errors
    /// A port is taken, the certificate is unusable, the state folder cannot be written.
    pub async fn start(
        config: BrokerConfig,
        directory: Directory,
    ) -> Result<(Self, mpsc::Receiver<BrokerEvent>), StartError> {
        let certificate = config.tls.as_ref().map(|tls| Certificate::load(&tls.cert, &tls.key)).transpose()?;
        let plain = config.listen.map(|address| listener::open("MQTT", address)).transpose()?;
        let tls = config.tls.as_ref().map(|tls| listener::open("MQTT over TLS", tls.listen)).transpose()?;
        let addresses = Addresses { mqtt: plain.as_ref().map(|(_, at)| *at), mqtts: tls.as_ref().map(|(_, at)| *at) };

        let counters = Arc::new(Counters::default());
        let (events, event_receiver) = Events::new(counters.clone());
        let (store, restored) = open_store(config.state, &counters).await?;
        if let Some((kept, reason)) = restored.damaged.clone() {
            tracing::error!(kept = %kept.display(), reason, "the file of retained messages was damaged");
            events.send(BrokerEvent::StateDamaged { kept, reason });
        }
        let (spine, spine_receiver) = spine::open().await?;
        let (commands, command_receiver) = mpsc::channel(contract::COMMAND_CAPACITY);
        let (closed, closed_receiver) = mpsc::unbounded_channel();
        let (directory, directory_receiver) = watch::channel(Arc::new(directory));
        let stop = CancellationToken::new();
        let front = Arc::new(Front {
            limits: config.limits,
            access: Arc::new(Access::new(&config.topics, config.discovery.as_deref())),
            counters,
            events,
            clock: Clock::new(),
            spine,
            commands,
            closed,
            directory,
            admission: Admission::default(),
            rates: Arc::default(),
            incomplete: Arc::default(),
            throttled_bytes: Arc::default(),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        });
        let inputs = hub::Inputs {
            spine: spine_receiver,
            commands: command_receiver,
            closed: closed_receiver,
            directory: directory_receiver,
        };
        let hub = Some(tokio::spawn(Hub::new(front.clone(), store, restored).run(inputs)));
        let mut ports = JoinSet::new();
        if let Some((listener, _)) = plain {
            ports.spawn(listener::serve_plain(front.clone(), listener));
        }
        if let (Some((listener, _)), Some(certificate)) = (tls, certificate) {
            let (watching, stop) = (certificate.clone().watch(), stop.clone());
            ports.spawn(async move { stop.run_until_cancelled(watching).await.unwrap_or_default() });
            ports.spawn(listener::serve_tls(front.clone(), listener, certificate));
        }
        Ok((Self { front, addresses, hub, ports, _stop_on_drop: stop.drop_guard() }, event_receiver))
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What other parts of the program hold.
    pub fn handle(&self) -> BrokerHandle {
        BrokerHandle { front: self.front.clone() }
    }

    /// Resolves only if the broker dies of itself. After it has, there is nothing left but
    /// [`Broker::shutdown`].
    pub async fn failed(&mut self) -> BrokerError {
        let Some(hub) = &mut self.hub else { return std::future::pending().await };
        let error = tokio::select! {
            hub = hub => {
                self.hub = None;
                match hub {
                    Ok(Err(error)) => error,
                    Ok(Ok(_)) => BrokerError::Failed("it was stopped".to_owned()),
                    Err(error) => BrokerError::Failed(error.to_string()),
                }
            }
            Some(port) = self.ports.join_next() => match port {
                Ok(()) => BrokerError::Failed("a port was closed".to_owned()),
                Err(error) => BrokerError::Failed(error.to_string()),
            },
        };
        self.front.stop.cancel();
        error
    }

    /// Stops: no more connections, MQTT 5 clients get a DISCONNECT, retained messages are on disk,
    /// every task has ended. Wills of connected clients are kept for the next start, as after an
    /// unclean stop.
    pub async fn shutdown(mut self) {
        self.front.stop.cancel();
        while let Some(port) = self.ports.join_next().await {
            if let Err(error) = port {
                tracing::error!(%error, "a port has failed");
            }
        }
        let hub = match self.hub.take() {
            Some(hub) => hub.await.ok().and_then(Result::ok),
            None => None,
        };
        // The hub has ended every session; their tasks end now.
        self.front.tasks.close();
        self.front.tasks.wait().await;
        if let Some(stopped) = hub
            && let Err(error) = tokio::task::spawn_blocking(move || stopped.finish()).await
        {
            tracing::error!(%error, "retained messages may not be on disk");
        }
    }
}

async fn open_store(
    folder: Option<PathBuf>,
    counters: &Arc<Counters>,
) -> Result<(Option<Store>, Restored), StartError> {
    let Some(folder) = folder else { return Ok((None, Restored::default())) };
    let (path, counters) = (folder.clone(), counters.clone());
    let opened = tokio::task::spawn_blocking(move || Store::open(&folder, counters)).await;
    let opened = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    opened.map(|(store, restored)| (Some(store), restored)).map_err(|source| StartError::State { path, source })
}

/// A handle to a running broker.
#[derive(Clone)]
pub struct BrokerHandle {
    front: Arc<Front>,
}

impl BrokerHandle {
    /// Serves MQTT on any byte stream, as if it had come through a port. Needs a tokio runtime.
    /// `on_authenticated` is called when the client was accepted.
    pub fn serve<S>(&self, stream: S, peer: SocketAddr, on_authenticated: impl FnOnce() + Send + 'static)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !self.front.stop.is_cancelled() {
            self.front.tasks.spawn(session::serve(self.front.clone(), stream, peer, on_authenticated));
        }
    }

    /// Accounts have changed: sessions whose credential is gone or changed, or whose rights shrank,
    /// end at once.
    pub fn set_directory(&self, directory: Directory) {
        self.front.directory.send_replace(Arc::new(directory));
    }

    /// Whether the owner, who may publish everywhere, may answer an account's request on this topic
    /// without lending it that right.
    pub fn may_answer(&self, account: &str, topic: &str) -> bool {
        self.front.access.may_be_answered(&self.front.directory.borrow(), account, topic)
    }

    /// The largest packet that is taken, in bytes.
    pub fn packet_bytes(&self) -> usize {
        self.front.limits.packet_bytes as usize
    }

    /// The largest CONNECT packet that is taken, in bytes.
    pub fn connect_packet_bytes(&self) -> usize {
        self.front.limits.connect_packet_bytes() as usize
    }

    /// Every counter, now.
    pub fn statistics(&self) -> Statistics {
        self.front.counters.read()
    }
}
