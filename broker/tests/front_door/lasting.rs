//! What outlives the broker: retained messages and wills, through stops, kills and damage.

use std::path::Path;
use std::time::Duration;

use crate::setup::{Apart, Setup, be_the_broker, eventually, with_bounds};
use pistat_broker::{BrokerEvent, Limits};
use pistat_testkit::{
    packet::{Connect, Message, Packet, Properties},
    raw::Client,
};

async fn with_state(folder: &Path) -> Setup {
    Setup::with(with_bounds(|b| b.will_grace_seconds = 1), Some(folder.to_owned())).await
}

/// As if the process had been killed: nothing is flushed, nobody is told. The file must be there
/// within a second.
async fn kill(setup: Setup) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(setup);
}

/// The real thing: a process of its own, and SIGKILL; published and read at every `QoS`, in every
/// mix.
#[tokio::test]
async fn ten_thousand_retained_messages_reach_a_new_subscriber_at_every_qos_before_and_after_a_kill() {
    be_the_broker(Limits::default()).await;
    let test = "lasting::ten_thousand_retained_messages_reach_a_new_subscriber_at_every_qos_before_and_after_a_kill";
    let folder = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let broker = Apart::start(test, folder.path()).await;
        if round == 0 {
            let mut controller = Client::connect(broker.address, &Connect::v5("c").user("controller")).await;
            for number in 0..10_000u32 {
                let qos = u8::try_from(number % 3).unwrap();
                let message = Message::new(&format!("pistat/pi-{number}/status"), &format!("{number}"), qos);
                controller.publish(message.retained()).await;
            }
            controller.ping().await;
        }
        for qos in 0..3 {
            for v5 in [false, true] {
                let mut client = Client::connect(broker.address, &Connect::of(v5, "late").user("viewer")).await;
                client.subscribe(&[("pistat/#", qos)]).await;
                let mut messages = client.messages(10_000).await;
                messages.sort_by_key(|message| message.text().parse::<u32>().unwrap());
                for (number, message) in (0..10_000u32).zip(&messages) {
                    let published = u8::try_from(number % 3).unwrap();
                    assert_eq!((message.text(), message.qos), (number.to_string(), qos.min(published)));
                    assert!(message.retain && message.topic == format!("pistat/pi-{number}/status"));
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        broker.kill().await;
    }
}

#[tokio::test]
async fn changes_properties_and_removals_survive_a_kill_and_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let setup = with_state(folder.path()).await;
    let mut client = setup.v5("c").await;
    let properties = || Properties::default().with_text(3, "text").with_pair("a", "b");
    client.publish(Message::new("test/kept", "1", 1).retained().properties(properties())).await;
    client.publish(Message::new("test/removed", "1", 1).retained()).await;
    client
        .publish(
            Message::new("test/short", "1", 1)
                .retained()
                .properties(Properties::default().with(2, &2u32.to_be_bytes())),
        )
        .await;
    client
        .publish(
            Message::new("test/long", "1", 1)
                .retained()
                .properties(Properties::default().with(2, &900u32.to_be_bytes())),
        )
        .await;
    kill(setup).await;
    let setup = with_state(folder.path()).await;
    let mut client = setup.v5("c").await;
    client.publish(Message::new("test/kept", "2", 2).retained().properties(properties())).await;
    client.publish(Message::new("test/removed", "", 1).retained()).await;
    setup.broker.shutdown().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let setup = with_state(folder.path()).await;
    let mut client = setup.v5("c").await;
    client.subscribe(&[("test/#", 2)]).await;
    let messages = client.messages(2).await;
    assert_eq!((messages[0].topic.as_str(), messages[1].topic.as_str()), ("test/kept", "test/long"));
    assert_eq!((messages[0].text(), messages[0].qos), ("2".into(), 2));
    assert_eq!(messages[0].properties, properties());
    assert!(messages[1].properties.number(2).is_some_and(|left| left < 900));
    assert_eq!(client.until_now().await, []);
}

#[tokio::test]
async fn telemetry_is_written_rarely_and_at_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let setup = with_state(folder.path()).await;
    let mut agent = setup.client(Connect::v5("pi-1").user("pi-1")).await;
    agent.publish(Message::new("pistat/pi-1/status", "online", 1).retained()).await;
    eventually("the status is on disk", || setup.statistics().state_bytes_written > 0).await;
    let before = setup.statistics().state_bytes_written;
    for number in 0..20 {
        agent.publish(Message::new("pistat/pi-1/stats", &format!("{number}"), 1).retained()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.statistics().state_bytes_written, before);
    setup.broker.shutdown().await;
    let setup = with_state(folder.path()).await;
    let mut viewer = setup.client(Connect::v5("v").user("viewer")).await;
    viewer.subscribe(&[("pistat/pi-1/stats", 0)]).await;
    assert_eq!(viewer.message().await.text(), "19");
}

#[tokio::test]
async fn after_an_unclean_stop_wills_are_published_unless_their_clients_are_back() {
    let folder = tempfile::tempdir().unwrap();
    for is_clean in [false, true] {
        let setup = with_state(folder.path()).await;
        let will = |pi: &str| Message::new(&format!("pistat/{pi}/status"), "offline", 1).retained();
        let connect = |pi: &str| Connect::v5(pi).user(pi).will(will(pi));
        let mut agents = Vec::new();
        for pi in ["pi-1", "pi-2"] {
            let mut agent = setup.client(connect(pi)).await;
            agent.publish(Message::new(&format!("pistat/{pi}/status"), "online", 1).retained()).await;
            agents.push(agent);
        }
        // A client that said goodbye has taken its will along.
        let polite = Connect::v5("polite").user("controller").will(Message::new("test/polite", "gone", 1).retained());
        setup.client(polite).await.disconnect().await;
        if is_clean {
            setup.broker.shutdown().await;
        } else {
            kill(setup).await;
        }
        let setup = with_state(folder.path()).await;
        let mut watcher = setup.client(Connect::v5("w").user("controller")).await;
        let _back = setup.client(connect("pi-1")).await;
        watcher.subscribe(&[("pistat/+/status", 1), ("test/#", 1)]).await;
        let start: Vec<String> =
            watcher.messages(2).await.iter().map(|m| format!("{} {}", m.topic, m.text())).collect();
        assert_eq!(start, ["pistat/pi-1/status online", "pistat/pi-2/status online"]);
        let message = watcher.message().await;
        assert_eq!((message.topic.as_str(), message.text()), ("pistat/pi-2/status", "offline".into()));
        assert_eq!(watcher.until_now().await, []);
        setup.broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_damaged_file_never_stops_the_start_and_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("retained.log"), b"this is something else").unwrap();
    let mut setup = with_state(folder.path()).await;
    let event = setup.event(|event| matches!(event, BrokerEvent::StateDamaged { .. })).await;
    let BrokerEvent::StateDamaged { kept, .. } = event else { unreachable!("only this event was waited for") };
    assert_eq!(std::fs::read(kept).unwrap(), b"this is something else");
    setup.v5("c").await.ping().await;
}

fn kept(v5: bool, id: &str) -> Connect {
    Connect::of(v5, id).kept()
}

async fn away(setup: &Setup) {
    eventually("everybody is away", || setup.statistics().clients_connected == 0).await;
}

#[tokio::test]
async fn sessions_and_what_waits_for_them_come_back_after_a_kill_and_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    for v5 in [false, true] {
        for is_clean in [false, true] {
            let setup = with_state(folder.path()).await;
            let client = setup.client(Connect { clean: true, ..kept(v5, "sleeper") }).await;
            client.disconnect().await;
            let mut client = setup.client(kept(v5, "sleeper")).await;
            assert_eq!(client.subscribe(&[("test/a/#", 2), ("test/b", 1), ("test/gone", 1)]).await, [2, 1, 1]);
            client.unsubscribe(&["test/gone"]).await;
            client.disconnect().await;
            away(&setup).await;
            let mut publisher = setup.v5("publisher").await;
            let properties = || Properties::default().with_text(3, "text").with_pair("a", "b");
            publisher.publish(Message::new("test/a/1", "first", 2).properties(properties())).await;
            publisher.publish(Message::new("test/b", "second", 1)).await;
            publisher.publish(Message::new("test/a/2", "not kept", 0)).await;
            publisher.publish(Message::new("test/gone", "not wanted", 1)).await;
            let short = Properties::default().with(2, &1u32.to_be_bytes());
            publisher.publish(Message::new("test/b", "expires meanwhile", 1).properties(short)).await;
            publisher.disconnect().await;
            if is_clean {
                setup.broker.shutdown().await;
            } else {
                kill(setup).await;
            }
            tokio::time::sleep(Duration::from_millis(1100)).await;

            let setup = with_state(folder.path()).await;
            eventually("its subscriptions are back", || setup.statistics().subscriptions == 2).await;
            let mut publisher = setup.v5("publisher").await;
            publisher.publish(Message::new("test/b", "third", 1)).await;
            let mut client = setup.client(kept(v5, "sleeper")).await;
            assert!(client.present, "MQTT 5: {v5}, clean: {is_clean}");
            let messages = client.messages(3).await;
            let texts: Vec<String> = messages.iter().map(Message::text).collect();
            assert_eq!(texts, ["first", "second", "third"]);
            assert_eq!((messages[0].qos, messages[1].qos), (2, 1));
            assert!(!v5 || messages[0].properties == properties());
            assert_eq!(client.until_now().await, []);
            // What was taken does not come again, and a clean start leaves nothing behind.
            client.disconnect().await;
            away_but(&setup, 1).await;
            kill(setup).await;
            let setup = with_state(folder.path()).await;
            let mut client = setup.client(kept(v5, "sleeper")).await;
            assert!(client.present);
            assert_eq!(client.until_now().await, []);
            client.disconnect().await;
            away(&setup).await;
            let clean = Connect { clean: true, ..Connect::of(v5, "sleeper") };
            setup.client(clean).await.disconnect().await;
            away(&setup).await;
            kill(setup).await;
            let setup = with_state(folder.path()).await;
            assert!(!setup.client(kept(v5, "sleeper")).await.present);
            setup.broker.shutdown().await;
        }
    }
}

