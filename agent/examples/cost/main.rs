//! What the agent costs beside others, in one run: memory, processor time, size, bytes written, and how fast it moves output.
//!
//! ```sh
//! cargo build --profile small -p pistat-agent
//! cargo run --release -p pistat-agent --example cost -- target/small/pistat-agent [seconds]
//! cargo run --release -p pistat-agent --example cost -- target/small/pistat-agent growth [samples]
//! ```
//!
//! It needs mosquitto. Beside the agent it measures what it finds of the others, and says what it does not find:
//! the original's shape with the Python that `PISTAT_COST_PYTHON` names (with `python-socketio[client]`, `psutil`, `werkzeug` and
//! `simple-websocket`), `prometheus-node-exporter` on the path or where `PISTAT_COST_NODE_EXPORTER` says, scraped every five seconds, and a bare loop
//! that sleeps five seconds and writes 400 bytes. Read the numbers as ratios, on a machine that is otherwise idle.

mod growth;
mod others;

use std::{
    error::Error,
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pistat_agent::credential::Credential;
use pistat_protocol::{
    codec::encode,
    id::{PiId, RunId},
    order::{ControllerKey, ExecuteOrder, Order},
    status::{Info, Session},
    task::{Ack, Ends, OutputChunk, Report},
    topic::{Topic, Topics},
};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many lines the throughput is measured with.
const LINES: usize = 3_000_000;

/// What the kernel shows programs of its clock (`USER_HZ`), whatever its own is.
const TICKS_PER_SECOND: f64 = 100.0;

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
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let _broker = start_broker(folder.path(), port)?;
    if measured == "growth" {
        let samples = words.next().map_or(Ok(100_000), |word| word.parse())?;
        return growth::growth(&binary, folder.path(), port, samples).await;
    }
    side_by_side(&binary, folder.path(), port, measured.parse()?)?;
    throughput(&binary, folder.path(), port).await
}

fn start_broker(folder: &Path, port: u16) -> Result<Owned> {
    let configuration = folder.join("mosquitto.conf");
    fs::write(
        &configuration,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n"),
    )?;
    let program = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
    let broker =
        Command::new(program).arg("-c").arg(configuration).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(Owned(broker))
}

fn key() -> ControllerKey {
    ControllerKey::from_secret(&[5; 32])
}

fn pi() -> Result<PiId> {
    Ok("cost-pi".parse()?)
}

fn start_agent(binary: &str, folder: &Path, port: u16, interval: &str) -> Result<Owned> {
    let state = folder.join("state");
    fs::create_dir_all(&state)?;
    let mut credential = Credential::generate(pi()?, None)?;
    credential.controller_key = Some(key().public());
    credential.save(&state)?;
    let url = format!("mqtt://127.0.0.1:{port}");
    let words = ["--controller-url", &url, "--pi-id", "cost-pi", "--interval", interval, "--log-level", "warn"];
    Ok(Owned(Command::new(binary).args(words).arg("--state").arg(state).spawn()?))
}

/// After the hourly facts, which come fifteen seconds after the start and take some.
const WARM_UP: Duration = Duration::from_secs(40);

