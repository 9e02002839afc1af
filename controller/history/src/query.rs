//! What a chart asks for, and how an answer is made of blocks. Pure.

use std::collections::BTreeMap;

use pistat_protocol::{
    history::{Column, Origin},
    time::Timestamp,
};

use crate::{
    block::{Block, Source},
    codec::Point,
    series::{Key, SECONDS_TRUE, Selector, metric_by_id},
    tier::Tier,
};

/// The most steps of an answer.
pub const MAX_POINTS: u32 = 2000;

/// Lengths of a step that people read easily, in seconds.
const LENGTHS: [i64; 20] = [
    10, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    1_209_600, 2_592_000, 7_776_000,
];

/// A stretch of time and the series that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// From when on, in milliseconds since 1970.
    pub from: i64,
    /// Until when.
    pub to: i64,
    /// At most so many steps; two at least.
    pub points: u32,
    /// Which series; all if there is none.
    pub columns: Vec<Selector>,
}

impl Query {
    /// Whether a series is asked for.
    pub(crate) fn wants(&self, key: &Key) -> bool {
        self.columns.is_empty() || self.columns.iter().any(|selector| selector.selects(key))
    }
}

/// From which tier an answer is made, and of which steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The tier.
    pub tier: Tier,
    /// The length of a step, in milliseconds: a multiple of the tier's.
    pub step: i64,
    /// The number of the first step.
    pub first: i64,
    /// How many steps.
    pub count: usize,
}

impl Plan {
    /// The finest that has at most so many steps, from a tier that still has the beginning.
    /// `available` says from when on each tier has anything.
    pub fn new(query: &Query, available: [i64; 3]) -> Self {
        let points = i64::from(query.points.clamp(2, MAX_POINTS));
        let to = query.to.max(query.from.saturating_add(1));
        let least = if query.from >= available[0] {
            Tier::Fine
        } else if query.from >= available[1] {
            Tier::Minute
        } else {
            Tier::Quarter
        };
        let count = |step: i64| (to + step - 1).div_euclid(step) - query.from.div_euclid(step);
        let day = 86_400_000;
        let step = LENGTHS
            .into_iter()
            .filter(|seconds| *seconds >= i64::from(least.step_seconds()))
            .map(|seconds| seconds * 1000)
            .find(|step| count(*step) <= points)
            .unwrap_or_else(|| day * ((to - query.from) / day / (points - 1) + 1));
        let divides = |tier: &&Tier| step % tier.step_milliseconds() == 0;
        let tier = Tier::ALL.iter().rev().find(divides).copied().unwrap_or(Tier::Quarter);
        let count = usize::try_from(count(step)).unwrap_or(0).max(1);
        Self { tier, step, first: query.from.div_euclid(step), count }
    }

    /// The steps of a tier, of which the caller bounds how many there are.
    pub fn of_tier(query: &Query, tier: Tier) -> Self {
        let step = tier.step_milliseconds();
        let first = query.from.div_euclid(step);
        let count = usize::try_from((query.to + step - 1).div_euclid(step) - first).unwrap_or(0);
        Self { tier, step, first, count: count.clamp(1, MAX_POINTS as usize) }
    }

    /// When it begins, in milliseconds since 1970.
    pub fn start(&self) -> i64 {
        self.first * self.step
    }

    /// The first and the last block.
    pub(crate) fn blocks(&self) -> (i64, i64) {
        let block = |time: i64| self.tier.block_of(self.tier.step_of(time));
        let end = self.start() + i64::try_from(self.count).unwrap_or(0) * self.step;
        (block(self.start()).max(0), block(end - 1).max(0))
    }
}

/// One step of an answer that is being made.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    sum: f64,
    count: u32,
    min: i32,
    max: i32,
}

/// An answer that is being made.
#[derive(Debug)]
pub(crate) struct Gathering {
    plan: Plan,
    columns: BTreeMap<Key, Vec<Option<Bucket>>>,
    sources: Vec<Option<Source>>,
}

