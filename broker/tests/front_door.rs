//! The broker over real sockets, as its clients meet it.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "front_door/setup.rs"]
mod setup;

#[path = "front_door/paho_v311.rs"]
mod paho_v311;
#[path = "front_door/paho_v5.rs"]
mod paho_v5;

#[path = "front_door/access.rs"]
mod access;
#[path = "front_door/bounds.rs"]
mod bounds;
#[path = "front_door/cells.rs"]
mod cells;
#[path = "front_door/conformance.rs"]
mod conformance;
#[path = "front_door/hostile.rs"]
mod hostile;
#[path = "front_door/lasting.rs"]
mod lasting;
#[path = "front_door/load.rs"]
mod load;
#[path = "front_door/others.rs"]
mod others;
#[path = "front_door/sessions.rs"]
mod sessions;
#[path = "front_door/storms.rs"]
mod storms;
