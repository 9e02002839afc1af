//! What `/metrics` and the dashboard's footer count.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pistat_broker::Statistics;
use pistat_protocol::{
    dashboard::{Pulse, Run},
    task::RunState,
};

use super::histogram::Histogram;

/// Counts since the start.
pub(super) struct Counters {
    started: Instant,
    finished: BTreeMap<(String, RunState), u64>,
    seconds: BTreeMap<String, Histogram>,
    refused_messages: u64,
    pulse: Pulse,
    accepted_messages: u64,
}

impl Counters {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            finished: BTreeMap::new(),
            seconds: BTreeMap::new(),
            refused_messages: 0,
            pulse: Pulse::default(),
            accepted_messages: 0,
        }
    }

    pub(super) fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Finished runs, by task and final state.
    pub(super) fn finished_runs(&self) -> &BTreeMap<(String, RunState), u64> {
        &self.finished
    }

    /// The running time of finished runs, by task.
    pub(super) fn run_seconds(&self) -> &BTreeMap<String, Histogram> {
        &self.seconds
    }

    pub(super) fn refused_messages(&self) -> u64 {
        self.refused_messages
    }

    pub(super) fn pulse(&self) -> Pulse {
        self.pulse
    }

    /// A message was refused.
    pub(super) fn refused(&mut self) {
        self.refused_messages += 1;
    }

    /// A run has ended.
    pub(super) fn finished(&mut self, run: &Run) {
        *self.finished.entry((run.task.to_string(), run.state)).or_insert(0) += 1;
        if let (Some(started), Some(finished)) = (run.started_at, run.finished_at) {
            #[expect(clippy::cast_precision_loss, reason = "seconds of a run")]
            let seconds = (finished.unix_milliseconds() - started.unix_milliseconds()) as f64 / 1000.0;
            self.seconds.entry(run.task.to_string()).or_default().add(seconds);
        }
    }

    /// A second has passed: the pulse, if it has changed.
    pub(super) fn beat(&mut self, broker: Option<&Statistics>, dashboards: usize) -> Option<Pulse> {
        let accepted = broker.map_or(self.accepted_messages, |broker| broker.messages_accepted);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = accepted.saturating_sub(self.accepted_messages) as f32;
        self.accepted_messages = accepted;
        let smooth = self.pulse.mqtt_messages_per_second.mul_add(0.8, rate * 0.2);
        let pulse = Pulse {
            mqtt_clients: broker.map_or(0, |broker| u32::try_from(broker.clients_connected).unwrap_or(u32::MAX)),
            mqtt_messages_per_second: (smooth * 10.0).round() / 10.0,
            dashboards: u32::try_from(dashboards).unwrap_or(u32::MAX),
        };
        (std::mem::replace(&mut self.pulse, pulse) != pulse).then_some(pulse)
    }
}
