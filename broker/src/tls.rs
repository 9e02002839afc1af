//! The certificate of the TLS port, read again when its files change.
//!
//! A pair that cannot be used leaves the old one in force, and says so.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::{StartError, TlsListener};

/// How often the files are looked at: certificates are renewed days before they expire.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The certificate in force.
#[derive(Clone)]
pub(crate) struct Certificate {
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Certificate {
    /// Reads the pair for the first time.
    pub(crate) fn load(files: &TlsListener) -> Result<Self, StartError> {
        let config = read(&files.cert, &files.key).map_err(|reason| StartError::Certificate {
            cert: files.cert.clone(),
            key: files.key.clone(),
            reason,
        })?;
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(config))) })
    }

    /// What the next connection is received with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Looks at the files from time to time, for ever.
    pub(crate) async fn watch(self, files: TlsListener) {
        let mut known = changed_at(&files);
        let mut refused = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = changed_at(&files);
            // A pair is replaced file by file: what does not fit is tried again when either changes once more.
            if now == known || Some(now) == refused {
                continue;
            }
            match read(&files.cert, &files.key) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    (known, refused) = (now, None);
                    tracing::info!(cert = %files.cert.display(), "the new certificate is in force");
                }
                Err(reason) => {
                    refused = Some(now);
                    tracing::error!(cert = %files.cert.display(), %reason, "the new certificate cannot be used; the old one stays");
                }
            }
        }
    }
}

type ChangedAt = (Option<SystemTime>, Option<SystemTime>);

fn changed_at(files: &TlsListener) -> ChangedAt {
    let of = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    (of(&files.cert), of(&files.key))
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in the file".to_owned());
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("the key cannot be read: {error}"))?;
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("certificate and key do not fit: {error}"))
}
