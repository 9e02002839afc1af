//! The dashboard's WebSocket, without a dashboard.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pistat_protocol::{
    dashboard::{Change, ClientMessage, Machine, ServerMessage},
    id::RunId,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::client::Request,
        http::{HeaderName, HeaderValue},
    },
};

use crate::{http::Http, wait::DEADLINE};

/// A connected feed.
pub struct Feed {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u32,
}

/// What a command of the terminal led to.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Whether it did what it was asked.
    pub ok: bool,
    /// All text, with its colours.
    pub text: String,
    /// The runs that it started.
    pub runs: Vec<RunId>,
    /// The questions that were asked, and answered with yes.
    pub questions: Vec<String>,
}

impl Feed {
    /// Connects with the credential of a client, and with the origin that the dashboard has.
    ///
    /// # Errors
    /// The controller refuses it: the HTTP status, or 0 when there was none.
    pub async fn connect(http: &Http) -> Result<Self, u16> {
        Self::connect_from(http, Some(http.base())).await
    }

    /// Connects as a page of another origin would, or as a program without one.
    ///
    /// # Errors
    /// As [`Feed::connect`].
    pub async fn connect_from(http: &Http, origin: Option<&str>) -> Result<Self, u16> {
        let connected = tokio_tungstenite::connect_async(request(http, origin)).await;
        let (socket, _) = connected.map_err(|error| status(&error))?;
        Ok(Self { socket, next_id: 1 }.introduced(http).await)
    }

    /// The first message of a browser is the key of its session.
    async fn introduced(mut self, http: &Http) -> Self {
        if let Some(key) = http.session_key() {
            self.send(&ClientMessage::Session { key: key.to_owned() }).await;
        }
        self
    }

    /// Connects with a receive buffer that is soon full when nobody reads.
    ///
    /// # Errors
    /// As [`Feed::connect`].
    pub async fn connect_narrow(http: &Http) -> Result<Self, u16> {
        let address =
            http.base().rsplit('/').next().and_then(|host| host.parse().ok()).expect("the base has an address");
        let socket = TcpSocket::new_v4().expect("there are sockets");
        socket.set_recv_buffer_size(4096).expect("buffers may be small");
        let stream = MaybeTlsStream::Plain(socket.connect(address).await.map_err(|_| 0_u16)?);
        let connected = tokio_tungstenite::client_async(request(http, Some(http.base())), stream).await;
        let (socket, _) = connected.map_err(|error| status(&error))?;
        Ok(Self { socket, next_id: 1 }.introduced(http).await)
    }

    /// How many bytes have come that nobody has read.
    ///
    /// # Panics
    /// The feed is over TLS.
    pub fn unread_bytes(&self) -> u64 {
        let MaybeTlsStream::Plain(stream) = self.socket.get_ref() else { panic!("the feed is over TLS") };
        rustix::io::ioctl_fionread(stream).expect("a socket knows what has come")
    }

