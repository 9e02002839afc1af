//! What goes wrong gets one sentence that says what is wrong and what to do, and the right exit
//! code. Nothing is lost.

use std::{ffi::OsStr, net::TcpListener, os::unix::ffi::OsStrExt, path::Path, process::Command};

use pistat_protocol::{api::AcceptedRuns, dashboard::Run, task::RunState};
use pistat_testkit::{
    DEADLINE, Stack, eventually,
    process::{Finished, run},
    programs::program,
};
use serde_json::json;

/// Wrong usage or configuration.
const USAGE: i32 = 64;
/// A port cannot be had, or the controller does not answer.
const UNAVAILABLE: i32 = 69;
/// The state folder cannot be used.
const IO_ERROR: i32 = 74;
/// Not enrolled, and nothing to enrol with.
const CONFIGURATION: i32 = 78;

async fn controller(folder: &Path, words: &[&str]) -> Finished {
    let mut command = Command::new(program("pistat"));
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(folder).args(words);
    run("pistat", &mut command, DEADLINE).await
}

fn is_told(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, code, "{finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "{word:?} is not told: {finished:?}");
    }
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_not_in_the_catalogue_is_refused_with_a_sentence() {
    let stack = Stack::start().await;
    let problem = stack.http().ask_run("uptimee", "controller", json!({})).await.problem();
    assert_eq!(problem.status, 404);
    assert!(problem.detail.contains("uptimee"), "{}", problem.detail);
    let answer = stack.feed().await.command("task run uptimee").await;
    assert!(!answer.ok && answer.text.contains("uptime"), "the terminal suggests the nearest: {answer:?}");
    let said = stack.cli(&["task", "run", "uptimee"]).await;
    assert!(said.code != 0 && said.stderr.contains("uptimee"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_machine_is_refused_with_a_sentence() {
    let stack = Stack::start().await;
    let problem = stack.http().ask_run("uptime", "pi-99", json!({})).await.problem();
    assert_eq!(problem.status, 404);
    assert!(problem.detail.contains("pi-99"), "{}", problem.detail);
    for line in ["task run uptime pi-99", "assign name pi-99 x", "task assign pi-99 uptime", "tag add pi-99 x"] {
        let answer = stack.feed().await.command(line).await;
        assert!(!answer.ok && answer.text.contains("pi-99"), "{line}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_group_is_an_error_and_never_everything() {
    let stack = Stack::start().await;
    let problem = stack.http().ask_run("uptime", "@nobody", json!({})).await.problem();
    assert!((400..500).contains(&problem.status) && problem.detail.contains("nobody"), "{problem:?}");
    assert_eq!(stack.http().get("/api/runs").await.json::<Vec<Run>>(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_label_is_refused_and_lists_the_candidates() {
    let stack = Stack::start().await;
    let http = stack.http();
    let _agents = [stack.agent("pi-1").online(&http).await, stack.agent("pi-2").online(&http).await];
    // Given by people: of two agents' labels that are equal, only the first is used.
    for (pi, label) in [("pi-1", "Rack"), ("pi-2", "rack")] {
        let named = http.send("PATCH", &format!("/api/pis/{pi}"), Some(json!({ "label": label }))).await;
        assert_eq!(named.status, 200, "{named:?}");
    }
    let mut feed = stack.feed().await;
    for line in ["task run uptime Rack", "assign name RACK Attic", "task assign rack uptime"] {
        let answer = feed.command(line).await;
        assert!(!answer.ok && answer.text.contains("pi-1") && answer.text.contains("pi-2"), "{line}: {answer:?}");
    }
    let twin = feed.command("task run Twin").await;
    assert!(!twin.ok && twin.text.contains("twin-a") && twin.text.contains("twin-b"), "{twin:?}");
    assert_eq!(http.get("/api/runs").await.json::<Vec<Run>>(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_agent_gets_its_run_when_it_is_back_or_the_run_expires_or_is_refused_at_once() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut agent = stack.agent("pi-1").online(&http).await;
    agent.kill();
    agent.offline(&http).await;
    let waits = http.start_run("mark", "pi-1", json!({"key": "waited"})).await;
    assert_eq!(http.run(waits).await.unwrap().state, RunState::Queued);
    let body = json!({"task": "uptime", "target": "pi-1", "expires": "0s"});
    let refused = http.post("/api/runs", body).await.problem();
    assert_eq!(refused.status, 409);
    assert!(refused.detail.contains("offline"), "{}", refused.detail);
    let body = json!({"task": "mark", "target": "pi-1", "expires": "1s", "args": {"key": "expired"}});
    let expires: AcceptedRuns = http.post("/api/runs", body).await.json();
    let expired = http.ended(expires.runs[0], DEADLINE).await;
    assert_eq!(expired.state, RunState::Expired);
    agent.restart();
    assert_eq!(http.ended(waits, DEADLINE).await.state, RunState::Succeeded);
    assert_eq!(pistat_testkit::catalogue::starts(&stack.marks(), "waited"), 1);
    assert_eq!(pistat_testkit::catalogue::starts(&stack.marks(), "expired"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_on_a_taken_port_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let tasks = folder.path().join("tasks.toml");
    std::fs::write(&tasks, "[task.uptime]\ncommand = [\"uptime\"]\n").unwrap();
    let port = address.rsplit(':').next().unwrap();
    for (http, mqtt) in [(address.as_str(), "127.0.0.1:0"), ("127.0.0.1:0", address.as_str())] {
        let words = ["serve", "--http", http, "--mqtt", mqtt, "--state", "state", "--tasks", tasks.to_str().unwrap()];
        let said = controller(folder.path(), &words).await;
        is_told(&said, UNAVAILABLE, &[port]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_on_the_same_state_folder_is_refused() {
    let stack = Stack::start().await;
    let state = stack.state();
    let words =
        ["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--state", state.to_str().unwrap(), "--tasks"];
    let tasks = stack.catalogue();
    let mut words = words.to_vec();
    words.push(tasks.to_str().unwrap());
    let said = controller(stack.folder(), &words).await;
    is_told(&said, IO_ERROR, &["state"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_configuration_is_refused_with_every_problem_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pistat.toml");
    let tasks = folder.path().join("tasks.toml");
    std::fs::write(&config, "[http]\nlisten = \"nowhere\"\nlisten_too = 1\n\n[mqtt]\nprefix = \"a+b\"\n").unwrap();
    std::fs::write(&tasks, "[task.uptime]\ncommand = \"uptime\"\n\n[task.Bad]\ncommand = [\"x\"]\n").unwrap();
    let (config, tasks) = (config.to_str().unwrap(), tasks.to_str().unwrap());
    for verb in ["serve", "check"] {
        let said = controller(folder.path(), &[verb, "--config", config, "--tasks", tasks, "--state", "state"]).await;
        let all = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(said.code, USAGE, "{verb}: {said:?}");
        for word in ["listen", "listen_too", "prefix"] {
            assert!(all.contains(word), "{verb} does not name {word}: {all}");
        }
        assert!(!folder.path().join("state").exists(), "nothing is made before the configuration is good");
    }
    let said = controller(folder.path(), &["check", "--tasks", tasks]).await;
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(said.code == USAGE && all.contains("Bad") && all.contains(":2") || all.contains("line 2"), "{said:?}");
    let missing = controller(folder.path(), &["serve", "--config", "/nonexistent/pistat.toml"]).await;
    is_told(&missing, USAGE, &["/nonexistent/pistat.toml"]);
    for words in [&["serve", "--http", "nowhere"][..], &["no-such-command"], &["serve", "--log-level", "loud"]] {
        assert_eq!(controller(folder.path(), words).await.code, USAGE, "{words:?}");
    }
    std::fs::write(tasks, "[task.uptime]\ncommand = [\"uptime\"]\n").unwrap();
    assert_eq!(controller(folder.path(), &["check", "--tasks", tasks]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_no_text_is_nobodys_business() {
    let mut command = Command::new(program("pistat"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("ODD", OsStr::from_bytes(b"\xff"));
    command.args(["serve", "--config", "/nonexistent/pistat.toml"]);
    is_told(&run("pistat", &mut command, DEADLINE).await, USAGE, &["/nonexistent/pistat.toml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = folder.path().join("tasks.toml");
    std::fs::write(&tasks, "[task.uptime]\ncommand = [\"uptime\"]\n").unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let words = ["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--state", "file/state", "--tasks"];
    let mut words = words.to_vec();
    words.push(tasks.to_str().unwrap());
    let said = controller(folder.path(), &words).await;
    is_told(&said, IO_ERROR, &["file/state"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_is_a_mistake_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let init = ["tls", "init", "--name", "localhost", "--dir"];
    for pair in ["one", "other"] {
        assert_eq!(controller(folder.path(), &[&init[..], &[pair]].concat()).await.code, 0);
    }
    for section in ["http.tls", "mqtt.tls"] {
        let text = format!("[{section}]\ncert = \"one/server.pem\"\nkey = \"other/server-key.pem\"\n");
        std::fs::write(path("pistat.toml"), text).unwrap();
        for verb in ["serve", "check"] {
            let said = controller(folder.path(), &[verb, "--config", "pistat.toml", "--state", "state"]).await;
            assert_eq!(said.code, USAGE, "{verb}: {said:?}");
            let all = format!("{}{}", said.stdout, said.stderr);
            assert!(all.contains("pistat.toml:2") && all.contains("server-key.pem"), "{verb}: {all}");
        }
    }
    std::fs::create_dir(path("state")).unwrap();
    std::fs::write(path("state/broker"), "").unwrap();
    let words = ["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--state", "state"];
    is_told(&controller(folder.path(), &words).await, IO_ERROR, &["state/broker"]);
}

/// Whether a process with exactly these words runs.
fn runs_somewhere(words: &[&str]) -> bool {
    let cmdline = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.ok()?.path().join("cmdline")).ok();
    let sought: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
    std::fs::read_dir("/proc").unwrap().filter_map(cmdline).any(|cmdline| cmdline == sought)
}

/// A soft `RLIMIT_FSIZE` stands for the full disk: writes beyond it fail (and the signal that comes
/// with them is ignored by the shell's children). Lifting it makes room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_state_disk_refuses_new_runs_still_cancels_and_loses_nothing() {
    let script = "trap '' XFSZ; ulimit -S -f 400; exec \"$@\"";
    let mut stack = Stack::builder().wrapped_in(&["bash", "-c", script, "limited"]).start().await;
    let http = stack.http();
    let kept = http.start_run("echo", "controller", json!({"text": "kept"})).await;
    assert_eq!(http.ended(kept, DEADLINE).await.state, RunState::Succeeded);
    // Nobody else sleeps for so long.
    let seconds = format!("3000.{}1", std::process::id());
    let runaway = http.start_run("pause", "controller", json!({"seconds": seconds.parse::<f64>().unwrap()})).await;
    eventually("the runaway task runs", DEADLINE, async || {
        let run = http.run(runaway).await?;
        let runs = run.state == RunState::Running && runs_somewhere(&["sleep", &seconds]);
        if runs { Ok(()) } else { Err(format!("{run:?}")) }
    })
    .await;
    let mut accepted = Vec::new();
    let refusal = eventually("a full disk refuses new runs", DEADLINE, async || {
        let reply = http.ask_run("flood", "controller", json!({"mebibytes": 1})).await;
        if reply.status != 202 {
            return Ok(reply.problem());
        }
        accepted.extend(reply.json::<AcceptedRuns>().runs);
        Err(format!("{} accepted", accepted.len()))
    })
    .await;
    assert!(refusal.status == 503 && refusal.detail.contains("free space"), "{refusal:?}");
    assert!(!accepted.is_empty(), "some were accepted before");
    // It is told as what it is, and it works.
    let told = http.post(&format!("/api/runs/{runaway}/cancel"), json!({})).await.problem();
    assert!(told.status == 503 && told.detail.contains("in force") && told.detail.contains("free space"), "{told:?}");
    eventually("the runaway task is gone", DEADLINE, async || {
        if runs_somewhere(&["sleep", &seconds]) { Err("it sleeps on") } else { Ok(()) }
    })
    .await;
    assert_eq!(http.get("/healthz").await.status, 200);
    assert!(stack.process().ended().is_none(), "the controller stays");
    let pid = rustix::process::Pid::from_raw(stack.process().id().cast_signed());
    let room = rustix::process::Rlimit { current: None, maximum: None };
    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, room).unwrap();
    assert_eq!(http.ended(runaway, DEADLINE).await.state, RunState::Cancelled);
    for run in &accepted {
        let run = http.ended(*run, DEADLINE).await;
        assert_eq!(run.state, RunState::Succeeded, "{run:?}");
    }
    http.start_run("echo", "controller", json!({"text": "there is room"})).await;
    stack.stop().await;
    let mut again = Stack::builder().state(&stack.state()).start().await;
    for run in accepted.into_iter().chain([runaway]) {
        assert!(again.http().run(run).await.unwrap().state.is_final());
    }
    assert_eq!(again.http().output(kept).await, "kept\n");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_state_files_are_set_aside_named_and_never_stop_the_start() {
    let mut stack = Stack::start().await;
    let http = stack.http();
    let answer = stack.feed().await.command("assign name controller Tower").await;
    assert!(answer.ok, "{answer:?}");
    assert_eq!(stack.stop().await, 0);
    for file in ["labels.json", "tasks.json"] {
        std::fs::write(stack.state().join(file), "{\"torn\": ").unwrap();
    }
    stack.restart().await;
    let said = stack.process().stdout().join("\n");
    assert!(said.contains("labels.json"), "{said}");
    let kept = std::fs::read_dir(stack.state()).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text == "{\"torn\": ")).count();
    assert_eq!(kept, 2, "both damaged files are kept aside");
    assert_eq!(http.machine("controller").await.unwrap().label.to_lowercase(), "controller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_admin_token_is_made_anew_at_the_next_start() {
    let mut stack = Stack::start().await;
    let old = stack.http();
    stack.stop().await;
    std::fs::remove_file(stack.state().join("admin.token")).unwrap();
    stack.restart().await;
    assert_eq!(stack.http().get("/api/me").await.status, 200);
    assert_eq!(old.get("/api/me").await.status, 401, "the lost token may be in the wrong hands");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_token_says_where_to_find_one_and_exits_78() {
    let stack = Stack::start().await;
    let mut agent = stack.agent("pi-1").token(None).start();
    assert_eq!(agent.process().exit_code(DEADLINE).await, CONFIGURATION);
    let said = agent.process().stderr().join("\n");
    assert!(said.contains("join-token") && said.contains("--token"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_a_wrong_command_line_exits_64() {
    let stack = Stack::start().await;
    for (flag, value) in [("--interval", "0.1"), ("--interval", "often"), ("--log-level", "loud"), ("--label", "x\ny")]
    {
        let mut agent = stack.agent("pi-1").flag(flag, value).start();
        let code = agent.process().exit_code(DEADLINE).await;
        let said = agent.process().stderr().join("\n");
        assert!(code == USAGE && said.contains(flag.trim_start_matches('-')), "{flag} {value:?}: {code} {said}");
    }
    for url in ["ftp://x", "http://", "nonsense"] {
        let mut agent = stack.agent("pi-1").url(url).start();
        assert_eq!(agent.process().exit_code(DEADLINE).await, USAGE, "{url}");
    }
    let mut agent = stack.agent("not a pi").start();
    assert_eq!(agent.process().exit_code(DEADLINE).await, USAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_flags_win_over_its_environment_for_the_token_and_its_file_too() {
    let stack = Stack::start().await;
    let http = stack.http();
    let file = stack.folder().join("a.token");
    std::fs::write(&file, stack.join_token()).unwrap();
    let with_file = |pi: &str| stack.agent(pi).flag("--token-file", file.to_str().unwrap());
    let variable = ["env", "PISTAT_AGENT_TOKEN=nonsense"];
    let _one = with_file("pi-1").token(None).wrapped_in(&variable).online(&http).await;
    let variable = ["env", "PISTAT_AGENT_TOKEN_FILE=/nonexistent"];
    let _two = stack.agent("pi-2").wrapped_in(&variable).online(&http).await;
    let mut both = with_file("pi-3").start();
    assert_eq!(both.process().exit_code(DEADLINE).await, USAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_programs_exit_0_when_they_are_asked_to_stop() {
    let mut stack = Stack::start().await;
    let mut agent = stack.agent("pi-1").online(&stack.http()).await;
    // One in the middle of a run, and a browser connected.
    stack.http().start_run("pause", "pi-1", json!({"seconds": 600})).await;
    let _feed = stack.feed().await;
    assert_eq!(agent.stop().await, 0);
    assert_eq!(stack.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_exits_with_the_tasks_own_code() {
    let stack = Stack::start().await;
    for code in [0, 3, 255] {
        let said = stack.cli(&["task", "run", "exit", &format!("code={code}")]).await;
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.stdout.contains(&format!("leaving with {code}")), "{said:?}");
    }
    let detached = stack.cli(&["task", "run", "uptime", "--detach"]).await;
    let run = detached.stdout.trim().parse().unwrap_or_else(|error| panic!("{error}: {detached:?}"));
    assert_eq!(stack.http().ended(run, DEADLINE).await.state, RunState::Succeeded);
    let shown = stack.cli(&["output", &run.to_string()]).await;
    assert!(shown.code == 0 && shown.stdout.contains("load average"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_when_the_controller_is_not_there_or_the_token_is_wrong() {
    let mut stack = Stack::start().await;
    let wrong = stack.folder().join("wrong.token");
    std::fs::write(&wrong, "not-a-token").unwrap();
    let said = stack.cli_as(&wrong, &["pis"], DEADLINE).await;
    is_told(&said, 77, &["token"]);
    stack.stop().await;
    let said = stack.cli(&["pis"]).await;
    is_told(&said, UNAVAILABLE, &[&stack.said.http]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_removal_cannot_be_stored_is_there_and_the_log_says_nothing_else() {
    let stack = Stack::start().await;
    let http = stack.http();
    let (_bob, _token) = stack.account("bob", "viewer").await;
    // Where a folder is in the way, the file of the accounts cannot be replaced.
    let in_the_way = stack.state().join("accounts.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let refused = http.send("DELETE", "/api/accounts/bob", None).await;
    assert!(refused.status == 503 && refused.problem().detail.contains("nothing was changed"), "{refused:?}");
    let told = http.events().await;
    assert!(!told.iter().any(|event| event.text.contains("removed account bob")), "{told:?}");
    std::fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(http.send("DELETE", "/api/accounts/bob", None).await.status, 204);
    let event = http.event(&["removed account bob"], DEADLINE).await;
    assert_eq!(event.account.as_deref(), Some("admin"));
}
