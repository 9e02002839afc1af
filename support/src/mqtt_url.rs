//! Where MQTT is spoken. Pure.
//!
//! - A controller: `http(s)://host:8000/prefix`, with MQTT over WebSocket at `/mqtt` under it.
//! - A broker: `mqtt(s)://user:password@host:1883`, or its own WebSocket: `ws(s)://user:password@host/path`.

use std::fmt;

/// The path of MQTT over WebSocket on the controller's HTTP port.
const WEBSOCKET_PATH: &str = "/mqtt";

/// How the connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A controller, port 80.
    Http,
    /// A controller with TLS, port 443.
    Https,
    /// MQTT over TCP, port 1883.
    Mqtt,
    /// MQTT over TLS, port 8883.
    Mqtts,
    /// MQTT over WebSocket, port 80.
    Ws,
    /// MQTT over WebSocket with TLS, port 443.
    Wss,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "https" => Self::Https,
            "mqtt" | "tcp" => Self::Mqtt,
            "mqtts" | "ssl" => Self::Mqtts,
            "ws" => Self::Ws,
            "wss" => Self::Wss,
            _ => return None,
        })
    }

    /// The scheme as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Mqtts | Self::Wss)
    }

    /// Whether MQTT travels in a WebSocket.
    pub fn is_websocket(self) -> bool {
        !matches!(self, Self::Mqtt | Self::Mqtts)
    }

    /// The port that IANA registered for it.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::Ws => 80,
            Self::Https | Self::Wss => 443,
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
        }
    }
}

/// Credentials. The password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password, as it is sent.
    pub password: Option<String>,
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.user, if self.password.is_some() { ":***" } else { "" })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address. It prints with `***` for the password.
#[derive(Clone, PartialEq, Eq)]
pub struct MqttUrl {
    /// How.
    pub scheme: Scheme,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// Port, the scheme's own without one.
    pub port: u16,
    /// A controller's prefix (empty or `/…`), or a broker's WebSocket (`/…`); empty for plain MQTT.
    pub path: String,
    /// An external broker's credentials.
    pub login: Option<Login>,
}

/// Why a text is not an address. It never repeats the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {forms}")]
pub struct InvalidMqttUrl {
    reason: &'static str,
    forms: &'static str,
}

const CONTROLLER_FORMS: &str = "examples: http://controller:8000, mqtts://user:password@broker:8883";
const BROKER_FORMS: &str =
    "a broker is \"embedded\" or an address such as mqtt://user:password@host:1883 (also mqtts, ws, wss)";

impl MqttUrl {
    /// An address for an agent: a controller's, or that of an external broker. `ws(s)://` without
    /// credentials is a controller too.
    ///
    /// # Errors
    /// It is neither.
    pub fn controller(text: &str) -> Result<Self, InvalidMqttUrl> {
        let url = parse(text.trim()).and_then(|url| match (url.scheme, &url.login) {
            (Scheme::Http | Scheme::Https, Some(_)) => {
                Err("a user and password belong to an external broker, which is written mqtt(s):// or ws(s)://")
            }
            (Scheme::Ws, None) => Ok(Self { scheme: Scheme::Http, ..url }.with_prefix_only()),
            (Scheme::Wss, None) => Ok(Self { scheme: Scheme::Https, ..url }.with_prefix_only()),
            (Scheme::Http | Scheme::Https, None) => Ok(url.with_prefix_only()),
            _ => Ok(url.with_default_path()),
        });
        url.map_err(|reason| InvalidMqttUrl { reason, forms: CONTROLLER_FORMS })
    }

    /// An external broker's address.
    ///
    /// # Errors
    /// It is not one.
    pub fn broker(text: &str) -> Result<Self, InvalidMqttUrl> {
        let url = parse(text.trim()).and_then(|url| match url.scheme {
            Scheme::Http | Scheme::Https => Err("a broker is not reached by http"),
            _ => Ok(url.with_default_path()),
        });
        url.map_err(|reason| InvalidMqttUrl { reason, forms: BROKER_FORMS })
    }

    fn with_prefix_only(mut self) -> Self {
        self.path = self.path.trim_end_matches('/').trim_end_matches(WEBSOCKET_PATH).to_owned();
        self
    }

    fn with_default_path(mut self) -> Self {
        if self.path.trim_matches('/').is_empty() {
            self.path = if self.scheme.is_websocket() { WEBSOCKET_PATH.to_owned() } else { String::new() };
        }
        self
    }

