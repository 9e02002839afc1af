//! One enrolled machine that misbehaves as fast as it can costs itself, and neither the
//! controller's memory, log and state nor other machines.
//!
//! `PISTAT_FLOOD_SECONDS` sets how long each flood lasts; two seconds are enough to fail, sixty are
//! the requirement.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use pistat_protocol::{id::RunId, order::JoinToken, task::RunState};
use pistat_testkit::{
    DEADLINE, Stack, agent,
    packet::{self, Connect},
    usage,
};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

/// The most memory of the controller, whatever one machine does. A program that is not optimised is
/// larger.
const MOST_RESIDENT: u64 = if cfg!(debug_assertions) { 160 } else { 100 } * 1024 * 1024;

/// What it may write into its log and its state for one flood.
const MOST_WRITTEN: u64 = 5 * 1024 * 1024;

/// How many bytes are written to the socket at a time.
const BATCH_BYTES: usize = 64 * 1024;

/// How many peers join at a time.
const JOINERS: usize = 24;

/// How often each of their names asks, and how long it lasts at most.
const ASKED_BY_EACH: u64 = 500;
const NAME_LASTS: Duration = Duration::from_secs(2);

/// The message with a number: its topic below the machine's own, and its payload. The run is one
/// that the machine was sent and that has ended.
type Message = fn(u64, RunId) -> (String, Vec<u8>);

