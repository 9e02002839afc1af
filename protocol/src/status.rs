//! What a machine is, besides its samples: status, info, meta, settings, watch.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    id::{RunId, Tag, TaskId},
    time::Timestamp,
};

/// Whether an agent is connected: the plain-text payload of `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// The agent is connected.
    Online,
    /// The agent disconnected cleanly, or its last will was published.
    Offline,
}

impl Availability {
    /// The payload.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }

    /// The payload's meaning; `None` when it is neither.
    pub fn from_payload(payload: &[u8]) -> Option<Self> {
        match payload {
            b"online" => Some(Self::Online),
            b"offline" => Some(Self::Offline),
            _ => None,
        }
    }
}

/// What an agent is willing to run. Its own policy comes last and wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ExecutionPolicy {
    /// Any order that its controller signed.
    #[default]
    Controller,
    /// Only the tasks that its own file lists.
    Listed,
    /// Nothing (`--register-only`).
    Never,
}

/// A type for a random value that travels as 16 to 64 letters and digits.
macro_rules! random_value {
    ($(#[$documentation:meta])* $name:ident, $wrong:literal) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// From 128 random bits.
            pub fn from_random(bits: [u8; 16]) -> Self {
                Self(format!("{:032x}", u128::from_be_bytes(bits)).into())
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let valid = (16..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
                if valid { Ok(Self(text.into())) } else { Err($wrong) }
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.into()
            }
        }
    };
}

random_value! {
    /// A random value that an agent makes at each connection. Orders name it, so that none can
    /// arrive late.
    Session, "a session is 16 to 64 letters and digits"
}

random_value! {
    /// A random value that a root runner makes for one run, and accepts once within
    /// [`ROOT_NONCE_LIFETIME`]. An order for root names it, so that one that was held back is worth
    /// nothing.
    Nonce, "a nonce is 16 to 64 letters and digits"
}

/// How long a root runner accepts an order with the nonce that it made for it, by its monotonic
/// clock. The order travels twice through the broker meanwhile.
pub const ROOT_NONCE_LIFETIME: Duration = Duration::from_secs(10);

/// What a machine is: the retained payload of `info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Info {
    /// The agent's own label (`--label`); it is used until an operator renames the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The board, for example `Raspberry Pi 4 Model B Rev 1.4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The board's serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The operating system's name, `PRETTY_NAME` of os-release(5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The kernel's release, as `uname -r` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The machine's architecture, as `uname -m` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Version of the agent.
    pub agent_version: String,
    /// The kernel's random id of this boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// When the machine was started; absent until its clock is synchronised, constant until the
    /// next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_time: Option<Timestamp>,
    /// The session of this connection.
    pub session: Session,
    /// What the agent is willing to run.
    pub execution_policy: ExecutionPolicy,
    /// With the policy `listed`, the tasks that the agent's own configuration lists; absent from
    /// older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_tasks: Option<Vec<TaskId>>,
    /// Whether the root runner is installed, so that tasks with `root = true` can run.
    pub runner: bool,
    /// The cadence in force.
    pub interval_seconds: f64,
    /// What this agent can measure or do, by the field's name in a sample.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// The runs that the agent has on its disk: everything else that it was sent, it never knew or
    /// has finished with.
    #[serde(default)]
    pub known_runs: Vec<RunId>,
    /// Wear of the SD card or eMMC, 0 to 100 and more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_wear_percent: Option<u8>,
    /// Package updates that wait to be installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates_pending: Option<u32>,
    /// Whether the system asks to be restarted (`/run/reboot-required`), or runs another kernel
    /// than the newest installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_required: Option<bool>,
    /// Systemd units in state `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_units: Option<Vec<String>>,
    /// How many orders this agent process has refused as unsigned, altered, foreign, stale or
    /// replayed; absent when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub orders_refused: Option<u64>,
    /// Why the last of them was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_order_refused: Option<String>,
}

/// Operator-assigned metadata of a machine: the retained payload of `meta`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The label in force.
    pub label: String,
    /// Its responsibility, recorded by `task assign`.
    pub assignment: Option<String>,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// What the controller sets for an agent: the retained payload of `settings`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The cadence; null is the agent's own. The agent clamps it to 0.2…3600.
    pub interval_seconds: Option<f64>,
}

/// Shortest and longest cadence of samples, in seconds.
pub const INTERVAL_SECONDS: std::ops::RangeInclusive<f64> = 0.2..=3600.0;

/// Somebody looks at this machine: the payload of `watch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// How long to sample every second from now on; renewed while they look.
    pub seconds: u32,
}

/// The longest lease that an agent grants to one `watch`, in seconds.
pub const MAX_WATCH_SECONDS: u32 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_one_form() {
        let session = Session::from_random([0xab; 16]);
        assert_eq!(session.as_str().len(), 32);
        assert_eq!(serde_json::from_str::<Session>(&serde_json::to_string(&session).unwrap()).unwrap(), session);
        assert!(serde_json::from_str::<Session>("\"short\"").is_err());
    }

    #[test]
    fn availability_is_plain_text() {
        assert_eq!(Availability::from_payload(b"online"), Some(Availability::Online));
        assert_eq!(Availability::from_payload(b"Online"), None);
    }
}
