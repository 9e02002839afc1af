//! A process that lives as long as its test, and whose output is shown if the test fails.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{usage, wait::eventually};

/// A process's output so far, line by line.
type Lines = Arc<Mutex<Vec<String>>>;

/// How long the last lines of an ended process may take to come through the pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running process.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
    readers: [JoinHandle<()>; 2],
    status: Option<ExitStatus>,
    quiet: bool,
}

impl Process {
    /// Starts a command in a process group of its own, with nothing on its standard input.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::start_with(name, command, Stdio::null())
    }

    /// As [`Process::start`], with a standard input for [`Process::say`].
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start_listening(name: &str, command: &mut Command) -> Self {
        Self::start_with(name, command, Stdio::piped())
    }

    fn start_with(name: &str, command: &mut Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{name} ({command:?}) cannot be started: {error}"));
        let (stdout, reading_stdout) = listen(child.stdout.take());
        let (stderr, reading_stderr) = listen(child.stderr.take());
        let readers = [reading_stdout, reading_stderr];
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, stdin, stdout, stderr, readers, status: None, quiet: false }
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// It has none, or has closed it.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it was started to listen");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{} does not listen any more: {error}", self.name));
    }

    /// Leaves its output out of a failing test's report.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines of its standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        copy(&self.stdout)
    }

    /// The lines of its standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        copy(&self.stderr)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a positive id");
        // It may have ended already: that is for the test to find out.
        let _ = kill_process(pid, signal);
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait().map(|status| self.status = Some(status));
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits until it ends by itself, and returns its exit code: 128 + n for signal n.
    pub async fn exit_code(&mut self, limit: Duration) -> i32 {
        let status = self.wait(limit).await;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("a process exits or is killed")
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let status = eventually(&what, limit, async || self.ended().ok_or("it is running")).await;
        // Its last lines may still be in the pipe, which a surviving descendant may hold open for
        // ever.
        let started = Instant::now();
        while started.elapsed() < LAST_WORDS && !self.readers.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        status
    }

    /// Waits for a line of its standard output for which `find` gives something.
    pub async fn line<T>(&mut self, what: &str, limit: Duration, find: impl Fn(&str) -> Option<T>) -> T {
        let what = format!("{} says {what}", self.name);
        eventually(&what, limit, async || {
            let lines = self.stdout();
            match lines.iter().find_map(|line| find(line)) {
                Some(found) => Ok(found),
                None => Err(format!("{lines:?} (ended: {:?})", self.ended())),
            }
        })
        .await
    }

    /// Its anonymous resident memory in bytes; zero once it has ended.
    pub fn resident_bytes(&self) -> u64 {
        usage::memory(self.id(), "RssAnon")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() && !self.quiet {
            eprintln!("--- {} ({:?}) said", self.name, self.status);
            for line in self.stdout().iter().chain(&self.stderr()) {
                eprintln!("    {line}");
            }
        }
    }
}

fn listen(pipe: Option<impl Read + Send + 'static>) -> (Lines, JoinHandle<()>) {
    let lines = Lines::default();
    let heard = Arc::clone(&lines);
    let pipe = BufReader::new(pipe.expect("the pipe was asked for"));
    let reader = std::thread::spawn(move || {
        for line in pipe.split(b'\n').map_while(Result::ok) {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(&line).into_owned());
        }
    });
    (lines, reader)
}

fn copy(lines: &Lines) -> Vec<String> {
    lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The outcome of a command that ends by itself.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Panics
/// It cannot be started, or does not end in time.
pub async fn run(name: &str, command: &mut Command, limit: Duration) -> Finished {
    let mut process = Process::start(name, command);
    let code = process.exit_code(limit).await;
    Finished { code, stdout: process.stdout().join("\n"), stderr: process.stderr().join("\n") }
}
