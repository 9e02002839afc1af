//! MQTT 3.1.1 and 5 packets, byte by byte, with a codec of its own: the broker is not tested with
//! its own code, and a test can write what no client library would.

/// The packet's bytes are not MQTT, or are of a type that only clients send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A property block: identifiers with the bytes of their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties(pub Vec<(u8, Vec<u8>)>);

impl Properties {
    /// The first value with this identifier, as a number.
    pub fn number(&self, id: u8) -> Option<u32> {
        let (_, bytes) = self.0.iter().find(|(known, _)| *known == id)?;
        Some(bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    /// All values with this identifier, as numbers.
    pub fn numbers(&self, id: u8) -> Vec<u32> {
        let with_id = self.0.iter().filter(|(known, _)| *known == id);
        with_id.map(|(_, bytes)| bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte))).collect()
    }

    /// The first value with this identifier, as a text.
    pub fn text(&self, id: u8) -> Option<String> {
        let (_, bytes) = self.0.iter().find(|(known, _)| *known == id)?;
        Some(String::from_utf8(bytes[2..].to_vec()).unwrap())
    }

    /// The user properties.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let users = self.0.iter().filter(|(id, _)| *id == 38);
        users
            .map(|(_, bytes)| {
                let name = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                (text(&bytes[2..2 + name]), text(&bytes[4 + name..]))
            })
            .collect()
    }

    /// With one more, of these bytes.
    #[must_use]
    pub fn with(mut self, id: u8, value: &[u8]) -> Self {
        self.0.push((id, value.to_vec()));
        self
    }

    /// With one more, a text.
    #[must_use]
    pub fn with_text(self, id: u8, text: &str) -> Self {
        let bytes = string(text);
        self.with(id, &bytes)
    }

    /// With one more user property.
    #[must_use]
    pub fn with_pair(self, name: &str, value: &str) -> Self {
        let bytes = [string(name), string(value)].concat();
        self.with(38, &bytes)
    }

    /// As they stand in a packet, with their length.
    pub fn encode(&self) -> Vec<u8> {
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

/// A text with its length, as it stands in a packet.
pub fn string(text: &str) -> Vec<u8> {
    bytes(text.as_bytes())
}

/// Bytes with their length, as they stand in a packet.
pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("a field has at most 65,535 bytes").to_be_bytes(), bytes].concat()
}

/// A variable byte integer.
pub fn variable(mut number: usize) -> Vec<u8> {
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

/// A whole packet: its first byte, its length, and its parts.
pub fn packet(header: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [vec![header], variable(body.len()), body].concat()
}

/// A message as a test writes and reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    pub properties: Properties,
}

impl Message {
    /// A message that is not retained.
    pub fn new(topic: &str, payload: &str, qos: u8) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, ..Self::default() }
    }

    /// The same, retained.
    #[must_use]
    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    /// The same, with these properties.
    #[must_use]
    pub fn properties(self, properties: Properties) -> Self {
        Self { properties, ..self }
    }

    /// The payload as a text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// Its PUBLISH.
    pub fn encode(&self, v5: bool) -> Vec<u8> {
        let header = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let id = if self.qos > 0 { self.id.to_be_bytes().to_vec() } else { Vec::new() };
        let block = if v5 { self.properties.encode() } else { Vec::new() };
        packet(header, &[&string(&self.topic), &id, &block, &self.payload])
    }
}

/// What the broker sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
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

/// The content of a CONNECT.
#[derive(Debug, Clone)]
pub struct Connect {
    pub v5: bool,
    pub clean: bool,
    pub keep_alive: u16,
    pub client_id: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub will: Option<Message>,
    pub properties: Properties,
}

