//! A hostile broker, and hostile clients: without the controller's signature for this machine, this
//! session and this run, nothing starts.
//!
//! The hostile broker is mosquitto with everything allowed; the test holds the controller's key and
//! plays everybody else.

use std::time::Duration;

use pistat_protocol::{
    codec::{decode, encode},
    id::RunId,
    order::{CancelOrder, ControllerKey, ExecuteOrder, JoinToken, Order, SignedOrder},
    status::{Info, Session},
    task::{Report, RunState},
    topic::Topic,
};
use pistat_testkit::{
    Agent, DEADLINE, Dice, Mosquitto, Mqtt, Stack, agent, catalogue::starts, eventually, payload, steadily,
};
use tempfile::TempDir;

/// A broker that lets everybody do everything, and an agent that is connected to it.
struct Hostile {
    key: ControllerKey,
    client: Mqtt,
    agent: Agent,
    info: Info,
    folder: TempDir,
    next_run: u64,
    _broker: Mosquitto,
}

impl Hostile {
    async fn start() -> Self {
        Self::start_with(|agent| agent).await
    }

    async fn start_with(adjust: impl FnOnce(agent::Builder) -> agent::Builder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::open().await;
        let address = broker.address();
        let key = ControllerKey::from_secret(&[42; 32]);
        let mut client = Mqtt::connect(address, "anybody", "anything").await.unwrap();
        let view = encode(&key.public().view());
        client.publish("pistat/controller/key", view, true).await;
        client.publish("pistat/controller/status", "online", true).await;
        client.granted(&["pistat/#"]).await;
        let token = JoinToken { secret: "x".repeat(43), fingerprint: key.public().fingerprint() };
        let url = format!("mqtt://anybody:anything@{address}");
        let plan = agent::Builder::new("pi-1", &url, &token.to_string(), &folder.path().join("agent"));
        let agent = adjust(plan).start();
        let info = client.message("the agent's info", |topic, message| info_of(topic, &message.payload)).await;
        client
            .message("online", |topic, message| {
                (topic == "pistat/pi-1/status" && &message.payload[..] == b"online").then_some(())
            })
            .await;
        Self { key, client, agent, info, folder, next_run: 1, _broker: broker }
    }

    fn run_id(&mut self) -> RunId {
        self.next_run += 1;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        RunId::from_parts(u64::try_from(now.as_millis()).unwrap() + self.next_run, [7; 10])
    }

    /// An order that appends a mark to a file.
    fn order(&self, run: RunId, key: &str) -> ExecuteOrder {
        let script = "printf x >> \"$0\"; sleep \"$1\"";
        let file = self.folder.path().join(key).to_str().unwrap().to_owned();
        let order =
            payload::order(&"pi-1".parse().unwrap(), run, &self.info.session, &["sh", "-c", script, &file, "0"]);
        ExecuteOrder { timeout_milliseconds: 10_000, ..order }
    }

    fn marks(&self, key: &str) -> usize {
        starts(self.folder.path(), key)
    }

    async fn send(&mut self, run: RunId, verb: &str, payload: Vec<u8>, retain: bool) {
        self.client.publish(&format!("pistat/pi-1/task/{run}/{verb}"), payload, retain).await;
    }

    async fn report(&mut self, run: RunId, state: RunState) -> Report {
        let topic = format!("pistat/pi-1/task/{run}/report");
        self.client
            .message(&format!("{state} of {run}"), |seen, message| {
                let report: Option<Report> = (seen == topic).then(|| decode(&message.payload).ok()).flatten();
                report.filter(|report| report.state == state)
            })
            .await
    }

    /// A good order still works: the agent is alive, and the attacks before it were handled.
    async fn still_works(&mut self, key: &str) {
        let run = self.run_id();
        let order = encode(&self.key.sign(&Order::Execute(self.order(run, key))));
        self.send(run, "execute", order, false).await;
        let report = self.report(run, RunState::Succeeded).await;
        assert_eq!((report.exit_code, self.marks(key)), (Some(0), 1));
    }
}

