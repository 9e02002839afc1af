//! Sessions that outlive the broker: what of them goes to the disk, and how they come back.
//!
//! Kept are sessions that live on without their clients (MQTT 5: a session expiry; 3.1.1: no clean
//! session): whose they are, their subscriptions, and the `QoS` 1 and 2 messages that wait while
//! the client is away. What is under way to a connected client is kept when it leaves and when the
//! broker stops, with its packet ids, so that what is of `QoS` 2 still comes once; a kill may cost
//! what was under way at that moment. If that was of `QoS` 2, either way, the session does not come
//! back, since repetitions could not be recognised: its client is told so (session present is 0). A
//! session whose credential is not valid any more does not come back.

use std::sync::Arc;

use super::changes::Waiting;
use super::{Hub, Session, after_seconds};
use crate::contract::{Closed, InFlight, Parked, Stage, WillFate};
use crate::filter;
use crate::message::Message;
use crate::message::SessionId;
use crate::outbox::{Delivery, Outbox};
use crate::store::{KeptDelivery, KeptExchange, KeptSession, KeptSubscription, Record, SessionKey, unix_ms};
use crate::topic_tree::Subscriber;

impl Hub {
    fn is_kept(&self, session: &Session) -> bool {
        self.store.is_some() && self.front.limits.sessions_on_disk && session.expiry_seconds > 0
    }

