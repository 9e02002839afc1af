//! What every machine measured, for years, in a file that is written rarely.
//!
//! Every number of a sample is a series ([`series`]), kept in three resolutions ([`tier`]) as
//! blocks ([`block`]) of compressed columns ([`codec`]) in a SQLite file. What is not written yet
//! is in memory; the agents remember it, too, so that the file needs to be written once an hour
//! only. [`Store`] is all of it, without a thread or a clock; [`History`] is its thread.
//!
//! Invariants:
//! - a step that was received live never changes afterwards, and late steps fill only what is
//!   unknown;
//! - a damaged block is unknown and counted, and hurts no other;
//! - history is the first to stop when the disk fills up.

pub mod block;
pub mod codec;
mod database;
mod machine;
pub mod query;
mod room;
mod rows;
pub mod scale;
pub mod series;
mod store;
mod thread;
pub mod tier;
mod write;

pub use database::OpenError;
pub use query::Query;
pub use series::Selector;
pub use store::{Numbers, Settings, Store};
pub use thread::{Busy, History};
