//! Reading `config/tasks.toml`: every problem of the file is reported, each with its line.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pistat_protocol::{
    account::Role,
    id::{Target, TaskId},
    task::{Ends, TaskView},
};

use super::{
    Catalogue, Task,
    argument::Argument,
    command::{Command, Element},
    parse_argument::{arguments, one_line},
};
use crate::{
    document::{
        Problem,
        item::{Item, Kind, parse_toml},
        reader::{Problems, Section},
        units::{parse_duration, parse_size},
    },
    schedule::Schedule,
};

/// When a task says nothing else: enough for whatever only looks.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Enough for apt to leave a consistent database behind.
const DEFAULT_GRACE: Duration = Duration::from_secs(5);
const DEFAULT_OUTPUT_LIMIT: u64 = 1 << 20;
/// A week: what runs longer is a service, not a task.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
const LONGEST_GRACE: Duration = Duration::from_secs(10 * 60);
/// The least that still holds a beginning, a mark and an end.
const LEAST_OUTPUT_LIMIT: u64 = 1024;
/// What a register on an SD card should hold of one run at most.
const MOST_OUTPUT_LIMIT: u64 = 1 << 30;
const MOST_CONCURRENCY: i64 = 64;

impl Catalogue {
    /// Reads a catalogue's text; `file` names it in problems.
    ///
    /// # Errors
    /// Every problem of the text, with its line.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        let (root, problems) = parse_toml(text, file);
        let problems = Problems::from(problems);
        let catalogue = Section::new("", root, &problems).map(|mut root| {
            let tasks = root.section("task").map(|mut section| tasks(&mut section, &problems)).unwrap_or_default();
            root.finish();
            Self { tasks }
        });
        problems.into_result(catalogue)
    }
}

fn tasks(section: &mut Section<'_>, problems: &Problems) -> Vec<Arc<Task>> {
    let read = |(id, item): (String, Item)| match id.parse::<TaskId>() {
        Ok(task) => Section::new(&format!("task.{id}"), item, problems).and_then(|section| read_task(task, section)),
        Err(error) => {
            problems.push(item.place.problem(error.to_string()));
            None
        }
    };
    section.take_all().into_iter().filter_map(read).map(Arc::new).collect()
}

/// The task, when nothing of it is wrong that would leave a hole; what is wrong has been reported.
fn read_task(id: TaskId, mut section: Section<'_>) -> Option<Task> {
    let (arguments, names) = section.section("args").map(arguments).unwrap_or_default();
    let command = command(&mut section, &arguments, &names);
    let (schedule, runs_when_back) = schedule(&mut section, &arguments);
    let on = section.list("on", str::parse::<Target>).unwrap_or_else(|| vec![Target::All]);
    if on.is_empty() {
        section.problem_at(
            &section.place_of("on"),
            "on is empty: the task could run nowhere; leave it out for all machines",
        );
    }
    let timeout = within(&mut section, "timeout", Duration::from_millis(100), LONGEST_TIMEOUT);
    let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
    let view = TaskView {
        label: section.parsed("label", one_line).unwrap_or_else(|| id.to_string()),
        description: section.parsed("description", one_line).unwrap_or_default(),
        args: arguments.iter().map(|argument| argument.view.clone()).collect(),
        timeout_seconds: timeout.as_secs_f64(),
        role: section.parsed("role", role).unwrap_or(Role::Operator),
        confirm: section.boolean("confirm").unwrap_or(false),
        concurrency: concurrency(&mut section),
        on: on.iter().map(ToString::to_string).collect(),
        root: section.boolean("root").unwrap_or(false),
        ends: section.parsed("ends", ends).unwrap_or_default(),
        schedule: schedule.as_ref().map(|schedule| schedule.as_str().to_owned()),
        id,
    };
    let grace = within(&mut section, "grace", Duration::ZERO, LONGEST_GRACE).unwrap_or(DEFAULT_GRACE);
    let output_limit_bytes = section.parsed("output_limit", output_limit).unwrap_or(DEFAULT_OUTPUT_LIMIT);
    let environment = section.section("environment").map(environment).unwrap_or_default();
    let working_directory = section.parsed("working_directory", directory);
    section.finish();
    let command = command?;
    Some(Task {
        view,
        command,
        arguments,
        environment,
        working_directory,
        timeout,
        grace,
        output_limit_bytes,
        on,
        schedule,
        runs_when_back,
    })
}

