//! What goes wrong.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use pistat_sim::Dice;
use pistat_tests::{Agent, Clock, Proxy, Stack};
use tempfile::TempDir;

/// The state disk: room for the register of minutes of chaos, and soon full.
const DISK: &str = "size=96m";

/// A small disk of its own for the state folder, where this machine allows one.
pub(super) struct Disk {
    folder: TempDir,
    is_mounted: bool,
}

impl Disk {
    pub(super) fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let is_mounted = mount
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|done| done.status.success());
        if !is_mounted {
            eprintln!("NOT TESTED HERE: a full state disk, since this machine allows no mounts (run as root)");
        }
        Self { folder, is_mounted }
    }

    pub(super) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Leaves no room, for so long.
    async fn fill(&self, time: Duration) {
        let filler = self.folder.path().join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        // It is meant to fail: then the disk is full.
        let _ = std::io::copy(&mut std::io::repeat(0), &mut file);
        tokio::time::sleep(time).await;
        std::fs::remove_file(&filler).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").args(["-l"]).arg(self.folder.path()).status();
        }
    }
}

/// Everything that is struck at.
pub(super) struct Chaos {
    pub(super) dice: Dice,
    pub(super) stack: Stack,
    pub(super) wire: Proxy,
    pub(super) agent: Agent,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    pub(super) struck: BTreeMap<&'static str, u64>,
}

impl Chaos {
    pub(super) async fn strike_for(&mut self, time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {
            tokio::time::sleep(self.dice.duration(Duration::from_millis(1500))).await;
            let ended = self.stack.process().ended();
            assert_eq!(ended, None, "the controller ended by itself: {:?}", self.stack.process().stderr());
            let kind = self.strike().await;
            *self.struck.entry(kind).or_default() += 1;
        }
        println!("struck: {:?}", self.struck);
    }

    async fn strike(&mut self) -> &'static str {
        match self.dice.below(100) {
            0..20 => {
                self.stack.kill();
                tokio::time::sleep(self.dice.duration(Duration::from_secs(2))).await;
                self.stack.restart().await;
                "killed the controller"
            }
            20..40 => {
                self.wire.cut();
                "cut the wires"
            }
            40..50 => {
                self.wire.close();
                tokio::time::sleep(self.dice.duration(Duration::from_secs(3))).await;
                self.wire.reopen();
                "closed the wires"
            }
            50..65 => {
                self.wire.delay(self.dice.duration(Duration::from_millis(400)));
                tokio::time::sleep(self.dice.duration(Duration::from_secs(3))).await;
                self.wire.delay(Duration::ZERO);
                "slowed the wires down"
            }
            65..75 if self.disk.is_mounted => {
                self.disk.fill(self.dice.duration(Duration::from_secs(3))).await;
                "filled the disk"
            }
            75..87 if self.clock.is_there() => {
                self.clock.jump(i64::try_from(self.dice.below(200_000)).unwrap() - 100_000);
                "turned the clock"
            }
            _ => {
                self.agent.kill();
                tokio::time::sleep(self.dice.duration(Duration::from_millis(500))).await;
                self.agent.restart();
                "killed the agent"
            }
        }
    }

    /// From now on nothing goes wrong.
    pub(super) async fn calm(mut self) -> (Stack, (Agent, Proxy, Disk, Clock)) {
        self.wire.delay(Duration::ZERO);
        self.wire.reopen();
        self.wire.speak_plainly();
        self.clock.jump(0);
        let ended = self.stack.process().ended();
        assert_eq!(ended, None, "the controller ended by itself: {:?}", self.stack.process().stderr());
        self.agent.sampled(&self.stack.http()).await;
        (self.stack, (self.agent, self.wire, self.disk, self.clock))
    }
}
