//! The binary's own connection: MQTT 3.1.1 over TCP, TLS or WebSocket, for ever.
//!
//! Each connection is a new session with a new client, so nothing of an earlier one can be sent
//! late: what matters is repeated by the agent. A connection that hangs is noticed. It ends when
//! the agent closes its side: then the last messages are sent, acknowledged, and only then follows
//! DISCONNECT, since that clears the last will.

use std::time::Duration;

use pistat_protocol::{
    id::PiId,
    status::Availability,
    topic::{Topic, Topics},
};
use pistat_support::{backoff::Backoff, client::qos, mqtt_url::Login as OwnLogin, random};
use rumqttc::{AsyncClient, ConnectionError, LastWill, MqttOptions, QoS};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    Incoming, Outgoing,
    enroll::Rejoin,
    mqtt::{
        Endpoint, Link, LinkEvent, MOST_BACKOFF, REFUSED_WAIT, ShortLived, Troubles, describe, is_not_authorized,
        is_refusal,
    },
    waiting::Waiting,
};

/// How long the last messages may take to be acknowledged.
const LAST_ACKNOWLEDGEMENT: Duration = Duration::from_secs(3);

/// How a machine shows at its broker who it is.
#[derive(Debug, Clone)]
pub struct Login {
    /// The password; the user is the pi-id.
    pub secret: String,
    /// Whether the broker lets in whoever shows no credentials, and refused this machine's.
    pub anonymous: bool,
}

/// Keeps a connection for an agent until the agent closes its side.
pub async fn keep(
    endpoint: Endpoint,
    pi: PiId,
    login: Login,
    rejoin: Option<Rejoin>,
    incoming: mpsc::Sender<Incoming>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) {
    let mut keeper = Keeper {
        waiting: Some(Waiting::begin(endpoint.missing(None))),
        shows_secret: !login.anonymous,
        endpoint,
        pi,
        login,
        rejoin,
        incoming,
        backoff: Backoff::new(MOST_BACKOFF),
        short_lived: ShortLived::default(),
        troubles: Troubles::default(),
    };
    while keeper.connect(&mut outgoing).await {}
}

struct Keeper {
    endpoint: Endpoint,
    pi: PiId,
    login: Login,
    /// Whether the next connection is made with the secret.
    shows_secret: bool,
    rejoin: Option<Rejoin>,
    incoming: mpsc::Sender<Incoming>,
    backoff: Backoff,
    short_lived: ShortLived,
    troubles: Troubles,
    /// For a connection, and then for the controller.
    waiting: Option<Waiting>,
}

impl Keeper {
    /// One connection and the wait after it; `false` when the agent has closed its side.
    async fn connect(&mut self, outgoing: &mut mpsc::Receiver<Outgoing>) -> bool {
        let mut options = self.options("pistat-agent");
        let status = self.endpoint.topics().format(&Topic::Status(self.pi.clone()));
        options.set_last_will(LastWill::new(status, Availability::Offline.as_str(), QoS::AtLeastOnce, true));
        let filters = self.endpoint.topics().agent_filters(&self.pi);
        let mut link = Link::open(options, filters.into());
        let trouble = tokio::select! {
            biased;
            trouble = self.wait_until_ready(&mut link) => trouble,
            () = drain(outgoing) => return false,
        };
        let (trouble, lasted) = match trouble {
            Some(trouble) => (trouble, None),
            None => match self.serve(link, outgoing).await {
                Some((trouble, lasted)) => (trouble, Some(lasted)),
                None => return false,
            },
        };
        tokio::select! {
            biased;
            () = drain(outgoing) => false,
            () = self.wait_after(&trouble, lasted) => true,
        }
    }

    fn options(&self, client: &str) -> MqttOptions {
        let login = OwnLogin { user: self.pi.to_string(), password: Some(self.login.secret.clone()) };
        self.endpoint.options(&format!("{client}-{}", self.pi), self.shows_secret.then_some(&login))
    }

