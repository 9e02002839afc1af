//! Tasks on this machine: which orders are accepted, which runs are known, and what becomes of
//! them.
//!
//! An order is verified before anything else of it is looked at. What is unsigned, altered,
//! foreign, stale or replayed starts nothing and publishes nothing on its run, so that nobody can
//! turn a run's state by sending rubbish; it is counted and told in `info`. A signed order that
//! this machine's own policy refuses is reported as `rejected`. A run that is known is never
//! started again: its report is repeated.

pub(crate) mod delivery;
mod kin;
mod output;
pub(crate) mod policy;
mod process;
pub(crate) mod record;
pub(crate) mod run;
mod supervisor;
mod utf8;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use pistat_protocol::{
    id::{RunId, TaskId},
    order::{CancelOrder, ExecuteOrder, OrderError, PublicKey, Verified, VerifiedOrder},
    status::Session,
    task::Ack,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
};

use self::{
    delivery::Control,
    policy::Root,
    record::Record,
    run::{Context, Start},
};
pub(crate) use self::{
    kin::{adopt_orphans, reap_orphans},
    run::{Asked, SocketFile, ask_session},
};
use crate::{AgentOptions, Outgoing, options::Policy};

/// How many runs a machine keeps in mind at a time, running, waiting for a place, or waiting to be
/// acknowledged. Far more than anybody waits for, and at 1 MiB of output each still less than a
/// small Pi's memory in all but the worst case.
const MAX_KNOWN_RUNS: usize = 256;

/// How many finished runs are remembered within a session, so that a replayed order cannot start
/// one again (16 bytes each).
const MAX_FINISHED_RUNS: usize = 4096;

/// Why an order did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It cannot be trusted.
    #[error("{0}")]
    Order(#[from] OrderError),
    /// It was delivered with the retain flag.
    #[error("it was delivered with the retain flag; a retained order never runs")]
    Retained,
    /// There is no session yet.
    #[error("it came before this agent had told its session")]
    NoSession,
    /// It was for a run that has ended in this session.
    #[error("its run has ended already: it is a replay")]
    Replayed,
    /// Too many runs are known.
    #[error("this machine already keeps {MAX_KNOWN_RUNS} runs")]
    TooMany,
}

/// What has to be done about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum OrderOutcome {
    /// Nothing more.
    Accepted,
    /// It needs root and names a session that the root runner has not made: it has to be sent again
    /// for one that it has.
    NeedsRunnersSession,
}

/// The runs of this machine.
pub(crate) struct Runs {
    context: Arc<Context>,
    key: PublicKey,
    policy: Policy,
    runner_socket: PathBuf,
    /// Whether the session is the root runner's; unknown while it was not asked for one.
    runner_session: Option<bool>,
    /// The socket that nobody listens at.
    dead_socket: Option<SocketFile>,
    known: BTreeMap<RunId, watch::Sender<Control>>,
    finished: Finished,
    actors: JoinSet<RunId>,
    places: HashMap<TaskId, (u32, Arc<Semaphore>)>,
    connection: Option<u64>,
    connections: u64,
    refused: u64,
    last_refusal: Option<String>,
}

impl Runs {
    /// Reads the folder and settles what an earlier process of the agent left behind. Needs a
    /// runtime.
    ///
    /// # Errors
    /// The folder cannot be made, read or written.
    pub(crate) fn load(options: &AgentOptions, boot_id: String, outgoing: mpsc::Sender<Outgoing>) -> io::Result<Self> {
        std::fs::create_dir_all(&options.runs)?;
        let records = record::load(&options.runs)?;
        let context = Context {
            pi: options.pi.clone(),
            folder: options.runs.clone(),
            boot_id,
            nice: options.nice,
            launcher: options.launcher.clone(),
            stop_grace: options.stop_grace,
            outgoing,
            runner_socket: Some(options.runner_socket.clone()),
        };
        let mut runs = Self {
            context: Arc::new(context),
            key: options.controller_key.clone(),
            policy: options.policy.clone(),
            runner_socket: options.runner_socket.clone(),
            runner_session: None,
            dead_socket: None,
            known: BTreeMap::new(),
            finished: Finished::default(),
            actors: JoinSet::new(),
            places: HashMap::new(),
            connection: None,
            connections: 0,
            refused: 0,
            last_refusal: None,
        };
        for record in records {
            let place = runs.place_of(&record);
            runs.start(record.run, Start::Recovered(Box::new(record), place));
        }
        Ok(runs)
    }

