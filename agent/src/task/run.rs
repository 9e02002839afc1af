//! One run on this machine, from its order until the controller has everything: an actor that owns
//! its record, process and output.
//!
//! Its record is on disk before anything happens. It never waits for the controller: what to send
//! is decided by [`Delivery`], and the process is held back only by a controller that acknowledges.
//! Nothing of a run outlives it: what its first process leaves behind is ended.

mod handover;
mod settle;

pub(crate) use self::handover::{Asked, SocketFile, ask_session};

use std::{ffi::OsString, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use pistat_protocol::{
    id::{PiId, RunId, TaskId},
    order::{ExecuteOrder, Verified},
    task::{Ends, Report, RunState},
    time::Timestamp,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::Instant,
};

use super::{
    delivery::{Control, Delivery},
    kin::{Kin, Presence},
    process::Command,
    record::Record,
    supervisor::{Cause, Ended, Limits, Supervisor},
};
use crate::{Outgoing, waiting::Waiting};

/// What all runs of an agent share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The machine.
    pub pi: PiId,
    /// The folder of records.
    pub folder: PathBuf,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// The nice value of tasks.
    pub nice: i32,
    /// Words before each task's own.
    pub launcher: Vec<OsString>,
    /// How long running tasks may take to end when the agent is stopped.
    pub stop_grace: Duration,
    /// Where everything is published.
    pub outgoing: mpsc::Sender<Outgoing>,
    /// Where the root runner listens, to which orders that need root are handed; `None` in the root
    /// runner itself.
    pub runner_socket: Option<PathBuf>,
}

/// How a run begins.
#[derive(Debug)]
pub(crate) enum Start {
    /// A verified and allowed order, the bytes that the controller signed, and the places of its
    /// task.
    Execute {
        /// The order.
        order: Box<Verified<ExecuteOrder>>,
        /// As it came: the root runner verifies it itself.
        signed: Bytes,
        /// One for each run of the task that may be active at a time.
        places: Arc<Semaphore>,
    },
    /// An order that this machine's own policy refuses, with the sentence why.
    Refused(TaskId, String),
    /// A cancellation that came before the order.
    Cancelled,
    /// Found on disk when the agent started, with the place of its task when it may still be
    /// active.
    Recovered(Box<Record>, Option<OwnedSemaphorePermit>),
}

/// Runs it to its very end. Returns its id.
pub(crate) async fn run(context: Arc<Context>, id: RunId, start: Start, control: watch::Receiver<Control>) -> RunId {
    let task = match &start {
        Start::Execute { order, .. } => Some(order.get().task.clone()),
        Start::Refused(task, _) => Some(task.clone()),
        Start::Cancelled => None,
        Start::Recovered(record, _) => record.task.clone(),
    };
    let record = Record {
        run: id,
        task,
        ends: Ends::Exit,
        started_boot_milliseconds: boot_milliseconds(),
        timeout_milliseconds: 0,
        grace_milliseconds: None,
        cancelled: false,
        runner: None,
        report: empty_report(RunState::Running, &context.boot_id),
    };
    let delivery = Delivery::new(context.pi.clone(), id, record.report.clone(), Instant::now());
    let run = Run { context, record, delivery, control, started: None };
    run.live(start).await;
    id
}

/// A report without anything but its state.
pub(crate) fn empty_report(state: RunState, boot_id: &str) -> Report {
    Report {
        state,
        started_at: None,
        finished_at: None,
        elapsed_milliseconds: None,
        exit_code: None,
        reason: None,
        boot_id: boot_id.to_owned(),
        output_chunks: None,
        output_bytes: None,
        dropped_bytes: 0,
        nonce: None,
    }
}

/// Milliseconds since boot, suspended time included: comparable as long as the machine is not
/// restarted.
pub(crate) fn boot_milliseconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

struct Run {
    context: Arc<Context>,
    record: Record,
    delivery: Delivery,
    control: watch::Receiver<Control>,
    /// When it started, if that was in this boot.
    started: Option<Instant>,
}

/// Whether a run goes on to be delivered, or is left as it is on disk for the agent's next start.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Deliver,
    Leave,
    /// The root runner has delivered everything already.
    Forget,
}

