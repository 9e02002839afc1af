//! Who may do what: accounts, enrolled machines and signed-in sessions. Pure: it decides, others store and tell.
//!
//! Secrets are 256 random bits; what is kept of one is its SHA-256, compared in constant time. A change is decided on what is in force, stored, and
//! only then applied, by the same [`Access::apply`] in the store and in the hub, so that both always agree.

use std::collections::{BTreeMap, BTreeSet};

use pistat_protocol::{
    account::{Account, Role},
    api::Enrolment,
    id::{AccountName, PiId, is_reserved},
    order::{EnrollRequest, parse_sha256, sha256},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// How long a sign-in lasts.
const SESSION_MILLISECONDS: i64 = 30 * 86_400_000;

/// The most sessions that one account has; the oldest goes when another is made.
const MAX_SESSIONS_PER_ACCOUNT: usize = 32;

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
        }
    }

    /// What `GET /api/accounts` shows.
    pub fn view(&self) -> Account {
        Account {
            name: self.name.clone(),
            role: self.role,
            publish: self.publish.clone(),
            subscribe: self.subscribe.clone(),
            created_at: self.created_at,
        }
    }
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

/// A signed-in browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Whose.
    pub account: AccountName,
    /// Since when.
    pub created_at: Timestamp,
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
    /// Machines that were forgotten and have not been heard of since: what a broker still retains of them is old.
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
    /// A browser signed in, while its account had a token of this hash: with another in force since, nobody has signed in.
    PutSession {
        /// The hash of the session's cookie.
        cookie: SecretHash,
        /// The session.
        session: SessionRecord,
        /// The hash of the account's token.
        token: SecretHash,
    },
    /// A browser signed out.
    RemoveSession(SecretHash),
}

impl AccessChange {
    /// Whose change it is: an account's or a machine's name, without regard to case.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::PutAccount(AccountRecord { name, .. }) | Self::RemoveAccount(name) => Some(name.key()),
            Self::PutAgent(AgentRecord { pi, .. }) | Self::RemoveAgent(pi) => Some(pi.key()),
            Self::ReturnAgent(_) | Self::PutSession { .. } | Self::RemoveSession(_) => None,
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
    /// A browser's session.
    Session(SecretHash),
    /// An account's token.
    Token(SecretHash),
}

impl Caller {
    /// The session, for a browser.
    pub fn session(&self) -> Option<SecretHash> {
        match self.credential {
            Credential::Session(hash) => Some(hash),
            Credential::Token(_) => None,
        }
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
        }
    }

    fn end_sessions(&mut self, account: &AccountName) {
        self.sessions.retain(|_, session| session.account.key() != account.key());
    }

    fn put_session(&mut self, hash: SecretHash, session: SessionRecord) {
        let now = session.created_at.unix_milliseconds();
        self.sessions.retain(|_, other| now - other.created_at.unix_milliseconds() < SESSION_MILLISECONDS);
        let mut own: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, other)| other.account == session.account)
            .map(|(h, s)| (s.created_at, *h))
            .collect();
        own.sort_unstable();
        let surplus = (own.len() + 1).saturating_sub(MAX_SESSIONS_PER_ACCOUNT);
        for (_, hash) in own.into_iter().take(surplus) {
            self.sessions.remove(&hash);
        }
        self.sessions.insert(hash, session);
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
    pub fn caller_by_token(&self, token: &str) -> Option<Caller> {
        let hash = SecretHash::of(token);
        let mut found = None;
        for account in self.accounts.values() {
            if bool::from(account.token_sha256.0.ct_eq(&hash.0)) {
                found = Some(Caller {
                    account: account.name.clone(),
                    role: account.role,
                    credential: Credential::Token(hash),
                });
            }
        }
        found
    }

    /// Who has this session, if it has not run out.
    pub fn caller_by_session(&self, cookie: &str, now: Timestamp) -> Option<Caller> {
        // The hash is looked up, not compared: who could use its timing would have to know preimages of SHA-256.
        let hash = SecretHash::of(cookie);
        let session = self.sessions.get(&hash)?;
        let age = now.unix_milliseconds() - session.created_at.unix_milliseconds();
        let account = self.account(session.account.as_str())?;
        (age < SESSION_MILLISECONDS).then(|| Caller {
            account: account.name.clone(),
            role: account.role,
            credential: Credential::Session(hash),
        })
    }

    /// Whether a caller is still who it was: its account stands with its role, and its session or token is still in force.
    pub fn still_holds(&self, caller: &Caller) -> bool {
        let Some(account) = self.account(caller.account.as_str()).filter(|account| account.role == caller.role) else {
            return false;
        };
        match caller.credential {
            Credential::Session(session) => self.sessions.contains_key(&session),
            Credential::Token(token) => account.token_sha256 == token,
        }
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
    ///
    /// # Errors
    /// The machine may not have this pi-id.
    pub fn enrol(
        &self,
        pi: &PiId,
        request: &EnrollRequest,
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
        if known.is_some_and(|agent| agent.secret_sha256.is_some() && !agent.open) {
            return Err(AccessRefusal::Enrolled(pi.clone()));
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
