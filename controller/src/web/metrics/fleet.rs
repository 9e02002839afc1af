//! The fleet: who is there, what each machine is, and its newest sample.

use pistat_protocol::{
    dashboard::{Machine, MachineStatus},
    stats::{Disk, Power, Sample},
    status::Info,
    time::Timestamp,
};

use super::page::{Page, number};

/// A gauge of `T`: its name, what it tells, and where it is.
type Gauge<T> = (&'static str, &'static str, fn(&T) -> Option<f64>);

/// What of a sample is a number.
const OF_SAMPLES: [Gauge<Sample>; 28] = [
    ("pistat_cpu_usage_ratio", "Busy time of all cores together.", |s| s.cpu_percent.map(ratio)),
    ("pistat_cpu_frequency_hertz", "The highest current clock of the cores.", |s| {
        s.cpu_mhz.map(|mhz| f64::from(mhz) * 1e6)
    }),
    ("pistat_load1", "Load average over one minute.", |s| s.load1.map(f64::from)),
    ("pistat_load5", "Load average over five minutes.", |s| s.load5.map(f64::from)),
    ("pistat_load15", "Load average over fifteen minutes.", |s| s.load15.map(f64::from)),
    ("pistat_memory_used_bytes", "Memory in use: total less available.", |s| s.memory_used_bytes.map(number)),
    ("pistat_memory_size_bytes", "All memory.", |s| s.memory_total_bytes.map(number)),
    ("pistat_swap_used_bytes", "Swap in use.", |s| s.swap_used_bytes.map(number)),
    ("pistat_swap_size_bytes", "All swap.", |s| s.swap_total_bytes.map(number)),
    ("pistat_temperature_celsius", "Temperature of the processor.", |s| s.temperature_celsius.map(f64::from)),
    ("pistat_disk_read_bytes_per_second", "Bytes read from disks.", |s| s.disk_read_bytes_per_second.map(number)),
    ("pistat_disk_write_bytes_per_second", "Bytes written to disks.", |s| s.disk_write_bytes_per_second.map(number)),
    ("pistat_network_receive_bytes_per_second", "Bytes received by real interfaces.", |s| {
        s.network_rx_bytes_per_second.map(number)
    }),
    ("pistat_network_transmit_bytes_per_second", "Bytes sent by real interfaces.", |s| {
        s.network_tx_bytes_per_second.map(number)
    }),
    ("pistat_wifi_signal_dbm", "Wi-Fi signal level.", |s| s.wifi_signal_dbm.map(f64::from)),
    ("pistat_uptime_seconds", "Time since boot.", |s| s.uptime_seconds.map(number)),
    ("pistat_processes", "Processes.", |s| s.processes.map(f64::from)),
    ("pistat_clock_synchronized", "Whether the clock is synchronised with a time server.", |s| {
        Some(flag(s.clock_synchronized))
    }),
    ("pistat_sample_timestamp_seconds", "The machine's own clock at its newest sample.", |s| Some(seconds(s.time))),
    ("pistat_undervoltage", "Whether the supply is too low now.", |s| power(s, |p| p.undervoltage)),
    ("pistat_throttled", "Whether the processor is slowed down now.", |s| power(s, |p| p.throttled)),
    ("pistat_frequency_capped", "Whether the clock is capped now.", |s| power(s, |p| p.frequency_capped)),
    ("pistat_temperature_limited", "Whether the soft temperature limit is in force now.", |s| {
        power(s, |p| p.temperature_limited)
    }),
    ("pistat_undervoltage_since_boot", "Whether the supply was too low since boot.", |s| {
        power(s, |p| p.undervoltage_since_boot)
    }),
    ("pistat_throttled_since_boot", "Whether the processor was slowed down since boot.", |s| {
        power(s, |p| p.throttled_since_boot)
    }),
    ("pistat_frequency_capped_since_boot", "Whether the clock was capped since boot.", |s| {
        power(s, |p| p.frequency_capped_since_boot)
    }),
    ("pistat_temperature_limited_since_boot", "Whether the soft temperature limit was in force since boot.", |s| {
        power(s, |p| p.temperature_limited_since_boot)
    }),
    ("pistat_memory_usage_ratio", "Memory in use.", |s| s.memory_percent.map(ratio)),
];

