//! Starting, enrolling, and being refused.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    process::{Command, Output},
};

use pistat_protocol::{status::Info, topic::Topic};

use crate::harness::{Agent, Stage};
use pistat_testkit::{Controller, DEADLINE, Mosquitto, Port};

fn run_to_its_end(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pistat-agent"));
    command.args(words).envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn without_a_token_the_first_start_says_where_to_find_one() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let output =
        run_to_its_end(&["--controller-url", "http://controller-host:8000", "--pi-id", "pi-1", "--state", state], &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("pistat join-token show"), "{text}");
}

#[test]
fn wrong_usage_exits_with_64_and_a_sentence_for_each_problem() {
    let cases: [(&[&str], &str); 5] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--pi-id", "pi 1"], "pi-id"),
        (&["--pi-id", "pi-1"], "--controller-url is missing"),
        (&["--controller-url", "http://c:8000", "--pi-id", "admin"], "reserved"),
        (
            &["--controller-url", "https://c:8000", "--pi-id", "a", "--ca", "/nonexistent", "--state", "/tmp"],
            "/nonexistent",
        ),
    ];
    for (words, part) in cases {
        let output = run_to_its_end(words, &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{words:?}: {text}");
        assert!(text.contains(part), "{text}");
    }
    let output = run_to_its_end(&[], &[("PISTAT_AGENT_PI_ID", "a b"), ("PISTAT_AGENT_CONTROLLER_URL", "x")]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("\"a b\"") && text.contains("\"x\""), "the environment counts: {text}");
}

#[test]
fn help_and_version_are_no_errors() {
    for word in ["--help", "--version"] {
        assert_eq!(run_to_its_end(&[word], &[]).status.code(), Some(0));
    }
}

#[tokio::test]
async fn the_machine_enrols_once_and_needs_no_token_afterwards() {
    let mut stage = Stage::set(&["--label", "Rack Pi 1"]).await;
    assert!(stage.state().join("credential.json").exists() && !stage.state().join("enrolling.json").exists());
    assert!(stage.agent.terminate().await.success());
    stage.controller.wait_for_status("offline").await;
    stage.start_again();
    stage.controller.wait_for_status("online").await;
    assert!(stage.agent.terminate().await.success());
}

/// An agent that only enrols.
fn enrolling(url: &str, state: &std::path::Path, words: &[&str]) -> Agent {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pistat-agent"));
    command.arg("enroll");
    Agent::start_by(command, url, state, words)
}

#[tokio::test]
async fn enrolling_alone_ends_when_the_machine_is_let_in_and_publishes_nothing() {
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    let folder = tempfile::tempdir().unwrap();
    let (url, state) = (format!("mqtt://{}", broker.address()), folder.path().join("state"));
    let token = controller.token();
    for words in [&["--token", &token][..], &[]] {
        let mut agent = enrolling(&url, &state, words);
        let play = async {
            loop {
                let topic = controller.next().await.topic;
                assert!(!matches!(topic, Topic::Status(_) | Topic::Info(_) | Topic::Stats(_)), "{topic:?}");
            }
        };
        let status = tokio::select! { status = agent.wait() => status, () = play => unreachable!("it plays for ever") };
        assert!(status.success() && state.join("credential.json").exists(), "{words:?}: {}", agent.log());
    }
}

#[tokio::test]
async fn enrolling_that_is_stopped_has_not_let_the_machine_in() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = Port::claim();
    let url = format!("mqtt://{}", nobody.address());
    let token = format!("{}.{}", "s".repeat(43), "f".repeat(43));
    let mut agent = enrolling(&url, &folder.path().join("state"), &["--token", &token]);
    while !agent.log().contains("no connection") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(agent.terminate().await.code(), Some(75), "{}", agent.log());
}

#[tokio::test]
async fn the_token_of_another_controller_enrols_anew() {
    let mut stage = Stage::set(&[]).await;
    let before = std::fs::read_to_string(stage.state().join("credential.json")).unwrap();
    stage.agent.terminate().await;
    stage.controller.key = pistat_protocol::order::ControllerKey::from_secret(&[77; 32]);
    let view = pistat_protocol::codec::encode(&stage.controller.key.public().view());
    stage.controller.publish(&Topic::ControllerKey, view, true).await;
    let token = stage.controller.token();
    stage.agent = Agent::start(&stage.url(), &stage.state(), &["--token", &token]);
    stage.controller.wait_for_status("online").await;
    assert!(stage.agent.log().contains("enrolling anew"));
    assert_ne!(std::fs::read_to_string(stage.state().join("credential.json")).unwrap(), before);
    let (report, _) = stage.controller.run("true").await;
    assert_eq!(report.exit_code, Some(0));
}

#[tokio::test]
async fn another_name_needs_a_token() {
    let mut stage = Stage::set(&[]).await;
    stage.agent.terminate().await;
    let (url, folder) = (stage.url(), stage.state());
    let words = ["--controller-url", &url, "--pi-id", "pi-2", "--state", folder.to_str().unwrap()];
    let output = run_to_its_end(&words, &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("enrolled as pi-1"), "{text}");
}

