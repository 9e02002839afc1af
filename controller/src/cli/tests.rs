//! The command line from its words to its exit code, against a server that answers what a test
//! wants.

mod server;

use std::{io::Cursor, path::Path};

use pistat_protocol::task::RunState;
use server::{Answer, Server, problem};

use super::*;
use crate::terminal::sample;

struct Ran {
    code: u8,
    out: String,
    err: String,
}

/// Runs one command line, without a terminal unless somebody answers.
fn pistat(args: &[&str], environment: &[(&str, &str)], answer: Option<&str>) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut input = Cursor::new(answer.unwrap_or_default().as_bytes().to_vec());
    let person = answer.is_some();
    let surroundings = Surroundings {
        environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        streams: Streams { input: person, out: false, err: person },
        io: (&mut input, &mut out, &mut err),
    };
    let args = std::iter::once("pistat").chain(args.iter().copied()).map(OsString::from);
    let Outcome::Done(code) = enter(args, surroundings) else { panic!("serve") };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code, out: text(out), err: text(err) }
}

fn ask(server: &Server, args: &[&str]) -> Ran {
    pistat(args, &[("PISTAT_CONTROLLER_URL", &server.url()), ("PISTAT_TOKEN", "secret")], None)
}

fn fleet_answers() -> Vec<Answer> {
    let fleet = sample::fleet();
    vec![
        ("GET /api/pis", 200, serde_json::to_string(&fleet.machines).unwrap()),
        ("GET /api/tasks", 200, serde_json::to_string(&fleet.tasks).unwrap()),
    ]
}

