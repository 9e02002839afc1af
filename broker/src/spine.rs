//! The spine: rumqttd's log, held in the one way that loses nothing. The only file that names
//! rumqttd.
//!
//! Three verbs: publish envelopes, receive them in order, stop. One router, one link, one constant
//! topic, one reader, `QoS` 0; no client ever meets it. What it gives: one total order, a bounded
//! buffer between intake and delivery, and exact back-pressure.
//!
//! Invariants: bytes that are published and not yet received stay under a quarter of a segment, so
//! the log never rolls over its reader; a cursor that jumps all the same is an error that stops the
//! broker. Nothing here blocks: a full event channel of the router means that it has been notified
//! already, since every event makes it take all there is.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Packet, Publish};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::sync::Semaphore;

use crate::{BrokerError, StartError};

/// The only topic of the log.
const TOPIC: &[u8] = b"e";

/// A segment of the log. Two of them stay in memory whatever happens, so they are kept small.
const SEGMENT_BYTES: usize = 512 * 1024;

/// The log keeps the segment that is written and the one before it.
const SEGMENTS: usize = 2;

/// Bytes under way in the log at most: a quarter of a segment.
const WINDOW_BYTES: usize = SEGMENT_BYTES / 4;

/// What an envelope costs in the window besides its bytes: the log's own record of it. It keeps
/// tiny messages from being so many that their records outweigh them.
const RECORD_BYTES: usize = 64;

/// More notifications than the window holds, so one read takes all there is.
const READ_COUNT: u64 = (WINDOW_BYTES / RECORD_BYTES) as u64 + 1;

fn cost(frame: &Bytes) -> usize {
    (frame.len() + RECORD_BYTES).min(WINDOW_BYTES)
}

/// The log has stopped: the broker is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message log has stopped")]
pub(crate) struct Stopped;

/// Opens a log of its own.
pub(crate) async fn open() -> Result<(Sender, Receiver), StartError> {
    let failed = |error: LinkError| StartError::Engine(error.to_string());
    let config = RouterConfig {
        max_connections: 2,
        max_outgoing_packet_count: READ_COUNT,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    };
    let (mut link_tx, link_rx) = tokio::task::spawn_blocking(move || {
        let router = Router::new(0, config).spawn();
        LinkBuilder::new("pistat", router).build().map(|(tx, rx, _)| (tx, rx)).map_err(failed)
    })
    .await
    .map_err(|error| StartError::Engine(error.to_string()))??;
    link_tx.subscribe(std::str::from_utf8(TOPIC).unwrap_or_default()).map_err(failed)?;
    let shared = Arc::new(Shared {
        link: Mutex::new(link_tx),
        window: Semaphore::new(WINDOW_BYTES),
        published: AtomicU64::new(0),
    });
    let mut receiver =
        Receiver { link: link_rx, shared: shared.clone(), received: 0, cursor: None, wake_wanted: false };
    receiver.wait_for_subscription().await?;
    Ok((Sender { shared }, receiver))
}

struct Shared {
    link: Mutex<LinkTx>,
    window: Semaphore,
    published: AtomicU64,
}

/// Puts envelopes into the log.
#[derive(Clone)]
pub(crate) struct Sender {
    shared: Arc<Shared>,
}

impl Sender {
    /// Publishes envelopes in their order, as soon as there is room. When this returns they are in
    /// the log.
    pub(crate) async fn publish(&self, frames: &mut Vec<Bytes>) -> Result<(), Stopped> {
        let mut frames = frames.drain(..).peekable();
        let mut batch = Vec::new();
        while let Some(frame) = frames.next() {
            let mut batch_cost = cost(&frame);
            batch.push(frame);
            while let Some(next) = frames.next_if(|next| batch_cost + cost(next) <= WINDOW_BYTES / 2) {
                batch_cost += cost(&next);
                batch.push(next);
            }
            // The window is far below the 2^32 permits that a semaphore counts.
            let permits = u32::try_from(batch_cost).unwrap_or(u32::MAX);
            self.shared.window.acquire_many(permits).await.map_err(|_| Stopped)?.forget();
            self.append(&mut batch);
        }
        Ok(())
    }

    /// How many envelopes have been published so far: the log's end.
    pub(crate) fn position(&self) -> u64 {
        self.shared.published.load(Ordering::Acquire)
    }

    fn append(&self, batch: &mut Vec<Bytes>) {
        let count = batch.len() as u64;
        let Some(last) = batch.pop() else { return };
        let mut link = self.shared.link.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut buffer = link.buffer();
            for frame in batch.drain(..) {
                buffer.push_back(Packet::Publish(Publish::new(Bytes::from_static(TOPIC), frame, false), None));
            }
        }
        // Full means that the router has been notified already; the receiver notices when it has
        // gone.
        let _ = link.try_publish(Bytes::from_static(TOPIC), last);
        self.shared.published.fetch_add(count, Ordering::Release);
    }
}

