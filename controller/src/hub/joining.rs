//! How machines join: join tokens are made, listed and removed, and an enrolment is decided,
//! stored, and then answered.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pistat_protocol::{
    api::{JoinTokenInfo, NewJoinToken},
    codec::{decode, encode},
    dashboard::{Change, EventKind, Severity},
    id::{PiId, Tag, TokenName},
    order::{EnrollAnswer, EnrollOrder, EnrollRequest, JoinToken, Order},
    time::Timestamp,
    topic::Topic,
};
use pistat_support::random::new_secret;

use super::{
    Hub, PendingAccess, PendingCommit,
    ask::{Refused, Reply},
    lanes::Sender,
    people::{access_line, lifetime},
    refuse,
    repeats::{Line, Repeated},
    tell,
};
use crate::{
    access::{AccessChange, AccessRefusal, Caller, JoinTokenRecord, SecretHash},
    bridge::Outgoing,
    fleet::Now,
    store::{Durability, MetadataPatch, Write},
};

/// How many join tokens there may be: each is compared with the password of every unknown client.
const MAX_JOIN_TOKENS: usize = 100;

/// In what time the default token lets in a bounded number of machines.
const QUOTA_TIME: Duration = Duration::from_secs(3600);

/// When machines joined with the default token, in the last hour.
#[derive(Default)]
pub(super) struct Quota(VecDeque<Instant>);

impl Quota {
    /// With the machines that joined within the hour before the start, by whichever token: that is
    /// not kept.
    pub(super) fn new(joined: impl Iterator<Item = Timestamp>, now: Now) -> Self {
        let age = |joined: Timestamp| now.wall.unix_milliseconds() - joined.unix_milliseconds();
        let ages = joined.filter_map(|joined| u64::try_from(age(joined)).ok()).map(Duration::from_millis);
        let mut ages: Vec<_> = ages.filter(|age| *age < QUOTA_TIME).collect();
        ages.sort_unstable();
        Self(ages.into_iter().rev().map(|age| now.monotonic.checked_sub(age).unwrap_or(now.monotonic)).collect())
    }

    /// Whether one more may join, of so many within an hour, while some are being let in.
    fn has_room(&mut self, pending: usize, per_hour: usize, now: Now) -> bool {
        let is_old = |joined: &Instant| now.monotonic.saturating_duration_since(*joined) >= QUOTA_TIME;
        while self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
        self.0.len() + pending < per_hour
    }

    fn note(&mut self, now: Now) {
        self.0.push_back(now.monotonic);
    }
}

/// A machine that is being enrolled.
pub(super) struct Joining {
    pub(super) pi: PiId,
    pub(super) nonce: String,
    pub(super) secret_sha256: String,
    pub(super) serial: Option<String>,
    /// By which token; a machine's own single-use token has no name.
    pub(super) token: Option<TokenName>,
}

impl Hub {
    pub(super) fn list_join_tokens(&self, reply: Reply<Vec<JoinTokenInfo>>) {
        let mut tokens: Vec<_> = self.access.join_tokens().map(JoinTokenRecord::view).collect();
        if self.access.join_token(&TokenName::default_token()).is_none() {
            tokens.insert(0, JoinTokenRecord::default_token(self.now.wall).view());
        }
        tell(reply, tokens);
    }

    pub(super) fn add_join_token(&mut self, caller: &Caller, token: NewJoinToken, reply: Reply<String>) {
        let NewJoinToken { name, uses, expires, mut tags } = token;
        if name == TokenName::default_token() || self.access.join_token(&name).is_some() {
            let text =
                format!("there is already a join token named {name}: choose another name, or remove that one first");
            return refuse(reply, Refused::conflict(text));
        }
        if let Err(refused) = self.check_settled(&name.change_key(), name.as_str()) {
            return refuse(reply, refused);
        }
        if self.access.join_tokens().count() >= MAX_JOIN_TOKENS {
            let text =
                format!("there are {MAX_JOIN_TOKENS} join tokens, which is as many as there may be: remove some");
            return refuse(reply, Refused::conflict(text));
        }
        if uses == Some(0) || tags.iter().any(|tag| tag.as_str() == "all") {
            let text =
                "a join token lets in at least one machine, and @all stands for every machine: it cannot be a tag";
            return refuse(reply, Refused::bad(text));
        }
        let lifetime = match expires.as_deref().map(lifetime).transpose() {
            Ok(lifetime) => lifetime,
            Err(sentence) => return refuse(reply, Refused::bad(sentence)),
        };
        let Ok(secret) = new_secret() else {
            return refuse(reply, Refused::unavailable("the system has no randomness"));
        };
        tags.sort();
        tags.dedup();
        let record = JoinTokenRecord {
            secret_sha256: Some(SecretHash::of(&secret)),
            expires_at: lifetime.map(|lifetime| self.now.wall.after(lifetime)),
            uses_left: uses,
            tags,
            name: name.clone(),
            ..JoinTokenRecord::default_token(self.now.wall)
        };
        let token = JoinToken { secret, fingerprint: self.key.public().fingerprint() }.to_string();
        let line = access_line(caller, Severity::Info, None, format!("made join token {name}"));
        let after = PendingAccess::Token { reply, token, admin: false };
        self.store_access(vec![AccessChange::PutJoinToken(record)], Some(line), after);
    }

