//! Every bound of the broker, with its default and the reason for it.
//!
//! `[mqtt.limits]` of `pistat.toml` maps on to [`Limits`]; unknown keys are refused. A client that exceeds a bound is
//! told so by the protocol's codes; others never notice.

use serde::Deserialize;

/// What happens to a session that does not take its `QoS` 1 and 2 messages as fast as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlowSubscriber {
    /// Those who publish to it are slowed down to its pace; it is ended only after [`Limits::stalled_after_seconds`]
    /// without any progress, or when it has not caught up within [`Limits::catch_up_seconds`].
    SlowPublishers,
    /// It is ended as soon as its queue is full.
    EndSession,
}

/// Every bound, each with a default that suits a controller on a small machine with a fleet of thousands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Clients connected at once, over all listeners. 12,000 is a fleet of 10,000, the controller, and people.
    pub connections: usize,
    /// Clients connected at once from one network address; a fleet behind one router shares an address.
    pub connections_per_address: usize,
    /// Connections from one address that have not been let in yet: a stranger who only connects, and waits, takes no more
    /// places than this. A fleet behind one router that comes back all at once needs some.
    pub handshakes_per_address: usize,
    /// Clients connected at once under one account. One agent needs one, a home automation a handful.
    pub connections_per_account: usize,
    /// Seconds from the connection's first byte to a complete CONNECT, TLS and WebSocket handshakes aside.
    pub connect_seconds: u64,
    /// The largest packet taken, in bytes (an MQTT 5 client is told). A sample is 0.5 kB, output chunks 25 kB.
    pub packet_bytes: u32,
    /// The largest CONNECT packet, in bytes: an unauthenticated connection may make the broker hold no more than this. The usual
    /// ones have some hundred bytes; a last will may be large.
    pub connect_packet_bytes: u32,
    /// The longest topic or filter, in bytes.
    pub topic_bytes: usize,
    /// The most levels of a topic or filter: matching is recursive in them.
    pub topic_levels: usize,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// `QoS` 1 and 2 messages that a client may have under way to the broker (MQTT 5: Receive Maximum).
    pub receive_maximum: u16,
    /// `QoS` 1 and 2 messages under way to one client, unless its own Receive Maximum is less.
    pub in_flight: u16,
    /// Topic aliases that a client may use towards the broker (MQTT 5).
    pub topic_aliases: u16,
    /// Bytes of `QoS` 0 messages that wait for one session; beyond, the oldest is dropped and counted.
    pub queue_bytes_qos0: usize,
    /// Milliseconds that publishers wait, from half of that bound on, for a client that is catching up; one that takes
    /// longer loses messages instead, and nobody waits for it again until it has caught up. A burst of everybody at once
    /// so reaches a healthy client whole, and a stuck one costs its publishers one pause. 0 is never, and so is
    /// [`SlowSubscriber::EndSession`].
    pub qos0_patience_milliseconds: u64,
    /// Bytes of `QoS` 1 and 2 messages that wait for one connected session; beyond, see [`SlowSubscriber`].
    pub queue_bytes: usize,
    /// Bytes of `QoS` 1 and 2 messages that wait for a session without its client; beyond, the session is ended, so that
    /// its client learns of the loss (session present is 0 when it returns).
    pub offline_bytes: usize,
    /// Messages that wait for a session without its client, whatever their size.
    pub offline_messages: usize,
    /// Bytes that wait for all sessions without their clients together: what a small machine can spare. Beyond, the account
    /// for which most waits loses its fullest session.
    pub offline_bytes_in_all: usize,
    /// Sessions kept without their clients, over all accounts; the one that waits longest makes room.
    pub sessions: usize,
    /// Of these, sessions of one account: as many as it may have clients. Beyond, its own oldest makes room.
    pub sessions_per_account: usize,
    /// Seconds that a session is kept without its client at most; 3.1.1 has no expiry of its own.
    pub session_seconds: u32,
    /// Whether sessions that live on without their clients, and what waits for them, outlive the broker too. Each message
    /// that waits is then written once for each session that it waits for.
    pub sessions_on_disk: bool,
    /// What happens when the queue of a connected session is full.
    pub slow_subscriber: SlowSubscriber,
    /// Seconds without any progress after which a full session is ended, whatever [`Limits::slow_subscriber`] says.
    pub stalled_after_seconds: u64,
    /// Seconds within which a full session must have been emptied to half, at whatever pace it takes its messages: nobody
    /// holds publishers up for longer. By default 2 MiB in a minute, which every link does that a fleet is watched over.
    pub catch_up_seconds: u64,
    /// Retained messages. A quarter of this, and of the bytes, is left to agents and the controller.
    pub retained_messages: usize,
    /// Bytes of retained messages, topics included.
    pub retained_bytes: usize,
    /// Retained messages that one account or agent may have published: a home automation with thousands of devices has some.
    pub retained_messages_per_account: usize,
    /// Bytes of these.
    pub retained_bytes_per_account: usize,
    /// Bytes of one retained message.
    pub retained_message_bytes: usize,
    /// Messages a second that one client of an account may publish, over ten seconds; beyond, it is slowed down. Filters that it
    /// subscribes to count as messages. 0 means unlimited.
    pub publish_rate: u32,
    /// The same for a machine, over all its connections. A sample takes one a second at most, output at full speed some
    /// hundreds; a flood would cost the controller, and so all other machines. 0 means unlimited.
    pub agent_publish_rate: u32,
    /// The longest keep alive in seconds; an MQTT 5 client that asks for more is told this one. A minute is what the usual
    /// clients ask for themselves, and finds a dead one within a minute and a half. 0, no keep alive, is always allowed: dead
    /// peers are then found by TCP's own probes.
    pub keep_alive_seconds: u16,
    /// Seconds after an unclean stop during which clients may return before their last wills are published.
    pub will_grace_seconds: u64,
    /// Seconds between two publications of `$SYS`; 0 is never.
    pub sys_interval_seconds: u64,
    /// The first delay before bad credentials are refused, in milliseconds; it doubles with each attempt from the same
    /// address, and good credentials never wait.
    pub refusal_delay_milliseconds: u64,
    /// The longest of these delays, in milliseconds.
    pub refusal_delay_max_milliseconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 12_000,
            connections_per_address: 12_000,
            handshakes_per_address: 1_000,
            connections_per_account: 1_000,
            connect_seconds: 10,
            packet_bytes: 1024 * 1024,
            connect_packet_bytes: 16 * 1024,
            topic_bytes: 1024,
            topic_levels: 32,
            subscriptions: 1_000,
            receive_maximum: 256,
            in_flight: 256,
            topic_aliases: 64,
            queue_bytes_qos0: 1024 * 1024,
            qos0_patience_milliseconds: 1_000,
            queue_bytes: 4 * 1024 * 1024,
            offline_bytes: 4 * 1024 * 1024,
            offline_messages: 10_000,
            offline_bytes_in_all: 64 * 1024 * 1024,
            sessions: 10_000,
            sessions_per_account: 1_000,
            session_seconds: 7 * 24 * 3600,
            sessions_on_disk: true,
            slow_subscriber: SlowSubscriber::SlowPublishers,
            stalled_after_seconds: 30,
            catch_up_seconds: 60,
            retained_messages: 200_000,
            retained_bytes: 256 * 1024 * 1024,
            retained_messages_per_account: 20_000,
            retained_bytes_per_account: 32 * 1024 * 1024,
            retained_message_bytes: 1024 * 1024,
            publish_rate: 0,
            agent_publish_rate: 1_000,
            keep_alive_seconds: 60,
            will_grace_seconds: 30,
            sys_interval_seconds: 10,
            refusal_delay_milliseconds: 250,
            refusal_delay_max_milliseconds: 10_000,
        }
    }
}

