//! The port as its clients meet it: a real socket, and a page behind it.

use std::{path::Path, sync::Arc};

use axum::{
    Extension,
    body::{Body, Bytes},
    routing::{get, post},
};
use futures_util::stream;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::config::Tls;

/// How long a test waits for what should take a moment.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often it asks.
const PERIOD: Duration = Duration::from_millis(25);

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n";

/// Bounds that a test comes up against soon.
const LIMITS: HttpLimits = HttpLimits {
    connections: 12,
    unauthenticated_connections: 8,
    unauthenticated_connections_per_address: 4,
    header_timeout: Duration::from_millis(500),
    body_timeout: Duration::from_millis(500),
    write_timeout: Duration::from_millis(500),
};

/// The same for a client that may take its time.
const UNHURRIED: HttpLimits = HttpLimits {
    header_timeout: Duration::from_secs(600),
    body_timeout: Duration::from_secs(600),
    write_timeout: Duration::from_secs(600),
    ..LIMITS
};

/// More than the buffers of any two sockets take.
const LARGE_BYTES: usize = 64 * PIECE_BYTES;
const PIECE_BYTES: usize = 1024 * 1024;

/// A port that is served, and stops with its test.
struct Port {
    address: SocketAddr,
    files: TempDir,
    /// Cancelled when an answer of `/large` has been given up or given.
    large_ended: CancellationToken,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Port {
    async fn open(has_tls: bool, limits: HttpLimits) -> Self {
        let files = tempfile::tempdir().unwrap();
        write_certificate(files.path());
        let tls = Tls { cert: files.path().join("cert.pem"), key: files.path().join("key.pem") };
        let listen = "127.0.0.1:0".parse().unwrap();
        let http = Http { listen, tls: has_tls.then_some(tls), limits, ..Http::default() };
        let listener = Listener::bind(&http).await.unwrap();
        let (address, stop, large_ended) =
            (listener.address().unwrap(), CancellationToken::new(), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, routes(large_ended.clone()), stop.clone()));
        Self { address, files, large_ended, stop, serving }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that has said this and no more.
    async fn said(&self, text: &str) -> TcpStream {
        let mut stream = self.tcp().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn answers(&self) -> bool {
        ask(self.tcp().await).await.ends_with("here")
    }

    /// A page, over TLS, from a port that shows exactly the certificate in the folder.
    async fn answers_over_tls(&self) -> bool {
        let Ok(stream) = self.tls(self.files.path()).await else { return false };
        ask(stream).await.ends_with("here")
    }

    async fn tls(&self, trusted: &Path) -> io::Result<client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted.join("cert.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.unwrap().with_root_certificates(roots).with_no_client_auth();
        TlsConnector::from(Arc::new(config)).connect("127.0.0.1".try_into().unwrap(), self.tcp().await).await
    }

    async fn close(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.serving).await.expect("it stops").unwrap();
    }
}

/// A page for everybody, one that asks for a body, one that knows its connection, and one that is
/// endless for who does not read.
fn routes(large_ended: CancellationToken) -> Router {
    let large = get(move || {
        let guard = large_ended.clone().drop_guard();
        let pieces = (0..LARGE_BYTES / PIECE_BYTES).map(move |_| {
            let _until_the_last = &guard;
            Ok::<_, io::Error>(vec![b'x'; PIECE_BYTES])
        });
        async move { Body::from_stream(stream::iter(pieces)) }
    });
    Router::new()
        .route("/", get(|| async { "here" }))
        .route("/body", post(|body: Bytes| async move { format!("{} bytes", body.len()) }))
        .route(
            "/known",
            get(|Extension(connection): Extension<Connection>| async move { connection.mark_authenticated() }),
        )
        .route("/large", large)
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
    let _ = tokio::time::timeout(DEADLINE, asked).await.expect("an answer or an end comes in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Waits until the other side has ended a connection, and gives what came before.
async fn end(mut stream: impl AsyncRead + Unpin) -> String {
    let mut last = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut last)).await.expect("it ends in time");
    String::from_utf8_lossy(&last).into_owned()
}

async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !ask().await {
        assert!(Instant::now() < deadline, "in time it was not true that {what}");
        tokio::time::sleep(PERIOD).await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_needs_no_restart_and_a_broken_one_does_no_harm() {
    let port = Port::open(true, HttpLimits::default()).await;
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

#[tokio::test]
async fn whoever_is_slow_is_ended_in_time_while_others_are_served() {
    let port = Port::open(false, HttpLimits { unauthenticated_connections_per_address: 8, ..LIMITS }).await;
    let silent = port.tcp().await;
    let half_a_head = port.said("GET / HTTP/1.1\r\nHost:").await;
    let half_a_body = port.said("POST /body HTTP/1.1\r\nHost: pi\r\nContent-Length: 10\r\n\r\nhalf").await;
    let no_reader = port.said("GET /large HTTP/1.1\r\nHost: pi\r\n\r\n").await;
    let idle = port.said("GET / HTTP/1.1\r\nHost: pi\r\n\r\n").await;
    // A byte now and then is not a sign of life.
    let (mut reader, mut writer) = port.said("GET / HTTP/1.1\r\nX:").await.into_split();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(PERIOD).await;
        }
    });
    assert!(port.answers().await);
    assert_eq!((end(silent).await, end(half_a_head).await), (String::new(), String::new()));
    assert_eq!(end(&mut reader).await, "");
    let told = end(half_a_body).await;
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("in time"), "{told}");
    let told = end(idle).await;
    assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with("here"), "{told}");
    tokio::time::timeout(DEADLINE, port.large_ended.cancelled()).await.expect("who does not read is ended");
    tokio::time::timeout(DEADLINE, dripping).await.expect("who drips is ended").unwrap();
    assert!(port.answers().await);
    drop(no_reader);
    port.close().await;
}

