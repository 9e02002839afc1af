//! Text from outside, as it may be shown on a terminal or in a log.

/// Whether a character must not be shown: control characters, line separators, marks that change
/// the direction of what follows (Unicode's UAX #9), and what is invisible by itself. Joiners,
/// variation selectors and the tags of flags stay: words and pictures are written with them.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        )
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e001f}' | '\u{e01f0}'..='\u{e0fff}')
}
