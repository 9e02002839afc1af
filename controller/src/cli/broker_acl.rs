//! `broker-acl`: the topic rules of Pi Stat, written down for a broker that is not ours, from the
//! table that our own enforces.
//!
//! mosquitto checks each message that it delivers, so a viewer may subscribe to everything there.
//! EMQX checks the subscription alone, and compares it with a rule's filters as if it were a topic:
//! there a viewer is given the filters that bring no orders, one by one, and everything else is
//! denied to everybody.

use std::fmt::Write as _;

use pistat_broker::{Grants, Party};
use pistat_protocol::topic::Topics;
use serde::Serialize;

use super::{args, console::Console, failure::Failure};
use crate::config::{Broker, Config};

/// The controller's user, when neither the configuration nor an option names one.
const CONTROLLER: &str = "pistat-controller";

/// mosquitto's placeholder for the user name.
const USER_MOSQUITTO: &str = "%u";

/// EMQX's placeholder for the user name.
const USER_EMQX: &str = "${username}";

/// A denial of the prefix would not do: `+/#` and its like pass it by, and the last rule that EMQX
/// ships with allows all that is left.
const EMQX_END: &str = "
%% Nobody else, and nothing else: no rule behind this one is asked. What lets your other devices in goes before it, each with topics that begin with
%% a name of its own: EMQX compares a subscription with these filters as if it were a topic, so one that begins with + or # would let orders out.
{deny, all}.
";

pub(super) fn print(console: &mut Console<'_>, command: &args::BrokerAcl, config: &Config) -> Result<(), Failure> {
    let users = Users::of(command, config);
    let rules = Rules { users: &users, topics: &config.mqtt.topics, discovery: &config.homeassistant.prefix };
    let (everybody, text) = match command.broker {
        args::OtherBroker::Mosquitto => (USER_MOSQUITTO, rules.mosquitto()),
        args::OtherBroker::Emqx => (USER_EMQX, rules.emqx()),
    };
    console.show(&rules.rows(everybody), |_, _| text)
}

/// Who is who on the broker.
struct Users {
    controller: String,
    /// Empty for "every user may speak as the machine of its own name".
    agents: Vec<String>,
    viewers: Vec<String>,
    operators: Vec<String>,
}

impl Users {
    fn of(command: &args::BrokerAcl, config: &Config) -> Self {
        let configured = match &config.mqtt.broker {
            Broker::External(url) => url.login.as_ref().map(|login| login.user.clone()),
            Broker::Embedded => None,
        };
        Self {
            controller: command.controller.clone().or(configured).unwrap_or_else(|| CONTROLLER.into()),
            agents: command.agents.iter().map(ToString::to_string).collect(),
            viewers: command.viewers.clone(),
            operators: command.operators.clone(),
        }
    }
}

/// A user's rules, for programs that know how to tell them to their own broker.
#[derive(Serialize)]
struct Row<'r> {
    user: &'r str,
    party: &'static str,
    publish: Vec<String>,
    receive: Vec<String>,
    never_receive: Vec<String>,
    subscribe: Vec<String>,
}

struct Rules<'r> {
    users: &'r Users,
    topics: &'r Topics,
    discovery: &'r str,
}

