//! Identifiers as types: what has been parsed may be used in a topic, a path or a query; what has
//! not may not.
//!
//! Each type documents its own form. Nothing here creates an identifier: run ids are made by the
//! controller.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier. The message is meant for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {rule}")]
pub struct InvalidId {
    text: String,
    kind: &'static str,
    rule: &'static str,
}

impl InvalidId {
    fn new(text: &str, kind: &'static str, rule: &'static str) -> Self {
        let text = text.chars().take(80).collect();
        Self { text, kind, rule }
    }
}

const MAX_ID_BYTES: usize = 64;

fn is_name(text: &str, first: impl Fn(u8) -> bool, rest: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(&b) if first(b)) && bytes.len() <= MAX_ID_BYTES && bytes.iter().all(|&b| rest(b))
}

fn is_machine_name(text: &str) -> bool {
    is_name(text, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_slug(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    is_name(text, letter, |b| letter(b) || b == b'-')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $valid:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The identifier's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if $valid(text) { Ok(Self(text.into())) } else { Err(InvalidId::new(text, $kind, $rule)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A machine's stable name, `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`. The label is what people rename.
    PiId,
    "pi-id",
    is_machine_name,
    "it starts with a letter or digit and has at most 64 letters, digits, '_' or '-'"
);
text_id!(
    /// An account's name: the same form as a pi-id, since both share one namespace.
    AccountName,
    "account name",
    is_machine_name,
    "it starts with a letter or digit and has at most 64 letters, digits, '_' or '-'"
);
text_id!(
    /// A task of the catalogue, `[a-z0-9][a-z0-9-]{0,63}`.
    TaskId,
    "task id",
    is_slug,
    "it starts with a lower-case letter or digit and has at most 64 lower-case letters, digits or '-'"
);
text_id!(
    /// A tag, of the form of a task id. People write it `@tag`.
    Tag,
    "tag",
    is_slug,
    "it starts with a lower-case letter or digit and has at most 64 lower-case letters, digits or '-'"
);

text_id!(
    /// The name of a join token, of the form of a tag.
    TokenName,
    "name of a join token",
    is_slug,
    "it starts with a lower-case letter or digit and has at most 64 lower-case letters, digits or '-'"
);

impl TokenName {
    /// The token that is always there, and can be shown again.
    pub fn default_token() -> Self {
        Self("default".into())
    }

    /// The key of its changes, which belongs to no machine and no account.
    pub fn change_key(&self) -> String {
        format!("join-token/{}", self.0)
    }
}

impl PiId {
    /// The controller's own machine.
    pub fn controller() -> Self {
        Self("controller".into())
    }

    /// Whether this is the controller's own machine.
    pub fn is_controller(&self) -> bool {
        self.as_str() == "controller"
    }

    /// The key under which names are compared: without case, since machines and accounts share one
    /// namespace.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl AccountName {
    /// The account that is always there.
    pub fn admin() -> Self {
        Self("admin".into())
    }

    /// The key under which names are compared: without case, since machines and accounts share one
    /// namespace.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// Names that no machine and no account of a person may take (compared without case).
pub const RESERVED_NAMES: [&str; 4] = ["controller", "admin", "pistat", "schedule"];

/// Whether a name is reserved, without regard to case.
pub fn is_reserved(name: &str) -> bool {
    RESERVED_NAMES.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// One run of a task on one machine: a `UUIDv7` made by the controller, so its order is the order
/// of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
#[serde(try_from = "String", into = "String")]
pub struct RunId(uuid::Uuid);

impl RunId {
    /// A run id from a time and 74 random bits (RFC 9562, section 5.7).
    pub fn from_parts(unix_milliseconds: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_milliseconds, &random).into_uuid())
    }

    /// The time in it.
    pub fn unix_milliseconds(&self) -> u64 {
        self.0.as_bytes()[..6].iter().fold(0, |time, byte| time << 8 | u64::from(*byte))
    }

    /// The sixteen bytes, in the order of creation.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl FromStr for RunId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parsed = uuid::Uuid::try_parse(text).ok().filter(|id| id.get_version_num() == 7);
        // Only the canonical form: one run has one name, so one topic.
        parsed.filter(|id| id.hyphenated().to_string() == text).map(Self).ok_or_else(|| {
            InvalidId::new(text, "run id", "it is a UUID of version 7 in lower case, as `runs` prints it")
        })
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What a request is aimed at: one machine, the machines with a tag, or everyone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// One machine.
    Pi(PiId),
    /// Every machine with this tag; none is an error, never "everyone".
    Tag(Tag),
    /// Every machine.
    All,
}

impl FromStr for Target {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.strip_prefix('@') {
            Some("all") => Ok(Self::All),
            Some(tag) => tag.parse().map(Self::Tag),
            None => text.parse().map(Self::Pi),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pi(pi) => pi.fmt(f),
            Self::Tag(tag) => write!(f, "@{tag}"),
            Self::All => f.write_str("@all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pi_ids_fit_into_a_topic_a_path_and_a_query() {
        let long = "a".repeat(64);
        for good in ["pi-1", "Rack_Pi-01", "0", long.as_str()] {
            assert_eq!(good.parse::<PiId>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(65);
        for bad in ["", "-pi", "_pi", "pi 1", "pi/1", "pi+", "#", "é", "../x", "a\n", too_long.as_str()] {
            assert!(bad.parse::<PiId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn task_ids_are_lower_case() {
        assert!("service-log".parse::<TaskId>().is_ok());
        for bad in ["Uptime", "a_b", "-a", "a b", ""] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn run_ids_are_version_seven_in_canonical_form() {
        let id = RunId::from_parts(1_780_000_000_000, [7; 10]);
        assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
        for bad in
            ["", "x", "00000000-0000-4000-8000-000000000000", &id.to_string().to_uppercase(), &format!("{{{id}}}")]
        {
            assert!(bad.parse::<RunId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn run_ids_sort_by_time() {
        assert!(RunId::from_parts(1, [255; 10]) < RunId::from_parts(2, [0; 10]));
    }

    #[test]
    fn targets_are_written_as_people_write_them() {
        for (text, target) in [
            ("pi-1", Target::Pi("pi-1".parse().unwrap())),
            ("@camera", Target::Tag("camera".parse().unwrap())),
            ("@all", Target::All),
        ] {
            assert_eq!(text.parse::<Target>().unwrap(), target);
            assert_eq!(target.to_string(), text);
        }
        for bad in ["@", "", "@A", "@@all", "all pis"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reserved_names_are_compared_without_case() {
        assert!(is_reserved("Controller") && is_reserved("ADMIN") && !is_reserved("pi-1"));
    }
}
