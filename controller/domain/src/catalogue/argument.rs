//! One argument of a task: which values it takes.

use std::convert::Infallible;

use pistat_protocol::task::{ArgumentKind, ArgumentValue, ArgumentView};
use regex::{Regex, RegexBuilder};
use regex_syntax::ast::{Ast, ClassPerl, ClassPerlKind, ClassSetItem, Visitor, parse::Parser, visit};

/// The most memory that one compiled pattern may take, in bytes: a catalogue is read on a Pi.
const PATTERN_BYTES: usize = 1 << 18;

/// An argument and what admits its values.
#[derive(Debug, Clone)]
pub(super) struct Argument {
    pub(super) view: ArgumentView,
    /// The compiled pattern, for texts with one.
    pub(super) pattern: Option<Pattern>,
    /// Whether a value may start with `-`.
    pub(super) dash: bool,
}

impl Argument {
    /// The value in its own type, if this argument takes it; otherwise what it takes, in a
    /// sentence.
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

    /// Words that people type are texts whatever the kind; numbers are written again in one form
    /// only.
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

/// A compiled pattern for whole values.
///
/// `\d`, `\w` and `\s`, and letters with `(?i)`, stand for ASCII characters only: who writes `\d+`
/// expects what programs read as a number. Others are admitted where a pattern names them, with
/// `.`, `[^…]` or `\p{…}`.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    regex: Regex,
    /// Characters that `(?i)` takes for ASCII letters though the pattern does not have them, and
    /// others that it takes for none.
    folded: Vec<(char, char)>,
}

impl Pattern {
    /// # Errors
    /// A sentence that says why it cannot be used.
    pub(super) fn compile(pattern: &str) -> Result<Self, String> {
        let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
        let refusal = |error: regex::Error| {
            let reason = error.to_string();
            let last_line = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("the pattern {pattern:?} cannot be used: {last_line}")
        };
        // Alone first: `a)|(b` would be well-formed inside of the anchors, and escape them.
        build(pattern).map_err(refusal)?;
        let ascii = with_ascii_classes(pattern);
        let regex = build(&ascii).and_then(|_| build(&format!(r"\A(?:{ascii})\z"))).map_err(refusal)?;
        // The two characters beyond ASCII whose simple case folding is an ASCII letter (Unicode's
        // CaseFolding.txt), each with a letter of its kind.
        let folded = [('\u{17f}', '\u{180}'), ('\u{212a}', '\u{2126}')];
        Ok(Self { regex, folded: folded.into_iter().filter(|(folded, _)| !pattern.contains(*folded)).collect() })
    }

    /// Whether the whole of a text matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        let other = |c| self.folded.iter().find(|(folded, _)| *folded == c).map_or(c, |(_, other)| *other);
        self.regex.is_match(text)
            && (text.is_ascii() || self.regex.is_match(&text.chars().map(other).collect::<String>()))
    }
}

/// The pattern with classes of ASCII characters for `\d`, `\w`, `\s` and their opposites.
fn with_ascii_classes(pattern: &str) -> String {
    let classes = Parser::new().parse(pattern).ok().and_then(|ast| visit(&ast, PerlClasses::default()).ok());
    let mut text = pattern.to_owned();
    for (start, end, class) in classes.unwrap_or_default().into_iter().rev() {
        text.replace_range(start..end, class);
    }
    text
}

/// Where a pattern has `\d` and its like, in the order of the text, and what stands for it.
#[derive(Default)]
struct PerlClasses(Vec<(usize, usize, &'static str)>);

impl PerlClasses {
    fn note(&mut self, class: &ClassPerl) {
        let ascii = match (&class.kind, class.negated) {
            (ClassPerlKind::Digit, false) => "[0-9]",
            (ClassPerlKind::Digit, true) => "[^0-9]",
            (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
            (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
            (ClassPerlKind::Space, false) => r"[\t\n\x0B\f\r\x20]",
            (ClassPerlKind::Space, true) => r"[^\t\n\x0B\f\r\x20]",
        };
        self.0.push((class.span.start.offset, class.span.end.offset, ascii));
    }
}

impl Visitor for PerlClasses {
    type Output = Vec<(usize, usize, &'static str)>;
    type Err = Infallible;

    fn finish(mut self) -> Result<Self::Output, Infallible> {
        self.0.sort_unstable();
        Ok(self.0)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Infallible> {
        if let Ast::ClassPerl(class) = ast {
            self.note(class);
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
        if let ClassSetItem::Perl(class) = item {
            self.note(class);
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_a_pattern_are_of_ascii_characters_and_others_are_admitted_where_they_are_named() {
        // What each pattern takes, and what it refuses.
        let table: [(&str, &[&str], &[&str]); 16] = [
            (r"\d+", &["0123456789"], &["\u{0661}\u{0662}", "1\u{ff11}", "\u{1d7d8}", "", "a"]),
            (r"[\d.]+", &["1.5"], &["1.\u{0665}"]),
            (r"[^\d]", &["a", "\u{0661}"], &["1"]),
            (r"\D", &["a", "é", "\u{0661}"], &["1"]),
            (r"[\D]", &["a"], &["1"]),
            (r"\w+", &["a_Z9"], &["é", "日本", "a\u{0661}", "a-b"]),
            (r"[\w.-]+", &["a-b.c_d"], &["ä", "a b"]),
            (r"\W", &[" ", "é"], &["a", "_"]),
            (r"a\sb", &["a b"], &["a\u{a0}b", "a\u{2003}b", "a\u{3000}b"]),
            (r"\S+", &["ab", "a\u{a0}"], &["a b"]),
            (r"(?i)[a-z]+", &["Kiss"], &["\u{212a}iss", "ki\u{17f}s"]),
            (r"(?i)kiss", &["KISS"], &["\u{212a}ISS", "KI\u{17f}S"]),
            (r"(?i).*", &["\u{212a}elvin \u{17f}"], &[]),
            ("(?i)[a-z\u{17f}]+", &["ki\u{17f}s"], &["\u{212a}is"]),
            (r"(?x) \s \w", &[" a"], &["a", " é"]),
            (r"\p{Greek}+|\\d", &["Ωμέγα", r"\d"], &["1"]),
        ];
        for (pattern, takes, refuses) in table {
            let compiled = Pattern::compile(pattern).unwrap();
            for text in takes {
                assert!(compiled.is_match(text), "{pattern} {text:?}");
            }
            for text in refuses {
                assert!(!compiled.is_match(text), "{pattern} {text:?}");
            }
        }
    }
}
