//! The last two hours in memory, one sample a minute, also while connected: the controller writes
//! its history rarely, and after a kill it asks for what it lacks (`recall`). Pure.
//!
//! A sample takes some 120 bytes in this form instead of a kilobyte of JSON.

use std::{collections::VecDeque, time::Duration};

use pistat_protocol::{
    codec::encode,
    history::Recall,
    stats::{Disk, Power, Sample},
    time::Timestamp,
};
use tokio::time::Instant;

/// Two hours at one sample a minute, and a few for the way.
const CAPACITY: usize = 124;

/// The first sample of each minute of the clock is kept, so that none is missing at any cadence; a
/// clock that jumps does not make more of them than this.
const SPACING: Duration = Duration::from_secs(30);

/// The most bytes of one message, and the time between two: see [`crate::backlog`].
const BATCH_BYTES: usize = 16 * 1000;
const PACE: Duration = Duration::from_secs(10);

/// A fleet that comes back together does not answer at once.
const DELAY: Duration = Duration::from_secs(2);

/// The samples of the last two hours.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    samples: VecDeque<Box<[u8]>>,
    /// When a sample was kept last, and its minute.
    kept: Option<(Instant, i64)>,
    /// What was asked for and is still to be sent: the number of the next sample.
    answer: Option<(Recall, usize)>,
    next_at: Option<Instant>,
}

impl Memory {
    /// Keeps a sample, if it is the first of its minute.
    pub(crate) fn keep(&mut self, sample: &Sample, now: Instant) {
        let minute = sample.time.unix_milliseconds().div_euclid(60_000);
        if self.kept.is_some_and(|(at, kept)| kept == minute || now.duration_since(at) < SPACING) {
            return;
        }
        self.kept = Some((now, minute));
        if self.samples.len() == CAPACITY {
            self.samples.pop_front();
            if let Some((_, next)) = &mut self.answer {
                *next = next.saturating_sub(1);
            }
        }
        self.samples.push_back(pack(sample));
    }

    /// The controller asks. A later question takes the place of an earlier one.
    pub(crate) fn recall(&mut self, recall: Recall, now: Instant) {
        self.answer = Some((recall, 0));
        self.next_at = Some(self.next_at.unwrap_or(now + DELAY));
    }

    /// The connection is gone, and with it the question: it is asked again.
    pub(crate) fn disconnected(&mut self) {
        self.answer = None;
        self.next_at = None;
    }

    /// When to call [`Memory::next`].
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// The next batch of the answer, when it is time for one.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_at.is_none_or(|at| now < at) {
            return None;
        }
        self.next_at = None;
        let (recall, first) = self.answer.take()?;
        let mut json = vec![b'['];
        for (index, packed) in self.samples.iter().enumerate().skip(first) {
            let Some(sample) = unpack(packed).filter(|sample| is_wanted(sample, &recall)) else { continue };
            let sample = encode(&sample);
            if json.len() > 1 && json.len() + sample.len() + 2 > BATCH_BYTES {
                self.answer = Some((recall, index));
                self.next_at = Some(now + PACE);
                break;
            }
            if json.len() > 1 {
                json.push(b',');
            }
            json.extend_from_slice(&sample);
        }
        json.push(b']');
        (json.len() > 2).then_some(json)
    }

    /// Bytes in memory.
    #[cfg(test)]
    fn room(&self) -> usize {
        let allocation = 2 * size_of::<usize>();
        self.samples.iter().map(|sample| sample.len() + allocation).sum::<usize>()
            + self.samples.capacity() * size_of::<Box<[u8]>>()
    }
}

/// A clock that was not synchronised cannot be compared with the controller's: it places such
/// samples itself.
fn is_wanted(sample: &Sample, recall: &Recall) -> bool {
    !sample.clock_synchronized || (recall.from..recall.to).contains(&sample.time)
}

/// Goes over the numbers of a sample in a fixed order: the same list writes and reads them.
trait Walk {
    fn number(&mut self, value: &mut Option<i64>);

    fn whole<T: TryFrom<i64> + TryInto<i64> + Copy>(&mut self, value: &mut Option<T>) {
        let mut number = value.and_then(|value| value.try_into().ok());
        self.number(&mut number);
        *value = number.and_then(|number| number.try_into().ok());
    }

