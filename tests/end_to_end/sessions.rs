//! Sessions from their first byte to their last: what opens one, what ends it, and what a flood of
//! refusals does to everybody else. All of it is about the controller's own broker and server.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use pistat_protocol::{
    account::Account,
    api::{AcceptedRuns, NewToken, SessionView},
    dashboard::{ClientMessage, MachineStatus, ServerMessage},
    task::RunState,
};
use pistat_testkit::{DEADLINE, Feed, Http, Mqtt, Reply, Stack, eventually, mqtt::Heard, packet::Connect};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        http::{HeaderName, HeaderValue},
    },
};

/// Levels of the protocol.
const V311: u8 = 4;
const V5: u8 = 5;

/// Reason codes of MQTT 5, and the return code of 3.1.1.
const SHUTTING_DOWN: u8 = 0x8B;
const NOT_AUTHORIZED: u8 = 0x87;
const NOT_AUTHORIZED_V311: u8 = 5;

/// How many guess at a time.
const STRANGERS: usize = 20;

/// How many commands of one browser may be at work.
const COMMANDS: u32 = 16;

/// A CONNECT with a clean start.
fn connect_packet(level: u8, client_id: &str, credentials: Option<(&str, &str)>) -> Vec<u8> {
    let connect = Connect { user: None, password: None, ..Connect::of(level == V5, client_id) };
    credentials.map_or(connect.clone(), |(user, password)| connect.login(user, password)).encode()
}

