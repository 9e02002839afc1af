//! Bad input for everything that reads what comes from outside.
//!
//! Each [`Target`] takes any bytes and panics when a promise is broken: not only a crash, but an
//! order that passes without a signature, an argv that the catalogue does not describe, a topic
//! that does not read back as it was written. [`mutate`] makes bytes that nearly make sense out of
//! a target's corpus.
//!
//! The corpora in `corpus/` and some thousand mutations of them run as ordinary tests, without any
//! tool. `tests/fuzz/run` lets libFuzzer look for more, guided by which code an input reaches:
//! `guided/` has its ways in, one for each target.

pub mod catalogue;
pub mod mutate;
pub mod targets;

pub use targets::Target;

/// A target's corpus: every file of its folder, and for orders those that were signed.
///
/// # Errors
/// The folder cannot be read.
pub fn corpus(name: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let mut corpus = files.into_iter().map(std::fs::read).collect::<std::io::Result<Vec<_>>>()?;
    if name == "orders" {
        corpus.extend(targets::signed_orders());
    }
    Ok(corpus)
}
