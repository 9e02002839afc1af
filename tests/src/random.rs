//! Random instants that can be had again.

pub use pistat_sim::Dice;
