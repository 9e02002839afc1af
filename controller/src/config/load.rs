//! From merged layers to a [`Config`]: every key is read, every problem kept.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use pistat_protocol::topic::Topics;
use pistat_support::file;

use super::{
    AccountRules, Broker, Config, Enrolment, Flags, History, HomeAssistant, Http, HttpLimits, Mqtt, MqttTls, Problem,
    Requests, Runs, Tls, certificates,
    item::{Item, Kind, Place, parse_toml},
    layers, parse_size,
    reader::{Problems, Section, near},
    value::{account_name, address, between, broker, check_publish_rule, path, public_url, topic_filter},
};

/// The file that is read when no other is named.
const DEFAULT_FILE: &str = "config/pistat.toml";

/// The file of the package, where the other is not there: so that `pistat login` finds the
/// service's state.
const PACKAGED_FILE: &str = "/etc/pistat/pistat.toml";

/// Which of the two it is.
fn default_file() -> &'static str {
    let is_packaged = !Path::new(DEFAULT_FILE).exists() && Path::new(PACKAGED_FILE).exists();
    if is_packaged { PACKAGED_FILE } else { DEFAULT_FILE }
}

impl Config {
    /// Reads all layers: defaults, the file, the environment, flags.
    ///
    /// # Errors
    /// Every problem, with its place.
    pub fn load(flags: &Flags, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<Problem>> {
        without_problems(Self::load_lenient(flags, environment))
    }

    /// The same, with what could be read in spite of the problems; what is wrong is at its default.
    pub(crate) fn load_lenient(
        flags: &Flags,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> (Option<Self>, Vec<Problem>) {
        let (mut tree, mut problems) = match read_file(flags) {
            Ok(text) => parse_toml(&text, &file_name(flags)),
            Err(problem) => (empty(), vec![problem]),
        };
        problems.extend(layers::overlay(&mut tree, environment, flags));
        Self::of(tree, problems)
    }

    /// Reads a file's text alone, as [`Self::load`] does: the reader's door for fuzzing.
    #[doc(hidden)]
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        let (tree, problems) = parse_toml(text, file);
        without_problems(Self::of(tree, problems))
    }

    fn of(tree: Item, problems: Vec<Problem>) -> (Option<Self>, Vec<Problem>) {
        let problems = Problems::from(problems);
        let config = Section::new("", tree, &problems).map(read);
        let config = config.map(|config| Config { notices: problems.take_notices(), ..config });
        (config, problems.into_list())
    }
}

/// Whether the default file of the current folder is what is read: whoever made the folder has
/// written it.
pub(crate) fn is_of_current_folder(flags: &Flags) -> bool {
    flags.config.is_none() && Path::new(DEFAULT_FILE).exists()
}

/// The same flags, with the package's file, or none, instead of that of the current folder.
pub(crate) fn without_current_folder(flags: &Flags) -> Flags {
    let trusted = if Path::new(PACKAGED_FILE).exists() { PACKAGED_FILE } else { "/dev/null" };
    Flags { config: Some(trusted.into()), ..flags.clone() }
}

fn without_problems((config, problems): (Option<Config>, Vec<Problem>)) -> Result<Config, Vec<Problem>> {
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

impl Flags {
    /// The configuration file that is read.
    pub fn file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| default_file().into())
    }
}

fn file_name(flags: &Flags) -> String {
    flags.config.as_ref().map_or_else(|| default_file().into(), |path| path.display().to_string())
}

/// The file's text. Only the default file may be missing.
fn read_file(flags: &Flags) -> Result<String, Problem> {
    match file::read_text(&flags.file()) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && flags.config.is_none() => Ok(String::new()),
        Err(error) => Err(Place::named(&file_name(flags)).problem(format!("the file cannot be read: {error}"))),
    }
}

fn empty() -> Item {
    Item { place: Place::named(default_file()), kind: Kind::Table(Vec::new()) }
}

