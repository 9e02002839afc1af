//! What goes wrong with connections, told once and in sentences.

use std::time::Duration;

use rumqttc::{ConnectReturnCode, ConnectionError};
use tokio::time::Instant;

use super::CONNECT_SECONDS;

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

/// Logs a trouble once, and again when it is another or has lasted.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    last: Option<(String, Instant)>,
}

impl Troubles {
    /// All is well.
    pub(crate) fn reset(&mut self) {
        self.last = None;
    }

    /// Something went wrong; the next attempt is after `wait`.
    pub(crate) fn log(&mut self, sentence: &str, wait: Duration) {
        let known = self.last.as_ref().is_some_and(|(last, at)| last == sentence && at.elapsed() < SAME_TROUBLE);
        if known {
            tracing::debug!(next_attempt_in = ?wait, "{sentence}");
        } else {
            tracing::warn!(next_attempt_in = ?wait, "{sentence}");
            self.last = Some((sentence.to_owned(), Instant::now()));
        }
    }
}
