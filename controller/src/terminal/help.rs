//! What the terminal understands, in its own words.

use super::Style;

/// All commands, or one of them.
///
/// # Errors
/// There is no such command.
pub fn help(_command: Option<&str>, _style: Style) -> Result<String, String> {
    todo!()
}
