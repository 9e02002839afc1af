//! Requests, from any way in, and the life of runs: every request goes through [`Hub::accept`], every change through [`Hub::perform`].

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use pistat_protocol::{
    account::Role,
    api::{AcceptedRuns, GroupOptions, NewRun},
    codec::{decode_request, encode},
    dashboard::{Change, EventKind, Group, MachineStatus, Run, Severity},
    id::{InvalidId, PiId, RunId, Target, TaskId},
    order::{CancelOrder, Order},
    task::{Arguments, MAX_REQUEST_ID_BYTES, OutputChunk, Report, Request, RequestAnswer, RunState},
    topic::Topic,
};
use tokio::sync::watch;

use super::{
    Accepting, After, AfterRuns, Answer, Cancelling, Hub,
    ask::{Progress, Refused, Reply},
    refuse, tell,
};
use crate::{
    access::Caller,
    bridge::{Outgoing, ResponseTo},
    catalogue::{ApprovedTask, Ask, MachineFacts, Refusal, RefusalKind},
    config::{Broker, Requests, parse_duration},
    runs::{Accepted, Step},
    store::{
        record::{GroupRecord, RunRecord},
        register::RegisterWrite,
    },
};

/// How many runs may be open at a time: several on each machine of the largest fleet.
const MAX_OPEN_RUNS: usize = 50_000;

/// The longest that a run may wait for an offline machine.
const MAX_EXPIRES: Duration = Duration::from_secs(7 * 86_400);

