//! A program's wall clock that can be turned.

use std::{path::PathBuf, time::SystemTime};

use pistat_protocol::time::Timestamp;
use tempfile::TempDir;

use crate::stack;

/// How much older than the comparison what was told may be.
const SLACK_SECONDS: i64 = 3600;

/// A wall clock that jumps; it goes right where libfaketime is missing (Debian: `libfaketime`).
pub struct Clock {
    library: Option<PathBuf>,
    folder: TempDir,
}

impl Clock {
    /// A clock that goes right so far. Without libfaketime it says loudly that it will not jump,
    /// and fails where everything has to be tested (`CI`).
    ///
    /// # Panics
    /// A temporary folder cannot be made, or libfaketime is missing and `CI` is set.
    pub fn find() -> Self {
        let library = library();
        if library.is_none() {
            assert!(std::env::var_os("CI").is_none(), "libfaketime is not installed (Debian: libfaketime)");
            eprintln!("NOT TESTED HERE: a clock that jumps, since libfaketime is not installed (Debian: libfaketime)");
        }
        let clock = Self { library, folder: tempfile::tempdir().expect("a temporary folder can be made") };
        clock.jump(0);
        clock
    }

    /// Whether it can jump.
    pub fn is_there(&self) -> bool {
        self.library.is_some()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// Makes the controller's wall clock wrong by so many seconds.
    ///
    /// # Panics
    /// The clock's own folder cannot be written.
    pub fn jump(&self, seconds: i64) {
        let file = self.file();
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("the folder is ours");
        std::fs::rename(new, file).expect("the folder is ours");
    }

    /// Whether a time that the controller told within the last hour comes from a clock that was
    /// wrong by so many seconds.
    pub fn told(&self, time: Timestamp, seconds: i64) -> bool {
        let right = Timestamp::from(SystemTime::now());
        let wrong = (time.unix_milliseconds() - right.unix_milliseconds()) / 1000;
        (wrong - seconds).abs() < SLACK_SECONDS
    }

    /// Gives a controller this clock. Its monotonic clock stays right.
    #[must_use]
    pub fn wrap(&self, builder: stack::Builder) -> stack::Builder {
        self.environment().into_iter().fold(builder, |builder, (name, value)| builder.environment(name, &value))
    }

    /// What a program's environment needs for this clock.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let Some(library) = &self.library else { return Vec::new() };
        let file = self.file();
        vec![
            ("LD_PRELOAD", library.to_string_lossy().into_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_string_lossy().into_owned()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}

/// `/usr/lib/<architecture>/faketime/…` on Debian, `/usr/lib64/faketime/…` elsewhere.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok().into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders = folders.chain(["/usr/lib64".into()]);
    folders.find_map(|folder| Some(folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists()))
}
