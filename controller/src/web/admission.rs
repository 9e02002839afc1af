//! Which connections the HTTP port serves: counted in total, and unauthenticated ones by address
//! too.
//!
//! A connection is authenticated by its first request with a valid credential, or when the broker
//! has accepted the MQTT client on it. Unauthenticated ones never keep another out: where there are
//! too many, the oldest of them is evicted, and an honest client has been answered long before. An
//! authenticated one is never evicted, and is not counted by address, since a whole fleet may come
//! through one proxy.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use crate::config::HttpLimits;

/// The counts; one for the whole port.
#[derive(Clone)]
pub(super) struct Admission {
    limits: HttpLimits,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    connections: usize,
    /// The number of the next connection; older ones have smaller numbers.
    next: u64,
    unauthenticated: BTreeMap<u64, Unauthenticated>,
    addresses: HashMap<IpAddr, BTreeSet<u64>>,
}

struct Unauthenticated {
    address: IpAddr,
    evict: CancellationToken,
}

/// A connection, for those who serve its requests.
#[derive(Clone)]
pub(super) struct Connection {
    admission: Admission,
    number: u64,
    evict: CancellationToken,
    allowance: Allowance,
}

/// How many more bytes are read of a connection until it is authenticated. What a library would
/// buffer of them, such as a frame of a WebSocket, cannot be more.
#[derive(Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Default for Allowance {
    /// No bound: a request of HTTP has bounds of its own.
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Allowance {
    fn set(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Whether nothing more is read.
    pub(super) fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// So many bytes were read. A client that was authenticated meanwhile has no bound.
    pub(super) fn take(&self, bytes: usize) {
        let less = |left: usize| (left != usize::MAX).then(|| left.saturating_sub(bytes));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// The permit of a connection, given back when dropped.
pub(super) struct Permit(Connection);

impl Admission {
    pub(super) fn new(limits: HttpLimits) -> Self {
        Self { limits, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a connection from this address; `None` only if all connections are
    /// authenticated.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Permit> {
        let mut state = self.lock();
        match state.eviction_candidate(address, &self.limits) {
            Some(oldest) => state.evict(oldest),
            None if state.connections >= self.limits.connections => return None,
            None => {}
        }
        let (number, evict) = (state.next, CancellationToken::new());
        state.next += 1;
        state.connections += 1;
        state.unauthenticated.insert(number, Unauthenticated { address, evict: evict.clone() });
        state.addresses.entry(address).or_default().insert(number);
        Some(Permit(Connection { admission: self.clone(), number, evict, allowance: Allowance::default() }))
    }
}

impl State {
    /// The connection to evict when another comes from this address.
    fn eviction_candidate(&self, address: IpAddr, limits: &HttpLimits) -> Option<u64> {
        let here =
            self.addresses.get(&address).filter(|here| here.len() >= limits.unauthenticated_connections_per_address);
        if let Some(here) = here {
            return here.first().copied();
        }
        let is_full =
            self.unauthenticated.len() >= limits.unauthenticated_connections || self.connections >= limits.connections;
        self.unauthenticated.keys().next().copied().filter(|_| is_full)
    }

    fn evict(&mut self, number: u64) {
        if let Some(unauthenticated) = self.remove_unauthenticated(number) {
            // No longer counted, although the connection itself ends a moment later.
            self.connections -= 1;
            unauthenticated.evict.cancel();
        }
    }

    fn remove_unauthenticated(&mut self, number: u64) -> Option<Unauthenticated> {
        let unauthenticated = self.unauthenticated.remove(&number)?;
        if let Some(here) = self.addresses.get_mut(&unauthenticated.address) {
            here.remove(&number);
            if here.is_empty() {
                self.addresses.remove(&unauthenticated.address);
            }
        }
        Some(unauthenticated)
    }
}

impl Connection {
    /// From now on no more bytes than these are read, unless it is authenticated.
    pub(super) fn allow(&self, bytes: usize) {
        self.allowance.set(bytes);
    }

    /// What may still be read.
    pub(super) fn allowance(&self) -> Allowance {
        self.allowance.clone()
    }

    /// A credential was valid.
    pub(super) fn mark_authenticated(&self) {
        self.allowance.set(usize::MAX);
        self.admission.lock().remove_unauthenticated(self.number);
    }

    /// Resolves when the connection is evicted; never for an authenticated one.
    pub(super) async fn evicted(&self) {
        self.evict.cancelled().await;
    }
}

impl Permit {
    pub(super) fn connection(&self) -> Connection {
        self.0.clone()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.admission.lock();
        if !self.0.evict.is_cancelled() {
            state.connections -= 1;
            state.remove_unauthenticated(self.0.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn admission(connections: usize, unauthenticated: usize, per_address: usize) -> Admission {
        Admission::new(HttpLimits {
            connections,
            unauthenticated_connections: unauthenticated,
            unauthenticated_connections_per_address: per_address,
            ..HttpLimits::default()
        })
    }

    /// Which of these are still there.
    fn stay(permits: &[Permit]) -> Vec<bool> {
        permits.iter().map(|permit| !permit.0.evict.is_cancelled()).collect()
    }

    #[test]
    fn the_oldest_unauthenticated_one_is_evicted_first_of_its_address_and_then_of_all() {
        // The addresses in their order, and which of them are there in the end.
        let table: [(&[u8], &[bool]); 5] = [
            (&[1, 1, 2], &[true, true, true]),
            (&[1, 2, 1, 1], &[false, true, true, true]),
            (&[1, 1, 2, 2, 3], &[false, true, true, true, true]),
            (&[1, 1, 1, 1, 1], &[false, false, false, true, true]),
            (&[1, 2, 3, 4, 5, 6], &[false, false, true, true, true, true]),
        ];
        for (addresses, expected) in table {
            let admission = admission(100, 4, 2);
            let permits: Vec<_> = addresses.iter().map(|&last| admission.admit(address(last)).unwrap()).collect();
            assert_eq!(stay(&permits), expected, "{addresses:?}");
            assert_eq!(admission.lock().connections, expected.iter().filter(|&&stays| stays).count());
        }
    }

    #[test]
    fn an_authenticated_connection_is_kept_and_counts_for_no_address() {
        let admission = admission(6, 4, 1);
        let fleet: Vec<_> = (0..5)
            .map(|_| {
                let permit = admission.admit(address(1)).unwrap();
                permit.connection().mark_authenticated();
                permit
            })
            .collect();
        let unauthenticated = admission.admit(address(1)).unwrap();
        // The last permit passes on until its connection is authenticated.
        let last = admission.admit(address(2)).unwrap();
        assert_eq!((stay(&fleet), stay(&[unauthenticated])), (vec![true; 5], vec![false]));
        last.connection().mark_authenticated();
        assert!(admission.admit(address(3)).is_none());
        drop(fleet);
        assert!(admission.admit(address(3)).is_some());
    }

    #[test]
    fn an_evicted_connection_cannot_be_authenticated_any_more_and_nothing_piles_up() {
        let admission = admission(10, 10, 1);
        for last in 0..=255 {
            let (old, new) = (admission.admit(address(last)).unwrap(), admission.admit(address(last)).unwrap());
            old.connection().mark_authenticated();
            new.connection().mark_authenticated();
            new.connection().mark_authenticated();
            assert_eq!(admission.lock().connections, 1);
            drop((old, new));
        }
        let state = admission.lock();
        assert_eq!((state.connections, state.unauthenticated.len(), state.addresses.len()), (0, 0, 0));
    }
}
