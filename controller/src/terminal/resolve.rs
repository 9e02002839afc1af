//! From a command to the body of the API that does it: the dashboard's terminal and the command
//! line share these.

use pistat_protocol::{
    api::{GroupOptions, NewRun, PatchMachine},
    dashboard::Machine,
    id::{Tag, Target},
    task::{ArgumentKind, ArgumentValue, ArgumentView, Arguments, TaskView},
};

use super::{RunCommand, TagChange, View, Word, clean, style::is_unsafe};
use crate::{catalogue::argument::describe, config::reader::near};

/// The longest label or responsibility, in characters: it must fit a card.
pub const MAX_LABEL_CHARS: usize = 80;

/// Arguments of their types from words. Whether the catalogue allows the values is its own check.
///
/// # Errors
/// An argument is unknown, given twice, missing, or no value of its kind.
pub fn typed_arguments(task: &TaskView, given: &[(String, String)]) -> Result<Arguments, String> {
    let mut args = Arguments::new();
    for (name, value) in given {
        let argument = task.args.iter().find(|argument| argument.name == *name);
        let argument = argument.ok_or_else(|| unknown_argument(task, name))?;
        if args.insert(name.clone(), typed(argument, value)?).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    let missing = task.args.iter().find(|argument| argument.default.is_none() && !args.contains_key(&argument.name));
    match missing {
        Some(argument) => Err(format!("{} needs {}=…: {}", task.id, argument.name, describe(&argument.kind))),
        None => Ok(args),
    }
}

fn typed(argument: &ArgumentView, text: &str) -> Result<ArgumentValue, String> {
    let typed = match argument.kind {
        ArgumentKind::Integer { .. } => text.parse().ok().map(ArgumentValue::Integer),
        ArgumentKind::Number { .. } => text.parse().ok().map(ArgumentValue::Number),
        ArgumentKind::Boolean => text.to_lowercase().parse().ok().map(ArgumentValue::Boolean),
        ArgumentKind::Choices { .. } | ArgumentKind::Pattern { .. } | ArgumentKind::Machine => {
            Some(ArgumentValue::Text(text.to_owned()))
        }
    };
    typed.ok_or_else(|| format!("{} cannot be \"{}\": it is {}", argument.name, clean(text), describe(&argument.kind)))
}

fn unknown_argument(task: &TaskView, name: &str) -> String {
    let names: Vec<_> = task.args.iter().map(|argument| argument.name.as_str()).collect();
    let hint = match (names.is_empty(), near(name, names.iter().copied())) {
        (true, _) => "it takes none".to_owned(),
        (false, Some(near)) => format!("did you mean {near}?"),
        (false, None) => format!("it takes {}", names.join(", ")),
    };
    format!("{} has no argument \"{}\"; {hint}", task.id, clean(name))
}

/// `task run`.
///
/// # Errors
/// A name is not found, or an argument is wrong.
pub fn new_run(command: &RunCommand, view: &View<'_>) -> Result<NewRun, String> {
    let task = view.task(&command.task)?;
    let target = view.target(command.target.as_deref())?;
    let options = GroupOptions { at_once: command.at_once, stop_after: command.stop_after, canary: command.canary };
    let grouped = options != GroupOptions::default();
    if grouped && matches!(target, Target::Pi(_)) {
        return Err("--at-once, --stop-after and --canary are for several machines: name @all or a @tag".into());
    }
    Ok(NewRun {
        task: task.id.clone(),
        target,
        args: typed_arguments(task, &with_machine_ids(task, &command.args, view)?)?,
        request_id: None,
        expires: command.expires.clone(),
        group: grouped.then_some(options),
        confirmed: command.yes,
    })
}

/// Where an argument names a machine, people may write its label; the catalogue takes the id.
fn with_machine_ids(
    task: &TaskView,
    given: &[(String, String)],
    view: &View<'_>,
) -> Result<Vec<(String, String)>, String> {
    let is_machine =
        |name: &str| task.args.iter().any(|argument| argument.name == name && argument.kind == ArgumentKind::Machine);
    let resolve = |(name, value): &(String, String)| {
        let value = if is_machine(name) { view.machine(value)?.id.to_string() } else { value.clone() };
        Ok((name.clone(), value))
    };
    given.iter().map(resolve).collect()
}

/// `task assign`: the responsibility is a task, by its id or label, or any other text. Empty takes
/// it away.
///
/// # Errors
/// The machine is not found, or the text cannot be shown.
pub fn patch_assignment<'a>(words: &[Word], view: &View<'a>) -> Result<(&'a Machine, PatchMachine), String> {
    let (machine, text) = view.machine_and_rest(words)?;
    let text = view.task(&text).map_or(text, |task| task.label.clone());
    Ok((machine, PatchMachine { assignment: Some(label(&text)?), ..PatchMachine::default() }))
}

/// `assign name`. An empty label gives the agent's own back.
///
/// # Errors
/// The machine is not found, or the label cannot be shown.
pub fn patch_name<'a>(words: &[Word], view: &View<'a>) -> Result<(&'a Machine, PatchMachine), String> {
    let (machine, text) = view.machine_and_rest(words)?;
    Ok((machine, PatchMachine { label: Some(label(&text)?), ..PatchMachine::default() }))
}

