//! The limits of the broker, each with its default and the reason for it.
//!
//! [`Limits`] are what an operator may want to change: `[mqtt.limits]` of `pistat.toml`, where
//! unknown keys are refused. [`Bounds`] and the constants suit every installation. A client that
//! exceeds a limit receives the protocol's reason code; others are unaffected.

use serde::Deserialize;

/// The largest CONNECT packet, in bytes: an unauthenticated connection may make the broker hold no
/// more than this. The usual ones have some hundred bytes; a last will may be large.
pub(crate) const CONNECT_PACKET_BYTES: u32 = 16 * 1024;

/// The longest topic or filter, in bytes.
pub(crate) const TOPIC_BYTES: usize = 1024;

/// The most levels of a topic or filter: matching recurses once for each.
pub(crate) const TOPIC_LEVELS: usize = 32;

/// Topic aliases that a client may use towards the broker (MQTT 5).
pub(crate) const TOPIC_ALIASES: u16 = 64;

/// One account or agent may have published one in so many of the retained messages: 20,000 by
/// default, for a home automation with thousands of devices.
pub(crate) const ACCOUNT_PART_OF_RETAINED: usize = 10;

/// The same for their bytes: 32 MiB by default.
pub(crate) const ACCOUNT_PART_OF_RETAINED_BYTES: usize = 8;

/// The longest delay before bad credentials are refused, in milliseconds.
pub(crate) const REFUSAL_DELAY_MAX_MILLISECONDS: u64 = 10_000;

/// What happens to a session that does not take its `QoS` 1 and 2 messages as fast as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlowSubscriber {
    /// Its publishers are throttled to its pace; it is ended only after
    /// [`Bounds::stalled_after_seconds`] without any progress, or when it has not caught up within
    /// [`Bounds::catch_up_seconds`].
    SlowPublishers,
    /// It is ended as soon as its queue is full.
    EndSession,
}

/// What an operator may want to change; the defaults suit a controller on a small machine with a
/// fleet of thousands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Clients connected at once, over all listeners: 10,000 machines, the controller, and users. A
    /// smaller machine allows fewer, a larger fleet needs more.
    pub connections: usize,
    /// The largest packet accepted, in bytes (an MQTT 5 client is told). A sample is 0.5 kB, output
    /// chunks 25 kB; clients that publish images need more.
    pub packet_bytes: u32,
    /// Bytes of `QoS` 1 and 2 messages that wait for one connected session; beyond, see
    /// [`SlowSubscriber`]. Slow links and bursts need more, a small machine has less.
    pub queue_bytes: usize,
    /// What happens when that queue is full.
    pub slow_subscriber: SlowSubscriber,
    /// Milliseconds of back-pressure on publishers, from half of the queue of `QoS` 0 on, for a
    /// client that is catching up. After that its oldest messages are dropped, and publishers do
    /// not wait for it again until it has caught up. So a burst reaches a healthy client whole, and
    /// a stalled one costs its publishers one pause. 0 drops at once, and so does
    /// [`SlowSubscriber::EndSession`].
    pub qos0_backpressure_milliseconds: u64,
    /// Bytes of `QoS` 1 and 2 messages that wait for a session without its client; beyond, the
    /// session is ended, so that its client learns of the loss (session present is 0 when it
    /// returns).
    pub offline_bytes: usize,
    /// Bytes that wait for all sessions without their clients: what a small machine can spare.
    /// Beyond, the account for which most waits loses its fullest session.
    pub offline_bytes_total: usize,
    /// Seconds that a session is kept without its client at most; 3.1.1 has no expiry of its own.
    pub session_seconds: u32,
    /// Whether sessions that outlive their connections, and what waits for them, outlive the broker
    /// too. Each message that waits is then written once for each of its sessions, which wears out
    /// a card.
    pub sessions_on_disk: bool,
    /// Retained messages. A quarter of them, and of the bytes, is reserved for agents and the
    /// controller.
    pub retained_messages: usize,
    /// Bytes of retained messages, topics included: what a small machine can spare.
    pub retained_bytes: usize,
    /// Messages a second that one client of an account may publish, over ten seconds; beyond, it is
    /// throttled. Filters that it subscribes to count as messages. 0 means unlimited.
    pub publish_rate: u32,
    /// The same for a machine, over all its connections. A sample takes one a second at most,
    /// output at full speed some hundreds; a flood would cost the controller, and so all other
    /// machines. 0 means unlimited.
    pub agent_publish_rate: u32,
    /// The longest keep alive in seconds; an MQTT 5 client that asks for more is told this one. A
    /// minute is what the usual clients ask for themselves, and a metered link may need more. 0, no
    /// keep alive, is always allowed: dead peers are then found by TCP's own probes.
    pub keep_alive_seconds: u16,
    /// What suits every installation.
    #[serde(skip)]
    pub bounds: Bounds,
}

