//! `pistat-sim`: a simulated fleet against a running controller, from the command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use pistat_protocol::{order::JoinToken, topic::Topics};
use pistat_sim::{Churn, Dice, Fleet, Plan, Roll};

/// Simulates a fleet of machines against a running controller.
#[derive(Debug, Parser)]
#[command(name = "pistat-sim")]
struct Words {
    /// The controller's MQTT port.
    #[arg(long, default_value = "127.0.0.1:1883")]
    mqtt: SocketAddr,
    /// A file with a join token; needed only while machines are missing from the roll.
    #[arg(long)]
    join_token_file: Option<PathBuf>,
    /// Where the machines' credentials are kept.
    #[arg(long, default_value = "state/sim")]
    state: PathBuf,
    /// The prefix of all topics.
    #[arg(long, default_value = "pistat")]
    prefix: String,
    /// How many machines.
    #[arg(long, default_value_t = 25)]
    machines: usize,
    /// Seconds between two samples.
    #[arg(long, default_value_t = 5.0)]
    interval: f64,
    /// Seconds over which the fleet connects.
    #[arg(long, default_value_t = 1.0)]
    ramp: f64,
    /// The seed of everything random; a new one is made and printed without it.
    #[arg(long)]
    seed: Option<u64>,
    /// The longest run in seconds.
    #[arg(long, default_value_t = 3.0)]
    longest_run: f64,
    /// How many of all runs fail, 0 to 1.
    #[arg(long, default_value_t = 0.05)]
    failing: f64,
    /// Mean seconds between two mishaps of one machine; none without it.
    #[arg(long)]
    mishaps: Option<f64>,
    /// How many of the mishaps are restarts, 0 to 1.
    #[arg(long, default_value_t = 0.2)]
    reboots: f64,
    /// How many machines have a slow link, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    slow: f64,
    /// Each machine first tells a day that it had measured before: its charts are full.
    #[arg(long)]
    past: bool,
    /// Seconds after which it stops; it goes on until Ctrl-C without it.
    #[arg(long)]
    seconds: Option<f64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let words = Words::parse();
    let topics = Topics::new(&words.prefix)?;
    let mut roll = Roll::read(&words.state)?;
    let token = match &words.join_token_file {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?,
        // Nobody is let in with this one, but nobody needs it when all are on the roll.
        None => format!("{}.{}", "0".repeat(43), "0".repeat(43)),
    };
    let token: JoinToken = token.parse().map_err(anyhow::Error::msg)?;
    let filled = roll.fill(words.mqtt, &token, &topics, words.machines).await;
    roll.write(&words.state)?;
    let credentials = filled?;
    println!("{} machines are enrolled", credentials.len());
    let seed = words.seed.unwrap_or_else(|| Dice::new().bits());
    println!("--seed {seed}");
    let fleet = Fleet::start(plan(&words, topics, seed), credentials);
    let end = tokio::time::sleep(words.seconds.map_or(Duration::MAX, Duration::from_secs_f64));
    tokio::pin!(end);
    let mut look = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = look.tick() => println!("{}", fleet.counts()),
        }
    }
    let ledger = fleet.stop().await;
    let twice = ledger.starts.values().filter(|starts| starts.len() > 1).count();
    println!(
        "{} runs were started, {twice} of them more than once; refused orders: {:?}",
        ledger.starts.len(),
        ledger.refused
    );
    Ok(())
}

fn plan(words: &Words, topics: Topics, seed: u64) -> Plan {
    Plan {
        topics,
        interval: Duration::from_secs_f64(words.interval),
        ramp: Duration::from_secs_f64(words.ramp),
        seed,
        longest_run: Duration::from_secs_f64(words.longest_run),
        failing_share: words.failing,
        churn: Churn {
            mean_between: words.mishaps.map(Duration::from_secs_f64),
            reboot_share: words.reboots,
            slow_share: words.slow,
            ..Churn::default()
        },
        has_a_past: words.past,
        ..Plan::new(words.mqtt)
    }
}
