//! Busy time and clock of the processor, from `/proc/stat` (proc(5)) and cpufreq.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use pistat_protocol::stats::Sample;

use super::{percent, source::Source};

/// Fewer clock ticks than this say nothing: a share of busy time would be noise.
const FEWEST_TICKS: u64 = 5;

/// Clock ticks in a second, as the kernel counts them for every program (`USER_HZ`, time(7)).
const TICKS_PER_SECOND: u128 = 100;

/// Ticks of one core since boot. User time contains guest time already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    total: u64,
}

impl Ticks {
    /// The share of busy ticks since an earlier reading; nothing when a counter went back, as idle
    /// time sometimes does, or by more than there can have been, as when it has read 0 for a
    /// moment.
    fn busy_since(self, before: Self, most: u64) -> Option<f32> {
        let total = self.total.checked_sub(before.total).filter(|total| (FEWEST_TICKS..=most).contains(total))?;
        let idle = self.idle.checked_sub(before.idle).filter(|idle| *idle <= total)?;
        percent(total - idle, total)
    }
}

/// All cores together and each core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Reading {
    all: Option<Ticks>,
    /// By the core's number: a core may be taken offline.
    cores: Vec<(u32, Ticks)>,
}

fn parse(text: &str) -> Reading {
    let mut reading = Reading::default();
    for line in text.lines().take_while(|line| line.starts_with("cpu")) {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next().unwrap_or_default();
        let Some(ticks) = parse_ticks(fields) else { continue };
        match name[3..].parse() {
            Ok(core) => reading.cores.push((core, ticks)),
            Err(_) => reading.all = Some(ticks),
        }
    }
    reading
}

/// user nice system idle iowait irq softirq steal [guest …]
fn parse_ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Option<Ticks> {
    let values: Vec<u64> = fields.take(8).map_while(|field| field.parse().ok()).collect();
    let idle = *values.get(3)? + values.get(4).copied().unwrap_or(0);
    Some(Ticks { idle, total: values.iter().sum() })
}

/// The processor.
#[derive(Debug)]
pub(crate) struct Cpu {
    stat: Source,
    before: Reading,
    read_at: Instant,
}

impl Cpu {
    /// The processor of the machine whose `/proc` is under `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { stat: Source::new(root.join("proc/stat")), before: Reading::default(), read_at: Instant::now() }
    }

    /// Reads the counters, so that the first sample has something to compare with.
    pub(crate) fn prime(&mut self, now: Instant) {
        self.before = self.stat.read(parse).unwrap_or_default();
        self.read_at = now;
    }

    /// Adds busy time since the last reading.
    pub(crate) fn fill(&mut self, sample: &mut Sample, now: Instant) {
        let reading = self.stat.read(parse).unwrap_or_default();
        let most = most_ticks(now.duration_since(self.read_at));
        self.read_at = now;
        let most_of_all = most.saturating_mul(reading.cores.len().max(1) as u64);
        sample.cpu_percent =
            reading.all.zip(self.before.all).and_then(|(now, before)| now.busy_since(before, most_of_all));
        let cores: Option<Vec<f32>> =
            reading.cores.iter().map(|(core, now)| self.busy_core(*core, *now, most)).collect();
        sample.cpu_cores_percent = cores.filter(|cores| !cores.is_empty());
        self.before = reading;
    }

    fn busy_core(&self, core: u32, now: Ticks, most: u64) -> Option<f32> {
        let before = self.before.cores.iter().find(|(number, _)| *number == core)?.1;
        now.busy_since(before, most)
    }
}

/// How many ticks a core can have counted in this time. Twice as many, and a second's more, may
/// come: a core that sleeps counts late.
fn most_ticks(elapsed: Duration) -> u64 {
    let ticks = (2 * elapsed.as_millis() + 1000) * TICKS_PER_SECOND / 1000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// The clocks of the cores. Some drivers ask the firmware or the core itself: it may hang.
#[derive(Debug)]
pub(crate) struct Clocks(Vec<Source>);

impl Clocks {
    /// Those of the machine whose `/sys` is under `root`; `None` on a machine that tells none.
    pub(crate) fn find(root: &Path) -> Option<Self> {
        let policies = std::fs::read_dir(root.join("sys/devices/system/cpu/cpufreq")).into_iter().flatten().flatten();
        let clocks = policies.map(|policy| Source::new(policy.path().join("scaling_cur_freq")));
        Some(Self(clocks.collect())).filter(|clocks| !clocks.0.is_empty())
    }

    /// The highest now, in megahertz.
    pub(crate) fn read(&mut self) -> Option<u32> {
        self.0.iter_mut().filter_map(|clock| clock.read(parse_megahertz)?).max()
    }
}

fn parse_megahertz(kilohertz: &str) -> Option<u32> {
    kilohertz.trim().parse::<u32>().ok().map(|value| value / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(idle: u64, total: u64) -> Ticks {
        Ticks { idle, total }
    }

    #[test]
    fn counters_become_ticks() {
        let text =
            "cpu  100 0 50 800 50 0 0 0 10 0\ncpu0 50 0 25 400 25 0 0 0 0 0\ncpu2 1 1 1 1\nintr 5 5\ncpu9 1 1 1 1\n";
        let reading = parse(text);
        assert_eq!(reading.all, Some(ticks(850, 1000)));
        assert_eq!(reading.cores, [(0, ticks(425, 500)), (2, ticks(1, 4))]);
        assert_eq!(parse("nonsense"), Reading::default());
        assert_eq!(parse("cpu  1 2\n").all, None);
    }

    #[test]
    fn busy_time_is_known_only_from_counters_that_went_forward() {
        let cases = [
            (ticks(0, 0), ticks(75, 100), Some(25.0)),
            (ticks(10, 100), ticks(10, 200), Some(100.0)),
            (ticks(100, 1000), ticks(100, 1001), None),
            (ticks(100, 1000), ticks(90, 1100), None),
            (ticks(100, 1000), ticks(50, 500), None),
            (ticks(0, 0), ticks(200, 100), None),
            // It has read 0 for a moment.
            (ticks(0, 0), ticks(900_000, 1_000_000), None),
            (ticks(900_000, 1_000_000), ticks(0, 0), None),
            (ticks(900_000, 1_000_000), ticks(900_375, 1_000_500), Some(25.0)),
        ];
        for (before, now, expected) in cases {
            assert_eq!(now.busy_since(before, most_ticks(Duration::from_secs(5))), expected, "{before:?} → {now:?}");
        }
    }
}
