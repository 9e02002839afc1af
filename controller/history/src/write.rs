//! Writing: a few machines in one transaction, so that a flush of a large fleet never keeps samples
//! waiting for long.

use std::{collections::BTreeMap, time::Duration};

use pistat_domain::fleet::Now;
use pistat_protocol::id::PiId;
use rusqlite::Transaction;

use crate::{
    block::{Block, Step},
    database::{Database, WriteError, is_damage, machine_id, read_block, write_block, write_fact},
    store::{Store, milliseconds, warn_of_damage},
    tier::Tier,
};

/// Machines that are written in one transaction.
const MACHINES_AT_ONCE: usize = 32;

/// What is in memory is written earlier when it takes more than this.
const MEMORY_BYTES: usize = 24 << 20;

/// What waits for a full disk is given up when it takes more than this.
const WAITING_BYTES: usize = 48 << 20;

/// After a failure, the next attempt.
const RETRY: Duration = Duration::from_secs(60);

/// A flush at a round time waits so long, so that the last minute before it is finished.
const SETTLE: Duration = Duration::from_secs(75);

/// What one flush of a machine did.
#[derive(Debug, Default)]
struct Written {
    new_blocks: u64,
    damaged: u64,
}

impl Store {
    /// Does what is due: writes the next machines of a flush, or begins one. Tells whether more is
    /// to be done at once.
    pub fn tick(&mut self, now: Now) -> bool {
        if self.retry_at.is_some_and(|at| now.monotonic < at) {
            self.give_up_what_waits();
            return false;
        }
        if self.flushing.is_empty() && self.is_due(now) {
            self.begin_flush(now);
        }
        if self.flushing.is_empty() && self.retry_at.is_none() {
            return false;
        }
        self.write_next(now);
        self.retry_at.is_none() && !self.flushing.is_empty()
    }

    fn is_due(&self, now: Now) -> bool {
        let flush = milliseconds(self.settings.flush).max(1);
        // At round times: then every block of an hour is written once, and whole.
        let round = |now: Now| (now.wall.unix_milliseconds() - milliseconds(SETTLE)).div_euclid(flush);
        let passed = now.monotonic.saturating_duration_since(self.flushed_at.monotonic);
        (round(now) != round(self.flushed_at) && passed * 4 >= self.settings.flush)
            || passed >= self.settings.flush * 3 / 2
            || self.unwritten() > MEMORY_BYTES
    }

    fn begin_flush(&mut self, now: Now) {
        self.flushed_at = now;
        let wall = now.wall.unix_milliseconds();
        self.machines.values_mut().for_each(|machine| machine.settle(wall));
        let dirty = self.machines.iter().filter(|(_, machine)| !machine.is_clean());
        self.flushing = dirty.map(|(pi, _)| pi.clone()).collect();
    }

    /// Writes everything, also the steps that are being measured: the program ends.
    pub fn close(&mut self, now: Now) {
        self.machines.values_mut().for_each(crate::machine::Machine::close);
        self.retry_at = None;
        self.begin_flush(now);
        while !self.flushing.is_empty() && self.retry_at.is_none() {
            self.write_next(now);
        }
    }

    /// Writes everything that is finished.
    pub fn flush(&mut self, now: Now) {
        self.retry_at = None;
        self.begin_flush(now);
        loop {
            self.write_next(now);
            if self.flushing.is_empty() || self.retry_at.is_some() {
                return;
            }
        }
    }

    fn write_next(&mut self, now: Now) {
        self.forget_now();
        let pis: Vec<PiId> = self.flushing.iter().take(MACHINES_AT_ONCE).cloned().collect();
        let result = self.check_room().and_then(|()| self.write(&pis));
        let result = result.and_then(|()| {
            for pi in &pis {
                self.flushing.pop_front();
                if let Some(machine) = self.machines.get_mut(pi) {
                    machine.clear();
                }
            }
            self.make_room(now, self.flushing.is_empty())?;
            Ok(())
        });
        match result {
            Ok(()) => self.written(),
            Err(error) => self.failed(&error, now),
        }
    }

    fn written(&mut self) {
        self.retry_at = None;
        if self.numbers.trouble.take().is_some() {
            tracing::info!("the history is written again");
        }
        if self.flushing.is_empty() {
            self.numbers.flushes += 1;
            // Machines that are off take no memory.
            let open = |machine: &crate::machine::Machine| !(machine.is_clean() && machine.is_idle());
            self.machines.retain(|_, machine| open(machine));
        }
    }

