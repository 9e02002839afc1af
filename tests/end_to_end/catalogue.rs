//! The catalogue decides what may run, whatever the way in.

use std::time::Duration;

use pistat_protocol::{
    dashboard::Run,
    task::{RunState, TaskView},
};
use pistat_testkit::{DEADLINE, Stack, broker, eventually, process::run, steadily};
use rustix::process::Signal;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_one_element_each_and_never_a_shells() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    for text in ["$(id)", "`id`", "a; touch /tmp/pwned", "a b  c", "' \" \\", "* ~ ${HOME}", "{text}", "%s%s"] {
        let run = http.start_run("echo", "pi-1", json!({"text": text})).await;
        assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Succeeded);
        assert_eq!(http.output(run).await, format!("{text}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_in_takes_an_argument_that_the_catalogue_does_not_describe() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut feed = stack.feed().await;
    let bad = [
        ("count", json!({"last": 0})),
        ("count", json!({"last": 1.5})),
        ("count", json!({"last": "ten"})),
        ("count", json!({"more": 1})),
        ("echo", json!({})),
        ("echo", json!({"text": "-n"})),
        ("echo", json!({"text": "--version"})),
        ("echo", json!({"text": "x".repeat(201)})),
        ("mark", json!({"key": "../../etc/passwd"})),
        ("mark", json!({"key": "a", "seconds": -1})),
        ("uptime", json!({"text": "x"})),
    ];
    for (task, args) in bad {
        let reply = http.ask_run(task, "controller", args.clone()).await;
        assert_eq!(reply.problem().status, 400, "{task} {args}");
        let words: Vec<_> = args
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("\"{name}={}\"", value.as_str().map_or(value.to_string(), str::to_owned)))
            .collect();
        let answer = feed.command(&format!("task run {task} controller {}", words.join(" "))).await;
        assert!(!answer.ok && answer.runs.is_empty(), "{task} {words:?}: {answer:?}");
        let request = json!({"task": task, "args": args}).to_string();
        stack.mosquitto().publish(&["-t", "pistat/controller/task/request", "-m", &request, "-q", "1"]).await;
    }
    for (task, args) in [("../uptime", json!({})), ("uptime; id", json!({})), ("UPTIME", json!({}))] {
        let status = http.ask_run(task, "controller", args).await.status;
        assert!((400..500).contains(&status), "{task}: {status}");
    }
    let runs: Vec<Run> = http.get("/api/runs").await.json();
    assert!(runs.iter().all(|run| run.state == RunState::Rejected && run.started_at.is_none()), "{runs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn confirm_role_place_and_root_are_checked_for_every_way_in() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let (operator, token) = stack.account("olga", "operator").await;
    // A task that asks first is not started by a REST call that does not say so; the terminal asks.
    let unconfirmed = http.post("/api/runs", json!({"task": "careful", "target": "pi-1"})).await;
    assert!((400..500).contains(&unconfirmed.problem().status));
    let answer = stack.feed().await.command("task run careful pi-1").await;
    assert!(answer.ok && answer.questions.len() == 1, "{answer:?}");
    http.ended(answer.runs[0], DEADLINE).await;
    // A task for administrators.
    assert_eq!(operator.ask_run("admins-only", "pi-1", json!({})).await.problem().status, 403);
    let login = stack.mosquitto_as("olga", &token);
    login.publish(&["-t", "pistat/pi-1/task/request", "-m", "admins-only", "-q", "1"]).await;
    http.event(&["admins-only"], DEADLINE).await;
    // A task for machines with a tag.
    let elsewhere = http.ask_run("cameras-only", "pi-1", json!({})).await;
    assert!((400..500).contains(&elsewhere.problem().status));
    // A task that needs root where there is no runner.
    let rootless = http.ask_run("needs-root", "pi-1", json!({})).await;
    if rootless.status == 202 {
        let run = rootless.json::<pistat_protocol::api::AcceptedRuns>().runs[0];
        assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Rejected);
    } else {
        assert!(rootless.problem().detail.contains("root"));
    }
    let ran: Vec<Run> = http.get("/api/runs").await.json();
    let started: Vec<_> = ran.iter().filter(|run| run.started_at.is_some()).map(|run| run.task.as_str()).collect();
    assert_eq!(started, ["careful"]);
    assert!(feed_tags(&stack).await, "with the tag it may");
}

