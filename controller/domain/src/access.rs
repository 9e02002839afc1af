//! Who may do what: accounts, enrolled machines and signed-in sessions. Pure: it decides, others
//! store and tell.
//!
//! Secrets are 256 random bits; what is kept of one is its SHA-256, compared in constant time. A
//! change is decided on what is in force, stored, and only then applied, by the same
//! [`Access::apply`] in the store and in the hub, so that both always agree.

mod joining;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use pistat_protocol::{
    account::{Account, Role},
    api::Enrolment,
    id::{AccountName, PiId, TokenName, is_reserved},
    order::{EnrollRequest, parse_sha256, sha256},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

pub use joining::JoinTokenRecord;
pub use sessions::{MAX_SESSIONS_PER_ACCOUNT, SessionRecord, Use, Uses, user_agent};

/// The SHA-256 of a secret, in hexadecimal in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Of a secret's text.
    pub fn of(secret: &str) -> Self {
        Self(sha256(secret.as_bytes()))
    }

    /// Whether it is the hash of this secret, in constant time.
    pub fn matches(&self, secret: &str) -> bool {
        self.0.ct_eq(&Self::of(secret).0).into()
    }
}

impl TryFrom<String> for SecretHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        parse_sha256(&text).map(Self).ok_or("a SHA-256 is 64 hexadecimal digits")
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        pistat_protocol::order::hex(&hash.0)
    }
}

/// An account as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// Its name.
    pub name: AccountName,
    /// What it may do.
    pub role: Role,
    /// The hash of its token.
    pub token_sha256: SecretHash,
    /// Topic filters that it may publish to, besides its role's.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Topic filters that it may receive, besides its role's.
    #[serde(default)]
    pub subscribe: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, with its token and its sessions; null is never.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// How long a token of it lasts, in milliseconds: a new token lasts as long again.
    #[serde(default)]
    pub lifetime_milliseconds: Option<i64>,
    /// How often it was given a new token.
    #[serde(default)]
    pub rotations: u32,
}

impl AccountRecord {
    /// The account that is always there.
    pub fn admin(token: &str, now: Timestamp) -> Self {
        Self {
            name: AccountName::admin(),
            role: Role::Admin,
            token_sha256: SecretHash::of(token),
            publish: Vec::new(),
            subscribe: Vec::new(),
            created_at: now,
            expires_at: None,
            lifetime_milliseconds: None,
            rotations: 0,
        }
    }

    /// Lets it end after this time from now on, or never.
    pub fn expire_after(&mut self, lifetime: Option<std::time::Duration>, now: Timestamp) {
        self.lifetime_milliseconds =
            lifetime.map(|lifetime| i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX / 2));
        self.expires_at = self.lifetime_milliseconds.map(|lifetime| after(now, lifetime));
    }

    /// How long a token of it lasts.
    pub fn lifetime(&self) -> Option<std::time::Duration> {
        let milliseconds = u64::try_from(self.lifetime_milliseconds?).ok()?;
        Some(std::time::Duration::from_millis(milliseconds))
    }

    /// Whether it has not ended.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// What `GET /api/accounts` shows.
    pub fn view(&self, uses: &Uses) -> Account {
        Account {
            name: self.name.clone(),
            role: self.role,
            publish: self.publish.clone(),
            subscribe: self.subscribe.clone(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_used: uses.last(&self.token_sha256).map(|last| last.at),
        }
    }
}

fn after(now: Timestamp, milliseconds: i64) -> Timestamp {
    Timestamp::from_unix_milliseconds(now.unix_milliseconds().saturating_add(milliseconds))
}

/// A machine that may connect, or may enrol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Which.
    pub pi: PiId,
    /// The hash of its secret; null until it enrols.
    pub secret_sha256: Option<SecretHash>,
    /// The board's serial number, as it said when it enrolled.
    #[serde(default)]
    pub serial: Option<String>,
    /// When it enrolled.
    #[serde(default)]
    pub enrolled_at: Option<Timestamp>,
    /// Whether one new enrolment is allowed.
    #[serde(default)]
    pub open: bool,
    /// The hash of its single-use token.
    #[serde(default)]
    pub token_sha256: Option<SecretHash>,
}

impl AgentRecord {
    /// What `GET /api/enrolments` shows.
    pub fn view(&self) -> Enrolment {
        Enrolment { pi: self.pi.clone(), serial: self.serial.clone(), enrolled_at: self.enrolled_at, open: self.open }
    }
}

