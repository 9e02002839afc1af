//! The processor's temperature: the board's own thermal zone, else a hardware monitor, in this order of trust.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::source::Source;

/// Zone types of the processor, most specific first: Pi 4 and 5, Pi up to 3 with older kernels, PCs.
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
        let sensor = zone(&root.join("sys/class/thermal")).or_else(|| monitor(&root.join("sys/class/hwmon")));
        sensor.map(|path| Self { sensor: Source::new(path) })
    }

    /// The temperature now.
    pub(crate) fn read(&mut self) -> Option<f32> {
        self.sensor.read().and_then(parse)
    }
}

fn zone(folder: &Path) -> Option<PathBuf> {
    let zones = named_entries(folder, "thermal_zone", "type");
    let of = |wanted: &str| zones.iter().find(|(_, kind)| kind == wanted);
    let best = ZONE_TYPES.iter().find_map(|wanted| of(wanted));
    // A board that we do not know: its first zone is the processor's more often than not.
    best.or_else(|| zones.iter().find(|(path, _)| path.ends_with("thermal_zone0"))).map(|(path, _)| path.join("temp"))
}

fn monitor(folder: &Path) -> Option<PathBuf> {
    let monitors = named_entries(folder, "hwmon", "name");
    let best = MONITOR_NAMES.iter().find_map(|wanted| monitors.iter().find(|(_, name)| name == wanted));
    best.map(|(path, _)| path.join("temp1_input"))
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
    fn thousandths_become_degrees_and_nonsense_nothing() {
        let cases =
            [("48312\n", Some(48.3)), ("-5000", Some(-5.0)), ("0", Some(0.0)), ("999999999", None), ("x", None)];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
