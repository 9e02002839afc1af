//! The same run by other means: lines for `mosquitto_pub` and `curl`, to be pasted into a shell.

use pistat_protocol::{
    api::NewRun,
    id::TaskId,
    topic::{Topic, Topics},
};

use pistat_support::mqtt_url::MqttUrl;

use super::{Style, style::Paint};
use crate::config::{Broker, Config};

/// A broker on which people may ask for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedBroker {
    topics: Topics,
    host: String,
    port: u16,
    /// Whose account asks, and what else `mosquitto_pub` has to be told.
    who: &'static str,
    options: String,
}

impl AskedBroker {
    /// The broker of a configuration; `port` is where our own listens. None when it is another's
    /// that lets nobody ask for this task, or one that `mosquitto_pub` cannot reach.
    pub fn of(config: &Config, task: &TaskId, base_url: &str, port: u16) -> Option<Self> {
        let topics = config.mqtt.topics.clone();
        match &config.mqtt.broker {
            Broker::Embedded => {
                let ip = config.mqtt.listen.ip();
                let host = if ip.is_unspecified() { host(base_url) } else { ip.to_string() };
                Some(Self { topics, host, port, who: "an account with the role operator", options: String::new() })
            }
            Broker::External(url) => {
                let may_ask = config.mqtt.requests.as_ref().is_some_and(|requests| requests.tasks.contains(task));
                (may_ask && !url.scheme.is_websocket()).then(|| Self {
                    topics,
                    host: url.host.clone(),
                    port: url.port,
                    who: "a user of that broker",
                    options: tls_options(url, config),
                })
            }
        }
    }
}

fn tls_options(url: &MqttUrl, config: &Config) -> String {
    match &config.mqtt.ca {
        _ if !url.scheme.is_tls() => String::new(),
        Some(ca) => format!(" --cafile {}", shell_quoted(&ca.display().to_string())),
        None => " --tls-use-os-certs".into(),
    }
}

/// The equivalent lines. `base_url` is the controller's, such as `http://controller:8000`.
pub fn explain(run: &NewRun, base_url: &str, broker: Option<&AskedBroker>, style: Style) -> String {
    let mut text = String::new();
    let mut section = |title: &str, line: &str| {
        text.push_str(&style.paint(Paint::Dim, &format!("# {title}")));
        text.push('\n');
        text.push_str(line);
        text.push('\n');
    };
    if let Some(broker) = broker.filter(|_| run.group.is_none() && run.expires.is_none()) {
        section(&format!("by MQTT, as {}", broker.who), &by_mqtt(run, broker));
    }
    section("by HTTP", &by_http(run, base_url));
    text
}

fn by_mqtt(run: &NewRun, broker: &AskedBroker) -> String {
    let topic = broker.topics.format(&Topic::Request(run.target.clone()));
    let payload = if run.args.is_empty() {
        run.task.to_string()
    } else {
        serde_json::json!({ "task": run.task, "args": run.args }).to_string()
    };
    let AskedBroker { port, options, .. } = broker;
    format!(
        "mosquitto_pub -h {} -p {port}{options} -u ACCOUNT -P \"$PISTAT_TOKEN\" -t {} -m {}",
        shell_quoted(&broker.host),
        shell_quoted(&topic),
        shell_quoted(&payload)
    )
}

fn by_http(run: &NewRun, base_url: &str) -> String {
    let body = serde_json::to_string(run).unwrap_or_default();
    let url = format!("{}/api/runs", base_url.trim_end_matches('/'));
    format!(
        "curl -H \"Authorization: Bearer $PISTAT_TOKEN\" -H 'Content-Type: application/json' -d {} {}",
        shell_quoted(&body),
        shell_quoted(&url)
    )
}

fn host(base_url: &str) -> String {
    let url = url::Url::parse(base_url).ok();
    let host = url.as_ref().and_then(url::Url::host_str).unwrap_or("localhost");
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// One word for a POSIX shell.
fn shell_quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&b));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::{Command, new_run, parse, sample};

    fn explained(line: &str) -> String {
        let fleet = sample::fleet();
        let Ok(Some(Command::TaskRun(command))) = parse(line) else { panic!("{line}") };
        let run = new_run(&command, &fleet.view()).unwrap();
        let url = "http://controller:8000/";
        let broker = AskedBroker::of(&Config::default(), &run.task, url, 1883);
        explain(&run, url, broker.as_ref(), Style::PLAIN)
    }

    #[test]
    fn another_broker_is_asked_where_it_is_and_only_for_what_it_may_be_asked_for() {
        let line = |broker: &str, tasks: &[&str], ca: Option<&str>| {
            let mut config = Config::default();
            config.mqtt.broker = Broker::External(MqttUrl::broker(broker).unwrap());
            config.mqtt.ca = ca.map(Into::into);
            let tasks = tasks.iter().map(|task| task.parse().unwrap()).collect();
            config.mqtt.requests =
                Some(crate::config::Requests { role: pistat_protocol::account::Role::Operator, tasks });
            let found = AskedBroker::of(&config, &"uptime".parse().unwrap(), "http://controller:8000", 1);
            found.map(|found| format!("{} {}{}", found.host, found.port, found.options))
        };
        for (broker, tasks, ca, expected) in [
            ("mqtt://u:p@house:1884", &["uptime"][..], None, Some("house 1884")),
            ("mqtts://house", &["uptime"], None, Some("house 8883 --tls-use-os-certs")),
            ("mqtts://house", &["uptime"], Some("/a b/ca.pem"), Some("house 8883 --cafile '/a b/ca.pem'")),
            ("mqtt://house", &["top"], None, None),
            ("ws://house", &["uptime"], None, None),
        ] {
            assert_eq!(line(broker, tasks, ca).as_deref(), expected, "{broker} {tasks:?}");
        }
    }

    #[test]
    fn a_run_is_explained_as_lines_for_a_shell() {
        assert_eq!(
            explained("task run uptime pi-1"),
            "# by MQTT, as an account with the role operator\n\
             mosquitto_pub -h controller -p 1883 -u ACCOUNT -P \"$PISTAT_TOKEN\" -t pistat/pi-1/task/request -m uptime\n\
             # by HTTP\n\
             curl -H \"Authorization: Bearer $PISTAT_TOKEN\" -H 'Content-Type: application/json' \
             -d '{\"task\":\"uptime\",\"target\":\"pi-1\",\"args\":{},\"confirmed\":false}' http://controller:8000/api/runs\n"
        );
        let with_arguments = explained("task run service-log @camera unit=ssh");
        assert!(
            with_arguments
                .contains(r#"-t pistat/@camera/task/request -m '{"args":{"unit":"ssh"},"task":"service-log"}'"#)
        );
        assert!(!explained("task run uptime @all --canary").contains("mosquitto_pub"), "MQTT has no group options");
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
    }
}
