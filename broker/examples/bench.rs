//! Our broker beside mosquitto, in one run on one machine: throughput, latency, memory. Read the
//! ratios, not the numbers.
//!
//! `cargo run --release -p pistat-broker --example bench [filter]`, after `cargo build --release -p
//! pistat-broker --example serve`. Both brokers are processes of their own on loopback; the load
//! comes from this one. Our broker runs with its rules on, mosquitto open to everybody. CPU is the
//! broker's own, user and system.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pistat_testkit::packet::{Connect, lengths, packet, string};
use pistat_testkit::usage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

type Error = Box<dyn std::error::Error + Send + Sync>;

const PAYLOAD_BYTES: usize = 400;

/// A broker under test.
struct Broker {
    name: &'static str,
    process: Child,
    address: SocketAddr,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Broker {
    fn ours() -> Result<Self, Error> {
        let program = std::env::current_exe()?.with_file_name("serve");
        Self::start("ours", |address| {
            let mut command = Command::new(&program);
            command.arg(address.to_string());
            Ok(command)
        })
    }

    /// Without Nagle's algorithm, as ours, where its version knows the word.
    fn mosquitto() -> Result<Self, Error> {
        Self::mosquitto_with("mosquitto, set_tcp_nodelay", "set_tcp_nodelay true")
            .or_else(|_| Self::mosquitto_with("mosquitto, with Nagle's algorithm", ""))
    }

    fn mosquitto_with(name: &'static str, line: &str) -> Result<Self, Error> {
        Self::start(name, |address| {
            let path = std::env::temp_dir().join(format!("bench-mosquitto-{}.conf", address.port()));
            let mut file = std::fs::File::create(&path)?;
            writeln!(
                file,
                "listener {} {}\nallow_anonymous true\nmax_connections -1\nmax_queued_messages 0\n{line}",
                address.port(),
                address.ip()
            )?;
            let mut command = Command::new("mosquitto");
            command.arg("-c").arg(path);
            Ok(command)
        })
    }

    fn start(name: &'static str, command: impl Fn(SocketAddr) -> Result<Command, Error>) -> Result<Self, Error> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let process = command(address)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut broker = Self { name, process, address };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(address).is_err() {
            // One that does not understand its configuration ends at once.
            if Instant::now() > deadline || broker.process.try_wait()?.is_some() {
                return Err(format!("{name} did not start").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(broker)
    }

    /// User and system time used so far.
    fn cpu(&self) -> Duration {
        usage::cpu(self.process.id())
    }

    /// Resident memory in MB.
    fn memory(&self) -> f64 {
        number(usage::memory(self.process.id(), "VmRSS")) / f64::from(1 << 20)
    }
}

/// A plain MQTT 3.1.1 client, as fast as it can be made simply.
struct Client {
    stream: TcpStream,
}

fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let id = id.to_be_bytes();
    packet(0x30 | qos << 1, &[&string(topic), if qos > 0 { &id } else { &[] }, payload])
}

impl Client {
    async fn connect(address: SocketAddr, id: &str) -> Result<Self, Error> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&Connect::v311(id).keep_alive(0).encode()).await?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).await?;
        if connack[3] == 0 { Ok(Self { stream }) } else { Err(format!("refused with {}", connack[3]).into()) }
    }

    async fn subscribe(&mut self, filter: &str, qos: u8) -> Result<(), Error> {
        self.stream.write_all(&packet(0x82, &[&[0, 1], &string(filter), &[qos]])).await?;
        let mut suback = [0; 5];
        self.stream.read_exact(&mut suback).await?;
        Ok(())
    }
}

/// Walks over the packets in `bytes`; says how many bytes were whole packets.
fn walk(bytes: &[u8], mut each: impl FnMut(u8, &[u8])) -> usize {
    let mut at = 0;
    while let Ok(Some((header, length))) = lengths(&bytes[at..])
        && let Some(body) = bytes[at..].get(header..header + length)
    {
        each(bytes[at], body);
        at += header + length;
    }
    at
}