fn run_answers(states: &[(RunState, i32)], outputs: &[&str]) -> (Vec<Answer>, String) {
    let mut answers = fleet_answers();
    let id = sample::run(7, "uptime", RunState::Running).id.to_string();
    answers.push(("POST /api/runs", 202, format!(r#"{{"group":null,"runs":["{id}"]}}"#)));
    for output in outputs {
        answers.push((leak(format!("GET /api/runs/{id}/output?follow=true")), 200, (*output).to_owned()));
    }
    for (state, code) in states {
        let mut run = sample::run(7, "uptime", *state);
        run.exit_code = state.is_final().then_some(*code);
        answers.push((leak(format!("GET /api/runs/{id}")), 200, serde_json::to_string(&run).unwrap()));
    }
    (answers, id)
}

fn leak(text: String) -> &'static str {
    text.leak()
}

#[test]
fn serve_and_no_command_hand_back_their_flags() {
    for args in [
        &["pistat", "--http", "127.0.0.1:0", "--state", "s"][..],
        &["pistat", "serve", "--http", "127.0.0.1:0", "--state", "s"],
        &["pistat", "--state", "s", "serve", "--http", "127.0.0.1:0"],
    ] {
        let (mut out, mut err, mut input) = (Vec::new(), Vec::new(), Cursor::new(Vec::new()));
        let surroundings = Surroundings {
            environment: Vec::new(),
            streams: Streams { input: false, out: false, err: false },
            io: (&mut input, &mut out, &mut err),
        };
        let Outcome::Serve(flags) = enter(args.iter().map(OsString::from), surroundings) else { panic!("{args:?}") };
        assert_eq!((flags.http.as_deref(), flags.state), (Some("127.0.0.1:0"), Some("s".into())));
    }
}

#[test]
fn wrong_use_exits_64_and_help_0() {
    for args in [
        &["frobnicate"][..],
        &["task", "run"],
        &["task", "run", "uptime", "--at-once", "0"],
        &["settings", "pi-1", "--interval", "0.01"],
        &["account", "add", "a b"],
        &["--http", "127.0.0.1:1", "pis"],
        &["pis", "--controller-url", "ftp://x"],
        &["assign", "name", "pi-1"],
    ] {
        let ran = pistat(args, &[], None);
        assert_eq!((ran.code, ran.out.as_str()), (64, ""), "{args:?}: {}", ran.err);
        assert!(!ran.err.is_empty(), "{args:?}");
    }
    let help = pistat(&["--help"], &[], None);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    assert!(help.out.contains("join-token") && help.out.contains("PISTAT_CONTROLLER_URL"));
}

#[test]
fn a_token_file_that_another_user_put_there_is_not_followed_and_nothing_but_a_token_is_sent() {
    let state = tempfile::tempdir().unwrap();
    let of = |name: &str| state.path().join(name);
    let ask = |words: &[&str]| {
        let server = Server::start(fleet_answers());
        let words: Vec<_> = ["pis", "--state", state.path().to_str().unwrap()].iter().chain(words).copied().collect();
        pistat(&words, &[("PISTAT_CONTROLLER_URL", &server.url())], None).err
    };
    std::fs::write(of("secret"), "something that only root may read\n").unwrap();
    std::os::unix::fs::symlink(of("secret"), of("admin.token")).unwrap();
    let server = Server::start(vec![("GET /api/pis", 401, problem(401, "who is this?"))]);
    let words = ["pis", "--state", state.path().to_str().unwrap()];
    let told = pistat(&words, &[("PISTAT_CONTROLLER_URL", &server.url())], None).err;
    assert!(told.contains("symbolic link"), "{told}");
    let told = ask(&["--token-file", of("secret").to_str().unwrap()]);
    assert!(told.contains("does not hold a token"), "{told}");
    assert!(ask(&["--token-file", "/dev/zero"]).contains("more than"));
    std::fs::write(of("token"), "abc\n").unwrap();
    assert_eq!(ask(&["--token-file", of("token").to_str().unwrap()]), "");
}

#[test]
fn check_warns_of_free_text_that_reaches_the_controllers_own_machine() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.toml");
    let text = "command = ['tail', '{file}']\nargs.file = { pattern = '.+' }\n";
    let checked = |more: &str| {
        std::fs::write(&file, format!("[task.tail]\n{text}{more}\n")).unwrap();
        pistat(&["check", "--tasks", file.to_str().unwrap()], &[], None)
    };
    for on in ["", "on = ['controller']", "on = ['pi-1', '@camera']", "root = true"] {
        let ran = checked(on);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.err.contains("task tail: {file} is free text") && ran.err.contains("`on`"), "{on}: {}", ran.err);
    }
    assert!(!checked("on = ['pi-1']").err.contains("free text"));
    std::fs::write(
        &file,
        "[task.tail]\ncommand = ['tail', '{file}']\nargs.file = { choices = ['/var/log/dpkg.log'] }\n",
    )
    .unwrap();
    assert!(!pistat(&["check", "--tasks", file.to_str().unwrap()], &[], None).err.contains("free text"));
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn an_absent_controller_exits_69_and_says_what_to_start() {
    // Port 9 of the loopback (discard) is not served anywhere that these tests run.
    let ran = pistat(&["pis", "--controller-url", "http://127.0.0.1:9"], &[("PISTAT_TOKEN", "x")], None);
    assert_eq!(ran.code, 69);
    assert!(
        ran.err.contains("No controller at http://127.0.0.1:9 (nothing listens there). Start one with `pistat serve`")
    );
}

#[test]
fn the_controllers_sentence_reaches_the_person_and_the_code_tells_its_kind() {
    for (status, code) in [(401, 77), (403, 77), (404, 1), (409, 1), (500, 1)] {
        let server = Server::start(vec![("GET /api/tasks", status, problem(status, "Not like \x1b[31mthis"))]);
        let ran = ask(&server, &["task", "list"]);
        assert_eq!((ran.code, ran.err.as_str()), (code, "✖ Not like [31mthis\n"));
    }
    let server = Server::start(vec![("GET /api/tasks", 502, "<html>".into())]);
    assert!(ask(&server, &["task", "list"]).err.contains("answered 502"));
    let server = Server::start(vec![("GET /api/tasks", 200, "<html>".into())]);
    assert!(ask(&server, &["task", "list"]).err.contains("does not answer like a Pi Stat controller"));
}

#[test]
fn the_token_comes_from_its_file_then_the_environment_then_the_state_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("admin.token"), "from-state\n").unwrap();
    std::fs::write(folder.path().join("mine"), "from-file\n").unwrap();
    let (state, file) = (folder.path().to_str().unwrap(), folder.path().join("mine"));
    let server = Server::start(fleet_answers());
    let url = server.url();
    let with = |args: &[&str], environment: &[(&str, &str)]| {
        let args = [&["pis", "--json", "--controller-url", &url, "--state", state], args].concat();
        assert_eq!(pistat(&args, environment, None).code, 0);
        server.asked().pop().unwrap().authorization
    };
    assert_eq!(with(&[], &[]), "Bearer from-state");
    assert_eq!(with(&[], &[("PISTAT_TOKEN", "from-env")]), "Bearer from-env");
    assert_eq!(with(&["--token-file", file.to_str().unwrap()], &[("PISTAT_TOKEN", "x")]), "Bearer from-file");
}

