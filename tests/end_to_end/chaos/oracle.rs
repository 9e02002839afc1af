//! The oracle: what people were promised, and what the machines saw, held against what the
//! controller says.

use std::{collections::BTreeMap, path::Path};

use pistat_protocol::{dashboard::Run, id::RunId, task::RunState};
use pistat_sim::Ledger;
use pistat_testkit::{Http, catalogue::starts, eventually};
use serde_json::Value;

use super::{
    SETTLE,
    people::{Account, Made},
};

impl Account {
    /// All runs of the register, once each is in a final state. A machine with a slow link has a
    /// queue after minutes, and may work it off one by one; but something ends all the time.
    pub(super) async fn settled(&self, http: &Http) -> BTreeMap<RunId, Run> {
        let mut open = u64::MAX;
        while open > 0 {
            open = eventually("a run ends", SETTLE, async || {
                let page = http.try_send("GET", "/metrics", None).await?.body;
                let lines = page.lines().filter(|line| line.starts_with("pistat_runs_open{"));
                let now: u64 = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
                if now < open { Ok(now) } else { Err(format!("{now} are open")) }
            })
            .await;
        }
        all_runs(http).await
    }

    pub(super) async fn audit(&self, http: &Http, runs: &BTreeMap<RunId, Run>, marks: &Path) {
        assert!(self.is_worth_an_audit(), "there was something to audit: {self:?}");
        for id in self.accepted.keys() {
            let run = runs.get(id).unwrap_or_else(|| panic!("{id} was accepted, and has vanished"));
            assert!(run.state.is_final(), "{run:?}");
        }
        for (id, seen) in &self.finals {
            assert_eq!(runs[id].state, *seen, "a final state never changes: {:?}", runs[id]);
        }
        self.one_request_is_one_set_of_runs(runs);
        self.what_was_cancelled_did_not_go_on(runs);
        self.what_was_given_is_there(http).await;
        self.accounts_are_as_promised(http).await;
        // The real processes, of the real agent and of the controller's own machine.
        for run in runs.values().filter(|run| run.task.as_str() == "mark" && !run.pi.as_str().starts_with("sim-")) {
            let started = starts(marks, run.request_id.as_deref().unwrap());
            assert!(started <= 1, "{started} starts of {run:?}");
            check_starts(run, started);
        }
    }

    fn one_request_is_one_set_of_runs(&self, runs: &BTreeMap<RunId, Run>) {
        let mut sets: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
        for run in runs.values() {
            sets.entry(run.request_id.as_deref().expect("every request had an id")).or_default().push(run);
        }
        for (key, set) in sets {
            let group = set[0].group;
            let is_one = if group.is_some() { set.iter().all(|run| run.group == group) } else { set.len() == 1 };
            assert!(is_one, "{key} is more than one set of runs: {set:?}");
            let machines = set.iter().map(|run| &run.pi).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(machines.len(), set.len(), "{key} is one run on each machine");
            assert!(!self.refused.contains(key), "{key} was refused, and yet made {set:?}");
            match self.requests.get(key) {
                Some(accepted) => {
                    let made = set.iter().map(|run| run.id).collect::<Vec<_>>();
                    let mut accepted = accepted.clone();
                    accepted.sort_unstable();
                    assert_eq!(made, accepted, "{key} is exactly the runs that were promised");
                }
                None => assert!(self.unanswered.contains(key), "nobody asked for {set:?}"),
            }
        }
    }

    fn what_was_cancelled_did_not_go_on(&self, runs: &BTreeMap<RunId, Run>) {
        for (id, _) in self.long.iter().filter(|(_, cancelled)| **cancelled) {
            let state = runs[id].state;
            // One that was rejected, as on a full disk, never started.
            let never_ran = matches!(state, RunState::Expired | RunState::Rejected);
            let ended = never_ran || matches!(state, RunState::Cancelled | RunState::Lost);
            assert!(ended, "a cancel was acknowledged, and the run went on to its end: {:?}", runs[id]);
        }
    }

    async fn what_was_given_is_there(&self, http: &Http) {
        let machines: Vec<Value> = http.get("/api/pis").await.json();
        for ((pi, field), values) in &self.given {
            let machine = machines.iter().find(|machine| machine["id"] == **pi).expect("no machine vanishes");
            let has = sorted(&machine[field]);
            let may = values.iter().any(|value| sorted(value) == has);
            assert!(may, "{pi} has {field} {has}; acknowledged, then tried: {values:?}");
        }
    }

