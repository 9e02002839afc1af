//! The history: what is in memory and what is in the file, behind one interface. It has no thread
//! and no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::Path,
    time::{Duration, Instant},
};

use pistat_domain::{age::Age, fleet::Now};
use pistat_protocol::{
    api::History,
    history::{Column, FleetHistory, MachineHistory},
    id::PiId,
    stats::Sample,
    time::Timestamp,
};

use crate::{
    block::{Block, Step},
    database::{Database, OpenError},
    machine::Machine,
    query::{Gathering, Plan, Query},
    series::Key,
    tier::Tier,
};

/// How long agents remember; longer ago nothing is asked for.
pub const REMEMBERED: Duration = Duration::from_secs(2 * 3600);

/// Times after the year 2242 are not kept: a block's number would not fit.
const MAX_TIME: i64 = 1 << 43;

/// Space of a history that has no file.
const MEMORY_SPACE_BYTES: u64 = 16 << 20;

/// How history is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The most bytes that the file takes.
    pub space_bytes: u64,
    /// How long each tier is kept.
    pub keep: [Duration; 3],
    /// How often what is in memory is written.
    pub flush: Duration,
}

/// Numbers about the store itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of what is in memory.
    pub memory_bytes: u64,
    /// Blocks in the file.
    pub blocks: u64,
    /// When the oldest block of each tier begins, in milliseconds since 1970.
    pub oldest: [Option<i64>; 3],
    /// How often what was in memory was written.
    pub flushes: u64,
    /// How often that failed.
    pub errors: u64,
    /// Damaged blocks that were found.
    pub damaged: u64,
    /// Machines' steps that were given up because the disk was full for too long.
    pub lost: u64,
    /// Blocks that were deleted because `space` was used up.
    pub evicted: u64,
    /// Why nothing is written, while that is so.
    pub trouble: Option<String>,
}

/// The history.
#[derive(Debug)]
pub struct Store {
    pub(crate) database: Database,
    pub(crate) machines: HashMap<PiId, Machine>,
    pub(crate) settings: Settings,
    pub(crate) age: Age,
    /// Before this, nothing of a tier is kept any more, in milliseconds since 1970.
    pub(crate) horizon: [i64; 3],
    pub(crate) numbers: Numbers,
    /// Machines that are still to be written in this flush.
    pub(crate) flushing: VecDeque<PiId>,
    pub(crate) flushed_at: Now,
    pub(crate) retry_at: Option<Instant>,
    /// Machines that are to be forgotten as soon as the disk allows it.
    pub(crate) forgetting: BTreeSet<PiId>,
}

