//! History: no minute is lost by a kill, and a wrong clock costs nothing.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use pistat_protocol::{
    codec::encode,
    history::{FleetHistory, MachineHistory, Origin, Recall},
    stats::Sample,
    time::Timestamp,
    topic::Topic,
};
use pistat_testkit::{DEADLINE, FakeAgent, Http, Stack, eventually, fake_agent::FromController};

const MINUTE: i64 = 60_000;

fn now() -> i64 {
    Timestamp::from(SystemTime::now()).unix_milliseconds()
}

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_unix_milliseconds(milliseconds)
}

/// What an agent remembers: a sample a minute, whose CPU says which minute it is.
fn remembered(from: i64, to: i64) -> Vec<Sample> {
    let minutes = from.div_euclid(MINUTE)..to.div_euclid(MINUTE);
    minutes
        .map(|minute| Sample {
            cpu_percent: Some(cpu_of(minute)),
            ..Sample::new(time(minute * MINUTE + 5_000), true, 0)
        })
        .collect()
}

fn cpu_of(minute: i64) -> f32 {
    f32::from(u8::try_from(minute.rem_euclid(90)).unwrap())
}

async fn asked(agent: &mut FakeAgent) -> Recall {
    loop {
        match agent.next(DEADLINE).await {
            Some(FromController::Other(topic, payload)) if topic.ends_with("/recall") => {
                return serde_json::from_slice(&payload).unwrap();
            }
            Some(_) => {}
            None => panic!("{} was not asked for what it remembers", agent.pi()),
        }
    }
}

async fn minutes(http: &Http, pi: &str, from: i64, to: i64) -> MachineHistory {
    let query = format!("from={}&to={}&points=2000&columns=cpu_percent", time(from), time(to));
    http.get(&format!("/api/pis/{pi}/history?{query}")).await.json()
}

