//! Durations, sizes and times as people read them.

use pistat_protocol::time::Timestamp;

/// Such as `38 ms`, `12.4 s`, `3m 05s`, `2h 03m`, `41d 3h`.
pub(crate) fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// How long from one moment to a later one; zero if clocks went back.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.unix_milliseconds() - from.unix_milliseconds()).unwrap_or(0)
}

/// Such as `2m ago`.
pub(super) fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = between(time, now) / 1000;
    match seconds {
        0..5 => "now".into(),
        5..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86_400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Such as `71 B`, `1.2 KiB`, `120 GiB`: powers of 1024, rounded, at most three digits before the
/// point. The dashboard writes the same.
pub(super) fn bytes(bytes: u64) -> String {
    let value = u128::from(bytes);
    // 999.5 of a unit is 1.0 of the next one.
    let exponent = (0..=UNITS.len()).find(|exponent| 2 * value < 1999 << (10 * exponent)).unwrap_or(UNITS.len());
    let Some(unit) = exponent.checked_sub(1).and_then(|index| UNITS.get(index)) else {
        return format!("{bytes} B");
    };
    let shift = 10 * exponent;
    // Tenths and ones by whole numbers: floating point has nothing to add here.
    let rounded = |value: u128| ((value << 1) + (1 << shift)) >> (shift + 1);
    let tenths = rounded(value * 10);
    if tenths < 1000 { format!("{}.{} {unit}", tenths / 10, tenths % 10) } else { format!("{} {unit}", rounded(value)) }
}

/// Such as `1 machine`, `25 machines`.
pub(crate) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// Such as `2026-11-22 12:00:00 UTC`: the reader may be in another zone than the controller.
pub(super) fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{} UTC", text.get(..19).unwrap_or(&text).replace('T', " "))
}

/// A percentage without decimals, `—` when it is not known.
pub(super) fn percent(value: Option<f32>) -> String {
    value.map_or_else(|| "—".into(), |value| format!("{value:.0}%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the dashboard's `format.ts` is tested with too.
    #[derive(serde::Deserialize)]
    struct Quantities {
        bytes: Vec<(u64, String)>,
        milliseconds: Vec<(u64, String)>,
    }

    #[test]
    fn sizes_and_durations_are_written_as_in_the_dashboard() {
        let quantities: Quantities =
            serde_json::from_str(include_str!("../../../../tests/fixtures/quantities.json")).unwrap();
        assert!(quantities.bytes.len() > 10 && quantities.milliseconds.len() > 10);
        for (value, text) in &quantities.bytes {
            assert_eq!(bytes(*value), *text, "{value}");
        }
        for (value, text) in &quantities.milliseconds {
            assert_eq!(duration(*value), *text, "{value}");
        }
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn ages_counts_and_moments_are_short_and_complete() {
        let at = Timestamp::from_unix_milliseconds;
        assert_eq!((ago(at(0), at(125_000)), ago(at(5000), at(0))), ("2m ago".to_owned(), "now".to_owned()));
        assert_eq!((percent(Some(12.4)), percent(None)), ("12%".to_owned(), "—".to_owned()));
        assert_eq!((count(0, "machine"), count(1, "machine")), ("0 machines".to_owned(), "1 machine".to_owned()));
        assert_eq!(moment(at(1_763_812_800_999)), "2025-11-22 12:00:00 UTC");
    }
}