impl Gathering {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, columns: BTreeMap::new(), sources: vec![None; plan.count] }
    }

    /// Adds what a block knows.
    pub(crate) fn add(&mut self, block: &Block) {
        let (tier, plan) = (self.plan.tier, self.plan);
        let bucket = |slot: usize| {
            let time = (block.first_step() + i64::try_from(slot).ok()?) * tier.step_milliseconds();
            usize::try_from(time.div_euclid(plan.step) - plan.first).ok().filter(|index| *index < plan.count)
        };
        for (slot, source) in block.sources().iter().enumerate() {
            if let (Some(source), Some(index)) = (source, bucket(slot)) {
                let known = &mut self.sources[index];
                *known = if *known == Some(Source::Live) { *known } else { Some(*source) };
            }
        }
        for (key, column) in block.columns() {
            let Some(metric) = metric_by_id(key.metric) else { continue };
            let buckets = self.columns.entry(key.clone()).or_insert_with(|| vec![None; plan.count]);
            for (slot, point) in column.iter().enumerate() {
                if let (Some(point), Some(index)) = (point, bucket(slot)) {
                    gather(&mut buckets[index], *point, metric.scale.value(point.mean));
                }
            }
        }
    }

    /// The columns by name.
    pub(crate) fn columns(&self) -> BTreeMap<String, Column> {
        let column = |(key, buckets): (&Key, &Vec<Option<Bucket>>)| {
            let metric = metric_by_id(key.metric)?;
            // Seconds of a step for flags, whose share of the time is kept.
            #[expect(clippy::cast_precision_loss, reason = "a step has less than 2^53 milliseconds")]
            let factor = if metric.unit == SECONDS_TRUE { self.plan.step as f64 / 1000.0 } else { 1.0 };
            let list = |value: &dyn Fn(&Bucket) -> f64| {
                buckets.iter().map(|bucket| bucket.as_ref().map(|bucket| short(value(bucket) * factor))).collect()
            };
            Some((
                key.to_string(),
                Column {
                    unit: metric.unit.into(),
                    mean: list(&|bucket| bucket.sum / f64::from(bucket.count)),
                    min: list(&|bucket| metric.scale.value(bucket.min)),
                    max: list(&|bucket| metric.scale.value(bucket.max)),
                },
            ))
        };
        let has_any = |buckets: &&Vec<Option<Bucket>>| buckets.iter().any(Option::is_some);
        self.columns.iter().filter(|(_, buckets)| has_any(buckets)).filter_map(column).collect()
    }

    /// The stretches of which anything is known.
    pub(crate) fn known(&self) -> Vec<(Timestamp, Timestamp, Origin)> {
        let mut stretches: Vec<(i64, i64, Source)> = Vec::new();
        for (number, source) in (self.plan.first..).zip(&self.sources) {
            let Some(source) = source else { continue };
            let (from, to) = (number * self.plan.step, (number + 1) * self.plan.step);
            match stretches.last_mut() {
                Some((_, end, last)) if *end == from && last == source => *end = to,
                _ => stretches.push((from, to, *source)),
            }
        }
        let time = Timestamp::from_unix_milliseconds;
        let origin = |source| if source == Source::Live { Origin::Live } else { Origin::Late };
        stretches.into_iter().map(|(from, to, source)| (time(from), time(to), origin(source))).collect()
    }
}

fn gather(bucket: &mut Option<Bucket>, point: Point, mean: f64) {
    let bucket = bucket.get_or_insert(Bucket { sum: 0.0, count: 0, min: i32::MAX, max: i32::MIN });
    bucket.sum += mean;
    bucket.count += 1;
    bucket.min = bucket.min.min(point.min);
    bucket.max = bucket.max.max(point.max);
}

/// Without digits that were never measured.
fn short(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a chart needs less")]
    let short = if value.abs() < 1e6 { (value * 100.0).round() / 100.0 } else { value.round() } as f32;
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_made_of_the_coarsest_tier_that_is_fine_enough() {
        const DAY: i64 = 86_400_000;
        let now = 20_000 * DAY;
        let available = [now - 7 * DAY, now - 90 * DAY, now - 1826 * DAY];
        // (length and age of the end in seconds, points, tier, step in seconds)
        let table = [
            (300, 0, 600, Tier::Fine, 10),
            (3_600, 0, 600, Tier::Fine, 10),
            (86_400, 0, 600, Tier::Minute, 300),
            (86_400, 0, 2_000, Tier::Minute, 60),
            (86_400, 0, 100, Tier::Quarter, 900),
            (3_600, 8 * 86_400, 600, Tier::Minute, 60),
            (3_600, 100 * 86_400, 600, Tier::Quarter, 900),
            (90 * 86_400, 0, 600, Tier::Quarter, 21_600),
            (1826 * 86_400, 0, 600, Tier::Quarter, 604_800),
            (1826 * 86_400, 0, 2, Tier::Quarter, 1_826 * 86_400),
        ];
        for (seconds, age, points, tier, step) in table {
            let to = now - age * 1000;
            let query = Query { from: to - seconds * 1000, to, points, columns: Vec::new() };
            let plan = Plan::new(&query, available);
            assert!(plan.count <= points as usize && plan.start() <= query.from, "{seconds} {plan:?}");
            if points > 2 {
                assert_eq!((plan.tier, plan.step), (tier, step * 1000), "{seconds} s, {age} s ago");
            } else {
                assert_eq!(plan.tier, tier);
            }
        }
    }
}
