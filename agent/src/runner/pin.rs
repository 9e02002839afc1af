//! `pistat-agent runner pin`: which controller root believes from now on.
//!
//! The key comes from the agent's credential, and the agent's user may write anything there. So it
//! counts only if its fingerprint is the one that root names, what is pinned already stays unless
//! root asks for another, and the file is opened as one that an attacker made.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pistat_protocol::id::PiId;

use super::trust::{Pinned, TrustError};
use crate::facts;

/// The agent's own state folder, where its credential is.
const AGENT_STATE: &str = "/var/lib/pistat-agent";

/// The words of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Pin {
    /// The fingerprint of the controller's key: the part of the join token after the dot
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "trust_agent")]
    fingerprint: Option<String>,
    /// Without a fingerprint: believe whatever key the agent's user has in its folder
    #[arg(long)]
    trust_agent: bool,
    /// Refuse a credential of another machine than this one
    #[arg(long, value_name = "ID")]
    pi_id: Option<PiId>,
    /// Replace what is pinned already by another controller, pi-id or board
    #[arg(long)]
    replace: bool,
    /// How long to wait for an enrolment that is under way
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// The agent's state folder
    #[arg(long, value_name = "DIR", default_value = AGENT_STATE)]
    agent_state: PathBuf,
}

impl Pin {
    /// Pins, in root's own folder.
    ///
    /// # Errors
    /// A sentence that says why nothing was changed, and what to do.
    pub(super) fn run(&self, state: &Path) -> Result<(), String> {
        if self.fingerprint.is_none() && !self.trust_agent {
            return Err("nothing was pinned: say which controller to believe. `--fingerprint FINGERPRINT` is the part of the join token \
                        after the dot, which `pistat join-token show` prints on the controller; `--trust-agent` believes whatever key \
                        the agent's user has in its folder, so that user could become root"
                .into());
        }
        let pinned = self.enrolled()?;
        self.check(&pinned)?;
        self.check_replacement(state, &pinned)?;
        std::fs::create_dir_all(state)
            .and_then(|()| pinned.save(state))
            .map_err(|error| format!("{} cannot be written: {error}", state.display()))?;
        let found = pinned.controller_key.fingerprint();
        tracing::info!("the root runner of {} believes the controller with the fingerprint {found}", pinned.pi);
        Ok(())
    }

    /// What the agent's user says it is enrolled with, as soon as there is something.
    fn enrolled(&self) -> Result<Pinned, String> {
        let began = Instant::now();
        loop {
            match Pinned::from_agent(&self.agent_state, facts::serial(Path::new("/")))? {
                Some(pinned) => return Ok(pinned),
                None if began.elapsed() < Duration::from_secs(self.wait) => {
                    std::thread::sleep(Duration::from_millis(500));
                }
                None => {
                    let state = self.agent_state.display();
                    return Err(format!("the agent is not enrolled yet: there is no key in {state}"));
                }
            }
        }
    }

    /// Whether it is what root asked for.
    fn check(&self, pinned: &Pinned) -> Result<(), String> {
        let found = pinned.controller_key.fingerprint();
        if self.fingerprint.as_ref().is_some_and(|wanted| *wanted != found) {
            return Err(format!(
                "the agent's controller has the fingerprint {found}, which is another; nothing was changed"
            ));
        }
        match &self.pi_id {
            Some(wanted) if *wanted != pinned.pi => {
                Err(format!("the agent is enrolled as {}, not as {wanted}; nothing was changed", pinned.pi))
            }
            _ => Ok(()),
        }
    }

    /// What is pinned already stays, unless root asks for its replacement: a changed key may be an
    /// attempt to become root.
    fn check_replacement(&self, state: &Path, pinned: &Pinned) -> Result<(), String> {
        let differs = match Pinned::load(state) {
            _ if self.replace => return Ok(()),
            Err(TrustError::NotPinned) => return Ok(()),
            Ok(before) if before == *pinned => return Ok(()),
            Err(error) => error.to_string(),
            Ok(before) => format!(
                "the root runner is pinned to {before}; the agent is enrolled as {pinned}. This may be an attempt to become root on \
                 this machine"
            ),
        };
        Err(format!("{differs}. Nothing was changed; if you moved this machine yourself, add --replace"))
    }
}
