//! The property blocks of MQTT 5.

use super::reader::Reader;
use super::{Fault, malformed, protocol_error};
use crate::filter::is_plain;

/// Property identifiers (MQTT 5, section 2.2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::FromRepr)]
#[repr(u8)]
pub(crate) enum PropertyId {
    PayloadFormat = 1,
    MessageExpiry = 2,
    ContentType = 3,
    ResponseTopic = 8,
    CorrelationData = 9,
    SubscriptionIdentifier = 11,
    SessionExpiry = 17,
    AssignedClientId = 18,
    ServerKeepAlive = 19,
    AuthenticationMethod = 21,
    AuthenticationData = 22,
    RequestProblem = 23,
    WillDelay = 24,
    RequestResponse = 25,
    ResponseInformation = 26,
    ServerReference = 28,
    ReasonString = 31,
    ReceiveMaximum = 33,
    TopicAliasMaximum = 34,
    TopicAlias = 35,
    User = 38,
    MaximumPacketSize = 39,
}

/// One property: its identifier, its bytes with the identifier, and its value.
pub(crate) struct Property<'a> {
    pub(crate) id: PropertyId,
    pub(crate) raw: &'a [u8],
    value: Value<'a>,
}

/// A property's value.
enum Value<'a> {
    Number(u32),
    Text(&'a str),
    Bytes,
    Pair(&'a str, &'a str),
}

impl<'a> Property<'a> {
    pub(super) fn number(&self) -> u32 {
        if let Value::Number(number) = self.value { number } else { 0 }
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        if let Value::Text(text) = self.value { Some(text) } else { None }
    }

    /// The name of a user property.
    pub(crate) fn pair_name(&self) -> Option<&'a str> {
        if let Value::Pair(name, _) = self.value { Some(name) } else { None }
    }

    /// Whether its text may be passed on to other clients; what is not text may.
    pub(crate) fn is_plain(&self) -> bool {
        match self.value {
            Value::Text(text) => is_plain(text),
            Value::Pair(name, value) => is_plain(name) && is_plain(value),
            Value::Number(_) | Value::Bytes => true,
        }
    }
}

/// Walks over a property block. A property that stands twice where it may not is a fault.
pub(crate) struct Properties<'a> {
    reader: Reader<'a>,
    seen: u64,
}

impl<'a> Properties<'a> {
    pub(crate) fn new(block: &'a [u8]) -> Self {
        Self { reader: Reader::new(block), seen: 0 }
    }

    fn read(&mut self) -> Result<Property<'a>, Fault> {
        let before = self.reader.rest;
        let id = PropertyId::from_repr(self.reader.u8()?).ok_or(malformed("an unknown property"))?;
        let value = self.value(id)?;
        let bit = 1u64 << id as u8;
        if self.seen & bit != 0 && id != PropertyId::User && id != PropertyId::SubscriptionIdentifier {
            return Err(protocol_error("a property stands twice"));
        }
        self.seen |= bit;
        Ok(Property { id, raw: &before[..before.len() - self.reader.rest.len()], value })
    }

    fn value(&mut self, id: PropertyId) -> Result<Value<'a>, Fault> {
        let reader = &mut self.reader;
        Ok(match id {
            PropertyId::PayloadFormat | PropertyId::RequestProblem | PropertyId::RequestResponse => {
                let value = reader.u8()?;
                if value > 1 {
                    return Err(protocol_error("a property that is a switch is neither 0 nor 1"));
                }
                Value::Number(value.into())
            }
            PropertyId::ReceiveMaximum
            | PropertyId::TopicAliasMaximum
            | PropertyId::TopicAlias
            | PropertyId::ServerKeepAlive => Value::Number(reader.u16()?.into()),
            PropertyId::MessageExpiry
            | PropertyId::SessionExpiry
            | PropertyId::WillDelay
            | PropertyId::MaximumPacketSize => Value::Number(reader.u32()?),
            PropertyId::SubscriptionIdentifier => Value::Number(reader.variable_integer()?),
            PropertyId::ContentType
            | PropertyId::ResponseTopic
            | PropertyId::AuthenticationMethod
            | PropertyId::ReasonString
            | PropertyId::ResponseInformation
            | PropertyId::ServerReference
            | PropertyId::AssignedClientId => Value::Text(reader.string()?),
            PropertyId::CorrelationData | PropertyId::AuthenticationData => {
                reader.binary()?;
                Value::Bytes
            }
            PropertyId::User => {
                let name = reader.string()?;
                Value::Pair(name, reader.string()?)
            }
        })
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = Result<Property<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() { None } else { Some(self.read()) }
    }
}
