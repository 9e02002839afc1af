//! The state folder: the only file (with its sub-modules) that touches `state/`.
//!
//! One thread writes. It takes everything that waits, does it in one commit, and tells each requester that it is on the disk; whatever the controller
//! promises to others (an answer, an acknowledgement, a retained status), it promises only after that. When the disk is full, questions are refused with a sentence
//! and change nothing; what the controller has to know (reports, output, events) waits here, in order, until there is room.

mod files;
pub(crate) mod record;
pub(crate) mod register;

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::mpsc as std_mpsc,
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use pistat_protocol::{
    dashboard::Event,
    id::{PiId, Tag},
    order::{ControllerKey, JoinToken, secret_text},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    access::{Access, AccessChange, AccountRecord},
    homeassistant::Announced,
};
use files::{Readable, load_json, read, replace, replace_json, set_aside};
use record::{GroupRecord, OutputState, RunRecord};
pub use register::{Cursor, Reader, Retention, RunQuery};
use register::{Register, RegisterWrite, is_of_the_write};

/// What people set for a machine, besides its label and its responsibility.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineSettings {
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Its cadence in seconds.
    #[serde(default)]
    pub interval_seconds: Option<f64>,
}

/// What people gave machines, as the plain files keep it.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `labels.json`: renamed machines.
    pub labels: BTreeMap<PiId, String>,
    /// `tasks.json`: assignments.
    pub assignments: BTreeMap<PiId, String>,
    /// `machines.json`: tags and cadence.
    pub settings: BTreeMap<PiId, MachineSettings>,
}

/// A change of what people gave a machine; `None` leaves a part as it is.
#[expect(clippy::option_option, reason = "untouched, taken away and given are three things")]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GivenChange {
    /// A new label, or none.
    pub label: Option<Option<String>>,
    /// A new responsibility, or none.
    pub assignment: Option<Option<String>>,
    /// Its tags.
    pub tags: Option<Vec<Tag>>,
    /// Its cadence, or the agent's own.
    pub interval_seconds: Option<Option<f64>>,
}

impl GivenChange {
    /// Takes everything away: the machine is forgotten.
    pub fn forget() -> Self {
        Self { label: Some(None), assignment: Some(None), tags: Some(Vec::new()), interval_seconds: Some(None) }
    }
}

impl Given {
    /// Applies a change.
    pub fn apply(&mut self, pi: &PiId, change: &GivenChange) {
        set(&mut self.labels, pi, change.label.clone());
        set(&mut self.assignments, pi, change.assignment.clone());
        let settings = self.settings.entry(pi.clone()).or_default();
        if let Some(tags) = &change.tags {
            settings.tags.clone_from(tags);
        }
        if let Some(interval) = change.interval_seconds {
            settings.interval_seconds = interval;
        }
        if *settings == MachineSettings::default() {
            self.settings.remove(pi);
        }
    }
}

#[expect(clippy::option_option, reason = "untouched, taken away and given are three things")]
fn set(map: &mut BTreeMap<PiId, String>, pi: &PiId, value: Option<Option<String>>) {
    match value {
        Some(Some(text)) => {
            map.insert(pi.clone(), text);
        }
        Some(None) => {
            map.remove(pi);
        }
        None => {}
    }
}

/// A number of the hub's, by which it knows what has been stored.
pub type Ticket = u64;

