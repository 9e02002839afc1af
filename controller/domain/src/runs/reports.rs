//! What an agent's word changes: output, reports, and which runs it knows when it comes back.
//!
//! It is believed about its own machine's runs only, and a run ends by it only when all of its
//! output is here.

use std::time::Instant;

use pistat_protocol::{
    id::{PiId, RunId},
    status::{Nonce, Session},
    task::{Ack, Ends, MAX_CHUNK_BYTES, OUTPUT_WINDOW_BYTES, OutputChunk, Report, RunState},
    time::Timestamp,
};

use super::{Active, Runs, Step, is_started, not_before};
use crate::{fleet::Now, records::RunRecord};

/// How much output of one run may be on its way to the disk: an agent's window, and what it
/// repeats.
const MOST_UNSTORED_BYTES: usize = 2 * OUTPUT_WINDOW_BYTES;

impl Runs {
    /// An agent sent a piece of output.
    pub fn output(&mut self, pi: &PiId, id: RunId, chunk: OutputChunk, now: Now) -> Vec<Step> {
        if chunk.is_final {
            return Vec::new();
        }
        let Some(active) = self.active.get_mut(&id) else {
            // The run is final or unknown: let the agent forget the piece.
            return vec![Step::Ack(pi.clone(), id, Ack { seq: Some(chunk.seq), state: None })];
        };
        if active.record.run.pi != *pi {
            return vec![Step::Anomaly(
                pi.clone(),
                Some(id),
                "sent output of another machine's run; it was dropped".into(),
            )];
        }
        if chunk.data.len() > MAX_CHUNK_BYTES {
            let text = format!("sent a chunk of {} bytes of output; it was dropped", chunk.data.len());
            return vec![Step::Anomaly(pi.clone(), Some(id), text)];
        }
        if chunk.seq < active.record.next_chunk {
            return vec![Step::Ack(pi.clone(), id, active.stored)];
        }
        if active.unstored_bytes() > MOST_UNSTORED_BYTES {
            // An agent has no more than its window under way. This one does not wait for
            // acknowledgements.
            let text = "sends output without waiting for acknowledgements; some was dropped".to_owned();
            return vec![Step::Anomaly(pi.clone(), Some(id), text)];
        }
        if chunk.seq > active.record.next_chunk {
            // Something between was lost on the way; the agent sends again from what is
            // acknowledged.
            return vec![Step::Ack(pi.clone(), id, active.stored)];
        }
        active.unstored.push_back(chunk.data.len());
        let mut steps = vec![Step::SavePiece(active.output.take(&mut active.record, chunk))];
        let complete = active.held.as_ref().is_some_and(|report| active.may_end_by(report, now.monotonic));
        if let Some(report) = active.held.take_if(|_| complete) {
            steps.extend(self.report(pi, id, report, now));
        }
        steps
    }

    /// An agent reported about a run.
    pub fn report(&mut self, pi: &PiId, id: RunId, report: Report, now: Now) -> Vec<Step> {
        let Some(active) = self.active.get_mut(&id) else { return self.late_report(pi, id, &report) };
        let record = &mut active.record;
        if record.run.pi != *pi {
            return vec![Step::Anomaly(
                pi.clone(),
                Some(id),
                "reported about another machine's run; it was dropped".into(),
            )];
        }
        if record.run.state.is_final() {
            // It is final here and on its way to the disk: the acknowledgement follows from there.
            record.reported = Some(report.state);
            return vec![Step::Save(id)];
        }
        match report.state {
            RunState::Running if record.run.state == RunState::Running => {
                vec![Step::Ack(pi.clone(), id, active.stored)]
            }
            RunState::Running => {
                record.run.state = RunState::Running;
                record.run.started_at = Some(not_before(&record.run, now));
                record.boot_id = Some(report.boot_id);
                record.reported = Some(RunState::Running);
                active.started = Some(now.monotonic);
                let mut steps = vec![Step::Save(id)];
                steps.extend(self.group_changed(id));
                steps
            }
            RunState::Dispatched if report.nonce.is_some() => confirm(id, &active.record, report.nonce),
            state if state.is_final() => {
                if active.may_end_by(&report, now.monotonic) {
                    self.end_by_report(id, report, now)
                } else {
                    active.held = Some(report);
                    Vec::new()
                }
            }
            _ => vec![Step::Anomaly(
                pi.clone(),
                Some(id),
                format!("reported {}, which is not an agent's to say; it was dropped", report.state),
            )],
        }
    }

    /// A report of a run that has ended here, or that nobody knows. It is acknowledged, so that the
    /// agent forgets the run.
    fn late_report(&self, pi: &PiId, id: RunId, report: &Report) -> Vec<Step> {
        let ack = Step::Ack(pi.clone(), id, Ack { seq: None, state: Some(report.state) });
        if self.recent.iter().any(|run| run.id == id && run.pi == *pi && run.state == report.state) {
            // It said so before, and the acknowledgement was lost on the way.
            return vec![ack];
        }
        let text =
            format!("reported {} of a run that has ended or is not known here; nothing was changed", report.state);
        vec![Step::Anomaly(pi.clone(), Some(id), text), ack]
    }

