//! A fleet of simulated machines: up to 10,000 agents in one process, over plain MQTT, with real
//! credentials.
//!
//! A [`Fleet`] enrols its machines as real agents enrol, publishes samples that look like those of
//! a Pi, verifies the orders that it gets with the code that the agent uses, answers them with
//! reports and output, and misbehaves as real fleets do ([`Churn`]): connections break, machines
//! restart, links are slow. Everything random comes from one seed.
//!
//! It is a witness, too: a [`Ledger`] holds what every machine was ordered and what it started,
//! from the machines' own point of view.
//!
//! It refuses to start any process, and to know anything that an agent could not know.

pub mod fleet;
pub mod ledger;
mod machine;
pub mod plan;
pub mod roll;
mod run;
mod sample;

pub use fleet::Fleet;
pub use ledger::{Counts, Ledger};
pub use pistat_testkit::{Dice, credential::Credential};
pub use plan::{Churn, Plan};
pub use roll::Roll;
