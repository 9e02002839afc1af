//! Which runs root has ever started here: none is started again, whatever is signed for it. Written
//! before anything is started.
//!
//! The newest are kept by name. When older ones are let go, every run that is older than the oldest
//! of those kept counts as started too: run ids are in the order of their making. A ledger that
//! cannot be understood refuses everything, since it cannot be known what it said.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use pistat_protocol::id::RunId;
use pistat_support::file::{self, Readable};
use serde::{Deserialize, Serialize};

/// How many are kept by name: 40 kB on disk at most.
const MOST_RUNS: usize = 1024;

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    /// This run and all older ones count as started.
    floor: Option<RunId>,
    started: BTreeSet<RunId>,
}

impl Entries {
    fn contains(&self, run: RunId) -> bool {
        self.floor.is_some_and(|floor| run <= floor) || self.started.contains(&run)
    }

    fn insert(&mut self, run: RunId) {
        self.started.insert(run);
        while self.started.len() > MOST_RUNS {
            self.floor = self.started.pop_first().max(self.floor);
        }
    }
}

/// The ledger of a folder.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: PathBuf,
    lock: PathBuf,
}

impl Ledger {
    /// The ledger in this folder, which only root may write.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { file: folder.join("started.json"), lock: folder.join("started.lock") }
    }

    /// Whether the run has been started; an older one than is remembered counts as started.
    ///
    /// # Errors
    /// The ledger cannot be read or understood.
    pub(crate) fn contains(&self, run: RunId) -> io::Result<bool> {
        Ok(self.read()?.contains(run))
    }

    /// Enters a run; on disk when this returns. `false` when it has been started before. Instances
    /// that do this at the same time wait for each other.
    ///
    /// # Errors
    /// The ledger cannot be read, understood or written.
    pub(crate) fn enter(&self, run: RunId) -> io::Result<bool> {
        let lock = File::options().write(true).create(true).truncate(false).open(&self.lock)?;
        lock.lock()?;
        let mut entries = self.read()?;
        if entries.contains(run) {
            return Ok(false);
        }
        entries.insert(run);
        file::replace(&self.file, &serde_json::to_vec(&entries)?, Readable::Owner)?;
        Ok(true)
    }

    fn read(&self) -> io::Result<Entries> {
        match file::read(&self.file) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Entries::default()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run(n: u64) -> RunId {
        RunId::from_parts(n, [0; 10])
    }

    #[test]
    fn a_run_is_entered_once_and_stays_however_many_come_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path());
        assert!(!ledger.contains(run(7)).unwrap());
        assert!(ledger.enter(run(7)).unwrap());
        assert!(!Ledger::new(folder.path()).enter(run(7)).unwrap(), "another instance knows it too");
        let mut entries = Entries::default();
        for n in 0..2 * MOST_RUNS as u64 {
            entries.insert(run(n + 1));
        }
        assert_eq!(entries.started.len(), MOST_RUNS);
        assert!((1..=2 * MOST_RUNS as u64).all(|n| entries.contains(run(n))));
        assert!(!entries.contains(run(3 * MOST_RUNS as u64)));
    }

    #[test]
    fn a_damaged_ledger_refuses_everything() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("started.json"), "{").unwrap();
        assert!(Ledger::new(folder.path()).enter(run(1)).is_err());
    }
}
