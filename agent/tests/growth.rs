//! Days of samples, in the agent's own time: nothing grows, and what is missed is bounded, marked
//! and paced.
//!
//! The whole agent but its connection, as the controller embeds it. Its clock is the test's, which
//! jumps to the next thing to do, so that six days of samples every five seconds take seconds (and
//! sensors, which are asked in other threads, seldom answer in time). The long form is run with
//! `cargo test -p pistat-agent --test growth -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path, time::Duration};

use pistat_agent::{AgentError, AgentOptions, Incoming, Outgoing};
use pistat_protocol::{order::ControllerKey, stats::Sample, topic::Topic};
use pistat_testkit::usage;
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// These tests weigh their process: each is alone in it.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The resident memory of this process in kilobytes.
fn resident() -> i64 {
    i64::try_from(usage::memory(std::process::id(), "VmRSS") / 1024).unwrap()
}

/// An agent whose connection is the test.
struct Embedded {
    hear: mpsc::Sender<Incoming>,
    said: mpsc::Receiver<Outgoing>,
    stop: CancellationToken,
    agent: JoinHandle<Result<(), AgentError>>,
    _runs: TempDir,
}

impl Embedded {
    async fn start(root: &Path) -> Self {
        let runs = tempfile::tempdir().unwrap();
        let key = ControllerKey::from_secret(&[7; 32]).public();
        let mut options = AgentOptions::new("pi-1".parse().unwrap(), runs.path().join("runs"), key);
        options.root = root.to_owned();
        let (hear, heard) = mpsc::channel(8);
        let (say, said) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let agent = tokio::spawn(pistat_agent::run(options, heard, say, stop.clone()));
        let embedded = Self { hear, said, stop, agent, _runs: runs };
        embedded.tell(Incoming::Connected).await;
        embedded
    }

    async fn tell(&self, incoming: Incoming) {
        self.hear.send(incoming).await.unwrap();
    }

    /// Hears nothing for so long.
    async fn disconnect_for(&self, time: Duration) {
        self.tell(Incoming::Disconnected).await;
        tokio::time::sleep(time).await;
    }

    async fn next_sample(&mut self) -> Vec<u8> {
        loop {
            let next = self.said.recv().await.unwrap();
            if matches!(next.topic, Topic::Stats(_)) {
                return next.payload;
            }
        }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.said.recv().await.is_some() {}
        self.agent.await.unwrap().unwrap();
    }
}

/// Takes so many samples, the first of them to get warm, and says by how many kilobytes the process
/// has grown over the others. Now and then the connection breaks, and what was missed is kept for
/// an hour and sent afterwards.
async fn growth(warm: usize, samples: usize, between_breaks: usize) -> i64 {
    let _alone = ALONE.lock().await;
    let mut agent = Embedded::start(Path::new("/")).await;
    let (mut bytes, mut before) = (0, 0);
    for taken in 1..=samples {
        bytes += agent.next_sample().await.len();
        if taken == warm {
            before = resident();
        }
        if taken % warm == 0 {
            println!("{taken} samples: {} kB", resident());
        }
        if taken % between_breaks == 0 {
            agent.disconnect_for(Duration::from_secs(3600)).await;
            agent.tell(Incoming::Connected).await;
        }
    }
    let growth = resident() - before;
    println!("{samples} samples, {} bytes each: {growth:+} kB after the first {warm}", bytes / samples);
    agent.stop().await;
    growth
}

#[tokio::test(start_paused = true)]
#[ignore = "takes a quarter of a minute"]
async fn memory_is_flat_over_a_hundred_thousand_samples() {
    let growth = growth(20_000, 100_000, 10_000).await;
    assert!(growth < 256, "{growth} kB");
}

#[tokio::test(start_paused = true)]
async fn memory_is_flat_over_ten_thousand_samples() {
    let growth = growth(2_000, 10_000, 1_000).await;
    assert!(growth < 256, "{growth} kB");
}

/// A machine whose time service has not set its clock yet.
fn machine_without_time() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("proc/uptime", "3551023.52 1234.00\n"),
        ("proc/loadavg", "0.31 0.24 0.19 2/143 4711\n"),
        ("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"),
    ] {
        fs::create_dir_all(root.path().join("proc")).unwrap();
        fs::write(root.path().join(path), text).unwrap();
    }
    fs::create_dir_all(root.path().join("run/systemd/timesync")).unwrap();
    root
}

#[tokio::test(start_paused = true)]
async fn after_more_than_a_day_alone_the_last_day_comes_in_paced_batches_and_each_sample_says_whether_its_clock_was_right()
 {
    const HOUR: Duration = Duration::from_secs(3600);
    const A_DAY: usize = 24 * 60;
    let _alone = ALONE.lock().await;
    let root = machine_without_time();
    let mut agent = Embedded::start(root.path()).await;
    for _ in 0..100 {
        agent.next_sample().await;
    }
    let before = resident();
    agent.disconnect_for(13 * HOUR).await;
    fs::write(root.path().join("run/systemd/timesync/synchronized"), "").unwrap();
    tokio::time::sleep(12 * HOUR).await;
    let growth = resident() - before;
    agent.tell(Incoming::Connected).await;
    let connected = Instant::now();
    let (mut missed, mut times, mut live) = (Vec::<Sample>::new(), Vec::new(), 0);
    let mut bytes = 0;
    while missed.len() < A_DAY {
        let next = agent.said.recv().await.unwrap();
        match next.topic {
            Topic::Backfill(_) => {
                bytes += next.payload.len();
                times.push(Instant::now());
                missed.extend(serde_json::from_slice::<Vec<Sample>>(&next.payload).unwrap());
            }
            Topic::Stats(_) => live += 1,
            _ => {}
        }
    }
    println!("{} samples of {} bytes: {growth:+} kB", missed.len(), bytes / missed.len());
    assert_eq!(missed.len(), A_DAY, "each once");
    assert!(
        missed.iter().zip(&missed[1..]).all(|(one, next)| next.seq == one.seq + 12),
        "one a minute, in their order"
    );
    let right = missed.iter().filter(|sample| sample.clock_synchronized).count();
    assert!(right.abs_diff(A_DAY / 2) < 3 && missed.is_sorted_by_key(|sample| sample.clock_synchronized), "{right}");
    assert!(times.len() > 1 && times[0] - connected >= Duration::from_secs(3), "{times:?}");
    assert!(times.iter().zip(&times[1..]).all(|(one, next)| *next - *one >= Duration::from_secs(2)), "{times:?}");
    assert!(live > 0, "what is measured meanwhile does not wait");
    let kilobytes = i64::try_from(bytes / 1000).unwrap();
    assert!(growth < kilobytes + kilobytes / 2 + 256, "{growth} kB for {kilobytes}");
    agent.stop().await;
}
