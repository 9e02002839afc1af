//! What a machine has told that it can measure. Only that is announced, and only a machine that has
//! told everything takes something back.

use pistat_protocol::{
    stats::Sample,
    status::{Info, Session},
};

use super::sensors::{Entity, OF_INFO, OF_SAMPLES};

/// More file systems than this are not announced: a machine with hundreds of mounts would drown its
/// dashboard.
const MAX_MOUNTS: usize = 16;

/// What is known of one machine's abilities. A fleet has thousands of these.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The session whose capabilities are in force.
    session: Option<Session>,
    sampled: bool,
    /// Which of [`OF_SAMPLES`].
    has: [bool; OF_SAMPLES.len()],
    /// In alphabetical order.
    mounts: Vec<String>,
}

impl Known {
    /// Learns from `info`. An agent that has come back and lists what it can is believed anew,
    /// together with its newest sample.
    pub(super) fn info(&mut self, info: &Info, newest: Option<&Sample>) {
        if !info.capabilities.is_empty() && self.session.as_ref() != Some(&info.session) {
            self.session = Some(info.session.clone());
            self.sampled = false;
            self.mounts.clear();
            let can = |capability: &str| info.capabilities.iter().any(|name| name == capability);
            self.has = std::array::from_fn(|index| can(OF_SAMPLES[index].capability));
        }
        if let Some(sample) = newest {
            self.sample(sample);
        }
    }

    /// Learns from a sample; tells whether something was new.
    pub(super) fn sample(&mut self, sample: &Sample) -> bool {
        let mut news = !self.sampled;
        self.sampled = true;
        for (entity, has) in OF_SAMPLES.iter().zip(&mut self.has) {
            if !*has && (entity.seen)(sample) {
                (*has, news) = (true, true);
            }
        }
        for disk in sample.disks.iter().flatten() {
            if self.mounts.len() < MAX_MOUNTS
                && let Err(place) = self.mounts.binary_search(&disk.mount)
            {
                self.mounts.insert(place, disk.mount.clone());
                news = true;
            }
        }
        news
    }

    /// Whether the machine has told all that it can: what it did not name then, it does not have.
    pub(super) fn is_complete(&self) -> bool {
        self.session.is_some() && self.sampled
    }

    /// What its samples tell.
    pub(super) fn entities(&self) -> impl Iterator<Item = &'static Entity<Sample>> {
        OF_SAMPLES.iter().zip(self.has).filter_map(|(entity, has)| has.then_some(entity))
    }

    pub(super) fn mounts(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().map(String::as_str)
    }
}

/// Whether an entity of `info` is announced: it is there now, or was once.
pub(super) fn told_by(info: &Info, key: &str, announced: bool) -> bool {
    announced || OF_INFO.iter().any(|entity| entity.key == key && (entity.seen)(info))
}
