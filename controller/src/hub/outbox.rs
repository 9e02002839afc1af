//! What waits for the broker: messages to publish, and what the bridge is to look at. It is
//! bounded, and the hub never waits for it.

use std::collections::{HashMap, VecDeque};

use super::lanes::Sender;
use crate::bridge::{Look, Outgoing};

/// How many messages may wait for the broker before notices are dropped: what they tell is in the
/// register, or is published again.
const BUSY: usize = 32 * 1024;

/// How many may wait at all: what is retained of a fleet of ten thousand with fifty thousand open
/// runs. Beyond, the connection is ended; on the next one everything that is retained is published
/// again, and orders are signed anew.
pub(super) const MOST_WAITING: usize = 128 * 1024;

/// How many messages each sender makes the controller publish in a second. Agents repeat what is
/// not acknowledged.
const ANSWERS_A_SECOND: u32 = 1000;

/// How the connection to the broker stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Connection {
    /// Nothing waits: everything that is retained is published on the next one.
    #[default]
    Down,
    Up,
    /// It takes messages too slowly and is to be ended.
    GivenUp,
}

/// More than [`MOST_WAITING`] messages waited.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// The outbox.
#[derive(Default)]
pub(super) struct Outbox {
    connection: Connection,
    waiting: VecDeque<Outgoing>,
    looks: VecDeque<Look>,
    /// How much each sender made us publish in this second.
    answers: HashMap<Sender, u32>,
}

impl Outbox {
    pub(super) fn connected(&mut self) {
        self.connection = Connection::Up;
    }

    pub(super) fn disconnected(&mut self) {
        self.connection = Connection::Down;
        self.waiting.clear();
        self.looks.clear();
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection != Connection::Down
    }

    pub(super) fn has_given_up(&self) -> bool {
        self.connection == Connection::GivenUp
    }

    /// Whether so much waits that notices are dropped.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.len() >= BUSY
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_messages(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn has_looks(&self) -> bool {
        !self.looks.is_empty()
    }

    /// Adds a message. Without a connection it is dropped.
    ///
    /// # Errors
    /// Too many wait: all are dropped, and the connection is to be ended.
    pub(super) fn push(&mut self, message: Outgoing) -> Result<(), Overflow> {
        if self.connection != Connection::Up {
            return Ok(());
        }
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(message);
            return Ok(());
        }
        self.connection = Connection::GivenUp;
        self.waiting = VecDeque::new();
        Err(Overflow)
    }

    /// Whether this sender may make the controller publish once more in this second.
    pub(super) fn may_answer(&mut self, sender: Sender) -> bool {
        let answers = self.answers.entry(sender).or_default();
        *answers += 1;
        *answers <= ANSWERS_A_SECOND
    }

    /// A second has passed.
    pub(super) fn tick(&mut self) {
        self.answers = HashMap::new();
    }

    pub(super) fn next(&mut self) -> Option<Outgoing> {
        self.waiting.pop_front()
    }

    pub(super) fn look(&mut self, look: Look) {
        self.looks.push_back(look);
    }

    pub(super) fn next_look(&mut self) -> Option<Look> {
        self.looks.pop_front()
    }
}

#[cfg(test)]
impl Outbox {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Outgoing> {
        self.waiting.iter()
    }

    pub(super) fn take(&mut self) -> VecDeque<Outgoing> {
        std::mem::take(&mut self.waiting)
    }
}
