//! MQTT over WebSocket (sub-protocol `mqtt`): the same broker, by the HTTP port. Only CONNECT
//! credentials count here, never a cookie.
//!
//! Until the broker has let its client in, no more is read of a connection than a CONNECT may have:
//! the frame that a client begins would otherwise be kept until it is complete, however large it
//! says that it is.
//!
//! A connection ends with its client or with the broker, never with the web server before it: to
//! the broker that would look like a fleet whose power failed.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{
        ConnectInfo, State,
        ws::{CloseCode, CloseFrame, Message, WebSocket, close_code},
    },
    response::Response,
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use pistat_broker::BrokerHandle;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    time::timeout,
};

use super::{Web, admission::Connection, problem::Handshake};
use crate::hub::ask::Refused;

/// The largest WebSocket frame and message, unless the largest packet is larger: several packets
/// may come in one.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// How many bytes wait between socket and broker: an idle agent should cost little.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long a client may take for the broker's last words.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// `GET /mqtt`.
#[utoipa::path(
    get, path = "/mqtt", operation_id = "mqtt", tag = "connections",
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 404, description = "There is no such broker here: it is another"),
        (status = 400, description = "This is no WebSocket handshake of sub-protocol mqtt"),
        (status = 426, description = "The connection cannot become a WebSocket"),
    )
)]
pub(super) async fn connect(
    State(web): State<Web>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Connection>,
    Handshake(upgrade): Handshake,
) -> Result<Response, Refused> {
    let Some(broker) = web.broker.clone() else {
        return Err(Refused::missing("this controller uses another MQTT broker: connect to that one"));
    };
    let most = MAX_MESSAGE_BYTES.max(broker.packet_bytes());
    // Twice a CONNECT: frames have headers, and a client may send it in several.
    connection.allow(2 * broker.connect_packet_bytes());
    let upgrade = upgrade
        .protocols(["mqtt"])
        .max_frame_size(most)
        .max_message_size(most)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0);
    let sockets = web.sockets.clone();
    Ok(upgrade.on_upgrade(move |socket| sockets.track_future(carry(broker, socket, peer, connection))))
}

async fn carry(broker: BrokerHandle, socket: WebSocket, peer: SocketAddr, connection: Connection) {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let known = connection.clone();
    broker.serve(theirs, peer, move || known.mark_authenticated());
    let (from_broker, to_broker) = tokio::io::split(ours);
    let (mut sink, mut stream) = socket.split();
    let code = {
        let to_client = to_client(from_broker, &mut sink);
        tokio::pin!(to_client);
        // Whichever side ends first ends the other; what the broker said last is still taken along.
        tokio::select! {
            () = &mut to_client => close_code::NORMAL,
            () = connection.evicted() => close_code::AGAIN,
            code = to_server(&mut stream, to_broker, &connection) => {
                let _ = timeout(LAST_WORDS, to_client).await;
                code
            }
        }
    };
    let last = async {
        close(&mut sink, code).await;
        // What still comes is read, so that closing the socket takes back nothing that was sent.
        while let Some(Ok(_)) = stream.next().await {}
    };
    let _ = timeout(LAST_WORDS, last).await;
}

/// Closes the WebSocket, unless the client has closed it already; then it is answered.
async fn close(sink: &mut SplitSink<WebSocket, Message>, code: CloseCode) {
    let frame = CloseFrame { code, reason: "".into() };
    let _ = sink.send(Message::Close(Some(frame))).await;
    let _ = sink.close().await;
}

/// With which code the WebSocket is closed when its client has ended it, or has broken the rules.
async fn to_server(
    stream: &mut SplitStream<WebSocket>,
    mut broker: WriteHalf<tokio::io::DuplexStream>,
    connection: &Connection,
) -> CloseCode {
    let code = loop {
        match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                if broker.write_all(&bytes).await.is_err() {
                    break close_code::NORMAL;
                }
            }
            // MQTT is binary (MQTT 5, section 6): anything else ends the connection.
            Some(Ok(Message::Text(_))) => break close_code::UNSUPPORTED,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Err(error)) => break code_of(&error, Some(connection)),
            Some(Ok(Message::Close(_))) | None => break close_code::NORMAL,
        }
    };
    let _ = broker.shutdown().await;
    code
}

/// With which code a WebSocket is closed after such an error. Of one that sends too much nothing
/// more is read.
pub(super) fn code_of(error: &axum::Error, connection: Option<&Connection>) -> CloseCode {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    let is_too_large = matches!(cause, Some(tungstenite::Error::Capacity(_)));
    if let Some(connection) = connection.filter(|_| is_too_large) {
        connection.allow(0);
    }
    let is_used_up = connection.is_some_and(|connection| connection.allowance().is_used_up());
    if is_too_large || is_used_up { close_code::SIZE } else { close_code::PROTOCOL }
}

async fn to_client(mut broker: ReadHalf<tokio::io::DuplexStream>, sink: &mut SplitSink<WebSocket, Message>) {
    let mut buffer = bytes::BytesMut::new();
    while broker.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
        let bytes: Bytes = buffer.split().freeze();
        if sink.send(Message::Binary(bytes)).await.is_err() {
            return;
        }
    }
}