fn read(mut root: Section<'_>) -> Config {
    let default = Config::default();
    let mqtt = root.section("mqtt").map_or(default.mqtt, mqtt);
    let config = Config {
        state: root.parsed("state", path).unwrap_or(default.state),
        tasks: root.parsed("tasks", path).unwrap_or(default.tasks),
        log_level: root.parsed("log_level", FromStr::from_str).unwrap_or(default.log_level),
        http: root.section("http").map_or(default.http, http),
        homeassistant: root
            .section("homeassistant")
            .map_or(default.homeassistant, |section| homeassistant(section, &mqtt.topics)),
        runs: root.section("runs").map_or(default.runs, runs),
        enrolment: root.section("enrolment").map_or(default.enrolment, enrolment),
        history: root.section("history").map_or(default.history, history),
        accounts: accounts(root.sections("account"), &mqtt.topics),
        mqtt,
        notices: Vec::new(),
    };
    root.finish();
    config
}

fn http(mut section: Section<'_>) -> Http {
    let default = Http::default();
    let http = Http {
        listen: section.parsed("listen", address).unwrap_or(default.listen),
        tls: section.section("tls").and_then(|section| {
            let (tls, section) = certificate(section);
            section.finish();
            tls
        }),
        public_url: section.parsed("public_url", public_url),
        downloads: section.parsed("downloads", path),
        limits: section.section("limits").map_or(default.limits, http_limits),
    };
    section.finish();
    http
}

/// More connections than a process may have files.
const MOST_CONNECTIONS: i64 = 1_000_000;

fn http_limits(mut section: Section<'_>) -> HttpLimits {
    section.replaced("strangers", &["unauthenticated_connections"]);
    section.replaced("strangers_per_address", &["unauthenticated_connections_per_address"]);
    section.replaced("patience", &["header_timeout", "body_timeout", "write_timeout"]);
    let default = HttpLimits::default();
    let mut count = |key, default| {
        let count = section.integer(key, 1..=MOST_CONNECTIONS).and_then(|count| usize::try_from(count).ok());
        count.unwrap_or(default)
    };
    let connections = count("connections", default.connections);
    let unauthenticated_connections = count("unauthenticated_connections", default.unauthenticated_connections);
    let per_address = "unauthenticated_connections_per_address";
    let unauthenticated_connections_per_address = count(per_address, default.unauthenticated_connections_per_address);
    let mut timeout = |key, default| {
        section.parsed(key, between(Duration::from_secs(1)..=Duration::from_secs(600))).unwrap_or(default)
    };
    let limits = HttpLimits {
        connections,
        unauthenticated_connections,
        unauthenticated_connections_per_address,
        header_timeout: timeout("header_timeout", default.header_timeout),
        body_timeout: timeout("body_timeout", default.body_timeout),
        write_timeout: timeout("write_timeout", default.write_timeout),
    };
    section.finish();
    limits
}

fn enrolment(mut section: Section<'_>) -> Enrolment {
    let per_hour = section.integer("per_hour", 0..=MOST_CONNECTIONS).and_then(|count| usize::try_from(count).ok());
    section.finish();
    Enrolment { per_hour: per_hour.unwrap_or(Config::default().enrolment.per_hour) }
}

fn mqtt(mut section: Section<'_>) -> Mqtt {
    let default = Mqtt::default();
    let (requests_place, ca_place) = (section.place_of("requests"), section.place_of("ca"));
    let mqtt = Mqtt {
        listen: section.parsed("listen", address).unwrap_or(default.listen),
        tls: section.section("tls").and_then(mqtt_tls),
        broker: section.parsed("broker", broker).unwrap_or(default.broker),
        ca: section.parsed("ca", certificates::authorities),
        topics: section.parsed("prefix", Topics::new).unwrap_or(default.topics),
        requests: section.section("requests").and_then(requests),
        limits: section.section("limits").map_or(default.limits, limits),
    };
    if mqtt.requests.is_some() && mqtt.broker == Broker::Embedded {
        section.problem_at(
            &requests_place,
            "[mqtt.requests] is for an external broker; with the embedded one each account's role says what it may ask for",
        );
    }
    let is_tls = matches!(&mqtt.broker, Broker::External(url) if url.scheme.is_tls());
    if section.was_given("ca") && !is_tls {
        section.problem_at(&ca_place, "ca is for a broker that is reached by mqtts:// or wss://");
    }
    section.finish();
    mqtt
}

fn mqtt_tls(mut section: Section<'_>) -> Option<MqttTls> {
    let listen = section.parsed("listen", address).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 8883)));
    let (tls, section) = certificate(section);
    section.finish();
    tls.map(|tls| MqttTls { listen, tls })
}

