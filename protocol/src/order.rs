//! Signed orders: the only thing that makes an agent act.
//!
//! An order is an Ed25519 signature (RFC 8032) over the exact bytes of a JSON text.
//! [`PublicKey::verify`] checks the signature before the text is parsed; [`Verified`] cannot be
//! made in any other way, so a value of this type is always an order of the pinned controller.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    codec::{DecodeError, MAX_PAYLOAD_BYTES},
    id::{PiId, RunId, TaskId},
    status::{Nonce, Session},
    task::Ends,
};

/// An order as it travels: the payload of `execute`, `cancel` and of an enrolment's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedOrder {
    /// The signed JSON text, byte for byte.
    pub payload: String,
    /// Which key signed it.
    pub key_id: String,
    /// The signature, base64.
    pub signature: String,
}

/// What the controller orders. The JSON text begins with its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Order {
    /// Start a process.
    Execute(ExecuteOrder),
    /// End a run.
    Cancel(CancelOrder),
    /// A machine has been enrolled.
    Enroll(EnrollOrder),
}

/// Start a process on one machine, in one session of its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecuteOrder {
    /// Which machine.
    pub pi: PiId,
    /// Which run.
    pub run: RunId,
    /// Which session of the agent.
    pub session: Session,
    /// Which task.
    pub task: TaskId,
    /// The program and its arguments; never a shell line.
    pub argv: Vec<String>,
    /// The time limit.
    pub timeout_milliseconds: u64,
    /// Between SIGTERM and SIGKILL.
    pub grace_milliseconds: u64,
    /// Added to the minimal environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Where it runs; `/` without one.
    #[serde(default)]
    pub working_directory: Option<String>,
    /// Whether it needs the root runner.
    #[serde(default)]
    pub root: bool,
    /// What its success looks like.
    #[serde(default)]
    pub ends: Ends,
    /// How many runs of this task the machine does at a time.
    pub concurrency: u32,
    /// Who asked, for the machine's own log.
    pub requested_by: String,
    /// The root runner's nonce for this run. Without one, an order that needs root starts nothing
    /// there: the runner answers it with a nonce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
}

/// End a run; one that the agent does not know is refused from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// Which machine.
    pub pi: PiId,
    /// Which run.
    pub run: RunId,
    /// Which session of the agent.
    pub session: Session,
}

/// The controller has registered a machine's secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollOrder {
    /// Which machine.
    pub pi: PiId,
    /// The nonce of its request.
    pub nonce: String,
    /// The secret that was registered, as the SHA-256 of its text, in hexadecimal.
    pub secret_sha256: String,
}

/// A joining machine's request: the payload of `$pistat/enroll/<pi>/request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The SHA-256 of its new secret's text, in hexadecimal. The secret itself never travels before
    /// it is used.
    pub secret_sha256: String,
    /// A random value that the answer repeats.
    pub nonce: String,
    /// The board's serial number.
    #[serde(default)]
    pub serial: Option<String>,
    /// The agent's label.
    #[serde(default)]
    pub label: Option<String>,
}

/// The answer to a joining machine: the payload of `$pistat/enroll/<pi>/response`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EnrollAnswer {
    /// It is registered: a signed [`EnrollOrder`].
    Accepted(SignedOrder),
    /// It is not.
    Refused {
        /// A message for the person who set up the machine.
        error: String,
        /// The nonce of the request, so that an old refusal is not taken for a new one.
        nonce: String,
    },
}

/// The controller's public key as `controller/key` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// The Ed25519 public key, base64.
    pub key: PublicKey,
    /// Its name in orders.
    pub key_id: String,
    /// Its fingerprint, as in join tokens.
    pub fingerprint: String,
    /// Whether machines enrol with the controller; with an external broker they only pin its key.
    /// Left out where they do.
    #[serde(default = "enrols", skip_serializing_if = "Clone::clone")]
    pub enrols: bool,
}

fn enrols() -> bool {
    true
}

/// Why an order was refused.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// It is not an order at all.
    #[error("it is not a signed order: {0}")]
    Envelope(#[from] DecodeError),
    /// Its signature is not by the pinned key.
    #[error("its signature is not by the controller that this machine trusts")]
    Signature,
    /// It is signed but not understood, for example by an older agent.
    #[error("it is signed, but this agent does not understand it: {0}")]
    Payload(serde_json::Error),
    /// It is for another machine.
    #[error("it is for machine {0}")]
    OtherMachine(PiId),
    /// It is for an earlier session.
    #[error("it is for another session of this agent: it was sent before this connection, or it is a replay")]
    OtherSession,
    /// It came on the topic of another run or of another kind.
    #[error("it came on a topic that is not its own")]
    OtherTopic,
}

