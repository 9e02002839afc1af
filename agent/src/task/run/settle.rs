//! How a run ends that its process cannot end: a restart that is awaited, and what an earlier process of the agent left behind.

use std::time::Duration;

use pistat_protocol::{
    id::RunId,
    task::{Ends, RunState},
};
use tokio::time::Instant;

use super::{Next, Run, boot_milliseconds};
use crate::task::{kin::Kin, record::Record};

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
            // What was not acknowledged of its output is gone with the earlier process: its end is not known any more.
            report.output_chunks = None;
            self.delivery.set_report(self.record.report.clone());
            return Next::Deliver;
        }
        if self.record.runner.is_some() {
            return self.find_again().await;
        }
        let same_boot = report.boot_id == self.context.boot_id;
        self.delivery.set_report(report.clone());
        match (self.record.ends, same_boot) {
            (Ends::Restart | Ends::PowerOff, false) => {
                let sentence = "the machine went down and came back".to_owned();
                self.end(RunState::Succeeded, None, Some(sentence)).await
            }
            (Ends::Restart | Ends::PowerOff, true) => self.await_restart().await,
            (Ends::Exit, false) => {
                let sentence = "the machine was restarted while the task ran".to_owned();
                self.end(RunState::Lost, None, Some(sentence)).await
            }
            (Ends::Exit, true) => {
                let left = end_leftovers(self.record.run).await;
                let sentence = match left {
                    0 => "the agent was interrupted while the task ran".to_owned(),
                    _ => {
                        format!("the agent was interrupted while the task ran; {left} of its processes have been ended")
                    }
                };
                self.end(RunState::Lost, None, Some(sentence)).await
            }
        }
    }
}

/// Ends the processes of a run whose agent was interrupted; says how many there were.
async fn end_leftovers(run: RunId) -> usize {
    const GRACE: Duration = Duration::from_secs(2);
    const LOOK: Duration = Duration::from_millis(100);
    let kin = Kin::of(run, None);
    let found = kin.signal(rustix::process::Signal::TERM);
    let started = Instant::now();
    while found > 0 && !kin.living().is_empty() && started.elapsed() < 2 * GRACE {
        if started.elapsed() >= GRACE {
            kin.signal(rustix::process::Signal::KILL);
        }
        tokio::time::sleep(LOOK).await;
    }
    found
}
