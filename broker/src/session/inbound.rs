//! What the client publishes: checked, sealed, collected for the log, and acknowledged once it is
//! there.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Session;
use super::connect::CONTROL_CHARACTER;
use crate::events::BrokerEvent;
use crate::filter;
use crate::limits::{TOPIC_ALIASES, TOPIC_BYTES, TOPIC_LEVELS};
use crate::message::Draft;
use crate::packet::{Fault, PacketType, Publish, QoS, malformed, protocol_error, reason, write};

/// The receiving side's state.
#[derive(Default)]
pub(super) struct Inbound {
    /// Sealed messages for the log.
    pub(super) batch: Vec<Bytes>,
    /// Acknowledgements that wait until the batch is in the log.
    pending: Vec<PendingAck>,
    /// Packet ids of `QoS` 2 messages that came and were not released.
    pub(super) receiving: Vec<u16>,
    /// Topics that the client has given numbers, number 1 first.
    aliases: Vec<Box<str>>,
    /// `QoS` 1 messages in the batch.
    unacknowledged: usize,
}

struct PendingAck {
    packet_type: PacketType,
    packet_id: u16,
    code: u8,
    words: &'static str,
}

impl Inbound {
    pub(super) fn new(receiving: Vec<u16>) -> Self {
        Self { receiving, ..Self::default() }
    }

    /// A `QoS` 2 message is released; whether it was known.
    pub(super) fn release(&mut self, packet_id: u16) -> bool {
        let index = self.receiving.iter().position(|&known| known == packet_id);
        if let Some(index) = index {
            self.receiving.swap_remove(index);
            if self.receiving.is_empty() {
                self.receiving = Vec::new();
            }
        }
        index.is_some()
    }

    /// The batch is in the log: its acknowledgements may go.
    pub(super) fn acknowledge(&mut self, output: &mut Vec<u8>, v5: bool) {
        for ack in std::mem::take(&mut self.pending) {
            write::ack(output, ack.packet_type, ack.packet_id, v5, ack.code, ack.words);
        }
        self.unacknowledged = 0;
    }

    fn topic<'a>(&'a mut self, publish: &Publish<'a>, most: u16) -> Result<&'a str, Fault> {
        let Some(alias) = publish.properties.topic_alias else {
            return if publish.topic.is_empty() {
                Err(protocol_error("a message without a topic"))
            } else {
                Ok(publish.topic)
            };
        };
        if alias == 0 || alias > most {
            return Err(Fault { reason: reason::TOPIC_ALIAS_INVALID, what: "a topic alias out of range" });
        }
        let index = usize::from(alias - 1);
        if !publish.topic.is_empty() {
            if self.aliases.len() <= index {
                self.aliases.resize(index + 1, Box::default());
            }
            self.aliases[index] = publish.topic.into();
        }
        match self.aliases.get(index) {
            Some(topic) if !topic.is_empty() => Ok(topic),
            _ => Err(protocol_error("a topic alias that stands for nothing")),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(super) fn on_publish(&mut self, publish: Publish<'_>) -> Result<(), Fault> {
        self.front.counters.publishes_in.add(1);
        self.check_window(&publish)?;
        let is_repeated = publish.qos == QoS::ExactlyOnce && self.inbound.receiving.contains(&publish.packet_id);
        self.count(1);
        if !self.v5 && publish.topic.is_empty() {
            return Err(malformed("a message without a topic"));
        }
        let front = self.front.clone();
        let identity = self.identity.clone();
        // A repetition may give its topic a number for this connection.
        let topic = self.inbound.topic(&publish, TOPIC_ALIASES)?;
        if is_repeated {
            // It came before and is in the log: only the acknowledgement was lost.
            self.acknowledge_later(&publish, reason::SUCCESS, "");
            return Ok(());
        }
        if !filter::is_valid_topic(topic, TOPIC_BYTES, TOPIC_LEVELS) {
            let topic = topic.to_owned();
            let why = "the topic is too long, too deep, or holds a control character";
            self.refuse(&publish, &topic, reason::TOPIC_INVALID, why);
            return Ok(());
        }
        if publish.properties.has_unfit_text {
            let topic = topic.to_owned();
            self.refuse(&publish, &topic, reason::IMPLEMENTATION_SPECIFIC, CONTROL_CHARACTER);
            return Ok(());
        }
        if !front.access.may_publish(&identity, topic) {
            let topic = topic.to_owned();
            self.refuse(&publish, &topic, reason::NOT_AUTHORIZED, "the account may not publish on this topic");
            return Ok(());
        }
        let draft = Draft {
            publisher: self.id,
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties,
            stamp: front.access.stamp(topic, &identity),
            now_ms: front.clock.now_ms(),
        };
        let frame = draft.seal();
        self.inbound.batch.push(frame);
        self.acknowledge_later(&publish, reason::SUCCESS, "");
        Ok(())
    }

    /// Counts what the client asks for; when that is too much, nothing is read for a while.
    pub(super) fn count(&mut self, messages: usize) {
        let now = Instant::now();
        if let Some(pause) = self.meter.as_ref().and_then(|meter| meter.take(messages, now)) {
            self.paused_until = Some(now + pause);
        }
    }

    /// More messages under way than CONNACK allowed.
    fn check_window(&self, publish: &Publish<'_>) -> Result<(), Fault> {
        let under_way = self.inbound.receiving.len() + self.inbound.unacknowledged;
        let is_new = publish.qos > QoS::AtMostOnce && !self.inbound.receiving.contains(&publish.packet_id);
        if self.v5 && is_new && under_way >= usize::from(self.front.limits.bounds.receive_maximum) {
            return Err(Fault {
                reason: reason::RECEIVE_MAXIMUM_EXCEEDED,
                what: "more messages under way than allowed",
            });
        }
        Ok(())
    }

    /// A refused message is acknowledged with the reason, or simply acknowledged in 3.1.1, and goes
    /// nowhere.
    fn refuse(&mut self, publish: &Publish<'_>, topic: &str, code: u8, why: &'static str) {
        self.front.counters.publishes_refused.add(1);
        self.front.events.send(BrokerEvent::PublishRefused {
            account: self.client.account.to_string(),
            client_id: self.client.client_id.to_string(),
            topic: topic.to_owned(),
            reason: why.to_owned(),
        });
        let words = if self.outbound.wants_problems() && self.outbound.takes(why) { why } else { "" };
        self.acknowledge_later(publish, code, words);
    }

    fn acknowledge_later(&mut self, publish: &Publish<'_>, code: u8, words: &'static str) {
        let packet_id = publish.packet_id;
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.inbound.unacknowledged += 1;
                self.inbound.pending.push(PendingAck { packet_type: PacketType::PubAck, packet_id, code, words });
            }
            QoS::ExactlyOnce => {
                // With a reason for refusal the exchange ends here; 3.1.1 has none and goes on.
                let goes_on = code == reason::SUCCESS || !self.v5;
                if goes_on && !self.inbound.receiving.contains(&packet_id) {
                    self.inbound.receiving.push(packet_id);
                }
                self.inbound.pending.push(PendingAck { packet_type: PacketType::PubRec, packet_id, code, words });
            }
        }
    }
}
