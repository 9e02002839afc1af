//! How much is kept: by age, and by the bytes of the file. When they are used up, the oldest fine
//! steps go first.

use pistat_domain::fleet::Now;

use crate::{
    database::{WriteError, write_fact},
    store::{Store, horizon_name, milliseconds},
    tier::Tier,
};

/// Left to runs, accounts and the rest of the system: with less free, no history is written.
pub(crate) const RESERVED_MIB: u64 = 32;

/// Of `space`, one part in this many is for what is on its way: the log of changes, one
/// transaction.
const MARGIN: u64 = 8;

impl Store {
    /// Whether others need the rest of the disk.
    pub(crate) fn check_room(&self) -> Result<(), WriteError> {
        let free = rustix::fs::statvfs(self.database.file())
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if free < RESERVED_MIB << 20 { Err(WriteError::Reserved(RESERVED_MIB)) } else { Ok(()) }
    }

    /// Deletes what is too old or too much, after machines were written. `is_last` at the end of a
    /// flush.
    pub(crate) fn make_room(&mut self, now: Now, is_last: bool) -> Result<(), WriteError> {
        if is_last {
            self.expire(now)?;
        }
        let limit = self.settings.space_bytes - self.settings.space_bytes / MARGIN;
        while self.database.size()?.0 > limit {
            if !self.evict()? {
                break;
            }
        }
        self.database.shrink(limit)?;
        if is_last {
            self.database.checkpoint()?;
        }
        Ok(())
    }

    /// Deletes what is older than its tier is kept.
    fn expire(&mut self, now: Now) -> Result<(), WriteError> {
        let machines: Vec<i64> = self.database.machines().map(|(_, id)| id).collect();
        let mut oldest = [None::<i64>; 3];
        for tier in Tier::ALL {
            for machine in &machines {
                let number = self.database.oldest(tier, *machine)?;
                let known = &mut oldest[tier as usize];
                *known = [*known, number].into_iter().flatten().min();
            }
        }
        let begins = |tier: Tier| oldest[tier as usize].map(|number| tier.block_start_milliseconds(number));
        let first = Tier::ALL.into_iter().filter_map(begins).min();
        let lived = self.age.read(now.wall.unix_milliseconds(), first, now.monotonic);
        write_fact(&self.database.connection, "age", lived)?;
        for tier in Tier::ALL {
            let cut = lived - milliseconds(self.settings.keep[tier as usize]);
            let last = tier.block_of(tier.step_of(cut)) - 1;
            if oldest[tier as usize].is_some_and(|number| number <= last) {
                self.delete_up_to(tier, last)?;
                self.set_horizon(tier, tier.block_start_milliseconds(last + 1))?;
                oldest[tier as usize] = Some(last + 1);
            }
        }
        self.numbers.oldest = Tier::ALL.map(begins_of(&oldest));
        Ok(())
    }

    /// Deletes the oldest block of every machine, of the finest tier that has any. Tells whether
    /// there was one.
    fn evict(&mut self) -> Result<bool, WriteError> {
        let machines: Vec<i64> = self.database.machines().map(|(_, id)| id).collect();
        for tier in Tier::ALL {
            let mut oldest: Option<i64> = None;
            for machine in &machines {
                oldest = [oldest, self.database.oldest(tier, *machine)?].into_iter().flatten().min();
            }
            if let Some(number) = oldest {
                let count = self.delete_up_to(tier, number)?;
                self.numbers.evicted += count;
                self.set_horizon(tier, tier.block_start_milliseconds(number + 1))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn delete_up_to(&mut self, tier: Tier, number: i64) -> Result<u64, WriteError> {
        let machines: Vec<i64> = self.database.machines().map(|(_, id)| id).collect();
        let transaction = self.database.connection.unchecked_transaction()?;
        let mut count = 0;
        for machine in machines {
            count += self.database.delete_up_to(tier, machine, number)? as u64;
        }
        let blocks = self.numbers.blocks.saturating_sub(count);
        write_fact(&self.database.connection, "blocks", i64::try_from(blocks).unwrap_or(i64::MAX))?;
        transaction.commit()?;
        self.numbers.blocks = blocks;
        Ok(count)
    }

    /// Late steps before this do not come back.
    fn set_horizon(&mut self, tier: Tier, time: i64) -> Result<(), WriteError> {
        self.horizon[tier as usize] = self.horizon[tier as usize].max(time);
        write_fact(&self.database.connection, horizon_name(tier), self.horizon[tier as usize])?;
        Ok(())
    }
}

fn begins_of(oldest: &[Option<i64>; 3]) -> impl Fn(Tier) -> Option<i64> {
    |tier| oldest[tier as usize].map(|number| tier.block_start_milliseconds(number))
}
