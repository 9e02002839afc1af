//! The controller itself: dashboards and their feed, what waits, what was refused.

use super::page::{Page, number};
use crate::hub::ask::Numbers;

/// Everything about the controller.
pub(super) fn write(page: &mut Page, numbers: &Numbers) {
    page.family("pistat_build_info", "gauge", "The controller's version, in a label; always 1.");
    page.value("pistat_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let gauges = [
        ("pistat_controller_uptime_seconds", "Time since the controller was started.", numbers.uptime_seconds),
        ("pistat_mqtt_connected", "Whether the controller is connected to its broker.", u64::from(numbers.connected)),
        ("pistat_dashboards", "Connected dashboards.", numbers.dashboards as u64),
        ("pistat_hub_outbox_messages", "Messages that wait to be published.", numbers.outbox as u64),
        ("pistat_store_waiting_commits", "Commits that wait for the disk.", numbers.commits as u64),
    ];
    for (name, help, value) in gauges {
        page.only(name, "gauge", help, number(value));
    }
    let counters = [
        ("pistat_feed_frames_total", "Frames of changes written for dashboards.", numbers.feed.frames),
        ("pistat_feed_changes_total", "Changes in those frames.", numbers.feed.changes),
        ("pistat_feed_bytes_total", "Bytes of those frames, each counted once.", numbers.feed.bytes),
        (
            "pistat_messages_refused_total",
            "Messages that were malformed or refused by the controller.",
            numbers.refused_messages,
        ),
    ];
    for (name, help, value) in counters {
        page.only(name, "counter", help, number(value));
    }
}
