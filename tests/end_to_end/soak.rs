//! Soak: a week of a fleet in compressed time. The wall clock jumps a day ahead seven times, and
//! between the jumps a simulated fleet does a day's runs, samples and reconnects as fast as the
//! controller takes them.
//!
//! What must hold: memory and files at the week's end are what they were after its second day, what
//! is kept is what the configuration says, and nothing is retained that should have been cleared.
//!
//! The full form, a hundred thousand runs and a million samples: `PISTAT_SOAK=full`.
//! `PISTAT_TEST_SEED` repeats one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pistat_protocol::{api::AcceptedRuns, dashboard::Run, id::RunId, topic::Topic, topic::Topics};
use pistat_sim::{Churn, Counts, Dice, Fleet, Plan, Roll};
use pistat_testkit::{Clock, DEADLINE, Http, Stack, eventually, gradually, usage};
use serde_json::json;

use crate::chaos::{RETAINED_RUNS, retained};

const DAYS: u64 = 7;

const DAY_SECONDS: i64 = 86_400;

/// How long everything may take to settle at the end.
const SETTLE: Duration = Duration::from_secs(120);

/// Old runs are deleted by the hour, and after so many changes of the register: that many runs may
/// be there besides.
const RUNS_BESIDES: usize = 5_000;

/// What a form of the soak is made of.
struct Form {
    is_full: bool,
    machines: usize,
    interval: Duration,
    runs: u64,
    samples: u64,
    reconnects: u64,
    between_mishaps: Duration,
    /// How much larger memory and files may be in the last two days than on the second and third,
    /// and so many bytes besides: allocators and logs breathe.
    growth: f64,
    breath_bytes: u64,
}

impl Form {
    fn chosen() -> Self {
        if std::env::var("PISTAT_SOAK").is_ok_and(|form| form == "full") {
            return Self {
                is_full: true,
                machines: 200,
                interval: Duration::from_millis(100),
                runs: 100_000,
                samples: 1_000_000,
                reconnects: 2_000,
                between_mishaps: Duration::from_secs(40),
                growth: 1.05,
                breath_bytes: 4 * 1024 * 1024,
            };
        }
        Self {
            is_full: false,
            machines: 10,
            interval: Duration::from_millis(100),
            runs: 210,
            samples: 500,
            reconnects: 4,
            between_mishaps: Duration::from_secs(10),
            // Too short for a verdict on growth: whatever is lost with every run or sample shows in
            // the full form.
            growth: 2.0,
            breath_bytes: 16 * 1024 * 1024,
        }
    }

