//! The broker's own numbers as retained messages, under the names that mosquitto gives them.

use std::collections::HashMap;

use bytes::Bytes;

use super::Hub;
use crate::message::{Draft, SessionId};
use crate::packet::{MessageProperties, QoS};
use crate::statistics::Statistics;

/// What was published last, and the moving averages.
#[derive(Debug, Default)]
pub(super) struct Sys {
    next_at: u64,
    last_at: u64,
    last: Statistics,
    published: HashMap<String, String>,
    loads: HashMap<&'static str, [f64; 3]>,
}

/// The windows of the moving averages, in minutes.
const WINDOWS: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

impl Hub {
    pub(super) fn publish_statistics(&mut self, now_ms: u64) {
        let counters = &self.front.counters;
        counters.uptime_seconds.set(now_ms / 1000);
        let connected = counters.clients_connected.get();
        counters.clients_offline.set((self.keys.len() as u64).saturating_sub(connected));
        let interval_ms = self.front.limits.bounds.sys_interval_seconds * 1000;
        if interval_ms == 0 || now_ms < self.sys.next_at {
            return;
        }
        self.sys.next_at = now_ms + interval_ms;
        counters.queued_messages.set(self.queued_messages());
        let statistics = self.front.counters.read();
        let frames = self.sys.changes(&statistics, now_ms);
        self.publish_later(frames);
    }
}

impl Sys {
    /// The numbers that have changed, each as a message.
    fn changes(&mut self, now: &Statistics, now_ms: u64) -> Vec<Bytes> {
        self.update_loads(now, now_ms);
        let mut values = plain_values(now);
        for (name, averages) in &self.loads {
            let each = WINDOWS.iter().zip(averages);
            values
                .extend(each.map(|((window, _), average)| (format!("load/{name}/{window}"), format!("{average:.2}"))));
        }
        let changed = values.into_iter().filter(|(name, value)| self.published.get(name) != Some(value));
        let changed: Vec<(String, String)> = changed.collect();
        let frames = changed.iter().map(|(name, value)| seal(name, value, now_ms)).collect();
        self.published.extend(changed);
        frames
    }

    /// Exponential averages per minute, as the usual names mean them.
    fn update_loads(&mut self, now: &Statistics, now_ms: u64) {
        let minutes = Self::minutes(now_ms.saturating_sub(self.last_at));
        if minutes > 0.0 {
            for (name, now, before) in [
                ("messages/received", now.packets_in, self.last.packets_in),
                ("messages/sent", now.packets_out, self.last.packets_out),
                ("publish/received", now.publishes_in, self.last.publishes_in),
                ("publish/sent", now.publishes_out, self.last.publishes_out),
                ("publish/dropped", now.dropped_qos0, self.last.dropped_qos0),
                ("bytes/received", now.bytes_in, self.last.bytes_in),
                ("bytes/sent", now.bytes_out, self.last.bytes_out),
                ("connections", now.connections, self.last.connections),
            ] {
                let rate = Self::number(now.saturating_sub(before)) / minutes;
                let averages = self.loads.entry(name).or_default();
                for (average, (_, window)) in averages.iter_mut().zip(WINDOWS) {
                    *average = rate + (-minutes / window).exp() * (*average - rate);
                }
            }
        }
        (self.last, self.last_at) = (*now, now_ms);
    }

    fn minutes(milliseconds: u64) -> f64 {
        Self::number(milliseconds) / 60_000.0
    }

    #[expect(clippy::cast_precision_loss, reason = "averages for people; 2^52 messages in an interval do not happen")]
    fn number(count: u64) -> f64 {
        count as f64
    }
}

fn plain_values(s: &Statistics) -> Vec<(String, String)> {
    let dropped = s.dropped_qos0 + s.dropped_expired + s.dropped_too_large + s.dropped_with_session;
    let total = s.clients_connected + s.clients_offline;
    let numbers = [
        ("clients/connected", s.clients_connected),
        ("clients/active", s.clients_connected),
        ("clients/disconnected", s.clients_offline),
        ("clients/inactive", s.clients_offline),
        ("clients/total", total),
        ("clients/maximum", s.clients_maximum),
        ("clients/expired", s.clients_expired),
        ("messages/received", s.packets_in),
        ("messages/sent", s.packets_out),
        ("messages/stored", s.retained_messages),
        ("store/messages/count", s.retained_messages),
        ("store/messages/bytes", s.retained_bytes),
        ("retained messages/count", s.retained_messages),
        ("publish/messages/received", s.publishes_in),
        ("publish/messages/sent", s.publishes_out),
        ("publish/messages/dropped", dropped),
        ("bytes/received", s.bytes_in),
        ("bytes/sent", s.bytes_out),
        ("subscriptions/count", s.subscriptions),
        ("shared_subscriptions/count", s.subscriptions_shared),
    ];
    let mut values: Vec<(String, String)> =
        numbers.into_iter().map(|(name, n)| (name.to_owned(), n.to_string())).collect();
    values.push(("uptime".to_owned(), format!("{} seconds", s.uptime_seconds)));
    values.push(("version".to_owned(), concat!("pistat version ", env!("CARGO_PKG_VERSION")).to_owned()));
    values
}

fn seal(name: &str, value: &str, now_ms: u64) -> Bytes {
    let topic = format!("$SYS/broker/{name}");
    Draft {
        publisher: SessionId::broker(),
        topic: &topic,
        payload: value.as_bytes(),
        qos: QoS::AtMostOnce,
        retain: true,
        properties: MessageProperties::default(),
        stamp: None,
        now_ms,
    }
    .seal()
}
