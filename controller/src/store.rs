//! The state folder: the only file (with its sub-modules) that touches `state/`.
//!
//! One thread writes. It takes everything that waits, does it in one commit, and tells each
//! requester that it is on the disk; whatever the controller promises to others (an answer, an
//! acknowledgement, a retained status), it promises only after that. When the disk is full,
//! questions are refused with a sentence and change nothing; what the controller has to know
//! (reports, output, events) waits here, in order, until there is room.

mod files;
mod plain;
pub(crate) mod register;
mod secrets;
mod writer;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc as std_mpsc,
    thread::JoinHandle,
    time::SystemTime,
};

use pistat_protocol::{
    dashboard::Event,
    id::PiId,
    order::{ControllerKey, JoinToken},
    time::Timestamp,
};
use tokio::sync::mpsc;

use crate::{
    access::{Access, AccessChange},
    homeassistant::Announced,
};
use files::{load_json, set_aside};
pub use pistat_domain::metadata::{MachineMetadata, MetadataPatch};
pub(crate) use pistat_domain::records as record;
use plain::Files;
use record::{GroupRecord, OutputState, REMEMBERED_RUNS, RequestRecord, RunRecord};
pub use register::{Cursor, EventQuery, Reader, Retention, RunQuery};
use register::{Register, RegisterWrite};
use secrets::{load_join_token, load_key};
use writer::{Commit, Writer};

/// A number of the hub's, by which it knows what has been stored.
pub type Ticket = u64;

/// What is to be stored.
#[derive(Debug)]
pub(crate) enum Write {
    /// Runs, output and events.
    Register(Vec<RegisterWrite>),
    /// What people gave a machine.
    Metadata(PiId, MetadataPatch),
    /// Accounts, machines and sessions.
    Access(Vec<AccessChange>),
    /// The token of an account that has a file.
    AdminToken(String),
    /// The join token.
    JoinToken(JoinToken),
    /// What Home Assistant has been told of.
    Announced(Announced),
}

/// Whether something may be refused when it cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Somebody waits for the answer: refuse it.
    Rejectable,
    /// It has happened: keep it until it can be stored.
    Required,
}

/// Why something is not on the disk: a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotStored {
    /// It was asked for, and nothing was changed.
    Refused(String),
    /// It has happened and waits for the disk. Told once; what becomes of it follows.
    Waits(String),
}

/// What became of a ticket.
#[derive(Debug)]
pub struct Stored {
    /// The ticket.
    pub ticket: Ticket,
    /// Done, or why not.
    pub result: Result<(), NotStored>,
    /// What of it can never be stored and was left out: a sentence for each.
    pub left_out: Vec<String>,
}

/// Why the state folder cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be made, read or written.
    #[error(
        "the state folder {folder} cannot be used: {error}; name another with --state, or give this user the right to read and write there"
    )]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another controller has it.
    #[error(
        "the state folder {0} is in use by another controller: stop that one first, or name another folder with --state"
    )]
    InUse(PathBuf),
    /// The register cannot be made.
    #[error("the register {file} cannot be used: {error}; is the disk full or read-only?")]
    Register {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
}

/// What the state folder held at the start.
pub struct Loaded {
    /// The controller's signing key.
    pub key: ControllerKey,
    /// The join token.
    pub join_token: JoinToken,
    /// What people gave machines.
    pub given: MachineMetadata,
    /// Accounts, machines and sessions.
    pub access: Access,
    /// Runs that are not final, in their order, with their output's state.
    pub(crate) open_runs: Vec<(RunRecord, OutputState)>,
    /// Final runs whose status is retained on the broker, oldest first.
    pub(crate) retained_runs: Vec<RunRecord>,
    /// The newest runs, newest first.
    pub(crate) recent_runs: Vec<RunRecord>,
    /// Runs of the last day that have a request id.
    pub(crate) requests: Vec<RequestRecord>,
    /// Groups that are not finished and the newest others.
    pub(crate) groups: Vec<GroupRecord>,
    /// The newest events, newest first.
    pub events: Vec<Event>,
    /// The topic prefixes that were in use and of which the broker may retain something.
    pub(crate) prefixes: Vec<String>,
    /// What was damaged and set aside, in sentences.
    pub damaged: Vec<String>,
    /// What Home Assistant has been told of.
    pub(crate) announced: Announced,
    /// Whether the account `admin` was made just now, or made anew.
    pub new_admin: bool,
}

