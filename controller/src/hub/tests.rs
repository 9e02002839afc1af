//! The hub, driven by hand: each event comes when the test says so, and what is on the disk is told
//! when the test says so.

use pistat_protocol::{
    account::Role,
    api::NewRun,
    dashboard::{Obstacle, ServerMessage},
    id::AccountName,
    order::hex,
    task::{Arguments, RunState},
};
use tokio::sync::oneshot;

use super::*;
use crate::{
    access::{AccessChange, AccountRecord, AgentRecord, Caller, Credential},
    bridge::{Look, ResponseTo},
    config::Broker,
    store::{Loaded, NotStored, Retention, Store, Ticket},
};

mod asked_again;
mod bounds;
mod names;
mod scheduled;

const CATALOGUE: &str = "[task.uptime]\ncommand = [\"uptime\"]\n";

struct Driven {
    hub: Hub,
    stored: mpsc::UnboundedReceiver<Stored>,
    folder: tempfile::TempDir,
    /// By how much its wall clock is wrong.
    wrong_milliseconds: i64,
}

const DAY_MILLISECONDS: i64 = 86_400_000;

/// A history of its own; what it finds out comes back to nothing.
fn recorder(folder: &std::path::Path) -> super::Recorder {
    let settings = crate::config::History::default().settings();
    let (store, _) = pistat_history::Store::open(&folder.join("history.db"), settings, Now::get()).unwrap();
    let (history, _thread) = pistat_history::History::start(store).unwrap();
    super::Recorder::new(history, mpsc::channel(1).0)
}

impl Driven {
    /// A hub that is connected, with one enrolled machine, `pi-1`.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut driven = Self::on(folder, |loaded| loaded.access.apply(&AccessChange::PutAgent(enrolled("pi-1"))));
        driven.event(Event::Heard(vec![Heard::Connected]));
        driven
    }

    fn on(folder: tempfile::TempDir, prepare: impl FnOnce(&mut Loaded)) -> Self {
        Self::configured(Config::default(), folder, prepare)
    }

    /// A hub that is connected to another's broker, with what an earlier one left in its folder.
    fn on_anothers_broker(folder: tempfile::TempDir) -> Self {
        let mut config = Config::default();
        config.mqtt.broker =
            Broker::External(pistat_support::mqtt_url::MqttUrl::broker("mqtt://broker.example:1883").unwrap());
        let mut driven = Self::configured(config, folder, |_| {});
        driven.event(Event::Heard(vec![Heard::Connected]));
        driven
    }

    /// It is gone, and so is what it had not stored yet.
    fn killed(self) -> tempfile::TempDir {
        self.folder
    }

    fn configured(config: Config, folder: tempfile::TempDir, prepare: impl FnOnce(&mut Loaded)) -> Self {
        let retention = Retention { days: 30, runs: 1000, events: 1000, audit: 1000 };
        let (store, mut loaded, stored) = Store::open(folder.path(), retention).unwrap();
        loaded.access.apply(&AccessChange::PutAccount(account("anna", Role::Operator)));
        prepare(&mut loaded);
        let config = Arc::new(config);
        let hub = Hub::new(HubParts {
            uses: watch::Sender::new(Arc::default()),
            config: Arc::clone(&config),
            catalogue: Catalogue::parse(CATALOGUE, "tasks.toml").unwrap(),
            store,
            broker: None,
            controller_secret: SecretHash::of("secret"),
            access: watch::Sender::new(Arc::new(loaded.access.clone())),
            mqtt: None,
            own_address: Arc::new(OwnAddress::new(&config, ([127, 0, 0, 1], 8000).into(), false)),
            history: recorder(folder.path()),
            loaded,
        });
        Self { hub, stored, folder, wrong_milliseconds: 0 }
    }

    fn event(&mut self, event: Event) {
        self.hub.now = Now::get();
        let wrong = self.hub.now.wall.unix_milliseconds() + self.wrong_milliseconds;
        self.hub.now.wall = pistat_protocol::time::Timestamp::from_unix_milliseconds(wrong);
        self.hub.handle(event);
        self.hub.commit_turn();
        // What one turn had no time for.
        while !self.hub.lanes.is_empty() {
            self.hub.handle(Event::Heard(Vec::new()));
            self.hub.commit_turn();
        }
    }

    fn ask<T>(&mut self, ask: impl FnOnce(Reply<T>) -> Ask) -> oneshot::Receiver<Result<T, Refused>> {
        let (reply, answer) = oneshot::channel();
        self.event(Event::Ask(ask(reply)));
        answer
    }

    /// Everything gets on the disk, and what follows from that, too.
    fn disk(&mut self) {
        while self.hub.commits.pending().len() > 0 {
            let stored = self.stored.blocking_recv().expect("the store lives");
            self.event(Event::Stored(vec![stored]));
        }
    }

    /// The disk is full: what waits is told so.
    fn disk_is_full(&mut self) {
        let tickets: Vec<_> = self.hub.commits.tickets().map(|(ticket, _)| ticket).collect();
        let waits = |ticket| Stored { ticket, result: Err(NotStored::Waits("it is full".into())), left_out: vec![] };
        self.event(Event::Stored(tickets.into_iter().map(waits).collect()));
    }

    /// The disk takes nothing: every change is refused, and what has happened waits.
    fn disk_refuses(&mut self) {
        let stored = |(ticket, after): (Ticket, &PendingCommit)| {
            let may_be_refused = match after {
                PendingCommit::Runs(after) => after.accepted.is_some(),
                PendingCommit::Metadata(..)
                | PendingCommit::Access(..)
                | PendingCommit::Tagged(..)
                | PendingCommit::JoinToken(..) => true,
                PendingCommit::Announced(_) | PendingCommit::AdminToken(..) | PendingCommit::Forgotten(..) => false,
            };
            let (refused, waits) = (NotStored::Refused("it is full".into()), NotStored::Waits("it is full".into()));
            Stored { ticket, result: Err(if may_be_refused { refused } else { waits }), left_out: vec![] }
        };
        let batch = self.hub.commits.tickets().map(stored).collect();
        self.event(Event::Stored(batch));
    }

    fn hear(&mut self, topic: Topic, payload: impl Into<bytes::Bytes>) {
        self.hear_as(false, topic, payload);
    }

    fn hear_as(&mut self, retain: bool, topic: Topic, payload: impl Into<bytes::Bytes>) {
        let message = Heard::Message { topic, payload: payload.into(), retain, account: None, response: None };
        self.event(Event::Heard(vec![message]));
    }

    /// `pi-1` tells its session and that it knows no run.
    fn greets(&mut self) {
        self.greets_as(&pi());
    }

    fn greets_as(&mut self, pi: &PiId) {
        self.hear(Topic::Info(pi.clone()), greeting());
        self.hear(Topic::Status(pi.clone()), "online");
    }

    /// An operator gives `pi-1` a label.
    fn is_called(&mut self, label: &str) {
        let label = Some(Some(label.to_owned()));
        let patch = pistat_protocol::api::PatchMachine { label, ..Default::default() };
        let mut answer = self.ask(|reply| Ask::Patch(anna(), pi(), patch, reply));
        self.disk();
        answer.try_recv().unwrap().unwrap();
    }

    /// A run of `uptime` on `pi-1` that is stored, and sent where its machine has a session.
    fn run(&mut self) -> RunId {
        let mut answer = self.ask(|reply| Ask::Run(anna(), new_run(None), reply));
        self.disk();
        answer.try_recv().unwrap().unwrap().runs[0]
    }

    /// Whether something was published on this topic since the last look.
    fn published(&mut self, topic: &Topic) -> bool {
        let topic = self.hub.topics.format(topic);
        let found = self.hub.outbox.iter().any(|message| message.topic == topic);
        self.hub.outbox.take();
        found
    }
}

