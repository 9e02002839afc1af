//! Other people's clients talk to each other through the controller's broker: paho-mqtt, MQTT.js
//! and mosquitto's, over TCP, TLS and WebSocket, with MQTT 3.1.1 and 5.

use std::{net::SocketAddr, process::Command};

use pistat_testkit::{
    DEADLINE, STANDSTILL, Stack,
    clients::{Client, Door, Library, Transport, install},
    eventually, gradually,
    mosquitto::Login,
    process::run,
    programs::program,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A controller with a TLS port, and an account `house` with topics of its own.
async fn house() -> (Stack, Door, Login, TempDir) {
    install().await;
    let folder = tempfile::tempdir().unwrap();
    let tls = folder.path().join("tls");
    let mut init = Command::new(program("pistat"));
    init.args(["tls", "init", "--name", "127.0.0.1", "--dir"]).arg(&tls).current_dir(folder.path());
    let made = run("pistat tls init", &mut init, DEADLINE).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    let path = |file: &str| tls.join(file).display().to_string();
    let config = format!(
        "[mqtt.tls]\nlisten = \"127.0.0.1:0\"\ncert = {:?}\nkey = {:?}\n[[account]]\nname = \"house\"\npublish = [\"house/#\"]\nsubscribe = [\"house/#\"]\n",
        path("server.pem"),
        path("server-key.pem")
    );
    let mut stack = Stack::builder().config(&config).start().await;
    let find = |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix("mqtts://")).map(str::to_owned);
    let tls_address: SocketAddr = stack
        .process()
        .line("its TLS address", DEADLINE, find)
        .await
        .replace("localhost", "127.0.0.1")
        .parse()
        .unwrap();
    let (_, password) = stack.account("house", "viewer").await;
    let door = Door {
        ports: [stack.said.mqtt.port(), tls_address.port(), stack.said.http_address.port()],
        ca: tls.join("ca.pem"),
        user: "house".into(),
        password: password.clone(),
    };
    let login = stack.mosquitto_as("house", &password);
    (stack, door, login, folder)
}

/// Every library over every transport in both versions.
async fn everybody(door: &Door) -> Vec<Client> {
    let mut clients = Vec::new();
    for library in [Library::Paho, Library::MqttJs] {
        for transport in [Transport::Tcp, Transport::Tls, Transport::WebSocket] {
            for is_v5 in [false, true] {
                clients.push(Client::start(library, transport, is_v5, door, "house/to/{name}/#").await);
            }
        }
    }
    clients
}