#[test]
fn without_a_token_the_sentence_says_where_it_was_looked_for() {
    let server = Server::start(vec![("GET /api/pis", 401, problem(401, "no"))]);
    let ran = pistat(&["pis", "--controller-url", &server.url(), "--state", "/nonexistent"], &[], None);
    assert_eq!(ran.code, 77);
    assert!(
        ran.err.contains("--token-file or PISTAT_TOKEN") && ran.err.contains("/nonexistent/admin.token"),
        "{}",
        ran.err
    );
}

#[test]
fn lists_are_for_people_by_default_and_json_when_asked() {
    let server = Server::start(fleet_answers());
    assert!(ask(&server, &["pis"]).out.contains("Rack Pi 1"));
    assert!(ask(&server, &["task", "list"]).out.contains("14 tasks"));
    let json: serde_json::Value = serde_json::from_str(&ask(&server, &["pis", "--json"]).out).unwrap();
    assert_eq!(json[1]["id"], "pi-1");
    let one = ask(&server, &["pi", "rack pi 1"]);
    assert!(one.out.contains("DNS · Pi-hole") && !one.out.contains('\x1b'));
    let none = ask(&server, &["pi", "rack pi 9"]);
    assert_eq!(none.code, 1);
    assert!(none.err.contains("There is no machine"));
}

