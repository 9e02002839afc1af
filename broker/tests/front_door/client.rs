//! A client for tests that does exactly what it is told, byte by byte, with a codec of its own: so that the broker is
//! not measured with its own yardstick.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take before a test fails: much longer than it ever does.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A property block: identifiers with the bytes of their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties(pub(crate) Vec<(u8, Vec<u8>)>);

impl Properties {
    pub(crate) fn number(&self, id: u8) -> Option<u32> {
        let (_, bytes) = self.0.iter().find(|(known, _)| *known == id)?;
        Some(bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    pub(crate) fn numbers(&self, id: u8) -> Vec<u32> {
        let with_id = self.0.iter().filter(|(known, _)| *known == id);
        with_id.map(|(_, bytes)| bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte))).collect()
    }

    pub(crate) fn text(&self, id: u8) -> Option<String> {
        let (_, bytes) = self.0.iter().find(|(known, _)| *known == id)?;
        Some(String::from_utf8(bytes[2..].to_vec()).unwrap())
    }

    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let users = self.0.iter().filter(|(id, _)| *id == 38);
        users
            .map(|(_, bytes)| {
                let name = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                (text(&bytes[2..2 + name]), text(&bytes[4 + name..]))
            })
            .collect()
    }

    pub(crate) fn with(mut self, id: u8, value: &[u8]) -> Self {
        self.0.push((id, value.to_vec()));
        self
    }

    pub(crate) fn with_text(self, id: u8, text: &str) -> Self {
        let bytes = string(text);
        self.with(id, &bytes)
    }

    pub(crate) fn with_pair(self, name: &str, value: &str) -> Self {
        let bytes = [string(name), string(value)].concat();
        self.with(38, &bytes)
    }

    fn block(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (id, value) in &self.0 {
            bytes.push(*id);
            if *id == 11 {
                // Kept as a number here, a variable byte integer on the wire.
                let number = value.iter().fold(0usize, |number, &byte| number << 8 | usize::from(byte));
                bytes.extend(variable(number));
            } else {
                bytes.extend_from_slice(value);
            }
        }
        [variable(bytes.len()), bytes].concat()
    }
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

pub(crate) fn variable(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7F).unwrap();
        number >>= 7;
        bytes.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return bytes;
        }
    }
}

pub(crate) fn packet(header: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [vec![header], variable(body.len()), body].concat()
}

/// A message as a test writes and reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) id: u16,
    pub(crate) properties: Properties,
}

impl Message {
    pub(crate) fn new(topic: &str, payload: &str, qos: u8) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, ..Self::default() }
    }

    pub(crate) fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    pub(crate) fn properties(self, properties: Properties) -> Self {
        Self { properties, ..self }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    pub(crate) fn encode(&self, v5: bool) -> Vec<u8> {
        let header = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let id = if self.qos > 0 { self.id.to_be_bytes().to_vec() } else { Vec::new() };
        let block = if v5 { self.properties.block() } else { Vec::new() };
        packet(header, &[&string(&self.topic), &id, &block, &self.payload])
    }
}

/// What the broker sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    ConnAck {
        present: bool,
        code: u8,
        properties: Properties,
    },
    Publish(Message),
    /// PUBACK 4, PUBREC 5, PUBREL 6, PUBCOMP 7.
    Ack {
        kind: u8,
        id: u16,
        code: u8,
    },
    SubAck {
        id: u16,
        codes: Vec<u8>,
    },
    UnsubAck {
        id: u16,
        codes: Vec<u8>,
    },
    Pong,
    Disconnect {
        code: u8,
    },
    /// The connection was closed.
    Closed,
}

/// What is said in CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) v5: bool,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) client_id: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) will: Option<Message>,
    pub(crate) properties: Properties,
}

impl Connect {
    pub(crate) fn v311(client_id: &str) -> Self {
        Self {
            v5: false,
            clean: true,
            keep_alive: 60,
            client_id: client_id.into(),
            user: Some("home".into()),
            password: Some("home".into()),
            will: None,
            properties: Properties::default(),
        }
    }

    pub(crate) fn v5(client_id: &str) -> Self {
        Self { v5: true, ..Self::v311(client_id) }
    }

    pub(crate) fn of(v5: bool, client_id: &str) -> Self {
        Self { v5, ..Self::v311(client_id) }
    }

    pub(crate) fn user(self, name: &str) -> Self {
        Self { user: Some(name.into()), password: Some(name.into()), ..self }
    }

    pub(crate) fn kept(self) -> Self {
        let properties = if self.v5 { self.properties.with(17, &3600u32.to_be_bytes()) } else { self.properties };
        Self { clean: false, properties, ..self }
    }

    pub(crate) fn will(self, will: Message) -> Self {
        Self { will: Some(will), ..self }
    }

