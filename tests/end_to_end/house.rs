//! The embedded broker serves the house: accounts of other devices with topics of their own, and
//! never a machine's or the controller's.

/// The embedded broker's own rules; another's broker has its own ways to serve the house.
mod embedded_only {
    use pistat_testkit::{DEADLINE, Stack, eventually};
    use rumqttc::v5::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};
    use serde_json::{Value, json};

    /// As in `config/pistat.toml`, for an account that the register gives other rules.
    const RULES: &str = "
[[account]]
name      = \"zigbee2mqtt\"
publish   = [\"zigbee2mqtt/#\", \"homeassistant/#\", \"#\"]
subscribe = [\"zigbee2mqtt/#\", \"homeassistant/#\"]
";

    /// Makes an account with rules of its own, as people do, and gives its token.
    async fn account(stack: &Stack, words: &[&str]) -> String {
        let mut line = vec!["account", "add"];
        line.extend(words);
        let said = stack.cli(&line).await;
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout.trim().to_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_devices_publish_and_receive_on_their_own_topics_and_what_is_retained_stays() {
        let mut stack = Stack::start().await;
        let bridge = [
            "zigbee2mqtt",
            "--publish",
            "zigbee2mqtt/#",
            "--publish",
            "homeassistant/#",
            "--subscribe",
            "zigbee2mqtt/#",
        ];
        let bridge = account(&stack, &bridge).await;
        let panel = account(&stack, &["panel", "--publish", "zigbee2mqtt/+/set", "--subscribe", "zigbee2mqtt/#"]).await;
        let (bridge, panel) = (stack.mosquitto_as("zigbee2mqtt", &bridge), stack.mosquitto_as("panel", &panel));
        // Both ways: the bridge tells, the panel asks.
        let listening = panel.subscribe("zigbee2mqtt/lamp");
        let asked = bridge.subscribe("zigbee2mqtt/+/set");
        let told = bridge.publish(&["-t", "zigbee2mqtt/lamp", "-m", "on", "-r", "-q", "1"]).await;
        assert_eq!(told.code, 0, "{told:?}");
        eventually("the panel hears of the lamp", DEADLINE, async || {
            let heard = listening.stdout().join("\n");
            if heard.contains("zigbee2mqtt/lamp on") { Ok(()) } else { Err(heard) }
        })
        .await;
        eventually("the bridge hears what is asked", DEADLINE, async || {
            panel.publish(&["-t", "zigbee2mqtt/lamp/set", "-m", "off", "-q", "1"]).await;
            let heard = asked.stdout().join("\n");
            if heard.contains("zigbee2mqtt/lamp/set off") { Ok(()) } else { Err(heard) }
        })
        .await;
        bridge.publish(&["-t", "homeassistant/light/lamp/config", "-m", "{}", "-r", "-q", "1"]).await;
        // What is retained is there for late subscribers, and after a restart.
        drop((listening, asked));
        assert_eq!(stack.stop().await, 0);
        stack.restart().await;
        let late = panel.receive(&["-t", "zigbee2mqtt/lamp", "-C", "1", "-W", "10"]).await;
        assert_eq!(late.stdout, "on", "{late:?}");
        let discovery = stack.mosquitto().receive(&["-t", "homeassistant/light/#", "-C", "1", "-W", "10", "-v"]).await;
        assert_eq!(discovery.stdout, "homeassistant/light/lamp/config {}", "{discovery:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_rule_of_an_account_reaches_a_topic_of_a_machine_or_of_the_controller() {
        let stack = Stack::builder().config(RULES).start().await;
        let _agent = stack.fake_agent("pi-1").await;
        // The rules of the file win over those that the account was made with.
        let token = account(&stack, &["zigbee2mqtt", "--publish", "elsewhere/#", "--subscribe", "elsewhere/#"]).await;
        let mut device = stack.mqtt("zigbee2mqtt", &token).await;
        for (topic, allowed) in [
            ("zigbee2mqtt/lamp", true),
            ("homeassistant/light/lamp/config", true),
            ("anything/else", true),
            ("pistat/pi-1/status", false),
            ("pistat/pi-1/stats", false),
            ("pistat/pi-1/meta", false),
            ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8057/execute", false),
            ("pistat/pi-1/task/01890a5d-ac96-774b-bcce-b302099a8057/report", false),
            ("pistat/controller/status", false),
            ("pistat/controller/key", false),
            ("$pistat/enroll/pi-2/request", false),
            ("$SYS/broker/uptime", false),
        ] {
            let code = device.publish(topic, "x", true).await;
            assert_eq!(code != PubAckReason::NotAuthorized, allowed, "{topic}: {code:?}");
        }
        let granted = |codes: Vec<SubscribeReasonCode>| matches!(codes[0], SubscribeReasonCode::Success(_));
        assert!(granted(device.subscribe(&["zigbee2mqtt/#"]).await));
        assert!(!granted(device.subscribe(&["elsewhere/#"]).await), "the file's rules win");
        assert!(!granted(device.subscribe(&["pistat/+/task/+/execute"]).await));
        // What was refused is told, and nothing of it is kept.
        stack.http().event(&["may not publish", "pistat/pi-1/status"], DEADLINE).await;
        let status = stack.mosquitto().receive(&["-t", "pistat/pi-1/status", "-C", "1", "-W", "10"]).await;
        assert_eq!(status.stdout, "online", "{status:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rule_that_is_no_filter_or_could_never_be_granted_is_refused() {
        let stack = Stack::start().await;
        for (filter, why) in [
            ("a/#/b", "not a topic filter"),
            ("pistat/pi-1/status", "never be granted"),
            ("$SYS/broker/connection/x/state", "never be granted"),
            ("$SYS", "never be granted"),
        ] {
            let said = stack.cli(&["account", "add", "lamp", "--publish", filter]).await;
            assert!(said.code == 1 && said.stderr.contains(filter) && said.stderr.contains(why), "{said:?}");
        }
        let accounts: Vec<Value> = stack.http().get("/api/accounts").await.json();
        assert!(accounts.iter().all(|account| account["name"] != json!("lamp")), "{accounts:?}");
    }
}
