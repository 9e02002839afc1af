//! What systemd hears from this service (`sd_notify(3)`): ready, alive, stopping. Without systemd
//! nothing is sent.

use std::{
    fmt,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;

/// Systemd's socket for this service.
pub struct Notify {
    send: Box<dyn Fn(NotifyState<'_>) + Send + Sync>,
    watchdog: Option<Duration>,
    sent_at: Option<Instant>,
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").field("watchdog", &self.watchdog).finish_non_exhaustive()
    }
}

impl Notify {
    /// From the environment that systemd gave.
    pub fn from_environment() -> Self {
        // A systemd that does not listen is not a reason to stop.
        let send = |state: NotifyState<'_>| drop(sd_notify::notify(&[state]));
        let watchdog = sd_notify::watchdog_enabled().filter(|period| !period.is_zero());
        Self { send: Box::new(send), watchdog, sent_at: None }
    }

    /// One whose `WATCHDOG=1` only counts, in `alive`: for tests.
    pub fn counting(watchdog: Duration, alive: impl Fn() + Send + Sync + 'static) -> Self {
        let send = move |state: NotifyState<'_>| {
            if matches!(state, NotifyState::Watchdog) {
                alive();
            }
        };
        Self { send: Box::new(send), watchdog: Some(watchdog), sent_at: None }
    }

    /// The service works.
    pub fn ready(&self) {
        (self.send)(NotifyState::Ready);
    }

    /// The service is ending.
    pub fn stopping(&self) {
        (self.send)(NotifyState::Stopping);
    }

    /// How often a loop has to report that it is alive; `None` without a watchdog.
    pub fn alive_period(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    /// Reports that this thread is alive at half of what systemd allows, for ever: only while there
    /// is no loop yet that can report it itself.
    pub async fn watchdog(&self) {
        let Some(period) = self.alive_period() else { return std::future::pending().await };
        loop {
            self.tell_alive();
            tokio::time::sleep(period).await;
        }
    }

    /// Reports that its caller is alive.
    pub fn tell_alive(&self) {
        (self.send)(NotifyState::Watchdog);
    }

    /// Reports that its caller is alive, at most once in half of what systemd allows: for a loop
    /// that calls this at each turn.
    pub fn alive(&mut self, now: Instant) {
        let Some(period) = self.alive_period() else { return };
        if self.sent_at.is_none_or(|at| now.duration_since(at) >= period) {
            self.sent_at = Some(now);
            self.tell_alive();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[test]
    fn a_loop_that_goes_round_reports_at_half_of_what_systemd_allows() {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let mut notify = Notify::counting(Duration::from_secs(10), move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let start = Instant::now();
        for (seconds, sent) in [(0, true), (1, false), (4, false), (5, true), (6, false), (30, true)] {
            notify.alive(start + Duration::from_secs(seconds));
            assert_eq!(count.swap(0, Ordering::Relaxed) == 1, sent, "after {seconds} s");
        }
    }
}
