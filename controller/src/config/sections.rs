//! What the configuration means, typed, with every default.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use pistat_protocol::{
    account::Role,
    id::{AccountName, TaskId},
    topic::Topics,
};

use pistat_support::mqtt_url::MqttUrl;

/// Flags of `pistat serve` that win over everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config FILE`: unlike the default file, it must exist.
    pub config: Option<PathBuf>,
    /// `--http ADDR:PORT`.
    pub http: Option<String>,
    /// `--mqtt ADDR:PORT`.
    pub mqtt: Option<String>,
    /// `--state DIR`.
    pub state: Option<PathBuf>,
    /// `--tasks FILE`.
    pub tasks: Option<PathBuf>,
    /// `--log-level LEVEL`.
    pub log_level: Option<String>,
}

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the state is kept.
    pub state: PathBuf,
    /// The catalogue's file.
    pub tasks: PathBuf,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Dashboard and API.
    pub http: Http,
    /// Broker and topics.
    pub mqtt: Mqtt,
    /// Home Assistant's discovery.
    pub homeassistant: HomeAssistant,
    /// Runs: waiting, retention, concurrency.
    pub runs: Runs,
    /// How machines join.
    pub enrolment: Enrolment,
    /// What machines measured: for how long, in how much space.
    pub history: History,
    /// Topic rules of accounts.
    pub accounts: Vec<AccountRules>,
    /// For the log: keys of earlier versions that the configuration still uses.
    pub notices: Vec<super::Problem>,
}

/// `[enrolment]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolment {
    /// How many new machines the default join token lets in within an hour.
    pub per_hour: usize,
}

/// `[history]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The most bytes that its file takes.
    pub space: u64,
    /// How long steps of ten seconds are kept.
    pub fine: Duration,
    /// How long minutes are kept.
    pub minute: Duration,
    /// How long quarters of an hour are kept.
    pub quarter: Duration,
    /// How often it is written.
    pub flush: Duration,
}

impl History {
    /// As the store takes it.
    pub fn settings(&self) -> pistat_history::Settings {
        pistat_history::Settings {
            space_bytes: self.space,
            keep: [self.fine, self.minute, self.quarter],
            flush: self.flush,
        }
    }
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where the dashboard, the API and MQTT over WebSocket listen.
    pub listen: SocketAddr,
    /// With a certificate the port speaks HTTPS.
    pub tls: Option<Tls>,
    /// `public_url`: how people and agents reach this controller, when it is behind a reverse
    /// proxy.
    pub public_url: Option<String>,
    /// `downloads`: the folder of the agents that are handed out; `None` is where packages and the
    /// state folder have them.
    pub downloads: Option<PathBuf>,
    /// What its clients may take.
    pub limits: HttpLimits,
}

/// `[http.limits]`: what clients of the HTTP port may take, so that silent ones keep no one out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at once. 12,000 is a fleet of 10,000 at `/mqtt`, and people.
    pub connections: usize,
    /// Of them, those that are not authenticated; beyond, the oldest of them is evicted. So many
    /// cost some 50 MB with TLS.
    pub unauthenticated_connections: usize,
    /// Of those, the ones from one network address. A fleet behind one router or proxy that
    /// reconnects all at once needs some.
    pub unauthenticated_connections_per_address: usize,
    /// How long a client may take for the TLS handshake, and for the head of its next request.
    pub header_timeout: Duration,
    /// How long a client may take for the body of a request.
    pub body_timeout: Duration,
    /// How long a client may take nothing of a reply.
    pub write_timeout: Duration,
}

/// A certificate chain and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain's file.
    pub cert: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
}

