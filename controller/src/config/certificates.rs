//! Certificates, keys and authorities that the configuration names: read as those who use them
//! will, so that one that cannot be used is a mistake of the configuration, found before anything
//! starts.

use std::path::{Path, PathBuf};

use pistat_support::tls::{self, TlsError};

use super::Tls;

/// A file with a certificate, and those between it and its authority.
pub(super) fn certificate(text: &str) -> Result<PathBuf, String> {
    used(text, tls::chain)
}

/// A file with a private key.
pub(super) fn key(text: &str) -> Result<PathBuf, String> {
    used(text, tls::private_key)
}

/// A file with the authorities to believe.
pub(super) fn authorities(text: &str) -> Result<PathBuf, String> {
    used(text, |path| tls::client(Some(path)))
}

/// Whether certificate and key belong together.
pub(super) fn check_pair(pair: &Tls) -> Result<(), String> {
    tls::server(&pair.cert, &pair.key).map(drop).map_err(|error| error.to_string())
}

fn used<T>(text: &str, read: impl FnOnce(&Path) -> Result<T, TlsError>) -> Result<PathBuf, String> {
    read(Path::new(text)).map(|_| text.into()).map_err(|error| error.to_string())
}