impl Connect {
    /// MQTT 3.1.1 with a clean session, as the user `home`.
    pub fn v311(client_id: &str) -> Self {
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

    /// MQTT 5 with a clean start, as the user `home`.
    pub fn v5(client_id: &str) -> Self {
        Self { v5: true, ..Self::v311(client_id) }
    }

    /// Either of them.
    pub fn of(v5: bool, client_id: &str) -> Self {
        Self { v5, ..Self::v311(client_id) }
    }

    /// As a user whose password is the name.
    #[must_use]
    pub fn user(self, name: &str) -> Self {
        self.login(name, name)
    }

    /// As a user with this password.
    #[must_use]
    pub fn login(self, user: &str, password: &str) -> Self {
        Self { user: Some(user.into()), password: Some(password.into()), ..self }
    }

    /// With a session that outlives the connection.
    #[must_use]
    pub fn kept(self) -> Self {
        let properties = if self.v5 { self.properties.with(17, &3600u32.to_be_bytes()) } else { self.properties };
        Self { clean: false, properties, ..self }
    }

    /// With a last will.
    #[must_use]
    pub fn will(self, will: Message) -> Self {
        Self { will: Some(will), ..self }
    }

    /// With another keep alive, in seconds.
    #[must_use]
    pub fn keep_alive(self, keep_alive: u16) -> Self {
        Self { keep_alive, ..self }
    }

    /// With one more property.
    #[must_use]
    pub fn property(self, id: u8, value: &[u8]) -> Self {
        Self { properties: self.properties.with(id, value), ..self }
    }

    /// Its CONNECT.
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = if self.clean { 2 } else { 0 };
        let mut rest = string(&self.client_id);
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | if will.retain { 0x20 } else { 0 };
            if self.v5 {
                rest.extend(will.properties.encode());
            }
            rest.extend(string(&will.topic));
            rest.extend(bytes(&will.payload));
        }
        for (text, flag) in [(&self.user, 0x80), (&self.password, 0x40)] {
            if let Some(text) = text {
                flags |= flag;
                rest.extend(string(text));
            }
        }
        let block = if self.v5 { self.properties.encode() } else { Vec::new() };
        let level = if self.v5 { 5 } else { 4 };
        packet(0x10, &[&string("MQTT"), &[level, flags], &self.keep_alive.to_be_bytes(), &block, &rest])
    }
}

/// The lengths of the first packet's header and body; `None` while its header is incomplete.
///
/// # Errors
/// The length takes more than four bytes.
pub fn lengths(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut length = 0;
    for (index, &byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 2, length)));
        }
    }
    if bytes.len() > 4 { Err(Malformed) } else { Ok(None) }
}

/// The first packet and how many bytes it takes; `None` while it is incomplete.
///
/// # Errors
/// It is not a packet that a broker sends.
pub fn decode(bytes: &[u8], v5: bool) -> Result<Option<(Packet, usize)>, Malformed> {
    let Some((header, length)) = lengths(bytes)? else { return Ok(None) };
    let Some(body) = bytes.get(header..header + length) else { return Ok(None) };
    let packet = decode_body(bytes[0], Reader(body), v5).ok_or(Malformed)?;
    Ok(Some((packet, header + length)))
}

fn decode_body(header: u8, mut body: Reader<'_>, v5: bool) -> Option<Packet> {
    Some(match header >> 4 {
        2 => {
            let (present, code) = (body.u8()? == 1, body.u8()?);
            Packet::ConnAck { present, code, properties: body.properties(v5)? }
        }
        3 => {
            let qos = (header >> 1) & 3;
            let topic = body.string()?;
            let id = if qos > 0 { body.u16()? } else { 0 };
            let properties = body.properties(v5)?;
            let (dup, retain) = (header & 8 != 0, header & 1 != 0);
            Packet::Publish(Message { topic, payload: body.0.to_vec(), qos, retain, dup, id, properties })
        }
        kind @ 4..=7 => Packet::Ack { kind, id: body.u16()?, code: body.u8().unwrap_or(0) },
        kind @ (9 | 11) => {
            let id = body.u16()?;
            body.properties(v5)?;
            let codes = body.0.to_vec();
            if kind == 9 { Packet::SubAck { id, codes } } else { Packet::UnsubAck { id, codes } }
        }
        13 => Packet::Pong,
        14 => Packet::Disconnect { code: body.u8().unwrap_or(0) },
        _ => return None,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::from(self.u16()?);
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn variable(&mut self) -> Option<usize> {
        let mut number = 0;
        for index in 0..4 {
            let byte = self.u8()?;
            number |= usize::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn properties(&mut self, v5: bool) -> Option<Properties> {
        let mut properties = Properties::default();
        if !v5 {
            return Some(properties);
        }
        let length = self.variable()?;
        let mut block = Reader(self.take(length)?);
        while !block.0.is_empty() {
            let id = block.u8()?;
            let value = match id {
                1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => block.take(1)?.to_vec(),
                19 | 33 | 34 | 35 => block.take(2)?.to_vec(),
                2 | 17 | 24 | 39 => block.take(4)?.to_vec(),
                11 => u32::try_from(block.variable()?).ok()?.to_be_bytes().to_vec(),
                38 => [string(&block.string()?), string(&block.string()?)].concat(),
                _ => bytes(block.u16().and_then(|length| block.take(length.into()))?),
            };
            properties.0.push((id, value));
        }
        Some(properties)
    }
}
