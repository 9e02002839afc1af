//! What is fed, and what must hold whatever it is fed.

#![expect(clippy::missing_panics_doc, reason = "that they panic when a promise is broken is what they are for")]

mod files;
mod terminals;
mod web;

use std::sync::LazyLock;

use pistat::catalogue::{Ask, Catalogue, MachineFacts};
use pistat_protocol::{
    account::Role,
    codec::{decode, decode_request},
    dashboard::Event,
    id::{PiId, RunId, TaskId},
    order::{
        CancelOrder, ControllerKey, EnrollAnswer, EnrollOrder, EnrollRequest, ExecuteOrder, KeyView, Order, PublicKey,
        SignedOrder, VerifiedOrder,
    },
    stats::Sample,
    status::{Info, Meta, Session, Settings, Watch},
    task::{Ack, Ends, OutputChunk, Report, Request, RunStatus, TaskResult, TaskView},
    topic::Topics,
};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    files::{config_files, task_files},
    terminals::{completion, completions, lines},
    web::{bodies, messages, queries},
};
use crate::catalogue;

/// Something that reads what comes from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and its corpus's folder.
    pub name: &'static str,
    /// Reads these bytes, and panics when a promise is broken; whether they made any sense.
    pub read: fn(&[u8]) -> bool,
}

/// All of them.
pub const ALL: [Target; 12] = [
    Target { name: "packets", read: packets },
    Target { name: "topics", read: topics },
    Target { name: "payloads", read: payloads },
    Target { name: "orders", read: orders },
    Target { name: "catalogue", read: approvals },
    Target { name: "task-files", read: task_files },
    Target { name: "config-files", read: config_files },
    Target { name: "terminal", read: lines },
    Target { name: "completions", read: completions },
    Target { name: "bodies", read: bodies },
    Target { name: "queries", read: queries },
    Target { name: "messages", read: messages },
];

/// Packets, as the broker's sessions read them, of both versions.
pub fn packets(data: &[u8]) -> bool {
    let mut understood = false;
    for v5 in [false, true] {
        let mut rest = data;
        while let Some(length) = pistat_broker::read_packet(rest, v5) {
            assert!((2..=rest.len()).contains(&length), "{length} of {} bytes", rest.len());
            rest = &rest[length..];
            understood = true;
        }
    }
    understood
}

/// A topic that is understood is written as it was read.
pub fn topics(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let topics = Topics::default();
    let Some(topic) = topics.parse(text) else { return false };
    assert_eq!(topics.format(&topic), text, "{topic:?}");
    true
}

/// What is decoded is the same when it is written and decoded again.
fn stable<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(data: &[u8]) -> bool {
    let Ok(value) = decode::<T>(data) else { return false };
    let text = pistat_protocol::codec::encode(&value);
    let read = |text: &[u8]| -> serde_json::Value {
        serde_json::from_slice(text).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(text)))
    };
    let again: T = decode(&text).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(&text)));
    let (first, second) = (read(&text), read(&pistat_protocol::codec::encode(&again)));
    assert!(is_same(&first, &second), "{value:?}: {first} became {second}");
    true
}

/// The same, but for the last digit of numbers: `serde_json` reads quickly, and may miss the
/// nearest by one.
fn is_same(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (one, other) {
        (Number(a), Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            (a - b).abs() <= a.abs() * 4.0 * f64::EPSILON
        }
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Object(a), Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => one == other,
    }
}

/// What agents, people and the controller say in JSON.
pub fn payloads(data: &[u8]) -> bool {
    let known = [
        stable::<Sample>(data),
        stable::<Vec<Sample>>(data),
        stable::<Info>(data),
        stable::<Meta>(data),
        stable::<Settings>(data),
        stable::<Watch>(data),
        stable::<Report>(data),
        stable::<OutputChunk>(data),
        stable::<Ack>(data),
        stable::<RunStatus>(data),
        stable::<EnrollRequest>(data),
        stable::<EnrollAnswer>(data),
        stable::<KeyView>(data),
        stable::<Vec<TaskView>>(data),
        stable::<TaskResult>(data),
        stable::<Event>(data),
    ];
    let request = match decode_request(data) {
        Ok(Request::Run(request)) => !request.task.as_str().is_empty(),
        Ok(Request::Cancel(_)) => true,
        Err(error) => error.to_string().is_empty(),
    };
    request || known.into_iter().any(|known| known)
}

/// The key that signs nothing but [`signed`].
static KEY: LazyLock<(PublicKey, Vec<String>)> = LazyLock::new(|| {
    let key = ControllerKey::from_secret(&[7; 32]);
    (key.public(), signed(&key).into_iter().map(|order| order.payload).collect())
});

