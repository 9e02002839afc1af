//! The access matrix, HTTP and WebSocket: every role and nobody, on every route and every command
//! of the terminal, with a token and with a session's cookie.
//!
//! What there is comes from the programs' own tables, read as text; who may is written here. So a
//! route or a command that is new, gone or moved to another role fails until somebody has said here
//! whose it is. The matrix of MQTT topics is the broker's own (`broker/tests/front_door/cells.rs`).

use std::{collections::BTreeMap, path::Path};

use pistat_protocol::dashboard::{ClientMessage, ServerMessage};
use pistat_testkit::{DEADLINE, Feed, Http, Reply, Stack};
use serde_json::{Value, json};

/// Who asks, from the least.
const WHO: [&str; 4] = ["nobody", "viewer", "operator", "admin"];

/// The terminal's table.
const TERMINAL: &str = include_str!("../../controller/src/terminal/help.rs");

/// The messages that a browser may send.
const MESSAGES: &str = include_str!("../../protocol/src/dashboard.rs");

/// Every route, and the least of [`WHO`] that may use it.
const ROUTES: [(&str, &str, usize); 45] = [
    ("GET", "/healthz", 0),
    ("POST", "/api/login", 0),
    ("GET", "/mqtt", 0),
    ("GET", "/install.sh", 0),
    ("GET", "/download/{target}", 0),
    ("GET", "/metrics", 1),
    ("GET", "/api/openapi.json", 1),
    ("GET", "/api/me", 1),
    ("POST", "/api/logout", 1),
    ("GET", "/api/sessions", 1),
    ("DELETE", "/api/sessions", 1),
    ("DELETE", "/api/sessions/{id}", 1),
    ("GET", "/api/ws", 1),
    ("GET", "/api/pis", 1),
    ("GET", "/api/pis/{pi}", 1),
    ("GET", "/api/pis/{pi}/history", 1),
    ("GET", "/api/history", 1),
    ("GET", "/api/history/export", 1),
    ("GET", "/api/tasks", 1),
    ("GET", "/api/runs", 1),
    ("GET", "/api/runs/{run}", 1),
    ("GET", "/api/runs/{run}/output", 1),
    ("GET", "/api/groups/{group}", 1),
    ("GET", "/api/events", 1),
    ("PATCH", "/api/pis/{pi}", 2),
    ("POST", "/api/runs", 2),
    ("POST", "/api/runs/{run}/cancel", 2),
    ("DELETE", "/api/pis/{pi}", 3),
    ("POST", "/api/login-links", 3),
    ("GET", "/api/accounts", 3),
    ("POST", "/api/accounts", 3),
    ("DELETE", "/api/accounts/{name}", 3),
    ("POST", "/api/accounts/{name}/rotate", 3),
    ("GET", "/api/join-token", 3),
    ("POST", "/api/join-token/rotate", 3),
    ("GET", "/api/join-tokens", 3),
    ("POST", "/api/join-tokens", 3),
    ("DELETE", "/api/join-tokens/{name}", 3),
    ("GET", "/api/installation", 3),
    ("GET", "/api/enrolments", 3),
    ("POST", "/api/enrolments", 3),
    ("DELETE", "/api/enrolments/{pi}", 3),
    ("POST", "/api/enrolments/{pi}/reset", 3),
    // What no route names: the dashboard's assets, and addresses of the API that do not exist.
    ("GET", "/", 0),
    ("GET", "/api/nothing", 0),
];

/// What can give a router an address that the description does not know.
const UNDESCRIBED: [&str; 8] = [
    "route",
    "route_service",
    "nest",
    "nest_service",
    "merge",
    "fallback",
    "fallback_service",
    "method_not_allowed_fallback",
];

/// Every use of these in the controller, with its file.
const PLAIN: [(&str, &str); 5] = [
    // The dashboard's assets, which are `/` in the matrix.
    ("web.rs", "fallback"),
    // The described tables of the roles, and of nobody.
    ("web.rs", "merge"),
    ("web.rs", "merge"),
    // A refusal.
    ("web.rs", "method_not_allowed_fallback"),
    // The descriptions themselves, no routers.
    ("web/openapi.rs", "merge"),
];