    fn plan(&self, stack: &Stack, seed: u64) -> Plan {
        Plan {
            interval: self.interval,
            ramp: Duration::from_secs(1),
            seed,
            longest_run: Duration::from_millis(50),
            failing_share: 0.05,
            churn: Churn { mean_between: Some(self.between_mishaps), reboot_share: 0.2, ..Churn::default() },
            ..Plan::new(stack.said.mqtt)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_leaves_nothing_behind() {
    let form = Form::chosen();
    let mut dice = Dice::new();
    let clock = Clock::find();
    assert!(clock.is_there() || !form.is_full, "without a clock that jumps there is no week: libfaketime is missing");
    let mut stack = clock.wrap(Stack::builder().embedded()).start().await;
    let http = stack.http();
    let token = stack.join_token().parse().unwrap();
    let mut roll = Roll::default();
    let credentials = roll.fill(stack.said.mqtt, &token, &Topics::default(), form.machines).await.unwrap();
    let fleet = Fleet::start(form.plan(&stack, dice.bits()), credentials);
    fleet.connected(form.machines as u64).await;
    let mut feed = stack.feed().await;
    let browser = tokio::spawn(async move { while feed.text().await.is_some() {} });

    let peaks = Peaks::watch(stack.process().id(), stack.state());
    let mut week = Week { http: http.clone(), dice, asked: 0, accepted: BTreeSet::new(), machines: form.machines };
    let mut days = Vec::new();
    for day in 1..=DAYS {
        week.live_through(&form, &fleet, &clock, day).await;
        clock.jump(DAY_SECONDS * i64::try_from(day).unwrap());
        days.push(peaks.take());
        println!("day {day}: {}; {}", days.last().unwrap(), fleet.counts());
    }
    fleet.calm();
    week.settled().await;
    println!("{} requests accepted as {} runs", week.asked, week.accepted.len());

    flat("memory", &form, &days, |day| day.memory);
    flat("the state folder", &form, &days, |day| day.files);
    kept_as_configured(&http).await;
    only_the_newest_is_retained(&stack, &form).await;
    browser.abort();
    let ledger = fleet.stop().await;
    let twice = ledger.starts.values().filter(|starts| starts.len() > 1).count();
    assert_eq!(twice, 0, "a run was started twice");
    assert!(ledger.starts.keys().all(|id| week.accepted.contains(id)), "a run was started that nobody asked for");
    println!("the state folder at the end: {:?}", sizes(&stack.state()));
    assert_eq!(stack.stop().await, 0);
}

/// What people do in a week.
struct Week {
    http: Http,
    dice: Dice,
    asked: u64,
    accepted: BTreeSet<RunId>,
    machines: usize,
}

impl Week {
    /// Until a day's share of everything has happened, and a run has this day's date: a jump takes
    /// a second to arrive.
    async fn live_through(&mut self, form: &Form, fleet: &Fleet, clock: &Clock, day: u64) {
        let share = |all: u64| all * day / DAYS;
        let counts = fleet.counts();
        let mut has_come = false;
        loop {
            has_come = has_come || self.is_day(day, clock).await;
            let due = (self.accepted.len() as u64) < share(form.runs) || !has_come;
            let has_lived = Counts::get(&counts.samples) >= share(form.samples)
                && Counts::get(&counts.connections) >= form.machines as u64 + share(form.reconnects);
            if !due && has_lived {
                return;
            }
            if due && self.open().await < 4 * form.machines as u64 {
                self.ask().await;
            } else {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Whether the newest run is of this day, the first being today.
    async fn is_day(&self, day: u64, clock: &Clock) -> bool {
        let newest: Vec<Run> = self.http.get("/api/runs?limit=1").await.json();
        let ahead = DAY_SECONDS * i64::try_from(day - 1).unwrap();
        newest.first().is_some_and(|run| !clock.is_there() || clock.told(run.created_at, ahead))
    }

    /// Mostly the whole fleet at once, and single machines; each by another way of asking.
    async fn ask(&mut self) {
        self.asked += 1;
        let key = format!("k{}", self.asked);
        let body = if self.dice.chance(0.7) {
            json!({"task": "echo", "target": "@all", "args": {"text": key}, "request_id": key, "group": {}})
        } else {
            let pi = format!("sim-{:05}", self.dice.below(self.machines as u64));
            json!({"task": "echo", "target": pi, "args": {"text": key}})
        };
        let reply = self.http.post("/api/runs", body).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        self.accepted.extend(reply.json::<AcceptedRuns>().runs);
    }

    async fn open(&self) -> u64 {
        let page = self.http.get("/metrics").await.body;
        let lines = page.lines().filter(|line| line.starts_with("pistat_runs_open{"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    async fn settled(&self) {
        gradually("every run is in a final state", SETTLE, async || match self.open().await {
            0 => Ok(()),
            open => Err(open),
        })
        .await;
    }
}

// --- what is measured ----------------------------------------------------------------------------

/// The most of a day, in bytes.
#[derive(Debug, Clone, Copy)]
struct Day {
    memory: u64,
    files: u64,
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory at most {} kB, state folder at most {} kB", self.memory / 1024, self.files / 1024)
    }
}

/// Looks often, since both go up and down.
struct Peaks {
    watched: Arc<Watched>,
    looking: tokio::task::JoinHandle<()>,
}

struct Watched {
    process: u32,
    state: PathBuf,
    memory: AtomicU64,
    files: AtomicU64,
}

impl Watched {
    fn look(&self) {
        self.memory.fetch_max(usage::memory(self.process, "VmRSS"), Ordering::Relaxed);
        self.files.fetch_max(sizes(&self.state).values().sum(), Ordering::Relaxed);
    }
}

impl Peaks {
    fn watch(process: u32, state: PathBuf) -> Self {
        let watched = Arc::new(Watched { process, state, memory: AtomicU64::new(0), files: AtomicU64::new(0) });
        let looked_at = Arc::clone(&watched);
        let looking = tokio::spawn(async move {
            let mut look = tokio::time::interval(Duration::from_millis(500));
            loop {
                look.tick().await;
                looked_at.look();
            }
        });
        Self { watched, looking }
    }

    /// The most since the last time. Looks once itself: a day may pass between two looks.
    fn take(&self) -> Day {
        self.watched.look();
        let Watched { memory, files, .. } = &*self.watched;
        Day { memory: memory.swap(0, Ordering::Relaxed), files: files.swap(0, Ordering::Relaxed) }
    }
}

impl Drop for Peaks {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// The size of each file below a folder.
fn sizes(folder: &Path) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // Files may go while we look.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            all.extend(sizes(&entry.path()));
        } else {
            all.insert(entry.file_name().to_string_lossy().into_owned(), about.len());
        }
    }
    all
}

fn flat(what: &str, form: &Form, days: &[Day], of: impl Fn(&Day) -> u64) {
    let most = |days: &[Day]| days.iter().map(&of).max().unwrap();
    let (early, late) = (most(&days[1..3]), most(&days[days.len() - 2..]));
    let limit = (early as f64 * form.growth) as u64 + form.breath_bytes;
    assert!(early > 0 && late <= limit, "{what} grew from {early} to {late} bytes: {days:?}");
}

/// The register holds what its configuration lets it keep, and a little besides.
async fn kept_as_configured(http: &Http) {
    const KEPT: usize = 10_000;
    let (mut count, mut path) = (0, "/api/runs?limit=500".to_owned());
    loop {
        let page: Vec<Run> = http.get(&path).await.json();
        let Some(last) = page.last() else { break };
        path = format!("/api/runs?limit=500&before={}", last.id);
        count += page.len();
    }
    assert!(count > 0 && count <= KEPT + RUNS_BESIDES, "{count} runs are kept");
    println!("{count} runs are kept");
}

async fn only_the_newest_is_retained(stack: &Stack, form: &Form) {
    eventually("nothing is retained that should have been cleared", DEADLINE, async || {
        let topics = Topics::default();
        let (mut statuses, mut outputs) =
            (BTreeMap::<_, BTreeSet<RunId>>::new(), BTreeMap::<_, BTreeSet<RunId>>::new());
        let all = retained(stack).await;
        for text in all.keys() {
            match topics.parse(text) {
                Some(Topic::RunStatus(pi, run)) => drop(statuses.entry(pi).or_default().insert(run)),
                Some(Topic::Output(pi, run)) => drop(outputs.entry(pi).or_default().insert(run)),
                Some(
                    Topic::Execute(..) | Topic::Cancel(..) | Topic::Ack(..) | Topic::Report(..) | Topic::Request(_),
                ) => {
                    return Err(format!("{text} is never retained"));
                }
                _ => {}
            }
        }
        if statuses.len() < form.machines {
            return Err(format!("only {} machines have a run's status", statuses.len()));
        }
        for (pi, runs) in &statuses {
            if runs.len() > RETAINED_RUNS {
                return Err(format!("{pi} has the status of {} runs", runs.len()));
            }
        }
        for (pi, runs) in &outputs {
            let cleared: Vec<_> =
                runs.iter().filter(|run| statuses.get(pi).is_none_or(|kept| !kept.contains(run))).collect();
            if !cleared.is_empty() {
                return Err(format!("{pi} has the output of cleared runs: {cleared:?}"));
            }
        }
        println!("{} topics are retained", all.len());
        Ok(())
    })
    .await;
}