    /// The host as it is written beside a port.
    pub fn host_in_url(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// The address of MQTT over WebSocket.
    pub fn websocket_url(&self) -> String {
        let scheme = if self.scheme.is_tls() { "wss" } else { "ws" };
        let own = if matches!(self.scheme, Scheme::Http | Scheme::Https) { WEBSOCKET_PATH } else { "" };
        format!("{scheme}://{}:{}{}{own}", self.host_in_url(), self.port, self.path)
    }
}

fn parse(text: &str) -> Result<MqttUrl, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("it does not begin with a scheme such as http:// or mqtts://")?;
    let scheme = Scheme::parse(scheme).ok_or("its scheme is not http, https, mqtt, mqtts, ws or wss")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (login, host_and_port) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(parse_login(login)?), host),
        None => (None, authority),
    };
    let (host, port) = parse_host(host_and_port, scheme.default_port())?;
    let has_path = !path.trim_matches('/').is_empty();
    if has_path && !scheme.is_websocket() || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its path cannot be used");
    }
    Ok(MqttUrl { scheme, host, port, path: path.to_owned(), login })
}

fn parse_login(text: &str) -> Result<Login, &'static str> {
    let decode = |text| percent_decode(text).ok_or("its user or password has a broken %-escape");
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(decode(password)?)),
        None => (text, None),
    };
    let login = Login { user: decode(user)?, password };
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

/// A text that may be an address, as it may be shown.
pub fn without_login(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}***@{host}")
        }
        None => text.to_owned(),
    }
}

impl fmt::Display for MqttUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        if let Some(login) = &self.login {
            write!(f, "{login}@")?;
        }
        write!(f, "{}:{}{}", self.host_in_url(), self.port, self.path)
    }
}

impl fmt::Debug for MqttUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_defaults_of_their_scheme_and_hide_the_password() {
        for (text, shown) in [
            ("http://controller-host:8000", "http://controller-host:8000"),
            ("HTTP://controller-host:8000/", "http://controller-host:8000"),
            ("https://pis.example/pistat/", "https://pis.example:443/pistat"),
            ("http://10.0.0.2:8000/mqtt", "http://10.0.0.2:8000"),
            ("wss://broker/pistat", "https://broker:443/pistat"),
            ("mqtt://10.0.0.2", "mqtt://10.0.0.2:1883"),
            ("mqtts://u:p%40ss@[fe80::1]:8884", "mqtts://u:***@[fe80::1]:8884"),
        ] {
            let url = MqttUrl::controller(text).unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for (text, shown) in [
            ("mqtt://broker", "mqtt://broker:1883"),
            ("mqtts://u:s3cret@broker.lan", "mqtts://u:***@broker.lan:8883"),
            ("ws://broker", "ws://broker:80/mqtt"),
            ("wss://u@broker:8084/ws", "wss://u@broker:8084/ws"),
            ("mqtt://[::1]:1884/", "mqtt://[::1]:1884"),
        ] {
            assert_eq!(MqttUrl::broker(text).unwrap().to_string(), shown);
        }
        let login = MqttUrl::broker("mqtt://a%40b:p%3A%2F@broker").unwrap().login.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_deref()), ("a@b", Some("p:/")));
    }

    #[test]
    fn a_controllers_websocket_is_under_its_prefix_and_a_brokers_own_is_used_as_it_stands() {
        for (text, url) in [
            ("https://pis.example/pistat", "wss://pis.example:443/pistat/mqtt"),
            ("wss://broker/pistat", "wss://broker:443/pistat/mqtt"),
            ("ws://u:p@broker", "ws://broker:80/mqtt"),
            ("wss://u:p@broker:8084/ws", "wss://broker:8084/ws"),
        ] {
            assert_eq!(MqttUrl::controller(text).unwrap().websocket_url(), url);
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_without_repeating_a_password() {
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
            "mqtt://:s3cret@a",
        ] {
            let error = format!("{}: {}", without_login(bad), MqttUrl::controller(bad).unwrap_err());
            assert!(error.contains("examples") && !error.contains("s3cret"), "{error}");
        }
        for bad in ["", "broker", "http://u:s3cret@broker", "mqtt://", "mqtt://u:s3cret@broker/x", "mqtt://b?x=s3cret"]
        {
            let error = MqttUrl::broker(bad).unwrap_err().to_string();
            assert!(error.contains("mqtt://user:password@host:1883") && !error.contains("s3cret"), "{error}");
        }
    }
}
