//! Wiring: opens the state, binds the ports, starts every part, and ends them in order.

use std::{
    collections::HashSet,
    ffi::OsString,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, TryFutureExt};
use pistat_broker::{Broker, BrokerConfig, BrokerEvent, TlsListener};
use pistat_history::History;
use pistat_protocol::order::JoinToken;
use pistat_support::{notify::Notify, random::new_secret};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::SecretHash,
    bridge::{self, BrokerAddress},
    catalogue::Catalogue,
    catalogue_file,
    config::{self, Config, Problem},
    confine::{self, Confinement},
    directory::directory,
    fleet::Now,
    homeassistant::birth_topics,
    hub::{ASKS, FINDINGS, Hub, HubParts, Inputs, Recorder},
    install::{self, Downloads},
    own_address::OwnAddress,
    own_machine,
    shutdown::{Ended, Request, Signals},
    store::{Loaded, Retention, Store, StoreError},
    web::{self, Listener, Readers, Web},
};

/// How often the catalogue's file is looked at.
const CATALOGUE_LOOK: Duration = Duration::from_secs(2);

/// How long each part may take to end.
const GRACE: Duration = Duration::from_secs(6);

/// Why the controller did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The catalogue is not valid: every problem, with its place.
    #[error("{}", sentences(.0))]
    Catalogue(Vec<Problem>),
    /// `[mqtt.limits]` is not valid.
    #[error("[mqtt.limits] is not valid: {0}")]
    Limits(serde_json::Error),
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The embedded broker cannot start.
    #[error(transparent)]
    Broker(#[from] pistat_broker::StartError),
    /// The certificates of `mqtt.ca` cannot be used.
    #[error("mqtt.ca: {0}")]
    Authorities(#[from] pistat_support::tls::TlsError),
    /// The HTTP port cannot be used.
    #[error("{0}")]
    Http(String),
    /// The system refuses something basic.
    #[error("the system refuses what the controller needs: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// An exit code of sysexits.h: 64 for what an operator wrote, 69 for a port, 74 for the state
    /// folder, 71 for the system. A certificate is what an operator wrote; one that was good a
    /// moment ago fails here.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Catalogue(_)
            | Self::Limits(_)
            | Self::Authorities(_)
            | Self::Broker(pistat_broker::StartError::Certificate(_)) => 64,
            Self::Broker(pistat_broker::StartError::Listen { .. }) | Self::Http(_) => 69,
            Self::Store(_) | Self::Broker(pistat_broker::StartError::State { .. }) => 74,
            Self::System(_) | Self::Broker(pistat_broker::StartError::Engine(_)) => 71,
        }
    }
}

fn sentences(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Where the controller listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Dashboard, API, MQTT over WebSocket.
    pub http: SocketAddr,
    /// Whether that is HTTPS.
    pub https: bool,
    /// Plain MQTT, with the embedded broker.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over TLS.
    pub mqtts: Option<SocketAddr>,
}

/// What a person needs first.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The code of a sign-in link.
    pub code: String,
    /// The join token.
    pub join_token: JoinToken,
    /// `/install.sh`, with the agents that it can install.
    pub install_script: install::Script,
    /// Whether the account `admin` was made just now.
    pub new_admin: bool,
    /// What was damaged and set aside.
    pub damaged: Vec<String>,
}

/// A running controller.
pub struct Controller {
    addresses: Addresses,
    own_address: Arc<OwnAddress>,
    welcome: Welcome,
    signals: Signals,
    reload: mpsc::Sender<()>,
    parts: JoinSet<Part>,
    /// The parts that have ended.
    ended: HashSet<&'static str>,
    broker: Option<Broker>,
    history: Option<(History, std::thread::JoinHandle<()>)>,
    sockets: TaskTracker,
    stop: Stop,
    notify: Notify,
}

