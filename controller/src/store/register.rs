//! The register: runs, their output, and events, in one `SQLite` file.
//!
//! Every commit is on the disk when it returns (`WAL`, `synchronous=FULL`). The order of runs and
//! events is the register's own sequence, whatever clocks do. Output beyond a run's limit keeps its
//! first half and its last half.

use std::path::Path;

use pistat_protocol::{
    dashboard::{Event, EventKind, OutputPiece},
    id::{PiId, RunId},
    task::Stream,
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::record::{GroupRecord, NewPiece, OutputState, RequestRecord, RequestedRun, RunRecord};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, pi TEXT NOT NULL, task TEXT NOT NULL, state TEXT NOT NULL,
    final INTEGER NOT NULL, retained INTEGER NOT NULL, request TEXT, created INTEGER NOT NULL, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS runs_pi ON runs (pi, seq);
CREATE INDEX IF NOT EXISTS runs_open ON runs (final) WHERE final = 0;
CREATE INDEX IF NOT EXISTS runs_retained ON runs (pi, seq) WHERE retained = 1;
CREATE INDEX IF NOT EXISTS runs_request ON runs (request, created) WHERE request IS NOT NULL;
CREATE TABLE IF NOT EXISTS groups (id TEXT PRIMARY KEY, open INTEGER NOT NULL, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS output (
    run TEXT NOT NULL, seq INTEGER NOT NULL, start INTEGER NOT NULL, stream INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (run, seq));
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, record TEXT NOT NULL,
    shelf INTEGER NOT NULL DEFAULT 2, source TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// Gives the events of a version that kept all of them together their shelves and sources.
const SORT_OLD_EVENTS: &str = "
ALTER TABLE events ADD COLUMN shelf INTEGER NOT NULL DEFAULT 2;
ALTER TABLE events ADD COLUMN source TEXT NOT NULL DEFAULT '';
UPDATE events SET
    shelf = CASE json_extract(record, '$.kind') WHEN 'access' THEN 0 WHEN 'label' THEN 0 WHEN 'task' THEN 1 ELSE 2 END,
    source = lower(coalesce(json_extract(record, '$.account'), json_extract(record, '$.pi'), ''))
WHERE json_valid(record);
";

/// The name of the fact which topic prefixes were in use, as a list in JSON.
pub(crate) const PREFIXES: &str = "topic prefixes";

/// The name of the fact until when retention has counted time.
pub(super) const LIVED_UNTIL: &str = "time lived until";

/// One write to the register.
#[derive(Debug, Clone)]
pub(crate) enum RegisterWrite {
    /// A run, new or changed.
    Run(Box<RunRecord>),
    /// A group, new or changed.
    Group(Box<GroupRecord>),
    /// A piece of output.
    Piece(NewPiece),
    /// The broker no longer retains a run's status.
    Cleared(RunId),
    /// An event, and with which others it is kept.
    Event(Event, Shelf),
    /// Something that the controller remembers for itself, by its name.
    Fact(&'static str, String),
}

/// Events that are kept apart from others, with a number of their own: whatever fills one shelf
/// takes no room of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// Accounts, sign-ins, enrolments, names and tags.
    Access,
    /// Who asked for which task or for its end, and how it ended.
    Tasks,
    /// Machines, connections, the controller.
    Rest,
}

impl Shelf {
    const ALL: [Self; 3] = [Self::Access, Self::Tasks, Self::Rest];

    /// Where an event of this kind is kept.
    pub(crate) fn of(kind: EventKind) -> Self {
        match kind {
            EventKind::Access | EventKind::Label => Self::Access,
            EventKind::Task => Self::Tasks,
            EventKind::Alert | EventKind::Mqtt | EventKind::System => Self::Rest,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Access => 0,
            Self::Tasks => 1,
            Self::Rest => 2,
        }
    }

    fn limit(self, retention: Retention) -> u32 {
        match self {
            Self::Access | Self::Tasks => retention.audit,
            Self::Rest => retention.events,
        }
    }

    /// Who caused an event: with whose other events it competes for room. Machines are sources on
    /// the shelf for the rest alone: whoever has a join token can make up machines.
    fn source(self, event: &Event) -> String {
        let machine = || event.pi.as_ref().filter(|_| self == Self::Rest).map(PiId::key);
        event.account.as_ref().map(|account| account.to_lowercase()).or_else(machine).unwrap_or_default()
    }
}

impl RegisterWrite {
    /// What it is about, for people.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Run(record) => format!("run {}", record.run.id),
            Self::Group(record) => format!("group {}", record.id),
            Self::Piece(piece) => format!("chunk {} of the output of run {}", piece.seq, piece.run),
            Self::Cleared(run) => format!("that the broker has cleared run {run}"),
            Self::Event(event, _) => format!("event {}", event.seq),
            Self::Fact(name, _) => format!("the {name}"),
        }
    }
}

