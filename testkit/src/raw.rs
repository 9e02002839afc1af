//! A client that sends exactly what a test says, and expects exactly what a test expects.

use std::net::SocketAddr;

use crate::{
    packet::{Connect, Message, Packet, Properties, packet, string},
    wait::DEADLINE,
    wire::{Wire, WireError},
};

/// One connection.
pub struct Client {
    wire: Wire,
    /// Whether it speaks MQTT 5.
    pub v5: bool,
    /// Messages that came while something else was awaited.
    pub early: Vec<Message>,
    /// Whether messages are acknowledged as they come.
    pub acknowledges: bool,
    /// Whether the broker had a session.
    pub present: bool,
    /// The properties of its CONNACK.
    pub connack: Properties,
}

impl Client {
    /// Connects, and expects to be accepted.
    pub async fn connect(address: SocketAddr, connect: &Connect) -> Self {
        let mut client = Self::open(address, connect).await;
        match client.next().await {
            Packet::ConnAck { present, code: 0, properties } => {
                (client.present, client.connack) = (present, properties);
                client
            }
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// Connects, and expects a refusal; its code.
    pub async fn refused(address: SocketAddr, connect: &Connect) -> u8 {
        match Self::open(address, connect).await.next().await {
            Packet::ConnAck { present: false, code, .. } if code != 0 => code,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Sends CONNECT and waits for nothing.
    pub async fn open(address: SocketAddr, connect: &Connect) -> Self {
        let mut client = Self::raw(address, connect.v5).await;
        client.send(&connect.encode()).await;
        client
    }

    /// A connection on which nothing has been sent.
    pub async fn raw(address: SocketAddr, v5: bool) -> Self {
        let wire = Wire::open(address, v5).await.expect("the broker listens");
        let (early, connack) = (Vec::new(), Properties::default());
        Self { wire, v5, early, acknowledges: true, present: false, connack }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.wire.send(bytes);
        // A connection that was closed is noticed when it is read.
        let _ = self.wire.flush().await;
    }

    /// A packet id that is not in use.
    pub fn id(&mut self) -> u16 {
        self.wire.id()
    }

    /// The next packet, whatever it is.
    pub async fn next(&mut self) -> Packet {
        let next = tokio::time::timeout(DEADLINE, self.wire.read()).await.expect("something comes in time");
        match next {
            Ok(packet) => packet,
            Err(WireError::Io(_)) => Packet::Closed,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next packet that is not part of receiving messages; those are acknowledged and kept.
    pub async fn answer(&mut self) -> Packet {
        loop {
            match self.next().await {
                Packet::Publish(message) => self.accept(message).await,
                Packet::Ack { kind: 6, id, .. } => self.ack(7, id).await,
                other => return other,
            }
        }
    }

    async fn accept(&mut self, message: Message) {
        if self.acknowledges {
            match message.qos {
                0 => {}
                1 => self.ack(4, message.id).await,
                _ => self.ack(5, message.id).await,
            }
        }
        self.early.push(message);
    }

    /// The next message, acknowledged.
    pub async fn message(&mut self) -> Message {
        while self.early.is_empty() {
            match self.next().await {
                Packet::Publish(message) => self.accept(message).await,
                Packet::Ack { kind: 6, id, .. } => self.ack(7, id).await,
                other => panic!("no message: {other:?}"),
            }
        }
        self.early.remove(0)
    }

    /// The next messages, acknowledged.
    pub async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push(self.message().await);
        }
        messages
    }

    /// Acknowledges: PUBACK 4, PUBREC 5, PUBREL 6, PUBCOMP 7.
    pub async fn ack(&mut self, kind: u8, id: u16) {
        let header = kind << 4 | if kind == 6 { 2 } else { 0 };
        self.send(&packet(header, &[&id.to_be_bytes()])).await;
    }

    /// Publishes and waits until the broker has taken it; the reason code.
    pub async fn publish(&mut self, message: Message) -> u8 {
        let id = self.id();
        self.send(&Message { id, ..message.clone() }.encode(self.v5)).await;
        match message.qos {
            0 => 0,
            1 => self.expect_ack(4, id).await,
            _ => {
                let code = self.expect_ack(5, id).await;
                if code >= 0x80 {
                    return code;
                }
                self.ack(6, id).await;
                self.expect_ack(7, id).await
            }
        }
    }

    /// Waits for an acknowledgement; the reason code.
    pub async fn expect_ack(&mut self, expected: u8, expected_id: u16) -> u8 {
        match self.answer().await {
            Packet::Ack { kind, id, code } if kind == expected && id == expected_id => code,
            other => panic!("expected an acknowledgement of type {expected} for {expected_id}: {other:?}"),
        }
    }

    /// Subscribes; the codes. `options` is the options byte.
    pub async fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.subscribe_with(filters, &Properties::default()).await
    }

    /// Subscribes with properties; the codes.
    pub async fn subscribe_with(&mut self, filters: &[(&str, u8)], properties: &Properties) -> Vec<u8> {
        let expected = self.id();
        let block = if self.v5 { properties.encode() } else { Vec::new() };
        let list: Vec<u8> =
            filters.iter().flat_map(|(filter, options)| [string(filter), vec![*options]].concat()).collect();
        self.send(&packet(0x82, &[&expected.to_be_bytes(), &block, &list])).await;
        match self.answer().await {
            Packet::SubAck { id, codes } if id == expected && codes.len() == filters.len() => codes,
            other => panic!("expected SUBACK: {other:?}"),
        }
    }

    /// Unsubscribes; the codes.
    pub async fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let expected = self.id();
        let block = if self.v5 { vec![0] } else { Vec::new() };
        let list: Vec<u8> = filters.iter().flat_map(|filter| string(filter)).collect();
        self.send(&packet(0xA2, &[&expected.to_be_bytes(), &block, &list])).await;
        match self.answer().await {
            Packet::UnsubAck { id, codes } if id == expected => codes,
            other => panic!("expected UNSUBACK: {other:?}"),
        }
    }

    /// Everything that came up to now: a message of its own, sent after whatever others have
    /// published, marks the place. The client's account must be allowed to use the topic `fence/…`.
    pub async fn until_now(&mut self) -> Vec<Message> {
        let topic = format!("fence/{}", self.wire.local_address().expect("it is connected"));
        // With QoS 1, since QoS 0 may pass by what waits for a full window.
        assert_eq!(self.subscribe(&[(&topic, 1)]).await, [1]);
        self.publish(Message::new(&topic, "", 1)).await;
        let mut messages = Vec::new();
        loop {
            let message = self.message().await;
            if message.topic == topic {
                self.unsubscribe(&[&topic]).await;
                messages.append(&mut self.early);
                return messages;
            }
            messages.push(message);
        }
    }

    /// Pings, and waits for the answer.
    pub async fn ping(&mut self) {
        self.send(&[0xC0, 0]).await;
        assert_eq!(self.answer().await, Packet::Pong);
    }

    /// Disconnects and waits until the broker has closed the connection: its session is parked.
    pub async fn disconnect(mut self) {
        self.send(&[0xE0, 0]).await;
        self.closed().await;
    }

    /// Waits until the broker closes the connection; the code of its DISCONNECT, if there was one.
    pub async fn closed(&mut self) -> Option<u8> {
        let mut reason = None;
        loop {
            match self.next().await {
                Packet::Closed => return reason,
                Packet::Disconnect { code } => reason = Some(code),
                _ => {}
            }
        }
    }
}
