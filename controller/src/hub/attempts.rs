//! Who tries to sign in, and how often: sign-in links and bad credentials.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use pistat_protocol::id::AccountName;
use pistat_support::random::new_secret;

use crate::{
    access::{AccessChange, AccountRecord, SecretHash},
    fleet::Now,
};

/// How long a sign-in link works.
pub(super) const CODE_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How many sign-in links wait; the oldest goes when another is made.
const MAX_CODES: usize = 64;

/// After this time without bad credentials an address is as good as new.
const FORGIVEN: Duration = Duration::from_secs(15 * 60);

/// How many addresses with bad credentials are remembered.
const MAX_ADDRESSES: usize = 4096;

/// How many bad tries an address is taken to have made when no more can be remembered.
const TRIES_OF_OTHERS: u32 = 8;

/// Attempts to sign in.
#[derive(Default)]
pub(super) struct Attempts {
    /// Sign-in links that have not been used: the code's hash, its account, when it was made.
    codes: Vec<(SecretHash, AccountName, Instant)>,
    /// How many bad credentials came from an address, and when the last.
    bad_credentials: HashMap<IpAddr, (u32, Instant)>,
}

impl Attempts {
    /// A sign-in link's code for this account.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(super) fn make_code(&mut self, account: AccountName, now: Now) -> std::io::Result<String> {
        let code = new_secret()?;
        self.codes.retain(|(_, _, made)| now.monotonic.saturating_duration_since(*made) < CODE_LIFETIME);
        if self.codes.len() >= MAX_CODES {
            self.codes.remove(0);
        }
        self.codes.push((SecretHash::of(&code), account, now.monotonic));
        Ok(code)
    }

    /// The account of a code, which is used up by that.
    pub(super) fn take_code(&mut self, code: &str, now: Now) -> Option<AccountName> {
        let index = self.codes.iter().position(|(hash, ..)| hash.matches(code))?;
        let (_, account, made) = self.codes.remove(index);
        (now.monotonic.saturating_duration_since(made) < CODE_LIFETIME).then_some(account)
    }

    /// What was made for an account that is changed or gone is void: whoever had its old token may
    /// have made links, too.
    pub(super) fn follow(&mut self, change: &AccessChange) {
        if let AccessChange::PutAccount(AccountRecord { name, .. }) | AccessChange::RemoveAccount(name) = change {
            self.codes.retain(|(_, account, _)| account.key() != name.key());
        }
    }

    /// Bad credentials came from an address: how many in a row.
    pub(super) fn bad_credentials(&mut self, address: IpAddr, now: Instant) -> u32 {
        let known = &mut self.bad_credentials;
        if known.len() >= MAX_ADDRESSES {
            known.retain(|_, (_, last)| now.saturating_duration_since(*last) < FORGIVEN);
        }
        if known.len() >= MAX_ADDRESSES && !known.contains_key(&address) {
            return TRIES_OF_OTHERS;
        }
        let (count, last) = known.entry(address).or_insert((0, now));
        *count = if now.saturating_duration_since(*last) < FORGIVEN { count.saturating_add(1) } else { 1 };
        *last = now;
        *count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountName {
        name.parse().unwrap()
    }

    #[test]
    fn sign_in_links_work_once_and_end_with_the_token_that_made_them() {
        let (mut codes, now) = (Attempts::default(), Now::get());
        let used = codes.make_code(account("olga"), now).unwrap();
        assert_eq!(codes.take_code(&used, now), Some(account("olga")));
        assert_eq!(codes.take_code(&used, now), None);
        let rotated = AccountRecord { name: account("Olga"), ..AccountRecord::admin("new", now.wall) };
        for change in [AccessChange::PutAccount(rotated), AccessChange::RemoveAccount(account("olga"))] {
            let (own, others) =
                (codes.make_code(account("olga"), now).unwrap(), codes.make_code(account("anna"), now).unwrap());
            codes.follow(&change);
            assert_eq!(codes.take_code(&own, now), None, "{change:?}");
            assert_eq!(codes.take_code(&others, now), Some(account("anna")), "{change:?}");
        }
    }
}
