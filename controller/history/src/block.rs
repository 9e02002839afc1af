//! A block: one machine, one tier, a fixed stretch of time, all series. Pure.
//!
//! Its bytes name every series and end with a checksum, so a block stands for itself: damage in one
//! hurts no other. A step is live or late as a whole. A live step was received when it was
//! measured; a late one was sent afterwards. The first live value wins, live wins over late, and
//! both hold in whatever order steps come.

use std::collections::BTreeMap;

use crate::{
    codec::{self, Damaged, Point, put, take},
    scale::Scale,
    series::{Instance, Key, MAX_SERIES, metric_by_id},
    tier::Tier,
};

/// The form of the bytes.
const FORM: u8 = 1;

/// The longest block that is read.
const MAX_BYTES: usize = 4 << 20;

const CHECKSUM_BYTES: usize = 4;

/// How a step came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// When it was measured.
    Live,
    /// Afterwards, from the agent's memory.
    Late,
}

/// One step of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number in its tier.
    pub number: i64,
    /// How it came.
    pub source: Source,
    /// What is known.
    pub values: Vec<(Key, Point)>,
}

/// A block in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    tier: Tier,
    number: i64,
    sources: Vec<Option<Source>>,
    columns: BTreeMap<Key, Vec<Option<Point>>>,
}

impl Block {
    /// An empty block of this number.
    pub fn new(tier: Tier, number: i64) -> Self {
        Self { tier, number, sources: vec![None; tier.slots()], columns: BTreeMap::new() }
    }

    /// Its tier.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The number of its first step.
    pub fn first_step(&self) -> i64 {
        self.number * self.tier.slots_signed()
    }

    /// How each step came to be known; `None` where nothing is.
    pub fn sources(&self) -> &[Option<Source>] {
        &self.sources
    }

    /// Its series.
    pub fn columns(&self) -> &BTreeMap<Key, Vec<Option<Point>>> {
        &self.columns
    }

