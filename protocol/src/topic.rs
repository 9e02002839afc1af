//! Topics: the only place where a topic of Pi Stat is spelled.
//!
//! [`Topic`] is what a topic means, [`Topics`] writes and reads it under the configured prefix; the
//! two are inverse.

use std::fmt;

use crate::id::{InvalidId, PiId, RunId, Tag, Target};

/// The prefix used when nothing else is configured.
pub const DEFAULT_PREFIX: &str = "pistat";

/// The MQTT 5 user property with which the embedded broker names the account that sent a request.
pub const ACCOUNT_PROPERTY: &str = "pistat-account";

/// What a topic is about. [`crate`] has the table of who writes it, its payload, `QoS` and
/// retention.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// `<pi>/status`: `online` or `offline`.
    Status(PiId),
    /// `<pi>/info`: what the machine is, and its session.
    Info(PiId),
    /// `<pi>/stats`: the newest sample.
    Stats(PiId),
    /// `<pi>/stats/backfill`: samples missed while disconnected.
    Backfill(PiId),
    /// `<pi>/meta`: label, assignment, tags.
    Meta(PiId),
    /// `<pi>/settings`: the interval.
    Settings(PiId),
    /// `<pi>/watch`: the machine is being viewed.
    Watch(PiId),
    /// `<pi>/recall`: samples that the controller lacks.
    Recall(PiId),
    /// `<pi>/task/request`, where the machine may also be a group.
    Request(Target),
    /// `<pi>/task/result`: a finished run.
    Result(PiId),
    /// `<pi>/task/<run>/execute`: a signed order.
    Execute(PiId, RunId),
    /// `<pi>/task/<run>/cancel`: a signed order.
    Cancel(PiId, RunId),
    /// `<pi>/task/<run>/report`: the agent's report about a run.
    Report(PiId, RunId),
    /// `<pi>/task/<run>/output`: chunks of output.
    Output(PiId, RunId),
    /// `<pi>/task/<run>/ack`: what the controller has on disk.
    Ack(PiId, RunId),
    /// `<pi>/task/<run>/status`: a run's state, decided by the controller.
    RunStatus(PiId, RunId),
    /// `controller/key`: the controller's public key.
    ControllerKey,
    /// `controller/tasks`: the catalogue without its commands.
    ControllerTasks,
    /// `controller/event`: audit events.
    ControllerEvent,
    /// `$pistat/enroll/<pi>/request`.
    EnrollRequest(PiId),
    /// `$pistat/enroll/<pi>/response`.
    EnrollResponse(PiId),
}

/// Topics by their kinds. A kind that is not listed does not compile.
macro_rules! of_each_kind {
    ($($kind:pat => $topic:expr,)+) => {{
        let _is_listed = |topic: &Topic| match topic { $($kind => (),)+ };
        vec![$({
            let topic = $topic;
            debug_assert!(matches!(&topic, $kind), "{topic:?} is listed as another kind");
            topic
        }),+]
    }};
}

impl Topic {
    /// The machine that it is about; `None` for the controller's own topics and for groups.
    pub fn machine(&self) -> Option<&PiId> {
        match self {
            Self::Status(pi)
            | Self::Info(pi)
            | Self::Stats(pi)
            | Self::Backfill(pi)
            | Self::Meta(pi)
            | Self::Settings(pi)
            | Self::Watch(pi)
            | Self::Recall(pi)
            | Self::Request(Target::Pi(pi))
            | Self::Result(pi)
            | Self::Execute(pi, _)
            | Self::Cancel(pi, _)
            | Self::Report(pi, _)
            | Self::Output(pi, _)
            | Self::Ack(pi, _)
            | Self::RunStatus(pi, _)
            | Self::EnrollRequest(pi)
            | Self::EnrollResponse(pi) => Some(pi),
            Self::Request(_) | Self::ControllerKey | Self::ControllerTasks | Self::ControllerEvent => None,
        }
    }

