//! Finding machines, tasks and runs by what people type: an id, or a label without regard to case.

use pistat_protocol::{
    api::NewRun,
    dashboard::{Machine, Run},
    id::{PiId, RunId, Target},
    task::TaskView,
};

use super::{Word, style::clean};
use crate::config::reader::near;

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

/// The characters at the end of a run's id that `runs` shows: 48 random bits, so they are its name
/// among all that anybody will see.
const SHORT_RUN: usize = 12;
/// Fewer characters of a run's id are not taken for a name.
const LEAST_RUN: usize = 4;
/// How many candidates a sentence lists.
const MOST_CANDIDATES: usize = 8;

impl<'a> View<'a> {
    /// A machine by its id or its label. An id wins over another machine's label: labels are
    /// anybody's choice.
    ///
    /// # Errors
    /// There is none, or more than one: a sentence that lists the candidates.
    pub fn machine(&self, name: &str) -> Result<&'a Machine, String> {
        let found = self.machines_named(name);
        match found.as_slice() {
            [machine] => Ok(machine),
            [] => Err(self.no_machine(name)),
            several => {
                let ids = several.iter().map(|machine| machine.id.as_str());
                Err(format!("{} is the label of several machines: {}. Name one by its id", shown(name), listed(ids)))
            }
        }
    }

    /// Whether a person is asked to confirm a request. Not where the machine is known to be unable
    /// to run the task: the refusal says why.
    pub fn asks(&self, request: &NewRun) -> bool {
        let confirm = self.tasks.iter().any(|task| task.id == request.task && task.confirm);
        let Target::Pi(pi) = &request.target else { return confirm };
        let machine = self.machines.iter().find(|machine| machine.id == *pi);
        let obstacles = machine.map(|machine| machine.cannot_run.as_slice()).unwrap_or_default();
        confirm && !obstacles.iter().any(|obstacle| obstacle.tasks.contains(&request.task))
    }

    fn machines_named(&self, name: &str) -> Vec<&'a Machine> {
        let by_id = self.machines.iter().find(|machine| machine.id.as_str().eq_ignore_ascii_case(name.trim()));
        let key = key(name);
        match by_id {
            Some(machine) => vec![machine],
            None => self.machines.iter().filter(|machine| self::key(&machine.label) == key).collect(),
        }
    }

    fn no_machine(&self, name: &str) -> String {
        let names = self.machines.iter().flat_map(|machine| [machine.id.as_str(), machine.label.as_str()]);
        let hint = near(name, names)
            .map_or_else(|| "pis shows all machines".to_owned(), |near| format!("did you mean {}?", clean(near)));
        format!("There is no machine {}; {hint}", shown(name))
    }

    /// A task by its id or its label.
    ///
    /// # Errors
    /// There is none, or more than one: a sentence that lists the candidates.
    pub fn task(&self, name: &str) -> Result<&'a TaskView, String> {
        let key = key(name);
        if let Some(task) = self.tasks.iter().find(|task| task.id.as_str() == key) {
            return Ok(task);
        }
        let found: Vec<_> = self.tasks.iter().filter(|task| self::key(&task.label) == key).collect();
        match found.as_slice() {
            [task] => Ok(task),
            [] => {
                let names = self.tasks.iter().flat_map(|task| [task.id.as_str(), task.label.as_str()]);
                let hint = near(name, names)
                    .map_or_else(|| "task list shows all tasks".to_owned(), |near| format!("did you mean {near}?"));
                Err(format!("There is no task {}; {hint}", shown(name)))
            }
            several => {
                let ids = several.iter().map(|task| task.id.as_str());
                Err(format!("{} is the label of several tasks: {}. Name one by its id", shown(name), listed(ids)))
            }
        }
    }

    /// A run by its id, or by the beginning or the end of it if there is only one such.
    ///
    /// # Errors
    /// There is none, or more than one: a sentence that lists the candidates.
    pub fn run(&self, name: &str) -> Result<&'a Run, String> {
        let key = name.trim().to_ascii_lowercase();
        let key = key.trim_matches(['…', '.']);
        let fits = |run: &&Run| {
            let id = run.id.to_string();
            key.len() >= LEAST_RUN && (id.starts_with(key) || id.ends_with(key))
        };
        let found: Vec<_> = self.runs.iter().filter(fits).collect();
        match found.as_slice() {
            [run] => Ok(run),
            [] => Err(format!("There is no run {}; runs shows the newest", shown(name))),
            several => {
                let line = |run: &&&Run| format!("{} ({} on {})", short_run(run.id), run.task, run.pi);
                let lines: Vec<_> = several.iter().take(MOST_CANDIDATES).map(|run| line(&run)).collect();
                Err(format!("{} could be several runs: {}", shown(name), lines.join(", ")))
            }
        }
    }

    /// A machine by its id or label, `@tag` or `@all`; `None` is the controller.
    ///
    /// # Errors
    /// There is no such machine, or the group is empty.
    pub fn target(&self, name: Option<&str>) -> Result<Target, String> {
        let Some(name) = name else { return Ok(Target::Pi(PiId::controller())) };
        if !name.starts_with('@') {
            return self.machine(name).map(|machine| Target::Pi(machine.id.clone()));
        }
        let target: Target =
            name.to_lowercase().parse().map_err(|error: pistat_protocol::id::InvalidId| error.to_string())?;
        match &target {
            Target::Tag(tag) if !self.machines.iter().any(|machine| machine.tags.contains(tag)) => {
                Err(self.no_tag(name))
            }
            Target::All if self.machines.is_empty() => Err("There is no machine yet".into()),
            _ => Ok(target),
        }
    }

    fn no_tag(&self, name: &str) -> String {
        let tags = self.tags();
        let hint = if tags.is_empty() {
            "no machine has a tag yet; tag add <pi> <tag> gives it one".to_owned()
        } else {
            format!("there are {}", listed(tags.iter().map(String::as_str)))
        };
        format!("No machine has the tag {}; {hint}", shown(name))
    }

    /// Every tag in use, as people write it, in order.
    pub(super) fn tags(&self) -> Vec<String> {
        let tags = self.machines.iter().flat_map(|machine| machine.tags.iter().map(|tag| format!("@{tag}")));
        tags.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// A machine and the rest, from words that need no quotes when only one reading makes sense: a
    /// quoted word is the machine; otherwise the longest beginning that names one is.
    ///
    /// # Errors
    /// No machine is named, or nothing follows.
    pub fn machine_and_rest(&self, words: &[Word]) -> Result<(&'a Machine, String), String> {
        let Some(first) = words.first() else { return Err("A machine is missing".into()) };
        let unquoted = words.iter().take_while(|word| !word.quoted).count();
        let longest = if first.quoted { 1 } else { unquoted.min(words.len() - 1) };
        for count in (1..=longest).rev().filter(|&count| count < words.len()) {
            let name = joined(&words[..count]);
            if !self.machines_named(&name).is_empty() {
                return Ok((self.machine(&name)?, joined(&words[count..])));
            }
        }
        if self.machines_named(&joined(words)).len() == 1 {
            return Err(format!("{} is a machine; something must follow it", joined(words)));
        }
        let quotes =
            if words.len() > 2 && !first.quoted { ". Names of several words are safest in quotes" } else { "" };
        Err(format!("{}{quotes}", self.no_machine(&first.text)))
    }
}

