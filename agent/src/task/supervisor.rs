//! A running process and everything below it, until nothing of it is left: time limit,
//! cancellation, what is left behind.
//!
//! One direction only: running → asked to end (SIGTERM) → made to end (SIGKILL, repeated, since a
//! process may fork meanwhile) → gone.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use pistat_protocol::task::RunState;
use rustix::process::Signal;
use tokio::time::Instant;

use super::{
    delivery::{Control, Delivery},
    kin::{Kin, Names},
    process::{Event, Process, READ_BYTES, written},
};

/// How often to look whether the asked processes are gone.
const LOOK: Duration = Duration::from_millis(200);

/// After the last process has gone, how long a pipe may stay open in somebody else's hands.
const DRAIN: Duration = Duration::from_secs(1);

/// A process that does not die of SIGKILL for so long hangs in the kernel: the run ends without it,
/// and says so.
pub(crate) const UNKILLABLE: Duration = Duration::from_secs(10);

/// How long processes that a task left behind, and that were asked to end when it ended, live on
/// after a cancel. The task itself is over, so its grace period protects nothing any more.
pub(crate) const LEFT_BEHIND_GRACE: Duration = Duration::from_secs(2);

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

/// Why a run's processes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The first process ended on its own; what it left behind was ended.
    ByItself,
    /// The time limit.
    TimedOut,
    /// A cancel.
    Cancelled,
    /// The agent was stopped.
    Stopped,
}

/// How a run's processes came to their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Why.
    pub cause: Cause,
    /// How the first process ended.
    pub exit: Exit,
    /// The time limit of the run.
    pub limit: Duration,
    /// The other processes that were ended with it.
    pub others: Names,
    /// The processes that SIGKILL did not end.
    pub stuck: Names,
}

impl Ended {
    /// The final state, exit code and reason.
    pub(crate) fn verdict(&self) -> (RunState, Option<i32>, Option<String>) {
        let code = self.exit.code;
        let (state, why) = match self.cause {
            Cause::ByItself if code == Some(0) => (RunState::Succeeded, None),
            Cause::ByItself => (RunState::Failed, code.filter(|_| self.exit.by_signal).map(ended_by_signal)),
            Cause::TimedOut => {
                (RunState::TimedOut, Some(format!("ended by its time limit of {} s", self.limit.as_secs_f64())))
            }
            Cause::Cancelled => (RunState::Cancelled, Some("cancelled".to_owned())),
            Cause::Stopped => {
                (RunState::Lost, Some("the agent was stopped while the task ran, which was ended".to_owned()))
            }
        };
        let what = if self.cause == Cause::ByItself { "its background processes were ended" } else { "also ended" };
        let others = (!self.others.is_empty()).then(|| format!("{what}: {}", self.others));
        (state, code, join([why, others, not_ended(&self.stuck)]))
    }
}

/// Which processes SIGKILL did not end, if there are any.
pub(crate) fn not_ended(stuck: &Names) -> Option<String> {
    (!stuck.is_empty()).then(|| format!("still there, hung in the kernel: {stuck}"))
}

/// The parts of a reason that there are, in one text.
pub(crate) fn join(parts: [Option<String>; 3]) -> Option<String> {
    parts.into_iter().flatten().reduce(|before, next| before + "; " + &next)
}

