//! Files that survive a power cut, and files that are read with a bound.
//!
//! A file is replaced by a temporary one beside it, `fsync`, rename, and `fsync` of the folder:
//! after a power cut there is the old or the new content, never half of either.
//!
//! A user who may write a file may also make it endless, a FIFO on which a reader hangs, or a
//! symbolic link to a file that only the reader may read. So every file is read up to a limit, and
//! a file in another user's folder is opened as [`read_foreign`] does.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

/// As much as any configuration, credential, token or certificate bundle has; the largest bundle of
/// a system has a quarter of it.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads a file that this process's own user named or owns.
///
/// # Errors
/// It cannot be read, or it has more than [`MAX_FILE_BYTES`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    take_all(File::open(path)?)
}

/// [`read`], for a text.
///
/// # Errors
/// As [`read`], and the text is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    into_text(read(path)?)
}

/// Reads a text in a folder that another user may write, for example as root: never through a
/// symbolic link, never anything but a regular file.
///
/// # Errors
/// As [`read_text`], and the file is not a regular one.
pub fn read_foreign(path: &Path) -> io::Result<String> {
    into_text(take_all(open_regular(CWD, path.as_os_str())?)?)
}

/// As [`read_foreign`], where each folder of the path may be another user's: no part of the path
/// may be a symbolic link. The file must belong to the owner of its folder, so that it is not a
/// hard link to a file of somebody else's.
///
/// # Errors
/// As [`read_foreign`]; a part of the path is a symbolic link; the file has another owner than its
/// folder.
pub fn read_foreign_without_links(path: &Path) -> io::Result<Vec<u8>> {
    let absolute = std::path::absolute(path)?;
    let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(invalid("it is not the path of a file"));
    };
    let folder = open_folder_without_links(folder)?;
    let file = open_regular(&folder, name)?;
    if file.metadata()?.uid() != File::from(folder).metadata()?.uid() {
        return Err(invalid("it does not belong to the owner of its folder"));
    }
    take_all(file)
}

fn open_folder_without_links(absolute: &Path) -> io::Result<OwnedFd> {
    const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let mut folder = openat(CWD, "/", FOLDER, Mode::empty())?;
    for part in absolute.components().filter(|part| *part != Component::RootDir) {
        folder = openat(&folder, part.as_os_str(), FOLDER, Mode::empty()).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => {
                invalid("a part of its path is a symbolic link or not a folder: name the real path")
            }
            other => other.into(),
        })?;
    }
    Ok(folder)
}

/// Opening waits for nothing, and what it opened is looked at, not what was there before.
fn open_regular(folder: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(invalid("it is a symbolic link, which is not followed")),
        // A socket, or a device without a driver.
        Err(Errno::NXIO) => return Err(invalid("it is not a regular file")),
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(invalid("it is not a regular file")) }
}

fn take_all(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

fn into_text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8 text"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// Its owner alone: it holds a secret or the hash of one.
    Owner,
    /// Everyone who may enter the folder.
    Everyone,
}

impl Readable {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everyone => 0o644,
        }
    }
}

/// The ending of a replacement that is not in its place yet.
pub const REPLACEMENT: &str = "new";

/// New content beside its file, on the disk already: all that may need room has been done.
pub struct Replacement<'p> {
    path: &'p Path,
    temporary: PathBuf,
}

impl<'p> Replacement<'p> {
    /// Writes new content for `path` beside it.
    ///
    /// # Errors
    /// The folder cannot be written, or what `write` returns.
    pub fn prepare(
        path: &'p Path,
        readable: Readable,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let replacement = Self { path, temporary: path.with_extension(REPLACEMENT) };
        let _ = fs::remove_file(&replacement.temporary);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(readable.mode()).open(&replacement.temporary)?;
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        Ok(replacement)
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn put(self) -> io::Result<()> {
        fs::rename(&self.temporary, self.path)?;
        sync_folder_of(self.path)
    }
}

impl Drop for Replacement<'_> {
    /// What is left of an attempt would take room on a disk that may be full.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Replaces a file atomically and durably.
///
/// # Errors
/// The folder cannot be written.
pub fn replace(path: &Path, bytes: &[u8], readable: Readable) -> io::Result<()> {
    Replacement::prepare(path, readable, |file| file.write_all(bytes))?.put()
}

/// Makes names that were changed in a file's folder durable.
///
/// # Errors
/// The folder cannot be read.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{FileType, mknodat};

    use super::*;

    /// A folder with a good file and one of each kind that must not be read.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        fs::create_dir(of("real")).unwrap();
        fs::write(of("real/good"), "good").unwrap();
        symlink(of("real/good"), of("real/link")).unwrap();
        symlink(of("real"), of("linked-folder")).unwrap();
        mknodat(CWD, of("real/fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        std::os::unix::net::UnixListener::bind(of("real/socket")).unwrap();
        File::create(of("real/endless")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        folder
    }

    #[test]
    fn a_file_of_another_users_folder_is_read_only_if_it_is_a_regular_one_of_a_bounded_size() {
        let folder = folder();
        let folder = fs::canonicalize(folder.path()).unwrap();
        assert_eq!(read_foreign(&folder.join("real/good")).unwrap(), "good");
        assert_eq!(read_foreign_without_links(&folder.join("real/good")).unwrap(), b"good");
        for (name, why) in [
            ("real/link", "symbolic link"),
            ("real/fifo", "not a regular file"),
            ("real/socket", "not a regular file"),
            ("real", "not a regular file"),
            ("real/endless", "more than"),
        ] {
            let error = read_foreign(&folder.join(name)).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
            let error = read_foreign_without_links(&folder.join(name)).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        assert_eq!(read_foreign(&folder.join("real/none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn no_part_of_a_path_may_be_a_symbolic_link_where_each_folder_may_be_another_users() {
        let folder = folder();
        let folder = fs::canonicalize(folder.path()).unwrap();
        let path = folder.join("linked-folder/good");
        assert_eq!(read_foreign(&path).unwrap(), "good", "a link in a folder of one's own is one's own");
        assert!(read_foreign_without_links(&path).unwrap_err().to_string().contains("symbolic link"));
    }

    #[test]
    fn a_device_without_an_end_is_not_read_to_its_end() {
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read_foreign(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole_and_readable_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        for (text, readable) in [("old", Readable::Everyone), ("new", Readable::Owner)] {
            replace(&path, text.as_bytes(), readable).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, readable.mode());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "old").unwrap();
        fs::create_dir(folder.path().join("a.new")).unwrap();
        assert!(replace(&path, b"new", Readable::Everyone).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
