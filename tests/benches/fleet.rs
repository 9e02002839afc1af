//! What a fleet costs: a simulated one against a real controller, and against the Python original's
//! shape.
//!
//! `cargo bench -p pistat-tests --bench fleet -- WHAT`, where WHAT is
//! `feed` (a sample's way to the browser's WebSocket frame, and the controller's processor time,
//! machines × browsers), `original` (the same of `original/main.py`; `PISTAT_ORIGINAL_PYTHON` names
//! a Python with its requirements), `beside` (the two in turns, cell by cell, so that both meet the
//! same disturbances, and their ratios), `start` (from the program's start until it serves) and
//! `memory`, each with 0, 1,000 and 10,000 machines, `charts` (the memory of 1,000 and 10,000 once
//! their charts are full, which takes them minutes), `writes` (bytes to the disk in an hour), or
//! `curve` (cost per sample and per browser from 10 to 10,000 machines, drawn into
//! `docs/images/cost-per-sample.svg`).
//!
//! `PISTAT_BENCH_SECONDS` is how long each row is measured, `PISTAT_BENCH_MACHINES` and
//! `PISTAT_BENCH_BROWSERS` are lists such as `50,200`.

#[path = "fleet/curve.rs"]
mod curve;
#[path = "fleet/load.rs"]
mod load;
#[path = "fleet/original.rs"]
mod original;

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use load::{Cost, Row, report, seconds};
use pistat_protocol::{api::History, id::PiId};
use pistat_sim::{Counts, Fleet, Plan, Roll};
use pistat_testkit::{Feed, Stack, eventually, usage};

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    match words.first().map(String::as_str) {
        Some("feed") => feed().await,
        Some("original") => original::measure().await,
        Some("beside") => beside().await,
        Some("start") => start().await,
        Some("memory") => memory(&[0, 1000, 10_000], false).await,
        Some("charts") => memory(&[1000, 10_000], true).await,
        Some("writes") => writes().await,
        Some("curve") => curve::measure().await,
        _ => eprintln!("say what: feed, original, beside, start, memory, charts, writes or curve"),
    }
}

/// A controller with so many machines, all connected.
async fn fleet(machines: usize, interval: Duration, epoch: Instant) -> (Stack, Fleet) {
    let (stack, fleet, _) = fleet_with(machines, interval, epoch, false).await;
    (stack, fleet)
}

/// The same; with a past, each machine first tells a day that it had measured before.
async fn fleet_with(
    machines: usize,
    interval: Duration,
    epoch: Instant,
    has_a_past: bool,
) -> (Stack, Fleet, Vec<PiId>) {
    let stack = Stack::builder().packaged().environment("PISTAT_ENROLMENT__PER_HOUR", "1000000").start().await;
    let mut roll = Roll::default();
    let token = stack.join_token().parse().expect("the controller wrote a join token");
    let plan = Plan {
        interval,
        ramp: Duration::from_millis(u64::try_from(machines).unwrap_or(0) / 2),
        marks_since: Some(epoch),
        has_a_past,
        ..Plan::new(stack.said.mqtt)
    };
    let credentials = roll.fill(stack.said.mqtt, &token, &plan.topics, machines).await.expect("the fleet enrols");
    let names = credentials.iter().map(|credential| credential.pi.clone()).collect();
    let fleet = Fleet::start(plan, credentials);
    fleet.connected(machines as u64).await;
    (stack, fleet, names)
}

async fn feed() {
    let epoch = Instant::now();
    println!("{}", Row::HEAD);
    for machines in load::list("PISTAT_BENCH_MACHINES", &[50, 200, 1000]) {
        let (mut stack, fleet) = fleet(machines, Duration::from_secs(1), epoch).await;
        for browsers in load::list("PISTAT_BENCH_BROWSERS", &[1, 10, 50]) {
            println!("{}", row(&mut stack, machines, browsers, epoch).await);
        }
        drop(fleet);
    }
}

/// One cell of the table.
async fn row(stack: &mut Stack, machines: usize, browsers: usize, epoch: Instant) -> Row {
    let mut feeds = Vec::new();
    for _ in 0..browsers {
        feeds.push(stack.feed().await);
    }
    load::watch(machines, feeds, stack.process().id(), epoch, read_marks).await
}