    /// A session was opened, or changed what it has subscribed to, or its client came or went.
    pub(super) fn note_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        if self.is_kept(session) {
            self.session_changes.changed(&session.key);
            self.set_on_disk(id, true);
        } else if session.is_on_disk {
            self.forget_session(id);
        }
    }

    /// A `QoS` 2 exchange begins with a connected client: noted on disk once for each connection.
    pub(super) fn note_exchange(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let is_new = session.peer.is_some() && !session.is_unsure;
        if is_new && session.is_on_disk {
            session.is_unsure = true;
            self.session_changes.changed(&session.key);
        }
    }

    /// A session is not to come back.
    pub(super) fn forget_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        if session.is_on_disk {
            self.session_changes.over(&session.key);
            self.set_on_disk(id, false);
        }
    }

    fn set_on_disk(&mut self, id: SessionId, is_on_disk: bool) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.is_on_disk = is_on_disk;
        }
    }

    /// The client of a session has gone: what it has not acknowledged waits from now on.
    pub(super) fn note_away(&mut self, id: SessionId) {
        self.note_session(id);
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.is_unsure = false;
        if !session.is_on_disk {
            return;
        }
        if std::mem::take(&mut session.has_queue_on_disk) {
            self.session_changes.queue_over(&session.key);
        }
        for waiting in session.waiting_messages() {
            session.has_queue_on_disk = true;
            self.session_changes.queued(&session.key, waiting);
        }
    }

    /// A message waits for a client that is away.
    pub(super) fn note_queued(&mut self, id: SessionId, delivery: &Delivery) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.is_on_disk {
            session.has_queue_on_disk = true;
            self.session_changes.queued(&session.key, Waiting { packet_id: 0, delivery: delivery.clone() });
        }
    }

    /// Clients that came back and have taken what waited for them: it need not be kept any more.
    pub(super) fn note_caught_up(&mut self) {
        let sessions = &mut self.sessions;
        let changes = &mut self.session_changes;
        self.returned.retain(|&id| {
            let Some(session) = sessions.get_mut(id) else { return false };
            let waits = session.peer.is_some() && session.has_queue_on_disk;
            if waits && session.outbox.load().reliable_messages == 0 {
                session.has_queue_on_disk = false;
                changes.queue_over(&session.key);
                return false;
            }
            waits
        });
    }

    /// A session ends with the broker: what is unfinished is kept as if its client had gone. Its
    /// will stays as it is.
    pub(super) fn keep_at_stop(&mut self, closed: Closed) {
        let now_ms = self.front.clock.now_ms();
        let Some(session) = self.sessions.get_mut(closed.id) else { return };
        session.peer = None;
        session.expiry_seconds = session.expiry_after(&closed);
        session.parked = closed.parked;
        session.away_since = now_ms;
        if closed.will == WillFate::Done {
            self.set_will(closed.id, None);
        }
        self.note_away(closed.id);
    }

    /// What has changed since the last batch.
    pub(super) fn session_records(&mut self, now_ms: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for (key, change) in self.session_changes.take() {
            if change.is_over {
                records.push(Record::ClearSession(key.clone()));
            }
            let id = self.keys.get(&key).filter(|_| change.is_changed);
            if let Some(session) = id.and_then(|&id| self.sessions.get(id)) {
                records.push(Record::SetSession(key.clone(), self.kept(session)));
            }
            if change.is_queue_over {
                records.push(Record::ClearQueue(key.clone()));
            }
            records.extend(change.queue.iter().map(|waiting| queue_record(&key, waiting, now_ms)));
        }
        records
    }

    /// What all kept sessions amount to, for a file that is written anew.
    pub(super) fn kept_sessions(&self, now_ms: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for session in self.sessions.values().filter(|session| self.is_kept(session)) {
            let key = session.key.clone();
            records.push(Record::SetSession(key.clone(), self.kept(session)));
            let waiting = if session.has_queue_on_disk { session.waiting_messages() } else { Vec::new() };
            records.extend(waiting.iter().map(|waiting| queue_record(&key, waiting, now_ms)));
        }
        records
    }

    /// About how many bytes of the file are sessions.
    pub(super) fn kept_bytes(&self) -> usize {
        let kept = self.sessions.values().filter(|session| session.is_on_disk);
        let bytes = |session: &Session| {
            let filters: usize = session.subscriptions.iter().map(|subscription| subscription.filter.len() + 9).sum();
            let queue = if session.has_queue_on_disk { session.outbox.load().reliable_bytes } else { 0 };
            200 + filters + queue
        };
        kept.map(|session| bytes(session)).sum()
    }

    fn kept(&self, session: &Session) -> KeptSession {
        KeptSession {
            user_name: session.user_name.clone(),
            secret: session.secret.clone(),
            expiry_seconds: session.expiry_seconds,
            away_since_unix_ms: session.peer.is_none().then(|| self.away_since_unix_ms(session)),
            subscriptions: session.subscriptions.clone(),
            exchange: session.exchange(),
        }
    }

    /// Reckoned back from when it ends, since it may have been away for longer than the broker has
    /// been running.
    fn away_since_unix_ms(&self, session: &Session) -> u64 {
        let whole = u64::from(session.expiry_seconds) * 1000;
        let left = session.expires_at.saturating_sub(self.front.clock.now_ms()).min(whole);
        unix_ms().saturating_sub(whole - left)
    }

    pub(super) fn restore_sessions(&mut self, sessions: Vec<(SessionKey, KeptSession, Vec<KeptDelivery>)>) {
        let (now_ms, unix_ms) = (self.front.clock.now_ms(), unix_ms());
        for (key, kept, queue) in sessions {
            if self.restore_session(&key, kept, queue, now_ms, unix_ms).is_none() {
                self.session_changes.over(&key);
            }
        }
        self.bound_away_bytes();
    }

    /// Brings one session back; `None` when it is over.
    fn restore_session(
        &mut self,
        key: &SessionKey,
        kept: KeptSession,
        queue: Vec<KeptDelivery>,
        now_ms: u64,
        unix_ms: u64,
    ) -> Option<()> {
        let identity = self.directory.identify(&kept.user_name, &kept.secret)?;
        let is_same_owner = identity.session_owner() == *key.0;
        let away_ms = kept.away_since_unix_ms.map_or(0, |since| unix_ms.saturating_sub(since));
        let expires_at = after_seconds(now_ms, kept.expiry_seconds).saturating_sub(away_ms);
        let has_room = self.keys.len() < self.front.limits.bounds.sessions && self.account_has_room_away(&key.0);
        if !is_same_owner || expires_at <= now_ms || !has_room || kept.exchange.is_unsure {
            return None;
        }
        let outbox = Outbox::new(self.outbox_bounds(&identity));
        let session = Session {
            expires_at,
            user_name: kept.user_name,
            expiry_seconds: kept.expiry_seconds,
            is_on_disk: true,
            has_queue_on_disk: !queue.is_empty(),
            away_since: now_ms,
            ..Session::new(key.clone(), identity, kept.secret, outbox.clone())
        };
        let id = self.insert(session);
        for subscription in kept.subscriptions {
            self.restore_subscription(id, subscription);
        }
        let mut parked = parked(kept.exchange);
        for waiting in queue.into_iter().filter_map(|waiting| restored(waiting, now_ms, unix_ms)) {
            if waiting.packet_id > 0 {
                parked.in_flight.push_back(in_flight(waiting.packet_id, Stage::Sent(waiting.delivery)));
            } else {
                outbox.push(waiting.delivery, 0, &mut self.wakers);
            }
        }
        if let Some(session) = self.sessions.get_mut(id) {
            session.parked = Some(Box::new(parked));
        }
        outbox.park();
        self.count_away(id);
        Some(())
    }

    fn restore_subscription(&mut self, id: SessionId, subscription: KeptSubscription) {
        let Some(parsed) = filter::parse(&subscription.filter, usize::MAX, usize::MAX) else { return };
        let subscriber = Subscriber { session: id, identifier: subscription.identifier, options: subscription.options };
        if self.tree.subscribe(parsed.filter, parsed.group, subscriber) {
            let is_shared = parsed.group.is_some();
            self.note_subscription(id, subscription, is_shared);
        }
    }
}

