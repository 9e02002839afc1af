//! The life of runs: every change of one goes through [`Hub::perform`], and what is told of it
//! waits for the disk.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use pistat_protocol::{
    codec::encode,
    dashboard::{Change, EventKind, Group, Severity},
    id::{PiId, RunId, TaskId},
    order::{CancelOrder, Order},
    status::Nonce,
    task::{Ack, OutputChunk, Report, RunState},
    topic::Topic,
};
use tokio::sync::watch;

use super::{
    Hub,
    ask::{Progress, Refused, Reply},
    machines::alert,
    pending::{Accepting, PendingReply, PendingRuns},
    refuse,
    repeats::{Line, Repeated},
    standing::SCHEDULE,
    tell,
};
use crate::{
    access::Caller,
    runs::{Accepted, Step},
    store::{record::RunRecord, register::RegisterWrite},
};

/// How many refused reports are answered in a second, over all machines. An agent repeats each
/// every half minute, and a flood of them must not become one of answers.
const ANSWERED_A_SECOND: u32 = 20;

/// Counts the answers to refused reports.
#[derive(Debug, Default)]
pub(super) struct RefusedReports {
    since: Option<Instant>,
    answered: u32,
}

impl RefusedReports {
    fn may_answer(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            *self = Self { since: Some(now), answered: 0 };
        }
        self.answered += 1;
        self.answered <= ANSWERED_A_SECOND
    }
}

impl Hub {
    pub(super) fn cancel_for(&mut self, caller: &Caller, id: RunId, reply: Reply<()>) {
        match self.cancel(id, caller.account.as_str()) {
            Ok(()) => self.commits.turn().promises.push(PendingReply::Web(reply)),
            Err(refused) => refuse(reply, refused),
        }
    }

    /// Cancels a run, or every run of a group. Whoever asked is answered when that is on the disk.
    pub(super) fn cancel(&mut self, id: RunId, by: &str) -> Result<(), Refused> {
        let targets = self.runs.group_record(id).map_or_else(|| vec![id], |group| group.runs);
        let mut steps = Vec::new();
        for run in targets {
            steps.extend(self.runs.cancel(run, by, self.now).into_iter().flatten());
        }
        if steps.is_empty() {
            let known = self.runs.newest().iter().any(|run| run.id == id) || self.runs.group(id).is_some();
            return Err(if known {
                Refused::conflict("it has already ended")
            } else {
                Refused::missing(format!("there is no open run {id}; `runs` shows them"))
            });
        }
        let pi = self.runs.get(id).map(|record| record.run.pi.clone());
        self.asked_line(pi, Some(id), by, "asked to cancel".into());
        self.perform(steps);
        Ok(())
    }

    pub(super) fn reported(&mut self, pi: &PiId, run: RunId, report: Report) {
        let steps = self.runs.report(pi, run, report, self.now);
        self.perform(steps);
    }

    /// The broker has refused a report on a run that it does not know as this machine's. The agent
    /// would repeat it for ever: a run that is open here is published to the broker again; the
    /// agent is told to forget any other.
    pub(super) fn report_refused(&mut self, account: &str, topic: &str) {
        let Some(Topic::Report(pi, run)) = self.topics.parse(topic) else { return };
        if pi.as_str() != account
            || self.agents.session(&pi).is_none()
            || !self.refused_reports.may_answer(self.now.monotonic)
        {
            return;
        }
        match self.runs.get(run).map(|record| record.run.clone()) {
            Some(run) if run.pi == pi => self.announce_run(&run),
            _ => self.acknowledge(&pi, run, Ack { seq: None, state: Some(RunState::Lost) }),
        }
    }

    pub(super) fn output_came(&mut self, pi: &PiId, run: RunId, chunk: OutputChunk) {
        let steps = self.runs.output(pi, run, chunk, self.now);
        self.perform(steps);
    }

