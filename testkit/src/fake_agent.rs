//! An agent inside the test: it speaks the protocol over MQTT 3.1.1, and does what no honest agent
//! would when a test wants that.
//!
//! It enrols as a real one does. By itself it publishes its info and `online`, and verifies what it
//! is ordered; everything else the test says.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use pistat_protocol::{
    codec::{decode, encode},
    id::{PiId, RunId},
    order::{
        EnrollAnswer, EnrollRequest, ExecuteOrder, JoinToken, KeyView, PublicKey, SignedOrder, VerifiedOrder,
        secret_sha256, secret_text,
    },
    stats::{Power, Sample},
    status::{ExecutionPolicy, Info, Session},
    task::{Ack, OutputChunk, Report, RunState, Stream},
    time::Timestamp,
    topic::{Topic, Topics},
};
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Packet, QoS, SubscribeFilter};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    mqtt::Mqtt,
    wait::{DEADLINE, STANDSTILL},
};

/// How many messages may wait for the test.
const HEARD: usize = 2_000;

/// How many requests may wait for the connection.
const SAID: usize = 200;

/// What an agent needs to connect again.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its pi-id.
    pub pi: PiId,
    /// Its MQTT password.
    pub secret: String,
    /// The controller's key, believed by the fingerprint in the join token.
    pub key: PublicKey,
    /// The broker.
    pub address: SocketAddr,
    /// What it says it is; a test may change anything before it connects.
    pub info: Info,
}

/// What came from the controller.
#[derive(Debug, Clone)]
pub enum FromController {
    /// A verified order, with the bytes that it came as.
    Order(Box<VerifiedOrder>, Vec<u8>),
    /// An acknowledgement.
    Ack(RunId, Ack),
    /// Anything else: topic and payload.
    Other(String, Vec<u8>),
}

/// A connected agent.
pub struct FakeAgent {
    /// Who it is.
    pub identity: Identity,
    /// The session of this connection.
    pub session: Session,
    topics: Topics,
    client: AsyncClient,
    heard: mpsc::Receiver<FromController>,
    aside: VecDeque<FromController>,
    loop_task: JoinHandle<()>,
    samples: u64,
}

impl Identity {
    /// Enrols a new machine.
    ///
    /// # Errors
    /// The controller refuses it, or does not answer.
    pub async fn enrol(address: SocketAddr, pi: &str, join_token: &str) -> Result<Self, String> {
        Self::enrol_with(address, pi, join_token, &secret_text(random()), None).await
    }

    /// Enrols a machine with a secret and a serial of the test's choice.
    ///
    /// # Errors
    /// The controller refuses it, or does not answer.
    pub async fn enrol_with(
        address: SocketAddr,
        pi: &str,
        join_token: &str,
        secret: &str,
        serial: Option<&str>,
    ) -> Result<Self, String> {
        let pi: PiId = pi.parse().expect("the test names a pi-id");
        let token: JoinToken = join_token.parse().expect("the controller wrote a join token");
        let joining = Joining {
            topics: Topics::default(),
            pi: &pi,
            token: &token,
            request: EnrollRequest {
                secret_sha256: secret_sha256(secret),
                nonce: secret_text(random()),
                serial: serial.map(str::to_owned),
                label: None,
            },
        };
        let key =
            tokio::time::timeout(STANDSTILL, joining.join(address)).await.map_err(|_| "no answer".to_owned())??;
        let mut info = info();
        info.serial = serial.map(str::to_owned);
        Ok(Self { pi, secret: secret.to_owned(), key, address, info })
    }

    /// A machine that has a user on a broker that is not the controller's: it only pins the
    /// controller's key, by the fingerprint in the join token.
    ///
    /// # Errors
    /// The broker refuses it, or no key of that fingerprint is there.
    pub async fn pin(address: SocketAddr, pi: &str, password: &str, join_token: &str) -> Result<Self, String> {
        let pi: PiId = pi.parse().expect("the test names a pi-id");
        let token: JoinToken = join_token.parse().expect("the controller wrote a join token");
        let topic = Topics::default().format(&Topic::ControllerKey);
        let mut client = Mqtt::connect(address, pi.as_str(), password).await?;
        client.granted(&[&topic]).await;
        let key = client.message("the controller's key", |seen, message| {
            let view: KeyView = (seen == topic).then(|| decode(&message.payload).ok()).flatten()?;
            Some(view.key).filter(|key| key.fingerprint() == token.fingerprint)
        });
        let key = key.await;
        Ok(Self { pi, secret: password.to_owned(), key, address, info: info() })
    }

