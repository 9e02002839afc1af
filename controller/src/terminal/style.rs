//! Colours for the terminal, and the removal of everything from outside that is not plain text.

use std::borrow::Cow;

/// How text is dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether SGR colour sequences are used.
    pub colour: bool,
}

impl Style {
    /// Plain text.
    pub const PLAIN: Self = Self { colour: false };
    /// With colours.
    pub const COLOUR: Self = Self { colour: true };
}

/// Text from outside without control characters and direction marks, on one line.
pub fn clean(text: &str) -> Cow<'_, str> {
    let _ = text;
    todo!()
}
