//! Plain counters: what `/metrics`, the dashboard and `$SYS` show.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Everything counted since the start, and the gauges of this moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Statistics {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The live counters, shared by everything in the broker.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            /// A copy of every counter, each exact, though not of one instant.
            pub(crate) fn read(&self) -> Statistics {
                Statistics { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Clients connected now.
    clients_connected,
    /// The most clients that were ever connected at once.
    clients_maximum,
    /// Sessions kept without their clients now.
    clients_offline,
    /// Sessions ended because they had expired.
    clients_expired,
    /// Connections accepted, before any CONNECT.
    connections,
    /// Connections refused: bad credentials, limits, bad packets before CONNECT.
    connections_refused,
    /// Bad credentials alone.
    credentials_refused,
    /// Sessions taken over by a newer connection.
    takeovers,
    /// Bytes received from clients.
    bytes_in,
    /// Bytes sent to clients.
    bytes_out,
    /// Packets received from clients.
    packets_in,
    /// Packets sent to clients.
    packets_out,
    /// PUBLISH packets received from clients.
    publishes_in,
    /// PUBLISH packets sent to clients.
    publishes_out,
    /// Messages accepted into the log, the broker's own among them.
    messages_accepted,
    /// Messages refused at publish.
    publishes_refused,
    /// Filters refused at subscribe.
    subscribes_refused,
    /// Messages withheld at delivery because the receiver may not read their topic.
    deliveries_withheld,
    /// `QoS` 0 messages dropped because a session was too slow for them.
    dropped_qos0,
    /// Messages dropped because they expired before they could be delivered.
    dropped_expired,
    /// Messages dropped because they were larger than their receiver takes.
    dropped_too_large,
    /// Messages lost with a session that was ended for being too slow or too long away, or that
    /// expired.
    dropped_with_session,
    /// Sessions ended for exceeding a bound.
    sessions_ended,
    /// Times that publishers were slowed down for a slow subscriber.
    publishers_slowed,
    /// Packets that broke the protocol, each of which ended its connection.
    protocol_errors,
    /// Events that the owner did not take in time.
    events_dropped,
    /// Retained messages now.
    retained_messages,
    /// Bytes of retained messages now, topics included.
    retained_bytes,
    /// Retained messages refused because the store was full.
    retained_refused,
    /// Subscriptions now.
    subscriptions,
    /// Shared subscriptions now, counted among the subscriptions.
    subscriptions_shared,
    /// Messages that wait in sessions' queues now.
    queued_messages,
    /// Bytes written to the state folder.
    state_bytes_written,
    /// Failed writes to the state folder.
    state_write_errors,
    /// Seconds since the broker started.
    uptime_seconds,
}

/// One counter or gauge.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn at_least(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
