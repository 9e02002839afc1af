//! Which orders run, and which do not.

use std::time::Duration;

use pistat_protocol::{
    codec::encode,
    id::{RunId, Target},
    order::{ControllerKey, Order},
    status::{Info, Session},
    task::{Report, RunState},
    topic::Topic,
};

use crate::harness::Stage;
use pistat_testkit::{Controller, controller::text};

#[tokio::test]
async fn a_signed_order_runs_and_its_output_and_end_arrive() {
    let mut stage = Stage::set(&[]).await;
    let order = stage.controller.order(&["sh", "-c", "echo hello; echo trouble >&2; exit 3"]);
    stage.controller.send(&order).await;
    let running = stage.controller.wait_for_report(order.run, RunState::Running).await;
    assert!(running.started_at.is_some() && running.finished_at.is_none());
    let (report, chunks) = stage.controller.collect(order.run).await;
    assert_eq!((report.state, report.exit_code), (RunState::Failed, Some(3)));
    assert!(report.finished_at >= report.started_at && report.elapsed_milliseconds.is_some());
    let (last, stored) = chunks.split_last().unwrap();
    assert!(last.is_final && last.seq == stored.len() as u64 && last.dropped_bytes == Some(0));
    assert_eq!(report.output_chunks, Some(stored.len() as u64));
    let mut all = text(&chunks);
    assert!(all == "hello\ntrouble\n" || all == "trouble\nhello\n", "{all}");
    all.clear();
    stage.wait_until_no_records().await;
}

#[tokio::test]
async fn the_end_of_the_output_is_retained_for_late_subscribers() {
    let mut stage = Stage::set(&[]).await;
    let (report, _) = stage.controller.run("seq 1 5").await;
    assert_eq!(report.state, RunState::Succeeded);
    let mut late = Controller::connect(stage.broker.address());
    let last = late
        .wait_for("the retained end", |heard| matches!(heard.topic, Topic::Output(..)).then(|| heard.clone()))
        .await;
    assert!(last.retain && last.json::<pistat_protocol::task::OutputChunk>().data.ends_with("4\n5\n"));
}

#[tokio::test]
async fn a_task_sees_a_clean_environment_and_no_stdin() {
    let mut stage = Stage::set(&[]).await;
    let mut order = stage.controller.order(&["sh", "-c", "env; pwd; cat; nice"]);
    order.environment.insert("EXTRA".into(), "1".into());
    order.working_directory = Some("/usr".into());
    stage.controller.send(&order).await;
    let (report, chunks) = stage.controller.collect(order.run).await;
    assert_eq!(report.state, RunState::Succeeded, "{report:?}");
    let all = text(&chunks);
    let mut names: Vec<_> = all.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
    assert_eq!(names, ["EXTRA", "HOME", "LANG", "PATH", "PISTAT_RUN_ID", "TERM"], "{all}");
    assert!(all.ends_with("/usr\n5\n"), "{all}");
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("not-executable");
    std::fs::write(&file, "x").unwrap();
    let cases: [(&[&str], Option<&str>, i32, &str); 3] = [
        (&["no-such-program-anywhere"], None, 127, "`no-such-program-anywhere` is not installed"),
        (&[file.to_str().unwrap()], None, 126, "may not be run"),
        (&["true"], Some("/no/such/folder"), 126, "working directory /no/such/folder"),
    ];
    for (argv, directory, code, part) in cases {
        let mut order = stage.controller.order(argv);
        order.working_directory = directory.map(str::to_owned);
        stage.controller.send(&order).await;
        let (report, _) = stage.controller.collect(order.run).await;
        assert_eq!((report.state, report.exit_code), (RunState::Failed, Some(code)), "{report:?}");
        assert!(report.reason.as_deref().is_some_and(|reason| reason.contains(part)), "{report:?}");
    }
}

#[tokio::test]
async fn orders_that_cannot_be_trusted_start_nothing_and_are_counted() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let proof = folder.path().join("ran");
    let touch = ["touch", proof.to_str().unwrap()];
    let controller = &mut stage.controller;
    let good = controller.order(&touch);
    let sign = |key: &ControllerKey, order| key.sign(&Order::Execute(order));

    let mut altered = sign(&controller.key, good.clone());
    altered.payload = altered.payload.replace("touch", "TOUCH");
    controller.send_signed(good.run, &altered).await;
    controller.send_signed(good.run, &sign(&ControllerKey::from_secret(&[66; 32]), good.clone())).await;
    let mut foreign = good.clone();
    foreign.pi = "pi-2".parse().unwrap();
    controller.send_signed(good.run, &sign(&controller.key, foreign)).await;
    let mut late = good.clone();
    late.session = Session::from_random([1; 16]);
    controller.send_signed(good.run, &sign(&controller.key, late)).await;
    controller.send_signed(RunId::from_parts(5, [5; 10]), &sign(&controller.key, good.clone())).await;
    let topic = Topic::Execute(controller.pi.clone(), good.run);
    controller.publish(&topic, b"{\"task\":\"x\"}".to_vec(), false).await;
    controller.publish(&topic, b"\xff\xfe".to_vec(), false).await;

    let mut reports = 0;
    let info = controller
        .wait_for("seven refusals", |heard| match heard.topic {
            Topic::Report(..) => {
                reports += 1;
                None
            }
            Topic::Info(_) => Some(heard.json::<Info>()).filter(|info| info.orders_refused == Some(7)),
            _ => None,
        })
        .await;
    assert!(info.last_order_refused.is_some_and(|text| text.contains(&good.run.to_string())));
    assert_eq!(reports, 0, "nobody turns a run's state by sending rubbish");
    assert!(!proof.exists() && stage.records() == 0);
}

