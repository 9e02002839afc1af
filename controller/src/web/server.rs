//! The listening socket: accepts, with TLS if so configured, and stops when told to. A renewed
//! certificate needs no restart.
//!
//! Every connection is a task of its own from its first byte on, and everything that it waits for
//! has a timeout: so a silent or slow client delays no other. [`Admission`] decides which are
//! served.

mod body;
mod wire;

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, http::Request};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use pistat_broker::Certificate;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{either::Either, sync::CancellationToken};

use self::{body::TimelyBody, wire::Wire};
use super::admission::{Admission, Connection, Permit};
use crate::config::{Http, HttpLimits};

/// How long open requests may take to end when the server stops; feeds and followers end at once.
const GRACE: Duration = Duration::from_secs(2);

/// The longest head of a request, and what is read of a body at a time: several times what browsers
/// send with all their cookies. The head is kept before anything is known of who sends it.
const BUFFER_BYTES: usize = 32 * 1024;

/// How long to wait after a failed accept: the cause needs time to go away.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that is bound and not yet served.
pub(crate) struct Listener {
    tcp: TcpListener,
    certificate: Option<Certificate>,
    limits: HttpLimits,
}

impl Listener {
    /// Binds, and reads the certificate if there is one.
    pub(crate) async fn bind(http: &Http) -> Result<Self, String> {
        let certificate = http.tls.as_ref().map(|tls| Certificate::load(&tls.cert, &tls.key)).transpose();
        let certificate = certificate.map_err(|error| format!("[http.tls] {error}"))?;
        let tcp = TcpListener::bind(http.listen).await.map_err(|error| explain(http.listen, &error))?;
        Ok(Self { tcp, certificate, limits: http.limits })
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
pub(crate) async fn serve(listener: Listener, router: Router, stop: CancellationToken) {
    let Listener { tcp, certificate, limits } = listener;
    let renewal = renew(certificate.clone());
    let port = Arc::new(Port {
        certificate,
        routes: TowerToHyperService::new(router),
        admission: Admission::new(limits),
        limits,
        stop: stop.clone(),
    });
    let mut connections = JoinSet::new();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = port.accept(&tcp, &mut connections) => {}
        () = renewal => {}
    }
    drop(tcp);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(GRACE, all).await;
}

/// Keeps the certificate up to date, for ever.
async fn renew(certificate: Option<Certificate>) {
    match certificate {
        Some(certificate) => certificate.watch().await,
        None => std::future::pending().await,
    }
}

/// What HTTP is spoken over.
type Socket = Either<Wire, TlsStream<Wire>>;

/// What every connection needs.
struct Port {
    certificate: Option<Certificate>,
    routes: TowerToHyperService<Router>,
    admission: Admission,
    limits: HttpLimits,
    stop: CancellationToken,
}

impl Port {
    /// Accepts for ever.
    async fn accept(self: &Arc<Self>, tcp: &TcpListener, connections: &mut JoinSet<()>) {
        loop {
            tokio::select! {
                (stream, peer) = accept_tcp(tcp) => self.receive(stream, peer, connections),
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn receive(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>) {
        match self.admission.admit(peer.ip()) {
            Some(permit) => drop(connections.spawn(Arc::clone(self).connection(stream, peer, permit))),
            None => {
                tracing::debug!(%peer, "closed at once: there are as many connections as http.limits.connections says");
            }
        }
    }

    /// Serves a connection for as long as HTTP is spoken on it, unless it is evicted.
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, permit: Permit) {
        let connection = permit.connection();
        let is_http = Arc::new(AtomicBool::new(true));
        let wire = Wire::new(stream, self.limits.write_timeout, Arc::clone(&is_http), permit);
        tokio::select! {
            biased;
            () = connection.evicted() => tracing::debug!(%peer, "an unauthenticated connection was evicted"),
            () = self.speak(wire, peer, &connection) => is_http.store(false, Ordering::Relaxed),
        }
    }

    async fn speak(&self, wire: Wire, peer: SocketAddr, connection: &Connection) {
        if let Some(socket) = self.shake_hands(wire).await
            && let Err(error) = self.http(socket, peer, connection).await
        {
            tracing::debug!(%peer, %error, "a connection ended badly");
        }
    }

    async fn shake_hands(&self, wire: Wire) -> Option<Socket> {
        let Some(certificate) = &self.certificate else { return Some(Either::Left(wire)) };
        let handshake = timeout(self.limits.header_timeout, certificate.acceptor().accept(wire)).await;
        handshake.ok()?.ok().map(Either::Right)
    }

    /// Answers requests, until the client has no more or the server stops; the request that is
    /// under way then is answered still.
    async fn http(&self, socket: Socket, peer: SocketAddr, connection: &Connection) -> hyper::Result<()> {
        let service = service_fn(|request: Request<Incoming>| {
            let mut request = request.map(|body| TimelyBody::new(body, self.limits.body_timeout));
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(connection.clone());
            self.routes.call(request)
        });
        let mut http = http1::Builder::new();
        // The head of the next request has its time too, so a connection that idles ends.
        http.max_buf_size(BUFFER_BYTES).timer(TokioTimer::new()).header_read_timeout(self.limits.header_timeout);
        let mut connection = pin!(http.serve_connection(TokioIo::new(socket), service).with_upgrades());
        tokio::select! {
            biased;
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
            ended = connection.as_mut() => return ended,
        }
        connection.await
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
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
