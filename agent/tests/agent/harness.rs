//! A real broker (mosquitto), a real agent process, and a controller that is played by the test with a real key.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

use pistat_protocol::{
    codec::encode,
    id::{PiId, RunId},
    order::{
        CancelOrder, ControllerKey, EnrollAnswer, EnrollOrder, EnrollRequest, ExecuteOrder, JoinToken, KeyView, Order,
        SignedOrder, secret_text,
    },
    status::{Info, Nonce, Session},
    task::{Ack, Ends, OutputChunk, Report, RunState},
    topic::{Topic, Topics},
};
use pistat_testkit::Port;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Nothing takes so long; a test that waits for it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A mosquitto of this test's own.
pub(crate) struct Broker {
    pub(crate) port: Port,
    pub(crate) websocket_port: Port,
    folder: TempDir,
    process: Child,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::start_with("allow_anonymous true").await
    }

    pub(crate) async fn start_with(extra: &str) -> Self {
        let (port, websocket_port) = (Port::claim(), Port::claim());
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "per_listener_settings false\nlistener {port} 127.0.0.1\nlistener {websocket_port} 127.0.0.1\nprotocol websockets\n\
             max_queued_messages 100000\n{extra}\n"
        );
        std::fs::write(folder.path().join("mosquitto.conf"), text).unwrap();
        let process = Self::spawn(folder.path());
        let broker = Self { port, websocket_port, folder, process };
        broker.wait_until_open().await;
        broker
    }

    fn spawn(folder: &Path) -> Child {
        let program = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        Command::new(program)
            .arg("-c")
            .arg(folder.join("mosquitto.conf"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("mosquitto is installed (Debian package `mosquitto`)")
    }

    async fn wait_until_open(&self) {
        let address = self.port.address();
        let open = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, open).await.expect("mosquitto listens");
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub(crate) async fn start_again(&mut self) {
        self.process = Self::spawn(self.folder.path());
        self.wait_until_open().await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a controller hears.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) topic: Topic,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
}

impl Heard {
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.payload).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// A controller that is played by the test.
pub(crate) struct Controller {
    pub(crate) key: ControllerKey,
    pub(crate) pi: PiId,
    pub(crate) client: AsyncClient,
    pub(crate) session: Option<Session>,
    pub(crate) acknowledges: bool,
    /// Whether the broker is its own, as it tells with its key.
    enrols: bool,
    /// Whether it signs an order again with the root runner's nonce, as a real controller does.
    pub(crate) confirms: bool,
    sent: Mutex<HashMap<RunId, ExecuteOrder>>,
    /// The next chunk of each run: like a real controller, it acknowledges only what has no hole before it.
    next_chunks: HashMap<RunId, u64>,
    topics: Topics,
    heard: mpsc::Receiver<Heard>,
    kept: VecDeque<Heard>,
    driver: JoinHandle<()>,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Controller {
    pub(crate) fn connect(broker: &Broker) -> Self {
        Self::connect_to(broker, true)
    }

    /// As a controller does on a broker that is not its own.
    pub(crate) fn connect_as_a_guest(broker: &Broker) -> Self {
        Self::connect_to(broker, false)
    }

    fn connect_to(broker: &Broker, enrols: bool) -> Self {
        let key = ControllerKey::from_secret(&[9; 32]);
        let mut options = MqttOptions::new("test-controller", "127.0.0.1", broker.port.number());
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut event_loop) = AsyncClient::new(options, 1000);
        let (tell, heard) = mpsc::channel(100_000);
        let topics = Topics::default();
        let view = encode(&KeyView { enrols, ..key.public().view() });
        let (own_topics, own_client) = (topics.clone(), client.clone());
        let driver = tokio::spawn(async move {
            loop {
                match event_loop.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        for (filter, _) in own_topics.controller_filters() {
                            own_client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                        }
                        let topic = own_topics.format(&Topic::ControllerKey);
                        own_client.try_publish(topic, QoS::AtLeastOnce, true, view.clone()).unwrap();
                    }
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        let Some(topic) = own_topics.parse(&message.topic) else { continue };
                        let _ =
                            tell.try_send(Heard { topic, payload: message.payload.to_vec(), retain: message.retain });
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        let pi = "pi-1".parse().unwrap();
        let kept = VecDeque::new();
        Self {
            key,
            pi,
            client,
            session: None,
            acknowledges: true,
            enrols,
            confirms: true,
            sent: Mutex::default(),
            next_chunks: HashMap::new(),
            topics,
            heard,
            kept,
            driver,
        }
    }

    pub(crate) fn token(&self) -> String {
        JoinToken { secret: secret_text([3; 32]), fingerprint: self.key.public().fingerprint() }.to_string()
    }

    pub(crate) async fn publish(&self, topic: &Topic, payload: Vec<u8>, retain: bool) {
        self.client.publish(self.topics.format(topic), QoS::AtLeastOnce, retain, payload).await.unwrap();
    }

    /// The next message, after doing what a controller does with it.
    pub(crate) async fn next(&mut self) -> Heard {
        let heard = match self.kept.pop_front() {
            Some(heard) => heard,
            None => timeout(DEADLINE, self.heard.recv()).await.expect("a message in time").unwrap(),
        };
        self.answer(&heard).await;
        heard
    }

    async fn answer(&mut self, heard: &Heard) {
        match &heard.topic {
            Topic::EnrollRequest(pi) if self.enrols => self.enroll(pi, &heard.json()).await,
            Topic::Info(_) if !heard.payload.is_empty() => self.session = Some(heard.json::<Info>().session),
            Topic::Report(_, run) if heard.json::<Report>().nonce.is_some() => {
                if let Some(nonce) = heard.json::<Report>().nonce.filter(|_| self.confirms) {
                    self.confirm(*run, nonce).await;
                }
            }
            Topic::Report(pi, run) if self.acknowledges => {
                let ack = Ack { seq: None, state: Some(heard.json::<Report>().state) };
                self.publish(&Topic::Ack(pi.clone(), *run), encode(&ack), false).await;
            }
            Topic::Output(pi, run) if self.acknowledges && !heard.payload.is_empty() => {
                let chunk: OutputChunk = heard.json();
                let next = self.next_chunks.entry(*run).or_insert(0);
                if !chunk.is_final {
                    *next += u64::from(chunk.seq == *next);
                    let ack = Ack { seq: next.checked_sub(1), state: None };
                    self.publish(&Topic::Ack(pi.clone(), *run), encode(&ack), false).await;
                }
            }
            _ => {}
        }
    }

    async fn enroll(&self, pi: &PiId, request: &EnrollRequest) {
        let order =
            EnrollOrder { pi: pi.clone(), nonce: request.nonce.clone(), secret_sha256: request.secret_sha256.clone() };
        let answer = EnrollAnswer::Accepted(self.key.sign(&Order::Enroll(order)));
        self.publish(&Topic::EnrollResponse(pi.clone()), encode(&answer), false).await;
    }

    /// Waits for what the test looks for; everything else is dropped.
    pub(crate) async fn wait_for<T>(&mut self, what: &str, mut find: impl FnMut(&Heard) -> Option<T>) -> T {
        let search = async {
            loop {
                let heard = self.next().await;
                if let Some(found) = find(&heard) {
                    return found;
                }
            }
        };
        timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("{what} in time"))
    }

    pub(crate) async fn wait_for_status(&mut self, wanted: &str) {
        let pi = self.pi.clone();
        self.wait_for(wanted, |heard| {
            (heard.topic == Topic::Status(pi.clone()) && heard.text() == wanted).then_some(())
        })
        .await;
    }

    pub(crate) async fn wait_for_report(&mut self, run: RunId, state: RunState) -> Report {
        let what = format!("{state} of {run}");
        self.wait_for(&what, |heard| match heard.topic {
            Topic::Report(_, of) if of == run => {
                let report: Report = heard.json();
                assert!(report.state == state || !report.state.is_final(), "{report:?} instead of {state}");
                (report.state == state).then_some(report)
            }
            _ => None,
        })
        .await
    }

    /// A run id of its own for each order of each test: processes are found by it.
    fn run_id() -> RunId {
        static RUNS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut random = [0; 10];
        getrandom::fill(&mut random).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        RunId::from_parts(u64::try_from(now.as_millis()).unwrap() + count, random)
    }

    /// An order for the present session.
    pub(crate) fn order(&mut self, argv: &[&str]) -> ExecuteOrder {
        ExecuteOrder {
            pi: self.pi.clone(),
            run: Self::run_id(),
            session: self.session.clone().expect("the agent has told its session"),
            task: "test".parse().unwrap(),
            argv: argv.iter().map(ToString::to_string).collect(),
            timeout_milliseconds: 60_000,
            grace_milliseconds: 1_000,
            environment: [].into(),
            working_directory: None,
            root: false,
            ends: Ends::Exit,
            concurrency: 8,
            requested_by: "test".into(),
            nonce: None,
        }
    }

    /// Signs an order again, with a nonce of the root runner's, for the present session.
    pub(crate) async fn confirm(&self, run: RunId, nonce: Nonce) {
        let order = self.sent.lock().unwrap().get(&run).cloned().expect("the order was sent");
        let session = self.session.clone().expect("the agent has told its session");
        let order = ExecuteOrder { nonce: Some(nonce), session, ..order };
        self.send_signed(run, &self.key.sign(&Order::Execute(order))).await;
    }

    /// Waits until the root runner of the machine has given a nonce for a run.
    pub(crate) async fn wait_for_nonce(&mut self, run: RunId) -> Nonce {
        self.wait_for("a nonce", |heard| match heard.topic {
            Topic::Report(_, of) if of == run => heard.json::<Report>().nonce,
            _ => None,
        })
        .await
    }

    pub(crate) async fn send(&self, order: &ExecuteOrder) {
        self.sent.lock().unwrap().insert(order.run, order.clone());
        self.send_signed(order.run, &self.key.sign(&Order::Execute(order.clone()))).await;
    }

    pub(crate) async fn send_signed(&self, run: RunId, order: &SignedOrder) {
        self.publish(&Topic::Execute(self.pi.clone(), run), encode(order), false).await;
    }

    pub(crate) async fn cancel(&self, run: RunId) {
        let session = self.session.clone().expect("the agent has told its session");
        let order = CancelOrder { pi: self.pi.clone(), run, session };
        let order = self.key.sign(&Order::Cancel(order));
        self.publish(&Topic::Cancel(self.pi.clone(), run), encode(&order), false).await;
    }

    /// Runs a shell line to its end and returns its report and its output in order.
    pub(crate) async fn run(&mut self, script: &str) -> (Report, Vec<OutputChunk>) {
        let order = self.order(&["sh", "-c", script]);
        self.send(&order).await;
        self.collect(order.run).await
    }

    /// Collects chunks until the run has this final state.
    pub(crate) async fn collect_into(&mut self, chunks: &mut Chunks, run: RunId, state: RunState) -> Report {
        self.wait_for("the end of a run", |heard| {
            chunks.take(heard, run);
            match heard.topic {
                Topic::Report(_, of) if of == run => {
                    Some(heard.json::<Report>()).filter(|report| report.state == state)
                }
                _ => None,
            }
        })
        .await
    }

    /// Everything of a run until its final report.
    pub(crate) async fn collect(&mut self, run: RunId) -> (Report, Vec<OutputChunk>) {
        let mut chunks: Vec<OutputChunk> = Vec::new();
        let report = self
            .wait_for("the end of a run", |heard| match heard.topic {
                Topic::Output(_, of) if of == run => {
                    let chunk: OutputChunk = heard.json();
                    if chunk.is_final || chunk.seq == chunks.len() as u64 {
                        chunks.push(chunk);
                    }
                    None
                }
                Topic::Report(_, of) if of == run => {
                    Some(heard.json::<Report>()).filter(|report| report.state.is_final())
                }
                _ => None,
            })
            .await;
        (report, chunks)
    }
}

/// The chunks of a run by their numbers, however often each came.
#[derive(Debug, Default)]
pub(crate) struct Chunks(std::collections::BTreeMap<u64, OutputChunk>);

impl Chunks {
    /// Takes a message if it is a chunk of this run's output; the retained repetition is none.
    pub(crate) fn take(&mut self, heard: &Heard, run: RunId) {
        if matches!(heard.topic, Topic::Output(_, of) if of == run) {
            let chunk: OutputChunk = heard.json();
            if !chunk.is_final {
                self.0.insert(chunk.seq, chunk);
            }
        }
    }

    /// All chunks, which must have come without a hole.
    pub(crate) fn complete(self) -> Vec<OutputChunk> {
        assert!(self.0.keys().enumerate().all(|(n, seq)| n as u64 == *seq), "{:?}", self.0.keys());
        self.0.into_values().collect()
    }

    /// What came, in order.
    pub(crate) fn into_chunks(self) -> Vec<OutputChunk> {
        self.0.into_values().collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.values().map(|chunk| chunk.data.len()).sum()
    }
}

/// The text of chunks, without the repetition at the end.
pub(crate) fn text(chunks: &[OutputChunk]) -> String {
    chunks.iter().filter(|chunk| !chunk.is_final).map(|chunk| chunk.data.as_str()).collect()
}

/// An agent process.
pub(crate) struct Agent {
    process: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts it for `pi-1`; further words follow.
    pub(crate) fn start(url: &str, state: &Path, words: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_pistat-agent")), url, state, words)
    }

    /// Starts it by a command that may begin with another program.
    pub(crate) fn start_by(mut command: Command, url: &str, state: &Path, words: &[&str]) -> Self {
        let log = state.with_extension("log");
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        if !words.contains(&"--log-level") {
            command.args(["--log-level", "debug"]);
        }
        let process = command
            .args(["--controller-url", url, "--pi-id", "pi-1", "--state"])
            .arg(state)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { process, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log has so many lines with this part.
    pub(crate) async fn wait_for_log(&self, part: &str, count: usize) {
        let told = async {
            while self.log().lines().filter(|line| line.contains(part)).count() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(DEADLINE, told).await;
        assert!(found.is_ok(), "{part:?} is not in the log {count} times:\n{}", self.log());
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait().await
    }

    pub(crate) async fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.wait().await;
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let wait = async {
            loop {
                if let Some(status) = self.process.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, wait).await.expect("the agent ends")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent's log\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A broker, a controller and an enrolled agent that is online.
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) controller: Controller,
    pub(crate) broker: Broker,
    pub(crate) folder: TempDir,
}

impl Stage {
    pub(crate) async fn set(words: &[&str]) -> Self {
        let broker = Broker::start().await;
        let mut controller = Controller::connect(&broker);
        let folder = tempfile::tempdir().unwrap();
        let url = format!("mqtt://127.0.0.1:{}", broker.port);
        let token = controller.token();
        let words: Vec<&str> = ["--token", &token, "--interval", "1"].iter().chain(words).copied().collect();
        let agent = Agent::start(&url, &folder.path().join("state"), &words);
        controller.wait_for_status("online").await;
        Self { agent, controller, broker, folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.broker.port)
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
        let wait = async {
            while self.records() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, wait).await.expect("finished runs are forgotten");
    }
}
