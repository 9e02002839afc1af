//! What is refused again and again: told at once, then once a minute with a count. Pure.
//!
//! Whoever knocks decides how often. The audit log, the disk below it and the dashboards must not follow: one source is one line a minute, and many
//! sources are few. The counters of the broker and the hub count each refusal all the same.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use pistat_protocol::{
    dashboard::{EventKind, Severity},
    id::PiId,
};

/// How long the repeats of something are counted before they are told, in one line.
const WINDOW: Duration = Duration::from_secs(60);

/// How many sources are told apart. Beyond that they are counted together, so that many addresses fill neither memory nor the log.
const MAX_SOURCES: usize = 64;

/// How much of an address of version 6 is one source: who has one of a network has them all.
const NETWORK_BITS: u32 = 64;

/// What repeats itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Repeated {
    /// A connection is refused.
    Connect,
    /// A message is refused.
    Publish,
    /// A subscription is refused.
    Subscribe,
    /// Credentials are wrong, over HTTP.
    Credentials,
    /// An enrolment is refused.
    Enrolment,
    /// A request for a task is refused.
    Request,
    /// Two machines use one name.
    Twins,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: EventKind,
    pub(super) severity: Severity,
    pub(super) pi: Option<PiId>,
    pub(super) account: Option<String>,
    pub(super) text: String,
}

/// Who repeats what.
#[derive(Debug, Default)]
pub(super) struct Repeats(HashMap<(Repeated, String), Repeat>);

#[derive(Debug)]
struct Repeat {
    /// When the line was told last.
    since: Instant,
    /// How often it has come since.
    more: u64,
    /// As it came last.
    last: Line,
}

impl Repeats {
    /// Gives the line back if it is to be told now; otherwise it is counted.
    pub(super) fn first(&mut self, what: Repeated, source: String, line: Line, now: Instant) -> Option<Line> {
        let mut key = (what, source);
        if self.0.len() >= MAX_SOURCES && !self.0.contains_key(&key) {
            key.1.clear();
        }
        match self.0.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Repeat { since: now, more: 0, last: line.clone() });
                Some(line)
            }
            Entry::Occupied(mut known) => {
                let repeat = known.get_mut();
                repeat.more += 1;
                repeat.last = line;
                None
            }
        }
    }

    /// What was counted for a minute, in one line for each source; who has been quiet for so long is forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Line> {
        let is_due = |repeat: &Repeat| now.saturating_duration_since(repeat.since) >= WINDOW;
        self.0.retain(|_, repeat| repeat.more > 0 || !is_due(repeat));
        self.0.values_mut().filter(|repeat| is_due(repeat)).map(|repeat| repeat.sum_up(now)).collect()
    }

    /// What is counted and not told yet, at the end.
    pub(super) fn rest(&mut self, now: Instant) -> Vec<Line> {
        self.0.values_mut().filter(|repeat| repeat.more > 0).map(|repeat| repeat.sum_up(now)).collect()
    }
}

impl Repeat {
    fn sum_up(&mut self, now: Instant) -> Line {
        let Line { text, .. } = &self.last;
        let text = format!("{} more like this: {text}", self.more);
        self.since = now;
        self.more = 0;
        Line { text, ..self.last.clone() }
    }
}

/// Where somebody comes from, as one source.
pub(super) fn source(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let host_bits = Ipv6Addr::BITS - NETWORK_BITS;
            Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line {
            kind: EventKind::Mqtt,
            severity: Severity::Warning,
            pi: None,
            account: Some("guess".into()),
            text: text.into(),
        }
    }

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_once_a_minute_with_their_number() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut knock = |text: &str, seconds| {
            repeats.first(Repeated::Connect, "10.0.0.1".into(), line(text), at(seconds)).is_some()
        };
        assert!(knock("a", 0));
        assert!((0..1000).all(|number| !knock(if number < 999 { "a" } else { "b" }, 1)));
        let mut due = |seconds| texts(repeats.due(at(seconds)));
        assert_eq!(due(59), [] as [&str; 0]);
        assert_eq!(due(60), ["1000 more like this: b"]);
        assert_eq!(due(61), [] as [&str; 0]);
        // It goes on: still once a minute. It stops, and after a quiet minute the next is a first one.
        assert!(repeats.first(Repeated::Connect, "10.0.0.1".into(), line("c"), at(100)).is_none());
        assert_eq!(texts(repeats.due(at(120))), ["1 more like this: c"]);
        assert_eq!(texts(repeats.due(at(180))), [] as [&str; 0]);
        assert!(repeats.first(Repeated::Connect, "10.0.0.1".into(), line("d"), at(181)).is_some());
        assert!(repeats.first(Repeated::Connect, "10.0.0.1".into(), line("e"), at(182)).is_none());
        assert_eq!(texts(repeats.rest(at(183))), ["1 more like this: e"]);
        assert_eq!(texts(repeats.rest(at(183))), [] as [&str; 0]);
    }

    #[test]
    fn sources_and_kinds_are_told_apart_until_there_are_too_many() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        assert!(repeats.first(Repeated::Publish, "olga".into(), line("p"), now).is_some());
        assert!(repeats.first(Repeated::Subscribe, "olga".into(), line("s"), now).is_some());
        assert!(repeats.first(Repeated::Publish, "vera".into(), line("p"), now).is_some());
        let told = (0..100_000).filter(|number| {
            let source = format!("10.0.{number}");
            repeats.first(Repeated::Connect, source, line("c"), now).is_some()
        });
        let told = told.count();
        assert_eq!(told, MAX_SOURCES - 3 + 1, "each of the first, and one for all others");
        assert!(repeats.0.len() <= MAX_SOURCES + 1);
        let summary = texts(repeats.due(now + WINDOW));
        assert_eq!(summary, [format!("{} more like this: c", 100_000 - told)]);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_version_6() {
        for (address, expected) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ] {
            assert_eq!(source(address.parse().unwrap()), expected, "{address}");
        }
    }
}
