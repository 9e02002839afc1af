//! What is published when: documents on change only, each at most every two seconds, a few at a
//! time, and nothing before the state folder holds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use pistat_protocol::{
    id::PiId,
    stats::Sample,
    status::{Info, Session},
};
use serde_json::Map;

use super::{
    document::{Announced, Component, Components, Facts, Place, Shared, gone},
    known::Known,
};

/// After a new connection, what is retained is heard first: a document that is made before would be
/// another a moment later.
const SETTLE: Duration = Duration::from_secs(2);

/// How long a machine may take to tell all that it can before what is known of it is announced.
/// Agents tell with their second sample.
const INTRODUCTION_LIMIT: Duration = Duration::from_secs(15);

/// Two documents of one machine are further apart than this.
const APART: Duration = Duration::from_secs(2);

/// How long what was taken back is remembered: until then it may not have reached the broker.
const REMEMBER: Duration = Duration::from_secs(5);

/// How many documents are published in one turn, once a second: each has some ten kilobytes, and no
/// client's queue should fill.
const IN_ONE_TURN: usize = 100;

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What the state folder has to hold before anything is said.
    pub(crate) keep: Option<Announced>,
    /// What is said then.
    pub(crate) say: Vec<Say>,
}

/// One document, or its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Say {
    /// Where.
    pub(crate) topic: String,
    /// The document; empty when the machine is gone.
    pub(crate) payload: Vec<u8>,
    /// Whose state is to be told again afterwards, since Home Assistant has just been started.
    pub(crate) again: Option<PiId>,
}

/// What is known of a machine and what was said of it.
#[derive(Debug, Default)]
struct Told {
    known: Known,
    /// Since when it is known what it is.
    since: Option<Instant>,
    session: Option<Session>,
    /// The last document of this connection: a hash, and when.
    last: Option<(u64, Instant)>,
    /// What the last document said is gone.
    leaving: BTreeSet<String>,
    again: bool,
}

/// Decides what is published when.
#[derive(Debug)]
pub(crate) struct Announcer {
    /// `None` announces nothing, and takes back whatever was announced.
    place: Option<Place>,
    announced: Announced,
    /// Every set of components that is announced, once.
    shapes: BTreeSet<Shared>,
    machines: BTreeMap<PiId, Told>,
    /// Machines whose documents may have changed.
    due: BTreeSet<PiId>,
    /// Documents that were taken back, and when.
    taken_back: BTreeMap<String, Instant>,
    connected: Option<Instant>,
    /// When Home Assistant's birth is answered.
    birth: Option<Instant>,
    /// Whether the state folder is being written.
    storing: bool,
}

impl Announcer {
    /// Starts with what was announced before.
    pub(crate) fn new(place: Option<Place>, mut announced: Announced) -> Self {
        let mut shapes = BTreeSet::new();
        for components in announced.values_mut() {
            *components = shared(&mut shapes, components.clone());
        }
        Self {
            place,
            announced,
            shapes,
            machines: BTreeMap::new(),
            due: BTreeSet::new(),
            taken_back: BTreeMap::new(),
            connected: None,
            birth: None,
            storing: false,
        }
    }

    /// A new connection: everything is said again.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
        self.birth = None;
        self.taken_back.clear();
        self.say_again(false);
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        self.connected = None;
    }

    /// Home Assistant was started; it is answered after `pause`, so that not everybody answers at
    /// once.
    pub(crate) fn born(&mut self, now: Instant, pause: Duration) {
        if self.place.is_some() {
            self.birth.get_or_insert(now + pause);
        }
    }

    fn say_again(&mut self, born: bool) {
        for (pi, told) in &mut self.machines {
            told.again = born;
            if born {
                // The time stays: not even a birth makes two documents follow each other at once.
                told.last = told.last.map(|(_, at)| (0, at));
            } else {
                told.last = None;
                told.leaving.clear();
            }
            self.due.insert(pi.clone());
        }
    }

    /// A machine told what it is.
    pub(crate) fn info(&mut self, pi: &PiId, info: &Info, newest: Option<&Sample>, now: Instant) {
        if self.place.is_none() {
            return;
        }
        let told = self.machines.entry(pi.clone()).or_default();
        told.known.info(info, newest);
        if told.session.as_ref() != Some(&info.session) {
            told.session = Some(info.session.clone());
            told.since = Some(now);
        }
        self.due.insert(pi.clone());
    }

    /// A machine sent a sample.
    pub(crate) fn sample(&mut self, pi: &PiId, sample: &Sample) {
        if let Some(told) = self.machines.get_mut(pi)
            && told.known.sample(sample)
        {
            self.due.insert(pi.clone());
        }
    }

    /// A machine was renamed, tagged or otherwise changed.
    pub(crate) fn changed(&mut self, pi: &PiId) {
        if self.machines.contains_key(pi) {
            self.due.insert(pi.clone());
        }
    }

    /// Something changed for all machines, such as the catalogue.
    pub(crate) fn all_changed(&mut self) {
        self.due.extend(self.machines.keys().cloned());
    }

    /// A machine was forgotten.
    pub(crate) fn forgotten(&mut self, pi: &PiId) {
        self.machines.remove(pi);
        self.due.remove(pi);
    }

    /// What was to be kept is on the disk.
    pub(crate) fn stored(&mut self) {
        self.storing = false;
    }

    /// What is to be done now; `exists` tells whether a machine is one of the fleet, `facts` what
    /// is known of it.
    pub(crate) fn turn<'f>(
        &mut self,
        now: Instant,
        fleet: impl Iterator<Item = &'f PiId>,
        facts: impl Fn(&PiId) -> Option<Facts<'f>>,
    ) -> Plan {
        let settled = self.connected.is_some_and(|since| now >= since + SETTLE);
        if !settled || self.storing {
            return Plan::default();
        }
        if self.birth.is_some_and(|birth| now >= birth) {
            self.birth = None;
            self.say_again(true);
        }
        let mut turn = Turn { announcer: self, now, plan: Plan::default(), changed: false };
        turn.take_back(fleet);
        turn.announce(facts);
        let Turn { mut plan, changed, .. } = turn;
        if changed {
            self.storing = true;
            plan.keep = Some(self.announced.clone());
        }
        plan
    }
}

