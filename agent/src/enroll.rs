//! How a machine comes to believe its controller, and the controller it (the contract's section 6).
//!
//! The new secret is on disk before it is registered. The controller's key is believed only by the fingerprint in the join token, and the answer
//! only by that key. A credential in force stays in force until another has been answered for. With an external broker there is
//! nothing to register: only the key is pinned.

use std::{path::Path, time::Duration};

use pistat_protocol::{
    codec::{decode, encode},
    id::PiId,
    order::{
        EnrollAnswer, EnrollRequest, JoinToken, KeyView, OrderError, PublicKey, SignedOrder, VerifiedOrder,
        secret_sha256, secret_text,
    },
    topic::Topic,
};
use rumqttc::{ConnectionError, QoS};
use tokio::time::{Instant, sleep_until};

use crate::{
    backoff::{Backoff, random_byte},
    connection::{Endpoint, Link, LinkEvent, MOST_BACKOFF, REFUSED_WAIT, Troubles, describe, is_refusal},
    credential::{Credential, CredentialError},
};

/// The request is repeated until it is answered.
const REPEAT: Duration = Duration::from_secs(3);

/// After so long without an answer, somebody is told what may be the matter.
const NO_ANSWER: Duration = Duration::from_secs(20);

/// Who is to be enrolled where.
pub struct Enrolment<'a> {
    /// The controller.
    pub endpoint: &'a Endpoint,
    /// The machine's name.
    pub pi: &'a PiId,
    /// Its label.
    pub label: Option<&'a str>,
    /// The board's serial number.
    pub serial: Option<String>,
    /// The join token, if one was given.
    pub token: Option<&'a JoinToken>,
    /// The state folder.
    pub folder: &'a Path,
}

/// Why a machine is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// There is neither a credential nor a token.
    #[error(
        "this machine is not enrolled yet and needs a join token: `pistat join-token show` on the controller prints it; start \
         the agent once with --token TOKEN (or --token-file FILE)"
    )]
    NoToken,
    /// The credential is for another name.
    #[error(
        "this machine is enrolled as {theirs}, not as {ours}: start it with --pi-id {theirs}, or once with --token to enrol it as \
         {ours} (`pistat join-token show` on the controller prints the token)"
    )]
    OtherName {
        /// The name in the credential.
        theirs: PiId,
        /// The name asked for.
        ours: PiId,
    },
    /// The credential cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

/// How an enrolled machine whose credentials are refused joins again with the token that it was started with.
///
/// The secret stays the same: for a machine that was reset this is its one new enrolment, for one that is still known it changes nothing.
#[derive(Debug, Clone)]
pub struct Rejoin {
    /// The token.
    pub token: JoinToken,
    /// The credential in force.
    pub credential: Credential,
    /// The machine's label.
    pub label: Option<String>,
}

impl Rejoin {
    /// Tries once.
    ///
    /// # Errors
    /// A sentence for the log.
    pub(crate) async fn attempt(&self, endpoint: &Endpoint) -> Result<(), String> {
        let enrolment = Enrolment {
            endpoint,
            pi: &self.credential.pi,
            label: self.label.as_deref(),
            serial: self.credential.serial.clone(),
            token: Some(&self.token),
            folder: Path::new(""),
        };
        let joining = enrolment.try_to_join(&self.token, &self.credential);
        match tokio::time::timeout(NO_ANSWER, joining).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(trouble)) => Err(enrolment.explain(trouble, &mut Backoff::new(MOST_BACKOFF)).0),
            Err(_) => Err(format!("{} does not answer the enrolment", endpoint.address())),
        }
    }
}

/// Why one attempt failed.
enum Trouble {
    Connection(Box<ConnectionError>),
    Refused(String),
}

/// The credential of this machine with its pinned key; joins with the token where that is needed, for as long as it takes.
///
/// # Errors
/// There is no token to join with, or the state folder cannot be used.
pub async fn enroll(enrolment: &Enrolment<'_>) -> Result<(Credential, PublicKey), EnrollError> {
    if let Some(enrolled) = enrolment.already_enrolled()? {
        return Ok(enrolled);
    }
    let token = enrolment.token.ok_or(EnrollError::NoToken)?;
    let credential = enrolment.prepare()?;
    let key = enrolment.join(token, &credential).await;
    let credential = Credential { controller_key: Some(key.clone()), ..credential };
    credential.save(enrolment.folder)?;
    Credential::discard_pending(enrolment.folder);
    tracing::info!(pi = %enrolment.pi, key = key.key_id(), "enrolled");
    Ok((credential, key))
}

