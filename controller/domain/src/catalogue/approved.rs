//! What the catalogue approved: one task with its arguments, for one machine.

use std::{collections::BTreeMap, time::Duration};

use pistat_protocol::{
    id::{PiId, RunId, TaskId},
    order::{ControllerKey, ExecuteOrder, Order, SignedOrder},
    status::{Nonce, Session},
    task::{Arguments, Ends},
};

/// A task that may run on one machine. Only [`super::Catalogue::check`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovedTask {
    pub(super) task: TaskId,
    pub(super) label: String,
    pub(super) pi: PiId,
    pub(super) args: Arguments,
    pub(super) argv: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) working_directory: Option<String>,
    pub(super) timeout: Duration,
    pub(super) grace: Duration,
    pub(super) output_limit_bytes: u64,
    pub(super) concurrency: u32,
    pub(super) ends: Ends,
    pub(super) root: bool,
    pub(super) confirm: bool,
}

impl ApprovedTask {
    /// Which task.
    pub fn task(&self) -> &TaskId {
        &self.task
    }

    /// Its name for people.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The machine for which it was approved; no other can be sent it.
    pub fn pi(&self) -> &PiId {
        &self.pi
    }

    /// All of its arguments, defaults filled in.
    pub fn args(&self) -> &Arguments {
        &self.args
    }

    /// The program and its arguments.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// Its time limit.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The time between SIGTERM and SIGKILL.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// How much of its output is stored.
    pub fn output_limit_bytes(&self) -> u64 {
        self.output_limit_bytes
    }

    /// How many runs of it a machine does at a time.
    pub fn concurrency(&self) -> u32 {
        self.concurrency
    }

    /// What its success looks like.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// Whether it needs the root runner.
    pub fn root(&self) -> bool {
        self.root
    }

    /// Whether people are asked first.
    pub fn confirm(&self) -> bool {
        self.confirm
    }

    /// The order that starts it on its machine, in the agent's current session, and with the root runner's nonce once that has given one.
    /// The only place where such an order is signed.
    pub fn sign(
        &self,
        key: &ControllerKey,
        run: RunId,
        session: &Session,
        requested_by: &str,
        nonce: Option<Nonce>,
    ) -> SignedOrder {
        key.sign(&Order::Execute(ExecuteOrder {
            pi: self.pi.clone(),
            run,
            session: session.clone(),
            task: self.task.clone(),
            argv: self.argv.clone(),
            timeout_milliseconds: milliseconds(self.timeout),
            grace_milliseconds: milliseconds(self.grace),
            environment: self.environment.clone(),
            working_directory: self.working_directory.clone(),
            root: self.root,
            ends: self.ends,
            concurrency: self.concurrency,
            requested_by: requested_by.to_owned(),
            nonce,
        }))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