    /// Adds steps, of which those outside of the block are left out.
    pub fn merge<'a>(&mut self, steps: impl Iterator<Item = &'a Step> + Clone) {
        steps.clone().filter(|step| step.source == Source::Live).for_each(|step| self.add(step));
        steps.filter(|step| step.source == Source::Late).for_each(|step| self.add(step));
    }

    fn add(&mut self, step: &Step) {
        let slot = usize::try_from(step.number - self.first_step()).ok().filter(|slot| *slot < self.sources.len());
        let Some(slot) = slot else { return };
        match (self.sources[slot], step.source) {
            (Some(Source::Live), Source::Late) => return,
            (Some(Source::Late), Source::Live) => self.columns.values_mut().for_each(|column| column[slot] = None),
            _ => {}
        }
        self.sources[slot] = Some(step.source);
        for (key, point) in &step.values {
            if !self.columns.contains_key(key) {
                if self.columns.len() >= MAX_SERIES {
                    continue;
                }
                self.columns.insert(key.clone(), vec![None; self.sources.len()]);
            }
            if let Some(column) = self.columns.get_mut(key) {
                column[slot] = column[slot].or(Some(*point));
            }
        }
    }

    /// Puts quarters in the place of what was there: they are made anew from all their minutes.
    pub(crate) fn replace(&mut self, steps: &[Step]) {
        for step in steps {
            let slot = usize::try_from(step.number - self.first_step()).ok().filter(|slot| *slot < self.sources.len());
            if let Some(slot) = slot {
                self.sources[slot] = None;
                self.columns.values_mut().for_each(|column| column[slot] = None);
                self.add(step);
            }
        }
    }

    /// The quarters of an hour that this block of minutes holds, as far as anything is known of
    /// them.
    pub(crate) fn quarters(&self) -> Vec<Step> {
        let length = usize::try_from(Tier::Quarter.step_seconds() / Tier::Minute.step_seconds()).unwrap_or(1);
        let ratio = i64::try_from(length).unwrap_or(1);
        let quarter = |index: usize| {
            let minutes = index * length..(index + 1) * length;
            let known = || self.sources[minutes.clone()].iter().flatten();
            known().next()?;
            let source = if known().any(|source| *source == Source::Live) { Source::Live } else { Source::Late };
            let value = |(key, column): (&Key, &Vec<Option<Point>>)| {
                let scale = metric_by_id(key.metric).map_or(Scale::Linear(1.0), |metric| metric.scale);
                Some((key.clone(), Point::gather(column[minutes.clone()].iter().flatten().copied(), scale)?))
            };
            let number = self.first_step() / ratio + i64::try_from(index).ok()?;
            Some(Step { number, source, values: self.columns.iter().filter_map(value).collect() })
        };
        (0..self.sources.len() / length).filter_map(quarter).collect()
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (mut head, mut frames) = (vec![FORM], Vec::new());
        let sources: Vec<_> = self
            .sources
            .iter()
            .map(|source| source.map(|source| Point::of(i32::from(source == Source::Late))))
            .collect();
        let sources = codec::encode(&sources, false);
        put(&mut head, sources.len() as u64);
        frames.extend(sources);
        let known = || self.columns.iter().filter(|(_, column)| column.iter().any(Option::is_some));
        put(&mut head, known().count() as u64);
        for (key, column) in known() {
            let frame = codec::encode(column, self.tier.has_range());
            put_key(&mut head, key);
            put(&mut head, frame.len() as u64);
            frames.extend(frame);
        }
        head.extend(frames);
        let checksum = crc32fast::hash(&head);
        head.extend(checksum.to_le_bytes());
        head
    }

    /// From bytes, with the series that are wanted.
    ///
    /// # Errors
    /// They are not a block.
    pub fn decode(tier: Tier, number: i64, bytes: &[u8], wanted: impl Fn(&Key) -> bool) -> Result<Self, Damaged> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Damaged)?;
        if bytes.len() > MAX_BYTES || crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(Damaged);
        }
        Self::decode_body(tier, number, body, wanted)
    }

    /// [`Block::decode`] without the checksum.
    ///
    /// # Errors
    /// They are not a block.
    pub fn decode_body(tier: Tier, number: i64, body: &[u8], wanted: impl Fn(&Key) -> bool) -> Result<Self, Damaged> {
        let (form, mut rest) = body.split_first().ok_or(Damaged)?;
        if *form != FORM {
            return Err(Damaged);
        }
        let sources_length = take_length(&mut rest)?;
        let count = take_length(&mut rest)?;
        if count > MAX_SERIES {
            return Err(Damaged);
        }
        let mut directory = Vec::with_capacity(count);
        for _ in 0..count {
            directory.push((take_key(&mut rest)?, take_length(&mut rest)?));
        }
        let mut block = Self::new(tier, number);
        for (source, point) in
            block.sources.iter_mut().zip(codec::decode(split(&mut rest, sources_length)?, tier.slots(), false)?)
        {
            *source = point.map(|point| if point.mean == 0 { Source::Live } else { Source::Late });
        }
        for (key, length) in directory {
            let frame = split(&mut rest, length)?;
            if wanted(&key) {
                block.columns.insert(key, codec::decode(frame, tier.slots(), tier.has_range())?);
            }
        }
        if rest.is_empty() { Ok(block) } else { Err(Damaged) }
    }
}

const ONLY: u8 = 0;
const NUMBER: u8 = 1;
const NAME: u8 = 2;

fn put_key(bytes: &mut Vec<u8>, key: &Key) {
    bytes.push(key.metric);
    match &key.instance {
        Instance::Only => bytes.push(ONLY),
        Instance::Number(number) => {
            bytes.push(NUMBER);
            put(bytes, u64::from(*number));
        }
        Instance::Name(name) => {
            bytes.push(NAME);
            put(bytes, name.len() as u64);
            bytes.extend(name.as_bytes());
        }
    }
}

fn take_key(bytes: &mut &[u8]) -> Result<Key, Damaged> {
    let head = split(bytes, 2)?;
    let instance = match head[1] {
        ONLY => Instance::Only,
        NUMBER => Instance::Number(u16::try_from(take(bytes)?).map_err(|_| Damaged)?),
        NAME => {
            let length = take_length(bytes)?;
            let name = std::str::from_utf8(split(bytes, length)?).map_err(|_| Damaged)?;
            Instance::Name(name.into())
        }
        _ => return Err(Damaged),
    };
    Ok(Key { metric: head[0], instance })
}