async fn away_but(setup: &Setup, count: u64) {
    eventually("it is away", || setup.statistics().clients_connected == count).await;
}

#[tokio::test]
async fn what_was_under_way_to_a_client_is_kept_when_the_broker_stops() {
    let folder = tempfile::tempdir().unwrap();
    let setup = with_state(folder.path()).await;
    let mut client = setup.client(kept(true, "busy").property(33, &2u16.to_be_bytes())).await;
    client.subscribe(&[("test/#", 1)]).await;
    client.acknowledges = false;
    let mut publisher = setup.v5("publisher").await;
    for number in 0..5 {
        publisher.publish(Message::new("test/x", &format!("{number}"), 1)).await;
    }
    // Two fill its window, three wait.
    assert_eq!(client.messages(2).await.len(), 2);
    setup.broker.shutdown().await;
    let setup = with_state(folder.path()).await;
    let mut client = setup.client(kept(true, "busy")).await;
    assert!(client.present);
    let texts: Vec<String> = client.messages(5).await.iter().map(Message::text).collect();
    assert_eq!(texts, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_session_does_not_come_back_without_its_credential_or_after_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let setup = with_state(folder.path()).await;
    let short = Connect { clean: false, ..Connect::v5("short") }.property(17, &1u32.to_be_bytes());
    for connect in [kept(true, "rotated").user("other"), short.clone(), kept(true, "stays")] {
        let mut client = setup.client(connect).await;
        client.subscribe(&[("test/#", 1)]).await;
        client.disconnect().await;
    }
    away(&setup).await;
    kill(setup).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let config = pistat_broker::BrokerConfig { listen, state: Some(folder.path().to_owned()), ..Default::default() };
    let mut changed = crate::setup::directory();
    changed.account(
        "other".parse().unwrap(),
        pistat_protocol::account::Role::Viewer,
        crate::setup::hash("new"),
        vec![],
        vec![],
    );
    let (broker, _events) = pistat_broker::Broker::start(config, changed).await.unwrap();
    let address = broker.addresses().mqtt.unwrap();
    assert_eq!(broker.handle().statistics().subscriptions, 1);
    assert!(!Client::connect(address, &short).await.present);
    assert!(Client::connect(address, &kept(true, "stays")).await.present);
    broker.shutdown().await;
}

/// The real thing: a process of its own, SIGKILL at any moment, and every message that was
/// published before the last second is there.
#[tokio::test]
async fn sessions_survive_sigkill() {
    be_the_broker(Limits::default()).await;
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let broker = Apart::start("lasting::sessions_survive_sigkill", folder.path()).await;
        let mut client = Client::connect(broker.address, &kept(round % 2 == 0, "sleeper")).await;
        assert_eq!(client.present, round > 0);
        if round == 0 {
            client.subscribe(&[("test/#", 2)]).await;
        } else {
            let numbers: Vec<String> = client.messages(300).await.iter().map(Message::text).collect();
            assert!(numbers.iter().enumerate().all(|(number, text)| *text == format!("{} {number}", round - 1)));
        }
        client.disconnect().await;
        let mut publisher = Client::connect(broker.address, &Connect::v5("publisher")).await;
        for number in 0..300 {
            publisher.publish(Message::new("test/x", &format!("{round} {number}"), 2)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        broker.kill().await;
    }
}

/// The real thing: a process of its own, and SIGKILL.
#[tokio::test]
async fn retained_messages_survive_sigkill() {
    be_the_broker(Limits::default()).await;
    let folder = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let broker = Apart::start("lasting::retained_messages_survive_sigkill", folder.path()).await;
        let mut client = Client::connect(broker.address, &Connect::v5("c")).await;
        client.subscribe(&[("test/#", 1)]).await;
        if round == 0 {
            for number in 0..500 {
                client.publish(Message::new(&format!("test/{number}"), &format!("{number}"), 1).retained()).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        } else {
            assert_eq!(client.messages(500).await.iter().filter(|m| m.retain).count(), 500);
        }
        broker.kill().await;
    }
}

/// A full disk takes half of a message. What was written before stays, and what comes later is
/// there as soon as there is room.
#[tokio::test]
async fn a_full_disk_costs_nothing_that_was_written_and_nothing_that_comes_later() {
    be_the_broker(Limits::default()).await;
    let test = "lasting::a_full_disk_costs_nothing_that_was_written_and_nothing_that_comes_later";
    let folder = tempfile::tempdir().unwrap();
    let holds = |text: &str| {
        let bytes = std::fs::read(folder.path().join("retained.log")).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    for has_room_again in [false, true] {
        let broker = Apart::start_on_a_small_disk(64 * 1024, test, folder.path()).await;
        let mut client = Client::connect(broker.address, &Connect::v5("c")).await;
        client.publish(Message::new("test/before", "was there before", 1).retained()).await;
        eventually("what fits is on the disk", || holds("was there before")).await;
        let large = noise(100_000);
        client.publish(Message::new("test/large", &large, 1).retained()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!holds(&large[..20]), "half a message is not left");
        client.publish(Message::new("test/later", "came later", 1).retained()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!folder.path().join("retained.new").exists(), "half a file takes no room");
        if has_room_again {
            broker.make_room().await;
            eventually("everything is on the disk", || holds(&large) && holds("came later")).await;
            client.publish(Message::new("test/last", "came last", 1).retained()).await;
            eventually("what comes later is, too", || holds("came last")).await;
        }
        broker.kill().await;
        let setup = with_state(folder.path()).await;
        let mut client = setup.v5("c").await;
        client.subscribe(&[("test/#", 1)]).await;
        let kept: Vec<String> = client.until_now().await.iter().map(|message| message.topic.clone()).collect();
        let all = ["test/before", "test/large", "test/last", "test/later"];
        assert_eq!(kept, if has_room_again { &all[..] } else { &all[..1] });
        client.publish(Message::new("test/before", "", 1).retained()).await;
        setup.broker.shutdown().await;
    }
}

/// Letters that cannot be packed: numbers of a linear congruential generator (Numerical Recipes'
/// constants).
fn noise(length: usize) -> String {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 24) as u8 % 26)
    };
    (0..length).map(|_| next()).collect()
}

