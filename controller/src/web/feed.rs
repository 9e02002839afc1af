//! The dashboard's WebSocket: a snapshot, then changes; watching, following output, and the web
//! terminal.
//!
//! A slow browser is never waited for: it falls behind the shared frames, and is given a fresh
//! snapshot. What it asked for itself (output, answers) waits for it, and nothing else does:
//! neither the stop of the controller nor the end of an account, whatever is being sent.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use axum::{
    Extension,
    extract::{
        ConnectInfo, State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket},
    },
    http::{HeaderMap, header},
    response::Response,
};
use pistat_protocol::{
    dashboard::{ClientMessage, MACHINES_PER_MESSAGE, MAX_FOLLOWED, ServerMessage},
    id::{PiId, RunId},
};
use tokio::{
    sync::{
        broadcast::{self, error::TryRecvError},
        mpsc, oneshot,
    },
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{Web, admission, console, login, mqtt, output::Follower, problem::Handshake};
use crate::{
    access::{Caller, Credential},
    hub::{
        ask::{Ask, Refused},
        feed::Frame,
    },
};

/// The largest message of a browser: a pasted command line.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// A read of a browser: it says little, and a buffer is zeroed whenever one is tried.
const READ_BYTES: usize = 4 * 1024;

/// How many messages of its own wait for a browser: pages of output of 256 kB and answers.
const OUTBOX: usize = 4;

/// How many commands and completions of a browser are at work at a time.
const MAX_COMMANDS: usize = 16;

/// How often a browser is asked whether it is still there, and a watch is renewed.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// After so many heartbeats without a word the browser is gone.
const MISSED_HEARTBEATS: u32 = 3;

/// How long one message may take on its way to a browser: as long as the browser may be silent.
const SENDING: Duration = HEARTBEAT.saturating_mul(MISSED_HEARTBEATS);

/// How long a browser may take for the first message, which has the key of its session.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// How long a browser may take for the word that its account has ended.
const LAST_WORD: Duration = Duration::from_secs(1);

/// `GET /api/ws`.
#[utoipa::path(
    get, path = "/api/ws", operation_id = "feed", tag = "connections",
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "This is no WebSocket handshake"),
        (status = 426, description = "The connection cannot become a WebSocket"),
    )
)]
pub(super) async fn connect(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    connection: Option<Extension<admission::Connection>>,
    headers: HeaderMap,
    Handshake(upgrade): Handshake,
) -> Result<Response, Refused> {
    // That an origin is ours has been checked already; a browser always says it, a program with a
    // token need not.
    if !matches!(caller.credential, Credential::Token(_)) && !headers.contains_key(header::ORIGIN) {
        return Err(Refused::forbidden("a session is for browsers, which send an Origin: a program uses a token"));
    }
    let upgrade = upgrade
        .max_frame_size(MAX_MESSAGE_BYTES)
        .max_message_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0);
    let connection = connection.map(|Extension(connection)| connection);
    Ok(upgrade.on_upgrade(move |socket| serve(web, caller, Client { peer: peer.ip(), connection }, socket)))
}

/// A client, for those who decide who it is.
struct Client {
    peer: IpAddr,
    connection: Option<admission::Connection>,
}

impl Client {
    /// The caller with the key of its session, which the first message brings where the handshake
    /// had the cookie alone: a browser cannot put it
    /// into the handshake of a WebSocket.
    async fn identify(&self, web: &Web, caller: Caller, socket: &mut WebSocket) -> Result<Caller, End> {
        if !matches!(caller.credential, Credential::Cookie(_)) {
            return Ok(caller);
        }
        let evicted = async {
            match &self.connection {
                Some(connection) => connection.evicted().await,
                None => std::future::pending().await,
            }
        };
        let first = tokio::select! {
            biased;
            end = must_end(web, &caller) => return Err(end),
            () = evicted => return Err(End::Over),
            first = timeout(FIRST_MESSAGE, first_text(socket)) => {
                first.map_err(|_| End::Over)?.map_err(End::Broken)?.ok_or(End::Over)?
            }
        };
        let Ok(ClientMessage::Session { key }) = serde_json::from_str(&first) else { return Err(End::Revoked) };
        let known = web.access.borrow().with_key(&caller, &key).ok_or(End::Revoked)?;
        if let Some(connection) = &self.connection {
            connection.mark_authenticated();
        }
        login::note_use(web, &known, Some(self.peer));
        Ok(known)
    }
}

