//! Which file systems there are, and where: from `/proc/self/mountinfo` (proc(5)). Pure.
//!
//! A file system may be mounted at many places, as a whole or a part of it: a container is given
//! single files and folders of its host's disk. Each counts once, by the mount point that shows
//! most of it.

use std::{collections::BTreeMap, fmt::Write};

/// File systems on disks, as opposed to those that the kernel makes up.
const REAL_TYPES: [&str; 15] = [
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfsplus", "jfs", "ntfs", "ntfs3", "vfat",
    "xfs", "zfs",
];

/// How many mount points of one file system are looked at.
const MOST_POINTS: usize = 32;

/// One file system.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// Its device, as `major:minor`.
    pub(super) device: String,
    /// Where it is mounted, the best first: `/`, then what shows the whole of it, then what shows
    /// most.
    pub(super) points: Vec<Vec<u8>>,
    /// How many more mount points it has.
    pub(super) left_out: usize,
}

/// One line of the table.
struct Mount {
    device: String,
    /// How many folders of the file system lie above the part that is shown.
    depth: usize,
    is_real: bool,
}

/// The file systems that count: the real ones, and `/` whatever it is. The one with `/` comes
/// first, the others in the order of the table.
pub(super) fn parse_mounts(table: &[u8]) -> Vec<FileSystem> {
    // What is mounted later at the same point hides the earlier.
    let mut visible: BTreeMap<Vec<u8>, (usize, Mount)> = BTreeMap::new();
    for (order, (point, mount)) in table.split(|byte| *byte == b'\n').filter_map(parse).enumerate() {
        visible.insert(point, (order, mount));
    }
    let mut mounts: Vec<_> = visible.into_iter().filter(|(point, (_, mount))| mount.is_real || point == b"/").collect();
    mounts.sort_by_key(|(point, (order, mount))| (point != b"/", mount.depth, point.len(), *order));
    let mut found: Vec<(usize, FileSystem)> = Vec::new();
    for (point, (order, Mount { device, .. })) in mounts {
        match found.iter_mut().find(|(_, known)| known.device == device) {
            // `/` is a folder: no other is asked.
            Some((_, known)) if known.points[0] == b"/" => {}
            Some((_, known)) if known.points.len() == MOST_POINTS => known.left_out += 1,
            Some((_, known)) => known.points.push(point),
            None => found.push((order, FileSystem { device, points: vec![point], left_out: 0 })),
        }
    }
    found.sort_by_key(|(order, known)| (known.points[0] != b"/", *order));
    found.into_iter().map(|(_, known)| known).collect()
}

/// `id parent major:minor root point options [tags] - type source options`
fn parse(line: &[u8]) -> Option<(Vec<u8>, Mount)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = String::from_utf8_lossy(fields.nth(2)?).into_owned();
    let (root, point) = (fields.next()?, unescape(fields.next()?));
    let depth = root.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).count();
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (rest.next()?, rest.next()?);
    let is_real = REAL_TYPES.iter().any(|real| real.as_bytes() == kind) && !source.starts_with(b"/dev/loop");
    Some((point, Mount { device, depth, is_real }))
}

/// Spaces and the like are written as a backslash and three octal digits (proc(5)).
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
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
    bytes
}

/// A mount point as it is shown: bytes that are not UTF-8, and control characters, as `\xE9`. The
/// same point is always shown the same.
pub(super) fn shown(point: &[u8]) -> String {
    let mut text = String::with_capacity(point.len());
    for chunk in point.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_points(table: &str) -> Vec<String> {
        parse_mounts(table.as_bytes()).iter().map(|found| shown(&found.points[0])).collect()
    }

    #[test]
    fn only_real_file_systems_count_and_each_once() {
        let table = "24 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw\n25 24 0:21 / /proc rw - proc proc rw\n\
            26 24 0:22 / /run rw - tmpfs tmpfs rw\n\
            27 24 179:1 / /boot/firmware rw shared:2 master:1 - vfat /dev/mmcblk0p1 rw\n\
            28 24 179:2 /var/lib/docker /var/lib/docker rw - ext4 /dev/mmcblk0p2 rw\n\
            29 24 7:0 / /snap/core ro - squashfs /dev/loop0 ro\n30 24 7:1 / /mnt/image ro - ext4 /dev/loop1 ro\n\
            31 24 8:1 / /media/usb\\040stick rw - exfat /dev/sda1 rw\n\
            32 24 0:50 / /nfs rw - nfs4 192.168.0.1:/x rw\nbroken line\n";
        assert_eq!(first_points(table), ["/", "/boot/firmware", "/media/usb stick"]);
        let container = "1 0 0:9 / / rw - overlay overlay rw\n2 1 0:10 / /x rw - overlay overlay rw\n";
        assert_eq!(first_points(container), ["/"]);
    }

    #[test]
    fn the_mount_point_that_shows_most_of_a_file_system_is_the_best() {
        let cases = [
            ("the whole before a part", &["/srv/data /data", "/ /mnt/disk"][..], "/mnt/disk"),
            ("a subvolume at / before the others", &["/@home /home", "/@ /"], "/"),
            ("less deep before deeper", &["/docker/volumes/x/_data /data", "/docker /docker"], "/docker"),
            ("the shorter of two of the whole", &["/ /mnt/long", "/ /disk"], "/disk"),
        ];
        for (what, mounts, expected) in cases {
            let line = |mount: &&str| format!("2 1 8:1 {mount} rw - ext4 /dev/sda1 rw\n");
            let table: String = mounts.iter().map(line).collect();
            assert_eq!(first_points(&table), [expected], "{what}");
        }
        let hidden = "2 1 8:1 / /mnt rw - ext4 /dev/sda1 rw\n3 1 8:17 / /mnt rw - ext4 /dev/sdb1 rw\n";
        let found = parse_mounts(hidden.as_bytes());
        assert_eq!(found, [FileSystem { device: "8:17".into(), points: vec![b"/mnt".to_vec()], left_out: 0 }]);
    }

    #[test]
    fn of_many_mount_points_the_best_are_looked_at_and_the_others_counted() {
        let line = |n: usize| format!("2 1 8:1 /parts/{n} /parts/{n:02} rw - ext4 /dev/sda1 rw\n");
        let table: String = (0..40).map(line).collect();
        let found = parse_mounts(format!("{table}3 1 8:2 / /usb rw - ext4 /dev/sdb1 rw\n").as_bytes());
        let counts: Vec<_> = found.iter().map(|found| (found.points.len(), found.left_out)).collect();
        assert_eq!(counts, [(MOST_POINTS, 40 - MOST_POINTS), (1, 0)]);
    }

    #[test]
    fn a_mount_point_is_shown_without_bytes_that_are_no_text() {
        let cases: [(&[u8], &str); 5] = [
            (b"/media/usb stick", "/media/usb stick"),
            ("/media/写真".as_bytes(), "/media/写真"),
            (b"/media/caf\xe9/\xff\xfex", "/media/caf\\xE9/\\xFF\\xFEx"),
            (b"/media/a\nb\x1b[31m\xc2\x9b", "/media/a\\x0Ab\\x1B[31m\\xC2\\x9B"),
            (b"", ""),
        ];
        for (point, expected) in cases {
            assert_eq!(shown(point), expected);
        }
    }

    #[test]
    fn escapes_that_are_none_stay_as_they_are() {
        for (text, expected) in [("/a\\040b", "/a b"), ("/a\\", "/a\\"), ("/a\\04", "/a\\04"), ("/a\\999", "/a\\999")] {
            assert_eq!(unescape(text.as_bytes()), expected.as_bytes());
        }
    }
}