fn take_length(bytes: &mut &[u8]) -> Result<usize, Damaged> {
    usize::try_from(take(bytes)?).map_err(|_| Damaged)
}

fn split<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Damaged> {
    let (first, rest) = bytes.split_at_checked(length).ok_or(Damaged)?;
    *bytes = rest;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(metric: u8) -> Key {
        Key { metric, instance: Instance::Only }
    }

    fn step(number: i64, source: Source, values: &[(u8, i32)]) -> Step {
        Step {
            number,
            source,
            values: values.iter().map(|(metric, value)| (key(*metric), Point::of(*value))).collect(),
        }
    }

    fn block(steps: &[Step]) -> Block {
        let mut block = Block::new(Tier::Minute, 0);
        block.merge(steps.iter());
        block
    }

    fn at(block: &Block, metric: u8, slot: usize) -> Option<i32> {
        block.columns().get(&key(metric)).and_then(|column| column[slot]).map(|point| point.mean)
    }

    #[test]
    fn the_first_live_value_wins_over_later_and_over_late_ones() {
        use Source::{Late, Live};
        // (what came, what is known of two series of step 5)
        let table: [(&[Step], [Option<i32>; 2]); 6] = [
            (&[step(5, Live, &[(1, 10)]), step(5, Live, &[(1, 20)])], [Some(10), None]),
            (&[step(5, Live, &[(1, 10)]), step(5, Live, &[(1, 20), (2, 7)])], [Some(10), Some(7)]),
            (&[step(5, Late, &[(1, 10)]), step(5, Late, &[(1, 20)])], [Some(10), None]),
            (&[step(5, Late, &[(1, 10), (2, 7)]), step(5, Live, &[(1, 20)])], [Some(20), None]),
            (&[step(5, Live, &[(1, 20)]), step(5, Late, &[(1, 10), (2, 7)])], [Some(20), None]),
            (&[step(5, Late, &[(2, 7)]), step(240, Live, &[(1, 1)]), step(-1, Live, &[(1, 1)])], [None, Some(7)]),
        ];
        for (steps, expected) in table {
            let together = block(steps);
            let mut one_by_one = Block::new(Tier::Minute, 0);
            for step in steps {
                one_by_one.merge(std::iter::once(step));
            }
            for block in [together, one_by_one] {
                assert_eq!([1, 2].map(|metric| at(&block, metric, 5)), expected, "{steps:?}");
            }
        }
    }

    #[test]
    fn a_quarter_keeps_every_spike_and_dip_of_its_minutes() {
        let mut steps: Vec<Step> = (15..30).map(|minute| step(minute, Source::Live, &[(1, 40)])).collect();
        steps[3].values[0].1 = Point { mean: 60, min: 2, max: 190 };
        let quarters = block(&steps).quarters();
        assert_eq!(quarters.len(), 1);
        assert_eq!(quarters[0].number, 1);
        assert_eq!(quarters[0].values, [(key(1), Point { mean: 41, min: 2, max: 190 })]);
    }

    #[test]
    fn a_block_reads_back_and_one_changed_byte_is_found() {
        let whole = block(&[step(0, Source::Live, &[(1, 10), (99, -5)]), step(239, Source::Late, &[(1, 12)])]);
        let bytes = whole.encode();
        assert_eq!(Block::decode(Tier::Minute, 0, &bytes, |_| true), Ok(whole.clone()));
        let one = Block::decode(Tier::Minute, 0, &bytes, |key| key.metric == 99).unwrap();
        assert_eq!((one.columns().len(), one.sources()), (1, whole.sources()));
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 0x10;
            assert_eq!(Block::decode(Tier::Minute, 0, &changed, |_| true), Err(Damaged), "byte {index}");
        }
    }

    #[test]
    fn more_series_than_are_kept_are_left_out() {
        let values = (0..300_u16).map(|core| (Key { metric: 2, instance: Instance::Number(core) }, Point::of(1)));
        let block = block(&[Step { number: 0, source: Source::Live, values: values.collect() }]);
        assert_eq!(Block::decode(Tier::Minute, 0, &block.encode(), |_| true).unwrap().columns().len(), MAX_SERIES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_block_or_damaged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Block::decode_body(Tier::Quarter, 1, &bytes, |_| true);
        }
    }
}
