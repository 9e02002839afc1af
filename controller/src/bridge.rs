//! The controller's connection to the broker, ours or another's: the only part that speaks MQTT.
//!
//! It is an ordinary client: MQTT 5 with a clean start, and 3.1.1 with a broker that has nothing
//! newer, which then gets no requests. Each connection is a new one, so nothing that was meant for
//! an earlier one is sent late: the hub and the agent of the controller's own machine say
//! everything again. Orders to the controller's own machine go to its agent, everything else to the
//! hub. It tries for ever.

mod address;
mod link;
mod version;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pistat_agent::Incoming as AgentIncoming;
use pistat_protocol::{
    id::{InvalidId, PiId},
    status::Availability,
    topic::{Topic, Topics},
};
use pistat_support::{backoff::Backoff, random};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub(crate) use self::address::BrokerAddress;
use self::{
    link::{Client, Happened, Link, Message, Trouble, Wanted},
    version::{Version, Versions},
};

/// How many messages wait for the hub: a burst of reports from a fleet of a thousand, at about 1 kB
/// each.
const INCOMING: usize = 4096;

/// How many messages wait for the broker.
const OUTGOING: usize = link::OUTGOING;

/// The pauses between attempts to connect: the first, and the longest it grows to.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// The longest pause while another client takes the connection over again and again.
const MAX_TAKEN_OVER: Duration = Duration::from_secs(120);

/// How long the farewell may take; the will says the same if it does not get through.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many bytes of payload wait for the hub: some of the largest messages that there are.
pub(crate) const INCOMING_BYTES: usize = 16 * 1024 * 1024;

/// What the hub hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Connected and subscribed: say everything that is retained.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// Something is retained on a topic that is none of ours: the rest of a machine, or of an
    /// earlier prefix.
    RetainedElsewhere { topic: String, payload: Bytes },
    /// Home Assistant was started, or stops.
    Birth { payload: Bytes, retain: bool },
    /// A message.
    Message {
        topic: Topic,
        payload: Bytes,
        retain: bool,
        /// Who asked, by the stamp of the embedded broker.
        account: Option<String>,
        /// Where the answer goes, with MQTT 5.
        response: Option<ResponseTo>,
    },
    /// A request on a topic that names nobody, and why it does not.
    Misaddressed { topic: String, why: InvalidId, retain: bool, account: Option<String>, response: Option<ResponseTo> },
}

impl Heard {
    /// The bytes of its payload.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Message { payload, .. } | Self::Birth { payload, .. } | Self::RetainedElsewhere { payload, .. } => {
                payload.len()
            }
            Self::Connected | Self::Disconnected | Self::Misaddressed { .. } => 0,
        }
    }
}

/// The way to the hub: bounded in messages and in bytes.
#[derive(Debug, Clone)]
pub(crate) struct ToHub {
    sender: mpsc::Sender<Heard>,
    /// Bytes that there is room for. The hub gives back what it has taken.
    room: Arc<Semaphore>,
}

impl ToHub {
    /// Waits for room. An error means that the hub has ended, and with it the whole program.
    async fn send(&self, heard: Heard) {
        let bytes = u32::try_from(heard.payload_bytes().min(INCOMING_BYTES)).unwrap_or(u32::MAX);
        if let Ok(room) = self.room.acquire_many(bytes).await {
            room.forget();
            let _ = self.sender.send(heard).await;
        }
    }
}

/// The hub's end of what leads to the broker and back.
pub(crate) struct HubEnd {
    pub(crate) heard: mpsc::Receiver<Heard>,
    /// Bytes that `heard` has room for: the hub gives back what it has taken.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
    pub(crate) looks: mpsc::Sender<Look>,
    /// Ends the connection to the broker.
    pub(crate) give_up: Arc<Notify>,
}

/// The bridge's end of it.
pub(crate) struct BridgeEnd {
    hub: ToHub,
    outgoing: mpsc::Receiver<Outgoing>,
    looks: mpsc::Receiver<Look>,
    give_up: Arc<Notify>,
}

/// What leads from the hub to the broker and back.
pub(crate) fn channels() -> (HubEnd, BridgeEnd) {
    let (sender, heard) = mpsc::channel(INCOMING);
    let (room, give_up) = (Arc::new(Semaphore::new(INCOMING_BYTES)), Arc::new(Notify::new()));
    let (outgoing_sender, outgoing) = mpsc::channel(OUTGOING);
    let (looks_sender, looks) = mpsc::channel(LOOKS);
    let hub = ToHub { sender, room: Arc::clone(&room) };
    let hub_end = HubEnd { heard, room, outgoing: outgoing_sender, looks: looks_sender, give_up: Arc::clone(&give_up) };
    (hub_end, BridgeEnd { hub, outgoing, looks, give_up })
}

