//! The audit log's newest lines, and what is counted instead of being written each time.

use std::{collections::VecDeque, time::Instant};

use pistat_protocol::{dashboard::Event, time::Timestamp};

use super::repeats::{Line, Repeated, Repeats};

/// The longest text of an event, in characters.
const MOST_EVENT_CHARACTERS: usize = 2000;

/// How many events stay in memory.
const RECENT_EVENTS: usize = 200;

/// The audit log.
pub(super) struct Audit {
    /// The newest first.
    recent: VecDeque<Event>,
    next: u64,
    repeats: Repeats,
}

impl Audit {
    /// Continues after these events, the newest first.
    pub(super) fn new(events: Vec<Event>) -> Self {
        let next = events.first().map_or(0, |event| event.seq + 1);
        Self { recent: events.into(), next, repeats: Repeats::default() }
    }

    /// The newest events, the newest first.
    pub(super) fn recent(&self) -> &VecDeque<Event> {
        &self.recent
    }

    /// Makes an event of a line. The caller stores and publishes it.
    pub(super) fn write(&mut self, line: Line, now: Timestamp) -> Event {
        let Line { kind, severity, pi, run, account, text } = line;
        let text = crate::terminal::clean(&text).chars().take(MOST_EVENT_CHARACTERS).collect();
        let event = Event { seq: self.next, time: now, kind, severity, pi, run, account, text };
        self.next += 1;
        self.recent.push_front(event.clone());
        self.recent.truncate(RECENT_EVENTS);
        event
    }

    /// What others can make happen as often as they like: the line if it is to be written now.
    pub(super) fn first(&mut self, what: Repeated, source: String, line: Line, now: Instant) -> Option<Line> {
        self.repeats.first(what, source, line, now)
    }

    /// The summaries that are due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Line> {
        self.repeats.due(now)
    }

    /// What was counted and is not written yet, at the end.
    pub(super) fn rest(&mut self, now: Instant) -> Vec<Line> {
        self.repeats.rest(now)
    }
}

#[cfg(test)]
impl Audit {
    pub(super) fn next_seq(&self) -> u64 {
        self.next
    }
}