    pub(super) fn remove_join_token(&mut self, caller: &Caller, name: &TokenName, reply: Reply<()>) {
        if let Err(refused) = self.check_settled(&name.change_key(), name.as_str()) {
            return refuse(reply, refused);
        }
        let change = if *name == TokenName::default_token() {
            // Its file stays; no machine joins with it until it is made anew.
            let known = self.access.join_token(name).cloned();
            let record = known.unwrap_or_else(|| JoinTokenRecord::default_token(self.now.wall));
            AccessChange::PutJoinToken(JoinTokenRecord { uses_left: Some(0), ..record })
        } else if self.access.join_token(name).is_some() {
            AccessChange::RemoveJoinToken(name.clone())
        } else {
            let text = format!("there is no join token named {name}; `pistat join-token list` shows them");
            return refuse(reply, Refused::missing(text));
        };
        let line = access_line(caller, Severity::Warning, None, format!("removed join token {name}"));
        self.store_access(vec![change], Some(line), PendingAccess::Done(reply));
    }

    /// The default token, unless it was removed.
    pub(super) fn show_join_token(&self, reply: Reply<JoinToken>) {
        if self.access.default_token_is_in_force(self.now.wall) {
            return tell(reply, self.join_token.clone());
        }
        refuse(
            reply,
            Refused::missing("the default join token was removed: `pistat join-token rotate` makes a new one"),
        );
    }

    /// A default token that was removed is in force again, with its new secret.
    pub(super) fn restore_default_token(&mut self) {
        if !self.access.default_token_is_in_force(self.now.wall) {
            let record = JoinTokenRecord::default_token(self.now.wall);
            self.store_access(vec![AccessChange::PutJoinToken(record)], None, PendingAccess::Returned);
        }
    }

    /// A machine that joins asks to be registered, with the token that the broker stamped the
    /// request with. It repeats itself until it is answered.
    pub(super) fn enrol(&mut self, pi: &PiId, payload: &Bytes, token: Option<&str>) {
        if payload.is_empty() || self.commits.is_changing(&pi.key()) {
            return;
        }
        let request: EnrollRequest = match decode(payload) {
            Ok(request) => request,
            Err(error) => return self.unreadable(pi, &error.to_string()),
        };
        // A machine's own single-use token has no name.
        let has_own_token = token == Some("");
        let named = self.check_name(pi);
        let decided = match named.and_then(|()| self.access.enrol(pi, &request, has_own_token, self.now.wall)) {
            Ok(None) => return self.answer_enrolment(pi, request.nonce, request.secret_sha256),
            Ok(Some(change)) => self.check_join_token(token).map(|token| (change, token)),
            Err(refusal) => Err(refusal),
        };
        match decided {
            Ok((change, token)) => {
                let EnrollRequest { nonce, secret_sha256, serial, .. } = request;
                self.begin_joining(change, Joining { pi: pi.clone(), nonce, secret_sha256, serial, token });
            }
            Err(refusal) => self.refuse_enrolment(pi, request.nonce, &refusal),
        }
    }

    fn refuse_enrolment(&mut self, pi: &PiId, nonce: String, refusal: &AccessRefusal) {
        let line = Line {
            kind: EventKind::Access,
            severity: Severity::Warning,
            pi: Some(pi.clone()),
            run: None,
            account: None,
            text: format!("enrolment refused: {refusal}"),
        };
        // What is refused to one token is one thing, however many machines it is refused to.
        let source = match refusal {
            AccessRefusal::TokenEnded(name) | AccessRefusal::TokenUsedUp(name) | AccessRefusal::TokenQuota(name, _) => {
                name.change_key()
            }
            _ => pi.key(),
        };
        self.repeated_event(Repeated::Enrolment, source, line);
        self.send_enrolment_answer(pi, &EnrollAnswer::Refused { error: refusal.to_string(), nonce });
    }

    /// The token by which one more machine may join; a machine's own single-use token has no name.
    fn check_join_token(&mut self, stamp: Option<&str>) -> Result<Option<TokenName>, AccessRefusal> {
        let Some(name) = stamp.filter(|stamp| !stamp.is_empty()).and_then(|stamp| stamp.parse::<TokenName>().ok())
        else {
            return Ok(None);
        };
        let pending = self.pending_joins(&name);
        match self.access.join_token(&name) {
            Some(token) => token.check(pending, self.now.wall)?,
            None if name == TokenName::default_token() => {}
            // It was removed a moment ago.
            None => return Err(AccessRefusal::TokenEnded(name)),
        }
        let per_hour = self.config.enrolment.per_hour;
        if name == TokenName::default_token() && !self.quota.has_room(pending, per_hour, self.now) {
            return Err(AccessRefusal::TokenQuota(name, per_hour));
        }
        Ok(Some(name))
    }

