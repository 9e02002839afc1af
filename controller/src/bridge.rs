//! The controller's connection to the broker, ours or another's: the only file that speaks MQTT.
//!
//! It is an ordinary MQTT 5 client with a clean start. What was queued for an earlier connection is dropped: the hub and the agent of the controller's
//! own machine say everything again on each connection. Orders to the controller's own machine go to its agent, everything else to the hub.

use std::{sync::Once, time::Duration};

use bytes::Bytes;
use pistat_agent::Incoming as AgentIncoming;
use pistat_protocol::{
    id::PiId,
    status::Availability,
    topic::{ACCOUNT_PROPERTY, Topic, Topics},
};
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{ConnectProperties, Filter, LastWill, Packet, Publish, PublishProperties},
        },
    },
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::{BrokerUrl, Scheme};

/// How many messages wait for the hub: a burst of reports from a fleet of a thousand, at about 1 kB each.
pub(crate) const INCOMING: usize = 4096;

/// How many messages wait for the broker.
pub(crate) const OUTGOING: usize = 1024;

/// The largest packet that is sent or taken.
const MAX_PACKET_BYTES: u32 = 1024 * 1024;

/// The longest pause between attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// Where the broker is.
#[derive(Clone)]
pub(crate) struct BrokerAddress {
    pub(crate) options: MqttOptions,
    pub(crate) topics: Topics,
    /// Whether machines enrol over it: only over our own, which keeps them apart.
    pub(crate) enrolment: bool,
}

/// What the hub hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Connected and subscribed: say everything that is retained.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// A message.
    Message {
        topic: Topic,
        payload: Bytes,
        retain: bool,
        /// Who asked, by the stamp of the embedded broker.
        account: Option<String>,
        /// Where the answer goes, with MQTT 5.
        response: Option<ResponseTo>,
    },
}

/// Where a request wants its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResponseTo {
    pub(crate) topic: String,
    pub(crate) correlation: Option<Bytes>,
}

/// What the hub publishes.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) correlation: Option<Bytes>,
}

/// The connection's options.
pub(crate) fn options(
    host: &str,
    port: u16,
    user: &str,
    password: &str,
    client_id: &str,
    topics: &Topics,
) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, host, port);
    options.set_credentials(user, password);
    options.set_clean_start(true);
    options.set_keep_alive(Duration::from_secs(15));
    options.set_connection_timeout(10);
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(MAX_PACKET_BYTES);
    properties.receive_maximum = Some(u16::MAX);
    options.set_connect_properties(properties);
    options.set_last_will(LastWill::new(
        status_topic(topics),
        Availability::Offline.as_str(),
        QoS::AtLeastOnce,
        true,
        None,
    ));
    options
}

/// The connection to a broker that is not ours.
pub(crate) fn external(url: &BrokerUrl, topics: &Topics) -> BrokerAddress {
    let client_id = format!("pistat-controller-{}", topics.prefix().replace('/', "-"));
    let websocket = format!("{}://{}:{}{}", url.scheme.as_str(), url.host, url.port, url.path);
    let host = if url.scheme.is_websocket() { websocket.as_str() } else { &url.host };
    let (user, password) = (url.user.as_deref().unwrap_or(""), url.password.as_deref().unwrap_or(""));
    let mut options = options(host, url.port, user, password, &client_id, topics);
    options.set_transport(match url.scheme {
        Scheme::Mqtt => Transport::Tcp,
        Scheme::Ws => Transport::Ws,
        Scheme::Mqtts => Transport::tls_with_config(tls()),
        Scheme::Wss => Transport::wss_with_config(tls()),
    });
    BrokerAddress { options, topics: topics.clone(), enrolment: false }
}

/// TLS as the system trusts.
fn tls() -> TlsConfiguration {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConfiguration::Rustls(std::sync::Arc::new(config))
}

fn status_topic(topics: &Topics) -> String {
    topics.format(&Topic::Status(PiId::controller()))
}

/// The filters of the hub and of the own machine's agent. Retained flags of requests must be seen as they were published; everywhere else the
/// flag tells what is old from what is said now.
fn filters(topics: &Topics, enrolment: bool) -> Vec<Filter> {
    let requests = topics.format(&Topic::Request("x".parse().expect("a pi-id"))).replacen("/x/", "/+/", 1);
    let own = PiId::controller();
    let mut filters: Vec<Filter> = Vec::new();
    let all = topics.controller_filters().into_iter().chain(topics.agent_filters(&own));
    for (path, qos) in all {
        let known = filters.iter().any(|filter| filter.path == path);
        let own_status = path == topics.format(&Topic::Status(own.clone())) || path.ends_with("/controller/key");
        if known || own_status || (path.starts_with('$') && !enrolment) {
            continue;
        }
        let mut filter = Filter::new(path, if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce });
        filter.preserve_retain = filter.path == requests;
        filters.push(filter);
    }
    filters
}

