//! The four layers, every mistake with its line, and the file that ships held against the code.

use std::{fs, path::PathBuf};

use super::*;
use crate::config::LogLevel;

fn load(text: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Config, Vec<Problem>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pistat.toml");
    fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let shorten = |mut problem: Problem| {
        problem.file = problem.file.rsplit('/').next().unwrap_or_default().to_owned();
        problem
    };
    Config::load(&Flags { config: Some(path), ..flags }, environment)
        .map_err(|problems| problems.into_iter().map(shorten).collect())
}

fn problems(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    load(text, environment, Flags::default()).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_configured_is_the_default() {
    assert_eq!(load("", &[], Flags::default()).unwrap(), Config::default());
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_defaults() {
    let file = "state = 'a'\nlog_level = 'WARNING'\n[http]\nlisten = '127.0.0.1:1'\n[mqtt]\nlisten = '127.0.0.1:2'\n";
    let environment = [("PISTAT_HTTP__LISTEN", "127.0.0.1:3"), ("PISTAT_STATE", "b"), ("PISTAT_TOKEN", "x")];
    let flags = Flags { state: Some("c".into()), ..Flags::default() };
    let config = load(file, &environment, flags).unwrap();
    assert_eq!(config.state, PathBuf::from("c"));
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.mqtt.listen.to_string(), "127.0.0.1:2");
    assert_eq!((config.log_level, config.tasks), (LogLevel::Warn, "config/tasks.toml".into()));
}

#[test]
fn the_environment_speaks_every_kind() {
    let environment = [
        ("PISTAT_HOMEASSISTANT__DISCOVERY", "false"),
        ("PISTAT_RUNS__PER_MACHINE", "2"),
        ("PISTAT_RUNS__EXPIRES", "0"),
        ("PISTAT_MQTT__BROKER", "mqtt://u:p@broker"),
        ("PISTAT_MQTT__REQUESTS__ROLE", "operator"),
        ("PISTAT_MQTT__REQUESTS__TASKS", "uptime, disk-usage"),
        ("PISTAT_MQTT__LIMITS__CONNECTIONS", "50"),
        ("PISTAT_LOG_LEVEL", ""),
        ("PISTAT_AGENT_PI_ID", "pi-1"),
    ];
    let config = load("", &environment, Flags::default()).unwrap();
    assert!(!config.homeassistant.discovery);
    assert_eq!((config.runs.per_machine, config.runs.expires), (2, Duration::ZERO));
    assert_eq!(config.mqtt.requests.unwrap().tasks.len(), 2);
    assert_eq!(config.mqtt.limits["connections"], 50);
    assert!(matches!(config.mqtt.broker, Broker::External(_)));
}

#[test]
fn all_problems_come_at_once_with_their_lines() {
    let file = "
stat = 'x'
log_level = 'loud'
[http]
listen = 'here'
port = 80
[mqtt]
listen = 5
prefix = 'a b'
broker = 'http://u:secret@b'
[mqtt.tls]
cert = '/nonexistent/cert'
[mqtt.limits]
conections = 5
packet_bytes = 'big'
keep_alive_seconds = 0
[runs]
expires = 'ten minutes'
per_machine = 0
[homeassistant]
discovery = 'yes'
[[account]]
name = 'zigbee2mqtt'
publish = ['zigbee2mqtt/#', 'a/#/b']
[[account]]
name = 'Zigbee2MQTT'
[[account]]
name = 'controller'
[[account]]
";
    let environment = [("PISTAT_RUNS__KEEP", "1s"), ("PISTAT_RUN__KEEP", "1d")];
    let problems = problems(file, &environment);
    for expected in [
        "pistat.toml:2: unknown key stat; did you mean state?",
        "pistat.toml:3: log_level: \"loud\" is not a log level",
        "pistat.toml:5: listen: \"here\" is not an address",
        "pistat.toml:6: unknown key port in [http]",
        "pistat.toml:8: listen must be a text in quotes, not a whole number",
        "pistat.toml:9: prefix: the topic prefix \"a b\"",
        "pistat.toml:10: broker: a broker is not reached by http",
        "pistat.toml:12: cert: /nonexistent/cert cannot be read",
        "pistat.toml:14: unknown key conections in [mqtt.limits]; did you mean connections?",
        "pistat.toml:15: packet_bytes: invalid type: string",
        "pistat.toml:16: keep_alive_seconds: 0 is too small: 10 is the least",
        "pistat.toml:11: mqtt.tls needs both cert and key; key is missing",
        "pistat.toml:18: expires: \"ten minutes\" is not a valid duration",
        "pistat.toml:19: per_machine: 0 is out of range: it is 1 to 64",
        "pistat.toml:21: discovery must be true or false, not \"yes\"",
        "pistat.toml:24: publish: \"a/#/b\" is not a topic filter",
        "[[account]] Zigbee2MQTT is there twice",
        "pistat.toml:28: name: controller is Pi Stat's own name",
        "[[account]] needs a name",
        "PISTAT_RUN__KEEP: unknown key run; did you mean runs?",
        "PISTAT_RUNS__KEEP: keep: 1s is out of range: it is 1d to",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}\n{}", problems.join("\n"));
    }
    assert_eq!(problems.len(), 21, "{}", problems.join("\n"));
    assert!(!problems.join("\n").contains("secret"));
}

