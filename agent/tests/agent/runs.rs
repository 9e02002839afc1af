//! How runs end: by themselves, by their time limit, by a person, by a crash.

use std::{path::Path, time::Duration};

use pistat_protocol::{
    id::RunId,
    status::Info,
    task::{Ends, MAX_CHUNK_BYTES, OutputChunk, RunState},
    topic::Topic,
};

use crate::harness::Stage;
use pistat_testkit::{
    DEADLINE,
    controller::{Chunks, text},
};

/// A script whose grandchildren leave their session, lose their parent, wipe their environment and
/// ignore SIGTERM.
fn stubborn(folder: &std::path::Path) -> String {
    let pids = folder.display();
    format!(
        "trap '' TERM; touch {pids}/pids; \
         setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}/pids; while :; do sleep 0.1; done' & \
         env -i PATH=$PATH setsid sh -c 'trap \"\" TERM; (echo $$ >> {pids}/pids; while :; do sleep 0.1; done) & wait' & \
         sh -c 'trap \"\" TERM; sh -c \"echo \\$\\$ >> {pids}/pids; while :; do sleep 0.1; done\" & exit' ; \
         while [ $(wc -l < {pids}/pids) -lt 3 ]; do sleep 0.05; done; echo ready; while :; do sleep 0.1; done"
    )
}

fn living(folder: &std::path::Path) -> Vec<i32> {
    let pids = std::fs::read_to_string(folder.join("pids")).unwrap_or_default();
    let pids: Vec<i32> = pids.lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert!(pids.len() >= 3, "the script has started everything: {pids:?}");
    let lives = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    pids.into_iter().filter(lives).collect()
}

#[tokio::test]
async fn nothing_survives_the_time_limit() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut order = stage.controller.order(&["sh", "-c", &stubborn(folder.path())]);
    order.timeout_milliseconds = 2_000;
    order.grace_milliseconds = 500;
    stage.controller.send(&order).await;
    let (report, chunks) = stage.controller.collect(order.run).await;
    assert_eq!(report.state, RunState::TimedOut, "{report:?}");
    assert!(report.reason.is_some_and(|reason| reason.contains("time limit of 2 s")));
    assert_eq!(report.exit_code, Some(137));
    assert_eq!(text(&chunks), "ready\n");
    assert_eq!(living(folder.path()), [] as [i32; 0]);
}

#[tokio::test]
async fn a_cancelled_run_ends_with_everything_below_it() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut order = stage.controller.order(&["sh", "-c", &stubborn(folder.path())]);
    order.grace_milliseconds = 300;
    stage.controller.send(&order).await;
    stage.controller.wait_for("output", |heard| matches!(heard.topic, Topic::Output(..)).then_some(())).await;
    stage.controller.cancel(order.run).await;
    let report = stage.controller.wait_for_report(order.run, RunState::Cancelled).await;
    assert!(report.finished_at.is_some());
    assert_eq!(living(folder.path()), [] as [i32; 0]);
}

#[tokio::test]
async fn nothing_of_a_run_outlives_it() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let script = format!("setsid sleep 1000 & echo $! > {}; echo done", pid_file.display());
    let (report, chunks) = stage.controller.run(&script).await;
    assert_eq!((report.state, text(&chunks).as_str()), (RunState::Succeeded, "done\n"));
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

/// Starts a process in the background that SIGTERM does not end, and ends itself; prints its own
/// process id first.
/// It ends once the other has its name: before, that one is still called as what starts it.
const LEAVES_ONE_BEHIND: &str = "echo $$; trap '' TERM; trap 'exit 0' USR1; \
     setsid sh -c \"kill -USR1 $$; while :; do sleep 0.1; done\" & \
     while :; do wait; done";