fn greeting() -> String {
    let session = hex(&[7; 16]);
    format!(
        r#"{{"agent_version":"1","boot_id":"b","session":"{session}","execution_policy":"controller","runner":false,"interval_seconds":5}}"#
    )
}

fn pi() -> PiId {
    "pi-1".parse().unwrap()
}

fn enrolled(name: &str) -> AgentRecord {
    AgentRecord {
        pi: name.parse().unwrap(),
        secret_sha256: Some(SecretHash::of(name)),
        serial: None,
        enrolled_at: None,
        open: false,
        token_sha256: None,
    }
}

fn account(name: &str, role: Role) -> AccountRecord {
    AccountRecord {
        name: name.parse().unwrap(),
        role,
        token_sha256: SecretHash::of(name),
        publish: Vec::new(),
        subscribe: Vec::new(),
        created_at: pistat_protocol::time::Timestamp::from_unix_milliseconds(0),
        expires_at: None,
        lifetime_milliseconds: None,
        rotations: 0,
    }
}

fn anna() -> Caller {
    let account: AccountName = "anna".parse().unwrap();
    Caller { account, role: Role::Operator, credential: Credential::Session(SecretHash::of("cookie")) }
}

fn new_run(request_id: Option<&str>) -> NewRun {
    NewRun {
        task: "uptime".parse().unwrap(),
        target: "pi-1".parse().unwrap(),
        args: Arguments::new(),
        request_id: request_id.map(Into::into),
        expires: None,
        group: None,
        confirmed: false,
    }
}

#[test]
fn a_dashboard_is_told_which_tasks_each_machine_cannot_run_and_again_when_the_catalogue_changes() {
    let mut driven = Driven::new();
    driven.greets();
    let (_, mut changes) = driven.ask(|reply| Ask::Join(anna(), false, reply)).try_recv().unwrap().unwrap();
    let with_root =
        "[task.uptime]\ncommand = ['uptime']\n[task.boot]\ncommand = ['boot']\nroot = true\nrole = 'admin'\n";
    driven.event(Event::Catalogue(Catalogue::parse(with_root, "tasks.toml")));
    let mut told = Vec::new();
    while let Ok(frame) = changes.try_recv() {
        let ServerMessage::Changes { changes, .. } = serde_json::from_slice(&frame).unwrap() else {
            panic!("{frame:?}")
        };
        told.extend(changes.into_iter().filter_map(|change| match change {
            Change::Machine { machine } => Some((machine.id.to_string(), machine.cannot_run)),
            _ => None,
        }));
    }
    let [(machine, cannot)] = &told[..] else { panic!("the controller's machine has not told anything: {told:?}") };
    assert_eq!((machine.as_str(), cannot.len()), ("pi-1", 1));
    assert_eq!((cannot[0].reason, cannot[0].tasks[0].as_str()), (Obstacle::NoRunner, "boot"));
    // Whoever asks by the API is told by their own role, too.
    let machine = driven.ask(|reply| Ask::Machine(anna(), pi(), reply)).try_recv().unwrap().unwrap();
    assert_eq!(machine.cannot_run[0].reason, Obstacle::Role);
}

#[test]
fn a_cancel_is_answered_when_it_is_on_the_disk_and_its_order_waits_for_nothing() {
    let mut driven = Driven::new();
    driven.greets();
    let run = driven.run();
    assert!(driven.published(&Topic::Execute(pi(), run)));
    let mut answer = driven.ask(|reply| Ask::Cancel(anna(), run, reply));
    assert!(driven.published(&Topic::Cancel(pi(), run)));
    assert!(answer.try_recv().is_err(), "it is not on the disk");
    driven.disk();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
}

