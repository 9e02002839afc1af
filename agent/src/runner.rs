//! The root runner: a process of root's for each connection of the agent, started by systemd and
//! gone with its run.
//!
//! It runs tasks that need root, with the same code as the agent runs the others, and takes nothing
//! but orders of the controller. What it believes, and why:
//!
//! - **The other end** is the agent's user: the socket's mode says so, and the kernel is asked
//!   again (`SO_PEERCRED`). That user is not trusted with anything else. Whoever has taken it over
//!   can throw an order away; no more.
//! - **The signature**, over the very bytes that the controller sent, by the key that root pinned
//!   in a file of root's.
//! - **The machine**: the pinned pi-id, on the board whose serial number was pinned.
//! - **The session.** The runner makes it itself, at random, each time the agent connects to its
//!   controller and asks for one; the agent publishes it as its own. So an order that names it was
//!   signed after that moment, whatever any clock says: one that was recorded earlier, on this
//!   machine or anywhere on its way, names another. It is kept in memory (`/run`) and gone with the
//!   boot.
//! - **The nonce.** The runner answers an order with a nonce, and starts it only when it comes back
//!   over the same connection, signed again with that nonce, within seconds by a clock that nobody
//!   can set. So an order that was held back is worth nothing: its nonce is gone with the
//!   connection.
//! - **Once.** A run's id is entered into root's own ledger, on disk, before anything starts; what
//!   is in it never starts again.
//! - **`root`.** An order that does not ask for root is none for root, though the signature is
//!   good.
//! - **Root's policy** (`runner.toml`) comes last and wins.
//!
//! A run belongs to one instance, in a control group of its own. When the agent goes away the run
//! goes on, its output is kept as it is while a controller is away (the first and the last half of
//! 1 MiB, the gap counted), and whoever comes back finds it at a socket of the run's own.

mod host;
mod ledger;
mod pin;
mod trust;

