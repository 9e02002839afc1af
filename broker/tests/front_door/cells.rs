//! Every cell of who × action × kind of topic, over real connections: publish, last will,
//! subscribe, receive live and retained, alone, under wildcards and in shared subscriptions, with
//! 3.1.1 and 5. Who has no name gets nothing of it.

use std::collections::BTreeSet;

use pistat_broker::Directory;
use pistat_protocol::account::Role;
use pistat_protocol::id::RunId;
use pistat_protocol::topic::{Topic, Topics};

use crate::setup::{Setup, directory, hash, with_bounds};
use pistat_testkit::{
    packet::{Connect, Message, Packet, packet, string},
    raw::Client,
};

/// User name, password and the letter of the table.
const WHO: [(&str, &str, char); 8] = [
    ("controller", "controller", 'c'),
    ("pi-1", "pi-1", 'a'),
    ("pi-2", "pi-2", 'x'),
    ("pi-1", "join", 'j'),
    ("viewer", "viewer", 'v'),
    ("operator", "operator", 'o'),
    ("boss", "boss", 'm'),
    ("ruled", "ruled", 'r'),
];

/// Each topic with who may publish on it and who may receive it: c(ontroller), a(gent), x (another
/// agent), j(oining), v(iewer), o(perator), m (admin), r (a viewer whose own rules name
/// everything).
const TABLE: [(&str, &str, &str); 60] = [
    ("pistat/pi-1/status", "ca", "cavomr"),
    ("pistat/pi-1/info", "ca", "cvomr"),
    ("pistat/pi-1/stats", "ca", "cvomr"),
    ("pistat/pi-1/stats/backfill", "ca", "cvomr"),
    ("pistat/pi-1/meta", "c", "cvomr"),
    ("pistat/pi-1/settings", "c", "cavomr"),
    ("pistat/pi-1/watch", "c", "cavomr"),
    ("pistat/pi-1/task/request", "comr", "cvomr"),
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8057/execute", "c", "ca"),
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8057/cancel", "c", "ca"),
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8057/ack", "c", "cavomr"),
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8057/report", "ca", "cvomr"),
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8057/output", "ca", "cvomr"),
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8057/status", "c", "cvomr"),
    ("pistat/pi-1/task/result", "c", "cvomr"),
    // Runs that the machine was not sent: another's, an unknown one, and a level that is not a run
    // id.
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8058/report", "c", "cvomr"),
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8059/output", "c", "cvomr"),
    ("pistat/pi-1/task/x/output", "c", "cvomr"),
    ("pistat/pi-1/recall", "c", "cavomr"),
    ("pistat/pi-1/witness", "ca", "com"),
    ("pistat/pi-1/update", "c", "cvomr"),
    ("pistat/pi-1/alerts", "c", "cvomr"),
    ("pistat/pi-1/alert_event", "c", "cvomr"),
    ("pistat/pi-1/alert/disk-full/sda1", "c", "cvomr"),
    ("pistat/pi-1/alert/too-hot/acknowledge", "comr", "cvomr"),
    ("pistat/pi-1/alert/disk-full/sda1/acknowledge", "comr", "cvomr"),
    ("pistat/pi-2/status", "cx", "cxvomr"),
    ("pistat/pi-2/info", "cx", "cvomr"),
    ("pistat/pi-2/settings", "c", "cxvomr"),
    ("pistat/pi-2/watch", "c", "cxvomr"),
    ("pistat/pi-2/task/01890a5d-ac96-774b-bcce-b302099a8058/execute", "c", "cx"),
    ("pistat/pi-2/task/01890a5d-ac96-774b-bcce-b302099a8058/cancel", "c", "cx"),
    ("pistat/pi-2/task/01890a5d-ac96-774b-bcce-b302099a8058/ack", "c", "cxvomr"),
    ("pistat/pi-2/task/01890a5d-ac96-774b-bcce-b302099a8058/report", "cx", "cvomr"),
    ("pistat/@all/task/request", "comr", "cvomr"),
    ("pistat/@camera/task/request", "comr", "cvomr"),
    ("pistat/controller/task/request", "comr", "cvomr"),
    ("pistat/controller/task/run-9/execute", "c", "c"),
    ("pistat/controller/status", "c", "caxvomr"),
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
    ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8057/execute/x", "c", "cvomr"),
    ("pistatx/pi-1/status", "cr", "cr"),
    ("homeassistant/status", "comr", "cvomr"),
    ("homeassistant/device/x/config", "cr", "cvomr"),
    ("homeassistant/a/task/b/execute", "cr", "cvomr"),
    ("$SYS/broker/uptime", "c", "cvomr"),
    ("$private/x", "cr", "cr"),
    ("zigbee2mqtt/lamp", "cr", "cr"),
    FENCE,
];

