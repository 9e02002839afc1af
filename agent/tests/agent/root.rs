//! Tasks that need root: a real agent of an ordinary user, and real runners that are started for
//! each connection as systemd does.
//!
//! Run as root, the agent is another user's (`setpriv`); run as anybody else, agent and runner are
//! the same user's and the rest holds as well.

use std::{
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{PermissionsExt, chown},
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pistat_protocol::{
    codec::encode,
    order::{ControllerKey, Order},
    status::{Info, Nonce},
    task::{Report, RunState},
    topic::Topic,
};
use tempfile::TempDir;

use crate::harness::Agent;
use pistat_testkit::{
    Controller, DEADLINE, Mosquitto,
    controller::{Chunks, text},
};

const NOBODY: u32 = 65534;

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The user of the agent under test.
fn agent_uid() -> u32 {
    if own_uid() == 0 { NOBODY } else { own_uid() }
}

/// What systemd does for `pistat-runner.socket` with `Accept=yes`: a process for each connection,
/// with the connection as its standard input.
struct Systemd {
    instances: Arc<Mutex<Vec<Child>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Systemd {
    fn listen(place: &Place) -> Self {
        let _ = std::fs::remove_file(place.socket());
        let listener = UnixListener::bind(place.socket()).unwrap();
        listener.set_nonblocking(true).unwrap();
        std::fs::set_permissions(place.socket(), std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(place.socket(), Some(agent_uid()), None).unwrap();
        let (instances, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (own_instances, own_stop, folder) = (instances.clone(), stop.clone(), place.folder.path().to_owned());
        let thread = std::thread::spawn(move || {
            while !own_stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        own_instances
                            .lock()
                            .unwrap()
                            .push(runner(&folder, OwnedFd::from(stream).into()).spawn().unwrap());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self { instances, stop, thread: Some(thread) }
    }

    /// How many runners there are now.
    fn instances(&self) -> usize {
        let mut instances = self.instances.lock().unwrap();
        instances.retain_mut(|child| child.try_wait().unwrap().is_none());
        instances.len()
    }

    async fn wait_until_idle(&self) {
        let idle = async {
            while self.instances() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, idle).await.expect("nothing stays resident");
    }

    fn kill_instances(&self) {
        for child in self.instances.lock().unwrap().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Systemd {
    /// Listens no more; the socket's file stays.
    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.stop();
        self.kill_instances();
    }
}

fn runner(folder: &Path, stdin: Stdio) -> Command {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("runner.log")).unwrap();
    let mut command = Command::new(folder.join("pistat-agent"));
    command
        .arg("runner")
        .env_clear()
        .env("STATE_DIRECTORY", folder.join("runner-state"))
        .env("RUNTIME_DIRECTORY", folder.join("runner"))
        .env("CONFIGURATION_DIRECTORY", folder.join("etc"))
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0);
    command
}

/// A machine's folders: the agent's, and root's.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // Where the tests are built, other users may not be allowed to look.
        std::fs::copy(env!("CARGO_BIN_EXE_pistat-agent"), of("pistat-agent")).unwrap();
        for (name, mode) in [("state", 0o700), ("runner", 0o711), ("runner-state", 0o700), ("etc", 0o755)] {
            std::fs::create_dir(of(name)).unwrap();
            std::fs::set_permissions(of(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        chown(of("state"), Some(agent_uid()), None).unwrap();
        let place = Self { folder };
        place.configure(&format!("agent_user = '{}'\n", agent_uid()));
        place
    }

    fn of(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.of("etc/runner.toml"), text).unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.of("runner.sock")
    }

    fn pin(&self, key: &ControllerKey) {
        let mut command = runner(self.folder.path(), Stdio::null());
        command.args(["pin", "--wait", "10", "--fingerprint", &key.public().fingerprint(), "--agent-state"]);
        assert!(command.arg(self.real("state")).status().unwrap().success(), "{}", self.log());
    }

    /// Its path without symbolic links, which pinning does not follow.
    fn real(&self, name: &str) -> PathBuf {
        std::fs::canonicalize(self.of(name)).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.of("runner.log")).unwrap_or_default()
    }

    fn start_agent(&self, broker: &Mosquitto, token: Option<&str>) -> Agent {
        std::fs::write(self.of("agent.toml"), format!("runner_socket = '{}'\n", self.socket().display())).unwrap();
        let program = self.of("pistat-agent");
        let command = if own_uid() == 0 {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        let file = self.of("agent.toml");
        let mut words = vec!["--interval", "1", "--config", file.to_str().unwrap()];
        words.extend(token.iter().flat_map(|token| ["--token", token]));
        Agent::start_by(command, &format!("mqtt://{}", broker.address()), &self.of("state"), &words)
    }

    /// Records of runs that are not settled yet, the agent's and root's.
    fn records(&self) -> usize {
        let count = |folder: &str| std::fs::read_dir(self.of(folder)).map_or(0, Iterator::count);
        count("state/runs") + count("runner-state/runs")
    }

    async fn wait_until_no_records(&self) {
        let wait = async {
            while self.records() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("finished runs are forgotten on both sides");
    }
}

/// A machine with an enrolled agent that is online, and the root runner.
struct Stage {
    agent: Agent,
    controller: Controller,
    systemd: Systemd,
    place: Place,
    broker: Mosquitto,
}

impl Stage {
    async fn set() -> Self {
        let stage = Self::set_unpinned().await;
        stage.place.pin(&stage.controller.key);
        stage
    }

    async fn set_unpinned() -> Self {
        let broker = Mosquitto::open().await;
        let mut controller = Controller::connect(broker.address());
        let place = Place::new();
        let systemd = Systemd::listen(&place);
        let agent = place.start_agent(&broker, Some(&controller.token()));
        controller.wait_for_status("online").await;
        Self { agent, controller, systemd, place, broker }
    }

    /// An order for root, sent.
    async fn order(
        &mut self,
        script: &str,
        change: impl Fn(&mut pistat_protocol::order::ExecuteOrder),
    ) -> pistat_protocol::id::RunId {
        let mut order = self.controller.order(&["sh", "-c", script]);
        order.root = true;
        change(&mut order);
        self.controller.send(&order).await;
        order.run
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the runner's log\n{}", self.place.log());
        }
    }
}

#[tokio::test]
async fn a_task_that_needs_root_runs_as_root_and_nothing_stays_behind() {
    let mut stage = Stage::set().await;
    let run = stage.order("id -u; echo trouble >&2; exit 3", |_| {}).await;
    let running = stage.controller.wait_for_report(run, RunState::Running).await;
    assert!(running.started_at.is_some());
    let (report, chunks) = stage.controller.collect(run).await;
    assert_eq!((report.state, report.exit_code), (RunState::Failed, Some(3)), "{report:?}");
    let all = text(&chunks);
    assert!(all.contains(&format!("{}\n", own_uid())) && all.contains("trouble\n"), "{all}");
    assert_eq!(report.output_chunks, Some(chunks.iter().filter(|chunk| !chunk.is_final).count() as u64));
    stage.place.wait_until_no_records().await;
    stage.systemd.wait_until_idle().await;
    // What is not for root stays the agent's own.
    let (report, chunks) = stage.controller.run("id -u").await;
    assert_eq!((report.state, text(&chunks)), (RunState::Succeeded, format!("{}\n", agent_uid())));
}

#[tokio::test]
async fn a_root_run_survives_a_killed_agent_and_arrives_whole() {
    const LINES: usize = 60;
    let mut stage = Stage::set().await;
    let go = stage.place.of("go");
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.02; done; \
         while [ ! -e {} ]; do sleep 0.05; done; echo last",
        go.display()
    );
    let run = stage.order(&script, |_| {}).await;
    let mut chunks = Chunks::default();
    stage
        .controller
        .wait_for("the first lines", |heard| {
            chunks.take(heard, run);
            (chunks.bytes() > 0).then_some(())
        })
        .await;
    stage.agent.kill().await;
    stage.controller.wait_for_status("offline").await;
    assert_eq!(stage.systemd.instances(), 1, "the run goes on without its agent");
    std::fs::write(&go, "").unwrap();
    stage.agent = stage.place.start_agent(&stage.broker, None);
    let known = stage
        .controller
        .wait_for("info", |heard| {
            chunks.take(heard, run);
            matches!(heard.topic, Topic::Info(_)).then(|| heard.json::<Info>().known_runs)
        })
        .await;
    assert_eq!(known, [run]);
    let report = stage.controller.collect_into(&mut chunks, run, RunState::Succeeded).await;
    assert_eq!((report.exit_code, report.dropped_bytes), (Some(0), 0));
    let expected: String = (1..=LINES).map(|n| format!("line {n}\n")).chain(["last\n".to_owned()]).collect();
    assert_eq!(text(&chunks.complete()), expected);
    stage.place.wait_until_no_records().await;
    stage.systemd.wait_until_idle().await;
}

#[tokio::test]
async fn a_root_run_that_ends_while_no_agent_is_there_is_told_by_the_next() {
    let mut stage = Stage::set().await;
    let done = stage.place.of("done");
    let script = format!("echo begin; sleep 0.5; seq 1 1000; touch {}", done.display());
    let run = stage.order(&script, |_| {}).await;
    stage.controller.wait_for_report(run, RunState::Running).await;
    // As a package's upgrade does it.
    assert!(stage.agent.terminate().await.success());
    stage.controller.wait_for_status("offline").await;
    let finished = async {
        while !done.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, finished).await.expect("the task goes on to its end");
    stage.agent = stage.place.start_agent(&stage.broker, None);
    let mut chunks = Chunks::default();
    stage.controller.collect_into(&mut chunks, run, RunState::Succeeded).await;
    let expected: String = std::iter::once("begin\n".to_owned()).chain((1..=1000).map(|n| format!("{n}\n"))).collect();
    // The first chunk may have been acknowledged before.
    let all = text(&chunks.into_chunks());
    assert!(expected.ends_with(&all) && all.len() >= expected.len() - "begin\n".len(), "{} bytes", all.len());
    stage.place.wait_until_no_records().await;
}

#[tokio::test]
async fn a_root_run_survives_a_broken_connection() {
    let mut stage = Stage::set().await;
    let run = stage.order("for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.1; done", |_| {}).await;
    stage.controller.wait_for_report(run, RunState::Running).await;
    stage.broker.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.broker.start().await;
    let mut chunks = Chunks::default();
    let report = stage.controller.collect_into(&mut chunks, run, RunState::Succeeded).await;
    assert_eq!(report.dropped_bytes, 0);
    assert!(text(&chunks.into_chunks()).ends_with("8\n9\n10\n"));
}

#[tokio::test]
async fn time_limit_and_cancellation_pass_through_to_everything_below() {
    let mut stage = Stage::set().await;
    let script = "trap '' TERM; setsid sleep 1000 & echo $!; while :; do sleep 0.1; done";
    let lives = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let run = stage.order(script, |order| (order.timeout_milliseconds, order.grace_milliseconds) = (1_000, 300)).await;
    let (report, chunks) = stage.controller.collect(run).await;
    assert_eq!(report.state, RunState::TimedOut, "{report:?}");
    assert!(!lives(&text(&chunks)));
    let run = stage.order(script, |order| order.grace_milliseconds = 300).await;
    stage.controller.wait_for("output", |heard| matches!(heard.topic, Topic::Output(..)).then_some(())).await;
    stage.controller.cancel(run).await;
    let report = stage.controller.wait_for_report(run, RunState::Cancelled).await;
    assert!(report.finished_at.is_some());
    stage.place.wait_until_no_records().await;
    stage.systemd.wait_until_idle().await;
}

#[tokio::test]
async fn a_root_run_names_what_was_ended_with_it_and_is_cancelled_while_only_that_is_alive() {
    let mut stage = Stage::set().await;
    let run = stage
        .order(r#"sleep 1000 & until read n </proc/$!/comm && [ "$n" = sleep ]; do :; done; exit 3"#, |_| {})
        .await;
    let report = stage.controller.wait_for_report(run, RunState::Failed).await;
    assert_eq!(report.exit_code, Some(3));
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("sleep")), "{report:?}");
    let script = "trap '' TERM; trap 'echo $$; exit 0' USR1; \
                  setsid sh -c \"kill -USR1 $$; while :; do sleep 0.1; done\" & \
                  while :; do wait; done";
    let run = stage.order(script, |order| order.grace_milliseconds = 600_000).await;
    stage.controller.wait_for("output", |heard| matches!(heard.topic, Topic::Output(..)).then_some(())).await;
    stage.controller.cancel(run).await;
    let report = stage.controller.wait_for_report(run, RunState::Cancelled).await;
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("sh")), "{report:?}");
    stage.place.wait_until_no_records().await;
    stage.systemd.wait_until_idle().await;
}

#[tokio::test]
async fn a_killed_runner_is_told_as_lost() {
    let mut stage = Stage::set().await;
    let run = stage.order("while :; do sleep 0.1; done", |_| {}).await;
    stage.controller.wait_for_report(run, RunState::Running).await;
    stage.systemd.kill_instances();
    let report = stage.controller.wait_for_report(run, RunState::Lost).await;
    assert!(report.reason.is_some_and(|reason| reason.contains("interrupted")));
    stage.place.wait_until_no_records().await;
}

#[tokio::test]
async fn an_unpinned_runner_says_what_to_do() {
    let mut stage = Stage::set_unpinned().await;
    let run = stage.order("true", |_| {}).await;
    let report = stage.controller.wait_for_report(run, RunState::Rejected).await;
    assert!(report.reason.is_some_and(|reason| reason.contains("runner pin")));
    assert!(report.started_at.is_none());
    stage.place.wait_until_no_records().await;
    // And afterwards it works without anything being started again.
    stage.place.pin(&stage.controller.key);
    let run = stage.order("true", |_| {}).await;
    stage.controller.wait_for_report(run, RunState::Succeeded).await;
}

#[tokio::test]
async fn the_agents_user_does_not_become_root_by_writing_another_key_into_its_credential() {
    let mut stage = Stage::set().await;
    // Whoever has taken over the agent's user writes its own key there, and orders something.
    let forger = ControllerKey::from_secret(&[66; 32]);
    let file = stage.place.of("state/credential.json");
    let mut credential: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    credential["controller_key"] = serde_json::to_value(forger.public()).unwrap();
    std::fs::write(&file, credential.to_string()).unwrap();
    for words in [&["pin"][..], &["pin", "--trust-agent"], &["pin", "--fingerprint", &forger.public().fingerprint()]] {
        let mut command = runner(stage.place.folder.path(), Stdio::null());
        let status = command.args(words).arg("--agent-state").arg(stage.place.real("state")).status().unwrap();
        assert!(!status.success(), "{words:?}");
    }
    assert!(stage.place.log().contains("--replace"), "{}", stage.place.log());
    let run = stage.order("true", |_| {}).await;
    stage.controller.wait_for_report(run, RunState::Succeeded).await;
}

#[tokio::test]
async fn a_runner_that_is_installed_later_is_found_with_the_next_order() {
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    let place = Place::new();
    let _agent = place.start_agent(&broker, Some(&controller.token()));
    controller.wait_for_status("online").await;
    let before = controller.session.clone();
    let _systemd = Systemd::listen(&place);
    place.pin(&controller.key);
    let mut order = controller.order(&["id", "-u"]);
    order.root = true;
    controller.send(&order).await;
    let info = controller
        .wait_for("a new session", |heard| match heard.topic {
            Topic::Info(_) => Some(heard.json::<Info>()).filter(|info| Some(&info.session) != before.as_ref()),
            _ => None,
        })
        .await;
    assert!(info.runner && info.known_runs.is_empty());
    order.session = info.session;
    controller.send(&order).await;
    controller.wait_for_report(order.run, RunState::Succeeded).await;
}

#[tokio::test]
async fn a_runner_that_does_not_answer_is_named() {
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    let place = Place::new();
    let systemd = Systemd::listen(&place);
    // What systemd starts fails at once.
    std::fs::write(place.of("etc/runner.toml"), "nonsense").unwrap();
    let _agent = place.start_agent(&broker, Some(&controller.token()));
    controller.wait_for_status("online").await;
    let mut order = controller.order(&["true"]);
    order.root = true;
    controller.send(&order).await;
    let report: Report = controller.wait_for_report(order.run, RunState::Rejected).await;
    assert!(report.reason.is_some_and(|reason| reason.contains("does not answer")));
    drop(systemd);
}

const INSTALL: &str = "install the package pistat-runner";

#[tokio::test]
async fn a_socket_that_a_removed_runner_left_behind_is_no_runner_until_it_is_installed_anew() {
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    let place = Place::new();
    drop(Systemd::listen(&place));
    assert!(place.socket().exists(), "a socket that nobody listens at");
    let _agent = place.start_agent(&broker, Some(&controller.token()));
    let first =
        controller.wait_for("info", |heard| matches!(heard.topic, Topic::Info(_)).then(|| heard.json::<Info>())).await;
    assert!(!first.runner, "the controller refuses before it sends anything");
    controller.wait_for_status("online").await;
    let mut order = controller.order(&["true"]);
    order.root = true;
    controller.send(&order).await;
    let report: Report = controller.wait_for_report(order.run, RunState::Rejected).await;
    assert!(report.reason.is_some_and(|reason| reason.contains(INSTALL)));
    let _systemd = Systemd::listen(&place);
    place.pin(&controller.key);
    let mut order = controller.order(&["true"]);
    order.root = true;
    controller.send(&order).await;
    let next = controller
        .wait_for("a new session", |heard| match heard.topic {
            Topic::Info(_) => Some(heard.json::<Info>()).filter(|info| info.session != first.session),
            _ => None,
        })
        .await;
    assert!(next.runner);
    order.session = next.session;
    controller.send(&order).await;
    controller.wait_for_report(order.run, RunState::Succeeded).await;
}

#[tokio::test]
async fn a_runner_that_is_removed_meanwhile_is_told_with_what_to_do() {
    let mut stage = Stage::set().await;
    stage.systemd.stop();
    assert!(stage.place.socket().exists(), "as systemd leaves it without RemoveOnStop=yes");
    let run = stage.order("true", |_| {}).await;
    let report: Report = stage.controller.wait_for_report(run, RunState::Rejected).await;
    assert!(report.reason.is_some_and(|reason| reason.contains(INSTALL)));
}

#[test]
fn systemd_takes_the_socket_away_with_the_runner() {
    let unit = include_str!("../../../packaging/systemd/pistat-runner.socket");
    assert!(unit.lines().any(|line| line == "RemoveOnStop=yes"));
    assert!(
        include_str!("../../README.md").contains("RemoveOnStop=yes"),
        "whoever writes the unit by hand does so too"
    );
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind], &u32::try_from(payload.len()).unwrap().to_be_bytes()[..], payload].concat()
}