    /// Does what a change of a run asks for: what is to be stored joins this turn's commit, what is
    /// to be told waits for it.
    pub(super) fn perform(&mut self, steps: Vec<Step>) {
        let mut queue: VecDeque<Step> = steps.into();
        while let Some(step) = queue.pop_front() {
            match step {
                Step::Save(id) => self.save_run(id),
                Step::SaveGroup(id) => self.save_group(id),
                Step::SavePiece(piece) => {
                    self.commits.turn().pieces.push((piece.run, piece.seq));
                    self.commits.write(RegisterWrite::Piece(piece));
                }
                Step::Ack(pi, run, ack) => self.acknowledge_again(pi, run, ack),
                Step::Execute(id) => self.commits.turn().execute.push(id),
                // It was stored when it was sent for the first time.
                Step::Confirm(id, nonce) => self.send_execute(id, Some(nonce)),
                // It promises nothing and can be said again, so it does not wait: a full disk must
                // not keep a task running.
                Step::Cancel(id) => self.send_cancel(id),
                Step::Clear(pi, run) => {
                    self.commits.write(RegisterWrite::Cleared(run));
                    self.commits.turn().clear.push((pi, run));
                }
                Step::Dispatch(pi) => queue.extend(self.dispatch(&pi)),
                Step::Anomaly(pi, run, text) => {
                    let line = Line { run, ..alert(&pi, Severity::Warning, text) };
                    self.repeated_event(Repeated::Anomaly, pi.key(), line);
                }
            }
        }
    }

    fn save_run(&mut self, id: RunId) {
        if let Some(record) = self.runs.record(id) {
            self.commits.turn().saved.retain(|saved| saved.run.id != id);
            self.commits.turn().saved.push(record.clone());
            self.commits.write(RegisterWrite::Run(Box::new(record)));
        }
    }

    fn save_group(&mut self, id: RunId) {
        if let Some(record) = self.runs.group_record(id) {
            if !self.commits.turn().groups.contains(&id) {
                self.commits.turn().groups.push(id);
            }
            self.commits.write(RegisterWrite::Group(Box::new(record)));
        }
    }

    /// Sends what may start on a machine now, if its agent has told its session.
    fn dispatch(&mut self, pi: &PiId) -> Vec<Step> {
        if self.agents.session(pi).is_none() {
            return Vec::new();
        }
        // What the catalogue no longer lists waits for nothing: it is rejected below.
        let concurrency = |task: &TaskId| self.catalogue.get(task).map_or(u32::MAX, |task| task.view().concurrency);
        let mut steps = Vec::new();
        for id in self.runs.ready(pi, concurrency) {
            let Some(record) = self.runs.get(id) else { continue };
            // Catalogue and requester may have changed since the run was accepted: what they no
            // longer approve does not run.
            match self.approve_again(record) {
                Err(reason) => steps.extend(self.runs.end(id, RunState::Rejected, reason, self.now)),
                Ok(task) => {
                    steps.extend(self.runs.dispatched(id, task.task().view().ends, self.now.monotonic));
                    steps.push(Step::Execute(id));
                }
            }
        }
        steps
    }

    /// What was promised, now that it is on the disk.
    pub(super) fn after_runs(&mut self, after: PendingRuns) {
        if let Some(accepting) = after.accepted {
            self.accepted(accepting);
        }
        self.pieces_stored(&after.pieces);
        for record in &after.saved {
            self.run_stored(record);
        }
        for id in after.groups {
            if let Some(group) = self.runs.group(id) {
                self.feed.push(Change::Group { group });
            }
        }
        for id in after.execute {
            self.send_execute(id, None);
        }
        for (pi, run) in after.clear {
            self.clear_run(&pi, run);
        }
        for promise in after.promises {
            self.resolve(promise);
        }
    }

    fn accepted(&mut self, accepting: Accepting) {
        let Accepting { runs, group, sentence, requested_by, pi, answers } = accepting;
        let run = if let [only] = &runs[..] { Some(*only) } else { None };
        self.asked_line(pi, run, &requested_by, sentence);
        for id in &runs {
            if let Some(run) = self.runs.get(*id).map(|record| record.run.clone()) {
                self.announce_run(&run);
            }
        }
        if let Some(group) = group.and_then(|id| self.runs.group(id)) {
            self.feed.push(Change::Group { group });
        }
        let steps = self.runs.accepted(&runs);
        let accepted = Accepted { group, runs };
        for answer in answers {
            self.tell_accepted(answer, &accepted);
        }
        self.perform(steps);
    }

