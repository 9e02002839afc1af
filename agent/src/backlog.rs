//! Samples that were missed while disconnected, kept in bounded memory and sent in batches
//! afterwards. Pure.
//!
//! One a minute at most; when the memory is full the oldest go. A batch counts as arrived only
//! after the connection has lasted a while longer: until then its samples are kept, however many
//! batches follow it.

use std::{collections::VecDeque, time::Duration};

use pistat_protocol::{codec::encode, stats::Sample};
use tokio::time::Instant;

/// The finest cadence that is kept.
const SPACING: Duration = Duration::from_secs(60);

/// What a batch takes at most: thousands of machines may send one at once, and their controller
/// holds as many.
const BATCH_BYTES: usize = 16 * 1000;

/// Between two batches: a fleet that comes back together does not stall its controller. A day is
/// told within ten minutes.
const PACE: Duration = Duration::from_secs(10);

/// A batch that was handed over so long ago, over a connection that still stands, has arrived.
const ARRIVED: Duration = Duration::from_secs(20);

/// The samples that were missed.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// As JSON: half the size of the sample's own form.
    samples: VecDeque<Box<[u8]>>,
    capacity: usize,
    kept_at: Option<Instant>,
    /// The batches under way, the oldest first: how many samples each holds. Together they are the
    /// oldest that are kept.
    batches: VecDeque<(usize, Instant)>,
    next_batch_at: Option<Instant>,
}

impl Backlog {
    /// Keeps so many samples.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { samples: VecDeque::new(), capacity, kept_at: None, batches: VecDeque::new(), next_batch_at: None }
    }

    /// Keeps a sample that could not be sent, unless the last was less than a minute before.
    pub(crate) fn keep(&mut self, sample: &Sample, now: Instant) {
        // A little less than a minute is a minute: cadences seldom divide it exactly.
        let early = self.kept_at.is_some_and(|at| now.duration_since(at) + Duration::from_secs(1) < SPACING);
        if early || self.capacity == 0 {
            return;
        }
        self.kept_at = Some(now);
        if self.samples.len() >= self.capacity {
            self.samples.pop_front();
            // It may have been under way.
            if let Some((count, _)) = self.batches.front_mut() {
                *count = count.saturating_sub(1);
            }
        }
        self.samples.push_back(encode(sample).into_boxed_slice());
    }

    /// The connection stands: what was missed is sent after `delay`.
    pub(crate) fn connected(&mut self, now: Instant, delay: Duration) {
        self.kept_at = None;
        self.next_batch_at = (!self.samples.is_empty()).then(|| now + delay);
    }

    /// The connection is gone, and with it perhaps the batches that were under way.
    pub(crate) fn disconnected(&mut self) {
        self.batches.clear();
        self.next_batch_at = None;
    }

    /// When to call [`Backlog::next`].
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.next_batch_at
    }

    /// The next batch, when it is time for one.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_batch_at.is_none_or(|at| now < at) {
            return None;
        }
        self.forget_arrived(now);
        let under_way = self.batches.iter().map(|(count, _)| count).sum();
        let batch = self.collect(under_way);
        if let Some((count, _)) = &batch {
            self.batches.push_back((*count, now));
        }
        let arrives_at = self.batches.front().map(|(_, sent_at)| *sent_at + ARRIVED);
        let is_next = |(count, _): &(usize, Vec<u8>)| under_way + count < self.samples.len();
        self.next_batch_at = if batch.as_ref().is_some_and(is_next) { Some(now + PACE) } else { arrives_at };
        batch.map(|(_, json)| json)
    }

    fn forget_arrived(&mut self, now: Instant) {
        while let Some((count, sent_at)) = self.batches.front().copied()
            && now.duration_since(sent_at) >= ARRIVED
        {
            self.batches.pop_front();
            self.samples.drain(..count);
        }
        if self.samples.is_empty() {
            self.samples.shrink_to_fit();
        }
    }

    /// What fits into a batch behind the samples that are under way.
    fn collect(&self, under_way: usize) -> Option<(usize, Vec<u8>)> {
        if under_way >= self.samples.len() {
            return None;
        }
        let mut json = vec![b'['];
        let mut count = 0;
        for sample in self.samples.iter().skip(under_way) {
            if count > 0 && json.len() + sample.len() + 2 > BATCH_BYTES {
                break;
            }
            if count > 0 {
                json.push(b',');
            }
            json.extend_from_slice(sample);
            count += 1;
        }
        json.push(b']');
        Some((count, json))
    }
}

