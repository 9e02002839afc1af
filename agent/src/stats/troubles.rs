//! Tests of what goes wrong on real machines: sensors that hang or vanish, interfaces that come and
//! go, counters that go back, clocks that jump, a machine that was suspended. Samples keep coming,
//! and what they say is right or left out.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use pistat_protocol::stats::Sample;

use super::{Sampler, boards::copy, sensors::LOOK};

/// Nothing takes so long; a sample that does hangs.
const DEADLINE: Duration = Duration::from_secs(30);

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A Pi 4 whose files can be changed, and whose time is the test's.
struct Board {
    folder: tempfile::TempDir,
    fixture: PathBuf,
    sampler: Option<Sampler>,
    wall: SystemTime,
    now: Instant,
}

impl Board {
    fn new() -> Self {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pi-4b");
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture, folder.path());
        Self { folder, fixture, sampler: None, wall: SystemTime::now(), now: Instant::now() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    /// In place of a file, one that hangs whoever opens it until somebody writes.
    fn hang(&self, path: &str) {
        let path = self.path(path);
        fs::remove_file(&path).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    }

    /// The counters of five seconds later.
    fn go_on(&self) {
        copy(&self.fixture.join("later"), self.folder.path());
    }

    /// The counters from before.
    fn go_back(&self) {
        for file in ["proc/stat", "proc/net/dev", "proc/diskstats"] {
            fs::copy(self.fixture.join(file), self.path(file)).unwrap();
        }
    }

    /// Starts to measure.
    fn start(&mut self) {
        self.now = Instant::now();
        self.sampler = Some(Sampler::new(self.folder.path(), self.now));
    }

    /// A sample so much later, by the monotonic clock.
    async fn after(&mut self, time: Duration) -> Sample {
        self.now += time;
        let sample = self.sampler.as_mut().unwrap().sample(self.wall, self.now, true);
        tokio::time::timeout(DEADLINE, sample).await.expect("a sample")
    }
}

const FIVE: Duration = Duration::from_secs(5);

/// What does not come from the sensor in question is all there.
fn is_complete_otherwise(sample: &Sample) -> bool {
    sample.cpu_percent.is_some()
        && sample.memory_percent.is_some()
        && sample.load1.is_some()
        && sample.network_rx_bytes_per_second.is_some()
        && sample.disk_read_bytes_per_second.is_some()
        && sample.disks.is_some()
        && sample.uptime_seconds.is_some()
        && sample.processes.is_some()
}

#[tokio::test]
async fn a_sensor_that_hangs_is_left_out_and_comes_back() {
    const SENSOR: &str = "sys/class/thermal/thermal_zone0/temp";
    let mut board = Board::new();
    board.hang(SENSOR);
    board.start();
    board.go_on();
    let sample = board.after(FIVE).await;
    assert!(sample.temperature_celsius.is_none() && is_complete_otherwise(&sample), "{sample:?}");
    assert!(board.after(FIVE).await.temperature_celsius.is_none(), "and nobody waits for it again");
    // It answers at last; what it says is too old to be believed.
    let held = board.path(SENSOR);
    let answer = tokio::task::spawn_blocking(move || {
        fs::write(&held, "99000\n").unwrap();
        fs::remove_file(&held).unwrap();
        fs::write(&held, "48312\n").unwrap();
    });
    answer.await.unwrap();
    let back = async {
        loop {
            if let Some(celsius) = board.after(FIVE).await.temperature_celsius {
                break celsius;
            }
        }
    };
    let celsius = tokio::time::timeout(DEADLINE, back).await.expect("it comes back");
    assert!((celsius - 48.3).abs() < 0.01, "{celsius}");
}

#[tokio::test]
async fn a_clock_that_hangs_holds_up_no_sample() {
    let mut board = Board::new();
    board.hang("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq");
    board.start();
    board.go_on();
    let sample = board.after(FIVE).await;
    assert!(sample.cpu_mhz.is_none() && is_complete_otherwise(&sample), "{sample:?}");
    assert!(sample.temperature_celsius.is_some() && sample.power.is_some(), "{sample:?}");
}

#[tokio::test]
async fn sensors_whose_drivers_are_loaded_later_or_anew_are_found_within_a_minute() {
    let mut board = Board::new();
    let later = ["sys/class", "sys/bus", "sys/devices", "proc/net/wireless"];
    for path in later {
        let kept = board.path("kept").join(path);
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::rename(board.path(path), kept).unwrap();
    }
    board.start();
    let none = board.after(FIVE).await;
    assert_eq!((none.temperature_celsius, none.cpu_mhz, none.wifi_signal_dbm), (None, None, None));
    assert_eq!(none.power, None);
    for path in later {
        fs::rename(board.path("kept").join(path), board.path(path)).unwrap();
    }
    let wireless = "Inter-|\n face |\n wlan0: 0000   56.  -54.  -256        0      0      0      0      0        0\n";
    board.write("proc/net/wireless", wireless);
    assert_eq!(board.after(FIVE).await.temperature_celsius, None, "not looked for each time");
    let there = board.after(LOOK).await;
    assert_eq!((there.temperature_celsius, there.cpu_mhz, there.wifi_signal_dbm), (Some(48.3), Some(1500), Some(-54)));
    assert!(there.power.is_some());
    // Its driver goes, and comes back under another name.
    board.write("sys/class/thermal/thermal_zone0/temp", "");
    let thermal = board.path("sys/class/thermal");
    fs::rename(thermal.join("thermal_zone0"), thermal.join("thermal_zone1")).unwrap();
    assert_eq!(board.after(FIVE).await.temperature_celsius, None);
    let new = thermal.join("thermal_zone1/temp");
    fs::remove_file(&new).unwrap();
    fs::write(&new, "50000\n").unwrap();
    fs::remove_dir_all(board.path("sys/class/hwmon/hwmon0")).unwrap();
    assert_eq!(board.after(LOOK).await.temperature_celsius, Some(50.0));
}

#[tokio::test]
async fn a_radio_that_hangs_costs_its_own_value_only() {
    let mut board = Board::new();
    board.hang("proc/net/wireless");
    board.start();
    board.go_on();
    let sample = board.after(FIVE).await;
    assert!(sample.wifi_signal_dbm.is_none() && is_complete_otherwise(&sample), "{sample:?}");
    assert!(sample.temperature_celsius.is_some() && sample.power.is_some(), "{sample:?}");
}

#[tokio::test]
async fn firmware_that_hangs_leaves_power_unknown_and_nothing_else() {
    let mut board = Board::new();
    fs::remove_dir_all(board.path("sys/bus")).unwrap();
    board.hang("sys/class/hwmon/hwmon1/in0_lcrit_alarm");
    board.start();
    board.go_on();
    let sample = board.after(FIVE).await;
    assert!(sample.power.is_none() && sample.temperature_celsius.is_some(), "{sample:?}");
    assert!(is_complete_otherwise(&sample));
}

#[tokio::test]
async fn files_that_are_missing_or_say_nonsense_cost_their_own_value_only() {
    let mut board = Board::new();
    fs::remove_dir_all(board.path("sys/devices/system/cpu/cpufreq")).unwrap();
    fs::remove_file(board.path("proc/net/wireless")).unwrap();
    board.write("sys/class/thermal/thermal_zone0/temp", "unknown\n");
    board.write("sys/bus/platform/drivers/raspberrypi-firmware/firmware/get_throttled", "");
    board.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "yes\n");
    board.start();
    board.go_on();
    let sample = board.after(FIVE).await;
    assert!(is_complete_otherwise(&sample), "{sample:?}");
    assert_eq!((sample.cpu_mhz, sample.temperature_celsius, sample.wifi_signal_dbm), (None, None, None));
    assert_eq!(sample.power, None, "unknown, not well");
    for (file, text) in [("proc/meminfo", ""), ("proc/loadavg", "\u{fffd}"), ("proc/uptime", "x"), ("proc/stat", "cpu")]
    {
        board.write(file, text);
    }
    let sample = board.after(FIVE).await;
    assert_eq!((sample.memory_percent, sample.load1, sample.uptime_seconds), (None, None, None));
    assert_eq!((sample.cpu_percent, sample.cpu_cores_percent), (None, None));
    assert_eq!(sample.seq, 1);
}

