//! One argument of a task: which values it takes.

use pistat_protocol::task::{ArgumentKind, ArgumentValue, ArgumentView};
use regex::{Regex, RegexBuilder};

/// The most memory that one compiled pattern may take, in bytes: a catalogue is read on a Pi.
const PATTERN_BYTES: usize = 1 << 18;

/// An argument and what admits its values.
#[derive(Debug, Clone)]
pub(super) struct Argument {
    pub(super) view: ArgumentView,
    /// The compiled pattern, for texts with one.
    pub(super) pattern: Option<Regex>,
    /// Whether a value may start with `-`.
    pub(super) dash: bool,
}

impl Argument {
    /// The value in its own type, if this argument takes it; otherwise what it takes, in a sentence.
    pub(super) fn admit(
        &self,
        value: &ArgumentValue,
        is_machine: &dyn Fn(&str) -> bool,
    ) -> Result<ArgumentValue, String> {
        let admitted = self.typed(value, is_machine).ok_or_else(|| self.refusal(value))?;
        let text = admitted.to_string();
        if text.contains(char::is_control) {
            return Err(format!("{} cannot hold a line break or another control character", self.view.name));
        }
        if text.starts_with('-') && !self.dash {
            return Err(format!("{} cannot start with '-': it would be read as an option", self.view.name));
        }
        Ok(admitted)
    }

    /// Words that people type are texts whatever the kind; numbers are written again in one form only.
    fn typed(&self, value: &ArgumentValue, is_machine: &dyn Fn(&str) -> bool) -> Option<ArgumentValue> {
        match &self.view.kind {
            ArgumentKind::Integer { min, max } => {
                integer(value).filter(|n| (min..=max).contains(&n)).map(ArgumentValue::Integer)
            }
            ArgumentKind::Number { min, max } => {
                number(value).filter(|n| (min..=max).contains(&n)).map(ArgumentValue::Number)
            }
            ArgumentKind::Boolean => boolean(value).map(ArgumentValue::Boolean),
            ArgumentKind::Choices { choices } => {
                text(value).filter(|text| choices.contains(text)).map(ArgumentValue::Text)
            }
            ArgumentKind::Machine => text(value).filter(|text| is_machine(text)).map(ArgumentValue::Text),
            ArgumentKind::Pattern { max_length, .. } => text(value)
                .filter(|text| text.chars().count() <= usize::try_from(*max_length).unwrap_or(usize::MAX))
                .filter(|text| self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(text)))
                .map(ArgumentValue::Text),
        }
    }

    fn refusal(&self, value: &ArgumentValue) -> String {
        let shown: String = value.to_string().chars().take(60).flat_map(char::escape_debug).collect();
        format!("{} cannot be \"{shown}\": it is {}", self.view.name, describe(&self.view.kind))
    }
}

/// What values an argument takes, in a few words.
pub fn describe(kind: &ArgumentKind) -> String {
    match kind {
        ArgumentKind::Choices { choices } => format!("one of {}", choices.join(", ")),
        ArgumentKind::Integer { min, max } => format!("a whole number, {min} to {max}"),
        ArgumentKind::Number { min, max } => format!("a number, {min} to {max}"),
        ArgumentKind::Pattern { pattern, max_length } => {
            format!("a text of at most {max_length} characters that matches {pattern}")
        }
        ArgumentKind::Boolean => "true or false".into(),
        ArgumentKind::Machine => "the pi-id of a known machine".into(),
    }
}

/// The pattern for a whole value.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
    // Alone first: `a)|(b` would be well-formed inside of the anchors, and escape them.
    build(pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z"))).map_err(|error| {
        let reason = error.to_string();
        let last_line = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("the pattern {pattern:?} cannot be used: {last_line}")
    })
}

fn integer(value: &ArgumentValue) -> Option<i64> {
    match value {
        ArgumentValue::Integer(number) => Some(*number),
        ArgumentValue::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn number(value: &ArgumentValue) -> Option<f64> {
    match value {
        #[expect(
            clippy::cast_precision_loss,
            reason = "beyond 2^53 the nearest number is what JSON itself would have carried"
        )]
        ArgumentValue::Integer(number) => Some(*number as f64),
        ArgumentValue::Number(number) => Some(*number),
        ArgumentValue::Text(text) => text.parse().ok(),
        ArgumentValue::Boolean(_) => None,
    }
    .filter(|number| number.is_finite())
    // There is one zero: the negative one would be written with a dash.
    .map(|number| if number == 0.0 { 0.0 } else { number })
}

fn boolean(value: &ArgumentValue) -> Option<bool> {
    match value {
        ArgumentValue::Boolean(truth) => Some(*truth),
        ArgumentValue::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// A text that looks like a number arrives as one from JSON and from people alike.
fn text(value: &ArgumentValue) -> Option<String> {
    match value {
        ArgumentValue::Text(text) => Some(text.clone()),
        ArgumentValue::Integer(number) => Some(number.to_string()),
        ArgumentValue::Number(_) | ArgumentValue::Boolean(_) => None,
    }
}