/// What is to be stored.
#[derive(Debug)]
pub(crate) enum Write {
    /// Runs, output and events.
    Register(Vec<RegisterWrite>),
    /// What people gave a machine.
    Given(PiId, GivenChange),
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
pub(crate) enum Demand {
    /// Somebody waits for the answer: refuse it.
    Ask,
    /// It has happened: keep it until it can be stored.
    Must,
}

struct Commit {
    ticket: Ticket,
    demand: Demand,
    write: Write,
    /// Whether it was told that it waits.
    told: bool,
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
    pub given: Given,
    /// Accounts, machines and sessions.
    pub access: Access,
    /// Runs that are not final, in their order, with their output's state.
    pub(crate) open_runs: Vec<(RunRecord, OutputState)>,
    /// Final runs whose status is retained on the broker, oldest first.
    pub(crate) retained_runs: Vec<RunRecord>,
    /// The newest runs, newest first.
    pub(crate) recent_runs: Vec<RunRecord>,
    /// Runs of the last day that have a request id.
    pub(crate) requested_runs: Vec<RunRecord>,
    /// Groups that are not finished and the newest others.
    pub(crate) groups: Vec<GroupRecord>,
    /// The newest events, newest first.
    pub events: Vec<Event>,
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
            requested_runs: load_requested_runs(&register).map_err(register_error)?,
            groups: register.groups(RECENT).map_err(register_error)?,
            events: register.newest_events(RECENT).map_err(register_error)?,
            announced: load_json(&folder.join(name::ANNOUNCED), &mut damaged).map_err(in_folder)?,
            damaged,
            new_admin,
        };
        let (sender, receiver) = std_mpsc::channel();
        // Unbounded, since neither hub nor disk may wait for the other: one outcome for each commit, whose number is bounded where they come from.
        let (outcomes, stored) = mpsc::unbounded_channel();
        let writer =
            Writer { register, files, retention, waiting: VecDeque::new(), outcomes, last_error: None, writes: 0 };
        let thread =
            std::thread::Builder::new().name("store".into()).spawn(move || writer.run(&receiver)).map_err(in_folder)?;
        let store =
            Self { folder: folder.into(), sender: Some(sender), thread: Some(thread), next_ticket: 0, _lock: lock };
        Ok((store, loaded, stored))
    }

    /// Hands something to the thread that writes; the ticket comes back when it is on the disk.
    pub(crate) fn commit(&mut self, demand: Demand, write: Write) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(sender) = &self.sender {
            // The thread ends only when the sender is dropped, or by a panic that ends the process.
            let _ = sender.send(Commit { ticket, demand, write, told: false });
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

/// The requests of a day. A clock that was turned forward must not make two runs of one: the day ends with the newest run, if that is earlier.
fn load_requested_runs(register: &Register) -> rusqlite::Result<Vec<RunRecord>> {
    let newest = register.newest_runs(1)?.first().map(|record| record.run.created_at);
    let end = newest.map_or(now(), |newest| newest.min(now()));
    register.requested_runs(end.unix_milliseconds() - DAY_MILLISECONDS)
}

fn load_open_runs(register: &Register, reader: &Reader) -> rusqlite::Result<Vec<(RunRecord, OutputState)>> {
    let runs = register.open_runs()?;
    runs.into_iter().map(|mut run| OutputState::reload(&mut run, reader).map(|output| (run, output))).collect()
}

fn random_bits() -> io::Result<[u8; 32]> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(io::Error::other)?;
    Ok(bits)
}

/// A new secret as the text that people carry around.
///
/// # Errors
/// The system has no randomness.
pub fn new_secret() -> io::Result<String> {
    random_bits().map(secret_text)
}

/// The secret half of the signing key, as its file holds it.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct SecretKey([u8; 32]);

impl TryFrom<String> for SecretKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        pistat_protocol::order::parse_sha256(&text).map(Self).ok_or("a key is 64 hexadecimal digits")
    }
}

fn load_key(file: &Path, damaged: &mut Vec<String>) -> io::Result<ControllerKey> {
    if let Some(SecretKey(secret)) = load_json(file, damaged)? {
        return Ok(ControllerKey::from_secret(&secret));
    }
    let secret = random_bits()?;
    replace_json(file, &pistat_protocol::order::hex(&secret), Readable::Owner)?;
    Ok(ControllerKey::from_secret(&secret))
}

