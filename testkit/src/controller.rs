//! A controller that a test plays with a key of its own, for the sake of the agent on the other
//! side.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
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
    task::{Ack, OutputChunk, Report, RunState},
    topic::{Topic, Topics},
};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{payload, wait::DEADLINE};

/// A message that the controller received.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Its topic.
    pub topic: Topic,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Whether it was retained.
    pub retain: bool,
}

impl Heard {
    /// Its payload, decoded.
    ///
    /// # Panics
    /// It is something else.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.payload).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its payload as a text.
    ///
    /// # Panics
    /// It is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// A controller that is played by the test.
pub struct Controller {
    /// Its broker.
    pub broker: SocketAddr,
    /// What it signs orders with.
    pub key: ControllerKey,
    /// The machine that it gives orders.
    pub pi: PiId,
    client: AsyncClient,
    /// The session that the machine reported last.
    pub session: Option<Session>,
    /// Whether it acknowledges reports and output.
    pub acknowledges: bool,
    /// Whether the broker is its own, as it tells with its key.
    enrols: bool,
    /// Whether it signs an order again with the root runner's nonce, as a real controller does.
    pub confirms: bool,
    sent: Mutex<HashMap<RunId, ExecuteOrder>>,
    /// The next chunk of each run: like a real controller, it acknowledges only what has no hole
    /// before it.
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
    /// A controller with a broker of its own: it enrols machines.
    pub fn connect(broker: SocketAddr) -> Self {
        Self::connect_to(broker, true)
    }

    /// As a controller does on a broker that is not its own.
    pub fn connect_as_a_guest(broker: SocketAddr) -> Self {
        Self::connect_to(broker, false)
    }

    fn connect_to(broker: SocketAddr, enrols: bool) -> Self {
        let key = ControllerKey::from_secret(&[9; 32]);
        let mut options = MqttOptions::new("test-controller", broker.ip().to_string(), broker.port());
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
            broker,
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

    /// A join token with its fingerprint.
    pub fn token(&self) -> String {
        JoinToken { secret: secret_text([3; 32]), fingerprint: self.key.public().fingerprint() }.to_string()
    }

    /// Publishes with `QoS` 1.
    pub async fn publish(&self, topic: &Topic, payload: Vec<u8>, retain: bool) {
        self.client.publish(self.topics.format(topic), QoS::AtLeastOnce, retain, payload).await.unwrap();
    }

    /// The next message, after doing what a controller does with it.
    pub async fn next(&mut self) -> Heard {
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
    pub async fn wait_for<T>(&mut self, what: &str, mut find: impl FnMut(&Heard) -> Option<T>) -> T {
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

    /// Waits for a status of the machine.
    pub async fn wait_for_status(&mut self, wanted: &str) {
        let pi = self.pi.clone();
        self.wait_for(wanted, |heard| {
            (heard.topic == Topic::Status(pi.clone()) && heard.text() == wanted).then_some(())
        })
        .await;
    }

    /// Waits for a report of this state; another final one is a failure.
    pub async fn wait_for_report(&mut self, run: RunId, state: RunState) -> Report {
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

    /// An order for the present session.
    ///
    /// # Panics
    /// The agent has not reported one.
    pub fn order(&self, argv: &[&str]) -> ExecuteOrder {
        payload::order(&self.pi, payload::run_id(), self.present_session(), argv)
    }

    fn present_session(&self) -> &Session {
        self.session.as_ref().expect("the agent has reported its session")
    }

    /// Signs an order again, with a nonce of the root runner's, for the present session.
    pub async fn confirm(&self, run: RunId, nonce: Nonce) {
        let order = self.sent.lock().unwrap().get(&run).cloned().expect("the order was sent");
        let session = self.present_session().clone();
        let order = ExecuteOrder { nonce: Some(nonce), session, ..order };
        self.send_signed(run, &self.key.sign(&Order::Execute(order))).await;
    }

    /// Waits until the root runner of the machine has given a nonce for a run.
    pub async fn wait_for_nonce(&mut self, run: RunId) -> Nonce {
        self.wait_for("a nonce", |heard| match heard.topic {
            Topic::Report(_, of) if of == run => heard.json::<Report>().nonce,
            _ => None,
        })
        .await
    }

    /// Signs an order and sends it.
    pub async fn send(&self, order: &ExecuteOrder) {
        self.sent.lock().unwrap().insert(order.run, order.clone());
        self.send_signed(order.run, &self.key.sign(&Order::Execute(order.clone()))).await;
    }

    /// Sends a signed order.
    pub async fn send_signed(&self, run: RunId, order: &SignedOrder) {
        self.publish(&Topic::Execute(self.pi.clone(), run), encode(order), false).await;
    }

    /// Sends a signed order to cancel a run.
    pub async fn cancel(&self, run: RunId) {
        let session = self.present_session().clone();
        let order = CancelOrder { pi: self.pi.clone(), run, session };
        let order = self.key.sign(&Order::Cancel(order));
        self.publish(&Topic::Cancel(self.pi.clone(), run), encode(&order), false).await;
    }

    /// Runs a shell line to its end and returns its report and its output in order.
    pub async fn run(&mut self, script: &str) -> (Report, Vec<OutputChunk>) {
        let order = self.order(&["sh", "-c", script]);
        self.send(&order).await;
        self.collect(order.run).await
    }

    /// Collects chunks until the run has this final state.
    pub async fn collect_into(&mut self, chunks: &mut Chunks, run: RunId, state: RunState) -> Report {
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
    pub async fn collect(&mut self, run: RunId) -> (Report, Vec<OutputChunk>) {
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
pub struct Chunks(std::collections::BTreeMap<u64, OutputChunk>);

impl Chunks {
    /// Takes a message if it is a chunk of this run's output; the retained repetition is none.
    pub fn take(&mut self, heard: &Heard, run: RunId) {
        if matches!(heard.topic, Topic::Output(_, of) if of == run) {
            let chunk: OutputChunk = heard.json();
            if !chunk.is_final {
                self.0.insert(chunk.seq, chunk);
            }
        }
    }

    /// All chunks, which must have come without a hole.
    pub fn complete(self) -> Vec<OutputChunk> {
        assert!(self.0.keys().enumerate().all(|(n, seq)| n as u64 == *seq), "{:?}", self.0.keys());
        self.0.into_values().collect()
    }

    /// What came, in order.
    pub fn into_chunks(self) -> Vec<OutputChunk> {
        self.0.into_values().collect()
    }

    /// How much output came.
    pub fn bytes(&self) -> usize {
        self.0.values().map(|chunk| chunk.data.len()).sum()
    }
}

/// The text of chunks, without the repetition at the end.
pub fn text(chunks: &[OutputChunk]) -> String {
    chunks.iter().filter(|chunk| !chunk.is_final).map(|chunk| chunk.data.as_str()).collect()
}
