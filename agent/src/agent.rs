//! The agent's one loop, which owns all of its state: it hears, measures, publishes, and looks after its runs.

use std::{collections::VecDeque, io, time::Duration};

use bytes::Bytes;
use pistat_protocol::{
    codec::{decode, encode},
    id::RunId,
    stats::Sample,
    status::{Availability, Info, Session, Settings},
    task::Ack,
    topic::Topic,
};
use tokio::{signal::unix, sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    AgentError, AgentOptions, Incoming, Outgoing,
    backlog::Backlog,
    cadence::Cadence,
    facts::{self, Facts, Slow},
    stats::{Clock, Sampler},
    task::{self, Runs},
};

/// The counters' first readings need a moment before a share can be told.
const FIRST_SAMPLE: Duration = Duration::from_millis(300);

/// The slow facts cost a little: not while everything starts.
const FIRST_FACTS: Duration = Duration::from_secs(15);

/// Refused orders are told in `info`, but nobody can make us publish more often than this by sending rubbish.
const REFUSALS_TOLD: Duration = Duration::from_secs(10);

/// An unpaced return of a whole fleet would meet a controller that is just starting.
const BACKFILL_DELAY: Duration = Duration::from_secs(3);

/// The last messages get so long to leave a connection that hangs.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a background look-up found.
enum Found {
    Slow(Box<Slow>),
    Clock(Option<String>),
}

/// The agent.
pub(crate) struct Agent {
    options: AgentOptions,
    outgoing: mpsc::Sender<Outgoing>,
    /// What waits for room in `outgoing`; samples in it are replaced by newer ones.
    outbox: VecDeque<Outgoing>,
    session: Option<Session>,
    /// The session has not been told yet: runs speak only afterwards.
    greeting: bool,
    sampler: Sampler,
    capabilities: Vec<String>,
    cadence: Cadence,
    clock: Clock,
    facts: Facts,
    facts_at: Instant,
    looking_up: JoinSet<Found>,
    backlog: Backlog,
    runs: Runs,
    refusals_told: u64,
    info_at: Option<Instant>,
}

impl Agent {
    /// An agent that has read its folder and settled what it found there.
    pub(crate) fn start(options: AgentOptions, outgoing: mpsc::Sender<Outgoing>) -> Result<Self, AgentError> {
        task::adopt_orphans();
        let facts = Facts::read(&options.root);
        let runs = Runs::load(&options, facts.boot_id.clone(), outgoing.clone());
        let runs = runs.map_err(|source| AgentError::Runs { path: options.runs.clone(), source })?;
        let now = Instant::now();
        Ok(Self {
            outgoing,
            outbox: VecDeque::new(),
            session: None,
            greeting: false,
            sampler: Sampler::new(&options.root),
            capabilities: Vec::new(),
            cadence: Cadence::new(options.interval, now + FIRST_SAMPLE),
            clock: Clock::new(&options.root),
            facts,
            facts_at: now + FIRST_FACTS,
            looking_up: JoinSet::new(),
            backlog: Backlog::new(options.backlog_samples),
            runs,
            refusals_told: 0,
            info_at: None,
            options,
        })
    }

