//! What goes wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use pistat_protocol::task::TaskView;
use pistat_sim::Dice;
use pistat_testkit::{Agent, Clock, DEADLINE, Http, Proxy, Stack, eventually};
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

/// The catalogue's file, to which tasks are added meanwhile.
pub(super) struct Rewritten {
    file: PathBuf,
    text: String,
    times: u64,
}

impl Rewritten {
    pub(super) fn new(file: PathBuf) -> Self {
        let text = std::fs::read_to_string(&file).unwrap();
        Self { file, text, times: 0 }
    }

    /// As editors do: whoever reads meanwhile reads the old file or the new one.
    fn put(&self, added: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{}{added}", self.text)).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn put_good(&mut self) {
        self.times += 1;
        self.put(&format!("\n[task.chaos-{}]\ncommand = [\"true\"]\n", self.times));
    }

    fn put_broken(&self) {
        self.put("\n[task.chaos]\ncommand = [\"echo\", \"{nobody-said-what-this-is}\"]\n");
    }

    /// What the file says is what may run.
    pub(super) async fn is_in_force(&self, http: &Http) {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let in_file: BTreeSet<_> =
            text.lines().filter_map(|line| line.strip_prefix("[task.")?.strip_suffix(']')).map(str::to_owned).collect();
        eventually("the file is in force", DEADLINE, async || {
            let tasks: Vec<TaskView> = http.try_send("GET", "/api/tasks", None).await?.json();
            let in_force: BTreeSet<_> = tasks.into_iter().map(|task| task.id.to_string()).collect();
            if in_force == in_file { Ok(()) } else { Err(format!("{in_force:?}, but the file has {in_file:?}")) }
        })
        .await;
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
    pub(super) catalogue: Rewritten,
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
            0..18 => {
                self.stack.kill();
                tokio::time::sleep(self.dice.duration(Duration::from_secs(2))).await;
                self.stack.restart().await;
                "killed the controller"
            }
            18..35 => {
                self.wire.cut();
                "cut the wires"
            }
            35..45 => {
                self.wire.close();
                tokio::time::sleep(self.dice.duration(Duration::from_secs(3))).await;
                self.wire.reopen();
                "closed the wires"
            }
            45..59 => {
                self.wire.delay(self.dice.duration(Duration::from_millis(400)));
                tokio::time::sleep(self.dice.duration(Duration::from_secs(3))).await;
                self.wire.delay(Duration::ZERO);
                "slowed the wires down"
            }
            59..69 if self.disk.is_mounted => {
                self.disk.fill(self.dice.duration(Duration::from_secs(3))).await;
                "filled the disk"
            }
            69..80 if self.clock.is_there() => {
                self.clock.jump(i64::try_from(self.dice.below(200_000)).unwrap() - 100_000);
                "turned the clock"
            }
            80..88 => {
                if self.dice.chance(0.4) {
                    self.catalogue.put_broken();
                    tokio::time::sleep(self.dice.duration(Duration::from_secs(3))).await;
                }
                self.catalogue.put_good();
                "rewrote the catalogue"
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
    pub(super) async fn calm(mut self) -> (Stack, Rewritten, (Agent, Proxy, Disk, Clock)) {
        self.wire.delay(Duration::ZERO);
        self.wire.reopen();
        self.wire.speak_plainly();
        self.clock.jump(0);
        let ended = self.stack.process().ended();
        assert_eq!(ended, None, "the controller ended by itself: {:?}", self.stack.process().stderr());
        self.catalogue.put_broken();
        self.catalogue.put_good();
        self.agent.sampled(&self.stack.http()).await;
        (self.stack, self.catalogue, (self.agent, self.wire, self.disk, self.clock))
    }
}
