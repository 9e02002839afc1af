//! `/metrics`: the fleet, the runs, the broker and the feed, in the Prometheus text format (version 0.0.4).

use std::fmt::Write;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use pistat_protocol::{dashboard::Machine, dashboard::MachineStatus, stats::Sample};

use super::Web;
use crate::hub::ask::{Ask, Numbers, Refused};

/// `GET /metrics`.
pub(super) async fn metrics(State(web): State<Web>) -> Result<Response, Refused> {
    let numbers = web.ask(Ask::Numbers).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(&numbers)).into_response())
}

fn text(numbers: &Numbers) -> String {
    let mut page = Page(String::new());
    fleet(&mut page, &numbers.machines);
    runs(&mut page, numbers);
    feed(&mut page, numbers);
    page.0
}

/// A page of metrics. Each family is declared once, before its values.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escape(text));
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A gauge of a sample.
type Gauge = (&'static str, &'static str, fn(&Sample) -> Option<f64>);

#[expect(clippy::cast_precision_loss, reason = "Prometheus has only floating-point numbers")]
fn fleet(page: &mut Page, machines: &[Machine]) {
    fn bytes(value: Option<u64>) -> Option<f64> {
        value.map(|bytes| bytes as f64)
    }
    fn flag(value: Option<bool>) -> Option<f64> {
        value.map(|set| f64::from(u8::from(set)))
    }
    const GAUGES: [Gauge; 17] = [
        ("pistat_cpu_percent", "Busy time of all cores.", |s| s.cpu_percent.map(f64::from)),
        ("pistat_load1", "Load average over one minute.", |s| s.load1.map(f64::from)),
        ("pistat_memory_used_bytes", "Memory in use.", |s| bytes(s.memory_used_bytes)),
        ("pistat_memory_total_bytes", "All memory.", |s| bytes(s.memory_total_bytes)),
        ("pistat_swap_used_bytes", "Swap in use.", |s| bytes(s.swap_used_bytes)),
        ("pistat_swap_total_bytes", "All swap.", |s| bytes(s.swap_total_bytes)),
        ("pistat_temperature_celsius", "Temperature of the processor.", |s| s.temperature_celsius.map(f64::from)),
        ("pistat_disk_read_bytes_per_second", "Bytes read from disks.", |s| bytes(s.disk_read_bytes_per_second)),
        ("pistat_disk_write_bytes_per_second", "Bytes written to disks.", |s| bytes(s.disk_write_bytes_per_second)),
        ("pistat_network_receive_bytes_per_second", "Bytes received.", |s| bytes(s.network_rx_bytes_per_second)),
        ("pistat_network_transmit_bytes_per_second", "Bytes sent.", |s| bytes(s.network_tx_bytes_per_second)),
        ("pistat_wifi_signal_dbm", "Wi-Fi signal level.", |s| s.wifi_signal_dbm.map(f64::from)),
        ("pistat_uptime_seconds", "Time since boot.", |s| bytes(s.uptime_seconds)),
        ("pistat_processes", "Processes.", |s| s.processes.map(f64::from)),
        ("pistat_undervoltage", "Whether the supply is too low now.", |s| flag(s.power.as_ref()?.undervoltage)),
        ("pistat_throttled", "Whether the processor is slowed down now.", |s| flag(s.power.as_ref()?.throttled)),
        ("pistat_cpu_mhz", "The highest current clock of the cores.", |s| s.cpu_mhz.map(f64::from)),
    ];
    page.family("pistat_machine_up", "gauge", "Whether a machine is connected and its samples arrive.");
    for machine in machines {
        let up = f64::from(u8::from(machine.status == MachineStatus::Online));
        page.value("pistat_machine_up", &[("pi", machine.id.as_str()), ("label", &machine.label)], up);
    }
    let sample = |machine: &'_ Machine| machine.stats.clone().filter(|_| machine.status == MachineStatus::Online);
    let samples: Vec<_> =
        machines.iter().filter_map(|machine| sample(machine).map(|sample| (machine.id.as_str(), sample))).collect();
    for (name, help, get) in GAUGES {
        page.family(name, "gauge", help);
        for (pi, sample) in &samples {
            if let Some(value) = get(sample) {
                page.value(name, &[("pi", pi)], value);
            }
        }
    }
    for (name, help, get) in [
        (
            "pistat_disk_used_bytes",
            "Space in use on a file system.",
            (|disk| disk.used_bytes) as fn(&pistat_protocol::stats::Disk) -> u64,
        ),
        ("pistat_disk_total_bytes", "All space of a file system.", |disk| disk.total_bytes),
    ] {
        page.family(name, "gauge", help);
        for (pi, sample) in &samples {
            for disk in sample.disks.iter().flatten() {
                page.value(name, &[("pi", pi), ("mount", &disk.mount)], get(disk) as f64);
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has only floating-point numbers")]
fn runs(page: &mut Page, numbers: &Numbers) {
    page.family("pistat_runs_open", "gauge", "Runs that have not ended, by state.");
    for (state, count) in &numbers.open_runs {
        page.value("pistat_runs_open", &[("state", state.as_str())], f64::from(*count));
    }
    page.family("pistat_runs_finished_total", "counter", "Runs that ended since the start, by task and final state.");
    for ((task, state), count) in &numbers.finished_runs {
        page.value("pistat_runs_finished_total", &[("task", task), ("state", state.as_str())], *count as f64);
    }
    page.family("pistat_run_duration_seconds", "summary", "Running time of runs that ended since the start, by task.");
    for (task, (count, seconds)) in &numbers.run_seconds {
        page.value("pistat_run_duration_seconds_sum", &[("task", task)], *seconds);
        page.value("pistat_run_duration_seconds_count", &[("task", task)], *count as f64);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has only floating-point numbers")]
fn feed(page: &mut Page, numbers: &Numbers) {
    page.family("pistat_dashboards", "gauge", "Connected dashboards.");
    page.value("pistat_dashboards", &[], numbers.dashboards as f64);
    page.family("pistat_feed_frames_total", "counter", "Frames of changes sent to dashboards since the start.");
    page.value("pistat_feed_frames_total", &[], numbers.frames as f64);
    page.family(
        "pistat_messages_refused_total",
        "counter",
        "Messages that were malformed or refused by the controller since the start.",
    );
    page.value("pistat_messages_refused_total", &[], numbers.refused_messages as f64);
    let Some(broker) = &numbers.broker else { return };
    let counters = [
        ("pistat_broker_connections_total", "Connections accepted since the start.", broker.connections),
        ("pistat_broker_connections_refused_total", "Connections refused since the start.", broker.connections_refused),
        ("pistat_broker_bytes_received_total", "Bytes received from clients since the start.", broker.bytes_in),
        ("pistat_broker_bytes_sent_total", "Bytes sent to clients since the start.", broker.bytes_out),
        ("pistat_broker_messages_accepted_total", "Messages accepted since the start.", broker.messages_accepted),
        (
            "pistat_broker_publishes_refused_total",
            "Messages refused by access rules or limits since the start.",
            broker.publishes_refused,
        ),
    ];
    page.family("pistat_broker_clients", "gauge", "Connected MQTT clients.");
    page.value("pistat_broker_clients", &[], broker.clients_connected as f64);
    for (name, help, value) in counters {
        page.family(name, "counter", help);
        page.value(name, &[], value as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_from_outside_stay_labels() {
        let mut page = Page(String::new());
        page.value("a", &[("label", "x\"} 1\ny\\")], 1.5);
        assert_eq!(page.0, "a{label=\"x\\\"} 1\\ny\\\\\"} 1.5\n");
        page.value("b", &[], 2.0);
        assert!(page.0.ends_with("\nb 2\n"));
    }
}
