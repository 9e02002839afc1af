//! What time alone ends: waiting that lasts too long, silence, and the quiet of a machine that was
//! switched off.

use std::time::{Duration, Instant};

use pistat_protocol::{
    id::PiId,
    task::{Ends, Report, RunState},
};

use super::{Active, Runs, Step};
use crate::fleet::Now;

/// How long a machine must be gone until a power-off has succeeded.
const POWERED_OFF: Duration = Duration::from_secs(30);

impl Runs {
    /// Time passes: what waited too long expires, what was silent too long is lost, what powered
    /// off has succeeded.
    pub fn tick(&mut self, now: Now, offline_since: impl Fn(&PiId) -> Option<Instant>) -> Vec<Step> {
        self.requests.forget_old(now.monotonic);
        let mut ends = Vec::new();
        for (id, active) in &mut self.active {
            let offline =
                offline_since(&active.record.run.pi).map(|since| now.monotonic.saturating_duration_since(since));
            active.count_waiting(offline.is_some(), now.monotonic);
            if let Some((state, reason)) = active.verdict_of_time(offline, self.lost_after, now.monotonic) {
                ends.push((*id, state, reason));
            }
        }
        let due: Vec<_> =
            self.active.iter_mut().filter_map(|(id, active)| Some((*id, active.take_due(now.monotonic)?))).collect();
        let mut steps = Vec::new();
        for (id, (pi, report)) in due {
            steps.extend(self.report(&pi, id, report, now));
        }
        ends.sort_unstable_by_key(|(id, ..)| *id);
        steps.extend(ends.into_iter().flat_map(|(id, state, reason)| self.end(id, state, reason, now)));
        steps
    }
}

impl Active {
    /// An order that is on its way waits, too: its machine may have gone before it arrived.
    fn count_waiting(&mut self, offline: bool, now: Instant) {
        self.waited = self.waited_until(now);
        let may_wait = matches!(self.record.run.state, RunState::Queued | RunState::Dispatched);
        self.waiting_since = (offline && may_wait).then_some(now);
    }

    /// A report that was held until the run's order could not be started any more.
    fn take_due(&mut self, now: Instant) -> Option<(PiId, Report)> {
        let is_due = self.held.as_ref().is_some_and(|report| self.may_end_by(report, now));
        self.held.take_if(|_| is_due).map(|report| (self.record.run.pi.clone(), report))
    }

    fn waited_until(&self, now: Instant) -> Duration {
        self.waited + self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Why it is not started any more, if it has waited too long for its machine.
    pub(super) fn expiry(&self, now: Instant) -> Option<String> {
        let allowed = Duration::from_millis(self.record.expires_milliseconds);
        (self.waited_until(now) > allowed)
            .then(|| format!("the machine was offline for longer than {}", words(allowed)))
    }

    fn verdict_of_time(
        &self,
        offline: Option<Duration>,
        lost_after: Duration,
        now: Instant,
    ) -> Option<(RunState, String)> {
        let record = &self.record;
        match record.run.state {
            RunState::Queued if self.accepted && offline.is_some() => {
                self.expiry(now).map(|reason| (RunState::Expired, reason))
            }
            RunState::Dispatched | RunState::Running => {
                let offline = offline?;
                if record.ends == Ends::PowerOff && record.run.state == RunState::Running && offline > POWERED_OFF {
                    return Some((RunState::Succeeded, "the machine went offline and stayed so".into()));
                }
                if let Some(limit) = self.missed_return(offline, now) {
                    return Some((RunState::Failed, format!("the machine did not come back within {}", words(limit))));
                }
                (offline > lost_after)
                    .then(|| (RunState::Lost, format!("the machine was silent for {}", words(lost_after))))
            }
            _ => None,
        }
    }

    /// The time limit of a restart from which the machine, which is gone now, did not come back.
    /// While it is there its agent watches the limit.
    fn missed_return(&self, offline: Duration, now: Instant) -> Option<Duration> {
        let is_restarting = self.record.ends == Ends::Restart && self.record.run.state == RunState::Running;
        let limit = Duration::from_millis(self.record.timeout_milliseconds);
        // After a start of the controller it is not known since when; since it is gone, at least.
        let running = self.started.map_or(offline, |started| now.saturating_duration_since(started));
        (is_restarting && !limit.is_zero() && running > limit).then_some(limit)
    }
}

/// A duration as people say it.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
