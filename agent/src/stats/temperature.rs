//! The processor's temperature: a thermal zone that is known to be the processor's, else a hardware
//! monitor that is, in this order of trust.
//!
//! Only on a board with a device tree is the first zone the processor's more often than not; on a
//! PC it is as likely the room's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::source::Source;

/// Zone types of the processor, most specific first: Pi 4 and 5, Pi up to 3 with older kernels,
/// PCs.
const ZONE_TYPES: [&str; 5] = ["cpu-thermal", "cpu_thermal", "bcm2835_thermal", "soc-thermal", "x86_pkg_temp"];

/// Names of hardware monitors of processors.
const MONITOR_NAMES: [&str; 4] = ["cpu_thermal", "coretemp", "k10temp", "zenpower"];

/// What a working sensor can show.
const PLAUSIBLE_CELSIUS: std::ops::RangeInclusive<f32> = -40.0..=150.0;

/// The thermometer of the processor.
#[derive(Debug)]
pub(crate) struct Thermometer {
    sensor: Source,
}

impl Thermometer {
    /// Looks for it under `root`; `None` on a machine without one.
    pub(crate) fn find(root: &Path) -> Option<Self> {
        let zones = named_entries(&root.join("sys/class/thermal"), "thermal_zone", "type");
        let first =
            || zones.iter().find(|(path, _)| path.ends_with("thermal_zone0")).map(|(path, _)| path.join("temp"));
        let sensor = known(&zones, &ZONE_TYPES, "temp").or_else(|| {
            let monitors = named_entries(&root.join("sys/class/hwmon"), "hwmon", "name");
            known(&monitors, &MONITOR_NAMES, "temp1_input")
        });
        let sensor = sensor.or_else(|| first().filter(|_| root.join("proc/device-tree").exists()));
        sensor.map(|path| Self { sensor: Source::new(path) })
    }

    /// The temperature now.
    pub(crate) fn read(&mut self) -> Option<f32> {
        self.sensor.read(parse)?
    }
}

/// The file of the first of these names that is there.
fn known(entries: &[(PathBuf, String)], names: &[&str], file: &str) -> Option<PathBuf> {
    let best = names.iter().find_map(|wanted| entries.iter().find(|(_, name)| name == wanted))?;
    Some(best.0.join(file))
}

/// The entries of a folder with this prefix, with the content of their file that names them.
pub(crate) fn named_entries(folder: &Path, prefix: &str, file: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
    let named = entries.filter_map(|entry| {
        let name = fs::read_to_string(entry.path().join(file)).ok()?;
        Some((entry.path(), name.trim().to_owned()))
    });
    let mut named: Vec<_> = named.collect();
    named.sort();
    named
}

fn parse(text: &str) -> Option<f32> {
    let tenths = text.trim().parse::<i32>().ok()? / 100;
    let celsius = f32::from(i16::try_from(tenths).ok()?) / 10.0;
    PLAUSIBLE_CELSIUS.contains(&celsius).then_some(celsius)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_sensor_is_believed_before_the_first_zone_and_that_only_on_a_board() {
        let (zone, monitor, tree) = ("sys/class/thermal/thermal_zone0", "sys/class/hwmon/hwmon0", "proc/device-tree");
        for (kind, name, board, expected) in [
            ("acpitz", "k10temp", false, Some(monitor)),
            ("acpitz", "coretemp", false, Some(monitor)),
            ("cpu-thermal", "coretemp", true, Some(zone)),
            ("x86_pkg_temp", "coretemp", false, Some(zone)),
            ("acpitz", "nvme", false, None),
            ("some-new-soc", "nvme", true, Some(zone)),
        ] {
            let root = tempfile::tempdir().unwrap();
            let put = |folder: &str, file: &str, text: &str| {
                fs::create_dir_all(root.path().join(folder)).unwrap();
                fs::write(root.path().join(folder).join(file), text).unwrap();
            };
            put(zone, "type", kind);
            put(zone, "temp", "20000");
            put(monitor, "name", name);
            put(monitor, "temp1_input", "50000");
            if board {
                put(tree, "model", "A board");
            }
            let celsius = Thermometer::find(root.path()).and_then(|mut found| found.read());
            let wanted = expected.map(|path| if path == zone { 20.0 } else { 50.0 });
            assert_eq!(celsius, wanted, "{kind} {name} {board}");
        }
    }

    #[test]
    fn thousandths_become_degrees_and_nonsense_nothing() {
        let cases =
            [("48312\n", Some(48.3)), ("-5000", Some(-5.0)), ("0", Some(0.0)), ("999999999", None), ("x", None)];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
