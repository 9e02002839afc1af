//! Another's broker: a real mosquitto, of which controller and agents are clients. These tests
//! bring their own, whatever the run is about.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pistat_protocol::{
    api::AcceptedRuns,
    dashboard::{MachineStatus, Run},
    task::RunState,
};
use pistat_testkit::{
    DEADLINE, Http, Mosquitto, Port, Process, Stack, agent,
    broker::{CONTROLLER, acl, acl_in, password},
    eventually,
    pages::{Block, blocks, section},
    process::run,
    programs::program,
    stack::Builder,
    steadily,
};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, PublishProperties};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// Everybody whom these tests know has a user, and the rules are those that `pistat broker-acl`
/// prints.
async fn house() -> pistat_testkit::broker::Builder {
    let rules =
        acl(&["broker-acl", "mosquitto", "--controller", CONTROLLER, "--operator", "ha", "--viewer", "grafana"]).await;
    Mosquitto::builder().users([CONTROLLER, "ha", "grafana", "pi-1", "pi-2", "stranger"]).rules(&rules)
}

/// A controller on this broker that lets anybody ask for `uptime` and `mark`, whom the broker lets
/// publish.
fn open_to_requests(url: &str) -> Builder {
    closed_to_requests(url)
        .environment("PISTAT_MQTT__REQUESTS__ROLE", "operator")
        .environment("PISTAT_MQTT__REQUESTS__TASKS", "uptime,mark,pause,admins-only")
}

fn closed_to_requests(url: &str) -> Builder {
    Stack::builder().broker(url)
}

fn agent_at(stack: &Stack, pi: &str, url: &str) -> agent::Builder {
    stack.agent(pi).url(url)
}

async fn succeeds(http: &Http, pi: &str) {
    let run = http.start_run("uptime", pi, json!({})).await;
    let run = http.ended(run, DEADLINE).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:?}");
    assert!(http.output(run.id).await.contains("load average"));
}

/// A certificate for this machine, and the authority that signed it.
async fn certificates(folder: &Path) {
    let mut command = Command::new(program("pistat"));
    command.args(["tls", "init", "--name", "127.0.0.1", "--name", "localhost", "--dir"]).arg(folder).env_clear();
    let said = run("pistat", &mut command, DEADLINE).await;
    assert_eq!(said.code, 0, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_and_agents_are_clients_of_a_mosquitto_over_tcp_and_tls() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path()).await;
    let ca = folder.path().join("ca.pem");
    let plain = house().await;
    for (what, broker, tls) in [("mqtt", plain.clone(), false), ("mqtts", plain.clone().tls(folder.path()), true)] {
        let broker = broker.start().await;
        assert!(broker.url("ha").starts_with(&format!("{what}://")));
        let mut controller = closed_to_requests(&broker.url(CONTROLLER));
        if tls {
            controller = controller.environment("PISTAT_MQTT__CA", ca.to_str().unwrap());
        }
        let stack = controller.start().await;
        let mut agent = agent_at(&stack, "pi-1", &broker.url("pi-1"));
        if tls {
            agent = agent.flag("--ca", ca.to_str().unwrap());
        }
        let http = stack.http();
        let _agent = agent.online(&http).await;
        succeeds(&http, "pi-1").await;
        succeeds(&http, "controller").await;
    }
}

