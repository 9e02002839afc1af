//! The broker over real sockets, as its clients meet it.

#[path = "front_door/client.rs"]
mod client;
#[path = "front_door/setup.rs"]
mod setup;

#[path = "front_door/paho_v311.rs"]
mod paho_v311;
#[path = "front_door/paho_v5.rs"]
mod paho_v5;
