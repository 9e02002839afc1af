//! A controller of its own for each test: ports of its own, a folder of its own, a catalogue of its
//! own.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pistat_protocol::dashboard::MachineStatus;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    agent,
    broker::{self, Mosquitto},
    catalogue,
    fake_agent::{FakeAgent, Identity},
    feed::Feed,
    http::Http,
    mosquitto::Login,
    mqtt::Mqtt,
    port::Port,
    process::{Finished, Process, run},
    programs::{path, program},
    wait::{DEADLINE, eventually},
};

/// The variable of `mqtt.broker`.
const BROKER: &str = "PISTAT_MQTT__BROKER";

/// How long the controller may take to stop when it is asked.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The packaged service's unit.
const UNIT: &str = include_str!("../../packaging/systemd/pistat.service");

/// A running controller, and everything a test needs to talk to it.
pub struct Stack {
    process: Process,
    /// What it said at its start.
    pub said: Said,
    folder: TempDir,
    ports: Ports,
    plan: Builder,
    /// The broker of everybody, if it is not the controller's.
    house: Option<Mosquitto>,
}

/// Where a controller listens: the ports stay reserved while it is killed and restarted.
struct Ports {
    http: Port,
    mqtt: Port,
}

/// Where the controller says it is.
#[derive(Debug, Clone)]
pub struct Said {
    /// The dashboard's address.
    pub http: String,
    /// The HTTP listener.
    pub http_address: SocketAddr,
    /// The broker.
    pub mqtt: SocketAddr,
}

/// Where new machines come in.
#[derive(Debug, Clone)]
pub struct Door {
    broker: SocketAddr,
    house: bool,
    token: String,
}

impl Door {
    /// A new machine that may connect.
    ///
    /// # Errors
    /// It may not.
    pub async fn identity(&self, pi: &str) -> Result<Identity, String> {
        if self.house {
            Identity::pin(self.broker, pi, &broker::password(pi), &self.token).await
        } else {
            Identity::enrol(self.broker, pi, &self.token).await
        }
    }
}

/// How a controller is to be started.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    catalogue: Option<String>,
    config: Option<String>,
    state: Option<PathBuf>,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    log_level: Option<String>,
}

impl Builder {
    /// Another catalogue than the tests' own.
    #[must_use]
    pub fn catalogue(mut self, text: &str) -> Self {
        self.catalogue = Some(text.to_owned());
        self
    }

    /// A `pistat.toml`.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// Another's broker, at this address: whatever the run of the tests is about.
    #[must_use]
    pub fn broker(self, url: &str) -> Self {
        self.environment(BROKER, url)
    }

    /// The controller's own broker: whatever the run of the tests is about.
    #[must_use]
    pub fn embedded(self) -> Self {
        self.broker("embedded")
    }

    /// A state folder elsewhere.
    #[must_use]
    pub fn state(mut self, folder: &Path) -> Self {
        self.state = Some(folder.to_owned());
        self
    }

    /// A variable in the controller's environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// In the environment of the packaged service: it says how memory is kept.
    #[must_use]
    pub fn packaged(self) -> Self {
        let lines = UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
        lines.fold(self, |builder, (name, value)| builder.environment(name, value))
    }

    /// A command that starts the controller's, such as `prlimit`.
    #[must_use]
    pub fn wrapped_in(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(ToString::to_string).collect();
        self
    }