/// Says one thing to a runner and reads everything that it says.
fn ask(place: &Place, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(place.socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // Whoever is not served may find the connection closed before it has said anything.
    let _ = stream.write_all(&frame(kind, payload));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[tokio::test]
async fn whoever_is_not_the_agents_user_is_not_answered() {
    let place = Place::new();
    place.configure("agent_user = '4242'\n");
    let systemd = Systemd::listen(&place);
    // Even root may open the socket, and is not answered.
    chown(place.socket(), Some(own_uid()), None).unwrap();
    assert_eq!(ask(&place, b's', b""), b"");
    assert!(place.log().contains("may not ask the root runner"), "{}", place.log());
    systemd.wait_until_idle().await;
}

#[tokio::test]
async fn replayed_and_forged_orders_start_nothing() {
    let mut stage = Stage::set().await;
    let proof = stage.place.of("ran");
    let script = format!("echo x >> {}", proof.display());
    let mut order = stage.controller.order(&["sh", "-c", &script]);
    order.root = true;
    stage.controller.send(&order).await;
    stage.controller.wait_for_report(order.run, RunState::Succeeded).await;
    stage.place.wait_until_no_records().await;
    // From here on the test is whoever has taken over the agent's user: it may say to the runner
    // what it likes.
    stage.place.configure(&format!("agent_user = '{}'\n", own_uid()));
    chown(stage.place.socket(), Some(own_uid()), None).unwrap();
    let key = &stage.controller.key;
    let signed = |key: &ControllerKey, order: &pistat_protocol::order::ExecuteOrder| {
        encode(&key.sign(&Order::Execute(order.clone())))
    };
    let refused = |payload: &[u8], part: &str| {
        let answer = ask(&stage.place, b'p', payload);
        let sentence = String::from_utf8_lossy(&answer[5.min(answer.len())..]).into_owned();
        assert!(answer.first() == Some(&b'N') && sentence.contains(part), "{part}: {sentence}");
    };
    refused(&signed(key, &order), "replay");
    let new = pistat_protocol::order::ExecuteOrder { run: stage.controller.order(&["true"]).run, ..order.clone() };
    refused(&encode(&Order::Execute(new.clone())), "payload");
    refused(&signed(&ControllerKey::from_secret(&[66; 32]), &new), "signature");
    let key = &stage.controller.key;
    let mut altered = key.sign(&Order::Execute(new.clone()));
    altered.payload = altered.payload.replace("echo x", "echo y");
    refused(&encode(&altered), "signature");
    let mut foreign = new.clone();
    foreign.pi = "pi-2".parse().unwrap();
    refused(&signed(key, &foreign), "pi-2");
    let mut not_for_root = new.clone();
    not_for_root.root = false;
    refused(&signed(key, &not_for_root), "does not ask for root");
    assert_eq!(std::fs::read_to_string(&proof).unwrap(), "x\n");
    stage.systemd.wait_until_idle().await;
}

/// Asks the runner for a nonce with an order, and keeps the connection.
fn ask_nonce(place: &Place, order: &[u8]) -> (UnixStream, Nonce) {
    let mut stream = UnixStream::connect(place.socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&frame(b'p', order)).unwrap();
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], b'K', "{}", place.log());
    let mut nonce = vec![0; usize::try_from(u32::from_be_bytes(head[1..].try_into().unwrap())).unwrap()];
    stream.read_exact(&mut nonce).unwrap();
    (stream, Nonce::try_from(String::from_utf8(nonce).unwrap()).unwrap())
}