    /// The largest payload that an agent's message on this topic has, in bytes. What is larger is
    /// not read.
    pub fn most_payload_bytes(&self) -> usize {
        match self {
            Self::Status(_) => 64,
            Self::Report(..) | Self::EnrollRequest(_) => 16 * 1024,
            Self::Info(_) | Self::Stats(_) => 64 * 1024,
            // A chunk of output, every character of which JSON may have to escape.
            Self::Output(..) => 128 * 1024,
            _ => 1024 * 1024,
        }
    }

    /// One topic of each kind there is, and one request for each kind of target: for tests that
    /// must not overlook a new one.
    pub fn of_each_kind(pi: &PiId, run: RunId, tag: &Tag) -> Vec<Self> {
        let p = || pi.clone();
        of_each_kind! {
            Self::Status(_) => Self::Status(p()),
            Self::Info(_) => Self::Info(p()),
            Self::Stats(_) => Self::Stats(p()),
            Self::Backfill(_) => Self::Backfill(p()),
            Self::Meta(_) => Self::Meta(p()),
            Self::Settings(_) => Self::Settings(p()),
            Self::Watch(_) => Self::Watch(p()),
            Self::Recall(_) => Self::Recall(p()),
            Self::Request(Target::Pi(_)) => Self::Request(Target::Pi(p())),
            Self::Request(Target::Tag(_)) => Self::Request(Target::Tag(tag.clone())),
            Self::Request(Target::All) => Self::Request(Target::All),
            Self::Result(_) => Self::Result(p()),
            Self::Execute(..) => Self::Execute(p(), run),
            Self::Cancel(..) => Self::Cancel(p(), run),
            Self::Report(..) => Self::Report(p(), run),
            Self::Output(..) => Self::Output(p(), run),
            Self::Ack(..) => Self::Ack(p(), run),
            Self::RunStatus(..) => Self::RunStatus(p(), run),
            Self::ControllerKey => Self::ControllerKey,
            Self::ControllerTasks => Self::ControllerTasks,
            Self::ControllerEvent => Self::ControllerEvent,
            Self::EnrollRequest(_) => Self::EnrollRequest(p()),
            Self::EnrollResponse(_) => Self::EnrollResponse(p()),
        }
    }
}

/// Why a prefix cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the topic prefix {0:?} must be one or more levels of letters, digits, '_', '-' or '.', joined by '/'")]
pub struct InvalidPrefix(String);

/// Topics under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: Box<str>,
}

impl Default for Topics {
    fn default() -> Self {
        Self { prefix: DEFAULT_PREFIX.into() }
    }
}

