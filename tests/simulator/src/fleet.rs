//! The whole fleet: how it is started, calmed and stopped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pistat_testkit::{Dice, credential::Credential};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    ledger::{self, Counts, Ledger},
    machine::Machine,
    plan::{Plan, Shared},
};

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
