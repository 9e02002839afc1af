//! The listening socket: accepts, with TLS if so configured, and stops when told to.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, serve::ListenerExt};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken};

use crate::config::Tls;

/// A socket that is bound and not yet served.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// How long open requests may take to end when the server stops; feeds and followers end at once.
const GRACE: Duration = Duration::from_secs(2);

/// How long a TLS handshake may take, and how many go on at a time.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 256;

impl Listener {
    /// Binds, and reads the certificate if there is one.
    pub(crate) async fn bind(address: SocketAddr, tls: Option<&Tls>) -> Result<Self, String> {
        let tls = tls.map(read_tls).transpose()?;
        let tcp = TcpListener::bind(address).await.map_err(|error| explain(address, &error))?;
        Ok(Self { tcp, tls })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Whether it speaks HTTPS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

fn explain(address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has that port: is a controller running already? Stop it, or choose another port with --http ADDR:PORT"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose another with --http ADDR:PORT",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose another with --http ADDR:PORT",
        _ => "choose another with --http ADDR:PORT",
    };
    format!("cannot listen for HTTP on {address} ({error}): {hint}")
}

fn read_tls(tls: &Tls) -> Result<Arc<rustls::ServerConfig>, String> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let problem = |what: &str, path: &std::path::Path, error: &dyn std::fmt::Display| {
        format!("[http.tls] {what} {} cannot be used: {error}", path.display())
    };
    let certificates = CertificateDer::pem_file_iter(&tls.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| problem("cert", &tls.cert, &error))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| problem("key", &tls.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key));
    config.map(Arc::new).map_err(|error| problem("cert", &tls.cert, &error))
}

/// Serves until `stop` is cancelled, then gives open requests a moment.
pub(crate) async fn serve(listener: Listener, router: Router, stop: CancellationToken) -> io::Result<()> {
    let acceptor = listener.tls.map(TlsAcceptor::from);
    let accept = Accept { tcp: listener.tcp, acceptor, handshakes: JoinSet::new() };
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(accept.tap_io(|_| {}), service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server.into_future() => result,
        () = late => Ok(()),
    }
}

type Socket = Either<TcpStream, TlsStream<TcpStream>>;

/// Accepts connections. TLS handshakes go on beside each other, so that a slow one keeps nobody waiting.
struct Accept {
    tcp: TcpListener,
    acceptor: Option<TlsAcceptor>,
    handshakes: JoinSet<Option<(Socket, SocketAddr)>>,
}

impl Accept {
    fn shake_hands(&mut self, acceptor: &TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
        let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
        self.handshakes.spawn(async move { handshake.await.ok()?.ok().map(|stream| (Either::Right(stream), peer)) });
    }
}

impl axum::serve::Listener for Accept {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let Some(acceptor) = self.acceptor.clone() else {
            let (stream, peer) = accept_tcp(&self.tcp).await;
            return (Either::Left(stream), peer);
        };
        loop {
            let full = self.handshakes.len() >= HANDSHAKES;
            let done = async {
                if self.handshakes.is_empty() {
                    std::future::pending().await
                } else {
                    self.handshakes.join_next().await
                }
            };
            tokio::select! {
                done = done => {
                    if let Some(Ok(Some(accepted))) = done {
                        return accepted;
                    }
                }
                (stream, peer) = accept_tcp(&self.tcp), if !full => self.shake_hands(&acceptor, stream, peer),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

async fn accept_tcp(tcp: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match tcp.accept().await {
            Ok((stream, peer)) => {
                // Small frames must not wait for each other.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            // Out of file descriptors, or a client that has already gone: neither ends the server.
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
