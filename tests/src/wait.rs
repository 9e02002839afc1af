//! Waiting with a deadline.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// How long a test waits for what should take a moment: long, since the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often it asks.
const PERIOD: Duration = Duration::from_millis(25);

/// Asks until the answer is `Ok`, and gives it back.
///
/// # Panics
/// Time is up; the message has what was waited for and what was seen last.
pub async fn eventually<T, E: Display>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        let seen = match ask().await {
            Ok(answer) => return answer,
            Err(seen) => seen,
        };
        assert!(started.elapsed() < limit, "within {limit:?} it was not true that {what}; seen last: {seen}");
        tokio::time::sleep(PERIOD).await;
    }
}

/// Asks for so long, and fails as soon as the answer is not `Ok`: for what must never happen.
///
/// # Panics
/// It happened.
pub async fn steadily<E: Display>(what: &str, duration: Duration, mut ask: impl AsyncFnMut() -> Result<(), E>) {
    let started = Instant::now();
    while started.elapsed() < duration {
        if let Err(seen) = ask().await {
            panic!("it did not stay true that {what}; seen after {:?}: {seen}", started.elapsed());
        }
        tokio::time::sleep(PERIOD).await;
    }
}
