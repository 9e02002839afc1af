//! Names and tags: whose count, and for what.

use pistat_protocol::api::{NewAccount, PatchMachine};

use super::*;

const CAMERA: &str = "[task.snap]\ncommand = ['true']\non = ['@camera']\nschedule = '0 3 * * *'\n";

fn admin() -> Caller {
    Caller { role: Role::Admin, ..anna() }
}

fn tagged(names: &[&str]) -> PatchMachine {
    PatchMachine { tags: Some(names.iter().map(|name| name.parse().unwrap()).collect()), ..PatchMachine::default() }
}

fn confirmed(name: &str) -> PatchMachine {
    PatchMachine { confirm_tags: Some(vec![name.parse().unwrap()]), ..PatchMachine::default() }
}

impl Driven {
    fn patches(&mut self, caller: Caller, patch: PatchMachine) -> Option<ask::RefusedKind> {
        let mut answer = self.ask(|reply| Ask::Patch(caller, pi(), patch, reply));
        self.disk();
        answer.try_recv().unwrap().err().map(|refused| refused.kind)
    }

    fn snaps(&mut self) -> Result<usize, Refused> {
        let run = NewRun { task: "snap".parse().unwrap(), ..new_run(None) };
        let mut answer = self.ask(|reply| Ask::Run(anna(), run, reply));
        self.disk();
        answer.try_recv().unwrap().map(|accepted| accepted.runs.len())
    }

    fn told(&self, part: &str) -> usize {
        self.hub.audit.recent().iter().filter(|event| event.text.contains(part)).count()
    }

    fn calls_itself(&mut self, pi: &str, label: &str) {
        let info = greeting().replacen('{', &format!("{{\"label\":\"{label}\","), 1);
        self.hear(Topic::Info(pi.parse().unwrap()), info);
    }

    fn enrols(&mut self, pi: &str) -> bool {
        let request = format!(
            r#"{{"secret_sha256":"{}","nonce":"{}","serial":null,"label":null}}"#,
            "a".repeat(64),
            "b".repeat(32)
        );
        self.hear(Topic::EnrollRequest(pi.parse().unwrap()), request);
        self.disk();
        self.hub.access.agent(pi).is_some_and(|agent| agent.secret_sha256.is_some())
    }

    fn label(&self, pi: &str) -> String {
        self.hub.fleet.label(&pi.parse().unwrap())
    }
}

#[test]
fn a_tag_that_an_operator_gave_early_does_not_count_when_the_catalogue_names_it_later() {
    let mut driven = Driven::new();
    driven.greets();
    assert_eq!(driven.patches(anna(), tagged(&["camera", "rack"])), None);
    // An administrator who gives another tag has not looked at this one.
    assert_eq!(driven.patches(admin(), tagged(&["camera", "lab", "rack"])), None);
    driven.event(Event::Catalogue(Catalogue::parse(CAMERA, "tasks.toml")));
    driven.disk();
    let refused = driven.snaps().unwrap_err();
    assert!(
        refused.kind == ask::RefusedKind::Conflict && refused.detail.contains("pistat tag add pi-1 camera"),
        "{refused:?}"
    );
    assert_eq!(driven.told("tags given by operators do not count where the catalogue says `on`: pi-1 @camera"), 1);
    driven.hub.run_scheduled(&"snap".parse().unwrap());
    driven.hub.commit_turn();
    driven.disk();
    assert_eq!(driven.told("snap was not started on schedule: 1 of 1 machines were left out: pi-1"), 1);
    assert_eq!(driven.patches(anna(), confirmed("camera")), Some(ask::RefusedKind::Forbidden));
    assert_eq!(driven.patches(admin(), confirmed("none")), Some(ask::RefusedKind::Invalid));
    assert!(driven.snaps().is_err());
    assert_eq!(driven.patches(admin(), confirmed("camera")), None);
    assert_eq!(driven.snaps(), Ok(1));
}

