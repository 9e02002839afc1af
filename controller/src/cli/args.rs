//! The words of the command line, as `clap` reads them; `docs/terminal.md` and
//! `docs/configuration.md` describe them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pistat_protocol::{
    account::Role,
    dashboard::EventKind,
    id::{AccountName, PiId, Tag as TagName, TokenName},
    time::Timestamp,
};

use crate::{config::Flags, terminal::parse::interval_seconds};

/// Pi Stat: a controller for fleets of Raspberry Pis, and the command line of its operator.
///
/// Without a command it starts the controller.
#[derive(Debug, Parser)]
#[command(name = "pistat", version, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
    #[command(subcommand)]
    pub(super) command: Option<Sub>,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub(super) struct ClientArgs {
    /// The controller's address (`PISTAT_CONTROLLER_URL`), <http://127.0.0.1:8000> without one
    #[arg(long, global = true, value_name = "URL", help_heading = "Client options")]
    pub(super) controller_url: Option<String>,
    /// A file with the account's token (`PISTAT_TOKEN` holds the token itself); admin.token of the
    /// state folder without one
    #[arg(long, global = true, value_name = "FILE", help_heading = "Client options")]
    pub(super) token_file: Option<PathBuf>,
    /// A file with the certificate authority to trust, PEM, for https (`PISTAT_CA`)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Client options")]
    pub(super) ca: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Client options")]
    pub(super) json: bool,
    /// The state folder
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// The configuration file; this one must exist [default: config/pistat.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// What only `serve` and `check` understand.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ServeArgs {
    /// Where the dashboard, the API and MQTT over WebSocket listen
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// Where the embedded MQTT broker listens
    #[arg(long, value_name = "ADDR:PORT")]
    mqtt: Option<String>,
    /// The catalogue's file
    #[arg(long, value_name = "FILE")]
    tasks: Option<PathBuf>,
    /// How much is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ServeArgs {
    /// The first option that was given, by its name.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.http.is_some(), "--http"),
            (self.mqtt.is_some(), "--mqtt"),
            (self.tasks.is_some(), "--tasks"),
            (self.log_level.is_some(), "--log-level"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }

    /// These before those of `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            http: self.http.or(other.http),
            mqtt: self.mqtt.or(other.mqtt),
            tasks: self.tasks.or(other.tasks),
            log_level: self.log_level.or(other.log_level),
        }
    }

    /// As the configuration takes them.
    pub(super) fn flags(self, client: &ClientArgs) -> Flags {
        Flags {
            config: client.config.clone(),
            http: self.http,
            mqtt: self.mqtt,
            state: client.state.clone(),
            tasks: self.tasks,
            log_level: self.log_level,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Sub {
    /// Start the controller
    Serve(ServeArgs),
    /// Read all configuration, print every problem; exit 0 or 64
    Check(ServeArgs),
    /// Print a new single-use sign-in link
    Login,
    /// Show all machines
    Pis,
    /// Show everything about one machine
    Pi {
        /// Its id or label
        pi: String,
    },
    /// The catalogue: show, run, cancel, assign
    #[command(subcommand)]
    Task(Task),
    /// Rename a machine
    #[command(subcommand)]
    Assign(Assign),
    /// Put a machine into a group, or take it out
    #[command(subcommand)]
    Tag(Tag),
    /// Set how often a machine measures
    Settings {
        /// Its id or label
        pi: String,
        /// 0.2 to 3600 seconds, or default for the agent's own
        #[arg(long, value_name = "SECONDS|default", value_parser = interval)]
        interval: Interval,
    },
    /// Show the newest runs
    Runs {
        /// Only those of this machine
        pi: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show everything about one run
    Show {
        /// Its id, or the last characters of it
        run: String,
    },
    /// Print the output of a run
    Output {
        /// Its id, or the last characters of it
        run: String,
        /// Wait for more until the run ends
        #[arg(long)]
        follow: bool,
    },
    /// Show what a machine measured, for up to five years
    History(History),
    /// Show the audit log, times in UTC
    Events(Events),
    /// People, scripts and other devices that may connect
    #[command(subcommand)]
    Account(Account),
    /// Signed-in browsers: show them, or end their sessions
    #[command(args_conflicts_with_subcommands = true)]
    Sessions {
        #[command(subcommand)]
        command: Option<Sessions>,
    },
    /// The tokens with which new machines join
    #[command(subcommand)]
    JoinToken(JoinToken),
    /// Machines that may connect
    #[command(subcommand)]
    Agent(Agent),
    /// Certificates of your own
    #[command(subcommand)]
    Tls(Tls),
    /// Print the topic rules for a broker that is not this controller's
    BrokerAcl(BrokerAcl),
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct History {
    /// Its id or label
    pub(super) pi: String,
    /// From when on: a time such as 2026-12-01T08:00:00Z, or how long ago, such as 7d; 1h if absent
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(super) from: Option<Timestamp>,
    /// Until when, written in the same way; now without it
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(super) to: Option<Timestamp>,
    /// Only these series, with commas between them; docs/history.md has their names
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) columns: Vec<String>,
    /// At most so many steps
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(2..=2000))]
    pub(super) points: u32,
    /// Print each step's means as CSV
    #[arg(long, conflicts_with = "json")]
    pub(super) csv: bool,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Only those of this machine, by its id or label
    #[arg(long, value_name = "PI")]
    pub(super) pi: Option<String>,
    /// Only those of this account
    #[arg(long, value_name = "ACCOUNT")]
    pub(super) account: Option<String>,
    /// Only those of this kind: task, alert, mqtt, label, access or system
    #[arg(long, value_name = "KIND", value_parser = event_kind)]
    pub(super) kind: Option<EventKind>,
    /// Only those since then: a time such as 2026-12-01T08:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(super) since: Option<Timestamp>,
    /// How many at most, the newest; 0 is all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) limit: usize,
}

fn event_kind(text: &str) -> Result<EventKind, String> {
    serde_json::from_value(text.to_ascii_lowercase().into())
        .map_err(|_| "it is one of task, alert, mqtt, label, access and system".into())
}

/// A time, or how long ago it was.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = crate::config::parse_duration(text)
        .map_err(|_| "write a time such as 2026-12-01T08:00:00Z, or how long ago, such as 2h or 7d")?;
    std::time::SystemTime::now().checked_sub(ago).map(Into::into).ok_or_else(|| "that is before all times".into())
}

