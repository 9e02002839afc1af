//! The harness of the whole-system tests: real programs, real sockets, real clients, a real browser.
//!
//! [`Stack`] is a controller of its own on loopback ports of its own with a folder of its own, so tests run side by side. Nothing here sleeps and
//! hopes: [`eventually`] asks until something is true, or fails with what it saw last. Every process ends with the test that started it, and says
//! what it logged when that test failed.
//!
//! It refuses to reach into programs: whatever a test knows, it knows from outside.

pub mod agent;
pub mod broker;
pub mod catalogue;
pub mod clients;
pub mod clock;
pub mod dashboard;
pub mod fake_agent;
pub mod feed;
pub mod http;
pub mod mosquitto;
pub mod mqtt;
pub mod pages;
pub mod port;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod random;
pub mod stack;
pub mod statistics;
mod stutter;
pub mod wait;

pub use agent::Agent;
pub use broker::Mosquitto;
pub use clock::Clock;
pub use dashboard::Dashboard;
pub use fake_agent::FakeAgent;
pub use feed::Feed;
pub use http::{Http, Reply};
pub use mqtt::Mqtt;
pub use port::Port;
pub use process::Process;
pub use proxy::Proxy;
pub use stack::Stack;
pub use wait::{PATIENCE, STANDSTILL, eventually, gradually, steadily};
