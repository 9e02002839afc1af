//! Subscriptions: into the tree, and the retained messages that a new one is owed.

use super::Hub;
use crate::contract::{SubscribeRequest, UnsubscribeRequest};
use crate::filter;
use crate::message::SessionId;
use crate::outbox::Delivery;
use crate::packet::{QoS, RetainHandling, SubscriptionOptions, reason};
use crate::store::KeptSubscription;
use crate::topic_tree::Subscriber;

impl Hub {
    pub(super) fn on_subscribe(&mut self, request: SubscribeRequest) {
        let codes = request
            .filters
            .iter()
            .map(|(text, options)| self.subscribe(request.session, text, request.identifier, *options))
            .collect();
        // The answer first, then the retained messages: they wait in the outbox until the session
        // has sent the answer.
        let _ = request.reply.send(codes);
    }

    fn subscribe(&mut self, id: SessionId, text: &str, identifier: u32, options: SubscriptionOptions) -> u8 {
        let limit = self.front.limits.bounds.subscriptions;
        let Some(session) = self.sessions.get_mut(id) else { return reason::UNSPECIFIED };
        let is_full = session.subscriptions.len() >= limit;
        let owner = session.key.0.clone();
        if (is_full || !self.account_may_subscribe(&owner, text)) && !self.has_subscribed(id, text) {
            return reason::QUOTA_EXCEEDED;
        }
        let Some(parsed) = filter::parse(text, usize::MAX, usize::MAX) else { return reason::FILTER_INVALID };
        let subscriber = Subscriber { session: id, identifier, options };
        let is_new = self.tree.subscribe(parsed.filter, parsed.group, subscriber);
        let subscription = KeptSubscription { filter: text.into(), identifier, options };
        let has_changed = if is_new {
            self.note_subscription(id, subscription, parsed.group.is_some());
            true
        } else {
            self.change_subscription(id, &subscription)
        };
        if has_changed {
            self.note_session(id);
        }
        let wants_retained = match options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => is_new,
            RetainHandling::Never => false,
        };
        if wants_retained && parsed.group.is_none() {
            self.send_retained(parsed.filter, subscriber);
        }
        options.qos as u8
    }

    fn has_subscribed(&mut self, id: SessionId, text: &str) -> bool {
        self.sessions
            .get_mut(id)
            .is_some_and(|session| session.subscriptions.iter().any(|known| *known.filter == *text))
    }

    pub(super) fn note_subscription(&mut self, id: SessionId, subscription: KeptSubscription, is_shared: bool) {
        let Some(session) = self.sessions.get(id) else { return };
        let owner = session.key.0.clone();
        self.count_subscribed(&owner, &subscription.filter);
        if let Some(session) = self.sessions.get_mut(id) {
            session.subscriptions.push(subscription);
        }
        self.front.counters.subscriptions.add(1);
        if is_shared {
            self.front.counters.subscriptions_shared.add(1);
        }
    }

    /// Whether the subscription is another than before. Clients repeat theirs at each connection.
    fn change_subscription(&mut self, id: SessionId, subscription: &KeptSubscription) -> bool {
        let Some(session) = self.sessions.get_mut(id) else { return false };
        let known = session.subscriptions.iter_mut().find(|known| known.filter == subscription.filter);
        let Some(known) = known.filter(|known| *known != subscription) else { return false };
        known.clone_from(subscription);
        true
    }

    fn send_retained(&mut self, filter: &str, subscriber: Subscriber) {
        let Some(session) = self.sessions.get(subscriber.session) else { return };
        let now_ms = self.front.clock.now_ms();
        let most = 2 * self.front.limits.retained_messages;
        let access = &self.front.access;
        let allowed =
            self.retained.matching(filter, now_ms).filter(|m| access.may_receive(&session.identity, m.topic()));
        let deliveries = allowed.map(|message| Delivery {
            message: message.clone(),
            qos: subscriber.options.qos.min(message.qos()),
            retain: true,
            identifiers: (subscriber.identifier != 0).then(|| Box::from([subscriber.identifier])),
            share: None,
        });
        session.outbox.push_retained(deliveries, &mut self.wakers);
        let id = subscriber.session;
        if subscriber.options.qos == QoS::ExactlyOnce && session.outbox.has_exactly_once() {
            self.note_exchange(id);
        }
        let Some(session) = self.sessions.get_mut(id) else { return };
        // Asking again and again for everything must not pile up more than the store itself holds,
        // twice over.
        if session.outbox.load().messages > most {
            self.overflowing.push((subscriber.session, "it asks for more retained messages than it takes"));
        }
    }

    pub(super) fn on_unsubscribe(&mut self, request: UnsubscribeRequest) {
        let codes = request.filters.iter().map(|text| self.unsubscribe(request.session, text)).collect();
        let _ = request.reply.send(codes);
    }

    fn unsubscribe(&mut self, id: SessionId, text: &str) -> u8 {
        let Some(session) = self.sessions.get_mut(id) else { return reason::NO_SUBSCRIPTION_EXISTED };
        let Some(index) = session.subscriptions.iter().position(|known| *known.filter == *text) else {
            return reason::NO_SUBSCRIPTION_EXISTED;
        };
        session.subscriptions.swap_remove(index);
        let owner = session.key.0.clone();
        self.drop_subscription(text, id, &owner);
        self.note_session(id);
        reason::SUCCESS
    }
}
