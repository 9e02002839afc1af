//! Wall-clock times on the wire: RFC 3339 in UTC with milliseconds.
//!
//! Nothing that matters for safety depends on them: a Pi has no battery clock.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Milliseconds since the Unix epoch, written as `2026-11-22T12:00:00.123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
pub struct Timestamp(i64);

/// Why a text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time in RFC 3339, such as 2026-11-22T12:00:00Z")]
pub struct InvalidTimestamp(String);

/// The last instant that can be written (the end of the year 9999 less a day).
const LAST_MILLISECOND: i64 = 253_402_207_200_000;

impl Timestamp {
    /// From milliseconds since the Unix epoch; times that RFC 3339 cannot write are moved to the
    /// nearest that it can.
    pub fn from_unix_milliseconds(milliseconds: i64) -> Self {
        Self(milliseconds.clamp(0, LAST_MILLISECOND))
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_milliseconds(self) -> i64 {
        self.0
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::from_unix_milliseconds(i64::try_from(since.as_millis()).unwrap_or(LAST_MILLISECOND))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        write!(f, "{time:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let parsed: Result<jiff::Timestamp, _> = text.parse();
        parsed
            .map(|time| Self::from_unix_milliseconds(time.as_millisecond()))
            .map_err(|_| InvalidTimestamp(text.chars().take(40).collect()))
    }
}

impl Timestamp {
    /// This long after it.
    #[must_use]
    pub fn after(self, duration: std::time::Duration) -> Self {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_milliseconds(self.unix_milliseconds().saturating_add(milliseconds))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        for (milliseconds, text) in [(0, "1970-01-01T00:00:00.000Z"), (1_795_348_800_123, "2026-11-22T12:00:00.123Z")] {
            assert_eq!(Timestamp::from_unix_milliseconds(milliseconds).to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap().unix_milliseconds(), milliseconds);
        }
    }

    #[test]
    fn times_out_of_range_are_moved_to_the_nearest() {
        assert_eq!(Timestamp::from_unix_milliseconds(i64::MAX).to_string(), "9999-12-30T22:00:00.000Z");
        assert_eq!(Timestamp::from_unix_milliseconds(-5).unix_milliseconds(), 0);
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
