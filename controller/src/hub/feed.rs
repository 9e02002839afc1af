//! The feed's outgoing side: changes gather for at most a frame, are written once, and are shared
//! by every dashboard.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pistat_protocol::{
    dashboard::{Change, MachineStatus, ServerMessage},
    id::PiId,
    stats::Sample,
    time::Timestamp,
};
use tokio::sync::broadcast;

/// A batch of changes as it goes to every dashboard: JSON. Cloning it copies a pointer.
pub type Frame = Bytes;

/// How long changes gather: less than one frame of a screen with 60 of them a second, so that a
/// sample is there within 20 ms.
const FRAME: Duration = Duration::from_millis(10);

/// How many frames wait for a slow dashboard before it is given a fresh snapshot instead: two and a
/// half seconds' worth.
const FRAMES: usize = 256;

/// How often a dashboard in a hidden tab is given samples, each machine's newest: its title tells
/// how the fleet stands, and nobody sees more of it.
const HIDDEN_SAMPLES: Duration = Duration::from_secs(15);

/// What of a machine is replaced by newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Newest {
    Machine,
    Sample,
}

/// Changes on their way to dashboards.
pub(crate) struct Feed {
    pending: Vec<Change>,
    /// Where in `pending` the newest word of each machine is.
    newest: HashMap<(PiId, Newest), usize>,
    flushed_at: Instant,
    sender: broadcast::Sender<Frame>,
    hidden: Hidden,
    counts: FeedCounts,
}

/// The same for dashboards that nobody looks at: every change but samples at once, and samples
/// conflated.
struct Hidden {
    sender: broadcast::Sender<Frame>,
    samples: BTreeMap<PiId, Arc<Sample>>,
    sampled_at: Instant,
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
        let (sender, now) = (broadcast::Sender::new(FRAMES), Instant::now());
        let hidden = Hidden { sender: broadcast::Sender::new(FRAMES), samples: BTreeMap::new(), sampled_at: now };
        Self {
            pending: Vec::new(),
            newest: HashMap::new(),
            flushed_at: now,
            sender,
            hidden,
            counts: FeedCounts::default(),
        }
    }

    /// How many dashboards are connected.
    pub(crate) fn dashboards(&self) -> usize {
        self.sender.receiver_count() + self.hidden.sender.receiver_count()
    }

    /// What was written since the start.
    pub(crate) fn counts(&self) -> FeedCounts {
        self.counts
    }

    /// Tells every dashboard of a change, soon. Without any, nothing is kept. Of a machine that
    /// changes faster than frames go out, a frame has the newest state and the newest sample.
    pub(crate) fn push(&mut self, change: Change) {
        if self.dashboards() == 0 {
            return;
        }
        let key = match &change {
            Change::Machine { machine } => Some((machine.id.clone(), Newest::Machine)),
            Change::Stats { pi, .. } => Some((pi.clone(), Newest::Sample)),
            Change::Forgotten { pi } => {
                self.newest.retain(|(of, _), _| of != pi);
                None
            }
            _ => None,
        };
        match key.map(|key| self.newest.entry(key)) {
            Some(Entry::Occupied(place)) => self.pending[*place.get()] = change,
            Some(Entry::Vacant(place)) => {
                place.insert(self.pending.len());
                self.pending.push(change);
            }
            None => self.pending.push(change),
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
        let mut changes = std::mem::take(&mut self.pending);
        self.newest.clear();
        self.flushed_at = Instant::now();
        if self.sender.receiver_count() > 0 {
            changes = send(&self.sender, now, changes, &mut self.counts);
        }
        if self.hidden.sender.receiver_count() > 0 {
            let changes = self.hidden.conflate(changes, self.flushed_at);
            send(&self.hidden.sender, now, changes, &mut self.counts);
        } else {
            self.hidden.samples.clear();
        }
    }

    /// A dashboard joins: it hears everything that is pushed from now on, or what a hidden one is
    /// to hear.
    pub(crate) fn join(&mut self, now: Timestamp, hidden: bool) -> broadcast::Receiver<Frame> {
        self.flush(now);
        if hidden { self.hidden.sender.subscribe() } else { self.sender.subscribe() }
    }
}