impl Rules<'_> {
    fn grants(&self, party: Party<'_>) -> Grants {
        Grants::of(party, self.topics, self.discovery)
    }

    /// Every user that is named.
    fn people(&self) -> impl Iterator<Item = (Party<'_>, &str)> {
        let users = self.users;
        let agents = users.agents.iter().map(|pi| (Party::Agent(pi), pi.as_str()));
        let operators = users.operators.iter().map(|name| (Party::Operator, name.as_str()));
        let viewers = users.viewers.iter().map(|name| (Party::Viewer, name.as_str()));
        std::iter::once((Party::Controller, users.controller.as_str())).chain(agents).chain(operators).chain(viewers)
    }

    /// The rules as data. The user `everybody` stands for each user that is a machine, when no
    /// machine is named.
    fn rows<'u>(&'u self, everybody: &'u str) -> Vec<Row<'u>> {
        let unnamed = self.users.agents.is_empty().then_some((Party::Agent(everybody), everybody));
        let row = |(party, user)| {
            let Grants { publish, receive, never_receive, subscribe } = self.grants(party);
            Row { user, party: word(party), publish, receive, never_receive, subscribe }
        };
        self.people().chain(unnamed).map(row).collect()
    }

    fn mosquitto(&self) -> String {
        let mut text = String::from(
            "# Topic rules of Pi Stat for mosquitto: name this file as acl_file in mosquitto.conf.\n\
             # From the table that Pi Stat's own broker enforces; written by `pistat broker-acl mosquitto`.\n",
        );
        for (party, name) in self.people() {
            let rules = mosquitto_rules("topic", &self.grants(party));
            let _ = write!(text, "\n# {}.\nuser {name}\n{rules}", sentence(party));
        }
        if self.users.agents.is_empty() {
            let _ = write!(
                text,
                "\n# Agents: the user of each is named as its machine. These lines are for every user of this broker, so each may speak as\n\
                 # the machine of its own name, and nobody as another; --agent PI names the machines one by one instead.\n{}",
                mosquitto_rules("pattern", &self.grants(Party::Agent(USER_MOSQUITTO)))
            );
        }
        text
    }

    fn emqx(&self) -> String {
        let mut text = String::from(
            "%% Topic rules of Pi Stat for EMQX 5: an acl.conf, in place of the one that it ships with.\n\
             %% From the table that Pi Stat's own broker enforces; written by `pistat broker-acl emqx`.\n",
        );
        for (party, name) in self.people() {
            let rules = emqx_rules(&format!("{{user, \"{name}\"}}"), &self.grants(party));
            let _ = write!(text, "\n%% {}.\n{rules}", sentence(party));
        }
        if self.users.agents.is_empty() {
            let _ = write!(
                text,
                "\n%% Agents: the user of each is named as its machine. These lines are for every user of this broker, so each may speak as\n\
                 %% the machine of its own name, and nobody as another; --agent PI names the machines one by one instead.\n{}",
                emqx_rules("all", &self.grants(Party::Agent(USER_EMQX)))
            );
        }
        text + EMQX_END
    }
}

