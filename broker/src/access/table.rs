//! The table of who may do what with which topic, as rows that can be written down for another
//! broker. Pure.
//!
//! The embedded broker enforces these very rows; [`Grants`] spells them out as topic filters, for
//! the access lists of mosquitto and EMQX. A test holds every cell of the one against the other.

use pistat_protocol::topic::Topics;

/// What an agent writes under `<prefix>/<pi>/`, the most frequent first.
///
/// The embedded broker lets it report only on runs that it was sent, which no filter can say.
pub(crate) const AGENT_WRITES: [&str; 7] =
    ["stats", "task/+/output", "task/+/report", "status", "info", "stats/backfill", WITNESS];

/// What a machine saw before it restarted, under `<prefix>/<pi>/`: lines of its kernel's log, which
/// a viewer does not read.
pub(crate) const WITNESS: &str = "witness";

/// What an agent reads under `<prefix>/<pi>/`.
pub(crate) const AGENT_READS: [&str; 7] =
    ["task/+/ack", "task/+/execute", "task/+/cancel", "settings", "watch", "status", "recall"];

/// What every agent reads under `<prefix>/controller/`.
pub(crate) const CONTROLLERS_READ_BY_AGENTS: [&str; 2] = ["key", "status"];

/// What a machine that joins reads there.
pub(crate) const CONTROLLERS_READ_BY_JOINING: &str = "key";

/// The last level of what a machine that joins writes under `$<prefix>/enroll/<pi>/`.
pub(crate) const ENROLMENT_QUESTION: &str = "request";

/// The last level of what it reads there.
pub(crate) const ENROLMENT_ANSWER: &str = "response";

/// Home Assistant's own discovery prefix. Its birth message is published there whatever prefix is
/// set for discovery, unless that is set too.
pub(crate) const HOME_ASSISTANT: &str = "homeassistant";

/// The broker's own topics, which a viewer reads.
const OF_BROKER: &str = "$SYS/#";

/// What only its agent may read, under `<prefix>/<pi>/`.
pub(crate) const ORDERS: [&str; 2] = ["task/+/execute", "task/+/cancel"];

/// What an operator writes, under `<prefix>/<pi>/`.
pub(crate) const REQUESTS: &str = "task/request";

/// Where an operator acknowledges alerts, under `<prefix>/<pi>/`: of a rule, and of one instance of
/// it.
pub(crate) const ACKNOWLEDGEMENTS: [&str; 2] = ["alert/+/acknowledge", "alert/+/+/acknowledge"];

/// The last level of Home Assistant's birth and last will, which an operator's account may publish.
const BIRTH: &str = "status";

/// Everything that is published about a machine but its orders, under `<prefix>/<pi>/`: for brokers
/// that check a subscription and not each message.
const TOLD_OF_MACHINES: [&str; 18] = [
    "status",
    "info",
    "stats",
    "stats/backfill",
    "meta",
    "settings",
    "watch",
    "task/request",
    "task/result",
    "task/+/ack",
    "task/+/report",
    "task/+/output",
    "task/+/status",
    "recall",
    "alert/#",
    "alerts",
    "alert_event",
    "update",
];

/// Everything that the controller publishes about itself, under `<prefix>/controller/`.
const TOLD_OF_CONTROLLER: [&str; 3] = ["key", "tasks", "event"];

/// Home Assistant's prefixes: its own, and the configured one where that is another.
fn discoveries(discovery: &str) -> impl Iterator<Item = &str> {
    [HOME_ASSISTANT].into_iter().chain((discovery != HOME_ASSISTANT).then_some(discovery))
}

/// What a viewer reads; the first is the fleet's.
pub(crate) fn viewer_reads(prefix: &str, discovery: &str) -> Vec<String> {
    let mut filters = vec![format!("{prefix}/#")];
    filters.extend(discoveries(discovery).map(|prefix| format!("{prefix}/#")));
    filters.push(OF_BROKER.to_owned());
    filters
}

/// The topics on which Home Assistant says that it was started or stops: its own, and that of the
/// discovery prefix where it is another.
pub fn births(discovery: &str) -> Vec<String> {
    discoveries(discovery).map(|prefix| format!("{prefix}/{BIRTH}")).collect()
}

/// A client of an external broker. Machines do not enrol there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party<'a> {
    /// The controller.
    Controller,
    /// The agent of this machine; brokers take a placeholder for the user name too.
    Agent(&'a str),
    /// A person or program that sees everything.
    Viewer,
    /// One that also asks for tasks.
    Operator,
}

/// What a party may do, as topic filters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// What it may publish to.
    pub publish: Vec<String>,
    /// What it may receive.
    pub receive: Vec<String>,
    /// What it may not receive although `receive` says so.
    pub never_receive: Vec<String>,
    /// `receive` without `never_receive`, as filters that bring nothing else: for brokers that
    /// check a subscription and not each message.
    pub subscribe: Vec<String>,
}

impl Grants {
    /// The table's row of a party, under this prefix. The controller publishes under `discovery`
    /// too, which is Home Assistant's prefix, and hears its births.
    pub fn of(party: Party<'_>, topics: &Topics, discovery: &str) -> Self {
        let prefix = topics.prefix();
        match party {
            Party::Controller => {
                let own = vec![format!("{prefix}/#"), format!("{discovery}/#")];
                let mut receive = own.clone();
                receive
                    .extend(births(discovery).into_iter().filter(|birth| !birth.starts_with(&format!("{discovery}/"))));
                Self { publish: own, subscribe: receive.clone(), receive, ..Self::default() }
            }
            Party::Agent(pi) => {
                let mut receive = of_machine(prefix, pi, &AGENT_READS);
                receive.extend(of_machine(prefix, "controller", &CONTROLLERS_READ_BY_AGENTS));
                let publish = of_machine(prefix, pi, &AGENT_WRITES);
                Self { publish, subscribe: receive.clone(), receive, ..Self::default() }
            }
            Party::Viewer => {
                let mut viewer = Self::of_reader(prefix, discovery);
                viewer.never_receive.extend(of_machine(prefix, "+", &[WITNESS]));
                viewer
            }
            Party::Operator => {
                let mut operator = Self::of_reader(prefix, discovery);
                operator.publish = of_machine(prefix, "+", &[REQUESTS]);
                operator.publish.extend(of_machine(prefix, "+", &ACKNOWLEDGEMENTS));
                operator.publish.extend(births(discovery));
                operator.subscribe.extend(of_machine(prefix, "+", &[WITNESS]));
                operator
            }
        }
    }

    /// What every account reads.
    fn of_reader(prefix: &str, discovery: &str) -> Self {
        let receive = viewer_reads(prefix, discovery);
        let mut subscribe = of_machine(prefix, "+", &TOLD_OF_MACHINES);
        subscribe.extend(of_machine(prefix, "controller", &TOLD_OF_CONTROLLER));
        subscribe.extend_from_slice(&receive[1..]);
        Self { publish: Vec::new(), receive, never_receive: of_machine(prefix, "+", &ORDERS), subscribe }
    }
}

fn of_machine(prefix: &str, machine: &str, rows: &[&str]) -> Vec<String> {
    rows.iter().map(|row| format!("{prefix}/{machine}/{row}")).collect()
}
