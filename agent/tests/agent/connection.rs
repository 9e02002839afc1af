//! Being online, being offline, and coming back.

use std::time::Duration;

use pistat_protocol::{
    codec::encode,
    stats::Sample,
    status::{Info, Settings, Watch},
    task::RunState,
    topic::Topic,
};

use crate::harness::{Agent, Stage};
use pistat_testkit::{
    Clock, Controller, DEADLINE, Mosquitto, Port,
    controller::{Chunks, Heard, text},
};

fn sample(heard: &Heard) -> Option<Sample> {
    matches!(heard.topic, Topic::Stats(_)).then(|| heard.json())
}

#[tokio::test]
async fn samples_are_retained_and_tell_what_the_machine_measures() {
    let mut stage = Stage::set(&["--interval", "0.2"]).await;
    let sample = stage.controller.wait_for("a sample", |heard| sample(heard).filter(|sample| sample.seq >= 2)).await;
    let percent = sample.cpu_percent.expect("the processor's load");
    assert!((0.0..=100.0).contains(&percent));
    assert!(sample.memory_used_bytes <= sample.memory_total_bytes && sample.memory_total_bytes.is_some());
    assert!(sample.uptime_seconds.is_some() && sample.processes.is_some() && sample.load1.is_some());
    assert!(sample.disks.is_some_and(|disks| disks.iter().any(|disk| disk.mount == "/")));
    let mut late = Controller::connect(stage.broker.address());
    assert!(
        late.wait_for("the retained sample", |heard| matches!(heard.topic, Topic::Stats(_)).then_some(heard.retain))
            .await
    );
}

#[tokio::test]
async fn a_clock_that_jumps_by_years_disturbs_a_running_agent_in_nothing() {
    const YEAR: i64 = 365 * 86_400;
    let clock = Clock::find();
    if !clock.is_there() {
        return;
    }
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pistat-agent"));
    command.envs(clock.environment());
    let (url, token) = (format!("mqtt://{}", broker.address()), controller.token());
    let words = ["--token", &token, "--interval", "0.2"];
    let agent = Agent::start_by(command, &url, &folder.path().join("state"), &words);
    controller.wait_for_status("online").await;
    let mut last: Option<u64> = None;
    for seconds in [0, 40 * YEAR, -30 * YEAR, 0] {
        clock.jump(seconds);
        let told = |heard: &Heard| {
            let next = sample(heard)?;
            assert!(last.is_none_or(|last| next.seq == last + 1), "no sample is missing, and none is told twice");
            last = Some(next.seq);
            // The second with that time: rates over an interval that began under it.
            Some(next).filter(|next| clock.told(next.time, seconds))
        };
        let mut told = told;
        controller.wait_for("a sample by the new time", &mut told).await;
        let sample = controller.wait_for("another", &mut told).await;
        assert!(sample.network_rx_bytes_per_second.is_none_or(|rate| rate < 1 << 40), "{sample:?}");
        assert!(sample.memory_percent.is_some() && sample.uptime_seconds.is_some(), "{sample:?}");
        let (report, _) = controller.run("true").await;
        assert_eq!(report.state, RunState::Succeeded, "by a clock that is wrong by {seconds} s");
        last = None;
    }
    assert!(!agent.log().contains("no connection"), "{}", agent.log());
}

#[tokio::test]
async fn a_killed_agent_is_offline_by_its_last_will() {
    let mut stage = Stage::set(&[]).await;
    stage.agent.kill().await;
    stage.controller.wait_for_status("offline").await;
}

#[tokio::test]
async fn an_agent_that_sees_itself_offline_says_that_it_is_online() {
    let mut stage = Stage::set(&[]).await;
    let topic = Topic::Status(stage.controller.pi.clone());
    stage.controller.publish(&topic, b"offline".to_vec(), true).await;
    stage.controller.wait_for_status("offline").await;
    stage.controller.wait_for_status("online").await;
}

#[tokio::test]
async fn it_comes_back_by_itself_with_a_new_session_and_brings_what_was_missed() {
    let mut stage = Stage::set(&["--interval", "0.2"]).await;
    let before = stage.controller.session.clone();
    stage.broker.kill();
    // Long enough for at least one sample to be missed.
    tokio::time::sleep(Duration::from_millis(700)).await;
    stage.broker.start().await;
    // Not by its status: what it published on the first connection may come twice.
    let is_new = |heard: &Heard| match heard.topic {
        Topic::Info(_) => (Some(heard.json::<Info>().session) != before).then_some(()),
        _ => None,
    };
    stage.controller.wait_for("a new session", is_new).await;
    let missed: Vec<Sample> = stage
        .controller
        .wait_for("what was missed", |heard| matches!(heard.topic, Topic::Backfill(_)).then(|| heard.json()))
        .await;
    assert!(!missed.is_empty());
}