/// Every command of the terminal with a line that uses it, and the least of [`WHO`] that may.
const COMMANDS: [(&str, &str, usize); 16] = [
    ("task list", "task list", 1),
    ("task run", "task run echo text=matrix --yes --detach", 2),
    ("task cancel", "task cancel 01938f00-0000-7000-8000-000000000000", 2),
    ("task assign", "task assign controller Uptime", 2),
    ("assign name", "assign name controller Matrix", 2),
    ("pis", "pis", 1),
    ("pi", "pi controller", 1),
    ("runs", "runs", 1),
    ("show", "show 01938f00-0000-7000-8000-000000000000", 1),
    ("output", "output 01938f00-0000-7000-8000-000000000000", 1),
    ("tag add", "tag add controller another", 2),
    ("tag remove", "tag remove controller matrix", 2),
    ("settings", "settings controller --interval 7", 2),
    ("theme", "theme amber", 1),
    ("clear", "clear", 1),
    ("help", "help", 1),
];

/// The browser's messages; all but commands only look.
const LOOKING: [&str; 9] =
    ["Session", "Ping", "Watch", "Visible", "Follow", "Unfollow", "Command", "Confirm", "Complete"];

/// The routes that the controller describes, which are those that it has: both come from one table.
fn described(document: &Value) -> BTreeMap<(String, String), usize> {
    let operations =
        document["paths"].as_object().expect("the description has paths").iter().flat_map(|(path, item)| {
            item.as_object()
                .expect("a path has methods")
                .iter()
                .map(move |(method, operation)| (method, path, operation))
        });
    let routes = operations.map(|(method, path, operation)| {
        let role = operation["description"].as_str().and_then(|text| text.strip_prefix("Needs the role "));
        let least = match role {
            None => 0,
            Some(role) => WHO.iter().position(|who| role.starts_with(who)).expect("a role that this test knows"),
        };
        assert_eq!(least == 0, operation["security"] == json!([]), "{method} {path}");
        ((method.to_uppercase(), path.clone()), least)
    });
    routes.collect()
}

/// A path where nothing is, for what stands in braces.
fn concrete(path: &str) -> String {
    let run = "01938f00-0000-7000-8000-000000000000";
    let values = [
        ("{pi}", "no-such-pi"),
        ("{name}", "no-such-account"),
        ("{run}", run),
        ("{group}", run),
        ("{target}", "no-such-target"),
        ("{id}", "no-such-session"),
    ];
    let path = values.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    assert!(!path.contains('{'), "{path} has a part that this test does not know");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_router_is_in_the_matrix_and_none_else() {
    let stack = Stack::start().await;
    let document: Value = stack.http().get("/api/openapi.json").await.json();
    let named = ROUTES.iter().filter(|(_, path, _)| !["/", "/api/nothing"].contains(path));
    let named: BTreeMap<_, _> =
        named.map(|(method, path, least)| ((method.to_string(), path.to_string()), *least)).collect();
    assert_eq!(described(&document), named);
}

/// The calls of one file that are [`UNDESCRIBED`], as methods or by their whole names.
fn plain_calls(text: &str) -> Vec<&'static str> {
    let names = text.match_indices('(').filter_map(|(at, _)| {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let before = text[..at].trim_end_matches(is_name);
        let name = UNDESCRIBED.iter().find(|name| **name == &text[before.len()..at])?;
        before.ends_with(['.', ':']).then_some(*name)
    });
    names.collect()
}

/// Those of all files under a folder but its tests, with the files' names below `root`.
fn plain_calls_below(root: &Path, folder: &Path) -> Vec<(String, &'static str)> {
    let mut calls = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            calls.extend(plain_calls_below(root, &path));
        } else if !path.ends_with("tests.rs") {
            let file = path.strip_prefix(root).unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            calls.extend(plain_calls(&text).into_iter().map(|call| (file.to_owned(), call)));
        }
    }
    calls.sort();
    calls
}

#[test]
fn no_route_is_added_past_the_description() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/src");
    let allowed: Vec<_> = PLAIN.iter().map(|(file, call)| ((*file).to_owned(), *call)).collect();
    assert_eq!(plain_calls_below(&source, &source), allowed);
}

/// A browser that has just signed in with this token.
async fn browser(stack: &Stack, token: &str) -> Http {
    stack.anonymous().sign_in(token).await
}

