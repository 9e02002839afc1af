//! What people do meanwhile, and what they were promised.

mod messages;
mod newcomers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use pistat_protocol::{
    api::{AcceptedRuns, NewToken},
    dashboard::Run,
    id::RunId,
    task::RunState,
};
use pistat_sim::Dice;
use pistat_testkit::{Http, Reply, mosquitto::Login};
use serde_json::{Value, json};

use super::SETTLE;
use newcomers::{Fate, Newcomer};

/// How long a run takes that somebody cancels: much longer than it is given.
const LONG_SECONDS: u32 = 50;

/// What people give a machine: the names in a change, and on the machine.
const GIVEN: [(&str, &str); 4] =
    [("label", "label"), ("assignment", "assignment"), ("tags", "tags"), ("interval", "interval_seconds")];

/// What was accepted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) task: &'static str,
    pub(super) key: String,
}

/// An account that somebody made.
#[derive(Debug, Clone)]
pub(super) enum Made {
    /// It is there, with this role and token.
    There(&'static str, String),
    /// It was removed.
    Gone,
    /// There was no answer.
    Unknown,
}

/// Everything that the controller promised, and what it must never have done.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) accepted: BTreeMap<RunId, Wanted>,
    /// Final states that somebody has seen.
    pub(super) finals: BTreeMap<RunId, RunState>,
    /// The runs of each request, by its id.
    pub(super) requests: BTreeMap<String, Vec<RunId>>,
    /// Requests that were refused: nothing may have come of them.
    pub(super) refused: BTreeSet<String>,
    /// Requests without an answer: whatever came of them, it was one set of runs.
    pub(super) unanswered: BTreeSet<String>,
    /// What each machine was given, by the field's name on it: the last that was acknowledged, then
    /// what was tried since without an answer.
    pub(super) given: BTreeMap<(String, &'static str), Vec<Value>>,
    pub(super) accounts: BTreeMap<String, Made>,
    /// Tokens that were replaced, or whose account was removed.
    pub(super) dead_tokens: Vec<String>,
    /// Runs of nearly a minute; whether a cancel was acknowledged.
    pub(super) long: BTreeMap<RunId, bool>,
    pub(super) wrong: u64,
    pub(super) unavailable: u64,
    /// Requests that were accepted over MQTT, and wrong ones that were refused there.
    pub(super) by_message: u64,
    pub(super) wrong_by_message: u64,
    pub(super) newcomers: BTreeMap<String, Newcomer>,
    /// The join token in force, unless nobody answered when it was replaced.
    pub(super) join_token: Option<String>,
    pub(super) dead_join_tokens: Vec<String>,
}

impl Account {
    /// Whether there is enough of everything.
    pub(super) fn is_worth_an_audit(&self) -> bool {
        let acknowledged =
            |field: &str| self.given.iter().any(|((_, given), values)| *given == field && values.len() == 1);
        let accounts = self.accounts.values().any(|made| matches!(made, Made::There(..)));
        let cancelled = self.long.values().any(|cancelled| *cancelled);
        let given = GIVEN.iter().all(|(_, field)| acknowledged(field));
        let has = |fate| self.newcomers.values().any(|newcomer| newcomer.fate == fate);
        let newcomers = has(Fate::Enrolled) && has(Fate::Forgotten) && !self.dead_join_tokens.is_empty();
        let messages = self.by_message > 0 && self.wrong_by_message > 0;
        self.accepted.len() > 40 && self.wrong > 0 && given && accounts && cancelled && newcomers && messages
    }

    fn was_accepted(&mut self, task: &'static str, key: &str, runs: Vec<RunId>) {
        self.refused.remove(key);
        self.unanswered.remove(key);
        let before = self.requests.entry(key.to_owned()).or_insert_with(|| runs.clone());
        assert_eq!(*before, runs, "one request is one set of runs: {key}");
        let wanted = |id| (id, Wanted { task, key: key.to_owned() });
        self.accepted.extend(runs.into_iter().map(wanted));
    }

    fn was_refused(&mut self, key: &str) {
        let accepted = self.requests.contains_key(key);
        assert!(!accepted, "a request that was accepted is not refused when it is repeated: {key}");
        self.unavailable += 1;
        // Had an earlier try been stored, this one would have been told of its runs.
        self.unanswered.remove(key);
        self.refused.insert(key.to_owned());
    }

    fn was_not_answered(&mut self, key: &str) {
        if !self.requests.contains_key(key) {
            self.refused.remove(key);
            self.unanswered.insert(key.to_owned());
        }
    }
}

pub(super) struct Operator {
    http: Http,
    login: Login,
    dice: Dice,
    machines: usize,
    account: Account,
    asked: u64,
}

impl Operator {
    pub(super) fn new(http: Http, login: Login, dice: Dice, machines: usize) -> Self {
        Self { http, login, dice, machines, account: Account::default(), asked: 0 }
    }

