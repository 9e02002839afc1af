//! An MQTT 5 client that shows everything: topic, payload, flags, properties, and how the broker
//! acknowledged.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::Bytes;
use rumqttc::v5::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Filter, LastWill, PubAckReason, Publish, PublishProperties, SubscribeReasonCode},
    },
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::wait::DEADLINE;

/// How many messages may wait for the test; a test that lets more wait stalls its own connection,
/// not the broker.
const HEARD: usize = 10_000;

/// How many requests may wait for the connection.
const SAID: usize = 1_000;

/// What came from the broker.
#[derive(Debug, Clone)]
pub enum Heard {
    /// A message.
    Message(Box<Publish>),
    /// The answer to a subscription, one code for each filter.
    Subscribed(Vec<SubscribeReasonCode>),
    /// The acknowledgement of a message of `QoS` 1.
    Acknowledged(PubAckReason),
    /// The connection ended.
    Ended(String),
}

/// A connected client. It does not reconnect.
pub struct Mqtt {
    client: AsyncClient,
    heard: mpsc::Receiver<Heard>,
    /// What came while a call waited for something else.
    aside: VecDeque<Heard>,
    loop_task: JoinHandle<()>,
}

impl Mqtt {
    /// Connects with a clean start.
    ///
    /// # Errors
    /// What the broker said.
    pub async fn connect(address: SocketAddr, user: &str, password: &str) -> Result<Self, String> {
        Self::connect_with(address, user, password, |_| {}).await
    }

    /// Connects as `adjust` wants it.
    ///
    /// # Errors
    /// What the broker said.
    pub async fn connect_with(
        address: SocketAddr,
        user: &str,
        password: &str,
        adjust: impl FnOnce(&mut MqttOptions),
    ) -> Result<Self, String> {
        let mut bits = [0; 8];
        getrandom::fill(&mut bits).map_err(|error| error.to_string())?;
        let name = format!("test-{:016x}", u64::from_le_bytes(bits));
        let mut options = MqttOptions::new(name, address.ip().to_string(), address.port());
        options.set_credentials(user, password).set_keep_alive(Duration::from_secs(30)).set_clean_start(true);
        options.set_max_packet_size(Some(1024 * 1024));
        adjust(&mut options);
        let (client, events) = AsyncClient::new(options, SAID);
        Self::begin(client, events).await
    }

