//! One sample after another: what is asked of the kernel each time, what only now and then, and what may hang.
//!
//! `/proc` is read by hand: on the same x86-64 machine reading `stat` and `meminfo` from files kept open takes 0.014 ms, where sysinfo takes
//! 0.02 ms for memory, 0.07 ms for disks, 0.37 ms for networks, and 9 ms for the process list; and only files under a given root can
//! be tested with the shapes of other boards. sysinfo answers for the facts of the system ([`crate::facts`]). What asks a device (disk, sensor, radio,
//! firmware) may hang: it runs in another thread and has a deadline. Rates come from monotonic time; a counter that went back yields nothing; what cannot be read
//! is left out.

#[cfg(test)]
mod boards;
mod clock;
mod cpu;
mod disk;
mod guarded;
mod memory;
mod network;
mod power;
mod source;
mod temperature;
#[cfg(test)]
mod troubles;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use pistat_protocol::{
    codec::encode,
    stats::{Power, Sample},
    time::Timestamp,
};
use serde::de::IgnoredAny;

pub(crate) use self::clock::Clock;
use self::{
    cpu::Cpu,
    disk::{DiskActivity, FileSystems},
    guarded::{Guarded, SideThread},
    memory::Memory,
    network::{Network, wifi_signal},
    source::Source,
};

/// A sensor that takes longer than this is unknown for this sample.
const SENSOR_DEADLINE: Duration = Duration::from_millis(250);

/// Power health and the Wi-Fi's signal are asked at most so often.
const SLOW: Duration = Duration::from_secs(5);

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
    temperature: Option<Guarded<Option<f32>>>,
    power: Option<Slowly<Guarded<Option<Power>>, Option<Power>>>,
    wifi: Option<Slowly<Guarded<Option<i16>>, Option<i16>>>,
    /// Where the sensors are asked.
    sensors: SideThread,
    processes: Slowly<PathBuf, Option<u32>>,
}

impl Sampler {
    /// A sampler that has taken its first counter readings, at this moment.
    pub(crate) fn new(root: &Path, now: Instant) -> Self {
        let of = |path: &str| root.join(path);
        let temperature = temperature::Thermometer::find(root)
            .map(|mut thermometer| Guarded::new("temperature", move || thermometer.read()));
        let power = power::PowerHealth::find(root).map(|mut power| Guarded::new("power", move || power.read()));
        // A kernel that knows of radios has the file before there is one.
        let wireless = Some(of("proc/net/wireless")).filter(|path| path.exists()).map(Source::new);
        let wifi = wireless.map(|mut wireless| Guarded::new("wifi", move || wifi_signal(&mut wireless)));
        let mut sampler = Self {
            seq: 0,
            cpu: Cpu::new(root),
            memory: Memory::new(of("proc/meminfo")),
            load: Source::new(of("proc/loadavg")),
            uptime: Source::new(of("proc/uptime")),
            network: Network::new(root),
            activity: DiskActivity::new(root),
            file_systems: FileSystems::new(root),
            temperature,
            power: power.map(|power| Slowly::new(power, SLOW)),
            wifi: wifi.map(|wifi| Slowly::new(wifi, SLOW)),
            sensors: SideThread::default(),
            processes: Slowly::new(of("proc"), COUNT),
        };
        sampler.cpu.prime();
        sampler.network.prime(now);
        sampler.activity.prime(now);
        sampler
    }

    /// Takes a sample. It is late by at most the sensors' deadlines, never wrong.
    ///
    /// The wall clock only says when the sample was taken, and may jump by years; everything else goes by the monotonic one, which stands still
    /// while the machine is suspended, as its counters do.
    pub(crate) async fn sample(&mut self, wall: SystemTime, now: Instant, clock_synchronized: bool) -> Sample {
        let mut sample = Sample::new(Timestamp::from(wall), clock_synchronized, self.seq);
        self.seq += 1;
        self.cpu.fill(&mut sample);
        self.memory.fill(&mut sample);
        self.fill_system(&mut sample);
        self.network.fill(&mut sample, now);
        self.activity.fill(&mut sample, now);
        sample.disks = self.file_systems.read(now).await;
        sample.processes = self.processes.get(now, |path| count_processes(path));
        self.ask_sensors(&mut sample, now).await;
        sample
    }

    async fn ask_sensors(&mut self, sample: &mut Sample, now: Instant) {
        let thread = &mut self.sensors;
        if let Some(temperature) = &mut self.temperature {
            sample.temperature_celsius = temperature.ask(thread, SENSOR_DEADLINE).await.flatten();
        }
        if let Some(wifi) = &mut self.wifi {
            sample.wifi_signal_dbm = wifi.ask(thread, now).await;
        }
        if let Some(power) = &mut self.power {
            sample.power = power.ask(thread, now).await;
        }
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

/// A value that is read only now and then and is valid in between.
struct Slowly<S, T> {
    source: S,
    period: Duration,
    read_at: Option<Instant>,
    value: T,
}

impl<S, T: Default + Clone> Slowly<S, T> {
    fn new(source: S, period: Duration) -> Self {
        Self { source, period, read_at: None, value: T::default() }
    }

    fn is_due(&self, now: Instant) -> bool {
        // A little early is due too, or a period that equals the interval would be read every other time.
        self.read_at.is_none_or(|at| now.duration_since(at) + Duration::from_millis(50) >= self.period)
    }

    fn keep(&mut self, now: Instant, value: T) {
        self.read_at = Some(now);
        self.value = value;
    }

    fn get(&mut self, now: Instant, read: impl FnOnce(&mut S) -> T) -> T {
        if self.is_due(now) {
            let value = read(&mut self.source);
            self.keep(now, value);
        }
        self.value.clone()
    }
}

impl<T: Clone + Send + 'static> Slowly<Guarded<Option<T>>, Option<T>> {
    /// Of a sensor that may hang.
    async fn ask(&mut self, thread: &mut SideThread, now: Instant) -> Option<T> {
        if self.is_due(now) {
            let value = self.source.ask(thread, SENSOR_DEADLINE).await.flatten();
            self.keep(now, value);
        }
        self.value.clone()
    }
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

/// Bytes per second between two readings of a counter; nothing when it went back or no time has passed.
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
}