/// What `GET /api/events` asks for.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only those before this sequence number.
    pub before: Option<u64>,
    /// Only those of this time and later.
    pub since: Option<Timestamp>,
    /// Only those of this machine.
    pub pi: Option<PiId>,
    /// Only those of this account.
    pub account: Option<String>,
    /// Only those of this kind.
    pub kind: Option<EventKind>,
}

/// What `GET /api/runs` asks for.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    /// Only runs on this machine.
    pub pi: Option<String>,
    /// Only runs of this task.
    pub task: Option<String>,
    /// Only runs in this state.
    pub state: Option<String>,
    /// Only runs of this group.
    pub group: Option<RunId>,
    /// Only runs that were accepted before this one.
    pub before: Option<RunId>,
    /// At most so many.
    pub limit: u32,
}

/// What is kept of finished runs and of events.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Older ones go.
    pub days: u32,
    /// The newest that stay, however many there are.
    pub runs: u32,
    /// The newest events that stay on the shelf for the rest.
    pub events: u32,
    /// The same for each of the shelves for access and tasks.
    pub audit: u32,
}

/// The register's file, open for writing. One thread has it.
pub(crate) struct Register {
    connection: Connection,
}

impl Register {
    /// Opens the file, making it when there is none.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // A log that has once been large is cut back, so that a burst of output does not keep its
        // room for ever.
        connection.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)?;
        connection.execute_batch(SCHEMA)?;
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(rusqlite::Error::InvalidQuery);
        }
        let is_old = "SELECT count(*) = 0 FROM pragma_table_info('events') WHERE name = 'shelf'";
        if connection.query_row(is_old, [], |row| row.get(0))? {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute_batch(SORT_OLD_EVENTS)?;
            transaction.commit()?;
        }
        connection.execute_batch("CREATE INDEX IF NOT EXISTS events_shelf ON events (shelf, source, seq)")?;
        Ok(Self { connection })
    }

    /// Something that the controller remembers for itself.
    pub(crate) fn fact(&self, name: &str) -> rusqlite::Result<Option<String>> {
        self.connection.query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| row.get(0)).optional()
    }

    /// When the newest event was written, by the wall clock of then.
    pub(crate) fn newest_time(&self) -> rusqlite::Result<Option<i64>> {
        self.connection.query_row("SELECT time FROM events ORDER BY seq DESC LIMIT 1", [], |row| row.get(0)).optional()
    }

    /// The time of the oldest thing that its age may delete.
    pub(crate) fn oldest_time(&self) -> rusqlite::Result<Option<i64>> {
        let oldest = "SELECT min(time) FROM (SELECT min(time) AS time FROM events
            UNION ALL SELECT min(created) FROM runs WHERE final = 1 AND retained = 0)";
        self.connection.query_row(oldest, [], |row| row.get(0))
    }

    /// Does all writes, or none of them.
    pub(crate) fn commit<'a>(&mut self, writes: impl Iterator<Item = &'a RegisterWrite>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for write in writes {
            apply(&transaction, write)?;
        }
        transaction.commit()
    }

    /// Does all writes that can be done at all, and returns the others: each is at fault itself,
    /// and no repetition would store it.
    pub(crate) fn commit_what_fits<'a>(
        &mut self,
        writes: &'a [RegisterWrite],
    ) -> rusqlite::Result<Vec<(&'a RegisterWrite, rusqlite::Error)>> {
        let transaction = self.connection.transaction()?;
        let mut left_out = Vec::new();
        for write in writes {
            match apply(&transaction, write) {
                Err(error) if is_of_the_write(&error) => left_out.push((write, error)),
                result => result?,
            }
        }
        transaction.commit()?;
        Ok(left_out)
    }

    /// The runs that are not final, in their order.
    pub(crate) fn open_runs(&self) -> rusqlite::Result<Vec<RunRecord>> {
        self.records("SELECT record FROM runs WHERE final = 0 ORDER BY seq", [])
    }

    /// The final runs whose status is still retained on the broker, oldest first.
    pub(crate) fn retained_runs(&self) -> rusqlite::Result<Vec<RunRecord>> {
        self.records("SELECT record FROM runs WHERE retained = 1 AND final = 1 ORDER BY seq", [])
    }

    /// The newest runs, newest first.
    pub(crate) fn newest_runs(&self, limit: u32) -> rusqlite::Result<Vec<RunRecord>> {
        self.records("SELECT record FROM runs ORDER BY seq DESC LIMIT ?1", [limit])
    }

    /// The requests with an id that were accepted since a time, oldest first, of the newest so many
    /// runs.
    pub(crate) fn requests(&self, since_unix_milliseconds: i64, limit: u32) -> rusqlite::Result<Vec<RequestRecord>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT record FROM runs WHERE request IS NOT NULL AND created >= ?1
             AND seq > coalesce((SELECT seq FROM runs ORDER BY seq DESC LIMIT 1 OFFSET ?2), 0) ORDER BY seq",
        )?;
        let mut rows = statement.query(params![since_unix_milliseconds, limit])?;
        let mut requests = Vec::new();
        while let Some(row) = rows.next()? {
            if let Some(run) = read_record::<RequestedRun>(row)? {
                run.join(&mut requests);
            }
        }
        Ok(requests)
    }

    /// The groups that are not finished and the newest others, newest first.
    pub(crate) fn groups(&self, limit: u32) -> rusqlite::Result<Vec<GroupRecord>> {
        self.records("SELECT record FROM groups ORDER BY open DESC, id DESC LIMIT ?1", [limit])
    }

    /// The newest events, newest first.
    pub(crate) fn newest_events(&self, limit: u32) -> rusqlite::Result<Vec<Event>> {
        self.records("SELECT record FROM events ORDER BY seq DESC LIMIT ?1", [limit])
    }

    /// Deletes what the retention does not keep. Runs that are not final stay.
    pub(crate) fn retain(&mut self, retention: Retention, now_unix_milliseconds: i64) -> rusqlite::Result<usize> {
        let oldest = now_unix_milliseconds - i64::from(retention.days) * 86_400_000;
        let transaction = self.connection.transaction()?;
        // Output is found by its run: looking through all of it for what has none would read every
        // byte that is kept.
        let goes = "final = 1 AND retained = 0
            AND (created < ?1 OR seq <= (SELECT seq FROM runs ORDER BY seq DESC LIMIT 1 OFFSET ?2))";
        transaction.execute(
            &format!("DELETE FROM output WHERE run IN (SELECT id FROM runs WHERE {goes})"),
            params![oldest, retention.runs],
        )?;
        let mut deleted =
            transaction.execute(&format!("DELETE FROM runs WHERE {goes}"), params![oldest, retention.runs])?;
        if deleted > 0 {
            transaction.execute("DELETE FROM groups WHERE open = 0 AND id < (SELECT min(id) FROM runs)", [])?;
        }
        deleted += transaction.execute("DELETE FROM events WHERE time < ?1", [oldest])?;
        for shelf in Shelf::ALL {
            deleted += make_room(&transaction, shelf, shelf.limit(retention))?;
        }
        put_fact(&transaction, LIVED_UNTIL, &now_unix_milliseconds.to_string())?;
        transaction.commit()?;
        if deleted > 0 {
            self.connection.execute_batch("PRAGMA incremental_vacuum")?;
        }
        Ok(deleted)
    }

    fn records<T: serde::de::DeserializeOwned>(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
    ) -> rusqlite::Result<Vec<T>> {
        query_records(&self.connection, query, parameters)
    }
}

