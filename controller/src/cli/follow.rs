//! Watching runs until they end, and ending as they did.
//!
//! Whoever watches never touches the run: Ctrl-C, a lost connection or a controller that restarts
//! leave it going.

use std::{
    collections::BTreeMap,
    io::Read,
    thread,
    time::{Duration, Instant},
};

use pistat_protocol::{
    api::NewRun,
    dashboard::{Group, Machine, Run},
    id::RunId,
    task::RunState,
};

use super::{
    client::{Client, query},
    console::Console,
    failure::Failure,
};
use crate::terminal;

/// How often the state of runs is asked for while they go on.
const POLL: Duration = Duration::from_millis(250);
/// How long a controller may be away before watching is given up.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);
/// The exit code of a process that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// One run: its output on standard output, its frame on standard error, its exit code as ours.
pub(super) fn run(client: &Client, console: &mut Console<'_>, id: RunId, machines: &[Machine]) -> Result<(), Failure> {
    leave_going_on_interrupt(Some(id));
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
            Err(Failure::Unreachable(sentence)) if since.elapsed() > RECONNECT_LIMIT => {
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

/// The output and its run as one value, now or when the run has ended.
pub(super) fn output_as_json(client: &Client, console: &mut Console<'_>, id: RunId, wait: bool) -> Result<(), Failure> {
    let run = if wait { wait_for(client, id)? } else { client.get(&format!("/api/runs/{id}"))? };
    let mut bytes = Vec::new();
    let mut stream = client.stream(&format!("/api/runs/{id}/output"))?;
    stream.read_to_end(&mut bytes).map_err(|error| Failure::Unreachable(format!("The connection broke: {error}")))?;
    console.show(&serde_json::json!({"run": run, "output": String::from_utf8_lossy(&bytes)}), |_, _| String::new())
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
            Err(Failure::Unreachable(_)) if since.elapsed() <= RECONNECT_LIMIT => {}
            Err(failure) => return Err(failure),
        }
        thread::sleep(POLL);
    }
}

/// Many runs: their progress, a line for each that failed, 0 if all succeeded.
pub(super) fn group(
    client: &Client,
    console: &mut Console<'_>,
    (id, runs): (RunId, &[RunId]),
    body: &NewRun,
    machines: &[Machine],
) -> Result<(), Failure> {
    leave_going_on_interrupt(None);
    let mut watch = GroupWatch { id, runs, body, ended: BTreeMap::new() };
    let mut since = Instant::now();
    loop {
        match watch.poll(client, console, machines) {
            Ok(group) if ended(&group) >= group.total => return watch.end(client, console, &group),
            Ok(_) => since = Instant::now(),
            Err(Failure::Unreachable(_)) if since.elapsed() <= RECONNECT_LIMIT => {}
            Err(failure) => return Err(failure),
        }
        thread::sleep(POLL);
    }
}

fn ended(group: &Group) -> u32 {
    group.states.iter().filter(|(state, _)| state.is_final()).map(|(_, count)| count).sum()
}

struct GroupWatch<'b> {
    id: RunId,
    runs: &'b [RunId],
    body: &'b NewRun,
    /// The runs that did not succeed, as far as they have been told.
    ended: BTreeMap<RunId, Run>,
}

impl GroupWatch<'_> {
    fn poll(&mut self, client: &Client, console: &mut Console<'_>, machines: &[Machine]) -> Result<Group, Failure> {
        let group: Group = client.get(&format!("/api/groups/{}", self.id))?;
        let good = group.states.get(&RunState::Succeeded).copied().unwrap_or(0);
        let failed = ended(&group).saturating_sub(good) as usize;
        if failed > self.ended.len() {
            self.tell_failures(client, console, machines)?;
        }
        if console.err_is_terminal && !console.json {
            console.remark(&format!("\r\x1b[K{}", terminal::group_progress(&group, console.err_style())));
        }
        Ok(group)
    }

    fn tell_failures(
        &mut self,
        client: &Client,
        console: &mut Console<'_>,
        machines: &[Machine],
    ) -> Result<(), Failure> {
        let failed = |run: &Run| run.state.is_final() && run.state != RunState::Succeeded;
        let limit = (self.runs.len() + 50).min(1000);
        let newest = format!("/api/runs?task={}&limit={limit}", query(self.body.task.as_str()));
        for run in client.get::<Vec<Run>>(&newest)? {
            if self.runs.contains(&run.id) && failed(&run) && !self.ended.contains_key(&run.id) {
                if !console.json {
                    let clear = if console.err_is_terminal { "\r\x1b[K" } else { "" };
                    console.remark(&format!(
                        "{clear}{}",
                        terminal::refusal(&failure(&run, machines), console.err_style())
                    ));
                }
                self.ended.insert(run.id, run);
            }
        }
        Ok(())
    }

    fn end(self, client: &Client, console: &mut Console<'_>, group: &Group) -> Result<(), Failure> {
        if console.json {
            let runs: Result<Vec<Run>, _> =
                self.runs.iter().map(|run| client.get(&format!("/api/runs/{run}"))).collect();
            console.show(&serde_json::json!({"group": group, "runs": runs?}), |_, _| String::new())?;
        } else if console.err_is_terminal {
            console.remark("\n");
        } else {
            console.remark(&format!("{}\n", terminal::group_progress(group, console.err_style())));
        }
        let all_good = group.states.keys().all(|state| *state == RunState::Succeeded);
        if all_good { Ok(()) } else { Err(Failure::Exit(1)) }
    }
}

/// A run of a group that did not succeed, in a sentence.
fn failure(run: &Run, machines: &[Machine]) -> String {
    let label = machines.iter().find(|machine| machine.id == run.pi).map_or(run.pi.as_str(), |m| &m.label);
    format!("{label} ({}): {}", run.pi, terminal::how_it_ended(run))
}

/// On Ctrl-C says that the run, or the group, goes on, and leaves.
fn leave_going_on_interrupt(run: Option<RunId>) {
    let sentence = match run {
        Some(run) => format!(
            "The run goes on. See it with: pistat output {run} --follow   End it with: pistat task cancel {run}"
        ),
        None => "The runs go on. See them with: pistat runs   End one with: pistat task cancel RUN".to_owned(),
    };
    // The thread ends with the process; it holds nothing that would have to be put away.
    let waiting = thread::Builder::new().name("interrupt".into()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            eprintln!("\n{sentence}");
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
