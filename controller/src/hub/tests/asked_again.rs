//! What was approved when it was accepted and is not any more when it would be sent.

use pistat_protocol::{
    api::{GroupOptions, NewAccount},
    dashboard::Run,
    id::Target,
};

use super::*;
use crate::config::Requests;

fn admin() -> Caller {
    let credential = Credential::Token(SecretHash::of("admin"));
    Caller { account: AccountName::admin(), role: Role::Admin, credential }
}

fn annas_name() -> AccountName {
    "anna".parse().unwrap()
}

impl Driven {
    fn remove_anna(&mut self) {
        let mut answer = self.ask(|reply| Ask::RemoveAccount(admin(), annas_name(), reply));
        self.disk();
        answer.try_recv().unwrap().unwrap();
    }

    fn add_anna(&mut self) {
        let account =
            NewAccount { name: annas_name(), role: Role::Operator, publish: vec![], subscribe: vec![], expires: None };
        let mut answer = self.ask(|reply| Ask::AddAccount(admin(), account, reply));
        self.disk();
        answer.try_recv().unwrap().unwrap();
    }

    fn give_anna(&mut self, role: Role) {
        self.rotate_anna(ask::Rotation { role: Some(role), lifetime: None });
    }

    fn rotate_anna(&mut self, rotation: ask::Rotation) {
        let mut answer = self.ask(|reply| Ask::RotateAccount(admin(), annas_name(), rotation, reply));
        self.disk();
        answer.try_recv().unwrap().unwrap();
    }

    fn read_catalogue(&mut self, text: &str) {
        self.event(Event::Catalogue(Catalogue::parse(text, "tasks.toml")));
    }

    fn seen(&self, run: RunId) -> Run {
        self.hub.runs.newest().into_iter().find(|seen| seen.id == run).unwrap()
    }
}

#[test]
fn a_run_that_waited_is_rejected_if_it_would_not_be_accepted_any_more() {
    type Change = (&'static str, fn(&mut Driven), Option<&'static str>);
    let changes: [Change; 8] = [
        ("nothing", |_| {}, None),
        (
            "a new token",
            |driven| driven.give_anna(Role::Operator),
            Some("the account anna, which asked for it, was given a new token since: ask for it again"),
        ),
        ("removed", Driven::remove_anna, Some("the account anna, which asked for it, was removed")),
        (
            "replaced",
            |driven| {
                driven.remove_anna();
                driven.add_anna();
            },
            Some("another has its name now"),
        ),
        (
            "expired",
            |driven| {
                driven.rotate_anna(ask::Rotation { role: None, lifetime: Some(Duration::from_secs(1)) });
                driven.wrong_milliseconds = 60_000;
            },
            Some("the account anna, which asked for it, has expired"),
        ),
        (
            "demoted",
            |driven| driven.give_anna(Role::Viewer),
            Some("needs the role operator, and the account anna, which asked for it, has the role viewer now"),
        ),
        (
            "for administrators",
            |driven| driven.read_catalogue("[task.uptime]\ncommand = ['uptime']\nrole = 'admin'\n"),
            Some("needs the role admin"),
        ),
        (
            "elsewhere",
            |driven| driven.read_catalogue("[task.uptime]\ncommand = ['uptime']\non = ['@camera']\n"),
            Some("the catalogue allows it on @camera"),
        ),
    ];
    for (what, change, reason) in changes {
        let mut driven = Driven::new();
        let run = driven.run();
        change(&mut driven);
        driven.greets();
        driven.disk();
        assert_eq!(driven.published(&Topic::Execute(pi(), run)), reason.is_none(), "{what}");
        let seen = driven.seen(run);
        let expected = if reason.is_none() { RunState::Dispatched } else { RunState::Rejected };
        assert_eq!(seen.state, expected, "{what}: {:?}", seen.reason);
        let told = seen.reason.unwrap_or_default();
        assert!(told.contains(reason.unwrap_or_default()), "{what}: {told}");
    }
}

#[test]
fn a_run_that_was_being_sent_when_its_account_went_is_not_sent_again() {
    let mut driven = Driven::new();
    driven.greets();
    let run = driven.run();
    assert!(driven.published(&Topic::Execute(pi(), run)));
    driven.remove_anna();
    // A new session that does not know the run: the order never arrived.
    let session = hex(&[9; 16]);
    driven.hear(Topic::Info(pi()), greeting().replace(&hex(&[7; 16]), &session));
    driven.disk();
    assert!(!driven.published(&Topic::Execute(pi(), run)));
    assert_eq!(driven.seen(run).state, RunState::Rejected);
}

