//! Join tokens: with which of them a machine may join, how often, until when, and which tags it
//! then has.
//!
//! The default one is in its own file, so that it can be shown again; of the others only the hash
//! is kept.

use pistat_protocol::{
    api::JoinTokenInfo,
    id::{Tag, TokenName},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{Access, AccessRefusal, SecretHash};

/// A join token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRecord {
    /// Its name.
    pub name: TokenName,
    /// The hash of its secret; the default one's is in its own file.
    pub secret_sha256: Option<SecretHash>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; null is never.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// How many more machines it lets in; null is any number.
    #[serde(default)]
    pub uses_left: Option<u32>,
    /// How many machines it has let in.
    #[serde(default)]
    pub used: u32,
    /// When it let one in last.
    #[serde(default)]
    pub last_used: Option<Timestamp>,
    /// The tags of machines that join with it.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

impl JoinTokenRecord {
    /// The default token, as it is new.
    pub fn default_token(now: Timestamp) -> Self {
        Self {
            name: TokenName::default_token(),
            secret_sha256: None,
            created_at: now,
            expires_at: None,
            uses_left: None,
            used: 0,
            last_used: None,
            tags: Vec::new(),
        }
    }

    /// Whether it lets a machine in.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.uses_left != Some(0) && self.has_time(now)
    }

    fn has_time(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// What `GET /api/join-tokens` shows.
    pub fn view(&self) -> JoinTokenInfo {
        JoinTokenInfo {
            name: self.name.clone(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            uses_left: self.uses_left,
            used: self.used,
            last_used: self.last_used,
            tags: self.tags.clone(),
        }
    }

    /// Checks that it lets one more machine in, while `pending` others are being let in.
    ///
    /// # Errors
    /// It has expired, or has let in as many as it may.
    pub fn check(&self, pending: usize, now: Timestamp) -> Result<(), AccessRefusal> {
        if !self.has_time(now) {
            return Err(AccessRefusal::TokenEnded(self.name.clone()));
        }
        let is_used_up = self.uses_left.is_some_and(|left| usize::try_from(left).is_ok_and(|left| left <= pending));
        if is_used_up { Err(AccessRefusal::TokenUsedUp(self.name.clone())) } else { Ok(()) }
    }
}

impl Access {
    /// All join tokens that something is kept of, by name; the default one is not among them before
    /// it has been used.
    pub fn join_tokens(&self) -> impl Iterator<Item = &JoinTokenRecord> {
        self.join_tokens.values()
    }

    /// A join token.
    pub fn join_token(&self, name: &TokenName) -> Option<&JoinTokenRecord> {
        self.join_tokens.get(name)
    }

    /// Whether the default token lets machines in.
    pub fn default_token_is_in_force(&self, now: Timestamp) -> bool {
        self.join_token(&TokenName::default_token()).is_none_or(|token| token.is_in_force(now))
    }

    /// Whether a join token's time is over at one time and not at the other.
    pub(super) fn tokens_differ(&self, before: Timestamp, now: Timestamp) -> bool {
        self.join_tokens.values().any(|token| token.has_time(before) != token.has_time(now))
    }

    pub(super) fn note_joined(&mut self, name: &TokenName, at: Timestamp) {
        if !self.join_tokens.contains_key(name) && *name == TokenName::default_token() {
            self.join_tokens.insert(name.clone(), JoinTokenRecord::default_token(at));
        }
        if let Some(token) = self.join_tokens.get_mut(name) {
            token.used = token.used.saturating_add(1);
            token.uses_left = token.uses_left.map(|left| left.saturating_sub(1));
            token.last_used = Some(at);
        }
    }
}
