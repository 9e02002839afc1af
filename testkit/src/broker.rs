//! Another's broker: mosquitto, with users, topic rules and TLS as a test wants it.
//!
//! With `PISTAT_TEST_BROKER=external` every [`crate::Stack`] uses one, with the rules that `pistat
//! broker-acl mosquitto` prints; the same tests then say whether a controller is at home there.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    mosquitto::Login,
    mqtt::Mqtt,
    port::Port,
    process::{Process, run},
    programs::{path, program},
    wait::{DEADLINE, eventually},
};

/// Chooses the broker of the tests.
const VARIABLE: &str = "PISTAT_TEST_BROKER";

/// The controller's user.
pub const CONTROLLER: &str = "pistat-controller";

/// Accounts that tests make and that ask for tasks over MQTT.
const OPERATORS: [&str; 6] = ["admin", "olga", "anna", "script", "ha", "ha2"];

/// Accounts that tests make and that only look.
const VIEWERS: [&str; 1] = ["vera"];

/// How many machines of the form `pi-7`, and how many of the form `pi-007`, have a user.
const MACHINES: (usize, usize) = (12, 500);

/// Whether this run of the tests is about another's broker.
///
/// # Panics
/// The variable is set to something else.
pub fn is_external() -> bool {
    match std::env::var(VARIABLE).as_deref() {
        Ok("external") => true,
        Ok("embedded") | Err(_) => false,
        Ok(other) => panic!("{VARIABLE} is embedded or external, not {other}"),
    }
}

/// The password of a user on every broker of the tests.
pub fn password(user: &str) -> String {
    format!("password-of-{user}")
}

/// How a mosquitto is to be started.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    users: Vec<String>,
    rules: Option<String>,
    tls: Option<PathBuf>,
    lines: String,
}

/// A running mosquitto.
pub struct Mosquitto {
    process: Process,
    port: Port,
    plan: Builder,
    folder: TempDir,
}

impl Builder {
    /// These users, each with its [`password`]; without any, every client may do everything.
    #[must_use]
    pub fn users<'a>(mut self, users: impl IntoIterator<Item = &'a str>) -> Self {
        self.users.extend(users.into_iter().map(str::to_owned));
        self
    }

    /// The content of its `acl_file`.
    #[must_use]
    pub fn rules(mut self, text: &str) -> Self {
        self.rules = Some(text.to_owned());
        self
    }

    /// It speaks TLS, with `server.pem` and `server-key.pem` of this folder.
    #[must_use]
    pub fn tls(mut self, folder: &Path) -> Self {
        self.tls = Some(folder.to_owned());
        self
    }

    /// More lines of its configuration; they may say who may connect, and have more listeners.
    #[must_use]
    pub fn lines(mut self, text: &str) -> Self {
        text.clone_into(&mut self.lines);
        self
    }

    /// Starts it on a port of its own, and waits until it listens.
    pub async fn start(self) -> Mosquitto {
        let mut mosquitto = self.prepare().await;
        mosquitto.start().await;
        mosquitto
    }

    /// Everything but the start: the port is chosen, and nobody listens there yet.
    pub async fn prepare(self) -> Mosquitto {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let port = Port::claim();
        let file = |name: &str| folder.path().join(name);
        if !self.users.is_empty() {
            let lines: String = self.users.iter().map(|user| format!("{user}:{}\n", password(user))).collect();
            std::fs::write(file("users"), lines).expect("the folder is ours");
            let mut hash = Command::new("mosquitto_passwd");
            hash.arg("-U").arg(file("users"));
            assert_eq!(run("mosquitto_passwd", &mut hash, DEADLINE).await.code, 0, "the passwords are hashed");
        }
        if let Some(rules) = &self.rules {
            std::fs::write(file("rules"), rules).expect("the folder is ours");
        }
        std::fs::write(file("mosquitto.conf"), self.config(port.number(), folder.path())).expect("the folder is ours");
        let process = Process::start("nothing yet", &mut Command::new("true"));
        Mosquitto { process, port, plan: self, folder }
    }

    fn config(&self, port: u16, folder: &Path) -> String {
        let folder = folder.display();
        let mut config = format!("listener {port} 127.0.0.1\n");
        if let Some(tls) = &self.tls {
            let tls = tls.display();
            config.push_str(&format!("certfile {tls}/server.pem\nkeyfile {tls}/server-key.pem\n"));
        }
        if self.lines.contains("allow_anonymous") {
            // The lines say it.
        } else if self.users.is_empty() {
            config.push_str("allow_anonymous true\n");
        } else {
            config.push_str(&format!("allow_anonymous false\npassword_file {folder}/users\n"));
        }
        if self.rules.is_some() {
            config.push_str(&format!("acl_file {folder}/rules\n"));
        }
        // As docs/scaling.md says: by default it drops what a subscriber has not taken beyond a
        // thousand messages. As root it would give up its own files.
        config.push_str("max_queued_messages 100000\nuser root\n");
        config.push_str(&self.lines);
        config
    }
}

