//! How fast each client, or machine, may publish: a bucket of tokens for each, which outlives its
//! connections, so that coming back is not a way to get a full one.
//!
//! A bucket that is full again is forgotten, so what is remembered are those that publish at the
//! moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Duration, Instant};

/// How long a client may publish at twice its rate and more before it is slowed down.
const BURST_SECONDS: u32 = 10;

/// Fewer buckets than this are not looked through for full ones.
const FEW: usize = 64;

/// All buckets; one for the whole broker.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    of: HashMap<Box<str>, Bucket>,
    /// With so many, full ones are looked for.
    review_at: usize,
}

#[derive(Debug)]
struct Bucket {
    /// Messages that may still come at once.
    tokens: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    fn full(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { tokens: per_second * f64::from(BURST_SECONDS), per_second, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let earned = now.duration_since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.per_second * f64::from(BURST_SECONDS));
        self.at = now;
    }

    fn is_full(&self) -> bool {
        self.tokens >= self.per_second * f64::from(BURST_SECONDS)
    }
}

/// One client's, or machine's, bound.
#[derive(Debug)]
pub(crate) struct Meter {
    rates: Arc<Rates>,
    key: Box<str>,
    per_second: u32,
}

impl Meter {
    /// `key` names the bucket. A rate of 0 means unlimited: there is no meter then.
    pub(crate) fn new(rates: &Arc<Rates>, key: &str, per_second: u32) -> Option<Self> {
        (per_second > 0).then(|| Self { rates: rates.clone(), key: key.into(), per_second })
    }

    /// Counts so many messages; says how long to wait when they come too fast.
    pub(crate) fn take(&self, count: usize, now: Instant) -> Option<Duration> {
        let mut buckets = self.rates.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if !buckets.of.contains_key(&self.key) {
            buckets.review(now);
            buckets.of.insert(self.key.clone(), Bucket::full(self.per_second, now));
        }
        let bucket = buckets.of.get_mut(&self.key).expect("it was put there if it was not");
        bucket.fill(now);
        bucket.tokens -= f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        (bucket.tokens < 0.0).then(|| Duration::from_secs_f64(-bucket.tokens / bucket.per_second))
    }
}

impl Buckets {
    /// Forgets the full ones, when there are twice as many as were left the last time.
    fn review(&mut self, now: Instant) {
        if self.of.len() < self.review_at.max(FEW) {
            return;
        }
        self.of.retain(|_, bucket| {
            bucket.fill(now);
            !bucket.is_full()
        });
        self.review_at = 2 * self.of.len();
        self.of.shrink_to(self.review_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_the_same_for_all_connections_and_outlives_them() {
        let rates = Arc::new(Rates::default());
        let now = Instant::now();
        let meter = || Meter::new(&rates, "a/pi-1", 100).unwrap();
        assert_eq!(meter().take(600, now), None);
        assert_eq!(meter().take(400, now), None);
        assert_eq!(meter().take(100, now), Some(Duration::from_secs(1)));
        assert_eq!(Meter::new(&rates, "a/pi-2", 100).unwrap().take(1000, now), None);
        // What is owed is earned back at the rate, and no more than a burst is saved up.
        assert_eq!(meter().take(100, now + Duration::from_secs(2)), None);
        let later = now + Duration::from_secs(3600);
        assert_eq!(meter().take(1000, later), None);
        assert_eq!(meter().take(50, later), Some(Duration::from_millis(500)));
        assert!(Meter::new(&rates, "u/home", 0).is_none());
    }

    #[test]
    fn buckets_that_are_full_again_are_forgotten() {
        let rates = Arc::new(Rates::default());
        let mut now = Instant::now();
        for number in 0..10_000 {
            // Each sends ten messages; those are earned back within a second, in which a thousand
            // others come.
            Meter::new(&rates, &format!("a/pi-{number}"), 10).unwrap().take(10, now);
            now += Duration::from_millis(1);
        }
        let known = rates.buckets.lock().unwrap().of.len();
        assert!(known < 3_000, "{known}");
    }
}