/// `[mqtt]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mqtt {
    /// Where the embedded broker listens.
    pub listen: SocketAddr,
    /// MQTT over TLS, on its own port.
    pub tls: Option<MqttTls>,
    /// Ours, or another.
    pub broker: Broker,
    /// `ca`: the certificate authorities (PEM) to believe instead of the system's, for another
    /// broker over TLS.
    pub ca: Option<PathBuf>,
    /// The prefix of all topics.
    pub topics: Topics,
    /// Who may ask over MQTT with an external broker; `None` is nobody.
    pub requests: Option<Requests>,
    /// `[mqtt.limits]`: bounds of the embedded broker, as a JSON object of what the file sets;
    /// empty without any.
    pub limits: serde_json::Map<String, serde_json::Value>,
}

/// `[mqtt.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttTls {
    /// Where MQTT over TLS listens.
    pub listen: SocketAddr,
    /// Its certificate.
    pub tls: Tls,
}

/// Which broker carries the fleet's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broker {
    /// The controller's own.
    Embedded,
    /// Another, of which controller and agents are clients.
    External(MqttUrl),
}

/// `[mqtt.requests]`: what anybody whom an external broker lets publish may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// With which role their requests are checked.
    pub role: Role,
    /// Which tasks they may ask for.
    pub tasks: Vec<TaskId>,
}

/// `[homeassistant]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeAssistant {
    /// Whether machines are announced.
    pub discovery: bool,
    /// Home Assistant's discovery prefix.
    pub prefix: String,
}

/// `[runs]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// How long a run may wait for an offline machine; zero refuses at once.
    pub expires: Duration,
    /// How long a machine may be silent before its runs are lost.
    pub lost_after: Duration,
    /// How long finished runs and events are kept.
    pub keep: Duration,
    /// How many finished runs are kept at most.
    pub keep_runs: u64,
    /// How many events about machines, connections and the ends of runs are kept at most.
    pub keep_events: u64,
    /// How many events about access, and how many about requests for tasks, are kept at most, apart
    /// from all others.
    pub keep_audit: u64,
    /// How many runs a machine does at a time, over all tasks.
    pub per_machine: u32,
}

/// `[[account]]`: topic rules of an account, besides its role's. They win over the register's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRules {
    /// Whose.
    pub name: AccountName,
    /// Topic filters that it may publish to.
    pub publish: Vec<String>,
    /// Topic filters that it may receive.
    pub subscribe: Vec<String>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what is worth a look.
    Warn,
    /// And what happens.
    Info,
    /// And how.
    Debug,
    /// And every detail.
    Trace,
}

impl LogLevel {
    /// The level's name, as `tracing` knows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LogLevel {
    type Err = String;

    /// Any case; `warning` and `critical` are Python's names, which users of the original know.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "error" | "critical" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(format!("{text:?} is not a log level: it is error, warn, info, debug or trace")),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "state".into(),
            tasks: "config/tasks.toml".into(),
            log_level: LogLevel::Info,
            http: Http::default(),
            mqtt: Mqtt::default(),
            homeassistant: HomeAssistant { discovery: true, prefix: "homeassistant".into() },
            runs: Runs::default(),
            enrolment: Enrolment { per_hour: 1000 },
            history: History::default(),
            accounts: Vec::new(),
            notices: Vec::new(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: any_address(8000), tls: None, public_url: None, downloads: None, limits: HttpLimits::default() }
    }
}

impl Default for History {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self {
            space: 1 << 30,
            fine: days(7),
            minute: days(90),
            quarter: days(5 * 365 + 1),
            flush: Duration::from_secs(3600),
        }
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 12_000,
            unauthenticated_connections: 2_000,
            unauthenticated_connections_per_address: 1_000,
            // Longer than clients keep a connection for their next request, so that mostly they
            // close it.
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            listen: any_address(1883),
            tls: None,
            broker: Broker::Embedded,
            ca: None,
            topics: Topics::default(),
            requests: None,
            limits: serde_json::Map::new(),
        }
    }
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            expires: Duration::from_secs(10 * 60),
            lost_after: Duration::from_secs(24 * 3600),
            keep: Duration::from_secs(90 * 24 * 3600),
            keep_runs: 10_000,
            keep_events: 10_000,
            keep_audit: 20_000,
            per_machine: 4,
        }
    }
}

fn any_address(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}
