//! Bytes that mean harm: random, truncated, huge, out of place. Nobody else notices, and nothing
//! grows.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pistat_broker::Limits;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::setup::{Apart, Setup, be_the_broker, with_bounds};
use pistat_testkit::{
    packet::{Connect, Message, Packet, packet, string},
    raw::Client,
};

/// What the log's two segments may still take in.
const LOG_BYTES: u64 = 4 << 20;

/// Well-formed packets to be spoilt.
fn specimens(v5: bool) -> Vec<Vec<u8>> {
    let properties: &[u8] = if v5 { &[0] } else { &[] };
    vec![
        Connect::of(v5, "victim").encode(),
        Message { id: 3, ..Message::new("test/x", "payload", 2) }.encode(v5),
        Message::new("test/x", "payload", 0).encode(v5),
        packet(0x82, &[&[0, 1], properties, &string("test/#"), &[1]]),
        packet(0xA2, &[&[0, 1], properties, &string("test/#")]),
        packet(0x40, &[&[0, 1]]),
        packet(0x62, &[&[0, 1]]),
        vec![0xC0, 0],
        packet(0xE0, &[&[0, 0]]),
    ]
}

/// A small generator, another for each attacker.
fn random_numbers(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |bound| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % bound as u64).unwrap()
    }
}

/// Packets that one attacker sends in a second: thousands in all, and yet a machine's two cores are
/// not simply full.
const PACKETS_PER_SECOND: u32 = 1500;

/// Connects and sends packets of which most are broken, until time is up; says how many packets
/// these were.
async fn attack(address: SocketAddr, number: u64, until: Instant) -> u32 {
    let mut random = random_numbers(0x2545_F491_4F6C_DD1D ^ number << 7);
    let started = Instant::now();
    let mut packets = 0;
    while Instant::now() < until {
        let due = started + Duration::from_secs(1) * packets / PACKETS_PER_SECOND;
        tokio::time::sleep_until(due.into()).await;
        let v5 = random(2) == 0;
        let is_stranger = random(3) == 0;
        let id = format!("bad-{}", random(50));
        let mut bytes = if is_stranger { Vec::new() } else { Connect::of(v5, &id).encode() };
        let specimens = specimens(v5);
        for _ in 0..=random(8) {
            let mut specimen = specimens[random(specimens.len())].clone();
            for _ in 0..random(4) {
                let at = random(specimen.len());
                specimen[at] = u8::try_from(random(256)).unwrap();
            }
            // Half of them whole, so that what follows is looked at too.
            if random(2) == 0 {
                specimen.truncate(1 + random(specimen.len()));
            }
            bytes.extend(specimen);
            packets += 1;
        }
        let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { continue };
        let _ = stream.write_all(&bytes).await;
    }
    packets
}

/// How long a message to oneself takes, over and over until time is up, from the quickest to the
/// slowest.
async fn round_trips(client: &mut Client, until: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        client.publish(Message::new("good/x", "still here", 1)).await;
        assert_eq!(client.message().await.text(), "still here");
        took.push(started.elapsed());
        // A thousand a second at most: it is to be served, not to be the load.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    took.sort_unstable();
    took
}

/// A broker in a process of its own is attacked by several at once, while a good client goes on.
/// With `PISTAT_HEAVY=1` for three and a half minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_spoilt_packets_harm_nobody() {
    // What attackers with good credentials may rightly leave behind is little, so that anything
    // else shows.
    be_the_broker(Limits { retained_messages: 20, ..with_bounds(|b| b.sessions = 20) }).await;
    let is_heavy = std::env::var_os("PISTAT_HEAVY").is_some();
    let (warm_up, length) = if is_heavy { (20, 30) } else { (1, 1) };
    let folder = tempfile::tempdir().unwrap();
    let broker = Apart::start("hostile::thousands_of_spoilt_packets_harm_nobody", folder.path()).await;
    // Attackers use `home`; nobody else may publish where this one listens.
    let mut good = Client::connect(broker.address, &Connect::v5("good").user("quiet")).await;
    good.subscribe(&[("good/#", 1)]).await;
    let undisturbed = round_trips(&mut good, Instant::now() + Duration::from_secs(warm_up)).await;
    let mut weights = Vec::new();
    let mut packets = 0;
    let mut disturbed = Vec::new();
    for _ in 0..7 {
        let until = Instant::now() + Duration::from_secs(length);
        let mut attackers = JoinSet::new();
        for number in 0..4 {
            attackers.spawn(attack(broker.address, number, until));
        }
        disturbed.extend(round_trips(&mut good, until).await);
        packets += attackers.join_all().await.into_iter().sum::<u32>();
        good.ping().await;
        weights.push(broker.resident_bytes());
    }
    disturbed.sort_unstable();
    let at = |times: &[Duration], percent: usize| times[times.len() * percent / 100];
    println!(
        "{packets} packets in {} s; a message to oneself took {:?} (p99 {:?}) before, {:?} (p99 {:?}) meanwhile; {weights:?} bytes",
        7 * length,
        at(&undisturbed, 50),
        at(&undisturbed, 99),
        at(&disturbed, 50),
        at(&disturbed, 99),
    );
    assert!(packets > 1000 && !disturbed.is_empty(), "{packets} packets, {} messages", disturbed.len());
    assert!(weights[6] < weights[0] + weights[0] / 10 + LOG_BYTES, "{weights:?}");
    broker.kill().await;
}

