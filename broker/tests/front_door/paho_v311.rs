//! The ten scenarios of the Eclipse Paho interoperability suite for MQTT 3.1.1, written anew.

use std::time::Duration;

use crate::setup::Setup;
use pistat_testkit::{
    packet::{Connect, Message, Packet, packet, string},
    raw::Client,
};

#[tokio::test]
async fn basic_subscribe_publish_and_a_second_connect_is_an_error() {
    let setup = Setup::start().await;
    let mut client = setup.v311("myclientid").await;
    assert_eq!(client.subscribe(&[("TopicA", 2)]).await, [2]);
    for qos in 0..3 {
        assert_eq!(client.publish(Message::new("TopicA", &format!("qos {qos}"), qos)).await, 0);
    }
    let messages = client.until_now().await;
    assert_eq!(
        messages.iter().map(|m| (m.text(), m.qos)).collect::<Vec<_>>(),
        [("qos 0".into(), 0), ("qos 1".into(), 1), ("qos 2".into(), 2)]
    );
    client.disconnect().await;

    let mut client = setup.v311("myclientid").await;
    client.send(&Connect::v311("myclientid").encode()).await;
    assert_eq!(client.closed().await, None);
    // Another protocol is not let in.
    let mut client = Client::raw(setup.address, false).await;
    client.send(&packet(0x10, &[&string("hj"), &[4, 2, 0, 60], &string("myclientid")])).await;
    assert_eq!(client.next().await, Packet::Closed);
}

#[tokio::test]
async fn retained_messages_are_kept_and_cleared_at_every_qos() {
    let setup = Setup::start().await;
    let mut client = setup.v311("myclientid").await;
    for qos in 0..3 {
        client.publish(Message::new(&format!("TopicA/{qos}"), &format!("qos {qos}"), qos).retained()).await;
    }
    client.disconnect().await;
    let mut client = setup.v311("other").await;
    client.subscribe(&[("TopicA/+", 2)]).await;
    let messages = client.messages(3).await;
    for (qos, message) in (0..).zip(&messages) {
        assert_eq!((message.text(), message.qos, message.retain), (format!("qos {qos}"), qos, true));
    }
    for qos in 0..3 {
        client.publish(Message::new(&format!("TopicA/{qos}"), "", qos).retained()).await;
    }
    assert_eq!(client.until_now().await.len(), 3);
    let mut late = setup.v311("late").await;
    late.subscribe(&[("TopicA/+", 2)]).await;
    assert_eq!(late.until_now().await, []);
}

#[tokio::test]
async fn a_client_without_an_id_gets_a_clean_session_or_is_refused() {
    let setup = Setup::start().await;
    setup.v311("").await.disconnect().await;
    let refused = Client::refused(setup.address, &Connect { clean: false, ..Connect::v311("") }).await;
    assert_eq!(refused, 2);
}

#[tokio::test]
async fn queued_messages_wait_for_a_client_that_is_away() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v311("away").kept()).await;
    assert!(!client.present);
    client.subscribe(&[("TopicA/#", 2)]).await;
    client.disconnect().await;
    let mut publisher = setup.v311("publisher").await;
    for qos in 0..3 {
        publisher.publish(Message::new(&format!("TopicA/{qos}"), &format!("qos {qos}"), qos)).await;
    }
    publisher.disconnect().await;
    let mut client = setup.client(Connect::v311("away").kept()).await;
    assert!(client.present);
    let texts: Vec<String> = client.until_now().await.iter().map(Message::text).collect();
    assert_eq!(texts, ["qos 1", "qos 2"]);
}

#[tokio::test]
async fn a_will_is_published_when_the_connection_breaks_and_only_then() {
    let setup = Setup::start().await;
    let will = || Message::new("TopicA/will", "client not disconnected", 2);
    let mut watcher = setup.v311("watcher").await;
    watcher.subscribe(&[("TopicA/will", 2)]).await;
    setup.client(Connect::v311("polite").will(will())).await.disconnect().await;
    assert_eq!(watcher.until_now().await, []);
    drop(setup.client(Connect::v311("broken").will(will())).await);
    assert_eq!(watcher.message().await.text(), "client not disconnected");
}

