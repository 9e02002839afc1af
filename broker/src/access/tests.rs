//! Every cell of the table: who × what × which kind of topic, and the filters around them.

use pistat_protocol::id::{AccountName, RunId};
use pistat_protocol::topic::Topic;
use sha2::{Digest, Sha256};

use super::*;
use crate::packet::QoS;

const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn pi(text: &str) -> PiId {
    text.parse().unwrap()
}

fn account(role: Role, rules: &[&str]) -> Identity {
    let rules: Vec<String> = rules.iter().map(|&rule| rule.to_owned()).collect();
    Identity::Account { name: name("someone"), role, publish: rules.clone(), subscribe: rules }
}

/// Who may do it, in the order of the columns below.
fn everybody() -> [(&'static str, Identity); 8] {
    [
        ("controller", Identity::Controller),
        ("own agent", Identity::Agent(pi("pi-1"))),
        ("other agent", Identity::Agent(pi("pi-10"))),
        ("joining", joining("pi-1", "default")),
        ("viewer", account(Role::Viewer, &[])),
        ("operator", account(Role::Operator, &[])),
        ("admin", account(Role::Admin, &[])),
        ("ruled", account(Role::Viewer, &["#", "pistat/#", "$pistat/#", "$SYS/#", "$private/#"])),
    ]
}

/// The columns of each kind of identity. A kind or a role that has none does not compile.
fn columns(identity: &Identity) -> &'static str {
    match identity {
        Identity::Controller => "c",
        Identity::Agent(_) => "ax",
        Identity::Joining(..) => "j",
        Identity::Account { role: Role::Viewer, .. } => "vr",
        Identity::Account { role: Role::Operator, .. } => "o",
        Identity::Account { role: Role::Admin, .. } => "m",
    }
}

/// The rules, once the machine was sent its run.
fn with_run() -> Access {
    let access = Access::new(&Topics::default(), None);
    access.note(&message(&format!("pistat/pi-1/task/{RUN}/execute"), "order", false));
    access
}

fn message(topic: &str, payload: &str, retain: bool) -> Message {
    let draft = crate::message::Draft {
        publisher: crate::message::SessionId::broker(),
        topic,
        payload: payload.as_bytes(),
        qos: QoS::AtLeastOnce,
        retain,
        properties: crate::packet::MessageProperties::default(),
        stamp: None,
        now_ms: 0,
    };
    Message::open(draft.seal()).unwrap()
}

/// Each topic with who may publish on it and who may receive it: c(ontroller), a(gent), x (another
/// agent), j(oining), v(iewer), o(perator), m (admin), r (an account whose own rules name
/// everything).
const TABLE: [(&str, &str, &str); 55] = [
    ("pistat/pi-1/status", "ca", "cavomr"),
    ("pistat/pi-1/info", "ca", "cvomr"),
    ("pistat/pi-1/stats", "ca", "cvomr"),
    ("pistat/pi-1/stats/backfill", "ca", "cvomr"),
    ("pistat/pi-1/meta", "c", "cvomr"),
    ("pistat/pi-1/settings", "c", "cavomr"),
    ("pistat/pi-1/watch", "c", "cavomr"),
    ("pistat/pi-1/task/request", "comr", "cvomr"),
    ("pistat/@all/task/request", "comr", "cvomr"),
    ("pistat/@camera/task/request", "comr", "cvomr"),
    ("pistat/controller/task/request", "comr", "cvomr"),
    ("pistat/pi-1/task/RUN/execute", "c", "ca"),
    ("pistat/pi-1/task/RUN/cancel", "c", "ca"),
    ("pistat/pi-1/task/RUN/ack", "c", "cavomr"),
    ("pistat/pi-1/task/RUN/report", "ca", "cvomr"),
    ("pistat/pi-1/task/RUN/output", "ca", "cvomr"),
    ("pistat/pi-1/task/RUN/status", "c", "cvomr"),
    ("pistat/pi-1/task/result", "c", "cvomr"),
    // A run that it was not sent, and a level that is not a run id.
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8058/report", "c", "cvomr"),
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8058/output", "c", "cvomr"),
    ("pistat/pi-1/task/x/output", "c", "cvomr"),
    ("pistat/pi-1/recall", "c", "cavomr"),
    ("pistat/pi-1/witness", "ca", "com"),
    ("pistat/pi-1/witness/x", "c", "cvomr"),
    ("pistat/pi-1/update", "c", "cvomr"),
    ("pistat/pi-1/alerts", "c", "cvomr"),
    ("pistat/pi-1/alert_event", "c", "cvomr"),
    ("pistat/pi-1/alert/too-hot", "c", "cvomr"),
    ("pistat/pi-1/alert/disk-full/sda1", "c", "cvomr"),
    ("pistat/pi-1/alert/too-hot/acknowledge", "comr", "cvomr"),
    ("pistat/pi-1/alert/disk-full/sda1/acknowledge", "comr", "cvomr"),
    ("pistat/pi-1/alert/acknowledge", "c", "cvomr"),
    ("pistat/controller/status", "c", "caxvomr"),
    ("pistat/controller/key", "c", "caxjvomr"),
    ("pistat/controller/tasks", "c", "cvomr"),
    ("pistat/controller/event", "c", "cvomr"),
    // Answers to requests: the controller gives them, nobody else may forge one.
    ("pistat/reply/me", "c", "cvomr"),
    ("pistat/reply/me/2", "c", "cvomr"),
    ("$pistat/enroll/pi-1/request", "cj", "c"),
    ("$pistat/enroll/pi-1/response", "c", "cj"),
    ("$pistat/enroll/pi-2/request", "c", "c"),
    ("$pistat/enroll/pi-2/response", "c", "c"),
    ("$pistat/other", "c", "c"),
    ("pistat", "c", "cvomr"),
    ("pistat/x", "c", "cvomr"),
    ("pistat/pi-1/status/x", "c", "cvomr"),
    ("pistat/pi-1/task/RUN/execute/x", "c", "cvomr"),
    ("pistat/pi-1/task/request/x", "c", "cvomr"),
    ("pistatx/pi-1/status", "cr", "cr"),
    ("homeassistant/status", "comr", "cvomr"),
    ("homeassistant/device/x/config", "cr", "cvomr"),
    ("$SYS/broker/uptime", "c", "cvomr"),
    ("$private/x", "cr", "cr"),
    ("zigbee2mqtt/lamp", "cr", "cr"),
    ("é/x", "cr", "cr"),
];

