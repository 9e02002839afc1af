//! The hub: one loop, one closed [`Event`], and all live state. Whoever wants something to change sends an event; nobody else holds the state.
//!
//! It never waits for anything but the next event: what it publishes goes through an outbox, what it stores comes back as an event, and whatever was promised
//! to others (an answer, an acknowledgement, a retained status) is kept in [`PendingCommit`] until it is on the disk.

mod accept;
mod announce;
pub mod ask;
pub mod feed;
pub mod histogram;
mod homeassistant;
mod joining;
mod lanes;
mod leftovers;
mod machines;
mod pending;
pub(crate) mod people;
mod repeats;
mod requests;
mod runs;
mod schedule;
mod sessions;
mod standing;
mod tags;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use pistat_broker::{BrokerEvent, BrokerHandle};
use pistat_protocol::{
    dashboard::{Change, Event as AuditEvent, EventKind, Pulse, Severity},
    id::{PiId, RunId},
    order::{ControllerKey, JoinToken},
    status::Session,
    task::RunState,
    topic::{Topic, Topics},
};
use pistat_support::notify::Notify;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Access, SecretHash, Uses},
    bridge::{Heard, HubEnd, INCOMING_BYTES, Look, Outgoing},
    catalogue::Catalogue,
    config::{Config, Problem},
    fleet::{Fleet, Now},
    homeassistant::Announcer,
    own_address::OwnAddress,
    runs::{KeptRuns, Runs},
    store::{
        Durability, Loaded, Store, Stored, Ticket, Write,
        register::{RegisterWrite, Shelf},
    },
    terminal,
};
use ask::{Ask, Progress, Refused, Reply};
use feed::Feed;
use lanes::{Lanes, Sender};
use pending::{PendingAccess, PendingCommit, PendingReply, PendingRuns};

/// How many questions wait: more than the web server asks at a time, since each of its requests waits for its answer.
pub(crate) const ASKS: usize = 256;

/// How many messages are taken from the broker in one turn, so that one commit can hold what they ask to store.
const TURN: usize = 256;

/// How many received messages are handled at most, and for how long, before everything else is
/// looked at again. What is received meanwhile is sorted by its senders only then: while the
/// messages of one are expensive, those of others must not wait behind all of them.
const SLICE: usize = 64;
const SLICE_TIME: Duration = Duration::from_millis(5);

/// How many messages may wait for the broker before notices are dropped: what they tell is in the register, or is told again.
const OUTBOX: usize = 32 * 1024;

/// How many may wait at all: what is retained of a fleet of ten thousand with fifty thousand open runs. Beyond, the
/// connection is ended; on the next one everything that is retained is published again, and orders are signed anew.
const MOST_WAITING: usize = 128 * 1024;

/// How many messages each sender makes the controller publish in a second. Agents repeat what is not acknowledged.
const ANSWERS_A_SECOND: u32 = 1000;

/// The longest text of an event, in characters.
const MOST_EVENT_CHARACTERS: usize = 2000;

/// How many events stay in memory.
const RECENT_EVENTS: usize = 200;

/// Everything that can happen to the hub.
pub(crate) enum Event {
    /// Something came from the broker.
    Heard(Vec<Heard>),
    /// Something is on the disk, or cannot be.
    Stored(Vec<Stored>),
    /// Somebody asks.
    Ask(Ask),
    /// Something happened at the embedded broker's door.
    Broker(Vec<BrokerEvent>),
    /// The catalogue's file changed.
    Catalogue(Result<Catalogue, Vec<Problem>>),
    /// A frame of the feed is due.
    Frame,
    /// A second has passed.
    Tick,
}

/// The channels of the hub.
pub(crate) struct Inputs {
    pub(crate) bridge: HubEnd,
    pub(crate) stored: mpsc::UnboundedReceiver<Stored>,
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) broker: Option<mpsc::Receiver<BrokerEvent>>,
    pub(crate) catalogue: mpsc::Receiver<Result<Catalogue, Vec<Problem>>>,
}

