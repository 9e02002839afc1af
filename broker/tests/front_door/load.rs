//! Order, completeness and bounds under load. `PISTAT_HEAVY=1` makes the counts those of a long
//! night.

use std::collections::{HashMap, HashSet};

use pistat_broker::Limits;
use tokio::task::JoinSet;

use crate::setup::{Setup, with_bounds};
use pistat_testkit::{
    packet::{Connect, Message, Packet},
    raw::Client,
};

/// A count for the quick run, and the one for the heavy run.
fn count(quick: usize, heavy: usize) -> usize {
    if std::env::var_os("PISTAT_HEAVY").is_some() { heavy } else { quick }
}

/// A small generator: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Many publishers, overlapping subscriptions, clients that come and go, and an oracle: what each
/// publisher has sent. Every `QoS` 1 subscriber gets each message at least once and first in its
/// publisher's order, every `QoS` 2 subscriber exactly once; both keep their sessions through
/// broken connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered_whatever_the_clients_do() {
    let (publishers, messages) = (6, count(600, 20_000));
    let setup = Setup::start().await;
    let address = setup.address;
    let mut subscribers = JoinSet::new();
    let (ready, mut is_ready) = tokio::sync::mpsc::channel(16);
    for (number, filters) in
        [&[("test/#", 1)][..], &[("test/#", 2)], &[("test/+/x", 2), ("test/#", 2)], &[("test/0/#", 1), ("test/#", 1)]]
            .into_iter()
            .enumerate()
    {
        let (filters, ready) = (filters.to_vec(), ready.clone());
        subscribers.spawn(async move {
            let received = subscriber(address, number, &filters, publishers * messages, ready).await;
            (filters[0].1, received)
        });
    }
    for _ in 0..4 {
        is_ready.recv().await.unwrap();
    }
    let mut senders = JoinSet::new();
    for publisher in 0..publishers {
        senders.spawn(publish_with_interruptions(address, publisher, messages));
    }
    while let Some(result) = senders.join_next().await {
        result.unwrap();
    }
    while let Some(result) = subscribers.join_next().await {
        let (qos, received) = result.unwrap();
        check(qos, &received, publishers, messages);
    }
}

fn check(qos: u8, received: &[(usize, usize)], publishers: usize, messages: usize) {
    let mut next: HashMap<usize, usize> = HashMap::new();
    for &(publisher, number) in received {
        let next = next.entry(publisher).or_default();
        if number == *next {
            *next += 1;
        } else {
            // A repetition, of something that has been; never a gap, and never with QoS 2.
            assert!(number < *next && qos == 1, "QoS {qos}: {number} of publisher {publisher} instead of {next}");
        }
    }
    assert!((0..publishers).all(|publisher| next[&publisher] == messages));
}

/// Publishes in its own order; breaks the connection now and then and repeats what was not
/// acknowledged.
async fn publish_with_interruptions(address: std::net::SocketAddr, publisher: usize, messages: usize) {
    let mut random = Random(publisher as u64 + 1);
    let v5 = publisher.is_multiple_of(2);
    let connect = Connect::of(v5, &format!("publisher-{publisher}")).kept();
    let mut client = Client::connect(address, &connect).await;
    for number in 0..messages {
        // Only QoS 2 can be repeated without a double, so that is what an interrupted publisher
        // uses.
        let id = u16::try_from(number % 60_000 + 1).unwrap();
        let message =
            Message { id, ..Message::new(&format!("test/{publisher}/x"), &format!("{publisher} {number}"), 2) };
        client.send(&message.encode(v5)).await;
        if random.below(200) == 0 {
            client = Client::connect(address, &connect).await;
            client.send(&Message { dup: true, ..message }.encode(v5)).await;
        }
        client.expect_ack(5, id).await;
        client.ack(6, id).await;
        client.expect_ack(7, id).await;
    }
}

/// Publishers of `QoS` 1 repeat what was not acknowledged: it may come twice then, and is never
/// missing or out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_of_qos_1_that_are_interrupted_lose_nothing() {
    let (publishers, messages) = (4, count(500, 20_000));
    let setup = Setup::start().await;
    let address = setup.address;
    let (ready, mut is_ready) = tokio::sync::mpsc::channel(1);
    let subscribing = tokio::spawn(subscriber(address, 0, &[("test/#", 1)], publishers * messages, ready));
    is_ready.recv().await.unwrap();
    let mut senders = JoinSet::new();
    for publisher in 0..publishers {
        senders.spawn(async move {
            let mut random = Random(publisher as u64 + 1);
            let v5 = publisher.is_multiple_of(2);
            // Half of them have no session that could remember anything.
            let connect = Connect { clean: publisher < 2, ..Connect::of(v5, &format!("publisher-{publisher}")) };
            let mut client = Client::connect(address, &connect).await;
            for number in 0..messages {
                let id = u16::try_from(number % 60_000 + 1).unwrap();
                let text = format!("{publisher} {number}");
                let message = Message { id, ..Message::new(&format!("test/{publisher}/x"), &text, 1) };
                client.send(&message.encode(v5)).await;
                if random.below(20) == 0 {
                    client = Client::connect(address, &connect).await;
                    client.send(&Message { dup: true, ..message }.encode(v5)).await;
                }
                client.expect_ack(4, id).await;
            }
        });
    }
    while let Some(result) = senders.join_next().await {
        result.unwrap();
    }
    check(1, &subscribing.await.unwrap(), publishers, messages);
}

