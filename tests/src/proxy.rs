//! A wire that can be cut and slowed down: a TCP proxy between an agent and its controller.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// How much is read at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// A proxy on a port of its own.
pub struct Proxy {
    address: SocketAddr,
    /// Counts the cuts: every change ends all connections.
    cuts: watch::Sender<u64>,
    /// Whether new connections pass.
    open: watch::Sender<bool>,
    /// How long each piece waits before it goes on.
    delay: watch::Sender<Duration>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `target`.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (cuts, cut) = watch::channel(0);
        let (open, passable) = watch::channel(true);
        let (delay, delayed) = watch::channel(Duration::ZERO);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *passable.borrow() {
                    tokio::spawn(pass(client, target, cut.clone(), delayed.clone()));
                }
            }
        });
        Self { address, cuts, open, delay, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections; new ones pass.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends all connections, and closes every new one at once.
    pub fn close(&self) {
        self.open.send_replace(false);
        self.cut();
    }

    /// From now on every piece of data waits so long, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.delay.send_replace(delay);
    }

    /// Lets connections pass again.
    pub fn reopen(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(client: TcpStream, target: SocketAddr, mut cut: watch::Receiver<u64>, delay: watch::Receiver<Duration>) {
    cut.mark_unchanged();
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Small packets go on at once, as they would without us.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = carry(from_client, to_server, delay.clone());
    let back = carry(from_server, to_client, delay);
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = cut.changed() => {}
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: watch::Receiver<Duration>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let wait = *delay.borrow();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        to.write_all(&piece[..count]).await?;
    }
}
