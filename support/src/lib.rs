//! What broker, agent and controller share, each thing once. It knows no topics and no payloads
//! beyond their sizes.

pub mod backoff;
#[cfg(feature = "client")]
pub mod client;
pub mod file;
pub mod mqtt_url;
pub mod notify;
pub mod random;
pub mod tls;
