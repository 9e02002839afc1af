//! Records of the register: what is kept of a run, a group and a piece of output, and the
//! arithmetic of the output limit.

use std::collections::VecDeque;

use pistat_protocol::{
    dashboard::Run,
    id::{RunId, TaskId},
    task::{OutputChunk, RunState, Stream},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// How many runs the remembered requests may have made in total: a request to a fleet makes
/// thousands, of sixteen bytes each. At the start, requests are searched for in as many of the
/// newest runs.
pub const REMEMBERED_RUNS: u32 = 500_000;

/// Who asked for a run, besides the name: what is asked again when the order is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Requester {
    /// An account, by the time at which it was made: one that is given the same name later is
    /// another account.
    Account {
        /// The account's own.
        created_at: Timestamp,
    },
    /// The schedule of the task.
    Schedule {
        /// Its expression and time zone at that time.
        schedule: String,
    },
    /// A client of an external broker, by `[mqtt.requests]`.
    Broker,
}

/// A run as the register keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// What everybody may see.
    pub run: Run,
    /// The most bytes of output that are stored.
    pub output_limit_bytes: u64,
    /// How long it may wait for an offline machine.
    pub expires_milliseconds: u64,
    /// Who asked for its end; kept until it is final.
    pub cancelled_by: Option<String>,
    /// The newest state that the agent reported and that is acknowledged.
    pub reported: Option<RunState>,
    /// The next chunk of output.
    pub next_chunk: u64,
    /// The chunks that its final report announced.
    pub final_chunks: Option<u64>,
    /// The boot during which it was started.
    pub boot_id: Option<String>,
    /// Whether its status is retained on the broker.
    pub retained: bool,
    /// What its success looks like.
    pub ends: pistat_protocol::task::Ends,
    /// Its time limit, within which a restarted machine must be back; 0 in records of versions that
    /// did not keep it.
    #[serde(default)]
    pub timeout_milliseconds: u64,
    /// The requester's role at the time of the request; null for the schedule.
    pub role: Option<pistat_protocol::account::Role>,
    /// Who asked; none in records of versions that did not keep it.
    #[serde(default)]
    pub requester: Option<Requester>,
    /// How often the account that asked had been given a new token by then.
    #[serde(default)]
    pub rotations: u32,
}

impl RunRecord {
    /// Whether the schedule asked for it.
    pub fn is_scheduled(&self) -> bool {
        match &self.requester {
            Some(requester) => matches!(requester, Requester::Schedule { .. }),
            None => self.role.is_none(),
        }
    }
}

/// What was made of a request that had an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Who asked, by name.
    pub requested_by: String,
    /// Who that was; none in records of versions that did not keep it.
    pub requester: Option<Requester>,
    /// The id that they gave it.
    pub request_id: String,
    /// The group of its runs, if it was aimed at many machines.
    pub group: Option<RunId>,
    /// Its runs, in the order of their acceptance.
    pub runs: Vec<RunId>,
}

/// What [`RequestRecord`] needs of a [`RunRecord`]: a day has a hundred thousand of them, and most
/// of each is not looked at.
#[derive(Debug, Deserialize)]
pub struct RequestedRun {
    run: RequestOf,
    #[serde(default)]
    requester: Option<Requester>,
}

#[derive(Debug, Deserialize)]
struct RequestOf {
    id: RunId,
    requested_by: String,
    request_id: Option<String>,
    group: Option<RunId>,
}

impl RequestedRun {
    /// Puts the run to those of its request, which is the newest or a new one: the runs of a
    /// request are accepted together.
    pub fn join(self, requests: &mut Vec<RequestRecord>) {
        let RequestOf { id, requested_by, request_id: Some(request_id), group } = self.run else { return };
        match requests.last_mut() {
            Some(last)
                if last.requested_by == requested_by
                    && last.requester == self.requester
                    && last.request_id == request_id =>
            {
                last.runs.push(id);
            }
            _ => requests.push(RequestRecord {
                requested_by,
                requester: self.requester,
                request_id,
                group,
                runs: vec![id],
            }),
        }
    }
}

/// A run on many machines as the register keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Its id.
    pub id: RunId,
    /// Which task.
    pub task: TaskId,
    /// What it was aimed at.
    pub target: pistat_protocol::id::Target,
    /// Who asked.
    pub requested_by: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Its runs, in the order in which they are started.
    pub runs: Vec<RunId>,
    /// The arguments of its runs; none in records of versions that did not keep them.
    #[serde(default)]
    pub args: pistat_protocol::task::Arguments,
    /// How it goes about it.
    pub options: pistat_protocol::api::GroupOptions,
    /// Why the rest was not started.
    pub stopped: Option<String>,
    /// Whether any of its runs is not final.
    pub open: bool,
    /// How its finished runs ended, so that an old group can be shown without its runs.
    pub states: std::collections::BTreeMap<RunState, u32>,
}

