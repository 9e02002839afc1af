//! What a joining machine has heard so far, and when it believes it.

use pistat_protocol::{
    codec::decode,
    id::PiId,
    order::{
        EnrollAnswer, EnrollRequest, JoinToken, KeyView, OrderError, PublicKey, SignedOrder, VerifiedOrder,
        secret_sha256, secret_text,
    },
    topic::Topic,
};

use pistat_support::random::spread;

use super::Trouble;
use crate::{credential::Credential, mqtt::Endpoint};

/// What has been heard so far. Pure.
#[expect(clippy::struct_excessive_bools, reason = "four independent facts")]
pub(super) struct Conversation<'a> {
    token: &'a JoinToken,
    pi: PiId,
    serial: Option<String>,
    secret_sha256: String,
    nonce: String,
    pins_only: bool,
    key: Option<PublicKey>,
    key_was_known: bool,
    strange_key: bool,
    topics_refused: bool,
    answer: Option<SignedOrder>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(token: &'a JoinToken, credential: &Credential, pins_only: bool) -> Self {
        Self {
            token,
            pi: credential.pi.clone(),
            serial: credential.serial.clone(),
            secret_sha256: secret_sha256(&credential.secret),
            // It only tells an old answer from a new one; without randomness the secret's own sum
            // does.
            nonce: secret_text(spread()),
            pins_only,
            key: None,
            key_was_known: false,
            strange_key: false,
            topics_refused: false,
            answer: None,
        }
    }

    pub(super) fn request(&self, label: Option<&str>) -> EnrollRequest {
        EnrollRequest {
            secret_sha256: self.secret_sha256.clone(),
            nonce: self.nonce.clone(),
            serial: self.serial.clone(),
            label: label.map(str::to_owned),
        }
    }

    /// Whether the controller's key has come since this was last asked.
    pub(super) fn key_has_come(&mut self) -> bool {
        let is_known = self.key.is_some();
        is_known && !std::mem::replace(&mut self.key_was_known, is_known)
    }

    /// Takes a message; the controller's key when everything is proven.
    pub(super) fn hear(&mut self, topic: Option<Topic>, payload: &[u8]) -> Result<Option<PublicKey>, Trouble> {
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
            Ok(view) if view.key.fingerprint() == self.token.fingerprint => {
                // On a broker that is not its own the controller enrols nobody.
                self.pins_only |= !view.enrols;
                self.key = Some(view.key);
            }
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

    /// Whether the broker has refused the topics that an enrolment needs.
    pub(super) fn refuses_topics(&mut self, refused: bool) {
        self.topics_refused = refused;
    }

    /// Whether to ask the controller to enrol this machine.
    pub(super) fn is_to_ask(&self) -> bool {
        !self.pins_only
    }

    /// What the enrolment waits for, with what to do about it.
    pub(super) fn what_is_missing(&self, endpoint: &Endpoint) -> String {
        match (&self.key, self.strange_key) {
            (Some(_), _) => format!(
                "the controller at {} to answer the enrolment, which is repeated; its log tells more; if this broker is not the controller's \
                 own, write the user and password that it gave this machine into the address",
                endpoint.address()
            ),
            (None, true) => "the controller: the key that this broker shows is not the one of the join token, so the token is another controller's, \
                             or something pretends to be the controller; nothing is trusted"
                .to_owned(),
            (None, false) if self.topics_refused => format!("an enrolment: {}", endpoint.other_prefix()),
            (None, false) => endpoint.no_controller(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pistat_protocol::{
        codec::encode,
        order::{ControllerKey, EnrollOrder, Order},
    };
    use pistat_support::mqtt_url::MqttUrl;

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
    fn a_controller_that_enrols_nobody_on_this_broker_is_believed_by_its_key_alone() {
        let bench = Bench::new();
        let mut conversation = Conversation::new(&bench.token, &bench.credential, false);
        assert!(conversation.is_to_ask());
        let stranger = KeyView { enrols: false, ..ControllerKey::from_secret(&[8; 32]).public().view() };
        assert!(matches!(conversation.hear(Some(Topic::ControllerKey), &encode(&stranger)), Ok(None)));
        assert!(conversation.is_to_ask(), "another's word counts for nothing");
        let view = KeyView { enrols: false, ..bench.controller.public().view() };
        assert!(matches!(conversation.hear(Some(Topic::ControllerKey), &encode(&view)), Ok(Some(_))));
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let bench = Bench::new();
        let topics = pistat_protocol::topic::Topics::new("other").unwrap();
        let endpoint = Endpoint::new(MqttUrl::controller("mqtt://broker:1883").unwrap(), topics, None).unwrap();
        let mut conversation = Conversation::new(&bench.token, &bench.credential, false);
        let missing = conversation.what_is_missing(&endpoint);
        assert!(missing.contains("no controller shows its key") && missing.contains("`other`"), "{missing}");
        conversation.refuses_topics(true);
        let missing = conversation.what_is_missing(&endpoint);
        assert!(missing.contains("refuses its topics") && missing.contains("set `prefix`"), "{missing}");
        let stranger = encode(&ControllerKey::from_secret(&[8; 32]).public().view());
        assert!(conversation.hear(Some(Topic::ControllerKey), &stranger).is_ok());
        assert!(conversation.what_is_missing(&endpoint).contains("nothing is trusted"));
        let key = encode(&bench.controller.public().view());
        assert!(conversation.hear(Some(Topic::ControllerKey), &key).is_ok());
        let missing = conversation.what_is_missing(&endpoint);
        assert!(missing.contains("mqtt://broker:1883") && missing.contains("user and password"), "{missing}");
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
