//! The table of series: what of a sample is kept, under which name, and how exactly. Pure.
//!
//! A new number is one line in [`METRICS`] and one in `visit`. Numbers of metrics stand in the
//! file: they are never used again for something else.

use std::fmt;

use pistat_protocol::stats::Sample;

use crate::scale::Scale;

/// More series than this of one machine are not kept.
pub const MAX_SERIES: usize = 192;

/// The longest name of an instance, in bytes; it is stored with one byte for its length.
const MAX_INSTANCE_BYTES: usize = 120;

/// A number of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its number in the file.
    pub id: u8,
    /// Its name in the API, as in the sample.
    pub name: &'static str,
    /// Its unit, for people.
    pub unit: &'static str,
    /// How exactly it is kept.
    pub scale: Scale,
}

const fn metric(id: u8, name: &'static str, unit: &'static str, scale: Scale) -> Metric {
    Metric { id, name, unit, scale }
}

const PERCENT: Scale = Scale::Linear(0.5);
const LOAD: Scale = Scale::Linear(0.05);
const WHOLE: Scale = Scale::Linear(1.0);
const SPACE: Scale = Scale::Linear(4_194_304.0);
/// A sixtieth of the time, so that a second of a minute is kept.
const SHARE: Scale = Scale::Linear(1.0 / 60.0);

/// The unit of flags: for how many seconds of a step they were true.
pub const SECONDS_TRUE: &str = "seconds true";

/// All numbers of a sample. Those with an instance are named `name[instance]`.
pub const METRICS: [Metric; 26] = [
    metric(1, "cpu_percent", "%", PERCENT),
    metric(2, "cpu_cores_percent", "%", PERCENT),
    metric(3, "cpu_mhz", "MHz", Scale::Linear(10.0)),
    metric(4, "load1", "", LOAD),
    metric(5, "load5", "", LOAD),
    metric(6, "load15", "", LOAD),
    metric(7, "memory_used_bytes", "B", SPACE),
    metric(8, "memory_total_bytes", "B", SPACE),
    metric(9, "memory_percent", "%", PERCENT),
    metric(10, "swap_used_bytes", "B", SPACE),
    metric(11, "swap_total_bytes", "B", SPACE),
    metric(12, "temperature_celsius", "°C", PERCENT),
    metric(13, "disk_used_bytes", "B", SPACE),
    metric(14, "disk_total_bytes", "B", SPACE),
    metric(15, "disk_used_percent", "%", PERCENT),
    metric(16, "disk_read_bytes_per_second", "B/s", Scale::Rate),
    metric(17, "disk_write_bytes_per_second", "B/s", Scale::Rate),
    metric(18, "network_rx_bytes_per_second", "B/s", Scale::Rate),
    metric(19, "network_tx_bytes_per_second", "B/s", Scale::Rate),
    metric(20, "wifi_signal_dbm", "dBm", WHOLE),
    metric(21, "uptime_seconds", "s", WHOLE),
    metric(22, "processes", "", WHOLE),
    metric(23, "undervoltage_seconds", SECONDS_TRUE, SHARE),
    metric(24, "throttled_seconds", SECONDS_TRUE, SHARE),
    metric(25, "frequency_capped_seconds", SECONDS_TRUE, SHARE),
    metric(26, "temperature_limited_seconds", SECONDS_TRUE, SHARE),
];

/// The metric of a number; a newer version may have written others.
pub fn metric_by_id(id: u8) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.id == id)
}

/// Which core, disk or interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instance {
    /// There is only one.
    Only,
    /// The number of a core.
    Number(u16),
    /// The mount point of a disk.
    Name(Box<str>),
}

/// A series of one machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// [`Metric::id`].
    pub metric: u8,
    /// Which one.
    pub instance: Instance,
}

/// A series, borrowed from a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which<'a> {
    Only,
    Number(u16),
    Name(&'a str),
}

impl Which<'_> {
    pub(crate) fn is(self, key: &Instance) -> bool {
        match (self, key) {
            (Self::Only, Instance::Only) => true,
            (Self::Number(number), Instance::Number(other)) => number == *other,
            (Self::Name(name), Instance::Name(other)) => *name == **other,
            _ => false,
        }
    }

    pub(crate) fn to_instance(self) -> Instance {
        match self {
            Self::Only => Instance::Only,
            Self::Number(number) => Instance::Number(number),
            Self::Name(name) => Instance::Name(name.into()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match metric_by_id(self.metric) {
            Some(metric) => f.write_str(metric.name)?,
            None => write!(f, "metric_{}", self.metric)?,
        }
        match &self.instance {
            Instance::Only => Ok(()),
            Instance::Number(number) => write!(f, "[{number}]"),
            Instance::Name(name) => write!(f, "[{name}]"),
        }
    }
}

/// A choice of series: one metric with all its instances, or one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    metric: u8,
    instance: Option<Box<str>>,
}

impl Selector {
    /// Reads `name` or `name[instance]`; nothing for a name that is not in the table.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, instance) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
            Some((name, instance)) => (name, Some(instance.into())),
            None => (text, None),
        };
        let metric = METRICS.iter().find(|metric| metric.name == name)?;
        Some(Self { metric: metric.id, instance })
    }

    /// Whether at most one series of a machine is chosen.
    pub fn is_one(&self) -> bool {
        const WITH_INSTANCES: [u8; 4] = [2, 13, 14, 15];
        self.instance.is_some() || !WITH_INSTANCES.contains(&self.metric)
    }

    /// Whether a series is chosen.
    pub fn selects(&self, key: &Key) -> bool {
        let is_instance = |wanted: &str| match &key.instance {
            Instance::Only => false,
            Instance::Number(number) => wanted.parse() == Ok(*number),
            Instance::Name(name) => **name == *wanted,
        };
        self.metric == key.metric && self.instance.as_deref().is_none_or(is_instance)
    }
}

