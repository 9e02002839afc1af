//! Accounts change while clients are connected: what was revoked ends at once.

use std::sync::Arc;

use pistat_protocol::{
    codec::decode,
    order::{EnrollRequest, parse_sha256},
};

use super::{Hub, Session};
use crate::access::{Directory, Identity};
use crate::events::BrokerEvent;
use crate::message::{Message, SessionId};
use crate::outbox::End;

impl Hub {
    pub(super) fn on_directory(&mut self, directory: Arc<Directory>) {
        let before = std::mem::replace(&mut self.directory, directory);
        for id in self.sessions_where(|_| true) {
            self.note_enrolled(id, &before);
            self.review(id);
        }
    }

    /// Remembers with which secret a joining machine asks to be enrolled.
    pub(super) fn note_enrolment(&mut self, message: &Message) {
        if !self.front.access.is_enrolment(message.topic()) {
            return;
        }
        let joining = |session: &&mut Box<Session>| matches!(*session.identity, Identity::Joining(..));
        if let Some(session) = self.sessions.get_mut(message.publisher()).filter(joining) {
            let request: Option<EnrollRequest> = decode(&message.payload()).ok();
            session.asked_secret = request.and_then(|request| parse_sha256(&request.secret_sha256));
        }
    }

    /// A machine that joined with a token for one use may wait for the reply, if it is its own
    /// secret that has become valid: as long as a client may take to send CONNECT.
    fn note_enrolled(&mut self, id: SessionId, before: &Directory) {
        let answer_until = self.front.clock.now_ms() + self.front.limits.bounds.connect_seconds * 1000;
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Identity::Joining(pi, _) = &*session.identity else { return };
        let (was, is) = (before.agent_secret(pi), self.directory.agent_secret(pi));
        if is.is_some() && is != was && is == session.asked_secret.as_ref() {
            session.answer_until = Some(answer_until);
        }
    }

    /// Ends those that have waited long enough with a token that is not valid any more.
    pub(super) fn review_enrolled(&mut self, now_ms: u64) {
        for id in self.sessions_where(|session| session.answer_until.is_some_and(|until| until <= now_ms)) {
            if let Some(session) = self.sessions.get_mut(id) {
                session.answer_until = None;
            }
            self.review(id);
        }
    }

    /// Ends a session whose credential is gone or changed, or whose rights shrank; others get their
    /// new rights.
    pub(super) fn review(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        match self.directory.identify(&session.user_name, &session.secret) {
            Some(identity) if !session.identity.exceeds(&identity) => {
                // A machine that has been enrolled goes on as joining until it comes back as an
                // agent.
                let same_kind = std::mem::discriminant(&identity) == std::mem::discriminant(&*session.identity);
                if same_kind && identity != *session.identity {
                    session.identity = Arc::new(identity);
                    session.outbox.set_identity(session.identity.clone());
                }
            }
            _ if session.answer_until.is_some() => {}
            _ => self.revoke(id),
        }
    }

    fn revoke(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        self.front.events.send(BrokerEvent::SessionEnded {
            account: session.identity.name().to_owned(),
            client_id: session.key.1.to_string(),
            reason: "its account was removed or changed".to_owned(),
        });
        if session.peer.is_some() {
            session.outbox.end(End::Revoked);
        } else {
            self.remove_session(id);
        }
    }
}
