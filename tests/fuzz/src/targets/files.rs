//! What an operator edits.

use pistat::{
    catalogue::{Ask, Catalogue, MachineFacts},
    config::{Config, Problem},
    schedule::Schedule,
};
use pistat_protocol::{
    account::Role,
    codec::{decode, encode},
    id::PiId,
    task::{ArgumentKind, ArgumentValue, Arguments, TaskView},
    time::Timestamp,
};

use crate::catalogue::MACHINE;

/// A `tasks.toml`: what is wrong with it is said, and what is right can be shown, asked for and
/// planned.
pub fn task_files(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let catalogue = match Catalogue::parse(text, "fuzz.toml") {
        Ok(catalogue) => catalogue,
        Err(problems) => return say_why(&problems),
    };
    let view = catalogue.view();
    assert_eq!(decode::<Vec<TaskView>>(&encode(&view)).ok().as_ref(), Some(&view), "{view:?}");
    for task in &view {
        check(&catalogue, task, &Arguments::new());
        check(&catalogue, task, &likely(task));
    }
    let begin = Timestamp::from_unix_milliseconds(1_795_348_800_000);
    for schedule in catalogue.tasks().filter_map(|task| task.schedule()) {
        assert!(Schedule::next_after(schedule, begin).is_none_or(|next| next > begin), "{schedule:?}");
    }
    !view.is_empty()
}

/// A `pistat.toml`: what is wrong with it is said.
pub fn config_files(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match Config::parse(text, "fuzz.toml") {
        Ok(config) => config != Config::default(),
        Err(problems) => say_why(&problems),
    }
}

fn say_why(problems: &[Problem]) -> bool {
    assert!(!problems.is_empty(), "a refusal says why");
    assert!(problems.iter().all(|problem| !problem.message.is_empty()), "{problems:?}");
    false
}

/// What is approved is a program with its arguments, for this machine; what is not has a reason.
fn check(catalogue: &Catalogue, task: &TaskView, args: &Arguments) {
    let machine: PiId = MACHINE.parse().expect("it is a pi-id");
    let facts =
        MachineFacts { pi: &machine, tags: &[], unconfirmed_tags: &[], policy: None, listed: None, runner: Some(true) };
    let is_machine = |name: &str| name == MACHINE;
    let ask = Ask { task: &task.id, args, role: Some(Role::Admin), machine: facts, is_machine: &is_machine };
    match catalogue.check(&ask) {
        Ok(approved) => {
            assert!(approved.argv().first().is_some_and(|program| !program.is_empty()), "{task:?}: {approved:?}");
            assert!(approved.argv().iter().all(|word| !word.contains('\0')), "{task:?}: {approved:?}");
        }
        Err(refusal) => assert!(!refusal.message.is_empty(), "a refusal says why"),
    }
}

/// Values that could be right.
fn likely(task: &TaskView) -> Arguments {
    let value = |kind: &ArgumentKind| match kind {
        ArgumentKind::Choices { choices } => choices.first().cloned().map(ArgumentValue::Text),
        ArgumentKind::Integer { min, .. } => Some(ArgumentValue::Integer(*min)),
        ArgumentKind::Number { max, .. } => Some(ArgumentValue::Number(*max)),
        ArgumentKind::Pattern { .. } => Some(ArgumentValue::Text("a".into())),
        ArgumentKind::Boolean => Some(ArgumentValue::Boolean(true)),
        ArgumentKind::Machine => Some(ArgumentValue::Text(MACHINE.into())),
    };
    task.args.iter().filter_map(|argument| Some((argument.name.clone(), value(&argument.kind)?))).collect()
}
