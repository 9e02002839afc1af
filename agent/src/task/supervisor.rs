//! A running process and everything below it, until nothing of it is left: time limit, cancellation, what is left behind.
//!
//! One direction only: running → asked to end (SIGTERM) → made to end (SIGKILL, repeated, since a process may fork meanwhile) → gone.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use pistat_protocol::task::RunState;
use rustix::process::Signal;
use tokio::time::Instant;

use super::{
    delivery::{Control, Delivery},
    kin::Kin,
    process::{Event, Process, READ_BYTES, written},
};

/// How often to look whether the asked processes are gone.
const LOOK: Duration = Duration::from_millis(200);

/// After the last process has gone, how long a pipe may stay open in somebody else's hands.
const DRAIN: Duration = Duration::from_secs(1);

/// A process that does not die of SIGKILL for so long hangs in the kernel: the run ends without it, and says so.
const UNKILLABLE: Duration = Duration::from_secs(10);

/// The time limits of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most running time.
    pub timeout: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// How the first process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its exit code; 128 + n when signal n ended it; absent when it could not be ended.
    pub code: Option<i32>,
    /// Whether a signal ended it.
    pub by_signal: bool,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal();
        Self { code: status.code().or_else(|| signal.map(|signal| 128 + signal)), by_signal: signal.is_some() }
    }
}

/// How a run's processes came to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// On their own.
    ByItself(Exit),
    /// By the time limit.
    TimedOut(Exit, Duration),
    /// By a person.
    Cancelled(Exit),
    /// By the agent's own end.
    Stopped(Exit),
}

impl Ended {
    /// The final state, exit code and sentence.
    pub(crate) fn verdict(self) -> (RunState, Option<i32>, Option<String>) {
        match self {
            Self::ByItself(Exit { code: Some(0), .. }) => (RunState::Succeeded, Some(0), None),
            Self::ByItself(exit) if exit.by_signal => {
                let sentence =
                    exit.code.map(|code| format!("ended by signal {}{}", code - 128, signal_name(code - 128)));
                (RunState::Failed, exit.code, sentence)
            }
            Self::ByItself(exit) => (RunState::Failed, exit.code, None),
            Self::TimedOut(exit, limit) => {
                let sentence = format!("ended by its time limit of {} s", limit.as_secs_f64());
                (RunState::TimedOut, exit.code, Some(sentence + unkilled(exit)))
            }
            Self::Cancelled(exit) => (RunState::Cancelled, exit.code, Some("cancelled".to_owned() + unkilled(exit))),
            Self::Stopped(exit) => {
                let sentence = "the agent was stopped while the task ran, which was ended".to_owned();
                (RunState::Lost, exit.code, Some(sentence + unkilled(exit)))
            }
        }
    }
}

fn unkilled(exit: Exit) -> &'static str {
    if exit.code.is_none() { "; a process of it hangs in the kernel and could not be ended" } else { "" }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        6 => " (SIGABRT)",
        9 => " (SIGKILL), as when memory runs out",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    LeftBehind,
    TimedOut,
    Cancelled,
    Stopped,
}

#[derive(Debug)]
struct Ending {
    cause: Cause,
    kill_at: Instant,
    give_up_at: Instant,
    look_at: Instant,
}

/// The supervisor of one process.
pub(crate) struct Supervisor {
    process: Process,
    limits: Limits,
    deadline: Instant,
    ending: Option<Ending>,
    exit: Option<Exit>,
    /// When reading stops, once every process is gone.
    drained_at: Option<Instant>,
    abandoned: bool,
    buffer: Box<[u8]>,
}

impl Supervisor {
    /// Supervises a process that has just been started.
    pub(crate) fn new(process: Process, limits: Limits) -> Self {
        let deadline = Instant::now() + limits.timeout;
        let buffer = vec![0; 2 * READ_BYTES].into_boxed_slice();
        Self { process, limits, deadline, ending: None, exit: None, drained_at: None, abandoned: false, buffer }
    }

    /// The first process's id.
    pub(crate) fn leader(&self) -> Option<i32> {
        self.process.leader()
    }

    /// The next thing that the process does.
    pub(crate) async fn event(&mut self, read: bool) -> Event {
        self.process.event(&mut self.buffer, read || self.drained_at.is_some()).await
    }

    /// Takes what the process did.
    pub(crate) fn handle(&mut self, event: Event, delivery: &mut Delivery, kin: &Kin) {
        let now = Instant::now();
        match event {
            Event::Output(stream, length) => delivery.push(stream, written(&self.buffer, stream, length), now),
            Event::Closed(stream) => delivery.output.close(stream),
            Event::Exited(status) => self.exited(status.into(), kin, now),
        }
    }

    fn exited(&mut self, exit: Exit, kin: &Kin, now: Instant) {
        self.exit = Some(exit);
        if self.ending.is_some() {
            return;
        }
        if kin.living().is_empty() {
            self.drained_at = Some(now + DRAIN);
        } else {
            self.ask_to_end(Cause::LeftBehind, kin, self.limits.grace, now);
        }
    }

