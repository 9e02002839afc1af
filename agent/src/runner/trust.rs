//! What the root runner goes by: files that only root may write. Whom it serves, which controller
//! it believes, and root's own policy.
//!
//! Nothing of it comes from the agent, except once: `pin` takes the controller's key from the
//! agent's credential. The agent's user could have written another key there, so root names the
//! key's fingerprint, or says explicitly that it trusts that user; what is pinned already is
//! replaced only on request.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pistat_protocol::{id::PiId, order::PublicKey};
use pistat_support::file::{self, Readable};
use serde::{Deserialize, Serialize};

use crate::{
    config::file::{Execute, Listed, listed, sentence},
    credential::Credential,
    options::Policy,
};

/// The user whose agent is served, unless `runner.toml` names another.
const AGENT_USER: &str = "pistat-agent";

/// The nice value of root's tasks, unless `runner.toml` has another.
const NICE: i32 = 5;

/// Why the runner does not know what to go by. Each is a sentence for whoever set up the machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// Nothing was pinned yet.
    #[error(
        "the root runner does not know its controller yet: run `pistat-agent runner pin --fingerprint FINGERPRINT` as root on this \
         machine, once the agent is enrolled; the fingerprint is the part of the join token after the dot (`pistat join-token show`)"
    )]
    NotPinned,
    /// Somebody else than root could have written it.
    #[error("{0} may be written by somebody else than root, so the root runner does not believe it")]
    Exposed(PathBuf),
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be understood.
    #[error("{path}: {reason}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no such user.
    #[error("there is no user `{0}` on this machine; `agent_user` in runner.toml names the agent's user")]
    NoUser(String),
}

/// Whose orders are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pinned {
    /// The machine that orders must name.
    pub pi: PiId,
    /// The board that this was pinned on, where it has a serial number: on a cloned card nothing is
    /// believed.
    pub serial: Option<String>,
    /// The controller's key.
    pub controller_key: PublicKey,
}

impl Pinned {
    fn path(folder: &Path) -> PathBuf {
        folder.join("controller.json")
    }

    /// What was pinned in this folder.
    ///
    /// # Errors
    /// Nothing was, or it is not to be believed.
    pub(crate) fn load(folder: &Path) -> Result<Self, TrustError> {
        let path = Self::path(folder);
        let Some(text) = read_own(&path)? else { return Err(TrustError::NotPinned) };
        serde_json::from_str(&text).map_err(|error| TrustError::Malformed { path, reason: error.to_string() })
    }

    /// Takes the key of an agent's credential; `None` while that agent has not been enrolled.
    ///
    /// # Errors
    /// The credential cannot be read.
    pub(crate) fn from_agent(state: &Path, serial: Option<String>) -> Result<Option<Self>, String> {
        let credential = Credential::load_foreign(state).map_err(|error| error.to_string())?;
        let pinned = |credential: Credential| {
            Some(Self { pi: credential.pi, serial, controller_key: credential.controller_key? })
        };
        Ok(credential.and_then(pinned))
    }

    /// Puts it on disk.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        file::replace(&Self::path(folder), &serde_json::to_vec_pretty(self)?, Readable::Owner)
    }
}

impl std::fmt::Display for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "machine {} with the controller key {}", self.pi, self.controller_key.fingerprint())?;
        self.serial.as_ref().map_or(Ok(()), |serial| write!(f, " on board {serial}"))
    }
}

/// Root's own word: whom it serves, and what it is willing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The user id of the agent.
    pub agent_uid: u32,
    /// What root is willing to run.
    pub policy: Policy,
    /// The nice value of tasks.
    pub nice: i32,
}

/// Every key of `runner.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    agent_user: Option<String>,
    execute: Option<Execute>,
    nice: Option<i32>,
    #[serde(default)]
    task: BTreeMap<String, Listed>,
}

impl Settings {
    /// Those of this folder, or the defaults.
    ///
    /// # Errors
    /// The file is not to be believed, or wrong, or names a user that is not there.
    pub(crate) fn load(folder: &Path) -> Result<Self, TrustError> {
        let path = folder.join("runner.toml");
        let text = read_own(&path)?.unwrap_or_default();
        let malformed = |reason| TrustError::Malformed { path: path.clone(), reason };
        let file: SettingsFile = toml::from_str(&text).map_err(|error| malformed(sentence(&text, &error)))?;
        let users = fs::read_to_string("/etc/passwd")
            .map_err(|source| TrustError::Unreadable { path: "/etc/passwd".into(), source })?;
        let user = file.agent_user.as_deref().unwrap_or(AGENT_USER);
        let agent_uid = uid_of(user, &users).ok_or_else(|| TrustError::NoUser(user.to_owned()))?;
        let policy = match file.execute.unwrap_or_default() {
            Execute::Controller => Policy::Controller,
            Execute::Listed => Policy::Listed(listed(&file.task).map_err(malformed)?),
            Execute::Never => Policy::Never,
        };
        Ok(Self { agent_uid, policy, nice: file.nice.unwrap_or(NICE).clamp(0, 19) })
    }
}

