//! Sessions: takeover, wills and reconnects, accounts that share a client id, shutdown, any byte
//! stream as a connection.

use std::time::Duration;

use pistat_broker::{Broker, BrokerConfig, BrokerEvent, Limits, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::setup::{Setup, directory, eventually, with_bounds};
use pistat_testkit::{
    packet::{Connect, Message, Packet, Properties, packet, string},
    raw::Client,
};

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let mut setup = Setup::start().await;
    for v5 in [false, true] {
        let mut first = setup.client(Connect::of(v5, "same").kept()).await;
        first.subscribe(&[("test/#", 1)]).await;
        first.acknowledges = false;
        first.publish(Message::new("test/x", "unfinished", 1)).await;
        let unfinished = first.message().await;
        let mut second = setup.client(Connect::of(v5, "same").kept()).await;
        assert!(second.present);
        assert_eq!(first.closed().await, v5.then_some(0x8E));
        let again = second.message().await;
        assert_eq!((again.dup, again.id, again.text()), (true, unfinished.id, "unfinished".into()));
        second.ping().await;
        // A clean start forgets it all.
        let mut third = setup.client(Connect::of(v5, "same")).await;
        assert!(!third.present);
        assert_eq!(third.until_now().await, []);
        third.disconnect().await;
    }
    assert_eq!(setup.statistics().takeovers, 4);
    setup.event(|event| matches!(event, BrokerEvent::TakenOver { client_id, .. } if client_id == "same")).await;
}

#[tokio::test]
async fn a_machine_that_comes_back_before_its_old_connection_ends_is_online_at_last() {
    let setup = Setup::start().await;
    let mut watcher = setup.client(Connect::v5("w").user("viewer")).await;
    watcher.subscribe(&[("pistat/pi-1/status", 1)]).await;
    let connect = Connect::v5("pi-1").user("pi-1").will(Message::new("pistat/pi-1/status", "offline", 1).retained());
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut agent = setup.client(connect.clone()).await;
        agent.publish(Message::new("pistat/pi-1/status", "online", 1).retained()).await;
        clients.push(agent);
    }
    let mut seen = Vec::new();
    for _ in 0..9 {
        seen.push(watcher.message().await.text());
    }
    let expected = ["online", "offline", "online", "offline", "online", "offline", "online", "offline", "online"];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_will_with_a_delay_survives_a_takeover_unless_the_session_ends() {
    let setup = Setup::start().await;
    let mut watcher = setup.v5("watcher").await;
    watcher.subscribe(&[("test/will", 1)]).await;
    let will = || Message::new("test/will", "gone", 1).properties(Properties::default().with(24, &60u32.to_be_bytes()));
    let _first = setup.client(Connect::v5("same").kept().will(will())).await;
    let second = setup.client(Connect::v5("same").kept().will(will())).await;
    assert_eq!(watcher.until_now().await, []);
    // Away, with the will waiting; then a clean start ends the session, so the will is due.
    drop(second);
    eventually("the client is away", || setup.statistics().clients_connected == 1).await;
    let _third = setup.client(Connect::v5("same")).await;
    assert_eq!(watcher.message().await.text(), "gone");
}

#[tokio::test]
async fn only_a_goodbye_without_a_complaint_takes_the_will_along() {
    let setup = Setup::start().await;
    let mut watcher = setup.v5("watcher").await;
    watcher.subscribe(&[("test/will", 1)]).await;
    for reason in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        let mut client = setup.client(Connect::v5("leaving").will(Message::new("test/will", "gone", 1))).await;
        client.send(&packet(0xE0, &[&[reason]])).await;
        eventually("it has gone", || setup.statistics().clients_connected == 1).await;
        assert_eq!(watcher.until_now().await.len(), usize::from(reason != 0), "reason 0x{reason:02X}");
    }
}

