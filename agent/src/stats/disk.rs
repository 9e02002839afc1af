//! Space of real file systems, and traffic of real disks from `/proc/diskstats` (Linux, Documentation/admin-guide/iostats.rst).
//!
//! Asking a file system for its space may hang for as long as its disk does: each mount has its own thread and deadline, so one hung
//! disk is missing from the sample and the others are there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pistat_protocol::stats::{Disk, Sample};

use super::{
    guarded::{Guarded, SideThread},
    percent, rate,
    source::Source,
};

/// How often space is asked for: it changes slowly.
const SPACE_PERIOD: Duration = Duration::from_secs(30);

/// File systems that take longer are left out.
const SPACE_DEADLINE: Duration = Duration::from_millis(500);

/// More mounts than this are somebody's test bench; each costs a thread.
const MOST_MOUNTS: usize = 16;

/// File systems on disks, as opposed to those that the kernel makes up.
const REAL_TYPES: [&str; 15] = [
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfsplus", "jfs", "ntfs", "ntfs3", "vfat",
    "xfs", "zfs",
];

/// Space in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Space {
    total: u64,
    used: u64,
    available: u64,
}

/// The mounts that count: one for each device, and `/` whatever it is.
fn parse_mounts(text: &str) -> Vec<String> {
    let mut devices = Vec::new();
    let mut mounts = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(mount), Some(kind)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let real = REAL_TYPES.contains(&kind) && !device.starts_with("/dev/loop") && !devices.contains(&device);
        if (real || mount == "/") && mounts.len() < MOST_MOUNTS {
            devices.push(device);
            mounts.push(unescape(mount));
        }
    }
    mounts.sort();
    mounts.dedup();
    mounts
}

/// Spaces and the like are written as a backslash and three octal digits (fstab(5)).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let escaped = others.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &others[3..];
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn space(path: &Path) -> Option<Space> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.checked_mul(stat.f_frsize);
    let total = bytes(stat.f_blocks).filter(|total| *total > 0)?;
    Some(Space { total, used: total.checked_sub(bytes(stat.f_bfree)?)?, available: bytes(stat.f_bavail)? })
}

/// Who is asked for the space of one mount, and where.
struct Mount {
    space: Guarded<Option<Space>>,
    thread: SideThread,
}

impl Mount {
    fn new(space: impl FnMut() -> Option<Space> + Send + 'static) -> Self {
        Self { space: Guarded::new("disk space", space), thread: SideThread::default() }
    }
}

/// The file systems.
pub(crate) struct FileSystems {
    root: PathBuf,
    table: Source,
    mounts: BTreeMap<String, Mount>,
    read_at: Option<Instant>,
    disks: Option<Vec<Disk>>,
}

impl FileSystems {
    /// Those of the machine whose `/proc` is under `root`.
    pub(crate) fn new(root: &Path) -> Self {
        let table = Source::with_long_records(root.join("proc/self/mounts"));
        Self { root: root.to_owned(), table, mounts: BTreeMap::new(), read_at: None, disks: None }
    }

    /// Their space, at most half a minute old.
    pub(crate) async fn read(&mut self, now: Instant) -> Option<Vec<Disk>> {
        if self.read_at.is_none_or(|at| now.duration_since(at) >= SPACE_PERIOD) {
            self.read_at = Some(now);
            self.look_for_mounts();
            self.disks = self.ask_all().await;
        }
        self.disks.clone()
    }

    fn look_for_mounts(&mut self) {
        let found = self.table.read(parse_mounts).unwrap_or_default();
        self.mounts.retain(|mount, _| found.contains(mount));
        for mount in found {
            let path = self.root.join(mount.trim_start_matches('/'));
            self.mounts.entry(mount).or_insert_with(|| Mount::new(move || space(&path)));
        }
    }

    async fn ask_all(&mut self) -> Option<Vec<Disk>> {
        let mut disks = Vec::with_capacity(self.mounts.len());
        // All at once, each in a thread that ends with its answer, so that several that hang cost no more time than one.
        for Mount { space, thread } in self.mounts.values_mut() {
            space.begin(thread);
            thread.leave();
        }
        let deadline = tokio::time::Instant::now() + SPACE_DEADLINE;
        for (name, Mount { space, thread }) in &mut self.mounts {
            disks.extend(space.answer(thread, deadline).await.flatten().and_then(|space| disk(name, space)));
            thread.leave();
        }
        Some(disks).filter(|disks| !disks.is_empty())
    }
}

/// In percent of what ordinary users may use, as `df` counts.
fn disk(mount: &str, space: Space) -> Option<Disk> {
    let used_percent = percent(space.used, space.used.checked_add(space.available)?)?;
    Some(Disk { mount: mount.to_owned(), used_bytes: space.used, total_bytes: space.total, used_percent })
}