/// Every minute is known, by the value that belongs to it.
async fn whole(http: &Http, pi: &str, from: i64, to: i64) {
    eventually("every minute is known", DEADLINE, async || {
        let history = minutes(http, pi, from, to).await;
        let Some(column) = history.columns.get("cpu_percent") else { return Err("nothing is known".to_owned()) };
        let start = history.start.unix_milliseconds();
        let minute_of = |step: i64| (start + step * i64::from(history.step_seconds) * 1000).div_euclid(MINUTE);
        let is_right = |step: i64, value: f32| (value - cpu_of(minute_of(step))).abs() < 0.01;
        let right =
            (0_i64..).zip(&column.mean).filter(|(step, value)| value.is_some_and(|value| is_right(*step, value)));
        let known: BTreeSet<i64> = right.map(|(step, _)| minute_of(step)).collect();
        let wanted = (from.div_euclid(MINUTE) + 1)..to.div_euclid(MINUTE);
        if let Some(minute) = wanted.clone().find(|minute| !known.contains(minute)) {
            return Err(format!("minute {} of {wanted:?} is not known", minute - wanted.start));
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_killed_asks_its_agents_for_what_it_lost() {
    let mut stack = Stack::start().await;
    let http = stack.http();
    let (from, to) = (now() - 110 * MINUTE, now() - MINUTE);
    let mut agent = stack.fake_agent("pi-1").await;
    for _ in 0..3 {
        let recall = asked(&mut agent).await;
        assert!(recall.from.unix_milliseconds() <= from && recall.to.unix_milliseconds() >= to, "{recall:?}");
        let kept = remembered(from, now());
        agent.publish(&Topic::Backfill(agent.pi().clone()), encode(&kept), false).await;
        whole(&http, "pi-1", from, to).await;
        // Nothing was written yet: the flush is an hour away.
        let identity = agent.identity.clone();
        stack.kill();
        stack.restart().await;
        agent = identity.connect().await;
    }
    // One that is stopped writes everything; nothing is asked for again.
    asked(&mut agent).await;
    agent.publish(&Topic::Backfill(agent.pi().clone()), encode(&remembered(now() - 125 * MINUTE, now())), false).await;
    whole(&http, "pi-1", from, to).await;
    stack.stop().await;
    stack.restart().await;
    whole(&http, "pi-1", from, to).await;
    let history = minutes(&http, "pi-1", from, to).await;
    assert!(history.known.iter().all(|(_, _, origin)| *origin == Origin::Late), "{:?}", history.known);
}

#[tokio::test]
async fn an_agent_that_was_alone_with_a_wrong_clock_has_its_hours_in_their_place() {
    const HOURS: i64 = 6;
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.fake_agent("pi-1").await;
    let (started, uptime) = (now(), 30_000_u64);
    // Its clock says 1970, and did so all the time.
    let sample = |age_minutes: u64, minute: i64| Sample {
        cpu_percent: Some(cpu_of(minute)),
        uptime_seconds: Some(uptime - age_minutes * 60),
        ..Sample::new(time(1_000_000), false, 0)
    };
    agent.publish(&Topic::Stats(agent.pi().clone()), encode(&sample(0, 0)), true).await;
    asked(&mut agent).await;
    let minute = started.div_euclid(MINUTE);
    let alone: Vec<Sample> = (1..HOURS * 60).map(|age| sample(age.cast_unsigned(), minute - age)).collect();
    for part in alone.chunks(100) {
        agent.publish(&Topic::Backfill(agent.pi().clone()), encode(&part), false).await;
    }
    let (from, to) = (started - (HOURS * 60 - 5) * MINUTE, started - 5 * MINUTE);
    eventually("its hours are there", DEADLINE, async || {
        let history = minutes(&http, "pi-1", from, to).await;
        let Some(column) = history.columns.get("cpu_percent") else { return Err("nothing is known".to_owned()) };
        let first = history.start.unix_milliseconds();
        // A sample near the end of a minute may fall into the next, by the way of its message.
        let is_near =
            |at: i64, value: f32| (0..=1).any(|later| (cpu_of(at.div_euclid(MINUTE) - later) - value).abs() < 0.01);
        let known: Vec<(i64, f32)> = (0_i64..)
            .zip(&column.mean)
            .filter_map(|(step, value)| Some((first + step * i64::from(history.step_seconds) * 1000, (*value)?)))
            .collect();
        if known.len() < 340 {
            return Err(format!("{} minutes are known", known.len()));
        }
        match known.iter().find(|(at, value)| !is_near(*at, *value)) {
            Some((at, value)) => panic!("{value} stands at {}", time(*at)),
            None => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn charts_of_a_fleet_and_files_have_the_same_values_and_bad_questions_are_refused() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.fake_agent("pi-1").await;
    agent.sample(42.0).await;
    let to = now() + MINUTE;
    let span = format!("from={}&to={}", time(to - 10 * MINUTE), time(to));
    eventually("the sample is in the fleet's chart", DEADLINE, async || {
        let fleet: FleetHistory = http.get(&format!("/api/history?column=cpu_percent&{span}")).await.json();
        let pi = fleet.machines.get(agent.pi()).ok_or_else(|| format!("{fleet:?}"))?;
        if pi.mean.contains(&Some(42.0)) { Ok(()) } else { Err(format!("{pi:?}")) }
    })
    .await;
    let csv = http.get(&format!("/api/history/export?target=pi-1&columns=cpu_percent&{span}")).await.body;
    assert!(
        csv.starts_with("time,pi,series,unit,mean,min,max\n") && csv.contains(",pi-1,cpu_percent,%,42,42,42\n"),
        "{csv}"
    );
    let text = http.get(&format!("/api/history/export?format=openmetrics&target=pi-1&{span}")).await.body;
    assert!(text.contains("pistat_history_cpu_percent{pi=\"pi-1\"} 42 ") && text.ends_with("# EOF\n"), "{text}");
    let metrics = http.get("/metrics").await.body;
    assert!(metrics.contains("\npistat_history_stopped 0\n"), "{metrics}");
    let shown = stack.cli(&["history", "pi-1", "--csv", "--columns", "cpu_percent"]).await;
    assert!(shown.stdout.starts_with("time,\"cpu_percent\"\n") && shown.stdout.ends_with(",42"), "{shown:?}");
    let bad = [
        ("/api/pis/pi-1/history?points=1", 400),
        ("/api/pis/pi-1/history?points=2001", 400),
        ("/api/pis/pi-1/history?columns=cpu", 400),
        ("/api/pis/pi-1/history?seconds=60&points=5", 400),
        ("/api/pis/pi-1/history?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 400),
        ("/api/pis/pi-9/history?points=5", 404),
        ("/api/history?column=cpu_percent,load1", 400),
        ("/api/history?column=cpu_cores_percent", 400),
        ("/api/history?column=cpu_percent&target=pi-9", 404),
        ("/api/history/export?format=xml", 400),
    ];
    for (path, status) in bad {
        let answer = http.try_send("GET", path, None).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_history_that_cannot_be_opened_keeps_nothing_else_from_working() {
    let folder = tempfile::tempdir().unwrap();
    // A folder stands where the file should be.
    std::fs::create_dir_all(folder.path().join("history.db/x")).unwrap();
    let stack = Stack::builder().state(folder.path()).start().await;
    let http = stack.http();
    let mut agent = stack.fake_agent("pi-1").await;
    agent.sample(7.0).await;
    eventually("it is said and counted", Duration::from_secs(20), async || {
        let metrics = http.get("/metrics").await.body;
        if metrics.contains("\npistat_history_stopped 1\n") { Ok(()) } else { Err(metrics) }
    })
    .await;
    let hour = minutes(&http, "pi-1", now() - 5 * MINUTE, now() + MINUTE).await;
    assert!(hour.columns["cpu_percent"].mean.contains(&Some(7.0)), "{hour:?}");
}
