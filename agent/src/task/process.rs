//! One process of a run: started without a shell, in a minimal environment, in a process group of
//! its own; read and ended.
//!
//! It takes no order: only [`Command::from_order`] builds a command, and that asks for a verified
//! order. The same piece is meant to serve a root runner. What a task's process inherits is named
//! here and nothing else: no stdin, no variable of ours but its mark.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use pistat_protocol::{
    id::RunId,
    order::{ExecuteOrder, Verified},
    task::Stream,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStderr, ChildStdout},
    sync::oneshot,
};

use super::kin::RUN_MARK;

/// Where programs are looked for: the system's folders in the order of Debian's root, so that
/// `reboot` and `ip` are found too.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As much as a pipe holds by default (pipe(7)).
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// After so many reads of stdout, stderr comes first once.
const STDOUT_IN_A_ROW: u32 = 64;

/// What is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    launcher: Vec<OsString>,
    argv: Vec<String>,
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    nice: i32,
}

/// Why a process could not be started: a sentence, and the exit code that a shell would give.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// There is no such program.
    #[error("the program `{0}` is not installed on this machine: it is not in {PATH}")]
    NotFound(String),
    /// It is there and may not be run.
    #[error("the program `{0}` may not be run by the agent's user")]
    Forbidden(String),
    /// The working directory is not there.
    #[error("the working directory {0} does not exist on this machine, or may not be entered")]
    Directory(PathBuf),
    /// Something else.
    #[error("the program `{program}` could not be started: {source}")]
    Other {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

impl StartError {
    /// 127 when there is nothing to run, 126 when it cannot be run, as shells do.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound(_) => 127,
            Self::Forbidden(_) | Self::Directory(_) | Self::Other { .. } => 126,
        }
    }
}

impl Command {
    /// The command that a verified order names, after the launcher's words, at this nice value.
    pub(crate) fn from_order(order: &Verified<ExecuteOrder>, launcher: Vec<OsString>, nice: i32) -> Self {
        let order = order.get();
        let directory = order.working_directory.as_deref().unwrap_or("/").into();
        let environment = environment(&order.environment, order.run);
        Self { launcher, argv: order.argv.clone(), environment, directory, nice }
    }

    fn program(&self) -> String {
        self.argv.first().cloned().unwrap_or_default()
    }

    /// Starts it.
    ///
    /// # Errors
    /// There is no such program or directory, or the system refuses.
    pub(crate) async fn start(self) -> Result<Process, StartError> {
        let (program, directory) = (self.program(), self.directory.clone());
        let child = self.spawn_nicely().await.map_err(|source| match source.kind() {
            io::ErrorKind::NotADirectory => StartError::Directory(directory),
            io::ErrorKind::NotFound => StartError::NotFound(program.clone()),
            io::ErrorKind::PermissionDenied => StartError::Forbidden(program.clone()),
            _ => StartError::Other { program, source },
        })?;
        Ok(Process::new(child))
    }

    /// Spawns from a thread of its own: on Linux the nice value belongs to the thread and is
    /// inherited, so the process is nice from its first instruction, and the agent's own thread
    /// stays as it is, even while a disk hangs.
    async fn spawn_nicely(self) -> io::Result<Child> {
        let runtime = tokio::runtime::Handle::current();
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name("spawn".into()).stack_size(128 * 1024);
        thread.spawn(move || {
            let _entered = runtime.enter();
            if self.nice > 0 {
                // Being less nice than wished is not a reason not to run.
                let _ = rustix::process::setpriority_process(None, self.nice);
            }
            let _ = tell.send(self.spawn());
        })?;
        told.await.unwrap_or_else(|_| Err(io::Error::other("the starting thread ended")))
    }

    /// A launcher is always there: whether the task's program is, has to be asked.
    fn is_installed(&self) -> bool {
        let program = self.program();
        if program.contains('/') {
            return self.directory.join(program).exists();
        }
        let path = self.environment.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        std::env::split_paths(&path).any(|folder| self.directory.join(folder).join(&program).exists())
    }

    fn spawn(&self) -> io::Result<Child> {
        // Told apart from a program that is not there.
        if !self.directory.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if !self.launcher.is_empty() && !self.is_installed() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut words = self.launcher.iter().map(OsString::as_os_str).chain(self.argv.iter().map(OsStr::new));
        let program = words.next().ok_or(io::ErrorKind::NotFound)?;
        tokio::process::Command::new(program)
            .args(words)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }
}

