//! The address of a broker that is not ours.

use std::{fmt, str::FromStr};

use url::{Host, Url};

/// How the connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
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
    /// The scheme as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    /// Whether MQTT travels in a WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// The port that IANA registered for it.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// `mqtt(s)://user:password@host:port` or `ws(s)://…/path`. It prints with `***` for the password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// How.
    pub scheme: Scheme,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// Port, the scheme's own without one.
    pub port: u16,
    /// The WebSocket's path, `/mqtt` without one; empty for plain MQTT.
    pub path: String,
    /// User name.
    pub user: Option<String>,
    /// Password, as it is sent.
    pub password: Option<String>,
}

const FORM: &str =
    "a broker is \"embedded\" or an address such as mqtt://user:password@host:1883 (also mqtts, ws, wss)";

impl FromStr for BrokerUrl {
    type Err = String;

    /// The sentences never repeat the text: it may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("this is no broker's address ({error}); {FORM}"))?;
        let scheme = scheme_of(&url)?;
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) if !host.to_string().is_empty() => host.to_string(),
            _ => return Err(format!("the address names no host; {FORM}")),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("an address has no ? and no # (write %3F and %23 in a password); {FORM}"));
        }
        Ok(Self {
            scheme,
            host,
            port: url.port().unwrap_or(scheme.default_port()),
            path: path_of(&url, scheme)?,
            user: decoded(url.username())?.filter(|user| !user.is_empty()),
            password: url.password().map(decoded).transpose()?.flatten(),
        })
    }
}

fn scheme_of(url: &Url) -> Result<Scheme, String> {
    [Scheme::Mqtt, Scheme::Mqtts, Scheme::Ws, Scheme::Wss]
        .into_iter()
        .find(|scheme| scheme.as_str() == url.scheme())
        .ok_or_else(|| format!("a broker is not reached by {}; {FORM}", url.scheme()))
}

fn path_of(url: &Url, scheme: Scheme) -> Result<String, String> {
    let bare = matches!(url.path(), "" | "/");
    match (scheme.is_websocket(), bare) {
        (true, true) => Ok("/mqtt".into()),
        (true, false) => Ok(url.path().into()),
        (false, true) => Ok(String::new()),
        (false, false) => Err(format!("{} has no path; {FORM}", scheme.as_str())),
    }
}

fn decoded(text: &str) -> Result<Option<String>, String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(|text| Some(text.into_owned())).map_err(|_| "user name or password is not UTF-8".to_owned())
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        if let Some(user) = &self.user {
            let secret = if self.password.is_some() { ":***" } else { "" };
            write!(f, "{user}{secret}@")?;
        }
        let brackets = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}{}{}:{}{}", brackets.0, self.host, brackets.1, self.port, self.path)
    }
}

impl fmt::Debug for BrokerUrl {
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
            ("mqtt://broker", "mqtt://broker:1883"),
            ("mqtts://u:s3cret@broker.lan", "mqtts://u:***@broker.lan:8883"),
            ("ws://broker", "ws://broker:80/mqtt"),
            ("wss://u@broker:8084/ws", "wss://u@broker:8084/ws"),
            ("mqtt://[::1]:1884/", "mqtt://[::1]:1884"),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
        let url: BrokerUrl = "mqtt://a%40b:p%3A%2F@broker".parse().unwrap();
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("a@b"), Some("p:/")));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_a_password() {
        for bad in ["", "broker", "http://u:s3cret@broker", "mqtt://", "mqtt://u:s3cret@broker/x", "mqtt://b?x=s3cret"]
        {
            let error = bad.parse::<BrokerUrl>().unwrap_err();
            assert!(error.contains("mqtt://user:password@host:1883") && !error.contains("s3cret"), "{error}");
        }
    }
}
