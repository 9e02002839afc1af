//! From the first byte to CONNACK: authentication, and the client's session.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::end::CLOSE_TIMEOUT;
use super::{Client, Inbound, Outbound, Session, Throttle, Transport, outbound};
use crate::access::{Identity, Secret};
use crate::admission::Permit;
use crate::contract::{Attached, Command, ConnectRefusal, ConnectRequest};
use crate::events::{BrokerEvent, Protocol};
use crate::filter;
use crate::front::Front;
use crate::incomplete::Share;
use crate::limits::{Limits, TOPIC_ALIASES, TOPIC_BYTES, TOPIC_LEVELS};
use crate::message::{Draft, SessionId};
use crate::packet::{self, Connect, Fault, PacketType, reason, write};
use crate::rates::Meter;
use crate::store::StoredWill;

/// The longest client id: far more than clients use, and short enough to be kept ten thousand
/// times.
const CLIENT_ID_BYTES: usize = 1024;

/// Where mosquitto's bridges keep whether they are connected. Those topics are the broker's own,
/// but a bridge that is refused for its last will never connects.
const BRIDGE_STATES: &str = "$SYS/broker/connection/";

/// Why a message or a will with such properties is refused.
pub(super) const CONTROL_CHARACTER: &str = "a text in the properties holds a control character";

/// Serves one byte stream as one client, from its first byte to its last. `on_authenticated` is
/// called when the hub has accepted the client.
pub(crate) async fn serve<S>(front: Arc<Front>, stream: S, peer: SocketAddr, on_authenticated: impl FnOnce())
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(permit) = admit(&front, peer) {
        serve_admitted(front, stream, peer, permit, on_authenticated).await;
    }
}

/// A permit for a connection, before anything is done for it.
pub(crate) fn admit(front: &Front, peer: SocketAddr) -> Option<Permit> {
    front.counters.connections.add(1);
    let permit = front.admission.admit(peer.ip(), &front.limits);
    if permit.is_none() {
        front.counters.connections_refused.add(1);
        let reason = "too many connections, in total or from this address".to_owned();
        front.events.send(BrokerEvent::Refused { user_name: String::new(), client_id: String::new(), peer, reason });
    }
    permit
}

/// As [`serve`], for a stream that has a permit already.
pub(crate) async fn serve_admitted<S>(
    front: Arc<Front>,
    stream: S,
    peer: SocketAddr,
    mut permit: Permit,
    on_authenticated: impl FnOnce(),
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake =
        Handshake { transport: Transport::new(stream, front.counters.clone()), front: front.clone(), peer };
    let stop = front.stop.clone();
    let session = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        // On the heap until it is over.
        session = Box::pin(handshake.authenticate(&permit)) => session,
    };
    if let Some(session) = session {
        permit.mark_authenticated();
        on_authenticated();
        // On the heap for the connection's life; the handshake's state has gone by then.
        Box::pin(session.attach(handshake.transport).run()).await;
    }
    drop(permit);
}

/// A connection before it has a session.
struct Handshake<S> {
    transport: Transport<S>,
    front: Arc<Front>,
    peer: SocketAddr,
}

/// Why a connection is refused.
struct Refusal {
    code: u8,
    words: &'static str,
    delay: Duration,
}

impl Refusal {
    fn new(code: u8, words: &'static str) -> Self {
        Self { code, words, delay: Duration::ZERO }
    }
}

/// Who is refused, and how the reply may look.
struct Refused {
    user_name: String,
    client_id: String,
    v5: bool,
    is_answered: bool,
    /// The largest packet that the client takes.
    max_bytes: usize,
}

impl Refused {
    /// Nothing is known but the version.
    fn unknown(v5: bool) -> Self {
        Self { user_name: String::new(), client_id: String::new(), v5, is_answered: true, max_bytes: usize::MAX }
    }
}

/// What CONNECT said, out of the read buffer.
#[expect(clippy::struct_excessive_bools, reason = "CONNECT has that many independent flags")]
struct Hello {
    v5: bool,
    is_bridge: bool,
    clean_start: bool,
    keep_alive: u16,
    client_id: Box<str>,
    is_assigned: bool,
    user_name: Box<str>,
    identity: Arc<Identity>,
    secret: Secret,
    will: Option<StoredWill>,
    /// As asked for, and as granted.
    asked_expiry: u32,
    session_expiry: u32,
    window: u16,
    max_packet_bytes: Option<u32>,
    alias_maximum: u16,
    wants_problems: bool,
}

