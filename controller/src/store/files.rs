//! Plain files of the state folder: read once at the start, replaced atomically afterwards.
//!
//! A file that cannot be read as what it should be is set aside under a new name and reported; it
//! is never overwritten.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use pistat_support::file::{Readable, Replacement};
use serde::{Serialize, de::DeserializeOwned};

/// JSON, indented for people. Its text, which has megabytes for a large fleet, is never in memory
/// as a whole.
pub(crate) fn prepare_json<'p, T: Serialize>(
    path: &'p Path,
    value: &T,
    readable: Readable,
) -> io::Result<Replacement<'p>> {
    Replacement::prepare(path, readable, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

/// Replaces a JSON file, indented for people.
pub(crate) fn replace_json<T: Serialize>(path: &Path, value: &T, readable: Readable) -> io::Result<()> {
    prepare_json(path, value, readable)?.put()
}

/// A file's content, if there is one. What is there and cannot be read (a folder, a sector that is
/// gone) is set aside, and named in `damaged`.
///
/// # Errors
/// This user may not read it: nothing is damaged, and whoever took the right away can give it back.
/// The error names the file.
pub(crate) fn read(path: &Path, damaged: &mut Vec<String>) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(naming(path, &error)),
        Err(error) => {
            let kept = set_aside(path)?;
            damaged.push(format!(
                "{} cannot be read ({error}); it was set aside as {} and a new one begins empty",
                path.display(),
                kept.display()
            ));
            Ok(None)
        }
    }
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A JSON file's value; the default when there is none. A damaged one is set aside, and named in
/// `damaged`.
pub(crate) fn load_json<T: DeserializeOwned + Default>(path: &Path, damaged: &mut Vec<String>) -> io::Result<T> {
    let Some(text) = read(path, damaged)? else { return Ok(T::default()) };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(value),
        Err(error) => {
            let kept = set_aside(path)?;
            damaged.push(format!(
                "{} is damaged ({error}); it was set aside as {} and a new one begins empty",
                path.display(),
                kept.display()
            ));
            Ok(T::default())
        }
    }
}

/// Renames a damaged file to a name that nobody uses, and tells it.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let kept = path.with_file_name(format!("{name}.damaged-{stamp}"));
    fs::rename(path, &kept).map_err(|error| naming(path, &error))?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

    use super::*;

    type Labels = BTreeMap<String, String>;

    #[test]
    fn a_file_is_replaced_whole_and_readable_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let labels: Labels = [("pi-1".to_string(), "Rack".to_string())].into();
        replace_json(&path, &labels, Readable::Owner).unwrap();
        let mut damaged = Vec::new();
        assert_eq!(load_json::<Labels>(&path, &mut damaged).unwrap(), labels);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(damaged.is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.json");
        fs::write(&path, "{\"pi-1\": \"Ra").unwrap();
        let mut damaged = Vec::new();
        assert_eq!(load_json::<Labels>(&path, &mut damaged).unwrap(), Labels::new());
        assert_eq!(damaged.len(), 1);
        let kept: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(fs::read_to_string(&kept[0]).unwrap(), "{\"pi-1\": \"Ra");
    }

    #[test]
    fn what_may_not_be_read_is_named_and_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.json");
        fs::write(&path, "{}").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let mut damaged = Vec::new();
        // The superuser may read everything, and has nothing to be told.
        if let Err(error) = load_json::<Labels>(&path, &mut damaged) {
            assert!(error.to_string().contains("labels.json"), "{error}");
        }
        assert!(path.exists() && damaged.is_empty());
    }
}
