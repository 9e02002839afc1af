//! A real agent as a process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use pistat_protocol::dashboard::{Machine, MachineStatus};
use rustix::process::Signal;

use crate::{
    http::Http,
    process::Process,
    programs::{path, program},
    wait::{DEADLINE, eventually},
};

/// How an agent is to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    pi: String,
    url: String,
    token: Option<String>,
    state: PathBuf,
    words: Vec<String>,
    config: Option<String>,
    wrapper: Vec<String>,
}

impl Builder {
    /// An agent of this name, with a quick cadence.
    pub fn new(pi: &str, url: &str, token: &str, state: &Path) -> Self {
        Self {
            pi: pi.to_owned(),
            url: url.to_owned(),
            token: Some(token.to_owned()),
            state: state.to_owned(),
            words: Vec::new(),
            config: None,
            wrapper: Vec::new(),
        }
        .flag("--interval", "0.5")
    }

    /// A flag with its value; a repeated flag replaces the earlier one.
    #[must_use]
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        if let Some(index) = self.words.iter().position(|word| word == name) {
            self.words.drain(index..index + 2);
        }
        self.words.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Without `--interval`, as people start it.
    #[must_use]
    pub fn with_defaults(mut self) -> Self {
        self.words.clear();
        self
    }

    /// The label that it gives itself.
    #[must_use]
    pub fn label(self, label: &str) -> Self {
        self.flag("--label", label)
    }

    /// Refuses to run tasks.
    #[must_use]
    pub fn register_only(mut self) -> Self {
        self.words.push("--register-only".into());
        self
    }

    /// Another address of the controller, such as a proxy's.
    #[must_use]
    pub fn url(mut self, url: &str) -> Self {
        url.clone_into(&mut self.url);
        self
    }

    /// The same address, but for this host and port: a proxy's.
    #[must_use]
    pub fn through(mut self, address: SocketAddr) -> Self {
        let (scheme, rest) = self.url.split_once("://").expect("an address has a scheme");
        let login = rest.rsplit_once('@').map_or(String::new(), |(login, _)| format!("{login}@"));
        self.url = format!("{scheme}://{login}{address}");
        self
    }

    /// Another join token, or none.
    #[must_use]
    pub fn token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(str::to_owned);
        self
    }

    /// Another state folder.
    #[must_use]
    pub fn state(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.state);
        self
    }

    /// An `agent.toml`.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// A command that starts the agent's, such as `unshare`.
    #[must_use]
    pub fn wrapped_in(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts it; it may still have to enrol.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(self) -> Agent {
        let process = self.spawn();
        Agent { plan: self, process }
    }

    /// Starts it, and waits until its controller has its first sample.
    pub async fn online(self, http: &Http) -> Agent {
        let agent = self.start();
        agent.sampled(http).await;
        agent
    }

    fn spawn(&self) -> Process {
        let mut words = self.wrapper.clone();
        words.push(program("pistat-agent").to_str().expect("a plain path").to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().env("PATH", path());
        command.args(["--controller-url", &self.url, "--pi-id", &self.pi]).arg("--state").arg(&self.state);
        command.args(&self.words);
        if let Some(token) = &self.token {
            command.args(["--token", token]);
        }
        if let Some(config) = &self.config {
            let file = self.state.with_extension("toml");
            std::fs::write(&file, config).expect("the folder is ours");
            command.arg("--config").arg(file);
        }
        Process::start(&format!("pistat-agent {}", self.pi), &mut command)
    }
}

/// A running agent.
pub struct Agent {
    plan: Builder,
    process: Process,
}

impl Agent {
    /// Its pi-id.
    pub fn pi(&self) -> &str {
        &self.plan.pi
    }

    /// The id of its process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until a line of its log has this part.
    pub async fn says(&mut self, part: &str) {
        eventually(&format!("{} says {part}", self.plan.pi), DEADLINE, async || {
            let lines = self.process.stderr();
            if lines.iter().any(|line| line.contains(part)) { Ok(()) } else { Err(lines.join("\n")) }
        })
        .await;
    }

    /// Its state folder.
    pub fn state(&self) -> &Path {
        &self.plan.state
    }

    /// How it was started, for another start.
    pub fn plan(&self) -> Builder {
        self.plan.clone()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to stop, and gives its exit code.
    pub async fn stop(&mut self) -> i32 {
        self.process.signal(Signal::TERM);
        self.process.exit_code(DEADLINE).await
    }

    /// Starts it again as it was started, but for the token, which it needs only once.
    pub fn restart(&mut self) {
        self.plan.token = None;
        self.process.kill();
        self.process = self.plan.spawn();
    }

    /// Waits until its controller shows it online with a sample.
    pub async fn sampled(&self, http: &Http) -> Machine {
        eventually(&format!("{} is online with a sample", self.plan.pi), DEADLINE, async || {
            let machine = http.machine(&self.plan.pi).await?;
            let live = machine.status == MachineStatus::Online && machine.stats.is_some() && machine.info.is_some();
            if live { Ok(machine) } else { Err(format!("{machine:?}")) }
        })
        .await
    }

    /// Waits until its controller shows it offline.
    pub async fn offline(&self, http: &Http) -> Machine {
        eventually(&format!("{} is offline", self.plan.pi), DEADLINE, async || {
            let machine = http.machine(&self.plan.pi).await?;
            if machine.status == MachineStatus::Offline { Ok(machine) } else { Err(format!("{machine:?}")) }
        })
        .await
    }
}
