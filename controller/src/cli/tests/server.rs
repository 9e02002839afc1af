//! A controller of few words: it answers what a test tells it to, and remembers what it was asked.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// A request as it came: method and path, authorization, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) authorization: String,
    pub(super) body: String,
}

/// One answer: the beginning of a request's line, the status, the body. An answer is used once,
/// unless it is the last for its line.
pub(super) type Answer = (&'static str, u16, String);

pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Receiver<Asked>,
}

impl Server {
    pub(super) fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, asked) = channel();
        // It ends when the test is over: nobody holds the listener's address any more, and the
        // process ends.
        thread::spawn(move || serve(&listener, answers, &sender));
        Self { address, asked }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.try_iter().collect()
    }
}

fn serve(listener: &TcpListener, mut answers: Vec<Answer>, asked: &Sender<Asked>) {
    while let Ok((stream, _)) = listener.accept() {
        let Some(request) = read(&stream) else { continue };
        let fits = |answer: &Answer| request.line.starts_with(answer.0);
        let (status, body) = match answers.iter().position(fits) {
            Some(at) => {
                let (line, status, body) = answers[at].clone();
                if answers.iter().filter(|answer| answer.0 == line).count() > 1 {
                    answers.remove(at);
                }
                (status, body)
            }
            None => (404, problem(404, &format!("no answer for {}", request.line))),
        };
        let _ = asked.send(request);
        let _ = write!(
            &stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Asked { line, authorization, body: String::from_utf8(body).ok()? })
}

pub(super) fn problem(status: u16, detail: &str) -> String {
    serde_json::json!({"type": "about:blank", "title": "no", "status": status, "detail": detail}).to_string()
}
