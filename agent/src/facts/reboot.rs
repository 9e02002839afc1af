//! Whether this machine has to be restarted for what was installed.
//!
//! It does where the system says so in a file, and where another kernel than the running one is
//! installed. That it does not is said only where something would write that file: on a plain
//! Raspberry Pi OS nothing does, and its absence says nothing.

use std::{fs, path::Path};

use super::read_text;

/// What writes `/run/reboot-required` when a package asks for it, of which any is enough.
const WRITERS: [&str; 4] = [
    "usr/share/update-notifier/notify-reboot-required",
    "etc/kernel/postinst.d/update-notifier",
    "etc/kernel/postinst.d/unattended-upgrades",
    "etc/kernel/postinst.d/reboot-notifier",
];

/// Whether it does; `None` where that cannot be told.
pub(super) fn is_required(root: &Path) -> Option<bool> {
    if root.join("run/reboot-required").exists() || has_another_kernel(root) {
        return Some(true);
    }
    WRITERS.iter().any(|writer| root.join(writer).exists()).then_some(false)
}

/// Whether the running kernel was replaced: its modules are gone while another's are there, or a
/// newer one of its kind is installed.
fn has_another_kernel(root: &Path) -> bool {
    let Some(running) = read_text(&root.join("proc/sys/kernel/osrelease")) else { return false };
    let folders = fs::read_dir(root.join("lib/modules")).into_iter().flatten().flatten();
    // A kernel that was removed may leave a folder behind, but not this file.
    let installed = folders.filter(|folder| folder.path().join("modules.dep").exists());
    let installed: Vec<_> = installed.filter_map(|folder| folder.file_name().into_string().ok()).collect();
    let gone = !installed.is_empty() && !root.join("lib/modules").join(&running).exists();
    gone || installed.iter().any(|other| is_newer(other, &running))
}

/// Raspberry Pi OS installs several kinds side by side, each for other boards: only the same kind
/// is an update.
fn is_newer(release: &str, than: &str) -> bool {
    let ((release, kind), (than, than_kind)) = (split(release), split(than));
    kind == than_kind && numbers(release) > numbers(than)
}

/// `6.6.31+rpt-rpi-v8` → `6.6.31+rpt`, `-rpi-v8`; `6.1.0-18-amd64` → `6.1.0-18`, `-amd64`.
fn split(release: &str) -> (&str, &str) {
    let is_kind = |at: &usize| !release[at + 1..].starts_with(|next: char| next.is_ascii_digit());
    let at = release.match_indices('-').map(|(at, _)| at).find(is_kind);
    release.split_at(at.unwrap_or(release.len()))
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_kernel_is_one_of_the_same_kind() {
        for (release, than, expected) in [
            ("6.6.51+rpt-rpi-v8", "6.6.31+rpt-rpi-v8", true),
            ("6.12.25+rpt-rpi-v8", "6.6.51+rpt-rpi-v8", true),
            ("6.6.51+rpt-rpi-2712", "6.6.31+rpt-rpi-v8", false),
            ("6.6.31+rpt-rpi-v8", "6.6.31+rpt-rpi-v8", false),
            ("6.6.31+rpt-rpi-v8", "6.6.51+rpt-rpi-v8", false),
            ("6.1.0-25-amd64", "6.1.0-18-amd64", true),
            ("6.1.0-25-cloud-amd64", "6.1.0-18-amd64", false),
            ("5.15.0-1053-raspi", "5.15.0-1049-raspi", true),
            ("6.1.73-v8+", "6.1.21-v8+", true),
            ("6.1.73-v7l+", "6.1.21-v7+", false),
            ("6.1.73+", "6.1.21+", true),
        ] {
            assert_eq!(is_newer(release, than), expected, "{release} {than}");
        }
    }

    #[test]
    fn no_restart_is_needed_only_where_somebody_would_say_so() {
        const SAME: &str = "6.6.31+rpt-rpi-v8";
        let file = |path: &str| path.to_owned();
        let kernel = |release: &str| format!("lib/modules/{release}/modules.dep");
        let cases = [
            (vec![], None),
            (vec![kernel(SAME)], None),
            (vec![kernel(SAME), kernel("6.6.31+rpt-rpi-2712")], None),
            (vec![kernel(SAME), kernel("6.6.51+rpt-rpi-v8")], Some(true)),
            (vec![kernel(SAME), file("lib/modules/6.6.51+rpt-rpi-v8/updates")], None),
            (vec![kernel("6.6.20+rpt-rpi-v8")], Some(true)),
            (vec![file("run/reboot-required")], Some(true)),
            (vec![kernel(SAME), file(WRITERS[2])], Some(false)),
            (vec![file(WRITERS[0]), file("run/reboot-required")], Some(true)),
        ];
        for (files, expected) in cases {
            let root = tempfile::tempdir().unwrap();
            for path in files.iter().map(String::as_str).chain(["proc/sys/kernel/osrelease"]) {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{SAME}\n")).unwrap();
            }
            assert_eq!(is_required(root.path()), expected, "{files:?}");
        }
    }
}
