//! The writing half of the codec: every packet that the broker sends, appended to an output buffer.

use super::{PacketType, PropertyId, QoS, reason};

/// What CONNACK tells an accepted client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnAck<'a> {
    pub(crate) session_present: bool,
    pub(crate) session_expiry: Option<u32>,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_bytes: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) assigned_client_id: Option<&'a str>,
    pub(crate) server_keep_alive: Option<u16>,
}

/// CONNACK for a client that is accepted.
pub(crate) fn connack(out: &mut Vec<u8>, v5: bool, connack: &ConnAck<'_>) {
    let flags = u8::from(connack.session_present);
    if !v5 {
        out.extend_from_slice(&[PacketType::ConnAck.header(), 2, flags, 0]);
        return;
    }
    let mut properties = Vec::with_capacity(64);
    if let Some(seconds) = connack.session_expiry {
        put_u32(&mut properties, PropertyId::SessionExpiry, seconds);
    }
    put_u16(&mut properties, PropertyId::ReceiveMaximum, connack.receive_maximum);
    put_u32(&mut properties, PropertyId::MaximumPacketSize, connack.max_packet_bytes);
    put_u16(&mut properties, PropertyId::TopicAliasMaximum, connack.topic_alias_maximum);
    if let Some(client_id) = connack.assigned_client_id {
        properties.push(PropertyId::AssignedClientId as u8);
        put_string(&mut properties, client_id);
    }
    if let Some(seconds) = connack.server_keep_alive {
        put_u16(&mut properties, PropertyId::ServerKeepAlive, seconds);
    }
    packet(out, PacketType::ConnAck, &[&[flags, reason::SUCCESS], &block(&properties)]);
}

/// CONNACK for a client that is refused. 3.1.1 has codes of its own.
///
/// Nothing is written that is longer than `max_bytes`: at first it goes without the words (MQTT 5,
/// section 3.1.2.11.4).
pub(crate) fn connack_refused(out: &mut Vec<u8>, v5: bool, code: u8, words: &str, max_bytes: usize) {
    if !v5 {
        out.extend_from_slice(&[PacketType::ConnAck.header(), 2, 0, v311_connect_code(code)]);
        return;
    }
    for words in [words, ""] {
        let mut answer = Vec::new();
        packet(&mut answer, PacketType::ConnAck, &[&[0, code], &block(&reason_string(words))]);
        if answer.len() <= max_bytes {
            return out.append(&mut answer);
        }
    }
}

/// MQTT 3.1.1, table 3.1.
fn v311_connect_code(code: u8) -> u8 {
    match code {
        reason::UNSUPPORTED_VERSION => 1,
        reason::CLIENT_ID_INVALID => 2,
        reason::BAD_CREDENTIALS => 4,
        reason::NOT_AUTHORIZED | reason::BAD_AUTHENTICATION_METHOD | reason::TOPIC_INVALID => 5,
        _ => 3,
    }
}

/// DISCONNECT with a reason; MQTT 5 only.
pub(crate) fn disconnect(out: &mut Vec<u8>, code: u8, words: &str) {
    packet(out, PacketType::Disconnect, &[&[code], &block(&reason_string(words))]);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(crate) fn ack(out: &mut Vec<u8>, packet_type: PacketType, packet_id: u16, v5: bool, code: u8, words: &str) {
    let header = packet_type.header();
    let [high, low] = packet_id.to_be_bytes();
    if !v5 || code == reason::SUCCESS {
        out.extend_from_slice(&[header, 2, high, low]);
    } else if words.is_empty() {
        out.extend_from_slice(&[header, 3, high, low, code]);
    } else {
        packet(out, packet_type, &[&[high, low, code], &block(&reason_string(words))]);
    }
}

/// The length of SUBACK or UNSUBACK with so many codes; 3.1.1 has none in UNSUBACK, and no bound to
/// hold it against.
pub(crate) fn subscription_answer_length(codes: usize) -> usize {
    let body = 3 + codes;
    1 + variable_length(body) + body
}

/// SUBACK, with the codes in the order of the filters.
pub(crate) fn suback(out: &mut Vec<u8>, packet_id: u16, v5: bool, codes: &[u8]) {
    let no_properties: &[u8] = if v5 { &[0] } else { &[] };
    packet(out, PacketType::SubAck, &[&packet_id.to_be_bytes(), no_properties, codes]);
}

/// UNSUBACK; 3.1.1 has no codes in it.
pub(crate) fn unsuback(out: &mut Vec<u8>, packet_id: u16, v5: bool, codes: &[u8]) {
    let id = packet_id.to_be_bytes();
    let parts: &[&[u8]] = if v5 { &[&id, &[0], codes] } else { &[&id] };
    packet(out, PacketType::UnsubAck, parts);
}

/// PINGRESP.
pub(crate) fn ping_response(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResponse.header(), 0]);
}