#[tokio::test]
async fn a_body_and_an_answer_may_come_in_pieces() {
    let port = Port::open(false, LIMITS).await;
    let mut slow =
        port.said("POST /body HTTP/1.1\r\nHost: pi\r\nConnection: close\r\nContent-Length: 10\r\n\r\n").await;
    for byte in b"0123456789" {
        slow.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(end(slow).await.ends_with("10 bytes"));
    let large = port.said("GET /large HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n").await;
    assert!(end(large).await.len() > LARGE_BYTES);
    port.close().await;
}

#[tokio::test]
async fn hundreds_of_silent_connections_keep_nobody_out_and_end_nobody_who_is_known() {
    for has_tls in [false, true] {
        // Nobody's time is up in this test: whoever goes makes room.
        let port = Port::open(has_tls, UNHURRIED).await;
        let mut known = Vec::new();
        for _ in 0..6 {
            let stream: Box<dyn Socket> =
                if has_tls { Box::new(port.tls(port.files.path()).await.unwrap()) } else { Box::new(port.tcp().await) };
            known.push(become_known(stream).await);
        }
        let mut silent = Vec::new();
        for number in 0..300 {
            silent.push(port.tcp().await);
            if number % 50 == 0 {
                assert!(if has_tls { port.answers_over_tls().await } else { port.answers().await }, "after {number}");
            }
        }
        for stream in known {
            assert!(ask(stream).await.ends_with("here"), "whoever is known stays");
        }
        for (number, stream) in silent.into_iter().enumerate().take(290) {
            assert_eq!(end(stream).await, "", "{number} made room");
        }
        port.close().await;
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// Asks for the page that knows its connection, and reads the answer, which has no body.
async fn become_known(mut stream: Box<dyn Socket>) -> Box<dyn Socket> {
    stream.write_all(b"GET /known HTTP/1.1\r\nHost: pi\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(DEADLINE, stream.read_u8()).await.expect("an answer comes in time").unwrap());
    }
    stream
}

#[tokio::test]
async fn when_every_place_is_taken_by_somebody_who_is_known_the_next_is_closed() {
    let port = Port::open(false, UNHURRIED).await;
    let mut known = Vec::new();
    for _ in 0..LIMITS.connections {
        known.push(become_known(Box::new(port.tcp().await)).await);
    }
    assert_eq!(end(port.tcp().await).await, "");
    known.pop();
    eventually("a place that was given back is anybody's", async || port.answers().await).await;
    port.close().await;
}
