//! Delivery: from a message of the log to the outboxes of those who want it and may have it.

use std::sync::Arc;

use super::{Hub, Session};
use crate::events::BrokerEvent;
use crate::limits::SlowSubscriber;
use crate::message::{Message, SessionId};
use crate::outbox::{Delivery, Outbox, Pushed};
use crate::retained::Kept;
use crate::topic_tree::{Hits, Subscriber};

/// How often its bound a connected session's queue may be before the session is ended at once, besides what publishers
/// that wait have under way.
const OVERRUN: usize = 8;

/// What a publisher that is to wait has under way: one read's worth in the log, one on its way there. Small messages weigh
/// several times as much in a queue as on the wire.
const UNDER_WAY_BYTES: usize = 128 * 1024;

impl Hub {
    pub(super) fn deliver(&mut self, message: &Arc<Message>) {
        self.front.counters.messages_accepted.add(1);
        if message.retain() {
            self.keep(message);
        }
        let mut hits = std::mem::take(&mut self.hits);
        self.tree.hits(message.topic(), &mut hits);
        self.deliver_plain(message, &mut hits);
        for group in &hits.shared {
            self.deliver_shared(message, group);
        }
        self.hits = hits;
    }

    fn keep(&mut self, message: &Arc<Message>) {
        let kept = self.retained.keep(message);
        self.count_retained();
        if kept == Kept::Refused {
            self.front.counters.retained_refused.add(1);
            let publisher =
                self.session(message.publisher()).map(|s| (s.identity.name().to_owned(), s.key.1.to_string()));
            let (account, client_id) = publisher.unwrap_or_default();
            let (topic, reason) = (message.topic().to_owned(), "the store of retained messages is full".to_owned());
            self.front.events.tell(BrokerEvent::PublishRefused { account, client_id, topic, reason });
        }
    }

    pub(super) fn count_retained(&self) {
        self.front.counters.retained_messages.set(self.retained.len() as u64);
        self.front.counters.retained_bytes.set(self.retained.bytes() as u64);
    }

    fn deliver_plain(&mut self, message: &Arc<Message>, hits: &mut Hits) {
        if hits.may_repeat {
            hits.subscribers.sort_unstable_by_key(|subscriber| subscriber.slot);
        }
        for same_session in hits.subscribers.chunk_by(|a, b| a.slot == b.slot) {
            self.deliver_to(message, same_session);
        }
    }

    /// Delivers once, however many subscriptions of the session match: at their highest `QoS`, with all identifiers.
    fn deliver_to(&mut self, message: &Arc<Message>, subscriptions: &[Subscriber]) {
        let slot = subscriptions[0].slot;
        let Some(session) = self.sessions.get(slot as usize).and_then(Option::as_ref) else { return };
        let is_own = message.publisher() == SessionId { slot, use_count: session.use_count };
        let wanted = subscriptions.iter().filter(|s| !(is_own && s.options.no_local));
        let Some(qos) = wanted.clone().map(|s| s.options.qos).max() else { return };
        if !self.front.access.may_receive(&session.identity, message.topic()) {
            self.front.counters.deliveries_withheld.add(1);
            return;
        }
        let retain = message.retain() && wanted.clone().any(|s| s.options.retain_as_published);
        let identifiers: Vec<u32> = wanted.map(|s| s.identifier).filter(|&id| id != 0).collect();
        let identifiers = (!identifiers.is_empty()).then(|| identifiers.into_boxed_slice());
        self.put(slot, Delivery { message: message.clone(), qos: qos.min(message.qos()), retain, identifiers });
    }

    /// Delivers to the first of the group, in its turn, that is connected and may have it; if none is connected, to the
    /// first that is away.
    fn deliver_shared(&mut self, message: &Arc<Message>, group: &[Subscriber]) {
        let may_have = |member: &&Subscriber| {
            let session = self.sessions.get(member.slot as usize).and_then(Option::as_ref);
            session.is_some_and(|session| self.front.access.may_receive(&session.identity, message.topic()))
        };
        let is_here = |member: &&Subscriber| {
            self.sessions[member.slot as usize].as_ref().is_some_and(|session| session.peer.is_some())
        };
        let mut allowed = group.iter().filter(may_have);
        let chosen = allowed.clone().find(is_here).or_else(|| allowed.next()).copied();
        match chosen {
            Some(member) => self.deliver_to(message, &[member]),
            None => self.front.counters.deliveries_withheld.add(1),
        }
    }