impl Session {
    /// What the client has not acknowledged, in the order in which it was or would be sent.
    fn waiting_messages(&self) -> Vec<Waiting> {
        let sent =
            self.parked.iter().flat_map(|parked| &parked.in_flight).filter_map(|sent| {
                Some(Waiting { packet_id: sent.packet_id, delivery: sent.unacknowledged()?.clone() })
            });
        let unsent = self.outbox.reliable().into_iter().map(|delivery| Waiting { packet_id: 0, delivery });
        sent.chain(unsent).collect()
    }

    /// Whether anything of `QoS` 2 goes on when its client comes back.
    pub(super) fn has_exactly_once_unfinished(&self) -> bool {
        let goes_on =
            |parked: &Parked| !parked.receiving.is_empty() || parked.in_flight.iter().any(InFlight::is_exactly_once);
        self.parked.as_ref().is_some_and(|parked| goes_on(parked)) || self.outbox.has_exactly_once()
    }

    fn exchange(&self) -> KeptExchange {
        let Some(parked) = &self.parked else {
            return KeptExchange { is_unsure: self.is_unsure, ..KeptExchange::default() };
        };
        let released = parked.in_flight.iter().filter(|sent| sent.unacknowledged().is_none());
        KeptExchange {
            is_unsure: self.is_unsure,
            last_id: parked.last_id,
            receiving: parked.receiving.clone(),
            released: released.map(|sent| sent.packet_id).collect(),
        }
    }
}

fn in_flight(packet_id: u16, stage: Stage) -> InFlight {
    InFlight { packet_id, number: 0, stage }
}

fn parked(exchange: KeptExchange) -> Parked {
    let released = exchange.released.into_iter().map(|packet_id| in_flight(packet_id, Stage::Released));
    Parked { in_flight: released.collect(), last_id: exchange.last_id, receiving: exchange.receiving }
}

/// A message as it waits again; `None` when it has expired and the client never had any of it.
fn restored(kept: KeptDelivery, now_ms: u64, unix_ms: u64) -> Option<Waiting> {
    let KeptDelivery { qos, retain, packet_id, .. } = kept;
    let expires_in_ms = kept.expires_unix_ms.map(|at| at.saturating_sub(unix_ms));
    if expires_in_ms == Some(0) && packet_id == 0 {
        return None;
    }
    let message = Message::reframed(&kept.frame, expires_in_ms, now_ms)?;
    let identifiers = (!kept.identifiers.is_empty()).then(|| kept.identifiers.into_boxed_slice());
    let share = kept.share.map(Into::into);
    Some(Waiting { packet_id, delivery: Delivery { message, qos, retain, identifiers, share } })
}

fn queue_record(key: &SessionKey, waiting: &Waiting, now_ms: u64) -> Record {
    let Waiting { packet_id, delivery } = waiting;
    let message: &Arc<Message> = &delivery.message;
    let kept = KeptDelivery {
        qos: delivery.qos,
        retain: delivery.retain,
        identifiers: delivery.identifiers.as_deref().unwrap_or_default().to_vec(),
        share: delivery.share.as_deref().map(Into::into),
        packet_id: *packet_id,
        expires_unix_ms: message.expires_in_ms(now_ms).map(|left| unix_ms().saturating_add(left)),
        frame: message.frame(),
    };
    Record::Queue(key.clone(), kept)
}
