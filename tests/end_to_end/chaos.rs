//! Chaos: a simulated fleet and a real agent at work while everything goes wrong at once, and an
//! oracle that holds the controller's account against what the machines saw.
//!
//! The controller is killed, wires are cut, closed and slowed down, the state disk is full for a
//! while, the clock jumps by hours, machines restart, messages come twice and out of order, in both
//! directions. What must hold is in [`oracle`] and [`retained`].
//!
//! `PISTAT_CHAOS_SECONDS` and `PISTAT_CHAOS_MACHINES` ask for more than the quick form;
//! `PISTAT_TEST_SEED` repeats one.

mod oracle;
mod people;
mod retained;
mod strikes;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use pistat_protocol::topic::Topics;
use pistat_sim::{Churn, Counts, Dice, Fleet, Plan, Roll};
use pistat_testkit::{Clock, Proxy, Stack, gradually};

use people::Operator;
pub(crate) use retained::{RETAINED_RUNS, retained};
use strikes::{Chaos, Disk, Rewritten};

/// How long after the last strike everything may take to settle: longer than what waits for a
/// machine may wait.
const SETTLE: Duration = Duration::from_secs(90);

/// Minutes of chaos make more runs than are kept without this, and every promise is looked at in
/// the end. Runs wait for their machines, but not for long.
const CONFIG: &str = "[runs]\nkeep_runs = 1000000\nexpires = \"12s\"\n";

/// How many of the orders and acknowledgements come twice.
const STUTTER: f64 = 0.2;

/// How much more memory the controller may hold at the end than one that is started then.
const MEMORY_GROWTH: u64 = 24 * 1024 * 1024;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_nothing_is_lost_doubled_or_run_without_approval() {
    let mut dice = Dice::new();
    let seconds = number("PISTAT_CHAOS_SECONDS", 15);
    let machines = usize::try_from(number("PISTAT_CHAOS_MACHINES", 20)).unwrap();
    let disk = Disk::mount();
    let clock = Clock::find();
    let stack = clock.wrap(Stack::builder().packaged().state(&disk.state()).config(CONFIG)).start().await;
    let http = stack.http();
    let wire = Proxy::stuttering(stack.said.mqtt, Dice::from_seed(dice.bits()), STUTTER).await;
    let mut roll = Roll::default();
    let token = stack.join_token().parse().unwrap();
    let credentials = roll.fill(stack.said.mqtt, &token, &Topics::default(), machines).await.unwrap();
    let fleet = Fleet::start(plan(&wire, dice.bits()), credentials);
    // Mishaps begin at once: of a large fleet somebody is always away.
    gradually("every machine has been there", SETTLE, async || {
        match (machines as u64).saturating_sub(Counts::get(&fleet.counts().connections)) {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    let agent = stack.agent("pi-1").url(&format!("mqtt://{}", wire.address())).online(&http).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let catalogue = Rewritten::new(stack.catalogue());
    let mut chaos = Chaos { dice, stack, wire, agent, disk, clock, catalogue, struck: BTreeMap::new() };

    let over = AtomicBool::new(false);
    let operator = Operator::new(http.clone(), chaos.stack.mosquitto(), Dice::from_seed(chaos.dice.bits()), machines);
    let time = Duration::from_secs(seconds);
    let strikes = async {
        chaos.strike_for(time).await;
        over.store(true, Ordering::Relaxed);
    };
    let ((), account) = tokio::join!(strikes, tokio::time::timeout(time + 2 * SETTLE, operator.work(&over)));
    let account = account.expect("every question is answered or refused");
    fleet.calm();
    // Agent, wires and disk live as long as the controller.
    let (mut stack, catalogue, kept) = chaos.calm().await;
    let all = tokio::time::timeout(SETTLE, fleet.connected(machines as u64)).await;
    assert!(all.is_ok(), "not all of the fleet came back: {}", fleet.counts());

    let runs = account.settled(&http).await;
    // They do no work: when they come, nothing may wait for them.
    let _newcomers = account.newcomers_come(&http, stack.said.mqtt).await;
    account.audit(&http, &runs, &stack.marks()).await;
    account.join_token_is_in_force(&stack).await;
    catalogue.is_in_force(&http).await;
    retained::topics_are_the_controllers_state(&stack, &runs).await;
    let copies = kept.1.copies();
    assert!(copies > 20, "only {copies} orders and acknowledgements came twice");
    let ledger = fleet.stop().await;
    oracle::held_against(&ledger, &account, &runs);
    let grown = grown(&mut stack).await;
    println!(
        "{}; {copies} orders and acknowledgements came twice; {grown} bytes more than after a new start",
        account.summary(&runs)
    );
    assert!(grown < MEMORY_GROWTH, "the controller holds {grown} bytes more than after a new start");
    assert_eq!(stack.stop().await, 0);
}

/// How much more memory the controller holds than one that was just started with the same state.
async fn grown(stack: &mut Stack) -> u64 {
    let before = stack.process().resident_bytes();
    stack.kill();
    stack.restart().await;
    before.saturating_sub(stack.process().resident_bytes())
}

fn plan(wire: &Proxy, seed: u64) -> Plan {
    Plan {
        interval: Duration::from_secs(1),
        seed,
        longest_run: Duration::from_secs(2),
        failing_share: 0.1,
        churn: Churn {
            mean_between: Some(Duration::from_secs(15)),
            reboot_share: 0.3,
            slow_share: 0.1,
            duplicate_share: 0.1,
            reorder_share: 0.1,
        },
        ..Plan::new(wire.address())
    }
}