    /// Works until it is over, and until there is something to audit: on a busy machine most of the
    /// time goes by without an answer.
    pub(super) async fn work(mut self, over: &AtomicBool) -> Account {
        while !over.load(Ordering::Relaxed) || !self.account.is_worth_an_audit() {
            match self.dice.below(100) {
                0..30 => self.ask_one().await,
                30..38 => self.ask_by_message().await,
                38..43 => self.ask_all().await,
                43..48 => self.ask_and_cancel().await,
                48..54 => self.cancel_any().await,
                54..67 => self.give().await,
                67..72 => self.make_account().await,
                72..75 => self.change_account().await,
                75..81 => self.ask_wrongly().await,
                81..84 => self.ask_wrongly_by_message().await,
                84..89 => self.enrol().await,
                89..91 => self.rotate_join_token().await,
                _ => self.look().await,
            }
            tokio::time::sleep(self.dice.duration(Duration::from_millis(40))).await;
        }
        self.cancel_what_is_left().await;
        self.forget_who_is_unknown().await;
        self.account
    }

    fn machine(&mut self) -> String {
        match self.dice.below(10) {
            0 => "controller".into(),
            1 => "pi-1".into(),
            _ => self.simulated(),
        }
    }

    fn simulated(&mut self) -> String {
        format!("sim-{:05}", self.dice.below(self.machines as u64))
    }

    fn key(&mut self) -> String {
        self.asked += 1;
        format!("k{}", self.asked)
    }

    fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.dice.below(from.len() as u64)).unwrap()].clone()
    }

    /// A change: `None` without an answer, and what a refusal is was said: nothing was changed.
    async fn change(&mut self, method: &str, path: &str, body: Option<Value>) -> Option<Reply> {
        let reply = self.http.try_send(method, path, body).await.ok()?;
        assert!(reply.status < 400 || reply.status >= 500, "a right change is not refused: {method} {path} {reply:?}");
        if reply.status >= 500 {
            self.account.unavailable += 1;
        }
        Some(reply)
    }

    // --- runs ------------------------------------------------------------------------------------

    async fn ask_one(&mut self) {
        let (key, target) = (self.key(), self.machine());
        let body = json!({"task": "mark", "target": target, "args": {"key": key, "seconds": 0.2}, "request_id": key});
        // Some people press twice, and everybody whose question got no answer asks again: it is one
        // request.
        let times = if self.dice.chance(0.2) { 2 } else { 1 };
        for _ in 0..times {
            self.ask("mark", &key, body.clone()).await;
        }
    }

    async fn ask_all(&mut self) {
        let key = self.key();
        let body = json!({"task": "echo", "target": "@all", "args": {"text": key}, "request_id": key,
            "group": {"at_once": 5}});
        self.ask("echo", &key, body).await;
    }

    async fn ask(&mut self, task: &'static str, key: &str, body: Value) {
        for _ in 0..3 {
            match self.http.try_send("POST", "/api/runs", Some(body.clone())).await {
                Ok(reply) if reply.status == 202 => {
                    return self.account.was_accepted(task, key, reply.json::<AcceptedRuns>().runs);
                }
                Ok(reply) => {
                    assert!(reply.status >= 500, "a right request is not refused: {reply:?}");
                    return self.account.was_refused(key);
                }
                Err(_) => {
                    self.account.was_not_answered(key);
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
        }
    }

    /// Something that takes nearly a minute on a machine that is real, and that nobody waits for.
    async fn ask_and_cancel(&mut self) {
        let (key, target) = (self.key(), self.choose(&["controller", "pi-1"]));
        let body =
            json!({"task": "mark", "target": target, "args": {"key": key, "seconds": LONG_SECONDS}, "request_id": key});
        self.ask("mark", &key, body).await;
        let Some(run) = self.account.requests.get(&key).map(|runs| runs[0]) else { return };
        self.account.long.insert(run, false);
        tokio::time::sleep(self.dice.duration(Duration::from_secs(1))).await;
        self.cancel(run).await;
    }

    async fn cancel_any(&mut self) {
        if let Some(id) = self.any_run() {
            self.cancel(id).await;
        }
    }

    /// Whether there was an answer.
    async fn cancel(&mut self, id: RunId) -> bool {
        let Ok(reply) = self.http.try_send("POST", &format!("/api/runs/{id}/cancel"), None).await else { return false };
        match reply.status {
            202 => {
                if let Some(cancelled) = self.account.long.get_mut(&id) {
                    *cancelled = true;
                }
                true
            }
            // It has ended; an old one is not even looked for.
            404 | 409 => true,
            _ => {
                assert!(reply.status >= 500, "{reply:?}");
                false
            }
        }
    }

    async fn cancel_what_is_left(&mut self) {
        let started = Instant::now();
        let left: Vec<RunId> =
            self.account.long.iter().filter(|(_, cancelled)| !**cancelled).map(|(id, _)| *id).collect();
        for id in left {
            while !self.cancel(id).await {
                assert!(started.elapsed() < SETTLE, "nobody answers");
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    }

    async fn ask_wrongly(&mut self) {
        let (key, target) = (self.key(), self.machine());
        let wrong = [
            json!({"task": "no-such-task", "target": target}),
            json!({"task": "mark", "target": target, "args": {"key": "never;id"}}),
            json!({"task": "mark", "target": target, "args": {"key": "never", "extra": 1}}),
            json!({"task": "echo", "target": "@no-such-tag", "args": {"text": "never"}}),
            json!({"task": "echo", "target": target, "args": {"text": "-never"}}),
            json!({"task": "careful", "target": target}),
        ];
        let mut wrong = self.choose(&wrong);
        wrong["request_id"] = json!(key);
        self.account.refused.insert(key);
        if let Ok(reply) = self.http.try_send("POST", "/api/runs", Some(wrong.clone())).await {
            assert!(reply.status >= 400, "{wrong} is refused, not {reply:?}");
            self.account.wrong += 1;
        }
    }

    async fn look(&mut self) {
        let Some(id) = self.any_run() else { return };
        if let Ok(reply) = self.http.try_send("GET", &format!("/api/runs/{id}"), None).await
            && reply.status < 500
        {
            let run: Run = reply.json();
            if run.state.is_final() {
                let seen = *self.account.finals.entry(id).or_insert(run.state);
                assert_eq!(seen, run.state, "a final state never changes: {run:?}");
            }
        }
    }

    fn any_run(&mut self) -> Option<RunId> {
        let count = self.account.accepted.len();
        let index = usize::try_from(self.dice.below(count as u64)).unwrap();
        self.account.accepted.keys().nth(index).copied()
    }

    // --- what is given and made ------------------------------------------------------------------

    async fn give(&mut self) {
        let pi = self.simulated();
        let ((name, field), key) = (self.choose(&GIVEN), self.key());
        let value = match name {
            "tags" => json!([format!("t-{key}"), "tagged"]),
            "interval" => self.choose(&[json!(0.5), json!(1.0), json!(2.5), Value::Null]),
            "assignment" if self.dice.chance(0.3) => Value::Null,
            _ => json!(key),
        };
        // Until one is acknowledged, the machine may have what it has by itself.
        let own = match name {
            "label" => json!(format!("Simulated {pi}")),
            "tags" => json!([]),
            _ => Value::Null,
        };
        self.account.given.entry((pi.clone(), field)).or_insert_with(|| vec![own]);
        let reply = self.change("PATCH", &format!("/api/pis/{pi}"), Some(json!({name: value}))).await;
        let values = self.account.given.get_mut(&(pi, field)).unwrap();
        match reply {
            Some(reply) if reply.status == 200 => *values = vec![value],
            Some(_) => {}
            // It may have been stored before the answer was lost.
            None => values.push(value),
        }
    }

    async fn make_account(&mut self) {
        let (name, role) = (self.key(), self.choose(&["viewer", "operator", "admin"]));
        let reply = self.change("POST", "/api/accounts", Some(json!({"name": name, "role": role}))).await;
        match reply {
            Some(reply) if reply.status == 201 => {
                self.account.accounts.insert(name, Made::There(role, reply.json::<NewToken>().token));
            }
            Some(_) => drop(self.account.accounts.insert(name, Made::Gone)),
            None => drop(self.account.accounts.insert(name, Made::Unknown)),
        }
    }

    /// Removes an account, or gives it another token.
    async fn change_account(&mut self) {
        let there = self.account.accounts.iter().filter(|(_, made)| matches!(made, Made::There(..)));
        let Some(name) = there.map(|(name, _)| name.clone()).next() else { return };
        let Some(Made::There(role, token)) = self.account.accounts.insert(name.clone(), Made::Unknown) else { return };
        let is_removed = self.dice.chance(0.5);
        let (method, path) = if is_removed {
            ("DELETE", format!("/api/accounts/{name}"))
        } else {
            ("POST", format!("/api/accounts/{name}/rotate"))
        };
        let made = match self.change(method, &path, None).await {
            Some(reply) if reply.status >= 500 => Made::There(role, token),
            Some(reply) => {
                self.account.dead_tokens.push(token);
                if is_removed { Made::Gone } else { Made::There(role, reply.json::<NewToken>().token) }
            }
            None => Made::Unknown,
        };
        self.account.accounts.insert(name, made);
    }
}
