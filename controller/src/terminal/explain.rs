//! The same run by other means: lines for `mosquitto_pub` and `curl`, to be pasted into a shell.

use pistat_protocol::{
    api::NewRun,
    topic::{Topic, Topics},
};

use super::{Style, style::Paint};

/// The equivalent lines. `base_url` is the controller's, such as `http://controller:8000`, `mqtt_port` that of its own broker.
pub fn explain(run: &NewRun, prefix: &str, base_url: &str, mqtt_port: Option<u16>, style: Style) -> String {
    let mut text = String::new();
    let mut section = |title: &str, line: &str| {
        text.push_str(&style.paint(Paint::Dim, &format!("# {title}")));
        text.push('\n');
        text.push_str(line);
        text.push('\n');
    };
    if run.group.is_none() && run.expires.is_none() {
        section("by MQTT, as an account with the role operator", &by_mqtt(run, prefix, base_url, mqtt_port));
    }
    section("by HTTP", &by_http(run, base_url));
    text
}

fn by_mqtt(run: &NewRun, prefix: &str, base_url: &str, mqtt_port: Option<u16>) -> String {
    let topics = Topics::new(prefix).unwrap_or_default();
    let topic = topics.format(&Topic::Request(run.target.clone()));
    let payload = if run.args.is_empty() {
        run.task.to_string()
    } else {
        serde_json::json!({ "task": run.task, "args": run.args }).to_string()
    };
    let port = mqtt_port.map(|port| format!(" -p {port}")).unwrap_or_default();
    format!(
        "mosquitto_pub -h {}{port} -u ACCOUNT -P \"$PISTAT_TOKEN\" -t {} -m {}",
        shell_quoted(&host(base_url)),
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
        explain(&run, "pistat", "http://controller:8000/", Some(1883), Style::PLAIN)
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
