//! The controller: in the middle of a fleet, deciding what may run, keeping what was said, showing it to people.
//!
//! [`Controller::start`] → [`Controller::addresses`], [`Controller::run`]. Everything that lives hangs on it, and it has one way to stop.

pub mod access;
mod bridge;
pub mod catalogue;
pub mod cli;
pub mod config;
mod directory;
pub mod fleet;
pub mod history;
mod homeassistant;
mod hub;
pub mod install;
pub mod own_address;
mod own_machine;
mod runs;
pub mod schedule;
mod shutdown;
pub mod start;
mod store;
pub mod terminal;
mod web;

pub use shutdown::Ended;
pub use start::{Addresses, Controller, StartError};
#[doc(hidden)]
pub use web::{read_query, read_rotation};
