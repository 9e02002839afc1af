//! What travels between controller, agents, brokers and browsers: pure types, no I/O, no clock, no
//! randomness.
//!
//! The whole protocol on one screen, under the prefix `pistat` ([`topic`] spells the topics):
//!
//! | topic | writer | retained | `QoS` | payload |
//! |---|---|---|---|---|
//! | `<pi>/status` | agent, last will | yes | 1 | [`status::Availability`] as plain text |
//! | `<pi>/info` | agent | yes | 1 | [`status::Info`] |
//! | `<pi>/stats` | agent | yes | 0 | [`stats::Sample`] |
//! | `<pi>/stats/backfill` | agent | no | 1 | array of [`stats::Sample`] |
//! | `<pi>/meta` | controller | yes | 1 | [`status::Meta`] |
//! | `<pi>/settings` | controller | yes | 1 | [`status::Settings`] |
//! | `<pi>/watch` | controller | no | 0 | [`status::Watch`] |
//! | `<pi>/recall` | controller | no | 1 | [`history::Recall`] |
//! | `<pi>/task/request` | operators | never | 0–2 | [`task::Request`] |
//! | `<pi>/task/<run>/execute`, `…/cancel` | controller | no | 1 | [`order::SignedOrder`] |
//! | `<pi>/task/<run>/report` | agent | no | 1 | [`task::Report`] |
//! | `<pi>/task/<run>/output` | agent | the last one | 1 | [`task::OutputChunk`] |
//! | `<pi>/task/<run>/ack` | controller | no | 1 | [`task::Ack`] |
//! | `<pi>/task/<run>/status` | controller | yes | 1 | [`task::RunStatus`] |
//! | `<pi>/task/result` | controller | no | 1 | [`task::TaskResult`] |
//! | `controller/status` | controller, last will | yes | 1 | [`status::Availability`] as plain text |
//! | `controller/key` | controller | yes | 1 | [`order::KeyView`] |
//! | `controller/tasks` | controller | yes | 1 | array of [`task::TaskView`] |
//! | `controller/event` | controller | no | 1 | [`dashboard::Event`] |
//! | `$pistat/enroll/<pi>/request` | joining agent | no | 1 | [`order::EnrollRequest`] |
//! | `$pistat/enroll/<pi>/response` | controller | no | 1 | [`order::EnrollAnswer`] |
//!
//! Between controller and browser: [`dashboard`].

pub mod account;
pub mod api;
pub mod codec;
pub mod dashboard;
pub mod history;
pub mod id;
mod number;
#[cfg(feature = "openapi")]
mod openapi;
pub mod order;
pub mod stats;
pub mod status;
pub mod task;
pub mod text;
pub mod time;
pub mod topic;
