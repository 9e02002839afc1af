//! From a command to the body of the API that does it: the dashboard's terminal and the command line share these.

use pistat_protocol::{
    api::{NewRun, PatchMachine},
    dashboard::Machine,
    task::{Arguments, TaskView},
};

use super::{RunCommand, TagChange, View, Word};

/// Arguments of their types from words.
///
/// # Errors
/// An argument is unknown, given twice, missing, or no value of its kind.
pub fn typed_arguments(_task: &TaskView, _given: &[(String, String)]) -> Result<Arguments, String> {
    todo!()
}

/// `task run`.
///
/// # Errors
/// A name is not found, or an argument is wrong.
pub fn new_run(_command: &RunCommand, _view: &View<'_>) -> Result<NewRun, String> {
    todo!()
}

/// `task assign`: the responsibility is a task's label, or any other text. Empty takes it away.
///
/// # Errors
/// The machine is not found.
pub fn patch_assignment<'a>(_words: &[Word], _view: &View<'a>) -> Result<(&'a Machine, PatchMachine), String> {
    todo!()
}

/// `assign name`. An empty label gives the agent's own back.
///
/// # Errors
/// The machine is not found.
pub fn patch_name<'a>(_words: &[Word], _view: &View<'a>) -> Result<(&'a Machine, PatchMachine), String> {
    todo!()
}

/// `tag add`, `tag remove`.
///
/// # Errors
/// The machine is not found, or the tag is none.
pub fn patch_tags<'a>(_change: &TagChange, _view: &View<'a>) -> Result<(&'a Machine, PatchMachine), String> {
    todo!()
}

/// `settings`.
///
/// # Errors
/// The machine is not found.
pub fn patch_interval<'a>(
    _machine: &str,
    _interval_seconds: Option<f64>,
    _view: &View<'a>,
) -> Result<(&'a Machine, PatchMachine), String> {
    todo!()
}
