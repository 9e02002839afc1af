//! Reproducible randomness: every test that rolls dice prints its seed, and `PISTAT_TEST_SEED` sets
//! it.

use std::time::Duration;

/// Names the seed of a failing run.
const VARIABLE: &str = "PISTAT_TEST_SEED";

/// `SplitMix64` (Steele, Lea and Flood 2014): small, and good enough to choose instants.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice with this seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice with the seed of the environment, else with a new one, which it prints.
    ///
    /// # Panics
    /// The system has no random numbers.
    pub fn new() -> Self {
        let given = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).expect("a system that runs tests has random numbers");
            u64::from_le_bytes(bytes)
        });
        eprintln!("{VARIABLE}={seed} repeats these dice");
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end.max(1)
    }

    /// Whether something happens that happens `share` of all times.
    pub fn chance(&mut self, share: f64) -> bool {
        self.fraction() < share
    }

    /// A number from 0 to 1.
    pub fn fraction(&mut self) -> f64 {
        // A float holds 53 bits.
        let bits = (self.bits() >> 11) as f64;
        bits / 9_007_199_254_740_992.0
    }

    /// The time until the next of events that happen once in `mean` (an exponential distribution).
    pub fn wait(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.fraction()).ln().max(-20.0))
    }

    /// A duration below `end`.
    pub fn duration(&mut self, end: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(end.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