impl Mosquitto {
    /// One to be started otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// One that allows everything to every client.
    pub async fn open() -> Self {
        Self::builder().start().await
    }

    /// The house's broker: the controller, the machines and the accounts of the tests, with the
    /// rules that `pistat broker-acl` prints.
    pub async fn house() -> Self {
        let mut words = vec!["broker-acl", "mosquitto", "--controller", CONTROLLER];
        words.extend(OPERATORS.iter().flat_map(|name| ["--operator", name]));
        words.extend(VIEWERS.iter().flat_map(|name| ["--viewer", name]));
        let mut rules = acl(&words).await;
        // What the account of one test has besides, and where it wants its answers.
        rules.push_str(&format!(
            "\nuser script\ntopic readwrite pistat-test/#\n\nuser {CONTROLLER}\ntopic write pistat-test/#\n"
        ));
        let machines = (1..=MACHINES.0).map(|number| format!("pi-{number}"));
        let machines: Vec<_> = machines.chain((0..MACHINES.1).map(|number| format!("pi-{number:03}"))).collect();
        let users = OPERATORS.iter().chain(&VIEWERS).copied().chain([CONTROLLER]);
        let users = users.chain(machines.iter().map(String::as_str));
        Self::builder().users(users).rules(&rules).start().await
    }

    /// Starts it where it was to be, and waits until it listens.
    pub async fn start(&mut self) {
        // Debian keeps servers where ordinary people's search path does not look.
        let path = format!("{}:/usr/sbin:/usr/local/sbin", path());
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        self.process = Process::start("mosquitto", &mut command);
        let address = self.address();
        eventually("mosquitto listens", DEADLINE, async || TcpStream::connect(address).await.map(drop)).await;
    }

    /// `kill -9`: everything that was retained is forgotten, no will is published.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its address for a user.
    pub fn url(&self, user: &str) -> String {
        let scheme = if self.plan.tls.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{user}:{}@{}", password(user), self.address())
    }

    /// mosquitto's clients, as this user.
    pub fn login(&self, user: &str) -> Login {
        Login { address: self.address(), user: user.to_owned(), password: password(user) }
    }

    /// An MQTT 5 client, as this user.
    pub async fn client(&self, user: &str) -> Mqtt {
        let connected = Mqtt::connect(self.address(), user, &password(user)).await;
        connected.unwrap_or_else(|error| panic!("mosquitto lets {user} in: {error}"))
    }
}

/// What `pistat broker-acl` prints.
pub async fn acl(words: &[&str]) -> String {
    acl_in(&[], words).await
}

/// What it prints with these variables set.
pub async fn acl_in(environment: &[(&str, &str)], words: &[&str]) -> String {
    let mut command = Command::new(program("pistat"));
    command.args(words).env_clear().envs(environment.iter().copied()).current_dir("/");
    let said = run("pistat", &mut command, Duration::from_secs(20)).await;
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout + "\n"
}
