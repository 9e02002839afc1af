//! Percentiles of measured durations.

use std::time::Duration;

/// The duration that `percent` of all are below, by the nearest rank; zero of none.
pub fn percentile(durations: &mut [Duration], percent: usize) -> Duration {
    durations.sort_unstable();
    let rank = (durations.len() * percent).div_ceil(100);
    durations.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
