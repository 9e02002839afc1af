//! One client: its connection from the first byte to the last.
//!
//! The session owns the protocol: CONNECT and its reply, keep alive, packet ids, `QoS` 1 and 2 both
//! ways, windows, aliases, the last will. It owns no subscription and no queue; those are the
//! hub's. It reads its socket only as fast as the log and slow subscribers take what it publishes,
//! so a fast publisher gets TCP's back-pressure.
//!
//! An idle session holds no buffer: bytes are read through the stack, and both buffers are given
//! back when empty.

mod connect;
mod end;
mod inbound;
mod outbound;
mod subscriptions;
mod throttle;
mod transport;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::access::Identity;
use crate::contract::Report;
use crate::front::Front;
use crate::incomplete::Share;
use crate::message::SessionId;
use crate::outbox::{Delivery, Outbox, Ready};
use crate::packet::{self, Fault, Packet, PacketType, reason, write};
use crate::rates::Meter;
use crate::store::StoredWill;
use end::Close;
use inbound::Inbound;
use outbound::Outbound;
use throttle::Throttle;
use transport::Transport;

pub(crate) use connect::{admit, serve, serve_admitted};

/// Output beyond which no more messages are taken from the outbox: a few writes' worth.
const OUTPUT_HIGH: usize = 64 * 1024;

/// Who the client is, for events.
#[derive(Debug, Clone)]
struct Client {
    account: Box<str>,
    client_id: Box<str>,
}

/// A connected client; see the module.
struct Session<S> {
    front: Arc<Front>,
    transport: Transport<S>,
    client: Client,
    id: SessionId,
    outbox: Arc<Outbox>,
    identity: Arc<Identity>,
    v5: bool,
    /// It bridges two brokers, see [`packet::Connect`].
    is_bridge: bool,
    /// One and a half times the keep alive; `None` without.
    keep_alive_timeout: Option<Duration>,
    last_received: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    inbound: Inbound,
    outbound: Outbound,
    will: Option<StoredWill>,
    /// Seconds that the session lives on without its client.
    expiry: u32,
    /// Whether it publishes faster than another session's client reads.
    throttle: Throttle,
    /// How fast it may publish.
    meter: Option<Meter>,
    /// What it holds of a packet that is not complete.
    share: Share,
    /// It publishes faster than its rate; nothing is read until then.
    paused_until: Option<Instant>,
    /// Reports the end to the hub, whatever happens.
    report: Report,
}