impl Topics {
    /// Topics under `prefix`.
    ///
    /// # Errors
    /// The prefix is empty, or has an empty level, a wildcard, a `$` or a character that needs
    /// quoting somewhere.
    pub fn new(prefix: &str) -> Result<Self, InvalidPrefix> {
        let level = |level: &str| {
            !level.is_empty() && level.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if prefix.split('/').all(level) {
            Ok(Self { prefix: prefix.into() })
        } else {
            Err(InvalidPrefix(prefix.into()))
        }
    }

    /// The prefix, without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The topic's text.
    pub fn format(&self, topic: &Topic) -> String {
        let prefix = &self.prefix;
        match topic {
            Topic::Status(pi) => format!("{prefix}/{pi}/status"),
            Topic::Info(pi) => format!("{prefix}/{pi}/info"),
            Topic::Stats(pi) => format!("{prefix}/{pi}/stats"),
            Topic::Backfill(pi) => format!("{prefix}/{pi}/stats/backfill"),
            Topic::Meta(pi) => format!("{prefix}/{pi}/meta"),
            Topic::Settings(pi) => format!("{prefix}/{pi}/settings"),
            Topic::Watch(pi) => format!("{prefix}/{pi}/watch"),
            Topic::Recall(pi) => format!("{prefix}/{pi}/recall"),
            Topic::Request(target) => format!("{prefix}/{target}/task/request"),
            Topic::Result(pi) => format!("{prefix}/{pi}/task/result"),
            Topic::Execute(pi, run) => format!("{prefix}/{pi}/task/{run}/execute"),
            Topic::Cancel(pi, run) => format!("{prefix}/{pi}/task/{run}/cancel"),
            Topic::Report(pi, run) => format!("{prefix}/{pi}/task/{run}/report"),
            Topic::Output(pi, run) => format!("{prefix}/{pi}/task/{run}/output"),
            Topic::Ack(pi, run) => format!("{prefix}/{pi}/task/{run}/ack"),
            Topic::RunStatus(pi, run) => format!("{prefix}/{pi}/task/{run}/status"),
            Topic::ControllerKey => format!("{prefix}/controller/key"),
            Topic::ControllerTasks => format!("{prefix}/controller/tasks"),
            Topic::ControllerEvent => format!("{prefix}/controller/event"),
            Topic::EnrollRequest(pi) => format!("${prefix}/enroll/{pi}/request"),
            Topic::EnrollResponse(pi) => format!("${prefix}/enroll/{pi}/response"),
        }
    }

    /// What a topic's text means; `None` when it is none of ours.
    pub fn parse(&self, text: &str) -> Option<Topic> {
        if let Some(rest) = text.strip_prefix('$') {
            return parse_enrolment(self.levels_after_prefix(rest)?);
        }
        let rest = self.levels_after_prefix(text)?;
        let (first, rest) = rest.split_once('/')?;
        if first == "controller" {
            match rest {
                "key" => return Some(Topic::ControllerKey),
                "tasks" => return Some(Topic::ControllerTasks),
                "event" => return Some(Topic::ControllerEvent),
                _ => {}
            }
        }
        if rest == "task/request" {
            return first.parse().ok().map(Topic::Request);
        }
        parse_of_machine(first.parse().ok()?, rest)
    }

    /// Why a request topic names no machine: its machine level is neither a pi-id
    /// nor `@tag` nor `@all`. `None` for every other topic.
    pub fn misaddressed_request(&self, text: &str) -> Option<InvalidId> {
        let level =
            self.levels_after_prefix(text)?.strip_suffix("/task/request").filter(|level| !level.contains('/'))?;
        level.parse::<Target>().err()
    }

    fn levels_after_prefix<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.strip_prefix(&*self.prefix)?.strip_prefix('/')
    }

    /// Everything that the controller hears from agents and operators, as topic filters with their
    /// `QoS`.
    pub fn controller_filters(&self) -> [(String, u8); 10] {
        let prefix = &self.prefix;
        [
            (format!("{prefix}/+/status"), 1),
            (format!("{prefix}/+/info"), 1),
            (format!("{prefix}/+/stats"), 0),
            (format!("{prefix}/+/stats/backfill"), 1),
            (format!("{prefix}/+/meta"), 1),
            (format!("{prefix}/+/task/request"), 1),
            (format!("{prefix}/+/task/+/report"), 1),
            (format!("{prefix}/+/task/+/status"), 1),
            (format!("{prefix}/+/task/+/output"), 1),
            (format!("${prefix}/enroll/+/request"), 1),
        ]
    }

    /// Everything that the agent of one machine listens to, as topic filters with their `QoS`.
    pub fn agent_filters(&self, pi: &PiId) -> [(String, u8); 9] {
        let prefix = &self.prefix;
        [
            (format!("{prefix}/{pi}/task/+/execute"), 1),
            (format!("{prefix}/{pi}/task/+/cancel"), 1),
            (format!("{prefix}/{pi}/task/+/ack"), 1),
            (format!("{prefix}/{pi}/settings"), 1),
            (format!("{prefix}/{pi}/watch"), 0),
            (format!("{prefix}/{pi}/recall"), 1),
            (format!("{prefix}/{pi}/status"), 1),
            (format!("{prefix}/controller/key"), 1),
            (format!("{prefix}/controller/status"), 1),
        ]
    }

    /// The retained topics that a forgotten machine leaves behind, apart from those of its runs.
    /// Those that the controller hears come last: where only some were cleared, it hears of the
    /// machine again, and clears the rest.
    pub fn retained_of_machine(&self, pi: &PiId) -> [String; 5] {
        [
            Topic::Settings(pi.clone()),
            Topic::Meta(pi.clone()),
            Topic::Stats(pi.clone()),
            Topic::Info(pi.clone()),
            Topic::Status(pi.clone()),
        ]
        .map(|topic| self.format(&topic))
    }
}

