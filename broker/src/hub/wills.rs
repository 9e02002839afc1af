//! Last wills: kept beside the retained messages while their clients are connected, published when
//! they are due.
//!
//! A will that waits is checked again when it is due: an account that was removed, or may not write
//! its topic any more, says nothing after its end.

use bytes::Bytes;

use super::{Hub, after_seconds};
use crate::access::Identity;
use crate::contract::{Command, ConnectRequest};
use crate::message::{Message, SessionId, resealed};
use crate::store::{SessionKey, StoredWill, unix_ms};

impl Hub {
    /// A session's client has left a will, or it is not needed any more.
    pub(super) fn set_will(&mut self, id: SessionId, will: Option<StoredWill>) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let key = session.key.clone();
        let previous = std::mem::replace(&mut session.will, will.clone());
        // Most clients have no will and never had one: nothing to write for them.
        if previous != will {
            self.note_will(key, will);
        }
    }

    /// The client of a session has gone, and its will is due after so many seconds: across a
    /// restart, too.
    pub(super) fn delay_will(&mut self, id: SessionId, seconds: u32, now_ms: u64) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.will_due = Some(after_seconds(now_ms, seconds));
        let key = session.key.clone();
        if let Some(will) = &mut session.will {
            will.due_unix_ms = Some(unix_ms().saturating_add(u64::from(seconds) * 1000));
            let will = will.clone();
            self.note_will(key, Some(will));
        }
    }

    /// Wills from before a stop. That of a session which came back waits for its delay or for the
    /// session's end (MQTT 5, section 3.1.3.2.2), and for the time that clients are given to
    /// return. The others are due after that time.
    pub(super) fn restore_wills(&mut self, wills: Vec<(SessionKey, StoredWill)>, now_ms: u64) {
        let (unix_ms, earliest) = (unix_ms(), self.lasting.orphans_at);
        for (key, will) in wills {
            let id = self.keys.get(&key).copied();
            let Some(session) = id.and_then(|id| self.sessions.get_mut(id)) else {
                self.orphaned_wills.insert(key, will);
                continue;
            };
            // The wall clock may have been set meanwhile: the wait is at most the whole delay.
            let delay_ms = u64::from(will.delay_seconds) * 1000;
            let left_ms = will.due_unix_ms.map_or(delay_ms, |due| due.saturating_sub(unix_ms).min(delay_ms));
            // A client that was connected when the broker was killed gets the time to return.
            // One that had left before has its delay, which went on meanwhile.
            let floor = if will.due_unix_ms.is_none() { earliest } else { 0 };
            session.will_due = Some(now_ms.saturating_add(left_ms).max(floor).min(session.expires_at));
            session.will = Some(will);
        }
    }

    pub(super) fn note_will(&mut self, key: SessionKey, will: Option<StoredWill>) {
        if self.store.is_some() {
            self.will_changes.insert(key, will);
        }
    }

    pub(super) fn publish_orphaned_wills(&mut self, now_ms: u64) {
        if self.orphaned_wills.is_empty() || now_ms < self.lasting.orphans_at {
            return;
        }
        let wills = std::mem::take(&mut self.orphaned_wills);
        let allowed = wills.iter().filter(|((owner, _), will)| {
            self.directory.by_owner(owner).is_some_and(|identity| self.may_still_leave(&identity, will))
        });
        self.publish_later(allowed.filter_map(|(_, will)| self.seal_will(will)).collect());
        for key in wills.into_keys() {
            self.note_will(key, None);
        }
    }

    fn may_still_leave(&self, identity: &Identity, will: &StoredWill) -> bool {
        let message = Message::open(will.frame.clone());
        message.is_some_and(|message| self.front.access.may_leave_will(identity, message.topic()))
    }

    pub(super) fn publish_due_wills(&mut self, now_ms: u64) {
        for id in self.sessions_where(|session| session.will_due.is_some_and(|at| at <= now_ms)) {
            if let Some(will) = self.take_due_will(id) {
                self.publish_will(&will);
            }
        }
        self.publish_orphaned_wills(now_ms);
    }

    /// Takes a will that waits for its delay; `None` when its client may not leave it any more.
    pub(super) fn take_due_will(&mut self, id: SessionId) -> Option<StoredWill> {
        let session = self.sessions.get_mut(id)?;
        session.will_due.take()?;
        let will = session.will.clone();
        let identity = self.directory.identify(&session.user_name, &session.secret);
        self.set_will(id, None);
        will.filter(|will| identity.is_some_and(|identity| self.may_still_leave(&identity, will)))
    }

    pub(super) fn publish_before_connect(&self, will: &StoredWill, mut request: ConnectRequest) {
        let mut frames: Vec<Bytes> = self.seal_will(will).into_iter().collect();
        let front = self.front.clone();
        self.front.tasks.spawn(async move {
            // Errors mean that the broker is stopping; the connection notices by itself.
            if front.spine.publish(&mut frames).await.is_ok() {
                request.position = front.spine.position();
                let _ = front.commands.send(Command::Connect(Box::new(request))).await;
            }
        });
    }

    fn seal_will(&self, will: &StoredWill) -> Option<Bytes> {
        let expires_in_ms = will.expiry_seconds.map(|seconds| u64::from(seconds) * 1000);
        resealed(&will.frame, expires_in_ms, self.front.clock.now_ms())
    }

    pub(super) fn publish_will(&self, will: &StoredWill) {
        self.publish_later(self.seal_will(will).into_iter().collect());
    }
}
