//! How long to wait before the next attempt. Waits double, are capped, and have jitter, so that a
//! fleet does not come back in one instant. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);

/// A connection that ends sooner does not count as one that worked.
pub const LASTS: Duration = Duration::from_secs(10);

/// A sequence of waits.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    most: Duration,
    last: Duration,
}

impl Backoff {
    /// Waits of at most `most`.
    pub fn new(most: Duration) -> Self {
        Self::starting_at(FIRST.min(most), most)
    }

    /// Waits that begin with at most `first` and grow to at most `most`.
    pub fn starting_at(first: Duration, most: Duration) -> Self {
        Self { first, next: first, most, last: Duration::ZERO }
    }

    /// The next wait: between half of the present step and all of it, by a random byte.
    pub fn next(&mut self, random: u8) -> Duration {
        self.next_up_to(self.most, random)
    }

    /// [`Self::next`], of at most `most` this time.
    pub fn next_up_to(&mut self, most: Duration, random: u8) -> Duration {
        let step = self.next.min(most);
        self.next = (step * 2).min(most);
        self.last = step / 2 + step / 2 * u32::from(random) / 255;
        self.last
    }

    /// Something worked: starts over.
    pub fn reset(&mut self) {
        *self = Self::starting_at(self.first, self.most);
    }

    /// A connection has ended that lasted so long. Starts over, and returns `true`, if it lasted.
    ///
    /// Two clients with one name take the connection over from each other. The other one may wait
    /// as long as this one did, so only a connection that outlasts that wait was not its doing.
    pub fn connection_ended(&mut self, lasted: Duration) -> bool {
        let did_last = lasted >= LASTS.max(2 * self.last);
        if did_last {
            self.reset();
        }
        did_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_stay_within_half_of_their_step() {
        let most = Duration::from_secs(10);
        let (mut low, mut high) = (Backoff::new(most), Backoff::new(most));
        let steps = [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000];
        for step in steps.map(Duration::from_millis) {
            assert_eq!(low.next(0), step / 2);
            assert_eq!(high.next(255), step);
        }
        low.reset();
        assert_eq!(low.next(255), FIRST);
    }

    #[test]
    fn waits_grow_until_a_connection_has_outlasted_them() {
        let (seconds, most) = (Duration::from_secs, Duration::from_secs(120));
        let mut backoff = Backoff::starting_at(seconds(1), seconds(10));
        for _ in 0..20 {
            assert!(!backoff.connection_ended(seconds(1)));
            backoff.next_up_to(most, 255);
        }
        assert!(!backoff.connection_ended(most), "the other client may wait as long");
        assert_eq!(backoff.next_up_to(most, 255), most);
        assert_eq!(backoff.next(255), seconds(10));
        assert!(backoff.connection_ended(2 * most));
        assert_eq!((backoff.next(255), backoff.next(255)), (seconds(1), seconds(2)));
    }
}
