//! Asking for tasks over MQTT, with the clients that people have.

use std::time::Duration;

use pistat_protocol::{
    dashboard::{Change, MachineStatus, Run},
    task::RunState,
};
use pistat_testkit::{DEADLINE, Process, Stack, eventually, steadily};
use serde_json::{Value, json};

/// The lines of a `mosquitto_sub` as (retained, topic, payload).
fn heard(subscriber: &Process) -> Vec<(bool, String, String)> {
    let split = |line: &String| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        Some((words.next()? == "1", words.next()?, words.next().unwrap_or_default()))
    };
    subscriber.stdout().iter().filter_map(split).collect()
}

async fn hears(subscriber: &Process, what: &str, matches: impl Fn(bool, &str, &str) -> bool) -> (String, String) {
    eventually(what, DEADLINE, async || {
        let heard = heard(subscriber);
        let found = heard.iter().find(|(retained, topic, payload)| matches(*retained, topic, payload)).cloned();
        found.map(|(_, topic, payload)| (topic, payload)).ok_or_else(|| {
            let topics: Vec<_> = heard.iter().map(|(retained, topic, _)| (retained, topic)).collect();
            format!("{topics:?}")
        })
    })
    .await
}

/// Waits until the broker serves this subscriber: it has the retained status of the controller.
async fn listening(subscriber: &Process) {
    hears(subscriber, "the subscriber is served", |_, topic, _| topic == "pistat/controller/status").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_sub_sees_retained_status_info_and_stats() {
    let stack = Stack::start().await;
    let _agent = stack.agent("pi-1").label("Rack Pi 1").online(&stack.http()).await;
    let subscriber = stack.mosquitto().subscribe("pistat/#");
    let (_, status) =
        hears(&subscriber, "retained status", |retained, topic, _| retained && topic == "pistat/pi-1/status").await;
    assert_eq!(status, "online");
    let (_, info) =
        hears(&subscriber, "retained info", |retained, topic, _| retained && topic == "pistat/pi-1/info").await;
    assert_eq!(serde_json::from_str::<Value>(&info).unwrap()["label"], "Rack Pi 1");
    let (_, stats) =
        hears(&subscriber, "retained stats", |retained, topic, _| retained && topic == "pistat/pi-1/stats").await;
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert!(stats["memory_percent"].is_number() && stats["time"].is_string(), "{stats}");
    for topic in [
        "pistat/controller/status",
        "pistat/controller/stats",
        "pistat/controller/tasks",
        "pistat/controller/key",
        "pistat/pi-1/meta",
    ] {
        hears(&subscriber, topic, |retained, heard, _| retained && heard == topic).await;
    }
    // After the snapshot it goes on live, without the flag.
    hears(&subscriber, "a live sample", |retained, topic, _| !retained && topic == "pistat/pi-1/stats").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_pub_runs_a_task_whose_output_appears_everywhere() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let subscriber = stack.mosquitto().subscribe("pistat/#");
    listening(&subscriber).await;
    let mut feed = stack.feed().await;
    feed.machines().await;
    let published = stack.mosquitto().publish(&["-t", "pistat/pi-1/task/request", "-m", "uptime"]).await;
    assert_eq!(published.code, 0, "{published:?}");
    let (topic, _) = hears(&subscriber, "output", |retained, topic, payload| {
        !retained && topic.ends_with("/output") && payload.contains("load average")
    })
    .await;
    let run = topic.split('/').nth(3).unwrap().parse().unwrap();
    assert_eq!(topic, format!("pistat/pi-1/task/{run}/output"));
    hears(&subscriber, "its final status", |_, heard, payload| {
        heard == format!("pistat/pi-1/task/{run}/status") && payload.contains("succeeded")
    })
    .await;
    let (_, result) = hears(&subscriber, "its result", |_, heard, _| heard == "pistat/pi-1/task/result").await;
    assert_eq!(serde_json::from_str::<Value>(&result).unwrap()["event_type"], "succeeded");
    // In the feed, which the terminal and the logs show.
    let mut told = (false, false);
    feed.change("the run and an event about it", |change| {
        match change {
            Change::Run { run: seen } if seen.id == run => told.0 |= seen.state == RunState::Succeeded,
            Change::Event { event } if event.run == Some(run) => told.1 = true,
            _ => {}
        }
        (told == (true, true)).then_some(())
    })
    .await;
    assert!(feed.output(run).await.contains("load average"));
    assert!(http.output(run).await.contains("load average"));
    assert_eq!(http.run(run).await.unwrap().requested_by, stack.asker("admin"));
    // Late subscribers get the end of the output and the final state.
    let late = stack.mosquitto().subscribe(&format!("pistat/pi-1/task/{run}/+"));
    let (_, last) = hears(&late, "the retained end", |retained, topic, _| retained && topic.ends_with("/output")).await;
    let last: Value = serde_json::from_str(&last).unwrap();
    assert!(last["final"] == true && last["data"].as_str().unwrap().contains("load average"), "{last}");
    hears(&late, "the retained status", |retained, topic, _| retained && topic.ends_with("/status")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_request_runs_nothing_and_is_cleared() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    for topic in ["pistat/pi-1/task/request", "pistat/@all/task/request", "pistat/controller/task/request"] {
        let published = stack.mosquitto().publish(&["-t", topic, "-m", "uptime", "-r", "-q", "1"]).await;
        assert_eq!(published.code, 0, "{published:?}");
    }
    http.event(&["retain"], DEADLINE).await;
    eventually("no retained request is left", DEADLINE, async || {
        let late = stack.mosquitto().receive(&["-t", "pistat/+/task/request", "-W", "1", "-v"]).await;
        if late.stdout.is_empty() { Ok(()) } else { Err(late.stdout) }
    })
    .await;
    assert_eq!(http.get("/api/runs").await.json::<Vec<Run>>(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_request_survives_no_restart_either() {
    let mut stack = Stack::start().await;
    let http = stack.http();
    stack.mosquitto().publish(&["-t", "pistat/controller/task/request", "-m", "uptime", "-r", "-q", "1"]).await;
    stack.kill();
    stack.restart().await;
    steadily("nothing runs after the restart", Duration::from_secs(2), async || {
        let runs: Vec<Run> = http.get("/api/runs").await.json();
        if runs.is_empty() { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_request_has_arguments_and_runs_once_per_request_id() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let request = json!({"task": "mark", "args": {"key": "once"}, "request_id": "r-1"}).to_string();
    for _ in 0..3 {
        stack.mosquitto().publish(&["-t", "pistat/pi-1/task/request", "-m", &request, "-q", "1"]).await;
    }
    let runs = eventually("the run has ended", DEADLINE, async || {
        let runs: Vec<Run> = http.get("/api/runs?pi=pi-1").await.json();
        if runs.iter().any(|run| run.state == RunState::Succeeded) { Ok(runs) } else { Err(format!("{runs:?}")) }
    })
    .await;
    assert_eq!(runs.len(), 1);
    assert_eq!(pistat_testkit::catalogue::starts(&stack.marks(), "once"), 1);
    // Without an id each is a run of its own.
    for _ in 0..2 {
        stack.mosquitto().publish(&["-t", "pistat/pi-1/task/request", "-m", "uptime", "-q", "1"]).await;
    }
    eventually("both have run", DEADLINE, async || {
        let runs: Vec<Run> = http.get("/api/runs?pi=pi-1&task=uptime").await.json();
        let ended = runs.iter().filter(|run| run.state == RunState::Succeeded).count();
        if ended == 2 && runs.len() == 2 { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_rr_gets_the_run_ids_or_the_refusal() {
    let stack = Stack::start().await;
    let (topic, answer) = ("pistat/controller/task/request", "pistat-test/answer");
    let account =
        json!({"name": "script", "role": "operator", "publish": ["pistat-test/#"], "subscribe": ["pistat-test/#"]});
    let token: Value = stack.http().post("/api/accounts", account).await.json();
    let script = stack.mosquitto_as("script", token["token"].as_str().unwrap());
    let good = script.request(&["-V", "5", "-t", topic, "-e", answer, "-m", "uptime", "-W", "15"]).await;
    let reply: Value = serde_json::from_str(&good.stdout).unwrap_or_else(|error| panic!("{error}: {good:?}"));
    let run = reply["runs"][0].as_str().unwrap().parse().unwrap();
    assert_eq!(stack.http().ended(run, DEADLINE).await.requested_by, stack.asker("script"));
    let bad = script.request(&["-V", "5", "-t", topic, "-e", answer, "-m", "no-such-task", "-W", "15"]).await;
    let reply: Value = serde_json::from_str(&bad.stdout).unwrap_or_else(|error| panic!("{error}: {bad:?}"));
    assert!(reply["error"].as_str().is_some_and(|error| error.contains("no-such-task")), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_can_be_cancelled_over_mqtt() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    let run = http.start_run("pause", "pi-1", json!({"seconds": 600})).await;
    eventually("it runs", DEADLINE, async || {
        let run = http.run(run).await?;
        if run.state == RunState::Running { Ok(()) } else { Err(format!("{run:?}")) }
    })
    .await;
    let cancel = json!({"cancel": run}).to_string();
    stack.mosquitto().publish(&["-t", "pistat/pi-1/task/request", "-m", &cancel, "-q", "1"]).await;
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_shows_offline_and_one_that_stops_says_so_itself() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.agent("pi-1").online(&http).await;
    let subscriber = stack.mosquitto().subscribe("pistat/pi-1/status");
    hears(&subscriber, "online", |_, _, payload| payload == "online").await;
    agent.kill();
    hears(&subscriber, "the last will", |retained, _, payload| !retained && payload == "offline").await;
    agent.offline(&http).await;
    let late = stack.mosquitto().receive(&["-t", "pistat/pi-1/status", "-C", "1", "-W", "10"]).await;
    assert_eq!(late.stdout, "offline", "the will is retained");
    agent.restart();
    agent.sampled(&http).await;
    assert_eq!(agent.stop().await, 0);
    assert_eq!(agent.offline(&http).await.status, MachineStatus::Offline);
    let late = stack.mosquitto().receive(&["-t", "pistat/pi-1/status", "-C", "1", "-W", "10"]).await;
    assert_eq!(late.stdout, "offline", "a farewell is retained too");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_no_requests_run_nothing_and_are_told() {
    let stack = Stack::start().await;
    let http = stack.http();
    for (payload, word) in [
        ("rm -rf /", "rm -rf"),
        ("{\"task\":\"uptime\",\"shell\":true}", "shell"),
        ("no-such-task", "no-such-task"),
        ("{\"task\":\"count\",\"args\":{\"last\":0}}", "last"),
        ("{\"task\":\"echo\",\"args\":{\"text\":\"-n\"}}", "text"),
        ("{\"task\":\"uptime\",\"args\":{\"more\":1}}", "more"),
    ] {
        stack.mosquitto().publish(&["-t", "pistat/controller/task/request", "-m", payload, "-q", "1"]).await;
        http.event(&[word], DEADLINE).await;
    }
    let runs: Vec<Run> = http.get("/api/runs").await.json();
    assert!(runs.iter().all(|run| run.state == RunState::Rejected), "{runs:?}");
    // A group without machines is an error, never "everything".
    stack.mosquitto().publish(&["-t", "pistat/@nobody/task/request", "-m", "uptime", "-q", "1"]).await;
    http.event(&["@nobody"], DEADLINE).await;
    // So is a name that no machine and no group can have; a retained one is cleared.
    for level in ["@Camera", "Rack Pi 1"] {
        let topic = format!("pistat/{level}/task/request");
        stack.mosquitto().publish(&["-t", &topic, "-m", "uptime", "-q", "1", "-r"]).await;
        http.event(&["request refused", level.trim_start_matches('@')], DEADLINE).await;
        eventually("it is cleared", DEADLINE, async || {
            let late = stack.mosquitto().receive(&["-t", &topic, "-W", "1"]).await;
            if late.stdout.is_empty() { Ok(()) } else { Err(late.stdout) }
        })
        .await;
    }
}

/// Only the controller's own broker knows who asks, and what they may do themselves.
mod embedded_only {
    use super::*;
    use pistat_testkit::{Mqtt, mqtt::Heard};
    use rumqttc::v5::mqttbytes::v5::PublishProperties;

    async fn account(stack: &Stack, name: &str, rules: Value) -> String {
        let mut account = json!({"name": name, "role": "operator"});
        account.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
        let token: Value = stack.http().post("/api/accounts", account).await.json();
        token["token"].as_str().unwrap().to_owned()
    }

    async fn asks(client: &mut Mqtt, answer: &str) {
        let properties = PublishProperties { response_topic: Some(answer.into()), ..PublishProperties::default() };
        client.publish_with("pistat/controller/task/request", "no-such-task", false, properties).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_controller_lends_its_right_to_publish_to_nobody_who_asks() {
        let stack = Stack::start().await;
        let lamps = json!({"publish": ["zigbee2mqtt/#"], "subscribe": ["zigbee2mqtt/#"]});
        let lamps = account(&stack, "lamps", lamps).await;
        let script = account(&stack, "script", json!({"subscribe": ["zigbee2mqtt/#", "reply/#"]})).await;
        let mut lamps = stack.mqtt("lamps", &lamps).await;
        lamps.granted(&["zigbee2mqtt/+/set"]).await;
        let mut script = stack.mqtt("script", &script).await;
        script.granted(&["pistat/reply/me", "reply/#"]).await;
        // It may look at the lamps and command none of them, by itself or by way of an answer.
        asks(&mut script, "zigbee2mqtt/lamp/set").await;
        for answer in ["pistat/reply/me", "reply/xyz"] {
            asks(&mut script, answer).await;
            let refusal =
                script.message("the answer", |topic, message| (topic == answer).then(|| message.payload.clone()));
            let refusal: Value = serde_json::from_slice(&refusal.await).unwrap();
            assert!(refusal["error"].as_str().unwrap().contains("no-such-task"), "{refusal}");
        }
        // Whoever may command them may have answers there.
        asks(&mut lamps, "zigbee2mqtt/own/set").await;
        loop {
            match lamps.next(DEADLINE).await.expect("the answer comes") {
                Heard::Message(message) => break assert_eq!(&message.topic[..], b"zigbee2mqtt/own/set"),
                Heard::Ended(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }
}