    /// Connects: info with a new session, then `online`.
    pub async fn connect(self) -> FakeAgent {
        let pi = self.pi.clone();
        self.try_connect().await.unwrap_or_else(|error| panic!("{pi} cannot connect: {error}"))
    }

    /// As [`Identity::connect`].
    ///
    /// # Errors
    /// The broker refuses it.
    pub async fn try_connect(mut self) -> Result<FakeAgent, String> {
        let topics = Topics::default();
        let name = self.pi.to_string();
        let mut options = MqttOptions::new(&name, self.address.ip().to_string(), self.address.port());
        options.set_credentials(&name, &self.secret).set_keep_alive(Duration::from_secs(30)).set_clean_session(true);
        options.set_max_packet_size(1024 * 1024, 1024 * 1024);
        let status = topics.format(&Topic::Status(self.pi.clone()));
        options.set_last_will(LastWill::new(&status, "offline", QoS::AtLeastOnce, true));
        let (client, mut events) = AsyncClient::new(options, SAID);
        let connecting = tokio::time::timeout(DEADLINE, connected(&mut events)).await;
        connecting.map_err(|_| "no answer".to_owned())??;
        self.info.session = Session::from_random(random());
        let filters = topics.agent_filters(&self.pi).map(|(filter, _)| SubscribeFilter::new(filter, QoS::AtLeastOnce));
        client.subscribe_many(filters).await.expect("the client runs");
        let (hear, heard) = mpsc::channel(HEARD);
        let listening = Listening { topics: topics.clone(), key: self.key.clone(), hear };
        let loop_task = tokio::spawn(listening.listen(events));
        let session = self.info.session.clone();
        let aside = VecDeque::new();
        let agent = FakeAgent { identity: self, session, topics, client, heard, aside, loop_task, samples: 0 };
        agent.publish(&Topic::Info(agent.pi().clone()), encode(&agent.identity.info), true).await;
        agent.publish(&Topic::Status(agent.pi().clone()), b"online".to_vec(), true).await;
        Ok(agent)
    }
}

impl FakeAgent {
    /// Enrols a new machine and connects it.
    pub async fn enrol(address: SocketAddr, pi: &str, join_token: &str) -> Self {
        let identity = Identity::enrol(address, pi, join_token).await;
        identity.unwrap_or_else(|error| panic!("{pi} cannot enrol: {error}")).connect().await
    }

    /// Its pi-id.
    pub fn pi(&self) -> &PiId {
        &self.identity.pi
    }