    pub(crate) fn keep_alive(self, keep_alive: u16) -> Self {
        Self { keep_alive, ..self }
    }

    pub(crate) fn property(self, id: u8, value: &[u8]) -> Self {
        Self { properties: self.properties.with(id, value), ..self }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut flags = if self.clean { 2 } else { 0 };
        let mut rest = string(&self.client_id);
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | if will.retain { 0x20 } else { 0 };
            if self.v5 {
                rest.extend(will.properties.block());
            }
            rest.extend(string(&will.topic));
            rest.extend(u16::try_from(will.payload.len()).unwrap().to_be_bytes());
            rest.extend(&will.payload);
        }
        for (text, flag) in [(&self.user, 0x80), (&self.password, 0x40)] {
            if let Some(text) = text {
                flags |= flag;
                rest.extend(string(text));
            }
        }
        let block = if self.v5 { self.properties.block() } else { Vec::new() };
        let level = if self.v5 { 5 } else { 4 };
        packet(0x10, &[&string("MQTT"), &[level, flags], &self.keep_alive.to_be_bytes(), &block, &rest])
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    pub(crate) v5: bool,
    next_id: u16,
    /// Messages that came while something else was awaited.
    pub(crate) early: Vec<Message>,
    /// Whether messages are acknowledged as they come.
    pub(crate) acknowledges: bool,
    pub(crate) present: bool,
    pub(crate) connack: Properties,
}

impl Client {
    /// Connects, and expects to be let in.
    pub(crate) async fn connect(address: SocketAddr, connect: &Connect) -> Self {
        let mut client = Self::open(address, connect).await;
        match client.next().await {
            Packet::ConnAck { present, code: 0, properties } => {
                (client.present, client.connack) = (present, properties);
                client
            }
            other => panic!("not let in: {other:?}"),
        }
    }

