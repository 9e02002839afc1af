//! Accounts change while clients are connected: what was revoked ends at once.

use std::sync::Arc;

use super::Hub;
use crate::access::Directory;
use crate::events::BrokerEvent;
use crate::outbox::End;

impl Hub {
    pub(super) fn on_directory(&mut self, directory: Arc<Directory>) {
        self.directory = directory;
        for slot in self.slots_where(|_| true) {
            self.review(slot);
        }
    }

    /// Ends a session whose credential is gone or changed, or whose rights shrank; others get their new rights.
    pub(super) fn review(&mut self, slot: u32) {
        let Some(session) = self.sessions[slot as usize].as_mut() else { return };
        match self.directory.identify(&session.user_name, &session.secret) {
            Some(identity) if !session.identity.exceeds(&identity) => {
                // A machine that has been enrolled goes on as joining until it comes back as an agent.
                let same_kind = std::mem::discriminant(&identity) == std::mem::discriminant(&*session.identity);
                if same_kind && identity != *session.identity {
                    session.identity = Arc::new(identity);
                    session.outbox.set_identity(session.identity.clone());
                }
            }
            // The same machine waits for the answer to its enrolment with a token that was for this once.
            _ if self.directory.has_just_enrolled(&session.identity) => {}
            _ => self.revoke(slot),
        }
    }

    fn revoke(&mut self, slot: u32) {
        let Some(session) = self.sessions[slot as usize].as_mut() else { return };
        self.front.events.tell(BrokerEvent::SessionEnded {
            account: session.identity.name().to_owned(),
            client_id: session.key.1.to_string(),
            reason: "its account was removed or changed".to_owned(),
        });
        if session.peer.is_some() {
            session.outbox.end(End::Revoked);
        } else {
            self.remove_session(slot);
        }
    }
}