#[test]
fn a_key_is_no_path() {
    let file = "
'n[888888888]' = 1
'http.listen' = '127.0.0.1:1'
";
    let problems = problems(file, &[("PISTAT_RUNS[999999999]__KEEP", "1d")]);
    for expected in [
        "pistat.toml:2: unknown key n[888888888];",
        "pistat.toml:3: unknown key http.listen;",
        "PISTAT_RUNS[999999999]__KEEP: unknown key",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}\n{}", problems.join("\n"));
    }
    assert_eq!(problems.len(), 3, "{}", problems.join("\n"));
}

#[test]
fn home_assistants_prefix_is_not_the_fleets() {
    for prefix in ["home/pis", "home/pis/pi-1"] {
        let file = format!("[mqtt]\nprefix = 'home/pis'\n[homeassistant]\nprefix = '{prefix}'\n");
        let problems = problems(&file, &[]);
        assert!(problems[0].contains(":4: prefix: ") && problems[0].contains("is under home/pis"), "{problems:?}");
    }
    let config =
        load("[mqtt]\nprefix = 'home/pis'\n[homeassistant]\nprefix = 'home'\n", &[], Flags::default()).unwrap();
    assert_eq!(config.homeassistant.prefix, "home");
}

#[test]
fn requests_over_mqtt_are_for_an_external_broker() {
    let problems = problems("[mqtt.requests]\nrole = 'operator'\ntasks = ['uptime']\n", &[]);
    assert!(problems[0].contains("is for an external broker"), "{problems:?}");
}

#[test]
fn authorities_are_for_a_broker_over_tls() {
    let problems = problems("[mqtt]\nca = '/dev/null'\nbroker = 'mqtt://broker'\n", &[]);
    assert!(problems[0].contains("pistat.toml:2") && problems[0].contains("mqtts://"), "{problems:?}");
}

/// A certificate and its key.
fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    (cert.pem(), key.serialize_pem())
}

#[test]
fn certificates_and_keys_that_cannot_be_used_are_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let ((cert, key), (_, other_key)) = (pair(), pair());
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    for (cert, key, expected) in [
        (&cert, &key, None),
        (&key, &key, Some("pistat.toml:2: cert: cert.pem has no certificate")),
        (&String::new(), &key, Some("pistat.toml:2: cert: cert.pem has no certificate")),
        (&cert, &cert, Some("pistat.toml:3: key: key.pem has no private key")),
        (&cert, &other_key, Some("pistat.toml:2: cert: cert.pem cannot be used with the key key.pem")),
        (&broken, &key, Some("pistat.toml:2: cert: cert.pem cannot be used with the key key.pem")),
    ] {
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("cert.pem"), cert).unwrap();
        fs::write(path("key.pem"), key).unwrap();
        for section in ["http.tls", "mqtt.tls"] {
            let file = format!("[{section}]\ncert = '{}'\nkey = '{}'\n", path("cert.pem"), path("key.pem"));
            let problems: Vec<_> = load(&file, &[], Flags::default()).err().unwrap_or_default();
            let problems: Vec<_> = problems.iter().map(|problem| problem.to_string().replace(&path(""), "")).collect();
            assert_eq!(problems.len(), usize::from(expected.is_some()), "{problems:?}");
            assert!(problems.iter().all(|problem| problem.contains(expected.unwrap())), "{expected:?}: {problems:?}");
        }
    }
    let file = |ca: &str| format!("[mqtt]\nbroker = 'mqtts://broker'\nca = '{}'\n", folder.path().join(ca).display());
    assert!(problems(&file("key.pem"), &[])[0].contains("pistat.toml:3: ca: "));
}