/// Where a request wants its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResponseTo {
    pub(crate) topic: String,
    pub(crate) correlation: Option<Bytes>,
}

/// What the hub publishes.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) correlation: Option<Bytes>,
}

/// What the broker retains beyond the topics that the hub always hears: to be subscribed to for a
/// while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// Subscribes to these filters.
    At(Vec<String>),
    /// Ends that.
    Away(Vec<String>),
}

/// How many of these wait for the connection.
const LOOKS: usize = 16;

/// The filters of the hub and of the own machine's agent. Retained flags of requests must be seen
/// as they were published; everywhere else the flag tells what is old from what is said now.
fn filters(topics: &Topics, enrolment: bool, births: &[String]) -> Vec<Wanted> {
    let requests = topics.format(&Topic::Request("x".parse().expect("a pi-id"))).replacen("/x/", "/+/", 1);
    // The states of runs and what machines were given are our own words: heard is only what the
    // broker still had from before.
    let own_words = ["+/task/+/status", "+/meta"].map(|rest| format!("{}/{rest}", topics.prefix()));
    let own = PiId::controller();
    let mut filters: Vec<Wanted> = Vec::new();
    let all = topics.controller_filters().into_iter().chain(topics.agent_filters(&own));
    for (filter, qos) in all {
        let known = filters.iter().any(|wanted| wanted.filter == filter);
        let own_status = filter == topics.format(&Topic::Status(own.clone())) || filter.ends_with("/controller/key");
        if known || own_status || (filter.starts_with('$') && !enrolment) {
            continue;
        }
        let (as_published, no_local) = (filter == requests, own_words.contains(&filter));
        filters.push(Wanted { filter, qos, as_published, no_local });
    }
    let birth = |topic: &String| Wanted { filter: topic.clone(), qos: 1, as_published: false, no_local: false };
    filters.extend(births.iter().map(birth));
    filters
}

/// Keeps a connection until `stop` is cancelled; then says `offline`, waits for its
/// acknowledgement, and disconnects.
pub(crate) async fn run(
    address: BrokerAddress,
    end: BridgeEnd,
    agent: mpsc::Sender<AgentIncoming>,
    ready: oneshot::Sender<()>,
    stop: CancellationToken,
) {
    let BridgeEnd { hub, mut outgoing, mut looks, give_up } = end;
    let filters = filters(&address.topics, address.embedded, &address.births);
    let mut bridge = Bridge {
        address,
        filters,
        hub,
        agent,
        give_up,
        ready: Some(ready),
        versions: Versions::default(),
        backoff: Backoff::starting_at(MIN_BACKOFF, MAX_BACKOFF),
        last_trouble: None,
    };
    while !stop.is_cancelled() {
        let Some(trouble) = bridge.connect(&mut outgoing, &mut looks, &stop).await else {
            // A trial, or nobody has anything to say any more.
            if outgoing.is_closed() {
                return;
            }
            continue;
        };
        let pause = bridge.pause_after(&trouble);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = discard(&mut outgoing) => return,
        }
    }
}

/// While nobody hears it, what is said is void; returns when nobody says anything any more.
async fn discard(outgoing: &mut mpsc::Receiver<Outgoing>) {
    while outgoing.recv().await.is_some() {}
}

async fn write(client: Client, outgoing: &mut mpsc::Receiver<Outgoing>, looks: &mut mpsc::Receiver<Look>) {
    loop {
        let is_open = tokio::select! {
            biased;
            Some(look) = looks.recv() => client.look(look).await,
            message = outgoing.recv() => match message {
                Some(message) => client.publish(message).await,
                None => false,
            },
        };
        if !is_open {
            return;
        }
    }
}

struct Bridge {
    address: BrokerAddress,
    filters: Vec<Wanted>,
    hub: ToHub,
    agent: mpsc::Sender<AgentIncoming>,
    /// The hub has more to publish than may wait for this connection.
    give_up: Arc<Notify>,
    /// Told once, at the first connection.
    ready: Option<oneshot::Sender<()>>,
    versions: Versions,
    backoff: Backoff,
    /// The same trouble is told once.
    last_trouble: Option<String>,
}

