//! What may pass from a task's output into a person's terminal: text and colours, nothing else.
//!
//! Output is untrusted: a machine could set the window's title, move the cursor over earlier lines,
//! or answer back into the shell.

/// Filters a stream piece by piece; a sequence may begin in one piece and end in the next.
///
/// A sequence that has no end hides nothing but the rest of its line: a line break, another
/// sequence, and too great a length break it off.
#[derive(Debug, Default)]
pub struct OutputFilter {
    state: State,
    parameters: String,
    /// The characters of the sequence so far.
    length: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// In ESC [ …, collecting.
    Csi,
    /// In a string that BEL or ESC \ ends: OSC, DCS, APC, PM, SOS.
    String,
    /// After ESC in such a string.
    StringEscape,
}

/// Longer sequences are not colours, and no others that a terminal has.
const MOST_PARAMETERS: usize = 64;

/// Longer strings have lost their end.
const LONGEST_STRING: usize = 4096;

impl OutputFilter {
    /// The part of a piece that may be shown.
    pub fn filter(&mut self, piece: &str) -> String {
        let mut shown = String::with_capacity(piece.len());
        for c in piece.chars() {
            self.step(c, &mut shown);
        }
        shown
    }

    fn step(&mut self, c: char, shown: &mut String) {
        self.length += 1;
        self.state = match (self.state, c) {
            (State::Text, _) | (State::String, '\n') => self.text(c, shown),
            (State::String, '\u{7}' | '\u{9c}' | CANCEL | SUBSTITUTE) | (State::StringEscape, '\\') => State::Text,
            (State::String, ESCAPE) => State::StringEscape,
            (State::String, _) if self.length > LONGEST_STRING => self.text(c, shown),
            (State::String, _) => State::String,
            (State::Escape | State::StringEscape, _) => self.escape(c, shown),
            (State::Csi, _) => self.csi(c, shown),
        };
    }

    /// A character that is not part of a sequence, or the first of one.
    fn text(&mut self, c: char, shown: &mut String) -> State {
        self.length = 0;
        self.parameters.clear();
        match c {
            ESCAPE => State::Escape,
            '\u{9b}' => State::Csi,
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => State::String,
            _ => {
                if matches!(c, '\n' | '\t' | '\r') || !super::style::is_unsafe(c) {
                    shown.push(c);
                }
                State::Text
            }
        }
    }

    fn escape(&mut self, c: char, shown: &mut String) -> State {
        self.state = State::Escape;
        match c {
            '[' => State::Csi,
            ']' | 'P' | '_' | '^' | 'X' => State::String,
            // Intermediates are followed by one more character; alone, ESC takes one.
            ' '..='/' if self.length < MOST_PARAMETERS => State::Escape,
            '0'..='~' => State::Text,
            _ => self.text(c, shown),
        }
    }

    fn csi(&mut self, c: char, shown: &mut String) -> State {
        match c {
            ' '..='?' if self.parameters.len() < MOST_PARAMETERS => {
                self.parameters.push(c);
                State::Csi
            }
            'm' if self.parameters.chars().all(|c| matches!(c, '0'..='9' | ';' | ':')) => {
                shown.push_str("\u{1b}[");
                shown.push_str(&self.parameters);
                shown.push('m');
                State::Text
            }
            '@'..='~' => State::Text,
            // Whatever cannot be in a sequence breaks it off.
            _ => self.text(c, shown),
        }
    }
}

const ESCAPE: char = '\u{1b}';
/// The control characters CAN and SUB end any sequence (ECMA-48, and every terminal).
const CANCEL: char = '\u{18}';
const SUBSTITUTE: char = '\u{1a}';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_colours_pass_and_nothing_else_does() {
        for (text, expected) in [
            ("plain\ttext\r\n", "plain\ttext\r\n"),
            ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
            ("\x1b[38:2:1:2:3mx", "\x1b[38:2:1:2:3mx"),
            ("\x1b[2J\x1b[Hx", "x"),
            ("\x1b[?25lx\x1b[>0mx", "xx"),
            ("\x1b]0;title\x07x", "x"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bPq#0\x1b\\x", "x"),
            ("\x1b(Bx\x1b7x\x1bcx", "xxx"),
            ("a\u{8}b\u{7}c\u{9b}2Jd\u{202e}", "abcd"),
            ("\x1b\x1b[31mx", "\x1b[31mx"),
            ("\u{9d}0;title\x07a\u{90}q\u{9c}b\u{98}s\x1b\\c\u{9e}p\x1b\\d\u{9f}a\x07e", "abcde"),
        ] {
            assert_eq!(OutputFilter::default().filter(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_sequence_without_an_end_hides_no_more_than_the_rest_of_its_line() {
        let strings = [
            "\x1b]0;title",
            "\x1bPq#0",
            "\x1b_apc",
            "\x1b^pm",
            "\x1bXsos",
            "\u{9d}0;t",
            "\u{90}q",
            "\u{98}s",
            "\u{9e}p",
            "\u{9f}a",
        ];
        for begun in strings.into_iter().chain(["\x1b", "\x1b(", "\x1b[31", "\u{9b}1;", "\x1b]0;title\x1b"]) {
            for (rest, expected) in [
                ("\nwarning\nend", "\nwarning\nend"),
                ("\r\nwarning", "\nwarning"),
                ("\x1b[33mwarning\x1b[0m", "\x1b[33mwarning\x1b[0m"),
                ("\x1b]0;other\x07warning", "warning"),
            ] {
                let shown = OutputFilter::default().filter(&format!("{begun}{rest}"));
                // What is not a string is broken off by a carriage return, too.
                assert_eq!(shown.trim_start_matches('\r'), expected, "{begun:?} {rest:?}");
            }
        }
        for begun in strings {
            let long = format!("{begun}{}", "x".repeat(2 * LONGEST_STRING));
            assert!(OutputFilter::default().filter(&long).len() >= LONGEST_STRING - 10, "{begun:?}");
        }
        let spaces = format!("\x1b{}[", " ".repeat(200));
        assert!(OutputFilter::default().filter(&format!("{spaces}warning")).ends_with("warning"));
        let parameters = format!("\x1b[{}", "1".repeat(200));
        assert!(OutputFilter::default().filter(&format!("{parameters}warning")).contains("arning"));
    }

    proptest::proptest! {
        #[test]
        fn pieces_are_filtered_as_the_whole(text in "(\\x1b|\\[|\\]|m|0|;|x|\\x07|\\\\|\\n|ü){0,30}", at in 0usize..60) {
            let at = (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let mut pieces = OutputFilter::default();
            let parts = pieces.filter(&text[..at]) + &pieces.filter(&text[at..]);
            let whole = OutputFilter::default().filter(&text);
            proptest::prop_assert_eq!(&parts, &whole);
            let colour = regex::Regex::new("\x1b\\[[0-9;:]*m").unwrap();
            proptest::prop_assert!(!colour.replace_all(&whole, "").contains('\x1b'));
        }
    }
}
