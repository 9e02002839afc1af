//! MQTT 3.1.1 and 5 on the wire, the broker's side: what clients send is read here, what they get is written in
//! [`mod@write`].
//!
//! Our own small codec rather than a client library's: it borrows from the read buffer, keeps a message's properties as
//! the bytes they came as, and refuses what those accept (reserved flags, invalid UTF-8, NUL, wildcards in a topic,
//! packet id 0, a property twice or in the wrong packet). It never allocates more than the packet holds and never panics.

mod properties;
mod read;
mod reader;
pub(crate) mod write;

use reader::Reader;

pub(crate) use properties::{Properties, Property, property};

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
    /// It bridges two brokers: of 3.1.1, with the highest bit of the protocol level set, as mosquitto does it.
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
    pub(crate) qos: u8,
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
    /// A string in it holds a control character or a non-character, see [`crate::filter::is_plain`].
    pub(crate) has_unfit_text: bool,
}

/// The PUBLISH packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publish<'a> {
    pub(crate) qos: u8,
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
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// 0 send retained messages, 1 only if the subscription is new, 2 never.
    pub(crate) retain_handling: u8,
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
    if frame.header != 0x10 {
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

/// The protocol level that a CONNECT packet names, whatever else is wrong with it; a bridge's is that of other clients.
pub(crate) fn protocol_level(frame: &Frame<'_>) -> Option<u8> {
    let mut reader = Reader::new(frame.body);
    reader.binary().ok()?;
    reader.u8().ok().map(|level| level & !BRIDGE)
}

/// Reads a packet of a connected client.
pub(crate) fn decode<'a>(frame: &Frame<'a>, v5: bool) -> Result<Packet<'a>, Fault> {
    let flags = frame.header & 0x0F;
    let packet_type = frame.header >> 4;
    let expected_flags = if matches!(packet_type, 6 | 8 | 10) { 2 } else { 0 };
    if packet_type != 3 && flags != expected_flags {
        return Err(malformed("reserved flags of the fixed header are set"));
    }
    let mut reader = Reader::new(frame.body);
    let packet = match packet_type {
        1 => return Ok(Packet::Connect),
        3 => return read::publish(reader, flags, v5).map(Packet::Publish),
        4 => Packet::PubAck(read::ack(&mut reader, v5, &[0, 0x10])?),
        5 => Packet::PubRec(read::ack(&mut reader, v5, &[0, 0x10])?),
        6 => Packet::PubRel(read::ack(&mut reader, v5, &[0, 0x92])?),
        7 => Packet::PubComp(read::ack(&mut reader, v5, &[0, 0x92])?),
        8 => Packet::Subscribe(read::subscribe(&mut reader, v5)?),
        10 => Packet::Unsubscribe(read::unsubscribe(&mut reader, v5)?),
        12 => Packet::PingRequest,
        14 => Packet::Disconnect(read::disconnect(&mut reader, v5)?),
        15 if v5 => return Ok(Packet::Auth),
        _ => return Err(malformed("a client may not send a packet of this type")),
    };
    reader.finish()?;
    Ok(packet)
}

#[cfg(test)]
mod tests;
