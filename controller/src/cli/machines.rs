//! `pis`, `pi`, `task assign`, `assign name`, `tag`, `settings`.

use std::time::SystemTime;

use pistat_protocol::{api::PatchMachine, dashboard::Machine, task::TaskView, time::Timestamp};

use super::{client::Client, console::Console, failure::Failure};
use crate::terminal::{self, TagChange, View, Word};

/// The clock, for `3m ago`.
pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}

pub(super) fn list(client: &Client, console: &mut Console<'_>) -> Result<(), Failure> {
    let machines: Vec<Machine> = client.get("/api/pis")?;
    console.show(&machines, |machines, style| terminal::machines(machines, now(), style))
}

pub(super) fn show(client: &Client, console: &mut Console<'_>, name: &str) -> Result<(), Failure> {
    let machines: Vec<Machine> = client.get("/api/pis")?;
    let view = View { machines: &machines, tasks: &[], runs: &[] };
    let machine = view.machine(name).map_err(Failure::Refused)?;
    console.show(machine, |machine, style| terminal::machine(machine, now(), style))
}

/// What a command makes of the fleet.
type Patch<'v> = Result<(&'v Machine, PatchMachine), String>;

pub(super) fn assign(client: &Client, console: &mut Console<'_>, words: &[String]) -> Result<(), Failure> {
    let tasks: Vec<TaskView> = client.get("/api/tasks")?;
    patch(client, console, &tasks, |view| terminal::patch_assignment(&shell_words(words), view))
}

pub(super) fn rename(client: &Client, console: &mut Console<'_>, words: &[String]) -> Result<(), Failure> {
    patch(client, console, &[], |view| terminal::patch_name(&shell_words(words), view))
}

pub(super) fn tag(client: &Client, console: &mut Console<'_>, change: &TagChange) -> Result<(), Failure> {
    patch(client, console, &[], |view| terminal::patch_tags(change, view))
}

pub(super) fn settings(
    client: &Client,
    console: &mut Console<'_>,
    name: &str,
    interval_seconds: Option<f64>,
) -> Result<(), Failure> {
    patch(client, console, &[], |view| terminal::patch_interval(name, interval_seconds, view))
}

fn patch(
    client: &Client,
    console: &mut Console<'_>,
    tasks: &[TaskView],
    make: impl for<'v> Fn(&View<'v>) -> Patch<'v>,
) -> Result<(), Failure> {
    let machines: Vec<Machine> = client.get("/api/pis")?;
    let view = View { machines: &machines, tasks, runs: &[] };
    let (before, patch) = make(&view).map_err(Failure::Refused)?;
    let after: Machine = client.patch(&format!("/api/pis/{}", before.id), &patch)?;
    console.show(&after, |after, style| terminal::patched(&patch, before, after, style))
}

/// The shell has taken the quotes away: two words were meant as two, and a word with a blank in it
/// was quoted.
fn shell_words(words: &[String]) -> Vec<Word> {
    let word = |text: &String| {
        let quoted = words.len() == 2 || text.contains(char::is_whitespace) || text.is_empty();
        Word { text: text.clone(), quoted, start: 0, end: 0 }
    };
    words.iter().map(word).collect()
}
