//! Who asked for a run, at the moment of sending: a check at acceptance says nothing about a run
//! that waited since.
//!
//! The catalogue, the requester's existence and role, and the rules of `[mqtt.requests]` are asked
//! again before each order. What they no longer approve is `rejected`, with the reason.

use pistat_protocol::{account::Role, task::Arguments, time::Timestamp};

use super::{Hub, ask::Refused};
use crate::{
    catalogue::ApprovedTask,
    config::Broker,
    store::record::{Requester, RunRecord},
};

/// The requester's name of clients of an external broker.
pub(super) const BROKER: &str = "mqtt";

/// The requester's name of schedules.
pub(super) const SCHEDULE: &str = "schedule";

/// Who asks for a task now.
pub(super) struct Asker {
    pub(super) name: String,
    pub(super) requester: Requester,
    pub(super) role: Role,
}

impl Hub {
    /// An account as it stands now; `None` if it is gone or has expired.
    pub(super) fn account_that_asks(&self, name: &str) -> Option<Asker> {
        let account = self.access.account(name).filter(|account| account.is_in_force(self.now.wall))?;
        Some(Asker {
            name: account.name.to_string(),
            requester: Requester::Account { created_at: account.created_at },
            role: account.role,
        })
    }

    /// The role of whatever an external broker lets publish requests.
    pub(super) fn role_of_broker(&self) -> Result<Role, Refused> {
        let requests = self.config.mqtt.requests.as_ref().filter(|_| self.config.mqtt.broker != Broker::Embedded);
        requests.map(|requests| requests.role).ok_or_else(|| {
            Refused::forbidden(
                "requests over MQTT are off with an external broker; [mqtt.requests] in pistat.toml turns them on",
            )
        })
    }

    /// Approves a run that was accepted earlier, by what is in force now.
    ///
    /// # Errors
    /// The reason for which it is rejected.
    pub(super) fn approve_again(&self, record: &RunRecord) -> Result<ApprovedTask, String> {
        let run = &record.run;
        let role = match &record.requester {
            Some(Requester::Schedule { schedule }) => return self.approve_scheduled_again(record, Some(schedule)),
            None if record.is_scheduled() => return self.approve_scheduled_again(record, None),
            Some(Requester::Broker) => self.standing_of_broker(record)?,
            // What versions before this kept has only the name.
            None if run.requested_by == BROKER && self.access.account(BROKER).is_none() => {
                self.standing_of_broker(record)?
            }
            Some(Requester::Account { created_at }) => self.standing_of_account(record, Some(*created_at))?,
            None => self.standing_of_account(record, None)?,
        };
        self.approve_on(&run.task, &run.args, Some(role), &run.pi).map_err(|refusal| refusal.message)
    }

    fn standing_of_account(&self, record: &RunRecord, created_at: Option<Timestamp>) -> Result<Role, String> {
        let name = &record.run.requested_by;
        let account = self.access.account(name);
        let account = account.ok_or_else(|| format!("the account {name}, which asked for it, was removed"))?;
        if created_at.is_some_and(|created_at| created_at != account.created_at) {
            return Err(format!("the account {name}, which asked for it, was removed; another has its name now"));
        }
        if !account.is_in_force(self.now.wall) {
            return Err(format!("the account {name}, which asked for it, has expired"));
        }
        let needed = self.catalogue.get(&record.run.task).map(|task| task.view().role);
        match needed {
            Some(needed) if account.role < needed => Err(format!(
                "{} needs the role {needed}, and the account {name}, which asked for it, has the role {} now",
                record.run.task, account.role
            )),
            // A token is replaced when others may know it, and then they may have asked.
            _ if account.rotations != record.rotations => {
                Err(format!("the account {name}, which asked for it, was given a new token since: ask for it again"))
            }
            _ => Ok(account.role),
        }
    }

    fn standing_of_broker(&self, record: &RunRecord) -> Result<Role, String> {
        let role = self.role_of_broker().map_err(|refused| refused.detail)?;
        self.may_be_asked_for(&record.run.task).map_err(|refused| refused.detail)?;
        Ok(role)
    }

    /// The schedule asks for a task with the catalogue's own arguments, so both must be what they
    /// were.
    fn approve_scheduled_again(&self, record: &RunRecord, schedule: Option<&String>) -> Result<ApprovedTask, String> {
        let run = &record.run;
        let now = self.catalogue.get(&run.task).map(|task| task.schedule().map(crate::schedule::Schedule::as_str));
        match now {
            Some(None) => return Err(format!("{} has no schedule any more", run.task)),
            Some(Some(now)) if schedule.is_some_and(|schedule| schedule != now) => {
                return Err(format!("the schedule of {} was changed to {now} since", run.task));
            }
            _ => {}
        }
        let approved =
            self.approve_on(&run.task, &Arguments::new(), None, &run.pi).map_err(|refusal| refusal.message)?;
        if *approved.args() != run.args {
            return Err(format!("the arguments of {} in the catalogue were changed since", run.task));
        }
        Ok(approved)
    }
}