fn parse_enrolment(rest: &str) -> Option<Topic> {
    let (pi, verb) = rest.strip_prefix("enroll/")?.split_once('/')?;
    let pi = pi.parse().ok()?;
    match verb {
        "request" => Some(Topic::EnrollRequest(pi)),
        "response" => Some(Topic::EnrollResponse(pi)),
        _ => None,
    }
}

fn parse_of_machine(pi: PiId, rest: &str) -> Option<Topic> {
    Some(match rest {
        "status" => Topic::Status(pi),
        "info" => Topic::Info(pi),
        "stats" => Topic::Stats(pi),
        "stats/backfill" => Topic::Backfill(pi),
        "meta" => Topic::Meta(pi),
        "settings" => Topic::Settings(pi),
        "watch" => Topic::Watch(pi),
        "recall" => Topic::Recall(pi),
        "task/result" => Topic::Result(pi),
        _ => {
            let (run, verb) = rest.strip_prefix("task/")?.split_once('/')?;
            let run: RunId = run.parse().ok()?;
            match verb {
                "execute" => Topic::Execute(pi, run),
                "cancel" => Topic::Cancel(pi, run),
                "report" => Topic::Report(pi, run),
                "output" => Topic::Output(pi, run),
                "ack" => Topic::Ack(pi, run),
                "status" => Topic::RunStatus(pi, run),
                _ => return None,
            }
        }
    })
}

impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_topic() -> Vec<Topic> {
        Topic::of_each_kind(&"pi-1".parse().unwrap(), RunId::from_parts(1, [1; 10]), &"camera".parse().unwrap())
    }

    #[test]
    fn format_and_parse_are_inverse_under_any_prefix() {
        for prefix in ["pistat", "home/pis"] {
            let topics = Topics::new(prefix).unwrap();
            for topic in every_topic() {
                let text = topics.format(&topic);
                assert_eq!(topics.parse(&text), Some(topic), "{text}");
            }
        }
    }

    #[test]
    fn the_text_is_what_the_table_of_topics_says() {
        let topics = Topics::default();
        let run = RunId::from_parts(1, [1; 10]);
        assert_eq!(topics.format(&Topic::Status(PiId::controller())), "pistat/controller/status");
        assert_eq!(
            topics.format(&Topic::Output("pi-1".parse().unwrap(), run)),
            format!("pistat/pi-1/task/{run}/output")
        );
        assert_eq!(topics.format(&Topic::Request(Target::All)), "pistat/@all/task/request");
    }

    #[test]
    fn a_request_to_nobody_is_known_as_one() {
        let topics = Topics::new("home/pis").unwrap();
        for level in ["@Camera", "Rack Pi 1", "@", ""] {
            let text = format!("home/pis/{level}/task/request");
            assert!(topics.parse(&text).is_none() && topics.misaddressed_request(&text).is_some(), "{text}");
        }
        let others = [
            "home/pis/pi-1/task/request",
            "home/pis/@all/task/request",
            "home/pis/a b/status",
            "home/a b/task/request",
        ];
        for text in others.into_iter().chain(["home/pis/a b/c/task/request"]) {
            assert!(topics.misaddressed_request(text).is_none(), "{text}");
        }
    }

    #[test]
    fn foreign_and_malformed_topics_mean_nothing() {
        let topics = Topics::default();
        for text in [
            "",
            "pistat",
            "pistat/",
            "pistat/pi-1",
            "pistat/pi-1/",
            "pistat//status",
            "pistat/pi-1/status/",
            "pistat/é/status",
            "pistatx/pi-1/status",
            "other/pi-1/status",
            "pistat/pi-1/task/not-a-run/report",
            "pistat/@all/status",
            "$pistat/enroll/pi-1",
            "$SYS/broker",
            "pistat/pi-1/task/request/x",
        ] {
            assert_eq!(topics.parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn prefixes_that_would_not_be_plain_topics_are_refused() {
        for bad in ["", "/", "a//b", "a/", "$SYS", "a+", "#", "a b"] {
            assert!(Topics::new(bad).is_err(), "{bad:?}");
        }
    }
}
