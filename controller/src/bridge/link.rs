//! One connection to the broker, of either version of MQTT. It does not connect again: whoever
//! holds it makes another.

use bytes::Bytes;
use pistat_protocol::topic::ACCOUNT_PROPERTY;
use pistat_support::client::{hangs_after, qos as qos_4};
use rumqttc::v5::{
    self,
    mqttbytes::{
        Error as Error5, QoS as QoS5,
        v5::{ConnectReturnCode as Code5, Filter, Packet as Packet5, PubAckReason, PublishProperties},
    },
};
use rumqttc::{
    ConnectReturnCode as Code4, Packet as Packet4, QoS as QoS4, SubscribeFilter, mqttbytes::Error as Error4,
};

use super::{
    Look, Outgoing, ResponseTo,
    address::{BrokerAddress, CONNECT},
    version::Version,
};

/// How many messages wait for the socket.
pub(super) const OUTGOING: usize = 1024;

/// After how long without any event a connection hangs.
const HANGS: std::time::Duration = hangs_after(CONNECT);

/// A topic filter of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) filter: String,
    pub(super) qos: u8,
    /// Whether the retained flag must be seen as it was published, which only MQTT 5 can do.
    pub(super) as_published: bool,
    /// Whether what we publish ourselves stays away, which only MQTT 5 can do.
    pub(super) no_local: bool,
}

/// What happens on a connection.
pub(super) enum Happened {
    /// The broker let us in.
    Accepted,
    /// The subscriptions are answered: whether each was granted.
    Subscribed(Vec<bool>),
    /// A message came.
    Message(Message),
    /// A message of ours was acknowledged; `refused` says that the broker did not pass it on.
    Acknowledged { refused: bool },
    /// Nothing that matters.
    Nothing,
}

/// A message that came.
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) retain: bool,
    pub(super) account: Option<String>,
    pub(super) response: Option<ResponseTo>,
}

/// Why a connection ended, or was not made.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The broker does not know the version.
    Version,
    /// The broker does not know us.
    Credentials,
    /// The broker closed the connection.
    Closed,
    /// Another client has connected under the same name.
    TakenOver,
    /// Anything else, in words.
    Other(String),
}

/// One connection.
pub(super) struct Link {
    events: Events,
    client: Client,
}

enum Events {
    Five(Box<v5::EventLoop>),
    Four(Box<rumqttc::EventLoop>),
}

/// The side of a connection that says something; it can be cloned.
#[derive(Clone)]
pub(super) enum Client {
    Five(v5::AsyncClient),
    Four(rumqttc::AsyncClient),
}

impl Link {
    /// A connection that is made by [`Link::next`].
    pub(super) fn open(address: &BrokerAddress, version: Version, trial: bool) -> Self {
        match version {
            Version::Five => {
                let (client, events) = v5::AsyncClient::new(address.options_5(), OUTGOING);
                Self { events: Events::Five(Box::new(events)), client: Client::Five(client) }
            }
            Version::Four => {
                let (client, mut events) = rumqttc::AsyncClient::new(address.options_4(trial), OUTGOING);
                events.network_options.set_connection_timeout(CONNECT.as_secs());
                Self { events: Events::Four(Box::new(events)), client: Client::Four(client) }
            }
        }
    }

    /// The side that says something.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The next thing that happens. After an error this connection is over.
    pub(super) async fn next(&mut self) -> Result<Happened, Trouble> {
        let next = async {
            match &mut self.events {
                Events::Five(events) => events.poll().await.map(translate_5).map_err(|error| trouble_5(&error)),
                Events::Four(events) => events.poll().await.map(translate_4).map_err(|error| trouble_4(&error)),
            }
        };
        let hung = || Err(Trouble::Other("the connection hung".into()));
        tokio::time::timeout(HANGS, next).await.unwrap_or_else(|_| hung())
    }

    /// How many messages of ours are not acknowledged yet.
    pub(super) fn in_flight(&self) -> u16 {
        match &self.events {
            Events::Five(events) => events.state.inflight(),
            Events::Four(events) => events.state.inflight(),
        }
    }
}

impl Client {
    /// Subscribes; the answer is [`Happened::Subscribed`]. What MQTT 3.1.1 cannot do is left out.
    pub(super) fn subscribe(&self, wanted: &[Wanted]) {
        // A fresh connection has room for one request.
        let _ = match self {
            Self::Five(client) => client.try_subscribe_many(wanted.iter().map(filter_5)).is_ok(),
            Self::Four(client) => {
                let filters = wanted.iter().filter(|wanted| !wanted.as_published);
                client
                    .try_subscribe_many(
                        filters.map(|wanted| SubscribeFilter::new(wanted.filter.clone(), qos_4(wanted.qos))),
                    )
                    .is_ok()
            }
        };
    }

    /// Subscribes to what is retained under some filters, or ends that, and waits for room; `false`
    /// when the connection is over.
    pub(super) async fn look(&self, look: Look) -> bool {
        // A live message must not come with the retained flag, as it would by Retain As Published:
        // an agent that enrolls again meanwhile would be taken for what its predecessor left.
        let wanted = |filter: String| Wanted { filter, qos: 1, as_published: false, no_local: true };
        match (self, look) {
            (Self::Five(client), Look::At(filters)) => {
                client.subscribe_many(filters.into_iter().map(|filter| filter_5(&wanted(filter)))).await.is_ok()
            }
            (Self::Four(client), Look::At(filters)) => {
                let filters = filters.into_iter().map(|filter| SubscribeFilter::new(filter, QoS4::AtLeastOnce));
                client.subscribe_many(filters).await.is_ok()
            }
            (Self::Five(client), Look::Away(filters)) => {
                for filter in filters {
                    if client.unsubscribe(filter).await.is_err() {
                        return false;
                    }
                }
                true
            }
            (Self::Four(client), Look::Away(filters)) => {
                for filter in filters {
                    if client.unsubscribe(filter).await.is_err() {
                        return false;
                    }
                }
                true
            }
        }
    }

