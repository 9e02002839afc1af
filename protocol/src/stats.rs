//! A sample: what a machine measured at one moment.
//!
//! Flat names with units. What a machine cannot measure is left out, never zero.

use serde::{Deserialize, Serialize};

use crate::{number, time::Timestamp};

/// One sample of one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sample {
    /// The machine's clock when it measured.
    pub time: Timestamp,
    /// Whether that clock was synchronised with a time server.
    pub clock_synchronized: bool,
    /// Counts the samples of this agent process, from 0.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub seq: u64,
    /// Busy time of all cores together, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::finite_option")]
    pub cpu_percent: Option<f32>,
    /// Busy time of each core, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::finite_list")]
    pub cpu_cores_percent: Option<Vec<f32>>,
    /// The highest current clock of the cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_mhz: Option<u32>,
    /// Load average over one minute.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::finite_option")]
    pub load1: Option<f32>,
    /// Load average over five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::finite_option")]
    pub load5: Option<f32>,
    /// Load average over fifteen minutes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::finite_option")]
    pub load15: Option<f32>,
    /// Memory in use: total less available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub memory_used_bytes: Option<u64>,
    /// All memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub memory_total_bytes: Option<u64>,
    /// Memory in use, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::finite_option")]
    pub memory_percent: Option<f32>,
    /// Swap in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub swap_used_bytes: Option<u64>,
    /// All swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub swap_total_bytes: Option<u64>,
    /// Temperature of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::finite_option")]
    pub temperature_celsius: Option<f32>,
    /// Real file systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Vec<Disk>>,
    /// Bytes read from real disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub disk_read_bytes_per_second: Option<u64>,
    /// Bytes written to real disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub disk_write_bytes_per_second: Option<u64>,
    /// Bytes received by real interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub network_rx_bytes_per_second: Option<u64>,
    /// Bytes sent by real interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub network_tx_bytes_per_second: Option<u64>,
    /// Wi-Fi signal level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi_signal_dbm: Option<i16>,
    /// Time since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub uptime_seconds: Option<u64>,
    /// Processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Power health; absent where the board does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
}

impl Sample {
    /// A sample that knows only when it was made.
    pub fn new(time: Timestamp, clock_synchronized: bool, seq: u64) -> Self {
        Self {
            time,
            clock_synchronized,
            seq,
            cpu_percent: None,
            cpu_cores_percent: None,
            cpu_mhz: None,
            load1: None,
            load5: None,
            load15: None,
            memory_used_bytes: None,
            memory_total_bytes: None,
            memory_percent: None,
            swap_used_bytes: None,
            swap_total_bytes: None,
            temperature_celsius: None,
            disks: None,
            disk_read_bytes_per_second: None,
            disk_write_bytes_per_second: None,
            network_rx_bytes_per_second: None,
            network_tx_bytes_per_second: None,
            wifi_signal_dbm: None,
            uptime_seconds: None,
            processes: None,
            power: None,
        }
    }
}

/// One real file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// Space in use.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub used_bytes: u64,
    /// All space.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub total_bytes: u64,
    /// Space in use of what ordinary users may use, 0 to 100, as `df` counts.
    #[serde(deserialize_with = "number::finite")]
    pub used_percent: f32,
}

/// Power health, from the firmware's throttle bits or the kernel's undervoltage alarm. An absent
/// field is unknown: what was since boot is denied only by the firmware itself, which not every
/// system can ask.
///
/// Bits of `vcgencmd get_throttled`: 0 undervoltage, 1 frequency capped, 2 throttled, 3 soft
/// temperature limit; 16 to 19 the same since boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Power {
    /// The supply is below 4.63 V now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undervoltage: Option<bool>,
    /// The processor is slowed down now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<bool>,
    /// The clock is capped now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_capped: Option<bool>,
    /// The soft temperature limit is in force now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_limited: Option<bool>,
    /// Undervoltage has been seen since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undervoltage_since_boot: Option<bool>,
    /// Throttling has been seen since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_since_boot: Option<bool>,
    /// A clock cap has been seen since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_capped_since_boot: Option<bool>,
    /// The soft temperature limit has been in force since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_limited_since_boot: Option<bool>,
    /// The bits as the firmware gave them to `vcgencmd`, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

impl Power {
    /// From the firmware's throttle bits, as `vcgencmd` reports them.
    pub fn from_throttled(bits: u32) -> Self {
        let bit = |n: u32| Some(bits & (1 << n) != 0);
        Self {
            undervoltage: bit(0),
            frequency_capped: bit(1),
            throttled: bit(2),
            temperature_limited: bit(3),
            undervoltage_since_boot: bit(16),
            frequency_capped_since_boot: bit(17),
            throttled_since_boot: bit(18),
            temperature_limited_since_boot: bit(19),
            raw: Some(format!("{bits:#x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmwares_bits_become_flags() {
        let power = Power::from_throttled(0x50005);
        assert_eq!(
            (power.undervoltage, power.frequency_capped, power.throttled),
            (Some(true), Some(false), Some(true))
        );
        assert_eq!((power.undervoltage_since_boot, power.throttled_since_boot), (Some(true), Some(true)));
        assert_eq!(power.raw.as_deref(), Some("0x50005"));
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let sample = Sample::new(Timestamp::from_unix_milliseconds(0), false, 7);
        assert_eq!(
            serde_json::to_string(&sample).unwrap(),
            r#"{"time":"1970-01-01T00:00:00.000Z","clock_synchronized":false,"seq":7}"#
        );
    }

    #[test]
    fn a_number_that_would_be_infinite_is_refused() {
        let large = "9".repeat(60);
        let disk = |percent: &str| {
            format!(r#""disks":[{{"mount":"/","used_bytes":1,"total_bytes":2,"used_percent":{percent}}}]"#)
        };
        let fields = ["cpu_percent", "load1", "load5", "load15", "memory_percent", "temperature_celsius"];
        let alone = fields.iter().map(|field| format!(r#""{field}":{large}"#));
        for field in alone.chain([format!(r#""cpu_cores_percent":[1.5,-{large}]"#), disk(&large)]) {
            let text = format!(r#"{{"time":"1970-01-01T00:00:00.000Z","clock_synchronized":false,"seq":7,{field}}}"#);
            let error = serde_json::from_str::<Sample>(&text).unwrap_err().to_string();
            assert!(error.contains("larger than 3.4e38"), "{text}: {error}");
        }
        let right = format!(
            r#"{{"time":"1970-01-01T00:00:00.000Z","clock_synchronized":false,"seq":7,"load1":0.25,"cpu_cores_percent":[1.5,2.5],{}}}"#,
            disk("12.5")
        );
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Sample>(&right).unwrap()).unwrap().len(), right.len());
    }
}
