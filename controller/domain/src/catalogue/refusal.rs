//! Why a task was not approved: data for the person who asked, not an error.

use std::fmt;

use pistat_protocol::dashboard::Obstacle;

/// What kind of refusal it is, so that each way in can answer in its own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The catalogue has no such task.
    UnknownTask,
    /// An argument is unknown, missing or not allowed.
    BadArgument,
    /// The asker's role does not suffice.
    NotAllowed,
    /// The task may not run on this machine.
    NotOnThisMachine,
    /// The machine runs no tasks (`--register-only`).
    RegisterOnly,
    /// The machine runs only the tasks that its own configuration lists.
    NotListed,
    /// The task needs root, and the machine has no root runner.
    NoRunner,
}

impl From<Obstacle> for RefusalKind {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Role => Self::NotAllowed,
            Obstacle::NotOn => Self::NotOnThisMachine,
            Obstacle::RegisterOnly => Self::RegisterOnly,
            Obstacle::NotListed => Self::NotListed,
            Obstacle::NoRunner => Self::NoRunner,
        }
    }
}

/// Why a task was not approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which kind.
    pub kind: RefusalKind,
    /// A sentence for a person: what is wrong and what to do.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
