//! Words of a line, with quotes.

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its text, without quotes.
    pub text: String,
    /// Whether any of it was quoted.
    pub quoted: bool,
    /// Where it begins in the line, in bytes.
    pub start: usize,
    /// Where it ends in the line, in bytes.
    pub end: usize,
}

/// The words of a line.
///
/// # Errors
/// A quote is not closed.
pub fn split(_line: &str) -> Result<Vec<Word>, String> {
    todo!()
}

/// A text as one word, quoted if it must be.
pub fn quote(_text: &str) -> String {
    todo!()
}
