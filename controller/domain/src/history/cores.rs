//! What each core of a machine did: one byte a core for each fine step, since a fleet's memory holds this for everybody. Pure.

use std::collections::VecDeque;

use super::{FINE_STEPS, make_room};

/// A step of which nothing is known.
const UNKNOWN: u8 = u8::MAX;

/// More cores than this are not told one by one: no board that Pi Stat is made for has as many.
const MOST_CORES: usize = 64;

/// So many samples make a step's mean; their sum fits in two bytes.
const MOST_SAMPLES: u16 = 600;

/// Busy per cent of each core, in the steps of the ring beside it: its newest step is the newest here.
#[derive(Debug, Clone, Default)]
pub(super) struct Cores {
    /// Oldest first, all cores of a step beside each other.
    percents: VecDeque<u8>,
    /// Of the newest step, one for each core.
    sums: Box<[u16]>,
    samples: u16,
}

impl Cores {
    /// Adds a sample's cores after the ring beside it went on by so many steps.
    pub(super) fn add(&mut self, cores: Option<&[f32]>, steps: usize) {
        self.advance(steps.min(FINE_STEPS));
        let Some(cores) = cores.map(|cores| &cores[..cores.len().min(MOST_CORES)]) else {
            return;
        };
        if cores.len() != self.sums.len() {
            // Another board under the same name.
            self.begin(cores.len());
        }
        if self.samples == MOST_SAMPLES {
            return;
        }
        self.samples += 1;
        let newest = self.percents.len() - cores.len();
        for (index, percent) in cores.iter().enumerate() {
            self.sums[index] += u16::from(small(*percent));
            self.percents[newest + index] = u8::try_from(self.sums[index] / self.samples).unwrap_or(UNKNOWN);
        }
    }

    /// Puts a late sample into the step that is so many steps old, where nothing is known of it.
    pub(super) fn fill(&mut self, cores: Option<&[f32]>, age: usize) {
        let is_first = self.sums.is_empty();
        let fits = |cores: &&[f32]| cores.len() <= MOST_CORES && (is_first || cores.len() == self.sums.len());
        let Some(cores) = cores.filter(fits).filter(|_| age < FINE_STEPS) else {
            return;
        };
        let width = cores.len();
        if is_first {
            self.begin(width);
        }
        make_room(&mut self.percents, (age + 1) * width, FINE_STEPS * width);
        while self.percents.len() < (age + 1) * width {
            self.percents.push_front(UNKNOWN);
        }
        let first = self.percents.len() - (age + 1) * width;
        for (index, percent) in cores.iter().enumerate() {
            let known = &mut self.percents[first + index];
            if *known == UNKNOWN {
                *known = small(*percent);
            }
        }
    }

    /// A column for each core: so many steps, of which the first is so many steps old. None where nothing is known.
    pub(super) fn columns(&self, first_age: i64, count: usize) -> Vec<Vec<Option<u8>>> {
        let width = self.sums.len();
        let percent = |age: i64, core: usize| {
            let from_end = usize::try_from(age).ok()?.checked_add(1)?.checked_mul(width)?;
            let index = self.percents.len().checked_sub(from_end)? + core;
            self.percents.get(index).copied().filter(|percent| *percent != UNKNOWN)
        };
        let column = |core: usize| (0..).map(|step| percent(first_age - step, core)).take(count).collect();
        (0..width).map(column).collect()
    }

    /// Begins with the newest step, of which nothing is known.
    fn begin(&mut self, width: usize) {
        self.sums = vec![0; width].into();
        self.samples = 0;
        self.percents = vec![UNKNOWN; width].into();
    }

    /// For how many bytes there is room.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.percents.capacity()
    }

    fn advance(&mut self, steps: usize) {
        if steps == 0 {
            return;
        }
        let width = self.sums.len();
        let (more, most) = (steps * width, FINE_STEPS * width);
        let old = (self.percents.len() + more).saturating_sub(most);
        self.percents.drain(..old);
        let length = self.percents.len() + more;
        make_room(&mut self.percents, length, most);
        self.percents.extend(std::iter::repeat_n(UNKNOWN, more));
        self.sums.fill(0);
        self.samples = 0;
    }
}

fn small(percent: f32) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0…100; NaN becomes 0")]
    let small = percent.round().clamp(0.0, 100.0) as u8;
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_means_and_holes_are_unknown() {
        let mut cores = Cores::default();
        cores.add(Some(&[10.0, 90.0]), 1);
        cores.add(Some(&[20.0, 100.0]), 0);
        cores.add(None, 1);
        cores.add(Some(&[7.0, 250.0]), 1);
        assert_eq!(
            cores.columns(3, 5),
            [[None, Some(15), None, Some(7), None], [None, Some(95), None, Some(100), None]]
        );
    }

    #[test]
    fn late_samples_fill_holes_and_nothing_else() {
        let mut cores = Cores::default();
        cores.fill(Some(&[1.0]), FINE_STEPS);
        assert_eq!(cores.columns(0, 1), Vec::<Vec<_>>::new());
        cores.fill(Some(&[1.0]), 1);
        cores.fill(Some(&[3.0, 4.0]), 0);
        assert_eq!(cores.columns(1, 2), [[Some(1), None]], "the first ones may be late");
        cores.add(Some(&[50.0]), 1);
        cores.fill(Some(&[2.0]), 2);
        cores.fill(Some(&[99.0]), 0);
        cores.fill(Some(&[9.0, 9.0]), 1);
        cores.fill(Some(&[9.0]), FINE_STEPS);
        assert_eq!(cores.columns(2, 3), [[Some(1), None, Some(50)]]);
    }

    #[test]
    fn another_number_of_cores_begins_anew_and_an_hour_is_kept() {
        let mut cores = Cores::default();
        cores.add(Some(&[1.0; 4]), 1);
        cores.add(Some(&[2.0]), 0);
        assert_eq!(cores.columns(1, 2), [[None, Some(2)]]);
        cores.add(Some(&[3.0; 300]), usize::MAX);
        assert_eq!(cores.columns(0, 1).len(), MOST_CORES);
        for _ in 0..2 * FINE_STEPS {
            cores.add(Some(&[4.0]), 1);
        }
        assert_eq!(cores.percents.len(), FINE_STEPS);
        for _ in 0..2 * MOST_SAMPLES {
            cores.add(Some(&[100.0]), 0);
        }
        assert_eq!(cores.columns(1, 2), [[Some(4), Some(99)]]);
    }
}
