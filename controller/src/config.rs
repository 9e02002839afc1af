//! The controller's configuration: defaults, then `config/pistat.toml`, then the environment, then
//! flags.
//!
//! Unknown keys are refused, and all problems are reported at once with their places, before any
//! port is bound. Nothing here opens a socket or makes a folder. Secrets print as `***`.

mod certificates;
mod layers;
mod load;
mod sections;
mod value;

pub(crate) use load::{is_of_current_folder, without_current_folder};
pub use pistat_domain::document::Problem;
pub use pistat_domain::document::units::{parse_duration, parse_size};
pub(crate) use pistat_domain::document::{item, reader, units};
pub use sections::{
    AccountRules, Broker, Config, Enrolment, Flags, History, HomeAssistant, Http, HttpLimits, LogLevel, Mqtt, MqttTls,
    Requests, Runs, Tls,
};
pub(crate) use value::{check_not_brokers, check_publish_rule};

/// The environment of this process, as [`Config::load`] takes it. What is not Unicode cannot be
/// ours, and is left out.
pub fn environment() -> Vec<(String, String)> {
    let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(unicode).collect()
}