/// MQTT over WebSocket, byte by byte.
struct Wire(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Wire {
    /// Opens `/mqtt` as this client would, with its cookie or token in the handshake.
    async fn open(http: &Http) -> Self {
        let mut request = format!("{}/mqtt", http.base().replacen("http", "ws", 1)).into_client_request().unwrap();
        let protocol = ("Sec-WebSocket-Protocol".to_owned(), "mqtt".to_owned());
        let own = [protocol, ("Origin".to_owned(), http.base().to_owned())];
        for (name, value) in http.handshake_headers().into_iter().chain(own) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
        }
        Self(tokio_tungstenite::connect_async(request).await.expect("/mqtt opens for anybody").0)
    }

    async fn send(&mut self, packet: Vec<u8>) {
        self.0.send(Message::binary(packet)).await.expect("the socket is open");
    }

    /// The next packet; `None` when the server has closed the socket.
    async fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.0.next()).await.expect("something comes in time");
            match message {
                Some(Ok(Message::Binary(packet))) => return Some(packet.to_vec()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// A client that has been let in.
    async fn connected(http: &Http, user: &str, token: &str) -> Self {
        let mut wire = Self::open(http).await;
        wire.send(connect_packet(V5, "wire", Some((user, token)))).await;
        let answer = wire.packet().await.expect("an answer");
        assert_eq!((answer[0], answer[3]), (0x20, 0), "{answer:?}");
        wire
    }

    /// The reason of a DISCONNECT, after which the socket is closed.
    async fn farewell(&mut self) -> u8 {
        let packet = self.packet().await.expect("a farewell comes before the end");
        assert_eq!(packet[0], 0xE0, "{packet:?}");
        assert_eq!(self.packet().await, None, "then the socket is closed");
        packet[2]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_says_goodbye_over_websocket_too_and_leaves_no_agent_offline() {
    let mut stack = Stack::builder().embedded().start().await;
    let http = stack.http();
    // A real agent over http://, and a program over ws://; whoever looks on over plain MQTT hears
    // everything to the end.
    let agent = stack.agent("pi-1").online(&http).await;
    let mut wire = Wire::connected(&stack.anonymous(), "admin", &stack.admin_token()).await;
    let mut onlooker = stack.mqtt("admin", &stack.admin_token()).await;
    onlooker.granted(&["pistat/pi-1/status"]).await;
    let (stopped, farewell) = tokio::join!(stack.stop(), wire.farewell());
    assert_eq!((stopped, farewell), (0, SHUTTING_DOWN));
    loop {
        match onlooker.next(DEADLINE).await.expect("the broker ends") {
            Heard::Message(message) => assert_eq!(&message.payload[..], b"online", "a stop is not a power cut"),
            Heard::Ended(reason) => break assert!(reason.contains("ServerShuttingDown"), "{reason}"),
            _ => {}
        }
    }
    stack.restart().await;
    agent.sampled(&http).await;
    let events = http.events().await;
    let offline = |text: &str| text.starts_with("offline");
    assert!(!events.iter().any(|event| offline(&event.text)), "{events:#?}");
    assert_eq!(http.machine("pi-1").await.unwrap().status, MachineStatus::Online);
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_over_websocket_takes_the_credentials_of_connect_and_never_a_cookie_or_a_header() {
    let stack = Stack::builder().embedded().start().await;
    for http in [stack.anonymous().sign_in(&stack.admin_token()).await, stack.http()] {
        assert_eq!(http.get("/api/me").await.status, 200, "the credential itself is good");
        for (level, code) in [(V311, NOT_AUTHORIZED_V311), (V5, NOT_AUTHORIZED)] {
            let mut wire = Wire::open(&http).await;
            wire.send(connect_packet(level, "x", None)).await;
            let answer = wire.packet().await.expect("the protocol's own refusal");
            assert_eq!((answer[0], answer[3]), (0x20, code), "{answer:?}");
            assert_eq!(wire.packet().await, None, "then the socket is closed");
        }
        let mut wire = Wire::open(&http).await;
        wire.send(connect_packet(V5, "x", Some(("admin", "wrong")))).await;
        assert_ne!(wire.packet().await.expect("a refusal")[3], 0);
    }
    drop(Wire::connected(&stack.anonymous(), "admin", &stack.admin_token()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_rotating_or_demoting_an_account_ends_its_mqtt_over_websocket_and_its_sign_in_links() {
    let stack = Stack::builder().embedded().start().await;
    for verb in ["remove", "rotate", "demote"] {
        let (boss, token) = stack.account("olga", "admin").await;
        let link: Value = boss.send("POST", "/api/login-links", None).await.json();
        let mut wire = Wire::connected(&stack.anonymous(), "olga", &token).await;
        let reply = match verb {
            "remove" => stack.http().send("DELETE", "/api/accounts/olga", None).await,
            "rotate" => stack.http().send("POST", "/api/accounts/olga/rotate", None).await,
            _ => stack.http().post("/api/accounts/olga/rotate", json!({"role": "viewer"})).await,
        };
        assert!(reply.status < 300, "{verb}: {reply:?}");
        assert_eq!(wire.farewell().await, NOT_AUTHORIZED, "{verb}");
        let code = json!({"code": link["code"]});
        assert_eq!(stack.anonymous().post("/api/login", code).await.status, 401, "{verb}: its link is void");
        if verb != "remove" {
            let new = reply.json::<Value>()["token"].as_str().unwrap().to_owned();
            drop(Wire::connected(&stack.anonymous(), "olga", &new).await);
            stack.http().send("DELETE", "/api/accounts/olga", None).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_or_of_none_cannot_use_a_session() {
    let stack = Stack::builder().embedded().start().await;
    let browser = stack.anonymous().sign_in(&stack.admin_token()).await;
    let other_port = browser.base().rsplit_once(':').unwrap().0.to_owned() + ":1";
    for origin in [None, Some("null"), Some("http://evil.example"), Some(&*other_port)] {
        assert_eq!(Feed::connect_from(&browser, origin).await.err(), Some(403), "{origin:?}");
    }
    assert!(Feed::connect(&browser).await.is_ok());
}

/// The name of the cookie that a sign-in sets, and what follows its value.
fn named(reply: &Reply) -> (String, String) {
    let cookie = reply.cookie.as_deref().unwrap_or_else(|| panic!("a sign-in sets a cookie: {reply:?}"));
    let (name, rest) = cookie.split_once('=').unwrap();
    (name.to_owned(), rest.split_once(';').unwrap().1.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_is_secure_wherever_the_address_is_https_and_two_controllers_have_two_names() {
    let public = "[http]\npublic_url = \"https://pis.example.org\"\n";
    let (plain, proxied) =
        tokio::join!(Stack::builder().embedded().start(), Stack::builder().embedded().config(public).start());
    let login = async |stack: &Stack, origin: Option<&str>| {
        let client = stack.anonymous();
        let client = origin.map_or(client.clone(), |origin| client.header("Origin", origin));
        named(&client.post("/api/login", json!({"token": stack.admin_token()})).await)
    };
    let own = plain.anonymous().base().to_owned();
    let (name, attributes) = login(&plain, Some(&own)).await;
    assert!(name.starts_with("pistat_") && !attributes.contains("Secure"), "{name} {attributes}");
    let (secure, attributes) = login(&plain, Some(&own.replacen("http", "https", 1))).await;
    assert_eq!(secure, format!("__Host-{name}"), "a proxy speaks https for it");
    assert!(attributes.contains("Secure") && attributes.contains("Path=/;"), "{attributes}");
    for origin in [None, Some("https://pis.example.org")] {
        let (other, attributes) = login(&proxied, origin).await;
        assert!(other.starts_with("__Host-pistat_") && attributes.contains("; Secure"), "{other} {attributes}");
        assert_ne!(other, secure, "another controller has another name");
    }
    // A browser sends the cookies of all that it knows for the host.
    let reply = plain.anonymous().post("/api/login", json!({"token": plain.admin_token()})).await;
    let own = reply.cookie.clone().unwrap();
    let both = format!("pistat_session=old; {name}=tossed; {}", own.split(';').next().unwrap());
    let key: Value = reply.json();
    let browser = plain.anonymous().header("Cookie", &both);
    let browser = browser.header("pistat-session-key", key["session_key"].as_str().unwrap());
    assert_eq!(browser.get("/api/pis").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_own_credentials_do_not_hide_the_session_and_the_schemes_case_does_not_count() {
    let stack = Stack::builder().embedded().start().await;
    let browser = stack.anonymous().sign_in(&stack.admin_token()).await;
    for other in ["Basic aG91c2U6c2VjcmV0", "Negotiate abc", "Bearer of-the-proxy"] {
        let reply = browser.header("Authorization", other).get("/api/pis").await;
        assert_eq!(reply.status, 200, "{other}: {reply:?}");
    }
    for scheme in ["bearer", "BEARER", "Bearer "] {
        let token = format!("{scheme} {}", stack.admin_token());
        assert_eq!(stack.anonymous().header("Authorization", &token).get("/api/pis").await.status, 200, "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_ended_one_by_one_and_none_ends_another() {
    let mut stack = Stack::builder().embedded().start().await;
    let (_, token) = stack.account("olga", "operator").await;
    let phone = stack.anonymous().header("User-Agent", "Phone/1").sign_in(&token).await;
    let mut browsers = Vec::new();
    // More than were kept once.
    for _ in 0..40 {
        browsers.push(stack.anonymous().sign_in(&token).await);
    }
    for browser in browsers.iter().chain([&phone]) {
        assert_eq!(browser.get("/api/pis").await.status, 200, "no session ends another");
    }
    let own: Vec<SessionView> = phone.get("/api/sessions").await.json();
    assert_eq!((own.len(), own.iter().filter(|session| session.current).count()), (41, 1));
    let current = own.iter().find(|session| session.current).unwrap();
    assert_eq!((current.address.as_deref(), current.account.as_str()), (Some("127.0.0.1"), "olga"));
    assert!(current.user_agent.as_deref().unwrap() == "Phone/1", "{current:?}");
    assert!(current.last_used.is_some_and(|used| used >= current.created_at), "{current:?}");
    // Another account neither sees nor ends them; an administrator does.
    let (vera, _) = stack.account("vera", "viewer").await;
    assert_eq!(vera.get("/api/sessions").await.json::<Vec<SessionView>>(), []);
    let one = format!("/api/sessions/{}", own.iter().find(|session| !session.current).unwrap().id);
    assert_eq!(vera.send("DELETE", &one, None).await.problem().status, 404);
    assert_eq!(vera.send("DELETE", "/api/sessions?account=olga", None).await.problem().status, 403);
    assert_eq!(stack.http().send("DELETE", "/api/sessions?account=nobody", None).await.problem().status, 404);
    let mut feed = Feed::connect(&phone).await.unwrap();
    feed.machines().await;
    assert_eq!(phone.send("DELETE", &one, None).await.status, 204);
    assert_eq!(phone.get("/api/sessions").await.json::<Vec<SessionView>>().len(), 40);
    let listed = stack.cli(&["sessions"]).await;
    assert!(listed.code == 0 && listed.stdout.contains("olga") && listed.stdout.contains(" UTC"), "{listed:?}");
    // What was used and is not on the disk yet is there after a stop, too.
    assert_eq!(stack.stop().await, 0);
    stack.restart().await;
    let accounts: Vec<Account> = stack.http().get("/api/accounts").await.json();
    let vera = accounts.iter().find(|account| account.name.as_str() == "vera").unwrap();
    assert!(vera.last_used.is_some(), "{vera:?}");
    assert_eq!(phone.get("/api/pis").await.status, 200, "sessions outlive a restart");
    let mut feed = Feed::connect(&phone).await.unwrap();
    feed.machines().await;
    let ended = stack.cli(&["sessions", "end-all", "olga"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(phone.get("/api/me").await.status, 401);
    eventually("the feed of the session ends", DEADLINE, async || match feed.next(DEADLINE).await {
        None => Ok(()),
        Some(message) => Err(format!("{message:?}")),
    })
    .await;
    assert_eq!(stack.anonymous().bearer(&token).get("/api/me").await.status, 200, "the token is as it was");
    stack.http().event(&["ended all sessions of olga"], DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_expires_loses_every_way_in_at_its_time_and_a_new_token_lasts_as_long_again() {
    let stack = Stack::builder().embedded().start().await;
    let body = |expires: &str| json!({"name": "guest", "role": "viewer", "expires": expires});
    for wrong in ["", "soon", "0s", "100000d"] {
        assert_eq!(stack.http().post("/api/accounts", body(wrong)).await.problem().status, 400, "{wrong}");
    }
    let token: NewToken = stack.http().post("/api/accounts", body("8s")).await.json();
    let guest = stack.anonymous().bearer(&token.token);
    let browser = stack.anonymous().sign_in(&token.token).await;
    let mut feed = Feed::connect(&browser).await.unwrap();
    feed.machines().await;
    let mut mqtt = stack.mqtt("guest", &token.token).await;
    let accounts = async || -> Vec<Account> { stack.http().get("/api/accounts").await.json() };
    let listed = async || accounts().await.into_iter().find(|account| account.name.as_str() == "guest").unwrap();
    assert!(listed().await.expires_at.is_some());
    mqtt.ended().await;
    for client in [&guest, &browser] {
        assert_eq!(client.get("/api/me").await.status, 401);
    }
    eventually("the feed ends", DEADLINE, async || match feed.next(DEADLINE).await {
        None => Ok(()),
        Some(message) => Err(format!("{message:?}")),
    })
    .await;
    assert!(Mqtt::connect(stack.said.mqtt, "guest", &token.token).await.is_err());
    assert_eq!(stack.anonymous().post("/api/login", json!({"token": token.token})).await.status, 401);
    let again = stack.http().post("/api/accounts/guest/rotate", json!({"expires": "1h"})).await;
    let token: NewToken = again.json();
    assert_eq!(stack.anonymous().bearer(&token.token).get("/api/me").await.status, 200);
    let before = listed().await.expires_at.unwrap();
    let token: NewToken = stack.http().send("POST", "/api/accounts/guest/rotate", None).await.json();
    assert_eq!(stack.anonymous().bearer(&token.token).get("/api/me").await.status, 200);
    assert!(listed().await.expires_at.unwrap() >= before, "it lasts as long again");
    let reply = stack.http().post("/api/accounts/admin/rotate", json!({"expires": "1h"})).await;
    assert_eq!(reply.problem().status, 409);
}

/// Publishes where it may not, as fast as the broker reads, until it is aborted.
async fn refused_without_end(address: SocketAddr, user: &str, token: &str) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&connect_packet(V311, "flood", Some((user, token)))).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    let topic = b"pistat/pi-1/status";
    let length = u8::try_from(topic.len()).unwrap();
    let packet = [&[0x30, length + 3, 0, length][..], topic, b"x"].concat();
    let flood = packet.repeat(1000);
    while stream.write_all(&flood).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_without_end_neither_fill_the_log_nor_stop_the_clock_and_are_all_counted() {
    let stack = Stack::builder().embedded().start().await;
    let http = stack.http();
    let (_, viewer) = stack.account("vera", "viewer").await;
    let _away = stack.fake_agent("pi-1").await.vanish().await;
    eventually("pi-1 is away", DEADLINE, async || {
        let machine = http.machine("pi-1").await?;
        if machine.status == MachineStatus::Offline { Ok(()) } else { Err(format!("{machine:?}")) }
    })
    .await;
    let address = stack.said.mqtt;
    let flood = tokio::spawn(async move { refused_without_end(address, "vera", &viewer).await });
    http.event(&["may not publish to pistat/pi-1/status"], DEADLINE).await;
    // The clock goes on: what waits for an absent machine expires in the midst of it.
    let body = json!({"task": "uptime", "target": "pi-1", "expires": "1s"});
    let accepted: AcceptedRuns = http.post("/api/runs", body).await.json();
    assert_eq!(http.ended(accepted.runs[0], DEADLINE).await.state, RunState::Expired);
    assert!(!flood.is_finished(), "it went on all the time");
    flood.abort();
    // Strangers, with a new name for each guess.
    let guess = |number| async move { Mqtt::connect(address, &format!("guess-{number}"), "wrong").await.is_err() };
    let guesses: Vec<_> = (0..STRANGERS).map(|number| tokio::spawn(guess(number))).collect();
    for guess in guesses {
        assert!(guess.await.unwrap());
    }
    http.event(&["refused from 127.0.0.1"], DEADLINE).await;
    let events = http.events().await;
    let told = |words: &str| events.iter().filter(|event| event.text.contains(words)).count();
    // The first of each, and one a minute at most.
    assert!((1..=4).contains(&told("may not publish")), "{}", told("may not publish"));
    assert!((1..=4).contains(&told("refused from 127.0.0.1")), "{}", told("refused from 127.0.0.1"));
    assert!(counter(&http, "pistat_broker_publishes_refused_total").await > 10_000);
    assert_eq!(counter(&http, "pistat_broker_credentials_refused_total").await, STRANGERS as u64);
}

async fn counter(http: &Http, name: &str) -> u64 {
    let page = http.get("/metrics").await.body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not on the page"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_told_when_it_has_as_much_at_work_as_it_may_have() {
    let stack = Stack::builder().embedded().start().await;
    let mut feed = stack.feed().await;
    feed.machines().await;
    // Each of them waits for a yes or no.
    for id in 0..COMMANDS {
        feed.send(&ClientMessage::Command { id, line: "task run careful".into() }).await;
    }
    let mut asked = 0;
    feed.until("every command asks", |message| {
        asked += u32::from(matches!(message, ServerMessage::Ask { .. }));
        (asked == COMMANDS).then_some(())
    })
    .await;
    feed.send(&ClientMessage::Command { id: COMMANDS, line: "pis".into() }).await;
    let mut sentence = String::new();
    feed.until("one more is refused", |message| match message {
        ServerMessage::Text { id: COMMANDS, text } => {
            sentence.push_str(text);
            None
        }
        ServerMessage::Done { id: COMMANDS, ok: false } => Some(()),
        _ => None,
    })
    .await;
    assert!(sentence.contains("16 commands of this browser are at work"), "{sentence}");
    // Completions count, too. Nobody needs to be told that there is none.
    let complete = |id| ClientMessage::Complete { id, line: "task ru".into(), cursor: 7 };
    feed.send(&complete(100)).await;
    feed.send(&ClientMessage::Confirm { id: 0, yes: false }).await;
    feed.until("the first command is done", |message| {
        assert!(!matches!(message, ServerMessage::Completions { .. }), "one more than may be at work");
        matches!(message, ServerMessage::Done { id: 0, .. }).then_some(())
    })
    .await;
    // There is room again.
    let mut id = 100;
    eventually("a completion is answered", DEADLINE, async || {
        id += 1;
        feed.send(&complete(id)).await;
        feed.send(&ClientMessage::Ping { id }).await;
        let answered = feed
            .until("an answer", |message| match message {
                ServerMessage::Completions { id: answered, .. } => Some(Some(*answered)),
                ServerMessage::Pong { .. } => Some(None),
                _ => None,
            })
            .await;
        assert_ne!(answered, Some(100), "what there was no room for is not answered later");
        if answered.is_some() { Ok(()) } else { Err("none") }
    })
    .await;
}
