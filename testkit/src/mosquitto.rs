//! The command-line clients of mosquitto, as people use them.

use std::{net::SocketAddr, process::Command, time::Duration};

use crate::process::{Finished, Process, run};

/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Who connects where.
#[derive(Debug, Clone)]
pub struct Login {
    /// The broker.
    pub address: SocketAddr,
    /// The account's name.
    pub user: String,
    /// Its token.
    pub password: String,
}

impl Login {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        command.args(["-h", &host, "-p", &port, "-u", &self.user, "-P", &self.password]);
        command
    }

    /// `mosquitto_pub` with these words.
    pub async fn publish(&self, words: &[&str]) -> Finished {
        run("mosquitto_pub", self.command("mosquitto_pub").args(words), LIMIT).await
    }

    /// `mosquitto_rr` with these words: a request, and the one answer.
    pub async fn request(&self, words: &[&str]) -> Finished {
        run("mosquitto_rr", self.command("mosquitto_rr").args(words), LIMIT).await
    }

    /// `mosquitto_sub` to its end, with these words.
    pub async fn receive(&self, words: &[&str]) -> Finished {
        run("mosquitto_sub", self.command("mosquitto_sub").args(words), LIMIT).await
    }

    /// A `mosquitto_sub` that keeps running; each line of its output is `retain topic payload`.
    pub fn subscribe(&self, filter: &str) -> Process {
        Process::start("mosquitto_sub", self.command("mosquitto_sub").args(["-t", filter, "-q", "1", "-F", "%r %t %p"]))
            .quiet()
    }
}