#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Show the tasks that may run
    List,
    /// Run a task, show its output, exit with its exit code
    Run(Run),
    /// End a run
    Cancel {
        /// Its id, or the last characters of it
        run: String,
    },
    /// Record what a machine is responsible for; runs nothing
    Assign {
        /// A machine's id or label, then a task or any text; an empty text takes it away
        #[arg(required = true, num_args = 2.., value_names = ["PI", "TASK"])]
        words: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent flags of a command line")]
pub(super) struct Run {
    /// Its id or label
    pub(super) task: String,
    /// A machine's id or label, @tag or @all [default: controller]; then arguments, name=value
    #[arg(value_name = "PI|@TAG|@all|NAME=VALUE")]
    pub(super) words: Vec<String>,
    /// Do not ask, even if the task asks for it
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Do not wait: print the run's id
    #[arg(long)]
    pub(super) detach: bool,
    /// Print the same as `mosquitto_pub` and curl lines; run nothing
    #[arg(long)]
    pub(super) explain: bool,
    /// On many machines: N at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) at_once: Option<u32>,
    /// On many machines: start no more after N failures
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) stop_after: Option<u32>,
    /// On many machines: the first one alone, the rest only if it succeeded
    #[arg(long)]
    pub(super) canary: bool,
    /// How long it may wait for a machine that is offline, such as 10m; 0 is not at all
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) expires: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Assign {
    /// Rename a machine; an empty label gives the agent's own back
    Name {
        /// A machine's id or label, then its new label
        #[arg(required = true, num_args = 2.., value_names = ["PI", "LABEL"])]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Tag {
    /// Put a machine into the group @tag
    Add {
        /// Its id or label
        pi: String,
        /// The tag
        tag: String,
    },
    /// Take it out
    Remove {
        /// Its id or label
        pi: String,
        /// The tag
        tag: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Account {
    /// Make an account, print its token once
    Add {
        /// Its name, also its MQTT user name
        name: AccountName,
        /// viewer, operator or admin
        #[arg(long, default_value = "viewer")]
        role: Role,
        /// A topic filter that it may publish to, besides its role's
        #[arg(long, value_name = "FILTER")]
        publish: Vec<String>,
        /// A topic filter that it may receive, besides its role's
        #[arg(long, value_name = "FILTER")]
        subscribe: Vec<String>,
        /// How long it lasts, such as 24h or 30d [default: until it is removed]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<String>,
    },
    /// Show all accounts
    List,
    /// Remove an account and end its sessions
    Remove {
        /// Its name
        name: AccountName,
    },
    /// Give it a new token, printed once; the old one ends
    Rotate {
        /// Its name
        name: AccountName,
        /// How long it lasts from now on, such as 24h or 30d [default: as long as before]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Sessions {
    /// End one session
    End {
        /// Its id, as the list shows it
        id: String,
    },
    /// End all sessions of an account; its token is as it was
    EndAll {
        /// Its name
        account: AccountName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum JoinToken {
    /// Print the default one
    Show,
    /// Make a new default one; the old one ends
    Rotate,
    /// Make a named one, print it once
    Add {
        /// Its name
        name: TokenName,
        /// How many machines it lets in [default: any number]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        uses: Option<u32>,
        /// How long it works, such as 24h [default: until it is removed]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<String>,
        /// A tag of machines that join with it; may be given several times
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<TagName>,
    },
    /// Show all of them, without their secrets
    List,
    /// Remove one; machines that joined with it stay
    Remove {
        /// Its name
        name: TokenName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Agent {
    /// Show the machines that may connect
    List,
    /// Print a single-use token for one new machine
    Add {
        /// Its pi-id
        pi: PiId,
    },
    /// Allow one new enrolment of a machine, for example after a new SD card
    Reset {
        /// Its pi-id
        pi: PiId,
    },
    /// Revoke a machine, disconnect it, clear its topics
    Remove {
        /// Its pi-id
        pi: PiId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Tls {
    /// Make a private certificate authority and a server certificate; overwrites nothing
    Init {
        /// A host name or address of the controller; may be given several times
        /// [default: localhost and this host's name]
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
        /// The folder for the files [default: tls in the state folder]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// A broker whose access list can be written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum OtherBroker {
    /// An `acl_file`
    Mosquitto,
    /// Lines of acl.conf
    Emqx,
}

#[derive(Debug, Args)]
pub(super) struct BrokerAcl {
    /// Which broker
    pub(super) broker: OtherBroker,
    /// The controller's user there [default: the user of mqtt.broker, else pistat-controller]
    #[arg(long, value_name = "USER", value_parser = user_name)]
    pub(super) controller: Option<String>,
    /// A machine; may be given several times [default: every user may speak as the machine of its
    /// own name]
    #[arg(long = "agent", value_name = "PI")]
    pub(super) agents: Vec<PiId>,
    /// A user that sees everything; may be given several times
    #[arg(long = "viewer", value_name = "USER", value_parser = user_name)]
    pub(super) viewers: Vec<String>,
    /// A user that also asks for tasks; may be given several times
    #[arg(long = "operator", value_name = "USER", value_parser = user_name)]
    pub(super) operators: Vec<String>,
}

/// A user name that can stand in an access list as it is.
fn user_name(text: &str) -> Result<String, String> {
    let plain = |c: char| !c.is_control() && !matches!(c, '+' | '#' | '/' | '"' | '\\' | '$' | '%');
    if !text.is_empty() && text.trim() == text && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err("a user name has none of + # / \" \\ $ % and no space at its ends".into())
}

/// A cadence: seconds, or `None` for the agent's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval(pub(super) Option<f64>);

fn interval(text: &str) -> Result<Interval, String> {
    interval_seconds(text).map(Interval)
}

fn duration(text: &str) -> Result<String, String> {
    crate::config::parse_duration(text).map(|_| text.to_owned())
}
