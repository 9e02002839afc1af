//! Golden wire messages, shared with the dashboard's tests: what is in `tests/fixtures/wire` is
//! decoded and written again without a difference.

use std::{collections::BTreeSet, fs, path::Path};

use pistat_protocol::{
    dashboard::{ClientMessage, Event, ServerMessage},
    history::Recall,
    order::{EnrollRequest, Order, SignedOrder},
    stats::Sample,
    status::{Info, Meta, Settings, Watch},
    task::{Ack, OutputChunk, Report, RunRequest, RunStatus, TaskResult, TaskView},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/wire")
}

fn round_trip<T: DeserializeOwned + Serialize>(name: &str) {
    let text = fs::read_to_string(folder().join(format!("{name}.json"))).expect(name);
    let decoded: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let again = serde_json::to_value(&decoded).expect(name);
    assert_eq!(again, serde_json::from_str::<Value>(&text).expect(name), "{name}");
}

/// A file's name and the round trip of its type.
type Check = (&'static str, fn(&str));

#[test]
fn every_golden_message_is_decoded_and_written_again_without_a_difference() {
    let table: &[Check] = &[
        ("sample", round_trip::<Sample>),
        ("sample-least", round_trip::<Sample>),
        ("info", round_trip::<Info>),
        ("meta", round_trip::<Meta>),
        ("settings", round_trip::<Settings>),
        ("watch", round_trip::<Watch>),
        ("recall", round_trip::<Recall>),
        ("request", round_trip::<RunRequest>),
        ("report", round_trip::<Report>),
        ("report-nonce", round_trip::<Report>),
        ("output", round_trip::<OutputChunk>),
        ("output-gap", round_trip::<OutputChunk>),
        ("output-final", round_trip::<OutputChunk>),
        ("ack", round_trip::<Ack>),
        ("run-status", round_trip::<RunStatus>),
        ("result", round_trip::<TaskResult>),
        ("signed-order", round_trip::<SignedOrder>),
        ("execute-order", round_trip::<Order>),
        ("execute-order-root", round_trip::<Order>),
        ("cancel-order", round_trip::<Order>),
        ("enroll-order", round_trip::<Order>),
        ("enroll-request", round_trip::<EnrollRequest>),
        ("event", round_trip::<Event>),
        ("tasks", round_trip::<Vec<TaskView>>),
        ("server-snapshot", round_trip::<ServerMessage>),
        ("server-machines", round_trip::<ServerMessage>),
        ("server-changes", round_trip::<ServerMessage>),
        ("server-output", round_trip::<ServerMessage>),
        ("server-unfollowed", round_trip::<ServerMessage>),
        ("server-text", round_trip::<ServerMessage>),
        ("server-ask", round_trip::<ServerMessage>),
        ("server-started", round_trip::<ServerMessage>),
        ("server-perform", round_trip::<ServerMessage>),
        ("server-completions", round_trip::<ServerMessage>),
        ("server-expired", round_trip::<ServerMessage>),
        ("client-command", round_trip::<ClientMessage>),
        ("client-follow", round_trip::<ClientMessage>),
        ("client-watch", round_trip::<ClientMessage>),
        ("client-session", round_trip::<ClientMessage>),
        ("client-visible", round_trip::<ClientMessage>),
    ];
    for (name, check) in table {
        check(name);
    }
    let named: BTreeSet<String> = table.iter().map(|(name, _)| format!("{name}.json")).collect();
    let files = fs::read_dir(folder())
        .expect("the golden messages")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("a name"));
    assert_eq!(files.collect::<BTreeSet<_>>(), named, "each file has its type, and each type its file");
}