/// How a run is called where space is short.
pub(crate) fn short_run(id: RunId) -> String {
    let id = id.to_string();
    id[id.len() - SHORT_RUN..].to_owned()
}

fn joined(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// Names are compared without case and with single blanks.
fn key(name: &str) -> String {
    name.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

fn shown(name: &str) -> String {
    let name: String = clean(name.trim()).chars().take(60).collect();
    format!("\"{name}\"")
}

fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(MOST_CANDIDATES);
    let first: Vec<_> = names.iter().take(MOST_CANDIDATES).map(|name| clean(name)).collect();
    if more > 0 { format!("{} and {more} more", first.join(", ")) } else { first.join(", ") }
}

#[cfg(test)]
mod tests {
    use pistat_protocol::{
        dashboard::{CannotRun, Obstacle},
        task::Arguments,
    };

    use super::*;
    use crate::terminal::{sample, split};

    #[test]
    fn machines_are_found_by_id_and_by_label_without_case() {
        let fleet = sample::fleet();
        let view = fleet.view();
        for (name, id) in [
            ("pi-1", "pi-1"),
            ("PI-1", "pi-1"),
            ("rack pi 1", "pi-1"),
            ("  Rack   Pi 2 ", "pi-2"),
            ("controller", "controller"),
        ] {
            assert_eq!(view.machine(name).unwrap().id.as_str(), id, "{name}");
        }
        for (name, expected) in [
            ("twin", "\"twin\" is the label of several machines: pi-3, pi-4. Name one by its id"),
            ("rack pi 3", "did you mean Rack Pi"),
            ("zzz", "There is no machine \"zzz\"; pis shows all machines"),
            ("\x1b[2J", "There is no machine \"[2J\""),
            ("", "There is no machine"),
        ] {
            let error = view.machine(name).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn a_label_that_is_another_machines_id_does_not_hide_it() {
        let mut fleet = sample::fleet();
        fleet.machines[2].label = "pi-1".into();
        assert_eq!(fleet.view().machine("pi-1").unwrap().id.as_str(), "pi-1");
    }

    #[test]
    fn a_task_that_cannot_run_on_the_machine_is_not_asked_about() {
        let mut fleet = sample::fleet();
        let request = |target: &str| NewRun {
            task: "reboot".parse().unwrap(),
            target: target.parse().unwrap(),
            args: Arguments::new(),
            request_id: None,
            expires: None,
            confirmed: false,
            group: None,
        };
        assert!(fleet.view().asks(&request("pi-1")) && fleet.view().asks(&request("@all")));
        fleet.machines[1].cannot_run = vec![CannotRun {
            reason: Obstacle::NoRunner,
            message: "it needs root".into(),
            tasks: vec!["reboot".parse().unwrap()],
        }];
        assert!(!fleet.view().asks(&request("pi-1")), "the refusal comes at once");
        assert!(fleet.view().asks(&request("pi-2")) && fleet.view().asks(&request("@all")));
        fleet.machines[1].cannot_run[0].tasks = vec!["uptime".parse().unwrap()];
        assert!(fleet.view().asks(&request("pi-1")));
    }

    #[test]
    fn tasks_are_found_by_id_and_by_label() {
        let fleet = sample::fleet();
        let view = fleet.view();
        assert_eq!(view.task("disk USAGE").unwrap().id.as_str(), "disk-usage");
        assert_eq!(view.task("Uptime").unwrap().id.as_str(), "uptime");
        assert!(view.task("uptme").unwrap_err().contains("did you mean uptime?"));
    }

    #[test]
    fn runs_are_found_by_the_beginning_or_the_end_of_their_id() {
        let fleet = sample::fleet();
        let view = fleet.view();
        let id = fleet.runs[0].id;
        for name in
            [id.to_string(), short_run(id), id.to_string()[30..].to_owned(), format!("{}…", &id.to_string()[..23])]
        {
            assert_eq!(view.run(&name).unwrap().id, id, "{name}");
        }
        assert!(view.run("019").unwrap_err().contains("There is no run"));
        assert!(view.run(&id.to_string()[..4]).unwrap_err().contains("could be several runs"));
    }

    #[test]
    fn targets_are_machines_tags_and_everyone() {
        let fleet = sample::fleet();
        let view = fleet.view();
        for (name, expected) in
            [(None, "controller"), (Some("Rack Pi 1"), "pi-1"), (Some("@CAMERA"), "@camera"), (Some("@all"), "@all")]
        {
            assert_eq!(view.target(name).unwrap().to_string(), expected);
        }
        assert!(
            view.target(Some("@nobody")).unwrap_err().contains("No machine has the tag \"@nobody\"; there are @camera")
        );
        assert!(View { machines: &[], tasks: &[], runs: &[] }.target(Some("@all")).is_err());
    }

    #[test]
    fn quotes_are_optional_where_only_one_reading_makes_sense() {
        let fleet = sample::fleet();
        for (line, expected) in [
            ("pi-1 Garage", ("pi-1", "Garage")),
            ("Rack Pi 1 Garage Door", ("pi-1", "Garage Door")),
            ("\"Rack Pi 1\" Garage Door", ("pi-1", "Garage Door")),
            ("rack pi 2 \"Rack Pi 1\"", ("pi-2", "Rack Pi 1")),
            ("pi-1 \"\"", ("pi-1", "")),
        ] {
            let words = split(line).unwrap();
            let (machine, rest) = fleet.view().machine_and_rest(&words).unwrap();
            assert_eq!((machine.id.as_str(), rest.as_str()), expected, "{line}");
        }
        for (line, expected) in [
            ("Rack Pi 1", "is a machine; something must follow it"),
            ("Rack Pi 7 Garage", "in quotes"),
            ("Twin Garage", "several machines"),
            ("\"Rack Pi 1\"", "something must follow"),
        ] {
            let error = fleet.view().machine_and_rest(&split(line).unwrap()).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
