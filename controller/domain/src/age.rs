//! How old what is kept is. Pure.
//!
//! A clock that is wrong must not delete anything: a board without a battery may start years ahead.
//! So time passes here as the program lives through it; a jump of the wall clock is believed only
//! as far as that deletes nothing. What is lost of the time for which the controller was off makes
//! things stay longer, never shorter.

use std::time::Instant;

/// The time that retention goes by, in milliseconds since 1970. It is never later than the wall
/// clock.
#[derive(Debug)]
pub struct Age {
    now: i64,
    at: Instant,
}

impl Age {
    /// Goes on from what was kept when it was read last, else from the newest thing that is kept.
    pub fn new(kept: Option<i64>, newest: Option<i64>, wall: i64, at: Instant) -> Self {
        Self { now: kept.or(newest).unwrap_or(wall).min(wall), at }
    }

    /// The time now. `oldest` is the time of the oldest thing that may be deleted: to go on from
    /// there deletes nothing.
    pub fn read(&mut self, wall: i64, oldest: Option<i64>, at: Instant) -> i64 {
        let passed = i64::try_from(at.saturating_duration_since(self.at).as_millis()).unwrap_or(i64::MAX);
        let lived = self.now.saturating_add(passed);
        self.now = lived.max(oldest.unwrap_or(wall)).min(wall);
        self.at = at;
        self.now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: i64 = 86_400_000;

    #[test]
    fn time_passes_as_it_is_lived_through_whatever_the_clock_says() {
        let start = Instant::now();
        let hours = |hours: u64| start + Duration::from_secs(hours * 3600);
        // (what, kept, newest, wall at the start, then: hours later, wall, oldest, the time that is
        // gone
        // by), all in days
        let table = [
            ("a clock that is right", None, Some(1000), 1000, 24, 1001, 950, 1001),
            ("400 days ahead at the start", None, Some(1000), 1400, 0, 1400, 911, 1000),
            ("400 days ahead for a day", Some(1000), Some(1400), 1400, 24, 1401, 910, 1001),
            ("ahead while it runs", Some(1000), None, 1000, 48, 1400, 910, 1002),
            ("turned back", Some(1000), None, 1000, 24, 900, 800, 900),
            ("a first start without a clock", None, None, 0, 24, 1000, 1000, 1000),
        ];
        for (what, kept, newest, wall, later, then, oldest, expected) in table {
            let days = |days: Option<i64>| days.map(|days| days * DAY);
            let mut age = Age::new(days(kept), days(newest), wall * DAY, start);
            assert_eq!(age.read(then * DAY, Some(oldest * DAY), hours(later)), expected * DAY, "{what}");
        }
    }

    #[test]
    fn nothing_is_deleted_by_a_jump_that_time_has_not_made_old() {
        let start = Instant::now();
        let keep = 90 * DAY;
        // One thing a day of the last 89 days, as a quiet controller has them.
        let mut kept: Vec<i64> = (0..89).map(|days| (1000 - days) * DAY).rev().collect();
        let mut age = Age::new(None, Some(1000 * DAY), 1400 * DAY, start);
        for hour in 0..24 {
            let read = age.read(1400 * DAY, kept.first().copied(), start + Duration::from_secs(hour * 3600));
            kept.retain(|time| *time >= read - keep);
            assert_eq!(kept.len(), 89, "after {hour} hours");
        }
    }
}