use std::{
    fs::{File, TryLockError},
    io,
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use pistat_protocol::{
    id::RunId,
    order::{ExecuteOrder, OrderError, Verified, VerifiedOrder},
    status::{Nonce, ROOT_NONCE_LIFETIME, Session},
};
use pistat_support::{
    file::{self, Readable},
    random,
};
use tokio::{net::UnixStream, sync::Semaphore, time::timeout};

use self::{
    host::Host,
    ledger::Ledger,
    pin::Pin,
    trust::{Pinned, Settings, TrustError},
};
use crate::{
    facts::{self, Facts},
    task::{
        adopt_orphans, policy, record,
        run::{Start, boot_milliseconds},
    },
    wire::{Kind, Wire},
};

/// Whoever connects has to say what it wants within this time.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// How long the last word may take to leave.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Where systemd's directories are when it has not said so.
const STATE: &str = "/var/lib/pistat-runner";
const RUNTIME: &str = "/run/pistat-runner";
const CONFIGURATION: &str = "/etc/pistat";

/// Runs one signed task as root: started by systemd for each connection of the agent
/// (pistat-runner.socket).
#[derive(Debug, clap::Parser)]
#[command(name = "pistat-agent runner", max_term_width = 100)]
struct Words {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Believe the controller that the agent is enrolled with
    Pin(Pin),
}

/// What `pistat-agent runner …` does.
pub fn main() -> ExitCode {
    let words = match <Words as clap::Parser>::try_parse_from(std::env::args_os().skip(1)) {
        Ok(words) => words,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let folders = Folders::from_environment();
    let result = match words.command {
        Some(Command::Pin(pin)) => pin.run(&folders.state),
        None => serve(folders).map_err(|error| error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            tracing::error!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Where the runner's files are: folders that systemd has made, which only root may write.
#[derive(Debug, Clone)]
struct Folders {
    state: PathBuf,
    runtime: PathBuf,
    configuration: PathBuf,
}

impl Folders {
    fn from_environment() -> Self {
        let folder = |name, default: &str| std::env::var_os(name).map_or_else(|| default.into(), PathBuf::from);
        Self {
            state: folder("STATE_DIRECTORY", STATE),
            runtime: folder("RUNTIME_DIRECTORY", RUNTIME),
            configuration: folder("CONFIGURATION_DIRECTORY", CONFIGURATION),
        }
    }

    fn runs(&self) -> PathBuf {
        self.state.join("runs")
    }

    fn session(&self) -> PathBuf {
        self.runtime.join("session")
    }

    /// The session that was made last.
    fn load_session(&self) -> Result<Session, Refusal> {
        let text = file::read_text(&self.session()).map_err(|_| Refusal::NoSession)?;
        Session::try_from(text).map_err(|_| Refusal::NoSession)
    }
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("the root runner is started by systemd, with a connection as its standard input: {0}")]
    NoConnection(io::Error),
    #[error("user {found} may not ask the root runner, which serves user {wanted} only")]
    Stranger { found: u32, wanted: u32 },
    #[error("{0}")]
    Trust(#[from] TrustError),
    #[error("the root runner failed: {0}")]
    System(#[from] io::Error),
}

/// Why an order starts nothing: a sentence for the person who asked.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Trust(#[from] TrustError),
    #[error("{0}{advice}", advice = after_another_signature(.0))]
    Order(#[from] OrderError),
    #[error("it has made no session since this machine was started")]
    NoSession,
    #[error("the order does not ask for root")]
    NotRoot,
    #[error(
        "its controller was pinned on another board: if you moved the card yourself, run `pistat-agent runner pin --replace --fingerprint \
         FINGERPRINT` as root on this machine"
    )]
    OtherBoard,
    #[error(
        "the order names no nonce of the root runner, so it may have been held back; if this machine's agent was updated, it has to be restarted: \
         `systemctl restart pistat-agent`"
    )]
    NoNonce,
    #[error(
        "the order names another nonce than the root runner gave for it, or came too late: it was held back, or is a replay"
    )]
    StaleNonce,
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
    #[error("{0}")]
    Policy(String),
    #[error("the run has been started before: it is a replay")]
    Replayed,
    #[error("its ledger of runs cannot be used: {0}")]
    Ledger(io::Error),
    #[error("what it was asked is not understood")]
    Nonsense,
}

/// The one refusal that another enrolment explains. It may as well be a forged order, so the advice
/// does not lead to the attacker's key.
fn after_another_signature(error: &OrderError) -> &'static str {
    match error {
        OrderError::Signature => {
            ". Do nothing unless you moved this machine to another controller yourself: then run `pistat-agent runner pin --replace \
             --fingerprint FINGERPRINT` as root, with the fingerprint that `pistat join-token show` prints on the new controller"
        }
        _ => "",
    }
}

fn serve(folders: Folders) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_stack_size(256 * 1024)
        .build()?;
    let result = runtime.block_on(answer(folders));
    runtime.shutdown_background();
    result
}

fn connection_on_stdin() -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    stream.peer_cred()?;
    Ok(stream)
}

/// Nobody but the agent's user is answered.
fn check_peer(stream: &UnixStream, wanted: u32) -> Result<(), ServeError> {
    let found = stream.peer_cred()?.uid();
    if found == wanted { Ok(()) } else { Err(ServeError::Stranger { found, wanted }) }
}

