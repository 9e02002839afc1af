//! Other people's clients: rumqttc, and mosquitto's where it is installed; TLS, and its certificate
//! changing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pistat_broker::{Broker, BrokerConfig, TlsListener};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::process::Command;

use crate::setup::{Setup, directory};
use pistat_testkit::{
    DEADLINE,
    packet::{Connect, Message},
};

fn options(setup: &Setup, id: &str, user: &str) -> MqttOptions {
    let mut options = MqttOptions::new(id, "127.0.0.1", setup.address.port());
    options.set_credentials(user, user).set_keep_alive(Duration::from_secs(5));
    options
}

async fn next_publish(events: &mut EventLoop) -> Publish {
    let search = async {
        loop {
            if let Event::Incoming(rumqttc::v5::Incoming::Publish(publish)) = events.poll().await.unwrap() {
                return publish;
            }
        }
    };
    tokio::time::timeout(DEADLINE, search).await.unwrap()
}

#[tokio::test]
async fn rumqttc_works_as_the_controller_and_as_an_agent() {
    let setup = Setup::start().await;
    let (controller, mut controller_events) = AsyncClient::new(options(&setup, "controller", "controller"), 100);
    controller.subscribe("pistat/+/status", QoS::AtLeastOnce).await.unwrap();
    let mut agent_options = options(&setup, "pi-1", "pi-1");
    agent_options.set_last_will(LastWill::new("pistat/pi-1/status", "offline", QoS::AtLeastOnce, true, None));
    let (agent, mut agent_events) = AsyncClient::new(agent_options, 100);
    agent.subscribe("pistat/pi-1/task/+/execute", QoS::AtLeastOnce).await.unwrap();
    agent.publish("pistat/pi-1/status", QoS::AtLeastOnce, true, "online").await.unwrap();
    let agent_task = tokio::spawn(async move { next_publish(&mut agent_events).await });
    assert_eq!(next_publish(&mut controller_events).await.payload, "online");
    controller.publish("pistat/pi-1/task/r/execute", QoS::AtLeastOnce, false, "order").await.unwrap();
    let drive = tokio::spawn(async move { next_publish(&mut controller_events).await });
    assert_eq!(agent_task.await.unwrap().payload, "order");
    // The task took the connection with it: a broken connection, so its will is published.
    assert_eq!(drive.await.unwrap().payload, "offline");
}

#[tokio::test]
async fn rumqttc_of_3_1_1_and_5_talk_to_each_other() {
    let setup = Setup::start().await;
    let mut old_options = rumqttc::MqttOptions::new("old", "127.0.0.1", setup.address.port());
    old_options.set_credentials("home", "home");
    let (old, mut old_events) = rumqttc::AsyncClient::new(old_options, 10);
    let (new, mut new_events) = AsyncClient::new(options(&setup, "new", "other"), 10);
    old.subscribe("test/old", rumqttc::QoS::ExactlyOnce).await.unwrap();
    new.subscribe("test/new", QoS::ExactlyOnce).await.unwrap();
    let old_task = tokio::spawn(async move {
        loop {
            match old_events.poll().await.unwrap() {
                rumqttc::Event::Incoming(rumqttc::Incoming::SubAck(_)) => {
                    old.publish("test/new", rumqttc::QoS::ExactlyOnce, true, "from the old").await.unwrap();
                }
                rumqttc::Event::Incoming(rumqttc::Incoming::Publish(publish)) => return publish,
                _ => {}
            }
        }
    });
    assert_eq!(next_publish(&mut new_events).await.payload, "from the old");
    new.publish("test/old", QoS::ExactlyOnce, true, "from the new").await.unwrap();
    let drive = tokio::spawn(async move {
        loop {
            if matches!(new_events.poll().await, Err(_) | Ok(Event::Incoming(Packet::Disconnect(_)))) {
                return;
            }
        }
    });
    assert_eq!(tokio::time::timeout(DEADLINE, old_task).await.unwrap().unwrap().payload, "from the new");
    setup.broker.shutdown().await;
    tokio::time::timeout(DEADLINE, drive).await.unwrap().unwrap();
}

/// Whether a program of mosquitto's is there; without it these tests have nothing to say, which in
/// CI nobody would notice.
fn is_installed(program: &str) -> bool {
    let help = std::process::Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(help.is_ok() || std::env::var_os("CI").is_none(), "{program} is not installed, so nothing was tested");
    help.is_ok()
}

fn mosquitto(program: &str, setup: &Setup, version: &str) -> Command {
    let mut command = Command::new(program);
    let port = setup.address.port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port, "-u", "home", "-P", "home", "-V", version]).kill_on_drop(true);
    command.stdout(Stdio::piped());
    command
}