/// What the hub is made of.
pub(crate) struct HubParts {
    pub(crate) config: Arc<Config>,
    pub(crate) catalogue: Catalogue,
    pub(crate) store: Store,
    pub(crate) loaded: Loaded,
    pub(crate) broker: Option<BrokerHandle>,
    pub(crate) controller_secret: SecretHash,
    pub(crate) access: watch::Sender<Arc<Access>>,
    pub(crate) uses: watch::Sender<Arc<Uses>>,
    pub(crate) mqtt: Option<SocketAddr>,
    pub(crate) own_address: Arc<OwnAddress>,
}

/// The hub.
pub(crate) struct Hub {
    config: Arc<Config>,
    topics: Topics,
    catalogue: Catalogue,
    fleet: Fleet,
    runs: Runs,
    access: Access,
    access_watch: watch::Sender<Arc<Access>>,
    uses: sessions::UsesKept,
    controller_secret: SecretHash,
    key: ControllerKey,
    join_token: JoinToken,
    broker: Option<BrokerHandle>,
    /// Where the embedded broker listens.
    mqtt: Option<SocketAddr>,
    own_address: Arc<OwnAddress>,
    store: Store,
    pending: HashMap<Ticket, PendingCommit>,
    /// Writes of this turn: one commit holds them all.
    writes: Vec<RegisterWrite>,
    turn: PendingRuns,
    /// What was received and is not handled yet.
    lanes: Lanes,
    outbox: VecDeque<Outgoing>,
    leftovers: leftovers::Leftovers,
    /// What the bridge is to look at, or away from.
    looks: VecDeque<Look>,
    connected: bool,
    /// More waits than [`MOST_WAITING`]: nothing is published before there is another connection.
    given_up: bool,
    /// How much each sender made us publish in this second.
    answers: HashMap<Sender, u32>,
    /// Machines whose own label has changed: told once a second, however often it changes.
    relabelled: BTreeSet<PiId>,
    /// The session of each agent that is connected, as it said itself on this connection of ours.
    sessions: HashMap<PiId, Session>,
    feed: Feed,
    events: VecDeque<AuditEvent>,
    next_event: u64,
    followers: HashMap<RunId, watch::Sender<Progress>>,
    watches: HashMap<PiId, Instant>,
    codes: people::Codes,
    bad_credentials: HashMap<IpAddr, (u32, Instant)>,
    quota: joining::Quota,
    repeats: repeats::Repeats,
    /// The accounts and machines of which a change is being stored. Another is not decided meanwhile: it would be, on what is out of date.
    changing: HashSet<String>,
    pulse: Pulse,
    accepted_messages: u64,
    power: HashMap<PiId, pistat_protocol::stats::Power>,
    schedules: schedule::Schedules,
    announcer: Announcer,
    numbers: Counted,
    /// Of the newest id, so that ids never go back.
    last_id_milliseconds: u64,
    refused_reports: runs::RefusedReports,
    /// Ended runs whose retained topics are to be said again.
    republish: VecDeque<pistat_protocol::dashboard::Run>,
    /// Runs of which the broker retains something though it should not.
    orphaned_retained: VecDeque<(PiId, RunId)>,
    started: Instant,
    now: Now,
}

/// What `/metrics` counts here.
#[derive(Default)]
struct Counted {
    finished: BTreeMap<(String, RunState), u64>,
    seconds: BTreeMap<String, histogram::Histogram>,
    refused_messages: u64,
}

