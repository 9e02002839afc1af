//! The register of runs that are alive: which may start, what an agent's word changes, how each
//! ends. Pure, no I/O; the hub owns it.
//!
//! Every change comes back as [`Step`]s. The hub stores what a step says before it tells anybody. A
//! final state never changes; a run starts at most once, because only a run that its agent does not
//! know is ever sent again, and only one that never was reported as running.

mod groups;
mod reports;
mod requests;
mod time;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use pistat_protocol::{
    dashboard::Run,
    id::{PiId, RunId, TaskId},
    status::{Nonce, ROOT_NONCE_LIFETIME, Session},
    task::{Ack, Ends, Report, RunState},
    time::Timestamp,
};

use self::requests::{RequestKey, Requests};
use crate::{
    fleet::Now,
    records::{GroupRecord, NewPiece, OutputState, RequestRecord, Requester, RunRecord},
};

/// How many finished runs of a machine keep their retained status and output: a screenful for
/// whoever subscribes late (`docs/mqtt.md` promises it).
pub const RETAINED_RUNS: usize = 20;

/// How many runs a dashboard is given at first, and how many finished ones stay in memory.
const RECENT_RUNS: usize = 200;

/// What the hub has to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Store the run, then announce its state (and acknowledge it, and send its order).
    Save(RunId),
    /// Store the group, then announce it.
    SaveGroup(RunId),
    /// Store a piece of output, then acknowledge it.
    SavePiece(NewPiece),
    /// Acknowledge again what is on disk: the agent repeated itself.
    Ack(PiId, RunId, Ack),
    /// Send the order to start it.
    Execute(RunId),
    /// Send the order again with the root runner's nonce: without it, the runner starts nothing.
    Confirm(RunId, Nonce),
    /// Send the order to end it.
    Cancel(RunId),
    /// Take the retained status and output of an old run off the broker.
    Clear(PiId, RunId),
    /// Look which of this machine's runs may start now.
    Dispatch(PiId),
    /// Something was odd: tell it, change nothing.
    Anomaly(PiId, Option<RunId>, String),
}

/// A run that is not final, or is final but not yet told to everybody.
#[derive(Debug)]
struct Active {
    record: RunRecord,
    /// The run as it is on disk: what everybody may be told.
    told: Run,
    output: OutputState,
    /// The sizes of the chunks that are on their way to the disk.
    unstored: VecDeque<usize>,
    /// Whether its first record is on disk: until then nothing may start.
    accepted: bool,
    /// How long it has waited for an offline machine, and since when it waits now.
    waited: Duration,
    waiting_since: Option<Instant>,
    /// What is on disk, for acknowledgements.
    stored: Ack,
    /// A final report that came before all of the output.
    held: Option<Report>,
    /// When it was sent or started, by the monotonic clock of this process.
    started: Option<Instant>,
    /// The newest session in which its agent was sent it or named it.
    session: Option<Session>,
    /// Until when a root runner could start an order that was sent to it, whatever its agent says.
    startable_until: Option<Instant>,
}

impl Active {
    /// How much of its output is on its way to the disk, in bytes.
    fn unstored_bytes(&self) -> usize {
        self.unstored.iter().sum()
    }
}

/// Runs that were accepted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Their group, for a request to several machines.
    pub group: Option<RunId>,
    /// In the order of acceptance.
    pub runs: Vec<RunId>,
}

/// All runs that matter now.
pub struct Runs {
    active: HashMap<RunId, Active>,
    /// The open runs of each machine, in the order of acceptance.
    by_pi: HashMap<PiId, BTreeSet<RunId>>,
    /// The groups that are not finished, and the newest others.
    groups: BTreeMap<RunId, GroupRecord>,
    requests: Requests,
    retained: HashMap<PiId, VecDeque<RunId>>,
    /// The newest runs, oldest first, final ones as they ended.
    recent: VecDeque<Run>,
    per_machine: usize,
    lost_after: Duration,
}

/// What was kept of runs by the register, at the start.
pub struct KeptRuns {
    /// Runs that are not final, in their order.
    pub open: Vec<(RunRecord, OutputState)>,
    /// Final runs whose status is retained on the broker, oldest first.
    pub retained: Vec<RunRecord>,
    /// The newest runs, newest first.
    pub recent: Vec<RunRecord>,
    /// Requests with an id, oldest first.
    pub requests: Vec<RequestRecord>,
    /// Groups that are not finished and the newest others.
    pub groups: Vec<GroupRecord>,
}