/// Each subscription of a session with hundreds must not write all of them.
#[tokio::test]
async fn a_session_is_written_once_however_often_it_subscribes() {
    let folder = tempfile::tempdir().unwrap();
    let setup = with_state(folder.path()).await;
    let mut client = setup.client(kept(true, "many")).await;
    let filters: Vec<String> = (0..900).map(|number| format!("test/{number}/{}", "x".repeat(100))).collect();
    for filter in &filters {
        assert_eq!(client.subscribe(&[(filter, 1)]).await, [1]);
    }
    client.disconnect().await;
    away(&setup).await;
    setup.broker.shutdown().await;
    let setup = with_state(folder.path()).await;
    assert_eq!(setup.statistics().subscriptions, 900);
    let mut client = setup.client(kept(true, "many")).await;
    assert!(client.present);
    // Nothing new, and something new again and again: a few batches, not a thousand copies.
    for filter in &filters {
        client.subscribe(&[(filter, 1)]).await;
    }
    for number in 0..900u32 {
        client.subscribe(&[(&filters[0], u8::try_from(number % 3).unwrap())]).await;
    }
    let handle = setup.handle();
    setup.broker.shutdown().await;
    let written = handle.statistics().state_bytes_written;
    assert!(written < 50_000_000, "{written} bytes for some batches of 100 kB");
}

