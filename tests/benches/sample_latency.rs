//! How long a sample takes from the agent's publish to the browser's WebSocket frame, on loopback.
//!
//! `cargo bench -p pistat-tests --bench sample_latency` prints one table; the goal is a p99 under
//! 20 ms. `PISTAT_BENCH_SAMPLES` asks for fewer samples.

use std::time::{Duration, Instant};

use pistat_protocol::dashboard::Change;
use pistat_testkit::{FakeAgent, Feed, Stack, fake_agent::Identity, statistics::percentile};

/// Samples of each measurement.
fn samples() -> u64 {
    std::env::var("PISTAT_BENCH_SAMPLES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

/// The goal of the 99th percentile.
const GOAL: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() {
    let stack = Stack::start().await;
    println!("agents  samples/s  p50 ms   p99 ms   max ms   (agent's publish to the browser's WebSocket frame)");
    let mut agents = Vec::new();
    let mut within = true;
    for (count, per_second) in [(1_usize, 10_u32), (10, 50), (100, 200)] {
        while agents.len() < count {
            let name = format!("pi-{:03}", agents.len());
            let identity = Identity::enrol(stack.said.mqtt, &name, &stack.join_token()).await;
            agents.push(identity.expect("an agent enrols").connect().await);
        }
        let mut feed = stack.feed().await;
        feed.machines().await;
        let mut took = measure(&mut agents, &mut feed, Duration::from_secs(1) / per_second).await;
        let (p50, p99, max) = (percentile(&mut took, 50), percentile(&mut took, 99), percentile(&mut took, 100));
        within &= p99 < GOAL;
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        println!("{count:>6}  {per_second:>9}  {:<8.2} {:<8.2} {:<8.2}", ms(p50), ms(p99), ms(max));
    }
    println!("goal p99 under {GOAL:?}: {}", if within { "held" } else { "MISSED" });
}

/// One sample after the other, each from the next agent, each waited for.
async fn measure(agents: &mut [FakeAgent], feed: &mut Feed, pace: Duration) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut ticks = tokio::time::interval(pace);
    let count = agents.len();
    for number in 0..samples().min(200 * count as u64 + 200) {
        ticks.tick().await;
        let agent = &mut agents[usize::try_from(number).unwrap_or(0) % count];
        // The value tells this sample from all others.
        let mark = (number % 9_973) as f32 / 100.0;
        let pi = agent.pi().clone();
        let sent = Instant::now();
        agent.sample(mark).await;
        feed.change("the sample", |change| match change {
            Change::Stats { pi: from, stats } if *from == pi && stats.cpu_percent == Some(mark) => Some(()),
            _ => None,
        })
        .await;
        took.push(sent.elapsed());
    }
    took
}
