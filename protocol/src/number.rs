//! Numbers of samples as they are read: JSON has some that are beyond an `f32`, which would become
//! infinite, and be written as `null`.

use serde::{Deserialize, Deserializer, de::Error};

fn check<E: Error>(number: f32) -> Result<f32, E> {
    if number.is_finite() { Ok(number) } else { Err(E::custom("a number is larger than 3.4e38")) }
}

/// A number.
pub(crate) fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    check(f32::deserialize(deserializer)?)
}

/// A number, or none.
pub(crate) fn finite_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    Option::deserialize(deserializer)?.map(check).transpose()
}

/// Numbers, or none at all.
pub(crate) fn finite_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<f32>>, D::Error> {
    let numbers: Option<Vec<f32>> = Option::deserialize(deserializer)?;
    numbers.map(|numbers| numbers.into_iter().map(check).collect()).transpose()
}