/// Debian's mosquitto speaks no WebSocket, so the broker here is another controller's, on which a
/// whole house of other devices may live too.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_controller_and_its_agents_live_on_the_first_ones_broker_over_websocket() {
    let first = Stack::builder().embedded().start().await;
    let mut url = std::collections::BTreeMap::new();
    for name in ["second", "pi-1"] {
        let rules = json!({"name": name, "publish": ["second/#"], "subscribe": ["second/#"]});
        let token: Value = first.http().post("/api/accounts", rules).await.json();
        url.insert(name, format!("ws://{name}:{}@{}/mqtt", token["token"].as_str().unwrap(), first.said.http_address));
    }
    let second = closed_to_requests(&url["second"]).environment("PISTAT_MQTT__PREFIX", "second").start().await;
    let http = second.http();
    let _agent = agent_at(&second, "pi-1", &url["pi-1"]).config("prefix = \"second\"\n").online(&http).await;
    succeeds(&http, "pi-1").await;
    succeeds(&http, "controller").await;
    // The first controller knows nothing of it: to its broker it is a house like any other.
    assert!(first.http().machine("pi-1").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_no_known_authority_signed_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path()).await;
    let broker = house().await.tls(folder.path()).start().await;
    let mut stack = closed_to_requests(&broker.url(CONTROLLER)).start_alone().await;
    eventually("the controller says why it does not connect", DEADLINE, async || {
        let said = stack.process().stderr().join("\n");
        if said.contains("no connection to mqtts://") && said.to_lowercase().contains("certificate") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    assert!(!stack.process().stderr().join("\n").contains(&password(CONTROLLER)), "passwords are not logged");
    // Everything that needs no broker works meanwhile.
    assert_eq!(stack.http().get("/api/pis").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_at_the_start_and_one_that_restarts_are_waited_for() {
    let mut broker = house().await.prepare().await;
    let mut stack = closed_to_requests(&broker.url(CONTROLLER)).start_alone().await;
    let http = stack.http();
    let agent = agent_at(&stack, "pi-1", &broker.url("pi-1")).start();
    assert_eq!(http.machine("controller").await.unwrap().status, MachineStatus::Offline);
    broker.start().await;
    agent.sampled(&http).await;
    succeeds(&http, "pi-1").await;
    // It forgets everything that was retained, and publishes no will.
    broker.kill();
    http.event(&["connection to the broker is lost"], DEADLINE).await;
    broker.start().await;
    http.event(&["connected to the broker"], DEADLINE).await;
    eventually("both are there again", DEADLINE, async || {
        let states = [http.machine("controller").await?.status, http.machine("pi-1").await?.status];
        if states == [MachineStatus::Online; 2] { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    succeeds(&http, "pi-1").await;
    succeeds(&http, "controller").await;
    let retained = broker.login("ha").receive(&["-t", "pistat/controller/+", "-W", "2", "-v"]).await.stdout;
    for topic in [
        "pistat/controller/key",
        "pistat/controller/tasks",
        "pistat/controller/status online",
        "pistat/controller/meta",
    ] {
        assert!(retained.contains(topic), "{topic} is told anew: {retained}");
    }
    assert_eq!(stack.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_last_will_and_farewell_are_seen_and_its_return_too() {
    let broker = house().await.start().await;
    let mut stack = closed_to_requests(&broker.url(CONTROLLER)).start().await;
    let status = async |expected: &str| {
        eventually(&format!("the controller is {expected}"), DEADLINE, async || {
            let said =
                broker.login("ha").receive(&["-t", "pistat/controller/status", "-C", "1", "-W", "5"]).await.stdout;
            if said == expected { Ok(()) } else { Err(said) }
        })
        .await;
    };
    status("online").await;
    stack.kill();
    status("offline").await;
    stack.restart().await;
    status("online").await;
    // A will of an earlier connection that comes late does not stand.
    let mut controller = broker.client(CONTROLLER).await;
    controller.publish("pistat/controller/status", "offline", true).await;
    status("online").await;
    succeeds(&stack.http(), "controller").await;
    assert_eq!(stack.stop().await, 0);
    status("offline").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_refused_until_the_configuration_names_a_role_and_tasks() {
    let broker = house().await.start().await;
    let stack = closed_to_requests(&broker.url(CONTROLLER)).start().await;
    let http = stack.http();
    broker.login("ha").publish(&["-t", "pistat/controller/task/request", "-m", "uptime", "-q", "1"]).await;
    http.event(&["[mqtt.requests]"], DEADLINE).await;
    assert_eq!(http.get("/api/runs").await.json::<Vec<Run>>(), []);
    // Dashboard, command line and REST always work.
    succeeds(&http, "controller").await;
    assert_eq!(stack.cli(&["task", "run", "uptime"]).await.code, 0);
    drop(stack);

    let stack = open_to_requests(&broker.url(CONTROLLER)).start().await;
    let http = stack.http();
    let mut ha = broker.client("ha").await;
    // A stamp is believed on our own broker only: the role is what the configuration says, whoever
    // one claims to be.
    let stamp = PublishProperties {
        user_properties: vec![("pistat-account".into(), "admin".into())],
        ..PublishProperties::default()
    };
    ha.publish_with("pistat/controller/task/request", "admins-only", false, stamp.clone()).await;
    http.event(&["admins-only", "role"], DEADLINE).await;
    ha.publish_with("pistat/controller/task/request", "echo", false, stamp.clone()).await;
    http.event(&["echo", "not among the tasks of [mqtt.requests]"], DEADLINE).await;
    ha.publish_with("pistat/controller/task/request", "uptime", false, stamp).await;
    let run = eventually("the one that is allowed runs", DEADLINE, async || {
        let runs: Vec<Run> = http.get("/api/runs?task=uptime").await.json();
        runs.first().map(|run| run.id).ok_or("no run")
    })
    .await;
    let run = http.ended(run, DEADLINE).await;
    assert_eq!((run.state, run.requested_by.as_str()), (RunState::Succeeded, "mqtt"));
    // What may not be asked for may not be cancelled either.
    let other = http.start_run("one-at-a-time", "controller", json!({"seconds": 20})).await;
    ha.publish("pistat/controller/task/request", json!({"cancel": other}).to_string(), false).await;
    http.event(&["one-at-a-time", "not among the tasks of [mqtt.requests]"], DEADLINE).await;
    assert!(!http.run(other).await.unwrap().state.is_final());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_retained_on_the_broker_never_runs_and_is_cleared() {
    let broker = house().await.start().await;
    // Before the controller is there, and after.
    let retain = ["-t", "pistat/controller/task/request", "-m", "uptime", "-q", "1", "-r"];
    broker.login("ha").publish(&retain).await;
    let stack = open_to_requests(&broker.url(CONTROLLER)).start().await;
    let http = stack.http();
    http.event(&["retain flag"], DEADLINE).await;
    broker.login("ha").publish(&retain).await;
    eventually("no retained request is left", DEADLINE, async || {
        let left = broker.login("ha").receive(&["-t", "pistat/+/task/request", "-W", "1", "-v"]).await.stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(http.get("/api/runs").await.json::<Vec<Run>>(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_twenty_runs_of_a_machine_stay_retained_and_a_forgotten_machine_leaves_nothing() {
    let broker = house().await.start().await;
    let stack = closed_to_requests(&broker.url(CONTROLLER)).start().await;
    let http = stack.http();
    let mut agent = agent_at(&stack, "pi-1", &broker.url("pi-1")).online(&http).await;
    for _ in 0..25 {
        let run = http.start_run("uptime", "pi-1", json!({})).await;
        http.ended(run, DEADLINE).await;
    }
    for verb in ["status", "output"] {
        eventually(&format!("twenty retained {verb} are left"), DEADLINE, async || {
            let filter = format!("pistat/pi-1/task/+/{verb}");
            let left = broker.login("ha").receive(&["-t", &filter, "-W", "1", "-F", "%t"]).await.stdout.lines().count();
            if left == 20 { Ok(()) } else { Err(left) }
        })
        .await;
    }
    agent.stop().await;
    agent.offline(&http).await;
    assert_eq!(stack.cli(&["agent", "remove", "pi-1"]).await.code, 0);
    eventually("no topic of it is left", DEADLINE, async || {
        let left = broker.login("ha").receive(&["-t", "pistat/pi-1/#", "-W", "1", "-F", "%t"]).await.stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_believes_only_the_key_of_its_join_token_and_then_only_that_one() {
    let broker = house().await.start().await;
    let stack = closed_to_requests(&broker.url(CONTROLLER)).start().await;
    let http = stack.http();
    let other = Stack::builder().embedded().start().await;
    let mut stranger = agent_at(&stack, "pi-1", &broker.url("pi-1")).token(Some(&other.join_token())).start();
    eventually("the agent says that the key is another's", DEADLINE, async || {
        let said = stranger.process().stderr().join("\n");
        if said.contains("not the one of the join token") { Ok(()) } else { Err(said) }
    })
    .await;
    drop(stranger);
    // With the right token once, and without any afterwards.
    let mut agent = agent_at(&stack, "pi-2", &broker.url("pi-2")).online(&http).await;
    agent.restart();
    agent.sampled(&http).await;
    succeeds(&http, "pi-2").await;
    // Whoever may write to the key's topic cannot change what the agent believes.
    let forged = pistat_protocol::order::ControllerKey::from_secret(&[66; 32]).public().view();
    let forged = pistat_protocol::codec::encode(&forged);
    let mut client = broker.client(CONTROLLER).await;
    client.publish("pistat/controller/key", forged, true).await;
    agent.restart();
    agent.sampled(&http).await;
    succeeds(&http, "pi-2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_mqtt_5_carries_everything_but_requests_and_that_is_said() {
    for manner in [Manner::Says, Manner::Closes] {
        let broker = house().await.start().await;
        let old = old_broker(broker.address(), manner).await;
        let url = format!("mqtt://{CONTROLLER}:{}@{old}", password(CONTROLLER));
        let mut stack = open_to_requests(&url).start().await;
        let http = stack.http();
        let said = stack.process().stderr().join("\n");
        assert!(said.contains("no MQTT 5") && said.contains("requests over MQTT are off"), "{said}");
        let _agent = agent_at(&stack, "pi-1", &broker.url("pi-1")).online(&http).await;
        succeeds(&http, "pi-1").await;
        succeeds(&http, "controller").await;
        broker.login("ha").publish(&["-t", "pistat/controller/task/request", "-m", "mark", "-q", "1"]).await;
        let asked = http.get("/api/runs?task=mark").await.json::<Vec<Run>>();
        assert_eq!(asked, []);
        stack.kill();
        eventually("its last will is left there too", DEADLINE, async || {
            let said =
                broker.login("ha").receive(&["-t", "pistat/controller/status", "-C", "1", "-W", "5"]).await.stdout;
            if said == "offline" { Ok(()) } else { Err(said) }
        })
        .await;
    }
}

/// How a broker treats a version that it does not know.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    /// As MQTT 3.1.1 asks: CONNACK with return code 1, then the end.
    Says,
    /// It closes the connection.
    Closes,
}

/// A broker that knows MQTT 3.1.1 only: mosquitto behind a door that looks at the version in
/// CONNECT.
async fn old_broker(behind: SocketAddr, manner: Manner) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = pass_old(client, behind, manner).await;
            });
        }
    });
    address
}

async fn pass_old(mut client: TcpStream, behind: SocketAddr, manner: Manner) -> std::io::Result<()> {
    let mut head = vec![0; 64];
    let count = client.read(&mut head).await?;
    head.truncate(count);
    let name = head.windows(4).position(|word| word == b"MQTT").unwrap_or(0);
    if head.get(name + 4) == Some(&5) {
        if manner == Manner::Says {
            client.write_all(&[0x20, 2, 0, 1]).await?;
        }
        return client.shutdown().await;
    }
    let mut broker = TcpStream::connect(behind).await?;
    broker.write_all(&head).await?;
    copy_bidirectional(&mut client, &mut broker).await.map(drop)
}

/// Who may publish where, and what reaches whom, with the rules that `pistat broker-acl mosquitto`
/// prints.
#[tokio::test(flavor = "multi_thread")]
async fn the_rules_for_mosquitto_let_each_user_publish_and_receive_what_it_may_and_nothing_else() {
    const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    // c: the controller, a: the agent pi-1, x: another agent, o: an operator, v: a viewer, s: a
    // user without rules.
    const USERS: [(char, &str); 6] =
        [('c', CONTROLLER), ('a', "pi-1"), ('x', "pi-2"), ('o', "ha"), ('v', "grafana"), ('s', "stranger")];
    const TABLE: [(&str, &str, &str); 29] = [
        ("pistat/pi-1/status", "ca", "caov"),
        ("pistat/pi-1/info", "ca", "cov"),
        ("pistat/pi-1/stats", "ca", "cov"),
        ("pistat/pi-1/stats/backfill", "ca", "cov"),
        ("pistat/pi-1/meta", "c", "cov"),
        ("pistat/pi-1/settings", "c", "caov"),
        ("pistat/pi-1/watch", "c", "caov"),
        ("pistat/pi-1/task/request", "co", "cov"),
        ("pistat/@all/task/request", "co", "cov"),
        ("pistat/pi-1/task/RUN/execute", "c", "ca"),
        ("pistat/pi-1/task/RUN/cancel", "c", "ca"),
        ("pistat/pi-1/task/RUN/ack", "c", "caov"),
        ("pistat/pi-1/task/RUN/report", "ca", "cov"),
        ("pistat/pi-1/task/RUN/output", "ca", "cov"),
        ("pistat/pi-1/task/RUN/status", "c", "cov"),
        ("pistat/pi-1/task/result", "c", "cov"),
        ("pistat/pi-1/recall", "c", "caov"),
        ("pistat/pi-1/witness", "ca", "co"),
        ("pistat/pi-1/alert/too-hot", "c", "cov"),
        ("pistat/pi-1/alert/too-hot/acknowledge", "co", "cov"),
        ("pistat/pi-1/alert/disk-full/sda1/acknowledge", "co", "cov"),
        ("pistat/controller/status", "c", "caxov"),
        ("pistat/controller/key", "c", "caxov"),
        ("pistat/controller/tasks", "c", "cov"),
        ("pistat/controller/event", "c", "cov"),
        ("homeassistant/status", "co", "cov"),
        ("homeassistant/device/x/config", "c", "cov"),
        ("zigbee2mqtt/lamp", "", ""),
        ("elsewhere", "", ""),
    ];
    let named = ["--agent", "pi-1", "--agent", "pi-2"];
    for agents in [&[][..], &named] {
        let mut words =
            vec!["broker-acl", "mosquitto", "--controller", CONTROLLER, "--operator", "ha", "--viewer", "grafana"];
        words.extend(agents);
        let rules = acl(&words).await;
        // Somebody who may publish everything, so that what is received is told from what may be
        // published.
        let users = USERS.map(|(_, name)| name);
        let marks: String = users.iter().map(|name| format!("\nuser {name}\ntopic read mark\n")).collect();
        let rules = format!("{rules}\nuser publisher\ntopic write #\n{marks}");
        let broker = Mosquitto::builder().users(users).users(["publisher"]).rules(&rules).start().await;
        let mut publisher = broker.client("publisher").await;
        for (letter, name) in USERS {
            let mut client = broker.client(name).await;
            for (topic, publish, _) in TABLE {
                let topic = topic.replace("RUN", RUN);
                // With patterns every user may speak as the machine of its own name: none of these
                // topics is one.
                let granted = client.publish(&topic, "x", false).await != PubAckReason::NotAuthorized;
                assert_eq!(granted, publish.contains(letter), "{name} publishes {topic} with {agents:?}");
            }
            // A subscription to everything is taken by mosquitto; each message is looked at when it
            // is delivered.
            client.granted(&["#"]).await;
            for (topic, ..) in TABLE {
                publisher.publish(&topic.replace("RUN", RUN), format!("for {name}"), false).await;
            }
            // What everybody may hear comes last: what has not come before it will not come.
            publisher.publish("mark", format!("for {name}"), false).await;
            let mut seen = Vec::new();
            client
                .message("the mark", |topic, message| {
                    let ours = message.payload == format!("for {name}");
                    if ours {
                        seen.push(topic.to_owned())
                    }
                    (ours && topic == "mark").then_some(())
                })
                .await;
            for (topic, _, receive) in TABLE {
                let topic = topic.replace("RUN", RUN);
                // What every agent reads of the controller, a pattern lets every user read: a
                // public key, and whether it is there.
                let public =
                    agents.is_empty() && matches!(&topic[..], "pistat/controller/status" | "pistat/controller/key");
                let may = public || receive.contains(letter);
                assert_eq!(seen.contains(&topic), may, "{name} receives {topic} with {agents:?}");
            }
        }
    }
}

/// The rules that are printed follow the configured discovery prefix, and Home Assistant's birth
/// comes under its own all the same.
#[tokio::test(flavor = "multi_thread")]
async fn home_assistant_with_another_discovery_prefix_is_at_home_on_a_mosquitto() {
    let prefix = ("PISTAT_HOMEASSISTANT__PREFIX", "home");
    let words = ["broker-acl", "mosquitto", "--controller", CONTROLLER, "--operator", "ha"];
    let broker = Mosquitto::builder().users([CONTROLLER, "ha"]).rules(&acl_in(&[prefix], &words).await).start().await;
    let stack = closed_to_requests(&broker.url(CONTROLLER)).environment(prefix.0, prefix.1).start().await;
    let document = "home/device/pistat_controller/config";
    for birth in ["homeassistant/status", "home/status"] {
        let mut ha = broker.client("ha").await;
        ha.granted(&["home/#"]).await;
        ha.message("the controller's machine is announced", |topic, _| (topic == document).then_some(())).await;
        ha.publish(birth, "online", false).await;
        ha.message("a birth is answered", |topic, said| (topic == document && !said.retain).then_some(())).await;
    }
    drop(stack);
}

/// The part of the page, with this broker's address and this folder in the place of its own.
struct Documented {
    blocks: Vec<Block>,
    folder: PathBuf,
    broker: Port,
}

impl Documented {
    fn read(folder: &Path) -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mqtt.md");
        let page = std::fs::read_to_string(page).unwrap();
        Self { blocks: blocks(section(&page, "Another broker")), folder: folder.to_owned(), broker: Port::claim() }
    }

    /// The blocks of a language that contain this, one after the other.
    fn text(&self, language: &str, part: &str) -> String {
        let fitting = self.blocks.iter().filter(|block| block.language == language && block.text.contains(part));
        let text: String = fitting.map(|block| block.text.as_str()).collect();
        assert!(!text.is_empty(), "the page has no {language} with {part}");
        let folder = self.folder.display().to_string();
        let text = text.replace("broker.lan:8883", &self.broker.address().to_string());
        text.replace("/etc/pistat", &folder).replace("/etc/mosquitto", &folder)
    }

    fn bash(&self, text: &str) -> Command {
        let programs = ["pistat", "pistat-agent"].map(program);
        let path = programs.map(|program| program.parent().unwrap().display().to_string()).join(":");
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", text]).current_dir(&self.folder).env_clear();
        command.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap())).env("HOME", &self.folder);
        command
    }

    /// The broker as the page sets it up; where it listens, with which certificate and as whom is
    /// everybody's own.
    async fn start_broker(&self) -> Process {
        let users: String = ["pistat-controller", "homeassistant", "grafana", "pi-1"]
            .map(|user| format!("{user}:its-password\n"))
            .concat();
        std::fs::write(self.folder.join("passwd"), users).unwrap();
        let mut hash = Command::new("mosquitto_passwd");
        hash.arg("-U").arg(self.folder.join("passwd"));
        assert_eq!(run("mosquitto_passwd", &mut hash, DEADLINE).await.code, 0);
        let rules = self.text("sh", "broker-acl");
        let said = run("pistat broker-acl", &mut self.bash(&rules), DEADLINE).await;
        assert_eq!(said.code, 0, "{said:?}");
        let (port, folder) = (self.broker.number(), self.folder.display());
        let own = format!(
            "listener {port} 127.0.0.1\ncertfile {folder}/server.pem\nkeyfile {folder}/server-key.pem\nuser root\n"
        );
        std::fs::write(self.folder.join("mosquitto.conf"), own + &self.text("conf", "acl_file")).unwrap();
        let mut command = Command::new("mosquitto");
        command.env("PATH", format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap()));
        let process = Process::start("mosquitto", command.arg("-c").arg(self.folder.join("mosquitto.conf")));
        eventually("mosquitto listens", DEADLINE, async || TcpStream::connect(self.broker.address()).await.map(drop))
            .await;
        process
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_the_documentation_says_of_another_broker_works_on_a_mosquitto() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path()).await;
    let page = Documented::read(folder.path());
    let _mosquitto = page.start_broker().await;
    let stack = Stack::builder().config(&page.text("toml", "[mqtt")).start().await;
    let http = stack.http();
    let agent =
        page.text("sh", "pistat-agent ").replace("join.token", &stack.state().join("join.token").display().to_string());
    let _agent =
        Process::start("the page's agent", page.bash(&agent).env("PISTAT_AGENT_STATE", folder.path().join("agent")));
    eventually("the page's machine is online", DEADLINE, async || {
        let machine = http.machine("pi-1").await?;
        if machine.status == MachineStatus::Online { Ok(()) } else { Err(format!("{machine:?}")) }
    })
    .await;
    succeeds(&http, "pi-1").await;
    let mut ask = Command::new("mosquitto_pub");
    ask.args(["-h", "127.0.0.1", "-p", &page.broker.number().to_string(), "-u", "homeassistant", "-P", "its-password"]);
    ask.arg("--cafile").arg(folder.path().join("ca.pem")).args([
        "-t",
        "pistat/pi-1/task/request",
        "-q",
        "1",
        "-m",
        "uptime",
    ]);
    assert_eq!(run("mosquitto_pub", &mut ask, DEADLINE).await.code, 0);
    eventually("a request over MQTT runs as the page says", DEADLINE, async || {
        let runs: Vec<Run> = http.get("/api/runs").await.json();
        if runs.iter().any(|run| run.requested_by == "mqtt") { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_runs_on_every_machine_of_a_foreign_broker() {
    let broker = house().await.start().await;
    let stack = open_to_requests(&broker.url(CONTROLLER)).start().await;
    let http = stack.http();
    let _one = agent_at(&stack, "pi-1", &broker.url("pi-1")).online(&http).await;
    let _two = agent_at(&stack, "pi-2", &broker.url("pi-2")).online(&http).await;
    let accepted: AcceptedRuns = http.ask_run("uptime", "@all", json!({})).await.json();
    assert_eq!(accepted.runs.len(), 3);
    for run in accepted.runs {
        assert_eq!(http.ended(run, DEADLINE).await.state, RunState::Succeeded);
    }
    // An answer may be asked for under the prefix, where the controller may write with the rules as
    // they are.
    let words = ["-V", "5", "-t", "pistat/@all/task/request", "-e", "pistat/reply/ha", "-m", "uptime", "-W", "15"];
    let reply = broker.login("ha").request(&words).await;
    let reply: Value = serde_json::from_str(&reply.stdout).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
    assert_eq!(reply["runs"].as_array().map(Vec::len), Some(3), "{reply}");
    steadily("nothing of enrolment is needed", Duration::from_millis(200), async || {
        let enrolments: Vec<Value> = http.get("/api/enrolments").await.json();
        if enrolments.is_empty() { Ok(()) } else { Err(format!("{enrolments:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lets_anybody_in_needs_no_user_and_password_in_any_address() {
    let broker = Mosquitto::open().await;
    let url = format!("mqtt://{}", broker.address());
    let stack = closed_to_requests(&url).start().await;
    let mut agent = agent_at(&stack, "pi-1", &url).online(&stack.http()).await;
    succeeds(&stack.http(), "pi-1").await;
    // Without its join token too.
    agent.restart();
    agent.sampled(&stack.http()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_another_prefix_is_told_so_on_a_broker_of_others() {
    let broker = Mosquitto::open().await;
    let url = format!("mqtt://{}", broker.address());
    let stack = closed_to_requests(&url).start().await;
    let mut agent = agent_at(&stack, "pi-1", &url).online(&stack.http()).await;
    agent.stop().await;
    for plan in [agent.plan().token(None), agent_at(&stack, "pi-2", &url)] {
        let mut lost = plan.config("prefix = 'other'").flag("--log-level", "error").start();
        lost.says("no controller shows its key there under the prefix `other`").await;
    }
}