/// The id of a user by name or number (passwd(5)).
fn uid_of(user: &str, passwd: &str) -> Option<u32> {
    let by_name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    by_name.or_else(|| user.parse().ok())
}

/// The text of a file that only this process's user may write; `None` when it is not there.
fn read_own(path: &Path) -> Result<Option<String>, TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: path.to_owned(), source };
    let text = match file::read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let own = rustix::process::geteuid().as_raw();
    for path in [Some(path), path.parent()].into_iter().flatten() {
        let found = fs::metadata(path).map_err(unreadable)?;
        if (found.uid() != own && found.uid() != 0) || found.mode() & 0o022 != 0 {
            return Err(TrustError::Exposed(path.to_owned()));
        }
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn settings(text: &str) -> Result<Settings, TrustError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("runner.toml"), text).unwrap();
        Settings::load(folder.path())
    }

    #[test]
    fn the_agents_user_is_found_by_name_or_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\npistat-agent:x:991:991::/nonexistent:/usr/sbin/nologin\nbroken\n";
        for (user, uid) in [("pistat-agent", Some(991)), ("root", Some(0)), ("1234", Some(1234)), ("nobody-here", None)]
        {
            assert_eq!(uid_of(user, passwd), uid, "{user}");
        }
    }

    #[test]
    fn roots_own_policy_is_written_as_the_agents() {
        let settings =
            settings("agent_user = '0'\nexecute = 'listed'\nnice = 10\n[task.reboot]\ncommand = ['reboot']\n");
        let settings = settings.unwrap();
        let tasks = BTreeMap::from([("reboot".parse().unwrap(), Some(vec!["reboot".to_owned()]))]);
        assert_eq!(settings, Settings { agent_uid: 0, policy: Policy::Listed(tasks), nice: 10 });
    }

    #[test]
    fn the_file_that_ships_has_every_key_at_its_default() {
        let shipped = include_str!("../../../config/runner.toml");
        let is_key = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase());
        let keys = shipped.lines().filter_map(|line| line.strip_prefix('#').filter(is_key));
        let file: SettingsFile = toml::from_str(&keys.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!((file.agent_user.as_deref(), file.nice), (Some(AGENT_USER), Some(NICE)));
        assert_eq!(file.execute, Some(Execute::Controller));
        assert!(toml::from_str::<SettingsFile>(shipped).unwrap().agent_user.is_none());
    }

    #[test]
    fn the_documentation_names_every_key() {
        let page = include_str!("../../../docs/configuration.md");
        let (_, section) = page.split_once("\n## The root runner\n").unwrap();
        // Serde names the keys that it knows when it is asked for another.
        let unknown = toml::from_str::<SettingsFile>("'?' = 1").unwrap_err();
        let keys: Vec<_> = unknown.message().split('`').skip(3).step_by(2).filter(|key| *key != "task").collect();
        assert!(keys.len() > 2, "{keys:?}");
        for key in keys.into_iter().chain(["task.<id>"]) {
            assert!(section.contains(&format!("\n| `{key}`")), "docs/configuration.md does not name {key}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("agent_usr = 'x'", "agent_usr"),
            ("agent_user = 'no-such-user-here'", "no-such-user-here"),
            ("agent_user = '0'\nexecute = 'maybe'", "maybe"),
        ] {
            let error = settings(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_somebody_else_could_have_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Pinned::load(folder.path()), Err(TrustError::NotPinned)));
        let key = pistat_protocol::order::ControllerKey::from_secret(&[1; 32]).public();
        let pinned = Pinned { pi: "pi-1".parse().unwrap(), serial: None, controller_key: key };
        pinned.save(folder.path()).unwrap();
        assert_eq!(Pinned::load(folder.path()).unwrap(), pinned);
        let file = Pinned::path(folder.path());
        for (path, mode) in [(file.as_path(), 0o606), (folder.path(), 0o777)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Pinned::load(folder.path()), Err(TrustError::Exposed(_))), "{}", path.display());
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
}