#[tokio::test]
async fn the_same_client_id_under_another_account_is_another_session() {
    let setup = Setup::start().await;
    let mut home = setup.client(Connect::v5("same").kept()).await;
    let mut other = setup.client(Connect::v5("same").kept().user("other")).await;
    home.ping().await;
    other.ping().await;
    // Account names are compared without case.
    let shouted = Connect { user: Some("HOME".into()), ..Connect::v5("same").kept() };
    let again = setup.client(shouted).await;
    assert!(again.present);
    assert_eq!(home.closed().await, Some(0x8E));
    other.ping().await;
}

#[tokio::test]
async fn no_reply_ever_comes_twice_for_a_qos_2_message_that_is_repeated() {
    let setup = Setup::start().await;
    let mut subscriber = setup.v5("s").await;
    subscriber.subscribe(&[("test/#", 2)]).await;
    let mut client = setup.client(Connect::v5("twice").kept()).await;
    let message = Message { id: 7, ..Message::new("test/x", "once", 2) };
    client.send(&message.encode(true)).await;
    client.expect_ack(5, 7).await;
    client.send(&Message { dup: true, ..message.clone() }.encode(true)).await;
    client.expect_ack(5, 7).await;
    drop(client);
    let mut client = setup.client(Connect::v5("twice").kept()).await;
    assert!(client.present);
    client.send(&Message { dup: true, ..message.clone() }.encode(true)).await;
    client.expect_ack(5, 7).await;
    client.ack(6, 7).await;
    assert_eq!(client.expect_ack(7, 7).await, 0);
    client.ack(6, 7).await;
    assert_eq!(client.expect_ack(7, 7).await, 0x92);
    assert_eq!(subscriber.until_now().await.len(), 1);
}

#[tokio::test]
async fn a_message_that_has_become_too_large_for_its_client_does_not_stay_under_way() {
    let setup = Setup::start().await;
    let small = || Connect::v5("small").kept().property(33, &2u16.to_be_bytes());
    let mut client = setup.client(small()).await;
    client.subscribe(&[("test/#", 2)]).await;
    client.acknowledges = false;
    for (text, qos) in [("x".repeat(500), 1), ("y".repeat(500), 2), ("short".to_owned(), 1)] {
        client.publish(Message::new("test/x", &text, qos)).await;
    }
    assert_eq!(client.messages(2).await.len(), 2);
    drop(client);
    // Both places of its window are free again.
    let mut client = setup.client(small().property(39, &100u32.to_be_bytes())).await;
    assert!(client.present);
    assert_eq!(client.message().await.text(), "short");
    assert_eq!(client.until_now().await, []);
    assert_eq!(setup.statistics().dropped_too_large, 2);
}

#[tokio::test]
async fn a_repeated_message_may_give_its_topic_a_number() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v5("alias").kept()).await;
    let aliased = |topic: &str, id: u16, dup: bool| {
        let properties = Properties::default().with(35, &1u16.to_be_bytes());
        Message { dup, id, ..Message::new(topic, "x", 2) }.properties(properties)
    };
    client.send(&aliased("test/x", 7, false).encode(true)).await;
    client.expect_ack(5, 7).await;
    drop(client);
    let mut client = setup.client(Connect::v5("alias").kept()).await;
    client.subscribe(&[("test/x", 0)]).await;
    client.send(&aliased("test/x", 7, true).encode(true)).await;
    client.expect_ack(5, 7).await;
    client.send(&aliased("", 8, false).encode(true)).await;
    client.expect_ack(5, 8).await;
    assert_eq!(client.message().await.topic, "test/x");
    // Numbers are of one connection: the next has none yet.
    drop(client);
    let mut client = setup.client(Connect::v5("alias").kept()).await;
    client.send(&aliased("", 9, false).encode(true)).await;
    assert_eq!(client.closed().await, Some(0x82));
}