    /// Publishes with `QoS` 1.
    ///
    /// # Panics
    /// The connection has ended.
    pub async fn publish(&self, topic: &Topic, payload: Vec<u8>, retain: bool) {
        let topic = self.topics.format(topic);
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).await.expect("the agent is connected");
    }

    /// Publishes a sample.
    pub async fn sample(&mut self, cpu_percent: f32) {
        self.sample_with_power(cpu_percent, None).await;
    }

    /// Publishes a sample of a machine that may tell of its power.
    pub async fn sample_with_power(&mut self, cpu_percent: f32, power: Option<Power>) {
        let mut sample = Sample::new(Timestamp::from(std::time::SystemTime::now()), true, self.samples);
        self.samples += 1;
        sample.cpu_percent = Some(cpu_percent);
        sample.memory_percent = Some(50.0);
        sample.power = power;
        let topic = self.topics.format(&Topic::Stats(self.pi().clone()));
        self.client.publish(topic, QoS::AtMostOnce, true, encode(&sample)).await.expect("the agent is connected");
    }

    /// The next thing from the controller; `None` when nothing comes within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<FromController> {
        match self.aside.pop_front() {
            Some(heard) => Some(heard),
            None => tokio::time::timeout(limit, self.heard.recv()).await.ok().flatten(),
        }
    }

    /// Waits for the next order to execute, with its bytes.
    ///
    /// # Panics
    /// None comes.
    pub async fn order(&mut self) -> (ExecuteOrder, Vec<u8>) {
        loop {
            match self.next(DEADLINE).await {
                Some(FromController::Order(order, bytes)) => {
                    if let VerifiedOrder::Execute(order) = *order {
                        return (order.into_inner(), bytes);
                    }
                }
                Some(_) => {}
                None => panic!("no order came for {} within {DEADLINE:?}", self.pi()),
            }
        }
    }

    /// Reports a state of a run.
    pub async fn report(&self, run: RunId, state: RunState, exit_code: Option<i32>, chunks: Option<u64>) {
        let report = Report {
            state,
            started_at: None,
            finished_at: None,
            elapsed_milliseconds: None,
            exit_code,
            reason: None,
            boot_id: self.identity.info.boot_id.clone(),
            output_chunks: chunks,
            output_bytes: None,
            dropped_bytes: 0,
            nonce: None,
        };
        self.publish(&Topic::Report(self.pi().clone(), run), encode(&report), false).await;
    }

    /// Sends a chunk of output.
    pub async fn output(&self, run: RunId, seq: u64, data: &str) {
        let stream = Some(Stream::Stdout);
        let data = data.to_owned();
        let chunk = OutputChunk { seq, stream, data, gap_bytes: None, is_final: false, dropped_bytes: None };
        self.publish(&Topic::Output(self.pi().clone(), run), encode(&chunk), false).await;
    }

    /// Waits until the controller has this state of the run on its disk.
    ///
    /// # Panics
    /// It does not say so.
    pub async fn acknowledged(&mut self, run: RunId, state: RunState) {
        loop {
            match self.next(DEADLINE).await {
                Some(FromController::Ack(other, ack)) if other == run && ack.state == Some(state) => return,
                Some(_) => {}
                None => panic!("{state} of {run} was not acknowledged within {DEADLINE:?}"),
            }
        }
    }

    /// Does what it is ordered, for ever: every task prints one line and succeeds.
    pub async fn serve(mut self) {
        loop {
            let Some(FromController::Order(order, _)) = self.next(Duration::from_secs(3600)).await else { continue };
            if let VerifiedOrder::Execute(order) = *order {
                let run = order.get().run;
                self.report(run, RunState::Running, None, None).await;
                self.output(run, 0, &format!("{} did {}\n", self.pi(), order.get().task)).await;
                self.report(run, RunState::Succeeded, Some(0), Some(1)).await;
            }
        }
    }

    /// Loses its connection without a word, as by a power cut; it can connect again.
    pub async fn vanish(self) -> Identity {
        self.loop_task.abort();
        let mut this = self;
        let _ = (&mut this.loop_task).await;
        this.identity.clone()
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.loop_task.abort();
    }
}

