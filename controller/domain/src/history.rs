//! What machines measured, kept in memory for charts: an hour in steps of ten seconds and a day in steps of five minutes.
//!
//! Pure. A step holds means, as exact as a picture needs them: with four cores a machine costs 7 kB when both rings are full.

mod cores;
mod step;

use std::collections::VecDeque;

use pistat_protocol::{api::History as View, stats::Sample, time::Timestamp};

use self::{
    cores::Cores,
    step::{COLUMNS, Columns, Step, columns},
};

/// Length of a fine step, in seconds; [`pistat_protocol::dashboard::Machine::recent_cpu_percent`] has the same.
pub const FINE_STEP_SECONDS: u32 = 10;
const FINE_STEPS: usize = 360;
const COARSE_STEP_SECONDS: u32 = 300;
const COARSE_STEPS: usize = 288;

/// How many fine steps a machine's card shows: ten minutes.
const RECENT_STEPS: usize = 60;

/// A ring of steps; the newest is still being filled.
#[derive(Debug, Clone)]
struct Ring {
    step_seconds: u32,
    capacity: usize,
    steps: VecDeque<Step>,
    /// Number of the newest step since the epoch.
    newest: i64,
    sums: [f32; COLUMNS],
    counts: [u16; COLUMNS],
    undervoltage: Option<bool>,
}

impl Ring {
    fn new(step_seconds: u32, capacity: usize) -> Self {
        Self {
            step_seconds,
            capacity,
            steps: VecDeque::new(),
            newest: 0,
            sums: [0.0; COLUMNS],
            counts: [0; COLUMNS],
            undervoltage: None,
        }
    }

    fn number(&self, time: Timestamp) -> i64 {
        time.unix_milliseconds() / (i64::from(self.step_seconds) * 1000)
    }

    /// Tells by how many steps it went on.
    fn add(&mut self, sample: &Sample, time: Timestamp) -> usize {
        let steps = self.advance_to(time);
        for (index, value) in columns(sample).into_iter().enumerate() {
            if let Some(value) = value {
                self.sums[index] += value;
                self.counts[index] = self.counts[index].saturating_add(1);
            }
        }
        let mean = |index: usize| (self.counts[index] > 0).then(|| self.sums[index] / f32::from(self.counts[index]));
        self.undervoltage = match (self.undervoltage, undervoltage(sample)) {
            (Some(true), _) => Some(true),
            (known, None) => known,
            (_, new) => new,
        };
        let step = Step::new(&std::array::from_fn(mean), self.undervoltage);
        if let Some(newest) = self.steps.back_mut() {
            *newest = step;
        }
        steps
    }

    /// How many steps ago a time was, for a late sample; nothing for one that is not late, or too late.
    fn age(&self, time: Timestamp) -> Option<usize> {
        let age = usize::try_from(self.newest - self.number(time)).ok()?;
        (!self.steps.is_empty() && (1..self.capacity).contains(&age)).then_some(age)
    }

    /// Puts a late sample into its own step, where nothing is known of it.
    fn fill(&mut self, sample: &Sample) {
        let Some(age) = self.age(sample.time) else {
            return;
        };
        make_room(&mut self.steps, age + 1, self.capacity);
        while self.steps.len() <= age {
            self.steps.push_front(Step::unknown());
        }
        let index = self.steps.len() - 1 - age;
        let (known, voltage) = self.steps[index].get();
        let late = columns(sample);
        let both: Columns = std::array::from_fn(|column| known[column].or(late[column]));
        self.steps[index] = Step::new(&both, voltage.or(undervoltage(sample)));
    }

    /// Begins the step of now, if that is a new one. Tells by how many steps it went on.
    fn advance_to(&mut self, now: Timestamp) -> usize {
        // A clock that went back writes into the newest step: history is a picture, not a ledger.
        let number = self.number(now).max(self.newest);
        if self.steps.is_empty() {
            self.newest = number - 1;
        }
        let missing = usize::try_from(number - self.newest).unwrap_or(0);
        if missing == 0 {
            return 0;
        }
        if missing > self.capacity {
            self.steps.clear();
        }
        let fresh = missing.min(self.capacity);
        let length = self.steps.len() + fresh;
        make_room(&mut self.steps, length, self.capacity);
        for _ in 0..fresh {
            if self.steps.len() == self.capacity {
                self.steps.pop_front();
            }
            self.steps.push_back(Step::unknown());
        }
        self.newest = number;
        self.sums = [0.0; COLUMNS];
        self.counts = [0; COLUMNS];
        self.undervoltage = None;
        missing
    }

