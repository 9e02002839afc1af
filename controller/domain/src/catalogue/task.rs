//! The catalogue and its tasks, as they were read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pistat_protocol::{
    id::{Tag, Target, TaskId},
    task::{ArgumentKind, TaskView},
};

use super::{argument::Argument, command::Command};
use crate::schedule::Schedule;

/// The text of the catalogue that ships, for a controller without a file.
pub const SHIPPED: &str = include_str!("../../../../config/tasks.toml");

/// All tasks, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    pub(super) tasks: Vec<Arc<Task>>,
}

/// One task.
#[derive(Debug, Clone)]
pub struct Task {
    pub(super) view: TaskView,
    pub(super) command: Command,
    pub(super) arguments: Vec<Argument>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) working_directory: Option<String>,
    pub(super) timeout: Duration,
    pub(super) grace: Duration,
    pub(super) output_limit_bytes: u64,
    pub(super) on: Vec<Target>,
    pub(super) schedule: Option<Schedule>,
    pub(super) runs_when_back: bool,
}

impl Catalogue {
    /// What people see: everything but the commands.
    pub fn view(&self) -> Vec<TaskView> {
        self.tasks.iter().map(|task| task.view.clone()).collect()
    }

    /// The task with this id.
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.find(id).map(Arc::as_ref)
    }

    pub(super) fn find(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.iter().find(|task| task.view.id == *id)
    }

    /// Whether some task may run only where a tag is, among other places.
    pub fn is_bound_to(&self, tag: &Tag) -> bool {
        self.tasks.iter().any(|task| task.on.iter().any(|target| matches!(target, Target::Tag(on) if on == tag)))
    }

    /// All tasks, in the order of the file.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().map(Arc::as_ref)
    }
}

impl Task {
    /// What people see of it.
    pub fn view(&self) -> &TaskView {
        &self.view
    }

    /// Its time limit.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How much of its output is stored.
    pub fn output_limit_bytes(&self) -> u64 {
        self.output_limit_bytes
    }

    /// Where it may run.
    pub fn on(&self) -> &[Target] {
        &self.on
    }

    /// Whether it may run on the controller's own machine: by name, by `@all`, or by a tag that the
    /// machine may have.
    pub fn may_run_on_controller(&self) -> bool {
        self.on.iter().any(|target| match target {
            Target::All | Target::Tag(_) => true,
            Target::Pi(pi) => pi.is_controller(),
        })
    }

    /// The names of its arguments that are free text: of their values only the form is checked.
    pub fn free_texts(&self) -> impl Iterator<Item = &str> {
        let is_free = |argument: &&Argument| matches!(argument.view.kind, ArgumentKind::Pattern { .. });
        self.arguments.iter().filter(is_free).map(|argument| argument.view.name.as_str())
    }

    /// When it runs by itself, on every machine of [`Task::on`].
    pub fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_ref()
    }

    /// Whether a machine that is offline when the schedule fires runs it once it is back.
    pub fn runs_when_back(&self) -> bool {
        self.runs_when_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fourteen_tasks_ship_and_those_that_change_a_machine_need_root_and_most_a_confirmation() {
        let tasks = Catalogue::parse(SHIPPED, "tasks.toml").unwrap().view();
        let ids: Vec<_> = tasks.iter().map(|task| task.id.as_str()).collect();
        let expected = "uptime disk-usage memory temperature top network os-release failed-services service-log \
                        service-restart apt-update apt-upgrade reboot shutdown";
        assert_eq!(ids, expected.split_whitespace().collect::<Vec<_>>());
        let changing: Vec<_> = tasks.iter().filter(|task| task.root).map(|task| task.id.as_str()).collect();
        assert_eq!(changing, ["service-restart", "apt-update", "apt-upgrade", "reboot", "shutdown"]);
        assert!(tasks.iter().all(|task| task.confirm == (task.root && task.id.as_str() != "apt-update")));
        let ends: Vec<_> = tasks[12..].iter().map(|task| task.ends).collect();
        assert_eq!(ends, [pistat_protocol::task::Ends::Restart, pistat_protocol::task::Ends::PowerOff]);
    }

    #[test]
    fn the_temperature_of_a_kernel_becomes_degrees() {
        let catalogue = Catalogue::parse(SHIPPED, "tasks.toml").unwrap();
        let argv = catalogue.get(&"temperature".parse().unwrap()).unwrap().command.argv(&BTreeMap::new());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "48312\n").unwrap();
        let mut command = std::process::Command::new(&argv[0]);
        let output =
            command.args(&argv[1..argv.len() - 1]).arg(file.path()).env_clear().env("PATH", "/usr/bin:/bin").output();
        assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), "48.3 °C\n");
    }
}
