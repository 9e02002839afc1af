//! Rules of MQTT 5 and 3.1.1 that the Paho suites do not try, each by its section. Those of
//! mosquitto's own suite that concern a broker of this kind are here too, written anew.

use std::time::Duration;

use pistat_broker::{BrokerEvent, Limits};

use crate::setup::{Setup, eventually};
use pistat_testkit::{
    packet::{Connect, Message, Packet, Properties, packet, string},
    raw::Client,
};

fn none() -> Properties {
    Properties::default()
}

fn texts(messages: &[Message]) -> Vec<String> {
    let mut texts: Vec<String> = messages.iter().map(Message::text).collect();
    texts.sort();
    texts
}

/// The CONNECT of mosquitto's bridges: 3.1.1 with the highest bit of the protocol level set.
fn as_bridge(connect: &Connect) -> Vec<u8> {
    let mut bytes = connect.encode();
    assert!(bytes[1] < 0x80, "the level is at a fixed place in a short packet");
    bytes[8] |= 0x80;
    bytes
}

async fn bridge(setup: &Setup, connect: &Connect) -> Client {
    let mut client = Client::raw(setup.address, false).await;
    client.send(&as_bridge(connect)).await;
    assert_eq!(client.next().await, Packet::ConnAck { present: false, code: 0, properties: none() });
    client
}

#[tokio::test]
async fn a_bridge_is_a_client_of_3_1_1_that_keeps_retain_flags_and_never_hears_itself() {
    let setup = Setup::start().await;
    let mut other = setup.v5("other").await;
    let mut bridge = bridge(&setup, &Connect::v311("bridge")).await;
    assert_eq!(bridge.subscribe(&[("test/#", 1)]).await, [1]);
    bridge.publish(Message::new("test/own", "own", 1)).await;
    other.publish(Message::new("test/kept", "kept", 1).retained()).await;
    let message = bridge.message().await;
    assert_eq!((message.text(), message.retain), ("kept".to_owned(), true));
    // Other levels are answered in the form of the version that they stand for.
    for (level, v5, code) in [(0x83, false, 1), (0x85, true, 0x84), (0x86, true, 0x84)] {
        let mut client = Client::raw(setup.address, v5).await;
        client.send(&packet(0x10, &[&string("MQTT"), &[level, 2, 0, 60], &string("")])).await;
        let answer = client.next().await;
        assert!(matches!(answer, Packet::ConnAck { code: answered, .. } if answered == code), "{level:#x} {answer:?}");
    }
}

#[tokio::test]
async fn a_bridges_notifications_under_sys_do_not_refuse_its_connection_and_are_not_kept() {
    let setup = Setup::start().await;
    let topic = "$SYS/broker/connection/house.bridge/state";
    let will = || Message::new(topic, "0", 1).retained();
    let mut viewer = setup.client(Connect::v5("viewer").user("viewer")).await;
    viewer.subscribe(&[("$SYS/broker/connection/#", 1)]).await;
    let mut plain = setup.client(Connect::v311("plain").will(will())).await;
    plain.publish(Message::new(topic, "1", 1).retained()).await;
    plain.ping().await;
    let bridged = bridge(&setup, &Connect::v311("bridge").will(will())).await;
    let mut new = setup.client(Connect::v5("new").will(will())).await;
    assert_eq!(new.publish(Message::new(topic, "1", 1).retained()).await, 0x87);
    drop((plain, bridged, new));
    eventually("they are gone", || setup.statistics().clients_connected == 1).await;
    // What the wills would have gone through is a fence here.
    let fence = Connect::v5("fence").will(Message::new("test/fence", "fence", 1));
    let mut watcher = setup.v5("watcher").await;
    watcher.subscribe(&[("test/fence", 1)]).await;
    drop(setup.client(fence).await);
    watcher.message().await;
    viewer.ping().await;
    assert_eq!(viewer.early, []);
    // Any other topic of the broker's own refuses the connection as before.
    for other in ["$SYS/broker/uptime", "$SYS/broker/connection"] {
        let connect = Connect::v5("other").will(Message::new(other, "0", 1));
        assert_eq!(Client::refused(setup.address, &connect).await, 0x87, "{other}");
    }
}

