//! The retained messages, in memory: the newest of each topic, found by topic or by filter.
//!
//! Kept in the order of their topics, so that a filter is looked for only below its fixed beginning. Large ones are packed
//! soon, since they are asked for rarely: a fleet's documents for Home Assistant are most of what is retained. It notes what has
//! changed, for [`crate::store`] to write; messages of the broker's own topics (`$SYS`) are never written.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::filter;
use crate::message::Message;

/// What became of a message with the retain flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is the topic's retained message now, or has removed it.
    Yes,
    /// The store is full, or the message too large.
    Refused,
}

/// Smaller messages are not worth packing: what is said of a machine every few seconds is below this.
const PACK_ABOVE_BYTES: usize = 4096;

/// So many are packed in one turn: a few milliseconds of the hub's time.
const PACK_IN_ONE_TURN: usize = 200;

/// The bounds of the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) message_bytes: usize,
}

/// The retained messages.
#[derive(Debug)]
pub(crate) struct Retained {
    messages: BTreeMap<Box<str>, Arc<Message>>,
    bytes: usize,
    /// How many of them are the broker's own numbers, which have no bound.
    passing: usize,
    bounds: Bounds,
    /// Topics whose message has changed since the last look.
    changed: HashSet<Box<str>>,
    /// Topics whose message is large, and not packed yet.
    large: HashSet<Box<str>>,
}

impl Retained {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { messages: BTreeMap::new(), bytes: 0, passing: 0, bounds, changed: HashSet::new(), large: HashSet::new() }
    }

    /// Takes a message with the retain flag: an empty one removes the topic's.
    pub(crate) fn keep(&mut self, message: &Arc<Message>) -> Kept {
        let topic = message.topic();
        if message.payload_bytes() == 0 {
            self.remove(topic);
            return Kept::Yes;
        }
        let previous = self.messages.get(topic).map(|known| known.bytes());
        let bytes = self.bytes - previous.unwrap_or(0) + message.bytes();
        let is_full = previous.is_none() && self.messages.len() >= self.bounds.messages + self.passing;
        if is_lasting(topic) && (is_full || bytes > self.bounds.bytes || message.bytes() > self.bounds.message_bytes) {
            return Kept::Refused;
        }
        self.bytes = bytes;
        self.note(topic);
        self.note_large(message);
        if let Some(known) = self.messages.get_mut(topic) {
            *known = message.clone();
        } else {
            self.passing += usize::from(!is_lasting(topic));
            self.messages.insert(topic.into(), message.clone());
        }
        Kept::Yes
    }

    /// Takes a message that was read from disk.
    pub(crate) fn restore(&mut self, message: Arc<Message>) {
        self.bytes += message.bytes();
        self.note_large(&message);
        if let Some(previous) = self.messages.insert(message.topic().into(), message) {
            self.bytes -= previous.bytes();
        }
    }

    /// The messages that match a filter, in the order of their topics; those that have expired are left out.
    pub(crate) fn matching<'a>(&'a self, filter: &'a str, now_ms: u64) -> impl Iterator<Item = &'a Arc<Message>> + 'a {
        let beginning = fixed_beginning(filter);
        let range = (Bound::Included(beginning), Bound::Unbounded);
        self.messages
            .range::<str, _>(range)
            .take_while(move |(topic, _)| topic.starts_with(beginning))
            .filter(move |(topic, message)| filter::matches(filter, topic) && !message.is_expired(now_ms))
            .map(|(_, message)| message)
    }

    /// Removes the messages that have expired; says how many.
    pub(crate) fn expire(&mut self, now_ms: u64) -> usize {
        let expired: Vec<Box<str>> = self
            .messages
            .iter()
            .filter(|(_, message)| message.is_expired(now_ms))
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in &expired {
            self.remove(topic);
        }
        expired.len()
    }

    /// The topics that have changed and are wanted now; the others wait for another time.
    pub(crate) fn take_changes(
        &mut self,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Vec<(Box<str>, Option<Arc<Message>>)> {
        let topics: Vec<Box<str>> = self.changed.extract_if(|topic| wanted(topic)).collect();
        if self.changed.is_empty() {
            self.changed = HashSet::new();
        }
        topics
            .into_iter()
            .map(|topic| {
                let message = self.messages.get(&topic).cloned();
                (topic, message)
            })
            .collect()
    }

    /// Packs some of the large messages; whoever is just getting one keeps it as it is.
    pub(crate) fn pack(&mut self) {
        let topics: Vec<Box<str>> = self.large.iter().take(PACK_IN_ONE_TURN).cloned().collect();
        for topic in topics {
            self.large.remove(&topic);
            let Some(message) = self.messages.get_mut(&topic) else { continue };
            if let Some(packed) = message.packed() {
                self.bytes = self.bytes - message.bytes() + packed.bytes();
                *message = Arc::new(packed);
            }
        }
    }

    fn note_large(&mut self, message: &Message) {
        if message.bytes() > PACK_ABOVE_BYTES && !self.large.contains(message.topic()) {
            self.large.insert(message.topic().into());
        }
    }

    /// Whether any topic has changed since the last look.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Everything that belongs on disk.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.values().filter(|message| is_lasting(message.topic()))
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove(&mut self, topic: &str) {
        if let Some(previous) = self.messages.remove(topic) {
            self.bytes -= previous.bytes();
            self.passing -= usize::from(!is_lasting(topic));
            self.note(topic);
        }
    }

    fn note(&mut self, topic: &str) {
        if is_lasting(topic) && !self.changed.contains(topic) {
            self.changed.insert(topic.into());
        }
    }
}

