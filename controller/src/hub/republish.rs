//! What is retained at the broker and may be out of date: published again a little at a time.

use std::collections::{BTreeSet, VecDeque};

use pistat_protocol::{
    dashboard::Run,
    id::{PiId, RunId},
};

/// How many of each are published in a second: those of a large fleet are not a burst.
const A_SECOND: usize = 500;

/// What is to be published again.
#[derive(Default)]
pub(super) struct Republish {
    /// Terminal runs whose retained status must be published again.
    ended: VecDeque<Run>,
    /// Retained topics without a run.
    orphaned: VecDeque<(PiId, RunId)>,
    /// Machines whose own label has changed: published once a second, however often it changes.
    relabelled: BTreeSet<PiId>,
}

impl Republish {
    pub(super) fn ended(&mut self, runs: impl IntoIterator<Item = Run>) {
        self.ended.extend(runs);
    }

    pub(super) fn orphaned(&mut self, pi: PiId, run: RunId) {
        self.orphaned.push_back((pi, run));
    }

    pub(super) fn relabelled(&mut self, pi: PiId) {
        self.relabelled.insert(pi);
    }

    pub(super) fn take_relabelled(&mut self) -> BTreeSet<PiId> {
        std::mem::take(&mut self.relabelled)
    }

    /// As much as is due in this second.
    pub(super) fn due(&mut self) -> (Vec<Run>, Vec<(PiId, RunId)>) {
        let ended = self.ended.drain(..A_SECOND.min(self.ended.len())).collect();
        (ended, self.orphaned.drain(..A_SECOND.min(self.orphaned.len())).collect())
    }
}
