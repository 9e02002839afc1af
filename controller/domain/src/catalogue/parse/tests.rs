//! Catalogues as they are written, and every mistake in one with its line.

use pistat_protocol::task::{ArgumentKind, ArgumentValue};

use super::*;

fn problems(text: &str) -> Vec<String> {
    let problems = Catalogue::parse(text, "tasks.toml").unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_task_that_names_only_its_command_has_the_documented_defaults() {
    let catalogue = Catalogue::parse("[task.uptime]\ncommand = ['uptime']\n", "tasks.toml").unwrap();
    let task = catalogue.get(&"uptime".parse().unwrap()).unwrap();
    let view = task.view();
    assert_eq!((view.label.as_str(), view.description.as_str(), view.timeout_seconds), ("uptime", "", 60.0));
    assert_eq!((view.role, view.confirm, view.concurrency, view.root), (Role::Operator, false, 1, false));
    assert_eq!((view.ends, view.on.as_slice(), &view.schedule), (Ends::Exit, &["@all".to_owned()][..], &None));
    assert_eq!((task.grace, task.output_limit_bytes), (Duration::from_secs(5), 1 << 20));
}

#[test]
fn every_key_and_every_kind_of_argument_is_read() {
    let text = r#"
[task.zeta]
label = "Zeta"
description = "All of it"
command = ["zeta", "{b}", "--x={c}", "{d}{e}", "{f}", "{a}"]
args.b = { choices = ["x", "y"], default = "y" }
args.c = { integer = { min = -5, max = 10 }, default = -3, dash = true }
args.d = { number = { min = 0, max = 1.5 }, default = 1 }
args.e = { pattern = "[a-z]*", max_length = 3, default = "" }
args.f = { boolean = true, default = false }
args.a = { machine = true, default = "pi-1", label = "Other machine" }
timeout = "30s"
grace = "1s"
output_limit = "64KiB"
role = "admin"
confirm = true
concurrency = 3
on = ["@camera", "pi-1"]
root = true
ends = "power-off"
environment = { LANG = "C" }
working_directory = "/tmp"
schedule = "0 3 * * *"
timezone = "Europe/Berlin"

[task.alpha]
command = ["alpha"]
"#;
    let catalogue = Catalogue::parse(text, "tasks.toml").unwrap();
    let view = catalogue.view();
    assert_eq!(view.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["zeta", "alpha"]);
    let names: Vec<_> = view[0].args.iter().map(|argument| argument.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d", "e", "f", "a"], "in the order of the file");
    assert_eq!(view[0].args[2].default, Some(ArgumentValue::Number(1.0)));
    assert_eq!(view[0].args[5].label, "Other machine");
    assert_eq!(view[0].schedule.as_deref(), Some("0 3 * * * Europe/Berlin"));
    let ArgumentKind::Pattern { max_length, .. } = view[0].args[3].kind else { panic!("a pattern") };
    assert_eq!(max_length, 3);
}

#[test]
fn every_problem_is_reported_with_its_line() {
    let text = r#"colour = "red"
[task.Uptime]
command = ["uptime"]
[task.a]
[task.b]
command = []
[task.c]
command = ["{prog}", "{x}", "{bad name}"]
[task.d]
command = ["d", "{x}", "{y}"]
args.y = { choices = ["-a", "b"] }
args.z = { choices = [], integer = { min = 1, max = 2 } }
args.w = { integer = { min = 5 } }
args.v = { integer = { min = 5, max = 1 }, default = 3 }
args.u = { pattern = "(" }
args.t = { pattern = "[a-z]+", default = "A" }
args.s = { boolean = false }
args.r = { machine = true, colour = 1 }
args.Q = { boolean = true }
[task.e]
command = ["e", "{x}"]
args.x = { boolean = true }
schedule = "0 3 * * *"
timezone = "Mars"
comand = ["x"]
timeout = "8d"
grace = "soon"
output_limit = "10B"
role = "viewer"
confirm = "yes"
concurrency = 0
on = ["@", "pi 1"]
ends = "never"
environment = { "A=B" = "c" }
working_directory = "tmp"
label = "two\nlines"
"#;
    let problems = problems(text);
    for expected in [
        "tasks.toml:1: unknown key colour",
        "tasks.toml:2: \"Uptime\" is not a valid task id",
        "tasks.toml:4: task.a has no command",
        "tasks.toml:6: the command is empty",
        "tasks.toml:8: command: \"{bad name}\" has a brace",
        "tasks.toml:10: the command takes {x}, but there is no args.x",
        "tasks.toml:11: task.d.args.y takes values that start with '-'",
        "tasks.toml:12: task.d.args.z needs exactly one of",
        "tasks.toml:13: task.d.args.w.integer needs both min and max; max is missing",
        "tasks.toml:14: task.d.args.v.integer: min is greater than max",
        "tasks.toml:14: the default does not fit: v cannot be \"3\"",
        "tasks.toml:15: pattern: the pattern \"(\" cannot be used",
        "tasks.toml:16: the default does not fit: t cannot be \"A\"",
        "tasks.toml:17: task.d.args.s: boolean can only be true",
        "tasks.toml:18: unknown key colour in [task.d.args.r]",
        "tasks.toml:19: \"Q\" is not a name for an argument",
        "tasks.toml:10: args.t is nowhere in the command",
        "tasks.toml:23: schedule: \"Mars\" is not a time zone",
        "tasks.toml:25: unknown key comand in [task.e]; did you mean command?",
        "tasks.toml:26: timeout: 8d is out of range",
        "tasks.toml:27: grace: \"soon\" is not a valid duration",
        "tasks.toml:28: output_limit: 10B is out of range",
        "tasks.toml:29: role: a viewer runs nothing",
        "tasks.toml:30: confirm must be true or false, not \"yes\"",
        "tasks.toml:31: concurrency: 0 is out of range",
        "tasks.toml:32: on: \"\" is not a valid tag",
        "tasks.toml:32: on: \"pi 1\" is not a valid pi-id",
        "tasks.toml:33: ends: \"never\" is not an end",
        "tasks.toml:34: environment.A=B must be",
        "tasks.toml:35: working_directory: \"tmp\" is not an absolute path",
        "tasks.toml:36: label: it is one line",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}\n{}", problems.join("\n"));
    }
}

#[test]
fn the_program_is_never_an_argument() {
    let problems = problems("[task.a]\ncommand = ['{x}']\nargs.x = { choices = ['id'] }\n");
    assert_eq!(problems, ["tasks.toml:2: the program itself cannot be an argument: only what follows it can"]);
}

#[test]
fn a_schedule_that_never_fires_and_what_has_no_meaning_without_one_are_mistakes() {
    let task = "[task.a]\ncommand = ['a']\n";
    for (keys, problem) in [
        ("schedule = '0 0 30 2 *'", Some("tasks.toml:3: schedule: \"0 0 30 2 *\" never fires")),
        ("schedule = '0 0 31 4,6 *'", Some("tasks.toml:3: schedule: \"0 0 31 4,6 *\" never fires")),
        ("missed = 'skip'", Some("tasks.toml:1: missed has no meaning without a schedule")),
        ("missed = 'later'\nschedule = '0 3 * * *'", Some("tasks.toml:3: missed: \"later\" is not a valid value")),
        ("missed = 'run-when-back'\nschedule = '0 0 29 2 *'", None),
        ("missed = 'skip'\nschedule = '0 0 29 2 +MON'", None),
    ] {
        let text = format!("{task}{keys}\n");
        match (Catalogue::parse(&text, "tasks.toml"), problem) {
            (Ok(catalogue), None) => assert_eq!(catalogue.tasks[0].runs_when_back, keys.contains("back"), "{keys}"),
            (Err(problems), Some(problem)) => assert!(problems[0].to_string().starts_with(problem), "{problems:?}"),
            (result, _) => panic!("{keys}: {result:?}"),
        }
    }
}

#[test]
fn a_scheduled_task_needs_a_default_for_every_argument() {
    let text = "[task.a]\ncommand = ['a', '{x}']\nargs.x = { boolean = true }\nschedule = '0 3 * * *'\n";
    assert!(problems(text)[0].starts_with("tasks.toml:4: a task with a schedule needs a default for args.x"));
}

#[test]
fn a_pattern_cannot_escape_from_its_anchors() {
    for pattern in ["a)|(b", "(?x) a # comment", "("] {
        let text = format!("[task.a]\ncommand = ['a', '{{x}}']\nargs.x = {{ pattern = '{pattern}' }}\n");
        let problems = problems(&text);
        assert!(problems.len() == 1 && problems[0].contains("cannot be used"), "{problems:?}");
    }
}

#[test]
fn an_empty_file_is_an_empty_catalogue() {
    assert_eq!(Catalogue::parse("", "tasks.toml").unwrap().view(), []);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(\\[task\\.[a-z]{1,3}\\]\n|[a-z.]{1,9} = ([0-9]{1,3}|'[a-z{}*]{0,9}'|\\[('a'|1),?\\]|\\{[a-z]=1\\})\n){0,12}") {
        let _ = Catalogue::parse(&text, "tasks.toml");
    }
}
