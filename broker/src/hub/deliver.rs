//! Delivery: from a message of the log to the outboxes of those who want it and may have it.

use std::sync::Arc;

use super::Hub;
use crate::access::Identity;
use crate::events::BrokerEvent;
use crate::filter;
use crate::limits::{Limits, SlowSubscriber};
use crate::message::{Message, SessionId};
use crate::outbox::{Delivery, Load, Outbox, Pushed};
use crate::packet::QoS;
use crate::retained::Kept;
use crate::topic_tree::{Hits, Shared, Subscriber};

/// How often its bound a connected session's queue may be before the session is ended at once,
/// besides what publishers that wait have under way.
const OVERRUN: usize = 8;

/// What a publisher that is to wait has under way: one read's worth in the log, one on its way
/// there. Small messages weigh several times as much in a queue as on the wire.
const UNDER_WAY_BYTES: usize = 128 * 1024;

/// Since when a session's queue has been full, in milliseconds of the broker's clock.
pub(super) struct Congestion {
    since: u64,
    /// How often it had caught up by then.
    caught_up: u64,
    /// Its progress when it was last seen to change, and when.
    progress: u64,
    progressed: u64,
}

impl Hub {
    pub(super) fn deliver(&mut self, message: &Arc<Message>) {
        self.front.counters.messages_accepted.add(1);
        if message.retain() {
            self.keep(message);
        }
        if message.qos() == QoS::ExactlyOnce {
            self.note_exchange(message.publisher());
        }
        self.front.access.note(message);
        let mut hits = std::mem::take(&mut self.hits);
        self.tree.hits(message.topic(), &mut hits);
        self.deliver_plain(message, &mut hits);
        for group in &hits.shared {
            self.deliver_shared(message, group);
        }
        self.hits = hits;
    }

    fn keep(&mut self, message: &Arc<Message>) {
        let publisher = self.sessions.get(message.publisher());
        let owner = publisher.map_or("", |session| &*session.key.0);
        let kept = self.retained.keep(message, self.front.access.origin(owner, message.topic()));
        if kept == Kept::Refused {
            self.front.counters.retained_refused.add(1);
            let names = publisher.map(|session| (session.identity.name().to_owned(), session.key.1.to_string()));
            let (account, client_id) = names.unwrap_or_default();
            let reason = "the store of retained messages is full, or the account's share of it".to_owned();
            let topic = message.topic().to_owned();
            self.front.events.send(BrokerEvent::PublishRefused { account, client_id, topic, reason });
        }
        self.count_retained();
    }

    pub(super) fn count_retained(&self) {
        self.front.counters.retained_messages.set(self.retained.len() as u64);
        self.front.counters.retained_bytes.set(self.retained.bytes() as u64);
    }

    fn deliver_plain(&mut self, message: &Arc<Message>, hits: &mut Hits) {
        if hits.may_repeat {
            hits.subscribers.sort_unstable_by_key(|subscriber| subscriber.session);
        }
        for same_session in hits.subscribers.chunk_by(|a, b| a.session == b.session) {
            self.deliver_to(message, same_session, None);
        }
    }

    /// Delivers once, however many subscriptions of the session match: at their highest `QoS`, with
    /// all identifiers.
    fn deliver_to(&mut self, message: &Arc<Message>, subscriptions: &[Subscriber], share: Option<&Arc<str>>) {
        let id = subscriptions[0].session;
        let Some(session) = self.sessions.get(id) else { return };
        let is_own = message.publisher() == id;
        let wanted = subscriptions.iter().filter(|s| !(is_own && s.options.no_local));
        let Some(qos) = wanted.clone().map(|s| s.options.qos).max() else { return };
        if !self.front.access.may_receive(&session.identity, message.topic()) {
            self.front.counters.deliveries_withheld.add(1);
            return;
        }
        let retain = message.retain() && wanted.clone().any(|s| s.options.retain_as_published);
        let identifiers: Vec<u32> = wanted.map(|s| s.identifier).filter(|&id| id != 0).collect();
        let identifiers = (!identifiers.is_empty()).then(|| identifiers.into_boxed_slice());
        let (qos, share) = (qos.min(message.qos()), share.cloned());
        self.put(id, Delivery { message: message.clone(), qos, retain, identifiers, share });
    }