#[tokio::test]
async fn a_retained_order_never_runs() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let proof = folder.path().join("ran");
    let order = stage.controller.order(&["touch", proof.to_str().unwrap()]);
    let (pi, signed) = (stage.controller.pi.clone(), stage.controller.key.sign(&Order::Execute(order.clone())));
    stage.agent.kill().await;
    stage.controller.publish(&Topic::Execute(pi.clone(), order.run), encode(&signed), true).await;
    // What follows on the same connection is heard once the order is on the broker: only then does
    // the agent meet it as retained.
    let fence = Topic::Request(Target::Pi(pi));
    stage.controller.publish(&fence, b"fence".to_vec(), false).await;
    stage.controller.wait_for("the fence", |heard| (heard.topic == fence).then_some(())).await;
    stage.start_again();
    stage
        .controller
        .wait_for("the refusal", |heard| match heard.topic {
            Topic::Info(_) => heard.json::<Info>().last_order_refused.filter(|text| text.contains("retain")),
            _ => None,
        })
        .await;
    assert!(!proof.exists());
}

#[tokio::test]
async fn a_duplicate_runs_nothing_and_repeats_the_report() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let proof = folder.path().join("ran");
    let script = format!("echo x >> {}; sleep 1", proof.display());
    let order = stage.controller.order(&["sh", "-c", &script]);
    stage.controller.acknowledges = false;
    stage.controller.send(&order).await;
    stage.controller.wait_for_report(order.run, RunState::Running).await;
    stage.controller.send(&order).await;
    stage.controller.wait_for_report(order.run, RunState::Running).await;
    stage.controller.acknowledges = true;
    stage.controller.wait_for_report(order.run, RunState::Succeeded).await;
    stage.wait_until_no_records().await;
    // Finished and forgotten: the same order is now a replay.
    stage.controller.send(&order).await;
    stage
        .controller
        .wait_for("the refusal", |heard| match heard.topic {
            Topic::Info(_) => heard.json::<Info>().last_order_refused.filter(|text| text.contains("replay")),
            _ => None,
        })
        .await;
    assert_eq!(std::fs::read_to_string(&proof).unwrap(), "x\n");
}

#[tokio::test]
async fn the_machines_own_policy_comes_last_and_wins() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "execute = 'listed'\n[task.uptime]\n[task.test]\ncommand = ['echo', 'yes']\n").unwrap();
    let mut stage = Stage::set(&["--config", file.path().to_str().unwrap()]).await;
    let order = stage.controller.order(&["echo", "yes"]);
    stage.controller.send(&order).await;
    stage.controller.wait_for_report(order.run, RunState::Succeeded).await;
    let order = stage.controller.order(&["echo", "no"]);
    stage.controller.send(&order).await;
    let report = stage.controller.wait_for_report(order.run, RunState::Rejected).await;
    assert!(report.reason.is_some_and(|reason| reason.contains("own configuration")) && report.started_at.is_none());
    stage.wait_until_no_records().await;
}

#[tokio::test]
async fn register_only_rejects_with_a_sentence_and_reports_statistics() {
    let mut stage = Stage::set(&["--register-only"]).await;
    let order = stage.controller.order(&["true"]);
    stage.controller.send(&order).await;
    let report = stage.controller.wait_for_report(order.run, RunState::Rejected).await;
    assert!(report.reason.is_some_and(|reason| reason.contains("--register-only")));
    stage.controller.wait_for("a sample", |heard| matches!(heard.topic, Topic::Stats(_)).then_some(())).await;
}

#[tokio::test]
async fn a_task_that_needs_root_says_what_to_install() {
    let mut stage = Stage::set(&[]).await;
    let mut order = stage.controller.order(&["true"]);
    order.root = true;
    stage.controller.send(&order).await;
    let report = stage.controller.wait_for_report(order.run, RunState::Rejected).await;
    assert!(report.reason.is_some_and(|reason| reason.contains("install")));
}

#[tokio::test]
async fn a_cancellation_that_comes_first_wins() {
    let mut stage = Stage::set(&[]).await;
    let order = stage.controller.order(&["true"]);
    stage.controller.cancel(order.run).await;
    stage.controller.wait_for_report(order.run, RunState::Cancelled).await;
    stage.wait_until_no_records().await;
    stage.controller.send(&order).await;
    let other = stage.controller.order(&["true"]);
    stage.controller.send(&other).await;
    let first: Report = stage
        .controller
        .wait_for("the other run", |heard| match heard.topic {
            Topic::Report(_, run) => {
                assert_eq!(run, other.run, "the cancelled one does not run");
                Some(heard.json())
            }
            _ => None,
        })
        .await;
    assert_eq!(first.state, RunState::Running);
}

#[tokio::test]
async fn runs_of_a_task_wait_for_their_turn() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let script = format!("echo start >> {0}; sleep 0.3; echo end >> {0}", log.display());
    let mut runs = Vec::new();
    for _ in 0..3 {
        let mut order = stage.controller.order(&["sh", "-c", &script]);
        order.concurrency = 1;
        stage.controller.send(&order).await;
        runs.push(order.run);
    }
    let mut done = 0;
    stage
        .controller
        .wait_for("all of them", |heard| match heard.topic {
            Topic::Report(_, run) if runs.contains(&run) => {
                done += usize::from(heard.json::<Report>().state == RunState::Succeeded);
                (done == 3).then_some(())
            }
            _ => None,
        })
        .await;
    assert_eq!(std::fs::read_to_string(log).unwrap(), "start\nend\n".repeat(3));
    tokio::time::sleep(Duration::ZERO).await;
}