fn query_records<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map(parameters, read_record)?;
    rows.filter_map(Result::transpose).collect()
}

/// A record of another version, or on a sector that has gone bad, is passed over: it must not hide
/// the others, nor stop the start.
fn read_record<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<T>> {
    let bytes = row.get_ref(0)?.as_bytes().unwrap_or_default();
    let record = serde_json::from_slice(bytes);
    Ok(record.inspect_err(|error| tracing::warn!(%error, "a record of the register cannot be read")).ok())
}

/// Whether what is to be written is itself at fault. Everything else (no room, a disk that fails, a
/// file that is busy) passes or is mended.
pub(crate) fn is_of_the_write(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch, Unknown};
    let code = error.sqlite_error_code();
    code.is_none_or(|code| matches!(code, ConstraintViolation | TooBig | TypeMismatch | Unknown))
}

fn apply(connection: &Connection, write: &RegisterWrite) -> rusqlite::Result<()> {
    match write {
        RegisterWrite::Run(record) => put_run(connection, record),
        RegisterWrite::Group(record) => put_group(connection, record),
        RegisterWrite::Piece(piece) => put_piece(connection, piece),
        RegisterWrite::Cleared(run) => put_cleared(connection, *run),
        RegisterWrite::Event(event, shelf) => put_event(connection, event, *shelf),
        RegisterWrite::Fact(name, value) => put_fact(connection, name, value),
    }
}

fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn put_run(connection: &Connection, record: &RunRecord) -> rusqlite::Result<()> {
    let run = &record.run;
    let request = run.request_id.as_ref().map(|id| format!("{}\n{id}", run.requested_by));
    connection
        .prepare_cached(
            "INSERT INTO runs (id, pi, task, state, final, retained, request, created, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, final = excluded.final, retained = excluded.retained, record = excluded.record",
        )?
        .execute(params![
            run.id.to_string(),
            run.pi.as_str(),
            run.task.as_str(),
            run.state.as_str(),
            run.state.is_final(),
            record.retained,
            request,
            run.created_at.unix_milliseconds(),
            json(record)?
        ])?;
    Ok(())
}

fn put_group(connection: &Connection, record: &GroupRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO groups (id, open, record) VALUES (?1, ?2, ?3)")?
        .execute(params![record.id.to_string(), record.open, json(record)?])?;
    Ok(())
}

fn put_piece(connection: &Connection, piece: &NewPiece) -> rusqlite::Result<()> {
    let run = piece.run.to_string();
    connection
        .prepare_cached("INSERT OR IGNORE INTO output (run, seq, start, stream, data) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![run, piece.seq, piece.start, piece.stream == Stream::Stderr, piece.data])?;
    if let Some((first, last)) = piece.left_out {
        connection
            .prepare_cached("DELETE FROM output WHERE run = ?1 AND seq BETWEEN ?2 AND ?3")?
            .execute(params![run, first, last])?;
    }
    Ok(())
}

fn put_cleared(connection: &Connection, run: RunId) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE runs SET retained = 0, record = json_set(record, '$.retained', json('false')) WHERE id = ?1",
        )?
        .execute([run.to_string()])?;
    Ok(())
}

fn put_event(connection: &Connection, event: &Event, shelf: Shelf) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO events (seq, time, record, shelf, source) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            event.seq,
            event.time.unix_milliseconds(),
            json(event)?,
            shelf.number(),
            shelf.source(event)
        ])?;
    Ok(())
}

fn put_fact(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)")?.execute([name, value])?;
    Ok(())
}

/// Deletes what is beyond the number of a shelf: the oldest events of the sources that have the
/// most. So a source that causes many events loses its own and nobody else's.
fn make_room(connection: &Connection, shelf: Shelf, limit: u32) -> rusqlite::Result<usize> {
    let shelf = shelf.number();
    let mut statement = connection.prepare("SELECT source, count(*) FROM events WHERE shelf = ?1 GROUP BY source")?;
    let rows = statement.query_map([shelf], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let counts: Vec<(String, u64)> = rows.collect::<rusqlite::Result<_>>()?;
    let share = fair_share(counts.iter().map(|(_, count)| *count).collect(), limit.into());
    let mut deleted = 0;
    for (source, _) in counts.iter().filter(|(_, count)| *count > share) {
        deleted += connection.execute(
            "DELETE FROM events WHERE shelf = ?1 AND source = ?2 AND seq <= (SELECT seq FROM events
             WHERE shelf = ?1 AND source = ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?3)",
            params![shelf, source, share],
        )?;
    }
    Ok(deleted)
}

/// How many each may have, so that all together have no more than a total: who has less leaves the
/// rest to the others.
fn fair_share(mut counts: Vec<u64>, total: u64) -> u64 {
    counts.sort_unstable();
    let (mut left, mut sharers) = (total, counts.len() as u64);
    for count in counts {
        let share = left / sharers;
        if count > share {
            return share.max(1);
        }
        left -= count;
        sharers -= 1;
    }
    u64::MAX >> 1
}

/// The register, open for reading. Readers never wait for the writer, nor it for them.
pub struct Reader {
    connection: Connection,
}

/// Where a follower of a run's output stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next chunk.
    pub seq: u64,
    /// Where it should begin, in bytes of the whole output; a later start is a gap.
    pub start: u64,
}

/// The most text that one page of output carries, in bytes.
const PAGE_BYTES: usize = 256 * 1024;

