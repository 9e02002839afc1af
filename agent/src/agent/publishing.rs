//! What the agent says, and in which order.

use pistat_protocol::{
    codec::encode,
    status::{Availability, Info},
    topic::Topic,
};
use tokio::{sync::mpsc, time::Instant};

use super::Agent;
use crate::Outgoing;

impl Agent {
    pub(super) fn publish_info(&mut self) {
        let Some(session) = self.session.clone() else { return };
        let (refused, last_refusal) = self.runs.refused();
        let mut info = Info {
            label: self.options.label.clone(),
            model: None,
            serial: None,
            os: None,
            kernel: None,
            arch: None,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.facts.boot_id.clone(),
            boot_time: None,
            session,
            execution_policy: self.options.policy.name(),
            listed_tasks: self.options.policy.listed(),
            runner: self.runs.has_runner(),
            interval_seconds: self.cadence.interval().as_secs_f64(),
            capabilities: self.capabilities.clone(),
            known_runs: self.runs.known(),
            storage_wear_percent: None,
            updates_pending: None,
            reboot_required: None,
            failed_units: None,
            orders_refused: Some(refused).filter(|count| *count > 0),
            last_order_refused: last_refusal.map(str::to_owned),
        };
        self.facts.fill(&mut info);
        self.refusals_told = refused;
        self.info_at = Some(Instant::now());
        self.publish(Topic::Info(self.options.pi.clone()), encode(&info), 1, true);
    }

    pub(super) fn publish_status(&mut self, status: Availability) {
        if self.options.publishes_status {
            let topic = Topic::Status(self.options.pi.clone());
            self.publish(topic, status.as_str().into(), 1, true);
        }
    }

    pub(super) fn publish(&mut self, topic: Topic, payload: Vec<u8>, qos: u8, retain: bool) {
        let next = Outgoing { topic, payload, qos, retain };
        // Of what is retained only the newest counts: it takes the place of an older one that still
        // waits.
        match self.outbox.iter_mut().find(|waiting| retain && waiting.topic == next.topic) {
            Some(waiting) => *waiting = next,
            None => self.outbox.push_back(next),
        }
    }

    pub(super) fn send(&mut self, permit: Option<mpsc::Permit<'_, Outgoing>>) {
        if let (Some(permit), Some(next)) = (permit, self.outbox.pop_front()) {
            permit.send(next);
        }
        if self.outbox.is_empty() && std::mem::take(&mut self.greeting) {
            self.runs.connected();
        }
    }
}