    /// The steps up to a time, at most `count` of them, with the number of the first. Steps without samples are unknown.
    fn last(&self, count: usize, now: Timestamp) -> (i64, Vec<Step>) {
        let end = self.number(now).max(self.newest);
        let first = end + 1 - i64::try_from(count).unwrap_or(i64::MAX);
        let oldest = self.newest + 1 - i64::try_from(self.steps.len()).unwrap_or(0);
        let step = |number: i64| {
            let index = usize::try_from(number - oldest).ok()?;
            self.steps.get(index).copied()
        };
        (first, (first..=end).map(|number| step(number).unwrap_or(Step::unknown())).collect())
    }
}

fn undervoltage(sample: &Sample) -> Option<bool> {
    sample.power.as_ref().and_then(|power| power.undervoltage)
}

/// Makes room for so many in a ring that never has more than `most`. Left to itself it would double beyond that, for each machine of a fleet.
fn make_room<T>(ring: &mut VecDeque<T>, length: usize, most: usize) {
    let length = length.min(most);
    if ring.capacity() < length {
        ring.reserve_exact((2 * ring.len()).clamp(length, most) - ring.len());
    }
}

/// What one machine measured.
#[derive(Debug, Clone)]
pub struct History {
    fine: Ring,
    coarse: Ring,
    /// In the steps of `fine`.
    cores: Cores,
}

impl Default for History {
    fn default() -> Self {
        Self {
            fine: Ring::new(FINE_STEP_SECONDS, FINE_STEPS),
            coarse: Ring::new(COARSE_STEP_SECONDS, COARSE_STEPS),
            cores: Cores::default(),
        }
    }
}

impl History {
    /// Adds a sample under the controller's time.
    pub fn add(&mut self, sample: &Sample, time: Timestamp) {
        let steps = self.fine.add(sample, time);
        self.cores.add(sample.cpu_cores_percent.as_deref(), steps);
        self.coarse.add(sample, time);
    }

    /// Adds a sample that comes late, under the time that it was taken. It may come before the first one that does not.
    pub fn fill(&mut self, sample: &Sample, now: Timestamp) {
        let steps = self.fine.advance_to(now);
        self.cores.add(None, steps);
        self.coarse.advance_to(now);
        self.fine.fill(sample);
        if let Some(age) = self.fine.age(sample.time) {
            self.cores.fill(sample.cpu_cores_percent.as_deref(), age);
        }
        self.coarse.fill(sample);
    }

    /// CPU per cent of the last ten minutes, from the first known value on.
    pub fn recent_cpu_percent(&self, now: Timestamp) -> Vec<Option<u8>> {
        let (_, steps) = self.fine.last(RECENT_STEPS, now);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0…100")]
        let small = |value: f32| value.round().clamp(0.0, 100.0) as u8;
        let values = steps.iter().map(|step| step.get().0[0].map(small));
        values.skip_while(Option::is_none).collect()
    }

