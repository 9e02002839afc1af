//! Every bound: who exceeds it is told, and others never notice.

use std::time::Duration;

use pistat_broker::{BrokerEvent, Limits, SlowSubscriber};

use crate::setup::{Apart, Setup, be_the_broker, eventually};
use pistat_testkit::{
    packet::{Connect, Message, Packet, packet, string},
    raw::Client,
};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

#[tokio::test]
async fn connections_are_bounded_in_total_by_account_and_by_address() {
    let setup = Setup::with_limits(limits(|l| l.bounds.connections_per_account = 2)).await;
    let (_a, _b) = (setup.v5("a").await, setup.v5("b").await);
    assert_eq!(Client::refused(setup.address, &Connect::v5("c")).await, 0x97);
    setup.client(Connect::v5("c").user("other")).await.ping().await;
    // Taking its own session over is no further connection.
    setup.v5("a").await.ping().await;

    let setup = Setup::with_limits(limits(|l| l.bounds.handshakes_per_address = 1)).await;
    let mut first = setup.v5("first").await;
    let _stranger = Client::raw(setup.address, true).await;
    eventually("the stranger is known", || setup.statistics().connections == 2).await;
    assert_eq!(Client::open(setup.address, &Connect::v5("second")).await.next().await, Packet::Closed);
    first.ping().await;

    let mut setup = Setup::with_limits(limits(|l| l.connections = 1)).await;
    let first = setup.v5("first").await;
    let mut second = Client::open(setup.address, &Connect::v5("second")).await;
    assert_eq!(second.next().await, Packet::Closed);
    setup.event(|event| matches!(event, BrokerEvent::Refused { reason, .. } if reason.contains("too many"))).await;
    first.disconnect().await;
    eventually("the place is free again", || setup.statistics().clients_connected == 0).await;
    let mut third = Client::open(setup.address, &Connect::v5("third")).await;
    while !matches!(third.next().await, Packet::ConnAck { code: 0, .. }) {
        third = Client::open(setup.address, &Connect::v5("third")).await;
    }
}

#[tokio::test]
async fn whoever_does_not_say_connect_in_time_is_closed() {
    let setup = Setup::with_limits(limits(|l| l.bounds.connect_seconds = 1)).await;
    let mut silent = Client::raw(setup.address, true).await;
    let mut slow = Client::raw(setup.address, true).await;
    slow.send(&[0x10, 40, 0, 4]).await;
    assert_eq!(silent.next().await, Packet::Closed);
    assert_eq!(slow.next().await, Packet::Closed);
}

#[tokio::test]
async fn subscriptions_topics_and_their_levels_are_bounded() {
    let setup = Setup::with_limits(limits(|l| l.bounds.subscriptions = 3)).await;
    let mut client = setup.v5("many").await;
    let filters = [("test/1", 0), ("test/2", 0), ("test/3", 0), ("test/4", 0), ("test/1", 1)];
    assert_eq!(client.subscribe(&filters).await, [0, 0, 0, 0x97, 1]);
    client.unsubscribe(&["test/2"]).await;
    assert_eq!(client.subscribe(&[("test/4", 0)]).await, [0]);
    // 1,024 bytes and 32 levels.
    let (long, deep) = (format!("test/{}", "x".repeat(1020)), format!("test{}", "/a".repeat(31)));
    let too_deep = format!("{deep}/a");
    client.unsubscribe(&["test/1", "test/3", "test/4"]).await;
    assert_eq!(client.subscribe(&[(&long, 0), (&too_deep, 0), (&deep, 0)]).await, [0x8F, 0x8F, 0]);
    assert_eq!(client.publish(Message::new(&long, "", 1)).await, 0x90);
    assert_eq!(client.publish(Message::new(&too_deep, "", 1)).await, 0x90);
    assert_eq!(client.publish(Message::new(&deep, "", 1)).await, 0);
}

