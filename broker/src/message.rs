//! A message in the broker: one buffer of exactly its size, which is also the envelope that passes
//! the log.
//!
//! The layout is the broker's own and never leaves the process, except into the retained store,
//! which checks it: `flags, publisher, expires_at, topic length, property length, topic,
//! properties, payload`. Properties are the MQTT 5 bytes as they came, without those that belong to
//! one hop (alias, subscription ids, expiry) and without any `pistat-account` but the broker's own.
//! A retained payload can be packed: its length, then an LZ4 block.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pistat_protocol::topic::ACCOUNT_PROPERTY;
use slotmap::{Key, KeyData};

use crate::filter::is_plain;
use crate::packet::{MessageProperties, Properties, Property, PropertyId, QoS, write};

/// Milliseconds since the broker started: immune to steps of the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

slotmap::new_key_type! {
    /// A session of the hub, and the publisher of a message.
    pub(crate) struct SessionId;
}

impl SessionId {
    /// The broker itself, and messages whose publisher is unknown.
    pub(crate) fn broker() -> Self {
        Self::null()
    }

    fn to_bytes(self) -> [u8; 8] {
        self.data().as_ffi().to_le_bytes()
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        KeyData::from_ffi(u64::from_le_bytes(bytes)).into()
    }

    /// A session of a test, by its number.
    #[cfg(test)]
    pub(crate) fn numbered(number: u32) -> Self {
        KeyData::from_ffi(1 << 32 | u64::from(number)).into()
    }
}

const HEADER_BYTES: usize = 1 + 8 + 8 + 2 + 4;
const NEVER: u64 = u64::MAX;
const RETAIN: u8 = 4;
const PACKED: u8 = 8;
const PACKED_LENGTH_BYTES: usize = 4;

/// What a new message is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    pub(crate) publisher: SessionId,
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: MessageProperties<'a>,
    /// The account to stamp the message with.
    pub(crate) stamp: Option<&'a str>,
    pub(crate) now_ms: u64,
}

impl Draft<'_> {
    /// The envelope, in a buffer of exactly its size.
    pub(crate) fn seal(&self) -> Bytes {
        let kept = self.kept_properties();
        let kept = kept.as_deref().unwrap_or(self.properties.raw);
        let stamp = self.stamp.map(|account| write::user_property(ACCOUNT_PROPERTY, account)).unwrap_or_default();
        let expires_at = match self.properties.expiry_seconds {
            Some(seconds) => self.now_ms.saturating_add(u64::from(seconds) * 1000),
            None => NEVER,
        };
        let property_bytes = kept.len() + stamp.len();
        let mut frame = Vec::with_capacity(HEADER_BYTES + self.topic.len() + property_bytes + self.payload.len());
        frame.push(self.qos as u8 | if self.retain { RETAIN } else { 0 });
        frame.extend_from_slice(&self.publisher.to_bytes());
        frame.extend_from_slice(&expires_at.to_le_bytes());
        // Topics come in fields of 16-bit length, properties in packets of at most 256 MiB.
        frame.extend_from_slice(&u16::try_from(self.topic.len()).unwrap_or(u16::MAX).to_le_bytes());
        frame.extend_from_slice(&u32::try_from(property_bytes).unwrap_or(u32::MAX).to_le_bytes());
        frame.extend_from_slice(self.topic.as_bytes());
        frame.extend_from_slice(kept);
        frame.extend_from_slice(&stamp);
        frame.extend_from_slice(self.payload);
        Bytes::from(frame)
    }

    /// The properties that pass through; `None` when all of them do.
    fn kept_properties(&self) -> Option<Vec<u8>> {
        let block = self.properties.raw;
        if Properties::new(block).all(|p| p.as_ref().is_ok_and(passes_through)) {
            return None;
        }
        let mut kept = Vec::with_capacity(block.len());
        for property in Properties::new(block).filter_map(Result::ok).filter(passes_through) {
            kept.extend_from_slice(property.raw);
        }
        Some(kept)
    }
}

/// Whether a property goes on to the receivers: what belongs to one hop does not, nor a stamp that
/// is not ours.
fn passes_through(property: &Property<'_>) -> bool {
    match property.id {
        PropertyId::PayloadFormat
        | PropertyId::ContentType
        | PropertyId::ResponseTopic
        | PropertyId::CorrelationData => true,
        PropertyId::User => property.pair_name() != Some(ACCOUNT_PROPERTY),
        _ => false,
    }
}

