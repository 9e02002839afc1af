//! An agent inside the test, which also does what no honest agent would when a test wants that.
//!
//! It enrols as a real one does. By itself it publishes its info and `online`, and verifies its
//! orders; everything else is up to the test.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use pistat_protocol::{
    codec::{decode, encode},
    id::{PiId, RunId},
    order::{ExecuteOrder, JoinToken, KeyView, PublicKey, VerifiedOrder, secret_text},
    stats::{Power, Sample},
    status::{Info, Session},
    task::{Ack, Report, RunState},
    time::Timestamp,
    topic::{Topic, Topics},
};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep_until};

use crate::{
    credential::{Credential, random},
    link::{AT_LEAST_ONCE, AT_MOST_ONCE, Link},
    mqtt::Mqtt,
    packet::Message,
    payload::{chunk, info, report},
    wait::DEADLINE,
};

/// How many messages may wait for the test.
const RECEIVED: usize = 2_000;

/// How many messages may wait for the connection.
const SENT: usize = 200;

/// What an agent needs to connect again.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name, password and controller.
    pub credential: Credential,
    /// The broker.
    pub address: SocketAddr,
    /// What it reports about itself; a test may change anything before it connects.
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

/// A message of the agent: topic, payload, `QoS`, and whether it is retained.
type Outgoing = (Topic, Vec<u8>, u8, bool);

/// A connected agent.
pub struct FakeAgent {
    /// Who it is.
    pub identity: Identity,
    /// The session of this connection.
    pub session: Session,
    sender: mpsc::Sender<Outgoing>,
    received: mpsc::Receiver<FromController>,
    aside: VecDeque<FromController>,
    connection: JoinHandle<()>,
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
        let (pi, token) = names(pi, join_token);
        let topics = Topics::default();
        let credential = Credential::enrol_with(address, &topics, pi, &token, secret.to_owned(), serial);
        let credential = credential.await.map_err(|error| error.to_string())?;
        Ok(Self { credential, address, info: Info { serial: serial.map(str::to_owned), ..info() } })
    }

    /// A machine that has a user on a broker that is not the controller's: it only pins the
    /// controller's key, by the fingerprint in the join token.
    ///
    /// # Errors
    /// The broker refuses it, or no key of that fingerprint is there.
    pub async fn pin(address: SocketAddr, pi: &str, password: &str, join_token: &str) -> Result<Self, String> {
        let (pi, token) = names(pi, join_token);
        let topic = Topics::default().format(&Topic::ControllerKey);
        let mut client = Mqtt::connect(address, pi.as_str(), password).await?;
        client.granted(&[&topic]).await;
        let key = client.message("the controller's key", |seen, message| {
            let view: KeyView = (seen == topic).then(|| decode(&message.payload).ok()).flatten()?;
            Some(view.key).filter(|key| key.fingerprint() == token.fingerprint)
        });
        let key = key.await;
        Ok(Self { credential: Credential { pi, secret: password.to_owned(), key }, address, info: info() })
    }

    /// Connects: info with a new session, then `online`.
    pub async fn connect(self) -> FakeAgent {
        let pi = self.credential.pi.clone();
        self.try_connect().await.unwrap_or_else(|error| panic!("{pi} cannot connect: {error}"))
    }

    /// As [`Identity::connect`].
    ///
    /// # Errors
    /// The broker refuses it.
    pub async fn try_connect(mut self) -> Result<FakeAgent, String> {
        let link = Link::connect(self.address, &Topics::default(), &self.credential).await;
        let mut link = link.map_err(|error| error.to_string())?;
        let session = Session::from_random(random());
        self.info.session = session.clone();
        link.introduce(&self.info);
        let (sender, outgoing) = mpsc::channel(SENT);
        let (hand_on, received) = mpsc::channel(RECEIVED);
        let connection = tokio::spawn(drive(link, self.credential.key.clone(), outgoing, hand_on));
        let aside = VecDeque::new();
        Ok(FakeAgent { identity: self, session, sender, received, aside, connection, samples: 0 })
    }
}

