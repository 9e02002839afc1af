//! A run that needs root: the order is handed to the root runner as it came, and from then on its
//! words and the controller's are passed on.
//!
//! The runner answers the order with a nonce, which goes to the controller in a report; the
//! controller signs the order again with it. While nothing is started there is no record on disk: a
//! run that is dropped here is sent again.
//!
//! The run is the runner's: its record, its output and its end are there. So it goes on when this
//! process ends, and is found again at the next start. Here is only a record that says so. What is
//! published is always on this run's own topics, whatever the runner says.

use std::{io, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use pistat_protocol::{
    order::ExecuteOrder,
    status::{Nonce, ROOT_NONCE_LIFETIME, Session},
    task::RunState,
    topic::Topic,
};
use tokio::{net::UnixStream, sync::Semaphore, time::Instant};

use super::{Next, Run, empty_report, sleep_until};
use crate::{
    Outgoing,
    task::{delivery::Control, policy},
    waiting::Waiting,
    wire::{Kind, Step, Told, Wire, run_socket_beside},
};

/// Systemd starts a process and the order goes to the disk before the answer: seconds on a Pi Zero
/// that is busy.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(60);

/// Over the nonce's lifetime, for a runner that is slow to say that it took the order.
const NONCE_MARGIN: Duration = Duration::from_secs(20);

/// How many nonces are asked for while the controller is connected and signs none of them.
const MOST_NONCES: u32 = 2;

/// How soon to look again for a runner that has gone.
const RETRY: Duration = Duration::from_millis(500);

/// A runner that cannot be found for so long has been removed.
const GIVEN_UP: Duration = Duration::from_secs(120);

/// How long a session may take to be made.
const SESSION_WITHIN: Duration = Duration::from_secs(5);

/// What became of the question for a session.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The session that the root runner will accept orders for.
    Session(Session),
    /// It is there and did not answer, or makes none.
    Silent,
    /// Nobody listens: what is left is the socket of a runner that was removed.
    Nobody(SocketFile),
}

/// One socket in the file system: another that is made at its path later is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketFile {
    inode: u64,
    /// A file that is made later may get the number of one that was removed.
    changed: (i64, i64),
}

impl SocketFile {
    /// The one at this path, if this user may connect to it.
    pub(crate) fn find(path: &Path) -> Option<Self> {
        rustix::fs::access(path, rustix::fs::Access::WRITE_OK).ok()?;
        let found = std::fs::metadata(path).ok()?;
        Some(Self { inode: found.ino(), changed: (found.ctime(), found.ctime_nsec()) })
    }
}

/// Whether this error says that there is no runner, as opposed to one in trouble.
fn says_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// Asks the root runner for a session.
pub(crate) async fn ask_session(socket: std::path::PathBuf, file: SocketFile) -> Asked {
    let ask = async {
        let mut wire = Wire::new(UnixStream::connect(&socket).await?);
        wire.push(Kind::AskSession, &[]);
        wire.frame().await
    };
    match tokio::time::timeout(SESSION_WITHIN, ask).await {
        Ok(Ok(Some((Kind::Session, text)))) => {
            let text = String::from_utf8(text.into()).unwrap_or_default();
            Session::try_from(text).map_or(Asked::Silent, Asked::Session)
        }
        Ok(Ok(Some((Kind::Refused, sentence)))) => {
            tracing::warn!("the root runner makes no session: {}", String::from_utf8_lossy(&sentence));
            Asked::Silent
        }
        Ok(Err(error)) if says_nobody(&error) => Asked::Nobody(file),
        other => {
            tracing::warn!(?other, "the root runner does not answer; tasks that need root are refused");
            Asked::Silent
        }
    }
}

/// How a connection to the runner begins.
#[derive(Debug)]
enum Opening {
    Order(Bytes),
    Attach,
}

