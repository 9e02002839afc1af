//! The hub: one loop, one closed [`Event`], and all live state. Whoever wants something to change
//! sends an event; nobody else holds the state.
//!
//! It never waits for anything but the next event: what it publishes goes through an outbox, what
//! it stores comes back as an event, and whatever was promised to others (an answer, an
//! acknowledgement, a retained status) is kept in [`commits::Commits`] until it is on the disk.

mod accept;
mod agents;
mod announce;
pub mod ask;
mod attempts;
mod audit;
mod commits;
mod counters;
pub mod feed;
pub mod histogram;
mod history;
mod homeassistant;
mod joining;
mod lanes;
mod leftovers;
mod machines;
mod outbox;
mod pending;
pub(crate) mod people;
mod repeats;
mod republish;
mod requests;
mod runs;
mod schedule;
mod sessions;
mod standing;
mod start;
mod tags;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use pistat_broker::{BrokerEvent, BrokerHandle};
use pistat_protocol::{
    dashboard::{Change, EventKind, Severity},
    id::{PiId, RunId},
    order::{ControllerKey, JoinToken},
    topic::{Topic, Topics},
};
use pistat_support::notify::Notify;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Access, SecretHash},
    bridge::{Heard, HubEnd, INCOMING_BYTES, Outgoing},
    catalogue::Catalogue,
    config::{Config, Problem},
    fleet::{Fleet, Now},
    homeassistant::Announcer,
    own_address::OwnAddress,
    runs::Runs,
    store::{
        Stored,
        register::{RegisterWrite, Shelf},
    },
    terminal,
};
use ask::{Ask, Progress, Refused, Reply};
use feed::Feed;
pub(crate) use history::{FINDINGS, Finding, Recorder};
use lanes::{Lanes, Sender};
use outbox::{MOST_WAITING, Overflow};
use pending::{PendingAccess, PendingCommit, PendingReply};
pub(crate) use start::HubParts;

/// How many questions wait: more than the web server asks at a time, since each of its requests
/// waits for its answer.
pub(crate) const ASKS: usize = 256;

/// How many messages are taken from the broker in one turn, so that one commit can hold what they
/// ask to store.
const TURN: usize = 256;

/// How many received messages are handled at most, and for how long, before everything else is
/// looked at again. What is received meanwhile is sorted by its senders only then: while the
/// messages of one are expensive, those of others must not wait behind all of them.
const SLICE: usize = 64;
const SLICE_TIME: Duration = Duration::from_millis(5);

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
    /// The history has been looked at for a machine.
    Found(Finding),
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
    pub(crate) findings: mpsc::Receiver<Finding>,
    pub(crate) broker: Option<mpsc::Receiver<BrokerEvent>>,
    pub(crate) catalogue: mpsc::Receiver<Result<Catalogue, Vec<Problem>>>,
}

/// The hub. Each part owns its state; the loop is the only one that sees all of them.
pub(crate) struct Hub {
    config: Arc<Config>,
    topics: Topics,
    now: Now,
    // What is decided, by the pure parts.
    catalogue: Catalogue,
    fleet: Fleet,
    runs: Runs,
    schedules: schedule::Schedules,
    announcer: Announcer,
    /// Who exists. Every way in has this very value.
    access: Arc<Access>,
    access_watch: watch::Sender<Arc<Access>>,
    uses: sessions::UsesKept,
    attempts: attempts::Attempts,
    quota: joining::Quota,
    key: ControllerKey,
    join_token: JoinToken,
    controller_secret: SecretHash,
    // What comes in.
    /// What was received and is not handled yet.
    lanes: Lanes,
    agents: agents::Agents,
    refused_reports: runs::RefusedReports,
    // What goes out: at once, or after the commit.
    commits: commits::Commits,
    outbox: outbox::Outbox,
    feed: Feed,
    history: Recorder,
    audit: audit::Audit,
    followers: HashMap<RunId, watch::Sender<Progress>>,
    // What is repaired and counted.
    leftovers: leftovers::Leftovers,
    republish: republish::Republish,
    counters: counters::Counters,
    /// Of the newest id, so that ids never go back.
    last_id_milliseconds: u64,
    broker: Option<BrokerHandle>,
    /// Where the embedded broker listens.
    mqtt: Option<SocketAddr>,
    own_address: Arc<OwnAddress>,
}

