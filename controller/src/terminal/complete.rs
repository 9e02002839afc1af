//! Tab completion.

use pistat_protocol::{account::Role, dashboard::Completion};

use super::View;

/// The candidates for the word under the cursor, best first, and where that word begins; both in UTF-16 code units of the line.
pub fn complete(_line: &str, _cursor_utf16: u32, _view: &View<'_>, _role: Role) -> (u32, Vec<Completion>) {
    todo!()
}
