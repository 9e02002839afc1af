//! What is in memory of one machine: the step that is being measured, and those that are not on the
//! disk yet. Pure.

use std::collections::BTreeMap;

use pistat_protocol::stats::Sample;

use crate::{
    block::{Source, Step},
    codec::Point,
    rows::Rows,
    series::{Key, MAX_SERIES, Which, metric_by_id, visit},
    tier::Tier,
};

/// The mean of a step that is being measured.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn get(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// One series of the steps that are being measured.
#[derive(Debug, Clone)]
struct Open {
    fine: Mean,
    minute: Mean,
    min: i32,
    max: i32,
}

impl Default for Open {
    fn default() -> Self {
        Self { fine: Mean::default(), minute: Mean::default(), min: i32::MAX, max: i32::MIN }
    }
}

/// One machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    keys: Vec<Key>,
    open: Vec<Open>,
    /// The fine step and the minute that are being measured.
    open_steps: Option<(i64, i64)>,
    fine: Rows,
    minute: Rows,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            open: Vec::new(),
            open_steps: None,
            fine: Rows::new(Tier::Fine.has_range()),
            minute: Rows::new(Tier::Minute.has_range()),
        }
    }
}

impl Machine {
    /// A sample came at this time, in milliseconds since 1970.
    pub(crate) fn live(&mut self, sample: &Sample, at: i64) {
        let now = (Tier::Fine.step_of(at), Tier::Minute.step_of(at));
        if let Some((fine, minute)) = self.open_steps {
            if fine != now.0 {
                self.close_fine(fine);
            }
            if minute != now.1 {
                self.close_minute(minute);
            }
        }
        self.open_steps = Some(now);
        let mut hint = 0;
        visit(sample, |metric, which, value| {
            let Some(scale) = metric_by_id(metric).map(|metric| metric.scale) else { return };
            let Some(number) = scale.quantise(value) else { return };
            let Some(index) = self.column(metric, which, &mut hint) else { return };
            let open = &mut self.open[index];
            open.fine.add(value);
            open.minute.add(value);
            open.min = open.min.min(number);
            open.max = open.max.max(number);
        });
    }

    /// A sample of this time came afterwards.
    pub(crate) fn late(&mut self, sample: &Sample, at: i64) {
        let mut points = vec![None; self.keys.len()];
        let mut hint = 0;
        visit(sample, |metric, which, value| {
            let number = metric_by_id(metric).and_then(|metric| metric.scale.quantise(value));
            let Some(index) = self.column(metric, which, &mut hint) else { return };
            points.resize(self.keys.len(), None);
            points[index] = number.map(Point::of);
        });
        self.fine.push(Tier::Fine.step_of(at), Source::Late, &points);
        self.minute.push(Tier::Minute.step_of(at), Source::Late, &points);
    }

    /// The column of a series. Samples name theirs in the same order, so the next one is tried
    /// first.
    fn column(&mut self, metric: u8, which: Which<'_>, hint: &mut usize) -> Option<usize> {
        let is = |key: &Key| key.metric == metric && which.is(&key.instance);
        let found = if self.keys.get(*hint).is_some_and(is) { Some(*hint) } else { self.keys.iter().position(is) };
        let index = match found {
            Some(index) => index,
            None if self.keys.len() >= MAX_SERIES => return None,
            None => {
                if self.keys.capacity() == self.keys.len() {
                    self.keys.reserve_exact(4);
                    self.open.reserve_exact(4);
                }
                self.keys.push(Key { metric, instance: which.to_instance() });
                self.open.push(Open::default());
                self.keys.len() - 1
            }
        };
        *hint = index + 1;
        Some(index)
    }

    fn close_fine(&mut self, step: i64) {
        let points = self.fine_points();
        self.fine.push(step, Source::Live, &points);
        self.open.iter_mut().for_each(|open| open.fine = Mean::default());
    }

    fn close_minute(&mut self, step: i64) {
        let points = self.minute_points();
        self.minute.push(step, Source::Live, &points);
        for open in &mut self.open {
            *open = Open { fine: open.fine, ..Open::default() };
        }
    }

    fn fine_points(&self) -> Vec<Option<Point>> {
        let point = |(open, key): (&Open, &Key)| Some(Point::of(quantise(key, open.fine.get()?)?));
        self.open.iter().zip(&self.keys).map(point).collect()
    }

    fn minute_points(&self) -> Vec<Option<Point>> {
        let point = |(open, key): (&Open, &Key)| {
            let mean = quantise(key, open.minute.get()?)?.clamp(open.min, open.max);
            Some(Point { mean, min: open.min, max: open.max })
        };
        self.open.iter().zip(&self.keys).map(point).collect()
    }

    /// Ends the steps that are being measured, before the program ends.
    pub(crate) fn close(&mut self) {
        if let Some((fine, minute)) = self.open_steps.take() {
            self.close_fine(fine);
            self.close_minute(minute);
        }
    }

