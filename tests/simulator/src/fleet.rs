//! The whole fleet: how it is planned, started, calmed and stopped.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pistat_protocol::topic::Topics;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    dice::Dice,
    enrol::Credential,
    ledger::{self, Counts, Happening, Ledger},
    machine::Machine,
};

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
    /// Writes the microseconds since this instant into each sample's `disk_read_bytes_per_second`, at the moment when it is said: so its way can be timed.
    pub marks_since: Option<Instant>,
    /// Each machine first tells a day that it had measured before: all that a controller keeps for charts.
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
    calm: Arc<AtomicBool>,
}

impl Shared {
    /// Whether anything goes wrong now.
    pub(crate) fn is_rough(&self) -> bool {
        !self.calm.load(Ordering::Relaxed)
    }
}

/// A running fleet; it ends when it is dropped.
pub struct Fleet {
    machines: JoinSet<()>,
    counts: Arc<Counts>,
    calm: Arc<AtomicBool>,
    ledger: JoinHandle<Ledger>,
    stop: CancellationToken,
}

impl Fleet {
    /// Starts these machines.
    pub fn start(plan: Plan, credentials: Vec<Credential>) -> Self {
        let counts = Arc::new(Counts::default());
        let calm = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let (sender, ledger) = ledger::open();
        let mut dice = Dice::from_seed(plan.seed);
        let shared = Arc::new(Shared { plan, counts: Arc::clone(&counts), ledger: sender, calm: Arc::clone(&calm) });
        let mut machines = JoinSet::new();
        for credential in credentials {
            let machine = Machine::new(Arc::clone(&shared), credential, Dice::from_seed(dice.bits()));
            machines.spawn(machine.live(stop.clone()));
        }
        Self { machines, counts, calm, ledger, stop }
    }

    /// What is happening.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// From now on nothing goes wrong by itself.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// Waits until so many machines are connected at the same time.
    pub async fn connected(&self, count: u64) {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while Counts::get(&self.counts.connected) < count {
            look.tick().await;
        }
    }

    /// Stops all machines, each with a farewell, and gives what they saw.
    pub async fn stop(mut self) -> Ledger {
        self.stop.cancel();
        while self.machines.join_next().await.is_some() {}
        self.ledger.await.unwrap_or_default()
    }
}
