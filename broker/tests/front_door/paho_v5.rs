//! The twenty-seven scenarios of the Eclipse Paho interoperability suite for MQTT 5, written anew.

use std::time::Duration;

use pistat_broker::Limits;

use crate::setup::{Setup, eventually, with_bounds};
use pistat_testkit::{
    packet::{Connect, Message, Packet, Properties, packet, string},
    raw::Client,
};

fn none() -> Properties {
    Properties::default()
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(Message::text).collect()
}

#[tokio::test]
async fn basic_subscribe_publish_and_a_second_connect_is_an_error() {
    let setup = Setup::start().await;
    let mut client = setup.v5("myclientid").await;
    assert_eq!(client.subscribe(&[("TopicA", 2)]).await, [2]);
    for qos in 0..3 {
        assert_eq!(client.publish(Message::new("TopicA", &format!("qos {qos}"), qos)).await, 0);
    }
    assert_eq!(texts(&client.until_now().await), ["qos 0", "qos 1", "qos 2"]);
    client.send(&Connect::v5("myclientid").encode()).await;
    assert_eq!(client.closed().await, Some(0x82));
    // Another protocol is not let in.
    let mut client = Client::raw(setup.address, true).await;
    client.send(&packet(0x10, &[&string("hj"), &[5, 2, 0, 60, 0], &string("myclientid")])).await;
    assert!(!matches!(client.next().await, Packet::ConnAck { code: 0, .. }));
    assert_eq!(client.next().await, Packet::Closed);
}

#[tokio::test]
async fn retained_messages_come_with_their_properties() {
    let setup = Setup::start().await;
    let mut client = setup.v5("myclientid").await;
    for qos in 0..3 {
        let properties = none().with_pair("a", "2").with_pair("c", "3");
        client
            .publish(
                Message::new(&format!("TopicA/{qos}"), &format!("qos {qos}"), qos).retained().properties(properties),
            )
            .await;
    }
    let mut late = setup.v5("late").await;
    late.subscribe(&[("TopicA/+", 2)]).await;
    for (qos, message) in (0..).zip(late.messages(3).await) {
        assert_eq!((message.text(), message.qos, message.retain), (format!("qos {qos}"), qos, true));
        assert_eq!(message.properties.pairs(), [("a".into(), "2".into()), ("c".into(), "3".into())]);
    }
    for qos in 0..3 {
        client.publish(Message::new(&format!("TopicA/{qos}"), "", qos).retained()).await;
    }
    let mut last = setup.v5("last").await;
    last.subscribe(&[("TopicA/+", 2)]).await;
    assert_eq!(last.until_now().await, []);
}

#[tokio::test]
async fn a_will_is_published_with_its_properties_and_not_after_a_goodbye() {
    let setup = Setup::start().await;
    let properties = || none().with_pair("c", "3").with_text(3, "text").with_pair("a", "2");
    let will = || Message::new("TopicA/will", "will message", 1).properties(properties());
    let mut watcher = setup.v5("watcher").await;
    watcher.subscribe(&[("TopicA/will", 2)]).await;
    setup.client(Connect::v5("polite").will(will())).await.disconnect().await;
    assert_eq!(watcher.until_now().await, []);
    // Reason 0x04: goodbye, and publish the will.
    let mut client = setup.client(Connect::v5("wilful").will(will())).await;
    client.send(&packet(0xE0, &[&[4]])).await;
    let message = watcher.message().await;
    assert_eq!(message.text(), "will message");
    assert_eq!(message.properties.pairs(), [("c", "3"), ("a", "2")].map(|(name, value)| (name.into(), value.into())));
    assert_eq!(message.properties.text(3).unwrap(), "text");
    drop(setup.client(Connect::v5("broken").will(will())).await);
    assert_eq!(watcher.message().await.text(), "will message");
}

#[tokio::test]
async fn a_client_without_an_id_is_given_one_for_clean_and_kept_sessions() {
    let setup = Setup::start().await;
    for connect in [Connect::v5(""), Connect::v5("").kept()] {
        let client = setup.client(connect).await;
        assert!(!client.connack.text(18).unwrap().is_empty());
    }
}

