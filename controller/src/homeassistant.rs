//! Home Assistant's MQTT discovery: every machine announces itself, and nobody writes YAML.
//!
//! One retained, device-based document per machine ([`document`]) says which of the fleet's
//! ordinary topics is which entity; [`sensors`] is the table of them. [`Announcer`] decides what is
//! published when: on change only, never the same twice, and everything again when Home Assistant
//! was started. It refuses to announce what a machine has not reported, and to drop an entity
//! before the machine has told all that it can. What was announced is on the disk before it is
//! published ([`Announced`]): whatever has been told to Home Assistant can be taken back, even
//! after a `kill -9`, by a controller with another prefix, or by one that announces nothing any
//! more.
//!
//! Pure: no I/O, no clock of its own. Facts about Home Assistant are those of its own documentation
//! and code, 2024.11 and later.

mod announcer;
mod document;
mod known;
mod sensors;

pub(crate) use announcer::{Announcer, Plan, Say};
pub(crate) use document::{Announced, Button, Facts, Place, birth_topics};