/// MQTT 5, section 3.1.2.11.4: no packet is larger than the client takes, the answer to CONNECT
/// among them.
#[tokio::test]
async fn no_answer_is_larger_than_the_client_takes() {
    let setup = Setup::start().await;
    let small = |bytes: u32| Connect::v5("small").kept().property(39, &bytes.to_be_bytes());
    assert_eq!(Client::refused(setup.address, &small(5)).await, 0x95);
    for bytes in [1, 4] {
        let mut client = Client::open(setup.address, &small(bytes)).await;
        assert_eq!(client.next().await, Packet::Closed, "{bytes}");
    }
    // Who was refused has no session.
    assert!(!setup.client(Connect::v5("small").kept()).await.present);
    // Words that do not fit are left out.
    for (bytes, has_words) in [(5u32, false), (20, false), (200, true)] {
        let wrong = Connect { password: Some("wrong".into()), ..small(bytes) };
        let mut client = Client::open(setup.address, &wrong).await;
        let Packet::ConnAck { code: 0x86, properties, .. } = client.next().await else { panic!("it is refused") };
        assert_eq!(properties.text(31).is_some(), has_words, "{bytes}");
    }
    let mut client = setup.client(small(40)).await;
    let filters: Vec<(String, u8)> = (0..50).map(|number| (format!("test/{number}"), 0)).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|(filter, qos)| (filter.as_str(), *qos)).collect();
    assert_eq!(client.subscribe(&filters[..10]).await.len(), 10);
    let list: Vec<u8> = filters.iter().flat_map(|(filter, qos)| [string(filter), vec![*qos]].concat()).collect();
    client.send(&packet(0x82, &[&[0, 9], &[0], &list])).await;
    assert_eq!(client.closed().await, Some(0x95));
    let mut client = setup.client(small(40)).await;
    let list: Vec<u8> = filters.iter().flat_map(|(filter, _)| string(filter)).collect();
    client.send(&packet(0xA2, &[&[0, 9], &[0], &list])).await;
    assert_eq!(client.closed().await, Some(0x95));
}

/// MQTT 5, section 3.1.2.11.10.
#[tokio::test]
async fn authentication_data_without_a_method_is_a_protocol_error() {
    let setup = Setup::start().await;
    let data = Connect::v5("c").property(22, &[0, 1, 7]);
    assert_eq!(Client::refused(setup.address, &data).await, 0x82);
    let both = Connect { properties: none().with_text(21, "SCRAM-SHA-1").with(22, &[0, 1, 7]), ..Connect::v5("c") };
    assert_eq!(Client::refused(setup.address, &both).await, 0x8C);
}

/// Sections 4.7.3 and 3.3.2.3.5 hold for wills as for messages. A malformed CONNECT of 3.1.1 has no
/// answer.
#[tokio::test]
async fn a_will_with_a_malformed_topic_or_response_topic_is_refused_as_the_version_has_it() {
    let setup = Setup::start().await;
    for topic in ["", "test/#", "+", "test/+/x"] {
        let will = || Message::new(topic, "x", 1);
        assert_eq!(Client::refused(setup.address, &Connect::v5("c").will(will())).await, 0x90, "{topic:?}");
        let mut old = Client::open(setup.address, &Connect::v311("c").will(will())).await;
        assert_eq!(old.next().await, Packet::Closed, "{topic:?}");
    }
    for response in ["", "test/#", "test/+"] {
        let will = Message::new("test/will", "x", 1).properties(none().with_text(8, response));
        assert_eq!(Client::refused(setup.address, &Connect::v5("c").will(will)).await, 0x82, "{response:?}");
        let mut client = setup.v5("c").await;
        let message = Message::new("test/x", "", 0).properties(none().with_text(8, response));
        client.publish(message).await;
        assert_eq!(client.closed().await, Some(0x82), "{response:?}");
    }
    // Malformed in no form, and yet nothing that may be said: 3.1.1 has a code for that.
    let long = || Message::new(&format!("test/{}", "x".repeat(2000)), "x", 1);
    assert_eq!(Client::refused(setup.address, &Connect::v5("c").will(long())).await, 0x90);
    assert_eq!(Client::refused(setup.address, &Connect::v311("c").will(long())).await, 5);
}

