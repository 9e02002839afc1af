//! The ports: plain TCP and TLS, each one task that accepts and hands over.
//!
//! A handshake never holds up the next connection. Failing to accept (no file descriptors left) is
//! waited out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::StartError;
use crate::front::Front;
use crate::session;
use crate::tls::Certificate;

/// How long to wait after a failed accept: the cause needs time to go away.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Silence after which TCP itself asks whether the peer is there: finds dead clients without a keep
/// alive.
const TCP_PROBE_AFTER: Duration = Duration::from_secs(60);

/// Connections that the system holds ready: a fleet comes back all at once after a power cut.
const BACKLOG: u32 = 1024;

/// Opens a port.
pub(crate) fn open(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source: io::Error| {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => ". Another program uses this port: stop it, or choose another port",
            io::ErrorKind::PermissionDenied => ". Ports below 1024 need root: choose a higher one",
            io::ErrorKind::AddrNotAvailable => ". This machine does not have that address",
            _ => "",
        };
        StartError::Listen { what, address, source, hint }
    };
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() };
    let socket = socket.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Accepts plain connections until the broker stops.
pub(crate) async fn serve_plain(front: Arc<Front>, listener: TcpListener) {
    while let Some((stream, peer)) = accept(&front, &listener).await {
        let for_task = front.clone();
        front.tasks.spawn(async move { session::serve(for_task, stream, peer, || {}).await });
    }
}

/// Accepts TLS connections until the broker stops.
pub(crate) async fn serve_tls(front: Arc<Front>, listener: TcpListener, certificate: Certificate) {
    while let Some((stream, peer)) = accept(&front, &listener).await {
        let acceptor = certificate.acceptor();
        let for_task = front.clone();
        front.tasks.spawn(async move { shake_hands(for_task, acceptor, stream, peer).await });
    }
}

async fn shake_hands(front: Arc<Front>, acceptor: TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
    let Some(permit) = session::admit(&front, peer) else { return };
    let limit = Duration::from_secs(front.limits.bounds.connect_seconds);
    let stop = front.stop.clone();
    let handshake = tokio::select! {
        () = stop.cancelled() => return,
        handshake = Box::pin(tokio::time::timeout(limit, acceptor.accept(stream))) => handshake,
    };
    match handshake {
        // On the heap, since it is handed on by value, and every hand would keep a place for it.
        Ok(Ok(stream)) => session::serve_admitted(front, Box::new(stream), peer, permit, || {}).await,
        Ok(Err(error)) => {
            front.counters.connections_refused.add(1);
            tracing::debug!(%peer, %error, "no TLS connection came about");
        }
        Err(_) => front.counters.connections_refused.add(1),
    }
}

async fn accept(front: &Front, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = front.stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                prepare(&stream);
                return Some((stream, peer));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Small packets go at once, and dead peers are found.
fn prepare(stream: &TcpStream) {
    let probes = socket2::TcpKeepalive::new().with_time(TCP_PROBE_AFTER).with_interval(Duration::from_secs(10));
    let set = stream.set_nodelay(true).and_then(|()| socket2::SockRef::from(stream).set_tcp_keepalive(&probes));
    if let Err(error) = set {
        tracing::debug!(%error, "a connection's options cannot be set");
    }
}