fn names(pi: &str, join_token: &str) -> (PiId, JoinToken) {
    let token = join_token.parse().expect("the controller wrote a join token");
    (pi.parse().expect("the test names a pi-id"), token)
}

impl FakeAgent {
    /// Enrols a new machine and connects it.
    pub async fn enrol(address: SocketAddr, pi: &str, join_token: &str) -> Self {
        let identity = Identity::enrol(address, pi, join_token).await;
        identity.unwrap_or_else(|error| panic!("{pi} cannot enrol: {error}")).connect().await
    }

    /// Its pi-id.
    pub fn pi(&self) -> &PiId {
        &self.identity.credential.pi
    }

    /// Publishes with `QoS` 1.
    ///
    /// # Panics
    /// The connection has ended.
    pub async fn publish(&self, topic: &Topic, payload: Vec<u8>, retain: bool) {
        self.send((topic.clone(), payload, AT_LEAST_ONCE, retain)).await;
    }

    async fn send(&self, message: Outgoing) {
        self.sender.send(message).await.expect("the agent is connected");
    }

    /// Publishes a sample.
    pub async fn sample(&mut self, cpu_percent: f32) {
        self.sample_with_power(cpu_percent, None).await;
    }

    /// Publishes a sample of a machine that may report its power.
    pub async fn sample_with_power(&mut self, cpu_percent: f32, power: Option<Power>) {
        let mut sample = Sample::new(Timestamp::from(std::time::SystemTime::now()), true, self.samples);
        self.samples += 1;
        sample.cpu_percent = Some(cpu_percent);
        sample.memory_percent = Some(50.0);
        sample.power = power;
        self.send((Topic::Stats(self.pi().clone()), encode(&sample), AT_MOST_ONCE, true)).await;
    }

    /// The next thing from the controller; `None` when nothing comes within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<FromController> {
        match self.aside.pop_front() {
            Some(next) => Some(next),
            None => tokio::time::timeout(limit, self.received.recv()).await.ok().flatten(),
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
        let report = Report { exit_code, output_chunks: chunks, ..report(state, &self.identity.info.boot_id) };
        self.publish(&Topic::Report(self.pi().clone(), run), encode(&report), false).await;
    }

    /// Sends a chunk of output.
    pub async fn output(&self, run: RunId, seq: u64, data: &str) {
        self.publish(&Topic::Output(self.pi().clone(), run), encode(&chunk(seq, data)), false).await;
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

    /// Executes its orders, for ever: every task prints one line and succeeds.
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

    /// Loses its connection without a DISCONNECT, as by a power cut; it can connect again.
    pub async fn vanish(self) -> Identity {
        self.connection.abort();
        let mut this = self;
        let _ = (&mut this.connection).await;
        this.identity.clone()
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Serves the connection until it ends or the agent is dropped.
async fn drive(
    mut link: Link,
    key: PublicKey,
    mut outgoing: mpsc::Receiver<Outgoing>,
    hand_on: mpsc::Sender<FromController>,
) {
    let topics = Topics::default();
    while link.flush().await.is_ok() {
        let ping_at = link.ping_at();
        tokio::select! {
            next = link.next() => {
                let Ok(message) = next else { return };
                if hand_on.send(read(&topics, &key, message)).await.is_err() {
                    return;
                }
            }
            message = outgoing.recv() => {
                let Some((topic, payload, qos, retain)) = message else { return };
                link.publish(&topic, payload, qos, retain);
            }
            () = sleep_until(ping_at) => link.ping(),
        }
    }
}

/// What a message of the controller is, orders verified.
fn read(topics: &Topics, key: &PublicKey, message: Message) -> FromController {
    let payload = &message.payload;
    let known = match topics.parse(&message.topic) {
        Some(Topic::Execute(..) | Topic::Cancel(..)) => {
            key.verify(payload).ok().map(|order| FromController::Order(Box::new(order), payload.clone()))
        }
        Some(Topic::Ack(_, run)) => decode(payload).ok().map(|ack| FromController::Ack(run, ack)),
        _ => None,
    };
    known.unwrap_or(FromController::Other(message.topic, message.payload))
}
