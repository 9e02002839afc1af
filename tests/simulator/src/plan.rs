//! What a simulated fleet does, and what its machines share.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pistat_protocol::topic::Topics;
use tokio::sync::mpsc;

use crate::ledger::{Counts, Happening};

/// What the machines do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The broker, or something in between.
    pub address: SocketAddr,
    /// Where everything is.
    pub topics: Topics,
    /// The cadence of samples; what the controller sets wins.
    pub interval: Duration,
    /// The fleet connects over this time, not all at once.
    pub ramp: Duration,
    /// The seed of everything random.
    pub seed: u64,
    /// A run takes between nothing and this.
    pub longest_run: Duration,
    /// How many of all runs fail.
    pub failing_share: f64,
    /// What goes wrong.
    pub churn: Churn,
    /// Writes the microseconds since this instant into each sample's `disk_read_bytes_per_second`,
    /// at the moment when it is said: so its way can be timed.
    pub marks_since: Option<Instant>,
    /// Each machine first tells a day that it had measured before: all that a controller keeps for
    /// charts.
    pub has_a_past: bool,
}

impl Plan {
    /// A calm fleet at the default cadence.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            topics: Topics::default(),
            interval: Duration::from_secs(5),
            ramp: Duration::ZERO,
            seed: 1,
            longest_run: Duration::from_secs(1),
            failing_share: 0.0,
            churn: Churn::default(),
            marks_since: None,
            has_a_past: false,
        }
    }
}

/// What goes wrong, and how often.
#[derive(Debug, Clone, Copy, Default)]
pub struct Churn {
    /// The mean time between two mishaps of one machine; never without it.
    pub mean_between: Option<Duration>,
    /// How many of the mishaps are restarts; the others are broken connections.
    pub reboot_share: f64,
    /// How many machines have a slow link.
    pub slow_share: f64,
    /// How many messages of `QoS` 1 come twice.
    pub duplicate_share: f64,
    /// How many messages are overtaken by the next one.
    pub reorder_share: f64,
}

/// What all machines share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) counts: Arc<Counts>,
    pub(crate) ledger: mpsc::Sender<Happening>,
    pub(crate) calm: Arc<AtomicBool>,
}

impl Shared {
    /// Whether anything goes wrong now.
    pub(crate) fn is_rough(&self) -> bool {
        !self.calm.load(Ordering::Relaxed)
    }
}
