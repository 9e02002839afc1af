//! Space of real file systems, and traffic of real disks from `/proc/diskstats` (Linux,
//! Documentation/admin-guide/iostats.rst).
//!
//! Asking a file system for its space may hang for as long as its disk does: each mount has its own
//! thread and deadline, so one hung disk is missing from the sample and the others are there.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pistat_protocol::stats::{Disk, Sample};

use super::{
    counter::{Rates, Reading},
    guarded::{ProbeThread, TimedProbe},
    mounts::{FileSystem, parse_mounts, shown},
    percent,
    source::Source,
};

/// How often space is asked for: it changes slowly.
const SPACE_PERIOD: Duration = Duration::from_secs(30);

/// File systems that take longer are left out.
const SPACE_DEADLINE: Duration = Duration::from_millis(500);

/// How many file systems are asked for their space: each costs a thread for a moment.
const MOST_ASKED: usize = 64;

/// How many file systems a sample carries, so that it stays small: `/` and the fullest.
const MOST_SHOWN: usize = 16;

/// How many names of file systems a line of the log lists.
const MOST_NAMED: usize = 8;

/// Space in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Space {
    total: u64,
    used: u64,
    available: u64,
}

fn space(path: &Path) -> Option<Space> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.checked_mul(stat.f_frsize);
    let total = bytes(stat.f_blocks).filter(|total| *total > 0)?;
    Some(Space { total, used: total.checked_sub(bytes(stat.f_bfree)?)?, available: bytes(stat.f_bavail)? })
}

/// Where a file system is asked for its space.
struct Mount {
    /// Its mount points, the best first.
    points: Vec<Vec<u8>>,
    /// Its space, and which of its mount points answered.
    space: TimedProbe<Option<(usize, Space)>>,
    thread: ProbeThread,
}

impl Mount {
    fn new(points: Vec<Vec<u8>>, space: impl FnMut() -> Option<(usize, Space)> + Send + 'static) -> Self {
        Self { points, space: TimedProbe::new("disk space", space), thread: ProbeThread::default() }
    }

    /// Asks the first mount point that is a folder: a container's files may be mounts of their own,
    /// and are not disks.
    fn of(root: &Path, points: Vec<Vec<u8>>) -> Self {
        let under_root = |point: &Vec<u8>| root.join(OsStr::from_bytes(point.strip_prefix(b"/").unwrap_or(point)));
        let paths: Vec<PathBuf> = points.iter().map(under_root).collect();
        Self::new(points, move || {
            let (index, path) = paths.iter().enumerate().find(|(_, path)| path.is_dir())?;
            space(path).map(|space| (index, space))
        })
    }
}

/// The file systems.
pub(crate) struct FileSystems {
    root: PathBuf,
    table: Source,
    /// By their devices' numbers.
    mounts: BTreeMap<String, Mount>,
    unasked: usize,
    /// Mount points that are not looked at, since their file systems have too many.
    unlooked: usize,
    read_at: Option<Instant>,
    disks: Option<Vec<Disk>>,
    /// Whether the log says that not all are shown.
    is_told: bool,
}

impl FileSystems {
    /// Those of the machine whose `/proc` is under `root`.
    pub(crate) fn new(root: &Path) -> Self {
        let table = Source::with_long_records(root.join("proc/self/mountinfo"));
        let mounts = BTreeMap::new();
        Self {
            root: root.to_owned(),
            table,
            mounts,
            unasked: 0,
            unlooked: 0,
            read_at: None,
            disks: None,
            is_told: false,
        }
    }

    /// Their space, at most half a minute old.
    pub(crate) async fn read(&mut self, now: Instant) -> Option<Vec<Disk>> {
        if self.read_at.is_none_or(|at| now.duration_since(at) >= SPACE_PERIOD) {
            self.read_at = Some(now);
            self.look_for_mounts();
            let (shown, left_out) = choose(self.ask_all().await);
            self.tell(&left_out);
            self.disks = Some(shown).filter(|disks| !disks.is_empty());
        }
        self.disks.clone()
    }

    fn look_for_mounts(&mut self) {
        let mut found = self.table.read_bytes(parse_mounts).unwrap_or_default();
        self.unasked = found.len().saturating_sub(MOST_ASKED);
        found.truncate(MOST_ASKED);
        self.look_at_fewer(&found);
        let is_same = |device: &str, mount: &Mount| {
            found.iter().any(|found| found.device == device && found.points == mount.points)
        };
        self.mounts.retain(|device, mount| is_same(device, mount));
        for FileSystem { device, points, .. } in found {
            self.mounts.entry(device).or_insert_with(|| Mount::of(&self.root, points));
        }
    }