    /// Connects, and expects not to be let in; the code of the refusal.
    pub(crate) async fn refused(address: SocketAddr, connect: &Connect) -> u8 {
        match Self::open(address, connect).await.next().await {
            Packet::ConnAck { present: false, code, .. } if code != 0 => code,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Sends CONNECT and waits for nothing.
    pub(crate) async fn open(address: SocketAddr, connect: &Connect) -> Self {
        let mut client = Self::raw(address, connect.v5).await;
        client.send(&connect.encode()).await;
        client
    }

    /// A connection on which nothing has been said.
    pub(crate) async fn raw(address: SocketAddr, v5: bool) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            v5,
            next_id: 0,
            early: Vec::new(),
            acknowledges: true,
            present: false,
            connack: Properties::default(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A connection that was closed is noticed when it is read.
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) fn id(&mut self) -> u16 {
        self.next_id = if self.next_id == u16::MAX { 1 } else { self.next_id + 1 };
        self.next_id
    }

    /// The next packet, whatever it is.
    pub(crate) async fn next(&mut self) -> Packet {
        tokio::time::timeout(DEADLINE, self.read()).await.expect("something comes in time")
    }

    async fn read(&mut self) -> Packet {
        loop {
            if let Some((packet, length)) = decode(&self.buffer, self.v5) {
                self.buffer.drain(..length);
                return packet;
            }
            let mut chunk = vec![0; 16384];
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return Packet::Closed,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// The next packet that is not part of receiving messages; those are acknowledged and kept.
    pub(crate) async fn answer(&mut self) -> Packet {
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
    pub(crate) async fn message(&mut self) -> Message {
        while self.early.is_empty() {
            match self.next().await {
                Packet::Publish(message) => self.accept(message).await,
                Packet::Ack { kind: 6, id, .. } => self.ack(7, id).await,
                other => panic!("no message: {other:?}"),
            }
        }
        self.early.remove(0)
    }

    pub(crate) async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push(self.message().await);
        }
        messages
    }

    pub(crate) async fn ack(&mut self, kind: u8, id: u16) {
        let header = kind << 4 | if kind == 6 { 2 } else { 0 };
        self.send(&packet(header, &[&id.to_be_bytes()])).await;
    }

    /// Publishes and waits until the broker has taken it; the reason code.
    pub(crate) async fn publish(&mut self, message: Message) -> u8 {
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

    pub(crate) async fn expect_ack(&mut self, expected: u8, expected_id: u16) -> u8 {
        match self.answer().await {
            Packet::Ack { kind, id, code } if kind == expected && id == expected_id => code,
            other => panic!("expected an acknowledgement of type {expected} for {expected_id}: {other:?}"),
        }
    }

    /// Subscribes; the codes. `options` is the options byte.
    pub(crate) async fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.subscribe_with(filters, &Properties::default()).await
    }

    pub(crate) async fn subscribe_with(&mut self, filters: &[(&str, u8)], properties: &Properties) -> Vec<u8> {
        let expected = self.id();
        let block = if self.v5 { properties.block() } else { Vec::new() };
        let list: Vec<u8> =
            filters.iter().flat_map(|(filter, options)| [string(filter), vec![*options]].concat()).collect();
        self.send(&packet(0x82, &[&expected.to_be_bytes(), &block, &list])).await;
        match self.answer().await {
            Packet::SubAck { id, codes } if id == expected && codes.len() == filters.len() => codes,
            other => panic!("expected SUBACK: {other:?}"),
        }
    }

    pub(crate) async fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let expected = self.id();
        let block = if self.v5 { vec![0] } else { Vec::new() };
        let list: Vec<u8> = filters.iter().flat_map(|filter| string(filter)).collect();
        self.send(&packet(0xA2, &[&expected.to_be_bytes(), &block, &list])).await;
        match self.answer().await {
            Packet::UnsubAck { id, codes } if id == expected => codes,
            other => panic!("expected UNSUBACK: {other:?}"),
        }
    }

    /// Everything that came up to now: a message of its own, sent after whatever others have published, marks the place.
    /// The client's account must be allowed to use the topic `fence/…`.
    pub(crate) async fn until_now(&mut self) -> Vec<Message> {
        let topic = format!("fence/{}", self.stream.local_addr().unwrap());
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

    pub(crate) async fn ping(&mut self) {
        self.send(&[0xC0, 0]).await;
        assert_eq!(self.answer().await, Packet::Pong);
    }

    /// Says goodbye and waits until the broker has closed the connection: its session is the hub's again.
    pub(crate) async fn disconnect(mut self) {
        self.send(&[0xE0, 0]).await;
        self.closed().await;
    }

    /// Waits until the broker closes the connection; the code of its DISCONNECT, if there was one.
    pub(crate) async fn closed(&mut self) -> Option<u8> {
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

fn decode(buffer: &[u8], v5: bool) -> Option<(Packet, usize)> {
    let mut reader = Reader(buffer.get(1..)?);
    let length = reader.variable()?;
    let header_length = buffer.len() - reader.0.len();
    let body = reader.0.get(..length)?;
    Some((decode_body(buffer[0], body, v5), header_length + length))
}

fn decode_body(header: u8, body: &[u8], v5: bool) -> Packet {
    let mut body = Reader(body);
    match header >> 4 {
        2 => {
            let (present, code) = (body.u8() == 1, body.u8());
            Packet::ConnAck { present, code, properties: if v5 { body.properties() } else { Properties::default() } }
        }
        3 => {
            let qos = (header >> 1) & 3;
            let topic = body.string();
            let id = if qos > 0 { body.u16() } else { 0 };
            let properties = if v5 { body.properties() } else { Properties::default() };
            let (dup, retain) = (header & 8 != 0, header & 1 != 0);
            Packet::Publish(Message { topic, payload: body.0.to_vec(), qos, retain, dup, id, properties })
        }
        kind @ 4..=7 => Packet::Ack { kind, id: body.u16(), code: if body.0.is_empty() { 0 } else { body.u8() } },
        9 => {
            let id = body.u16();
            if v5 {
                body.properties();
            }
            Packet::SubAck { id, codes: body.0.to_vec() }
        }
        11 => {
            let id = body.u16();
            if v5 {
                body.properties();
            }
            Packet::UnsubAck { id, codes: body.0.to_vec() }
        }
        13 => Packet::Pong,
        14 => Packet::Disconnect { code: if body.0.is_empty() { 0 } else { body.u8() } },
        other => panic!("the broker sent a packet of type {other}"),
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.to_vec()
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        let bytes = self.take(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    fn string(&mut self) -> String {
        let length = usize::from(self.u16());
        String::from_utf8(self.take(length)).unwrap()
    }

    fn variable(&mut self) -> Option<usize> {
        let mut number = 0;
        for index in 0..4 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= usize::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        panic!("a length of more than four bytes");
    }

    fn properties(&mut self) -> Properties {
        let length = self.variable().unwrap();
        let block = self.take(length);
        let mut block = Reader(&block);
        let mut properties = Properties::default();
        while !block.0.is_empty() {
            let id = block.u8();
            let value = match id {
                1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => block.take(1),
                19 | 33 | 34 | 35 => block.take(2),
                2 | 17 | 24 | 39 => block.take(4),
                11 => u32::try_from(block.variable().unwrap()).unwrap().to_be_bytes().to_vec(),
                38 => [string(&block.string()), string(&block.string())].concat(),
                _ => {
                    let length = usize::from(block.u16());
                    [u16::try_from(length).unwrap().to_be_bytes().to_vec(), block.take(length)].concat()
                }
            };
            properties.0.push((id, value));
        }
        properties
    }
}