fn load_join_token(folder: &Path, key: &ControllerKey, damaged: &mut Vec<String>) -> io::Result<JoinToken> {
    let file = folder.join(name::JOIN_TOKEN);
    let fingerprint = key.public().fingerprint();
    if let Some(text) = read(&file, damaged)? {
        match String::from_utf8_lossy(&text).parse::<JoinToken>() {
            Ok(token) if token.fingerprint == fingerprint => return Ok(token),
            // The key is another one than when the token was made: agents must not believe the old fingerprint.
            Ok(_) => {}
            Err(_) => {
                let kept = set_aside(&file)?;
                damaged.push(format!(
                    "{} was no join token; it was set aside as {} and a new one was made",
                    file.display(),
                    kept.display()
                ));
            }
        }
    }
    let token = JoinToken { secret: new_secret()?, fingerprint };
    replace(&file, format!("{token}\n").as_bytes(), Readable::Owner)?;
    Ok(token)
}

/// The plain files, as the thread that writes has them.
struct Files {
    folder: PathBuf,
    given: Given,
    access: Access,
}

impl Files {
    fn load(folder: &Path, damaged: &mut Vec<String>) -> io::Result<Self> {
        Ok(Self {
            folder: folder.into(),
            given: Given {
                labels: load_json(&folder.join(name::LABELS), damaged)?,
                assignments: load_json(&folder.join(name::ASSIGNMENTS), damaged)?,
                settings: load_json(&folder.join(name::MACHINES), damaged)?,
            },
            access: load_json(&folder.join(name::ACCESS), damaged)?,
        })
    }

    /// Makes the account `admin` and its token file, when either is missing or they do not belong together.
    fn ensure_admin(&mut self, damaged: &mut Vec<String>) -> io::Result<bool> {
        let file = self.folder.join(name::ADMIN_TOKEN);
        let content = read(&file, damaged)?.unwrap_or_default();
        let known = self.access.caller_by_token(String::from_utf8_lossy(&content).trim());
        if known.is_some_and(|caller| caller.account.as_str() == "admin") {
            return Ok(false);
        }
        if !content.is_empty() {
            let kept = set_aside(&file)?;
            damaged.push(format!(
                "{} was not the token of the account admin; it was set aside as {} and the account has a new one",
                file.display(),
                kept.display()
            ));
        }
        let token = new_secret()?;
        self.write_access(&[AccessChange::PutAccount(AccountRecord::admin(&token, now()))])?;
        replace(&file, format!("{token}\n").as_bytes(), Readable::Owner)?;
        Ok(true)
    }

    fn write_given(&mut self, pi: &PiId, change: &GivenChange) -> io::Result<()> {
        let mut given = self.given.clone();
        given.apply(pi, change);
        if given.labels != self.given.labels {
            replace_json(&self.folder.join(name::LABELS), &given.labels, Readable::Everyone)?;
            self.given.labels.clone_from(&given.labels);
        }
        if given.assignments != self.given.assignments {
            replace_json(&self.folder.join(name::ASSIGNMENTS), &given.assignments, Readable::Everyone)?;
            self.given.assignments.clone_from(&given.assignments);
        }
        if given.settings != self.given.settings {
            replace_json(&self.folder.join(name::MACHINES), &given.settings, Readable::Everyone)?;
        }
        self.given = given;
        Ok(())
    }

    fn write_access<'a>(&mut self, changes: impl IntoIterator<Item = &'a AccessChange>) -> io::Result<()> {
        let mut access = self.access.clone();
        for change in changes {
            access.apply(change);
        }
        replace_json(&self.folder.join(name::ACCESS), &access, Readable::Owner)?;
        self.access = access;
        Ok(())
    }
}

/// How long the thread waits before it tries again to store what must be stored.
const RETRY: Duration = Duration::from_secs(1);

/// How often old runs and events are deleted.
const RETAIN_EVERY: Duration = Duration::from_secs(3600);

/// They are deleted sooner after so many changes of the register: so it stays as small as its configuration says, however busy the fleet is.
const RETAIN_AFTER_WRITES: usize = 10_000;