    /// The next message; `None` when the controller closed the feed.
    ///
    /// # Panics
    /// Nothing comes in time, or it is not understood.
    pub async fn next(&mut self, limit: Duration) -> Option<ServerMessage> {
        loop {
            let message = tokio::time::timeout(limit, self.socket.next()).await;
            match message.unwrap_or_else(|_| panic!("nothing came over the feed within {limit:?}")) {
                Some(Ok(Message::Text(text))) => {
                    let parsed = serde_json::from_str(&text);
                    return Some(parsed.unwrap_or_else(|error| panic!("the feed said {text}: {error}")));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next message as it came; `None` when the controller closed the feed.
    pub async fn text(&mut self) -> Option<tungstenite::Utf8Bytes> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Some(text),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Sends a text that is larger than any that is taken; the code with which the controller
    /// closes the feed.
    pub async fn send_too_much(&mut self, text: &str) -> Option<u16> {
        let _ = self.socket.send(Message::text(text)).await;
        let closing = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        tokio::time::timeout(DEADLINE, closing).await.ok().flatten()
    }

    /// Reads until `find` gives something.
    ///
    /// # Panics
    /// It does not within [`DEADLINE`], or the feed is closed.
    pub async fn until<T>(&mut self, what: &str, mut find: impl FnMut(&ServerMessage) -> Option<T>) -> T {
        let reading = async {
            loop {
                let message = self.next(DEADLINE).await.unwrap_or_else(|| panic!("the feed was closed before {what}"));
                if let Some(found) = find(&message) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(DEADLINE, reading).await;
        found.unwrap_or_else(|_| panic!("the feed did not show {what} within {DEADLINE:?}"))
    }

    /// Reads until a change for which `find` gives something.
    pub async fn change<T>(&mut self, what: &str, mut find: impl FnMut(&Change) -> Option<T>) -> T {
        self.until(what, |message| match message {
            ServerMessage::Changes { changes, .. } => changes.iter().find_map(&mut find),
            _ => None,
        })
        .await
    }

    /// The machines of the snapshot, which must be what comes next.
    pub async fn machines(&mut self) -> Vec<Machine> {
        let mut all = Vec::new();
        loop {
            match self.next(DEADLINE).await {
                Some(ServerMessage::Machines { machines }) => all.extend(machines),
                Some(ServerMessage::Snapshot { machines, .. }) => {
                    all.extend(machines);
                    return all;
                }
                other => panic!("a feed begins with a snapshot, not with {other:?}"),
            }
        }
    }

    /// Sends a message.
    ///
    /// # Panics
    /// The feed is closed.
    pub async fn send(&mut self, message: &ClientMessage) {
        self.send_text(&serde_json::to_string(message).expect("messages are JSON")).await;
    }

    /// Sends what may be no message at all.
    ///
    /// # Panics
    /// The feed is closed.
    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the feed is open");
    }

    /// Types a line into the terminal, says yes to every question, and waits for the command's end.
    pub async fn command(&mut self, line: &str) -> Answer {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&ClientMessage::Command { id, line: line.to_owned() }).await;
        let mut answer = Answer::default();
        loop {
            let what = format!("the end of `{line}` (so far {answer:?})");
            let message = self.until(&what, |message| is_about(message, id).then(|| message.clone())).await;
            match message {
                ServerMessage::Text { text, .. } => answer.text.push_str(&text),
                ServerMessage::Started { runs, .. } => answer.runs = runs,
                ServerMessage::Ask { question, .. } => {
                    answer.questions.push(question);
                    self.send(&ClientMessage::Confirm { id, yes: true }).await;
                }
                ServerMessage::Done { ok, .. } => {
                    answer.ok = ok;
                    return answer;
                }
                _ => {}
            }
        }
    }

    /// Follows a run from its first chunk to its end, and gives all of its output.
    pub async fn output(&mut self, run: RunId) -> String {
        self.send(&ClientMessage::Follow { run, from: 0 }).await;
        let mut text = String::new();
        self.until(&format!("the end of the output of {run}"), |message| match message {
            ServerMessage::Output { run: other, pieces, done } if *other == run => {
                text.extend(pieces.iter().map(|piece| piece.data.as_str()));
                done.then_some(())
            }
            _ => None,
        })
        .await;
        text
    }
}

fn request(http: &Http, origin: Option<&str>) -> Request {
    let url = format!("{}/api/ws", http.base().replacen("http", "ws", 1));
    let mut request = url.into_client_request().expect("the address is a URL");
    let headers = http.handshake_headers().into_iter();
    for (name, value) in headers.chain(origin.map(|origin| ("Origin".to_owned(), origin.to_owned()))) {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("names of headers are plain text");
        request.headers_mut().insert(name, HeaderValue::from_str(&value).expect("tokens are plain text"));
    }
    request
}

fn status(error: &tungstenite::Error) -> u16 {
    match error {
        tungstenite::Error::Http(reply) => reply.status().as_u16(),
        _ => 0,
    }
}

fn is_about(message: &ServerMessage, number: u32) -> bool {
    match message {
        ServerMessage::Text { id, .. }
        | ServerMessage::Ask { id, .. }
        | ServerMessage::Started { id, .. }
        | ServerMessage::Perform { id, .. }
        | ServerMessage::Done { id, .. } => *id == number,
        _ => false,
    }
}