impl Enrolment<'_> {
    /// The credential in force, unless the token asks for another.
    fn already_enrolled(&self) -> Result<Option<(Credential, PublicKey)>, EnrollError> {
        let Some(credential) = Credential::load(self.folder)? else { return Ok(None) };
        if credential.pi != *self.pi {
            let other = EnrollError::OtherName { theirs: credential.pi, ours: self.pi.clone() };
            return if self.token.is_some() { Ok(None) } else { Err(other) };
        }
        if let Err(error) = credential.check_board(self.folder, self.serial.as_deref()) {
            // On a copied card the same name would be two machines: only another name may be enrolled here.
            return Err(error.into());
        }
        let Some(key) = credential.controller_key.clone() else { return Ok(None) };
        if self.token.is_some_and(|token| token.fingerprint != key.fingerprint()) {
            tracing::warn!(pi = %self.pi, "the join token is for another controller than the one that was trusted: enrolling anew");
            return Ok(None);
        }
        Ok(Some((credential, key)))
    }

    /// A new secret, on disk; the one of an interrupted attempt is used again, since it may be registered already.
    fn prepare(&self) -> Result<Credential, CredentialError> {
        let pending = Credential::load_pending(self.folder)?;
        let own = |pending: &Credential| pending.pi == *self.pi && pending.serial == self.serial;
        let credential = match pending.filter(own) {
            Some(pending) => pending,
            None => Credential::generate(self.pi.clone(), self.serial.clone())?,
        };
        credential.save_pending(self.folder)?;
        Ok(credential)
    }

    /// Tries until it works.
    async fn join(&self, token: &JoinToken, credential: &Credential) -> PublicKey {
        let mut backoff = Backoff::new(MOST_BACKOFF);
        let mut troubles = Troubles::default();
        loop {
            let trouble = match self.try_to_join(token, credential).await {
                Ok(key) => return key,
                Err(trouble) => trouble,
            };
            let (sentence, wait) = self.explain(trouble, &mut backoff);
            troubles.log(&sentence, wait);
            tokio::time::sleep(wait).await;
        }
    }

    fn explain(&self, trouble: Trouble, backoff: &mut Backoff) -> (String, Duration) {
        let address = self.endpoint.address();
        match trouble {
            Trouble::Refused(reason) => (format!("{address} refuses to enrol this machine: {reason}"), REFUSED_WAIT),
            Trouble::Connection(error) if is_refusal(&error) => {
                let what =
                    if address.login.is_some() { "the user or password of its address" } else { "the join token" };
                let hint = "`pistat join-token show` on the controller prints the one in force; a machine that is enrolled already \
                            needs `pistat agent reset` first";
                (format!("{address} refuses {what}: {hint}"), REFUSED_WAIT)
            }
            Trouble::Connection(error) => {
                (format!("no connection to {address}: {}", describe(&error)), backoff.next(random_byte()))
            }
        }
    }

    async fn try_to_join(&self, token: &JoinToken, credential: &Credential) -> Result<PublicKey, Trouble> {
        let topics = self.endpoint.topics();
        let pins_only = self.endpoint.address().login.is_some();
        let options = self.endpoint.options(&format!("pistat-join-{}", self.pi), self.pi.as_str(), &token.secret);
        let mut filters = vec![(topics.format(&Topic::ControllerKey), 1)];
        if !pins_only {
            filters.push((topics.format(&Topic::EnrollResponse(self.pi.clone())), 1));
        }
        let mut link = Link::open(options, filters);
        let mut conversation = Conversation::new(token, credential, pins_only);
        let started = Instant::now();
        let mut ask_at: Option<Instant> = None;
        let mut told = false;
        let key = loop {
            tokio::select! {
                event = link.events.recv() => match event {
                    Some(LinkEvent::Ready) => ask_at = Some(Instant::now()),
                    Some(LinkEvent::Message { topic, payload, .. }) => {
                        if let Some(key) = conversation.hear(topics.parse(&topic), &payload)? {
                            break key;
                        }
                    }
                    Some(LinkEvent::Acknowledged) => {}
                    Some(LinkEvent::Lost(error)) => return Err(Trouble::Connection(error)),
                    None => return Err(Trouble::Connection(Box::new(ConnectionError::RequestsDone))),
                },
                () = sleep_until(ask_at.unwrap_or(started)), if ask_at.is_some() => {
                    ask_at = Some(Instant::now() + REPEAT);
                    if !pins_only {
                        self.ask(&link, &conversation.request(self.label));
                    }
                    if !told && started.elapsed() >= NO_ANSWER {
                        told = true;
                        tracing::warn!("{}", conversation.what_is_missing());
                    }
                }
            }
        };
        link.disconnect().await;
        Ok(key)
    }

    fn ask(&self, link: &Link, request: &EnrollRequest) {
        let topic = self.endpoint.topics().format(&Topic::EnrollRequest(self.pi.clone()));
        if let Err(error) = link.client.try_publish(topic, QoS::AtLeastOnce, false, encode(request)) {
            tracing::debug!(%error, "the enrolment could not be asked for now; it will be");
        }
    }
}

