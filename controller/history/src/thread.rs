//! The thread of the history: samples and questions are handed over, and nothing else waits for the
//! disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pistat_domain::fleet::Now;
use pistat_protocol::{id::PiId, stats::Sample, time::Timestamp};

use crate::store::Store;

/// Samples and questions that wait. Ten thousand machines at a sample each five seconds fill it in
/// four seconds, the longest that a transaction takes on a slow card.
const WAITING: usize = 8192;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);

/// Samples that are taken between two transactions of a flush.
const SAMPLES_AT_ONCE: usize = 1024;

/// The history has more to do than it can: ask again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the history is busy: ask again in a few seconds")]
pub struct Busy;

type Job = Box<dyn FnOnce(&mut Store, Now) + Send>;

enum Command {
    Live(PiId, Arc<Sample>, Now),
    Job(Job),
    End,
}

/// The way to the history's thread. Clones share it.
#[derive(Debug, Clone)]
pub struct History {
    sender: SyncSender<Command>,
    dropped: Arc<AtomicU64>,
}

impl History {
    /// Starts the thread. The handle is to be joined after [`History::end`].
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(store: Store) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("history".into()).spawn(move || run(store, &receiver))?;
        Ok((Self { sender, dropped: Arc::default() }, thread))
    }

    /// A sample came. If the thread cannot keep up, it is dropped and counted.
    pub fn live(&self, pi: &PiId, sample: &Arc<Sample>, now: Now) {
        self.hand_over(Command::Live(pi.clone(), sample.clone(), now));
    }

    /// Samples came afterwards, each with the time at which it was measured.
    ///
    /// # Errors
    /// Too much waits already: they are dropped and counted.
    pub fn late(&self, pi: &PiId, samples: Vec<(Timestamp, Sample)>) -> Result<(), Busy> {
        let (pi, count) = (pi.clone(), samples.len() as u64);
        let job = move |store: &mut Store, now: Now| {
            for (at, sample) in &samples {
                store.late(&pi, sample, *at, now);
            }
        };
        self.ask(job).inspect_err(|_| {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        })
    }

    /// A machine was forgotten. Unlike a sample, this is never dropped: it waits for its turn.
    pub fn forget(&self, pi: &PiId) {
        let pi = pi.clone();
        // The thread ends only by `end`; then nothing is left to do.
        let _ = self.sender.send(Command::Job(Box::new(move |store, _| store.forget(&pi))));
    }

    /// Does something with the store in its thread.
    ///
    /// # Errors
    /// Too much waits already.
    pub fn ask(&self, job: impl FnOnce(&mut Store, Now) + Send + 'static) -> Result<(), Busy> {
        self.sender.try_send(Command::Job(Box::new(job))).map_err(|_| Busy)
    }

    /// Samples that were dropped because the thread could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends the thread once everything is written.
    pub fn end(&self) {
        let _ = self.sender.send(Command::End);
    }

    fn hand_over(&self, command: Command) {
        if self.sender.try_send(command).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn run(mut store: Store, receiver: &Receiver<Command>) {
    let (mut is_busy, mut looked_at) = (false, Instant::now());
    loop {
        let timeout = if is_busy { Duration::ZERO } else { TICK };
        match receiver.recv_timeout(timeout) {
            Ok(command) => {
                let rest = std::iter::from_fn(|| receiver.try_recv().ok());
                for command in std::iter::once(command).chain(rest).take(SAMPLES_AT_ONCE) {
                    if !obey(&mut store, command) {
                        return store.close(Now::get());
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return store.close(Now::get()),
        }
        // Not after each sample: to look costs a large fleet as much as some dozens of them.
        if is_busy || looked_at.elapsed() >= TICK {
            is_busy = store.tick(Now::get());
            looked_at = Instant::now();
        }
    }
}

/// Tells whether to go on.
fn obey(store: &mut Store, command: Command) -> bool {
    match command {
        Command::Live(pi, sample, now) => store.live(&pi, &sample, now),
        Command::Job(job) => job(store, Now::get()),
        Command::End => return false,
    }
    true
}
