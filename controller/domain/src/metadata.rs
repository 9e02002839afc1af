//! What people give machines: labels, responsibilities, tags and cadences. Pure.

use std::collections::BTreeMap;

use pistat_protocol::id::{PiId, Tag};
use serde::{Deserialize, Serialize};

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
