//! How a run ends that its process cannot end: a restart that is awaited, and what an earlier
//! process of the agent left behind.

use std::time::Duration;

use pistat_protocol::task::{Ends, RunState};
use rustix::process::Signal;
use tokio::time::Instant;

use super::{Next, Run, boot_milliseconds};
use crate::task::{
    kin::{Kin, Names},
    record::Record,
    supervisor::{LEFT_BEHIND_GRACE, UNKILLABLE, join, not_ended},
};

impl Run {
    /// Exit 0 is not the end of a restart: the machine has to go down before the time limit.
    pub(super) async fn await_restart(&mut self) -> Next {
        let limit = Duration::from_millis(self.record.timeout_milliseconds);
        let passed = Duration::from_millis(boot_milliseconds().saturating_sub(self.record.started_boot_milliseconds));
        let deadline = Instant::now() + limit.saturating_sub(passed);
        loop {
            let now = Instant::now();
            self.take_control(now);
            let control = self.control.borrow().clone();
            if control.stop {
                return Next::Leave;
            }
            if control.cancel.is_some() {
                let sentence = "cancelled while the machine was about to go down".to_owned();
                return self.end(RunState::Cancelled, None, Some(sentence)).await;
            }
            if now >= deadline {
                let sentence = format!("the machine did not go down within {} s", limit.as_secs());
                return self.end(RunState::Failed, None, Some(sentence)).await;
            }
            if !self.step(Some(deadline)).await {
                return Next::Leave;
            }
        }
    }

    pub(super) async fn settle(&mut self, record: Record) -> Next {
        self.record = record;
        let report = &mut self.record.report;
        if report.state.is_final() {
            // What was not acknowledged of its output is gone with the earlier process: its end is
            // not known any more.
            report.output_chunks = None;
            self.delivery.set_report(self.record.report.clone());
            return Next::Deliver;
        }
        if self.record.runner.is_some() {
            return self.find_again().await;
        }
        let same_boot = report.boot_id == self.context.boot_id;
        let age = boot_milliseconds().checked_sub(self.record.started_boot_milliseconds).filter(|_| same_boot);
        self.started = age.and_then(|age| Instant::now().checked_sub(Duration::from_millis(age)));
        self.delivery.set_report(report.clone());
        match (self.record.ends, same_boot) {
            (Ends::Restart | Ends::PowerOff, false) => {
                let sentence = "the machine went down and came back".to_owned();
                self.end(RunState::Succeeded, None, Some(sentence)).await
            }
            (Ends::Restart | Ends::PowerOff, true) => self.await_restart().await,
            (Ends::Exit, false) => {
                let reason = "the machine was restarted while the task ran".to_owned();
                self.interrupted(reason, [None, None]).await
            }
            (Ends::Exit, true) => {
                let (ended, stuck) = self.end_leftovers().await;
                let ended = (!ended.is_empty()).then(|| format!("its processes were ended: {ended}"));
                let reason = "the agent was interrupted while the task ran".to_owned();
                self.interrupted(reason, [ended, not_ended(&stuck)]).await
            }
        }
    }

    /// How a run ends whose agent was interrupted: nobody knows how its task ended, unless it was
    /// cancelled.
    async fn interrupted(&mut self, why: String, [ended, stuck]: [Option<String>; 2]) -> Next {
        if self.record.cancelled {
            return self.end(RunState::Cancelled, None, join([Some(format!("cancelled; {why}")), ended, stuck])).await;
        }
        self.end(RunState::Lost, None, join([Some(why), ended, stuck])).await
    }

    /// Ends the processes of a run whose agent was interrupted, by the rules of the task. A cancel
    /// counts until the last of them is gone. Returns which there were, and which could not be
    /// ended.
    async fn end_leftovers(&mut self) -> (Names, Names) {
        const LOOK: Duration = Duration::from_millis(100);
        let kin = Kin::of(self.record.run, None);
        let names = kin.ask_to_end();
        let grace = self.record.grace_milliseconds.map_or(LEFT_BEHIND_GRACE, Duration::from_millis);
        let mut kill_at = Instant::now() + grace;
        loop {
            let now = Instant::now();
            self.take_control(now);
            let (is_cancelled, stops) = (self.control.borrow().cancel.is_some(), self.control.borrow().stop);
            let living = if now >= kill_at { kin.signal(Signal::KILL) } else { kin.living() };
            if living.is_empty() || now >= kill_at + UNKILLABLE {
                return (names, Names::of(living));
            }
            self.record.cancelled |= is_cancelled;
            if self.record.cancelled || stops {
                kill_at = kill_at.min(now + LEFT_BEHIND_GRACE);
            }
            if !self.step(Some(now + LOOK)).await {
                kill_at = kill_at.min(now);
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
