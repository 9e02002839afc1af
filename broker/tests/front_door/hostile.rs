//! Bytes that mean harm: random, truncated, huge, out of place. Nobody else notices, and nothing grows.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::client::{Client, Connect, Message, Packet, packet, string};
use crate::setup::{Setup, eventually};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_spoilt_packets_harm_nobody() {
    let rounds = if std::env::var_os("PISTAT_HEAVY").is_some() { 200_000 } else { 3_000 };
    let setup = Setup::start().await;
    let mut good = setup.v5("good").await;
    good.subscribe(&[("test/good", 1)]).await;
    let address = setup.address;
    let attack = tokio::spawn(async move {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = move |bound: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % bound as u64).unwrap()
        };
        for round in 0..rounds {
            let v5 = round % 2 == 0;
            let mut bytes =
                if round % 3 == 0 { Vec::new() } else { Connect::of(v5, &format!("bad-{}", round % 50)).encode() };
            let specimens = specimens(v5);
            for _ in 0..=random(4) {
                let mut specimen = specimens[random(specimens.len())].clone();
                for _ in 0..random(4) {
                    let at = random(specimen.len());
                    specimen[at] = u8::try_from(random(256)).unwrap();
                }
                specimen.truncate(1 + random(specimen.len()));
                bytes.extend(specimen);
            }
            let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { continue };
            let _ = stream.write_all(&bytes).await;
        }
    });
    let mut slowest = Duration::ZERO;
    let mut count = 0;
    while !attack.is_finished() {
        let started = tokio::time::Instant::now();
        good.publish(Message::new("test/good", "still here", 1)).await;
        assert_eq!(good.message().await.text(), "still here");
        slowest = slowest.max(started.elapsed());
        count += 1;
    }
    attack.await.unwrap();
    assert!(count > 0 && slowest < Duration::from_secs(5), "{slowest:?}");
    good.ping().await;
    eventually("the attackers are gone", || setup.statistics().clients_connected == 1).await;
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
    for id in ["a/b", "a+b", "#", "$share", "é", "\u{1F980}", "a b", "..", "x\ny"] {
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
        for _ in 0..100 {
            client.send(&pings).await;
        }
    };
    // It answers as long as its answers are taken, then it stops reading: this never ends.
    let result = tokio::time::timeout(Duration::from_millis(1500), flood).await;
    let sent = setup.statistics().packets_in;
    assert!(result.is_err() || sent <= 5_000_001, "{sent}");
    setup.v5("good").await.ping().await;
    while !matches!(client.next().await, Packet::Pong) {}
}
