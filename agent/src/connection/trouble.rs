//! What goes wrong with connections, told once and in sentences.

use std::time::Duration;

use rumqttc::{ConnectReturnCode, ConnectionError};
use tokio::time::Instant;

use super::CONNECT_SECONDS;
use crate::address::Address;

/// The same trouble is logged again only after this.
const SAME_TROUBLE: Duration = Duration::from_secs(600);

/// Whether the credentials were refused.
pub(crate) fn is_refusal(trouble: &ConnectionError) -> bool {
    use ConnectReturnCode::{BadUserNamePassword, NotAuthorized};
    matches!(trouble, ConnectionError::ConnectionRefused(BadUserNamePassword | NotAuthorized))
}

/// A connection's trouble for people.
pub(crate) fn describe(trouble: &ConnectionError) -> String {
    match trouble {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::NetworkTimeout => format!("nothing answered within {CONNECT_SECONDS} s"),
        ConnectionError::FlushTimeout => "the connection hung while sending".into(),
        ConnectionError::MqttState(rumqttc::StateError::AwaitPingResp) => {
            "the connection hung: no answer to a ping".into()
        }
        ConnectionError::MqttState(rumqttc::StateError::ConnectionAborted) => "it closed the connection".into(),
        ConnectionError::RequestsDone => "the connection hung".into(),
        other => other.to_string(),
    }
}

/// A connection that has lasted so long is one; what ends sooner, again and again, is one trouble (another machine of the same name).
const LASTS: Duration = Duration::from_secs(10);

/// Logs a trouble once, and again when it is another or has lasted.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    last: Option<(String, Instant)>,
    /// The last one was not worth a line.
    is_known: bool,
}

impl Troubles {
    /// There is a connection.
    pub(crate) fn connected(&self, address: &Address) {
        if self.is_known {
            tracing::debug!(controller = %address, "connected");
        } else {
            tracing::info!(controller = %address, "connected");
        }
    }

    /// It has lasted from then until now.
    pub(crate) fn lasted(&mut self, since: Instant) {
        if since.elapsed() >= LASTS {
            *self = Self::default();
        }
    }

    /// Something went wrong; the next attempt is after `wait`.
    pub(crate) fn log(&mut self, sentence: &str, wait: Duration) {
        self.is_known = self.last.as_ref().is_some_and(|(last, at)| last == sentence && at.elapsed() < SAME_TROUBLE);
        if self.is_known {
            tracing::debug!(next_attempt_in = ?wait, "{sentence}");
        } else {
            tracing::warn!(next_attempt_in = ?wait, "{sentence}");
            self.last = Some((sentence.to_owned(), Instant::now()));
        }
    }
}
