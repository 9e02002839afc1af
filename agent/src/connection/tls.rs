//! Which certificates to believe: those of `--ca` only, or else the system's.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

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
    /// The library refuses.
    #[error("TLS cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A TLS client that believes the authorities of this file, or else the system's.
///
/// # Errors
/// The certificates cannot be used.
pub fn configuration(ca: Option<&Path>) -> Result<rumqttc::TlsConfiguration, TlsError> {
    let roots = match ca {
        Some(path) => read(path).map_err(|reason| TlsError::Authority { path: path.to_owned(), reason })?,
        None => system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(rumqttc::TlsConfiguration::Rustls(Arc::new(config)))
}

fn read(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let pem = crate::disk::read(path).map_err(|error| error.to_string())?;
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
    fn a_file_without_certificates_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        for content in [None, Some("nothing here")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = configuration(Some(&path)).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("ca.pem") && error.contains("(ca)"), "{error}");
        }
    }
}