    /// How much the controller logs.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        self.log_level = Some(level.to_owned());
        self
    }

    /// Starts the controller and waits until it hears what is said over MQTT.
    pub async fn start(self) -> Stack {
        self.start_then(Stack::ready).await
    }

    async fn start_then(mut self, then: impl AsyncFnOnce(&Stack)) -> Stack {
        let house = self.enter_house().await;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // Tasks of agents may run as another user.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("the folder is ours");
        for name in ["marks", "agents"] {
            std::fs::create_dir(folder.path().join(name)).expect("the folder is new");
        }
        let text = self.catalogue.clone().unwrap_or_else(|| catalogue::text(&folder.path().join("marks")));
        std::fs::write(folder.path().join("tasks.toml"), text).expect("the folder is ours");
        if let Some(config) = &self.config {
            std::fs::write(folder.path().join("pistat.toml"), config).expect("the folder is ours");
        }
        let ports = Ports { http: Port::claim(), mqtt: Port::claim() };
        let mut process = self.spawn(folder.path(), &ports);
        let said = listen(&mut process, &ports).await;
        let stack = Stack { process, said, folder, ports, plan: self, house };
        then(&stack).await;
        stack
    }

    /// Starts the controller and waits until it says where it is, not until it has a broker.
    pub async fn start_alone(self) -> Stack {
        self.start_then(async |_| {}).await
    }

    /// In a run that is about another's broker, starts one and says so to the controller. All tasks
    /// may be asked for there.
    async fn enter_house(&mut self) -> Option<Mosquitto> {
        let chosen = self.environment.iter().any(|(name, _)| name == BROKER);
        if chosen || !broker::is_external() {
            return None;
        }
        let house = Mosquitto::house().await;
        let catalogue = self.catalogue.clone().unwrap_or_else(|| catalogue::text(Path::new("/")));
        let tasks: Vec<_> =
            catalogue.lines().filter_map(|line| line.strip_prefix("[task.")?.strip_suffix(']')).collect();
        for (name, value) in [
            (BROKER, house.url(broker::CONTROLLER)),
            ("PISTAT_MQTT__REQUESTS__ROLE", "operator".into()),
            ("PISTAT_MQTT__REQUESTS__TASKS", tasks.join(",")),
        ] {
            self.environment.push((name.to_owned(), value));
        }
        Some(house)
    }

    fn spawn(&self, folder: &Path, ports: &Ports) -> Process {
        let mut words = self.wrapper.clone();
        words.push(program("pistat").to_str().expect("a plain path").to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("serve").env_clear().env("PATH", path()).current_dir(folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(["--http", &ports.http.address().to_string(), "--mqtt", &ports.mqtt.address().to_string()]);
        command.arg("--tasks").arg(folder.join("tasks.toml"));
        command.arg("--state").arg(self.state.clone().unwrap_or_else(|| folder.join("state")));
        if self.config.is_some() {
            command.arg("--config").arg(folder.join("pistat.toml"));
        }
        command.args(["--log-level", self.log_level.as_deref().unwrap_or("info")]);
        Process::start("pistat", &mut command)
    }
}

async fn listen(process: &mut Process, ports: &Ports) -> Said {
    let dashboard = process.line("its dashboard's address", DEADLINE, |line| word_with(line, "http")).await;
    let mqtt = process
        .line("its broker's address", DEADLINE, |line| {
            line.strip_prefix("  mqtt ").and_then(|rest| rest.split_whitespace().next().map(str::to_owned))
        })
        .await;
    let http = dashboard.trim_end_matches('/').to_owned();
    // With a `public_url` it names that, under which the test does not reach it.
    let http = if http.starts_with("https") { format!("http://{}", ports.http.address()) } else { http };
    Said { http_address: address(&http), mqtt: address(&mqtt), http }
}

/// The address in a URL, whose host is an IP address or this machine.
fn address(url: &str) -> SocketAddr {
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host).split('/').next().unwrap_or(host);
    let host = host.replace("localhost", "127.0.0.1");
    host.parse().unwrap_or_else(|error| panic!("{url} has no address: {error}"))
}

fn word_with(line: &str, scheme: &str) -> Option<String> {
    line.split_whitespace().find(|word| word.starts_with(scheme)).map(str::to_owned)
}

impl Stack {
    /// A controller with the tests' catalogue and nothing else configured.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A controller to be started otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The folder of this test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The controller's state folder.
    pub fn state(&self) -> PathBuf {
        self.plan.state.clone().unwrap_or_else(|| self.folder.path().join("state"))
    }

    /// Where the task `mark` leaves its marks.
    pub fn marks(&self) -> PathBuf {
        self.folder.path().join("marks")
    }

    /// The catalogue's file.
    pub fn catalogue(&self) -> PathBuf {
        self.folder.path().join("tasks.toml")
    }

    /// The controller's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The admin's token.
    pub fn admin_token(&self) -> String {
        self.secret("admin.token")
    }

    /// The join token in force.
    pub fn join_token(&self) -> String {
        self.secret("join.token")
    }

    fn secret(&self, file: &str) -> String {
        let path = self.state().join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }

    /// The HTTP API for the admin.
    pub fn http(&self) -> Http {
        self.anonymous().bearer(&self.admin_token())
    }

    /// The HTTP API without a credential.
    pub fn anonymous(&self) -> Http {
        Http::new(&self.said.http)
    }