/// All of them at the same time, a sample every five seconds each.
fn side_by_side(binary: &str, folder: &Path, port: u16, seconds: u64) -> Result<()> {
    let mut running = vec![("pistat-agent", start_agent(binary, folder, port, "5")?)];
    running.extend(others::start()?);
    std::thread::sleep(WARM_UP);
    let before = running.iter().map(|(_, process)| Usage::of(process.0.id())).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    println!("connected and idle, a sample every 5 s, over {seconds} s");
    println!(
        "{:<34} {:>8} {:>8} {:>14} {:>10} {:>8} {:>24}",
        "", "RSS MB", "PSS MB", "CPU ms/minute", "written B", "threads", "times the agent: RSS, CPU"
    );
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let mut agents = None;
    for ((name, process), before) in running.iter().zip(before) {
        let after = Usage::of(process.0.id())?;
        let (rss, cpu) = (kib_as_mb(after.rss), (after.cpu_milliseconds - before.cpu_milliseconds) / minutes);
        // The agent is the first.
        let (own_rss, own_cpu) = *agents.get_or_insert((rss, cpu));
        println!(
            "{name:<34} {rss:>8.2} {:>8.2} {cpu:>14.1} {:>10} {:>8} {:>17.2}, {:>6.2}",
            kib_as_mb(after.pss),
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
    fn of(pid: u32) -> Result<Self> {
        let field = |file: &str, name: &str| -> Result<u64> {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
            let value = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("a field is missing")?;
            Ok(value.trim_start_matches(':').split_whitespace().next().ok_or("a value is missing")?.parse()?)
        };
        // Of all threads, also those that have ended, and of the children that have: a short measurement sees the grain of the kernel's clock.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, after_name) = stat.rsplit_once(')').ok_or("a name is missing")?;
        let ticks = after_name
            .split_whitespace()
            .skip(11)
            .take(4)
            .map(str::parse::<f64>)
            .sum::<std::result::Result<f64, _>>()?;
        Ok(Self {
            rss: field("status", "VmRSS")?,
            pss: field("smaps_rollup", "Pss")?,
            cpu_milliseconds: ticks * 1e3 / TICKS_PER_SECOND,
            written: field("io", "write_bytes")?,
            threads: field("status", "Threads")?,
        })
    }
}

/// Lines a second from a process through the agent and a broker to somebody who acknowledges every chunk.
async fn throughput(binary: &str, folder: &Path, port: u16) -> Result<()> {
    let topics = Topics::default();
    let mut options = MqttOptions::new("cost", "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut event_loop) = AsyncClient::new(options, 1000);
    for filter in ["info", "task/+/report", "task/+/output"] {
        client.subscribe(format!("{}/{}/{filter}", topics.prefix(), pi()?), QoS::AtLeastOnce).await?;
    }
    let agent = start_agent(binary, folder, port, "5")?;
    let session = session(&mut event_loop, &topics).await?;
    let order = order(session)?;
    let signed = encode(&key().sign(&Order::Execute(order.clone())));
    client.publish(topics.format(&Topic::Execute(pi()?, order.run)), QoS::AtLeastOnce, false, signed).await?;
    let started = Instant::now();
    let lines = receive(&client, &mut event_loop, &topics, order.run).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let usage = Usage::of(agent.0.id())?;
    let complete = if lines == LINES { "all of them" } else { "SOME ARE MISSING" };
    println!(
        "output of `seq 1 {LINES}`: {lines} lines ({complete}), {:.0} thousand a second, RSS afterwards {:.2} MB",
        f64::from(u32::try_from(lines)?) / elapsed / 1e3,
        kib_as_mb(usage.rss)
    );
    Ok(())
}

async fn session(event_loop: &mut EventLoop, topics: &Topics) -> Result<Session> {
    loop {
        if let Event::Incoming(Packet::Publish(message)) = event_loop.poll().await?
            && matches!(topics.parse(&message.topic), Some(Topic::Info(_)))
            && !message.retain
        {
            return Ok(serde_json::from_slice::<Info>(&message.payload)?.session);
        }
    }
}

fn order(session: Session) -> Result<ExecuteOrder> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)?;
    Ok(ExecuteOrder {
        pi: pi()?,
        run: RunId::from_parts(1_780_000_000_000, random),
        session,
        task: "seq".parse()?,
        argv: vec!["seq".into(), "1".into(), LINES.to_string()],
        timeout_milliseconds: 600_000,
        grace_milliseconds: 1_000,
        environment: [].into(),
        working_directory: None,
        root: false,
        ends: Ends::Exit,
        concurrency: 1,
        requested_by: "cost".into(),
        nonce: None,
    })
}

async fn receive(client: &AsyncClient, event_loop: &mut EventLoop, topics: &Topics, run: RunId) -> Result<usize> {
    let ack = topics.format(&Topic::Ack(pi()?, run));
    let mut lines = 0;
    loop {
        let Event::Incoming(Packet::Publish(message)) = event_loop.poll().await? else { continue };
        match topics.parse(&message.topic) {
            Some(Topic::Output(_, of)) if of == run => {
                let chunk: OutputChunk = serde_json::from_slice(&message.payload)?;
                if !chunk.is_final {
                    lines += chunk.data.bytes().filter(|byte| *byte == b'\n').count();
                    let payload = encode(&Ack { seq: Some(chunk.seq), state: None });
                    client.try_publish(&ack, QoS::AtLeastOnce, false, payload)?;
                }
            }
            Some(Topic::Report(_, of)) if of == run && is_final(&message.payload)? => return Ok(lines),
            _ => {}
        }
    }
}

fn is_final(report: &[u8]) -> Result<bool> {
    Ok(serde_json::from_slice::<Report>(report)?.state.is_final())
}

fn megabytes(bytes: u64) -> f64 {
    kib_as_mb(bytes / 1024)
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn kib_as_mb(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}
