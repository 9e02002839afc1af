//! One run on a simulated machine: what has been reported and printed, and what the controller has
//! on its disk.

use std::{collections::VecDeque, time::SystemTime};

use pistat_protocol::{
    id::{PiId, TaskId},
    task::{Ack, Ends, OutputChunk, Report, RunState},
    time::Timestamp,
};
use pistat_testkit::payload;
use tokio::time::Instant;

/// A run that the machine keeps in mind.
#[derive(Debug)]
pub struct Run {
    state: RunState,
    ends: Ends,
    boot_id: String,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    exit_code: Option<i32>,
    reason: Option<String>,
    /// When its process ends.
    due: Option<Instant>,
    next_seq: u64,
    bytes: u64,
    unacknowledged: VecDeque<OutputChunk>,
    last_words: String,
    /// Whether a restart took output along that nobody knows.
    is_torn: bool,
    is_final_acknowledged: bool,
}

impl Run {
    /// A process has been started, and prints its first line.
    pub fn started(pi: &PiId, task: &TaskId, ends: Ends, boot_id: &str, due: Instant) -> Self {
        let mut run = Self::new(RunState::Running, ends, boot_id);
        run.due = Some(due);
        run.started_at = Some(Timestamp::from(SystemTime::now()));
        run.print(format!("{pi} does {task}\n"));
        run
    }

    /// Nothing was started, and nothing will be.
    pub fn never(boot_id: &str, state: RunState, reason: &str) -> Self {
        let mut run = Self::new(state, Ends::Exit, boot_id);
        run.reason = Some(reason.into());
        run
    }

    fn new(state: RunState, ends: Ends, boot_id: &str) -> Self {
        Self {
            state,
            ends,
            boot_id: boot_id.into(),
            started_at: None,
            finished_at: None,
            exit_code: None,
            reason: None,
            due: None,
            next_seq: 0,
            bytes: 0,
            unacknowledged: VecDeque::new(),
            last_words: String::new(),
            is_torn: false,
            is_final_acknowledged: false,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> RunState {
        self.state
    }

    /// What its success looks like.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// When its process ends.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Prints.
    pub fn print(&mut self, data: String) {
        self.bytes += data.len() as u64;
        let seq = self.next_seq;
        self.next_seq += 1;
        self.unacknowledged.push_back(payload::chunk(seq, &data));
        self.last_words = data;
    }

    /// It is over.
    pub fn end(&mut self, state: RunState, exit_code: Option<i32>, reason: Option<&str>) {
        self.state = state;
        self.exit_code = exit_code;
        self.reason = reason.map(Into::into);
        self.finished_at = Some(Timestamp::from(SystemTime::now()));
        self.due = None;
    }

    /// The machine was restarted: whatever was in memory only is gone.
    pub fn rebooted(&mut self) {
        if !self.state.is_final() {
            match self.ends {
                Ends::Restart | Ends::PowerOff => {
                    self.end(RunState::Succeeded, None, Some("the machine went down and came back"));
                }
                Ends::Exit => self.end(RunState::Lost, None, Some("the machine was restarted while the task ran")),
            }
        }
        self.unacknowledged.clear();
        self.is_torn = true;
    }

    /// The controller has this on its disk; whether it has everything, so that the run can be
    /// forgotten.
    pub fn acknowledge(&mut self, ack: Ack) -> bool {
        if let Some(seq) = ack.seq {
            while self.unacknowledged.front().is_some_and(|chunk| chunk.seq <= seq) {
                self.unacknowledged.pop_front();
            }
        }
        self.is_final_acknowledged |= self.state.is_final() && ack.state.is_some_and(RunState::is_final);
        self.is_final_acknowledged && self.unacknowledged.is_empty()
    }

    /// What is not acknowledged yet.
    pub fn chunks(&self) -> impl Iterator<Item = &OutputChunk> {
        self.unacknowledged.iter()
    }

    /// The newest piece of output.
    pub fn newest_chunk(&self) -> Option<&OutputChunk> {
        self.unacknowledged.back()
    }

    /// The retained repetition of the end, for late subscribers.
    pub fn last_chunk(&self) -> OutputChunk {
        let chunk = payload::chunk(self.next_seq, &self.last_words);
        OutputChunk { stream: None, is_final: true, dropped_bytes: Some(0), ..chunk }
    }

    /// What the machine reports of it.
    pub fn report(&self) -> Report {
        let is_complete = self.state.is_final() && !self.is_torn;
        Report {
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit_code: self.exit_code,
            reason: self.reason.clone(),
            output_chunks: is_complete.then_some(self.next_seq),
            output_bytes: is_complete.then_some(self.bytes),
            ..payload::report(self.state, &self.boot_id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_forgotten_only_when_its_end_and_all_of_its_output_are_acknowledged() {
        let due = Instant::now();
        let mut run = Run::started(&"pi-1".parse().unwrap(), &"uptime".parse().unwrap(), Ends::Exit, "boot", due);
        run.print("more\n".into());
        assert!(!run.acknowledge(Ack { seq: Some(0), state: Some(RunState::Running) }));
        run.end(RunState::Succeeded, Some(0), None);
        assert_eq!(run.report().output_chunks, Some(2));
        assert!(!run.acknowledge(Ack { seq: Some(0), state: Some(RunState::Succeeded) }));
        assert!(run.acknowledge(Ack { seq: Some(1), state: Some(RunState::Succeeded) }));
    }

    #[test]
    fn a_restart_loses_a_running_task_and_completes_one_that_restarts() {
        for (ends, state) in [(Ends::Exit, RunState::Lost), (Ends::Restart, RunState::Succeeded)] {
            let due = Instant::now();
            let mut run = Run::started(&"pi-1".parse().unwrap(), &"reboot".parse().unwrap(), ends, "boot", due);
            run.rebooted();
            assert_eq!((run.state(), run.report().output_chunks), (state, None));
        }
    }
}
