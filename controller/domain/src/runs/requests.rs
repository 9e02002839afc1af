//! Which requests were made already: whoever repeats one with its id is told of the runs that it
//! made.

use std::time::{Duration, Instant};

use hashlink::LinkedHashMap;
use pistat_protocol::id::RunId;

use super::Accepted;
use crate::records::{self, RequestRecord, Requester, RunRecord};

/// Two requests of one account with the same id within this time are one.
const REQUEST_MEMORY: Duration = Duration::from_secs(86_400);

/// How many requests are remembered for that: whoever repeats a request does so within seconds, and
/// memory has an end.
pub(super) const REMEMBERED_REQUESTS: usize = 50_000;

/// How many runs these may have made, all together.
pub(super) const REMEMBERED_RUNS: usize = records::REMEMBERED_RUNS as usize;

/// Whose request it is: an account that was given the name of a removed one does not inherit its
/// requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RequestKey {
    pub(super) requested_by: String,
    /// None in what versions before this kept.
    pub(super) requester: Option<Requester>,
    pub(super) request_id: String,
}

impl RequestKey {
    /// Of a run's request, if that had an id.
    pub(super) fn of(record: &RunRecord) -> Option<Self> {
        let request_id = record.run.request_id.clone()?;
        Some(Self { requested_by: record.run.requested_by.clone(), requester: record.requester.clone(), request_id })
    }
}

/// What was asked with an id, oldest first: by the monotonic clock, since a wall clock that jumps
/// must not make two runs of one request.
#[derive(Default)]
pub(super) struct Requests {
    accepted: LinkedHashMap<RequestKey, (Instant, Accepted)>,
    runs: usize,
}

impl Requests {
    /// What was made of an earlier request with the same id by the same requester.
    pub(super) fn earlier(&self, key: &RequestKey) -> Option<&Accepted> {
        self.accepted.get(key).map(|(_, accepted)| accepted)
    }

    /// Another run of a request, or the first.
    pub(super) fn remember(&mut self, record: &RunRecord, now: Instant) {
        if let Some(key) = RequestKey::of(record) {
            self.add(key, record.run.group, vec![record.run.id], now);
        }
    }

    /// A request of before the start.
    pub(super) fn restore(&mut self, request: RequestRecord, now: Instant) {
        let RequestRecord { requested_by, requester, request_id, group, runs } = request;
        self.add(RequestKey { requested_by, requester, request_id }, group, runs, now);
    }

    fn add(&mut self, key: RequestKey, group: Option<RunId>, runs: Vec<RunId>, now: Instant) {
        self.runs += runs.len();
        let (_, accepted) = self.accepted.entry(key).or_insert_with(|| (now, Accepted { group, runs: Vec::new() }));
        accepted.runs.extend(runs);
        while self.accepted.len() > REMEMBERED_REQUESTS || (self.runs > REMEMBERED_RUNS && self.accepted.len() > 1) {
            self.forget_oldest();
        }
    }

    /// The request never was: its runs could not be stored.
    pub(super) fn forget(&mut self, key: &RequestKey) {
        if let Some((_, accepted)) = self.accepted.remove(key) {
            self.runs -= accepted.runs.len();
        }
    }

    /// Time passes.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while self.accepted.front().is_some_and(|(_, (at, _))| now.saturating_duration_since(*at) >= REQUEST_MEMORY) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, (_, accepted))) = self.accepted.pop_front() {
            self.runs -= accepted.runs.len();
        }
    }

    /// How many requests, and how many runs of them.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.accepted.len(), self.runs)
    }
}
