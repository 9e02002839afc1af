//! One MQTT connection: where it leads, how it runs, and how its errors are reported.

mod endpoint;
mod link;
mod trouble;

use std::time::Duration;

pub use self::endpoint::Endpoint;
pub(crate) use self::{
    link::{Link, LinkEvent},
    trouble::{ShortLived, Troubles, describe, is_not_authorized, is_refusal},
};

/// For the TCP connection, TLS, WebSocket and CONNACK together: a Pi Zero's first TLS handshake
/// takes seconds.
const CONNECT: Duration = Duration::from_secs(15);

/// The longest wait between two attempts.
pub(crate) const MOST_BACKOFF: Duration = Duration::from_secs(10);

/// The wait between two attempts with credentials that were refused: an operator has to act first.
pub(crate) const REFUSED_WAIT: Duration = Duration::from_secs(30);