/// What people are told about a user.
fn sentence(party: Party<'_>) -> &'static str {
    match party {
        Party::Controller => "The controller",
        Party::Agent(_) => "An agent",
        Party::Operator => "Sees everything but orders, asks for tasks and acknowledges alerts",
        Party::Viewer => "Sees everything but orders and the kernel's lines before a restart",
    }
}

/// The same for programs.
fn word(party: Party<'_>) -> &'static str {
    match party {
        Party::Controller => "controller",
        Party::Agent(_) => "agent",
        Party::Operator => "operator",
        Party::Viewer => "viewer",
    }
}

/// Denials first, as mosquitto asks them first.
fn mosquitto_rules(word: &str, grants: &Grants) -> String {
    let both = |filter: &&String| grants.publish.contains(filter) && grants.receive.contains(filter);
    let lines = |access: &str, filters: &mut dyn Iterator<Item = &String>| -> String {
        filters.map(|filter| format!("{word} {access} {filter}\n")).collect::<Vec<_>>().concat()
    };
    let deny = lines("deny", &mut grants.never_receive.iter());
    let all = lines("readwrite", &mut grants.publish.iter().filter(both));
    let write = lines("write", &mut grants.publish.iter().filter(|filter| !both(filter)));
    let read = lines("read", &mut grants.receive.iter().filter(|filter| !both(filter)));
    deny + &all + &write + &read
}

fn emqx_rules(who: &str, grants: &Grants) -> String {
    if grants.publish == grants.subscribe {
        return emqx_rule(who, "all", &grants.publish);
    }
    emqx_rule(who, "publish", &grants.publish) + &emqx_rule(who, "subscribe", &grants.subscribe)
}

fn emqx_rule(who: &str, action: &str, filters: &[String]) -> String {
    if filters.is_empty() {
        return String::new();
    }
    let filters: Vec<_> = filters.iter().map(|filter| format!("\"{filter}\"")).collect();
    format!("{{allow, {who}, {action}, [{}]}}.\n", filters.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(agents: &[&str]) -> (Users, Topics) {
        let users = Users {
            controller: "boss".into(),
            agents: agents.iter().map(ToString::to_string).collect(),
            viewers: vec!["grafana".into()],
            operators: vec!["ha".into()],
        };
        (users, Topics::new("home/pis").unwrap())
    }

    #[test]
    fn emqx_is_given_rules_in_its_own_form_that_end_with_a_denial() {
        let (users, topics) = rules(&[]);
        let text = Rules { users: &users, topics: &topics, discovery: "homeassistant" }.emqx();
        for expected in [
            "{allow, {user, \"boss\"}, all, [\"home/pis/#\", \"homeassistant/#\"]}.\n",
            "{allow, {user, \"ha\"}, publish, [\"home/pis/+/task/request\", \"home/pis/+/alert/+/acknowledge\", ",
            "{allow, {user, \"grafana\"}, subscribe, [\"home/pis/+/status\", \"home/pis/+/info\", \"home/pis/+/stats\", ",
            "{allow, all, publish, [\"home/pis/${username}/stats\", \"home/pis/${username}/task/+/output\", ",
            "{allow, all, subscribe, [\"home/pis/${username}/task/+/ack\", ",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(text.ends_with("\n{deny, all}.\n"), "{text}");
        // Each line is one Erlang term: comments, nothing, or a tuple that ends with a full stop.
        let term =
            |line: &str| line.is_empty() || line.starts_with("%% ") || (line.starts_with('{') && line.ends_with("}."));
        assert!(text.lines().all(term), "{text}");
        let orders = text.lines().filter(|line| line.contains("execute") && line.contains("grafana")).count();
        assert_eq!(orders, 0, "{text}");
    }

    /// Whether EMQX compares a topic, or a subscription as if it were one, with a rule's filter
    /// successfully (`emqx_topic:match/2`).
    fn fits(topic: &str, filter: &str) -> bool {
        let (mut topic, mut filter) = (topic.split('/'), filter.split('/'));
        loop {
            match (topic.next(), filter.next()) {
                (_, Some("#")) | (None, None) => return true,
                (Some(_), Some("+")) => {}
                (Some(level), Some(wanted)) if level == wanted => {}
                _ => return false,
            }
        }
    }

    /// What EMQX does with these rules in front of the last one that it ships with: the first that
    /// fits decides.
    fn emqx_allows(rules: &str, user: &str, action: &str, topic: &str) -> bool {
        for rule in rules.lines().filter(|line| line.starts_with('{')).chain(["{allow, all}."]) {
            let (head, filters) = rule.split_once(", [").unwrap_or((rule, ""));
            let of_user = !head.contains("{user, ") || head.contains(&format!("{{user, \"{user}\"}}"));
            let of_action = filters.is_empty() || head.ends_with(", all") || head.ends_with(&format!(", {action}"));
            let mut filters =
                filters.split('"').skip(1).step_by(2).map(|filter| filter.replace(USER_EMQX, user)).peekable();
            if of_user && of_action && (filters.peek().is_none() || filters.any(|filter| fits(topic, &filter))) {
                return head.starts_with("{allow");
            }
        }
        unreachable!("the last rule fits everything")
    }

    #[test]
    fn no_subscription_and_no_user_gets_more_from_emqx_than_the_table_says() {
        let named = ["pi-1", "pi-2"];
        for agents in [&[][..], &named] {
            let (users, topics) = rules(agents);
            let rules = Rules { users: &users, topics: &topics, discovery: "homeassistant" }.emqx();
            for (user, action, topic, allowed) in [
                ("boss", "subscribe", "home/pis/#", true),
                ("boss", "publish", "home/pis/pi-1/task/1/execute", true),
                ("grafana", "subscribe", "home/pis/+/status", true),
                ("grafana", "subscribe", "home/pis/+/task/+/output", true),
                ("grafana", "subscribe", "$SYS/#", true),
                ("grafana", "subscribe", "home/pis/+/task/+/execute", false),
                ("grafana", "subscribe", "home/pis/+/task/+/+", false),
                ("grafana", "subscribe", "home/pis/#", false),
                ("grafana", "subscribe", "+/+/+/task/+/execute", false),
                ("grafana", "publish", "home/pis/pi-1/task/request", false),
                ("ha", "publish", "home/pis/pi-1/task/request", true),
                ("ha", "publish", "home/pis/pi-1/task/1/execute", false),
                ("pi-1", "subscribe", "home/pis/pi-1/task/+/execute", true),
                ("pi-1", "publish", "home/pis/pi-1/stats", true),
                ("pi-1", "subscribe", "home/pis/pi-2/task/+/execute", false),
                ("pi-1", "subscribe", "home/+/pi-1/#", false),
                ("pi-1", "publish", "home/pis/pi-2/stats", false),
                ("stranger", "subscribe", "#", false),
                ("stranger", "subscribe", "+/#", false),
                ("stranger", "subscribe", "+/+/#", false),
                ("stranger", "subscribe", "+/+/+/task/+/execute", false),
                ("stranger", "subscribe", "+/pis/pi-1/#", false),
                ("stranger", "subscribe", "home/#", false),
                ("stranger", "subscribe", "home/pis/#", false),
                ("stranger", "publish", "home/pis/pi-1/stats", false),
                ("stranger", "publish", "$delayed/1/home/pis/pi-1/task/request", false),
                ("stranger", "publish", "zigbee2mqtt/lamp", false),
            ] {
                assert_eq!(emqx_allows(&rules, user, action, topic), allowed, "{user} {action} {topic}\n{rules}");
            }
        }
    }

    #[test]
    fn machines_that_are_named_need_no_rule_for_everybody() {
        let (users, topics) = rules(&["pi-1", "pi-2"]);
        let rules = Rules { users: &users, topics: &topics, discovery: "homeassistant" };
        let (mosquitto, emqx) = (rules.mosquitto(), rules.emqx());
        assert!(!mosquitto.contains("pattern") && !mosquitto.contains("%u"), "{mosquitto}");
        let second = mosquitto.split("user pi-2\n").nth(1).unwrap_or_default();
        assert!(second.contains("topic write home/pis/pi-2/stats\n") && !second.contains("pi-1"), "{mosquitto}");
        assert!(!emqx.contains("allow, all") && emqx.contains("{allow, {user, \"pi-2\"}, publish, "), "{emqx}");
    }

    #[test]
    fn programs_are_given_every_row_once() {
        for (agents, expected) in [
            (&[][..], &["controller", "operator", "viewer", "agent"][..]),
            (&["pi-1"], &["controller", "agent", "operator", "viewer"]),
        ] {
            let (users, topics) = rules(agents);
            let rules = Rules { users: &users, topics: &topics, discovery: "homeassistant" };
            let rows = rules.rows(USER_EMQX);
            assert_eq!(rows.iter().map(|row| row.party).collect::<Vec<_>>(), expected);
            let agent = rows.iter().find(|row| row.party == "agent").unwrap();
            assert_eq!(agent.user, *agents.first().unwrap_or(&USER_EMQX));
            assert!(agent.publish.contains(&format!("home/pis/{}/stats", agent.user)), "{:?}", agent.publish);
        }
    }

    #[test]
    fn mosquitto_is_told_what_is_denied_before_what_is_granted() {
        let (users, topics) = rules(&[]);
        let text = Rules { users: &users, topics: &topics, discovery: "homeassistant" }.mosquitto();
        let viewer = text.split("user grafana\n").nth(1).unwrap();
        assert!(
            viewer.starts_with("topic deny home/pis/+/task/+/execute\ntopic deny home/pis/+/task/+/cancel\n"),
            "{text}"
        );
        assert!(
            text.contains("user boss\ntopic readwrite home/pis/#\n")
                && text.contains("pattern write home/pis/%u/stats\n")
        );
    }
}
