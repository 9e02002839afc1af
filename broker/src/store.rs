//! What outlives a restart: retained messages, the last wills of connected clients, and sessions
//! that are to be kept with what waits for them, in one append-only file.
//!
//! Records carry a checksum. Changes come in batches and each batch is one write by a thread of its
//! own; when the file is mostly history it is written anew beside and renamed. A tail that a power
//! cut has torn is cut off; a file that is damaged elsewhere is copied aside before. Neither ever
//! stops the start.
//!
//! What cannot be written (the disk is full) leaves the file as it was: its beginning is taken
//! back, and nothing more is appended until the hub has had everything written anew, so that the
//! file never has a gap.
//!
//! Format of `retained.log`: the magic line, then records `length: u32, crc32 of the rest: u32,
//! kind: u8, body`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pistat_support::file::sync_folder_of;

use crate::statistics::Counters;

mod fields;
mod kept;
mod record;

pub(crate) use fields::SessionKey;
pub(crate) use kept::{KeptDelivery, KeptExchange, KeptSession, KeptSubscription};
pub(crate) use record::{Record, Will as StoredWill};

/// Retained messages are not for all users of the machine.
const PRIVATE: u32 = 0o600;

const FILE: &str = "retained.log";
const MAGIC: &[u8] = b"pistat retained 1\n";

/// How much is written at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// A file is written anew when it is larger than this and mostly history.
const COMPACT_ABOVE_BYTES: u64 = 1024 * 1024;

/// Batches that wait for the disk. The hub makes one every half second at most, so a disk that
/// hangs for a minute is borne; beyond, the hub keeps its changes for the next batch.
const BATCHES: usize = 128;

/// What a batch is.
pub(crate) enum Batch {
    /// Records to append, and whether they should reach the disk's medium now.
    Append {
        /// In order.
        records: Vec<Record>,
        /// Telemetry alone is not worth a sync.
        sync: bool,
    },
    /// Everything that is alive: the file is written anew.
    Rewrite(Vec<Record>),
}

/// What was found at the start.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// The retained messages, newest state of each topic, with the time that each still has and its
    /// owner.
    pub(crate) retained: Vec<(Bytes, Option<u64>, Arc<str>)>,
    /// The wills of clients that were connected.
    pub(crate) wills: Vec<(SessionKey, StoredWill)>,
    /// Sessions, and what waits for them.
    pub(crate) sessions: Vec<(SessionKey, KeptSession, Vec<KeptDelivery>)>,
    /// Where a damaged file was kept, and what was wrong.
    pub(crate) damaged: Option<(PathBuf, String)>,
}

/// The writing thread.
pub(crate) struct Store {
    batches: mpsc::SyncSender<Batch>,
    thread: Option<JoinHandle<()>>,
    /// How large the file is, for the hub to decide when to write it anew.
    file_bytes: Arc<AtomicU64>,
    /// Something could not be written.
    has_failed: Arc<AtomicBool>,
    /// How often everything is still to be written anew.
    rewrites: Arc<AtomicUsize>,
}

impl Store {
    /// Reads what is there and opens the file for appending.
    pub(crate) fn open(folder: &Path, counters: Arc<Counters>) -> io::Result<(Self, Restored)> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let restored = load(&path)?;
        let file = open_for_appending(&path)?;
        let file_bytes = Arc::new(AtomicU64::new(file.metadata()?.len()));
        let (has_failed, rewrites) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (batches, receiver) = mpsc::sync_channel(BATCHES);
        let writer = Writer {
            path,
            file,
            counters,
            file_bytes: file_bytes.clone(),
            has_failed: has_failed.clone(),
            rewrites: rewrites.clone(),
            is_behind: false,
        };
        let thread = std::thread::Builder::new().name("pistat-retained".into()).spawn(move || writer.run(&receiver))?;
        Ok((Self { batches, thread: Some(thread), file_bytes, has_failed, rewrites }, restored))
    }

    /// Hands a batch to the writer; gives it back when the disk is too far behind.
    pub(crate) fn write(&self, batch: Batch) -> Result<(), Batch> {
        // Counted before the writer can have done it.
        let rewrites = usize::from(matches!(batch, Batch::Rewrite(_)));
        self.rewrites.fetch_add(rewrites, Ordering::AcqRel);
        self.batches.try_send(batch).map_err(|error| {
            self.rewrites.fetch_sub(rewrites, Ordering::AcqRel);
            match error {
                mpsc::TrySendError::Full(batch) | mpsc::TrySendError::Disconnected(batch) => batch,
            }
        })
    }

    /// Whether something could not be written since this was asked last: then everything is to be
    /// written anew, since nothing else is written any more.
    pub(crate) fn take_failed(&self) -> bool {
        self.has_failed.swap(false, Ordering::Relaxed)
    }

    /// Whether the file is mostly history, when what is alive takes so many bytes, and is not being
    /// written anew already: a card may take many seconds for that.
    pub(crate) fn wants_rewrite(&self, live_bytes: impl FnOnce() -> usize) -> bool {
        if self.rewrites.load(Ordering::Acquire) > 0 {
            return false;
        }
        let file_bytes = self.file_bytes.load(Ordering::Relaxed);
        file_bytes > COMPACT_ABOVE_BYTES && file_bytes > 2 * live_bytes() as u64 + COMPACT_ABOVE_BYTES
    }

    /// Waits until everything is written. Blocks: not for an async worker.
    pub(crate) fn close(mut self, last: Option<Batch>) {
        if let Some(batch) = last {
            self.rewrites.fetch_add(usize::from(matches!(batch, Batch::Rewrite(_))), Ordering::AcqRel);
            let _ = self.batches.send(batch);
        }
        let thread = self.thread.take();
        drop(self.batches);
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the writer of retained messages has panicked");
        }
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    counters: Arc<Counters>,
    file_bytes: Arc<AtomicU64>,
    has_failed: Arc<AtomicBool>,
    rewrites: Arc<AtomicUsize>,
    /// Something is missing in the file: what is appended would come after a gap.
    is_behind: bool,
}

