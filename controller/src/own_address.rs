//! By which address the controller is reached: in the links and commands that it gives to people,
//! who use them on other machines as well as on this one.
//!
//! Nothing is asked of the network for that, and nothing is believed that a request says of it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use pistat_support::mqtt_url::MqttUrl;

use crate::config::{Broker, Config};

/// What is known about it.
#[derive(Debug, Clone)]
pub struct OwnAddress {
    public_url: Option<String>,
    scheme: &'static str,
    http: SocketAddr,
    /// Where agents connect to, if that is another's broker.
    broker: Option<MqttUrl>,
}

impl OwnAddress {
    /// Of a controller with this HTTP listener.
    pub fn new(config: &Config, http: SocketAddr, https: bool) -> Self {
        let broker = match &config.mqtt.broker {
            Broker::External(url) => Some(url.clone()),
            Broker::Embedded => None,
        };
        let scheme = if https { "https" } else { "http" };
        Self { public_url: config.http.public_url.clone(), scheme, http, broker }
    }

    /// For whoever sits at this machine.
    pub fn here(&self) -> String {
        self.url(|| "localhost".into())
    }

    /// For other machines. A controller that listens on a loopback address alone can be reached
    /// there alone.
    pub fn elsewhere(&self) -> String {
        self.url(lan_address)
    }

    /// What an agent is given. On another's broker it has a user of its own, named as the machine.
    pub fn of_agent(&self, pi: &str) -> String {
        self.broker.as_ref().map_or_else(|| self.elsewhere(), |broker| of_user(broker, pi))
    }

    /// Where any client of the broker connects, without credentials: `mqtt://host:1883`. `embedded`
    /// is where ours listens.
    pub fn of_broker(&self, embedded: Option<SocketAddr>) -> Option<String> {
        match &self.broker {
            Some(broker) => Some(format!("{}://{}", broker.scheme.as_str(), place(broker, lan_address))),
            None => embedded.map(|address| format!("mqtt://{}:{}", host(address, lan_address), address.port())),
        }
    }

    /// Whether agents connect to a broker that is not this controller's.
    pub fn is_of_another_broker(&self) -> bool {
        self.broker.is_some()
    }

    fn url(&self, any: impl FnOnce() -> String) -> String {
        let own = || format!("{}://{}:{}", self.scheme, host(self.http, any), self.http.port());
        self.public_url.clone().unwrap_or_else(own)
    }
}

fn of_user(broker: &MqttUrl, user: &str) -> String {
    format!("{}://{user}:PASSWORD@{}", broker.scheme.as_str(), place(broker, lan_address))
}

/// Host, port and path of another's broker. One on this machine is reached by this machine's
/// address.
fn place(broker: &MqttUrl, here: impl FnOnce() -> String) -> String {
    let ip: Option<IpAddr> = broker.host.parse().ok();
    let host = match ip {
        Some(ip) if ip.is_loopback() => here(),
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ if broker.host.eq_ignore_ascii_case("localhost") => here(),
        _ => broker.host.clone(),
    };
    format!("{host}:{}{}", broker.port, broker.path)
}

/// What stands for an address in a URL: itself, or a name for "every address of this machine".
pub fn host(address: SocketAddr, any: impl FnOnce() -> String) -> String {
    match address.ip() {
        ip if ip.is_unspecified() => any(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    }
}

/// The address by which other machines of the network reach this one: that of the default route.
/// Nothing is sent to find it.
fn lan_address() -> String {
    let local = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        // TEST-NET-1 (RFC 5737): connecting a datagram socket only looks up the route.
        socket.connect("192.0.2.1:9").ok()?;
        socket.local_addr().ok()
    };
    local().map_or_else(|| "localhost".into(), |address| address.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_address(listen: &str, https: bool, public_url: Option<&str>, broker: Option<&str>) -> OwnAddress {
        let mut config = Config::default();
        config.http.public_url = public_url.map(str::to_owned);
        if let Some(url) = broker {
            config.mqtt.broker = Broker::External(MqttUrl::broker(url).unwrap());
        }
        OwnAddress::new(&config, listen.parse().unwrap(), https)
    }

    #[test]
    fn others_are_told_the_public_address_else_the_networks_and_a_loopback_address_only_where_there_is_no_other() {
        for (listen, https, public_url, here, elsewhere) in [
            ("0.0.0.0:8000", false, None, "http://localhost:8000", "http://lan:8000"),
            ("[::]:8443", true, None, "https://localhost:8443", "https://lan:8443"),
            ("127.0.0.1:8000", false, None, "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("[::1]:8000", false, None, "http://[::1]:8000", "http://[::1]:8000"),
            ("192.168.1.10:80", false, None, "http://192.168.1.10:80", "http://192.168.1.10:80"),
            ("127.0.0.1:8000", false, Some("https://pis.lan"), "https://pis.lan", "https://pis.lan"),
            ("0.0.0.0:8000", true, Some("https://pis.lan/a"), "https://pis.lan/a", "https://pis.lan/a"),
        ] {
            let own = own_address(listen, https, public_url, None);
            assert_eq!((own.here().as_str(), own.url(|| "lan".into()).as_str()), (here, elsewhere), "{listen}");
        }
        let any = own_address("0.0.0.0:8000", false, None, None);
        assert_eq!(any.elsewhere(), format!("http://{}:8000", lan_address()));
        assert_eq!(any.of_agent("pi-7"), any.elsewhere());
    }

    #[test]
    fn agents_of_another_broker_are_told_that_brokers_address_and_no_password() {
        for (broker, told) in [
            ("mqtts://controller:secret@broker.lan:8883", "mqtts://pi-7:PASSWORD@broker.lan:8883"),
            ("ws://broker.lan:80", "ws://pi-7:PASSWORD@broker.lan:80/mqtt"),
            ("mqtt://c:s@[fd00::1]", "mqtt://pi-7:PASSWORD@[fd00::1]:1883"),
        ] {
            let own = own_address("0.0.0.0:8000", false, None, Some(broker));
            assert_eq!(own.of_agent("pi-7"), told);
            assert!(own.is_of_another_broker() && own.here() == "http://localhost:8000");
        }
    }

    #[test]
    fn a_broker_is_named_as_other_machines_reach_it_and_without_credentials() {
        for (broker, told) in [
            ("mqtts://controller:secret@broker.lan", "broker.lan:8883"),
            ("mqtt://c:s@localhost", "lan:1883"),
            ("mqtt://c:s@127.0.0.1:1884", "lan:1884"),
            ("ws://c:s@[::1]:9001", "lan:9001/mqtt"),
            ("mqtt://[fd00::1]", "[fd00::1]:1883"),
        ] {
            assert_eq!(place(&MqttUrl::broker(broker).unwrap(), || "lan".into()), told, "{broker}");
        }
        let listens = |address: &str| Some(address.parse().unwrap());
        let embedded = own_address("0.0.0.0:8000", false, None, None);
        assert_eq!(embedded.of_broker(listens("10.0.0.7:1884")).as_deref(), Some("mqtt://10.0.0.7:1884"));
        assert_eq!(embedded.of_broker(listens("0.0.0.0:1883")), Some(format!("mqtt://{}:1883", lan_address())));
        let other = own_address("0.0.0.0:8000", false, None, Some("mqtts://c:s@broker.lan"));
        assert_eq!(other.of_broker(None).as_deref(), Some("mqtts://broker.lan:8883"));
    }
}