struct Writer {
    register: Register,
    files: Files,
    retention: Retention,
    /// In order.
    waiting: VecDeque<Commit>,
    outcomes: mpsc::UnboundedSender<Stored>,
    last_error: Option<String>,
    /// Changes of the register since old ones were deleted.
    writes: usize,
}

impl Writer {
    fn run(mut self, commits: &std_mpsc::Receiver<Commit>) {
        let mut retained_at: Option<std::time::Instant> = None;
        loop {
            let is_busy = self.writes >= RETAIN_AFTER_WRITES;
            if is_busy || retained_at.is_none_or(|at| at.elapsed() > RETAIN_EVERY) {
                retained_at = Some(std::time::Instant::now());
                self.retain();
            }
            let timeout = if self.waiting.is_empty() { RETAIN_EVERY } else { RETRY };
            match commits.recv_timeout(timeout) {
                Ok(commit) => self.waiting.push_back(commit),
                Err(std_mpsc::RecvTimeoutError::Timeout) => {}
                Err(std_mpsc::RecvTimeoutError::Disconnected) => {
                    self.store_waiting();
                    return;
                }
            }
            self.waiting.extend(commits.try_iter());
            self.store_waiting();
        }
    }

    fn retain(&mut self) {
        self.writes = 0;
        if let Err(error) = self.register.retain(self.retention, now().unix_milliseconds()) {
            tracing::warn!(%error, "old runs and events could not be deleted");
        }
    }

    fn store_waiting(&mut self) {
        self.store_register();
        self.store_files();
    }

    /// Everything for the register goes into one commit: one `fsync`, however much waits.
    fn store_register(&mut self) {
        let writes = self.waiting.iter().filter_map(|commit| match &commit.write {
            Write::Register(writes) => Some(writes),
            _ => None,
        });
        if writes.clone().next().is_none() {
            return;
        }
        let count = writes.clone().map(Vec::len).sum::<usize>();
        let result = self.register.commit(writes.flatten());
        if result.as_ref().is_err_and(is_of_the_write) {
            return self.store_one_by_one();
        }
        let result = result.map_err(|error| self.sentence(&error));
        self.writes += if result.is_ok() { count } else { 0 };
        self.settle(&result, |write| matches!(write, Write::Register(_)));
    }

    /// Something that waits can never be stored, and must not stand in the way of the rest: who asks for it is refused, and what has
    /// happened is stored without it. A disk that fails meanwhile leaves the rest as it was, in order.
    fn store_one_by_one(&mut self) {
        let mut commits = std::mem::take(&mut self.waiting).into_iter();
        for commit in commits.by_ref() {
            let Write::Register(writes) = &commit.write else {
                self.waiting.push_back(commit);
                continue;
            };
            let stored = match commit.demand {
                Demand::Ask => self.register.commit(writes.iter()).map(|()| Vec::new()),
                Demand::Must => self.register.commit_what_fits(writes),
            };
            match stored {
                Ok(left_out) => {
                    let left_out = left_out.iter().filter_map(|(write, error)| tell_left_out(write, error)).collect();
                    self.writes += writes.len();
                    self.tell(commit.ticket, Ok(()), left_out);
                }
                Err(error) if commit.demand == Demand::Ask && is_of_the_write(&error) => {
                    let sentence = format!("this cannot be stored ({error}): nothing was changed");
                    self.tell(commit.ticket, Err(NotStored::Refused(sentence)), Vec::new());
                }
                Err(error) => {
                    let sentence = self.sentence(&error);
                    self.finish(commit, &Err(sentence));
                    break;
                }
            }
        }
        self.waiting.extend(commits);
    }

    fn store_files(&mut self) {
        let mut access = Vec::new();
        for commit in std::mem::take(&mut self.waiting) {
            match commit.write {
                Write::Register(_) => self.waiting.push_back(commit),
                Write::Access(_) => access.push(commit),
                _ => {
                    self.store_access(&mut access);
                    let result = self.write_file(&commit.write).map_err(|error| self.sentence(&error));
                    self.finish(commit, &result);
                }
            }
        }
        self.store_access(&mut access);
    }