impl Writer {
    fn run(mut self, batches: &mpsc::Receiver<Batch>) {
        while let Ok(batch) = batches.recv() {
            if let Err(error) = self.write(&batch) {
                self.failed(&error);
            }
            if let Batch::Rewrite(_) = batch {
                self.rewrites.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        match batch {
            // A rewrite will contain this.
            Batch::Append { .. } if self.is_behind => Ok(()),
            Batch::Append { records, sync } => self.append(records, *sync),
            Batch::Rewrite(records) => {
                self.rewrite(records)?;
                self.is_behind = false;
                Ok(())
            }
        }
    }

    /// The file keeps what was whole; half a record in its middle would hide all that comes after
    /// it.
    fn failed(&mut self, error: &io::Error) {
        self.counters.state_write_errors.add(1);
        tracing::error!(path = %self.path.display(), %error, "cannot write retained messages");
        self.is_behind = true;
        if let Err(error) = self.file.set_len(self.file_bytes.load(Ordering::Relaxed)) {
            tracing::error!(path = %self.path.display(), %error, "cannot take back what was written in part");
        }
        self.has_failed.store(true, Ordering::Relaxed);
    }

    fn append(&mut self, records: &[Record], sync: bool) -> io::Result<()> {
        let written = write_records(&mut self.file, records)?;
        self.count(written, self.file_bytes.load(Ordering::Relaxed) + written);
        if sync { self.file.sync_data() } else { Ok(()) }
    }

    fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let whole = write_whole(&temporary, records);
        let renamed = whole.and_then(|whole| std::fs::rename(&temporary, &self.path).map(|()| whole));
        // Half a file would only take room on a full disk.
        let (file, written) = renamed.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
        self.file = file;
        self.count(written, written);
        sync_folder_of(&self.path)
    }

    fn count(&self, written: u64, file_bytes: u64) {
        self.counters.state_bytes_written.add(written);
        self.file_bytes.store(file_bytes, Ordering::Relaxed);
    }
}

/// Writes records piece by piece, and says how many bytes they are: all that a large fleet retains
/// is more than should be in memory twice.
fn write_records(file: &mut File, records: &[Record]) -> io::Result<u64> {
    let (mut bytes, mut written) = (Vec::new(), 0);
    for record in records {
        record.encode(&mut bytes);
        if bytes.len() >= PIECE_BYTES {
            file.write_all(&bytes)?;
            written += bytes.len() as u64;
            bytes.clear();
        }
    }
    file.write_all(&bytes)?;
    Ok(written + bytes.len() as u64)
}

/// Writes a file that was not there, and leaves it open for appending; with its size.
fn write_whole(path: &Path, records: &[Record]) -> io::Result<(File, u64)> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().append(true).create_new(true).mode(PRIVATE).open(path)?;
    file.write_all(MAGIC)?;
    let written = write_records(&mut file, records)?;
    file.sync_all()?;
    Ok((file, MAGIC.len() as u64 + written))
}

/// Opens the file; a new one gets its magic line.
fn open_for_appending(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(path)?;
    if file.metadata()?.len() == 0 {
        file.write_all(MAGIC)?;
        file.sync_all()?;
        sync_folder_of(path)?;
    }
    Ok(file)
}

fn load(path: &Path) -> io::Result<Restored> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Restored::default()),
        Err(error) => return Err(error),
    };
    let Some(records) = bytes.strip_prefix(MAGIC) else { return set_aside_foreign(path, &bytes) };
    let (live, end) = record::replay(records);
    let mut restored = live.into_restored(unix_ms());
    let good_bytes = MAGIC.len() + end.good_bytes;
    if good_bytes < bytes.len() {
        if let Some(reason) = end.damage {
            let kept = aside(path);
            std::fs::copy(path, &kept)?;
            restored.damaged = Some((kept, reason.to_owned()));
        }
        tracing::warn!(path = %path.display(), cut = bytes.len() - good_bytes, "the end of the retained messages was torn");
        OpenOptions::new().write(true).open(path)?.set_len(good_bytes as u64)?;
    }
    Ok(restored)
}

/// A file that is not ours, or whose very beginning is damaged.
fn set_aside_foreign(path: &Path, bytes: &[u8]) -> io::Result<Restored> {
    if MAGIC.starts_with(bytes) {
        // Torn while its first line was written: there was nothing in it.
        std::fs::remove_file(path)?;
        return Ok(Restored::default());
    }
    let kept = aside(path);
    std::fs::rename(path, &kept)?;
    let damaged = Some((kept, "it does not begin as a file of retained messages".to_owned()));
    Ok(Restored { damaged, ..Restored::default() })
}

/// A name beside the file that nothing has yet.
fn aside(path: &Path) -> PathBuf {
    let name = |n: u32| path.with_file_name(format!("{FILE}.damaged-{}-{n}", unix_ms() / 1000));
    (0..1000).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(1000))
}

/// The wall clock: expiry must count the time that the broker was off.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
