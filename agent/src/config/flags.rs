//! The command line, with the environment behind it.

use std::{ffi::OsString, fmt, path::PathBuf};

use clap::{CommandFactory, FromArgMatches, parser::ValueSource};

/// Reports this machine to a Pi Stat controller and runs the tasks that the controller signed.
#[derive(Clone, clap::Parser)]
#[command(name = "pistat-agent", version, max_term_width = 100, args_override_self = true)]
#[command(
    after_help = "pistat-agent enroll, with the same options, ends as soon as the controller has let this machine in.
pistat-agent runner --help tells of the part that runs tasks as root."
)]
pub struct Flags {
    /// Where the controller is: http(s)://host:8000, or `mqtt(s)://[user:password@]host:1883`
    #[arg(long, value_name = "URL", env = "PISTAT_AGENT_CONTROLLER_URL", hide_env_values = true)]
    pub controller_url: Option<String>,
    /// A stable name for this machine
    #[arg(long, value_name = "ID", env = "PISTAT_AGENT_PI_ID")]
    pub pi_id: Option<String>,
    /// The name that people see, until they rename the machine
    #[arg(long, value_name = "TEXT", env = "PISTAT_AGENT_LABEL")]
    pub label: Option<String>,
    /// Seconds between two samples, from 0.2 [default: 5]
    #[arg(long, value_name = "SECONDS", env = "PISTAT_AGENT_INTERVAL")]
    pub interval: Option<f64>,
    /// Report statistics, and refuse to run tasks
    #[arg(long, env = "PISTAT_AGENT_REGISTER_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    pub register_only: bool,
    /// The join token, at the first start only (`pistat join-token show` on the controller)
    #[arg(long, value_name = "TOKEN", env = "PISTAT_AGENT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file that contains the join token
    #[arg(long, value_name = "FILE", env = "PISTAT_AGENT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Where this machine's credential and the state of runs are kept
    #[arg(long, value_name = "DIR", env = "PISTAT_AGENT_STATE")]
    pub state: Option<PathBuf>,
    /// The configuration file [default: /etc/pistat/agent.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "PISTAT_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Certificates (PEM) to believe instead of the system's, for https:// and mqtts://
    #[arg(long, value_name = "FILE", env = "PISTAT_AGENT_CA")]
    pub ca: Option<PathBuf>,
    /// trace, debug, info, warn or error [default: info]
    #[arg(long, value_name = "LEVEL", env = "PISTAT_AGENT_LOG_LEVEL")]
    pub log_level: Option<String>,
}

impl Flags {
    /// Reads the command line and the environment. A flag for the token or for its file wins over a
    /// variable for the other, as everywhere.
    ///
    /// # Errors
    /// It cannot be understood, or help or the version was asked for.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(line)?;
        let mut flags = Self::from_arg_matches(&matches)?;
        let is_flag = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        match (is_flag("token"), is_flag("token_file")) {
            (true, false) => flags.token_file = None,
            (false, true) => flags.token = None,
            _ => {}
        }
        Ok(flags)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |given: &Option<String>| given.as_ref().map(|_| "***");
        f.debug_struct("Flags")
            .field("controller_url", &hidden(&self.controller_url))
            .field("pi_id", &self.pi_id)
            .field("label", &self.label)
            .field("interval", &self.interval)
            .field("register_only", &self.register_only)
            .field("token", &hidden(&self.token))
            .field("token_file", &self.token_file)
            .field("state", &self.state)
            .field("config", &self.config)
            .field("ca", &self.ca)
            .field("log_level", &self.log_level)
            .finish()
    }
}
