//! Durations, sizes and times as people read them.

use pistat_protocol::time::Timestamp;

/// Such as `38 ms`, `12.4 s`, `3m 05s`, `2h 03m`, `41d 3h`.
pub(super) fn duration(milliseconds: u64) -> String {
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
pub(super) fn between(from: Timestamp, to: Timestamp) -> u64 {
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

/// Such as `71 B`, `1.2 KiB`, `3.9 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let exponent = (bytes.ilog2() / 10).min(6);
    // Tenths by whole numbers: floating point has nothing to add here.
    let tenths = (u128::from(bytes) * 10) >> (10 * exponent);
    let unit = units.get(exponent as usize - 1).unwrap_or(&"EiB");
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A percentage without decimals, `—` when it is not known.
pub(super) fn percent(value: Option<f32>) -> String {
    value.map_or_else(|| "—".into(), |value| format!("{value:.0}%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short_and_exact_enough() {
        for (milliseconds, text) in
            [(38, "38 ms"), (12_499, "12.4 s"), (185_000, "3m 05s"), (7_380_000, "2h 03m"), (3_551_023_000, "41d 2h")]
        {
            assert_eq!(duration(milliseconds), text);
        }
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_717_986_918, "1.5 GiB"), (u64::MAX, "15.9 EiB")]
        {
            assert_eq!(bytes(count), text);
        }
        let at = Timestamp::from_unix_milliseconds;
        assert_eq!((ago(at(0), at(125_000)), ago(at(5000), at(0))), ("2m ago".to_owned(), "now".to_owned()));
        assert_eq!((percent(Some(12.4)), percent(None)), ("12%".to_owned(), "—".to_owned()));
    }
}
