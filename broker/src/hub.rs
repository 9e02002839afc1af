//! The hub: the one owner of subscriptions, retained messages and sessions.
//!
//! It reads the log in order; for each message it updates the retained store, finds the subscribers
//! in the topic tree, checks each receiver's rights and puts it into their outboxes. It never waits
//! for a session. What sessions request (to connect, to subscribe) comes as commands; each takes
//! effect at the position in the log at which its client sent it, so retained messages and live
//! ones have one order.

mod changes;
mod connect;
mod deliver;
mod directory;
mod keeping;
mod lasting;
mod parked;
mod subscribe;
mod sys;
#[cfg(test)]
mod tests;
mod wills;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use slotmap::SlotMap;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::BrokerError;
use crate::access::{Directory, Identity, Secret, SecretHash};
use crate::contract::{COMMAND_CAPACITY, Closed, Command, ConnectRequest, Parked};
use crate::front::Front;
use crate::limits::{ACCOUNT_PART_OF_RETAINED, ACCOUNT_PART_OF_RETAINED_BYTES};
use crate::message::{Message, SessionId};
use crate::outbox::{End, Outbox};
use crate::retained::{self, Retained};
use crate::spine;
use crate::store::{KeptSubscription, Restored, SessionKey, Store, StoredWill};
use crate::topic_tree::{Hits, TopicTree};

/// Messages taken from the log between two looks at everything else.
const BATCH: usize = 256;

/// A time that never comes, in milliseconds of the broker's clock.
const NEVER: u64 = u64::MAX;

/// How often the hub looks at its clocks: expiry, delayed wills, stalled sessions, the disk.
const TICK: Duration = Duration::from_millis(250);

/// How long sessions may take to leave when the broker stops.
const LEAVE: Duration = Duration::from_secs(3);

/// What the hub reads.
pub(crate) struct Inputs {
    pub(crate) spine: spine::Receiver,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Unbounded by type, bounded by what goes through it: one message per connection.
    pub(crate) closed: mpsc::UnboundedReceiver<Closed>,
    pub(crate) directory: watch::Receiver<Arc<Directory>>,
}

/// A client's session, connected or not.
struct Session {
    key: SessionKey,
    user_name: Box<str>,
    secret: Secret,
    identity: Arc<Identity>,
    outbox: Arc<Outbox>,
    subscriptions: Vec<KeptSubscription>,
    /// Where its client is; `None` while it is away.
    peer: Option<SocketAddr>,
    /// A newer connection that waits for the old one to let go.
    waiting: Option<Box<ConnectRequest>>,
    parked: Option<Box<Parked>>,
    /// When it ends if its client stays away, in milliseconds of the broker's clock.
    expires_at: u64,
    away_since: u64,
    /// The will of its client, until it is published or not needed any more.
    will: Option<StoredWill>,
    /// When the will is due, once its client has gone.
    will_due: Option<u64>,
    /// Seconds that it lives on without its client.
    expiry_seconds: u32,
    /// It is kept on disk, and comes back with the broker.
    is_on_disk: bool,
    /// Messages that wait for it are on disk too.
    has_queue_on_disk: bool,
    /// Its client is connected and something of `QoS` 2 has begun, of which the disk does not know
    /// how far it is.
    is_unsure: bool,
    /// Bytes that wait for it while its client is away; `None` while it is not counted among those.
    away_bytes: Option<usize>,
    /// The hash of the secret with which a joining machine asked to be enrolled.
    asked_secret: Option<SecretHash>,
    /// Until when it may wait for the answer, once that secret is in force.
    answer_until: Option<u64>,
}

