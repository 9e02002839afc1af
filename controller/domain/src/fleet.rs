//! The fleet: what is known of each machine. Pure, no I/O; the hub owns it.
//!
//! A machine exists when it enrolled, when somebody gave it something, when it has an open run, or
//! when it was heard. The label in force is a person's, else the agent's, else the pi-id.

mod boots;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pistat_protocol::{
    dashboard::{Machine, MachineStatus},
    id::{PiId, Tag, Target},
    stats::Sample,
    status::{Availability, INTERVAL_SECONDS, Info, Meta, Settings},
    text::is_unsafe,
    time::Timestamp,
};

use self::boots::Boots;
use crate::{
    catalogue::MachineFacts,
    metadata::{MachineMetadata, MetadataPatch},
    recent::Recent,
};

/// How many samples a machine may send afterwards at once: a day, its last two hours, and some that
/// it repeats.
const LATE_SAMPLES: u32 = 2048;

/// Beyond them, one in this time: an agent's batches come no faster. Each takes a kilobyte and more
/// until it is written, and rewrites a block of the history.
const LATE_PACE: Duration = Duration::from_millis(125);

/// After how many intervals without a sample a connected machine is stale.
const STALE_INTERVALS: f64 = 3.0;

/// The cadence that is assumed of a machine that has not told its own.
const ASSUMED_INTERVAL_SECONDS: f64 = 5.0;

/// The longest label or responsibility, in characters.
pub const MAX_LABEL_CHARACTERS: usize = 80;

/// The most tags of one machine.
pub const MAX_TAGS: usize = 32;

/// A moment by both clocks: the wall's for people, the monotonic one for waiting.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For people.
    pub wall: Timestamp,
    /// For waiting.
    pub monotonic: Instant,
}

impl Now {
    /// This moment.
    pub fn get() -> Self {
        Self { wall: std::time::SystemTime::now().into(), monotonic: Instant::now() }
    }
}

/// What is known of one machine.
#[derive(Debug, Clone)]
struct State {
    availability: Option<Availability>,
    info: Option<Arc<Info>>,
    sample: Option<Arc<Sample>>,
    last_seen: Option<Timestamp>,
    /// When a sample or `online` was last heard, by the monotonic clock.
    heard: Option<Instant>,
    offline_since: Option<Instant>,
    status: MachineStatus,
    recent: Recent,
    /// Uptime and time of the newest live sample of this boot: they place samples of a clock that
    /// was wrong.
    anchor: Option<(u64, Timestamp)>,
    /// When all of [`LATE_SAMPLES`] are taken again.
    late_allowed_at: Option<Instant>,
    boots: Boots,
}

impl State {
    /// When a sample was taken, by the controller's clock.
    fn time_of(&self, sample: &Sample) -> Option<Timestamp> {
        if sample.clock_synchronized {
            return Some(sample.time);
        }
        let (uptime, at) = self.anchor?;
        let age = i64::try_from(uptime.checked_sub(sample.uptime_seconds?)?).ok()?;
        Some(Timestamp::from_unix_milliseconds(at.unix_milliseconds() - age.checked_mul(1000)?))
    }

    fn new(now: Now) -> Self {
        Self {
            availability: None,
            info: None,
            sample: None,
            last_seen: None,
            heard: None,
            offline_since: Some(now.monotonic),
            status: MachineStatus::Offline,
            recent: Recent::default(),
            anchor: None,
            late_allowed_at: None,
            boots: Boots::default(),
        }
    }

    fn interval(&self) -> Duration {
        let told = self.info.as_ref().map_or(ASSUMED_INTERVAL_SECONDS, |info| info.interval_seconds);
        // What a machine tells may be any number; no agent keeps another cadence than these.
        let seconds = told.clamp(*INTERVAL_SECONDS.start(), *INTERVAL_SECONDS.end());
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(5))
    }

    fn status_at(&self, now: Instant) -> MachineStatus {
        if self.availability != Some(Availability::Online) {
            return MachineStatus::Offline;
        }
        let silent = self.heard.map_or(Duration::MAX, |heard| now.saturating_duration_since(heard));
        // One second of grace: a cadence of 0.2 s must not flicker.
        let patience = self.interval().mul_f64(STALE_INTERVALS) + Duration::from_secs(1);
        if silent <= patience { MachineStatus::Online } else { MachineStatus::Stale }
    }
}