/// What is wrong with the answer that somebody of this rank got where the least is that one.
fn wrong(reply: &Reply, rank: usize, least: usize) -> Option<String> {
    let right = match (rank >= least, rank) {
        (true, _) => !matches!(reply.status, 401 | 403 | 405),
        (false, 0) => reply.status == 401,
        (false, _) => reply.status == 403,
    };
    (!right).then(|| format!("{}: {} {}", WHO[rank], reply.status, reply.body))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_and_nobody_gets_exactly_its_routes_by_token_and_by_cookie() {
    let stack = Stack::start().await;
    let tokens =
        [stack.account("vera", "viewer").await.1, stack.account("olga", "operator").await.1, stack.admin_token()];
    let mut all_wrong = Vec::new();
    for (method, path, least) in ROUTES {
        // No body is right for any route: what may be used says so, and changes nothing.
        let body = (method != "GET").then(|| json!({"matrix": true}));
        let mut clients = vec![(0, "nothing", stack.anonymous())];
        for (rank, token) in (1..).zip(&tokens) {
            clients.push((rank, "a token", stack.anonymous().bearer(token)));
            // Signed in for each route, since one of them signs out.
            clients.push((rank, "a cookie", browser(&stack, token).await));
        }
        for (rank, credential, client) in clients {
            let reply = client.send(method, &concrete(path), body.clone()).await;
            all_wrong
                .extend(wrong(&reply, rank, least).map(|why| format!("{method} {path} with {credential} by {why}")));
        }
    }
    assert_eq!(all_wrong, Vec::<String>::new());
}

/// What a session's cookie alone is enough for: who is signed in, and a feed, which then asks for
/// the session's key.
const BY_COOKIE: [&str; 2] = ["/api/me", "/api/ws"];

#[tokio::test(flavor = "multi_thread")]
async fn another_program_of_the_host_that_was_sent_the_cookie_neither_reads_nor_acts_by_any_route() {
    let stack = Stack::start().await;
    let reply = stack.anonymous().post("/api/login", json!({"token": stack.admin_token()})).await;
    let browser = stack.anonymous().session(&reply);
    // A request that is refused before its body is read may cost the connection.
    let cookie = stack.anonymous().cookie(reply.cookie.as_deref().unwrap());
    let thief = cookie.header("Connection", "close");
    let wrong_key = thief.header("pistat-session-key", "guess");
    let mut all_wrong = Vec::new();
    for (method, path, least) in ROUTES {
        for (what, client) in [("the cookie", &thief), ("a wrong key", &wrong_key)] {
            let body = (method != "GET").then(|| json!({"matrix": true}));
            let status = client.send(method, &concrete(path), body).await.status;
            let is_enough = least == 0 || (what == "the cookie" && BY_COOKIE.contains(&path));
            if (status == 401) == is_enough {
                all_wrong.push(format!("{method} {path} with {what}: {status}"));
            }
        }
    }
    assert_eq!(all_wrong, Vec::<String>::new());
    // The feed opens for the cookie, and says nothing until its first message is the session's key.
    for first in [ClientMessage::Session { key: "guess".into() }, ClientMessage::Ping { id: 1 }] {
        let mut feed = Feed::connect(&cookie).await.expect("a handshake has no place for the key");
        feed.send(&first).await;
        let told = feed.next(DEADLINE).await;
        assert!(matches!(told, Some(ServerMessage::Expired)), "{first:?}: {told:?}");
        assert!(feed.next(DEADLINE).await.is_none(), "then it is closed");
    }
    assert_eq!(browser.get("/api/pis").await.status, 200, "the session itself is as it was");
    Feed::connect(&browser).await.unwrap().machines().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_is_changed_or_opened_by_a_page_of_another_origin_and_the_refusal_says_which_was_expected() {
    let stack = Stack::builder().embedded().config("[http]\npublic_url = \"https://pis.example.org\"\n").start().await;
    let own = stack.anonymous().base().to_owned();
    let other_port = own.rsplit_once(':').unwrap().0.to_owned() + ":1";
    let foreign = [("Origin", "https://evil.example"), ("Origin", "null"), ("Origin", &*other_port)];
    let sites = [("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Site", "cross-site")];
    let clients = [stack.http(), stack.anonymous().sign_in(&stack.admin_token()).await, stack.anonymous()];
    let mut all_wrong = Vec::new();
    let paths: std::collections::BTreeSet<_> = ROUTES.iter().map(|(_, path, _)| *path).collect();
    for path in paths {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            for client in &clients {
                for (name, value) in foreign.iter().chain(&sites) {
                    // Whatever the content type, and with no body at all.
                    // What is refused unread may cost the connection.
                    let client = client.header("Connection", "close").header(name, value);
                    let reply = client.send(method, &concrete(path), None).await;
                    let says =
                        ["pis.example.org", "http.public_url", &own[7..]].iter().all(|word| reply.body.contains(word));
                    if reply.status != 403 || !says {
                        all_wrong
                            .push(format!("{method} {path} with {name}: {value}: {} {}", reply.status, reply.body));
                    }
                }
            }
        }
    }
    assert_eq!(all_wrong, Vec::<String>::new());
    // Reads stay possible with a credential, and pages of the own origin may act.
    assert_eq!(stack.http().header("Origin", "https://evil.example").get("/api/pis").await.status, 200);
    for (host, origin) in
        [(None, &*own), (None, "https://pis.example.org"), (Some("PIS.example.org:443"), "https://pis.example.org")]
    {
        let mut page = clients[1].header("Origin", origin).header("Sec-Fetch-Site", "same-origin");
        if let Some(host) = host {
            page = page.header("Host", host);
        }
        let reply = page.ask_run("uptime", "controller", json!({})).await;
        assert_eq!(reply.status, 202, "{host:?} {origin}: {reply:?}");
    }
}

/// The commands that the terminal has, with their roles.
fn terminal() -> BTreeMap<String, usize> {
    let table = TERMINAL.split_once("COMMANDS: [Entry;").expect("the terminal has a table").1;
    let table = table.split_once("\n];").expect("the table ends").0;
    let (count, entries) = table.split_once(']').expect("the table has a length");
    let entries: BTreeMap<_, _> = entries.split("entry(").skip(1).map(command).collect();
    assert_eq!(count.trim().parse(), Ok(entries.len()), "every command was understood");
    entries
}

fn command(entry: &str) -> (String, usize) {
    let name = entry.split('"').nth(1).expect("a command has a name").to_owned();
    let role = entry.split("Role::").nth(1).expect("a command has a role");
    let role = ["Nobody", "Viewer", "Operator", "Admin"].iter().position(|known| role.starts_with(known));
    (name, role.expect("a role that this test knows"))
}

#[test]
fn every_command_and_message_is_in_the_matrix_and_none_else() {
    let named: BTreeMap<_, _> = COMMANDS.iter().map(|(name, _, least)| (name.to_string(), *least)).collect();
    assert_eq!(terminal(), named);
    let messages = MESSAGES.split_once("pub enum ClientMessage {").expect("browsers send messages").1;
    let messages = messages.split_once("\n}").expect("the list ends").0.lines();
    // Whatever a variant carries, in braces, in parentheses or nothing.
    let variant = |line: &'static str| {
        let line = line.strip_prefix("    ").filter(|line| line.starts_with(char::is_uppercase))?;
        line.split([' ', '(', ',']).next()
    };
    let variants: Vec<_> = messages.filter_map(variant).collect();
    assert_eq!(variants, LOOKING);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_gets_exactly_its_commands_over_the_feed() {
    let stack = Stack::start().await;
    assert_eq!(Feed::connect(&stack.anonymous()).await.err(), Some(401), "nobody has no feed at all");
    // There is a tag to take away: what does not exist is told to everybody who may look.
    let tagged = stack.http().send("PATCH", "/api/pis/controller", Some(json!({"tags": ["matrix"]}))).await;
    assert_eq!(tagged.status, 200, "{tagged:?}");
    let before = stack.http().get("/api/pis").await.json::<Vec<Value>>();
    for (rank, name) in [(1, "viewer"), (2, "operator"), (3, "admin")] {
        let http = stack.account(&format!("{name}-1"), name).await.0;
        let mut feed = Feed::connect(&http).await.expect("every role has a feed");
        for (command, line, least) in COMMANDS {
            let answer = feed.command(line).await;
            let refused = answer.text.contains("needs the role") || answer.text.contains("operator");
            if rank < least {
                assert!(!answer.ok && refused, "{command} by {name}: {answer:?}");
            } else {
                assert!(
                    command == "help" || !answer.text.contains("needs the role"),
                    "{command} by {name}: {answer:?}"
                );
            }
        }
        if rank == 1 {
            let given = |machines: &[Value]| -> Vec<Value> {
                machines
                    .iter()
                    .map(|machine| json!([machine["label"], machine["tags"], machine["assignment"]]))
                    .collect()
            };
            let after = stack.http().get("/api/pis").await.json::<Vec<Value>>();
            assert_eq!(given(&before), given(&after), "a viewer changes nothing");
            assert_eq!(stack.http().get("/api/runs").await.json::<Vec<Value>>(), Vec::<Value>::new());
        }
    }
}
