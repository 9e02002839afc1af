//! What the agent is compared with, as far as it is there.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::{Owned, Result};

/// The word that makes this program the bare loop.
pub(crate) const SLEEP_LOOP: &str = "--sleep-loop";

const PERIOD: Duration = Duration::from_secs(5);

/// The floor: what any program costs that wakes every five seconds and says 400 bytes.
pub(crate) fn sleep_loop() -> ! {
    let message = [b'x'; 400];
    loop {
        let _ = fs::write("/dev/null", message);
        thread::sleep(PERIOD);
    }
}

/// Starts those that are there, and says which are not. The processes that are only their other
/// ends have no name.
pub(crate) fn start() -> Result<Vec<(&'static str, Owned)>> {
    let mut running =
        vec![("a bare sleep loop", Owned(quiet(&mut Command::new(env::current_exe()?)).arg(SLEEP_LOOP).spawn()?))];
    match env::var_os("PISTAT_COST_PYTHON") {
        Some(python) => running.extend(start_original(&python)?),
        None => println!("the original's shape is not measured: PISTAT_COST_PYTHON names no Python"),
    }
    match node_exporter() {
        Some(program) => running.push(("prometheus-node-exporter, scraped", start_node_exporter(&program)?)),
        None => println!("prometheus-node-exporter is not measured: it is not installed (Debian package of that name)"),
    }
    Ok(running)
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn start_original(python: &std::ffi::OsStr) -> Result<[(&'static str, Owned); 2]> {
    let (script, port) = (concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cost/original.py"), free_port()?.to_string());
    let start = |word: &str| quiet(Command::new(python).args([script, word, &port])).spawn().map(Owned);
    Ok([("(its server, not an agent)", start("serve")?), ("the original's shape, Python", start("report")?)])
}

fn node_exporter() -> Option<PathBuf> {
    let named = env::var_os("PISTAT_COST_NODE_EXPORTER").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).map(|folder| folder.join("prometheus-node-exporter"));
    named.or_else(|| folders.find(|program| program.exists()))
}

fn start_node_exporter(program: &PathBuf) -> Result<Owned> {
    let port = free_port()?;
    let address = format!("--web.listen-address=127.0.0.1:{port}");
    let exporter = Owned(quiet(&mut Command::new(program)).arg(address).spawn()?);
    // It ends with this program.
    thread::spawn(move || {
        loop {
            thread::sleep(PERIOD);
            let _ = scrape(port);
        }
    });
    Ok(exporter)
}

fn scrape(port: u16) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())
}
