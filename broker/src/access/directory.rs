//! Who exists: an immutable snapshot of names, the hashes of their secrets, and what they are.

use std::{collections::HashMap, sync::Arc};

use pistat_protocol::account::Role;
use pistat_protocol::id::{AccountName, PiId, is_reserved};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The controller's user name on its own broker.
pub const CONTROLLER_USER: &str = "controller";

/// The SHA-256 of a secret's text.
pub type SecretHash = [u8; 32];

/// Who a client has proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The controller itself.
    Controller,
    /// The agent of an enrolled machine.
    Agent(PiId),
    /// A machine that asks to be enrolled, and the name of the join token that it came with. A
    /// machine's own single-use token has none.
    Joining(PiId, Arc<str>),
    /// A person or a program.
    Account {
        /// Its name.
        name: AccountName,
        /// Its role.
        role: Role,
        /// Filters of the topics that it may publish on besides its role's.
        publish: Vec<String>,
        /// Filters of the topics that it may receive besides its role's.
        subscribe: Vec<String>,
    },
}

impl Identity {
    /// The name that events, audit and the request stamp show.
    pub fn name(&self) -> &str {
        match self {
            Self::Controller => CONTROLLER_USER,
            Self::Agent(pi) | Self::Joining(pi, _) => pi.as_str(),
            Self::Account { name, .. } => name.as_str(),
        }
    }

    /// Under which sessions are kept, apart from the client id. A joining machine never meets the
    /// sessions of the agent whose name it gives.
    pub(crate) fn session_owner(&self) -> String {
        match self {
            Self::Controller => "c/".to_owned(),
            Self::Agent(pi) => format!("a/{}", pi.key()),
            Self::Joining(pi, _) => format!("j/{}", pi.key()),
            Self::Account { name, .. } => format!("u/{}", name.key()),
        }
    }

    /// Whether something that `self` could do is impossible for `now`.
    pub(crate) fn exceeds(&self, now: &Self) -> bool {
        match (self, now) {
            (Self::Controller, Self::Controller) => false,
            (Self::Agent(before), Self::Agent(now)) => before != now,
            // A machine that has just been enrolled still waits for the answer on its joining
            // connection.
            (Self::Joining(before, _), Self::Joining(now, _) | Self::Agent(now)) => before.key() != now.key(),
            (
                Self::Account { role, publish, subscribe, .. },
                Self::Account { role: role_now, publish: publish_now, subscribe: subscribe_now, .. },
            ) => {
                let lost = |before: &[String], now: &[String]| before.iter().any(|filter| !now.contains(filter));
                role > role_now || lost(publish, publish_now) || lost(subscribe, subscribe_now)
            }
            _ => true,
        }
    }
}

#[derive(Debug, Clone)]
struct Principal {
    identity: Identity,
    secret: SecretHash,
}

/// A snapshot of who may connect.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    principals: HashMap<String, Principal>,
    join_tokens: Vec<(Arc<str>, SecretHash)>,
    pi_join_tokens: Vec<(String, SecretHash)>,
}

impl Directory {
    /// No client may connect.
    pub fn new() -> Self {
        Self::default()
    }

    /// The controller, under the user name [`CONTROLLER_USER`].
    pub fn controller(&mut self, secret_sha256: SecretHash) {
        self.insert(CONTROLLER_USER.to_owned(), Identity::Controller, secret_sha256);
    }

    /// The agent of an enrolled machine, under its pi-id.
    pub fn agent(&mut self, pi: PiId, secret_sha256: SecretHash) {
        self.insert(pi.key(), Identity::Agent(pi), secret_sha256);
    }

    /// An account, under its name, with its role and its own topic rules.
    pub fn account(
        &mut self,
        name: AccountName,
        role: Role,
        secret_sha256: SecretHash,
        publish: Vec<String>,
        subscribe: Vec<String>,
    ) {
        self.insert(name.key(), Identity::Account { name, role, publish, subscribe }, secret_sha256);
    }

    /// A token with which any machine may ask to be enrolled whose pi-id is not an account's name.
    pub fn join_token(&mut self, name: &str, secret_sha256: SecretHash) {
        self.join_tokens.push((name.into(), secret_sha256));
    }

