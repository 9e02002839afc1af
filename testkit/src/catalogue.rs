//! The catalogue of the tests: tasks that count, wait, flood, fail and refuse to end.

use std::path::Path;

/// The catalogue, with its scripts where they are and the marks of started tasks in `marks`.
pub fn text(marks: &Path) -> String {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/catalogue");
    let marks = marks.to_str().expect("a temporary folder has a plain name");
    include_str!("../catalogue/tasks.toml").replace("@SCRIPTS@", scripts).replace("@MARKS@", marks)
}

/// How often the task `mark` was started with this key.
pub fn starts(marks: &Path, key: &str) -> usize {
    std::fs::read(marks.join(key)).map_or(0, |marks| marks.len())
}
