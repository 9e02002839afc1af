//! The end of a connection: why, what the client is sent, and what becomes of its will and its
//! session.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Session;
use crate::contract::{Parked, WillFate};
use crate::events::BrokerEvent;
use crate::message::resealed;
use crate::outbox::End;
use crate::packet::{Fault, reason, write};
use crate::store::StoredWill;

/// How long a client may take to read DISCONNECT when the broker ends its connection.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a client that disconnected by itself may take to read what was sent before.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Close {
    /// The client disconnected, with this reason code.
    Client(u8),
    /// The network connection broke or was closed without a DISCONNECT.
    Network(String),
    /// Nothing was received for one and a half keep alive intervals.
    KeepAlive,
    /// The client broke the protocol.
    Fault(Fault),
    /// The hub has ended it.
    Hub(End),
    /// The broker is stopping.
    Stopping,
}

impl From<Fault> for Close {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Sends DISCONNECT, publishes the will where it is due, and reports to the hub. A client that
    /// has disconnected by itself may read what was sent before slowly, so its session does not
    /// wait for that.
    pub(super) async fn finish(&mut self, close: Close) {
        let leaves_by_itself = matches!(close, Close::Client(_));
        if !leaves_by_itself {
            self.send_disconnect(&close).await;
        }
        // Whatever ended the connection: a revoked account publishes nothing more, and no will
        // either.
        let close = if self.outbox.is_revoked() { Close::Hub(End::Revoked) } else { close };
        let session_expiry = self.expiry_after(&close);
        let fate = self.will_fate(&close, session_expiry);
        let will = self.will.take();
        if fate == WillFate::Done
            && let Some(will) = will
            && !close.discards_will()
        {
            self.publish_will(&will).await;
        }
        self.report_end(&close);
        let parked = Parked {
            in_flight: self.outbound.take_in_flight(),
            last_id: self.outbound.last_id(),
            receiving: std::mem::take(&mut self.inbound.receiving),
        };
        self.report.finish(session_expiry, fate, parked);
        if leaves_by_itself {
            let stop = self.front.stop.clone();
            tokio::select! {
                _ = tokio::time::timeout(DRAIN_TIMEOUT, self.transport.part()) => {}
                () = stop.cancelled() => {}
            }
        } else {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.transport.drain()).await;
        }
    }

    async fn send_disconnect(&mut self, close: &Close) {
        if self.v5
            && let Some((code, words)) = close.disconnect_reason()
        {
            let words = if self.outbound.takes(words) { words } else { "" };
            write::disconnect(&mut self.transport.output, code, words);
        }
        let is_reachable = !matches!(close, Close::Network(_));
        let last = async {
            if is_reachable {
                self.transport.flush().await?;
            }
            self.transport.close().await
        };
        // A client that does not read DISCONNECT in time does not get it.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, last).await;
    }

    fn expiry_after(&self, close: &Close) -> u32 {
        match close {
            Close::Hub(End::Revoked | End::TooSlow) => 0,
            _ => self.expiry,
        }
    }

    fn will_fate(&self, close: &Close, session_expiry: u32) -> WillFate {
        let Some(will) = &self.will else { return WillFate::Done };
        match close {
            Close::Stopping | Close::Hub(End::ShuttingDown) => WillFate::Kept,
            Close::Hub(End::TakenOver { clean_start: true }) => WillFate::Done,
            _ if close.discards_will() => WillFate::Done,
            _ if will.delay_seconds > 0 && session_expiry > 0 => WillFate::Delayed(will.delay_seconds),
            _ => WillFate::Done,
        }
    }

    async fn publish_will(&mut self, will: &StoredWill) {
        let expires_in_ms = will.expiry_seconds.map(|seconds| u64::from(seconds) * 1000);
        let frame = resealed(&will.frame, expires_in_ms, self.front.clock.now_ms());
        // An error means that the broker is stopping: the will is still on disk.
        let _ = self.front.spine.publish(&mut frame.into_iter().collect()).await;
    }

    fn report_end(&self, close: &Close) {
        if matches!(close, Close::Fault(_)) {
            self.front.counters.protocol_errors.add(1);
        }
        self.front.events.send(BrokerEvent::Disconnected {
            account: self.client.account.to_string(),
            client_id: self.client.client_id.to_string(),
            reason: close.to_string(),
        });
    }
}

impl Close {
    pub(super) fn gone() -> Self {
        Self::Network("the client closed the connection".to_owned())
    }

    /// A normal disconnection discards the will (section 3.1.2.5: only reason 0x00 does), and so
    /// does a revoked account.
    fn discards_will(&self) -> bool {
        matches!(self, Self::Client(reason::SUCCESS) | Self::Hub(End::Revoked))
    }

    /// The code and reason string of a DISCONNECT from the broker's side.
    fn disconnect_reason(&self) -> Option<(u8, &'static str)> {
        Some(match self {
            Self::Client(_) | Self::Network(_) => return None,
            Self::KeepAlive => (reason::KEEP_ALIVE_TIMEOUT, ""),
            Self::Fault(fault) => (fault.reason, fault.what),
            Self::Hub(End::TakenOver { .. }) => (reason::SESSION_TAKEN_OVER, ""),
            Self::Hub(End::Revoked) => (reason::NOT_AUTHORIZED, "the account was removed or changed"),
            Self::Hub(End::TooSlow) => (reason::QUOTA_EXCEEDED, "messages are not taken as fast as they come"),
            Self::Hub(End::ShuttingDown) | Self::Stopping => (reason::SERVER_SHUTTING_DOWN, ""),
        })
    }
}

impl std::fmt::Display for Close {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(reason::SUCCESS) => f.write_str("the client disconnected"),
            Self::Client(code) => write!(f, "the client disconnected with reason 0x{code:02X}"),
            Self::Network(words) => f.write_str(words),
            Self::KeepAlive => f.write_str("nothing was received for one and a half keep alive intervals"),
            Self::Fault(fault) => write!(f, "it broke the protocol: {fault}"),
            Self::Hub(End::TakenOver { .. }) => f.write_str("the same client connected again"),
            Self::Hub(End::Revoked) => f.write_str("its account was removed or changed"),
            Self::Hub(End::TooSlow) => f.write_str("it did not take its messages as fast as they came"),
            Self::Hub(End::ShuttingDown) | Self::Stopping => f.write_str("the broker is stopping"),
        }
    }
}