impl Hello {
    /// The reply that accepts the client.
    fn connack(&self, limits: &Limits, session_present: bool) -> write::ConnAck<'_> {
        let is_too_long = self.v5 && self.keep_alive > limits.keep_alive_seconds;
        write::ConnAck {
            session_present,
            session_expiry: (self.session_expiry != self.asked_expiry).then_some(self.session_expiry),
            receive_maximum: limits.bounds.receive_maximum.max(1),
            max_packet_bytes: limits.packet_bytes,
            topic_alias_maximum: TOPIC_ALIASES,
            assigned_client_id: self.is_assigned.then_some(&*self.client_id),
            server_keep_alive: is_too_long.then_some(limits.keep_alive_seconds),
        }
    }
}

/// A client that has been accepted.
struct Admitted {
    front: Arc<Front>,
    peer: SocketAddr,
    hello: Hello,
    attached: Attached,
    keep_alive_timeout: Option<Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Handshake<S> {
    /// Reads CONNECT and answers it. `None` when the client was refused.
    async fn authenticate(&mut self, permit: &Permit) -> Option<Admitted> {
        let limit = Duration::from_secs(self.front.limits.bounds.connect_seconds);
        let length = tokio::time::timeout(limit, self.read_connect()).await;
        let length = match length {
            Ok(Ok(length)) => length,
            Ok(Err(fault)) => return self.reject(fault.as_ref()).await,
            Err(_) => {
                self.report_refused("", "", "no CONNECT came in time");
                return None;
            }
        };
        let input = std::mem::take(&mut self.transport.input);
        let admitted = self.answer(&input[..length], permit).await;
        self.transport.give_back(input, length);
        admitted
    }

    /// Reads until the first packet is complete; its length.
    async fn read_connect(&mut self) -> Result<usize, Option<Fault>> {
        let most = self.front.limits.connect_packet_bytes();
        loop {
            if let Some(&first) = self.transport.input.first()
                && first != PacketType::Connect.header()
            {
                return Err(Some(packet::malformed("the first packet is not CONNECT")));
            }
            if let Some(frame) = packet::split(&self.transport.input, most)? {
                return Ok(frame.length);
            }
            match std::future::poll_fn(|context| self.transport.poll_fill(context)).await {
                Ok(0) | Err(_) => return Err(None),
                Ok(_) => {}
            }
        }
    }

    /// Not MQTT, or too large: closed without a reply, since the peer's protocol is unknown.
    async fn reject(&mut self, fault: Option<&Fault>) -> Option<Admitted> {
        if let Some(fault) = fault {
            self.front.counters.protocol_errors.add(1);
            self.report_refused("", "", fault.what);
        }
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.transport.close()).await;
        None
    }

    async fn answer(&mut self, bytes: &[u8], permit: &Permit) -> Option<Admitted> {
        let frame = packet::split(bytes, u32::MAX).ok().flatten()?;
        let speaks_v5 = packet::protocol_level(&frame).is_some_and(|level| level >= 5);
        let connect = match packet::decode_connect(&frame) {
            Ok(connect) => connect,
            Err(fault) => {
                self.front.counters.protocol_errors.add(1);
                // A malformed CONNECT of 3.1.1 gets no answer (section 3.1.4); a wrong version
                // does.
                let is_answered = speaks_v5 || fault.reason == reason::UNSUPPORTED_VERSION;
                let to = Refused { is_answered, ..Refused::unknown(speaks_v5) };
                return self.refuse(&to, &Refusal::new(fault.reason, fault.what)).await;
            }
        };
        let to = Refused {
            user_name: connect.user_name.unwrap_or_default().to_owned(),
            client_id: connect.client_id.to_owned(),
            max_bytes: connect.max_packet_bytes.map_or(usize::MAX, |bytes| bytes as usize),
            ..Refused::unknown(connect.v5)
        };
        let outcome = match self.check(&connect, permit) {
            Ok(hello) => self.ask_hub(hello).await,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(admitted) => Some(admitted),
            Err(refusal) => {
                if refusal.delay > Duration::ZERO {
                    tokio::time::sleep(refusal.delay).await;
                    permit.delay_over();
                }
                self.refuse(&to, &refusal).await
            }
        }
    }