fn environment(of_task: &BTreeMap<String, String>, run: RunId) -> BTreeMap<OsString, OsString> {
    let home = std::env::var_os("HOME").filter(|home| Path::new(home).is_dir()).unwrap_or_else(|| "/".into());
    let mut variables = BTreeMap::from([
        ("PATH".into(), PATH.into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("TERM".into(), "dumb".into()),
        ("HOME".into(), home),
    ]);
    variables.extend(of_task.iter().map(|(name, value)| (name.into(), value.into())));
    variables.insert(RUN_MARK.into(), run.to_string().into());
    variables
}

/// What happened to a process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// It wrote so many bytes into the buffer.
    Output(Stream, usize),
    /// It closed a stream.
    Closed(Stream),
    /// It ended.
    Exited(ExitStatus),
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    leader: Option<i32>,
    exited: bool,
    /// How often stdout was read since stderr last had its turn.
    in_a_row: u32,
}

impl Process {
    fn new(mut child: Child) -> Self {
        let leader = child.id().and_then(|pid| i32::try_from(pid).ok());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Self { child, stdout, stderr, leader, exited: false, in_a_row: 0 }
    }

    /// Its process id, also that of its group.
    pub(crate) fn leader(&self) -> Option<i32> {
        self.leader
    }

    /// Whether it has ended.
    pub(crate) fn has_exited(&self) -> bool {
        self.exited
    }

    /// Whether it has ended and nothing can come any more.
    pub(crate) fn is_over(&self) -> bool {
        self.exited && self.stdout.is_none() && self.stderr.is_none()
    }

    /// Stops reading, since somebody else may still hold the other end, after what is in the pipes
    /// by now: on a machine that is short of time nobody may have looked since the process ended.
    pub(crate) fn stop_reading(&mut self, buffer: &mut [u8], mut take: impl FnMut(Stream, &[u8])) {
        if let Some(pipe) = self.stdout.take() {
            read_rest(&pipe, buffer, |bytes| take(Stream::Stdout, bytes));
        }
        if let Some(pipe) = self.stderr.take() {
            read_rest(&pipe, buffer, |bytes| take(Stream::Stderr, bytes));
        }
    }

    /// The next thing that happens; output only while `read`. Pends for ever once it is over. May
    /// be dropped at any point.
    pub(crate) async fn event(&mut self, buffer: &mut [u8], read: bool) -> Event {
        let half = buffer.len() / 2;
        let (for_stdout, for_stderr) = buffer.split_at_mut(half);
        let stdout = (Stream::Stdout, dynamic(&mut self.stdout), for_stdout);
        let stderr = (Stream::Stderr, dynamic(&mut self.stderr), for_stderr);
        // Two pipes do not tell what was written first. Where both have something it is nearly
        // always stdout: what a task did, then what went wrong. But a flood on stdout must not hide
        // stderr, nor the end.
        let yields = self.in_a_row >= STDOUT_IN_A_ROW;
        let (first, second) = if yields { (stderr, stdout) } else { (stdout, stderr) };
        let event = tokio::select! {
            biased;
            status = self.child.wait(), if !self.exited => Event::Exited(status.unwrap_or_else(|error| unknown_status(&error))),
            length = read_some(first.1, first.2), if read => (first.0, length).into(),
            length = read_some(second.1, second.2), if read => (second.0, length).into(),
            else => std::future::pending().await,
        };
        let of_stdout = matches!(event, Event::Output(Stream::Stdout, _));
        self.in_a_row = if of_stdout && !yields { self.in_a_row + 1 } else { 0 };
        match &event {
            Event::Closed(Stream::Stdout) => self.stdout = None,
            Event::Closed(Stream::Stderr) => self.stderr = None,
            Event::Exited(_) => self.exited = true,
            Event::Output(..) => {}
        }
        event
    }
}

/// The end of a process whose status nobody can tell: never a success.
fn unknown_status(error: &io::Error) -> ExitStatus {
    tracing::error!(%error, "a process has ended and its exit status is not known; it counts as failed with exit code 255");
    ExitStatusExt::from_raw(255 << 8)
}