#[test]
fn a_run_prints_its_output_and_exits_with_its_exit_code() {
    for (state, exit, expected) in [
        (RunState::Succeeded, 0, 0),
        (RunState::Failed, 3, 3),
        (RunState::Failed, 143, 143),
        (RunState::TimedOut, 0, 1),
        (RunState::Failed, 256, 1),
    ] {
        let (answers, _) = run_answers(&[(state, exit)], &["up 41 days\n"]);
        let server = Server::start(answers);
        let ran = ask(&server, &["task", "run", "uptime", "rack pi 1"]);
        assert_eq!((ran.code, ran.out.as_str()), (expected, "up 41 days\n"), "{}", ran.err);
        let asked = server.asked();
        let post = asked.iter().find(|asked| asked.line.starts_with("POST")).unwrap();
        assert_eq!(post.body, r#"{"task":"uptime","target":"pi-1","args":{},"confirmed":false}"#);
        assert!(asked.iter().all(|asked| asked.authorization == "Bearer secret"));
    }
}

#[test]
fn output_goes_on_where_a_broken_connection_left_off() {
    let states = [(RunState::Running, 0), (RunState::Running, 0), (RunState::Succeeded, 0)];
    let (answers, _) = run_answers(&states, &["one\nt", "one\ntwo\n"]);
    let server = Server::start(answers);
    let ran = ask(&server, &["task", "run", "uptime"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "one\ntwo\n"), "{}", ran.err);
}

#[test]
fn a_detached_run_prints_its_id_only() {
    let (answers, id) = run_answers(&[], &[]);
    let server = Server::start(answers);
    let ran = ask(&server, &["task", "run", "uptime", "pi-1", "--detach", "--expires", "0"]);
    assert_eq!((ran.code, ran.out), (0, format!("{id}\n")));
    let asked = server.asked().pop().unwrap();
    assert!(asked.body.contains(r#""expires":"0""#), "{}", asked.body);
}

#[test]
fn a_task_that_asks_needs_a_yes() {
    let (answers, id) = run_answers(&[(RunState::Succeeded, 0)], &[""]);
    let server = Server::start(answers);
    let url = server.url();
    let environment = [("PISTAT_CONTROLLER_URL", url.as_str()), ("PISTAT_TOKEN", "secret")];
    let run = |args: &[&str], answer| pistat(&[&["task", "run", "reboot"], args].concat(), &environment, answer);
    let nobody = run(&["pi-1"], None);
    assert_eq!(nobody.code, 64);
    assert!(nobody.err.contains("add --yes"));
    let no = run(&["@camera"], Some("n\n"));
    assert_eq!(no.code, 1);
    assert!(no.err.contains("? Run reboot on 1 machine? [y/N]") && no.err.contains("Nothing was run"));
    assert!(!server.asked().iter().any(|asked| asked.line.starts_with("POST")));
    for (args, answer) in [(&["pi-1", "--detach"][..], Some("y\n")), (&["pi-1", "--detach", "--yes"], None)] {
        let ran = run(args, answer);
        assert_eq!((ran.code, ran.out), (0, format!("{id}\n")), "{}", ran.err);
        assert!(server.asked().pop().unwrap().body.contains(r#""confirmed":true"#));
    }
}

#[test]
fn a_group_exits_1_unless_all_succeeded() {
    for (second, code) in [(RunState::Succeeded, 0), (RunState::Failed, 1)] {
        let runs = [sample::run(7, "uptime", RunState::Succeeded), sample::run(8, "uptime", second)];
        let mut answers = fleet_answers();
        let ids = format!(r#"["{}","{}"]"#, runs[0].id, runs[1].id);
        answers.push(("POST /api/runs", 202, format!(r#"{{"group":"{}","runs":{ids}}}"#, runs[0].id)));
        answers.push(("GET /api/runs?task=uptime", 200, serde_json::to_string(&runs).unwrap()));
        for (states, total) in [(vec![(RunState::Running, 2)], 2), (runs.iter().map(|run| (run.state, 1)).collect(), 2)]
        {
            let mut counts = std::collections::BTreeMap::new();
            for (state, count) in states {
                *counts.entry(state).or_insert(0) += count;
            }
            let group = pistat_protocol::dashboard::Group {
                id: runs[0].id,
                task: "uptime".parse().unwrap(),
                target: "@all".parse().unwrap(),
                args: pistat_protocol::task::Arguments::new(),
                options: pistat_protocol::api::GroupOptions::default(),
                requested_by: "admin".into(),
                created_at: runs[0].created_at,
                total,
                states: counts,
                stopped: None,
            };
            answers.push(("GET /api/groups/", 200, serde_json::to_string(&group).unwrap()));
        }
        let server = Server::start(answers);
        let ran = ask(&server, &["task", "run", "uptime", "@all", "--at-once", "1"]);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains("2/2"), "{}", ran.err);
        assert_eq!(ran.err.contains("Rack Pi 1 (pi-1): failed · exit 1"), code == 1, "{}", ran.err);
    }
}

#[test]
fn explain_prints_the_same_for_a_shell_and_runs_nothing() {
    let server = Server::start(fleet_answers());
    let ran = ask(&server, &["task", "run", "apt-upgrade", "pi-1", "--explain"]);
    assert!(ran.out.contains("curl") && ran.out.contains(&server.url()), "{}", ran.out);
    assert!(ran.out.contains("\"confirmed\":true"), "{}", ran.out);
    assert!(!ran.out.contains("mosquitto_pub"), "where another's broker listens is not known here: {}", ran.out);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pistat.toml");
    std::fs::write(&config, format!("[http]\nlisten = '{}'\n[mqtt]\nlisten = '0.0.0.0:1884'\n", server.address))
        .unwrap();
    let args = ["--config", config.to_str().unwrap(), "task", "run", "uptime", "pi-1", "--explain"];
    let ran = pistat(&args, &[("PISTAT_TOKEN", "secret")], None);
    assert!(ran.out.contains("mosquitto_pub -h 127.0.0.1 -p 1884") && ran.out.contains("curl"), "{}", ran.out);
    assert!(!server.asked().iter().any(|asked| asked.line.starts_with("POST")));
}

#[test]
fn changes_are_patches_and_are_told() {
    let after = |change: fn(&mut pistat_protocol::dashboard::Machine)| {
        let mut machine = sample::fleet().machines.remove(1);
        change(&mut machine);
        serde_json::to_string(&machine).unwrap()
    };
    for (args, body, answer, told) in [
        (
            &["assign", "name", "Rack Pi 1", "Garage Door"][..],
            r#"{"label":"Garage Door"}"#,
            after(|machine| machine.label = "Garage Door".into()),
            "✔ pi-1 is now Garage Door\n",
        ),
        (
            &["task", "assign", "rack", "pi", "1", "disk-usage"],
            r#"{"assignment":"Disk usage"}"#,
            after(|machine| machine.assignment = Some("Disk usage".into())),
            "✔ Rack Pi 1 is responsible for Disk usage\n",
        ),
        (
            &["tag", "remove", "pi-1", "rack"],
            r#"{"tags":["camera"]}"#,
            after(|machine| machine.tags.truncate(1)),
            "✔ Rack Pi 1 has @camera\n",
        ),
        (
            &["settings", "pi-1", "--interval", "2"],
            r#"{"interval":2.0}"#,
            after(|machine| machine.interval_seconds = Some(2.0)),
            "✔ Rack Pi 1 measures every 2 s\n",
        ),
    ] {
        let mut answers = fleet_answers();
        answers.push(("PATCH /api/pis/pi-1", 200, answer));
        let server = Server::start(answers);
        let ran = ask(&server, args);
        assert_eq!((ran.code, ran.out.as_str()), (0, told), "{}", ran.err);
        assert_eq!(server.asked().pop().unwrap().body, body);
    }
}

/// What a controller answers whose address on its network is this one.
const ENROLMENT: &str = r#"{"name":"pi-7","token":"t0ken","controller_url":"http://192.168.1.10:8000"}"#;
const LOGIN_LINK: &str =
    r#"{"code":"c0de","controller_url":"http://192.168.1.10:8000","expires_at":"2026-11-22T12:00:00Z"}"#;

#[test]
fn tokens_are_alone_on_standard_output() {
    let token = |name: &str| format!(r#"{{"name":"{name}","token":"t0ken"}}"#);
    let server = Server::start(vec![
        ("POST /api/accounts/anna/rotate", 200, token("anna")),
        ("POST /api/accounts", 201, token("anna")),
        ("POST /api/enrolments/pi-7/reset", 200, ENROLMENT.into()),
        ("POST /api/enrolments", 201, ENROLMENT.into()),
        ("DELETE /api/accounts/anna", 204, String::new()),
        ("DELETE /api/enrolments/pi-7", 204, String::new()),
        ("GET /api/join-token", 200, r#"{"token":"t0ken"}"#.into()),
        ("POST /api/join-token/rotate", 200, r#"{"token":"t0ken"}"#.into()),
        ("POST /api/login-links", 200, LOGIN_LINK.into()),
    ]);
    for args in [
        &["account", "add", "anna", "--role", "operator", "--publish", "a/#"][..],
        &["account", "rotate", "anna"],
        &["agent", "add", "pi-7"],
        &["agent", "reset", "pi-7"],
        &["join-token", "show"],
        &["join-token", "rotate"],
    ] {
        let ran = ask(&server, args);
        assert_eq!((ran.code, ran.out.as_str()), (0, "t0ken\n"), "{args:?} {}", ran.err);
    }
    assert!(server.asked()[0].body.contains(r#""role":"operator","publish":["a/#"],"subscribe":[]"#));
    // These were asked over a loopback address: what is printed opens elsewhere too.
    assert_eq!(ask(&server, &["login"]).out, "http://192.168.1.10:8000/#login=c0de\n");
    let added = ask(&server, &["agent", "add", "pi-7"]).err;
    let line = "On the machine, with the token in FILE: pistat-agent --controller-url http://192.168.1.10:8000 --pi-id pi-7 --token-file FILE\n";
    assert!(added.ends_with(line), "{added}");
    for (args, told) in
        [(["account", "remove", "anna"], "anna is removed"), (["agent", "remove", "pi-7"], "pi-7 is revoked")]
    {
        assert!(ask(&server, &args).out.contains(told), "{args:?}");
    }
}

#[test]
fn every_command_prints_json_when_asked_and_nothing_else() {
    let fleet = sample::fleet();
    let mut run = fleet.runs[1].clone();
    run.state = RunState::Succeeded;
    let id = run.id.to_string();
    let token = r#"{"name":"anna","token":"t0ken"}"#;
    let machine = serde_json::to_string(&fleet.machines[1]).unwrap();
    let group = format!(r#"{{"group":null,"runs":["{id}"]}}"#);
    let mut answers = vec![
        (leak(format!("GET /api/runs/{id}/output")), 200, "hello\n".to_owned()),
        (leak(format!("GET /api/runs/{id}")), 200, serde_json::to_string(&run).unwrap()),
        (leak(format!("POST /api/runs/{id}/cancel")), 202, String::new()),
        ("GET /api/runs?", 200, serde_json::to_string(&fleet.runs).unwrap()),
        ("POST /api/runs", 202, group),
        ("PATCH /api/pis/pi-1", 200, machine),
        ("POST /api/accounts/anna/rotate", 200, token.into()),
        ("POST /api/accounts", 201, token.into()),
        ("GET /api/accounts", 200, "[]".into()),
        ("DELETE /api/accounts/anna", 204, String::new()),
        ("POST /api/enrolments/pi-7/reset", 200, ENROLMENT.into()),
        ("POST /api/enrolments", 201, ENROLMENT.into()),
        ("GET /api/enrolments", 200, "[]".into()),
        ("DELETE /api/enrolments/pi-7", 204, String::new()),
        ("GET /api/join-tokens", 200, "[]".into()),
        ("POST /api/join-tokens", 201, token.into()),
        ("DELETE /api/join-tokens/cameras", 204, String::new()),
        ("GET /api/sessions", 200, "[]".into()),
        ("DELETE /api/sessions", 204, String::new()),
        ("GET /api/join-token", 200, r#"{"token":"t0ken"}"#.into()),
        ("POST /api/join-token/rotate", 200, r#"{"token":"t0ken"}"#.into()),
        ("POST /api/login-links", 200, LOGIN_LINK.into()),
        ("GET /api/events", 200, "[]".into()),
    ];
    answers.extend(fleet_answers());
    let server = Server::start(answers);
    let commands = [
        "login",
        "pis",
        "pi pi-1",
        "task list",
        "task run uptime pi-1",
        "task run uptime pi-1 --detach",
        "task run uptime pi-1 --explain",
        "task cancel RUN",
        "task assign pi-1 uptime",
        "assign name pi-1 Garage",
        "tag add pi-1 attic",
        "settings pi-1 --interval default",
        "runs",
        "runs pi-1",
        "show RUN",
        "output RUN",
        "output RUN --follow",
        "events",
        "sessions",
        "sessions end 0123456789abcdef",
        "sessions end-all anna",
        "join-token list",
        "join-token add cameras --uses 2 --expires 24h --tag camera",
        "join-token remove cameras",
        "account add anna",
        "account list",
        "account remove anna",
        "account rotate anna",
        "join-token show",
        "join-token rotate",
        "agent list",
        "agent add pi-7",
        "agent reset pi-7",
        "agent remove pi-7",
        "broker-acl emqx --viewer grafana",
        "broker-acl mosquitto",
    ];
    for command in commands {
        let words: Vec<_> =
            command.split(' ').map(|word| if word == "RUN" { &id } else { word }).chain(["--json"]).collect();
        let ran = ask(&server, &words);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}: {}", ran.out);
        serde_json::from_str::<serde_json::Value>(&ran.out)
            .unwrap_or_else(|error| panic!("{command}: {error}: {}", ran.out));
    }
}

#[test]
fn shells_get_completions_of_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = pistat(&["completions", shell], &[], None);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(["join-token", "at-once", "broker-acl"].iter().all(|word| ran.out.contains(word)), "{shell}");
    }
}

#[test]
fn runs_are_found_by_the_end_of_their_id() {
    let fleet = sample::fleet();
    let id = fleet.runs[1].id.to_string();
    let mut answers = fleet_answers();
    answers.push(("GET /api/runs?limit", 200, serde_json::to_string(&fleet.runs).unwrap()));
    answers.push((leak(format!("POST /api/runs/{id}/cancel")), 202, String::new()));
    answers.push((leak(format!("GET /api/runs/{id}/output")), 200, "some output".into()));
    answers.push((leak(format!("GET /api/runs/{id}")), 200, serde_json::to_string(&fleet.runs[1]).unwrap()));
    let server = Server::start(answers);
    let short = &id[24..];
    assert!(ask(&server, &["show", short]).out.contains(&id));
    assert!(ask(&server, &["task", "cancel", short]).out.contains(&format!("{id} is being cancelled")));
    assert_eq!(ask(&server, &["output", short]).out, "some output");
    assert!(ask(&server, &["runs"]).out.contains("apt-upgrade"));
    assert_eq!(ask(&server, &["show", "ffff"]).code, 1);
}

#[test]
fn check_names_every_problem_and_exits_64() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("pistat.toml"), "colour = 1\n[http]\nlisten = 'x'\n").unwrap();
    std::fs::write(path("tasks.toml"), "[task.a]\ncommand = []\n").unwrap();
    let bad = pistat(&["check", "--config", &path("pistat.toml"), "--tasks", &path("tasks.toml")], &[], None);
    assert_eq!(bad.code, 64);
    for expected in ["pistat.toml:1: unknown key colour", "pistat.toml:3: listen", "tasks.toml:2: the command is empty"]
    {
        assert!(bad.out.contains(expected), "{}", bad.out);
    }
    std::fs::write(path("pistat.toml"), format!("tasks = {:?}\ncolour = 1\n", path("tasks.toml"))).unwrap();
    let bad = pistat(&["check", "--config", &path("pistat.toml")], &[], None);
    assert!(bad.out.contains("pistat.toml:2: ") && bad.out.contains("tasks.toml:2: "), "{}", bad.out);
    std::fs::write(path("pistat.toml"), "").unwrap();
    let good = pistat(&["check", "--config", &path("pistat.toml")], &[], None);
    assert_eq!((good.code, good.out.as_str()), (0, "✔ Configuration and catalogue are good: 14 tasks\n"));
}

#[test]
fn certificates_are_made_once_and_verify() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("tls");
    let init = || {
        pistat(&["tls", "init", "--dir", dir.to_str().unwrap(), "--name", "pis.lan", "--name", "10.0.0.5"], &[], None)
    };
    let first = init();
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.out.contains("[http.tls]") && first.out.contains("pis.lan, 10.0.0.5"));
    for file in ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    verify(&dir, "pis.lan");
    verify(&dir, "10.0.0.5");
    let authority = std::fs::read(dir.join("ca.pem")).unwrap();
    let second = init();
    assert_eq!(second.code, 1);
    assert!(second.err.contains("nothing is overwritten"));
    std::fs::remove_file(dir.join("server.pem")).unwrap();
    std::fs::remove_file(dir.join("server-key.pem")).unwrap();
    assert_eq!(init().code, 0);
    assert_eq!(std::fs::read(dir.join("ca.pem")).unwrap(), authority, "the authority is used again");
    verify(&dir, "pis.lan");
}

/// A TLS client that trusts the authority accepts the server's certificate under this name.
fn verify(dir: &Path, name: &str) {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
    let certificates =
        |file: &str| -> Vec<_> { CertificateDer::pem_file_iter(dir.join(file)).unwrap().map(Result::unwrap).collect() };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificates("ca.pem").remove(0)).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let client = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let key = PrivateKeyDer::from_pem_file(dir.join("server-key.pem")).unwrap();
    let server = builder.unwrap().with_no_client_auth().with_single_cert(certificates("server.pem"), key).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(client.into(), name).unwrap();
    let mut server = rustls::ServerConnection::new(server.into()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = pistat(&["completions", shell], &[], None);
        assert!(ran.code == 0 && ran.out.contains("join-token"), "{shell}");
    }
}

#[test]
fn every_command_in_the_documentation_is_understood() {
    let documents = [
        include_str!("../../../docs/tasks.md"),
        include_str!("../../../docs/configuration.md"),
        include_str!("../../../docs/terminal.md"),
    ];
    let mut counts = [0; 3];
    for block in documents.iter().flat_map(|text| text.split("```").skip(1).step_by(2)) {
        let (language, text) = block.split_once('\n').unwrap();
        match language {
            "terminal" => text.lines().filter(|line| !line.is_empty()).for_each(|line| {
                crate::terminal::parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
                counts[0] += 1;
            }),
            "sh" => text.lines().filter(|line| line.starts_with("pistat ")).for_each(|line| {
                let words = crate::terminal::split(line).unwrap();
                Cli::try_parse_from(words.iter().map(|word| &word.text))
                    .unwrap_or_else(|error| panic!("{line}: {error}"));
                counts[1] += 1;
            }),
            "toml" => {
                crate::catalogue::Catalogue::parse(text, "docs").unwrap_or_else(|problems| panic!("{problems:?}"));
                counts[2] += 1;
            }
            other => panic!("a block of {other}"),
        }
    }
    assert_eq!(counts, [8, 4, 1]);
}