    async fn wait_until_ready(&mut self, link: &mut Link) -> Option<ConnectionError> {
        loop {
            match link.events.recv().await {
                Some(LinkEvent::Ready { refused }) => {
                    // What the controller has retained may have come already.
                    self.waiting = self.waiting.take().map(|_| Waiting::begin(self.endpoint.no_controller()));
                    for filter in refused {
                        tracing::warn!(
                            filter,
                            "the broker refuses this subscription: allow it to this machine's account there"
                        );
                    }
                    return None;
                }
                Some(LinkEvent::Lost(trouble)) => return Some(*trouble),
                // Retained messages may come before the last filter is confirmed.
                Some(LinkEvent::Message { topic, payload, retain }) => {
                    self.hear(&topic, payload, retain).await;
                }
                Some(LinkEvent::Acknowledged) => {}
                None => return Some(ConnectionError::RequestsDone),
            }
        }
    }

    /// Passes messages both ways; `None` when the agent has closed its side, else why it ended and
    /// how long it lasted.
    async fn serve(
        &mut self,
        mut link: Link,
        outgoing: &mut mpsc::Receiver<Outgoing>,
    ) -> Option<(ConnectionError, Duration)> {
        self.troubles.connected(self.endpoint.address());
        self.backoff.reset();
        let since = Instant::now();
        // What was meant for the last connection is not for this one.
        while outgoing.try_recv().is_ok() {}
        let _ = self.incoming.send(Incoming::Connected).await;
        let (acknowledged, acknowledgements) = watch::channel(0_u64);
        let client = link.client.clone();
        let topics = self.endpoint.topics().clone();
        let trouble = tokio::select! {
            trouble = self.listen(&mut link, &acknowledged) => Some(trouble),
            () = pump(&topics, &client, outgoing, acknowledgements) => None,
        };
        let Some(trouble) = trouble else {
            link.disconnect().await;
            return None;
        };
        self.troubles.lost(self.endpoint.address(), &trouble, since);
        let _ = self.incoming.send(Incoming::Disconnected).await;
        Some((trouble, since.elapsed()))
    }

    async fn listen(&mut self, link: &mut Link, acknowledged: &watch::Sender<u64>) -> ConnectionError {
        loop {
            match link.events.recv().await {
                Some(LinkEvent::Message { topic, payload, retain }) => self.hear(&topic, payload, retain).await,
                Some(LinkEvent::Acknowledged) => acknowledged.send_modify(|count| *count += 1),
                Some(LinkEvent::Lost(trouble)) => return *trouble,
                Some(LinkEvent::Ready { .. }) => {}
                None => return ConnectionError::RequestsDone,
            }
        }
    }

    async fn hear(&mut self, topic: &str, payload: bytes::Bytes, retain: bool) {
        if let Some(topic) = self.endpoint.topics().parse(topic) {
            let is_controllers = matches!(&topic, Topic::Status(pi) if pi.is_controller());
            if is_controllers || topic == Topic::ControllerKey {
                self.waiting = None;
            }
            // Nobody listens any more when the agent is ending.
            let _ = self.incoming.send(Incoming::Message { topic, payload, retain }).await;
        } else {
            tracing::debug!(topic, "not one of our topics");
        }
    }

    /// Joins again with the token that the agent was started with, if it was.
    async fn rejoin(&self) -> bool {
        let Some(rejoin) = &self.rejoin else { return false };
        match rejoin.attempt(&self.endpoint).await {
            Ok(()) => {
                tracing::info!(pi = %self.pi, "enrolled again");
                true
            }
            Err(sentence) => {
                tracing::warn!("{sentence}");
                false
            }
        }
    }

    /// Says what went wrong and waits until it is time for the next attempt.
    async fn wait_after(&mut self, trouble: &ConnectionError, lasted: Option<Duration>) {
        if is_refusal(trouble) {
            return self.wait_after_refusal(trouble).await;
        }
        let wait = self.backoff.next(random::byte());
        if let Some(lasted) = lasted {
            return self.wait_after_connection(trouble, lasted, wait).await;
        }
        let why = describe(trouble);
        self.missing(self.endpoint.missing(Some(&why)));
        self.troubles.log(&format!("no connection to {}: {why}", self.endpoint.address()), wait);
        tokio::time::sleep(wait).await;
    }

