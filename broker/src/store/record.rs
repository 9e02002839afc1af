//! One record of the retained log: what it says, how it is written, and what a file of them amounts
//! to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Restored;
use super::fields::{SessionKey, put_key, put_text, take_array, take_key, take_text, take_u64};
use super::kept::{KeptDelivery, KeptSession};
use crate::message::Message;

/// A last will as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    /// The sealed message.
    pub(crate) frame: Bytes,
    /// How long the message lives once it is published.
    pub(crate) expiry_seconds: Option<u32>,
    /// How long after its client has gone it is published, unless the session ends before.
    pub(crate) delay_seconds: u32,
    /// When it is due, by the wall clock in milliseconds; `None` while its client is connected.
    pub(crate) due_unix_ms: Option<u64>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A topic's retained message, the wall-clock time in milliseconds at which it expires, and to
    /// whom it counts; empty when that is not known. Its envelope is made when it is written: until
    /// then the memory is the retained store's own.
    Retain { message: Arc<Message>, expires_unix_ms: Option<u64>, owner: Arc<str> },
    /// A topic has no retained message any more.
    Clear(Box<str>),
    /// A client is connected and has left a will.
    SetWill(SessionKey, Will),
    /// Its will is not needed any more.
    ClearWill(SessionKey),
    /// A session that outlives its connections. Its queue stays as it is.
    SetSession(SessionKey, KeptSession),
    /// It is over, and its queue with it.
    ClearSession(SessionKey),
    /// A message waits for it.
    Queue(SessionKey, KeptDelivery),
    /// Nothing waits for it any more.
    ClearQueue(SessionKey),
}

/// As it was written before it was known to whom a message counts; read still.
const RETAIN: u8 = 1;
const CLEAR: u8 = 2;
/// As it was written before delays were kept; read still.
const SET_WILL: u8 = 3;
const CLEAR_WILL: u8 = 4;
const SET_SESSION: u8 = 5;
const CLEAR_SESSION: u8 = 6;
const QUEUE: u8 = 7;
const CLEAR_QUEUE: u8 = 8;
const RETAIN_OWNED: u8 = 9;
const SET_DELAYED_WILL: u8 = 10;
const HEADER_BYTES: usize = 8;
/// No record is larger: a packet's bound is far below.
const MAX_RECORD_BYTES: usize = 512 * 1024 * 1024;

impl Record {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        match self {
            Self::Retain { message, expires_unix_ms, owner } => {
                out.push(RETAIN_OWNED);
                put_text(out, owner);
                out.extend_from_slice(&expires_unix_ms.unwrap_or(u64::MAX).to_le_bytes());
                out.extend_from_slice(&message.frame());
            }
            Self::Clear(topic) => {
                out.push(CLEAR);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::SetWill(key, will) => {
                out.push(SET_DELAYED_WILL);
                put_key(out, key);
                out.extend_from_slice(&will.expiry_seconds.map_or(u64::MAX, u64::from).to_le_bytes());
                out.extend_from_slice(&will.delay_seconds.to_le_bytes());
                out.extend_from_slice(&will.due_unix_ms.unwrap_or(u64::MAX).to_le_bytes());
                out.extend_from_slice(&will.frame);
            }
            Self::ClearWill(key) => {
                out.push(CLEAR_WILL);
                put_key(out, key);
            }
            Self::SetSession(key, session) => {
                out.push(SET_SESSION);
                put_key(out, key);
                session.encode(out);
            }
            Self::ClearSession(key) => {
                out.push(CLEAR_SESSION);
                put_key(out, key);
            }
            Self::Queue(key, delivery) => {
                out.push(QUEUE);
                put_key(out, key);
                delivery.encode(out);
            }
            Self::ClearQueue(key) => {
                out.push(CLEAR_QUEUE);
                put_key(out, key);
            }
        }
        let body = &out[start + HEADER_BYTES..];
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let checksum = crc32fast::hash(body).to_le_bytes();
        out[start..start + 4].copy_from_slice(&length);
        out[start + 4..start + 8].copy_from_slice(&checksum);
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (&kind, mut rest) = body.split_first()?;
        Some(match kind {
            RETAIN | RETAIN_OWNED => {
                let owner = if kind == RETAIN { Box::default() } else { take_text(&mut rest)? };
                let expires = take_u64(&mut rest)?;
                Self::Retain {
                    message: Arc::new(Message::open(Bytes::copy_from_slice(rest))?),
                    expires_unix_ms: (expires != u64::MAX).then_some(expires),
                    owner: owner.into(),
                }
            }
            CLEAR => Self::Clear(std::str::from_utf8(rest).ok()?.into()),
            SET_WILL | SET_DELAYED_WILL => {
                let key = take_key(&mut rest)?;
                let expiry_seconds = u32::try_from(take_u64(&mut rest)?).ok();
                let (mut delay_seconds, mut due_unix_ms) = (0, None);
                if kind == SET_DELAYED_WILL {
                    delay_seconds = take_array(&mut rest).map(u32::from_le_bytes)?;
                    due_unix_ms = Some(take_u64(&mut rest)?).filter(|due| *due != u64::MAX);
                }
                Self::SetWill(
                    key,
                    Will { frame: Bytes::copy_from_slice(rest), expiry_seconds, delay_seconds, due_unix_ms },
                )
            }
            CLEAR_WILL => Self::ClearWill(take_key(&mut rest)?),
            SET_SESSION => Self::SetSession(take_key(&mut rest)?, KeptSession::decode(&mut rest)?),
            CLEAR_SESSION => Self::ClearSession(take_key(&mut rest)?),
            QUEUE => Self::Queue(take_key(&mut rest)?, KeptDelivery::decode(&mut rest)?),
            CLEAR_QUEUE => Self::ClearQueue(take_key(&mut rest)?),
            _ => return None,
        })
    }
}