/// Runs a script whose first process ends and leaves others behind; returns once only those are
/// alive.
async fn leave_behind(stage: &mut Stage, script: &str) -> RunId {
    let mut order = stage.controller.order(&["sh", "-c", script]);
    // Longer than any test: what ends sooner was not ended by the grace period.
    order.grace_milliseconds = 600_000;
    stage.controller.send(&order).await;
    let first = stage
        .controller
        .wait_for("its process id", |heard| match heard.topic {
            Topic::Output(..) => Some(heard.json::<OutputChunk>().data.trim().parse::<i32>().unwrap()),
            _ => None,
        })
        .await;
    let ended = async {
        while Path::new(&format!("/proc/{first}")).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("the first process ends");
    order.run
}

#[tokio::test]
async fn a_cancel_counts_until_the_last_process_of_the_run_is_gone() {
    let mut stage = Stage::set(&[]).await;
    let run = leave_behind(&mut stage, LEAVES_ONE_BEHIND).await;
    stage.controller.cancel(run).await;
    let report = stage.controller.wait_for_report(run, RunState::Cancelled).await;
    assert_eq!(report.exit_code, Some(0), "the task's own");
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("sh")), "{report:?}");
    stage.wait_until_no_records().await;
}

#[tokio::test]
async fn a_cancel_counts_for_a_run_that_is_settled_after_a_restart_of_the_agent() {
    let mut stage = Stage::set(&[]).await;
    let run = leave_behind(&mut stage, LEAVES_ONE_BEHIND).await;
    stage.agent.kill().await;
    stage.controller.wait_for_status("offline").await;
    stage.start_again();
    stage.controller.wait_for_status("online").await;
    stage.controller.cancel(run).await;
    let report = stage.controller.wait_for_report(run, RunState::Cancelled).await;
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("sh")), "{report:?}");
    stage.wait_until_no_records().await;
}

#[tokio::test]
async fn a_cancel_is_not_forgotten_when_the_agent_is_killed_before_the_run_has_ended() {
    let mut stage = Stage::set(&[]).await;
    let mut order = stage.controller.order(&["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]);
    order.grace_milliseconds = 600_000;
    stage.controller.send(&order).await;
    stage.controller.wait_for("output", |heard| matches!(heard.topic, Topic::Output(..)).then_some(())).await;
    stage.controller.cancel(order.run).await;
    let record = stage.state().join("runs").join(format!("{}.json", order.run));
    let written = async {
        while !std::fs::read_to_string(&record).unwrap_or_default().contains("\"cancelled\":true") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, written).await.expect("the cancel is on the disk");
    stage.agent.kill().await;
    stage.start_again();
    stage.controller.wait_for_report(order.run, RunState::Cancelled).await;
    stage.wait_until_no_records().await;
}

#[tokio::test]
async fn a_stopped_agent_ends_what_a_finished_task_left_behind_and_reports_the_tasks_own_end() {
    let mut stage = Stage::set(&[]).await;
    let run = leave_behind(&mut stage, LEAVES_ONE_BEHIND).await;
    assert!(stage.agent.terminate().await.success());
    let report = stage.controller.wait_for_report(run, RunState::Succeeded).await;
    assert_eq!(report.exit_code, Some(0));
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("background")), "{report:?}");
}

#[tokio::test]
async fn a_run_names_the_background_processes_that_were_ended_with_it() {
    let mut stage = Stage::set(&[]).await;
    let (report, _) = stage.controller.run("sleep 1000 & sleep 1000 & exit 0").await;
    assert_eq!((report.state, report.exit_code), (RunState::Succeeded, Some(0)));
    let reason = report.reason.expect("a reason");
    assert!(reason.contains("background") && reason.contains("sleep (2)"), "{reason}");
    let (report, _) = stage.controller.run("sleep 1000 & exit 3").await;
    assert_eq!((report.state, report.exit_code), (RunState::Failed, Some(3)));
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("sleep")), "{report:?}");
    let (report, _) = stage.controller.run("true").await;
    assert_eq!((report.state, report.reason), (RunState::Succeeded, None), "nothing was ended");
}