impl Run {
    async fn live(mut self, start: Start) {
        let next = match start {
            Start::Execute { order, signed, places } => match &self.context.runner_socket {
                Some(_) if order.get().root => self.hand_over(order.get(), signed, places).await,
                _ => self.execute(*order, places).await,
            },
            Start::Refused(_, sentence) => self.end(RunState::Rejected, None, Some(sentence)).await,
            Start::Cancelled => {
                let sentence = "cancelled before its order reached this machine".to_owned();
                self.end(RunState::Cancelled, None, Some(sentence)).await
            }
            Start::Recovered(record, _place) => self.settle(*record).await,
        };
        let forgets = match next {
            Next::Deliver => self.deliver().await,
            Next::Forget => true,
            Next::Leave => false,
        };
        if forgets {
            self.forget().await;
        }
    }

    // --- execution

    async fn execute(&mut self, order: Verified<ExecuteOrder>, places: Arc<Semaphore>) -> Next {
        let place = match self.wait_for_place(places).await {
            Ok(place) => place,
            Err(next) => return next,
        };
        if let Err(error) = self.begin(order.get()).await {
            let sentence = format!("not started: the state of runs cannot be written on this machine: {error}");
            return self.end(RunState::Rejected, None, Some(sentence)).await;
        }
        let limits = Limits {
            timeout: Duration::from_millis(order.get().timeout_milliseconds),
            grace: Duration::from_millis(order.get().grace_milliseconds),
        };
        let mut presence = Presence::announce();
        let process = match Command::from_order(&order, self.context.launcher.clone(), self.context.nice).start().await
        {
            Ok(process) => process,
            Err(error) => return self.end(RunState::Failed, Some(error.exit_code()), Some(error.to_string())).await,
        };
        presence.lead_by(process.leader());
        let ended = self.supervise(Supervisor::new(process, limits)).await;
        drop((presence, place));
        self.conclude(ended).await
    }

