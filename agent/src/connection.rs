//! The binary's own connection: MQTT 3.1.1 over TCP, TLS or WebSocket, for ever.
//!
//! Each connection is a new session with a new client, so nothing of an earlier one can be sent late: what matters is repeated by the agent.
//! A connection that hangs is noticed. It ends when the agent closes its side: then the last messages are sent, acknowledged, and only
//! then follows DISCONNECT, since that clears the last will.

mod link;
mod tls;
mod trouble;

use std::time::Duration;

use pistat_protocol::{
    id::PiId,
    status::Availability,
    topic::{Topic, Topics},
};
use rumqttc::{AsyncClient, ConnectionError, LastWill, MqttOptions, QoS};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

pub(crate) use self::link::{Link, LinkEvent};
pub use self::tls::{TlsError, configuration as tls_configuration};
pub(crate) use self::trouble::{Troubles, describe, is_refusal};
use crate::{
    Incoming, Outgoing,
    address::{Address, Transport},
    backoff::{Backoff, random_byte},
    enroll::Rejoin,
};

/// Noticed by the broker after one and a half of it, by us after two.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// For the TCP connection, TLS, WebSocket and CONNACK together: a Pi Zero's first TLS handshake takes seconds.
const CONNECT_SECONDS: u64 = 15;

/// The longest wait between two attempts.
pub(crate) const MOST_BACKOFF: Duration = Duration::from_secs(10);

/// Between two attempts with credentials that were refused: somebody has to do something first.
pub(crate) const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// How long the last messages may take to be acknowledged.
const LAST_ACKNOWLEDGEMENT: Duration = Duration::from_secs(3);

/// Larger than any payload of ours: the protocol's limit with room for the packet's head.
const MAX_PACKET_BYTES: usize = pistat_protocol::codec::MAX_PAYLOAD_BYTES + 4096;

/// How many messages may be on their way to the broker: what waits beyond them waits here. Room is kept for each.
const INFLIGHT: u16 = 32;

/// Where and how to connect.
#[derive(Clone)]
pub struct Endpoint {
    address: Address,
    topics: Topics,
    tls: Option<rumqttc::TlsConfiguration>,
}

impl Endpoint {
    /// An endpoint; certificates are read now, so that a wrong file is told at the start.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(address: Address, topics: Topics, ca: Option<&std::path::Path>) -> Result<Self, TlsError> {
        let tls = address.tls.then(|| tls_configuration(ca)).transpose()?;
        Ok(Self { address, topics, tls })
    }

    /// The topics of this controller.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Options for one connection under this name.
    pub(crate) fn options(&self, client_id: &str, user: &str, password: &str) -> MqttOptions {
        let (host, transport) = match (self.address.transport, self.tls.clone()) {
            (Transport::Tcp, None) => (self.address.host_in_url(), rumqttc::Transport::Tcp),
            (Transport::Tcp, Some(tls)) => (self.address.host.clone(), rumqttc::Transport::Tls(tls)),
            (Transport::WebSocket, None) => (self.address.websocket_url(), rumqttc::Transport::Ws),
            (Transport::WebSocket, Some(tls)) => (self.address.websocket_url(), rumqttc::Transport::Wss(tls)),
        };
        let mut options = MqttOptions::new(client_id, host, self.address.port);
        options.set_transport(transport);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        options.set_inflight(INFLIGHT);
        match &self.address.login {
            Some(login) => options.set_credentials(&login.user, &login.password),
            None => options.set_credentials(user, password),
        };
        options
    }
}

/// Keeps a connection for an agent until the agent closes its side.
pub async fn keep(
    endpoint: Endpoint,
    pi: PiId,
    secret: String,
    rejoin: Option<Rejoin>,
    incoming: mpsc::Sender<Incoming>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) {
    let mut keeper = Keeper {
        endpoint,
        pi,
        secret,
        rejoin,
        incoming,
        backoff: Backoff::new(MOST_BACKOFF),
        troubles: Troubles::default(),
    };
    while keeper.connect(&mut outgoing).await {}
}

struct Keeper {
    endpoint: Endpoint,
    pi: PiId,
    secret: String,
    rejoin: Option<Rejoin>,
    incoming: mpsc::Sender<Incoming>,
    backoff: Backoff,
    troubles: Troubles,
}

