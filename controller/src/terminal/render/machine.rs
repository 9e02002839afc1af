//! Machines as people see them.

use pistat_protocol::{
    dashboard::{CannotRun, Machine, MachineStatus},
    id::TaskId,
    stats::Sample,
    status::{ExecutionPolicy, Info},
    time::Timestamp,
};

use super::{
    quantity::{ago, bytes, duration, percent},
    table::{Cell, facts, table},
};
use crate::terminal::{
    Style,
    style::{Paint, clean},
};

const HEADING: [&str; 9] = ["", "LABEL", "PI-ID", "CPU", "RAM", "TEMP", "UP", "RESPONSIBLE FOR", "TAGS"];

/// `pis`: one line for each machine.
pub fn machines(machines: &[Machine], now: Timestamp, style: Style) -> String {
    let rows: Vec<_> = machines.iter().map(|machine| row(machine, now)).collect();
    table(&HEADING, &rows, style) + &summary(machines, style)
}

fn row(machine: &Machine, now: Timestamp) -> Vec<Cell> {
    // The last sample of a machine that is away is not how it is now.
    let stats = machine.stats.as_ref().filter(|_| machine.status != MachineStatus::Offline);
    let tags: Vec<_> = machine.tags.iter().map(|tag| format!("@{tag}")).collect();
    let up = match (stats.and_then(|stats| stats.uptime_seconds), machine.last_seen) {
        (Some(seconds), _) => duration(seconds.saturating_mul(1000)),
        (None, Some(seen)) => format!("seen {}", ago(seen, now)),
        (None, None) => "—".into(),
    };
    let (paint, light) = light(machine.status);
    vec![
        (Some(paint), light.into()),
        (Some(Paint::Strong), clean(&machine.label).into_owned()),
        (Some(Paint::Dim), machine.id.to_string()),
        load(stats.and_then(|stats| stats.cpu_percent), 90.0, 70.0),
        load(stats.and_then(|stats| stats.memory_percent), 90.0, 75.0),
        temperature(stats.and_then(|stats| stats.temperature_celsius)),
        (None, up),
        (Some(Paint::Name), clean(machine.assignment.as_deref().unwrap_or_default()).into_owned()),
        (Some(Paint::Dim), tags.join(" ")),
    ]
}

fn light(status: MachineStatus) -> (Paint, &'static str) {
    match status {
        MachineStatus::Online => (Paint::Good, "●"),
        MachineStatus::Stale => (Paint::Warning, "●"),
        MachineStatus::Offline => (Paint::Bad, "○"),
    }
}

fn load(value: Option<f32>, bad: f32, warning: f32) -> Cell {
    let paint = match value {
        Some(value) if value >= bad => Some(Paint::Bad),
        Some(value) if value >= warning => Some(Paint::Warning),
        _ => None,
    };
    (paint, percent(value))
}

/// A Pi slows itself down from 80 °C on (soft limit 60 °C on a 3B+).
fn temperature(celsius: Option<f32>) -> Cell {
    let text = celsius.map_or_else(|| "—".into(), |celsius| format!("{celsius:.0}°C"));
    (load(celsius, 80.0, 70.0).0, text)
}

fn summary(machines: &[Machine], style: Style) -> String {
    let of = |status| machines.iter().filter(|machine| machine.status == status).count();
    let counts =
        [(MachineStatus::Online, "online"), (MachineStatus::Stale, "stale"), (MachineStatus::Offline, "offline")];
    let parts: Vec<_> = counts
        .into_iter()
        .filter(|&(status, _)| status == MachineStatus::Online || of(status) > 0)
        .map(|(status, name)| format!("{} {name}", of(status)))
        .collect();
    format!("{}\n", style.paint(Paint::Dim, &parts.join(" · ")))
}

/// `pi <pi>`: everything about one machine.
pub fn machine(machine: &Machine, now: Timestamp, style: Style) -> String {
    let (paint, light) = light(machine.status);
    let head = format!(
        "{} {}  {}\n",
        style.paint(paint, light),
        style.paint(Paint::Strong, &clean(&machine.label)),
        style.paint(Paint::Dim, machine.id.as_str())
    );
    let mut known = placement(machine, now);
    known.extend(machine.info.as_deref().into_iter().flat_map(info));
    known.extend(machine.cannot_run.iter().map(cannot_run));
    known.extend(machine.stats.as_deref().into_iter().flat_map(sample));
    head + &facts(known, 15, style)
}

