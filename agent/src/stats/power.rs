//! Power health of a Raspberry Pi: what the firmware tells its own tool, and what the kernel saw.
//!
//! - `vcgencmd get_throttled` is the firmware's own word, also about everything since boot. It
//!   starts a process, so it is asked at most once a minute.
//! - The `rpi_volt` hardware monitor, which the kernel renews every two seconds, says whether the
//!   supply is too low now.
//! - The firmware driver's `get_throttled` in `/sys` is that monitor's last answer kept by the
//!   kernel, which clears the bits of "since boot" each time it asks: a bit that is set is true,
//!   one that is not says nothing. The file is deprecated, and whoever reads it gets a complaint
//!   into the kernel's log: it is read only while the tool is not there, or says nothing (without
//!   `/dev/vcio`, or the right to open it).
//!
//! What this process has seen itself since it started has been since boot too. Where nothing
//! answers, nothing is said; and a board that cannot notice undervoltage does not say that there is
//! none.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pistat_protocol::stats::Power;

use super::{source::Source, temperature::named_entries};

/// No process is started more often than this.
const PROCESS_PERIOD: Duration = Duration::from_secs(60);

/// How often what is missing is looked for.
const LOOK_PERIOD: Duration = Duration::from_secs(60);

/// Where a Pi's own tool may be.
const VCGENCMD: [&str; 2] = ["usr/bin/vcgencmd", "opt/vc/bin/vcgencmd"];

/// Boards without the chip that notices undervoltage, by their model in the device tree.
const NO_DETECTOR: [&str; 2] = ["Zero", "Compute Module"];

/// The bits of what is now; the same are so much further up for since boot.
const NOW: u32 = 0xf;
const SINCE_BOOT: u32 = 16;

/// The power health of this board.
#[derive(Debug)]
pub(crate) struct PowerHealth {
    root: PathBuf,
    sources: Sources,
    looked_at: Instant,
    asked: Option<(Instant, Option<u32>)>,
    /// What has been seen since boot, in the places of [`NOW`].
    seen: u32,
    notices_undervoltage: bool,
}

#[derive(Debug, Default)]
struct Sources {
    vcgencmd: Option<PathBuf>,
    throttled: Option<Source>,
    alarm: Option<Source>,
}

impl Sources {
    /// Looks for those that are missing.
    fn complete(&mut self, root: &Path) {
        let is_alarm = |(path, name): (PathBuf, String)| (name == "rpi_volt").then(|| path.join("in0_lcrit_alarm"));
        let monitors = || named_entries(&root.join("sys/class/hwmon"), "hwmon", "name");
        let find_alarm = || monitors().into_iter().find_map(is_alarm).map(Source::new);
        let find_tool = || VCGENCMD.iter().map(|path| root.join(path)).find(|path| path.exists());
        self.vcgencmd = self.vcgencmd.take().or_else(find_tool);
        self.throttled = self.throttled.take().or_else(|| throttled_file(root).map(Source::new));
        self.alarm = self.alarm.take().or_else(find_alarm);
    }

    fn any(&self) -> bool {
        self.vcgencmd.is_some() || self.throttled.is_some() || self.alarm.is_some()
    }

    fn all(&self) -> bool {
        self.vcgencmd.is_some() && self.throttled.is_some() && self.alarm.is_some()
    }
}

/// What was answered this time.
#[derive(Debug, Clone, Copy, Default)]
struct Answers {
    tool: Option<u32>,
    file: Option<u32>,
    alarm: Option<bool>,
}

impl PowerHealth {
    /// Looks for its sources under `root`; `None` on a machine that has none.
    pub(crate) fn find(root: &Path) -> Option<Self> {
        let mut sources = Sources::default();
        sources.complete(root);
        let model = fs::read_to_string(root.join("proc/device-tree/model")).unwrap_or_default();
        let notices_undervoltage = !NO_DETECTOR.iter().any(|kind| model.contains(kind));
        let looked_at = Instant::now();
        let found = Self { root: root.to_owned(), sources, looked_at, asked: None, seen: 0, notices_undervoltage };
        found.sources.any().then_some(found)
    }