#[test]
fn every_kind_of_topic_has_its_row() {
    let run = RunId::from_parts(1, [1; 10]);
    let kinds = Topic::of_each_kind(&"pi-1".parse().unwrap(), run, &"camera".parse().unwrap());
    assert!(kinds.len() > 20);
    for kind in kinds {
        let text = Topics::default().format(&kind).replace(&run.to_string(), "01890a5d-ac96-774b-bcce-b302099a8057");
        assert!(TABLE.iter().any(|(topic, ..)| *topic == text), "the table has no row for {text}");
    }
}

/// What everybody may receive: sent last, it marks the end.
const FENCE: (&str, &str, &str) = ("pistat/controller/key", "c", "caxjvomr");

/// Filters that cover every topic of the table, forbidden ones among them.
const COVERS: [&str; 5] = ["#", "$pistat/#", "$SYS/#", "$private/#", "pistat/+/task/+/+"];

fn with_ruled() -> Directory {
    let mut directory = directory();
    let rules = || ["#", "pistat/#", "$pistat/#", "$SYS/#", "$private/#"].map(str::to_owned).to_vec();
    directory.account("ruled".parse().unwrap(), Role::Viewer, hash("ruled"), rules(), rules());
    directory
}

async fn start() -> Setup {
    // The broker's own numbers would come between; and who guesses passwords waits, which is shown
    // elsewhere.
    let limits = with_bounds(|b| (b.sys_interval_seconds, b.refusal_delay_milliseconds) = (0, 0));
    let setup = Setup::with_limits(limits).await;
    setup.handle().set_directory(with_ruled());
    // Each machine was sent its run.
    let mut controller = setup.client(connect(true, "controller", "controller", "orders")).await;
    for (topic, ..) in TABLE.iter().filter(|(topic, ..)| topic.starts_with("pistat/pi-") && topic.ends_with("/execute"))
    {
        assert_eq!(controller.publish(Message::new(topic, "order", 1)).await, 0);
    }
    controller.disconnect().await;
    setup
}

fn connect(v5: bool, user: &str, password: &str, id: &str) -> Connect {
    Connect { user: Some(user.into()), password: Some(password.into()), ..Connect::of(v5, id) }
}

/// Whether a filter matches a topic: written anew, so that the broker is not measured with its own
/// yardstick.
fn matches(filter: &str, topic: &str) -> bool {
    if filter.starts_with(['+', '#']) && topic.starts_with('$') {
        return false;
    }
    let (mut filters, mut topics) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), topics.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// The topics of the table that this one may receive, of those that some of the filters match.
fn receivable(letter: char, filters: &[String]) -> BTreeSet<String> {
    let allowed = TABLE
        .iter()
        .filter(|(topic, _, receive)| receive.contains(letter) && filters.iter().any(|filter| matches(filter, topic)));
    allowed.map(|(topic, ..)| (*topic).to_owned()).collect()
}