/// Many publish states on the same topics at once. Everybody sees them in one order, and what is
/// retained is the last of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_retained_is_what_everybody_has_seen_last() {
    let (publishers, topics, messages) = (8, 5, count(200, 20_000));
    let setup = Setup::start().await;
    let address = setup.address;
    let mut watchers = Vec::new();
    for qos in 0..3 {
        let mut watcher = setup.client(Connect::of(qos == 1, &format!("watcher-{qos}"))).await;
        watcher.subscribe(&[("test/#", qos)]).await;
        watchers.push(tokio::spawn(async move {
            let mut seen: HashMap<String, Vec<String>> = HashMap::new();
            for message in watcher.messages(publishers * messages).await {
                seen.entry(message.topic.clone()).or_default().push(message.text());
            }
            seen
        }));
    }
    let mut senders = JoinSet::new();
    for publisher in 0..publishers {
        senders.spawn(async move {
            let mut random = Random(publisher as u64 + 1);
            let mut client = Client::connect(address, &Connect::v5(&format!("publisher-{publisher}"))).await;
            for number in 0..messages {
                // QoS 0 may pass by what waits for a full window, so it has no order with the
                // others.
                let (topic, qos) = (random.below(topics), u8::try_from(1 + random.below(2)).unwrap());
                let message = Message::new(&format!("test/{topic}"), &format!("{publisher} {number}"), qos);
                client.publish(message.retained()).await;
            }
            client.ping().await;
        });
    }
    while let Some(result) = senders.join_next().await {
        result.unwrap();
    }
    let mut orders = Vec::new();
    for watcher in watchers {
        orders.push(watcher.await.unwrap());
    }
    let mut late = setup.v5("late").await;
    late.subscribe(&[("test/#", 2)]).await;
    let retained: HashMap<String, Vec<String>> =
        late.until_now().await.into_iter().map(|message| (message.topic.clone(), vec![message.text()])).collect();
    assert_eq!(retained.len() as u64, topics);
    for order in &orders {
        assert_eq!(order, &orders[0]);
        let last: HashMap<String, Vec<String>> =
            order.iter().map(|(topic, seen)| (topic.clone(), seen[seen.len() - 1..].to_vec())).collect();
        assert_eq!(last, retained);
    }
}

async fn subscriber(
    address: std::net::SocketAddr,
    number: usize,
    filters: &[(&str, u8)],
    expected: usize,
    ready: tokio::sync::mpsc::Sender<()>,
) -> Vec<(usize, usize)> {
    let mut random = Random(number as u64 + 99);
    let connect = Connect::of(number.is_multiple_of(2), &format!("subscriber-{number}")).kept();
    let mut client = Client::connect(address, &connect).await;
    client.subscribe(filters).await;
    ready.send(()).await.unwrap();
    let mut received: Vec<(usize, usize)> = Vec::new();
    let mut unreleased: HashSet<u16> = HashSet::new();
    let mut distinct = 0;
    let mut highest: HashMap<usize, usize> = HashMap::new();
    while distinct < expected {
        match client.next().await {
            Packet::Publish(message) => {
                let is_new = message.qos != 2 || unreleased.insert(message.id);
                let text = message.text();
                let (publisher, number) = text.split_once(' ').unwrap();
                let at: (usize, usize) = (publisher.parse().unwrap(), number.parse().unwrap());
                if is_new {
                    received.push(at);
                    let highest = highest.entry(at.0).or_default();
                    if at.1 == *highest {
                        *highest += 1;
                        distinct += 1;
                    }
                }
                client.ack(if message.qos == 2 { 5 } else { 4 }, message.id).await;
            }
            Packet::Ack { kind: 6, id, .. } => {
                unreleased.remove(&id);
                client.ack(7, id).await;
            }
            Packet::Closed => client = Client::connect(address, &connect).await,
            other => panic!("unexpected: {other:?}"),
        }
        if random.below(500) == 0 {
            client = Client::connect(address, &connect).await;
        }
    }
    received
}

