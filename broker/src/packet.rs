//! MQTT 3.1.1 and 5 on the wire, the broker's side: what clients send is read here, what they get
//! is written in [`mod@write`].
//!
//! Our own small codec rather than a client library's: it borrows from the read buffer, keeps a
//! message's properties as the bytes they came as, and refuses what those accept (reserved flags,
//! invalid UTF-8, NUL, wildcards in a topic, packet id 0, a property twice or in the wrong packet).
//! It never allocates more than the packet holds and never panics.

mod properties;
mod read;
mod reader;
pub(crate) mod write;

use reader::Reader;

pub(crate) use properties::{Properties, Property, PropertyId};

/// The delivery guarantee of a message (MQTT 5, section 4.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, strum::FromRepr)]
#[repr(u8)]
#[expect(clippy::enum_variant_names, reason = "the specification's own names")]
pub(crate) enum QoS {
    /// `QoS` 0: sent once, never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// `QoS` 1: repeated until it is acknowledged.
    AtLeastOnce = 1,
    /// `QoS` 2: acknowledged in two steps, so that repetitions are recognised.
    ExactlyOnce = 2,
}

/// The packet types (MQTT 5, section 2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::FromRepr)]
#[repr(u8)]
pub(crate) enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingRequest = 12,
    PingResponse = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The first byte of a packet of this type; PUBLISH has its own flags besides.
    pub(crate) fn header(self) -> u8 {
        let flags = if matches!(self, Self::PubRel | Self::Subscribe | Self::Unsubscribe) { 2 } else { 0 };
        (self as u8) << 4 | flags
    }
}

/// The reason codes that the broker sends (MQTT 5, section 2.4).
pub(crate) mod reason {
    pub(crate) const SUCCESS: u8 = 0x00;
    pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub(crate) const UNSPECIFIED: u8 = 0x80;
    pub(crate) const MALFORMED_PACKET: u8 = 0x81;
    pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
    pub(crate) const IMPLEMENTATION_SPECIFIC: u8 = 0x83;
    pub(crate) const UNSUPPORTED_VERSION: u8 = 0x84;
    pub(crate) const CLIENT_ID_INVALID: u8 = 0x85;
    pub(crate) const BAD_CREDENTIALS: u8 = 0x86;
    pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
    pub(crate) const SERVER_BUSY: u8 = 0x89;
    pub(crate) const SERVER_SHUTTING_DOWN: u8 = 0x8B;
    pub(crate) const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
    pub(crate) const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub(crate) const SESSION_TAKEN_OVER: u8 = 0x8E;
    pub(crate) const FILTER_INVALID: u8 = 0x8F;
    pub(crate) const TOPIC_INVALID: u8 = 0x90;
    pub(crate) const PACKET_ID_NOT_FOUND: u8 = 0x92;
    pub(crate) const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
    pub(crate) const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
    pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
}

/// Why a packet ends its connection: the code for the client and the words for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Fault {
    /// The MQTT 5 reason code.
    pub(crate) reason: u8,
    /// What was wrong.
    pub(crate) what: &'static str,
}

pub(crate) fn malformed(what: &'static str) -> Fault {
    Fault { reason: reason::MALFORMED_PACKET, what }
}

pub(crate) fn protocol_error(what: &'static str) -> Fault {
    Fault { reason: reason::PROTOCOL_ERROR, what }
}

/// One packet of the stream, not yet looked into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) header: u8,
    body: &'a [u8],
    /// The whole packet's length.
    pub(crate) length: usize,
}

impl Frame<'_> {
    /// `None` for a type that MQTT does not have.
    pub(crate) fn packet_type(&self) -> Option<PacketType> {
        PacketType::from_repr(self.header >> 4)
    }
}

/// Takes the first packet off a stream's bytes; `None` when it has not come completely.
pub(crate) fn split(bytes: &[u8], max_bytes: u32) -> Result<Option<Frame<'_>>, Fault> {
    let Some((&header, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((body_length, length_bytes)) = reader::remaining_length(rest)? else { return Ok(None) };
    let length = 1 + length_bytes + body_length;
    if length > max_bytes as usize {
        return Err(Fault { reason: reason::PACKET_TOO_LARGE, what: "the packet is larger than allowed" });
    }
    Ok(bytes.get(1 + length_bytes..length).map(|body| Frame { header, body, length }))
}

/// A packet that a connected client may send.
#[derive(Debug)]
pub(crate) enum Packet<'a> {
    Connect,
    Publish(Publish<'a>),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    PingRequest,
    Disconnect(Disconnect),
    Auth,
}

/// The CONNECT packet.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the packet has that many independent flags")]
pub(crate) struct Connect<'a> {
    pub(crate) v5: bool,
    /// It bridges two brokers: of 3.1.1, with the highest bit of the protocol level set, as
    /// mosquitto does it.
    pub(crate) is_bridge: bool,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive: u16,
    pub(crate) client_id: &'a str,
    pub(crate) will: Option<Will<'a>>,
    pub(crate) user_name: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) session_expiry: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_bytes: Option<u32>,
    pub(crate) topic_alias_maximum: u16,
    /// Whether reason strings may be sent in any packet.
    pub(crate) wants_problems: bool,
    pub(crate) has_authentication_method: bool,
}

/// A last will as it stands in CONNECT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Will<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) delay_seconds: u32,
    pub(crate) properties: MessageProperties<'a>,
}

