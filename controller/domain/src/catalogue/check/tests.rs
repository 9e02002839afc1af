//! What the catalogue lets run and what it refuses, and that no value leaves its element of the
//! argv.

use pistat_protocol::{
    id::RunId,
    order::{ControllerKey, VerifiedOrder},
    status::Session,
    task::ArgumentValue,
};
use proptest::prelude::*;

use super::*;

const CATALOGUE: &str = r#"
[task.uptime]
command = ["uptime"]
[task.log]
command = ["journalctl", "-u", "{unit}", "--lines={lines}", "{{literal}}", "{free}{free}", "x-{raw}"]
args.unit = { choices = ["ssh", "cron"] }
args.lines = { integer = { min = 1, max = 1000 }, default = 100 }
args.free = { pattern = "[^x]*", max_length = 20, default = "" }
args.raw = { pattern = "(?s).*", dash = true, default = "" }
args.level = { number = { min = 0, max = 10 }, default = 1.5 }
args.loud = { boolean = true, default = false }
args.peer = { machine = true, default = "pi-1" }
"#;

fn catalogue() -> Catalogue {
    let text = CATALOGUE.replace("\"x-{raw}\"", "\"x-{raw}\", \"{level}\", \"{loud}\", \"{peer}\"");
    let more = r#"
[task.camera]
command = ["camera"]
on = ["@camera", "Pi-9"]
[task.wipe]
command = ["wipe"]
role = "admin"
root = true
"#;
    Catalogue::parse(&format!("{text}{more}"), "tasks.toml").unwrap()
}

fn text(value: &str) -> ArgumentValue {
    ArgumentValue::Text(value.into())
}

struct World {
    pi: PiId,
    tags: Vec<Tag>,
    policy: Option<ExecutionPolicy>,
    listed: Option<Vec<TaskId>>,
    runner: Option<bool>,
    role: Option<Role>,
}

impl Default for World {
    fn default() -> Self {
        let pi = "pi-1".parse().unwrap();
        Self { pi, tags: Vec::new(), policy: None, listed: None, runner: None, role: Some(Role::Operator) }
    }
}

impl World {
    fn check(&self, task: &str, args: &[(&str, ArgumentValue)]) -> Result<ApprovedTask, Refusal> {
        let args: Arguments = args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let task = task.parse().unwrap();
        let (role, machine) = (self.role, self.facts());
        catalogue().check(&Ask { task: &task, args: &args, role, machine, is_machine: &|id| id == "pi-1" })
    }

    fn facts(&self) -> MachineFacts<'_> {
        MachineFacts {
            pi: &self.pi,
            tags: &self.tags,
            unconfirmed_tags: &[],
            policy: self.policy,
            listed: self.listed.as_deref(),
            runner: self.runner,
        }
    }
}

#[test]
fn an_approved_task_has_its_defaults_filled_in() {
    let approved = World::default().check("log", &[("unit", text("ssh")), ("lines", text("+7"))]).unwrap();
    assert_eq!(
        approved.argv(),
        ["journalctl", "-u", "ssh", "--lines=7", "{literal}", "", "x-", "1.5", "false", "pi-1"]
    );
    assert_eq!(approved.args()["lines"], ArgumentValue::Integer(7));
    assert_eq!(approved.args().len(), 7);
}

