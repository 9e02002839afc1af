//! Storms: more of everything than anybody means well by. Whoever means well goes on, and memory
//! stays within what the limits say.

use std::time::{Duration, Instant};

use pistat_broker::Limits;

use crate::setup::{Apart, be_the_broker, with_bounds};
use pistat_testkit::{
    packet::{Connect, Message},
    raw::Client,
};

/// Retained messages that the broker keeps in these tests.
const RETAINED: usize = 1_000;

/// How much more memory a storm may leave behind: what the limits below allow, and what an
/// allocator keeps for the next one.
const LEFT_BEHIND: u64 = 24 << 20;

/// Thousands with `PISTAT_HEAVY=1`; else so many that an ordinary limit of open files is enough.
fn many(ordinary: usize, heavy: usize) -> usize {
    if std::env::var_os("PISTAT_HEAVY").is_some() { heavy } else { ordinary }
}

async fn broker(test: &str) -> (Apart, Client, tempfile::TempDir) {
    let limits = Limits {
        // One account has a tenth of them.
        retained_messages: 10 * RETAINED,
        queue_bytes: 256 * 1024,
        ..with_bounds(|b| (b.queue_bytes_qos0, b.stalled_after_seconds, b.connect_seconds) = (64 * 1024, 2, 2))
    };
    be_the_broker(limits).await;
    let folder = tempfile::tempdir().unwrap();
    let broker = Apart::start(&format!("storms::{test}"), folder.path()).await;
    let mut good = Client::connect(broker.address, &Connect::v5("good").user("quiet")).await;
    good.subscribe(&[("good/#", 1)]).await;
    (broker, good, folder)
}

/// Somebody who means well goes on: each message comes back, in its time.
async fn goes_on(good: &mut Client) {
    for number in 0..20 {
        let text = number.to_string();
        assert_eq!(good.publish(Message::new("good/x", &text, 1)).await, 0);
        assert_eq!(good.message().await.text(), text);
    }
}

fn bounded(broker: &Apart, before: u64) {
    let after = broker.resident_bytes();
    println!("{before} bytes before, {after} after");
    assert!(after < before + LEFT_BEHIND, "{before} bytes before, {after} after");
}

#[tokio::test]
async fn many_connections_half_open_idle_and_gone_harm_nobody() {
    let (broker, mut good, _folder) = broker("many_connections_half_open_idle_and_gone_harm_nobody").await;
    let before = broker.resident_bytes();
    for _ in 0..3 {
        let (mut half_open, mut idle) = (Vec::new(), Vec::new());
        for number in 0..many(300, 5_000) {
            // Some say nothing, some begin to say something, some are let in and then say nothing
            // any more.
            let mut stranger = Client::raw(broker.address, true).await;
            if number % 2 == 0 {
                stranger.send(&[0x10, 40, 0, 4, b'M']).await;
            }
            half_open.push(stranger);
            if half_open.len() > 500 {
                half_open.remove(0);
            }
            let mut client =
                Client::connect(broker.address, &Connect::of(number % 2 == 0, &format!("idle-{number}"))).await;
            client.subscribe(&[(&format!("test/{number}"), 1)]).await;
            idle.push(client);
            if number % 50 == 0 {
                goes_on(&mut good).await;
            }
        }
        goes_on(&mut good).await;
    }
    goes_on(&mut good).await;
    bounded(&broker, before);
    broker.kill().await;
}

#[tokio::test]
async fn thousands_of_subscriptions_and_wildcards_over_everything_harm_nobody() {
    let (broker, mut good, _folder) =
        broker("thousands_of_subscriptions_and_wildcards_over_everything_harm_nobody").await;
    let before = broker.resident_bytes();
    let mut clients = Vec::new();
    for number in 0..many(8, 20) {
        let mut client = Client::connect(broker.address, &Connect::v5(&format!("many-{number}"))).await;
        let filters: Vec<String> = (0..990)
            .map(|n| match n % 3 {
                0 => format!("test/{n}/#"),
                1 => format!("test/+/{n}/+"),
                _ => format!("test/+/+/{n}/#"),
            })
            .collect();
        for some in filters.chunks(90) {
            let some: Vec<(&str, u8)> = some.iter().map(|filter| (filter.as_str(), 1)).collect();
            assert!(client.subscribe(&some).await.iter().all(|code| *code == 1));
        }
        clients.push(client);
        goes_on(&mut good).await;
    }
    // Each of these meets hundreds of filters of every client.
    let mut publisher = Client::connect(broker.address, &Connect::v5("publisher")).await;
    for number in 0..200 {
        publisher.publish(Message::new(&format!("test/{number}/{number}/{number}/x"), "x", 1)).await;
    }
    goes_on(&mut good).await;
    // Everything that is retained, asked for again and again, and never read.
    for number in 0..RETAINED / 2 {
        publisher.publish(Message::new(&format!("test/kept/{number}"), &"x".repeat(200), 1).retained()).await;
    }
    for client in &mut clients {
        client.acknowledges = false;
        for _ in 0..20 {
            let id = client.id();
            let filter = pistat_testkit::packet::string("test/#");
            client.send(&pistat_testkit::packet::packet(0x82, &[&id.to_be_bytes(), &[0], &filter, &[1]])).await;
        }
    }
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        goes_on(&mut good).await;
    }
    drop(clients);
    goes_on(&mut good).await;
    bounded(&broker, before);
    broker.kill().await;
}

#[tokio::test]
async fn a_flood_of_retained_messages_harms_nobody() {
    let (broker, mut good, _folder) = broker("a_flood_of_retained_messages_harms_nobody").await;
    let before = broker.resident_bytes();
    let mut flood = Client::connect(broker.address, &Connect::v5("flood")).await;
    for number in 0..many(5_000, 200_000) {
        // The answer says whether it was kept; none is lost on the way, and nobody is disconnected.
        flood
            .publish(Message::new(&format!("test/{number}/{}", "y".repeat(100)), &"x".repeat(1000), 1).retained())
            .await;
        if number % 500 == 0 {
            goes_on(&mut good).await;
        }
    }
    // What is kept reaches whoever asks, and no more than that.
    let mut reader = Client::connect(broker.address, &Connect::v5("reader")).await;
    reader.subscribe(&[("test/#", 0)]).await;
    let kept = reader.until_now().await.len();
    assert!((1..=RETAINED).contains(&kept), "{kept} are kept");
    goes_on(&mut good).await;
    bounded(&broker, before);
    broker.kill().await;
}

#[tokio::test]
async fn subscribers_that_never_read_harm_nobody() {
    let (broker, mut good, _folder) = broker("subscribers_that_never_read_harm_nobody").await;
    let before = broker.resident_bytes();
    let mut deaf = Vec::new();
    for number in 0..many(20, 200) {
        let mut client = Client::connect(broker.address, &Connect::v5(&format!("deaf-{number}"))).await;
        client.subscribe(&[("test/#", u8::from(number % 2 == 0))]).await;
        deaf.push(client);
    }
    // They take nothing more from now on. Publishers are slowed down for them at first, and then
    // they are ended.
    let mut publisher = Client::connect(broker.address, &Connect::v5("publisher")).await;
    let publishing = tokio::spawn(async move {
        for _ in 0..2_000 {
            publisher.publish(Message::new("test/x", &"x".repeat(10_000), 1)).await;
        }
    });
    while !publishing.is_finished() {
        goes_on(&mut good).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    publishing.await.unwrap();
    goes_on(&mut good).await;
    bounded(&broker, before);
    broker.kill().await;
}