/// A label or responsibility as it is kept: trimmed; `None` when nothing is left. REST checks what
/// it is given with this, too.
///
/// # Errors
/// It is too long, or holds what cannot be shown.
pub fn label(text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    if text.contains(is_unsafe) {
        return Err("A label is one line without control characters".into());
    }
    if text.chars().count() > MAX_LABEL_CHARS {
        return Err(format!("A label has at most {MAX_LABEL_CHARS} characters"));
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

/// `tag add`, `tag remove`.
///
/// # Errors
/// The machine is not found, or the tag is none.
pub fn patch_tags<'a>(change: &TagChange, view: &View<'a>) -> Result<(&'a Machine, PatchMachine), String> {
    let machine = view.machine(&change.machine)?;
    let text = change.tag.strip_prefix('@').unwrap_or(&change.tag);
    let tag: Tag = text.parse().map_err(|error: pistat_protocol::id::InvalidId| error.to_string())?;
    if tag.as_str() == "all" {
        return Err("@all is everyone already: it cannot be added or removed".into());
    }
    let mut tags: Vec<Tag> = machine.tags.iter().filter(|other| **other != tag).cloned().collect();
    match (change.add, tags.len() < machine.tags.len()) {
        // An administrator who gives it once more confirms what an operator gave.
        (true, true) => {
            return Ok((machine, PatchMachine { confirm_tags: Some(vec![tag]), ..PatchMachine::default() }));
        }
        (true, false) => tags.push(tag),
        (false, true) => {}
        (false, false) => return Err(format!("{} does not have the tag @{tag}", clean(&machine.label))),
    }
    tags.sort();
    Ok((machine, PatchMachine { tags: Some(tags), ..PatchMachine::default() }))
}

/// `settings`.
///
/// # Errors
/// The machine is not found.
pub fn patch_interval<'a>(
    machine: &str,
    interval_seconds: Option<f64>,
    view: &View<'a>,
) -> Result<(&'a Machine, PatchMachine), String> {
    Ok((view.machine(machine)?, PatchMachine { interval: Some(interval_seconds), ..PatchMachine::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::{Command, parse, sample};

    fn body(line: &str) -> Result<NewRun, String> {
        let fleet = sample::fleet();
        let Ok(Some(Command::TaskRun(command))) = parse(line) else { panic!("{line} is task run") };
        new_run(&command, &fleet.view())
    }

    #[test]
    fn a_run_is_the_same_from_the_terminal_as_from_the_api() {
        let run = body("task run \"Service log\" \"rack pi 1\" unit=ssh lines=50 --yes").unwrap();
        let json = serde_json::to_string(&run).unwrap();
        assert_eq!(json, r#"{"task":"service-log","target":"pi-1","args":{"lines":50,"unit":"ssh"},"confirmed":true}"#);
        let group = body("task run uptime @all --at-once 2 --canary").unwrap();
        assert_eq!(group.group, Some(GroupOptions { at_once: Some(2), stop_after: None, canary: true }));
        assert_eq!(body("task run uptime").unwrap().target, Target::Pi("controller".parse().unwrap()));
    }

    #[test]
    fn what_cannot_run_gets_a_sentence() {
        for (line, expected) in [
            ("task run uptme", "did you mean uptime?"),
            ("task run uptime pi-99", "There is no machine"),
            ("task run uptime @nobody", "No machine has the tag"),
            ("task run uptime pi-1 x=1", "uptime has no argument \"x\"; it takes none"),
            ("task run service-log pi-1", "service-log needs unit=…: one of ssh"),
            ("task run service-log pi-1 unti=ssh", "did you mean unit?"),
            ("task run service-log pi-1 unit=ssh lines=many", "lines cannot be \"many\": it is a whole number"),
            ("task run service-log pi-1 unit=ssh unit=cron", "unit is given twice"),
            ("task run uptime pi-1 --canary", "are for several machines"),
        ] {
            let error = body(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn assignments_names_tags_and_intervals_become_patches() {
        let fleet = sample::fleet();
        let patch = |line: &str| {
            let view = fleet.view();
            let patched = match parse(line).unwrap().unwrap() {
                Command::TaskAssign(words) => patch_assignment(&words, &view),
                Command::AssignName(words) => patch_name(&words, &view),
                Command::Tag(change) => patch_tags(&change, &view),
                Command::Settings { machine, interval_seconds } => patch_interval(&machine, interval_seconds, &view),
                other => panic!("{other:?}"),
            };
            patched.map(|(machine, patch)| format!("{} {}", machine.id, serde_json::to_string(&patch).unwrap()))
        };
        for (line, expected) in [
            ("task assign \"Rack Pi 1\" \"Nightly backup\"", r#"pi-1 {"assignment":"Nightly backup"}"#),
            ("task assign rack pi 1 disk-usage", r#"pi-1 {"assignment":"Disk usage"}"#),
            ("task assign pi-1 \"\"", r#"pi-1 {"assignment":null}"#),
            ("assign name Rack Pi 2 Garage Door", r#"pi-2 {"label":"Garage Door"}"#),
            ("assign name pi-2 ''", r#"pi-2 {"label":null}"#),
            ("tag add pi-1 @attic", r#"pi-1 {"tags":["attic","camera","rack"]}"#),
            ("tag add pi-1 camera", r#"pi-1 {"confirm_tags":["camera"]}"#),
            ("tag remove pi-1 camera", r#"pi-1 {"tags":["rack"]}"#),
            ("settings pi-1 --interval 2.5", r#"pi-1 {"interval":2.5}"#),
            ("settings pi-1 --interval default", r#"pi-1 {"interval":null}"#),
        ] {
            assert_eq!(patch(line).unwrap(), expected, "{line}");
        }
        for (line, expected) in [
            ("tag remove pi-2 camera", "does not have the tag @camera"),
            ("tag add pi-1 @all", "@all is everyone already"),
            ("tag add pi-1 Camera", "not a valid tag"),
            ("assign name pi-1 a\u{1b}b", "without control characters"),
        ] {
            assert!(patch(line).unwrap_err().contains(expected), "{line}");
        }
        assert!(label(&"a".repeat(81)).is_err());
    }
}
