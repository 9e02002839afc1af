//! Chaos: a simulated fleet and a real agent at work while everything goes wrong at once, and an oracle that holds the controller's account against
//! what the machines saw.
//!
//! The controller is killed, wires are cut, closed and slowed down, the state disk is full for a while, the clock jumps by hours, machines restart,
//! messages come twice and out of order. What must hold is in [`Account::audit`] and the checks below it.
//!
//! `PISTAT_CHAOS_SECONDS` and `PISTAT_CHAOS_MACHINES` ask for more than the quick form; `PISTAT_TEST_SEED` repeats one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pistat_protocol::{
    api::AcceptedRuns,
    dashboard::{MachineStatus, Run},
    id::RunId,
    task::{RunState, RunStatus},
    topic::{Topic, Topics},
};
use pistat_sim::{Churn, Dice, Fleet, Ledger, Plan, Roll};
use pistat_tests::{Agent, Clock, Http, Mqtt, PATIENCE, Proxy, Stack, catalogue::starts, eventually, mqtt::Heard};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long after the last strike everything may take to settle: longer than what waits for a machine may wait.
const SETTLE: Duration = Duration::from_secs(90);

/// How long a run may wait for its machine.
const EXPIRES: &str = "12s";

/// The state disk: room for the register of minutes of chaos, and soon full.
const DISK: &str = "size=96m";

/// How much more memory the controller may hold at the end than at the start.
const MEMORY_GROWTH: u64 = 32 * 1024 * 1024;

/// All retained messages have come when no other has come for so long.
const LULL: Duration = Duration::from_millis(500);

pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_nothing_is_lost_doubled_or_run_without_approval() {
    let mut dice = Dice::new();
    let seconds = number("PISTAT_CHAOS_SECONDS", 15);
    let machines = usize::try_from(number("PISTAT_CHAOS_MACHINES", 20)).unwrap();
    let disk = Disk::mount();
    let clock = Clock::find();
    let stack = clock.wrap(Stack::builder().state(&disk.state())).start().await;
    let http = stack.http();
    let wire = Proxy::start(stack.said.mqtt).await;
    let mut roll = Roll::default();
    let token = stack.join_token().parse().unwrap();
    let credentials = roll.fill(stack.said.mqtt, &token, &Topics::default(), machines).await.unwrap();
    let fleet = Fleet::start(plan(&wire, dice.bits()), credentials);
    fleet.connected(machines as u64).await;
    let agent = stack.agent("pi-1").online(&http).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut chaos = Chaos { dice, stack, wire, agent, disk, clock, struck: BTreeMap::new() };
    let memory = chaos.stack.process().resident_bytes();

    let over = Arc::new(AtomicBool::new(false));
    let operator = Operator::new(http.clone(), Dice::from_seed(chaos.dice.bits()), machines);
    let operator = tokio::spawn(operator.work(Arc::clone(&over)));
    chaos.strike_for(Duration::from_secs(seconds)).await;
    over.store(true, Ordering::Relaxed);
    let account = tokio::time::timeout(SETTLE, operator).await.expect("every question is answered or refused").unwrap();
    fleet.calm();
    // Agent, wires and disk live as long as the controller.
    let (mut stack, _kept) = chaos.calm().await;
    let all = tokio::time::timeout(SETTLE, fleet.connected(machines as u64)).await;
    assert!(all.is_ok(), "not all of the fleet came back: {}", fleet.counts());

    let runs = account.settled(&http).await;
    account.audit(&http, &runs, &stack.marks()).await;
    retained_topics_are_the_controllers_state(&stack, &runs).await;
    let grown = stack.process().resident_bytes().saturating_sub(memory);
    println!("{}; memory {memory} bytes and {grown} more; {}", account.summary(&runs), fleet.counts());
    assert!(grown < MEMORY_GROWTH, "the controller holds {grown} bytes more than at the start");
    let ledger = fleet.stop().await;
    held_against(&ledger, &account, &runs);
    assert_eq!(stack.stop().await, 0);
}

fn plan(wire: &Proxy, seed: u64) -> Plan {
    Plan {
        interval: Duration::from_secs(1),
        seed,
        longest_run: Duration::from_secs(2),
        failing_share: 0.1,
        churn: Churn {
            mean_between: Some(Duration::from_secs(15)),
            reboot_share: 0.3,
            slow_share: 0.1,
            duplicate_share: 0.1,
            reorder_share: 0.1,
        },
        ..Plan::new(wire.address())
    }
}

