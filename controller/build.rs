//! Builds the dashboard for a release when its sources changed, so that one `cargo run --release`
//! makes the whole program.
//!
//! It starts nothing in the dev profile: `cargo check`, rust-analyzer and the tests must not wait
//! for npm, and a build script cannot tell them from `cargo build`. A dev build serves what is in
//! `web/dist` at the time, so `npm --prefix web run build` is enough to see a change there.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// What the dashboard is built from.
const SOURCES: [&str; 9] = [
    "src",
    "public",
    "build",
    "index.html",
    "package.json",
    "package-lock.json",
    "vite.config.ts",
    "svelte.config.js",
    "tsconfig.json",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The processor of the agent that is built together with this program (`src/install.rs`).
    println!("cargo::rustc-env=PISTAT_TARGET={}", std::env::var("TARGET").expect("cargo sets TARGET"));
    if std::env::var_os("CARGO_FEATURE_DASHBOARD").is_none() {
        return;
    }
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web");
    // "debug" for the dev profile and those that inherit from it.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return std::fs::create_dir_all(web.join("dist")).expect("web/ is writable");
    }
    for source in SOURCES.map(|source| web.join(source)).iter().filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    if let Err(sentence) = build(&web) {
        println!("cargo::error={sentence}");
        std::process::exit(1);
    }
}

fn build(web: &Path) -> Result<(), String> {
    if is_older(&web.join("node_modules/.package-lock.json"), &web.join("package-lock.json")) {
        npm(web, &["ci", "--no-audit", "--no-fund", "--ignore-scripts"])?;
    }
    npm(web, &["run", "build"])?;
    let index: PathBuf = web.join("dist/index.html");
    if index.exists() { Ok(()) } else { Err(format!("the dashboard was built, but {} is not there", index.display())) }
}

/// Whether a file is missing, or older than another.
fn is_older(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    match (time(file), time(than)) {
        (Ok(file), Ok(than)) => file < than,
        _ => true,
    }
}

fn npm(web: &Path, arguments: &[&str]) -> Result<(), String> {
    let shown = format!("npm {}", arguments.join(" "));
    match Command::new("npm").args(arguments).current_dir(web).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Err(format!("`{shown}` failed in web/: {}", String::from_utf8_lossy(&text).trim().replace('\n', " | ")))
        }
        Err(error) => Err(format!(
            "`{shown}` could not be started ({error}): the dashboard needs Node.js 20 or later with npm (Debian: `apt install nodejs npm`); \
             without a dashboard: `cargo build --release -p pistat --no-default-features`"
        )),
    }
}