/// Every step of an exchange of `QoS` 2, either way, with the broker gone and back in the middle.
#[tokio::test]
async fn what_is_sent_exactly_once_comes_once_across_a_restart() {
    for is_clean in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let setup = with_state(folder.path()).await;
        let mut client = setup.client(kept(true, "exact")).await;
        client.subscribe(&[("test/to", 2)]).await;
        client.acknowledges = false;
        let mut publisher = setup.v5("publisher").await;
        for text in ["unanswered", "received"] {
            publisher.publish(Message::new("test/to", text, 2)).await;
        }
        let first = client.messages(2).await;
        client.ack(5, first[1].id).await;
        assert_eq!(client.next().await, Packet::Ack { kind: 6, id: first[1].id, code: 0 });
        let from = Message { id: 7, ..Message::new("test/from", "once", 2) };
        client.send(&from.encode(true)).await;
        client.expect_ack(5, 7).await;
        let mut watcher = setup.client(kept(true, "watcher")).await;
        watcher.subscribe(&[("test/from", 1)]).await;
        watcher.disconnect().await;
        drop(client);
        away_but(&setup, 1).await;
        if is_clean {
            setup.broker.shutdown().await;
        } else {
            kill(setup).await;
        }

        let setup = with_state(folder.path()).await;
        let mut client = setup.client(kept(true, "exact")).await;
        assert!(client.present, "clean: {is_clean}");
        client.acknowledges = false;
        assert_eq!(client.next().await, Packet::Ack { kind: 6, id: first[1].id, code: 0 });
        let again = client.message().await;
        assert_eq!((again.dup, again.id, again.text()), (true, first[0].id, "unanswered".into()));
        client.ack(7, first[1].id).await;
        client.ack(5, again.id).await;
        assert_eq!(client.next().await, Packet::Ack { kind: 6, id: again.id, code: 0 });
        client.ack(7, again.id).await;
        client.send(&Message { dup: true, ..from }.encode(true)).await;
        client.expect_ack(5, 7).await;
        client.ack(6, 7).await;
        assert_eq!(client.expect_ack(7, 7).await, 0);
        let mut watcher = setup.client(kept(true, "watcher")).await;
        assert!(watcher.present);
        assert_eq!(watcher.until_now().await, [], "it was published before anybody watched");
        setup.broker.shutdown().await;
    }
}

