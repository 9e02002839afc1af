//! Finding machines, tasks and runs by what people type: an id, or a label without regard to case.

use pistat_protocol::{
    dashboard::{Machine, Run},
    id::Target,
    task::TaskView,
};

use super::Word;

/// What names are looked up in.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// All machines.
    pub machines: &'a [Machine],
    /// The catalogue.
    pub tasks: &'a [TaskView],
    /// The known runs, newest first.
    pub runs: &'a [Run],
}

impl<'a> View<'a> {
    /// A machine by its id or its label.
    ///
    /// # Errors
    /// There is none, or more than one: a sentence that lists the candidates.
    pub fn machine(&self, _name: &str) -> Result<&'a Machine, String> {
        todo!()
    }

    /// A task by its id or its label.
    ///
    /// # Errors
    /// There is none, or more than one: a sentence that lists the candidates.
    pub fn task(&self, _name: &str) -> Result<&'a TaskView, String> {
        todo!()
    }

    /// A run by its id or the beginning or end of it, if there is only one such.
    ///
    /// # Errors
    /// There is none, or more than one: a sentence that lists the candidates.
    pub fn run(&self, _name: &str) -> Result<&'a Run, String> {
        todo!()
    }

    /// A machine by its id or label, `@tag` or `@all`; `None` is the controller.
    ///
    /// # Errors
    /// There is no such machine, or the group is empty.
    pub fn target(&self, _name: Option<&str>) -> Result<Target, String> {
        todo!()
    }

    /// A machine and the rest, from words that need no quotes when only one reading makes sense.
    ///
    /// # Errors
    /// No machine is named, or nothing follows.
    pub fn machine_and_rest(&self, _words: &[Word]) -> Result<(&'a Machine, String), String> {
        todo!()
    }
}
