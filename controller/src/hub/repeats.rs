//! Events that one sender can cause as often as it likes: the first few are written at once, the
//! rest once a minute with a count. Pure.
//!
//! The sender decides how often something happens. The audit log, the disk below it, the program's
//! own log and the dashboards must not follow: each source has an allowance per kind, and one line
//! a minute beyond it. The counters of the broker and the hub count each occurrence all the same.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use pistat_protocol::{
    dashboard::{EventKind, Severity},
    id::{PiId, RunId},
};

/// How long the repeats of something are counted before they are written, in one line. After each
/// such time without repeats, one more line of the allowance is free again.
const WINDOW: Duration = Duration::from_secs(60);

/// How many sources of one kind are told apart where anybody can make up a new one. Beyond that
/// they are counted together, so that many addresses fill neither memory nor the log.
const MAX_SOURCES: usize = 64;

/// The same where the sources are accounts and enrolled machines.
const MAX_MEMBERS: usize = 4096;

/// How much of an address of version 6 is one source: who has one of a network has them all.
const NETWORK_BITS: u32 = 64;

/// What repeats itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Repeated {
    /// A connection is refused; by address.
    Connect,
    /// A client of an account connects; by account and address.
    Connected,
    /// A client of an account leaves; by account.
    Disconnected,
    /// A message is refused; by account.
    Publish,
    /// A subscription is refused; by account.
    Subscribe,
    /// Credentials are wrong, over HTTP; by address.
    Credentials,
    /// An account signs in, or makes a link for it; by account.
    SignIn,
    /// An enrolment is refused; by machine.
    Enrolment,
    /// A request for a task is refused; by who asks, where and why.
    Request,
    /// An account asks for a task, or for its end, accepted or refused; by account.
    Asked,
    /// An account renames, tags or sets a machine; by account.
    Label,
    /// Two machines use one name; by machine.
    Twins,
    /// A message of a machine cannot be read, or is too large; by machine.
    Unreadable,
    /// A report or output that fits no run, or more messages than can be taken; by machine.
    Anomaly,
    /// A machine comes or goes; by machine.
    Presence,
    /// A machine's power becomes bad or good; by machine.
    Power,
    /// An agent has refused orders; by machine.
    Orders,
    /// A machine may not have the name that it uses; by machine.
    Name,
}

impl Repeated {
    /// How many lines of one source are written at once before the rest is counted.
    fn allowance(self) -> u32 {
        match self {
            // What people do is seldom more than this, and each is worth a line of its own.
            Self::Asked | Self::Label => 60,
            Self::SignIn => 20,
            Self::Presence | Self::Power => 10,
            Self::Connected | Self::Disconnected => 4,
            Self::Connect
            | Self::Publish
            | Self::Subscribe
            | Self::Credentials
            | Self::Enrolment
            | Self::Request
            | Self::Twins
            | Self::Unreadable
            | Self::Anomaly
            | Self::Orders
            | Self::Name => 1,
        }
    }

    /// How many sources are told apart.
    fn sources(self) -> usize {
        match self {
            Self::Connect | Self::Connected | Self::Credentials | Self::Enrolment | Self::Request | Self::Name => {
                MAX_SOURCES
            }
            _ => MAX_MEMBERS,
        }
    }
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: EventKind,
    pub(super) severity: Severity,
    pub(super) pi: Option<PiId>,
    pub(super) run: Option<RunId>,
    pub(super) account: Option<String>,
    pub(super) text: String,
}

/// Who repeats what.
#[derive(Debug, Default)]
pub(super) struct Repeats(HashMap<Repeated, HashMap<String, Repeat>>);

#[derive(Debug)]
struct Repeat {
    /// When a line was written last, or one more became free.
    since: Instant,
    /// How many lines may be written at once.
    free: u32,
    /// How often it has come since the last line.
    more: u64,
    /// As it came last.
    last: Line,
}

impl Repeats {
    /// Gives the line back if it is to be written now; otherwise it is counted.
    pub(super) fn first(&mut self, what: Repeated, mut source: String, line: Line, now: Instant) -> Option<Line> {
        let sources = self.0.entry(what).or_default();
        if sources.len() >= what.sources() && !sources.contains_key(&source) {
            source.clear();
        }
        let fresh = || Repeat { since: now, free: what.allowance(), more: 0, last: line.clone() };
        let repeat = sources.entry(source).or_insert_with(fresh);
        if repeat.free > 0 {
            repeat.free -= 1;
            return Some(line);
        }
        repeat.more += 1;
        repeat.last = line;
        None
    }

    /// What was counted for a minute, in one line for each source; who has been quiet until its
    /// whole allowance is free again is forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        for (what, sources) in &mut self.0 {
            sources.retain(|_, repeat| {
                if now.saturating_duration_since(repeat.since) < WINDOW {
                    return true;
                }
                if repeat.more > 0 {
                    lines.push(repeat.sum_up(now));
                } else {
                    repeat.free += 1;
                    repeat.since = now;
                }
                repeat.free < what.allowance()
            });
        }
        lines
    }

    /// What is counted and not written yet, at the end.
    pub(super) fn rest(&mut self, now: Instant) -> Vec<Line> {
        let all = self.0.values_mut().flat_map(HashMap::values_mut);
        all.filter(|repeat| repeat.more > 0).map(|repeat| repeat.sum_up(now)).collect()
    }
}

impl Repeat {
    fn sum_up(&mut self, now: Instant) -> Line {
        let Line { text, .. } = &self.last;
        let text = format!("{} more like this: {text}", self.more);
        self.since = now;
        self.more = 0;
        Line { text, run: None, ..self.last.clone() }
    }
}

/// A text from outside in one line.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
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
            run: None,
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
        // It goes on: still once a minute. It stops, and after a quiet minute the next is a first
        // one.
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
        assert_eq!(told, MAX_SOURCES + 1, "each of the first, and one for all others");
        assert_eq!(repeats.0[&Repeated::Connect].len(), MAX_SOURCES + 1);
        let summary = texts(repeats.due(now + WINDOW));
        assert_eq!(summary, [format!("{} more like this: c", 100_000 - told)]);
    }

    #[test]
    fn an_allowance_is_used_up_at_once_and_grows_back_by_one_line_a_minute() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let at = |minutes: u64| start + WINDOW * u32::try_from(minutes).unwrap();
        let told = |repeats: &mut Repeats, minute| {
            (0..1000)
                .filter(|_| repeats.first(Repeated::Presence, "pi-1".into(), line("x"), at(minute)).is_some())
                .count()
        };
        let allowance = Repeated::Presence.allowance() as usize;
        assert_eq!(told(&mut repeats, 0), allowance);
        // As long as it goes on, there is one line a minute and no more.
        for minute in 1..=60 {
            assert_eq!(repeats.due(at(minute)).len(), 1, "{minute}");
            assert_eq!(told(&mut repeats, minute), 0, "{minute}");
        }
        assert_eq!(repeats.due(at(61)).len(), 1);
        for minute in 62..=64 {
            assert_eq!(repeats.due(at(minute)), []);
        }
        assert_eq!(told(&mut repeats, 64), 3, "three quiet minutes are three lines");
        let others = repeats.first(Repeated::Presence, "pi-2".into(), line("y"), at(64));
        assert!(others.is_some(), "each machine has its own allowance");
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