    /// Two digits after the point: more are not measured.
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "such a conversion saturates")]
    fn float(&mut self, value: &mut Option<f32>) {
        let mut number = value.map(|value| (f64::from(value) * 100.0).round() as i64);
        self.number(&mut number);
        *value = number.map(|number| (number as f64 / 100.0) as f32);
    }

    fn flag(&mut self, value: &mut Option<bool>) {
        let mut number = value.map(i64::from);
        self.number(&mut number);
        *value = number.map(|number| number != 0);
    }

    fn text(&mut self, value: &mut String);
}

fn walk(walk: &mut impl Walk, sample: &mut Sample) {
    for value in [&mut sample.cpu_percent, &mut sample.load1, &mut sample.load5, &mut sample.load15] {
        walk.float(value);
    }
    walk.float(&mut sample.memory_percent);
    walk.float(&mut sample.temperature_celsius);
    walk.whole(&mut sample.cpu_mhz);
    walk.whole(&mut sample.memory_used_bytes);
    walk.whole(&mut sample.memory_total_bytes);
    walk.whole(&mut sample.swap_used_bytes);
    walk.whole(&mut sample.swap_total_bytes);
    walk.whole(&mut sample.disk_read_bytes_per_second);
    walk.whole(&mut sample.disk_write_bytes_per_second);
    walk.whole(&mut sample.network_rx_bytes_per_second);
    walk.whole(&mut sample.network_tx_bytes_per_second);
    walk.whole(&mut sample.wifi_signal_dbm);
    walk.whole(&mut sample.uptime_seconds);
    walk.whole(&mut sample.processes);
    list(walk, &mut sample.cpu_cores_percent, 0.0, |walk, core| {
        let mut value = Some(*core);
        walk.float(&mut value);
        *core = value.unwrap_or_default();
    });
    let disk = Disk { mount: String::new(), used_bytes: 0, total_bytes: 0, used_percent: 0.0 };
    list(walk, &mut sample.disks, disk, |walk, disk| {
        walk.text(&mut disk.mount);
        let (mut used, mut total, mut percent) =
            (Some(disk.used_bytes), Some(disk.total_bytes), Some(disk.used_percent));
        walk.whole(&mut used);
        walk.whole(&mut total);
        walk.float(&mut percent);
        (disk.used_bytes, disk.total_bytes) = (used.unwrap_or_default(), total.unwrap_or_default());
        disk.used_percent = percent.unwrap_or_default();
    });
    let mut has_power = Some(sample.power.is_some());
    walk.flag(&mut has_power);
    if has_power == Some(true) {
        let power = sample.power.get_or_insert_with(Power::default);
        for value in
            [&mut power.undervoltage, &mut power.throttled, &mut power.frequency_capped, &mut power.temperature_limited]
        {
            walk.flag(value);
        }
    }
}

fn list<W: Walk, T: Clone>(walk: &mut W, values: &mut Option<Vec<T>>, empty: T, each: impl Fn(&mut W, &mut T)) {
    let mut length = values.as_ref().map(Vec::len);
    walk.whole(&mut length);
    let Some(length) = length else { return };
    let values = values.get_or_insert_with(|| vec![empty.clone(); length]);
    for value in values {
        each(walk, value);
    }
}

fn pack(sample: &Sample) -> Box<[u8]> {
    let mut pack = Pack(Vec::with_capacity(160));
    pack.number(&mut Some(sample.time.unix_milliseconds()));
    pack.flag(&mut Some(sample.clock_synchronized));
    pack.number(&mut i64::try_from(sample.seq).ok());
    walk(&mut pack, &mut sample.clone());
    pack.0.into_boxed_slice()
}

fn unpack(packed: &[u8]) -> Option<Sample> {
    let mut unpack = Unpack(packed);
    let (mut time, mut synchronized, mut seq) = (None, None, None);
    unpack.number(&mut time);
    unpack.flag(&mut synchronized);
    unpack.whole(&mut seq);
    let mut sample = Sample::new(Timestamp::from_unix_milliseconds(time?), synchronized?, seq?);
    walk(&mut unpack, &mut sample);
    Some(sample)
}

struct Pack(Vec<u8>);

