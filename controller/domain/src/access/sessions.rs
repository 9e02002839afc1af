//! Signed-in browsers. A session has two secrets: its cookie, which a browser sends to every port
//! of a host, and the key of its page,
//! which only pages of the controller's own origin can read. The cookie alone proves nothing but
//! whose browser asks.

use std::{collections::BTreeMap, net::IpAddr};

use pistat_protocol::{api::SessionView, id::AccountName, order::hex, time::Timestamp};
use serde::{Deserialize, Serialize};

use super::{Access, Caller, Credential, SecretHash};

/// How long a sign-in lasts.
pub(super) const SESSION_MILLISECONDS: i64 = 30 * 86_400_000;

/// The most sessions that one account has: of more, a sign-in is refused, since a session never
/// ends another.
pub const MAX_SESSIONS_PER_ACCOUNT: usize = 1000;

/// A use of a credential is remembered once in this time.
const USE_MILLISECONDS: i64 = 60_000;

/// The longest description of a browser that is kept, in characters.
const MAX_USER_AGENT: usize = 200;

/// A signed-in browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Whose.
    pub account: AccountName,
    /// Since when.
    pub created_at: Timestamp,
    /// The hash of its page's key. Sessions from before there were keys have none, and are dropped.
    #[serde(default)]
    pub key_sha256: Option<SecretHash>,
    /// Where the sign-in came from; behind a reverse proxy, the proxy's address.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// What the browser calls itself.
    #[serde(default)]
    pub user_agent: Option<String>,
}

impl SessionRecord {
    fn expires_at(&self) -> Timestamp {
        Timestamp::from_unix_milliseconds(self.created_at.unix_milliseconds() + SESSION_MILLISECONDS)
    }
}

/// What a browser calls itself, as far as it is kept.
pub fn user_agent(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_USER_AGENT).collect()
}

/// The name of a session in lists: the beginning of its cookie's hash, which
/// reveals nothing of the cookie.
fn id(cookie: &SecretHash) -> String {
    hex(&cookie.0[..8])
}

/// When and from where a credential was last used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// When, to the minute.
    pub at: Timestamp,
    /// Where it came from; behind a reverse proxy, the proxy's address.
    pub from: IpAddr,
}

/// The last uses of credentials, by the hash of a token or of a session's cookie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uses(BTreeMap<SecretHash, Use>);

impl Uses {
    /// Whether nothing was used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a use of this credential is to be noted: its last one is not of this minute.
    pub fn is_due(&self, credential: &SecretHash, now: Timestamp) -> bool {
        // A clock that was set back makes the last use one of the future.
        let age = |last: &Use| (now.unix_milliseconds() - last.at.unix_milliseconds()).abs();
        self.0.get(credential).is_none_or(|last| age(last) >= USE_MILLISECONDS)
    }

    /// Notes a use.
    pub fn note(&mut self, credential: SecretHash, at: Use) {
        self.0.insert(credential, at);
    }

    /// Forgets what does not hold.
    pub fn keep(&mut self, holds: impl Fn(&SecretHash) -> bool) {
        self.0.retain(|credential, _| holds(credential));
    }

    /// The last use.
    pub fn last(&self, credential: &SecretHash) -> Option<Use> {
        self.0.get(credential).copied()
    }
}

impl Access {
    /// Who has this session, if it has not run out. A wrong key proves nothing; without one the
    /// credential is the cookie alone.
    pub fn caller_by_session(&self, cookie: &str, key: Option<&str>, now: Timestamp) -> Option<Caller> {
        // The hash is looked up, not compared: who could use its timing would have to know
        // preimages of SHA-256.
        let cookie = SecretHash::of(cookie);
        let caller = self.caller(Credential::Cookie(cookie), now)?;
        match key {
            Some(key) => self.with_key(&caller, key),
            None => Some(caller),
        }
    }

    /// A caller whose cookie is known, with the key of its page.
    pub fn with_key(&self, caller: &Caller, key: &str) -> Option<Caller> {
        let Credential::Cookie(cookie) = caller.credential else { return None };
        let expected = self.sessions.get(&cookie)?.key_sha256?;
        expected.matches(key).then(|| Caller { credential: Credential::Session(cookie), ..caller.clone() })
    }

    /// The session of a credential, if it is one that has not run out.
    pub(super) fn session_in_force(&self, credential: &Credential, now: Timestamp) -> Option<&SessionRecord> {
        let (Credential::Cookie(cookie) | Credential::Session(cookie)) = credential else { return None };
        self.sessions.get(cookie).filter(|session| now < session.expires_at())
    }

    /// The sessions that a caller may see: an administrator's are all, the newest first.
    pub fn sessions(&self, caller: &Caller, uses: &Uses, now: Timestamp) -> Vec<SessionView> {
        let seen = self.sessions.iter().filter(|(_, session)| caller.may_end(&session.account));
        let mut views: Vec<_> = seen
            .filter(|(_, session)| now < session.expires_at())
            .map(|(cookie, session)| {
                let last = uses.last(cookie);
                SessionView {
                    id: id(cookie),
                    account: session.account.clone(),
                    address: last.map(|last| last.from).or(session.address).map(|address| address.to_string()),
                    user_agent: session.user_agent.clone(),
                    created_at: session.created_at,
                    last_used: last.map(|last| last.at),
                    expires_at: session.expires_at(),
                    current: caller.session() == Some(*cookie),
                }
            })
            .collect();
        views.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        views
    }

    /// The session of this name, if the caller may end it.
    pub fn session_named(&self, caller: &Caller, name: &str) -> Option<(SecretHash, &SessionRecord)> {
        let mut sessions = self.sessions.iter().filter(|(_, session)| caller.may_end(&session.account));
        sessions.find(|(cookie, _)| id(cookie) == name).map(|(cookie, session)| (*cookie, session))
    }

    /// How many sessions an account has.
    pub fn session_count(&self, account: &AccountName, now: Timestamp) -> usize {
        let own = |session: &&SessionRecord| session.account.key() == account.key() && now < session.expires_at();
        self.sessions.values().filter(own).count()
    }

    pub(super) fn end_sessions(&mut self, account: &AccountName) {
        self.sessions.retain(|_, session| session.account.key() != account.key());
    }

    pub(super) fn put_session(&mut self, cookie: SecretHash, session: SessionRecord) {
        let now = session.created_at;
        self.sessions.retain(|_, other| now < other.expires_at());
        self.sessions.insert(cookie, session);
    }

    /// Ends the sessions of before there were keys, and says how many there were.
    pub fn drop_sessions_without_key(&mut self) -> usize {
        let before = self.sessions.len();
        self.sessions.retain(|_, session| session.key_sha256.is_some());
        before - self.sessions.len()
    }

    /// The uses that were on the disk.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Uses as they are kept: of credentials that are still in force.
    pub(super) fn keep_uses(&mut self, uses: &Uses) {
        let tokens: std::collections::BTreeSet<_> =
            self.accounts.values().map(|account| account.token_sha256).collect();
        let is_known = |credential: &SecretHash| tokens.contains(credential) || self.sessions.contains_key(credential);
        let mut kept = uses.clone();
        kept.keep(is_known);
        self.uses = kept;
    }
}