#[test]
fn every_kind_of_topic_has_its_row_and_every_kind_of_identity_its_column() {
    let run: RunId = RUN.parse().unwrap();
    let kinds = Topic::of_each_kind(&pi("pi-1"), run, &"camera".parse().unwrap());
    assert!(kinds.len() > 20);
    for kind in kinds {
        let text = Topics::default().format(&kind).replace(RUN, "RUN");
        assert!(TABLE.iter().any(|(topic, ..)| *topic == text), "the table has no row for {text}");
    }
    for ((who, identity), letter) in everybody().iter().zip("caxjvomr".chars()) {
        assert!(columns(identity).contains(letter), "{who} is not {letter}");
    }
    let all: usize = everybody()
        .iter()
        .map(|(_, identity)| columns(identity))
        .collect::<std::collections::BTreeSet<_>>()
        .iter()
        .map(|columns| columns.len())
        .sum();
    assert_eq!(all, everybody().len(), "somebody's column is not held against the table");
}

#[test]
fn who_may_do_what_is_what_every_cell_of_the_table_says() {
    let access = with_run();
    for (topic, may_publish, may_receive) in TABLE {
        let topic = topic.replace("RUN", RUN);
        for ((who, identity), letter) in everybody().iter().zip("caxjvomr".chars()) {
            assert_eq!(access.may_publish(identity, &topic), may_publish.contains(letter), "{who} publishes {topic}");
            assert_eq!(access.may_receive(identity, &topic), may_receive.contains(letter), "{who} receives {topic}");
            let may_leave = may_publish.contains(letter) && letter != 'j';
            assert_eq!(access.may_leave_will(identity, &topic), may_leave, "{who} leaves a will on {topic}");
        }
    }
}

#[test]
fn an_agent_reports_on_a_run_from_its_state_or_order_until_its_state_is_cleared() {
    let access = Access::new(&Topics::default(), None);
    let agent = Identity::Agent(pi("pi-1"));
    let topic = |verb: &str| format!("pistat/pi-1/task/{RUN}/{verb}");
    let may = |who: &Identity| [access.may_publish(who, &topic("report")), access.may_publish(who, &topic("output"))];
    assert_eq!(may(&agent), [false; 2]);
    // What says nothing about the run having been sent.
    for verb in ["ack", "cancel", "output", "report"] {
        access.note(&message(&topic(verb), "x", verb == "output"));
    }
    access.note(&message(&topic("status"), "x", false));
    access.note(&message("pistat/pi-1/task/no-run/execute", "x", false));
    assert_eq!(may(&agent), [false; 2]);
    for (verb, payload, retain, expected) in [
        ("status", "queued", true, true),
        ("execute", "order", false, true),
        ("status", "succeeded", true, true),
        ("status", "", true, false),
        ("execute", "order", false, true),
        ("status", "", true, false),
    ] {
        access.note(&message(&topic(verb), payload, retain));
        assert_eq!(may(&agent), [expected; 2], "{verb} {payload}");
        assert_eq!(may(&Identity::Agent(pi("pi-10"))), [false; 2]);
    }
}

