//! Home Assistant's side of the broker, seen through mosquitto's clients: discovery documents,
//! birth, removal. A real Home Assistant has a test of its own (`tests/home-assistant/run`).

use std::time::Duration;

use pistat_protocol::{stats::Power, status::ExecutionPolicy};
use pistat_testkit::{
    DEADLINE, FakeAgent, Process, Stack, eventually,
    mosquitto::Login,
    mqtt::{Mqtt, will},
    steadily,
};
use serde_json::{Value, json};

/// How long nothing may be said twice.
const QUIET: Duration = Duration::from_secs(4);

const DOCUMENT: &str = "homeassistant/device/pistat_pi-1/config";

/// Everything that this subscriber heard on a topic, decoded; an empty payload is null.
fn heard(subscriber: &Process, topic: &str) -> Vec<Value> {
    let payload = |line: &String| {
        let mut words = line.splitn(3, ' ').skip(1);
        (words.next() == Some(topic)).then(|| words.next().unwrap_or_default().to_owned())
    };
    let decode = |text: String| if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    subscriber.stdout().iter().filter_map(payload).map(decode).collect()
}

/// Waits until the newest document is as it must be.
async fn newest(subscriber: &Process, topic: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(what, DEADLINE, async || match heard(subscriber, topic).pop() {
        Some(document) if fits(&document) => Ok(document),
        other => Err(format!("{other:?}")),
    })
    .await
}

