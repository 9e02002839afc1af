//! Runs and groups as people see them.

use pistat_protocol::{
    dashboard::{Group, Machine, Run},
    task::RunState,
    time::Timestamp,
};

use super::{
    label_of,
    quantity::{ago, between, bytes, duration},
    table::{Cell, facts, table},
};
use crate::terminal::{
    Style,
    names::short_run,
    style::{Paint, clean},
};

const HEADING: [&str; 8] = ["", "RUN", "TASK", "MACHINE", "STATE", "TOOK", "WHEN", "BY"];

/// `runs`: one line for each run. Machines are for their labels.
pub fn runs(runs: &[Run], machines: &[Machine], now: Timestamp, style: Style) -> String {
    if runs.is_empty() {
        return format!("{}\n", style.paint(Paint::Dim, "no runs yet · run one with task run <task-id> [<pi-id>]"));
    }
    let rows: Vec<_> = runs.iter().map(|run| row(run, machines, now)).collect();
    table(&HEADING, &rows, style)
}

fn row(run: &Run, machines: &[Machine], now: Timestamp) -> Vec<Cell> {
    let (paint, mark) = mark(run.state);
    vec![
        (Some(paint), mark.into()),
        (Some(Paint::Dim), short_run(run.id)),
        (Some(Paint::Name), run.task.to_string()),
        (None, label_of(machines, &run.pi)),
        (Some(paint), state(run)),
        (None, took(run).unwrap_or_default()),
        (Some(Paint::Dim), ago(run.created_at, now)),
        (Some(Paint::Dim), clean(&run.requested_by).into_owned()),
    ]
}

fn mark(state: RunState) -> (Paint, &'static str) {
    match state {
        RunState::Queued | RunState::Dispatched => (Paint::Dim, "…"),
        RunState::Running => (Paint::Name, "▶"),
        RunState::Succeeded => (Paint::Good, "✔"),
        RunState::Cancelled | RunState::Expired => (Paint::Warning, "✖"),
        RunState::Failed | RunState::TimedOut | RunState::Rejected | RunState::Lost => (Paint::Bad, "✖"),
    }
}

/// The state in words; a failure with its exit code.
fn state(run: &Run) -> String {
    let name = match run.state {
        RunState::Succeeded => "finished",
        RunState::TimedOut => "timed out",
        other => other.as_str(),
    };
    match run.exit_code {
        Some(code) if code != 0 || run.state == RunState::Succeeded => format!("{name} exit {code}"),
        _ => name.to_owned(),
    }
}

fn took(run: &Run) -> Option<String> {
    run.started_at.zip(run.finished_at).map(|(start, end)| duration(between(start, end)))
}

/// `show <run>`: everything about one run.
pub fn run(run: &Run, machines: &[Machine], style: Style) -> String {
    let args: Vec<_> = run.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let label = label_of(machines, &run.pi);
    let machine = if label == run.pi.as_str() { label } else { format!("{label} ({})", run.pi) };
    let dropped =
        if run.dropped_bytes > 0 { format!(", {} left out", bytes(run.dropped_bytes)) } else { String::new() };
    let known = [
        ("run", run.id.to_string()),
        ("task", run.task.to_string()),
        ("arguments", args.join(" ")),
        ("machine", machine),
        ("reason", run.reason.clone().unwrap_or_default()),
        ("asked by", run.requested_by.clone()),
        ("request", run.request_id.clone().unwrap_or_default()),
        ("group", run.group.map(|group| group.to_string()).unwrap_or_default()),
        ("accepted", time(Some(run.created_at))),
        ("started", time(run.started_at)),
        ("finished", time(run.finished_at)),
        ("took", took(run).unwrap_or_default()),
        ("output", format!("{}{dropped}", bytes(run.output_bytes))),
    ];
    let (paint, mark) = mark(run.state);
    format!("{}\n", style.paint(paint, &format!("{mark} {}", state(run)))) + &facts(known, 9, style)
}

/// The line above a run's output: task, machine, run.
pub fn run_header(run: &Run, label: &str, style: Style) -> String {
    let text = format!("┌ {} · {} · run {}", run.task, clean(label), short_run(run.id));
    format!("{}\n", style.paint(Paint::Dim, &text))
}

/// The line below a run's output: how it ended, exit code, how long it took, why.
pub fn run_footer(run: &Run, style: Style) -> String {
    let (paint, mark) = mark(run.state);
    let state = state(run);
    let (name, code) = state.split_once(" exit ").unwrap_or((&state, ""));
    let code = Some(code).filter(|code| !code.is_empty()).map(|code| format!("exit {code}"));
    let gap = (run.dropped_bytes > 0).then(|| format!("{} of output left out", bytes(run.dropped_bytes)));
    let reason = run.reason.as_deref().map(|reason| clean(reason).into_owned());
    let details: Vec<_> = [code, took(run), reason, gap].into_iter().flatten().collect();
    format!(
        "{} {} {}\n",
        style.paint(Paint::Dim, "└"),
        style.paint(paint, &format!("{mark} {name}")),
        style.paint(Paint::Dim, &details.join(" · "))
    )
    .replace(" \n", "\n")
}

/// A group in one line: task, target, how far it is.
pub fn group(group: &Group, style: Style) -> String {
    let stopped = group.stopped.as_deref().map(|reason| format!(" · {}", clean(reason))).unwrap_or_default();
    let head = style.paint(Paint::Dim, &format!("┌ {} · {} · {} machines", group.task, group.target, group.total));
    format!("{head}\n{}{}\n", group_progress(group, style), style.paint(Paint::Warning, &stopped))
}

/// How many characters the bar of a group has.
const BAR: usize = 24;

/// A group's progress in one line, without its end of line: `███░░░ 16/24  15 ✔ 1 ✖ 8 running`.
pub fn group_progress(group: &Group, style: Style) -> String {
    let count = |counts: fn(RunState) -> bool| -> u32 {
        group.states.iter().filter(|(state, _)| counts(**state)).map(|(_, count)| count).sum()
    };
    let (ended, good) = (count(RunState::is_final), count(|state| state == RunState::Succeeded));
    let running = count(|state| matches!(state, RunState::Dispatched | RunState::Running));
    let waiting = count(|state| state == RunState::Queued);
    let mut parts = vec![bar(ended, group.total, style) + &format!(" {ended}/{} ", group.total)];
    parts.push(format!("{good} {}", style.paint(Paint::Good, "✔")));
    if ended > good {
        parts.push(format!("{} {}", ended - good, style.paint(Paint::Bad, "✖")));
    }
    let rest = [(running, "running"), (waiting, "waiting")].into_iter().filter(|(number, _)| *number > 0);
    parts.extend(rest.map(|(number, name)| style.paint(Paint::Dim, &format!("{number} {name}"))));
    parts.join(" ")
}

fn bar(ended: u32, total: u32, style: Style) -> String {
    let share = u64::from(ended.min(total)) * (BAR as u64) / u64::from(total.max(1));
    let filled = usize::try_from(share).unwrap_or(BAR);
    style.paint(Paint::Good, &"█".repeat(filled)) + &style.paint(Paint::Dim, &"░".repeat(BAR - filled))
}
