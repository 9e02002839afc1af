//! How many lines a second go from an agent's task to a follower on the command line, beside
//! `ssh localhost` in the same run.
//!
//! `cargo bench -p pistat-tests --bench output_rate` prints one table. The ssh server is our own,
//! on a port and with keys of its own; where there is none (Debian: `openssh-server`), its row is
//! left out. Goals: at least half of ssh's rate, and 240,000 lines a second, a hundred times the
//! original's.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pistat_testkit::{DEADLINE, Process, Stack, eventually};

/// Lines of each measurement.
const LINES: u64 = 1_000_000;

/// How often each is measured; the best counts, since what disturbs only slows.
const ROUNDS: usize = 3;

/// A hundred times the original's rate.
const GOAL: f64 = 240_000.0;

#[tokio::main]
async fn main() {
    let stack = Stack::start().await;
    let _agent = stack.agent("pi-1").online(&stack.http()).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let ssh = Ssh::start(folder.path()).await;
    let last = format!("last={LINES}");
    let token = stack.state().join("admin.token");
    let words = ["task", "run", "count", "pi-1", last.as_str()];
    let (mut ours, mut theirs) = (0.0_f64, 0.0_f64);
    // In turns, so that both meet the same disturbances.
    for _ in 0..ROUNDS {
        ours = ours.max(rate(&mut stack.cli_command(&token, &words)));
        if let Some(ssh) = &ssh {
            theirs = theirs.max(rate(&mut ssh.command(&["seq", "1", &LINES.to_string()])));
        }
    }
    println!("way                                   lines/s (best of {ROUNDS}, {LINES} lines)");
    println!("agent, controller, `pistat task run`  {ours:>10.0}   goal {GOAL:.0}: {}", verdict(ours >= GOAL));
    match ssh {
        Some(_) => {
            println!("`ssh localhost seq`                   {theirs:>10.0}");
            println!("ours is {:.2} of ssh's, goal 0.5: {}", ours / theirs, verdict(ours >= theirs / 2.0));
        }
        None => println!("`ssh localhost seq`                   not measured: there is no sshd"),
    }
}

fn verdict(held: bool) -> &'static str {
    if held { "held" } else { "MISSED" }
}

/// Lines a second of a command's standard output, from its start to its end.
fn rate(command: &mut Command) -> f64 {
    let started = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut output = child.stdout.take().expect("a pipe was asked for");
    let mut buffer = vec![0; 256 * 1024];
    let mut lines = 0_u64;
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        lines += buffer[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    let _ = child.wait();
    let took = started.elapsed();
    assert!(lines >= LINES, "{command:?} gave {lines} of {LINES} lines");
    LINES as f64 / took.as_secs_f64()
}

/// An ssh server of our own.
struct Ssh {
    port: u16,
    key: String,
    _server: Process,
}

impl Ssh {
    async fn start(folder: &Path) -> Option<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().find(|path| Path::new(path).exists())?;
        let file = |name: &str| folder.join(name).to_str().expect("a plain path").to_owned();
        for name in ["host_key", "key"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &file(name)]).status();
            assert!(made.is_ok_and(|status| status.success()), "ssh-keygen makes keys");
        }
        fs::copy(file("key.pub"), file("authorized_keys")).expect("the folder is ours");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("there is a free port").port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n",
            file("host_key"),
            file("authorized_keys")
        );
        fs::write(file("sshd_config"), config).expect("the folder is ours");
        // As root it wants a folder that Debian makes when the service starts.
        let _ = fs::create_dir_all("/run/sshd");
        let server = Process::start("sshd", Command::new(sshd).args(["-D", "-e", "-f", &file("sshd_config")]));
        let ssh = Self { port, key: file("key"), _server: server };
        eventually("ssh works", DEADLINE, async || {
            let tried = ssh.command(&["true"]).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
            if tried.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tried.stderr).into_owned()) }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some(ssh)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args([
            "-q",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
        ]);
        command.args(["-i", &self.key, "-p", &self.port.to_string(), "127.0.0.1"]).args(words);
        command
    }
}
