//! The catalogue's file: read at the start, and again when it changes.

use std::{io, path::Path};

use pistat_support::file;

use crate::{
    catalogue::{Catalogue, SHIPPED},
    config::{Config, Problem},
};

/// Reads the file. If it is the default one and does not exist, the catalogue is the one that
/// ships.
///
/// # Errors
/// The file cannot be read, or every problem of its text.
pub(crate) fn read(path: &Path) -> Result<Catalogue, Vec<Problem>> {
    match file::read_text(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path == Config::default().tasks => {
            Catalogue::parse(SHIPPED, &path.display().to_string())
        }
        text => parse(path, text),
    }
}

/// Reads the file again. A missing one is a problem like any other: it must not bring back tasks
/// that were removed.
///
/// # Errors
/// The file cannot be read, or every problem of its text.
pub(crate) fn read_again(path: &Path) -> Result<Catalogue, Vec<Problem>> {
    parse(path, file::read_text(path))
}

fn parse(path: &Path, text: io::Result<String>) -> Result<Catalogue, Vec<Problem>> {
    let file = path.display().to_string();
    match text {
        Ok(text) => Catalogue::parse(&text, &file),
        Err(error) => Err(vec![Problem { file, line: None, message: format!("the file cannot be read: {error}") }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_default_file_is_the_catalogue_that_ships_and_a_missing_named_file_is_a_problem() {
        // Tests run in the crate's folder, which has no config/tasks.toml of its own.
        assert_eq!(read(Path::new("config/tasks.toml")).unwrap().tasks().count(), 14);
        let gone = read_again(Path::new("config/tasks.toml")).unwrap_err();
        assert!(gone[0].to_string().starts_with("config/tasks.toml: the file cannot be read"), "one that was there");
        let problems = read(Path::new("/nonexistent/tasks.toml")).unwrap_err();
        assert!(problems[0].to_string().starts_with("/nonexistent/tasks.toml: the file cannot be read"));
    }
}
