//! What systemd is told of this service (`sd_notify(3)`): ready, alive, stopping. Without systemd nothing is said.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::{Duration, Instant},
};

/// Systemd's socket for this service.
#[derive(Debug)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    told_at: Option<Instant>,
}

impl Notify {
    /// From the environment that systemd gave.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let socket = variable("NOTIFY_SOCKET").and_then(|name| open(&name));
        Self {
            socket,
            watchdog: watchdog_period(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id()),
            told_at: None,
        }
    }

    /// The service works.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The service is ending.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// How often a loop has to say that it is alive; `None` where nobody listens.
    pub fn alive_period(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    /// Tells systemd at half of what it allows that this thread is alive, for ever: only while there is no loop yet that can say so itself.
    pub async fn watchdog(&self) {
        let Some(period) = self.alive_period() else { return std::future::pending().await };
        loop {
            self.tell_alive();
            tokio::time::sleep(period).await;
        }
    }

    /// Tells systemd that its caller is alive.
    pub fn tell_alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Tells systemd that its caller is alive, unless it was told less than half of what it allows before: for a loop that says so at each turn.
    pub fn alive(&mut self, now: Instant) {
        let Some(period) = self.alive_period() else { return };
        if self.told_at.is_none_or(|at| now.duration_since(at) >= period) {
            self.told_at = Some(now);
            self.tell_alive();
        }
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // Systemd not listening is no reason to stop, nor to wait.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

fn open(name: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

fn watchdog_period(microseconds: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    // Set for another process, for example the one that started us.
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    microseconds?.parse().ok().filter(|period| *period > 0).map(Duration::from_micros)
}

#[cfg(test)]
impl Notify {
    /// One for a systemd that is played by a test.
    pub(crate) fn to(path: &str, watchdog: Duration) -> Self {
        Self { socket: open(path), watchdog: Some(watchdog), told_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_on_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notify = Notify { socket: open(path.to_str().unwrap()), watchdog: None, told_at: None };
        notify.ready();
        let mut buffer = [0; 32];
        let length = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
    }

    #[test]
    fn a_loop_that_goes_round_is_told_at_half_of_what_systemd_allows_and_one_that_does_not_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let period = Duration::from_secs(10);
        let mut notify = Notify::to(path.to_str().unwrap(), period);
        let start = Instant::now();
        for (seconds, told) in [(0, true), (1, false), (4, false), (5, true), (6, false), (30, true)] {
            notify.alive(start + Duration::from_secs(seconds));
            assert_eq!(systemd.recv(&mut [0; 32]).is_ok(), told, "after {seconds} s");
        }
    }

    #[test]
    fn the_watchdog_is_this_processes_own() {
        let some = |text: &str| Some(text.to_owned());
        let cases = [
            (some("30000000"), some("7"), Some(Duration::from_secs(30))),
            (some("30000000"), None, Some(Duration::from_secs(30))),
            (some("30000000"), some("8"), None),
            (some("0"), None, None),
            (None, None, None),
        ];
        for (microseconds, pid, expected) in cases {
            assert_eq!(watchdog_period(microseconds, pid, 7), expected);
        }
    }
}
