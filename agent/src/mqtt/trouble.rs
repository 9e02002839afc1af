//! What the log says of a connection: each change of its state, and each trouble once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pistat_support::{
    backoff::{Backoff, LASTS},
    mqtt_url::MqttUrl,
    random,
};
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::CONNECT;

/// The same trouble is logged again only after this.
const SAME_TROUBLE: Duration = Duration::from_secs(600);

/// Whether the credentials were refused.
pub(crate) fn is_refusal(trouble: &ConnectionError) -> bool {
    use ConnectReturnCode::{BadUserNamePassword, NotAuthorized};
    matches!(trouble, ConnectionError::ConnectionRefused(BadUserNamePassword | NotAuthorized))
}

/// Whether the credentials may be right and something else was refused, such as the last will.
pub(crate) fn is_not_authorized(trouble: &ConnectionError) -> bool {
    matches!(trouble, ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized))
}

/// Whether a connection that was made ended by something else than silence: a broker closes it when
/// another client takes the session over, and MQTT 3.1.1 has no words for that.
fn is_close(trouble: &ConnectionError) -> bool {
    use ConnectionError::{FlushTimeout, MqttState, NetworkTimeout, RequestsDone};
    use StateError::{AwaitPingResp, CollisionTimeout};
    !matches!(trouble, NetworkTimeout | FlushTimeout | RequestsDone | MqttState(AwaitPingResp | CollisionTimeout))
}

/// A connection's trouble for people.
pub(crate) fn describe(trouble: &ConnectionError) -> String {
    match trouble {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::NetworkTimeout => format!("nothing answered within {} s", CONNECT.as_secs()),
        ConnectionError::FlushTimeout => "the connection hung while sending".into(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the connection hung: no answer to a ping".into(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "it closed the connection".into(),
        ConnectionError::RequestsDone => "the connection hung".into(),
        other => other.to_string(),
    }
}

/// How many different troubles are told apart: more than take turns.
const MOST_TROUBLES: usize = 8;

/// Logs each change of a connection's state, and each trouble once, and again when it has lasted.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    told: Vec<(String, Instant)>,
    changes: Changes,
}

impl Troubles {
    /// There is a connection.
    pub(crate) fn connected(&mut self, address: &MqttUrl) {
        let address = address.to_string();
        self.changes.tell(move |unlogged_changes| {
            tracing::info!(controller = address, unlogged_changes, "connected");
        });
    }

    /// A connection is gone that has lasted from `since` until now.
    pub(crate) fn lost(&mut self, address: &MqttUrl, trouble: &ConnectionError, since: Instant) {
        if since.elapsed() >= LASTS {
            self.told.clear();
        }
        let (address, why) = (address.to_string(), describe(trouble));
        self.changes.tell(move |unlogged_changes| {
            tracing::warn!(controller = address, unlogged_changes, "connection lost: {why}");
        });
    }

    /// Something went wrong; the next attempt is after `wait`.
    pub(crate) fn log(&mut self, sentence: &str, wait: Duration) {
        self.told.retain(|(_, at)| at.elapsed() < SAME_TROUBLE);
        if self.told.iter().any(|(told, _)| told == sentence) {
            tracing::debug!(next_attempt_in = ?wait, "{sentence}");
            return;
        }
        tracing::warn!(next_attempt_in = ?wait, "{sentence}");
        if self.told.len() == MOST_TROUBLES {
            self.told.remove(0);
        }
        self.told.push((sentence.to_owned(), Instant::now()));
    }
}

/// Changes of a state that are logged at once while they are few. While they are many, a state is
/// logged once it has held for [`HOLDS`]: so the log stays small, and what it says last is true.
#[derive(Debug)]
struct Changes {
    /// How many more are logged at once.
    budget: u32,
    refilled_at: Instant,
    unlogged: Arc<AtomicU64>,
    later: Option<AbortOnDropHandle<()>>,
}

/// Three connections that come and go.
const MOST_CHANGES: u32 = 6;

/// How often one more is logged at once.
const REFILL: Duration = Duration::from_secs(60);

/// How long a state lasts that is logged in any case.
const HOLDS: Duration = Duration::from_secs(30);

impl Default for Changes {
    fn default() -> Self {
        Self { budget: MOST_CHANGES, refilled_at: Instant::now(), unlogged: Arc::default(), later: None }
    }
}

impl Changes {
    /// Needs a runtime. The line is given how many changes before it were not logged, if any were.
    fn tell(&mut self, line: impl FnOnce(Option<u64>) + Send + 'static) {
        while self.budget < MOST_CHANGES && self.refilled_at.elapsed() >= REFILL {
            self.budget += 1;
            self.refilled_at += REFILL;
        }
        if self.later.take().is_some_and(|later| !later.is_finished()) {
            self.unlogged.fetch_add(1, Ordering::Relaxed);
        }
        if self.budget > 0 {
            if self.budget == MOST_CHANGES {
                self.refilled_at = Instant::now();
            }
            self.budget -= 1;
            line(counted(&self.unlogged));
            return;
        }
        let unlogged = self.unlogged.clone();
        self.later = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            sleep(HOLDS).await;
            line(counted(&unlogged));
        })));
    }
}

