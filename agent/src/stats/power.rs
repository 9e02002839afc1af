//! Power health of a Raspberry Pi: the firmware's throttle bits, or at least the kernel's undervoltage alarm.
//!
//! In this order: the firmware driver's `get_throttled` in `/sys` (Raspberry Pi's kernel), the `rpi_volt` hardware monitor (undervoltage only),
//! and `vcgencmd get_throttled` at most once a minute, since it starts a process. Where nothing answers, nothing is said.

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

/// The power health of this board.
#[derive(Debug)]
pub(crate) struct PowerHealth {
    throttled: Option<Source>,
    alarm: Option<Source>,
    vcgencmd: Option<PathBuf>,
    asked: Option<(Instant, Option<u32>)>,
}

impl PowerHealth {
    /// Looks for its sources under `root`; `None` on a machine that has none.
    pub(crate) fn find(root: &Path) -> Option<Self> {
        let throttled = throttled_file(root).map(Source::new);
        let monitors = named_entries(&root.join("sys/class/hwmon"), "hwmon", "name");
        let alarm =
            monitors.into_iter().find(|(_, name)| name == "rpi_volt").map(|(path, _)| path.join("in0_lcrit_alarm"));
        let tool = VCGENCMD.iter().map(|path| root.join(path)).find(|path| path.exists());
        let vcgencmd = tool.filter(|_| throttled.is_none());
        let any = throttled.is_some() || alarm.is_some() || vcgencmd.is_some();
        any.then(|| Self { throttled, alarm: alarm.map(Source::new), vcgencmd, asked: None })
    }

    /// What is known now; `None` when nothing is.
    pub(crate) fn read(&mut self) -> Option<Power> {
        let bits = self.throttled.as_mut().and_then(|file| parse_bits(file.read()?));
        if let Some(bits) = bits.or_else(|| self.ask_tool()) {
            return Some(Power::from_throttled(bits));
        }
        let alarm = self.alarm.as_mut().and_then(|file| parse_alarm(file.read()?))?;
        Some(Power { undervoltage: Some(alarm), ..Power::default() })
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

    #[test]
    fn a_board_without_anything_says_nothing() {
        assert!(PowerHealth::find(tempfile::tempdir().unwrap().path()).is_none());
    }
}