    /// A fleet that enrols all at once is one file written, not one for each machine.
    fn store_access(&mut self, commits: &mut Vec<Commit>) {
        if commits.is_empty() {
            return;
        }
        let changes = commits.iter().flat_map(|commit| match &commit.write {
            Write::Access(changes) => &changes[..],
            _ => &[],
        });
        let result = self.files.write_access(changes).map_err(|error| self.sentence(&error));
        for commit in commits.drain(..) {
            self.finish(commit, &result);
        }
    }

    fn write_file(&mut self, write: &Write) -> io::Result<()> {
        let folder = &self.files.folder;
        match write {
            Write::Register(_) => Ok(()),
            Write::Given(pi, change) => self.files.write_given(pi, change),
            Write::Access(changes) => self.files.write_access(changes),
            Write::AdminToken(token) => {
                replace(&folder.join(name::ADMIN_TOKEN), format!("{token}\n").as_bytes(), Readable::Owner)
            }
            Write::Announced(announced) => replace_json(&folder.join(name::ANNOUNCED), announced, Readable::Everyone),
            Write::JoinToken(token) => {
                replace(&folder.join(name::JOIN_TOKEN), format!("{token}\n").as_bytes(), Readable::Owner)
            }
        }
    }

    fn settle(&mut self, result: &Result<(), String>, belongs: impl Fn(&Write) -> bool) {
        for commit in std::mem::take(&mut self.waiting) {
            if belongs(&commit.write) { self.finish(commit, result) } else { self.waiting.push_back(commit) }
        }
        if result.is_ok() && self.last_error.take().is_some() {
            tracing::info!("the state folder can be written again; everything that waited is stored");
        }
    }

    fn finish(&mut self, mut commit: Commit, result: &Result<(), String>) {
        match (result, commit.demand) {
            (Ok(()), _) => self.tell(commit.ticket, Ok(()), Vec::new()),
            (Err(sentence), Demand::Ask) => {
                let sentence = format!("{sentence}, then try again: nothing was changed");
                self.tell(commit.ticket, Err(NotStored::Refused(sentence)), Vec::new());
            }
            (Err(sentence), Demand::Must) => {
                if !std::mem::replace(&mut commit.told, true) {
                    self.tell(commit.ticket, Err(NotStored::Waits(sentence.clone())), Vec::new());
                }
                self.waiting.push_back(commit);
            }
        }
    }

    fn tell(&self, ticket: Ticket, result: Result<(), NotStored>, left_out: Vec<String>) {
        let _ = self.outcomes.send(Stored { ticket, result, left_out });
    }

    fn sentence(&mut self, error: &dyn std::error::Error) -> String {
        let sentence = format!(
            "the state folder {} cannot be written ({error}); free space there or mend the disk",
            self.files.folder.display()
        );
        if self.last_error.as_ref() != Some(&sentence) {
            tracing::error!("{sentence}");
            self.last_error = Some(sentence.clone());
        }
        sentence
    }
}