/// What travels with a message besides topic and payload.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MessageProperties<'a> {
    /// The property block as it came, checked.
    pub(crate) raw: &'a [u8],
    pub(crate) expiry_seconds: Option<u32>,
    pub(crate) topic_alias: Option<u16>,
    /// A string in it holds a control character or a non-character, see
    /// [`crate::filter::is_plain`].
    pub(crate) has_unfit_text: bool,
}

/// The PUBLISH packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publish<'a> {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) topic: &'a str,
    /// 0 with `QoS` 0.
    pub(crate) packet_id: u16,
    pub(crate) properties: MessageProperties<'a>,
    pub(crate) payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    pub(crate) packet_id: u16,
    pub(crate) reason: u8,
}

/// The SUBSCRIBE packet.
#[derive(Debug)]
pub(crate) struct Subscribe<'a> {
    pub(crate) packet_id: u16,
    pub(crate) identifier: u32,
    pub(crate) filters: Vec<(&'a str, SubscriptionOptions)>,
}

/// How a subscription wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SubscriptionOptions {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
}

/// When a subscription is sent retained messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, strum::FromRepr)]
#[repr(u8)]
pub(crate) enum RetainHandling {
    #[default]
    Always = 0,
    /// Only if the subscription is new.
    IfNew = 1,
    Never = 2,
}

impl SubscriptionOptions {
    /// As SUBSCRIBE writes them (MQTT 5, section 3.8.3.1); `None` for values that it does not have.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        let (qos, retain_handling) = (QoS::from_repr(byte & 3)?, RetainHandling::from_repr(byte >> 4)?);
        Some(Self { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
    }

    /// The inverse of [`Self::from_byte`].
    pub(crate) fn to_byte(self) -> u8 {
        let (no_local, retain) = (u8::from(self.no_local), u8::from(self.retain_as_published));
        self.qos as u8 | no_local << 2 | retain << 3 | (self.retain_handling as u8) << 4
    }
}

/// The UNSUBSCRIBE packet.
#[derive(Debug)]
pub(crate) struct Unsubscribe<'a> {
    pub(crate) packet_id: u16,
    pub(crate) filters: Vec<&'a str>,
}

/// The DISCONNECT packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disconnect {
    pub(crate) reason: u8,
    pub(crate) session_expiry: Option<u32>,
}

/// Reads a CONNECT packet. An unknown protocol or version is a fault of its own.
pub(crate) fn decode_connect<'a>(frame: &Frame<'a>) -> Result<Connect<'a>, Fault> {
    if frame.header != PacketType::Connect.header() {
        return Err(malformed("the first packet is not CONNECT"));
    }
    let mut reader = Reader::new(frame.body);
    let protocol = reader.string()?;
    let level = reader.u8()?;
    let v5 = match (protocol, level) {
        ("MQTT", 4 | BRIDGE_311) => false,
        ("MQTT", 5) => true,
        ("MQTT" | "MQIsdp", _) => {
            return Err(Fault { reason: reason::UNSUPPORTED_VERSION, what: "only MQTT 3.1.1 and 5 are spoken here" });
        }
        _ => return Err(malformed("the protocol is not MQTT")),
    };
    let mut connect = read::connect_after_version(&mut reader, v5)?;
    connect.is_bridge = level == BRIDGE_311;
    Ok(connect)
}

/// The protocol level of a bridge that speaks 3.1.1.
const BRIDGE_311: u8 = BRIDGE | 4;

/// The bit of the protocol level by which a bridge says what it is.
const BRIDGE: u8 = 0x80;

/// The protocol level that a CONNECT packet names, whatever else is wrong with it; a bridge's is
/// that of other clients.
pub(crate) fn protocol_level(frame: &Frame<'_>) -> Option<u8> {
    let mut reader = Reader::new(frame.body);
    reader.binary().ok()?;
    reader.u8().ok().map(|level| level & !BRIDGE)
}

/// Reads a packet of a connected client.
pub(crate) fn decode<'a>(frame: &Frame<'a>, v5: bool) -> Result<Packet<'a>, Fault> {
    let unexpected = malformed("a client may not send a packet of this type");
    let packet_type = frame.packet_type().ok_or(unexpected)?;
    if packet_type != PacketType::Publish && frame.header != packet_type.header() {
        return Err(malformed("reserved flags of the fixed header are set"));
    }
    let mut reader = Reader::new(frame.body);
    let packet = match packet_type {
        PacketType::Connect => return Ok(Packet::Connect),
        PacketType::Publish => return read::publish(reader, frame.header & 0x0F, v5).map(Packet::Publish),
        PacketType::PubAck => Packet::PubAck(read::ack(&mut reader, v5, &[0, 0x10])?),
        PacketType::PubRec => Packet::PubRec(read::ack(&mut reader, v5, &[0, 0x10])?),
        PacketType::PubRel => Packet::PubRel(read::ack(&mut reader, v5, &[0, 0x92])?),
        PacketType::PubComp => Packet::PubComp(read::ack(&mut reader, v5, &[0, 0x92])?),
        PacketType::Subscribe => Packet::Subscribe(read::subscribe(&mut reader, v5)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(read::unsubscribe(&mut reader, v5)?),
        PacketType::PingRequest => Packet::PingRequest,
        PacketType::Disconnect => Packet::Disconnect(read::disconnect(&mut reader, v5)?),
        PacketType::Auth if v5 => return Ok(Packet::Auth),
        _ => return Err(unexpected),
    };
    reader.finish()?;
    Ok(packet)
}

#[cfg(test)]
mod tests;