/// What is alive after all records of a file.
#[derive(Debug, Default)]
pub(super) struct Live {
    retained: BTreeMap<Box<str>, (Bytes, Option<u64>, Arc<str>)>,
    wills: BTreeMap<SessionKey, Will>,
    sessions: BTreeMap<SessionKey, (KeptSession, Vec<KeptDelivery>)>,
}

impl Live {
    fn apply(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Retain { message, expires_unix_ms, owner } => {
                self.retained.insert(message.topic().into(), (message.frame(), expires_unix_ms, owner));
            }
            Record::Clear(topic) => {
                self.retained.remove(&topic);
            }
            Record::SetWill(key, will) => {
                Message::open(will.frame.clone())?;
                self.wills.insert(key, will);
            }
            Record::ClearWill(key) => {
                self.wills.remove(&key);
            }
            Record::SetSession(key, session) => match self.sessions.get_mut(&key) {
                Some((known, _)) => *known = session,
                None => drop(self.sessions.insert(key, (session, Vec::new()))),
            },
            Record::ClearSession(key) => {
                self.sessions.remove(&key);
            }
            Record::Queue(key, delivery) => {
                Message::open(delivery.frame.clone())?;
                if let Some((_, queue)) = self.sessions.get_mut(&key) {
                    queue.push(delivery);
                }
            }
            Record::ClearQueue(key) => {
                if let Some((_, queue)) = self.sessions.get_mut(&key) {
                    queue.clear();
                }
            }
        }
        Some(())
    }

    /// What has not expired meanwhile, with the milliseconds that it still has.
    pub(super) fn into_restored(self, unix_ms: u64) -> Restored {
        let left = |expires: Option<u64>| expires.map(|expires| expires.saturating_sub(unix_ms));
        let retained = self.retained.into_values().map(|(frame, expires, owner)| (frame, left(expires), owner));
        Restored {
            retained: retained.filter(|(_, left, _)| *left != Some(0)).collect(),
            wills: self.wills.into_iter().collect(),
            sessions: self.sessions.into_iter().map(|(key, (session, queue))| (key, session, queue)).collect(),
            damaged: None,
        }
    }
}

/// Where reading ended.
pub(super) struct End {
    /// Bytes up to the last good record.
    pub(super) good_bytes: usize,
    /// What was wrong there, unless the file simply ends within a record.
    pub(super) damage: Option<&'static str>,
}

/// Reads records until the first that is not whole.
pub(super) fn replay(bytes: &[u8]) -> (Live, End) {
    let mut live = Live::default();
    let mut good_bytes = 0;
    let damage = loop {
        let rest = &bytes[good_bytes..];
        let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() else { break None };
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let checksum = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if length > MAX_RECORD_BYTES {
            break Some("a record's length makes no sense");
        }
        let Some(body) = after.get(..length) else { break None };
        if crc32fast::hash(body) != checksum {
            // A torn write ends the file; a wrong checksum with more behind it is damage.
            break (after.len() > length).then_some("a record's checksum is wrong");
        }
        if Record::decode(body).and_then(|record| live.apply(record)).is_none() {
            break Some("a record makes no sense");
        }
        good_bytes += HEADER_BYTES + length;
    };
    (live, End { good_bytes, damage })
}