#[test]
fn a_cancel_on_a_full_disk_works_and_is_told_as_what_it_is() {
    let mut driven = Driven::new();
    let queued = driven.run();
    let mut answer = driven.ask(|reply| Ask::Cancel(anna(), queued, reply));
    driven.disk_is_full();
    let refused = answer.try_recv().unwrap().unwrap_err();
    assert!(refused.kind == ask::RefusedKind::Unavailable && refused.detail.contains("it is full"), "{refused}");
    driven.greets();
    assert!(!driven.published(&Topic::Execute(pi(), queued)), "it does not start");
    driven.disk();
    assert_eq!(driven.hub.runs.newest()[0].state, RunState::Cancelled);
}

#[test]
fn a_run_that_is_cancelled_while_it_is_being_sent_is_not_started() {
    let mut driven = Driven::new();
    let run = driven.run();
    driven.greets();
    assert_eq!(driven.hub.runs.get(run).unwrap().run.state, RunState::Dispatched);
    let _answer = driven.ask(|reply| Ask::Cancel(anna(), run, reply));
    driven.disk();
    let topics: Vec<_> = driven.hub.outbox.iter().map(|message| message.topic.clone()).collect();
    assert!(topics.iter().any(|topic| topic.ends_with("/cancel")), "{topics:?}");
    assert!(!topics.iter().any(|topic| topic.ends_with("/execute")), "{topics:?}");
}

#[test]
fn a_repeated_request_is_answered_when_the_first_is_on_the_disk_and_with_it() {
    for is_stored in [true, false] {
        let mut driven = Driven::new();
        driven.disk();
        let ask = |driven: &mut Driven| driven.ask(|reply| Ask::Run(anna(), new_run(Some("once")), reply));
        let (mut first, mut second) = (ask(&mut driven), ask(&mut driven));
        assert!(second.try_recv().is_err(), "the first is not on the disk");
        if !is_stored {
            let refused =
                |ticket| Stored { ticket, result: Err(NotStored::Refused("it is full".into())), left_out: vec![] };
            let refused = driven.hub.commits.tickets().map(|(ticket, _)| refused(ticket)).collect();
            driven.event(Event::Stored(refused));
        }
        driven.disk();
        let (first, second) = (first.try_recv().unwrap(), second.try_recv().unwrap());
        assert_eq!(first.is_ok(), is_stored);
        assert_eq!(first.map(|accepted| accepted.runs), second.map(|accepted| accepted.runs));
    }
}

#[test]
fn a_machine_is_forgotten_when_its_last_trace_is_off_the_disk() {
    let mut driven = Driven::new();
    let run = driven.run();
    let mut answer = driven.ask(|reply| Ask::Forget(anna(), pi(), reply));
    while driven.hub.runs.get(run).is_some_and(|record| !record.run.state.is_final()) {
        let stored = driven.stored.blocking_recv().unwrap();
        driven.event(Event::Stored(vec![stored]));
    }
    assert!(answer.try_recv().is_err(), "the end of its run is not on the disk");
    driven.disk();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert!(!driven.hub.fleet.contains(&pi()));
    let mut answer = driven.ask(|reply| Ask::Forget(anna(), PiId::controller(), reply));
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, ask::RefusedKind::Conflict);
}

#[test]
fn a_machine_that_was_forgotten_stays_so_whatever_anothers_broker_retains_until_it_speaks_again() {
    let mut driven = Driven::on_anothers_broker(tempfile::tempdir().unwrap());
    driven.greets();
    let mut answer = driven.ask(|reply| Ask::Forget(anna(), pi(), reply));
    driven.disk();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));

    let mut driven = Driven::on_anothers_broker(driven.killed());
    driven.hear_as(true, Topic::Info(pi()), greeting());
    driven.hear_as(true, Topic::Status(pi()), "online");
    driven.hear(Topic::Status(pi()), "offline");
    assert!(!driven.hub.fleet.contains(&pi()), "what is retained is old, and a last will is nobody's word");
    assert!(driven.published(&Topic::Info(pi())), "its topics are cleared");

    driven.greets();
    driven.disk();
    let mut driven = Driven::on_anothers_broker(driven.killed());
    driven.hear_as(true, Topic::Info(pi()), greeting());
    assert!(driven.hub.fleet.contains(&pi()), "it has spoken since");
}

#[test]
fn the_new_token_of_admin_is_told_when_its_file_has_it() {
    let mut driven = Driven::new();
    driven.disk();
    let rotate = |driven: &mut Driven| {
        let mut answer =
            driven.ask(|reply| Ask::RotateAccount(anna(), AccountName::admin(), ask::Rotation::default(), reply));
        while !driven.hub.commits.pending().any(|after| matches!(after, PendingCommit::AdminToken(..))) {
            assert!(answer.try_recv().is_err(), "only its account is on the disk");
            let stored = driven.stored.blocking_recv().unwrap();
            driven.event(Event::Stored(vec![stored]));
        }
        answer
    };
    let mut answer = rotate(&mut driven);
    driven.disk();
    let token = answer.try_recv().unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(driven.folder.path().join("admin.token")).unwrap().trim(), token);
    let mut answer = rotate(&mut driven);
    driven.disk_is_full();
    let refused = answer.try_recv().unwrap().unwrap_err();
    assert!(refused.kind == ask::RefusedKind::Unavailable && refused.detail.contains("admin.token"), "{refused}");
}

#[test]
fn a_machine_of_which_nothing_is_left_but_an_open_run_is_known_and_its_run_ends() {
    let mut driven = Driven::new();
    let run = driven.run();
    let Driven { hub, folder, .. } = driven;
    drop(hub);
    // Its enrolment was never on this disk.
    let mut driven = Driven::on(folder, |_| {});
    driven.hub.now.monotonic += Duration::from_secs(3600);
    driven.hub.tick();
    driven.hub.commit_turn();
    driven.disk();
    assert_eq!(driven.hub.runs.newest()[0].id, run);
    assert_eq!(driven.hub.runs.newest()[0].state, RunState::Expired);
}

