//! The outbox of one session: what the hub has delivered and the client has not been sent yet.
//!
//! It is the only thing that the hub and a session's task share. The hub puts messages in and never
//! waits; the task takes them out as the client's window allows. `QoS` 0 is bounded by dropping its
//! oldest, counted, but only for a client that does not keep up: for one that does, publishers wait
//! a moment. `QoS` 1 and 2 are never dropped here: the hub slows their publishers down, or ends the
//! session. Retained messages sent for a new subscription share their memory with the retained
//! store and are not counted against the bounds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::access::Identity;
use crate::message::Message;
use crate::packet::QoS;

/// Why the hub ends a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The same client has come again.
    TakenOver {
        /// The old session is not continued.
        clean_start: bool,
    },
    /// The account was removed or changed, or lost rights.
    Revoked,
    /// It does not take its messages.
    TooSlow,
    /// The broker stops.
    ShuttingDown,
}

/// A message on its way to one session.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// The subscription identifiers that it matched.
    pub(crate) identifiers: Option<Box<[u32]>>,
    /// The shared subscription that chose this session for it, `$share/<group>/` included: another
    /// member may get it instead.
    pub(crate) share: Option<Arc<str>>,
}

/// What a delivery costs in a queue besides its message.
const DELIVERY_BYTES: usize = 80;

impl Delivery {
    /// What it costs to keep it.
    pub(crate) fn cost(&self) -> usize {
        self.message.bytes() + DELIVERY_BYTES
    }
}

#[derive(Default)]
struct Queue {
    items: VecDeque<(u64, Delivery)>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, order: u64, delivery: Delivery) {
        self.bytes += delivery.cost();
        self.items.push_back((order, delivery));
    }

    fn pop(&mut self) -> Option<Delivery> {
        let (_, delivery) = self.items.pop_front()?;
        self.bytes -= delivery.cost();
        if self.items.is_empty() && self.items.capacity() > 64 {
            self.items = VecDeque::new();
        }
        Some(delivery)
    }

    fn keep_reliable(&mut self) {
        self.items.retain(|(_, delivery)| delivery.qos > QoS::AtMostOnce);
        self.bytes = self.items.iter().map(|(_, delivery)| delivery.cost()).sum();
    }

    fn order(&self) -> u64 {
        self.items.front().map_or(u64::MAX, |(order, _)| *order)
    }
}

#[derive(Default)]
struct State {
    next_order: u64,
    qos0: Queue,
    reliable: Queue,
    retained: Queue,
    end: Option<End>,
    /// The session's task, when it waits.
    waker: Option<Waker>,
    /// Tasks of publishers that wait until this outbox has room again.
    waiting_publishers: Vec<Waker>,
    /// As a publisher: the outbox that this session feeds faster than it empties.
    throttled_by: Option<Arc<Outbox>>,
    /// The account's rights have grown.
    new_identity: Option<Arc<Identity>>,
    /// Its client did not take its `QoS` 0 in time: publishers do not wait for it until it has
    /// caught up.
    is_slow: bool,
    /// Its client is away: it throttles no publisher, and another limit holds for what waits.
    is_away: bool,
    /// Reliable messages taken out so far: by this the hub distinguishes slow from stalled.
    progress: u64,
    /// How often that has brought what waits down to half of its bound.
    caught_up: u64,
}

/// The outbox; see the module.
pub(crate) struct Outbox {
    state: Mutex<State>,
    bounds: Bounds,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) qos0_bytes: usize,
    pub(crate) reliable_bytes: usize,
    /// Whether publishers wait a moment for a client that keeps up, so that its `QoS` 0 is not
    /// dropped.
    pub(crate) paces_qos0: bool,
}

/// What the hub learns from putting a message in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pushed {
    /// Messages of `QoS` 0 that had to go.
    pub(crate) dropped: u64,
    /// So much of `QoS` 0 waits that publishers should wait too.
    pub(crate) is_qos0_long: bool,
    /// `QoS` 1 and 2 messages that wait now.
    pub(crate) reliable_messages: usize,
    /// Their bytes.
    pub(crate) reliable_bytes: usize,
}

/// What waits in an outbox.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    /// Of these, `QoS` 1 and 2.
    pub(crate) reliable_messages: usize,
    pub(crate) reliable_bytes: usize,
    /// Bytes of all that waits but `QoS` 0, retained messages for new subscriptions among them.
    pub(crate) waiting_bytes: usize,
    pub(crate) progress: u64,
    pub(crate) caught_up: u64,
}

