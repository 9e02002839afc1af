//! The HTTP port among hostile clients: whoever connects and says nothing, or says it slowly, keeps
//! nobody out.
//!
//! Everybody comes from one address here, as behind a reverse proxy.

use std::{net::SocketAddr, time::Duration};

use pistat_protocol::dashboard::{Change, MachineStatus};
use pistat_testkit::{DEADLINE, Feed, Stack};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Few places, of which strangers have fewer, and little patience.
const CONFIG: &str = "[http.limits]\nconnections = 150\nunauthenticated_connections = 60\n\
                      unauthenticated_connections_per_address = 50\nheader_timeout = '2s'\nbody_timeout = '2s'\nwrite_timeout = '2s'\n";

/// More than strangers may be from one address: what is known does not count for it.
const FEEDS: usize = 60;

/// Many times the places that there are, and how many of them come at a time: fewer than would push
/// out who has just come.
const HOSTILE: usize = 400;
const AT_ONCE: usize = 20;

/// What a stranger says before it says nothing more.
const BEGINNINGS: [&str; 5] = [
    "",
    "GET / HTTP/1.1\r\nHost:",
    "POST /api/login HTTP/1.1\r\nHost: pi\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    "GET /api/me HTTP/1.1\r\nHost: pi\r\nAuthorization: Bearer guess\r\n\r\n",
    "GET /mqtt HTTP/1.1\r\nHost: pi\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
];

/// A stranger of this kind says its beginning. Where it is not even received, or is ended in the
/// middle of a word, that is an end too.
async fn stranger(address: SocketAddr, number: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(BEGINNINGS[number % BEGINNINGS.len()].as_bytes()).await.ok()?;
    Some(stream)
}

/// So many come at the same time; when all have, they wait until they are ended.
async fn wave(address: SocketAddr, first: usize, waiting: &mut JoinSet<()>) {
    let coming: JoinSet<_> = (first..first + AT_ONCE).map(|number| stranger(address, number)).collect();
    for mut stream in coming.join_all().await.into_iter().flatten() {
        waiting.spawn(async move {
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
        });
    }
}

async fn sees_samples(feed: &mut Feed) {
    feed.change("a sample of the agent", |change| match change {
        Change::Stats { pi, .. } if pi.as_str() == "pi-1" => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_them_keep_nobody_out_and_end_no_feed_and_no_agent() {
    let mut stack = Stack::builder().embedded().config(CONFIG).start().await;
    let http = stack.http();
    let agent = stack.agent("pi-1").flag("--interval", "0.5").online(&http).await;
    let mut feeds = Vec::new();
    for _ in 0..FEEDS {
        feeds.push(stack.feed().await);
    }
    let session = http.machine(agent.pi()).await.unwrap().info.unwrap().session.clone();
    let mut strangers = JoinSet::new();
    for first in (0..HOSTILE).step_by(AT_ONCE) {
        let ((), answer) = tokio::join!(wave(stack.said.http_address, first, &mut strangers), http.get("/api/me"));
        assert_eq!(answer.status, 200, "after {first}");
    }
    // New ones are let in among them.
    let ((), feed) = tokio::join!(wave(stack.said.http_address, HOSTILE, &mut strangers), stack.feed());
    feeds.push(feed);
    let _other = stack.agent("pi-2").online(&http).await;
    for feed in &mut feeds {
        sees_samples(feed).await;
    }
    let all = async { while strangers.join_next().await.is_some() {} };
    tokio::time::timeout(DEADLINE, all).await.expect("every one of them is ended in time");
    let machine = http.machine(agent.pi()).await.unwrap();
    assert_eq!(
        (machine.status, machine.info.unwrap().session.clone()),
        (MachineStatus::Online, session),
        "it never left"
    );
    // Longer than anybody's patience lasts, what is known stays, and so it is when the controller
    // stops.
    tokio::time::timeout(DEADLINE, async {
        let until = tokio::time::Instant::now() + Duration::from_secs(3);
        while tokio::time::Instant::now() < until {
            sees_samples(&mut feeds[0]).await;
        }
    })
    .await
    .expect("samples go on");
    for feed in &mut feeds {
        sees_samples(feed).await;
    }
    assert_eq!(stack.stop().await, 0);
}
