//! Output: complete, in order, live, bounded; and the end of processes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use pistat_protocol::{dashboard::Change, task::RunState};
use pistat_testkit::{DEADLINE, Stack, eventually, http::rest};
use serde_json::json;
use tokio::sync::oneshot;

/// The most that a program's own memory may grow over a flood of output: the agent holds 1 MiB
/// unacknowledged, the controller batches.
const GROWTH_BYTES: u64 = 48 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_million_lines_arrive_complete_and_in_order_while_telemetry_keeps_its_cadence() {
    const LAST: usize = 1_000_000;
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").flag("--interval", "0.5").online(&http).await;
    let mut feed = stack.feed().await;
    let run = http.start_run("count", "pi-1", json!({"last": LAST})).await;
    let follower = tokio::spawn(rest(http.follow(run)));
    let (done, is_done) = oneshot::channel();
    let delay = tokio::spawn(longest_delay(is_done));
    // Samples of the agent while it works, by its own clock.
    let mut times = Vec::new();
    let mut ended = false;
    while !ended {
        feed.change("samples, and the run's end", |change| match change {
            Change::Stats { pi, stats } if pi.as_str() == "pi-1" => {
                times.push((stats.seq, stats.time.unix_milliseconds()));
                Some(())
            }
            Change::Run { run: seen } if seen.id == run => {
                ended |= seen.state.is_final();
                ended.then_some(())
            }
            _ => None,
        })
        .await;
    }
    let run = http.ended(run, DEADLINE).await;
    assert_eq!((run.state, run.dropped_bytes), (RunState::Succeeded, 0), "{run:?}");
    let expected: String = (1..=LAST).map(|line| format!("{line}\n")).collect();
    assert_eq!(run.output_bytes, expected.len() as u64);
    let stored = http.output(run.id).await;
    assert!(stored == expected, "stored: {}", first_difference(&stored, &expected));
    let followed = follower.await.unwrap();
    assert!(followed == expected, "followed: {}", first_difference(&followed, &expected));
    done.send(()).unwrap();
    let delay = delay.await.unwrap().as_millis() as i64;
    for pair in times.windows(2) {
        let (gap, apart) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
        let is_steady = gap <= 4 && apart < 2_500 + 4 * delay;
        assert!(is_steady, "a sample each 0.5 s, or each second at the worst, and {delay} ms late at most: {times:?}");
    }
}

/// By how much this machine's other work delays a timer at the worst, until it is done.
async fn longest_delay(mut is_done: oneshot::Receiver<()>) -> Duration {
    const PERIOD: Duration = Duration::from_millis(100);
    let mut longest = Duration::ZERO;
    loop {
        let started = Instant::now();
        tokio::select! {
            _ = &mut is_done => return longest,
            () = tokio::time::sleep(PERIOD) => longest = longest.max(started.elapsed() - PERIOD),
        }
    }
}

