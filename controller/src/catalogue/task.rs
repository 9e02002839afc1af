//! The catalogue and its tasks, as they were read.

use pistat_protocol::{id::TaskId, task::TaskView};

use crate::{config::Problem, schedule::Schedule};

/// All tasks, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    pub(super) tasks: Vec<Task>,
}

/// One task.
#[derive(Debug, Clone)]
pub struct Task {
    pub(super) view: TaskView,
    pub(super) schedule: Option<Schedule>,
}

impl Catalogue {
    /// Reads a catalogue's text; `file` names it in problems.
    ///
    /// # Errors
    /// Every problem of the text, with its line.
    pub fn parse(_text: &str, _file: &str) -> Result<Self, Vec<Problem>> {
        todo!()
    }

    /// What people see: everything but the commands.
    pub fn view(&self) -> Vec<TaskView> {
        self.tasks.iter().map(|task| task.view.clone()).collect()
    }

    /// The task with this id.
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.iter().find(|task| task.view.id == *id)
    }

    /// All tasks, in the order of the file.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter()
    }
}

impl Task {
    /// What people see of it.
    pub fn view(&self) -> &TaskView {
        &self.view
    }

    /// When it runs by itself.
    pub fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_ref()
    }
}
