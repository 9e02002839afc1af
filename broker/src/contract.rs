//! What sessions and the hub say to each other. Neither imports the other.
//!
//! A session sends a [`Command`] and waits for its reply; the messages for its client come through
//! the [`Outbox`] that the hub hands out in [`Attached`]. When its connection ends, its [`Report`]
//! sends one [`Closed`], whatever happens.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::access::{Identity, Secret};
use crate::message::SessionId;
use crate::outbox::{Delivery, Outbox};
use crate::packet::{QoS, SubscriptionOptions};
use crate::spine;
use crate::store::StoredWill;

/// Commands that wait for the hub: one per client that is subscribing, which then waits for the
/// reply.
pub(crate) const COMMAND_CAPACITY: usize = 1024;

/// What sessions ask of the hub.
pub(crate) enum Command {
    /// An authenticated client requests its session.
    Connect(Box<ConnectRequest>),
    /// A client subscribes.
    Subscribe(SubscribeRequest),
    /// A client unsubscribes.
    Unsubscribe(UnsubscribeRequest),
    /// A connection has ended.
    Closed(Closed),
}

impl Command {
    /// Up to where the hub must have read the log before this takes effect.
    pub(crate) fn position(&self) -> u64 {
        match self {
            Self::Connect(request) => request.position,
            Self::Subscribe(request) => request.position,
            Self::Unsubscribe(request) => request.position,
            Self::Closed(closed) => closed.position,
        }
    }
}

/// An authenticated client that requests its session.
pub(crate) struct ConnectRequest {
    /// The log's end when the client asked: what was published before finds its session as it was.
    pub(crate) position: u64,
    pub(crate) identity: Arc<Identity>,
    pub(crate) user_name: Box<str>,
    pub(crate) secret: Secret,
    pub(crate) client_id: Box<str>,
    pub(crate) clean_start: bool,
    /// Seconds that the session lives on without its client.
    pub(crate) session_expiry: u32,
    pub(crate) will: Option<StoredWill>,
    pub(crate) peer: SocketAddr,
    pub(crate) reply: oneshot::Sender<Result<Attached, ConnectRefusal>>,
}

impl ConnectRequest {
    /// Refuses the request.
    pub(crate) fn refuse(self, refusal: ConnectRefusal) {
        // An error means that the connection has ended meanwhile.
        let _ = self.reply.send(Err(refusal));
    }
}

/// Why an authenticated client gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectRefusal {
    /// Its account has too many connections.
    TooMany,
    /// Its account was changed while it connected.
    Revoked,
    /// A newer connection of the same client came while it waited for the session.
    Overtaken,
}

/// The session of an authenticated client.
pub(crate) struct Attached {
    pub(crate) id: SessionId,
    pub(crate) session_present: bool,
    pub(crate) outbox: Arc<Outbox>,
    /// Reports the end of the connection; holds what the last connection left unfinished.
    pub(crate) report: Report,
}

/// Filters to subscribe to, valid and authorised.
pub(crate) struct SubscribeRequest {
    pub(crate) session: SessionId,
    /// The log's end when the client asked.
    pub(crate) position: u64,
    pub(crate) identifier: u32,
    pub(crate) filters: Vec<(Box<str>, SubscriptionOptions)>,
    /// One reason code for each filter.
    pub(crate) reply: oneshot::Sender<Vec<u8>>,
}

/// Filters to unsubscribe from.
pub(crate) struct UnsubscribeRequest {
    pub(crate) session: SessionId,
    /// The log's end when the client asked.
    pub(crate) position: u64,
    pub(crate) filters: Vec<Box<str>>,
    /// One reason code for each filter.
    pub(crate) reply: oneshot::Sender<Vec<u8>>,
}

/// A connection has ended. Every session's task sends exactly one of these.
pub(crate) struct Closed {
    pub(crate) id: SessionId,
    /// The log's end by then: what the client published before is still its own.
    pub(crate) position: u64,
    /// Seconds that the session lives on without its client.
    pub(crate) session_expiry: u32,
    pub(crate) will: WillFate,
    /// What is left unfinished; `None` after a failure of the task.
    pub(crate) parked: Option<Box<Parked>>,
}

/// What becomes of a will when its connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WillFate {
    /// It was published, or is discarded.
    Done,
    /// It is published after so many seconds, or when the session ends, unless the client is back
    /// before.
    Delayed(u32),
    /// It stays on disk, because the broker is stopping.
    Kept,
}

/// Reports the session's end exactly once, even if its connection goes before the session began, or
/// its task fails.
pub(crate) struct Report {
    spine: spine::Sender,
    sender: mpsc::UnboundedSender<Closed>,
    closed: Option<Closed>,
}

impl Report {
    /// `unstarted` is what is reported if the connection ends before [`Report::begin`].
    pub(crate) fn new(spine: spine::Sender, sender: mpsc::UnboundedSender<Closed>, unstarted: Closed) -> Self {
        Self { spine, sender, closed: Some(unstarted) }
    }

    /// The session begins, and takes over what its last connection left unfinished. Until
    /// [`Report::finish`], its end counts as a failure: its will is due, and the session ends too.
    pub(crate) fn begin(&mut self) -> Parked {
        let Some(closed) = &mut self.closed else { return Parked::default() };
        (closed.session_expiry, closed.will) = (0, WillFate::Delayed(0));
        closed.parked.take().map(|parked| *parked).unwrap_or_default()
    }

    /// Reports the end now.
    pub(crate) fn finish(&mut self, session_expiry: u32, will: WillFate, parked: Parked) {
        if let Some(closed) = self.closed.take() {
            self.send(Closed { session_expiry, will, parked: Some(Box::new(parked)), ..closed });
        }
    }

    fn send(&self, mut closed: Closed) {
        closed.position = self.spine.position();
        // The hub is gone only when the broker stops.
        let _ = self.sender.send(closed);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(closed) = self.closed.take() {
            self.send(closed);
        }
    }
}

/// What a session keeps while its client is away.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    /// `QoS` 1 and 2 messages that were sent and not acknowledged.
    pub(crate) in_flight: VecDeque<InFlight>,
    /// The last packet id used.
    pub(crate) last_id: u16,
    /// Packet ids of `QoS` 2 messages that were received and not released.
    pub(crate) receiving: Vec<u16>,
}

impl Parked {
    /// Messages that the client has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = &Delivery> {
        self.in_flight.iter().filter_map(InFlight::unacknowledged)
    }

    /// What it costs to keep them, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.unacknowledged().map(Delivery::cost).sum()
    }
}

/// A `QoS` 1 or 2 message that was sent.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) packet_id: u16,
    /// Its number among the messages of this connection; 0 for those of earlier ones.
    pub(crate) number: u64,
    pub(crate) stage: Stage,
}

/// How far a `QoS` 1 or 2 message is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// PUBLISH was sent, PUBACK or PUBREC is awaited.
    Sent(Delivery),
    /// PUBREL was sent, PUBCOMP is awaited.
    Released,
}

impl InFlight {
    /// Whether it is to come to its client exactly once.
    pub(crate) fn is_exactly_once(&self) -> bool {
        self.unacknowledged().is_none_or(|delivery| delivery.qos == QoS::ExactlyOnce)
    }

    /// The message, unless the client has it.
    pub(crate) fn unacknowledged(&self) -> Option<&Delivery> {
        match &self.stage {
            Stage::Sent(delivery) => Some(delivery),
            Stage::Released => None,
        }
    }
}
