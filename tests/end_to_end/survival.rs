//! Programs are killed, wires are cut, machines restart: every accepted run reaches exactly one
//! final state, none runs twice, none vanishes.

use std::{collections::BTreeMap, path::Path, time::Duration};

use pistat_protocol::{
    dashboard::{MachineStatus, Run},
    id::RunId,
    task::RunState,
};
use pistat_testkit::{Agent, DEADLINE, Dice, Http, Proxy, Stack, catalogue::starts, eventually, steadily};
use serde_json::{Value, json};

/// How many times each kill test strikes; `PISTAT_TEST_ROUNDS` asks for more.
fn rounds() -> usize {
    std::env::var("PISTAT_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// How long after the last strike everything may take to settle.
const SETTLE: Duration = Duration::from_secs(60);

/// Runs that were accepted, by the key of their marks.
#[derive(Default)]
struct Accepted(BTreeMap<String, RunId>);

impl Accepted {
    /// Asks for some more runs; only those that were answered with 202 count. An answer that was
    /// lost is found later by its request id.
    async fn ask(&mut self, http: &Http, pi: &str, round: usize, seconds: f64) {
        for number in 0..3 {
            let key = format!("r{round}-{number}");
            let body =
                json!({"task": "mark", "target": pi, "request_id": key, "args": {"key": key, "seconds": seconds}});
            if let Ok(reply) = http.try_send("POST", "/api/runs", Some(body)).await
                && reply.status == 202
            {
                self.0.insert(key, reply.json::<pistat_protocol::api::AcceptedRuns>().runs[0]);
            }
        }
    }

    /// Waits until all are settled, and checks that the marks agree with the states.
    async fn settle(&self, http: &Http, marks: &Path) {
        assert!(!self.0.is_empty(), "no run was accepted: nothing was tested");
        let mut finals = BTreeMap::new();
        for (key, run) in &self.0 {
            let run = http.ended(*run, SETTLE).await;
            let started = starts(marks, key);
            assert!(started <= 1, "{key} was started {started} times: {run:?}");
            match run.state {
                RunState::Succeeded => {
                    assert_eq!(started, 1, "{key} cannot have succeeded without a start: {run:?}");
                    let output = http.output(run.id).await;
                    let whole = format!("begin {key}\nend {key}\n");
                    // An agent that was killed may have had the end in its memory only: then that
                    // is counted.
                    assert!(
                        output == whole || run.dropped_bytes > 0,
                        "{output:?} of {whole:?} without a word: {run:?}"
                    );
                    assert_eq!(run.output_bytes, whole.len() as u64, "every byte is counted: {run:?}");
                }
                RunState::Lost | RunState::Failed | RunState::Cancelled => {}
                RunState::Expired | RunState::Rejected => assert_eq!(started, 0, "{key} never ran, it says: {run:?}"),
                other => panic!("{other} of {key} is not expected: {run:?}"),
            }
            finals.insert(run.id, run.state);
        }
        let all: Vec<Run> = http.get("/api/runs?limit=1000").await.json();
        for (id, state) in finals {
            let same: Vec<_> = all.iter().filter(|run| run.id == id).map(|run| run.state).collect();
            assert_eq!(same, [state], "a final state never changes, and no run vanishes or doubles");
        }
    }
}

async fn back(agent: &Agent, http: &Http) {
    agent.sampled(http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_instant_settles_every_run() {
    let mut dice = Dice::new();
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.agent("pi-1").online(&http).await;
    let mut accepted = Accepted::default();
    for round in 0..rounds() {
        accepted.ask(&http, "pi-1", round, 0.3).await;
        tokio::time::sleep(dice.duration(Duration::from_millis(900))).await;
        agent.kill();
        tokio::time::sleep(dice.duration(Duration::from_millis(300))).await;
        agent.restart();
    }
    back(&agent, &http).await;
    accepted.settle(&http, &stack.marks()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_at_any_instant_settles_every_run() {
    let mut dice = Dice::new();
    let mut stack = Stack::start().await;
    let http = stack.http();
    let agent = stack.agent("pi-1").online(&http).await;
    let mut accepted = Accepted::default();
    for round in 0..rounds() {
        accepted.ask(&http, "pi-1", round, 0.3).await;
        tokio::time::sleep(dice.duration(Duration::from_millis(900))).await;
        stack.kill();
        stack.restart().await;
        back(&agent, &http).await;
    }
    accepted.settle(&http, &stack.marks()).await;
    // The agent went on through all of it: nothing that it had begun was lost.
    for run in accepted.0.values() {
        let run = http.run(*run).await.unwrap();
        assert!(matches!(run.state, RunState::Succeeded | RunState::Expired), "{run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_at_any_instant_loses_and_doubles_nothing() {
    let mut dice = Dice::new();
    let stack = Stack::start().await;
    let http = stack.http();
    let proxy = Proxy::start(stack.agents_address()).await;
    let agent = stack.agent("pi-1").through(proxy.address()).online(&http).await;
    let mut accepted = Accepted::default();
    for round in 0..rounds() {
        accepted.ask(&http, "pi-1", round, 0.2).await;
        tokio::time::sleep(dice.duration(Duration::from_millis(600))).await;
        proxy.cut();
    }
    back(&agent, &http).await;
    accepted.settle(&http, &stack.marks()).await;
    for run in accepted.0.values() {
        assert_eq!(http.run(*run).await.unwrap().state, RunState::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_restarted_at_any_instant_settles_every_run() {
    // A restart is a kill, and another boot id when the agent comes back: a private mount namespace
    // shows it one.
    let folder = tempfile::tempdir().unwrap();
    let boot_id = folder.path().join("boot_id");
    let boot = |round: usize| std::fs::write(&boot_id, format!("{round:08}-1111-4111-8111-111111111111\n")).unwrap();
    boot(0);
    let file = boot_id.to_str().unwrap().to_owned();
    let script = format!("mount --bind {file} /proc/sys/kernel/random/boot_id && exec \"$@\"");
    let wrapper = ["unshare", "--mount", "--map-root-user", "sh", "-c", &script, "booted"];
    let mut trial = std::process::Command::new(wrapper[0]);
    if !trial.args(&wrapper[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("NOT TESTED HERE: restarts, since this machine allows no private mounts");
        return;
    }
    let mut dice = Dice::new();
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.agent("pi-1").wrapped_in(&wrapper).online(&http).await;
    let mut accepted = Accepted::default();
    for round in 0..rounds() {
        accepted.ask(&http, "pi-1", round, 0.3).await;
        tokio::time::sleep(dice.duration(Duration::from_millis(900))).await;
        agent.kill();
        boot(round + 1);
        agent.restart();
    }
    back(&agent, &http).await;
    accepted.settle(&http, &stack.marks()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_output_survives_cut_connections_without_a_gap() {
    let mut dice = Dice::new();
    let stack = Stack::start().await;
    let http = stack.http();
    let proxy = Proxy::start(stack.agents_address()).await;
    let agent = stack.agent("pi-1").through(proxy.address()).online(&http).await;
    // Less than the agent's window while it is away, so nothing may be dropped.
    let run = http.start_run("drip", "pi-1", json!({"lines": 60})).await;
    for _ in 0..rounds() {
        tokio::time::sleep(dice.duration(Duration::from_millis(1200))).await;
        proxy.cut();
    }
    back(&agent, &http).await;
    let run = http.ended(run, SETTLE).await;
    assert_eq!((run.state, run.dropped_bytes), (RunState::Succeeded, 0), "{run:?}");
    let expected: String = (1..=60).map(|line| format!("line {line}\n")).collect();
    assert_eq!(http.output(run.id).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_never_waits_for_a_controller_that_is_away_and_the_gap_is_counted() {
    let stack = Stack::start().await;
    let http = stack.http();
    let proxy = Proxy::start(stack.agents_address()).await;
    let _agent = stack.agent("pi-1").through(proxy.address()).online(&http).await;
    let run = http.start_run("mark", "pi-1", json!({"key": "before", "seconds": 0})).await;
    http.ended(run, DEADLINE).await;
    let run = http.start_run("flood", "pi-1", json!({"mebibytes": 64})).await;
    eventually("it runs", DEADLINE, async || {
        let run = http.run(run).await?;
        if run.state == RunState::Queued { Err(format!("{run:?}")) } else { Ok(()) }
    })
    .await;
    proxy.close();
    tokio::time::sleep(Duration::from_secs(6)).await;
    proxy.reopen();
    let run = http.ended(run, Duration::from_secs(120)).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:?}");
    let total = 64 * 1024 * 1024 + "first\n\nlast\n".len() as u64;
    assert_eq!(run.output_bytes, total, "what was dropped is counted: {run:?}");
    assert!(http.output(run.id).await.ends_with("last\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_controller_shows_everything_again_and_agents_come_back_by_themselves() {
    let mut stack = Stack::start().await;
    let http = stack.http();
    let one = stack.agent("pi-1").label("Rack Pi 1").online(&http).await;
    let mut two = stack.agent("pi-2").online(&http).await;
    let run = http.start_run("echo", "pi-1", json!({"text": "kept"})).await;
    http.ended(run, DEADLINE).await;
    let mut feed = stack.feed().await;
    assert!(feed.command("assign name pi-2 Attic").await.ok && feed.command("task assign Attic uptime").await.ok);
    stack.kill();
    two.kill();
    stack.restart().await;
    one.sampled(&http).await;
    let machine = http.machine("pi-2").await.unwrap();
    assert_eq!((machine.label.as_str(), machine.assignment.is_some()), ("Attic", true));
    assert_eq!(http.output(run).await, "kept\n");
    assert_eq!(http.run(run).await.unwrap().state, RunState::Succeeded);
    let id = one.process_id();
    assert!(Path::new(&format!("/proc/{id}")).exists(), "the agent was not restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_retains_of_runs_that_the_register_does_not_keep_is_cleared() {
    let mut stack = Stack::start().await;
    let mosquitto = stack.mosquitto();
    let retained = async || {
        let words = ["-t", "pistat/+/task/+/status", "-t", "pistat/+/task/+/output", "-W", "1", "-F", "%r %t"];
        let lines = mosquitto.receive(&words).await.stdout;
        lines.lines().filter_map(|line| line.strip_prefix("1 ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let has = async |run: RunId, count: usize| {
        eventually(&format!("{count} topics of {run} are retained"), DEADLINE, async || {
            let topics = retained().await;
            let own = topics.iter().filter(|topic| topic.contains(&run.to_string())).count();
            if own == count { Ok(()) } else { Err(format!("{topics:?}")) }
        })
        .await;
    };
    let old = stack.http().start_run("echo", "controller", json!({"text": "old"})).await;
    has(old, 2).await;
    assert_eq!(stack.stop().await, 0);
    for file in std::fs::read_dir(stack.state()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.file_name().unwrap().to_string_lossy().starts_with("register.sqlite") {
            std::fs::remove_file(file).unwrap();
        }
    }
    stack.restart().await;
    let new = stack.http().start_run("echo", "controller", json!({"text": "new"})).await;
    has(old, 0).await;
    has(new, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_retains_of_a_machine_that_was_forgotten_before_it_ever_came_is_cleared() {
    let mut stack = Stack::builder().embedded().start().await;
    let mosquitto = stack.mosquitto();
    let retained = async || {
        let words = ["-t", "pistat/pi-1/#", "-t", "pistat/pi-2/#", "-W", "1", "-F", "%r %t"];
        let lines = mosquitto.receive(&words).await.stdout;
        lines.lines().filter_map(|line| line.strip_prefix("1 ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let has = async |topics: &[&str]| {
        eventually("these topics are retained", DEADLINE, async || {
            let found = retained().await;
            if found == topics { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    for pi in ["pi-1", "pi-2"] {
        stack.door().identity(pi).await.expect("it may come");
    }
    let topics = ["pistat/pi-1/meta", "pistat/pi-1/settings", "pistat/pi-2/meta", "pistat/pi-2/settings"];
    has(&topics).await;
    // As after a kill between the removal, which is on the disk, and the broker's word that its
    // topics were cleared.
    assert_eq!(stack.stop().await, 0);
    let file = stack.state().join("accounts.json");
    let mut access: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(access["agents"].as_object_mut().unwrap().remove("pi-1").is_some());
    std::fs::write(&file, access.to_string()).unwrap();
    stack.restart().await;
    has(&topics[2..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_lost_with_the_boot_during_which_it_ran() {
    let stack = Stack::start().await;
    let http = stack.http();
    let agent = stack.fake_agent("pi-1").await;
    eventually("it is online", DEADLINE, async || {
        let machine = http.machine("pi-1").await?;
        if machine.status == MachineStatus::Offline { Err(format!("{machine:?}")) } else { Ok(()) }
    })
    .await;
    let run = http.start_run("pause", "pi-1", json!({"seconds": 60})).await;
    let mut agent = agent;
    let (order, _) = agent.order().await;
    assert_eq!(order.run, run);
    agent.report(run, RunState::Running, None, None).await;
    agent.acknowledged(run, RunState::Running).await;
    let mut identity = agent.vanish().await;
    identity.info.boot_id = "boot-2".into();
    let _agent = identity.connect().await;
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_restarts_the_machine_fails_when_the_machine_does_not_restart() {
    let text =
        pistat_testkit::catalogue::text(Path::new("/nonexistent")).replace("timeout = \"20s\"", "timeout = \"2s\"");
    let stack = Stack::builder().catalogue(&text).start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let run = http.start_run("restart", "pi-1", json!({})).await;
    let run = http.ended(run, DEADLINE).await;
    assert_eq!(run.state, RunState::Failed, "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_agent_with_a_new_boot_id_settles_what_was_interrupted() {
    // A private mount namespace gives the agent another boot id; where that is not allowed, the
    // test above with an agent of its own stands alone.
    let folder = tempfile::tempdir().unwrap();
    let boot_id = folder.path().join("boot_id");
    let file = boot_id.to_str().unwrap().to_owned();
    let script = format!("mount --bind {file} /proc/sys/kernel/random/boot_id && exec \"$@\"");
    let wrapper = ["unshare", "--mount", "--map-root-user", "sh", "-c", &script, "booted"];
    std::fs::write(&boot_id, "11111111-1111-4111-8111-111111111111\n").unwrap();
    let mut trial = std::process::Command::new(wrapper[0]);
    let allowed = trial.args(&wrapper[1..]).arg("true").status().is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("this machine allows no private mounts: not run");
        return;
    }
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.agent("pi-1").wrapped_in(&wrapper).online(&http).await;
    assert!(http.machine("pi-1").await.unwrap().info.unwrap().boot_id.starts_with("1111"));
    let interrupted = http.start_run("mark", "pi-1", json!({"key": "interrupted", "seconds": 60})).await;
    let restarts = http.start_run("restart", "pi-1", json!({})).await;
    eventually("both run", DEADLINE, async || {
        let states = [http.run(interrupted).await?.state, http.run(restarts).await?.state];
        if states == [RunState::Running; 2] { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    agent.kill();
    std::fs::write(&boot_id, "22222222-2222-4222-8222-222222222222\n").unwrap();
    agent.restart();
    assert_eq!(http.ended(interrupted, DEADLINE).await.state, RunState::Lost);
    assert_eq!(http.ended(restarts, DEADLINE).await.state, RunState::Succeeded);
    assert_eq!(starts(&stack.marks(), "interrupted"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_after_a_final_state_changes_nothing() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.fake_agent("pi-1").await;
    let run = http.start_run("uptime", "pi-1", json!({})).await;
    agent.order().await;
    agent.report(run, RunState::Succeeded, Some(0), Some(0)).await;
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Succeeded);
    agent.report(run, RunState::Failed, Some(1), Some(0)).await;
    steadily("the run has succeeded", Duration::from_secs(1), async || {
        let run = http.run(run).await?;
        let same = run.state == RunState::Succeeded && run.exit_code == Some(0);
        if same { Ok(()) } else { Err(format!("{run:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_and_output_for_another_machines_run_are_dropped() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut owner = stack.fake_agent("pi-1").await;
    let liar = stack.fake_agent("pi-2").await;
    let run = http.start_run("uptime", "pi-1", json!({})).await;
    owner.order().await;
    owner.report(run, RunState::Running, None, None).await;
    owner.acknowledged(run, RunState::Running).await;
    // On its own topics, which it may write.
    liar.output(run, 0, "a lie\n").await;
    liar.report(run, RunState::Failed, Some(1), Some(1)).await;
    owner.output(run, 0, "the truth\n").await;
    owner.report(run, RunState::Succeeded, Some(0), Some(1)).await;
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Succeeded);
    assert_eq!(http.output(run).await, "the truth\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_signed_for_the_session_at_hand_and_sent_again_only_if_the_agent_does_not_know_the_run() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.fake_agent("pi-1").await;
    let run = http.start_run("uptime", "pi-1", json!({})).await;
    let (first, _) = agent.order().await;
    assert_eq!(first.session, agent.session);
    // The order was never acted upon: after the reconnect it comes again, for the new session.
    let identity = agent.vanish().await;
    let mut agent = identity.connect().await;
    let (second, _) = agent.order().await;
    assert_eq!((second.run, &second.session), (run, &agent.session));
    assert_ne!(first.session, second.session);
    agent.report(run, RunState::Running, None, None).await;
    agent.acknowledged(run, RunState::Running).await;
    // Now the agent knows it: after the next reconnect no order comes, its report ends the run.
    let mut identity = agent.vanish().await;
    identity.info.known_runs = vec![run];
    let mut agent = identity.connect().await;
    let again = agent.next(Duration::from_secs(2)).await;
    let ordered = matches!(&again, Some(pistat_testkit::fake_agent::FromController::Order(..)));
    assert!(!ordered, "a known run is never sent again: {again:?}");
    agent.report(run, RunState::Succeeded, Some(0), Some(0)).await;
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_lost_only_when_its_agent_came_back_without_it() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.fake_agent("pi-1").await;
    let run = http.start_run("pause", "pi-1", json!({"seconds": 60})).await;
    agent.order().await;
    agent.report(run, RunState::Running, None, None).await;
    agent.acknowledged(run, RunState::Running).await;
    let identity = agent.vanish().await;
    steadily("a silent machine's run is not given up", Duration::from_secs(2), async || {
        let run = http.run(run).await?;
        if run.state == RunState::Running { Ok(()) } else { Err(format!("{run:?}")) }
    })
    .await;
    let _agent = identity.connect().await;
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Lost);
}

/// Accounts are the embedded broker's, and so are the sessions that it keeps: another is not
/// restarted with the controller.
mod embedded_only {
    use pistat_testkit::Mqtt;

    use super::*;

    const CONFIG: &str = "[[account]]\nname = 'home'\npublish = ['home/#']\nsubscribe = ['home/#']\n";

    async fn connect(address: std::net::SocketAddr, token: &str) -> Result<Mqtt, String> {
        Mqtt::connect_with(address, "home", token, |options| {
            options.set_client_id("home".into()).set_clean_start(false).set_session_expiry_interval(Some(3600));
        })
        .await
    }

    /// Asks until it is let in; nobody who knocks while the controller starts is told that he is
    /// unknown.
    async fn knock(address: std::net::SocketAddr, token: &str) -> Mqtt {
        eventually("it is let in", DEADLINE, async || match connect(address, token).await {
            Err(code) if code.contains("BadUserNamePassword") => panic!("a good account was refused: {code}"),
            result => result,
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_accounts_session_and_what_waits_for_it_outlive_the_controller() {
        let mut stack = Stack::builder().config(CONFIG).start().await;
        let (_, token) = stack.account("home", "viewer").await;
        connect(stack.said.mqtt, &token).await.unwrap().granted(&["home/#"]).await;
        for round in 0..2 {
            let text = format!("said while it was away {round}");
            stack.mqtt("home", &token).await.publish("home/light", text.clone(), false).await;
            if round == 0 {
                assert_eq!(stack.stop().await, 0);
            } else {
                let file = stack.state().join("broker").join("retained.log");
                eventually("it is on the disk", DEADLINE, async || {
                    let bytes = std::fs::read(&file).unwrap_or_default();
                    let is_there = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                    if is_there { Ok(()) } else { Err("it is not") }
                })
                .await;
                stack.kill();
            }
            let (address, token) = (stack.said.mqtt, token.as_str());
            let ((), mut home) = tokio::join!(stack.restart(), knock(address, token));
            let heard = home.message(&text, |topic, publish| (topic == "home/light").then(|| publish.payload.clone()));
            assert_eq!(heard.await, text);
        }
    }
}