impl Bridge {
    /// One connection to its end; `None` when nothing went wrong with it.
    async fn connect(
        &mut self,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        looks: &mut mpsc::Receiver<Look>,
        stop: &CancellationToken,
    ) -> Option<Trouble> {
        let trial = self.versions.is_trial();
        let version = self.versions.next();
        let mut link = Link::open(&self.address, version, trial);
        let ready = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            ready = self.get_ready(&mut link, trial) => ready,
            () = discard(outgoing) => return None,
        };
        if let Err(trouble) = ready {
            return Some(trouble);
        }
        if trial {
            return None;
        }
        // What was meant for the last connection is not for this one.
        while outgoing.try_recv().is_ok() {}
        while looks.try_recv().is_ok() {}
        self.greet(&link.client(), version).await;
        let since = tokio::time::Instant::now();
        let writer = write(link.client(), outgoing, looks);
        tokio::pin!(writer);
        let give_up = Arc::clone(&self.give_up);
        let trouble = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            () = &mut writer => None,
            () = give_up.notified() => {
                Some(Trouble::Other("it takes messages too slowly, so the connection was ended".into()))
            }
            trouble = self.listen(&mut link) => Some(trouble),
        };
        match &trouble {
            Some(_) => {
                self.versions.ended();
                self.backoff.connection_ended(since.elapsed());
                self.hub.send(Heard::Disconnected).await;
                let _ = self.agent.send(AgentIncoming::Disconnected).await;
            }
            None => {
                let _ = tokio::time::timeout(FAREWELL, self.say_farewell(&mut link)).await;
            }
        }
        trouble
    }

    /// Connected and subscribed; of a trial, let in and gone.
    async fn get_ready(&mut self, link: &mut Link, trial: bool) -> Result<(), Trouble> {
        let mut accepted = false;
        loop {
            match link.next().await {
                Ok(Happened::Accepted) if trial => {
                    self.versions.accepted();
                    link.client().disconnect();
                    while link.next().await.is_ok() {}
                    return Ok(());
                }
                Ok(Happened::Accepted) => {
                    accepted = true;
                    link.client().subscribe(&self.filters);
                }
                Ok(Happened::Subscribed(granted)) => {
                    self.versions.accepted();
                    self.tell_refused_filters(&granted, self.versions.next());
                    return Ok(());
                }
                // Retained messages may come before the answer.
                Ok(Happened::Message(message)) => self.hear(message).await,
                Ok(_) => {}
                Err(trouble) => {
                    self.learn(&trouble, accepted);
                    return Err(trouble);
                }
            }
        }
    }

    /// What an attempt that failed tells about the broker's version.
    fn learn(&mut self, trouble: &Trouble, accepted: bool) {
        match trouble {
            Trouble::Version => {
                if self.versions.refused() {
                    self.backoff.reset();
                }
            }
            Trouble::Closed if !accepted && !self.address.embedded => self.versions.closed(),
            _ => self.versions.ended(),
        }
    }

    async fn greet(&mut self, client: &Client, version: Version) {
        self.last_trouble = None;
        if !self.address.embedded {
            tracing::info!(broker = self.address.shown, "connected to the broker");
        }
        if version == Version::Four {
            tracing::warn!(
                "the broker has no MQTT 5, so a retained request could not be told from one that is made now: requests over MQTT are off; \
                 dashboard, command line and HTTP work"
            );
        }
        client.try_retain(&self.address.status_topic(), Availability::Online.as_str());
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(());
        }
        self.hub.send(Heard::Connected).await;
        let _ = self.agent.send(AgentIncoming::Connected).await;
    }

    fn tell_refused_filters(&self, granted: &[bool], version: Version) {
        let asked = self.filters.iter().filter(|wanted| version == Version::Five || !wanted.as_published);
        for (wanted, _) in asked.zip(granted).filter(|(_, granted)| !**granted) {
            tracing::error!(
                filter = wanted.filter,
                "the broker refuses this subscription: allow it to the controller's user there (`pistat broker-acl` writes the rules)"
            );
        }
    }

    async fn listen(&mut self, link: &mut Link) -> Trouble {
        let mut told = false;
        loop {
            match link.next().await {
                Ok(Happened::Message(message)) => {
                    self.stay_online(&message, &link.client());
                    self.hear(message).await;
                }
                Ok(Happened::Acknowledged { refused: true }) if !told => {
                    told = true;
                    tracing::error!(
                        "the broker refuses what the controller publishes: allow its topics to the controller's user there (`pistat broker-acl` \
                         writes the rules)"
                    );
                }
                Ok(_) => {}
                Err(trouble) => return trouble,
            }
        }
    }

    /// The will of an earlier connection may come after this one's birth.
    fn stay_online(&self, message: &Message, client: &Client) {
        let offline = Availability::from_payload(&message.payload) == Some(Availability::Offline);
        let topic = self.address.status_topic();
        if offline && message.topic == topic {
            client.try_retain(&topic, Availability::Online.as_str());
        }
    }

    async fn hear(&mut self, message: Message) {
        let Message { topic, payload, retain, account, response } = message;
        if self.address.births.contains(&topic) {
            self.hub.send(Heard::Birth { payload, retain }).await;
            return;
        }
        let Some(topic) = self.address.topics.parse(&topic) else {
            // Without a payload it is how a retained one is cleared.
            let why = self.address.topics.misaddressed_request(&topic).filter(|_| !payload.is_empty());
            if let Some(why) = why {
                self.hub.send(Heard::Misaddressed { topic, why, retain, account, response }).await;
            } else if retain {
                self.hub.send(Heard::RetainedElsewhere { topic, payload }).await;
            }
            return;
        };
        let for_agent = match &topic {
            Topic::Execute(pi, _)
            | Topic::Cancel(pi, _)
            | Topic::Ack(pi, _)
            | Topic::Settings(pi)
            | Topic::Watch(pi)
            | Topic::Recall(pi) => pi.is_controller(),
            _ => false,
        };
        if for_agent {
            let _ = self.agent.send(AgentIncoming::Message { topic, payload, retain }).await;
        } else {
            self.hub.send(Heard::Message { topic, payload, retain, account, response }).await;
        }
    }

    /// Tells a trouble, unless it was the last one too, and says how long to wait.
    fn pause_after(&mut self, trouble: &Trouble) -> Duration {
        let most = if matches!(trouble, Trouble::TakenOver) { MAX_TAKEN_OVER } else { MAX_BACKOFF };
        let pause = self.backoff.next_up_to(most, random::byte());
        let why = match trouble {
            Trouble::Version => "it does not know this version of MQTT".into(),
            Trouble::Credentials => "it refuses the user or the password of mqtt.broker".into(),
            Trouble::Closed => "it closed the connection".into(),
            Trouble::TakenOver => format!(
                "another client took the connection over; a second controller with the prefix {} is connected there: stop one of them, or \
                 give it another `prefix` under [mqtt]",
                self.address.topics.prefix()
            ),
            Trouble::Other(why) => why.clone(),
        };
        let sentence = format!("no connection to {}: {why}; trying again until there is one", self.address.shown);
        if self.last_trouble.as_ref() == Some(&sentence) {
            tracing::debug!(next_attempt_in = ?pause, "{sentence}");
        } else {
            tracing::warn!("{sentence}");
            self.last_trouble = Some(sentence);
        }
        pause
    }

    async fn say_farewell(&self, link: &mut Link) {
        if !link.client().try_retain(&self.address.status_topic(), Availability::Offline.as_str()) {
            return;
        }
        loop {
            match link.next().await {
                // Everything sent before is acknowledged in order, so nothing in flight means that
                // `offline` has arrived.
                Ok(Happened::Acknowledged { .. }) if link.in_flight() == 0 => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        link.client().disconnect();
        while link.next().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_keep_their_retained_flag() {
        let filters = filters(&Topics::default(), true, &["homeassistant/status".into()]);
        let kept: Vec<_> =
            filters.iter().filter(|wanted| wanted.as_published).map(|wanted| wanted.filter.as_str()).collect();
        assert_eq!(kept, ["pistat/+/task/request"]);
        assert!(filters.iter().any(|wanted| wanted.filter == "homeassistant/status"));
        assert!(filters.iter().any(|wanted| wanted.filter == "pistat/controller/task/+/execute"));
        assert!(filters.iter().any(|wanted| wanted.filter == "$pistat/enroll/+/request"));
    }

    #[test]
    fn nothing_of_enrolment_is_heard_on_a_broker_that_is_not_ours() {
        let filters = filters(&Topics::new("home/pis").unwrap(), false, &[]);
        assert!(filters.iter().all(|wanted| wanted.filter.starts_with("home/pis/")), "{filters:?}");
        assert_eq!(filters.iter().filter(|wanted| wanted.as_published).count(), 1);
    }
}
