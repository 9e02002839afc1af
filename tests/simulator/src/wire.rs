//! MQTT 3.1.1 over one TCP connection, as little of it as an agent needs: ten thousand of these fit into one process.

use std::{net::SocketAddr, time::Duration};

use bytes::BytesMut;
use pistat_protocol::topic::{Topic, Topics};
use rumqttc::QoS;
use rumqttc::mqttbytes::{
    self, Error,
    v4::{Connect, ConnectReturnCode, LastWill, Packet, PubAck, Publish, Subscribe, SubscribeFilter},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

/// The largest packet that is read or written.
const MAX_PACKET_BYTES: usize = 1024 * 1024;

/// How long a connection may take to be accepted: a controller that has just come back has a whole fleet at its door.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// The keep alive that is promised.
const KEEP_ALIVE_SECONDS: u16 = 60;

/// How often a machine without anything to say pings.
const PING: Duration = Duration::from_secs(30);

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// TCP.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Something that is no MQTT.
    #[error("the broker does not speak MQTT: {0}")]
    Protocol(#[from] mqttbytes::Error),
    /// The broker refuses the credentials.
    #[error("the broker refuses: {0:?}")]
    Refused(ConnectReturnCode),
    /// Nothing came in time.
    #[error("the broker does not answer")]
    Silence,
}

/// Who connects.
pub struct Hello<'a> {
    /// Client id and user name.
    pub client: &'a str,
    /// The user.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
    /// The topic of the last will, whose payload is `offline`.
    pub will: Option<String>,
}

/// A connection.
pub struct Wire {
    stream: TcpStream,
    read: BytesMut,
    write: BytesMut,
    next_id: u16,
    said_at: Instant,
}

impl Wire {
    /// Connects, with a clean session.
    ///
    /// # Errors
    /// There is no broker, or it refuses.
    pub async fn connect(address: SocketAddr, hello: Hello<'_>) -> Result<Self, WireError> {
        timeout(CONNECT_LIMIT, Self::shake(address, hello)).await.map_err(|_| WireError::Silence)?
    }

    async fn shake(address: SocketAddr, hello: Hello<'_>) -> Result<Self, WireError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut wire =
            Self { stream, read: BytesMut::new(), write: BytesMut::new(), next_id: 1, said_at: Instant::now() };
        let mut connect = Connect::new(hello.client);
        connect.keep_alive = KEEP_ALIVE_SECONDS;
        connect.set_login(hello.user, hello.password);
        connect.last_will = hello.will.map(|topic| LastWill::new(topic, "offline", QoS::AtLeastOnce, true));
        wire.say(&Packet::Connect(connect))?;
        wire.flush().await?;
        match wire.next().await? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok(wire),
            Packet::ConnAck(ack) => Err(WireError::Refused(ack.code)),
            _ => Err(WireError::Silence),
        }
    }

    /// Subscribes to what an agent may hear, or to whatever else is named.
    ///
    /// # Errors
    /// The packet is too large.
    pub fn subscribe(&mut self, filters: impl IntoIterator<Item = String>) -> Result<(), WireError> {
        let filters = filters.into_iter().map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
        let mut subscribe = Subscribe::new_many(filters);
        subscribe.pkid = self.id();
        self.say(&Packet::Subscribe(subscribe))
    }

    /// Publishes; it is on its way after [`Wire::flush`].
    ///
    /// # Errors
    /// The packet is too large.
    pub fn publish(
        &mut self,
        topics: &Topics,
        topic: &Topic,
        payload: Vec<u8>,
        qos: QoS,
        retain: bool,
    ) -> Result<(), WireError> {
        let mut publish = Publish::new(topics.format(topic), qos, payload);
        publish.retain = retain;
        if qos != QoS::AtMostOnce {
            publish.pkid = self.id();
        }
        self.say(&Packet::Publish(publish))
    }

    /// Sends what has been said.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        if !self.write.is_empty() {
            self.stream.write_all_buf(&mut self.write).await?;
            self.said_at = Instant::now();
        }
        Ok(())
    }

    /// When a ping is due.
    pub fn ping_at(&self) -> Instant {
        self.said_at + PING
    }

    /// Pings.
    ///
    /// # Errors
    /// Never in practice: a ping has two bytes.
    pub fn ping(&mut self) -> Result<(), WireError> {
        self.say(&Packet::PingReq)
    }

    /// The next packet; publishes are acknowledged here. It may be dropped at any point without losing anything.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn next(&mut self) -> Result<Packet, WireError> {
        loop {
            match Packet::read(&mut self.read, MAX_PACKET_BYTES) {
                Ok(packet) => {
                    if let Packet::Publish(publish) = &packet
                        && publish.qos == QoS::AtLeastOnce
                    {
                        let ack = PubAck::new(publish.pkid);
                        self.say(&Packet::PubAck(ack))?;
                    }
                    return Ok(packet);
                }
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(error.into()),
            }
            // An idle machine holds no buffer: ten thousand of them would be 40 MB.
            self.read.reserve(1024);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    fn say(&mut self, packet: &Packet) -> Result<(), WireError> {
        packet.write(&mut self.write, MAX_PACKET_BYTES)?;
        Ok(())
    }

    fn id(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }
}
