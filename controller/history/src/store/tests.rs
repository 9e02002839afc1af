use std::collections::HashMap;

use pistat_protocol::history::Origin;
use rusqlite::params;
use tempfile::TempDir;

use super::*;
use crate::{
    block::Source,
    codec::Point,
    series::{Instance, Selector},
};

const BASE: i64 = 1_800_000_000_000;
const SECOND: i64 = 1000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

fn settings(space_bytes: u64) -> Settings {
    Settings { space_bytes, keep: [days(7), days(90), days(1826)], flush: Duration::from_secs(3600) }
}

fn pi(name: &str) -> PiId {
    name.parse().unwrap()
}

fn sample(cpu: f32, load: Option<f32>) -> Sample {
    let mut sample = Sample::new(Timestamp::from_unix_milliseconds(0), true, 0);
    sample.cpu_percent = Some(cpu);
    sample.load1 = load;
    sample
}

/// Known steps by their numbers.
type Found = BTreeMap<i64, (Source, HashMap<u8, Point>)>;

/// A store in a folder, with clocks that the test turns.
struct Bench {
    folder: TempDir,
    store: Option<Store>,
    started: Instant,
    wall: i64,
    lived: i64,
    how: Settings,
}

impl Bench {
    fn new(space_bytes: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let mut bench =
            Self { folder, store: None, started: Instant::now(), wall: BASE, lived: 0, how: settings(space_bytes) };
        bench.open();
        bench
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("history.db")
    }

    fn open(&mut self) -> Vec<String> {
        drop(self.store.take());
        let (store, notes) = Store::open(&self.file(), self.how.clone(), self.now()).unwrap();
        // A test need not survive a power cut.
        store.database.connection.pragma_update(None, "synchronous", "OFF").unwrap();
        self.store = Some(store);
        notes
    }

    fn now(&self) -> Now {
        let monotonic = self.started + Duration::from_millis(self.lived.cast_unsigned());
        Now { wall: Timestamp::from_unix_milliseconds(self.wall), monotonic }
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    /// Both clocks go on.
    fn pass(&mut self, milliseconds: i64) {
        self.wall += milliseconds;
        self.lived += milliseconds;
    }

    fn live(&mut self, pi: &PiId, cpu: f32) {
        let now = self.now();
        self.store().live(pi, &sample(cpu, None), now);
    }

    fn flush(&mut self) {
        let now = self.now();
        self.store().flush(now);
    }

    /// All known steps of a tier.
    fn steps(&mut self, pi: &PiId, tier: Tier) -> Found {
        let mut steps = BTreeMap::new();
        self.store().blocks(
            pi,
            tier,
            (0, i64::MAX),
            |_| true,
            |block| {
                for (slot, source) in block.sources().iter().enumerate() {
                    let Some(source) = source else { continue };
                    let value = |(key, column): (&Key, &Vec<Option<Point>>)| Some((key.metric, column[slot]?));
                    let number = block.first_step() + i64::try_from(slot).unwrap();
                    steps.insert(number, (*source, block.columns().iter().filter_map(value).collect()));
                }
            },
        );
        steps
    }

    fn known(&mut self, pi: &PiId, tier: Tier) -> usize {
        self.steps(pi, tier).len()
    }

    fn cpu(&mut self, pi: &PiId, from: i64, to: i64, points: u32) -> MachineHistory {
        let now = self.now();
        let columns = vec![Selector::parse("cpu_percent").unwrap()];
        self.store().answer(pi, &Query { from, to, points, columns }, now)
    }
}

// --- The model ----------------------------------------
// ------------------------------------------------------------

/// A series of a step in the model.
#[derive(Debug, Clone, Copy)]
struct Sum {
    total: f64,
    count: f64,
    min: f64,
    max: f64,
}

impl Sum {
    fn of(value: f64) -> Self {
        Self { total: value, count: 1.0, min: value, max: value }
    }

