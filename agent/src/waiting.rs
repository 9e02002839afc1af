//! Tells the log what the agent waits for, once that has taken long.
//!
//! A wait that ends soon is not worth a line; one that lasts must not be silent, whatever the log
//! level is.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// How long a wait is silent. The documentation promises a line within ten seconds.
const SILENCE: Duration = Duration::from_secs(7);

/// How often a wait that goes on is told again.
const AGAIN: Duration = Duration::from_secs(600);

/// Something that is waited for. Ends with the value.
#[derive(Debug)]
pub(crate) struct Waiting {
    what: Arc<Mutex<String>>,
    _teller: AbortOnDropHandle<()>,
}

impl Waiting {
    /// Begins to wait. The text completes "waiting for …": what is missing, and what to do about
    /// it. Needs a runtime.
    pub(crate) fn begin(what: impl Into<String>) -> Self {
        let what = Arc::new(Mutex::new(what.into()));
        let teller = tell(what.clone(), Instant::now());
        Self { what, _teller: AbortOnDropHandle::new(tokio::spawn(teller)) }
    }

    /// More is known about the same wait.
    pub(crate) fn update(&self, what: impl Into<String>) {
        *lock(&self.what) = what.into();
    }
}

fn lock(what: &Mutex<String>) -> MutexGuard<'_, String> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn tell(what: Arc<Mutex<String>>, since: Instant) {
    let mut at = since + SILENCE;
    loop {
        sleep_until(at).await;
        let text = lock(&what).clone();
        // The most severe level: it is written at every log level.
        tracing::error!("waiting for {text} ({} s so far)", since.elapsed().as_secs());
        at += AGAIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::Recorded;

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_is_told_within_ten_seconds_and_again_later_and_a_short_one_never() {
        let log = Recorded::start();
        let waiting = Waiting::begin("a connection");
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(waiting);
        let waiting = Waiting::begin("a key");
        waiting.update("the controller's key");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(log.take(), ["ERROR waiting for the controller's key (7 s so far)"]);
        tokio::time::sleep(AGAIN).await;
        assert_eq!(log.take(), ["ERROR waiting for the controller's key (607 s so far)"]);
        drop(waiting);
        tokio::time::sleep(2 * AGAIN).await;
        assert_eq!(log.take(), [] as [&str; 0]);
    }
}
