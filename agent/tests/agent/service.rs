//! The agent as systemd sees it: readiness, watchdog, its files, and what it writes while nothing
//! happens.

use std::{
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use pistat_protocol::{stats::Sample, status::Info, topic::Topic};

use crate::harness::{Agent, Stage};
use pistat_testkit::{Controller, DEADLINE, Mosquitto, Port, controller::Heard};

/// What systemd hears until this word; each datagram may hold several lines.
fn hear_until(systemd: &UnixDatagram, word: &str) -> Vec<String> {
    let mut heard = Vec::new();
    let mut buffer = [0; 512];
    while heard.last().is_none_or(|last| last != word) {
        let length = systemd.recv(&mut buffer).unwrap_or_else(|error| panic!("{word}: {error}, after {heard:?}"));
        heard.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
    }
    heard
}

#[tokio::test]
async fn systemd_hears_that_it_is_ready_that_it_lives_and_that_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(DEADLINE)).unwrap();
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_pistat-agent"));
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
    let (url, token) = (format!("mqtt://{}", broker.address()), controller.token());
    let mut agent = Agent::start_by(command, &url, &folder.path().join("state"), &["--token", &token]);
    hear_until(&systemd, "READY=1");
    controller.wait_for_status("online").await;
    for _ in 0..5 {
        hear_until(&systemd, "WATCHDOG=1");
    }
    // A thread that hangs does not say that it lives.
    agent.signal(rustix::process::Signal::STOP);
    systemd.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 64];
    while systemd.recv(&mut buffer).is_ok() {}
    agent.signal(rustix::process::Signal::CONT);
    systemd.set_read_timeout(Some(DEADLINE)).unwrap();
    hear_until(&systemd, "WATCHDOG=1");
    agent.signal(rustix::process::Signal::TERM);
    hear_until(&systemd, "STOPPING=1");
    assert!(agent.wait().await.success());
}

#[tokio::test]
async fn it_is_ready_though_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pistat-agent"));
    command.env("NOTIFY_SOCKET", &socket);
    let nobody = Port::claim();
    let url = format!("mqtt://{}", nobody.address());
    let token = format!("{}.{}", "s".repeat(43), "f".repeat(43));
    let mut agent = Agent::start_by(command, &url, &folder.path().join("state"), &["--token", &token]);
    hear_until(&systemd, "READY=1");
    assert!(agent.terminate().await.success());
}

fn modes(folder: &Path) -> Vec<(String, u32)> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o777))
        .collect()
}

#[tokio::test]
async fn everything_stands_in_one_file_and_nobody_else_may_read_the_credential() {
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| folder.path().join(name);
    std::fs::write(of("token"), controller.token()).unwrap();
    let text = format!(
        "controller_url = 'mqtt://{}'\npi_id = 'pi-1'\ninterval = 0.2\ntoken_file = '{}'\nstate = '{}'\n",
        broker.address(),
        of("token").display(),
        of("state").display()
    );
    std::fs::write(of("agent.toml"), text).unwrap();
    let log = std::fs::File::create(of("log")).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_pistat-agent"))
        .arg("--config")
        .arg(of("agent.toml"))
        .stderr(log)
        .spawn()
        .unwrap();
    controller.wait_for_status("online").await;
    let state = std::fs::metadata(of("state")).unwrap().permissions().mode();
    assert_eq!(state & 0o777, 0o700);
    let files = modes(&of("state"));
    assert!(files.contains(&("credential.json".into(), 0o600)), "{files:?}");
    agent.kill().unwrap();
    agent.wait().unwrap();
    let secret = std::fs::read_to_string(of("state/credential.json")).unwrap();
    let secret = secret.split('"').find(|word| word.len() == 43).unwrap().to_owned();
    assert!(!std::fs::read_to_string(of("log")).unwrap().contains(&secret), "and it is not in the log");
}

/// What the kernel counts as written by a process and by its children that have ended.
fn written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let field = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    field.parse().unwrap()
}

/// Whether anything is counted for this folder's file system: on one in memory nothing is, and a
/// test would pass whatever was written.
fn counts_writes(folder: &Path) -> bool {
    let mut writer = Command::new("sh")
        .args(["-c", "head -c 65536 /dev/zero >\"$0\"; echo done; read -r _"])
        .arg(folder.join("written"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(writer.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let counted = written(writer.id());
    drop(writer.stdin.take());
    writer.wait().unwrap();
    counted >= 65536
}

#[tokio::test]
async fn an_idle_agent_writes_nothing_to_the_disk_not_even_when_it_looks_up_the_hourly_facts() {
    let mut stage = Stage::set(&["--interval", "0.2", "--log-level", "warn"]).await;
    assert!(
        counts_writes(stage.folder.path()),
        "writes to {} are not counted: set TMPDIR",
        stage.folder.path().display()
    );
    let pid = stage.agent.pid();
    let sample = |heard: &Heard| matches!(heard.topic, Topic::Stats(_)).then(|| heard.json::<Sample>());
    let first = stage.controller.wait_for("a sample", sample).await.seq;
    let before = written(pid);
    // They come a quarter of a minute after the start, and start processes, whose writes are
    // counted too.
    let facts = |heard: &Heard| {
        let info = matches!(heard.topic, Topic::Info(_)).then(|| heard.json::<Info>())?;
        (info.updates_pending.is_some() || info.reboot_required.is_some() || info.failed_units.is_some()).then_some(())
    };
    let mut looked_up = None;
    let many = |heard: &Heard| {
        looked_up = looked_up.or(facts(heard));
        sample(heard).filter(|next| next.seq >= first + 50)
    };
    stage.controller.wait_for("many samples", many).await;
    if looked_up.is_none() {
        stage.controller.wait_for("the hourly facts", facts).await;
    }
    for _ in 0..10 {
        stage.controller.wait_for("a sample", sample).await;
    }
    assert_eq!(written(pid) - before, 0);
    // Nothing is even open for writing but sockets, pipes and the standard streams.
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap) {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let writable = entry.path().symlink_metadata().unwrap().permissions().mode() & 0o200 != 0;
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        assert!(!(writable && number > 2 && target.is_absolute()), "{number} → {}", target.display());
    }
}
