//! What goes to disk, and when: changes twice a second in one write, telemetry once a minute, and
//! what comes back from there at the start.

use bytes::Bytes;

use super::Hub;
use crate::front::Front;
use crate::message::Message;
use crate::retained::Entry;
use crate::store::{Batch, Record, Restored, Store, unix_ms};

/// Changes are on disk within a second: collected for half of one.
const PROMPT_MS: u64 = 500;

/// Samples come every few seconds from every machine, and flash memory wears out; losing a minute
/// of them costs nothing.
const RARE_MS: u64 = 60_000;

/// How long after everything could not be written it is tried again: this at first, then twice as
/// long each time, up to the longest. A full disk is seldom made free within a second, and
/// everything may be many megabytes.
const RETRY_MS: u64 = 500;
const LONGEST_RETRY_MS: u64 = 60_000;

/// Expired retained messages are removed this often; they are not delivered meanwhile.
const EXPIRY_MS: u64 = 30_000;

/// When what is due.
pub(super) struct Schedule {
    prompt_at: u64,
    rare_at: u64,
    expiry_at: u64,
    pub(super) orphans_at: u64,
    /// Changes were lost on their way to the disk, so everything is to be written anew.
    rewrite: bool,
    /// Not before then.
    rewrite_at: u64,
    retry_ms: u64,
}

impl Schedule {
    pub(super) fn new(front: &Front) -> Self {
        let orphans_at = front.clock.now_ms() + front.limits.bounds.will_grace_seconds * 1000;
        Self {
            prompt_at: 0,
            rare_at: RARE_MS,
            expiry_at: EXPIRY_MS,
            orphans_at,
            rewrite: false,
            rewrite_at: 0,
            retry_ms: RETRY_MS,
        }
    }
}

impl Hub {
    pub(super) fn restore(&mut self, restored: Restored) {
        let now_ms = self.front.clock.now_ms();
        let (mut restored, unfit) = without_unfit(restored);
        if unfit > 0 {
            tracing::warn!(unfit, "messages whose topics or properties hold control characters were dropped");
            // They are not in the file any more once everything else is written anew.
            self.lasting.rewrite = true;
        }
        for (frame, expires_in_ms, owner) in std::mem::take(&mut restored.retained) {
            if let Some(message) = Message::reframed(&frame, expires_in_ms, now_ms) {
                self.front.access.note(&message);
                let origin = self.front.access.origin(&owner, message.topic());
                self.retained.restore(message.clone(), origin);
            }
        }
        self.restore_sessions(restored.sessions);
        self.restore_wills(restored.wills, now_ms);
        self.count_retained();
    }

    pub(super) fn write_changes(&mut self, now_ms: u64) {
        if now_ms >= self.lasting.expiry_at {
            self.lasting.expiry_at = now_ms + EXPIRY_MS;
            self.retained.expire(now_ms);
            self.count_retained();
        }
        if now_ms < self.lasting.prompt_at {
            return;
        }
        self.lasting.prompt_at = now_ms + PROMPT_MS;
        self.retained.pack();
        if self.store.is_none() {
            return;
        }
        self.note_failed_write(now_ms);
        if self.lasting.rewrite && now_ms < self.lasting.rewrite_at {
            return self.forget_changes();
        }
        let is_rare_due = now_ms >= self.lasting.rare_at;
        if is_rare_due {
            self.lasting.rare_at = now_ms + RARE_MS;
        }
        if let Some(batch) = self.next_batch(now_ms, is_rare_due) {
            self.hand_over(batch);
        }
    }

    /// The disk has refused something: a full one gets room again some time.
    fn note_failed_write(&mut self, now_ms: u64) {
        let has_failed = self.store.as_ref().is_some_and(Store::take_failed);
        let schedule = &mut self.lasting;
        if has_failed {
            schedule.rewrite = true;
            schedule.rewrite_at = now_ms + schedule.retry_ms;
            schedule.retry_ms = (schedule.retry_ms * 2).min(LONGEST_RETRY_MS);
        } else if !schedule.rewrite && now_ms > schedule.rewrite_at + LONGEST_RETRY_MS {
            schedule.retry_ms = RETRY_MS;
        }
    }

    /// Everything is to be written anew, and these changes with it.
    fn forget_changes(&mut self) {
        self.retained.take_changes(|_| true);
        self.will_changes.clear();
        self.session_changes.clear();
    }

    fn hand_over(&mut self, batch: Batch) {
        let Some(store) = &self.store else { return };
        if store.write(batch).is_err() {
            // The disk hangs. Everything is written anew as soon as it takes something again.
            tracing::warn!("the disk does not keep up with retained messages");
            self.lasting.rewrite = true;
        }
    }