fn ended_by_signal(code: i32) -> String {
    format!("ended by signal {}{}", code - 128, signal_name(code - 128))
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

#[derive(Debug)]
struct Ending {
    cause: Cause,
    others: Names,
    kill_at: Instant,
    give_up_at: Instant,
    look_at: Instant,
}

impl Ending {
    /// SIGKILL follows by this time at the latest.
    fn hurry(&mut self, kill_by: Instant) {
        self.kill_at = self.kill_at.min(kill_by);
        self.give_up_at = self.give_up_at.min(kill_by + UNKILLABLE);
    }
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
            self.ask_to_end(Cause::ByItself, kin, self.limits.grace, now);
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
            return Some(self.ended(Some(Cause::Stopped), Names::default()));
        }
        self.look_for_a_cause(control, kin, stop_grace, now);
        self.push_on(kin, now);
        let drained = self.drained_at.is_some_and(|at| at <= now);
        if drained {
            self.process.stop_reading(&mut self.buffer, |stream, bytes| delivery.push(stream, bytes, now));
        }
        if self.drained_at.is_some() && self.process.is_over() {
            return Some(self.ended(None, Names::default()));
        }
        let hopeless = self.ending.as_ref().is_some_and(|ending| ending.give_up_at <= now);
        hopeless.then(|| self.ended(None, kin.names()))
    }

    /// A cancel counts until the last process is gone, whatever is ending the run already.
    fn look_for_a_cause(&mut self, control: &Control, kin: &Kin, stop_grace: Duration, now: Instant) {
        if self.drained_at.is_some() {
            return;
        }
        let is_cancelled = control.cancel.is_some();
        if let Some(ending) = &mut self.ending {
            if is_cancelled && ending.cause == Cause::ByItself {
                ending.hurry(now + LEFT_BEHIND_GRACE);
            }
            if is_cancelled {
                ending.cause = Cause::Cancelled;
            }
            if control.stop {
                ending.hurry(now + stop_grace);
            }
        } else if control.stop {
            self.ask_to_end(Cause::Stopped, kin, self.limits.grace.min(stop_grace), now);
        } else if is_cancelled {
            self.ask_to_end(Cause::Cancelled, kin, self.limits.grace, now);
        } else if now >= self.deadline {
            self.ask_to_end(Cause::TimedOut, kin, self.limits.grace, now);
        }
    }

    fn ask_to_end(&mut self, cause: Cause, kin: &Kin, grace: Duration, now: Instant) {
        let others = kin.ask_to_end();
        tracing::info!(?cause, %others, "ending the processes of a run");
        let kill_at = now + grace;
        self.ending = Some(Ending { cause, others, kill_at, give_up_at: kill_at + UNKILLABLE, look_at: now + LOOK });
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
            kin.signal(Signal::KILL).len()
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

    fn ended(&mut self, cause: Option<Cause>, stuck: Names) -> Ended {
        let (found, others) = match self.ending.take() {
            Some(ending) => (ending.cause, ending.others),
            None => (Cause::ByItself, Names::default()),
        };
        let exit = self.exit.unwrap_or_default();
        Ended { cause: cause.unwrap_or(found), exit, limit: self.limits.timeout, others, stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_state_and_sentence() {
        let exit = |code| Exit { code: Some(code), by_signal: false };
        let signal = |n| Exit { code: Some(128 + n), by_signal: true };
        let ended = |cause, exit| Ended {
            cause,
            exit,
            limit: Duration::from_secs(60),
            others: Names::default(),
            stuck: Names::default(),
        };
        let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Names>();
        let with = |cause, exit, others: &[&str]| Ended { others: names(others), ..ended(cause, exit) };
        let hangs = Ended { stuck: names(&["dd"]), ..ended(Cause::Cancelled, Exit::default()) };
        let cases = [
            (ended(Cause::ByItself, exit(0)), RunState::Succeeded, Some(0), None),
            (ended(Cause::ByItself, exit(3)), RunState::Failed, Some(3), None),
            (ended(Cause::ByItself, signal(11)), RunState::Failed, Some(139), Some("signal 11 (SIGSEGV)")),
            (
                with(Cause::ByItself, exit(0), &["a", "b"]),
                RunState::Succeeded,
                Some(0),
                Some("background processes were ended: a, b"),
            ),
            (
                with(Cause::ByItself, signal(11), &["a"]),
                RunState::Failed,
                Some(139),
                Some("(SIGSEGV); its background processes"),
            ),
            (ended(Cause::TimedOut, signal(15)), RunState::TimedOut, Some(143), Some("time limit of 60 s")),
            (with(Cause::TimedOut, signal(15), &["a"]), RunState::TimedOut, Some(143), Some("60 s; also ended: a")),
            (ended(Cause::Cancelled, signal(9)), RunState::Cancelled, Some(137), Some("cancelled")),
            (with(Cause::Cancelled, exit(0), &["a"]), RunState::Cancelled, Some(0), Some("cancelled; also ended: a")),
            (hangs, RunState::Cancelled, None, Some("hung in the kernel: dd")),
            (ended(Cause::Stopped, exit(1)), RunState::Lost, Some(1), Some("agent was stopped")),
        ];
        for (ended, state, code, part) in cases {
            let (found_state, found_code, reason) = ended.verdict();
            assert_eq!((found_state, found_code), (state, code), "{ended:?}");
            let fits = part.map_or(reason.is_none(), |part| reason.as_deref().is_some_and(|text| text.contains(part)));
            assert!(fits, "{ended:?}: {reason:?}");
        }
    }
}
