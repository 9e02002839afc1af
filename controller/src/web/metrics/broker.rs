//! The embedded broker's own numbers. Counters begin at its start.

use pistat_broker::Statistics;

use super::page::{Page, number};

/// A number of the broker: its name, what it tells, and where it is.
type Number = (&'static str, &'static str, fn(&Statistics) -> u64);

const GAUGES: [Number; 9] = [
    ("pistat_broker_clients", "Connected MQTT clients.", |s| s.clients_connected),
    ("pistat_broker_clients_maximum", "The most clients that were ever connected at once.", |s| s.clients_maximum),
    ("pistat_broker_sessions_offline", "Sessions kept without their clients.", |s| s.clients_offline),
    ("pistat_broker_subscriptions", "Subscriptions.", |s| s.subscriptions),
    ("pistat_broker_subscriptions_shared", "Shared subscriptions.", |s| s.subscriptions_shared),
    ("pistat_broker_retained_messages", "Retained messages.", |s| s.retained_messages),
    ("pistat_broker_retained_bytes", "Bytes of retained messages, topics included.", |s| s.retained_bytes),
    ("pistat_broker_queued_messages", "Messages that wait in sessions' queues.", |s| s.queued_messages),
    ("pistat_broker_uptime_seconds", "Time since the broker was started.", |s| s.uptime_seconds),
];

const COUNTERS: [Number; 26] = [
    ("pistat_broker_connections_total", "Connections accepted, before any CONNECT.", |s| s.connections),
    ("pistat_broker_connections_refused_total", "Connections refused.", |s| s.connections_refused),
    ("pistat_broker_credentials_refused_total", "Connections refused for bad credentials.", |s| s.credentials_refused),
    ("pistat_broker_takeovers_total", "Sessions taken over by a newer connection.", |s| s.takeovers),
    ("pistat_broker_received_bytes_total", "Bytes received from clients.", |s| s.bytes_in),
    ("pistat_broker_sent_bytes_total", "Bytes sent to clients.", |s| s.bytes_out),
    ("pistat_broker_received_packets_total", "Packets received from clients.", |s| s.packets_in),
    ("pistat_broker_sent_packets_total", "Packets sent to clients.", |s| s.packets_out),
    ("pistat_broker_received_publishes_total", "PUBLISH packets received from clients.", |s| s.publishes_in),
    ("pistat_broker_sent_publishes_total", "PUBLISH packets sent to clients.", |s| s.publishes_out),
    ("pistat_broker_messages_accepted_total", "Messages accepted into the log.", |s| s.messages_accepted),
    ("pistat_broker_publishes_refused_total", "Messages refused by access rules or limits.", |s| s.publishes_refused),
    ("pistat_broker_subscribes_refused_total", "Filters refused at subscribe.", |s| s.subscribes_refused),
    ("pistat_broker_deliveries_withheld_total", "Messages withheld from who may not read their topic.", |s| {
        s.deliveries_withheld
    }),
    ("pistat_broker_dropped_qos0_total", "QoS 0 messages dropped because a session was too slow.", |s| s.dropped_qos0),
    ("pistat_broker_dropped_expired_total", "Messages dropped because they expired.", |s| s.dropped_expired),
    ("pistat_broker_dropped_too_large_total", "Messages dropped as larger than their receiver takes.", |s| {
        s.dropped_too_large
    }),
    ("pistat_broker_dropped_with_session_total", "Messages lost with a session that ended.", |s| {
        s.dropped_with_session
    }),
    ("pistat_broker_sessions_expired_total", "Sessions ended because they had expired.", |s| s.clients_expired),
    ("pistat_broker_sessions_ended_total", "Sessions ended for exceeding a bound.", |s| s.sessions_ended),
    ("pistat_broker_publishers_slowed_total", "Times that publishers were slowed down for a slow subscriber.", |s| {
        s.publishers_slowed
    }),
    ("pistat_broker_protocol_errors_total", "Packets that broke the protocol.", |s| s.protocol_errors),
    ("pistat_broker_events_dropped_total", "Events that the controller did not take in time.", |s| s.events_dropped),
    ("pistat_broker_retained_refused_total", "Retained messages refused because the store was full.", |s| {
        s.retained_refused
    }),
    ("pistat_broker_state_written_bytes_total", "Bytes written to the state folder.", |s| s.state_bytes_written),
    ("pistat_broker_state_write_errors_total", "Failed writes to the state folder.", |s| s.state_write_errors),
];

/// Everything about the embedded broker.
pub(super) fn write(page: &mut Page, statistics: &Statistics) {
    for (kind, numbers) in [("gauge", &GAUGES[..]), ("counter", &COUNTERS[..])] {
        for (name, help, get) in numbers {
            page.only(name, kind, help, number(get(statistics)));
        }
    }
}