/// The sentence that the hub makes an event of; an event that cannot be stored is only logged, or telling it would never end.
fn tell_left_out(write: &RegisterWrite, error: &rusqlite::Error) -> Option<String> {
    let sentence = format!("{} cannot be stored and was left out: {error}", write.what());
    tracing::error!("{sentence}");
    (!matches!(write, RegisterWrite::Event(_))).then_some(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Retention = Retention { days: 30, runs: 1000, events: 1000 };

    fn pi() -> PiId {
        "pi-1".parse().unwrap()
    }

    fn label(text: &str) -> Write {
        Write::Given(pi(), GivenChange { label: Some(Some(text.into())), ..GivenChange::default() })
    }

    fn wait(stored: &mut mpsc::UnboundedReceiver<Stored>, ticket: Ticket) -> Result<(), NotStored> {
        loop {
            let outcome = stored.blocking_recv().expect("the store lives");
            if outcome.ticket == ticket {
                return outcome.result;
            }
        }
    }

    #[test]
    fn what_was_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, loaded, mut stored) = Store::open(folder.path(), RETENTION).unwrap();
        assert!(loaded.new_admin && loaded.damaged.is_empty());
        let ticket = store.commit(Demand::Ask, label("Rack Pi 1"));
        wait(&mut stored, ticket).unwrap();
        let mut record = record::tests::record(100);
        let piece = OutputState::new(100).take(&mut record, record::tests::chunk(0, "hello", None));
        let writes = vec![RegisterWrite::Run(Box::new(record.clone())), RegisterWrite::Piece(piece)];
        let ticket = store.commit(Demand::Must, Write::Register(writes));
        wait(&mut stored, ticket).unwrap();
        store.close();
        let text = fs::read_to_string(folder.path().join("labels.json")).unwrap();
        assert_eq!(text, "{\n  \"pi-1\": \"Rack Pi 1\"\n}\n");
        let (store, again, _stored) = Store::open(folder.path(), RETENTION).unwrap();
        assert!(!again.new_admin);
        assert_eq!(again.given.labels[&pi()], "Rack Pi 1");
        assert_eq!(again.open_runs[0].0, record);
        assert_eq!(again.key.public(), loaded.key.public());
        assert_eq!(again.join_token, loaded.join_token);
        let (pieces, cursor) = store.reader().unwrap().output(record.run.id, Cursor::default()).unwrap();
        assert_eq!((pieces[0].data.as_str(), cursor), ("hello", Cursor { seq: 1, start: 5 }));
    }

    #[test]
    fn a_second_controller_on_the_same_folder_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Store::open(folder.path(), RETENTION).unwrap();
        assert!(matches!(Store::open(folder.path(), RETENTION), Err(StoreError::InUse(_))));
    }

    #[test]
    fn damaged_files_are_set_aside_and_the_start_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["labels.json", "accounts.json", "controller.key", "join.token", "register.sqlite"] {
            fs::write(folder.path().join(file), "garbage that is none of ours, long enough to be read").unwrap();
        }
        let (_store, loaded, _stored) = Store::open(folder.path(), RETENTION).unwrap();
        assert_eq!(loaded.damaged.len(), 5, "{:?}", loaded.damaged);
        let kept = fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("damaged"));
        assert_eq!(kept.count(), 5);
    }

    #[test]
    fn a_file_that_can_be_read_and_means_nothing_is_damaged_too() {
        let folder = tempfile::tempdir().unwrap();
        let (store, first, _stored) = Store::open(folder.path(), RETENTION).unwrap();
        store.close();
        let files: [(&str, &[u8]); 3] =
            [("controller.key", b"\"abc\""), ("join.token", b"\xff\xfe"), ("admin.token", b"another's\n")];
        for (file, content) in files {
            fs::write(folder.path().join(file), content).unwrap();
        }
        let (_store, again, _stored) = Store::open(folder.path(), RETENTION).unwrap();
        assert!(again.new_admin && again.key.public() != first.key.public());
        for (file, content) in files {
            let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let aside = |path: &PathBuf| path.to_string_lossy().contains(&format!("{file}.damaged-"));
            let kept: Vec<_> = names.filter(aside).map(|path| fs::read(path).unwrap()).collect();
            assert_eq!(kept, [content], "{file} is kept aside");
            assert!(again.damaged.iter().any(|told| told.contains(file)), "{file} is told: {:?}", again.damaged);
        }
    }

    #[test]
    fn what_is_there_and_cannot_be_read_is_set_aside_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["labels.json", "tasks.json", "accounts.json", "controller.key", "admin.token", "join.token"];
        for file in files {
            fs::create_dir(folder.path().join(file)).unwrap();
        }
        let (_store, loaded, _stored) = Store::open(folder.path(), RETENTION).unwrap();
        for file in files {
            assert!(loaded.damaged.iter().any(|told| told.contains(file)), "{file}: {:?}", loaded.damaged);
            let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let aside = names.filter(|name| name.to_string_lossy().starts_with(&format!("{file}.damaged-")));
            assert_eq!(aside.count(), 1, "{file} is kept aside");
        }
        assert!(loaded.new_admin);
    }

    #[test]
    fn a_lost_admin_token_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (store, first, _stored) = Store::open(folder.path(), RETENTION).unwrap();
        store.close();
        fs::remove_file(folder.path().join("admin.token")).unwrap();
        let (_store, again, _stored) = Store::open(folder.path(), RETENTION).unwrap();
        assert!(again.new_admin);
        let token = fs::read_to_string(folder.path().join("admin.token")).unwrap();
        assert!(again.access.caller_by_token(token.trim()).is_some());
        assert!(first.access.caller_by_token(token.trim()).is_none());
    }

    #[test]
    fn what_cannot_be_stored_is_refused_if_asked_and_kept_if_it_happened() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _loaded, mut stored) = Store::open(folder.path(), RETENTION).unwrap();
        let labels_in_the_way = folder.path().join("labels.new");
        fs::create_dir(&labels_in_the_way).unwrap();
        let asked = store.commit(Demand::Ask, label("A"));
        let NotStored::Refused(sentence) = wait(&mut stored, asked).unwrap_err() else { panic!("it was asked for") };
        assert!(sentence.contains("free space") && sentence.contains("nothing was changed"), "{sentence}");
        let must = store.commit(Demand::Must, label("B"));
        let NotStored::Waits(sentence) = wait(&mut stored, must).unwrap_err() else { panic!("it has happened") };
        assert!(sentence.contains("free space") && !sentence.contains("nothing was changed"), "{sentence}");
        fs::remove_dir(&labels_in_the_way).unwrap();
        wait(&mut stored, must).unwrap();
        assert!(fs::read_to_string(folder.path().join("labels.json")).unwrap().contains('B'));
    }

    #[test]
    fn what_can_never_be_stored_is_left_out_and_told_and_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _loaded, mut stored) = Store::open(folder.path(), RETENTION).unwrap();
        let mut record = record::tests::record(100);
        let good = OutputState::new(100).take(&mut record, record::tests::chunk(0, "hello", None));
        let bad = record::NewPiece { seq: 1, start: u64::MAX, ..good.clone() };
        let run = record.run.id;
        let asked = store.commit(Demand::Ask, Write::Register(vec![RegisterWrite::Piece(bad.clone())]));
        let writes = vec![RegisterWrite::Piece(bad), RegisterWrite::Run(Box::new(record)), RegisterWrite::Piece(good)];
        let must = store.commit(Demand::Must, Write::Register(writes));
        let NotStored::Refused(sentence) = wait(&mut stored, asked).unwrap_err() else { panic!("it was asked for") };
        assert!(sentence.contains("cannot be stored"), "{sentence}");
        let outcome = stored.blocking_recv().unwrap();
        assert_eq!((outcome.ticket, outcome.result), (must, Ok(())));
        assert!(outcome.left_out.len() == 1 && outcome.left_out[0].contains("chunk 1"), "{:?}", outcome.left_out);
        let (pieces, _) = store.reader().unwrap().output(run, Cursor::default()).unwrap();
        assert_eq!(pieces[0].data, "hello");
        let after = store.commit(Demand::Must, Write::Register(vec![RegisterWrite::Cleared(run)]));
        wait(&mut stored, after).unwrap();
    }

    #[test]
    fn a_record_that_has_gone_bad_hides_no_other_and_stops_no_start() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _, mut stored) = Store::open(folder.path(), RETENTION).unwrap();
        let (mut good, mut bad) = (record::tests::record(100), record::tests::record(100));
        bad.run.id = pistat_protocol::id::RunId::from_parts(2, [2; 10]);
        good.run.group = Some(pistat_protocol::id::RunId::from_parts(3, [3; 10]));
        let piece = OutputState::new(100).take(&mut good, record::tests::chunk(0, "hello", None));
        let runs = [&good, &bad].map(|record| RegisterWrite::Run(Box::new(record.clone())));
        let ticket = store.commit(Demand::Must, Write::Register([&runs[..], &[RegisterWrite::Piece(piece)]].concat()));
        wait(&mut stored, ticket).unwrap();
        store.close();
        let file = rusqlite::Connection::open(folder.path().join("register.sqlite")).unwrap();
        file.execute("UPDATE runs SET record = CAST(x'7bff' AS TEXT) WHERE id = ?1", [bad.run.id.to_string()]).unwrap();
        file.execute("UPDATE output SET data = CAST(x'68ff6c6c6f' AS TEXT)", []).unwrap();
        drop(file);
        let (store, loaded, _) = Store::open(folder.path(), RETENTION).unwrap();
        let open: Vec<_> = loaded.open_runs.iter().map(|(record, _)| record.run.id).collect();
        assert_eq!(open, [good.run.id]);
        let reader = store.reader().unwrap();
        assert_eq!(reader.run(bad.run.id).unwrap(), None);
        let of_group = RunQuery { group: good.run.group, limit: 9, ..RunQuery::default() };
        assert_eq!(reader.runs(&of_group).unwrap().len(), 1);
        let (pieces, cursor) = reader.output(good.run.id, Cursor::default()).unwrap();
        assert_eq!((pieces[0].data.as_str(), cursor), ("h\u{fffd}llo", Cursor { seq: 1, start: 5 }));
    }

    #[test]
    fn the_runs_of_a_group_are_found_page_by_page() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.sqlite");
        let mut register = Register::open(&path).unwrap();
        let id = |n: u8| pistat_protocol::id::RunId::from_parts(u64::from(n), [n; 10]);
        let group = Some(id(200));
        let records: Vec<_> = (0..10u8)
            .map(|n| {
                let mut record = record::tests::record(100);
                record.run.id = id(n);
                record.run.group = group.filter(|_| n % 2 == 0);
                RegisterWrite::Run(Box::new(record))
            })
            .collect();
        register.commit(records.iter()).unwrap();
        let reader = Reader::open(&path).unwrap();
        let page = |before| {
            let runs = reader.runs(&RunQuery { group, before, limit: 3, ..RunQuery::default() }).unwrap();
            runs.iter().map(|record| record.run.id).collect::<Vec<_>>()
        };
        assert_eq!(page(None), [id(8), id(6), id(4)]);
        assert_eq!(page(Some(id(4))), [id(2), id(0)]);
        assert_eq!(page(Some(id(0))), []);
    }

    #[test]
    fn old_runs_go_and_open_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut register = Register::open(&folder.path().join("r.sqlite")).unwrap();
        let mut records = Vec::new();
        for n in 0..10u8 {
            let mut record = record::tests::record(100);
            record.run.id = pistat_protocol::id::RunId::from_parts(u64::from(n), [n; 10]);
            record.run.created_at = Timestamp::from_unix_milliseconds(1_000_000_000_000);
            record.retained = false;
            record.run.state = if n == 0 {
                pistat_protocol::task::RunState::Running
            } else {
                pistat_protocol::task::RunState::Succeeded
            };
            records.push(RegisterWrite::Run(Box::new(record)));
        }
        register.commit(records.iter()).unwrap();
        register.retain(Retention { days: 30, runs: 3, events: 10 }, 1_000_000_000_001).unwrap();
        assert_eq!(register.newest_runs(100).unwrap().len(), 4);
        register.retain(Retention { days: 30, runs: 3, events: 10 }, 1_100_000_000_000).unwrap();
        assert_eq!(register.newest_runs(100).unwrap().len(), 1);
    }
}
