//! The processes of a run, wherever they went: its process group, everything below its first
//! process, everything that carries its mark.
//!
//! A descendant may leave its group and session and lose its parent. It is then adopted by this
//! process (a child subreaper, prctl(2)) and still carries `PISTAT_RUN_ID` in its environment, by
//! which it is found. One that also wiped its environment is ended with the run that is active
//! alone; it is named as that run's only if it can be no other's. Nothing here asks a process to do
//! anything but end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use pistat_protocol::{id::RunId, text::is_unsafe};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};

/// The variable that marks every process of a run.
pub(crate) const RUN_MARK: &str = "PISTAT_RUN_ID";

/// The runs of this whole process that have a process, or are about to: the kernel's table of
/// children is the process's, not an agent's.
static ACTIVE: Mutex<Active> = Mutex::new(Active { runs: 0, leaders: BTreeSet::new(), is_uncertain: false });

struct Active {
    runs: usize,
    leaders: BTreeSet<i32>,
    /// Whether an unmarked orphan may be of another run than the one that is active: two have been
    /// since it began, or there were orphans before it.
    is_uncertain: bool,
}

fn active() -> MutexGuard<'static, Active> {
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run that has, or is about to have, a process. Dropped when nothing of it is left.
#[derive(Debug)]
pub(crate) struct Presence {
    leader: Option<i32>,
}

impl Presence {
    /// Before the process is started: until it has its mark, it must not be taken for somebody's
    /// orphan.
    pub(crate) fn announce() -> Self {
        let mut active = active();
        active.is_uncertain = active.runs > 0 || has_orphans(&every_process(Path::new("/proc")));
        active.runs += 1;
        Self { leader: None }
    }

    /// The process has been started.
    pub(crate) fn lead_by(&mut self, leader: Option<i32>) {
        self.leader = leader;
        active().leaders.extend(leader);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut active = active();
        active.runs -= 1;
        self.leader.inspect(|leader| _ = active.leaders.remove(leader));
    }
}

/// Adopts the orphans of tasks from now on, instead of leaving them to the system's first process.
pub(crate) fn adopt_orphans() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "orphans of tasks cannot be adopted; those that leave their session are found by their mark only");
    }
}

/// What `/proc/<pid>/stat` says of one process (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: u8,
    parent: i32,
    group: i32,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may itself contain parentheses and spaces: what counts comes after
    // the last one.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some(Stat { state, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

/// Which processes to look for.
#[derive(Debug, Clone)]
pub(crate) struct Kin {
    run: RunId,
    /// The first process, which leads the group; absent after a restart of the agent.
    leader: Option<i32>,
}

impl Kin {
    /// The processes of a run whose first process is known.
    pub(crate) fn of(run: RunId, leader: Option<i32>) -> Self {
        Self { run, leader }
    }

    /// The living processes of the run. The first process itself is among them while it lives.
    pub(crate) fn living(&self) -> Vec<i32> {
        // An unmarked orphan may belong to any run; only when there is no other is it ended with
        // this one.
        self.members(self.leader.is_some() && active().runs == 1)
    }

    /// The names of the living processes that are known to be the run's, without the first process.
    pub(crate) fn names(&self) -> Names {
        let is_certain = {
            let active = active();
            self.leader.is_some() && active.runs == 1 && !active.is_uncertain
        };
        Names::of(self.members(is_certain).into_iter().filter(|pid| Some(*pid) != self.leader))
    }

    fn members(&self, with_orphans: bool) -> Vec<i32> {
        let all = every_process(Path::new("/proc"));
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let own_group = all.get(&own).map_or(own, |stat| stat.group);
        let is_orphan = |stat: &Stat| with_orphans && stat.parent == own && stat.group != own_group;
        let mut members: Vec<i32> = Vec::new();
        for (&pid, stat) in &all {
            if pid != own && self.is_root_of_kin(pid, *stat, is_orphan(stat)) {
                members.push(pid);
            }
        }
        add_descendants(&all, &mut members);
        members.retain(|pid| *pid != own && all.get(pid).is_some_and(|stat| !matches!(stat.state, b'Z' | b'X')));
        members
    }

    fn is_root_of_kin(&self, pid: i32, stat: Stat, is_orphan: bool) -> bool {
        if Some(pid) == self.leader || Some(stat.group) == self.leader {
            return true;
        }
        // Kernel threads and the system's first process have no environment worth reading.
        if pid <= 2 || stat.parent == 2 {
            return false;
        }
        match mark_of(pid) {
            Some(run) => run == self.run,
            None => is_orphan,
        }
    }

    /// Sends a signal to all of them. Returns them, the first process included.
    pub(crate) fn signal(&self, signal: Signal) -> Vec<i32> {
        let living = self.living();
        send(&living, signal);
        living
    }

    /// Asks all of them to end. Returns the names of those that the first process left behind or
    /// had below it.
    pub(crate) fn ask_to_end(&self) -> Names {
        // Before the signal: a process that has ended has no name any more.
        let names = self.names();
        self.signal(Signal::TERM);
        names
    }
}