#[test]
fn a_rule_that_could_never_be_granted_is_a_mistake() {
    let account = "[mqtt]\nprefix = 'home/pis'\n[[account]]\nname = 'lamp'\n";
    for (filter, good) in [
        ("home/pis/pi-1/status", false),
        ("home/pis/#", false),
        ("home/pis", false),
        ("$home/pis/enroll/#", false),
        ("home/pis/+/task/request", true),
        ("home/#", true),
        ("home/pistachio", true),
        ("#", true),
    ] {
        let file = format!("{account}publish = ['{filter}']\n");
        let told = load(&file, &[], Flags::default()).map_err(|problems| problems[0].to_string());
        assert_eq!(told.is_ok(), good, "{filter}: {told:?}");
        assert!(
            told.err().is_none_or(|told| told.contains("pistat.toml:5") && told.contains("never be granted")),
            "{filter}"
        );
    }
}

#[test]
fn a_named_file_must_exist() {
    let flags = Flags { config: Some("/nonexistent/pistat.toml".into()), ..Flags::default() };
    let problems = Config::load(&flags, []).unwrap_err();
    assert!(problems[0].message.contains("cannot be read"), "{problems:?}");
}

#[test]
fn secrets_do_not_print() {
    let config = load("[mqtt]\nbroker = 'mqtt://u:s3cret@broker'\n", &[], Flags::default()).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
}

const SHIPPED: &str = include_str!("../../../../config/pistat.toml");

#[test]
fn the_file_that_ships_shows_every_default() {
    let config = load(SHIPPED, &[], Flags::default()).unwrap();
    let limits: pistat_broker::Limits = serde_json::from_value(config.mqtt.limits.clone().into()).unwrap();
    assert_eq!(limits, pistat_broker::Limits::default());
    let without_limits = Config { mqtt: Mqtt { limits: serde_json::Map::new(), ..config.mqtt.clone() }, ..config };
    assert_eq!(without_limits, Config::default());
}

#[test]
fn the_file_that_ships_names_every_key() {
    // Serde and the readers name what they know; each of these must stand in the file, in use or
    // commented out.
    let unknown = serde_json::from_str::<pistat_broker::Limits>("{\"?\":1}").unwrap_err().to_string();
    let limits: Vec<_> = unknown.split('`').skip(3).step_by(2).collect();
    assert!(limits.len() > 10, "{unknown}");
    let sections = "state tasks log_level [http] listen public_url downloads [http.limits] connections \
                    unauthenticated_connections unauthenticated_connections_per_address header_timeout body_timeout \
                    write_timeout [http.tls] cert key [mqtt] broker ca prefix [mqtt.tls] \
                    [mqtt.requests] role [mqtt.limits] [homeassistant] discovery [runs] expires lost_after keep \
                    keep_runs keep_events keep_audit per_machine [history] space fine minute quarter flush [enrolment] per_hour [[account]] name publish subscribe";
    for key in limits.into_iter().chain(sections.split_whitespace()) {
        let stands = SHIPPED
            .lines()
            .map(|line| line.trim_start_matches("# "))
            .any(|line| line == key || line.split_once('=').is_some_and(|(name, _)| name.trim() == key));
        assert!(stands, "{key}");
    }
}

/// Every key that the readers know, as `section.key`: an unknown one is answered with those that
/// are known.
fn every_key() -> Vec<String> {
    let sections = [
        "http",
        "http.limits",
        "http.tls",
        "mqtt",
        "mqtt.tls",
        "mqtt.requests",
        "homeassistant",
        "runs",
        "history",
        "enrolment",
    ];
    let tables: Vec<_> = sections.iter().map(|section| format!("[{section}]\n'?' = 1\n")).collect();
    let problems = problems(&format!("'?' = 1\n{}[[account]]\n'?' = 1\n", tables.concat()), &[]);
    let known = |problem: &String| {
        let (what, known) = problem.split_once("; known here: ")?;
        let section = what.split_once(" in [").map_or("", |(_, section)| section.trim_end_matches(']'));
        let dot = if section.is_empty() { "" } else { "." };
        Some(known.split(", ").map(|key| format!("{section}{dot}{key}")).collect::<Vec<_>>())
    };
    let keys: Vec<_> = problems.iter().filter_map(known).flatten().collect();
    // A table is not a key of its own.
    let is_table =
        |key: &String| sections.contains(&key.as_str()) || ["account", "mqtt.limits"].contains(&key.as_str());
    keys.into_iter().filter(|key| !is_table(key)).collect()
}

