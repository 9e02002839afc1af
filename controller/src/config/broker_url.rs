//! The address of a broker that is not ours.

use std::{fmt, str::FromStr};

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

impl FromStr for BrokerUrl {
    type Err = String;

    fn from_str(_text: &str) -> Result<Self, String> {
        todo!()
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = f;
        todo!()
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
