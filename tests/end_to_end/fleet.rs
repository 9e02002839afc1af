//! Many machines at once.

use std::time::{Duration, SystemTime};

use pistat_protocol::{
    api::{AcceptedRuns, History},
    codec::{decode, encode},
    dashboard::{Change, ClientMessage, Group, MACHINES_PER_MESSAGE, Machine, MachineStatus, Run, ServerMessage},
    id::RunId,
    stats::{Disk, Sample},
    status::Watch,
    task::RunState,
    time::Timestamp,
    topic::Topic,
};
use pistat_testkit::{Clock, DEADLINE, Feed, STANDSTILL, Stack, eventually, gradually};
use rustix::process::Signal;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

/// How many agents the large test has; `PISTAT_TEST_AGENTS` sets another number.
fn agents() -> usize {
    std::env::var("PISTAT_TEST_AGENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

/// How many enrol at a time: each has a deadline of its own, and all of them wait for the same
/// processors.
fn at_once() -> usize {
    4 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Enrols and connects this many agents that do what they are told.
async fn serving(stack: &Stack, count: usize) -> JoinSet<()> {
    let door = stack.door();
    let mut serving = JoinSet::new();
    for first in (0..count).step_by(at_once()) {
        let mut joining = JoinSet::new();
        for number in first..count.min(first + at_once()) {
            let door = door.clone();
            joining.spawn(async move { door.identity(&format!("pi-{number:03}")).await });
        }
        while let Some(identity) = joining.join_next().await {
            let agent =
                identity.unwrap().unwrap_or_else(|error| panic!("an agent cannot enrol: {error}")).connect().await;
            serving.spawn(agent.serve());
        }
    }
    serving
}

async fn online(stack: &Stack, count: usize) {
    let http = stack.http();
    gradually("all agents are known to be there", STANDSTILL, async || {
        let machines: Vec<Machine> = http.get("/api/pis").await.json();
        let there = machines.iter().filter(|machine| {
            machine.id.as_str().starts_with("pi-")
                && machine.status != pistat_protocol::dashboard::MachineStatus::Offline
        });
        let there = there.count();
        if there == count { Ok(()) } else { Err(count.abs_diff(there) as u64) }
    })
    .await;
}

/// The group once more than so many of its runs have ended, with how many.
async fn further(feed: &mut Feed, group: RunId, ended: u32) -> (Group, u32) {
    feed.change(&format!("more than {ended} runs of the group have ended"), |change| {
        let Change::Group { group: seen } = change else { return None };
        let now = seen.states.iter().filter(|(state, _)| state.is_final()).map(|(_, count)| count).sum();
        (seen.id == group && now > ended).then(|| (seen.clone(), now))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_agents_run_uptime_by_all_in_one_go() {
    let count = agents();
    let stack = Stack::start().await;
    let http = stack.http();
    let _serving = serving(&stack, count).await;
    online(&stack, count).await;
    let mut feed = stack.feed().await;
    let started = Instant::now();
    let accepted: AcceptedRuns = http.ask_run("uptime", "@all", json!({})).await.json();
    // The controller's own machine is one of all.
    assert_eq!(accepted.runs.len(), count + 1);
    let group = accepted.group.expect("a group has a record of its own");
    let (mut ended, mut steps) = (0, 0);
    let finished = loop {
        let seen;
        (seen, ended) = further(&mut feed, group, ended).await;
        steps += 1;
        if ended == seen.total {
            break seen;
        }
    };
    eprintln!("{count} agents: all done after {:?}, {steps} steps of progress seen", started.elapsed());
    assert_eq!(finished.states.get(&RunState::Succeeded).copied().unwrap_or(0) as usize, count + 1, "{finished:?}");
    assert!(steps >= 3, "progress is live: {steps} steps");
    for run in &accepted.runs[..10] {
        let run: Run = http.run(*run).await.unwrap();
        assert!(!http.output(run.id).await.is_empty(), "{run:?}");
    }
    let parent: Group = http.get(&format!("/api/groups/{group}")).await.json();
    assert_eq!(parent.total as usize, count + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_group_stops_after_failures_and_a_canary_goes_first() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agents = Vec::new();
    for number in 1..=4 {
        agents.push(stack.fake_agent(&format!("pi-{number}")).await);
        let tagged = http.send("PATCH", &format!("/api/pis/pi-{number}"), Some(json!({"tags": ["rack"]}))).await;
        assert_eq!(tagged.status, 200, "{tagged:?}");
    }
    let body = json!({"task": "uptime", "target": "@rack", "group": {"canary": true, "stop_after": 1}});
    let accepted: AcceptedRuns = http.post("/api/runs", body).await.json();
    assert_eq!(accepted.runs.len(), 4);
    // One machine alone gets its order, fails, and nobody else is asked.
    let canary = http.run(accepted.runs[0]).await.unwrap();
    let first = agents.iter_mut().find(|agent| *agent.pi() == canary.pi).expect("the canary is one of the group");
    let (order, _) = first.order().await;
    first.report(order.run, RunState::Failed, Some(1), Some(0)).await;
    let group = accepted.group.unwrap();
    let stopped = eventually("the group stops", DEADLINE, async || {
        let group: Group = http.get(&format!("/api/groups/{group}")).await.json();
        if group.stopped.is_some() { Ok(group) } else { Err(format!("{group:?}")) }
    })
    .await;
    assert_eq!(stopped.states.get(&RunState::Failed), Some(&1), "{stopped:?}");
    assert!(stopped.options.canary && stopped.options.stop_after == Some(1), "{stopped:?}");
    for run in &accepted.runs[1..] {
        let run = http.ended(*run, DEADLINE).await;
        assert!(run.started_at.is_none(), "{run:?}");
    }
    for agent in &mut agents {
        let order = agent.next(Duration::from_millis(300)).await;
        assert!(!matches!(order, Some(pistat_testkit::fake_agent::FromController::Order(..))), "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_once_limits_how_many_machines_work_at_a_time() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agents = Vec::new();
    for number in 1..=3 {
        agents.push(stack.fake_agent(&format!("pi-{number}")).await);
        http.send("PATCH", &format!("/api/pis/pi-{number}"), Some(json!({"tags": ["rack"]}))).await;
    }
    let body = json!({"task": "uptime", "target": "@rack", "group": {"at_once": 1}});
    let accepted: AcceptedRuns = http.post("/api/runs", body).await.json();
    for run in accepted.runs {
        let pi = http.run(run).await.unwrap().pi;
        for agent in agents.iter_mut().filter(|agent| *agent.pi() != pi) {
            let heard = agent.next(Duration::from_millis(200)).await;
            assert!(
                !matches!(heard, Some(pistat_testkit::fake_agent::FromController::Order(..))),
                "{pi} is not alone: {heard:?}"
            );
        }
        let agent = agents.iter_mut().find(|agent| *agent.pi() == pi).unwrap();
        let (order, _) = agent.order().await;
        assert_eq!(order.run, run);
        agent.report(run, RunState::Succeeded, Some(0), Some(0)).await;
        agent.acknowledged(run, RunState::Succeeded).await;
    }
}

#[tokio::test]
async fn a_machines_charts_have_what_it_and_each_of_its_cores_did() {
    let stack = Stack::start().await;
    let http = stack.http();
    eventually("the own machine's charts", DEADLINE, async || {
        let machine: Machine = http.get("/api/pis/controller").await.json();
        let hour: History = http.get("/api/pis/controller/history?seconds=3600").await.json();
        let newest = |column: &[Option<u8>]| column.iter().rev().find_map(|percent| *percent);
        let cores = machine.stats.and_then(|stats| stats.cpu_cores_percent.clone()).unwrap_or_default();
        let known = !cores.is_empty()
            && hour.cpu_percent.iter().any(Option::is_some)
            && hour.cpu_cores_percent.len() == cores.len()
            && hour.cpu_cores_percent.iter().all(|core| core.len() == hour.cpu_percent.len() && newest(core).is_some());
        if known { Ok(()) } else { Err(format!("{cores:?} and {hour:?}")) }
    })
    .await;
    let day: History = http.get("/api/pis/controller/history?seconds=86400").await.json();
    assert!(day.cpu_percent.iter().any(Option::is_some));
    assert_eq!((day.step_seconds, day.cpu_cores_percent.len()), (300, 0));
}

#[tokio::test]
async fn what_a_machine_measured_while_it_was_away_is_in_its_charts_if_its_clock_can_be_believed() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.fake_agent("pi-1").await;
    agent.sample(10.0).await;
    let now = SystemTime::now();
    let at = |minutes: i64, cpu_percent: f32, clock_synchronized: bool| {
        let time = Timestamp::from_unix_milliseconds(Timestamp::from(now).unix_milliseconds() + minutes * 60_000);
        Sample { cpu_percent: Some(cpu_percent), ..Sample::new(time, clock_synchronized, 0) }
    };
    let kept = [at(-30, 77.0, true), at(-20, 88.0, false), at(-10, 66.0, true), at(10, 99.0, true)];
    agent.publish(&Topic::Backfill(agent.pi().clone()), encode(&kept), false).await;
    eventually("its charts have it", DEADLINE, async || {
        let hour: History = http.get("/api/pis/pi-1/history?seconds=3600").await.json();
        let told: Vec<_> = hour.cpu_percent.iter().flatten().copied().collect();
        // By their time, oldest first; the one by a clock that may be wrong and the one of the
        // future have no place.
        if told == [77.0, 66.0, 10.0] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    let hour: History = http.get("/api/pis/pi-1/history?seconds=3600").await.json();
    let step = |sample: &Sample| {
        let since_start = sample.time.unix_milliseconds() - hour.start.unix_milliseconds();
        usize::try_from(since_start / 1000 / i64::from(hour.step_seconds)).unwrap()
    };
    assert_eq!(hour.cpu_percent[step(&kept[0])], Some(77.0));
    assert_eq!(hour.cpu_percent[step(&kept[2])], Some(66.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_clock_jumps_by_years_and_that_sleeps_goes_on_saying_what_is_true() {
    const YEAR: i64 = 365 * 24 * 3600;
    let (stack, clock) = (Stack::start().await, Clock::find());
    let http = stack.http();
    let variables = clock.environment().into_iter().map(|(name, value)| format!("{name}={value}"));
    let words: Vec<_> = std::iter::once("env".to_owned()).chain(variables).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut agent = stack.agent("pi-1").wrapped_in(&words).online(&http).await;
    for jump in [40 * YEAR, -30 * YEAR, 0] {
        clock.jump(jump);
        eventually("it says what time it believes it is", DEADLINE, async || {
            let sample = http.machine("pi-1").await?.stats.expect("it has said something");
            assert_plausible(&sample);
            let is_by_this_clock = !clock.is_there() || clock.told(sample.time, jump);
            if is_by_this_clock { Ok(()) } else { Err(format!("{sample:?}, {jump} s from the right time")) }
        })
        .await;
    }
    agent.process().signal(Signal::STOP);
    let asleep = eventually("it is missed", DEADLINE, async || {
        let machine = http.machine("pi-1").await?;
        if machine.status == MachineStatus::Online { Err(format!("{machine:?}")) } else { Ok(machine.stats.unwrap()) }
    })
    .await;
    agent.process().signal(Signal::CONT);
    eventually("it goes on", DEADLINE, async || {
        let machine = http.machine("pi-1").await?;
        let sample = machine.stats.unwrap();
        assert_plausible(&sample);
        let goes_on = machine.status == MachineStatus::Online && sample.seq > asleep.seq + 2;
        if goes_on { Ok(()) } else { Err(format!("{sample:?}")) }
    })
    .await;
}

/// What no machine of ours can be is wrong.
fn assert_plausible(sample: &Sample) {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    let said = sample.uptime_seconds.expect("a machine knows since when it is up");
    assert!(
        Duration::from_secs_f64(uptime).abs_diff(Duration::from_secs(said)) < Duration::from_secs(60),
        "{sample:?}"
    );
    let percentages = [sample.cpu_percent, sample.memory_percent];
    assert!(percentages.into_iter().flatten().all(|percent| (0.0..=100.0).contains(&percent)), "{sample:?}");
    const FASTEST: u64 = 100_000_000_000;
    let rates = [sample.network_rx_bytes_per_second, sample.disk_write_bytes_per_second];
    assert!(rates.into_iter().flatten().all(|rate| rate < FASTEST), "{sample:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_opened_late_gets_a_snapshot_of_everything() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _serving = serving(&stack, 30).await;
    online(&stack, 30).await;
    let accepted: AcceptedRuns = http.ask_run("uptime", "@all", json!({})).await.json();
    for run in &accepted.runs {
        http.ended(*run, DEADLINE).await;
    }
    let mut feed = stack.feed().await;
    let Some(ServerMessage::Snapshot { machines, runs, groups, tasks, events, .. }) = feed.next(DEADLINE).await else {
        panic!("a feed begins with a snapshot")
    };
    assert_eq!((machines.len(), groups.len()), (31, 1));
    assert!(runs.len() >= 31 && !events.is_empty() && !tasks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_of_a_large_fleet_comes_in_several_messages() {
    let stack = Stack::start().await;
    let fleet = MACHINES_PER_MESSAGE + 20;
    let _serving = serving(&stack, fleet).await;
    online(&stack, fleet).await;
    let mut feed = stack.feed().await;
    let Some(ServerMessage::Machines { machines: mut all }) = feed.next(DEADLINE).await else {
        panic!("the first machines come before the snapshot")
    };
    assert_eq!(all.len(), MACHINES_PER_MESSAGE);
    all.extend(feed.machines().await);
    assert!(all[0].id.is_controller() && all[1..].is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(all.len(), fleet + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_in_a_hidden_tab_is_told_less_and_everything_anew_when_it_is_seen_again() {
    let stack = Stack::start().await;
    let http = stack.http();
    let (mut seen, mut hidden) = (stack.feed().await, stack.feed().await);
    hidden.send(&ClientMessage::Visible { visible: false }).await;
    hidden.send(&ClientMessage::Ping { id: 7 }).await;
    hidden.until("it is hidden", |message| matches!(message, ServerMessage::Pong { id: 7 }).then_some(())).await;
    let often = http.send("PATCH", "/api/pis/controller", Some(json!({"interval": 0.2}))).await;
    assert_eq!(often.status, 200, "{}", often.body);
    let is_sample = |change: &Change| matches!(change, Change::Stats { .. });
    for _ in 0..10 {
        seen.change("a sample", |change| is_sample(change).then_some(())).await;
    }
    http.send("PATCH", "/api/pis/controller", Some(json!({"label": "Attic"}))).await;
    let mut samples = 0;
    hidden
        .change("the new label", |change| {
            samples += usize::from(is_sample(change));
            matches!(change, Change::Machine { machine } if machine.label == "Attic").then_some(())
        })
        .await;
    // One may have been due.
    assert!(samples <= 2, "{samples}");
    hidden.send(&ClientMessage::Visible { visible: true }).await;
    let label = hidden.until("a snapshot", |message| match message {
        ServerMessage::Snapshot { machines, .. } => Some(machines[0].label.clone()),
        _ => None,
    });
    assert_eq!(label.await, "Attic");
    hidden.change("a sample", |change| is_sample(change).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_somebody_looks_at_says_each_second_how_it_is() {
    let stack = Stack::start().await;
    let http = stack.http();
    // Without the lease, its next sample would come when patience has long ended.
    let _agent = stack.agent("pi-1").flag("--interval", "600").online(&http).await;
    let mut listener = stack.mqtt("admin", &stack.admin_token()).await;
    listener.granted(&["pistat/pi-1/watch"]).await;
    let mut feed = stack.feed().await;
    feed.send(&ClientMessage::Watch { pis: vec!["pi-1".parse().unwrap()] }).await;
    let lease = listener.message("the lease", |topic, message| {
        (topic == "pistat/pi-1/watch" && !message.retain).then(|| message.payload.to_vec())
    });
    let Watch { seconds } = decode(&lease.await).unwrap();
    assert!(seconds > 1, "{seconds}");
    let mut last = None;
    for _ in 0..5 {
        let seq = feed.change("a sample of it", |change| match change {
            Change::Stats { pi, stats } if pi.as_str() == "pi-1" => Some(stats.seq),
            _ => None,
        });
        let seq = seq.await;
        assert!(last.is_none_or(|last| seq > last));
        last = Some(seq);
    }
}

/// Longer than any that a machine sends, so that what is on the way to a browser is soon more than
/// all buffers hold.
fn long_sample(seq: u64) -> Sample {
    let disk =
        |number| Disk { mount: format!("/media/{number:0>100}"), used_bytes: 1, total_bytes: 2, used_percent: 50.0 };
    let mut sample = Sample::new(Timestamp::from(SystemTime::now()), true, seq);
    sample.disks = Some((0..100).map(disk).collect());
    sample
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_that_do_not_read_cost_no_memory_hold_up_nobody_and_get_everything_anew_when_they_do() {
    const FRAMES: u64 = 800;
    let mut stack = Stack::start().await;
    let agent = stack.fake_agent("pi-1").await;
    let stats = Topic::Stats(agent.pi().clone());
    let mut reading = stack.feed().await;
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut feed = stack.feed().await;
        feed.until("a snapshot", |message| matches!(message, ServerMessage::Snapshot { .. }).then_some(())).await;
        idle.push(feed);
    }
    let is = |change: &Change, wanted: u64| matches!(change, Change::Stats { pi, stats } if pi.as_str() == "pi-1" && stats.seq == wanted);
    let before = stack.process().resident_bytes();
    let mut sent = 0;
    for seq in 0..FRAMES {
        let payload = encode(&long_sample(seq));
        sent += payload.len() as u64;
        agent.publish(&stats, payload, true).await;
        // Each has a frame of its own.
        reading.change("the sample", |change| is(change, seq).then_some(())).await;
    }
    let grown = stack.process().resident_bytes().saturating_sub(before);
    assert!(grown < sent, "{grown} bytes for {sent} bytes that five browsers have not read");
    for mut feed in idle {
        let mut frames = 0;
        let newest = feed.until("another snapshot", |message| match message {
            ServerMessage::Snapshot { machines, .. } => {
                let machine = machines.iter().find(|machine| machine.id.as_str() == "pi-1");
                Some(machine.and_then(|machine| machine.stats.as_ref()).map(|stats| stats.seq))
            }
            _ => {
                frames += 1;
                None
            }
        });
        assert_eq!(newest.await, Some(FRAMES - 1), "as it is by now");
        assert!(frames < FRAMES, "what is old was not sent");
    }
}
