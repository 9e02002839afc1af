//! A machine whose network interfaces come and go, in a network of its own: nothing of the machine
//! that runs the tests is touched.

use std::{net::UdpSocket, process::Command, sync::Arc, time::Duration};

use pistat_protocol::{stats::Sample, time::Timestamp};
use pistat_testkit::{DEADLINE, Http, Stack, eventually};

/// Set for the test that runs inside of the private network.
const INSIDE: &str = "PISTAT_TEST_PRIVATE_NETWORK";

/// No cable of this test is as fast, and a counter that wrapped or was reset would look faster.
const FASTEST: u64 = 1_000_000_000;

#[test]
fn a_machine_whose_interface_vanishes_and_comes_back_anew_never_tells_a_wrong_rate() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(interfaces_come_and_go());
    }
    let private = ["--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];
    let trial = Command::new("unshare").args(private).args(["sh", "-c", CABLE]).output();
    if !trial.is_ok_and(|trial| trial.status.success()) {
        eprintln!("NOT TESTED HERE: interfaces that vanish, as this machine allows no private network, or lacks `ip`");
        return;
    }
    let name = "interfaces::a_machine_whose_interface_vanishes_and_comes_back_anew_never_tells_a_wrong_rate";
    let test = std::env::current_exe().unwrap();
    let mut inner = Command::new("unshare");
    let inner = inner.args(private).arg(test).args(["--exact", name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&inner.stdout);
    assert!(inner.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&inner.stderr));
}

/// Plugs a cable in: two ends, of which both count. Their names are those of hardware, as a
/// container's are.
const CABLE: &str = "ip link add eth7 type veth peer name eth8 && ip address add 10.213.7.1/24 dev eth7 && ip link set eth7 up && ip link set eth8 up";

/// Pulls it out.
const NO_CABLE: &str = "ip link delete eth7";

fn shell(script: &str) {
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
}

async fn interfaces_come_and_go() {
    shell(CABLE);
    let stack = Stack::start().await;
    let http = stack.http();
    let agent = stack.agent("pi-1").online(&http).await;
    for round in 0..3 {
        told(&http, "what goes over the cable is told", round, |rate| rate.is_some_and(|rate| rate > 0)).await;
        // Another one in its place, within a sample's time: it starts at zero, below what the one
        // before it had counted.
        shell(&format!("{NO_CABLE} && {CABLE}"));
        told(&http, "what goes over the other cable is told", round, |rate| rate.is_some_and(|rate| rate > 0)).await;
        shell(NO_CABLE);
        told(&http, "without one nothing is told", round, |rate| rate.is_none()).await;
        shell(CABLE);
    }
    told(&http, "the last cable is told of", 3, |rate| rate.is_some_and(|rate| rate > 0)).await;
    drop(agent);
}

/// Waits for a sample from now on whose rates are as they should be, while traffic flows; none on
/// the way may be wrong.
async fn told(http: &Http, what: &str, round: usize, right: impl Fn(Option<u64>) -> bool) {
    let begin = Timestamp::from(std::time::SystemTime::now());
    eventually(&format!("{what}, round {round}"), DEADLINE, async || {
        chatter();
        let sample: Arc<Sample> = http.machine("pi-1").await?.stats.expect("it has said something");
        let rates = [sample.network_rx_bytes_per_second, sample.network_tx_bytes_per_second];
        assert!(rates.into_iter().flatten().all(|rate| rate < FASTEST), "{sample:?}");
        if sample.time > begin && rates.into_iter().all(&right) { Ok(()) } else { Err(format!("{sample:?}")) }
    })
    .await;
}

/// Sends to everybody on the cable, if there is one.
fn chatter() {
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.set_broadcast(true)?;
        socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        socket.send_to(&[0; 1000], "10.213.7.255:9")
    });
    drop(sent);
}
