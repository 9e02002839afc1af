//! The machine's own credential: its secret, the pinned key of its controller, and the board that
//! it was made on.
//!
//! One file, mode 0600, replaced atomically and on disk before it is registered anywhere. On
//! another board (a cloned card) it is refused.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pistat_protocol::{id::PiId, order::PublicKey};
use pistat_support::{
    file::{self, Readable},
    random,
};
use serde::{Deserialize, Serialize};

/// The file in the state folder.
const FILE: &str = "credential.json";

/// A credential whose enrolment has not been answered yet, beside the one in force.
const PENDING: &str = "enrolling.json";

/// What a machine keeps.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The name under which it was enrolled.
    pub pi: PiId,
    /// The board's serial number, where it has one.
    pub serial: Option<String>,
    /// Its MQTT password at an embedded broker.
    pub secret: String,
    /// The controller's key; absent until the enrolment was answered.
    pub controller_key: Option<PublicKey>,
    /// Whether its broker, which is not the controller's own, lets this machine in without
    /// credentials only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.controller_key.as_ref().map(PublicKey::key_id);
        write!(f, "Credential({}, {:?}, ***, {key:?})", self.pi, self.serial)
    }
}

/// Why a credential cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The state folder cannot be used.
    #[error("the state folder cannot be used: {path}: {source}; choose another with --state")]
    Folder {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged.
    #[error(
        "the credential {path} is damaged ({reason}); move it away, and enrol this machine anew with --token-file after \
         `pistat agent reset` on the controller"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was made on another board.
    #[error(
        "the credential in {path} was made on another board (serial {theirs}, this one has {ours}): this looks like a copied \
         card. Enrol this machine under its own --pi-id with --token-file; its state folder will be replaced"
    )]
    OtherBoard {
        /// Which file.
        path: PathBuf,
        /// The serial in the file.
        theirs: String,
        /// This board's.
        ours: String,
    },
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
}

impl Credential {
    /// A new credential with a new secret.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate(pi: PiId, serial: Option<String>) -> Result<Self, CredentialError> {
        let secret = random::new_secret().map_err(CredentialError::Random)?;
        Ok(Self { pi, serial, secret, controller_key: None, anonymous: false })
    }

    /// Whether a state folder holds a credential in force, good or bad.
    pub(crate) fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// The credential of a state folder, if there is one.
    ///
    /// # Errors
    /// It cannot be read or is damaged.
    pub fn load(folder: &Path) -> Result<Option<Self>, CredentialError> {
        Self::load_file(folder.join(FILE))
    }

    /// The credential of an enrolment that was interrupted.
    ///
    /// # Errors
    /// It cannot be read or is damaged.
    pub fn load_pending(folder: &Path) -> Result<Option<Self>, CredentialError> {
        match Self::load_file(folder.join(PENDING)) {
            // Nothing depends on it yet: another is made.
            Err(CredentialError::Damaged { .. }) => Ok(None),
            other => other,
        }
    }

    /// The credential in another user's state folder, as root reads it: that user may have put
    /// anything there.
    ///
    /// # Errors
    /// It cannot be read, is not a regular file of that user, or is damaged.
    pub(crate) fn load_foreign(folder: &Path) -> Result<Option<Self>, CredentialError> {
        Self::read_by(folder.join(FILE), file::read_foreign_without_links)
    }

    fn load_file(path: PathBuf) -> Result<Option<Self>, CredentialError> {
        Self::read_by(path, file::read)
    }

    fn read_by(path: PathBuf, read: fn(&Path) -> io::Result<Vec<u8>>) -> Result<Option<Self>, CredentialError> {
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CredentialError::Folder { path, source }),
        };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|error| CredentialError::Damaged { path, reason: error.to_string() })
    }

    /// Puts it on disk, readable by its owner only.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), CredentialError> {
        self.save_file(folder.join(FILE))
    }

    /// Puts it on disk beside the one in force.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save_pending(&self, folder: &Path) -> Result<(), CredentialError> {
        self.save_file(folder.join(PENDING))
    }

    /// The enrolment has been answered.
    pub fn discard_pending(folder: &Path) {
        // One that stays behind is used for the next enrolment, or not at all.
        let _ = fs::remove_file(folder.join(PENDING));
    }

    fn save_file(&self, path: PathBuf) -> Result<(), CredentialError> {
        let json = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        json.and_then(|json| file::replace(&path, &json, Readable::Owner))
            .map_err(|source| CredentialError::Folder { path, source })
    }

    /// Checks that it was made on this board.
    ///
    /// # Errors
    /// It was made on another. A board without a serial number cannot tell.
    pub fn check_board(&self, folder: &Path, serial: Option<&str>) -> Result<(), CredentialError> {
        match (&self.serial, serial) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(CredentialError::OtherBoard {
                path: folder.join(FILE),
                theirs: theirs.clone(),
                ours: ours.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_kept_for_its_owner_only_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Credential::load(folder.path()).unwrap().is_none());
        let credential = Credential::generate("pi-1".parse().unwrap(), Some("1000".into())).unwrap();
        credential.save(folder.path()).unwrap();
        assert_eq!(Credential::load(folder.path()).unwrap().unwrap(), credential);
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{credential:?}").contains(&credential.secret));
    }

    #[test]
    fn another_board_is_refused_and_a_board_without_a_serial_is_not() {
        let credential = Credential::generate("pi-1".parse().unwrap(), Some("1000".into())).unwrap();
        let folder = Path::new("/state");
        assert!(credential.check_board(folder, Some("1000")).is_ok());
        assert!(credential.check_board(folder, None).is_ok());
        let error = credential.check_board(folder, Some("2000")).unwrap_err().to_string();
        assert!(error.contains("--pi-id") && error.contains("--token"), "{error}");
    }

    #[test]
    fn a_damaged_one_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{").unwrap();
        let error = Credential::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("credential.json") && error.contains("damaged"), "{error}");
        assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), b"{");
    }
}
