//! History over HTTP: what a machine, or a fleet, measured over a while.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{api::History, id::PiId, time::Timestamp};

/// A series in steps: `null` where nothing is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Column {
    /// Its unit, for people.
    pub unit: String,
    /// The mean of each step.
    pub mean: Vec<Option<f32>>,
    /// The smallest value of each step.
    pub min: Vec<Option<f32>>,
    /// The largest value of each step.
    pub max: Vec<Option<f32>>,
}

/// How values came to the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// When they were measured.
    Live,
    /// Afterwards, from the agent's memory: one sample a minute.
    Late,
}

/// What one machine measured: `GET /api/pis/{pi}/history`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MachineHistory {
    /// When the first step begins.
    pub start: Timestamp,
    /// How long a step is.
    pub step_seconds: u32,
    /// The series by name, such as `cpu_percent`, `cpu_cores_percent[0]` or `disk_used_percent[/]`.
    /// Only those of which anything is known.
    pub columns: BTreeMap<String, Column>,
    /// The stretches of which anything is known: from, to, how it came.
    pub known: Vec<(Timestamp, Timestamp, Origin)>,
}

/// The answer of `GET /api/pis/{pi}/history`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum MachineAnswer {
    /// By `from`, `to`, `points` or `columns`.
    Steps(MachineHistory),
    /// By `seconds`, the old form.
    Seconds(History),
}

/// One series of several machines: `GET /api/history`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FleetHistory {
    /// When the first step begins.
    pub start: Timestamp,
    /// How long a step is.
    pub step_seconds: u32,
    /// The machines of which anything is known, by id.
    #[cfg_attr(feature = "typescript", ts(type = "Record<string, Column>"))]
    pub machines: BTreeMap<PiId, Column>,
}

/// From the controller to an agent: samples of this time are missing (`pistat/<pi>/recall`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Recall {
    /// From when on, by the controller's clock.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
}