fn info_of(topic: &str, payload: &[u8]) -> Option<Info> {
    (topic == "pistat/pi-1/info").then(|| decode(payload).ok()).flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_order_runs_once_however_often_it_comes() {
    let mut hostile = Hostile::start().await;
    let run = hostile.run_id();
    let order = encode(&hostile.key.sign(&Order::Execute(hostile.order(run, "once"))));
    for _ in 0..5 {
        hostile.send(run, "execute", order.clone(), false).await;
    }
    hostile.report(run, RunState::Succeeded).await;
    hostile.send(run, "execute", order, false).await;
    hostile.report(run, RunState::Succeeded).await;
    assert_eq!(hostile.marks("once"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_altered_foreign_stale_retained_and_misplaced_orders_start_nothing() {
    let mut hostile = Hostile::start().await;
    let mut dice = Dice::new();
    let (run, other_run) = (hostile.run_id(), hostile.run_id());
    let good = hostile.order(run, "attack");
    let sign = |key: &ControllerKey, order: &ExecuteOrder| key.sign(&Order::Execute(order.clone()));
    let signed = sign(&hostile.key, &good);
    let mut attacks: Vec<(&str, Vec<u8>)> = vec![
        ("not signed at all", encode(&good)),
        ("the bare payload", signed.payload.clone().into_bytes()),
        ("nothing", Vec::new()),
        ("no JSON", b"uptime".to_vec()),
        ("another key", encode(&sign(&ControllerKey::from_secret(&[43; 32]), &good))),
        ("no signature", encode(&SignedOrder { signature: String::new(), ..signed.clone() })),
        ("half a signature", encode(&SignedOrder { signature: signed.signature[..44].into(), ..signed.clone() })),
        (
            "an altered payload",
            encode(&SignedOrder { payload: signed.payload.replace("attack", "attac2"), ..signed.clone() }),
        ),
        (
            "for another machine",
            encode(&sign(&hostile.key, &ExecuteOrder { pi: "pi-2".parse().unwrap(), ..good.clone() })),
        ),
        (
            "for another session",
            encode(&sign(&hostile.key, &ExecuteOrder { session: Session::from_random([9; 16]), ..good.clone() })),
        ),
        ("on another run's topic", encode(&sign(&hostile.key, &ExecuteOrder { run: other_run, ..good.clone() }))),
        ("a cancel as an execute", {
            let cancel = CancelOrder { pi: good.pi.clone(), run, session: good.session.clone() };
            encode(&hostile.key.sign(&Order::Cancel(cancel)))
        }),
    ];
    let bytes = encode(&signed);
    for _ in 0..200 {
        let mut torn = bytes.clone();
        let at = usize::try_from(dice.below(torn.len() as u64)).unwrap();
        // Bytes of the key's name are a hint and prove nothing: they are left alone.
        let name = signed.key_id.as_bytes();
        let start = torn.windows(name.len()).position(|window| window == name).unwrap();
        if (start.saturating_sub(12)..start + name.len() + 2).contains(&at) {
            continue;
        }
        torn[at] ^= 1 << dice.below(8);
        attacks.push(("a flipped bit", torn));
    }
    assert!(attacks.len() > 100);
    for (what, payload) in attacks {
        hostile.send(run, "execute", payload, false).await;
        assert_eq!(hostile.marks("attack"), 0, "{what} started something");
    }
    // Delivered with the retain flag: the agent meets it at its next connection, in another
    // session.
    hostile.send(run, "execute", encode(&signed), true).await;
    hostile.agent.restart();
    let before = hostile.info.session.clone();
    hostile.info = hostile
        .client
        .message("the new session", |topic, message| {
            info_of(topic, &message.payload).filter(|info| info.session != before)
        })
        .await;
    let marks = hostile.folder.path().join("attack");
    steadily(
        "nothing was started",
        Duration::from_secs(2),
        async || if marks.exists() { Err("it was") } else { Ok(()) },
    )
    .await;
    hostile.still_works("after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_orders_are_counted_and_told_with_the_reason() {
    let mut hostile = Hostile::start().await;
    let run = hostile.run_id();
    let other = ControllerKey::from_secret(&[43; 32]);
    let order = encode(&other.sign(&Order::Execute(hostile.order(run, "attack"))));
    for _ in 0..3 {
        hostile.send(run, "execute", order.clone(), false).await;
    }
    let info = hostile
        .client
        .message("refusals in info", |topic, message| {
            info_of(topic, &message.payload).filter(|info| info.orders_refused.is_some_and(|count| count >= 3))
        })
        .await;
    assert!(info.last_order_refused.is_some_and(|reason| reason.contains("signature")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_an_earlier_session_is_refused_and_told() {
    let mut hostile = Hostile::start().await;
    let run = hostile.run_id();
    let stale = encode(&hostile.key.sign(&Order::Execute(hostile.order(run, "stale"))));
    let before = hostile.info.session.clone();
    hostile.agent.restart();
    hostile.info = hostile
        .client
        .message("the new session", |topic, message| {
            info_of(topic, &message.payload).filter(|info| info.session != before)
        })
        .await;
    hostile.send(run, "execute", stale, false).await;
    // Not on the run's own topic: the controller signs it again for the new session, and that order
    // must not meet a refusal of this one.
    let told = |info: &Info| info.last_order_refused.as_ref().is_some_and(|reason| reason.contains("session"));
    let info =
        hostile.client.message("the refusal", |topic, message| info_of(topic, &message.payload).filter(told)).await;
    assert_eq!(info.orders_refused, Some(1));
    assert_eq!(hostile.marks("stale"), 0);
    hostile.still_works("fresh").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_for_a_run_that_never_came_makes_the_agent_refuse_it() {
    let mut hostile = Hostile::start().await;
    let run = hostile.run_id();
    let cancel = CancelOrder { pi: "pi-1".parse().unwrap(), run, session: hostile.info.session.clone() };
    let cancel = encode(&hostile.key.sign(&Order::Cancel(cancel)));
    hostile.send(run, "cancel", cancel, false).await;
    let order = encode(&hostile.key.sign(&Order::Execute(hostile.order(run, "cancelled"))));
    hostile.send(run, "execute", order, false).await;
    let topic = format!("pistat/pi-1/task/{run}/report");
    let report = hostile
        .client
        .message("its report", |seen, message| {
            (seen == topic).then(|| decode::<Report>(&message.payload).ok()).flatten()
        })
        .await;
    assert!(report.state.is_final() && report.state != RunState::Succeeded, "{report:?}");
    hostile.still_works("after").await;
    assert_eq!(hostile.marks("cancelled"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_only_agent_refuses_even_signed_orders() {
    let mut hostile = Hostile::start_with(agent::Builder::register_only).await;
    let run = hostile.run_id();
    let order = encode(&hostile.key.sign(&Order::Execute(hostile.order(run, "never"))));
    hostile.send(run, "execute", order, false).await;
    hostile.report(run, RunState::Rejected).await;
    assert_eq!(hostile.marks("never"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_shows_another_key_is_not_believed() {
    let mut hostile = Hostile::start().await;
    let evil = ControllerKey::from_secret(&[66; 32]);
    hostile.client.publish("pistat/controller/key", encode(&evil.public().view()), true).await;
    let run = hostile.run_id();
    let order = encode(&evil.sign(&Order::Execute(hostile.order(run, "evil"))));
    hostile.send(run, "execute", order, false).await;
    hostile.still_works("good").await;
    assert_eq!(hostile.marks("evil"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_sees_offline_on_its_own_status_tells_its_session_and_says_online_again() {
    let mut hostile = Hostile::start().await;
    hostile.client.publish("pistat/pi-1/status", "offline", true).await;
    let (mut offline, mut told) = (false, None);
    let info = hostile
        .client
        .message("its session and online after offline", |topic, message| {
            if offline && topic == "pistat/pi-1/info" {
                told = info_of(topic, &message.payload);
            }
            let status = (topic == "pistat/pi-1/status").then_some(&message.payload[..]);
            offline |= status == Some(b"offline");
            (offline && status == Some(b"online")).then(|| told.take()).flatten()
        })
        .await;
    assert_eq!(info.session, hostile.info.session);
    hostile.still_works("after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_will_that_comes_late_keeps_no_run_from_its_machine() {
    let broker = Mosquitto::open().await;
    let url = format!("mqtt://anybody:anything@{}", broker.address());
    let stack = Stack::builder().broker(&url).start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").url(&url).online(&http).await;
    let mut client = Mqtt::connect(broker.address(), "anybody", "anything").await.unwrap();
    client.publish("pistat/pi-1/status", "offline", true).await;
    http.event(&["offline"], DEADLINE).await;
    let run = http.start_run("uptime", "pi-1", serde_json::json!({})).await;
    assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Succeeded);
}

/// The embedded broker's own rules; those of another are in `external.rs`.
mod embedded_only {
    use serde_json::json;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_client_of_our_own_broker_can_give_orders_to_an_agent() {
        let stack = Stack::start().await;
        let http = stack.http();
        let _agent = stack.agent("pi-1").online(&http).await;
        let other =
            pistat_testkit::fake_agent::Identity::enrol(stack.said.mqtt, "pi-2", &stack.join_token()).await.unwrap();
        let (_, operator) = stack.account("olga", "operator").await;
        let run = RunId::from_parts(1_800_000_000_000, [1; 10]);
        for (user, password) in
            [("pi-2", other.credential.secret.as_str()), ("olga", &operator), ("admin", &stack.admin_token())]
        {
            let mut client = stack.mqtt(user, password).await;
            for verb in ["execute", "cancel", "ack", "report", "output", "status"] {
                let topic = format!("pistat/pi-1/task/{run}/{verb}");
                let code = client.publish(&topic, "{}", false).await;
                assert_eq!(code, rumqttc::v5::mqttbytes::v5::PubAckReason::NotAuthorized, "{user} to {topic}");
            }
            for topic in ["pistat/pi-1/status", "pistat/pi-1/settings", "pistat/pi-1/watch", "pistat/controller/key"] {
                let code = client.publish(topic, "offline", true).await;
                assert_eq!(code, rumqttc::v5::mqttbytes::v5::PubAckReason::NotAuthorized, "{user} to {topic}");
            }
        }
    }

    /// It is refused at the broker, and yet its agent does not repeat it for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_report_on_a_run_that_a_machine_was_not_sent_is_refused_and_its_agent_told_to_forget_it() {
        let stack = Stack::start().await;
        let mut agent = stack.fake_agent("pi-1").await;
        let other = stack.fake_agent("pi-2").await;
        // The refusal of a report may reach the controller before the report's session.
        eventually("the controller knows the session", DEADLINE, async || {
            let machine = stack.http().machine("pi-1").await?;
            machine.info.is_some().then_some(()).ok_or_else(|| format!("{machine:?}"))
        })
        .await;
        let of_other = stack.http().start_run("uptime", "pi-2", json!({})).await;
        let unknown = RunId::from_parts(1_800_000_000_000, [1; 10]);
        for run in [unknown, of_other] {
            agent.report(run, RunState::Succeeded, Some(0), Some(0)).await;
            agent.acknowledged(run, RunState::Lost).await;
            // Nor does it leave anything behind.
            let topic = Topic::Output(agent.pi().clone(), run);
            agent.publish(&topic, b"{}".to_vec(), true).await;
        }
        stack.http().event(&["may not publish", &unknown.to_string()], DEADLINE).await;
        let kept = stack.mosquitto().receive(&["-t", "pistat/pi-1/task/#", "-W", "1", "-v"]).await;
        assert_eq!(kept.stdout, "", "{kept:?}");
        drop(other);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn after_a_kill_of_the_controller_an_agent_still_reports_on_its_runs_open_and_ended() {
        let mut stack = Stack::start().await;
        let http = stack.http();
        let mut agent = stack.fake_agent("pi-1").await;
        let runs = [
            http.start_run("uptime", "pi-1", json!({})).await,
            http.start_run("echo", "pi-1", json!({"text": "x"})).await,
        ];
        let [ended, open] = runs;
        for _ in runs {
            agent.order().await;
        }
        for run in runs {
            agent.report(run, RunState::Running, None, None).await;
            agent.acknowledged(run, RunState::Running).await;
        }
        agent.report(ended, RunState::Succeeded, Some(0), Some(0)).await;
        agent.acknowledged(ended, RunState::Succeeded).await;
        // What the broker retains is on the disk within a second.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let mut identity = agent.vanish().await;
        stack.kill();
        stack.restart().await;
        identity.address = stack.said.mqtt;
        identity.info.known_runs = vec![open];
        let mut agent = identity.connect().await;
        agent.report(open, RunState::Succeeded, Some(0), Some(0)).await;
        assert_eq!(stack.http().ended(open, DEADLINE).await.state, RunState::Succeeded);
        agent.report(ended, RunState::Succeeded, Some(0), Some(0)).await;
        agent.acknowledged(ended, RunState::Succeeded).await;
    }
}
