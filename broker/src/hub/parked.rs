//! Sessions whose clients are away: how many each account has, how much waits for them, and which
//! is ended when it is too much.
//!
//! One account never costs another its session as long as both keep to what an account may have;
//! when all of them together are too many, the one that has been away longest goes, and when too
//! much waits, the account for which most waits loses its fullest.

use std::sync::Arc;

use super::Hub;
use crate::message::SessionId;

/// What an account has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Connected clients.
    pub(super) connected: usize,
    /// Sessions whose clients are away.
    pub(super) away: usize,
    /// Bytes that wait for those.
    pub(super) away_bytes: usize,
    /// About what its subscriptions cost, in bytes.
    pub(super) subscription_bytes: usize,
}

/// About what the subscriptions of one account may cost in memory, in bytes: tens of thousands of
/// the usual length. Each session has a bound of its own besides, but an account has a thousand
/// sessions.
const ACCOUNT_SUBSCRIPTION_BYTES: usize = 16 * 1024 * 1024;

/// What a level of a filter costs in the tree, and a subscription besides: measured, with the
/// longest filters.
const LEVEL_BYTES: usize = 160;
const SUBSCRIPTION_BYTES: usize = 100;

/// How many connections an agent may have at once: one, and those that have not been found dead
/// yet. Machines that join, too.
const AGENT_CONNECTIONS: usize = 8;

/// How the owners of sessions begin that join under names of their choice. By itself it is the
/// account that all of them are together.
const JOINING: &str = "j/";

fn subscription_bytes(filter: &str) -> usize {
    let levels = filter.split('/').count();
    2 * filter.len() + LEVEL_BYTES * levels + SUBSCRIPTION_BYTES
}

impl Hub {
    pub(super) fn account_has_room(&self, owner: &str) -> bool {
        let limit = self.front.limits.bounds.connections_per_account;
        let is_machine = owner.starts_with("a/") || owner.starts_with(JOINING);
        let most = if is_machine { limit.min(AGENT_CONNECTIONS) } else { limit };
        let has_room_to_join = !owner.starts_with(JOINING) || self.account(JOINING).connected < limit;
        has_room_to_join && self.account(owner).connected < most
    }

    pub(super) fn occupy_account(&mut self, owner: &Arc<str>) {
        self.accounts.entry(owner.clone()).or_default().connected += 1;
        if owner.starts_with(JOINING) {
            self.accounts.entry(JOINING.into()).or_default().connected += 1;
        }
    }

    /// Whether an account may have another subscription.
    pub(super) fn account_may_subscribe(&self, owner: &str, filter: &str) -> bool {
        self.account(owner).subscription_bytes + subscription_bytes(filter) <= ACCOUNT_SUBSCRIPTION_BYTES
    }

    pub(super) fn count_subscribed(&mut self, owner: &Arc<str>, filter: &str) {
        self.accounts.entry(owner.clone()).or_default().subscription_bytes += subscription_bytes(filter);
    }

    pub(super) fn count_unsubscribed(&mut self, owner: &str, filter: &str) {
        self.change_account(owner, |account| account.subscription_bytes -= subscription_bytes(filter));
    }

    pub(super) fn account_has_room_away(&self, owner: &str) -> bool {
        self.account(owner).away < self.front.limits.bounds.sessions_per_account
    }

    fn account(&self, owner: &str) -> Account {
        self.accounts.get(owner).copied().unwrap_or_default()
    }

    pub(super) fn release_account(&mut self, owner: &str) {
        self.change_account(owner, |account| account.connected -= 1);
        if owner.starts_with(JOINING) {
            self.change_account(JOINING, |account| account.connected -= 1);
        }
    }

    fn change_account(&mut self, owner: &str, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(owner) {
            change(account);
            if *account == Account::default() {
                self.accounts.remove(owner);
            }
        }
    }

    /// A session waits without its client from now on.
    pub(super) fn count_away(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.away_bytes.is_some() {
            return;
        }
        let bytes = session.outbox.load().waiting_bytes + session.parked.as_ref().map_or(0, |parked| parked.bytes());
        session.away_bytes = Some(bytes);
        self.away_bytes += bytes;
        let account = self.accounts.entry(session.key.0.clone()).or_default();
        account.away += 1;
        account.away_bytes += bytes;
    }

    /// A message more waits for it.
    pub(super) fn count_queued(&mut self, id: SessionId, bytes: usize) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(waiting) = &mut session.away_bytes else { return };
        *waiting += bytes;
        self.away_bytes += bytes;
        if let Some(account) = self.accounts.get_mut(&session.key.0) {
            account.away_bytes += bytes;
        }
    }

    /// Its client is back, or it ends.
    pub(super) fn count_back(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(bytes) = session.away_bytes.take() else { return };
        let owner = session.key.0.clone();
        self.away_bytes -= bytes;
        self.change_account(&owner, |account| {
            account.away -= 1;
            account.away_bytes -= bytes;
        });
    }

    /// When too many sessions wait without their clients, the one that waits longest goes: of the
    /// account that has too many, or of all.
    pub(super) fn make_room_for_parked(&mut self, newest: SessionId) {
        let Some(session) = self.sessions.get(newest) else { return };
        let owner = session.key.0.clone();
        if self.account(&owner).away > self.front.limits.bounds.sessions_per_account {
            self.end_oldest(newest, Some(&*owner));
        }
        let connected = usize::try_from(self.front.counters.clients_connected.get()).unwrap_or(0);
        if self.keys.len().saturating_sub(connected) > self.front.limits.bounds.sessions {
            self.end_oldest(newest, None);
        }
        self.bound_away_bytes();
    }

    fn end_oldest(&mut self, newest: SessionId, owner: Option<&str>) {
        let may_go = self.sessions.iter().filter(|(id, session)| {
            session.peer.is_none() && *id != newest && owner.is_none_or(|owner| *session.key.0 == *owner)
        });
        if let Some((_, id)) = may_go.map(|(id, session)| (session.away_since, id)).min() {
            self.end_session(id, "too many sessions wait without their clients");
        }
    }

    /// When too much waits for all of them together, the account for which most waits loses its
    /// fullest session.
    pub(super) fn bound_away_bytes(&mut self) {
        while self.away_bytes > self.front.limits.offline_bytes_total {
            let Some((owner, _)) = self.accounts.iter().max_by_key(|(_, account)| account.away_bytes) else { return };
            let of_owner = self.sessions.iter().filter(|(_, session)| session.key.0 == *owner);
            let of_owner = of_owner.filter_map(|(id, session)| Some((session.away_bytes?, id)));
            let Some((_, fullest)) = of_owner.max() else { return };
            self.end_session(fullest, "too much waits for clients that are away");
        }
    }
}