/// What somebody wants, whatever the way in.
pub(super) struct Wish {
    pub(super) task: TaskId,
    pub(super) target: Target,
    pub(super) args: Arguments,
    pub(super) request_id: Option<String>,
    pub(super) expires: Duration,
    pub(super) group: GroupOptions,
    pub(super) requested_by: String,
    /// `None` is the schedule.
    pub(super) role: Option<Role>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::UnknownTask => 404,
            RefusalKind::BadArgument => 400,
            RefusalKind::NotAllowed => 403,
            RefusalKind::NotOnThisMachine | RefusalKind::RegisterOnly | RefusalKind::NoRunner => 409,
        };
        Self { status, detail: refusal.message }
    }
}

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
        let response = response.filter(|response| self.may_answer_on(&response.topic));
        let pi = if let Target::Pi(pi) = target { Some(pi.clone()) } else { None };
        if retain {
            self.publish(&Topic::Request(target.clone()), Vec::new(), 1, true);
            let sentence = "a request was published with the retain flag: it was cleared and runs nothing; publish it without the flag";
            return self.refuse_request(pi.as_ref(), account, sentence, response);
        }
        let answer =
            self.asker(account).and_then(|(name, role)| self.request(target, payload, &name, role, response.clone()));
        if let Err(refused) = answer {
            self.refuse_request(pi.as_ref(), account, &refused.detail, response);
        }
    }

    /// A request came on a topic that names nobody. It is told like any other refusal, and a retained one is cleared.
    pub(super) fn misaddressed(
        &mut self,
        topic: String,
        why: &InvalidId,
        retain: bool,
        account: Option<&str>,
        response: Option<ResponseTo>,
    ) {
        let response = response.filter(|response| self.may_answer_on(&response.topic));
        if retain {
            self.send(Outgoing { topic, payload: Vec::new(), qos: 1, retain: true, correlation: None });
        }
        self.refuse_request(None, account, &format!("{why}; `pis` shows the fleet"), response);
    }

    /// Who asks over MQTT: the account that our own broker stamped, or whoever an external one let publish, if that is allowed at all.
    fn asker(&self, account: Option<&str>) -> Result<(String, Role), Refused> {
        if self.config.mqtt.broker == Broker::Embedded {
            let account = account.and_then(|name| self.access.account(name));
            let account = account.filter(|account| account.role >= Role::Operator);
            return account
                .map(|account| (account.name.to_string(), account.role))
                .ok_or_else(|| Refused::forbidden("only operators may ask for tasks"));
        }
        let refused = || {
            Refused::forbidden(
                "requests over MQTT are off with an external broker; [mqtt.requests] in pistat.toml turns them on",
            )
        };
        self.config.mqtt.requests.as_ref().map(|requests| ("mqtt".to_string(), requests.role)).ok_or_else(refused)
    }

    fn request(
        &mut self,
        target: &Target,
        payload: &Bytes,
        by: &str,
        role: Role,
        response: Option<ResponseTo>,
    ) -> Result<(), Refused> {
        match decode_request(payload).map_err(Refused::bad)? {
            Request::Run(run) => {
                self.may_be_asked_for(&run.task)?;
                let wish = Wish {
                    task: run.task,
                    target: target.clone(),
                    args: run.args,
                    request_id: run.request_id,
                    expires: self.config.runs.expires,
                    group: GroupOptions::default(),
                    requested_by: by.into(),
                    role: Some(role),
                };
                self.accept(wish, Answer::Mqtt(response)).map_err(|(refused, _)| refused)
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
                self.cancel(id, by)?;
                self.turn.cancelled.push(Cancelling::Mqtt(id, response));
                Ok(())
            }
        }
    }

    /// With a broker that is not ours, only the tasks that `[mqtt.requests]` lists are anybody's to ask for, or to cancel.
    fn may_be_asked_for(&self, task: &TaskId) -> Result<(), Refused> {
        let listed = |requests: &Requests| requests.tasks.contains(task);
        if self.config.mqtt.broker == Broker::Embedded || self.config.mqtt.requests.as_ref().is_some_and(listed) {
            return Ok(());
        }
        Err(Refused::forbidden(format!("task {task} is not among the tasks of [mqtt.requests]")))
    }

    fn refuse_request(
        &mut self,
        pi: Option<&PiId>,
        account: Option<&str>,
        sentence: &str,
        response: Option<ResponseTo>,
    ) {
        self.numbers.refused_messages += 1;
        self.event(EventKind::Task, Severity::Warning, pi, None, account, format!("request refused: {sentence}"));
        self.answer_request(response, &RequestAnswer::Refused { error: sentence.into() });
    }

    fn answer_request(&mut self, response: Option<ResponseTo>, answer: &RequestAnswer) {
        if let Some(ResponseTo { topic, correlation }) = response {
            self.send(Outgoing { topic, payload: encode(answer), qos: 1, retain: false, correlation });
        }
    }

    /// The controller may publish everywhere, so it does not let a requester choose where it speaks with its own authority.
    fn may_answer_on(&self, topic: &str) -> bool {
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
        let wish = Wish {
            task: request.task,
            target: request.target,
            args: request.args,
            request_id: request.request_id,
            expires,
            group: request.group.unwrap_or_default(),
            requested_by: caller.account.to_string(),
            role: Some(caller.role),
        };
        if let Err((refused, answer)) = self.accept(wish, Answer::Web(reply)) {
            let text = format!("request refused: {}", refused.detail);
            self.event(EventKind::Task, Severity::Warning, None, None, Some(caller.account.as_str()), text);
            if let Answer::Web(reply) = answer {
                refuse(reply, refused);
            }
        }
    }

    /// Checks a wish and stores its runs; the answer follows when they are on the disk.
    pub(super) fn accept(&mut self, wish: Wish, answer: Answer) -> Result<(), (Refused, Answer)> {
        let earlier = wish.request_id.as_ref().and_then(|id| self.runs.earlier(&wish.requested_by, id));
        if let Some(earlier) = earlier {
            match self.accepting(&earlier) {
                // It is on its way to the disk: this answer waits for it as the first one does.
                Some(accepting) => accepting.answers.push(answer),
                None => self.tell_accepted(answer, &earlier),
            }
            return Ok(());
        }
        let approved = match self.approve(&wish) {
            Ok(approved) => approved,
            Err(refused) => return Err((refused, answer)),
        };
        // Only what this request needs is refused if it cannot be stored, so it has a commit of its own.
        self.commit_turn();
        let (records, group) = self.new_records(&wish, &approved);
        let runs: Vec<_> = records.iter().map(|record| record.run.id).collect();
        let sentence = request_sentence(&wish, &approved);
        let pi = if let [only] = &approved[..] { Some(only.pi().clone()) } else { None };
        self.writes.extend(records.iter().cloned().map(|record| RegisterWrite::Run(Box::new(record))));
        self.writes.extend(group.iter().cloned().map(|group| RegisterWrite::Group(Box::new(group))));
        let group_id = group.as_ref().map(|group| group.id);
        self.runs.add(records, group, self.now.monotonic);
        self.turn.accepted = Some(Accepting {
            runs,
            group: group_id,
            sentence,
            requested_by: wish.requested_by,
            pi,
            answers: vec![answer],
        });
        self.commit_turn();
        Ok(())
    }

    /// The request that made these runs, if it is not yet on the disk.
    fn accepting(&mut self, accepted: &Accepted) -> Option<&mut Accepting> {
        self.after.values_mut().find_map(|after| match after {
            After::Runs(AfterRuns { accepted: Some(accepting), .. }) => {
                Some(accepting).filter(|it| it.runs == accepted.runs)
            }
            _ => None,
        })
    }

    /// The catalogue's word for each machine that is meant. In a group, machines on which the task may not run are passed over.
    fn approve(&self, wish: &Wish) -> Result<Vec<ApprovedTask>, Refused> {
        let machines = self.fleet.resolve(&wish.target);
        if machines.is_empty() {
            return Err(Refused::missing(match &wish.target {
                Target::Pi(pi) => format!("there is no machine {pi}; `pis` shows the fleet"),
                group => format!("no machine has {group}: nothing was run; `tag add <pi> <tag>` tags one"),
            }));
        }
        if self.runs.counts().values().sum::<u32>() as usize + machines.len() > MAX_OPEN_RUNS {
            return Err(Refused::unavailable("too many runs are open: wait until some have ended, or cancel them"));
        }
        let mut first_refusal = None;
        let mut approved = Vec::new();
        for pi in &machines {
            match self
                .approve_on(&wish.task, &wish.args, wish.role, pi)
                .map_err(Refused::from)
                .and_then(|task| self.not_away(wish, pi).map(|()| task))
            {
                Ok(task) => approved.push(task),
                Err(refused) if refused.status == 409 => first_refusal = first_refusal.or(Some(refused)),
                Err(refused) => return Err(refused),
            }
        }
        match first_refusal {
            Some(refused) if approved.is_empty() => Err(refused),
            _ => Ok(approved),
        }
    }

    fn not_away(&self, wish: &Wish, pi: &PiId) -> Result<(), Refused> {
        let away = self.fleet.status(pi) == Some(MachineStatus::Offline);
        if away && wish.expires.is_zero() {
            return Err(Refused::conflict(format!(
                "{} is offline; leave out the zero expiry to let the run wait for it",
                self.fleet.label(pi)
            )));
        }
        Ok(())
    }

    fn approve_on(
        &self,
        task: &TaskId,
        args: &Arguments,
        role: Option<Role>,
        pi: &PiId,
    ) -> Result<ApprovedTask, Refusal> {
        let info = self.fleet.machine_info(pi);
        let is_machine = |name: &str| name.parse().is_ok_and(|pi| self.fleet.contains(&pi));
        self.catalogue.check(&Ask {
            task,
            args,
            role,
            machine: MachineFacts {
                pi,
                tags: self.fleet.tags(pi),
                policy: info.map(|info| info.execution_policy),
                runner: info.map(|info| info.runner),
            },
            is_machine: &is_machine,
        })
    }

    fn new_records(&mut self, wish: &Wish, approved: &[ApprovedTask]) -> (Vec<RunRecord>, Option<GroupRecord>) {
        let group = (!matches!(wish.target, Target::Pi(_))).then(|| self.new_id());
        let expires = u64::try_from(wish.expires.as_millis()).unwrap_or(u64::MAX);
        let records: Vec<_> = approved
            .iter()
            .map(|task| RunRecord {
                run: Run {
                    id: self.new_id(),
                    task: wish.task.clone(),
                    pi: task.pi().clone(),
                    state: RunState::Queued,
                    args: task.args().clone(),
                    requested_by: wish.requested_by.clone(),
                    request_id: wish.request_id.clone(),
                    group,
                    created_at: self.now.wall,
                    started_at: None,
                    finished_at: None,
                    exit_code: None,
                    reason: None,
                    output_bytes: 0,
                    dropped_bytes: 0,
                },
                output_limit_bytes: task.output_limit_bytes(),
                expires_milliseconds: expires,
                cancelled_by: None,
                reported: None,
                next_chunk: 0,
                final_chunks: None,
                boot_id: None,
                retained: true,
                ends: task.ends(),
                timeout_milliseconds: u64::try_from(task.timeout().as_millis()).unwrap_or(u64::MAX),
                role: wish.role,
            })
            .collect();
        let group = group.map(|id| GroupRecord {
            id,
            task: wish.task.clone(),
            target: wish.target.clone(),
            requested_by: wish.requested_by.clone(),
            created_at: self.now.wall,
            runs: records.iter().map(|record| record.run.id).collect(),
            options: wish.group,
            stopped: None,
            open: true,
            states: BTreeMap::new(),
        });
        (records, group)
    }

    /// A new id, later than every other: its order is the order of acceptance even when the clock goes back.
    fn new_id(&mut self) -> RunId {
        let now = u64::try_from(self.now.wall.unix_milliseconds()).unwrap_or(0);
        self.last_id_milliseconds = now.max(self.last_id_milliseconds + 1);
        let mut random = [0; 10];
        // Ids need not be secret, only different: without randomness the time alone keeps them apart.
        let _ = getrandom::fill(&mut random);
        RunId::from_parts(self.last_id_milliseconds, random)
    }

    fn tell_accepted(&mut self, answer: Answer, accepted: &Accepted) {
        match answer {
            Answer::Web(reply) => tell(reply, AcceptedRuns { group: accepted.group, runs: accepted.runs.clone() }),
            Answer::Mqtt(response) => {
                self.answer_request(response, &RequestAnswer::Accepted { runs: accepted.runs.clone() });
            }
            Answer::Nobody => {}
        }
    }

    /// A request's runs could not be stored: they never were.
    pub(super) fn not_accepted(&mut self, after: AfterRuns, sentence: &str) {
        let Some(accepting) = after.accepted else { return };
        self.runs.withdraw(&accepting.runs);
        for answer in accepting.answers {
            match answer {
                Answer::Web(reply) => refuse(reply, Refused::unavailable(sentence)),
                Answer::Mqtt(response) => {
                    self.refuse_request(accepting.pi.as_ref(), Some(&accepting.requested_by), sentence, response);
                }
                Answer::Nobody => {}
            }
        }
    }

    pub(super) fn cancel_for(&mut self, caller: &Caller, id: RunId, reply: Reply<()>) {
        match self.cancel(id, caller.account.as_str()) {
            Ok(()) => self.turn.cancelled.push(Cancelling::Web(reply)),
            Err(refused) => refuse(reply, refused),
        }
    }

    /// Cancels a run, or every run of a group. Whoever asked is told when that is on the disk: `turn.cancelled` is for them.
    fn cancel(&mut self, id: RunId, by: &str) -> Result<(), Refused> {
        let targets = self.runs.group_record(id).map_or_else(|| vec![id], |group| group.runs);
        let mut steps = Vec::new();
        for run in targets {
            steps.extend(self.runs.cancel(run, by, self.now).into_iter().flatten());
        }
        if steps.is_empty() {
            let known = self.runs.newest().iter().any(|run| run.id == id) || self.runs.group(id).is_some();
            return Err(if known {
                Refused::conflict("it has already ended")
            } else {
                Refused::missing(format!("there is no open run {id}; `runs` shows them"))
            });
        }
        let pi = self.runs.get(id).map(|record| record.run.pi.clone());
        self.event(EventKind::Task, Severity::Info, pi.as_ref(), Some(id), Some(by), "asked to cancel".into());
        self.perform(steps);
        Ok(())
    }

    pub(super) fn reported(&mut self, pi: &PiId, run: RunId, report: Report) {
        let steps = self.runs.report(pi, run, report, self.now);
        self.perform(steps);
    }

    pub(super) fn output_came(&mut self, pi: &PiId, run: RunId, chunk: OutputChunk) {
        let steps = self.runs.output(pi, run, chunk, self.now);
        self.perform(steps);
    }

    /// Does what a change of a run asks for: what is to be stored joins this turn's commit, what is to be told waits for it.
    pub(super) fn perform(&mut self, steps: Vec<Step>) {
        let mut queue: VecDeque<Step> = steps.into();
        while let Some(step) = queue.pop_front() {
            match step {
                Step::Save(id) => self.save_run(id),
                Step::SaveGroup(id) => self.save_group(id),
                Step::SavePiece(piece) => {
                    self.turn.pieces.push((piece.run, piece.seq));
                    self.writes.push(RegisterWrite::Piece(piece));
                }
                Step::Ack(pi, run, ack) => self.acknowledge(&pi, run, ack),
                Step::Execute(id) => self.turn.execute.push(id),
                Step::Cancel(id) => self.turn.cancel.push(id),
                Step::Clear(pi, run) => {
                    self.writes.push(RegisterWrite::Cleared(run));
                    self.turn.clear.push((pi, run));
                }
                Step::Dispatch(pi) => queue.extend(self.dispatch(&pi)),
                Step::Odd(pi, run, text) => self.event(EventKind::Alert, Severity::Warning, Some(&pi), run, None, text),
            }
        }
    }

    fn save_run(&mut self, id: RunId) {
        if let Some(record) = self.runs.record(id) {
            self.turn.saved.retain(|saved| saved.run.id != id);
            self.turn.saved.push(record.clone());
            self.writes.push(RegisterWrite::Run(Box::new(record)));
        }
    }

    fn save_group(&mut self, id: RunId) {
        if let Some(record) = self.runs.group_record(id) {
            if !self.turn.groups.contains(&id) {
                self.turn.groups.push(id);
            }
            self.writes.push(RegisterWrite::Group(Box::new(record)));
        }
    }

    /// Sends what may start on a machine now, if its agent has told its session.
    fn dispatch(&mut self, pi: &PiId) -> Vec<Step> {
        if !self.sessions.contains_key(pi) {
            return Vec::new();
        }
        let mut steps = Vec::new();
        for id in self.runs.ready(pi) {
            let Some(record) = self.runs.get(id) else { continue };
            // The catalogue may have changed since the run was accepted: what it no longer lists does not run.
            match self.approve_on(&record.run.task, &record.run.args, record.role, pi) {
                Err(refusal) => steps.extend(self.runs.end(id, RunState::Rejected, refusal.message, self.now)),
                Ok(task) if self.runs.busy_with(pi, task.task()) < task.concurrency() => {
                    steps.extend(self.runs.dispatched(id, task.ends(), self.now.monotonic));
                    steps.push(Step::Execute(id));
                }
                Ok(_) => {}
            }
        }
        steps
    }

    /// What was promised, now that it is on the disk.
    pub(super) fn after_runs(&mut self, after: AfterRuns) {
        if let Some(accepting) = after.accepted {
            self.accepted(accepting);
        }
        self.pieces_stored(&after.pieces);
        for record in &after.saved {
            self.run_stored(record);
        }
        for id in after.groups {
            if let Some(group) = self.runs.group(id) {
                self.feed.push(Change::Group { group });
            }
        }
        for id in after.execute {
            self.send_execute(id);
        }
        for id in after.cancel {
            self.send_cancel(id);
        }
        for (pi, run) in after.clear {
            self.clear_run(&pi, run);
        }
        for answer in after.cancelled {
            match answer {
                Cancelling::Web(reply) => tell(reply, ()),
                Cancelling::Mqtt(run, response) => {
                    self.answer_request(response, &RequestAnswer::Accepted { runs: vec![run] });
                }
            }
        }
    }

    fn accepted(&mut self, accepting: Accepting) {
        let Accepting { runs, group, sentence, requested_by, pi, answers } = accepting;
        let run = if let [only] = &runs[..] { Some(*only) } else { None };
        self.event(EventKind::Task, Severity::Info, pi.as_ref(), run, Some(&requested_by), sentence);
        for id in &runs {
            if let Some(run) = self.runs.get(*id).map(|record| record.run.clone()) {
                self.announce_run(&run);
            }
        }
        if let Some(group) = group.and_then(|id| self.runs.group(id)) {
            self.feed.push(Change::Group { group });
        }
        let steps = self.runs.accepted(&runs);
        let accepted = Accepted { group, runs };
        for answer in answers {
            self.tell_accepted(answer, &accepted);
        }
        self.perform(steps);
    }

    fn pieces_stored(&mut self, pieces: &[(RunId, u64)]) {
        let newest: BTreeMap<RunId, u64> = pieces.iter().copied().collect();
        for (run, seq) in newest {
            if let Some((pi, ack)) = self.runs.piece_stored(run, seq) {
                self.acknowledge(&pi, run, ack);
            }
            if let Some(follower) = self.followers.get(&run) {
                follower.send_modify(|progress| progress.next_chunk = seq + 1);
            }
        }
    }

    fn run_stored(&mut self, record: &RunRecord) {
        let run = &record.run;
        let ack = self.runs.stored(record);
        if record.reported.is_some() {
            self.acknowledge(&run.pi, run.id, ack);
        }
        self.announce_run(run);
        if run.state.is_final() {
            self.announce_end(run);
            if let Some(follower) = self.followers.remove(&run.id) {
                follower.send_modify(|progress| progress.is_final = true);
            }
        }
    }

    /// Signs and sends the order to start a run, for the session that its agent has told.
    fn send_execute(&mut self, id: RunId) {
        let Some(record) = self.runs.get(id).filter(|record| record.run.state == RunState::Dispatched) else { return };
        let (pi, requested_by) = (record.run.pi.clone(), record.run.requested_by.clone());
        // Without a session it is sent once the agent has come back and has told what it knows.
        let Some(session) = self.sessions.get(&pi) else { return };
        match self.approve_on(&record.run.task, &record.run.args, record.role, &pi) {
            Ok(task) => {
                let order = task.sign(&self.key, id, session, &requested_by);
                self.publish(&Topic::Execute(pi, id), encode(&order), 1, false);
            }
            Err(refusal) => {
                let steps = self.runs.end(id, RunState::Rejected, refusal.message, self.now);
                self.perform(steps);
            }
        }
    }

    fn send_cancel(&mut self, id: RunId) {
        let Some(pi) = self.runs.get(id).map(|record| record.run.pi.clone()) else { return };
        let Some(session) = self.sessions.get(&pi).cloned() else { return };
        let order = self.key.sign(&Order::Cancel(CancelOrder { pi: pi.clone(), run: id, session }));
        self.publish(&Topic::Cancel(pi, id), encode(&order), 1, false);
    }

    pub(super) fn tell_group(&self, id: RunId, reply: Reply<Group>) {
        let _ = reply.send(self.runs.group(id).ok_or_else(|| Refused::missing(format!("there is no group {id}"))));
    }

    /// Tells how far a run's output has come, and goes on telling.
    pub(super) fn follow(&mut self, id: RunId, reply: Reply<watch::Receiver<Progress>>) {
        self.followers.retain(|_, sender| sender.receiver_count() > 0);
        let receiver = match self.runs.get(id) {
            Some(record) => {
                let progress = Progress { next_chunk: record.next_chunk, is_final: false };
                self.followers.entry(id).or_insert_with(|| watch::Sender::new(progress)).subscribe()
            }
            // It is final, or was never here: everything that there is is stored.
            None => watch::Sender::new(Progress { next_chunk: u64::MAX, is_final: true }).subscribe(),
        };
        tell(reply, receiver);
    }
}

fn request_sentence(wish: &Wish, approved: &[ApprovedTask]) -> String {
    match approved {
        [_] => format!("requested {}", wish.task),
        many => format!("requested {} on {} machines ({})", wish.task, many.len(), wish.target),
    }
}