fn send(pids: &[i32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // One that has ended meanwhile is what we want.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// How many different names a text lists. With at most 15 bytes each (`TASK_COMM_LEN`, proc(5)),
/// the text stays readable.
const MOST_NAMES: usize = 5;

/// The names of processes, as the kernel knows them (`/proc/<pid>/comm`), each with how many have
/// it.
///
/// A process chooses its own name, so control characters, invisible ones, and bytes that are not
/// UTF-8 are replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names(Vec<(String, usize)>);

impl Names {
    /// The names of these processes. One that has ended meanwhile is left out.
    pub(crate) fn of(pids: impl IntoIterator<Item = i32>) -> Self {
        pids.into_iter().filter_map(|pid| fs::read(format!("/proc/{pid}/comm")).ok()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Vec<u8>> for Names {
    fn from_iter<T: IntoIterator<Item = Vec<u8>>>(names: T) -> Self {
        let mut counted: Vec<(String, usize)> = Vec::new();
        for name in names.into_iter().map(|name| readable(name.strip_suffix(b"\n").unwrap_or(&name))) {
            match counted.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => counted.push((name, 1)),
            }
        }
        Self(counted)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, count)) in self.0.iter().take(MOST_NAMES).enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            match count {
                1 => write!(f, "{separator}{name}")?,
                _ => write!(f, "{separator}{name} ({count})")?,
            }
        }
        match self.0.iter().skip(MOST_NAMES).map(|(_, count)| count).sum::<usize>() {
            0 => Ok(()),
            others => write!(f, " and {others} more"),
        }
    }
}

fn readable(name: &[u8]) -> String {
    let shown = |c: char| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c };
    let name: String = String::from_utf8_lossy(name).chars().map(shown).collect();
    if name.trim().is_empty() { "a process without a name".to_owned() } else { name }
}

/// Whether there are processes that this one has adopted.
fn has_orphans(all: &BTreeMap<i32, Stat>) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let own_group = all.get(&own).map_or(own, |stat| stat.group);
    let is_alive = |stat: &Stat| !matches!(stat.state, b'Z' | b'X');
    all.values().any(|stat| stat.parent == own && stat.group != own_group && is_alive(stat))
}

fn every_process(proc: &Path) -> BTreeMap<i32, Stat> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, read_stat(&proc.join(pid.to_string()))?))).collect()
}

fn read_stat(folder: &Path) -> Option<Stat> {
    parse_stat(&String::from_utf8_lossy(&fs::read(folder.join("stat")).ok()?))
}

fn mark_of(pid: i32) -> Option<RunId> {
    let environ = fs::read(PathBuf::from(format!("/proc/{pid}/environ"))).ok()?;
    let value = environ
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(RUN_MARK.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn add_descendants(all: &BTreeMap<i32, Stat>, members: &mut Vec<i32>) {
    let mut next = 0;
    while let Some(&parent) = members.get(next) {
        let known = members.clone();
        let children = all.iter().filter(|(pid, stat)| stat.parent == parent && !known.contains(pid));
        members.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
}

/// Reaps adopted orphans that have ended. First processes of runs are left to whoever waits for
/// them.
///
/// Only processes of other process groups are touched: a child that somebody else in this process
/// started is in ours.
pub(crate) fn reap_orphans() {
    let own_group = rustix::process::getpgrp();
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while let Ok(Some(_)) = rustix::process::waitid(WaitId::All, peek) {
        let Some(pid) = a_dead_orphan(own_group) else { return };
        if !matches!(rustix::process::waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))) {
            return;
        }
    }
}

fn a_dead_orphan(own_group: Pid) -> Option<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let all = every_process(Path::new("/proc"));
    let active = active();
    if active.leaders.len() < active.runs {
        // A first process has been started and is not registered yet: it must not be taken for an
        // orphan. What is dead stays so until the next child ends.
        return None;
    }
    let foreign = |stat: &Stat| stat.parent == own && stat.group != own_group.as_raw_nonzero().get();
    let dead = all.into_iter().find(|(pid, stat)| stat.state == b'Z' && foreign(stat) && !active.leaders.contains(pid));
    Pid::from_raw(dead?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_forge_its_own_line() {
        let cases = [
            ("1234 (sleep) S 1000 1234 1234 0 -1", Some((b'S', 1000, 1234))),
            ("7 (a) R 1 1) Z 3 4 5", Some((b'Z', 3, 4))),
            ("8 (two words) D 2 8 8", Some((b'D', 2, 8))),
            ("9 sleep S 1 1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = parse_stat(text).map(|stat| (stat.state, stat.parent, stat.group));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn names_are_counted_bounded_and_without_control_characters() {
        let cases: [(&[&[u8]], &str); 6] = [
            (&[], ""),
            (&[b"sleep\n"], "sleep"),
            (&[b"sleep\n", b"sh\n", b"sleep\n"], "sleep (2), sh"),
            (
                &[b"a\nb\x1b[31m\n", b"caf\xe9 \xc2\x9b\n", b"\xe2\x80\xaeevil\n"],
                "a\u{fffd}b\u{fffd}[31m, caf\u{fffd} \u{fffd}, \u{fffd}evil",
            ),
            (&[b"\n", b"it's \\ \"quoted\"\n"], "a process without a name, it's \\ \"quoted\""),
            (&[b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"f", b"a"], "a (2), b, c, d, e and 3 more"),
        ];
        for (names, expected) in cases {
            assert_eq!(names.iter().map(|name| name.to_vec()).collect::<Names>().to_string(), expected);
        }
    }

    #[test]
    fn descendants_are_found_at_any_depth() {
        let stat = |parent| Stat { state: b'S', parent, group: 1 };
        let all = BTreeMap::from([(10, stat(1)), (11, stat(10)), (12, stat(11)), (13, stat(12)), (20, stat(1))]);
        let mut members = vec![11];
        add_descendants(&all, &mut members);
        assert_eq!(members, [11, 12, 13]);
    }
}