#[test]
fn what_is_not_described_is_refused() {
    use RefusalKind::{BadArgument, NotAllowed, NotOnThisMachine, UnknownTask};
    type Case = (&'static str, Vec<(&'static str, ArgumentValue)>, RefusalKind, &'static str);
    let world = World::default();
    let unit = ("unit", text("ssh"));
    let table: Vec<Case> = vec![
        ("uptme", vec![], UnknownTask, "There is no task uptme; did you mean uptime?"),
        ("zzz", vec![], UnknownTask, "There is no task zzz; `task list` shows all tasks"),
        ("uptime", vec![("x", text("y"))], BadArgument, "uptime has no argument \"x\"; it takes none"),
        ("log", vec![], BadArgument, "log needs unit: one of ssh, cron"),
        ("log", vec![("unit", text("ssh; rm"))], BadArgument, "unit cannot be \"ssh; rm\": it is one of ssh, cron"),
        ("log", vec![("unit", ArgumentValue::Boolean(true))], BadArgument, "unit cannot be \"true\""),
        ("log", vec![unit.clone(), ("lines", text("0"))], BadArgument, "lines cannot be \"0\""),
        ("log", vec![unit.clone(), ("lines", text("1 "))], BadArgument, "lines cannot be \"1 \""),
        ("log", vec![unit.clone(), ("lines", ArgumentValue::Number(1.5))], BadArgument, "lines cannot be"),
        ("log", vec![unit.clone(), ("free", text("--help"))], BadArgument, "free cannot start with '-'"),
        ("log", vec![unit.clone(), ("free", text("axb"))], BadArgument, "free cannot be \"axb\""),
        ("log", vec![unit.clone(), ("free", text("a\nb"))], BadArgument, "free cannot hold a line break"),
        ("log", vec![unit.clone(), ("raw", text("a\0b"))], BadArgument, "raw cannot hold a line break"),
        ("log", vec![unit.clone(), ("free", text(&"a".repeat(21)))], BadArgument, "at most 20 characters"),
        ("log", vec![unit.clone(), ("level", text("NaN"))], BadArgument, "level cannot be"),
        ("log", vec![unit.clone(), ("level", text("inf"))], BadArgument, "level cannot be"),
        ("log", vec![unit.clone(), ("loud", text("yes"))], BadArgument, "true or false"),
        ("log", vec![unit, ("peer", text("pi-7"))], BadArgument, "the pi-id of a known machine"),
        ("wipe", vec![], NotAllowed, "wipe cannot run on pi-1: it needs the role admin, and yours is operator"),
        ("camera", vec![], NotOnThisMachine, "camera cannot run on pi-1: the catalogue allows it on @camera, Pi-9"),
    ];
    for (task, args, kind, sentence) in table {
        let refusal = world.check(task, &args).unwrap_err();
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.message.contains(sentence), "{refusal}\n{sentence}");
    }
}

#[test]
fn a_viewer_runs_nothing_and_the_schedule_what_the_catalogue_schedules() {
    let viewer = World { role: Some(Role::Viewer), ..World::default() };
    assert_eq!(viewer.check("uptime", &[]).unwrap_err().kind, RefusalKind::NotAllowed);
    let schedule = World { role: None, ..World::default() };
    assert!(schedule.check("wipe", &[]).is_ok());
}

#[test]
fn the_machine_has_a_say() {
    let camera = World { tags: vec!["camera".parse().unwrap()], ..World::default() };
    assert!(camera.check("camera", &[]).is_ok());
    let by_id = World { pi: "pi-9".parse().unwrap(), ..World::default() };
    assert!(by_id.check("camera", &[]).is_ok());
    let never = World { policy: Some(ExecutionPolicy::Never), ..World::default() };
    assert_eq!(never.check("uptime", &[]).unwrap_err().kind, RefusalKind::RegisterOnly);
    let admin = |runner| World { role: Some(Role::Admin), runner, ..World::default() };
    assert_eq!(admin(Some(false)).check("wipe", &[]).unwrap_err().kind, RefusalKind::NoRunner);
    assert!(admin(Some(true)).check("wipe", &[]).is_ok() && admin(None).check("wipe", &[]).is_ok());
}

