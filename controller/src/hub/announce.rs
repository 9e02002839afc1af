//! What the controller tells everybody: retained topics, and the start of a dashboard.

use pistat_protocol::{
    codec::encode,
    dashboard::{Change, ControllerView, EventKind, MACHINES_PER_MESSAGE, Me, Run, ServerMessage, Severity},
    id::{PiId, RunId},
    order::KeyView,
    task::{Ack, RunState, RunStatus, TaskResult},
    topic::Topic,
};

use super::{
    Hub,
    ask::{Joined, Names, Numbers, Reply},
    lanes::Sender,
    repeats::Line,
    tell,
};
use crate::{access::Caller, bridge::Outgoing, catalogue::Catalogue, config::Broker, terminal};

/// How a run's state reads in the log.
fn verb(run: &Run) -> (Severity, String) {
    let text = format!("{} {}", run.task, terminal::how_it_ended(run));
    let severity = match run.state {
        RunState::Succeeded | RunState::Cancelled => Severity::Info,
        RunState::Rejected | RunState::Expired => Severity::Warning,
        _ => Severity::Error,
    };
    (severity, text)
}

impl Hub {
    /// Everything that is retained, said again on a new connection.
    pub(super) fn announce_everything(&mut self) {
        self.announcer.connected(self.now.monotonic);
        let key = KeyView { enrols: self.config.mqtt.broker == Broker::Embedded, ..self.key.public().view() };
        self.publish(&Topic::ControllerKey, encode(&key), 1, true);
        self.announce_tasks();
        let machines: Vec<PiId> = self.fleet.ids().cloned().collect();
        for pi in &machines {
            self.announce_given(pi);
        }
        for run in self.runs.newest() {
            if !run.state.is_final() {
                self.announce_run(&run);
            }
        }
    }

    pub(super) fn announce_tasks(&mut self) {
        let tasks = encode(&self.catalogue.view());
        self.publish(&Topic::ControllerTasks, tasks, 1, true);
    }

    /// What people gave a machine.
    pub(super) fn announce_given(&mut self, pi: &PiId) {
        let (meta, settings) = (encode(&self.fleet.meta(pi)), encode(&self.fleet.settings(pi)));
        self.publish(&Topic::Meta(pi.clone()), meta, 1, true);
        self.publish(&Topic::Settings(pi.clone()), settings, 1, true);
        self.announcer.changed(pi);
    }

    /// A run's state, which is on the disk: topic, feed, log; a final one also as a result.
    pub(super) fn announce_run(&mut self, run: &Run) {
        self.publish_status(run);
        self.feed.push(Change::Run { run: Box::new(run.clone()) });
    }

    fn publish_status(&mut self, run: &Run) {
        let retain = run.state != RunState::Rejected;
        self.publish(&Topic::RunStatus(run.pi.clone(), run.id), encode(&RunStatus::from(run)), 1, retain);
    }

    /// The broker retains a topic of a run, as it tells a new subscriber.
    pub(super) fn retained_of_run(&mut self, pi: PiId, run: RunId) {
        if self.runs.get(run).is_none() && !self.runs.is_retained(&pi, run) {
            self.republish.orphaned(pi, run);
        }
    }

    /// What was stored when the controller was killed, or while there was no connection, may not
    /// have reached the broker: neither a run's end nor that its topics were cleared. Both are said
    /// again, a few at a time.
    pub(super) fn republish_retained(&mut self) {
        if !self.outbox.is_connected() {
            return;
        }
        let (ended, orphaned) = self.republish.due();
        for run in ended {
            if self.runs.is_retained(&run.pi, run.id) {
                self.publish_status(&run);
            }
        }
        for (pi, run) in orphaned {
            self.clear_run(&pi, run);
        }
    }

    /// A run has ended, and that is on the disk.
    pub(super) fn announce_end(&mut self, run: &Run) {
        let result = TaskResult {
            event_type: run.state,
            run: run.id,
            pi: run.pi.clone(),
            task: run.task.clone(),
            requested_by: run.requested_by.clone(),
            exit_code: run.exit_code,
            reason: run.reason.clone(),
            started_at: run.started_at,
            finished_at: run.finished_at,
        };
        self.publish(&Topic::Result(run.pi.clone()), encode(&result), 1, false);
        let (severity, text) = verb(run);
        let account = Some(run.requested_by.clone());
        let line = Line { kind: EventKind::Task, severity, pi: Some(run.pi.clone()), run: Some(run.id), account, text };
        self.line(line);
        self.counters.finished(run);
    }

