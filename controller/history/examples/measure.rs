//! Measures the history: bytes a value, size of a year, time of charts.
//!
//!     cargo run --release -p pistat-history --example measure [-- TRACE.csv …]
//!
//! A trace has the time in its first column, in seconds, and a series in each other one. The year
//! is simulated: one machine, a sample a minute, 30 series that wander.

use std::{
    error::Error,
    path::Path,
    time::{Duration, Instant},
};

use pistat_domain::fleet::Now;
use pistat_history::{
    Query, Selector, Settings, Store,
    block::{Block, Source, Step},
    codec::Point,
    scale::Scale,
    series::{Instance, Key},
    tier::Tier,
};
use pistat_protocol::{
    stats::{Disk, Power, Sample},
    time::Timestamp,
};

const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;
const START: i64 = 1_700_000_000_000;

/// The charts of a machine's page.
const CHARTS: [&str; 7] = [
    "cpu_percent",
    "memory_percent",
    "temperature_celsius",
    "disk_read_bytes_per_second",
    "disk_write_bytes_per_second",
    "network_rx_bytes_per_second",
    "network_tx_bytes_per_second",
];

fn main() -> Result<(), Box<dyn Error>> {
    for trace in std::env::args().skip(1) {
        measure_trace(Path::new(&trace))?;
    }
    measure_year()
}

fn measure_trace(file: &Path) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(file)?;
    let rows: Vec<Vec<f64>> =
        text.lines().map(|line| line.split(',').map(str::parse).collect()).collect::<Result<_, _>>()?;
    let width = rows.first().map_or(0, Vec::len);
    let scales: Vec<Scale> = (1..width).map(|column| scale_of(&rows, column)).collect();
    for tier in [Tier::Fine, Tier::Minute] {
        let (mut bytes, mut values) = (0, 0);
        let mut at = 0;
        while at < rows.len() {
            let number = tier.block_of(step_of(tier, &rows[at]));
            let end = rows[at..].iter().position(|row| tier.block_of(step_of(tier, row)) != number);
            let rows_of_block = &rows[at..end.map_or(rows.len(), |end| at + end)];
            let block = block(tier, number, rows_of_block, &scales);
            bytes += block.encode().len();
            let known = block.columns().values().flatten().flatten().count();
            values += if tier.has_range() { 3 * known } else { known };
            at += rows_of_block.len();
        }
        println!(
            "{}: {} series, tier {}: {:.2} bytes a value ({values} values)",
            file.file_name().and_then(|name| name.to_str()).unwrap_or_default(),
            width - 1,
            tier.name(),
            ratio(bytes, values)
        );
    }
    Ok(())
}

/// What is never above a hundred counts as a percentage; what is larger as a rate.
fn scale_of(rows: &[Vec<f64>], column: usize) -> Scale {
    let most = rows.iter().map(|row| row[column]).fold(0.0, f64::max);
    if most <= 100.0 { Scale::Linear(0.5) } else { Scale::Rate }
}

fn step_of(tier: Tier, row: &[f64]) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a time")]
    let milliseconds = (row[0] * 1000.0) as i64;
    tier.step_of(milliseconds)
}

fn block(tier: Tier, number: i64, rows: &[Vec<f64>], scales: &[Scale]) -> Block {
    let mut block = Block::new(tier, number);
    let steps: Vec<Step> = rows
        .chunk_by(|a, b| step_of(tier, a) == step_of(tier, b))
        .map(|rows| Step { number: step_of(tier, &rows[0]), source: Source::Live, values: values(rows, scales) })
        .collect();
    block.merge(steps.iter());
    block
}

fn values(rows: &[Vec<f64>], scales: &[Scale]) -> Vec<(Key, Point)> {
    let value = |(metric, scale): (u8, &Scale)| {
        let column = || rows.iter().map(|row| row[usize::from(metric)]);
        #[expect(clippy::cast_precision_loss, reason = "few rows")]
        let mean = scale.quantise(column().sum::<f64>() / rows.len() as f64)?;
        let min = column().filter_map(|value| scale.quantise(value)).min()?.min(mean);
        let max = column().filter_map(|value| scale.quantise(value)).max()?.max(mean);
        Some((Key { metric, instance: Instance::Only }, Point { mean, min, max }))
    };
    (1_u8..).zip(scales).filter_map(value).collect()
}

