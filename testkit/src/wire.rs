//! One MQTT connection over TCP, without a task or a buffer of its own while it is idle: ten
//! thousand of these fit into one process.

use std::{io, net::SocketAddr, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::packet::{Connect, Malformed, Message, Packet, decode, packet, string};

/// How long a connection may take to be accepted: a controller that has just restarted has a whole
/// fleet at its door.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// How often a client that has nothing to send pings.
const PING: Duration = Duration::from_secs(30);

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// TCP.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are not MQTT.
    #[error("the broker does not speak MQTT")]
    Malformed,
    /// The broker refuses the connection, with this code.
    #[error("the broker refuses the connection: {}", describe(*.0))]
    Refused(u8),
    /// Nothing came in time.
    #[error("the broker does not answer")]
    NoAnswer,
}

impl From<Malformed> for WireError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The code of a refusal, with its name if it is a common one.
fn describe(code: u8) -> String {
    let name = match code {
        3 | 0x88 => "ServerUnavailable",
        4 | 0x86 => "BadUserNamePassword",
        5 | 0x87 => "NotAuthorized",
        _ => "code",
    };
    format!("{name} ({code})")
}

/// A connection.
pub struct Wire {
    stream: TcpStream,
    read: BytesMut,
    write: BytesMut,
    v5: bool,
    last_id: u16,
    sent_at: Instant,
}

impl Wire {
    /// A TCP connection on which nothing has been sent.
    ///
    /// # Errors
    /// Nothing listens there.
    pub async fn open(address: SocketAddr, v5: bool) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = (BytesMut::new(), BytesMut::new());
        Ok(Self { stream, read, write, v5, last_id: 0, sent_at: Instant::now() })
    }

    /// Connects, and waits until the broker accepts it.
    ///
    /// # Errors
    /// There is no broker, or it refuses.
    pub async fn connect(address: SocketAddr, connect: &Connect) -> Result<Self, WireError> {
        let connecting = async {
            let mut wire = Self::open(address, connect.v5).await?;
            wire.send(&connect.encode());
            wire.flush().await?;
            match wire.read().await? {
                Packet::ConnAck { code: 0, .. } => Ok(wire),
                Packet::ConnAck { code, .. } => Err(WireError::Refused(code)),
                _ => Err(WireError::Malformed),
            }
        };
        timeout(CONNECT_LIMIT, connecting).await.map_err(|_| WireError::NoAnswer)?
    }

    /// Where it comes from.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// A packet id that is not in use: 65,535 others come before it is used again.
    pub fn id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    /// Queues bytes for the next [`Wire::flush`].
    pub fn send(&mut self, bytes: &[u8]) {
        self.write.extend_from_slice(bytes);
    }

    /// Queues a subscription with `QoS` 1.
    pub fn subscribe(&mut self, filters: impl IntoIterator<Item = String>) {
        let id = self.id().to_be_bytes();
        let block: &[u8] = if self.v5 { &[0] } else { &[] };
        let list: Vec<u8> = filters.into_iter().flat_map(|filter| [string(&filter), vec![1]].concat()).collect();
        self.send(&packet(0x82, &[&id, block, &list]));
    }

    /// Queues a message, with a packet id of its own if its `QoS` needs one.
    pub fn publish(&mut self, mut message: Message) {
        if message.qos > 0 {
            message.id = self.id();
        }
        self.send(&message.encode(self.v5));
    }

    /// When a ping is due.
    pub fn ping_at(&self) -> Instant {
        self.sent_at + PING
    }

    /// Queues a ping.
    pub fn ping(&mut self) {
        self.send(&[0xC0, 0]);
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.write.is_empty() {
            self.stream.write_all_buf(&mut self.write).await?;
            self.sent_at = Instant::now();
        }
        Ok(())
    }

    /// The next packet; the acknowledgement of a message with `QoS` 1 is queued. It may be
    /// cancelled at any point without losing anything.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn next(&mut self) -> Result<Packet, WireError> {
        let next = self.read().await?;
        if let Packet::Publish(Message { qos: 1, id, .. }) = next {
            self.send(&packet(0x40, &[&id.to_be_bytes()]));
        }
        Ok(next)
    }

    /// The next packet as it came; it may be cancelled as [`Wire::next`].
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn read(&mut self) -> Result<Packet, WireError> {
        loop {
            if let Some((packet, length)) = decode(&self.read, self.v5)? {
                self.read.advance(length);
                return Ok(packet);
            }
            self.read.reserve(1024);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}
