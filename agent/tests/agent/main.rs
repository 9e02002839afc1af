//! The real binary against a real broker, with a controller that is played by the tests.

mod connection;
mod harness;
mod orders;
mod runs;
mod start;