const SCHEDULED: &str = "[task.nightly]\ncommand = ['true']\non = ['pi-1']\nschedule = '* * * * *'\ntimezone = 'UTC'\n";

/// A hub whose catalogue has a task that is due each minute, at this time.
fn scheduled(time: &str) -> Driven {
    let mut driven = Driven::new();
    driven.greets();
    driven.disk();
    driven.hub.now.wall = at(time);
    driven.hub.catalogue = Catalogue::parse(SCHEDULED, "tasks.toml").unwrap();
    driven.hub.schedules = schedule::Schedules::new(&driven.hub.catalogue, at(time));
    driven
}

fn at(time: &str) -> pistat_protocol::time::Timestamp {
    format!("2026-11-22T{time}Z").parse().unwrap()
}

#[test]
fn a_schedule_starts_its_task_unless_it_is_late_or_the_last_run_has_not_ended() {
    let mut driven = scheduled("12:00:30");
    for (time, runs, told) in [
        ("12:00:59", 0, None),
        ("12:01:00", 1, Some("requested nightly")),
        ("12:02:00", 1, Some("its last run has not ended")),
        ("12:10:00", 1, Some("its clock was moved")),
    ] {
        driven.hub.now.wall = at(time);
        driven.hub.run_schedules();
        driven.hub.commit_turn();
        driven.disk();
        assert_eq!(driven.hub.runs.newest().len(), runs, "{time}");
        let newest = driven.hub.audit.recent().front().filter(|event| event.account.as_deref() == Some("schedule"));
        assert_eq!(newest.is_some(), told.is_some(), "{time}");
        assert!(newest.is_none_or(|event| told.is_some_and(|told| event.text.contains(told))), "{time}: {newest:?}");
    }
}

#[test]
fn what_is_due_when_the_catalogue_is_read_again_is_not_lost() {
    let mut driven = scheduled("12:00:30");
    driven.hub.now.wall = at("12:01:00.500");
    let again = Catalogue::parse(SCHEDULED, "tasks.toml").unwrap();
    driven.hub.handle(Event::Catalogue(Ok(again)));
    driven.hub.commit_turn();
    driven.disk();
    assert_eq!(driven.hub.runs.newest().len(), 1);
}

/// What was asked for first, after a restart again, and by what ids, when the clock is wrong by so
/// much at first and right afterwards.
fn asked_twice(wrong_milliseconds: i64, request_ids: [&str; 2]) -> [RunId; 2] {
    let mut driven = Driven::new();
    driven.wrong_milliseconds = wrong_milliseconds;
    let ask = |driven: &mut Driven, id: &str| {
        let mut answer = driven.ask(|reply| Ask::Run(anna(), new_run(Some(id)), reply));
        driven.disk();
        answer.try_recv().unwrap().unwrap().runs[0]
    };
    let first = ask(&mut driven, request_ids[0]);
    let Driven { hub, folder, .. } = driven;
    hub.commits.close();
    let mut driven = Driven::on(folder, |loaded| loaded.access.apply(&AccessChange::PutAgent(enrolled("pi-1"))));
    [first, ask(&mut driven, request_ids[1])]
}

#[test]
fn ids_never_go_back_not_even_over_a_restart_with_a_clock_that_was_turned_back() {
    let [ahead, right] = asked_twice(DAY_MILLISECONDS, ["a", "b"]);
    assert!(right > ahead, "{right} was accepted after {ahead}");
}

#[test]
fn a_request_is_remembered_over_a_restart_with_a_clock_that_was_turned_forward() {
    let [before, after] = asked_twice(-2 * DAY_MILLISECONDS, ["k", "k"]);
    assert_eq!(after, before);
}

fn new_account(name: &str) -> pistat_protocol::api::NewAccount {
    serde_json::from_value(serde_json::json!({ "name": name })).unwrap()
}

#[test]
fn of_two_who_make_one_account_at_the_same_moment_one_is_refused_and_the_others_token_works() {
    let mut driven = Driven::new();
    driven.disk();
    let mut first = driven.ask(|reply| Ask::AddAccount(anna(), new_account("olga"), reply));
    let mut second = driven.ask(|reply| Ask::AddAccount(anna(), new_account("Olga"), reply));
    driven.disk();
    let token = first.try_recv().unwrap().unwrap();
    assert_eq!(second.try_recv().unwrap().unwrap_err().kind, ask::RefusedKind::Unavailable);
    assert!(driven.hub.access.caller_by_token(&token, driven.hub.now.wall).is_some());
}

#[test]
fn an_account_that_is_removed_does_not_come_back_by_a_rotation_at_the_same_moment() {
    let mut driven = Driven::new();
    let _made = driven.ask(|reply| Ask::AddAccount(anna(), new_account("olga"), reply));
    driven.disk();
    let olga = || "olga".parse::<AccountName>().unwrap();
    let mut removed = driven.ask(|reply| Ask::RemoveAccount(anna(), olga(), reply));
    let mut rotated = driven.ask(|reply| Ask::RotateAccount(anna(), olga(), ask::Rotation::default(), reply));
    driven.disk();
    assert_eq!(removed.try_recv().unwrap(), Ok(()));
    assert_eq!(rotated.try_recv().unwrap().unwrap_err().kind, ask::RefusedKind::Unavailable);
    assert!(driven.hub.access.account("olga").is_none());
    // Once that has been settled, the name is free again.
    let mut again = driven.ask(|reply| Ask::AddAccount(anna(), new_account("olga"), reply));
    driven.disk();
    assert!(again.try_recv().unwrap().is_ok());
}

