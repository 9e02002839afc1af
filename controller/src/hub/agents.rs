//! What is known of agents that are connected now, and of who looks at their machines.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use pistat_protocol::{id::PiId, stats::Power, status::Session};

/// Connected agents.
#[derive(Default)]
pub(super) struct Agents {
    /// The session of each, as it said itself on this connection of ours.
    sessions: HashMap<PiId, Session>,
    /// When a dashboard last showed a machine.
    watches: HashMap<PiId, Instant>,
    /// The newest power flags of each, to tell changes.
    power: HashMap<PiId, Power>,
}

impl Agents {
    pub(super) fn session(&self, pi: &PiId) -> Option<&Session> {
        self.sessions.get(pi)
    }

    /// An agent reported its session; returns whether that is a new one.
    pub(super) fn began(&mut self, pi: PiId, session: Session) -> bool {
        self.sessions.insert(pi, session.clone()) != Some(session)
    }

    pub(super) fn left(&mut self, pi: &PiId) {
        self.sessions.remove(pi);
    }

    /// The connection to the broker is gone: until an agent reports its session again, nothing is
    /// sent to it.
    pub(super) fn all_left(&mut self) {
        self.sessions.clear();
    }

    pub(super) fn forget(&mut self, pi: &PiId) {
        self.sessions.remove(pi);
        self.power.remove(pi);
    }

    /// Notes the power flags of a machine; returns those before.
    pub(super) fn power(&mut self, pi: &PiId, power: &Power) -> Power {
        self.power.insert(pi.clone(), power.clone()).unwrap_or_default()
    }

    /// A dashboard shows a machine. Returns whether none did before.
    pub(super) fn watch(&mut self, pi: PiId, now: Instant) -> bool {
        self.watches.insert(pi, now).is_none()
    }

    /// The machines that were shown within this time.
    pub(super) fn watched(&mut self, within: Duration, now: Instant) -> Vec<PiId> {
        self.watches.retain(|_, since| now.saturating_duration_since(*since) < within);
        self.watches.keys().cloned().collect()
    }
}