    /// Runs until it is asked to stop.
    pub(crate) async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Incoming>,
        stop: CancellationToken,
    ) -> Result<(), AgentError> {
        let mut children = unix::signal(unix::SignalKind::child()).map_err(|source| self.runs_error(source))?;
        let outgoing = self.outgoing.clone();
        loop {
            let wake = self.wakes_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                heard = incoming.recv() => match heard {
                    Some(heard) => self.hear(heard),
                    None => return Err(self.connection_gone().await),
                },
                permit = outgoing.reserve(), if !self.outbox.is_empty() => self.send(permit.ok()),
                () = tokio::time::sleep_until(wake) => self.wake().await,
                () = self.runs.settled() => {}
                Some(found) = self.looking_up.join_next() => if let Ok(found) = found { self.learn(found) },
                _ = children.recv() => task::reap_orphans(),
            }
        }
        self.stop().await;
        Ok(())
    }

    fn runs_error(&self, source: io::Error) -> AgentError {
        AgentError::Runs { path: self.options.runs.clone(), source }
    }

    async fn connection_gone(&mut self) -> AgentError {
        self.runs.stop().await;
        AgentError::ConnectionGone
    }

    // --- hearing

    fn hear(&mut self, heard: Incoming) {
        match heard {
            Incoming::Connected => self.connected(),
            Incoming::Disconnected => self.disconnected(),
            Incoming::Message { topic, payload, retain } => self.message(topic, &payload, retain),
        }
    }

    /// A new session, told before `online`; then everything that is not acknowledged.
    fn connected(&mut self) {
        let mut bits = [0; 16];
        if let Err(error) = getrandom::fill(&mut bits) {
            // Without a session no order is accepted: the machine is seen and runs nothing.
            tracing::error!(%error, "no random session could be made; tasks are refused until the next connection");
        } else {
            self.session = Some(Session::from_random(bits));
        }
        self.outbox.clear();
        self.publish_info();
        self.publish_status(Availability::Online);
        let now = Instant::now();
        self.cadence.now(now + FIRST_SAMPLE);
        self.backlog.connected(now, BACKFILL_DELAY);
        self.greeting = true;
    }

    fn disconnected(&mut self) {
        self.session = None;
        self.greeting = false;
        self.outbox.clear();
        self.backlog.disconnected();
        self.runs.disconnected();
    }

    fn message(&mut self, topic: Topic, payload: &Bytes, retain: bool) {
        match topic {
            Topic::Execute(pi, run) | Topic::Cancel(pi, run) if pi == self.options.pi => {
                self.order(run, payload, retain);
            }
            Topic::Ack(pi, run) if pi == self.options.pi && !retain => self.acknowledged(run, payload),
            Topic::Settings(pi) if pi == self.options.pi => self.settings(payload),
            Topic::Watch(pi) if pi == self.options.pi && !retain => self.watch(payload),
            Topic::Status(pi) if pi == self.options.pi => self.own_status(payload),
            Topic::Status(pi) if pi.is_controller() => self.controller_status(payload, retain),
            other => tracing::debug!(?other, "not for this agent"),
        }
    }

    fn order(&mut self, run: RunId, payload: &[u8], retain: bool) {
        // An empty retained message is how somebody clears a retained order.
        if !payload.is_empty() {
            self.runs.order(run, payload, retain, self.session.as_ref());
        }
    }

    fn acknowledged(&mut self, run: RunId, payload: &[u8]) {
        match decode::<Ack>(payload) {
            Ok(ack) => self.runs.acknowledge(run, ack),
            Err(error) => tracing::warn!(%run, %error, "an acknowledgement was not understood"),
        }
    }

    fn settings(&mut self, payload: &[u8]) {
        // An empty retained message means that nothing is set.
        let settings = if payload.is_empty() { Ok(Settings::default()) } else { decode(payload) };
        match settings {
            Ok(settings) if self.cadence.set(settings, Instant::now()) => {
                tracing::info!(interval = ?self.cadence.interval(), "the interval has changed");
                self.publish_info();
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the settings were not understood"),
        }
    }

    fn watch(&mut self, payload: &[u8]) {
        match decode(payload) {
            Ok(watch) => self.cadence.watch(watch, Instant::now()),
            Err(error) => tracing::warn!(%error, "a watch was not understood"),
        }
    }

    /// The will of an earlier session may come after this one's birth.
    fn own_status(&mut self, payload: &[u8]) {
        if self.session.is_some() && Availability::from_payload(payload) == Some(Availability::Offline) {
            self.publish_status(Availability::Online);
        }
    }

    /// A controller that comes back while this connection stands (an external broker) may have missed what was sent meanwhile.
    fn controller_status(&mut self, payload: &[u8], retain: bool) {
        if !retain && Availability::from_payload(payload) == Some(Availability::Online) {
            self.runs.repeat();
        }
    }

    // --- measuring

    fn wakes_at(&self) -> Instant {
        let refusals =
            self.wants_to_tell_refusals().then(|| self.info_at.map_or_else(Instant::now, |at| at + REFUSALS_TOLD));
        let others = [self.backlog.next_at(), refusals].into_iter().flatten();
        others.fold(self.cadence.next().min(self.facts_at), Instant::min)
    }

    async fn wake(&mut self) {
        let now = Instant::now();
        if self.cadence.next() <= now {
            self.cadence.taken(now);
            self.sample().await;
        }
        if self.facts_at <= now {
            self.facts_at = now + facts::PERIOD;
            let (root, before) = (self.options.root.clone(), self.facts.slow.clone());
            self.looking_up.spawn(async move { Found::Slow(Box::new(Slow::look_up(root, before).await)) });
        }
        if self.wants_to_tell_refusals() && self.info_at.is_none_or(|at| at + REFUSALS_TOLD <= now) {
            self.publish_info();
        }
        if let Some(payload) = self.backlog.next(now) {
            self.publish(Topic::Backfill(self.options.pi.clone()), payload, 1, false);
        }
    }

    async fn sample(&mut self) {
        if let Some(question) = self.clock.question(std::time::Instant::now()) {
            self.looking_up.spawn(async move { Found::Clock(question.ask().await) });
        }
        let sample = self.sampler.sample(self.clock.is_synchronized()).await;
        let news = self.learn_from(&sample);
        if self.session.is_none() {
            self.backlog.keep(&sample, Instant::now());
            return;
        }
        if news {
            self.publish_info();
        }
        self.publish(Topic::Stats(self.options.pi.clone()), encode(&sample), 0, true);
    }

    /// What a sample tells besides its values. Returns whether that was news.
    fn learn_from(&mut self, sample: &Sample) -> bool {
        let mut news = self.facts.fix_boot_time(sample.clock_synchronized, sample.uptime_seconds);
        // The second sample is the first with rates; later ones that miss something for once change nothing.
        if self.capabilities.is_empty() && sample.seq > 0 {
            self.capabilities = Sampler::capabilities(sample);
            news = true;
        }
        news
    }

    fn learn(&mut self, found: Found) {
        match found {
            Found::Slow(slow) if *slow != self.facts.slow => {
                self.facts.slow = *slow;
                self.publish_info();
            }
            Found::Slow(_) => {}
            Found::Clock(answer) => self.clock.answer(answer.as_deref().unwrap_or_default()),
        }
    }

    fn wants_to_tell_refusals(&self) -> bool {
        self.session.is_some() && self.runs.refused().0 > self.refusals_told
    }

    // --- publishing

    fn publish_info(&mut self) {
        let Some(session) = self.session.clone() else { return };
        let (refused, last_refusal) = self.runs.refused();
        let mut info = Info {
            label: self.options.label.clone(),
            model: None,
            serial: None,
            os: None,
            kernel: None,
            arch: None,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.facts.boot_id.clone(),
            boot_time: None,
            session,
            execution_policy: self.options.policy.name(),
            runner: self.runs.has_runner(),
            interval_seconds: self.cadence.interval().as_secs_f64(),
            capabilities: self.capabilities.clone(),
            known_runs: self.runs.known(),
            storage_wear_percent: None,
            updates_pending: None,
            reboot_required: None,
            failed_units: None,
            orders_refused: Some(refused).filter(|count| *count > 0),
            last_order_refused: last_refusal.map(str::to_owned),
        };
        self.facts.fill(&mut info);
        self.refusals_told = refused;
        self.info_at = Some(Instant::now());
        self.publish(Topic::Info(self.options.pi.clone()), encode(&info), 1, true);
    }

    fn publish_status(&mut self, status: Availability) {
        if self.options.publishes_status {
            let topic = Topic::Status(self.options.pi.clone());
            self.publish(topic, status.as_str().into(), 1, true);
        }
    }

    fn publish(&mut self, topic: Topic, payload: Vec<u8>, qos: u8, retain: bool) {
        let next = Outgoing { topic, payload, qos, retain };
        // Of what is retained only the newest counts: it takes the place of an older one that still waits.
        match self.outbox.iter_mut().find(|waiting| retain && waiting.topic == next.topic) {
            Some(waiting) => *waiting = next,
            None => self.outbox.push_back(next),
        }
    }

    fn send(&mut self, permit: Option<mpsc::Permit<'_, Outgoing>>) {
        if let (Some(permit), Some(next)) = (permit, self.outbox.pop_front()) {
            permit.send(next);
        }
        if self.outbox.is_empty() && std::mem::take(&mut self.greeting) {
            self.runs.connected();
        }
    }

    // --- the end

    async fn stop(mut self) {
        self.runs.stop().await;
        if self.session.is_some() {
            self.publish_status(Availability::Offline);
        }
        let all = async {
            while let Some(next) = self.outbox.pop_front() {
                if self.outgoing.send(next).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(LAST_WORDS, all).await.is_err() {
            tracing::warn!("the connection hangs: the last messages were not sent");
        }
    }
}
