//! What of kept sessions is to be written with the next batch: of each session once, however often
//! it has changed.

use std::collections::HashMap;

use crate::outbox::Delivery;
use crate::store::SessionKey;

/// The changes since the last batch; see the module.
#[derive(Default)]
pub(super) struct SessionChanges {
    sessions: HashMap<SessionKey, Change>,
}

/// What has become of one session, in the order in which it is written.
#[derive(Default)]
pub(super) struct Change {
    /// A session of this name is over, and its queue with it.
    pub(super) is_over: bool,
    /// The session is written as it is when the batch is made.
    pub(super) is_changed: bool,
    /// What waited for it before does not any more.
    pub(super) is_queue_over: bool,
    /// What waits for it besides.
    pub(super) queue: Vec<Waiting>,
}

/// A message that waits for a session's client.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Under which packet id it was sent; 0 for never.
    pub(super) packet_id: u16,
    pub(super) delivery: Delivery,
}

impl SessionChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.sessions = HashMap::new();
    }

    pub(super) fn take(&mut self) -> HashMap<SessionKey, Change> {
        std::mem::take(&mut self.sessions)
    }

    pub(super) fn changed(&mut self, key: &SessionKey) {
        self.of(key).is_changed = true;
    }

    pub(super) fn over(&mut self, key: &SessionKey) {
        *self.of(key) = Change { is_over: true, ..Change::default() };
    }

    pub(super) fn queue_over(&mut self, key: &SessionKey) {
        let change = self.of(key);
        change.queue = Vec::new();
        change.is_queue_over = true;
    }

    pub(super) fn queued(&mut self, key: &SessionKey, waiting: Waiting) {
        self.of(key).queue.push(waiting);
    }

    fn of(&mut self, key: &SessionKey) -> &mut Change {
        if !self.sessions.contains_key(key) {
            self.sessions.insert(key.clone(), Change::default());
        }
        self.sessions.get_mut(key).expect("it was put there if it was not")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{Draft, Message, SessionId};
    use crate::packet::{MessageProperties, QoS};

    fn waiting() -> Waiting {
        let draft = Draft {
            publisher: SessionId::broker(),
            topic: "t",
            payload: b"x",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: MessageProperties::default(),
            stamp: None,
            now_ms: 0,
        };
        let message = Arc::new(Message::open(draft.seal()).unwrap());
        Waiting {
            packet_id: 0,
            delivery: Delivery { message, qos: QoS::AtLeastOnce, retain: false, identifiers: None, share: None },
        }
    }

    #[test]
    fn a_session_is_written_once_however_often_it_has_changed() {
        let mut changes = SessionChanges::default();
        let key: SessionKey = ("u/home".into(), "client".into());
        for _ in 0..1000 {
            changes.changed(&key);
            changes.queued(&key, waiting());
            changes.queue_over(&key);
        }
        changes.queued(&key, waiting());
        let all = changes.take();
        let [change] = all.values().collect::<Vec<_>>()[..] else { panic!("one session, one change") };
        assert_eq!(
            (change.is_changed, change.is_queue_over, change.is_over, change.queue.len()),
            (true, true, false, 1)
        );
        // What a session was does not matter once it is over.
        changes.queued(&key, waiting());
        changes.over(&key);
        changes.changed(&key);
        let all = changes.take();
        let change = &all[&key];
        assert_eq!(
            (change.is_changed, change.is_queue_over, change.is_over, change.queue.len()),
            (true, false, true, 0)
        );
        assert!(changes.is_empty());
    }
}
