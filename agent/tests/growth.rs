//! A hundred thousand samples, in the agent's own time: nothing grows.
//!
//! The whole agent but its connection, as the controller embeds it. Its clock is the test's, which jumps to the next thing to do, so that six days of samples
//! every five seconds take minutes. Run it with `cargo test --release -p pistat-agent --test agent -- --ignored growth`.

use pistat_agent::{AgentOptions, Incoming};
use pistat_protocol::{order::ControllerKey, topic::Topic};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The resident memory of this process in kilobytes.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes"]
async fn memory_is_flat_over_a_hundred_thousand_samples() {
    /// By then it has been disconnected once, for an hour, as later again and again.
    const WARM: usize = 20_000;
    const SAMPLES: usize = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let key = ControllerKey::from_secret(&[7; 32]).public();
    let options = AgentOptions::new("pi-1".parse().unwrap(), folder.path().join("runs"), key);
    let (hear, heard) = mpsc::channel(8);
    let (say, mut said) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let agent = tokio::spawn(pistat_agent::run(options, heard, say, stop.clone()));
    hear.send(Incoming::Connected).await.unwrap();
    let (mut samples, mut bytes, mut warm) = (0, 0, 0);
    while samples < SAMPLES {
        let next = said.recv().await.unwrap();
        if matches!(next.topic, Topic::Stats(_)) {
            samples += 1;
            bytes += next.payload.len();
            if samples == WARM {
                warm = resident();
            }
            if samples % WARM == 0 {
                println!("{samples} samples: {} kB", resident());
            }
            // Now and then the connection breaks, and what was missed is kept for an hour and sent afterwards.
            if samples % 10_000 == 0 {
                hear.send(Incoming::Disconnected).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
                hear.send(Incoming::Connected).await.unwrap();
            }
        }
    }
    let growth = resident() - warm;
    println!("{samples} samples, {} bytes each: {growth:+} kB after the first {WARM}", bytes / samples);
    assert!(growth < 256, "{growth} kB");
    stop.cancel();
    while said.recv().await.is_some() {}
    agent.await.unwrap().unwrap();
}