/// Accounts, machines and sessions in force: the content of `accounts.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    #[serde(default)]
    accounts: BTreeMap<String, AccountRecord>,
    #[serde(default)]
    agents: BTreeMap<String, AgentRecord>,
    #[serde(default)]
    sessions: BTreeMap<SecretHash, SessionRecord>,
    /// Join tokens; the default one is here once it has been used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    join_tokens: BTreeMap<TokenName, JoinTokenRecord>,
    /// When credentials were last used, as it was written last.
    #[serde(default, skip_serializing_if = "Uses::is_empty")]
    uses: Uses,
    /// Machines that were forgotten and have not been heard of since: what a broker still retains
    /// of them is old.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    forgotten: BTreeSet<String>,
}

/// A change of [`Access`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessChange {
    /// An account is new, or has another token, role or rules: its sessions end.
    PutAccount(AccountRecord),
    /// An account is gone: its sessions end.
    RemoveAccount(AccountName),
    /// A machine is new or changed.
    PutAgent(AgentRecord),
    /// A machine is forgotten.
    RemoveAgent(PiId),
    /// A machine that was forgotten is there again, on a broker that lets it in without us.
    ReturnAgent(PiId),
    /// A browser signed in, while its account had a token of this hash: with another in force
    /// since, nobody has signed in.
    PutSession {
        /// The hash of the session's cookie.
        cookie: SecretHash,
        /// The session.
        session: SessionRecord,
        /// The hash of the account's token.
        token: SecretHash,
    },
    /// A browser signed out, or its session was ended.
    RemoveSession(SecretHash),
    /// All sessions of an account are ended.
    RemoveSessions(AccountName),
    /// A join token is new or changed.
    PutJoinToken(JoinTokenRecord),
    /// A join token is gone.
    RemoveJoinToken(TokenName),
    /// A machine has joined with a token, at this time.
    Joined(TokenName, Timestamp),
    /// When credentials were last used.
    Used(Uses),
}

impl AccessChange {
    /// Whose change it is: an account's or a machine's name, without regard to case.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::PutAccount(AccountRecord { name, .. }) | Self::RemoveAccount(name) => Some(name.key()),
            Self::PutAgent(AgentRecord { pi, .. }) | Self::RemoveAgent(pi) => Some(pi.key()),
            Self::PutJoinToken(JoinTokenRecord { name, .. }) | Self::RemoveJoinToken(name) => Some(name.change_key()),
            Self::ReturnAgent(_)
            | Self::Joined(..)
            | Self::PutSession { .. }
            | Self::RemoveSession(_)
            | Self::RemoveSessions(_)
            | Self::Used(_) => None,
        }
    }
}

/// Who is asking, by any way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub account: AccountName,
    /// Its role now.
    pub role: Role,
    /// How it proved that; when that ends, so does whatever it opened.
    pub credential: Credential,
}

/// What proves who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// The cookie of a browser's session, without the key of its page: another program on the host
    /// may have sent it.
    Cookie(SecretHash),
    /// A browser's session: its cookie, and the key of its page.
    Session(SecretHash),
    /// An account's token.
    Token(SecretHash),
}

impl Caller {
    /// The session, for a browser.
    pub fn session(&self) -> Option<SecretHash> {
        match self.credential {
            Credential::Session(hash) => Some(hash),
            Credential::Cookie(_) | Credential::Token(_) => None,
        }
    }

    /// What its uses are remembered by.
    pub fn credential_hash(&self) -> SecretHash {
        let (Credential::Cookie(hash) | Credential::Session(hash) | Credential::Token(hash)) = self.credential;
        hash
    }

    /// Whether it may see and end the sessions of an account: its own, and an administrator those
    /// of all.
    pub fn may_end(&self, account: &AccountName) -> bool {
        self.role == Role::Admin || self.account.key() == account.key()
    }
}