/// An order whose signature has been verified. Only [`PublicKey::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The order.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// The order itself; it is no longer marked as verified.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Verified<ExecuteOrder> {
    /// Accepts the order if it is for this machine, this session and this topic's run.
    ///
    /// # Errors
    /// It is for another.
    pub fn accept(self, pi: &PiId, session: &Session, run: RunId) -> Result<Self, OrderError> {
        check_address((&self.0.pi, &self.0.session, self.0.run), (pi, session, run))?;
        Ok(self)
    }
}

impl Verified<CancelOrder> {
    /// Accepts the order if it is for this machine, this session and this topic's run.
    ///
    /// # Errors
    /// It is for another.
    pub fn accept(self, pi: &PiId, session: &Session, run: RunId) -> Result<Self, OrderError> {
        check_address((&self.0.pi, &self.0.session, self.0.run), (pi, session, run))?;
        Ok(self)
    }
}

fn check_address(order: (&PiId, &Session, RunId), own: (&PiId, &Session, RunId)) -> Result<(), OrderError> {
    if order.0 != own.0 {
        return Err(OrderError::OtherMachine(order.0.clone()));
    }
    if order.1 != own.1 {
        return Err(OrderError::OtherSession);
    }
    if order.2 == own.2 { Ok(()) } else { Err(OrderError::OtherTopic) }
}

/// The three kinds of verified orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifiedOrder {
    /// Start a process.
    Execute(Verified<ExecuteOrder>),
    /// End a run.
    Cancel(Verified<CancelOrder>),
    /// A machine has been enrolled.
    Enroll(Verified<EnrollOrder>),
}

/// The controller's private key.
pub struct ControllerKey(SigningKey);

impl ControllerKey {
    /// From its 32 secret bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs an order. The caller vouches that the catalogue approved it.
    pub fn sign(&self, order: &Order) -> SignedOrder {
        let payload = String::from_utf8(crate::codec::encode(order)).unwrap_or_default();
        let signature = BASE64.encode(self.0.sign(payload.as_bytes()).to_bytes());
        SignedOrder { payload, key_id: self.public().key_id(), signature }
    }
}

impl std::fmt::Debug for ControllerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ControllerKey({}, ***)", self.public().key_id())
    }
}

/// The controller's public key, which an agent pins when it enrols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// SHA-256 of the key's 32 bytes, base64url without padding: what a join token carries.
    pub fn fingerprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.0.as_bytes()))
    }

    /// The first characters of the fingerprint: names the key in orders.
    pub fn key_id(&self) -> String {
        self.fingerprint().chars().take(16).collect()
    }

    /// What `controller/key` shows of a controller with an embedded broker.
    pub fn view(&self) -> KeyView {
        KeyView { key: self.clone(), key_id: self.key_id(), fingerprint: self.fingerprint(), enrols: true }
    }

    /// Verifies an order: first the signature, and only then is the text parsed.
    ///
    /// # Errors
    /// The envelope is malformed, the signature is not by this key, or the text is not understood.
    pub fn verify(&self, envelope: &[u8]) -> Result<VerifiedOrder, OrderError> {
        let envelope: SignedOrder = crate::codec::decode(envelope)?;
        self.verify_signed(&envelope)
    }

    /// Verifies an order whose envelope has been read already.
    ///
    /// # Errors
    /// The signature is not by this key, or the text is not understood.
    pub fn verify_signed(&self, order: &SignedOrder) -> Result<VerifiedOrder, OrderError> {
        let signature = BASE64.decode(&order.signature).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let signature = ed25519_dalek::Signature::from_bytes(&signature.ok_or(OrderError::Signature)?);
        self.0.verify_strict(order.payload.as_bytes(), &signature).map_err(|_| OrderError::Signature)?;
        Ok(match serde_json::from_str(&order.payload).map_err(OrderError::Payload)? {
            Order::Execute(order) => VerifiedOrder::Execute(Verified(order)),
            Order::Cancel(order) => VerifiedOrder::Cancel(Verified(order)),
            Order::Enroll(order) => VerifiedOrder::Enroll(Verified(order)),
        })
    }
}

impl TryFrom<String> for PublicKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        key.map(Self).ok_or("an Ed25519 public key is 32 bytes in base64")
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        BASE64.encode(key.0.as_bytes())
    }
}

/// A join token: `<random>.<fingerprint of the controller's key>`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The secret part: the MQTT password of a joining machine.
    pub secret: String,
    /// The fingerprint by which the machine believes the controller's key.
    pub fingerprint: String,
}

impl std::str::FromStr for JoinToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        match text.trim().split_once('.') {
            Some((secret, fingerprint))
                if secret.len() >= 32 && fingerprint.len() == 43 && word(secret) && word(fingerprint) =>
            {
                Ok(Self { secret: secret.into(), fingerprint: fingerprint.into() })
            }
            _ => Err("a join token is `<random>.<fingerprint>`; `pistat join-token show` on the controller prints it"),
        }
    }
}