    /// After one that was made: longer when those before it did not last either.
    async fn wait_after_connection(&mut self, trouble: &ConnectionError, lasted: Duration, wait: Duration) {
        let (pause, is_suspicious) = self.short_lived.ended(trouble, lasted);
        let wait = wait.max(pause);
        if is_suspicious {
            tracing::warn!(
                "{} has closed several connections soon after they were made: this happens when another \
                 machine uses the pi-id {} too, for example one that runs from a copy of this one's card; \
                 give each its own --pi-id, and enrol the copy with --token; until then the pauses between \
                 attempts grow to two minutes",
                self.endpoint.address(),
                self.pi
            );
        }
        tracing::debug!(next_attempt_in = ?wait, "the next attempt follows");
        // A pause is not a wait for an answer: the next attempt begins one.
        self.waiting = None;
        tokio::time::sleep(wait).await;
        self.missing(self.endpoint.missing(None));
    }

    async fn wait_after_refusal(&mut self, trouble: &ConnectionError) {
        if self.login.anonymous && self.endpoint.address().login.is_none() {
            self.shows_secret = !self.shows_secret;
            if self.shows_secret {
                return;
            }
        }
        let is_other_prefix = is_not_authorized(trouble) && self.is_let_in_without_will().await;
        let sentence = if is_other_prefix {
            self.endpoint.other_prefix()
        } else {
            format!(
                "{} refuses this machine's credentials: it may have been removed or reset there; enrol it anew with --token-file \
                 (`pistat join-token show` on the controller prints it), after `pistat agent reset {}` if it is still known; if this is an \
                 external broker, write the user and password that it gave this machine into the address",
                self.endpoint.address(),
                self.pi
            )
        };
        self.missing(format!("a connection: {sentence}"));
        self.troubles.log(&sentence, REFUSED_WAIT);
        if is_other_prefix || !self.rejoin().await {
            tokio::time::sleep(REFUSED_WAIT).await;
        }
    }

    /// Whether the same credentials are good for a connection that leaves no last will: then its
    /// topic is what is refused.
    async fn is_let_in_without_will(&self) -> bool {
        let filter = self.endpoint.topics().format(&Topic::ControllerKey);
        let mut link = Link::open(self.options("pistat-join"), vec![(filter, 1)]);
        loop {
            match link.events.recv().await {
                Some(LinkEvent::Ready { .. }) => break,
                Some(LinkEvent::Lost(_)) | None => return false,
                Some(LinkEvent::Message { .. } | LinkEvent::Acknowledged) => {}
            }
        }
        link.disconnect().await;
        true
    }

    fn missing(&mut self, what: String) {
        match &self.waiting {
            Some(waiting) => waiting.update(what),
            None => self.waiting = Some(Waiting::begin(what)),
        }
    }
}

/// Publishes what the agent says; returns when the agent has closed its side and everything is
/// acknowledged, or has had its time.
async fn pump(
    topics: &Topics,
    client: &AsyncClient,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    mut acknowledgements: watch::Receiver<u64>,
) {
    let mut expected = 0;
    while let Some(Outgoing { topic, payload, qos: number, retain }) = outgoing.recv().await {
        let qos = qos(number);
        expected += u64::from(qos == QoS::AtLeastOnce);
        if client.publish_bytes(topics.format(&topic), qos, retain, payload.into()).await.is_err() {
            // The connection is gone; whoever listens to it says so.
            return std::future::pending().await;
        }
    }
    let all = acknowledgements.wait_for(|count| *count >= expected);
    if tokio::time::timeout(LAST_ACKNOWLEDGEMENT, all).await.is_err() {
        tracing::warn!("the last messages were not acknowledged in time");
    }
}

/// Throws away what the agent says while there is no connection; returns when the agent has closed
/// its side.
async fn drain(outgoing: &mut mpsc::Receiver<Outgoing>) {
    while outgoing.recv().await.is_some() {}
}
