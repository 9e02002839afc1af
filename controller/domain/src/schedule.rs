//! When a task runs by itself: five fields of crontab(5) in a time zone.
//!
//! Pure: it is asked for the next moment after another, and knows no clock.
//! Where clocks go forward, a fixed time that does not exist that day fires at the first moment after the gap; where they go back, it fires once.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::tz::TimeZone;
use pistat_protocol::time::Timestamp;

/// A schedule, such as `0 3 * * *` in `Europe/Berlin`.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    text: String,
}

impl Schedule {
    /// Reads five fields of crontab(5) and the name of a time zone; without one it is the system's.
    ///
    /// # Errors
    /// A sentence that says what is wrong with either.
    pub fn parse(expression: &str, zone: Option<&str>) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| {
            format!("{expression:?} is no schedule ({error}); it has the five fields of crontab, such as \"0 3 * * *\"")
        })?;
        let text = zone.map_or_else(|| expression.to_owned(), |zone| format!("{expression} {zone}"));
        let zone = zone.map_or_else(|| Ok(TimeZone::system()), time_zone)?;
        Ok(Self { cron, zone, text })
    }

    /// The first moment after `time` at which it fires; `None` when there is none in the years to come.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let start = jiff::Timestamp::from_millisecond(time.unix_milliseconds()).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&start, false).ok()?;
        Some(Timestamp::from_unix_milliseconds(next.timestamp().as_millisecond()))
    }

    /// As people read it: the five fields and the zone.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("{name:?} is no time zone; it is a name such as \"Europe/Berlin\" or \"UTC\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(expression: &str, zone: &str, after: &str) -> String {
        let schedule = Schedule::parse(expression, Some(zone)).unwrap();
        schedule.next_after(after.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn the_next_moment_is_in_the_schedules_zone() {
        for (expression, zone, after, expected) in [
            ("0 3 * * *", "UTC", "2026-11-22T12:00:00Z", "2026-11-23T03:00:00.000Z"),
            ("0 3 * * *", "Europe/Berlin", "2026-11-22T12:00:00Z", "2026-11-23T02:00:00.000Z"),
            ("0 3 * * *", "Europe/Berlin", "2026-07-01T12:00:00Z", "2026-07-02T01:00:00.000Z"),
            ("*/15 * * * *", "UTC", "2026-11-22T12:00:00Z", "2026-11-22T12:15:00.000Z"),
            ("30 4 1 1 *", "America/New_York", "2026-11-22T12:00:00Z", "2027-01-01T09:30:00.000Z"),
            ("0 6 * * MON-FRI", "UTC", "2026-11-20T06:00:00Z", "2026-11-23T06:00:00.000Z"),
            ("0 0 29 2 *", "UTC", "2026-11-22T12:00:00Z", "2028-02-29T00:00:00.000Z"),
        ] {
            assert_eq!(next(expression, zone, after), expected, "{expression} {zone}");
        }
    }

    #[test]
    fn a_moment_that_the_clock_skips_fires_right_after_the_gap() {
        // Berlin, 29 March 2026: 02:00 is followed by 03:00 (01:00 UTC).
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00.000Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z"), "2026-03-30T00:30:00.000Z");
    }

    #[test]
    fn a_moment_that_the_clock_repeats_fires_once() {
        // Berlin, 25 October 2026: 03:00 is followed by 02:00 (01:00 UTC).
        let first = next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z");
        assert_eq!(first, "2026-10-25T00:30:00.000Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", &first), "2026-10-26T01:30:00.000Z");
    }

    #[test]
    fn a_schedule_that_never_fires_has_no_next_moment() {
        let never = Schedule::parse("0 0 31 2 *", Some("UTC"));
        assert!(never.is_err() || never.is_ok_and(|s| s.next_after(Timestamp::from_unix_milliseconds(0)).is_none()));
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_a_sentence() {
        for bad in ["", "* * * *", "* * * * * *", "60 * * * *", "0 3 * * nonday", "0 3 * * * UTC", "every day"] {
            assert!(Schedule::parse(bad, None).unwrap_err().contains("five fields"), "{bad:?}");
        }
        assert!(Schedule::parse("0 3 * * *", Some("Mars/Olympus")).unwrap_err().contains("Europe/Berlin"));
    }

    proptest::proptest! {
        #[test]
        fn the_next_moment_is_always_later(minute in 0u8..60, hour in 0u8..24, after in 0i64..4_000_000_000_000) {
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), Some("Europe/Berlin")).unwrap();
            let after = Timestamp::from_unix_milliseconds(after);
            proptest::prop_assert!(schedule.next_after(after).unwrap() > after);
        }
    }
}
