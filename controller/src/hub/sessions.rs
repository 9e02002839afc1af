//! Sessions and the last uses of credentials: listed, ended, remembered. What ends by its own time
//! ends at the next tick.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pistat_protocol::{api::SessionView, dashboard::Severity, id::AccountName, time::Timestamp};
use tokio::sync::watch;

use super::{
    Hub, PendingAccess,
    ask::{Refused, Reply},
    people::access_line,
    refuse, tell,
};
use crate::{
    access::{Access, AccessChange, AccessRefusal, Caller, SecretHash, Use, Uses},
    fleet::Now,
};

/// How often last uses are written: each write is the whole file, and a card wears out.
const KEEP_EVERY: Duration = Duration::from_secs(3600);

/// The last uses as they are known now.
pub(super) struct UsesKept {
    uses: Uses,
    watch: watch::Sender<Arc<Uses>>,
    /// Whether there is one that is not on the disk.
    is_new: bool,
    kept_at: Instant,
    /// When it was last looked for what has ended by its own time.
    looked_at: Timestamp,
}

impl UsesKept {
    pub(super) fn new(access: &Access, watch: watch::Sender<Arc<Uses>>, now: Now) -> Self {
        let uses = access.uses().clone();
        watch.send_replace(Arc::new(uses.clone()));
        Self { uses, watch, is_new: false, kept_at: now.monotonic, looked_at: now.wall }
    }

    pub(super) fn last(&self) -> &Uses {
        &self.uses
    }
}

impl Hub {
    /// Notes the use of a credential, once a minute at most.
    pub(super) fn used(&mut self, credential: SecretHash, at: Use) {
        if self.uses.uses.is_due(&credential, at.at) {
            self.uses.uses.note(credential, at);
            self.uses.is_new = true;
            self.uses.watch.send_replace(Arc::new(self.uses.uses.clone()));
        }
    }

    /// The token of an account was used at the broker.
    pub(super) fn used_over_mqtt(&mut self, account: &str, from: IpAddr) {
        if let Some(token) = self.access.account(account).map(|account| account.token_sha256) {
            self.used(token, Use { at: self.now.wall, from });
        }
    }

    /// What ends by its own time does so here, and last uses are written now and then.
    pub(super) fn tick_access(&mut self) {
        if self.access.differs(self.uses.looked_at, self.now.wall) {
            self.access_changed();
        }
        self.uses.looked_at = self.now.wall;
        if self.now.monotonic.saturating_duration_since(self.uses.kept_at) >= KEEP_EVERY {
            self.keep_uses();
        }
    }

    /// Hands last uses to the store, if there are new ones.
    pub(super) fn keep_uses(&mut self) {
        self.uses.kept_at = self.now.monotonic;
        if std::mem::take(&mut self.uses.is_new) {
            self.store_access(vec![AccessChange::Used(self.uses.uses.clone())], None, PendingAccess::Used);
        }
    }

    /// Last uses are on the disk; those of credentials that have ended are forgotten.
    pub(super) fn uses_stored(&mut self) {
        let known = self.access.uses();
        self.uses.uses.keep(|credential| known.last(credential).is_some());
    }

    pub(super) fn tell_sessions(&self, caller: &Caller, reply: Reply<Vec<SessionView>>) {
        tell(reply, self.access.sessions(caller, &self.uses.uses, self.now.wall));
    }

    pub(super) fn end_session(&mut self, caller: &Caller, name: &str, reply: Reply<()>) {
        let Some((cookie, session)) = self.access.session_named(caller, name) else {
            return refuse(
                reply,
                Refused::missing(format!(
                    "there is no session {name:?}; `pistat sessions` shows those that you may end"
                )),
            );
        };
        let text = format!("ended session {name} of {}", session.account);
        self.end(caller, AccessChange::RemoveSession(cookie), text, reply);
    }

    pub(super) fn end_sessions(&mut self, caller: &Caller, account: AccountName, reply: Reply<()>) {
        if !caller.may_end(&account) {
            let text = format!("only {account} and administrators may end the sessions of {account}");
            return refuse(reply, Refused::forbidden(text));
        }
        if self.access.account(account.as_str()).is_none() {
            return refuse(reply, Refused::missing(AccessRefusal::NoAccount(account.to_string())));
        }
        let text = format!("ended all sessions of {account}");
        self.end(caller, AccessChange::RemoveSessions(account), text, reply);
    }

    fn end(&mut self, caller: &Caller, change: AccessChange, text: String, reply: Reply<()>) {
        let line = access_line(caller, Severity::Info, None, text);
        self.store_access(vec![change], Some(line), PendingAccess::Done(reply));
    }
}