impl Hub {
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
                Ok(permit) = inputs.bridge.looks.reserve(), if self.outbox.has_looks() => {
                    if let Some(look) = self.outbox.next_look() {
                        permit.send(look);
                    }
                    continue;
                }
                Ok(permit) = inputs.bridge.outgoing.reserve(), if self.outbox.has_messages() => {
                    self.publish_next(permit);
                    continue;
                }
                1.. = inputs.stored.recv_many(&mut stored, TURN) => Event::Stored(std::mem::take(&mut stored)),
                () = tokio::time::sleep_until(frame.unwrap_or_else(tokio::time::Instant::now)), if frame.is_some() => Event::Frame,
                Some(ask) = inputs.asks.recv() => Event::Ask(ask),
                Some(finding) = inputs.findings.recv() => Event::Found(finding),
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
            // Each turn shows that the loop goes round, and the tick makes one at least every
            // second: a hub that hangs is noticed.
            notify.alive(self.now.monotonic);
            self.handle(event);
            self.commit_turn();
            if self.outbox.has_given_up() {
                inputs.bridge.give_up.notify_one();
            }
        }
        self.say_goodbye();
        tokio::task::block_in_place(|| self.commits.close());
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Heard(batch) => self.received(batch),
            Event::Stored(batch) => self.all_stored(batch),
            Event::Ask(ask) => self.answer(ask),
            Event::Found(finding) => self.found(&finding),
            Event::Broker(batch) => batch.into_iter().for_each(|event| self.broker_event(event)),
            Event::Catalogue(result) => self.catalogue_changed(result),
            Event::Frame => self.feed.flush(self.now.wall),
            Event::Tick => self.tick(),
        }
    }

    /// The outbox is served one by one, so that the hub never waits for the broker.
    fn publish_next(&mut self, permit: mpsc::Permit<'_, Outgoing>) {
        if let Some(message) = self.outbox.next() {
            permit.send(message);
        }
    }

    fn say_goodbye(&mut self) {
        self.now = Now::get();
        for line in self.audit.rest(self.now.monotonic) {
            self.line(line);
        }
        self.event(EventKind::System, Severity::Info, None, None, None, "controller stopped".into());
        self.keep_uses();
        self.commit_turn();
    }

    /// Hands this turn's writes to the store, in one commit.
    fn commit_turn(&mut self) {
        while let Some(after) = self.commits.end_turn() {
            self.after_runs(after);
        }
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Join(caller, hidden, reply) => self.join(&caller, hidden, reply),
            Ask::Hide(reply) => tell(reply, self.feed.join(self.now.wall, true)),
            Ask::Machines(caller, reply) => tell(reply, self.machines(Some(caller.role))),
            Ask::Machine(caller, pi, reply) => self.tell_machine(&caller, &pi, reply),
            Ask::Target(target, reply) => self.tell_target(&target, reply),
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
        if is_notice && self.outbox.is_busy() {
            return;
        }
        let topic = self.topics.format(topic);
        self.send(Outgoing { topic, payload, qos, retain, correlation: None });
    }

    /// Publishes what a sender makes the controller say, as often as one sender may in a second.
    fn answer_to(&mut self, sender: Sender, message: Outgoing) {
        if self.outbox.may_answer(sender) {
            self.send(message);
        }
    }

    fn send(&mut self, message: Outgoing) {
        if self.outbox.push(message) == Err(Overflow) {
            let text =
                format!("more than {MOST_WAITING} messages waited for the broker: the connection to it is made anew");
            self.event(EventKind::System, Severity::Error, None, None, None, text);
        }
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
        let place = Shelf::of(line.kind);
        let event = self.audit.write(line, self.now.wall);
        self.publish(&Topic::ControllerEvent, pistat_protocol::codec::encode(&event), 1, false);
        self.feed.push(Change::Event { event: event.clone() });
        self.commits.write(RegisterWrite::Event(event, place));
    }

    /// As [`Hub::event`], for what others can make happen as often as they like. Tells whether a
    /// line was written now.
    fn repeated_event(&mut self, what: repeats::Repeated, source: String, line: repeats::Line) -> bool {
        let Some(line) = self.audit.first(what, source, line, self.now.monotonic) else { return false };
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
        self.outbox.tick();
        for line in self.audit.due(self.now.monotonic) {
            self.line(line);
        }
        for pi in self.republish.take_relabelled() {
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
        self.look_up_history();
        self.beat();
    }

    /// Once a second: numbers of the broker and the feed.
    fn beat(&mut self) {
        let statistics = self.broker.as_ref().map(BrokerHandle::statistics);
        if let Some(pulse) = self.counters.beat(statistics.as_ref(), self.feed.dashboards()) {
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
