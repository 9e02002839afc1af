//! Runs and groups as people see them.

use pistat_protocol::{
    dashboard::{Group, Machine, Run},
    task::RunState,
    time::Timestamp,
};

use super::{
    label_of,
    quantity::{ago, between, bytes, count, duration, moment},
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

/// A state's name for people.
fn name(state: RunState) -> &'static str {
    match state {
        RunState::Succeeded => "finished",
        RunState::TimedOut => "timed out",
        other => other.as_str(),
    }
}

/// The exit code that a task gave itself. That of a process that was ended from outside is its
/// signal's: the state and its reason say why.
fn exit(run: &Run) -> Option<String> {
    let own = matches!(run.state, RunState::Succeeded | RunState::Failed);
    run.exit_code.filter(|_| own).map(|code| format!("exit {code}"))
}

/// The state in words, with a task's own exit code.
fn state(run: &Run) -> String {
    [Some(name(run.state).to_owned()), exit(run)].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The reason of a run's end without the name of its state, which stands before it.
fn reason(run: &Run) -> Option<String> {
    let reason = clean(run.reason.as_deref()?).into_owned();
    let rest = reason.strip_prefix(name(run.state)).map(|rest| rest.trim_start_matches([' ', ';', ':', ',']));
    Some(rest.unwrap_or(&reason).to_owned()).filter(|reason| !reason.is_empty())
}

/// How a run ended, each thing once: `failed · exit 100 · 12.4 s`,
/// `timed out · 30.0 s · ended by its time limit of 30 s`.
pub fn how_it_ended(run: &Run) -> String {
    let parts = [Some(name(run.state).to_owned()), exit(run), took(run), reason(run)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

fn took(run: &Run) -> Option<String> {
    run.started_at.zip(run.finished_at).map(|(start, end)| duration(between(start, end)))
}

/// `show <run>`: everything about one run.
pub fn run(run: &Run, machines: &[Machine], style: Style) -> String {
    let args: Vec<_> = run.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let time = |time: Option<Timestamp>| time.map(moment).unwrap_or_default();
    let label = label_of(machines, &run.pi);
    let machine = if label == run.pi.as_str() { label } else { format!("{label} ({})", run.pi) };
    let dropped =
        if run.dropped_bytes > 0 { format!(", {} left out", bytes(run.dropped_bytes)) } else { String::new() };
    let known = [
        ("run", run.id.to_string()),
        ("task", run.task.to_string()),
        ("arguments", args.join(" ")),
        ("machine", machine),
        ("reason", reason(run).unwrap_or_default()),
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
    let gap = (run.dropped_bytes > 0).then(|| format!("{} of output left out", bytes(run.dropped_bytes)));
    let details: Vec<_> = [exit(run), took(run), reason(run), gap].into_iter().flatten().collect();
    format!(
        "{} {} {}\n",
        style.paint(Paint::Dim, "└"),
        style.paint(paint, &format!("{mark} {}", name(run.state))),
        style.paint(Paint::Dim, &details.join(" · "))
    )
    .replace(" \n", "\n")
}

/// A group in one line: task, target, how far it is.
pub fn group(group: &Group, style: Style) -> String {
    let stopped = group.stopped.as_deref().map(|reason| format!(" · {}", clean(reason))).unwrap_or_default();
    let machines = count(usize::try_from(group.total).unwrap_or(usize::MAX), "machine");
    let head = style.paint(Paint::Dim, &format!("┌ {} · {} · {machines}", group.task, group.target));
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
