//! Which runs a machine was sent: its agent may report on these and on no others.
//!
//! They are those of which the controller has published the order, or whose retained state stands.
//! It clears the states of a machine's older runs, so what is remembered of each machine is a few
//! dozen, and a restart finds it again in the retained messages.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use pistat_protocol::id::RunId;

/// The runs of all machines, by pi-id.
#[derive(Debug, Default)]
pub(super) struct SentRuns(RwLock<HashMap<Box<str>, Vec<RunId>>>);

impl SentRuns {
    pub(super) fn add(&self, machine: &str, run: RunId) {
        let mut runs = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = runs.get_mut(machine) {
            if !known.contains(&run) {
                known.push(run);
            }
        } else {
            runs.insert(machine.into(), vec![run]);
        }
    }

    pub(super) fn remove(&self, machine: &str, run: RunId) {
        let mut runs = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = runs.get_mut(machine) {
            known.retain(|other| *other != run);
            if known.is_empty() {
                runs.remove(machine);
            }
        }
    }

    pub(super) fn contains(&self, machine: &str, run: RunId) -> bool {
        let runs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        runs.get(machine).is_some_and(|known| known.contains(&run))
    }
}