/// A message as it came out of the log; everyone who holds it shares its buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    frame: Bytes,
    topic_end: u32,
    properties_end: u32,
    /// Milliseconds of the broker's clock; `u64::MAX` is never.
    expires_at: u64,
}

impl Message {
    /// Opens an envelope; `None` when it is not one.
    pub(crate) fn open(frame: Bytes) -> Option<Self> {
        QoS::from_repr(frame.first()? & 3)?;
        let expires_at = u64::from_le_bytes(frame.get(9..17)?.try_into().ok()?);
        let topic_length = u16::from_le_bytes(frame.get(17..19)?.try_into().ok()?);
        let property_length = u32::from_le_bytes(frame.get(19..23)?.try_into().ok()?);
        let topic_end = u32::try_from(HEADER_BYTES).ok()?.checked_add(topic_length.into())?;
        let properties_end = topic_end.checked_add(property_length)?;
        std::str::from_utf8(frame.get(HEADER_BYTES..topic_end as usize)?).ok()?;
        frame.get(..properties_end as usize)?;
        Some(Self { frame, topic_end, properties_end, expires_at })
    }

    pub(crate) fn topic(&self) -> &str {
        // Checked when the envelope was opened; an empty topic matches nothing.
        std::str::from_utf8(&self.frame[HEADER_BYTES..self.topic_end as usize]).unwrap_or_default()
    }

    /// Whether all its text may be sent to clients, see [`is_plain`].
    pub(crate) fn is_plain(&self) -> bool {
        is_plain(self.topic())
            && Properties::new(self.properties()).all(|property| property.is_ok_and(|property| property.is_plain()))
    }

    pub(crate) fn properties(&self) -> &[u8] {
        &self.frame[self.topic_end as usize..self.properties_end as usize]
    }

