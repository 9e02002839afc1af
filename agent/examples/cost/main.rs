//! What the agent costs beside others, in one run: memory, processor time, size, bytes written, and
//! how fast it moves output.
//!
//! ```sh
//! cargo build --profile small -p pistat-agent
//! cargo run --release -p pistat-agent --example cost -- target/small/pistat-agent [seconds]
//! cargo run --release -p pistat-agent --example cost -- target/small/pistat-agent growth [samples]
//! ```
//!
//! It needs mosquitto. Beside the agent it measures what it finds of the others, and says what it
//! does not find: the original's shape with the Python that `PISTAT_COST_PYTHON` names (with
//! `python-socketio[client]`, `psutil`, `werkzeug` and `simple-websocket`),
//! `prometheus-node-exporter` on the path or where `PISTAT_COST_NODE_EXPORTER` says, scraped every
//! five seconds, and a bare loop that sleeps five seconds and writes 400 bytes. Read the numbers as
//! ratios, on a machine that is otherwise idle.

mod growth;
mod others;

use std::{
    error::Error,
    fs,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use pistat_agent::credential::Credential;
use pistat_protocol::{
    order::ExecuteOrder,
    task::{OutputChunk, Report},
    topic::Topic,
};
use pistat_testkit::{Controller, Mosquitto, usage};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many lines the throughput is measured with.
const LINES: usize = 3_000_000;

/// A process that ends with its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let binary = words.next().ok_or("the agent's binary, for example target/small/pistat-agent")?;
    if binary == others::SLEEP_LOOP {
        others::sleep_loop();
    }
    let measured = words.next().unwrap_or_else(|| "60".to_owned());
    let folder = tempfile::tempdir()?;
    let broker = Mosquitto::open().await;
    let mut controller = Controller::connect(broker.address());
    if measured == "growth" {
        let samples = words.next().map_or(Ok(100_000), |word| word.parse())?;
        return growth::growth(&binary, folder.path(), &mut controller, samples).await;
    }
    side_by_side(&binary, folder.path(), &controller, measured.parse()?).await?;
    throughput(&binary, folder.path(), &mut controller).await
}

fn start_agent(binary: &str, folder: &Path, controller: &Controller, interval: &str) -> Result<Owned> {
    let state = folder.join("state");
    fs::create_dir_all(&state)?;
    let mut credential = Credential::generate(controller.pi.clone(), None)?;
    credential.controller_key = Some(controller.key.public());
    credential.save(&state)?;
    let url = format!("mqtt://{}", controller.broker);
    let words =
        ["--controller-url", &url, "--pi-id", controller.pi.as_str(), "--interval", interval, "--log-level", "warn"];
    Ok(Owned(Command::new(binary).args(words).arg("--state").arg(state).spawn()?))
}

/// After the hourly facts, which come fifteen seconds after the start and take some.
const WARM_UP: Duration = Duration::from_secs(40);

/// All of them at the same time, a sample every five seconds each.
async fn side_by_side(binary: &str, folder: &Path, controller: &Controller, seconds: u64) -> Result<()> {
    let mut running = vec![("pistat-agent", start_agent(binary, folder, controller, "5")?)];
    running.extend(others::start()?);
    tokio::time::sleep(WARM_UP).await;
    let before: Vec<Usage> = running.iter().map(|(_, process)| Usage::of(process.0.id())).collect();
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    println!("connected and idle, a sample every 5 s, over {seconds} s");
    println!(
        "{:<34} {:>8} {:>8} {:>14} {:>10} {:>8} {:>24}",
        "", "RSS MB", "PSS MB", "CPU ms/minute", "written B", "threads", "times the agent: RSS, CPU"
    );
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let mut agents = None;
    for ((name, process), before) in running.iter().zip(before) {
        let after = Usage::of(process.0.id());
        let (rss, cpu) = (megabytes(after.rss), (after.cpu_milliseconds - before.cpu_milliseconds) / minutes);
        // The agent is the first.
        let (own_rss, own_cpu) = *agents.get_or_insert((rss, cpu));
        println!(
            "{name:<34} {rss:>8.2} {:>8.2} {cpu:>14.1} {:>10} {:>8} {:>17.2}, {:>6.2}",
            megabytes(after.pss),
            after.written - before.written,
            after.threads,
            rss / own_rss,
            cpu / own_cpu
        );
    }
    println!(
        "size of the agent's binary: {:.2} MB ({} bytes)",
        megabytes(fs::metadata(binary)?.len()),
        fs::metadata(binary)?.len()
    );
    Ok(())
}

struct Usage {
    rss: u64,
    pss: u64,
    cpu_milliseconds: f64,
    written: u64,
    threads: u64,
}

impl Usage {
    /// With the processor time of children that have ended: the agent asks some tools.
    fn of(pid: u32) -> Self {
        Self {
            rss: usage::memory(pid, "VmRSS"),
            pss: usage::proportional_memory(pid),
            cpu_milliseconds: usage::cpu_with_children(pid).as_secs_f64() * 1e3,
            written: usage::written(pid),
            threads: usage::threads(pid),
        }
    }
}

/// Lines a second from a process through the agent and a broker to a controller that acknowledges
/// every chunk.
async fn throughput(binary: &str, folder: &Path, controller: &mut Controller) -> Result<()> {
    let agent = start_agent(binary, folder, controller, "5")?;
    controller.wait_for_status("online").await;
    let order = controller.order(&["seq", "1", &LINES.to_string()]);
    let order = ExecuteOrder { timeout_milliseconds: 600_000, ..order };
    controller.send(&order).await;
    let started = Instant::now();
    let mut lines = 0;
    loop {
        let message = controller.next().await;
        match message.topic {
            Topic::Output(_, run) if run == order.run => {
                let chunk: OutputChunk = message.json();
                if !chunk.is_final {
                    lines += chunk.data.bytes().filter(|byte| *byte == b'\n').count();
                }
            }
            Topic::Report(_, run) if run == order.run && message.json::<Report>().state.is_final() => break,
            _ => {}
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    let usage = Usage::of(agent.0.id());
    let complete = if lines == LINES { "all of them" } else { "SOME ARE MISSING" };
    println!(
        "output of `seq 1 {LINES}`: {lines} lines ({complete}), {:.0} thousand a second, RSS afterwards {:.2} MB",
        f64::from(u32::try_from(lines)?) / elapsed / 1e3,
        megabytes(usage.rss)
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
