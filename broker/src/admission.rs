//! Which connections may send CONNECT: counted in total, and unauthenticated ones by address; and
//! the growing delay before bad credentials are refused.
//!
//! Good credentials never wait here, whatever others from the same address have tried. A network of
//! IPv6 counts as one address, since its hosts can have any number of addresses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{Limits, REFUSAL_DELAY_MAX_MILLISECONDS};

/// An address's bad attempts are forgotten after this time without another.
const FORGIVEN_AFTER: Duration = Duration::from_secs(300);

/// Addresses remembered for their bad attempts. An attacker with more addresses than this forgets
/// the oldest of them.
const REMEMBERED: usize = 10_000;

/// Refusals that are being delayed for one address at once; more are refused at once and closed, so
/// that the delay does not become a way to hold connections open.
const DELAYED_AT_ONCE: u32 = 8;

#[derive(Debug, Default)]
struct Address {
    connections: usize,
    /// Those of them that are not authenticated.
    handshakes: usize,
    bad_attempts: u32,
    delayed: u32,
    last_attempt: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    addresses: HashMap<IpAddr, Address>,
}

/// How much of an IPv6 address is its network's.
const NETWORK_BITS: u32 = 64;

/// Where a connection comes from, as one source.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let host_bits = Ipv6Addr::BITS - NETWORK_BITS;
            Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// The counts; one for the whole broker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission {
    state: Arc<Mutex<State>>,
}

/// The permit of one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Admission,
    address: IpAddr,
    is_authenticated: bool,
}

impl Admission {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a connection from this address; `None` where there are too many.
    pub(crate) fn admit(&self, address: IpAddr, limits: &Limits) -> Option<Permit> {
        let address = source(address);
        let mut state = self.lock();
        let handshakes = state.addresses.get(&address).map_or(0, |known| known.handshakes);
        if state.connections >= limits.connections || handshakes >= limits.bounds.handshakes_per_address {
            return None;
        }
        state.connections += 1;
        let known = state.addresses.entry(address).or_default();
        known.connections += 1;
        known.handshakes += 1;
        Some(Permit { admission: self.clone(), address, is_authenticated: false })
    }
}

impl Permit {
    /// The credentials were valid.
    pub(crate) fn mark_authenticated(&mut self) {
        self.is_authenticated = true;
        if let Some(address) = self.admission.lock().addresses.get_mut(&self.address) {
            address.handshakes -= 1;
        }
    }

    /// Bad credentials came on this connection: how long their refusal is delayed.
    pub(crate) fn bad_attempt(&self, limits: &Limits) -> Duration {
        let now = Instant::now();
        let mut state = self.admission.lock();
        if state.addresses.len() > REMEMBERED {
            state.forget_oldest();
        }
        let Some(address) = state.addresses.get_mut(&self.address) else { return Duration::ZERO };
        if address.last_attempt.is_some_and(|last| now.duration_since(last) > FORGIVEN_AFTER) {
            address.bad_attempts = 0;
        }
        address.last_attempt = Some(now);
        address.bad_attempts = address.bad_attempts.saturating_add(1);
        let doubled = limits.bounds.refusal_delay_milliseconds.saturating_mul(1 << (address.bad_attempts - 1).min(20));
        if doubled == 0 || address.delayed >= DELAYED_AT_ONCE {
            return Duration::ZERO;
        }
        address.delayed += 1;
        Duration::from_millis(doubled.min(REFUSAL_DELAY_MAX_MILLISECONDS))
    }

    /// The delay is over.
    pub(crate) fn delay_over(&self) {
        if let Some(address) = self.admission.lock().addresses.get_mut(&self.address) {
            address.delayed = address.delayed.saturating_sub(1);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.connections -= 1;
        let Some(address) = state.addresses.get_mut(&self.address) else { return };
        address.connections -= 1;
        if !self.is_authenticated {
            address.handshakes -= 1;
        }
        if address.connections == 0 && address.bad_attempts == 0 {
            state.addresses.remove(&self.address);
            if state.addresses.capacity() > 4 * state.addresses.len() + 64 {
                state.addresses.shrink_to_fit();
            }
        }
    }
}

impl State {
    /// Forgets bad attempts long past, and if that is not enough, all of addresses that are not
    /// connected.
    fn forget_oldest(&mut self) {
        let is_recent = |address: &Address| address.last_attempt.is_some_and(|last| last.elapsed() < FORGIVEN_AFTER);
        self.addresses.retain(|_, address| address.connections > 0 || is_recent(address));
        if self.addresses.len() > REMEMBERED {
            self.addresses.retain(|_, address| address.connections > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Bounds;

    fn limits(change: impl FnOnce(&mut Bounds)) -> Limits {
        let mut limits = Limits::default();
        change(&mut limits.bounds);
        limits
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn permits_are_counted_by_address_and_given_back() {
        let limits = Limits { connections: 3, ..limits(|bounds| bounds.handshakes_per_address = 2) };
        let admission = Admission::default();
        let first = admission.admit(address(1), &limits).unwrap();
        let _second = admission.admit(address(1), &limits).unwrap();
        assert!(admission.admit(address(1), &limits).is_none());
        let _third = admission.admit(address(2), &limits).unwrap();
        assert!(admission.admit(address(3), &limits).is_none());
        drop(first);
        assert!(admission.admit(address(1), &limits).is_some());
    }

    #[test]
    fn unauthenticated_connections_are_bounded_by_address() {
        let limits = limits(|bounds| bounds.handshakes_per_address = 1);
        let admission = Admission::default();
        let mut first = admission.admit(address(1), &limits).unwrap();
        assert!(admission.admit(address(1), &limits).is_none());
        assert!(admission.admit(address(2), &limits).is_some());
        first.mark_authenticated();
        let second = admission.admit(address(1), &limits).unwrap();
        drop(first);
        assert!(admission.admit(address(1), &limits).is_none());
        drop(second);
        assert!(admission.lock().addresses.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_an_ipv4_address_is_one_however_it_is_written() {
        let limits = limits(|bounds| bounds.handshakes_per_address = 1);
        for (first, second, is_same) in [
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        ] {
            let admission = Admission::default();
            let _first = admission.admit(first.parse().unwrap(), &limits).unwrap();
            assert_eq!(admission.admit(second.parse().unwrap(), &limits).is_none(), is_same, "{first} {second}");
        }
    }

    #[test]
    fn the_delay_doubles_up_to_its_bound_and_is_not_a_way_to_hold_connections() {
        let limits = limits(|bounds| bounds.refusal_delay_milliseconds = 2_500);
        let admission = Admission::default();
        let permit = admission.admit(address(1), &limits).unwrap();
        let delays: Vec<u128> = (0..5).map(|_| permit.bad_attempt(&limits).as_millis()).collect();
        assert_eq!(delays, [2_500, 5_000, 10_000, 10_000, 10_000]);
        for _ in 5..DELAYED_AT_ONCE {
            permit.bad_attempt(&limits);
        }
        assert_eq!(permit.bad_attempt(&limits), Duration::ZERO);
        permit.delay_over();
        assert_eq!(permit.bad_attempt(&limits).as_millis(), 10_000);
    }

    #[test]
    fn addresses_do_not_pile_up() {
        let limits = Limits::default();
        let admission = Admission::default();
        for n in 0..=255u8 {
            drop(admission.admit(address(n), &limits));
        }
        assert!(admission.lock().addresses.is_empty());
    }
}