#[test]
fn the_documentation_names_every_key() {
    let page = include_str!("../../../../docs/configuration.md");
    let keys = every_key();
    assert!(keys.len() > 25, "{keys:?}");
    for key in keys {
        assert!(page.contains(&format!("`{key}`")), "docs/configuration.md does not name {key}");
    }
    let unknown = serde_json::from_str::<pistat_broker::Limits>("{\"?\":1}").unwrap_err().to_string();
    for limit in unknown.split('`').skip(3).step_by(2) {
        assert!(page.contains(&format!("`{limit} = ")), "docs/configuration.md does not name mqtt.limits.{limit}");
    }
}

#[test]
fn the_commented_examples_of_the_file_that_ships_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = pair();
    for (file, text) in [("server.pem", &cert), ("server-key.pem", &key), ("ca.pem", &cert)] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let uncommented: Vec<_> = SHIPPED
        .lines()
        .map(|line| {
            let example = line.strip_prefix("# ").filter(|line| line.starts_with('[') || line.contains(" = "));
            example
                .unwrap_or(line)
                .replace("state/tls", folder.path().to_str().unwrap())
                .replace("/etc/pistat", folder.path().to_str().unwrap())
        })
        .collect();
    let text = uncommented.join("\n").replace("broker = \"embedded\"", "broker = \"mqtts://broker\"");
    let config = load(&text, &[], Flags::default()).unwrap();
    assert!(config.mqtt.tls.is_some() && config.http.tls.is_some() && config.mqtt.requests.is_some());
    assert_eq!(config.accounts[0].publish.len(), 2);
}

#[test]
fn keys_of_earlier_versions_are_accepted_with_a_notice() {
    let text = "[http.limits]
strangers = 7
strangers_per_address = 6
patience = '5s'
body_timeout = '9s'
[mqtt.limits]
qos0_patience_milliseconds = 5
in_flight = 'whatever'
";
    let config = load(text, &[("PISTAT_MQTT__LIMITS__OFFLINE_BYTES_IN_ALL", "1000000")], Flags::default()).unwrap();
    let limits = config.http.limits;
    assert_eq!((limits.unauthenticated_connections, limits.unauthenticated_connections_per_address), (7, 6));
    let timeouts = [limits.header_timeout, limits.body_timeout, limits.write_timeout];
    assert_eq!(timeouts.map(|timeout| timeout.as_secs()), [5, 9, 5]);
    let broker: pistat_broker::Limits = serde_json::from_value(config.mqtt.limits.into()).unwrap();
    assert_eq!((broker.qos0_backpressure_milliseconds, broker.offline_bytes_total), (5, 1_000_000));
    // Without the folder of the file.
    let named = |notice: &Problem| notice.to_string().rsplit('/').next().unwrap().to_owned();
    let mut notices: Vec<String> = config.notices.iter().map(named).collect();
    notices.sort();
    let called = "since 0.2, and the old name is accepted until 0.3";
    let mut expected = [
        format!("pistat.toml:2: strangers in [http.limits] is called unauthenticated_connections {called}"),
        format!(
            "pistat.toml:3: strangers_per_address in [http.limits] is called \
             unauthenticated_connections_per_address {called}"
        ),
        format!(
            "pistat.toml:4: patience in [http.limits] is called header_timeout, body_timeout, write_timeout {called}"
        ),
        format!(
            "pistat.toml:7: qos0_patience_milliseconds in [mqtt.limits] is called qos0_backpressure_milliseconds {called}"
        ),
        "pistat.toml:8: in_flight in [mqtt.limits] has no effect since 0.2".to_owned(),
        format!(
            "PISTAT_MQTT__LIMITS__OFFLINE_BYTES_IN_ALL: offline_bytes_in_all in [mqtt.limits] is called \
             offline_bytes_total {called}"
        ),
    ];
    expected.sort();
    assert_eq!(notices, expected);
}
