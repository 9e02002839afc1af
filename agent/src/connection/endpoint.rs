//! Where a broker is, how to connect to it, and what to say when that does not work.

use pistat_protocol::topic::Topics;
use rumqttc::MqttOptions;

use super::{
    KEEP_ALIVE,
    tls::{TlsError, configuration as tls_configuration},
};
use crate::address::{Address, Transport};

/// Larger than any payload of ours: the protocol's limit with room for the packet's head.
const MAX_PACKET_BYTES: usize = pistat_protocol::codec::MAX_PAYLOAD_BYTES + 4096;

/// How many messages may be on their way to the broker: what waits beyond them waits here. Room is
/// kept for each.
const INFLIGHT: u16 = 32;

/// Where and how to connect.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) address: Address,
    pub(super) topics: Topics,
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
    pub(crate) fn options(&self, client_id: &str, login: Option<(&str, &str)>) -> MqttOptions {
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
        let own = self.address.login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()));
        if let Some((user, password)) = own.or(login) {
            options.set_credentials(user, password);
        }
        options
    }
}
