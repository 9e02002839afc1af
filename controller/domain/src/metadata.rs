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
    /// Those of its tags that an operator gave and no administrator confirmed. They do not count
    /// for a task's `on`. Files of versions before this have none: what they hold counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unconfirmed_tags: Vec<Tag>,
    /// Its cadence in seconds.
    #[serde(default)]
    pub interval_seconds: Option<f64>,
}

/// What people gave machines, as the plain files keep it.
#[derive(Debug, Clone, Default)]
pub struct MachineMetadata {
    /// `labels.json`: renamed machines.
    pub labels: BTreeMap<PiId, String>,
    /// `tasks.json`: assignments.
    pub assignments: BTreeMap<PiId, String>,
    /// `machines.json`: tags and cadence.
    pub settings: BTreeMap<PiId, MachineSettings>,
}

/// A change of what people gave a machine; `None` leaves a part as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetadataPatch {
    /// A new label, or none.
    pub label: Option<Option<String>>,
    /// A new responsibility, or none.
    pub assignment: Option<Option<String>>,
    /// Its tags.
    pub tags: Option<Vec<Tag>>,
    /// Whether new tags need an administrator's confirmation: an operator gives them.
    pub needs_confirmation: bool,
    /// Tags that an administrator or a join token gives, or confirms.
    pub confirmed: Vec<Tag>,
    /// Its cadence, or the agent's own.
    pub interval_seconds: Option<Option<f64>>,
}

impl MetadataPatch {
    /// Takes everything away: the machine is forgotten.
    pub fn forget() -> Self {
        Self {
            label: Some(None),
            assignment: Some(None),
            tags: Some(Vec::new()),
            interval_seconds: Some(None),
            ..Self::default()
        }
    }
}

impl MachineSettings {
    /// A tag keeps its mark until it is taken away or confirmed, whoever changes the others.
    fn tag(&mut self, change: &MetadataPatch) {
        if let Some(tags) = &change.tags {
            let is_new = |tag: &&Tag| change.needs_confirmation && !self.tags.contains(tag);
            self.unconfirmed_tags.extend(tags.iter().filter(is_new).cloned());
            self.tags.clone_from(tags);
        }
        let Self { tags, unconfirmed_tags, .. } = self;
        unconfirmed_tags.retain(|tag| tags.contains(tag) && !change.confirmed.contains(tag));
    }
}

impl MachineMetadata {
    /// Applies a change.
    pub fn apply(&mut self, pi: &PiId, change: &MetadataPatch) {
        set(&mut self.labels, pi, change.label.clone());
        set(&mut self.assignments, pi, change.assignment.clone());
        let settings = self.settings.entry(pi.clone()).or_default();
        settings.tag(change);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_tag_of_an_operator_stays_unconfirmed_until_an_administrator_confirms_it() {
        let (mut given, pi): (_, PiId) = (MachineMetadata::default(), "pi-1".parse().unwrap());
        let operator =
            |names| MetadataPatch { tags: Some(tags(names)), needs_confirmation: true, ..MetadataPatch::default() };
        let administrator = |names| MetadataPatch { tags: Some(tags(names)), ..MetadataPatch::default() };
        let confirm = |names| MetadataPatch { confirmed: tags(names), ..MetadataPatch::default() };
        let story: [(&str, MetadataPatch, &[&str], &[&str]); 8] = [
            ("an administrator's counts", administrator(&["rack"]), &["rack"], &[]),
            ("an operator's does not", operator(&["camera", "rack"]), &["camera", "rack"], &["camera"]),
            (
                "nor by another's change",
                administrator(&["camera", "lab", "rack"]),
                &["camera", "lab", "rack"],
                &["camera"],
            ),
            ("nor given once more", operator(&["camera", "lab", "rack"]), &["camera", "lab", "rack"], &["camera"]),
            ("only that one is confirmed", confirm(&["camera", "none"]), &["camera", "lab", "rack"], &[]),
            ("an operator takes it away", operator(&["rack"]), &["rack"], &[]),
            ("and gives it again", operator(&["camera", "rack"]), &["camera", "rack"], &["camera"]),
            ("it goes with its mark", MetadataPatch::forget(), &[], &[]),
        ];
        for (what, change, all, unconfirmed) in story {
            given.apply(&pi, &change);
            let settings = given.settings.get(&pi).cloned().unwrap_or_default();
            assert_eq!((settings.tags, settings.unconfirmed_tags), (tags(all), tags(unconfirmed)), "{what}");
        }
        assert!(given.settings.is_empty(), "nothing is kept of a machine that has nothing");
    }

    #[test]
    fn a_file_of_an_earlier_version_has_confirmed_tags() {
        let settings: MachineSettings = serde_json::from_str(r#"{"tags":["camera"],"interval_seconds":null}"#).unwrap();
        assert_eq!((settings.tags, settings.unconfirmed_tags), (tags(&["camera"]), Vec::new()));
    }
}
