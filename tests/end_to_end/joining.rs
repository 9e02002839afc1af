//! Join tokens: named, bounded in uses and time, with tags. All of it is about the controller's own
//! broker.

use pistat_protocol::{
    api::{JoinTokenInfo, NewToken},
    dashboard::Machine,
};
use pistat_testkit::{DEADLINE, Mqtt, Stack, eventually, fake_agent::Identity};
use serde_json::{Value, json};

async fn add(stack: &Stack, body: Value) -> String {
    stack.http().post("/api/join-tokens", body).await.json::<NewToken>().token
}

async fn listed(stack: &Stack, name: &str) -> Option<JoinTokenInfo> {
    let reply = stack.http().get("/api/join-tokens").await;
    reply.json::<Vec<JoinTokenInfo>>().into_iter().find(|token| token.name.as_str() == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_lets_in_as_many_machines_as_it_may_and_gives_them_its_tags() {
    let mut stack = Stack::builder().embedded().start().await;
    let token = add(&stack, json!({"name": "cameras", "uses": 3, "tags": ["camera", "street"]})).await;
    let body = stack.http().get("/api/join-tokens").await.body;
    let secret = token.split_once('.').unwrap().0;
    assert!(!body.contains(secret), "the secret is shown once");
    let file = std::fs::read_to_string(stack.state().join("accounts.json")).unwrap();
    assert!(!file.contains(secret), "only its hash is kept");
    // More at the same time than it has uses.
    let door = stack.said.mqtt;
    let attempts: Vec<_> = (1..=6)
        .map(|number| {
            let token = token.clone();
            tokio::spawn(async move { Identity::enrol(door, &format!("cam-{number}"), &token).await.is_ok() })
        })
        .collect();
    let mut joined = 0;
    for attempt in attempts {
        joined += u32::from(attempt.await.unwrap());
    }
    assert_eq!(joined, 3);
    let info = listed(&stack, "cameras").await.unwrap();
    assert_eq!((info.uses_left, info.used, info.last_used.is_some()), (Some(0), 3, true), "{info:?}");
    let machines: Vec<Machine> = stack.http().get("/api/pis").await.json();
    let tagged = machines.iter().filter(|machine| machine.id.as_str().starts_with("cam-"));
    let tags: Vec<_> = tagged.map(|machine| machine.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>()).collect();
    assert_eq!(tags, [["camera", "street"]; 3]);
    assert!(Mqtt::connect(door, "cam-9", secret).await.is_err(), "the broker knows it no more");
    stack.http().event(&["enrolled", "with the join token cameras"], DEADLINE).await;
    // What it has let in stays, also over a restart; the default token goes on.
    stack.stop().await;
    stack.restart().await;
    assert_eq!(listed(&stack, "cameras").await.unwrap().uses_left, Some(0));
    let _agent = stack.fake_agent("pi-1").await;
    let info = listed(&stack, "default").await.unwrap();
    assert_eq!((info.used, info.uses_left), (1, None), "{info:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_ends_by_its_time_and_by_its_removal_and_the_default_one_comes_back_by_rotation() {
    let stack = Stack::builder().embedded().start().await;
    let http = stack.http();
    for (body, status) in [
        (json!({"name": "Bad Name"}), 422),
        (json!({"name": "default"}), 409),
        (json!({"name": "none", "uses": 0}), 400),
        (json!({"name": "none", "expires": "soon"}), 400),
        (json!({"name": "none", "tags": ["all"]}), 400),
        (json!({"name": "none", "role": "admin"}), 422),
    ] {
        let reply = http.post("/api/join-tokens", body.clone()).await;
        assert_eq!(reply.problem().status, status, "{body}: {reply:?}");
    }
    let short = add(&stack, json!({"name": "short", "expires": "4s"})).await;
    let long = add(&stack, json!({"name": "long", "expires": "24h"})).await;
    assert_eq!(http.post("/api/join-tokens", json!({"name": "long"})).await.problem().status, 409, "the name is taken");
    let door = stack.said.mqtt;
    assert!(Identity::enrol(door, "in-time", &short).await.is_ok());
    eventually("the token has ended", DEADLINE, async || {
        match Mqtt::connect(door, "too-late", short.split_once('.').unwrap().0).await {
            Err(_) => Ok(()),
            Ok(_) => Err("it is let in"),
        }
    })
    .await;
    assert!(Identity::enrol(door, "pi-long", &long).await.is_ok());
    for (name, token) in [("long", long), ("default", stack.join_token())] {
        assert_eq!(http.send("DELETE", &format!("/api/join-tokens/{name}"), None).await.status, 204);
        assert!(Identity::enrol(door, &format!("after-{name}"), &token).await.is_err(), "{name}");
    }
    assert_eq!(http.send("DELETE", "/api/join-tokens/long", None).await.problem().status, 404);
    assert_eq!(http.get("/api/join-token").await.problem().status, 404);
    let machines: Vec<Machine> = http.get("/api/pis").await.json();
    assert!(machines.iter().any(|machine| machine.id.as_str() == "pi-long"), "a machine that joined stays");
    let said = stack.cli(&["join-token", "rotate"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    eventually("the new default token lets a machine in", DEADLINE, async || {
        Identity::enrol(door, "pi-new", said.stdout.trim()).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_token_lets_in_so_many_machines_an_hour_and_says_why_no_more() {
    let stack = Stack::builder().embedded().config("[enrolment]\nper_hour = 3\n").start().await;
    let door = stack.said.mqtt;
    let mut refusals = Vec::new();
    for number in 0..6 {
        if let Err(refusal) = Identity::enrol(door, &format!("pi-{number}"), &stack.join_token()).await {
            refusals.push(refusal);
        }
    }
    assert_eq!(refusals.len(), 3, "{refusals:?}");
    assert!(refusals.iter().all(|why| why.contains("enrolment.per_hour")), "{refusals:?}");
    let told = stack.http().event(&["enrolment refused", "per_hour"], DEADLINE).await;
    let alike = stack.http().events().await.into_iter().filter(|event| event.text == told.text).count();
    assert_eq!(alike, 1, "one event, not one for each machine");
    // A named token is not bounded by that.
    let token = add(&stack, json!({"name": "batch"})).await;
    assert!(Identity::enrol(door, "pi-9", &token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_makes_lists_and_removes_join_tokens() {
    let stack = Stack::builder().embedded().start().await;
    let words = ["join-token", "add", "garage", "--uses", "2", "--expires", "24h", "--tag", "shed"];
    let said = stack.cli(&words).await;
    assert!(said.code == 0 && said.stdout.trim().contains('.'), "{said:?}");
    assert!(Identity::enrol(stack.said.mqtt, "pi-1", said.stdout.trim()).await.is_ok());
    let list = stack.cli(&["join-token", "list"]).await.stdout;
    let line = list.lines().find(|line| line.starts_with("garage")).unwrap_or_else(|| panic!("{list}"));
    for words in ["1 uses left", "used 1", "expires 2", " UTC", "@shed"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert!(list.lines().any(|line| line.starts_with("default")), "{list}");
    assert!(!list.contains(said.stdout.trim().split('.').next().unwrap()), "{list}");
    assert_eq!(stack.cli(&["join-token", "remove", "garage"]).await.code, 0);
    assert_eq!(stack.cli(&["join-token", "remove", "garage"]).await.code, 1);
    let wrong = stack.cli(&["join-token", "add", "x", "--expires", "soon"]).await;
    assert_eq!(wrong.code, 64, "{wrong:?}");
}