#[tokio::test]
async fn a_run_survives_a_broken_connection_and_its_output_is_complete() {
    let mut stage = Stage::set(&[]).await;
    let order = stage.controller.order(&["sh", "-c", "for i in $(seq 1 30); do echo line $i; sleep 0.1; done"]);
    stage.controller.send(&order).await;
    let mut chunks = Chunks::default();
    stage
        .controller
        .wait_for("the first lines", |heard| {
            chunks.take(heard, order.run);
            (chunks.bytes() > 0).then_some(())
        })
        .await;
    stage.broker.kill();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.broker.start().await;
    stage.controller.collect_into(&mut chunks, order.run, RunState::Succeeded).await;
    let expected = (1..=30).map(|n| format!("line {n}\n")).collect::<Vec<_>>().concat();
    assert_eq!(text(&chunks.complete()), expected);
}

#[tokio::test]
async fn while_nobody_is_there_a_task_never_waits_and_the_gap_is_counted() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let (go, done) = (folder.path().join("go"), folder.path().join("done"));
    let script = format!(
        "echo first; while [ ! -e {} ]; do sleep 0.05; done; seq 1 1000000; echo last; touch {}; sleep 1",
        go.display(),
        done.display()
    );
    let order = stage.controller.order(&["sh", "-c", &script]);
    stage.controller.send(&order).await;
    let mut chunks = Chunks::default();
    stage
        .controller
        .wait_for("output", |heard| {
            chunks.take(heard, order.run);
            (chunks.bytes() > 0).then_some(())
        })
        .await;
    stage.broker.kill();
    std::fs::write(&go, "").unwrap();
    let finished = async {
        while !done.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, finished).await.expect("the task does not wait");
    stage.broker.start().await;
    let report = stage.controller.collect_into(&mut chunks, order.run, RunState::Succeeded).await;
    assert!(report.dropped_bytes > 4_000_000, "{report:?}");
    let chunks = chunks.complete();
    let gaps: u64 = chunks.iter().filter_map(|chunk| chunk.gap_bytes).sum();
    assert_eq!(gaps, report.dropped_bytes);
    let all = text(&chunks);
    assert_eq!(all.len() as u64 + gaps, 6_888_896 + "first\nlast\n".len() as u64, "every byte is there or counted");
    assert!(all.starts_with("first\n1\n2\n3\n"), "the first half is there");
    assert!(all.ends_with("1000000\nlast\n"), "the last half is there");
}

#[tokio::test]
async fn the_controller_sets_the_interval_and_watching_makes_it_a_second() {
    let mut stage = Stage::set(&["--interval", "3600"]).await;
    let pi = stage.controller.pi.clone();
    let set = |seconds| encode(&Settings { interval_seconds: seconds });
    stage.controller.publish(&Topic::Settings(pi.clone()), set(Some(0.2)), true).await;
    let info = |wanted: f64| {
        move |heard: &Heard| match heard.topic {
            Topic::Info(_) => Some(()).filter(|()| (heard.json::<Info>().interval_seconds - wanted).abs() < 1e-9),
            _ => None,
        }
    };
    stage.controller.wait_for("the interval", info(0.2)).await;
    for _ in 0..5 {
        stage.controller.wait_for("samples", sample).await;
    }
    stage.controller.publish(&Topic::Settings(pi.clone()), set(None), true).await;
    stage.controller.wait_for("its own interval", info(3600.0)).await;
    stage.controller.publish(&Topic::Watch(pi), encode(&Watch { seconds: 10 }), false).await;
    let first = stage.controller.wait_for("watched samples", sample).await;
    stage.controller.wait_for("watched samples", |heard| sample(heard).filter(|next| next.seq > first.seq + 1)).await;
}

#[tokio::test]
async fn each_change_of_the_connection_is_in_the_log_also_after_equal_failures() {
    let mut stage = Stage::set(&[]).await;
    stage.agent.wait_for_log(" INFO connected", 1).await;
    stage.broker.kill();
    stage.agent.wait_for_log(" WARN connection lost", 1).await;
    // The first is told, the others are known.
    stage.agent.wait_for_log("no connection to", 3).await;
    stage.broker.start().await;
    stage.controller.wait_for_status("online").await;
    stage.agent.wait_for_log(" INFO connected", 2).await;
}

#[tokio::test]
async fn two_copies_of_an_agent_take_each_others_place_ever_less_often_and_say_what_it_means() {
    let stage = Stage::set(&[]).await;
    let copied = stage.folder.path().join("copied");
    std::fs::create_dir(&copied).unwrap();
    std::fs::copy(stage.state().join("credential.json"), copied.join("credential.json")).unwrap();
    let copy = Agent::start(&stage.url(), &copied, &[]);
    let part = "another machine uses the pi-id pi-1";
    stage.agent.wait_for_log(part, 1).await;
    copy.wait_for_log(part, 1).await;
    // By then each has lost three connections and has waited a second or more after each but the
    // first.
    for log in [stage.agent.log(), copy.log()] {
        let lines = |level: &str| log.lines().filter(|line| line.split_whitespace().nth(1) == Some(level)).count();
        assert!(log.matches("INFO connected controller=").count() <= 6, "{log}");
        assert!(lines("WARN") + lines("INFO") <= 12, "{log}");
    }
}

