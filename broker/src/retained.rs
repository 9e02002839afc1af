//! The retained messages, in memory: the newest of each topic, found by topic or by filter.
//!
//! They are sorted by topic, so that only what is below a filter's fixed beginning is searched.
//! Large ones are packed soon after they arrive, since they are read rarely: the documents for Home
//! Assistant are most of what a fleet retains. The store notes which topics have changed, for
//! [`crate::store`] to write; the broker's own topics (`$SYS`) are never written.
//!
//! Each account has its share of the store, and accounts together leave a part of it to the fleet.
//! A message that does not fit is not retained, and the topic's previous message is removed, since
//! it is outdated.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::filter;
use crate::message::Message;

/// The part of the store that only agents and the controller fill: one in so many.
const FLEETS_PART: usize = 4;

/// What became of a message with the retain flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is the topic's retained message now, or has removed it.
    Yes,
    /// The store or the account's share of it is full. The topic has no retained message now.
    Refused,
}

/// Smaller messages are not packed: what a machine sends every few seconds is below this.
///
/// A document for Home Assistant of 13 kB is packed into 3 kB. That saves 10 MB with 1,000 machines
/// and 101 MB with 10,000, where the whole controller has 44 and 199 MB. One document as the LZ4
/// dictionary of the others would save 1.2 and 12.2 MB more, 3 and 6 %: too little for the code
/// (measured on 2026-12-01).
const PACK_ABOVE_BYTES: usize = 4096;

/// So many are packed in one turn: a few milliseconds of the hub's time.
const PACK_IN_ONE_TURN: usize = 200;

/// The bounds of the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// What one account, or one agent, may have of it.
    pub(crate) messages_per_account: usize,
    pub(crate) bytes_per_account: usize,
}

/// Who has published a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// Under whose name sessions are kept; empty when it is not known any more, as with a last
    /// will.
    pub(crate) owner: &'a str,
    /// An agent or the controller has, or it is on one of their topics.
    pub(crate) is_fleets: bool,
    /// It has no share but all of it.
    pub(crate) is_unbounded: bool,
}

/// How much of something there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    messages: usize,
    bytes: usize,
}

impl Tally {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn sub(&mut self, bytes: usize) {
        self.messages -= 1;
        self.bytes -= bytes;
    }

    /// Whether it is within these bounds, or at least no larger than before.
    fn fits(&self, messages: usize, bytes: usize, before: Self) -> bool {
        (self.messages <= messages || self.messages <= before.messages)
            && (self.bytes <= bytes || self.bytes <= before.bytes)
    }
}

/// A retained message.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) message: Arc<Message>,
    pub(crate) owner: Arc<str>,
    is_fleets: bool,
}

/// The retained messages.
#[derive(Debug)]
pub(crate) struct Retained {
    messages: BTreeMap<Box<str>, Entry>,
    /// All that lasts.
    all: Tally,
    /// Of these, what is not the fleet's.
    others: Tally,
    owners: HashMap<Arc<str>, Tally>,
    /// The broker's own numbers, which have no bound.
    passing_bytes: usize,
    bounds: Bounds,
    /// Topics whose message has changed since the last look.
    changed: HashSet<Box<str>>,
    /// Topics whose message is large, and not packed yet.
    large: HashSet<Box<str>>,
}