/// What of `info` is a number; it stays true while a machine is away.
const OF_INFO: [Gauge<Info>; 6] = [
    ("pistat_boot_time_seconds", "When the machine was started.", |i| i.boot_time.map(seconds)),
    ("pistat_interval_seconds", "The cadence of samples in force.", |i| Some(i.interval_seconds)),
    ("pistat_storage_wear_ratio", "Wear of the SD card or eMMC.", |i| {
        i.storage_wear_percent.map(|percent| f64::from(percent) / 100.0)
    }),
    ("pistat_updates_pending", "Package updates that wait to be installed.", |i| i.updates_pending.map(f64::from)),
    ("pistat_reboot_required", "Whether the system asks to be restarted.", |i| i.reboot_required.map(flag)),
    ("pistat_failed_units", "Systemd units in state failed.", |i| {
        i.failed_units.as_ref().map(|units| number(units.len() as u64))
    }),
];

/// What of a file system is a number.
const OF_DISKS: [Gauge<Disk>; 3] = [
    ("pistat_filesystem_used_bytes", "Space in use on a file system.", |d| Some(number(d.used_bytes))),
    ("pistat_filesystem_size_bytes", "All space of a file system.", |d| Some(number(d.total_bytes))),
    ("pistat_filesystem_usage_ratio", "Space in use of what ordinary users may use, as df counts.", |d| {
        Some(ratio(d.used_percent))
    }),
];

