//! What is promised and when: the hub by itself, with a store whose word the test hands on.

use pistat_protocol::{account::Role, api::NewRun};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::*;
use crate::{
    access::{Caller, Credential},
    store::Retention,
};

const CATALOGUE: &str = "[task.uptime]\nlabel = \"Uptime\"\ndescription = \"How long\"\ncommand = [\"uptime\"]\n";

/// A hub, and the words of its store that it has not heard.
struct Setup {
    hub: Hub,
    stored: mpsc::UnboundedReceiver<Stored>,
}

impl Setup {
    fn start(folder: &std::path::Path) -> Self {
        let retention = Retention { days: 30, runs: 1000, events: 1000 };
        let (store, loaded, stored) = Store::open(folder, retention).unwrap();
        let secret = SecretHash::of("controller");
        let mut hub = Hub::new(HubParts {
            config: Arc::new(Config::default()),
            catalogue: Catalogue::parse(CATALOGUE, "tasks.toml").unwrap(),
            store,
            access: watch::channel(Arc::new(Access::default())).0,
            loaded,
            broker: None,
            controller_secret: secret,
            mqtt_port: None,
        });
        hub.commit_turn();
        Self { hub, stored }
    }

    fn ask(&mut self, ask: Ask) {
        self.hub.answer(ask);
        self.hub.commit_turn();
    }

    fn run(&mut self, request_id: &str) -> oneshot::Receiver<Result<AcceptedRuns, Refused>> {
        let request = format!(r#"{{"task":"uptime","target":"controller","request_id":"{request_id}"}}"#);
        let request: NewRun = serde_json::from_str(&request).unwrap();
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Run(caller(), request, reply));
        answer
    }

    fn cancel(&mut self, run: RunId) -> oneshot::Receiver<Result<(), Refused>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Cancel(caller(), run, reply));
        answer
    }

    /// Everything that was handed to the store is on the disk, and the hub hears of it.
    fn hear_the_store(&mut self) {
        while !self.hub.after.is_empty() {
            let stored = self.stored.blocking_recv().unwrap();
            self.hub.all_stored(vec![stored]);
            self.hub.commit_turn();
        }
    }

    fn stop(self) {
        self.hub.store.close();
    }
}

fn caller() -> Caller {
    let credential = Credential::Token(SecretHash::of("token"));
    Caller { account: pistat_protocol::id::AccountName::admin(), role: Role::Admin, credential }
}

fn waits<T>(answer: &mut oneshot::Receiver<Result<T, Refused>>) -> bool {
    matches!(answer.try_recv(), Err(TryRecvError::Empty))
}

#[test]
fn nobody_is_told_of_a_run_or_a_cancel_before_it_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::start(folder.path());
    let mut first = setup.run("k");
    // Whoever asks again meanwhile, since the first answer is late, waits for the same word of the store.
    let mut second = setup.run("k");
    assert!(waits(&mut first) && waits(&mut second));
    setup.hear_the_store();
    let accepted = first.try_recv().unwrap().unwrap();
    assert_eq!(second.try_recv().unwrap().unwrap(), accepted);
    assert_eq!(setup.run("k").try_recv().unwrap().unwrap(), accepted, "what is on the disk is told at once");

    let mut cancelled = setup.cancel(accepted.runs[0]);
    assert!(waits(&mut cancelled));
    setup.hear_the_store();
    assert_eq!(cancelled.try_recv().unwrap(), Ok(()));
    assert_eq!(setup.cancel(accepted.runs[0]).try_recv().unwrap().unwrap_err().status, 409);
    setup.stop();
}

#[test]
fn everybody_who_asked_is_refused_when_the_runs_cannot_be_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::start(folder.path());
    setup.hear_the_store();
    let (mut first, mut second) = (setup.run("k"), setup.run("k"));
    let is_request = |after: &After| matches!(after, After::Runs(AfterRuns { accepted: Some(_), .. }));
    let ticket = *setup.hub.after.iter().find(|(_, after)| is_request(after)).unwrap().0;
    setup.hub.all_stored(vec![Stored { ticket, result: Err("the disk is full".into()) }]);
    for answer in [&mut first, &mut second] {
        assert_eq!(answer.try_recv().unwrap().unwrap_err().status, 503);
    }
    assert_eq!(setup.hub.runs.newest(), Vec::new());
    setup.stop();
}

/// As if the clock were wrong by so many days.
fn turn(setup: &mut Setup, days: i64) {
    let wrong = setup.hub.now.wall.unix_milliseconds() + days * 86_400_000;
    setup.hub.now.wall = pistat_protocol::time::Timestamp::from_unix_milliseconds(wrong);
}

#[test]
fn ids_never_go_back_not_even_over_a_restart_with_a_clock_that_was_turned_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::start(folder.path());
    turn(&mut setup, 1);
    let mut ahead = setup.run("a");
    setup.hear_the_store();
    setup.stop();
    let mut setup = Setup::start(folder.path());
    let mut right = setup.run("b");
    setup.hear_the_store();
    setup.stop();
    let (ahead, right) = (ahead.try_recv().unwrap().unwrap().runs[0], right.try_recv().unwrap().unwrap().runs[0]);
    assert!(right > ahead, "{right} was accepted after {ahead}");
}

#[test]
fn a_request_is_remembered_over_a_restart_with_a_clock_that_was_turned_forward() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::start(folder.path());
    turn(&mut setup, -2);
    let mut before = setup.run("k");
    setup.hear_the_store();
    setup.stop();
    let mut setup = Setup::start(folder.path());
    let mut after = setup.run("k");
    setup.hear_the_store();
    setup.stop();
    assert_eq!(after.try_recv().unwrap(), before.try_recv().unwrap());
}
