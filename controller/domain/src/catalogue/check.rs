//! The check that every way in goes through: dashboard, MQTT, REST, command line, schedule.

use pistat_protocol::{
    account::Role,
    dashboard::{CannotRun, Obstacle},
    id::{PiId, Tag, Target, TaskId},
    status::ExecutionPolicy,
    task::Arguments,
};

use super::{ApprovedTask, Catalogue, Refusal, RefusalKind, Task};
use crate::document::reader::near;

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
    /// Those of its tags that an operator gave and no administrator confirmed.
    pub unconfirmed_tags: &'a [Tag],
    /// What its agent is willing to run; `None` while nobody has heard from it.
    pub policy: Option<ExecutionPolicy>,
    /// With the policy `listed`, the tasks that it lists; `None` where that is not known.
    pub listed: Option<&'a [TaskId]>,
    /// Whether it has the root runner; `None` while nobody has heard from it.
    pub runner: Option<bool>,
}

impl Catalogue {
    /// Approves a task for one machine, or says why not.
    ///
    /// # Errors
    /// The refusal, as data for the person who asked.
    pub fn check(&self, ask: &Ask<'_>) -> Result<ApprovedTask, Refusal> {
        let task = self.find(ask.task).ok_or_else(|| self.unknown(ask.task))?;
        if let Some((obstacle, why)) = task.obstacle(&ask.machine, ask.role) {
            let sentence = format!("{} cannot run on {}: {why}", task.view.id, ask.machine.pi);
            return Err(Refusal::new(obstacle.into(), sentence));
        }
        let args = task.check_arguments(ask)?;
        Ok(ApprovedTask { task: task.clone(), pi: ask.machine.pi.clone(), args })
    }

    /// The tasks that a machine cannot run, by the reason, as [`Catalogue::check`] would refuse
    /// them whatever their arguments are. `role` is the requester's; without one the role is not
    /// looked at.
    pub fn cannot_run(&self, machine: &MachineFacts<'_>, role: Option<Role>) -> Vec<CannotRun> {
        let mut all: Vec<CannotRun> = Vec::new();
        for task in &self.tasks {
            let Some((reason, message)) = task.obstacle(machine, role) else { continue };
            let id = task.view.id.clone();
            match all.iter_mut().find(|known| known.reason == reason && known.message == message) {
                Some(known) => known.tasks.push(id),
                None => all.push(CannotRun { reason, message, tasks: vec![id] }),
            }
        }
        all
    }

    fn unknown(&self, id: &TaskId) -> Refusal {
        let ids = self.tasks.iter().map(|task| task.view.id.as_str());
        let hint = match near(id.as_str(), ids) {
            Some(near) => format!("did you mean {near}?"),
            None => "`task list` shows all tasks".to_owned(),
        };
        Refusal::new(RefusalKind::UnknownTask, format!("There is no task {id}; {hint}"))
    }
}

impl Task {
    /// Why it cannot run on a machine, whatever its arguments are: the one place that decides it,
    /// for refusals, API and dashboard. The message does not name task and machine, so that tasks
    /// with the same obstacle share it.
    pub fn obstacle(&self, machine: &MachineFacts<'_>, role: Option<Role>) -> Option<(Obstacle, String)> {
        let MachineFacts { pi, policy, listed, runner, .. } = *machine;
        let needed = self.view.role;
        if let Some(role) = role.filter(|role| *role < needed) {
            return Some((Obstacle::Role, format!("it needs the role {needed}, and yours is {role}")));
        }
        if !self.on.iter().any(|target| covers(target, machine)) {
            let message = self.unconfirmed(machine).map(|tag| unconfirmed(pi, tag));
            let message = message.unwrap_or_else(|| format!("the catalogue allows it on {}", self.view.on.join(", ")));
            return Some((Obstacle::NotOn, message));
        }
        match policy {
            Some(ExecutionPolicy::Never) => {
                let message = "its agent was started with --register-only and runs no tasks";
                return Some((Obstacle::RegisterOnly, message.into()));
            }
            Some(ExecutionPolicy::Listed) if listed.is_some_and(|listed| !listed.contains(&self.view.id)) => {
                let message = "its agent runs only the tasks that its own agent.toml lists, and this is not one of \
                               them: add it there to allow it";
                return Some((Obstacle::NotListed, message.into()));
            }
            _ => {}
        }
        let message = "it needs root, and this machine has no root runner: install the package pistat-runner there, \
                       or run its install script again with --with-root-tasks";
        (self.view.root && runner == Some(false)).then(|| (Obstacle::NoRunner, message.into()))
    }

    /// The tag by which it would run on a machine, had an administrator confirmed the tag.
    pub fn unconfirmed<'a>(&self, machine: &MachineFacts<'a>) -> Option<&'a Tag> {
        let names = |tag: &&Tag| self.on.iter().any(|target| matches!(target, Target::Tag(on) if on == *tag));
        machine.unconfirmed_tags.iter().find(names)
    }

    fn check_arguments(&self, ask: &Ask<'_>) -> Result<Arguments, Refusal> {
        let bad = |sentence: String| Refusal::new(RefusalKind::BadArgument, sentence);
        let id = &self.view.id;
        if let Some(unknown) = ask.args.keys().find(|name| !self.arguments.iter().any(|a| a.view.name == **name)) {
            return Err(bad(self.unknown_argument(unknown)));
        }
        let mut args = Arguments::new();
        for argument in &self.arguments {
            let name = &argument.view.name;
            let value = ask.args.get(name).or(argument.view.default.as_ref());
            let value = value
                .ok_or_else(|| bad(format!("{id} needs {name}: {}", super::argument::describe(&argument.view.kind))))?;
            args.insert(name.clone(), argument.admit(value, ask.is_machine).map_err(bad)?);
        }
        Ok(args)
    }

    fn unknown_argument(&self, name: &str) -> String {
        let name: String = name.chars().take(60).flat_map(char::escape_debug).collect();
        let known: Vec<_> = self.arguments.iter().map(|argument| argument.view.name.as_str()).collect();
        let hint = if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) };
        format!("{} has no argument \"{name}\"; {hint}", self.view.id)
    }
}

/// Whether a machine is among those that `on` names. Machines are compared without case, as
/// everywhere; a tag counts if an administrator or a join token gave it.
fn covers(target: &Target, machine: &MachineFacts<'_>) -> bool {
    match target {
        Target::All => true,
        Target::Tag(tag) => machine.tags.contains(tag) && !machine.unconfirmed_tags.contains(tag),
        Target::Pi(other) => other.key() == machine.pi.key(),
    }
}

fn unconfirmed(pi: &PiId, tag: &Tag) -> String {
    format!(
        "its tag @{tag} was given by an operator, and `on` counts only what an administrator gave: an \
         administrator confirms it with `pistat tag add {pi} {tag}`"
    )
}

#[cfg(test)]
mod tests;
