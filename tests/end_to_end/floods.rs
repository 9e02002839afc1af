//! One enrolled machine that misbehaves as fast as it can: it costs itself, and neither the controller's memory, log and state nor other machines.
//!
//! `PISTAT_FLOOD_SECONDS` says how long each flood lasts; two seconds are enough to fail by, sixty are the requirement.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use pistat_protocol::{id::RunId, task::RunState};
use pistat_tests::{PATIENCE, Stack, agent};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// What the controller may take in memory at the most, whatever one machine does. A program that is not optimised is larger.
const MOST_RESIDENT: u64 = if cfg!(debug_assertions) { 160 } else { 100 } * 1024 * 1024;

/// What it may write into its log and its state for one flood.
const MOST_WRITTEN: u64 = 5 * 1024 * 1024;

/// How many bytes are written to the socket at a time.
const BATCH_BYTES: usize = 64 * 1024;

/// A flood by its name: the topic below the machine's own, and the payload of each message.
type Flood = (&'static str, fn(u64) -> (String, Vec<u8>));

const FLOODS: [Flood; 7] = [
    ("reports of runs that are not there", |n| (format!("task/{}/report", run(n)), REPORT.to_vec())),
    ("reports that cannot be read", |n| (format!("task/{}/report", run(1)), n.to_string().into_bytes())),
    ("output of runs that are not there", |n| {
        (format!("task/{}/output", run(n)), br#"{"seq":0,"stream":"stdout","data":"x"}"#.to_vec())
    }),
    ("an info that cannot be read", |n| ("info".into(), format!("{{\"label\":{n}\n\u{1b}[2J").into_bytes())),
    ("coming and going", |n| ("status".into(), if n.is_multiple_of(2) { "online" } else { "offline" }.into())),
    ("a sample that is too large", |_| ("stats".into(), vec![b'x'; 70_000])),
    ("samples of before", |_| ("stats/backfill".into(), b"[]".to_vec())),
];

const REPORT: &[u8] = br#"{"state":"succeeded","boot_id":"b","exit_code":0}"#;

fn run(number: u64) -> RunId {
    RunId::from_parts(number, [5; 10])
}

fn field(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut packet, mut length) = (vec![first], body.len());
    loop {
        let byte = u8::try_from(length % 128).unwrap();
        length /= 128;
        packet.push(if length > 0 { byte | 128 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// A connection of MQTT 3.1.1 that only writes: nothing that an honest client library does slows it down.
async fn connect(address: SocketAddr, pi: &str, secret: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body =
        [&field(b"MQTT")[..], &[4, 0b1100_0010, 0, 0], &field(b""), &field(pi.as_bytes()), &field(secret.as_bytes())];
    stream.write_all(&packet(0x10, &body.concat())).await.unwrap();
    stream
}

/// Publishes with `QoS` 0 until the time is over; tells how many messages were written.
async fn flood(stream: &mut TcpStream, message: fn(u64) -> (String, Vec<u8>), lasts: Duration) -> u64 {
    let (end, mut count) = (Instant::now() + lasts, 0);
    while Instant::now() < end {
        let (mut bytes, before) = (Vec::new(), count);
        while bytes.len() < BATCH_BYTES {
            let (topic, payload) = message(count);
            count += 1;
            let body = [field(format!("pistat/loud/{topic}").as_bytes()), payload].concat();
            bytes.extend_from_slice(&packet(0x30, &body));
        }
        // Back-pressure is the broker's way to say that it is enough.
        match tokio::time::timeout(end.saturating_duration_since(Instant::now()), stream.write_all(&bytes)).await {
            Ok(written) => written.expect("a flood is slowed down, not disconnected"),
            // A packet may be cut where the time ended: this connection says nothing more.
            Err(_) => return before,
        }
    }
    count
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// How long each flood lasts.
fn lasts() -> Duration {
    let seconds = std::env::var("PISTAT_FLOOD_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(2))
}

mod embedded_only {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_machine_that_floods_costs_neither_the_controller_nor_other_machines() {
        // What is tried is the controller: without a rate at the broker's door.
        let mut stack = Stack::builder().config("[mqtt.limits]\npublish_rate = 0\n").start().await;
        let http = stack.http();
        let _quiet: agent::Agent = stack.agent("quiet").online(&http).await;
        let loud = stack.door().identity("loud").await.expect("it enrols");
        for (what, message) in FLOODS {
            let (state, log) = (bytes_below(&stack.state()), stack.process().stderr().concat().len() as u64);
            let events = http.events().await.first().map_or(0, |event| event.seq);
            let mut stream = connect(loud.address, "loud", &loud.secret).await;
            let flooding = tokio::spawn(async move {
                let count = flood(&mut stream, message, lasts()).await;
                (stream, count)
            });
            let mut ended = 0;
            while !flooding.is_finished() {
                let run = http.start_run("echo", "quiet", json!({"text": "x"})).await;
                assert_eq!(http.ended(run, PATIENCE).await.state, RunState::Succeeded, "{what}");
                ended += 1;
                let resident = stack.process().resident_bytes();
                assert!(resident < MOST_RESIDENT, "{what}: {resident} bytes resident");
            }
            let (_stream, count) = flooding.await.unwrap();
            assert!(count > 0 && ended > 0, "{what}: {count} messages, {ended} runs");
            let state = bytes_below(&stack.state()).saturating_sub(state);
            let log = stack.process().stderr().concat().len() as u64 - log;
            assert!(state + log < MOST_WRITTEN, "{what}: {state} bytes of state, {log} of log by {count} messages");
            let told = http.events().await.into_iter().filter(|event| event.seq > events);
            let told = told.filter(|event| event.pi.as_ref().is_some_and(|pi| pi.as_str() == "loud")).count();
            assert!(told < 100, "{what}: {told} events");
            println!("{what}: {count} messages, {ended} runs, {state} bytes of state, {log} of log, {told} events");
        }
    }
}