impl Store {
    /// Opens or makes the file. The sentences say what was damaged or newer, and set aside.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub fn open(file: &Path, settings: Settings, now: Now) -> Result<(Self, Vec<String>), OpenError> {
        let (database, notes) = Database::open(file)?;
        let in_file = |error| OpenError::File { file: file.into(), error };
        let fact = |name: &str| database.fact(name).map_err(in_file);
        let blocks = fact("blocks")?.unwrap_or(0);
        let wall = now.wall.unix_milliseconds();
        let age = Age::new(fact("age")?, None, wall, now.monotonic);
        let mut horizon = [i64::MIN; 3];
        for tier in Tier::ALL {
            horizon[tier as usize] = fact(horizon_name(tier))?.unwrap_or(i64::MIN);
        }
        let numbers = Numbers { blocks: u64::try_from(blocks).unwrap_or(0), ..Numbers::default() };
        let store = Self {
            database,
            machines: HashMap::new(),
            settings,
            age,
            horizon,
            numbers,
            flushing: VecDeque::new(),
            flushed_at: now,
            retry_at: None,
            forgetting: BTreeSet::new(),
        };
        Ok((store, notes))
    }

    /// [`Store::open`]; where the file cannot be used, what is measured is kept in memory, in
    /// little space, and a sentence says so.
    ///
    /// # Errors
    /// Not even memory can be used.
    pub fn open_or_forget(file: &Path, settings: &Settings, now: Now) -> Result<(Self, Vec<String>), OpenError> {
        let error = match Self::open(file, settings.clone(), now) {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let settings = Settings { space_bytes: settings.space_bytes.min(MEMORY_SPACE_BYTES), ..settings.clone() };
        let (mut store, _) = Self::open(Path::new(":memory:"), settings, now)?;
        store.numbers.trouble = Some(error.to_string());
        Ok((store, vec![format!("{error}; until the controller ends, history is kept in memory")]))
    }

    /// A sample came when it was measured.
    pub fn live(&mut self, pi: &PiId, sample: &Sample, now: Now) {
        let at = now.wall.unix_milliseconds();
        if (0..MAX_TIME).contains(&at) {
            self.machine(pi).live(sample, at);
        }
    }

    /// A sample of this time came afterwards. What is in the future, or older than what is kept, is
    /// left out.
    pub fn late(&mut self, pi: &PiId, sample: &Sample, at: Timestamp, now: Now) {
        let (at, wall) = (at.unix_milliseconds(), now.wall.unix_milliseconds());
        let oldest = (wall - milliseconds(self.settings.keep[1])).max(self.horizon[1]).max(0);
        if (oldest..=wall.min(MAX_TIME)).contains(&at) {
            self.machine(pi).late(sample, at);
        }
    }

    fn machine(&mut self, pi: &PiId) -> &mut Machine {
        if !self.machines.contains_key(pi) {
            self.machines.insert(pi.clone(), Machine::default());
        }
        self.machines.entry(pi.clone()).or_default()
    }

    /// Forgets a machine: nothing of it is left. On a full disk its blocks go later.
    pub fn forget(&mut self, pi: &PiId) {
        self.machines.remove(pi);
        self.flushing.retain(|other| other != pi);
        self.forgetting.insert(pi.clone());
        self.forget_now();
    }

    /// What a machine measured.
    pub fn answer(&mut self, pi: &PiId, query: &Query, now: Now) -> MachineHistory {
        let plan = Plan::new(query, self.available(now));
        self.shown(pi, query, plan)
    }

    /// What several machines measured of one series.
    pub fn compare<'a>(&mut self, pis: impl Iterator<Item = &'a PiId>, query: &Query, now: Now) -> FleetHistory {
        let plan = Plan::new(query, self.available(now));
        let column = |pi: &PiId| {
            let columns: BTreeMap<String, Column> = self.gather_by(pi, query, plan).columns();
            Some((pi.clone(), columns.into_values().next()?))
        };
        FleetHistory {
            start: Timestamp::from_unix_milliseconds(plan.start()),
            step_seconds: seconds(plan.step),
            machines: pis.filter_map(column).collect(),
        }
    }

    /// What a machine measured, in the steps of a tier.
    pub fn steps(&mut self, pi: &PiId, query: &Query, tier: Tier) -> MachineHistory {
        let plan = Plan::of_tier(query, tier);
        self.shown(pi, query, plan)
    }

    /// The last seconds of seven series, in the form in which they were asked for before there was
    /// a store: steps of ten seconds for up to an hour, else of five minutes.
    pub fn last_seconds(&mut self, pi: &PiId, seconds: u32, now: Now) -> History {
        let (tier, step_seconds) = if seconds <= 3600 { (Tier::Fine, 10) } else { (Tier::Minute, 300) };
        let (step, count) = (i64::from(step_seconds) * 1000, seconds.div_ceil(step_seconds).max(1));
        let first = now.wall.unix_milliseconds().div_euclid(step) + 1 - i64::from(count);
        let plan = Plan { tier, step, first, count: usize::try_from(count).unwrap_or(1) };
        let all = Query { from: 0, to: 0, points: 0, columns: Vec::new() };
        old_form(self.shown(pi, &all, plan), plan.count, tier)
    }

    fn shown(&mut self, pi: &PiId, query: &Query, plan: Plan) -> MachineHistory {
        let gathering = self.gather_by(pi, query, plan);
        MachineHistory {
            start: Timestamp::from_unix_milliseconds(plan.start()),
            step_seconds: seconds(plan.step),
            columns: gathering.columns(),
            known: gathering.known(),
        }
    }

    fn gather_by(&mut self, pi: &PiId, query: &Query, plan: Plan) -> Gathering {
        let mut gathering = Gathering::new(plan);
        self.blocks(pi, plan.tier, plan.blocks(), |key| query.wants(key), |block| gathering.add(block));
        gathering
    }

    /// When the next steps of a machine begin of which anything is known, in milliseconds since
    /// 1970: the block that holds this time, or a later one.
    pub fn next_known(&self, pi: &PiId, tier: Tier, from: i64) -> Option<i64> {
        let first = tier.block_of(tier.step_of(from.max(0)));
        let machine = self.database.machine(pi);
        let in_file = machine.and_then(|machine| self.database.next(tier, machine, first).ok().flatten());
        // Quarters are made of minutes.
        let rows = if tier == Tier::Quarter { Tier::Minute } else { tier };
        let steps = self.machines.get(pi).into_iter().flat_map(|machine| machine.steps(rows, |_| false));
        let blocks = steps.map(|step| tier.block_of(tier.step_of(step.number * rows.step_milliseconds())));
        let in_memory = blocks.filter(|number| *number >= first).min();
        [in_file, in_memory].into_iter().flatten().min().map(|number| tier.block_start_milliseconds(number))
    }

    /// From when on each tier has anything, in milliseconds since 1970.
    fn available(&self, now: Now) -> [i64; 3] {
        let wall = now.wall.unix_milliseconds();
        Tier::ALL.map(|tier| {
            let kept = wall - milliseconds(self.settings.keep[tier as usize]);
            kept.max(self.horizon[tier as usize])
        })
    }

    /// Visits a machine's blocks as they are now, from one number to another.
    fn blocks(
        &mut self,
        pi: &PiId,
        tier: Tier,
        numbers: (i64, i64),
        wanted: impl Fn(&Key) -> bool + Copy,
        mut with: impl FnMut(&Block),
    ) {
        let mut fresh = self.fresh(pi, tier, numbers, wanted);
        if let Some(machine) = self.database.machine(pi) {
            let (mut damaged, file) = (0, self.database.file().to_owned());
            let result = self.database.blocks(tier, machine, numbers, |number, bytes| {
                if let Ok(mut block) = Block::decode(tier, number, bytes, wanted) {
                    merge(&mut block, &fresh.remove(&number).unwrap_or_default());
                    with(&block);
                } else {
                    damaged += 1;
                    warn_of_damage(&file, pi, tier, number);
                }
            });
            if let Err(error) = result {
                damaged += 1;
                tracing::error!(%pi, "the history cannot be read: {error}");
            }
            self.numbers.damaged += damaged;
        }
        for (number, steps) in fresh {
            let mut block = Block::new(tier, number);
            merge(&mut block, &steps);
            with(&block);
        }
    }

    /// The steps that are not in the file, by block. Quarters are made of the minutes on both
    /// sides.
    fn fresh(
        &mut self,
        pi: &PiId,
        tier: Tier,
        numbers: (i64, i64),
        wanted: impl Fn(&Key) -> bool + Copy,
    ) -> BTreeMap<i64, Vec<Step>> {
        let mut blocks: BTreeMap<i64, Vec<Step>> = BTreeMap::new();
        let Some(machine) = self.machines.get(pi) else { return blocks };
        if tier != Tier::Quarter {
            for step in machine.steps(tier, wanted) {
                let number = tier.block_of(step.number);
                if (numbers.0..=numbers.1).contains(&number) {
                    blocks.entry(number).or_default().push(step);
                }
            }
            return blocks;
        }
        let steps = machine.steps(Tier::Minute, |_| false);
        let minutes: BTreeSet<i64> = steps.iter().map(|step| Tier::Minute.block_of(step.number)).collect();
        for number in minutes {
            let day = tier.block_of(number * 16);
            if (numbers.0..=numbers.1).contains(&day) {
                let quarters = blocks.entry(day).or_default();
                self.blocks(pi, Tier::Minute, (number, number), wanted, |block| quarters.extend(block.quarters()));
            }
        }
        blocks
    }

    /// From when until when minutes of a machine are unknown that its agent may remember, by the
    /// wall clock.
    pub fn missing(&mut self, pi: &PiId, now: Now) -> Option<(Timestamp, Timestamp)> {
        let tier = Tier::Minute;
        let wall = now.wall.unix_milliseconds();
        // The minute that is being measured is not missing, nor is the first one of two hours,
        // which is half gone.
        let (first, end) = (tier.step_of((wall - milliseconds(REMEMBERED)).max(0)) + 1, tier.step_of(wall));
        let mut known = BTreeSet::new();
        let numbers = (tier.block_of(first), tier.block_of(end));
        self.blocks(
            pi,
            tier,
            numbers,
            |_| false,
            |block| {
                let steps = (block.first_step()..).zip(block.sources());
                known.extend(steps.filter_map(|(number, source)| source.map(|_| number)));
            },
        );
        let mut missing = (first..end).filter(|number| !known.contains(number));
        let first = missing.next()?;
        let last = missing.next_back().unwrap_or(first);
        let time = |step: i64| Timestamp::from_unix_milliseconds(step * tier.step_milliseconds());
        Some((time(first), time(last + 1)))
    }

    /// Machines of which anything is known.
    pub fn pis(&self) -> BTreeSet<PiId> {
        self.database.machines().map(|(pi, _)| pi).chain(self.machines.keys()).cloned().collect()
    }

    /// Numbers about the store.
    pub fn numbers(&self) -> Numbers {
        let file_bytes = self.database.size().map_or(0, |(_, all)| all);
        Numbers { file_bytes, memory_bytes: self.memory() as u64, ..self.numbers.clone() }
    }

    pub(crate) fn memory(&self) -> usize {
        self.machines.values().map(Machine::room).sum()
    }

    /// Bytes that a flush frees: not the names of the series, which a large fleet keeps.
    pub(crate) fn unwritten(&self) -> usize {
        self.machines.values().map(Machine::unwritten).sum()
    }
}

