//! Sessions come and go: connect, takeover, parking, expiry.

use std::sync::Arc;

use super::{Hub, NEVER, Session, after_seconds};
use crate::access::{Identity, Secret};
use crate::contract::{Attached, Closed, ConnectRefusal, ConnectRequest, Report, WillFate};
use crate::events::BrokerEvent;
use crate::filter;
use crate::message::SessionId;
use crate::outbox::{Bounds, Delivery, End, Outbox};
use crate::packet::QoS;
use crate::store::SessionKey;

/// How much longer the queue of `QoS` 0 is for the controller: it receives every machine's samples,
/// so a pause of its own must not cost a fleet's.
const CONTROLLER_QUEUE_FACTOR: usize = 16;

impl Hub {
    pub(super) fn on_connect(&mut self, request: Box<ConnectRequest>) {
        let Some(request) = self.still_good(request) else { return };
        let key = session_key(&request.identity, &request.client_id);
        let Some(&id) = self.keys.get(&key) else { return self.open_session(key, *request) };
        let Some(session) = self.sessions.get_mut(id) else {
            return request.refuse(ConnectRefusal::Overtaken);
        };
        match session.peer {
            None => self.reopen_session(id, *request),
            Some(previous) => {
                session.outbox.end(End::TakenOver { clean_start: request.clean_start });
                self.front.counters.takeovers.add(1);
                self.front.events.send(BrokerEvent::TakenOver {
                    account: session.identity.name().to_owned(),
                    client_id: session.key.1.to_string(),
                    peer: request.peer,
                    previous,
                });
                if let Some(overtaken) = session.waiting.replace(request) {
                    overtaken.refuse(ConnectRefusal::Overtaken);
                }
            }
        }
    }

    /// The account may have been changed since the credentials were checked; then the request is
    /// refused here.
    fn still_good(&self, mut request: Box<ConnectRequest>) -> Option<Box<ConnectRequest>> {
        match self.directory.identify(&request.user_name, &request.secret) {
            Some(identity) if !request.identity.exceeds(&identity) => {
                request.identity = Arc::new(identity);
                Some(request)
            }
            _ => {
                request.refuse(ConnectRefusal::Revoked);
                None
            }
        }
    }

    pub(super) fn on_closed(&mut self, closed: Closed) {
        let now_ms = self.front.clock.now_ms();
        let Some(session) = self.sessions.get_mut(closed.id) else { return };
        let id = closed.id;
        session.peer = None;
        session.away_since = now_ms;
        let session_expiry = session.expiry_after(&closed);
        session.expiry_seconds = session_expiry;
        session.expires_at = after_seconds(now_ms, session_expiry);
        session.parked = closed.parked;
        session.outbox.park();
        let waiting = session.waiting.take();
        let owner = session.key.0.clone();
        match closed.will {
            WillFate::Done => self.set_will(id, None),
            WillFate::Delayed(seconds) => self.delay_will(id, seconds.min(session_expiry), now_ms),
            WillFate::Kept => {}
        }
        self.release_account(&owner);
        self.congested.remove(&id);
        self.front.counters.clients_connected.sub(1);
        match waiting.and_then(|request| self.still_good(request)) {
            Some(request) => self.reopen_session(id, *request),
            None if session_expiry == 0 => self.remove_session(id),
            None => {
                self.note_away(id);
                self.count_away(id);
                // The account may have been changed while the connection ended.
                self.review(id);
                self.make_room_for_parked(id);
            }
        }
    }

    fn open_session(&mut self, key: SessionKey, request: ConnectRequest) {
        if !self.account_has_room(&key.0) {
            return request.refuse(ConnectRefusal::TooMany);
        }
        let outbox = Outbox::new(self.outbox_bounds(&request.identity));
        let (identity, secret) = (Identity::clone(&request.identity), request.secret.clone());
        let session = Session {
            user_name: request.user_name.clone(),
            expiry_seconds: request.session_expiry,
            ..Session::new(key, identity, secret, outbox)
        };
        let id = self.insert(session);
        self.attach(id, request, false);
    }