    /// Delivers to the first of the group, in its turn, that is connected and may have it; if none
    /// is connected, to the first that is away. Whether there was one.
    fn deliver_shared(&mut self, message: &Arc<Message>, group: &Shared) -> bool {
        let may_have = |member: &&Subscriber| {
            let session = self.sessions.get(member.session);
            session.is_some_and(|session| {
                !session.outbox.is_given_up() && self.front.access.may_receive(&session.identity, message.topic())
            })
        };
        let is_here =
            |member: &&Subscriber| self.sessions.get(member.session).is_some_and(|session| session.peer.is_some());
        let mut allowed = group.members.iter().filter(may_have);
        let chosen = allowed.clone().find(is_here).or_else(|| allowed.next()).copied();
        match chosen {
            Some(member) => self.deliver_to(message, &[member], Some(&group.share)),
            None => self.front.counters.deliveries_withheld.add(1),
        }
        chosen.is_some()
    }

    /// Gives what a member of shared subscriptions has left behind to other members (MQTT 5,
    /// section 4.8.2). How many messages found none.
    pub(super) fn deliver_to_others(&mut self, left: Vec<Delivery>) -> u64 {
        let now_ms = self.front.clock.now_ms();
        let mut lost = 0;
        for delivery in left.into_iter().filter(|delivery| !delivery.message.is_expired(now_ms)) {
            let parsed = delivery.share.as_deref().and_then(|share| filter::parse(share, usize::MAX, usize::MAX));
            let group = parsed.and_then(|parsed| self.tree.members(parsed.filter, parsed.group?));
            let found = group.is_some_and(|group| self.deliver_shared(&delivery.message, &group));
            lost += u64::from(!found);
        }
        lost
    }

    fn put(&mut self, id: SessionId, delivery: Delivery) {
        let Some(session) = self.sessions.get(id) else { return };
        let is_away = session.peer.is_none();
        if is_away && delivery.qos == QoS::AtMostOnce {
            return;
        }
        let (qos, publisher) = (delivery.qos, delivery.message.publisher());
        let outbox = session.outbox.clone();
        if is_away {
            self.count_queued(id, delivery.cost());
            self.note_queued(id, &delivery);
        }
        if qos == QoS::ExactlyOnce && !is_away {
            self.note_exchange(id);
        }
        let pushed = outbox.push(delivery, self.under_way_bytes(), &mut self.wakers);
        if pushed.dropped > 0 {
            self.front.counters.dropped_qos0.add(pushed.dropped);
        }
        if pushed.is_qos0_long && !is_away {
            self.throttle(publisher, id, &outbox);
        }
        if qos > QoS::AtMostOnce {
            if is_away { self.bound_away(id, pushed) } else { self.bound_connected(id, &outbox, publisher, pushed) }
        }
    }

    /// What all clients together may have under way when they are throttled.
    fn under_way_bytes(&self) -> usize {
        usize::try_from(self.front.counters.clients_connected.get()).unwrap_or(0).saturating_mul(UNDER_WAY_BYTES)
    }

    /// Throttles a publisher for another session's client. The controller is never throttled: its
    /// messages to all others must not depend on one.
    fn throttle(&mut self, publisher: SessionId, id: SessionId, outbox: &Arc<Outbox>) {
        if publisher != id
            && let Some(session) = self.sessions.get_mut(publisher)
            && *session.identity != Identity::Controller
            && session.outbox.throttle(outbox)
        {
            self.front.counters.publishers_slowed.add(1);
        }
    }