/// The hub; see the module.
pub(crate) struct Hub {
    front: Arc<Front>,
    /// On the heap each, since the slots of a slot map are never given back.
    sessions: SlotMap<SessionId, Box<Session>>,
    keys: HashMap<SessionKey, SessionId>,
    /// What each account has of it all.
    accounts: HashMap<Arc<str>, parked::Account>,
    /// Bytes that wait for all sessions whose clients are away.
    away_bytes: usize,
    tree: TopicTree,
    retained: Retained,
    store: Option<Store>,
    directory: Arc<Directory>,
    /// Commands that wait until the hub has read up to their place in the log.
    deferred: VecDeque<Command>,
    /// Sessions whose queue is full, until it is at half its bound.
    congested: HashMap<SessionId, deliver::Congestion>,
    /// Sessions that have gone beyond a bound and are to be ended after this message.
    overflowing: Vec<(SessionId, &'static str)>,
    /// Wills from before an unclean stop, whose clients have not come back yet.
    orphaned_wills: HashMap<SessionKey, StoredWill>,
    will_changes: HashMap<SessionKey, Option<StoredWill>>,
    /// What of sessions is to be written.
    session_changes: changes::SessionChanges,
    /// Sessions whose clients came back to what waits for them on disk.
    returned: HashSet<SessionId>,
    lasting: lasting::Schedule,
    sys: sys::Sys,
    wakers: Vec<Waker>,
    hits: Hits,
}

impl Hub {
    /// A hub with what the store has restored.
    pub(crate) fn new(front: Arc<Front>, store: Option<Store>, restored: Restored) -> Self {
        let directory = front.directory.borrow().clone();
        let retained = Retained::new(retained::Bounds {
            messages: front.limits.retained_messages,
            bytes: front.limits.retained_bytes,
            messages_per_account: front.limits.retained_messages.div_ceil(ACCOUNT_PART_OF_RETAINED),
            bytes_per_account: front.limits.retained_bytes.div_ceil(ACCOUNT_PART_OF_RETAINED_BYTES),
        });
        let mut hub = Self {
            lasting: lasting::Schedule::new(&front),
            front,
            sessions: SlotMap::with_key(),
            keys: HashMap::new(),
            accounts: HashMap::new(),
            away_bytes: 0,
            tree: TopicTree::default(),
            retained,
            store,
            directory,
            deferred: VecDeque::new(),
            congested: HashMap::new(),
            overflowing: Vec::new(),
            orphaned_wills: HashMap::new(),
            will_changes: HashMap::new(),
            session_changes: changes::SessionChanges::default(),
            returned: HashSet::new(),
            sys: sys::Sys::default(),
            wakers: Vec::new(),
            hits: Hits::default(),
        };
        hub.restore(restored);
        hub
    }

