//! How a connection to a broker is made with `rumqttc`.

use std::{path::Path, time::Duration};

use rumqttc::{MqttOptions, QoS, TlsConfiguration, Transport};

use crate::{
    mqtt_url::{Login, MqttUrl},
    tls::{self, TlsError},
};

/// How often a client sends something. A broker notices its absence after one and a half of it, the
/// client that of the broker after two.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// After how long without any event a connection hangs: the client pings at every keep-alive, so
/// something happens at least that often unless a write hangs. `connecting` is the bound on a
/// connection's beginning.
pub const fn hangs_after(connecting: Duration) -> Duration {
    Duration::from_secs(2 * KEEP_ALIVE.as_secs() + connecting.as_secs())
}

/// Where a broker is, and how it is reached.
#[derive(Clone)]
pub struct Endpoint {
    /// Host name or address; for a WebSocket its whole URL.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the bytes travel.
    pub transport: Transport,
    /// The credentials of its address.
    pub login: Option<Login>,
}

impl Endpoint {
    /// The broker of an address; `ca` names the authorities to believe instead of the system's.
    /// They are read now, so that a wrong file is an error of the start.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(url: &MqttUrl, ca: Option<&Path>) -> Result<Self, TlsError> {
        let tls = url.scheme.is_tls().then(|| tls::client(ca).map(TlsConfiguration::Rustls)).transpose()?;
        let (host, transport) = match (url.scheme.is_websocket(), tls) {
            (false, None) => (url.host_in_url(), Transport::Tcp),
            (false, Some(tls)) => (url.host.clone(), Transport::Tls(tls)),
            (true, None) => (url.websocket_url(), Transport::Ws),
            (true, Some(tls)) => (url.websocket_url(), Transport::Wss(tls)),
        };
        Ok(Self { host, port: url.port, transport, login: url.login.clone() })
    }

    /// A broker on this machine, with a user of its own.
    pub fn local(host: &str, port: u16, login: Login) -> Self {
        Self { host: host.to_owned(), port, transport: Transport::Tcp, login: Some(login) }
    }

    /// Options of one MQTT 3.1.1 connection under this name, with a clean session. `login` is used
    /// where the address has none.
    pub fn options(&self, client_id: &str, login: Option<&Login>, max_packet_bytes: usize) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, &self.host, self.port);
        options.set_transport(self.transport.clone());
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(max_packet_bytes, max_packet_bytes);
        if let Some(login) = self.login.as_ref().or(login) {
            options.set_credentials(&login.user, login.password.as_deref().unwrap_or_default());
        }
        options
    }
}

/// The quality of service of a number: nothing here uses 2.
pub fn qos(number: u8) -> QoS {
    if number == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}