/// Bytes of one disk since boot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Traffic {
    name: Box<str>,
    read: u64,
    written: u64,
}

/// The kernel counts in sectors of this size, whatever the disk's own.
const SECTOR_BYTES: u64 = 512;

fn parse_traffic(text: &str) -> impl Iterator<Item = Traffic> + '_ {
    text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let name = fields.next()?;
        let read: u64 = fields.nth(2)?.parse().ok()?;
        let written: u64 = fields.nth(3)?.parse().ok()?;
        Some(Traffic {
            name: name.into(),
            read: read.checked_mul(SECTOR_BYTES)?,
            written: written.checked_mul(SECTOR_BYTES)?,
        })
    })
}

/// Traffic of the real disks: whole ones only, since a partition's bytes are its disk's too.
#[derive(Debug)]
pub(crate) struct DiskActivity {
    root: PathBuf,
    diskstats: Source,
    before: Vec<Traffic>,
    read_at: Instant,
    kinds: Vec<(Box<str>, bool)>,
}

impl DiskActivity {
    /// Of the machine whose `/proc` and `/sys` are under `root`.
    pub(crate) fn new(root: &Path) -> Self {
        let diskstats = Source::new(root.join("proc/diskstats"));
        Self { root: root.to_owned(), diskstats, before: Vec::new(), read_at: Instant::now(), kinds: Vec::new() }
    }

    /// Reads the counters, so that the first sample has something to compare with.
    pub(crate) fn prime(&mut self, now: Instant) {
        self.before = self.read();
        self.read_at = now;
    }

    /// Adds the rates since the last reading. A disk that came, went or was reset in between is not counted this time.
    pub(crate) fn fill(&mut self, sample: &mut Sample, now: Instant) {
        let (before, elapsed) = (std::mem::take(&mut self.before), now.duration_since(self.read_at));
        self.prime(now);
        let rates = self.before.iter().filter_map(|after| {
            let before = before.iter().find(|traffic| traffic.name == after.name)?;
            Some((rate(before.read, after.read, elapsed)?, rate(before.written, after.written, elapsed)?))
        });
        let sum = rates.reduce(|a, b| (a.0.saturating_add(b.0), a.1.saturating_add(b.1)));
        (sample.disk_read_bytes_per_second, sample.disk_write_bytes_per_second) = sum.unzip();
    }

    fn read(&mut self) -> Vec<Traffic> {
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

/// Partitions have no folder in `/sys/block`; loops, memory disks and mappings have no device behind it.
fn is_whole_disk(root: &Path, name: &str) -> bool {
    root.join("sys/block").join(name).join("device").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_file_systems_count_and_each_once() {
        let text = "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\nproc /proc proc rw 0 0\ntmpfs /run tmpfs rw 0 0\n\
            /dev/mmcblk0p1 /boot/firmware vfat rw 0 0\n/dev/mmcblk0p2 /var/lib/docker ext4 rw 0 0\n\
            /dev/loop0 /snap/core squashfs ro 0 0\n/dev/loop1 /mnt/image ext4 ro 0 0\n\
            /dev/sda1 /media/usb\\040stick exfat rw 0 0\n192.168.0.1:/x /nfs nfs4 rw 0 0\nbroken line\n";
        assert_eq!(parse_mounts(text), ["/", "/boot/firmware", "/media/usb stick"]);
        assert_eq!(parse_mounts("overlay / overlay rw 0 0\noverlay /x overlay rw 0 0\n"), ["/"]);
    }

    #[test]
    fn escapes_that_are_none_stay_as_they_are() {
        for (text, expected) in [("/a\\040b", "/a b"), ("/a\\", "/a\\"), ("/a\\04", "/a\\04"), ("/a\\999", "/a\\999")] {
            assert_eq!(unescape(text), expected);
        }
    }

    #[tokio::test]
    async fn disks_that_hang_are_missing_and_the_others_are_there() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let table = "overlay / overlay rw 0 0\n/dev/sda1 /hung ext4 rw 0 0\n/dev/sdb1 /stuck ext4 rw 0 0\n";
        std::fs::write(root.path().join("proc/self/mounts"), table).unwrap();
        let mut file_systems = FileSystems::new(root.path());
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Arc::new(std::sync::Mutex::new(held));
        for mount in ["/hung", "/stuck"] {
            let held = held.clone();
            let hang = move || {
                let _ = held.lock().unwrap().recv();
                Some(Space { total: 10, used: 5, available: 5 })
            };
            file_systems.mounts.insert(mount.to_owned(), Mount::new(hang));
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
        assert_eq!(traffic[0], Traffic { name: "mmcblk0".into(), read: 1_024_000, written: 1_536_000 });
        assert_eq!(traffic.len(), 2);
    }
}
