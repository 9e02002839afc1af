//! One run in root's hands, with or without an agent: the run's own actor does everything, and here
//! its words and the agent's are passed on.
//!
//! The agent may go away and come back as often as it likes; each time it counts as a new
//! connection, and what is not acknowledged is said again.

use std::{
    io,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    sync::Arc,
};

use pistat_protocol::{id::RunId, topic::Topic};
use tokio::{
    net::{UnixListener, UnixStream},
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{Claim, LAST_WORD, Runner, ServeError, check_peer};
use crate::{
    Outgoing,
    task::{
        delivery::Control,
        reap_orphans, record,
        run::{self, Start},
    },
    wire::{Kind, Step, Told, Wire, run_socket},
};

/// How many messages of the run may wait for the agent: each may be a chunk of output.
const SAID: usize = 4;

/// The host of one run.
pub(super) struct Host {
    runner: Runner,
    claim: Claim,
    listener: UnixListener,
    socket: PathBuf,
    wire: Option<Wire>,
    told: Told,
    connections: u64,
    control: watch::Sender<Control>,
    said: mpsc::Receiver<Outgoing>,
    actor: JoinSet<RunId>,
    terminate: Signal,
    children: Signal,
}

impl Host {
    /// Starts the run's actor and listens at the run's own socket.
    pub(super) fn start(runner: Runner, start: Start, claim: Claim) -> Result<Self, ServeError> {
        let (say, said) = mpsc::channel(SAID);
        let (control, controlled) = watch::channel(Control::default());
        let context = Arc::new(runner.context(say)?);
        let socket = run_socket(&runner.folders.runtime, claim.run);
        let listener = listen(&socket, runner.settings.agent_uid)?;
        // Before the run's process is started, so that its end is not missed.
        let (terminate, children) = (signal(SignalKind::terminate())?, signal(SignalKind::child())?);
        let mut actor = JoinSet::new();
        actor.spawn(run::run(context, claim.run, start, controlled));
        let (told, connections) = (Told::default(), 0);
        Ok(Self {
            runner,
            claim,
            listener,
            socket,
            wire: None,
            told,
            connections,
            control,
            said,
            actor,
            terminate,
            children,
        })
    }

    /// Until the controller has everything, or the machine goes down.
    pub(super) async fn run(mut self, wire: Wire) -> io::Result<()> {
        self.wire = Some(wire);
        loop {
            let may_say = self.wire.as_ref().is_some_and(Wire::is_flushed);
            tokio::select! {
                biased;
                _ = self.terminate.recv() => self.control.send_modify(|control| control.stop = true),
                _ = self.actor.join_next() => break,
                step = next_step(&mut self.wire) => self.hear(step),
                caller = self.listener.accept() => self.welcome(caller?.0),
                Some(said) = self.said.recv(), if may_say => self.say(&said),
                _ = self.children.recv() => reap_orphans(),
            }
        }
        self.end().await
    }

    /// An agent that comes back takes the place of the one before it.
    fn welcome(&mut self, caller: UnixStream) {
        if let Err(error) = check_peer(&caller, self.runner.settings.agent_uid) {
            tracing::warn!("{error}");
            return;
        }
        let mut wire = Wire::new(caller);
        wire.push(Kind::Accepted, &[]);
        self.leave();
        self.wire = Some(wire);
    }

    /// Without an agent there is no controller.
    fn leave(&mut self) {
        self.wire = None;
        self.told = Told::default();
        self.control.send_modify(|control| control.connection = None);
    }

    fn hear(&mut self, step: io::Result<Step>) {
        match step {
            Ok(Step::Flushed) => {}
            Ok(Step::Frame(Kind::Told, payload)) => match serde_json::from_slice(&payload) {
                Ok(told) => self.take(told),
                Err(error) => tracing::warn!(%error, "what the agent told was not understood"),
            },
            Ok(Step::Frame(Kind::Cancel, payload)) => match self.runner.admit_cancel(&payload, self.claim.run) {
                Ok(()) => self.control.send_modify(|control| control.cancel = Some(payload)),
                Err(refusal) => tracing::warn!("a cancellation was refused: {refusal}"),
            },
            Ok(Step::Frame(kind, _)) => tracing::warn!(?kind, "not for the host of a run"),
            Ok(Step::Closed) | Err(_) => {
                tracing::info!(run = %self.claim.run, "the agent has gone; the run goes on");
                self.leave();
            }
        }
    }

    /// The agent's counters are its own: each change counts here.
    fn take(&mut self, told: Told) {
        let before = std::mem::replace(&mut self.told, told);
        self.connections += u64::from(told.connection != before.connection);
        let connection = told.connection.map(|_| self.connections);
        self.control.send_modify(|control| {
            control.connection = connection;
            control.repeats += u64::from(told.repeats != before.repeats);
            if told.acks != before.acks {
                control.ack = told.ack;
                control.acks += 1;
            }
        });
    }

    fn say(&mut self, said: &Outgoing) {
        let kind = match (&said.topic, said.retain) {
            (Topic::Report(..), _) => Kind::Report,
            (_, true) => Kind::Repetition,
            (_, false) => Kind::Output,
        };
        if let Some(wire) = &mut self.wire {
            wire.push(kind, &said.payload);
        }
    }

    /// A run that was forgotten is done; one that was left as it is on disk is found there by the
    /// next instance.
    async fn end(mut self) -> io::Result<()> {
        while let Ok(said) = self.said.try_recv() {
            self.say(&said);
        }
        let forgotten = record::find(&self.runner.folders.runs(), self.claim.run).is_none();
        if let Some(mut wire) = self.wire.take() {
            if forgotten {
                wire.push(Kind::Done, &[]);
            }
            // Whoever does not listen asks again.
            let _ = timeout(LAST_WORD, wire.flush()).await;
        }
        std::fs::remove_file(&self.socket)?;
        if forgotten {
            std::fs::remove_file(self.runner.lock_path(self.claim.run))?;
        }
        Ok(())
    }
}

async fn next_step(wire: &mut Option<Wire>) -> io::Result<Step> {
    match wire {
        Some(wire) => wire.step().await,
        None => std::future::pending().await,
    }
}

/// A socket that only the agent's user can open.
fn listen(path: &std::path::Path, agent_uid: u32) -> io::Result<UnixListener> {
    // What an earlier instance has left: the claim on the run is ours.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    chown(path, Some(agent_uid), None)?;
    Ok(listener)
}
