//! How a machine comes to believe its controller, and the controller it.
//!
//! The new secret is on disk before it is registered. The controller's key is believed only by the
//! fingerprint in the join token, and the answer only by that key. A credential in force stays in
//! force until another has been answered for. With an external broker there is nothing to register:
//! only the key is pinned.

mod conversation;

use std::{path::Path, time::Duration};

use pistat_protocol::{
    codec::encode,
    id::PiId,
    order::{EnrollRequest, JoinToken, PublicKey},
    topic::Topic,
};
use pistat_support::{backoff::Backoff, mqtt_url::Login, random};
use rumqttc::{ConnectionError, QoS};
use tokio::time::{Instant, sleep_until};

use self::conversation::Conversation;
use crate::{
    credential::{Credential, CredentialError},
    mqtt::{Endpoint, Link, LinkEvent, MOST_BACKOFF, REFUSED_WAIT, Troubles, describe, is_refusal},
    waiting::Waiting,
};

/// The request is repeated until it is answered.
const REPEAT: Duration = Duration::from_secs(3);

/// How long the controller's key may take, which tells whether to ask at all.
const KEY_COMES: Duration = Duration::from_millis(500);

/// How long an attempt to join again may take beside other things to do.
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
         the agent once with --token-file FILE"
    )]
    NoToken,
    /// The credential is for another name.
    #[error(
        "this machine is enrolled as {theirs}, not as {ours}: start it with --pi-id {theirs}, or once with --token-file to enrol it as \
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

/// How an enrolled machine whose credentials are refused joins again with the token that it was
/// started with.
///
/// The secret stays the same: for a machine that was reset this is its one new enrolment, for one
/// that is still known it changes nothing.
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
        let mut waiting = Waiting::begin(endpoint.missing(None));
        let joining = enrolment.try_to_join(&self.token, &self.credential, false, &mut waiting);
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

/// The credential of this machine with its pinned key; joins with the token where that is needed,
/// for as long as it takes.
///
/// # Errors
/// There is no token to join with, or the state folder cannot be used.
pub async fn enroll(enrolment: &Enrolment<'_>) -> Result<(Credential, PublicKey), EnrollError> {
    if let Some(enrolled) = enrolment.already_enrolled()? {
        return Ok(enrolled);
    }
    let token = enrolment.token.ok_or(EnrollError::NoToken)?;
    let credential = enrolment.prepare()?;
    let (key, anonymous) = enrolment.join(token, &credential).await;
    let credential = Credential { controller_key: Some(key.clone()), anonymous, ..credential };
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
            // On a copied card the same name would be two machines: only another name may be
            // enrolled here.
            return Err(error.into());
        }
        let Some(key) = credential.controller_key.clone() else { return Ok(None) };
        if self.token.is_some_and(|token| token.fingerprint != key.fingerprint()) {
            tracing::warn!(pi = %self.pi, "the join token is for another controller than the one that was trusted: enrolling anew");
            return Ok(None);
        }
        Ok(Some((credential, key)))
    }

    /// A new secret, on disk; the one of an interrupted attempt is used again, since it may be
    /// registered already.
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

    /// Tries until it works. Returns the controller's key, and whether the broker lets this machine
    /// in without credentials only.
    async fn join(&self, token: &JoinToken, credential: &Credential) -> (PublicKey, bool) {
        let mut backoff = Backoff::new(MOST_BACKOFF);
        let mut troubles = Troubles::default();
        let mut waiting = Waiting::begin(self.endpoint.missing(None));
        let mut anonymous = false;
        loop {
            let trouble = match self.try_to_join(token, credential, anonymous, &mut waiting).await {
                Ok(key) => return (key, anonymous),
                Err(trouble) => trouble,
            };
            // The controller's own broker knows the token. Another's may let in whoever shows no
            // credentials, and refuse those that it does not know.
            let is_refused = matches!(&trouble, Trouble::Connection(error) if is_refusal(error));
            anonymous = is_refused && !anonymous && self.endpoint.address().login.is_none();
            if anonymous {
                continue;
            }
            let (sentence, wait) = self.explain(trouble, &mut backoff);
            waiting.update(format!("an enrolment: {sentence}"));
            troubles.log(&sentence, wait);
            tokio::time::sleep(wait).await;
        }
    }

    fn explain(&self, trouble: Trouble, backoff: &mut Backoff) -> (String, Duration) {
        let address = self.endpoint.address();
        match trouble {
            Trouble::Refused(reason) => (format!("{address} refuses to enrol this machine: {reason}"), REFUSED_WAIT),
            Trouble::Connection(error) if is_refusal(&error) => {
                let (what, hint) = if address.login.is_some() {
                    ("the user or password of its address", "both are those that this broker gave this machine")
                } else {
                    (
                        "the join token",
                        "`pistat join-token show` on the controller prints the one in force; a machine that is enrolled already needs \
                         `pistat agent reset` first; an external broker's own user and password are written into the address",
                    )
                };
                (format!("{address} refuses {what}: {hint}"), REFUSED_WAIT)
            }
            Trouble::Connection(error) => {
                (format!("no connection to {address}: {}", describe(&error)), backoff.next(random::byte()))
            }
        }
    }

    async fn try_to_join(
        &self,
        token: &JoinToken,
        credential: &Credential,
        anonymous: bool,
        waiting: &mut Waiting,
    ) -> Result<PublicKey, Trouble> {
        let topics = self.endpoint.topics();
        // The controller's own broker lets nobody in without credentials.
        let pins_only = anonymous || self.endpoint.address().login.is_some();
        let login = Login { user: self.pi.to_string(), password: Some(token.secret.clone()) };
        let options = self.endpoint.options(&format!("pistat-join-{}", self.pi), (!anonymous).then_some(&login));
        let mut filters = vec![(topics.format(&Topic::ControllerKey), 1)];
        if !pins_only {
            filters.push((topics.format(&Topic::EnrollResponse(self.pi.clone())), 1));
        }
        let mut link = Link::open(options, filters);
        let mut conversation = Conversation::new(token, credential, pins_only);
        let started = Instant::now();
        let mut ask_at: Option<Instant> = None;
        let key = loop {
            tokio::select! {
                event = link.events.recv() => match event {
                    Some(LinkEvent::Ready { refused }) => {
                        ask_at = Some(Instant::now() + KEY_COMES);
                        conversation.refuses_topics(!refused.is_empty());
                        *waiting = Waiting::begin(conversation.what_is_missing(self.endpoint));
                    }
                    Some(LinkEvent::Message { topic, payload, .. }) => {
                        if let Some(key) = conversation.hear(topics.parse(&topic), &payload)? {
                            break key;
                        }
                        waiting.update(conversation.what_is_missing(self.endpoint));
                        if conversation.key_has_come() {
                            ask_at = ask_at.map(|_| Instant::now());
                        }
                    }
                    Some(LinkEvent::Acknowledged) => {}
                    Some(LinkEvent::Lost(error)) => {
                        *waiting = Waiting::begin(self.endpoint.missing(None));
                        return Err(Trouble::Connection(error));
                    }
                    None => return Err(Trouble::Connection(Box::new(ConnectionError::RequestsDone))),
                },
                () = sleep_until(ask_at.unwrap_or(started)), if ask_at.is_some() => {
                    ask_at = Some(Instant::now() + REPEAT);
                    if conversation.is_to_ask() {
                        self.ask(&link, &conversation.request(self.label));
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
