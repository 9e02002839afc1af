//! The plain files: what people gave machines, and who may do what. They hold what the thread that
//! writes has written last.

use std::{
    io,
    path::{Path, PathBuf},
};

use pistat_protocol::id::PiId;
use pistat_support::{
    file::{Readable, Replacement, replace},
    random::new_secret,
};

use super::{
    MachineMetadata, MetadataPatch,
    files::{load_json, prepare_json, read, replace_json, set_aside},
    name, now,
};
use crate::access::{Access, AccessChange, AccountRecord};

/// The plain files, as the thread that writes has them.
pub(super) struct Files {
    pub(super) folder: PathBuf,
    pub(super) given: MachineMetadata,
    pub(super) access: Access,
}

impl Files {
    pub(super) fn load(folder: &Path, damaged: &mut Vec<String>) -> io::Result<Self> {
        Ok(Self {
            folder: folder.into(),
            given: MachineMetadata {
                labels: load_json(&folder.join(name::LABELS), damaged)?,
                assignments: load_json(&folder.join(name::ASSIGNMENTS), damaged)?,
                settings: load_json(&folder.join(name::MACHINES), damaged)?,
            },
            access: load_access(folder, damaged)?,
        })
    }

    /// Makes the account `admin` and its token file, when either is missing or they do not belong
    /// together.
    pub(super) fn ensure_admin(&mut self, damaged: &mut Vec<String>) -> io::Result<bool> {
        let file = self.folder.join(name::ADMIN_TOKEN);
        let content = read(&file, damaged)?.unwrap_or_default();
        let known = self.access.caller_by_token(String::from_utf8_lossy(&content).trim(), now());
        if known.is_some_and(|caller| caller.account.as_str() == "admin") {
            return Ok(false);
        }
        if !content.is_empty() {
            let kept = set_aside(&file)?;
            damaged.push(format!(
                "{} was not the token of the account admin; it was set aside as {} and the account has a new one",
                file.display(),
                kept.display()
            ));
        }
        let token = new_secret()?;
        self.write_access(&[AccessChange::PutAccount(AccountRecord::admin(&token, now()))])?;
        replace(&file, format!("{token}\n").as_bytes(), Readable::Owner)?;
        Ok(true)
    }

    /// All files that a change touches, or none: each is prepared before the first is put in its
    /// place.
    pub(super) fn write_given(&mut self, pi: &PiId, change: &MetadataPatch) -> io::Result<()> {
        let mut given = self.given.clone();
        given.apply(pi, change);
        let [labels, assignments, machines] =
            [name::LABELS, name::ASSIGNMENTS, name::MACHINES].map(|name| self.folder.join(name));
        let mut changed = Vec::new();
        if given.labels != self.given.labels {
            changed.push(prepare_json(&labels, &given.labels, Readable::Everyone)?);
        }
        if given.assignments != self.given.assignments {
            changed.push(prepare_json(&assignments, &given.assignments, Readable::Everyone)?);
        }
        if given.settings != self.given.settings {
            changed.push(prepare_json(&machines, &given.settings, Readable::Everyone)?);
        }
        changed.into_iter().try_for_each(Replacement::put)?;
        self.given = given;
        Ok(())
    }

    pub(super) fn write_access<'a>(&mut self, changes: impl IntoIterator<Item = &'a AccessChange>) -> io::Result<()> {
        let mut access = self.access.clone();
        for change in changes {
            access.apply(change);
        }
        replace_json(&self.folder.join(name::ACCESS), &access, Readable::Owner)?;
        self.access = access;
        Ok(())
    }
}

fn load_access(folder: &Path, damaged: &mut Vec<String>) -> io::Result<Access> {
    let mut access: Access = load_json(&folder.join(name::ACCESS), damaged)?;
    let dropped = access.drop_sessions_without_key();
    if dropped > 0 {
        tracing::info!(dropped, "browsers have to sign in again: a session now needs a key besides its cookie");
    }
    Ok(access)
}
