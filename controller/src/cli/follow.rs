//! Watching runs until they end, and ending as they did.
//!
//! Whoever watches never touches the run: Ctrl-C, a lost connection or a controller that restarts leave it going.

use std::{
    collections::BTreeMap,
    io::Read,
    thread,
    time::{Duration, Instant},
};

use pistat_protocol::{
    api::{AcceptedRuns, NewRun},
    dashboard::{Group, Machine, Run},
    id::RunId,
    task::RunState,
};

use super::{client::Client, console::Console, failure::Failure, runs::newest_of_task};
use crate::terminal::{self, Style, clean};

/// How often the state of runs is asked for while they go on.
const POLL: Duration = Duration::from_millis(250);
/// How long a controller may be away before watching is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The exit code of a process that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// One run: its output on standard output, its frame on standard error, its exit code as ours.
pub(super) fn run(client: &Client, console: &mut Console<'_>, id: RunId, machines: &[Machine]) -> Result<(), Failure> {
    leave_going_on_interrupt(id.to_string());
    let run: Run = client.get(&format!("/api/runs/{id}"))?;
    if console.err_is_terminal && !console.json {
        let label = machines.iter().find(|machine| machine.id == run.pi).map_or(run.pi.as_str(), |m| &m.label);
        console.remark(&terminal::run_header(&run, label, console.err_style()));
    }
    let run = if console.json { wait_for(client, id)? } else { output(client, console, id)? };
    if console.json {
        console.show(&run, |_, _| String::new())?;
    } else if console.err_is_terminal || run.state != RunState::Succeeded {
        console.remark(&terminal::run_footer(&run, console.err_style()));
    }
    match exit_code(&run) {
        0 => Ok(()),
        code => Err(Failure::Exit(code)),
    }
}

/// The task's own exit code; 1 where it has none that tells of its failure.
fn exit_code(run: &Run) -> u8 {
    match (run.state, run.exit_code) {
        (RunState::Succeeded, _) => 0,
        (_, Some(code)) => u8::try_from(code).ok().filter(|&code| code != 0).unwrap_or(1),
        (_, None) => 1,
    }
}

/// All output of a run, as it comes, until the run has ended.
pub(super) fn output(client: &Client, console: &mut Console<'_>, id: RunId) -> Result<Run, Failure> {
    let mut shown = Shown::default();
    let mut since = Instant::now();
    loop {
        let before = shown.bytes;
        let attempt = client
            .stream(&format!("/api/runs/{id}/output?follow=true"))
            .and_then(|mut stream| shown.copy(&mut stream, console))
            .and_then(|()| client.get::<Run>(&format!("/api/runs/{id}")));
        match attempt {
            Ok(run) if run.state.is_final() => {
                shown.finish(console)?;
                return Ok(run);
            }
            Ok(_) => since = Instant::now(),
            Err(Failure::Unreachable(sentence)) if since.elapsed() > PATIENCE => {
                return Err(Failure::Unreachable(format!("{sentence}. The run goes on: pistat output {id} --follow")));
            }
            Err(Failure::Unreachable(_)) => {}
            Err(other) => return Err(other),
        }
        if shown.bytes > before {
            since = Instant::now();
        }
        thread::sleep(POLL);
    }
}

/// The output that is stored now.
pub(super) fn copy_output(client: &Client, console: &mut Console<'_>, id: RunId) -> Result<(), Failure> {
    let mut stream = client.stream(&format!("/api/runs/{id}/output"))?;
    let mut shown = Shown::default();
    shown.copy(&mut stream, console)?;
    shown.finish(console)
}

/// How much of an output has been shown: after a broken connection it begins again from its start.
#[derive(Default)]
struct Shown {
    bytes: u64,
    /// The beginning of a character whose end has not come yet.
    pending: Vec<u8>,
}

impl Shown {
    fn copy(&mut self, stream: &mut dyn Read, console: &mut Console<'_>) -> Result<(), Failure> {
        let mut skip = self.bytes;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Unreachable(format!("The connection broke: {error}"))),
            };
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(read);
            skip -= known as u64;
            self.bytes += (read - known) as u64;
            self.show(&buffer[known..read], console)?;
        }
    }

    fn show(&mut self, bytes: &[u8], console: &mut Console<'_>) -> Result<(), Failure> {
        self.pending.extend_from_slice(bytes);
        let complete = complete_characters(&self.pending);
        let rest = self.pending.split_off(complete);
        let text = std::mem::replace(&mut self.pending, rest);
        console.print_output(&String::from_utf8_lossy(&text))
    }

    fn finish(&mut self, console: &mut Console<'_>) -> Result<(), Failure> {
        let rest = std::mem::take(&mut self.pending);
        console.print_output(&String::from_utf8_lossy(&rest))
    }
}

/// How many bytes end with a whole character, or with one that can never be whole.
fn complete_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let start = bytes[tail..].iter().rposition(|&byte| byte >= 0xc0).map(|at| tail + at);
    match start {
        Some(start) if matches!(std::str::from_utf8(&bytes[start..]), Err(e) if e.error_len().is_none()) => start,
        _ => bytes.len(),
    }
}

fn wait_for(client: &Client, id: RunId) -> Result<Run, Failure> {
    let mut since = Instant::now();
    loop {
        match client.get::<Run>(&format!("/api/runs/{id}")) {
            Ok(run) if run.state.is_final() => return Ok(run),
            Ok(_) => since = Instant::now(),
            Err(Failure::Unreachable(_)) if since.elapsed() <= PATIENCE => {}
            Err(failure) => return Err(failure),
        }
        thread::sleep(POLL);
    }
}

