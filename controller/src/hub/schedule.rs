//! Tasks that run by themselves: asked for like any other, by `schedule`.

use std::time::Duration;

use pistat_protocol::{
    api::GroupOptions,
    dashboard::{EventKind, Severity},
    id::{Target, TaskId},
    task::Arguments,
    time::Timestamp,
};

use super::{Hub, accept::Wish, after::Answer};
use crate::catalogue::Catalogue;

/// How late a run may be started; what is later was missed, and is told instead of run.
const PUNCTUAL_MILLISECONDS: i64 = 60_000;

/// A step of the clock by more than this makes every next time be looked up anew.
const CLOCK_STEP_MILLISECONDS: i64 = 60_000;

/// When each scheduled task is next due.
pub(super) struct Schedules {
    next: Vec<(TaskId, Timestamp)>,
    looked_at: Timestamp,
}

impl Schedules {
    pub(super) fn new(catalogue: &Catalogue, now: Timestamp) -> Self {
        let next = |task: &crate::catalogue::Task| Some((task.view().id.clone(), task.schedule()?.next_after(now)?));
        Self { next: catalogue.tasks().filter_map(next).collect(), looked_at: now }
    }

    /// The tasks that are due, with how late each is; each comes once, however many times it was missed.
    fn due(&mut self, catalogue: &Catalogue, now: Timestamp) -> Vec<(TaskId, i64)> {
        let went_back = self.looked_at.unix_milliseconds() - now.unix_milliseconds() > CLOCK_STEP_MILLISECONDS;
        self.looked_at = now;
        if went_back {
            *self = Self::new(catalogue, now);
        }
        let due: Vec<_> = self
            .next
            .iter()
            .filter(|(_, at)| *at <= now)
            .map(|(task, at)| (task.clone(), now.unix_milliseconds() - at.unix_milliseconds()))
            .collect();
        if !due.is_empty() {
            *self = Self::new(catalogue, now);
        }
        due
    }
}

impl Hub {
    pub(super) fn run_schedules(&mut self) {
        for (task, late) in self.schedules.due(&self.catalogue, self.now.wall) {
            if late > PUNCTUAL_MILLISECONDS {
                self.missed(&task, "the controller did not run, or its clock was moved");
            } else if self.runs.is_alive(&task) {
                self.missed(&task, "its last run has not ended");
            } else {
                self.run_scheduled(&task);
            }
        }
    }

    fn run_scheduled(&mut self, task: &TaskId) {
        let wish = Wish {
            task: task.clone(),
            target: Target::All,
            args: Arguments::new(),
            request_id: None,
            expires: self.config.runs.expires,
            group: GroupOptions::default(),
            requested_by: "schedule".into(),
            role: None,
        };
        if let Err((refused, _)) = self.accept(wish, Answer::Nobody) {
            self.missed(task, &refused.detail);
        }
    }

    fn missed(&mut self, task: &TaskId, why: &str) {
        let text = format!("{task} was not started on schedule: {why}");
        self.event(EventKind::Task, Severity::Warning, None, None, Some("schedule"), text);
    }

    /// What was due while the controller did not run, at most so long ago.
    pub(super) fn tell_missed_schedules(&mut self, since: Timestamp) {
        let longest = i64::try_from(Duration::from_secs(7 * 86_400).as_millis()).unwrap_or(i64::MAX);
        let since = Timestamp::from_unix_milliseconds(
            since.unix_milliseconds().max(self.now.wall.unix_milliseconds() - longest),
        );
        let missed: Vec<_> =
            Schedules::new(&self.catalogue, since).next.into_iter().filter(|(_, at)| *at < self.now.wall).collect();
        for (task, _) in missed {
            self.missed(&task, "the controller did not run");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tasks, and how late each is.
    type Due<'d> = &'d [(&'d str, i64)];

    #[test]
    fn each_task_is_due_once_however_the_clock_moves() {
        let text = "[task.full]\ncommand = ['true']\nschedule = '0 * * * *'\ntimezone = 'UTC'\n
                    [task.half]\ncommand = ['true']\nschedule = '30 * * * *'\ntimezone = 'UTC'\n
                    [task.never]\ncommand = ['true']\n";
        let catalogue = Catalogue::parse(text, "tasks.toml").unwrap();
        let at = |time: &str| format!("2026-11-22T{time}Z").parse().unwrap();
        let minutes = |minutes: i64| minutes * 60_000;
        let mut schedules = Schedules::new(&catalogue, at("12:10:00"));
        let story: [(&str, &str, Due<'_>); 13] = [
            ("it is not time", "12:29:59", &[]),
            ("in time", "12:30:00", &[("half", 0)]),
            ("once", "12:30:01", &[]),
            ("a little late", "13:00:00.500", &[("full", 500)]),
            (
                "the clock goes forward, over several times of each",
                "15:10:00",
                &[("full", minutes(70)), ("half", minutes(100))],
            ),
            ("once for all of them", "15:10:01", &[]),
            ("on it goes", "15:30:00", &[("half", 0)]),
            ("the clock goes far back", "12:50:00", &[]),
            ("and its times come again", "13:00:00", &[("full", 0)]),
            ("it goes back a little", "12:59:30", &[]),
            ("and nothing comes again", "13:00:00", &[]),
            ("nor a moment later", "13:00:01", &[]),
            ("but the next time does", "13:30:00", &[("half", 0)]),
        ];
        for (what, now, expected) in story {
            let due = schedules.due(&catalogue, at(now));
            let due: Vec<_> = due.iter().map(|(task, late)| (task.as_str(), *late)).collect();
            assert_eq!(due, expected, "{what}");
        }
    }
}
