//! Who has a place at the HTTP port: connections counted in all, and strangers by address too.
//!
//! A stranger is a connection on which nobody has proved yet who it is: no request with a credential that is valid, no MQTT client that the broker has
//! let in. Strangers never keep anybody out: where there are too many, the oldest of them makes room, and a client that means well has been answered
//! long before. Whoever was let in keeps the place, and is not counted by address, since a whole fleet may come through one proxy.

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
    /// The number of the next connection: whoever has a smaller one was there before.
    next: u64,
    strangers: BTreeMap<u64, Stranger>,
    addresses: HashMap<IpAddr, BTreeSet<u64>>,
}

struct Stranger {
    address: IpAddr,
    leave: CancellationToken,
}

/// A connection, for those who serve its requests.
#[derive(Clone)]
pub(super) struct Visitor {
    admission: Admission,
    number: u64,
    leave: CancellationToken,
    allowance: Allowance,
}

/// How many more bytes are read of a connection until it has proved who it is. What a library would buffer of them, such as a
/// frame of a WebSocket, cannot be more.
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

    /// So many bytes were read. A client that is let in meanwhile has no bound.
    pub(super) fn take(&self, bytes: usize) {
        let less = |left: usize| (left != usize::MAX).then(|| left.saturating_sub(bytes));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// The place of a connection, given back when dropped.
pub(super) struct Place(Visitor);

impl Admission {
    pub(super) fn new(limits: HttpLimits) -> Self {
        Self { limits, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address. There is none only if every place is taken by somebody who is known.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        let mut state = self.lock();
        match state.who_makes_room(address, &self.limits) {
            Some(oldest) => state.turn_out(oldest),
            None if state.connections >= self.limits.connections => return None,
            None => {}
        }
        let (number, leave) = (state.next, CancellationToken::new());
        state.next += 1;
        state.connections += 1;
        state.strangers.insert(number, Stranger { address, leave: leave.clone() });
        state.addresses.entry(address).or_default().insert(number);
        Some(Place(Visitor { admission: self.clone(), number, leave, allowance: Allowance::default() }))
    }
}

impl State {
    /// The stranger who has to go when another comes from this address.
    fn who_makes_room(&self, address: IpAddr, limits: &HttpLimits) -> Option<u64> {
        let here = self.addresses.get(&address).filter(|here| here.len() >= limits.strangers_per_address);
        if let Some(here) = here {
            return here.first().copied();
        }
        let is_full = self.strangers.len() >= limits.strangers || self.connections >= limits.connections;
        self.strangers.keys().next().copied().filter(|_| is_full)
    }

    fn turn_out(&mut self, number: u64) {
        if let Some(stranger) = self.no_stranger(number) {
            // Counted out at once: the connection itself ends a moment later.
            self.connections -= 1;
            stranger.leave.cancel();
        }
    }

    fn no_stranger(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&number)?;
        if let Some(here) = self.addresses.get_mut(&stranger.address) {
            here.remove(&number);
            if here.is_empty() {
                self.addresses.remove(&stranger.address);
            }
        }
        Some(stranger)
    }
}

impl Visitor {
    /// From now on no more bytes than these are read, unless it is let in.
    pub(super) fn allow(&self, bytes: usize) {
        self.allowance.set(bytes);
    }

    /// What may still be read.
    pub(super) fn allowance(&self) -> Allowance {
        self.allowance.clone()
    }

    /// Somebody has proved who it is.
    pub(super) fn let_in(&self) {
        self.allowance.set(usize::MAX);
        self.admission.lock().no_stranger(self.number);
    }

    /// Resolves when the place goes to somebody else; for one who was let in, never.
    pub(super) async fn turned_out(&self) {
        self.leave.cancelled().await;
    }
}

impl Place {
    pub(super) fn visitor(&self) -> Visitor {
        self.0.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.admission.lock();
        if !self.0.leave.is_cancelled() {
            state.connections -= 1;
            state.no_stranger(self.0.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn admission(connections: usize, strangers: usize, strangers_per_address: usize) -> Admission {
        Admission::new(HttpLimits { connections, strangers, strangers_per_address, ..HttpLimits::default() })
    }

    /// Who of these is still there.
    fn stay(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| !place.0.leave.is_cancelled()).collect()
    }

    #[test]
    fn the_oldest_stranger_makes_room_first_at_home_and_then_anywhere() {
        // The addresses as they come, and who of them is there in the end.
        let table: [(&[u8], &[bool]); 5] = [
            (&[1, 1, 2], &[true, true, true]),
            (&[1, 2, 1, 1], &[false, true, true, true]),
            (&[1, 1, 2, 2, 3], &[false, true, true, true, true]),
            (&[1, 1, 1, 1, 1], &[false, false, false, true, true]),
            (&[1, 2, 3, 4, 5, 6], &[false, false, true, true, true, true]),
        ];
        for (addresses, expected) in table {
            let admission = admission(100, 4, 2);
            let places: Vec<_> = addresses.iter().map(|&last| admission.admit(address(last)).unwrap()).collect();
            assert_eq!(stay(&places), expected, "{addresses:?}");
            assert_eq!(admission.lock().connections, expected.iter().filter(|&&stays| stays).count());
        }
    }

    #[test]
    fn whoever_is_known_keeps_the_place_and_counts_for_no_address() {
        let admission = admission(6, 4, 1);
        let fleet: Vec<_> = (0..5)
            .map(|_| {
                let place = admission.admit(address(1)).unwrap();
                place.visitor().let_in();
                place
            })
            .collect();
        let stranger = admission.admit(address(1)).unwrap();
        // The last place goes from stranger to stranger, until it is somebody's.
        let last = admission.admit(address(2)).unwrap();
        assert_eq!((stay(&fleet), stay(&[stranger])), (vec![true; 5], vec![false]));
        last.visitor().let_in();
        assert!(admission.admit(address(3)).is_none());
        drop(fleet);
        assert!(admission.admit(address(3)).is_some());
    }

    #[test]
    fn whoever_was_turned_out_cannot_be_let_in_any_more_and_nothing_piles_up() {
        let admission = admission(10, 10, 1);
        for last in 0..=255 {
            let (old, new) = (admission.admit(address(last)).unwrap(), admission.admit(address(last)).unwrap());
            old.visitor().let_in();
            new.visitor().let_in();
            new.visitor().let_in();
            assert_eq!(admission.lock().connections, 1);
            drop((old, new));
        }
        let state = admission.lock();
        assert_eq!((state.connections, state.strangers.len(), state.addresses.len()), (0, 0, 0));
    }
}