    /// Says when file systems have more mount points than are looked at: if none of those can be
    /// read, the file system is missing.
    fn look_at_fewer(&mut self, found: &[FileSystem]) {
        let count = found.iter().map(|found| found.left_out).sum();
        if count > 0 && self.unlooked == 0 {
            let devices: Vec<_> = found.iter().filter(|found| found.left_out > 0).map(|found| &*found.device).collect();
            tracing::warn!(
                left_out = count,
                "file systems with more mount points than are looked at: their devices are {}",
                devices[..devices.len().min(MOST_NAMED)].join(", ")
            );
        }
        self.unlooked = count;
    }

    async fn ask_all(&mut self) -> Vec<Disk> {
        let mut disks = Vec::with_capacity(self.mounts.len());
        // All at once, each in a thread that ends with its answer, so that several that hang cost
        // no more time than one.
        for Mount { space, thread, .. } in self.mounts.values_mut() {
            space.begin(thread);
            thread.detach();
        }
        let deadline = tokio::time::Instant::now() + SPACE_DEADLINE;
        for Mount { points, space, thread } in self.mounts.values_mut() {
            let answer = space.answer(thread, deadline).await.flatten();
            disks.extend(answer.and_then(|(index, space)| disk(&shown(points.get(index)?), space)));
            thread.detach();
        }
        disks
    }

    /// Says once that not all file systems are shown, and which.
    fn tell(&mut self, left_out: &[Disk]) {
        let count = left_out.len() + self.unasked;
        if count > 0 && !self.is_told {
            let names: Vec<_> = left_out.iter().take(MOST_NAMED).map(|disk| disk.mount.as_str()).collect();
            tracing::warn!(
                left_out = count,
                "this machine has more file systems than a sample carries: `/` and the fullest, {MOST_SHOWN} in all, are shown; the first \
                 that are not: {}",
                names.join(", ")
            );
        }
        self.is_told = count > 0;
    }
}

/// The disks that a sample carries, by their mount points, and the others.
fn choose(mut disks: Vec<Disk>) -> (Vec<Disk>, Vec<Disk>) {
    let by_mount = |a: &Disk, b: &Disk| a.mount.cmp(&b.mount);
    let is_root = |disk: &Disk| disk.mount == "/";
    disks.sort_by(|a, b| {
        is_root(b).cmp(&is_root(a)).then(b.used_percent.total_cmp(&a.used_percent)).then(by_mount(a, b))
    });
    let left_out = disks.split_off(disks.len().min(MOST_SHOWN));
    disks.sort_by(by_mount);
    (disks, left_out)
}

/// In percent of what ordinary users may use, as `df` counts.
fn disk(mount: &str, space: Space) -> Option<Disk> {
    let used_percent = percent(space.used, space.used.checked_add(space.available)?)?;
    Some(Disk { mount: mount.to_owned(), used_bytes: space.used, total_bytes: space.total, used_percent })
}

/// The kernel counts in sectors of this size, whatever the disk's own.
const SECTOR_BYTES: u64 = 512;

/// The bytes of each disk since boot.
fn parse_traffic(text: &str) -> impl Iterator<Item = Reading> + '_ {
    text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let name = fields.next()?;
        let read: u64 = fields.nth(2)?.parse().ok()?;
        let written: u64 = fields.nth(3)?.parse().ok()?;
        let bytes = [read.checked_mul(SECTOR_BYTES)?, written.checked_mul(SECTOR_BYTES)?];
        Some(Reading { name: name.into(), bytes })
    })
}

/// Traffic of the real disks: whole ones only, since a partition's bytes are its disk's too.
#[derive(Debug)]
pub(crate) struct DiskActivity {
    root: PathBuf,
    diskstats: Source,
    rates: Rates,
    kinds: Vec<(Box<str>, bool)>,
}

impl DiskActivity {
    /// Of the machine whose `/proc` and `/sys` are under `root`.
    pub(crate) fn new(root: &Path) -> Self {
        let diskstats = Source::new(root.join("proc/diskstats"));
        Self { root: root.to_owned(), diskstats, rates: Rates::new(), kinds: Vec::new() }
    }