/// What has been heard so far. Pure.
struct Conversation<'a> {
    token: &'a JoinToken,
    pi: PiId,
    serial: Option<String>,
    secret_sha256: String,
    nonce: String,
    pins_only: bool,
    key: Option<PublicKey>,
    strange_key: bool,
    answer: Option<SignedOrder>,
}

impl<'a> Conversation<'a> {
    fn new(token: &'a JoinToken, credential: &Credential, pins_only: bool) -> Self {
        let mut bits = [0; 32];
        // The nonce only tells an old answer from a new one; without randomness the secret's own sum does.
        let _ = getrandom::fill(&mut bits);
        Self {
            token,
            pi: credential.pi.clone(),
            serial: credential.serial.clone(),
            secret_sha256: secret_sha256(&credential.secret),
            nonce: secret_text(bits),
            pins_only,
            key: None,
            strange_key: false,
            answer: None,
        }
    }

    fn request(&self, label: Option<&str>) -> EnrollRequest {
        EnrollRequest {
            secret_sha256: self.secret_sha256.clone(),
            nonce: self.nonce.clone(),
            serial: self.serial.clone(),
            label: label.map(str::to_owned),
        }
    }

    /// Takes a message; the controller's key when everything is proven.
    fn hear(&mut self, topic: Option<Topic>, payload: &[u8]) -> Result<Option<PublicKey>, Trouble> {
        match topic {
            Some(Topic::ControllerKey) => self.hear_key(payload),
            Some(Topic::EnrollResponse(pi)) if pi == self.pi => self.hear_answer(payload)?,
            _ => {}
        }
        let Some(key) = &self.key else { return Ok(None) };
        if self.pins_only {
            return Ok(Some(key.clone()));
        }
        let Some(answer) = &self.answer else { return Ok(None) };
        match self.check(key, answer) {
            Ok(true) => Ok(Some(key.clone())),
            Ok(false) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "an answer to the enrolment cannot be trusted");
                self.answer = None;
                Ok(None)
            }
        }
    }

    fn hear_key(&mut self, payload: &[u8]) {
        match decode::<KeyView>(payload) {
            Ok(view) if view.key.fingerprint() == self.token.fingerprint => self.key = Some(view.key),
            Ok(_) => self.strange_key = true,
            Err(error) => tracing::warn!(%error, "the controller's key was not understood"),
        }
    }

    fn hear_answer(&mut self, payload: &[u8]) -> Result<(), Trouble> {
        match decode::<EnrollAnswer>(payload) {
            Ok(EnrollAnswer::Accepted(order)) => self.answer = Some(order),
            Ok(EnrollAnswer::Refused { error, nonce }) if nonce == self.nonce => return Err(Trouble::Refused(error)),
            Ok(EnrollAnswer::Refused { .. }) => {}
            Err(error) => tracing::warn!(%error, "an answer to the enrolment was not understood"),
        }
        Ok(())
    }

    /// Whether the answer is by this key and about this request.
    fn check(&self, key: &PublicKey, answer: &SignedOrder) -> Result<bool, OrderError> {
        match key.verify_signed(answer)? {
            VerifiedOrder::Enroll(order) => {
                let order = order.get();
                Ok(order.pi == self.pi && order.nonce == self.nonce && order.secret_sha256 == self.secret_sha256)
            }
            VerifiedOrder::Execute(_) | VerifiedOrder::Cancel(_) => Err(OrderError::OtherTopic),
        }
    }

    fn what_is_missing(&self) -> &'static str {
        match (&self.key, self.strange_key) {
            (Some(_), _) => "the controller does not answer the enrolment; it is repeated",
            (None, true) => {
                "the key that this broker shows is not the one of the join token: the token is another controller's, or somebody \
                 pretends to be the controller; nothing is trusted"
            }
            (None, false) => "no controller has shown its key on this broker yet; is this the address of its broker?",
        }
    }
}