impl Limits {
    /// Whether publishers wait for clients that catch up with their `QoS` 0.
    pub(crate) fn paces_qos0(&self) -> bool {
        self.qos0_patience_milliseconds > 0 && self.slow_subscriber == SlowSubscriber::SlowPublishers
    }

    /// What makes no sense about these bounds: the key of each, and a sentence for whoever wrote it.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let least: [(&'static str, u64, u64); 17] = [
            ("connections", self.connections as u64, 1),
            ("connections_per_address", self.connections_per_address as u64, 1),
            ("handshakes_per_address", self.handshakes_per_address as u64, 1),
            ("connections_per_account", self.connections_per_account as u64, 1),
            ("connect_seconds", self.connect_seconds, 1),
            ("packet_bytes", self.packet_bytes.into(), 1024),
            ("connect_packet_bytes", self.connect_packet_bytes.into(), 256),
            ("topic_bytes", self.topic_bytes as u64, 128),
            ("topic_levels", self.topic_levels as u64, 8),
            ("subscriptions", self.subscriptions as u64, 16),
            ("receive_maximum", self.receive_maximum.into(), 1),
            ("in_flight", self.in_flight.into(), 1),
            ("queue_bytes", self.queue_bytes as u64, 64 * 1024),
            ("sessions_per_account", self.sessions_per_account as u64, 1),
            ("stalled_after_seconds", self.stalled_after_seconds, 1),
            ("catch_up_seconds", self.catch_up_seconds, 1),
            ("keep_alive_seconds", self.keep_alive_seconds.into(), 10),
        ];
        let too_small = least.iter().filter(|(_, value, least)| value < least);
        let mut problems: Vec<_> = too_small
            .map(|&(name, value, least)| (name, format!("{name}: {value} is too small: {least} is the least")))
            .collect();
        // Matching a topic goes one call deeper with each level.
        if self.topic_levels > 256 {
            let sentence = format!("topic_levels: {} is too large: 256 is the most", self.topic_levels);
            problems.push(("topic_levels", sentence));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_every_problem_is_named() {
        assert!(Limits::default().problems().is_empty());
        let limits = Limits { in_flight: 0, topic_levels: 1000, connections: 0, ..Limits::default() };
        let problems = limits.problems();
        assert_eq!(problems.len(), 3);
        assert_eq!(problems[0], ("connections", "connections: 0 is too small: 1 is the least".to_owned()));
        assert!(problems[1].0 == "in_flight" && problems[2].1.contains("256 is the most"), "{problems:?}");
    }
}