    /// Waits until fewer runs of the task are active than it allows; a cancellation or the agent's
    /// end come first.
    async fn wait_for_place(&mut self, places: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Next> {
        if places.available_permits() == 0 {
            tracing::info!(run = %self.record.run, "waiting for an earlier run of the same task to end");
        }
        let place = places.acquire_owned();
        tokio::pin!(place);
        loop {
            let control = self.control.borrow_and_update().clone();
            if control.stop {
                // Nothing has happened and nothing is on disk: the controller sends it again.
                return Err(Next::Leave);
            }
            if control.cancel.is_some() {
                let sentence = "cancelled while it waited for an earlier run of its task".to_owned();
                return Err(self.end(RunState::Cancelled, None, Some(sentence)).await);
            }
            tokio::select! {
                biased;
                changed = self.control.changed() => if changed.is_err() { return Err(Next::Leave) },
                place = &mut place => return place.map_err(|_| Next::Leave),
            }
        }
    }

    async fn begin(&mut self, order: &ExecuteOrder) -> io::Result<()> {
        self.started = Some(Instant::now());
        self.record.ends = order.ends;
        self.record.timeout_milliseconds = order.timeout_milliseconds;
        self.record.grace_milliseconds = Some(order.grace_milliseconds);
        self.record.started_boot_milliseconds = boot_milliseconds();
        self.record.report.started_at = Some(Timestamp::from(std::time::SystemTime::now()));
        self.delivery.set_report(self.record.report.clone());
        tracing::info!(run = %order.run, task = %order.task, by = order.requested_by, argv = ?order.argv, "running a task");
        self.write().await
    }

    async fn supervise(&mut self, mut supervisor: Supervisor) -> Ended {
        let outgoing = self.context.outgoing.clone();
        let kin = Kin::of(self.record.run, supervisor.leader());
        loop {
            let now = Instant::now();
            self.take_control(now);
            let grace = self.context.stop_grace;
            if let Some(ended) = supervisor.advance(&self.control.borrow(), &mut self.delivery, &kin, grace, now) {
                return ended;
            }
            self.remember_cancel().await;
            let wake = self.delivery.wakes_at().into_iter().chain(supervisor.wakes_at()).min();
            tokio::select! {
                biased;
                changed = self.control.changed() => if changed.is_err() { supervisor.abandon(&kin) },
                permit = outgoing.reserve(), if !self.delivery.is_idle() => self.send(permit.ok(), now),
                () = sleep_until(wake) => self.wake(),
                event = supervisor.event(self.delivery.may_read()) => supervisor.handle(event, &mut self.delivery, &kin),
            }
        }
    }

    /// A cancel is put on disk before the run has ended, so that it counts if the agent is killed
    /// meanwhile.
    async fn remember_cancel(&mut self) {
        if self.record.cancelled || self.control.borrow().cancel.is_none() {
            return;
        }
        self.record.cancelled = true;
        if let Err(error) = self.write().await {
            tracing::warn!(run = %self.record.run, %error, "a cancel could not be written; it is in force all the same");
        }
    }

    /// What the end of its process means for the run.
    async fn conclude(&mut self, ended: Ended) -> Next {
        self.delivery.finish_output();
        let restarts = self.record.ends != Ends::Exit;
        let may_restart = ended.exit.code == Some(0) || ended.exit.by_signal;
        match ended.cause {
            Cause::Stopped if restarts => Next::Leave,
            Cause::ByItself if restarts && may_restart => self.await_restart().await,
            _ => {
                let (state, code, reason) = ended.verdict();
                self.end(state, code, reason).await
            }
        }
    }

    // --- delivery

    /// Delivers until the controller has everything; `false` when the agent is being stopped before
    /// that.
    async fn deliver(&mut self) -> bool {
        loop {
            let now = Instant::now();
            self.take_control(now);
            if self.delivery.is_done(now) {
                return true;
            }
            if self.control.borrow().stop && self.delivery.is_idle() {
                return false;
            }
            if !self.step(None).await {
                return false;
            }
        }
    }

    /// Sends or waits once; `false` when the registry is gone.
    async fn step(&mut self, deadline: Option<Instant>) -> bool {
        let wake = self.delivery.wakes_at().into_iter().chain(deadline).min();
        let outgoing = self.context.outgoing.clone();
        tokio::select! {
            biased;
            changed = self.control.changed() => return changed.is_ok(),
            permit = outgoing.reserve(), if !self.delivery.is_idle() => self.send(permit.ok(), Instant::now()),
            () = sleep_until(wake) => self.wake(),
        }
        true
    }

    fn take_control(&mut self, now: Instant) {
        let control = self.control.borrow_and_update().clone();
        self.delivery.take(&control, now);
    }

    fn send(&mut self, permit: Option<mpsc::Permit<'_, Outgoing>>, now: Instant) {
        let Some(permit) = permit else { return };
        if let Some(next) = self.delivery.next(now) {
            permit.send(next);
        }
    }

    fn wake(&mut self) {
        if let Some(probe) = self.delivery.wake(Instant::now()) {
            // Only a question: when the connection is full it will be asked again.
            let _ = self.context.outgoing.try_send(probe);
        }
    }

    // --- the record

    /// Reaches a final state: on disk first, then on its way to the controller.
    async fn end(&mut self, state: RunState, exit_code: Option<i32>, reason: Option<String>) -> Next {
        let report = &mut self.record.report;
        report.state = state;
        report.exit_code = exit_code;
        report.reason = reason;
        if report.started_at.is_some() {
            report.finished_at = Some(Timestamp::from(std::time::SystemTime::now()));
            report.output_chunks = Some(self.delivery.output.chunk_count());
            report.output_bytes = Some(self.delivery.output.text_bytes());
            report.dropped_bytes = self.delivery.output.dropped_bytes();
        }
        if let Some(started) = self.started.filter(|_| state != RunState::Lost && report.started_at.is_some()) {
            report.elapsed_milliseconds = u64::try_from(started.elapsed().as_millis()).ok();
        }
        tracing::info!(run = %self.record.run, %state, exit_code, reason = self.record.report.reason, "a run has ended");
        if let Err(error) = self.write().await {
            tracing::error!(run = %self.record.run, %error, "the end of a run could not be written; it is reported all the same");
        }
        self.delivery.set_report(self.record.report.clone());
        Next::Deliver
    }

    async fn write(&self) -> io::Result<()> {
        let (record, folder) = (self.record.clone(), self.context.folder.clone());
        on_disk(move || record.write(&folder)).await
    }

    async fn forget(&self) {
        let (run, folder) = (self.record.run, self.context.folder.clone());
        if let Err(error) = on_disk(move || Record::remove(&folder, run)).await {
            tracing::warn!(%run, %error, "the record of a finished run could not be removed; its report will be repeated");
        }
    }
}

/// An fsync on an SD card may take a second: never on the thread that measures.
async fn on_disk(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let _waiting = Waiting::begin("the disk to take the state of a run; the run goes on when it has");
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