/// What was under way when the broker was killed is known to nobody: the client must not take a
/// second message for the first.
#[tokio::test]
async fn a_session_that_a_kill_has_caught_in_an_exchange_of_qos_2_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let setup = with_state(folder.path()).await;
    let mut clients = Vec::new();
    for (id, qos) in [("sends", 1), ("receives", 2), ("neither", 1)] {
        let mut client = setup.client(kept(true, id)).await;
        client.subscribe(&[(&format!("test/{id}"), qos)]).await;
        client.acknowledges = false;
        clients.push(client);
    }
    let id = clients[0].id();
    clients[0].send(&Message { id, ..Message::new("test/receives", "once", 2) }.encode(true)).await;
    clients[0].expect_ack(5, id).await;
    assert_eq!(clients[1].message().await.qos, 2);
    clients[2].publish(Message::new("test/x", "as often as it likes", 1)).await;
    kill(setup).await;
    let setup = with_state(folder.path()).await;
    for (id, present) in [("sends", false), ("receives", false), ("neither", true)] {
        assert_eq!(setup.client(kept(true, id)).await.present, present, "{id}");
    }
}

/// However it meets the stop: a client that comes back in that moment finds its session at the next
/// start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_while_the_broker_stops_does_not_lose_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let setup = with_state(folder.path()).await;
    let mut client = setup.client(kept(true, "back")).await;
    client.subscribe(&[("test/#", 1)]).await;
    client.disconnect().await;
    away(&setup).await;
    setup.v5("publisher").await.publish(Message::new("test/x", "waits", 1)).await;
    setup.broker.shutdown().await;
    for _ in 0..10 {
        let setup = with_state(folder.path()).await;
        let comes = Client::open(setup.address, &kept(true, "back")).await;
        setup.broker.shutdown().await;
        drop(comes);
    }
    let setup = with_state(folder.path()).await;
    let mut client = setup.client(kept(true, "back")).await;
    assert!(client.present);
    assert_eq!(client.message().await.text(), "waits");
}

