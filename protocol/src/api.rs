//! Bodies of the HTTP API that are not views of [`crate::dashboard`]: what clients send, and what
//! is answered once.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    account::Role,
    id::{AccountName, PiId, RunId, Tag, Target, TaskId, TokenName},
    task::Arguments,
    time::Timestamp,
};

/// `POST /api/login`: a single-use code from a sign-in link, or an account's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "either {\"code\": …} of a sign-in link or {\"token\": …} of an account"
)]
pub enum Login {
    /// The code in the fragment of a sign-in link.
    Code {
        /// The code.
        code: String,
    },
    /// An account's token.
    Token {
        /// The token.
        token: String,
    },
}

/// The header that carries the key of a session's page. The cookie alone is sent to every port of a
/// host, so it proves too little.
pub const SESSION_KEY_HEADER: &str = "pistat-session-key";

/// The answer to `POST /api/login`; the session's cookie comes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignedIn {
    /// The account.
    pub account: AccountName,
    /// Its role.
    pub role: Role,
    /// The session's second secret, shown once: the header [`SESSION_KEY_HEADER`] of every request
    /// beside the cookie.
    pub session_key: String,
}

/// A signed-in browser: `GET /api/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionView {
    /// Its name here.
    pub id: String,
    /// Whose.
    pub account: AccountName,
    /// Where it was last used from; behind a reverse proxy, the proxy's address.
    pub address: Option<String>,
    /// What the browser calls itself.
    pub user_agent: Option<String>,
    /// When it signed in.
    pub created_at: Timestamp,
    /// When it was last used, to the minute; null is not since it signed in.
    pub last_used: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// `POST /api/login-links` (admin; `pistat login`): a new single-use code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginLink {
    /// The code; it belongs into the fragment: `<controller_url>/#login=<code>`.
    pub code: String,
    /// The controller's address: `http.public_url`; else its own, by the local network's where it
    /// listens on every address.
    pub controller_url: String,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// `POST /api/runs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// Which task.
    pub task: TaskId,
    /// Where: a pi-id, `@tag` or `@all`.
    pub target: Target,
    /// Its arguments.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, crate::task::ArgumentValue>))]
    pub args: Arguments,
    /// Two requests of one account with the same id within a day are one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How long a run may wait for an offline machine, such as `10m`; `0s` refuses at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// How a group goes about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupOptions>,
    /// Says that a person confirmed a task that asks for it.
    #[serde(default)]
    pub confirmed: bool,
}

/// How a run on many machines goes about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GroupOptions {
    /// How many machines at a time; all at once without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub at_once: Option<u32>,
    /// After how many failures the rest is not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub stop_after: Option<u32>,
    /// Whether the first machine goes alone, and the rest only if it succeeded.
    #[serde(default)]
    pub canary: bool,
}

/// The answer to `POST /api/runs`: 202, and everything it names is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcceptedRuns {
    /// The group, when the target was one.
    pub group: Option<RunId>,
    /// One run for each machine.
    pub runs: Vec<RunId>,
}

/// `PATCH /api/pis/{pi}`: what is absent stays as it is; null or an empty text takes it away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PatchMachine {
    /// A new label; empty gives the agent's own back.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub label: Option<Option<String>>,
    /// A new responsibility.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub assignment: Option<Option<String>>,
    /// All of its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    /// Tags of its that an operator gave, which an administrator lets count for a task's `on`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_tags: Option<Vec<Tag>>,
    /// The cadence in seconds; null gives the agent's own back.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub interval: Option<Option<f64>>,
}

/// Tells an absent field (`None`) from a null one (`Some(None)`).
#[expect(clippy::option_option, reason = "absent, null and a value are three things in a patch")]
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// `POST /api/accounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// Its name.
    pub name: AccountName,
    /// What it may do.
    #[serde(default = "viewer")]
    pub role: Role,
    /// Topic filters that it may publish to, besides its role's.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Topic filters that it may receive, besides its role's.
    #[serde(default)]
    pub subscribe: Vec<String>,
    /// How long it lasts, such as `24h` or `30d`; without it, until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

fn viewer() -> Role {
    Role::Viewer
}

/// A new token, shown once: answer to `POST /api/accounts` and `POST /api/accounts/{name}/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// Whose.
    pub name: String,
    /// The token.
    pub token: String,
}

/// The token of one machine, shown once: answer to `POST /api/enrolments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolmentToken {
    /// Whose.
    pub name: String,
    /// The token.
    pub token: String,
    /// What that machine's agent is given as `--controller-url`. On another's broker, the word
    /// `PASSWORD` stands for what only that broker knows.
    pub controller_url: String,
}