impl Hub {
    /// The hub at the start, with everything that the state folder held.
    pub(crate) fn new(parts: HubParts) -> Self {
        let HubParts { config, catalogue, store, loaded, broker, controller_secret, access, uses, mqtt, own_address } =
            parts;
        let now = Now::get();
        // Whoever has an open run is known, whatever else was lost: what is not known is neither offline nor silent, and its runs would never end.
        let busy = loaded.open_runs.iter().map(|(record, _)| record.run.pi.clone());
        let enrolled = loaded.access.agents().filter(|agent| agent.secret_sha256.is_some());
        let known: Vec<_> = enrolled.map(|agent| agent.pi.clone()).chain(busy).collect();
        let quota = joining::Quota::new(loaded.access.agents().filter_map(|agent| agent.enrolled_at), now);
        let republish = loaded.retained_runs.iter().map(|record| record.run.clone()).collect();
        let kept = KeptRuns {
            open: loaded.open_runs,
            retained: loaded.retained_runs,
            recent: loaded.recent_runs,
            requests: loaded.requests,
            groups: loaded.groups,
        };
        let newest_id = kept.recent.iter().map(|record| record.run.id.unix_milliseconds()).max();
        let mut hub = Self {
            topics: config.mqtt.topics.clone(),
            runs: Runs::new(kept, config.runs.per_machine as usize, config.runs.lost_after, now.monotonic),
            fleet: Fleet::new(loaded.given, known.into_iter(), now),
            schedules: schedule::Schedules::new(&catalogue, now.wall),
            announcer: homeassistant::announcer(&config, loaded.announced),
            catalogue,
            uses: sessions::UsesKept::new(&loaded.access, uses, now),
            access: loaded.access,
            access_watch: access,
            controller_secret,
            key: loaded.key,
            join_token: loaded.join_token,
            broker,
            mqtt,
            own_address,
            store,
            pending: HashMap::new(),
            writes: Vec::new(),
            turn: PendingRuns::default(),
            lanes: Lanes::default(),
            outbox: VecDeque::new(),
            leftovers: leftovers::Leftovers::new(&loaded.prefixes, &config.mqtt.topics),
            looks: VecDeque::new(),
            connected: false,
            given_up: false,
            answers: HashMap::new(),
            relabelled: BTreeSet::new(),
            sessions: HashMap::new(),
            feed: Feed::new(),
            next_event: loaded.events.first().map_or(0, |event| event.seq + 1),
            events: loaded.events.into(),
            followers: HashMap::new(),
            watches: HashMap::new(),
            codes: people::Codes::default(),
            bad_credentials: HashMap::new(),
            quota,
            repeats: repeats::Repeats::default(),
            changing: HashSet::new(),
            pulse: Pulse::default(),
            accepted_messages: 0,
            power: HashMap::new(),
            numbers: Counted::default(),
            last_id_milliseconds: newest_id.unwrap_or(0),
            refused_reports: runs::RefusedReports::default(),
            republish,
            orphaned_retained: VecDeque::new(),
            started: now.monotonic,
            config,
            now,
        };
        let last_alive = hub.events.front().map(|event| event.time);
        hub.event(
            EventKind::System,
            Severity::Info,
            None,
            None,
            None,
            format!("controller {} started", env!("CARGO_PKG_VERSION")),
        );
        for sentence in loaded.damaged {
            hub.event(EventKind::System, Severity::Error, None, None, None, sentence);
        }
        if let Some(last_alive) = last_alive {
            hub.tell_missed_schedules(last_alive);
        }
        if !loaded.prefixes.iter().any(|prefix| prefix == hub.topics.prefix()) {
            hub.remember_prefixes();
        }
        hub.report_unconfirmed_tags();
        hub.access_changed();
        hub
    }

    /// A sign-in link's code for the account `admin`, for the start-up message.
    pub(crate) fn first_code(&mut self) -> std::io::Result<String> {
        self.codes.make(pistat_protocol::id::AccountName::admin(), self.now)
    }