#[tokio::test]
async fn acknowledgements_may_come_in_any_order_and_unknown_ones_do_no_harm() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v311("order").kept()).await;
    client.subscribe(&[("test/#", 2)]).await;
    client.acknowledges = false;
    for number in 0..6 {
        client.publish(Message::new("test/x", &format!("{number}"), 1 + number % 2)).await;
    }
    let mut messages = client.messages(6).await;
    messages.reverse();
    for message in &messages {
        client.ack(if message.qos == 1 { 4 } else { 5 }, message.id).await;
        client.ack(4, 999).await;
        client.ack(7, message.id.wrapping_add(500)).await;
    }
    for message in messages.iter().filter(|m| m.qos == 2) {
        assert_eq!(client.next().await, pistat_testkit::packet::Packet::Ack { kind: 6, id: message.id, code: 0 });
        client.ack(7, message.id).await;
    }
    client.disconnect().await;
    let mut client = setup.client(Connect::v311("order").kept()).await;
    assert!(client.present);
    assert_eq!(client.until_now().await, []);
}

#[tokio::test]
async fn a_stop_is_told_and_nobody_is_left_behind() {
    let setup = Setup::start().await;
    let mut new = setup.v5("new").await;
    let mut old = setup.v311("old").await;
    let mut silent = Client::raw(setup.address, true).await;
    tokio::time::timeout(Duration::from_secs(5), setup.broker.shutdown()).await.expect("it stops in time");
    assert_eq!(new.closed().await, Some(0x8B));
    assert_eq!(old.closed().await, None);
    assert_eq!(silent.closed().await, None);
    assert!(tokio::net::TcpStream::connect(setup.address).await.is_err());
}

#[tokio::test]
async fn a_client_need_not_wait_for_the_answer_to_connect() {
    let setup = Setup::start().await;
    for v5 in [false, true] {
        let mut client = Client::raw(setup.address, v5).await;
        let options: &[&[u8]] =
            if v5 { &[&[0, 1, 0], &string("test/#"), &[0]] } else { &[&[0, 1], &string("test/#"), &[0]] };
        let all = [
            Connect::of(v5, "hasty").encode(),
            packet(0x82, options),
            Message::new("test/x", "at once", 0).encode(v5),
            vec![0xC0, 0],
        ];
        client.send(&all.concat()).await;
        assert!(matches!(client.next().await, Packet::ConnAck { code: 0, .. }));
        assert_eq!(client.next().await, Packet::SubAck { id: 1, codes: vec![0] });
        let (one, other) = (client.next().await, client.next().await);
        let is_message = |packet: &Packet| matches!(packet, Packet::Publish(message) if message.text() == "at once");
        assert!(
            [&one, &other].into_iter().any(is_message) && [&one, &other].contains(&&Packet::Pong),
            "{one:?} {other:?}"
        );
    }
}

#[tokio::test]
async fn any_byte_stream_is_a_connection() {
    let setup = Setup::start().await;
    let (mut ours, theirs) = tokio::io::duplex(64);
    let (let_in, is_let_in) = tokio::sync::oneshot::channel();
    setup.handle().serve(theirs, "192.0.2.1:1".parse().unwrap(), || {
        let _ = let_in.send(());
    });
    ours.write_all(&Connect::v311("duplex").encode()).await.unwrap();
    let mut connack = [0; 4];
    ours.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    is_let_in.await.expect("whoever gave the stream is told");
    // Byte by byte, as a slow link brings it.
    let subscribe = packet(0x82, &[&[0, 1], &string("test/#"), &[0]]);
    for byte in subscribe.iter().chain(&packet(0x30, &[&string("test/x"), b"payload"])) {
        ours.write_all(&[*byte]).await.unwrap();
    }
    let mut rest = [0; 5 + 17];
    ours.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest[..5], [0x90, 3, 0, 1, 0]);
    assert!(rest.ends_with(b"payload"));
}

