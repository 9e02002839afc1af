//! Browsers that time what they see, and what a process costs meanwhile.

use std::{
    fmt,
    time::{Duration, Instant},
};

use pistat_testkit::{statistics::percentile, usage};
use tokio::task::JoinSet;

/// Before a row counts, so that connecting is not measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long each row is measured.
pub fn seconds(default: u64) -> u64 {
    std::env::var("PISTAT_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A list of numbers from the environment.
pub fn list(variable: &str, default: &[usize]) -> Vec<usize> {
    match std::env::var(variable) {
        Ok(text) => text.split(',').filter_map(|word| word.trim().parse().ok()).collect(),
        Err(_) => default.to_vec(),
    }
}

/// What a process has cost so far, or between two looks.
pub struct Cost {
    id: u32,
    at: Instant,
    cpu: Duration,
    pub core_percent: f64,
    pub cpu_seconds: f64,
    pub resident_mb: f64,
    pub own_mb: f64,
}

impl Cost {
    pub fn of(id: u32) -> Self {
        let megabytes = |kind: &str| usage::memory(id, kind) as f64 / f64::from(1 << 20);
        let (resident_mb, own_mb) = (megabytes("VmRSS"), megabytes("RssAnon"));
        Self { id, at: Instant::now(), cpu: usage::cpu(id), core_percent: 0.0, cpu_seconds: 0.0, resident_mb, own_mb }
    }

    pub fn since(&self) -> Self {
        let now = Self::of(self.id);
        let cpu_seconds = (now.cpu - self.cpu).as_secs_f64();
        let core_percent = 100.0 * cpu_seconds / self.at.elapsed().as_secs_f64();
        Self { core_percent, cpu_seconds, ..now }
    }
}

/// All numbers that follow `name` in a frame.
pub fn marks(text: &str, name: &str, marks: &mut Vec<u64>) {
    for (at, _) in text.match_indices(name) {
        let digits = text[at + name.len()..].bytes().take_while(u8::is_ascii_digit);
        marks.push(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
    }
}

/// One row of a table.
pub struct Row {
    machines: usize,
    browsers: usize,
    per_second: f64,
    took: Vec<Duration>,
    cost: Cost,
}

impl Row {
    pub const HEAD: &'static str =
        "machines  browsers  samples seen/s  of expected  p50 ms  p99 ms  most ms  % of a core  resident MB";
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut took = self.took.clone();
        let mut ms = |percent| percentile(&mut took, percent).as_secs_f64() * 1e3;
        let expected = (self.machines * self.browsers) as f64;
        write!(
            f,
            "{:>8}  {:>8}  {:>14.0}  {:>10.0}%  {:>6.1}  {:>6.1}  {:>7.1}  {:>11.1}  {:>11.1}",
            self.machines,
            self.browsers,
            self.per_second,
            100.0 * self.per_second / expected,
            ms(50),
            ms(99),
            ms(100),
            self.cost.core_percent,
            self.cost.resident_mb
        )
    }
}

impl Row {
    /// This row in parts of another.
    pub fn ratio(&self, other: &Self) -> String {
        let ms = |row: &Self, percent| percentile(&mut row.took.clone(), percent).as_secs_f64();
        let part = |of: &dyn Fn(&Self) -> f64| of(self) / of(other);
        format!(
            "samples seen {:.2}, p50 {:.2}, p99 {:.2}, most {:.2}, processor {:.2}, resident {:.2}",
            part(&|row| row.per_second),
            part(&|row| ms(row, 50)),
            part(&|row| ms(row, 99)),
            part(&|row| ms(row, 100)),
            part(&|row| row.cost.core_percent),
            part(&|row| row.cost.resident_mb)
        )
    }
}

/// Lets browsers look for a while, and times every sample that they see, from when it was said.
pub async fn watch<F: Send + 'static>(
    machines: usize,
    feeds: Vec<F>,
    process: u32,
    epoch: Instant,
    read: impl AsyncFn(&mut F, &mut Vec<u64>) -> bool + Copy + Send + 'static,
) -> Row {
    let browsers = feeds.len();
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(seconds(10));
    let local = tokio::task::LocalSet::new();
    let mut looking = JoinSet::new();
    for mut feed in feeds {
        looking.spawn_local_on(
            async move {
                let (mut took, mut seen) = (Vec::new(), Vec::new());
                while Instant::now() < end {
                    seen.clear();
                    match tokio::time::timeout_at(end.into(), read(&mut feed, &mut seen)).await {
                        Ok(true) => {}
                        _ => break,
                    }
                    let now = Instant::now();
                    if now >= begin {
                        let said = seen.iter().map(|mark| epoch + Duration::from_micros(*mark));
                        // What was said before, or by no machine of ours, is not timed.
                        took.extend(
                            said.filter(|said| *said >= begin - WARM_UP)
                                .map(|said| now.saturating_duration_since(said)),
                        );
                    }
                }
                took
            },
            &local,
        );
    }
    let measuring = async {
        tokio::time::sleep_until(begin.into()).await;
        let cost = Cost::of(process);
        tokio::time::sleep_until(end.into()).await;
        cost.since()
    };
    let (cost, took) = local
        .run_until(async {
            let all = async {
                let mut all = Vec::new();
                while let Some(took) = looking.join_next().await {
                    all.extend(took.expect("a browser does not panic"));
                }
                all
            };
            tokio::join!(measuring, all)
        })
        .await;
    assert!(!took.is_empty(), "no browser saw a sample");
    let per_second = took.len() as f64 / (end - begin).as_secs_f64();
    Row { machines, browsers, per_second, took, cost }
}

/// Percentiles in a line.
pub fn report(what: &str, took: &mut [Duration]) {
    let mut ms = |percent| percentile(took, percent).as_secs_f64() * 1e3;
    let (p50, p99) = (ms(50), ms(99));
    println!("{what}: p50 {p50:.1} ms, p99 {p99:.1} ms ({} times)", took.len());
}