/// How many runs, groups and events a dashboard is given at first.
pub const RECENT: u32 = 200;

const DAY_MILLISECONDS: i64 = 86_400_000;

/// Names of the files in the state folder.
mod name {
    pub(super) const LABELS: &str = "labels.json";
    pub(super) const ASSIGNMENTS: &str = "tasks.json";
    pub(super) const MACHINES: &str = "machines.json";
    pub(super) const ANNOUNCED: &str = "homeassistant.json";
    pub(super) const ACCESS: &str = "accounts.json";
    pub(super) const KEY: &str = "controller.key";
    pub(super) const ADMIN_TOKEN: &str = "admin.token";
    pub(super) const JOIN_TOKEN: &str = "join.token";
    pub(super) const REGISTER: &str = "register.sqlite";
    pub(super) const HISTORY: &str = "history.db";
    pub(super) const LOCK: &str = "lock";
    pub(super) const BROKER: &str = "broker";
    pub(super) const OWN_RUNS: &str = "runs";
}

/// The state folder, open. Dropping it ends the thread once everything that waits is stored.
pub struct Store {
    folder: PathBuf,
    sender: Option<std_mpsc::Sender<Commit>>,
    thread: Option<JoinHandle<()>>,
    next_ticket: Ticket,
    _lock: fs::File,
}

impl Store {
    /// Opens the state folder, makes what is missing, sets aside what is damaged.
    ///
    /// # Errors
    /// The folder cannot be used, or another controller has it.
    pub fn open(
        folder: &Path,
        retention: Retention,
    ) -> Result<(Self, Loaded, mpsc::UnboundedReceiver<Stored>), StoreError> {
        let in_folder = |error| StoreError::Folder { folder: folder.into(), error };
        make_folder(folder).map_err(in_folder)?;
        let lock = lock(folder)?;
        let (register, reader, mut damaged) = open_register(&folder.join(name::REGISTER))?;
        let mut files = Files::load(folder, &mut damaged).map_err(in_folder)?;
        let new_admin = files.ensure_admin(&mut damaged).map_err(in_folder)?;
        let key = load_key(&folder.join(name::KEY), &mut damaged).map_err(in_folder)?;
        let join_token = load_join_token(folder, &key, &mut damaged).map_err(in_folder)?;
        let register_error = |error| StoreError::Register { file: folder.join(name::REGISTER), error };
        let loaded = Loaded {
            key,
            join_token,
            given: files.given.clone(),
            access: files.access.clone(),
            open_runs: load_open_runs(&register, &reader).map_err(register_error)?,
            retained_runs: register.retained_runs().map_err(register_error)?,
            recent_runs: register.newest_runs(RECENT).map_err(register_error)?,
            requests: load_requests(&register).map_err(register_error)?,
            groups: register.groups(RECENT).map_err(register_error)?,
            events: register.newest_events(RECENT).map_err(register_error)?,
            prefixes: load_prefixes(&register).map_err(register_error)?,
            announced: load_json(&folder.join(name::ANNOUNCED), &mut damaged).map_err(in_folder)?,
            damaged,
            new_admin,
        };
        let (sender, receiver) = std_mpsc::channel();
        // Unbounded, since neither hub nor disk may wait for the other: one outcome for each
        // commit, whose number is bounded where they come from.
        let (outcomes, stored) = mpsc::unbounded_channel();
        let writer = Writer::new(register, files, retention, outcomes);
        let thread =
            std::thread::Builder::new().name("store".into()).spawn(move || writer.run(&receiver)).map_err(in_folder)?;
        let store =
            Self { folder: folder.into(), sender: Some(sender), thread: Some(thread), next_ticket: 0, _lock: lock };
        Ok((store, loaded, stored))
    }

