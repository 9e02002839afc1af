//! The CPU of the last ten minutes of a machine, for its card: a byte for each ten seconds. Pure.
//!
//! Cards are part of every snapshot of the feed, so this stands in memory; everything else that a
//! machine measured is in the history's store.

use pistat_protocol::time::Timestamp;

/// Length of a step, in seconds; [`pistat_protocol::dashboard::Machine::recent_cpu_percent`] has
/// the same.
pub const STEP_SECONDS: u32 = 10;

/// Ten minutes.
const STEPS: usize = 60;

/// A step of which nothing is known.
const UNKNOWN: u8 = u8::MAX;

/// The last ten minutes.
#[derive(Debug, Clone)]
pub struct Recent {
    /// Step `n` stands at `n % STEPS`.
    percents: [u8; STEPS],
    /// The newest step since 1970.
    newest: i64,
    sum: f32,
    count: u16,
}

impl Default for Recent {
    fn default() -> Self {
        Self { percents: [UNKNOWN; STEPS], newest: 0, sum: 0.0, count: 0 }
    }
}

impl Recent {
    /// A sample came.
    pub fn add(&mut self, cpu_percent: Option<f32>, time: Timestamp) {
        self.advance_to(step_of(time));
        if let Some(percent) = cpu_percent {
            self.sum += percent;
            self.count = self.count.saturating_add(1);
            self.percents[index(self.newest)] = small(self.sum / f32::from(self.count));
        }
    }

    /// A value of an earlier time, which is put where nothing is known.
    pub fn fill(&mut self, cpu_percent: f32, time: Timestamp, now: Timestamp) {
        self.advance_to(step_of(now));
        let step = step_of(time);
        let known = &mut self.percents[index(step)];
        let is_kept = self.newest - i64::try_from(STEPS).unwrap_or(0) < step && step <= self.newest;
        if is_kept && *known == UNKNOWN {
            *known = small(cpu_percent);
        }
    }

    /// The steps up to now, from the first known one on.
    pub fn percents(&self, now: Timestamp) -> Vec<Option<u8>> {
        let mut moved = self.clone();
        moved.advance_to(step_of(now));
        let newest = moved.newest;
        let steps = (0..STEPS).rev().map(|age| newest - i64::try_from(age).unwrap_or(0));
        let percent = |step: i64| Some(moved.percents[index(step)]).filter(|percent| *percent != UNKNOWN);
        steps.map(percent).skip_while(Option::is_none).collect()
    }

    /// A clock that went back writes into the newest step; one that jumped far ahead and back
    /// begins anew, so that the card does not stand still until then.
    fn advance_to(&mut self, step: i64) {
        let length = i64::try_from(STEPS).unwrap_or(0);
        let passed = step - self.newest;
        if passed >= length || passed <= -length {
            self.percents = [UNKNOWN; STEPS];
        } else {
            for new in self.newest + 1..=step {
                self.percents[index(new)] = UNKNOWN;
            }
        }
        if passed > 0 || passed <= -length {
            (self.newest, self.sum, self.count) = (step, 0.0, 0);
        }
    }
}

fn step_of(time: Timestamp) -> i64 {
    time.unix_milliseconds().div_euclid(i64::from(STEP_SECONDS) * 1000)
}

fn index(step: i64) -> usize {
    usize::try_from(step.rem_euclid(i64::try_from(STEPS).unwrap_or(1))).unwrap_or(0)
}

fn small(percent: f32) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0…100; NaN becomes 0")]
    let small = percent.round().clamp(0.0, 100.0) as u8;
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_milliseconds((1_000_000 + seconds) * 1000)
    }

    #[test]
    fn steps_are_means_and_holes_are_unknown() {
        let mut recent = Recent::default();
        for (seconds, cpu) in [(0, 10.0), (5, 20.0), (30, 50.0)] {
            recent.add(Some(cpu), at(seconds));
        }
        assert_eq!(recent.percents(at(30)), [Some(15), None, None, Some(50)]);
        assert_eq!(recent.percents(at(50)), [Some(15), None, None, Some(50), None, None]);
        assert_eq!(recent.percents(at(1000)), []);
    }

    #[test]
    fn late_values_fill_holes_and_nothing_else() {
        let mut recent = Recent::default();
        recent.add(Some(10.0), at(700));
        for (seconds, cpu) in [(660, 1.0), (680, 2.0), (700, 99.0), (40, 5.0), (800, 6.0)] {
            recent.fill(cpu, at(seconds), at(700));
        }
        assert_eq!(recent.percents(at(700)), [Some(1), None, Some(2), None, Some(10)]);
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_does_not_stop_the_card() {
        let mut recent = Recent::default();
        recent.add(Some(10.0), at(1000));
        recent.add(Some(30.0), at(990));
        assert_eq!(recent.percents(at(1000)), [Some(20)]);
        recent.add(Some(40.0), at(100_000_000));
        assert_eq!(recent.percents(at(100_000_000)), [Some(40)]);
        recent.add(Some(50.0), at(1010));
        assert_eq!(recent.percents(at(1010)), [Some(50)]);
    }
}