fn components(document: &Value) -> Vec<&str> {
    document["cmps"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

fn has(document: &Value, key: &str) -> bool {
    document["cmps"][key]["unique_id"].is_string()
}

/// A machine that tells at once what it can measure.
async fn machine(stack: &Stack, pi: &str, capabilities: &[&str]) -> FakeAgent {
    let mut identity = stack.door().identity(pi).await.unwrap();
    identity.info.capabilities = capabilities.iter().map(ToString::to_string).collect();
    identity.info.label = Some("Rack Pi 1".into());
    let mut agent = identity.connect().await;
    agent.sample(12.0).await;
    agent
}

async fn operator(stack: &Stack) -> Login {
    let (_, token) = stack.account("ha", "operator").await;
    stack.mosquitto_as("ha", &token)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_machine_announces_itself_with_what_it_reports_and_nothing_else() {
    let stack = Stack::start().await;
    let subscriber = operator(&stack).await.subscribe("homeassistant/#");
    let _agent = machine(&stack, "pi-1", &["cpu_percent", "memory_percent"]).await;
    let document = newest(&subscriber, DOCUMENT, "the machine is announced", |document| has(document, "cpu")).await;
    assert!(has(&document, "memory") && !has(&document, "temperature") && !has(&document, "undervoltage"));
    assert_eq!(document["dev"]["ids"], json!(["pistat_pi-1"]));
    assert_eq!(document["dev"]["name"], "Rack Pi 1");
    assert!(document["dev"].get("cu").is_none(), "nobody configured an address");
    assert_eq!(document["cmps"]["cpu"]["default_entity_id"], "sensor.rack_pi_1_cpu");
    assert_eq!(
        document["availability"],
        json!([{"topic": "pistat/controller/status"}, {"topic": "pistat/pi-1/status"}])
    );
    assert_eq!(document["cmps"]["online"]["availability"], json!([{"topic": "pistat/controller/status"}]));
    let own = "homeassistant/device/pistat_controller/config";
    let own = newest(&subscriber, own, "the controller's own machine is announced", |own| has(own, "cpu")).await;
    assert_eq!(own["availability"], json!([{"topic": "pistat/controller/status"}]));
    // Retained, so that a Home Assistant that comes later has them too.
    let late = operator_again(&stack).await.subscribe("homeassistant/#");
    newest(&late, DOCUMENT, "a late subscriber has it", |late| *late == document).await;
}

async fn operator_again(stack: &Stack) -> Login {
    let (_, token) = stack.account("ha2", "operator").await;
    stack.mosquitto_as("ha2", &token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_said_again_only_when_it_changes() {
    let stack = Stack::start().await;
    let subscriber = operator(&stack).await.subscribe("homeassistant/#");
    let mut agent = machine(&stack, "pi-1", &["cpu_percent"]).await;
    newest(&subscriber, DOCUMENT, "the machine is announced", |document| has(document, "cpu")).await;
    let before = heard(&subscriber, DOCUMENT).len();
    for cpu in 0..5 {
        agent.sample(cpu as f32).await;
    }
    steadily("nothing is said twice", QUIET, async || {
        let now = heard(&subscriber, DOCUMENT).len();
        if now == before { Ok(()) } else { Err(format!("{now} documents")) }
    })
    .await;
    let patch = json!({"label": "Garage"});
    stack.http().send("PATCH", "/api/pis/pi-1", Some(patch)).await;
    newest(&subscriber, DOCUMENT, "a new name is announced", |document| document["dev"]["name"] == "Garage").await;
    let documents = heard(&subscriber, DOCUMENT);
    assert!(documents.windows(2).all(|pair| pair[0] != pair[1]), "no document twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_without_arguments_are_buttons_where_they_may_run() {
    let stack = Stack::start().await;
    let login = operator(&stack).await;
    let subscriber = login.subscribe("homeassistant/#");
    let agent = machine(&stack, "pi-1", &["cpu_percent"]).await;
    let serving = tokio::spawn(agent.serve());
    let document = newest(&subscriber, DOCUMENT, "the machine is announced", |document| has(document, "cpu")).await;
    assert!(has(&document, "task_uptime"), "{:?}", components(&document));
    // Arguments, another role, another machine, no root runner: no button.
    for absent in ["task_echo", "task_admins_only", "task_cameras_only", "task_needs_root"] {
        assert!(!has(&document, absent), "{absent}");
    }
    let button = &document["cmps"]["task_uptime"];
    assert_eq!(button["retain"], false);
    let results = login.subscribe("pistat/pi-1/task/result");
    let (topic, press) = (button["command_topic"].as_str().unwrap(), button["payload_press"].as_str().unwrap());
    login.publish(&["-t", topic, "-m", press, "-q", "1"]).await;
    let result = newest(&results, "pistat/pi-1/task/result", "a press runs the task", Value::is_object).await;
    assert_eq!((&result["event_type"], &result["task"]), (&json!("succeeded"), &json!("uptime")));
    let late = login.receive(&["-t", "pistat/pi-1/task/result", "-W", "1"]).await;
    assert_eq!(late.stdout, "", "a result is an event, and is never retained");
    stack.http().send("PATCH", "/api/pis/pi-1", Some(json!({"tags": ["camera"]}))).await;
    newest(&subscriber, DOCUMENT, "a tag brings its buttons", |document| has(document, "task_cameras_only")).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn power_problems_are_announced_once_and_stay_whatever_the_power_does() {
    let stack = Stack::start().await;
    let login = operator(&stack).await;
    let (subscriber, samples) = (login.subscribe("homeassistant/#"), login.subscribe("pistat/pi-1/stats"));
    let mut agent = machine(&stack, "pi-1", &["cpu_percent", "power"]).await;
    let announced = |document: &Value| has(document, "undervoltage");
    newest(&subscriber, DOCUMENT, "a machine that knows of its power is announced so", announced).await;
    agent.sample_with_power(1.0, Some(Power::from_throttled(0x50005))).await;
    let all = |document: &Value| has(document, "throttled") && has(document, "throttled_since_boot");
    let document = newest(&subscriber, DOCUMENT, "what its samples tell is announced, too", all).await;
    for key in ["undervoltage", "throttled", "frequency_capped", "temperature_limited", "undervoltage_since_boot"] {
        let problem = &document["cmps"][key];
        let (kind, class) = (&problem["p"], &problem["device_class"]);
        assert_eq!((kind, class), (&json!("binary_sensor"), &json!("problem")), "{key}: {problem}");
        // What a sample leaves out is unknown: neither good nor bad.
        let template = problem["value_template"].as_str();
        assert!(template.is_some_and(|text| text.contains("'None' if v is not defined")), "{problem}");
    }
    assert_eq!(document["state_topic"], "pistat/pi-1/stats");
    stack.http().event(&["under-voltage detected", "0x50005"], DEADLINE).await;
    agent.sample_with_power(2.0, Some(Power::from_throttled(0x50000))).await;
    stack.http().event(&["under-voltage is over"], DEADLINE).await;
    agent.sample_with_power(3.0, None).await;
    let flags = async |cpu: f64| {
        let sample = newest(&samples, "pistat/pi-1/stats", "the sample", |sample| sample["cpu_percent"] == cpu).await;
        sample["power"]["undervoltage"].clone()
    };
    assert_eq!(flags(3.0).await, Value::Null);
    let heard = heard(&samples, "pistat/pi-1/stats");
    let told: Vec<_> = heard.iter().map(|sample| &sample["power"]["undervoltage"]).collect();
    assert!(told.ends_with(&[&json!(true), &json!(false), &Value::Null]), "{told:?}");
    let after = newest(&subscriber, DOCUMENT, "it is still announced", announced).await;
    assert_eq!(after["cmps"], document["cmps"], "nothing is taken back when a sample is silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_only_registers_has_no_buttons() {
    let stack = Stack::start().await;
    let subscriber = operator(&stack).await.subscribe("homeassistant/#");
    let mut identity = stack.door().identity("pi-1").await.unwrap();
    identity.info.capabilities = vec!["cpu_percent".into()];
    identity.info.execution_policy = ExecutionPolicy::Never;
    let mut agent = identity.connect().await;
    agent.sample(1.0).await;
    let document = newest(&subscriber, DOCUMENT, "the machine is announced", |document| has(document, "cpu")).await;
    let buttons = components(&document).into_iter().filter(|key| key.starts_with("task_") && *key != "task_result");
    assert_eq!(buttons.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_read_again_takes_a_button_back_and_brings_another() {
    let stack = Stack::start().await;
    let subscriber = operator(&stack).await.subscribe("homeassistant/#");
    let _agent = machine(&stack, "pi-1", &["cpu_percent"]).await;
    newest(&subscriber, DOCUMENT, "the machine is announced", |document| has(document, "task_uptime")).await;
    // An id that was there before: on another's broker it is one of those that may be asked for.
    let task = "[task.echo]\nlabel = \"Say hello\"\ndescription = \"Says hello\"\ncommand = [\"true\"]\n";
    std::fs::write(stack.catalogue(), task).unwrap();
    let gone = |document: &Value| document["cmps"].get("task_uptime").is_none() && has(document, "task_echo");
    newest(&subscriber, DOCUMENT, "the buttons are those of the new catalogue", gone).await;
    // First it is said that the button is gone, by its platform alone; then it is left out.
    let told = heard(&subscriber, DOCUMENT);
    assert!(told.iter().any(|document| document["cmps"]["task_uptime"] == json!({"p": "button"})), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_machine_leaves_nothing_behind() {
    let stack = Stack::start().await;
    let subscriber = operator(&stack).await.subscribe("homeassistant/#");
    let agent = machine(&stack, "pi-1", &["cpu_percent"]).await;
    newest(&subscriber, DOCUMENT, "the machine is announced", |document| has(document, "cpu")).await;
    drop(agent);
    assert_eq!(stack.http().send("DELETE", "/api/pis/pi-1", None).await.status, 204);
    newest(&subscriber, DOCUMENT, "its document is empty", Value::is_null).await;
    let late = operator_again(&stack).await.receive(&["-t", DOCUMENT, "-W", "1"]).await;
    assert_eq!(late.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn home_assistants_birth_is_answered_with_documents_availability_and_state() {
    let stack = Stack::start().await;
    let (_, token) = stack.account("ha", "operator").await;
    let agent = stack.agent("pi-1").flag("--interval", "3600").online(&stack.http()).await;
    let mut ha = Mqtt::connect_with(stack.said.mqtt, "ha", &stack.password("ha", &token), |options| {
        // Home Assistant's own defaults.
        options.set_last_will(will("homeassistant/status", "offline"));
    })
    .await
    .unwrap();
    ha.granted(&["homeassistant/#", "pistat/+/status", "pistat/+/stats"]).await;
    ha.message("the machine is announced", |topic, _| (topic == DOCUMENT).then_some(())).await;
    ha.publish("homeassistant/status", "online", false).await;
    // The machine was announced only just, so the controller's own document may be repeated before:
    // what counts is what follows the machine's.
    let mut expected = [DOCUMENT, "pistat/controller/status", "pistat/pi-1/stats"].into_iter().peekable();
    ha.message("documents, then availability, then state", |topic, publish| {
        let _ = expected.next_if(|expected| topic == *expected && !publish.retain);
        expected.peek().is_none().then_some(())
    })
    .await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_at_any_instant_takes_back_what_it_had_announced() {
    let mut stack = Stack::start().await;
    let subscriber = operator(&stack).await.subscribe("homeassistant/#");
    let agent = machine(&stack, "pi-1", &["cpu_percent"]).await;
    newest(&subscriber, DOCUMENT, "the machine is announced", |document| has(document, "cpu")).await;
    drop(agent);
    let http = stack.http();
    assert_eq!(http.send("DELETE", "/api/pis/pi-1", None).await.status, 204);
    stack.kill();
    stack.restart().await;
    let late = operator_again(&stack).await;
    eventually("the document of the forgotten machine is gone", DEADLINE, async || {
        let left = late.receive(&["-t", DOCUMENT, "-W", "1"]).await.stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// What our own broker grants to accounts, and what it still retains after a restart.
mod embedded_only {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn another_prefix_or_none_at_all_takes_the_old_documents_back() {
        let state = tempfile::tempdir().unwrap();
        let start = async |config: &str| Stack::builder().state(state.path()).config(config).start().await;
        let own = |prefix: &str| format!("{prefix}/device/pistat_controller/config");
        let mut first = start("").await;
        let subscriber = first.mosquitto().subscribe("homeassistant/#");
        newest(&subscriber, &own("homeassistant"), "announced by default", |document| has(document, "cpu")).await;
        first.stop().await;
        drop((subscriber, first));

        let mut moved = start("[homeassistant]\nprefix = \"home\"\n").await;
        let (old, new) = (moved.mosquitto().subscribe("homeassistant/#"), moved.mosquitto().subscribe("home/#"));
        newest(&new, &own("home"), "announced under the new prefix", |document| has(document, "cpu")).await;
        eventually("the old document is gone", DEADLINE, async || {
            let left = moved.mosquitto().receive(&["-t", &own("homeassistant"), "-W", "1"]).await.stdout;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
        drop((old, new));
        moved.stop().await;
        drop(moved);

        let off = start("[homeassistant]\nprefix = \"home\"\ndiscovery = false\n").await;
        eventually("nothing is announced any more", DEADLINE, async || {
            let left = off.mosquitto().receive(&["-t", "home/#", "-W", "1"]).await.stdout;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn operators_may_say_that_home_assistant_was_started_and_nobody_may_forge_documents() {
        let stack = Stack::start().await;
        let (_, operator) = stack.account("ha", "operator").await;
        let (_, viewer) = stack.account("looker", "viewer").await;
        let birth = |options: &mut rumqttc::v5::MqttOptions| {
            options.set_last_will(will("homeassistant/status", "offline"));
        };
        let mut ha = Mqtt::connect_with(stack.said.mqtt, "ha", &operator, birth).await.unwrap();
        let code = ha.publish("homeassistant/status", "online", false).await;
        assert!(matches!(
            code,
            rumqttc::v5::mqttbytes::v5::PubAckReason::Success
                | rumqttc::v5::mqttbytes::v5::PubAckReason::NoMatchingSubscribers
        ));
        let forged = ha.publish(DOCUMENT, "{}", true).await;
        assert_eq!(forged, rumqttc::v5::mqttbytes::v5::PubAckReason::NotAuthorized);
        ha.granted(&["homeassistant/#"]).await;
        assert!(
            Mqtt::connect_with(stack.said.mqtt, "looker", &viewer, birth).await.is_err(),
            "a viewer leaves no will"
        );
        let mut looker = Mqtt::connect(stack.said.mqtt, "looker", &viewer).await.unwrap();
        looker.granted(&["homeassistant/#"]).await;
    }

    /// Home Assistant tells of its birth on `homeassistant/status` whatever prefix its discovery
    /// has, unless somebody sets that too.
    #[tokio::test(flavor = "multi_thread")]
    async fn another_discovery_prefix_needs_nothing_but_its_name() {
        let stack = Stack::builder().config("[homeassistant]\nprefix = \"home\"\n").start().await;
        let (_, token) = stack.account("ha", "operator").await;
        let _agent = stack.agent("pi-1").flag("--interval", "3600").online(&stack.http()).await;
        let document = "home/device/pistat_pi-1/config";
        for birth in ["homeassistant/status", "home/status"] {
            let mut ha = Mqtt::connect_with(stack.said.mqtt, "ha", &token, |options| {
                options.set_last_will(will(birth, "offline"));
            })
            .await
            .unwrap();
            ha.granted(&["home/#"]).await;
            ha.message("the machine is announced", |topic, _| (topic == document).then_some(())).await;
            ha.publish(birth, "online", false).await;
            ha.message("a birth is answered", |topic, said| (topic == document && !said.retain).then_some(())).await;
            let forged = ha.publish(document, "{}", true).await;
            assert_eq!(forged, rumqttc::v5::mqttbytes::v5::PubAckReason::NotAuthorized);
        }
    }
}