    /// Hands something to the thread that writes; the ticket comes back when it is on the disk.
    pub(crate) fn commit(&mut self, durability: Durability, write: Write) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(sender) = &self.sender {
            // The thread ends only when the sender is dropped, or by a panic that ends the process.
            let _ = sender.send(Commit { ticket, durability, write, told: false });
        }
        ticket
    }

    /// A reader of the register.
    ///
    /// # Errors
    /// The register cannot be read.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        let file = self.folder.join(name::REGISTER);
        Reader::open(&file).map_err(|error| StoreError::Register { file, error })
    }

    /// The folder where the broker keeps what it retains.
    pub fn broker_folder(&self) -> PathBuf {
        self.folder.join(name::BROKER)
    }

    /// The file of what machines measured.
    pub fn history_file(&self) -> PathBuf {
        self.folder.join(name::HISTORY)
    }

    /// The folder where the agent of the controller's own machine keeps its runs.
    pub fn own_runs_folder(&self) -> PathBuf {
        self.folder.join(name::OWN_RUNS)
    }

    /// Waits until everything is stored, and ends the thread.
    pub fn close(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.finish();
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn lock(folder: &Path) -> Result<fs::File, StoreError> {
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(name::LOCK))
        .map_err(|error| StoreError::Folder { folder: folder.into(), error })?;
    file.try_lock().map_err(|_| StoreError::InUse(folder.into()))?;
    Ok(file)
}

fn open_register(file: &Path) -> Result<(Register, Reader, Vec<String>), StoreError> {
    let wrap = |error| StoreError::Register { file: file.into(), error };
    let mut damaged = Vec::new();
    // It holds what tasks printed: nobody else's to read, wherever the folder is. What cannot be
    // made here is told by who opens it.
    let _ = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(file);
    let register = match Register::open(file) {
        Ok(register) => register,
        Err(error) if is_damage(&error) => {
            let kept = set_aside_register(file).map_err(|error| StoreError::Folder { folder: file.into(), error })?;
            damaged.push(format!(
                "{} is damaged ({error}); it was set aside as {} and a new one begins empty",
                file.display(),
                kept.display()
            ));
            Register::open(file).map_err(wrap)?
        }
        Err(error) => return Err(wrap(error)),
    };
    let reader = Reader::open(file).map_err(wrap)?;
    Ok((register, reader, damaged))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error, rusqlite::Error::InvalidQuery)
        || matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

fn set_aside_register(file: &Path) -> io::Result<PathBuf> {
    for suffix in ["-wal", "-shm"] {
        let companion = PathBuf::from(format!("{}{suffix}", file.display()));
        if companion.exists() {
            set_aside(&companion)?;
        }
    }
    set_aside(file)
}

/// The requests of a day. A clock that was turned forward must not make two runs of one: the day
/// ends with the newest run, if that is earlier.
fn load_requests(register: &Register) -> rusqlite::Result<Vec<RequestRecord>> {
    let newest = register.newest_runs(1)?.first().map(|record| record.run.created_at);
    let end = newest.map_or(now(), |newest| newest.min(now()));
    register.requests(end.unix_milliseconds() - DAY_MILLISECONDS, REMEMBERED_RUNS)
}

/// A list that cannot be read is one of none: what was left under earlier prefixes stays.
fn load_prefixes(register: &Register) -> rusqlite::Result<Vec<String>> {
    let list = register.fact(register::PREFIXES)?;
    Ok(list.and_then(|list| serde_json::from_str(&list).ok()).unwrap_or_default())
}

fn load_open_runs(register: &Register, reader: &Reader) -> rusqlite::Result<Vec<(RunRecord, OutputState)>> {
    let runs = register.open_runs()?;
    runs.into_iter().map(|mut run| register::reload_output(&mut run, reader).map(|output| (run, output))).collect()
}

#[cfg(test)]
mod tests;