/// The first message that is a text.
async fn first_text(socket: &mut WebSocket) -> Result<Option<Utf8Bytes>, axum::Error> {
    loop {
        match socket.recv().await.transpose()? {
            Some(Message::Text(text)) => return Ok(Some(text)),
            Some(Message::Ping(_) | Message::Pong(_)) => {}
            Some(Message::Binary(_) | Message::Close(_)) | None => return Ok(None),
        }
    }
}

async fn serve(web: Web, caller: Caller, client: Client, mut socket: WebSocket) {
    let end = match client.identify(&web, caller, &mut socket).await {
        Ok(caller) => serve_known(web, caller, &mut socket).await,
        Err(end) => end,
    };
    if let End::Broken(error) = &end {
        let frame = CloseFrame { code: mqtt::code_of(error, client.connection.as_ref()), reason: "".into() };
        let _ = timeout(LAST_WORD, socket.send(Message::Close(Some(frame)))).await;
    }
    if let (End::Revoked, Ok(word)) = (end, text(&ServerMessage::Expired)) {
        // Whoever does not take it, goes without.
        let _ = timeout(LAST_WORD, socket.send(word)).await;
    }
}

async fn serve_known(web: Web, caller: Caller, socket: &mut WebSocket) -> End {
    let (outbox, messages) = mpsc::channel(OUTBOX);
    let connection = Connection {
        web,
        caller,
        outbox,
        followed: Vec::new(),
        watched: Vec::new(),
        hidden: false,
        questions: HashMap::new(),
        work: JoinSet::new(),
        silent: 0,
    };
    // Its tasks end with the connection.
    let Err(end) = connection.run(socket, messages).await;
    end
}

/// What is sent next.
enum Next {
    Frame(Result<Frame, broadcast::error::RecvError>),
    Own(ServerMessage),
    Received(Option<Result<Message, axum::Error>>),
    Heartbeat,
}

/// Why a feed ends.
enum End {
    /// The browser has gone or takes nothing any more, or the controller stops.
    Over,
    /// Its caller is not who it was.
    Revoked,
    /// The browser has sent what no browser sends, such as a message that is too large.
    Broken(axum::Error),
}

/// Resolves when a feed has to end, whatever it is doing.
async fn must_end(web: &Web, caller: &Caller) -> End {
    tokio::select! {
        biased;
        () = web.stop.cancelled() => End::Over,
        () = web.revoked(caller) => End::Revoked,
    }
}

struct Connection {
    web: Web,
    caller: Caller,
    outbox: mpsc::Sender<ServerMessage>,
    followed: Vec<(RunId, AbortHandle)>,
    watched: Vec<PiId>,
    /// Whether nobody looks.
    hidden: bool,
    /// Commands that wait for a yes or no.
    questions: HashMap<u32, oneshot::Sender<bool>>,
    work: JoinSet<()>,
    silent: u32,
}

impl Connection {
    /// Serves until something ends it.
    async fn run(
        mut self,
        socket: &mut WebSocket,
        mut messages: mpsc::Receiver<ServerMessage>,
    ) -> Result<Infallible, End> {
        let mut frames = self.join(socket).await?;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.reset();
        loop {
            let next = tokio::select! {
                biased;
                end = must_end(&self.web, &self.caller) => return Err(end),
                frame = frames.recv() => Next::Frame(frame),
                Some(message) = messages.recv() => Next::Own(message),
                received = socket.recv() => Next::Received(received),
                _ = heartbeat.tick() => Next::Heartbeat,
            };
            match next {
                Next::Frame(Ok(frame)) => self.send_frame(socket, frame).await?,
                Next::Frame(Err(_)) => frames = self.join(socket).await?,
                Next::Own(message) => self.own(socket, &message).await?,
                Next::Received(Some(Ok(message))) => self.received(socket, &mut frames, message).await?,
                Next::Received(Some(Err(error))) => return Err(End::Broken(error)),
                Next::Received(None) => return Err(End::Over),
                Next::Heartbeat => self.heartbeat(socket).await?,
            }
            while self.work.try_join_next().is_some() {}
        }
    }