/// The part of the buffer that an [`Event::Output`] filled.
pub(crate) fn written(buffer: &[u8], stream: Stream, length: usize) -> &[u8] {
    let half = buffer.len() / 2;
    match stream {
        Stream::Stdout => &buffer[..length],
        Stream::Stderr => &buffer[half..half + length],
    }
}

impl From<(Stream, usize)> for Event {
    fn from((stream, length): (Stream, usize)) -> Self {
        if length == 0 { Self::Closed(stream) } else { Self::Output(stream, length) }
    }
}

/// Reads what a pipe holds without waiting; no more than that, since whoever holds the other end
/// may go on writing.
fn read_rest(pipe: &impl AsFd, buffer: &mut [u8], mut take: impl FnMut(&[u8])) {
    let mut left = READ_BYTES;
    while left > 0 {
        // Pipes of children do not block: nothing to read is an error like any other, the end of
        // reading.
        let Ok(length @ 1..) = rustix::io::read(pipe, &mut *buffer) else { return };
        take(&buffer[..length]);
        left = left.saturating_sub(length);
    }
}

/// A pipe, whichever it is.
fn dynamic<P: AsyncRead + Send + Unpin>(pipe: &mut Option<P>) -> Option<&mut (dyn AsyncRead + Send + Unpin)> {
    pipe.as_mut().map(|pipe| pipe as _)
}

/// Reads what there is; an error counts as the end, since a pipe has no other.
async fn read_some(from: Option<&mut (dyn AsyncRead + Send + Unpin)>, buffer: &mut [u8]) -> usize {
    match from {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        Command {
            launcher: Vec::new(),
            argv: ["sh", "-c", script].map(str::to_owned).into(),
            environment: BTreeMap::from([("PATH".into(), PATH.into())]),
            directory: "/".into(),
            nice: 0,
        }
    }

    #[tokio::test]
    async fn what_was_written_to_stdout_before_stderr_is_read_before_it_however_late_the_agent_looks() {
        for _ in 0..30 {
            let mut process = shell("echo result; echo trouble >&2").start().await.unwrap();
            let mut buffer = vec![0; 2 * READ_BYTES];
            let Event::Exited(_) = process.event(&mut buffer, false).await else { panic!("nothing was to be read") };
            let mut streams = Vec::new();
            while !process.is_over() {
                if let Event::Output(stream, _) = process.event(&mut buffer, true).await {
                    streams.push(stream);
                }
            }
            assert_eq!(streams, [Stream::Stdout, Stream::Stderr]);
        }
    }

    #[tokio::test]
    async fn a_flood_on_stdout_hides_neither_stderr_nor_the_end() {
        // The flood goes on in the background after the end.
        let mut process = shell("yes & echo trouble >&2").start().await.unwrap();
        let mut buffer = vec![0; 2 * READ_BYTES];
        let (mut reads, mut heard, mut ended) = (0, false, false);
        while !(heard && ended) {
            match process.event(&mut buffer, true).await {
                Event::Output(Stream::Stderr, _) => heard = true,
                Event::Exited(_) => ended = true,
                Event::Output(Stream::Stdout, _) => {
                    // One more where the program has not written by then.
                    reads += u32::from(ended && !heard);
                    assert!(reads <= 2 * STDOUT_IN_A_ROW, "stderr is not read");
                }
                Event::Closed(_) => {}
            }
        }
        let group = rustix::process::Pid::from_raw(process.leader().unwrap()).unwrap();
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn what_was_written_before_the_end_is_read_however_late_somebody_looks() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // `sleep` holds the pipes after the end, as a daemon would: reading must not wait for
            // it.
            let script = "echo late; echo trouble >&2; sleep 30 &";
            let mut process = shell(script).start().await.unwrap();
            let mut buffer = vec![0; 2 * READ_BYTES];
            // Nothing is read while the process runs.
            let Event::Exited(status) = process.event(&mut buffer, false).await else {
                panic!("nothing was to be read")
            };
            assert!(status.success() && !process.is_over());
            let mut heard = Vec::new();
            process.stop_reading(&mut buffer, |stream, bytes| {
                heard.push((stream, String::from_utf8_lossy(bytes).into_owned()));
            });
            assert_eq!(heard, [(Stream::Stdout, "late\n".to_owned()), (Stream::Stderr, "trouble\n".to_owned())]);
            assert!(process.is_over());
            let group = rustix::process::Pid::from_raw(process.leader().unwrap()).unwrap();
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        });
    }
}
