//! One connection from its beginning to its end, driven by a task of its own: its client cannot be
//! polled from a `select!` without losing packets, so what happens is handed over through a
//! channel.

use std::time::Duration;

use bytes::Bytes;
use pistat_support::client::{hangs_after, qos};
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, SubscribeFilter};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::CONNECT;

/// How many messages may wait for the agent; it reads at once.
const EVENTS: usize = 64;

/// How many messages may wait for the socket besides those in flight: each may be a chunk of
/// output.
const REQUESTS: usize = 8;

/// After how long without any event a connection hangs.
const HANGS: Duration = hangs_after(CONNECT);

/// How long a connection may take until its filters are answered: the broker may be as slow to
/// answer those as to let us in.
const READY: Duration = Duration::from_secs(2 * CONNECT.as_secs());

/// How long DISCONNECT may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// What happens on a connection.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Connected, and every filter is answered.
    Ready {
        /// The filters that the broker refuses.
        refused: Vec<String>,
    },
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Bytes,
        /// Whether it was delivered with the retain flag.
        retain: bool,
    },
    /// The broker has a message of ours.
    Acknowledged,
    /// The connection is over.
    Lost(Box<ConnectionError>),
}

/// One connection.
pub(crate) struct Link {
    /// Publishes.
    pub client: AsyncClient,
    /// What happens.
    pub events: mpsc::Receiver<LinkEvent>,
    driver: AbortOnDropHandle<()>,
}

impl Link {
    /// Connects in the background and subscribes to the filters.
    pub(crate) fn open(options: MqttOptions, filters: Vec<(String, u8)>) -> Self {
        let (client, mut event_loop) = AsyncClient::new(options, REQUESTS);
        event_loop.network_options.set_tcp_nodelay(true);
        event_loop.network_options.set_connection_timeout(CONNECT.as_secs());
        let (tell, events) = mpsc::channel(EVENTS);
        let driver = Driver { client: client.clone(), filters, tell };
        let driver = AbortOnDropHandle::new(tokio::spawn(driver.run(event_loop)));
        Self { client, events, driver }
    }

    /// Says goodbye: the broker forgets the last will.
    pub(crate) async fn disconnect(self) {
        let Self { client, mut events, driver } = self;
        let goodbye = async {
            if client.disconnect().await.is_ok() {
                while events.recv().await.is_some() {}
                let _ = driver.await;
            }
        };
        if timeout(GOODBYE, goodbye).await.is_err() {
            tracing::debug!("the connection hangs: it is cut");
        }
    }
}

struct Driver {
    client: AsyncClient,
    filters: Vec<(String, u8)>,
    tell: mpsc::Sender<LinkEvent>,
}

impl Driver {
    async fn run(self, mut event_loop: EventLoop) {
        let mut ready_by = Some(Instant::now() + READY);
        loop {
            let limit = ready_by.map_or(HANGS, |by| by.saturating_duration_since(Instant::now()));
            let event = match timeout(limit, event_loop.poll()).await {
                Ok(Ok(Event::Outgoing(Outgoing::Disconnect))) => return,
                Ok(Ok(event)) => self.translate(event),
                Ok(Err(error)) => Some(LinkEvent::Lost(Box::new(error))),
                Err(_) => Some(LinkEvent::Lost(Box::new(ConnectionError::RequestsDone))),
            };
            let Some(event) = event else { continue };
            if matches!(event, LinkEvent::Ready { .. }) {
                ready_by = None;
            }
            let over = matches!(event, LinkEvent::Lost(_));
            if self.tell.send(event).await.is_err() || over {
                return;
            }
        }
    }

    fn translate(&self, event: Event) -> Option<LinkEvent> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                self.subscribe();
                None
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                Some(LinkEvent::Ready { refused: self.refused_filters(&answer.return_codes) })
            }
            Event::Incoming(Packet::Publish(message)) => {
                Some(LinkEvent::Message { topic: message.topic, payload: message.payload, retain: message.retain })
            }
            Event::Incoming(Packet::PubAck(_)) => Some(LinkEvent::Acknowledged),
            _ => None,
        }
    }

    fn subscribe(&self) {
        let filters = self.filters.iter().map(|(filter, wanted)| SubscribeFilter::new(filter.clone(), qos(*wanted)));
        if let Err(error) = self.client.try_subscribe_many(filters) {
            tracing::error!(%error, "the topics could not be subscribed to");
        }
    }

    fn refused_filters(&self, codes: &[rumqttc::SubscribeReasonCode]) -> Vec<String> {
        let answers = self.filters.iter().zip(codes);
        let refused = answers.filter(|(_, code)| matches!(code, rumqttc::SubscribeReasonCode::Failure));
        refused.map(|((filter, _), _)| filter.clone()).collect()
    }
}
