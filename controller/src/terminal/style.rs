//! Colours for the terminal, and the removal of everything from outside that is not plain text.

use std::borrow::Cow;

pub(crate) use pistat_protocol::text::is_unsafe;
use unicode_width::UnicodeWidthStr;

/// How text is dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether SGR colour sequences are used.
    pub colour: bool,
}

/// What a piece of text is, and so how it looks. The themes give these eight colours their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// What a person would type or look for.
    Strong,
    /// Frames, headings, what is less important.
    Dim,
    /// Names of tasks and responsibilities.
    Name,
    /// All is well.
    Good,
    /// Worth a look.
    Warning,
    /// Something failed.
    Bad,
}

impl Style {
    /// Plain text.
    pub const PLAIN: Self = Self { colour: false };
    /// With colours.
    pub const COLOUR: Self = Self { colour: true };

    /// A text in its colour.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Strong => 1,
            Paint::Dim => 2,
            Paint::Name => 36,
            Paint::Good => 32,
            Paint::Warning => 33,
            Paint::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A text in its colour, filled with spaces up to a width.
    pub(crate) fn cell(self, paint: Option<Paint>, text: &str, width: usize) -> String {
        let spaces = " ".repeat(width.saturating_sub(text.width()));
        match paint {
            Some(paint) => format!("{}{spaces}", self.paint(paint, text)),
            None => format!("{text}{spaces}"),
        }
    }
}

/// Text from outside without control characters and direction marks, on one line.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let blank = |c: char| matches!(c, '\n' | '\t' | '\r' | '\u{2028}' | '\u{2029}');
    let kept = text.chars().filter_map(|c| match c {
        c if blank(c) => Some(' '),
        c if is_unsafe(c) => None,
        c => Some(c),
    });
    Cow::Owned(kept.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_loses_what_could_move_the_cursor() {
        for (text, expected) in [
            ("Rack Pi 1", "Rack Pi 1"),
            ("Küche 🍓", "Küche 🍓"),
            ("a\nb\tc\r\n", "a b c  "),
            ("\x1b[31mred\x1b]0;title\x07", "[31mred]0;title"),
            ("\u{202e}gnp.exe", "gnp.exe"),
            ("a\u{9b}31m", "a31m"),
            ("a\u{200b}b\u{2062}c\u{ad}d\u{feff}", "abcd"),
            ("👩\u{200d}💻 می\u{200c}خواهم ⚠\u{fe0f}", "👩\u{200d}💻 می\u{200c}خواهم ⚠\u{fe0f}"),
        ] {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }

    /// What the browser's terminal draws by, in `width.test.ts`, measures the same.
    #[test]
    fn text_is_as_wide_as_in_the_web_terminal() {
        let widths: Vec<(String, usize)> =
            serde_json::from_str(include_str!("../../../tests/fixtures/widths.json")).unwrap();
        assert!(widths.len() > 20);
        for (text, width) in widths {
            assert_eq!((text.width(), &*clean(&text)), (width, &*text), "{text:?}");
        }
    }

    #[test]
    fn cells_are_as_wide_as_they_look() {
        assert_eq!(Style::PLAIN.cell(None, "漢字", 6), "漢字  ");
        assert_eq!(Style::COLOUR.cell(Some(Paint::Good), "ok", 4), "\x1b[32mok\x1b[0m  ");
    }
}