#[tokio::test]
async fn whatever_is_not_mqtt_is_closed() {
    let setup = Setup::start().await;
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0], &[0; 64], &[0xFF; 64], &[0x10, 0xFF, 0xFF, 0xFF, 0xFF]]
    {
        let mut client = Client::raw(setup.address, true).await;
        client.send(bytes).await;
        assert_eq!(client.closed().await, None);
    }
    // A CONNECT that claims to be larger than any may be.
    let mut client = Client::raw(setup.address, true).await;
    client.send(&[0x10, 0x80, 0x80, 0x10]).await;
    assert_eq!(client.closed().await, None);
}

#[tokio::test]
async fn each_kind_of_broken_protocol_ends_its_own_connection_with_the_reason() {
    let setup = Setup::start().await;
    let mut subscriber = setup.v5("s").await;
    subscriber.subscribe(&[("test/#", 2)]).await;
    let cases: [(Vec<u8>, u8); 14] = [
        (packet(0x30, &[&string("test/+"), &[0]]), 0x90),
        (packet(0x30, &[&string("test/#"), &[0]]), 0x90),
        (packet(0x30, &[&string(""), &[0]]), 0x82),
        (packet(0x30, &[&[0, 3, b'a', 0, b'b'], &[0]]), 0x81),
        (packet(0x30, &[&[0, 2, 0xC3, 0x28], &[0]]), 0x81),
        (packet(0x36, &[&string("test/x"), &[0, 1, 0]]), 0x81),
        (packet(0x32, &[&string("test/x"), &[0, 0, 0]]), 0x82),
        (packet(0x30, &[&string("test/x"), &[2, 11, 1]]), 0x82),
        (packet(0x82, &[&[0, 1, 0]]), 0x82),
        (packet(0x82, &[&[0, 1, 0], &string("test/x"), &[0x40]]), 0x81),
        (packet(0x82, &[&[0, 1, 0], &string("$share/g/test/x"), &[4]]), 0x82),
        (packet(0x80, &[&[0, 1, 0], &string("test/x"), &[0]]), 0x81),
        (vec![0xF0, 0], 0x82),
        (vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], 0x81),
    ];
    for (bytes, reason) in cases {
        let mut client = setup.v5("c").await;
        // What came before counts.
        client.send(&Message::new("test/before", "x", 0).encode(true)).await;
        client.send(&bytes).await;
        assert_eq!(client.closed().await, Some(reason), "{bytes:02X?}");
        assert_eq!(subscriber.message().await.topic, "test/before");
    }
    assert_eq!(setup.statistics().protocol_errors, 14);
}

#[tokio::test]
async fn odd_names_are_only_names() {
    let setup = Setup::start().await;
    for id in ["a/b", "a+b", "#", "$share", "é", "\u{1F980}", "a b", ".."] {
        for _ in 0..2 {
            let mut client = setup.client(Connect::v5(id).kept()).await;
            assert_eq!(client.subscribe(&[("test/é/#", 1), ("+/é", 1)]).await, [1, 1]);
            client.publish(Message::new("test/é/\u{1F980}", "x", 1)).await;
            assert_eq!(client.message().await.topic, "test/é/\u{1F980}");
        }
    }
    let long = "x".repeat(2000);
    assert_eq!(Client::refused(setup.address, &Connect::v5(&long)).await, 0x85);
    // An empty message that is not retained removes nothing.
    let mut client = setup.v5("c").await;
    client.publish(Message::new("test/kept", "x", 1).retained()).await;
    client.publish(Message::new("test/kept", "", 1)).await;
    client.subscribe(&[("test/kept", 1)]).await;
    assert_eq!(client.message().await.text(), "x");
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_fill_the_broker() {
    let setup = Setup::start().await;
    let mut client = setup.v5("deaf").await;
    let pings = [0xC0, 0].repeat(50_000);
    let flood = async {
        loop {
            client.send(&pings).await;
        }
    };
    // It answers as long as its answers are taken, then it stops reading.
    let taken = || setup.statistics().packets_in;
    let stops = async {
        let mut before = 0;
        while before == 0 || before != taken() {
            before = taken();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = flood => unreachable!("it floods for ever"),
        stopped = tokio::time::timeout(Duration::from_secs(30), stops) => stopped.expect("the broker stops reading"),
    }
    setup.v5("good").await.ping().await;
    while !matches!(client.next().await, Packet::Pong) {}
}