    /// Runs until the broker stops, or until the log fails.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> Result<Stopped, BrokerError> {
        let stop = self.front.stop.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut frames: Vec<Bytes> = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(closed) = inputs.closed.recv() => self.deferred.push_back(Command::Closed(closed)),
                Ok(()) = inputs.directory.changed() => {
                    let directory = inputs.directory.borrow_and_update().clone();
                    self.on_directory(directory);
                }
                // Before the log, which may always have more under load.
                _ = tick.tick() => self.on_tick(),
                Some(command) = inputs.commands.recv(), if self.deferred.len() < COMMAND_CAPACITY => self.deferred.push_back(command),
                received = inputs.spine.receive(&mut frames, BATCH) => {
                    if let Err(error) = received {
                        self.write_what_is_left();
                        return Err(error);
                    }
                    frames.drain(..).for_each(|frame| self.on_frame(frame));
                    tokio::task::coop::consume_budget().await;
                }
            }
            self.run_due_commands(inputs.spine.position());
            self.wakers.drain(..).for_each(Waker::wake);
        }
        self.stop(inputs).await
    }

    fn run_due_commands(&mut self, read_up_to: u64) {
        while self.deferred.front().is_some_and(|command| command.position() <= read_up_to) {
            let Some(command) = self.deferred.pop_front() else { return };
            match command {
                Command::Subscribe(request) => self.on_subscribe(request),
                Command::Unsubscribe(request) => self.on_unsubscribe(request),
                Command::Connect(request) => self.on_connect(request),
                Command::Closed(closed) => self.on_closed(closed),
            }
        }
    }

    fn on_frame(&mut self, frame: Bytes) {
        if let Some(message) = Message::open(frame) {
            self.note_enrolment(&message);
            self.deliver(&Arc::new(message));
        } else {
            tracing::error!("an envelope of the log cannot be read");
        }
        while let Some((id, reason)) = self.overflowing.pop() {
            self.end_session(id, reason);
        }
        self.bound_away_bytes();
    }

    fn on_tick(&mut self) {
        let now_ms = self.front.clock.now_ms();
        self.expire_sessions(now_ms);
        self.review_enrolled(now_ms);
        self.publish_due_wills(now_ms);
        self.end_stalled_sessions(now_ms);
        self.note_caught_up();
        self.write_changes(now_ms);
        self.publish_statistics(now_ms);
    }

    /// Ends every session, takes in what was acknowledged, and hands over what must be written.
    async fn stop(mut self, mut inputs: Inputs) -> Result<Stopped, BrokerError> {
        inputs.commands.close();
        for command in std::mem::take(&mut self.deferred) {
            if let Command::Closed(closed) = command {
                self.on_closed(closed);
            }
        }
        let mut connected = 0;
        for session in self.sessions.values() {
            connected += usize::from(session.peer.is_some());
            session.outbox.end(End::ShuttingDown);
        }
        // Sessions that end late are not waited for.
        let drained = tokio::time::timeout(LEAVE, self.drain(&mut inputs, connected)).await;
        drained.unwrap_or(Ok(()))?;
        // Wills stay in the file: at the next start they are published unless their clients are
        // back in time.
        let last = self.last_batch();
        Ok(Stopped { store: self.store, last, _closed: inputs.closed, _spine: inputs.spine })
    }

    /// Reads the log to its end, while sessions leave that may still be publishing.
    async fn drain(&mut self, inputs: &mut Inputs, mut connected: usize) -> Result<(), BrokerError> {
        let mut frames = Vec::new();
        while connected > 0 || inputs.spine.position() < self.front.spine.position() {
            tokio::select! {
                received = inputs.spine.receive(&mut frames, BATCH) => {
                    received?;
                    frames.drain(..).for_each(|frame| self.on_frame(frame));
                }
                Some(closed) = inputs.closed.recv(), if connected > 0 => {
                    connected -= 1;
                    self.keep_at_stop(closed);
                }
                // Requests are not answered any more, and so need not be waited for.
                Some(command) = inputs.commands.recv() => drop(command),
            }
        }
        Ok(())
    }

    /// Publishes something of the broker's own, as soon as the log has room.
    fn publish_later(&self, mut frames: Vec<Bytes>) {
        if frames.is_empty() {
            return;
        }
        let front = self.front.clone();
        self.front.tasks.spawn(async move {
            // An error means that the broker is stopping.
            if front.spine.publish(&mut frames).await.is_err() {
                tracing::debug!("messages of the broker itself were not published: it is stopping");
            }
        });
    }
}

/// The time so many seconds after `now_ms`; `u32::MAX` seconds is never.
fn after_seconds(now_ms: u64, seconds: u32) -> u64 {
    if seconds == u32::MAX { NEVER } else { now_ms + u64::from(seconds) * 1000 }
}

/// What is left of a hub that has stopped.
pub(crate) struct Stopped {
    store: Option<Store>,
    last: Option<crate::store::Batch>,
    /// Sessions still report their ends here; they are not read any more.
    _closed: mpsc::UnboundedReceiver<Closed>,
    /// While sessions end, they may still be publishing.
    _spine: spine::Receiver,
}

impl Stopped {
    /// Waits until everything is on disk. Blocks: not for an async worker.
    pub(crate) fn finish(self) {
        if let Some(store) = self.store {
            store.close(self.last);
        }
    }
}
