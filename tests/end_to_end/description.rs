//! The API against its own description: schemathesis makes requests of every kind from it, good and bad.

use std::{path::PathBuf, process::Command, time::Duration};

use pistat_tests::{Stack, process::run};
use serde_json::json;

/// It makes some thousand requests.
const LIMIT: Duration = Duration::from_secs(1200);

/// schemathesis, from the path or from where `tests/schemathesis/run` installs it.
fn program() -> PathBuf {
    std::env::var_os("PISTAT_SCHEMATHESIS").map_or_else(|| "schemathesis".into(), PathBuf::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_the_description_allows_or_forbids_is_answered_otherwise_than_described() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agent = stack.agent("pi-1").online(&http).await;
    http.post("/api/runs", json!({"task": "uptime", "target": "pi-1"})).await;
    let examples = std::env::var("PISTAT_SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| "20".into());
    let mut command = Command::new(program());
    command.args(["run", &format!("{}/api/openapi.json", http.base())]).current_dir(stack.folder());
    command.args(["--header", &format!("Authorization: Bearer {}", stack.admin_token())]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance";
    command.args([
        "--checks",
        checks,
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        &examples,
        "--seed",
        "1",
    ]);
    // A request that is wrong must not count as a guess of a password, and an output that is followed never ends.
    command.args(["--exclude-path", "/api/ws", "--exclude-path", "/mqtt", "--exclude-path", "/api/logout"]);
    // What it makes must not end its own credential.
    command.args(["--exclude-path", "/api/accounts/{name}/rotate", "--request-timeout", "20", "--no-color"]);
    let done = run("schemathesis", &mut command, LIMIT).await;
    assert_eq!(done.code, 0, "{}\n{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("passed"), "{}", done.stdout);
}
