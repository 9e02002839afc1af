//! The controller's log on its standard error: one line for each event, whatever its fields hold.

use std::{
    fmt::{self, Debug},
    io::IsTerminal,
};

use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{FormatFields, format::Writer},
};

use crate::terminal::is_unsafe;

/// Starts to log what is at least as severe as `level`, until the end of the process.
pub fn to_stderr(level: &str) {
    // The router of the message log opens a span per message: it is silenced, since nobody reads
    // them and they cost half of its speed.
    let filter = EnvFilter::new(format!("warn,pistat={level},pistat_broker={level},pistat_agent={level},rumqttd=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .fmt_fields(one_line())
        .init();
}

/// Writes fields without line breaks, escape sequences or marks that change the direction of text:
/// what a machine or a client sends ends up in errors, and must neither forge a line of the log nor
/// reach the terminal that shows it.
fn one_line() -> impl for<'w> FormatFields<'w> + 'static {
    tracing_subscriber::fmt::format::debug_fn(write_field).delimited(" ")
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    for character in format!("{value:?}").chars() {
        if is_unsafe(character) {
            write!(writer, "{}", character.escape_default())?;
        } else {
            writer.write_char(character)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_text_from_outside_makes_a_line_of_its_own_or_moves_the_cursor() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .fmt_fields(one_line())
            .finish();
        let error = "unknown variant `\n2026-12-01T00:00:00Z ERROR forged\u{1b}]0;title\u{7}\u{9b}2J\u{202e}abc`";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pi = %"pi-1", error = %error, "a message: {error}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        let line = text.trim_end_matches('\n');
        assert!(!line.contains(is_unsafe), "{text:?}");
        assert!(line.contains("a message: ") && line.contains("pi=pi-1") && line.contains("\\u{1b}"), "{text:?}");
    }
}