/// What became of a message about a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Nobody knew the machine before.
    pub new: bool,
    /// Its status before.
    pub before: MachineStatus,
    /// Its status now.
    pub after: MachineStatus,
}

/// Why people's wish is refused: a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetRefusal {
    /// No such machine.
    #[error("there is no machine {0:?}; `pis` shows the fleet")]
    Unknown(String),
    /// A label that cannot be shown.
    #[error("a label has at most {MAX_LABEL_CHARACTERS} characters and no line breaks or control characters")]
    Label,
    /// A cadence that no agent keeps.
    #[error("an interval is between 0.2 and 3600 seconds")]
    Interval,
    /// Too many tags.
    #[error("a machine has at most {MAX_TAGS} tags")]
    Tags,
    /// A tag is to be confirmed that the machine does not have.
    #[error("{0} does not have the tag @{1}: only a tag that it has can be confirmed")]
    NoSuchTag(PiId, Tag),
    /// A name of another machine.
    #[error("{name:?} is the pi-id of another machine, {owner} (case does not count): choose another name")]
    NameOfMachine {
        /// The name.
        name: String,
        /// Whose it is.
        owner: PiId,
    },
    /// The tag that is not anybody's to have.
    #[error("@all is everyone already: choose another tag")]
    TagOfAll,
}

/// All machines.
#[derive(Debug, Default)]
pub struct Fleet {
    /// Boxed: machines come in the order of their names, which leaves the nodes of the tree half
    /// empty.
    machines: BTreeMap<PiId, Box<State>>,
    given: MachineMetadata,
}

impl Fleet {
    /// The fleet at the start: whoever was given something, and who else is known.
    pub fn new(given: MachineMetadata, known: impl Iterator<Item = PiId>, now: Now) -> Self {
        let named = given.labels.keys().chain(given.assignments.keys()).chain(given.settings.keys()).cloned();
        let machines =
            named.chain(known).chain([PiId::controller()]).map(|pi| (pi, Box::new(State::new(now)))).collect();
        Self { machines, given }
    }

    /// Makes a machine known; tells whether it was new.
    pub fn ensure(&mut self, pi: &PiId, now: Now) -> bool {
        if self.machines.contains_key(pi) {
            return false;
        }
        self.machines.insert(pi.clone(), Box::new(State::new(now)));
        true
    }

    fn change(&mut self, pi: &PiId, now: Now, change: impl FnOnce(&mut State)) -> Heard {
        let new = self.ensure(pi, now);
        let state = self.machines.entry(pi.clone()).or_insert_with(|| Box::new(State::new(now)));
        let before = state.status;
        change(state);
        let after = state.status_at(now.monotonic);
        state.status = after;
        if after == MachineStatus::Offline {
            state.offline_since.get_or_insert(now.monotonic);
        } else {
            state.offline_since = None;
        }
        Heard { new, before, after }
    }

    /// An agent, or its last will, told its availability. A retained word is old: it is believed,
    /// but is not a sign of life.
    pub fn availability(&mut self, pi: &PiId, availability: Availability, retained: bool, now: Now) -> Heard {
        self.change(pi, now, |state| {
            state.availability = Some(availability);
            if availability == Availability::Online {
                state.heard = Some(now.monotonic);
                if !retained {
                    state.last_seen = Some(now.wall);
                }
            }
        })
    }

    /// An agent told what its machine is.
    pub fn info(&mut self, pi: &PiId, mut info: Info, now: Now) -> Heard {
        bound(&mut info);
        // An agent calls its machine what it likes, but not by the name of another.
        let label = info.label.as_deref().map(fit).filter(|label| !label.is_empty());
        info.label = label.filter(|label| !self.is_name_of_another(pi, label));
        // A list grew while it was read, to up to twice its length, and stays for as long as the
        // machine.
        info.capabilities.shrink_to_fit();
        self.change(pi, now, |state| {
            if state.info.as_ref().is_none_or(|before| before.boot_id != info.boot_id) {
                state.anchor = None;
            }
            state.info = Some(Arc::new(info));
        })
    }

    /// What an agent told was live: both machines, in words, if two are alive under this pi-id.
    pub fn twins(&mut self, pi: &PiId) -> Option<String> {
        let State { info, boots, .. } = &mut **self.machines.get_mut(pi)?;
        boots.heard(info.as_ref()?)
    }