    /// Runs until `stop` is cancelled; then everything that must be stored is.
    pub(crate) async fn run(mut self, mut inputs: Inputs, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut batch, mut stored, mut told) = (Vec::with_capacity(TURN), Vec::new(), Vec::new());
        let mut notify = Notify::from_environment();
        loop {
            let frame = self.feed.deadline().map(tokio::time::Instant::from_std);
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Before all that others decide the rate of, which may always have more.
                _ = tick.tick() => Event::Tick,
                Ok(permit) = inputs.bridge.looks.reserve(), if !self.looks.is_empty() => {
                    if let Some(look) = self.looks.pop_front() {
                        permit.send(look);
                    }
                    continue;
                }
                Ok(permit) = inputs.bridge.outgoing.reserve(), if !self.outbox.is_empty() => {
                    self.publish_next(permit);
                    continue;
                }
                1.. = inputs.stored.recv_many(&mut stored, TURN) => Event::Stored(std::mem::take(&mut stored)),
                () = tokio::time::sleep_until(frame.unwrap_or_else(tokio::time::Instant::now)), if frame.is_some() => Event::Frame,
                Some(ask) = inputs.asks.recv() => Event::Ask(ask),
                _ = inputs.bridge.heard.recv_many(&mut batch, TURN) => Event::Heard(std::mem::take(&mut batch)),
                1.. = receive(&mut inputs.broker, &mut told) => Event::Broker(std::mem::take(&mut told)),
                Some(catalogue) = inputs.catalogue.recv() => Event::Catalogue(catalogue),
                () = std::future::ready(()), if !self.lanes.is_empty() => Event::Heard(Vec::new()),
            };
            if let Event::Heard(batch) = &event {
                inputs
                    .bridge
                    .room
                    .add_permits(batch.iter().map(Heard::payload_bytes).map(|bytes| bytes.min(INCOMING_BYTES)).sum());
            }
            self.now = Now::get();
            // Each turn shows that the loop goes round, and the tick makes one at least every second: a hub that hangs is noticed.
            notify.alive(self.now.monotonic);
            self.handle(event);
            self.commit_turn();
            if self.given_up {
                inputs.bridge.give_up.notify_one();
            }
        }
        self.say_goodbye();
        tokio::task::block_in_place(|| self.store.close());
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Heard(batch) => self.received(batch),
            Event::Stored(batch) => self.all_stored(batch),
            Event::Ask(ask) => self.answer(ask),
            Event::Broker(batch) => batch.into_iter().for_each(|event| self.broker_event(event)),
            Event::Catalogue(result) => self.catalogue_changed(result),
            Event::Frame => self.feed.flush(self.now.wall),
            Event::Tick => self.tick(),
        }
    }

    /// The outbox is served one by one, so that the hub never waits for the broker.
    fn publish_next(&mut self, permit: mpsc::Permit<'_, Outgoing>) {
        if let Some(message) = self.outbox.pop_front() {
            permit.send(message);
        }
    }

    fn say_goodbye(&mut self) {
        self.now = Now::get();
        for line in self.repeats.rest(self.now.monotonic) {
            self.line(line);
        }
        self.event(EventKind::System, Severity::Info, None, None, None, "controller stopped".into());
        self.keep_uses();
        self.commit_turn();
    }

    /// Hands this turn's writes to the store, in one commit.
    fn commit_turn(&mut self) {
        while self.writes.is_empty() && !self.turn.is_empty() {
            let after = std::mem::take(&mut self.turn);
            self.after_runs(after);
        }
        if self.writes.is_empty() {
            return;
        }
        let after = std::mem::take(&mut self.turn);
        let writes = std::mem::take(&mut self.writes);
        // A request may be refused while the disk is full; what has happened may not be forgotten.
        let durability = if after.accepted.is_some() { Durability::Rejectable } else { Durability::Required };
        let ticket = self.store.commit(durability, Write::Register(writes));
        self.pending.insert(ticket, PendingCommit::Runs(after));
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Join(caller, hidden, reply) => self.join(&caller, hidden, reply),
            Ask::Hide(reply) => tell(reply, self.feed.join(self.now.wall, true)),
            Ask::Machines(caller, reply) => tell(reply, self.machines(Some(caller.role))),
            Ask::Machine(caller, pi, reply) => self.tell_machine(&caller, &pi, reply),
            Ask::History(pi, seconds, reply) => self.tell_history(&pi, seconds, reply),
            Ask::Names(reply) => tell(reply, self.names()),
            Ask::Tasks(reply) => tell(reply, self.catalogue.view()),
            Ask::Patch(caller, pi, patch, reply) => self.patch(&caller, pi, patch, reply),
            Ask::Forget(caller, pi, reply) => self.forget(&caller, pi, reply),
            Ask::Run(caller, request, reply) => self.run_for(&caller, request, reply),
            Ask::Cancel(caller, id, reply) => self.cancel_for(&caller, id, reply),
            Ask::OpenRun(id, reply) => tell(reply, self.runs.told(id).cloned()),
            Ask::Group(id, reply) => self.tell_group(id, reply),
            Ask::Follow(id, reply) => self.follow(id, reply),
            Ask::Watch(pis) => self.watch(pis),
            Ask::SignIn(login, browser, reply) => self.sign_in(login, &browser, reply),
            Ask::SignOut(session, reply) => self.sign_out(session, reply),
            Ask::Used(credential, at) => self.used(credential, at),
            Ask::Sessions(caller, reply) => self.tell_sessions(&caller, reply),
            Ask::EndSession(caller, name, reply) => self.end_session(&caller, &name, reply),
            Ask::EndSessions(caller, account, reply) => self.end_sessions(&caller, account, reply),
            Ask::LoginLink(caller, reply) => self.login_link(&caller, reply),
            Ask::BadCredentials(address, reply) => self.bad_credentials(address, reply),
            Ask::Accounts(reply) => {
                tell(reply, self.access.accounts().map(|account| account.view(self.uses.last())).collect());
            }
            Ask::AddAccount(caller, account, reply) => self.add_account(&caller, account, reply),
            Ask::RemoveAccount(caller, name, reply) => self.remove_account(&caller, name, reply),
            Ask::RotateAccount(caller, name, rotation, reply) => self.rotate_account(&caller, &name, rotation, reply),
            Ask::JoinToken(reply) => self.show_join_token(reply),
            Ask::JoinTokens(reply) => self.list_join_tokens(reply),
            Ask::AddJoinToken(caller, token, reply) => self.add_join_token(&caller, token, reply),
            Ask::RemoveJoinToken(caller, name, reply) => self.remove_join_token(&caller, &name, reply),
            Ask::RotateJoinToken(caller, reply) => self.rotate_join_token(&caller, reply),
            Ask::Enrolments(reply) => tell(reply, self.access.agents().map(crate::access::AgentRecord::view).collect()),
            Ask::AddAgent(caller, pi, reply) => self.add_agent(&caller, pi, reply),
            Ask::ResetAgent(caller, pi, reply) => self.reset_agent(&caller, &pi, reply),
            Ask::Numbers(reply) => tell(reply, Box::new(self.numbers())),
        }
    }

    /// Publishes, through the outbox.
    fn publish(&mut self, topic: &Topic, payload: Vec<u8>, qos: u8, retain: bool) {
        let is_notice = matches!(topic, Topic::Watch(_) | Topic::ControllerEvent | Topic::Result(_));
        if is_notice && self.outbox.len() >= OUTBOX {
            return;
        }
        let topic = self.topics.format(topic);
        self.send(Outgoing { topic, payload, qos, retain, correlation: None });
    }

    /// Publishes what a sender makes the controller say, as often as one sender may in a second.
    fn answer_to(&mut self, sender: Sender, message: Outgoing) {
        let answers = self.answers.entry(sender).or_default();
        *answers += 1;
        if *answers <= ANSWERS_A_SECOND {
            self.send(message);
        }
    }

    fn send(&mut self, message: Outgoing) {
        // While there is no connection nothing waits: everything that is retained is said again when there is one.
        if !self.connected || self.given_up {
            return;
        }
        if self.outbox.len() < MOST_WAITING {
            return self.outbox.push_back(message);
        }
        self.given_up = true;
        self.outbox = VecDeque::new();
        let text =
            format!("more than {MOST_WAITING} messages waited for the broker: the connection to it is made anew");
        self.event(EventKind::System, Severity::Error, None, None, None, text);
    }

    /// Writes a line of the audit log: register, feed, topic.
    fn event(
        &mut self,
        kind: EventKind,
        severity: Severity,
        pi: Option<&PiId>,
        run: Option<RunId>,
        account: Option<&str>,
        text: String,
    ) {
        self.line(repeats::Line { kind, severity, pi: pi.cloned(), run, account: account.map(Into::into), text });
    }

    fn line(&mut self, line: repeats::Line) {
        let repeats::Line { kind, severity, pi, run, account, text } = line;
        let text = crate::terminal::clean(&text).chars().take(MOST_EVENT_CHARACTERS).collect();
        let event = AuditEvent { seq: self.next_event, time: self.now.wall, kind, severity, pi, run, account, text };
        self.next_event += 1;
        self.events.push_front(event.clone());
        self.events.truncate(RECENT_EVENTS);
        self.publish(&Topic::ControllerEvent, pistat_protocol::codec::encode(&event), 1, false);
        self.feed.push(Change::Event { event: event.clone() });
        self.writes.push(RegisterWrite::Event(event, Shelf::of(kind)));
    }

    /// As [`Hub::event`], for what others can make happen as often as they like. Tells whether a line was written now.
    fn repeated_event(&mut self, what: repeats::Repeated, source: String, line: repeats::Line) -> bool {
        let Some(line) = self.repeats.first(what, source, line, self.now.monotonic) else { return false };
        self.line(line);
        true
    }

    fn catalogue_changed(&mut self, result: Result<Catalogue, Vec<Problem>>) {
        match result {
            Ok(catalogue) => {
                // What was due until now was due by the old one.
                self.run_schedules();
                let before = std::mem::replace(&mut self.catalogue, catalogue);
                self.schedules = schedule::Schedules::new(&self.catalogue, self.now.wall);
                self.announce_tasks();
                self.announcer.all_changed();
                self.feed.push(Change::Tasks { tasks: self.catalogue.view() });
                self.push_machines_that_can_run_others(&before);
                let tasks = terminal::count(self.catalogue.view().len(), "task");
                self.event(
                    EventKind::System,
                    Severity::Info,
                    None,
                    None,
                    None,
                    format!("the catalogue was read again: {tasks}"),
                );
                self.report_unconfirmed_tags();
            }
            Err(problems) => {
                let sentence = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                tracing::error!("the catalogue was not changed: {sentence}");
                let text = format!("the catalogue was not changed, the old one stays in force: {sentence}");
                self.event(EventKind::System, Severity::Error, None, None, None, text);
            }
        }
    }

    fn tick(&mut self) {
        self.answers = HashMap::new();
        for line in self.repeats.due(self.now.monotonic) {
            self.line(line);
        }
        for pi in std::mem::take(&mut self.relabelled) {
            self.announce_given(&pi);
        }
        for (pi, _) in self.fleet.tick(self.now) {
            self.push_machine(&pi);
        }
        let fleet = &self.fleet;
        let steps = self.runs.tick(self.now, |pi| fleet.offline_since(pi));
        self.perform(steps);
        self.renew_watches();
        self.republish_retained();
        self.end_looks();
        self.run_schedules();
        self.announce_to_homeassistant();
        self.tick_access();
        self.beat();
    }

    /// Once a second: numbers of the broker and the feed.
    fn beat(&mut self) {
        let statistics = self.broker.as_ref().map(BrokerHandle::statistics);
        let accepted = statistics.map_or(self.accepted_messages, |statistics| statistics.messages_accepted);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = accepted.saturating_sub(self.accepted_messages) as f32;
        self.accepted_messages = accepted;
        let clients =
            statistics.map_or(0, |statistics| u32::try_from(statistics.clients_connected).unwrap_or(u32::MAX));
        let smooth = self.pulse.mqtt_messages_per_second.mul_add(0.8, rate * 0.2);
        let pulse = Pulse {
            mqtt_clients: clients,
            mqtt_messages_per_second: (smooth * 10.0).round() / 10.0,
            dashboards: u32::try_from(self.feed.dashboards()).unwrap_or(u32::MAX),
        };
        if pulse != self.pulse {
            self.pulse = pulse;
            self.feed.push(Change::Pulse { pulse });
        }
    }
}

async fn receive(events: &mut Option<mpsc::Receiver<BrokerEvent>>, batch: &mut Vec<BrokerEvent>) -> usize {
    match events {
        Some(events) => events.recv_many(batch, TURN).await,
        None => 0,
    }
}

/// Answers; whoever asked may have gone.
fn tell<T>(reply: Reply<T>, answer: T) {
    let _ = reply.send(Ok(answer));
}

/// Refuses; whoever asked may have gone.
fn refuse<T>(reply: Reply<T>, refused: Refused) {
    let _ = reply.send(Err(refused));
}

#[cfg(test)]
mod tests;
