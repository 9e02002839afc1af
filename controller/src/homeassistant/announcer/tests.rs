//! When documents are published, kept and taken back: stories of machines that come, change and go.

use pistat_protocol::{
    stats::{Disk, Sample},
    time::Timestamp,
    topic::Topics,
};
use serde_json::{Value, json};

use super::*;
use crate::homeassistant::{document::Component, sensors::Platform};

const SECOND: Duration = Duration::from_secs(1);

struct Stage {
    announcer: Announcer,
    fleet: Vec<PiId>,
    info: Info,
    label: String,
    now: Instant,
}

fn pi() -> PiId {
    "pi-1".parse().unwrap()
}

fn place(prefix: &str) -> Place {
    Place { topics: Topics::default(), prefix: prefix.into(), dashboard: None }
}

fn info(session: char, capabilities: &[&str]) -> Info {
    let json = json!({
        "agent_version": "0.1.0", "boot_id": "b", "session": session.to_string().repeat(32), "execution_policy": "controller", "runner": false,
        "interval_seconds": 5.0, "capabilities": capabilities,
    });
    serde_json::from_value(json).unwrap()
}

fn sample(cpu: Option<f32>, temperature: Option<f32>) -> Sample {
    let mut sample = Sample::new(Timestamp::from_unix_milliseconds(0), true, 1);
    sample.cpu_percent = cpu;
    sample.temperature_celsius = temperature;
    sample
}

impl Stage {
    fn new(place: Option<Place>, before: Announced) -> Self {
        let now = Instant::now();
        let mut announcer = Announcer::new(place, before);
        announcer.connected(now);
        let info = info('a', &["cpu_percent", "temperature_celsius"]);
        Self { announcer, fleet: vec![pi()], info, label: "Rack".into(), now: now + SETTLE }
    }

    /// A machine that has told everything.
    fn with_machine(mut self) -> Self {
        self.tell();
        self
    }

    fn tell(&mut self) {
        self.announcer.info(&pi(), &self.info, Some(&sample(Some(1.0), Some(40.0))), self.now);
    }

    fn turn(&mut self) -> Plan {
        let facts = Facts { label: self.label.clone(), info: &self.info, buttons: Vec::new() };
        let plan = self.announcer.turn(self.now, self.fleet.iter(), |_| Some(facts.clone()));
        if plan.keep.is_some() {
            self.announcer.stored();
        }
        plan
    }

    fn later(&mut self, time: Duration) -> Plan {
        self.now += time;
        self.turn()
    }
}

fn components(plan: &Plan) -> Vec<(String, bool)> {
    let [say] = &plan.say[..] else { panic!("one document was expected: {plan:?}") };
    let document: Value = serde_json::from_slice(&say.payload).unwrap();
    let components = document["cmps"].as_object().unwrap();
    components.iter().map(|(key, value)| (key.clone(), value.get("unique_id").is_some())).collect()
}

fn has(plan: &Plan, key: &str) -> Option<bool> {
    components(plan).into_iter().find(|(name, _)| name == key).map(|(_, whole)| whole)
}

#[test]
fn a_machine_is_announced_once_and_again_only_when_something_changes() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    let plan = stage.turn();
    assert_eq!(plan.say[0].topic, "homeassistant/device/pistat_pi-1/config");
    let kept = plan.keep.unwrap();
    assert_eq!(kept["homeassistant/device/pistat_pi-1/config"]["cpu"], Component::Of(Platform::Sensor));
    stage.announcer.changed(&pi());
    for _ in 0..10 {
        assert!(stage.later(SECOND).say.is_empty());
    }
    stage.label = "Garage".into();
    stage.announcer.changed(&pi());
    let plan = stage.later(SECOND);
    assert!(String::from_utf8_lossy(&plan.say[0].payload).contains("Garage") && plan.keep.is_none());
}

#[test]
fn nothing_is_said_before_it_is_kept() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    let facts = Facts { label: "x".into(), info: &stage.info, buttons: Vec::new() };
    let turn = |announcer: &mut Announcer, now| announcer.turn(now, stage.fleet.iter(), |_| Some(facts.clone()));
    assert!(turn(&mut stage.announcer, stage.now).keep.is_some());
    stage.announcer.forgotten(&pi());
    assert!(turn(&mut stage.announcer, stage.now + 9 * SECOND).say.is_empty());
}

#[test]
fn two_documents_of_a_machine_are_two_seconds_apart() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    assert_eq!(stage.turn().say.len(), 1);
    stage.label = "Garage".into();
    stage.announcer.changed(&pi());
    assert!(stage.later(SECOND).say.is_empty());
    assert_eq!(stage.later(SECOND).say.len(), 1);
}

#[test]
fn a_component_that_is_gone_is_told_once_and_then_left_out() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    assert_eq!(has(&stage.turn(), "temperature"), Some(true));
    stage.info = info('b', &["cpu_percent"]);
    stage.announcer.info(&pi(), &stage.info, Some(&sample(Some(1.0), None)), stage.now);
    let plan = stage.later(2 * SECOND);
    assert_eq!(has(&plan, "temperature"), Some(false));
    assert!(plan.keep.is_none(), "what is only going is remembered");
    assert!(stage.later(SECOND).say.is_empty());
    let plan = stage.later(SECOND);
    assert_eq!(has(&plan, "temperature"), None);
    assert!(!plan.keep.unwrap()["homeassistant/device/pistat_pi-1/config"].contains_key("temperature"));
    for _ in 0..5 {
        assert!(stage.later(SECOND).say.is_empty());
    }
}

