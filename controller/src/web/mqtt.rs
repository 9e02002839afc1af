//! MQTT over WebSocket (sub-protocol `mqtt`): the same broker, by the HTTP port. Only CONNECT credentials count here, never a cookie.
//!
//! A connection ends with its client or with the broker, never with the web server before it: to the broker that would look like a fleet whose power failed.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{
        ConnectInfo, State,
        ws::{Message, WebSocket},
    },
    response::Response,
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use pistat_broker::BrokerHandle;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    time::timeout,
};

use super::{Web, admission::Visitor, problem::Handshake};
use crate::hub::ask::Refused;

/// The largest WebSocket message: MQTT packets may be larger, they then come in several messages.
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
    Extension(visitor): Extension<Visitor>,
    Handshake(upgrade): Handshake,
) -> Result<Response, Refused> {
    let Some(broker) = web.broker.clone() else {
        return Err(Refused::missing("this controller uses another MQTT broker: connect to that one"));
    };
    let upgrade = upgrade
        .protocols(["mqtt"])
        .max_message_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0);
    let sockets = web.sockets.clone();
    Ok(upgrade.on_upgrade(move |socket| sockets.track_future(carry(broker, socket, peer, visitor))))
}

async fn carry(broker: BrokerHandle, socket: WebSocket, peer: SocketAddr, visitor: Visitor) {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let known = visitor.clone();
    broker.serve(theirs, peer, move || known.let_in());
    let (from_broker, to_broker) = tokio::io::split(ours);
    let (sink, stream) = socket.split();
    let to_client = to_client(from_broker, sink);
    tokio::pin!(to_client);
    // Whichever side ends first ends the other; what the broker said last is still taken along.
    tokio::select! {
        () = &mut to_client => {}
        () = visitor.turned_out() => {}
        () = to_server(stream, to_broker) => {
            let _ = timeout(LAST_WORDS, to_client).await;
        }
    }
}

async fn to_server(mut stream: SplitStream<WebSocket>, mut broker: WriteHalf<tokio::io::DuplexStream>) {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(bytes) => {
                if broker.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            // MQTT is binary (MQTT 5, section 6): anything else ends the connection.
            Message::Text(_) | Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
    let _ = broker.shutdown().await;
}

async fn to_client(mut broker: ReadHalf<tokio::io::DuplexStream>, mut sink: SplitSink<WebSocket, Message>) {
    let mut buffer = bytes::BytesMut::new();
    while broker.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
        let bytes: Bytes = buffer.split().freeze();
        if sink.send(Message::Binary(bytes)).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}
