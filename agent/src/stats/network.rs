//! Traffic of real interfaces from `/proc/net/dev`, and the Wi-Fi's signal from
//! `/proc/net/wireless` (proc(5)).

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use pistat_protocol::stats::Sample;

use super::{
    counter::{Rates, Reading},
    source::Source,
};

/// The bytes of each interface since it came up.
fn parse(text: &str) -> impl Iterator<Item = Reading> + '_ {
    text.lines().filter_map(|line| {
        let (name, values) = line.split_once(':')?;
        let mut values = values.split_ascii_whitespace();
        let received = values.next()?.parse().ok()?;
        let sent = values.nth(7)?.parse().ok()?;
        Some(Reading { name: name.trim().into(), bytes: [received, sent] })
    })
}

/// The interfaces with hardware behind them; bridges, tunnels and containers' ends would count the
/// same bytes twice.
fn is_real(root: &Path, name: &str) -> bool {
    root.join("sys/class/net").join(name).join("device").exists()
}

/// Names that only hardware, or a container's or virtual machine's stand-in for it, has.
fn has_name_of_hardware(name: &str) -> bool {
    ["eth", "en", "wl", "ww"].iter().any(|prefix| name.starts_with(prefix))
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    root: PathBuf,
    dev: Source,
    rates: Rates,
    /// The kind of each name that was seen, so that `/sys` is asked once.
    kinds: Vec<(Box<str>, bool)>,
}

impl Network {
    /// The network of the machine whose `/proc` and `/sys` are under `root`.
    pub(crate) fn new(root: &Path) -> Self {
        let dev = Source::new(root.join("proc/net/dev"));
        Self { root: root.to_owned(), dev, rates: Rates::new(), kinds: Vec::new() }
    }

    /// Reads the counters, so that the first sample has something to compare with.
    pub(crate) fn prime(&mut self, now: Instant) {
        let readings = self.read();
        let _ = self.rates.advance(readings, now);
    }

    /// Adds the rates since the last reading. An interface that came, went or was reset in between
    /// is not counted this time.
    pub(crate) fn fill(&mut self, sample: &mut Sample, now: Instant) {
        let readings = self.read();
        let sum = self.rates.advance(readings, now);
        (sample.network_rx_bytes_per_second, sample.network_tx_bytes_per_second) = sum.unzip();
    }

    fn read(&mut self) -> Vec<Reading> {
        let others = |text: &str| parse(text).filter(|counters| &*counters.name != "lo").collect::<Vec<_>>();
        let Some(all) = self.dev.read(others) else { return Vec::new() };
        if all.iter().any(|counters| !self.kinds.iter().any(|(name, _)| *name == counters.name)) {
            self.kinds = kinds(&self.root, &all);
        }
        let kinds = &self.kinds;
        let counts = |name: &str| kinds.iter().any(|(known, counts)| **known == *name && *counts);
        all.into_iter().filter(|counters| counts(&counters.name)).collect()
    }
}

fn kinds(root: &Path, all: &[Reading]) -> Vec<(Box<str>, bool)> {
    let real: Vec<_> = all.iter().map(|counters| (counters.name.clone(), is_real(root, &counters.name))).collect();
    if real.iter().any(|(_, real)| *real) {
        return real;
    }
    // In a container nothing is hardware, and its one interface is what people mean.
    all.iter().map(|counters| (counters.name.clone(), has_name_of_hardware(&counters.name))).collect()
}

/// The signal of the Wi-Fi interface that has one. The kernel asks the driver for it, and waits for
/// whoever changes a network meanwhile: it may hang.
pub(crate) fn wifi_signal(wireless: &mut Source) -> Option<i16> {
    wireless.read(parse_wireless)?
}

fn parse_wireless(text: &str) -> Option<i16> {
    let level = |line: &str| {
        let (_, values) = line.split_once(':')?;
        let level = values.split_ascii_whitespace().nth(2)?.trim_end_matches('.').parse::<i16>().ok()?;
        // Without a connection drivers write 0 or -256.
        (-130..0).contains(&level).then_some(level)
    };
    text.lines().skip(2).find_map(level)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WIRELESS: &str = "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n";

    #[test]
    fn the_signal_is_the_level_of_a_connected_interface() {
        let line = |values: &str| format!("{WIRELESS} wlan0: {values}\n");
        assert_eq!(
            parse_wireless(&line("0000   56.  -54.  -256        0      0      0      0      0        0")),
            Some(-54)
        );
        assert_eq!(parse_wireless(&line("0000    0.    0.  -256        0      0      0      0      0        0")), None);
        assert_eq!(parse_wireless(&line("0000    0.  -256.  -256       0      0      0      0      0        0")), None);
        assert_eq!(parse_wireless(WIRELESS), None);
    }

    fn write_dev(root: &Path, lines: &[(&str, u64, u64)]) {
        let line = |(name, rx, tx): &(&str, u64, u64)| format!("{name}: {rx} 1 0 0 0 0 0 0 {tx} 1 0 0 0 0 0 0\n");
        let lines = lines.iter().map(line).collect::<Vec<_>>().concat();
        std::fs::create_dir_all(root.join("proc/net")).unwrap();
        std::fs::write(root.join("proc/net/dev"), format!("Inter-|\n face |bytes\n{lines}")).unwrap();
    }

    #[test]
    fn interfaces_that_come_go_or_are_reset_are_not_counted() {
        let root = tempfile::tempdir().unwrap();
        for real in ["eth0", "wlan0"] {
            std::fs::create_dir_all(root.path().join(format!("sys/class/net/{real}/device"))).unwrap();
        }
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut network = Network::new(root.path());
        let mut rates = |seconds, lines: &[(&str, u64, u64)]| {
            write_dev(root.path(), lines);
            let mut sample = Sample::new(pistat_protocol::time::Timestamp::from_unix_milliseconds(0), false, 0);
            network.fill(&mut sample, at(seconds));
            sample.network_rx_bytes_per_second.zip(sample.network_tx_bytes_per_second)
        };
        assert_eq!(rates(0, &[("lo", 9, 9), ("eth0", 100, 100), ("docker0", 7, 7)]), None, "nothing to compare with");
        assert_eq!(rates(10, &[("lo", 99, 99), ("eth0", 1100, 600), ("docker0", 777, 7)]), Some((100, 50)));
        assert_eq!(rates(20, &[("eth0", 2100, 1100), ("wlan0", 5000, 5000)]), Some((100, 50)), "wlan0 is new");
        assert_eq!(rates(30, &[("eth0", 5, 5), ("wlan0", 6000, 5500)]), Some((100, 50)), "eth0 was reset");
        assert_eq!(rates(40, &[]), None);
    }
}
