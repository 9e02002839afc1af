//! The catalogue and its tasks, as they were read.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use pistat_protocol::{
    id::{Target, TaskId},
    task::TaskView,
};

use super::{argument::Argument, command::Command};
use crate::{
    config::{Config, Problem},
    schedule::Schedule,
};

/// The catalogue that ships, for a controller without a file.
const SHIPPED: &str = include_str!("../../../config/tasks.toml");

/// All tasks, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    pub(super) tasks: Vec<Task>,
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
}

impl Catalogue {
    /// Reads the catalogue's file. When the file that nobody named does not exist, the catalogue is the one that ships.
    ///
    /// # Errors
    /// The file cannot be read, or every problem of its text.
    pub fn read(path: &Path) -> Result<Self, Vec<Problem>> {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path == Config::default().tasks => {
                Self::parse(SHIPPED, &path.display().to_string())
            }
            text => Self::of_file(path, text),
        }
    }

    /// Reads the catalogue's file again. One that is gone is a mistake like any other: it brings no task back that its owner had taken out.
    ///
    /// # Errors
    /// The file cannot be read, or every problem of its text.
    pub fn read_again(path: &Path) -> Result<Self, Vec<Problem>> {
        Self::of_file(path, std::fs::read_to_string(path))
    }

    fn of_file(path: &Path, text: io::Result<String>) -> Result<Self, Vec<Problem>> {
        let file = path.display().to_string();
        match text {
            Ok(text) => Self::parse(&text, &file),
            Err(error) => Err(vec![Problem { file, line: None, message: format!("the file cannot be read: {error}") }]),
        }
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

    /// Where it may run.
    pub fn on(&self) -> &[Target] {
        &self.on
    }

    /// When it runs by itself, on every machine of [`Task::on`].
    pub fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_default_file_is_the_catalogue_that_ships_and_a_missing_named_file_is_a_problem() {
        // Tests run in the crate's folder, which has no config/tasks.toml of its own.
        assert_eq!(Catalogue::read(Path::new("config/tasks.toml")).unwrap().tasks.len(), 14);
        let gone = Catalogue::read_again(Path::new("config/tasks.toml")).unwrap_err();
        assert!(gone[0].to_string().starts_with("config/tasks.toml: the file cannot be read"), "one that was there");
        let problems = Catalogue::read(Path::new("/nonexistent/tasks.toml")).unwrap_err();
        assert!(problems[0].to_string().starts_with("/nonexistent/tasks.toml: the file cannot be read"));
    }

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