    /// Everything that can be decided without the hub.
    fn check(&self, connect: &Connect<'_>, permit: &Permit) -> Result<Hello, Refusal> {
        if connect.has_authentication_method {
            return Err(Refusal::new(reason::BAD_AUTHENTICATION_METHOD, "no authentication methods are offered"));
        }
        let Some(user_name) = connect.user_name else {
            return Err(self.bad_credentials(permit, reason::NOT_AUTHORIZED, "a user name and its token are needed"));
        };
        let secret = Secret::of(connect.password.unwrap_or_default());
        let Some(identity) = self.front.directory.borrow().identify(user_name, &secret) else {
            return Err(self.bad_credentials(permit, reason::BAD_CREDENTIALS, "wrong user name or token"));
        };
        if connect.client_id.len() > CLIENT_ID_BYTES || !filter::is_plain(connect.client_id) {
            let words = "the client id is too long, or holds a control character";
            return Err(Refusal::new(reason::CLIENT_ID_INVALID, words));
        }
        let is_assigned = connect.client_id.is_empty();
        if is_assigned && !connect.v5 && !connect.clean_start {
            return Err(Refusal::new(reason::CLIENT_ID_INVALID, "a session that is kept needs a client id"));
        }
        let limits = &self.front.limits;
        // 3.1.1 knows only sessions that end with the connection and sessions that never do.
        let asked_expiry = if connect.v5 || connect.clean_start { connect.session_expiry } else { u32::MAX };
        let hello = Hello {
            v5: connect.v5,
            is_bridge: connect.is_bridge,
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            client_id: if is_assigned { made_up_client_id() } else { connect.client_id.into() },
            is_assigned,
            user_name: user_name.into(),
            will: self.check_will(connect, &identity)?,
            identity: Arc::new(identity),
            secret,
            asked_expiry,
            session_expiry: asked_expiry.min(limits.session_seconds),
            window: connect.receive_maximum.min(limits.bounds.in_flight.max(1)),
            max_packet_bytes: connect.max_packet_bytes,
            alias_maximum: connect.topic_alias_maximum.min(TOPIC_ALIASES),
            wants_problems: connect.wants_problems,
        };
        // MQTT 5, section 3.1.2.11.4: a packet that is too large for the client is not sent, and
        // there is no connection without a CONNACK.
        if let Some(most) = hello.max_packet_bytes {
            let mut answer = Vec::new();
            write::connack(&mut answer, hello.v5, &hello.connack(limits, false));
            if answer.len() > most as usize {
                let words = "the answer to CONNECT would be larger than the client's Maximum Packet Size";
                return Err(Refusal::new(reason::PACKET_TOO_LARGE, words));
            }
        }
        Ok(hello)
    }

    fn bad_credentials(&self, permit: &Permit, code: u8, words: &'static str) -> Refusal {
        self.front.counters.credentials_refused.add(1);
        Refusal { code, words, delay: permit.bad_attempt(&self.front.limits) }
    }

    fn check_will(&self, connect: &Connect<'_>, identity: &Identity) -> Result<Option<StoredWill>, Refusal> {
        let Some(will) = &connect.will else { return Ok(None) };
        if !filter::is_valid_topic(will.topic, TOPIC_BYTES, TOPIC_LEVELS) {
            let words = "the will's topic is too long, too deep, or holds a control character";
            return Err(Refusal::new(reason::TOPIC_INVALID, words));
        }
        if will.properties.has_unfit_text {
            return Err(Refusal::new(reason::IMPLEMENTATION_SPECIFIC, CONTROL_CHARACTER));
        }
        if !self.front.access.may_leave_will(identity, will.topic) {
            if will.topic.starts_with(BRIDGE_STATES) {
                tracing::debug!(topic = will.topic, "the will of a bridge is not kept: $SYS is the broker's own");
                return Ok(None);
            }
            return Err(Refusal::new(reason::NOT_AUTHORIZED, "the account may not leave a will on this topic"));
        }
        let draft = Draft {
            publisher: SessionId::broker(),
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will.properties,
            stamp: self.front.access.stamp(will.topic, identity),
            now_ms: self.front.clock.now_ms(),
        };
        Ok(Some(StoredWill {
            frame: draft.seal(),
            expiry_seconds: will.properties.expiry_seconds,
            delay_seconds: will.delay_seconds,
            due_unix_ms: None,
        }))
    }

    async fn ask_hub(&mut self, hello: Hello) -> Result<Admitted, Refusal> {
        let (reply, answer) = oneshot::channel();
        let request = ConnectRequest {
            position: self.front.spine.position(),
            identity: hello.identity.clone(),
            user_name: hello.user_name.clone(),
            secret: hello.secret.clone(),
            client_id: hello.client_id.clone(),
            clean_start: hello.clean_start,
            session_expiry: hello.session_expiry,
            will: hello.will.clone(),
            peer: self.peer,
            reply,
        };
        let stopping = || Refusal::new(reason::SERVER_SHUTTING_DOWN, "the broker is stopping");
        self.front.commands.send(Command::Connect(Box::new(request))).await.map_err(|_| stopping())?;
        let attached = answer.await.map_err(|_| stopping())?.map_err(|refusal| match refusal {
            ConnectRefusal::TooMany => Refusal::new(reason::QUOTA_EXCEEDED, "the account has too many connections"),
            ConnectRefusal::Revoked => Refusal::new(reason::NOT_AUTHORIZED, "the account was removed or changed"),
            ConnectRefusal::Overtaken => Refusal::new(reason::SERVER_BUSY, "the same client connected again"),
        })?;
        Ok(self.welcome(hello, attached))
    }

