//! What the client is sent: packet ids, the in-flight window, `QoS` 1 and 2 to their ends, topic
//! aliases, and everything unfinished once more after a reconnect.

use std::collections::{HashMap, VecDeque};

use crate::contract::{InFlight, Stage};
use crate::front::Front;
use crate::message::Message;
use crate::outbox::Delivery;
use crate::packet::{Ack, Fault, PacketType, QoS, protocol_error, reason, write};

/// What DISCONNECT or PUBACK has besides its reason string, at most.
const PACKET_AROUND_WORDS: usize = 16;

/// MQTT 5, sections 4.3.2 and 4.3.3: the `QoS` of a message, and how far it is, decide which
/// acknowledgement is due.
const WRONG_KIND: &str = "an acknowledgement of the wrong kind for its message";

/// The sending side's state.
pub(super) struct Outbound {
    v5: bool,
    wants_problems: bool,
    in_flight: VecDeque<InFlight>,
    /// Of `in_flight`, those before this one have been sent on this connection.
    resent: usize,
    last_id: u16,
    /// Messages of `QoS` 1 and 2 sent on this connection.
    sent: u64,
    window: usize,
    max_packet_bytes: usize,
    alias_maximum: u16,
    aliases: HashMap<Box<str>, u16>,
}

/// What CONNECT asked for.
pub(super) struct ClientOptions {
    pub(super) v5: bool,
    pub(super) wants_problems: bool,
    pub(super) window: u16,
    pub(super) max_packet_bytes: Option<u32>,
    pub(super) alias_maximum: u16,
}

impl Outbound {
    pub(super) fn new(options: &ClientOptions, in_flight: VecDeque<InFlight>, last_id: u16) -> Self {
        Self {
            v5: options.v5,
            wants_problems: options.wants_problems,
            in_flight,
            resent: 0,
            last_id,
            sent: 0,
            window: usize::from(options.window),
            max_packet_bytes: options.max_packet_bytes.map_or(usize::MAX, |bytes| bytes as usize),
            alias_maximum: options.alias_maximum,
            aliases: HashMap::new(),
        }
    }

    pub(super) fn wants_problems(&self) -> bool {
        self.wants_problems
    }

    /// Whether a packet that says why still is within what the client takes.
    pub(super) fn takes(&self, words: &str) -> bool {
        words.len() + PACKET_AROUND_WORDS <= self.max_packet_bytes
    }

    /// SUBACK and UNSUBACK cannot be shortened: a client that asks for more than it takes is
    /// disconnected.
    pub(super) fn check_answer(&self, codes: usize) -> Result<(), Fault> {
        if write::subscription_answer_length(codes) > self.max_packet_bytes {
            let what = "the answer would be larger than the client's Maximum Packet Size";
            return Err(Fault { reason: reason::PACKET_TOO_LARGE, what });
        }
        Ok(())
    }

    /// How many more `QoS` 1 and 2 messages may be sent.
    pub(super) fn room(&self) -> usize {
        if self.resent < self.in_flight.len() { 0 } else { self.window.saturating_sub(self.in_flight.len()) }
    }

    /// Whether the client owes acknowledgements.
    pub(super) fn awaits_acks(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether something of an earlier connection is to be sent again, and may be now.
    pub(super) fn wants_to_resend(&self) -> bool {
        self.resent < self.in_flight.len() && self.resent < self.window
    }

    /// Sends again what an earlier connection left unfinished, in the order in which it was sent
    /// first.
    pub(super) fn resend(&mut self, output: &mut Vec<u8>, high: usize, front: &Front) {
        while self.wants_to_resend() && output.len() < high {
            let unfinished = &self.in_flight[self.resent];
            let packet_id = unfinished.packet_id;
            self.resent += 1;
            match &unfinished.stage {
                Stage::Released => write::ack(output, PacketType::PubRel, packet_id, self.v5, reason::SUCCESS, ""),
                Stage::Sent(delivery) => {
                    let delivery = delivery.clone();
                    if !self.write(&delivery, packet_id, true, output, front) {
                        // The client takes less than before: as if it had been sent and
                        // acknowledged (section 3.1.2.11.4).
                        self.resent -= 1;
                        self.in_flight.remove(self.resent);
                    }
                }
            }
        }
    }

    /// Sends a message.
    pub(super) fn send(&mut self, delivery: Delivery, output: &mut Vec<u8>, front: &Front) {
        if delivery.message.is_expired(front.clock.now_ms()) {
            front.counters.dropped_expired.add(1);
            return;
        }
        if delivery.qos == QoS::AtMostOnce {
            self.write(&delivery, 0, false, output, front);
            return;
        }
        let packet_id = self.next_id();
        if self.write(&delivery, packet_id, false, output, front) {
            self.last_id = packet_id;
            self.sent += 1;
            self.in_flight.push_back(InFlight { packet_id, number: self.sent, stage: Stage::Sent(delivery) });
            self.resent = self.in_flight.len();
        }
    }

    /// Writes PUBLISH, unless it is larger than the client takes.
    fn write(&mut self, delivery: &Delivery, packet_id: u16, dup: bool, output: &mut Vec<u8>, front: &Front) -> bool {
        let message: &Message = &delivery.message;
        let (topic, topic_alias) = self.alias(message.topic());
        let payload = message.payload();
        let publish = write::Publish {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic,
            packet_id,
            properties: message.properties(),
            expiry_seconds: message.expiry_seconds(front.clock.now_ms()),
            topic_alias,
            subscription_ids: delivery.identifiers.as_deref().unwrap_or_default(),
            payload: &payload,
        };
        if self.max_packet_bytes < usize::MAX && write::publish_length(&publish, self.v5) > self.max_packet_bytes {
            // A new alias has not reached the client, so it must not be used.
            if !topic.is_empty() {
                self.aliases.remove(message.topic());
            }
            front.counters.dropped_too_large.add(1);
            return false;
        }
        write::publish(output, &publish, self.v5);
        front.counters.publishes_out.add(1);
        front.counters.packets_out.add(1);
        true
    }

    /// The topic to send and its number: the first topics get numbers, as many as the client takes.
    fn alias<'a>(&mut self, topic: &'a str) -> (&'a str, Option<u16>) {
        if self.alias_maximum == 0 {
            return (topic, None);
        }
        if let Some(&alias) = self.aliases.get(topic) {
            return ("", Some(alias));
        }
        let Ok(count) = u16::try_from(self.aliases.len()) else { return (topic, None) };
        if count >= self.alias_maximum {
            return (topic, None);
        }
        self.aliases.insert(topic.into(), count + 1);
        (topic, Some(count + 1))
    }