fn command(section: &mut Section<'_>, arguments: &[Argument], names: &[String]) -> Option<Command> {
    let place = section.place_of("command");
    let elements = section.list("command", Element::parse);
    if !section.was_given("command") {
        section.problem(format!("{} has no command; it is a list such as [\"uptime\"]", section.name()));
    }
    let elements = elements?;
    if elements.first().is_none_or(Element::is_empty) {
        section.problem_at(&place, "the command is empty; it is a list such as [\"uptime\"]");
    }
    if elements.first().is_some_and(|program| program.arguments().next().is_some()) {
        section.problem_at(&place, "the program itself cannot be an argument: only what follows it can");
    }
    let command = Command::new(elements);
    for name in command.arguments() {
        if !names.iter().any(|other| other == name) {
            section.problem_at(&place, &format!("the command takes {{{name}}}, but there is no args.{name}"));
        }
    }
    for argument in arguments {
        if !command.arguments().any(|name| name == argument.view.name) {
            let name = &argument.view.name;
            section.problem_at(
                &place,
                &format!("args.{name} is nowhere in the command; write {{{name}}} where it belongs"),
            );
        }
    }
    Some(command)
}

/// When it runs by itself, and whether that is made up for where a machine was offline.
fn schedule(section: &mut Section<'_>, arguments: &[Argument]) -> (Option<Schedule>, bool) {
    let zone = section.text("timezone");
    let place = section.place_of("schedule");
    let schedule = section.parsed("schedule", |text| Schedule::parse(text, zone.as_deref()));
    let runs_when_back = section.parsed("missed", missed);
    for (key, given) in [("timezone", zone.is_some()), ("missed", runs_when_back.is_some())] {
        if given && !section.was_given("schedule") {
            section.problem(format!("{key} has no meaning without a schedule"));
        }
    }
    let missing = arguments.iter().find(|argument| argument.view.default.is_none());
    if let (Some(_), Some(argument)) = (&schedule, missing) {
        let name = &argument.view.name;
        section.problem_at(
            &place,
            &format!("a task with a schedule needs a default for args.{name}: nobody is there to give it"),
        );
    }
    (schedule, runs_when_back.unwrap_or(false))
}

fn missed(text: &str) -> Result<bool, String> {
    match text {
        "skip" => Ok(false),
        "run-when-back" => Ok(true),
        _ => Err(format!("{text:?} is not a valid value: missed is skip or run-when-back")),
    }
}

fn concurrency(section: &mut Section<'_>) -> u32 {
    section.integer("concurrency", 1..=MOST_CONCURRENCY).and_then(|n| u32::try_from(n).ok()).unwrap_or(1)
}

fn within(section: &mut Section<'_>, key: &'static str, least: Duration, most: Duration) -> Option<Duration> {
    section.parsed(key, |text| {
        let duration = parse_duration(text)?;
        let (range, show) = (least..=most, crate::document::units::format_duration);
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(format!("{text} is out of range: it is {} to {}", show(least), show(most)))
    })
}

fn output_limit(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    let in_range = (LEAST_OUTPUT_LIMIT..=MOST_OUTPUT_LIMIT).contains(&bytes);
    if in_range { Ok(bytes) } else { Err(format!("{text} is out of range: it is 1KiB to 1GiB")) }
}

fn environment(mut section: Section<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (name, item) in section.take_all() {
        match item.kind {
            Kind::Text(value) if is_variable(&name) && !value.contains('\0') => {
                environment.insert(name, value);
            }
            _ => section.problem_at(
                &item.place,
                &format!("environment.{name} must be a variable's name and a text, such as LANG = \"C.UTF-8\""),
            ),
        }
    }
    environment
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn ends(text: &str) -> Result<Ends, String> {
    match text {
        "exit" => Ok(Ends::Exit),
        "restart" => Ok(Ends::Restart),
        "power-off" => Ok(Ends::PowerOff),
        _ => Err(format!("{text:?} is not an end of a task: it is exit, restart or power-off")),
    }
}

fn role(text: &str) -> Result<Role, String> {
    match text.parse()? {
        Role::Viewer => Err("a viewer runs nothing: the role is operator or admin".into()),
        role => Ok(role),
    }
}

fn directory(text: &str) -> Result<String, String> {
    let usable = text.starts_with('/') && !text.contains('\0');
    if usable { Ok(text.to_owned()) } else { Err(format!("{text:?} is not an absolute path")) }
}

#[cfg(test)]
mod tests;