fn ratio(bytes: usize, values: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = bytes as f64 / values.max(1) as f64;
    ratio
}

fn measure_year() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("history.db");
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let settings =
        Settings { space_bytes: 1 << 30, keep: [days(7), days(90), days(1826)], flush: Duration::from_secs(3600) };
    let started = Instant::now();
    let at = |lived: i64| Now {
        wall: Timestamp::from_unix_milliseconds(START + lived),
        monotonic: started + Duration::from_millis(lived.cast_unsigned()),
    };
    let (mut store, _) = Store::open(&file, settings.clone(), at(0))?;
    let pi = "pi-1".parse()?;
    let mut wander = Wander(1);
    let year = 365 * DAY;
    let mut lived = 0;
    let clock = Instant::now();
    let mut samples = 0_u32;
    while lived < year {
        // The last week comes each ten seconds, the rest each minute: older fine steps are gone.
        lived += if lived > year - 7 * DAY { MINUTE / 6 } else { MINUTE };
        store.live(&pi, &wander.sample(), at(lived));
        samples += 1;
        while store.tick(at(lived)) {}
    }
    store.flush(at(lived));
    println!("a year of one machine: {} bytes in the file", store.numbers().file_bytes);
    println!("{:?} a sample, with its share of writing", clock.elapsed() / samples);
    drop(store);
    let clock = Instant::now();
    let (mut store, _) = Store::open(&file, settings, at(lived))?;
    println!("opened in {:?}", clock.elapsed());
    for (name, span) in [("1 h", DAY / 24), ("24 h", DAY), ("90 d", 90 * DAY), ("5 y", 5 * 365 * DAY)] {
        let columns: Vec<_> = CHARTS.iter().filter_map(|name| Selector::parse(name)).collect();
        let query = Query { from: START + lived - span, to: START + lived, points: 600, columns };
        let mut times: Vec<Duration> = (0..100)
            .map(|_| {
                let clock = Instant::now();
                let answer = store.answer(&pi, &query, at(lived));
                assert_eq!(answer.columns.len(), CHARTS.len());
                clock.elapsed()
            })
            .collect();
        times.sort();
        println!("seven charts, {name}: median {:?}, 99 % {:?}", times[50], times[98]);
    }
    Ok(())
}

/// Numbers that wander as those of a machine do, without chance.
struct Wander(u64);

impl Wander {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from(u16::try_from(self.0 >> 48).unwrap_or(0)) / 65_536.0
    }

    fn bytes(&mut self, most: f32) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let bytes = (self.next().powi(4) * most) as u64;
        bytes
    }

    fn sample(&mut self) -> Sample {
        let disk = Disk { mount: "/".into(), used_bytes: 11 << 30, total_bytes: 29 << 30, used_percent: 38.0 };
        Sample {
            cpu_percent: Some(3.0 + 5.0 * self.next()),
            cpu_cores_percent: Some((0..4).map(|_| 2.0 + 6.0 * self.next()).collect()),
            cpu_mhz: Some(if self.next() < 0.8 { 600 } else { 1500 }),
            load1: Some(self.next()),
            load5: Some(0.2 + 0.1 * self.next()),
            load15: Some(0.25),
            memory_used_bytes: Some(1_200_000_000 + self.bytes(2e7)),
            memory_total_bytes: Some(4 << 30),
            memory_percent: Some(30.0 + self.next()),
            swap_used_bytes: Some(0),
            swap_total_bytes: Some(100 << 20),
            temperature_celsius: Some(47.0 + 2.0 * self.next()),
            disks: Some(vec![disk]),
            disk_read_bytes_per_second: Some(self.bytes(1e5)),
            disk_write_bytes_per_second: Some(self.bytes(1e6)),
            network_rx_bytes_per_second: Some(self.bytes(2e5)),
            network_tx_bytes_per_second: Some(self.bytes(1e5)),
            wifi_signal_dbm: Some(-50),
            uptime_seconds: Some(1_000_000),
            processes: Some(140),
            power: Some(Power::from_throttled(0)),
            ..Sample::new(Timestamp::from_unix_milliseconds(0), true, 0)
        }
    }
}