    pub(super) fn acknowledge(&mut self, pi: &PiId, run: RunId, ack: Ack) {
        self.publish(&Topic::Ack(pi.clone(), run), encode(&ack), 1, false);
    }

    /// Acknowledges what an agent has repeated, or has made up.
    pub(super) fn acknowledge_again(&mut self, pi: PiId, run: RunId, ack: Ack) {
        let topic = self.topics.format(&Topic::Ack(pi.clone(), run));
        let message = Outgoing { topic, payload: encode(&ack), qos: 1, retain: false, correlation: None };
        self.answer_to(Sender::Machine(pi), message);
    }

    /// Takes a run's retained topics off the broker.
    pub(super) fn clear_run(&mut self, pi: &PiId, run: RunId) {
        self.publish(&Topic::RunStatus(pi.clone(), run), Vec::new(), 1, true);
        self.publish(&Topic::Output(pi.clone(), run), Vec::new(), 1, true);
    }

    /// Takes a machine's retained topics off the broker.
    pub(super) fn clear_machine(&mut self, pi: &PiId) {
        self.look_for_machine(pi);
        for topic in self.topics.retained_of_machine(pi) {
            let cleared = Outgoing { topic, payload: Vec::new(), qos: 1, retain: true, correlation: None };
            self.answer_to(Sender::Machine(pi.clone()), cleared);
        }
    }

    pub(super) fn push_machine(&mut self, pi: &PiId) {
        if let Some(machine) = self.machine(pi, false, None) {
            self.feed.push(Change::Machine { machine: Box::new(machine) });
        }
    }

    /// The machines that can run other tasks than by the catalogue before, a frame for each
    /// hundred.
    pub(super) fn push_machines_that_can_run_others(&mut self, before: &Catalogue) {
        if self.feed.dashboards() == 0 {
            return;
        }
        let differs = |pi: &&PiId| {
            let facts = self.fleet.facts(pi);
            before.cannot_run(&facts, None) != self.catalogue.cannot_run(&facts, None)
        };
        let machines: Vec<PiId> = self.fleet.ids().filter(differs).cloned().collect();
        for some in machines.chunks(MACHINES_PER_MESSAGE) {
            for pi in some {
                self.push_machine(pi);
            }
            self.feed.flush(self.now.wall);
        }
    }

    pub(super) fn names(&self) -> Names {
        Names { machines: self.machines(None), tasks: self.catalogue.view(), runs: self.runs.newest() }
    }

    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            machines: self.fleet.machines(self.now),
            open_runs: self.runs.counts(),
            finished_runs: self.counters.finished_runs().clone(),
            run_seconds: self.counters.run_seconds().clone(),
            dashboards: self.feed.dashboards(),
            feed: self.feed.counts(),
            tasks: self.catalogue.tasks().count(),
            uptime_seconds: self.counters.uptime(self.now.monotonic).as_secs(),
            connected: self.outbox.is_connected(),
            outbox: self.outbox.len(),
            commits: self.commits.pending().len(),
            refused_messages: self.counters.refused_messages(),
            broker: self.broker.as_ref().map(pistat_broker::BrokerHandle::statistics),
        }
    }

    /// A dashboard joins: a snapshot, and every change from exactly then on.
    pub(super) fn join(&mut self, caller: &Caller, hidden: bool, reply: Reply<Joined>) {
        let changes = self.feed.join(self.now.wall, hidden);
        let external = match &self.config.mqtt.broker {
            Broker::Embedded => None,
            Broker::External(url) => Some(url.to_string()),
        };
        let snapshot = ServerMessage::Snapshot {
            now: self.now.wall,
            me: Me { account: caller.account.clone(), role: caller.role },
            controller: Box::new(ControllerView {
                version: env!("CARGO_PKG_VERSION").into(),
                prefix: self.topics.prefix().into(),
                mqtt_port: self.mqtt.map(|address| address.port()),
                external_broker: external,
                mqtt_url: self.own_address.of_broker(self.mqtt),
            }),
            machines: self.machines(None),
            runs: self.runs.newest(),
            groups: self.runs.all_groups(),
            events: self.audit.recent().iter().cloned().collect(),
            tasks: self.catalogue.view(),
            pulse: self.counters.pulse(),
        };
        tell(reply, (snapshot, changes));
    }
}
