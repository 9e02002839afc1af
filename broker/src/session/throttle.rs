//! A publisher that waits for another session's client: its messages wait here, its
//! acknowledgements do not.
//!
//! A client that publishes faster than a subscriber reads is throttled by not being read. But a
//! client that also receives must be read, or two that publish to each other would wait for each
//! other's acknowledgements for ever. So while it is throttled, its input is scanned:
//! acknowledgements and pings are processed, everything else keeps its order and waits, up to a
//! limit for each session and one for all of them. What is left when it may go on is processed one
//! read's worth at a time, so that it can be throttled again.

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

/// What waits for a throttled client at most. A full window of a client library is a hundred
/// messages or fewer.
const KEPT_BYTES: usize = 256 * 1024;

/// What waits for all throttled clients together at most: a fleet that one reader throttles is
/// thousands. Beyond, they are read when they may go on.
const KEPT_TOTAL_BYTES: usize = 16 * 1024 * 1024;

/// The state of a session that is throttled, or was.
pub(super) struct Throttle {
    /// The outbox whose client is slow.
    by: Option<Arc<Outbox>>,
    /// Until when it waits for that client's `QoS` 0.
    pub(super) until: Option<Instant>,
    /// Bytes at the beginning of the input that have been looked through and wait.
    kept_bytes: usize,
    /// The input has ended, or something in it is wrong: nothing more is looked at until what came
    /// before was taken in.
    is_at_end: bool,
    /// What this session's part of [`Self::total`] is.
    counted: usize,
    total: Arc<AtomicUsize>,
}

impl Throttle {
    pub(super) fn new(total: &Arc<AtomicUsize>) -> Self {
        Self { by: None, until: None, kept_bytes: 0, is_at_end: false, counted: 0, total: total.clone() }
    }

    /// Counts how much memory the session's input takes while it is throttled, or not yet
    /// processed.
    fn count(&mut self, bytes: usize) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.total.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = bytes;
    }

    pub(super) fn is_throttled(&self) -> bool {
        self.by.is_some()
    }

    /// Whether something waits to be taken in, which comes before anything new.
    pub(super) fn has_kept(&self) -> bool {
        self.kept_bytes > 0
    }

    pub(super) fn wait_for(&mut self, slow: Arc<Outbox>, timeout: Duration) {
        self.by = Some(slow);
        self.until = Some(Instant::now() + timeout);
    }

    /// Ends the throttling as soon as the slow client has room again.
    pub(super) fn poll_release(&mut self, context: &mut Context<'_>) {
        if self.by.as_ref().is_some_and(|slow| slow.poll_room(context).is_ready()) {
            (self.by, self.until) = (None, None);
        }
    }

    /// It has waited long enough for `QoS` 0.
    pub(super) fn end_backpressure(&mut self) {
        self.until = None;
        self.by.iter().for_each(|slow| slow.mark_slow());
    }

    /// Whether a throttled client is read: while it owes acknowledgements, and what it sends
    /// besides fits.
    pub(super) fn reads_on(&self, owes: bool, input_bytes: usize) -> bool {
        let has_room = input_bytes < KEPT_BYTES && self.total.load(Ordering::Relaxed) < KEPT_TOTAL_BYTES;
        owes && !self.is_at_end && has_room
    }

    /// The client has closed the connection; whether this must wait.
    pub(super) fn keeps_end(&mut self) -> bool {
        self.is_at_end |= self.is_throttled();
        self.is_throttled()
    }

    /// Whether the input has ended, and all of it was taken in.
    pub(super) fn has_ended(&self) -> bool {
        self.is_at_end && !self.is_throttled() && self.kept_bytes == 0
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

impl Drop for Throttle {
    fn drop(&mut self) {
        self.count(0);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Processes what need not wait, and keeps the rest in its order.
    pub(super) async fn process_while_throttled(&mut self) -> Result<(), Close> {
        let done = self.look_through().await;
        self.throttle.count(self.transport.input.capacity());
        done
    }

    async fn look_through(&mut self) -> Result<(), Close> {
        let mut input = std::mem::take(&mut self.transport.input);
        let fresh = input.split_off(self.throttle.kept_bytes);
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
            if self.throttle.is_at_end {
                self.throttle.kept_bytes = input.len();
                self.transport.input = input;
                return Ok(());
            }
        }
        self.throttle.kept_bytes = input.len();
        input.extend_from_slice(&fresh[done..]);
        self.transport.input = input;
        Ok(())
    }

    fn keep_end(&mut self, input: &mut Vec<u8>, rest: &[u8]) {
        input.extend_from_slice(rest);
        self.throttle.is_at_end = true;
    }
}

/// Acknowledgements and pings do not depend on what was published before them. PUBREL does.
fn may_overtake(packet_type: Option<PacketType>) -> bool {
    use PacketType::{PingRequest, PubAck, PubComp, PubRec};
    matches!(packet_type, Some(PubAck | PubRec | PubComp | PingRequest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_all_throttled_clients_has_a_limit_of_its_own() {
        let total = Arc::new(AtomicUsize::default());
        let mut held: Vec<Throttle> = (0..64).map(|_| Throttle::new(&total)).collect();
        for one in &mut held {
            assert!(one.reads_on(true, 0));
            one.kept_bytes = KEPT_BYTES;
            one.count(KEPT_BYTES);
        }
        let mut late = Throttle::new(&total);
        assert!(!late.reads_on(true, 0), "64 that are full are {KEPT_TOTAL_BYTES} bytes");
        held[0].taken(KEPT_BYTES - 1, 1000);
        assert!(late.reads_on(true, 0), "one has taken in what waited");
        assert_eq!(total.load(Ordering::Relaxed), 63 * KEPT_BYTES + 1000);
        late.count(KEPT_BYTES);
        held[0].taken(1, 1000);
        drop(held);
        assert_eq!(total.load(Ordering::Relaxed), KEPT_BYTES, "those that are gone leave nothing");
    }
}