// --- what goes wrong --------------------------------------------------------------------------------------------------

/// A small disk of its own for the state folder, where this machine allows one.
struct Disk {
    folder: TempDir,
    is_mounted: bool,
}

impl Disk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let is_mounted = mount
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|done| done.status.success());
        if !is_mounted {
            eprintln!("NOT TESTED HERE: a full state disk, since this machine allows no mounts (run as root)");
        }
        Self { folder, is_mounted }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Leaves no room, for so long.
    async fn fill(&self, time: Duration) {
        let filler = self.folder.path().join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        // It is meant to fail: then the disk is full.
        let _ = std::io::copy(&mut std::io::repeat(0), &mut file);
        tokio::time::sleep(time).await;
        std::fs::remove_file(&filler).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").args(["-l"]).arg(self.folder.path()).status();
        }
    }
}

struct Chaos {
    dice: Dice,
    stack: Stack,
    wire: Proxy,
    agent: Agent,
    disk: Disk,
    clock: Clock,
    struck: BTreeMap<&'static str, u64>,
}

impl Chaos {
    async fn strike_for(&mut self, time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {
            tokio::time::sleep(self.dice.duration(Duration::from_millis(1500))).await;
            let ended = self.stack.process().ended();
            assert_eq!(ended, None, "the controller ended by itself: {:?}", self.stack.process().stderr());
            let kind = self.strike().await;
            *self.struck.entry(kind).or_default() += 1;
        }
        println!("struck: {:?}", self.struck);
    }

    async fn strike(&mut self) -> &'static str {
        match self.dice.below(100) {
            0..20 => {
                self.stack.kill();
                tokio::time::sleep(self.dice.duration(Duration::from_secs(2))).await;
                self.stack.restart().await;
                "killed the controller"
            }
            20..40 => {
                self.wire.cut();
                "cut the wires"
            }
            40..50 => {
                self.wire.close();
                tokio::time::sleep(self.dice.duration(Duration::from_secs(3))).await;
                self.wire.reopen();
                "closed the wires"
            }
            50..65 => {
                self.wire.delay(self.dice.duration(Duration::from_millis(400)));
                tokio::time::sleep(self.dice.duration(Duration::from_secs(3))).await;
                self.wire.delay(Duration::ZERO);
                "slowed the wires down"
            }
            65..75 if self.disk.is_mounted => {
                self.disk.fill(self.dice.duration(Duration::from_secs(3))).await;
                "filled the disk"
            }
            75..87 if self.clock.is_there() => {
                self.clock.jump(i64::try_from(self.dice.below(200_000)).unwrap() - 100_000);
                "turned the clock"
            }
            _ => {
                self.agent.kill();
                tokio::time::sleep(self.dice.duration(Duration::from_millis(500))).await;
                self.agent.restart();
                "killed the agent"
            }
        }
    }

    /// From now on nothing goes wrong.
    async fn calm(mut self) -> (Stack, (Agent, Proxy, Disk, Clock)) {
        self.wire.delay(Duration::ZERO);
        self.wire.reopen();
        self.clock.jump(0);
        let ended = self.stack.process().ended();
        assert_eq!(ended, None, "the controller ended by itself: {:?}", self.stack.process().stderr());
        self.agent.sampled(&self.stack.http()).await;
        (self.stack, (self.agent, self.wire, self.disk, self.clock))
    }
}

// --- what people do meanwhile -----------------------------------------------------------------------------------------

/// What was accepted.
#[derive(Debug, Clone)]
struct Wanted {
    task: &'static str,
    key: String,
}

/// Everything that the controller promised, and what it must never have done.
#[derive(Debug, Default)]
struct Account {
    accepted: BTreeMap<RunId, Wanted>,
    /// Final states that somebody has seen.
    finals: BTreeMap<RunId, RunState>,
    /// The runs of each request, by its id.
    requests: BTreeMap<String, Vec<RunId>>,
    /// Each machine's last acknowledged label, then those that were tried since, without an answer.
    labels: BTreeMap<String, Vec<String>>,
    refused: u64,
    unanswered: u64,
    unavailable: u64,
}

struct Operator {
    http: Http,
    dice: Dice,
    machines: usize,
    account: Account,
    asked: u64,
}

impl Operator {
    fn new(http: Http, dice: Dice, machines: usize) -> Self {
        Self { http, dice, machines, account: Account::default(), asked: 0 }
    }