/// One turn.
struct Turn<'a> {
    announcer: &'a mut Announcer,
    now: Instant,
    plan: Plan,
    /// Whether what was announced is another set than before.
    changed: bool,
}

impl Turn<'_> {
    /// Takes back documents whose machines are gone, or that an earlier configuration made.
    fn take_back<'f>(&mut self, fleet: impl Iterator<Item = &'f PiId>) {
        let Announcer { place, announced, taken_back, .. } = &mut *self.announcer;
        let wanted: BTreeSet<String> = match place {
            Some(place) => fleet.map(|pi| place.topic(pi)).collect(),
            None => BTreeSet::new(),
        };
        taken_back.retain(|topic, _| !wanted.contains(topic));
        let before = announced.len();
        announced.retain(|topic, _| taken_back.get(topic).is_none_or(|at| self.now < *at + REMEMBER));
        self.changed |= announced.len() != before;
        for topic in announced.keys().filter(|topic| !wanted.contains(*topic)) {
            if taken_back.insert(topic.clone(), *taken_back.get(topic).unwrap_or(&self.now)).is_none() {
                self.plan.say.push(Say { topic: topic.clone(), payload: Vec::new(), again: None });
            }
        }
    }

    /// Says what is due. The controller's own machine comes first: the others name it as the device
    /// that they are reached by.
    fn announce<'f>(&mut self, facts: impl Fn(&PiId) -> Option<Facts<'f>>) {
        let Some(place) = self.announcer.place.clone() else { return };
        let mut due: Vec<PiId> = self.announcer.due.iter().cloned().collect();
        due.sort_by_key(|pi| !pi.is_controller());
        for pi in due {
            if self.plan.say.len() >= IN_ONE_TURN {
                return;
            }
            if self.is_too_early(&pi) {
                continue;
            }
            let done = facts(&pi).is_none_or(|facts| self.announce_one(&place, &pi, &facts));
            if done {
                self.announcer.due.remove(&pi);
            }
        }
    }

    /// Whether a machine's last document is too new, or the machine has not told all and may still
    /// do. Asked before anything is made for it, since a whole fleet may wait at once.
    fn is_too_early(&self, pi: &PiId) -> bool {
        self.announcer.machines.get(pi).is_some_and(|told| {
            told.last.is_some_and(|(_, at)| self.now < at + APART)
                || (!told.known.is_complete() && told.since.is_some_and(|since| self.now < since + INTRODUCTION_LIMIT))
        })
    }

    /// Says one document, unless nothing has changed; tells whether nothing more is to be said of
    /// this machine for now.
    fn announce_one(&mut self, place: &Place, pi: &PiId, facts: &Facts<'_>) -> bool {
        let Announcer { announced, shapes, machines, .. } = &mut *self.announcer;
        let told = machines.entry(pi.clone()).or_default();
        let topic = place.topic(pi);
        let before = announced.get(&topic).map(|components| &**components);
        let components = place.components(pi, facts, &told.known, before);
        let missing: Components =
            before.into_iter().flatten().filter(|(key, _)| !components.contains_key(*key)).map(owned).collect();
        // What has not been named yet may still be there: the next word of the machine makes this
        // due again.
        if !told.known.is_complete() && (told.since.is_none() || !missing.is_empty()) {
            return true;
        }
        let going: Components = missing.into_iter().filter(|(key, _)| !told.leaving.contains(key)).collect();
        let now_announced: Components = components
            .iter()
            .map(|(key, (component, _))| (key.clone(), component.clone()))
            .chain(going.clone())
            .collect();
        let mut values: Map<_, _> = components.into_iter().map(|(key, (_, value))| (key, value)).collect();
        values.extend(going.iter().map(|(key, component)| (key.clone(), gone(component.platform()))));
        let payload = place.text(pi, facts, &values);
        if before != Some(&now_announced) {
            announced.insert(topic.clone(), shared(shapes, now_announced.into()));
            shapes.retain(Shared::is_shared);
            self.changed = true;
        }
        let hash = hash(&payload);
        if told.last.is_some_and(|(last, _)| last == hash) {
            return true;
        }
        told.last = Some((hash, self.now));
        told.leaving = going.into_keys().collect();
        let again = std::mem::take(&mut told.again).then(|| pi.clone());
        let done = told.leaving.is_empty();
        self.plan.say.push(Say { topic, payload, again });
        done
    }
}

/// The one copy of these components.
fn shared(shapes: &mut BTreeSet<Shared>, components: Shared) -> Shared {
    if let Some(known) = shapes.get(&components) {
        return known.clone();
    }
    shapes.insert(components.clone());
    components
}

fn owned((key, component): (&String, &Component)) -> (String, Component) {
    (key.clone(), component.clone())
}

fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
