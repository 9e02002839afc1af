//! What may pass from a task's output into a person's terminal: text and colours, nothing else.
//!
//! Output is untrusted: a machine could set the window's title, move the cursor over earlier lines, or answer back into the shell.

/// Filters a stream piece by piece; a sequence may begin in one piece and end in the next.
#[derive(Debug, Default)]
pub struct OutputFilter {
    state: State,
    parameters: String,
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

/// Longer sequences are no colours.
const MOST_PARAMETERS: usize = 64;

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
        self.state = match (self.state, c) {
            (State::String, '\u{7}' | '\u{9c}') | (State::StringEscape, '\\') => State::Text,
            (State::String, '\u{1b}') => State::StringEscape,
            (State::String | State::StringEscape, _)
            | (State::Escape, ']' | 'P' | '_' | '^' | 'X')
            | (State::Text, '\u{9d}' | '\u{90}') => State::String,
            // ESC and intermediates are followed by one more character; alone, ESC takes one.
            (State::Text | State::Escape | State::Csi, '\u{1b}') | (State::Escape, ' '..='/') => State::Escape,
            (State::Escape, '[') | (State::Text, '\u{9b}') => {
                self.parameters.clear();
                State::Csi
            }
            (State::Escape, _) => State::Text,
            (State::Csi, _) => self.csi(c, shown),
            (State::Text, _) => {
                if matches!(c, '\n' | '\t' | '\r') || !super::style::is_unsafe(c) {
                    shown.push(c);
                }
                State::Text
            }
        };
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
            _ => State::Text,
        }
    }
}

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
        ] {
            assert_eq!(OutputFilter::default().filter(text), expected, "{text:?}");
        }
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
