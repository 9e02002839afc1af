//! The agent's one loop, which owns all of its state: it hears, measures, publishes, and looks
//! after its runs.

mod hearing;
mod publishing;

use std::{collections::VecDeque, io, time::Duration};

use pistat_protocol::{
    codec::encode,
    stats::Sample,
    status::{Availability, Session},
    topic::Topic,
};
use tokio::{signal::unix, sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    AgentError, AgentOptions, Incoming, Outgoing,
    backlog::Backlog,
    cadence::Cadence,
    facts::{self, Facts, Slow},
    memory::Memory,
    stats::{Clock, Sampler},
    task::{self, Asked, Runs},
};

/// The counters' first readings need a moment before a share can be told.
const FIRST_SAMPLE: Duration = Duration::from_millis(300);

/// The slow facts cost a little: not while everything starts.
const FIRST_FACTS: Duration = Duration::from_secs(15);

/// Refused orders are told in `info`, but nobody can make us publish more often than this by
/// sending rubbish.
const REFUSALS_TOLD: Duration = Duration::from_secs(10);

/// An unpaced return of a whole fleet would meet a controller that is just starting.
const BACKFILL_DELAY: Duration = Duration::from_secs(3);

/// The last messages get so long to leave a connection that hangs.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a background look-up found.
enum Found {
    Slow(Box<Slow>),
    Clock(Option<String>),
    /// What the root runner said when it was asked for a session, for the question of this number.
    Session(u64, Asked),
}

/// The agent.
pub(crate) struct Agent {
    options: AgentOptions,
    outgoing: mpsc::Sender<Outgoing>,
    /// What waits for room in `outgoing`; samples in it are replaced by newer ones.
    outbox: VecDeque<Outgoing>,
    session: Option<Session>,
    /// Counts what was asked of the root runner: only the answer to the last question counts, and
    /// none once the connection is gone.
    session_asked: u64,
    /// The session has not been told yet: runs speak only afterwards.
    greeting: bool,
    sampler: Sampler,
    capabilities: Vec<String>,
    cadence: Cadence,
    /// When the loop has to have gone round again.
    alive_at: Option<Instant>,
    clock: Clock,
    facts: Facts,
    facts_at: Instant,
    looking_up_facts: bool,
    looking_up: JoinSet<Found>,
    backlog: Backlog,
    memory: Memory,
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
            session_asked: 0,
            greeting: false,
            sampler: Sampler::new(&options.root, std::time::Instant::now()),
            capabilities: Vec::new(),
            cadence: Cadence::new(options.interval, now + FIRST_SAMPLE),
            alive_at: None,
            clock: Clock::new(&options.root),
            facts,
            facts_at: now + FIRST_FACTS,
            looking_up_facts: false,
            looking_up: JoinSet::new(),
            backlog: Backlog::new(options.backlog_samples),
            memory: Memory::default(),
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
            self.tell_alive();
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

    fn wakes_at(&self) -> Instant {
        let refusals =
            self.wants_to_tell_refusals().then(|| self.info_at.map_or_else(Instant::now, |at| at + REFUSALS_TOLD));
        let others = [self.backlog.next_at(), self.memory.next_at(), refusals, self.alive_at].into_iter().flatten();
        others.fold(self.cadence.next().min(self.facts_at), Instant::min)
    }

    /// The loop itself says that it goes round, and goes round for that at least so often: one that
    /// waits for ever in one of its turns falls silent.
    fn tell_alive(&mut self) {
        let (Some(notify), now) = (&self.options.notify, Instant::now()) else { return };
        if self.alive_at.is_none_or(|at| at <= now) {
            self.alive_at = notify.alive_period().map(|period| now + period);
            notify.tell_alive();
        }
    }

    async fn wake(&mut self) {
        let now = Instant::now();
        if self.cadence.next() <= now {
            self.cadence.taken(now);
            self.sample().await;
        }
        if self.facts_at <= now {
            self.facts_at = now + facts::PERIOD;
            self.look_up_slow_facts();
        }
        if self.wants_to_tell_refusals() && self.info_at.is_none_or(|at| at + REFUSALS_TOLD <= now) {
            self.publish_info();
        }
        if let Some(payload) = self.backlog.next(now) {
            self.publish(Topic::Backfill(self.options.pi.clone()), payload, 1, false);
        }
        if let Some(payload) = self.memory.next(now) {
            self.publish(Topic::Backfill(self.options.pi.clone()), payload, 1, false);
        }
    }

    /// While an earlier look-up hangs on a disk there is no other.
    fn look_up_slow_facts(&mut self) {
        if !std::mem::replace(&mut self.looking_up_facts, true) {
            let (root, before) = (self.options.root.clone(), self.facts.slow.clone());
            self.looking_up.spawn(async move { Found::Slow(Box::new(Slow::look_up(root, before).await)) });
        }
    }

    async fn sample(&mut self) {
        if let Some(question) = self.clock.question(std::time::Instant::now()) {
            self.looking_up.spawn(async move { Found::Clock(question.run().await) });
        }
        let (wall, now) = (std::time::SystemTime::now(), std::time::Instant::now());
        let sample = self.sampler.sample(wall, now, self.clock.is_synchronized()).await;
        let news = self.learn_from(&sample);
        self.memory.keep(&sample, Instant::now());
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
        // The second sample is the first with rates; later ones that miss something for once change
        // nothing.
        if self.capabilities.is_empty() && sample.seq > 0 {
            self.capabilities = Sampler::capabilities(sample);
            news = true;
        }
        news
    }

    fn learn(&mut self, found: Found) {
        match found {
            Found::Slow(slow) => {
                self.looking_up_facts = false;
                if std::mem::replace(&mut self.facts.slow, *slow.clone()) != *slow {
                    self.publish_info();
                }
            }
            Found::Session(asked, answer) => self.session_found(asked, answer),
            Found::Clock(answer) => self.clock.answer(answer.as_deref().unwrap_or_default()),
        }
    }

    fn wants_to_tell_refusals(&self) -> bool {
        self.session.is_some() && self.runs.refused().0 > self.refusals_told
    }

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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use pistat_protocol::order::ControllerKey;
    use pistat_support::notify::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn systemd_hears_of_a_loop_that_goes_round_and_nothing_of_one_that_is_stuck() {
        const WATCHDOG: Duration = Duration::from_secs(60);
        let folder = tempfile::tempdir().unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let notify = Notify::counting(WATCHDOG, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let told = || count.swap(0, Ordering::Relaxed);
        let key = ControllerKey::from_secret(&[7; 32]).public();
        let mut options = AgentOptions::new("pi-1".parse().unwrap(), folder.path().join("runs"), key);
        // Neither samples nor anything else makes the loop go round.
        options.root = folder.path().to_owned();
        options.interval = Duration::from_secs(3600);
        options.notify = Some(Arc::new(notify));
        let (say, _said) = mpsc::channel(8);
        let (_hear, heard) = mpsc::channel(8);
        let agent = Agent::start(options, say).unwrap();
        let mut running = Box::pin(agent.run(heard, CancellationToken::new()));
        for _ in 0..10 {
            tokio::select! {
                _ = &mut running => panic!("it ends only when it is asked to"),
                () = tokio::time::sleep(WATCHDOG) => {}
            }
            assert!(told() > 0, "within each of systemd's minutes");
        }
        // From here on it is as if it waited in one of its turns for ever, while the rest of the
        // program goes on.
        tokio::time::sleep(10 * WATCHDOG).await;
        assert_eq!(told(), 0);
    }
}
