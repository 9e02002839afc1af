//! The same load on the Python original's shape: agents and browsers speak Socket.IO over
//! WebSocket.

use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use pistat_testkit::{DEADLINE, Process, eventually};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::load::{self, Row};

/// A connection that speaks Socket.IO 4 (Engine.IO 4) as far as it must.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn connect(port: u16) -> Option<Self> {
        let url = format!("ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket");
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.ok()?;
        socket.send(Message::text("40")).await.ok()?;
        loop {
            let Message::Text(text) = socket.next().await?.ok()? else { continue };
            if text.starts_with("40") {
                return Some(Self(socket));
            }
        }
    }

    async fn say(&mut self, event: &str, data: &str) -> bool {
        self.0.send(Message::text(format!("42[\"{event}\",{data}]"))).await.is_ok()
    }

    /// The next message; pings are answered on the way.
    async fn hear(&mut self) -> Option<String> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Text(text) if text.as_str() == "2" => self.0.send(Message::text("3")).await.ok()?,
                Message::Text(text) => return Some(text.to_string()),
                _ => {}
            }
        }
    }
}

pub async fn measure() {
    let epoch = Instant::now();
    println!("{}", Row::HEAD);
    for machines in load::list("PISTAT_BENCH_MACHINES", &[50, 200, 1000]) {
        for browsers in load::list("PISTAT_BENCH_BROWSERS", &[1, 10, 50]) {
            println!("{}", row(machines, browsers, epoch).await);
        }
    }
}

/// One cell of the table, with a server of its own.
pub async fn row(machines: usize, browsers: usize, epoch: Instant) -> Row {
    let python = std::env::var("PISTAT_ORIGINAL_PYTHON").unwrap_or_else(|_| "python3".into());
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("there is a port").port();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/original/main.py");
    let process = Process::start("the original", Command::new(&python).arg(script).args(["--port", &port.to_string()]));
    eventually("the original serves", DEADLINE, async || Socket::connect(port).await.map(|_| ()).ok_or("not yet"))
        .await;
    let mut agents = JoinSet::new();
    for number in 0..machines {
        agents.spawn(agent(port, number, machines, epoch));
    }
    let mut feeds = Vec::new();
    for _ in 0..browsers {
        let mut socket = Socket::connect(port).await.expect("a browser connects");
        socket.say("register_browser", "{}").await;
        feeds.push(socket);
    }
    load::watch(machines, feeds, process.id(), epoch, read_marks).await
}

async fn read_marks(socket: &mut Socket, marks: &mut Vec<u64>) -> bool {
    let Some(text) = socket.hear().await else { return false };
    load::marks(&text, "\"said\":", marks);
    true
}

/// One sample a second, and nothing else.
async fn agent(port: u16, number: usize, machines: usize, epoch: Instant) {
    let Some(mut socket) = Socket::connect(port).await else { return };
    let pi = format!("pi-{number}");
    socket.say("register_pi", &format!("{{\"pi_id\":\"{pi}\",\"label\":\"{pi}\"}}")).await;
    tokio::time::sleep(Duration::from_secs(1).mul_f64(number as f64 / machines as f64)).await;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            heard = socket.hear() => if heard.is_none() { return },
            _ = ticks.tick() => {
                let said = epoch.elapsed().as_micros();
                if !socket.say("pi_stats", &format!("{{\"pi_id\":\"{pi}\",\"cpu\":12.5,\"ram\":40.1,\"said\":{said}}}")).await {
                    return;
                }
            }
        }
    }
}
