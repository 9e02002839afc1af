//! When a task runs by itself: five fields of crontab(5) in a time zone.
//!
//! Pure: it is asked for the next moment after another, and knows no clock.
//! Where clocks go forward, a time that does not exist that day fires at the first moment after the
//! gap; where they go back, a time that comes twice fires the first time only. An expression that
//! names every hour fires in both of the repeated hours, so that it never pauses.

mod fields;

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, civil::DateTime, tz::TimeZone};
use pistat_protocol::time::Timestamp;

/// A schedule, such as `0 3 * * *` in `Europe/Berlin`.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    text: String,
}

/// The calendar repeats after 400 years; here the last of these cycles begins that the search
/// covers.
const LAST_CYCLE: DateTime = DateTime::constant(4600, 1, 1, 0, 0, 0, 0);
const _: () = assert!(croner::YEAR_UPPER_LIMIT == 5000, "the search covers one cycle from there");

/// A part of a time zone's history with one offset from UTC: its local times are compared with the
/// expression without any daylight saving.
#[derive(Debug)]
struct Period {
    /// When it begins and ends.
    start: jiff::Timestamp,
    end: jiff::Timestamp,
    /// The local time when it begins, by its own offset and by the one before.
    from: DateTime,
    before: DateTime,
    /// The local time when it ends.
    to: DateTime,
}

impl Schedule {
    /// Reads five fields of crontab(5) and the name of a time zone; without one it is the system's.
    ///
    /// # Errors
    /// A sentence that says what is wrong with either, also when the expression names no day of any
    /// year.
    pub fn parse(expression: &str, zone: Option<&str>) -> Result<Self, String> {
        let refused = |why: String| format!("{expression:?} is not a valid schedule: {why}");
        fields::check(expression).map_err(refused)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| refused(error.to_string()))?;
        if cron.find_next_occurrence(&LAST_CYCLE, true).is_err() {
            return Err(format!("{expression:?} never fires: no year has such a day; correct the day or the month"));
        }
        let text = zone.map_or_else(|| expression.to_owned(), |zone| format!("{expression} {zone}"));
        let zone = zone.map_or_else(|| Ok(TimeZone::system()), time_zone)?;
        Ok(Self { cron, zone, text })
    }

    /// The first moment after `time` at which it fires; `None` when there is none in the years to
    /// come.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let time = jiff::Timestamp::from_millisecond(time.unix_milliseconds()).ok()?;
        let mut period = self.period_at(time)?;
        let every_hour = self.is_every_hour();
        // The next local time that the expression names: it often lies many periods ahead, and is
        // looked for only once.
        let mut named = None;
        loop {
            // It lies behind the end of the period before, and the clock skips it.
            if named.is_some_and(|named| named < period.from) {
                return Some(milliseconds(period.start));
            }
            let now = period.from.checked_add(time.max(period.start).duration_since(period.start)).ok()?;
            let from = if every_hour { now } else { now.max(period.before) };
            if every_hour || named.is_none_or(|named| named < from) {
                let is_later = period.start > time || from > now;
                named = Some(self.cron.find_next_occurrence(&from, is_later).ok()?);
            }
            if let Some(local) = named.filter(|local| *local < period.to) {
                return period.start.checked_add(local.duration_since(period.from)).ok().map(milliseconds);
            }
            period = self.period_at(period.end)?;
        }
    }

    fn is_every_hour(&self) -> bool {
        self.cron.pattern.hours.values().len() == 24
    }

    /// The period to which a moment belongs; one that begins then, if there is one.
    fn period_at(&self, time: jiff::Timestamp) -> Option<Period> {
        let just_after = time.checked_add(SignedDuration::from_nanos(1)).ok()?;
        // What lies before this moment in a zone that never changed does not matter.
        let start = self.zone.preceding(just_after).next().map_or(time, |change| change.timestamp());
        let end = self.zone.following(time).next().map_or(jiff::Timestamp::MAX, |change| change.timestamp());
        let just_before = start.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(start);
        let offset = self.zone.to_offset(time);
        let local = |time| offset.to_datetime(time);
        let before = self.zone.to_offset(just_before).to_datetime(start);
        Some(Period { start, end, from: local(start), before, to: local(end) })
    }

    /// As people read it: the five fields and the zone.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn milliseconds(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from_unix_milliseconds(time.as_millisecond())
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("{name:?} is not a time zone; it is a name such as \"Europe/Berlin\" or \"UTC\""))
}

