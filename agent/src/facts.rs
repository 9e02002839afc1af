//! What a machine is: facts that stay for a boot, and facts that are looked up once an hour.
//!
//! The kernel's release and architecture come from sysinfo (once per start, 0.01 ms); the rest is
//! read by hand under a root, so that boards that are not at hand can be tested. The hourly facts
//! may start processes; they run in the background at the lowest priority with a deadline, and
//! package updates are counted again only when the package lists or the installed packages have
//! changed.

mod reboot;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use pistat_protocol::{status::Info, time::Timestamp};

use crate::waiting::Waiting;

/// How often the slow facts are looked up.
pub(crate) const PERIOD: Duration = Duration::from_secs(3600);

/// A Pi Zero needs some ten seconds to simulate an upgrade.
const DEADLINE: Duration = Duration::from_secs(120);

/// More failed units than this are not listed: the number of them would say nothing more.
const MOST_UNITS: usize = 20;

/// Facts that stay for a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub model: Option<String>,
    pub serial: Option<String>,
    pub os: Option<String>,
    pub kernel: Option<String>,
    pub arch: Option<String>,
    pub boot_id: String,
    pub boot_time: Option<Timestamp>,
    pub slow: Slow,
}

/// Facts that are looked up once an hour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slow {
    pub storage_wear_percent: Option<u8>,
    pub updates_pending: Option<u32>,
    pub reboot_required: Option<bool>,
    pub failed_units: Option<Vec<String>>,
    /// When the packages last changed, for the next time.
    packages: Vec<SystemTime>,
}

impl Facts {
    /// Reads what stays for this boot.
    pub(crate) fn read(root: &Path) -> Self {
        let board = |name: &str| read_text(&root.join("proc/device-tree").join(name));
        Self {
            model: board("model").or_else(|| read_text(&root.join("sys/class/dmi/id/product_name"))),
            serial: serial(root),
            os: fs::read_to_string(root.join("etc/os-release")).ok().and_then(|text| parse_os_release(&text)),
            kernel: sysinfo::System::kernel_version().ok(),
            arch: Some(sysinfo::System::cpu_arch()).filter(|arch| !arch.is_empty()),
            boot_id: Self::boot_id(root),
            boot_time: None,
            slow: Slow::default(),
        }
    }

    /// The kernel's id of this boot.
    pub(crate) fn boot_id(root: &Path) -> String {
        read_text(&root.join("proc/sys/kernel/random/boot_id")).unwrap_or_else(|| "unknown".into())
    }

    /// Fixes the time of the boot as soon as the clock can be believed; afterwards it stays,
    /// however the clock jumps.
    pub(crate) fn fix_boot_time(&mut self, synchronized: bool, uptime_seconds: Option<u64>) -> bool {
        let Some(uptime) = uptime_seconds.filter(|_| synchronized && self.boot_time.is_none()) else { return false };
        self.boot_time = SystemTime::now().checked_sub(Duration::from_secs(uptime)).map(Timestamp::from);
        self.boot_time.is_some()
    }

    /// Adds the facts to what is published.
    pub(crate) fn fill(&self, info: &mut Info) {
        info.model.clone_from(&self.model);
        info.serial.clone_from(&self.serial);
        info.os.clone_from(&self.os);
        info.kernel.clone_from(&self.kernel);
        info.arch.clone_from(&self.arch);
        info.boot_time = self.boot_time;
        info.storage_wear_percent = self.slow.storage_wear_percent;
        info.updates_pending = self.slow.updates_pending;
        info.reboot_required = self.slow.reboot_required;
        info.failed_units.clone_from(&self.slow.failed_units);
    }
}

/// The board's serial number: from the device tree, else `/proc/cpuinfo`; a PC's can be read by
/// root only.
pub fn serial(root: &Path) -> Option<String> {
    let from_tree = read_text(&root.join("proc/device-tree/serial-number"));
    let from_cpuinfo = || cpuinfo(&fs::read_to_string(root.join("proc/cpuinfo")).ok()?, "Serial");
    let from_dmi = || read_text(&root.join("sys/class/dmi/id/product_serial"));
    let serial = from_tree.or_else(from_cpuinfo).or_else(from_dmi)?;
    is_serial(&serial).then_some(serial)
}

/// A board without a serial number shows zeros, a virtual machine a word. A board's is hexadecimal,
/// and may have letters only.
fn is_serial(text: &str) -> bool {
    let has_digit = text.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    has_digit || text.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.bytes().any(|byte| byte != b'0')
}

fn cpuinfo(text: &str, field: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_once(':')?.1.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The text of a small file without the NUL or newline at its end.
fn read_text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()).filter(|text| !text.is_empty())
}

