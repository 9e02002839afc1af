//! Power health of a Raspberry Pi: the firmware's throttle bits, or at least the kernel's undervoltage alarm.
//!
//! In this order: the firmware driver's `get_throttled` in `/sys` (Raspberry Pi's kernel), `vcgencmd get_throttled` at most once a minute, since
//! it starts a process, and the `rpi_volt` hardware monitor (undervoltage only). The file in `/sys` has been seen stuck at 0, so a 0 of its own
//! needs the monitor's or the tool's word beside it where there is one. Where nothing answers, nothing is said; and a board that cannot notice
//! undervoltage does not say that there is none.

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

/// Where a Pi's own tool may be.
const VCGENCMD: [&str; 2] = ["usr/bin/vcgencmd", "opt/vc/bin/vcgencmd"];

/// Boards without the chip that notices undervoltage, by their model in the device tree.
const NO_DETECTOR: [&str; 2] = ["Zero", "Compute Module"];

/// The power health of this board.
#[derive(Debug)]
pub(crate) struct PowerHealth {
    throttled: Option<Source>,
    alarm: Option<Source>,
    vcgencmd: Option<PathBuf>,
    asked: Option<(Instant, Option<u32>)>,
    notices_undervoltage: bool,
}

impl PowerHealth {
    /// Looks for its sources under `root`; `None` on a machine that has none.
    pub(crate) fn find(root: &Path) -> Option<Self> {
        let throttled = throttled_file(root).map(Source::new);
        let monitors = named_entries(&root.join("sys/class/hwmon"), "hwmon", "name");
        let alarm =
            monitors.into_iter().find(|(_, name)| name == "rpi_volt").map(|(path, _)| path.join("in0_lcrit_alarm"));
        let tool = VCGENCMD.iter().map(|path| root.join(path)).find(|path| path.exists());
        let vcgencmd = tool.filter(|_| throttled.is_none() || alarm.is_none());
        let any = throttled.is_some() || alarm.is_some() || vcgencmd.is_some();
        let model = fs::read_to_string(root.join("proc/device-tree/model")).unwrap_or_default();
        let notices_undervoltage = !NO_DETECTOR.iter().any(|kind| model.contains(kind));
        any.then(|| Self { throttled, alarm: alarm.map(Source::new), vcgencmd, asked: None, notices_undervoltage })
    }

    /// What is known now; `None` when nothing is.
    pub(crate) fn read(&mut self) -> Option<Power> {
        let bits = self.throttled.as_mut().and_then(|file| file.read(parse_bits)?);
        let bits = bits.filter(|bits| *bits != 0).or_else(|| self.ask_tool()).or(bits);
        let alarm = self.alarm.as_mut().and_then(|file| file.read(parse_alarm)?);
        let mut power = match (bits, alarm) {
            (None, None) => return None,
            (bits, _) => bits.map(Power::from_throttled).unwrap_or_default(),
        };
        power.undervoltage = power.undervoltage.max(alarm);
        if !self.notices_undervoltage {
            power.undervoltage = power.undervoltage.filter(|low| *low);
            power.undervoltage_since_boot = power.undervoltage_since_boot.filter(|low| *low);
        }
        Some(power)
    }

    fn ask_tool(&mut self) -> Option<u32> {
        let tool = self.vcgencmd.as_ref()?;
        if let Some((at, answer)) = self.asked
            && at.elapsed() < PROCESS_PERIOD
        {
            return answer;
        }
        let command =
            Command::new(tool).arg("get_throttled").env_clear().stdin(Stdio::null()).stderr(Stdio::null()).output();
        let answer = command.ok().and_then(|output| parse_bits(std::str::from_utf8(&output.stdout).ok()?));
        self.asked = Some((Instant::now(), answer));
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

    #[test]
    fn the_kernels_alarm_tells_of_undervoltage_only() {
        let root = tempfile::tempdir().unwrap();
        let monitor = root.path().join("sys/class/hwmon/hwmon1");
        fs::create_dir_all(&monitor).unwrap();
        fs::write(monitor.join("name"), "rpi_volt\n").unwrap();
        fs::write(monitor.join("in0_lcrit_alarm"), "1\n").unwrap();
        let power = PowerHealth::find(root.path()).unwrap().read().unwrap();
        assert_eq!(power, Power { undervoltage: Some(true), ..Power::default() });
    }

    fn board(model: &str, bits: &str, alarm: Option<&str>) -> Power {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/device-tree/model", model);
        put("sys/devices/platform/soc/soc:firmware/get_throttled", bits);
        if let Some(alarm) = alarm {
            put("sys/class/hwmon/hwmon1/name", "rpi_volt\n");
            put("sys/class/hwmon/hwmon1/in0_lcrit_alarm", alarm);
        }
        PowerHealth::find(root.path()).unwrap().read().unwrap()
    }

    #[test]
    fn what_the_firmwares_file_does_not_notice_the_alarm_does() {
        let four = "Raspberry Pi 4 Model B Rev 1.4\0";
        for (bits, alarm, low) in [
            ("0", None, false),
            ("0", Some("0"), false),
            ("0", Some("1"), true),
            ("50005", Some("0"), true),
            ("1", None, true),
        ] {
            assert_eq!(board(four, bits, alarm).undervoltage, Some(low), "{bits} {alarm:?}");
        }
    }

    #[test]
    fn a_board_that_cannot_notice_undervoltage_does_not_deny_it() {
        for model in ["Raspberry Pi Zero 2 W Rev 1.0\0", "Raspberry Pi Compute Module 4 Rev 1.1\0"] {
            let power = board(model, "0", Some("0"));
            assert_eq!((power.undervoltage, power.undervoltage_since_boot), (None, None), "{model}");
            assert_eq!(power.throttled, Some(false), "the rest is known");
            assert_eq!(board(model, "50005", None).undervoltage, Some(true), "what it says is believed");
        }
    }

    #[test]
    fn a_board_without_anything_says_nothing() {
        assert!(PowerHealth::find(tempfile::tempdir().unwrap().path()).is_none());
    }
}