/// How a connection to the runner ended.
#[derive(Debug)]
enum End {
    /// The controller has everything.
    Done,
    /// Nothing was started.
    Refused(String),
    /// The runner never started it.
    Unknown,
    /// The agent is being stopped; the run goes on.
    Stopped,
    /// Cancelled before the runner had an order that it could start.
    Cancelled,
    /// The controller did not sign the order with the nonce in time; nothing was started.
    Unconfirmed,
    /// There was no connection: nothing was said.
    Unreached(io::Error),
    /// The connection broke; whether the runner had accepted the run by then.
    Broken(io::Error, bool),
}

/// What the runner has been told already over one connection.
#[derive(Default)]
struct Passed {
    told: Told,
    /// The last cancel that was passed on: one for a later session has to follow an earlier one.
    cancel: Option<Bytes>,
    /// The nonce that the runner gave, until the order was handed over with it.
    nonce: Option<Nonce>,
    accepted: bool,
    /// A message that waits for room on the way to the controller.
    waiting: Option<Outgoing>,
}

impl Run {
    /// Hands an order over once there is a place for it.
    pub(super) async fn hand_over(&mut self, order: &ExecuteOrder, signed: Bytes, places: Arc<Semaphore>) -> Next {
        let _place = match self.wait_for_place(places).await {
            Ok(place) => place,
            Err(next) => return next,
        };
        self.record.runner = Some(order.concurrency);
        self.record.report = empty_report(RunState::Running, &self.context.boot_id);
        tracing::info!(run = %order.run, task = %order.task, by = order.requested_by, "handing a task to the root runner");
        match self.prepare(&signed).await {
            End::Unreached(error) if says_nobody(&error) => self.reject(policy::not_installed(&order.task)).await,
            End::Unreached(error) => {
                let sentence = format!("the root runner of this machine could not be asked to take the task: {error}");
                self.reject(sentence).await
            }
            other => self.go_on(other).await,
        }
    }

    /// Hands the order over, with another nonce as long as the controller has not been connected
    /// for the time of a few.
    async fn prepare(&mut self, signed: &Bytes) -> End {
        let mut nonces = 0;
        loop {
            // A nonce is good for seconds: none is asked for while nobody can sign with it.
            if let Some(end) = self.wait_for_connection().await {
                return end;
            }
            let connection = self.control.borrow().connection;
            match self.pass_on(Opening::Order(signed.clone())).await {
                End::Unconfirmed if nonces + 1 < MOST_NONCES => {
                    nonces += u32::from(self.control.borrow().connection == connection);
                }
                end => return end,
            }
        }
    }

    /// Waits for the controller; a cancellation or the agent's end come first.
    async fn wait_for_connection(&mut self) -> Option<End> {
        loop {
            let control = self.control.borrow_and_update().clone();
            if control.stop {
                return Some(End::Stopped);
            }
            if control.cancel.is_some() {
                return Some(End::Cancelled);
            }
            if control.connection.is_some() {
                return None;
            }
            if self.control.changed().await.is_err() {
                return Some(End::Stopped);
            }
        }
    }

    /// A run that the runner was given by an earlier process of the agent.
    pub(super) async fn find_again(&mut self) -> Next {
        let end = self.pass_on(Opening::Attach).await;
        self.go_on(end).await
    }

