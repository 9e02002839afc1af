//! Why a command did not do what it was asked, and the exit code that says so (sysexits.h where it
//! has one).

use std::io;

/// Wrong use of the command line or of the configuration (`EX_USAGE`).
pub(super) const USAGE: u8 = 64;
/// The controller does not answer (`EX_UNAVAILABLE`).
const UNREACHABLE: u8 = 69;
/// The account may not do this (`EX_NOPERM`).
const DENIED: u8 = 77;
/// Everything else.
const OTHER: u8 = 1;

/// Why a command did not do what it was asked. The sentence is for the person.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What was asked makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The controller does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The token is missing, wrong, or its role does not suffice.
    #[error("{0}")]
    Denied(String),
    /// The controller said no, and why.
    #[error("{0}")]
    Refused(String),
    /// A file could not be read or written.
    #[error("{what}: {error}")]
    File {
        /// Which, and what was done to it.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// Nobody reads the output any more.
    #[error("the output was closed")]
    Closed,
    /// All has been said; only the exit code is left.
    #[error("exit code {0}")]
    Exit(u8),
}

impl Failure {
    /// The process's exit code.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Unreachable(_) => UNREACHABLE,
            Self::Denied(_) => DENIED,
            Self::Refused(_) | Self::File { .. } => OTHER,
            // `pistat runs | head` is not a failure.
            Self::Closed => 0,
            Self::Exit(code) => *code,
        }
    }

    /// Whether there is a sentence to be shown.
    pub(super) fn has_sentence(&self) -> bool {
        !matches!(self, Self::Closed | Self::Exit(_))
    }

    /// A file that could not be read or written.
    pub(super) fn file(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |error| Self::File { what, error }
    }
}
