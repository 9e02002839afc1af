//! Certificates: which authorities a client believes, and what a server shows.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, ConfigBuilder, ConfigSide, RootCertStore, ServerConfig, WantsVerifier, WantsVersions,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::file;

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of `--ca`, or of the controller's `mqtt.ca`.
    #[error("the certificates in {path} (ca) cannot be used: {reason}")]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system's certificates.
    #[error(
        "this system has no certificate authorities: install ca-certificates, or name a file with the right ones (ca)"
    )]
    NoSystemAuthorities,
    /// A file of a certificate or key.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that has something else in it.
    #[error("{path} has no {what} in PEM form")]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
    },
    /// Two files that do not belong together.
    #[error("{cert} cannot be used with the key {key}: {source}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The library refuses.
    #[error("TLS cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A TLS client that believes the authorities of this file, or else the system's.
///
/// # Errors
/// The certificates cannot be used.
pub fn client(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match ca {
        Some(path) => authorities(path).map_err(|reason| TlsError::Authority { path: path.to_owned(), reason })?,
        None => system()?,
    };
    let builder = with_ring(ClientConfig::builder_with_provider)?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// A TLS server with the certificate chain and the private key of these files, both PEM.
///
/// # Errors
/// A file cannot be read or used, or the two do not belong together.
pub fn server(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let (chain, private) = (chain(cert)?, private_key(key)?);
    let builder = with_ring(ServerConfig::builder_with_provider)?;
    let config = builder.with_no_client_auth().with_single_cert(chain, private);
    config.map_err(|source| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), source })
}

/// The certificates of a file: a server's own first, then those between it and its authority.
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| not_pem(path, "certificate"))
}

/// The private key of a file.
///
/// # Errors
/// The file cannot be read, or has no private key.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| not_pem(path, "private key"))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    file::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn not_pem(path: &Path, what: &'static str) -> TlsError {
    TlsError::NotPem { path: path.to_owned(), what }
}

type Builder<S, State> = ConfigBuilder<S, State>;

fn with_ring<S: ConfigSide>(
    builder: impl FnOnce(Arc<rustls::crypto::CryptoProvider>) -> Builder<S, WantsVersions>,
) -> Result<Builder<S, WantsVerifier>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(builder(provider).with_safe_default_protocol_versions()?)
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let pem = file::read(path).map_err(|error| error.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is none in PEM form".into()) } else { Ok(roots) }
}

fn system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoSystemAuthorities) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        for content in [None, Some("nothing here")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = client(Some(&path)).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("ca.pem") && error.contains("(ca)"), "{error}");
        }
    }
}