/// Receives `expected` messages, or as many as come until nothing has come for two seconds.
async fn receive(mut client: Client, expected: u64) -> Result<u64, Error> {
    let (mut buffer, mut filled, mut received) = (vec![0; 256 * 1024], 0, 0);
    while received < expected {
        let Ok(read) = tokio::time::timeout(Duration::from_secs(2), client.stream.read(&mut buffer[filled..])).await
        else {
            break;
        };
        let count = read?;
        if count == 0 {
            return Err("the broker closed a subscriber".into());
        }
        filled += count;
        let mut acks = Vec::new();
        let used = walk(&buffer[..filled], |header, body| {
            if header >> 4 == 3 {
                received += 1;
                if header & 6 != 0 {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    acks.extend_from_slice(&[0x40, 2, body[2 + topic], body[3 + topic]]);
                }
            }
        });
        buffer.copy_within(used..filled, 0);
        filled -= used;
        client.stream.write_all(&acks).await?;
    }
    Ok(received)
}

/// Publishes `count` messages; with `QoS` 1 at most 100 are under way.
async fn send(mut client: Client, topic: String, qos: u8, count: u64) -> Result<(), Error> {
    let payload = [b'x'; PAYLOAD_BYTES];
    let batch = 32;
    let (mut sent, mut acknowledged) = (0, 0);
    let mut chunk = vec![0; 4096];
    while sent < count {
        let mut bytes = Vec::new();
        for _ in 0..batch.min(count - sent) {
            sent += 1;
            let id = u16::try_from(sent % 60_000 + 1).unwrap_or(1);
            bytes.extend(publish(&topic, qos, id, &payload));
        }
        client.stream.write_all(&bytes).await?;
        while qos == 1 && sent - acknowledged > 68 {
            acknowledged += client.stream.read(&mut chunk).await? as u64 / 4;
        }
    }
    while qos == 1 && acknowledged < count {
        acknowledged += client.stream.read(&mut chunk).await? as u64 / 4;
    }
    // Stay connected until everything has been received: a clean end would need a goodbye.
    client.stream.write_all(&[0xE0, 0]).await?;
    let _ = client.stream.read(&mut chunk).await;
    Ok(())
}

struct Throughput {
    per_second: f64,
    cpu_microseconds: f64,
    lost: u64,
}

