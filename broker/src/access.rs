//! Who may do what: accounts, and the rules of their topics. Pure.
//!
//! [`Directory`] is an immutable snapshot of who exists, made by the owner of the broker;
//! [`Access`] holds the rules: checked for the last will at connect, at publish, at subscribe and
//! again for each receiver at delivery.
//!
//! The rule for subscriptions: a filter is granted when there is at least one topic that it matches
//! and that the subscriber may receive. So a wildcard that covers forbidden topics is granted and
//! the forbidden messages are not delivered, and a filter that can match forbidden topics only is
//! refused. For `$share/<group>/<filter>` the filter after the group counts.
//!
//! The rules themselves stand in [`table`], which other brokers' access lists are written from too.

mod directory;
mod runs;
pub(crate) mod table;

use std::sync::Arc;

use pistat_protocol::account::Role;
use pistat_protocol::id::PiId;
use pistat_protocol::topic::Topics;

use crate::filter;
use crate::message::Message;
use crate::retained::Origin;
use runs::SentRuns;

/// Where replies may go that belong to no machine, under the prefix.
const REPLIES: &str = "reply/";

pub(crate) use directory::Secret;
pub use directory::{CONTROLLER_USER, Directory, Identity, SecretHash};
use table::{
    ACKNOWLEDGEMENTS, AGENT_READS, AGENT_WRITES, CONTROLLERS_READ_BY_AGENTS, CONTROLLERS_READ_BY_JOINING,
    ENROLMENT_ANSWER, ENROLMENT_QUESTION, HOME_ASSISTANT, ORDERS, REQUESTS, WITNESS,
};

/// The rules, under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// `pistat/`
    own: Box<str>,
    /// `$pistat/`
    own_system: Box<str>,
    /// What a viewer receives.
    viewer_receives: Vec<String>,
    /// What no operator receives: an agent and the controller alone do.
    orders: Vec<String>,
    /// What no viewer receives: these, and what is for operators.
    hidden_from_viewers: Vec<String>,
    /// Where operators make requests and acknowledge alerts.
    operators: Vec<String>,
    /// Where an operator may say that Home Assistant was started.
    births: Vec<String>,
    topics: Topics,
    runs: Arc<SentRuns>,
}

impl Access {
    /// With Home Assistant's discovery prefix, where it is not its own.
    pub(crate) fn new(topics: &Topics, discovery: Option<&str>) -> Self {
        let prefix = topics.prefix();
        let discovery = discovery.unwrap_or(HOME_ASSISTANT);
        let of_machines = |row: &str| format!("{prefix}/+/{row}");
        let orders = ORDERS.map(of_machines).to_vec();
        Self {
            own: format!("{prefix}/").into(),
            own_system: format!("${prefix}/").into(),
            viewer_receives: table::viewer_reads(prefix, discovery),
            hidden_from_viewers: orders.iter().cloned().chain([of_machines(WITNESS)]).collect(),
            orders,
            operators: [REQUESTS].iter().chain(&ACKNOWLEDGEMENTS).map(|row| of_machines(row)).collect(),
            births: table::births(discovery),
            topics: topics.clone(),
            runs: Arc::default(),
        }
    }