    /// An agent sent a sample. A live one is proof that it is connected.
    pub fn sample(&mut self, pi: &PiId, sample: Arc<Sample>, retained: bool, now: Now) -> Heard {
        self.change(pi, now, |state| {
            if retained {
                state.last_seen = state.last_seen.or(Some(sample.time));
            } else {
                state.recent.add(sample.cpu_percent, now.wall);
                state.anchor = sample.uptime_seconds.map(|uptime| (uptime, now.wall));
                state.heard = Some(now.monotonic);
                state.last_seen = Some(now.wall);
            }
            state.sample = Some(sample);
        })
    }

    /// How many of so many samples that a machine sends afterwards are taken.
    pub fn allow_late(&mut self, pi: &PiId, count: usize, now: Now) -> usize {
        let now = now.monotonic;
        let Some(state) = self.machines.get_mut(pi) else { return count.min(LATE_SAMPLES as usize) };
        let full_at = state.late_allowed_at.unwrap_or(now).max(now);
        let room = (LATE_PACE * LATE_SAMPLES).saturating_sub(full_at - now).as_millis() / LATE_PACE.as_millis();
        let allowed = u32::try_from(count).unwrap_or(u32::MAX).min(u32::try_from(room).unwrap_or(0));
        state.late_allowed_at = Some(full_at + LATE_PACE * allowed);
        allowed as usize
    }

    /// An agent sent samples that it had kept. Says when each was taken: by its own time if its
    /// clock was synchronised, else by its uptime, since an agent remembers only what it measured
    /// since its boot.
    pub fn backfill(&mut self, pi: &PiId, samples: Vec<Sample>, now: Now) -> Vec<(Timestamp, Sample)> {
        let mut placed = Vec::new();
        self.change(pi, now, |state| {
            placed = samples.into_iter().filter_map(|sample| Some((state.time_of(&sample)?, sample))).collect();
            placed.retain(|(time, _)| *time <= now.wall);
            for (time, sample) in &placed {
                if let Some(percent) = sample.cpu_percent {
                    state.recent.fill(percent, *time, now.wall);
                }
            }
        });
        placed
    }

    /// The CPU of a machine's last minutes as the history has it, after a start of the controller.
    pub fn fill_recent(&mut self, pi: &PiId, values: &[(Timestamp, f32)], now: Now) {
        if let Some(state) = self.machines.get_mut(pi) {
            for (time, percent) in values {
                state.recent.fill(*percent, *time, now.wall);
            }
        }
    }

    /// Looks again at who is stale; tells whose status changed.
    pub fn tick(&mut self, now: Now) -> Vec<(PiId, MachineStatus)> {
        let mut changed = Vec::new();
        for (pi, state) in &mut self.machines {
            let status = state.status_at(now.monotonic);
            if status != state.status {
                state.status = status;
                changed.push((pi.clone(), status));
            }
        }
        changed
    }

    /// Checks a change that a person wants.
    ///
    /// # Errors
    /// The machine is unknown, or a value is not acceptable.
    pub fn check(&self, pi: &PiId, change: &MetadataPatch) -> Result<(), FleetRefusal> {
        if !self.machines.contains_key(pi) {
            return Err(FleetRefusal::Unknown(pi.to_string()));
        }
        let texts = [&change.label, &change.assignment];
        let unfit = |text: &String| text.chars().count() > MAX_LABEL_CHARACTERS || text.chars().any(is_unsafe);
        if texts.into_iter().flatten().flatten().any(unfit) {
            return Err(FleetRefusal::Label);
        }
        let interval = change.interval_seconds.flatten();
        if interval.is_some_and(|seconds| !INTERVAL_SECONDS.contains(&seconds)) {
            return Err(FleetRefusal::Interval);
        }
        let tags = change.tags.as_deref().unwrap_or_default();
        if tags.iter().any(|tag| tag.as_str() == "all") {
            return Err(FleetRefusal::TagOfAll);
        }
        if tags.len() > MAX_TAGS {
            return Err(FleetRefusal::Tags);
        }
        let own = change.tags.as_deref().unwrap_or_else(|| self.tags(pi));
        if let Some(tag) = change.confirmed.iter().find(|tag| !own.contains(tag)) {
            return Err(FleetRefusal::NoSuchTag(pi.clone(), tag.clone()));
        }
        let label = change.label.iter().flatten().map(String::as_str);
        for name in label.chain(tags.iter().map(Tag::as_str)) {
            if let Some(owner) = self.other_with_id(pi, name) {
                return Err(FleetRefusal::NameOfMachine { name: name.to_owned(), owner: owner.clone() });
            }
        }
        Ok(())
    }

