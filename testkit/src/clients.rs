//! Other people's client libraries, as programs that tests talk to: paho-mqtt and MQTT.js.
//!
//! What they need is installed once, into the target folder, by `pip` and `npm`; what is there
//! already and fits is used.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    process::{Process, run},
    wait::{DEADLINE, STANDSTILL, gradually},
};

/// Installing may have to fetch packages over a slow line.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// Where the programs around the libraries are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// A client library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// paho-mqtt, in Python.
    Paho,
    /// MQTT.js, in Node.js.
    MqttJs,
}

/// How a client reaches the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS on a port of its own.
    Tls,
    /// WebSocket on the controller's HTTP port.
    WebSocket,
}

impl Transport {
    fn word(self) -> &'static str {
        ["tcp", "tls", "ws"][self as usize]
    }
}

/// Where a broker is, and who connects there.
#[derive(Debug, Clone)]
pub struct Door {
    /// The ports of [`Transport::Tcp`], [`Transport::Tls`] and [`Transport::WebSocket`].
    pub ports: [u16; 3],
    /// The certificate authority to trust.
    pub ca: PathBuf,
    /// The account.
    pub user: String,
    /// Its token.
    pub password: String,
}

/// A client of somebody else's.
pub struct Client {
    /// Its client id, and the words with which it answers.
    pub name: String,
    /// Whether it speaks MQTT 5.
    pub is_v5: bool,
    process: Process,
}

impl Client {
    /// A connected client, subscribed to `filter` with `QoS` 2. Its library must be installed:
    /// [`install`].
    pub async fn start(library: Library, transport: Transport, is_v5: bool, door: &Door, filter: &str) -> Self {
        let name = format!("{library:?}-{transport:?}-{}", if is_v5 { 5 } else { 3 });
        let wanted = json!({
            "transport": transport.word(),
            "host": "127.0.0.1",
            "port": door.ports[transport as usize],
            "ca": door.ca,
            "version": if is_v5 { 5 } else { 4 },
            "name": name,
            "user": door.user,
            "password": door.password,
            "filter": filter.replace("{name}", &name),
        });
        let mut command = match library {
            Library::Paho => {
                let mut command = Command::new(folder("paho").join("bin/python"));
                command.arg(Path::new(SOURCES).join("paho_client.py"));
                command
            }
            Library::MqttJs => {
                let mut command = Command::new("node");
                command.arg(folder("mqttjs").join("mqttjs_client.mjs"));
                command
            }
        };
        let mut process = Process::start_listening(&name, command.arg(wanted.to_string()));
        process
            .line("that it is ready", DEADLINE, |line| {
                (line == r#"{"ready": true}"# || line == r#"{"ready":true}"#).then_some(())
            })
            .await;
        Self { name, is_v5, process }
    }

    /// Publishes a message: topic, payload, qos, and maybe retain and properties.
    pub fn publish(&mut self, message: &Value) {
        self.process.say(&message.to_string());
    }

    /// Waits until so many of its messages have been taken by the broker.
    pub async fn has_published(&self, count: usize) {
        let what = format!("{} has published {count}", self.name);
        gradually(&what, STANDSTILL, async || match self.said("published").len() {
            published if published == count => Ok(()),
            published => Err(count.abs_diff(published) as u64),
        })
        .await;
    }

    /// The messages that have come so far.
    pub fn messages(&self) -> Vec<Value> {
        self.said("message")
    }

    fn said(&self, what: &str) -> Vec<Value> {
        let lines = self.process.stdout();
        lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()?.get(what).cloned()).collect()
    }
}

/// Installs both libraries, unless what is there is what is wanted. Tests that run side by side
/// wait for each other.
///
/// # Panics
/// Python with `venv`, Node.js or npm is missing, or the packages cannot be fetched.
pub async fn install() {
    let base = folder("");
    std::fs::create_dir_all(&base).expect("the target folder is ours");
    let lock = File::create(base.join("lock")).expect("the target folder is ours");
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.expect("nothing panics here");
    let _lock = lock.expect("a file of ours can be locked");
    unless_current("paho", &["requirements.txt"], async |folder| {
        let requirements = Path::new(SOURCES).join("requirements.txt");
        finish(Command::new("python3").args(["-m", "venv"]).arg(folder)).await;
        let mut pip = Command::new(folder.join("bin/python"));
        finish(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements))
            .await;
    })
    .await;
    let files = ["package.json", "package-lock.json", ".npmrc", "mqttjs_client.mjs"];
    unless_current("mqttjs", &files, async |folder| {
        std::fs::create_dir_all(folder).expect("the target folder is ours");
        for file in files {
            std::fs::copy(Path::new(SOURCES).join(file), folder.join(file)).expect("the file is in the repository");
        }
        finish(Command::new("npm").args(["ci", "--loglevel=error"]).current_dir(folder)).await;
    })
    .await;
}

/// Runs `make` unless the folder was made of the same files before.
async fn unless_current(name: &str, files: &[&str], make: impl AsyncFnOnce(&Path)) {
    let wanted: String = files
        .iter()
        .map(|file| std::fs::read_to_string(Path::new(SOURCES).join(file)).expect("the file is in the repository"))
        .collect();
    let (place, mark) = (folder(name), folder(name).join("made-of"));
    if std::fs::read_to_string(&mark).is_ok_and(|made_of| made_of == wanted) {
        return;
    }
    let _ = std::fs::remove_dir_all(&place);
    make(&place).await;
    std::fs::write(mark, wanted).expect("the target folder is ours");
}

async fn finish(command: &mut Command) {
    let words = format!("{command:?}");
    let done = run(&words, command, INSTALL_LIMIT).await;
    assert_eq!(done.code, 0, "{words}: {}{}", done.stdout, done.stderr);
}

/// A place in the target folder of this test.
fn folder(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running test has a path");
    own.ancestors().nth(3).unwrap_or(Path::new(".")).join("test-clients").join(name)
}