impl std::fmt::Display for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.secret, self.fingerprint)
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinToken(***.{})", self.fingerprint)
    }
}

/// A secret of 256 random bits as the text that people carry around: base64url without padding, 43
/// characters.
///
/// It never begins with `-`, which a command line would take for a flag; that costs less than a
/// twentieth of a bit.
pub fn secret_text(bits: [u8; 32]) -> String {
    let text = URL_SAFE_NO_PAD.encode(bits);
    match text.strip_prefix('-') {
        Some(rest) => format!("0{rest}"),
        None => text,
    }
}

/// What is stored of a secret: the SHA-256 of its text, in lower-case hexadecimal.
pub fn secret_sha256(secret: &str) -> String {
    hex(&sha256(secret.as_bytes()))
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 bytes from 64 hexadecimal digits.
pub fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

const _: () = assert!(MAX_PAYLOAD_BYTES > 4 * 1024, "an order must fit into a payload");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order() -> ExecuteOrder {
        ExecuteOrder {
            pi: "pi-1".parse().unwrap(),
            run: RunId::from_parts(1, [1; 10]),
            session: Session::from_random([1; 16]),
            task: "uptime".parse().unwrap(),
            argv: vec!["uptime".into()],
            timeout_milliseconds: 60_000,
            grace_milliseconds: 5_000,
            environment: BTreeMap::new(),
            working_directory: None,
            root: false,
            ends: Ends::Exit,
            concurrency: 1,
            requested_by: "admin".into(),
            nonce: None,
        }
    }

    fn key() -> ControllerKey {
        ControllerKey::from_secret(&[42; 32])
    }

    #[test]
    fn a_signed_order_verifies_and_begins_with_its_kind() {
        let signed = key().sign(&Order::Execute(order()));
        assert!(signed.payload.starts_with(r#"{"kind":"execute","pi":"pi-1","#), "{}", signed.payload);
        let VerifiedOrder::Execute(verified) = key().public().verify(&crate::codec::encode(&signed)).unwrap() else {
            panic!("an execute order")
        };
        assert_eq!(verified.get(), &order());
    }

    #[test]
    fn an_order_by_another_key_is_refused() {
        let signed = ControllerKey::from_secret(&[43; 32]).sign(&Order::Execute(order()));
        assert!(matches!(key().public().verify_signed(&signed), Err(OrderError::Signature)));
    }

    #[test]
    fn an_order_for_another_machine_session_or_run_is_refused() {
        let public = key().public();
        let verified = || match public.verify_signed(&key().sign(&Order::Execute(order()))).unwrap() {
            VerifiedOrder::Execute(order) => order,
            _ => panic!("an execute order"),
        };
        let (pi, session, run) = (order().pi, order().session, order().run);
        assert!(verified().accept(&pi, &session, run).is_ok());
        assert!(matches!(verified().accept(&"pi-2".parse().unwrap(), &session, run), Err(OrderError::OtherMachine(_))));
        assert!(matches!(verified().accept(&pi, &Session::from_random([2; 16]), run), Err(OrderError::OtherSession)));
        assert!(matches!(verified().accept(&pi, &session, RunId::from_parts(2, [1; 10])), Err(OrderError::OtherTopic)));
    }

    #[test]
    fn join_tokens_are_read_and_written() {
        let token = JoinToken { secret: secret_text([7; 32]), fingerprint: key().public().fingerprint() };
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        for bad in ["", "a.b", "no-dot", &format!("{}.", token.secret)] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad:?}");
        }
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn a_secret_is_never_taken_for_a_flag() {
        for first in 0..=255 {
            let mut bits = [255; 32];
            bits[0] = first;
            let text = secret_text(bits);
            assert!(text.len() == 43 && !text.starts_with('-'), "{text}");
        }
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        let sum = sha256(b"abc");
        assert_eq!(parse_sha256(&hex(&sum)), Some(sum));
        assert_eq!(hex(&sum), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(parse_sha256("xyz"), None);
    }

    proptest! {
        #[test]
        fn no_altered_byte_passes(position in 0usize..4096, flip in 1u8..=255) {
            let mut bytes = crate::codec::encode(&key().sign(&Order::Execute(order())));
            let position = position % bytes.len();
            bytes[position] ^= flip;
            if let Ok(VerifiedOrder::Execute(verified)) = key().public().verify(&bytes) {
                // Only bytes outside the signed text may differ: the key's name is a hint, not part
                // of the proof.
                prop_assert_eq!(verified.get(), &order());
            }
        }

        #[test]
        fn no_random_bytes_are_an_order(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(key().public().verify(&bytes).is_err());
        }
    }
}