async fn answer(folders: Folders) -> Result<(), ServeError> {
    let stream = connection_on_stdin().map_err(ServeError::NoConnection)?;
    let settings = Settings::load(&folders.configuration)?;
    check_peer(&stream, settings.agent_uid)?;
    let mut wire = Wire::new(stream);
    let Ok(Some((kind, payload))) = timeout(FIRST_WORD, wire.frame()).await.unwrap_or(Ok(None)) else { return Ok(()) };
    let runner = Runner { folders, settings, root: "/".into() };
    let begun = match kind {
        Kind::Prepare => runner.prepare(&mut wire, &payload).await,
        _ => runner.begin(kind, &payload),
    };
    match begun {
        Ok(Begin::Nothing) => {}
        Ok(Begin::Answer(kind, payload)) => {
            wire.push(kind, &payload);
            finish(wire).await;
        }
        Ok(Begin::Run(start, claim)) => {
            wire.push(Kind::Accepted, &[]);
            adopt_orphans();
            Host::start(runner, *start, claim)?.run(wire).await?;
        }
        Err(refusal) => {
            tracing::warn!("an order was refused: {refusal}");
            wire.push(Kind::Refused, refusal.to_string().as_bytes());
            finish(wire).await;
        }
    }
    Ok(())
}

async fn finish(mut wire: Wire) {
    // Whoever does not listen has gone.
    let _ = timeout(LAST_WORD, wire.flush()).await;
}

/// What a connection begins with.
enum Begin {
    /// The agent has gone, or waited for longer than the nonce is good.
    Nothing,
    /// An answer, and that was all.
    Answer(Kind, Vec<u8>),
    /// A run.
    Run(Box<Start>, Claim),
}

/// The right to one run on this machine, among all instances. Released when dropped.
#[derive(Debug)]
struct Claim {
    run: RunId,
    _lock: File,
}

struct Runner {
    folders: Folders,
    settings: Settings,
    /// Where `proc`, `run` and `usr` are: `/`, except in tests.
    root: PathBuf,
}