#[tokio::test]
async fn overlapping_subscriptions_give_the_message_at_the_highest_qos() {
    let setup = Setup::start().await;
    let mut client = setup.v311("overlapping").await;
    client.subscribe(&[("TopicA/#", 2), ("TopicA/+", 1)]).await;
    client.publish(Message::new("TopicA/x", "overlapping", 2)).await;
    let messages = client.until_now().await;
    assert_eq!(messages.iter().map(|m| m.qos).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_silent_client_is_disconnected_and_one_without_keep_alive_is_not() {
    let setup = Setup::start().await;
    let mut watcher = setup.client(Connect::v311("watcher").keep_alive(0)).await;
    watcher.subscribe(&[("TopicA/will", 2)]).await;
    let will = Message::new("TopicA/will", "keep alive expired", 2);
    let mut silent = setup.client(Connect::v311("silent").keep_alive(1).will(will)).await;
    let mut endless = setup.client(Connect::v311("endless").keep_alive(0)).await;
    assert_eq!(silent.next().await, Packet::Closed);
    assert_eq!(watcher.message().await.text(), "keep alive expired");
    endless.ping().await;
}

#[tokio::test]
async fn keep_alive_counts_what_the_client_sends_and_not_what_it_receives() {
    let setup = Setup::start().await;
    let mut silent = setup.client(Connect::v311("silent").keep_alive(1)).await;
    silent.subscribe(&[("test/stream", 0)]).await;
    let mut publisher = setup.v311("publisher").await;
    let stream = async {
        loop {
            publisher.publish(Message::new("test/stream", "x", 0)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = stream => {}
        reason = silent.closed() => assert_eq!(reason, None),
    }
}

#[tokio::test]
async fn unfinished_messages_come_again_after_a_reconnect() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v311("again").kept()).await;
    client.subscribe(&[("TopicA/#", 2)]).await;
    client.acknowledges = false;
    let mut publisher = setup.v311("publisher").await;
    publisher.publish(Message::new("TopicA/1", "one", 1)).await;
    publisher.publish(Message::new("TopicA/2", "two", 2)).await;
    let first = client.messages(2).await;
    client.disconnect().await;

    let mut client = setup.client(Connect::v311("again").kept()).await;
    client.acknowledges = false;
    let again = client.messages(2).await;
    assert!(again.iter().all(|message| message.dup));
    let without_dup: Vec<Message> = again.into_iter().map(|m| Message { dup: false, ..m }).collect();
    assert_eq!(without_dup, first);
    // Received but not complete: only its release comes again.
    client.ack(4, first[0].id).await;
    client.ack(5, first[1].id).await;
    assert_eq!(client.next().await, Packet::Ack { kind: 6, id: first[1].id, code: 0 });
    client.disconnect().await;

    let mut client = setup.client(Connect::v311("again").kept()).await;
    assert_eq!(client.next().await, Packet::Ack { kind: 6, id: first[1].id, code: 0 });
    client.ack(7, first[1].id).await;
    client.disconnect().await;
    let mut client = setup.client(Connect::v311("again").kept()).await;
    assert_eq!(client.until_now().await, []);
}

#[tokio::test]
async fn a_filter_that_is_not_allowed_is_refused_and_others_are_not() {
    let setup = Setup::start().await;
    let mut client = setup.v311("refused").await;
    assert_eq!(client.subscribe(&[("nosubscribe/x", 2), ("TopicA", 1), ("a/#/b", 0)]).await, [0x80, 1, 0x80]);
    client.ping().await;
}

#[tokio::test]
async fn wildcards_do_not_match_topics_that_begin_with_a_dollar() {
    let setup = Setup::start().await;
    let mut client = setup.client(Connect::v311("dollar").user("controller")).await;
    client.subscribe(&[("+/+", 2), ("#", 1)]).await;
    let before = client.until_now().await;
    assert!(before.iter().all(|m| !m.topic.starts_with('$')));
    client.publish(Message::new("$TopicA/B", "", 1)).await;
    client.publish(Message::new("TopicA/B", "x", 1)).await;
    let topics: Vec<String> = client.until_now().await.into_iter().map(|m| m.topic).collect();
    assert_eq!(topics, ["TopicA/B"]);
}

#[tokio::test]
async fn nothing_comes_after_unsubscribing() {
    let setup = Setup::start().await;
    let mut client = setup.v311("unsubscribe").await;
    client.subscribe(&[("TopicA", 2), ("TopicA/B", 2), ("a/C", 2)]).await;
    client.unsubscribe(&["TopicA", "never/subscribed"]).await;
    for topic in ["TopicA", "TopicA/B", "a/C"] {
        client.publish(Message::new(topic, "", 1)).await;
    }
    let topics: Vec<String> = client.until_now().await.into_iter().map(|m| m.topic).collect();
    assert_eq!(topics, ["TopicA/B", "a/C"]);
}