/// What the runner says to the order that comes back over a connection: the kind of its first
/// frame, and all of it.
fn hand_over(mut stream: UnixStream, order: &[u8]) -> (Option<u8>, String) {
    // One that waited for too long has gone.
    let _ = stream.write_all(&frame(b'x', order));
    let mut answer = vec![0; 1024];
    let length = stream.read(&mut answer).unwrap_or(0);
    (answer[..length].first().copied(), String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[tokio::test]
async fn an_order_that_the_agents_user_holds_back_is_worth_nothing() {
    let stage = Stage::set().await;
    let proof = stage.place.of("ran");
    let mut order = stage.controller.order(&["sh", "-c", &format!("echo x >> {}", proof.display())]);
    order.root = true;
    // The test has taken over the agent's user, and the controller signs what it asks for.
    stage.place.configure(&format!("agent_user = '{}'\n", own_uid()));
    chown(stage.place.socket(), Some(own_uid()), None).unwrap();
    let key = &stage.controller.key;
    let signed = |nonce: Option<Nonce>| {
        encode(&key.sign(&Order::Execute(pistat_protocol::order::ExecuteOrder { nonce, ..order.clone() })))
    };
    let (mut first, nonce) = ask_nonce(&stage.place, &signed(None));
    let held = signed(Some(nonce));
    // Until the runner waits no longer: somebody may have been told meanwhile that the run is
    // cancelled.
    assert_eq!(first.read_to_end(&mut Vec::new()).unwrap(), 0, "it gives up without a word");
    assert_eq!(hand_over(first, &held).0, None);
    for answer in [ask(&stage.place, b'x', &held), ask(&stage.place, b'x', &signed(None))] {
        assert!(String::from_utf8_lossy(&answer).contains("no nonce"), "{answer:?}");
    }
    let (second, _) = ask_nonce(&stage.place, &signed(None));
    let (kind, told) = hand_over(second, &held);
    assert!(kind == Some(b'N') && told.contains("another nonce"), "{told}");
    stage.systemd.wait_until_idle().await;
    assert!(!proof.exists());
    // In time it runs.
    let (third, nonce) = ask_nonce(&stage.place, &signed(None));
    assert_eq!(hand_over(third, &signed(Some(nonce))).0, Some(b'A'), "{}", stage.place.log());
    let ran = async {
        while !proof.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ran).await.expect("the order in time runs");
}

#[tokio::test]
async fn a_root_run_that_was_cancelled_before_its_order_was_signed_with_a_nonce_never_runs() {
    let mut stage = Stage::set().await;
    stage.controller.confirms = false;
    let proof = stage.place.of("ran");
    let run = stage.order(&format!("touch {}", proof.display()), |_| {}).await;
    let nonce = stage.controller.wait_for_nonce(run).await;
    stage.controller.cancel(run).await;
    let report = stage.controller.wait_for_report(run, RunState::Cancelled).await;
    assert!(report.started_at.is_none());
    // An order that was under way, and comes late.
    stage.controller.confirm(run, nonce).await;
    stage.systemd.wait_until_idle().await;
    stage.place.wait_until_no_records().await;
    let (report, _) = stage.controller.run("true").await;
    assert_eq!(report.state, RunState::Succeeded, "the agent has heard everything before this");
    assert!(!proof.exists());
    // One that comes right after the cancellation, before that is reported.
    let run = stage.order(&format!("touch {}", proof.display()), |_| {}).await;
    let nonce = stage.controller.wait_for_nonce(run).await;
    stage.controller.cancel(run).await;
    stage.controller.confirm(run, nonce).await;
    let report = stage.controller.wait_for_report(run, RunState::Cancelled).await;
    assert!(report.started_at.is_none() && !proof.exists(), "{report:?}");
}

#[tokio::test]
async fn a_controller_that_does_not_know_of_nonces_is_named() {
    let mut stage = Stage::set().await;
    stage.controller.confirms = false;
    let run = stage.order("true", |_| {}).await;
    stage.controller.wait_for_nonce(run).await;
    let report = stage.controller.wait_for_report(run, RunState::Rejected).await;
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("older than this agent")), "{report:?}");
    stage.systemd.wait_until_idle().await;
    stage.place.wait_until_no_records().await;
}

#[tokio::test]
async fn a_root_run_whose_nonce_was_lost_with_the_connection_is_asked_for_again() {
    let mut stage = Stage::set().await;
    stage.controller.confirms = false;
    let run = stage.order("id -u", |_| {}).await;
    stage.controller.wait_for_nonce(run).await;
    stage.broker.kill();
    stage.broker.start().await;
    stage.controller.confirms = true;
    let report = stage.controller.wait_for_report(run, RunState::Succeeded).await;
    assert_eq!(report.exit_code, Some(0));
}
