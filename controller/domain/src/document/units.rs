//! Durations and sizes, as people write them.

use std::time::Duration;

const DURATION_FORM: &str = "a duration is written like 500ms, 30s, 10m, 24h, 7d or 1h30m";
const SIZE_FORM: &str = "a size is written like 64KiB, 1MiB, 2GiB, 500kB or 1048576";

/// A duration such as `500ms`, `30s`, `10m`, `24h`, `7d` or `1h30m`; a bare `0` is zero.
///
/// # Errors
/// A message that says how durations are written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| format!("{text:?} is not a valid duration; {DURATION_FORM}"))
}

/// A size in bytes such as `1MiB`, `64KiB`, `10kB` or `1048576`.
///
/// # Errors
/// A message that says how sizes are written.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let size = text.trim().parse::<bytesize::ByteSize>();
    size.map(|size| size.as_u64()).map_err(|_| format!("{text:?} is not a valid size; {SIZE_FORM}"))
}

/// A duration as [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".into();
    }
    let whole = UNITS.iter().find(|(unit, _)| milliseconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{milliseconds}ms"), |(unit, name)| format!("{}{name}", milliseconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_their_units() {
        let table = [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            (" 10m ", 600_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
        ];
        for (text, milliseconds) in table {
            assert_eq!(parse_duration(text).unwrap().as_millis(), milliseconds, "{text}");
        }
        for bad in ["", "30", "s", "-5s", "5 miles", "99999999999999999999s", "１s"] {
            assert!(parse_duration(bad).unwrap_err().contains("30s"), "{bad:?}");
        }
    }

    #[test]
    fn sizes_tell_thousands_from_powers_of_two() {
        for (text, bytes) in [("0", 0), ("1024", 1024), ("1kB", 1000), ("64KiB", 65_536), ("1MiB", 1 << 20)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "MiB", "1MiB2", "-1", "1 mile"] {
            assert!(parse_size(bad).unwrap_err().contains("1MiB"), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(milliseconds in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(milliseconds);
            proptest::prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
