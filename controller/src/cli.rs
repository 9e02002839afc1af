//! The operator's command line. Everything but `serve`, `check`, `tls`, `broker-acl` and
//! `completions` talks to a running controller over HTTP.
//!
//! Results go to standard output, remarks to standard error. Exit codes: 0 done, 1 refused, 64
//! wrong use, 69 no controller, 77 no permission; `task run` exits with the task's own.

mod admin;
mod args;
mod broker_acl;
mod check;
mod client;
mod console;
mod failure;
mod follow;
mod history;
mod machines;
mod runs;
mod tls;

use std::{
    ffi::OsString,
    io::{self, BufRead, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use pistat_support::file;

use self::{
    args::{Cli, ClientArgs, ServeArgs, Sub},
    client::{Access, Client},
    console::{Console, Streams},
    failure::{Failure, USAGE},
};
use crate::{
    config::{Config, Flags, environment, is_of_current_folder, without_current_folder},
    terminal::{self, TagChange},
};

/// What the command line asked for.
#[derive(Debug)]
pub enum Entry {
    /// `pistat`, `pistat serve`: start the controller with these flags.
    Serve(Flags),
    /// Anything else has been done; this is how it went.
    Done(ExitCode),
}

/// Reads the command line and does everything but `serve`.
pub fn start(args: impl IntoIterator<Item = OsString>) -> Entry {
    let (mut input, mut out, mut err) = (io::stdin().lock(), io::stdout().lock(), io::stderr());
    let surroundings = Surroundings {
        environment: environment(),
        streams: Streams::of_process(),
        io: (&mut input, &mut out, &mut err),
    };
    match enter(args, surroundings) {
        Outcome::Serve(flags) => Entry::Serve(flags),
        Outcome::Done(code) => Entry::Done(code.into()),
    }
}

/// What a command line lives in: the process, or a test.
struct Surroundings<'s> {
    environment: Vec<(String, String)>,
    streams: Streams,
    io: (&'s mut dyn BufRead, &'s mut dyn Write, &'s mut dyn Write),
}

impl Surroundings<'_> {
    /// A variable that is set and not empty.
    fn variable(&self, name: &str) -> Option<String> {
        let found = self.environment.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    }
}

#[derive(Debug)]
enum Outcome {
    Serve(Flags),
    Done(u8),
}

fn enter(args: impl IntoIterator<Item = OsString>, mut surroundings: Surroundings<'_>) -> Outcome {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return Outcome::Done(usage(&error, &mut surroundings)),
    };
    match cli.command {
        None => Outcome::Serve(cli.serve.flags(&cli.client)),
        Some(Sub::Serve(serve)) => Outcome::Serve(serve.or(cli.serve).flags(&cli.client)),
        Some(command) => Outcome::Done(perform(command, &cli.client, cli.serve, surroundings)),
    }
}

/// Help and version are asked for; anything else is wrong use.
fn usage(error: &clap::Error, surroundings: &mut Surroundings<'_>) -> u8 {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let text = error.render();
    let (_, out, err) = &mut surroundings.io;
    let (stream, colour): (&mut dyn Write, bool) =
        if asked { (*out, surroundings.streams.out) } else { (*err, surroundings.streams.err) };
    let text = if colour { text.ansi().to_string() } else { text.to_string() };
    // There is nobody else to tell.
    let _ = stream.write_all(text.as_bytes());
    if asked { 0 } else { USAGE }
}

fn perform(command: Sub, client: &ClientArgs, serve: ServeArgs, surroundings: Surroundings<'_>) -> u8 {
    let no_colour = surroundings.variable("NO_COLOR").is_some();
    let access = Setting::of(client, &surroundings);
    let environment = surroundings.environment;
    let mut console = Console::new(surroundings.io, surroundings.streams, no_colour, client.json);
    let result = match command {
        Sub::Check(own) => check::run(&mut console, &own.or(serve).flags(client), environment),
        command => no_serve_option(&serve).and_then(|()| dispatch(command, &access, &mut console)),
    };
    match result {
        Ok(()) => 0,
        Err(failure) => {
            if failure.has_sentence() {
                console.remark(&terminal::refusal(&failure.to_string(), console.err_style()));
            }
            failure.exit_code()
        }
    }
}