    fn add(&mut self, value: f64) {
        self.total += value;
        self.count += 1.0;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

type Steps = BTreeMap<(PiId, i64), (Source, HashMap<u8, Sum>)>;

/// What a store is to hold of one tier, as a map.
#[derive(Debug, Clone, Default)]
struct Model {
    finished: Steps,
    open: HashMap<PiId, (i64, HashMap<u8, Sum>)>,
}

impl Model {
    fn live(&mut self, pi: &PiId, step: i64, values: &[(u8, f64)]) {
        if self.open.get(pi).is_some_and(|(open, _)| *open != step) {
            self.finish(pi);
        }
        let (_, sums) = self.open.entry(pi.clone()).or_insert_with(|| (step, HashMap::new()));
        for (metric, value) in values {
            sums.entry(*metric).and_modify(|sum| sum.add(*value)).or_insert_with(|| Sum::of(*value));
        }
    }

    fn finish(&mut self, pi: &PiId) {
        let Some((step, sums)) = self.open.remove(pi) else { return };
        let known = self.finished.entry((pi.clone(), step)).or_insert_with(|| (Source::Live, HashMap::new()));
        if known.0 == Source::Late {
            *known = (Source::Live, HashMap::new());
        }
        for (metric, sum) in sums {
            known.1.entry(metric).or_insert(sum);
        }
    }

    fn late(&mut self, pi: &PiId, step: i64, values: &[(u8, f64)]) {
        let known = self.finished.entry((pi.clone(), step)).or_insert_with(|| (Source::Late, HashMap::new()));
        if known.0 == Source::Late {
            for (metric, value) in values {
                known.1.entry(*metric).or_insert_with(|| Sum::of(*value));
            }
        }
    }

    fn finish_all(&mut self) {
        for pi in self.open.keys().cloned().collect::<Vec<_>>() {
            self.finish(&pi);
        }
    }
}

/// Numbers without chance, from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn signed(&mut self, most: i64) -> i64 {
        i64::try_from(self.below(most.cast_unsigned())).unwrap()
    }
}

/// What a sample says, by metric.
type Values = Vec<(u8, f64)>;

struct Trial {
    bench: Bench,
    dice: Dice,
    machines: [PiId; 2],
    tiers: [Tier; 2],
    models: [Model; 2],
    /// What is surely in the file.
    written: [Model; 2],
    /// What agents remember: one sample a minute.
    remembered: Vec<(PiId, i64, Values)>,
    /// How often it was killed, and how often the disk was full.
    kills: u64,
    failures: u64,
}

impl Trial {
    fn values(&mut self) -> Values {
        // Steps that are kept exactly, so that the model needs no rounding of its own.
        let mut values = vec![(1, 0.5 * f64::from(u32::try_from(self.dice.below(200)).unwrap()))];
        if self.dice.below(3) > 0 {
            values.push((4, 0.25 * f64::from(u32::try_from(self.dice.below(8)).unwrap())));
        }
        values
    }

    fn sample(values: &[(u8, f64)]) -> Sample {
        #[expect(clippy::cast_possible_truncation, reason = "small")]
        let of = |metric| values.iter().find(|(other, _)| *other == metric).map(|(_, value)| *value as f32);
        sample(of(1).unwrap(), of(4))
    }

    fn live(&mut self) {
        let pi = self.machines[usize::try_from(self.dice.below(2)).unwrap()].clone();
        for _ in 0..=self.dice.below(12) {
            let step = self.dice.signed(25) * SECOND;
            self.bench.pass(step);
            let values = self.values();
            let now = self.bench.now();
            self.bench.store().live(&pi, &Self::sample(&values), now);
            for (model, tier) in self.models.iter_mut().zip(self.tiers) {
                model.live(&pi, tier.step_of(self.bench.wall), &values);
            }
            let wall = self.bench.wall;
            let minute = wall.div_euclid(MINUTE);
            if !self.remembered.iter().any(|(other, at, _)| *other == pi && at.div_euclid(MINUTE) == minute) {
                self.remembered.push((pi.clone(), wall, values));
            }
        }
    }

    fn late(&mut self, pi: &PiId, at: i64, values: &[(u8, f64)]) {
        let now = self.bench.now();
        let is_kept = (0..=self.bench.wall).contains(&at);
        self.bench.store().late(pi, &Self::sample(values), Timestamp::from_unix_milliseconds(at), now);
        if is_kept {
            for (model, tier) in self.models.iter_mut().zip(self.tiers) {
                model.late(pi, tier.step_of(at), values);
            }
        }
    }

