//! Where a command reads and writes: the process's own streams, or those of a test.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;
use crate::terminal::{self, OutputFilter, Style};

/// The streams of a command, and what kind of streams they are.
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact about a stream")]
pub(super) struct Console<'s> {
    pub(super) input: &'s mut dyn BufRead,
    pub(super) out: &'s mut dyn Write,
    pub(super) err: &'s mut dyn Write,
    /// Whether a person sees standard output.
    pub(super) out_is_terminal: bool,
    /// Whether a person sees standard error.
    pub(super) err_is_terminal: bool,
    /// Whether a person can be asked.
    pub(super) can_ask: bool,
    /// Whether the person wants no colours (`NO_COLOR`, no-color.org).
    pub(super) no_colour: bool,
    /// Whether results are printed as JSON.
    pub(super) json: bool,
    filter: OutputFilter,
}

/// What kind of streams the process has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    pub(super) input: bool,
    pub(super) out: bool,
    pub(super) err: bool,
}

impl Streams {
    /// Those of this process.
    pub(super) fn of_process() -> Self {
        Self { input: io::stdin().is_terminal(), out: io::stdout().is_terminal(), err: io::stderr().is_terminal() }
    }
}

impl<'s> Console<'s> {
    pub(super) fn new(
        (input, out, err): (&'s mut dyn BufRead, &'s mut dyn Write, &'s mut dyn Write),
        streams: Streams,
        no_colour: bool,
        json: bool,
    ) -> Self {
        Self {
            input,
            out,
            err,
            out_is_terminal: streams.out,
            err_is_terminal: streams.err,
            can_ask: streams.input && streams.err,
            no_colour,
            json,
            filter: OutputFilter::default(),
        }
    }

    /// How results are dressed.
    pub(super) fn style(&self) -> Style {
        Style { colour: self.out_is_terminal && !self.no_colour && !self.json }
    }

    /// How remarks are dressed.
    pub(super) fn err_style(&self) -> Style {
        Style { colour: self.err_is_terminal && !self.no_colour }
    }

    /// Prints a result, as text or as JSON.
    pub(super) fn show<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T, Style) -> String,
    ) -> Result<(), Failure> {
        let text = if self.json { json(value)? } else { text(value, self.style()) };
        self.print(&text)
    }

    /// Prints to standard output.
    pub(super) fn print(&mut self, text: &str) -> Result<(), Failure> {
        write_all(self.out, text.as_bytes())
    }

    /// Prints a task's output: to a person only text and colours, to a program every byte.
    pub(super) fn print_output(&mut self, piece: &str) -> Result<(), Failure> {
        if self.out_is_terminal {
            let shown = self.filter.filter(piece);
            return write_all(self.out, shown.as_bytes());
        }
        write_all(self.out, piece.as_bytes())
    }

    /// Prints a remark to standard error, where it does not disturb the result.
    pub(super) fn remark(&mut self, text: &str) {
        // Whoever closed standard error does not want remarks.
        let _ = self.err.write_all(text.as_bytes()).and_then(|()| self.err.flush());
    }

    /// Says what was done.
    pub(super) fn done(&mut self, sentence: &str) -> Result<(), Failure> {
        self.show(&serde_json::json!({ "done": sentence }), |_, style| terminal::done(sentence, style))
    }

    /// Asks a person; `None` when there is nobody to ask.
    pub(super) fn ask(&mut self, question: &str) -> Option<bool> {
        if !self.can_ask {
            return None;
        }
        self.remark(&format!("? {question} [y/N] "));
        let mut answer = String::new();
        self.input.read_line(&mut answer).ok()?;
        Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| escape(&text) + "\n")
        .map_err(|error| Failure::Refused(format!("The answer cannot be written as JSON: {error}")))
}

/// JSON without characters that a terminal acts on or that change the direction of text; each is in
/// a text of JSON, where its escape means the same.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && terminal::is_unsafe(c) {
            // Beyond the basic plane an escape is a surrogate pair (RFC 8259, section 7).
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn write_all(stream: &mut dyn Write, bytes: &[u8]) -> Result<(), Failure> {
    stream.write_all(bytes).and_then(|()| stream.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::File { what: "standard output cannot be written".into(), error },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_character_that_a_terminal_acts_on_and_means_the_same() {
        let value = serde_json::json!({"label": "a\u{9b}2J\u{202e}b\u{7f}\u{1b}[m\u{2028}\u{feff}\u{e0001}\n", "list": ["Küche 🚪", "\u{85}"]});
        let text = json(&value).unwrap();
        assert!(!text.chars().any(|c| c != '\n' && terminal::is_unsafe(c)), "{text:?}");
        assert!(text.contains("a\\u009b2J\\u202eb\\u007f") && text.contains("Küche 🚪"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
