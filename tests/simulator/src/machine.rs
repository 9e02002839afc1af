//! One simulated machine: its connection, its samples, its orders, and its mishaps.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use pistat_protocol::{
    codec::{decode, encode},
    id::RunId,
    order::{ExecuteOrder, VerifiedOrder},
    stats::Sample,
    status::{Info, Session, Settings, Watch},
    task::{Ack, Ends, RunState},
    topic::Topic,
};
use pistat_testkit::{
    Dice,
    credential::Credential,
    link::{AT_LEAST_ONCE, AT_MOST_ONCE, Link},
    packet::Message,
    payload,
    wire::WireError,
};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    ledger::{Counts, Happening},
    plan::Shared,
    run::Run,
    sample::Measurements,
};

/// How often what is not acknowledged is said again on a connection that stands.
const REPEAT: Duration = Duration::from_secs(10);

/// The longest wait between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(4);

/// How many samples a machine keeps while it is away.
const MAX_BACKFILL: u32 = 60;

/// How many of its past go in one message, and how soon another follows: as an agent paces what it
/// missed.
const BATCH: usize = 16;
const PACE: Duration = Duration::from_secs(10);

/// How often somebody who looks is shown a sample.
const WATCHED: Duration = Duration::from_secs(1);

/// Why a connection is over.
enum Over {
    Broken,
    Cut,
    Reboot,
    PowerOff,
    Stop,
}

impl From<WireError> for Over {
    fn from(_: WireError) -> Self {
        Self::Broken
    }
}

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self::Broken
    }
}

/// A message that is held back, so that the next one overtakes it.
type Held = (Topic, Vec<u8>, u8, bool);

/// A machine.
pub(crate) struct Machine {
    shared: Arc<Shared>,
    credential: Credential,
    dice: Dice,
    measurements: Measurements,
    boots: u64,
    session: Session,
    runs: BTreeMap<RunId, Run>,
    /// Runs that ended in this session: a replayed order starts nothing.
    finished: HashSet<RunId>,
    set_interval: Option<Duration>,
    watched_until: Option<Instant>,
    sample_at: Instant,
    repeat_at: Instant,
    mishap_at: Option<Instant>,
    away_since: Option<Instant>,
    is_slow: bool,
    held: Option<Held>,
    began: Instant,
    /// What is left to tell of the day before it began: how many seconds before that it was.
    past: VecDeque<u64>,
    past_at: Option<Instant>,
}

/// How many seconds ago each step of a day was, of which the last hour is in finer ones.
fn a_day() -> VecDeque<u64> {
    (12..288).rev().map(|step| 300 * step).chain((1..360).rev().map(|step| 10 * step)).collect()
}

impl Machine {
    pub(crate) fn new(shared: Arc<Shared>, credential: Credential, mut dice: Dice) -> Self {
        let measurements = Measurements::new(dice.clone());
        let now = Instant::now();
        Self {
            sample_at: now + dice.duration(shared.plan.interval),
            repeat_at: now + REPEAT,
            is_slow: dice.chance(shared.plan.churn.slow_share),
            session: Session::from_random([0; 16]),
            measurements,
            credential,
            boots: 1,
            runs: BTreeMap::new(),
            finished: HashSet::new(),
            set_interval: None,
            watched_until: None,
            mishap_at: None,
            away_since: None,
            held: None,
            began: now,
            past_at: shared.plan.has_a_past.then(|| now + dice.duration(PACE)),
            past: if shared.plan.has_a_past { a_day() } else { VecDeque::new() },
            shared,
            dice,
        }
    }

