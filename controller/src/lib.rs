//! The controller: in the middle of a fleet, deciding what may run, keeping what was said, showing it to people.

pub mod catalogue;
pub mod cli;
pub mod config;
pub mod schedule;
pub mod terminal;
