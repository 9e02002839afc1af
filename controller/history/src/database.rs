//! The file of the history: SQLite, one row a block. It is opened here, and set aside when it
//! cannot be read.
//!
//! The row id is made of tier, machine and block, so that a chart reads neighbours and no index is
//! needed.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use pistat_protocol::id::PiId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};

use crate::tier::Tier;

/// The version of the schema, in `user_version`.
const VERSION: i64 = 1;

const MACHINE_BITS: u32 = 24;
const BLOCK_BITS: u32 = 34;

/// Bytes of the log of changes that stay on the disk when it is empty.
const LOG_BYTES: i64 = 1 << 20;

/// Why the history cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite refuses.
    #[error("the history {file} cannot be used: {error}; is the disk full or read-only?")]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
    /// It cannot be made or set aside.
    #[error("the history {file} cannot be used: {error}")]
    Folder {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Why something was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// SQLite refuses.
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
    /// There is less free than is left to others.
    #[error("the disk has less than {0} MiB free, which are left to runs and accounts")]
    Reserved(u64),
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) connection: Connection,
    file: PathBuf,
    machines: HashMap<PiId, i64>,
}

impl Database {
    /// Opens or makes the file. One that is damaged or of a newer version is set aside; the
    /// sentences say so.
    pub(crate) fn open(file: &Path) -> Result<(Self, Vec<String>), OpenError> {
        let in_file = |error| OpenError::File { file: file.into(), error };
        let why = match Self::try_open(file) {
            Ok(Ok(database)) => return Ok((database, Vec::new())),
            Ok(Err(newer)) => {
                format!("was written by a newer version (its schema is {newer}, this version knows {VERSION})")
            }
            Err(error) if is_damage(&error) => format!("is damaged ({error})"),
            Err(error) => return Err(in_file(error)),
        };
        let kept = set_aside(file).map_err(|error| OpenError::Folder { file: file.into(), error })?;
        let note =
            format!("{} {why}; it was set aside as {} and a new one begins empty", file.display(), kept.display());
        match Self::try_open(file).map_err(in_file)? {
            Ok(database) => Ok((database, vec![note])),
            Err(_) => Err(in_file(rusqlite::Error::InvalidQuery)),
        }
    }

