//! `pistat`: reads the command line, starts the controller, prints what a person needs first, and ends with an exit code that says how it went.

use std::{io::IsTerminal, net::SocketAddr, process::ExitCode};

use pistat::{
    Controller,
    cli::{self, Entry},
    config::{Broker, BrokerUrl, Config, Flags, environment},
    install,
    start::Welcome,
};

/// As many files as the packaged service may open: far more than the broker's connections.
const OPEN_FILES: u64 = 65_536;

fn main() -> ExitCode {
    match cli::start(std::env::args_os()) {
        Entry::Done(code) => code,
        Entry::Serve(flags) => serve(&flags),
    }
}

fn serve(flags: &Flags) -> ExitCode {
    let config = match Config::load(flags, environment()) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            return ExitCode::from(64);
        }
    };
    log_to_stderr(config.log_level.as_str());
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the system refuses what the controller needs: {error}");
            return ExitCode::from(71);
        }
    };
    runtime.block_on(run(config))
}

/// Each machine is an open socket, and a shell allows 1,024 of them unless somebody asks for more. What the system does not grant, the broker refuses.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let allowed = getrlimit(Resource::Nofile);
    let wanted = allowed.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if allowed.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: allowed.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the number of open files cannot be raised; a large fleet may not fit");
        }
    }
}

async fn run(config: Config) -> ExitCode {
    let told = config.clone();
    match Controller::start(config).await {
        Ok(controller) => {
            welcome(&controller, &told);
            ExitCode::from(controller.run().await.exit_code())
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn log_to_stderr(level: &str) {
    // The router of the message log opens a span per message: it is silenced, since nobody reads them and they cost half of its speed.
    let filter = tracing_subscriber::EnvFilter::new(format!(
        "warn,pistat={level},pistat_broker={level},pistat_agent={level},rumqttd=off"
    ));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// The sign-in link, the broker's address, and how to add a Pi.
fn welcome(controller: &Controller, config: &Config) {
    let public_url = config.http.public_url.as_deref();
    let (addresses, welcome) = (controller.addresses(), controller.welcome());
    let scheme = if addresses.https { "https" } else { "http" };
    let url = |host: String| format!("{scheme}://{host}:{}", addresses.http.port());
    let here = url(host(addresses.http, "localhost".into()));
    let there = public_url.map_or_else(|| url(host(addresses.http, lan_address())), Into::into);
    for sentence in &welcome.damaged {
        println!("note        {sentence}");
    }
    println!("\n  Pi Stat {}\n", env!("CARGO_PKG_VERSION"));
    println!("  dashboard   {}/#login={}", public_url.unwrap_or(&here), welcome.code);
    println!("              (works once, for 15 minutes; `pistat login` prints another)");
    if let Some(mqtt) = addresses.mqtt {
        let host = host(mqtt, "localhost".into());
        let admin_token = config.state.join("admin.token");
        println!("  mqtt        mqtt://{host}:{}   user admin, password in {}", mqtt.port(), admin_token.display());
    }
    if let Some(mqtts) = addresses.mqtts {
        println!("  mqtt, TLS   mqtts://{}:{}", host(mqtts, "localhost".into()), mqtts.port());
    }
    if let Broker::External(url) = &config.mqtt.broker {
        println!("  mqtt        {url}   the broker of mqtt.broker, which says who may connect");
    }
    println!("  add a Pi    {}\n", add_a_pi(config, &there, welcome));
}

/// What is typed on a Pi: the command that installs an agent where this controller has one, else how an agent is started that is there already.
fn add_a_pi(config: &Config, url: &str, welcome: &Welcome) -> String {
    let token = welcome.join_token.to_string();
    let start = |url: &str| {
        let indent = " ".repeat(16);
        format!("pistat-agent --controller-url {url} --pi-id pi-1 --label \"Rack Pi 1\" \\\n{indent}--token {token}")
    };
    match (&config.mqtt.broker, &welcome.install_sha256) {
        (Broker::External(broker), _) => start(&address_for_agents(broker)),
        (Broker::Embedded, Some(sha256)) => install::command(url, "pi-1", "Rack Pi 1", &token, sha256),
        (Broker::Embedded, None) => start(url),
    }
}

/// What an agent is given: on another's broker it has a user of its own, named as the machine.
fn address_for_agents(url: &BrokerUrl) -> String {
    let shown = url.to_string();
    let host =
        shown.rsplit_once('@').map_or_else(|| shown.split_once("://").map_or("", |(_, host)| host), |(_, host)| host);
    format!("{}://pi-1:PASSWORD@{host}", url.scheme.as_str())
}

/// What stands for an address in a URL: itself, or a name for "every address of this machine".
fn host(address: SocketAddr, any: String) -> String {
    match address.ip() {
        ip if ip.is_unspecified() => any,
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        std::net::IpAddr::V4(ip) => ip.to_string(),
    }
}

/// The address by which other machines of the network reach this one: that of the default route. Nothing is sent to find it.
fn lan_address() -> String {
    let local = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        // TEST-NET-1 (RFC 5737): connecting a datagram socket only looks up the route.
        socket.connect("192.0.2.1:9").ok()?;
        socket.local_addr().ok()
    };
    local().map_or_else(|| "localhost".into(), |address| address.ip().to_string())
}