#[tokio::test]
async fn queued_messages_wait_for_a_client_that_is_away() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v5("away").kept()).await;
    client.subscribe(&[("TopicA/#", 2)]).await;
    client.disconnect().await;
    let mut publisher = setup.v5("publisher").await;
    for qos in 0..3 {
        publisher.publish(Message::new(&format!("TopicA/{qos}"), &format!("qos {qos}"), qos)).await;
    }
    let mut client = setup.client(Connect::v5("away").kept()).await;
    assert!(client.present);
    assert_eq!(texts(&client.until_now().await), ["qos 1", "qos 2"]);
}

#[tokio::test]
async fn overlapping_subscriptions_give_one_message_at_the_highest_qos() {
    let setup = Setup::start().await;
    let mut client = setup.v5("overlapping").await;
    client.subscribe_with(&[("TopicA/#", 2)], &none().with(11, &[42])).await;
    client.subscribe_with(&[("TopicA/+", 1)], &none().with(11, &[21])).await;
    client.publish(Message::new("TopicA/3", "overlapping", 2)).await;
    let messages = client.until_now().await;
    assert_eq!(messages.len(), 1);
    let mut ids = messages[0].properties.numbers(11);
    ids.sort_unstable();
    assert_eq!((messages[0].qos, ids), (2, vec![21, 42]));
}

#[tokio::test]
async fn a_silent_client_is_disconnected_with_its_will() {
    let setup = Setup::start().await;
    let mut watcher = setup.client(Connect::v5("watcher").keep_alive(0)).await;
    watcher.subscribe(&[("TopicA/will", 2)]).await;
    let will = Message::new("TopicA/will", "expired", 2);
    let mut silent = setup.client(Connect::v5("silent").keep_alive(1).will(will)).await;
    assert_eq!(watcher.message().await.text(), "expired");
    assert_eq!(silent.closed().await, Some(0x8D));
}

#[tokio::test]
async fn unfinished_messages_come_again_after_a_reconnect() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v5("again").kept()).await;
    client.subscribe(&[("TopicA/#", 2)]).await;
    client.acknowledges = false;
    let mut publisher = setup.v5("publisher").await;
    publisher.publish(Message::new("TopicA/1", "", 1)).await;
    publisher.publish(Message::new("TopicA/2", "", 2)).await;
    let first = client.messages(2).await;
    drop(client);
    let mut client = setup.client(Connect::v5("again").kept()).await;
    let again = client.messages(2).await;
    assert!(again.iter().all(|message| message.dup));
    assert_eq!(again.iter().map(|m| m.id).collect::<Vec<_>>(), first.iter().map(|m| m.id).collect::<Vec<_>>());
    assert_eq!(client.until_now().await, []);
}

#[tokio::test]
async fn a_filter_that_is_not_allowed_is_refused_with_the_reason() {
    let setup = Setup::start().await;
    let mut client = setup.v5("refused").await;
    assert_eq!(
        client.subscribe(&[("nosubscribe/x", 2), ("TopicA", 1), ("a/#/b", 0), ("$share//x", 0)]).await,
        [0x87, 1, 0x8F, 0x8F]
    );
}

#[tokio::test]
async fn wildcards_do_not_match_topics_that_begin_with_a_dollar() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v5("dollar").user("controller")).await;
    client.subscribe(&[("+/+", 2)]).await;
    client.publish(Message::new("$TopicA/B", "", 1)).await;
    assert_eq!(client.until_now().await.iter().filter(|m| m.topic.starts_with('$')).count(), 0);
}

#[tokio::test]
async fn unsubscribing_is_answered_with_the_truth() {
    let setup = Setup::start().await;
    let mut client = setup.v5("unsubscribe").await;
    client.subscribe(&[("TopicA", 2), ("TopicA/B", 2), ("a/C", 2)]).await;
    assert_eq!(client.unsubscribe(&["TopicA", "never"]).await, [0, 0x11]);
    for topic in ["TopicA", "TopicA/B", "a/C"] {
        client.publish(Message::new(topic, topic, 1)).await;
    }
    assert_eq!(texts(&client.until_now().await), ["TopicA/B", "a/C"]);
}