    /// The embedder has gone away without a word: nothing may be left behind.
    pub(crate) fn abandon(&mut self, kin: &Kin) {
        self.abandoned = true;
        kin.signal(Signal::KILL);
    }

    /// Goes on according to time and control; the end of the run when it is over.
    pub(crate) fn advance(
        &mut self,
        control: &Control,
        delivery: &mut Delivery,
        kin: &Kin,
        stop_grace: Duration,
        now: Instant,
    ) -> Option<Ended> {
        if self.abandoned {
            return Some(self.ended(Cause::Stopped));
        }
        self.look_for_a_cause(control, kin, stop_grace, now);
        self.push_on(kin, now);
        let drained = self.drained_at.is_some_and(|at| at <= now);
        if drained {
            self.process.stop_reading(&mut self.buffer, |stream, bytes| delivery.push(stream, bytes, now));
        }
        let hopeless = self.ending.as_ref().is_some_and(|ending| ending.give_up_at <= now);
        let over = self.drained_at.is_some() && self.process.is_over();
        (over || hopeless).then(|| self.ended(self.ending.as_ref().map_or(Cause::LeftBehind, |ending| ending.cause)))
    }

    fn look_for_a_cause(&mut self, control: &Control, kin: &Kin, stop_grace: Duration, now: Instant) {
        if self.ending.as_ref().is_some_and(|ending| ending.cause != Cause::LeftBehind) || self.exit.is_some() {
            return;
        }
        if control.stop {
            self.ask_to_end(Cause::Stopped, kin, self.limits.grace.min(stop_grace), now);
        } else if control.cancel.is_some() {
            self.ask_to_end(Cause::Cancelled, kin, self.limits.grace, now);
        } else if now >= self.deadline {
            self.ask_to_end(Cause::TimedOut, kin, self.limits.grace, now);
        }
    }

    fn ask_to_end(&mut self, cause: Cause, kin: &Kin, grace: Duration, now: Instant) {
        let asked = kin.signal(Signal::TERM);
        tracing::info!(?cause, processes = asked, "ending the processes of a run");
        let kill_at = now + grace;
        self.ending = Some(Ending { cause, kill_at, give_up_at: kill_at + UNKILLABLE, look_at: now + LOOK });
    }

    /// Looks whether they are gone, and insists.
    fn push_on(&mut self, kin: &Kin, now: Instant) {
        let Some(ending) = &mut self.ending else { return };
        if self.drained_at.is_some() || now < ending.look_at.min(ending.kill_at) {
            return;
        }
        ending.look_at = now + LOOK;
        let living = if now >= ending.kill_at {
            ending.kill_at = now + LOOK;
            kin.signal(Signal::KILL)
        } else {
            kin.living().len()
        };
        if living == 0 && self.process.has_exited() {
            self.drained_at = Some(now + DRAIN);
        }
    }

    /// When to call [`Supervisor::advance`] again.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        let deadline = Some(self.deadline).filter(|_| self.exit.is_none() && self.ending.is_none());
        let looking = self.ending.as_ref().filter(|_| self.drained_at.is_none());
        let look = looking.map(|ending| ending.look_at.min(ending.kill_at));
        [deadline, look, self.drained_at].into_iter().flatten().min()
    }

    fn ended(&self, cause: Cause) -> Ended {
        let exit = self.exit.unwrap_or_default();
        match cause {
            Cause::LeftBehind => Ended::ByItself(exit),
            Cause::TimedOut => Ended::TimedOut(exit, self.limits.timeout),
            Cause::Cancelled => Ended::Cancelled(exit),
            Cause::Stopped => Ended::Stopped(exit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_state_and_sentence() {
        let exit = |code| Exit { code: Some(code), by_signal: false };
        let signal = |n| Exit { code: Some(128 + n), by_signal: true };
        let minute = Duration::from_secs(60);
        let cases = [
            (Ended::ByItself(exit(0)), RunState::Succeeded, Some(0), None),
            (Ended::ByItself(exit(3)), RunState::Failed, Some(3), None),
            (Ended::ByItself(signal(11)), RunState::Failed, Some(139), Some("signal 11 (SIGSEGV)")),
            (Ended::TimedOut(signal(15), minute), RunState::TimedOut, Some(143), Some("time limit of 60 s")),
            (Ended::Cancelled(signal(9)), RunState::Cancelled, Some(137), Some("cancelled")),
            (Ended::Cancelled(Exit::default()), RunState::Cancelled, None, Some("hangs in the kernel")),
            (Ended::Stopped(exit(1)), RunState::Lost, Some(1), Some("agent was stopped")),
        ];
        for (ended, state, code, part) in cases {
            let (found_state, found_code, reason) = ended.verdict();
            assert_eq!((found_state, found_code), (state, code), "{ended:?}");
            let fits = part.map_or(reason.is_none(), |part| reason.as_deref().is_some_and(|text| text.contains(part)));
            assert!(fits, "{ended:?}: {reason:?}");
        }
    }
}