    /// Sends, and ends the feed if it has to end first, or if the browser takes too long.
    async fn send(&mut self, socket: &mut WebSocket, message: Message) -> Result<(), End> {
        let sent = tokio::select! {
            biased;
            end = must_end(&self.web, &self.caller) => return Err(end),
            sent = timeout(SENDING, socket.send(message)) => sent,
        };
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(End::Over) }
    }

    async fn send_frame(&mut self, socket: &mut WebSocket, frame: Frame) -> Result<(), End> {
        self.send(socket, Message::Text(Utf8Bytes::try_from(frame).map_err(|_| End::Over)?)).await
    }

    async fn tell(&mut self, socket: &mut WebSocket, message: &ServerMessage) -> Result<(), End> {
        self.send(socket, text(message).map_err(|_| End::Over)?).await
    }

    /// A snapshot, and every frame from exactly then on.
    async fn join(&mut self, socket: &mut WebSocket) -> Result<broadcast::Receiver<Frame>, End> {
        let (caller, hidden) = (self.caller.clone(), self.hidden);
        let joined = self.web.ask(|reply| Ask::Join(caller, hidden, reply)).await;
        let (mut snapshot, frames) = joined.map_err(|_| End::Over)?;
        if let ServerMessage::Snapshot { machines, .. } = &mut snapshot {
            let mut rest = std::mem::take(machines).into_iter();
            while rest.len() > MACHINES_PER_MESSAGE {
                let machines = rest.by_ref().take(MACHINES_PER_MESSAGE).collect();
                self.tell(socket, &ServerMessage::Machines { machines }).await?;
            }
            *machines = rest.collect();
        }
        self.tell(socket, &snapshot).await?;
        Ok(frames)
    }

    /// A hidden tab is told less, and everything anew when somebody looks again.
    async fn shown(
        &mut self,
        socket: &mut WebSocket,
        frames: &mut broadcast::Receiver<Frame>,
        visible: bool,
    ) -> Result<(), End> {
        if self.hidden != visible {
            return Ok(());
        }
        self.hidden = !visible;
        if visible {
            *frames = self.join(socket).await?;
            self.renew_watch().await;
            return Ok(());
        }
        let fewer = self.web.ask(Ask::Hide).await.map_err(|_| End::Over)?;
        // What was on its way is told before; what is in both is told twice, in its order.
        loop {
            match frames.try_recv() {
                Ok(frame) => self.send_frame(socket, frame).await?,
                Err(TryRecvError::Lagged(_)) => break *frames = self.join(socket).await?,
                Err(_) => break *frames = fewer,
            }
        }
        Ok(())
    }

    /// Sends what the browser asked for. A run that was followed to its end has left its place
    /// before the browser can know, and ask for another.
    async fn own(&mut self, socket: &mut WebSocket, message: &ServerMessage) -> Result<(), End> {
        if let ServerMessage::Output { run, done: true, .. } | ServerMessage::Unfollowed { run, .. } = message {
            self.followed.retain(|(followed, _)| followed != run);
        }
        self.tell(socket, message).await
    }

    async fn heartbeat(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        self.silent += 1;
        if self.silent > MISSED_HEARTBEATS {
            return Err(End::Over);
        }
        self.renew_watch().await;
        self.send(socket, Message::Ping(axum::body::Bytes::new())).await
    }

    async fn renew_watch(&self) {
        if !self.watched.is_empty() && !self.hidden {
            let _ = self.web.asks.send(Ask::Watch(self.watched.clone())).await;
        }
    }

    async fn received(
        &mut self,
        socket: &mut WebSocket,
        frames: &mut broadcast::Receiver<Frame>,
        message: Message,
    ) -> Result<(), End> {
        self.silent = 0;
        let Message::Text(text) = message else { return Ok(()) };
        match serde_json::from_str(&text) {
            // Who it is was decided before.
            Ok(ClientMessage::Session { .. }) => {}
            Ok(ClientMessage::Ping { id }) => return self.tell(socket, &ServerMessage::Pong { id }).await,
            Ok(ClientMessage::Visible { visible }) => return self.shown(socket, frames, visible).await,
            Ok(ClientMessage::Watch { pis }) => self.watch(pis).await,
            Ok(ClientMessage::Follow { run, from }) => return self.follow(socket, run, from).await,
            Ok(ClientMessage::Unfollow { run }) => self.unfollow(run),
            Ok(ClientMessage::Command { id, line }) => self.command(id, line),
            Ok(ClientMessage::Confirm { id, yes }) => self.confirm(id, yes),
            Ok(ClientMessage::Complete { id, line, cursor }) => self.complete(id, line, cursor),
            Err(error) => tracing::debug!(%error, "a browser sent a message that cannot be read"),
        }
        Ok(())
    }

    async fn watch(&mut self, mut pis: Vec<PiId>) {
        pis.truncate(MAX_FOLLOWED);
        self.watched = pis;
        self.renew_watch().await;
    }

    async fn follow(&mut self, socket: &mut WebSocket, run: RunId, from: u64) -> Result<(), End> {
        self.unfollow(run);
        let (web, outbox) = (self.web.clone(), self.outbox.clone());
        let handle = self.work.spawn(async move {
            if let Err(refused) = follow(&web, run, from, &outbox).await {
                let _ = outbox.send(ServerMessage::Unfollowed { run, reason: refused.detail }).await;
            }
        });
        self.followed.push((run, handle));
        if self.followed.len() <= MAX_FOLLOWED {
            return Ok(());
        }
        let (run, oldest) = self.followed.remove(0);
        oldest.abort();
        let reason = format!("{MAX_FOLLOWED} other runs are followed since");
        self.tell(socket, &ServerMessage::Unfollowed { run, reason }).await
    }

    fn unfollow(&mut self, run: RunId) {
        self.followed.retain(|(followed, handle)| {
            if *followed == run {
                handle.abort();
            }
            *followed != run
        });
    }

    fn command(&mut self, id: u32, line: String) {
        if self.work.len() >= MAX_COMMANDS + self.followed.len() {
            let sentence = format!("{MAX_COMMANDS} commands of this browser are at work: end one with Ctrl-C, or wait");
            for message in console::refusal(id, &sentence) {
                // Whoever has so many answers waiting that there is no room for this one does not
                // read them.
                let _ = self.outbox.try_send(message);
            }
            return;
        }
        let (yes, answer) = oneshot::channel();
        self.questions.retain(|_, question| !question.is_closed());
        self.questions.insert(id, yes);
        let terminal = console::Terminal::new(self.web.clone(), self.caller.clone(), id, self.outbox.clone(), answer);
        self.work.spawn(async move {
            terminal.run(&line).await;
        });
    }

    fn confirm(&mut self, id: u32, yes: bool) {
        if let Some(question) = self.questions.remove(&id) {
            let _ = question.send(yes);
        }
    }

    fn complete(&mut self, id: u32, line: String, cursor: u32) {
        if self.work.len() >= MAX_COMMANDS + self.followed.len() {
            return;
        }
        let (web, role, outbox) = (self.web.clone(), self.caller.role, self.outbox.clone());
        self.work.spawn(async move {
            if let Ok(names) = web.ask(Ask::Names).await {
                let _ = outbox.send(console::complete(id, &line, cursor, &names, role)).await;
            }
        });
    }
}

/// Sends a run's output as it is stored, as fast as the browser takes it.
async fn follow(web: &Web, run: RunId, from: u64, outbox: &mpsc::Sender<ServerMessage>) -> Result<(), Refused> {
    let mut follower = Follower::new(web, run, from).await?;
    while let Some(mut pieces) = follower.next().await? {
        pieces.retain(|piece| piece.seq >= from);
        if outbox.send(ServerMessage::Output { run, pieces, done: false }).await.is_err() {
            return Ok(());
        }
    }
    let _ = outbox.send(ServerMessage::Output { run, pieces: Vec::new(), done: true }).await;
    Ok(())
}

fn text(message: &ServerMessage) -> serde_json::Result<Message> {
    serde_json::to_string(message).map(|text| Message::Text(Utf8Bytes::from(text)))
}