#[tokio::test]
async fn sessions_expire_when_they_should() {
    let setup = Setup::start().await;
    let expiring =
        |seconds: u32| Connect { clean: false, ..Connect::v5("expiring") }.property(17, &seconds.to_be_bytes());
    // No expiry: the session ends with the connection.
    let client = setup.client(expiring(0)).await;
    assert!(!client.present);
    client.disconnect().await;
    let mut client = setup.client(expiring(3600)).await;
    assert!(!client.present);
    client.subscribe(&[("TopicA", 2)]).await;
    client.disconnect().await;
    // Changed at the goodbye.
    let mut client = setup.client(expiring(3600)).await;
    assert!(client.present);
    client.send(&packet(0xE0, &[&[0, 5, 17, 0, 0, 0, 0]])).await;
    client.closed().await;
    let client = setup.client(expiring(1)).await;
    assert!(!client.present);
    client.disconnect().await;
    eventually("the session has expired", || setup.statistics().clients_expired == 1).await;
    let client = setup.client(expiring(0)).await;
    assert!(!client.present);
    client.disconnect().await;
    // Longer at the goodbye than it was.
    let mut client = setup.client(expiring(1)).await;
    assert!(!client.present);
    client.send(&packet(0xE0, &[&[0, 5, 17, 0, 0, 0, 60]])).await;
    client.closed().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let client = setup.client(expiring(1)).await;
    assert!(client.present);
    client.disconnect().await;
    eventually("the session has expired", || setup.statistics().clients_expired == 2).await;
    let mut client = setup.client(expiring(0)).await;
    // From nothing to something at the goodbye is an error.
    client.send(&packet(0xE0, &[&[0, 5, 17, 0, 0, 0, 9]])).await;
    assert_eq!(client.closed().await, Some(0x82));
}

#[tokio::test]
async fn shared_subscriptions_give_each_message_to_one() {
    let setup = Setup::start().await;
    let mut one = setup.v5("one").await;
    let mut two = setup.v5("two").await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.subscribe(&[("$share/group/TopicA", 2), ("test/all", 2)]).await, [2, 2]);
    }
    let mut publisher = setup.v5("publisher").await;
    for number in 0..10 {
        publisher.publish(Message::new("TopicA", &format!("{number}"), 1)).await;
        publisher.publish(Message::new("test/all", &format!("{number}"), 1)).await;
    }
    let (one, two) = (one.until_now().await, two.until_now().await);
    let shared = |messages: &[Message]| messages.iter().filter(|m| m.topic == "TopicA").count();
    assert_eq!((shared(&one), shared(&two)), (5, 5));
    assert_eq!((one.len(), two.len()), (15, 15));
}

#[tokio::test]
async fn user_properties_pass_in_their_order() {
    let setup = Setup::start().await;
    let mut client = setup.v5("user").await;
    client.subscribe(&[("TopicA", 2)]).await;
    for qos in 0..3 {
        let properties = none().with_pair("a", "2").with_pair("c", "3").with_pair("a", "4");
        client.publish(Message::new("TopicA", "", qos).properties(properties)).await;
    }
    for message in client.messages(3).await {
        assert_eq!(message.properties.pairs(), [("a", "2"), ("c", "3"), ("a", "4")].map(|(a, b)| (a.into(), b.into())));
    }
}

#[tokio::test]
async fn payload_format_and_content_type_pass() {
    let setup = Setup::start().await;
    let mut client = setup.v5("format").await;
    client.subscribe(&[("TopicA", 2)]).await;
    for qos in 0..3 {
        client.publish(Message::new("TopicA", "", qos).properties(none().with(1, &[1]).with_text(3, "My name"))).await;
    }
    for message in client.messages(3).await {
        assert_eq!((message.properties.number(1), message.properties.text(3)), (Some(1), Some("My name".into())));
    }
}