impl Retained {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            messages: BTreeMap::new(),
            all: Tally::default(),
            others: Tally::default(),
            owners: HashMap::new(),
            passing_bytes: 0,
            bounds,
            changed: HashSet::new(),
            large: HashSet::new(),
        }
    }

    /// Takes a message with the retain flag: an empty one removes the topic's.
    pub(crate) fn keep(&mut self, message: &Arc<Message>, origin: Origin<'_>) -> Kept {
        let topic = message.topic();
        if message.payload_bytes() == 0 {
            self.remove(topic);
            return Kept::Yes;
        }
        if is_lasting(topic) && !self.has_room(message, origin) {
            self.remove(topic);
            return Kept::Refused;
        }
        self.note(topic);
        self.note_large(message);
        self.put(message.clone(), origin);
        Kept::Yes
    }

    /// Takes a message that was read from disk.
    pub(crate) fn restore(&mut self, message: Arc<Message>, origin: Origin<'_>) {
        self.note_large(&message);
        self.put(message, origin);
    }

    fn has_room(&self, message: &Message, origin: Origin<'_>) -> bool {
        let bounds = &self.bounds;
        let bytes = message.bytes();
        let known = self.messages.get(message.topic());
        let with = |tally: Tally, has_known: bool| {
            let mut with = tally;
            if let Some(known) = known.filter(|_| has_known) {
                with.sub(known.message.bytes());
            }
            with.add(bytes);
            with
        };
        let others = with(self.others, known.is_some_and(|known| !known.is_fleets));
        let (part, part_bytes) = (share(bounds.messages), share(bounds.bytes));
        let own = self.owners.get(origin.owner).copied().unwrap_or_default();
        let own_with = with(own, known.is_some_and(|known| *known.owner == *origin.owner));
        with(self.all, true).fits(bounds.messages, bounds.bytes, self.all)
            && (origin.is_fleets || others.fits(part, part_bytes, self.others))
            && (origin.is_unbounded || own_with.fits(bounds.messages_per_account, bounds.bytes_per_account, own))
    }

    fn put(&mut self, message: Arc<Message>, origin: Origin<'_>) {
        self.uncount(message.topic());
        let bytes = message.bytes();
        let owner = match self.owners.get_key_value(origin.owner) {
            Some((known, _)) => known.clone(),
            None => origin.owner.into(),
        };
        if is_lasting(message.topic()) {
            self.all.add(bytes);
            self.owners.entry(owner.clone()).or_default().add(bytes);
            if !origin.is_fleets {
                self.others.add(bytes);
            }
        } else {
            self.passing_bytes += bytes;
        }
        let entry = Entry { message, owner, is_fleets: origin.is_fleets };
        if let Some(known) = self.messages.get_mut(entry.message.topic()) {
            *known = entry;
        } else {
            self.messages.insert(entry.message.topic().into(), entry);
        }
    }

    /// Takes a topic's message out of the sums.
    fn uncount(&mut self, topic: &str) {
        let Some(known) = self.messages.get(topic) else { return };
        let bytes = known.message.bytes();
        if !is_lasting(topic) {
            self.passing_bytes -= bytes;
            return;
        }
        self.all.sub(bytes);
        if !known.is_fleets {
            self.others.sub(bytes);
        }
        if let Some(tally) = self.owners.get_mut(&known.owner) {
            tally.sub(bytes);
            if tally.messages == 0 {
                self.owners.remove(&known.owner);
            }
        }
    }

    /// The messages that match a filter, in the order of their topics; those that have expired are
    /// left out.
    pub(crate) fn matching<'a>(&'a self, filter: &'a str, now_ms: u64) -> impl Iterator<Item = &'a Arc<Message>> + 'a {
        let beginning = fixed_beginning(filter);
        let range = (Bound::Included(beginning), Bound::Unbounded);
        self.messages
            .range::<str, _>(range)
            .take_while(move |(topic, _)| topic.starts_with(beginning))
            .filter(move |(topic, entry)| filter::matches(filter, topic) && !entry.message.is_expired(now_ms))
            .map(|(_, entry)| &entry.message)
    }

    /// Removes the messages that have expired; says how many.
    pub(crate) fn expire(&mut self, now_ms: u64) -> usize {
        let expired: Vec<Box<str>> = self
            .messages
            .iter()
            .filter(|(_, entry)| entry.message.is_expired(now_ms))
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in &expired {
            self.remove(topic);
        }
        expired.len()
    }

    /// The topics that have changed and are wanted now; the others wait for another time.
    pub(crate) fn take_changes(&mut self, mut wanted: impl FnMut(&str) -> bool) -> Vec<(Box<str>, Option<Entry>)> {
        let topics: Vec<Box<str>> = self.changed.extract_if(|topic| wanted(topic)).collect();
        if self.changed.is_empty() {
            self.changed = HashSet::new();
        }
        topics
            .into_iter()
            .map(|topic| {
                let entry = self.messages.get(&topic).cloned();
                (topic, entry)
            })
            .collect()
    }

    /// Packs some of the large messages. Deliveries that are under way keep the unpacked one.
    pub(crate) fn pack(&mut self) {
        let topics: Vec<Box<str>> = self.large.iter().take(PACK_IN_ONE_TURN).cloned().collect();
        for topic in topics {
            self.large.remove(&topic);
            let Some(Entry { message, owner, is_fleets }) = self.messages.get(&topic).cloned() else { continue };
            if let Some(packed) = message.packed() {
                self.put(Arc::new(packed), Origin { owner: &owner, is_fleets, is_unbounded: false });
            }
        }
    }

    fn note_large(&mut self, message: &Message) {
        let is_large = message.payload_bytes() > PACK_ABOVE_BYTES && !message.is_packed();
        if is_large && !self.large.contains(message.topic()) {
            self.large.insert(message.topic().into());
        }
    }

    /// Whether any topic has changed since the last look.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Everything that belongs on disk.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = &Entry> {
        self.messages.values().filter(|entry| is_lasting(entry.message.topic()))
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.all.bytes + self.passing_bytes
    }

    fn remove(&mut self, topic: &str) {
        self.uncount(topic);
        if self.messages.remove(topic).is_some() {
            self.note(topic);
        }
    }

    fn note(&mut self, topic: &str) {
        if is_lasting(topic) && !self.changed.contains(topic) {
            self.changed.insert(topic.into());
        }
    }
}