    /// Writes what an account asked for, as often as an account may ask. The schedule is not an
    /// account: how often it asks is written in the catalogue.
    fn asked_line(&mut self, pi: Option<PiId>, run: Option<RunId>, by: &str, text: String) {
        let line =
            Line { kind: EventKind::Task, severity: Severity::Info, pi, run, account: Some(by.to_owned()), text };
        if by == SCHEDULE {
            return self.line(line);
        }
        self.repeated_event(Repeated::Asked, by.to_lowercase(), line);
    }

    fn pieces_stored(&mut self, pieces: &[(RunId, u64)]) {
        let newest: BTreeMap<RunId, u64> = pieces.iter().copied().collect();
        for (run, seq) in newest {
            if let Some((pi, ack)) = self.runs.piece_stored(run, seq) {
                self.acknowledge(&pi, run, ack);
            }
            if let Some(follower) = self.followers.get(&run) {
                follower.send_modify(|progress| progress.next_chunk = seq + 1);
            }
        }
    }

    fn run_stored(&mut self, record: &RunRecord) {
        let run = &record.run;
        let ack = self.runs.stored(record);
        if record.reported.is_some() {
            self.acknowledge(&run.pi, run.id, ack);
        }
        self.announce_run(run);
        if run.state.is_final() {
            self.announce_end(run);
            if let Some(follower) = self.followers.remove(&run.id) {
                follower.send_modify(|progress| progress.is_final = true);
            }
        }
    }

    /// Signs and sends the order to start a run, for the session that its agent has told; with the
    /// root runner's nonce if that has given one.
    fn send_execute(&mut self, id: RunId, nonce: Option<Nonce>) {
        // One that was cancelled meanwhile is not started for that: its agent has been told.
        let is_wanted = |record: &&RunRecord| record.run.state == RunState::Dispatched && record.cancelled_by.is_none();
        let Some(record) = self.runs.get(id).filter(is_wanted) else { return };
        let (pi, requested_by) = (record.run.pi.clone(), record.run.requested_by.clone());
        // Without a session it is sent once the agent has come back and has told what it knows.
        let Some(session) = self.agents.session(&pi).cloned() else { return };
        match self.approve_again(record) {
            Ok(task) => {
                if nonce.is_some() {
                    self.runs.confirmed(id, self.now.monotonic);
                }
                let order = task.sign(&self.key, id, &session, &requested_by, nonce);
                self.publish(&Topic::Execute(pi, id), encode(&order), 1, false);
                self.runs.sent(id, session);
            }
            Err(reason) => {
                let steps = self.runs.end(id, RunState::Rejected, reason, self.now);
                self.perform(steps);
            }
        }
    }

    fn send_cancel(&mut self, id: RunId) {
        let Some(pi) = self.runs.get(id).map(|record| record.run.pi.clone()) else { return };
        let Some(session) = self.agents.session(&pi).cloned() else { return };
        let order = self.key.sign(&Order::Cancel(CancelOrder { pi: pi.clone(), run: id, session }));
        self.publish(&Topic::Cancel(pi, id), encode(&order), 1, false);
    }

    pub(super) fn tell_group(&self, id: RunId, reply: Reply<Group>) {
        let _ = reply.send(self.runs.group(id).ok_or_else(|| Refused::missing(format!("there is no group {id}"))));
    }

    /// Tells how far a run's output has come, and goes on telling.
    pub(super) fn follow(&mut self, id: RunId, reply: Reply<watch::Receiver<Progress>>) {
        self.followers.retain(|_, sender| sender.receiver_count() > 0);
        let receiver = match self.runs.get(id) {
            Some(record) => {
                let progress = Progress { next_chunk: record.next_chunk, is_final: false };
                self.followers.entry(id).or_insert_with(|| watch::Sender::new(progress)).subscribe()
            }
            // It is final, or was never here: everything that there is is stored.
            None => watch::Sender::new(Progress { next_chunk: u64::MAX, is_final: true }).subscribe(),
        };
        tell(reply, receiver);
    }
}