#[tokio::test]
async fn messages_expire_while_they_wait() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v5("expiry").kept()).await;
    client.subscribe(&[("TopicA", 2)]).await;
    client.disconnect().await;
    let mut publisher = setup.v5("publisher").await;
    for (text, seconds) in [("short", 1u32), ("long", 100)] {
        publisher.publish(Message::new("TopicA", text, 1).properties(none().with(2, &seconds.to_be_bytes()))).await;
        publisher.publish(Message::new("TopicA", text, 2).properties(none().with(2, &seconds.to_be_bytes()))).await;
    }
    publisher.publish(Message::new("TopicA", "for ever", 1)).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut client = setup.client(Connect::v5("expiry").kept()).await;
    let messages = client.until_now().await;
    assert_eq!(texts(&messages), ["long", "long", "for ever"]);
    assert!(messages[0].properties.number(2).is_some_and(|left| left < 100 && left > 50));
    assert_eq!(messages[2].properties.number(2), None);
}

#[tokio::test]
async fn no_local_and_retain_options_are_kept() {
    let setup = Setup::start().await;
    let mut client = setup.v5("options").await;
    // No local.
    client.subscribe(&[("TopicA/1", 2 | 4), ("TopicA/2", 2)]).await;
    for topic in ["TopicA/1", "TopicA/2"] {
        client.publish(Message::new(topic, topic, 1)).await;
    }
    assert_eq!(texts(&client.until_now().await), ["TopicA/2"]);
    // It keeps away one's own messages, and nobody else's.
    let mut neighbour = setup.v5("neighbour").await;
    neighbour.subscribe(&[("TopicA/1", 2 | 4)]).await;
    client.publish(Message::new("TopicA/1", "from the one", 1)).await;
    assert_eq!(texts(&neighbour.until_now().await), ["from the one"]);
    neighbour.publish(Message::new("TopicA/1", "from the other", 1)).await;
    assert_eq!(texts(&client.until_now().await), ["from the other"]);
    assert_eq!(neighbour.until_now().await, []);
    // Retain as published.
    client.subscribe(&[("TopicA/3", 2 | 8), ("TopicA/4", 2)]).await;
    for topic in ["TopicA/3", "TopicA/4"] {
        client.publish(Message::new(topic, topic, 1).retained()).await;
    }
    let retains: Vec<bool> = client.until_now().await.iter().map(|m| m.retain).collect();
    assert_eq!(retains, [true, false]);
    // Retain handling: always, only if new, never.
    let mut late = setup.v5("late").await;
    for (options, count) in [(2, 1), (2, 1), (2 | 1 << 4, 0), (2 | 2 << 4, 0)] {
        late.subscribe(&[("TopicA/3", options)]).await;
        assert_eq!(late.until_now().await.len(), count);
    }
    late.unsubscribe(&["TopicA/3"]).await;
    late.subscribe(&[("TopicA/3", 2 | 2 << 4)]).await;
    assert_eq!(late.until_now().await.len(), 0);
    late.unsubscribe(&["TopicA/3"]).await;
    late.subscribe(&[("TopicA/3", 2 | 1 << 4)]).await;
    assert_eq!(late.until_now().await.len(), 1);
}

#[tokio::test]
async fn retained_messages_are_handled_as_each_subscription_wants() {
    let setup = Setup::start().await;
    let mut client = setup.v5("options").await;
    for qos in 0..3u8 {
        client.publish(Message::new(&format!("TopicA/{qos}"), &format!("qos {qos}"), qos).retained()).await;
    }
    let all = ["qos 0", "qos 1", "qos 2"];
    let (always, if_new, never) = (2, 2 | 1 << 4, 2 | 2 << 4);
    // Each option, with what a new subscription brings and what its repetition does.
    for (options, first, again) in [(always, &all[..], &all[..]), (if_new, &all[..], &[]), (never, &[], &[])] {
        client.subscribe(&[("TopicA/+", options)]).await;
        let messages = client.until_now().await;
        assert_eq!(texts(&messages), first, "options {options}");
        assert!(messages.iter().zip(0..).all(|(message, qos)| message.retain && message.qos == qos));
        client.subscribe(&[("TopicA/+", options)]).await;
        assert_eq!(texts(&client.until_now().await), again, "options {options}");
        client.unsubscribe(&["TopicA/+"]).await;
    }
}

#[tokio::test]
async fn an_assigned_client_id_can_be_used_again() {
    let setup = Setup::start().await;
    let client = setup.client(Connect::v5("").kept()).await;
    let id = client.connack.text(18).unwrap();
    client.disconnect().await;
    let client = setup.client(Connect::v5(&id).kept()).await;
    assert!(client.present && client.connack.text(18).is_none());
}