    /// Publishes, and waits for room; `false` when the connection is over.
    pub(super) async fn publish(&self, message: Outgoing) -> bool {
        let Outgoing { topic, payload, qos, retain, correlation } = message;
        match (self, correlation) {
            (Self::Five(client), None) => client.publish(topic, qos_5(qos), retain, payload).await.is_ok(),
            (Self::Five(client), correlation_data) => {
                let properties = PublishProperties { correlation_data, ..PublishProperties::default() };
                client.publish_with_properties(topic, qos_5(qos), retain, payload, properties).await.is_ok()
            }
            (Self::Four(client), _) => client.publish(topic, qos_4(qos), retain, payload).await.is_ok(),
        }
    }

    /// Publishes, retained, if there is room now.
    pub(super) fn try_retain(&self, topic: &str, text: &str) -> bool {
        match self {
            Self::Five(client) => client.try_publish(topic, QoS5::AtLeastOnce, true, text.to_owned()).is_ok(),
            Self::Four(client) => client.try_publish(topic, QoS4::AtLeastOnce, true, text).is_ok(),
        }
    }

    /// Says goodbye: the broker forgets the last will.
    pub(super) fn disconnect(&self) {
        let _ = match self {
            Self::Five(client) => client.try_disconnect().is_ok(),
            Self::Four(client) => client.try_disconnect().is_ok(),
        };
    }
}

fn filter_5(wanted: &Wanted) -> Filter {
    let mut filter = Filter::new(wanted.filter.clone(), qos_5(wanted.qos));
    filter.preserve_retain = wanted.as_published;
    filter.nolocal = wanted.no_local;
    filter
}

fn qos_5(qos: u8) -> QoS5 {
    if qos == 0 { QoS5::AtMostOnce } else { QoS5::AtLeastOnce }
}

fn translate_5(event: v5::Event) -> Happened {
    use v5::mqttbytes::v5::SubscribeReasonCode::Success;
    let v5::Event::Incoming(packet) = event else { return Happened::Nothing };
    match packet {
        Packet5::ConnAck(_) => Happened::Accepted,
        Packet5::SubAck(answer) => {
            Happened::Subscribed(answer.return_codes.iter().map(|code| matches!(code, Success(_))).collect())
        }
        Packet5::PubAck(answer) => {
            let refused = !matches!(answer.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
            Happened::Acknowledged { refused }
        }
        Packet5::Publish(publish) => String::from_utf8(publish.topic.to_vec()).map_or(Happened::Nothing, |topic| {
            let properties = publish.properties.unwrap_or_default();
            let stamp = properties.user_properties.into_iter().find(|(name, _)| name == ACCOUNT_PROPERTY);
            let correlation = properties.correlation_data;
            let response = properties.response_topic.map(|topic| ResponseTo { topic, correlation });
            let (payload, retain) = (publish.payload, publish.retain);
            Happened::Message(Message { topic, payload, retain, account: stamp.map(|(_, name)| name), response })
        }),
        _ => Happened::Nothing,
    }
}

fn translate_4(event: rumqttc::Event) -> Happened {
    let rumqttc::Event::Incoming(packet) = event else { return Happened::Nothing };
    match packet {
        Packet4::ConnAck(_) => Happened::Accepted,
        Packet4::SubAck(answer) => Happened::Subscribed(
            answer.return_codes.iter().map(|code| !matches!(code, rumqttc::SubscribeReasonCode::Failure)).collect(),
        ),
        Packet4::PubAck(_) => Happened::Acknowledged { refused: false },
        Packet4::Publish(publish) => Happened::Message(Message {
            topic: publish.topic,
            payload: publish.payload,
            retain: publish.retain,
            account: None,
            response: None,
        }),
        _ => Happened::Nothing,
    }
}

fn trouble_5(error: &v5::ConnectionError) -> Trouble {
    use v5::{ConnectionError, StateError, mqttbytes::v5::DisconnectReasonCode};
    match error {
        ConnectionError::ConnectionRefused(Code5::RefusedProtocolVersion | Code5::UnsupportedProtocolVersion) => {
            Trouble::Version
        }
        ConnectionError::ConnectionRefused(Code5::BadUserNamePassword | Code5::NotAuthorized) => Trouble::Credentials,
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => Trouble::TakenOver,
        ConnectionError::MqttState(StateError::ConnectionAborted) => Trouble::Closed,
        ConnectionError::MqttState(StateError::Deserialization(Error5::Io(error))) if is_reset(error) => {
            Trouble::Closed
        }
        other => Trouble::Other(other.to_string()),
    }
}

fn trouble_4(error: &rumqttc::ConnectionError) -> Trouble {
    use rumqttc::{ConnectionError, StateError};
    match error {
        ConnectionError::ConnectionRefused(Code4::RefusedProtocolVersion) => Trouble::Version,
        ConnectionError::ConnectionRefused(Code4::BadUserNamePassword | Code4::NotAuthorized) => Trouble::Credentials,
        ConnectionError::MqttState(StateError::ConnectionAborted) => Trouble::Closed,
        ConnectionError::MqttState(StateError::Deserialization(Error4::Io(error))) if is_reset(error) => {
            Trouble::Closed
        }
        other => Trouble::Other(other.to_string()),
    }
}

/// A connection that is closed with something unread in it is reset.
fn is_reset(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ConnectionReset
}