#[test]
fn what_is_written_for_other_brokers_is_what_ours_enforces() {
    use table::{Grants, Party};
    let topics = Topics::default();
    let access = with_run();
    let parties = [
        (Party::Agent("pi-1"), Identity::Agent(pi("pi-1"))),
        (Party::Viewer, account(Role::Viewer, &[])),
        (Party::Operator, account(Role::Operator, &[])),
    ];
    let any = |filters: &[String], topic: &str| filters.iter().any(|filter| filter::matches(filter, topic));
    let mut told = 0;
    for (party, identity) in parties {
        let grants = Grants::of(party, &topics, "homeassistant");
        for (topic, ..) in TABLE {
            let topic = topic.replace("RUN", RUN);
            let receives = any(&grants.receive, &topic) && !any(&grants.never_receive, &topic);
            // Which runs a machine was sent is for our broker alone to know.
            let is_of_other_run = topic.contains("/task/") && !topic.contains(RUN) && grants.receive.len() == 9;
            let publishes = any(&grants.publish, &topic) && !is_of_other_run;
            assert_eq!(publishes, access.may_publish(&identity, &topic), "{party:?} {topic}");
            assert_eq!(receives, access.may_receive(&identity, &topic), "{party:?} {topic}");
            // Where only subscriptions are checked, whatever means something and may be seen is
            // among them, and nothing else.
            let means_something = topics.parse(&topic).is_some();
            let subscribes = any(&grants.subscribe, &topic);
            assert!(receives || !subscribes, "{party:?} {topic}");
            assert!(subscribes || !receives || (!means_something && topic.starts_with("pistat")), "{party:?} {topic}");
            told += usize::from(subscribes);
        }
        for filter in &grants.subscribe {
            let brings_orders = grants.never_receive.iter().any(|order| filter::meet(filter, order).is_some());
            assert!(!brings_orders, "{party:?} {filter}");
        }
    }
    assert!(told > 40, "{told}");
    let everything = Grants::of(Party::Controller, &Topics::new("home/pis").unwrap(), "ha");
    assert_eq!(everything.publish, ["home/pis/#", "ha/#"]);
    assert_eq!(everything.subscribe, ["home/pis/#", "ha/#", "homeassistant/status"]);
}

#[test]
fn another_discovery_prefix_gives_accounts_the_same_rights_there_too() {
    use table::{Grants, Party};
    let topics = Topics::default();
    let access = Access::new(&topics, Some("ha/main"));
    let (viewer, operator) = (account(Role::Viewer, &[]), account(Role::Operator, &[]));
    let grants = Grants::of(Party::Operator, &topics, "ha/main");
    let any = |filters: &[String], topic: &str| filters.iter().any(|filter| filter::matches(filter, topic));
    // Home Assistant tells of its birth under its own prefix, whatever prefix its discovery has,
    // unless that is set too.
    for (topic, says, hears) in [
        ("homeassistant/status", true, true),
        ("homeassistant/device/x/config", false, true),
        ("ha/main/status", true, true),
        ("ha/main/device/x/config", false, true),
        ("ha/status", false, false),
        ("ha/main2/status", false, false),
    ] {
        assert_eq!(access.may_publish(&operator, topic), says, "{topic}");
        assert!(!access.may_publish(&viewer, topic), "{topic}");
        assert_eq!(access.may_receive(&viewer, topic), hears, "{topic}");
        assert_eq!(access.may_subscribe(&viewer, topic), hears, "{topic}");
        assert_eq!((any(&grants.publish, topic), any(&grants.receive, topic)), (says, hears), "{topic}");
        assert_eq!(any(&grants.subscribe, topic), hears, "{topic}");
    }
}

#[test]
fn the_rules_follow_the_prefix() {
    let access = Access::new(&Topics::new("home/pis").unwrap(), None);
    let agent = Identity::Agent(pi("pi-1"));
    assert!(access.may_publish(&agent, "home/pis/pi-1/status") && !access.may_publish(&agent, "pistat/pi-1/status"));
    let viewer = account(Role::Viewer, &[]);
    assert!(access.may_receive(&viewer, "home/pis/pi-1/status") && !access.may_receive(&viewer, "pistat/pi-1/status"));
    assert!(!access.may_receive(&viewer, &format!("home/pis/pi-1/task/{RUN}/execute")));
    assert!(access.may_publish(&joining("pi-1", "default"), "$home/pis/enroll/pi-1/request"));
}

