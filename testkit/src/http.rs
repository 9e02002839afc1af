//! The HTTP API as a client sees it.

use std::{io::Read, time::Duration};

use pistat_protocol::{
    api::{AcceptedRuns, Problem, SESSION_KEY_HEADER, SignedIn},
    dashboard::{Event, Machine, Run},
    id::RunId,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::wait::{STANDSTILL, eventually};

/// How much of a followed output may wait for a test that reads it: pieces of at most 64 KiB.
const PIECES: usize = 16;

/// Who asks.
#[derive(Debug, Clone)]
enum Credential {
    None,
    Bearer(String),
    Session { cookie: String, key: Option<String> },
}

/// A client of one controller, with one credential.
#[derive(Debug, Clone)]
pub struct Http {
    base: String,
    credential: Credential,
    headers: Vec<(String, String)>,
    client: ureq::Agent,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
    /// `Set-Cookie`, if there was one.
    pub cookie: Option<String>,
    /// `Content-Type`, empty if there was none.
    pub content_type: String,
}

impl Reply {
    /// The body as JSON of this type.
    ///
    /// # Panics
    /// The status is not a success, or the body is something else.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        assert!((200..300).contains(&self.status), "a success was expected: {self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem that it describes, as RFC 9457 wants it.
    ///
    /// # Panics
    /// It describes none.
    pub fn problem(&self) -> Problem {
        assert!(self.status >= 400, "a refusal was expected: {self:?}");
        assert!(self.content_type.starts_with("application/problem+json"), "a refusal is problem+json: {self:?}");
        let problem: Problem = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(problem.status, self.status, "the body repeats the status: {self:?}");
        assert!(problem.detail.len() > 10, "a person needs a sentence: {self:?}");
        problem
    }
}

impl Http {
    /// A client without a credential.
    pub fn new(base: &str) -> Self {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_connect(Some(Duration::from_secs(5)));
        let client = config.timeout_global(Some(Duration::from_secs(180))).max_redirects(0).build().into();
        Self { base: base.trim_end_matches('/').to_owned(), credential: Credential::None, headers: Vec::new(), client }
    }

    /// The same client with a token.
    #[must_use]
    pub fn bearer(&self, token: &str) -> Self {
        Self { credential: Credential::Bearer(token.trim().to_owned()), ..self.clone() }
    }

    /// The same client with the cookie of a session alone, as another program on the controller's
    /// host gets it.
    #[must_use]
    pub fn cookie(&self, cookie: &str) -> Self {
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Self { credential: Credential::Session { cookie, key: None }, ..self.clone() }
    }

    /// The same client with the session that a sign-in began: its cookie, and the key of its page.
    ///
    /// # Panics
    /// The reply is not that of a sign-in.
    #[must_use]
    pub fn session(&self, reply: &Reply) -> Self {
        let SignedIn { session_key, .. } = reply.json();
        let Credential::Session { cookie, .. } = self.cookie(reply.cookie.as_deref().expect("a cookie")).credential
        else {
            unreachable!("a cookie makes a session")
        };
        Self { credential: Credential::Session { cookie, key: Some(session_key) }, ..self.clone() }
    }

    /// A browser that signs in with this token.
    pub async fn sign_in(&self, token: &str) -> Self {
        self.session(&self.post("/api/login", json!({ "token": token })).await)
    }

    /// The same client, which sends a header more.
    #[must_use]
    pub fn header(&self, name: &str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.push((name.to_owned(), value.to_owned()));
        Self { headers, ..self.clone() }
    }

    /// The address of the controller.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The headers that carry the credential, and those that were added. The handshake of a
    /// browser's WebSocket lacks the session's key.
    pub fn handshake_headers(&self) -> Vec<(String, String)> {
        let credential = match &self.credential {
            Credential::None => None,
            Credential::Bearer(token) => Some(("Authorization".to_owned(), format!("Bearer {token}"))),
            Credential::Session { cookie, .. } => Some(("Cookie".to_owned(), cookie.clone())),
        };
        credential.into_iter().chain(self.headers.iter().cloned()).collect()
    }

    /// The key of the session's page, if there is one.
    pub fn session_key(&self) -> Option<&str> {
        match &self.credential {
            Credential::Session { key, .. } => key.as_deref(),
            _ => None,
        }
    }

    /// Asks; a connection that fails is an error, a refusal is a reply.
    ///
    /// # Errors
    /// The controller cannot be reached.
    pub async fn try_send(&self, method: &str, path: &str, body: Option<Value>) -> Result<Reply, String> {
        let (this, method, path) = (self.clone(), method.to_owned(), path.to_owned());
        let asked = tokio::task::spawn_blocking(move || this.send_now(&method, &path, body));
        asked.await.expect("asking does not panic").map_err(|error| error.to_string())
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        let key = self.session_key().map(|key| (SESSION_KEY_HEADER.to_owned(), key.to_owned()));
        self.handshake_headers()
            .into_iter()
            .chain(key)
            .fold(request, |request, (name, value)| request.header(name, value))
    }

    fn send_now(&self, method: &str, path: &str, body: Option<Value>) -> Result<Reply, ureq::Error> {
        let request = self.request(method, path);
        let mut reply = if let Some(body) = body {
            let request = request.header("Content-Type", "application/json").body(body.to_string())?;
            self.client.run(self.client.configure_request(request).allow_non_standard_methods(true).build())?
        } else {
            let request = self.client.configure_request(request.body(())?).allow_non_standard_methods(true).build();
            self.client.run(request)?
        };
        let header = |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (cookie, content_type) = (header("set-cookie"), header("content-type").unwrap_or_default());
        let status = reply.status().as_u16();
        let bytes = reply.body_mut().with_config().limit(256 * 1024 * 1024).read_to_vec()?;
        Ok(Reply { status, body: String::from_utf8_lossy(&bytes).into_owned(), cookie, content_type })
    }

    /// Asks.
    ///
    /// # Panics
    /// The controller cannot be reached.
    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.try_send(method, path, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None).await
    }

    /// `POST` with JSON.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send("POST", path, Some(body)).await
    }

    /// One machine, or why there is none.
    ///
    /// # Errors
    /// The controller does not answer, or does not know it.
    pub async fn machine(&self, pi: &str) -> Result<Machine, String> {
        let reply = self.try_send("GET", &format!("/api/pis/{pi}"), None).await?;
        if reply.status == 200 { Ok(reply.json()) } else { Err(format!("{reply:?}")) }
    }

    /// Asks for a run.
    pub async fn ask_run(&self, task: &str, target: &str, args: Value) -> Reply {
        self.post("/api/runs", json!({"task": task, "target": target, "args": args, "confirmed": true})).await
    }

    /// Starts a run on one machine.
    ///
    /// # Panics
    /// It is refused.
    pub async fn start_run(&self, task: &str, pi: &str, args: Value) -> RunId {
        let reply = self.ask_run(task, pi, args).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.json::<AcceptedRuns>().runs[0]
    }

    /// One run.
    ///
    /// # Errors
    /// The controller does not answer, or does not know it.
    pub async fn run(&self, run: RunId) -> Result<Run, String> {
        let reply = self.try_send("GET", &format!("/api/runs/{run}"), None).await?;
        if reply.status == 200 { Ok(reply.json()) } else { Err(format!("{reply:?}")) }
    }

    /// Waits until a run is in a final state.
    pub async fn ended(&self, run: RunId, limit: Duration) -> Run {
        eventually(&format!("run {run} ends"), limit, async || {
            let run = self.run(run).await?;
            if run.state.is_final() { Ok(run) } else { Err(format!("{run:?}")) }
        })
        .await
    }

    /// The stored output of a run.
    pub async fn output(&self, run: RunId) -> String {
        let reply = self.get(&format!("/api/runs/{run}/output")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    }

    /// The newest events.
    pub async fn events(&self) -> Vec<Event> {
        self.get("/api/events").await.json()
    }

    /// Waits for an event whose text contains all of these words.
    pub async fn event(&self, words: &[&str], limit: Duration) -> Event {
        eventually(&format!("there is an event with {words:?}"), limit, async || {
            let events = self.events().await;
            let texts: Vec<_> = events.iter().take(20).map(|event| event.text.clone()).collect();
            let found = events.into_iter().find(|event| words.iter().all(|word| event.text.contains(word)));
            found.ok_or(format!("{texts:#?}"))
        })
        .await
    }

    /// Follows the output of a run to its end: the pieces as they come.
    pub fn follow(&self, run: RunId) -> mpsc::Receiver<Vec<u8>> {
        let (send, receive) = mpsc::channel(PIECES);
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let request = this.request("GET", &format!("/api/runs/{run}/output?follow=true")).body(());
            let Ok(request) = request else { return };
            let Ok(reply) = this.client.run(request) else { return };
            let mut body = reply.into_body().into_reader();
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = body.read(&mut buffer) {
                if send.blocking_send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        receive
    }
}

/// Everything that a followed output still brings, as text.
pub async fn rest(mut pieces: mpsc::Receiver<Vec<u8>>) -> String {
    let mut bytes = Vec::new();
    loop {
        let piece = tokio::time::timeout(STANDSTILL, pieces.recv()).await;
        let Some(piece) = piece.unwrap_or_else(|_| panic!("no more came after {} bytes", bytes.len())) else { break };
        bytes.extend(piece);
    }
    String::from_utf8(bytes).expect("output is UTF-8")
}