    /// What a message on this topic is stamped with: an operator's request with the account, an
    /// enrolment with the name of the join token.
    pub(crate) fn stamp<'i>(&self, topic: &str, identity: &'i Identity) -> Option<&'i str> {
        match identity {
            Identity::Joining(_, token) if self.is_enrolment(topic) => Some(token),
            _ => self.is_request(topic).then(|| identity.name()),
        }
    }

    /// Whether this is a topic on which operators ask for something: its messages get the broker's
    /// stamp.
    pub(crate) fn is_request(&self, topic: &str) -> bool {
        let may_be = topic.ends_with("/request") || topic.ends_with("/acknowledge");
        may_be && self.operators.iter().any(|filter| filter::matches(filter, topic))
    }

    /// Remembers which runs each machine was sent. Only the controller may publish what is looked
    /// at here.
    pub(crate) fn note(&self, message: &Message) {
        let Some((machine, rest)) = self.levels_of_machine(message.topic()) else { return };
        let Some((run, verb)) = run_and_verb(rest) else { return };
        let is_state = verb == "status" && message.retain();
        if !is_state && verb != "execute" {
            return;
        }
        let Ok(run) = run.parse() else { return };
        if is_state && message.payload_bytes() == 0 {
            self.runs.remove(machine, run);
        } else {
            self.runs.add(machine, run);
        }
    }

    /// Whether the machine was sent the run that this is about; what is about none is.
    fn is_of_sent_run(&self, machine: &str, rest: &str) -> bool {
        run_and_verb(rest).is_none_or(|(run, _)| run.parse().is_ok_and(|run| self.runs.contains(machine, run)))
    }

    /// Whether this is a topic of enrolment.
    pub(crate) fn is_enrolment(&self, topic: &str) -> bool {
        topic.starts_with(&*self.own_system)
    }

    /// Whether this is a machine's newest sample: it comes often and is written to disk rarely.
    pub(crate) fn is_telemetry(&self, topic: &str) -> bool {
        self.levels_of_machine(topic).is_some_and(|(_, rest)| rest == "stats")
    }

    /// Whether this is one of our own topics.
    pub(crate) fn is_own(&self, topic: &str) -> bool {
        topic.starts_with(&*self.own)
    }

    /// To whom a retained message counts, by its publisher's [`Identity::session_owner`]; that is
    /// empty when the publisher is not known any more.
    pub(crate) fn origin<'a>(&self, owner: &'a str, topic: &str) -> Origin<'a> {
        let is_fleets = match owner.split_once('/') {
            Some((kind, _)) => matches!(kind, "c" | "a"),
            None => self.is_own(topic),
        };
        Origin { owner, is_fleets, is_unbounded: owner == "c/" || (owner.is_empty() && is_fleets) }
    }

    /// Whether `who` may leave a last will on this topic.
    pub(crate) fn may_leave_will(&self, who: &Identity, topic: &str) -> bool {
        !matches!(who, Identity::Joining(..)) && self.may_publish(who, topic)
    }

    /// Whether `who` may publish on this topic.
    pub(crate) fn may_publish(&self, who: &Identity, topic: &str) -> bool {
        match who {
            Identity::Controller => true,
            Identity::Agent(pi) => match self.levels_of_machine(topic) {
                Some((machine, rest)) => {
                    machine == pi.as_str() && is_one_of(&AGENT_WRITES, rest) && self.is_of_sent_run(machine, rest)
                }
                None => false,
            },
            Identity::Joining(pi, _) => self.enrolment_verb(topic, pi) == Some(ENROLMENT_QUESTION),
            Identity::Account { role, publish, .. } => {
                let by_role = *role >= Role::Operator
                    && (self.is_request(topic) || self.births.iter().any(|birth| birth == topic));
                by_role || (self.is_open_to_rules(topic, true) && publish.iter().any(|f| filter::matches(f, topic)))
            }
        }
    }

    /// Whether a reply to `account` on this topic lends it no right: it may receive there, and
    /// either may publish there itself, or is the only reader. Replies under `<prefix>/reply/` are
    /// public, and no machine acts on them.
    pub(crate) fn may_be_answered(&self, directory: &Directory, account: &str, topic: &str) -> bool {
        let Some(who) = directory.named(account) else { return false };
        let is_reply = topic.strip_prefix(&*self.own).is_some_and(|rest| rest.starts_with(REPLIES));
        let is_heard_by_others = || directory.clients().any(|other| other != who && self.may_receive(other, topic));
        self.may_receive(who, topic) && (is_reply || self.may_publish(who, topic) || !is_heard_by_others())
    }

    /// Whether `who` may receive messages on this topic.
    pub(crate) fn may_receive(&self, who: &Identity, topic: &str) -> bool {
        match who {
            Identity::Controller => true,
            Identity::Agent(pi) => match self.levels_of_machine(topic) {
                Some(("controller", rest)) => is_one_of(&CONTROLLERS_READ_BY_AGENTS, rest),
                Some((machine, rest)) => machine == pi.as_str() && is_one_of(&AGENT_READS, rest),
                None => false,
            },
            Identity::Joining(pi, _) => {
                self.enrolment_verb(topic, pi) == Some(ENROLMENT_ANSWER)
                    || self.levels_of_machine(topic) == Some(("controller", CONTROLLERS_READ_BY_JOINING))
            }
            Identity::Account { role, subscribe, .. } => {
                self.role_may_receive(*role, topic)
                    || (self.is_open_to_rules(topic, false) && subscribe.iter().any(|f| filter::matches(f, topic)))
            }
        }
    }

    /// Whether a subscription to this filter is granted: whether it can match anything that `who`
    /// may receive.
    pub(crate) fn may_subscribe(&self, who: &Identity, filter: &str) -> bool {
        let reaches = |allowed: &str| filter::meet(filter, allowed).is_some();
        match who {
            Identity::Controller => true,
            Identity::Agent(pi) => {
                let own = AGENT_READS.iter().any(|row| reaches(&format!("{}{pi}/{row}", self.own)));
                own || CONTROLLERS_READ_BY_AGENTS.iter().any(|row| reaches(&format!("{}controller/{row}", self.own)))
            }
            Identity::Joining(pi, _) => {
                reaches(&format!("{}enroll/{pi}/{ENROLMENT_ANSWER}", self.own_system))
                    || reaches(&format!("{}controller/{CONTROLLERS_READ_BY_JOINING}", self.own))
            }
            Identity::Account { role, subscribe, .. } => {
                let reaches_more_than_hidden = |allowed: &str| {
                    filter::meet(filter, allowed)
                        .is_some_and(|common| !self.hidden_from(*role).iter().any(|f| filter::covers(f, &common)))
                };
                self.viewer_receives.iter().any(|f| reaches_more_than_hidden(f))
                    || subscribe.iter().any(|f| self.rule_reaches_beyond_own(filter, f))
            }
        }
    }

    /// What of the fleet's topics a role does not see.
    fn hidden_from(&self, role: Role) -> &[String] {
        if role >= Role::Operator { &self.orders } else { &self.hidden_from_viewers }
    }

    fn role_may_receive(&self, role: Role, topic: &str) -> bool {
        let is_visible = self.viewer_receives.iter().any(|f| filter::matches(f, topic));
        let is_hidden = || self.hidden_from(role).iter().any(|f| filter::matches(f, topic));
        is_visible && !(topic.starts_with(&*self.own) && is_hidden())
    }

    /// An account's own rules never reach an agent's or the controller's topics, nor those of the
    /// broker.
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

/// Whether what follows `<prefix>/<pi>/` is one of these rows of the table.
fn is_one_of(rows: &[&str], rest: &str) -> bool {
    rows.iter().any(|filter| filter::matches(filter, rest))
}

/// The run, and what about it, of what follows `<prefix>/<pi>/`.
fn run_and_verb(rest: &str) -> Option<(&str, &str)> {
    rest.strip_prefix("task/")?.split_once('/')
}

#[cfg(test)]
mod tests;
