//! Samples as a Pi would measure them: load that drifts, a temperature that follows it, disks that
//! fill, power that is sometimes bad.

use std::time::{Duration, SystemTime};

use pistat_protocol::{
    stats::{Disk, Power, Sample},
    time::Timestamp,
};

use pistat_testkit::Dice;

const GIB: u64 = 1024 * 1024 * 1024;

/// One machine's measurements.
#[derive(Debug, Clone)]
pub struct Measurements {
    dice: Dice,
    seq: u64,
    booted: SystemTime,
    cores: usize,
    memory_bytes: u64,
    disk_bytes: u64,
    /// What the machine drifts around.
    usual_load: f64,
    load: f64,
    temperature: f64,
    memory: f64,
    disk: f64,
    has_wifi: bool,
    throttled_bits: u32,
}

impl Measurements {
    /// A machine of one of the usual kinds.
    pub fn new(mut dice: Dice) -> Self {
        let cores = if dice.chance(0.15) { 1 } else { 4 };
        let memory_bytes = [GIB / 2, GIB, 2 * GIB, 4 * GIB, 8 * GIB][usize::try_from(dice.below(5)).unwrap_or(0)];
        let usual_load = dice.fraction().powi(3) * 0.9 + 0.02;
        let up = Duration::from_secs(dice.below(40 * 86_400));
        Self {
            seq: 0,
            booted: SystemTime::now() - up,
            cores,
            memory_bytes,
            disk_bytes: [16, 32, 64, 128][usize::try_from(dice.below(4)).unwrap_or(0)] * GIB,
            usual_load,
            load: usual_load,
            temperature: 42.0,
            memory: 0.2 + dice.fraction() * 0.5,
            disk: 0.1 + dice.fraction() * 0.7,
            has_wifi: dice.chance(0.5),
            throttled_bits: if dice.chance(0.05) { 0x50000 } else { 0 },
            dice,
        }
    }

    /// The machine has just been started.
    pub fn reboot(&mut self) {
        self.booted = SystemTime::now();
        self.seq = 0;
    }

    /// What this machine can measure, by the fields' names.
    pub fn capabilities(&self) -> Vec<String> {
        const NOT_MEASURED: [&str; 3] = ["time", "clock_synchronized", "seq"];
        let fields = serde_json::to_value(self.clone().at(SystemTime::now()));
        let names = fields.ok().and_then(|value| Some(value.as_object()?.keys().cloned().collect::<Vec<_>>()));
        names.unwrap_or_default().into_iter().filter(|name| !NOT_MEASURED.contains(&name.as_str())).collect()
    }

    /// What it measures now, or measured then.
    pub fn at(&mut self, time: SystemTime) -> Sample {
        self.drift();
        let mut sample = Sample::new(Timestamp::from(time), true, self.seq);
        self.seq += 1;
        let load = self.load;
        sample.cpu_percent = Some(tenths(load * 100.0));
        sample.cpu_cores_percent =
            Some((0..self.cores).map(|_| tenths((load * 100.0 + self.dice.fraction() * 8.0).min(100.0))).collect());
        sample.cpu_mhz = Some(if load > 0.3 { 1500 } else { 600 });
        #[expect(clippy::cast_precision_loss, reason = "few cores")]
        let queue = load * self.cores as f64;
        sample.load1 = Some(hundredths(queue));
        sample.load5 = Some(hundredths(queue * 0.9));
        sample.load15 = Some(hundredths(queue * 0.8));
        sample.memory_total_bytes = Some(self.memory_bytes);
        sample.memory_used_bytes = Some(share(self.memory_bytes, self.memory));
        sample.memory_percent = Some(tenths(self.memory * 100.0));
        sample.swap_total_bytes = Some(GIB / 10);
        sample.swap_used_bytes = Some(share(GIB / 10, self.memory / 8.0));
        sample.temperature_celsius = Some(tenths(self.temperature));
        sample.disks = Some(vec![Disk {
            mount: "/".into(),
            used_bytes: share(self.disk_bytes, self.disk),
            total_bytes: self.disk_bytes,
            used_percent: tenths(self.disk * 100.0),
        }]);
        sample.disk_read_bytes_per_second = Some(self.dice.below(4096));
        sample.disk_write_bytes_per_second = Some(self.dice.below(65_536));
        sample.network_rx_bytes_per_second = Some(self.dice.below(20_000));
        sample.network_tx_bytes_per_second = Some(self.dice.below(9_000));
        sample.wifi_signal_dbm = self.has_wifi.then(|| -45 - i16::try_from(self.dice.below(30)).unwrap_or(0));
        sample.uptime_seconds = time.duration_since(self.booted).ok().map(|up| up.as_secs());
        sample.processes = Some(120 + u32::try_from(self.dice.below(40)).unwrap_or(0));
        sample.power = Some(Power::from_throttled(self.throttled_bits));
        sample
    }

    fn drift(&mut self) {
        let noise = (self.dice.fraction() - 0.5) * 0.08;
        let burst = if self.dice.chance(0.01) { 0.5 } else { 0.0 };
        self.load = (self.load + (self.usual_load - self.load) * 0.1 + noise + burst).clamp(0.005, 1.0);
        self.temperature += (38.0 + self.load * 40.0 - self.temperature) * 0.1;
        self.memory = (self.memory + (self.dice.fraction() - 0.5) * 0.004).clamp(0.05, 0.97);
        self.disk = (self.disk + self.dice.fraction() * 0.000_01).min(0.99);
        if self.dice.chance(0.000_2) {
            self.throttled_bits |= 0x10000;
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a measurement has few digits")]
fn tenths(value: f64) -> f32 {
    ((value * 10.0).round() / 10.0) as f32
}

#[expect(clippy::cast_possible_truncation, reason = "a measurement has few digits")]
fn hundredths(value: f64) -> f32 {
    ((value * 100.0).round() / 100.0) as f32
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of what is there"
)]
fn share(all: u64, share: f64) -> u64 {
    (all as f64 * share) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_history_and_samples_are_plausible() {
        let now = SystemTime::now();
        let mut one = Measurements::new(Dice::from_seed(7));
        let mut two = Measurements::new(Dice::from_seed(7));
        for _ in 0..1000 {
            let sample = one.at(now);
            assert_eq!(sample.cpu_percent, two.at(now).cpu_percent);
            assert!((0.0..=100.0).contains(&sample.cpu_percent.unwrap()));
            assert!((30.0..90.0).contains(&sample.temperature_celsius.unwrap()));
            assert!(sample.memory_used_bytes < sample.memory_total_bytes);
        }
    }
}