/// The only orders that were ever signed, one of each kind; the corpus has them, so that mutations
/// begin with what is right.
fn signed(key: &ControllerKey) -> Vec<SignedOrder> {
    let pi: PiId = "pi-1".parse().expect("it is a pi-id");
    let (run, session) = (RunId::from_parts(1, [1; 10]), Session::from_random([1; 16]));
    let cancel = CancelOrder { pi: pi.clone(), run, session: session.clone() };
    let enroll = EnrollOrder { pi: pi.clone(), nonce: "nonce".into(), secret_sha256: "00".repeat(32) };
    let execute = ExecuteOrder {
        pi,
        run,
        session,
        task: "uptime".parse().expect("it is a task id"),
        argv: vec!["uptime".into(), "-p".into()],
        timeout_milliseconds: 60_000,
        grace_milliseconds: 5_000,
        environment: [("LANG".into(), "C".into())].into(),
        working_directory: Some("/tmp".into()),
        root: true,
        ends: Ends::Restart,
        concurrency: 1,
        requested_by: "admin".into(),
        nonce: None,
    };
    [Order::Execute(execute), Order::Cancel(cancel), Order::Enroll(enroll)]
        .iter()
        .map(|order| key.sign(order))
        .collect()
}

/// The signed orders as an agent gets them.
pub fn signed_orders() -> Vec<Vec<u8>> {
    signed(&ControllerKey::from_secret(&[7; 32])).iter().map(pistat_protocol::codec::encode).collect()
}

/// Nothing passes but what was signed, word for word.
pub fn orders(data: &[u8]) -> bool {
    let (key, signed) = &*KEY;
    let Ok(order) = key.verify(data) else { return false };
    let order = match order {
        VerifiedOrder::Execute(order) => Order::Execute(order.into_inner()),
        VerifiedOrder::Cancel(order) => Order::Cancel(order.into_inner()),
        VerifiedOrder::Enroll(order) => Order::Enroll(order.into_inner()),
    };
    let text = String::from_utf8(pistat_protocol::codec::encode(&order)).expect("JSON is text");
    assert!(signed.contains(&text), "{text} was never signed");
    true
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| match Catalogue::parse(catalogue::TEXT, "fuzz.toml") {
    Ok(catalogue) => catalogue,
    Err(problems) => panic!("the catalogue of this test is right: {problems:?}"),
});

/// No request leads to an argv that the catalogue does not describe, whatever the way in: JSON, a
/// terminal's line, a request over MQTT.
pub fn approvals(data: &[u8]) -> bool {
    let (task, args) = match (decode_request(data), split_task(data)) {
        (Ok(Request::Run(request)), _) => (request.task, request.args),
        (_, Some((task, rest))) => (task, catalogue::arguments(rest)),
        _ => return false,
    };
    let machine: PiId = catalogue::MACHINE.parse().expect("it is a pi-id");
    let facts =
        MachineFacts { pi: &machine, tags: &[], unconfirmed_tags: &[], policy: None, listed: None, runner: None };
    let is_machine = |name: &str| name == catalogue::MACHINE;
    let ask = Ask { task: &task, args: &args, role: Some(Role::Operator), machine: facts, is_machine: &is_machine };
    match CATALOGUE.check(&ask) {
        Ok(approved) => {
            let verdict = catalogue::judge(task.as_str(), &args, &approved.argv());
            assert_eq!(verdict, Ok(()));
            true
        }
        Err(_) => false,
    }
}

/// The first line names the task.
fn split_task(data: &[u8]) -> Option<(TaskId, &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let task = std::str::from_utf8(&data[..end]).ok()?.parse().ok()?;
    Some((task, data.get(end + 1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::{Dice, mutate};

    /// How many mutations of each corpus an ordinary test run reads.
    const QUICK: usize = 5_000;

    #[test]
    fn libfuzzer_has_a_way_in_to_every_target() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
        let names: Vec<_> = ALL.iter().map(|target| target.name).collect();
        let (run, manifest) = (read("run"), read("Cargo.toml"));
        let listed = run.split_once("TARGETS='").unwrap().1.split_once('\'').unwrap().0;
        assert_eq!(listed.split(' ').collect::<Vec<_>>(), names);
        for name in names {
            assert!(manifest.contains(&format!("name = \"fuzz-{name}\"")), "{name}");
            assert!(read(&format!("guided/{name}.rs")).contains("targets::"), "{name}");
        }
    }

    #[test]
    fn whatever_comes_from_outside_breaks_no_promise() {
        for target in ALL {
            let corpus = crate::corpus(target.name).unwrap();
            assert!(corpus.len() >= 3, "{} has a corpus", target.name);
            let understood = corpus.iter().filter(|input| (target.read)(input)).count();
            assert!(understood > 0, "some of {}'s corpus makes sense", target.name);
            let (mut dice, mut input) = (Dice(1), Vec::new());
            for _ in 0..QUICK {
                mutate(&mut dice, &corpus, &mut input);
                (target.read)(&input);
            }
        }
    }
}
