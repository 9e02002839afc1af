//! The store as the hub uses it: what is being stored, and what follows once it is on the disk.
//!
//! Everything that depends on the disk (replies, acknowledgements, audit lines, retained states) is
//! a [`PendingCommit`] here, and leaves only through [`Commits::finished`].

use std::collections::{HashMap, HashSet};

use super::pending::{PendingCommit, PendingRuns};
use crate::store::{Durability, Store, Ticket, Write, register::RegisterWrite};

/// What is being stored.
pub(super) struct Commits {
    store: Store,
    pending: HashMap<Ticket, PendingCommit>,
    /// Writes of this turn: one commit holds them all.
    writes: Vec<RegisterWrite>,
    /// What follows from them.
    turn: PendingRuns,
    /// The accounts and machines of which a change is being stored. Another is not decided
    /// meanwhile: it would be, on what is out of date.
    changing: HashSet<String>,
}

impl Commits {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            pending: HashMap::new(),
            writes: Vec::new(),
            turn: PendingRuns::default(),
            changing: HashSet::new(),
        }
    }

    /// Stores something by itself; `then` follows.
    pub(super) fn store(&mut self, durability: Durability, write: Write, then: PendingCommit) {
        let ticket = self.store.commit(durability, write);
        self.pending.insert(ticket, then);
    }

    /// Adds to what this turn stores in the register.
    pub(super) fn write(&mut self, write: RegisterWrite) {
        self.writes.push(write);
    }

    /// What follows from this turn's writes.
    pub(super) fn turn(&mut self) -> &mut PendingRuns {
        &mut self.turn
    }

    /// Hands this turn's writes to the store, in one commit. Returns what follows at once, if
    /// nothing is to be written: it may ask for more.
    pub(super) fn end_turn(&mut self) -> Option<PendingRuns> {
        if self.writes.is_empty() {
            return (!self.turn.is_empty()).then(|| std::mem::take(&mut self.turn));
        }
        let (turn, writes) = (std::mem::take(&mut self.turn), std::mem::take(&mut self.writes));
        // A request may be refused while the disk is full; what has happened may not be forgotten.
        let durability = if turn.accepted.is_some() { Durability::Rejectable } else { Durability::Required };
        self.store(durability, Write::Register(writes), PendingCommit::Runs(turn));
        None
    }

    /// What follows from a commit that is over.
    pub(super) fn finished(&mut self, ticket: Ticket) -> Option<PendingCommit> {
        self.pending.remove(&ticket)
    }

    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut PendingCommit> {
        self.pending.get_mut(&ticket)
    }

    /// What waits for the disk.
    pub(super) fn pending(&self) -> impl ExactSizeIterator<Item = &PendingCommit> {
        self.pending.values()
    }

    /// [`Self::pending`], to be added to.
    pub(super) fn pending_mut(&mut self) -> impl Iterator<Item = &mut PendingCommit> {
        self.pending.values_mut()
    }

    /// Whether a change of this account or machine is being stored.
    pub(super) fn is_changing(&self, key: &str) -> bool {
        self.changing.contains(key)
    }

    pub(super) fn begin_change(&mut self, key: String) {
        self.changing.insert(key);
    }

    pub(super) fn end_change(&mut self, key: &str) {
        self.changing.remove(key);
    }

    /// Writes everything that was handed over. Blocks.
    pub(super) fn close(self) {
        self.store.close();
    }
}

#[cfg(test)]
impl Commits {
    pub(super) fn tickets(&self) -> impl Iterator<Item = (Ticket, &PendingCommit)> {
        self.pending.iter().map(|(ticket, pending)| (*ticket, pending))
    }

    pub(super) fn reader(&self) -> crate::store::register::Reader {
        self.store.reader().unwrap()
    }
}