    async fn accounts_are_as_promised(&self, http: &Http) {
        let listed: Vec<Value> = http.get("/api/accounts").await.json();
        for (name, made) in &self.accounts {
            let account = listed.iter().find(|account| account["name"] == **name);
            match made {
                Made::There(role, token) => {
                    assert_eq!(account.map(|account| &account["role"]), Some(&Value::from(*role)), "{name}");
                    let me: Value = http.bearer(token).get("/api/me").await.json();
                    assert_eq!((&me["account"], &me["role"]), (&Value::from(&**name), &Value::from(*role)));
                }
                Made::Gone => assert_eq!(account, None, "{name} was removed or never made"),
                Made::Unknown => {}
            }
        }
        // Who guesses tokens waits: a few stand for all.
        for token in self.dead_tokens.iter().take(3) {
            assert_eq!(http.bearer(token).get("/api/me").await.status, 401, "a token lives on");
        }
    }

    pub(super) fn summary(&self, runs: &BTreeMap<RunId, Run>) -> String {
        let mut states: BTreeMap<RunState, usize> = BTreeMap::new();
        for run in runs.values() {
            *states.entry(run.state).or_default() += 1;
        }
        format!(
            "{} requests accepted as {} runs, {} wrong ones refused, {} without an answer, {} while unavailable; {} long runs cancelled, \
             {} things given, {} accounts; over MQTT {} requests accepted and {} wrong ones refused; {} machines came, {} join tokens were \
             replaced; {states:?}",
            self.requests.len(),
            self.accepted.len(),
            self.wrong,
            self.unanswered.len(),
            self.unavailable,
            self.long.values().filter(|cancelled| **cancelled).count(),
            self.given.len(),
            self.accounts.len(),
            self.by_message,
            self.wrong_by_message,
            self.newcomers.len(),
            self.dead_join_tokens.len()
        )
    }
}

/// A list is a set here.
fn sorted(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Array(values) = &mut value {
        values.sort_by_key(ToString::to_string);
    }
    value
}

/// Whether a state may stand for so many starts.
fn check_starts(run: &Run, started: usize) {
    match run.state {
        RunState::Succeeded | RunState::Failed | RunState::TimedOut => assert_eq!(started, 1, "{run:?}"),
        RunState::Expired | RunState::Rejected => assert_eq!(started, 0, "{run:?} says that it never ran"),
        RunState::Lost | RunState::Cancelled => assert!(started <= 1, "{started} starts of {run:?}"),
        RunState::Queued | RunState::Dispatched | RunState::Running => panic!("{run:?} is not settled"),
    }
}

async fn all_runs(http: &Http) -> BTreeMap<RunId, Run> {
    let mut all: BTreeMap<RunId, Run> = BTreeMap::new();
    let mut path = "/api/runs?limit=500".to_owned();
    loop {
        let page: Vec<Run> = http.get(&path).await.json();
        let Some(last) = page.last() else { return all };
        path = format!("/api/runs?limit=500&before={}", last.id);
        for run in page {
            let (id, state) = (run.id, run.state);
            if let Some((newer, _)) = all.first_key_value() {
                assert!(id < *newer, "the list is newest first, and ids never go back: {id} ({state}) after {newer}");
            }
            all.insert(id, run);
        }
    }
}

/// What the simulated machines saw, held against what the controller says.
pub(super) fn held_against(ledger: &Ledger, account: &Account, runs: &BTreeMap<RunId, Run>) {
    let mut compared = 0;
    for (id, found) in &ledger.starts {
        let [start] = &found[..] else { panic!("{id} was started {} times: {found:?}", found.len()) };
        let run = runs.get(id).unwrap_or_else(|| panic!("{start:?} of {id} was started, and no such run was approved"));
        assert_eq!((&run.pi, &run.task), (&start.pi, &start.task), "{id}");
        let key = run.request_id.clone().unwrap();
        let argv = start.argv.join(" ");
        let wanted = match run.task.as_str() {
            "mark" => argv.ends_with(&format!(" {key} 0.2")),
            "echo" => start.argv == ["printf", "%s\n", &key],
            _ => false,
        };
        assert!(wanted, "{argv} is not what was approved as {run:?}");
        if let Some(wanted) = account.accepted.get(id) {
            assert_eq!((run.task.as_str(), &key), (wanted.task, &wanted.key));
        }
        compared += 1;
    }
    for run in runs.values().filter(|run| run.pi.as_str().starts_with("sim-")) {
        check_starts(run, ledger.starts.get(&run.id).map_or(0, Vec::len));
        // A machine's own word is the controller's, unless the controller could know better: a
        // cancel, or evidence of a loss.
        if let Some(end) = ledger.ends.get(&run.id)
            && run.state != RunState::Lost
        {
            assert_eq!(run.state, *end, "{run:?}");
        }
    }
    assert!(compared > 20, "there was something to compare");
    println!("{compared} starts compared; orders refused by machines: {:?}", ledger.refused);
}