    /// The runs that are on this machine's disk or wait for a place, oldest first.
    pub(crate) fn known(&self) -> Vec<RunId> {
        self.known.keys().copied().collect()
    }

    /// How many orders were refused as not to be trusted, and why the last of them was.
    pub(crate) fn refused(&self) -> (u64, Option<&str>) {
        (self.refused, self.last_refusal.as_deref())
    }

    /// Whether the root runner is installed, for this user.
    pub(crate) fn has_runner(&self) -> bool {
        self.runner_to_ask().is_some()
    }

    /// Where to ask the root runner for a session, if it is installed.
    pub(crate) fn runner_to_ask(&self) -> Option<(PathBuf, SocketFile)> {
        let file = SocketFile::find(&self.runner_socket).filter(|file| self.dead_socket != Some(*file))?;
        Some((self.runner_socket.clone(), file))
    }

    /// Nobody listens at this socket: there is no root runner until there is another.
    pub(crate) fn runner_is_gone(&mut self, socket: SocketFile) {
        self.dead_socket = Some(socket);
    }

    /// Whether the session of this connection is the root runner's; `None` when it was not asked
    /// for one.
    pub(crate) fn set_runner_session(&mut self, is_runners: Option<bool>) {
        self.runner_session = is_runners;
    }

    /// An order for a run has come on its topic.
    pub(crate) fn order(
        &mut self,
        run: RunId,
        payload: &[u8],
        retain: bool,
        session: Option<&Session>,
    ) -> OrderOutcome {
        self.try_order(run, payload, retain, session).unwrap_or_else(|refusal| {
            self.refused += 1;
            tracing::warn!(%run, reason = %refusal, refused = self.refused, "an order was refused");
            self.last_refusal = Some(format!("an order for run {run}: {refusal}"));
            OrderOutcome::Accepted
        })
    }

    fn try_order(
        &mut self,
        run: RunId,
        payload: &[u8],
        retain: bool,
        session: Option<&Session>,
    ) -> Result<OrderOutcome, Refusal> {
        if retain {
            return Err(Refusal::Retained);
        }
        let session = session.ok_or(Refusal::NoSession)?;
        let pi = self.context.pi.clone();
        match self.key.verify(payload)? {
            VerifiedOrder::Execute(order) => self.execute(order.accept(&pi, session, run)?, payload),
            VerifiedOrder::Cancel(order) => self.cancel(&order.accept(&pi, session, run)?, payload),
            VerifiedOrder::Enroll(_) => Err(OrderError::OtherTopic.into()),
        }
    }

    fn execute(&mut self, order: Verified<ExecuteOrder>, signed: &[u8]) -> Result<OrderOutcome, Refusal> {
        let run = order.get().run;
        if let Some(known) = self.known.get(&run) {
            if let Some(nonce) = order.get().nonce.clone()
                && policy::check(&self.policy, order.get(), Root::Available).is_ok()
            {
                known.send_modify(|control| control.order = Some((nonce, Bytes::copy_from_slice(signed))));
                return Ok(OrderOutcome::Accepted);
            }
            tracing::debug!(%run, "the run is known: its report is repeated");
            known.send_modify(|control| control.repeats += 1);
            return Ok(OrderOutcome::Accepted);
        }
        if self.finished.contains(run) {
            return Err(Refusal::Replayed);
        }
        if self.known.len() >= MAX_KNOWN_RUNS {
            return Err(Refusal::TooMany);
        }
        let root = match (self.has_runner(), self.runner_session) {
            (false, _) => Root::NotInstalled,
            // Installed since this connection began.
            (true, None) if order.get().root => return Ok(OrderOutcome::NeedsRunnersSession),
            (true, Some(true) | None) => Root::Available,
            (true, Some(false)) => Root::Silent,
        };
        let start = match policy::check(&self.policy, order.get(), root) {
            Ok(()) => {
                let places = self.places_of(&order.get().task, order.get().concurrency);
                Start::Execute { order: Box::new(order), signed: Bytes::copy_from_slice(signed), places }
            }
            Err(sentence) => Start::Refused(order.get().task.clone(), sentence),
        };
        self.start(run, start);
        Ok(OrderOutcome::Accepted)
    }

    fn cancel(&mut self, order: &Verified<CancelOrder>, signed: &[u8]) -> Result<OrderOutcome, Refusal> {
        let run = order.get().run;
        if let Some(known) = self.known.get(&run) {
            known.send_modify(|control| {
                control.cancel = Some(Bytes::copy_from_slice(signed));
                control.repeats += 1;
            });
        } else if self.known.len() >= MAX_KNOWN_RUNS {
            return Err(Refusal::TooMany);
        } else if !self.finished.contains(run) {
            self.start(run, Start::Cancelled);
        }
        Ok(OrderOutcome::Accepted)
    }