    fn recall(&mut self) {
        let (pi, from) = (self.machines[0].clone(), self.bench.wall - 2 * HOUR);
        let remembered: Vec<_> =
            self.remembered.iter().filter(|(other, at, _)| *other == pi && *at >= from).cloned().collect();
        for (pi, at, values) in remembered {
            self.late(&pi, at, &values);
        }
    }

    fn flush(&mut self) {
        self.bench.flush();
        self.failures += u64::from(self.bench.store().numbers.trouble.is_some());
        if self.bench.store().machines.values().all(Machine::is_clean) {
            self.written = self.models.clone();
            self.written.iter_mut().for_each(|model| model.open.clear());
            // A machine that is off ends its step.
            let open: Vec<PiId> =
                self.bench.store().machines.iter().filter(|(_, m)| !m.is_idle()).map(|(pi, _)| pi.clone()).collect();
            for pi in self.machines.clone() {
                if !open.contains(&pi) {
                    self.models.iter_mut().for_each(|model| model.finish(&pi));
                    self.written.iter_mut().zip(&self.models).for_each(|(written, model)| {
                        written.finished.clone_from(&model.finished);
                    });
                }
            }
        }
    }

    /// Every write fails as on a full disk; the few bytes of a trial would fit into pages that are
    /// there.
    fn refuse_writes(&mut self, refuse: bool) {
        let connection = &self.bench.store().database.connection;
        connection.pragma_update(None, "query_only", refuse).unwrap();
    }

    fn act(&mut self) {
        match self.dice.below(20) {
            0..=8 => self.live(),
            9 => {
                let wait = self.dice.signed(3 * HOUR);
                self.bench.pass(wait);
            }
            // The clock alone jumps, ahead or back.
            10 => self.bench.wall += self.dice.signed(8 * HOUR) - 4 * HOUR,
            11 => {
                let (pi, values) = (self.machines[1].clone(), self.values());
                let at = self.bench.wall + MINUTE - self.dice.signed(10 * HOUR);
                self.late(&pi, at, &values);
            }
            12 | 13 => self.recall(),
            14 | 15 => self.flush(),
            16 => {
                let now = self.bench.now();
                self.refuse_writes(false);
                self.bench.store().close(now);
                self.models.iter_mut().for_each(Model::finish_all);
                self.written = self.models.clone();
                self.bench.open();
            }
            17 => {
                // Killed: what was not written is gone, until agents are asked.
                self.kills += 1;
                self.bench.open();
                self.models = self.written.clone();
                self.recall();
            }
            18 => self.refuse_writes(true),
            _ => self.refuse_writes(false),
        }
    }

    fn check(&mut self, seed: u64) {
        for index in 0..2 {
            let mut expected = self.models[index].clone();
            expected.finish_all();
            for pi in self.machines.clone() {
                let found = self.bench.steps(&pi, self.tiers[index]);
                let expected: BTreeMap<i64, _> = expected
                    .finished
                    .iter()
                    .filter(|((other, _), _)| *other == pi)
                    .map(|((_, step), known)| (*step, known.clone()))
                    .collect();
                let numbers =
                    |steps: &Found| steps.iter().map(|(step, (source, _))| (*step, *source)).collect::<Vec<_>>();
                let wanted: Vec<_> = expected.iter().map(|(step, (source, _))| (*step, *source)).collect();
                assert_eq!(numbers(&found), wanted, "seed {seed}, {pi}, {:?}", self.tiers[index]);
                for (step, (_, sums)) in expected {
                    Self::compare(&found[&step].1, &sums, self.tiers[index], seed);
                }
            }
        }
        self.check_quarters(seed);
    }

