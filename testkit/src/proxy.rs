//! A wire that can be cut and slowed down: a TCP proxy between an agent and its controller.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::dice::Dice;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::stutter::Stutter;

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
    /// How many of the orders and acknowledgements come twice, where MQTT passes.
    stutter: watch::Sender<f64>,
    copies: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

/// What a connection knows of its proxy.
#[derive(Clone)]
struct Wire {
    target: SocketAddr,
    cut: watch::Receiver<u64>,
    delay: watch::Receiver<Duration>,
    stutter: watch::Receiver<f64>,
    copies: Arc<AtomicU64>,
}

impl Proxy {
    /// A proxy to `target`.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn start(target: SocketAddr) -> Self {
        Self::start_with(target, None, 0.0).await
    }

    /// A proxy to a broker that lets a share of the orders and acknowledgements come twice, at once
    /// or later. Only MQTT over TCP may pass.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn stuttering(target: SocketAddr, dice: Dice, share: f64) -> Self {
        Self::start_with(target, Some(dice), share).await
    }

    async fn start_with(target: SocketAddr, mut dice: Option<Dice>, share: f64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (cuts, cut) = watch::channel(0);
        let (open, passable) = watch::channel(true);
        let (delay, delayed) = watch::channel(Duration::ZERO);
        let (stutter, stuttered) = watch::channel(share);
        let copies = Arc::new(AtomicU64::new(0));
        let wire = Wire { target, cut, delay: delayed, stutter: stuttered, copies: Arc::clone(&copies) };
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let stutter = dice.as_mut().map(|dice| Stutter::new(Dice::from_seed(dice.bits())));
                if *passable.borrow() {
                    tokio::spawn(pass(client, wire.clone(), stutter));
                }
            }
        });
        Self { address, cuts, open, delay, stutter, copies, accepting }
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

    /// From now on everything comes once.
    pub fn speak_plainly(&self) {
        self.stutter.send_replace(0.0);
    }

    /// How many messages came twice.
    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
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

async fn pass(client: TcpStream, mut wire: Wire, stutter: Option<Stutter>) {
    wire.cut.mark_unchanged();
    let Ok(server) = TcpStream::connect(wire.target).await else { return };
    // Small packets go on at once, as they would without us.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = carry(from_client, to_server, wire.clone(), None);
    let back = carry(from_server, to_client, wire.clone(), stutter);
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = wire.cut.changed() => {}
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wire: Wire,
    mut stutter: Option<Stutter>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let wait = *wire.delay.borrow();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if let Some(stutter) = &mut stutter {
            let share = *wire.stutter.borrow();
            let (said, copies) = stutter.repeat(&piece[..count], share);
            wire.copies.fetch_add(copies, Ordering::Relaxed);
            to.write_all(&said).await?;
        } else {
            to.write_all(&piece[..count]).await?;
        }
    }
}