fn no_serve_option(serve: &ServeArgs) -> Result<(), Failure> {
    serve.given().map_or(Ok(()), |name| Err(Failure::Usage(format!("{name} is for `pistat serve` and `pistat check`"))))
}

fn dispatch(command: Sub, setting: &Setting, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Sub::Completions { shell } => completions(shell, console),
        Sub::Tls(args::Tls::Init { names, dir }) => {
            let folder = dir.unwrap_or_else(|| setting.config.state.join("tls"));
            tls::init(console, names, &folder)
        }
        Sub::BrokerAcl(command) => broker_acl::print(console, &command, &setting.config),
        command => ask_controller(command, &setting.client()?, setting.own_config(), console),
    }
}

fn ask_controller(
    command: Sub,
    client: &Client,
    config: Option<&Config>,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        Sub::Login => admin::login(client, console),
        Sub::Pis => machines::list(client, console),
        Sub::Pi { pi } => machines::show(client, console, &pi),
        Sub::Task(args::Task::List) => runs::tasks(client, console),
        Sub::Task(args::Task::Run(run)) => runs::run(client, console, run, config),
        Sub::Task(args::Task::Cancel { run }) => runs::cancel(client, console, &run),
        Sub::Task(args::Task::Assign { words }) => machines::assign(client, console, &words),
        Sub::Assign(args::Assign::Name { words }) => machines::rename(client, console, &words),
        Sub::Tag(change) => machines::tag(client, console, &tag_change(change)),
        Sub::Settings { pi, interval } => machines::settings(client, console, &pi, interval.0),
        Sub::Runs { pi, limit } => runs::list(client, console, pi.as_deref(), limit),
        Sub::Show { run } => runs::show(client, console, &run),
        Sub::Output { run, follow } => runs::output(client, console, &run, follow),
        Sub::History(asked) => history::print(client, console, &asked),
        Sub::Events(asked) => admin::events(client, console, &asked),
        Sub::Account(command) => admin::account(client, console, command),
        Sub::Sessions { command } => admin::sessions(client, console, command),
        Sub::JoinToken(command) => admin::join_token(client, console, command),
        Sub::Agent(command) => admin::agent(client, console, command),
        Sub::Serve(_) | Sub::Check(_) | Sub::Tls(_) | Sub::BrokerAcl(_) | Sub::Completions { .. } => Ok(()),
    }
}

fn tag_change(change: args::Tag) -> TagChange {
    match change {
        args::Tag::Add { pi, tag } => TagChange { add: true, machine: pi, tag },
        args::Tag::Remove { pi, tag } => TagChange { add: false, machine: pi, tag },
    }
}

fn completions(shell: clap_complete::Shell, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pistat", &mut script);
    console.print(&String::from_utf8_lossy(&script))
}

/// Where the controller is and with which token it is asked, before anything is opened.
struct Setting {
    config: Config,
    /// Whether the controller is this machine's: nobody named another.
    is_own: bool,
    url: String,
    token_file: Option<std::path::PathBuf>,
    token: Option<String>,
    ca: Option<std::path::PathBuf>,
    /// Whether only `config/pistat.toml` of the current folder says that the controller is there.
    is_address_of_folder: bool,
    /// Whether the state folder was given by a flag or the environment.
    is_state_given: bool,
}

/// What a client may read of the configuration. What is wrong with the server's does not matter to
/// it: `check` and `serve` report that.
fn lenient(flags: &Flags, client: &ClientArgs, surroundings: &Surroundings<'_>) -> Config {
    Config::load(flags, surroundings.environment.clone()).unwrap_or_else(|_| Config {
        state: client.state.clone().unwrap_or_else(|| "state".into()),
        ..Config::default()
    })
}