impl Hidden {
    /// What of these changes is told now. A sample that is kept back is older than whatever else is
    /// told of its machine meanwhile.
    fn conflate(&mut self, changes: Vec<Change>, now: Instant) -> Vec<Change> {
        let mut told = Vec::new();
        for change in changes {
            match change {
                Change::Stats { pi, stats } => {
                    self.samples.insert(pi, stats);
                    continue;
                }
                // It would set the machine online again.
                Change::Machine { ref machine } if machine.status != MachineStatus::Online => {
                    self.samples.remove(&machine.id);
                }
                Change::Forgotten { ref pi } => {
                    self.samples.remove(pi);
                }
                _ => {}
            }
            told.push(change);
        }
        if now.duration_since(self.sampled_at) >= HIDDEN_SAMPLES {
            self.sampled_at = now;
            let samples = std::mem::take(&mut self.samples).into_iter();
            told.extend(samples.map(|(pi, stats)| Change::Stats { pi, stats }));
        }
        told
    }
}

/// Writes changes once for everybody who listens, and gives them back.
fn send(
    sender: &broadcast::Sender<Frame>,
    now: Timestamp,
    changes: Vec<Change>,
    counts: &mut FeedCounts,
) -> Vec<Change> {
    if changes.is_empty() {
        return changes;
    }
    let message = ServerMessage::Changes { now, changes };
    let text = serde_json::to_string(&message);
    let ServerMessage::Changes { changes, .. } = message else { return Vec::new() };
    if let Ok(text) = text {
        counts.bytes += text.len() as u64;
        // Nobody listening is not a failure.
        let _ = sender.send(text.into());
        counts.frames += 1;
        counts.changes += changes.len() as u64;
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(pi: &str, seq: u64) -> Change {
        let stats = serde_json::json!({"time": "2026-11-22T12:00:00.123Z", "clock_synchronized": true, "seq": seq});
        Change::Stats { pi: pi.parse().unwrap(), stats: Arc::new(serde_json::from_value(stats).unwrap()) }
    }

    fn forgotten(pi: &str) -> Change {
        Change::Forgotten { pi: pi.parse().unwrap() }
    }

    fn offline(pi: &str) -> Change {
        let machine = serde_json::json!({"id": pi, "label": pi, "status": "offline", "last_seen": null, "assignment": null, "tags": [],
            "interval_seconds": null, "info": null, "stats": null, "recent_cpu_percent": []});
        Change::Machine { machine: Box::new(serde_json::from_value(machine).unwrap()) }
    }

    #[test]
    fn a_hidden_dashboard_hears_of_changes_at_once_and_of_samples_now_and_then() {
        let mut hidden = Feed::new().hidden;
        let start = hidden.sampled_at;
        let soon = start + Duration::from_secs(1);
        assert_eq!(
            hidden.conflate(vec![stats("pi-1", 1), forgotten("pi-9"), stats("pi-1", 2)], soon),
            [forgotten("pi-9")]
        );
        assert_eq!(hidden.conflate(vec![stats("pi-2", 7)], soon), []);
        // A sample that is older than the news of its machine is not told after it.
        assert_eq!(hidden.conflate(vec![stats("pi-3", 4), offline("pi-3")], soon), [offline("pi-3")]);
        let due = start + HIDDEN_SAMPLES;
        assert_eq!(hidden.conflate(vec![stats("pi-1", 3)], due), [stats("pi-1", 3), stats("pi-2", 7)]);
        assert_eq!(hidden.conflate(vec![stats("pi-1", 4)], due + Duration::from_secs(1)), []);
    }

    #[test]
    fn nothing_is_written_for_nobody() {
        let mut feed = Feed::new();
        let mut hidden = feed.join(Timestamp::from_unix_milliseconds(0), true);
        feed.push(stats("pi-1", 1));
        feed.flush(Timestamp::from_unix_milliseconds(0));
        assert_eq!((feed.counts(), feed.dashboards()), (FeedCounts::default(), 1));
        let mut seen = feed.join(Timestamp::from_unix_milliseconds(0), false);
        feed.push(forgotten("pi-9"));
        feed.flush(Timestamp::from_unix_milliseconds(0));
        assert_eq!(feed.counts().frames, 2);
        assert_eq!(hidden.try_recv(), seen.try_recv());
    }
}