impl Keeper {
    /// One connection and the wait after it; `false` when the agent has closed its side.
    async fn connect(&mut self, outgoing: &mut mpsc::Receiver<Outgoing>) -> bool {
        let mut options = self.endpoint.options(&format!("pistat-agent-{}", self.pi), self.pi.as_str(), &self.secret);
        let status = self.endpoint.topics.format(&Topic::Status(self.pi.clone()));
        options.set_last_will(LastWill::new(status, Availability::Offline.as_str(), QoS::AtLeastOnce, true));
        let filters = self.endpoint.topics.agent_filters(&self.pi);
        let mut link = Link::open(options, filters.into());
        let trouble = tokio::select! {
            biased;
            trouble = self.wait_until_ready(&mut link) => trouble,
            () = drain(outgoing) => return false,
        };
        let trouble = match trouble {
            Some(trouble) => trouble,
            None => match self.serve(link, outgoing).await {
                Some(trouble) => trouble,
                None => return false,
            },
        };
        let wait = self.wait_after(&trouble);
        let next_attempt = async {
            let rejoined = is_refusal(&trouble) && self.rejoin().await;
            if !rejoined {
                tokio::time::sleep(wait).await;
            }
        };
        tokio::select! {
            biased;
            () = drain(outgoing) => false,
            () = next_attempt => true,
        }
    }

    async fn wait_until_ready(&mut self, link: &mut Link) -> Option<ConnectionError> {
        loop {
            match link.events.recv().await {
                Some(LinkEvent::Ready) => return None,
                Some(LinkEvent::Lost(trouble)) => return Some(*trouble),
                // Retained messages may come before the last filter is confirmed.
                Some(LinkEvent::Message { topic, payload, retain }) => self.hear(&topic, payload, retain).await,
                Some(LinkEvent::Acknowledged) => {}
                None => return Some(ConnectionError::RequestsDone),
            }
        }
    }

    /// Passes messages both ways; `None` when the agent has closed its side.
    async fn serve(&mut self, mut link: Link, outgoing: &mut mpsc::Receiver<Outgoing>) -> Option<ConnectionError> {
        self.troubles.connected(&self.endpoint.address);
        self.backoff.reset();
        let since = Instant::now();
        // What was meant for the last connection is not for this one.
        while outgoing.try_recv().is_ok() {}
        let _ = self.incoming.send(Incoming::Connected).await;
        let (acknowledged, acknowledgements) = watch::channel(0_u64);
        let client = link.client.clone();
        let topics = self.endpoint.topics.clone();
        let trouble = tokio::select! {
            trouble = self.listen(&mut link, &acknowledged) => Some(trouble),
            () = pump(&topics, &client, outgoing, acknowledgements) => None,
        };
        if trouble.is_some() {
            self.troubles.lasted(since);
            let _ = self.incoming.send(Incoming::Disconnected).await;
        } else {
            link.disconnect().await;
        }
        trouble
    }

    async fn listen(&self, link: &mut Link, acknowledged: &watch::Sender<u64>) -> ConnectionError {
        loop {
            match link.events.recv().await {
                Some(LinkEvent::Message { topic, payload, retain }) => self.hear(&topic, payload, retain).await,
                Some(LinkEvent::Acknowledged) => acknowledged.send_modify(|count| *count += 1),
                Some(LinkEvent::Lost(trouble)) => return *trouble,
                Some(LinkEvent::Ready) => {}
                None => return ConnectionError::RequestsDone,
            }
        }
    }

    async fn hear(&self, topic: &str, payload: bytes::Bytes, retain: bool) {
        if let Some(topic) = self.endpoint.topics.parse(topic) {
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

    fn wait_after(&mut self, trouble: &ConnectionError) -> Duration {
        let refused = is_refusal(trouble);
        let wait = if refused { REFUSED_WAIT } else { self.backoff.next(random_byte()) };
        let sentence = if refused {
            format!(
                "{} refuses this machine's credentials: it may have been removed or reset there; enrol it anew with --token \
                 (`pistat join-token show` on the controller prints it), after `pistat agent reset {}` if it is still known",
                self.endpoint.address, self.pi
            )
        } else {
            format!("no connection to {}: {}", self.endpoint.address, describe(trouble))
        };
        self.troubles.log(&sentence, wait);
        wait
    }
}

/// Publishes what the agent says; returns when the agent has closed its side and everything is acknowledged, or has had its time.
async fn pump(
    topics: &Topics,
    client: &AsyncClient,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    mut acknowledgements: watch::Receiver<u64>,
) {
    let mut expected = 0;
    while let Some(Outgoing { topic, payload, qos, retain }) = outgoing.recv().await {
        let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
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

/// Throws away what the agent says while there is no connection; returns when the agent has closed its side.
async fn drain(outgoing: &mut mpsc::Receiver<Outgoing>) {
    while outgoing.recv().await.is_some() {}
}