#[test]
fn an_operator_who_gives_a_tag_does_not_confirm_it_in_the_same_breath() {
    let mut driven = Driven::new();
    let both = || PatchMachine { tags: tagged(&["camera"]).tags, ..confirmed("camera") };
    assert_eq!(driven.patches(anna(), both()), Some(ask::RefusedKind::Forbidden));
    assert_eq!(driven.patches(anna(), tagged(&["camera"])), None);
    assert_eq!(driven.patches(anna(), tagged(&[])), None);
    assert_eq!(driven.patches(anna(), both()), Some(ask::RefusedKind::Forbidden));
    // What an administrator gave counts already: to say so again changes and tells nothing.
    assert_eq!(driven.patches(admin(), tagged(&["camera"])), None);
    assert_eq!(driven.patches(anna(), confirmed("camera")), None);
    assert_eq!(driven.told("from an administrator now"), 0);
}

#[test]
fn what_is_known_of_a_tag_outlives_a_restart() {
    let mut driven = Driven::new();
    assert_eq!(driven.patches(anna(), tagged(&["camera"])), None);
    let Driven { hub, folder, mut stored, .. } = driven;
    hub.commits.close();
    stored.close();
    let mut driven = Driven::on(folder, |loaded| loaded.access.apply(&AccessChange::PutAgent(enrolled("pi-1"))));
    driven.event(Event::Catalogue(Catalogue::parse(CAMERA, "tasks.toml")));
    assert!(driven.snaps().is_err());
}

#[test]
fn what_a_machine_calls_itself_keeps_no_pi_id_and_no_account_from_its_name() {
    let mut driven = Driven::new();
    driven.calls_itself("pi-1", "Garage");
    assert_eq!(driven.label("pi-1"), "Garage");
    assert!(driven.enrols("garage"));
    assert_eq!(driven.label("pi-1"), "pi-1");
    assert_eq!(driven.told("calls itself \"Garage\""), 1);
    // It goes on saying so, which is one event.
    driven.calls_itself("pi-1", "Garage");
    assert_eq!((driven.label("pi-1").as_str(), driven.told("calls itself")), ("pi-1", 1));
    driven.calls_itself("pi-1", "Olga");
    assert_eq!(driven.label("pi-1"), "Olga");
    let olga = NewAccount {
        name: "olga".parse().unwrap(),
        role: Role::Viewer,
        publish: vec![],
        subscribe: vec![],
        expires: None,
    };
    let mut answer = driven.ask(|reply| Ask::AddAccount(admin(), olga, reply));
    driven.disk();
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(driven.label("pi-1"), "pi-1");
}

#[test]
fn what_a_machine_calls_itself_is_not_used_where_something_else_has_that_name() {
    let mut driven = Driven::new();
    assert!(driven.enrols("garage"));
    driven.calls_itself("garage", "Shed");
    let patch = PatchMachine { label: Some(Some("Rack".into())), ..tagged(&["camera"]) };
    let mut answer = driven.ask(|reply| Ask::Patch(admin(), "garage".parse().unwrap(), patch, reply));
    driven.disk();
    assert!(answer.try_recv().unwrap().is_ok());
    for name in ["garage", "RACK", "camera", "anna", "ra\\u202eck"] {
        driven.calls_itself("pi-1", name);
        assert_eq!(driven.label("pi-1"), "pi-1", "{name}");
    }
    driven.calls_itself("pi-1", "Attic");
    assert_eq!(driven.label("pi-1"), "Attic");
    // Given by people it wins, also when it comes later.
    let patch = PatchMachine { label: Some(Some("Attic".into())), ..PatchMachine::default() };
    let mut answer = driven.ask(|reply| Ask::Patch(anna(), "garage".parse().unwrap(), patch, reply));
    driven.disk();
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!((driven.label("garage").as_str(), driven.label("pi-1").as_str()), ("Attic", "pi-1"));
}

#[test]
fn an_operators_tag_keeps_no_machine_out_and_names_of_people_do() {
    let mut driven = Driven::new();
    assert_eq!(driven.patches(anna(), tagged(&["garage"])), None);
    assert!(driven.enrols("garage"));
    assert_eq!(driven.patches(admin(), tagged(&["shed"])), None);
    assert!(!driven.enrols("shed"));
    let patch = PatchMachine { label: Some(Some("Attic".into())), ..PatchMachine::default() };
    assert_eq!(driven.patches(anna(), patch), None);
    assert!(!driven.enrols("attic"));
}