#[cfg(test)]
mod tests {
    use pistat_protocol::time::Timestamp;

    use super::*;

    fn sample(seq: u64) -> Sample {
        let mut sample = Sample::new(Timestamp::from_unix_milliseconds(0), false, seq);
        sample.cpu_cores_percent = Some(vec![12.5; 64]);
        sample
    }

    fn numbers(json: &[u8]) -> Vec<u64> {
        serde_json::from_slice::<Vec<Sample>>(json).unwrap().iter().map(|sample| sample.seq).collect()
    }

    #[test]
    fn one_sample_a_minute_is_kept_and_the_oldest_go_first() {
        let start = Instant::now();
        let mut backlog = Backlog::new(10);
        for n in 0..12 * 12 {
            backlog.keep(&sample(n), start + Duration::from_secs(5 * n));
        }
        backlog.connected(start, Duration::ZERO);
        assert_eq!(numbers(&backlog.next(start).unwrap()), (2..12).map(|n| n * 12).collect::<Vec<_>>());
    }

    #[test]
    fn a_day_goes_in_batches_that_fit() {
        let start = Instant::now();
        let mut backlog = Backlog::new(1440);
        for n in 0..1440 {
            backlog.keep(&sample(n), start + Duration::from_secs(60 * n));
        }
        let mut now = start;
        backlog.connected(now, Duration::from_secs(3));
        assert_eq!(backlog.next(now), None, "not at once");
        let mut received = Vec::new();
        let mut batches = 0;
        while let Some(at) = backlog.next_at() {
            now = at;
            if let Some(json) = backlog.next(now) {
                assert!(json.len() <= BATCH_BYTES);
                received.extend(numbers(&json));
                batches += 1;
            }
        }
        assert_eq!(received, (0..1440).collect::<Vec<_>>());
        assert!(batches > 1 && backlog.samples.capacity() == 0);
    }

    #[test]
    fn a_batch_that_was_under_way_when_the_connection_broke_is_sent_again() {
        let now = Instant::now();
        let mut backlog = Backlog::new(10);
        backlog.keep(&sample(1), now);
        backlog.connected(now, Duration::ZERO);
        assert_eq!(numbers(&backlog.next(now).unwrap()), [1]);
        backlog.disconnected();
        backlog.keep(&sample(2), now + SPACING);
        backlog.connected(now, Duration::ZERO);
        assert_eq!(numbers(&backlog.next(now).unwrap()), [1, 2]);
    }

    #[test]
    fn no_batch_has_arrived_because_another_followed_it() {
        let start = Instant::now();
        let mut backlog = Backlog::new(1440);
        for n in 0..1440 {
            backlog.keep(&sample(n), start + Duration::from_secs(60 * n));
        }
        backlog.connected(start, Duration::ZERO);
        let first = numbers(&backlog.next(start).unwrap());
        let second = numbers(&backlog.next(start + PACE).unwrap());
        assert_eq!(second[0], first[first.len() - 1] + 1);
        backlog.disconnected();
        backlog.connected(start, Duration::ZERO);
        assert_eq!(numbers(&backlog.next(start).unwrap()), first, "both may have been lost");
        backlog.next(start + PACE).unwrap();
        backlog.next(start + ARRIVED).unwrap();
        backlog.disconnected();
        backlog.connected(start, Duration::ZERO);
        assert_eq!(numbers(&backlog.next(start).unwrap()), second, "the first one has arrived");
    }
}
