//! Memory: a program of its own, since everything else in a process is seen too.

#![expect(dead_code, reason = "the test client can do more than is needed here")]
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "front_door/setup.rs"]
mod setup;

use std::time::{Duration, Instant};

use pistat_testkit::{packet::Message, raw::Client, usage};
use setup::Setup;

/// What the log's two segments hold of tiny messages, records included: they are full at one moment
/// and not at another.
const LOG_BYTES: u64 = 4 << 20;

/// A count for the quick run, and the one for the heavy run.
fn count(quick: usize, heavy: usize) -> usize {
    if std::env::var_os("PISTAT_HEAVY").is_some() { heavy } else { quick }
}

fn resident_bytes() -> u64 {
    usage::memory(std::process::id(), "VmRSS")
}

/// A million topics and a hundred thousand filters pass; what they leave behind is measured after
/// the broker's tables have been used as much before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_filters_that_were_leave_nothing_behind() {
    let (topics, filters) = (count(100_000, 1_000_000), count(10_000, 100_000));
    let setup = Setup::start().await;
    let mut client = setup.v5("many").await;
    let mut round = 0;
    let mut churn = async |client: &mut Client, topics: usize, filters: usize| {
        let started = Instant::now();
        round += 1;
        for number in 0..topics {
            let message = Message::new(&format!("test/{round}/{number}"), "x", u8::from(number % 100 == 99));
            client.publish(message).await;
        }
        let elapsed = started.elapsed();
        for number in 0..filters {
            let filter = format!("test/{round}/{number}/+");
            client.subscribe(&[(&filter, 0)]).await;
            client.unsubscribe(&[&filter]).await;
        }
        elapsed
    };
    // As much as fills the log and every table. The log's two segments fill and empty, so what
    // counts before is the highest of several looks, and afterwards the lowest.
    let mut before = 0;
    for _ in 0..4 {
        churn(&mut client, 25_000, 500).await;
        before = before.max(resident_bytes());
    }
    let first = churn(&mut client, 10_000, 0).await;
    let mut weights = Vec::new();
    for _ in 0..10 {
        churn(&mut client, topics / 10, filters / 10).await;
        weights.push(resident_bytes());
    }
    println!("bytes after each tenth: {weights:?}");
    let last = churn(&mut client, 10_000, 0).await;
    let mut after = resident_bytes();
    for _ in 0..3 {
        churn(&mut client, 5_000, 0).await;
        after = after.min(resident_bytes());
    }
    println!(
        "{topics} topics, {filters} filters: {before} bytes before, {after} after; 10,000 messages in {first:?} and {last:?}"
    );
    assert!(after < before + before / 10 + LOG_BYTES, "{before} bytes before, {after} after");
    assert!(last < first * 2 + Duration::from_secs(1), "{first:?} at first, {last:?} at last");
    assert_eq!(setup.statistics().subscriptions, 0);
}