#[tokio::test]
async fn subscription_identifiers_come_with_the_messages() {
    let setup = Setup::start().await;
    let mut one = setup.v5("one").await;
    let mut two = setup.v5("two").await;
    one.subscribe_with(&[("TopicA", 2)], &none().with(11, &456_789u32.to_be_bytes())).await;
    two.subscribe_with(&[("TopicA", 2)], &none().with(11, &[2])).await;
    two.subscribe_with(&[("+", 2)], &none().with(11, &[3])).await;
    one.publish(Message::new("TopicA", "sub identifier", 1)).await;
    assert_eq!(one.message().await.properties.numbers(11), [456_789]);
    let mut ids = two.message().await.properties.numbers(11);
    ids.sort_unstable();
    assert_eq!(ids, [2, 3]);
}

#[tokio::test]
async fn requests_find_their_answers() {
    let setup = Setup::start().await;
    let mut asker = setup.v5("asker").await;
    let mut answerer = setup.v5("answerer").await;
    asker.subscribe(&[("test/answers", 2)]).await;
    answerer.subscribe(&[("test/questions", 2)]).await;
    let properties = none().with_text(8, "test/answers").with(9, &[0, 3, 3, 3, 4]);
    asker.publish(Message::new("test/questions", "request", 1).properties(properties)).await;
    let question = answerer.message().await;
    assert_eq!(question.properties.text(8).unwrap(), "test/answers");
    let (_, correlation) = question.properties.0.iter().find(|(id, _)| *id == 9).unwrap();
    answerer.publish(Message::new("test/answers", "response", 1).properties(none().with(9, correlation))).await;
    let answer = asker.message().await;
    assert_eq!(answer.properties.0, [(9, vec![0, 3, 3, 3, 4])]);
    // A response topic is a topic, not a filter.
    asker.publish(Message::new("test/questions", "", 0).properties(none().with_text(8, "a/+"))).await;
    assert_eq!(asker.closed().await, Some(0x82));
}

#[tokio::test]
async fn a_client_may_use_topic_aliases() {
    let setup = Setup::start().await;
    let mut client = setup.v5("alias").await;
    let most = u16::try_from(client.connack.number(34).unwrap()).unwrap();
    assert!(most > 0);
    client.subscribe(&[("TopicA", 2)]).await;
    let aliased =
        |topic: &str, alias: u16| Message::new(topic, "x", 1).properties(none().with(35, &alias.to_be_bytes()));
    client.publish(aliased("TopicA", most)).await;
    client.publish(aliased("", most)).await;
    let messages = client.until_now().await;
    assert!(messages.len() == 2 && messages.iter().all(|m| m.topic == "TopicA" && m.properties.number(35).is_none()));
    client.publish(Message { qos: 0, ..aliased("", 1) }).await;
    assert_eq!(client.closed().await, Some(0x82));
    // A number is of its connection, not of the session.
    let mut client = setup.client(Connect::v5("kept alias").kept()).await;
    client.publish(aliased("TopicA", 1)).await;
    client.disconnect().await;
    let mut client = setup.client(Connect::v5("kept alias").kept()).await;
    assert!(client.present);
    client.publish(Message { qos: 0, ..aliased("", 1) }).await;
    assert_eq!(client.closed().await, Some(0x82));
    for bad in [0, most + 1] {
        let mut client = setup.v5("alias").await;
        client.publish(Message { qos: 0, ..aliased("TopicA", bad) }).await;
        assert_eq!(client.closed().await, Some(0x94));
    }
}

