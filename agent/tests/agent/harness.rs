//! A real broker (mosquitto), a real agent process, and a controller that the test plays.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use pistat_testkit::{Controller, DEADLINE, Mosquitto, Process, eventually};
use rustix::process::Signal;
use tempfile::TempDir;

/// An agent process.
pub(crate) struct Agent {
    process: Process,
}

impl Agent {
    /// Starts it for `pi-1`; further words follow.
    pub(crate) fn start(url: &str, state: &Path, words: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_pistat-agent")), url, state, words)
    }

    /// Starts it by a command that may begin with another program.
    pub(crate) fn start_by(mut command: Command, url: &str, state: &Path, words: &[&str]) -> Self {
        if !words.contains(&"--log-level") {
            command.args(["--log-level", "debug"]);
        }
        command.args(["--controller-url", url, "--pi-id", "pi-1", "--state"]).arg(state).args(words);
        Self { process: Process::start("pistat-agent", &mut command) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn log(&self) -> String {
        self.process.stderr().join("\n")
    }

    /// Waits until its log has so many lines with this part.
    pub(crate) async fn wait_for_log(&self, part: &str, count: usize) {
        eventually(&format!("{part:?} is in the log {count} times"), DEADLINE, async || {
            let log = self.log();
            if log.lines().filter(|line| line.contains(part)).count() < count { Err(log) } else { Ok(()) }
        })
        .await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait().await
    }

    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait().await;
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        self.process.wait(DEADLINE).await
    }
}

/// A broker, a controller and an enrolled agent that is online.
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) controller: Controller,
    pub(crate) broker: Mosquitto,
    pub(crate) folder: TempDir,
}

impl Stage {
    pub(crate) async fn set(words: &[&str]) -> Self {
        let broker = Mosquitto::open().await;
        let mut controller = Controller::connect(broker.address());
        let folder = tempfile::tempdir().unwrap();
        let url = format!("mqtt://{}", broker.address());
        let token = controller.token();
        let words: Vec<&str> = ["--token", &token, "--interval", "1"].iter().chain(words).copied().collect();
        let agent = Agent::start(&url, &folder.path().join("state"), &words);
        controller.wait_for_status("online").await;
        Self { agent, controller, broker, folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://{}", self.broker.address())
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts the agent again without a token.
    pub(crate) fn start_again(&mut self) {
        self.agent = Agent::start(&self.url(), &self.state(), &["--interval", "1"]);
    }

    pub(crate) fn records(&self) -> usize {
        let entries = std::fs::read_dir(self.state().join("runs")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json")).count()
    }

    pub(crate) async fn wait_until_no_records(&self) {
        eventually("finished runs are forgotten", DEADLINE, async || match self.records() {
            0 => Ok(()),
            left => Err(left),
        })
        .await;
    }
}
