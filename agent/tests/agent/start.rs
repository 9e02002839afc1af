//! Starting, enrolling, and being refused.

use std::process::{Command, Output};

use pistat_protocol::{status::Info, topic::Topic};

use crate::harness::{Agent, Broker, Controller, Stage};
use pistat_tests::Port;

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
    let broker = Broker::start().await;
    let mut controller = Controller::connect(&broker);
    let folder = tempfile::tempdir().unwrap();
    let (url, state) = (format!("mqtt://127.0.0.1:{}", broker.port), folder.path().join("state"));
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
    let broker = Broker::start().await;
    let mut controller = Controller::connect(&broker);
    let folder = tempfile::tempdir().unwrap();
    let url = format!("mqtt://broker-user:broker-password@127.0.0.1:{}", broker.port);
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

#[tokio::test]
async fn refused_credentials_are_explained_and_tried_again() {
    let mut stage = Stage::set(&[]).await;
    stage.agent.terminate().await;
    let closed = Broker::start_with("allow_anonymous false").await;
    let url = format!("mqtt://127.0.0.1:{}", closed.port);
    let mut agent = Agent::start(&url, &stage.state(), &[]);
    let explained = async {
        while !agent.log().contains("refuses this machine's credentials") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::harness::DEADLINE, explained).await.unwrap();
    assert!(agent.terminate().await.success(), "it stops when asked, even while it waits");
}

#[tokio::test]
async fn info_tells_what_the_machine_is_before_it_is_online() {
    let broker = Broker::start().await;
    let mut controller = Controller::connect(&broker);
    let folder = tempfile::tempdir().unwrap();
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
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
