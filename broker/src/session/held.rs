//! A publisher that waits for somebody else's client: its messages wait here, its acknowledgements do not.
//!
//! Whoever publishes faster than a subscriber reads is held up by not being read. But a client that also receives must be
//! heard, or two that publish to each other would wait for each other's acknowledgements for ever. So while it is held,
//! what it sends is looked through: acknowledgements and pings are taken in, everything else keeps its order and waits,
//! up to a bound for each and one for all of them. What is left when it may go on is taken in one read's worth at a time, so that it can be held again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::transport::READ_BYTES;
use super::{Close, Session};
use crate::outbox::Outbox;
use crate::packet::{self, PacketType};

/// What waits for a held client at most. A full window of a client library is a hundred messages or fewer.
const KEPT_BYTES: usize = 256 * 1024;

/// What waits for all held clients together at most: a fleet that is held up by one reader is thousands. Beyond, they are heard when they may go on.
const KEPT_IN_ALL_BYTES: usize = 16 * 1024 * 1024;

/// Where a session stands that is held, or was.
pub(super) struct Held {
    /// The outbox whose client is slow.
    by: Option<Arc<Outbox>>,
    /// How long it waits for that client's `QoS` 0.
    pub(super) until: Option<Instant>,
    /// Bytes at the beginning of the input that have been looked through and wait.
    kept_bytes: usize,
    /// The input has ended, or something in it is wrong: nothing more is looked at until what came before was taken in.
    is_at_end: bool,
    /// What this session's part of [`Self::in_all`] is.
    counted: usize,
    in_all: Arc<AtomicUsize>,
}

impl Held {
    pub(super) fn new(in_all: &Arc<AtomicUsize>) -> Self {
        Self { by: None, until: None, kept_bytes: 0, is_at_end: false, counted: 0, in_all: in_all.clone() }
    }

    /// Notes how much room the session's input takes while it is held, or has yet to be taken in.
    fn count(&mut self, bytes: usize) {
        self.in_all.fetch_add(bytes, Ordering::Relaxed);
        self.in_all.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = bytes;
    }

    pub(super) fn is_held(&self) -> bool {
        self.by.is_some()
    }

    /// Whether something waits to be taken in, which comes before anything new.
    pub(super) fn has_kept(&self) -> bool {
        self.kept_bytes > 0
    }

    pub(super) fn wait_for(&mut self, slow: Arc<Outbox>, patience: Duration) {
        self.by = Some(slow);
        self.until = Some(Instant::now() + patience);
    }

    /// Lets go as soon as the slow client has room again.
    pub(super) fn poll_release(&mut self, context: &mut Context<'_>) {
        if self.by.as_ref().is_some_and(|slow| slow.poll_room(context).is_ready()) {
            (self.by, self.until) = (None, None);
        }
    }

    /// It has waited long enough for `QoS` 0.
    pub(super) fn lose_patience(&mut self) {
        self.until = None;
        self.by.iter().for_each(|slow| slow.lose_patience());
    }

    /// Whether a held client is to be read: while it owes acknowledgements, and what it sends besides fits.
    pub(super) fn reads_on(&self, owes: bool, input_bytes: usize) -> bool {
        let has_room = input_bytes < KEPT_BYTES && self.in_all.load(Ordering::Relaxed) < KEPT_IN_ALL_BYTES;
        owes && !self.is_at_end && has_room
    }

    /// The client has closed the connection; whether this must wait.
    pub(super) fn keeps_end(&mut self) -> bool {
        self.is_at_end |= self.is_held();
        self.is_held()
    }

    /// Whether the input has ended, and all of it was taken in.
    pub(super) fn has_ended(&self) -> bool {
        self.is_at_end && !self.is_held() && self.kept_bytes == 0
    }

    /// How many bytes may be taken in before the next look around.
    pub(super) fn most(&self) -> usize {
        if self.has_kept() { READ_BYTES } else { usize::MAX }
    }

    /// So many bytes were taken in, of an input that takes so much room now.
    pub(super) fn taken(&mut self, bytes: usize, room: usize) {
        self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
        if self.counted > 0 {
            self.count(if self.has_kept() { room } else { 0 });
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count(0);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Takes in what need not wait, and keeps the rest in its order.
    pub(super) async fn process_while_held(&mut self) -> Result<(), Close> {
        let done = self.look_through().await;
        self.held.count(self.transport.input.capacity());
        done
    }

    async fn look_through(&mut self) -> Result<(), Close> {
        let mut input = std::mem::take(&mut self.transport.input);
        let fresh = input.split_off(self.held.kept_bytes);
        let mut done = 0;
        loop {
            let rest = &fresh[done..];
            match packet::split(rest, self.front.limits.packet_bytes) {
                Ok(None) => break,
                Ok(Some(frame)) if may_overtake(frame.packet_type()) => {
                    done += frame.length;
                    match packet::decode(&frame, self.v5) {
                        Ok(packet) => self.on_packet(packet).await?,
                        // Its turn to be found wrong comes when what came before has been taken in.
                        Err(_) => self.keep_end(&mut input, rest),
                    }
                }
                Ok(Some(frame)) => {
                    input.extend_from_slice(&rest[..frame.length]);
                    done += frame.length;
                }
                Err(_) => self.keep_end(&mut input, rest),
            }
            if self.held.is_at_end {
                self.held.kept_bytes = input.len();
                self.transport.input = input;
                return Ok(());
            }
        }
        self.held.kept_bytes = input.len();
        input.extend_from_slice(&fresh[done..]);
        self.transport.input = input;
        Ok(())
    }

    fn keep_end(&mut self, input: &mut Vec<u8>, rest: &[u8]) {
        input.extend_from_slice(rest);
        self.held.is_at_end = true;
    }
}

/// Acknowledgements and pings say nothing about what was published before them. PUBREL does.
fn may_overtake(packet_type: Option<PacketType>) -> bool {
    use PacketType::{PingRequest, PubAck, PubComp, PubRec};
    matches!(packet_type, Some(PubAck | PubRec | PubComp | PingRequest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_all_held_clients_has_a_bound_of_its_own() {
        let in_all = Arc::new(AtomicUsize::default());
        let mut held: Vec<Held> = (0..64).map(|_| Held::new(&in_all)).collect();
        for one in &mut held {
            assert!(one.reads_on(true, 0));
            one.kept_bytes = KEPT_BYTES;
            one.count(KEPT_BYTES);
        }
        let mut late = Held::new(&in_all);
        assert!(!late.reads_on(true, 0), "64 that are full are {KEPT_IN_ALL_BYTES} bytes");
        held[0].taken(KEPT_BYTES - 1, 1000);
        assert!(late.reads_on(true, 0), "one has taken in what waited");
        assert_eq!(in_all.load(Ordering::Relaxed), 63 * KEPT_BYTES + 1000);
        late.count(KEPT_BYTES);
        held[0].taken(1, 1000);
        drop(held);
        assert_eq!(in_all.load(Ordering::Relaxed), KEPT_BYTES, "those that are gone leave nothing");
    }
}