/// Why a change of accounts or machines is refused: a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    /// A name of our own.
    #[error("the name {0:?} is reserved: choose another")]
    Reserved(String),
    /// Machines and accounts share one namespace.
    #[error("there is already an account or a machine named {0:?} (case does not count): choose another name")]
    Taken(String),
    /// No such account.
    #[error("there is no account named {0:?}; `pistat account list` shows them")]
    NoAccount(String),
    /// No such machine.
    #[error("there is no machine {0:?} that enrolled or may enrol; `pistat pis` shows the fleet")]
    NoAgent(String),
    /// The last administrator stays.
    #[error(
        "the account admin cannot be removed: it is how you get in; `pistat account rotate admin` gives it a new token"
    )]
    Admin,
    /// Another machine has this pi-id.
    #[error(
        "pi-id {0} is enrolled with another secret: `pistat agent reset {0}` on the controller allows one new enrolment, or choose another --pi-id"
    )]
    Enrolled(PiId),
    /// A join token's time is over, or it was removed.
    #[error("the join token {0} has expired or was removed: `pistat join-token add` makes another")]
    TokenEnded(TokenName),
    /// A join token has no uses left.
    #[error("the join token {0} has let in as many machines as it may: `pistat join-token add` makes another")]
    TokenUsedUp(TokenName),
    /// The default token has let in too many machines of late.
    #[error(
        "the join token {0} let in {1} machines within an hour, which is as many as enrolment.per_hour allows; a machine tries \
         again by itself. If these machines are not yours, `pistat join-token rotate` ends the token"
    )]
    TokenQuota(TokenName, usize),
    /// Another machine is called so.
    #[error(
        "{name:?} is the pi-id, the label or a tag of the machine {owner} (case does not count): choose another --pi-id"
    )]
    NameOfMachine {
        /// The name.
        name: String,
        /// Whose it is.
        owner: PiId,
    },
    /// The machine has a token of its own, and came with another.
    #[error("pi-id {0} may enrol only with the token that was made for it: `pistat agent reset {0}` makes a new one")]
    OwnToken(PiId),
    /// The request makes no sense.
    #[error("the enrolment request is not valid: {0}")]
    Invalid(&'static str),
}

impl Access {
    /// Applies a change.
    pub fn apply(&mut self, change: &AccessChange) {
        match change {
            AccessChange::PutAccount(account) => {
                self.end_sessions(&account.name);
                self.accounts.insert(account.name.key(), account.clone());
            }
            AccessChange::RemoveAccount(name) => {
                self.end_sessions(name);
                self.accounts.remove(&name.key());
            }
            AccessChange::PutAgent(agent) => {
                self.forgotten.remove(&agent.pi.key());
                self.agents.insert(agent.pi.key(), agent.clone());
            }
            AccessChange::RemoveAgent(pi) => {
                self.agents.remove(&pi.key());
                self.forgotten.insert(pi.key());
            }
            AccessChange::ReturnAgent(pi) => {
                self.forgotten.remove(&pi.key());
            }
            AccessChange::PutSession { cookie, session, token } => {
                if self.account(session.account.as_str()).is_some_and(|account| account.token_sha256 == *token) {
                    self.put_session(*cookie, session.clone());
                }
            }
            AccessChange::RemoveSession(hash) => {
                self.sessions.remove(hash);
            }
            AccessChange::RemoveSessions(name) => self.end_sessions(name),
            AccessChange::PutJoinToken(token) => {
                self.join_tokens.insert(token.name.clone(), token.clone());
            }
            AccessChange::RemoveJoinToken(name) => {
                self.join_tokens.remove(name);
            }
            AccessChange::Joined(name, at) => self.note_joined(name, *at),
            AccessChange::Used(uses) => self.keep_uses(uses),
        }
    }

