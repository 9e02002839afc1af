//! The controller's own secrets: its signing key and the join token, made at the first start and
//! whenever they are lost.

use std::{io, path::Path};

use pistat_protocol::order::{ControllerKey, JoinToken};
use pistat_support::{
    file::{Readable, replace},
    random::{self, new_secret},
};
use serde::Deserialize;

use super::{
    files::{load_json, read, replace_json, set_aside},
    name,
};

/// The secret half of the signing key, as its file holds it.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct SecretKey([u8; 32]);

impl TryFrom<String> for SecretKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        pistat_protocol::order::parse_sha256(&text).map(Self).ok_or("a key is 64 hexadecimal digits")
    }
}

pub(super) fn load_key(file: &Path, damaged: &mut Vec<String>) -> io::Result<ControllerKey> {
    if let Some(SecretKey(secret)) = load_json(file, damaged)? {
        return Ok(ControllerKey::from_secret(&secret));
    }
    let secret = random::secret()?;
    replace_json(file, &pistat_protocol::order::hex(&secret), Readable::Owner)?;
    Ok(ControllerKey::from_secret(&secret))
}

pub(super) fn load_join_token(folder: &Path, key: &ControllerKey, damaged: &mut Vec<String>) -> io::Result<JoinToken> {
    let file = folder.join(name::JOIN_TOKEN);
    let fingerprint = key.public().fingerprint();
    if let Some(text) = read(&file, damaged)? {
        match String::from_utf8_lossy(&text).parse::<JoinToken>() {
            Ok(token) if token.fingerprint == fingerprint => return Ok(token),
            // The key is another one than when the token was made: agents must not believe the old
            // fingerprint.
            Ok(_) => {}
            Err(_) => {
                let kept = set_aside(&file)?;
                damaged.push(format!(
                    "{} was no join token; it was set aside as {} and a new one was made",
                    file.display(),
                    kept.display()
                ));
            }
        }
    }
    let token = JoinToken { secret: new_secret()?, fingerprint };
    replace(&file, format!("{token}\n").as_bytes(), Readable::Owner)?;
    Ok(token)
}