/// `GET /api/join-token`, `POST /api/join-token/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JoinTokenView {
    /// `<random>.<fingerprint of the controller's key>`.
    pub token: String,
}

/// `POST /api/join-tokens`: a token with which machines join. Its secret is in the answer, and
/// nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// Its name.
    pub name: TokenName,
    /// How many machines it lets in; without it, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub uses: Option<u32>,
    /// How long it works, such as `24h`; without it, until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The tags that machines have which join with it.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// A join token without its secret: `GET /api/join-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JoinTokenInfo {
    /// Its name; `default` is the one that `GET /api/join-token` shows.
    pub name: TokenName,
    /// When it was made; of the default one, when it was used first or removed.
    pub created_at: Timestamp,
    /// When it ends; null is never.
    pub expires_at: Option<Timestamp>,
    /// How many more machines it lets in; null is any number.
    pub uses_left: Option<u32>,
    /// How many machines it has let in.
    pub used: u32,
    /// When it let one in last.
    pub last_used: Option<Timestamp>,
    /// The tags of machines that join with it.
    pub tags: Vec<Tag>,
}

/// `GET /api/installation`: what the command that adds a machine has to name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Installation {
    /// The SHA-256 of `/install.sh`, in hexadecimal.
    pub script_sha256: String,
    /// The processors for which `/download/…` has an agent. None where machines connect to
    /// another's broker: a command cannot know its credentials.
    pub architectures: Vec<String>,
    /// Every processor for which an agent can be built, and whether this controller has that agent.
    pub agents: Vec<AgentProgram>,
    /// The controller's folder for agents that it does not have: each is a file
    /// `pistat-agent-<architecture>` there.
    pub agents_folder: String,
    /// The controller's address: `http.public_url`; else its own, by the local network's where it
    /// listens on every address.
    pub controller_url: String,
}

/// One agent of [`Installation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentProgram {
    /// The processor, as in `/download/<architecture>` and `packaging/build <architecture>`.
    pub architecture: String,
    /// The machines that it is for, such as `Pi 1, Zero and Zero W`.
    pub boards: String,
    /// Whether this controller has it.
    pub available: bool,
}

/// `POST /api/enrolments`: a single-use token for one pi-id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewEnrolment {
    /// Which machine.
    pub pi: PiId,
}

/// A machine that may connect: `GET /api/enrolments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolment {
    /// Which machine.
    pub pi: PiId,
    /// The board's serial number, as reported at its enrolment.
    pub serial: Option<String>,
    /// When it enrolled; null while its single-use token waits.
    pub enrolled_at: Option<Timestamp>,
    /// Whether one new enrolment is allowed.
    pub open: bool,
}

/// What a machine measured over a while, in columns: `GET /api/pis/{pi}/history?seconds=3600`.
///
/// Each column has one value for each step; null where nothing is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct History {
    /// When the first step begins.
    pub start: Timestamp,
    /// How long a step is.
    pub step_seconds: u32,
    /// Busy time of all cores.
    pub cpu_percent: Vec<Option<f32>>,
    /// Busy time of each core, in whole per cent: one list for each core, for at most an hour.
    pub cpu_cores_percent: Vec<Vec<Option<u8>>>,
    /// Memory in use.
    pub memory_percent: Vec<Option<f32>>,
    /// Temperature.
    pub temperature_celsius: Vec<Option<f32>>,
    /// Bytes read from disks.
    pub disk_read_bytes_per_second: Vec<Option<f32>>,
    /// Bytes written to disks.
    pub disk_write_bytes_per_second: Vec<Option<f32>>,
    /// Bytes received.
    pub network_rx_bytes_per_second: Vec<Option<f32>>,
    /// Bytes sent.
    pub network_tx_bytes_per_second: Vec<Option<f32>>,
    /// Whether undervoltage was seen.
    pub undervoltage: Vec<Option<bool>>,
}

/// An error's body: problem+json (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI that names the kind of problem, or `about:blank`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what to do, for a person.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_tells_absent_from_null() {
        let patch: PatchMachine = serde_json::from_str(r#"{"label":null,"interval":2.5}"#).unwrap();
        assert_eq!(patch, PatchMachine { label: Some(None), interval: Some(Some(2.5)), ..PatchMachine::default() });
        assert!(serde_json::from_str::<PatchMachine>(r#"{"colour":"red"}"#).is_err());
    }

    #[test]
    fn a_login_is_one_of_two_forms() {
        assert_eq!(serde_json::from_str::<Login>(r#"{"code":"a"}"#).unwrap(), Login::Code { code: "a".into() });
        assert!(serde_json::from_str::<Login>(r#"{"password":"a"}"#).is_err());
    }
}
