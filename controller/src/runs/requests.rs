//! Which requests were made already: whoever repeats one with its id is told of the runs that it made.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use pistat_protocol::dashboard::Run;

use super::Accepted;

/// Two requests of one account with the same id within this time are one.
const REQUEST_MEMORY: Duration = Duration::from_secs(86_400);

/// How many requests are remembered for that: whoever repeats a request does so within seconds, and memory has an end.
pub(super) const REMEMBERED_REQUESTS: usize = 50_000;

/// What was asked with an id, oldest first: by the monotonic clock, since a wall clock that jumps must not make two runs of one request.
#[derive(Default)]
pub(super) struct Requests {
    pub(super) accepted: HashMap<(String, String), Accepted>,
    pub(super) order: VecDeque<(Instant, (String, String))>,
}

impl Requests {
    /// Another run of a request, or the first.
    pub(super) fn remember(&mut self, run: &Run, now: Instant) {
        let Some(request_id) = run.request_id.clone() else { return };
        let key = (run.requested_by.clone(), request_id);
        let accepted = self.accepted.entry(key.clone()).or_insert_with(|| {
            self.order.push_back((now, key));
            Accepted { group: run.group, runs: Vec::new() }
        });
        accepted.runs.push(run.id);
        if self.order.len() > REMEMBERED_REQUESTS {
            self.forget_oldest();
        }
    }

    /// The request never was: its runs could not be stored.
    pub(super) fn forget(&mut self, key: &(String, String)) {
        if self.accepted.remove(key).is_some() {
            self.order.retain(|(_, kept)| kept != key);
        }
    }

    /// Time passes.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= REQUEST_MEMORY) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.accepted.remove(&key);
        }
    }
}