    /// What is not on the disk, with the step that is being measured.
    pub(crate) fn steps(&self, tier: Tier, wanted: impl Fn(&Key) -> bool) -> Vec<Step> {
        let (rows, open) = match tier {
            Tier::Fine => (&self.fine, self.open_steps.map(|(fine, _)| (fine, self.fine_points()))),
            _ => (&self.minute, self.open_steps.map(|(_, minute)| (minute, self.minute_points()))),
        };
        let mut steps = rows.steps(&self.keys, &wanted);
        if let Some((number, points)) = open {
            let value =
                |(key, point): (&Key, Option<Point>)| Some((key.clone(), point?)).filter(|(key, _)| wanted(key));
            let values = self.keys.iter().zip(points).filter_map(value).collect();
            steps.push(Step { number, source: Source::Live, values });
        }
        steps
    }

    /// The finished steps of a tier that are to be written, by block.
    pub(crate) fn finished(&self, tier: Tier) -> BTreeMap<i64, Vec<Step>> {
        let rows = if tier == Tier::Fine { &self.fine } else { &self.minute };
        let mut blocks: BTreeMap<i64, Vec<Step>> = BTreeMap::new();
        for step in rows.steps(&self.keys, |_| true) {
            blocks.entry(tier.block_of(step.number)).or_default().push(step);
        }
        blocks
    }

    /// Whether anything is to be written.
    pub(crate) fn is_clean(&self) -> bool {
        self.fine.is_empty() && self.minute.is_empty()
    }

    /// Ends the steps that are being measured if nothing came for a while: the machine is off.
    pub(crate) fn settle(&mut self, wall: i64) {
        if self.open_steps.is_some_and(|(_, minute)| Tier::Minute.step_of(wall) - minute > 2) {
            self.close();
        }
    }

    /// Whether no step is being measured.
    pub(crate) fn is_idle(&self) -> bool {
        self.open_steps.is_none()
    }

    /// The finished steps are on the disk, or given up.
    pub(crate) fn clear(&mut self) {
        self.fine.clear();
        self.minute.clear();
        // Series that are gone, such as a disk that was removed, make room for others.
        let used: Vec<bool> = self.open.iter().map(|open| open.minute.count > 0 || open.fine.count > 0).collect();
        if self.open_steps.is_some() && used.iter().any(|used| *used) {
            let mut index = used.iter();
            self.keys.retain(|_| *index.next().unwrap_or(&true));
            let mut index = used.iter();
            self.open.retain(|_| *index.next().unwrap_or(&true));
        }
    }

    /// Bytes of the steps that are not on the disk.
    pub(crate) fn unwritten(&self) -> usize {
        self.fine.room() + self.minute.room()
    }

    /// Bytes in memory.
    pub(crate) fn room(&self) -> usize {
        self.unwritten() + self.keys.capacity() * (size_of::<Key>() + size_of::<Open>()) + size_of::<Self>()
    }
}

fn quantise(key: &Key, value: f64) -> Option<i32> {
    metric_by_id(key.metric)?.scale.quantise(value)
}

#[cfg(test)]
mod tests {
    use pistat_protocol::time::Timestamp;

    use super::*;

    fn sample(cpu: f32, cores: &[f32]) -> Sample {
        Sample {
            cpu_percent: Some(cpu),
            cpu_cores_percent: Some(cores.to_vec()),
            ..Sample::new(Timestamp::from_unix_milliseconds(0), true, 0)
        }
    }

    fn cpu(steps: &[Step]) -> Vec<(i64, Point)> {
        let of =
            |step: &Step| step.values.iter().find(|(key, _)| key.metric == 1).map(|(_, point)| (step.number, *point));
        steps.iter().filter_map(of).collect()
    }

    #[test]
    fn a_step_holds_means_and_a_minute_its_extremes() {
        let mut machine = Machine::default();
        for (seconds, value) in [(0, 10.0), (5, 20.0), (30, 90.0), (60, 1.0)] {
            machine.live(&sample(value, &[value]), seconds * 1000);
        }
        let fine = [(0, Point::of(30)), (3, Point::of(180)), (6, Point::of(2))];
        assert_eq!(cpu(&machine.steps(Tier::Fine, |_| true)), fine);
        let minute = [(0, Point { mean: 80, min: 20, max: 180 }), (1, Point::of(2))];
        assert_eq!(cpu(&machine.steps(Tier::Minute, |_| true)), minute);
        assert_eq!(machine.finished(Tier::Minute)[&0].len(), 1, "the minute that is measured is not finished");
        machine.close();
        assert_eq!(machine.finished(Tier::Minute)[&0].len(), 2);
    }

    #[test]
    fn series_that_are_gone_make_room_for_others() {
        let mut machine = Machine::default();
        machine.live(&sample(1.0, &[1.0; 300]), 0);
        assert_eq!(machine.keys.len(), MAX_SERIES);
        machine.live(&sample(1.0, &[2.0]), 60_000);
        machine.clear();
        assert_eq!(machine.keys.len(), 2);
        machine.live(&sample(5.0, &[9.0, 9.0]), 120_000);
        assert_eq!(machine.keys.len(), 3);
        assert_eq!(cpu(&machine.steps(Tier::Minute, |_| true)).len(), 2);
    }

    #[test]
    fn a_clock_that_jumps_makes_steps_where_it_was() {
        let mut machine = Machine::default();
        for (seconds, value) in [(100, 10.0), (1_000_000, 20.0), (110, 30.0)] {
            machine.live(&sample(value, &[]), seconds * 1000);
        }
        let numbers: Vec<i64> = machine.steps(Tier::Fine, |_| true).iter().map(|step| step.number).collect();
        assert_eq!(numbers, [10, 100_000, 11]);
    }
}
