//! What the kernel counts for a process.

use std::time::Duration;

/// The kernel's clock as programs see it (`USER_HZ`), whatever its own is.
const TICKS_PER_SECOND: u64 = 100;

/// A number in a file below `/proc/<pid>`, by the name before it.
fn number(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// A kind of memory in `status` in bytes, such as `VmRSS`; zero once the process has ended.
pub fn memory(pid: u32, kind: &str) -> u64 {
    number(pid, "status", kind).unwrap_or(0) * 1024
}

/// The memory of a process in bytes, of shared pages its share; zero once it has ended.
pub fn proportional_memory(pid: u32) -> u64 {
    number(pid, "smaps_rollup", "Pss").unwrap_or(0) * 1024
}

/// How many threads a process has.
pub fn threads(pid: u32) -> u64 {
    number(pid, "status", "Threads").unwrap_or(0)
}

/// Bytes that a process has caused to be written to a disk.
pub fn written(pid: u32) -> u64 {
    number(pid, "io", "write_bytes").unwrap_or(0)
}

/// The processor time of all threads of a process so far, also of those that have ended.
pub fn cpu(pid: u32) -> Duration {
    ticks(pid, 2)
}

/// As [`cpu`], with that of its children that have ended.
pub fn cpu_with_children(pid: u32) -> Duration {
    ticks(pid, 4)
}

/// The sum of the first of: user, system, children's user, children's system.
fn ticks(pid: u32, count: usize) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the last bracket may have spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(count).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_processor_time() {
        let pid = std::process::id();
        let started = std::time::Instant::now();
        while cpu(pid).is_zero() && started.elapsed() < crate::DEADLINE {
            std::hint::black_box(vec![1; 1024]);
        }
        assert!(!cpu(pid).is_zero() && cpu_with_children(pid) >= cpu(pid));
        assert!(threads(pid) > 0 && proportional_memory(pid) > 0);
        assert!(memory(pid, "VmRSS") > memory(pid, "RssAnon") && memory(pid, "RssAnon") > 0);
        assert_eq!(memory(u32::MAX, "VmRSS"), 0);
    }
}
