//! What the machines saw and did, from their own point of view: the witness against which a
//! controller's account is held.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering},
};

use pistat_protocol::{
    id::{PiId, RunId, TaskId},
    task::RunState,
};
use tokio::{sync::mpsc, task::JoinHandle};

/// How many happenings may wait for the ledger; a machine waits when it is full, so none is
/// forgotten.
const WAITING: usize = 4096;

/// Something that a machine saw or did.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    /// It started a run.
    Started { pi: PiId, run: RunId, task: TaskId, argv: Vec<String> },
    /// A run came to this end on the machine.
    Ended { run: RunId, state: RunState },
    /// It was ordered to start what it already knew.
    Repeated { run: RunId },
    /// It refused an order.
    Refused { sentence: String },
}

/// Everything that happened.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Each run that was started, with each start.
    pub starts: BTreeMap<RunId, Vec<Start>>,
    /// How each run ended on its machine.
    pub ends: HashMap<RunId, RunState>,
    /// How often an order came for a run that was known.
    pub repeated_orders: HashMap<RunId, u64>,
    /// Orders that were refused, by the sentence.
    pub refused: BTreeMap<String, u64>,
}

/// One start of a run.
#[derive(Debug, Clone)]
pub struct Start {
    /// Where.
    pub pi: PiId,
    /// Of which task.
    pub task: TaskId,
    /// What would have been started.
    pub argv: Vec<String>,
}

impl Ledger {
    fn note(&mut self, happening: Happening) {
        match happening {
            Happening::Started { pi, run, task, argv } => {
                self.starts.entry(run).or_default().push(Start { pi, task, argv });
            }
            Happening::Ended { run, state } => {
                self.ends.insert(run, state);
            }
            Happening::Repeated { run } => *self.repeated_orders.entry(run).or_default() += 1,
            Happening::Refused { sentence } => *self.refused.entry(sentence).or_default() += 1,
        }
    }
}

/// The ledger while it is being written; it ends when every machine has ended.
pub(crate) fn open() -> (mpsc::Sender<Happening>, JoinHandle<Ledger>) {
    let (sender, mut happenings) = mpsc::channel(WAITING);
    let writing = tokio::spawn(async move {
        let mut ledger = Ledger::default();
        while let Some(happening) = happenings.recv().await {
            ledger.note(happening);
        }
        ledger
    });
    (sender, writing)
}

/// Numbers that are looked at while the fleet runs.
#[derive(Debug, Default)]
pub struct Counts {
    /// Machines that are connected.
    pub connected: AtomicU64,
    /// Connections that were made.
    pub connections: AtomicU64,
    /// Connections that broke or were cut.
    pub breaks: AtomicU64,
    /// Restarts of machines.
    pub reboots: AtomicU64,
    /// Samples that were sent.
    pub samples: AtomicU64,
    /// Runs that were started.
    pub starts: AtomicU64,
    /// Runs that ended.
    pub ends: AtomicU64,
    /// Runs whose end the controller has acknowledged.
    pub settled: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn take(counter: &AtomicU64) {
        counter.fetch_sub(1, Ordering::Relaxed);
    }

    /// A number, now.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let get = Self::get;
        write!(
            f,
            "{} connected ({} connections, {} breaks, {} reboots), {} samples, {} runs started, {} ended, {} settled",
            get(&self.connected),
            get(&self.connections),
            get(&self.breaks),
            get(&self.reboots),
            get(&self.samples),
            get(&self.starts),
            get(&self.ends),
            get(&self.settled)
        )
    }
}
