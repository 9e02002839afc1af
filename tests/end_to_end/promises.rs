//! Every promise of the original, each with the test that proves it.

use pistat_protocol::{
    api::AcceptedRuns,
    dashboard::{Change, MachineStatus, Run, ServerMessage},
    task::{RunState, TaskView},
};
use pistat_testkit::{DEADLINE, Stack, eventually};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn cpu_and_ram_of_each_registered_pi_arrive_live_by_websocket() {
    let stack = Stack::start().await;
    let _one = stack.agent("pi-1").label("Rack Pi 1").online(&stack.http()).await;
    let _two = stack.agent("pi-2").online(&stack.http()).await;
    let mut feed = stack.feed().await;
    let machines = feed.machines().await;
    let names: Vec<_> = machines.iter().map(|machine| machine.id.as_str()).collect();
    assert_eq!(names, ["controller", "pi-1", "pi-2"]);
    for pi in names {
        let mut seen = Vec::new();
        feed.change(&format!("three samples of {pi}"), |change| match change {
            Change::Stats { pi: from, stats } if from.as_str() == pi => {
                assert!(stats.memory_percent.is_some_and(|percent| (0.1..=100.0).contains(&percent)), "{stats:?}");
                seen.push(stats.seq);
                // A share of CPU needs two readings: the very first sample may not have one.
                let known = stats.cpu_percent.is_some_and(|percent| (0.0..=100.0).contains(&percent));
                (seen.len() >= 3 && known).then_some(())
            }
            _ => None,
        })
        .await;
        assert!(seen.is_sorted(), "samples come in order: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_list_shows_the_built_in_catalogue() {
    let shipped = include_str!("../../config/tasks.toml");
    let stack = Stack::builder().catalogue(shipped).start().await;
    let answer = stack.feed().await.command("task list").await;
    assert!(answer.ok, "{answer:?}");
    let tasks: Vec<TaskView> = stack.http().get("/api/tasks").await.json();
    assert_eq!(tasks.len(), 14, "the catalogue that ships has fourteen tasks");
    for task in &tasks {
        assert!(answer.text.contains(task.id.as_str()), "`task list` lacks {}: {}", task.id, answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_run_without_a_machine_runs_on_the_controller_and_streams_into_the_terminal() {
    let stack = Stack::start().await;
    let mut feed = stack.feed().await;
    let answer = feed.command("task run uptime").await;
    assert!(answer.ok && answer.runs.len() == 1, "{answer:?}");
    let output = feed.output(answer.runs[0]).await;
    assert!(output.contains("load average"), "{output}");
    let run = stack.http().ended(answer.runs[0], DEADLINE).await;
    assert_eq!((run.pi.as_str(), run.state, run.exit_code), ("controller", RunState::Succeeded, Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn task_run_on_a_registered_pi_streams_its_output_while_it_runs() {
    let stack = Stack::start().await;
    let _agent = stack.agent("pi-1").online(&stack.http()).await;
    let mut feed = stack.feed().await;
    let answer = feed.command("task run drip pi-1 lines=15").await;
    assert!(answer.ok, "{answer:?}");
    let run = answer.runs[0];
    feed.send(&pistat_protocol::dashboard::ClientMessage::Follow { run, from: 0 }).await;
    // The first piece comes long before the task's end.
    feed.until("the first line, while the task runs", |message| match message {
        ServerMessage::Output { run: from, pieces, done } if *from == run && !pieces.is_empty() => {
            assert!(!done && !pieces[0].data.contains("line 15"), "output came only at the end: {message:?}");
            Some(())
        }
        _ => None,
    })
    .await;
    let ended = stack.http().ended(run, DEADLINE).await;
    assert_eq!(ended.state, RunState::Succeeded);
    let lines: Vec<_> = (1..=15).map(|line| format!("line {line}")).collect();
    assert_eq!(stack.http().output(run).await.lines().collect::<Vec<_>>(), lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_from_execute_over_output_to_finished_or_error() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let mut feed = stack.feed().await;
    feed.machines().await;
    let good = http.start_run("echo", "pi-1", json!({"text": "hello"})).await;
    let mut states = Vec::new();
    feed.change("the run's states", |change| match change {
        Change::Run { run } if run.id == good => {
            states.push(run.state);
            run.state.is_final().then_some(())
        }
        _ => None,
    })
    .await;
    states.dedup();
    assert!(states.is_sorted() && states.last() == Some(&RunState::Succeeded), "a run only goes forward: {states:?}");
    assert_eq!(http.output(good).await, "hello\n");
    let bad = http.start_run("exit", "pi-1", json!({"code": 7})).await;
    let bad = http.ended(bad, DEADLINE).await;
    assert_eq!((bad.state, bad.exit_code), (RunState::Failed, Some(7)));
    let missing = http.start_run("missing-program", "pi-1", json!({})).await;
    let missing = http.ended(missing, DEADLINE).await;
    assert_eq!(missing.state, RunState::Failed);
    assert!(missing.reason.as_deref().is_some_and(|reason| reason.contains("program")), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exit_code_is_told_truly_however_short_the_task_is() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let mut runs = Vec::new();
    for code in 1..=30 {
        for pi in ["pi-1", "controller"] {
            runs.push((code, http.start_run("exit", pi, json!({"code": code})).await));
        }
    }
    for (code, run) in runs {
        let run = http.ended(run, DEADLINE).await;
        assert_eq!((run.state, run.exit_code), (RunState::Failed, Some(code)), "{run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_assign_records_a_responsibility_and_runs_nothing() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").label("Rack Pi 1").online(&http).await;
    let mut feed = stack.feed().await;
    let answer = feed.command(r#"task assign "Rack Pi 1" "Uptime""#).await;
    assert!(answer.ok && answer.runs.is_empty(), "{answer:?}");
    let machine = http.machine("pi-1").await.unwrap();
    assert!(machine.assignment.as_deref().is_some_and(|task| task.eq_ignore_ascii_case("uptime")), "{machine:?}");
    assert_eq!(http.get("/api/runs").await.json::<Vec<Run>>(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn assign_name_renames_a_machine_and_single_words_need_no_quotes() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").label("Rack Pi 1").online(&http).await;
    let mut feed = stack.feed().await;
    for (line, label) in [
        (r#"assign name "Rack Pi 1" "Attic""#, "Attic"),
        ("assign name attic Cellar", "Cellar"),
        (r#"assign name pi-1 "Top shelf""#, "Top shelf"),
        (r#"task assign "top SHELF" uptime"#, "Top shelf"),
    ] {
        let answer = feed.command(line).await;
        assert!(answer.ok, "{line}: {answer:?}");
        assert_eq!(http.machine("pi-1").await.unwrap().label, label, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_machines_and_assignments_survive_a_restart_in_two_plain_files() {
    let mut stack = Stack::start().await;
    let http = stack.http();
    let agent = stack.agent("pi-1").label("Rack Pi 1").online(&http).await;
    let mut feed = stack.feed().await;
    assert!(feed.command(r#"assign name pi-1 "Attic""#).await.ok);
    assert!(feed.command(r#"task assign "Attic" "Uptime""#).await.ok);
    assert!(feed.command("tag add pi-1 camera").await.ok);
    for (file, word) in [("labels.json", "Attic"), ("tasks.json", "ptime")] {
        let text = std::fs::read_to_string(stack.state().join(file)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap();
        assert!(text.contains("pi-1") && text.contains(word), "{file}: {text}");
    }
    assert_eq!(stack.stop().await, 0);
    stack.restart().await;
    let machine = agent.sampled(&http).await;
    assert_eq!(machine.label, "Attic");
    assert!(machine.assignment.is_some_and(|task| task.eq_ignore_ascii_case("uptime")));
    assert_eq!(machine.tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["camera"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_command_line_starts_an_agent() {
    let stack = Stack::start().await;
    let http = stack.http();
    // With a token at the first start, and exactly as it stands afterwards.
    let mut agent = stack.agent("pi-1").with_defaults().label("Rack Pi 1").online(&http).await;
    assert_eq!(http.machine("pi-1").await.unwrap().label, "Rack Pi 1");
    assert_eq!(agent.stop().await, 0);
    agent.offline(&http).await;
    agent.restart();
    let machine = agent.sampled(&http).await;
    let interval = machine.info.unwrap().interval_seconds;
    assert!((interval - 5.0).abs() < f64::EPSILON, "the cadence is 5 s unless it is given: {interval}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interval_flag_sets_the_cadence_and_the_controller_can_change_it() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").flag("--interval", "0.2").online(&http).await;
    let interval = || async { http.machine("pi-1").await.unwrap().info.unwrap().interval_seconds };
    assert!((interval().await - 0.2).abs() < 1e-9);
    let mut feed = stack.feed().await;
    spaced(&mut feed, 0.1..1.0).await;
    let changed = http.send("PATCH", "/api/pis/pi-1", Some(json!({"interval": 2.5}))).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    eventually("the agent measures every 2.5 s", DEADLINE, async || {
        let now = interval().await;
        if (now - 2.5).abs() < 1e-9 { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
    spaced(&mut feed, 2.0..4.0).await;
    http.send("PATCH", "/api/pis/pi-1", Some(json!({"interval": null}))).await;
    eventually("the agent measures at its own cadence again", DEADLINE, async || {
        let now = interval().await;
        if (now - 0.2).abs() < 1e-9 { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
    spaced(&mut feed, 0.1..1.0).await;
}

/// Waits for three samples in a row of pi-1 that are so many seconds apart, by the times that they
/// carry.
async fn spaced(feed: &mut pistat_testkit::Feed, seconds: std::ops::Range<f64>) {
    let mut row: Vec<(u64, f64)> = Vec::new();
    feed.change(&format!("samples {seconds:?} seconds apart"), |change| {
        let Change::Stats { pi, stats } = change else { return None };
        if pi.as_str() != "pi-1" {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century fit")]
        let next = (stats.seq, stats.time.unix_milliseconds() as f64 / 1000.0);
        if row.last().is_some_and(|last| next.0 != last.0 + 1 || !seconds.contains(&(next.1 - last.1))) {
            row.clear();
        }
        row.push(next);
        (row.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_only_agent_reports_stats_and_refuses_tasks() {
    let stack = Stack::start().await;
    let http = stack.http();
    let agent = stack.agent("pi-1").register_only().online(&http).await;
    let refused = http.ask_run("uptime", "pi-1", json!({})).await;
    let problem = refused.problem();
    assert_eq!(problem.status, 409);
    assert!(problem.detail.contains("register-only"), "{}", problem.detail);
    assert_eq!(agent.sampled(&http).await.status, MachineStatus::Online);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_level_debug_says_more_in_any_case() {
    let stack = Stack::start().await;
    let mut said = Vec::new();
    for (pi, level) in [("pi-1", "info"), ("pi-2", "DEBUG")] {
        let mut agent = stack.agent(pi).flag("--log-level", level).online(&stack.http()).await;
        agent.stop().await;
        said.push(agent.process().stderr());
    }
    assert!(said[1].iter().any(|line| line.contains("DEBUG")), "{:?}", said[1]);
    assert!(!said[0].iter().any(|line| line.contains("DEBUG")), "{:?}", said[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_a_task_is_one_entry_in_one_file() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut text = std::fs::read_to_string(stack.catalogue()).unwrap();
    text.push_str("\n[task.brand-new]\ncommand = [\"echo\", \"brand new\"]\n");
    std::fs::write(stack.catalogue(), text).unwrap();
    let run = eventually("the new task can be run", DEADLINE, async || {
        let reply = http.ask_run("brand-new", "controller", json!({})).await;
        if reply.status == 202 { Ok(reply.json::<AcceptedRuns>().runs[0]) } else { Err(format!("{reply:?}")) }
    })
    .await;
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Succeeded);
    assert_eq!(http.output(run).await, "brand new\n");
}