/// Bounds that are not configurable: no operator has a reason to change them. Tests make them
/// small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Connections from one network address that are not authenticated yet: a peer that only
    /// connects, and waits, takes no more than these. A fleet behind one router that reconnects all
    /// at once needs some.
    pub handshakes_per_address: usize,
    /// Clients connected at once under one account. A home automation needs a handful.
    pub connections_per_account: usize,
    /// Seconds from the connection's first byte to a complete CONNECT, TLS and WebSocket handshakes
    /// aside.
    pub connect_seconds: u64,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// `QoS` 1 and 2 messages that a client may have under way to the broker (MQTT 5: Receive
    /// Maximum).
    pub receive_maximum: u16,
    /// `QoS` 1 and 2 messages under way to one client, unless its own Receive Maximum is less.
    pub in_flight: u16,
    /// Bytes of `QoS` 0 messages that wait for one session; beyond, the oldest is dropped and
    /// counted.
    pub queue_bytes_qos0: usize,
    /// Messages that wait for a session without its client, whatever their size.
    pub offline_messages: usize,
    /// Sessions kept without their clients, over all accounts; beyond, the oldest is ended.
    pub sessions: usize,
    /// Of these, sessions of one account: as many as it may have clients.
    pub sessions_per_account: usize,
    /// Seconds without any progress after which a full session is ended, whatever
    /// [`Limits::slow_subscriber`] says.
    pub stalled_after_seconds: u64,
    /// Seconds within which a full session must have been emptied to half, at whatever pace it
    /// takes its messages: no session throttles its publishers for longer. By default 2 MiB in a
    /// minute, which every link does that a fleet is monitored over.
    pub catch_up_seconds: u64,
    /// Seconds after an unclean stop during which clients may return before their last wills are
    /// published.
    pub will_grace_seconds: u64,
    /// Seconds between two publications of `$SYS`; 0 is never.
    pub sys_interval_seconds: u64,
    /// The first delay before bad credentials are refused, in milliseconds; it doubles with each
    /// attempt from the same address, and good credentials never wait.
    pub refusal_delay_milliseconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 12_000,
            packet_bytes: 1024 * 1024,
            queue_bytes: 4 * 1024 * 1024,
            slow_subscriber: SlowSubscriber::SlowPublishers,
            qos0_backpressure_milliseconds: 1_000,
            offline_bytes: 4 * 1024 * 1024,
            offline_bytes_total: 64 * 1024 * 1024,
            session_seconds: 7 * 24 * 3600,
            sessions_on_disk: true,
            retained_messages: 200_000,
            retained_bytes: 256 * 1024 * 1024,
            publish_rate: 0,
            agent_publish_rate: 1_000,
            keep_alive_seconds: 60,
            bounds: Bounds::default(),
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            handshakes_per_address: 1_000,
            connections_per_account: 1_000,
            connect_seconds: 10,
            subscriptions: 1_000,
            receive_maximum: 256,
            in_flight: 256,
            queue_bytes_qos0: 1024 * 1024,
            offline_messages: 10_000,
            sessions: 10_000,
            sessions_per_account: 1_000,
            stalled_after_seconds: 30,
            catch_up_seconds: 60,
            will_grace_seconds: 30,
            sys_interval_seconds: 10,
            refusal_delay_milliseconds: 250,
        }
    }
}

impl Limits {
    /// Keys of earlier versions and what they are called now; without a name they have no effect
    /// any more.
    pub const FORMER: [(&str, Option<&str>); 26] = [
        ("qos0_patience_milliseconds", Some("qos0_backpressure_milliseconds")),
        ("offline_bytes_in_all", Some("offline_bytes_total")),
        ("connections_per_address", None),
        ("handshakes_per_address", None),
        ("connections_per_account", None),
        ("connect_seconds", None),
        ("connect_packet_bytes", None),
        ("topic_bytes", None),
        ("topic_levels", None),
        ("subscriptions", None),
        ("receive_maximum", None),
        ("in_flight", None),
        ("topic_aliases", None),
        ("queue_bytes_qos0", None),
        ("offline_messages", None),
        ("sessions", None),
        ("sessions_per_account", None),
        ("stalled_after_seconds", None),
        ("catch_up_seconds", None),
        ("retained_message_bytes", None),
        ("retained_messages_per_account", None),
        ("retained_bytes_per_account", None),
        ("will_grace_seconds", None),
        ("sys_interval_seconds", None),
        ("refusal_delay_milliseconds", None),
        ("refusal_delay_max_milliseconds", None),
    ];

    /// The largest CONNECT packet that is accepted, in bytes.
    pub(crate) fn connect_packet_bytes(&self) -> u32 {
        CONNECT_PACKET_BYTES.min(self.packet_bytes)
    }

    /// Whether publishers wait for clients that catch up with their `QoS` 0.
    pub(crate) fn paces_qos0(&self) -> bool {
        self.qos0_backpressure_milliseconds > 0 && self.slow_subscriber == SlowSubscriber::SlowPublishers
    }

    /// The values that are too small to work: the key of each, and a message for the operator.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let least: [(&'static str, u64, u64); 4] = [
            ("connections", self.connections as u64, 1),
            ("packet_bytes", self.packet_bytes.into(), 1024),
            ("queue_bytes", self.queue_bytes as u64, 64 * 1024),
            ("keep_alive_seconds", self.keep_alive_seconds.into(), 10),
        ];
        let too_small = least.iter().filter(|(_, value, least)| value < least);
        too_small
            .map(|&(name, value, least)| (name, format!("{name}: {value} is too small: {least} is the least")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_every_problem_is_named() {
        assert!(Limits::default().problems().is_empty());
        let limits = Limits { packet_bytes: 0, connections: 0, ..Limits::default() };
        let problems = limits.problems();
        assert_eq!(problems.len(), 2);
        assert_eq!(problems[0], ("connections", "connections: 0 is too small: 1 is the least".to_owned()));
    }
}
