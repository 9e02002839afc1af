//! What waits for the disk: answers, acknowledgements and retained states are promised here, and
//! kept once the store has said that it may.

use pistat_protocol::{
    api::AcceptedRuns,
    dashboard::{EventKind, Machine, Severity},
    id::{PiId, RunId, TaskId},
    order::JoinToken,
    task::RequestAnswer,
};

use super::{
    Hub,
    ask::{Refused, Reply, SignedIn},
    joining::Joining,
    refuse,
    repeats::Line,
    tell,
};
use crate::{
    access::{AccessChange, Caller},
    bridge::ResponseTo,
    homeassistant::Say,
    store::{MetadataPatch, NotStored, Stored, Ticket, record::RunRecord},
};

/// What is done once something is on the disk.
pub(super) enum PendingCommit {
    /// Runs, output, events.
    Runs(PendingRuns),
    /// What people gave a machine.
    Metadata(PiId, MetadataPatch, Caller, Reply<Machine>),
    /// Accounts, machines, sessions; and what the audit log tells of it.
    Access(Vec<AccessChange>, Option<Line>, PendingAccess),
    /// The tags of a machine that joins, and then the machine.
    Tagged(Box<(MetadataPatch, AccessChange)>, Joining),
    /// The join token.
    JoinToken(JoinToken, String, Reply<JoinToken>),
    /// What Home Assistant may be told.
    Announced(Vec<Say>),
    /// The file of the token of `admin`, after its account.
    AdminToken(String, Option<Reply<String>>),
    /// What a machine had been given, after it was revoked; then its runs.
    Forgotten(PiId, String, Option<PendingReply>),
}

/// What is done once runs, groups, output and events are on the disk.
#[derive(Default)]
pub(super) struct PendingRuns {
    /// Runs as they are being stored: their states are to be announced, and the reports
    /// acknowledged.
    pub(super) saved: Vec<RunRecord>,
    pub(super) groups: Vec<RunId>,
    /// Output that is to be acknowledged.
    pub(super) pieces: Vec<(RunId, u64)>,
    pub(super) execute: Vec<RunId>,
    pub(super) clear: Vec<(PiId, RunId)>,
    pub(super) accepted: Option<Accepting>,
    pub(super) promises: Vec<PendingReply>,
}

impl PendingRuns {
    pub(super) fn is_empty(&self) -> bool {
        let lists = [
            self.saved.is_empty(),
            self.groups.is_empty(),
            self.pieces.is_empty(),
            self.execute.is_empty(),
            self.clear.is_empty(),
            self.promises.is_empty(),
        ];
        self.accepted.is_none() && lists.into_iter().all(|empty| empty)
    }
}

/// A request that becomes an answer once its runs are on the disk.
pub(super) struct Accepting {
    pub(super) runs: Vec<RunId>,
    pub(super) group: Option<RunId>,
    pub(super) sentence: String,
    pub(super) requested_by: String,
    pub(super) pi: Option<PiId>,
    /// Of whoever asked, and of whoever repeated it meanwhile.
    pub(super) answers: Vec<Answer>,
}

/// An answer about something that happens in any case, which is given when it is on the disk.
pub(super) enum PendingReply {
    Web(Reply<()>),
    Mqtt(Option<ResponseTo>, RunId),
}

/// The way back to whoever asked for a run.
pub(super) enum Answer {
    Web(Reply<AcceptedRuns>),
    Mqtt(Option<ResponseTo>),
    /// The schedule of this task, whose failures are told in the audit log.
    Schedule(TaskId),
}

/// What follows from a stored change of access.
pub(super) enum PendingAccess {
    Done(Reply<()>),
    Token { reply: Reply<String>, token: String, admin: bool },
    SignedIn(Reply<SignedIn>, SignedIn),
    Enrolled(Joining),
    Forgotten(PiId, String, Reply<()>),
    Returned,
    Used,
}

impl Hub {
    pub(super) fn all_stored(&mut self, batch: Vec<Stored>) {
        self.apply_access(&batch);
        for stored in batch {
            self.stored(stored);
        }
    }

