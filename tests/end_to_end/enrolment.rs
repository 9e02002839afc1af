//! How machines join, and how they are kept out.

use std::time::Duration;

use pistat_protocol::{api::EnrolmentToken, order::JoinToken};
use pistat_testkit::{
    DEADLINE, Mqtt, Stack, eventually,
    fake_agent::{FakeAgent, Identity},
    steadily,
};
use serde_json::json;

const SECRET: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER_SECRET: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_enrols_although_the_controller_is_killed_in_between() {
    let mut stack = Stack::start().await;
    let http = stack.http();
    let agent = stack.agent("pi-1").start();
    stack.kill();
    stack.restart().await;
    agent.sampled(&http).await;
    let mut agent = agent;
    agent.restart();
    stack.kill();
    stack.restart().await;
    agent.sampled(&http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_of_a_new_controller_makes_the_agent_enrol_anew() {
    let old = Stack::start().await;
    let mut agent = old.agent("pi-1").online(&old.http()).await;
    agent.stop().await;
    let new = Stack::start().await;
    let mut agent = new.agent("pi-1").state(agent.state()).online(&new.http()).await;
    let said = agent.process().stderr().join("\n");
    assert!(said.contains("anew"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_another_prefix_than_its_controller_is_told_so() {
    let stack = Stack::builder().embedded().start().await;
    let mut agent = stack.agent("pi-1").online(&stack.http()).await;
    agent.stop().await;
    for plan in [agent.plan().token(None), agent.plan(), stack.agent("pi-2")] {
        let mut lost = plan.config("prefix = 'other'").start();
        lost.says("set `prefix` in agent.toml").await;
        let said = lost.process().stderr().join("\n");
        assert!(!said.contains("enrol it anew"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_label_counts_until_somebody_renames_the_machine() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.agent("pi-1").label("First").online(&http).await;
    agent.stop().await;
    let mut agent = agent.plan().label("Second").token(None).online(&http).await;
    let labelled = async |label: &str| {
        eventually(&format!("the label is {label}"), DEADLINE, async || {
            let machine = http.machine("pi-1").await?;
            if machine.label == label { Ok(()) } else { Err(machine.label) }
        })
        .await;
    };
    labelled("Second").await;
    http.send("PATCH", "/api/pis/pi-1", Some(json!({"label": "Mine"}))).await;
    agent.stop().await;
    let _agent = agent.plan().label("Third").online(&http).await;
    labelled("Mine").await;
    http.send("PATCH", "/api/pis/pi-1", Some(json!({"label": ""}))).await;
    labelled("Third").await;
}

/// Machines enrol over the embedded broker only: on another it is the broker that lets them in or
/// keeps them out, and they just pin the controller's key (`external.rs`).
mod embedded_only {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_same_secret_may_enrol_again_and_another_is_refused_until_a_reset() {
        let stack = Stack::start().await;
        let (address, token) = (stack.said.mqtt, stack.join_token());
        let by =
            |token: String, secret| async move { Identity::enrol_with(address, "pi-1", &token, secret, None).await };
        let enrol = |secret: &'static str| by(token.clone(), secret);
        enrol(SECRET).await.expect("the first enrolment");
        enrol(SECRET).await.expect("an answer that was lost is given again");
        let refused = enrol(OTHER_SECRET).await.expect_err("another secret is refused");
        assert!(refused.contains("reset"), "{refused}");
        stack.http().event(&["pi-1"], DEADLINE).await;
        let reset = stack.cli(&["agent", "reset", "pi-1"]).await;
        assert_eq!(reset.code, 0, "{reset:?}");
        let own = reset.stdout.trim().to_owned();
        let squatter = enrol(OTHER_SECRET).await.expect_err("the token that everybody has lets nobody take its place");
        assert!(squatter.contains("token that was made for it"), "{squatter}");
        let identity = by(own.clone(), OTHER_SECRET).await.expect("its own token allows one new enrolment");
        by(own, SECRET).await.expect_err("one only");
        let _agent = identity.connect().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_join_token_with_a_wrong_secret_or_fingerprint_leads_nowhere() {
        let stack = Stack::start().await;
        let good: JoinToken = stack.join_token().parse().unwrap();
        let wrong_secret = JoinToken { secret: "x".repeat(43), ..good.clone() };
        let wrong_print = JoinToken { fingerprint: "x".repeat(43), ..good };
        let refused =
            Identity::enrol(stack.said.mqtt, "pi-1", &wrong_secret.to_string()).await.expect_err("a wrong secret");
        assert!(refused.contains("BadUserNamePassword") || refused.contains("NotAuthorized"), "{refused}");
        // The real agent does not believe a controller whose key has another fingerprint, and says
        // so.
        let mut agent = stack.agent("pi-2").token(Some(&wrong_print.to_string())).start();
        eventually("the agent says why it does not join", DEADLINE, async || {
            let said = agent.process().stderr().join("\n");
            if said.contains("not the one of the join token") { Ok(()) } else { Err(said) }
        })
        .await;
        assert!(agent.process().ended().is_none(), "it goes on trying");
        assert_ne!(stack.http().machine("pi-2").await.map(|machine| machine.stats.is_some()), Ok(true));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rotated_join_token_ends_the_old_one_and_harms_no_enrolled_machine() {
        let stack = Stack::start().await;
        let http = stack.http();
        let mut agent = stack.agent("pi-1").online(&http).await;
        let old = stack.join_token();
        let mut squatter = Mqtt::connect(stack.said.mqtt, "pi-1", &old).await.expect("the token is good");
        let said = stack.cli(&["join-token", "rotate"]).await;
        let new = said.stdout.trim().to_owned();
        assert_ne!(old, new);
        assert_eq!(stack.cli(&["join-token", "show"]).await.stdout.trim(), new);
        Identity::enrol(stack.said.mqtt, "pi-2", &old).await.expect_err("the old token has ended");
        Identity::enrol(stack.said.mqtt, "pi-2", &new).await.expect("the new one works");
        // Who came with it in time, even under the name of a machine that is enrolled, does not
        // stay to wait for its reset.
        assert!(squatter.ended().await.contains("NotAuthorized"), "it ends with its token");
        agent.restart();
        agent.sampled(&http).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_for_one_machine_works_once_and_for_that_machine_only() {
        let stack = Stack::start().await;
        let token: EnrolmentToken = stack.http().post("/api/enrolments", json!({"pi": "pi-7"})).await.json();
        Identity::enrol(stack.said.mqtt, "pi-8", &token.token).await.expect_err("it is for another");
        Identity::enrol_with(stack.said.mqtt, "pi-7", &token.token, SECRET, None).await.expect("it is for this one");
        Identity::enrol_with(stack.said.mqtt, "pi-7", &token.token, OTHER_SECRET, None).await.expect_err("once");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reserved_names_and_names_of_accounts_cannot_be_taken() {
        let stack = Stack::start().await;
        stack.account("olga", "viewer").await;
        let token = stack.join_token();
        for name in ["controller", "Controller", "admin", "PiStat", "olga", "OLGA"] {
            Identity::enrol(stack.said.mqtt, name, &token).await.err().unwrap_or_else(|| panic!("{name} was enrolled"));
        }
        Identity::enrol(stack.said.mqtt, "pi-1", &token).await.unwrap();
        for name in ["pi-1", "PI-1", "controller"] {
            let reply = stack.http().post("/api/accounts", json!({"name": name})).await;
            assert!((400..500).contains(&reply.problem().status), "{name}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_forgotten_machine_is_disconnected_revoked_and_leaves_no_topic() {
        let stack = Stack::start().await;
        let http = stack.http();
        let mut agent = stack.agent("pi-1").online(&http).await;
        // As after every first start: with the join token it would join again.
        agent.restart();
        agent.sampled(&http).await;
        assert_eq!(stack.cli(&["agent", "remove", "pi-1"]).await.code, 0);
        eventually("it is forgotten", DEADLINE, async || match http.machine("pi-1").await {
            Err(reply) if reply.contains("404") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        eventually("the agent is told", DEADLINE, async || {
            let said = agent.process().stderr().join("\n");
            if said.contains("refuses") { Ok(()) } else { Err(said) }
        })
        .await;
        let left = stack.mosquitto().receive(&["-t", "pistat/pi-1/#", "-W", "1", "-v"]).await;
        assert_eq!(left.stdout, "", "no topic is left");
        steadily("it stays forgotten", Duration::from_secs(2), async || match http.machine("pi-1").await {
            Err(_) => Ok(()),
            Ok(machine) => Err(format!("{machine:?}")),
        })
        .await;
    }

    /// The controller still looks for retained messages of the machine then.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_machine_that_is_removed_and_enrols_again_at_once_runs_tasks() {
        let stack = Stack::builder().embedded().start().await;
        let http = stack.http();
        let first = FakeAgent::enrol(stack.said.mqtt, "pi-1", &stack.join_token()).await;
        eventually("it is known", DEADLINE, async || http.machine("pi-1").await).await;
        first.vanish().await;
        assert_eq!(stack.cli(&["agent", "remove", "pi-1"]).await.code, 0);
        let mut again = FakeAgent::enrol(stack.said.mqtt, "pi-1", &stack.join_token()).await;
        let run = http.start_run("uptime", "pi-1", json!({})).await;
        assert_eq!(again.order().await.0.run, run);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cloned_card_is_refused() {
        let stack = Stack::start().await;
        let http = stack.http();
        // The credential holds the serial of the board that it was made on: a copy on another board
        // is refused.
        let mut agent = stack.agent("pi-1").online(&http).await;
        agent.stop().await;
        let file = agent.state().join("credential.json");
        let mut credential: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let own = credential["serial"].clone();
        credential["serial"] = json!("10000000deadbeef");
        std::fs::write(&file, credential.to_string()).unwrap();
        if own.is_string() {
            agent.restart();
            assert_eq!(agent.process().exit_code(DEADLINE).await, 78);
            let said = agent.process().stderr().join("\n");
            assert!(said.contains("--pi-id"), "{said}");
        } else {
            eprintln!("this machine tells no serial number: not tested");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_live_machines_with_one_id_raise_an_alert_and_a_machine_that_restarts_raises_none() {
        let stack = Stack::start().await;
        let http = stack.http();
        let alert = ["two machines use this pi-id"];
        let machine = |pi: &'static str| {
            let (address, token) = (stack.said.mqtt, stack.join_token());
            async move { Identity::enrol_with(address, pi, &token, SECRET, Some("serial-1")).await.unwrap() }
        };
        let booted = async |identity: &Identity, boot: &str| {
            let mut identity = identity.clone();
            identity.info.boot_id = boot.into();
            let agent = identity.connect().await;
            eventually("the controller has heard it", DEADLINE, async || {
                let info = http.machine(agent.pi().as_str()).await?.info.ok_or("no info")?;
                if info.boot_id == boot { Ok(()) } else { Err(info.boot_id.clone()) }
            })
            .await;
            agent
        };
        // One machine that reboots, and whose agent is restarted, from wherever.
        let restarting = machine("pi-1").await;
        for boot in ["boot-1", "boot-1", "boot-2", "boot-3"] {
            booted(&restarting, boot).await;
        }
        // Two that are both alive take the connection from each other, on one address as behind one
        // router.
        let first = machine("pi-2").await;
        let mut twin = first.clone();
        twin.info.serial = Some("serial-2".into());
        let _first = booted(&first, "boot-of-the-first").await;
        let _twin = booted(&twin, "boot-of-the-twin").await;
        let _first = booted(&first, "boot-of-the-first").await;
        let event = http.event(&alert, DEADLINE).await;
        assert_eq!(event.kind, pistat_protocol::dashboard::EventKind::Alert);
        assert_eq!(event.pi, Some(first.credential.pi.clone()));
        for word in ["serial-1", "serial-2", "--pi-id"] {
            assert!(event.text.contains(word), "{event:?}");
        }
        let told = http.events().await.into_iter().filter(|event| event.text.contains(alert[0]));
        assert!(
            told.into_iter().all(|event| event.pi == Some(first.credential.pi.clone())),
            "a restart is not a second machine"
        );
    }
}
