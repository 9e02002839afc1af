//! One sample after another: what is asked of the kernel each time, what only now and then, and
//! what may hang.
//!
//! `/proc` is read by hand, from files kept open. Beside sysinfo, measured by a test of this file
//! on x86-64 with 67 processes (2026-11-26): 0.004 ms instead of 0.008 for memory, 0.004 instead of
//! 0.16 for networks, 0.005 instead of 0.034 for disks, 0.03 instead of 1.5 for the number of
//! processes; and only files under a given root can be tested with the shapes of other boards.
//! sysinfo answers for the facts of the system ([`crate::facts`]).
//!
//! What asks a device (disk, sensor, radio, firmware) may hang: it runs in another thread and has a
//! deadline. What is read without one cannot: `stat`, `meminfo`, `loadavg`, `uptime`, `diskstats`,
//! `net/dev`, `self/mountinfo` and the list of `/proc` are made up by the kernel from what it has
//! in memory, and whether a folder of `/sys` is there, or what a sensor is called, is in memory
//! too. Rates come from monotonic time; a counter that went back yields nothing; what cannot be
//! read is left out.

#[cfg(test)]
mod boards;
mod clock;
mod counter;
mod cpu;
mod disk;
mod guarded;
mod memory;
mod mounts;
mod network;
mod power;
mod sensors;
mod source;
mod temperature;
#[cfg(test)]
mod troubles;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use pistat_protocol::{codec::encode, stats::Sample, time::Timestamp};
use serde::de::IgnoredAny;

pub(crate) use self::clock::Clock;
use self::{
    cpu::Cpu,
    disk::{DiskActivity, FileSystems},
    memory::Memory,
    network::Network,
    sensors::Sensors,
    source::Source,
};

/// The number of processes is counted at most so often: counting walks through all of `/proc`.
const COUNT: Duration = Duration::from_secs(30);

/// Measures this machine.
pub(crate) struct Sampler {
    seq: u64,
    cpu: Cpu,
    memory: Memory,
    load: Source,
    uptime: Source,
    network: Network,
    activity: DiskActivity,
    file_systems: FileSystems,
    sensors: Sensors,
    processes: PathBuf,
    counted: Option<(Instant, Option<u32>)>,
}

impl Sampler {
    /// A sampler that has taken its first counter readings, at this moment.
    pub(crate) fn new(root: &Path, now: Instant) -> Self {
        let of = |path: &str| root.join(path);
        let mut sampler = Self {
            seq: 0,
            cpu: Cpu::new(root),
            memory: Memory::new(of("proc/meminfo")),
            load: Source::new(of("proc/loadavg")),
            uptime: Source::new(of("proc/uptime")),
            network: Network::new(root),
            activity: DiskActivity::new(root),
            file_systems: FileSystems::new(root),
            sensors: Sensors::new(root, now),
            processes: of("proc"),
            counted: None,
        };
        sampler.cpu.prime(now);
        sampler.network.prime(now);
        sampler.activity.prime(now);
        sampler
    }

    /// Takes a sample. It is late by at most the sensors' deadlines, never wrong.
    ///
    /// The wall clock only says when the sample was taken, and may jump by years; everything else
    /// goes by the monotonic one, which stands still while the machine is suspended, as its
    /// counters do.
    pub(crate) async fn sample(&mut self, wall: SystemTime, now: Instant, clock_synchronized: bool) -> Sample {
        let mut sample = Sample::new(Timestamp::from(wall), clock_synchronized, self.seq);
        self.seq += 1;
        self.cpu.fill(&mut sample, now);
        self.memory.fill(&mut sample);
        self.fill_system(&mut sample);
        self.network.fill(&mut sample, now);
        self.activity.fill(&mut sample, now);
        sample.disks = self.file_systems.read(now).await;
        sample.processes = self.count_processes(now);
        self.sensors.fill(&mut sample, now).await;
        sample
    }

    fn count_processes(&mut self, now: Instant) -> Option<u32> {
        if self.counted.is_none_or(|(at, _)| is_due(now, at, COUNT)) {
            self.counted = Some((now, count_processes(&self.processes)));
        }
        self.counted?.1
    }

    fn fill_system(&mut self, sample: &mut Sample) {
        if let Some(load) = self.load.read(parse_load).flatten() {
            (sample.load1, sample.load5, sample.load15) = (Some(load[0]), Some(load[1]), Some(load[2]));
        }
        sample.uptime_seconds = self.uptime.read(parse_uptime).flatten();
    }

    /// What this machine can measure, by the fields' names.
    #[expect(
        clippy::zero_sized_map_values,
        reason = "the values are skipped, without the code that a tree of JSON needs"
    )]
    pub(crate) fn capabilities(sample: &Sample) -> Vec<String> {
        const NOT_MEASURED: [&str; 3] = ["time", "clock_synchronized", "seq"];
        let fields: BTreeMap<String, IgnoredAny> = serde_json::from_slice(&encode(sample)).unwrap_or_default();
        fields.into_keys().filter(|name| !NOT_MEASURED.contains(&name.as_str())).collect()
    }
}

