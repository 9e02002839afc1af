//! The table of entities: what of a sample or of `info` is shown, with which unit and class.
//!
//! Units and classes are Home Assistant's: a class is given only where its own list has one that
//! fits, and a unit only together with such a class or none.

use pistat_protocol::{stats::Sample, status::Info};
use serde::{Deserialize, Serialize};

/// The kind of an entity: the platforms of Home Assistant that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Platform {
    /// A value.
    Sensor,
    /// On, off or unknown.
    BinarySensor,
    /// A task to start.
    Button,
    /// Something that happened.
    Event,
}

impl Platform {
    /// Home Assistant's name for it, which is also the domain of its entity ids.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::BinarySensor => "binary_sensor",
            Self::Button => "button",
            Self::Event => "event",
        }
    }
}

/// An entity of `T`: of a sample, or of `info`.
pub(super) struct Entity<T> {
    /// Its key in the document and in its unique id; never changes.
    pub(super) key: &'static str,
    pub(super) platform: Platform,
    pub(super) name: &'static str,
    /// What an agent that has it lists among its capabilities.
    pub(super) capability: &'static str,
    /// Whether this sample or info has it.
    pub(super) seen: fn(&T) -> bool,
    /// Where its value is.
    pub(super) value: &'static str,
    pub(super) unit: Option<&'static str>,
    pub(super) class: Option<&'static str>,
    pub(super) icon: Option<&'static str>,
    /// Digits behind the point.
    pub(super) precision: Option<u8>,
    /// The value is a list, and its length counts.
    pub(super) counted: bool,
    /// Less important than what it stands beside.
    pub(super) diagnostic: bool,
    /// Shown only to those who turn it on.
    pub(super) hidden: bool,
}

impl<T> Entity<T> {
    const fn new(
        platform: Platform,
        key: &'static str,
        name: &'static str,
        value: &'static str,
        seen: fn(&T) -> bool,
    ) -> Self {
        Self {
            key,
            platform,
            name,
            capability: value,
            seen,
            value,
            unit: None,
            class: None,
            icon: None,
            precision: None,
            counted: false,
            diagnostic: false,
            hidden: false,
        }
    }

    const fn unit(mut self, unit: &'static str, precision: u8) -> Self {
        self.unit = Some(unit);
        self.precision = Some(precision);
        self
    }

    /// A number without a unit.
    const fn digits(mut self, precision: u8) -> Self {
        self.precision = Some(precision);
        self
    }

    const fn class(mut self, class: &'static str) -> Self {
        self.class = Some(class);
        self
    }

    const fn icon(mut self, icon: &'static str) -> Self {
        self.icon = Some(icon);
        self
    }

    const fn diagnostic(mut self) -> Self {
        self.diagnostic = true;
        self
    }

    const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    const fn capability(mut self, capability: &'static str) -> Self {
        self.capability = capability;
        self
    }

    const fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    const fn binary(mut self) -> Self {
        self.platform = Platform::BinarySensor;
        self
    }

    /// How Home Assistant gets the value out of the message; what a message leaves out is unknown,
    /// not zero.
    pub(super) fn template(&self) -> String {
        let value = match self.value.split_once('.') {
            Some((object, field)) => format!("(value_json.{object} | default({{}})).{field}"),
            None => format!("value_json.{}", self.value),
        };
        match self.platform {
            Platform::BinarySensor => {
                format!("{{% set v = {value} %}}{{{{ 'None' if v is not defined else 'ON' if v else 'OFF' }}}}")
            }
            _ if self.counted => format!("{{{{ {value} | count if {value} is defined else 'None' }}}}"),
            _ => format!("{{{{ {value} | default('None') }}}}"),
        }
    }
}

const fn sensor<T>(key: &'static str, name: &'static str, value: &'static str, seen: fn(&T) -> bool) -> Entity<T> {
    Entity::new(Platform::Sensor, key, name, value, seen)
}

/// A power problem. Undervoltage belongs to every machine that knows anything of its power: where
/// the board has no detector it is unknown.
const fn problem(
    key: &'static str,
    name: &'static str,
    value: &'static str,
    seen: fn(&Sample) -> bool,
) -> Entity<Sample> {
    Entity::new(Platform::BinarySensor, key, name, value, seen).class("problem").capability("").diagnostic()
}

