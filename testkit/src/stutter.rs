//! A broker that repeats itself: copies of the MQTT messages on their way to a client, at once and
//! later.
//!
//! Only what may come twice by the contract does: orders and acknowledgements, which travel with
//! `QoS` 1. Copies go as `QoS` 0, so that no one acknowledges a packet twice: what is tested is
//! what a client makes of the message.

use std::collections::VecDeque;

use crate::{
    dice::Dice,
    packet::{self, lengths},
};

/// How many messages of a connection are remembered for a late copy.
const REMEMBERED: usize = 16;

/// What is repeated: the last level of its topic.
const REPEATED: [&[u8]; 3] = [b"/execute", b"/cancel", b"/ack"];

/// One connection's way from the broker.
pub(crate) struct Stutter {
    dice: Dice,
    /// The beginning of a packet.
    rest: Vec<u8>,
    earlier: VecDeque<Vec<u8>>,
}

impl Stutter {
    pub(crate) fn new(dice: Dice) -> Self {
        Self { dice, rest: Vec::new(), earlier: VecDeque::new() }
    }

    /// What goes on in place of these bytes: whole packets, after a `share` of those that may be
    /// repeated a copy of this one or of an earlier one. And how many copies there are.
    pub(crate) fn repeat(&mut self, piece: &[u8], share: f64) -> (Vec<u8>, u64) {
        self.rest.extend_from_slice(piece);
        let (mut out, mut copies) = (Vec::new(), 0);
        while let Some(length) = packet_length(&self.rest) {
            let packet: Vec<u8> = self.rest.drain(..length).collect();
            let copy = copy_of(&packet);
            out.extend(packet);
            let Some(copy) = copy else { continue };
            self.earlier.push_back(copy);
            if self.earlier.len() > REMEMBERED {
                self.earlier.pop_front();
            }
            if self.dice.chance(share) {
                let newest = self.earlier.len() - 1;
                let late = usize::try_from(self.dice.below(self.earlier.len() as u64)).unwrap_or(newest);
                let chosen = if self.dice.chance(0.5) { newest } else { late };
                out.extend_from_slice(&self.earlier[chosen]);
                copies += 1;
            }
        }
        (out, copies)
    }
}

/// The length of the first packet, if all of it is here.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    let (header, body) = lengths(bytes).expect("a broker sends MQTT")?;
    Some(header + body).filter(|length| *length <= bytes.len())
}

/// A PUBLISH of `QoS` 1 that may come twice, as one of `QoS` 0: without its packet id, everything
/// else as it is, in either version.
fn copy_of(packet: &[u8]) -> Option<Vec<u8>> {
    if packet[0] & 0xf6 != 0x32 {
        return None;
    }
    let (header, _) = lengths(packet).ok()??;
    let body = &packet[header..];
    let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    let topic = &body[2..end];
    if !REPEATED.iter().any(|last| topic.ends_with(last)) {
        return None;
    }
    Some(packet::packet(0x30 | (packet[0] & 1), &[&body[..end], &body[end + 2..]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(first: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
        let id: &[u8] = if first & 6 != 0 { &[0, 9] } else { &[] };
        packet::packet(first, &[&packet::string(topic), id, payload])
    }

    #[test]
    fn orders_and_acknowledgements_come_twice_and_everything_else_as_it_was_however_it_is_cut() {
        let payload = vec![b'x'; 300];
        let order = publish(0x32, "pistat/pi-1/task/r/execute", &payload);
        let copy = publish(0x30, "pistat/pi-1/task/r/execute", &payload);
        let other = publish(0x33, "pistat/pi-1/settings", &payload);
        let sent = [&[0xd0, 0], &other[..], &order[..]].concat();
        for size in [1, 7, sent.len()] {
            let mut stutter = Stutter::new(Dice::from_seed(1));
            let (mut came, mut copies) = (Vec::new(), 0);
            for piece in sent.chunks(size) {
                let (out, count) = stutter.repeat(piece, 1.0);
                came.extend(out);
                copies += count;
            }
            assert_eq!(came, [&sent[..], &copy].concat());
            assert_eq!(copies, 1);
        }
    }
}