/// A flood by its name.
type Flood = (&'static str, Message);

const FLOODS: [Flood; 9] = [
    ("reports of runs that are not there", |n, _| (format!("task/{}/report", run(n)), REPORT.to_vec())),
    ("reports of a run that has ended", |_, own| (format!("task/{own}/report"), REPORT.to_vec())),
    ("reports that cannot be read", |n, own| (format!("task/{own}/report"), n.to_string().into_bytes())),
    ("output of a run that has ended", |n, own| {
        (format!("task/{own}/output"), format!(r#"{{"seq":{n},"stream":"stdout","data":"x"}}"#).into_bytes())
    }),
    ("output of runs that are not there", |n, _| {
        (format!("task/{}/output", run(n)), br#"{"seq":0,"stream":"stdout","data":"x"}"#.to_vec())
    }),
    ("an info that cannot be read", |n, _| ("info".into(), format!("{{\"label\":{n}\n\u{1b}[2J").into_bytes())),
    ("coming and going", |n, _| ("status".into(), if n.is_multiple_of(2) { "online" } else { "offline" }.into())),
    ("a sample that is too large", |_, _| ("stats".into(), vec![b'x'; 70_000])),
    ("samples of before", |_, _| ("stats/backfill".into(), b"[]".to_vec())),
];

const REPORT: &[u8] = br#"{"state":"succeeded","boot_id":"b","exit_code":0}"#;

fn run(number: u64) -> RunId {
    RunId::from_parts(number, [5; 10])
}

/// A connection of MQTT 3.1.1 that only writes: nothing that an honest client library does slows it
/// down.
async fn connect(address: SocketAddr, pi: &str, secret: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let connect = Connect::v311("").login(pi, secret).keep_alive(0);
    stream.write_all(&connect.encode()).await.unwrap();
    stream
}

/// Comes again and again under fresh names until the time is over, and asks each time as often as
/// it can to be enrolled. Returns how many requests were written.
async fn join_in_a_flood(address: SocketAddr, joiner: usize, secret: &str, lasts: Duration) -> u64 {
    let (end, mut count) = (Instant::now() + lasts, 0);
    for round in 0_u64.. {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let pi = format!("joiner-{joiner}-{round}");
        let mut stream = connect(address, &pi, secret).await;
        let mut bytes = Vec::new();
        for number in 0..ASKED_BY_EACH {
            let request = json!({"secret_sha256": "9".repeat(64), "nonce": format!("{round}-{number}")});
            let (topic, payload) = (format!("$pistat/enroll/{pi}/request"), request.to_string().into_bytes());
            bytes.extend(packet::Message { topic, payload, ..packet::Message::default() }.encode(false));
        }
        // What the broker does not read in time, the next name takes the place of.
        if tokio::time::timeout(left.min(NAME_LASTS), stream.write_all(&bytes)).await.is_ok_and(|sent| sent.is_ok()) {
            count += ASKED_BY_EACH;
        }
    }
    count
}

/// Publishes with `QoS` 0 until the time is over; tells how many messages were written.
async fn flood(stream: &mut TcpStream, message: Message, own: RunId, lasts: Duration) -> u64 {
    let (end, mut count) = (Instant::now() + lasts, 0);
    while Instant::now() < end {
        let (mut bytes, before) = (Vec::new(), count);
        while bytes.len() < BATCH_BYTES {
            let (topic, payload) = message(count, own);
            count += 1;
            let topic = format!("pistat/loud/{topic}");
            bytes.extend(packet::Message { topic, payload, ..packet::Message::default() }.encode(false));
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
        let limits = "[mqtt.limits]\npublish_rate = 0\nagent_publish_rate = 0\n";
        let mut stack = Stack::builder().config(limits).start().await;
        let http = stack.http();
        let _quiet: agent::Agent = stack.agent("quiet").online(&http).await;
        let mut honest = stack.fake_agent("loud").await;
        let own = http.start_run("echo", "loud", json!({"text": "x"})).await;
        honest.order().await;
        honest.report(own, RunState::Running, None, None).await;
        honest.report(own, RunState::Succeeded, Some(0), None).await;
        assert_eq!(http.ended(own, DEADLINE).await.state, RunState::Succeeded);
        let loud = honest.vanish().await;
        for (what, message) in FLOODS {
            let (state, log) = (bytes_below(&stack.state()), stack.process().stderr().concat().len() as u64);
            let events = http.events().await.first().map_or(0, |event| event.seq);
            let mut stream = connect(loud.address, "loud", &loud.credential.secret).await;
            let flooding = tokio::spawn(async move {
                let count = flood(&mut stream, message, own, lasts()).await;
                (stream, count)
            });
            let (ended, longest) = runs_meanwhile(what, &mut stack, || flooding.is_finished()).await;
            let (_stream, count) = flooding.await.unwrap();
            assert!(count > 0 && ended > 0, "{what}: {count} messages, {ended} runs");
            let state = bytes_below(&stack.state()).saturating_sub(state);
            let log = stack.process().stderr().concat().len() as u64 - log;
            assert!(state + log < MOST_WRITTEN, "{what}: {state} bytes of state, {log} of log by {count} messages");
            let told = http.events().await.into_iter().filter(|event| event.seq > events);
            let told = told.filter(|event| event.pi.as_ref().is_some_and(|pi| pi.as_str() == "loud")).count();
            assert!(told < 100, "{what}: {told} events");
            println!(
                "{what}: {count} messages, {ended} runs of {longest:?} at most, {state} bytes of state, {log} of log, \
                 {told} events; so far {} bytes written and {} resident at most",
                usage::written(stack.process().id()),
                usage::memory(stack.process().id(), "VmHWM"),
            );
        }
    }

    /// Many peers have one join token, and each comes under ever new names.
    #[tokio::test(flavor = "multi_thread")]
    async fn peers_that_flood_with_requests_to_join_cost_neither_the_controller_nor_other_machines() {
        let mut stack = Stack::start().await;
        let _quiet: agent::Agent = stack.agent("quiet").online(&stack.http()).await;
        let (address, token) = (stack.said.mqtt, stack.join_token().parse::<JoinToken>().unwrap());
        let mut joiners = JoinSet::new();
        for joiner in 0..JOINERS {
            let secret = token.secret.clone();
            joiners.spawn(async move { join_in_a_flood(address, joiner, &secret, lasts()).await });
        }
        let flooding = tokio::spawn(joiners.join_all());
        let what = "requests to join";
        let (ended, longest) = runs_meanwhile(what, &mut stack, || flooding.is_finished()).await;
        let count: u64 = flooding.await.unwrap().iter().sum();
        assert!(count > 0 && ended > 0, "{count} requests, {ended} runs");
        println!(
            "{what}: {count} messages, {ended} runs of {longest:?} at most, {} of log, {} bytes written, {} resident at most",
            stack.process().stderr().concat().len(),
            usage::written(stack.process().id()),
            usage::memory(stack.process().id(), "VmHWM"),
        );
    }

    /// Runs on the quiet machine, one after the other, until a flood is over: how many ended, and
    /// how long the slowest of them took.
    async fn runs_meanwhile(what: &str, stack: &mut Stack, is_over: impl Fn() -> bool) -> (u64, Duration) {
        let http = stack.http();
        let (mut ended, mut longest) = (0, Duration::ZERO);
        while !is_over() {
            let started = Instant::now();
            let run = http.start_run("echo", "quiet", json!({"text": "x"})).await;
            assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Succeeded, "{what}");
            (ended, longest) = (ended + 1, longest.max(started.elapsed()));
            let resident = stack.process().resident_bytes();
            assert!(resident < MOST_RESIDENT, "{what}: {resident} bytes resident");
        }
        (ended, longest)
    }
}