/// The topic itself, each of its levels as `+`, each of its beginnings with `#`.
fn filters_around(topic: &str) -> Vec<String> {
    let levels: Vec<&str> = topic.split('/').collect();
    let mut filters = vec![topic.to_owned()];
    for index in 0..levels.len() {
        let mut any = levels.clone();
        any[index] = "+";
        filters.push(any.join("/"));
        filters.push([&levels[..index], &["#"]].concat().join("/"));
    }
    filters.push(format!("{topic}/#"));
    filters.push(format!("{topic}/+"));
    filters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_publishes_where_is_let_or_refused_by_the_table() {
    let setup = start().await;
    let mut watcher = setup.client(connect(true, "controller", "controller", "watcher")).await;
    for filter in ["#", "$pistat/#", "$SYS/#", "$private/#"] {
        assert_eq!(watcher.subscribe(&[(filter, 2)]).await, [2]);
    }
    let mut cells = 0;
    for (user, password, letter) in WHO {
        for v5 in [false, true] {
            let mut client = setup.client(connect(v5, user, password, "publisher")).await;
            for (topic, publish, _) in TABLE {
                let may = publish.contains(letter);
                for qos in 0..3 {
                    let payload = format!("{letter}{v5}{qos}");
                    let code = client.publish(Message::new(topic, &payload, qos)).await;
                    let expected = if may || !v5 || qos == 0 { 0 } else { 0x87 };
                    assert_eq!(code, expected, "{user} ({letter}) on {topic}, QoS {qos}, MQTT 5: {v5}");
                    if may {
                        let message = watcher.message().await;
                        assert_eq!((&*message.topic, message.text()), (topic, payload));
                    }
                    cells += 1;
                }
            }
            client.disconnect().await;
        }
    }
    // Nothing came besides: the fence is the next thing heard.
    watcher.publish(Message::new("test/fence", "", 1)).await;
    assert_eq!(watcher.message().await.topic, "test/fence");
    assert_eq!(cells, WHO.len() * TABLE.len() * 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_is_let_in_and_published_or_refused_by_the_table() {
    let setup = start().await;
    let mut watcher = setup.client(connect(true, "controller", "controller", "watcher")).await;
    for filter in ["#", "$pistat/#", "$SYS/#", "$private/#"] {
        watcher.subscribe(&[(filter, 2)]).await;
    }
    for (user, password, letter) in WHO {
        for (topic, publish, _) in TABLE {
            for (v5, code) in [(false, 5), (true, 0x87)] {
                let connect = connect(v5, user, password, "mortal").will(Message::new(topic, "gone", 1));
                // A joining machine leaves no will, not even where it may publish.
                if publish.contains(letter) && letter != 'j' {
                    drop(setup.client(connect).await);
                    let message = watcher.message().await;
                    assert_eq!((&*message.topic, message.text()), (topic, "gone".into()), "{user} ({letter})");
                } else {
                    assert_eq!(Client::refused(setup.address, &connect).await, code, "{user} ({letter}) on {topic}");
                }
            }
        }
    }
    watcher.publish(Message::new("test/fence", "", 1)).await;
    assert_eq!(watcher.message().await.topic, "test/fence");
}

/// The row of nobody: without a name, without a password, with a wrong one, no cell is theirs.
fn nobodies(v5: bool) -> [Connect; 5] {
    let nobody = Connect { user: None, password: None, ..Connect::of(v5, "nobody") };
    let named = |user: &str, password: Option<&str>| Connect {
        user: Some(user.into()),
        password: password.map(Into::into),
        ..Connect::of(v5, "nobody")
    };
    [nobody, named("viewer", None), named("controller", Some("")), named("boss", Some("viewer")), named("", Some(""))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_name_may_publish_leave_hear_and_subscribe_to_nothing() {
    let setup = start().await;
    let mut controller = setup.client(connect(true, "controller", "controller", "watcher")).await;
    for filter in ["#", "$pistat/#", "$SYS/#", "$private/#"] {
        controller.subscribe(&[(filter, 2)]).await;
    }
    let mut cells = 0;
    for (topic, ..) in TABLE {
        for nobody in [nobodies(false), nobodies(true)].into_iter().flatten() {
            // Everything at once: who does not wait for the answer gets no further than who does.
            let mut client = Client::raw(setup.address, nobody.v5).await;
            let will = nobody.clone().will(Message::new(topic, "will", 0));
            let publish = Message { id: 1, ..Message::new(topic, "publish", 1).retained() };
            client.send(&[will.encode(), publish.encode(nobody.v5), subscribe(topic, nobody.v5)].concat()).await;
            let answer = client.next().await;
            let refused = matches!(answer, Packet::ConnAck { present: false, code, .. } if code != 0);
            assert!(refused, "{nobody:?} on {topic}: {answer:?}");
            assert_eq!(client.next().await, Packet::Closed, "{nobody:?} on {topic}");
            cells += 1;
        }
        for v5 in [false, true] {
            // Nor does who does not introduce itself at all.
            let publish = Message { id: 1, ..Message::new(topic, "publish", 1) };
            for first in [publish.encode(v5), subscribe(topic, v5)] {
                let mut client = Client::raw(setup.address, v5).await;
                client.send(&first).await;
                assert!(matches!(client.next().await, Packet::Disconnect { .. } | Packet::Closed), "{topic}");
            }
        }
    }
    controller.publish(Message::new("test/fence", "", 1)).await;
    assert_eq!(controller.message().await.topic, "test/fence");
    assert_eq!(cells, TABLE.len() * 10);
}

/// A subscription as its bytes.
fn subscribe(filter: &str, v5: bool) -> Vec<u8> {
    let properties: &[u8] = if v5 { &[0] } else { &[] };
    packet(0x82, &[&[0, 2], properties, &string(filter), &[1]])
}

/// Granted exactly when something could come of it: then only that comes, which the next tests
/// show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_is_granted_or_refused_by_what_it_could_bring_alone_and_shared() {
    let setup = Setup::with_limits(with_bounds(|b| (b.subscriptions, b.sys_interval_seconds) = (10_000, 0))).await;
    setup.handle().set_directory(with_ruled());
    let mut filters: BTreeSet<String> = TABLE.iter().flat_map(|(topic, ..)| filters_around(topic)).collect();
    filters.extend(COVERS.map(str::to_owned));
    let (mut granted, mut refused) = (0, 0);
    for (user, password, letter) in WHO {
        for v5 in [false, true] {
            let mut client = setup.client(connect(v5, user, password, "subscriber")).await;
            for filter in &filters {
                let brings = could_bring(letter, filter);
                let expected = if brings { 1 } else { [0x80, 0x87][usize::from(v5)] };
                for text in [filter.clone(), format!("$share/group/{filter}")] {
                    assert_eq!(client.subscribe(&[(&text, 1)]).await, [expected], "{user} ({letter}) to {text}");
                }
                if brings { granted += 1 } else { refused += 1 }
            }
            client.disconnect().await;
        }
    }
    assert!(granted > 500 && refused > 500, "{granted} granted, {refused} refused");
}

/// Whether some topic that the filter matches may be received, by the rules of [`may_receive`].
fn could_bring(letter: char, filter: &str) -> bool {
    let table = TABLE.iter().map(|(topic, ..)| (*topic).to_owned()).filter(|topic| matches(filter, topic));
    table.chain(samples(filter)).any(|topic| may_receive(letter, &topic))
}

/// Topics that a filter matches: its wildcards filled with names that mean something and with one
/// that does not.
fn samples(filter: &str) -> Vec<String> {
    let names = [
        "x",
        "pistat",
        "homeassistant",
        "pi-1",
        "pi-2",
        "controller",
        "key",
        "status",
        "settings",
        "task",
        "execute",
        "enroll",
        "response",
        "witness",
    ];
    let mut topics = vec![String::new()];
    for level in filter.split('/') {
        let fillings: Vec<&str> = match level {
            "+" => names.to_vec(),
            "#" => vec!["", "x", "x/y", "execute", "x/execute"],
            name => vec![name],
        };
        let longer = topics.iter().flat_map(|topic| fillings.iter().map(move |filling| format!("{topic}/{filling}")));
        topics = longer.collect();
    }
    let topics = topics.iter().map(|topic| topic[1..].trim_end_matches('/').to_owned());
    topics.filter(|topic| matches(filter, topic)).collect()
}

/// Who may receive what, said a second time as rules instead of cells: a slip in one shows in the
/// other.
fn may_receive(letter: char, topic: &str) -> bool {
    let any = |filters: &[&str]| filters.iter().any(|filter| matches(filter, topic));
    let is_order = any(&["pistat/+/task/+/execute", "pistat/+/task/+/cancel"]);
    let is_operators = any(&["pistat/#", "homeassistant/#", "$SYS/#"]) && !is_order;
    let is_viewers = is_operators && !any(&["pistat/+/witness"]);
    let is_agents = |pi: &str| {
        let own = ["task/+/execute", "task/+/cancel", "task/+/ack", "settings", "watch", "status", "recall"];
        own.iter().any(|rest| matches(&format!("pistat/{pi}/{rest}"), topic))
            || any(&["pistat/controller/key", "pistat/controller/status"])
    };
    match letter {
        'c' => true,
        'a' => is_agents("pi-1"),
        'x' => is_agents("pi-2"),
        'j' => any(&["$pistat/enroll/pi-1/response", "pistat/controller/key"]),
        'r' => is_viewers || !any(&["pistat/#", "$pistat/#"]),
        'v' => is_viewers,
        _ => is_operators,
    }
}

#[test]
fn the_cells_and_the_rules_say_the_same() {
    for (topic, _, receive) in TABLE {
        for (_, _, letter) in WHO {
            assert_eq!(receive.contains(letter), may_receive(letter, topic), "{letter} receives {topic}");
        }
    }
}

/// Live: each with its own wildcards over everything, alone and as the only member of a shared
/// subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wildcards_over_everything_bring_exactly_what_the_table_allows() {
    let setup = start().await;
    let mut controller = setup.client(connect(true, "controller", "controller", "publisher")).await;
    for v5 in [false, true] {
        for is_shared in [false, true] {
            let mut receivers = Vec::new();
            for (user, password, letter) in WHO {
                let mut client = setup.client(connect(v5, user, password, "receiver")).await;
                let mut filters = Vec::new();
                for cover in COVERS {
                    let text = if is_shared { format!("$share/{letter}/{cover}") } else { cover.to_owned() };
                    if client.subscribe(&[(&text, 2)]).await[0] < 0x80 {
                        filters.push(cover.to_owned());
                    }
                }
                // The fence comes without a group, so that it comes once to each.
                client.subscribe(&[(FENCE.0, 2)]).await;
                receivers.push((client, letter, filters));
            }
            for (topic, ..) in TABLE {
                controller.publish(Message::new(topic, "live", 2)).await;
            }
            controller.publish(Message::new(FENCE.0, "end", 2)).await;
            for (mut client, letter, filters) in receivers {
                let heard = until_end(&mut client).await;
                let mut expected = receivable(letter, &filters);
                expected.insert(FENCE.0.to_owned());
                assert_eq!(heard, expected, "{letter}, shared: {is_shared}, MQTT 5: {v5}");
                client.disconnect().await;
            }
        }
    }
}

/// The topics of what comes up to the fence's second message, `end`.
async fn until_end(client: &mut Client) -> BTreeSet<String> {
    let mut topics = BTreeSet::new();
    loop {
        let message = client.message().await;
        topics.insert(message.topic.clone());
        if message.text() == "end" {
            return topics;
        }
    }
}

/// Retained: what a late subscriber is sent, and what it is sent no more once its account has lost
/// the right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_come_by_the_table_and_no_more_once_they_are_forbidden() {
    let setup = start().await;
    let mut controller = setup.client(connect(true, "controller", "controller", "publisher")).await;
    for (topic, ..) in TABLE {
        controller.publish(Message::new(topic, "kept", 1).retained()).await;
    }
    for v5 in [false, true] {
        for (user, password, letter) in WHO {
            assert_eq!(retained(&setup, v5, user, password).await, retained_by_table(letter), "{user} ({letter})");
        }
    }
    // The account loses its rules while it is connected, with its session kept: it ends, and comes
    // back as a viewer.
    let mut kept = setup.client(connect(true, "ruled", "ruled", "kept").kept()).await;
    assert_eq!(kept.subscribe(&[("#", 1), ("zigbee2mqtt/#", 1), ("$private/#", 1)]).await, [1, 1, 1]);
    let mut changed = with_ruled();
    changed.account("ruled".parse().unwrap(), Role::Viewer, hash("ruled"), vec![], vec![]);
    setup.handle().set_directory(changed);
    assert_eq!(kept.closed().await, Some(0x87));
    for v5 in [false, true] {
        assert_eq!(retained(&setup, v5, "ruled", "ruled").await, retained_by_table('v'));
    }
    let mut again = setup.client(connect(true, "ruled", "ruled", "kept").kept()).await;
    assert!(!again.present);
    assert_eq!(again.subscribe(&[("zigbee2mqtt/#", 1)]).await, [0x87]);
}

fn retained_by_table(letter: char) -> BTreeSet<String> {
    receivable(letter, &COVERS.map(str::to_owned))
}

/// What a new client is sent for every filter that is granted to it, at once.
async fn retained(setup: &Setup, v5: bool, user: &str, password: &str) -> BTreeSet<String> {
    let mut client = setup.client(connect(v5, user, password, "late")).await;
    for cover in COVERS {
        client.subscribe(&[(cover, 1)]).await;
    }
    // Retained messages come before whatever is sent later, so the answer to a ping is not enough:
    // a fence is.
    let mut controller = setup.client(connect(true, "controller", "controller", "fence")).await;
    client.subscribe(&[(FENCE.0, 1)]).await;
    controller.publish(Message::new(FENCE.0, "end", 1)).await;
    controller.disconnect().await;
    let topics = until_end(&mut client).await;
    client.send(&[0xE0, 0]).await;
    while !matches!(client.next().await, Packet::Closed) {}
    topics
}