async fn output(command: &mut Command) -> (bool, String) {
    let output = tokio::time::timeout(DEADLINE, command.output()).await.unwrap().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn mosquittos_clients_work_in_every_mix_of_versions_and_qos() {
    if !is_installed("mosquitto_pub") {
        return;
    }
    let setup = Setup::start().await;
    for (from, to) in [("mqttv311", "mqttv5"), ("mqttv5", "mqttv311"), ("mqttv5", "mqttv5")] {
        for qos in ["0", "1", "2"] {
            // Retained, so that it does not matter which of the two is there first.
            let mut publish = mosquitto("mosquitto_pub", &setup, from);
            let sent = output(publish.args(["-q", qos, "-t", "test/x", "-r", "-m", &format!("{from} {qos}")])).await;
            assert!(sent.0);
            let mut subscribe = mosquitto("mosquitto_sub", &setup, to);
            let (is_good, text) =
                output(subscribe.args(["-q", qos, "-t", "test/#", "-C", "1", "-F", "%t %q %r %p"])).await;
            assert!(is_good);
            assert_eq!(text.trim(), format!("test/x {qos} 1 {from} {qos}"));
        }
    }
    let (is_good, _) =
        output(mosquitto("mosquitto_pub", &setup, "mqttv5").args(["-t", "test/x", "-m", "x", "-P", "wrong"])).await;
    assert!(!is_good);
}

#[tokio::test]
async fn mosquitto_rr_gets_its_answer() {
    if !is_installed("mosquitto_rr") {
        return;
    }
    let setup = Setup::start().await;
    let mut answerer = setup.v5("answerer").await;
    answerer.subscribe(&[("test/ask", 1)]).await;
    let mut ask = mosquitto("mosquitto_rr", &setup, "mqttv5");
    ask.args(["-t", "test/ask", "-e", "test/answer", "-m", "question", "-q", "1", "-W", "15"]);
    let asking = tokio::spawn(async move { output(&mut ask).await });
    let question = answerer.message().await;
    let answer = Message::new(&question.properties.text(8).unwrap(), "answer", 1);
    answerer.publish(answer).await;
    assert_eq!(asking.await.unwrap(), (true, "answer\n".into()));
}

/// The real bridge, with its defaults: it says what it is by the protocol level, and has a last
/// will under `$SYS`.
#[tokio::test]
async fn mosquitto_bridges_both_ways_and_nothing_goes_round_in_circles() {
    if !is_installed("mosquitto") {
        return;
    }
    let setup = Setup::start().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let config = format!(
        "user root\nlistener 0 {}\nallow_anonymous true\nconnection house\naddress {}\nremote_username home\nremote_password home\n\
         topic test/# both 1\nrestart_timeout 1\n",
        socket.display(),
        setup.address
    );
    let file = folder.path().join("mosquitto.conf");
    std::fs::write(&file, config).unwrap();
    let mut watcher = setup.v5("watcher").await;
    watcher.subscribe(&[("test/#", 1)]).await;
    let mut bridge =
        Command::new("mosquitto").arg("-c").arg(&file).kill_on_drop(true).stderr(Stdio::null()).spawn().unwrap();
    let local = |words: &[&str]| {
        let mut command = Command::new(if words[0] == "pub" { "mosquitto_pub" } else { "mosquitto_sub" });
        command.arg("--unix").arg(&socket).args(&words[1..]).stderr(Stdio::null());
        command
    };
    // From there to here, as soon as there is a bridge.
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while setup.statistics().clients_connected < 2 {
        assert!(tokio::time::Instant::now() < deadline, "the bridge does not connect");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut hearing = local(&["sub", "-q", "1", "-t", "test/there", "-C", "1", "-W", "15"]);
    let hears = tokio::spawn(async move { output(&mut hearing).await });
    assert!(output(&mut local(&["pub", "-q", "1", "-t", "test/here", "-m", "from there"])).await.0);
    let message = watcher.message().await;
    assert_eq!((message.topic.as_str(), message.text()), ("test/here", "from there".to_owned()));
    // From here to there, repeated until it is heard: the local subscription may come a moment
    // later.
    while !hears.is_finished() {
        watcher.publish(Message::new("test/there", "from here", 1)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(hears.await.unwrap(), (true, "from here\n".into()));
    // What came from there has not come back again and again.
    let rest = watcher.until_now().await;
    assert!(rest.iter().all(|message| message.topic == "test/there"), "{rest:?}");
    bridge.kill().await.unwrap();
}

/// A certificate for 127.0.0.1 that vouches for itself.
fn write_certificate(folder: &Path) {
    let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), pair.cert.pem()).unwrap();
}

/// Connects over TLS, trusting exactly the certificate in the folder, and gets a CONNACK.
async fn tls_connects(folder: &Path, address: std::net::SocketAddr) -> bool {
    use rustls::pki_types::pem::PemObject;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let Ok(mut stream) = connector.connect("127.0.0.1".try_into().unwrap(), stream).await else { return false };
    stream.write_all(&Connect::v311("tls").encode()).await.unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await.unwrap();
    connack == [0x20, 2, 0, 0]
}

#[tokio::test]
async fn tls_has_its_port_and_takes_a_new_certificate_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let tls = TlsListener {
        listen: "127.0.0.1:0".parse().unwrap(),
        cert: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    let config = BrokerConfig { tls: Some(tls.clone()), ..BrokerConfig::default() };
    let (broker, _events) = Broker::start(config, directory()).await.unwrap();
    let address = broker.addresses().mqtts.unwrap();
    assert!(broker.addresses().mqtt.is_none());
    // A connection that says nothing holds nobody up.
    let _idle = tokio::net::TcpStream::connect(address).await.unwrap();
    assert!(tls_connects(folder.path(), address).await);
    write_certificate(folder.path());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !tls_connects(folder.path(), address).await {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is not in force");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    broker.shutdown().await;
    std::fs::write(&tls.key, "no key").unwrap();
    let config = BrokerConfig { tls: Some(tls), ..BrokerConfig::default() };
    let error = Broker::start(config, directory()).await.err().unwrap().to_string();
    assert!(error.contains("key.pem") && error.contains("no private key"), "{error}");
}
