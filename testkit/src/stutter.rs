//! A broker that repeats itself: copies of the MQTT messages on their way to a client, at once and
//! later.
//!
//! Only what may come twice by the contract does: orders and acknowledgements, which travel with
//! `QoS` 1. Copies go as `QoS` 0, so that no one acknowledges a packet twice: what is tested is
//! what a client makes of the message.

use std::collections::VecDeque;

use crate::dice::Dice;

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
    let (length, digits) = remaining_length(bytes)?;
    Some(1 + digits + length).filter(|length| *length <= bytes.len())
}

/// The remaining length after the first byte, and how many bytes it takes.
fn remaining_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for digits in 1..=4 {
        let byte = *bytes.get(digits)?;
        length |= usize::from(byte & 0x7f) << (7 * (digits - 1));
        if byte & 0x80 == 0 {
            return Some((length, digits));
        }
    }
    panic!("a broker sends MQTT");
}

/// A PUBLISH of `QoS` 1 that may come twice, as one of `QoS` 0: without its packet id, everything
/// else as it is, in either version.
fn copy_of(packet: &[u8]) -> Option<Vec<u8>> {
    if packet[0] & 0xf6 != 0x32 {
        return None;
    }
    let (length, digits) = remaining_length(packet)?;
    let body = &packet[1 + digits..];
    let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    let topic = &body[2..end];
    if !REPEATED.iter().any(|last| topic.ends_with(last)) {
        return None;
    }
    let mut copy = vec![0x30 | (packet[0] & 1)];
    let mut left = length - 2;
    loop {
        let byte = u8::try_from(left & 0x7f).expect("seven bits");
        left >>= 7;
        copy.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    copy.extend_from_slice(&body[..end]);
    copy.extend_from_slice(&body[end + 2..]);
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(first: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        if first & 6 != 0 {
            body.extend([0, 9]);
        }
        body.extend_from_slice(payload);
        let length = body.len();
        assert!((128..16_384).contains(&length), "two bytes of length");
        let low = u8::try_from(length & 0x7f).unwrap() | 0x80;
        [vec![first, low, u8::try_from(length >> 7).unwrap()], body].concat()
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