    async fn go_on(&mut self, mut end: End) -> Next {
        let mut missing_since = Instant::now();
        let mut waiting: Option<Waiting> = None;
        loop {
            match end {
                End::Done => return Next::Forget,
                End::Stopped => return Next::Leave,
                End::Cancelled => {
                    self.record.runner = None;
                    let sentence = "cancelled before the root runner had its order".to_owned();
                    return self.end(RunState::Cancelled, None, Some(sentence)).await;
                }
                End::Unconfirmed => {
                    let sentence = "the controller did not sign the order again with the root runner's nonce: if it is older than this agent, update it";
                    return self.reject(sentence.to_owned()).await;
                }
                End::Refused(sentence) => return self.reject(format!("the root runner refused it: {sentence}")).await,
                End::Unknown => {
                    return self.reject("the order did not reach the root runner of this machine".to_owned()).await;
                }
                End::Broken(error, true) => {
                    missing_since = Instant::now();
                    waiting = None;
                    tracing::info!(run = %self.record.run, %error, "the root runner has gone; looking for it");
                }
                End::Unreached(error) | End::Broken(error, false) if missing_since.elapsed() >= GIVEN_UP => {
                    let sentence = format!("the root runner that had this run cannot be reached any more: {error}");
                    return self.end(RunState::Lost, None, Some(sentence)).await;
                }
                End::Unreached(error) | End::Broken(error, false) => {
                    let what = format!("the root runner that has run {}: {error}", self.record.run);
                    match &waiting {
                        Some(waiting) => waiting.update(what),
                        None => waiting = Some(Waiting::begin(what)),
                    }
                }
            }
            if !self.rest().await {
                return Next::Leave;
            }
            end = self.pass_on(Opening::Attach).await;
        }
    }

    async fn reject(&mut self, sentence: String) -> Next {
        self.record.runner = None;
        self.end(RunState::Rejected, None, Some(sentence)).await
    }

    /// Waits a moment; `false` when the agent is being stopped meanwhile.
    async fn rest(&mut self) -> bool {
        let until = Instant::now() + RETRY;
        loop {
            if self.control.borrow_and_update().stop {
                return false;
            }
            tokio::select! {
                changed = self.control.changed() => if changed.is_err() { return false },
                () = tokio::time::sleep_until(until) => return true,
            }
        }
    }

    /// One connection from its beginning to its end.
    async fn pass_on(&mut self, opening: Opening) -> End {
        let mut passed = Passed::default();
        match self.connect(opening).await {
            Ok(mut wire) => match self.pass_both_ways(&mut wire, &mut passed).await {
                Ok(end) => end,
                Err(_) if passed.nonce.is_some() => End::Unconfirmed,
                Err(error) => End::Broken(error, passed.accepted),
            },
            Err(error) => End::Unreached(error),
        }
    }

    /// A run that is alive has a socket of its own; otherwise a new instance of the runner is
    /// asked.
    async fn connect(&self, opening: Opening) -> io::Result<Wire> {
        let Some(socket) = &self.context.runner_socket else { return Err(io::ErrorKind::NotFound.into()) };
        if let Opening::Attach = opening
            && let Ok(stream) = UnixStream::connect(run_socket_beside(socket, self.record.run)).await
        {
            return Ok(Wire::new(stream));
        }
        let mut wire = Wire::new(UnixStream::connect(socket).await?);
        match opening {
            Opening::Order(signed) => wire.push(Kind::Prepare, &signed),
            Opening::Attach => wire.push(Kind::Attach, self.record.run.to_string().as_bytes()),
        }
        Ok(wire)
    }