impl Runs {
    /// The runs at the start.
    pub fn new(kept: KeptRuns, per_machine: usize, lost_after: Duration, now: Instant) -> Self {
        let mut runs = Self {
            active: HashMap::new(),
            by_pi: HashMap::new(),
            groups: kept.groups.into_iter().map(|group| (group.id, group)).collect(),
            requests: Requests::default(),
            retained: HashMap::new(),
            recent: kept.recent.into_iter().rev().map(|record| record.run).filter(|run| run.state.is_final()).collect(),
            per_machine,
            lost_after,
        };
        for record in kept.retained {
            runs.retained.entry(record.run.pi).or_default().push_back(record.run.id);
        }
        for request in kept.requests {
            runs.requests.restore(request, now);
        }
        for (record, output) in kept.open {
            let stored = Ack { seq: record.next_chunk.checked_sub(1), state: record.reported };
            runs.insert(record, output, true, stored, now);
        }
        runs
    }

    fn insert(&mut self, record: RunRecord, output: OutputState, accepted: bool, stored: Ack, now: Instant) {
        let (id, pi) = (record.run.id, record.run.pi.clone());
        self.by_pi.entry(pi).or_default().insert(id);
        let waiting_since = Some(now);
        let told = record.run.clone();
        let active = Active {
            told,
            record,
            output,
            unstored: VecDeque::new(),
            accepted,
            waited: Duration::ZERO,
            waiting_since,
            stored,
            held: None,
            startable_until: None,
            started: None,
            session: None,
        };
        self.active.insert(id, active);
    }

    /// The runs of an earlier request with the same id by the same requester. Of what a version
    /// before this accepted, only the requester's name is known.
    pub fn earlier(&self, requested_by: &str, requester: &Requester, request_id: &str) -> Option<Accepted> {
        let key =
            |requester| RequestKey { requested_by: requested_by.into(), requester, request_id: request_id.into() };
        let found = self.requests.earlier(&key(Some(requester.clone())));
        found.or_else(|| self.requests.earlier(&key(None))).cloned()
    }

    /// The state of the open run of this task that the schedule has asked for on a machine.
    pub fn scheduled(&self, task: &TaskId, pi: &PiId) -> Option<RunState> {
        let records = self.of_machine(pi).map(|active| &active.record);
        let mut open = records.filter(|record| record.is_scheduled() && !record.run.state.is_final());
        open.find(|record| record.run.task == *task).map(|record| record.run.state)
    }

    /// Takes new runs, and their group if they have one. They start only after [`Self::accepted`].
    pub fn add(&mut self, records: Vec<RunRecord>, group: Option<GroupRecord>, now: Instant) {
        for record in records {
            self.requests.remember(&record, now);
            let output = OutputState::new(record.output_limit_bytes);
            self.insert(record, output, false, Ack { seq: None, state: None }, now);
        }
        if let Some(group) = group {
            self.groups.insert(group.id, group);
            self.forget_groups();
        }
    }

    /// The runs are on disk: they may start.
    pub fn accepted(&mut self, ids: &[RunId]) -> Vec<Step> {
        let mut machines = BTreeSet::new();
        for id in ids {
            if let Some(active) = self.active.get_mut(id) {
                active.accepted = true;
                machines.insert(active.record.run.pi.clone());
            }
        }
        machines.into_iter().map(Step::Dispatch).collect()
    }

    /// The runs could not be stored: they never were.
    pub fn withdraw(&mut self, ids: &[RunId]) {
        for id in ids {
            if let Some(active) = self.active.remove(id) {
                if let Some(request) = RequestKey::of(&active.record) {
                    self.requests.forget(&request);
                }
                let run = active.record.run;
                if let Some(group) = run.group {
                    self.groups.remove(&group);
                }
                self.leave_machine(&run.pi, *id);
            }
        }
    }

    fn leave_machine(&mut self, pi: &PiId, id: RunId) {
        if let Some(runs) = self.by_pi.get_mut(pi) {
            runs.remove(&id);
            if runs.is_empty() {
                self.by_pi.remove(pi);
            }
        }
    }

