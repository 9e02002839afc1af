//! The thread that writes: everything that waits goes into one commit, and what cannot be written
//! is refused or waits, by its [`Durability`].

use std::{
    collections::VecDeque,
    io,
    sync::mpsc as std_mpsc,
    time::{Duration, Instant},
};

use pistat_domain::age::Age;
use pistat_support::file::{Readable, replace};
use tokio::sync::mpsc;

use super::{
    Durability, NotStored, Retention, Stored, Ticket, Write,
    files::replace_json,
    name, now,
    plain::Files,
    register::{LIVED_UNTIL, Register, RegisterWrite, is_of_the_write},
};

pub(super) struct Commit {
    pub(super) ticket: Ticket,
    pub(super) durability: Durability,
    pub(super) write: Write,
    /// Whether it was told that it waits.
    pub(super) told: bool,
}

/// How long the thread waits before it tries again to store what must be stored.
const RETRY: Duration = Duration::from_secs(1);

/// How often old runs and events are deleted.
const RETAIN_EVERY: Duration = Duration::from_secs(3600);

/// They are deleted sooner after so many changes of the register: so it stays as small as its
/// configuration says, however busy the fleet is.
const RETAIN_AFTER_WRITES: usize = 10_000;

pub(super) struct Writer {
    register: Register,
    files: Files,
    retention: Retention,
    age: Age,
    /// In order.
    waiting: VecDeque<Commit>,
    outcomes: mpsc::UnboundedSender<Stored>,
    last_error: Option<String>,
    /// Changes of the register since old ones were deleted.
    writes: usize,
}

impl Writer {
    pub(super) fn new(
        register: Register,
        files: Files,
        retention: Retention,
        outcomes: mpsc::UnboundedSender<Stored>,
    ) -> Self {
        // What cannot be read now is as if it had never been: the wall clock is all that there is
        // then.
        let kept = register.fact(LIVED_UNTIL).ok().flatten().and_then(|time| time.parse().ok());
        let newest = register.newest_time().ok().flatten();
        let age = Age::new(kept, newest, now().unix_milliseconds(), Instant::now());
        Self { register, files, retention, age, waiting: VecDeque::new(), outcomes, last_error: None, writes: 0 }
    }

    /// Until nobody can hand anything in any more, and all that was is stored.
    pub(super) fn run(mut self, commits: &std_mpsc::Receiver<Commit>) {
        let mut retained_at: Option<Instant> = None;
        loop {
            let is_busy = self.writes >= RETAIN_AFTER_WRITES;
            if is_busy || retained_at.is_none_or(|at| at.elapsed() > RETAIN_EVERY) {
                retained_at = Some(Instant::now());
                self.retain();
            }
            let timeout = if self.waiting.is_empty() { RETAIN_EVERY } else { RETRY };
            match commits.recv_timeout(timeout) {
                Ok(commit) => self.waiting.push_back(commit),
                Err(std_mpsc::RecvTimeoutError::Timeout) => {}
                Err(std_mpsc::RecvTimeoutError::Disconnected) => {
                    self.store_waiting();
                    return;
                }
            }
            self.waiting.extend(commits.try_iter());
            self.store_waiting();
        }
    }

    fn retain(&mut self) {
        self.writes = 0;
        let wall = now().unix_milliseconds();
        let retained = self.register.oldest_time().and_then(|oldest| {
            let now = self.age.read(wall, oldest, Instant::now());
            self.register.retain(self.retention, now)
        });
        if let Err(error) = retained {
            tracing::warn!(%error, "old runs and events could not be deleted");
        }
    }

    fn store_waiting(&mut self) {
        self.store_register();
        self.store_files();
    }

    /// Everything for the register goes into one commit: one `fsync`, however much waits.
    fn store_register(&mut self) {
        let writes = self.waiting.iter().filter_map(|commit| match &commit.write {
            Write::Register(writes) => Some(writes),
            _ => None,
        });
        if writes.clone().next().is_none() {
            return;
        }
        let count = writes.clone().map(Vec::len).sum::<usize>();
        let result = self.register.commit(writes.flatten());
        if result.as_ref().is_err_and(is_of_the_write) {
            return self.store_one_by_one();
        }
        let result = result.map_err(|error| self.sentence(&error));
        self.writes += if result.is_ok() { count } else { 0 };
        self.settle(&result, |write| matches!(write, Write::Register(_)));
    }

