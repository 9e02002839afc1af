//! A backup as `docs/operations.md` makes it, the state folder gone, and the restore as it says:
//! the fleet goes on as if nothing had happened.

use std::{path::Path, process::Command};

use pistat_protocol::task::RunState;
use pistat_testkit::{
    DEADLINE, Port, Stack, eventually,
    pages::{blocks, section},
    process::run,
    programs::program,
};
use serde_json::json;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The page's commands: those that make the backup, and last those of the restore.
fn commands() -> Vec<String> {
    let page = read("docs/operations.md");
    let blocks = blocks(section(&page, "Backup"));
    blocks.into_iter().filter(|block| block.language == "sh").map(|block| block.text).collect()
}

/// What `state/README.md` says that nobody can make again.
fn irreplaceable() -> Vec<String> {
    let page = read("state/README.md");
    let line = page.lines().find(|line| line.starts_with("The files that cannot be made again are ")).unwrap();
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

async fn succeeds(command: &mut Command, folder: &Path) {
    let said = run("a command", command.current_dir(folder), DEADLINE).await;
    assert_eq!(said.code, 0, "{command:?}: {said:?}");
}

async fn bash(text: &str, folder: &Path) {
    succeeds(Command::new("bash").args(["-euo", "pipefail", "-c", text]), folder).await;
}

/// A house with everything that a backup has to hold: an authority of its own, a machine that
/// believes it, and what people said of that machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_goes_on_after_a_restore_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, state) = (folder.path(), folder.path().join("state"));
    succeeds(Command::new(program("pistat")).args(["tls", "init", "--name", "127.0.0.1"]).env_clear(), folder).await;
    // As on the machine: the authority's certificate, and nothing else of the state folder.
    let ca = folder.join("ca.pem");
    std::fs::copy(state.join("tls/ca.pem"), &ca).unwrap();
    let port = Port::claim();
    let tls = state.join("tls");
    let config = format!(
        "[mqtt.tls]\nlisten = \"127.0.0.1:{port}\"\ncert = {:?}\nkey = {:?}\n",
        tls.join("server.pem"),
        tls.join("server-key.pem")
    );
    let mut stack = Stack::builder().embedded().state(&state).config(&config).start().await;
    let (http, join_token) = (stack.http(), stack.join_token());
    let url = format!("mqtts://127.0.0.1:{port}");
    let agent = stack.agent("pi-1").url(&url).flag("--ca", ca.to_str().unwrap()).online(&http).await;
    for words in [
        &["assign", "name", "pi-1", "Camera"][..],
        &["tag", "add", "pi-1", "garden"],
        &["task", "assign", "pi-1", "birds"],
    ] {
        assert_eq!(stack.cli(words).await.code, 0, "{words:?}");
    }
    let old = http.start_run("uptime", "pi-1", json!({})).await;
    http.ended(old, DEADLINE).await;

    eventually("Home Assistant is told of the machine", DEADLINE, async || {
        let told = std::fs::read_to_string(state.join("homeassistant.json")).map_err(|error| error.to_string())?;
        if told.contains("pi-1") { Ok(()) } else { Err(told) }
    })
    .await;

    let mut backup = commands();
    let restore = backup.pop().unwrap();
    assert!(backup.len() == 2 && restore.contains("mv state "), "{backup:?} {restore}");
    for text in &backup {
        bash(text, folder).await;
    }
    let needed = irreplaceable();
    assert!(needed.len() > 6, "{needed:?}");
    for name in needed {
        assert!(folder.join("backup").join(&name).exists(), "{name} cannot be made again and is not in the backup");
    }
    assert_eq!(stack.cli(&["assign", "name", "pi-1", "After the backup"]).await.code, 0);
    assert_eq!(stack.stop().await, 0);
    bash(&restore, folder).await;
    stack.restart().await;

    // Neither the agent nor anybody's token is touched.
    let machine = agent.sampled(&http).await;
    assert_eq!((machine.label.as_str(), machine.assignment.as_deref()), ("Camera", Some("birds")), "{machine:?}");
    assert_eq!(machine.tags, ["garden".parse().unwrap()]);
    assert_eq!(stack.join_token(), join_token);
    assert!(http.output(old).await.contains("load average"), "runs of before are there");
    let new = http.start_run("uptime", "pi-1", json!({})).await;
    assert_eq!(
        http.ended(new, DEADLINE).await.state,
        RunState::Succeeded,
        "the agent believes the controller's orders"
    );
}