/// Runs the connection until `stop` is cancelled; then says `offline`, waits for its acknowledgement, and disconnects.
pub(crate) async fn run(
    address: BrokerAddress,
    hub: mpsc::Sender<Heard>,
    agent: mpsc::Sender<AgentIncoming>,
    outgoing: mpsc::Receiver<Outgoing>,
    ready: oneshot::Sender<()>,
    stop: CancellationToken,
) {
    let BrokerAddress { options, topics, enrolment } = address;
    let (client, event_loop) = AsyncClient::new(options, OUTGOING);
    let filters = filters(&topics, enrolment);
    let mut bridge = Bridge {
        client: client.clone(),
        event_loop,
        topics,
        filters,
        hub,
        agent,
        connected: false,
        ready: Some(ready),
        backoff: MIN_BACKOFF,
    };
    let writer = write(client, outgoing, stop.clone());
    tokio::pin!(writer);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = &mut writer => break,
            () = bridge.step() => {}
        }
    }
    if bridge.connected {
        // A bounded farewell: the will says the same if it does not get through.
        let _ = tokio::time::timeout(Duration::from_secs(2), bridge.farewell()).await;
    }
}

async fn write(client: AsyncClient, mut outgoing: mpsc::Receiver<Outgoing>, stop: CancellationToken) {
    while let Some(message) = outgoing.recv().await {
        let properties = PublishProperties { correlation_data: message.correlation, ..PublishProperties::default() };
        let qos = if message.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let sent = if properties.correlation_data.is_some() {
            client.publish_with_properties(message.topic, qos, message.retain, message.payload, properties).await
        } else {
            client.publish(message.topic, qos, message.retain, message.payload).await
        };
        if sent.is_err() || stop.is_cancelled() {
            return;
        }
    }
}

struct Bridge {
    client: AsyncClient,
    event_loop: EventLoop,
    topics: Topics,
    filters: Vec<Filter>,
    hub: mpsc::Sender<Heard>,
    agent: mpsc::Sender<AgentIncoming>,
    connected: bool,
    /// Told once, at the first connection.
    ready: Option<oneshot::Sender<()>>,
    backoff: Duration,
}

impl Bridge {
    async fn step(&mut self) {
        match self.event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => self.subscribe(),
            Ok(Event::Incoming(Packet::SubAck(_))) => self.greet().await,
            Ok(Event::Incoming(Packet::Publish(publish))) => self.hear(publish).await,
            Ok(_) => {}
            Err(error) => self.lost(&error).await,
        }
    }

    fn subscribe(&mut self) {
        self.backoff = MIN_BACKOFF;
        let _ = self.client.try_subscribe_many(self.filters.clone());
    }

    async fn greet(&mut self) {
        self.connected = true;
        let status = status_topic(&self.topics);
        let _ = self.client.try_publish(status, QoS::AtLeastOnce, true, Availability::Online.as_str());
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(());
        }
        let _ = self.hub.send(Heard::Connected).await;
        let _ = self.agent.send(AgentIncoming::Connected).await;
    }

    async fn hear(&mut self, publish: Publish) {
        let Some(topic) = std::str::from_utf8(&publish.topic).ok().and_then(|text| self.topics.parse(text)) else {
            return;
        };
        let own = |pi: &PiId| pi.is_controller();
        let for_agent = match &topic {
            Topic::Execute(pi, _)
            | Topic::Cancel(pi, _)
            | Topic::Ack(pi, _)
            | Topic::Settings(pi)
            | Topic::Watch(pi) => own(pi),
            _ => false,
        };
        if for_agent {
            let message = AgentIncoming::Message { topic, payload: publish.payload, retain: publish.retain };
            let _ = self.agent.send(message).await;
            return;
        }
        let properties = publish.properties.unwrap_or_default();
        let account =
            properties.user_properties.into_iter().find(|(name, _)| name == ACCOUNT_PROPERTY).map(|(_, value)| value);
        let correlation = properties.correlation_data;
        let response = properties.response_topic.map(|topic| ResponseTo { topic, correlation });
        let _ = self
            .hub
            .send(Heard::Message { topic, payload: publish.payload, retain: publish.retain, account, response })
            .await;
    }

    async fn lost(&mut self, error: &ConnectionError) {
        static LOGGED: Once = Once::new();
        if self.connected {
            tracing::warn!(%error, "the connection to the broker is lost; connecting again");
            self.connected = false;
            let _ = self.hub.send(Heard::Disconnected).await;
            let _ = self.agent.send(AgentIncoming::Disconnected).await;
        } else {
            LOGGED.call_once(|| tracing::warn!(%error, "the broker cannot be reached; trying again until it can"));
        }
        // Whatever was on its way belongs to the connection that is gone.
        self.event_loop.clean();
        self.event_loop.pending.clear();
        tokio::time::sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
    }

    async fn farewell(&mut self) {
        let status = status_topic(&self.topics);
        if self.client.try_publish(status, QoS::AtLeastOnce, true, Availability::Offline.as_str()).is_err() {
            return;
        }
        loop {
            match self.event_loop.poll().await {
                // Everything sent before is acknowledged in order, so nothing in flight means that `offline` has arrived.
                Ok(Event::Incoming(Packet::PubAck(_))) if self.event_loop.state.inflight() == 0 => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        let _ = self.client.try_disconnect();
        while self.event_loop.poll().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_keep_their_retained_flag() {
        let filters = filters(&Topics::default(), true);
        let kept: Vec<_> =
            filters.iter().filter(|filter| filter.preserve_retain).map(|filter| filter.path.as_str()).collect();
        assert_eq!(kept, ["pistat/+/task/request"]);
        assert!(filters.iter().any(|filter| filter.path == "pistat/controller/task/+/execute"));
        assert!(filters.iter().any(|filter| filter.path == "$pistat/enroll/+/request"));
    }
}