    fn failed(&mut self, error: &WriteError, now: Now) {
        self.numbers.errors += 1;
        self.retry_at = Some(now.monotonic + RETRY);
        if let WriteError::Database(error) = error
            && is_damage(error)
        {
            self.begin_anew();
        }
        if self.numbers.trouble.is_none() {
            tracing::error!("the history is not written, everything else goes on: {error}");
        }
        self.numbers.trouble = Some(error.to_string());
        self.give_up_what_waits();
    }

    /// The file is damaged: it is set aside and a new one begins.
    fn begin_anew(&mut self) {
        match Database::open_anew(self.database.file()) {
            Ok((database, note)) => {
                tracing::error!("{note}");
                self.database = database;
                self.numbers.blocks = 0;
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// History is the first to go when the disk stays full.
    fn give_up_what_waits(&mut self) {
        if self.unwritten() > WAITING_BYTES {
            self.flushing.clear();
            for machine in self.machines.values_mut().filter(|machine| !machine.is_clean()) {
                machine.clear();
                self.numbers.lost += 1;
            }
            tracing::error!("the history of a while was given up: it could not be written and memory is bounded");
        }
    }

    pub(crate) fn forget_now(&mut self) {
        while let Some(pi) = self.forgetting.first().cloned() {
            match self.database.forget(&pi) {
                Ok(count) => {
                    self.numbers.blocks = self.numbers.blocks.saturating_sub(count as u64);
                    self.forgetting.remove(&pi);
                }
                Err(error) => {
                    tracing::warn!(%pi, "its history cannot be deleted yet: {error}");
                    return;
                }
            }
        }
    }

    fn write(&mut self, pis: &[PiId]) -> Result<(), WriteError> {
        let file = self.database.file().to_owned();
        let transaction = self.database.connection.transaction()?;
        let (mut written, mut ids) = (Written::default(), Vec::new());
        for pi in pis {
            let Some(machine) = self.machines.get(pi) else { continue };
            let id = machine_id(&transaction, pi)?;
            ids.push((pi.clone(), id));
            let mut days: BTreeMap<i64, Vec<Step>> = BTreeMap::new();
            for tier in [Tier::Fine, Tier::Minute] {
                for (number, steps) in machine.finished(tier) {
                    if tier.block_start_milliseconds(number + 1) <= self.horizon[tier as usize] {
                        continue;
                    }
                    let damage = || warn_of_damage(&file, pi, tier, number);
                    let change = |block: &mut Block| block.merge(steps.iter());
                    let block = update(&transaction, (tier, id, number), &mut written, damage, change)?;
                    if tier == Tier::Minute {
                        for quarter in block.quarters() {
                            days.entry(Tier::Quarter.block_of(quarter.number)).or_default().push(quarter);
                        }
                    }
                }
            }
            for (number, quarters) in days {
                let damage = || warn_of_damage(&file, pi, Tier::Quarter, number);
                let change = |block: &mut Block| block.replace(&quarters);
                update(&transaction, (Tier::Quarter, id, number), &mut written, damage, change)?;
            }
        }
        let blocks = self.numbers.blocks + written.new_blocks;
        write_fact(&transaction, "blocks", i64::try_from(blocks).unwrap_or(i64::MAX))?;
        transaction.commit()?;
        self.numbers.blocks = blocks;
        self.numbers.damaged += written.damaged;
        for (pi, id) in ids {
            self.database.know(pi, id);
        }
        Ok(())
    }
}

/// Reads a block, changes it and writes it again. A damaged one begins anew.
fn update(
    transaction: &Transaction<'_>,
    (tier, machine, number): (Tier, i64, i64),
    written: &mut Written,
    damage: impl Fn(),
    change: impl Fn(&mut Block),
) -> Result<Block, WriteError> {
    let mut block = Block::new(tier, number);
    match read_block(transaction, tier, machine, number)? {
        None => written.new_blocks += 1,
        Some(bytes) => {
            if let Ok(known) = Block::decode(tier, number, &bytes, |_| true) {
                block = known;
            } else {
                written.damaged += 1;
                damage();
            }
        }
    }
    change(&mut block);
    write_block(transaction, tier, machine, number, &block.encode())?;
    Ok(block)
}