/// MQTT 5, section 3.1.3.2.2: a restart does not shorten a will's delay, neither that of a client
/// which was connected nor that of one which had gone before.
#[tokio::test]
async fn a_restart_of_either_kind_does_not_shorten_a_wills_delay() {
    const NAME: &str = "lasting::a_restart_of_either_kind_does_not_shorten_a_wills_delay";
    let limits = || with_bounds(|b| b.will_grace_seconds = 1);
    be_the_broker(limits()).await;
    let connect = |id: &str, delay: u32, expiry: u32| {
        let properties = Properties::default().with(24, &delay.to_be_bytes());
        let will = Message::new("TopicA/will", id, 1).properties(properties);
        Connect { clean: false, ..Connect::v5(id) }.property(17, &expiry.to_be_bytes()).will(will)
    };
    for is_killed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let long = 100_000;
        // Who is there when it ends, who has gone before, and those whose wills are due soon after
        // the start.
        let all = [
            ("present", long, long),
            ("gone", long, long),
            ("at once", 0, long),
            ("with its session", long, 3),
            ("without a session", long, 0),
            ("two seconds", 2, long),
        ];
        let open = async |address| {
            let mut clients = Vec::new();
            for (id, delay, expiry) in all {
                clients.push(Client::connect(address, &connect(id, delay, expiry)).await);
            }
            drop(clients.remove(1));
            clients
        };
        if is_killed {
            let broker = Apart::start(NAME, folder.path()).await;
            let clients = open(broker.address).await;
            // Everything is on disk within a second.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            broker.kill().await;
            drop(clients);
        } else {
            let setup = Setup::with(limits(), Some(folder.path().to_owned())).await;
            let clients = open(setup.address).await;
            eventually("one is gone", || setup.statistics().clients_connected == 5).await;
            setup.broker.shutdown().await;
            drop(clients);
        }
        let setup = Setup::with(limits(), Some(folder.path().to_owned())).await;
        let mut watcher = setup.v5("watcher").await;
        watcher.subscribe(&[("TopicA/will", 1)]).await;
        let mut texts: Vec<String> = watcher.messages(4).await.iter().map(Message::text).collect();
        texts.sort();
        assert_eq!(texts, ["at once", "two seconds", "with its session", "without a session"], "killed: {is_killed}");
        // Back in time: its will is its own again, and another restart changes nothing of the
        // other's.
        let back = setup.client(connect("present", long, long)).await;
        assert!(back.present);
        back.disconnect().await;
        setup.broker.shutdown().await;
        let setup = Setup::with(limits(), Some(folder.path().to_owned())).await;
        let mut watcher = setup.v5("watcher").await;
        watcher.subscribe(&[("TopicA/will", 1)]).await;
        // The session of the other ends, and its will with it.
        assert!(!setup.client(Connect::v5("gone")).await.present);
        assert_eq!(watcher.message().await.text(), "gone");
        assert_eq!(watcher.until_now().await, []);
    }
}

/// MQTT 5, section 3.1.3.2.2: a will is due after its delay or with its session's end, whichever is
/// first. The time that clients are given to return after a kill keeps back only the wills of
/// clients that were connected and may still return.
#[tokio::test]
async fn the_time_to_return_keeps_no_will_back_whose_client_had_gone_or_whose_session_ends() {
    let limits = || with_bounds(|b| b.will_grace_seconds = 3600);
    let connect = |id: &str, delay: u32, expiry: u32| {
        let properties = Properties::default().with(24, &delay.to_be_bytes());
        let will = Message::new("TopicA/will", id, 1).properties(properties);
        Connect { clean: false, ..Connect::v5(id) }.property(17, &expiry.to_be_bytes()).will(will)
    };
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::with(limits(), Some(folder.path().to_owned())).await;
    let gone = setup.client(connect("gone", 8, 3600)).await;
    let ends = setup.client(connect("its session ends", 0, 5)).await;
    let may_return = setup.client(connect("may return", 0, 3600)).await;
    drop(gone);
    eventually("one is gone", || setup.statistics().clients_connected == 2).await;
    kill(setup).await;
    drop((ends, may_return));
    let setup = Setup::with(limits(), Some(folder.path().to_owned())).await;
    let mut watcher = setup.v5("watcher").await;
    watcher.subscribe(&[("TopicA/will", 1)]).await;
    let mut texts: Vec<String> = watcher.messages(2).await.iter().map(Message::text).collect();
    texts.sort();
    assert_eq!(texts, ["gone", "its session ends"]);
    assert_eq!(watcher.until_now().await, []);
}