/// A certificate and its key: both or none, and such that they can be used together.
fn certificate(mut section: Section<'_>) -> (Option<Tls>, Section<'_>) {
    let place = section.place_of("cert");
    let (cert, key) = (section.parsed("cert", certificates::certificate), section.parsed("key", certificates::key));
    for key in ["cert", "key"] {
        if !section.was_given(key) {
            section.problem(format!("{} needs both cert and key; {key} is missing", section.name()));
        }
    }
    let tls = cert.zip(key).map(|(cert, key)| Tls { cert, key });
    if let Some(Err(sentence)) = tls.as_ref().map(certificates::check_pair) {
        section.problem_at(&place, &format!("cert: {sentence}"));
    }
    (tls, section)
}

fn requests(mut section: Section<'_>) -> Option<Requests> {
    let role = section.parsed("role", FromStr::from_str);
    let tasks = section.list("tasks", FromStr::from_str);
    for key in ["role", "tasks"] {
        if !section.was_given(key) {
            section.problem(format!("[mqtt.requests] needs both a role and tasks; {key} is missing"));
        }
    }
    section.finish();
    Some(Requests { role: role?, tasks: tasks? })
}

/// The broker's bounds are the broker's to understand: each key is shown to its type alone, so that
/// each mistake has its line.
fn limits(mut section: Section<'_>) -> serde_json::Map<String, serde_json::Value> {
    for (former, key) in pistat_broker::Limits::FORMER {
        section.replaced(former, key.as_slice());
    }
    let mut limits = serde_json::Map::new();
    let entries = section.take_all();
    for (key, item) in &entries {
        match limit(key, item) {
            Ok(value) => drop(limits.insert(key.clone(), value)),
            Err(sentence) => section.problem_at(&item.place, &sentence),
        }
    }
    // Each by itself is a number; whether it makes sense is the broker's to say, too.
    let understood = serde_json::from_value::<pistat_broker::Limits>(limits.clone().into()).unwrap_or_default();
    for (key, sentence) in understood.problems() {
        let place = entries.iter().find(|(name, _)| name == key).map(|(_, item)| &item.place);
        place.inspect(|place| section.problem_at(place, &sentence));
    }
    limits
}

fn limit(key: &str, item: &Item) -> Result<serde_json::Value, String> {
    let value =
        single_value(item).ok_or_else(|| format!("{key} must be a number or a text, not {}", item.kind.name()))?;
    let alone = serde_json::json!({ key: value.clone() });
    match serde_json::from_value::<pistat_broker::Limits>(alone) {
        Ok(_) => Ok(value),
        Err(error) => Err(limit_problem(key, &error.to_string())),
    }
}

fn limit_problem(key: &str, error: &str) -> String {
    let Some((_, expected)) = error.strip_prefix("unknown field").and_then(|rest| rest.split_once("expected")) else {
        return format!("{key}: {error}");
    };
    // Serde lists every known key between backticks.
    let known = expected.split('`').skip(1).step_by(2);
    let hint = near(key, known)
        .map_or_else(|| "config/pistat.toml shows them all".to_owned(), |near| format!("did you mean {near}?"));
    format!("unknown key {key} in [mqtt.limits]; {hint}")
}

fn single_value(item: &Item) -> Option<serde_json::Value> {
    Some(match &item.kind {
        Kind::Integer(number) => (*number).into(),
        Kind::Number(number) => (*number).into(),
        Kind::Boolean(truth) => (*truth).into(),
        // The environment has only texts.
        Kind::Text(text) if item.place.line.is_none() && text.parse::<i64>().is_ok() => {
            text.parse::<i64>().ok()?.into()
        }
        Kind::Text(text) => text.as_str().into(),
        Kind::List(_) | Kind::Table(_) | Kind::Other(_) => return None,
    })
}

