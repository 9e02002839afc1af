//! What the binary is told: flags over environment over file over defaults. All problems are
//! reported at once, in sentences.

pub(crate) mod file;
mod flags;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use pistat_protocol::{
    id::{PiId, is_reserved},
    order::JoinToken,
    status::INTERVAL_SECONDS,
    topic::{DEFAULT_PREFIX, Topics},
};

use pistat_support::{
    file::read_text,
    mqtt_url::{MqttUrl, without_login},
};

use self::file::{Execute, File};
pub use self::flags::Flags;
use crate::{
    credential::Credential,
    options::{DEFAULT_BACKLOG_SAMPLES, DEFAULT_INTERVAL, DEFAULT_RUNNER_SOCKET, Policy},
};

/// The file that is read when none is named, if it is there.
const DEFAULT_FILE: &str = "/etc/pistat/agent.toml";

/// The system's own state folder of the service.
const SYSTEM_STATE: &str = "/var/lib/pistat-agent";

/// Longer labels fit nowhere.
const MAX_LABEL_CHARACTERS: usize = 120;

/// Everything the binary needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the controller is.
    pub address: MqttUrl,
    /// The machine's name.
    pub pi: PiId,
    /// Its label.
    pub label: Option<String>,
    /// The cadence of samples.
    pub interval: Duration,
    /// What it is willing to run.
    pub policy: Policy,
    /// The join token, if one was given.
    pub token: Option<JoinToken>,
    /// The state folder.
    pub state: PathBuf,
    /// Certificates to believe instead of the system's.
    pub ca: Option<PathBuf>,
    /// How much is logged.
    pub log_level: tracing::Level,
    /// The nice value of tasks.
    pub nice: i32,
    /// How many samples are kept while disconnected.
    pub backlog_samples: usize,
    /// The topics' prefix.
    pub topics: Topics,
    /// Where the root runner listens.
    pub runner_socket: PathBuf,
}

/// Everything that is wrong, one sentence each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Config {
    /// Puts flags, environment (which the flags contain already), file and defaults together.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(flags: &Flags) -> Result<Self, Problems> {
        let file = read_file(flags.config.as_deref()).map_err(|problem| Problems(vec![problem]))?;
        Self::merge(flags, &file)
    }

    fn merge(flags: &Flags, file: &File) -> Result<Self, Problems> {
        let mut collect = Collect::default();
        let state = flags.state.clone().or_else(|| file.state.clone()).unwrap_or_else(default_state);
        let address = collect.take(address(flags, file));
        let pi = collect.take(pi_id(flags, file));
        let label = collect.take(label(flags, file));
        let interval = collect.take(interval(flags, file));
        let token = collect.take(token(flags, file, &state));
        let log_level =
            collect.take(log_level(flags.log_level.as_deref().or(file.log_level.as_deref()).unwrap_or("info")));
        let nice = collect.take(nice(file.nice));
        let topics = Topics::new(file.prefix.as_deref().unwrap_or(DEFAULT_PREFIX)).map_err(|error| error.to_string());
        let topics = collect.take(topics);
        let policy = collect.take(policy(flags, file));
        let ready = (address, pi, label, interval, token, log_level, nice, topics, policy);
        let (
            Some(address),
            Some(pi),
            Some(label),
            Some(interval),
            Some(token),
            Some(log_level),
            Some(nice),
            Some(topics),
            Some(policy),
        ) = ready
        else {
            return Err(Problems(collect.problems));
        };
        Ok(Self {
            address,
            pi,
            label,
            interval,
            policy,
            token,
            state,
            ca: flags.ca.clone().or_else(|| file.ca.clone()),
            log_level,
            nice,
            backlog_samples: file.offline_samples.unwrap_or(DEFAULT_BACKLOG_SAMPLES),
            topics,
            runner_socket: file.runner_socket.clone().unwrap_or_else(|| DEFAULT_RUNNER_SOCKET.into()),
        })
    }
}

#[derive(Default)]
struct Collect {
    problems: Vec<String>,
}

impl Collect {
    fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }
}