/// Visits every number of a sample that is kept.
pub(crate) fn visit(sample: &Sample, mut with: impl FnMut(u8, Which<'_>, f64)) {
    #[expect(clippy::cast_precision_loss, reason = "a chart needs less than 53 bits")]
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    let flag = |value: Option<bool>| value.map(|value| f64::from(u8::from(value)));
    let power = sample.power.as_ref();
    let numbers = [
        (1, sample.cpu_percent.map(f64::from)),
        (3, sample.cpu_mhz.map(f64::from)),
        (4, sample.load1.map(f64::from)),
        (5, sample.load5.map(f64::from)),
        (6, sample.load15.map(f64::from)),
        (7, whole(sample.memory_used_bytes)),
        (8, whole(sample.memory_total_bytes)),
        (9, sample.memory_percent.map(f64::from)),
        (10, whole(sample.swap_used_bytes)),
        (11, whole(sample.swap_total_bytes)),
        (12, sample.temperature_celsius.map(f64::from)),
        (16, whole(sample.disk_read_bytes_per_second)),
        (17, whole(sample.disk_write_bytes_per_second)),
        (18, whole(sample.network_rx_bytes_per_second)),
        (19, whole(sample.network_tx_bytes_per_second)),
        (20, sample.wifi_signal_dbm.map(f64::from)),
        (21, whole(sample.uptime_seconds)),
        (22, sample.processes.map(f64::from)),
        (23, flag(power.and_then(|power| power.undervoltage))),
        (24, flag(power.and_then(|power| power.throttled))),
        (25, flag(power.and_then(|power| power.frequency_capped))),
        (26, flag(power.and_then(|power| power.temperature_limited))),
    ];
    for (metric, value) in numbers {
        if let Some(value) = value {
            with(metric, Which::Only, value);
        }
    }
    for (core, percent) in (0..).zip(sample.cpu_cores_percent.iter().flatten()) {
        with(2, Which::Number(core), f64::from(*percent));
    }
    for disk in sample.disks.iter().flatten().filter(|disk| disk.mount.len() <= MAX_INSTANCE_BYTES) {
        let which = Which::Name(&disk.mount);
        with(13, which, whole(Some(disk.used_bytes)).unwrap_or(0.0));
        with(14, which, whole(Some(disk.total_bytes)).unwrap_or(0.0));
        with(15, which, f64::from(disk.used_percent));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pistat_protocol::{
        stats::{Disk, Power},
        time::Timestamp,
    };

    use super::*;

    fn full() -> Sample {
        Sample {
            cpu_percent: Some(1.0),
            cpu_cores_percent: Some(vec![1.0, 2.0]),
            cpu_mhz: Some(1),
            load1: Some(1.0),
            load5: Some(1.0),
            load15: Some(1.0),
            memory_used_bytes: Some(1),
            memory_total_bytes: Some(1),
            memory_percent: Some(1.0),
            swap_used_bytes: Some(1),
            swap_total_bytes: Some(1),
            temperature_celsius: Some(1.0),
            disks: Some(vec![Disk { mount: "/".into(), used_bytes: 1, total_bytes: 2, used_percent: 50.0 }]),
            disk_read_bytes_per_second: Some(1),
            disk_write_bytes_per_second: Some(1),
            network_rx_bytes_per_second: Some(1),
            network_tx_bytes_per_second: Some(1),
            wifi_signal_dbm: Some(-40),
            uptime_seconds: Some(1),
            processes: Some(1),
            power: Some(Power::from_throttled(1)),
            ..Sample::new(Timestamp::from_unix_milliseconds(0), true, 0)
        }
    }

    #[test]
    fn every_metric_of_the_table_is_taken_from_a_sample_and_has_its_own_number() {
        let mut seen = BTreeSet::new();
        visit(&full(), |metric, which, _| {
            assert_eq!(Selector { metric, instance: None }.is_one(), which == Which::Only);
            seen.insert(metric);
        });
        let table: BTreeSet<u8> = METRICS.iter().map(|metric| metric.id).collect();
        assert_eq!(seen, table);
        assert_eq!(table.len(), METRICS.len());
    }

    #[test]
    fn a_series_is_chosen_by_name_and_instance() {
        let key = |metric, instance| Key { metric, instance };
        let (core, root) = (key(2, Instance::Number(3)), key(15, Instance::Name("/".into())));
        assert_eq!(
            (core.to_string(), root.to_string()),
            ("cpu_cores_percent[3]".into(), "disk_used_percent[/]".into())
        );
        let table = [
            ("cpu_cores_percent", true, false),
            ("cpu_cores_percent[3]", true, false),
            ("cpu_cores_percent[1]", false, false),
            ("disk_used_percent[/]", false, true),
            ("disk_used_percent[/boot]", false, false),
        ];
        for (text, is_core, is_root) in table {
            let selector = Selector::parse(text).unwrap();
            assert_eq!((selector.selects(&core), selector.selects(&root)), (is_core, is_root), "{text}");
            assert_eq!(selector.is_one(), text.ends_with(']'), "{text}");
        }
        assert!(Selector::parse("cpu_percent").unwrap().is_one());
        assert_eq!(Selector::parse("cpu"), None);
    }
}
