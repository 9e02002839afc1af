//! A broker for a test: a port of its own, accounts whose passwords are their names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pistat_broker::{Bounds, Broker, BrokerConfig, BrokerEvent, BrokerHandle, Directory, Limits, Statistics};
use pistat_protocol::account::Role;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;

use pistat_testkit::{DEADLINE, packet::Connect, raw::Client, usage};

pub(crate) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// `home` and `other` may use `test/#` and some more, `quiet` has a place of its own; the rest are
/// the three roles.
pub(crate) fn directory() -> Directory {
    let mut directory = Directory::new();
    directory.controller(hash("controller"));
    for (name, role) in [("viewer", Role::Viewer), ("operator", Role::Operator), ("boss", Role::Admin)] {
        directory.account(name.parse().unwrap(), role, hash(name), vec![], vec![]);
    }
    for name in ["home", "other"] {
        let rules = || ["test/#", "TopicA/#", "fence/#", "a/#", "$share/#", "+", "/#"].map(str::to_owned).to_vec();
        directory.account(name.parse().unwrap(), Role::Viewer, hash(name), rules(), rules());
    }
    let rules = || vec!["test/#".to_owned(), "fence/#".to_owned(), "good/#".to_owned()];
    directory.account("quiet".parse().unwrap(), Role::Viewer, hash("quiet"), rules(), rules());
    for name in ["pi-1", "pi-2"] {
        directory.agent(name.parse().unwrap(), hash(name));
    }
    directory.join_token("default", hash("join"));
    directory.pi_join_token("pi-9".parse().unwrap(), hash("only-nine"));
    directory
}

/// The default limits with other bounds.
pub(crate) fn with_bounds(change: impl FnOnce(&mut Bounds)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits.bounds);
    limits
}

/// A running broker.
pub(crate) struct Setup {
    pub(crate) broker: Broker,
    pub(crate) address: SocketAddr,
    pub(crate) events: mpsc::Receiver<BrokerEvent>,
}

impl Setup {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default(), None).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, None).await
    }

    pub(crate) async fn with(limits: Limits, state: Option<PathBuf>) -> Self {
        Self::with_directory(limits, state, directory()).await
    }

    pub(crate) async fn with_directory(limits: Limits, state: Option<PathBuf>, directory: Directory) -> Self {
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let config = BrokerConfig { listen, state, limits, ..BrokerConfig::default() };
        let (broker, events) = Broker::start(config, directory).await.unwrap();
        let address = broker.addresses().mqtt.unwrap();
        Self { broker, address, events }
    }

    pub(crate) fn handle(&self) -> BrokerHandle {
        self.broker.handle()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.broker.handle().statistics()
    }

    pub(crate) async fn client(&self, connect: Connect) -> Client {
        Client::connect(self.address, &connect).await
    }

    pub(crate) async fn v311(&self, client_id: &str) -> Client {
        self.client(Connect::v311(client_id)).await
    }

    pub(crate) async fn v5(&self, client_id: &str) -> Client {
        self.client(Connect::v5(client_id)).await
    }

    /// Waits for an event.
    pub(crate) async fn event(&mut self, wanted: impl Fn(&BrokerEvent) -> bool) -> BrokerEvent {
        let search = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if wanted(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(DEADLINE, search).await.expect("the event did not come in time")
    }
}

/// Waits until something has become true.
pub(crate) async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !is_true() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A broker in a process of its own, so that it can be killed and weighed. The program is this test
/// binary again, which runs the test `test`; that must begin with [`be_the_broker`].
pub(crate) struct Apart {
    pub(crate) process: Child,
    pub(crate) address: SocketAddr,
    /// Kept open: after a minute the test runner in that process says that its test is slow, and
    /// must be able to.
    _stdout: Lines<BufReader<ChildStdout>>,
}

/// Names the state folder in the environment of such a process.
const APART: &str = "BROKER_APART";

impl Apart {
    pub(crate) async fn start(test: &str, state: &Path) -> Self {
        Self::start_as(Command::new(std::env::current_exe().unwrap()), test, state).await
    }

    /// Its files can grow to so many bytes, as on a disk that is full then: what does not fit is
    /// written in part.
    pub(crate) async fn start_on_a_small_disk(bytes: u64, test: &str, state: &Path) -> Self {
        let mut command = Command::new("prlimit");
        command.arg(format!("--fsize={bytes}:unlimited"));
        command.args(["sh", "-c", r#"trap "" XFSZ; exec "$0" "$@""#]).arg(std::env::current_exe().unwrap());
        Self::start_as(command, test, state).await
    }

    /// There is room on its disk again.
    pub(crate) async fn make_room(&self) {
        let pid = self.process.id().unwrap().to_string();
        let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:unlimited"]).status().await;
        assert!(lifted.unwrap().success());
    }

    async fn start_as(mut command: Command, test: &str, state: &Path) -> Self {
        let mut process = command
            .args(["--exact", test, "--nocapture"])
            .env(APART, state)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        loop {
            let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                return Self { process, address: address.parse().unwrap(), _stdout: lines };
            }
        }
    }

    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// Its memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        usage::memory(self.process.id().unwrap(), "VmRSS")
    }
}

/// In the process of an [`Apart`], runs the broker until it is killed; elsewhere does nothing.
pub(crate) async fn be_the_broker(limits: Limits) {
    if let Some(state) = std::env::var_os(APART) {
        let setup = Setup::with(limits, Some(state.into())).await;
        println!("\nlistening on {}", setup.address);
        std::future::pending::<()>().await;
    }
}