/// Takes envelopes out of the log, in order.
pub(crate) struct Receiver {
    link: LinkRx,
    shared: Arc<Shared>,
    received: u64,
    cursor: Option<u64>,
    /// The router waits for the notice that its last batch was taken.
    wake_wanted: bool,
}

impl Receiver {
    /// Waits for an envelope, and takes those that are there with it, up to `most`. Cancelling the
    /// wait loses nothing.
    pub(crate) async fn receive(&mut self, into: &mut Vec<Bytes>, most: usize) -> Result<(), BrokerError> {
        let before = into.len();
        while into.len() == before {
            if self.wake_wanted {
                self.link.wake().await.map_err(|_| BrokerError::LogStopped)?;
                self.wake_wanted = false;
            }
            let notification = self.link.next().await.map_err(|_| BrokerError::LogStopped)?;
            self.accept(notification, into)?;
        }
        while into.len() - before < most && !self.wake_wanted {
            let Poll::Ready(notification) = self.next_now() else { break };
            self.accept(notification?, into)?;
        }
        self.shared.window.add_permits(into[before..].iter().map(cost).sum());
        Ok(())
    }

    /// A notification that is there already.
    fn next_now(&mut self) -> Poll<Result<Option<Notification>, BrokerError>> {
        let mut context = Context::from_waker(Waker::noop());
        pin!(self.link.next()).poll(&mut context).map_err(|_| BrokerError::LogStopped)
    }

    fn accept(&mut self, notification: Option<Notification>, into: &mut Vec<Bytes>) -> Result<(), BrokerError> {
        match notification {
            Some(Notification::Forward(forward)) => {
                self.check_order(forward.cursor)?;
                self.received += 1;
                into.push(forward.publish.payload);
            }
            // Remembered, not done at once: a wait that is cancelled in between must not forget it.
            Some(Notification::Unschedule) => self.wake_wanted = true,
            Some(Notification::Disconnect(..)) => return Err(BrokerError::LogStopped),
            Some(_) | None => {}
        }
        Ok(())
    }

    /// How many envelopes have been received so far.
    pub(crate) fn position(&self) -> u64 {
        self.received
    }

    async fn wait_for_subscription(&mut self) -> Result<(), StartError> {
        loop {
            match self.link.next().await {
                Ok(Some(Notification::DeviceAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(StartError::Engine(error.to_string())),
            }
        }
    }

    fn check_order(&mut self, cursor: Option<(u64, u64)>) -> Result<(), BrokerError> {
        let Some((_, found)) = cursor else { return Ok(()) };
        let expected = self.cursor.map_or(found, |previous| previous + 1);
        self.cursor = Some(found);
        if found == expected { Ok(()) } else { Err(BrokerError::LogJumped { expected, found }) }
    }
}

impl Drop for Receiver {
    /// Stopping: publishers get no more room. rumqttd's router cannot be stopped; without a link
    /// its thread sleeps.
    fn drop(&mut self) {
        self.shared.window.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: u64, length: usize) -> Bytes {
        let mut frame = number.to_le_bytes().to_vec();
        frame.resize(length.max(8), 0);
        Bytes::from(frame)
    }

    async fn check(messages: u64, length: impl Fn(u64) -> usize + Send + Sync + 'static) {
        let (sender, mut receiver) = open().await.unwrap();
        let publisher = tokio::spawn(async move {
            let mut batch = Vec::new();
            for number in 0..messages {
                batch.push(numbered(number, length(number)));
                if number % 7 == 0 {
                    sender.publish(&mut batch).await.unwrap();
                }
            }
            sender.publish(&mut batch).await.unwrap();
            sender
        });
        let mut frames = Vec::new();
        while receiver.position() < messages {
            frames.clear();
            let first = receiver.position();
            receiver.receive(&mut frames, 100).await.unwrap();
            for (number, frame) in (first..).zip(&frames) {
                assert_eq!(frame[..8], number.to_le_bytes());
            }
        }
        let sender = publisher.await.unwrap();
        assert_eq!((sender.position(), receiver.position()), (messages, messages));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_comes_out_once_and_in_order_however_fast_it_goes_in() {
        check(300_000, |number| 8 + (number % 500) as usize).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn messages_larger_than_a_segment_pass() {
        check(200, |number| if number % 3 == 0 { 1 << 20 } else { 20 }).await;
    }

    #[tokio::test]
    async fn an_unread_log_stops_its_publishers() {
        let (sender, receiver) = open().await.unwrap();
        let fill = async {
            let mut sent = 0;
            loop {
                sender.publish(&mut vec![numbered(0, 1000)]).await.unwrap();
                sent += 1;
                assert!(sent <= WINDOW_BYTES / 1000);
            }
        };
        assert!(tokio::time::timeout(std::time::Duration::from_millis(200), fill).await.is_err());
        drop(receiver);
        assert_eq!(sender.publish(&mut vec![numbered(0, 8)]).await, Err(Stopped));
    }
}