    /// All accounts, by name.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountRecord> {
        self.accounts.values()
    }

    /// All machines that enrolled or may enrol, by name.
    pub fn agents(&self) -> impl Iterator<Item = &AgentRecord> {
        self.agents.values()
    }

    /// An account, by name without regard to case.
    pub fn account(&self, name: &str) -> Option<&AccountRecord> {
        self.accounts.get(&name.to_ascii_lowercase())
    }

    /// A machine, by name without regard to case.
    pub fn agent(&self, pi: &str) -> Option<&AgentRecord> {
        self.agents.get(&pi.to_ascii_lowercase())
    }

    /// Whether a machine was forgotten, and has not been heard of since.
    pub fn is_forgotten(&self, pi: &PiId) -> bool {
        self.forgotten.contains(&pi.key())
    }

    /// Who has this token. Every account is compared, so that the time tells nothing.
    pub fn caller_by_token(&self, token: &str, now: Timestamp) -> Option<Caller> {
        self.caller(Credential::Token(SecretHash::of(token)), now)
    }

    /// Whose credential it is, if it and its account are in force.
    fn caller(&self, credential: Credential, now: Timestamp) -> Option<Caller> {
        let account = match &credential {
            Credential::Token(token) => self.account_by_token(token),
            _ => self.account(self.session_in_force(&credential, now)?.account.as_str()),
        };
        let account = account.filter(|account| account.is_in_force(now))?;
        Some(Caller { account: account.name.clone(), role: account.role, credential })
    }

    fn account_by_token(&self, token: &SecretHash) -> Option<&AccountRecord> {
        let mut found = None;
        for account in self.accounts.values() {
            if bool::from(account.token_sha256.0.ct_eq(&token.0)) {
                found = Some(account);
            }
        }
        found
    }

    /// Whether a caller is still who it was: its account stands with its role, and its session or
    /// token is still in force.
    pub fn still_holds(&self, caller: &Caller, now: Timestamp) -> bool {
        self.caller(caller.credential, now).is_some_and(|now| now == *caller)
    }

    /// Whether something that was in force at one time is not at the other: an account or a session
    /// has ended meanwhile.
    pub fn differs(&self, before: Timestamp, now: Timestamp) -> bool {
        let accounts = self.accounts.values().any(|account| account.is_in_force(before) != account.is_in_force(now));
        let session = |cookie: &SecretHash| {
            [before, now].map(|time| self.session_in_force(&Credential::Cookie(*cookie), time).is_some())
        };
        accounts
            || self.tokens_differ(before, now)
            || self.sessions.keys().map(session).any(|[before, now]| before != now)
    }

    /// Checks the name of a new account.
    ///
    /// # Errors
    /// It is reserved or taken.
    pub fn check_new_account(&self, name: &AccountName, machines: impl Fn(&str) -> bool) -> Result<(), AccessRefusal> {
        if is_reserved(name.as_str()) {
            return Err(AccessRefusal::Reserved(name.to_string()));
        }
        let taken =
            self.account(name.as_str()).is_some() || self.agent(name.as_str()).is_some() || machines(name.as_str());
        if taken { Err(AccessRefusal::Taken(name.to_string())) } else { Ok(()) }
    }

    /// Checks the name of a machine that joins.
    ///
    /// # Errors
    /// It is reserved or an account's.
    pub fn check_new_agent(&self, pi: &PiId) -> Result<(), AccessRefusal> {
        if is_reserved(pi.as_str()) {
            return Err(AccessRefusal::Reserved(pi.to_string()));
        }
        let other_spelling = self.agent(pi.as_str()).is_some_and(|agent| agent.pi != *pi);
        if other_spelling || self.account(pi.as_str()).is_some() {
            return Err(AccessRefusal::Taken(pi.to_string()));
        }
        Ok(())
    }

    /// Decides an enrolment: what changes, or nothing when the same secret is registered already.
    /// `has_own_token` says that the machine connected with the token that was made for it: where
    /// there is one, no other will do.
    ///
    /// # Errors
    /// The machine may not have this pi-id.
    pub fn enrol(
        &self,
        pi: &PiId,
        request: &EnrollRequest,
        has_own_token: bool,
        now: Timestamp,
    ) -> Result<Option<AccessChange>, AccessRefusal> {
        let secret = parse_sha256(&request.secret_sha256)
            .map(SecretHash)
            .ok_or(AccessRefusal::Invalid("secret_sha256 is 64 hexadecimal digits"))?;
        if request.nonce.is_empty() || request.nonce.len() > 128 {
            return Err(AccessRefusal::Invalid("a nonce has 1 to 128 characters"));
        }
        self.check_new_agent(pi)?;
        let known = self.agent(pi.as_str());
        if known.is_some_and(|agent| agent.secret_sha256 == Some(secret)) {
            return Ok(None);
        }
        let needs_own_token = known.is_some_and(|agent| agent.token_sha256.is_some());
        // A record of a version whose reset let any join token in has no token: it is reset anew.
        let is_open = known.is_none_or(|agent| agent.secret_sha256.is_none() || (agent.open && needs_own_token));
        if !is_open {
            return Err(AccessRefusal::Enrolled(pi.clone()));
        }
        if needs_own_token && !has_own_token {
            return Err(AccessRefusal::OwnToken(pi.clone()));
        }
        let serial =
            request.serial.as_ref().map(|serial| serial.chars().filter(|c| !c.is_control()).take(64).collect());
        Ok(Some(AccessChange::PutAgent(AgentRecord {
            pi: pi.clone(),
            secret_sha256: Some(secret),
            serial,
            enrolled_at: Some(now),
            open: false,
            token_sha256: None,
        })))
    }
}

#[cfg(test)]
mod tests;