impl Setting {
    fn of(client: &ClientArgs, surroundings: &Surroundings<'_>) -> Self {
        let flags = ServeArgs::default().flags(client);
        let config = lenient(&flags, client, surroundings);
        let is_address_of_folder = || {
            let trusted = lenient(&without_current_folder(&flags), client, surroundings);
            is_of_current_folder(&flags) && own_url(&config) != own_url(&trusted)
        };
        let url = client.controller_url.clone().or_else(|| surroundings.variable("PISTAT_CONTROLLER_URL"));
        Self {
            is_own: url.is_none(),
            is_address_of_folder: url.is_none() && is_address_of_folder(),
            is_state_given: client.state.is_some() || surroundings.variable("PISTAT_STATE").is_some(),
            url: url.unwrap_or_else(|| own_url(&config)),
            config,
            token_file: client.token_file.clone(),
            token: surroundings.variable("PISTAT_TOKEN"),
            ca: client.ca.clone().or_else(|| surroundings.variable("PISTAT_CA").map(Into::into)),
        }
    }

    /// What the controller that is asked was configured with, where that is known here.
    fn own_config(&self) -> Option<&Config> {
        self.is_own.then_some(&self.config)
    }

    fn client(&self) -> Result<Client, Failure> {
        let (token, token_source) = self.find_token()?;
        if token.is_some() && !self.may_send_token() {
            return Err(Failure::Usage(format!(
                "The token is not sent to {url}: only config/pistat.toml of the current folder says that the controller is there, and \
                 the author of this folder would receive it. Name the address with --controller-url {url}, or the file with \
                 --config config/pistat.toml, if you trust it",
                url = self.url
            )));
        }
        Client::new(Access { url: self.url.clone(), token, token_source, ca: self.ca.as_deref() })
    }

    /// Whether the token may go to the address. An address that only a file of the current folder
    /// names gets no token from elsewhere: not that of `PISTAT_TOKEN` or `--token-file`, and not
    /// one outside of the folder. Otherwise the author of the folder could have it sent to a
    /// program of their own.
    fn may_send_token(&self) -> bool {
        if !self.is_address_of_folder {
            return true;
        }
        let is_of_folder = || {
            let token = std::fs::canonicalize(self.config.state.join("admin.token")).ok()?;
            Some(token.starts_with(std::env::current_dir().and_then(std::fs::canonicalize).ok()?))
        };
        self.token_file.is_none() && self.token.is_none() && !self.is_state_given && is_of_folder().unwrap_or(false)
    }

    fn find_token(&self) -> Result<(Option<String>, String), Failure> {
        if let Some(file) = &self.token_file {
            let token = file::read_text(file)
                .and_then(|text| token_of(&text))
                .map_err(Failure::file(format!("{} cannot be read", file.display())))?;
            return Ok((Some(token), String::new()));
        }
        if let Some(token) = &self.token {
            return Ok((Some(token.trim().to_owned()), String::new()));
        }
        let file = self.config.state.join("admin.token");
        // The folder may be another user's, as the service's is root's in `sudo pistat login`: what
        // that user links there is not read, nor sent.
        match file::read_foreign(&file).and_then(|text| token_of(&text)) {
            Ok(token) => Ok((Some(token), String::new())),
            Err(error) => Ok((None, format!("{}: {error}", file.display()))),
        }
    }
}

/// The token of a file. Another line of whatever else the file holds is never sent to a controller.
fn token_of(text: &str) -> io::Result<String> {
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token {
        Ok(token.to_owned())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it does not hold a token"))
    }
}

/// The controller of this machine, as its own configuration says.
fn own_url(config: &Config) -> String {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://127.0.0.1:{}", config.http.listen.port())
}

#[cfg(test)]
mod tests;
