//! The only way to a run: every request is asked of the catalogue, stored, and answered, in
//! [`Hub::accept`].

use std::{collections::BTreeMap, time::Duration};

use pistat_protocol::{
    account::Role,
    api::{AcceptedRuns, GroupOptions},
    dashboard::{MachineStatus, Run},
    id::{PiId, RunId, Target, TaskId},
    task::{Arguments, RequestAnswer, RunState},
};
use pistat_support::random;

use super::{
    Hub,
    ask::{Refused, RefusedKind},
    pending::{Accepting, Answer, PendingCommit, PendingRuns},
    refuse, tell,
};
use crate::{
    catalogue::{ApprovedTask, Ask, Refusal, RefusalKind},
    runs::Accepted,
    store::{
        record::{GroupRecord, Requester, RunRecord},
        register::RegisterWrite,
    },
    terminal,
};

/// How many runs may be open at a time: several on each machine of the largest fleet.
const MAX_OPEN_RUNS: usize = 50_000;

/// How many of them on one machine, so that none takes the place of the others.
const MAX_OPEN_RUNS_PER_MACHINE: usize = 1_000;

/// What somebody wants, whatever the way in.
pub(super) struct RunRequest {
    pub(super) task: TaskId,
    pub(super) target: Target,
    pub(super) args: Arguments,
    pub(super) request_id: Option<String>,
    pub(super) expires: Duration,
    pub(super) group: GroupOptions,
    pub(super) requested_by: String,
    pub(super) requester: Requester,
    /// `None` is the schedule.
    pub(super) role: Option<Role>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.kind {
            RefusalKind::UnknownTask => RefusedKind::Missing,
            RefusalKind::BadArgument => RefusedKind::Invalid,
            RefusalKind::NotAllowed => RefusedKind::Forbidden,
            RefusalKind::NotOnThisMachine
            | RefusalKind::RegisterOnly
            | RefusalKind::NotListed
            | RefusalKind::NoRunner => RefusedKind::Conflict,
        };
        Self { kind, detail: refusal.message }
    }
}

impl Hub {
    /// Checks a request and stores its runs; the answer follows when they are on the disk.
    pub(super) fn accept(&mut self, request: &RunRequest, answer: Answer) -> Result<(), (Refused, Answer)> {
        let known = |id: &String| self.runs.earlier(&request.requested_by, &request.requester, id);
        let earlier = request.request_id.as_ref().and_then(known);
        if let Some(earlier) = earlier {
            match self.accepting(&earlier) {
                Some(first) => first.answers.push(answer),
                None => self.tell_accepted(answer, &earlier),
            }
            return Ok(());
        }
        match self.approve(request) {
            Ok(approved) => self.take(request, &approved, answer),
            Err(refused) => return Err((refused, answer)),
        }
        Ok(())
    }

    /// Stores the runs of what was approved.
    pub(super) fn take(&mut self, request: &RunRequest, approved: &[ApprovedTask], answer: Answer) {
        // Only what this request needs is refused if it cannot be stored, so it has a commit of its
        // own.
        self.commit_turn();
        let (records, group) = self.new_records(request, approved);
        let runs: Vec<_> = records.iter().map(|record| record.run.id).collect();
        let sentence = request_sentence(request, approved);
        let pi = if let [only] = approved { Some(only.pi().clone()) } else { None };
        for record in &records {
            self.commits.write(RegisterWrite::Run(Box::new(record.clone())));
        }
        if let Some(group) = &group {
            self.commits.write(RegisterWrite::Group(Box::new(group.clone())));
        }
        let group_id = group.as_ref().map(|group| group.id);
        self.runs.add(records, group, self.now.monotonic);
        self.commits.turn().accepted = Some(Accepting {
            runs,
            group: group_id,
            sentence,
            requested_by: request.requested_by.clone(),
            pi,
            answers: vec![answer],
        });
        self.commit_turn();
    }

    /// A request that was taken and is not on the disk yet, by its runs.
    fn accepting(&mut self, request: &Accepted) -> Option<&mut Accepting> {
        let mut waiting = self.commits.pending_mut().filter_map(|after| match after {
            PendingCommit::Runs(after) => after.accepted.as_mut(),
            _ => None,
        });
        waiting.find(|first| first.runs == request.runs)
    }

    /// The catalogue's word for each machine that is meant. In a group, machines on which the task
    /// may not run are passed over.
    fn approve(&self, request: &RunRequest) -> Result<Vec<ApprovedTask>, Refused> {
        let machines = self.fleet.resolve(&request.target);
        if machines.is_empty() {
            return Err(Refused::missing(match &request.target {
                Target::Pi(pi) => format!("there is no machine {pi}; `pis` shows the fleet"),
                group => format!("no machine has {group}: nothing was run; `tag add <pi> <tag>` tags one"),
            }));
        }
        self.check_room(machines.len())?;
        let mut first_refusal = None;
        let mut approved = Vec::new();
        for pi in &machines {
            match self
                .approve_on(&request.task, &request.args, request.role, pi)
                .map_err(Refused::from)
                .and_then(|task| self.not_away(request, pi).map(|()| task))
                .and_then(|task| self.has_room(pi).map(|()| task))
            {
                Ok(task) => approved.push(task),
                Err(refused) if refused.kind == RefusedKind::Conflict => {
                    first_refusal = first_refusal.or(Some(refused));
                }
                Err(refused) => return Err(refused),
            }
        }
        match first_refusal {
            Some(refused) if approved.is_empty() => Err(refused),
            _ => Ok(approved),
        }
    }