    /// What is known now; `None` when nothing is.
    pub(crate) fn read(&mut self) -> Option<Power> {
        self.read_at(Instant::now())
    }

    fn read_at(&mut self, now: Instant) -> Option<Power> {
        self.look_again(now);
        let tool = self.ask_tool(now);
        let file = self.sources.throttled.as_mut().filter(|_| tool.is_none());
        let file = file.and_then(|file| file.read(parse_bits)?);
        let alarm = self.sources.alarm.as_mut().and_then(|file| file.read(parse_alarm)?);
        self.conclude(Answers { tool, file, alarm })
    }

    /// A monitor's driver may be loaded, and the tool installed, later than this program is
    /// started.
    fn look_again(&mut self, now: Instant) {
        if !self.sources.all() && now.duration_since(self.looked_at) >= LOOK_PERIOD {
            self.looked_at = now;
            self.sources.complete(&self.root);
        }
    }

    fn conclude(&mut self, answers: Answers) -> Option<Power> {
        let Answers { tool, file, alarm } = answers;
        let bits = tool.or(file);
        if bits.is_none() && alarm.is_none() {
            return None;
        }
        let told = bits.unwrap_or(0) | u32::from(alarm == Some(true));
        self.seen |= (told | told >> SINCE_BOOT) & NOW;
        let mut power = bits.map(Power::from_throttled).unwrap_or_default();
        // The tool's word may be a minute old, the monitor's is two seconds.
        power.undervoltage = alarm.or(power.undervoltage);
        // Only the firmware itself can say that something has not been.
        let since_boot = |bit: u32| Some(self.seen & (1 << bit) != 0).filter(|seen| *seen || tool.is_some());
        power.undervoltage_since_boot = since_boot(0);
        power.frequency_capped_since_boot = since_boot(1);
        power.throttled_since_boot = since_boot(2);
        power.temperature_limited_since_boot = since_boot(3);
        power.raw = power.raw.filter(|_| tool.is_some());
        if !self.notices_undervoltage {
            power.undervoltage = power.undervoltage.filter(|low| *low);
            power.undervoltage_since_boot = power.undervoltage_since_boot.filter(|low| *low);
        }
        Some(power)
    }

    fn ask_tool(&mut self, now: Instant) -> Option<u32> {
        let tool = self.sources.vcgencmd.as_ref()?;
        if let Some((at, answer)) = self.asked
            && now.duration_since(at) < PROCESS_PERIOD
        {
            return answer;
        }
        let command =
            Command::new(tool).arg("get_throttled").env_clear().stdin(Stdio::null()).stderr(Stdio::null()).output();
        let answer = command.ok().and_then(|output| parse_bits(std::str::from_utf8(&output.stdout).ok()?));
        self.asked = Some((now, answer));
        answer
    }
}

/// The firmware's device is named differently from board to board; its driver's folder links to it.
fn throttled_file(root: &Path) -> Option<PathBuf> {
    let devices =
        fs::read_dir(root.join("sys/bus/platform/drivers/raspberrypi-firmware")).into_iter().flatten().flatten();
    let files = devices.map(|device| device.path().join("get_throttled"));
    let direct = root.join("sys/devices/platform/soc/soc:firmware/get_throttled");
    files.chain([direct]).find(|file| file.is_file())
}