#[test]
fn the_rest_of_a_group_is_rejected_when_its_account_was_removed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut driven = Driven::on(folder, |loaded| {
        for name in ["pi-1", "pi-2"] {
            loaded.access.apply(&AccessChange::PutAgent(enrolled(name)));
        }
    });
    driven.event(Event::Heard(vec![Heard::Connected]));
    let second: PiId = "pi-2".parse().unwrap();
    driven.greets();
    driven.greets_as(&second);
    let group = Some(GroupOptions { at_once: Some(1), ..GroupOptions::default() });
    let request = NewRun { target: Target::All, group, ..new_run(None) };
    let mut answer = driven.ask(|reply| Ask::Run(anna(), request, reply));
    driven.disk();
    let runs = answer.try_recv().unwrap().unwrap().runs;
    // The controller's own machine, the first of the group, is not there; the others wait for
    // nothing but their turn.
    let of = |driven: &Driven, pi: &PiId| runs.iter().map(|run| driven.seen(*run)).find(|run| run.pi == *pi).unwrap();
    let first = of(&driven, &pi());
    assert_eq!((first.state, of(&driven, &second).state), (RunState::Dispatched, RunState::Queued));
    driven.remove_anna();
    let report = r#"{"state":"succeeded","exit_code":0,"boot_id":"b","dropped_bytes":0}"#;
    driven.hear(Topic::Report(pi(), first.id), report);
    driven.disk();
    assert_eq!(of(&driven, &pi()).state, RunState::Succeeded, "what had been sent goes on");
    assert_eq!(of(&driven, &second).state, RunState::Rejected);
}

#[test]
fn an_account_with_the_name_of_a_removed_one_does_not_inherit_its_requests() {
    let mut driven = Driven::new();
    let ask = |driven: &mut Driven| {
        let mut answer = driven.ask(|reply| Ask::Run(anna(), new_run(Some("nightly")), reply));
        driven.disk();
        answer.try_recv().unwrap().map(|accepted| accepted.runs)
    };
    let first = ask(&mut driven).unwrap();
    assert_eq!(ask(&mut driven).unwrap(), first, "repeated");
    driven.give_anna(Role::Operator);
    assert_eq!(ask(&mut driven).unwrap(), first, "a new token is the same account");
    driven.remove_anna();
    assert_eq!(
        ask(&mut driven).unwrap_err().kind,
        ask::RefusedKind::Forbidden,
        "its credential was checked before it was removed"
    );
    driven.add_anna();
    assert_ne!(ask(&mut driven).unwrap(), first);
}

#[test]
fn what_clients_of_an_external_broker_asked_for_is_sent_only_while_they_may_ask() {
    let config = |tasks: Option<&str>| {
        let mut config = Config::default();
        config.mqtt.broker =
            Broker::External(pistat_support::mqtt_url::MqttUrl::broker("mqtt://broker.example:1883").unwrap());
        let requests = |task: &str| Requests { role: Role::Operator, tasks: vec![task.parse().unwrap()] };
        config.mqtt.requests = tasks.map(requests);
        config
    };
    let cases = [
        (Some("uptime"), None),
        (Some("memory"), Some("task uptime is not among the tasks of [mqtt.requests]")),
        (None, Some("requests over MQTT are off")),
    ];
    for (later, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let enrol = |loaded: &mut Loaded| loaded.access.apply(&AccessChange::PutAgent(enrolled("pi-1")));
        let mut driven = Driven::configured(config(Some("uptime")), folder, enrol);
        driven.event(Event::Heard(vec![Heard::Connected]));
        driven.hear(Topic::Request(Target::Pi(pi())), "uptime");
        driven.disk();
        let run = driven.hub.runs.newest()[0].id;
        assert_eq!(driven.seen(run).state, RunState::Queued);
        let mut driven = Driven::configured(config(later), driven.killed(), enrol);
        driven.event(Event::Heard(vec![Heard::Connected]));
        driven.greets();
        driven.disk();
        assert_eq!(driven.published(&Topic::Execute(pi(), run)), reason.is_none(), "{later:?}");
        let told = driven.seen(run).reason.unwrap_or_default();
        assert!(told.contains(reason.unwrap_or_default()), "{later:?}: {told}");
    }
}