    /// The last seconds, in columns: fine and with each core for up to an hour, coarse beyond it.
    pub fn view(&self, seconds: u32, now: Timestamp) -> View {
        let fine = seconds <= FINE_STEP_SECONDS * u32::try_from(FINE_STEPS).unwrap_or(u32::MAX);
        let ring = if fine { &self.fine } else { &self.coarse };
        let count =
            usize::try_from(seconds.div_ceil(ring.step_seconds)).unwrap_or(ring.capacity).clamp(1, ring.capacity);
        let (first, steps) = ring.last(count, now);
        let (columns, undervoltage): (Vec<Columns>, Vec<_>) = steps.into_iter().map(Step::get).unzip();
        let column = |index: usize| columns.iter().map(|columns| columns[index]).collect();
        View {
            start: Timestamp::from_unix_milliseconds(first * i64::from(ring.step_seconds) * 1000),
            step_seconds: ring.step_seconds,
            cpu_percent: column(0),
            cpu_cores_percent: if fine { self.cores.columns(ring.newest - first, count) } else { Vec::new() },
            memory_percent: column(1),
            temperature_celsius: column(2),
            disk_read_bytes_per_second: column(3),
            disk_write_bytes_per_second: column(4),
            network_rx_bytes_per_second: column(5),
            network_tx_bytes_per_second: column(6),
            undervoltage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_milliseconds((1_000_000 + seconds) * 1000)
    }

    fn sample(cpu: f32) -> Sample {
        taken(cpu, 0)
    }

    fn taken(cpu: f32, seconds: i64) -> Sample {
        let mut sample = Sample::new(at(seconds), true, 0);
        sample.cpu_percent = Some(cpu);
        sample
    }

    #[test]
    fn steps_are_means_and_holes_are_unknown() {
        let mut history = History::default();
        for (seconds, cpu) in [(0, 10.0), (5, 20.0), (30, 50.0)] {
            history.add(&sample(cpu), at(seconds));
        }
        assert_eq!(history.recent_cpu_percent(at(30)), [Some(15), None, None, Some(50)]);
        let view = history.view(40, at(30));
        assert_eq!((view.start, view.step_seconds), (at(0), 10));
        assert_eq!(view.cpu_percent, [Some(15.0), None, None, Some(50.0)]);
        assert_eq!(view.memory_percent, [None; 4]);
    }

    #[test]
    fn each_core_stands_beside_all_of_them() {
        let mut history = History::default();
        for (seconds, cores) in [(0, [10.0, 30.0]), (20, [50.0, 70.0])] {
            let mut sample = sample(20.0);
            sample.cpu_cores_percent = Some(cores.to_vec());
            history.add(&sample, at(seconds));
        }
        let mut late = taken(3.0, 11);
        late.cpu_cores_percent = Some(vec![2.0, 4.0]);
        history.fill(&late, at(30));
        let view = history.view(40, at(30));
        assert_eq!(view.cpu_percent, [Some(20.0), Some(3.0), Some(20.0), None]);
        assert_eq!(view.cpu_cores_percent, [[Some(10), Some(2), Some(50), None], [Some(30), Some(4), Some(70), None]]);
        assert_eq!(history.view(86_400, at(30)).cpu_cores_percent, Vec::<Vec<_>>::new());
    }

    #[test]
    fn a_day_of_samples_takes_no_more_room_than_it_needs() {
        let mut history = History::default();
        let mut sample = sample(20.0);
        sample.cpu_cores_percent = Some(vec![20.0; 4]);
        for minute in 0..1_500 {
            history.add(&sample, at(minute * 60));
        }
        let rings = [&history.fine, &history.coarse].map(|ring| (ring.steps.len(), ring.steps.capacity()));
        assert_eq!(rings, [(FINE_STEPS, FINE_STEPS), (COARSE_STEPS, COARSE_STEPS)]);
        assert_eq!(history.cores.room(), 4 * FINE_STEPS);
    }

    #[test]
    fn nor_does_a_day_that_came_late() {
        let mut history = History::default();
        let mut sample = sample(20.0);
        sample.cpu_cores_percent = Some(vec![20.0; 4]);
        history.add(&sample, at(90_000));
        for minute in 0..1_500 {
            sample.time = at(minute * 60);
            history.fill(&sample, at(90_000));
        }
        assert!(history.fine.steps.len() > FINE_STEPS - 6 && history.fine.steps.capacity() <= FINE_STEPS);
        assert!(history.coarse.steps.len() > COARSE_STEPS - 2 && history.coarse.steps.capacity() <= COARSE_STEPS);
        assert!(history.cores.room() <= 4 * FINE_STEPS);
    }

    #[test]
    fn time_that_passed_without_samples_is_shown() {
        let mut history = History::default();
        history.add(&sample(10.0), at(0));
        assert_eq!(history.view(30, at(20)).cpu_percent, [Some(10.0), None, None]);
    }

    #[test]
    fn late_samples_fill_holes_and_nothing_else() {
        let mut history = History::default();
        history.add(&sample(10.0), at(100));
        for (seconds, cpu) in [(60, 1.0), (80, 2.0), (100, 99.0), (-10_000, 5.0)] {
            history.fill(&taken(cpu, seconds), at(100));
        }
        assert_eq!(history.recent_cpu_percent(at(100)), [Some(1), None, Some(2), None, Some(10)]);
    }

    #[test]
    fn late_samples_have_their_place_before_anything_else_is_heard() {
        let mut history = History::default();
        for round in [0, 50_000] {
            // At first of a machine that is new to this controller, then of one that was away.
            history.fill(&taken(1.0, round + 60), at(round + 100));
            history.fill(&taken(2.0, round + 80), at(round + 101));
            history.add(&sample(10.0), at(round + 102));
            assert_eq!(
                history.view(50, at(round + 102)).cpu_percent,
                [Some(1.0), None, Some(2.0), None, Some(10.0)],
                "{round}"
            );
        }
        assert_eq!(history.view(86_400, at(50_102)).cpu_percent.iter().flatten().count(), 2);
    }

    #[test]
    fn a_clock_that_jumps_keeps_the_picture_sane() {
        let mut history = History::default();
        history.add(&sample(10.0), at(1000));
        history.add(&sample(30.0), at(0));
        assert_eq!(history.recent_cpu_percent(at(1000)), [Some(20)]);
        history.add(&sample(40.0), at(100_000_000));
        assert_eq!(history.recent_cpu_percent(at(100_000_000)), [Some(40)]);
        assert_eq!(history.view(86_400, at(100_000_000)).cpu_percent.len(), COARSE_STEPS);
    }
}
