//! What a machine has told that it can measure. Only that is announced, and only a machine that has told everything takes something back.

use std::collections::BTreeSet;

use pistat_protocol::{
    stats::Sample,
    status::{Info, Session},
};

use super::sensors::{OF_INFO, OF_SAMPLES};

/// More file systems than this are not announced: a machine with hundreds of mounts would drown its dashboard.
const MAX_MOUNTS: usize = 16;

/// What is known of one machine's abilities.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The session whose capabilities are in force.
    session: Option<Session>,
    sampled: bool,
    keys: BTreeSet<&'static str>,
    mounts: BTreeSet<String>,
}

impl Known {
    /// Learns from `info`. An agent that has come back and lists what it can is believed anew, together with its newest sample.
    pub(super) fn info(&mut self, info: &Info, newest: Option<&Sample>) {
        if !info.capabilities.is_empty() && self.session.as_ref() != Some(&info.session) {
            self.session = Some(info.session.clone());
            self.sampled = false;
            self.mounts.clear();
            let can = |capability: &str| info.capabilities.iter().any(|name| name == capability);
            self.keys = OF_SAMPLES.iter().filter(|entity| can(entity.capability)).map(|entity| entity.key).collect();
        }
        if let Some(sample) = newest {
            self.sample(sample);
        }
    }

    /// Learns from a sample; tells whether something was new.
    pub(super) fn sample(&mut self, sample: &Sample) -> bool {
        let mut news = !self.sampled;
        self.sampled = true;
        for entity in &OF_SAMPLES {
            if !self.keys.contains(entity.key) && (entity.seen)(sample) {
                news |= self.keys.insert(entity.key);
            }
        }
        for disk in sample.disks.iter().flatten() {
            if self.mounts.len() < MAX_MOUNTS && !self.mounts.contains(&disk.mount) {
                news |= self.mounts.insert(disk.mount.clone());
            }
        }
        news
    }

    /// Whether the machine has told all that it can: what it did not name then, it does not have.
    pub(super) fn is_complete(&self) -> bool {
        self.session.is_some() && self.sampled
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn mounts(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().map(String::as_str)
    }
}

/// Whether an entity of `info` is announced: it is there now, or was once.
pub(super) fn told_by(info: &Info, key: &str, announced: bool) -> bool {
    announced || OF_INFO.iter().any(|entity| entity.key == key && (entity.seen)(info))
}