impl Runner {
    fn begin(&self, kind: Kind, payload: &[u8]) -> Result<Begin, Refusal> {
        match kind {
            Kind::AskSession => Ok(Begin::Answer(Kind::Session, self.make_session()?.into_bytes())),
            Kind::Execute => Err(Refusal::NoNonce),
            Kind::Attach => self.attach(std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok())),
            _ => Err(Refusal::Nonsense),
        }
    }

    fn make_session(&self) -> Result<String, Refusal> {
        let session = Session::from_random(random::secret().map_err(Refusal::Random)?).as_str().to_owned();
        file::replace(&self.folders.session(), session.as_bytes(), Readable::Owner).map_err(Refusal::Ledger)?;
        Ok(session)
    }

    /// Gives a nonce for an order that would be taken, and takes the order only if it comes back
    /// with it: over this connection, which is the nonce's only memory, and in time.
    async fn prepare(&self, wire: &mut Wire, signed: &[u8]) -> Result<Begin, Refusal> {
        // The controller signs the order again for the session that it knows then: an agent that
        // has connected anew meanwhile has another.
        let first = self.admit(signed, |order| Ok(order.session.clone()))?;
        if Ledger::new(&self.folders.state).contains(first.get().run).map_err(Refusal::Ledger)? {
            return Err(Refusal::Replayed);
        }
        let nonce = Nonce::from_random(random::secret().map_err(Refusal::Random)?);
        let given = boot_milliseconds();
        wire.push(Kind::Nonce, nonce.as_str().as_bytes());
        let signed = match timeout(ROOT_NONCE_LIFETIME, wire.frame()).await {
            Ok(Ok(Some((Kind::Execute, signed)))) => signed,
            Ok(Ok(Some(_))) => return Err(Refusal::Nonsense),
            Ok(Ok(None) | Err(_)) | Err(_) => return Ok(Begin::Nothing),
        };
        // Time that a suspended machine slept counts, too.
        let age = Duration::from_millis(boot_milliseconds().saturating_sub(given));
        self.execute(&signed, &nonce, age)
    }

    /// Takes an order that names the nonce, which was given so long ago.
    fn execute(&self, signed: &[u8], nonce: &Nonce, age: Duration) -> Result<Begin, Refusal> {
        if age > ROOT_NONCE_LIFETIME {
            return Err(Refusal::StaleNonce);
        }
        let order = self.admit(signed, |_| self.folders.load_session())?;
        match &order.get().nonce {
            None => return Err(Refusal::NoNonce),
            Some(named) if named != nonce => return Err(Refusal::StaleNonce),
            Some(_) => {}
        }
        let run = order.get().run;
        let claim = self.claim(run)?.ok_or(Refusal::Replayed)?;
        if !Ledger::new(&self.folders.state).enter(run).map_err(Refusal::Ledger)? {
            return Err(Refusal::Replayed);
        }
        let alone = Arc::new(Semaphore::new(1));
        Ok(Begin::Run(Box::new(Start::Execute { order: Box::new(order), signed: Bytes::new(), places: alone }), claim))
    }

    /// Everything but nonce and ledger, for the session that is asked for once the signature is
    /// good.
    fn admit(
        &self,
        signed: &[u8],
        session: impl Fn(&ExecuteOrder) -> Result<Session, Refusal>,
    ) -> Result<Verified<ExecuteOrder>, Refusal> {
        let pinned = Pinned::load(&self.folders.state)?;
        let VerifiedOrder::Execute(order) = pinned.controller_key.verify(signed)? else {
            return Err(Refusal::Nonsense);
        };
        let (run, session) = (order.get().run, session(order.get())?);
        let order = order.accept(&pinned.pi, &session, run)?;
        if !order.get().root {
            return Err(Refusal::NotRoot);
        }
        if pinned.serial.is_some() && pinned.serial != facts::serial(&self.root) {
            return Err(Refusal::OtherBoard);
        }
        policy::check(&self.settings.policy, order.get(), policy::Root::Available).map_err(Refusal::Policy)?;
        Ok(order)
    }

    /// Checks a cancellation of the run that this instance has.
    fn admit_cancel(&self, signed: &[u8], run: RunId) -> Result<(), Refusal> {
        let pinned = Pinned::load(&self.folders.state)?;
        let VerifiedOrder::Cancel(order) = pinned.controller_key.verify(signed)? else { return Err(Refusal::Nonsense) };
        order.accept(&pinned.pi, &self.folders.load_session()?, run)?;
        Ok(())
    }

    /// A run that an earlier instance had: its record says what became of it.
    fn attach(&self, run: Option<RunId>) -> Result<Begin, Refusal> {
        let run = run.ok_or(Refusal::Nonsense)?;
        let Some(claim) = self.claim(run)? else { return Ok(Begin::Answer(Kind::Busy, Vec::new())) };
        if let Some(record) = record::find(&self.folders.runs(), run) {
            return Ok(Begin::Run(Box::new(Start::Recovered(Box::new(record), None)), claim));
        }
        let started = Ledger::new(&self.folders.state).contains(run).map_err(Refusal::Ledger)?;
        Ok(Begin::Answer(if started { Kind::Done } else { Kind::Unknown }, Vec::new()))
    }

    fn lock_path(&self, run: RunId) -> PathBuf {
        self.folders.runtime.join(format!("{run}.lock"))
    }

    /// `None` while another instance has the run.
    fn claim(&self, run: RunId) -> Result<Option<Claim>, Refusal> {
        let open = File::options().write(true).create(true).truncate(false).open(self.lock_path(run));
        let lock = open.map_err(Refusal::Ledger)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Claim { run, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Refusal::Ledger(error)),
        }
    }

    /// The context in which the run lives: as any run of the agent's, with root's own folder.
    fn context(
        &self,
        outgoing: tokio::sync::mpsc::Sender<crate::Outgoing>,
    ) -> Result<crate::task::run::Context, ServeError> {
        let pinned = Pinned::load(&self.folders.state)?;
        std::fs::create_dir_all(self.folders.runs())?;
        Ok(crate::task::run::Context {
            pi: pinned.pi,
            folder: self.folders.runs(),
            boot_id: Facts::boot_id(&self.root),
            nice: self.settings.nice,
            launcher: Vec::new(),
            stop_grace: crate::options::STOP_GRACE,
            outgoing,
            runner_socket: None,
        })
    }
}

#[cfg(test)]
mod tests;
