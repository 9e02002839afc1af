//! Lines and the commands that they are, or the sentence that says why they are none.

use super::*;

fn ok(line: &str) -> Command {
    parse(line).unwrap().unwrap()
}

fn run(task: &str) -> RunCommand {
    RunCommand { task: task.into(), ..RunCommand::default() }
}

#[test]
fn every_command_is_understood_in_any_case() {
    for (line, expected) in [
        ("help", Command::Help(None)),
        ("help task run", Command::Help(Some("task run".into()))),
        ("CLEAR", Command::Clear),
        ("theme", Command::Theme(None)),
        ("theme Amber", Command::Theme(Some("amber".into()))),
        ("pis", Command::Pis),
        ("pi Rack Pi 1", Command::Pi("Rack Pi 1".into())),
        ("runs", Command::Runs(None)),
        ("runs \"Rack Pi 1\"", Command::Runs(Some("Rack Pi 1".into()))),
        ("show 0123abcd", Command::Show("0123abcd".into())),
        ("output 0123abcd", Command::Output("0123abcd".into())),
        ("Task List", Command::TaskList),
        ("task run uptime", Command::TaskRun(run("uptime"))),
        ("task cancel 0123", Command::TaskCancel("0123".into())),
        ("tag add pi-1 @camera", Command::Tag(TagChange { add: true, machine: "pi-1".into(), tag: "@camera".into() })),
        (
            "tag remove Rack Pi 1 x",
            Command::Tag(TagChange { add: false, machine: "Rack Pi 1".into(), tag: "x".into() }),
        ),
        ("settings pi-1 --interval 0.5", Command::Settings { machine: "pi-1".into(), interval_seconds: Some(0.5) }),
        ("settings --interval=default pi-1", Command::Settings { machine: "pi-1".into(), interval_seconds: None }),
    ] {
        assert_eq!(ok(line), expected, "{line}");
    }
    assert_eq!(parse("   "), Ok(None));
}

#[test]
fn task_run_takes_machine_arguments_and_options_in_any_order() {
    let line = "task run service-log --at-once 2 @camera unit=ssh note=\"a b\" --stop-after=3 --canary --yes --detach --expires 1h";
    let expected = RunCommand {
        target: Some("@camera".into()),
        args: vec![("unit".into(), "ssh".into()), ("note".into(), "a b".into())],
        yes: true,
        detach: true,
        explain: false,
        at_once: Some(2),
        stop_after: Some(3),
        canary: true,
        expires: Some("1h".into()),
        ..run("service-log")
    };
    assert_eq!(ok(line), Command::TaskRun(expected));
    let quoted = RunCommand { target: Some("a=b".into()), ..run("Disk usage") };
    assert_eq!(ok("task run \"Disk usage\" \"a=b\""), Command::TaskRun(quoted));
}

#[test]
fn assign_keeps_its_words_for_the_names_to_be_found() {
    let Command::AssignName(words) = ok("assign name Rack Pi 1 \"Garage Door\"") else { panic!("assign name") };
    let words: Vec<_> = words.iter().map(|word| (word.text.as_str(), word.quoted)).collect();
    assert_eq!(words, [("Rack", false), ("Pi", false), ("1", false), ("Garage Door", true)]);
}

#[test]
fn what_is_not_understood_gets_a_sentence() {
    for (line, expected) in [
        ("\"task assign\"", "a command is written without quotes: task assign"),
        ("'Task Run' uptime", "a command is written without quotes: task run <task>"),
        ("rm -rf /", "There is no command \"rm\"; help shows all commands"),
        ("hlep", "did you mean help?"),
        ("task", "task is followed by one of: task list · task run"),
        ("task rn uptime", "did you mean task run?"),
        ("task run", "It is written: task run <task>"),
        ("task run a b c", "c is one word too many; names of several words need quotes"),
        ("task run a --force", "task run has no option --force"),
        ("task run a --at-once", "--at-once needs a value"),
        ("task run a --at-once 0", "--at-once needs a whole number"),
        ("task run a --expires soon", "not a valid duration"),
        ("task cancel", "It is written: task cancel <run>"),
        ("task assign pi-1", "It is written: task assign"),
        ("assign", "assign is followed by one of: assign name"),
        ("tag add pi-1", "It is written: tag add <pi> <tag>"),
        ("settings pi-1", "It is written: settings <pi> --interval"),
        ("settings pi-1 --interval 0.1", "0.2 to 3600"),
        ("settings pi-1 --interval NaN", "0.2 to 3600"),
        ("theme pink", "phosphor, amber, paper"),
        ("clear all", "It is written: clear"),
        ("show \"", "not closed"),
    ] {
        let sentence = parse(line).unwrap_err();
        assert!(sentence.contains(expected), "{line}: {sentence}");
    }
}

proptest::proptest! {
    #[test]
    fn no_line_panics(line in ".{0,80}") {
        let _ = parse(&line);
    }

    #[test]
    fn no_line_of_known_words_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "task", "\"task run\"", "run", "list", "cancel", "assign", "name", "tag", "add", "settings", "--interval", "--yes", "--at-once", "=", "a=", "\"", "'", "5", "@all", "-",
    ]), 0..8)) {
        let _ = parse(&words.join(" "));
    }
}