    async fn begin(client: AsyncClient, mut events: EventLoop) -> Result<Self, String> {
        let connecting = async {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => return Ok(()),
                    Ok(_) => {}
                    Err(error) => return Err(describe(&error)),
                }
            }
        };
        tokio::time::timeout(DEADLINE, connecting).await.map_err(|_| "no answer".to_owned())??;
        let (hear, heard) = mpsc::channel(HEARD);
        let loop_task = tokio::spawn(listen(events, hear));
        Ok(Self { client, heard, aside: VecDeque::new(), loop_task })
    }

    /// The next thing that the broker says; `None` when nothing comes within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<Heard> {
        match self.aside.pop_front() {
            Some(heard) => Some(heard),
            None => self.hear(limit).await,
        }
    }

    async fn hear(&mut self, limit: Duration) -> Option<Heard> {
        tokio::time::timeout(limit, self.heard.recv()).await.ok().flatten()
    }

    /// Waits for the broker's answer to what was just said; what else comes is kept for later.
    async fn answer<T>(&mut self, what: &str, find: impl Fn(&Heard) -> Option<T>) -> T {
        loop {
            let heard = self.hear(DEADLINE).await.unwrap_or_else(|| panic!("the broker did not answer {what}"));
            if let Some(found) = find(&heard) {
                return found;
            }
            let ended = matches!(heard, Heard::Ended(_));
            assert!(!ended, "the broker ended the connection over {what}: {heard:?}");
            self.aside.push_back(heard);
        }
    }

    /// Subscribes, and gives the broker's codes.
    ///
    /// # Panics
    /// The broker does not answer.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Vec<SubscribeReasonCode> {
        let wanted = filters.iter().map(|filter| Filter::new(*filter, QoS::AtLeastOnce));
        self.client.subscribe_many(wanted).await.expect("the client runs");
        self.answer(&format!("the subscription {filters:?}"), |heard| match heard {
            Heard::Subscribed(codes) => Some(codes.clone()),
            _ => None,
        })
        .await
    }

    /// Subscribes where every filter must be granted.
    ///
    /// # Panics
    /// One is refused.
    pub async fn granted(&mut self, filters: &[&str]) {
        let codes = self.subscribe(filters).await;
        let granted = codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
        assert!(granted, "{filters:?} was to be granted: {codes:?}");
    }

    /// Publishes with `QoS` 1, and gives the broker's code.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Bytes>, retain: bool) -> PubAckReason {
        self.publish_with(topic, payload, retain, PublishProperties::default()).await
    }

    /// Publishes with `QoS` 1 and properties, and gives the broker's code.
    ///
    /// # Panics
    /// The broker does not acknowledge.
    pub async fn publish_with(
        &mut self,
        topic: &str,
        payload: impl Into<Bytes>,
        retain: bool,
        properties: PublishProperties,
    ) -> PubAckReason {
        let published = self.client.publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties);
        published.await.expect("the client runs");
        self.answer(&format!("the message to {topic}"), |heard| match heard {
            Heard::Acknowledged(code) => Some(*code),
            _ => None,
        })
        .await
    }

    /// Publishes without waiting for anything.
    ///
    /// # Panics
    /// The connection has ended.
    pub async fn say(&self, topic: &str, payload: impl Into<Bytes>, retain: bool) {
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).await.expect("the client runs");
    }

    /// Reads until a message for which `find` gives something.
    ///
    /// # Panics
    /// It does not come, or the connection ends.
    pub async fn message<T>(&mut self, what: &str, mut find: impl FnMut(&str, &Publish) -> Option<T>) -> T {
        let reading = async {
            loop {
                match self.next(DEADLINE).await {
                    Some(Heard::Message(publish)) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        if let Some(found) = find(&topic, &publish) {
                            return found;
                        }
                    }
                    Some(Heard::Ended(reason)) => panic!("the connection ended before {what}: {reason}"),
                    Some(_) => {}
                    None => panic!("nothing came before {what}"),
                }
            }
        };
        let found = tokio::time::timeout(DEADLINE, reading).await;
        found.unwrap_or_else(|_| panic!("{what} did not come within {DEADLINE:?}"))
    }

    /// Waits until the broker ends the connection, and gives what it said.
    ///
    /// # Panics
    /// It does not.
    pub async fn ended(&mut self) -> String {
        loop {
            match self.next(DEADLINE).await {
                Some(Heard::Ended(reason)) => return reason,
                Some(_) => {}
                None => panic!("the broker did not end the connection within {DEADLINE:?}"),
            }
        }
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.loop_task.abort();
    }
}

async fn listen(mut events: EventLoop, hear: mpsc::Sender<Heard>) {
    loop {
        let heard = match events.poll().await {
            Ok(Event::Incoming(Incoming::Publish(publish))) => Heard::Message(Box::new(publish)),
            Ok(Event::Incoming(Incoming::SubAck(ack))) => Heard::Subscribed(ack.return_codes),
            Ok(Event::Incoming(Incoming::PubAck(ack))) => Heard::Acknowledged(ack.reason),
            Ok(Event::Incoming(Incoming::Disconnect(goodbye))) => Heard::Ended(format!("{:?}", goodbye.reason_code)),
            Ok(_) => continue,
            Err(error) => Heard::Ended(describe(&error)),
        };
        let ended = matches!(heard, Heard::Ended(_));
        if hear.send(heard).await.is_err() || ended {
            return;
        }
    }
}

fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!("{code:?}"),
        other => other.to_string(),
    }
}

/// A will, for tests of who may leave one.
pub fn will(topic: &str, payload: &str) -> LastWill {
    LastWill::new(topic, payload.to_owned(), QoS::AtLeastOnce, true, None)
}