/// What is left of a bound when the fleet's part is taken off.
fn share(bound: usize) -> usize {
    bound - bound / FLEETS_PART
}

/// The broker's own numbers are of this run only.
fn is_lasting(topic: &str) -> bool {
    !topic.starts_with("$SYS/")
}

/// What every topic begins with that a filter matches. `a/#` matches `a` itself, so the slash
/// before `#` is not in it.
fn fixed_beginning(filter: &str) -> &str {
    let fixed = filter.split(['+', '#']).next().unwrap_or_default();
    if filter[fixed.len()..].starts_with('#') { fixed.strip_suffix('/').unwrap_or(fixed) } else { fixed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Draft, SessionId};
    use crate::packet::{MessageProperties, QoS};

    fn message(topic: &str, payload: &str, expiry_seconds: Option<u32>) -> Arc<Message> {
        let properties = MessageProperties { expiry_seconds, ..MessageProperties::default() };
        let draft = Draft {
            publisher: SessionId::broker(),
            topic,
            payload: payload.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties,
            stamp: None,
            now_ms: 0,
        };
        Arc::new(Message::open(draft.seal()).unwrap())
    }

    fn store() -> Retained {
        bounded(100, 100)
    }

    fn bounded(messages: usize, messages_per_account: usize) -> Retained {
        let (bytes, bytes_per_account) = (100 * messages, 100 * messages_per_account);
        Retained::new(Bounds { messages, bytes, messages_per_account, bytes_per_account })
    }

    const ACCOUNT: Origin<'_> = Origin { owner: "u/home", is_fleets: false, is_unbounded: false };
    const OTHER: Origin<'_> = Origin { owner: "u/other", ..ACCOUNT };
    const AGENT: Origin<'_> = Origin { owner: "a/pi-1", is_fleets: true, is_unbounded: false };
    const CONTROLLER: Origin<'_> = Origin { owner: "c/", is_fleets: true, is_unbounded: true };

    fn topics(store: &Retained, filter: &str) -> Vec<String> {
        store.matching(filter, 0).map(|m| m.topic().to_owned()).collect()
    }

    #[test]
    fn filters_find_exactly_what_they_match() {
        let mut store = store();
        let all = ["a", "a/b", "a/b/c", "a-b", "ab", "b/b", "$SYS/x", "/"];
        for topic in all {
            assert_eq!(store.keep(&message(topic, "x", None), ACCOUNT), Kept::Yes);
        }
        for filter in ["#", "a/#", "a/b/#", "a", "+", "+/b", "a/+", "a/+/c", "$SYS/#", "/", "+/+", "c/#", "a/b/c"] {
            let mut expected: Vec<&str> = all.into_iter().filter(|t| filter::matches(filter, t)).collect();
            expected.sort_unstable();
            assert_eq!(topics(&store, filter), expected, "{filter}");
        }
    }

    #[test]
    fn an_empty_message_removes_and_an_expired_one_is_gone() {
        let mut store = store();
        store.keep(&message("a", "x", Some(2)), ACCOUNT);
        store.keep(&message("b", "x", None), ACCOUNT);
        assert_eq!(store.matching("#", 2000).count(), 1);
        assert_eq!(store.expire(2000), 1);
        store.keep(&message("b", "", None), ACCOUNT);
        assert_eq!((store.len(), store.bytes(), store.owners.len()), (0, 0, 0));
        assert_eq!((store.all, store.others), (Tally::default(), Tally::default()));
    }

    #[test]
    fn a_refused_message_takes_the_topics_old_one_along() {
        let mut store = bounded(100, 1);
        assert_eq!(store.keep(&message("a", "x", None), ACCOUNT), Kept::Yes);
        assert_eq!(store.keep(&message("b", "x", None), ACCOUNT), Kept::Refused);
        assert_eq!(store.keep(&message("a", "yy", None), ACCOUNT), Kept::Yes);
        assert_eq!(store.keep(&message("a", &"y".repeat(200), None), ACCOUNT), Kept::Refused);
        assert_eq!((store.len(), store.all), (0, Tally::default()));
        assert!(store.changed.contains("a"), "the disk must know");
    }

    #[test]
    fn accounts_have_their_share_and_leave_the_fleet_its_part() {
        let mut store = bounded(8, 4);
        let mut keep = |topic: &str, origin| store.keep(&message(topic, "x", None), origin) == Kept::Yes;
        // An account fills its share, another what is left of theirs together.
        let home: Vec<bool> = ["h1", "h2", "h3", "h4", "h5"].into_iter().map(|topic| keep(topic, ACCOUNT)).collect();
        assert_eq!(home, [true, true, true, true, false]);
        let other: Vec<bool> = ["o1", "o2", "o3"].into_iter().map(|topic| keep(topic, OTHER)).collect();
        assert_eq!(other, [true, true, false]);
        // The fleet has its part, and all may replace what is there.
        let fleet: Vec<bool> = ["f1", "f2", "f3"].into_iter().map(|topic| keep(topic, CONTROLLER)).collect();
        assert_eq!(fleet, [true, true, false]);
        assert!(keep("h1", ACCOUNT) && keep("o1", OTHER) && keep("f1", AGENT) && keep("f1", CONTROLLER));
        // A topic counts for the account that published it last; the former owner's share stays
        // full.
        assert!(keep("h1", OTHER) && !keep("h5", ACCOUNT));
        assert_eq!(store.all.messages, store.owners.values().map(|tally| tally.messages).sum::<usize>());
        assert_eq!(store.all.bytes, store.owners.values().map(|tally| tally.bytes).sum::<usize>());
    }

    #[test]
    fn large_messages_are_packed_and_stay_what_they_were() {
        let mut store = Retained::new(Bounds { bytes: 100_000, bytes_per_account: 50_000, ..bounded(10, 10).bounds });
        let text = "what is said again and again ".repeat(500);
        store.keep(&message("a", &text, None), ACCOUNT);
        store.keep(&message("b", "small", None), ACCOUNT);
        let before = store.bytes();
        store.pack();
        assert!(store.bytes() < before / 4, "{} of {before}", store.bytes());
        assert_eq!(&store.matching("a", 0).next().unwrap().payload()[..], text.as_bytes());
        // Another message in its place is counted as what it is, and so is none.
        store.keep(&message("a", &text, None), ACCOUNT);
        assert_eq!(store.bytes(), before);
        store.pack();
        store.keep(&message("a", "", None), ACCOUNT);
        store.keep(&message("b", "", None), ACCOUNT);
        assert_eq!((store.len(), store.bytes(), store.owners.len()), (0, 0, 0));
    }

    #[test]
    fn changes_are_told_once_and_only_those_that_last() {
        let mut store = store();
        for topic in ["a/stats", "a/status", "$SYS/x"] {
            store.keep(&message(topic, "x", None), AGENT);
        }
        let changed: Vec<Box<str>> =
            store.take_changes(|t| !t.ends_with("stats")).into_iter().map(|(t, _)| t).collect();
        assert_eq!(changed, ["a/status".into()]);
        assert!(store.has_changes());
        assert_eq!(store.take_changes(|_| true).len(), 1);
        assert!(!store.has_changes() && store.take_changes(|_| true).is_empty());
    }
}