    /// The place of a run that the root runner may still have.
    fn place_of(&mut self, record: &Record) -> Option<OwnedSemaphorePermit> {
        let task = record.task.as_ref().filter(|_| !record.report.state.is_final())?;
        self.places_of(task, record.runner?).try_acquire_owned().ok()
    }

    /// The places of a task. When the catalogue has changed their number, later runs go by the new
    /// one.
    fn places_of(&mut self, task: &TaskId, concurrency: u32) -> Arc<Semaphore> {
        let wanted = concurrency.max(1);
        // Nobody holds a place of these any more.
        self.places
            .retain(|_, (size, places)| places.available_permits() < *size as usize || Arc::strong_count(places) > 1);
        let new = || (wanted, Arc::new(Semaphore::new(wanted as usize)));
        let entry = self.places.entry(task.clone()).or_insert_with(new);
        if entry.0 != wanted {
            *entry = new();
        }
        entry.1.clone()
    }

    fn start(&mut self, run: RunId, start: Start) {
        let (control, controlled) = watch::channel(Control { connection: self.connection, ..Control::default() });
        self.known.insert(run, control);
        self.actors.spawn(run::run(self.context.clone(), run, start, controlled));
    }

    /// The controller has something of a run on its disk.
    pub(crate) fn acknowledge(&mut self, run: RunId, ack: Ack) {
        if let Some(known) = self.known.get(&run) {
            // Each replaces what the run has not looked at yet, so what only the earlier one said
            // is kept.
            known.send_modify(|control| {
                let before = control.ack.unwrap_or(Ack { seq: None, state: None });
                control.ack = Some(Ack { seq: ack.seq.max(before.seq), state: ack.state.or(before.state) });
                control.acks += 1;
            });
        }
    }

    /// A new connection: everything that is not acknowledged is repeated.
    pub(crate) fn connected(&mut self) {
        self.connections += 1;
        self.connection = Some(self.connections);
        // Orders of the earlier session are refused by their session, whatever their run.
        self.finished = Finished::default();
        self.tell_all(|control, connection| control.connection = connection);
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        self.connection = None;
        self.tell_all(|control, connection| control.connection = connection);
    }

    /// The controller has come back: it may have missed what was sent meanwhile.
    pub(crate) fn repeat(&mut self) {
        self.tell_all(|control, _| control.repeats += 1);
    }

    fn tell_all(&self, tell: impl Fn(&mut Control, Option<u64>)) {
        for known in self.known.values() {
            known.send_modify(|control| tell(control, self.connection));
        }
    }

    /// Waits for the next run that can be forgotten; pends while there is none.
    pub(crate) async fn settled(&mut self) {
        match self.actors.join_next().await {
            Some(Ok(run)) => {
                self.known.remove(&run);
                self.finished.insert(run);
            }
            // A run's actor died of a fault of ours: its record stays on disk and is settled at the
            // next start.
            Some(Err(error)) => tracing::error!(%error, "a run's bookkeeping failed"),
            None => std::future::pending().await,
        }
    }

    /// Ends every process. What could not be delivered stays on disk for the next start.
    pub(crate) async fn stop(&mut self) {
        /// Over the processes' own grace: for SIGKILL, the records and the last reports.
        const MARGIN: Duration = Duration::from_secs(2);
        self.tell_all(|control, _| control.stop = true);
        let all = async { while self.actors.join_next().await.is_some() {} };
        if tokio::time::timeout(self.context.stop_grace + MARGIN, all).await.is_err() {
            tracing::warn!(
                runs = self.actors.len(),
                "some runs did not end in time; they are settled at the next start"
            );
        }
    }
}

/// The runs that have ended in this session. Older ones than are remembered count as ended too: run
/// ids are in the order of their making.
#[derive(Debug, Default)]
struct Finished {
    runs: BTreeSet<RunId>,
    floor: Option<RunId>,
}

impl Finished {
    fn contains(&self, run: RunId) -> bool {
        self.floor.is_some_and(|floor| run <= floor) || self.runs.contains(&run)
    }

    fn insert(&mut self, run: RunId) {
        self.runs.insert(run);
        if self.runs.len() > MAX_FINISHED_RUNS {
            self.floor = self.runs.pop_first().max(self.floor);
        }
    }
}

#[cfg(test)]
mod tests;
