//! Certificates, keys and authorities that the configuration names: read as those who use them will, so that one that cannot be used is a mistake of the
//! configuration, found before anything starts.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use pistat_agent::{connection::tls_configuration, disk};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::Tls;

/// A file with a certificate, and those between it and its authority.
pub(super) fn certificate(text: &str) -> Result<PathBuf, String> {
    let path = readable(text)?;
    chain(&path).map(|_| path)
}

/// A file with a private key.
pub(super) fn key(text: &str) -> Result<PathBuf, String> {
    let path = readable(text)?;
    private(&path).map(|_| path)
}

/// A file with the authorities to believe.
pub(super) fn authorities(text: &str) -> Result<PathBuf, String> {
    let path = readable(text)?;
    tls_configuration(Some(&path)).map(|_| path).map_err(|error| error.to_string())
}

/// Whether certificate and key belong together.
pub(super) fn check_pair(tls: &Tls) -> Result<(), String> {
    let (chain, key) = (chain(&tls.cert)?, private(&tls.key)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    config
        .map(drop)
        .map_err(|error| format!("{} cannot be used with the key {}: {error}", tls.cert.display(), tls.key.display()))
}

fn readable(text: &str) -> Result<PathBuf, String> {
    fs::File::open(text).map(|_| text.into()).map_err(|error| format!("{text} cannot be read: {error}"))
}

fn bounded(path: &Path) -> Result<Vec<u8>, String> {
    disk::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = bounded(path)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if chain.is_empty() => Err(format!("{} has no certificate in PEM form", path.display())),
        chain => chain.map_err(|error| format!("{} is no certificate in PEM form: {error}", path.display())),
    }
}

fn private(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&bounded(path)?)
        .map_err(|error| format!("{} is no private key in PEM form: {error}", path.display()))
}
