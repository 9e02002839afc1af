//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// Names the folder with `pistat`, `pistat-agent` and `pistat-sim`.
const VARIABLE: &str = "PISTAT_TEST_PROGRAMS";

/// One of our programs.
///
/// # Panics
/// It has not been built.
pub fn program(name: &str) -> PathBuf {
    let folders = folders();
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not built (looked in {folders:?}): run ./test, or `cargo build --release -p pistat -p pistat-agent -p pistat-sim`, \
             or name the folder in {VARIABLE}"
        )
    })
}

/// The search path of programs under test.
pub(crate) fn path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into())
}

/// The folder that was named, else the target folder of this test: release first, since a test's
/// own profile says nothing about programs.
fn folders() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return vec![named.into()];
    }
    let own = std::env::current_exe().expect("a running test has a path");
    let target = own.ancestors().nth(3).unwrap_or(Path::new(".")).to_owned();
    vec![target.join("release"), target.join("debug")]
}