/// A machine and a role, and for each reason the tasks that cannot run.
type Blocked = (World, &'static [(Obstacle, &'static [&'static str])]);

#[test]
fn what_a_machine_cannot_run_is_what_a_request_for_it_would_be_refused() {
    let listed = |tasks: &[&str]| {
        let listed = tasks.iter().map(|task| task.parse().unwrap()).collect();
        World { policy: Some(ExecutionPolicy::Listed), listed: Some(listed), ..World::default() }
    };
    let camera = vec!["camera".parse().unwrap()];
    let admin = || World { role: Some(Role::Admin), ..World::default() };
    // `log` has an argument without a default, so its refusals below are about the machine only
    // with that argument.
    let worlds: [Blocked; 8] = [
        (World::default(), &[(Obstacle::NotOn, &["camera"]), (Obstacle::Role, &["wipe"])]),
        (World { tags: camera, ..World::default() }, &[(Obstacle::Role, &["wipe"])]),
        (World { role: None, ..World::default() }, &[(Obstacle::NotOn, &["camera"])]),
        (admin(), &[(Obstacle::NotOn, &["camera"])]),
        (World { runner: Some(false), ..admin() }, &[(Obstacle::NotOn, &["camera"]), (Obstacle::NoRunner, &["wipe"])]),
        (
            World { policy: Some(ExecutionPolicy::Never), ..admin() },
            &[(Obstacle::RegisterOnly, &["uptime", "log", "wipe"]), (Obstacle::NotOn, &["camera"])],
        ),
        (
            listed(&["uptime"]),
            &[(Obstacle::NotListed, &["log"]), (Obstacle::NotOn, &["camera"]), (Obstacle::Role, &["wipe"])],
        ),
        // An older agent does not tell which tasks it lists: it has the last word itself.
        (World { policy: Some(ExecutionPolicy::Listed), ..admin() }, &[(Obstacle::NotOn, &["camera"])]),
    ];
    for (number, (world, expected)) in worlds.into_iter().enumerate() {
        let cannot = catalogue().cannot_run(&world.facts(), world.role);
        let told: Vec<(Obstacle, Vec<&str>)> =
            cannot.iter().map(|c| (c.reason, c.tasks.iter().map(TaskId::as_str).collect())).collect();
        let expected: Vec<_> = expected.iter().map(|(reason, tasks)| (*reason, tasks.to_vec())).collect();
        assert_eq!(told, expected, "world {number}");
        for task in catalogue().tasks() {
            let args = if task.view.id.as_str() == "log" { vec![("unit", text("ssh"))] } else { Vec::new() };
            let refusal = world.check(task.view.id.as_str(), &args).err();
            let obstacle = cannot.iter().find(|cannot| cannot.tasks.contains(&task.view.id));
            let sentence = |c: &CannotRun| format!("{} cannot run on pi-1: {}", task.view.id, c.message);
            assert_eq!(refusal.map(|refusal| refusal.message), obstacle.map(sentence), "world {number}");
        }
    }
}

#[test]
fn the_signed_order_is_what_was_approved() {
    let approved = World::default().check("log", &[("unit", text("cron"))]).unwrap();
    let key = ControllerKey::from_secret(&[7; 32]);
    let (run, session) = (RunId::from_parts(1, [1; 10]), Session::from_random([2; 16]));
    let signed = approved.sign(&key, run, &session, "anna", None);
    let VerifiedOrder::Execute(order) = key.public().verify_signed(&signed).unwrap() else {
        panic!("an execute order")
    };
    let order = order.accept(approved.pi(), &session, run).unwrap().into_inner();
    assert_eq!((order.argv, order.requested_by.as_str()), (approved.argv(), "anna"));
    assert_eq!((order.timeout_milliseconds, order.grace_milliseconds), (60_000, 5_000));
}

fn any_value() -> impl Strategy<Value = ArgumentValue> {
    prop_oneof![
        any::<bool>().prop_map(ArgumentValue::Boolean),
        any::<i64>().prop_map(ArgumentValue::Integer),
        (0i64..2000).prop_map(ArgumentValue::Integer),
        any::<f64>().prop_map(ArgumentValue::Number),
        any::<String>().prop_map(ArgumentValue::Text),
        "-?[a-z0-9]{0,6}".prop_map(ArgumentValue::Text),
        prop_oneof![Just("ssh"), Just("cron"), Just("pi-1"), Just("true")].prop_map(text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_arguments_produce_an_argv_that_the_catalogue_does_not_describe(
        values in proptest::collection::vec(proptest::option::of(any_value()), 7),
        stray in proptest::option::weighted(0.05, any::<String>()),
    ) {
        let names = ["unit", "lines", "free", "raw", "level", "loud", "peer"];
        let mut given: Vec<_> = names.iter().zip(values).filter_map(|(name, value)| Some((*name, value?))).collect();
        if let Some(stray) = &stray {
            given.push((stray, text("x")));
        }
        if let Ok(approved) = World::default().check("log", &given) {
            let catalogue = catalogue();
            let command = &catalogue.get(&"log".parse().unwrap()).unwrap().command;
            prop_assert!(stray.is_none_or(|stray| names.contains(&stray.as_str())));
            prop_assert!(command.describes(&approved.argv()), "{:?}", approved.argv());
            prop_assert!(["ssh", "cron"].contains(&approved.argv()[2].as_str()));
            prop_assert!(approved.argv().iter().skip(3).all(|element| element.starts_with("--lines=") || !element.starts_with('-')));
            prop_assert!(approved.argv().iter().all(|element| !element.contains(char::is_control)));
        }
    }
}