fn first_difference(left: &str, right: &str) -> String {
    let mut pairs = left.lines().zip(right.lines()).enumerate();
    let lengths = format!("{} bytes, expected {}", left.len(), right.len());
    match pairs.find(|(_, (left, right))| left != right) {
        Some((line, (left, right))) => format!("{lengths}; line {line} is {left:?}, expected {right:?}"),
        None => lengths,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_beyond_the_limit_keeps_memory_flat_and_says_exactly_what_was_dropped() {
    let mebibytes: u64 = std::env::var("PISTAT_TEST_FLOOD_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    let mut stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.agent("pi-1").online(&http).await;
    // A first run, so that buffers have the size that they have in use.
    let first = http.start_run("flood", "pi-1", json!({"mebibytes": 4})).await;
    let first = http.ended(first, DEADLINE).await;
    let before = (stack.process().resident_bytes(), agent.process().resident_bytes());
    let run = http.start_run("flood", "pi-1", json!({"mebibytes": mebibytes})).await;
    let mut most = before;
    let total = mebibytes * 1024 * 1024 + "first\n\nlast\n".len() as u64;
    // Nothing of it is seen beyond the limit, so how fast this machine is says how long it may
    // take.
    let took = first.finished_at.unwrap().unix_milliseconds() - first.started_at.unwrap().unix_milliseconds();
    let limit = DEADLINE + Duration::from_millis(took.max(1_000) as u64) * mebibytes as u32;
    let run = eventually("the flood ends", limit, async || {
        most.0 = most.0.max(stack.process().resident_bytes());
        most.1 = most.1.max(agent.process().resident_bytes());
        let run = http.run(run).await?;
        if run.state.is_final() { Ok(run) } else { Err(format!("{run:?}")) }
    })
    .await;
    assert_eq!(run.state, RunState::Succeeded, "{run:?}");
    assert_eq!(run.output_bytes, total, "every byte is counted");
    let stored = http.output(run.id).await;
    assert!(stored.starts_with("first\n") && stored.ends_with("last\n"), "the first and the last half are kept");
    let mark =
        stored.split("[… ").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|bytes| bytes.parse::<u64>().ok());
    assert_eq!(mark, Some(run.dropped_bytes), "the mark says what the run says");
    let mark_bytes = format!("\n[… {} bytes left out …]\n", run.dropped_bytes).len() as u64;
    assert_eq!(stored.len() as u64 - mark_bytes + run.dropped_bytes, total, "kept and dropped are all there was");
    assert!(stored.len() as u64 <= 1024 * 1024 + mark_bytes, "the limit is kept: {}", stored.len());
    let grown = (most.0.saturating_sub(before.0), most.1.saturating_sub(before.1));
    assert!(grown.0 < GROWTH_BYTES && grown.1 < GROWTH_BYTES, "controller and agent grew by {grown:?} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_and_error_are_kept_apart_and_in_order() {
    let stack = Stack::start().await;
    let _agent = stack.agent("pi-1").online(&stack.http()).await;
    let run = stack.http().start_run("both-streams", "pi-1", json!({})).await;
    stack.http().ended(run, DEADLINE).await;
    let mut feed = stack.feed().await;
    feed.send(&pistat_protocol::dashboard::ClientMessage::Follow { run, from: 0 }).await;
    let mut pieces = Vec::new();
    feed.until("all pieces", |message| match message {
        pistat_protocol::dashboard::ServerMessage::Output { run: seen, pieces: more, done } if *seen == run => {
            pieces.extend(more.iter().map(|piece| (piece.stream, piece.data.clone())));
            done.then_some(())
        }
        _ => None,
    })
    .await;
    use pistat_protocol::task::Stream::{Stderr, Stdout};
    let expected = [
        (Stdout, "out 1\n"),
        (Stderr, "err 1\n"),
        (Stdout, "out 2\n"),
        (Stderr, "err 2\n"),
        (Stdout, "out 3\n"),
        (Stderr, "err 3\n"),
    ];
    let expected: Vec<_> = expected.map(|(stream, text)| (stream, text.to_owned())).into();
    assert_eq!(pieces, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn torn_characters_are_mended_and_bytes_that_are_no_text_replaced() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let run = http.start_run("unicode", "pi-1", json!({})).await;
    http.ended(run, DEADLINE).await;
    assert_eq!(http.output(run).await, "grün € bad:\u{fffd}:\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_in_a_clean_environment() {
    let stack =
        Stack::builder().environment("PISTAT_RUNS__EXPIRES", "10m").environment("SECRET", "leaked").start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    for pi in ["pi-1", "controller"] {
        let run = http.start_run("environment", pi, json!({})).await;
        http.ended(run, DEADLINE).await;
        let output = http.output(run).await;
        assert!(output.contains("PISTAT_TEST_GIVEN=yes") && output.contains("PATH="), "{pi}: {output}");
        assert!(!output.contains("PISTAT_RUNS__EXPIRES") && !output.contains("PISTAT_AGENT_"), "{pi}: {output}");
        assert!(!output.contains("leaked"), "{pi}: {output}");
    }
}

/// Whether the process exists and is not merely waiting to be buried.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

async fn all_gone(marks: &Path, least: usize) {
    eventually("every descendant is gone", DEADLINE, async || {
        let pids = std::fs::read_to_string(marks).unwrap_or_default();
        let pids: Vec<_> = pids.lines().collect();
        assert!(pids.len() >= least, "the task was to write down {least} processes: {pids:?}");
        let living: Vec<_> = pids.iter().filter(|pid| lives(pid)).collect();
        if living.is_empty() { Ok(()) } else { Err(format!("{living:?} of {pids:?} live")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grandchildren_that_ignore_sigterm_are_gone_after_timeout_and_grace() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    for pi in ["pi-1", "controller"] {
        let run = http.start_run("stubborn", pi, json!({"key": pi})).await;
        let run = http.ended(run, DEADLINE).await;
        assert_eq!(run.state, RunState::TimedOut, "{run:?}");
        all_gone(&stack.marks().join(pi), 3).await;
        assert!(http.output(run.id).await.contains("here to stay"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_with_everything_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let text = pistat_testkit::catalogue::text(folder.path()).replace("timeout = \"1s\"", "timeout = \"60s\"");
    let stack = Stack::builder().catalogue(&text).start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let run = http.start_run("stubborn", "pi-1", json!({"key": "cancelled"})).await;
    let marks = folder.path().join("cancelled");
    eventually("three processes run", DEADLINE, async || {
        let pids = std::fs::read_to_string(&marks).unwrap_or_default();
        if pids.lines().count() >= 3 { Ok(()) } else { Err(pids) }
    })
    .await;
    assert!(http.post(&format!("/api/runs/{run}/cancel"), json!({})).await.status < 300);
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Cancelled);
    all_gone(&marks, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_one_task_wait_for_each_other_on_one_machine() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(http.start_run("one-at-a-time", "pi-1", json!({"seconds": 0.4})).await);
    }
    let mut times = Vec::new();
    for run in runs {
        let run = http.ended(run, DEADLINE).await;
        assert_eq!(run.state, RunState::Succeeded, "{run:?}");
        times.push((run.started_at.unwrap(), run.finished_at.unwrap()));
    }
    for pair in times.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two ran at the same time: {times:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_does_not_read_slows_nothing() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let run = http.start_run("count", "pi-1", json!({"last": 400_000})).await;
    let _stuck = http.follow(run);
    let mut browser = stack.feed().await;
    browser.send(&pistat_protocol::dashboard::ClientMessage::Follow { run, from: 0 }).await;
    // Another, which shows that the output goes on.
    rest(http.follow(run)).await;
    let run = http.ended(run, DEADLINE).await;
    assert_eq!((run.state, run.dropped_bytes), (RunState::Succeeded, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_follows_too_many_runs_is_told_which_it_follows_no_longer() {
    use pistat_protocol::dashboard::{ClientMessage, MAX_FOLLOWED, ServerMessage};
    let stack = Stack::start().await;
    let http = stack.http();
    let mut feed = stack.feed().await;
    let ended = http.start_run("uptime", "controller", json!({})).await;
    http.ended(ended, DEADLINE).await;
    // To its end: it takes no place from those that are open.
    assert!(!feed.output(ended).await.is_empty());
    // These wait for a machine that is not there.
    let mut agent = stack.agent("pi-1").online(&http).await;
    agent.stop().await;
    agent.offline(&http).await;
    let mut open = Vec::new();
    for _ in 0..=MAX_FOLLOWED {
        open.push(http.start_run("uptime", "pi-1", json!({})).await);
    }
    for run in &open {
        feed.send(&ClientMessage::Follow { run: *run, from: 0 }).await;
    }
    feed.send(&ClientMessage::Ping { id: 7 }).await;
    let mut dropped = Vec::new();
    feed.until("all of it was read", |message| match message {
        ServerMessage::Unfollowed { run, reason } => {
            dropped.push((*run, reason.clone()));
            None
        }
        ServerMessage::Pong { id: 7 } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(dropped, [(open[0], format!("{MAX_FOLLOWED} other runs are followed since"))]);
}
