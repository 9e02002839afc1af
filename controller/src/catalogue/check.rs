//! The check that every way in goes through: dashboard, MQTT, REST, command line, schedule.

use pistat_protocol::{
    account::Role,
    id::{PiId, Tag, TaskId},
    status::ExecutionPolicy,
    task::Arguments,
};

use super::{ApprovedTask, Catalogue, Refusal};

/// What is asked: a task with arguments, by somebody, on one machine.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Which task.
    pub task: &'a TaskId,
    /// Its arguments, as they were given.
    pub args: &'a Arguments,
    /// The asker's role; `None` is the schedule, whose tasks the catalogue itself allows.
    pub role: Option<Role>,
    /// Where.
    pub machine: MachineFacts<'a>,
    /// Whether a pi-id is a known machine's, for arguments that name one.
    pub is_machine: &'a dyn Fn(&str) -> bool,
}

/// What is known of the machine.
#[derive(Debug, Clone, Copy)]
pub struct MachineFacts<'a> {
    /// Which one.
    pub pi: &'a PiId,
    /// Its tags.
    pub tags: &'a [Tag],
    /// What its agent is willing to run; `None` while nobody has heard from it.
    pub policy: Option<ExecutionPolicy>,
    /// Whether it has the root runner; `None` while nobody has heard from it.
    pub runner: Option<bool>,
}

impl Catalogue {
    /// Approves a task for one machine, or says why not.
    ///
    /// # Errors
    /// The refusal, as data for the person who asked.
    pub fn check(&self, _ask: &Ask<'_>) -> Result<ApprovedTask, Refusal> {
        todo!()
    }
}
