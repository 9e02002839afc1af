//! The reading half of the codec: each packet that a client may send.

use super::properties::{Properties, Property, PropertyId};
use super::reader::Reader;
use super::{
    Ack, Connect, Disconnect, Fault, MessageProperties, Publish, QoS, Subscribe, SubscriptionOptions, Unsubscribe,
    Will, malformed, protocol_error, reason,
};

const WRONG_PLACE: Fault = protocol_error_const("a property that does not belong into this packet");

const fn protocol_error_const(what: &'static str) -> Fault {
    Fault { reason: reason::PROTOCOL_ERROR, what }
}

pub(super) fn connect_after_version<'a>(reader: &mut Reader<'a>, v5: bool) -> Result<Connect<'a>, Fault> {
    let flags = reader.u8()?;
    if flags & 1 != 0 {
        return Err(malformed("the reserved flag of CONNECT is set"));
    }
    let keep_alive = reader.u16()?;
    let mut connect = Connect {
        v5,
        is_bridge: false,
        clean_start: flags & 2 != 0,
        keep_alive,
        client_id: "",
        will: None,
        user_name: None,
        password: None,
        session_expiry: 0,
        receive_maximum: u16::MAX,
        max_packet_bytes: None,
        topic_alias_maximum: 0,
        wants_problems: true,
        has_authentication_method: false,
    };
    if v5 {
        connect_properties(&mut connect, reader.property_block()?)?;
    }
    connect.client_id = reader.string()?;
    connect.will = will(reader, flags, v5)?;
    if flags & 0x80 != 0 {
        connect.user_name = Some(reader.string()?);
    }
    if flags & 0x40 != 0 {
        if flags & 0x80 == 0 && !v5 {
            return Err(malformed("a password without a user name"));
        }
        connect.password = Some(reader.binary()?);
    }
    reader.finish()?;
    Ok(connect)
}

fn connect_properties(connect: &mut Connect<'_>, block: &[u8]) -> Result<(), Fault> {
    let mut has_authentication_data = false;
    for property in Properties::new(block) {
        let property = property?;
        let number = property.number();
        match property.id {
            PropertyId::SessionExpiry => connect.session_expiry = number,
            PropertyId::ReceiveMaximum if number == 0 => return Err(protocol_error("a Receive Maximum of 0")),
            PropertyId::ReceiveMaximum => connect.receive_maximum = low_16(number),
            PropertyId::MaximumPacketSize if number == 0 => return Err(protocol_error("a Maximum Packet Size of 0")),
            PropertyId::MaximumPacketSize => connect.max_packet_bytes = Some(number),
            PropertyId::TopicAliasMaximum => connect.topic_alias_maximum = low_16(number),
            PropertyId::RequestProblem => connect.wants_problems = number == 1,
            PropertyId::AuthenticationMethod => connect.has_authentication_method = true,
            PropertyId::AuthenticationData => has_authentication_data = true,
            PropertyId::RequestResponse | PropertyId::User => {}
            _ => return Err(WRONG_PLACE),
        }
    }
    // MQTT 5, section 3.1.2.11.10.
    if has_authentication_data && !connect.has_authentication_method {
        return Err(protocol_error("Authentication Data without an Authentication Method"));
    }
    Ok(())
}

/// The value of a two-byte property, which cannot be larger.
fn low_16(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn will<'a>(reader: &mut Reader<'a>, flags: u8, v5: bool) -> Result<Option<Will<'a>>, Fault> {
    let qos = QoS::from_repr((flags >> 3) & 3).ok_or(malformed("a will of QoS 3"))?;
    let retain = flags & 0x20 != 0;
    if flags & 4 == 0 {
        return if qos == QoS::AtMostOnce && !retain {
            Ok(None)
        } else {
            Err(malformed("flags of a will without a will"))
        };
    }
    let mut delay_seconds = 0;
    let mut properties = MessageProperties::default();
    if v5 {
        properties.raw = reader.property_block()?;
        for property in Properties::new(properties.raw) {
            let property = property?;
            match property.id {
                PropertyId::WillDelay => delay_seconds = property.number(),
                PropertyId::TopicAlias | PropertyId::SubscriptionIdentifier => return Err(WRONG_PLACE),
                _ => message_property(&mut properties, &property)?,
            }
        }
    }
    let topic = topic_name(reader)?;
    if topic.is_empty() {
        return Err(Fault { reason: reason::TOPIC_INVALID, what: "a will without a topic" });
    }
    let payload = reader.binary()?;
    Ok(Some(Will { topic, payload, qos, retain, delay_seconds, properties }))
}

fn message_property(properties: &mut MessageProperties<'_>, property: &Property<'_>) -> Result<(), Fault> {
    properties.has_unfit_text |= !property.is_plain();
    match property.id {
        PropertyId::MessageExpiry => properties.expiry_seconds = Some(property.number()),
        PropertyId::TopicAlias => properties.topic_alias = Some(low_16(property.number())),
        PropertyId::ResponseTopic => check_response_topic(property)?,
        PropertyId::PayloadFormat | PropertyId::ContentType | PropertyId::CorrelationData | PropertyId::User => {}
        _ => return Err(WRONG_PLACE),
    }
    Ok(())
}