#[test]
fn a_machine_and_an_account_that_come_at_the_same_moment_do_not_share_a_name() {
    let mut driven = Driven::new();
    driven.disk();
    let request = format!(r#"{{"secret_sha256":"{}","nonce":"n"}}"#, hex(&[9; 32]));
    driven.hear(Topic::EnrollRequest("olga".parse().unwrap()), request);
    let mut made = driven.ask(|reply| Ask::AddAccount(anna(), new_account("Olga"), reply));
    driven.disk();
    assert_eq!(made.try_recv().unwrap().unwrap_err().kind, ask::RefusedKind::Unavailable);
    assert!(driven.hub.access.agent("olga").is_some() && driven.hub.access.account("olga").is_none());
}

#[test]
fn nobody_names_a_machine_that_is_being_forgotten() {
    let mut driven = Driven::new();
    driven.disk();
    let mut forgotten = driven.ask(|reply| Ask::Forget(anna(), pi(), reply));
    let rename = || pistat_protocol::api::PatchMachine { label: Some(Some("Rack".into())), ..Default::default() };
    while !driven.hub.commits.pending().any(|after| matches!(after, PendingCommit::Forgotten(..))) {
        let stored = driven.stored.blocking_recv().unwrap();
        driven.event(Event::Stored(vec![stored]));
    }
    let mut named = driven.ask(|reply| Ask::Patch(anna(), pi(), rename(), reply));
    driven.disk();
    assert_eq!(forgotten.try_recv().unwrap(), Ok(()));
    assert_eq!(named.try_recv().unwrap().unwrap_err().kind, ask::RefusedKind::Unavailable);
    assert!(!driven.hub.fleet.contains(&pi()) && !driven.hub.commits.is_changing(&pi().key()));
    assert!(!std::fs::read_to_string(driven.folder.path().join("labels.json")).unwrap_or_default().contains("Rack"));
}

#[test]
fn a_last_will_that_comes_late_brings_no_forgotten_machine_back() {
    let mut driven = Driven::on_anothers_broker(tempfile::tempdir().unwrap());
    let gone: PiId = "pi-9".parse().unwrap();
    driven.hear(Topic::Status(gone.clone()), "offline");
    assert!(!driven.hub.fleet.contains(&gone));
    assert!(driven.published(&Topic::Status(gone.clone())), "it is taken off the broker");
    let status = |retain| Heard::Message {
        topic: Topic::Status("pi-9".parse().unwrap()),
        payload: "offline".into(),
        retain,
        account: None,
        response: None,
    };
    driven.event(Event::Heard(vec![status(true)]));
    assert!(!driven.hub.fleet.contains(&gone), "a retained one, after a restart");
    driven.hear(Topic::Status(gone.clone()), "online");
    driven.event(Event::Heard(vec![status(false)]));
    assert!(driven.hub.fleet.contains(&gone), "one that was there is only away");
}

#[test]
fn a_request_that_is_refused_again_and_again_is_answered_each_time_and_told_once_a_minute() {
    let mut driven = Driven::on_anothers_broker(tempfile::tempdir().unwrap());
    driven.disk();
    let request = |task: &str| Heard::Message {
        topic: Topic::Request(pistat_protocol::id::Target::Pi(pi())),
        payload: task.to_owned().into(),
        retain: false,
        account: None,
        response: Some(ResponseTo { topic: "answers/here".into(), correlation: None }),
    };
    driven.hub.outbox.take();
    for _ in 0..100 {
        driven.event(Event::Heard(vec![request("uptime")]));
    }
    let told = |driven: &Driven| {
        driven.hub.audit.recent().iter().filter(|event| event.text.contains("request refused")).count()
    };
    assert_eq!(told(&driven), 1);
    let answers = driven.hub.outbox.iter().filter(|message| message.topic == "answers/here").count();
    assert_eq!((answers, driven.hub.counters.refused_messages()), (100, 100));
    driven.hub.now.monotonic += Duration::from_secs(60);
    driven.hub.tick();
    assert!(driven.hub.audit.recent().iter().any(|event| event.text.starts_with("99 more like this: request refused")));
}

/// Every question that changes something for people, by its name, and the answer's way back.
type NamedChange = (&'static str, fn(&mut Driven) -> Box<dyn FnMut() -> Option<Refused>>);

/// Asks, and gives what came back of it, if it was refused.
fn refusal<T: 'static>(driven: &mut Driven, ask: impl FnOnce(Reply<T>) -> Ask) -> Box<dyn FnMut() -> Option<Refused>> {
    let mut answer = driven.ask(ask);
    Box::new(move || answer.try_recv().ok().and_then(Result::err))
}

const CHANGES: [NamedChange; 13] = [
    ("a new account", |driven| refusal(driven, |reply| Ask::AddAccount(anna(), new_account("Bob"), reply))),
    ("a removed account", |driven| refusal(driven, |reply| Ask::RemoveAccount(anna(), olga(), reply))),
    ("a new token", |driven| {
        refusal(driven, |reply| Ask::RotateAccount(anna(), olga(), ask::Rotation::default(), reply))
    }),
    ("a new role", |driven| {
        let rotation = ask::Rotation { role: Some(Role::Viewer), lifetime: None };
        refusal(driven, |reply| Ask::RotateAccount(anna(), olga(), rotation, reply))
    }),
    ("an end of all sessions", |driven| refusal(driven, |reply| Ask::EndSessions(anna(), anna().account, reply))),
    ("a machine that may join", |driven| {
        refusal(driven, |reply| Ask::AddAgent(anna(), "pi-2".parse().unwrap(), reply))
    }),
    ("a machine that may enrol anew", |driven| refusal(driven, |reply| Ask::ResetAgent(anna(), pi(), reply))),
    ("a forgotten machine", |driven| refusal(driven, |reply| Ask::Forget(anna(), pi(), reply))),
    ("a named join token", |driven| {
        let body = serde_json::from_value(serde_json::json!({"name": "cameras"})).unwrap();
        refusal(driven, |reply| Ask::AddJoinToken(anna(), body, reply))
    }),
    ("a removed join token", |driven| {
        let name = pistat_protocol::id::TokenName::default_token();
        refusal(driven, |reply| Ask::RemoveJoinToken(anna(), name, reply))
    }),
    ("a new join token", |driven| refusal(driven, |reply| Ask::RotateJoinToken(anna(), reply))),
    ("a renamed machine", |driven| {
        let patch = pistat_protocol::api::PatchMachine { label: Some(Some("Rack".into())), ..Default::default() };
        refusal(driven, |reply| Ask::Patch(anna(), pi(), patch, reply))
    }),
    ("a task", |driven| refusal(driven, |reply| Ask::Run(anna(), new_run(None), reply))),
];

fn olga() -> AccountName {
    "olga".parse().unwrap()
}

#[test]
fn what_the_disk_refuses_is_in_no_log_no_feed_and_on_no_topic() {
    for (what, change) in CHANGES {
        for is_refused in [true, false] {
            let mut driven = Driven::new();
            let _made = driven.ask(|reply| Ask::AddAccount(anna(), new_account("olga"), reply));
            driven.disk();
            let mut feed = driven.hub.feed.join(driven.hub.now.wall, false);
            driven.hub.outbox.take();
            let told = driven.hub.audit.recent().len();
            let mut refusal = change(&mut driven);
            let before_the_disk = driven.hub.audit.recent().len() - told + driven.hub.outbox.len();
            assert_eq!(before_the_disk, 0, "{what}: told before it is stored: {:?}", driven.hub.audit.recent().front());
            if is_refused {
                driven.disk_refuses();
            }
            driven.disk();
            driven.event(Event::Frame);
            let traces =
                (driven.hub.audit.recent().len() - told, driven.hub.outbox.len(), usize::from(feed.try_recv().is_ok()));
            if is_refused {
                assert_eq!(refusal().map(|refused| refused.kind), Some(ask::RefusedKind::Unavailable), "{what}");
                assert_eq!(traces, (0, 0, 0), "{what}: {:?}", driven.hub.audit.recent().front());
            } else {
                assert_eq!(refusal(), None, "{what}");
                let event = driven.hub.audit.recent().iter().find(|event| event.account.as_deref() == Some("anna"));
                assert!(event.is_some() && traces.0 > 0 && traces.1 > 0, "{what}: {traces:?}");
            }
        }
    }
}

/// What one machine may do: each payload, by its number, on a topic of its own.
type Flood = (&'static str, fn(u64) -> (Topic, Vec<u8>));

const FLOODS: [Flood; 13] = [
    ("reports of runs that are not there", |n| {
        (Topic::Report(pi(), some_run(n)), b"{\"state\":\"succeeded\",\"boot_id\":\"b\"}".to_vec())
    }),
    ("reports of one such run", |_| {
        (Topic::Report(pi(), some_run(1)), b"{\"state\":\"failed\",\"boot_id\":\"b\"}".to_vec())
    }),
    ("reports that cannot be read", |n| (Topic::Report(pi(), some_run(n)), format!("{{\"state\":\"{n}").into_bytes())),
    ("output of runs that are not there", |n| {
        (Topic::Output(pi(), some_run(n)), b"{\"seq\":0,\"stream\":\"stdout\",\"data\":\"x\"}".to_vec())
    }),
    ("an info that cannot be read", |n| (Topic::Info(pi()), format!("{{\"label\":{n}\n\u{1b}[2J").into_bytes())),
    ("an info that is too large", |_| (Topic::Info(pi()), vec![b'x'; 100_000])),
    ("another label each time", |n| {
        (Topic::Info(pi()), greeting().replacen('{', &format!("{{\"label\":\"{n}\","), 1).into_bytes())
    }),
    ("refused orders", |n| {
        (Topic::Info(pi()), greeting().replacen('{', &format!("{{\"orders_refused\":{n},"), 1).into_bytes())
    }),
    ("coming and going", |n| {
        (Topic::Status(pi()), if n.is_multiple_of(2) { b"online".to_vec() } else { b"offline".to_vec() })
    }),
    ("a status that is none", |n| (Topic::Status(pi()), n.to_string().into_bytes())),
    ("a voltage that comes and goes", |n| {
        let (time, low) = ("2026-12-01T00:00:00Z", n.is_multiple_of(2));
        let text =
            format!(r#"{{"time":"{time}","clock_synchronized":true,"seq":{n},"power":{{"undervoltage":{low}}}}}"#);
        (Topic::Stats(pi()), text.into_bytes())
    }),
    ("samples of before without end", |n| {
        let sample = format!(r#"{{"time":"2026-12-01T00:00:00Z","clock_synchronized":true,"seq":{n}}}"#);
        (Topic::Backfill(pi()), format!("[{sample},{sample},{sample},{sample},{sample}]").into_bytes())
    }),
    ("samples of before that cannot be read", |n| (Topic::Backfill(pi()), n.to_string().into_bytes())),
];

fn some_run(number: u64) -> RunId {
    RunId::from_parts(number, [3; 10])
}

#[test]
fn a_machine_that_floods_costs_the_log_the_disk_and_the_broker_little_whatever_it_publishes() {
    const MESSAGES: u64 = 5000;
    for (what, message) in FLOODS {
        let mut driven = Driven::new();
        driven.greets();
        driven.disk();
        driven.hub.outbox.take();
        let events = driven.hub.audit.next_seq();
        for turn in 0..MESSAGES / 50 {
            let heard = (0..50).map(|n| {
                let (topic, payload) = message(turn * 50 + n);
                Heard::Message { topic, payload: payload.into(), retain: false, account: None, response: None }
            });
            driven.event(Event::Heard(heard.collect()));
        }
        driven.disk();
        let told = driven.hub.audit.next_seq() - events;
        assert!((1..=10).contains(&told) || what.contains("output") || what.contains("label"), "{what}: {told} events");
        assert!(told <= 10, "{what}: {told} events");
        assert!(driven.hub.outbox.len() <= 1100, "{what}: {} messages wait", driven.hub.outbox.len());
        let widest = driven.hub.audit.recent().iter().map(|event| event.text.len()).max().unwrap_or_default();
        assert!(widest < 400, "{what}: {widest}");
        assert!(driven.hub.audit.recent().iter().all(|event| !event.text.contains(char::is_control)), "{what}");
        // What it cannot hide is told once a minute, with its number.
        driven.hub.now.monotonic += Duration::from_secs(60);
        driven.hub.tick();
        assert!(driven.hub.audit.next_seq() - events <= told + 2, "{what}");
    }
}

#[test]
fn clients_that_come_and_go_are_told_once_a_minute_by_account_and_address() {
    let mut driven = Driven::new();
    let _made = driven.ask(|reply| Ask::AddAccount(anna(), new_account("vera"), reply));
    driven.disk();
    let events = driven.hub.audit.next_seq();
    let peer = |n: u16| std::net::SocketAddr::from(([10, 0, 0, 1], n));
    let come = |n: u16| BrokerEvent::Connected {
        account: "vera".into(),
        client_id: n.to_string(),
        peer: peer(n),
        protocol: pistat_broker::Protocol::V5,
    };
    let go =
        |n: u16| BrokerEvent::Disconnected { account: "vera".into(), client_id: n.to_string(), reason: "x".into() };
    for n in 0..6400 {
        driven.event(Event::Broker(vec![come(n), go(n)]));
    }
    assert_eq!(driven.hub.audit.next_seq() - events, 8, "four of each, and then they are counted");
    driven.hub.now.monotonic += Duration::from_secs(60);
    driven.hub.tick();
    let told: Vec<_> = driven.hub.audit.recent().iter().map(|event| event.text.as_str()).take(2).collect();
    assert!(told.contains(&"6396 more like this: connected from 10.0.0.1"), "{told:?}");
}

#[test]
fn peers_that_join_under_ever_new_names_are_one_source_together() {
    let mut driven = Driven::new();
    driven.disk();
    let events = driven.hub.audit.next_seq();
    for n in 0..2000 {
        let go = BrokerEvent::Disconnected { account: format!("q{n}"), client_id: "q".into(), reason: "x".into() };
        driven.event(Event::Broker(vec![go]));
        driven.hear(Topic::EnrollRequest(format!("q{n}").parse().unwrap()), "{bad");
    }
    let written = driven.hub.audit.next_seq() - events;
    assert!((1..=8).contains(&written), "{written} events");
    assert!(driven.hub.audit.recent().iter().take(4).all(|event| event.account.is_none() && event.pi.is_none()));
}

#[test]
fn an_operator_who_asks_without_end_has_a_line_a_minute_and_each_refusal_counts_as_asking() {
    let mut driven = Driven::new();
    driven.greets();
    driven.disk();
    let events = driven.hub.audit.next_seq();
    for n in 0..500 {
        let run = NewRun { task: format!("task-{n}").parse().unwrap(), ..new_run(None) };
        let _refused = driven.ask(|reply| Ask::Run(anna(), run, reply));
    }
    let told = driven.hub.audit.next_seq() - events;
    assert!((10..=65).contains(&told), "{told}");
    driven.hub.now.monotonic += Duration::from_secs(60);
    driven.hub.tick();
    assert!(driven.hub.audit.next_seq() - events <= told + 2);
}

#[test]
fn a_broker_that_takes_nothing_is_left_and_everything_that_is_retained_is_published_on_the_next_connection() {
    let mut driven = Driven::new();
    driven.greets();
    driven.disk();
    for _ in 0..=MOST_WAITING {
        let topic = "x".to_owned();
        driven.hub.send(Outgoing { topic, payload: Vec::new(), qos: 1, retain: true, correlation: None });
    }
    assert!(driven.hub.outbox.has_given_up() && !driven.hub.outbox.has_messages());
    driven.event(Event::Heard(vec![Heard::Disconnected]));
    driven.event(Event::Heard(vec![Heard::Connected]));
    assert!(!driven.hub.outbox.has_given_up() && driven.published(&Topic::Meta(pi())));
}

#[test]
fn a_machine_that_joins_has_no_name_of_another() {
    let mut driven = Driven::new();
    driven.greets();
    driven.is_called("Garage");
    let request = format!(r#"{{"secret_sha256":"{}","nonce":"n"}}"#, hex(&[9; 32]));
    driven.hear(Topic::EnrollRequest("garage".parse().unwrap()), request.clone());
    let mut added = driven.ask(|reply| Ask::AddAgent(anna(), "GARAGE".parse().unwrap(), reply));
    driven.disk();
    assert!(driven.hub.access.agent("garage").is_none());
    let refused = added.try_recv().unwrap().unwrap_err();
    assert!(refused.kind == ask::RefusedKind::Conflict && refused.detail.contains("pi-1"), "{refused}");
    driven.hear(Topic::EnrollRequest("shed".parse().unwrap()), request);
    driven.disk();
    assert!(driven.hub.access.agent("shed").is_some());
}

#[test]
fn on_anothers_broker_a_machine_with_the_label_of_another_is_not_made_known() {
    let mut driven = Driven::on_anothers_broker(tempfile::tempdir().unwrap());
    driven.greets();
    driven.is_called("Garage");
    driven.hear(Topic::Status("garage".parse().unwrap()), "online");
    assert!(!driven.hub.fleet.contains(&"garage".parse().unwrap()));
    driven.hear(Topic::Status("shed".parse().unwrap()), "online");
    assert!(driven.hub.fleet.contains(&"shed".parse().unwrap()));
}

#[test]
fn only_an_administrator_changes_a_tag_that_says_where_a_task_may_run() {
    let catalogue = "[task.snap]\ncommand = ['true']\non = ['@camera']\n[task.any]\ncommand = ['true']\n";
    let admin = || Caller { role: Role::Admin, ..anna() };
    let tags = |names: &[&str]| pistat_protocol::api::PatchMachine {
        tags: Some(names.iter().map(|name| name.parse().unwrap()).collect()),
        ..Default::default()
    };
    let mut driven = Driven::new();
    driven.hub.catalogue = Catalogue::parse(catalogue, "tasks.toml").unwrap();
    driven.disk();
    let mut told = Vec::new();
    for (caller, names) in [
        (anna(), &["attic"][..]),
        (anna(), &["attic", "camera"]),
        (admin(), &["attic", "camera"]),
        (anna(), &["camera"]),
        (anna(), &[]),
        (admin(), &[]),
    ] {
        let mut answer = driven.ask(|reply| Ask::Patch(caller, pi(), tags(names), reply));
        driven.disk();
        told.push(answer.try_recv().unwrap().err().map(|refused| refused.kind));
    }
    let no = Some(ask::RefusedKind::Forbidden);
    assert_eq!(told, [None, no, None, None, no, None]);
}

#[test]
fn everything_that_is_retained_under_a_removed_machine_is_cleared_whatever_it_is() {
    let mut driven = Driven::new();
    driven.greets();
    let mut answer = driven.ask(|reply| Ask::Forget(anna(), pi(), reply));
    driven.disk();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert_eq!(driven.hub.outbox.next_look(), Some(Look::At(vec!["pistat/pi-1/#".into()])));
    driven.hub.outbox.take();
    driven.hear_as(true, Topic::Backfill(pi()), "x");
    let elsewhere = |topic: &str| Heard::RetainedElsewhere { topic: topic.into(), payload: "x".into() };
    driven.event(Event::Heard(vec![
        elsewhere("pistat/pi-1/task/none/output"),
        elsewhere("pistat/pi-1"),
        elsewhere("pistat/pi-2x"),
        elsewhere("other/pi-1/x"),
    ]));
    let cleared: Vec<_> =
        driven.hub.outbox.iter().filter(|message| message.payload.is_empty() && message.retain).collect();
    let topics: Vec<_> = cleared.iter().map(|message| message.topic.as_str()).collect();
    assert_eq!(topics, ["pistat/pi-1/stats/backfill", "pistat/pi-1/task/none/output", "pistat/pi-1"]);
    driven.hub.now.monotonic += Duration::from_secs(11);
    driven.hub.tick();
    assert_eq!(driven.hub.outbox.next_look(), Some(Look::Away(vec!["pistat/pi-1/#".into()])));
}

/// A hub that was configured with the prefix `pistat` before, and has another now.
fn with_another_prefix(prefix: &str) -> Driven {
    let Driven { hub, folder, mut stored, .. } = Driven::new();
    hub.commits.close();
    stored.close();
    let mut config = Config::default();
    config.mqtt.topics = Topics::new(prefix).unwrap();
    let mut driven =
        Driven::configured(config, folder, |loaded| loaded.access.apply(&AccessChange::PutAgent(enrolled("pi-1"))));
    driven.event(Event::Heard(vec![Heard::Connected]));
    driven.hub.outbox.take();
    driven
}

#[test]
fn what_is_retained_under_the_former_prefix_is_cleared_if_it_is_ours_and_is_looked_for_until_it_is() {
    for prefix in ["home/pis", "pistat/new"] {
        let mut driven = with_another_prefix(prefix);
        assert_eq!(driven.hub.outbox.next_look(), Some(Look::At(vec!["pistat/controller/key".into()])), "{prefix}");
        let retained = |topic: &str, payload: &str| Heard::RetainedElsewhere {
            topic: topic.into(),
            payload: payload.to_owned().into(),
        };
        let topics =
            ["pistat/pi-1/status", "pistat/pi-1/task/x/output", "pistat/controller/tasks", "pistat/else/status"];
        let all = || topics.map(|topic| retained(topic, "x"));
        driven.event(Event::Heard(all().into()));
        assert!(!driven.hub.outbox.has_messages(), "whose it is, is not known");
        let key = String::from_utf8(pistat_protocol::codec::encode(&driven.hub.key.public().view())).unwrap();
        driven.event(Event::Heard(vec![retained("pistat/controller/key", &key)]));
        assert!(matches!(driven.hub.outbox.next_look(), Some(Look::At(filters)) if filters.len() > 10));
        driven.event(Event::Heard(all().into()));
        let cleared: Vec<_> = driven.hub.outbox.take().into_iter().map(|message| message.topic).collect();
        assert_eq!(cleared, topics[..3], "{prefix}");
        driven.hub.now.monotonic += Duration::from_secs(11);
        driven.hub.tick();
        assert!(driven.hub.outbox.iter().any(|message| message.topic == "pistat/controller/key"));
        driven.hub.commit_turn();
        driven.disk();
        assert_eq!(driven.hub.commits.reader().fact("topic prefixes").unwrap(), Some(format!("[\"{prefix}\"]")));
    }
}

#[test]
fn what_another_controller_retains_under_the_former_prefix_stays() {
    let mut driven = with_another_prefix("home/pis");
    let other = ControllerKey::from_secret(&[9; 32]).public().view();
    for (topic, payload) in
        [("pistat/controller/key", pistat_protocol::codec::encode(&other)), ("pistat/pi-1/status", b"online".to_vec())]
    {
        driven.event(Event::Heard(vec![Heard::RetainedElsewhere { topic: topic.into(), payload: payload.into() }]));
    }
    driven.hub.now.monotonic += Duration::from_secs(11);
    driven.hub.tick();
    assert!(driven.hub.outbox.iter().all(|message| !message.topic.starts_with("pistat/")));
}