fn parse_os_release(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

impl Slow {
    /// Looks everything up, given what was found the last time. While a disk hangs this does not
    /// come back.
    pub(crate) async fn look_up(root: PathBuf, before: Self) -> Self {
        let found = aside({
            let (root, before) = (root.clone(), before.clone());
            move || before.read_files(&root)
        });
        let waiting =
            Waiting::begin("a disk, to look up what changes rarely on this machine; the rest is measured meanwhile");
        let Some(mut found) = found.await else { return before };
        drop(waiting);
        // What could not be counted is tried again.
        if found.packages.is_empty() || found.packages != before.packages || before.updates_pending.is_none() {
            found.updates_pending = count_updates(&root).await;
        }
        found.failed_units = failed_units(&root).await;
        found
    }

    fn read_files(self, root: &Path) -> Self {
        Self {
            storage_wear_percent: storage_wear(root),
            reboot_required: reboot::is_required(root),
            packages: package_times(root),
            ..self
        }
    }
}

/// Does what may hang on a disk in another thread; `None` when that thread failed.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn package_times(root: &Path) -> Vec<SystemTime> {
    let modified = |path: &str| fs::metadata(root.join(path)).and_then(|found| found.modified()).ok();
    ["var/lib/dpkg/status", "var/lib/apt/lists"].into_iter().filter_map(modified).collect()
}

