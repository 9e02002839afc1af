//! A column of a block in bytes: which steps are known, the differences between values, compressed.
//! Pure.
//!
//! The decoder takes any bytes: it never panics, and what it allocates is bounded by the number of
//! steps.

use crate::scale::Scale;

/// What one step of a series holds, in numbers of its [`Scale`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The mean.
    pub mean: i32,
    /// The smallest value; never above the mean.
    pub min: i32,
    /// The largest value; never below the mean.
    pub max: i32,
}

impl Point {
    /// One value.
    pub fn of(value: i32) -> Self {
        Self { mean: value, min: value, max: value }
    }

    /// One step made of several.
    pub(crate) fn gather(points: impl Iterator<Item = Self> + Clone, scale: Scale) -> Option<Self> {
        let min = points.clone().map(|point| point.min).min()?;
        let max = points.clone().map(|point| point.max).max()?;
        let (sum, count) = points.fold((0.0, 0.0), |(sum, count), point| (sum + scale.value(point.mean), count + 1.0));
        let mean = scale.quantise(sum / count)?.clamp(min, max);
        Some(Self { mean, min, max })
    }
}

/// Bytes that are not a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is damaged")]
pub struct Damaged;

const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

/// Bytes of the longest number that [`put`] writes for a column.
const MAX_NUMBER_BYTES: usize = 5;

/// Appends a number, seven bits a byte.
pub(crate) fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// Takes a number that [`put`] wrote.
pub(crate) fn take(bytes: &mut &[u8]) -> Result<u64, Damaged> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(Damaged)?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

/// Small numbers of either sign as small numbers without one.
pub(crate) fn fold(number: i64) -> u64 {
    (number.wrapping_shl(1) ^ (number >> 63)).cast_unsigned()
}

/// The inverse of [`fold`].
pub(crate) fn unfold(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// A column in bytes.
pub fn encode(column: &[Option<Point>], has_range: bool) -> Vec<u8> {
    let plain = plain(column, has_range);
    let compressed = lz4_flex::block::compress(&plain);
    let mut bytes = Vec::with_capacity(plain.len().min(compressed.len()) + 4);
    if compressed.len() + 2 < plain.len() {
        bytes.push(COMPRESSED);
        put(&mut bytes, plain.len() as u64);
        bytes.extend_from_slice(&compressed);
    } else {
        bytes.push(PLAIN);
        bytes.extend_from_slice(&plain);
    }
    bytes
}

fn plain(column: &[Option<Point>], has_range: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(column.len() * if has_range { 3 } else { 1 } + 8);
    // Lengths of runs that are known, unknown, known …
    let mut is_known = true;
    let mut rest = column;
    while !rest.is_empty() {
        let run = rest.iter().take_while(|point| point.is_some() == is_known).count();
        put(&mut bytes, run as u64);
        rest = &rest[run..];
        is_known = !is_known;
    }
    let known = || column.iter().flatten();
    let mut last = 0;
    for point in known() {
        put(&mut bytes, fold(i64::from(point.mean) - last));
        last = i64::from(point.mean);
    }
    if has_range {
        let distance = |from: i32, to: i32| u64::try_from(i64::from(to) - i64::from(from)).unwrap_or(0);
        known().for_each(|point| put(&mut bytes, distance(point.min, point.mean)));
        known().for_each(|point| put(&mut bytes, distance(point.mean, point.max)));
    }
    bytes
}

/// A column of `slots` steps from bytes.
///
/// # Errors
/// They are not such a column.
pub fn decode(bytes: &[u8], slots: usize, has_range: bool) -> Result<Vec<Option<Point>>, Damaged> {
    let (form, mut rest) = bytes.split_first().ok_or(Damaged)?;
    match *form {
        PLAIN => read_plain(rest, slots, has_range),
        COMPRESSED => {
            let length = usize::try_from(take(&mut rest)?).map_err(|_| Damaged)?;
            if length > slots * MAX_NUMBER_BYTES * 4 {
                return Err(Damaged);
            }
            let plain = lz4_flex::block::decompress(rest, length).map_err(|_| Damaged)?;
            read_plain(&plain, slots, has_range)
        }
        _ => Err(Damaged),
    }
}

fn read_plain(mut bytes: &[u8], slots: usize, has_range: bool) -> Result<Vec<Option<Point>>, Damaged> {
    let mut column = Vec::with_capacity(slots);
    let mut is_known = true;
    while column.len() < slots {
        let run = usize::try_from(take(&mut bytes)?).map_err(|_| Damaged)?;
        // Only the first run may be empty; otherwise a few bytes could loop for ever.
        if run > slots - column.len() || (run == 0 && !column.is_empty()) || (run == 0 && !is_known) {
            return Err(Damaged);
        }
        column.resize(column.len() + run, is_known.then_some(Point::of(0)));
        is_known = !is_known;
    }
    let mut last = 0_i64;
    for point in column.iter_mut().flatten() {
        last = last.checked_add(unfold(take(&mut bytes)?)).ok_or(Damaged)?;
        *point = Point::of(i32::try_from(last).map_err(|_| Damaged)?);
    }
    if has_range {
        for point in column.iter_mut().flatten() {
            let distance = i32::try_from(take(&mut bytes)?).map_err(|_| Damaged)?;
            point.min = point.mean.checked_sub(distance).ok_or(Damaged)?;
        }
        for point in column.iter_mut().flatten() {
            let distance = i32::try_from(take(&mut bytes)?).map_err(|_| Damaged)?;
            point.max = point.mean.checked_add(distance).ok_or(Damaged)?;
        }
    }
    if bytes.is_empty() { Ok(column) } else { Err(Damaged) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points() -> impl Strategy<Value = Vec<Option<Point>>> {
        let value = prop_oneof![-50..50, -1_000_000_000..1_000_000_000];
        let point = (value, 0..200, 0..200).prop_map(|(mean, below, above)| Point {
            mean,
            min: mean - below,
            max: mean + above,
        });
        proptest::collection::vec(proptest::option::weighted(0.8, point), 1..400)
    }

    proptest! {
        #[test]
        fn a_column_reads_back_as_it_was_written(column in points()) {
            let bytes = encode(&column, true);
            prop_assert_eq!(decode(&bytes, column.len(), true), Ok(column.clone()));
            let means: Vec<_> = column.iter().map(|point| point.map(|point| Point::of(point.mean))).collect();
            prop_assert_eq!(decode(&encode(&means, false), column.len(), false), Ok(means));
        }

        #[test]
        fn any_bytes_are_a_column_or_damaged(bytes in proptest::collection::vec(any::<u8>(), 0..300), has_range: bool) {
            if let Ok(column) = decode(&bytes, 96, has_range) {
                prop_assert_eq!(column.len(), 96);
                prop_assert_eq!(decode(&encode(&column, has_range), 96, has_range), Ok(column));
            }
        }

        #[test]
        fn numbers_fold(number: i64) {
            prop_assert_eq!(unfold(fold(number)), number);
        }
    }

    #[test]
    fn a_quiet_column_takes_a_few_bytes() {
        assert!(encode(&vec![Some(Point::of(87)); 360], false).len() < 24);
        assert!(encode(&[None; 360], false).len() < 8);
    }

    #[test]
    fn a_length_that_claims_too_much_is_refused_before_anything_is_allocated() {
        let mut bytes = vec![COMPRESSED];
        put(&mut bytes, u64::from(u32::MAX));
        assert_eq!(decode(&bytes, 360, false), Err(Damaged));
        assert_eq!(decode(&[PLAIN, 0, 0, 0], 360, false), Err(Damaged));
    }
}