/// A piece of output to be stored, and the earlier pieces that make room for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPiece {
    /// Whose.
    pub run: RunId,
    /// The chunk's number.
    pub seq: u64,
    /// Where it begins, in bytes of the whole output, gaps included.
    pub start: u64,
    /// Where it came from.
    pub stream: Stream,
    /// The text.
    pub data: String,
    /// The first and last chunk that are left out from now on.
    pub left_out: Option<(u64, u64)>,
}

/// The most bytes that a run's output is said to have: what every reader of JSON can count, and far
/// below what the register's integers hold. Agents tell of gaps in numbers of their own; nothing
/// that one says may become a record that cannot be stored.
const MOST_OUTPUT_BYTES: u64 = (1 << 53) - 1;

/// How far a run's output has come: which chunk is next, and which make room when the limit is
/// reached.
#[derive(Debug, Clone)]
pub struct OutputState {
    limit: u64,
    /// Bytes of the whole output so far, gaps included.
    end: u64,
    /// Bytes of the first half that are stored; it is closed once a chunk did not fit.
    head_bytes: u64,
    head_open: bool,
    /// The chunks of the last half, oldest first, with their sizes.
    tail: VecDeque<(u64, u64)>,
    tail_bytes: u64,
}

impl OutputState {
    /// Nothing yet.
    pub fn new(limit: u64) -> Self {
        Self { limit, end: 0, head_bytes: 0, head_open: true, tail: VecDeque::new(), tail_bytes: 0 }
    }

    /// The state after a restart, from the number, start and size of each stored chunk. The
    /// record's counts follow what is stored.
    pub fn from_stored(record: &mut RunRecord, stored: Vec<(u64, u64, u64)>) -> Self {
        let mut state = Self::new(record.output_limit_bytes);
        let mut next = 0;
        for (seq, start, bytes) in stored {
            // A hole in the numbers is where chunks were left out: the first half ended before it.
            state.head_open &= seq == next;
            next = seq + 1;
            state.end = start.saturating_add(bytes).min(MOST_OUTPUT_BYTES);
            state.place(seq, bytes);
        }
        record.next_chunk = next;
        state.count(record);
        state
    }

    /// Takes the next chunk: adds to the run's counts and says what to store.
    pub fn take(&mut self, record: &mut RunRecord, chunk: OutputChunk) -> NewPiece {
        let (gap, size) = (chunk.gap_bytes.unwrap_or(0), chunk.data.len() as u64);
        let start = self.end.saturating_add(gap).min(MOST_OUTPUT_BYTES);
        self.end = start.saturating_add(size).min(MOST_OUTPUT_BYTES);
        let left_out = self.place(chunk.seq, size);
        record.next_chunk = chunk.seq + 1;
        self.count(record);
        let stream = chunk.stream.unwrap_or(Stream::Stdout);
        NewPiece { run: record.run.id, seq: chunk.seq, start, stream, data: chunk.data, left_out }
    }

    /// Counts what never arrived of all that there was: an agent that was killed had it in its
    /// memory only. An empty piece marks the place.
    pub fn miss(&mut self, record: &mut RunRecord, all_bytes: Option<u64>) -> Option<NewPiece> {
        let end = all_bytes.map(|bytes| bytes.min(MOST_OUTPUT_BYTES)).filter(|bytes| *bytes > self.end)?;
        self.end = end;
        let seq = record.next_chunk;
        record.next_chunk += 1;
        self.count(record);
        Some(NewPiece {
            run: record.run.id,
            seq,
            start: end,
            stream: Stream::Stdout,
            data: String::new(),
            left_out: None,
        })
    }

    fn count(&self, record: &mut RunRecord) {
        record.run.output_bytes = self.end;
        record.run.dropped_bytes = self.end.saturating_sub(self.head_bytes + self.tail_bytes);
    }

    fn place(&mut self, seq: u64, size: u64) -> Option<(u64, u64)> {
        let half = self.limit / 2;
        if self.head_open && self.head_bytes + size <= half {
            self.head_bytes += size;
            return None;
        }
        self.head_open = false;
        self.tail.push_back((seq, size));
        self.tail_bytes += size;
        self.make_room(half)
    }

    /// Leaves out the oldest chunks of the last half; its newest always stays.
    fn make_room(&mut self, half: u64) -> Option<(u64, u64)> {
        let mut left_out: Option<(u64, u64)> = None;
        while self.tail_bytes > half && self.tail.len() > 1 {
            let (seq, size) = self.tail.pop_front()?;
            self.tail_bytes -= size;
            left_out = Some((left_out.map_or(seq, |(first, _)| first), seq));
        }
        left_out
    }
}

/// Records and chunks for tests, here and in the crates above.
#[cfg(any(test, feature = "test-util"))]
pub mod fixtures {
    use super::{OutputChunk, Run, RunId, RunRecord, RunState, Stream, Timestamp};