/// A topic name, which MQTT 5, section 3.3.2.3.5 asks of a Response Topic.
fn check_response_topic(property: &Property<'_>) -> Result<(), Fault> {
    match property.text().unwrap_or_default() {
        "" => Err(protocol_error("an empty response topic")),
        topic if topic.contains(['+', '#']) => Err(protocol_error("a wildcard in a response topic")),
        _ => Ok(()),
    }
}

/// A topic that a message is for; empty where an alias stands for it.
fn topic_name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Fault> {
    let topic = reader.string()?;
    if topic.contains(['+', '#']) {
        return Err(Fault { reason: reason::TOPIC_INVALID, what: "a wildcard in a topic" });
    }
    Ok(topic)
}

pub(super) fn publish(mut reader: Reader<'_>, flags: u8, v5: bool) -> Result<Publish<'_>, Fault> {
    let qos = QoS::from_repr((flags >> 1) & 3).ok_or(malformed("a message of QoS 3"))?;
    if qos == QoS::AtMostOnce && flags & 8 != 0 {
        return Err(malformed("DUP on a message of QoS 0"));
    }
    let topic = topic_name(&mut reader)?;
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { reader.packet_id()? };
    let mut properties = MessageProperties::default();
    if v5 {
        properties.raw = reader.property_block()?;
        for property in Properties::new(properties.raw) {
            message_property(&mut properties, &property?)?;
        }
    }
    Ok(Publish { qos, retain: flags & 1 != 0, topic, packet_id, properties, payload: reader.rest })
}

pub(super) fn ack(reader: &mut Reader<'_>, v5: bool, good: &[u8]) -> Result<Ack, Fault> {
    let packet_id = reader.packet_id()?;
    let mut ack = Ack { packet_id, reason: reason::SUCCESS };
    if v5 && !reader.is_empty() {
        ack.reason = reader.u8()?;
        if ack.reason < 0x80 && !good.contains(&ack.reason) {
            return Err(protocol_error("an unknown reason code"));
        }
        problem_properties(reader)?;
    }
    Ok(ack)
}

/// The properties of packets that report a result: a reason string and user properties.
fn problem_properties(reader: &mut Reader<'_>) -> Result<(), Fault> {
    if reader.is_empty() {
        return Ok(());
    }
    for property in Properties::new(reader.property_block()?) {
        if !matches!(property?.id, PropertyId::ReasonString | PropertyId::User) {
            return Err(WRONG_PLACE);
        }
    }
    Ok(())
}

pub(super) fn subscribe<'a>(reader: &mut Reader<'a>, v5: bool) -> Result<Subscribe<'a>, Fault> {
    let packet_id = reader.packet_id()?;
    let mut identifier = 0;
    if v5 {
        for property in Properties::new(reader.property_block()?) {
            let property = property?;
            match property.id {
                PropertyId::SubscriptionIdentifier if property.number() == 0 || identifier != 0 => {
                    return Err(protocol_error("a subscription identifier of 0, or two of them"));
                }
                PropertyId::SubscriptionIdentifier => identifier = property.number(),
                PropertyId::User => {}
                _ => return Err(WRONG_PLACE),
            }
        }
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        let filter = reader.string()?;
        filters.push((filter, subscription_options(reader.u8()?, v5)?));
    }
    if filters.is_empty() {
        Err(protocol_error("SUBSCRIBE without a filter"))
    } else {
        Ok(Subscribe { packet_id, identifier, filters })
    }
}

fn subscription_options(byte: u8, v5: bool) -> Result<SubscriptionOptions, Fault> {
    let reserved = if v5 { 0 } else { 0xFC };
    let options = SubscriptionOptions::from_byte(byte).filter(|_| byte & reserved == 0);
    options.ok_or(malformed("invalid subscription options"))
}

pub(super) fn unsubscribe<'a>(reader: &mut Reader<'a>, v5: bool) -> Result<Unsubscribe<'a>, Fault> {
    let packet_id = reader.packet_id()?;
    if v5 {
        for property in Properties::new(reader.property_block()?) {
            if property?.id != PropertyId::User {
                return Err(WRONG_PLACE);
            }
        }
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        filters.push(reader.string()?);
    }
    if filters.is_empty() {
        Err(protocol_error("UNSUBSCRIBE without a filter"))
    } else {
        Ok(Unsubscribe { packet_id, filters })
    }
}

pub(super) fn disconnect(reader: &mut Reader<'_>, v5: bool) -> Result<Disconnect, Fault> {
    let mut disconnect = Disconnect { reason: reason::SUCCESS, session_expiry: None };
    if !v5 || reader.is_empty() {
        return Ok(disconnect);
    }
    disconnect.reason = reader.u8()?;
    if !reader.is_empty() {
        for property in Properties::new(reader.property_block()?) {
            let property = property?;
            match property.id {
                PropertyId::SessionExpiry => disconnect.session_expiry = Some(property.number()),
                PropertyId::ReasonString | PropertyId::User => {}
                _ => return Err(WRONG_PLACE),
            }
        }
    }
    Ok(disconnect)
}
