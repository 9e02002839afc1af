//! Where the broker is, and how a connection to it is made.

use std::{path::Path, time::Duration};

use pistat_protocol::{
    id::PiId,
    status::Availability,
    topic::{Topic, Topics},
};
use pistat_support::{
    client::{Endpoint, KEEP_ALIVE},
    mqtt_url::{Login, MqttUrl},
    tls::TlsError,
};
use rumqttc::v5;

/// The largest packet that is sent or taken.
const MAX_PACKET_BYTES: u32 = 1024 * 1024;

/// How many of our messages may wait for their acknowledgement. rumqttc keeps 216 bytes ready for
/// each: 14 MB for the 65,535 of its own choice.
const INFLIGHT: u16 = 1000;

/// For the TCP connection, TLS, WebSocket and CONNACK together.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// Where the broker is.
#[derive(Clone)]
pub(crate) struct BrokerAddress {
    /// As people may see it.
    pub(super) shown: String,
    endpoint: Endpoint,
    client_id: String,
    pub(super) topics: Topics,
    /// Whether it is ours: machines enrol over ours only, which keeps them apart, and it speaks
    /// MQTT 5 for certain.
    pub(super) embedded: bool,
    /// Where Home Assistant tells of its birth, when it is to be heard.
    pub(super) births: Vec<String>,
}

impl BrokerAddress {
    /// Our own.
    pub(crate) fn embedded(host: &str, port: u16, secret: &str, topics: &Topics) -> Self {
        Self {
            shown: "the embedded broker".into(),
            endpoint: Endpoint::local(host, port, Login { user: "controller".into(), password: Some(secret.into()) }),
            client_id: "controller".into(),
            topics: topics.clone(),
            embedded: true,
            births: Vec::new(),
        }
    }

    /// The same, where Home Assistant's birth is heard too.
    #[must_use]
    pub(crate) fn hearing(self, births: Vec<String>) -> Self {
        Self { births, ..self }
    }

    /// Another's; `ca` names the certificate authorities to believe instead of the system's.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub(crate) fn external(url: &MqttUrl, ca: Option<&Path>, topics: &Topics) -> Result<Self, TlsError> {
        Ok(Self {
            shown: url.to_string(),
            endpoint: Endpoint::new(url, ca)?,
            client_id: format!("pistat-controller-{}", topics.prefix().replace('/', "-")),
            topics: topics.clone(),
            embedded: false,
            births: Vec::new(),
        })
    }

    /// The topic of the controller's own availability.
    pub(super) fn status_topic(&self) -> String {
        self.topics.format(&Topic::Status(PiId::controller()))
    }

    /// For a connection of MQTT 5: a clean start, so that no request that was queued for an earlier
    /// one comes late.
    pub(super) fn options_5(&self) -> v5::MqttOptions {
        let Endpoint { host, port, transport, login } = &self.endpoint;
        let mut options = v5::MqttOptions::new(&self.client_id, host, *port);
        if let Some(login) = login {
            options.set_credentials(&login.user, login.password.as_deref().unwrap_or_default());
        }
        options.set_transport(transport.clone());
        options.set_clean_start(true);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_connection_timeout(CONNECT.as_secs());
        options.set_outgoing_inflight_upper_limit(INFLIGHT);
        let mut properties = v5::mqttbytes::v5::ConnectProperties::new();
        properties.max_packet_size = Some(MAX_PACKET_BYTES);
        properties.receive_maximum = Some(u16::MAX);
        options.set_connect_properties(properties);
        let (qos, offline) = (v5::mqttbytes::QoS::AtLeastOnce, Availability::Offline.as_str());
        options.set_last_will(v5::mqttbytes::v5::LastWill::new(self.status_topic(), offline, qos, true, None));
        options
    }

    /// For a connection of MQTT 3.1.1; a trial leaves no last will.
    pub(super) fn options_4(&self, trial: bool) -> rumqttc::MqttOptions {
        let most = usize::try_from(MAX_PACKET_BYTES).unwrap_or(usize::MAX);
        let mut options = self.endpoint.options(&self.client_id, None, most);
        if !trial {
            let (qos, offline) = (rumqttc::QoS::AtLeastOnce, Availability::Offline.as_str());
            options.set_last_will(rumqttc::LastWill::new(self.status_topic(), offline, qos, true));
        }
        options
    }
}