async fn count_updates(root: &Path) -> Option<u32> {
    // Its caches stay in memory, and what it would do is not logged, as it is for root: an idle
    // agent writes nothing to the card.
    let silent = ["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "Dir::Log::Planner="];
    // As the task that installs them: a new kernel is a new package, which a plain upgrade keeps
    // back.
    let upgrade = ["--with-new-pkgs", "upgrade"];
    let words = [&["--simulate", "--quiet=2", "-o", "Debug::NoLocking=1"], &silent[..], &upgrade].concat();
    let text = ReadOnlyCommand::new(&root.join("usr/bin/apt-get"), &words).run().await?;
    u32::try_from(text.lines().filter(|line| line.starts_with("Inst ")).count()).ok()
}

async fn failed_units(root: &Path) -> Option<Vec<String>> {
    if !root.join("run/systemd/system").exists() {
        return None;
    }
    let words = ["list-units", "--state=failed", "--plain", "--no-legend", "--no-pager", "--full"];
    let text = ReadOnlyCommand::new(&root.join("usr/bin/systemctl"), &words).run().await?;
    Some(
        text.lines()
            .filter_map(|line| line.split_ascii_whitespace().next())
            .take(MOST_UNITS)
            .map(str::to_owned)
            .collect(),
    )
}

/// Wear of an eMMC by its own estimate, in steps of ten: `life_time` is "0x01 0x02" for its two
/// kinds of memory (JEDEC JESD84-B51, `EXT_CSD` 268 and 269), 1 for up to 10 %, 11 for more than
/// its life. SD cards tell nothing.
fn storage_wear(root: &Path) -> Option<u8> {
    let disks = fs::read_dir(root.join("sys/block")).into_iter().flatten().flatten();
    let texts = disks.filter_map(|disk| fs::read_to_string(disk.path().join("device/life_time")).ok());
    texts.filter_map(|text| parse_life_time(&text)).max()
}

fn parse_life_time(text: &str) -> Option<u8> {
    let values = text.split_ascii_whitespace().filter_map(|word| u8::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    values.filter(|value| (1..=11).contains(value)).max().map(|tenths| tenths * 10)
}

/// A command that only reads.
#[derive(Debug)]
pub(crate) struct ReadOnlyCommand {
    program: PathBuf,
    words: Vec<String>,
}

impl ReadOnlyCommand {
    /// A command by its full path.
    pub(crate) fn new(program: &Path, words: &[&str]) -> Self {
        Self { program: program.to_owned(), words: words.iter().map(ToString::to_string).collect() }
    }

    /// What it prints; `None` when it is not there, fails, or takes too long.
    ///
    /// While the disk that the program is on hangs, this does not come back: whoever asks must not
    /// ask again before that.
    pub(crate) async fn run(self) -> Option<String> {
        let child = aside(move || self.start()).await??;
        let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        // Nobody waits for it.
        let _ = rustix::process::setpriority_process(pid, 19);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.ok()?.ok()?;
        let said = output.status.success().then_some(output.stdout)?;
        // A list of packages is long: it is not copied where it is text, as it always is.
        Some(String::from_utf8(said).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn start(&self) -> Option<tokio::process::Child> {
        if !self.program.exists() {
            return None;
        }
        tokio::process::Command::new(&self.program)
            .args(&self.words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            // In memory: apt unpacks the signed parts of its lists there.
            .env("TMPDIR", "/dev/shm")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wear_are_read_as_they_are_written() {
        assert_eq!(parse_os_release("NAME=x\nPRETTY_NAME=\"Debian 12\"\n").as_deref(), Some("Debian 12"));
        assert_eq!(
            cpuinfo("Hardware\t: BCM2835\nSerial\t\t: 00000000abcdef01\n", "Serial").as_deref(),
            Some("00000000abcdef01")
        );
        for (text, wear) in [("0x01 0x02\n", Some(20)), ("0x00 0x00", None), ("0x0b 0x01", Some(110)), ("", None)] {
            assert_eq!(parse_life_time(text), wear, "{text}");
        }
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }

    fn write_program(root: &Path, path: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        write(root, path, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn the_hourly_facts_are_those_of_the_system_and_updates_are_counted_only_when_packages_changed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(Slow::look_up(root.to_owned(), Slow::default()).await, Slow::default(), "nothing is known");
        write(root, "sys/block/mmcblk0/device/life_time", "0x03 0x01\n");
        write(root, "sys/block/sda/device/vendor", "x\n");
        write(root, "var/lib/dpkg/status", "");
        write(root, "run/reboot-required", "");
        write(root, "run/systemd/system/marker", "");
        write_program(root, "usr/bin/systemctl", "echo 'nginx.service loaded failed failed A web server'");
        write(root, "usr/share/update-notifier/notify-reboot-required", "");
        let count = "echo x >> \"$(dirname \"$0\")/asked\"; echo 'Inst one'; echo 'Conf one'
            case $* in *--with-new-pkgs*) echo 'Inst two' ;; esac";
        write_program(root, "usr/bin/apt-get", count);
        let shipped = include_str!("../../config/tasks.toml");
        assert!(shipped.contains("\"--with-new-pkgs\", \"upgrade\""), "what is counted is what the task installs");
        let first = Slow::look_up(root.to_owned(), Slow::default()).await;
        assert_eq!((first.storage_wear_percent, first.reboot_required), (Some(30), Some(true)));
        assert_eq!(first.updates_pending, Some(2));
        assert_eq!(first.failed_units.as_deref(), Some(&["nginx.service".to_owned()][..]));
        fs::remove_file(root.join("run/reboot-required")).unwrap();
        write_program(root, "usr/bin/systemctl", "exit 1");
        let second = Slow::look_up(root.to_owned(), first.clone()).await;
        assert_eq!(fs::read_to_string(root.join("usr/bin/asked")).unwrap(), "x\n", "apt was asked once");
        assert_eq!((second.updates_pending, second.reboot_required), (Some(2), Some(false)));
        assert_eq!(second.failed_units, None, "what cannot be told is unknown");
        fs::remove_dir_all(root.join("var/lib/dpkg")).unwrap();
        fs::remove_dir_all(root.join("usr/share")).unwrap();
        fs::remove_file(root.join("usr/bin/apt-get")).unwrap();
        let third = Slow::look_up(root.to_owned(), second).await;
        assert_eq!((third.updates_pending, third.reboot_required), (None, None));
    }

    #[tokio::test]
    async fn a_count_that_failed_is_tried_again_though_no_package_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, "var/lib/dpkg/status", "");
        write_program(root, "usr/bin/apt-get", "exit 100");
        let failed = Slow::look_up(root.to_owned(), Slow::default()).await;
        assert_eq!(failed.updates_pending, None);
        write_program(root, "usr/bin/apt-get", "echo 'Inst one'");
        let again = Slow::look_up(root.to_owned(), failed).await;
        assert_eq!(again.updates_pending, Some(1));
    }

    #[test]
    fn a_serial_number_is_hexadecimal_or_has_digits_and_is_not_nothing() {
        for (text, expected) in [
            ("000000001a2b3c4d", true),
            ("00000000abcdefab", true),
            ("4716BBBK0BC1", true),
            ("0000000000000000", false),
            ("None", false),
            ("Default string", false),
        ] {
            assert_eq!(is_serial(text), expected, "{text}");
        }
    }

    #[test]
    fn the_time_of_the_boot_is_told_only_by_a_synchronised_clock_and_then_stays() {
        let mut facts = Facts::read(Path::new("/nonexistent"));
        assert!(!facts.fix_boot_time(false, Some(10)) && facts.boot_time.is_none());
        assert!(facts.fix_boot_time(true, Some(10)));
        let first = facts.boot_time;
        assert!(!facts.fix_boot_time(true, Some(9999)));
        assert_eq!(facts.boot_time, first);
    }
}