/// What samples tell.
pub(super) static OF_SAMPLES: [Entity<Sample>; 21] = [
    sensor("cpu", "CPU", "cpu_percent", |s: &Sample| s.cpu_percent.is_some()).unit("%", 0).icon("mdi:chip"),
    sensor("memory", "Memory", "memory_percent", |s: &Sample| s.memory_percent.is_some())
        .unit("%", 0)
        .icon("mdi:memory"),
    sensor("temperature", "Temperature", "temperature_celsius", |s: &Sample| s.temperature_celsius.is_some())
        .unit("°C", 1)
        .class("temperature"),
    sensor("load", "Load", "load1", |s: &Sample| s.load1.is_some()).digits(2).icon("mdi:gauge").diagnostic(),
    sensor("cpu_clock", "CPU clock", "cpu_mhz", |s: &Sample| s.cpu_mhz.is_some())
        .unit("MHz", 0)
        .class("frequency")
        .diagnostic()
        .hidden(),
    sensor("swap", "Swap", "swap_used_bytes", |s: &Sample| s.swap_used_bytes.is_some())
        .unit("B", 0)
        .class("data_size")
        .diagnostic()
        .hidden(),
    sensor("disk_read", "Disk read", "disk_read_bytes_per_second", |s: &Sample| s.disk_read_bytes_per_second.is_some())
        .unit("B/s", 0)
        .class("data_rate")
        .diagnostic(),
    sensor("disk_write", "Disk write", "disk_write_bytes_per_second", |s: &Sample| {
        s.disk_write_bytes_per_second.is_some()
    })
    .unit("B/s", 0)
    .class("data_rate")
    .diagnostic(),
    sensor("network_in", "Network in", "network_rx_bytes_per_second", |s: &Sample| {
        s.network_rx_bytes_per_second.is_some()
    })
    .unit("B/s", 0)
    .class("data_rate")
    .diagnostic(),
    sensor("network_out", "Network out", "network_tx_bytes_per_second", |s: &Sample| {
        s.network_tx_bytes_per_second.is_some()
    })
    .unit("B/s", 0)
    .class("data_rate")
    .diagnostic(),
    sensor("wifi_signal", "Wi-Fi signal", "wifi_signal_dbm", |s: &Sample| s.wifi_signal_dbm.is_some())
        .unit("dBm", 0)
        .class("signal_strength")
        .diagnostic(),
    sensor("processes", "Processes", "processes", |s: &Sample| s.processes.is_some())
        .digits(0)
        .icon("mdi:format-list-numbered")
        .diagnostic()
        .hidden(),
    problem("undervoltage", "Undervoltage", "power.undervoltage", |s| s.power.is_some()).capability("power"),
    problem("throttled", "Throttled", "power.throttled", |s| power(s, |p| p.throttled)),
    problem("frequency_capped", "Frequency capped", "power.frequency_capped", |s| power(s, |p| p.frequency_capped)),
    problem("temperature_limited", "Temperature limited", "power.temperature_limited", |s| {
        power(s, |p| p.temperature_limited)
    }),
    problem("undervoltage_since_boot", "Undervoltage since boot", "power.undervoltage_since_boot", |s| {
        power(s, |p| p.undervoltage_since_boot)
    }),
    problem("throttled_since_boot", "Throttled since boot", "power.throttled_since_boot", |s| {
        power(s, |p| p.throttled_since_boot)
    }),
    problem("frequency_capped_since_boot", "Frequency capped since boot", "power.frequency_capped_since_boot", |s| {
        power(s, |p| p.frequency_capped_since_boot)
    })
    .hidden(),
    problem(
        "temperature_limited_since_boot",
        "Temperature limited since boot",
        "power.temperature_limited_since_boot",
        |s| power(s, |p| p.temperature_limited_since_boot),
    )
    .hidden(),
    sensor("clock_synchronized", "Clock synchronised", "clock_synchronized", |_: &Sample| true)
        .binary()
        .capability("")
        .diagnostic()
        .hidden(),
];

/// What `info` tells. Most of it is looked up once an hour, so what a machine has once told it is
/// believed to have.
pub(super) const OF_INFO: [Entity<Info>; 5] = [
    // Told once the machine's clock is synchronised: one that never is has no time of its last
    // boot.
    sensor("boot_time", "Last boot", "boot_time", |i: &Info| i.boot_time.is_some()).class("timestamp").diagnostic(),
    sensor("storage_wear", "Storage wear", "storage_wear_percent", |i: &Info| i.storage_wear_percent.is_some())
        .unit("%", 0)
        .icon("mdi:sd")
        .diagnostic(),
    sensor("updates", "Updates", "updates_pending", |i: &Info| i.updates_pending.is_some())
        .digits(0)
        .icon("mdi:package-up")
        .diagnostic(),
    sensor("failed_units", "Failed units", "failed_units", |i: &Info| i.failed_units.is_some())
        .digits(0)
        .counted()
        .icon("mdi:alert-circle-outline")
        .diagnostic(),
    sensor("reboot_required", "Restart required", "reboot_required", |i: &Info| i.reboot_required.is_some())
        .binary()
        .class("problem")
        .diagnostic(),
];

fn power(sample: &Sample, field: fn(&pistat_protocol::stats::Power) -> Option<bool>) -> bool {
    sample.power.as_ref().and_then(field).is_some()
}