impl Reader {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        Ok(Self { connection })
    }

    /// Something that the controller remembers for itself.
    #[cfg(test)]
    pub(crate) fn fact(&self, name: &str) -> rusqlite::Result<Option<String>> {
        self.connection.query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| row.get(0)).optional()
    }

    /// One run.
    ///
    /// # Errors
    /// The register cannot be read.
    pub fn run(&self, id: RunId) -> rusqlite::Result<Option<RunRecord>> {
        let record = self
            .connection
            .prepare_cached("SELECT record FROM runs WHERE id = ?1")?
            .query_row([id.to_string()], read_record)
            .optional()?;
        Ok(record.flatten())
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// The register cannot be read.
    pub fn runs(&self, query: &RunQuery) -> rusqlite::Result<Vec<RunRecord>> {
        query_records(
            &self.connection,
            "SELECT record FROM runs WHERE (?1 IS NULL OR pi = ?1 COLLATE NOCASE) AND (?2 IS NULL OR task = ?2) AND (?3 IS NULL OR state = ?3)
             AND (?4 IS NULL OR seq < (SELECT seq FROM runs WHERE id = ?4)) AND (?6 IS NULL OR CASE WHEN json_valid(record) THEN json_extract(record, '$.run.group') = ?6 END)
             ORDER BY seq DESC LIMIT ?5",
            params![
                query.pi,
                query.task,
                query.state,
                query.before.map(|id| id.to_string()),
                query.limit,
                query.group.map(|id| id.to_string())
            ],
        )
    }

    /// Events, newest first, before a sequence number.
    ///
    /// # Errors
    /// The register cannot be read.
    pub fn events(&self, query: &EventQuery, limit: u32) -> rusqlite::Result<Vec<Event>> {
        let before = query.before.and_then(|seq| i64::try_from(seq).ok()).unwrap_or(i64::MAX);
        let since = query.since.map_or(i64::MIN, Timestamp::unix_milliseconds);
        let (pi, kind) = (query.pi.as_ref().map(PiId::as_str), query.kind.map(EventKind::as_str));
        query_records(
            &self.connection,
            "SELECT record FROM events WHERE seq < ?1 AND time >= ?2
             AND (?3 IS NULL OR json_extract(record, '$.pi') = ?3 COLLATE NOCASE)
             AND (?4 IS NULL OR json_extract(record, '$.account') = ?4 COLLATE NOCASE)
             AND (?5 IS NULL OR json_extract(record, '$.kind') = ?5)
             ORDER BY seq DESC LIMIT ?6",
            params![before, since, pi, query.account, kind, limit],
        )
    }

    /// The next page of a run's output, and where the one after it begins. An empty page means that
    /// there is no more yet.
    ///
    /// # Errors
    /// The register cannot be read.
    pub fn output(&self, run: RunId, mut cursor: Cursor) -> rusqlite::Result<(Vec<OutputPiece>, Cursor)> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq, start, stream, data FROM output WHERE run = ?1 AND seq >= ?2 ORDER BY seq")?;
        let mut rows = statement.query(params![run.to_string(), cursor.seq])?;
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let (seq, start): (u64, u64) = (row.get(0)?, row.get(1)?);
            let stream = if row.get(2)? { Stream::Stderr } else { Stream::Stdout };
            // What a bad sector has made of a text is shown as far as it is one.
            let stored = row.get_ref(3)?.as_bytes().unwrap_or_default();
            let data = String::from_utf8_lossy(stored).into_owned();
            bytes += stored.len();
            let gap_bytes = start.saturating_sub(cursor.start);
            cursor = Cursor { seq: seq + 1, start: start + stored.len() as u64 };
            pieces.push(OutputPiece { seq, stream, data, gap_bytes });
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok((pieces, cursor))
    }

    /// Number, start and size of each stored chunk of a run: for one that goes on after a restart.
    pub(crate) fn output_sizes(&self, run: RunId) -> rusqlite::Result<Vec<(u64, u64, u64)>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq, start, length(CAST(data AS BLOB)) FROM output WHERE run = ?1 ORDER BY seq")?;
        statement.query_map([run.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
    }
}

/// The state of a run's output after a restart.
pub(crate) fn reload_output(record: &mut RunRecord, reader: &Reader) -> rusqlite::Result<OutputState> {
    let stored = reader.output_sizes(record.run.id)?;
    Ok(OutputState::from_stored(record, stored))
}