#[tokio::test]
async fn the_broker_uses_topic_aliases_where_the_client_takes_them() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v5("alias").property(34, &1u16.to_be_bytes())).await;
    client.subscribe(&[("TopicA", 2), ("TopicA/B", 2)]).await;
    for qos in 0..3 {
        client.publish(Message::new("TopicA", "", qos)).await;
    }
    client.publish(Message::new("TopicA/B", "", 1)).await;
    let messages = client.messages(4).await;
    let seen: Vec<(&str, Option<u32>)> = messages.iter().map(|m| (m.topic.as_str(), m.properties.number(35))).collect();
    assert_eq!(seen, [("TopicA", Some(1)), ("", Some(1)), ("", Some(1)), ("TopicA/B", None)]);
    // Nor does it use any where the client says that it takes none.
    let mut client = setup.client(Connect::v5("no alias").property(34, &0u16.to_be_bytes())).await;
    client.subscribe(&[("TopicA", 2)]).await;
    for qos in 0..3 {
        client.publish(Message::new("TopicA", "", qos)).await;
    }
    for message in client.messages(3).await {
        assert_eq!((message.topic.as_str(), message.properties.number(35)), ("TopicA", None));
    }
}

#[tokio::test]
async fn packets_too_large_for_either_side_are_not_sent() {
    let setup = Setup::with_limits(Limits { packet_bytes: 4096, ..Limits::default() }).await;
    let mut small = setup.client(Connect::v5("small").property(39, &64u32.to_be_bytes())).await;
    let mut client = setup.v5("client").await;
    assert_eq!(client.connack.number(39), Some(4096));
    for subscriber in [&mut small, &mut client] {
        subscriber.subscribe(&[("TopicA", 2)]).await;
    }
    for qos in 0..3 {
        client.publish(Message::new("TopicA", &"x".repeat(100), qos)).await;
        client.publish(Message::new("TopicA", "short", qos)).await;
    }
    assert_eq!(client.until_now().await.len(), 6);
    assert_eq!(texts(&small.until_now().await), ["short"; 3]);
    assert_eq!(setup.statistics().dropped_too_large, 3);
    client.publish(Message::new("TopicA", &"x".repeat(5000), 0)).await;
    assert_eq!(client.closed().await, Some(0x95));
}

#[tokio::test]
async fn the_broker_may_shorten_the_keep_alive() {
    let setup = Setup::start().await;
    let asked = |seconds: u16| Connect::v5("keep").keep_alive(seconds);
    assert_eq!(setup.client(asked(120)).await.connack.number(19), Some(60));
    assert_eq!(setup.client(asked(60)).await.connack.number(19), None);
    assert_eq!(setup.client(asked(0)).await.connack.number(19), None);
}

#[tokio::test]
async fn the_broker_keeps_to_the_clients_receive_maximum() {
    let setup = Setup::start().await;
    let mut slow = setup.client(Connect::v5("slow").property(33, &2u16.to_be_bytes())).await;
    slow.subscribe(&[("TopicA", 2)]).await;
    slow.acknowledges = false;
    let mut publisher = setup.v5("publisher").await;
    for number in 0..6 {
        publisher.publish(Message::new("TopicA", &format!("{number}"), 1 + number % 2)).await;
    }
    let first = slow.messages(2).await;
    slow.ping().await;
    assert_eq!(slow.early, []);
    slow.ack(4, first[0].id).await;
    let third = slow.message().await;
    assert_eq!(third.text(), "2");
    slow.ping().await;
    assert_eq!(slow.early, []);
    // A QoS 2 message holds its place until it is complete.
    slow.ack(5, first[1].id).await;
    assert_eq!(slow.next().await, Packet::Ack { kind: 6, id: first[1].id, code: 0 });
    slow.ping().await;
    assert_eq!(slow.early, []);
    slow.ack(7, first[1].id).await;
    assert_eq!(slow.message().await.text(), "3");
}

#[tokio::test]
async fn a_client_that_exceeds_the_brokers_receive_maximum_is_told_so() {
    let setup = Setup::with_limits(with_bounds(|b| b.receive_maximum = 3)).await;
    let mut client = setup.v5("flood").await;
    assert_eq!(client.connack.number(33), Some(3));
    for id in 1..=3 {
        client.send(&Message { id, ..Message::new("TopicA", "", 2) }.encode(true)).await;
    }
    for id in 1..=3 {
        assert_eq!(client.next().await, Packet::Ack { kind: 5, id, code: 0 });
    }
    client.send(&Message { id: 4, ..Message::new("TopicA", "", 2) }.encode(true)).await;
    assert_eq!(client.closed().await, Some(0x93));
    // As it is, and without waiting for any answer.
    let setup = Setup::start().await;
    let mut client = setup.v5("flood").await;
    let most = u16::try_from(client.connack.number(33).unwrap()).unwrap();
    for id in 1..=most + 1 {
        client.send(&Message { id, ..Message::new("TopicA", "", 2) }.encode(true)).await;
    }
    assert_eq!(client.closed().await, Some(0x93));
}

