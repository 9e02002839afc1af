//! Durations and sizes, as people write them.

use std::time::Duration;

const DURATION_FORM: &str = "a duration is written like 500ms, 30s, 10m, 24h, 7d or 1h30m";
const SIZE_FORM: &str = "a size is written like 64KiB, 1MiB, 2GiB, 500kB or 1048576";

/// A duration such as `500ms`, `30s`, `10m`, `24h`, `7d` or `1h30m`; a bare `0` is zero.
///
/// # Errors
/// A sentence that says how durations are written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; {DURATION_FORM}");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut milliseconds: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let (number, unit, after) = leading_number(rest).ok_or_else(wrong)?;
        let unit = unit_milliseconds(unit).filter(|unit| *unit < last_unit).ok_or_else(wrong)?;
        let part = number.checked_mul(unit);
        milliseconds = part.and_then(|part| part.checked_add(milliseconds)).ok_or_else(wrong)?;
        (last_unit, rest) = (unit, after);
    }
    if last_unit == u64::MAX { Err(wrong()) } else { Ok(Duration::from_millis(milliseconds)) }
}

/// A size in bytes such as `1MiB`, `64KiB`, `10kB` or `1048576`.
///
/// # Errors
/// A sentence that says how sizes are written.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; {SIZE_FORM}");
    let (number, unit, rest) = leading_number(text.trim()).ok_or_else(wrong)?;
    let unit = unit_bytes(unit).filter(|_| rest.is_empty()).ok_or_else(wrong)?;
    number.checked_mul(unit).ok_or_else(wrong)
}

/// A duration as [`parse_duration`] reads it.
pub(crate) fn format_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".into();
    }
    let whole = UNITS.iter().find(|(unit, _)| milliseconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{milliseconds}ms"), |(unit, name)| format!("{}{name}", milliseconds / unit))
}

/// The number at the start, the letters after it, and the rest.
fn leading_number(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let letters = text[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
    let number = text[..digits].parse().ok()?;
    Some((number, &text[digits..digits + letters], &text[digits + letters..]))
}

fn unit_milliseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    })
}

fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    })
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
        for bad in ["", "30", "s", "-5s", "1.5h", "30m1h", "5 m", "5w", "99999999999999999999s", "30s30s", "１s"] {
            assert!(parse_duration(bad).unwrap_err().contains("30s"), "{bad:?}");
        }
    }

    #[test]
    fn sizes_tell_thousands_from_powers_of_two() {
        for (text, bytes) in [("0", 0), ("1024", 1024), ("1kB", 1000), ("64KiB", 65_536), ("1MiB", 1 << 20)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "MiB", "1.5MiB", "1M", "1MiB2", "-1", "99999999999GiB"] {
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
