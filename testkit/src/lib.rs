//! The testkit: what every suite, the simulator and the benchmarks test with.
//!
//! [`Stack`] is a controller process with loopback ports, a folder and a catalogue of its own, so
//! tests run side by side. Nothing here waits for a fixed time: [`eventually`] asks until something
//! is true, or fails with what it saw last. Every process ends with the test that started it, and
//! its log is shown if that test failed.
//!
//! It uses the protocol alone: it never links the broker, the agent or the controller, so whatever
//! a test knows of them, it knows from outside. No program that ships depends on it.

pub mod agent;
pub mod broker;
pub mod catalogue;
pub mod clients;
pub mod clock;
pub mod controller;
pub mod credential;
pub mod dashboard;
pub mod dice;
pub mod fake_agent;
pub mod feed;
pub mod http;
pub mod link;
pub mod mosquitto;
pub mod mqtt;
pub mod packet;
pub mod pages;
pub mod payload;
pub mod port;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod raw;
pub mod stack;
pub mod statistics;
mod stutter;
pub mod usage;
pub mod wait;
pub mod wire;

pub use agent::Agent;
pub use broker::Mosquitto;
pub use clock::Clock;
pub use controller::Controller;
pub use dashboard::Dashboard;
pub use dice::Dice;
pub use fake_agent::FakeAgent;
pub use feed::Feed;
pub use http::{Http, Reply};
pub use mqtt::Mqtt;
pub use port::Port;
pub use process::Process;
pub use proxy::Proxy;
pub use stack::Stack;
pub use wait::{DEADLINE, STANDSTILL, eventually, gradually, steadily};