/// Ours and the original's, cell by cell, neither while the other is there.
async fn beside() {
    let epoch = Instant::now();
    println!("            {}", Row::HEAD);
    for machines in load::list("PISTAT_BENCH_MACHINES", &[50, 200, 1000]) {
        for browsers in load::list("PISTAT_BENCH_BROWSERS", &[1, 10, 50]) {
            let (mut stack, fleet) = fleet(machines, Duration::from_secs(1), epoch).await;
            let ours = row(&mut stack, machines, browsers, epoch).await;
            drop((stack, fleet));
            let theirs = original::row(machines, browsers, epoch).await;
            println!("ours        {ours}\noriginal's  {theirs}\nratio       {}", ours.ratio(&theirs));
        }
    }
}

/// The next frame's marks: when each of its samples was said.
async fn read_marks(feed: &mut Feed, marks: &mut Vec<u64>) -> bool {
    let Some(text) = feed.text().await else { return false };
    load::marks(&text, "\"disk_read_bytes_per_second\":", marks);
    true
}

/// From the start of the program until `/healthz` answers, with what so many machines have left in
/// the state folder.
async fn start() {
    for machines in load::list("PISTAT_BENCH_MACHINES", &[0, 1000, 10_000]) {
        let (mut stack, fleet) = fleet(machines, Duration::from_secs(5), Instant::now()).await;
        // Every machine has said something, and it is on the disk.
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(fleet);
        let mut took = Vec::new();
        for _ in 0..10 {
            assert_eq!(stack.stop().await, 0);
            let address = stack.said.http_address;
            let started = Instant::now();
            let ready = std::thread::spawn(move || {
                while !answers(address) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                started.elapsed()
            });
            stack.restart().await;
            took.push(ready.join().expect("the controller answers"));
        }
        report(&format!("{machines} machines, from the start until it serves"), &mut took);
    }
}

fn answers(address: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let mut answer = String::new();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// What a fleet keeps that has just connected; or one that was there for a day.
async fn memory(sizes: &[usize], has_a_past: bool) {
    let charts = if has_a_past { "full charts" } else { "no charts yet" };
    println!(
        "machines  resident MB  of it its own MB  % of a core   ({charts}, a sample of each machine every 5 s, one browser)"
    );
    for machines in load::list("PISTAT_BENCH_MACHINES", sizes) {
        let interval = Duration::from_secs(5);
        let (mut stack, fleet, names) = fleet_with(machines, interval, Instant::now(), has_a_past).await;
        if has_a_past {
            charts_are_full(&stack, &names).await;
        }
        let _feed = stack.feed().await;
        let cost = Cost::of(stack.process().id());
        tokio::time::sleep(Duration::from_secs(seconds(30))).await;
        let cost = cost.since();
        println!("{machines:>8}  {:>11.1}  {:>15.1}  {:>11.1}", cost.resident_mb, cost.own_mb, cost.core_percent);
        drop(fleet);
    }
}

/// Waits until the controller has the whole day of every fiftieth machine: to ask for all of them
/// would be a load of its own.
async fn charts_are_full(stack: &Stack, fleet: &[PiId]) {
    let http = stack.http();
    for pi in fleet.iter().step_by(50) {
        eventually(&format!("the charts of {pi} are full"), Duration::from_secs(1200), async || {
            for (seconds, steps) in [(3600, 350), (86_400, 280)] {
                let history: History = http.get(&format!("/api/pis/{pi}/history?seconds={seconds}")).await.json();
                let known = history.cpu_percent.iter().flatten().count();
                if known < steps {
                    return Err(format!("{known} steps of {seconds} seconds"));
                }
            }
            Ok(())
        })
        .await;
    }
}

/// Before the fleet is idle: what joins is written down, told to Home Assistant, and remembered.
const JOINED: Duration = Duration::from_secs(90);

async fn writes() {
    let machines = 10;
    let (mut stack, fleet) = fleet(machines, Duration::from_secs(5), Instant::now()).await;
    tokio::time::sleep(JOINED).await;
    let id = stack.process().id();
    let (before, started) = (usage::written(id), Instant::now());
    // Where nothing is counted (a state folder in memory, such as a tmpfs on /tmp), nothing can be
    // said.
    assert!(before > 0, "nothing was written when ten machines joined: set TMPDIR to a folder on a disk");
    tokio::time::sleep(Duration::from_secs(seconds(240))).await;
    let bytes = usage::written(id) - before;
    let hours = started.elapsed().as_secs_f64() / 3600.0;
    let samples = Counts::get(&fleet.counts().samples);
    println!(
        "{machines} idle machines: {bytes} bytes in {:.0} s, {:.2} MB an hour ({samples} samples; {before} bytes before, when they joined)",
        hours * 3600.0,
        bytes as f64 / 1e6 / hours
    );
}