#[tokio::test]
async fn an_interface_or_disk_that_vanishes_takes_its_own_traffic_with_it() {
    let mut board = Board::new();
    board.start();
    board.go_on();
    let both = board.after(FIVE).await;
    assert_eq!(both.network_rx_bytes_per_second, Some(2 * 70_000 / 5));
    assert_eq!(both.disk_read_bytes_per_second, Some(2 * 2048 * 512 / 5));
    let without = |path: &str, name: &str| {
        let text = fs::read_to_string(board.path(path)).unwrap();
        let kept: Vec<_> = text.lines().filter(|line| !line.contains(name)).collect();
        board.write(path, &(kept.join("\n") + "\n"));
    };
    without("proc/net/dev", "wlan0");
    without("proc/diskstats", "sda");
    let one = board.after(FIVE).await;
    assert_eq!((one.network_rx_bytes_per_second, one.disk_read_bytes_per_second), (Some(0), Some(0)));
    board.go_on();
    let back = board.after(FIVE).await;
    assert_eq!(back.network_rx_bytes_per_second, Some(0), "what came while it was not looked at is not counted");
}

#[tokio::test]
async fn counters_that_go_back_yield_nothing_and_then_go_on() {
    let mut board = Board::new();
    board.start();
    board.go_on();
    assert!(board.after(FIVE).await.cpu_percent.is_some());
    board.go_back();
    let sample = board.after(FIVE).await;
    assert_eq!((sample.cpu_percent, sample.cpu_cores_percent), (None, None));
    assert_eq!((sample.network_rx_bytes_per_second, sample.network_tx_bytes_per_second), (None, None));
    assert_eq!((sample.disk_read_bytes_per_second, sample.disk_write_bytes_per_second), (None, None));
    board.go_on();
    assert!(board.after(FIVE).await.network_rx_bytes_per_second.is_some());
}