/// A filter is granted exactly when some topic matches it that may be received. The topics of the
/// table and some more stand for all there are.
#[test]
fn a_filter_is_granted_exactly_when_it_can_bring_something() {
    let access = Access::new(&Topics::default(), None);
    let mut topics: Vec<String> = TABLE.iter().map(|(topic, ..)| topic.replace("RUN", RUN)).collect();
    topics.extend(
        [
            "pistat/x/y/z/execute",
            "pistat/pi-2/info",
            "pistat/pi-10/task/x/execute",
            "pistat/pi-10/task/x/cancel",
            "pistat/pi-10/task/x/ack",
            "pistat/pi-10/status",
            "pistat/y",
            "homeassistant",
            "homeassistant/x/task/y/execute",
            "$SYS/x",
            "a/b/task/c/execute",
            "homeassistant/b/task/c/execute",
            "pistat/a/b/c/cancel",
            "$SYS",
            "pistat/pi-1/task/x/ack",
            "pistat/pi-1/task/x/execute",
            "pistat/pi-1/task/+/cancel/",
        ]
        .map(str::to_owned),
    );
    let filters = [
        "#",
        "+/#",
        "+",
        "+/+",
        "pistat/#",
        "pistat/+/status",
        "pistat/pi-1/#",
        "pistat/pi-2/#",
        "pistat/+/task/+/execute",
        "pistat/pi-1/task/+/execute",
        "pistat/pi-1/task/+/cancel",
        "pistat/pi-1/task/+/+",
        "pistat/+/+/+/execute",
        "+/+/task/+/execute",
        "pistat/+/task/#",
        "$pistat/#",
        "$pistat/enroll/+/request",
        "$pistat/enroll/pi-1/response",
        "$pistat/enroll/+/response",
        "$pistat/enroll/pi-2/response",
        "$SYS/#",
        "$SYS/broker/+",
        "homeassistant/#",
        "zigbee2mqtt/#",
        "pistat/controller/key",
        "pistat/controller/+",
        "pistat/reply/me",
        "pistat/reply/#",
        "pistat/pi-1/settings",
        "pistat/pi-1/info",
        "$private/#",
        "é/+",
        "pistat/+/task/+/execute/#",
    ];
    for (who, identity) in everybody() {
        for filter in filters {
            let brings =
                topics.iter().any(|topic| filter::matches(filter, topic) && access.may_receive(&identity, topic));
            assert_eq!(access.may_subscribe(&identity, filter), brings, "{who} subscribes to {filter}");
        }
    }
}

fn hash(text: &str) -> SecretHash {
    Sha256::digest(text).into()
}

fn joining(name: &str, token: &str) -> Identity {
    Identity::Joining(pi(name), token.into())
}

fn directory() -> Directory {
    let mut directory = Directory::new();
    directory.controller(hash("controller-secret"));
    directory.agent(pi("Pi-1"), hash("agent-secret"));
    directory.account(name("Anna"), Role::Operator, hash("anna-secret"), vec![], vec![]);
    directory.join_token("default", hash("join"));
    directory.join_token("cameras", hash("snap"));
    directory.pi_join_token(pi("pi-9"), hash("nine"));
    directory
}

#[test]
fn credentials_are_who_they_say() {
    let directory = directory();
    let who = |user: &str, password: &str| directory.authenticate(user, password.as_bytes());
    assert_eq!(who("controller", "controller-secret"), Some(Identity::Controller));
    assert_eq!(who("CONTROLLER", "controller-secret"), Some(Identity::Controller));
    assert_eq!(who("pi-1", "agent-secret"), Some(Identity::Agent(pi("Pi-1"))));
    assert!(matches!(who("ANNA", "anna-secret"), Some(Identity::Account { role: Role::Operator, .. })));
    // An enrolled machine may ask again with the join token, as joining only.
    assert_eq!(who("pi-1", "join"), Some(joining("pi-1", "default")));
    assert_eq!(who("new-pi", "join"), Some(joining("new-pi", "default")));
    assert_eq!(who("new-pi", "join.fingerprint"), Some(joining("new-pi", "default")));
    assert_eq!(who("PI-9", "nine.fingerprint"), Some(joining("PI-9", "")));
    assert_eq!(who("new-pi", "snap"), Some(joining("new-pi", "cameras")), "the token's name goes along");
    for (user, password) in [
        ("pi-1", "wrong"),
        ("pi-1", ""),
        ("nobody", "agent-secret"),
        ("anna", "join"),
        ("controller", "join"),
        ("admin", "join"),
        ("pistat", "join"),
        ("pi-8", "nine"),
        ("not a pi", "join"),
        ("", "join"),
        ("", ""),
        ("new-pi", ".join"),
        ("new-pi", "joi"),
        ("anna", "anna-secret.x"),
        ("pi-1", "agent-secret.x"),
    ] {
        assert_eq!(who(user, password), None, "{user} {password}");
    }
}