/// What was counted, if anything was; counts from zero again.
fn counted(count: &AtomicU64) -> Option<u64> {
    Some(count.swap(0, Ordering::Relaxed)).filter(|count| *count > 0)
}

/// The first pause after a connection that did not last, and the longest that they grow to.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(120);

/// So many connections in a row that were closed soon are not an accident.
const SUSPICIOUS: u32 = 3;

/// Connections that are closed soon after they were made: what happens when two machines use one
/// pi-id, since a broker ends the session of a client when another connects under its name. The
/// pauses grow, so that they do not take turns several times a second.
#[derive(Debug)]
pub(crate) struct ShortLived {
    backoff: Backoff,
    closed: u32,
}

impl Default for ShortLived {
    fn default() -> Self {
        Self { backoff: Backoff::starting_at(FIRST_PAUSE, MOST_PAUSE), closed: 0 }
    }
}

impl ShortLived {
    /// A connection has ended. Returns how long to wait before the next, and whether it is time to
    /// say what this looks like.
    pub(crate) fn ended(&mut self, trouble: &ConnectionError, lasted: Duration) -> (Duration, bool) {
        self.count(is_close(trouble), lasted, random::byte())
    }

    fn count(&mut self, is_closed: bool, lasted: Duration, random: u8) -> (Duration, bool) {
        if self.backoff.connection_ended(lasted) {
            self.closed = 0;
            return (Duration::ZERO, false);
        }
        self.closed += u32::from(is_closed);
        (self.backoff.next(random), is_closed && self.closed == SUSPICIOUS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::Recorded;

    fn address() -> MqttUrl {
        MqttUrl::controller("mqtt://broker").unwrap()
    }

    fn lost(troubles: &mut Troubles, since: Instant) {
        troubles.lost(&address(), &ConnectionError::RequestsDone, since);
    }

    const CONNECTED: &str = "INFO connected";
    const LOST: &str = "WARN connection lost: the connection hung";

    #[tokio::test(start_paused = true)]
    async fn each_change_of_the_state_is_logged_also_after_failures_that_were_known() {
        let log = Recorded::start();
        let mut troubles = Troubles::default();
        for _ in 0..3 {
            troubles.log("no connection", Duration::ZERO);
        }
        troubles.connected(&address());
        assert_eq!(log.take(), ["WARN no connection", CONNECTED]);
        let since = Instant::now();
        sleep(Duration::from_secs(60)).await;
        lost(&mut troubles, since);
        troubles.log("no connection", Duration::ZERO);
        troubles.connected(&address());
        assert_eq!(log.take(), [LOST, "WARN no connection", CONNECTED]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_flaps_is_few_lines_and_the_last_of_them_is_true() {
        let log = Recorded::start();
        let mut troubles = Troubles::default();
        for _ in 0..1000 {
            troubles.connected(&address());
            sleep(Duration::from_secs(1)).await;
            lost(&mut troubles, Instant::now());
            sleep(Duration::from_secs(1)).await;
        }
        let lines = log.take();
        assert!(lines.len() < 50, "{} lines in half an hour", lines.len());
        troubles.connected(&address());
        sleep(HOLDS + Duration::from_secs(1)).await;
        assert_eq!(log.take().last().map(String::as_str), Some(CONNECTED));
        lost(&mut troubles, Instant::now());
        sleep(HOLDS + Duration::from_secs(1)).await;
        assert_eq!(log.take().last().map(String::as_str), Some(LOST));
    }

    #[tokio::test(start_paused = true)]
    async fn troubles_that_take_turns_are_told_once_each_and_again_after_some_minutes() {
        let log = Recorded::start();
        let mut troubles = Troubles::default();
        for _ in 0..50 {
            troubles.log("no name", Duration::ZERO);
            troubles.log("no answer", Duration::ZERO);
            sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(log.take(), ["WARN no name", "WARN no answer"]);
        sleep(SAME_TROUBLE).await;
        troubles.log("no name", Duration::ZERO);
        assert_eq!(log.take(), ["WARN no name"]);
        for n in 0..100 {
            troubles.log(&format!("trouble {n}"), Duration::ZERO);
        }
        assert!(troubles.told.len() <= MOST_TROUBLES);
    }

    #[test]
    fn pauses_grow_while_connections_are_closed_soon_and_start_over_after_one_that_lasts() {
        let seconds = Duration::from_secs;
        let mut short = ShortLived::default();
        let pauses: Vec<_> = (0..10).map(|_| short.count(true, seconds(0), 255)).collect();
        let expected = [1, 2, 4, 8, 16, 32, 64, 120, 120, 120];
        assert_eq!(pauses.iter().map(|(pause, _)| pause.as_secs()).collect::<Vec<_>>(), expected);
        assert_eq!(pauses.iter().filter(|(_, tell)| *tell).count(), 1, "it is said once");
        // The other one pauses as long: what ends within that time counts as short.
        assert_eq!(short.count(true, seconds(120), 255).0, seconds(120));
        assert_eq!(short.count(true, seconds(240), 255), (Duration::ZERO, false));
        assert_eq!(short.count(true, seconds(0), 255).0, seconds(1));
        // What was not closed by the other side says nothing about copies.
        let mut hangs = ShortLived::default();
        assert!((0..10).all(|_| !hangs.count(false, seconds(0), 255).1));
    }
}
