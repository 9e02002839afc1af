//! Rates of counters that the kernel keeps for each device: bytes that went in and out since it
//! came up. Pure.
//!
//! A counter may go back (its device was reset or replaced, its 32 bits are full), read 0 for a
//! moment, and come back to where it was. What cannot be right yields nothing: a gap in a chart is
//! true, a peak of hundreds of gigabytes per second is not.

use std::time::{Duration, Instant};

use super::rate;

/// More than any device of a board carries: an Ethernet of 200 Gbit/s.
const MOST_BYTES_PER_SECOND: u64 = 25_000_000_000;

/// What a counter that went back may regain of what it had before: a Gigabit Ethernet's worth. More
/// is the counter that came back, not traffic.
const MOST_REGAINED: u64 = 125_000_000;

/// What one device has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// The device.
    pub(super) name: Box<str>,
    /// Bytes received or read, and bytes sent or written.
    pub(super) bytes: [u64; 2],
}

/// One counter.
#[derive(Debug, Clone, Copy)]
struct Counter {
    last: u64,
    /// The highest it has been.
    high: u64,
}

impl Counter {
    fn new(reading: u64) -> Self {
        Self { last: reading, high: reading }
    }

    /// Takes the next reading. Returns bytes per second since the last one, or nothing where they
    /// cannot be told.
    fn advance(&mut self, reading: u64, elapsed: Duration) -> Option<u64> {
        let Self { last, high } = *self;
        *self = Self { last: reading, high: high.max(reading) };
        if last == 0 && reading > 0 {
            // Whether it was just reset, or could not be read for a moment, cannot be told.
            return None;
        }
        let rate = rate(last, reading, elapsed)?;
        let regains = last < high && reading >= high;
        (rate <= if regains { MOST_REGAINED } else { MOST_BYTES_PER_SECOND }).then_some(rate)
    }
}

/// The counters of all devices of one kind.
#[derive(Debug)]
pub(super) struct Rates {
    devices: Vec<(Box<str>, [Counter; 2])>,
    read_at: Instant,
}

impl Rates {
    /// Has nothing to compare with yet.
    pub(super) fn new() -> Self {
        Self { devices: Vec::new(), read_at: Instant::now() }
    }

    /// Takes the next readings. Returns the sums of bytes per second. A device that came, went or
    /// was reset since the last time is not counted.
    pub(super) fn advance(&mut self, readings: Vec<Reading>, now: Instant) -> Option<(u64, u64)> {
        let elapsed = now.duration_since(self.read_at);
        self.read_at = now;
        let before = std::mem::take(&mut self.devices);
        let mut sum: Option<(u64, u64)> = None;
        for Reading { name, bytes } in readings {
            let known = before.iter().find(|(known, _)| *known == name).map(|(_, counters)| *counters);
            let Some(mut counters) = known else {
                self.devices.push((name, bytes.map(Counter::new)));
                continue;
            };
            let [first, second] = &mut counters;
            let rates = (first.advance(bytes[0], elapsed), second.advance(bytes[1], elapsed));
            if let (Some(first), Some(second)) = rates {
                let (a, b) = sum.unwrap_or_default();
                sum = Some((a.saturating_add(first), b.saturating_add(second)));
            }
            self.devices.push((name, counters));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens, the readings, and the rates between them.
    type Case = (&'static str, &'static [u64], &'static [Option<u64>]);

    #[test]
    fn a_counter_that_lies_for_a_moment_yields_nothing_and_then_goes_on() {
        const TERA: u64 = 1_000_000_000_000;
        const WRAP: u64 = 1 << 32;
        let cases: [Case; 10] = [
            ("steady", &[1000, 1500, 1500], &[Some(100), Some(0)]),
            ("unused", &[0, 0, 0], &[Some(0), Some(0)]),
            ("used for the first time", &[0, 500, 1000], &[None, Some(100)]),
            ("zero for a moment", &[TERA, 0, TERA + 500, TERA + 1000], &[None, None, Some(100)]),
            ("zero for longer", &[TERA, 0, 0, TERA, TERA + 500], &[None, Some(0), None, Some(100)]),
            ("zero at the start", &[0, TERA, TERA + 500], &[None, Some(100)]),
            ("little for a moment", &[10_000_000_000, 5, 10_000_000_005, 10_000_000_505], &[None, None, Some(100)]),
            ("reset", &[TERA, 500, 1000, 1500], &[None, Some(100), Some(100)]),
            ("32 bits are full", &[WRAP - 500, 500, 1000], &[None, Some(100)]),
            ("another device with more", &[5, TERA, TERA + 500], &[None, Some(100)]),
        ];
        for (what, readings, expected) in cases {
            let mut counter = Counter::new(readings[0]);
            let rates: Vec<_> =
                readings[1..].iter().map(|reading| counter.advance(*reading, Duration::from_secs(5))).collect();
            assert_eq!(rates, expected, "{what}");
        }
    }

    #[test]
    fn a_device_whose_counter_lies_takes_no_other_with_it() {
        let start = Instant::now();
        let reading = |name: &str, bytes| Reading { name: name.into(), bytes: [bytes, bytes] };
        let mut rates = Rates::new();
        let mut at =
            |seconds, a, b| rates.advance(vec![reading("a", a), reading("b", b)], start + Duration::from_secs(seconds));
        assert_eq!(at(0, 10, 1_000_000_000_000), None);
        assert_eq!(at(10, 1010, 0), Some((100, 100)));
        assert_eq!(at(20, 2010, 1_000_000_000_000), Some((100, 100)));
        assert_eq!(at(30, 3010, 1_000_000_001_000), Some((200, 200)));
    }
}