#[test]
fn a_directory_without_anybody_lets_nobody_in() {
    assert_eq!(Directory::new().authenticate("controller", b""), None);
    assert_eq!(Directory::new().authenticate("", &[]), None);
}

#[test]
fn joining_machines_and_agents_never_share_sessions() {
    let owners: std::collections::HashSet<String> = [
        Identity::Controller,
        Identity::Agent(pi("a")),
        joining("a", "default"),
        Identity::Account { name: name("a"), role: Role::Admin, publish: vec![], subscribe: vec![] },
    ]
    .iter()
    .map(Identity::session_owner)
    .collect();
    assert_eq!(owners.len(), 4);
    assert_eq!(Identity::Agent(pi("A")).session_owner(), Identity::Agent(pi("a")).session_owner());
}

#[test]
fn rights_that_shrink_are_told_from_rights_that_grow() {
    let (small, large) = (account(Role::Viewer, &["a"]), account(Role::Admin, &["a", "b"]));
    assert!(large.exceeds(&small) && !small.exceeds(&large) && !small.exceeds(&small));
    assert!(Identity::Agent(pi("a")).exceeds(&joining("a", "default")));
    assert!(!joining("a", "default").exceeds(&Identity::Agent(pi("A"))));
    assert!(joining("a", "default").exceeds(&joining("b", "default")));
    assert!(Identity::Controller.exceeds(&large) && small.exceeds(&Identity::Controller));
}

#[test]
fn an_answer_goes_only_where_the_asker_could_speak_itself_or_nobody_else_listens() {
    let access = Access::new(&Topics::default(), None);
    let rules = |rules: &[&str]| rules.iter().map(|&rule| rule.to_owned()).collect::<Vec<_>>();
    let mut directory = directory();
    for (account, publish, subscribe) in [
        ("script", &["script/#"][..], &["script/#", "reply/#"][..]),
        ("lamps", &["zigbee2mqtt/#"], &["zigbee2mqtt/#"]),
        ("onlooker", &[], &["zigbee2mqtt/#", "onlooker/#"]),
        ("deaf", &["zigbee2mqtt/#"], &[]),
    ] {
        directory.account(name(account), Role::Operator, hash(account), rules(publish), rules(subscribe));
    }
    directory.account(name("bare"), Role::Admin, hash("bare"), vec![], vec![]);
    for (account, topic, may) in [
        // Answers that everybody may see.
        ("bare", "pistat/reply/me", true),
        ("onlooker", "pistat/reply/me", true),
        // Its own topics, or those that nobody else hears.
        ("script", "script/answer", true),
        ("SCRIPT", "script/answer", true),
        ("script", "reply/xyz", true),
        ("onlooker", "onlooker/answer", true),
        // A command for somebody else's lamp: for who may command it anyway.
        ("lamps", "zigbee2mqtt/lamp/set", true),
        ("onlooker", "zigbee2mqtt/lamp/set", false),
        ("bare", "zigbee2mqtt/lamp/set", false),
        ("script", "zigbee2mqtt/lamp/set", false),
        // What the asker cannot hear is not an answer.
        ("deaf", "zigbee2mqtt/lamp/set", false),
        ("bare", "nowhere/at/all", false),
        ("nobody", "pistat/reply/me", false),
    ] {
        assert_eq!(access.may_be_answered(&directory, account, topic), may, "{account} {topic}");
    }
}

#[test]
fn an_enrolment_is_stamped_with_the_name_of_its_token_and_a_request_with_its_account() {
    let access = Access::new(&Topics::default(), None);
    let anna = Identity::Account { name: name("Anna"), role: Role::Operator, publish: vec![], subscribe: vec![] };
    for (identity, topic, stamp) in [
        (&joining("pi-1", "cameras"), "$pistat/enroll/pi-1/request", Some("cameras")),
        (&joining("pi-1", ""), "$pistat/enroll/pi-1/request", Some("")),
        (&joining("pi-1", "cameras"), "pistat/pi-1/status", None),
        (&anna, "pistat/pi-1/task/request", Some("Anna")),
        (&anna, "pistat/pi-1/status", None),
    ] {
        assert_eq!(access.stamp(topic, identity), stamp, "{topic}");
    }
}