/// What a test's machine says it is.
pub fn info() -> Info {
    Info {
        label: None,
        model: Some("Test machine".into()),
        serial: None,
        os: None,
        kernel: None,
        arch: None,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: "boot-1".into(),
        boot_time: None,
        session: Session::from_random(random()),
        execution_policy: ExecutionPolicy::Controller,
        listed_tasks: None,
        runner: false,
        interval_seconds: 5.0,
        capabilities: Vec::new(),
        known_runs: Vec::new(),
        storage_wear_percent: None,
        updates_pending: None,
        reboot_required: None,
        failed_units: None,
        orders_refused: None,
        last_order_refused: None,
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bits = [0; N];
    getrandom::fill(&mut bits).expect("a system that runs tests has random numbers");
    bits
}

async fn connected(events: &mut EventLoop) -> Result<(), String> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
            Ok(_) => {}
            Err(ConnectionError::ConnectionRefused(code)) => return Err(format!("{code:?}")),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Hands on what comes, orders verified.
struct Listening {
    topics: Topics,
    key: PublicKey,
    hear: mpsc::Sender<FromController>,
}

impl Listening {
    async fn listen(self, mut events: EventLoop) {
        while let Ok(event) = events.poll().await {
            let Event::Incoming(Packet::Publish(publish)) = event else { continue };
            let heard = self.read(&publish.topic, &publish.payload);
            if self.hear.send(heard).await.is_err() {
                return;
            }
        }
    }

    fn read(&self, topic: &str, payload: &[u8]) -> FromController {
        let known = match self.topics.parse(topic) {
            Some(Topic::Execute(..) | Topic::Cancel(..)) => {
                self.key.verify(payload).ok().map(|order| FromController::Order(Box::new(order), payload.to_vec()))
            }
            Some(Topic::Ack(_, run)) => decode(payload).ok().map(|ack| FromController::Ack(run, ack)),
            _ => None,
        };
        known.unwrap_or_else(|| FromController::Other(topic.to_owned(), payload.to_vec()))
    }
}

/// A machine that asks to be enrolled.
struct Joining<'a> {
    topics: Topics,
    pi: &'a PiId,
    token: &'a JoinToken,
    request: EnrollRequest,
}

impl Joining<'_> {
    async fn join(&self, address: SocketAddr) -> Result<PublicKey, String> {
        let name = format!("join-{}", self.pi);
        let mut options = MqttOptions::new(name, address.ip().to_string(), address.port());
        options.set_credentials(self.pi.as_str(), &self.token.secret).set_keep_alive(Duration::from_secs(30));
        let (client, mut events) = AsyncClient::new(options, SAID);
        connected(&mut events).await?;
        let topics = [Topic::ControllerKey, Topic::EnrollResponse(self.pi.clone())];
        let filters = topics.map(|topic| SubscribeFilter::new(self.topics.format(&topic), QoS::AtLeastOnce));
        client.subscribe_many(filters).await.expect("the client runs");
        let mut key = None;
        let mut subscribed = false;
        // The controller may not listen yet: the request is repeated until it is answered.
        let mut ask = tokio::time::interval(Duration::from_secs(1));
        loop {
            let event = tokio::select! {
                event = events.poll() => event.map_err(|error| error.to_string())?,
                _ = ask.tick(), if subscribed => {
                    let topic = self.topics.format(&Topic::EnrollRequest(self.pi.clone()));
                    // The connection is polled by this very loop: only what fits into its queue can
                    // be said.
                    let _ = client.try_publish(topic, QoS::AtLeastOnce, false, encode(&self.request));
                    continue;
                }
            };
            let Event::Incoming(packet) = event else { continue };
            match packet {
                Packet::SubAck(_) => subscribed = true,
                Packet::Publish(message) => match self.topics.parse(&message.topic) {
                    Some(Topic::ControllerKey) => key = self.believe(&message.payload),
                    Some(Topic::EnrollResponse(_)) => return self.read(&message.payload, key.as_ref()),
                    _ => {}
                },
                _ => {}
            }
        }
    }

    fn believe(&self, payload: &[u8]) -> Option<PublicKey> {
        let view: KeyView = decode(payload).ok()?;
        Some(view.key).filter(|key| key.fingerprint() == self.token.fingerprint)
    }

    fn read(&self, payload: &[u8], key: Option<&PublicKey>) -> Result<PublicKey, String> {
        let answer: EnrollAnswer = decode(payload).map_err(|error| error.to_string())?;
        let order: SignedOrder = match answer {
            EnrollAnswer::Accepted(order) => order,
            EnrollAnswer::Refused { error, .. } => return Err(error),
        };
        let key = key.ok_or("the controller's key has another fingerprint than the join token")?;
        match key.verify_signed(&order).map_err(|error| error.to_string())? {
            VerifiedOrder::Enroll(order) => {
                let order = order.get();
                let mine = order.pi == *self.pi
                    && order.nonce == self.request.nonce
                    && order.secret_sha256 == self.request.secret_sha256;
                if mine { Ok(key.clone()) } else { Err(format!("the answer is for another: {order:?}")) }
            }
            other => Err(format!("the answer is no enrolment: {other:?}")),
        }
    }
}