#[test]
fn an_agent_that_was_started_anew_keeps_its_entities_until_it_has_told_what_it_can() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    stage.turn();
    stage.info = info('b', &[]);
    stage.announcer.info(&pi(), &stage.info, Some(&sample(None, None)), stage.now);
    assert!(stage.later(5 * SECOND).say.is_empty());
    stage.tell();
    assert!(stage.later(SECOND).say.is_empty());
}

#[test]
fn a_controller_that_was_started_anew_takes_nothing_back_before_the_machine_has_spoken() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    let kept = stage.turn().keep.unwrap();
    let mut again = Stage::new(Some(place("homeassistant")), kept);
    again.info = info('a', &[]);
    again.announcer.info(&pi(), &again.info, None, again.now);
    for _ in 0..30 {
        assert!(again.later(SECOND).say.is_empty());
    }
    again.info = info('a', &["cpu_percent", "temperature_celsius"]);
    again.tell();
    let plan = again.later(SECOND);
    assert_eq!((plan.say.len(), plan.keep), (1, None));
}

#[test]
fn an_agent_that_never_tells_what_it_can_is_announced_as_it_is() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new());
    stage.info = info('a', &[]);
    stage.tell();
    assert!(stage.later(SECOND).say.is_empty());
    assert_eq!(has(&stage.later(INTRODUCTION_LIMIT), "cpu"), Some(true));
}

#[test]
fn a_new_kind_of_value_is_announced_when_it_comes() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    stage.turn();
    let mut more = sample(Some(1.0), Some(1.0));
    more.wifi_signal_dbm = Some(-50);
    more.disks = Some(vec![Disk { mount: "/".into(), used_bytes: 1, total_bytes: 2, used_percent: 50.0 }]);
    stage.announcer.sample(&pi(), &more);
    let plan = stage.later(2 * SECOND);
    assert_eq!((has(&plan, "wifi_signal"), has(&plan, "disk")), (Some(true), Some(true)));
}

#[test]
fn a_forgotten_machine_is_taken_back_by_an_empty_document() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    stage.turn();
    stage.announcer.forgotten(&pi());
    stage.fleet.clear();
    let plan = stage.later(SECOND);
    let empty = Say { topic: "homeassistant/device/pistat_pi-1/config".into(), payload: Vec::new(), again: None };
    assert_eq!((plan.say, plan.keep), (vec![empty], None));
    assert!(stage.later(SECOND).say.is_empty());
    assert_eq!(stage.later(REMEMBER).keep, Some(Announced::new()));
}

#[test]
fn a_machine_that_was_forgotten_while_the_controller_was_killed_is_taken_back() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    let kept = stage.turn().keep.unwrap();
    let mut again = Stage::new(Some(place("homeassistant")), kept);
    again.fleet.clear();
    assert_eq!(again.turn().say.len(), 1);
}

#[test]
fn another_prefix_and_no_discovery_at_all_take_the_old_documents_back() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    let kept = stage.turn().keep.unwrap();
    let mut moved = Stage::new(Some(place("ha")), kept.clone()).with_machine();
    let said: Vec<_> = moved.turn().say.into_iter().map(|say| (say.topic, say.payload.is_empty())).collect();
    let old = ("homeassistant/device/pistat_pi-1/config".to_owned(), true);
    assert_eq!(said, [old.clone(), ("ha/device/pistat_pi-1/config".to_owned(), false)]);
    let mut off = Stage::new(None, kept).with_machine();
    let said: Vec<_> = off.turn().say.into_iter().map(|say| (say.topic, say.payload.is_empty())).collect();
    assert_eq!(said, [old]);
    assert_eq!(off.later(REMEMBER).keep, Some(Announced::new()));
}

#[test]
fn a_birth_is_answered_after_its_pause_with_everything() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    stage.turn();
    stage.now += 10 * SECOND;
    stage.announcer.born(stage.now, SECOND);
    stage.announcer.born(stage.now, SECOND);
    assert!(stage.turn().say.is_empty());
    let plan = stage.later(SECOND);
    assert_eq!((plan.say.len(), plan.say[0].again.clone()), (1, Some(pi())));
    assert!(stage.later(3 * SECOND).say.is_empty());
}

#[test]
fn a_new_connection_hears_everything_again() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new()).with_machine();
    stage.turn();
    stage.announcer.disconnected();
    assert!(stage.later(SECOND).say.is_empty());
    stage.announcer.connected(stage.now);
    assert!(stage.later(SECOND).say.is_empty());
    let plan = stage.later(SECOND);
    assert_eq!((plan.say.len(), plan.keep), (1, None));
}

#[test]
fn the_controllers_own_machine_comes_first_and_a_large_fleet_comes_in_turns() {
    let mut stage = Stage::new(Some(place("homeassistant")), Announced::new());
    stage.fleet = (0..250).map(|n| format!("a-{n}").parse().unwrap()).chain([PiId::controller()]).collect();
    for pi in stage.fleet.clone() {
        stage.announcer.info(&pi, &stage.info, Some(&sample(Some(1.0), Some(1.0))), stage.now);
    }
    let first = stage.turn();
    assert_eq!(first.say[0].topic, "homeassistant/device/pistat_controller/config");
    let rest: Vec<_> = (0..3).map(|_| stage.later(SECOND).say.len()).collect();
    assert_eq!((first.say.len(), rest), (100, vec![100, 51, 0]));
}
