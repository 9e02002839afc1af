//! WebSockets among hostile clients: what they may make the controller buffer before they are
//! authenticated, and the codes with which they are closed.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use pistat_testkit::{
    DEADLINE, Stack,
    packet::{Connect, packet, string},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// As many unauthenticated connections as one address may have, but for a few.
const UNAUTHENTICATED: usize = 990;

async fn open(address: SocketAddr) -> Socket {
    open_over(address, TcpSocket::new_v4().unwrap()).await
}

async fn open_over(address: SocketAddr, socket: TcpSocket) -> Socket {
    let mut request = format!("ws://{address}/mqtt").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
    let stream = MaybeTlsStream::Plain(socket.connect(address).await.unwrap());
    tokio_tungstenite::client_async(request, stream).await.expect("the handshake succeeds").0
}

/// With which code the controller closes it; whatever else comes before is left out.
async fn closed(socket: &mut Socket) -> Option<CloseCode> {
    let closing = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    };
    timeout(DEADLINE, closing).await.expect("it is closed in time")
}

/// CONNECT of 3.1.1 with a clean session.
fn connect(user: &str, password: &str) -> Vec<u8> {
    Connect::v311("").login(user, password).encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_unauthenticated_connections_with_the_largest_frames_cost_little_memory() {
    let upgrade = "GET /mqtt HTTP/1.1\r\nHost: pi\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    // A frame of 16 MiB that never ends, one of the largest size that an authenticated client may
    // send, and one of just the size that is taken, of which the last byte never comes; a head of a
    // request, and a body, that never end either.
    let login =
        "POST /api/login HTTP/1.1\r\nHost: pi\r\nContent-Type: application/json\r\nContent-Length: 65536\r\n\r\n{";
    let frames: [Vec<u8>; 5] = [
        [&[0x82, 0xFF, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &vec![0x55; 1 << 20]].concat(),
        [&[0x82, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0][..], &vec![0x55; (1 << 20) - 1]].concat(),
        [&[0x82, 0xFE, 0x7F, 0xE0, 0, 0, 0, 0][..], &vec![0x55; 0x7FE0 - 200]].concat(),
        [b"GET / HTTP/1.1\r\nHost: pi\r\nX: ", &vec![b'x'; 1 << 20][..]].concat(),
        [login.as_bytes(), &vec![b' '; 65_000]].concat(),
    ];
    for (kind, frame) in frames.iter().enumerate() {
        let mut stack = Stack::builder().embedded().start().await;
        let (address, http) = (stack.said.http_address, stack.http());
        let before = stack.process().resident_bytes();
        let mut sockets = Vec::new();
        for _ in 0..UNAUTHENTICATED {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if kind < 3 {
                stream.write_all(upgrade.as_bytes()).await.unwrap();
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"HTTP/1.1 101");
            }
            // Some of it is refused while it is sent.
            let _ = timeout(Duration::from_secs(1), stream.write_all(frame)).await;
            sockets.push(stream);
        }
        assert_eq!(http.get("/api/me").await.status, 200);
        let cost = stack.process().resident_bytes().saturating_sub(before);
        println!("{} connections of kind {kind} cost {cost} bytes", sockets.len());
        assert!(cost < 80_000_000, "kind {kind}: {cost} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_beyond_the_limit_closes_with_1009_and_text_with_1003() {
    let stack = Stack::builder().embedded().start().await;
    let address = stack.said.http_address;
    // Before CONNECT: a large frame, one that says that it will be, and many small ones that never
    // are a packet.
    let mut large = open(address).await;
    let _ = timeout(DEADLINE, large.send(Message::Binary(Bytes::from(vec![0x10; 300_000])))).await;
    assert_eq!(closed(&mut large).await, Some(CloseCode::Size));
    let mut many = open(address).await;
    let begun = packet(0x10, &[&[0; 15_000]]);
    many.send(Message::Binary(Bytes::from(begun[..10_000].to_vec()))).await.unwrap();
    for _ in 0..60 {
        let _ = many.send(Message::Ping(Bytes::from(vec![0; 120]))).await;
        let _ = many.send(Message::Binary(Bytes::from(vec![0; 1]))).await;
    }
    for _ in 0..300 {
        let _ = many.send(Message::Ping(Bytes::from(vec![0; 120]))).await;
    }
    assert_eq!(closed(&mut many).await, Some(CloseCode::Size));
    let mut text = open(address).await;
    text.send(Message::Text("CONNECT".into())).await.unwrap();
    assert_eq!(closed(&mut text).await, Some(CloseCode::Unsupported));
    // After it: a packet of almost the largest size passes in one frame, and more than that does
    // not.
    let mut client = open(address).await;
    client.send(Message::Binary(connect("admin", &stack.admin_token()).into())).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(vec![0x20, 2, 0, 0].into()));
    let publish = packet(0x32, &[&string("test/x"), &[0, 1], &vec![0; 1_000_000]]);
    client.send(Message::Binary(publish.into())).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(vec![0x40, 2, 0, 1].into()));
    let _ = timeout(DEADLINE, client.send(Message::Binary(vec![0; 3_000_000].into()))).await;
    assert_eq!(closed(&mut client).await, Some(CloseCode::Size));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_browser_that_is_too_large_closes_with_1009() {
    let stack = Stack::builder().embedded().start().await;
    let mut feed = stack.feed().await;
    assert_eq!(feed.send_too_much(&"x".repeat(200_000)).await, Some(1009));
}

/// The answer to a client that says goodbye at once is not taken back, though more came that the
/// broker does not read. The client takes little at a time, so most of the answer is still on its
/// way when the broker closes the connection.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_sent_before_a_goodbye_arrives_over_a_websocket_too() {
    const PINGS: usize = 8_000;
    let stack = Stack::builder().embedded().start().await;
    for _ in 0..20 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        let mut client = open_over(stack.said.http_address, socket).await;
        client.send(Message::Binary(connect("admin", &stack.admin_token()).into())).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(vec![0x20, 2, 0, 0].into()));
        let all = [[0xC0, 0].repeat(PINGS), vec![0xE0, 0], vec![0; 50_000]].concat();
        client.feed(Message::Binary(all.into())).await.unwrap();
        // Whatever is sent after the goodbye may be refused.
        let _ = client.send(Message::Binary(vec![0; 100_000].into())).await;
        let mut taken = 0;
        let reading = async {
            loop {
                match client.next().await {
                    Some(Ok(Message::Binary(bytes))) => taken += bytes.len(),
                    Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code),
                    other => panic!("{other:?}"),
                }
            }
        };
        assert_eq!(timeout(DEADLINE, reading).await.unwrap(), Some(CloseCode::Normal));
        assert_eq!(taken, 2 * PINGS);
    }
}