/// The broker's own numbers are of this run only.
fn is_lasting(topic: &str) -> bool {
    !topic.starts_with("$SYS/")
}

/// What every topic begins with that a filter matches. `a/#` matches `a` itself, so the slash before `#` is not in it.
fn fixed_beginning(filter: &str) -> &str {
    let fixed = filter.split(['+', '#']).next().unwrap_or_default();
    if filter[fixed.len()..].starts_with('#') { fixed.strip_suffix('/').unwrap_or(fixed) } else { fixed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Draft, SessionId};
    use crate::packet::MessageProperties;

    fn message(topic: &str, payload: &str, expiry_seconds: Option<u32>) -> Arc<Message> {
        let properties = MessageProperties { expiry_seconds, ..MessageProperties::default() };
        let draft = Draft {
            publisher: SessionId::BROKER,
            topic,
            payload: payload.as_bytes(),
            qos: 1,
            retain: true,
            properties,
            stamp: None,
            now_ms: 0,
        };
        Arc::new(Message::open(draft.seal()).unwrap())
    }

    fn store() -> Retained {
        Retained::new(Bounds { messages: 100, bytes: 10_000, message_bytes: 1_000 })
    }

    fn topics(store: &Retained, filter: &str) -> Vec<String> {
        store.matching(filter, 0).map(|m| m.topic().to_owned()).collect()
    }

    #[test]
    fn filters_find_exactly_what_they_match() {
        let mut store = store();
        let all = ["a", "a/b", "a/b/c", "a-b", "ab", "b/b", "$SYS/x", "/"];
        for topic in all {
            assert_eq!(store.keep(&message(topic, "x", None)), Kept::Yes);
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
        store.keep(&message("a", "x", Some(2)));
        store.keep(&message("b", "x", None));
        assert_eq!(store.matching("#", 2000).count(), 1);
        assert_eq!(store.expire(2000), 1);
        store.keep(&message("b", "", None));
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }

    #[test]
    fn bounds_refuse_new_topics_and_never_the_old_ones() {
        let mut store = Retained::new(Bounds { messages: 1, bytes: 200, message_bytes: 100 });
        assert_eq!(store.keep(&message("a", "x", None)), Kept::Yes);
        assert_eq!(store.keep(&message("b", "x", None)), Kept::Refused);
        assert_eq!(store.keep(&message("a", "yy", None)), Kept::Yes);
        assert_eq!(store.keep(&message("a", &"y".repeat(100), None)), Kept::Refused);
    }

    #[test]
    fn large_messages_are_packed_and_stay_what_they_were() {
        let mut store = Retained::new(Bounds { messages: 10, bytes: 100_000, message_bytes: 50_000 });
        let text = "what is said again and again ".repeat(500);
        store.keep(&message("a", &text, None));
        store.keep(&message("b", "small", None));
        let before = store.bytes();
        store.pack();
        assert!(store.bytes() < before / 4, "{} of {before}", store.bytes());
        assert_eq!(&store.matching("a", 0).next().unwrap().payload()[..], text.as_bytes());
        // Another message in its place is counted as what it is, and so is none.
        store.keep(&message("a", &text, None));
        assert_eq!(store.bytes(), before);
        store.pack();
        store.keep(&message("a", "", None));
        store.keep(&message("b", "", None));
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }

    #[test]
    fn changes_are_told_once_and_only_those_that_last() {
        let mut store = store();
        for topic in ["a/stats", "a/status", "$SYS/x"] {
            store.keep(&message(topic, "x", None));
        }
        let changed: Vec<Box<str>> =
            store.take_changes(|t| !t.ends_with("stats")).into_iter().map(|(t, _)| t).collect();
        assert_eq!(changed, ["a/status".into()]);
        assert!(store.has_changes());
        assert_eq!(store.take_changes(|_| true).len(), 1);
        assert!(!store.has_changes() && store.take_changes(|_| true).is_empty());
    }
}