fn ratio(percent: f32) -> f64 {
    // Through text, so that 12.4 % is 0.124 and not 0.12399999618.
    format!("{percent}e-2").parse().unwrap_or(f64::NAN)
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit")]
fn seconds(time: Timestamp) -> f64 {
    time.unix_milliseconds() as f64 / 1000.0
}

fn power(sample: &Sample, field: fn(&Power) -> Option<bool>) -> Option<f64> {
    sample.power.as_ref().and_then(field).map(flag)
}

/// Everything about the fleet.
pub(super) fn write(page: &mut Page, machines: &[Machine]) {
    presence(page, machines);
    identity(page, machines);
    for (name, help, get) in OF_INFO {
        page.family(name, "gauge", help);
        for machine in machines {
            if let Some(value) = machine.info.as_deref().and_then(get) {
                page.value(name, &[("pi", machine.id.as_str())], value);
            }
        }
    }
    let online = machines.iter().filter(|machine| machine.status == MachineStatus::Online);
    let samples: Vec<_> =
        online.filter_map(|machine| machine.stats.as_deref().map(|sample| (machine.id.as_str(), sample))).collect();
    for (name, help, get) in OF_SAMPLES {
        page.family(name, "gauge", help);
        for (pi, sample) in &samples {
            if let Some(value) = get(sample) {
                page.value(name, &[("pi", pi)], value);
            }
        }
    }
    page.family("pistat_samples_total", "counter", "Samples of this agent process so far.");
    for (pi, sample) in &samples {
        page.value("pistat_samples_total", &[("pi", pi)], number(sample.seq + 1));
    }
    parts(page, &samples);
}

fn presence(page: &mut Page, machines: &[Machine]) {
    page.family("pistat_machines", "gauge", "Machines by status.");
    let states =
        [("online", MachineStatus::Online), ("stale", MachineStatus::Stale), ("offline", MachineStatus::Offline)];
    for (name, status) in states {
        let count = machines.iter().filter(|machine| machine.status == status).count();
        page.value("pistat_machines", &[("status", name)], number(count as u64));
    }
    page.family("pistat_machine_up", "gauge", "Whether a machine is connected and its samples arrive.");
    for machine in machines {
        let up = flag(machine.status == MachineStatus::Online);
        page.value("pistat_machine_up", &[("pi", machine.id.as_str())], up);
    }
    page.family(
        "pistat_machine_last_seen_timestamp_seconds",
        "gauge",
        "When a machine was last heard, by the controller's clock.",
    );
    for machine in machines {
        if let Some(time) = machine.last_seen {
            page.value("pistat_machine_last_seen_timestamp_seconds", &[("pi", machine.id.as_str())], seconds(time));
        }
    }
}

fn identity(page: &mut Page, machines: &[Machine]) {
    page.family("pistat_machine_info", "gauge", "What a machine is, in labels; always 1.");
    for machine in machines {
        let info = machine.info.as_deref();
        let text = |get: fn(&Info) -> Option<&str>| info.and_then(get).unwrap_or_default();
        let labels = [
            ("pi", machine.id.as_str()),
            ("label", machine.label.as_str()),
            ("model", text(|i| i.model.as_deref())),
            ("os", text(|i| i.os.as_deref())),
            ("kernel", text(|i| i.kernel.as_deref())),
            ("arch", text(|i| i.arch.as_deref())),
            ("agent_version", text(|i| Some(&i.agent_version))),
        ];
        page.value("pistat_machine_info", &labels, 1.0);
    }
}

/// Cores and file systems.
fn parts(page: &mut Page, samples: &[(&str, &Sample)]) {
    page.family("pistat_cpu_core_usage_ratio", "gauge", "Busy time of each core.");
    for (pi, sample) in samples {
        for (core, percent) in sample.cpu_cores_percent.iter().flatten().enumerate() {
            page.value("pistat_cpu_core_usage_ratio", &[("pi", pi), ("core", &core.to_string())], ratio(*percent));
        }
    }
    for (name, help, get) in OF_DISKS {
        page.family(name, "gauge", help);
        for (pi, sample) in samples {
            for disk in sample.disks.iter().flatten() {
                if let Some(value) = get(disk) {
                    page.value(name, &[("pi", pi), ("mount", &disk.mount)], value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn per_cents_become_ratios_without_noise() {
        for (percent, expected) in [(12.4, 0.124), (0.0, 0.0), (100.0, 1.0), (33.333_332, 0.333_333_32)] {
            assert!((ratio(percent) - expected).abs() < f64::EPSILON, "{percent}");
        }
    }

    #[test]
    fn a_machine_that_is_away_has_no_values_and_what_it_does_not_report_has_no_series() {
        let mut sample = Sample::new(Timestamp::from_unix_milliseconds(5000), true, 0);
        sample.cpu_percent = Some(50.0);
        let machine = |id: &str, status| Machine {
            id: id.parse().unwrap(),
            label: "Rack".into(),
            status,
            last_seen: None,
            assignment: None,
            tags: Vec::new(),
            interval_seconds: None,
            info: None,
            stats: Some(sample.clone().into()),
            recent_cpu_percent: Vec::new(),
            cannot_run: Vec::new(),
        };
        let mut page = Page::default();
        write(&mut page, &[machine("here", MachineStatus::Online), machine("away", MachineStatus::Stale)]);
        let text = page.text();
        let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
        assert_eq!(of("pistat_cpu_usage_ratio"), ["pistat_cpu_usage_ratio{pi=\"here\"} 0.5"]);
        assert_eq!(of("pistat_machine_up{"), ["pistat_machine_up{pi=\"here\"} 1", "pistat_machine_up{pi=\"away\"} 0"]);
        assert_eq!(
            of("pistat_machines{"),
            [
                "pistat_machines{status=\"online\"} 1",
                "pistat_machines{status=\"stale\"} 1",
                "pistat_machines{status=\"offline\"} 0"
            ]
        );
        assert_eq!(of("pistat_samples_total{"), ["pistat_samples_total{pi=\"here\"} 1"]);
        assert!(text.contains("# TYPE pistat_samples_total counter\n"), "it only grows: {text}");
        assert!(
            of("pistat_temperature_celsius").is_empty() && text.contains("# TYPE pistat_temperature_celsius gauge")
        );
    }
}