    fn end_by_report(&mut self, id: RunId, report: Report, now: Now) -> Vec<Step> {
        let Some(active) = self.active.get_mut(&id) else { return Vec::new() };
        let run = &mut active.record.run;
        run.state = report.state;
        run.exit_code = report.exit_code;
        run.reason = report.reason.map(|reason| plain(&reason));
        // The machine's own clock may be wrong, but how long it took is the agent's to know: what
        // is told late, as after a cut, ended when it had taken that.
        let elapsed = report.elapsed_milliseconds.and_then(|elapsed| i64::try_from(elapsed).ok());
        let after = |time: Timestamp, milliseconds: i64| {
            Timestamp::from_unix_milliseconds(time.unix_milliseconds().saturating_add(milliseconds))
        };
        let latest = not_before(run, now);
        let finished =
            run.started_at.zip(elapsed).map_or(latest, |(started, elapsed)| latest.min(after(started, elapsed)));
        run.finished_at = Some(finished);
        if run.started_at.is_some() || report.started_at.is_some() {
            let started = elapsed.map(|elapsed| after(finished, -elapsed).max(run.created_at));
            run.started_at = Some(started.or(run.started_at).unwrap_or(finished));
        }
        active.record.reported = Some(report.state);
        active.record.final_chunks = report.output_chunks;
        let missing = active.output.miss(&mut active.record, report.output_bytes);
        let mut steps: Vec<Step> = missing.into_iter().map(Step::SavePiece).collect();
        steps.extend(self.finished(id));
        steps
    }

    /// An agent has told its session and which runs it knows: settle every run of its machine.
    ///
    /// What it was sent or named in this very session it still has: a list without it is older than
    /// that, and was overtaken on its way. It may be sent again, which starts nothing twice, but
    /// neither ends.
    pub fn settle(&mut self, pi: &PiId, session: &Session, known: &[RunId], boot_id: &str, now: Now) -> Vec<Step> {
        let open: Vec<_> = self.of_machine(pi).map(|active| (active.record.run.id, active.record.run.state)).collect();
        let mut steps = Vec::new();
        for (id, state) in open {
            let is_known = known.contains(&id);
            let is_of_session = self.active.get(&id).is_some_and(|active| active.session.as_ref() == Some(session));
            if is_known {
                self.sent(id, session.clone());
            }
            let is_cancelled = self.get(id).is_some_and(|record| record.cancelled_by.is_some());
            match state {
                // One that somebody has cancelled is not started for that: told of the cancel
                // alone, its agent refuses it.
                RunState::Dispatched if is_known || is_cancelled => {}
                RunState::Dispatched if is_of_session => steps.push(Step::Execute(id)),
                RunState::Dispatched => steps.extend(self.send_again(id, now)),
                RunState::Running if !is_known && !is_of_session => steps.extend(self.settle_unknown(id, boot_id, now)),
                _ => {}
            }
            if is_cancelled && self.get(id).is_some_and(|record| is_started(record.run.state)) {
                steps.push(Step::Cancel(id));
            }
        }
        steps.push(Step::Dispatch(pi.clone()));
        steps
    }

    /// An order that never arrived: that its agent does not know it proves that it never started.
    /// Nobody wants it later than it was allowed to wait.
    fn send_again(&mut self, id: RunId, now: Now) -> Vec<Step> {
        match self.active.get(&id).and_then(|active| active.expiry(now.monotonic)) {
            Some(reason) => self.end(id, RunState::Expired, reason, now),
            None => vec![Step::Execute(id)],
        }
    }

    /// A run that was running and that its agent no longer knows.
    fn settle_unknown(&mut self, id: RunId, boot_id: &str, now: Now) -> Vec<Step> {
        let rebooted = self.get(id).is_some_and(|record| {
            record.ends == Ends::Restart && record.boot_id.as_deref().is_some_and(|old| old != boot_id)
        });
        if rebooted {
            return self.end(id, RunState::Succeeded, "the machine came back with another boot id", now);
        }
        self.end(
            id,
            RunState::Lost,
            "the agent came back and does not know this run: its state was lost with the machine",
            now,
        )
    }
}

/// The root runner asks for the order with its nonce. One that somebody has cancelled is not sent
/// again, and one that runs needs none.
fn confirm(id: RunId, record: &RunRecord, nonce: Option<Nonce>) -> Vec<Step> {
    let is_wanted = record.run.state == RunState::Dispatched && record.cancelled_by.is_none();
    nonce.filter(|_| is_wanted).map(|nonce| Step::Confirm(id, nonce)).into_iter().collect()
}

impl Active {
    /// Whether this report may end the run now. Its output comes first; and that a run was
    /// cancelled or rejected is believed only when its order cannot be started any more: an agent
    /// whose user was taken over may say so and keep the order.
    pub(super) fn may_end_by(&self, report: &Report, now: Instant) -> bool {
        let says_that_it_never_goes_on = matches!(report.state, RunState::Cancelled | RunState::Rejected);
        let may_be_started = self.startable_until.is_some_and(|until| now < until);
        has_all_output(report, &self.record) && !(says_that_it_never_goes_on && may_be_started)
    }
}

fn has_all_output(report: &Report, record: &RunRecord) -> bool {
    report.output_chunks.is_none_or(|chunks| chunks <= record.next_chunk)
}

/// A sentence from outside, without what could deceive a reader.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}
