//! Steps that are not on the disk yet, one row each: a byte for a value that hardly changed. Pure.

use crate::{
    block::{Source, Step},
    codec::{Point, fold, put, take, unfold},
    series::Key,
};

/// Room grows by this, since a doubling would waste half of a fleet's memory.
const GROWTH_BYTES: usize = 512;

/// The steps of one tier, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
    /// The number of the last step.
    last_step: i64,
    /// The last mean of each column.
    last: Vec<i32>,
    has_range: bool,
}

impl Rows {
    pub(crate) fn new(has_range: bool) -> Self {
        Self { has_range, ..Self::default() }
    }

    /// Appends a step: a point for each of the machine's columns, whose list only grows.
    pub(crate) fn push(&mut self, step: i64, source: Source, points: &[Option<Point>]) {
        let mut row = Vec::with_capacity(points.len() * 3 + 8);
        put(&mut row, fold(step - self.last_step) << 1 | u64::from(source == Source::Late));
        self.last_step = step;
        put(&mut row, points.len() as u64);
        self.last.resize(points.len().max(self.last.len()), 0);
        for (point, last) in points.iter().zip(&mut self.last) {
            let Some(point) = point else {
                row.push(0);
                continue;
            };
            put(&mut row, fold(i64::from(point.mean) - i64::from(*last)) + 1);
            *last = point.mean;
            if self.has_range {
                put(&mut row, fold(i64::from(point.mean) - i64::from(point.min)));
                put(&mut row, fold(i64::from(point.max) - i64::from(point.mean)));
            }
        }
        if self.bytes.capacity() - self.bytes.len() < row.len() {
            self.bytes.reserve_exact(row.len().max(GROWTH_BYTES));
        }
        self.bytes.extend_from_slice(&row);
    }

    /// The steps, with the names of the columns.
    pub(crate) fn steps(&self, keys: &[Key], wanted: impl Fn(&Key) -> bool) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut rest = &self.bytes[..];
        let (mut number, mut last) = (0_i64, vec![0_i64; self.last.len()]);
        while let Some(step) = self.next(&mut rest, &mut number, &mut last, keys, &wanted) {
            steps.push(step);
        }
        steps
    }

    /// The next step; these are our own bytes, so that what does not fit is their end.
    fn next(
        &self,
        rest: &mut &[u8],
        number: &mut i64,
        last: &mut [i64],
        keys: &[Key],
        wanted: impl Fn(&Key) -> bool,
    ) -> Option<Step> {
        let head = take(rest).ok()?;
        *number += unfold(head >> 1);
        let source = if head & 1 == 1 { Source::Late } else { Source::Live };
        let count = usize::try_from(take(rest).ok()?).ok()?;
        let mut values = Vec::new();
        for (key, last) in keys.iter().zip(last).take(count) {
            let Some(difference) = take(rest).ok()?.checked_sub(1) else { continue };
            *last += unfold(difference);
            let mean = i32::try_from(*last).ok()?;
            let mut point = Point::of(mean);
            if self.has_range {
                point.min = mean - i32::try_from(unfold(take(rest).ok()?)).ok()?;
                point.max = mean + i32::try_from(unfold(take(rest).ok()?)).ok()?;
            }
            if wanted(key) {
                values.push((key.clone(), point));
            }
        }
        Some(Step { number: *number, source, values })
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes in memory.
    pub(crate) fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets all steps.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.has_range);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::series::Instance;

    proptest! {
        #[test]
        fn rows_read_back_in_any_order_of_steps(
            rows in proptest::collection::vec(
                (-100_000..100_000_000_i64, any::<bool>(), proptest::collection::vec(proptest::option::of((-500..500, 0..9, 0..9)), 0..6)),
                0..40,
            ),
        ) {
            let keys: Vec<Key> = (0..6).map(|metric| Key { metric, instance: Instance::Only }).collect();
            let mut kept = Rows::new(true);
            let mut expected = Vec::new();
            let mut width = 0;
            for (number, is_late, points) in rows {
                width = width.max(points.len());
                let source = if is_late { Source::Late } else { Source::Live };
                let mut points: Vec<_> = points
                    .into_iter()
                    .map(|point| point.map(|(mean, below, above)| Point { mean, min: mean - below, max: mean + above }))
                    .collect();
                points.resize(width, None);
                kept.push(number, source, &points);
                let values = keys.iter().zip(&points).filter_map(|(key, point)| Some((key.clone(), (*point)?))).collect();
                expected.push(Step { number, source, values });
            }
            prop_assert_eq!(kept.steps(&keys, |_| true), expected);
        }
    }
}
