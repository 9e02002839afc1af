//! The property blocks of MQTT 5.

use super::reader::Reader;
use super::{Fault, malformed, protocol_error};
use crate::filter::is_plain;

/// Property identifiers (MQTT 5, section 2.2.2.2).
pub(crate) mod property {
    pub(crate) const PAYLOAD_FORMAT: u8 = 1;
    pub(crate) const MESSAGE_EXPIRY: u8 = 2;
    pub(crate) const CONTENT_TYPE: u8 = 3;
    pub(crate) const RESPONSE_TOPIC: u8 = 8;
    pub(crate) const CORRELATION_DATA: u8 = 9;
    pub(crate) const SUBSCRIPTION_ID: u8 = 11;
    pub(crate) const SESSION_EXPIRY: u8 = 17;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 18;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 19;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 21;
    pub(crate) const AUTHENTICATION_DATA: u8 = 22;
    pub(crate) const REQUEST_PROBLEM: u8 = 23;
    pub(crate) const WILL_DELAY: u8 = 24;
    pub(crate) const REQUEST_RESPONSE: u8 = 25;
    pub(crate) const RESPONSE_INFORMATION: u8 = 26;
    pub(crate) const SERVER_REFERENCE: u8 = 28;
    pub(crate) const REASON_STRING: u8 = 31;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub(crate) const TOPIC_ALIAS: u8 = 35;
    pub(crate) const USER: u8 = 38;
    pub(crate) const MAXIMUM_PACKET: u8 = 39;
}

/// One property: its identifier, its bytes with the identifier, and its value.
pub(crate) struct Property<'a> {
    pub(crate) id: u8,
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
        let id = self.reader.u8()?;
        let value = self.value(id)?;
        let bit = 1u64 << id;
        if self.seen & bit != 0 && id != property::USER && id != property::SUBSCRIPTION_ID {
            return Err(protocol_error("a property stands twice"));
        }
        self.seen |= bit;
        Ok(Property { id, raw: &before[..before.len() - self.reader.rest.len()], value })
    }

    fn value(&mut self, id: u8) -> Result<Value<'a>, Fault> {
        let reader = &mut self.reader;
        Ok(match id {
            property::PAYLOAD_FORMAT | property::REQUEST_PROBLEM | property::REQUEST_RESPONSE => {
                let value = reader.u8()?;
                if value > 1 {
                    return Err(protocol_error("a property that is a switch is neither 0 nor 1"));
                }
                Value::Number(value.into())
            }
            property::RECEIVE_MAXIMUM
            | property::TOPIC_ALIAS_MAXIMUM
            | property::TOPIC_ALIAS
            | property::SERVER_KEEP_ALIVE => Value::Number(reader.u16()?.into()),
            property::MESSAGE_EXPIRY | property::SESSION_EXPIRY | property::WILL_DELAY | property::MAXIMUM_PACKET => {
                Value::Number(reader.u32()?)
            }
            property::SUBSCRIPTION_ID => Value::Number(reader.variable_integer()?),
            property::CONTENT_TYPE
            | property::RESPONSE_TOPIC
            | property::AUTHENTICATION_METHOD
            | property::REASON_STRING
            | property::RESPONSE_INFORMATION
            | property::SERVER_REFERENCE
            | property::ASSIGNED_CLIENT_ID => Value::Text(reader.string()?),
            property::CORRELATION_DATA | property::AUTHENTICATION_DATA => {
                reader.binary()?;
                Value::Bytes
            }
            property::USER => {
                let name = reader.string()?;
                Value::Pair(name, reader.string()?)
            }
            _ => return Err(malformed("an unknown property")),
        })
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = Result<Property<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() { None } else { Some(self.read()) }
    }
}