    /// Works until it is over, and until there is something to audit: on a busy machine most of the time goes by without an answer.
    async fn work(mut self, over: Arc<AtomicBool>) -> Account {
        while !over.load(Ordering::Relaxed) || !self.account.is_worth_an_audit() {
            match self.dice.below(100) {
                0..50 => self.ask_one().await,
                50..56 => self.ask_all().await,
                56..66 => self.cancel().await,
                66..76 => self.rename().await,
                76..86 => self.ask_wrongly().await,
                _ => self.look().await,
            }
            tokio::time::sleep(self.dice.duration(Duration::from_millis(40))).await;
        }
        self.account
    }

    fn machine(&mut self) -> String {
        match self.dice.below(10) {
            0 => "controller".into(),
            1 => "pi-1".into(),
            _ => format!("sim-{:05}", self.dice.below(self.machines as u64)),
        }
    }

    fn key(&mut self) -> String {
        self.asked += 1;
        format!("k{}", self.asked)
    }

    async fn ask_one(&mut self) {
        let (key, target) = (self.key(), self.machine());
        let body = json!({"task": "mark", "target": target, "args": {"key": key, "seconds": 0.2}, "request_id": key, "expires": EXPIRES});
        // Some people press twice, and everybody whose question got no answer asks again: it is one request.
        let times = if self.dice.chance(0.2) { 2 } else { 1 };
        for _ in 0..times {
            self.ask("mark", &key, body.clone()).await;
        }
    }

    async fn ask_all(&mut self) {
        let key = self.key();
        let body = json!({"task": "echo", "target": "@all", "args": {"text": key}, "request_id": key, "expires": EXPIRES,
            "group": {"at_once": 5}});
        self.ask("echo", &key, body).await;
    }

