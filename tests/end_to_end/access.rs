//! Who may do what: roles on HTTP and MQTT, sign-in, and the end of sessions.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use pistat_protocol::{
    api::LoginLink,
    dashboard::{ClientMessage, MachineStatus, Me, Run},
    task::RunState,
};
use pistat_testkit::{
    DEADLINE, Feed, Http, Mqtt, Port, Process, Stack, eventually, http::rest, mqtt::will, process::run,
    programs::program,
};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, PublishProperties, SubscribeReasonCode};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

/// Who asks, from the least.
const WHO: [&str; 4] = ["nobody", "viewer", "operator", "admin"];

/// A route, and the least of [`WHO`] that may use it.
struct Route {
    method: &'static str,
    path: &'static str,
    body: Option<Value>,
    least: usize,
}

fn route(method: &'static str, path: &'static str, body: Option<Value>, least: usize) -> Route {
    Route { method, path, body, least }
}

/// Every route of the API. What changes something is aimed at what does not exist, so that asking
/// twice is asking the same.
fn routes() -> Vec<Route> {
    let run = "/api/runs/01938f00-0000-7000-8000-000000000000";
    let cancel = "/api/runs/01938f00-0000-7000-8000-000000000000/cancel";
    let output = "/api/runs/01938f00-0000-7000-8000-000000000000/output";
    let group = "/api/groups/01938f00-0000-7000-8000-000000000000";
    vec![
        route("GET", "/healthz", None, 0),
        route("GET", "/", None, 0),
        route("GET", "/install.sh", None, 0),
        route("GET", "/api/me", None, 1),
        route("GET", "/metrics", None, 1),
        route("GET", "/api/openapi.json", None, 1),
        route("GET", "/api/pis", None, 1),
        route("GET", "/api/pis/controller", None, 1),
        route("GET", "/api/pis/controller/history?seconds=60", None, 1),
        route("GET", "/api/tasks", None, 1),
        route("GET", "/api/runs", None, 1),
        route("GET", run, None, 1),
        route("GET", output, None, 1),
        route("GET", group, None, 1),
        route("GET", "/api/events", None, 1),
        route("PATCH", "/api/pis/no-such-pi", Some(json!({"label": "x"})), 2),
        route("POST", "/api/runs", Some(json!({"task": "no-such-task", "target": "controller"})), 2),
        route("POST", cancel, None, 2),
        route("DELETE", "/api/pis/no-such-pi", None, 3),
        route("GET", "/api/accounts", None, 3),
        route("POST", "/api/accounts", Some(json!({"name": "admin"})), 3),
        route("DELETE", "/api/accounts/no-such-account", None, 3),
        route("POST", "/api/accounts/no-such-account/rotate", None, 3),
        route("GET", "/api/join-token", None, 3),
        route("GET", "/api/installation", None, 3),
        route("GET", "/api/enrolments", None, 3),
        route("POST", "/api/enrolments", Some(json!({"pi": "controller"})), 3),
        route("DELETE", "/api/enrolments/no-such-pi", None, 3),
        route("POST", "/api/enrolments/no-such-pi/reset", None, 3),
        route("POST", "/api/login-links", None, 3),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_open_to_exactly_the_roles_that_may_use_it() {
    let stack = Stack::start().await;
    let clients: [Http; 4] = [
        stack.anonymous(),
        stack.account("vera", "viewer").await.0,
        stack.account("olga", "operator").await.0,
        stack.http(),
    ];
    let mut wrong = Vec::new();
    for route in routes() {
        for (rank, client) in clients.iter().enumerate() {
            let reply = client.send(route.method, route.path, route.body.clone()).await;
            let refused = matches!(reply.status, 401 | 403);
            let right = match (rank >= route.least, rank) {
                (true, _) => !refused && reply.status != 405,
                (false, 0) => reply.status == 401,
                (false, _) => reply.status == 403,
            };
            // What is asked for without naming anything that does not exist is there.
            let there = route.method != "GET" || route.path.contains("01938f00") || reply.status == 200 || refused;
            if !(right && there) {
                wrong
                    .push(format!("{} {} by {}: {} {}", route.method, route.path, WHO[rank], reply.status, reply.body));
            }
            if refused {
                reply.problem();
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_not_there_and_what_is_malformed_is_told() {
    let stack = Stack::start().await;
    let http = stack.http();
    for path in ["/api/nothing", "/api/pis/no-such-pi", "/api/runs/not-a-run", "/api/runs/..%2f..%2fetc%2fpasswd"] {
        let reply = http.get(path).await;
        assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
        reply.problem();
    }
    for body in [json!({"task": "uptime"}), json!({"task": "uptime", "target": "controller", "shell": true}), json!([])]
    {
        let problem = http.post("/api/runs", body.clone()).await.problem();
        assert!(matches!(problem.status, 400 | 422), "{body}: {problem:?}");
    }
    let large = json!({"task": "uptime", "target": "controller", "request_id": "x".repeat(80_000)});
    assert_eq!(http.post("/api/runs", large).await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_code_works_once_and_its_session_ends_with_the_logout() {
    let stack = Stack::start().await;
    let link: LoginLink = serde_json::from_str(&stack.cli(&["login", "--json"]).await.stdout).unwrap();
    let code = link.code;
    let anonymous = stack.anonymous();
    let reply = anonymous.post("/api/login", json!({"code": code})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let cookie = reply.cookie.clone().expect("a session is a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert_eq!(reply.json::<Me>().account.as_str(), "admin");
    let again = anonymous.post("/api/login", json!({"code": code})).await;
    assert_eq!(again.problem().status, 401, "a code works once");
    let browser = anonymous.session(&reply);
    assert_eq!(browser.get("/api/me").await.status, 200);
    let mut feed = Feed::connect(&browser).await.expect("the session opens the feed");
    feed.machines().await;
    assert!(browser.send("POST", "/api/logout", None).await.status < 300);
    assert_eq!(browser.get("/api/me").await.status, 401, "the session ends on the server");
    eventually("the feed of the session ends", DEADLINE, async || match feed.next(DEADLINE).await {
        None => Ok(()),
        Some(message) => Err(format!("{message:?}")),
    })
    .await;
    // Links from the API and the command line work too, and wrong codes do not.
    let link: LoginLink = stack.http().send("POST", "/api/login-links", None).await.json();
    assert_eq!(anonymous.post("/api/login", json!({"code": link.code})).await.status, 200);
    let said = stack.cli(&["login"]).await;
    assert!(said.stdout.starts_with(&stack.said.http), "it listens there alone: {said:?}");
    let code = said.stdout.trim().split_once("#login=").expect("a link has a code").1.to_owned();
    assert_eq!(anonymous.post("/api/login", json!({"code": code})).await.status, 200);
    assert_eq!(anonymous.post("/api/login", json!({"code": "guess"})).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_anywhere_but_to_a_terminal_lets_nobody_in() {
    // A pipe, as of systemd, of a container or into a file.
    let mut stack = Stack::start().await;
    let (join, admin) = (stack.join_token(), stack.admin_token());
    let mut said = stack.process().stdout();
    said.extend(stack.process().stderr());
    assert!(said.iter().any(|line| line.contains("`pistat login` prints a link to sign in")), "{said:?}");
    assert!(said.iter().any(|line| line.contains("`pistat agent add pi-1`")), "{said:?}");
    assert!(said.iter().any(|line| line.contains("state/join.token")), "{said:?}");
    let secrets = [&*join, &admin, "login="];
    assert!(!said.iter().any(|line| secrets.iter().any(|secret| line.contains(secret))), "{said:?}");
}

/// What a program writes to a terminal until a line contains this text.
pub(crate) fn on_a_terminal(command: &mut Command, end: &str) -> Vec<String> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let other_end = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(other_end).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = Vec::new();
    // Nothing but the program holds the other end now: when it ends, so do the lines.
    command.stdout(Stdio::null());
    for line in BufReader::new(File::from(terminal)).lines().map_while(Result::ok) {
        lines.push(line);
        if lines.last().is_some_and(|line| line.contains(end)) {
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    lines
}

#[test]
fn on_a_terminal_the_start_prints_a_link_and_how_a_machine_joins() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("pistat"));
    command.args(["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]).env_clear().current_dir(folder.path());
    let lines = on_a_terminal(&mut command, "--pi-id pi-1");
    let token = std::fs::read_to_string(folder.path().join("state/join.token")).unwrap();
    let all = lines.join("\n");
    assert!(all.contains("/#login=") && all.contains(token.trim()), "{all}");
    assert!(!all.contains("--token"), "other users can read arguments: {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_commands_that_were_asked_for_on_this_machine_name_the_address_that_others_know() {
    let folder = tempfile::tempdir().unwrap();
    let (state, public_url) = (folder.path().join("state"), "https://pis.example.org");
    let port = Port::claim();
    let address = port.address().to_string();
    let mut command = Command::new(program("pistat"));
    command.args(["serve", "--http", &address, "--mqtt", "127.0.0.1:0", "--state"]).arg(&state);
    command.env_clear().env("PISTAT_HTTP__PUBLIC_URL", public_url).current_dir(folder.path());
    let mut controller = Process::start("pistat", &mut command);
    controller.line("how a Pi is added", DEADLINE, |line| line.contains("add a Pi").then_some(())).await;
    let cli = async |words: &[&str]| {
        let mut command = Command::new(program("pistat"));
        command.args(words).args(["--controller-url", &format!("http://{address}"), "--token-file"]);
        let said = run("pistat", command.arg(state.join("admin.token")).env_clear(), DEADLINE).await;
        assert_eq!(said.code, 0, "{said:?}");
        said
    };
    let link = cli(&["login"]).await.stdout;
    assert!(link.starts_with(&format!("{public_url}/#login=")), "{link}");
    let added = cli(&["agent", "add", "pi-7"]).await.stderr;
    assert!(added.contains(&format!("pistat-agent --controller-url {public_url} --pi-id pi-7")), "{added}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_checks_who_comes_from_where() {
    let stack = Stack::start().await;
    let browser = stack.anonymous().sign_in(&stack.admin_token()).await;
    assert_eq!(Feed::connect_from(&browser, Some("http://evil.example")).await.err(), Some(403));
    assert_eq!(Feed::connect(&stack.anonymous()).await.err(), Some(401));
    assert!(Feed::connect(&browser).await.is_ok());
    assert!(Feed::connect_from(&stack.http(), None).await.is_ok(), "a program has no origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_nobody_reads_ends_with_its_account() {
    let stack = Stack::start().await;
    let http = stack.http();
    let (olga, _) = stack.account("olga", "viewer").await;
    // More than all buffers on the way take.
    let run = http.start_run("count", "controller", json!({"last": 1_000_000})).await;
    rest(http.follow(run)).await;
    let mut feed = Feed::connect_narrow(&olga).await.unwrap();
    feed.send(&ClientMessage::Follow { run, from: 0 }).await;
    let mut unread = Vec::new();
    eventually("nothing more gets through to it", DEADLINE, async || {
        unread.push(feed.unread_bytes());
        let last = unread.iter().rev().take(20);
        let is_stuck = unread.len() >= 20 && last.clone().all(|&bytes| bytes > 0 && Some(&bytes) == unread.last());
        if is_stuck { Ok(()) } else { Err(format!("{unread:?}")) }
    })
    .await;
    let dashboards = async || {
        let numbers = http.get("/metrics").await.body;
        numbers.lines().find_map(|line| line.strip_prefix("pistat_dashboards ").map(str::to_owned))
    };
    assert_eq!(dashboards().await.as_deref(), Some("1"));
    assert!(http.send("DELETE", "/api/accounts/olga", None).await.status < 300);
    eventually("it has ended", DEADLINE, async || match dashboards().await {
        Some(number) if number == "0" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_see_and_change_nothing_over_the_feed_either() {
    let stack = Stack::start().await;
    let (http, _) = stack.account("vera", "viewer").await;
    let mut feed = Feed::connect(&http).await.unwrap();
    for line in ["task run uptime", "assign name controller X", "task assign controller uptime", "tag add controller x"]
    {
        let answer = feed.command(line).await;
        assert!(!answer.ok && answer.text.contains("operator"), "{line}: {answer:?}");
    }
    assert!(feed.command("pis").await.ok && feed.command("task list").await.ok && feed.command("runs").await.ok);
    assert_eq!(stack.http().get("/api/runs").await.json::<Vec<Value>>(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_the_feed_does_not_know_harm_nobody() {
    let stack = Stack::start().await;
    let mut feed = stack.feed().await;
    for text in ["", "{", "[]", r#"{"type":"shell","line":"id"}"#, r#"{"type":"command"}"#, &"x".repeat(100_000)] {
        let mut hostile = stack.feed().await;
        hostile.send_text(text).await;
        drop(hostile);
    }
    assert!(feed.command("task list").await.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_does_not_deliver_orders() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.fake_agent("pi-1").await;
    let mut spy = stack.mqtt("admin", &stack.admin_token()).await;
    spy.granted(&["pistat/#", "#"]).await;
    let run = http.start_run("uptime", "pi-1", json!({})).await;
    agent.order().await;
    agent.report(run, RunState::Succeeded, Some(0), Some(0)).await;
    let mut topics = Vec::new();
    spy.message("the run's end", |topic, message| {
        topics.push(topic.to_owned());
        let end = topic.ends_with("/status") && message.payload.windows(9).any(|word| word == b"succeeded");
        end.then_some(())
    })
    .await;
    assert!(topics.iter().all(|topic| !topic.ends_with("/execute") && !topic.starts_with('$')), "{topics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_of_another_account_is_another_run() {
    let stack = Stack::start().await;
    let (olga, _) = stack.account("olga", "operator").await;
    let body = json!({"task": "uptime", "target": "controller", "request_id": "same"});
    let runs = |http: Http| {
        let body = body.clone();
        async move { http.post("/api/runs", body).await.json::<pistat_protocol::api::AcceptedRuns>().runs }
    };
    let (first, again, other) = (runs(stack.http()).await, runs(stack.http()).await, runs(olga).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_credentials_are_slowed_down_and_good_ones_are_not_locked_out() {
    let stack = Stack::start().await;
    let mut guesses = Vec::new();
    for number in 0..8 {
        let guesser = stack.anonymous().bearer(&format!("guess-{number}"));
        guesses.push(tokio::spawn(async move { guesser.get("/api/me").await.status }));
    }
    let good = tokio::time::timeout(Duration::from_secs(5), stack.http().get("/api/me")).await;
    assert_eq!(good.expect("the good are not slowed down").status, 200);
    for guess in guesses {
        assert!(matches!(guess.await.unwrap(), 401 | 429));
    }
}

/// Accounts are known to the embedded broker only: who may connect to another, and what for, is
/// that broker's to say (`external.rs` has its rules).
mod embedded_only {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn removing_rotating_or_demoting_an_account_ends_its_sessions_at_once() {
        let stack = Stack::start().await;
        for verb in ["remove", "rotate", "demote"] {
            let run = stack.http().start_run("drip", "controller", json!({"lines": 10_000})).await;
            let (http, token) = stack.account("olga", "operator").await;
            let browser = stack.anonymous().sign_in(&token).await;
            let (mut by_token, mut by_cookie) =
                (Feed::connect(&http).await.unwrap(), Feed::connect(&browser).await.unwrap());
            let mut mqtt = stack.mqtt("olga", &token).await;
            let mut followers = Vec::new();
            for client in [&http, &browser] {
                let mut pieces = client.follow(run);
                assert!(pieces.recv().await.is_some(), "the output is followed");
                followers.push(pieces);
            }
            let reply = match verb {
                "remove" => stack.http().send("DELETE", "/api/accounts/olga", None).await,
                "rotate" => stack.http().send("POST", "/api/accounts/olga/rotate", None).await,
                _ => stack.http().post("/api/accounts/olga/rotate", json!({"role": "viewer"})).await,
            };
            assert!(reply.status < 300, "{verb}: {reply:?}");
            for feed in [&mut by_token, &mut by_cookie] {
                eventually("the feed ends", DEADLINE, async || match feed.next(DEADLINE).await {
                    None => Ok(()),
                    Some(message) => Err(format!("{message:?}")),
                })
                .await;
            }
            mqtt.ended().await;
            for follower in followers {
                let ended = tokio::time::timeout(DEADLINE, rest(follower)).await;
                ended.unwrap_or_else(|_| panic!("{verb}: the follower ends"));
            }
            assert!(!stack.http().run(run).await.unwrap().state.is_final(), "it was not the run that ended");
            for client in [&http, &browser] {
                assert_eq!(client.get("/api/me").await.status, 401, "{verb}");
            }
            assert!(Mqtt::connect(stack.said.mqtt, "olga", &token).await.is_err(), "{verb}");
            if verb != "remove" {
                let new = reply.json::<Value>()["token"].as_str().unwrap().to_owned();
                assert_eq!(stack.anonymous().bearer(&new).get("/api/me").await.status, 200);
            }
            stack.http().send("DELETE", "/api/accounts/olga", None).await;
            stack.http().send("POST", &format!("/api/runs/{run}/cancel"), None).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_run_that_waits_for_its_machine_is_rejected_once_its_account_could_not_ask_for_it() {
        let stack = Stack::start().await;
        let admin = stack.http();
        for (verb, reason) in [
            ("remove", "the account olga, which asked for it, was removed"),
            ("replace", "another has its name now"),
            ("demote", "has the role viewer now"),
            ("rotate", "was given a new token since"),
        ] {
            let pi = format!("pi-{verb}");
            let identity = stack.fake_agent(&pi).await.vanish().await;
            let (olga, token) = stack.account("olga", "operator").await;
            eventually("the machine is gone", DEADLINE, async || match admin.machine(&pi).await?.status {
                MachineStatus::Offline => Ok(()),
                status => Err(format!("{status:?}")),
            })
            .await;
            // By both ways that an account has.
            let by_http = olga.start_run("uptime", &pi, json!({})).await;
            let mut mqtt = stack.mqtt("olga", &token).await;
            mqtt.publish(&format!("pistat/{pi}/task/request"), "uptime", false).await;
            let runs = eventually("both requests are accepted", DEADLINE, async || {
                let runs: Vec<Run> = admin.get(&format!("/api/runs?pi={pi}")).await.json();
                if runs.len() == 2 { Ok(runs) } else { Err(format!("{runs:?}")) }
            })
            .await;
            assert!(runs.iter().any(|run| run.id == by_http) && runs.iter().all(|run| run.requested_by == "olga"));
            let rotate = |body| admin.post("/api/accounts/olga/rotate", body);
            match verb {
                "demote" => assert_eq!(rotate(json!({"role": "viewer"})).await.status, 200),
                "rotate" => assert_eq!(rotate(json!({})).await.status, 200),
                _ => assert!(admin.send("DELETE", "/api/accounts/olga", None).await.status < 300),
            }
            if verb == "replace" {
                stack.account("olga", "admin").await;
            }
            let serving = tokio::spawn(identity.connect().await.serve());
            for run in runs {
                let run = admin.ended(run.id, DEADLINE).await;
                let given = run.reason.clone().unwrap_or_default();
                assert!(run.state == RunState::Rejected && given.contains(reason), "{verb}: {run:?}");
            }
            serving.abort();
            admin.send("DELETE", "/api/accounts/olga", None).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn mqtt_lets_each_account_publish_and_receive_what_its_role_may() {
        let stack = Stack::start().await;
        let _agent = stack.fake_agent("pi-1").await;
        let (_, viewer) = stack.account("vera", "viewer").await;
        let (_, operator) = stack.account("olga", "operator").await;
        let admin = stack.admin_token();
        let run = "01938f00-0000-7000-8000-000000000000";
        let execute = format!("pistat/pi-1/task/{run}/execute");
        let report = format!("pistat/pi-1/task/{run}/report");
        let forbidden = [
            "pistat/pi-1/status",
            "pistat/pi-1/info",
            "pistat/pi-1/stats",
            "pistat/pi-1/meta",
            "pistat/pi-1/settings",
            execute.as_str(),
            report.as_str(),
            "pistat/controller/status",
            "pistat/controller/key",
            "$pistat/enroll/pi-2/request",
            "elsewhere/entirely",
        ];
        for (name, token, may_ask) in [("vera", &viewer, false), ("olga", &operator, true), ("admin", &admin, true)] {
            let mut client = stack.mqtt(name, token).await;
            for topic in forbidden {
                let code = client.publish(topic, "x", false).await;
                assert_eq!(code, PubAckReason::NotAuthorized, "{name} to {topic}");
            }
            let code = client.publish("pistat/pi-1/task/request", "no-such-task", false).await;
            assert_eq!(code == PubAckReason::Success, may_ask, "{name} asks: {code:?}");
            let granted = |codes: Vec<SubscribeReasonCode>| matches!(codes[0], SubscribeReasonCode::Success(_));
            assert!(granted(client.subscribe(&["pistat/#"]).await), "{name} sees the fleet");
            assert!(granted(client.subscribe(&["$SYS/#"]).await), "{name} sees the broker's numbers");
            for filter in [
                execute.as_str(),
                "pistat/+/task/+/execute",
                "$share/g/pistat/+/task/+/cancel",
                "$pistat/enroll/#",
                "elsewhere/#",
            ] {
                assert!(!granted(client.subscribe(&[filter]).await), "{name} may not receive {filter}");
            }
        }
        for (user, password) in [("vera", "wrong"), ("nobody", &viewer), ("admin", ""), ("pi-1", &admin)] {
            let refused =
                Mqtt::connect(stack.said.mqtt, user, password).await.err().expect("bad credentials are refused");
            assert!(refused.contains("BadUserNamePassword") || refused.contains("NotAuthorized"), "{user}: {refused}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_will_that_is_not_allowed_refuses_the_connection() {
        let stack = Stack::start().await;
        let (_, operator) = stack.account("olga", "operator").await;
        for (topic, allowed) in
            [("homeassistant/status", true), ("pistat/pi-1/status", false), ("pistat/controller/status", false)]
        {
            let connected = Mqtt::connect_with(stack.said.mqtt, "olga", &operator, |options| {
                options.set_last_will(will(topic, "offline"));
            });
            assert_eq!(connected.await.is_ok(), allowed, "{topic}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_stamp_of_who_asked_cannot_be_forged() {
        let stack = Stack::start().await;
        let http = stack.http();
        let (_, operator) = stack.account("olga", "operator").await;
        let mut client = stack.mqtt("olga", &operator).await;
        let properties = PublishProperties {
            user_properties: vec![("pistat-account".into(), "admin".into())],
            ..PublishProperties::default()
        };
        let request = json!({"task": "echo", "args": {"text": "mine"}, "request_id": "forged"}).to_string();
        let code = client.publish_with("pistat/controller/task/request", request, false, properties.clone()).await;
        assert_eq!(code, PubAckReason::Success);
        let run = eventually("the run is there", DEADLINE, async || {
            let runs: Vec<pistat_protocol::dashboard::Run> = http.get("/api/runs").await.json();
            runs.first().map(|run| run.id).ok_or("none")
        })
        .await;
        assert_eq!(http.ended(run, DEADLINE).await.requested_by, "olga");
        client.publish_with("pistat/controller/task/request", "admins-only", false, properties).await;
        http.event(&["admins-only"], DEADLINE).await;
        let runs: Vec<pistat_protocol::dashboard::Run> = http.get("/api/runs?task=admins-only").await.json();
        assert!(runs.iter().all(|run| run.state == RunState::Rejected), "{runs:?}");
    }
}
