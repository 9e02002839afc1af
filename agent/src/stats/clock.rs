//! Whether this machine's clock is synchronised: a Pi has none that survives a power cut.
//!
//! systemd-timesyncd leaves a mark in `/run` when it is; with any other time service, systemd knows
//! it from the kernel (`timedatectl`), which costs a process and is asked once a minute until it
//! is, then once an hour. Without either, or where systemd does not run (`sd_booted(3)`), the clock
//! counts as not synchronised.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::facts::ReadOnlyCommand;

const WHILE_NOT: Duration = Duration::from_secs(60);
const WHILE_IS: Duration = Duration::from_secs(3600);

/// The state of the clock.
#[derive(Debug)]
pub(crate) struct Clock {
    mark: PathBuf,
    timesyncd: PathBuf,
    /// What is there where systemd runs: elsewhere its tool has nobody to ask.
    systemd: PathBuf,
    tool: PathBuf,
    told: bool,
    asked: bool,
    ask_at: Option<Instant>,
}

impl Clock {
    /// The clock of the machine whose `/run` is under `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            mark: root.join("run/systemd/timesync/synchronized"),
            timesyncd: root.join("run/systemd/timesync"),
            systemd: root.join("run/systemd/system"),
            tool: root.join("usr/bin/timedatectl"),
            told: false,
            asked: false,
            ask_at: None,
        }
    }

    /// Whether it is synchronised, as far as is known without asking anybody.
    pub(crate) fn is_synchronized(&self) -> bool {
        self.told || self.mark.exists()
    }

    /// The question to ask now, if it is time for one and the last has been answered.
    pub(crate) fn question(&mut self, now: Instant) -> Option<ReadOnlyCommand> {
        if self.asked || self.ask_at.is_some_and(|at| now < at) {
            return None;
        }
        self.ask_at = Some(now + if self.told { WHILE_IS } else { WHILE_NOT });
        self.asked = self.systemd.exists() && !self.timesyncd.exists();
        self.asked.then(|| ReadOnlyCommand::new(&self.tool, &["show", "--property=NTPSynchronized", "--value"]))
    }

    /// Takes the answer.
    pub(crate) fn answer(&mut self, text: &str) {
        self.asked = false;
        self.told = text.trim() == "yes";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_timesyncd_is_believed_and_nobody_is_asked() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run/systemd/timesync")).unwrap();
        let mut clock = Clock::new(root.path());
        assert!(!clock.is_synchronized() && clock.question(Instant::now()).is_none());
        std::fs::write(root.path().join("run/systemd/timesync/synchronized"), "").unwrap();
        assert!(clock.is_synchronized());
    }

    #[test]
    fn another_time_service_is_asked_for_now_and_then() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        std::fs::write(root.path().join("usr/bin/timedatectl"), "").unwrap();
        let mut clock = Clock::new(root.path());
        let now = Instant::now();
        assert!(clock.question(now).is_none(), "no systemd runs there");
        std::fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        let now = now + WHILE_NOT;
        assert!(clock.question(now).is_some() && clock.question(now).is_none());
        assert!(clock.question(now + 2 * WHILE_NOT).is_none(), "a question that hangs is not asked again");
        clock.answer("yes\n");
        assert!(clock.is_synchronized());
        assert!(clock.question(now + WHILE_NOT).is_some());
        assert!(clock.question(now + WHILE_IS).is_none());
        clock.answer("no\n");
        assert!(!clock.is_synchronized());
    }
}
