//! What the catalogue approved: one task with its arguments, for one machine.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pistat_protocol::{
    id::{PiId, RunId},
    order::{ControllerKey, ExecuteOrder, Order, SignedOrder},
    status::{Nonce, Session},
    task::Arguments,
};

use super::Task;

/// A task that may run on one machine. Only [`super::Catalogue::check`] makes one.
#[derive(Debug, Clone)]
pub struct ApprovedTask {
    pub(super) task: Arc<Task>,
    pub(super) pi: PiId,
    pub(super) args: Arguments,
}

impl ApprovedTask {
    /// Which task, as the catalogue had it then.
    pub fn task(&self) -> &Task {
        &self.task
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
    pub fn argv(&self) -> Vec<String> {
        let values: BTreeMap<_, _> = self.args.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
        self.task.command.argv(&values)
    }

    /// The order that starts it on its machine, in the agent's current session, and with the root
    /// runner's nonce once that has given one. The only place where such an order is signed.
    pub fn sign(
        &self,
        key: &ControllerKey,
        run: RunId,
        session: &Session,
        requested_by: &str,
        nonce: Option<Nonce>,
    ) -> SignedOrder {
        let Task { view, environment, working_directory, timeout, grace, .. } = &*self.task;
        key.sign(&Order::Execute(ExecuteOrder {
            pi: self.pi.clone(),
            run,
            session: session.clone(),
            task: view.id.clone(),
            argv: self.argv(),
            timeout_milliseconds: milliseconds(*timeout),
            grace_milliseconds: milliseconds(*grace),
            environment: environment.clone(),
            working_directory: working_directory.clone(),
            root: view.root,
            ends: view.ends,
            concurrency: view.concurrency,
            requested_by: requested_by.to_owned(),
            nonce,
        }))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
