//! One small file for each run, written before the agent acts and deleted when the controller has
//! the report.
//!
//! Replaced atomically (temporary file, fsync, rename, fsync of the folder), so after a crash or a
//! power cut a file is the old one or the new one. A file that cannot be understood is set aside
//! and named, never overwritten. An idle agent writes nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pistat_protocol::{
    id::{RunId, TaskId},
    task::{Ends, Report},
};
use pistat_support::file::{self, REPLACEMENT, Readable};
use serde::{Deserialize, Serialize};

/// What the agent knows about a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Which run.
    pub run: RunId,
    /// Which task; unknown when only its cancellation ever came.
    pub task: Option<TaskId>,
    /// What its success looks like.
    pub ends: Ends,
    /// Since when it runs, in milliseconds since boot, suspended time included.
    pub started_boot_milliseconds: u64,
    /// Its time limit.
    pub timeout_milliseconds: u64,
    /// Between SIGTERM and SIGKILL; unknown in the records of older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_milliseconds: Option<u64>,
    /// Whether it was cancelled before its processes were gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// Present when the root runner has the run: how many runs of its task this machine does at a
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<u32>,
    /// What the controller is told.
    pub report: Report,
}

impl Record {
    /// The file of a run. The id has been parsed, so it cannot lead out of the folder.
    fn path(folder: &Path, run: RunId) -> PathBuf {
        folder.join(format!("{run}.json"))
    }

    /// Puts the record on disk.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let json = serde_json::to_vec(self)?;
        file::replace(&Self::path(folder, self.run), &json, Readable::Owner)
    }

    /// Forgets a run. A record that stays behind only repeats a report that the controller has
    /// already.
    pub(crate) fn remove(folder: &Path, run: RunId) -> io::Result<()> {
        fs::remove_file(Self::path(folder, run))
    }
}

/// The record of one run, if there is one. A damaged one is set aside.
pub(crate) fn find(folder: &Path, run: RunId) -> Option<Record> {
    let path = Record::path(folder, run);
    path.exists().then(|| load_one(&path)).flatten()
}

/// All records of a folder, oldest run first. Damaged files are renamed to `….damaged` and logged.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn load(folder: &Path) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => records.extend(load_one(&path)),
            // A replacement that was never finished: the file that it would have replaced counts.
            Some(REPLACEMENT | "tmp") => fs::remove_file(&path)?,
            _ => {}
        }
    }
    records.sort_by_key(|record| record.run);
    Ok(records)
}

fn load_one(path: &Path) -> Option<Record> {
    let error = match file::read(path).map(|bytes| serde_json::from_slice::<Record>(&bytes)) {
        Ok(Ok(record)) if path.file_stem().is_some_and(|name| name == record.run.to_string().as_str()) => {
            return Some(record);
        }
        Ok(Ok(_)) => "it is about another run than its name says".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    let aside = path.with_extension("damaged");
    tracing::error!(file = %path.display(), aside = %aside.display(), %error, "the state of a run is damaged; it was set aside");
    let _ = fs::rename(path, aside);
    None
}

#[cfg(test)]
mod tests {
    use pistat_protocol::task::RunState;

    use super::*;

    fn record(n: u8) -> Record {
        Record {
            run: RunId::from_parts(u64::from(n), [n; 10]),
            task: Some("uptime".parse().unwrap()),
            ends: Ends::Restart,
            started_boot_milliseconds: 12,
            timeout_milliseconds: 60_000,
            grace_milliseconds: Some(5_000),
            cancelled: false,
            runner: None,
            report: crate::task::run::empty_report(RunState::Running, "b"),
        }
    }

    #[test]
    fn records_survive_in_the_order_of_their_runs() {
        let folder = tempfile::tempdir().unwrap();
        for n in [3, 1, 2] {
            record(n).write(folder.path()).unwrap();
        }
        Record::remove(folder.path(), record(2).run).unwrap();
        assert_eq!(load(folder.path()).unwrap(), [record(1), record(3)]);
    }

    #[test]
    fn a_damaged_record_is_set_aside_and_the_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        record(1).write(folder.path()).unwrap();
        let damaged = folder.path().join(format!("{}.json", record(2).run));
        fs::write(&damaged, b"{\"run\":").unwrap();
        fs::write(folder.path().join("x.tmp"), b"half").unwrap();
        assert_eq!(load(folder.path()).unwrap(), [record(1)]);
        assert!(!damaged.exists() && damaged.with_extension("damaged").exists());
        assert!(!folder.path().join("x.tmp").exists());
    }
}
