//! Tasks on the controller's own machine, which run as the controller's user: what they cannot
//! reach of the controller.

use std::path::{Path, PathBuf};

use pistat_protocol::{dashboard::Run, task::RunState};
use pistat_testkit::{DEADLINE, Stack, http::Http};
use serde_json::json;

const CATALOGUE: &str = "
[task.show]
command = ['cat', '{file}']
args.file = { pattern = '.+' }
[task.write]
command = ['cp', '/etc/hostname', '{file}']
args.file = { pattern = '.+' }
[task.remove]
command = ['mv', '{file}', '{file}.gone']
args.file = { pattern = '.+' }
[task.kill]
command = ['kill', '-KILL', '{pid}']
args.pid = { integer = { min = 1, max = 9999999 } }
[task.missing-program]
command = ['no-such-program-here']
";

/// Whether tasks are confined here. Where the kernel cannot do it, the controller has to say so.
fn is_confined(stack: &mut Stack) -> bool {
    let log = stack.process().stderr().join("\n");
    let says_no = log.contains("no Landlock");
    assert!(!says_no || log.contains("docs/security.md"), "{log}");
    !says_no
}

async fn run(http: &Http, task: &str, file: &Path) -> (Run, String) {
    let run = http.start_run(task, "controller", json!({"file": file})).await;
    (http.ended(run, DEADLINE).await, http.output(run).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_the_controllers_machine_reaches_nothing_that_the_controller_keeps() {
    let mut stack = Stack::builder().catalogue(CATALOGUE).config("[runs]\nkeep_runs = 100\n").start().await;
    if !is_confined(&mut stack) {
        return;
    }
    let (http, pid) = (stack.http(), stack.process().id());
    let state = std::fs::canonicalize(stack.state()).unwrap();
    let outside = std::fs::canonicalize(stack.marks()).unwrap();
    std::os::unix::fs::symlink(state.join("admin.token"), outside.join("link")).unwrap();
    let kept = ["admin.token", "join.token", "controller.key", "accounts.json", "register.sqlite"]
        .map(|name| state.join(name));
    let of_process = |path: &str| PathBuf::from(format!("/proc/{pid}/{path}"));
    let others = [
        outside.join("link"),
        of_process("environ"),
        of_process("mem"),
        of_process("fd/3"),
        of_process(&format!("root{}/admin.token", state.display())),
    ];
    for file in kept.iter().chain(&others) {
        let (ended, output) = run(&http, "show", file).await;
        assert_eq!((ended.state, ended.exit_code), (RunState::Failed, Some(1)), "{}: {output}", file.display());
        assert!(
            output.contains("ermission denied") || output.contains("not permitted"),
            "{}: {output}",
            file.display()
        );
    }
    let catalogue = std::fs::canonicalize(stack.catalogue()).unwrap();
    let before: Vec<_> = kept.iter().chain([&catalogue]).map(|file| std::fs::read(file).unwrap()).collect();
    for file in kept.iter().chain([&catalogue, &state.join("new"), &state.join("runs/new")]) {
        for task in ["write", "remove"] {
            let (ended, output) = run(&http, task, file).await;
            assert_eq!(ended.state, RunState::Failed, "{task} {}: {output}", file.display());
        }
    }
    assert!(!state.join("new").exists() && !state.join("runs/new").exists());
    for (file, before) in kept.iter().chain([&catalogue]).zip(before).take(3) {
        assert_eq!(std::fs::read(file).unwrap(), before, "{}", file.display());
    }
    let killed = http.start_run("kill", "controller", json!({"pid": pid})).await;
    assert_eq!(http.ended(killed, DEADLINE).await.state, RunState::Failed, "the controller lives and tells so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_the_controllers_machine_has_everything_else() {
    let mut stack = Stack::builder().catalogue(CATALOGUE).start().await;
    is_confined(&mut stack);
    let http = stack.http();
    for file in [PathBuf::from("/etc/passwd"), "/proc/uptime".into(), stack.catalogue()] {
        let (ended, output) = run(&http, "show", &file).await;
        assert_eq!((ended.state, output.is_empty()), (RunState::Succeeded, false), "{}: {output}", file.display());
    }
    let mark = stack.marks().join("written");
    let (ended, output) = run(&http, "write", &mark).await;
    assert_eq!(ended.state, RunState::Succeeded, "{output}");
    assert!(mark.exists());
    let missing = http.start_run("missing-program", "controller", json!({})).await;
    let missing = http.ended(missing, DEADLINE).await;
    assert_eq!((missing.state, missing.exit_code), (RunState::Failed, Some(127)));
    assert!(missing.reason.is_some_and(|reason| reason.contains("is not installed on this machine")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_that_ship_work_on_the_controllers_machine() {
    let shipped = include_str!("../../config/tasks.toml");
    let stack = Stack::builder().catalogue(shipped).start().await;
    let http = stack.http();
    for task in ["uptime", "disk-usage", "memory", "top", "os-release"] {
        let run = http.start_run(task, "controller", json!({})).await;
        let ended = http.ended(run, DEADLINE).await;
        let output = http.output(run).await;
        assert_eq!((ended.state, output.is_empty()), (RunState::Succeeded, false), "{task}: {output}");
    }
}
