//! The controller: in the middle of a fleet, deciding what may run, keeping what was said, showing
//! it to people.
//!
//! [`Controller::start`] → [`Controller::addresses`], [`Controller::run`]. Everything that lives
//! hangs on it, and it has one way to stop.

mod bridge;
mod catalogue_file;
pub mod cli;
pub mod config;
pub mod confine;
mod directory;
mod homeassistant;
mod hub;
pub mod install;
pub mod logging;
pub mod own_address;
mod own_machine;
mod shutdown;
pub mod start;
mod store;
pub mod terminal;
mod web;

use pistat_domain::runs;
pub use pistat_domain::{access, catalogue, fleet, schedule};
pub use shutdown::Ended;
pub use start::{Addresses, Controller, StartError};
#[doc(hidden)]
pub use web::{read_query, read_rotation};