#[tokio::test]
async fn the_retained_store_is_bounded_and_says_so() {
    // Of which one account has 4 messages and 1,000 bytes.
    let limits = Limits { retained_messages: 40, retained_bytes: 8000, ..Limits::default() };
    let mut setup = Setup::with_limits(limits).await;
    let mut client = setup.v311("many").await;
    let mut live = setup.v5("live").await;
    live.subscribe(&[("test/#", 1)]).await;
    for number in 0..5 {
        client.publish(Message::new(&format!("test/{number}"), "x", 1).retained()).await;
    }
    client.publish(Message::new("test/0", &"x".repeat(2000), 1).retained()).await;
    // Refused to be kept, delivered all the same; and what was there before is not true any more.
    assert_eq!(live.until_now().await.len(), 6);
    assert_eq!(setup.statistics().retained_refused, 2);
    live.unsubscribe(&["test/#"]).await;
    live.subscribe(&[("test/#", 1)]).await;
    let kept: Vec<String> = live.until_now().await.iter().map(|message| message.topic.clone()).collect();
    assert_eq!(kept, ["test/1", "test/2", "test/3"]);
    // A machine's states have their place whatever accounts keep.
    client.publish(Message::new("test/0", "fills it", 1).retained()).await;
    client.publish(Message::new("test/4", "one too many", 1).retained()).await;
    assert_eq!(live.until_now().await.len(), 2);
    assert_eq!(setup.statistics().retained_refused, 3);
    let mut agent = setup.client(Connect::v5("pi-1").user("pi-1")).await;
    for state in ["online", "offline"] {
        agent.publish(Message::new("pistat/pi-1/status", state, 1).retained()).await;
        let mut late = setup.client(Connect::v5("late").user("viewer")).await;
        late.subscribe(&[("pistat/pi-1/status", 1)]).await;
        assert_eq!(late.message().await.text(), state);
    }
    setup.event(|event| matches!(event, BrokerEvent::PublishRefused { topic, .. } if topic == "test/4")).await;
}

#[tokio::test]
async fn a_client_that_publishes_too_fast_is_slowed_down() {
    let setup = Setup::with_limits(limits(|l| l.publish_rate = 20)).await;
    let mut client = setup.v5("fast").await;
    let started = tokio::time::Instant::now();
    // 200 may come at once, the rest at 20 a second.
    for _ in 0..220 {
        client.publish(Message::new("test/x", "", 1)).await;
    }
    assert!(started.elapsed() > Duration::from_millis(800));
}

#[tokio::test]
async fn a_slow_client_loses_the_oldest_of_qos_0_and_this_is_counted() {
    let setup = Setup::with_limits(limits(|l| l.bounds.queue_bytes_qos0 = 100_000)).await;
    let mut slow = setup.v5("slow").await;
    slow.subscribe(&[("test/#", 0)]).await;
    let mut publisher = setup.v5("publisher").await;
    let count = 12_000;
    let payload = "x".repeat(1500);
    for number in 0..count {
        publisher.publish(Message::new("test/x", &format!("{number:08}{payload}"), 0)).await;
    }
    publisher.ping().await;
    publisher.until_now().await;
    let dropped = usize::try_from(setup.statistics().dropped_qos0).unwrap();
    assert!(dropped > 0);
    let received: Vec<usize> =
        slow.messages(count - dropped).await.iter().map(|m| m.text()[..8].parse().unwrap()).collect();
    assert!(received.is_sorted() && received.last() == Some(&(count - 1)));
}

#[tokio::test]
async fn a_slow_client_of_qos_1_slows_its_publishers_and_loses_nothing() {
    let setup = Setup::with_limits(limits(|l| (l.queue_bytes, l.bounds.in_flight) = (200_000, 10))).await;
    let mut slow = setup.v5("slow").await;
    slow.subscribe(&[("test/slow", 1)]).await;
    let mut publisher = setup.v5("publisher").await;
    let address = setup.address;
    let count = 3000;
    let publishing = tokio::spawn(async move {
        for number in 0..count {
            publisher.publish(Message::new("test/slow", &format!("{number:08}{}", "x".repeat(1000)), 1)).await;
        }
    });
    eventually("the publisher is held up", || setup.statistics().publishers_slowed > 0).await;
    // Others never notice.
    let mut other = Client::connect(address, &Connect::v5("other")).await;
    other.subscribe(&[("test/other", 1)]).await;
    for _ in 0..100 {
        other.publish(Message::new("test/other", "", 1)).await;
    }
    assert_eq!(other.until_now().await.len(), 100);
    assert!(!publishing.is_finished());
    for number in 0..count {
        assert_eq!(slow.message().await.text()[..8], format!("{number:08}"));
    }
    publishing.await.unwrap();
    assert_eq!(setup.statistics().sessions_ended, 0);
}

