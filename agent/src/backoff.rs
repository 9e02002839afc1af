//! How long to wait before the next attempt: doubling, capped, and jittered so that a fleet does not come back in one instant. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);

/// A sequence of waits.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Waits of at most `most`.
    pub fn new(most: Duration) -> Self {
        Self::starting_at(FIRST.min(most), most)
    }

    /// Waits that begin with at most `first` and grow to at most `most`.
    pub fn starting_at(first: Duration, most: Duration) -> Self {
        Self { first, next: first, most }
    }

    /// The next wait: between half of the present step and all of it, by a random byte.
    pub fn next(&mut self, random: u8) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        step / 2 + step / 2 * u32::from(random) / 255
    }

    /// Something worked: starts over.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// One random byte for [`Backoff::next`]; without randomness the middle.
pub fn random_byte() -> u8 {
    let mut byte = [127];
    let _ = getrandom::fill(&mut byte);
    byte[0]
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
}