    /// A queued run of `uptime` on `pi-1`.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[expect(clippy::unwrap_used, reason = "the ids are literals")]
    pub fn record(limit: u64) -> RunRecord {
        RunRecord {
            run: Run {
                id: RunId::from_parts(1, [1; 10]),
                task: "uptime".parse().unwrap(),
                pi: "pi-1".parse().unwrap(),
                state: RunState::Queued,
                args: pistat_protocol::task::Arguments::new(),
                requested_by: "admin".into(),
                request_id: None,
                group: None,
                created_at: Timestamp::from_unix_milliseconds(0),
                started_at: None,
                finished_at: None,
                exit_code: None,
                reason: None,
                output_bytes: 0,
                dropped_bytes: 0,
            },
            output_limit_bytes: limit,
            expires_milliseconds: 0,
            cancelled_by: None,
            reported: None,
            next_chunk: 0,
            final_chunks: None,
            boot_id: None,
            retained: true,
            ends: pistat_protocol::task::Ends::Exit,
            timeout_milliseconds: 60_000,
            role: None,
            requester: None,
            rotations: 0,
        }
    }

    /// A chunk of standard output.
    pub fn chunk(seq: u64, data: &str, gap: Option<u64>) -> OutputChunk {
        OutputChunk {
            seq,
            stream: Some(Stream::Stdout),
            data: data.into(),
            gap_bytes: gap,
            is_final: false,
            dropped_bytes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        fixtures::{chunk, record},
        *,
    };

    #[test]
    fn output_beyond_the_limit_keeps_its_first_and_its_last_half() {
        let mut record = record(20);
        let mut state = OutputState::new(20);
        let left_out: Vec<_> = (0..10).map(|seq| state.take(&mut record, chunk(seq, "12345", None)).left_out).collect();
        let expected = [
            None,
            None,
            None,
            None,
            Some((2, 2)),
            Some((3, 3)),
            Some((4, 4)),
            Some((5, 5)),
            Some((6, 6)),
            Some((7, 7)),
        ];
        assert_eq!(left_out, expected);
        assert_eq!((record.run.output_bytes, record.run.dropped_bytes), (50, 30));
    }

    #[test]
    fn gaps_count_as_dropped() {
        let mut record = record(1000);
        let mut state = OutputState::new(1000);
        state.take(&mut record, chunk(0, "abc", None));
        let piece = state.take(&mut record, chunk(1, "xyz", Some(100)));
        assert_eq!(piece.start, 103);
        assert_eq!((record.run.output_bytes, record.run.dropped_bytes), (106, 100));
    }

    #[test]
    fn no_number_of_an_agents_becomes_one_that_cannot_be_stored() {
        let mut record = record(1000);
        let mut state = OutputState::new(1000);
        let pieces = [
            state.take(&mut record, chunk(0, "abc", Some(u64::MAX))),
            state.take(&mut record, chunk(1, "abc", Some(u64::MAX))),
        ];
        assert!(state.miss(&mut record, Some(u64::MAX)).is_none(), "there cannot be more");
        let mut other = self::record(1000);
        let missed = OutputState::new(1000).miss(&mut other, Some(u64::MAX)).unwrap();
        for piece in pieces.iter().chain([&missed]) {
            assert!(i64::try_from(piece.start).is_ok(), "{piece:?}");
        }
        assert_eq!((record.run.output_bytes, other.run.dropped_bytes), (MOST_OUTPUT_BYTES, MOST_OUTPUT_BYTES));
        let stored = pieces.iter().map(|piece| (piece.seq, piece.start, 3)).collect();
        let mut again = self::record(1000);
        OutputState::from_stored(&mut again, stored);
        assert_eq!(again.run, record.run);
    }

    #[test]
    fn what_never_arrived_is_counted_and_marked() {
        let mut record = record(1000);
        let mut state = OutputState::new(1000);
        state.take(&mut record, chunk(0, "begin\n", None));
        assert_eq!(state.miss(&mut record, None), None);
        assert_eq!(state.miss(&mut record, Some(6)), None);
        let piece = state.miss(&mut record, Some(10)).unwrap();
        assert_eq!((piece.seq, piece.start, piece.data.as_str()), (1, 10, ""));
        assert_eq!((record.run.output_bytes, record.run.dropped_bytes), (10, 4));
    }

    #[test]
    fn a_restart_goes_on_where_it_was() {
        let (mut before, mut record) = (OutputState::new(20), record(20));
        let mut stored = std::collections::BTreeMap::new();
        for seq in 0..7 {
            let piece = before.take(&mut record, chunk(seq, "12345", None));
            stored.insert(seq, (piece.start, 5));
            if let Some((first, last)) = piece.left_out {
                stored.retain(|seq, _| *seq < first || *seq > last);
            }
        }
        let mut again = self::record(20);
        let stored = stored.into_iter().map(|(seq, (start, bytes))| (seq, start, bytes)).collect();
        let mut after = OutputState::from_stored(&mut again, stored);
        assert_eq!(after.take(&mut again, chunk(7, "12345", None)), before.take(&mut record, chunk(7, "12345", None)));
        assert_eq!(again, record);
    }
}