    /// The database, or the newer version that wrote the file.
    fn try_open(file: &Path) -> rusqlite::Result<Result<Self, i64>> {
        // What machines measure is for those who may sign in. What cannot be made here, SQLite
        // reports.
        if file != Path::new(":memory:") {
            let _ = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(file);
        }
        let connection = Connection::open(file)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > VERSION {
            return Ok(Err(version));
        }
        if version == 0 {
            // It can be chosen only before the first table.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        connection.pragma_update(None, "cache_size", -2048)?;
        if version == 0 {
            connection.execute_batch(&format!(
                "BEGIN;
                 CREATE TABLE fact (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
                 CREATE TABLE machine (id INTEGER PRIMARY KEY, pi TEXT NOT NULL UNIQUE);
                 CREATE TABLE block (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
                 PRAGMA user_version = {VERSION};
                 COMMIT;"
            ))?;
        }
        let machines = load_machines(&connection)?;
        Ok(Ok(Self { connection, file: file.into(), machines }))
    }

    /// Sets the file aside, which turned out to be damaged, and begins a new one.
    pub(crate) fn open_anew(file: &Path) -> Result<(Self, String), OpenError> {
        let kept = set_aside(file).map_err(|error| OpenError::Folder { file: file.into(), error })?;
        let (database, _) = Self::open(file)?;
        let (file, kept) = (file.display(), kept.display());
        Ok((database, format!("{file} is damaged; it was set aside as {kept} and a new one begins empty")))
    }

    /// Which file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Machines that have blocks.
    pub(crate) fn machines(&self) -> impl Iterator<Item = (&PiId, i64)> {
        self.machines.iter().map(|(pi, id)| (pi, *id))
    }

    pub(crate) fn machine(&self, pi: &PiId) -> Option<i64> {
        self.machines.get(pi).copied()
    }

    /// Makes a machine known that was stored in a transaction that is committed.
    pub(crate) fn know(&mut self, pi: PiId, id: i64) {
        self.machines.insert(pi, id);
    }

    /// A number that is kept beside the blocks.
    pub(crate) fn fact(&self, name: &str) -> rusqlite::Result<Option<i64>> {
        let query = "SELECT value FROM fact WHERE name = ?";
        self.connection.prepare_cached(query)?.query_row([name], |row| row.get(0)).optional()
    }

    /// The blocks of a machine from one number to another, both included, by number.
    pub(crate) fn blocks(
        &self,
        tier: Tier,
        machine: i64,
        numbers: (i64, i64),
        mut with: impl FnMut(i64, &[u8]),
    ) -> rusqlite::Result<()> {
        let query = "SELECT id, data FROM block WHERE id BETWEEN ? AND ? ORDER BY id";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query([row_id(tier, machine, numbers.0), row_id(tier, machine, numbers.1)])?;
        while let Some(row) = rows.next()? {
            with(block_number(row.get(0)?), row.get_ref(1)?.as_blob().unwrap_or(&[]));
        }
        Ok(())
    }

    /// The number of a machine's oldest block of a tier.
    pub(crate) fn oldest(&self, tier: Tier, machine: i64) -> rusqlite::Result<Option<i64>> {
        self.next(tier, machine, 0)
    }

    /// The number of a machine's oldest block of a tier, from a number on.
    pub(crate) fn next(&self, tier: Tier, machine: i64, number: i64) -> rusqlite::Result<Option<i64>> {
        let query = "SELECT min(id) FROM block WHERE id BETWEEN ? AND ?";
        let ends = [row_id(tier, machine, number), row_id(tier, machine, i64::MAX)];
        let id: Option<i64> = self.connection.prepare_cached(query)?.query_row(ends, |row| row.get(0))?;
        Ok(id.map(block_number))
    }

    /// Deletes a machine's blocks up to a number and tells how many they were.
    pub(crate) fn delete_up_to(&self, tier: Tier, machine: i64, number: i64) -> rusqlite::Result<usize> {
        let query = "DELETE FROM block WHERE id BETWEEN ? AND ?";
        let ends = [row_id(tier, machine, 0), row_id(tier, machine, number)];
        self.connection.prepare_cached(query)?.execute(ends)
    }

    /// Forgets a machine; nothing of it is left.
    pub(crate) fn forget(&mut self, pi: &PiId) -> rusqlite::Result<usize> {
        let Some(machine) = self.machine(pi) else { return Ok(0) };
        let transaction = self.connection.transaction()?;
        let mut count = 0;
        for tier in Tier::ALL {
            let ends = [row_id(tier, machine, 0), row_id(tier, machine, i64::MAX)];
            count += transaction.execute("DELETE FROM block WHERE id BETWEEN ? AND ?", ends)?;
        }
        transaction.execute("DELETE FROM machine WHERE id = ?", [machine])?;
        transaction.commit()?;
        self.machines.remove(pi);
        Ok(count)
    }

    /// Bytes of the pages that hold something, and of all pages of the file.
    pub(crate) fn size(&self) -> rusqlite::Result<(u64, u64)> {
        let pragma = |name: &str| -> rusqlite::Result<u64> {
            self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
        };
        let (pages, free, size) = (pragma("page_count")?, pragma("freelist_count")?, pragma("page_size")?);
        Ok((pages.saturating_sub(free) * size, pages * size))
    }

    /// Gives free pages back to the disk until the file has at most so many bytes.
    pub(crate) fn shrink(&self, bytes: u64) -> rusqlite::Result<()> {
        let (_, all) = self.size()?;
        if all > bytes {
            let page: u64 = self.connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
            let pages = (all - bytes).div_ceil(page);
            self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({pages})"))?;
        }
        Ok(())
    }

    /// Brings the log of changes into the file.
    pub(crate) fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }
}

/// The id of a machine, which is made if there is none.
pub(crate) fn machine_id(transaction: &Transaction<'_>, pi: &PiId) -> rusqlite::Result<i64> {
    let query = "SELECT id FROM machine WHERE pi = ?";
    let known: Option<i64> = transaction.query_row(query, [pi.as_str()], |row| row.get(0)).optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    transaction.execute("INSERT INTO machine (pi) VALUES (?)", [pi.as_str()])?;
    Ok(transaction.last_insert_rowid())
}

/// The bytes of a block.
pub(crate) fn read_block(
    transaction: &Transaction<'_>,
    tier: Tier,
    machine: i64,
    number: i64,
) -> rusqlite::Result<Option<Vec<u8>>> {
    let query = "SELECT data FROM block WHERE id = ?";
    transaction.prepare_cached(query)?.query_row([row_id(tier, machine, number)], |row| row.get(0)).optional()
}

/// Stores the bytes of a block.
pub(crate) fn write_block(
    transaction: &Transaction<'_>,
    tier: Tier,
    machine: i64,
    number: i64,
    bytes: &[u8],
) -> rusqlite::Result<()> {
    let query = "INSERT INTO block (id, data) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET data = ?2";
    transaction.prepare_cached(query)?.execute(params![row_id(tier, machine, number), bytes])?;
    Ok(())
}

/// Keeps a number beside the blocks.
pub(crate) fn write_fact(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    let query = "INSERT INTO fact (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
    connection.prepare_cached(query)?.execute(params![name, value])?;
    Ok(())
}

/// Whether an error says that the file is not to be trusted.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(error, rusqlite::Error::SqlInputError { .. })
}

fn load_machines(connection: &Connection) -> rusqlite::Result<HashMap<PiId, i64>> {
    let mut statement = connection.prepare("SELECT pi, id FROM machine")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let rows: Vec<(String, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    // A name that is not a pi-id belongs to nothing that could be shown.
    Ok(rows.into_iter().filter_map(|(pi, id)| Some((pi.parse().ok()?, id))).collect())
}

fn row_id(tier: Tier, machine: i64, number: i64) -> i64 {
    let number = number.clamp(0, (1 << BLOCK_BITS) - 1);
    tier.number() << (MACHINE_BITS + BLOCK_BITS) | machine << BLOCK_BITS | number
}

fn block_number(id: i64) -> i64 {
    id & ((1 << BLOCK_BITS) - 1)
}

/// Renames the file and its companions; tells the new name.
fn set_aside(file: &Path) -> io::Result<PathBuf> {
    let name = |number: u32, suffix: &str| PathBuf::from(format!("{}.kept-{number}{suffix}", file.display()));
    let number = (1..1000).find(|number| !name(*number, "").exists()).unwrap_or(1000);
    for suffix in ["", "-wal", "-shm"] {
        let companion = PathBuf::from(format!("{}{suffix}", file.display()));
        if companion.exists() {
            fs::rename(companion, name(number, suffix))?;
        }
    }
    Ok(name(number, ""))
}
