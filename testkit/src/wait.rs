//! Waiting with a deadline.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// How long a test waits for what should take a moment: long, since other tests may keep the
/// machine busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How long an amount of work may make no progress: a busy machine is slow, but never stands still.
pub const STANDSTILL: Duration = Duration::from_secs(60);

/// The interval between two questions.
const PERIOD: Duration = Duration::from_millis(25);

/// Asks until the answer is `Ok`, and returns it.
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

/// Asks until the answer is `Ok`, and returns it. An error is how much is left to do: this waits as
/// long as that number falls within each `standstill`.
///
/// # Panics
/// Nothing was done for so long; the message has what was waited for and how much is left.
pub async fn gradually<T>(what: &str, standstill: Duration, mut ask: impl AsyncFnMut() -> Result<T, u64>) -> T {
    let mut least = u64::MAX;
    let mut progressed = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(left) if left < least => (least, progressed) = (left, Instant::now()),
            Err(left) => {
                let stood = progressed.elapsed();
                assert!(stood < standstill, "{stood:?} without progress until {what}; {left} left, {least} at best");
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_takes_as_long_as_it_has_to_while_some_of_it_is_done() {
        let standstill = PERIOD * 4;
        let started = Instant::now();
        let mut left = 12;
        let done = gradually("all is done", standstill, async || {
            left -= 1;
            if left == 0 { Ok("done") } else { Err(left) }
        });
        assert_eq!(done.await, "done");
        assert!(started.elapsed() > standstill);
    }

    #[tokio::test]
    #[should_panic(expected = "without progress until all is done; 7 left, 5 at best")]
    async fn work_that_stands_still_or_grows_fails() {
        let mut lefts = [9, 5, 6].into_iter();
        gradually("all is done", PERIOD * 4, async || Err::<(), _>(lefts.next().unwrap_or(7))).await;
    }
}
