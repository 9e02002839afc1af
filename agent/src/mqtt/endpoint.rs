//! Where a broker is, how to connect to it, and what to say when that does not work.

use pistat_protocol::topic::Topics;
use pistat_support::{
    client,
    mqtt_url::{Login, MqttUrl},
    tls::TlsError,
};
use rumqttc::MqttOptions;

/// Larger than any payload of ours: the protocol's limit with room for the packet's head.
const MAX_PACKET_BYTES: usize = pistat_protocol::codec::MAX_PAYLOAD_BYTES + 4096;

/// How many messages may be on their way to the broker: what waits beyond them waits here. Room is
/// kept for each.
const INFLIGHT: u16 = 32;

/// Where and how to connect.
#[derive(Clone)]
pub struct Endpoint {
    address: MqttUrl,
    topics: Topics,
    broker: client::Endpoint,
}

impl Endpoint {
    /// An endpoint; certificates are read now, so that a wrong file is told at the start.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(address: MqttUrl, topics: Topics, ca: Option<&std::path::Path>) -> Result<Self, TlsError> {
        let broker = client::Endpoint::new(&address, ca)?;
        Ok(Self { address, topics, broker })
    }

    /// The topics of this controller.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Where it is.
    pub fn address(&self) -> &MqttUrl {
        &self.address
    }

    /// What a connection waits for until it is made, with what to do about it.
    pub(crate) fn missing(&self, trouble: Option<&str>) -> String {
        let trouble = trouble.unwrap_or("it has not answered yet");
        format!(
            "a connection to {}: {trouble}; check the address, that the controller or broker there runs, and the network between",
            self.address
        )
    }

    /// What a connection waits for on which no controller shows itself, with what to do about it.
    pub(crate) fn no_controller(&self) -> String {
        let (address, prefix) = (&self.address, self.topics.prefix());
        format!(
            "the controller: {address} is connected, but no controller shows its key there under the prefix `{prefix}`; check that this is \
             the controller's broker, and that `prefix` in agent.toml is the same as `prefix` under [mqtt] in the controller's pistat.toml"
        )
    }

    /// What to do about topics that are refused to credentials that are good.
    pub(crate) fn other_prefix(&self) -> String {
        let (address, prefix) = (&self.address, self.topics.prefix());
        format!(
            "{address} accepts this machine's credentials, but refuses its topics under the prefix `{prefix}`: set `prefix` in agent.toml to \
             the `prefix` under [mqtt] in the controller's pistat.toml; an external broker has to allow the topics to this machine \
             (`pistat broker-acl` writes the rules)"
        )
    }

    /// Options for one connection under this name; without user and password where there is no
    /// login.
    pub(crate) fn options(&self, client_id: &str, login: Option<&Login>) -> MqttOptions {
        let mut options = self.broker.options(client_id, login, MAX_PACKET_BYTES);
        options.set_inflight(INFLIGHT);
        options
    }
}
