//! The listening socket: accepts, with TLS if so configured, and stops when told to. A renewed certificate needs no restart.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, serve::ListenerExt};
use pistat_broker::Certificate;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{either::Either, sync::CancellationToken};

use crate::config::Tls;

/// A socket that is bound and not yet served.
pub(crate) struct Listener {
    tcp: TcpListener,
    certificate: Option<Certificate>,
}

/// How long open requests may take to end when the server stops; feeds and followers end at once.
const GRACE: Duration = Duration::from_secs(2);

/// How long a TLS handshake may take, and how many go on at a time.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 256;

impl Listener {
    /// Binds, and reads the certificate if there is one.
    pub(crate) async fn bind(address: SocketAddr, tls: Option<&Tls>) -> Result<Self, String> {
        let certificate = tls.map(|tls| Certificate::load(&tls.cert, &tls.key)).transpose();
        let certificate = certificate.map_err(|error| format!("[http.tls] {error}"))?;
        let tcp = TcpListener::bind(address).await.map_err(|error| explain(address, &error))?;
        Ok(Self { tcp, certificate })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Whether it speaks HTTPS.
    pub(crate) fn is_tls(&self) -> bool {
        self.certificate.is_some()
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

/// Serves until `stop` is cancelled, then gives open requests a moment.
pub(crate) async fn serve(listener: Listener, router: Router, stop: CancellationToken) -> io::Result<()> {
    let Listener { tcp, certificate } = listener;
    let renewal = renew(certificate.clone());
    let accept = Accept { tcp, certificate, handshakes: JoinSet::new() };
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(accept.tap_io(|_| {}), service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server.into_future() => result,
        () = late => Ok(()),
        () = renewal => Ok(()),
    }
}

/// Keeps the certificate up to date, for ever.
async fn renew(certificate: Option<Certificate>) {
    match certificate {
        Some(certificate) => certificate.watch().await,
        None => std::future::pending().await,
    }
}

type Socket = Either<TcpStream, TlsStream<TcpStream>>;

/// Accepts connections. TLS handshakes go on beside each other, so that a slow one keeps nobody waiting.
struct Accept {
    tcp: TcpListener,
    certificate: Option<Certificate>,
    handshakes: JoinSet<Option<(Socket, SocketAddr)>>,
}

impl Accept {
    fn shake_hands(&mut self, certificate: &Certificate, stream: TcpStream, peer: SocketAddr) {
        let handshake = tokio::time::timeout(HANDSHAKE, certificate.acceptor().accept(stream));
        self.handshakes.spawn(async move { handshake.await.ok()?.ok().map(|stream| (Either::Right(stream), peer)) });
    }
}

impl axum::serve::Listener for Accept {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let Some(certificate) = self.certificate.clone() else {
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
                (stream, peer) = accept_tcp(&self.tcp), if !full => self.shake_hands(&certificate, stream, peer),
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

#[cfg(test)]
mod tests;
