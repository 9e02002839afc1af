//! The configuration file, `config/agent.toml`. Unknown keys are refused.

use std::{collections::BTreeMap, path::PathBuf};

use pistat_protocol::id::TaskId;
use serde::Deserialize;

/// Every key of the file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the fields are the file's keys")]
pub(super) struct File {
    pub controller_url: Option<String>,
    pub pi_id: Option<String>,
    pub label: Option<String>,
    pub interval: Option<f64>,
    pub execute: Option<Execute>,
    pub token_file: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub log_level: Option<String>,
    pub nice: Option<i32>,
    pub offline_samples: Option<usize>,
    pub prefix: Option<String>,
    pub runner_socket: Option<PathBuf>,
    #[serde(default)]
    pub task: BTreeMap<String, Listed>,
}

/// What the machine is willing to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Execute {
    #[default]
    Controller,
    Listed,
    Never,
}

/// A task that it is willing to run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    pub command: Option<Vec<String>>,
}

impl File {
    /// Reads the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| sentence(text, &error))
    }

    /// The listed tasks by their ids.
    pub(super) fn listed(&self) -> Result<BTreeMap<TaskId, Option<Vec<String>>>, String> {
        listed(&self.task)
    }
}

/// What is wrong with a file, and where. The address may hold a broker's password: the line is
/// named by its number and key, and not shown.
pub(crate) fn sentence(text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else { return error.message().to_owned() };
    let before = &text[..span.start.min(text.len())];
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let key = text[start..].lines().next().unwrap_or_default().split('=').next().unwrap_or_default().trim();
    format!("line {}, {key}: {}", before.matches('\n').count() + 1, error.message())
}

/// Tasks by their ids, each with the command that an order must equal, if one is given.
pub(crate) fn listed(tasks: &BTreeMap<String, Listed>) -> Result<BTreeMap<TaskId, Option<Vec<String>>>, String> {
    let one = |(name, listed): (&String, &Listed)| {
        let task: TaskId = name.parse().map_err(|error: pistat_protocol::id::InvalidId| error.to_string())?;
        if listed.command.as_ref().is_some_and(Vec::is_empty) {
            return Err(format!("the command of the task `{task}` is empty"));
        }
        Ok((task, listed.command.clone()))
    };
    tasks.iter().map(one).collect()
}
