//! The history's store: its size, what it still has, and what went wrong.

use pistat_history::{Numbers, tier::Tier};

use super::page::{Page, number};

/// Everything about the history.
pub(super) fn write(page: &mut Page, numbers: &Numbers, dropped: u64) {
    let gauges = [
        ("pistat_history_file_bytes", "Bytes of the history's file.", numbers.file_bytes),
        ("pistat_history_memory_bytes", "Bytes of history that are not written yet.", numbers.memory_bytes),
        ("pistat_history_blocks", "Blocks in the history's file.", numbers.blocks),
        (
            "pistat_history_stopped",
            "Whether the history cannot be written, such as on a full disk.",
            u64::from(numbers.trouble.is_some()),
        ),
    ];
    for (name, help, value) in gauges {
        page.only(name, "gauge", help, number(value));
    }
    let name = "pistat_history_oldest_seconds";
    page.family(name, "gauge", "When the oldest block of a tier begins, in seconds since 1970.");
    for tier in Tier::ALL {
        if let Some(oldest) = numbers.oldest[tier as usize].and_then(|oldest| u64::try_from(oldest / 1000).ok()) {
            page.value(name, &[("tier", tier.name())], number(oldest));
        }
    }
    let counters = [
        ("pistat_history_flushes_total", "How often the history was written.", numbers.flushes),
        ("pistat_history_errors_total", "How often it could not be written.", numbers.errors),
        ("pistat_history_damaged_blocks_total", "Damaged blocks that were found.", numbers.damaged),
        ("pistat_history_evicted_blocks_total", "Blocks that were deleted to stay within `space`.", numbers.evicted),
        ("pistat_history_lost_total", "Machines whose unwritten history was given up.", numbers.lost),
        ("pistat_history_dropped_total", "Samples for which the history had no time.", dropped),
    ];
    for (name, help, value) in counters {
        page.only(name, "counter", help, number(value));
    }
}