    /// Ids follow one another, so there is nothing to look for unless a message is unfinished since
    /// they last began anew, or comes from an earlier connection.
    fn next_id(&self) -> u16 {
        let following = |id: u16| if id == u16::MAX { 1 } else { id + 1 };
        let mut id = following(self.last_id);
        let is_recent = |oldest: &InFlight| oldest.number > 0 && self.sent - oldest.number < u64::from(u16::MAX / 2);
        if self.in_flight.front().is_none_or(is_recent) {
            return id;
        }
        while self.in_flight.iter().any(|unfinished| unfinished.packet_id == id) {
            id = following(id);
        }
        id
    }

    pub(super) fn on_puback(&mut self, ack: Ack) -> Result<(), Fault> {
        self.finish(ack.packet_id, |stage| matches!(stage, Stage::Sent(delivery) if delivery.qos == QoS::AtLeastOnce))
    }

    pub(super) fn on_pubcomp(&mut self, ack: Ack) -> Result<(), Fault> {
        self.finish(ack.packet_id, |stage| matches!(stage, Stage::Released))
    }

    pub(super) fn on_pubrec(&mut self, ack: Ack, output: &mut Vec<u8>) -> Result<(), Fault> {
        if ack.reason >= 0x80 {
            let is_expected =
                |stage: &Stage| matches!(stage, Stage::Sent(delivery) if delivery.qos == QoS::ExactlyOnce);
            return self.finish(ack.packet_id, is_expected);
        }
        let known = self.in_flight.iter_mut().find(|unfinished| unfinished.packet_id == ack.packet_id);
        let is_known = known.is_some();
        if let Some(unfinished) = known {
            if matches!(&unfinished.stage, Stage::Sent(delivery) if delivery.qos != QoS::ExactlyOnce) {
                return Err(protocol_error(WRONG_KIND));
            }
            unfinished.stage = Stage::Released;
        }
        let code = if is_known { reason::SUCCESS } else { reason::PACKET_ID_NOT_FOUND };
        write::ack(output, PacketType::PubRel, ack.packet_id, self.v5, code, "");
        Ok(())
    }

    fn finish(&mut self, packet_id: u16, is_expected: impl Fn(&Stage) -> bool) -> Result<(), Fault> {
        let position = self.in_flight.iter().position(|unfinished| unfinished.packet_id == packet_id);
        // An acknowledgement for nothing is harmless: it may be a repetition.
        let Some(index) = position else { return Ok(()) };
        if !is_expected(&self.in_flight[index].stage) {
            return Err(protocol_error(WRONG_KIND));
        }
        self.in_flight.remove(index);
        if index < self.resent {
            self.resent -= 1;
        }
        if self.in_flight.is_empty() {
            self.in_flight = VecDeque::new();
        }
        Ok(())
    }

    pub(super) fn last_id(&self) -> u16 {
        self.last_id
    }

    /// What is unfinished, for the session's next connection.
    pub(super) fn take_in_flight(&mut self) -> VecDeque<InFlight> {
        let mut in_flight = std::mem::take(&mut self.in_flight);
        for unfinished in &mut in_flight {
            unfinished.number = 0;
        }
        in_flight
    }
}