#[tokio::test]
async fn it_speaks_mqtt_over_websocket() {
    let websocket = Port::claim();
    let lines = format!("listener {websocket} 127.0.0.1\nprotocol websockets");
    let broker = Mosquitto::builder().lines(&lines).start().await;
    let mut controller = Controller::connect(broker.address());
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", websocket.address());
    let token = controller.token();
    let mut agent = Agent::start(&url, &folder.path().join("state"), &["--token", &token]);
    controller.wait_for_status("online").await;
    let (report, chunks) = controller.run("seq 1 100000").await;
    assert_eq!(report.state, RunState::Succeeded);
    assert_eq!(text(&chunks).lines().count(), 100_000);
    assert!(agent.terminate().await.success());
    controller.wait_for_status("offline").await;
}

#[tokio::test]
async fn a_connection_that_hangs_is_noticed_by_the_broker_and_the_agent_recovers() {
    let mut stage = Stage::set(&[]).await;
    stage.agent.signal(rustix::process::Signal::STOP);
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.agent.signal(rustix::process::Signal::CONT);
    let (report, _) = stage.controller.run("true").await;
    assert_eq!(report.state, RunState::Succeeded);
}

/// A broker with a certificate of its own, and the file that names it.
async fn broker_with_tls(folder: &std::path::Path, port: &Port, kind: &str) -> (Mosquitto, std::path::PathBuf) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let lines = format!(
        "allow_anonymous true\nlistener {port} 127.0.0.1\nprotocol {kind}\ncertfile {}\nkeyfile {}",
        certificate.display(),
        key.display()
    );
    (Mosquitto::builder().lines(&lines).start().await, certificate)
}

#[tokio::test]
async fn over_tls_it_believes_only_the_named_authority() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::claim();
    let (broker, certificate) = broker_with_tls(folder.path(), &port, "mqtt").await;
    let mut controller = Controller::connect(broker.address());
    let (url, token) = (format!("mqtts://127.0.0.1:{port}"), controller.token());
    let mut doubting = Agent::start(&url, &folder.path().join("doubting"), &["--token", &token]);
    let told = async {
        while !doubting.log().contains("certificate") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, told).await.expect("it says that the certificate is not trusted");
    assert!(doubting.terminate().await.success());
    let ca = certificate.to_str().unwrap();
    let mut agent = Agent::start(&url, &folder.path().join("state"), &["--token", &token, "--ca", ca]);
    controller.wait_for_status("online").await;
    let (report, _) = controller.run("seq 1 1000").await;
    assert_eq!(report.state, RunState::Succeeded);
    assert!(agent.terminate().await.success());
}

#[tokio::test]
async fn it_speaks_mqtt_over_websocket_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::claim();
    let (broker, certificate) = broker_with_tls(folder.path(), &port, "websockets").await;
    let mut controller = Controller::connect(broker.address());
    let (url, token) = (format!("https://localhost:{port}"), controller.token());
    let words = ["--token", &token, "--ca", certificate.to_str().unwrap()];
    let mut agent = Agent::start(&url, &folder.path().join("state"), &words);
    controller.wait_for_status("online").await;
    let (report, chunks) = controller.run("seq 1 50000").await;
    assert_eq!((report.state, text(&chunks).lines().count()), (RunState::Succeeded, 50_000));
    assert!(agent.terminate().await.success());
}

#[tokio::test]
async fn a_machine_that_was_reset_joins_again_with_the_token_it_was_started_with() {
    let mut stage = Stage::set(&[]).await;
    let credential = std::fs::read_to_string(stage.state().join("credential.json")).unwrap();
    stage.agent.terminate().await;
    // A broker that knows the joining machine by its token, and the machine not yet.
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    let token = stage.controller.token();
    let secret = token.split('.').next().unwrap();
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", "-c", passwords.to_str().unwrap(), "pi-1", secret])
        .status()
        .unwrap();
    assert!(made.success());
    let lines = format!("allow_anonymous true\npassword_file {}", passwords.display());
    let broker = Mosquitto::builder().lines(&lines).start().await;
    let mut controller = Controller::connect(broker.address());
    let url = format!("mqtt://{}", broker.address());
    let agent = Agent::start(&url, &stage.state(), &["--token", &token]);
    let request: pistat_protocol::order::EnrollRequest = controller
        .wait_for("a new enrolment", |heard| matches!(heard.topic, Topic::EnrollRequest(_)).then(|| heard.json()))
        .await;
    let secret = serde_json::from_str::<pistat_agent::credential::Credential>(&credential).unwrap().secret;
    assert_eq!(request.secret_sha256, pistat_protocol::order::secret_sha256(&secret), "with the same secret");
    let enrolled = async {
        while !agent.log().contains("enrolled again") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, enrolled).await.unwrap();
}