    fn bound_away(&mut self, id: SessionId, pushed: Pushed) {
        let limits = &self.front.limits;
        if pushed.reliable_bytes > limits.offline_bytes || pushed.reliable_messages > limits.bounds.offline_messages {
            self.overflowing.push((id, "too much waits for a client that is away"));
        }
    }

    fn bound_connected(&mut self, id: SessionId, outbox: &Arc<Outbox>, publisher: SessionId, pushed: Pushed) {
        let bound = self.front.limits.queue_bytes;
        if pushed.reliable_bytes <= bound {
            return;
        }
        let most = bound.saturating_mul(OVERRUN).saturating_add(self.under_way_bytes());
        if self.front.limits.slow_subscriber == SlowSubscriber::EndSession || pushed.reliable_bytes > most {
            self.overflowing.push((id, "it does not take its messages as fast as they come"));
            return;
        }
        let now_ms = self.front.clock.now_ms();
        self.congested.entry(id).or_insert_with(|| {
            let load = outbox.load();
            Congestion { since: now_ms, caught_up: load.caught_up, progress: load.progress, progressed: now_ms }
        });
        self.throttle(publisher, id, outbox);
    }

    /// Ends the sessions whose queue is full and of which nothing was taken for too long, or not
    /// enough.
    pub(super) fn end_stalled_sessions(&mut self, now_ms: u64) {
        if self.congested.is_empty() {
            return;
        }
        let limits = &self.front.limits;
        let half = limits.queue_bytes / 2;
        let mut stalled = Vec::new();
        let sessions = &self.sessions;
        self.congested.retain(|&id, congestion| {
            let Some(session) = sessions.get(id) else { return false };
            let load = session.outbox.load();
            if load.reliable_bytes <= half {
                return false;
            }
            let reason = congestion.reason_to_end(load, now_ms, limits);
            stalled.extend(reason.map(|reason| (id, reason)));
            reason.is_none()
        });
        for (id, reason) in stalled {
            self.end_session(id, reason);
        }
    }

    pub(super) fn queued_messages(&self) -> u64 {
        self.sessions.values().map(|session| session.outbox.load().messages as u64).sum()
    }
}

impl Congestion {
    fn reason_to_end(&mut self, load: Load, now_ms: u64, limits: &Limits) -> Option<&'static str> {
        if load.progress != self.progress {
            (self.progress, self.progressed) = (load.progress, now_ms);
        }
        // One that keeps up with all that it can be sent is at half again and again, if not just
        // now.
        if load.caught_up != self.caught_up {
            (self.caught_up, self.since) = (load.caught_up, now_ms);
        }
        if now_ms.saturating_sub(self.progressed) > limits.bounds.stalled_after_seconds * 1000 {
            Some("it has not taken any message for too long")
        } else if now_ms.saturating_sub(self.since) > limits.bounds.catch_up_seconds * 1000 {
            Some("it takes its messages too slowly")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_session_is_ended_when_it_stands_still_or_only_trickles() {
        let limits = Limits::default();
        let stuck = "it has not taken any message for too long";
        let slow = "it takes its messages too slowly";
        // How often it takes a message, how often it has caught up, and when it is ended for what.
        for (takes, catches_up, expected) in [
            (1000, 1000, Some((31, stuck))),
            (40, 1000, Some((31, stuck))),
            (29, 1000, Some((61, slow))),
            (1, 1000, Some((61, slow))),
            (1, 50, None),
            (1, 150, Some((61, slow))),
        ] {
            let mut congestion = Congestion { since: 0, caught_up: 0, progress: 0, progressed: 0 };
            let ended = (1..500u64).find_map(|second| {
                let load = Load { progress: second / takes, caught_up: second / catches_up, ..Load::default() };
                congestion.reason_to_end(load, second * 1000, &limits).map(|reason| (second, reason))
            });
            assert_eq!(ended, expected, "a message every {takes} seconds, caught up every {catches_up}");
        }
    }
}