fn read_file(named: Option<&Path>) -> Result<File, String> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match read_text(path) {
        Ok(text) => File::parse(&text).map_err(|problem| format!("{}: {problem}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok(File::default()),
        Err(error) => Err(format!("the configuration file {} cannot be read: {error}", path.display())),
    }
}

fn address(flags: &Flags, file: &File) -> Result<MqttUrl, String> {
    let text = flags.controller_url.as_ref().or(file.controller_url.as_ref());
    let text =
        text.ok_or("--controller-url is missing: where the controller is, for example http://controller:8000")?;
    MqttUrl::controller(text)
        .map_err(|error| format!("{:?} is not a controller's address: {error}", without_login(text)))
}

fn pi_id(flags: &Flags, file: &File) -> Result<PiId, String> {
    let text = flags.pi_id.as_ref().or(file.pi_id.as_ref());
    let text = text.ok_or("--pi-id is missing: a stable name for this machine, for example pi-1")?;
    let pi: PiId = text.parse().map_err(|error: pistat_protocol::id::InvalidId| error.to_string())?;
    if is_reserved(pi.as_str()) {
        return Err(format!(
            "the pi-id {pi} is reserved for the controller's own use; choose another, for example pi-1"
        ));
    }
    Ok(pi)
}

fn label(flags: &Flags, file: &File) -> Result<Option<String>, String> {
    let label =
        flags.label.as_ref().or(file.label.as_ref()).map(|label| label.trim()).filter(|label| !label.is_empty());
    let unusable = |label: &str| label.chars().any(char::is_control) || label.chars().count() > MAX_LABEL_CHARACTERS;
    if label.is_some_and(unusable) {
        return Err(format!("--label has at most {MAX_LABEL_CHARACTERS} characters and no control characters"));
    }
    Ok(label.map(str::to_owned))
}

fn interval(flags: &Flags, file: &File) -> Result<Duration, String> {
    let Some(seconds) = flags.interval.or(file.interval) else { return Ok(DEFAULT_INTERVAL) };
    if !INTERVAL_SECONDS.contains(&seconds) {
        let (least, most) = (INTERVAL_SECONDS.start(), INTERVAL_SECONDS.end());
        return Err(format!("--interval is {seconds} s: it goes from {least} to {most} seconds, fractions allowed"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn token(flags: &Flags, file: &File, state: &Path) -> Result<Option<JoinToken>, String> {
    let given = match (&flags.token, &flags.token_file, &file.token_file) {
        (Some(_), Some(_), _) => return Err("--token and --token-file cannot both be given".into()),
        (Some(token), None, _) => token.clone(),
        (None, Some(path), _) | (None, None, Some(path)) => match read_text(path) {
            Ok(text) => text,
            // It was needed at the first start only, and a secret that nobody needs is well thrown
            // away.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && Credential::is_in(state) => return Ok(None),
            Err(error) => return Err(format!("the token file {} cannot be read: {error}", path.display())),
        },
        (None, None, None) => return Ok(None),
    };
    given.parse().map(Some).map_err(str::to_owned)
}

/// The level's name in any case; Python's names too, which the users of the original know.
fn log_level(text: &str) -> Result<tracing::Level, String> {
    match text.to_ascii_lowercase().as_str() {
        "trace" => Ok(tracing::Level::TRACE),
        "debug" => Ok(tracing::Level::DEBUG),
        "info" => Ok(tracing::Level::INFO),
        "warn" | "warning" => Ok(tracing::Level::WARN),
        "error" | "critical" => Ok(tracing::Level::ERROR),
        _ => Err(format!("--log-level {text:?} is none of trace, debug, info, warn, error")),
    }
}

fn nice(value: Option<i32>) -> Result<i32, String> {
    let value = value.unwrap_or(5);
    if (0..=19).contains(&value) { Ok(value) } else { Err(format!("nice is {value}: it goes from 0 to 19")) }
}

fn policy(flags: &Flags, file: &File) -> Result<Policy, String> {
    if flags.register_only {
        return Ok(Policy::Never);
    }
    let execute = file.execute.unwrap_or_default();
    if execute != Execute::Listed && !file.task.is_empty() {
        return Err("the file lists tasks, but `execute` is not \"listed\": the list would not be looked at".into());
    }
    match execute {
        Execute::Controller => Ok(Policy::Controller),
        Execute::Never => Ok(Policy::Never),
        Execute::Listed => file.listed().map(Policy::Listed),
    }
}

/// The service's own folder where there is one, else the user's.
fn default_state() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable("STATE_DIRECTORY") {
        return folder;
    }
    let system = Path::new(SYSTEM_STATE);
    if is_writable(system) || (!system.exists() && system.parent().is_some_and(is_writable)) {
        return system.to_owned();
    }
    let user = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    user.map_or_else(|| system.to_owned(), |folder| folder.join("pistat-agent"))
}

fn is_writable(folder: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn flags(line: &str) -> Flags {
        Flags::try_parse_from(std::iter::once("pistat-agent").chain(line.split(' '))).unwrap()
    }

    fn load(line: &str, file: &str) -> Result<Config, Problems> {
        Config::merge(&flags(line), &File::parse(file).map_err(|problem| Problems(vec![problem]))?)
    }

    const ORIGINAL: &str = "--controller-url http://controller-host:8000 --pi-id pi-1";

    #[test]
    fn the_originals_command_line_is_enough() {
        let config =
            load(&format!("{ORIGINAL} --label Rack --interval 0.5 --log-level DEBUG --register-only"), "").unwrap();
        assert_eq!(config.label.as_deref(), Some("Rack"));
        assert_eq!(config.interval, Duration::from_millis(500));
        assert_eq!(config.log_level, tracing::Level::DEBUG);
        assert_eq!(config.policy, Policy::Never);
        let config = load(ORIGINAL, "").unwrap();
        assert_eq!((config.interval, config.policy), (Duration::from_secs(5), Policy::Controller));
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "controller_url = 'mqtt://other'\npi_id = 'pi-9'\ninterval = 10\nnice = 10\nlog_level = 'Error'\n";
        let config = load(ORIGINAL, file).unwrap();
        assert_eq!((config.pi.as_str(), config.address.host.as_str()), ("pi-1", "controller-host"));
        assert_eq!((config.interval, config.nice), (Duration::from_secs(10), 10));
        assert_eq!(config.log_level, tracing::Level::ERROR);
    }

    #[test]
    fn a_listed_policy_names_its_tasks() {
        let file = "execute = 'listed'\n[task.uptime]\n[task.top]\ncommand = ['top', '-b']\n";
        let Policy::Listed(tasks) = load(ORIGINAL, file).unwrap().policy else { panic!("listed") };
        assert_eq!(tasks[&"uptime".parse().unwrap()], None);
        assert_eq!(tasks[&"top".parse().unwrap()].as_deref(), Some(&["top".to_owned(), "-b".to_owned()][..]));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = load("--pi-id Controller --interval 0.1 --log-level loud --token x", "nice = 50").unwrap_err().0;
        for part in ["--controller-url", "reserved", "--interval", "--log-level", "join-token show", "nice"] {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
        }
        assert_eq!(problems.len(), 6, "{problems:?}");
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        for (file, part) in [
            ("intervall = 5", "intervall"),
            ("interval = 'x'", "interval"),
            ("execute = 'maybe'", "maybe"),
            ("[task.uptime]", "listed"),
            ("execute = 'listed'\n[task.Bad]", "Bad"),
            ("execute = 'listed'\n[task.a]\ncommand = []", "empty"),
        ] {
            let problems = load(ORIGINAL, file).unwrap_err().to_string();
            assert!(problems.contains(part), "{file}: {problems}");
        }
    }

    #[test]
    fn the_file_that_ships_has_every_key_at_its_default() {
        let shipped = include_str!("../../config/agent.toml");
        let with_all_keys: String = shipped
            .lines()
            .map(|line| {
                let key = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
                key.map_or_else(String::new, |key| format!("{key}\n"))
            })
            .collect();
        // The examples name files that are not there.
        let file = File { token_file: None, ..File::parse(&with_all_keys).unwrap() };
        let config = Config::merge(&flags("--log-level info"), &file).unwrap();
        let defaults = load(ORIGINAL, "").unwrap();
        assert_eq!((config.interval, config.nice), (defaults.interval, defaults.nice));
        assert_eq!((config.backlog_samples, config.policy), (defaults.backlog_samples, defaults.policy));
        assert_eq!((config.topics, config.runner_socket), (defaults.topics, defaults.runner_socket));
        assert!(File::parse(shipped).is_ok());
    }

    #[test]
    fn the_documentation_names_every_key_flag_and_variable() {
        let page = include_str!("../../docs/configuration.md");
        let (_, section) = page.split_once("\n## The agent\n").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        // Serde names the keys that it knows when it is asked for another.
        let known = |file: &str| File::parse(file).unwrap_err();
        let (keys, of_task) = (known("'?' = 1"), known("[task.a]\n'?' = 1"));
        let keys: Vec<_> = keys.split('`').skip(3).step_by(2).filter(|key| *key != "task").collect();
        assert!(keys.len() > 10, "{keys:?}");
        for key in keys {
            assert!(section.contains(&format!("\n| `{key}` |")), "docs/configuration.md does not name {key}");
        }
        for key in of_task.split('`').skip(3).step_by(2) {
            assert!(section.contains(&format!("`task.<id>.{key}`")), "docs/configuration.md does not name {key}");
        }
        let flags = <Flags as clap::CommandFactory>::command();
        let flags: Vec<_> = flags.get_arguments().collect();
        assert!(flags.len() > 10);
        for flag in flags {
            let (name, variable) = (flag.get_long().unwrap(), flag.get_env().unwrap().to_str().unwrap());
            assert!(section.contains(&format!("`--{name}")), "docs/configuration.md does not name --{name}");
            assert!(section.contains(&format!("`{variable}`")), "docs/configuration.md does not name {variable}");
        }
    }

    #[test]
    fn a_token_file_is_needed_until_the_machine_is_enrolled() {
        let state = tempfile::tempdir().unwrap();
        let line = format!("{ORIGINAL} --token-file /nonexistent/join.token --state {}", state.path().display());
        assert!(load(&line, "").unwrap_err().to_string().contains("/nonexistent/join.token"));
        Credential::generate("pi-1".parse().unwrap(), None).unwrap().save(state.path()).unwrap();
        assert!(load(&line, "").unwrap().token.is_none());
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = format!("{}.{}", "s".repeat(43), "f".repeat(43));
        let flags = flags(&format!("{ORIGINAL} --token {token}"));
        let config = Config::merge(&flags, &File::default()).unwrap();
        assert!(config.token.is_some());
        assert!(!format!("{config:?}{flags:?}").contains("sss"));
    }
}
