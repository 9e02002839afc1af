//! A certificate and its key, read again when their files change: the broker's TLS port has one,
//! and so may any other port.
//!
//! A pair that cannot be used leaves the old one in force, and says so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use pistat_support::tls::{TlsError, server};
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at: certificates are renewed days before they expire.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The certificate in force. Clones share it: what one of them reads anew, all of them show.
#[derive(Clone)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    /// How the files were when they were read for the first time.
    loaded: ChangedAt,
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Certificate {
    /// Reads a certificate chain and its private key, both PEM, for the first time.
    ///
    /// # Errors
    /// A file cannot be read, or the two do not belong together.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        // Looked at before they are read: a change in between is then seen as one.
        let loaded = changed_at(cert, key);
        let current = Arc::new(RwLock::new(Arc::new(server(cert, key)?)));
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), loaded, current })
    }

    /// What the next connection is received with.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Looks at the files from time to time, for ever. Without it, nothing is read again.
    pub async fn watch(self) {
        let mut seen = self.loaded;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look(&mut seen);
        }
    }

    /// Reads the files if they are not as they were seen last. A pair is replaced file by file:
    /// what does not fit is tried again when either changes once more.
    fn look(&self, seen: &mut ChangedAt) {
        let now = changed_at(&self.cert, &self.key);
        if now == std::mem::replace(seen, now) {
            return;
        }
        match server(&self.cert, &self.key) {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                tracing::info!(cert = %self.cert.display(), "the new certificate is in force");
            }
            Err(reason) => {
                tracing::error!(cert = %self.cert.display(), %reason, "the new certificate cannot be used; the old one stays");
            }
        }
    }
}

type ChangedAt = (Option<SystemTime>, Option<SystemTime>);

fn changed_at(cert: &Path, key: &Path) -> ChangedAt {
    let of = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    (of(cert), of(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder for a pair; each file's time of change is told, since two writes may come within
    /// one tick of the system's.
    struct Files(tempfile::TempDir);

    impl Files {
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str, at: u64) {
            std::fs::write(self.path(name), text).unwrap();
            let file = std::fs::File::options().write(true).open(self.path(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(at)).unwrap();
        }
    }

    fn pair() -> [String; 2] {
        let pair = rcgen::generate_simple_self_signed(vec!["pis.lan".to_owned()]).unwrap();
        [pair.cert.pem(), pair.signing_key.serialize_pem()]
    }

    #[test]
    fn a_new_pair_comes_into_force_when_it_fits_and_a_broken_one_leaves_the_old_in_force() {
        let files = Files(tempfile::tempdir().unwrap());
        let ([cert, key], [new_cert, new_key]) = (pair(), pair());
        files.write("cert.pem", &cert, 1);
        files.write("key.pem", &key, 1);
        let certificate = Certificate::load(&files.path("cert.pem"), &files.path("key.pem")).unwrap();
        let shown = || Arc::as_ptr(&certificate.current.read().unwrap());
        let mut seen = certificate.loaded;
        let mut was = shown();
        // What is written, and whether another pair is in force afterwards.
        let steps = [
            ("key.pem", key.as_str(), 1, false),
            ("cert.pem", "no certificate", 2, false),
            ("cert.pem", new_cert.as_str(), 3, false),
            ("key.pem", "no key", 4, false),
            ("key.pem", new_key.as_str(), 5, true),
            ("cert.pem", cert.as_str(), 6, false),
            ("key.pem", key.as_str(), 7, true),
        ];
        for (name, text, at, is_new) in steps {
            files.write(name, text, at);
            let kept = certificate.current.read().unwrap().clone();
            certificate.look(&mut seen);
            assert_eq!(shown() != was, is_new, "{name} at {at}");
            (was, _) = (shown(), kept);
        }
        std::fs::remove_file(files.path("key.pem")).unwrap();
        certificate.look(&mut seen);
        assert_eq!(shown(), was, "a file that is gone takes no certificate away");
    }

    #[test]
    fn what_cannot_be_used_is_refused_at_the_start() {
        let files = Files(tempfile::tempdir().unwrap());
        let ([cert, key], [_, other]) = (pair(), pair());
        for (cert, key, reason) in [
            (cert.as_str(), other.as_str(), "cannot be used with the key"),
            (cert.as_str(), "", "no private key"),
            ("", key.as_str(), "no certificate in PEM form"),
        ] {
            files.write("cert.pem", cert, 1);
            files.write("key.pem", key, 1);
            let error = Certificate::load(&files.path("cert.pem"), &files.path("key.pem")).err().unwrap().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