    /// Lives until it is asked to stop.
    pub(crate) async fn live(mut self, stop: CancellationToken) {
        let first = self.dice.duration(self.shared.plan.ramp);
        let mut wait = first;
        let mut failures = 0_u32;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
            let over = self.connected(&stop).await.unwrap_or_else(|over| over);
            self.held = None;
            wait = match over {
                Over::Stop => return,
                Over::Broken => {
                    failures = failures.saturating_add(1);
                    let most = Duration::from_millis(100).saturating_mul(1 << failures.min(6)).min(MAX_BACKOFF);
                    most / 2 + self.dice.duration(most / 2)
                }
                Over::Cut => self.dice.duration(Duration::from_secs(2)),
                Over::Reboot => self.reboot(Duration::from_secs(1)),
                Over::PowerOff => self.reboot(Duration::from_secs(30)),
            };
            if self.away_since.is_some_and(|since| since.elapsed() < Duration::from_millis(50)) {
                failures = 0;
            }
        }
    }

    fn reboot(&mut self, least: Duration) -> Duration {
        Counts::add(&self.shared.counts.reboots);
        self.boots += 1;
        self.measurements.reboot();
        self.finished.clear();
        for run in self.runs.values_mut() {
            run.rebooted();
        }
        least + self.dice.duration(Duration::from_secs(3))
    }

    async fn connected(&mut self, stop: &CancellationToken) -> Result<Over, Over> {
        let plan = &self.shared.plan;
        let mut link = Link::connect(plan.address, &plan.topics, &self.credential).await?;
        Counts::add(&self.shared.counts.connections);
        Counts::add(&self.shared.counts.connected);
        let over = self.session(&mut link, stop).await;
        Counts::take(&self.shared.counts.connected);
        if !matches!(over, Ok(Over::Stop)) {
            Counts::add(&self.shared.counts.breaks);
        }
        self.away_since = Some(Instant::now());
        over
    }

    async fn session(&mut self, link: &mut Link, stop: &CancellationToken) -> Result<Over, Over> {
        self.session = Session::from_random(self.random());
        self.finished.clear();
        link.introduce(&self.info());
        self.backfill(link);
        self.repeat(link);
        self.plan_mishap();
        loop {
            self.flush(link).await?;
            let due = self.due(link);
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.farewell(link).await,
                message = link.next() => self.received(link, message?).await,
                () = sleep_until(due) => if let Some(over) = self.act(link).await {
                    return Ok(over);
                },
            }
        }
    }

    async fn farewell(&mut self, link: &mut Link) -> Result<Over, Over> {
        self.say(link, Topic::Status(self.credential.pi.clone()), b"offline".to_vec(), AT_LEAST_ONCE, true);
        self.flush(link).await?;
        Ok(Over::Stop)
    }

    /// A slow link lets everybody wait.
    async fn flush(&mut self, link: &mut Link) -> Result<(), Over> {
        if let Some((topic, payload, qos, retain)) = self.held.take() {
            link.publish(&topic, payload, qos, retain);
        }
        if self.is_slow && self.shared.is_rough() {
            sleep(self.dice.duration(Duration::from_millis(300))).await;
        }
        Ok(link.flush().await?)
    }

    fn due(&self, link: &Link) -> Instant {
        let ends = self.runs.values().filter_map(Run::due);
        let times =
            ends.chain(self.mishap_at).chain(self.past_at).chain([self.sample_at, self.repeat_at, link.ping_at()]);
        times.min().unwrap_or(self.sample_at)
    }

    async fn act(&mut self, link: &mut Link) -> Option<Over> {
        let now = Instant::now();
        if self.mishap_at.is_some_and(|at| at <= now) {
            self.plan_mishap();
            if self.shared.is_rough() {
                let is_reboot = self.dice.chance(self.shared.plan.churn.reboot_share);
                return Some(if is_reboot { Over::Reboot } else { Over::Cut });
            }
        }
        if let Some(over) = self.end_runs(link, now).await {
            return Some(over);
        }
        if self.sample_at <= now {
            self.sample(link, now);
        }
        if self.repeat_at <= now {
            self.repeat(link);
        }
        if self.past_at.is_some_and(|at| at <= now) {
            self.tell_past(link, now);
        }
        if link.ping_at() <= now {
            link.ping();
        }
        None
    }

    fn plan_mishap(&mut self) {
        self.mishap_at = self.shared.plan.churn.mean_between.map(|mean| Instant::now() + self.dice.wait(mean));
    }

    // --- samples ---------------------------------------------------------------------------------

    fn interval(&self, now: Instant) -> Duration {
        let own = self.set_interval.unwrap_or(self.shared.plan.interval);
        if self.watched_until.is_some_and(|until| until > now) { own.min(WATCHED) } else { own }
    }

    fn sample(&mut self, link: &mut Link, now: Instant) {
        let interval = self.interval(now);
        self.sample_at += interval;
        if self.sample_at <= now {
            // What was missed while this process was busy is not made up for in a burst.
            self.sample_at = now + interval;
        }
        let mut sample = self.measurements.at(SystemTime::now());
        if let Some(epoch) = self.shared.plan.marks_since {
            sample.disk_read_bytes_per_second = u64::try_from(epoch.elapsed().as_micros()).ok();
        }
        Counts::add(&self.shared.counts.samples);
        self.say(link, Topic::Stats(self.credential.pi.clone()), encode(&sample), AT_MOST_ONCE, true);
    }

    /// The samples that were measured while the machine was away.
    fn backfill(&mut self, link: &mut Link) {
        let interval = self.interval(Instant::now());
        let Some(away) = self.away_since.take().map(|since| since.elapsed()) else { return };
        let missed =
            u32::try_from(away.as_millis() / interval.as_millis().max(1)).unwrap_or(u32::MAX).min(MAX_BACKFILL);
        if missed == 0 {
            return;
        }
        let now = SystemTime::now();
        let samples: Vec<Sample> = (1..=missed).rev().map(|back| self.measurements.at(now - interval * back)).collect();
        self.say(link, Topic::Backfill(self.credential.pi.clone()), encode(&samples), AT_LEAST_ONCE, false);
    }

    /// Some more of the day before it began.
    fn tell_past(&mut self, link: &mut Link, now: Instant) {
        let ages: Vec<u64> = self.past.drain(..BATCH.min(self.past.len())).collect();
        self.past_at = (!self.past.is_empty()).then(|| now + PACE);
        let begin = SystemTime::now().checked_sub(now.duration_since(self.began)).unwrap_or_else(SystemTime::now);
        let then = |age: &u64| self.measurements.at(begin - Duration::from_secs(*age));
        let samples: Vec<Sample> = ages.iter().map(then).collect();
        self.say(link, Topic::Backfill(self.credential.pi.clone()), encode(&samples), AT_LEAST_ONCE, false);
    }

    // --- what it publishes -----------------------------------------------------------------------

    fn info(&self) -> Info {
        Info {
            label: Some(format!("Simulated {}", self.credential.pi)),
            model: Some("Raspberry Pi 4 Model B Rev 1.4".into()),
            os: Some("Debian GNU/Linux 12 (bookworm)".into()),
            kernel: Some("6.6.51+rpt-rpi-v8".into()),
            arch: Some("aarch64".into()),
            boot_id: self.boot_id(),
            session: self.session.clone(),
            runner: true,
            interval_seconds: self.set_interval.unwrap_or(self.shared.plan.interval).as_secs_f64(),
            capabilities: self.measurements.capabilities(),
            known_runs: self.runs.keys().copied().collect(),
            ..payload::info()
        }
    }

    fn boot_id(&self) -> String {
        format!("{}-boot-{}", self.credential.pi, self.boots)
    }

    /// Says something; where the plan wants it, twice, or after the next message.
    fn say(&mut self, link: &mut Link, topic: Topic, payload: Vec<u8>, qos: u8, retain: bool) {
        let churn = self.shared.plan.churn;
        if self.shared.is_rough() {
            if qos == AT_LEAST_ONCE && self.dice.chance(churn.duplicate_share) {
                link.publish(&topic, payload.clone(), qos, retain);
            }
            if self.held.is_none() && !retain && self.dice.chance(churn.reorder_share) {
                self.held = Some((topic, payload, qos, retain));
                return;
            }
        }
        link.publish(&topic, payload, qos, retain);
    }

    /// Everything that the controller has not acknowledged.
    fn repeat(&mut self, link: &mut Link) {
        self.repeat_at = Instant::now() + REPEAT;
        let pi = &self.credential.pi;
        let mut said = Vec::new();
        for (id, run) in &self.runs {
            said.extend(run.chunks().map(|chunk| (Topic::Output(pi.clone(), *id), encode(chunk))));
            said.push((Topic::Report(pi.clone(), *id), encode(&run.report())));
        }
        for (topic, payload) in said {
            self.say(link, topic, payload, AT_LEAST_ONCE, false);
        }
    }

    /// The newest piece of output, and where the run stands.
    fn tell(&mut self, link: &mut Link, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let pi = self.credential.pi.clone();
        let chunk = run.newest_chunk().map(encode);
        let report = encode(&run.report());
        let last = run.state().is_final().then(|| encode(&run.last_chunk()));
        if let Some(chunk) = chunk {
            self.say(link, Topic::Output(pi.clone(), id), chunk, AT_LEAST_ONCE, false);
        }
        self.say(link, Topic::Report(pi.clone(), id), report, AT_LEAST_ONCE, false);
        if let Some(last) = last {
            self.say(link, Topic::Output(pi, id), last, AT_LEAST_ONCE, true);
        }
    }

    // --- what it receives ------------------------------------------------------------------------

    async fn received(&mut self, link: &mut Link, message: Message) {
        let Some(topic) = self.shared.plan.topics.parse(&message.topic) else { return };
        match topic {
            Topic::Execute(_, run) | Topic::Cancel(_, run) if !message.payload.is_empty() => {
                self.order(link, run, &message.payload, message.retain).await;
            }
            Topic::Ack(_, run) => self.acknowledged(run, &message.payload),
            Topic::Settings(_) => self.settings(&message.payload),
            Topic::Watch(_) => self.watch(&message.payload),
            Topic::Status(pi) if pi == self.credential.pi && message.payload == b"offline" => {
                self.say(link, Topic::Status(pi), b"online".to_vec(), AT_LEAST_ONCE, true);
            }
            Topic::Status(pi) if pi.is_controller() && !message.retain && message.payload == b"online" => {
                link.introduce(&self.info());
                self.repeat(link);
            }
            _ => {}
        }
    }

    fn acknowledged(&mut self, id: RunId, payload: &[u8]) {
        let Ok(ack) = decode::<Ack>(payload) else { return };
        if self.runs.get_mut(&id).is_some_and(|run| run.acknowledge(ack)) {
            self.runs.remove(&id);
            self.finished.insert(id);
            Counts::add(&self.shared.counts.settled);
        }
    }

    fn settings(&mut self, payload: &[u8]) {
        let settings = if payload.is_empty() { Some(Settings::default()) } else { decode(payload).ok() };
        if let Some(settings) = settings {
            self.set_interval =
                settings.interval_seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.2, 3600.0)));
        }
    }

    fn watch(&mut self, payload: &[u8]) {
        if let Ok(watch) = decode::<Watch>(payload) {
            let now = Instant::now();
            self.watched_until = Some(now + Duration::from_secs(watch.seconds.into()));
            self.sample_at = self.sample_at.min(now + WATCHED);
        }
    }

    async fn order(&mut self, link: &mut Link, id: RunId, payload: &[u8], retain: bool) {
        if retain {
            return self.refuse("it was delivered with the retain flag").await;
        }
        let (pi, session) = (self.credential.pi.clone(), self.session.clone());
        match self.credential.key.verify(payload) {
            Ok(VerifiedOrder::Execute(order)) => match order.accept(&pi, &session, id) {
                Ok(order) => self.execute(link, order.into_inner()).await,
                Err(error) => self.refuse(&error.to_string()).await,
            },
            Ok(VerifiedOrder::Cancel(order)) => match order.accept(&pi, &session, id) {
                Ok(order) => self.cancel(link, order.get().run).await,
                Err(error) => self.refuse(&error.to_string()).await,
            },
            Ok(VerifiedOrder::Enroll(_)) => self.refuse("it is not an order for a run").await,
            Err(error) => self.refuse(&error.to_string()).await,
        }
    }

    async fn note(&self, happening: Happening) {
        // The ledger lives as long as any machine.
        let _ = self.shared.ledger.send(happening).await;
    }

    async fn refuse(&self, sentence: &str) {
        self.note(Happening::Refused { sentence: sentence.into() }).await;
    }

    async fn execute(&mut self, link: &mut Link, order: ExecuteOrder) {
        let id = order.run;
        if self.runs.contains_key(&id) {
            self.note(Happening::Repeated { run: id }).await;
            return self.tell(link, id);
        }
        if self.finished.contains(&id) {
            return self.refuse("its run has ended already: it is a replay").await;
        }
        let pi = self.credential.pi.clone();
        let task = order.task.clone();
        self.note(Happening::Started { pi: pi.clone(), run: id, task: task.clone(), argv: order.argv }).await;
        Counts::add(&self.shared.counts.starts);
        let due = Instant::now() + self.dice.duration(self.shared.plan.longest_run);
        self.runs.insert(id, Run::started(&pi, &task, order.ends, &self.boot_id(), due));
        self.tell(link, id);
    }

    async fn cancel(&mut self, link: &mut Link, id: RunId) {
        let boot_id = self.boot_id();
        let run = self
            .runs
            .entry(id)
            .or_insert_with(|| Run::never(&boot_id, RunState::Cancelled, "cancelled before it was started"));
        if !run.state().is_final() {
            run.end(RunState::Cancelled, None, None);
            self.ended(id).await;
        }
        self.tell(link, id);
    }

    /// Ends what is due; a run that restarts the machine does so.
    async fn end_runs(&mut self, link: &mut Link, now: Instant) -> Option<Over> {
        let due: Vec<RunId> =
            self.runs.iter().filter(|(_, run)| run.due().is_some_and(|due| due <= now)).map(|(id, _)| *id).collect();
        for id in due {
            let fails = self.dice.chance(self.shared.plan.failing_share);
            let Some(run) = self.runs.get_mut(&id) else { continue };
            match run.ends() {
                Ends::Restart => return Some(Over::Reboot),
                Ends::PowerOff => return Some(Over::PowerOff),
                Ends::Exit => {}
            }
            run.print(format!("{} is done with it\n", self.credential.pi));
            let (state, code) = if fails { (RunState::Failed, 1) } else { (RunState::Succeeded, 0) };
            run.end(state, Some(code), None);
            self.ended(id).await;
            self.tell(link, id);
        }
        None
    }

    async fn ended(&self, id: RunId) {
        Counts::add(&self.shared.counts.ends);
        if let Some(run) = self.runs.get(&id) {
            self.note(Happening::Ended { run: id, state: run.state() }).await;
        }
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bits = [0; N];
        for byte in &mut bits {
            *byte = u8::try_from(self.dice.below(256)).unwrap_or(0);
        }
        bits
    }
}