    /// Another machine whose pi-id is this name, without regard to case.
    fn other_with_id(&self, pi: &PiId, name: &str) -> Option<&PiId> {
        let name = name.trim();
        self.ids().find(|other| *other != pi && other.as_str().eq_ignore_ascii_case(name))
    }

    /// Another machine that people know by this pi-id: it is its pi-id, a label that a person gave
    /// it, or a tag that counts, without regard to case. What an agent or an operator's tag says
    /// keeps no machine from its pi-id.
    pub fn other_named(&self, pi: &PiId) -> Option<&PiId> {
        let is_it = |name: &str| name.trim().eq_ignore_ascii_case(pi.as_str());
        let has_name = |other: &PiId| {
            let counts = |tag: &&Tag| !self.unconfirmed_tags(other).contains(tag);
            is_it(other.as_str())
                || self.given.labels.get(other).is_some_and(|label| is_it(label))
                || self.tags(other).iter().filter(counts).any(|tag| is_it(tag.as_str()))
        };
        self.ids().find(|other| *other != pi && has_name(other))
    }

    /// Whether a name is the pi-id, the label or a tag of another machine, without regard to case.
    fn is_name_of_another(&self, pi: &PiId, name: &str) -> bool {
        let is_it = |text: &str| text.trim().eq_ignore_ascii_case(name);
        let has_name = |(other, state): (&PiId, &State)| {
            let label = self.given.labels.get(other).map(String::as_str);
            let label = label.or_else(|| state.info.as_ref()?.label.as_deref());
            is_it(other.as_str()) || label.is_some_and(is_it) || self.tags(other).iter().any(|tag| is_it(tag.as_str()))
        };
        self.machines.iter().any(|(other, state)| other != pi && has_name((other, state)))
    }

    /// The machines that their agents call by a name that something else has now, with that label.
    pub fn calling_themselves(&self, name: &str, owner: Option<&PiId>) -> Vec<(PiId, String)> {
        let label = |state: &State| state.info.as_ref()?.label.clone();
        let all = self.machines.iter().filter(|(pi, _)| Some(*pi) != owner);
        let labels = all.filter_map(|(pi, state)| Some((pi.clone(), label(state)?)));
        labels.filter(|(_, label)| label.eq_ignore_ascii_case(name.trim())).collect()
    }

    /// Does not use any more what an agent calls its machine, until it says so again.
    pub fn drop_label(&mut self, pi: &PiId) {
        let info = self.machines.get_mut(pi).and_then(|state| state.info.as_mut());
        if let Some(info) = info {
            Arc::make_mut(info).label = None;
        }
    }

    /// Applies a change that is stored.
    pub fn give(&mut self, pi: &PiId, change: &MetadataPatch) {
        self.given.apply(pi, change);
    }

    /// Forgets a machine.
    pub fn forget(&mut self, pi: &PiId) {
        self.given.apply(pi, &MetadataPatch::forget());
        self.machines.remove(pi);
    }

    /// Whether a machine is known.
    pub fn contains(&self, pi: &PiId) -> bool {
        self.machines.contains_key(pi)
    }

    /// How many machines are known.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Whether none is known: never, since the controller's own is.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// The pi-ids of all machines.
    pub fn ids(&self) -> impl Iterator<Item = &PiId> {
        self.machines.keys()
    }

    /// The machines that a target means; none for a tag that nobody has.
    pub fn resolve(&self, target: &Target) -> Vec<PiId> {
        match target {
            Target::Pi(pi) => self.machines.contains_key(pi).then(|| pi.clone()).into_iter().collect(),
            Target::Tag(tag) => self.ids().filter(|pi| self.tags(pi).contains(tag)).cloned().collect(),
            Target::All => self.ids().cloned().collect(),
        }
    }

    /// A machine's tags.
    pub fn tags(&self, pi: &PiId) -> &[Tag] {
        self.given.settings.get(pi).map_or(&[], |settings| &settings.tags)
    }

    /// Those of its tags that an operator gave and no administrator confirmed.
    pub fn unconfirmed_tags(&self, pi: &PiId) -> &[Tag] {
        self.given.settings.get(pi).map_or(&[], |settings| &settings.unconfirmed_tags)
    }

