//! A controller's wall clock that can be turned.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::stack;

/// A wall clock that jumps; it goes right where libfaketime is missing (Debian: `libfaketime`).
pub struct Clock {
    library: Option<PathBuf>,
    folder: TempDir,
}

impl Clock {
    /// A clock that goes right so far. Without libfaketime it says loudly that it will not jump.
    ///
    /// # Panics
    /// A temporary folder cannot be made.
    pub fn find() -> Self {
        let library = std::fs::read_dir("/usr/lib").ok().into_iter().flatten().flatten();
        let library = library.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        if library.is_none() {
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

    /// Gives a controller this clock. Its monotonic clock stays right.
    #[must_use]
    pub fn wrap(&self, builder: stack::Builder) -> stack::Builder {
        let Some(library) = &self.library else { return builder };
        let file = self.file();
        builder
            .environment("LD_PRELOAD", &library.to_string_lossy())
            .environment("FAKETIME_TIMESTAMP_FILE", &file.to_string_lossy())
            .environment("FAKETIME_CACHE_DURATION", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .environment("DONT_FAKE_MONOTONIC", "1")
    }
}