    /// Something that waits can never be stored, and must not stand in the way of the rest: who
    /// asks for it is refused, and what has happened is stored without it. A disk that fails
    /// meanwhile leaves the rest as it was, in order.
    fn store_one_by_one(&mut self) {
        let mut commits = std::mem::take(&mut self.waiting).into_iter();
        for commit in commits.by_ref() {
            let Write::Register(writes) = &commit.write else {
                self.waiting.push_back(commit);
                continue;
            };
            let stored = match commit.durability {
                Durability::Rejectable => self.register.commit(writes.iter()).map(|()| Vec::new()),
                Durability::Required => self.register.commit_what_fits(writes),
            };
            match stored {
                Ok(left_out) => {
                    let left_out = left_out.iter().filter_map(|(write, error)| tell_left_out(write, error)).collect();
                    self.writes += writes.len();
                    self.tell(commit.ticket, Ok(()), left_out);
                }
                Err(error) if commit.durability == Durability::Rejectable && is_of_the_write(&error) => {
                    let sentence = format!("this cannot be stored ({error}): nothing was changed");
                    self.tell(commit.ticket, Err(NotStored::Refused(sentence)), Vec::new());
                }
                Err(error) => {
                    let sentence = self.sentence(&error);
                    self.finish(commit, &Err(sentence));
                    break;
                }
            }
        }
        self.waiting.extend(commits);
    }

    fn store_files(&mut self) {
        let mut access = Vec::new();
        for commit in std::mem::take(&mut self.waiting) {
            match commit.write {
                Write::Register(_) => self.waiting.push_back(commit),
                Write::Access(_) => access.push(commit),
                _ => {
                    self.store_access(&mut access);
                    let result = self.write_file(&commit.write).map_err(|error| self.sentence(&error));
                    self.finish(commit, &result);
                }
            }
        }
        self.store_access(&mut access);
    }

    /// A fleet that enrols all at once is one file written, not one for each machine.
    fn store_access(&mut self, commits: &mut Vec<Commit>) {
        if commits.is_empty() {
            return;
        }
        let changes = commits.iter().flat_map(|commit| match &commit.write {
            Write::Access(changes) => &changes[..],
            _ => &[],
        });
        let result = self.files.write_access(changes).map_err(|error| self.sentence(&error));
        for commit in commits.drain(..) {
            self.finish(commit, &result);
        }
    }

    fn write_file(&mut self, write: &Write) -> io::Result<()> {
        let folder = &self.files.folder;
        match write {
            Write::Register(_) => Ok(()),
            Write::Metadata(pi, change) => self.files.write_given(pi, change),
            Write::Access(changes) => self.files.write_access(changes),
            Write::AdminToken(token) => {
                replace(&folder.join(name::ADMIN_TOKEN), format!("{token}\n").as_bytes(), Readable::Owner)
            }
            Write::Announced(announced) => replace_json(&folder.join(name::ANNOUNCED), announced, Readable::Everyone),
            Write::JoinToken(token) => {
                replace(&folder.join(name::JOIN_TOKEN), format!("{token}\n").as_bytes(), Readable::Owner)
            }
        }
    }

    fn settle(&mut self, result: &Result<(), String>, belongs: impl Fn(&Write) -> bool) {
        for commit in std::mem::take(&mut self.waiting) {
            if belongs(&commit.write) { self.finish(commit, result) } else { self.waiting.push_back(commit) }
        }
        if result.is_ok() && self.last_error.take().is_some() {
            tracing::info!("the state folder can be written again; everything that waited is stored");
        }
    }

    fn finish(&mut self, mut commit: Commit, result: &Result<(), String>) {
        match (result, commit.durability) {
            (Ok(()), _) => self.tell(commit.ticket, Ok(()), Vec::new()),
            (Err(sentence), Durability::Rejectable) => {
                let sentence = format!("{sentence}, then try again: nothing was changed");
                self.tell(commit.ticket, Err(NotStored::Refused(sentence)), Vec::new());
            }
            (Err(sentence), Durability::Required) => {
                if !std::mem::replace(&mut commit.told, true) {
                    self.tell(commit.ticket, Err(NotStored::Waits(sentence.clone())), Vec::new());
                }
                self.waiting.push_back(commit);
            }
        }
    }

    fn tell(&self, ticket: Ticket, result: Result<(), NotStored>, left_out: Vec<String>) {
        let _ = self.outcomes.send(Stored { ticket, result, left_out });
    }

    fn sentence(&mut self, error: &dyn std::error::Error) -> String {
        let sentence = format!(
            "the state folder {} cannot be written ({error}); free space there or mend the disk",
            self.files.folder.display()
        );
        if self.last_error.as_ref() != Some(&sentence) {
            tracing::error!("{sentence}");
            self.last_error = Some(sentence.clone());
        }
        sentence
    }
}

/// The sentence that the hub makes an event of; an event that cannot be stored is only logged, or
/// telling it would never end.
fn tell_left_out(write: &RegisterWrite, error: &rusqlite::Error) -> Option<String> {
    let sentence = format!("{} cannot be stored and was left out: {error}", write.what());
    tracing::error!("{sentence}");
    (!matches!(write, RegisterWrite::Event(..))).then_some(sentence)
}