/// What a turn of the session found to do.
#[derive(Default)]
struct Turn {
    input: bool,
    messages: bool,
    timer: bool,
    close: Option<Close>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Serves the client until the connection ends. What it does is on the heap while it lasts: of
    /// these, a fleet has thousands that are idle.
    fn run(self) -> impl Future<Output = ()> {
        // Captured, where an `async fn` would keep a second place for it.
        let mut session = self;
        async move {
            // A client need not wait for the answer to CONNECT: what came with it is there already.
            let mut done = Box::pin(session.process_input()).await;
            while done.is_ok() {
                done = session.turn().await;
            }
            if let Err(close) = done {
                Box::pin(session.finish(close)).await;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Close> {
        let turn = poll_fn(|context| self.poll_turn(context)).await;
        if turn.messages {
            self.send_messages();
        }
        if turn.input {
            self.last_received = Instant::now();
            Box::pin(self.process_input()).await?;
            self.count_incomplete()?;
        }
        if let Some(close) = turn.close {
            return Err(close);
        }
        if turn.timer {
            self.on_timer()?;
        }
        Ok(())
    }

    /// What is kept while slow subscribers are waited for is bounded by itself, see [`Throttle`].
    fn count_incomplete(&mut self) -> Result<(), Close> {
        let bytes = if self.throttle.is_throttled() { 0 } else { self.transport.input.len() };
        if self.share.hold(bytes) {
            return Ok(());
        }
        let what = "the account has too many packets under way that are not complete";
        Err(Fault { reason: reason::QUOTA_EXCEEDED, what }.into())
    }

    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        let mut turn = Turn::default();
        if let Poll::Ready(Err(error)) = self.transport.poll_flush(context) {
            turn.close = Some(Close::Network(error.to_string()));
            return Poll::Ready(turn);
        }
        self.poll_outbox(&mut turn, context);
        self.poll_input(&mut turn, context);
        self.poll_timer(&mut turn, context);
        if turn.input || turn.messages || turn.timer || turn.close.is_some() {
            return Poll::Ready(turn);
        }
        self.transport.release();
        Poll::Pending
    }

    fn poll_outbox(&mut self, turn: &mut Turn, context: &mut Context<'_>) {
        let has_room = self.transport.pending_output() < OUTPUT_HIGH;
        if has_room && self.outbound.wants_to_resend() {
            turn.messages = true;
        }
        loop {
            match self.outbox.poll_ready(has_room, self.outbound.room() > 0, context) {
                Poll::Pending => return,
                Poll::Ready(Ready::Messages) => return turn.messages = true,
                Poll::Ready(Ready::Throttled(slow)) => {
                    let timeout = Duration::from_millis(self.front.limits.qos0_backpressure_milliseconds);
                    self.throttle.wait_for(slow, timeout);
                }
                Poll::Ready(Ready::Identity(identity)) => self.identity = identity,
                Poll::Ready(Ready::End(end)) => return turn.close = Some(Close::Hub(end)),
            }
        }
    }

    fn poll_input(&mut self, turn: &mut Turn, context: &mut Context<'_>) {
        if self.paused_until.is_some() || self.is_choked() {
            return;
        }
        self.throttle.poll_release(context);
        if self.throttle.is_throttled()
            && !self.throttle.reads_on(self.outbound.awaits_acks(), self.transport.input.len())
        {
            return;
        }
        if !self.throttle.is_throttled() && self.throttle.has_kept() {
            return turn.input = true;
        }
        if self.throttle.has_ended() {
            return turn.close = Some(Close::gone());
        }
        match self.transport.poll_fill(context) {
            Poll::Pending => {}
            Poll::Ready(Ok(count)) if count > 0 => turn.input = true,
            Poll::Ready(_) if self.throttle.keeps_end() => {}
            Poll::Ready(Ok(_)) => turn.close = Some(Close::gone()),
            Poll::Ready(Err(error)) => turn.close = Some(Close::Network(error.to_string())),
        }
    }

    fn poll_timer(&mut self, turn: &mut Turn, context: &mut Context<'_>) {
        let keep_alive = self.keep_alive_timeout.map(|timeout| self.last_received + timeout);
        let Some(deadline) = keep_alive.into_iter().chain(self.paused_until).chain(self.throttle.until).min() else {
            return;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // The timer is moved only when it has fired or must fire earlier: not with every packet.
        if timer.is_elapsed() || deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        turn.timer = timer.as_mut().poll(context).is_ready();
    }

    fn on_timer(&mut self) -> Result<(), Close> {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.throttle.until.is_some_and(|until| until <= now) {
            self.throttle.end_backpressure();
        }
        if self.keep_alive_timeout.is_none_or(|timeout| now < self.last_received + timeout) {
            return Ok(());
        }
        if !self.is_excused() {
            return Err(Close::KeepAlive);
        }
        self.last_received = now;
        Ok(())
    }

    /// So much waits to be sent that nothing is read.
    fn is_choked(&self) -> bool {
        self.transport.pending_output() > 2 * OUTPUT_HIGH
    }

    /// Silence is not the fault of a client that is not read; on a slow link as long as it takes
    /// what it is sent.
    fn is_excused(&mut self) -> bool {
        let has_taken = std::mem::take(&mut self.transport.has_written);
        self.throttle.is_throttled() || self.paused_until.is_some() || (self.is_choked() && has_taken)
    }

    /// Takes what fits from the outbox and writes it into the output buffer.
    fn send_messages(&mut self) {
        let output = &mut self.transport.output;
        self.outbound.resend(output, OUTPUT_HIGH, &self.front);
        if self.outbound.wants_to_resend() {
            return;
        }
        let mut room = OUTPUT_HIGH.saturating_sub(output.len());
        let mut messages: Vec<Delivery> = Vec::new();
        self.outbox.drain(self.outbound.room(), |delivery| {
            let message = &delivery.message;
            room = room.saturating_sub(message.bytes().max(message.payload_bytes()));
            messages.push(delivery);
            room > 0
        });
        for delivery in messages {
            self.outbound.send(delivery, output, &self.front);
        }
    }

    async fn process_input(&mut self) -> Result<(), Close> {
        if self.throttle.is_throttled() {
            return self.process_while_throttled().await;
        }
        let input = std::mem::take(&mut self.transport.input);
        let mut done = 0;
        let result = self.process_packets(&input, &mut done).await;
        self.transport.give_back(input, done);
        self.throttle.taken(done, self.transport.input.capacity());
        // What was received before a DISCONNECT or a fault counts.
        self.publish_batch().await?;
        result
    }

    async fn process_packets(&mut self, input: &[u8], done: &mut usize) -> Result<(), Close> {
        let most = self.throttle.most();
        while *done < most
            && let Some(frame) = packet::split(&input[*done..], self.front.limits.packet_bytes)?
        {
            *done += frame.length;
            self.front.counters.packets_in.add(1);
            self.on_packet(packet::decode(&frame, self.v5)?).await?;
        }
        Ok(())
    }

    async fn on_packet(&mut self, packet: Packet<'_>) -> Result<(), Close> {
        let output = &mut self.transport.output;
        match packet {
            Packet::Publish(publish) => self.on_publish(publish)?,
            Packet::PubAck(ack) => self.outbound.on_puback(ack)?,
            Packet::PubRec(ack) => self.outbound.on_pubrec(ack, output)?,
            Packet::PubComp(ack) => self.outbound.on_pubcomp(ack)?,
            Packet::PubRel(ack) => {
                // Its PUBREC may still wait for the log.
                self.publish_batch().await?;
                let is_known = self.inbound.release(ack.packet_id);
                let code = if is_known { reason::SUCCESS } else { reason::PACKET_ID_NOT_FOUND };
                write::ack(&mut self.transport.output, PacketType::PubComp, ack.packet_id, self.v5, code, "");
            }
            Packet::Subscribe(subscribe) => self.on_subscribe(subscribe).await?,
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(unsubscribe).await?,
            Packet::PingRequest => write::ping_response(output),
            Packet::Disconnect(disconnect) => return Err(self.on_disconnect(disconnect)),
            Packet::Connect => return Err(packet::protocol_error("a second CONNECT").into()),
            Packet::Auth => return Err(packet::protocol_error("AUTH without an authentication method").into()),
        }
        Ok(())
    }

    fn on_disconnect(&mut self, disconnect: packet::Disconnect) -> Close {
        if let Some(seconds) = disconnect.session_expiry {
            if self.expiry == 0 && seconds > 0 {
                return packet::protocol_error("a session expiry at DISCONNECT where there was none at CONNECT").into();
            }
            self.expiry = seconds.min(self.front.limits.session_seconds);
        }
        Close::Client(disconnect.reason)
    }

    /// Puts what was published into the log, and then acknowledges it.
    async fn publish_batch(&mut self) -> Result<(), Close> {
        if !self.inbound.batch.is_empty() {
            let mut batch = std::mem::take(&mut self.inbound.batch);
            self.front.spine.publish(&mut batch).await.map_err(|_| Close::Stopping)?;
        }
        self.inbound.acknowledge(&mut self.transport.output, self.v5);
        Ok(())
    }
}