    /// Reads the counters, so that the first sample has something to compare with.
    pub(crate) fn prime(&mut self, now: Instant) {
        let readings = self.read();
        let _ = self.rates.advance(readings, now);
    }

    /// Adds the rates since the last reading. A disk that came, went or was reset in between is not
    /// counted this time.
    pub(crate) fn fill(&mut self, sample: &mut Sample, now: Instant) {
        let readings = self.read();
        let sum = self.rates.advance(readings, now);
        (sample.disk_read_bytes_per_second, sample.disk_write_bytes_per_second) = sum.unzip();
    }

    fn read(&mut self) -> Vec<Reading> {
        let Self { root, diskstats, kinds, .. } = self;
        let mut is_whole = |name: &str| {
            let known = kinds.iter().find(|(known, _)| **known == *name).map(|(_, whole)| *whole);
            known.unwrap_or_else(|| {
                let whole = is_whole_disk(root, name);
                kinds.push((name.into(), whole));
                whole
            })
        };
        let whole_disks = |text: &str| parse_traffic(text).filter(|disk| is_whole(&disk.name)).collect();
        diskstats.read(whole_disks).unwrap_or_default()
    }
}

/// Partitions have no folder in `/sys/block`; loops, memory disks and mappings have no device
/// behind it.
fn is_whole_disk(root: &Path, name: &str) -> bool {
    root.join("sys/block").join(name).join("device").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn disks_that_hang_are_missing_and_the_others_are_there() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let table = "1 0 0:9 / / rw - overlay overlay rw\n2 1 8:1 / /hung rw - ext4 /dev/sda1 rw\n3 1 8:17 / /stuck rw - ext4 /dev/sdb1 rw\n";
        std::fs::write(root.path().join("proc/self/mountinfo"), table).unwrap();
        let mut file_systems = FileSystems::new(root.path());
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Arc::new(std::sync::Mutex::new(held));
        for (device, mount) in [("8:1", "/hung"), ("8:17", "/stuck")] {
            let held = held.clone();
            let hang = move || {
                let _ = held.lock().unwrap().recv();
                Some((0, Space { total: 10, used: 5, available: 5 }))
            };
            file_systems.mounts.insert(device.to_owned(), Mount::new(vec![mount.into()], hang));
        }
        let start = Instant::now();
        let mut names = async |seconds| {
            let disks = file_systems.read(start + Duration::from_secs(seconds)).await.unwrap();
            disks.into_iter().map(|disk| disk.mount).collect::<Vec<_>>()
        };
        assert_eq!(names(0).await, ["/"]);
        assert_eq!(names(60).await, ["/"], "and nobody waits for them again");
        drop(release);
        let mut seconds = 60;
        let all = async {
            loop {
                seconds += 60;
                let names = names(seconds).await;
                if names.len() == 3 {
                    break names;
                }
            }
        };
        let all = tokio::time::timeout(Duration::from_secs(30), all).await.expect("they come back");
        assert_eq!(all, ["/", "/hung", "/stuck"]);
    }

    /// A machine with this table of mounts, and a folder or, where the name ends with `.file`, a
    /// file at each of these points.
    fn machine(table: &[u8], points: &[&[u8]]) -> (tempfile::TempDir, FileSystems) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
        std::fs::write(root.path().join("proc/self/mountinfo"), table).unwrap();
        for point in points {
            let path = root.path().join(OsStr::from_bytes(point));
            if point.ends_with(b".file") {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "").unwrap();
            } else {
                std::fs::create_dir_all(path).unwrap();
            }
        }
        let file_systems = FileSystems::new(root.path());
        (root, file_systems)
    }

    async fn names(file_systems: &mut FileSystems) -> Vec<String> {
        let mut disks = file_systems.read(Instant::now()).await.unwrap_or_default();
        // On a busy machine one may miss its deadline: it is there the next time.
        for later in 1..100 {
            if disks.len() >= file_systems.mounts.len().min(MOST_SHOWN) {
                break;
            }
            let next = file_systems.read(Instant::now() + later * SPACE_PERIOD).await.unwrap_or_default();
            disks = if next.len() > disks.len() { next } else { disks };
        }
        disks.into_iter().map(|disk| disk.mount).collect()
    }

    #[tokio::test]
    async fn files_that_a_container_is_given_are_no_disks_and_do_not_hide_its_volume() {
        let table = b"1 0 0:9 / / rw - overlay overlay rw\n\
            2 1 8:1 /docker/containers/x/hosts /etc/hosts.file rw - ext4 /dev/sda1 rw\n\
            3 1 8:1 /docker/volumes/data/_data /data rw - ext4 /dev/sda1 rw\n\
            4 1 8:17 /resolv.conf /etc/resolv.file rw - ext4 /dev/sdb1 rw\n";
        let (_root, mut file_systems) = machine(table, &[b"etc/hosts.file", b"etc/resolv.file", b"data"]);
        // Of the second device there is only a file: it never answers.
        let mut seen = Vec::new();
        for n in 0..100 {
            let disks = file_systems.read(Instant::now() + n * SPACE_PERIOD).await.unwrap_or_default();
            seen = disks.into_iter().map(|disk| disk.mount).collect();
            if seen.len() >= 2 {
                break;
            }
        }
        assert_eq!(seen, ["/", "/data"]);
    }

    #[tokio::test]
    async fn a_mount_point_that_is_not_utf_8_is_shown_and_is_the_same_each_time() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:17 / /media/caf\xe9\\040x rw - vfat /dev/sdb1 rw\n";
        let (_root, mut file_systems) = machine(table, &[b"media/caf\xe9 x"]);
        for _ in 0..2 {
            assert_eq!(names(&mut file_systems).await, ["/", "/media/caf\\xE9 x"]);
            file_systems.read_at = None;
        }
    }

    #[tokio::test]
    async fn of_many_file_systems_some_are_shown_and_the_log_says_so_once() {
        let log = crate::recorded::Recorded::start();
        let line = |n: usize| format!("{n} 1 8:{n} / /mnt/{n} rw - ext4 /dev/sd{n} rw\n");
        let table = (1..=100).map(line).collect::<String>() + "0 0 8:0 / / rw - ext4 /dev/root rw\n";
        let points: Vec<_> = (1..=100).map(|n| format!("mnt/{n}").into_bytes()).collect();
        let points: Vec<&[u8]> = points.iter().map(Vec::as_slice).collect();
        let (_root, mut file_systems) = machine(table.as_bytes(), &points);
        let names = names(&mut file_systems).await;
        assert_eq!((names.len(), names[0].as_str()), (MOST_SHOWN, "/"));
        assert_eq!(file_systems.mounts.len(), MOST_ASKED);
        let lines = log.take();
        let told: Vec<_> = lines.iter().filter(|line| line.contains("more file systems")).collect();
        assert_eq!(told.len(), 1, "{lines:?}");
        file_systems.read_at = None;
        let _ = file_systems.read(Instant::now()).await;
        assert!(!log.take().iter().any(|line| line.contains("more file systems")), "it is said once");
    }

    #[test]
    fn a_sample_carries_the_root_and_the_fullest() {
        let disk = |n: u8| Disk {
            mount: if n == 0 { "/".into() } else { format!("/mnt/{n:02}") },
            used_bytes: 1,
            total_bytes: 2,
            used_percent: f32::from(n),
        };
        let (shown, left_out) = choose((0..20).map(disk).collect());
        let names = |disks: &[Disk]| disks.iter().map(|disk| disk.mount.clone()).collect::<Vec<_>>();
        assert_eq!(shown.len(), MOST_SHOWN);
        assert_eq!(names(&shown)[..3], ["/", "/mnt/05", "/mnt/06"]);
        assert_eq!(names(&left_out), ["/mnt/04", "/mnt/03", "/mnt/02", "/mnt/01"]);
    }

    #[test]
    fn percent_is_of_what_ordinary_users_may_use() {
        let space = Space { total: 1000, used: 400, available: 500 };
        assert!((disk("/", space).unwrap().used_percent - 44.4).abs() < 0.01);
        assert_eq!(disk("/", Space { total: 0, used: 0, available: 0 }), None);
    }

    #[test]
    fn sectors_become_bytes_of_whole_disks() {
        let text = " 179       0 mmcblk0 100 5 2000 10 200 7 3000 20 0 30 40 0 0 0 0\n 179 1 mmcblk0p1 1 0 8 0 0 0 0 0 0 0 0\n short 1 x 1\n";
        let traffic: Vec<_> = parse_traffic(text).collect();
        assert_eq!(traffic[0], Reading { name: "mmcblk0".into(), bytes: [1_024_000, 1_536_000] });
        assert_eq!(traffic.len(), 2);
    }
}
