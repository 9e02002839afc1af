//! What a client that comes now is told, held against what the controller says over HTTP: both
//! ways.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use pistat_protocol::{
    dashboard::{Machine, MachineStatus, Run},
    id::{PiId, RunId},
    order::JoinToken,
    status::{Meta, Settings},
    task::{RunState, RunStatus, TaskView},
    topic::{Topic, Topics},
};
use pistat_testkit::{DEADLINE, Mqtt, Stack, eventually, mqtt::Heard};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// All retained messages have come when no other has come for so long.
const LULL: Duration = Duration::from_millis(500);

/// The newest runs of a machine whose status and output stay retained (the contract's section 3).
pub(crate) const RETAINED_RUNS: usize = 20;

/// Everything that is retained, by its topic's meaning.
type Told = BTreeMap<String, Vec<u8>>;

/// What is retained is exactly what the controller says: nothing is missing, nothing is left over,
/// nothing is wrong.
pub(super) async fn topics_are_the_controllers_state(stack: &Stack, runs: &BTreeMap<RunId, Run>) {
    eventually("retained topics are the controller's state", DEADLINE, async || {
        let told = retained(stack).await;
        let machines: Vec<Machine> = read(stack, "/api/pis").await?;
        let tasks: Vec<TaskView> = read(stack, "/api/tasks").await?;
        let topics = Topics::default();
        for machine in &machines {
            machine_is_told(&told, &topics, machine)?;
        }
        is_told(&told, &topics.format(&Topic::ControllerTasks), &tasks)?;
        key_is_told(stack, &told, &topics)?;
        runs_are_told(&told, &topics, &machines, runs)?;
        nothing_is_left_over(&told, &topics, &machines)
    })
    .await;
}

async fn read<T: DeserializeOwned>(stack: &Stack, path: &str) -> Result<T, String> {
    stack.http().try_send("GET", path, None).await.map(|reply| reply.json())
}

fn payload<'a>(told: &'a Told, topic: &str) -> Result<&'a [u8], String> {
    told.get(topic).map(Vec::as_slice).ok_or_else(|| format!("{topic} is not retained"))
}

fn is_told(told: &Told, topic: &str, wanted: &impl Serialize) -> Result<(), String> {
    let payload = payload(told, topic)?;
    let (is, wanted) = (serde_json::from_slice::<Value>(payload).ok(), serde_json::to_value(wanted).unwrap());
    if is.as_ref() == Some(&wanted) { Ok(()) } else { Err(format!("{topic}: {is:?}, but it is {wanted}")) }
}

fn machine_is_told(told: &Told, topics: &Topics, machine: &Machine) -> Result<(), String> {
    let pi = || machine.id.clone();
    let status = topics.format(&Topic::Status(pi()));
    let wanted: &[u8] = if machine.status == MachineStatus::Offline { b"offline" } else { b"online" };
    if payload(told, &status)? != wanted {
        return Err(format!("{status}, but it is {:?}", machine.status));
    }
    let meta =
        Meta { label: machine.label.clone(), assignment: machine.assignment.clone(), tags: machine.tags.clone() };
    is_told(told, &topics.format(&Topic::Meta(pi())), &meta)?;
    let settings = Settings { interval_seconds: machine.interval_seconds };
    is_told(told, &topics.format(&Topic::Settings(pi())), &settings)?;
    payload(told, &topics.format(&Topic::Info(pi())))?;
    payload(told, &topics.format(&Topic::Stats(pi())))?;
    Ok(())
}

fn key_is_told(stack: &Stack, told: &Told, topics: &Topics) -> Result<(), String> {
    let topic = topics.format(&Topic::ControllerKey);
    let key: pistat_protocol::order::KeyView =
        serde_json::from_slice(payload(told, &topic)?).map_err(|error| error.to_string())?;
    let token: JoinToken = stack.join_token().parse().unwrap();
    let (wanted, is) = (token.fingerprint, key.key.fingerprint());
    if is == wanted && key.fingerprint == wanted { Ok(()) } else { Err(format!("{topic}: {key:?}")) }
}

/// Of each machine as many runs as are kept, word for word.
fn runs_are_told(
    told: &Told,
    topics: &Topics,
    machines: &[Machine],
    runs: &BTreeMap<RunId, Run>,
) -> Result<(), String> {
    let kept = kept_runs(told, topics);
    for machine in machines {
        // A refusal is never retained.
        let there = runs.values().filter(|run| run.pi == machine.id && run.state != RunState::Rejected).count();
        let kept = kept.get(&machine.id).map_or(0, BTreeSet::len);
        if kept != there.min(RETAINED_RUNS) {
            return Err(format!("{} has the retained status of {kept} runs, and {there} runs", machine.id));
        }
    }
    for (pi, id) in kept.iter().flat_map(|(pi, kept)| kept.iter().map(move |id| (pi, id))) {
        let topic = topics.format(&Topic::RunStatus(pi.clone(), *id));
        let run = runs.get(id).filter(|run| run.pi == *pi).ok_or_else(|| format!("{topic}: there is no such run"))?;
        is_told(told, &topic, &RunStatus::from(run))?;
    }
    Ok(())
}

fn kept_runs(told: &Told, topics: &Topics) -> BTreeMap<PiId, BTreeSet<RunId>> {
    let mut kept: BTreeMap<PiId, BTreeSet<RunId>> = BTreeMap::new();
    for text in told.keys() {
        if let Some(Topic::RunStatus(pi, run)) = topics.parse(text) {
            kept.entry(pi).or_default().insert(run);
        }
    }
    kept
}

/// Whatever is retained is something that the contract lets be retained, of a machine that is there
/// and of a run whose status is retained, too.
fn nothing_is_left_over(told: &Told, topics: &Topics, machines: &[Machine]) -> Result<(), String> {
    let kept = kept_runs(told, topics);
    let is_there = |pi: &PiId| machines.iter().any(|machine| machine.id == *pi);
    for text in told.keys() {
        let may = match topics.parse(text) {
            Some(Topic::Status(pi) | Topic::Info(pi) | Topic::Stats(pi) | Topic::Meta(pi) | Topic::Settings(pi)) => {
                is_there(&pi)
            }
            Some(Topic::RunStatus(pi, _)) => is_there(&pi),
            Some(Topic::Output(pi, run)) => kept.get(&pi).is_some_and(|kept| kept.contains(&run)),
            Some(Topic::ControllerKey | Topic::ControllerTasks) => true,
            _ => false,
        };
        if !may {
            return Err(format!("{text} should not be retained (any more)"));
        }
    }
    Ok(())
}

/// Everything that a client that comes now is told under the prefix.
pub(crate) async fn retained(stack: &Stack) -> BTreeMap<String, Vec<u8>> {
    let mut client = Mqtt::connect(stack.said.mqtt, "admin", &stack.admin_token()).await.expect("the broker is there");
    client.granted(&["pistat/#"]).await;
    let mut retained = BTreeMap::new();
    // Machines go on talking: it is over when nothing retained has come for a moment, not when
    // nothing at all has.
    let mut newest = Instant::now();
    while newest.elapsed() < LULL
        && let Some(heard) = client.next(LULL).await
    {
        if let Heard::Message(publish) = heard
            && publish.retain
            && retained.insert(String::from_utf8_lossy(&publish.topic).into_owned(), publish.payload.to_vec()).is_none()
        {
            newest = Instant::now();
        }
    }
    retained
}
