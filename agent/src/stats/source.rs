//! A small file of `/proc` or `/sys` that is kept open and read again from its start.
//!
//! Nothing of what was read is kept: it lies on the stack while it is parsed, or for a moment on
//! the heap where it is longer.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

/// What the kernel makes such a file up in, at least (its `PAGE_SIZE`).
const PAGE_BYTES: usize = 4096;

/// A read that leaves so much of a page has reached the end: the kernel stops short of it only when
/// the next record does not fit into the page, and no record of most files is so long, but for
/// those that are one record and come whole.
const LONGEST_RECORD_BYTES: usize = 1024;

/// Two pages hold most files with room for the read that finds the end.
const STACK_BYTES: usize = 2 * PAGE_BYTES;

/// More than any of the files has: what comes after it in `/proc/stat` or `diskstats` of huge
/// machines is not needed.
const MOST_BYTES: usize = 64 * 1024;

/// The same of a file with long records: a host of hundreds of containers has as many mounts, each
/// with the names of all its layers.
const MOST_LONG_BYTES: usize = 1024 * 1024;

/// One file.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: Option<File>,
    longest_record: usize,
    most_bytes: usize,
}

impl Source {
    /// A file that may or may not be there.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, longest_record: LONGEST_RECORD_BYTES, most_bytes: MOST_BYTES }
    }

    /// A file whose records may be of any length, as the mounts of containers are: only an empty
    /// read is its end.
    pub(crate) fn with_long_records(path: PathBuf) -> Self {
        Self { longest_record: PAGE_BYTES, most_bytes: MOST_LONG_BYTES, ..Self::new(path) }
    }

    /// Parses its present content; `None` when it is not there or cannot be read. Bytes that are no
    /// text are replaced, and the rest is there.
    pub(crate) fn read<T>(&mut self, parse: impl FnOnce(&str) -> T) -> Option<T> {
        self.read_bytes(|text| parse(&String::from_utf8_lossy(text)))
    }

    /// Parses its present content as it is: the name of a mount point need not be text.
    pub(crate) fn read_bytes<T>(&mut self, parse: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let (mut page, mut longer) = ([0; STACK_BYTES], Vec::new());
        self.read_all(&mut page, &mut longer).map(parse)
    }

    fn read_all<'a>(&mut self, page: &'a mut [u8; STACK_BYTES], longer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let length = self.read_open_file(page, longer).or_else(|| {
            // Its device may have vanished and come back: open it anew, once.
            longer.clear();
            self.file = File::open(&self.path).ok();
            self.read_open_file(page, longer)
        })?;
        Some(if longer.is_empty() { &page[..length] } else { &longer[..length] })
    }

    fn read_open_file(&self, page: &mut [u8; STACK_BYTES], longer: &mut Vec<u8>) -> Option<usize> {
        let file = self.file.as_ref()?;
        let mut length = 0;
        loop {
            if length + PAGE_BYTES > STACK_BYTES {
                if longer.is_empty() {
                    longer.extend_from_slice(&page[..length]);
                }
                longer.resize(length + PAGE_BYTES, 0);
            }
            let room = if longer.is_empty() { &mut page[length..] } else { &mut longer[length..] };
            match file.read_at(room, length as u64).ok()? {
                0 => return Some(length),
                read if read + self.longest_record <= PAGE_BYTES => return Some(length + read),
                read if length + read >= self.most_bytes => {
                    let text = if longer.is_empty() { &page[..] } else { &longer[..] };
                    return Some(complete_lines(&text[..length + read]));
                }
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

    fn source(content: &[u8]) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        std::fs::write(&path, content).unwrap();
        (folder, Source::new(path))
    }

    #[test]
    fn a_file_that_vanishes_and_comes_back_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        let mut source = Source::new(path.clone());
        assert_eq!(source.read(str::to_owned), None);
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(source.read(str::to_owned).as_deref(), Some("1\n"));
        std::fs::write(&path, "20\n").unwrap();
        assert_eq!(source.read(str::to_owned).as_deref(), Some("20\n"));
    }

    #[test]
    fn files_of_any_length_come_whole_and_again() {
        for lines in [1, 300, 400, 745, 1000, 5000] {
            let text = "0123456789\n".repeat(lines);
            let (_folder, mut source) = source(text.as_bytes());
            for _ in 0..2 {
                assert_eq!(source.read(str::to_owned).as_deref(), Some(&*text), "{lines} lines");
            }
        }
    }

    #[test]
    fn a_long_file_is_cut_at_a_line() {
        let (_folder, mut source) = source("0123456789\n".repeat(20_000).as_bytes());
        let text = source.read(str::to_owned).unwrap();
        assert!(text.len() >= MOST_BYTES - 4096 && text.len() <= MOST_BYTES + 4096 && text.ends_with("9\n"));
    }

    #[test]
    fn a_file_with_long_records_may_be_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mounts");
        let text = format!("{}\n", "x".repeat(3000)).repeat(200);
        std::fs::write(&path, &text).unwrap();
        let mut source = Source::with_long_records(path);
        assert_eq!(source.read_bytes(<[u8]>::len), Some(text.len()));
    }

    #[test]
    fn bytes_that_are_no_text_spoil_nothing_else() {
        let (_folder, mut source) = source(b"/dev/sda1 / ext4\n/dev/sdb1 /media/caf\xe9 vfat\n");
        assert_eq!(source.read(|text| text.lines().count()), Some(2));
    }
}