async fn throughput(
    broker: &Broker,
    publishers: u64,
    subscribers: u64,
    qos: u8,
    messages: u64,
) -> Result<Throughput, Error> {
    let each = messages / publishers;
    let expected = each * publishers;
    let mut receivers = JoinSet::new();
    for number in 0..subscribers {
        let mut client = Client::connect(broker.address, &format!("s{number}")).await?;
        client.subscribe("bench/#", qos).await?;
        receivers.spawn(receive(client, expected));
    }
    let mut clients = Vec::new();
    for number in 0..publishers {
        clients.push((Client::connect(broker.address, &format!("p{number}")).await?, format!("bench/{number}")));
    }
    let (started, cpu) = (Instant::now(), broker.cpu());
    let mut senders = JoinSet::new();
    for (client, topic) in clients {
        senders.spawn(send(client, topic, qos, each));
    }
    let mut received = 0;
    while let Some(result) = receivers.join_next().await {
        received += result??;
    }
    let mut seconds = started.elapsed().as_secs_f64();
    let lost = expected * subscribers - received;
    if lost > 0 {
        seconds -= 2.0;
    }
    while let Some(result) = senders.join_next().await {
        result??;
    }
    let cpu = broker.cpu().saturating_sub(cpu).as_secs_f64();
    let count = number(received);
    Ok(Throughput { per_second: count / seconds, cpu_microseconds: cpu * 1e6 / count, lost })
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

/// The median and the 99th percentile in milliseconds at 1,000 messages a second.
async fn latency(broker: &Broker) -> Result<(f64, f64), Error> {
    const COUNT: u32 = 5000;
    let mut subscriber = Client::connect(broker.address, "latency-s").await?;
    subscriber.subscribe("bench/#", 0).await?;
    let mut publisher = Client::connect(broker.address, "latency-p").await?;
    let start = Instant::now();
    let sending = async {
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..COUNT {
            tick.tick().await;
            let mut payload = [b'x'; PAYLOAD_BYTES];
            payload[..16].copy_from_slice(&start.elapsed().as_nanos().to_le_bytes());
            publisher.stream.write_all(&publish("bench/latency", 0, 0, &payload)).await?;
        }
        Ok::<(), Error>(())
    };
    let receiving = async {
        let (mut buffer, mut filled, mut delays) = (vec![0; 64 * 1024], 0, Vec::new());
        while delays.len() < COUNT as usize {
            filled += subscriber.stream.read(&mut buffer[filled..]).await?;
            let now = start.elapsed().as_nanos();
            let used = walk(&buffer[..filled], |_, body| {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let sent = body[2 + topic..].first_chunk().map_or(now, |bytes| u128::from_le_bytes(*bytes));
                delays.push(now.saturating_sub(sent));
            });
            buffer.copy_within(used..filled, 0);
            filled -= used;
        }
        Ok::<Vec<u128>, Error>(delays)
    };
    let ((), mut delays) = tokio::try_join!(sending, receiving)?;
    delays.sort_unstable();
    let at = |percent: usize| Duration::from_nanos(u64::try_from(delays[delays.len() * percent / 100]).unwrap_or(0));
    Ok((at(50).as_secs_f64() * 1e3, at(99).as_secs_f64() * 1e3))
}

/// Memory in MB and seconds to connect with `count` idle clients, each with a subscription of its
/// own.
async fn idle(broker: &Broker, count: u32) -> Result<(f64, f64), Error> {
    let started = Instant::now();
    let mut connecting = JoinSet::new();
    for lane in 0..20 {
        let address = broker.address;
        connecting.spawn(async move {
            let mut clients = Vec::new();
            for number in (lane..count).step_by(20) {
                let mut client = Client::connect(address, &format!("idle-{number}")).await?;
                client.subscribe(&format!("home/{number}/set/#"), 1).await?;
                clients.push(client);
            }
            Ok::<Vec<Client>, Error>(clients)
        });
    }
    let mut clients = Vec::new();
    while let Some(result) = connecting.join_next().await {
        clients.extend(result??);
    }
    let seconds = started.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok((broker.memory(), seconds))
}

fn compare(what: &str, unit: &str, ours: f64, theirs: f64) {
    println!("{what:<44} {ours:>12.2} {theirs:>12.2} {unit:<8} ratio {:>5.2}", ours / theirs);
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Error> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let wants = |what: &str| what.contains(&wanted);
    println!("beside {}", Broker::mosquitto()?.name);
    println!("{:<44} {:>12} {:>12}", "", "ours", "mosquitto");
    for (publishers, subscribers, qos, messages) in [
        (1, 1, 0, 400_000),
        (10, 1, 0, 400_000),
        (100, 1, 0, 400_000),
        (1, 1, 1, 100_000),
        (10, 1, 1, 150_000),
        (100, 1, 1, 150_000),
        (1, 100, 0, 5_000),
        (1, 100, 1, 4_000),
    ] {
        let what = format!("{publishers} -> {subscribers}, QoS {qos}");
        if wants(&what) {
            let ours = throughput(&Broker::ours()?, publishers, subscribers, qos, messages).await?;
            let theirs = throughput(&Broker::mosquitto()?, publishers, subscribers, qos, messages).await?;
            compare(&format!("{what}: deliveries"), "1/s", ours.per_second, theirs.per_second);
            compare(&format!("{what}: broker's CPU a delivery"), "us", ours.cpu_microseconds, theirs.cpu_microseconds);
            println!("{what}: lost {} and {}", ours.lost, theirs.lost);
        }
    }
    if wants("latency") {
        let (ours, theirs) = (latency(&Broker::ours()?).await?, latency(&Broker::mosquitto()?).await?);
        compare("latency at 1,000 a second, median", "ms", ours.0, theirs.0);
        compare("latency at 1,000 a second, p99", "ms", ours.1, theirs.1);
    }
    for count in [0, 1000, 5000] {
        if wants("idle") {
            let (us, them) = (Broker::ours()?, Broker::mosquitto()?);
            let (ours, theirs) = (idle(&us, count).await?, idle(&them, count).await?);
            compare(&format!("{count} idle clients: memory of {}", us.name), "MB", ours.0, theirs.0);
            compare(&format!("{count} idle clients: time to connect"), "s", ours.1, theirs.1);
        }
    }
    Ok(())
}
