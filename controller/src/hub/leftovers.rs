//! What the broker still retains of a machine that was removed, and of an earlier `mqtt.prefix`:
//! looked for and cleared.
//!
//! The controller looks as any client does: it subscribes for a while, and clears each retained
//! message that comes. So it is the same on our own broker and on another, and nothing need be
//! known of what an agent has published.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pistat_protocol::{
    codec::decode,
    dashboard::{EventKind, Severity},
    id::PiId,
    order::KeyView,
    topic::{Topic, Topics},
};

use super::Hub;
use crate::{
    bridge::{Look, Outgoing},
    store::register::{PREFIXES, RegisterWrite},
};

/// How long it is looked for, after the last thing that was found.
const LOOK: Duration = Duration::from_secs(10);

/// What is looked for.
#[derive(Default)]
pub(super) struct Leftovers {
    /// Machines that were removed, and until when it is looked for what is left of them.
    machines: BTreeMap<PiId, Instant>,
    /// Prefixes of earlier configurations.
    former: Vec<Former>,
}

struct Former {
    topics: Topics,
    /// Since when it is looked for, on this connection.
    since: Option<Instant>,
    /// Whether the key that is retained under it is ours: another controller may use the prefix
    /// now.
    is_ours: bool,
}

impl Leftovers {
    /// With the prefixes that were in use before, which may hold the present one.
    pub(super) fn new(prefixes: &[String], present: &Topics) -> Self {
        let former = prefixes.iter().filter(|prefix| *prefix != present.prefix());
        let former = former.filter_map(|prefix| Topics::new(prefix).ok());
        let former = former.map(|topics| Former { topics, since: None, is_ours: false }).collect();
        Self { machines: BTreeMap::new(), former }
    }

    /// The prefixes that are to be remembered.
    fn prefixes(&self, present: &Topics) -> String {
        let former = self.former.iter().map(|former| former.topics.prefix());
        let prefixes: Vec<_> = former.chain([present.prefix()]).collect();
        serde_json::to_string(&prefixes).unwrap_or_default()
    }
}

fn of_machine(topics: &Topics, pi: &PiId) -> String {
    format!("{}/{pi}/#", topics.prefix())
}

/// Everything that a controller or an agent retains under a prefix. They are listed, since a filter
/// for all of it would match the topics of a longer prefix too.
fn of_prefix(topics: &Topics) -> Vec<String> {
    let machine = ["status", "info", "stats", "stats/backfill", "meta", "settings", "task/result", "watch", "recall"];
    let run = ["status", "output", "report", "ack"].map(|verb| format!("task/+/{verb}"));
    let controller = ["key", "tasks", "event"].map(|word| format!("{}/controller/{word}", topics.prefix()));
    let under = |rest: &str| format!("{}/+/{rest}", topics.prefix());
    machine.into_iter().map(under).chain(run.iter().map(|rest| under(rest))).chain(controller).collect()
}

impl Hub {
    /// There is a connection: what was looked for on the last one is looked for anew.
    pub(super) fn look_again(&mut self) {
        for (pi, until) in &mut self.leftovers.machines {
            *until = self.now.monotonic + LOOK;
            self.outbox.look(Look::At(vec![of_machine(&self.topics, pi)]));
        }
        for former in &mut self.leftovers.former {
            (former.since, former.is_ours) = (Some(self.now.monotonic), false);
            self.outbox.look(Look::At(vec![former.topics.format(&Topic::ControllerKey)]));
        }
    }

    /// Looks for what the broker retains of a machine that was removed.
    pub(super) fn look_for_machine(&mut self, pi: &PiId) {
        if self.leftovers.machines.insert(pi.clone(), self.now.monotonic + LOOK).is_none() {
            self.outbox.look(Look::At(vec![of_machine(&self.topics, pi)]));
        }
    }

    /// Once a second: what nothing was found of for a while is not looked for any more.
    pub(super) fn end_looks(&mut self) {
        let Self { leftovers, outbox, topics, now, .. } = self;
        leftovers.machines.retain(|pi, until| {
            let goes_on = *until > now.monotonic;
            if !goes_on {
                outbox.look(Look::Away(vec![of_machine(topics, pi)]));
            }
            goes_on
        });
        let is_over =
            |former: &Former| former.since.is_some_and(|since| now.monotonic.saturating_duration_since(since) >= LOOK);
        let (over, former) = std::mem::take(&mut leftovers.former).into_iter().partition(is_over);
        leftovers.former = former;
        let over: Vec<Former> = over;
        for former in &over {
            self.outbox.look(Look::Away(of_prefix(&former.topics)));
            if former.is_ours {
                // It goes last: where only some was cleared, the next start finds it and goes on.
                let key = former.topics.format(&Topic::ControllerKey);
                self.clear(key);
                let text = format!("what was retained under the former prefix {} is cleared", former.topics);
                self.event(EventKind::System, Severity::Info, None, None, None, text);
            }
        }
        if !over.is_empty() {
            self.remember_prefixes();
        }
    }

