//! Tests of the whole sampler over the shapes of real boards (`fixtures/`, which says where they
//! come from).

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use pistat_protocol::stats::{Power, Sample};

use super::{Sampler, sensors::SLOW};
use crate::facts::Facts;

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// How often a value that came late is asked for again.
const MAX_REPEATS: u32 = 100;

/// A sample of a board after its counters have moved on.
async fn sample(board: &str) -> (Sample, Facts) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(board);
    let root = tempfile::tempdir().unwrap();
    copy(&fixture, root.path());
    let start = Instant::now();
    let mut sampler = Sampler::new(root.path(), start);
    copy(&fixture.join("later"), root.path());
    // Every mount of the board is a folder here, as those that the kernel makes up: only the table
    // says which are file systems on disks.
    for line in fs::read_to_string(root.path().join("proc/self/mountinfo")).unwrap().lines() {
        let mount = line.split(' ').nth(4).unwrap().replace("\\040", " ");
        fs::create_dir_all(root.path().join(mount.trim_start_matches('/'))).unwrap();
    }
    let (wall, now) = (SystemTime::now(), start + Duration::from_secs(5));
    let mut sample = sampler.sample(wall, now, true).await;
    // A board's own tool is a process, and on a busy machine it may miss its deadline for once.
    for later in 1..=MAX_REPEATS {
        if sample.power.is_none() {
            sample.power = sampler.sample(wall, now + later * SLOW, true).await.power;
        }
    }
    (sample, Facts::read(root.path()))
}

struct Expected {
    board: &'static str,
    model: &'static str,
    serial: &'static str,
    cores: usize,
    mhz: u32,
    temperature: f32,
    memory_total: u64,
    wifi: Option<i16>,
    power: Power,
    mounts: &'static [&'static str],
}

fn expected() -> [Expected; 4] {
    let zero = Expected {
        board: "pi-zero-w",
        model: "Raspberry Pi Zero W Rev 1.1",
        serial: "000000001a2b3c4d",
        cores: 1,
        mhz: 700,
        temperature: 38.4,
        memory_total: 441_204 * 1024,
        wifi: Some(-61),
        power: Power::from_throttled(0x50005),
        mounts: &["/", "/boot"],
    };
    let three = Expected {
        board: "pi-3b-plus",
        model: "Raspberry Pi 3 Model B Plus Rev 1.3",
        serial: "00000000e1f2a3b4",
        cores: 4,
        mhz: 1400,
        temperature: 56.9,
        memory_total: 948_304 * 1024,
        wifi: None,
        // A kernel without the firmware's file, and without its tool: only the alarm is known.
        power: Power { undervoltage: Some(false), ..Power::default() },
        mounts: &["/", "/boot"],
    };
    let four = Expected {
        board: "pi-4b",
        model: "Raspberry Pi 4 Model B Rev 1.4",
        serial: "10000000a1b2c3d4",
        cores: 4,
        mhz: 1500,
        temperature: 48.3,
        memory_total: 3_884_376 * 1024,
        wifi: None,
        // Without its tool, as on other distributions: what the kernel has forgotten may have been
        // all the same.
        power: Power {
            frequency_capped_since_boot: None,
            temperature_limited_since_boot: None,
            raw: None,
            ..Power::from_throttled(0x50000)
        },
        mounts: &["/", "/boot/firmware", "/media/backup disk"],
    };
    let five = Expected {
        board: "pi-5",
        model: "Raspberry Pi 5 Model B Rev 1.0",
        serial: "a1b2c3d4e5f60718",
        cores: 4,
        mhz: 2400,
        temperature: 51.2,
        memory_total: 8_256_512 * 1024,
        wifi: Some(-48),
        power: Power::from_throttled(0),
        mounts: &["/", "/boot/firmware"],
    };
    [zero, three, four, five]
}

#[tokio::test]
async fn every_board_tells_what_it_can() {
    for expected in expected() {
        let (sample, facts) = sample(expected.board).await;
        let board = expected.board;
        let bytes = pistat_protocol::codec::encode(&sample).len();
        println!("{board}: {bytes} bytes");
        assert!(
            bytes <= 1100,
            "{board}: what is said of a day's samples (`DEFAULT_BACKLOG_SAMPLES`) goes by {bytes} bytes"
        );
        assert_eq!(facts.model.as_deref(), Some(expected.model), "{board}");
        assert_eq!(facts.serial.as_deref(), Some(expected.serial), "{board}");
        assert!(facts.os.is_some_and(|os| os.contains("bookworm")), "{board}");
        assert_eq!(sample.cpu_percent, Some(22.5), "{board}");
        assert_eq!(sample.cpu_cores_percent, Some(vec![22.5; expected.cores]), "{board}");
        assert_eq!(sample.cpu_mhz, Some(expected.mhz), "{board}");
        assert_eq!(sample.temperature_celsius, Some(expected.temperature), "{board}");
        assert_eq!(sample.memory_total_bytes, Some(expected.memory_total), "{board}");
        assert!(sample.memory_used_bytes < sample.memory_total_bytes && sample.memory_percent > Some(0.0), "{board}");
        assert!(sample.swap_used_bytes <= sample.swap_total_bytes && sample.swap_total_bytes.is_some(), "{board}");
        assert_eq!(sample.wifi_signal_dbm, expected.wifi, "{board}");
        assert_eq!(sample.power, Some(expected.power), "{board}");
        assert_eq!((sample.uptime_seconds, sample.load1), (Some(3_551_023), Some(0.31)), "{board}");
        assert_eq!(sample.processes, Some(4), "{board}");
        assert!(
            sample.network_rx_bytes_per_second > Some(0) && sample.network_tx_bytes_per_second > Some(0),
            "{board}"
        );
        assert!(sample.disk_read_bytes_per_second > Some(0) && sample.disk_write_bytes_per_second > Some(0), "{board}");
        let disks: Vec<_> = sample.disks.unwrap_or_default().into_iter().map(|disk| disk.mount).collect();
        assert_eq!(disks, expected.mounts, "{board}");
    }
}

#[tokio::test]
async fn a_machine_that_tells_nothing_yields_a_sample_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let mut sampler = Sampler::new(root.path(), Instant::now());
    let sample = sampler.sample(SystemTime::now(), Instant::now(), false).await;
    assert_eq!(sample, Sample::new(sample.time, false, 0));
}