/// Many runs: their progress, a line for each that failed, 0 if all succeeded.
pub(super) fn group(
    client: &Client,
    console: &mut Console<'_>,
    accepted: &AcceptedRuns,
    body: &NewRun,
    machines: &[Machine],
) -> Result<(), Failure> {
    leave_going_on_interrupt(accepted.group.map_or_else(String::new, |group| group.to_string()));
    let mut watch = GroupWatch::new(accepted, body);
    let mut since = Instant::now();
    while !watch.is_done() {
        match watch.poll(client) {
            Ok(()) => since = Instant::now(),
            Err(Failure::Unreachable(_)) if since.elapsed() <= PATIENCE => {}
            Err(failure) => return Err(failure),
        }
        watch.show(console, machines);
        if !watch.is_done() {
            thread::sleep(POLL);
        }
    }
    watch.end(console)
}

struct GroupWatch<'b> {
    body: &'b NewRun,
    group: Group,
    runs: BTreeMap<RunId, Option<Run>>,
    told: Vec<RunId>,
    line: String,
}

impl<'b> GroupWatch<'b> {
    fn new(accepted: &AcceptedRuns, body: &'b NewRun) -> Self {
        let runs: BTreeMap<_, _> = accepted.runs.iter().map(|run| (*run, None)).collect();
        let group = Group {
            id: accepted.group.unwrap_or_else(|| RunId::from_parts(0, [0; 10])),
            task: body.task.clone(),
            target: body.target.clone(),
            requested_by: String::new(),
            created_at: super::machines::now(),
            total: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            states: BTreeMap::new(),
            stopped: None,
        };
        Self { body, group, runs, told: Vec::new(), line: String::new() }
    }

    fn is_done(&self) -> bool {
        self.runs.values().all(|run| run.as_ref().is_some_and(|run| run.state.is_final()))
    }

    /// One list of the newest runs; those that others have pushed out of it are asked for one by one.
    fn poll(&mut self, client: &Client) -> Result<(), Failure> {
        for run in newest_of_task(client, self.body, (self.runs.len() + 50).min(1000))? {
            if let Some(known) = self.runs.get_mut(&run.id) {
                *known = Some(run);
            }
        }
        let open = |run: &Option<Run>| run.as_ref().is_none_or(|run| !run.state.is_final());
        let missing = self.runs.iter_mut().filter(|(_, run)| open(run)).take(20);
        for (id, run) in missing {
            *run = Some(client.get(&format!("/api/runs/{id}"))?);
        }
        self.group.states = BTreeMap::new();
        for run in self.runs.values().flatten() {
            *self.group.states.entry(run.state).or_default() += 1;
        }
        Ok(())
    }

    fn show(&mut self, console: &mut Console<'_>, machines: &[Machine]) {
        if console.json {
            return;
        }
        let style = console.err_style();
        self.tell_failures(console, machines, style);
        let line = terminal::group_progress(&self.group, style);
        if console.err_is_terminal {
            console.remark(&format!("\r\x1b[K{line}"));
        } else if line != self.line && self.is_done() {
            console.remark(&format!("{line}\n"));
        }
        self.line = line;
    }

    fn tell_failures(&mut self, console: &mut Console<'_>, machines: &[Machine], style: Style) {
        let failed = |run: &&Run| run.state.is_final() && run.state != RunState::Succeeded;
        let news: Vec<_> =
            self.runs.values().flatten().filter(failed).filter(|run| !self.told.contains(&run.id)).collect();
        let mut told = Vec::new();
        for run in news {
            let label = machines.iter().find(|machine| machine.id == run.pi).map_or(run.pi.as_str(), |m| &m.label);
            let code = run.exit_code.map(|code| format!(" exit {code}")).unwrap_or_default();
            let reason = run.reason.as_deref().map(|reason| format!(" · {}", clean(reason))).unwrap_or_default();
            let clear = if console.err_is_terminal { "\r\x1b[K" } else { "" };
            let sentence = format!("{} ({}): {}{code}{reason}", clean(label), run.pi, run.state);
            console.remark(&format!("{clear}{}", terminal::refusal(&sentence, style)));
            told.push(run.id);
        }
        self.told.extend(told);
    }

    fn end(self, console: &mut Console<'_>) -> Result<(), Failure> {
        if console.json {
            let runs: Vec<_> = self.runs.values().flatten().collect();
            console.show(&runs, |_, _| String::new())?;
        } else if console.err_is_terminal {
            console.remark("\n");
        }
        let all_good = self.runs.values().flatten().all(|run| run.state == RunState::Succeeded);
        if all_good { Ok(()) } else { Err(Failure::Exit(1)) }
    }
}

/// On Ctrl-C says that the run goes on, and leaves.
fn leave_going_on_interrupt(id: String) {
    // The thread ends with the process; it holds nothing that would have to be put away.
    let waiting = thread::Builder::new().name("interrupt".into()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            eprintln!("\nThe run goes on. See it with: pistat show {id}   End it with: pistat task cancel {id}");
            std::process::exit(INTERRUPTED);
        }
    });
    // Without such a thread Ctrl-C still ends this process, without a word.
    drop(waiting);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_kept_until_they_are_whole() {
        for (bytes, expected) in [
            (&b"abc"[..], 3),
            ("aü".as_bytes(), 3),
            (&"aü".as_bytes()[..2], 1),
            (&"a🍓".as_bytes()[..2], 1),
            (&"a🍓".as_bytes()[..4], 1),
            (&b"a\xff"[..], 2),
            (&b"\x80\x80\x80\x80"[..], 4),
            (&b""[..], 0),
        ] {
            assert_eq!(complete_characters(bytes), expected, "{bytes:?}");
        }
    }
}
