//! What was received and is not handled yet: one queue for each sender, which take turns. Pure.
//!
//! A sender that publishes as fast as it can fills its own queue and loses what goes beyond it.
//! Others wait for one of its messages at most. What is dropped was never acknowledged by the
//! controller: agents repeat reports and output until they are.

use std::collections::{HashMap, VecDeque};

use pistat_protocol::{id::PiId, topic::Topic};

use crate::bridge::Heard;

/// How many messages of one sender wait.
const MOST_MESSAGES: usize = 4096;

/// How many bytes of one sender wait: more than the unacknowledged output of all runs that a
/// machine does at a time.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// How many bytes of all senders wait; beyond, those that have more than their share of it lose
/// messages.
const MOST_BYTES_OF_ALL: usize = 32 * 1024 * 1024;

/// What a message takes besides its payload.
const OVERHEAD_BYTES: usize = 256;

/// Who sent a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// The agent of a machine.
    Machine(PiId),
    /// All peers that ask to be enrolled: they choose their own names.
    Joining,
    /// An account that asks for a task; empty where the broker does not say which.
    Account(Box<str>),
}

impl Sender {
    /// Who sent it; `None` for what the connection says of itself.
    pub(super) fn of(heard: &Heard) -> Option<Self> {
        match heard {
            Heard::Connected | Heard::Disconnected | Heard::Birth { .. } | Heard::RetainedElsewhere { .. } => None,
            Heard::Misaddressed { account, .. } | Heard::Message { topic: Topic::Request(_), account, .. } => {
                Some(Self::Account(account.as_deref().unwrap_or_default().into()))
            }
            Heard::Message { topic: Topic::EnrollRequest(_), .. } => Some(Self::Joining),
            Heard::Message { topic, .. } => topic.machine().cloned().map(Self::Machine),
        }
    }
}

/// The queues.
#[derive(Default)]
pub(super) struct Lanes {
    queues: HashMap<Sender, Lane>,
    /// The senders of which something waits, in the order of their turns.
    turns: VecDeque<Sender>,
    bytes: usize,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Heard>,
    bytes: usize,
}

impl Lanes {
    /// Takes a message in; `false` if its sender has too much waiting already.
    pub(super) fn push(&mut self, sender: Sender, heard: Heard) -> bool {
        let bytes = bytes(&heard);
        let share = MOST_BYTES_OF_ALL / self.queues.len().max(1);
        let lane = self.queues.entry(sender).or_insert_with_key(|sender| {
            self.turns.push_back(sender.clone());
            Lane::default()
        });
        let is_full = lane.waiting.len() >= MOST_MESSAGES || lane.bytes + bytes > MOST_BYTES;
        let is_over_its_share = self.bytes + bytes > MOST_BYTES_OF_ALL && lane.bytes + bytes > share;
        if !lane.waiting.is_empty() && (is_full || is_over_its_share) {
            return false;
        }
        lane.bytes += bytes;
        self.bytes += bytes;
        lane.waiting.push_back(heard);
        true
    }

    /// The next message, of the sender whose turn it is.
    pub(super) fn next(&mut self) -> Option<Heard> {
        let sender = self.turns.pop_front()?;
        let lane = self.queues.get_mut(&sender)?;
        let heard = lane.waiting.pop_front()?;
        let bytes = bytes(&heard);
        lane.bytes -= bytes;
        self.bytes -= bytes;
        if lane.waiting.is_empty() {
            self.queues.remove(&sender);
        } else {
            self.turns.push_back(sender);
        }
        Some(heard)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

/// What a message counts for.
fn bytes(heard: &Heard) -> usize {
    heard.payload_bytes() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pi: &str, bytes: usize) -> (Sender, Heard) {
        let topic = Topic::Stats(pi.parse().unwrap());
        let heard =
            Heard::Message { topic, payload: vec![0; bytes].into(), retain: false, account: None, response: None };
        (Sender::of(&heard).unwrap(), heard)
    }

    fn order(lanes: &mut Lanes) -> String {
        let sender = |heard: &Heard| match Sender::of(heard) {
            Some(Sender::Machine(pi)) => pi.to_string(),
            other => format!("{other:?}"),
        };
        std::iter::from_fn(|| lanes.next()).map(|heard| sender(&heard)).collect::<Vec<_>>().join(" ")
    }

    fn push(lanes: &mut Lanes, pi: &str, bytes: usize) -> bool {
        let (sender, heard) = sample(pi, bytes);
        lanes.push(sender, heard)
    }

    #[test]
    fn senders_take_turns_and_keep_their_own_order() {
        let mut lanes = Lanes::default();
        for pi in ["a", "a", "a", "b", "a", "c"] {
            assert!(push(&mut lanes, pi, 1));
        }
        assert_eq!(order(&mut lanes), "a b c a a a");
        assert!(lanes.is_empty() && lanes.queues.is_empty() && lanes.bytes == 0);
    }

    #[test]
    fn a_flood_fills_its_own_queue_and_nobody_elses() {
        let mut lanes = Lanes::default();
        let taken = (0..100_000).filter(|_| push(&mut lanes, "loud", 100)).count();
        assert_eq!(taken, MOST_MESSAGES);
        assert!(push(&mut lanes, "quiet", 100));
        assert!(order(&mut lanes).starts_with("loud quiet loud"));
        let taken = (0..100).filter(|_| push(&mut lanes, "large", 1024 * 1024)).count();
        assert_eq!(taken, 7, "eight million bytes with what each message takes besides");
    }

    #[test]
    fn peers_that_join_are_one_sender_whatever_their_names() {
        let mut lanes = Lanes::default();
        let join = |number: usize| {
            let topic = Topic::EnrollRequest(format!("new-{number}").parse().unwrap());
            let payload = vec![0; 100].into();
            Heard::Message { topic, payload, retain: false, account: None, response: None }
        };
        let taken = (0..10_000).filter(|number| {
            let heard = join(*number);
            lanes.push(Sender::of(&heard).unwrap(), heard)
        });
        assert_eq!(taken.count(), MOST_MESSAGES);
        assert!(push(&mut lanes, "quiet", 100));
        assert!(order(&mut lanes).starts_with("Some(Joining) quiet Some(Joining)"));
    }

    #[test]
    fn many_floods_share_what_all_may_have() {
        let mut lanes = Lanes::default();
        let names: Vec<_> = (0..64).map(|number| format!("pi-{number}")).collect();
        for _ in 0..16 {
            for name in &names {
                push(&mut lanes, name, 512 * 1024);
            }
        }
        assert!(lanes.bytes <= MOST_BYTES_OF_ALL + 64 * 600 * 1024, "{}", lanes.bytes);
        assert!(push(&mut lanes, "quiet", 1000), "a sender with nothing waiting is always heard");
    }
}