/// Receives `each` messages of fifty publishers, each publisher's in their order.
async fn come_in_order(subscriber: &mut Client, mut publishers: JoinSet<()>, each: usize) {
    let mut next = vec![0; 50];
    for _ in 0..50 * each {
        let message = subscriber.message().await;
        let text = message.text();
        let (publisher, number) = text.split_once(' ').unwrap();
        let publisher: usize = publisher.parse().unwrap();
        assert_eq!(number.trim_end().parse::<usize>().unwrap(), next[publisher]);
        next[publisher] += 1;
    }
    while let Some(result) = publishers.join_next().await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_publishers_at_full_speed_lose_nothing_with_qos_1() {
    let each = count(2_000, 20_000);
    let setup = Setup::with_limits(Limits { queue_bytes: 256 * 1024, ..Limits::default() }).await;
    let mut subscriber = setup.client(Connect::v311("healthy").kept()).await;
    subscriber.subscribe(&[("test/#", 1)]).await;
    let mut publishers = JoinSet::new();
    for publisher in 0..50 {
        let address = setup.address;
        publishers.spawn(async move { pipeline(address, publisher, each).await });
    }
    come_in_order(&mut subscriber, publishers, each).await;
    assert_eq!(setup.statistics().dropped_with_session, 0);
    assert_eq!(subscriber.until_now().await, []);
}

/// With `QoS` 0 nobody acknowledges, so the publishers are slowed by not being read: as long as the
/// subscriber keeps up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_publishers_at_full_speed_lose_nothing_with_qos_0_while_the_subscriber_keeps_up() {
    let each = count(1_000, 20_000);
    // However busy the machine is, this subscriber counts as one that keeps up.
    let limits = Limits { qos0_backpressure_milliseconds: 20_000, ..with_bounds(|b| b.queue_bytes_qos0 = 256 * 1024) };
    let setup = Setup::with_limits(limits).await;
    let mut subscriber = setup.v311("healthy").await;
    subscriber.subscribe(&[("test/#", 0)]).await;
    let mut publishers = JoinSet::new();
    for publisher in 0..50 {
        let address = setup.address;
        publishers.spawn(async move {
            let mut client = Client::connect(address, &Connect::v5(&format!("p{publisher}"))).await;
            for number in 0..each {
                let text = format!("{publisher} {number:<400}");
                client.publish(Message::new(&format!("test/{publisher}"), &text, 0)).await;
            }
            client.disconnect().await;
        });
    }
    come_in_order(&mut subscriber, publishers, each).await;
    assert!(setup.statistics().publishers_slowed > 0);
    assert_eq!(setup.statistics().dropped_qos0, 0);
}

/// Publishes with up to a hundred messages under way.
async fn pipeline(address: std::net::SocketAddr, publisher: usize, messages: usize) {
    let mut client = Client::connect(address, &Connect::v5(&format!("p{publisher}"))).await;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < messages {
        while sent < messages && sent - acknowledged < 100 {
            let id = u16::try_from(sent % 60_000 + 1).unwrap();
            let text = format!("{publisher} {sent:<400}");
            client.send(&Message { id, ..Message::new(&format!("test/{publisher}"), &text, 1) }.encode(true)).await;
            sent += 1;
        }
        match client.next().await {
            Packet::Ack { kind: 4, code: 0, .. } => acknowledged += 1,
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// Each floods the other: neither is waited for at the cost of its own acknowledgements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_publish_to_each_other_at_full_speed_do_not_wait_for_each_other_for_ever() {
    let each = count(3_000, 100_000);
    let limits = Limits { queue_bytes: 128 * 1024, ..with_bounds(|b| b.stalled_after_seconds = 5) };
    let setup = Setup::with_limits(limits).await;
    let mut both = JoinSet::new();
    let ready = std::sync::Arc::new(tokio::sync::Barrier::new(3));
    for (from, to) in [(0, 1), (1, 0), (2, 1)] {
        let (address, ready) = (setup.address, ready.clone());
        both.spawn(async move { talk(address, from, to, each, &ready).await });
    }
    while let Some(result) = both.join_next().await {
        result.unwrap();
    }
    assert_eq!((setup.statistics().sessions_ended, setup.statistics().dropped_with_session), (0, 0));
}

/// Publishes to another while it receives: number 1 from two, number 0 from one, number 2 from
/// nobody.
async fn talk(address: std::net::SocketAddr, from: usize, to: usize, messages: usize, ready: &tokio::sync::Barrier) {
    let mut client = Client::connect(address, &Connect::v5(&format!("talker-{from}"))).await;
    client.subscribe(&[(&format!("test/{from}/#"), 1)]).await;
    ready.wait().await;
    let expected = [1, 2, 0][from] * messages;
    let (mut sent, mut acknowledged, mut next) = (0, 0, [0; 3]);
    while acknowledged < messages || next.iter().sum::<usize>() < expected {
        while sent < messages && sent - acknowledged < 200 {
            let id = u16::try_from(sent % 60_000 + 1).unwrap();
            let message = Message { id, ..Message::new(&format!("test/{to}/{from}"), &format!("{sent:<1000}"), 1) };
            client.send(&message.encode(true)).await;
            sent += 1;
        }
        match client.next().await {
            Packet::Ack { kind: 4, code: 0, .. } => acknowledged += 1,
            Packet::Publish(message) => {
                let publisher: usize = message.topic.rsplit('/').next().unwrap().parse().unwrap();
                assert_eq!(message.text().trim_end().parse::<usize>().unwrap(), next[publisher]);
                next[publisher] += 1;
                client.ack(4, message.id).await;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}