    fn compare(found: &HashMap<u8, Point>, sums: &HashMap<u8, Sum>, tier: Tier, seed: u64) {
        assert_eq!(found.len(), sums.len(), "seed {seed}");
        for (metric, sum) in sums {
            let scale = crate::series::metric_by_id(*metric).unwrap().scale;
            let mean = scale.quantise(sum.total / sum.count).unwrap();
            let expected = if tier.has_range() {
                Point { mean, min: scale.quantise(sum.min).unwrap(), max: scale.quantise(sum.max).unwrap() }
            } else {
                Point::of(mean)
            };
            assert_eq!(found[metric], expected, "seed {seed}, {tier:?}, metric {metric}");
        }
    }

    /// Every quarter is made of exactly its minutes.
    fn check_quarters(&mut self, seed: u64) {
        for pi in self.machines.clone() {
            let minutes = self.bench.steps(&pi, Tier::Minute);
            let mut expected: BTreeMap<i64, (i32, i32)> = BTreeMap::new();
            for (minute, (_, values)) in &minutes {
                let point = values[&1];
                let known = expected.entry(minute.div_euclid(15)).or_insert((point.min, point.max));
                *known = (known.0.min(point.min), known.1.max(point.max));
            }
            let quarters = self.bench.steps(&pi, Tier::Quarter);
            let found: BTreeMap<i64, (i32, i32)> =
                quarters.iter().map(|(step, (_, values))| (*step, (values[&1].min, values[&1].max))).collect();
            assert_eq!(found, expected, "seed {seed}, {pi}, quarters");
        }
    }
}

#[test]
fn the_store_holds_what_a_map_would_whatever_happens() {
    // More with PISTAT_SEEDS=5000.
    let seeds = std::env::var("PISTAT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(300);
    let (mut kills, mut failures) = (0, 0);
    for seed in 0..seeds {
        let mut trial = Trial {
            bench: Bench::new(1 << 30),
            dice: Dice(seed * 7919 + 1),
            machines: [pi("pi-1"), pi("pi-2")],
            tiers: [Tier::Fine, Tier::Minute],
            models: Default::default(),
            written: Default::default(),
            remembered: Vec::new(),
            kills: 0,
            failures: 0,
        };
        for _ in 0..40 {
            trial.act();
        }
        failures += trial.failures;
        kills += trial.kills;
        trial.check(seed);
    }
    assert!(kills > seeds && failures > seeds / 4, "{kills} kills, {failures} times a full disk");
}

// --- Single promises ----------------------------------------
// ------------------------------------------------------------

#[test]
fn a_damaged_block_is_unknown_and_hurts_no_other() {
    let mut bench = Bench::new(1 << 30);
    let a = pi("pi-a");
    for _ in 0..180 {
        bench.live(&a, 20.0);
        bench.pass(MINUTE);
    }
    bench.flush();
    let before = bench.known(&a, Tier::Fine);
    let connection = &bench.store().database.connection;
    let id: i64 = connection.query_row("SELECT min(id) FROM block", [], |row| row.get(0)).unwrap();
    let changed = connection
        .execute("UPDATE block SET data = substr(data, 1, 20) || x'5a5a' || substr(data, 23) WHERE id = ?", params![id])
        .unwrap();
    assert_eq!(changed, 1);
    let after = bench.known(&a, Tier::Fine);
    assert!(after < before && after > before / 2, "{after} of {before} steps");
    assert_eq!(bench.known(&a, Tier::Minute), 180);
    assert_eq!(bench.store().numbers().damaged, 1);
    // What comes for the same hour is kept again.
    let at = Timestamp::from_unix_milliseconds(BASE + MINUTE);
    let now = bench.now();
    bench.store().late(&a, &sample(5.0, None), at, now);
    bench.flush();
    assert_eq!(bench.known(&a, Tier::Fine), after + 1);
}

#[test]
fn a_file_of_a_newer_version_is_kept_aside_and_so_is_a_damaged_one() {
    let mut bench = Bench::new(1 << 30);
    let a = pi("pi-a");
    bench.live(&a, 20.0);
    bench.pass(MINUTE);
    let now = bench.now();
    bench.store().close(now);
    bench.store().database.connection.pragma_update(None, "user_version", 7).unwrap();
    let notes = bench.open();
    assert!(notes.len() == 1 && notes[0].contains("newer version (its schema is 7"), "{notes:?}");
    assert!(bench.folder.path().join("history.db.kept-1").exists());
    assert_eq!(bench.known(&a, Tier::Minute), 0);
    drop(bench.store.take());
    std::fs::write(bench.file(), "no database ".repeat(1000)).unwrap();
    let notes = bench.open();
    assert!(notes.len() == 1 && notes[0].contains("is damaged"), "{notes:?}");
    assert!(bench.folder.path().join("history.db.kept-2").exists());
}

#[test]
fn a_forgotten_machine_leaves_nothing() {
    let mut bench = Bench::new(1 << 30);
    let (a, b) = (pi("pi-a"), pi("pi-b"));
    for _ in 0..100 {
        bench.live(&a, 1.0);
        bench.live(&b, 1.0);
        bench.pass(MINUTE);
    }
    bench.flush();
    bench.live(&a, 1.0);
    let all = bench.store().numbers().blocks;
    bench.store().forget(&a);
    let left: i64 = {
        let connection = &bench.store().database.connection;
        assert_eq!(connection.query_row("SELECT count(*) FROM machine", [], |row| row.get::<_, i64>(0)), Ok(1));
        connection.query_row("SELECT count(*) FROM block", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((left * 2, bench.store().numbers().blocks * 2), (i64::try_from(all).unwrap(), all));
    assert_eq!((bench.known(&a, Tier::Minute), bench.known(&b, Tier::Minute)), (0, 100));
    assert_eq!(bench.store().pis(), BTreeSet::from([b]));
}

#[test]
fn the_file_never_takes_more_than_its_space_and_fine_steps_go_first() {
    let space = 400 << 10;
    let mut bench = Bench::new(space);
    let mut dice = Dice(5);
    let a = pi("pi-a");
    let mut largest = 0;
    for hour in 0..72 {
        for _ in 0..360 {
            let mut sample = sample(0.0, None);
            // Noise: a third of a day's fine steps fits.
            sample.cpu_cores_percent =
                Some((0..20).map(|_| f32::from(u16::try_from(dice.below(100)).unwrap())).collect());
            let now = bench.now();
            bench.store().live(&a, &sample, now);
            bench.pass(10 * SECOND);
        }
        bench.flush();
        let bytes = bench.store().numbers().file_bytes;
        largest = largest.max(bytes);
        assert!(bytes <= space, "{bytes} bytes after {hour} hours");
    }
    let numbers = bench.store().numbers();
    assert!(numbers.evicted > 10 && largest > space / 2 && numbers.trouble.is_none(), "{numbers:?}");
    assert_eq!(bench.known(&a, Tier::Quarter), 72 * 4, "all quarters are there");
    assert!(bench.known(&a, Tier::Fine) < 20 * 360);
}

#[test]
fn steps_expire_by_the_time_that_was_lived_through_not_by_the_clock() {
    let mut bench = Bench::new(1 << 30);
    let a = pi("pi-a");
    for _ in 0..9 * 24 {
        bench.live(&a, 20.0);
        bench.pass(HOUR);
        bench.flush();
    }
    let fine = bench.known(&a, Tier::Fine);
    assert!((7 * 24..=7 * 24 + 2).contains(&fine), "{fine}");
    assert_eq!(bench.known(&a, Tier::Minute), 9 * 24);
    // A clock that is a year ahead deletes nothing.
    bench.wall += 365 * DAY;
    bench.live(&a, 30.0);
    bench.pass(MINUTE);
    bench.flush();
    assert!(bench.known(&a, Tier::Fine) >= fine);
    assert_eq!(bench.known(&a, Tier::Minute), 9 * 24 + 1);
    // Back again, history goes on.
    bench.wall -= 365 * DAY;
    bench.live(&a, 40.0);
    bench.pass(MINUTE);
    bench.flush();
    assert_eq!(bench.known(&a, Tier::Minute), 9 * 24 + 2);
}

#[test]
fn on_a_full_disk_history_stops_says_so_and_goes_on() {
    let mut bench = Bench::new(1 << 30);
    let a = pi("pi-a");
    bench.live(&a, 20.0);
    bench.pass(MINUTE);
    bench.flush();
    let pages = |bench: &mut Bench, pages: u32| {
        let connection = &bench.store().database.connection;
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    };
    pages(&mut bench, 1);
    for _ in 0..5 * 360 {
        let mut sample = sample(1.0, None);
        sample.cpu_cores_percent = Some(vec![3.0; 64]);
        let now = bench.now();
        bench.store().live(&a, &sample, now);
        bench.pass(10 * SECOND);
    }
    bench.flush();
    let numbers = bench.store().numbers();
    assert!(numbers.trouble.as_deref().is_some_and(|why| why.contains("full")), "{numbers:?}");
    assert!(numbers.errors >= 1);
    let known = bench.known(&a, Tier::Fine);
    assert!(known > 5 * 359, "what waits is shown: {known}");
    pages(&mut bench, u32::MAX);
    let now = bench.now();
    assert!(!bench.store().tick(now), "not before a while has passed");
    assert!(bench.store().numbers().trouble.is_some());
    bench.pass(2 * MINUTE);
    let now = bench.now();
    while bench.store().tick(now) {}
    assert_eq!(bench.store().numbers().trouble, None);
    bench.open();
    assert!(bench.known(&a, Tier::Fine) >= known - 1);
}

#[test]
fn an_agent_is_asked_for_the_minutes_that_are_unknown() {
    let mut bench = Bench::new(1 << 30);
    let a = pi("pi-a");
    let now = bench.now();
    let (from, to) = bench.store().missing(&a, now).unwrap();
    let minute = Tier::Minute.step_of(BASE) * MINUTE;
    assert_eq!(
        (from.unix_milliseconds(), to.unix_milliseconds()),
        (minute - 119 * MINUTE, minute),
        "of a new machine all that it remembers"
    );
    for index in 0..130 {
        if !(60..70).contains(&index) {
            bench.live(&a, 1.0);
        }
        bench.pass(MINUTE);
    }
    let now = bench.now();
    let (from, to) = bench.store().missing(&a, now).unwrap();
    assert_eq!((from.unix_milliseconds(), to.unix_milliseconds()), (minute + 60 * MINUTE, minute + 70 * MINUTE));
    for index in 60..70 {
        let at = Timestamp::from_unix_milliseconds(BASE + index * MINUTE);
        bench.store().late(&a, &sample(9.0, None), at, now);
    }
    assert_eq!(bench.store().missing(&a, now), None);
}

#[test]
fn a_chart_shows_means_extremes_and_how_values_came() {
    let mut bench = Bench::new(1 << 30);
    let a = pi("pi-a");
    let start = BASE.div_euclid(HOUR) * HOUR;
    bench.wall = start;
    for index in 0..120_u16 {
        bench.live(&a, if index == 30 { 100.0 } else { 10.0 });
        bench.pass(10 * SECOND);
    }
    let now = bench.now();
    let at = Timestamp::from_unix_milliseconds(start - 5 * MINUTE);
    bench.store().late(&a, &sample(50.0, None), at, now);
    for is_written in [false, true] {
        let fine = bench.cpu(&a, start, start + HOUR, 600);
        let column = &fine.columns["cpu_percent"];
        assert_eq!((fine.step_seconds, column.mean.len(), column.unit.as_str()), (10, 360, "%"));
        assert_eq!((column.mean[29], column.mean[30], column.mean[120]), (Some(10.0), Some(100.0), None));
        let coarse = bench.cpu(&a, start - HOUR, start + 11 * HOUR, 48);
        let column = &coarse.columns["cpu_percent"];
        assert_eq!((coarse.step_seconds, coarse.start.unix_milliseconds()), (900, start - HOUR));
        let steps = [column.mean[3], column.max[3], column.mean[4], column.min[4], column.max[4]];
        assert_eq!(steps, [Some(50.0), Some(50.0), Some(11.0), Some(10.0), Some(100.0)], "written: {is_written}");
        let origins: Vec<_> =
            coarse.known.iter().map(|(from, _, origin)| (from.unix_milliseconds(), *origin)).collect();
        assert_eq!(origins, [(start - 15 * MINUTE, Origin::Late), (start, Origin::Live)]);
        bench.flush();
    }
    let fleet = {
        let now = bench.now();
        let query =
            Query { from: start, to: start + HOUR, points: 4, columns: vec![Selector::parse("cpu_percent").unwrap()] };
        bench.store().compare([a.clone(), pi("unknown")].iter(), &query, now)
    };
    assert_eq!((fleet.step_seconds, fleet.machines.keys().collect::<Vec<_>>()), (900, vec![&a]));
}

#[test]
fn flags_are_seconds_of_a_step() {
    let mut bench = Bench::new(1 << 30);
    let a = pi("pi-a");
    bench.wall = BASE.div_euclid(HOUR) * HOUR;
    let from = bench.wall;
    for second in 0..60 {
        let mut sample = sample(1.0, None);
        sample.power = Some(pistat_protocol::stats::Power { undervoltage: Some(second < 20), ..Default::default() });
        let now = bench.now();
        bench.store().live(&a, &sample, now);
        bench.pass(SECOND);
    }
    let now = bench.now();
    let columns = vec![Selector::parse("undervoltage_seconds").unwrap()];
    let answer = bench.store().answer(&a, &Query { from, to: from + 2000 * MINUTE, points: 2000, columns }, now);
    let column = &answer.columns["undervoltage_seconds"];
    assert_eq!((answer.step_seconds, column.mean[0], column.unit.as_str()), (60, Some(20.0), "seconds true"));
}

#[test]
fn names_of_instances_survive_the_file() {
    let mut bench = Bench::new(1 << 30);
    let a = pi("pi-a");
    let mut sample = sample(1.0, None);
    let disk = |mount: &str| pistat_protocol::stats::Disk {
        mount: mount.into(),
        used_bytes: 5 << 30,
        total_bytes: 10 << 30,
        used_percent: 50.0,
    };
    sample.disks = Some(vec![disk("/"), disk("/mnt/größer")]);
    let now = bench.now();
    bench.store().live(&a, &sample, now);
    bench.pass(MINUTE);
    let now = bench.now();
    bench.store().close(now);
    bench.open();
    let mut keys = BTreeSet::new();
    bench.store().blocks(
        &a,
        Tier::Fine,
        (0, i64::MAX),
        |key| key.metric == 15,
        |block| {
            keys.extend(block.columns().keys().map(|key| key.instance.clone()));
        },
    );
    assert_eq!(keys, BTreeSet::from(["/", "/mnt/größer"].map(|name| Instance::Name(name.into()))));
}

#[test]
fn a_large_fleet_that_is_written_is_not_written_again_at_once() {
    let mut bench = Bench::new(1 << 30);
    let mut sample = sample(1.0, None);
    sample.cpu_cores_percent = Some(vec![1.0; 200]);
    for _ in 0..2 {
        for number in 0..2500 {
            let now = bench.now();
            bench.store().live(&pi(&format!("pi-{number}")), &sample, now);
        }
        bench.pass(10 * SECOND);
    }
    let now = bench.now();
    assert!(bench.store().memory() > 24 << 20 && bench.store().unwritten() > 0);
    assert!(!bench.store().tick(now), "a flush does not free the names of series");
}

#[test]
fn the_next_known_steps_are_found_on_the_disk_and_in_memory() {
    let mut bench = Bench::new(1 << 30);
    let a = pi("pi-a");
    let start = |tier: Tier, at: i64| tier.block_start_milliseconds(tier.block_of(tier.step_of(at)));
    let first = bench.wall;
    bench.live(&a, 20.0);
    bench.pass(3 * DAY);
    bench.live(&a, 20.0);
    let last = bench.wall;
    for is_written in [false, true] {
        for tier in Tier::ALL {
            let next = |bench: &mut Bench, from| bench.store().next_known(&a, tier, from);
            assert_eq!(next(&mut bench, i64::MIN), Some(start(tier, first)), "{tier:?}, {is_written}");
            assert_eq!(next(&mut bench, first + 2 * DAY), Some(start(tier, last)), "{tier:?}, {is_written}");
            assert_eq!(next(&mut bench, last + 2 * DAY), None, "{tier:?}, {is_written}");
        }
        bench.pass(5 * MINUTE);
        bench.flush();
    }
}