#[cfg(test)]
mod tests {
    use jiff::tz::AmbiguousOffset;
    use proptest::prelude::*;

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
    fn what_fired_in_the_first_of_two_equal_hours_does_not_fire_again_for_one_who_asks_in_the_second() {
        // Berlin, 25 October 2026: 03:00 is followed by 02:00 (01:00 UTC). The next times are
        // looked up anew whenever any task was due, and when the controller starts.
        for (expression, expected) in [
            ("30 2 * * *", "2026-10-26T01:30:00.000Z"),
            ("0,30 2 * * *", "2026-10-26T01:00:00.000Z"),
            ("15 1-3 * * *", "2026-10-25T02:15:00.000Z"),
            ("*/20 2,14 * * *", "2026-10-25T13:00:00.000Z"),
            ("30 * * * *", "2026-10-25T01:30:00.000Z"),
        ] {
            assert_eq!(next(expression, "Europe/Berlin", "2026-10-25T01:10:00Z"), expected, "{expression}");
        }
    }

    #[test]
    fn every_form_of_the_expression_fires_once_right_after_a_gap_and_once_where_a_time_repeats() {
        // Each zone on a day that its clock goes forward or back: what fires from its first minute
        // on for 27 hours, in UTC.
        type Case<'c> = (&'c str, &'c str, &'c str, &'c [&'c str]);
        let cases: [Case<'_>; 22] = [
            // Berlin, 29 March 2026: 02:00 is followed by 03:00 (01:00 UTC).
            ("30 2,14 * * *", "Europe/Berlin", "2026-03-28T22:59:00Z", &["29T01:00", "29T12:30", "30T00:30"]),
            ("0,30 2 * * *", "Europe/Berlin", "2026-03-28T22:59:00Z", &["29T01:00", "30T00:00", "30T00:30"]),
            (
                "15 1-3 * * *",
                "Europe/Berlin",
                "2026-03-28T22:59:00Z",
                &["29T00:15", "29T01:00", "29T01:15", "29T23:15", "30T00:15", "30T01:15"],
            ),
            (
                "*/20 2 * * *",
                "Europe/Berlin",
                "2026-03-28T22:59:00Z",
                &["29T01:00", "30T00:00", "30T00:20", "30T00:40"],
            ),
            ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T22:59:00Z", &["29T01:00", "30T00:00", "30T01:00"]),
            (
                "0 */8,2 * * *",
                "Europe/Berlin",
                "2026-03-28T22:59:00Z",
                &["28T23:00", "29T01:00", "29T06:00", "29T14:00", "29T22:00", "30T00:00"],
            ),
            // Berlin, 25 October 2026: 03:00 is followed by 02:00 (01:00 UTC).
            ("30 2,14 * * *", "Europe/Berlin", "2026-10-24T21:59:00Z", &["25T00:30", "25T13:30"]),
            ("0,30 2 * * *", "Europe/Berlin", "2026-10-24T21:59:00Z", &["25T00:00", "25T00:30"]),
            (
                "15 1-3 * * *",
                "Europe/Berlin",
                "2026-10-24T21:59:00Z",
                &["24T23:15", "25T00:15", "25T02:15", "26T00:15"],
            ),
            (
                "*/30 2-3 * * *",
                "Europe/Berlin",
                "2026-10-24T21:59:00Z",
                &["25T00:00", "25T00:30", "25T02:00", "25T02:30"],
            ),
            (
                "0 */6,2 * * *",
                "Europe/Berlin",
                "2026-10-24T21:59:00Z",
                &["24T22:00", "25T00:00", "25T05:00", "25T11:00", "25T17:00", "25T23:00"],
            ),
            // Lord Howe goes forward by half an hour at 02:00 (15:30 UTC) on 4 October 2026, and
            // back at 02:00 (15:00 UTC) on 5 April.
            ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T13:29:00Z", &["03T15:30", "04T15:15"]),
            (
                "15,45 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-03T13:29:00Z",
                &["03T15:30", "03T15:45", "04T15:15", "04T15:45"],
            ),
            ("45 1,13 * * *", "Australia/Lord_Howe", "2026-04-04T12:59:00Z", &["04T14:45", "05T03:15", "05T15:15"]),
            (
                "15 1-2 * * *",
                "Australia/Lord_Howe",
                "2026-04-04T12:59:00Z",
                &["04T14:15", "04T15:45", "05T14:45", "05T15:45"],
            ),
            // Santiago goes forward at midnight (04:00 UTC) on 6 September 2026, and Samoa skipped
            // 30 December 2011.
            ("30 0,12 * * *", "America/Santiago", "2026-09-06T03:58:00Z", &["06T04:00", "06T15:30", "07T03:30"]),
            ("0 6,18 * * *", "Pacific/Apia", "2011-12-30T09:00:00Z", &["30T10:00", "30T16:00", "31T04:00"]),
            ("0 12 30 12 *", "Pacific/Apia", "2011-12-30T09:00:00Z", &["30T10:00"]),
            // An expression with every hour does not pause where an hour repeats.
            (
                "0 * 25 10 *",
                "Europe/Berlin",
                "2026-10-24T23:30:00Z",
                &[
                    "25T00:00", "25T01:00", "25T02:00", "25T03:00", "25T04:00", "25T05:00", "25T06:00", "25T07:00",
                    "25T08:00", "25T09:00", "25T10:00", "25T11:00", "25T12:00", "25T13:00", "25T14:00", "25T15:00",
                    "25T16:00", "25T17:00", "25T18:00", "25T19:00", "25T20:00", "25T21:00", "25T22:00",
                ],
            ),
            (
                "*/30 0-23 25 10 *",
                "Europe/Berlin",
                "2026-10-25T19:59:00Z",
                &["25T20:00", "25T20:30", "25T21:00", "25T21:30", "25T22:00", "25T22:30"],
            ),
            // No daylight saving at all.
            ("30 2,14 * * *", "UTC", "2026-03-28T23:59:00Z", &["29T02:30", "29T14:30", "30T02:30"]),
            ("30 2,14 * * *", "Asia/Kathmandu", "2026-03-28T18:14:00Z", &["28T20:45", "29T08:45", "29T20:45"]),
        ];
        for (expression, zone, after, expected) in cases {
            let schedule = Schedule::parse(expression, Some(zone)).unwrap();
            let mut time: Timestamp = after.parse().unwrap();
            let end = time.unix_milliseconds() + 27 * 3_600_000;
            let mut fired = Vec::new();
            while let Some(next) = schedule.next_after(time).filter(|next| next.unix_milliseconds() < end) {
                fired.push(next.to_string()[8..16].to_owned());
                time = next;
            }
            assert_eq!(fired, expected, "{expression} {zone} after {after}");
        }
    }

    #[test]
    fn an_expression_that_never_fires_is_refused_and_one_that_seldom_does_is_not() {
        for never in
            ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 31 2 *", "*/5 * 31 2,4,6,9,11 *", "0 0 30,31 feb *", "0 0 30 2 +MON"]
        {
            let refused = Schedule::parse(never, Some("UTC")).unwrap_err();
            assert!(refused.contains("never fires"), "{never}: {refused}");
        }
        for (seldom, next) in [
            ("0 0 29 2 *", "2028-02-29T00:00:00.000Z"),
            ("0 0 29 2 +MON", "2044-02-29T00:00:00.000Z"),
            ("0 0 29 2 +SAT", "2048-02-29T00:00:00.000Z"),
            ("0 0 30 2 MON", "2027-02-01T00:00:00.000Z"),
            ("0 0 31 4,5 *", "2027-05-31T00:00:00.000Z"),
            ("0 0 L 2 *", "2027-02-28T00:00:00.000Z"),
        ] {
            assert_eq!(self::next(seldom, "UTC", "2026-11-22T12:00:00Z"), next, "{seldom}");
            // In a zone with daylight saving it is found just as well.
            assert!(self::next(seldom, "Europe/Berlin", "2026-11-22T12:00:00Z").as_str() < next, "{seldom}");
        }
    }

    #[test]
    fn every_form_that_is_not_a_schedule_is_refused_in_our_own_words() {
        let cases = [
            ("", "has 0 fields"),
            ("* * * *", "has 4 fields"),
            ("* * * * * *", "has 6 fields"),
            ("0 3 * * * UTC", "has 6 fields"),
            ("every day", "has 2 fields"),
            ("@daily", "write the five fields: \"0 0 * * *\""),
            ("@Hourly", "write the five fields: \"0 * * * *\""),
            ("@reboot", "write the five fields"),
            ("60 * * * *", "minute: 60 is not from 0 to 59"),
            ("0 24 * * *", "hour: 24 is not from 0 to 23"),
            ("0 0 0 * *", "day of the month: 0 is not from 1 to 31"),
            ("0 0 * 13 *", "month: 13 is not from 1 to 12"),
            ("0 0 * * 8", "day of the week: 8 is not from 0 to 7"),
            ("999999999999 * * * *", "minute: 999999999999 is not from 0 to 59"),
            ("-1 * * * *", "minute: \"\" is not a number"),
            ("x * * * *", "minute: \"x\" is not a number"),
            ("0 3 * * nonday", "day of the week: \"nonday\" is not a number or a name such as mon"),
            ("0 3 * foo *", "month: \"foo\" is not a number or a name such as feb"),
            ("0 mon * * *", "hour: \"mon\" is not a number"),
            ("*/70 * * * *", "minute: a step of 70 is longer than the field: 59 is the longest"),
            ("*/60 * * * *", "minute: a step of 60 is longer than the field: 59 is the longest"),
            ("0 */24 * * *", "hour: a step of 24 is longer than the field: 23 is the longest"),
            ("0 0 */31 * *", "day of the month: a step of 31 is longer than the field: 30 is the longest"),
            ("0/0 * * * *", "minute: a step of 0"),
            ("*/0 * * * *", "minute: a step of 0"),
            ("*/x * * * *", "minute: \"x\" is not a step"),
            ("*/ * * * *", "minute: \"\" is not a step"),
            ("*/5/5 * * * *", "minute: \"5/5\" is not a step"),
            ("5-1 * * * *", "minute: the range 5-1 goes backwards"),
            ("0 22-6 * * *", "hour: the range 22-6 goes backwards"),
            ("0 0 * * fri-mon", "day of the week: the range fri-mon goes backwards"),
            ("1-70 * * * *", "minute: 70 is not from 0 to 59"),
            ("1- * * * *", "minute: \"\" is not a number"),
            ("1,,2 * * * *", "minute: \"\" is not a number"),
            (",1 * * * *", "minute: \"\" is not a number"),
            ("1-2-3 * * * *", "minute: \"2-3\" is not a number"),
            ("5/10 * * * *", "minute: 5/10 has a step and no range: write 5-59/10"),
            ("0 0 ? ? *", "\"?\" is not a number"),
            ("0 0 LL * *", "day of the month: \"LL\" is not a number"),
            ("0 0 * * mon#9", "day of the week: \"mon#9\" is not a number"),
        ];
        for (bad, why) in cases {
            let refused = Schedule::parse(bad, Some("UTC")).unwrap_err();
            assert!(refused.starts_with(&format!("{bad:?} is not a valid schedule: ")), "{bad:?}: {refused}");
            assert!(refused.contains(why), "{bad:?}: {refused}");
        }
        assert!(Schedule::parse("0 3 * * *", Some("Mars/Olympus")).unwrap_err().contains("Europe/Berlin"));
    }

    #[test]
    fn every_form_of_crontab_is_taken() {
        for good in [
            "0 3 * * *",
            "*/59 */23 */30 */11 */7",
            "1-5/2,7,9-59 0-23 1-31 1-12 0-7",
            "0 0 * JAN-Dec Mon-fri",
            "0 0 * * sun",
            "0 0 * * 5-7",
            "  0  3\t* * * ",
            "0 0 L * *",
            "0 0 15W * *",
            "0 0 * * MON#2",
            "0 0 * * 5L",
            "0 0 13 * +FRI",
            "0 0 ? * MON",
        ] {
            assert!(Schedule::parse(good, Some("UTC")).is_ok(), "{good}: {:?}", Schedule::parse(good, Some("UTC")));
        }
    }

    /// The minutes or hours that a field names, made apart from the expression's text.
    #[derive(Debug, Clone)]
    struct Field {
        text: String,
        values: Vec<i8>,
    }

    fn field(end: i8) -> impl Strategy<Value = Field> {
        let one = (0..end).prop_map(|value| Field { text: value.to_string(), values: vec![value] });
        let list = proptest::collection::vec(0..end, 2..4).prop_map(|values| Field {
            text: values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            values,
        });
        let range = (0..end, 0..end).prop_map(|(a, b)| {
            let (low, high) = (a.min(b), a.max(b));
            Field { text: format!("{low}-{high}"), values: (low..=high).collect() }
        });
        let step = (0..end, 1..end).prop_map(move |(first, step)| {
            let values = (first..end).step_by(usize::from(step.unsigned_abs())).collect();
            Field { text: format!("{first}-{}/{step}", end - 1), values }
        });
        let all = Just(Field { text: "*".into(), values: (0..end).collect() });
        prop_oneof![3 => one, 3 => list, 3 => range, 3 => step, 1 => all]
    }

    /// The same rule, minute by minute of the local calendar: when a schedule fires between two
    /// moments.
    fn oracle(minutes: &Field, hours: &Field, zone: &TimeZone, from: jiff::Timestamp, to: jiff::Timestamp) -> Vec<i64> {
        let every_hour = (0..24).all(|hour| hours.values.contains(&hour));
        let day = SignedDuration::from_hours(30);
        let start = TimeZone::UTC.to_datetime(from.checked_sub(day).unwrap());
        let mut local = start.date().at(start.hour(), start.minute(), 0, 0);
        let end = TimeZone::UTC.to_datetime(to.checked_add(day).unwrap());
        let mut fires = std::collections::BTreeSet::new();
        while local < end {
            if minutes.values.contains(&local.minute()) && hours.values.contains(&local.hour()) {
                let ambiguous = zone.to_ambiguous_timestamp(local);
                match ambiguous.offset() {
                    AmbiguousOffset::Unambiguous { .. } => {
                        fires.insert(ambiguous.compatible().unwrap());
                    }
                    AmbiguousOffset::Gap { before, .. } => {
                        // By the offset before, the time lies after the change: the last change
                        // before it is the gap.
                        let skipped = before.to_timestamp(local).unwrap() + SignedDuration::from_nanos(1);
                        fires.insert(zone.preceding(skipped).next().unwrap().timestamp());
                    }
                    AmbiguousOffset::Fold { .. } => {
                        fires.insert(ambiguous.earlier().unwrap());
                        if every_hour {
                            fires.insert(zone.to_ambiguous_timestamp(local).later().unwrap());
                        }
                    }
                }
            }
            local = local.checked_add(SignedDuration::from_mins(1)).unwrap();
        }
        fires.into_iter().filter(|time| *time > from && *time < to).map(jiff::Timestamp::as_millisecond).collect()
    }

    const ZONES: [&str; 14] = [
        "Europe/Berlin",
        "Europe/Dublin",
        "America/New_York",
        "America/St_Johns",
        "America/Santiago",
        "America/Havana",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "Africa/Cairo",
        "Asia/Tehran",
        "Asia/Kathmandu",
        "Antarctica/Troll",
        "Pacific/Apia",
        "UTC",
    ];

    proptest::proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn around_every_change_of_the_clock_it_fires_as_the_local_calendar_says(
            minutes in field(60), hours in field(24), zone in proptest::sample::select(&ZONES[..]), year in 1990i16..2040, change in 0usize..4,
            start in prop_oneof![Just(-26 * 60), -180i64..180],
        ) {
            let expression = format!("{} {} * * *", minutes.text, hours.text);
            let schedule = Schedule::parse(&expression, Some(zone)).unwrap();
            let zone = TimeZone::get(zone).unwrap();
            let year = jiff::civil::date(year, 1, 1).to_zoned(TimeZone::UTC).unwrap().timestamp();
            let around = zone.following(year).nth(change).map_or(year, |change| change.timestamp());
            let from = around + SignedDuration::from_mins(start);
            let to = around + SignedDuration::from_hours(26);
            let mut fired = Vec::new();
            let mut time = milliseconds(from);
            while let Some(next) = schedule.next_after(time).filter(|next| next.unix_milliseconds() < to.as_millisecond()) {
                prop_assert!(next > time);
                fired.push(next.unix_milliseconds());
                time = next;
            }
            prop_assert_eq!(fired, oracle(&minutes, &hours, &zone, from, to), "{} around {}", expression, around);
        }

        #[test]
        fn the_next_moment_is_always_later(minute in 0u8..60, hour in 0u8..24, after in 0i64..4_000_000_000_000) {
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), Some("Europe/Berlin")).unwrap();
            let after = Timestamp::from_unix_milliseconds(after);
            proptest::prop_assert!(schedule.next_after(after).unwrap() > after);
        }
    }
}