#[tokio::test]
async fn a_run_does_not_name_a_process_that_another_run_may_have_left() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let script = format!("echo $$; until [ -e {} ]; do sleep 0.05; done", path("go"));
    let waiting = stage.controller.order(&["sh", "-c", &script]);
    stage.controller.send(&waiting).await;
    stage.controller.wait_for("output", |heard| matches!(heard.topic, Topic::Output(..)).then_some(())).await;
    // It leaves its session, its parent and its environment.
    let script = format!(
        "(env -i /usr/bin/setsid /bin/sh -c 'echo $$ > {pid}; exec /bin/sleep 1000' &); \
         until [ -s {pid} ]; do sleep 0.05; done",
        pid = path("pid")
    );
    let (report, _) = stage.controller.run(&script).await;
    assert_eq!((report.state, report.reason), (RunState::Succeeded, None));
    std::fs::write(path("go"), "").unwrap();
    let report = stage.controller.wait_for_report(waiting.run, RunState::Succeeded).await;
    assert_eq!(report.reason, None, "it may be of either");
    // Once nothing else is active, it is ended all the same.
    let pid = std::fs::read_to_string(path("pid")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

#[tokio::test]
async fn the_names_in_a_reason_are_bounded_and_have_no_control_characters() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let names = ["a\nb", "c\u{1b}[31m", "d\u{9b}e", "f\u{202e}g"].map(str::to_owned).into_iter();
    for name in names.chain((1..=40).map(|n| format!("process-{n}"))) {
        std::os::unix::fs::symlink("/bin/sleep", folder.path().join(name)).unwrap();
    }
    let script = format!("for program in {}/*; do \"$program\" 1000 & done; exit 0", folder.path().display());
    let (report, _) = stage.controller.run(&script).await;
    let reason = report.reason.expect("a reason");
    assert!(reason.chars().count() < 300 && reason.contains("more"), "{reason}");
    assert!(!reason.chars().any(|c| c.is_control() || c == '\u{202e}'), "{reason:?}");
    assert!(reason.contains("a\u{fffd}b"), "{reason:?}");
}

#[tokio::test]
async fn a_run_names_what_its_time_limit_or_a_cancel_ended_with_it() {
    let mut stage = Stage::set(&[]).await;
    let mut order = stage.controller.order(&["sh", "-c", "sleep 1000 & sleep 1001"]);
    order.timeout_milliseconds = 500;
    stage.controller.send(&order).await;
    let report = stage.controller.wait_for_report(order.run, RunState::TimedOut).await;
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("sleep (2)")), "{report:?}");
    let order = stage.controller.order(&["sh", "-c", "sleep 1000 & echo ready; wait"]);
    stage.controller.send(&order).await;
    stage.controller.wait_for("output", |heard| matches!(heard.topic, Topic::Output(..)).then_some(())).await;
    stage.controller.cancel(order.run).await;
    let report = stage.controller.wait_for_report(order.run, RunState::Cancelled).await;
    assert!(report.reason.as_ref().is_some_and(|reason| reason.contains("sleep")), "{report:?}");
}

#[tokio::test]
async fn adopted_orphans_do_not_stay_as_zombies() {
    let mut stage = Stage::set(&[]).await;
    let (report, _) =
        stage.controller.run("for i in 1 2 3 4 5; do setsid sh -c '(sleep 0.1 &)'; done; sleep 0.5").await;
    assert_eq!(report.state, RunState::Succeeded);
    let agent = stage.agent.pid();
    let zombies = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        stats.filter(|stat| stat.contains(&format!(") Z {agent} "))).count()
    };
    let gone = async {
        while zombies() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("orphans are reaped");
}

#[tokio::test]
async fn a_killed_agent_settles_its_runs_at_the_next_start() {
    let mut stage = Stage::set(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let script = format!("echo $$ > {}; while :; do sleep 0.1; done", pid_file.display());
    let order = stage.controller.order(&["sh", "-c", &script]);
    stage.controller.send(&order).await;
    stage.controller.wait_for_report(order.run, RunState::Running).await;
    while !pid_file.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.agent.kill().await;
    stage.controller.wait_for_status("offline").await;
    stage.start_again();
    let known = stage
        .controller
        .wait_for("info", |heard| matches!(heard.topic, Topic::Info(_)).then(|| heard.json::<Info>().known_runs))
        .await;
    assert_eq!(known, [order.run]);
    let report = stage.controller.wait_for_report(order.run, RunState::Lost).await;
    let reason = report.reason.unwrap_or_default();
    assert!(reason.contains("interrupted") && reason.contains("sh"), "{reason}");
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "what was left of it has been ended: {stat}");
    stage.wait_until_no_records().await;
}

