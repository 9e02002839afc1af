//! The sensors: temperature, the processor's clock, the Wi-Fi's signal and power health. Each may
//! hang, be missing at first, or go and come back under another name, as when its driver is loaded
//! later: then the others are there all the same.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pistat_protocol::stats::{Power, Sample};

use super::{
    cpu::Clocks,
    guarded::{ProbeThread, TimedProbe},
    is_due,
    network::wifi_signal,
    power::PowerHealth,
    source::Source,
    temperature::Thermometer,
};

/// A sensor that takes longer than this is unknown for this sample.
const DEADLINE: Duration = Duration::from_millis(250);

/// Power health and the Wi-Fi's signal are asked at most so often.
pub(super) const SLOW: Duration = Duration::from_secs(5);

/// How often those that say nothing are looked for: some ten small files of `/sys`.
pub(super) const LOOK: Duration = Duration::from_secs(60);

/// A measurement that may hang, and may know nothing.
type Probe<T> = TimedProbe<Option<T>>;

/// All of them.
pub(crate) struct Sensors {
    root: PathBuf,
    thread: ProbeThread,
    looked_at: Instant,
    temperature: Sensor<f32>,
    clock: Sensor<u32>,
    wifi: Sensor<i16>,
    power: Sensor<Power>,
}

impl Sensors {
    /// Those of the machine whose `/proc` and `/sys` are under `root`.
    pub(crate) fn new(root: &Path, now: Instant) -> Self {
        let mut sensors = Self {
            root: root.to_owned(),
            thread: ProbeThread::default(),
            looked_at: now,
            temperature: Sensor::new(find_thermometer, Duration::ZERO),
            clock: Sensor::new(find_clocks, Duration::ZERO),
            wifi: Sensor::new(find_wifi, SLOW),
            power: Sensor::new(find_power, SLOW),
        };
        sensors.look();
        sensors
    }

    /// Adds what they say.
    pub(crate) async fn fill(&mut self, sample: &mut Sample, now: Instant) {
        if is_due(now, self.looked_at, LOOK) {
            self.looked_at = now;
            self.look();
        }
        let thread = &mut self.thread;
        sample.temperature_celsius = self.temperature.ask(thread, now).await;
        sample.cpu_mhz = self.clock.ask(thread, now).await;
        sample.wifi_signal_dbm = self.wifi.ask(thread, now).await;
        sample.power = self.power.ask(thread, now).await;
    }

    fn look(&mut self) {
        self.temperature.look(&self.root);
        self.clock.look(&self.root);
        self.wifi.look(&self.root);
        self.power.look(&self.root);
    }
}

/// One sensor. Its value is valid until it is asked again.
struct Sensor<T> {
    find: fn(&Path) -> Option<Probe<T>>,
    period: Duration,
    probe: Option<Probe<T>>,
    asked_at: Option<Instant>,
    value: Option<T>,
}

impl<T: Clone + Send + 'static> Sensor<T> {
    fn new(find: fn(&Path) -> Option<Probe<T>>, period: Duration) -> Self {
        Self { find, period, probe: None, asked_at: None, value: None }
    }

    /// Looks for it while it says nothing. One that hangs is there, and keeps its one thread.
    fn look(&mut self, root: &Path) {
        if self.value.is_none() && !self.probe.as_ref().is_some_and(TimedProbe::hangs) {
            self.probe = (self.find)(root);
        }
    }

    async fn ask(&mut self, thread: &mut ProbeThread, now: Instant) -> Option<T> {
        let probe = self.probe.as_mut()?;
        if self.asked_at.is_none_or(|at| is_due(now, at, self.period)) {
            self.asked_at = Some(now);
            self.value = probe.ask(thread, DEADLINE).await.flatten();
        }
        self.value.clone()
    }
}

fn find_thermometer(root: &Path) -> Option<Probe<f32>> {
    Thermometer::find(root).map(|mut thermometer| TimedProbe::new("temperature", move || thermometer.read()))
}

fn find_clocks(root: &Path) -> Option<Probe<u32>> {
    Clocks::find(root).map(|mut clocks| TimedProbe::new("clock", move || clocks.read()))
}

/// A kernel that knows of radios has the file before there is one.
fn find_wifi(root: &Path) -> Option<Probe<i16>> {
    let wireless = Some(root.join("proc/net/wireless")).filter(|path| path.exists()).map(Source::new);
    wireless.map(|mut wireless| TimedProbe::new("wifi", move || wifi_signal(&mut wireless)))
}

fn find_power(root: &Path) -> Option<Probe<Power>> {
    PowerHealth::find(root).map(|mut power| TimedProbe::new("power", move || power.read()))
}
