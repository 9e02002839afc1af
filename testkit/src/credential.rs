//! Enrolment, as an agent does it.

use std::{net::SocketAddr, time::Duration};

use pistat_protocol::{
    codec::{decode, encode},
    id::PiId,
    order::{EnrollAnswer, EnrollRequest, JoinToken, KeyView, PublicKey, VerifiedOrder, secret_sha256, secret_text},
    topic::{Topic, Topics},
};
use serde::{Deserialize, Serialize};
use tokio::time::{interval, timeout};

use crate::{
    packet::{Connect, Message, Packet},
    wire::{Wire, WireError},
};

/// How long one machine may take to be enrolled.
const LIMIT: Duration = Duration::from_secs(120);

/// How often a request is repeated: the controller may not be subscribed yet.
const REPEAT: Duration = Duration::from_secs(2);

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

/// Why a machine could not be enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The controller refused it.
    #[error("{pi} was refused: {message}")]
    Refused {
        /// Which machine.
        pi: PiId,
        /// What the controller said.
        message: String,
    },
    /// The answer cannot be believed.
    #[error("{0} got an answer that is not its controller's")]
    Forged(PiId),
    /// Nothing came.
    #[error("{0} got no answer")]
    NoAnswer(PiId),
}

impl Credential {
    /// Enrols a machine with a secret of its own.
    ///
    /// # Errors
    /// The controller refuses it, or does not answer.
    pub async fn enrol(address: SocketAddr, topics: &Topics, pi: PiId, token: &JoinToken) -> Result<Self, EnrolError> {
        Self::enrol_with(address, topics, pi, token, secret_text(random()), None).await
    }

    /// Enrols a machine with this secret and serial number.
    ///
    /// # Errors
    /// The controller refuses it, or does not answer.
    pub async fn enrol_with(
        address: SocketAddr,
        topics: &Topics,
        pi: PiId,
        token: &JoinToken,
        secret: String,
        serial: Option<&str>,
    ) -> Result<Self, EnrolError> {
        let request = EnrollRequest {
            secret_sha256: secret_sha256(&secret),
            nonce: secret_text(random()),
            serial: serial.map(str::to_owned),
            label: None,
        };
        let enrolment = Enrolment { topics, pi: &pi, token, request };
        let key = timeout(LIMIT, enrolment.run(address)).await.map_err(|_| EnrolError::NoAnswer(pi.clone()))??;
        Ok(Self { pi, secret, key })
    }
}

struct Enrolment<'a> {
    topics: &'a Topics,
    pi: &'a PiId,
    token: &'a JoinToken,
    request: EnrollRequest,
}

impl Enrolment<'_> {
    async fn run(&self, address: SocketAddr) -> Result<PublicKey, EnrolError> {
        let hello = Connect::v311(&format!("join-{}", self.pi)).login(self.pi.as_str(), &self.token.secret);
        let mut wire = Wire::connect(address, &hello).await?;
        let answers = [Topic::ControllerKey, Topic::EnrollResponse(self.pi.clone())];
        wire.subscribe(answers.iter().map(|topic| self.topics.format(topic)));
        let topic = self.topics.format(&Topic::EnrollRequest(self.pi.clone()));
        let request = Message { topic, payload: encode(&self.request), qos: 1, ..Message::default() };
        let mut ask = interval(REPEAT);
        let mut key = None;
        loop {
            wire.flush().await.map_err(WireError::from)?;
            let next = tokio::select! {
                next = wire.next() => next?,
                _ = ask.tick() => {
                    wire.publish(request.clone());
                    continue;
                }
            };
            let Packet::Publish(message) = next else { continue };
            match self.topics.parse(&message.topic) {
                Some(Topic::ControllerKey) => key = self.believe(&message.payload),
                Some(Topic::EnrollResponse(_)) => return self.read(&message.payload, key),
                _ => {}
            }
        }
    }

    fn believe(&self, payload: &[u8]) -> Option<PublicKey> {
        let view: KeyView = decode(payload).ok()?;
        Some(view.key).filter(|key| key.fingerprint() == self.token.fingerprint)
    }

    fn read(&self, payload: &[u8], key: Option<PublicKey>) -> Result<PublicKey, EnrolError> {
        let forged = || EnrolError::Forged(self.pi.clone());
        let signed = match decode(payload).map_err(|_| forged())? {
            EnrollAnswer::Accepted(order) => order,
            EnrollAnswer::Refused { error, .. } => {
                return Err(EnrolError::Refused { pi: self.pi.clone(), message: error });
            }
        };
        let key = key.ok_or_else(forged)?;
        let Ok(VerifiedOrder::Enroll(order)) = key.verify_signed(&signed) else { return Err(forged()) };
        let (order, request) = (order.get(), &self.request);
        let is_own =
            (&order.pi, &order.nonce, &order.secret_sha256) == (self.pi, &request.nonce, &request.secret_sha256);
        if is_own { Ok(key) } else { Err(forged()) }
    }
}

/// Random bytes.
///
/// # Panics
/// The system has none.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("a system that runs tests has random numbers");
    bytes
}