/// `50005` in `/sys`, `throttled=0x50005` from the tool: hexadecimal both.
fn parse_bits(text: &str) -> Option<u32> {
    let text = text.trim();
    let text = text.strip_prefix("throttled=").unwrap_or(text);
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

fn parse_alarm(text: &str) -> Option<bool> {
    match text.trim() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_hexadecimal_wherever_they_come_from() {
        let cases = [
            ("0\n", Some(0)),
            ("50005\n", Some(0x50005)),
            ("throttled=0x50000\n", Some(0x50000)),
            ("error", None),
            ("", None),
        ];
        for (text, bits) in cases {
            assert_eq!(parse_bits(text), bits, "{text}");
        }
    }

    const FOUR: &str = "Raspberry Pi 4 Model B Rev 1.4\0";

    /// A board with these sources, and where its files are.
    fn board(
        model: &str,
        tool: Option<&str>,
        file: Option<&str>,
        alarm: Option<&str>,
    ) -> (PowerHealth, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        put(&root, "proc/device-tree/model", model);
        if let Some(bits) = tool {
            put(&root, "usr/bin/vcgencmd", &format!("#!/bin/sh\necho x >>\"$0.asked\"\necho throttled=0x{bits}\n"));
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(root.path().join("usr/bin/vcgencmd"), mode).unwrap();
        }
        if let Some(bits) = file {
            put(&root, FILE, bits);
        }
        if let Some(alarm) = alarm {
            put(&root, "sys/class/hwmon/hwmon1/name", "rpi_volt\n");
            put(&root, ALARM, alarm);
        }
        (PowerHealth::find(root.path()).unwrap(), root)
    }

    const FILE: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";
    const ALARM: &str = "sys/class/hwmon/hwmon1/in0_lcrit_alarm";

    fn put(root: &tempfile::TempDir, path: &str, text: &str) {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(model: &str, tool: Option<&str>, file: Option<&str>, alarm: Option<&str>) -> Power {
        let (mut power, _root) = board(model, tool, file, alarm);
        power.read().unwrap()
    }

    #[test]
    fn the_kernels_alarm_tells_of_undervoltage_only() {
        let low = Some(true);
        let power = read(FOUR, None, None, Some("1\n"));
        assert_eq!(power, Power { undervoltage: low, undervoltage_since_boot: low, ..Power::default() });
        assert_eq!(read(FOUR, None, None, Some("0")), Power { undervoltage: Some(false), ..Power::default() });
    }

    #[test]
    fn whether_the_supply_is_low_now_the_alarm_knows_best() {
        for (tool, file, alarm, low) in [
            (None, Some("0"), None, false),
            (None, Some("1"), None, true),
            (None, Some("0"), Some("1"), true),
            (None, Some("50005"), Some("0"), false),
            (Some("0"), None, Some("1"), true),
            (Some("50005"), None, Some("0"), false),
            (Some("50005"), None, None, true),
        ] {
            assert_eq!(read(FOUR, tool, file, alarm).undervoltage, Some(low), "{tool:?} {file:?} {alarm:?}");
        }
    }

    #[test]
    fn that_something_has_not_been_since_boot_is_the_firmwares_word_alone() {
        let since_boot = |power: &Power| {
            [
                power.undervoltage_since_boot,
                power.frequency_capped_since_boot,
                power.throttled_since_boot,
                power.temperature_limited_since_boot,
            ]
        };
        let (yes, no, unknown) = (Some(true), Some(false), None);
        for (tool, file, alarm, expected) in [
            (None, Some("0"), Some("0"), [unknown; 4]),
            (None, Some("50000"), Some("0"), [yes, unknown, yes, unknown]),
            (None, Some("2"), None, [unknown, yes, unknown, unknown]),
            (Some("0"), None, Some("0"), [no; 4]),
            (Some("50000"), None, Some("0"), [yes, no, yes, no]),
            (Some("0"), None, Some("1"), [yes, no, no, no]),
        ] {
            let power = read(FOUR, tool, file, alarm);
            assert_eq!(since_boot(&power), expected, "{tool:?} {file:?} {alarm:?}");
            assert_eq!(power.raw.is_some(), tool.is_some(), "only the firmware's own word is shown raw");
        }
    }

    #[test]
    fn what_was_seen_once_stays_though_the_kernel_forgets_it() {
        let (mut power, root) = board(FOUR, None, Some("50005"), Some("1"));
        assert_eq!(power.read().unwrap().throttled, Some(true));
        put(&root, FILE, "0");
        put(&root, ALARM, "0");
        let later = power.read().unwrap();
        assert_eq!((later.undervoltage, later.throttled), (Some(false), Some(false)));
        assert_eq!((later.undervoltage_since_boot, later.throttled_since_boot), (Some(true), Some(true)));
        assert_eq!((later.frequency_capped_since_boot, later.temperature_limited_since_boot), (None, None));
    }

    #[test]
    fn the_tool_is_asked_once_a_minute_and_the_deprecated_file_not_at_all() {
        let (mut power, root) = board(FOUR, Some("0"), Some("f"), None);
        let asked = || fs::read_to_string(root.path().join("usr/bin/vcgencmd.asked")).unwrap().lines().count();
        for _ in 0..3 {
            assert_eq!(power.read(), Some(Power::from_throttled(0)));
        }
        assert_eq!(asked(), 1);
        power.ask_tool(Instant::now() + PROCESS_PERIOD);
        assert_eq!(asked(), 2);
    }

    #[test]
    fn while_the_tool_fails_the_firmwares_file_speaks() {
        for (script, expected) in [
            ("echo 'VCHI initialization failed' >&2; exit 255", true),
            ("echo 'error=1 error_msg=\"Command not registered\"'", true),
            ("echo throttled=0x0", false),
        ] {
            let (mut power, root) = board(FOUR, Some("0"), Some("4"), Some("0"));
            put(&root, "usr/bin/vcgencmd", &format!("#!/bin/sh\n{script}\n"));
            let health = power.read().unwrap();
            assert_eq!(health.throttled, Some(expected), "{script}");
            assert_eq!((health.undervoltage, health.raw.is_some()), (Some(false), !expected), "{script}");
        }
        let (mut power, root) = board(FOUR, Some("0"), Some("4"), None);
        fs::remove_file(root.path().join("usr/bin/vcgencmd")).unwrap();
        assert_eq!(power.read().unwrap().throttled, Some(true), "it was removed meanwhile");
    }

    #[test]
    fn a_monitor_and_a_tool_that_come_later_are_found_within_a_minute() {
        let (mut power, root) = board(FOUR, None, Some("0"), None);
        let start = Instant::now();
        assert_eq!(power.read_at(start).unwrap().undervoltage, Some(false));
        put(&root, "sys/class/hwmon/hwmon1/name", "rpi_volt\n");
        put(&root, ALARM, "1");
        assert_eq!(power.read_at(start).unwrap().undervoltage, Some(false), "not looked for each time");
        assert_eq!(power.read_at(start + LOOK_PERIOD).unwrap().undervoltage, Some(true));
        put(&root, "usr/bin/vcgencmd", "#!/bin/sh\necho throttled=0x0\n");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(root.path().join("usr/bin/vcgencmd"), mode).unwrap();
        assert!(power.read_at(start + 2 * LOOK_PERIOD).unwrap().raw.is_some());
    }

    #[test]
    fn a_board_that_cannot_notice_undervoltage_does_not_deny_it() {
        for model in ["Raspberry Pi Zero 2 W Rev 1.0\0", "Raspberry Pi Compute Module 4 Rev 1.1\0"] {
            let power = read(model, Some("0"), None, Some("0"));
            assert_eq!((power.undervoltage, power.undervoltage_since_boot), (None, None), "{model}");
            assert_eq!((power.throttled, power.throttled_since_boot), (Some(false), Some(false)), "the rest is known");
            assert_eq!(read(model, Some("50005"), None, None).undervoltage, Some(true), "what it says is believed");
        }
    }

    #[test]
    fn a_board_without_anything_says_nothing() {
        assert!(PowerHealth::find(tempfile::tempdir().unwrap().path()).is_none());
    }
}