    /// Writes which prefixes were in use, the present one included.
    pub(super) fn remember_prefixes(&mut self) {
        let prefixes = self.leftovers.prefixes(&self.topics);
        self.commits.write(RegisterWrite::Fact(PREFIXES, prefixes));
    }

    /// Something is retained on a topic that may be a leftover: it is cleared if it is one. Tells
    /// whether it was.
    pub(super) fn is_leftover(&mut self, topic: &str, payload: &Bytes) -> bool {
        if payload.is_empty() {
            return false;
        }
        match machine_level(&self.topics, topic) {
            Some(pi) if self.leftovers.machines.contains_key(&pi) && !self.is_back(&pi) => {
                self.leftovers.machines.insert(pi, self.now.monotonic + LOOK);
                self.clear(topic.to_owned());
                return true;
            }
            _ => {}
        }
        let of_former = |former: &Former| former.topics.prefix().len() < topic.len() && is_under(&former.topics, topic);
        let Some(index) = self.leftovers.former.iter().position(of_former) else { return false };
        if is_under(&self.topics, topic)
            && self.topics.prefix().len() > self.leftovers.former[index].topics.prefix().len()
        {
            return false;
        }
        self.of_former_prefix(index, topic, payload);
        true
    }

    fn of_former_prefix(&mut self, index: usize, topic: &str, payload: &Bytes) {
        let own = self.key.public();
        let former = &mut self.leftovers.former[index];
        if topic == former.topics.format(&Topic::ControllerKey) {
            let is_ours = decode::<KeyView>(payload).is_ok_and(|view| view.key == own);
            if is_ours && !former.is_ours {
                (former.is_ours, former.since) = (true, Some(self.now.monotonic));
                self.outbox.look(Look::At(of_prefix(&former.topics)));
            }
            return;
        }
        if !former.is_ours {
            return;
        }
        former.since = Some(self.now.monotonic);
        let topics = former.topics.clone();
        let is_known = |pi: &PiId| {
            self.fleet.contains(pi) || self.access.is_forgotten(pi) || self.access.agent(pi.as_str()).is_some()
        };
        if machine_level(&topics, topic).is_some_and(|pi| is_known(&pi)) {
            self.clear(topic.to_owned());
        }
    }

    /// Something is retained under our prefix that is not a topic of ours: of a machine that is
    /// gone, it goes too.
    pub(super) fn retained_elsewhere(&mut self, topic: &str, payload: &Bytes) {
        if self.is_leftover(topic, payload) || payload.is_empty() {
            return;
        }
        let gone = machine_level(&self.topics, topic).filter(|pi| !self.is_back(pi));
        // On its own level alone, it may be anything: an account may have rules for such a topic.
        let is_below = topic.rsplit_once('/').is_some_and(|(above, _)| above != self.topics.prefix());
        let has_no_machine = |pi: &PiId| (is_below && !self.may_exist(pi)) || self.access.is_forgotten(pi);
        if let Some(pi) = gone.filter(has_no_machine) {
            self.clear(topic.to_owned());
            self.clear_machine(&pi);
        }
    }

    /// Whether a machine is there, or there again.
    fn is_back(&self, pi: &PiId) -> bool {
        self.fleet.contains(pi)
    }

    fn clear(&mut self, topic: String) {
        self.send(Outgoing { topic, payload: Vec::new(), qos: 1, retain: true, correlation: None });
    }
}

/// The machine that a topic under a prefix names.
fn machine_level(topics: &Topics, topic: &str) -> Option<PiId> {
    let rest = topic.strip_prefix(topics.prefix())?.strip_prefix('/')?;
    rest.split('/').next()?.parse().ok()
}

fn is_under(topics: &Topics, topic: &str) -> bool {
    topic.strip_prefix(topics.prefix()).is_some_and(|rest| rest.starts_with('/'))
}
