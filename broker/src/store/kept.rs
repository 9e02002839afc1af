//! Sessions that outlive the broker, as records of the retained log: who they belong to, what they
//! have subscribed to, and what waits for them.

use bytes::Bytes;

use super::fields::{put_text, take_array, take_text, take_u64};
use crate::access::Secret;
use crate::packet::{QoS, SubscriptionOptions};

/// A session that its client wants kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptSession {
    /// With which user name and which credential it was opened: when these are no longer good, the
    /// session is gone.
    pub(crate) user_name: Box<str>,
    pub(crate) secret: Secret,
    /// Seconds that it lives on without its client; `u32::MAX` is for ever.
    pub(crate) expiry_seconds: u32,
    /// Since when its client has been away, by the wall clock; `None` while it was connected.
    pub(crate) away_since_unix_ms: Option<u64>,
    pub(crate) subscriptions: Vec<KeptSubscription>,
    pub(crate) exchange: KeptExchange,
}

/// Where a session stands with `QoS` 2, and with packet ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeptExchange {
    /// Its client was connected and something of `QoS` 2 was under way, of which nothing else is
    /// known here.
    pub(crate) is_unsure: bool,
    /// The last packet id used towards the client.
    pub(crate) last_id: u16,
    /// Packet ids of `QoS` 2 messages that came from the client and were not released.
    pub(crate) receiving: Vec<u16>,
    /// Packet ids of `QoS` 2 messages that the client has, and for which PUBREL was sent.
    pub(crate) released: Vec<u16>,
}

/// One of its subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptSubscription {
    /// As it was subscribed, `$share/<group>/` included.
    pub(crate) filter: Box<str>,
    pub(crate) identifier: u32,
    pub(crate) options: SubscriptionOptions,
}

/// A message that waits for such a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptDelivery {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: Vec<u32>,
    /// The shared subscription by which it came.
    pub(crate) share: Option<Box<str>>,
    /// Under which packet id it was sent; 0 for never.
    pub(crate) packet_id: u16,
    /// The wall-clock time at which it expires.
    pub(crate) expires_unix_ms: Option<u64>,
    /// The sealed message.
    pub(crate) frame: Bytes,
}

/// Subscriptions of a session and identifiers of a delivery are far fewer.
const MOST: u32 = 1_000_000;

impl KeptSession {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, &self.user_name);
        out.extend_from_slice(&self.secret.to_bytes());
        out.extend_from_slice(&self.expiry_seconds.to_le_bytes());
        out.extend_from_slice(&self.away_since_unix_ms.unwrap_or(u64::MAX).to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.subscriptions.len()).unwrap_or(u32::MAX).to_le_bytes());
        for subscription in &self.subscriptions {
            put_text(out, &subscription.filter);
            out.extend_from_slice(&subscription.identifier.to_le_bytes());
            out.push(subscription.options.to_byte());
        }
        self.exchange.encode(out);
    }

    pub(super) fn decode(rest: &mut &[u8]) -> Option<Self> {
        let user_name = take_text(rest)?;
        let secret = Secret::from_bytes(&take_array(rest)?);
        let expiry_seconds = u32::from_le_bytes(take_array(rest)?);
        let away_since = take_u64(rest)?;
        let count = u32::from_le_bytes(take_array(rest)?);
        let mut subscriptions = Vec::new();
        for _ in 0..(count <= MOST).then_some(count)? {
            let filter = take_text(rest)?;
            let identifier = u32::from_le_bytes(take_array(rest)?);
            let [options] = take_array(rest)?;
            let options = SubscriptionOptions::from_byte(options)?;
            subscriptions.push(KeptSubscription { filter, identifier, options });
        }
        let away_since_unix_ms = (away_since != u64::MAX).then_some(away_since);
        let exchange = KeptExchange::decode(rest)?;
        Some(Self { user_name, secret, expiry_seconds, away_since_unix_ms, subscriptions, exchange })
    }
}

impl KeptExchange {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_unsure));
        out.extend_from_slice(&self.last_id.to_le_bytes());
        for ids in [&self.receiving, &self.released] {
            out.extend_from_slice(&u16::try_from(ids.len()).unwrap_or(u16::MAX).to_le_bytes());
            ids.iter().take(usize::from(u16::MAX)).for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        }
    }

    /// What was written before there was this ends here.
    fn decode(rest: &mut &[u8]) -> Option<Self> {
        if rest.is_empty() {
            return Some(Self::default());
        }
        let [is_unsure] = take_array(rest)?;
        let last_id = u16::from_le_bytes(take_array(rest)?);
        let mut ids = || -> Option<Vec<u16>> {
            let count = u16::from_le_bytes(take_array(rest)?);
            (0..count).map(|_| take_array(rest).map(u16::from_le_bytes)).collect()
        };
        Some(Self { is_unsure: is_unsure != 0, last_id, receiving: ids()?, released: ids()? })
    }
}

/// The flag of a delivery that has a packet id.
const HAS_ID: u8 = 8;

/// The flag of one that came by a shared subscription.
const IS_SHARED: u8 = 16;

impl KeptDelivery {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let has_id = if self.packet_id > 0 { HAS_ID } else { 0 };
        let is_shared = if self.share.is_some() { IS_SHARED } else { 0 };
        out.push(self.qos as u8 | u8::from(self.retain) << 2 | has_id | is_shared);
        if let Some(share) = &self.share {
            put_text(out, share);
        }
        if self.packet_id > 0 {
            out.extend_from_slice(&self.packet_id.to_le_bytes());
        }
        out.extend_from_slice(&self.expires_unix_ms.unwrap_or(u64::MAX).to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.identifiers.len()).unwrap_or(u32::MAX).to_le_bytes());
        for identifier in &self.identifiers {
            out.extend_from_slice(&identifier.to_le_bytes());
        }
        out.extend_from_slice(&self.frame);
    }

    pub(super) fn decode(rest: &mut &[u8]) -> Option<Self> {
        let [flags] = take_array(rest)?;
        let share = if flags & IS_SHARED == 0 { None } else { Some(take_text(rest)?) };
        let packet_id = if flags & HAS_ID == 0 { 0 } else { u16::from_le_bytes(take_array(rest)?) };
        let expires = take_u64(rest)?;
        let count = u32::from_le_bytes(take_array(rest)?);
        let mut identifiers = Vec::new();
        for _ in 0..(count <= MOST).then_some(count)? {
            identifiers.push(u32::from_le_bytes(take_array(rest)?));
        }
        let expires_unix_ms = (expires != u64::MAX).then_some(expires);
        let frame = Bytes::copy_from_slice(std::mem::take(rest));
        let qos = QoS::from_repr(flags & 3)?;
        Some(Self { qos, retain: flags & 4 != 0, identifiers, share, packet_id, expires_unix_ms, frame })
    }
}