/// What a PUBLISH to a client is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publish<'a> {
    pub(crate) dup: bool,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Empty when the alias stands for it.
    pub(crate) topic: &'a str,
    /// 0 with `QoS` 0.
    pub(crate) packet_id: u16,
    /// Properties that pass through as they came.
    pub(crate) properties: &'a [u8],
    pub(crate) expiry_seconds: Option<u32>,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) subscription_ids: &'a [u32],
    pub(crate) payload: &'a [u8],
}

/// The length that the packet will have.
pub(crate) fn publish_length(publish: &Publish<'_>, v5: bool) -> usize {
    let body = body_length(publish, v5);
    1 + variable_length(body) + body
}

fn body_length(publish: &Publish<'_>, v5: bool) -> usize {
    let properties = if v5 { property_length(publish) } else { 0 };
    let property_header = if v5 { variable_length(properties) } else { 0 };
    let id = if publish.qos > QoS::AtMostOnce { 2 } else { 0 };
    2 + publish.topic.len() + id + property_header + properties + publish.payload.len()
}

fn property_length(publish: &Publish<'_>) -> usize {
    let ids: usize = publish.subscription_ids.iter().map(|&id| 1 + variable_length(id as usize)).sum();
    let expiry = if publish.expiry_seconds.is_some() { 5 } else { 0 };
    let alias = if publish.topic_alias.is_some() { 3 } else { 0 };
    publish.properties.len() + expiry + alias + ids
}

/// PUBLISH.
pub(crate) fn publish(out: &mut Vec<u8>, publish: &Publish<'_>, v5: bool) {
    let header =
        PacketType::Publish.header() | u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain);
    out.reserve(publish_length(publish, v5));
    out.push(header);
    put_variable(out, body_length(publish, v5));
    put_string(out, publish.topic);
    if publish.qos > QoS::AtMostOnce {
        out.extend_from_slice(&publish.packet_id.to_be_bytes());
    }
    if v5 {
        put_variable(out, property_length(publish));
        out.extend_from_slice(publish.properties);
        if let Some(seconds) = publish.expiry_seconds {
            put_u32(out, PropertyId::MessageExpiry, seconds);
        }
        if let Some(alias) = publish.topic_alias {
            put_u16(out, PropertyId::TopicAlias, alias);
        }
        for &id in publish.subscription_ids {
            out.push(PropertyId::SubscriptionIdentifier as u8);
            put_variable(out, id as usize);
        }
    }
    out.extend_from_slice(publish.payload);
}

fn packet(out: &mut Vec<u8>, packet_type: PacketType, parts: &[&[u8]]) {
    out.push(packet_type.header());
    put_variable(out, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A property block with its length before it.
fn block(properties: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(properties.len() + 2);
    put_variable(&mut block, properties.len());
    block.extend_from_slice(properties);
    block
}

fn reason_string(words: &str) -> Vec<u8> {
    let mut properties = Vec::new();
    if !words.is_empty() {
        properties.push(PropertyId::ReasonString as u8);
        put_string(&mut properties, words);
    }
    properties
}

/// A user property's bytes.
pub(crate) fn user_property(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + name.len() + value.len());
    bytes.push(PropertyId::User as u8);
    put_string(&mut bytes, name);
    put_string(&mut bytes, value);
    bytes
}

fn put_u16(out: &mut Vec<u8>, id: PropertyId, value: u16) {
    out.push(id as u8);
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_u32(out: &mut Vec<u8>, id: PropertyId, value: u32) {
    out.push(id as u8);
    out.extend_from_slice(&value.to_be_bytes());
}

/// A string with its length; what does not fit its 16 bits cannot get here, since it came in such a
/// field.
fn put_string(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
}

fn variable_length(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value & 0x7F).to_le_bytes()[0];
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}
