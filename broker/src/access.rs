//! Who may do what: accounts, and the rules of their topics. Pure.
//!
//! [`Directory`] is an immutable snapshot of who exists, made by the owner of the broker; [`Access`] holds the rules:
//! checked for the last will at connect, at publish, at subscribe and again for each receiver at delivery.
//!
//! The rule for subscriptions: a filter is granted when there is at least one topic that it matches and that the
//! subscriber may receive. So a wildcard that covers forbidden topics is granted and the forbidden messages are not
//! delivered, and a filter that can match forbidden topics only is refused. For `$share/<group>/<filter>` the filter
//! after the group counts.

use std::collections::HashMap;

use pistat_protocol::account::Role;
use pistat_protocol::id::{AccountName, PiId, is_reserved};
use pistat_protocol::topic::Topics;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::filter;

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
    /// A machine that asks to be enrolled.
    Joining(PiId),
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
            Self::Agent(pi) | Self::Joining(pi) => pi.as_str(),
            Self::Account { name, .. } => name.as_str(),
        }
    }

    /// Under which sessions are kept, apart from the client id. A joining machine never meets the sessions of the agent
    /// whose name it gives.
    pub(crate) fn session_owner(&self) -> String {
        match self {
            Self::Controller => "c/".to_owned(),
            Self::Agent(pi) => format!("a/{}", pi.key()),
            Self::Joining(pi) => format!("j/{}", pi.key()),
            Self::Account { name, .. } => format!("u/{}", name.key()),
        }
    }

    /// Whether something that `self` could do is impossible for `now`.
    pub(crate) fn exceeds(&self, now: &Self) -> bool {
        match (self, now) {
            (Self::Controller, Self::Controller) => false,
            (Self::Agent(before), Self::Agent(now)) => before != now,
            // A machine that has just been enrolled still waits for the answer on its joining connection.
            (Self::Joining(before), Self::Joining(now) | Self::Agent(now)) => before.key() != now.key(),
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
    join_tokens: Vec<SecretHash>,
    pi_join_tokens: Vec<(String, SecretHash)>,
}

impl Directory {
    /// Nobody may connect.
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

    /// A token with which any machine may ask to be enrolled whose pi-id is no account's name.
    pub fn join_token(&mut self, secret_sha256: SecretHash) {
        self.join_tokens.push(secret_sha256);
    }

    /// A token with which one machine may ask to be enrolled.
    #[expect(clippy::needless_pass_by_value, reason = "the same form as the other makers of the directory")]
    pub fn pi_join_token(&mut self, pi: PiId, secret_sha256: SecretHash) {
        self.pi_join_tokens.push((pi.key(), secret_sha256));
    }

    /// Who presents these credentials; `None` when they are wrong. User names are compared without case, secrets as
    /// SHA-256 in constant time. A join token may carry the fingerprint after a dot.
    pub fn authenticate(&self, user_name: &str, password: &[u8]) -> Option<Identity> {
        self.identify(user_name, &Secret::of(password))
    }

    /// As [`Directory::authenticate`], with the password's hashes alone: sessions keep these to be checked again.
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
        let may_join = is_machine && !is_reserved(user_name) && bool::from(self.is_join_token(&key, secret));
        may_join.then_some(Identity::Joining(pi))
    }

    /// Whether this joining machine is an enrolled one by now.
    pub(crate) fn has_just_enrolled(&self, identity: &Identity) -> bool {
        let Identity::Joining(pi) = identity else { return false };
        matches!(self.principals.get(&pi.key()), Some(Principal { identity: Identity::Agent(_), .. }))
    }

    fn is_join_token(&self, pi_key: &str, secret: &Secret) -> Choice {
        let of_this_pi = self.pi_join_tokens.iter().filter(|(pi, _)| pi == pi_key).map(|(_, hash)| hash);
        let mut found = Choice::from(0);
        for hash in self.join_tokens.iter().chain(of_this_pi) {
            found |= secret.whole.ct_eq(hash) | secret.before_dot.ct_eq(hash);
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

impl Secret {
    pub(crate) fn of(password: &[u8]) -> Self {
        let whole: SecretHash = Sha256::digest(password).into();
        let before_dot = match password.iter().position(|&b| b == b'.') {
            Some(dot) => Sha256::digest(&password[..dot]).into(),
            None => whole,
        };
        Self { whole, before_dot }
    }
}

/// The rules, under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// `pistat/`
    own: Box<str>,
    /// `$pistat/`
    own_system: Box<str>,
    /// What a viewer receives.
    viewer_receives: [String; 3],
    /// What nobody but an agent and the controller receives.
    orders: [String; 2],
    requests: String,
    topics: Topics,
}

const HOME_ASSISTANT_BIRTH: &str = "homeassistant/status";

impl Access {
    pub(crate) fn new(topics: &Topics) -> Self {
        let prefix = topics.prefix();
        Self {
            own: format!("{prefix}/").into(),
            own_system: format!("${prefix}/").into(),
            viewer_receives: [format!("{prefix}/#"), "homeassistant/#".to_owned(), "$SYS/#".to_owned()],
            orders: ["execute", "cancel"].map(|verb| format!("{prefix}/+/task/+/{verb}")),
            requests: format!("{prefix}/+/task/request"),
            topics: topics.clone(),
        }
    }

    /// Whether this is a topic on which operators ask for tasks: its messages get the broker's stamp.
    pub(crate) fn is_request(&self, topic: &str) -> bool {
        topic.ends_with("/task/request") && filter::matches(&self.requests, topic)
    }

    /// Whether this is a machine's newest sample: it comes often and is written to disk rarely.
    pub(crate) fn is_telemetry(&self, topic: &str) -> bool {
        self.levels_of_machine(topic).is_some_and(|(_, rest)| rest == "stats")
    }

    /// Whether `who` may leave a last will on this topic.
    pub(crate) fn may_leave_will(&self, who: &Identity, topic: &str) -> bool {
        !matches!(who, Identity::Joining(_)) && self.may_publish(who, topic)
    }

    /// Whether `who` may publish on this topic.
    pub(crate) fn may_publish(&self, who: &Identity, topic: &str) -> bool {
        match who {
            Identity::Controller => true,
            Identity::Agent(pi) => match self.levels_of_machine(topic) {
                Some((machine, rest)) => machine == pi.as_str() && is_written_by_agent(rest),
                None => false,
            },
            Identity::Joining(pi) => self.enrolment_verb(topic, pi) == Some("request"),
            Identity::Account { role, publish, .. } => {
                let by_role = *role >= Role::Operator && (self.is_request(topic) || topic == HOME_ASSISTANT_BIRTH);
                by_role || (self.is_open_to_rules(topic, true) && publish.iter().any(|f| filter::matches(f, topic)))
            }
        }
    }

    /// Whether `who` may receive messages on this topic.
    pub(crate) fn may_receive(&self, who: &Identity, topic: &str) -> bool {
        match who {
            Identity::Controller => true,
            Identity::Agent(pi) => match self.levels_of_machine(topic) {
                Some(("controller", "key" | "status")) => true,
                Some((machine, rest)) => machine == pi.as_str() && is_read_by_agent(rest),
                None => false,
            },
            Identity::Joining(pi) => {
                self.enrolment_verb(topic, pi) == Some("response")
                    || self.levels_of_machine(topic) == Some(("controller", "key"))
            }
            Identity::Account { subscribe, .. } => {
                self.viewer_may_receive(topic)
                    || (self.is_open_to_rules(topic, false) && subscribe.iter().any(|f| filter::matches(f, topic)))
            }
        }
    }

    /// Whether a subscription to this filter is granted: whether it can match anything that `who` may receive.
    pub(crate) fn may_subscribe(&self, who: &Identity, filter: &str) -> bool {
        let reaches = |allowed: &str| filter::meet(filter, allowed).is_some();
        match who {
            Identity::Controller => true,
            Identity::Agent(pi) => self.topics.agent_filters(pi).iter().any(|(allowed, _)| reaches(allowed)),
            Identity::Joining(pi) => {
                reaches(&format!("{}enroll/{pi}/response", self.own_system))
                    || reaches(&format!("{}controller/key", self.own))
            }
            Identity::Account { subscribe, .. } => {
                let reaches_more_than_orders = |allowed: &str| {
                    filter::meet(filter, allowed)
                        .is_some_and(|common| !self.orders.iter().any(|f| filter::covers(f, &common)))
                };
                self.viewer_receives.iter().any(|f| reaches_more_than_orders(f))
                    || subscribe.iter().any(|f| self.rule_reaches_beyond_own(filter, f))
            }
        }
    }

    fn viewer_may_receive(&self, topic: &str) -> bool {
        let is_visible = self.viewer_receives.iter().any(|f| filter::matches(f, topic));
        is_visible && !(topic.starts_with(&*self.own) && self.orders.iter().any(|f| filter::matches(f, topic)))
    }

    /// An account's own rules never reach an agent's or the controller's topics, nor those of the broker.
    fn is_open_to_rules(&self, topic: &str, to_publish: bool) -> bool {
        let is_own =
            topic.starts_with(&*self.own) || topic == self.topics.prefix() || topic.starts_with(&*self.own_system);
        let is_brokers = to_publish && (topic.starts_with("$SYS/") || topic == "$SYS");
        (!is_own && !is_brokers) || (to_publish && self.is_request(topic))
    }

    fn rule_reaches_beyond_own(&self, filter: &str, rule: &str) -> bool {
        let own = format!("{}#", self.own);
        let own_system = format!("{}#", self.own_system);
        filter::meet(filter, rule)
            .is_some_and(|common| !filter::covers(&own, &common) && !filter::covers(&own_system, &common))
    }

    fn levels_of_machine<'a>(&self, topic: &'a str) -> Option<(&'a str, &'a str)> {
        topic.strip_prefix(&*self.own)?.split_once('/')
    }

    fn enrolment_verb<'a>(&self, topic: &'a str, pi: &PiId) -> Option<&'a str> {
        topic.strip_prefix(&*self.own_system)?.strip_prefix("enroll/")?.strip_prefix(pi.as_str())?.strip_prefix('/')
    }
}

fn is_written_by_agent(rest: &str) -> bool {
    matches!(rest, "status" | "info" | "stats" | "stats/backfill")
        || matches!(verb_of_run(rest), Some("report" | "output"))
}

fn is_read_by_agent(rest: &str) -> bool {
    matches!(rest, "settings" | "watch" | "status") || matches!(verb_of_run(rest), Some("execute" | "cancel" | "ack"))
}

/// `execute` of `task/<run>/execute`.
fn verb_of_run(rest: &str) -> Option<&str> {
    rest.strip_prefix("task/")?.split_once('/').map(|(_, verb)| verb)
}

#[cfg(test)]
mod tests;
