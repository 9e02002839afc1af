//! What the controller decides, and on what: the fleet, runs, access, the catalogue, schedules.
//!
//! Pure: no I/O, no tokio, no clock of its own; the time is a parameter. It is a crate of its own
//! so that the compiler refuses what must not be: nothing here can name the hub, the store, the web
//! server or the broker.

pub mod access;
pub mod age;
pub mod catalogue;
pub mod document;
pub mod fleet;
pub mod metadata;
pub mod recent;
pub mod records;
pub mod runs;
pub mod schedule;