fn homeassistant(mut section: Section<'_>, fleet: &Topics) -> HomeAssistant {
    let default = Config::default().homeassistant;
    let prefix = |text: &str| {
        let prefix = Topics::new(text).map_err(|error| error.to_string())?.prefix().to_owned();
        // Accounts may publish and receive there, which they may not under the fleet's prefix.
        if format!("{prefix}/").starts_with(&format!("{}/", fleet.prefix())) {
            return Err(format!(
                "{prefix} is under {}, whose topics are the fleet's: choose another prefix",
                fleet.prefix()
            ));
        }
        Ok(prefix)
    };
    let homeassistant = HomeAssistant {
        discovery: section.boolean("discovery").unwrap_or(default.discovery),
        prefix: section.parsed("prefix", prefix).unwrap_or(default.prefix),
    };
    section.finish();
    homeassistant
}

/// A day of retention at least, so that a typing error does not empty the register.
const SHORTEST_KEEP: Duration = Duration::from_secs(24 * 3600);
/// The least and the most space of the history.
const LEAST_HISTORY: u64 = 16 << 20;
const MOST_HISTORY: u64 = 1 << 40;
/// Anything longer is the same as for ever.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Fewer would already be cut by one large group.
const FEWEST_KEPT: i64 = 100;
/// Keeps the register's file within what an SD card carries.
const MOST_KEPT: i64 = 10_000_000;

fn history(mut section: Section<'_>) -> History {
    let default = History::default();
    let size = |text: &str| match parse_size(text)? {
        bytes if (LEAST_HISTORY..=MOST_HISTORY).contains(&bytes) => Ok(bytes),
        _ => Err("it is from 16MiB to 1TiB".to_owned()),
    };
    let day = Duration::from_secs(24 * 3600);
    // Agents remember two hours: what is written less often than this could be lost.
    let flush = Duration::from_secs(60)..=Duration::from_secs(90 * 60);
    let history = History {
        space: section.parsed("space", size).unwrap_or(default.space),
        fine: section.parsed("fine", between(Duration::from_secs(3600)..=LONGEST)).unwrap_or(default.fine),
        minute: section.parsed("minute", between(day..=LONGEST)).unwrap_or(default.minute),
        quarter: section.parsed("quarter", between(day..=LONGEST)).unwrap_or(default.quarter),
        flush: section.parsed("flush", between(flush)).unwrap_or(default.flush),
    };
    section.finish();
    history
}

fn runs(mut section: Section<'_>) -> Runs {
    let default = Runs::default();
    let count = |value: Option<i64>, default: u64| value.and_then(|n| u64::try_from(n).ok()).unwrap_or(default);
    let week = Duration::from_secs(7 * 24 * 3600);
    let runs = Runs {
        expires: section.parsed("expires", between(Duration::ZERO..=week)).unwrap_or(default.expires),
        lost_after: section
            .parsed("lost_after", between(Duration::from_secs(60)..=LONGEST))
            .unwrap_or(default.lost_after),
        keep: section.parsed("keep", between(SHORTEST_KEEP..=LONGEST)).unwrap_or(default.keep),
        keep_runs: count(section.integer("keep_runs", FEWEST_KEPT..=MOST_KEPT), default.keep_runs),
        keep_events: count(section.integer("keep_events", FEWEST_KEPT..=MOST_KEPT), default.keep_events),
        keep_audit: count(section.integer("keep_audit", FEWEST_KEPT..=MOST_KEPT), default.keep_audit),
        per_machine: section
            .integer("per_machine", 1..=64)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(default.per_machine),
    };
    section.finish();
    runs
}

fn accounts(sections: Vec<Section<'_>>, topics: &Topics) -> Vec<AccountRules> {
    let mut accounts: Vec<AccountRules> = Vec::new();
    for mut section in sections {
        let name = section.parsed("name", account_name);
        let may_publish = |text: &str| {
            let filter = topic_filter(text)?;
            check_publish_rule(&filter, topics).map(|()| filter)
        };
        let publish = section.list("publish", may_publish).unwrap_or_default();
        let subscribe = section.list("subscribe", topic_filter).unwrap_or_default();
        if !section.was_given("name") {
            section.problem("[[account]] needs a name");
        }
        if let Some(name) = name {
            if accounts.iter().any(|other| other.name.key() == name.key()) {
                section.problem(format!("[[account]] {name} is there twice"));
            }
            accounts.push(AccountRules { name, publish, subscribe });
        }
        section.finish();
    }
    accounts
}

#[cfg(test)]
mod tests;