    /// Whether so many more runs may be open.
    pub(super) fn check_room(&self, more: usize) -> Result<(), Refused> {
        if self.runs.counts().values().sum::<u32>() as usize + more > MAX_OPEN_RUNS {
            return Err(Refused::unavailable("too many runs are open: wait until some have ended, or cancel them"));
        }
        Ok(())
    }

    /// Whether a machine may have one more open run.
    fn has_room(&self, pi: &PiId) -> Result<(), Refused> {
        if self.runs.open_on(pi) < MAX_OPEN_RUNS_PER_MACHINE {
            return Ok(());
        }
        Err(Refused::conflict(format!(
            "{pi} has {MAX_OPEN_RUNS_PER_MACHINE} runs that have not ended: wait until some have, or cancel them"
        )))
    }

    fn not_away(&self, request: &RunRequest, pi: &PiId) -> Result<(), Refused> {
        let away = self.fleet.status(pi) == Some(MachineStatus::Offline);
        if away && request.expires.is_zero() {
            return Err(Refused::conflict(format!(
                "{} is offline; leave out the zero expiry to let the run wait for it",
                self.fleet.label(pi)
            )));
        }
        Ok(())
    }

    pub(super) fn approve_on(
        &self,
        task: &TaskId,
        args: &Arguments,
        role: Option<Role>,
        pi: &PiId,
    ) -> Result<ApprovedTask, Refusal> {
        let is_machine = |name: &str| name.parse().is_ok_and(|pi| self.fleet.contains(&pi));
        self.catalogue.check(&Ask { task, args, role, machine: self.fleet.facts(pi), is_machine: &is_machine })
    }

    fn new_records(
        &mut self,
        request: &RunRequest,
        approved: &[ApprovedTask],
    ) -> (Vec<RunRecord>, Option<GroupRecord>) {
        let group = (!matches!(request.target, Target::Pi(_))).then(|| self.new_id());
        let expires = u64::try_from(request.expires.as_millis()).unwrap_or(u64::MAX);
        let records: Vec<_> = approved
            .iter()
            .map(|task| RunRecord {
                run: Run {
                    id: self.new_id(),
                    task: request.task.clone(),
                    pi: task.pi().clone(),
                    state: RunState::Queued,
                    args: task.args().clone(),
                    requested_by: request.requested_by.clone(),
                    request_id: request.request_id.clone(),
                    group,
                    created_at: self.now.wall,
                    started_at: None,
                    finished_at: None,
                    exit_code: None,
                    reason: None,
                    output_bytes: 0,
                    dropped_bytes: 0,
                },
                output_limit_bytes: task.task().output_limit_bytes(),
                expires_milliseconds: expires,
                cancelled_by: None,
                reported: None,
                next_chunk: 0,
                final_chunks: None,
                boot_id: None,
                retained: true,
                ends: task.task().view().ends,
                timeout_milliseconds: u64::try_from(task.task().timeout().as_millis()).unwrap_or(u64::MAX),
                role: request.role,
                requester: Some(request.requester.clone()),
                rotations: self.access.account(&request.requested_by).map_or(0, |account| account.rotations),
            })
            .collect();
        let group = group.map(|id| GroupRecord {
            id,
            task: request.task.clone(),
            target: request.target.clone(),
            args: approved.first().map(|task| task.args().clone()).unwrap_or_default(),
            requested_by: request.requested_by.clone(),
            created_at: self.now.wall,
            runs: records.iter().map(|record| record.run.id).collect(),
            options: request.group,
            stopped: None,
            open: true,
            states: BTreeMap::new(),
        });
        (records, group)
    }

    /// A new id, later than every other: its order is the order of acceptance even when the clock
    /// goes back.
    fn new_id(&mut self) -> RunId {
        let now = u64::try_from(self.now.wall.unix_milliseconds()).unwrap_or(0);
        self.last_id_milliseconds = now.max(self.last_id_milliseconds + 1);
        // Ids need not be secret, only different: without randomness the time alone keeps them
        // apart.
        RunId::from_parts(self.last_id_milliseconds, random::spread())
    }

    pub(super) fn tell_accepted(&mut self, answer: Answer, accepted: &Accepted) {
        match answer {
            Answer::Web(reply) => tell(reply, AcceptedRuns { group: accepted.group, runs: accepted.runs.clone() }),
            Answer::Mqtt(response) => {
                self.answer_request(response, &RequestAnswer::Accepted { runs: accepted.runs.clone() });
            }
            Answer::Schedule(_) => {}
        }
    }

    /// A request's runs could not be stored: they never were.
    pub(super) fn not_accepted(&mut self, after: PendingRuns, sentence: &str) {
        let Some(accepting) = after.accepted else { return };
        self.runs.withdraw(&accepting.runs);
        for answer in accepting.answers {
            match answer {
                Answer::Web(reply) => refuse(reply, Refused::unavailable(sentence)),
                Answer::Mqtt(response) => {
                    self.refuse_request(accepting.pi.as_ref(), Some(&accepting.requested_by), sentence, response);
                }
                Answer::Schedule(task) => self.missed(&task, None, sentence),
            }
        }
    }
}

fn request_sentence(request: &RunRequest, approved: &[ApprovedTask]) -> String {
    match approved {
        [_] => format!("requested {}", request.task),
        many => {
            format!("requested {} on {} ({})", request.task, terminal::count(many.len(), "machine"), request.target)
        }
    }
}