    /// How many machines are being let in by a token, and are not on the disk yet.
    fn pending_joins(&self, name: &TokenName) -> usize {
        let is_by_it = |after: &&PendingCommit| match after {
            PendingCommit::Tagged(_, joining) | PendingCommit::Access(_, _, PendingAccess::Enrolled(joining)) => {
                joining.token.as_ref() == Some(name)
            }
            _ => false,
        };
        self.commits.pending().filter(is_by_it).count()
    }

    /// Its tags are on the disk before the machine is let in: so it is never in without them,
    /// whatever ends the controller meanwhile.
    fn begin_joining(&mut self, change: AccessChange, joining: Joining) {
        let token = joining.token.as_ref().and_then(|name| self.access.join_token(name));
        let given: Vec<Tag> = token.map(|token| token.tags.clone()).unwrap_or_default();
        if given.is_empty() {
            return self.let_in(change, joining);
        }
        let mut tags = self.fleet.tags(&joining.pi).to_vec();
        tags.extend(given.iter().cloned());
        tags.sort();
        tags.dedup();
        self.commits.begin_change(joining.pi.key());
        let tagged = MetadataPatch { tags: Some(tags), confirmed: given, ..MetadataPatch::default() };
        self.commits.store(
            Durability::Rejectable,
            Write::Metadata(joining.pi.clone(), tagged.clone()),
            PendingCommit::Tagged(Box::new((tagged, change)), joining),
        );
    }

    /// The tags of a machine that joins are on the disk.
    pub(super) fn tagged(&mut self, tagged: &MetadataPatch, change: AccessChange, joining: Joining) {
        self.fleet.give(&joining.pi, tagged);
        self.names_are_given(&joining.pi, tagged);
        self.let_in(change, joining);
    }

    fn let_in(&mut self, change: AccessChange, joining: Joining) {
        let joined = joining.token.clone().map(|token| AccessChange::Joined(token, self.now.wall));
        let changes = std::iter::once(change).chain(joined).collect();
        self.store_access(changes, None, PendingAccess::Enrolled(joining));
    }

    pub(super) fn enrolled(&mut self, joining: Joining) {
        let Joining { pi, nonce, secret_sha256, serial, token } = joining;
        if token == Some(TokenName::default_token()) {
            self.quota.note(self.now);
        }
        self.name_is_taken(pi.as_str(), Some(&pi));
        if self.fleet.ensure(&pi, self.now) {
            self.announce_given(&pi);
        }
        if let Some(machine) = self.fleet.machine(&pi, false, self.now) {
            self.feed.push(Change::Machine { machine: Box::new(machine) });
        }
        let serial = serial.map(|serial| format!(" (serial {serial})")).unwrap_or_default();
        let token = token.map(|token| format!(" with the join token {token}")).unwrap_or_default();
        self.event(EventKind::Access, Severity::Info, Some(&pi), None, None, format!("enrolled{serial}{token}"));
        self.answer_enrolment(&pi, nonce, secret_sha256);
    }

    fn answer_enrolment(&mut self, pi: &PiId, nonce: String, secret_sha256: String) {
        let order = self.key.sign(&Order::Enroll(EnrollOrder { pi: pi.clone(), nonce, secret_sha256 }));
        self.send_enrolment_answer(pi, &EnrollAnswer::Accepted(order));
    }

    fn send_enrolment_answer(&mut self, pi: &PiId, answer: &EnrollAnswer) {
        let topic = self.topics.format(&Topic::EnrollResponse(pi.clone()));
        let message = Outgoing { topic, payload: encode(answer), qos: 1, retain: false, correlation: None };
        self.answer_to(Sender::Machine(pi.clone()), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_token_lets_in_so_many_within_an_hour_and_no_more() {
        let (mut quota, start) = (Quota::default(), Now::get());
        let at = |seconds| Now { monotonic: start.monotonic + Duration::from_secs(seconds), ..start };
        for second in 0..10 {
            assert!(quota.has_room(0, 10, at(second)), "{second}");
            quota.note(at(second));
        }
        assert!(!quota.has_room(0, 10, at(10)) && !quota.has_room(0, 10, at(3599)));
        assert!(quota.has_room(0, 10, at(3600)), "the first of them is an hour ago");
        quota.note(at(3600));
        assert!(!quota.has_room(0, 10, at(3600)));
    }

    #[test]
    fn what_joined_before_a_restart_and_what_is_being_let_in_counts_for_the_hour() {
        let start = Now::get();
        let ago = |seconds: i64| Timestamp::from_unix_milliseconds(start.wall.unix_milliseconds() - seconds * 1000);
        let mut quota = Quota::new([ago(4000), ago(10), ago(3000), ago(-50)].into_iter(), start);
        assert_eq!(quota.0.len(), 2, "one is older than an hour, and one is of a clock that was ahead");
        assert!(quota.has_room(0, 3, start) && !quota.has_room(1, 3, start) && !quota.has_room(0, 2, start));
    }
}
