//! The feed's outgoing side: changes gather for at most a frame, are written once, and are shared by every dashboard.

use std::time::{Duration, Instant};

use axum::extract::ws::Utf8Bytes;
use pistat_protocol::{
    dashboard::{Change, ServerMessage},
    time::Timestamp,
};
use tokio::sync::broadcast;

/// A batch of changes as it goes to every dashboard. Cloning it copies a pointer.
pub type Frame = Utf8Bytes;

/// How long changes gather: less than one frame of a screen with 60 of them a second, so that a sample is there within 20 ms.
const FRAME: Duration = Duration::from_millis(10);

/// How many frames wait for a slow dashboard before it is given a fresh snapshot instead: two and a half seconds' worth.
const FRAMES: usize = 256;

/// Changes on their way to dashboards.
pub(crate) struct Feed {
    pending: Vec<Change>,
    flushed_at: Instant,
    sender: broadcast::Sender<Frame>,
    counts: FeedCounts,
}

/// What was written for dashboards since the start; each frame counts once, however many share it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Frames.
    pub frames: u64,
    /// Changes in them.
    pub changes: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Feed {
    pub(crate) fn new() -> Self {
        let (sender, counts) = (broadcast::Sender::new(FRAMES), FeedCounts::default());
        Self { pending: Vec::new(), flushed_at: Instant::now(), sender, counts }
    }

    /// How many dashboards are connected.
    pub(crate) fn dashboards(&self) -> usize {
        self.sender.receiver_count()
    }

    /// What was written since the start.
    pub(crate) fn counts(&self) -> FeedCounts {
        self.counts
    }

    /// Tells every dashboard of a change, soon. Without any, nothing is kept.
    pub(crate) fn push(&mut self, change: Change) {
        if self.dashboards() > 0 {
            self.pending.push(change);
        }
    }

    /// When the gathered changes must go; at once if the last frame is long ago.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.pending.is_empty()).then_some(self.flushed_at + FRAME)
    }

    /// Sends what has gathered.
    pub(crate) fn flush(&mut self, now: Timestamp) {
        if self.pending.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.pending);
        let count = changes.len() as u64;
        let message = ServerMessage::Changes { now, changes };
        if let Ok(text) = serde_json::to_string(&message) {
            self.counts.bytes += text.len() as u64;
            // Nobody listening is no failure.
            let _ = self.sender.send(text.into());
            self.counts.frames += 1;
            self.counts.changes += count;
        }
        self.flushed_at = Instant::now();
    }

    /// A dashboard joins: it hears everything that is pushed from now on.
    pub(crate) fn join(&mut self, now: Timestamp) -> broadcast::Receiver<Frame> {
        self.flush(now);
        self.sender.subscribe()
    }
}