/// Sections 4.3.2 and 4.3.3: which acknowledgement is due is decided by the message's `QoS` and by
/// how far it is.
#[tokio::test]
async fn an_acknowledgement_of_the_wrong_kind_is_a_protocol_error() {
    let setup = Setup::start().await;
    let mut publisher = setup.v5("publisher").await;
    // The QoS of the message, what came in order before, and the acknowledgement that is wrong
    // then.
    for (qos, before, wrong) in [(1, &[][..], 5), (1, &[], 7), (2, &[], 4), (2, &[], 7), (2, &[5], 4)] {
        for v5 in [true, false] {
            let mut client = setup.client(Connect::of(v5, "c").user("other")).await;
            client.subscribe(&[("test/x", qos)]).await;
            client.acknowledges = false;
            publisher.publish(Message::new("test/x", "", qos)).await;
            let message = client.message().await;
            for &kind in before {
                client.ack(kind, message.id).await;
                assert_eq!(client.next().await, Packet::Ack { kind: 6, id: message.id, code: 0 });
            }
            client.ack(wrong, message.id).await;
            assert_eq!(client.closed().await, v5.then_some(0x82), "{wrong} for QoS {qos} after {before:?}");
        }
    }
    // What is for nothing is a repetition, and harmless; so is another PUBREC.
    let mut client = setup.client(Connect::v5("c").user("other")).await;
    for kind in [4, 7] {
        client.ack(kind, 77).await;
    }
    client.ack(5, 77).await;
    assert_eq!(client.next().await, Packet::Ack { kind: 6, id: 77, code: 0x92 });
    client.ping().await;
    client.subscribe(&[("test/x", 2)]).await;
    client.acknowledges = false;
    publisher.publish(Message::new("test/x", "", 2)).await;
    let id = client.message().await.id;
    for _ in 0..2 {
        client.ack(5, id).await;
        assert_eq!(client.next().await, Packet::Ack { kind: 6, id, code: 0 });
    }
    client.ack(7, id).await;
    client.ping().await;
}

async fn member(setup: &Setup, connect: Connect, qos: u8) -> Client {
    let mut client = setup.client(connect).await;
    assert_eq!(client.subscribe(&[("$share/group/test/x", qos)]).await, [qos]);
    client
}

/// Section 4.8.2: what a member has not acknowledged when its session ends goes to another member.
#[tokio::test]
async fn what_a_member_of_a_shared_subscription_leaves_unacknowledged_goes_to_another() {
    let setup = Setup::start().await;
    for expiry in [0u32, 1] {
        let mut publisher = setup.v5("publisher").await;
        let leaving = Connect::v5("leaving").property(17, &expiry.to_be_bytes()).property(33, &2u16.to_be_bytes());
        let mut leaving = member(&setup, leaving, 1).await;
        let mut staying = member(&setup, Connect::v5("staying"), 1).await;
        leaving.acknowledges = false;
        for number in 0..10 {
            publisher.publish(Message::new("test/x", &number.to_string(), 1)).await;
        }
        // Two are under way to the one that leaves, and three wait for it.
        leaving.messages(2).await;
        drop(leaving);
        assert_eq!(texts(&staying.messages(10).await), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(staying.until_now().await, []);
    }
}

#[tokio::test]
async fn what_begins_exactly_once_with_one_member_goes_to_no_other() {
    let setup = Setup::start().await;
    let mut publisher = setup.v5("publisher").await;
    let mut leaving = member(&setup, Connect::v5("leaving").property(33, &1u16.to_be_bytes()), 2).await;
    leaving.acknowledges = false;
    for number in 0..2 {
        publisher.publish(Message::new("test/x", &number.to_string(), 2)).await;
    }
    // The first was sent, so only this client can end it; the second was not.
    assert_eq!(leaving.message().await.text(), "0");
    let mut staying = member(&setup, Connect::v5("staying"), 1).await;
    drop(leaving);
    let message = staying.message().await;
    assert_eq!((message.text(), message.qos, message.dup), ("1".to_owned(), 1, false));
    assert_eq!(staying.until_now().await, []);
}

#[tokio::test]
async fn what_waits_for_an_absent_member_outlives_a_restart_and_still_goes_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let state = || Some(folder.path().to_owned());
    let setup = Setup::with(Limits::default(), state()).await;
    let mut leaving = member(&setup, Connect::v5("leaving").kept(), 1).await;
    // Its plain subscription to the same topic is its own.
    leaving.subscribe(&[("test/+", 1)]).await;
    leaving.acknowledges = false;
    let mut publisher = setup.v5("publisher").await;
    publisher.publish(Message::new("test/x", "sent", 1)).await;
    leaving.messages(2).await;
    drop(leaving);
    eventually("it is away", || setup.statistics().clients_connected == 1).await;
    publisher.publish(Message::new("test/x", "queued", 1)).await;
    publisher.until_now().await;
    setup.broker.shutdown().await;

    let setup = Setup::with(Limits::default(), state()).await;
    let mut staying = member(&setup, Connect::v5("staying"), 1).await;
    assert_eq!(staying.until_now().await, []);
    // Another session under the same name ends the one that was kept.
    setup.v5("leaving").await.ping().await;
    assert_eq!(texts(&staying.until_now().await), ["queued", "sent"]);
}