impl Outbox {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::default()), bounds })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hub's side: puts a message in. Publishers that are throttled may have `under_way` bytes
    /// on their way here: so much more of `QoS` 0 is kept for a client that keeps up. The task to
    /// wake, if it waits, is added to `wakers`.
    pub(crate) fn push(&self, delivery: Delivery, under_way: usize, wakers: &mut Vec<Waker>) -> Pushed {
        let mut state = self.lock();
        if state.is_given_up() {
            // The session ends with its connection, so this would never be sent.
            return Pushed::default();
        }
        let order = state.next_order;
        state.next_order += 1;
        let mut pushed = Pushed::default();
        if delivery.qos == QoS::AtMostOnce {
            state.qos0.push(order, delivery);
            pushed.dropped = self.drop_oldest(&mut state, under_way);
            pushed.is_qos0_long = self.waits_for(&state) && state.qos0.bytes > self.bounds.qos0_bytes / 2;
        } else {
            state.reliable.push(order, delivery);
        }
        wakers.extend(state.waker.take());
        (pushed.reliable_messages, pushed.reliable_bytes) = (state.reliable.items.len(), state.reliable.bytes);
        pushed
    }

    /// Whether publishers wait for this client's `QoS` 0.
    fn waits_for(&self, state: &State) -> bool {
        self.bounds.paces_qos0 && !state.is_slow
    }

    /// Keeps the queue of `QoS` 0 within its bound; says how many messages had to go.
    fn drop_oldest(&self, state: &mut State, under_way: usize) -> u64 {
        let overrun = if self.waits_for(state) { under_way } else { 0 };
        let mut dropped = 0;
        while state.qos0.bytes > self.bounds.qos0_bytes.saturating_add(overrun) && state.qos0.items.len() > 1 {
            state.qos0.pop();
            dropped += 1;
        }
        dropped
    }

    /// The hub's side: puts the retained messages of a new subscription in, before anything that
    /// comes later.
    pub(crate) fn push_retained(&self, deliveries: impl IntoIterator<Item = Delivery>, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        for delivery in deliveries {
            let order = state.next_order;
            state.next_order += 1;
            state.retained.push(order, delivery);
        }
        wakers.extend(state.waker.take());
    }

    /// The hub's side: the connection is to end. The first reason counts, but [`End::Revoked`]
    /// replaces any other; returns whether this is the first.
    pub(crate) fn end(&self, reason: End) -> bool {
        let (is_first, waker) = {
            let mut state = self.lock();
            let is_first = state.end.is_none();
            if is_first || reason == End::Revoked {
                state.end = Some(reason);
            }
            (is_first, state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        is_first
    }

    /// Whether the session ends with its connection, whatever becomes of that.
    pub(crate) fn is_given_up(&self) -> bool {
        self.lock().is_given_up()
    }

    /// The task's side: the account was removed or changed while the connection ended.
    pub(crate) fn is_revoked(&self) -> bool {
        self.lock().end == Some(End::Revoked)
    }

    /// The hub's side: this session publishes faster than `slow` reads.
    pub(crate) fn throttle(&self, slow: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let is_new = state.throttled_by.is_none();
        if is_new {
            state.throttled_by = Some(slow.clone());
        }
        is_new
    }

    /// A new connection uses this outbox: forgets what belonged to the old one.
    pub(crate) fn reopen(&self) {
        let mut state = self.lock();
        state.end = None;
        state.is_slow = false;
        state.is_away = false;
        state.waker = None;
        state.throttled_by = None;
        state.new_identity = None;
    }

    /// The hub's side: the rights of the account have grown.
    pub(crate) fn set_identity(&self, identity: Arc<Identity>) {
        let mut state = self.lock();
        state.new_identity = Some(identity);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn load(&self) -> Load {
        let state = self.lock();
        Load {
            messages: state.qos0.items.len() + state.reliable.items.len() + state.retained.items.len(),
            reliable_messages: state.reliable.items.len() + state.retained.items.len(),
            reliable_bytes: state.reliable.bytes,
            waiting_bytes: state.reliable.bytes + state.retained.bytes,
            progress: state.progress,
            caught_up: state.caught_up,
        }
    }

    /// Copies of the `QoS` 1 and 2 messages that wait, in their order.
    pub(crate) fn reliable(&self) -> Vec<Delivery> {
        let state = self.lock();
        let mut waiting: Vec<&(u64, Delivery)> = state.retained.items.iter().chain(&state.reliable.items).collect();
        waiting.sort_unstable_by_key(|(order, _)| *order);
        waiting
            .into_iter()
            .filter(|(_, delivery)| delivery.qos > QoS::AtMostOnce)
            .map(|(_, delivery)| delivery.clone())
            .collect()
    }

    /// Whether any message of `QoS` 2 waits.
    pub(crate) fn has_exactly_once(&self) -> bool {
        let state = self.lock();
        state.retained.items.iter().chain(&state.reliable.items).any(|(_, delivery)| delivery.qos == QoS::ExactlyOnce)
    }

    /// The task's side: whether there is something to do; registers the task if not. Messages count
    /// only if the task `has_room`, those of `QoS` 1 and 2 only if the window has.
    pub(crate) fn poll_ready(&self, has_room: bool, window_open: bool, context: &mut Context<'_>) -> Poll<Ready> {
        let mut state = self.lock();
        if let Some(end) = state.end.clone() {
            return Poll::Ready(Ready::End(end));
        }
        if let Some(slow) = state.throttled_by.take() {
            return Poll::Ready(Ready::Throttled(slow));
        }
        if let Some(identity) = state.new_identity.take() {
            return Poll::Ready(Ready::Identity(identity));
        }
        if has_room && state.has_sendable(window_open) {
            return Poll::Ready(Ready::Messages);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// The task's side: takes messages out in their order until `take` has had enough, or the
    /// window is full. `take` says how many `QoS` 1 and 2 messages still fit and whether it wants
    /// more.
    pub(crate) fn drain(&self, mut window: usize, mut take: impl FnMut(Delivery) -> bool) {
        let mut state = self.lock();
        let was_low = state.reliable.bytes <= self.low_water();
        while let Some(delivery) = state.pop(window > 0) {
            if delivery.qos > QoS::AtMostOnce {
                window -= 1;
            }
            if !take(delivery) {
                break;
            }
        }
        if state.qos0.bytes <= self.qos0_low_water() {
            state.is_slow = false;
        }
        if !was_low && state.reliable.bytes <= self.low_water() {
            state.caught_up += 1;
        }
        if self.has_room(&state) {
            let waiting = std::mem::take(&mut state.waiting_publishers);
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    fn has_room(&self, state: &State) -> bool {
        let has_qos0_room = !self.waits_for(state) || state.qos0.bytes <= self.qos0_low_water();
        (state.reliable.bytes <= self.low_water() && has_qos0_room) || state.is_away || state.end.is_some()
    }

    /// A publisher's side: it has waited long enough for this client's `QoS` 0. From now on the
    /// oldest message is dropped.
    pub(crate) fn mark_slow(&self) {
        let mut state = self.lock();
        if state.qos0.bytes <= self.qos0_low_water() {
            return;
        }
        state.is_slow = true;
        let waiting = std::mem::take(&mut state.waiting_publishers);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// A publisher's side: waits until this outbox has room again, or its session has ended.
    pub(crate) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if self.has_room(&state) {
            return Poll::Ready(());
        }
        if !state.waiting_publishers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting_publishers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Everything that waits is given up; says how many messages these were.
    pub(crate) fn close(&self) -> u64 {
        let mut state = self.lock();
        let lost = state.reliable.items.len();
        state.qos0 = Queue::default();
        state.reliable = Queue::default();
        state.retained = Queue::default();
        state.end.get_or_insert(End::TooSlow);
        let waiting = std::mem::take(&mut state.waiting_publishers);
        let waker = state.waker.take();
        drop(state);
        waiting.into_iter().chain(waker).for_each(Waker::wake);
        lost as u64
    }

    /// The client has gone and the session stays: messages of `QoS` 0 go with the client.
    pub(crate) fn park(&self) {
        let mut state = self.lock();
        state.qos0 = Queue::default();
        state.retained.keep_reliable();
        state.is_away = true;
        state.waker = None;
        state.throttled_by = None;
        let waiting = std::mem::take(&mut state.waiting_publishers);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Publishers are let go at half of the bound, so that they do not stop and start with every
    /// message.
    fn low_water(&self) -> usize {
        self.bounds.reliable_bytes / 2
    }

    fn qos0_low_water(&self) -> usize {
        self.bounds.qos0_bytes / 4
    }
}

/// What a session's task finds in its outbox.
pub(crate) enum Ready {
    /// The connection is to end.
    End(End),
    /// It publishes faster than this outbox's client reads.
    Throttled(Arc<Outbox>),
    /// Its account's rights have grown.
    Identity(Arc<Identity>),
    /// There are messages.
    Messages,
}

impl State {
    /// The queue whose turn it is. While retained messages wait, strict order holds: a newer
    /// message must not overtake the retained one of its topic. Otherwise `QoS` 0 passes by a full
    /// window.
    fn next_queue(&mut self, window_open: bool) -> Option<&mut Queue> {
        let (qos0, reliable, retained) = (self.qos0.order(), self.reliable.order(), self.retained.order());
        let first = qos0.min(reliable).min(retained);
        if first == u64::MAX {
            return None;
        }
        if first == retained {
            let fits =
                window_open || self.retained.items.front().is_some_and(|(_, delivery)| delivery.qos == QoS::AtMostOnce);
            return fits.then_some(&mut self.retained);
        }
        if first == reliable && window_open {
            return Some(&mut self.reliable);
        }
        let qos0_may_pass = first == qos0 || (qos0 != u64::MAX && retained == u64::MAX);
        qos0_may_pass.then_some(&mut self.qos0)
    }

    fn is_given_up(&self) -> bool {
        matches!(self.end, Some(End::TooSlow | End::Revoked))
    }

    fn has_sendable(&mut self, window_open: bool) -> bool {
        self.next_queue(window_open).is_some()
    }

    fn pop(&mut self, window_open: bool) -> Option<Delivery> {
        let delivery = self.next_queue(window_open)?.pop()?;
        if delivery.qos > QoS::AtMostOnce {
            self.progress += 1;
        }
        Some(delivery)
    }
}

#[cfg(test)]
mod tests;