    /// A run's record, if it is alive.
    pub fn get(&self, id: RunId) -> Option<&RunRecord> {
        self.active.get(&id).map(|active| &active.record)
    }

    /// The record of a run as it is to be stored.
    pub fn record(&self, id: RunId) -> Option<RunRecord> {
        self.get(id).cloned()
    }

    /// A run that has not ended, as it is on disk.
    pub fn told(&self, id: RunId) -> Option<&Run> {
        self.active.get(&id).filter(|active| active.accepted).map(|active| &active.told)
    }

    /// The newest runs as they are on disk, newest first.
    pub fn newest(&self) -> Vec<Run> {
        let open = self.active.values().filter(|active| active.accepted).map(|active| active.told.clone());
        let ended = self.recent.iter().filter(|run| !self.active.contains_key(&run.id)).cloned();
        let mut runs: Vec<Run> = open.chain(ended).collect();
        runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.id));
        runs.truncate(RECENT_RUNS);
        runs
    }

    /// The newest ended runs whose status is retained on the broker.
    pub fn newest_retained(&self) -> impl Iterator<Item = Run> {
        self.recent.iter().filter(|run| self.is_retained(&run.pi, run.id)).cloned()
    }

    /// Whether an ended run's status is retained on the broker.
    pub fn is_retained(&self, pi: &PiId, id: RunId) -> bool {
        self.retained.get(pi).is_some_and(|kept| kept.contains(&id))
    }

    /// How many runs are in each state that is not final.
    pub fn counts(&self) -> BTreeMap<RunState, u32> {
        let mut counts = BTreeMap::new();
        for active in self.active.values() {
            *counts.entry(active.record.run.state).or_insert(0) += 1;
        }
        counts
    }

    /// How many runs of a machine are not final.
    pub fn open_on(&self, pi: &PiId) -> usize {
        self.by_pi.get(pi).map_or(0, BTreeSet::len)
    }

    /// The runs of a machine that may be sent now: on disk, queued, let through by their group and
    /// by the concurrency of their task, oldest first, as many as the machine has room for. A task
    /// that has to wait for itself keeps no place from others.
    pub fn ready(&self, pi: &PiId, concurrency: impl Fn(&TaskId) -> u32) -> Vec<RunId> {
        let own = || self.of_machine(pi).map(|active| (active, &active.record.run));
        let mut busy: BTreeMap<&TaskId, u32> = BTreeMap::new();
        for (_, run) in own().filter(|(_, run)| is_started(run.state)) {
            *busy.entry(&run.task).or_default() += 1;
        }
        let room = self.per_machine.saturating_sub(busy.values().sum::<u32>() as usize);
        let open = own().filter(|(active, run)| active.accepted && run.state == RunState::Queued);
        let free = open.filter(|(_, run)| {
            let count = busy.entry(&run.task).or_default();
            let may_start = *count < concurrency(&run.task) && self.group_lets(run);
            *count += u32::from(may_start);
            may_start
        });
        free.map(|(_, run)| run.id).take(room).collect()
    }

    fn of_machine(&self, pi: &PiId) -> impl Iterator<Item = &Active> {
        self.by_pi.get(pi).into_iter().flatten().filter_map(|id| self.active.get(id))
    }

    /// A run is on its way to its agent.
    pub fn dispatched(&mut self, id: RunId, ends: Ends, now: Instant) -> Vec<Step> {
        let Some(active) = self.active.get_mut(&id) else { return Vec::new() };
        active.record.run.state = RunState::Dispatched;
        active.record.ends = ends;
        active.started = Some(now);
        // Its machine is there: what it waits from now on, it waits because the order did not
        // arrive.
        active.waiting_since = None;
        let mut steps = vec![Step::Save(id)];
        steps.extend(self.group_changed(id));
        steps
    }

    /// Its order was sent.
    pub fn sent(&mut self, id: RunId, session: Session) {
        if let Some(active) = self.active.get_mut(&id) {
            active.session = Some(session);
        }
    }

    /// Its order was sent with the root runner's nonce. The nonce was made before, so it is good
    /// for no longer than this.
    pub fn confirmed(&mut self, id: RunId, now: Instant) {
        if let Some(active) = self.active.get_mut(&id) {
            active.startable_until = Some(now + ROOT_NONCE_LIFETIME);
        }
    }

    /// Ends a run without its agent.
    pub fn end(&mut self, id: RunId, state: RunState, reason: impl Into<String>, now: Now) -> Vec<Step> {
        let Some(active) = self.active.get_mut(&id).filter(|active| !active.record.run.state.is_final()) else {
            return Vec::new();
        };
        active.record.run.state = state;
        active.record.run.reason = Some(reason.into());
        active.record.run.finished_at = Some(not_before(&active.record.run, now));
        self.finished(id)
    }

    /// What follows from a run that has just become final.
    fn finished(&mut self, id: RunId) -> Vec<Step> {
        let Some(active) = self.active.get_mut(&id) else { return Vec::new() };
        // A refusal is never retained.
        active.record.retained = active.record.run.state != RunState::Rejected;
        let (pi, retained) = (active.record.run.pi.clone(), active.record.retained);
        let mut steps = vec![Step::Save(id)];
        if retained {
            let kept = self.retained.entry(pi.clone()).or_default();
            kept.push_back(id);
            while kept.len() > RETAINED_RUNS {
                steps.extend(kept.pop_front().map(|old| Step::Clear(pi.clone(), old)));
            }
        } else {
            steps.push(Step::Clear(pi.clone(), id));
        }
        steps.extend(self.group_changed(id));
        steps.push(Step::Dispatch(pi));
        steps
    }

    /// A run's record is on disk, as it was handed to the store: what to acknowledge. A final one
    /// leaves.
    pub fn stored(&mut self, record: &RunRecord) -> Ack {
        let id = record.run.id;
        let Some(active) = self.active.get_mut(&id) else { return Ack { seq: None, state: record.reported } };
        active.stored.state = record.reported.or(active.stored.state);
        active.told = record.run.clone();
        let ack = active.stored;
        if record.run.state.is_final() {
            self.active.remove(&id);
            self.leave_machine(&record.run.pi, id);
            self.recent.retain(|run| run.id != id);
            self.recent.push_back(record.run.clone());
            if self.recent.len() > RECENT_RUNS {
                self.recent.pop_front();
            }
        }
        ack
    }

    /// A piece of output is on disk: what to acknowledge.
    pub fn piece_stored(&mut self, id: RunId, seq: u64) -> Option<(PiId, Ack)> {
        let active = self.active.get_mut(&id)?;
        let newer = active.record.next_chunk.saturating_sub(seq + 1);
        let newer = usize::try_from(newer).unwrap_or(usize::MAX);
        while active.unstored.len() > newer {
            active.unstored.pop_front();
        }
        active.stored.seq = active.stored.seq.max(Some(seq));
        Some((active.record.run.pi.clone(), active.stored))
    }

    /// A person wants a run to end.
    pub fn cancel(&mut self, id: RunId, by: &str, now: Now) -> Option<Vec<Step>> {
        let active = self.active.get_mut(&id).filter(|active| !active.record.run.state.is_final())?;
        active.record.cancelled_by = Some(by.into());
        if active.record.run.state == RunState::Queued {
            return Some(self.end(id, RunState::Cancelled, format!("cancelled by {by} before it was sent"), now));
        }
        Some(vec![Step::Save(id), Step::Cancel(id)])
    }

    /// A machine was forgotten: its runs are lost, those that were never sent are cancelled.
    pub fn forget(&mut self, pi: &PiId, now: Now) -> Vec<Step> {
        let open: Vec<_> = self.of_machine(pi).map(|active| (active.record.run.id, active.record.run.state)).collect();
        let mut steps = Vec::new();
        for (id, state) in open {
            let end = if state == RunState::Queued { RunState::Cancelled } else { RunState::Lost };
            steps.extend(self.end(id, end, "the machine was forgotten", now));
        }
        steps.extend(self.retained.remove(pi).into_iter().flatten().map(|id| Step::Clear(pi.clone(), id)));
        steps
    }
}

/// Now, or the newest time of a run where the clock was turned back meanwhile: nothing ends before
/// it began.
fn not_before(run: &Run, now: Now) -> Timestamp {
    now.wall.max(run.started_at.unwrap_or(run.created_at))
}

fn is_started(state: RunState) -> bool {
    matches!(state, RunState::Dispatched | RunState::Running)
}

#[cfg(test)]
mod tests;