/// Quarters are made anew; other steps add to what is known.
fn merge(block: &mut Block, steps: &[Step]) {
    if steps.first().is_some_and(|_| block.tier() == Tier::Quarter) {
        block.replace(steps);
    } else {
        block.merge(steps.iter());
    }
}

pub(crate) fn warn_of_damage(file: &Path, pi: &PiId, tier: Tier, number: i64) {
    let start = Timestamp::from_unix_milliseconds(tier.block_start_milliseconds(number));
    let (file, tier) = (file.display(), tier.name());
    tracing::error!("a block of {file} is damaged: {pi}, tier {tier}, from {start} on; it counts as unknown");
}

pub(crate) fn horizon_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Fine => "horizon_fine",
        Tier::Minute => "horizon_minute",
        Tier::Quarter => "horizon_quarter",
    }
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// The columns of the old form.
fn old_form(mut answer: MachineHistory, count: usize, tier: Tier) -> History {
    let names = (0..64).map(|core| format!("cpu_cores_percent[{core}]")).take_while(|_| tier == Tier::Fine);
    let cores = names.map_while(|name| answer.columns.remove(&name));
    let cpu_cores_percent =
        cores.map(|column| column.mean.into_iter().map(|percent| percent.map(small)).collect()).collect();
    let mut mean = |name: &str| answer.columns.remove(name).map_or_else(|| vec![None; count], |column| column.mean);
    History {
        start: answer.start,
        step_seconds: answer.step_seconds,
        cpu_percent: mean("cpu_percent"),
        cpu_cores_percent,
        memory_percent: mean("memory_percent"),
        temperature_celsius: mean("temperature_celsius"),
        disk_read_bytes_per_second: mean("disk_read_bytes_per_second"),
        disk_write_bytes_per_second: mean("disk_write_bytes_per_second"),
        network_rx_bytes_per_second: mean("network_rx_bytes_per_second"),
        network_tx_bytes_per_second: mean("network_tx_bytes_per_second"),
        undervoltage: mean("undervoltage_seconds").into_iter().map(|seconds| Some(seconds? > 0.0)).collect(),
    }
}

fn small(percent: f32) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0…100")]
    let small = percent.round().clamp(0.0, 100.0) as u8;
    small
}

fn seconds(milliseconds: i64) -> u32 {
    u32::try_from(milliseconds / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
