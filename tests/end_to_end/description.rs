//! The API against its own description: schemathesis makes requests of every kind from it, good and bad, as an admin, as a viewer and as nobody.

use std::{path::PathBuf, process::Command, time::Duration};

use pistat_tests::{Agent, Stack, process::run};
use serde_json::json;

/// It makes some thousand requests.
const LIMIT: Duration = Duration::from_secs(1200);

/// schemathesis, from the path or from where `tests/schemathesis/run` installs it.
fn program() -> PathBuf {
    std::env::var_os("PISTAT_SCHEMATHESIS").map_or_else(|| "schemathesis".into(), PathBuf::from)
}

/// Makes requests of every kind with this token, or none, and holds every answer against the description. Left out are the paths that become a WebSocket, and
/// those that are named.
async fn hold(stack: &Stack, token: Option<&str>, left_out: &[&str]) {
    let description = stack.http().get("/api/openapi.json").await.body;
    std::fs::write(stack.folder().join("openapi.json"), description).unwrap();
    let mut command = Command::new(program());
    command.args(["run", "openapi.json", "--url", &stack.said.http, "--seed", "1", "--no-color"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "20"]).current_dir(stack.folder());
    command.args(["--max-examples", &std::env::var("PISTAT_SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| "20".into())]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance";
    command.args(["--checks", checks]);
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    for path in ["/api/ws", "/mqtt"].iter().chain(left_out) {
        command.args(["--exclude-path", path]);
    }
    let done = run("schemathesis", &mut command, LIMIT).await;
    assert_eq!(done.code, 0, "{}\n{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("passed"), "{}", done.stdout);
}

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
    // An account of its own: requests give `admin` a new token, and must not end the credential with which they are made.
    let (http, token) = stack.account("its-own-account", "admin").await;
    hold(&stack, Some(&token), &[]).await;
    assert_eq!(http.get("/api/accounts").await.status, 200, "it was an admin's to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_is_refused_as_described() {
    let (stack, _agent) = house().await;
    let (http, token) = stack.account("vera", "viewer").await;
    assert_eq!(http.get("/api/accounts").await.status, 403);
    // Who signs in is not asked who it was: that is part of the pass of the admin, and each wrong guess makes the next answer slower.
    hold(&stack, Some(&token), &["/api/login"]).await;
    assert_eq!(http.get("/api/me").await.status, 200, "it was a viewer's to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_as_described() {
    let (stack, _agent) = house().await;
    assert_eq!(stack.anonymous().get("/api/me").await.status, 401);
    hold(&stack, None, &["/api/login"]).await;
}