    fn welcome(&mut self, hello: Hello, attached: Attached) -> Admitted {
        let connack = hello.connack(&self.front.limits, attached.session_present);
        let keep_alive = connack.server_keep_alive.unwrap_or(hello.keep_alive);
        write::connack(&mut self.transport.output, hello.v5, &connack);
        self.front.counters.packets_in.add(1);
        self.front.counters.packets_out.add(1);
        let keep_alive_timeout = (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1500));
        Admitted { front: self.front.clone(), peer: self.peer, hello, attached, keep_alive_timeout }
    }

    async fn refuse(&mut self, to: &Refused, refusal: &Refusal) -> Option<Admitted> {
        self.report_refused(&to.user_name, &to.client_id, refusal.words);
        if to.is_answered {
            write::connack_refused(&mut self.transport.output, to.v5, refusal.code, refusal.words, to.max_bytes);
        }
        // A client that does not read the reply in time does not get it.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.transport.part()).await;
        None
    }

    fn report_refused(&self, user_name: &str, client_id: &str, words: &str) {
        self.front.counters.connections_refused.add(1);
        self.front.events.send(BrokerEvent::Refused {
            user_name: user_name.to_owned(),
            client_id: client_id.to_owned(),
            peer: self.peer,
            reason: words.to_owned(),
        });
    }
}

impl Admitted {
    fn attach<S>(self, transport: Transport<S>) -> Session<S> {
        let Self { front, peer, hello, attached, keep_alive_timeout } = self;
        let Attached { id, outbox, mut report, .. } = attached;
        let client = Client { account: hello.identity.name().into(), client_id: hello.client_id };
        front.events.send(BrokerEvent::Connected {
            account: client.account.to_string(),
            client_id: client.client_id.to_string(),
            peer,
            protocol: if hello.v5 { Protocol::V5 } else { Protocol::V311 },
        });
        let parked = report.begin();
        let options = outbound::ClientOptions {
            v5: hello.v5,
            wants_problems: hello.wants_problems,
            window: hello.window,
            max_packet_bytes: hello.max_packet_bytes,
            alias_maximum: hello.alias_maximum,
        };
        let (meter, now) = (meter(&front, &hello.identity, &client.client_id), Instant::now());
        // What an earlier connection owes is waited for first: coming back is not a way to be read.
        let owed = meter.as_ref().and_then(|meter| meter.take(0, now));
        Session {
            outbound: Outbound::new(&options, parked.in_flight, parked.last_id),
            inbound: Inbound::new(parked.receiving),
            throttle: Throttle::new(&front.throttled_bytes),
            share: Share::new(&front.incomplete, &client.account),
            front,
            transport,
            client,
            id,
            outbox,
            identity: hello.identity,
            v5: hello.v5,
            is_bridge: hello.is_bridge,
            keep_alive_timeout,
            last_received: now,
            timer: None,
            will: hello.will,
            expiry: hello.session_expiry,
            meter,
            paused_until: owed.map(|pause| now + pause),
            report,
        }
    }
}

/// Messages a second of all peers that join, together. Each repeats its request every few seconds,
/// so a fleet of thousands that joins at once is through within minutes.
const JOINING_RATE: u32 = 200;

/// A machine has one bucket for all its connections, every client of an account has its own. Peers
/// that join choose their own names, so they share one.
fn meter(front: &Front, identity: &Identity, client_id: &str) -> Option<Meter> {
    let owner = identity.session_owner();
    let limits = &front.limits;
    match identity {
        Identity::Controller => None,
        Identity::Agent(_) => Meter::new(&front.rates, &owner, limits.agent_publish_rate),
        Identity::Joining(..) => Meter::new(&front.rates, "$joining", limits.agent_publish_rate.min(JOINING_RATE)),
        Identity::Account { .. } => Meter::new(&front.rates, &format!("{owner}/{client_id}"), limits.publish_rate),
    }
}

/// A client id for a client that gave none: never the same twice, and of no use to other accounts,
/// since sessions belong to accounts.
fn made_up_client_id() -> Box<str> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("auto-{:016x}-{number}", RandomState::new().hash_one(number)).into()
}
