//! The real binary against a real broker, with a controller that is played by the tests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod connection;
mod harness;
mod orders;
mod root;
mod runs;
mod service;
mod start;
