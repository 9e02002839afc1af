//! Tasks that run by themselves: asked for like any other, by `schedule`.

use std::{collections::BTreeMap, time::Duration};

use pistat_protocol::{
    api::GroupOptions,
    dashboard::{EventKind, MachineStatus, Obstacle, Severity},
    id::{PiId, Target, TaskId},
    task::{Arguments, RunState},
    time::Timestamp,
};

use super::{Hub, accept::RunRequest, pending::Answer, standing::SCHEDULE};
use crate::{
    catalogue::{ApprovedTask, Catalogue, Task},
    schedule::Schedule,
    store::record::Requester,
};

/// How late a run may be started; what is later was missed, and is told instead of run.
const PUNCTUAL_MILLISECONDS: u32 = 60_000;

/// How many machines an event names for each reason: a line of the audit log stays one of a few
/// lines of a screen.
pub(super) const NAMED_MACHINES: usize = 20;

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

    /// The tasks that are due, with how late each is; each comes once, however many times it was
    /// missed.
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

/// The machines that a firing left out, by the reason.
#[derive(Debug, Default)]
struct LeftOut(BTreeMap<String, Vec<PiId>>);

impl LeftOut {
    fn add(&mut self, why: String, pi: PiId) {
        self.0.entry(why).or_default().push(pi);
    }

    /// The machine, if it is only one.
    fn only(&self) -> Option<&PiId> {
        let mut all = self.0.values().flatten();
        all.next().filter(|_| all.next().is_none())
    }

    /// Which were left out beside so many that were not, and why; `None` for none. Of a large fleet
    /// the first of each reason are named.
    fn text(&self, started: usize) -> Option<String> {
        let count: usize = self.0.values().map(Vec::len).sum();
        let reasons = self.0.iter().map(|(why, machines)| {
            let names: Vec<_> = machines.iter().take(NAMED_MACHINES).map(PiId::as_str).collect();
            let more = machines.len() - names.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more} ({why})", names.join(", "))
        });
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        (count > 0).then(|| format!("{count} of {} machines were left out: {reasons}", count + started))
    }
}

impl Hub {
    pub(super) fn run_schedules(&mut self) {
        for (task, late) in self.schedules.due(&self.catalogue, self.now.wall) {
            if late > i64::from(PUNCTUAL_MILLISECONDS) {
                self.missed(&task, None, "the controller did not run, or its clock was moved");
            } else {
                self.run_scheduled(&task);
            }
        }
    }

    /// Asks for a task on each machine of its `on` that can start it, and tells once which others
    /// were left out. What one machine does or is keeps no other from running.
    pub(super) fn run_scheduled(&mut self, id: &TaskId) {
        let Some(task) = self.catalogue.get(id) else { return };
        let (schedule, when_back) = (task.schedule().map(Schedule::as_str).unwrap_or_default(), task.runs_when_back());
        let expires = self.config.runs.expires;
        let request = RunRequest {
            task: id.clone(),
            target: Target::All,
            args: Arguments::new(),
            request_id: None,
            expires: if when_back { expires } else { expires.min(Duration::from_millis(PUNCTUAL_MILLISECONDS.into())) },
            group: GroupOptions::default(),
            requested_by: SCHEDULE.into(),
            requester: Requester::Schedule { schedule: schedule.into() },
            role: None,
        };
        let mut approved = Vec::new();
        let mut left_out = LeftOut::default();
        for pi in self.fleet.resolve(&Target::All) {
            match self.approve_scheduled(task, &request.args, &pi) {
                Ok(task) => approved.push(task),
                Err(None) => {}
                Err(Some(why)) => left_out.add(why, pi),
            }
        }
        if let Err(refused) = self.check_room(approved.len()) {
            return self.missed(id, None, &refused.detail);
        }
        if let Some(text) = left_out.text(approved.len()) {
            self.missed(id, left_out.only(), &text);
        } else if approved.is_empty() {
            let on = task.view().on.join(", ");
            self.missed(id, None, &format!("no machine of the fleet is among {on}"));
        }
        if !approved.is_empty() {
            self.take(&request, &approved, Answer::Schedule(id.clone()));
        }
    }

    /// A task on one machine; `Err(None)` where it is not meant to run, `Err(Some(_))` why it is
    /// left out this time.
    fn approve_scheduled(&self, task: &Task, args: &Arguments, pi: &PiId) -> Result<ApprovedTask, Option<String>> {
        let facts = self.fleet.facts(pi);
        match task.obstacle(&facts, None) {
            Some((Obstacle::NotOn, _)) if task.unconfirmed(&facts).is_none() => return Err(None),
            Some((_, why)) => return Err(Some(why)),
            None => {}
        }
        let is_offline = self.fleet.status(pi) == Some(MachineStatus::Offline);
        match self.runs.scheduled(&task.view().id, pi) {
            Some(RunState::Queued) => Err(Some("its last run has not started yet".into())),
            Some(_) => Err(Some("its last run has not ended".into())),
            None if is_offline && !task.runs_when_back() => Err(Some("offline".into())),
            None => self.approve_on(&task.view().id, args, None, pi).map_err(|refusal| Some(refusal.message)),
        }
    }

    /// Tells that a firing did not run, or not everywhere.
    pub(super) fn missed(&mut self, task: &TaskId, pi: Option<&PiId>, why: &str) {
        let text = format!("{task} was not started on schedule: {why}");
        self.event(EventKind::Task, Severity::Warning, pi, None, Some(SCHEDULE), text);
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
            self.missed(&task, None, "the controller did not run");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_few_of_many_machines_and_counts_the_others() {
        let mut left_out = LeftOut::default();
        assert_eq!((left_out.text(3), left_out.only()), (None, None));
        for number in 0..1000 {
            left_out.add("offline".into(), format!("pi-{number:04}").parse().unwrap());
        }
        let text = left_out.text(24).unwrap();
        assert!(text.starts_with("1000 of 1024 machines were left out: pi-0000, pi-0001,"), "{text}");
        assert!(text.ends_with("pi-0019 and 980 more (offline)") && text.len() < 300, "{text}");
    }

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