#[tokio::test]
async fn a_full_session_is_ended_where_this_is_wanted_and_where_nothing_moves() {
    for (policy, stalled_after_seconds) in [(SlowSubscriber::EndSession, 3600), (SlowSubscriber::SlowPublishers, 1)] {
        let change = |l: &mut Limits| {
            (l.queue_bytes, l.slow_subscriber, l.bounds.stalled_after_seconds) =
                (100_000, policy, stalled_after_seconds);
        };
        let mut setup = Setup::with_limits(limits(change)).await;
        let mut stuck = setup.client(Connect::v5("stuck").kept()).await;
        stuck.subscribe(&[("test/#", 1)]).await;
        stuck.acknowledges = false;
        let mut publisher = setup.v5("publisher").await;
        for _ in 0..600 {
            publisher.publish(Message::new("test/x", &"x".repeat(1000), 1)).await;
        }
        assert_eq!(stuck.closed().await, Some(0x97));
        setup.event(|event| matches!(event, BrokerEvent::SessionEnded { client_id, .. } if client_id == "stuck")).await;
        assert_eq!(setup.statistics().sessions_ended, 1);
        // It learns of its loss: the session is gone.
        assert!(!setup.client(Connect::v5("stuck").kept()).await.present);
    }
}

#[tokio::test]
async fn what_waits_for_a_client_that_is_away_is_bounded_and_never_lost_silently() {
    let mut setup = Setup::with_limits(limits(|l| l.bounds.offline_messages = 10)).await;
    for (count, is_kept) in [(10, true), (11, false)] {
        let mut client = setup.client(Connect::v5("away").kept()).await;
        client.subscribe(&[("test/#", 1)]).await;
        client.disconnect().await;
        eventually("it is away", || setup.statistics().clients_connected == 0).await;
        let mut publisher = setup.v5("publisher").await;
        for _ in 0..count {
            publisher.publish(Message::new("test/x", "", 1)).await;
        }
        publisher.until_now().await;
        publisher.disconnect().await;
        let mut client = setup.client(Connect::v5("away").kept()).await;
        assert_eq!(client.present, is_kept);
        assert_eq!(client.until_now().await.len(), if is_kept { count } else { 0 });
        client.disconnect().await;
        eventually("it is away", || setup.statistics().clients_connected == 0).await;
    }
    assert_eq!(setup.statistics().dropped_with_session, 11);
    setup.event(|event| matches!(event, BrokerEvent::SessionEnded { client_id, .. } if client_id == "away")).await;
}