    /// The label in force.
    pub fn label(&self, pi: &PiId) -> String {
        let own = || self.machines.get(pi).and_then(|state| state.info.as_ref()).and_then(|info| info.label.clone());
        let text = self.given.labels.get(pi).cloned().or_else(own).filter(|label| !label.trim().is_empty());
        text.map_or_else(|| pi.to_string(), |text| fit(&text))
    }

    /// What `meta` says.
    pub fn meta(&self, pi: &PiId) -> Meta {
        Meta {
            label: self.label(pi),
            assignment: self.given.assignments.get(pi).cloned(),
            tags: self.tags(pi).to_vec(),
        }
    }

    /// What `settings` says.
    pub fn settings(&self, pi: &PiId) -> Settings {
        Settings { interval_seconds: self.given.settings.get(pi).and_then(|settings| settings.interval_seconds) }
    }

    /// How a machine stands.
    pub fn status(&self, pi: &PiId) -> Option<MachineStatus> {
        self.machines.get(pi).map(|state| state.status)
    }

    /// What a machine is.
    pub fn machine_info(&self, pi: &PiId) -> Option<&Info> {
        self.machines.get(pi)?.info.as_deref()
    }

    /// What decides which tasks a machine can run.
    pub fn facts<'a>(&'a self, pi: &'a PiId) -> MachineFacts<'a> {
        let info = self.machine_info(pi);
        MachineFacts {
            pi,
            tags: self.tags(pi),
            unconfirmed_tags: self.unconfirmed_tags(pi),
            policy: info.map(|info| info.execution_policy),
            listed: info.and_then(|info| info.listed_tasks.as_deref()),
            runner: info.map(|info| info.runner),
        }
    }

    /// A machine's newest sample.
    pub fn machine_sample(&self, pi: &PiId) -> Option<&Sample> {
        self.machines.get(pi)?.sample.as_deref()
    }

    /// Since when a machine is not connected.
    pub fn offline_since(&self, pi: &PiId) -> Option<Instant> {
        self.machines.get(pi)?.offline_since
    }
    /// A machine as everybody sees it; without its sample for the feed, which sends that apart.
    /// What it cannot run is added by the hub, which has the catalogue.
    pub fn machine(&self, pi: &PiId, with_sample: bool, now: Now) -> Option<Machine> {
        let state = self.machines.get(pi)?;
        Some(Machine {
            id: pi.clone(),
            label: self.label(pi),
            status: state.status,
            last_seen: state.last_seen,
            assignment: self.given.assignments.get(pi).cloned(),
            tags: self.tags(pi).to_vec(),
            interval_seconds: self.settings(pi).interval_seconds,
            info: state.info.clone(),
            stats: with_sample.then(|| state.sample.clone()).flatten(),
            recent_cpu_percent: if with_sample { state.recent.percents(now.wall) } else { Vec::new() },
            cannot_run: Vec::new(),
        })
    }

    /// All machines as everybody sees them, by id, the controller's own first.
    pub fn machines(&self, now: Now) -> Vec<Machine> {
        let mut machines: Vec<_> = self.ids().filter_map(|pi| self.machine(pi, true, now)).collect();
        machines.sort_by_key(|machine| !machine.id.is_controller());
        machines
    }
}

/// The longest text of an `info` that is kept, in characters, and the most entries of a list: more
/// than any agent says.
const MOST_INFO_CHARACTERS: usize = 200;
const MOST_INFO_ENTRIES: usize = 256;

/// Cuts what a machine tells to what is kept of it, so that one machine takes no more memory than
/// is meant for one.
fn bound(info: &mut Info) {
    let Info { label, model, serial, os, kernel, arch, agent_version, boot_id, last_order_refused, .. } = info;
    for text in [label, model, serial, os, kernel, arch, last_order_refused].into_iter().flatten() {
        shorten(text);
    }
    shorten(agent_version);
    shorten(boot_id);
    info.known_runs.truncate(MOST_INFO_ENTRIES);
    let lists = [Some(&mut info.capabilities), info.failed_units.as_mut()];
    for list in lists.into_iter().flatten() {
        list.truncate(MOST_INFO_ENTRIES);
        list.iter_mut().for_each(shorten);
    }
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MOST_INFO_CHARACTERS) {
        text.truncate(end);
        text.shrink_to_fit();
    }
}

