//! A small file of `/proc` or `/sys` that is kept open and read again from its start.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

/// What the kernel makes such a file up in, at least (its `PAGE_SIZE`).
const PAGE_BYTES: usize = 4096;

/// A read that leaves so much of a page has reached the end: the kernel stops short of it only when the next record does not fit into the page,
/// and no record of most files is so long, but for those that are one record and come whole.
const LONGEST_RECORD_BYTES: usize = 1024;

/// More than any of the files has: what comes after it in `/proc/stat` or `diskstats` of huge machines is not needed.
const MOST_BYTES: usize = 64 * 1024;

/// One file.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: Option<File>,
    text: Vec<u8>,
    longest_record: usize,
}

impl Source {
    /// A file that may or may not be there.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, text: Vec::new(), longest_record: LONGEST_RECORD_BYTES }
    }

    /// A file whose records may be of any length, as the mounts of containers are: only an empty read is its end.
    pub(crate) fn with_long_records(path: PathBuf) -> Self {
        Self { longest_record: PAGE_BYTES, ..Self::new(path) }
    }

    /// Its present content; `None` when it is not there, cannot be read, or is not text.
    pub(crate) fn read(&mut self) -> Option<&str> {
        let length = self.read_open_file().or_else(|| {
            // Its device may have vanished and come back: open it anew, once.
            self.file = File::open(&self.path).ok();
            self.read_open_file()
        })?;
        std::str::from_utf8(&self.text[..length]).ok()
    }

    fn read_open_file(&mut self) -> Option<usize> {
        let file = self.file.as_ref()?;
        let mut length = 0;
        loop {
            if self.text.len() < length + PAGE_BYTES {
                self.text.resize(length + PAGE_BYTES, 0);
            }
            match file.read_at(&mut self.text[length..], length as u64).ok()? {
                0 => return Some(length),
                read if read + self.longest_record <= PAGE_BYTES => return Some(length + read),
                read if length + read >= MOST_BYTES => return Some(complete_lines(&self.text[..length + read])),
                read => length += read,
            }
        }
    }
}

fn complete_lines(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_vanishes_and_comes_back_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        let mut source = Source::new(path.clone());
        assert_eq!(source.read(), None);
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(source.read(), Some("1\n"));
        std::fs::write(&path, "20\n").unwrap();
        assert_eq!(source.read(), Some("20\n"));
    }

    #[test]
    fn a_long_file_is_cut_at_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        std::fs::write(&path, "0123456789\n".repeat(20_000)).unwrap();
        let mut source = Source::new(path);
        let text = source.read().unwrap();
        assert!(text.len() <= MOST_BYTES + 4096 && text.ends_with("9\n"));
    }
}