    fn stored(&mut self, stored: Stored) {
        for sentence in stored.left_out {
            self.event(EventKind::System, Severity::Error, None, None, None, sentence);
        }
        match stored.result {
            Ok(()) => self.is_stored(stored.ticket),
            Err(NotStored::Refused(sentence)) => self.is_refused(stored.ticket, &sentence),
            Err(NotStored::Waits(sentence)) => self.report_delay(stored.ticket, &sentence),
        }
    }

    fn is_stored(&mut self, ticket: Ticket) {
        match self.commits.finished(ticket) {
            Some(PendingCommit::Runs(after)) => self.after_runs(after),
            Some(PendingCommit::Metadata(pi, change, by, reply)) => self.given(&pi, &change, &by, reply),
            Some(PendingCommit::Access(_, line, after)) => self.access_stored(line, after),
            Some(PendingCommit::Tagged(change, joining)) => self.tagged(&change.0, change.1, joining),
            Some(PendingCommit::JoinToken(token, by, reply)) => self.join_token_stored(token, &by, reply),
            Some(PendingCommit::Announced(say)) => self.announced(say),
            Some(PendingCommit::AdminToken(token, Some(reply))) => tell(reply, token),
            Some(PendingCommit::Forgotten(pi, by, promise)) => self.forgotten(&pi, &by, promise),
            Some(PendingCommit::AdminToken(_, None)) | None => {}
        }
    }

    fn is_refused(&mut self, ticket: Ticket, sentence: &str) {
        match self.commits.finished(ticket) {
            Some(PendingCommit::Runs(after)) => self.not_accepted(after, sentence),
            Some(PendingCommit::Metadata(_, _, _, reply)) => refuse(reply, Refused::unavailable(sentence)),
            Some(PendingCommit::Access(changes, _, after)) => self.access_not_stored(&changes, after, sentence),
            // The machine repeats its request until it is answered.
            Some(PendingCommit::Tagged(_, joining)) => self.commits.end_change(&joining.pi.key()),
            Some(PendingCommit::JoinToken(_, _, reply)) => refuse(reply, Refused::unavailable(sentence)),
            // These are never refused: they wait.
            Some(PendingCommit::Announced(_) | PendingCommit::AdminToken(..) | PendingCommit::Forgotten(..)) | None => {
            }
        }
    }

    /// Nobody is kept waiting for a disk that may stay full: who asked is told how it stands. What
    /// else was promised goes on waiting.
    fn report_delay(&mut self, ticket: Ticket, sentence: &str) {
        let promises = match self.commits.get_mut(ticket) {
            Some(PendingCommit::Runs(after)) => std::mem::take(&mut after.promises),
            Some(PendingCommit::Forgotten(_, _, promise)) => promise.take().into_iter().collect(),
            Some(PendingCommit::AdminToken(_, reply)) => return refuse_token(reply.take(), sentence),
            _ => Vec::new(),
        };
        let sentence = format!(
            "this is in force, but not on the disk yet, and would be forgotten if the controller ended now: {sentence}"
        );
        for promise in promises {
            match promise {
                PendingReply::Web(reply) => refuse(reply, Refused::unavailable(&sentence)),
                PendingReply::Mqtt(response, _) => {
                    self.answer_request(response, &RequestAnswer::Refused { error: sentence.clone() });
                }
            }
        }
    }

    pub(super) fn resolve(&mut self, promise: PendingReply) {
        match promise {
            PendingReply::Web(reply) => tell(reply, ()),
            PendingReply::Mqtt(response, run) => {
                self.answer_request(response, &RequestAnswer::Accepted { runs: vec![run] });
            }
        }
    }
}

fn refuse_token(reply: Option<Reply<String>>, sentence: &str) {
    let sentence = format!(
        "the account admin has a new token, and its file admin.token gets it as soon as that can be written: {sentence}"
    );
    if let Some(reply) = reply {
        refuse(reply, Refused::unavailable(&sentence));
    }
}