/// How a part of the controller ended.
type Part = (&'static str, Result<(), String>);

/// What is stopped, in this order: first whatever takes new work, last what carries the farewell.
#[derive(Clone, Default)]
struct Stop {
    web: CancellationToken,
    agent: CancellationToken,
    hub: CancellationToken,
    bridge: CancellationToken,
}

impl Controller {
    /// Starts everything, as this file and all else configure it. When it returns, the ports are
    /// open.
    ///
    /// # Errors
    /// Anything that a person has to mend first, in a sentence.
    pub async fn start(config: Config, file: &Path) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let signals = Signals::listen()?;
        // Looked at before it is read: a change in between is then seen as one.
        let seen = fingerprint(&config.tasks);
        let catalogue = catalogue_file::read(&config.tasks).map_err(StartError::Catalogue)?;
        let listener = Listener::bind(&config.http).await.map_err(StartError::Http)?;
        let (store, mut loaded, stored) =
            tokio::task::block_in_place(|| Store::open(&config.state, retention(&config)))?;
        let (history, history_thread) = start_history(&config, &store, &mut loaded)?;
        let readers = Readers::open(|| store.reader())?;
        let controller_secret = new_secret()?;
        let (broker, broker_events) = start_broker(&config, &store, &loaded, &controller_secret).await?;
        let addresses = addresses(&listener, broker.as_ref())?;
        let own_address = Arc::new(OwnAddress::new(&config, addresses.http, addresses.https));

        let (stop, sockets) = (Stop::default(), TaskTracker::new());
        let (hub_end, bridge_end) = bridge::channels();
        let outgoing = hub_end.outgoing.clone();
        let (asks_sender, asks) = mpsc::channel(ASKS);
        let (findings_sender, findings) = mpsc::channel(FINDINGS);
        let (catalogue_sender, catalogues) = mpsc::channel(1);
        let (agent_sender, agent_incoming) = mpsc::channel(own_machine::INCOMING);
        let (reload, reloads) = mpsc::channel(1);
        let (ready, is_ready) = oneshot::channel();
        let (access_sender, access) = watch::channel(Arc::new(loaded.access.clone()));
        let (uses_sender, uses) = watch::channel(Arc::default());
        let (key, join_token) = (loaded.key.public(), loaded.join_token.clone());
        let (new_admin, damaged, own_runs) = (loaded.new_admin, loaded.damaged.clone(), store.own_runs_folder());
        let handle = broker.as_ref().map(Broker::handle);
        let mut hub = Hub::new(HubParts {
            config: Arc::clone(&config),
            catalogue,
            store,
            loaded,
            broker: handle.clone(),
            controller_secret: SecretHash::of(&controller_secret),
            access: access_sender,
            uses: uses_sender,
            mqtt: addresses.mqtt,
            own_address: Arc::clone(&own_address),
            history: Recorder::new(history.clone(), findings_sender),
        });
        let downloads = Arc::new(Downloads::new(&config));
        let install_script = downloads.script().await;
        let welcome = Welcome { code: hub.first_code()?, join_token, install_script, new_admin, damaged };

        let mut parts = JoinSet::new();
        let inputs = Inputs { bridge: hub_end, stored, asks, findings, broker: broker_events, catalogue: catalogues };
        spawn(&mut parts, "the hub", hub.run(inputs, stop.hub.clone()).map(Ok));
        let address =
            broker_address(&config, addresses.mqtt, &controller_secret)?.hearing(birth_topics(&config.homeassistant));
        let topics = config.mqtt.topics.clone();
        let connection = bridge::run(address, bridge_end, agent_sender, ready, stop.bridge.clone());
        spawn(&mut parts, "the connection to the broker", connection.map(Ok));
        let cookie = web::CookieNames::of(&key);
        let options = own_machine::options(own_runs, launcher(&config, file), key);
        let agent = own_machine::run(options, topics, agent_incoming, outgoing, stop.agent.clone());
        spawn(&mut parts, "the agent of this machine", agent.map_err(|error| error.to_string()));
        let reader = watch_catalogue(config.tasks.clone(), seen, reloads, catalogue_sender, stop.web.clone());
        spawn(&mut parts, "the reader of the catalogue", reader.map(Ok));
        let web = Web {
            asks: asks_sender,
            access,
            uses,
            cookie,
            readers: Arc::new(readers),
            broker: handle,
            config,
            downloads,
            mqtt: addresses.mqtt,
            own_address: Arc::clone(&own_address),
            history: history.clone(),
            stop: stop.web.clone(),
            sockets: sockets.clone(),
        };
        spawn(&mut parts, "the web server", web::serve(listener, web::router(web), stop.web.clone()).map(Ok));
        if broker.is_some() {
            // A request that is made once the ports are told must be heard. A broker that is not
            // ours may be away for long.
            let _ = timeout(GRACE, is_ready).await;
        }
        Ok(Self {
            addresses,
            own_address,
            welcome,
            signals,
            reload,
            parts,
            ended: HashSet::new(),
            broker,
            history: Some((history, history_thread)),
            sockets,
            stop,
            notify: tell_ready(),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// By which address it is reached.
    pub fn own_address(&self) -> &OwnAddress {
        &self.own_address
    }

    /// What a person needs first.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Runs until a signal asks it to stop or a part dies; then ends everything.
    pub async fn run(mut self) -> Ended {
        let ended = loop {
            tokio::select! {
                request = self.signals.next() => match request {
                    Request::Stop => break Ended::Asked,
                    // One request to read again is as good as two.
                    Request::Reload => { let _ = self.reload.try_send(()); }
                },
                Some(part) = self.parts.join_next() => break crashed(part),
                error = broker_failed(&mut self.broker) => break Ended::Crashed(format!("the broker ended: {error}")),
            }
        };
        if let Ended::Crashed(sentence) = &ended {
            tracing::error!("{sentence}");
        }
        self.shutdown().await;
        ended
    }

    async fn shutdown(mut self) {
        tracing::info!("stopping");
        self.notify.stopping();
        self.stop.web.cancel();
        self.stop.agent.cancel();
        self.wait_for("the web server").await;
        self.wait_for("the agent of this machine").await;
        self.stop.hub.cancel();
        self.wait_for("the hub").await;
        // No sample comes any more: everything is written.
        if let Some((history, thread)) = self.history.take() {
            let ended = tokio::task::spawn_blocking(move || {
                history.end();
                thread.join()
            });
            if timeout(GRACE, ended).await.is_err() {
                tracing::warn!("the history was not written in time");
            }
        }
        self.stop.bridge.cancel();
        self.wait_for("the connection to the broker").await;
        if let Some(broker) = self.broker.take()
            && timeout(GRACE, broker.shutdown()).await.is_err()
        {
            tracing::warn!("the broker did not end in time");
        }
        // Who does not take the last words goes without them.
        self.sockets.close();
        let _ = timeout(web::LAST_WORDS, self.sockets.wait()).await;
    }

    /// Waits until a part has ended, or the time for it is over.
    async fn wait_for(&mut self, name: &'static str) {
        let deadline = tokio::time::sleep(GRACE);
        tokio::pin!(deadline);
        while !self.ended.contains(name) {
            tokio::select! {
                part = self.parts.join_next() => match part {
                    Some(Ok((ended, _))) => {
                        self.ended.insert(ended);
                    }
                    Some(Err(error)) => tracing::warn!(%error, "a part of the controller panicked while it was stopping"),
                    None => return,
                },
                () = &mut deadline => return tracing::warn!("{name} did not end in time"),
            }
        }
    }
}

/// Tells the service manager that the ports are open.
fn tell_ready() -> Notify {
    let notify = Notify::from_environment();
    notify.ready();
    notify
}

/// What starts the tasks of this machine.
fn launcher(config: &Config, file: &Path) -> Vec<OsString> {
    if confine::is_available() {
        return Confinement::of(config, file).launcher();
    }
    tracing::warn!("{}", confine::UNAVAILABLE);
    Vec::new()
}

fn addresses(listener: &Listener, broker: Option<&Broker>) -> io::Result<Addresses> {
    let broker = broker.map(Broker::addresses);
    Ok(Addresses {
        http: listener.address()?,
        https: listener.is_tls(),
        mqtt: broker.and_then(|addresses| addresses.mqtt),
        mqtts: broker.and_then(|addresses| addresses.mqtts),
    })
}

fn crashed(part: Result<Part, tokio::task::JoinError>) -> Ended {
    Ended::Crashed(match part {
        Ok((name, Ok(()))) => format!("{name} ended without having been asked to"),
        Ok((name, Err(error))) => format!("{name} ended: {error}"),
        Err(error) => format!("a part of the controller panicked: {error}"),
    })
}

fn spawn(
    parts: &mut JoinSet<Part>,
    name: &'static str,
    part: impl Future<Output = Result<(), String>> + Send + 'static,
) {
    parts.spawn(async move { (name, part.await) });
}

async fn broker_failed(broker: &mut Option<Broker>) -> pistat_broker::BrokerError {
    match broker {
        Some(broker) => broker.failed().await,
        None => std::future::pending().await,
    }
}

/// Opens the history. Nothing else depends on it: where it cannot be kept, that is said, and what
/// is measured is kept until the controller ends.
fn start_history(
    config: &Config,
    store: &Store,
    loaded: &mut Loaded,
) -> io::Result<(History, std::thread::JoinHandle<()>)> {
    let (history, notes) = tokio::task::block_in_place(|| {
        let (file, settings) = (store.history_file(), config.history.settings());
        pistat_history::Store::open_or_forget(&file, &settings, Now::get())
    })
    .map_err(io::Error::other)?;
    loaded.damaged.extend(notes);
    History::start(history)
}

fn retention(config: &Config) -> Retention {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Retention {
        days: small(config.runs.keep.as_secs().div_ceil(86_400)),
        runs: small(config.runs.keep_runs),
        events: small(config.runs.keep_events),
        audit: small(config.runs.keep_audit),
    }
}

type Started = (Option<Broker>, Option<mpsc::Receiver<BrokerEvent>>);

async fn start_broker(config: &Config, store: &Store, loaded: &Loaded, secret: &str) -> Result<Started, StartError> {
    if config.mqtt.broker != config::Broker::Embedded {
        return Ok((None, None));
    }
    let limits = serde_json::from_value(config.mqtt.limits.clone().into()).map_err(StartError::Limits)?;
    let tls = config.mqtt.tls.as_ref();
    let broker = BrokerConfig {
        listen: Some(config.mqtt.listen),
        tls: tls.map(|tls| TlsListener { listen: tls.listen, cert: tls.tls.cert.clone(), key: tls.tls.key.clone() }),
        state: Some(store.broker_folder()),
        topics: config.mqtt.topics.clone(),
        discovery: Some(config.homeassistant.prefix.clone()),
        limits,
    };
    let directory = directory(
        &loaded.access,
        &config.accounts,
        &loaded.join_token,
        SecretHash::of(secret),
        std::time::SystemTime::now().into(),
    );
    let (broker, events) = Broker::start(broker, directory).await?;
    Ok((Some(broker), Some(events)))
}

fn broker_address(config: &Config, mqtt: Option<SocketAddr>, secret: &str) -> Result<BrokerAddress, StartError> {
    let topics = &config.mqtt.topics;
    Ok(match (&config.mqtt.broker, mqtt) {
        (config::Broker::External(url), _) => BrokerAddress::external(url, config.mqtt.ca.as_deref(), topics)?,
        (config::Broker::Embedded, address) => {
            let port = address.map_or(0, |address| address.port());
            let host = match address.map(|address| address.ip()) {
                Some(ip) if !ip.is_unspecified() => ip.to_string(),
                Some(std::net::IpAddr::V6(_)) => "::1".into(),
                _ => "127.0.0.1".into(),
            };
            BrokerAddress::embedded(&host, port, secret, topics)
        }
    })
}

/// Reads the catalogue again when its file changes or somebody asks for it.
async fn watch_catalogue(
    file: PathBuf,
    mut seen: Fingerprint,
    mut reloads: mpsc::Receiver<()>,
    hub: mpsc::Sender<Result<Catalogue, Vec<Problem>>>,
    stop: CancellationToken,
) {
    let mut look = interval(CATALOGUE_LOOK);
    // Until there is a file, the catalogue that ships is in force; from then on only a file
    // replaces it.
    let mut was_there = seen.is_some();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = reloads.recv() => seen = fingerprint(&file),
            _ = look.tick() => {
                let now = fingerprint(&file);
                if now == seen {
                    continue;
                }
                seen = now;
            }
        }
        let path = file.clone();
        let read = if was_there { catalogue_file::read_again } else { catalogue_file::read };
        was_there |= seen.is_some();
        let Ok(catalogue) = tokio::task::spawn_blocking(move || read(&path)).await else { return };
        if hub.send(catalogue).await.is_err() {
            return;
        }
    }
}

/// What tells one version of a file from another: time of change, size and inode.
type Fingerprint = Option<(i64, i64, u64, u64)>;

fn fingerprint(file: &std::path::Path) -> Fingerprint {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino()))
}