#[tokio::test]
async fn a_stopped_agent_ends_its_tasks_and_says_so() {
    let mut stage = Stage::set(&[]).await;
    let order = stage.controller.order(&["sleep", "1000"]);
    stage.controller.send(&order).await;
    stage.controller.wait_for_report(order.run, RunState::Running).await;
    assert!(stage.agent.terminate().await.success());
    let report = stage.controller.wait_for_report(order.run, RunState::Lost).await;
    assert!(report.reason.is_some_and(|reason| reason.contains("agent was stopped")));
    stage.controller.wait_for_status("offline").await;
}

#[tokio::test]
async fn a_restart_has_succeeded_when_the_machine_comes_back_with_another_boot() {
    let mut stage = Stage::set(&[]).await;
    let mut order = stage.controller.order(&["true"]);
    order.ends = Ends::Restart;
    stage.controller.send(&order).await;
    stage
        .controller
        .wait_for("the end of its output", |heard| matches!(heard.topic, Topic::Output(..)).then_some(()))
        .await;
    assert!(stage.agent.terminate().await.success());
    let file = stage.state().join("runs").join(format!("{}.json", order.run));
    let record = std::fs::read_to_string(&file).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(record.contains("\"running\"") && record.contains(boot.trim()), "{record}");
    std::fs::write(&file, record.replace(boot.trim(), "00000000-0000-4000-8000-000000000000")).unwrap();
    stage.start_again();
    let report = stage.controller.wait_for_report(order.run, RunState::Succeeded).await;
    assert!(report.exit_code.is_none() && report.reason.is_some());
    stage.wait_until_no_records().await;
}

#[tokio::test]
async fn a_restart_that_does_not_happen_has_failed_at_the_time_limit() {
    let mut stage = Stage::set(&[]).await;
    let mut order = stage.controller.order(&["true"]);
    order.ends = Ends::Restart;
    order.timeout_milliseconds = 1_000;
    stage.controller.send(&order).await;
    let report = stage.controller.wait_for_report(order.run, RunState::Failed).await;
    assert!(report.reason.is_some_and(|reason| reason.contains("did not go down")));
}

#[tokio::test]
async fn a_flood_arrives_whole_and_in_order_while_samples_keep_their_cadence() {
    const LINES: usize = 300_000;
    let mut stage = Stage::set(&["--interval", "0.2"]).await;
    let order = stage.controller.order(&["seq", "1", &LINES.to_string()]);
    stage.controller.send(&order).await;
    let (report, chunks) = stage.controller.collect(order.run).await;
    assert_eq!((report.state, report.dropped_bytes), (RunState::Succeeded, 0));
    let all = text(&chunks);
    assert!(all.lines().enumerate().all(|(n, line)| line.parse() == Ok(n + 1)));
    assert_eq!(all.lines().count(), LINES);
    assert!(chunks.iter().all(|chunk| chunk.data.len() <= MAX_CHUNK_BYTES));
    assert_eq!(report.output_chunks, Some(chunks.len() as u64 - 1));
}

#[tokio::test]
async fn while_the_controller_acknowledges_nothing_the_process_waits_and_nothing_is_lost() {
    let mut stage = Stage::set(&[]).await;
    stage.controller.acknowledges = false;
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    let script = format!("seq 1 400000; touch {}", done.display());
    let order = stage.controller.order(&["sh", "-c", &script]);
    stage.controller.send(&order).await;
    let mut chunks = Chunks::default();
    stage
        .controller
        .wait_for("a full window", |heard| {
            chunks.take(heard, order.run);
            (chunks.bytes() > 950_000).then_some(())
        })
        .await;
    assert!(!done.exists(), "the process is held back");
    stage.controller.acknowledges = true;
    stage.controller.publish(&Topic::Status("controller".parse().unwrap()), b"online".to_vec(), false).await;
    let report = stage.controller.collect_into(&mut chunks, order.run, RunState::Succeeded).await;
    assert_eq!(report.dropped_bytes, 0);
    assert_eq!(text(&chunks.complete()).lines().count(), 400_000);
}