    pub(crate) fn payload(&self) -> Cow<'_, [u8]> {
        let payload = &self.frame[self.properties_end as usize..];
        if self.is_packed() { Cow::Owned(unpack(payload).unwrap_or_default()) } else { Cow::Borrowed(payload) }
    }

    /// The bytes of the payload, as a receiver gets it.
    pub(crate) fn payload_bytes(&self) -> usize {
        let payload = &self.frame[self.properties_end as usize..];
        if self.is_packed() { packed_length(payload).unwrap_or(0) } else { payload.len() }
    }

    /// Whether its payload is packed.
    pub(crate) fn is_packed(&self) -> bool {
        self.frame[0] & PACKED != 0
    }

    /// The same message in less memory; `None` when that would not save at least a quarter.
    pub(crate) fn packed(&self) -> Option<Self> {
        if self.is_packed() {
            return None;
        }
        let (head, payload) = self.frame.split_at(self.properties_end as usize);
        let block = lz4_flex::block::compress(payload);
        let packed_bytes = head.len() + PACKED_LENGTH_BYTES + block.len();
        if packed_bytes > self.bytes() - self.bytes() / 4 {
            return None;
        }
        let mut frame = Vec::with_capacity(packed_bytes);
        frame.extend_from_slice(head);
        frame.extend_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
        frame.extend_from_slice(&block);
        frame[0] |= PACKED;
        let packed = Self::open(Bytes::from(frame))?;
        (*packed.payload() == *payload).then_some(packed)
    }

    pub(crate) fn qos(&self) -> QoS {
        // Checked when the envelope was opened.
        QoS::from_repr(self.frame[0] & 3).unwrap_or_default()
    }

    pub(crate) fn retain(&self) -> bool {
        self.frame[0] & RETAIN != 0
    }

    pub(crate) fn publisher(&self) -> SessionId {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.frame[1..9]);
        SessionId::from_bytes(bytes)
    }

    /// The memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.frame.len()
    }

    /// The envelope itself, to be written to disk.
    pub(crate) fn frame(&self) -> Bytes {
        self.frame.clone()
    }

    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at <= now_ms
    }

    /// Milliseconds until it expires; `None` is never.
    pub(crate) fn expires_in_ms(&self, now_ms: u64) -> Option<u64> {
        (self.expires_at != NEVER).then(|| self.expires_at.saturating_sub(now_ms))
    }

    /// The Message Expiry Interval for a receiver: what is left, at least a second since it has not
    /// expired.
    pub(crate) fn expiry_seconds(&self, now_ms: u64) -> Option<u32> {
        self.expires_in_ms(now_ms).map(|left| u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// The same message with another life time, as it was read back from disk or left as a will.
    pub(crate) fn reframed(frame: &[u8], expires_in_ms: Option<u64>, now_ms: u64) -> Option<Arc<Self>> {
        Self::open(resealed(frame, expires_in_ms, now_ms)?).map(Arc::new)
    }
}

fn packed_length(payload: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(payload.get(..PACKED_LENGTH_BYTES)?.try_into().ok()?);
    usize::try_from(length).ok()
}

/// `None` is for what was not packed here: on its way through the disk it had a checksum.
fn unpack(payload: &[u8]) -> Option<Vec<u8>> {
    let block = payload.get(PACKED_LENGTH_BYTES..)?;
    lz4_flex::block::decompress(block, packed_length(payload)?).ok()
}

/// An envelope with another life time and no publisher.
pub(crate) fn resealed(frame: &[u8], expires_in_ms: Option<u64>, now_ms: u64) -> Option<Bytes> {
    let mut frame = frame.to_vec();
    let expires_at = expires_in_ms.map_or(NEVER, |left| now_ms.saturating_add(left));
    frame.get_mut(1..9)?.copy_from_slice(&SessionId::broker().to_bytes());
    frame.get_mut(9..17)?.copy_from_slice(&expires_at.to_le_bytes());
    Some(Bytes::from(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft<'a>(raw: &'a [u8], stamp: Option<&'a str>) -> Draft<'a> {
        let expiry_seconds = Properties::new(raw).filter_map(Result::ok).any(|p| p.id == PropertyId::MessageExpiry);
        let properties =
            MessageProperties { raw, expiry_seconds: expiry_seconds.then_some(10), ..MessageProperties::default() };
        let publisher = SessionId::numbered(7);
        Draft {
            publisher,
            topic: "a/é",
            payload: b"payload",
            qos: QoS::ExactlyOnce,
            retain: true,
            properties,
            stamp,
            now_ms: 1000,
        }
    }

    #[test]
    fn what_is_sealed_can_be_opened() {
        let raw = write::user_property("k", "v");
        let message = Message::open(draft(&raw, None).seal()).unwrap();
        assert_eq!((message.topic(), &message.payload()[..], message.properties()), ("a/é", &b"payload"[..], &raw[..]));
        assert_eq!(
            (message.qos(), message.retain(), message.publisher()),
            (QoS::ExactlyOnce, true, SessionId::numbered(7))
        );
        assert_eq!((message.expiry_seconds(u64::MAX - 1), message.is_expired(u64::MAX - 1)), (None, false));
    }

    #[test]
    fn what_is_packed_is_smaller_and_the_same_to_receivers() {
        let payload = br#"{"name":"CPU","unit_of_measurement":"%"},"#.repeat(100);
        let raw = write::user_property("k", "v");
        let plain = Message::open(Draft { payload: &payload, ..draft(&raw, None) }.seal()).unwrap();
        let packed = plain.packed().unwrap();
        assert!(packed.bytes() < plain.bytes() / 4);
        let reopened = Message::open(packed.frame()).unwrap();
        for message in [&plain, &packed, &reopened] {
            assert_eq!((message.topic(), message.properties(), message.qos()), ("a/é", &raw[..], QoS::ExactlyOnce));
            assert_eq!((&message.payload()[..], message.payload_bytes()), (&payload[..], payload.len()));
        }
        assert!(packed.packed().is_none());
        assert!(Message::open(draft(&raw, None).seal()).unwrap().packed().is_none(), "nothing would be saved");
    }

    #[test]
    fn what_belongs_to_one_hop_or_is_forged_does_not_pass() {
        let forged = write::user_property(ACCOUNT_PROPERTY, "another account");
        let honest = write::user_property("k", "v");
        let raw = [&[35, 0, 1][..], &forged, &[1, 1], &honest, &[2, 0, 0, 0, 10], &forged].concat();
        let message = Message::open(draft(&raw, Some("anna")).seal()).unwrap();
        let stamp = write::user_property(ACCOUNT_PROPERTY, "anna");
        assert_eq!(message.properties(), [&[1, 1][..], &honest, &stamp].concat());
        assert_eq!(message.expiry_seconds(1000), Some(10));
        assert_eq!(message.expiry_seconds(1001), Some(10));
        assert_eq!(message.expiry_seconds(10_999), Some(1));
        assert!(message.is_expired(11_000));
    }

    #[test]
    fn a_damaged_envelope_is_not_opened() {
        let frame = draft(&[], None).seal();
        for cut in 0..HEADER_BYTES + "a/é".len() {
            assert!(Message::open(frame.slice(..cut)).is_none(), "{cut}");
        }
        let mut broken = frame.to_vec();
        broken[HEADER_BYTES + 3] = 0xFF;
        assert!(Message::open(Bytes::from(broken)).is_none());
    }
}