#[tokio::test]
async fn with_an_external_broker_only_the_key_is_pinned() {
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    let folder = tempfile::tempdir().unwrap();
    let url = format!("mqtt://broker-user:broker-password@{}", broker.address());
    let token = controller.token();
    let mut agent = Agent::start(&url, &folder.path().join("state"), &["--token", &token]);
    let mut enrolments = 0;
    controller
        .wait_for("online", |heard| match &heard.topic {
            Topic::EnrollRequest(_) => {
                enrolments += 1;
                None
            }
            Topic::Status(_) => Some(()),
            _ => None,
        })
        .await;
    assert_eq!(enrolments, 0);
    assert!(!agent.log().contains("broker-password"));
    assert!(agent.terminate().await.success());
}

/// An agent whose log shows the most severe messages only.
fn quiet_agent(url: &str, state: &std::path::Path, words: &[&str]) -> Agent {
    let words: Vec<&str> = ["--log-level", "error"].iter().chain(words).copied().collect();
    Agent::start(url, state, &words)
}

/// A server that takes connections, answers the first byte of each with these, and is silent then.
fn silent_server(answer: &'static [u8]) -> Port {
    let port = Port::claim();
    let listener = std::net::TcpListener::bind(port.address()).unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read_exact(&mut [0; 1]);
            let _ = stream.write_all(answer);
            kept.push(stream);
        }
    });
    port
}

#[tokio::test]
async fn an_agent_that_is_not_answered_says_what_it_waits_for_at_every_log_level() {
    const CONNACK: &[u8] = &[0x20, 2, 0, 0];
    let (mute, half_mute) = (silent_server(b""), silent_server(CONNACK));
    let empty = Mosquitto::open().await;
    let stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let token = stage.controller.token();
    let enrolled = folder.path().join("enrolled");
    std::fs::create_dir(&enrolled).unwrap();
    std::fs::copy(stage.state().join("credential.json"), enrolled.join("credential.json")).unwrap();
    let joining = |name: &str, broker: SocketAddr| {
        quiet_agent(&format!("mqtt://{broker}"), &folder.path().join(name), &["--token", &token])
    };
    let agents = [
        (joining("mute", mute.address()), "waiting for a connection"),
        (joining("half", half_mute.address()), "waiting for a connection"),
        (joining("empty", empty.address()), "no controller shows its key there under the prefix `pistat`"),
        (quiet_agent(&format!("mqtt://127.0.0.1:{mute}"), &enrolled, &[]), "waiting for a connection"),
        (quiet_agent(&format!("mqtt://{}", empty.address()), &enrolled, &[]), "no controller shows its key"),
    ];
    for (agent, part) in &agents {
        agent.wait_for_log(part, 1).await;
    }
}

#[tokio::test]
async fn a_broker_of_others_that_lets_anybody_in_needs_no_user_and_password() {
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect_as_a_guest(broker.address());
    let folder = tempfile::tempdir().unwrap();
    let url = format!("mqtt://{}", broker.address());
    let token = controller.token();
    let mut agent = Agent::start(&url, &folder.path().join("state"), &["--token", &token]);
    controller.wait_for_status("online").await;
    let (report, _) = controller.run("true").await;
    assert_eq!(report.exit_code, Some(0));
    assert!(agent.terminate().await.success());
}

#[tokio::test]
async fn a_broker_of_others_that_refuses_unknown_users_is_joined_without_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    let made = Command::new("mosquitto_passwd").args(["-b", "-c", passwords.to_str().unwrap(), "other", "x"]).status();
    assert!(made.unwrap().success());
    let broker = Mosquitto::builder()
        .lines(&format!("allow_anonymous true\npassword_file {}", passwords.display()))
        .start()
        .await;
    let mut controller = Controller::connect_as_a_guest(broker.address());
    let url = format!("mqtt://{}", broker.address());
    let (state, token) = (folder.path().join("state"), controller.token());
    for words in [&["--token", &token][..], &[]] {
        let mut agent = Agent::start(&url, &state, words);
        controller.wait_for_status("online").await;
        assert!(agent.terminate().await.success());
        controller.wait_for_status("offline").await;
    }
}

#[tokio::test]
async fn refused_credentials_are_explained_and_tried_again() {
    let mut stage = Stage::set(&[]).await;
    stage.agent.terminate().await;
    let closed = Mosquitto::builder().lines("allow_anonymous false").start().await;
    let url = format!("mqtt://{}", closed.address());
    let mut agent = Agent::start(&url, &stage.state(), &[]);
    let explained = async {
        while !agent.log().contains("refuses this machine's credentials") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, explained).await.unwrap();
    assert!(agent.terminate().await.success(), "it stops when asked, even while it waits");
}

#[tokio::test]
async fn info_tells_what_the_machine_is_before_it_is_online() {
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    let folder = tempfile::tempdir().unwrap();
    let url = format!("mqtt://{}", broker.address());
    let token = controller.token();
    let words = ["--token", &token, "--label", "Rack Pi 1", "--register-only"];
    let _agent = Agent::start(&url, &folder.path().join("state"), &words);
    let mut info: Option<Info> = None;
    controller
        .wait_for("online", |heard| match &heard.topic {
            Topic::Info(_) => {
                info = Some(heard.json());
                None
            }
            Topic::Status(_) => Some(()),
            _ => None,
        })
        .await;
    let info = info.expect("info comes before online");
    assert_eq!(info.label.as_deref(), Some("Rack Pi 1"));
    assert_eq!(info.execution_policy, pistat_protocol::status::ExecutionPolicy::Never);
    assert!(info.kernel.is_some() && info.arch.is_some() && info.boot_id.len() == 36 && !info.runner);
}
