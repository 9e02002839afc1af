//! Requests, from any way in: who asks, whether that is heard, and how they are answered. All of
//! them become a [`RunRequest`].

use std::time::Duration;

use bytes::Bytes;
use pistat_broker::BrokerHandle;
use pistat_protocol::{
    account::Role,
    api::{AcceptedRuns, GroupOptions, NewRun},
    codec::{decode_request, encode},
    dashboard::{EventKind, Severity},
    id::{InvalidId, PiId, Target, TaskId},
    task::{MAX_REQUEST_ID_BYTES, Request, RequestAnswer},
    topic::Topic,
};

use super::{
    Hub,
    accept::RunRequest,
    ask::{Refused, Reply},
    lanes::Sender,
    pending::{Answer, PendingReply},
    refuse,
    repeats::{Line, Repeated},
    standing::{Asker, BROKER},
};
use crate::{
    access::Caller,
    bridge::{Outgoing, ResponseTo},
    config::{Broker, Requests, parse_duration},
    store::record::Requester,
};

/// The longest that a run may wait for an offline machine.
const MAX_EXPIRES: Duration = Duration::from_secs(7 * 86_400);

impl Hub {
    /// A request came over MQTT.
    pub(super) fn requested(
        &mut self,
        target: &Target,
        payload: &Bytes,
        retain: bool,
        account: Option<&str>,
        response: Option<ResponseTo>,
    ) {
        if payload.is_empty() {
            return;
        }
        let response = response.filter(|response| self.may_answer(account, &response.topic));
        let pi = if let Target::Pi(pi) = target { Some(pi.clone()) } else { None };
        if retain {
            self.publish(&Topic::Request(target.clone()), Vec::new(), 1, true);
            let sentence = "a request was published with the retain flag: it was cleared and runs nothing; publish it without the flag";
            return self.refuse_request(pi.as_ref(), account, sentence, response);
        }
        let answer = self.asker(account).and_then(|asker| self.request(target, payload, asker, response.clone()));
        if let Err(refused) = answer {
            self.refuse_request(pi.as_ref(), account, &refused.detail, response);
        }
    }

    /// A request came on a topic that names nobody. It is told like any other refusal, and a
    /// retained one is cleared.
    pub(super) fn misaddressed(
        &mut self,
        topic: String,
        why: &InvalidId,
        retain: bool,
        account: Option<&str>,
        response: Option<ResponseTo>,
    ) {
        let response = response.filter(|response| self.may_answer(account, &response.topic));
        if retain {
            self.send(Outgoing { topic, payload: Vec::new(), qos: 1, retain: true, correlation: None });
        }
        self.refuse_request(None, account, &format!("{why}; `pis` shows the fleet"), response);
    }

    /// Who asks over MQTT: the account that our own broker stamped, or whoever an external one let
    /// publish, if that is allowed at all.
    fn asker(&self, account: Option<&str>) -> Result<Asker, Refused> {
        if self.config.mqtt.broker == Broker::Embedded {
            let asker = account.and_then(|name| self.account_that_asks(name));
            return asker
                .filter(|asker| asker.role >= Role::Operator)
                .ok_or_else(|| Refused::forbidden("only operators may ask for tasks"));
        }
        let role = self.role_of_broker()?;
        Ok(Asker { name: BROKER.into(), requester: Requester::Broker, role })
    }

    fn request(
        &mut self,
        target: &Target,
        payload: &Bytes,
        asker: Asker,
        response: Option<ResponseTo>,
    ) -> Result<(), Refused> {
        match decode_request(payload).map_err(Refused::bad)? {
            Request::Run(run) => {
                self.may_be_asked_for(&run.task)?;
                let request = RunRequest {
                    task: run.task,
                    target: target.clone(),
                    args: run.args,
                    request_id: run.request_id,
                    expires: self.config.runs.expires,
                    group: GroupOptions::default(),
                    requested_by: asker.name,
                    requester: asker.requester,
                    role: Some(asker.role),
                };
                self.accept(&request, Answer::Mqtt(response)).map_err(|(refused, _)| refused)
            }
            Request::Cancel(id) => {
                let elsewhere =
                    self.runs.get(id).is_some_and(|record| matches!(target, Target::Pi(pi) if *pi != record.run.pi));
                if elsewhere {
                    return Err(Refused::missing(format!("run {id} is not on this machine")));
                }
                if let Some(task) = self.runs.get(id).map(|record| record.run.task.clone()) {
                    self.may_be_asked_for(&task)?;
                }
                self.cancel(id, &asker.name)?;
                self.commits.turn().promises.push(PendingReply::Mqtt(response, id));
                Ok(())
            }
        }
    }

