//! When to sample: the agent's own interval, the controller's setting, and once a second while
//! somebody looks. Pure.

use std::time::Duration;

use pistat_protocol::status::{INTERVAL_SECONDS, MAX_WATCH_SECONDS, Settings, Watch};
use tokio::time::Instant;

/// The cadence while somebody looks.
const WATCHED: Duration = Duration::from_secs(1);

/// When to sample.
#[derive(Debug)]
pub(crate) struct Cadence {
    own: Duration,
    set: Option<Duration>,
    watched_until: Option<Instant>,
    next: Instant,
}

/// The nearest interval that an agent keeps.
pub(crate) fn clamp(seconds: f64) -> Duration {
    let seconds = if seconds.is_finite() { seconds } else { *INTERVAL_SECONDS.end() };
    Duration::from_secs_f64(seconds.clamp(*INTERVAL_SECONDS.start(), *INTERVAL_SECONDS.end()))
}

impl Cadence {
    /// A cadence whose first sample is due at `first`.
    pub(crate) fn new(own: Duration, first: Instant) -> Self {
        Self { own: clamp(own.as_secs_f64()), set: None, watched_until: None, next: first }
    }

    /// The interval in force, apart from anybody's looking.
    pub(crate) fn interval(&self) -> Duration {
        self.set.unwrap_or(self.own)
    }

    fn period(&self, now: Instant) -> Duration {
        let watched = self.watched_until.is_some_and(|until| now < until);
        if watched { self.interval().min(WATCHED) } else { self.interval() }
    }

    /// The controller's setting. Returns whether the interval changed.
    pub(crate) fn set(&mut self, settings: Settings, now: Instant) -> bool {
        let before = self.interval();
        self.set = settings.interval_seconds.map(clamp);
        self.hurry(now);
        self.interval() != before
    }

    /// Somebody looks.
    pub(crate) fn watch(&mut self, watch: Watch, now: Instant) {
        self.watched_until = Some(now + Duration::from_secs(watch.seconds.min(MAX_WATCH_SECONDS).into()));
        self.hurry(now);
    }

    /// A sample at once, for example for a new connection.
    pub(crate) fn now(&mut self, now: Instant) {
        self.next = self.next.min(now);
    }

    fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now + self.period(now));
    }

    /// When the next sample is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// A sample is being taken. What was missed (a suspended machine, a busy one) is not made up
    /// for.
    pub(crate) fn taken(&mut self, now: Instant) {
        let period = self.period(now);
        self.next = if self.next + period > now { self.next + period } else { now + period };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_controllers_setting_wins_and_is_clamped() {
        let now = Instant::now();
        let mut cadence = Cadence::new(seconds(5), now);
        for (set, expected) in [
            (Some(60.0), seconds(60)),
            (Some(0.01), Duration::from_millis(200)),
            (Some(1e9), seconds(3600)),
            (Some(f64::NAN), seconds(3600)),
            (Some(-1.0), Duration::from_millis(200)),
            (None, seconds(5)),
        ] {
            cadence.set(Settings { interval_seconds: set }, now);
            assert_eq!(cadence.interval(), expected, "{set:?}");
        }
    }

    #[test]
    fn while_somebody_looks_there_is_a_sample_a_second() {
        let now = Instant::now();
        let mut cadence = Cadence::new(seconds(5), now);
        cadence.taken(now);
        assert_eq!(cadence.next(), now + seconds(5));
        cadence.watch(Watch { seconds: 3 }, now);
        assert_eq!(cadence.next(), now + seconds(1));
        let mut count = 0;
        let mut at = cadence.next();
        while at < now + seconds(20) {
            cadence.taken(at);
            at = cadence.next();
            count += 1;
        }
        assert_eq!(count, 3 + 3, "1, 2, 3, then 8, 13, 18");
    }

    #[test]
    fn a_fast_cadence_is_not_slowed_by_somebodys_looking() {
        let now = Instant::now();
        let mut cadence = Cadence::new(Duration::from_millis(200), now);
        cadence.watch(Watch { seconds: u32::MAX }, now);
        cadence.taken(now);
        assert_eq!(cadence.next(), now + Duration::from_millis(200));
    }

    #[test]
    fn missed_samples_are_not_made_up_for() {
        let now = Instant::now();
        let mut cadence = Cadence::new(seconds(5), now);
        cadence.taken(now + seconds(1000));
        assert_eq!(cadence.next(), now + seconds(1005));
    }
}