    fn next_batch(&mut self, now_ms: u64, rare_too: bool) -> Option<Batch> {
        let access = self.front.access.clone();
        let wants_rewrite =
            self.store.as_ref().is_some_and(|store| store.wants_rewrite(|| self.retained.bytes() + self.kept_bytes()));
        if wants_rewrite || self.lasting.rewrite {
            self.lasting.rewrite = false;
            self.forget_changes();
            return Some(Batch::Rewrite(self.everything(now_ms)));
        }
        if !self.retained.has_changes() && self.will_changes.is_empty() && self.session_changes.is_empty() {
            return None;
        }
        let changes = self.retained.take_changes(|topic| rare_too || !access.is_telemetry(topic));
        // What others keep here is written as promptly, which a killed process does not lose; only
        // a power cut needs more, and that wears flash memory: it is spent on our own states and
        // wills, not on telemetry of any kind.
        let is_worth_it = |topic: &str| access.is_own(topic) && !access.is_telemetry(topic);
        let sync = !self.will_changes.is_empty() || changes.iter().any(|(topic, _)| is_worth_it(topic));
        let mut records: Vec<Record> = changes
            .into_iter()
            .map(|(topic, entry)| match entry {
                Some(entry) => retain_record(&entry, now_ms),
                None => Record::Clear(topic),
            })
            .collect();
        records.extend(self.will_changes.drain().map(|(key, will)| match will {
            Some(will) => Record::SetWill(key, will),
            None => Record::ClearWill(key),
        }));
        records.extend(self.session_records(now_ms));
        (!records.is_empty()).then_some(Batch::Append { records, sync })
    }

    fn everything(&self, now_ms: u64) -> Vec<Record> {
        let mut records: Vec<Record> = self.retained.lasting().map(|entry| retain_record(entry, now_ms)).collect();
        let wills = self.orphaned_wills.iter().map(|(key, will)| (key.clone(), will.clone()));
        let live = self
            .sessions
            .values()
            .filter_map(|session| session.will.as_ref().map(|will| (session.key.clone(), will.clone())));
        records.extend(wills.chain(live).map(|(key, will)| Record::SetWill(key, will)));
        records.extend(self.kept_sessions(now_ms));
        records
    }

    /// The log has failed: what was taken in before still goes to the disk.
    pub(super) fn write_what_is_left(&mut self) {
        if let Some(batch) = self.last_batch() {
            self.hand_over(batch);
        }
    }

    /// What is still to be written when the broker stops.
    pub(super) fn last_batch(&mut self) -> Option<Batch> {
        self.lasting.rewrite |= self.store.as_ref()?.take_failed();
        self.next_batch(self.front.clock.now_ms(), true)
    }
}

/// What may still be sent, and how many messages are not: earlier versions kept what no client
/// should be sent.
fn without_unfit(mut restored: Restored) -> (Restored, usize) {
    let count = |restored: &Restored| {
        let queued: usize = restored.sessions.iter().map(|(.., queue)| queue.len()).sum();
        restored.retained.len() + restored.wills.len() + queued
    };
    let is_fit = |frame: &Bytes| Message::open(frame.clone()).is_some_and(|message| message.is_plain());
    let before = count(&restored);
    restored.retained.retain(|(frame, ..)| is_fit(frame));
    restored.wills.retain(|(_, will)| is_fit(&will.frame));
    for (.., queue) in &mut restored.sessions {
        queue.retain(|waiting| is_fit(&waiting.frame));
    }
    let unfit = before - count(&restored);
    (restored, unfit)
}

fn retain_record(entry: &Entry, now_ms: u64) -> Record {
    let expires_unix_ms = entry.message.expires_in_ms(now_ms).map(|left| unix_ms().saturating_add(left));
    Record::Retain { message: entry.message.clone(), expires_unix_ms, owner: entry.owner.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Draft, SessionId};
    use crate::packet::{MessageProperties, QoS};
    use crate::store::{KeptDelivery, StoredWill};

    fn frame(topic: &str, raw: &[u8]) -> Bytes {
        let properties = MessageProperties { raw, ..MessageProperties::default() };
        let publisher = SessionId::broker();
        Draft {
            publisher,
            topic,
            payload: b"x",
            qos: QoS::AtLeastOnce,
            retain: true,
            properties,
            stamp: None,
            now_ms: 0,
        }
        .seal()
    }

    /// Earlier versions kept them, and each start would send them to every subscriber again.
    #[test]
    fn what_no_client_should_be_sent_is_dropped_when_the_state_is_read() {
        // A content type with a line feed in it.
        let unfit = [frame("a/\u{1}", &[]), frame("a/\u{ffff}/b", &[]), frame("a/b", &[3, 0, 1, b'\n'])];
        let fit = frame("a/b", &[3, 0, 1, b'x']);
        let mut restored = Restored::default();
        for (number, frame) in unfit.iter().chain([&fit]).enumerate() {
            restored.retained.push((frame.clone(), None, "u/home".into()));
            let key = ("u/home".into(), number.to_string().into());
            let will = StoredWill { frame: frame.clone(), expiry_seconds: None, delay_seconds: 0, due_unix_ms: None };
            restored.wills.push((key, will));
        }
        let mut queue = Vec::new();
        for frame in unfit.iter().chain([&fit]) {
            let (identifiers, share, packet_id, expires_unix_ms) = (Vec::new(), None, 0, None);
            let frame = frame.clone();
            queue.push(KeptDelivery {
                qos: QoS::AtLeastOnce,
                retain: false,
                identifiers,
                share,
                packet_id,
                expires_unix_ms,
                frame,
            });
        }
        let session = crate::store::KeptSession {
            user_name: "home".into(),
            secret: crate::access::Secret::of(b"home"),
            expiry_seconds: 60,
            away_since_unix_ms: None,
            subscriptions: Vec::new(),
            exchange: crate::store::KeptExchange::default(),
        };
        restored.sessions.push((("u/home".into(), "client".into()), session, queue));
        let (restored, dropped) = without_unfit(restored);
        assert_eq!(dropped, 9);
        let [(kept, ..)] = &restored.retained[..] else { panic!("one is fit") };
        assert_eq!((kept, restored.wills.len(), restored.sessions[0].2.len()), (&fit, 1, 1));
    }
}