    /// Adds a session under its key.
    pub(super) fn insert(&mut self, session: Session) -> SessionId {
        let key = session.key.clone();
        let id = self.sessions.insert(Box::new(session));
        self.keys.insert(key, id);
        id
    }

    /// The client of a session has come back, or comes anew under its name.
    fn reopen_session(&mut self, id: SessionId, request: ConnectRequest) {
        let now_ms = self.front.clock.now_ms();
        let Some(session) = self.sessions.get_mut(id) else { return };
        let is_continued = !request.clean_start && session.expires_at > now_ms;
        if !self.account_has_room(&session_key(&request.identity, &request.client_id).0) {
            return request.refuse(ConnectRefusal::TooMany);
        }
        let Some(session) = self.sessions.get_mut(id) else { return };
        if is_continued {
            // The client is back before its will was due.
            session.will_due = None;
            session.outbox.reopen();
            session.identity = request.identity.clone();
            session.user_name.clone_from(&request.user_name);
            session.secret = request.secret.clone();
            session.expiry_seconds = request.session_expiry;
            self.count_back(id);
            self.attach(id, request, true);
        } else {
            self.replace_session(id, request);
        }
    }

    /// The old session ends and a new one begins under its name.
    fn replace_session(&mut self, id: SessionId, request: ConnectRequest) {
        let will = self.take_due_will(id);
        self.remove_session(id);
        match will {
            // The old session's will is due, and must come before anything that the new client
            // says.
            Some(will) => self.publish_before_connect(&will, request),
            None => self.open_session(session_key(&request.identity, &request.client_id), request),
        }
    }

    fn attach(&mut self, id: SessionId, request: ConnectRequest, session_present: bool) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.peer = Some(request.peer);
        session.expires_at = NEVER;
        session.is_unsure = session.has_exactly_once_unfinished();
        // A session whose client has not received CONNACK is not kept; one that was there before
        // stays.
        let session_expiry = if session_present { request.session_expiry } else { 0 };
        let unstarted = Closed { id, position: 0, session_expiry, will: WillFate::Done, parked: session.parked.take() };
        let report = Report::new(self.front.spine.clone(), self.front.closed.clone(), unstarted);
        let attached = Attached { id, session_present, outbox: session.outbox.clone(), report };
        let key = session.key.clone();
        self.occupy_account(&key.0);
        if self.orphaned_wills.remove(&key).is_some() {
            self.note_will(key, None);
        }
        self.set_will(id, request.will);
        self.note_session(id);
        if session_present {
            self.returned.insert(id);
        }
        let counters = &self.front.counters;
        counters.clients_connected.add(1);
        counters.clients_maximum.at_least(counters.clients_connected.get());
        // If the connection went away while it waited, its end is reported like any other.
        drop(request.reply.send(Ok(attached)));
    }

    /// Ends a session with everything that waits in it.
    pub(super) fn remove_session(&mut self, id: SessionId) {
        if let Some(will) = self.take_due_will(id) {
            // The session ends, so its will is due.
            self.publish_will(&will);
        }
        self.set_will(id, None);
        self.forget_session(id);
        self.count_back(id);
        let Some(session) = self.sessions.remove(id) else { return };
        self.keys.remove(&session.key);
        for subscription in &session.subscriptions {
            self.drop_subscription(&subscription.filter, id, &session.key.0);
        }
        let left = session.left_for_others();
        let unfinished = session.parked.as_ref().map_or(0, |parked| parked.in_flight.len() as u64);
        let waiting = (session.outbox.close() + unfinished).saturating_sub(left.len() as u64);
        let lost = self.deliver_to_others(left);
        self.front.counters.dropped_with_session.add(waiting + lost);
        if let Some(waiting) = session.waiting {
            waiting.refuse(ConnectRefusal::Revoked);
        }
        self.shrink();
    }

    /// Ends a session for exceeding a bound, and says so.
    pub(super) fn end_session(&mut self, id: SessionId, reason: &str) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        // The task of a connected one reports the end, with no session left to keep.
        let is_connected = session.peer.is_some();
        if is_connected && !session.outbox.end(End::TooSlow) {
            return;
        }
        self.front.counters.sessions_ended.add(1);
        self.front.events.send(BrokerEvent::SessionEnded {
            account: session.identity.name().to_owned(),
            client_id: session.key.1.to_string(),
            reason: reason.to_owned(),
        });
        if !is_connected {
            self.remove_session(id);
        }
    }

    pub(super) fn expire_sessions(&mut self, now_ms: u64) {
        let expired = |session: &Session| session.peer.is_none() && session.expires_at <= now_ms;
        for id in self.sessions_where(expired) {
            self.front.counters.clients_expired.add(1);
            self.remove_session(id);
        }
    }

    pub(super) fn sessions_where(&self, wanted: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, session)| wanted(session)).map(|(id, _)| id).collect()
    }

    /// Takes a subscription out of the tree.
    pub(super) fn drop_subscription(&mut self, text: &str, id: SessionId, owner: &str) {
        let Some(parsed) = filter::parse(text, usize::MAX, usize::MAX) else { return };
        if self.tree.unsubscribe(parsed.filter, parsed.group, id) {
            self.count_unsubscribed(owner, text);
            self.front.counters.subscriptions.sub(1);
            if parsed.group.is_some() {
                self.front.counters.subscriptions_shared.sub(1);
            }
        }
    }

    pub(super) fn outbox_bounds(&self, identity: &Identity) -> Bounds {
        let factor = if *identity == Identity::Controller { CONTROLLER_QUEUE_FACTOR } else { 1 };
        let limits = &self.front.limits;
        Bounds {
            qos0_bytes: limits.bounds.queue_bytes_qos0.saturating_mul(factor),
            reliable_bytes: limits.queue_bytes,
            paces_qos0: limits.paces_qos0(),
        }
    }

    /// After a storm of short-lived clients the tables become small again.
    fn shrink(&mut self) {
        if self.keys.capacity() > 1024 && self.keys.len() < self.keys.capacity() / 4 {
            self.keys.shrink_to_fit();
            self.accounts.shrink_to_fit();
        }
    }
}

