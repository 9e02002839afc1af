//! Memory and swap from `/proc/meminfo` (proc(5)).

use std::path::PathBuf;

use pistat_protocol::stats::Sample;

use super::{percent, source::Source};

/// Bytes, where the kernel tells them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    total: Option<u64>,
    available: Option<u64>,
    swap_total: Option<u64>,
    swap_free: Option<u64>,
}

fn parse(text: &str) -> Reading {
    let mut reading = Reading::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let field = match name {
            "MemTotal" => &mut reading.total,
            "MemAvailable" => &mut reading.available,
            "SwapTotal" => &mut reading.swap_total,
            "SwapFree" => &mut reading.swap_free,
            _ => continue,
        };
        *field = parse_kibibytes(value);
        if name == "SwapFree" {
            break;
        }
    }
    reading
}

fn parse_kibibytes(value: &str) -> Option<u64> {
    value.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The memory.
#[derive(Debug)]
pub(crate) struct Memory {
    meminfo: Source,
}

impl Memory {
    /// From this file.
    pub(crate) fn new(meminfo: PathBuf) -> Self {
        Self { meminfo: Source::new(meminfo) }
    }

    /// Adds memory and swap. In use is what is not available, as `free` counts.
    pub(crate) fn fill(&mut self, sample: &mut Sample) {
        let Some(reading) = self.meminfo.read(parse) else { return };
        let used = |total: Option<u64>, free: Option<u64>| total?.checked_sub(free?);
        sample.memory_total_bytes = reading.total;
        sample.memory_used_bytes = used(reading.total, reading.available);
        sample.memory_percent = sample.memory_used_bytes.and_then(|used| percent(used, reading.total?));
        sample.swap_total_bytes = reading.swap_total;
        sample.swap_used_bytes = used(reading.swap_total, reading.swap_free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_tells_is_known() {
        let text = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  600 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
        let expected =
            Reading { total: Some(1_024_000), available: Some(614_400), swap_total: Some(0), swap_free: Some(0) };
        assert_eq!(parse(text), expected);
        assert_eq!(parse("MemTotal: x kB\n"), Reading::default());
    }
}
