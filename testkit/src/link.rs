//! An agent's connection: its credential, its last will, its subscriptions, and what it publishes
//! of itself when it connects. What it does with what it receives is up to its owner.

use std::{io, net::SocketAddr};

use pistat_protocol::{
    codec::encode,
    id::PiId,
    status::Info,
    topic::{Topic, Topics},
};
use tokio::time::Instant;

use crate::{
    credential::Credential,
    packet::{Connect, Message, Packet},
    wire::{Wire, WireError},
};

/// The `QoS` of what is sent again until it is acknowledged.
pub const AT_LEAST_ONCE: u8 = 1;

/// The `QoS` of samples.
pub const AT_MOST_ONCE: u8 = 0;

/// A connection, subscribed to everything that is for this agent.
pub struct Link {
    wire: Wire,
    topics: Topics,
    pi: PiId,
}

impl Link {
    /// Connects with a clean session.
    ///
    /// # Errors
    /// There is no broker, or it refuses the credential.
    pub async fn connect(address: SocketAddr, topics: &Topics, credential: &Credential) -> Result<Self, WireError> {
        let pi = credential.pi.clone();
        let will = Message::new(&topics.format(&Topic::Status(pi.clone())), "offline", AT_LEAST_ONCE).retained();
        let hello = Connect::v311(pi.as_str()).login(pi.as_str(), &credential.secret).will(will);
        let mut wire = Wire::connect(address, &hello).await?;
        wire.subscribe(topics.agent_filters(&pi).map(|(filter, _)| filter));
        Ok(Self { wire, topics: topics.clone(), pi })
    }

    /// Queues what begins a session: its info, then `online`.
    pub fn introduce(&mut self, info: &Info) {
        self.publish(&Topic::Info(self.pi.clone()), encode(info), AT_LEAST_ONCE, true);
        self.publish(&Topic::Status(self.pi.clone()), b"online".to_vec(), AT_LEAST_ONCE, true);
    }

    /// Queues a message.
    pub fn publish(&mut self, topic: &Topic, payload: Vec<u8>, qos: u8, retain: bool) {
        let topic = self.topics.format(topic);
        self.wire.publish(Message { topic, payload, qos, retain, ..Message::default() });
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.wire.flush().await
    }

    /// The next message. It may be cancelled at any point without losing anything.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn next(&mut self) -> Result<Message, WireError> {
        loop {
            if let Packet::Publish(message) = self.wire.next().await? {
                return Ok(message);
            }
        }
    }

    /// When a ping is due.
    pub fn ping_at(&self) -> Instant {
        self.wire.ping_at()
    }

    /// Queues a ping.
    pub fn ping(&mut self) {
        self.wire.ping();
    }
}
