//! The credentials of a fleet, and the file that keeps them for the next time.

use std::{collections::BTreeMap, io::Write, net::SocketAddr, path::Path};

use pistat_protocol::{codec::encode, id::PiId, order::JoinToken, topic::Topics};
use pistat_testkit::credential::{Credential, EnrolError};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// How many machines enrol at the same time.
const AT_ONCE: usize = 256;

/// Why a machine could not be enrolled, or the roll not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RollError {
    /// The enrolment.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The file of the roll.
    #[error("the roll cannot be kept: {0}")]
    File(#[from] std::io::Error),
}

/// The credentials of a fleet, in a file `roll.json` of mode 0600.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Roll(BTreeMap<PiId, Credential>);

impl Roll {
    /// The roll in this folder; an empty one where there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is not a roll.
    pub fn read(folder: &Path) -> Result<Self, RollError> {
        match std::fs::read(folder.join("roll.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| std::io::Error::other(error).into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the roll in this folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), RollError> {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::create_dir_all(folder)?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(folder.join("roll.json"))?;
        file.write_all(&encode(self))?;
        Ok(())
    }

    /// Enrols the machines of `0..count` that are not enrolled yet, and returns all credentials.
    ///
    /// # Errors
    /// One of them could not be enrolled; those that were are on the roll.
    pub async fn fill(
        &mut self,
        address: SocketAddr,
        token: &JoinToken,
        topics: &Topics,
        count: usize,
    ) -> Result<Vec<Credential>, RollError> {
        let names: Vec<PiId> = (0..count).map(name).collect();
        let mut missing = names.clone();
        missing.retain(|pi| !self.0.contains_key(pi));
        let mut missing = missing.into_iter();
        let mut joining = JoinSet::new();
        loop {
            while joining.len() < AT_ONCE
                && let Some(pi) = missing.next()
            {
                let (token, topics) = (token.clone(), topics.clone());
                joining.spawn(async move { Credential::enrol(address, &topics, pi, &token).await });
            }
            match joining.join_next().await {
                Some(Ok(credential)) => {
                    let credential = credential?;
                    self.0.insert(credential.pi.clone(), credential);
                }
                Some(Err(error)) => return Err(std::io::Error::other(error).into()),
                None => break,
            }
        }
        Ok(names.iter().filter_map(|pi| self.0.get(pi)).cloned().collect())
    }
}

/// The name of the machine with this number.
///
/// # Panics
/// Never: letters, digits and a dash make a pi-id.
pub fn name(number: usize) -> PiId {
    format!("sim-{number:05}").parse().expect("letters, digits and a dash make a pi-id")
}

#[cfg(test)]
mod tests {
    use pistat_protocol::order::ControllerKey;

    use super::*;

    #[test]
    fn a_roll_is_kept_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        assert!(Roll::read(folder.path()).unwrap().0.is_empty());
        let key = ControllerKey::from_secret(&[1; 32]).public();
        let credential = Credential { pi: name(7), secret: "secret".into(), key };
        let roll = Roll(BTreeMap::from([(name(7), credential)]));
        roll.write(folder.path()).unwrap();
        assert_eq!(Roll::read(folder.path()).unwrap().0[&name(7)].secret, "secret");
        let mode = std::fs::metadata(folder.path().join("roll.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