/// What was sent before the client said goodbye arrives, although more came from it that is not
/// read.
#[tokio::test]
async fn a_client_that_says_goodbye_still_gets_what_was_sent_to_it() {
    let setup = Setup::start().await;
    let mut publisher = setup.v5("publisher").await;
    for number in 0..40 {
        let message = Message::new(&format!("test/{number}"), &"x".repeat(100_000), 1).retained();
        publisher.publish(message).await;
    }
    for v5 in [true, false] {
        let mut client = setup.client(Connect::of(v5, "c")).await;
        let before = setup.statistics().publishes_out;
        client.subscribe(&[("test/#", 0)]).await;
        // More follows that is not read, and for a while nothing is taken: longer than a client
        // that is disconnected has.
        client.send(&[&[0xE0, 0], &vec![0xC0; 300_000][..]].concat()).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        let mut taken = 0;
        loop {
            match client.next().await {
                Packet::Publish(message) => {
                    assert_eq!(message.payload.len(), 100_000);
                    taken += 1;
                }
                Packet::Closed => break,
                other => panic!("{other:?}"),
            }
        }
        let sent = setup.statistics().publishes_out - before;
        assert!(taken > 0 && taken == sent, "{taken} of {sent} came");
    }
}

/// Section 1.5.4: a receiver may refuse such a string, and mosquitto's clients end their connection
/// when they are sent one. So one publisher must not be able to send it to all others.
#[tokio::test]
async fn control_characters_and_non_characters_reach_no_subscriber() {
    let mut setup = Setup::start().await;
    let mut watcher = setup.v5("watcher").await;
    watcher.subscribe(&[("test/#", 2)]).await;
    let bad = ["\u{1}", "\n", "\u{1f}", "\u{7f}", "\u{80}", "\u{9f}", "\u{fdd0}", "\u{fffe}", "\u{ffff}", "\u{10ffff}"];
    for text in bad {
        let topic = format!("test/{text}/x");
        for qos in 0..3 {
            for v5 in [true, false] {
                let mut client = setup.client(Connect::of(v5, "c")).await;
                let code = client.publish(Message::new(&topic, "x", qos).retained()).await;
                assert_eq!(code, if v5 && qos > 0 { 0x90 } else { 0 }, "{topic:?} {qos} {v5}");
                client.ping().await;
            }
        }
        let mut client = setup.v5("c").await;
        let properties = [
            none().with_text(8, &topic),
            none().with_text(3, text),
            none().with_pair("name", text),
            none().with_pair(text, "value"),
        ];
        for properties in properties {
            let message = Message::new("test/x", "x", 1).properties(properties);
            assert_eq!(client.publish(message.clone()).await, 0x83, "{message:?}");
            assert_eq!(Client::refused(setup.address, &Connect::v5("w").will(message)).await, 0x83);
        }
        assert_eq!(client.subscribe(&[(&topic, 1), (&format!("$share/{text}/test/x"), 1)]).await, [0x8F, 0x8F]);
        let will = || Message::new(&topic, "x", 1);
        assert_eq!(Client::refused(setup.address, &Connect::v5("w").will(will())).await, 0x90);
        assert_eq!(Client::refused(setup.address, &Connect::v311("w").will(will())).await, 5);
        for (v5, code) in [(true, 0x85), (false, 2)] {
            assert_eq!(Client::refused(setup.address, &Connect::of(v5, text)).await, code);
        }
    }
    // Neighbours of these are characters like any other.
    for good in [" ", "~", "\u{a0}", "\u{fdcf}", "\u{fdf0}", "\u{feff}", "\u{fffd}", "é"] {
        assert_eq!(watcher.publish(Message::new(&format!("test/{good}"), good, 1)).await, 0);
        assert_eq!(watcher.message().await.text(), good);
    }
    assert_eq!(watcher.until_now().await, []);
    let refused =
        |event: &BrokerEvent| matches!(event, BrokerEvent::PublishRefused { topic, .. } if topic == "test/\n/x");
    setup.event(refused).await;
}