fn properties() -> Value {
    json!({"content_type": "text/plain", "payload_format": 1, "expiry": 600, "correlation": "no 7",
           "user": [["room", "kitchen"], ["room", "cellar"], ["é", "ü"]]})
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_elses_clients_talk_to_each_other_in_every_mix() {
    let (_stack, door, login, _folder) = house().await;
    let mut clients = everybody(&door).await;
    let names: Vec<(String, bool)> = clients.iter().map(|client| (client.name.clone(), client.is_v5)).collect();
    let mosquitto = login.subscribe("house/to/+/from/#");
    let retained = ["-t", "house/retained", "-r", "-q", "1", "-m", "here", "-V", "mqttv5"];
    assert_eq!(login.publish(&retained).await.code, 0);
    // A fence: the subscriber is served once it has heard this.
    eventually("mosquitto_sub is served", DEADLINE, async || {
        login.publish(&["-t", "house/to/fence/from/x", "-m", "x"]).await;
        if mosquitto.stdout().is_empty() { Err("it has heard nothing") } else { Ok(()) }
    })
    .await;

    for client in &mut clients {
        for (number, (to, _)) in names.iter().enumerate() {
            let topic = format!("house/to/{to}/from/{}", client.name);
            let payload = format!("{} → {to}", client.name);
            client.publish(&json!({"topic": topic, "payload": payload, "qos": number % 3, "properties": properties()}));
        }
    }
    for client in &clients {
        client.has_published(names.len()).await;
    }
    for (number, client) in clients.iter().enumerate() {
        let what = format!("{} hears from everybody", client.name);
        gradually(&what, STANDSTILL, async || match client.messages().len() {
            count if count == names.len() => Ok(()),
            count => Err(names.len().abs_diff(count) as u64),
        })
        .await;
        for (from, from_v5) in &names {
            let topic = format!("house/to/{}/from/{from}", client.name);
            let messages = client.messages();
            let message = messages.iter().find(|message| message["topic"] == *topic).unwrap();
            assert_eq!(message["payload"], format!("{from} → {}", client.name));
            assert_eq!((&message["qos"], &message["retain"]), (&json!(number % 3), &json!(false)), "{topic}");
            // Properties pass from MQTT 5 to MQTT 5, and are not an obstacle to 3.1.1.
            let expected = if client.is_v5 && *from_v5 { properties() } else { json!({}) };
            assert_eq!(alike(&message["properties"]), alike(&expected), "{topic}");
        }
    }
    gradually("mosquitto_sub has heard all of it", STANDSTILL, async || {
        let heard = mosquitto.stdout().iter().filter(|line| !line.contains("/fence/")).count();
        match (names.len() * names.len()).abs_diff(heard) {
            0 => Ok(()),
            left => Err(left as u64),
        }
    })
    .await;
}

/// Pairs of user properties in one order: MQTT.js gathers those of one name. What is left of the
/// expiry may be a little less.
fn alike(properties: &Value) -> Value {
    let mut properties = properties.clone();
    if let Some(pairs) = properties["user"].as_array_mut() {
        pairs.sort_by_key(ToString::to_string);
    }
    if let Some(expiry) = properties.get_mut("expiry") {
        assert!(expiry.as_u64().is_some_and(|left| (500..=600).contains(&left)), "{expiry}");
        *expiry = json!(600);
    }
    if properties["user"].is_null()
        && let Some(fields) = properties.as_object_mut()
    {
        fields.remove("user");
    }
    properties
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_retained_messages_pass_between_mosquittos_and_everybody_elses_clients() {
    let (_stack, door, login, _folder) = house().await;
    for version in ["mqttv311", "mqttv5"] {
        let words = ["-t", &format!("house/to/late/{version}"), "-r", "-q", "1", "-m", version, "-V", version];
        assert_eq!(login.publish(&words).await.code, 0);
    }
    for (library, transport) in [(Library::Paho, Transport::Tcp), (Library::MqttJs, Transport::WebSocket)] {
        for is_v5 in [false, true] {
            // What was retained reaches whoever comes late, whatever they speak.
            let late = Client::start(library, transport, is_v5, &door, "house/to/late/#").await;
            eventually("the retained messages come", DEADLINE, async || match late.messages() {
                messages if messages.len() == 2 && messages.iter().all(|m| m["retain"] == true) => Ok(()),
                messages => Err(format!("{messages:?}")),
            })
            .await;
        }
        // mosquitto_rr asks, the library answers with the correlation data.
        let answerer = Client::start(library, transport, true, &door, "house/to/{name}/ask").await;
        let topic = format!("house/to/{}/ask", answerer.name);
        let words = ["-V", "mqttv5", "-t", &topic, "-e", "house/answer", "-m", "how warm", "-q", "1", "-W", "20"];
        let answer =
            login.request(&[&words[..], &["-D", "publish", "correlation-data", "c-1", "-F", "%p %D"]].concat()).await;
        assert_eq!(
            (answer.code, answer.stdout.trim()),
            (0, &*format!("{} answers how warm c-1", answerer.name)),
            "{}",
            answer.stderr
        );
        // mosquitto_pub's properties arrive.
        let topic = format!("house/to/{}/ask", answerer.name);
        let words = ["-V", "mqttv5", "-t", &topic, "-m", "hello", "-q", "2"];
        let pair = ["-D", "publish", "user-property", "room", "attic", "-D", "publish", "content-type", "text/plain"];
        assert_eq!(login.publish(&[&words[..], &pair[..]].concat()).await.code, 0);
        eventually("mosquitto_pub's message comes with its properties", DEADLINE, async || {
            let messages = answerer.messages();
            let found = messages.iter().find(|message| message["payload"] == "hello");
            let expected = json!({"content_type": "text/plain", "user": [["room", "attic"]]});
            if found.is_some_and(|message| message["properties"] == expected && message["qos"] == 2) {
                Ok(())
            } else {
                Err(format!("{messages:?}"))
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused_to_every_library_in_its_own_words() {
    let (_stack, door, login, _folder) = house().await;
    let wrong = Login { password: "wrong".into(), ..login.clone() };
    for version in ["mqttv311", "mqttv5"] {
        let refused = wrong.publish(&["-t", "house/x", "-m", "x", "-V", version]).await;
        let words = refused.stderr.to_lowercase();
        assert!(refused.code != 0 && (words.contains("not authorised") || words.contains("user name")), "{refused:?}");
    }
    // The good ones are let in beside them.
    let client = Client::start(Library::Paho, Transport::WebSocket, true, &door, "house/x").await;
    assert_eq!(client.messages(), [] as [Value; 0]);
}