/// The most file systems and processor cores of a sample that are kept.
const MOST_DISKS: usize = 64;
const MOST_CORES: usize = 1024;

/// Cuts a sample to what is kept of it.
pub fn bound_sample(sample: &mut Sample) {
    if let Some(disks) = &mut sample.disks {
        disks.truncate(MOST_DISKS);
        for disk in disks {
            shorten(&mut disk.mount);
        }
    }
    if let Some(cores) = &mut sample.cpu_cores_percent {
        cores.truncate(MOST_CORES);
    }
    if let Some(raw) = sample.power.as_mut().and_then(|power| power.raw.as_mut()) {
        shorten(raw);
    }
}

/// A label as it is shown.
fn fit(text: &str) -> String {
    text.trim().chars().filter(|c| !is_unsafe(*c)).take(MAX_LABEL_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pi(text: &str) -> PiId {
        text.parse().unwrap()
    }

    fn later(now: Now, seconds: u64) -> Now {
        let wall = now.wall.unix_milliseconds() + i64::try_from(seconds).unwrap() * 1000;
        Now { wall: Timestamp::from_unix_milliseconds(wall), monotonic: now.monotonic + Duration::from_secs(seconds) }
    }

    fn fleet(now: Now) -> Fleet {
        Fleet::new(MachineMetadata::default(), [pi("pi-1")].into_iter(), now)
    }

    fn info(label: &str) -> Info {
        let json = format!(
            r#"{{"label":"{label}","agent_version":"0.1.0","boot_id":"b","session":"{}","execution_policy":"controller","runner":false,"interval_seconds":5}}"#,
            "a".repeat(32)
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn samples_of_a_clock_that_was_wrong_are_placed_by_their_uptime() {
        let start = Now::get();
        let mut fleet = fleet(start);
        let sample = |uptime, synchronized| Sample {
            uptime_seconds: Some(uptime),
            ..Sample::new(Timestamp::from_unix_milliseconds(86_400_000), synchronized, uptime)
        };
        let places = |fleet: &mut Fleet, samples: Vec<Sample>| -> Vec<i64> {
            let placed = fleet.backfill(&pi("pi-1"), samples, start);
            placed.iter().map(|(time, _)| start.wall.unix_milliseconds() - time.unix_milliseconds()).collect()
        };
        assert_eq!(places(&mut fleet, vec![sample(40, false)]), [0_i64; 0], "nothing says when that was");
        fleet.info(&pi("pi-1"), info("Shed"), start);
        fleet.sample(&pi("pi-1"), sample(30_000, false).into(), false, start);
        // Six hours ago, now, and in the future, which cannot be.
        let kept = vec![sample(30_000 - 21_600, false), sample(30_000, false), sample(30_001, false)];
        assert_eq!(places(&mut fleet, kept), [21_600_000, 0]);
        let day_two = start.wall.unix_milliseconds() - 86_400_000;
        assert_eq!(places(&mut fleet, vec![sample(7, true)]), [day_two], "its own time counts");
        // Another boot: what was measured before it has no place.
        let again = Info { boot_id: "c".into(), ..info("Shed") };
        fleet.info(&pi("pi-1"), again, start);
        assert_eq!(places(&mut fleet, vec![sample(8_400, false)]), [0_i64; 0]);
    }

    #[test]
    fn a_machine_sends_a_day_at_once_and_then_no_faster_than_an_agent_does() {
        let (start, machine) = (Now::get(), pi("pi-1"));
        let mut fleet = fleet(start);
        let day = 24 * 60 + 124;
        assert_eq!(fleet.allow_late(&machine, day, start), day);
        assert_eq!(fleet.allow_late(&machine, 1_000_000, start), 2048 - day);
        assert_eq!(fleet.allow_late(&machine, 1_000_000, start), 0);
        assert_eq!(fleet.allow_late(&machine, 1_000_000, later(start, 10)), 80);
        assert_eq!(fleet.allow_late(&machine, day, later(start, 3600)), day);
        assert_eq!(fleet.allow_late(&pi("pi-9"), 10, start), 10);
    }

    #[test]
    fn a_machine_goes_online_stale_and_offline() {
        let start = Now::get();
        let mut fleet = fleet(start);
        assert_eq!(fleet.status(&pi("pi-1")), Some(MachineStatus::Offline));
        let heard = fleet.availability(&pi("pi-1"), Availability::Online, false, start);
        assert_eq!((heard.new, heard.before, heard.after), (false, MachineStatus::Offline, MachineStatus::Online));
        fleet.sample(&pi("pi-1"), Sample::new(start.wall, true, 0).into(), false, later(start, 10));
        assert!(fleet.tick(later(start, 20)).is_empty());
        assert_eq!(fleet.tick(later(start, 30)), [(pi("pi-1"), MachineStatus::Stale)]);
        let heard = fleet.availability(&pi("pi-1"), Availability::Offline, false, later(start, 31));
        assert_eq!((heard.before, heard.after), (MachineStatus::Stale, MachineStatus::Offline));
        assert_eq!(fleet.offline_since(&pi("pi-1")), Some(later(start, 31).monotonic));
    }

    #[test]
    fn a_cadence_that_no_agent_keeps_is_taken_for_the_nearest_that_one_does() {
        let start = Now::get();
        for (told, fresh, silent) in [(1e19, 3600.0 * 3.0, 3600.0 * 3.0 + 2.0), (-1e300, 1.0, 2.0), (0.0, 1.0, 2.0)] {
            let mut fleet = fleet(start);
            fleet.info(&pi("pi-1"), Info { interval_seconds: told, ..info("Rack") }, start);
            fleet.availability(&pi("pi-1"), Availability::Online, false, start);
            let after = |seconds: f64| Now { monotonic: start.monotonic + Duration::from_secs_f64(seconds), ..start };
            assert!(fleet.tick(after(fresh)).is_empty(), "{told}");
            assert_eq!(fleet.tick(after(silent)), [(pi("pi-1"), MachineStatus::Stale)], "{told}");
        }
    }

    #[test]
    fn a_machine_that_is_heard_becomes_known() {
        let now = Now::get();
        let mut fleet = fleet(now);
        assert!(fleet.availability(&pi("new"), Availability::Online, false, now).new);
        assert!(fleet.contains(&pi("new")));
    }

    #[test]
    fn the_agents_label_counts_until_somebody_renames() {
        let now = Now::get();
        let mut fleet = fleet(now);
        assert_eq!(fleet.label(&pi("pi-1")), "pi-1");
        fleet.info(&pi("pi-1"), info("Rack"), now);
        assert_eq!(fleet.label(&pi("pi-1")), "Rack");
        fleet.give(&pi("pi-1"), &MetadataPatch { label: Some(Some("Garage".into())), ..MetadataPatch::default() });
        fleet.info(&pi("pi-1"), info("Other"), now);
        assert_eq!(fleet.label(&pi("pi-1")), "Garage");
        fleet.give(&pi("pi-1"), &MetadataPatch { label: Some(None), ..MetadataPatch::default() });
        assert_eq!(fleet.label(&pi("pi-1")), "Other");
    }

    #[test]
    fn labels_that_would_deceive_are_refused_or_cleaned() {
        let now = Now::get();
        let mut fleet = fleet(now);
        let label = |text: &str| MetadataPatch { label: Some(Some(text.into())), ..MetadataPatch::default() };
        for bad in ["a\nb", "\u{1b}[31m", "\u{202e}abc", &"x".repeat(81)] {
            assert_eq!(fleet.check(&pi("pi-1"), &label(bad)), Err(FleetRefusal::Label), "{bad:?}");
        }
        assert_eq!(fleet.check(&pi("pi-1"), &label("Garage Döör 🚪")), Ok(()));
        assert_eq!(fleet.check(&pi("nobody"), &label("a")), Err(FleetRefusal::Unknown("nobody".into())));
        let tags = |names: &[&str]| MetadataPatch {
            tags: Some(names.iter().map(|name| name.parse().unwrap()).collect()),
            ..MetadataPatch::default()
        };
        assert_eq!(fleet.check(&pi("pi-1"), &tags(&["camera"])), Ok(()));
        assert_eq!(fleet.check(&pi("pi-1"), &tags(&["all"])), Err(FleetRefusal::TagOfAll));
        assert_eq!(fleet.check(&pi("pi-1"), &tags(&["x"; 33])), Err(FleetRefusal::Tags));
        fleet.info(&pi("pi-1"), info("a\\u001bb"), now);
        assert_eq!(fleet.label(&pi("pi-1")), "ab");
    }

    #[test]
    fn the_name_of_one_machine_is_no_name_of_another() {
        let now = Now::get();
        let mut fleet = fleet(now);
        let label = |text: &str| MetadataPatch { label: Some(Some(text.into())), ..MetadataPatch::default() };
        let tags = |tag: &str| MetadataPatch { tags: Some(vec![tag.parse().unwrap()]), ..MetadataPatch::default() };
        fleet.ensure(&pi("Garage"), now);
        let taken = |name: &str| Err(FleetRefusal::NameOfMachine { name: name.into(), owner: pi("Garage") });
        for name in ["Garage", "garage", "GARAGE"] {
            assert_eq!(fleet.check(&pi("pi-1"), &label(name)), taken(name));
        }
        assert_eq!(fleet.check(&pi("pi-1"), &tags("garage")), taken("garage"));
        // Its own name is its own to have.
        assert_eq!(fleet.check(&pi("Garage"), &label("garage")), Ok(()));
        assert_eq!(fleet.check(&pi("Garage"), &tags("garage")), Ok(()));
        // What an agent calls its machine counts only if no other has that pi-id.
        fleet.info(&pi("pi-1"), info("GARAGE"), now);
        assert_eq!(fleet.label(&pi("pi-1")), "pi-1");
        // And whoever comes later has no pi-id that is a label or a tag already.
        fleet.info(&pi("pi-1"), info("Rack"), now);
        fleet.give(&pi("Garage"), &label("Attic"));
        fleet.give(&pi("pi-1"), &tags("camera"));
        for (name, owner) in [("ATTIC", "Garage"), ("Camera", "pi-1"), ("PI-1", "pi-1")] {
            assert_eq!(fleet.other_named(&pi(name)), Some(&pi(owner)), "{name}");
        }
        // But not what an agent says alone.
        assert_eq!(fleet.other_named(&pi("rack")), None);
        assert_eq!(fleet.other_named(&pi("pi-1")), None);
        assert_eq!(fleet.other_named(&pi("pi-9")), None);
    }

    #[test]
    fn what_a_machine_tells_of_itself_takes_no_more_room_than_is_meant_for_one() {
        let now = Now::get();
        let mut fleet = fleet(now);
        let long = "ü".repeat(10_000);
        let mut told = info(&long);
        told.capabilities = vec![long.clone(); 1000];
        told.failed_units = Some(vec![long.clone(); 1000]);
        told.known_runs = vec![pistat_protocol::id::RunId::from_parts(1, [1; 10]); 1000];
        told.os = Some(long);
        fleet.info(&pi("pi-1"), told, now);
        let bytes = serde_json::to_string(fleet.machine_info(&pi("pi-1")).unwrap()).unwrap().len();
        assert!((50_000..250_000).contains(&bytes), "{bytes}");
        let mut sample = Sample::new(now.wall, true, 0);
        sample.cpu_cores_percent = Some(vec![1.0; 100_000]);
        bound_sample(&mut sample);
        assert_eq!(sample.cpu_cores_percent.map(|cores| cores.len()), Some(MOST_CORES));
    }

    #[test]
    fn a_tag_that_nobody_has_means_nobody() {
        let now = Now::get();
        let mut fleet = fleet(now);
        assert!(fleet.resolve(&"@camera".parse().unwrap()).is_empty());
        fleet.give(
            &pi("pi-1"),
            &MetadataPatch { tags: Some(vec!["camera".parse().unwrap()]), ..MetadataPatch::default() },
        );
        assert_eq!(fleet.resolve(&"@camera".parse().unwrap()), [pi("pi-1")]);
        assert_eq!(fleet.resolve(&Target::All), [pi("controller"), pi("pi-1")]);
        assert!(fleet.resolve(&"nobody".parse().unwrap()).is_empty());
    }

    #[test]
    fn retained_words_are_believed_but_are_no_sign_of_life() {
        let now = Now::get();
        let mut fleet = fleet(now);
        let old = Sample::new(Timestamp::from_unix_milliseconds(5), true, 0);
        fleet.sample(&pi("pi-1"), old.into(), true, now);
        let machine = fleet.machine(&pi("pi-1"), true, now).unwrap();
        assert_eq!(
            (machine.status, machine.last_seen),
            (MachineStatus::Offline, Some(Timestamp::from_unix_milliseconds(5)))
        );
        assert!(machine.recent_cpu_percent.is_empty());
    }
}