#[tokio::test]
async fn counters_that_read_zero_for_a_moment_yield_no_giant_rates() {
    let mut board = Board::new();
    board.start();
    let files = ["proc/stat", "proc/net/dev", "proc/diskstats"];
    let zero = |text: &str| {
        let word = |word: &str| if word.parse::<u64>().is_ok() { "0".to_owned() } else { word.to_owned() };
        let line = |line: &str| line.split_ascii_whitespace().map(word).collect::<Vec<_>>().join(" ");
        text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
    };
    for file in files {
        let text = fs::read_to_string(board.path(file)).unwrap();
        // The first columns of disks are their numbers, which parsing does not look at.
        board.write(file, &zero(&text));
    }
    board.after(FIVE).await;
    board.go_on();
    let sample = board.after(FIVE).await;
    assert_eq!((sample.cpu_percent, sample.cpu_cores_percent), (None, None));
    assert_eq!((sample.network_rx_bytes_per_second, sample.network_tx_bytes_per_second), (None, None));
    assert_eq!((sample.disk_read_bytes_per_second, sample.disk_write_bytes_per_second), (None, None));
}

#[tokio::test]
async fn a_clock_that_jumps_by_years_under_a_running_sampler_changes_the_time_and_nothing_else() {
    let mut board = Board::new();
    board.start();
    board.go_on();
    let first = board.after(FIVE).await;
    let beginning = board.wall;
    let walls = [beginning + 40 * YEAR, beginning - 30 * YEAR, SystemTime::UNIX_EPOCH - YEAR, beginning + 9000 * YEAR];
    for (wall, seq) in walls.into_iter().zip((2..).step_by(2)) {
        // Something to compare with, by the clock that was right, or wrong, before.
        board.go_back();
        board.after(FIVE).await;
        board.go_on();
        board.wall = wall;
        let sample = board.after(FIVE).await;
        assert_eq!(sample.seq, seq);
        assert_ne!(sample.time, first.time);
        // The disk is this machine's own, and others write to it.
        let same_but_for_time = Sample { time: first.time, seq: first.seq, disks: first.disks.clone(), ..sample };
        assert_eq!(same_but_for_time, first);
        // A receiver understands whatever time it says.
        let json = pistat_protocol::codec::encode(&same_but_for_time);
        assert_eq!(serde_json::from_slice::<Sample>(&json).unwrap(), first);
    }
}

#[tokio::test]
async fn a_suspended_machine_tells_no_rates_of_the_time_it_slept() {
    let mut board = Board::new();
    board.start();
    board.go_on();
    // Eight hours by the wall, five seconds by the clock that stands still meanwhile, as the
    // counters do.
    board.wall += Duration::from_secs(8 * 3600);
    board.write("proc/uptime", "3579823.52 12345678.90\n");
    let sample = board.after(FIVE).await;
    assert_eq!(sample.network_rx_bytes_per_second, Some(2 * 70_000 / 5));
    assert_eq!((sample.cpu_percent, sample.uptime_seconds), (Some(22.5), Some(3_579_823)));
}

#[tokio::test]
async fn two_samples_at_the_same_moment_share_no_rates() {
    let mut board = Board::new();
    board.start();
    board.after(FIVE).await;
    board.go_on();
    let sample = board.after(Duration::ZERO).await;
    assert_eq!((sample.network_rx_bytes_per_second, sample.disk_read_bytes_per_second), (None, None));
}