    /// The HTTP API for a new account.
    pub async fn account(&self, name: &str, role: &str) -> (Http, String) {
        let body = serde_json::json!({"name": name, "role": role});
        let token: pistat_protocol::api::NewToken = self.http().post("/api/accounts", body).await.json();
        (self.anonymous().bearer(&token.token), token.token)
    }

    /// The dashboard's feed for the admin.
    pub async fn feed(&self) -> Feed {
        Feed::connect(&self.http()).await.unwrap_or_else(|status| panic!("the feed was refused: {status}"))
    }

    /// mosquitto's clients, as the admin.
    pub fn mosquitto(&self) -> Login {
        self.mosquitto_as("admin", &self.admin_token())
    }

    /// mosquitto's clients with another account. On the house's broker it has a password of its
    /// own.
    pub fn mosquitto_as(&self, user: &str, token: &str) -> Login {
        Login { address: self.said.mqtt, user: user.to_owned(), password: self.password(user, token) }
    }

    /// An MQTT 5 client with an account.
    pub async fn mqtt(&self, user: &str, token: &str) -> Mqtt {
        let password = self.password(user, token);
        Mqtt::connect(self.said.mqtt, user, &password).await.expect("the broker accepts this account")
    }

    /// An account's password on the broker: its token, or on the house's broker one of its own.
    pub fn password(&self, user: &str, token: &str) -> String {
        if self.house.is_some() { broker::password(user) } else { token.to_owned() }
    }

    /// As whom the controller knows this account when it asks over MQTT: only its own broker tells.
    pub fn asker(&self, account: &'static str) -> &'static str {
        if self.house.is_some() { "mqtt" } else { account }
    }

    /// A real agent to be started.
    pub fn agent(&self, pi: &str) -> agent::Builder {
        let url = self.house.as_ref().map_or_else(|| self.said.http.clone(), |house| house.url(pi));
        agent::Builder::new(pi, &url, &self.join_token(), &self.folder.path().join("agents").join(pi))
    }

    /// Where agents connect to.
    pub fn agents_address(&self) -> SocketAddr {
        if self.house.is_some() { self.said.mqtt } else { self.said.http_address }
    }

    /// Where new machines come in.
    pub fn door(&self) -> Door {
        Door { broker: self.said.mqtt, house: self.house.is_some(), token: self.join_token() }
    }

    /// An agent inside the test, enrolled and connected.
    pub async fn fake_agent(&self, pi: &str) -> FakeAgent {
        let identity = self.door().identity(pi).await;
        let agent = identity.unwrap_or_else(|error| panic!("{pi} cannot enrol: {error}")).connect().await;
        if self.house.is_some() {
            // Enrolment makes a machine known; where there is none, its first word does.
            eventually("the controller knows it", DEADLINE, async || self.http().machine(pi).await.map(drop)).await;
        }
        agent
    }

    /// The command line of the operator.
    pub async fn cli(&self, words: &[&str]) -> Finished {
        self.cli_as(&self.state().join("admin.token"), words, DEADLINE).await
    }

    /// The command line with the token of another account.
    pub async fn cli_as(&self, token_file: &Path, words: &[&str], limit: Duration) -> Finished {
        run("pistat", &mut self.cli_command(token_file, words), limit).await
    }

    /// The command line as a command to be started.
    pub fn cli_command(&self, token_file: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program("pistat"));
        command.env_clear().env("PATH", path()).current_dir(self.folder.path());
        command.args(words).args(["--controller-url", &self.said.http]).arg("--token-file").arg(token_file);
        command
    }

    /// Asks the controller to stop, and gives its exit code.
    pub async fn stop(&mut self) -> i32 {
        self.process.signal(Signal::TERM);
        self.process.exit_code(STOP_LIMIT).await
    }

    /// `kill -9` on the controller.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the controller again, on the same addresses and with the same state.
    pub async fn restart(&mut self) {
        self.process = self.plan.spawn(self.folder.path(), &self.ports);
        self.said = listen(&mut self.process, &self.ports).await;
        self.ready().await;
    }

    /// Waits until the controller hears what is said over MQTT: before that, requests are lost, as
    /// the contract says.
    async fn ready(&self) {
        let http = self.http();
        eventually("the controller is online", DEADLINE, async || {
            let machine = http.machine("controller").await?;
            if machine.status == MachineStatus::Offline { Err(format!("{machine:?}")) } else { Ok(()) }
        })
        .await;
    }
}
