//! The operator's command line. Everything but `serve` and `check` talks to a running controller over HTTP.

use std::{ffi::OsString, process::ExitCode};

use crate::config::Flags;

/// What the command line asked for.
#[derive(Debug)]
pub enum Entry {
    /// `pistat`, `pistat serve`: start the controller with these flags.
    Serve(Flags),
    /// Anything else has been done; this is how it went.
    Done(ExitCode),
}

/// Reads the command line and does everything but `serve`.
pub fn start(_args: impl IntoIterator<Item = OsString>) -> Entry {
    todo!()
}
