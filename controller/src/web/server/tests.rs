//! The port as its clients meet it: a real socket, and a page behind it.

use std::{path::Path, sync::Arc};

use axum::routing::get;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};
use tokio_rustls::{TlsConnector, client};

use super::*;

/// How long a test waits for what should take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it asks.
const PERIOD: Duration = Duration::from_millis(25);

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n";

/// A port that is served, and stops with its test.
struct Port {
    address: SocketAddr,
    files: TempDir,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<io::Result<()>>,
}

impl Port {
    async fn open_with_tls() -> Self {
        let files = tempfile::tempdir().unwrap();
        write_certificate(files.path());
        let tls = Tls { cert: files.path().join("cert.pem"), key: files.path().join("key.pem") };
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Some(&tls)).await.unwrap();
        let (address, stop) = (listener.address().unwrap(), CancellationToken::new());
        let router = Router::new().route("/", get(|| async { "here" }));
        let serving = tokio::spawn(serve(listener, router, stop.clone()));
        Self { address, files, stop, serving }
    }

    /// A page, over TLS, from a port that shows exactly the certificate in the folder.
    async fn answers_over_tls(&self) -> bool {
        let Ok(stream) = self.tls(self.files.path()).await else { return false };
        ask(stream).await.contains("here")
    }

    async fn tls(&self, trusted: &Path) -> io::Result<client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted.join("cert.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.unwrap().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect("127.0.0.1".try_into().unwrap(), stream).await
    }

    async fn close(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.expect("it stops").unwrap().unwrap();
    }
}

/// A certificate for 127.0.0.1 that vouches for itself.
fn write_certificate(folder: &Path) {
    let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), pair.cert.pem()).unwrap();
}

/// Asks for the page, and gives everything that comes until the connection ends.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let mut answer = Vec::new();
    let asked = async {
        stream.write_all(REQUEST.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    let _ = tokio::time::timeout(PATIENCE, asked).await.expect("an answer or an end comes in time");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < deadline, "in time it was not true that {what}");
        tokio::time::sleep(PERIOD).await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_needs_no_restart_and_a_broken_one_does_no_harm() {
    let port = Port::open_with_tls().await;
    assert!(port.answers_over_tls().await);
    let old = tempfile::tempdir().unwrap();
    std::fs::copy(port.files.path().join("cert.pem"), old.path().join("cert.pem")).unwrap();
    std::fs::write(port.files.path().join("key.pem"), "no key").unwrap();
    assert!(port.tls(old.path()).await.is_ok(), "the old one stays");
    write_certificate(port.files.path());
    eventually("the new certificate is in force", async || port.answers_over_tls().await).await;
    assert!(port.tls(old.path()).await.is_err(), "it is another");
    port.close().await;
}
