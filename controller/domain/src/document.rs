//! Reading TOML that people write: a tree that knows its lines ([`item`]), a reader that collects
//! every problem ([`reader`]), durations and sizes ([`units`]).

pub mod item;
mod problem;
pub mod reader;
pub mod units;

pub use problem::Problem;