#[tokio::test]
async fn a_will_waits_for_its_delay_or_the_sessions_end() {
    let setup = Setup::start().await;
    let mut watcher = setup.v5("watcher").await;
    watcher.subscribe(&[("TopicA/will", 2)]).await;
    let delayed = |expiry: u32| {
        let will =
            Message::new("TopicA/will", &format!("{expiry}"), 2).properties(none().with(24, &2u32.to_be_bytes()));
        Connect { clean: false, ..Connect::v5("delayed") }.property(17, &expiry.to_be_bytes()).will(will)
    };
    // Back in time: no will.
    drop(setup.client(delayed(100)).await);
    let back = setup.client(delayed(100)).await;
    assert!(back.present);
    assert_eq!(watcher.until_now().await, []);
    // Not back: after the delay.
    let gone = tokio::time::Instant::now();
    drop(back);
    assert_eq!(watcher.message().await.text(), "100");
    assert!(gone.elapsed() >= Duration::from_millis(1900));
    // The session ends before the delay: at once.
    let mut last = setup.client(delayed(100)).await;
    last.send(&packet(0xE0, &[&[4, 5, 17, 0, 0, 0, 1]])).await;
    let gone = tokio::time::Instant::now();
    assert_eq!(watcher.message().await.text(), "100");
    assert!(gone.elapsed() < Duration::from_millis(1900));
}

#[tokio::test]
async fn a_will_does_not_wait_longer_than_its_session() {
    let setup = Setup::start().await;
    let mut watcher = setup.v5("watcher").await;
    watcher.subscribe(&[("TopicA/will", 2)]).await;
    let delayed = |expiry: u32, delay: u32| {
        let text = format!("{expiry} {delay}");
        let will = Message::new("TopicA/will", &text, 2).properties(none().with(24, &delay.to_be_bytes()));
        Connect { clean: false, ..Connect::v5("delayed") }.property(17, &expiry.to_be_bytes()).will(will)
    };
    // Its delay is far longer than this test has patience: only the end of the session can have
    // brought it.
    for expiry in [0, 2] {
        drop(setup.client(delayed(expiry, 500)).await);
        assert_eq!(watcher.message().await.text(), format!("{expiry} 500"));
        assert!(!setup.client(delayed(0, 0)).await.present);
        assert_eq!(watcher.message().await.text(), "0 0");
    }
}

#[tokio::test]
async fn an_unknown_protocol_version_is_answered() {
    let setup = Setup::start().await;
    for (level, v5, code) in [(3, false, 1), (6, true, 0x84)] {
        let mut client = Client::raw(setup.address, v5).await;
        client.send(&packet(0x10, &[&string("MQTT"), &[level, 2, 0, 60], &string("")])).await;
        assert!(matches!(client.next().await, Packet::ConnAck { code: answered, .. } if answered == code));
    }
    // However long the packet or the protocol's name is, the answer is of the version that asked.
    for (name, level, v5, code) in [("MQIsdp", 3, false, 1), ("MQTT", 6, true, 0x84), ("MQTT", 3, false, 1)] {
        let mut client = Client::raw(setup.address, v5).await;
        client.send(&packet(0x10, &[&string(name), &[level, 2, 0, 60], &string(&"x".repeat(200))])).await;
        assert!(matches!(client.next().await, Packet::ConnAck { code: answered, .. } if answered == code), "{name}");
        assert_eq!(client.next().await, Packet::Closed);
    }
    // A flag that is reserved, in a long packet: MQTT 5 is told so.
    let mut client = Client::raw(setup.address, true).await;
    client.send(&packet(0x10, &[&string("MQTT"), &[5, 3, 0, 60, 0], &string(&"x".repeat(200))])).await;
    assert!(matches!(client.next().await, Packet::ConnAck { code: 0x81, .. }));
}
