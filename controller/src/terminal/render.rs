//! Views as text for people: SGR colours and `\n` only; each text ends with `\n`.

use pistat_protocol::{
    dashboard::{Event, Group, Machine, Run},
    task::TaskView,
    time::Timestamp,
};

use super::Style;

/// `task list`.
pub fn task_list(_tasks: &[TaskView], _style: Style) -> String {
    todo!()
}

/// `pis`: one line for each machine.
pub fn machines(_machines: &[Machine], _now: Timestamp, _style: Style) -> String {
    todo!()
}

/// `pi <pi>`: everything about one machine.
pub fn machine(_machine: &Machine, _now: Timestamp, _style: Style) -> String {
    todo!()
}

/// `runs`: one line for each run. Machines are for their labels.
pub fn runs(_runs: &[Run], _machines: &[Machine], _now: Timestamp, _style: Style) -> String {
    todo!()
}

/// `show <run>`: everything about one run.
pub fn run(_run: &Run, _machines: &[Machine], _style: Style) -> String {
    todo!()
}

/// The line above a run's output: task, machine, run.
pub fn run_header(_run: &Run, _label: &str, _style: Style) -> String {
    todo!()
}

/// The line below a run's output: how it ended, exit code, how long it took.
pub fn run_footer(_run: &Run, _style: Style) -> String {
    todo!()
}

/// A group's progress in one line, without its end of line.
pub fn group_progress(_group: &Group, _style: Style) -> String {
    todo!()
}

/// An event in one line.
pub fn event(_event: &Event, _machines: &[Machine], _style: Style) -> String {
    todo!()
}

/// A sentence that says what was done.
pub fn done(_sentence: &str, _style: Style) -> String {
    todo!()
}

/// A sentence that says why not.
pub fn refusal(_sentence: &str, _style: Style) -> String {
    todo!()
}