type Fact = (&'static str, String);

fn placement(machine: &Machine, now: Timestamp) -> Vec<Fact> {
    let tags: Vec<_> = machine.tags.iter().map(|tag| format!("@{tag}")).collect();
    vec![
        ("last seen", machine.last_seen.map(|seen| ago(seen, now)).unwrap_or_default()),
        ("responsible for", machine.assignment.clone().unwrap_or_default()),
        ("tags", tags.join(" ")),
        ("interval", interval(machine)),
    ]
}

fn cannot_run(obstacle: &CannotRun) -> Fact {
    let tasks: Vec<_> = obstacle.tasks.iter().map(TaskId::as_str).collect();
    ("cannot run", format!("{}: {}", tasks.join(", "), obstacle.message))
}

fn interval(machine: &Machine) -> String {
    match (machine.interval_seconds, &machine.info) {
        (Some(seconds), _) => format!("{seconds} s, set here"),
        (None, Some(info)) => format!("{} s", info.interval_seconds),
        (None, None) => String::new(),
    }
}

fn info(info: &Info) -> Vec<Fact> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let policy = match info.execution_policy {
        ExecutionPolicy::Controller => "those of the catalogue",
        ExecutionPolicy::Listed => "only those of its own list",
        ExecutionPolicy::Never => "none (--register-only)",
    };
    let runner = if info.runner { "" } else { ", none that needs root" };
    vec![
        ("model", text(&info.model)),
        ("serial", text(&info.serial)),
        ("system", text(&info.os)),
        ("kernel", [text(&info.kernel), text(&info.arch)].join(" ").trim().to_owned()),
        ("agent", info.agent_version.clone()),
        ("tasks", format!("{policy}{runner}")),
        ("updates", info.updates_pending.map(|count| format!("{count} pending")).unwrap_or_default()),
        ("reboot", info.reboot_required.filter(|needed| *needed).map(|_| "required".into()).unwrap_or_default()),
        ("failed units", info.failed_units.as_deref().unwrap_or_default().join(" ")),
    ]
}

fn sample(stats: &Sample) -> Vec<Fact> {
    let per_second = |value: Option<u64>| value.map(|value| format!("{}/s", bytes(value)));
    let pair = |a: Option<String>, b: Option<String>| match (a, b) {
        (Some(a), Some(b)) => format!("{a} in, {b} out"),
        (a, b) => a.or(b).unwrap_or_default(),
    };
    let used = |used: Option<u64>, total: Option<u64>| {
        used.zip(total).map(|(used, total)| format!("{} of {}", bytes(used), bytes(total))).unwrap_or_default()
    };
    let load =
        [stats.load1, stats.load5, stats.load15].iter().flatten().map(|load| format!("{load:.2}")).collect::<Vec<_>>();
    let mut facts = vec![
        ("cpu", stats.cpu_percent.map(|cpu| format!("{cpu:.1}%")).unwrap_or_default()),
        ("load", load.join(" ")),
        ("memory", used(stats.memory_used_bytes, stats.memory_total_bytes)),
        ("swap", used(stats.swap_used_bytes, stats.swap_total_bytes)),
        ("temperature", stats.temperature_celsius.map(|t| format!("{t:.1} °C")).unwrap_or_default()),
    ];
    for disk in stats.disks.iter().flatten() {
        let text = format!(
            "{} of {} ({:.0}%) on {}",
            bytes(disk.used_bytes),
            bytes(disk.total_bytes),
            disk.used_percent,
            disk.mount
        );
        facts.push(("disk", text));
    }
    facts.push((
        "network",
        pair(per_second(stats.network_rx_bytes_per_second), per_second(stats.network_tx_bytes_per_second)),
    ));
    facts.push(("wi-fi", stats.wifi_signal_dbm.map(|dbm| format!("{dbm} dBm")).unwrap_or_default()));
    facts.push(("up", stats.uptime_seconds.map(|up| duration(up.saturating_mul(1000))).unwrap_or_default()));
    facts.push(("power", power(stats)));
    facts
}

fn power(stats: &Sample) -> String {
    let Some(power) = &stats.power else { return String::new() };
    let flags = [
        (power.undervoltage, "undervoltage now"),
        (power.throttled, "throttled now"),
        (power.frequency_capped, "frequency capped now"),
        (power.temperature_limited, "temperature limit now"),
        (power.undervoltage_since_boot, "undervoltage since boot"),
        (power.throttled_since_boot, "throttled since boot"),
    ];
    let active: Vec<_> = flags.iter().filter(|(flag, _)| *flag == Some(true)).map(|(_, name)| *name).collect();
    if active.is_empty() { "good".into() } else { active.join(", ") }
}