async fn feed_tags(stack: &Stack) -> bool {
    let http = stack.http();
    http.send("PATCH", "/api/pis/pi-1", Some(json!({"tags": ["camera"]}))).await;
    let run = http.start_run("cameras-only", "@camera", json!({})).await;
    http.ended(run, DEADLINE).await.state == RunState::Succeeded
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_catalogue_is_refused_with_its_problems_and_the_old_one_stays() {
    let mut stack = Stack::start().await;
    let http = stack.http();
    let before: Vec<TaskView> = http.get("/api/tasks").await.json();
    let good = std::fs::read_to_string(stack.catalogue()).unwrap();
    let broken = format!("{good}\n[task.new-one]\ncommand = \"not a list\"\ntimeuot = \"1s\"\n");
    std::fs::write(stack.catalogue(), broken).unwrap();
    stack.process().signal(Signal::HUP);
    http.event(&["timeuot"], DEADLINE).await;
    steadily("the old catalogue is in force", Duration::from_secs(1), async || {
        let tasks: Vec<TaskView> = http.get("/api/tasks").await.json();
        if tasks == before { Ok(()) } else { Err(format!("{} tasks", tasks.len())) }
    })
    .await;
    let run = http.start_run("uptime", "controller", json!({})).await;
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Succeeded);
    // Mended, and read at once on SIGHUP; the feed and the retained topic show it.
    std::fs::write(stack.catalogue(), format!("{good}\n[task.new-one]\ncommand = [\"true\"]\n")).unwrap();
    stack.process().signal(Signal::HUP);
    eventually("the new task is in the catalogue", DEADLINE, async || {
        let tasks: Vec<TaskView> = http.get("/api/tasks").await.json();
        if tasks.iter().any(|task| task.id.as_str() == "new-one") { Ok(()) } else { Err("not yet") }
    })
    .await;
    // It is published once it is in force, so a moment later.
    let retained = eventually("the new task is in the retained catalogue", DEADLINE, async || {
        let heard = stack.mosquitto().receive(&["-t", "pistat/controller/tasks", "-C", "1", "-W", "10"]).await;
        let tasks: Vec<Value> = serde_json::from_str(&heard.stdout).map_err(|error| error.to_string())?;
        if tasks.iter().any(|task| task["id"] == "new-one") { Ok(tasks) } else { Err(heard.stdout) }
    })
    .await;
    assert!(retained.iter().all(|task| task.get("command").is_none()), "commands stay at home");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_explained_command_lines_really_work() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut feed = stack.feed().await;
    for (task, line) in
        [("echo", "task run echo controller text=explained"), ("careful", "task run careful controller")]
    {
        let answer = feed.command(&format!("{line} --explain")).await;
        assert!(answer.ok && answer.runs.is_empty(), "{answer:?}");
        let lines: Vec<_> = answer.text.lines().map(str::trim_end).filter(|line| !line.contains('#')).collect();
        assert!(lines.len() == 2 && lines[0].starts_with("mosquitto_pub") && lines[1].starts_with("curl"), "{lines:?}");
        for (index, line) in lines.into_iter().enumerate() {
            let is_anothers = index == 0 && broker::is_external();
            let secret = if is_anothers { broker::password("admin") } else { stack.admin_token() };
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &line.replace("ACCOUNT", "admin")]).env("PISTAT_TOKEN", secret);
            let said = run("sh", &mut shell, DEADLINE).await;
            assert_eq!(said.code, 0, "{line}: {said:?}");
            eventually(&format!("{line} has run"), DEADLINE, async || {
                let runs: Vec<Run> = http.get(&format!("/api/runs?task={task}")).await.json();
                let done = runs.iter().filter(|run| run.state == RunState::Succeeded).count();
                if done == index + 1 { Ok(()) } else { Err(format!("{said:?} {runs:?}")) }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_policies_come_last_and_win() {
    let stack = Stack::start().await;
    let http = stack.http();
    let policy = "execute = \"listed\"\n[task.uptime]\n[task.echo]\ncommand = [\"printf\", \"%s\\n\", \"fixed\"]\n";
    let _agent = stack.agent("pi-1").config(policy).online(&http).await;
    for (task, args, state) in [
        ("uptime", json!({}), RunState::Succeeded),
        ("echo", json!({"text": "fixed"}), RunState::Succeeded),
        ("echo", json!({"text": "other"}), RunState::Rejected),
    ] {
        let run = http.start_run(task, "pi-1", args.clone()).await;
        let run = http.ended(run, DEADLINE).await;
        assert_eq!(run.state, state, "{task} {args}: {run:?}");
    }
    // The agent reports which tasks it lists, so others are refused before they are sent.
    let request = json!({"task": "count", "target": "pi-1"});
    let refusal = http.post("/api/runs", request).await;
    assert_eq!(refusal.status, 409, "{refusal:?}");
    assert!(refusal.body.contains("its agent runs only the tasks that its own agent.toml lists"), "{refusal:?}");
}
