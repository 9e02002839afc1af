//! The API against its own description: schemathesis makes requests of every kind from it, good and
//! bad, as an admin, as a viewer and as nobody.

use std::{path::PathBuf, process::Command, time::Duration};

use pistat_testkit::{Agent, DEADLINE, Stack, process::run};
use serde_json::json;

/// It makes some thousand requests.
const LIMIT: Duration = Duration::from_secs(1200);

/// schemathesis, from the path or from where `tests/schemathesis/run` installs it.
fn program() -> PathBuf {
    std::env::var_os("PISTAT_SCHEMATHESIS").map_or_else(|| "schemathesis".into(), PathBuf::from)
}

/// Makes requests of every kind, as these words say, and holds every answer against the
/// description.
async fn hold(stack: &Stack, words: &[&str]) {
    let description = stack.http().get("/api/openapi.json").await.body;
    std::fs::write(stack.folder().join("openapi.json"), description).unwrap();
    let mut command = Command::new(program());
    command.args(["run", "openapi.json", "--url", &stack.said.http, "--seed", "1", "--no-color"]);
    // An output that is followed never ends.
    command.args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "20"]).current_dir(stack.folder());
    command.args(["--max-examples", &std::env::var("PISTAT_SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| "20".into())]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance";
    let done = run("schemathesis", command.args(["--checks", checks]).args(words), LIMIT).await;
    assert_eq!(done.code, 0, "{}\n{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("passed"), "{}", done.stdout);
}

fn header(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// What becomes a WebSocket, which schemathesis does not speak.
const NO_SOCKETS: [&str; 4] = ["--exclude-path", "/api/ws", "--exclude-path", "/mqtt"];

/// A machine and a run, so that there is something to find.
async fn house() -> (Stack, Agent) {
    let stack = Stack::start().await;
    let http = stack.http();
    let agent = stack.agent("pi-1").online(&http).await;
    http.post("/api/runs", json!({"task": "uptime", "target": "pi-1"})).await;
    (stack, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_the_description_allows_or_forbids_is_answered_otherwise_than_described() {
    let (stack, _agent) = house().await;
    // Names that were answered are asked for again, so this would give the admin a new token: it
    // has a pass of its own below.
    let words = ["--exclude-operation-id", "rotateAccount", "--header", &header(&stack.admin_token())];
    hold(&stack, &[&NO_SOCKETS[..], &words].concat()).await;
    assert_eq!(stack.http().get("/api/accounts").await.status, 200, "it was the admin's to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_given_new_tokens_as_described() {
    let (stack, _agent) = house().await;
    // The names that are known to it are those of the accounts that it makes, and not its own.
    let words = ["--include-operation-id", "addAccount", "--include-operation-id", "rotateAccount"];
    hold(&stack, &[&words[..], &["--header", &header(&stack.admin_token())]].concat()).await;
    stack.http().event(&["gave account", "a new token"], DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_is_refused_as_described() {
    let (stack, _agent) = house().await;
    let (http, token) = stack.account("vera", "viewer").await;
    assert_eq!(http.get("/api/accounts").await.status, 403);
    hold(&stack, &[&NO_SOCKETS[..], &["--header", &header(&token)]].concat()).await;
    assert_eq!(http.get("/api/me").await.status, 200, "it was a viewer's to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_as_described() {
    let (stack, _agent) = house().await;
    assert_eq!(stack.anonymous().get("/api/me").await.status, 401);
    // Wrong credentials are answered ever more slowly; without any, the answer comes at once.
    hold(&stack, &[&NO_SOCKETS[..], &["--generation-with-security-parameters", "false"]].concat()).await;
}