    fn put(&mut self, slot: u32, delivery: Delivery) {
        let Some(session) = self.sessions[slot as usize].as_ref() else { return };
        let is_away = session.peer.is_none();
        if is_away && delivery.qos == 0 {
            return;
        }
        let (qos, publisher) = (delivery.qos, delivery.message.publisher());
        let outbox = session.outbox.clone();
        if is_away {
            self.count_queued(slot, delivery.cost());
            self.note_queued(slot, &delivery);
        }
        let pushed = outbox.push(delivery, self.under_way_bytes(), &mut self.wakers);
        if pushed.dropped > 0 {
            self.front.counters.dropped_qos0.add(pushed.dropped);
        }
        if pushed.is_qos0_long && !is_away {
            self.slow_down(publisher, slot, &outbox);
        }
        if qos > 0 {
            if is_away { self.bound_away(slot, pushed) } else { self.bound_connected(slot, &outbox, publisher, pushed) }
        }
    }

    /// What all clients together may have under way when they are told to wait.
    fn under_way_bytes(&self) -> usize {
        usize::try_from(self.front.counters.clients_connected.get()).unwrap_or(0).saturating_mul(UNDER_WAY_BYTES)
    }

    /// A publisher waits for somebody else's client.
    fn slow_down(&mut self, publisher: SessionId, slot: u32, outbox: &Arc<Outbox>) {
        if publisher.slot != slot
            && let Some(session) = self.session(publisher)
            && session.outbox.hold_up(outbox)
        {
            self.front.counters.publishers_slowed.add(1);
        }
    }

    fn bound_away(&mut self, slot: u32, pushed: Pushed) {
        let limits = &self.front.limits;
        if pushed.reliable_bytes > limits.offline_bytes || pushed.reliable_messages > limits.offline_messages {
            self.overflowing.push((slot, "too much waits for a client that is away"));
        }
    }

    fn bound_connected(&mut self, slot: u32, outbox: &Arc<Outbox>, publisher: SessionId, pushed: Pushed) {
        let bound = self.front.limits.queue_bytes;
        if pushed.reliable_bytes <= bound {
            return;
        }
        let most = bound.saturating_mul(OVERRUN).saturating_add(self.under_way_bytes());
        if self.front.limits.slow_subscriber == SlowSubscriber::EndSession || pushed.reliable_bytes > most {
            self.overflowing.push((slot, "it does not take its messages as fast as they come"));
            return;
        }
        let now_ms = self.front.clock.now_ms();
        self.congested.entry(slot).or_insert_with(|| (outbox.load().progress, now_ms));
        self.slow_down(publisher, slot, outbox);
    }

    /// Ends the sessions whose queue is full and of which nothing was taken for too long.
    pub(super) fn end_stalled_sessions(&mut self, now_ms: u64) {
        if self.congested.is_empty() {
            return;
        }
        let patience_ms = self.front.limits.stalled_after_seconds * 1000;
        let half = self.front.limits.queue_bytes / 2;
        let mut stalled = Vec::new();
        let sessions = &self.sessions;
        self.congested.retain(|&slot, (progress, since)| {
            let Some(session) = sessions.get(slot as usize).and_then(Option::as_ref) else { return false };
            let load = session.outbox.load();
            if load.progress != *progress {
                (*progress, *since) = (load.progress, now_ms);
            } else if now_ms.saturating_sub(*since) > patience_ms {
                stalled.push(slot);
                return false;
            }
            load.reliable_bytes > half
        });
        for slot in stalled {
            self.end_session(slot, "it has not taken any message for too long");
        }
    }

    pub(super) fn queued_messages(&self) -> u64 {
        self.sessions.iter().flatten().map(|session: &Session| session.outbox.load().messages as u64).sum()
    }
}
