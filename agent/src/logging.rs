//! What the agent says on its standard error: one line for each event.
//!
//! `tracing-subscriber` does this and much more, for the 33 kB of its registry of spans and the
//! pages of its code: together 0.1 MB of an agent's 2.6. An agent has neither spans nor filters.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    time::SystemTime,
};

use pistat_protocol::{text::is_unsafe, time::Timestamp};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// Starts to write what is at least as severe as `level`, until the end of the process.
pub(crate) fn start(level: Level) {
    // The journal has its own clock.
    let has_clock = std::env::var_os("JOURNAL_STREAM").is_none();
    // It fails only where it has been called already.
    let _ = tracing::subscriber::set_global_default(Lines { level, has_clock, write: to_standard_error });
}

fn to_standard_error(line: &str) {
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

struct Lines {
    level: Level,
    has_clock: bool,
    write: fn(&str),
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }

    fn event(&self, event: &Event<'_>) {
        let now = self.has_clock.then(|| Timestamp::from(SystemTime::now()));
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = now.map(|time| format!("{time} ")).unwrap_or_default();
        (self.write)(&format!("{time}{:>5}{}{}\n", event.metadata().level().as_str(), fields.sentence, fields.others));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The sentence of an event, and what else it names.
#[derive(Default)]
struct Fields {
    sentence: String,
    others: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a text does not fail.
        let _ = match field.name() {
            "message" => write!(Printable(&mut self.sentence), " {value:?}"),
            name => write!(Printable(&mut self.others), " {name}={value:?}"),
        };
    }
}

/// Writes no control characters and nothing that turns the direction of text: what others had a
/// part in must not end a line, move a terminal's cursor or read as something else.
struct Printable<'a>(&'a mut String);

impl fmt::Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if is_unsafe(character) {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static WRITTEN: RefCell<String> = const { RefCell::new(String::new()) };
    }

    /// What is written meanwhile.
    fn written(level: Level, has_clock: bool, work: impl FnOnce()) -> String {
        let write = |line: &str| WRITTEN.with_borrow_mut(|written| written.push_str(line));
        tracing::subscriber::with_default(Lines { level, has_clock, write }, work);
        WRITTEN.take()
    }

    #[test]
    fn an_event_is_a_line_with_all_that_it_names() {
        let lines = written(Level::INFO, false, || {
            let (pi, count) = ("pi-1", 3);
            tracing::info!(pi, count, path = ?std::path::Path::new("/a b"), shown = %"as it is", "so it {}", "is");
            tracing::error!("two\nlines and a \u{1b}[2J");
            tracing::warn!(shown = %"e\u{301} 🍓 \u{202e}txt\u{2028}\u{feff}", "Küche");
            tracing::debug!("not asked for");
            tracing::info_span!("somewhere").in_scope(|| tracing::warn!("in a span"));
        });
        let expected = "
 INFO so it is pi=\"pi-1\" count=3 path=\"/a b\" shown=as it is
ERROR two\\nlines and a \\u{1b}[2J
 WARN Küche shown=e\u{301} 🍓 \\u{202e}txt\\u{2028}\\u{feff}
 WARN in a span
";
        assert_eq!(lines, expected[1..]);
    }

    #[test]
    fn without_a_journal_it_begins_with_the_time() {
        let line = written(Level::TRACE, true, || tracing::trace!("now"));
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && rest == "TRACE now\n", "{line}");
    }
}
