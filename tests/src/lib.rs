//! The whole-system tests' own name for the testkit.

pub use pistat_testkit::{DEADLINE as DEADLINE, *};
