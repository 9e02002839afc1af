//! Groups: one request on many machines, all at once, rolling, or one machine first.

use pistat_protocol::{
    dashboard::{Group, Run},
    id::RunId,
    task::RunState,
};

use super::{RECENT_RUNS, Runs, Step, is_started};
use crate::records::GroupRecord;

impl Runs {
    /// A group as everybody sees it.
    pub fn group(&self, id: RunId) -> Option<Group> {
        self.groups.get(&id).map(|record| self.view_group(record))
    }

    /// The groups, newest first.
    pub fn all_groups(&self) -> Vec<Group> {
        self.groups.values().rev().take(RECENT_RUNS).map(|record| self.view_group(record)).collect()
    }

    /// A group's record as it is to be stored.
    pub fn group_record(&self, id: RunId) -> Option<GroupRecord> {
        self.groups.get(&id).cloned()
    }

    /// Whether a queued run's group lets it start now.
    pub(super) fn group_lets(&self, run: &Run) -> bool {
        let Some(group) = run.group.and_then(|id| self.groups.get(&id)) else { return true };
        if group.stopped.is_some() {
            return false;
        }
        // Until the first machine is done nobody else has run, so a success in the count is its
        // own.
        let first_succeeded = group.states.contains_key(&RunState::Succeeded);
        if group.options.canary && group.runs.first() != Some(&run.id) && !first_succeeded {
            return false;
        }
        let started = group
            .runs
            .iter()
            .filter(|id| self.active.get(id).is_some_and(|active| is_started(active.record.run.state)));
        group.options.at_once.is_none_or(|limit| started.count() < limit as usize)
    }

    /// A run of a group changed: count it, stop the rest if it must be stopped, let others start.
    pub(super) fn group_changed(&mut self, id: RunId) -> Vec<Step> {
        let Some(run) = self.active.get(&id).map(|active| active.record.run.clone()) else { return Vec::new() };
        let Some(group) = run.group.and_then(|id| self.groups.get_mut(&id)) else { return Vec::new() };
        let mut steps = Vec::new();
        if run.state.is_final() {
            *group.states.entry(run.state).or_insert(0) += 1;
            group.open = group.states.values().sum::<u32>() < u32::try_from(group.runs.len()).unwrap_or(u32::MAX);
            let stops_now = if group.stopped.is_none() { reason_to_stop(group, &run) } else { None };
            group.stopped = group.stopped.take().or_else(|| stops_now.clone());
            let others = group.runs.clone();
            match stops_now {
                Some(reason) => steps.extend(self.cancel_queued(&others, &reason, &run)),
                None => steps.extend(self.machines_of(&others).map(Step::Dispatch)),
            }
        }
        if let Some(group) = run.group {
            steps.push(Step::SaveGroup(group));
        }
        steps
    }

    /// Lets go of the oldest groups that are finished: the register has them, and nobody is shown
    /// so many.
    pub(super) fn forget_groups(&mut self) {
        let beyond = self.groups.len().saturating_sub(RECENT_RUNS);
        let finished = self.groups.values().filter(|group| !group.open).map(|group| group.id);
        for id in finished.take(beyond).collect::<Vec<_>>() {
            self.groups.remove(&id);
        }
    }

    fn machines_of(&self, runs: &[RunId]) -> impl Iterator<Item = pistat_protocol::id::PiId> {
        let queued = |id: &RunId| self.active.get(id).filter(|active| active.record.run.state == RunState::Queued);
        runs.iter().filter_map(queued).map(|active| active.record.run.pi.clone())
    }

    fn cancel_queued(&mut self, runs: &[RunId], reason: &str, by: &Run) -> Vec<Step> {
        let now =
            crate::fleet::Now { wall: by.finished_at.unwrap_or(by.created_at), monotonic: std::time::Instant::now() };
        let is_queued =
            |runs: &Self, id: &RunId| runs.get(*id).is_some_and(|record| record.run.state == RunState::Queued);
        let queued: Vec<_> = runs.iter().filter(|id| is_queued(self, id)).copied().collect();
        queued.into_iter().flat_map(|id| self.end(id, RunState::Cancelled, reason, now)).collect()
    }

    pub(super) fn view_group(&self, record: &GroupRecord) -> Group {
        let mut states = record.states.clone();
        for id in &record.runs {
            let state = self.active.get(id).map(|active| active.record.run.state).filter(|state| !state.is_final());
            if let Some(state) = state {
                *states.entry(state).or_insert(0) += 1;
            }
        }
        Group {
            id: record.id,
            task: record.task.clone(),
            target: record.target.clone(),
            args: record.args.clone(),
            options: record.options,
            requested_by: record.requested_by.clone(),
            created_at: record.created_at,
            total: u32::try_from(record.runs.len()).unwrap_or(u32::MAX),
            states,
            stopped: record.stopped.clone(),
        }
    }
}

fn reason_to_stop(group: &GroupRecord, run: &Run) -> Option<String> {
    let failed = |state: &RunState| !matches!(state, RunState::Succeeded);
    if group.options.canary && group.runs.first() == Some(&run.id) && failed(&run.state) {
        return Some(format!("not started: the first machine, {}, ended {}", run.pi, run.state));
    }
    let failures: u32 = group.states.iter().filter(|(state, _)| failed(state)).map(|(_, count)| count).sum();
    let limit = group.options.stop_after?;
    (failures >= limit).then(|| format!("not started: {failures} of the group's runs did not succeed"))
}
