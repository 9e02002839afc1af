//! Packets of which a part has come: how much memory they take, by account.
//!
//! One connection is bounded by the largest packet, and an account may have many connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that count for nothing on each connection: one read of its socket.
const FREE_BYTES: usize = 16 * 1024;

/// How many bytes all connections of one account may hold beyond that: a few of the largest
/// packets.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The bytes of each account; one for the whole broker.
#[derive(Debug, Default)]
pub(crate) struct Incomplete {
    accounts: Mutex<HashMap<Box<str>, usize>>,
}

/// What one connection holds of its account's bytes; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    all: Arc<Incomplete>,
    account: Box<str>,
    bytes: usize,
}

impl Share {
    /// Of a connection that holds nothing yet.
    pub(crate) fn new(all: &Arc<Incomplete>, account: &str) -> Self {
        Self { all: all.clone(), account: account.into(), bytes: 0 }
    }

    /// The connection holds so many bytes now. Tells whether its account may; less than before it
    /// always may.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        let bytes = bytes.saturating_sub(FREE_BYTES);
        if bytes == self.bytes {
            return true;
        }
        let mut accounts = self.all.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = accounts.remove(&self.account).unwrap_or(0) - self.bytes;
        let total = before + bytes;
        if total > 0 {
            accounts.insert(self.account.clone(), total);
        }
        let is_less = bytes < self.bytes;
        self.bytes = bytes;
        is_less || total <= MAX_BYTES
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_a_bound_over_all_its_connections_and_gets_back_what_they_held() {
        let all = Arc::new(Incomplete::default());
        let share = |account| Share::new(&all, account);
        let (mut first, mut second, mut other) = (share("a"), share("a"), share("b"));
        assert!(first.hold(MAX_BYTES) && second.hold(2 * FREE_BYTES), "the free bytes of both");
        assert!(!second.hold(2 * FREE_BYTES + 1) && second.hold(2 * FREE_BYTES));
        assert!(other.hold(MAX_BYTES), "another account's are its own");
        drop(first);
        assert!(second.hold(MAX_BYTES + FREE_BYTES));
        drop((second, other));
        assert!(all.accounts.lock().unwrap().is_empty());
    }
}