    /// With a broker that is not ours, only the tasks that `[mqtt.requests]` lists are anybody's to
    /// ask for, or to cancel.
    pub(super) fn may_be_asked_for(&self, task: &TaskId) -> Result<(), Refused> {
        let listed = |requests: &Requests| requests.tasks.contains(task);
        if self.config.mqtt.broker == Broker::Embedded || self.config.mqtt.requests.as_ref().is_some_and(listed) {
            return Ok(());
        }
        Err(Refused::forbidden(format!("task {task} is not among the tasks of [mqtt.requests]")))
    }

    pub(super) fn refuse_request(
        &mut self,
        pi: Option<&PiId>,
        account: Option<&str>,
        sentence: &str,
        response: Option<ResponseTo>,
    ) {
        self.counters.refused();
        self.refused_line(pi, account, sentence);
        self.answer_request(response, &RequestAnswer::Refused { error: sentence.into() });
    }

    /// Writes that a request was refused: the same refusal once a minute, and different ones as
    /// often as an account may ask.
    fn refused_line(&mut self, pi: Option<&PiId>, account: Option<&str>, sentence: &str) {
        let line = Line {
            kind: EventKind::Task,
            severity: Severity::Warning,
            pi: pi.cloned(),
            run: None,
            account: account.map(Into::into),
            text: format!("request refused: {sentence}"),
        };
        let account = account.unwrap_or_default().to_lowercase();
        let key = [account.as_str(), pi.map_or("", PiId::as_str), sentence].join(" ");
        if let Some(line) = self.audit.first(Repeated::Request, key, line, self.now.monotonic) {
            self.repeated_event(Repeated::Asked, account, line);
        }
    }

    pub(super) fn answer_request(&mut self, response: Option<ResponseTo>, answer: &RequestAnswer) {
        if let Some(ResponseTo { topic, correlation }) = response {
            let sender = Sender::Account(topic.as_str().into());
            self.answer_to(sender, Outgoing { topic, payload: encode(answer), qos: 1, retain: false, correlation });
        }
    }

    /// The controller may publish everywhere, so it does not let a requester choose where it speaks
    /// with its own authority. Our own broker knows what the requester may do itself; on another,
    /// what the controller may publish is that broker's to say.
    fn may_answer(&self, account: Option<&str>, topic: &str) -> bool {
        let lends_nothing = |broker: &BrokerHandle| account.is_some_and(|account| broker.may_answer(account, topic));
        self.is_free_topic(topic) && self.broker.as_ref().is_none_or(lends_nothing)
    }

    /// Whether a topic is neither ours nor Home Assistant's, or one for answers.
    fn is_free_topic(&self, topic: &str) -> bool {
        let prefix = self.topics.prefix();
        let own = topic.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        let reply = topic.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("/reply/"));
        let home = |prefix: &str| topic.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        let reserved = topic.starts_with('$') || home("homeassistant") || home(&self.config.homeassistant.prefix);
        let plain = !topic.is_empty() && !topic.contains(['+', '#', '\0']);
        plain
            && !reserved
            && (!own
                || (reply
                    && self.topics.parse(topic).is_none()
                    && topic.split('/').count() == prefix.split('/').count() + 2))
    }

    pub(super) fn run_for(&mut self, caller: &Caller, request: NewRun, reply: Reply<AcceptedRuns>) {
        let needs_word =
            self.catalogue.get(&request.task).is_some_and(|task| task.view().confirm) && !request.confirmed;
        if needs_word {
            let sentence = format!(
                "task {} asks for a confirmation: repeat the request with \"confirmed\": true (`--yes`)",
                request.task
            );
            return refuse(reply, Refused::conflict(sentence));
        }
        let expires = match request.expires.as_deref().map(parse_duration).transpose() {
            Ok(expires) => expires.unwrap_or(self.config.runs.expires).min(MAX_EXPIRES),
            Err(sentence) => return refuse(reply, Refused::bad(format!("expires: {sentence}"))),
        };
        let long = request.request_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_REQUEST_ID_BYTES);
        if long {
            return refuse(reply, Refused::bad(format!("a request_id has 1 to {MAX_REQUEST_ID_BYTES} bytes")));
        }
        // Between the check of its credential and now, the account may have been removed or given
        // another role.
        let Some(asker) = self.account_that_asks(caller.account.as_str()) else {
            return refuse(
                reply,
                Refused::forbidden(format!("the account {} was removed or has expired", caller.account)),
            );
        };
        let request = RunRequest {
            task: request.task,
            target: request.target,
            args: request.args,
            request_id: request.request_id,
            expires,
            group: request.group.unwrap_or_default(),
            requested_by: asker.name,
            requester: asker.requester,
            role: Some(asker.role),
        };
        if let Err((refused, answer)) = self.accept(&request, Answer::Web(reply)) {
            self.refused_line(None, Some(caller.account.as_str()), &refused.detail);
            if let Answer::Web(reply) = answer {
                refuse(reply, refused);
            }
        }
    }
}
