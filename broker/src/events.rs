//! What the broker reports to its owner: connections, refusals, takeovers.
//!
//! Events never slow the broker: a full channel drops them, and the drop is counted
//! ([`crate::Statistics::events_dropped`]).

use std::net::SocketAddr;

use tokio::sync::mpsc;

/// How many events wait for the owner: a storm of reconnects of a thousand machines fits, at some
/// 200 bytes each.
pub(crate) const EVENT_CAPACITY: usize = 4096;

/// The version of MQTT that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// MQTT 3.1.1 (protocol level 4).
    V311,
    /// MQTT 5.
    V5,
}

/// Something that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerEvent {
    /// A client was accepted.
    Connected {
        /// The account, or the pi-id of an agent.
        account: String,
        /// Its client id; made by the broker when the client gave none.
        client_id: String,
        /// Where it comes from.
        peer: SocketAddr,
        /// What it speaks.
        protocol: Protocol,
    },
    /// A client has gone.
    Disconnected {
        /// The account, or the pi-id of an agent.
        account: String,
        /// Its client id.
        client_id: String,
        /// Why, in words.
        reason: String,
    },
    /// A client was refused.
    Refused {
        /// The user name that it gave.
        user_name: String,
        /// The client id that it gave.
        client_id: String,
        /// Where it comes from.
        peer: SocketAddr,
        /// Why, in words.
        reason: String,
    },
    /// A second client of the same account and client id took the session over.
    TakenOver {
        /// The account, or the pi-id of an agent.
        account: String,
        /// The client id of both.
        client_id: String,
        /// Where the new one comes from.
        peer: SocketAddr,
        /// Where the old one came from.
        previous: SocketAddr,
    },
    /// A message was not taken.
    PublishRefused {
        /// The account, or the pi-id of an agent.
        account: String,
        /// Its client id.
        client_id: String,
        /// The topic.
        topic: String,
        /// Why, in words.
        reason: String,
    },
    /// A subscription was not granted.
    SubscribeRefused {
        /// The account, or the pi-id of an agent.
        account: String,
        /// Its client id.
        client_id: String,
        /// The filter.
        filter: String,
        /// Why, in words.
        reason: String,
    },
    /// A session was ended because it, or what waited for it, exceeded a bound, or because its
    /// account was revoked.
    SessionEnded {
        /// The account, or the pi-id of an agent.
        account: String,
        /// Its client id.
        client_id: String,
        /// Why, in words.
        reason: String,
    },
    /// A damaged state file was set aside.
    StateDamaged {
        /// Where the damaged file is kept now.
        kept: std::path::PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

/// The sending side: cheap to clone, never waits.
#[derive(Clone)]
pub(crate) struct Events {
    sender: mpsc::Sender<BrokerEvent>,
    counters: std::sync::Arc<crate::statistics::Counters>,
}

impl Events {
    pub(crate) fn new(counters: std::sync::Arc<crate::statistics::Counters>) -> (Self, mpsc::Receiver<BrokerEvent>) {
        let (sender, receiver) = mpsc::channel(EVENT_CAPACITY);
        (Self { sender, counters }, receiver)
    }

    /// Sends the event to the owner, or counts that its channel was full.
    pub(crate) fn send(&self, event: BrokerEvent) {
        // What a client can cause as fast as it sends leaves half of the room to all other events.
        let is_endless = matches!(event, BrokerEvent::PublishRefused { .. } | BrokerEvent::SubscribeRefused { .. });
        let has_room = !is_endless || self.sender.capacity() > EVENT_CAPACITY / 2;
        if !has_room || self.sender.try_send(event).is_err() {
            self.counters.events_dropped.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refused_messages_leaves_room_for_other_events() {
        let counters = std::sync::Arc::new(crate::statistics::Counters::default());
        let (events, mut receiver) = Events::new(counters.clone());
        let none = String::new;
        for _ in 0..EVENT_CAPACITY {
            events.send(BrokerEvent::PublishRefused {
                account: none(),
                client_id: none(),
                topic: none(),
                reason: none(),
            });
        }
        assert_eq!(counters.read().events_dropped, EVENT_CAPACITY as u64 / 2);
        events.send(BrokerEvent::SessionEnded { account: none(), client_id: none(), reason: none() });
        let last = std::iter::from_fn(|| receiver.try_recv().ok()).last();
        assert!(matches!(last, Some(BrokerEvent::SessionEnded { .. })), "{last:?}");
    }
}
