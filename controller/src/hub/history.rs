//! The hub's way to the history: every sample goes in, and agents are asked for what is missing.
//!
//! The hub never waits for the history. What it wants to know is looked up in the history's thread,
//! and comes back as [`Finding`].

use std::{collections::BTreeSet, sync::Arc};

use pistat_history::{History, Query, Selector};
use pistat_protocol::{
    codec::encode,
    dashboard::Severity,
    history::Recall,
    id::{PiId, Target},
    stats::Sample,
    time::Timestamp,
    topic::Topic,
};
use tokio::sync::mpsc;

use super::{Hub, Reply, ask::Refused, machines::alert, repeats::Repeated};
use crate::fleet::{FleetRefusal, Now, bound_sample};

/// How many findings wait: as many as are looked up in some seconds.
pub(crate) const FINDINGS: usize = 256;

/// How many machines are looked up in a second: a whole fleet that comes back answers over minutes.
const LOOKED_UP_A_SECOND: usize = 50;

/// What a machine's card shows: ten minutes.
const CARD_MILLISECONDS: i64 = 600_000;

/// What the history has of a machine that connected.
#[derive(Debug)]
pub(crate) struct Finding {
    /// Which machine.
    pi: PiId,
    /// From when until when minutes are unknown that its agent may remember.
    missing: Option<(Timestamp, Timestamp)>,
    /// The CPU of its last minutes.
    recent: Vec<(Timestamp, f32)>,
}

/// The history, as the hub uses it.
pub(crate) struct Recorder {
    history: History,
    findings: mpsc::Sender<Finding>,
    /// Machines that connected and are to be looked up.
    waiting: BTreeSet<PiId>,
}

impl Recorder {
    /// `findings` comes back to the hub.
    pub(crate) fn new(history: History, findings: mpsc::Sender<Finding>) -> Self {
        Self { history, findings, waiting: BTreeSet::new() }
    }

    pub(super) fn live(&self, pi: &PiId, sample: &Arc<Sample>, now: Now) {
        self.history.live(pi, sample, now);
    }

    pub(super) fn forget(&mut self, pi: &PiId) {
        self.waiting.remove(pi);
        self.history.forget(pi);
    }

    /// A machine connected: soon it is asked for what is missing.
    pub(super) fn look_up(&mut self, pi: &PiId) {
        self.waiting.insert(pi.clone());
    }

    /// Once a second.
    fn look_up_next(&mut self) {
        for _ in 0..LOOKED_UP_A_SECOND {
            let Some(pi) = self.waiting.pop_first() else { return };
            let (findings, asked) = (self.findings.clone(), pi.clone());
            let look_up = move |store: &mut pistat_history::Store, now: Now| {
                let finding = find(store, asked, now);
                // The hub takes them quickly; one that finds no room is looked up at the next
                // connection.
                let _ = findings.try_send(finding);
            };
            if self.history.ask(look_up).is_err() {
                self.waiting.insert(pi);
                return;
            }
        }
    }
}

fn find(store: &mut pistat_history::Store, pi: PiId, now: Now) -> Finding {
    let to = now.wall.unix_milliseconds();
    let columns = Selector::parse("cpu_percent").into_iter().collect();
    let answer = store.answer(&pi, &Query { from: to - CARD_MILLISECONDS, to, points: 61, columns }, now);
    let step = i64::from(answer.step_seconds) * 1000;
    let times = (0..).map(|index| answer.start.unix_milliseconds() + index * step);
    let means = answer.columns.get("cpu_percent").into_iter().flat_map(|column| &column.mean);
    let value = |(time, mean): (i64, &Option<f32>)| Some((Timestamp::from_unix_milliseconds(time), (*mean)?));
    let recent = times.zip(means).filter_map(value).collect();
    Finding { missing: store.missing(&pi, now), pi, recent }
}

impl Hub {
    /// Samples came afterwards, from an agent's memory.
    pub(super) fn backfilled(&mut self, pi: &PiId, mut samples: Vec<Sample>, _retain: bool) {
        let allowed = self.fleet.allow_late(pi, samples.len(), self.now);
        if allowed < samples.len() {
            samples.truncate(allowed);
            self.counters.refused();
            let text = "sends more samples of before than it can have measured: the rest is not kept".to_owned();
            self.repeated_event(Repeated::Anomaly, pi.key(), alert(pi, Severity::Warning, text));
        }
        samples.iter_mut().for_each(bound_sample);
        let placed = self.fleet.backfill(pi, samples, self.now);
        if !placed.is_empty() && self.history.history.late(pi, placed).is_err() {
            // The agent remembers them for a while: it is asked again.
            self.history.look_up(pi);
        }
    }

    pub(super) fn found(&mut self, finding: &Finding) {
        self.fleet.fill_recent(&finding.pi, &finding.recent, self.now);
        if let Some((from, to)) = finding.missing {
            self.publish(&Topic::Recall(finding.pi.clone()), encode(&Recall { from, to }), 1, false);
        }
    }

    pub(super) fn look_up_history(&mut self) {
        self.history.look_up_next();
    }

    pub(super) fn tell_target(&self, target: &Target, reply: Reply<Vec<PiId>>) {
        let pis = self.fleet.resolve(target);
        let unknown = || Refused::missing(FleetRefusal::Unknown(target.to_string()));
        let answer = if pis.is_empty() && matches!(target, Target::Pi(_)) { Err(unknown()) } else { Ok(pis) };
        let _ = reply.send(answer);
    }
}