#[tokio::test]
async fn sessions_without_clients_are_bounded() {
    let setup = Setup::with_limits(limits(|l| l.bounds.sessions = 2)).await;
    for number in 0..3 {
        setup.client(Connect::v5(&format!("{number}")).kept()).await.disconnect().await;
        eventually("it is away", || setup.statistics().clients_connected == 0).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (number, present) in [(0, false), (2, true)] {
        assert_eq!(setup.client(Connect::v5(&format!("{number}")).kept()).await.present, present, "{number}");
    }
}

#[tokio::test]
async fn an_account_with_too_many_sessions_loses_its_own_oldest_and_nobody_elses() {
    let setup = Setup::with_limits(limits(|l| l.bounds.sessions_per_account = 2)).await;
    let park = async |id: &str, user: &str| {
        setup.client(Connect::v5(id).kept().user(user)).await.disconnect().await;
        eventually("it is away", || setup.statistics().clients_connected == 0).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    park("first of all", "other").await;
    for number in 0..4 {
        park(&format!("{number}"), "home").await;
    }
    let mut back = Vec::new();
    for (id, user, present) in
        [("first of all", "other", true), ("2", "home", true), ("3", "home", true), ("1", "home", false)]
    {
        back.push(setup.client(Connect::v5(id).kept().user(user)).await);
        assert_eq!(back.last().unwrap().present, present, "{id}");
    }
}

#[tokio::test]
async fn too_much_for_all_who_are_away_costs_the_account_for_which_most_waits() {
    let mut setup = Setup::with_limits(limits(|l| l.offline_bytes_total = 100_000)).await;
    for (id, user, filter) in
        [("modest", "other", "test/little"), ("greedy-1", "home", "test/#"), ("greedy-2", "home", "test/much")]
    {
        let mut client = setup.client(Connect::v5(id).kept().user(user)).await;
        client.subscribe(&[(filter, 1)]).await;
        client.disconnect().await;
    }
    eventually("they are away", || setup.statistics().clients_connected == 0).await;
    let mut publisher = setup.client(Connect::v5("publisher").user("quiet")).await;
    publisher.publish(Message::new("test/little", &"x".repeat(30_000), 1)).await;
    for _ in 0..6 {
        publisher.publish(Message::new("test/much", &"x".repeat(10_000), 1)).await;
    }
    publisher.until_now().await;
    let event = setup.event(|event| matches!(event, BrokerEvent::SessionEnded { .. })).await;
    assert!(matches!(event, BrokerEvent::SessionEnded { client_id, .. } if client_id == "greedy-1"));
    for (id, user, waiting) in [("modest", "other", Some(1)), ("greedy-1", "home", None), ("greedy-2", "home", Some(6))]
    {
        let mut client = setup.client(Connect::v5(id).kept().user(user)).await;
        assert_eq!(client.present, waiting.is_some(), "{id}");
        assert_eq!(client.until_now().await.len(), waiting.unwrap_or(0), "{id}");
    }
}

/// It always takes something, so it never stands still; and whoever publishes waits for it no
/// longer than it may take to catch up.
#[tokio::test]
async fn a_client_that_takes_one_message_now_and_then_does_not_hold_publishers_up_for_ever() {
    let change = |l: &mut Limits| (l.queue_bytes, l.bounds.in_flight, l.bounds.catch_up_seconds) = (100_000, 10, 3);
    let mut setup = Setup::with_limits(limits(change)).await;
    let mut trickle = setup.client(Connect::v5("trickle").kept()).await;
    trickle.subscribe(&[("test/#", 1)]).await;
    trickle.acknowledges = false;
    let trickling = tokio::spawn(async move {
        loop {
            match trickle.next().await {
                Packet::Publish(message) => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    trickle.ack(4, message.id).await;
                }
                Packet::Disconnect { code } => return code,
                Packet::Closed => return 0,
                _ => {}
            }
        }
    });
    // The controller waits for nobody, not even until then.
    let mut controller = setup.client(Connect::v5("c").user("controller")).await;
    for _ in 0..200 {
        controller.publish(Message::new("test/x", &"x".repeat(1000), 1)).await;
    }
    assert_eq!((setup.statistics().publishers_slowed, setup.statistics().sessions_ended), (0, 0));
    let mut publisher = setup.v5("publisher").await;
    for _ in 0..600 {
        publisher.publish(Message::new("test/x", &"x".repeat(1000), 1)).await;
    }
    assert!(setup.statistics().publishers_slowed > 0);
    let ended =
        |event: &BrokerEvent| matches!(event, BrokerEvent::SessionEnded { client_id, .. } if client_id == "trickle");
    let BrokerEvent::SessionEnded { reason, .. } = setup.event(ended).await else {
        unreachable!("only this was waited for")
    };
    assert!(reason.contains("too slowly"), "{reason}");
    assert_eq!(trickling.await.unwrap(), 0x97);
}

/// One machine cannot flood the broker, however it connects, and slows down no other client.
#[tokio::test]
async fn a_machine_has_one_rate_for_all_its_connections_and_accounts_are_not_slowed_down() {
    let setup = Setup::with_limits(limits(|l| l.agent_publish_rate = 20)).await;
    let started = tokio::time::Instant::now();
    // 200 may come at once, then 20 a second: neither another client id nor coming back is a way
    // round that.
    for number in 0..4 {
        let mut flooding = setup.client(Connect::v5(&format!("{number}")).user("pi-1")).await;
        for _ in 0..60 {
            flooding.publish(Message::new("pistat/pi-1/stats", "{}", 1)).await;
        }
        flooding.disconnect().await;
    }
    assert!(started.elapsed() > Duration::from_millis(1800));
    // What it is not even allowed counts as well, as do its subscriptions.
    let mut flooding = setup.client(Connect::v5("again").user("pi-1")).await;
    for _ in 0..20 {
        assert_eq!(flooding.publish(Message::new("pistat/pi-2/stats", "{}", 1)).await, 0x87);
        flooding.subscribe(&[("pistat/pi-1/settings", 0)]).await;
    }
    assert!(started.elapsed() > Duration::from_millis(3800));
    let mut other = setup.client(Connect::v5("home")).await;
    for _ in 0..1000 {
        other.publish(Message::new("test/x", "", 1)).await;
    }
    // A handful of connections is enough for a machine, whatever the limit of accounts is.
    let mut clients = Vec::new();
    for number in 0..8 {
        clients.push(setup.client(Connect::v5(&format!("many-{number}")).user("pi-2")).await);
    }
    assert_eq!(Client::refused(setup.address, &Connect::v5("one more").user("pi-2")).await, 0x97);
}

/// What is owed is waited for before anything is read of a new connection: one that goes once it
/// has written is not a way to publish without a rate.
#[tokio::test]
async fn a_machine_that_owes_is_not_read_when_it_comes_back() {
    let setup = Setup::with_limits(limits(|l| l.agent_publish_rate = 50)).await;
    let mut watcher = setup.client(Connect::v5("watcher").user("viewer")).await;
    watcher.subscribe(&[("pistat/pi-1/stats", 0)]).await;
    let flood = async |number: usize| {
        let mut flooding = setup.client(Connect::v5(&format!("{number}")).user("pi-1")).await;
        flooding.send(&Message::new("pistat/pi-1/stats", "{}", 0).encode(true).repeat(150)).await;
        flooding.disconnect().await;
    };
    // 500 may come at once, so the fourth leaves it owing 100.
    let started = tokio::time::Instant::now();
    for number in 0..4 {
        flood(number).await;
    }
    watcher.messages(600).await;
    flood(4).await;
    watcher.messages(150).await;
    assert!(started.elapsed() > Duration::from_millis(1800));
}

/// They choose their own names, so they would take the places of all others.
#[tokio::test]
async fn peers_that_join_have_as_many_connections_together_as_an_account() {
    let setup = Setup::with_limits(limits(|l| l.bounds.connections_per_account = 10)).await;
    let joining = |number: usize| {
        let connect = Connect::v5("").user(&format!("new-{number}"));
        Connect { password: Some("join".into()), ..connect }
    };
    let mut clients = Vec::new();
    for number in 0..10 {
        clients.push(setup.client(joining(number)).await);
    }
    assert_eq!(Client::refused(setup.address, &joining(10)).await, 0x97);
    // Machines and accounts have their places, and one that goes makes room.
    setup.client(Connect::v5("").user("pi-1")).await;
    setup.v5("home").await;
    clients.pop().unwrap().disconnect().await;
    eventually("one has gone", || setup.statistics().clients_connected < 10).await;
    setup.client(joining(10)).await;
}

/// Peers that join choose their own names, so ever new names are not a way to a rate of their own.
/// With the rate of machines as it is by default, theirs is lower.
#[tokio::test]
async fn peers_that_join_have_one_rate_together_whatever_their_names() {
    let setup = Setup::start().await;
    let started = tokio::time::Instant::now();
    // 2,000 may come at once, then 200 a second.
    for number in 0..8 {
        let name = format!("new-{number}");
        let mut joining = setup.client(Connect { password: Some("join".into()), ..Connect::v5("").user(&name) }).await;
        for _ in 0..300 {
            joining.publish(Message::new(&format!("$pistat/enroll/{name}/request"), "{}", 1)).await;
        }
        joining.disconnect().await;
    }
    assert!(started.elapsed() > Duration::from_millis(1800));
}

/// A thousand sessions with a thousand subscriptions each would be a million: what one account may
/// have is bounded.
#[tokio::test]
async fn the_subscriptions_of_an_account_are_bounded_over_all_its_sessions() {
    let setup = Setup::start().await;
    let filters: Vec<(String, u8)> = (0..1000).map(|n| (format!("pistat/{}/{n}", "x".repeat(900)), 0)).collect();
    let mut clients = Vec::new();
    let mut granted = 0;
    for number in 0..9 {
        let mut client = setup.client(Connect::v5(&format!("{number}")).user("viewer")).await;
        for some in filters.chunks(100) {
            let some: Vec<(&str, u8)> = some.iter().map(|(filter, qos)| (filter.as_str(), *qos)).collect();
            let codes = client.subscribe(&some).await;
            assert!(codes.iter().all(|code| [0, 0x97].contains(code)), "{codes:?}");
            granted += codes.iter().map(|code| usize::from(*code == 0)).sum::<usize>();
        }
        // What it has already may be asked for again.
        let again = client.subscribe(&[(&filters[0].0, 1)]).await;
        assert!(number > 0 || again == [1]);
        clients.push(client);
    }
    assert!((5000..8000).contains(&granted), "{granted}");
    assert_eq!(setup.statistics().subscriptions, granted as u64);
    // Others have theirs, and what is given up makes room.
    let mut other = setup.client(Connect::v5("other").user("operator")).await;
    assert_eq!(other.subscribe(&[("pistat/#", 1)]).await, [1]);
    let mut last = clients.pop().unwrap();
    assert_eq!(last.subscribe(&[(&filters[999].0, 1)]).await, [0x97]);
    drop(clients.remove(0));
    eventually("its session has ended", || setup.statistics().subscriptions < granted as u64).await;
    assert_eq!(last.subscribe(&[(&filters[999].0, 1)]).await, [1]);
}

/// A thousand unauthenticated connections send as much of a CONNECT as they may, and never its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_unauthenticated_connections_cost_little_memory() {
    be_the_broker(Limits::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let test = "bounds::a_thousand_unauthenticated_connections_cost_little_memory";
    let broker = Apart::start(test, folder.path()).await;
    Client::connect(broker.address, &Connect::v5("warm")).await.ping().await;
    let before = broker.resident_bytes();
    // As much as is allowed, but for its last byte: 3 bytes of header, and a length of 16 kB less
    // those.
    let will = vec![b'x'; 60_000];
    let connect = packet(0x10, &[&string("MQTT"), &[4, 0x06, 0, 60], &string("c"), &string("t"), &will]);
    let part = [&[0x10, 0xFD, 0x7F], &connect[4..16 * 1024]].concat();
    let mut unauthenticated = Vec::new();
    for _ in 0..990 {
        let mut client = Client::raw(broker.address, false).await;
        client.send(&part[..part.len() - 1]).await;
        unauthenticated.push(client);
    }
    // The broker has read all of it once it answers a client that came after.
    Client::connect(broker.address, &Connect::v5("late")).await.ping().await;
    let cost = broker.resident_bytes().saturating_sub(before);
    println!("{} connections cost {cost} bytes", unauthenticated.len());
    assert!(cost > unauthenticated.len() as u64 * 4096 && cost < 80_000_000, "{cost} bytes");
    // One byte more than that, and it is closed.
    let mut client = Client::raw(broker.address, false).await;
    client.send(&[0x10, 0xFF, 0xFF, 1]).await;
    assert_eq!(client.next().await, Packet::Closed);
    broker.kill().await;
}

#[tokio::test]
async fn what_an_account_sends_in_parts_is_bounded_over_all_its_connections() {
    // As many as fit into 16 MiB, beside what each may hold in any case.
    const FIT: usize = 32;
    let setup = Setup::start().await;
    let packet = Message::new("test/x", &"x".repeat(512 * 1024), 0).encode(true);
    let (part, rest) = packet.split_at(packet.len() - 1);
    let mut clients = Vec::new();
    for number in 0..FIT {
        let mut client = setup.v5(&format!("fits-{number}")).await;
        client.send(part).await;
        clients.push(client);
    }
    let sent = u64::try_from(FIT * part.len()).unwrap();
    eventually("all parts have been read", || setup.statistics().bytes_in >= sent).await;
    for number in 0..8 {
        let mut client = setup.v5(&format!("more-{number}")).await;
        client.send(&part[..part.len() / 2]).await;
        client.send(&part[part.len() / 2..]).await;
        clients.push(client);
    }
    let mut told = Vec::new();
    for client in &mut clients[FIT + 2..] {
        told.push(client.next().await);
    }
    assert!(told.iter().all(|packet| matches!(packet, Packet::Disconnect { code: 0x97 })), "{told:?}");
    // Another account has its own, and what has begun is finished.
    let mut other = setup.client(Connect::v5("other").user("other")).await;
    for (client, bytes) in [(&mut other, part), (&mut clients[0], &[][..])] {
        client.send(bytes).await;
        client.send(rest).await;
        client.ping().await;
    }
}
