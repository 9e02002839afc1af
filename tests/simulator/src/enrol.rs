//! Enrolment as a real agent does it, and the file that keeps the credentials for the next time.

use std::{collections::BTreeMap, io::Write, net::SocketAddr, path::Path, time::Duration};

use pistat_protocol::{
    codec::{decode, encode},
    id::PiId,
    order::{EnrollAnswer, EnrollRequest, JoinToken, KeyView, PublicKey, VerifiedOrder, secret_sha256, secret_text},
    topic::{Topic, Topics},
};
use rumqttc::{QoS, mqttbytes::v4::Packet};
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout},
};

use crate::wire::{Hello, Wire, WireError};

/// How long one machine may take to be enrolled.
const LIMIT: Duration = Duration::from_secs(120);

/// How often a request is repeated: the controller may not listen yet.
const REPEAT: Duration = Duration::from_secs(5);

/// How many machines enrol at the same time.
const AT_ONCE: usize = 256;

/// What a machine needs to connect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credential {
    /// Its name.
    pub pi: PiId,
    /// Its MQTT password.
    pub secret: String,
    /// The controller's key, believed by the fingerprint in the join token.
    pub key: PublicKey,
}

/// Why a machine could not be enrolled, or the roll not be kept.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The controller said no.
    #[error("{pi} was refused: {sentence}")]
    Refused {
        /// Which machine.
        pi: PiId,
        /// What the controller said.
        sentence: String,
    },
    /// The answer cannot be believed.
    #[error("{0} got an answer that is not its controller's")]
    Forged(PiId),
    /// Nothing came.
    #[error("{0} got no answer")]
    Silence(PiId),
    /// The file of the roll.
    #[error("the roll cannot be kept: {0}")]
    File(#[from] std::io::Error),
    /// The system has no random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// The credentials of a fleet, in a file `roll.json` of mode 0600.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Roll(BTreeMap<PiId, Credential>);

impl Roll {
    /// The roll in this folder; an empty one where there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is not a roll.
    pub fn read(folder: &Path) -> Result<Self, EnrolError> {
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
    pub fn write(&self, folder: &Path) -> Result<(), EnrolError> {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::create_dir_all(folder)?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(folder.join("roll.json"))?;
        file.write_all(&encode(self))?;
        Ok(())
    }

    /// Enrols whoever is missing of machines `0..count`, and gives the credentials of all of them.
    ///
    /// # Errors
    /// One of them could not be enrolled; those that were are on the roll.
    pub async fn fill(
        &mut self,
        address: SocketAddr,
        token: &JoinToken,
        topics: &Topics,
        count: usize,
    ) -> Result<Vec<Credential>, EnrolError> {
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
                joining.spawn(async move { enrol(address, pi, &token, &topics).await });
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

/// Enrols one machine with a secret of its own.
///
/// # Errors
/// The controller refuses it, or does not answer.
pub async fn enrol(
    address: SocketAddr,
    pi: PiId,
    token: &JoinToken,
    topics: &Topics,
) -> Result<Credential, EnrolError> {
    let joining = Joining { address, pi: pi.clone(), token, topics, secret: random()?, nonce: random()? };
    timeout(LIMIT, joining.run()).await.map_err(|_| EnrolError::Silence(pi))?
}

struct Joining<'a> {
    address: SocketAddr,
    pi: PiId,
    token: &'a JoinToken,
    topics: &'a Topics,
    secret: String,
    nonce: String,
}

impl Joining<'_> {
    async fn run(self) -> Result<Credential, EnrolError> {
        let client = format!("join-{}", self.pi);
        let hello = Hello { client: &client, user: self.pi.as_str(), password: &self.token.secret, will: None };
        let mut wire = Wire::connect(self.address, hello).await?;
        let heard = [Topic::ControllerKey, Topic::EnrollResponse(self.pi.clone())];
        wire.subscribe(heard.iter().map(|topic| self.topics.format(topic)))?;
        let mut ask = interval(REPEAT);
        ask.reset_at(Instant::now());
        let mut key = None;
        loop {
            wire.flush().await?;
            tokio::select! {
                packet = wire.next() => {
                    let Packet::Publish(publish) = packet? else { continue };
                    match self.topics.parse(&publish.topic) {
                        Some(Topic::ControllerKey) => key = self.believe(&publish.payload),
                        Some(Topic::EnrollResponse(_)) => return self.read(&publish.payload, key),
                        _ => {}
                    }
                }
                _ = ask.tick() => {
                    let request = EnrollRequest {
                        secret_sha256: secret_sha256(&self.secret),
                        nonce: self.nonce.clone(),
                        serial: None,
                        label: None,
                    };
                    let topic = Topic::EnrollRequest(self.pi.clone());
                    wire.publish(self.topics, &topic, encode(&request), QoS::AtLeastOnce, false)?;
                }
            }
        }
    }

    fn believe(&self, payload: &[u8]) -> Option<PublicKey> {
        let view: KeyView = decode(payload).ok()?;
        (view.key.fingerprint() == self.token.fingerprint).then_some(view.key)
    }

    fn read(self, payload: &[u8], key: Option<PublicKey>) -> Result<Credential, EnrolError> {
        let forged = EnrolError::Forged(self.pi.clone());
        let (Ok(answer), Some(key)) = (decode::<EnrollAnswer>(payload), key) else { return Err(forged) };
        match answer {
            EnrollAnswer::Refused { error, .. } => Err(EnrolError::Refused { pi: self.pi, sentence: error }),
            EnrollAnswer::Accepted(order) => match key.verify_signed(&order) {
                Ok(VerifiedOrder::Enroll(order))
                    if order.get().pi == self.pi && order.get().secret_sha256 == secret_sha256(&self.secret) =>
                {
                    Ok(Credential { pi: self.pi, secret: self.secret, key })
                }
                _ => Err(forged),
            },
        }
    }
}

fn random() -> Result<String, getrandom::Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    Ok(secret_text(bits))
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
