//! Reading the arguments of one task.

use pistat_protocol::task::{ArgumentKind, ArgumentValue, ArgumentView};

use super::{
    argument::{Argument, Pattern},
    command::is_argument_name,
};
use crate::document::{
    item::{Item, Kind},
    reader::Section,
};

/// When an argument with a pattern says nothing else.
const DEFAULT_MAX_LENGTH: u32 = 200;
/// The longest text that fits an order many times over.
const MOST_MAX_LENGTH: i64 = 4096;
const KINDS: [&str; 6] = ["choices", "integer", "number", "pattern", "boolean", "machine"];

/// The arguments of a task, in the order of the file, and the names of all that are there, right or
/// wrong.
pub(super) fn arguments(mut section: Section<'_>) -> (Vec<Argument>, Vec<String>) {
    let entries = section.take_all();
    let names = entries.iter().map(|(name, _)| name.clone()).collect();
    (entries.into_iter().filter_map(|(name, item)| argument(&section, name, item)).collect(), names)
}

fn argument(parent: &Section<'_>, name: String, item: Item) -> Option<Argument> {
    if !is_argument_name(&name) {
        let rule = "a lower-case letter, then lower-case letters, digits, - or _";
        parent.problem_at(&item.place, &format!("{name:?} is not a name for an argument: it is {rule}"));
        return None;
    }
    let mut section = parent.child(&name, item)?;
    let kind = kind(&mut section);
    let argument = kind.map(|(kind, pattern)| {
        let label = section.parsed("label", one_line).unwrap_or_else(|| name.clone());
        let dash = section.boolean("dash").unwrap_or(false);
        let view = ArgumentView { name, label, kind, default: None };
        Argument { view, pattern, dash }
    });
    let argument = argument.map(|argument| {
        dashes(&argument, &section);
        default(argument, &mut section)
    });
    if argument.is_some() {
        section.finish();
    }
    argument
}

fn kind(section: &mut Section<'_>) -> Option<(ArgumentKind, Option<Pattern>)> {
    let given: Vec<_> = KINDS.into_iter().filter(|kind| section.has(kind)).collect();
    let [given] = given[..] else {
        let known = "choices, integer, number, pattern, boolean = true or machine = true";
        let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        section.problem(format!("{} needs exactly one of {known}; it has {found}", section.name()));
        return None;
    };
    match given {
        "choices" => choices(section).map(|kind| (kind, None)),
        "integer" => integer(section).map(|kind| (kind, None)),
        "number" => number(section).map(|kind| (kind, None)),
        "pattern" => pattern(section),
        "boolean" => only_true(section, "boolean").map(|()| (ArgumentKind::Boolean, None)),
        _ => only_true(section, "machine").map(|()| (ArgumentKind::Machine, None)),
    }
}

fn choices(section: &mut Section<'_>) -> Option<ArgumentKind> {
    let choice = |text: &str| {
        let usable = !text.is_empty() && text.len() <= 200 && !text.contains(char::is_control);
        if usable { Ok(text.to_owned()) } else { Err("a choice is one line of 1 to 200 characters") }
    };
    let choices = section.list("choices", choice)?;
    if choices.is_empty() {
        section.problem(format!("{} has no choices", section.name()));
    }
    Some(ArgumentKind::Choices { choices })
}

fn integer(section: &mut Section<'_>) -> Option<ArgumentKind> {
    let mut range = section.section("integer")?;
    let bounds = ["min", "max"].map(|key| range.integer(key, i64::MIN..=i64::MAX));
    let [min, max] = both(&range, bounds, |min, max| min <= max)?;
    range.finish();
    Some(ArgumentKind::Integer { min, max })
}

fn number(section: &mut Section<'_>) -> Option<ArgumentKind> {
    let mut range = section.section("number")?;
    let bounds = ["min", "max"].map(|key| range.number(key));
    let [min, max] = both(&range, bounds, |min, max| min <= max)?;
    range.finish();
    Some(ArgumentKind::Number { min, max })
}

fn both<T: Copy>(range: &Section<'_>, [min, max]: [Option<T>; 2], in_order: fn(T, T) -> bool) -> Option<[T; 2]> {
    for key in ["min", "max"] {
        if !range.was_given(key) {
            range.problem(format!("{} needs both min and max; {key} is missing", range.name()));
        }
    }
    let (min, max) = min.zip(max)?;
    if !in_order(min, max) {
        range.problem(format!("{}: min is greater than max", range.name()));
    }
    Some([min, max])
}

fn pattern(section: &mut Section<'_>) -> Option<(ArgumentKind, Option<Pattern>)> {
    let max_length = section.integer("max_length", 1..=MOST_MAX_LENGTH).and_then(|n| u32::try_from(n).ok());
    let compiled = section.parsed("pattern", |text| Pattern::compile(text).map(|regex| (text.to_owned(), regex)));
    let (pattern, regex) = compiled?;
    Some((ArgumentKind::Pattern { pattern, max_length: max_length.unwrap_or(DEFAULT_MAX_LENGTH) }, Some(regex)))
}

fn only_true(section: &mut Section<'_>, key: &'static str) -> Option<()> {
    let value = section.boolean(key)?;
    if !value {
        section.problem(format!("{}: {key} can only be true", section.name()));
    }
    Some(())
}

/// A value that begins with a dash and could never be given is a mistake of the file's.
fn dashes(argument: &Argument, section: &Section<'_>) {
    let negative = match &argument.view.kind {
        ArgumentKind::Integer { min, .. } => *min < 0,
        ArgumentKind::Number { min, .. } => *min < 0.0,
        ArgumentKind::Choices { choices } => choices.iter().any(|choice| choice.starts_with('-')),
        ArgumentKind::Pattern { .. } | ArgumentKind::Boolean | ArgumentKind::Machine => false,
    };
    if negative && !argument.dash {
        section.problem(format!("{} takes values that start with '-'; say dash = true if they may", section.name()));
    }
}

fn default(mut argument: Argument, section: &mut Section<'_>) -> Argument {
    let Some(item) = section.take("default") else { return argument };
    let value = match item.kind {
        Kind::Text(text) => ArgumentValue::Text(text),
        Kind::Integer(number) => ArgumentValue::Integer(number),
        Kind::Number(number) => ArgumentValue::Number(number),
        Kind::Boolean(truth) => ArgumentValue::Boolean(truth),
        other @ (Kind::List(_) | Kind::Table(_) | Kind::Other(_)) => {
            section.problem_at(&item.place, &format!("the default of {} cannot be {}", section.name(), other.name()));
            return argument;
        }
    };
    // Which machines exist is not known yet; a run checks it.
    let is_machine = |text: &str| text.parse::<pistat_protocol::id::PiId>().is_ok();
    match argument.admit(&value, &is_machine) {
        Ok(value) => argument.view.default = Some(value),
        Err(sentence) => section.problem_at(&item.place, &format!("the default does not fit: {sentence}")),
    }
    argument
}

/// A label or a description.
pub(super) fn one_line(text: &str) -> Result<String, String> {
    let usable = !text.trim().is_empty() && text.chars().count() <= 200 && !text.contains(char::is_control);
    if usable { Ok(text.trim().to_owned()) } else { Err("it is one line of at most 200 characters".into()) }
}
