//! Where the controller is: `http(s)://host:8000` (MQTT over WebSocket on its HTTP port) or `mqtt(s)://[user:password@]host:1883`; for a broker
//! that speaks WebSocket, `ws(s)://user:password@host/path`. Pure.

use std::{fmt, str::FromStr};

/// The path of MQTT over WebSocket on the controller's HTTP port.
const WEBSOCKET_PATH: &str = "/mqtt";

/// How the bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// MQTT in a WebSocket.
    WebSocket,
    /// MQTT itself.
    Tcp,
}

/// A broker's own credentials: the address names an external broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.user)
    }
}

/// The controller's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// How the bytes travel.
    pub transport: Transport,
    /// Whether over TLS.
    pub tls: bool,
    /// Host name or IP address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The path of the WebSocket without [`WEBSOCKET_PATH`] at its end: a reverse proxy's prefix; empty or `/…`.
    base: String,
    /// The path of a broker's own WebSocket, which is used as it stands.
    broker_path: Option<String>,
    /// An external broker's credentials.
    pub login: Option<Login>,
}

/// Why a text is not the controller's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a controller's address: {1}; examples: http://controller:8000, mqtts://user:password@broker:8883"
)]
pub struct InvalidAddress(String, &'static str);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        parse(text.trim()).map_err(|reason| InvalidAddress(without_password(text), reason))
    }
}

fn parse(text: &str) -> Result<Address, &'static str> {
    let (scheme, rest) =
        text.split_once("://").ok_or("it does not begin with http://, https://, mqtt:// or mqtts://")?;
    let (transport, tls, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => (Transport::WebSocket, false, 80),
        "https" | "wss" => (Transport::WebSocket, true, 443),
        "mqtt" | "tcp" => (Transport::Tcp, false, 1883),
        "mqtts" | "ssl" => (Transport::Tcp, true, 8883),
        _ => return Err("its scheme is not http, https, mqtt or mqtts"),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (login, host_and_port) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(parse_login(login)?), host),
        None => (None, authority),
    };
    let is_brokers_websocket = login.is_some() && matches!(scheme.to_ascii_lowercase().as_str(), "ws" | "wss");
    if login.is_some() && transport == Transport::WebSocket && !is_brokers_websocket {
        return Err("a user and password belong to an external broker, which is written mqtt(s):// or ws(s)://");
    }
    let (host, port) = parse_host(host_and_port, default_port)?;
    let base = path.trim_end_matches('/').trim_end_matches(WEBSOCKET_PATH);
    if transport == Transport::Tcp && !base.is_empty() || !base.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its path cannot be used");
    }
    let whole = if path.trim_matches('/').is_empty() { WEBSOCKET_PATH } else { path };
    let broker_path = is_brokers_websocket.then(|| whole.to_owned());
    Ok(Address { transport, tls, host, port, base: base.to_owned(), broker_path, login })
}

fn parse_login(text: &str) -> Result<Login, &'static str> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |text| percent_decode(text).ok_or("its user or password has a broken %-escape");
    let login = Login { user: decode(user)?, password: decode(password)? };
    if login.user.is_empty() { Err("its user name is empty") } else { Ok(login) }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(others.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &others[2..];
        } else {
            bytes.push(first);
            rest = others;
        }
    }
    String::from_utf8(bytes).ok()
}

fn parse_host(text: &str, default_port: u16) -> Result<(String, u16), &'static str> {
    let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or("after ] comes :port or nothing")?)),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'%');
    if host.is_empty() || !host.bytes().all(valid) {
        return Err("its host is missing or malformed");
    }
    let port = match port {
        None => default_port,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("its port is not a number from 1 to 65535")?,
    };
    Ok((host.to_owned(), port))
}

fn without_password(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => text.to_owned(),
    }
}

impl Address {
    /// The host as it is written beside a port.
    pub fn host_in_url(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// The address of MQTT over WebSocket.
    pub fn websocket_url(&self) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        let path = self.broker_path.clone().unwrap_or_else(|| format!("{}{WEBSOCKET_PATH}", self.base));
        format!("{scheme}://{}:{}{path}", self.host_in_url(), self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.broker_path.is_some() {
            let url = self.websocket_url();
            let (scheme, rest) = url.split_once("://").unwrap_or_default();
            return write!(f, "{scheme}://***@{rest}");
        }
        let scheme = match (self.transport, self.tls) {
            (Transport::WebSocket, false) => "http",
            (Transport::WebSocket, true) => "https",
            (Transport::Tcp, false) => "mqtt",
            (Transport::Tcp, true) => "mqtts",
        };
        let login = if self.login.is_some() { "***@" } else { "" };
        write!(f, "{scheme}://{login}{}:{}{}", self.host_in_url(), self.port, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let cases = [
            ("http://controller-host:8000", "http://controller-host:8000", None),
            ("HTTP://controller-host:8000/", "http://controller-host:8000", None),
            ("https://pis.example/pistat/", "https://pis.example:443/pistat", None),
            ("http://10.0.0.2:8000/mqtt", "http://10.0.0.2:8000", None),
            ("mqtt://10.0.0.2", "mqtt://10.0.0.2:1883", None),
            ("mqtts://u:p%40ss@[fe80::1]:8884", "mqtts://***@[fe80::1]:8884", Some(("u", "p@ss"))),
        ];
        for (text, shown, login) in cases {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            let found = address.login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()));
            assert_eq!(found, login, "{text}");
        }
        for (text, url) in [
            ("ws://u:p@broker", "ws://broker:80/mqtt"),
            ("wss://u:p@broker:8084/ws", "wss://broker:8084/ws"),
            ("wss://broker/pistat", "wss://broker:443/pistat/mqtt"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.websocket_url(), url);
            assert!(!address.to_string().contains("u:p"), "{address}");
        }
        let behind_proxy: Address = "https://pis.example/pistat".parse().unwrap();
        assert_eq!(behind_proxy.websocket_url(), "wss://pis.example:443/pistat/mqtt");
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_sentence_and_without_its_password() {
        for bad in [
            "controller:8000",
            "ftp://x",
            "http://",
            "http://:8000",
            "http://a:0",
            "http://a:70000",
            "http://u:p@a",
            "mqtt://a/path",
            "mqtt://a b",
            "mqtt://%zz:p@a",
            "mqtt://[::1]1883",
            "mqtt://:secret@a",
        ] {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(!error.contains("secret") && error.contains("examples"), "{error}");
        }
        let shown = format!("{:?}", "mqtt://u:secret@a".parse::<Address>().unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