    /// A token with which one machine may ask to be enrolled.
    #[expect(clippy::needless_pass_by_value, reason = "the same form as the other makers of the directory")]
    pub fn pi_join_token(&mut self, pi: PiId, secret_sha256: SecretHash) {
        self.pi_join_tokens.push((pi.key(), secret_sha256));
    }

    /// Who presents these credentials; `None` when they are wrong. User names are compared without
    /// case, secrets as SHA-256 in constant time. A join token may carry the fingerprint after a
    /// dot.
    pub fn authenticate(&self, user_name: &str, password: &[u8]) -> Option<Identity> {
        self.identify(user_name, &Secret::of(password))
    }

    /// As [`Directory::authenticate`], with the password's hashes alone: sessions keep these to be
    /// checked again.
    pub(crate) fn identify(&self, user_name: &str, secret: &Secret) -> Option<Identity> {
        let key = user_name.to_ascii_lowercase();
        let principal = self.principals.get(&key);
        // An unknown name costs the same comparison as a known one.
        let expected = principal.map_or(&[0; 32], |principal| &principal.secret);
        if bool::from(secret.whole.ct_eq(expected)) {
            return principal.map(|principal| principal.identity.clone());
        }
        let pi: PiId = user_name.parse().ok()?;
        let is_machine = matches!(principal, None | Some(Principal { identity: Identity::Agent(_), .. }));
        let token = self.joining_by(&key, secret).filter(|_| is_machine && !is_reserved(user_name))?;
        Some(Identity::Joining(pi, token))
    }

    /// Who keeps sessions under this [`Identity::session_owner`], if it exists still.
    pub(crate) fn by_owner(&self, owner: &str) -> Option<Identity> {
        let (_, key) = owner.split_once('/')?;
        let principal = self.principals.get(if key.is_empty() { CONTROLLER_USER } else { key })?;
        (principal.identity.session_owner() == owner).then(|| principal.identity.clone())
    }

    /// The secret of an enrolled machine.
    pub(crate) fn agent_secret(&self, pi: &PiId) -> Option<&SecretHash> {
        match self.principals.get(&pi.key())? {
            Principal { identity: Identity::Agent(_), secret } => Some(secret),
            _ => None,
        }
    }

    /// Who has this name, without regard to case.
    pub(crate) fn named(&self, user_name: &str) -> Option<&Identity> {
        self.principals.get(&user_name.to_ascii_lowercase()).map(|principal| &principal.identity)
    }

    /// Everybody but the controller.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &Identity> {
        self.principals.values().map(|principal| &principal.identity).filter(|who| **who != Identity::Controller)
    }

    /// The name of the join token that a secret is, for this machine. All are compared, so that the
    /// time tells nothing.
    fn joining_by(&self, pi_key: &str, secret: &Secret) -> Option<Arc<str>> {
        let is = |hash: &SecretHash| bool::from(secret.whole.ct_eq(hash) | secret.before_dot.ct_eq(hash));
        let mut found = None;
        for (name, hash) in &self.join_tokens {
            if is(hash) {
                found = Some(name.clone());
            }
        }
        for (pi, hash) in &self.pi_join_tokens {
            if is(hash) && pi == pi_key {
                found = Some("".into());
            }
        }
        found
    }

    fn insert(&mut self, key: String, identity: Identity, secret: SecretHash) {
        self.principals.insert(key, Principal { identity, secret });
    }
}

/// The hashes of a password as it came: whole, and up to the dot of a join token's fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    whole: SecretHash,
    before_dot: SecretHash,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Secret {
    /// Both hashes, as they are kept with a session.
    pub(crate) fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.whole);
        bytes[32..].copy_from_slice(&self.before_dot);
        bytes
    }

    /// What [`Secret::to_bytes`] gave.
    pub(crate) fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut secret = Self { whole: [0; 32], before_dot: [0; 32] };
        secret.whole.copy_from_slice(&bytes[..32]);
        secret.before_dot.copy_from_slice(&bytes[32..]);
        secret
    }

    pub(crate) fn of(password: &[u8]) -> Self {
        let whole: SecretHash = Sha256::digest(password).into();
        let before_dot = match password.iter().position(|&b| b == b'.') {
            Some(dot) => Sha256::digest(&password[..dot]).into(),
            None => whole,
        };
        Self { whole, before_dot }
    }
}