impl Walk for Pack {
    /// Nothing is 0; a number is folded to one without a sign, plus one, seven bits a byte.
    fn number(&mut self, value: &mut Option<i64>) {
        let mut rest =
            value.map_or(0, |value| (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned().saturating_add(1));
        while rest >= 0x80 {
            self.0.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.0.push(rest.to_le_bytes()[0]);
    }

    fn text(&mut self, value: &mut String) {
        self.number(&mut i64::try_from(value.len()).ok());
        self.0.extend_from_slice(value.as_bytes());
    }
}

struct Unpack<'a>(&'a [u8]);

impl Walk for Unpack<'_> {
    fn number(&mut self, value: &mut Option<i64>) {
        let mut folded = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some((first, rest)) = self.0.split_first() else { break };
            self.0 = rest;
            folded |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        *value = folded.checked_sub(1).map(|folded| (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed());
    }

    fn text(&mut self, value: &mut String) {
        let mut length = None;
        self.whole::<usize>(&mut length);
        let (text, rest) = self.0.split_at(length.unwrap_or(0).min(self.0.len()));
        self.0 = rest;
        *value = String::from_utf8_lossy(text).into_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Pi 5 with everything that it can measure.
    fn sample(minute: i64, synchronized: bool) -> Sample {
        let golden = include_str!("../../tests/fixtures/wire/sample.json");
        let mut sample: Sample = serde_json::from_str(golden).unwrap();
        sample.time = Timestamp::from_unix_milliseconds(1_800_000_000_000 + minute * 60_000);
        sample.clock_synchronized = synchronized;
        sample.seq = minute.cast_unsigned();
        sample
    }

    fn recall(from: i64, to: i64) -> Recall {
        let time = |minute: i64| Timestamp::from_unix_milliseconds(1_800_000_000_000 + minute * 60_000);
        Recall { from: time(from), to: time(to) }
    }

    fn all(memory: &mut Memory) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(at) = memory.next_at() {
            if let Some(json) = memory.next(at) {
                assert!(json.len() <= BATCH_BYTES);
                numbers.extend(serde_json::from_slice::<Vec<Sample>>(&json).unwrap().iter().map(|sample| sample.seq));
            }
        }
        numbers
    }

    fn filled(synchronized: bool) -> (Memory, Instant) {
        let (mut memory, mut now) = (Memory::default(), Instant::now());
        for second in 0..300 * 12 {
            now += Duration::from_secs(5);
            memory.keep(&sample(second / 12, synchronized), now);
        }
        (memory, now)
    }

    #[test]
    fn a_sample_is_unpacked_as_it_was_but_for_the_firmwares_bits() {
        let mut expected = sample(1, true);
        // Two digits after the point, as the kernel tells it.
        expected.load15 = Some(0.13);
        let unpacked = unpack(&pack(&expected)).unwrap();
        if let Some(power) = &mut expected.power {
            *power = Power {
                undervoltage: power.undervoltage,
                throttled: power.throttled,
                frequency_capped: power.frequency_capped,
                temperature_limited: power.temperature_limited,
                ..Power::default()
            };
        }
        assert_eq!(unpacked, expected);
        let least = Sample::new(Timestamp::from_unix_milliseconds(0), false, 0);
        assert_eq!(unpack(&pack(&least)), Some(least));
    }

    #[test]
    fn two_hours_take_less_than_forty_kilobytes() {
        let (memory, _) = filled(true);
        assert_eq!(memory.samples.len(), CAPACITY);
        assert!(memory.room() <= 40_000, "{} bytes", memory.room());
    }

    #[test]
    fn the_controller_gets_what_it_asks_for_in_batches_that_fit() {
        let (mut memory, now) = filled(true);
        memory.recall(recall(200, 290), now);
        assert_eq!(all(&mut memory), (200..290).collect::<Vec<_>>());
        assert_eq!(memory.next_at(), None);
        memory.recall(recall(0, 100), now);
        assert_eq!(all(&mut memory), [0_u64; 0], "that was longer ago");
    }

    #[test]
    fn without_a_synchronised_clock_it_tells_all_that_it_has() {
        let (mut memory, now) = filled(false);
        memory.recall(recall(0, 1), now);
        assert_eq!(all(&mut memory), (176..300).collect::<Vec<_>>());
    }

    #[test]
    fn a_question_ends_with_its_connection() {
        let (mut memory, now) = filled(true);
        memory.recall(recall(200, 290), now);
        memory.disconnected();
        assert_eq!((memory.next_at(), memory.next(now + PACE)), (None, None));
    }
}
