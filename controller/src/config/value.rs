//! The single values of the configuration: each from its text, or a sentence that says how it is
//! written.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use pistat_protocol::{
    id::{AccountName, is_reserved},
    topic::Topics,
};
use pistat_support::mqtt_url::MqttUrl;

use super::{
    Broker,
    units::{format_duration, parse_duration},
};

pub(super) fn account_name(text: &str) -> Result<AccountName, String> {
    let name: AccountName = text.parse().map_err(|error: pistat_protocol::id::InvalidId| error.to_string())?;
    if is_reserved(text) && !text.eq_ignore_ascii_case("admin") {
        return Err(format!("{name} is Pi Stat's own name, not an account's"));
    }
    Ok(name)
}

/// A topic filter of MQTT (5.0, section 4.7).
pub(super) fn topic_filter(text: &str) -> Result<String, String> {
    let levels: Vec<_> = text.split('/').collect();
    let last = levels.len() - 1;
    let level_ok = |(index, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => index == last,
        level => !level.contains(['+', '#', '\0']),
    };
    if !text.is_empty() && text.len() <= 1024 && levels.iter().enumerate().all(level_ok) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a topic filter: + stands for one whole level, # for the rest at the end"))
}

/// Whether an account may be given this filter to publish to: under the prefix it could never be
/// granted, but for requests.
///
/// # Errors
/// A sentence that says so.
pub(crate) fn check_publish_rule(filter: &str, topics: &Topics) -> Result<(), String> {
    let prefix = topics.prefix();
    let under = |filter: &str| filter.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let own = under(filter) || filter.strip_prefix('$').is_some_and(under);
    if own && !filter.ends_with("/task/request") && !filter.ends_with("/acknowledge") {
        return Err(format!(
            "{filter} is under {prefix}, whose topics are the machines' and the controller's: it would never be granted"
        ));
    }
    Ok(())
}

/// Whether a new account may have this rule for publishing besides: the broker's own topics are
/// never granted. In a file such a rule has no effect, as before.
///
/// # Errors
/// A sentence that says so.
pub(crate) fn check_not_brokers(filter: &str) -> Result<(), String> {
    if filter == "$SYS" || filter.starts_with("$SYS/") {
        return Err(format!(
            "{filter} is under $SYS, whose topics are the broker's: it would never be granted. \
             For a bridge of mosquitto, set notifications_local_only true"
        ));
    }
    Ok(())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an address to listen on, such as 0.0.0.0:8000 or [::1]:8000"))
}

pub(super) fn broker(text: &str) -> Result<Broker, String> {
    if text == "embedded" {
        Ok(Broker::Embedded)
    } else {
        MqttUrl::broker(text).map(Broker::External).map_err(|error| error.to_string())
    }
}

pub(super) fn public_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() && url.fragment().is_none()
    });
    let text = text.trim_end_matches('/').to_owned();
    url.map(|_| text)
        .ok_or_else(|| "it is the dashboard's address as people type it, such as https://pis.example.org".into())
}

pub(super) fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() { Err("the path is empty") } else { Ok(text.into()) }
}

pub(super) fn between(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let duration = parse_duration(text)?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
        Err(format!("{text} is out of range: it is {least} to {most}"))
    }
}