/// Nothing is read while so much waits to be sent; so its pings wait, too.
#[tokio::test]
async fn a_slow_link_is_not_cut_while_it_takes_what_it_is_sent_and_a_dead_one_is() {
    let setup = Setup::start().await;
    for is_alive in [true, false] {
        let (mut ours, theirs) = tokio::io::duplex(1024);
        setup.handle().serve(theirs, "192.0.2.1:1".parse().unwrap(), || ());
        ours.write_all(&Connect::v311("slow").keep_alive(1).encode()).await.unwrap();
        ours.write_all(&packet(0x82, &[&[0, 1], &string("test/#"), &[0]])).await.unwrap();
        let mut answers = [0; 4 + 5];
        ours.read_exact(&mut answers).await.unwrap();
        let mut publisher = setup.v5("publisher").await;
        publisher.publish(Message::new("test/x", &"x".repeat(400_000), 0)).await;
        publisher.ping().await;
        let mut taken = 0;
        let mut some = [0; 1024];
        for number in 0..40 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if is_alive {
                taken += ours.read(&mut some).await.unwrap();
            }
            if number % 10 == 0 {
                ours.write_all(&[0xC0, 0]).await.unwrap_or_default();
            }
        }
        let mut rest = Vec::new();
        if is_alive {
            rest = vec![0; 1 + 3 + 8 + 400_000 - taken + 2];
            ours.read_exact(&mut rest).await.unwrap();
            assert!(rest.ends_with(&[0xD0, 0]), "its ping is answered");
        } else {
            ours.read_to_end(&mut rest).await.unwrap();
            assert!(rest.len() < 400_000, "{} bytes of a message that nobody took", rest.len());
        }
    }
}

#[tokio::test]
async fn whoever_goes_before_the_answer_to_connect_leaves_the_session_as_it_was() {
    let setup = Setup::start().await;
    for v5 in [false, true] {
        let connect = || Connect::of(v5, "hasty").kept();
        let mut client = setup.client(connect()).await;
        client.subscribe(&[("test/#", 1)]).await;
        client.disconnect().await;
        let mut publisher = setup.client(Connect::v5("publisher").user("quiet")).await;
        publisher.publish(Message::new("test/x", "waits", 1)).await;
        for _ in 0..50 {
            // Gone again in the moment in which it has asked.
            drop(Client::open(setup.address, &connect()).await);
        }
        eventually("nobody is here", || setup.statistics().clients_connected == 1).await;
        let mut client = setup.client(connect()).await;
        assert!(client.present);
        assert_eq!(client.message().await.text(), "waits");
        client.disconnect().await;
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_what_to_do() {
    let setup = Setup::start().await;
    let config = BrokerConfig { listen: Some(setup.address), ..BrokerConfig::default() };
    let error = Broker::start(config, directory()).await.err().unwrap();
    assert!(matches!(error, StartError::Listen { address, .. } if address == setup.address));
    let sentence = error.to_string();
    assert!(sentence.contains(&setup.address.to_string()) && sentence.contains("choose another port"), "{sentence}");
}

#[tokio::test]
async fn limits_come_from_a_file_and_unknown_ones_are_refused() {
    let limits: Limits = toml::from_str("packet_bytes = 100\nslow_subscriber = \"end-session\"").unwrap();
    assert_eq!(limits.packet_bytes, 100);
    assert_eq!(limits.queue_bytes, Limits::default().queue_bytes);
    assert!(toml::from_str::<Limits>("packet_byte = 100").is_err());
}

#[tokio::test]
async fn statistics_are_published_under_the_usual_names() {
    let limits = with_bounds(|b| b.sys_interval_seconds = 1);
    let setup = Setup::with_limits(limits).await;
    let mut viewer = setup.client(Connect::v5("v").user("viewer")).await;
    viewer.subscribe(&[("$SYS/broker/#", 0)]).await;
    let mut seen = std::collections::HashMap::new();
    let wanted = [
        "uptime",
        "version",
        "clients/connected",
        "clients/total",
        "messages/received",
        "messages/sent",
        "bytes/received",
        "publish/messages/received",
        "subscriptions/count",
        "retained messages/count",
        "load/messages/received/1min",
    ];
    while !wanted.iter().all(|name| seen.contains_key(&format!("$SYS/broker/{name}")))
        || seen["$SYS/broker/clients/connected"] != "1"
    {
        let message = viewer.message().await;
        seen.insert(message.topic.clone(), message.text());
    }
}