    async fn pass_both_ways(&mut self, wire: &mut Wire, passed: &mut Passed) -> io::Result<End> {
        let outgoing = self.context.outgoing.clone();
        let mut waiting = Some(Waiting::begin(format!("the root runner to take run {}", self.record.run)));
        let mut accept_by = Instant::now() + ACCEPTED_WITHIN;
        loop {
            let control = self.control.borrow_and_update().clone();
            if control.stop {
                return Ok(End::Stopped);
            }
            if passed.accepted {
                drop(waiting.take());
            }
            if wire.is_flushed() && passed.accepted {
                tell(wire, &control, passed);
            }
            if let Some(end) = self.confirm(wire, &control, passed).await {
                return Ok(end);
            }
            tokio::select! {
                biased;
                changed = self.control.changed() => if changed.is_err() { return Ok(End::Stopped) },
                permit = outgoing.reserve(), if passed.waiting.is_some() => {
                    if let (Ok(permit), Some(next)) = (permit, passed.waiting.take()) { permit.send(next); }
                }
                step = wire.step(), if passed.waiting.is_none() => match step? {
                    Step::Frame(Kind::Nonce, payload) => {
                        self.ask_for_signature(&payload, passed)?;
                        accept_by = Instant::now() + ROOT_NONCE_LIFETIME + NONCE_MARGIN;
                    }
                    Step::Frame(kind, payload) => if let Some(end) = self.hear(kind, payload, passed) { return Ok(end) },
                    Step::Flushed => {}
                    Step::Closed => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
                },
                () = sleep_until(Some(accept_by)), if !passed.accepted => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// The runner waits for the order with this nonce: the controller is told.
    fn ask_for_signature(&self, payload: &[u8], passed: &mut Passed) -> io::Result<()> {
        let nonce = String::from_utf8_lossy(payload).into_owned();
        let nonce = Nonce::try_from(nonce).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let mut report = empty_report(RunState::Dispatched, &self.context.boot_id);
        report.nonce = Some(nonce.clone());
        passed.nonce = Some(nonce);
        passed.waiting = Some(self.outgoing(Topic::Report, pistat_protocol::codec::encode(&report).into(), false));
        Ok(())
    }

    /// Hands the order over once the controller has signed it with the nonce: on disk first. Until
    /// then a cancellation ends it here.
    async fn confirm(&self, wire: &mut Wire, control: &Control, passed: &mut Passed) -> Option<End> {
        let nonce = passed.nonce.as_ref()?;
        if control.cancel.is_some() {
            return Some(End::Cancelled);
        }
        let (_, signed) = control.order.as_ref().filter(|(named, _)| named == nonce)?;
        if let Err(error) = self.write().await {
            let sentence = format!("not started: the state of runs cannot be written on this machine: {error}");
            return Some(End::Refused(sentence));
        }
        passed.nonce = None;
        wire.push(Kind::Execute, signed);
        None
    }

    fn hear(&self, kind: Kind, payload: Bytes, passed: &mut Passed) -> Option<End> {
        match kind {
            Kind::Accepted => passed.accepted = true,
            Kind::Report => passed.waiting = Some(self.outgoing(Topic::Report, payload, false)),
            Kind::Output => passed.waiting = Some(self.outgoing(Topic::Output, payload, false)),
            Kind::Repetition => passed.waiting = Some(self.outgoing(Topic::Output, payload, true)),
            Kind::Done => return Some(End::Done),
            Kind::Unknown => return Some(End::Unknown),
            Kind::Refused => return Some(End::Refused(String::from_utf8_lossy(&payload).into_owned())),
            Kind::Busy => {
                let error = io::Error::new(io::ErrorKind::WouldBlock, "another instance of it has the run");
                return Some(End::Broken(error, false));
            }
            other => tracing::warn!(kind = ?other, "not for an agent"),
        }
        None
    }

    fn outgoing(
        &self,
        topic: impl Fn(pistat_protocol::id::PiId, pistat_protocol::id::RunId) -> Topic,
        payload: Bytes,
        retain: bool,
    ) -> Outgoing {
        Outgoing { topic: topic(self.context.pi.clone(), self.record.run), payload: payload.into(), qos: 1, retain }
    }
}

/// Tells the runner what has changed since it was last told.
fn tell(wire: &mut Wire, control: &Control, passed: &mut Passed) {
    let Control { connection, repeats, ack, acks, .. } = *control;
    let told = Told { connection, repeats, ack, acks };
    if told != passed.told {
        passed.told = told;
        wire.push(Kind::Told, &pistat_protocol::codec::encode(&told));
    }
    if let Some(cancel) = control.cancel.as_ref().filter(|cancel| passed.cancel.as_ref() != Some(cancel)) {
        passed.cancel = Some(cancel.clone());
        wire.push(Kind::Cancel, cancel);
    }
}