/// A little early is due too, or a period that equals the interval would be kept every other time.
fn is_due(now: Instant, before: Instant, period: Duration) -> bool {
    now.duration_since(before) + Duration::from_millis(50) >= period
}

fn parse_load(text: &str) -> Option<[f32; 3]> {
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok());
    Some([fields.next()??, fields.next()??, fields.next()??])
}

fn parse_uptime(text: &str) -> Option<u64> {
    // Whole seconds: the part before the point.
    text.split(['.', ' ']).next()?.parse().ok()
}

fn count_processes(proc: &Path) -> Option<u32> {
    let entries = std::fs::read_dir(proc).ok()?;
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let count = entries.flatten().filter(|entry| is_process(&entry.file_name())).count();
    u32::try_from(count).ok().filter(|count| *count > 0)
}

/// Bytes per second between two readings of a counter; nothing when it went back or no time has
/// passed.
fn rate(before: u64, after: u64, elapsed: Duration) -> Option<u64> {
    let difference = after.checked_sub(before)?;
    let milliseconds = u64::try_from(elapsed.as_millis()).ok().filter(|time| *time > 0)?;
    u64::try_from(u128::from(difference) * 1000 / u128::from(milliseconds)).ok()
}

/// Part of a whole in percent with one decimal, 0 to 100.
fn percent(part: u64, whole: u64) -> Option<f32> {
    let tenths = u128::from(part) * 1000 / u128::from(Some(whole).filter(|whole| *whole > 0)?);
    u16::try_from(tenths.min(1000)).ok().map(|tenths| f32::from(tenths) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_counters_that_went_forward() {
        let second = Duration::from_secs(1);
        let cases = [
            (100, 300, second, Some(200)),
            (100, 100, second, Some(0)),
            (0, 1000, Duration::from_millis(500), Some(2000)),
            (300, 100, second, None),
            (0, 1000, Duration::ZERO, None),
            (0, u64::MAX, Duration::from_secs(1000), Some(u64::MAX / 1000)),
        ];
        for (before, after, elapsed, expected) in cases {
            assert_eq!(rate(before, after, elapsed), expected, "{before} → {after}");
        }
    }

    #[test]
    fn percentages_have_one_decimal_and_stay_in_range() {
        assert_eq!(percent(1, 3), Some(33.3));
        assert_eq!(percent(4, 3), Some(100.0));
        assert_eq!(percent(1, 0), None);
    }

    #[test]
    fn load_and_uptime_are_read_as_proc_writes_them() {
        assert_eq!(parse_load("0.31 0.24 0.19 2/143 4711\n"), Some([0.31, 0.24, 0.19]));
        assert_eq!(parse_load("garbage"), None);
        assert_eq!(parse_uptime("3551023.52 1234.00\n"), Some(3_551_023));
        assert_eq!(parse_uptime(""), None);
    }

    /// Where the figures at the head of this file come from:
    /// `cargo test --release -p pistat-agent --lib -- --ignored --nocapture reading_by_hand`.
    #[test]
    #[ignore = "a measurement, on a quiet machine"]
    fn what_reading_by_hand_costs_beside_sysinfo() {
        const TIMES: u32 = 200;
        fn measure(what: &str, mut work: impl FnMut()) {
            work();
            let start = Instant::now();
            (0..TIMES).for_each(|_| work());
            println!("{what}: {:.3} ms", (start.elapsed() / TIMES).as_secs_f64() * 1e3);
        }
        let root = Path::new("/");
        let mut sample = Sample::new(Timestamp::from_unix_milliseconds(0), false, 0);
        let (mut memory, mut network) = (Memory::new(root.join("proc/meminfo")), Network::new(root));
        let mut activity = DiskActivity::new(root);
        measure("own: memory", || memory.fill(&mut sample));
        measure("own: networks", || network.fill(&mut sample, Instant::now()));
        measure("own: disks", || activity.fill(&mut sample, Instant::now()));
        measure("own: number of processes", || assert!(count_processes(&root.join("proc")).is_some()));
        let mut system = sysinfo::System::new().unwrap();
        let mut networks = sysinfo::Networks::new_with_refreshed_list().unwrap();
        let mut disks = sysinfo::Disks::new_with_refreshed_list().unwrap();
        measure("sysinfo: memory", || system.refresh_memory());
        measure("sysinfo: networks", || networks.refresh(true));
        measure("sysinfo: disks", || disks.refresh(true));
        let all = sysinfo::ProcessesToUpdate::All;
        measure("sysinfo: processes", || assert!(system.refresh_processes(all, true) > 0));
    }
}