#[cfg(test)]
mod tests {
    use pistat_protocol::order::{ControllerKey, EnrollOrder, Order};

    use super::*;

    struct Bench {
        controller: ControllerKey,
        token: JoinToken,
        credential: Credential,
    }

    impl Bench {
        fn new() -> Self {
            let controller = ControllerKey::from_secret(&[7; 32]);
            let token = JoinToken { secret: secret_text([1; 32]), fingerprint: controller.public().fingerprint() };
            let credential = Credential::generate("pi-1".parse().unwrap(), Some("1".into())).unwrap();
            Self { controller, token, credential }
        }

        fn answer(&self, by: &ControllerKey, change: impl FnOnce(&mut EnrollOrder), nonce: &str) -> Vec<u8> {
            let secret_sha256 = secret_sha256(&self.credential.secret);
            let mut order = EnrollOrder { pi: self.credential.pi.clone(), nonce: nonce.to_owned(), secret_sha256 };
            change(&mut order);
            encode(&EnrollAnswer::Accepted(by.sign(&Order::Enroll(order))))
        }
    }

    fn response() -> Topic {
        Topic::EnrollResponse("pi-1".parse().unwrap())
    }

    #[test]
    fn only_the_controller_of_the_token_can_answer() {
        let bench = Bench::new();
        let stranger = ControllerKey::from_secret(&[8; 32]);
        let mut conversation = Conversation::new(&bench.token, &bench.credential, false);
        let nonce = conversation.nonce.clone();
        let mut hear =
            |topic, payload: Vec<u8>| conversation.hear(topic, &payload).unwrap_or_else(|_| panic!("no refusal"));
        assert_eq!(hear(Some(Topic::ControllerKey), encode(&stranger.public().view())), None);
        assert_eq!(hear(Some(response()), bench.answer(&stranger, |_| {}, &nonce)), None);
        assert_eq!(hear(Some(Topic::ControllerKey), encode(&bench.controller.public().view())), None);
        assert_eq!(hear(Some(response()), bench.answer(&stranger, |_| {}, &nonce)), None, "another key");
        assert_eq!(hear(Some(response()), bench.answer(&bench.controller, |_| {}, "old")), None, "another nonce");
        let foreign = |order: &mut EnrollOrder| order.pi = "pi-2".parse().unwrap();
        assert_eq!(hear(Some(response()), bench.answer(&bench.controller, foreign, &nonce)), None, "another machine");
        let altered = |order: &mut EnrollOrder| order.secret_sha256 = secret_sha256("x");
        assert_eq!(hear(Some(response()), bench.answer(&bench.controller, altered, &nonce)), None, "another secret");
        let key = hear(Some(response()), bench.answer(&bench.controller, |_| {}, &nonce));
        assert_eq!(key, Some(bench.controller.public()));
    }

    #[test]
    fn the_answer_may_come_before_the_key() {
        let bench = Bench::new();
        let mut conversation = Conversation::new(&bench.token, &bench.credential, false);
        let answer = bench.answer(&bench.controller, |_| {}, &conversation.nonce);
        assert!(matches!(conversation.hear(Some(response()), &answer), Ok(None)));
        let key = encode(&bench.controller.public().view());
        assert!(matches!(conversation.hear(Some(Topic::ControllerKey), &key), Ok(Some(_))));
    }

    #[test]
    fn with_an_external_broker_the_key_is_enough() {
        let bench = Bench::new();
        let mut conversation = Conversation::new(&bench.token, &bench.credential, true);
        let key = encode(&bench.controller.public().view());
        assert!(matches!(conversation.hear(Some(Topic::ControllerKey), &key), Ok(Some(_))));
    }

    #[test]
    fn a_refusal_counts_only_for_this_request() {
        let bench = Bench::new();
        let mut conversation = Conversation::new(&bench.token, &bench.credential, false);
        let refusal = |nonce: &str| encode(&EnrollAnswer::Refused { error: "no".into(), nonce: nonce.to_owned() });
        assert!(matches!(conversation.hear(Some(response()), &refusal("old")), Ok(None)));
        let nonce = conversation.nonce.clone();
        assert!(matches!(conversation.hear(Some(response()), &refusal(&nonce)), Err(Trouble::Refused(_))));
    }
}
