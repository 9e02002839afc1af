//! How long things took: a histogram as Prometheus counts it.

/// Upper bounds of the buckets in seconds: from a shell command to an upgrade of everything.
pub const BOUNDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0];

/// How often what took how long.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// How many took at most each bound.
    pub buckets: [u64; BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// How long all took together, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// One more.
    pub fn add(&mut self, seconds: f64) {
        for (bound, bucket) in BOUNDS.iter().zip(&mut self.buckets) {
            *bucket += u64::from(seconds <= *bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_holds_everything_up_to_its_bound() {
        let mut histogram = Histogram::default();
        for seconds in [0.1, 0.2, 7.0, 1e9] {
            histogram.add(seconds);
        }
        assert_eq!(
            (histogram.buckets[0], histogram.buckets[1], histogram.buckets[6], histogram.buckets[11]),
            (1, 2, 3, 3)
        );
        assert_eq!((histogram.count, histogram.sum), (4, 1e9 + 7.3));
    }
}
