//! Durations and sizes, as people write them.

use std::time::Duration;

/// A duration such as `500ms`, `30s`, `10m`, `24h`, `7d` or `1h30m`; a bare `0` is zero.
///
/// # Errors
/// A sentence that says how durations are written.
pub fn parse_duration(_text: &str) -> Result<Duration, String> {
    todo!()
}

/// A size in bytes such as `1MiB`, `64KiB`, `10kB` or `1048576`.
///
/// # Errors
/// A sentence that says how sizes are written.
pub fn parse_size(_text: &str) -> Result<u64, String> {
    todo!()
}