    async fn ask(&mut self, task: &'static str, key: &str, body: Value) {
        for _ in 0..3 {
            match self.http.try_send("POST", "/api/runs", Some(body.clone())).await {
                Ok(reply) if reply.status == 202 => {
                    let runs = reply.json::<AcceptedRuns>().runs;
                    let before = self.account.requests.entry(key.to_owned()).or_insert_with(|| runs.clone());
                    assert_eq!(*before, runs, "one request is one set of runs: {key}");
                    let wanted = |id| (id, Wanted { task, key: key.to_owned() });
                    self.account.accepted.extend(runs.into_iter().map(wanted));
                    return;
                }
                Ok(reply) => {
                    assert!(reply.status >= 500, "a right request is not refused: {reply:?}");
                    self.account.unavailable += 1;
                    return;
                }
                Err(_) => {
                    self.account.unanswered += 1;
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
        }
    }

    async fn cancel(&mut self) {
        let Some(id) = self.any_run() else { return };
        let _ = self.http.try_send("POST", &format!("/api/runs/{id}/cancel"), None).await;
    }

    async fn rename(&mut self) {
        let pi = format!("sim-{:05}", self.dice.below(self.machines as u64));
        let label = self.key();
        // Until one is acknowledged, the machine may have its own.
        let labels = self.account.labels.entry(pi.clone()).or_insert_with(|| vec![format!("Simulated {pi}")]);
        match self.http.try_send("PATCH", &format!("/api/pis/{pi}"), Some(json!({"label": label}))).await {
            Ok(reply) if reply.status == 200 => *labels = vec![label],
            Ok(reply) => assert!(reply.status >= 500, "a right change is not refused: {reply:?}"),
            // It may have been stored before the answer was lost.
            Err(_) => labels.push(label),
        }
    }

    async fn ask_wrongly(&mut self) {
        let target = self.machine();
        let wrong = [
            json!({"task": "no-such-task", "target": target}),
            json!({"task": "mark", "target": target, "args": {"key": "never;id"}}),
            json!({"task": "mark", "target": target, "args": {"key": "never", "extra": 1}}),
            json!({"task": "echo", "target": "@no-such-tag", "args": {"text": "never"}}),
            json!({"task": "echo", "target": target, "args": {"text": "-never"}}),
            json!({"task": "careful", "target": target}),
        ];
        let index = usize::try_from(self.dice.below(wrong.len() as u64)).unwrap();
        if let Ok(reply) = self.http.try_send("POST", "/api/runs", Some(wrong[index].clone())).await {
            assert!(reply.status >= 400, "{} is refused, not {reply:?}", wrong[index]);
            self.account.refused += 1;
        }
    }

    async fn look(&mut self) {
        let Some(id) = self.any_run() else { return };
        if let Ok(reply) = self.http.try_send("GET", &format!("/api/runs/{id}"), None).await
            && reply.status < 500
        {
            let run: Run = reply.json();
            if run.state.is_final() {
                let seen = *self.account.finals.entry(id).or_insert(run.state);
                assert_eq!(seen, run.state, "a final state never changes: {run:?}");
            }
        }
    }

    fn any_run(&mut self) -> Option<RunId> {
        let count = self.account.accepted.len();
        let index = usize::try_from(self.dice.below(count as u64)).unwrap();
        self.account.accepted.keys().nth(index).copied()
    }
}

// --- the oracle -------------------------------------------------------------------------------------------------------

impl Account {
    fn is_worth_an_audit(&self) -> bool {
        self.accepted.len() > 40 && self.refused > 0
    }

    /// All runs of the register, once each is in a final state.
    async fn settled(&self, http: &Http) -> BTreeMap<RunId, Run> {
        let open = ["queued", "dispatched", "running"];
        eventually("every run is in a final state", SETTLE, async || {
            for state in open {
                let reply = http.try_send("GET", &format!("/api/runs?state={state}&limit=5"), None).await?;
                let runs: Vec<Run> = reply.json();
                if !runs.is_empty() {
                    return Err(format!("{runs:?}"));
                }
            }
            Ok(())
        })
        .await;
        all_runs(http).await
    }

    async fn audit(&self, http: &Http, runs: &BTreeMap<RunId, Run>, marks: &Path) {
        assert!(self.is_worth_an_audit(), "there was something to audit: {self:?}");
        for id in self.accepted.keys() {
            let run = runs.get(id).unwrap_or_else(|| panic!("{id} was accepted, and has vanished"));
            assert!(run.state.is_final(), "{run:?}");
        }
        for (id, seen) in &self.finals {
            assert_eq!(runs[id].state, *seen, "a final state never changes: {:?}", runs[id]);
        }
        for run in runs.values() {
            let request = run.request_id.clone().expect("every request had an id");
            let same = runs.values().filter(|other| other.request_id == run.request_id && other.pi == run.pi).count();
            assert_eq!(same, 1, "{request} is one run on {}", run.pi);
        }
        for (pi, labels) in &self.labels {
            let label = http.machine(pi).await.unwrap().label;
            assert!(labels.contains(&label), "{pi} is called {label:?}; acknowledged, then tried: {labels:?}");
        }
        // The real processes, of the real agent and of the controller's own machine.
        for run in runs.values().filter(|run| run.task.as_str() == "mark" && !run.pi.as_str().starts_with("sim-")) {
            let started = starts(marks, run.request_id.as_deref().unwrap());
            assert!(started <= 1, "{started} starts of {run:?}");
            check_starts(run, started);
        }
    }

    fn summary(&self, runs: &BTreeMap<RunId, Run>) -> String {
        let mut states: BTreeMap<RunState, usize> = BTreeMap::new();
        for run in runs.values() {
            *states.entry(run.state).or_default() += 1;
        }
        format!(
            "{} requests accepted as {} runs, {} refused, {} without an answer, {} while unavailable; {states:?}",
            self.requests.len(),
            self.accepted.len(),
            self.refused,
            self.unanswered,
            self.unavailable
        )
    }
}

/// Whether a state may stand for so many starts.
fn check_starts(run: &Run, started: usize) {
    match run.state {
        RunState::Succeeded | RunState::Failed | RunState::TimedOut => assert_eq!(started, 1, "{run:?}"),
        RunState::Expired | RunState::Rejected => assert_eq!(started, 0, "{run:?} says that it never ran"),
        RunState::Lost | RunState::Cancelled => assert!(started <= 1, "{started} starts of {run:?}"),
        RunState::Queued | RunState::Dispatched | RunState::Running => panic!("{run:?} is not settled"),
    }
}

async fn all_runs(http: &Http) -> BTreeMap<RunId, Run> {
    let mut all = BTreeMap::new();
    let mut path = "/api/runs?limit=500".to_owned();
    loop {
        let page: Vec<Run> = http.get(&path).await.json();
        let Some(last) = page.last() else { return all };
        path = format!("/api/runs?limit=500&before={}", last.id);
        for run in page {
            let (id, state) = (run.id, run.state);
            assert!(all.insert(id, run).is_none(), "{id} is twice on the list ({state})");
        }
    }
}

/// What the simulated machines saw, held against what the controller says.
fn held_against(ledger: &Ledger, account: &Account, runs: &BTreeMap<RunId, Run>) {
    let mut compared = 0;
    for (id, found) in &ledger.starts {
        let [start] = &found[..] else { panic!("{id} was started {} times: {found:?}", found.len()) };
        let run = runs.get(id).unwrap_or_else(|| panic!("{start:?} of {id} was started, and no such run was approved"));
        assert_eq!((&run.pi, &run.task), (&start.pi, &start.task), "{id}");
        let key = run.request_id.clone().unwrap();
        let argv = start.argv.join(" ");
        let wanted = match run.task.as_str() {
            "mark" => argv.ends_with(&format!(" {key} 0.2")),
            "echo" => start.argv == ["printf", "%s\n", &key],
            _ => false,
        };
        assert!(wanted, "{argv} is not what was approved as {run:?}");
        if let Some(wanted) = account.accepted.get(id) {
            assert_eq!((run.task.as_str(), &key), (wanted.task, &wanted.key));
        }
        compared += 1;
    }
    for run in runs.values().filter(|run| run.pi.as_str().starts_with("sim-")) {
        check_starts(run, ledger.starts.get(&run.id).map_or(0, Vec::len));
        // A machine's own word is the controller's, unless the controller could know better: a cancel, or evidence of a loss.
        if let Some(end) = ledger.ends.get(&run.id)
            && run.state != RunState::Lost
        {
            assert_eq!(run.state, *end, "{run:?}");
        }
    }
    assert!(compared > 20, "there was something to compare");
    println!("{compared} starts compared; orders refused by machines: {:?}", ledger.refused);
}

/// What a client that comes now is told is what the controller says over HTTP.
async fn retained_topics_are_the_controllers_state(stack: &Stack, runs: &BTreeMap<RunId, Run>) {
    eventually("retained topics are the controller's state", PATIENCE, async || {
        let retained = retained(stack).await;
        let topics = Topics::default();
        let mut statuses: BTreeMap<String, BTreeSet<RunId>> = BTreeMap::new();
        let mut compared = 0;
        for (text, payload) in &retained {
            let wrong =
                |is: &dyn std::fmt::Debug| Err(format!("{text}: {:?}, but {is:?}", String::from_utf8_lossy(payload)));
            match topics.parse(text) {
                Some(Topic::Status(pi)) => {
                    let machine = stack.http().machine(pi.as_str()).await?;
                    if (machine.status == MachineStatus::Offline) != (payload == b"offline") {
                        return wrong(&machine.status);
                    }
                }
                Some(Topic::Meta(pi)) => {
                    let machine = stack.http().machine(pi.as_str()).await?;
                    let meta: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
                    if meta["label"] != machine.label {
                        return wrong(&machine.label);
                    }
                }
                Some(Topic::RunStatus(pi, id)) => {
                    let status: RunStatus = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
                    statuses.entry(pi.to_string()).or_default().insert(id);
                    match runs.get(&id) {
                        Some(run) if run.state == status.state && run.pi == pi => {}
                        other => return wrong(&other),
                    }
                }
                Some(
                    Topic::Execute(..) | Topic::Cancel(..) | Topic::Ack(..) | Topic::Report(..) | Topic::Request(_),
                ) => {
                    return wrong(&"it is never retained");
                }
                _ => continue,
            }
            compared += 1;
        }
        if let Some((pi, kept)) = statuses.iter().find(|(_, kept)| kept.len() > 20) {
            return Err(format!("{pi} has the retained status of {} runs", kept.len()));
        }
        if compared > 40 { Ok(()) } else { Err(format!("only {compared} topics")) }
    })
    .await;
}

/// Everything that a client that comes now is told under the prefix.
pub(crate) async fn retained(stack: &Stack) -> BTreeMap<String, Vec<u8>> {
    let mut client = Mqtt::connect(stack.said.mqtt, "admin", &stack.admin_token()).await.expect("the broker is there");
    client.granted(&["pistat/#"]).await;
    let mut retained = BTreeMap::new();
    // Machines go on talking: it is over when nothing retained has come for a moment, not when nothing at all has.
    let mut newest = Instant::now();
    while newest.elapsed() < LULL
        && let Some(heard) = client.next(LULL).await
    {
        if let Heard::Message(publish) = heard
            && publish.retain
            && retained.insert(String::from_utf8_lossy(&publish.topic).into_owned(), publish.payload.to_vec()).is_none()
        {
            newest = Instant::now();
        }
    }
    retained
}
