//! What the agent does with what it hears.

use std::path::PathBuf;

use bytes::Bytes;
use pistat_protocol::{
    codec::decode,
    id::RunId,
    status::{Availability, Session, Settings},
    task::Ack,
    topic::Topic,
};
use pistat_support::random;
use tokio::time::Instant;

use super::{Agent, BACKFILL_DELAY, FIRST_SAMPLE, Found};
use crate::{
    Incoming,
    task::{Asked, OrderOutcome, SocketFile, ask_session},
};

impl Agent {
    pub(super) fn hear(&mut self, heard: Incoming) {
        match heard {
            Incoming::Connected => self.connected(),
            Incoming::Disconnected => self.disconnected(),
            Incoming::Message { topic, payload, retain } => self.message(topic, &payload, retain),
        }
    }

    /// A new session, told before `online`; then everything that is not acknowledged.
    fn connected(&mut self) {
        self.session = None;
        self.outbox.clear();
        match self.runs.runner_to_ask() {
            Some((socket, file)) => self.ask_for_session(socket, file),
            None => self.greet(None, None),
        }
    }

    /// The root runner makes the session itself where it is installed: only so does it know that an
    /// order is not an old one.
    fn ask_for_session(&mut self, socket: PathBuf, file: SocketFile) {
        self.session_asked += 1;
        let asked = self.session_asked;
        self.looking_up.spawn(async move { Found::Session(asked, ask_session(socket, file).await) });
    }

    pub(super) fn session_found(&mut self, asked: u64, answer: Asked) {
        // Another connection, or none, has come in between.
        if self.session_asked != asked {
            return;
        }
        match answer {
            Asked::Session(session) => self.greet(Some(session), Some(true)),
            Asked::Silent => self.greet(None, Some(false)),
            Asked::Nobody(socket) => {
                self.runs.runner_is_gone(socket);
                self.greet(None, None);
            }
        }
    }

    fn greet(&mut self, session: Option<Session>, is_runners: Option<bool>) {
        self.session = session.or_else(own_session);
        self.runs.set_runner_session(is_runners);
        self.outbox.clear();
        self.publish_info();
        self.publish_status(Availability::Online);
        let now = Instant::now();
        self.cadence.now(now + FIRST_SAMPLE);
        self.backlog.connected(now, BACKFILL_DELAY);
        self.greeting = true;
    }

    fn disconnected(&mut self) {
        self.session = None;
        self.session_asked += 1;
        self.greeting = false;
        self.outbox.clear();
        self.backlog.disconnected();
        self.memory.disconnected();
        self.runs.disconnected();
    }

    fn message(&mut self, topic: Topic, payload: &Bytes, retain: bool) {
        match topic {
            Topic::Execute(pi, run) | Topic::Cancel(pi, run) if pi == self.options.pi => {
                self.order(run, payload, retain);
            }
            Topic::Ack(pi, run) if pi == self.options.pi && !retain => self.acknowledged(run, payload),
            Topic::Settings(pi) if pi == self.options.pi => self.settings(payload),
            Topic::Watch(pi) if pi == self.options.pi && !retain => self.watch(payload),
            Topic::Recall(pi) if pi == self.options.pi && !retain => self.recall(payload),
            Topic::Status(pi) if pi == self.options.pi => self.own_status(payload),
            Topic::Status(pi) if pi.is_controller() => self.controller_status(payload, retain),
            other => tracing::debug!(?other, "not for this agent"),
        }
    }

    fn order(&mut self, run: RunId, payload: &[u8], retain: bool) {
        // An empty retained message is how somebody clears a retained order.
        if payload.is_empty() {
            return;
        }
        if self.runs.order(run, payload, retain, self.session.as_ref()) == OrderOutcome::NeedsRunnersSession
            && let Some((socket, file)) = self.runs.runner_to_ask()
        {
            tracing::info!(%run, "the root runner was installed meanwhile: a new session begins");
            self.ask_for_session(socket, file);
        }
    }

    fn acknowledged(&mut self, run: RunId, payload: &[u8]) {
        match decode::<Ack>(payload) {
            Ok(ack) => self.runs.acknowledge(run, ack),
            Err(error) => tracing::warn!(%run, %error, "an acknowledgement was not understood"),
        }
    }

    fn settings(&mut self, payload: &[u8]) {
        // An empty retained message means that nothing is set.
        let settings = if payload.is_empty() { Ok(Settings::default()) } else { decode(payload) };
        match settings {
            Ok(settings) if self.cadence.set(settings, Instant::now()) => {
                tracing::info!(interval = ?self.cadence.interval(), "the interval has changed");
                self.publish_info();
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the settings were not understood"),
        }
    }

    fn watch(&mut self, payload: &[u8]) {
        match decode(payload) {
            Ok(watch) => self.cadence.watch(watch, Instant::now()),
            Err(error) => tracing::warn!(%error, "a watch was not understood"),
        }
    }

    fn recall(&mut self, payload: &[u8]) {
        match decode(payload) {
            Ok(recall) => self.memory.recall(recall, Instant::now()),
            Err(error) => tracing::warn!(%error, "a recall was not understood"),
        }
    }

    /// The will of an earlier session may come after this one's birth. For whoever heard it this
    /// session is over, so it is told again, before `online`.
    fn own_status(&mut self, payload: &[u8]) {
        if self.session.is_some() && Availability::from_payload(payload) == Some(Availability::Offline) {
            self.publish_info();
            self.publish_status(Availability::Online);
        }
    }

    /// A controller that comes back while this connection stands (an external broker, or our own
    /// that was quicker than it) has missed what was said meanwhile, and believes only what is said
    /// live: everything is said again.
    fn controller_status(&mut self, payload: &[u8], retain: bool) {
        if !retain && Availability::from_payload(payload) == Some(Availability::Online) {
            self.publish_info();
            self.publish_status(Availability::Online);
            self.runs.repeat();
        }
    }
}

/// A session of the agent's own: enough for everything but tasks that need root.
fn own_session() -> Option<Session> {
    let bits = random::secret().inspect_err(|error| {
        // Without a session no order is accepted: the machine is seen and runs nothing.
        tracing::error!(%error, "no random session could be made; tasks are refused until the next connection");
    });
    bits.ok().map(Session::from_random)
}