fn session_key(identity: &Identity, client_id: &str) -> SessionKey {
    (identity.session_owner().into(), client_id.into())
}

impl Session {
    /// Seconds that it lives on when its connection has ended so. The hub may have ended it while
    /// the connection ended of itself; what was said to it since then is lost, so nothing may come
    /// after.
    pub(super) fn expiry_after(&self, closed: &Closed) -> u32 {
        if self.outbox.is_given_up() { 0 } else { closed.session_expiry }
    }

    /// What other members of its shared subscriptions may have instead: all that it has not been
    /// sent, and of what it has, but not acknowledged, that of `QoS` 1. Its client may have a
    /// message of `QoS` 2 already, and then no other may.
    fn left_for_others(&self) -> Vec<Delivery> {
        let sent = self
            .parked
            .iter()
            .flat_map(|parked| parked.unacknowledged())
            .filter(|sent| sent.qos == QoS::AtLeastOnce)
            .cloned();
        sent.chain(self.outbox.reliable()).filter(|delivery| delivery.share.is_some()).collect()
    }

    /// A session without a connection.
    pub(super) fn new(key: SessionKey, identity: Identity, secret: Secret, outbox: Arc<Outbox>) -> Self {
        Self {
            key,
            user_name: Box::default(),
            secret,
            identity: Arc::new(identity),
            outbox,
            subscriptions: Vec::new(),
            peer: None,
            waiting: None,
            parked: None,
            expires_at: NEVER,
            away_since: 0,
            will: None,
            will_due: None,
            expiry_seconds: 0,
            is_on_disk: false,
            has_queue_on_disk: false,
            is_unsure: false,
            away_bytes: None,
            asked_secret: None,
            answer_until: None,
        }
    }
}
