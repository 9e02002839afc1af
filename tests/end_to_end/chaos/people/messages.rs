//! What people ask by `mosquitto_rr`. The promise is the answer: a request that got none may be
//! lost, but it is one set of runs at most.

use pistat_protocol::task::RequestAnswer;
use serde_json::{Value, json};

use super::Operator;

/// Seconds that people wait for an answer.
const DEADLINE_SECONDS: &str = "5";

impl Operator {
    pub(super) async fn ask_by_message(&mut self) {
        let (key, target) = (self.key(), self.machine());
        let args = json!({"key": key, "seconds": 0.2});
        let payload = json!({"task": "mark", "args": args, "request_id": key});
        match self.answer_to(&key, &target, &payload).await {
            Some(RequestAnswer::Accepted { runs }) => {
                self.account.was_accepted("mark", &key, runs);
                self.account.by_message += 1;
            }
            Some(RequestAnswer::Refused { .. }) => self.account.was_refused(&key),
            None => self.account.was_not_answered(&key),
        }
        // Who is not sure asks again, some of them by other means: it is one request.
        if self.dice.chance(0.3) {
            let body = json!({"task": "mark", "target": target, "args": args, "request_id": key});
            self.ask("mark", &key, body).await;
        }
    }

    pub(super) async fn ask_wrongly_by_message(&mut self) {
        let (key, target) = (self.key(), self.machine());
        let wrong = [
            json!({"task": "no-such-task", "request_id": key}),
            json!({"task": "mark", "args": {"key": "never;id"}, "request_id": key}),
            json!({"task": "echo", "args": {"text": "-never"}, "request_id": key}),
            json!({"task": "uptime", "expires": "1m", "request_id": key}),
        ];
        let wrong = self.choose(&wrong);
        self.account.refused.insert(key.clone());
        match self.answer_to(&key, &target, &wrong).await {
            Some(RequestAnswer::Accepted { runs }) => panic!("{wrong} was accepted as {runs:?}"),
            Some(RequestAnswer::Refused { .. }) => self.account.wrong_by_message += 1,
            None => {}
        }
    }

    /// Each request is answered at a topic of its own, so that no answer is taken for another's.
    async fn answer_to(&self, key: &str, target: &str, payload: &Value) -> Option<RequestAnswer> {
        let (topic, answers) = (format!("pistat/{target}/task/request"), format!("pistat/reply/{key}"));
        let payload = payload.to_string();
        let words = [
            "-V",
            "5",
            "-q",
            "1",
            "-t",
            &topic,
            "-e",
            &answers,
            "-m",
            &payload,
            "-W",
            DEADLINE_SECONDS,
            "-D",
            "publish",
            "correlation-data",
            key,
            "-F",
            "%D %p",
        ];
        let asked = self.login.request(&words).await;
        // It ends with an error where the controller was away, and when its patience ended.
        if asked.code != 0 {
            return None;
        }
        let (correlation, answer) = asked.stdout.split_once(' ').unwrap_or_else(|| panic!("an answer: {asked:?}"));
        assert_eq!(correlation, key, "an answer says to what: {asked:?}");
        Some(serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {asked:?}")))
    }
}
