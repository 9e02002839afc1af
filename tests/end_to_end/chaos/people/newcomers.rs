//! Machines that come and go: enrolled with the fleet's join token or with a token of their own,
//! and forgotten; and the join token is replaced.

use std::{net::SocketAddr, time::Instant};

use pistat_protocol::api::{EnrolmentToken, JoinTokenView};
use pistat_testkit::{FakeAgent, Http, Stack, fake_agent::Identity};
use serde_json::{Value, json};

use super::{Account, Operator, SETTLE};

/// So many may stay: each is asked for a run with everybody, and none of them answers.
const STAY: usize = 4;

/// What became of a machine that somebody enrolled, or tried to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Fate {
    /// It was told that it may come.
    Enrolled,
    /// That it was forgotten was acknowledged.
    Forgotten,
    /// There was no answer to its enrolment, or to its removal.
    Unknown,
}

#[derive(Debug)]
pub(in super::super) struct Newcomer {
    pub(in super::super) fate: Fate,
    /// What it comes in with, where its enrolment was answered.
    identity: Option<Identity>,
}

impl Operator {
    pub(super) async fn enrol(&mut self) {
        if self.staying().count() >= STAY || self.dice.chance(0.3) {
            return self.forget_one().await;
        }
        let pi = format!("extra-{}", self.key());
        let token = if self.dice.chance(0.5) { self.join_token().await } else { self.token_of_its_own(&pi).await };
        let Some(token) = token else { return };
        let (fate, identity) = match Identity::enrol(self.login.address, &pi, &token).await {
            Ok(identity) => (Fate::Enrolled, Some(identity)),
            Err(error) => {
                let is_turned_away = error.contains("NotAuthorized") || error.contains("BadUserNamePassword");
                assert!(!is_turned_away, "{pi} has a token in force, and is turned away: {error}");
                (Fate::Unknown, None)
            }
        };
        self.account.newcomers.insert(pi, Newcomer { fate, identity });
    }

    /// The token in force: the one that was given out last, if that was acknowledged.
    async fn join_token(&mut self) -> Option<String> {
        let reply = self.http.try_send("GET", "/api/join-token", None).await.ok()?;
        if reply.status >= 500 {
            return None;
        }
        let token = reply.json::<JoinTokenView>().token;
        if let Some(known) = self.account.join_token.replace(token.clone()) {
            assert_eq!(known, token, "the join token is the one that was given out");
        }
        Some(token)
    }

    async fn token_of_its_own(&mut self, pi: &str) -> Option<String> {
        let reply = self.change("POST", "/api/enrolments", Some(json!({"pi": pi}))).await;
        match reply {
            Some(reply) if reply.status == 201 => Some(reply.json::<EnrolmentToken>().token),
            Some(_) => None,
            None => {
                self.account.newcomers.insert(pi.to_owned(), Newcomer { fate: Fate::Unknown, identity: None });
                None
            }
        }
    }

    pub(super) async fn rotate_join_token(&mut self) {
        let Some(old) = self.join_token().await else { return };
        match self.change("POST", "/api/join-token/rotate", None).await {
            Some(reply) if reply.status == 200 => {
                let new = reply.json::<JoinTokenView>().token;
                assert_ne!(old, new);
                self.account.dead_join_tokens.push(old);
                self.account.join_token = Some(new);
            }
            Some(_) => {}
            None => self.account.join_token = None,
        }
    }

    fn staying(&self) -> impl Iterator<Item = &String> {
        self.account.newcomers.iter().filter(|(_, newcomer)| newcomer.fate != Fate::Forgotten).map(|(pi, _)| pi)
    }

    async fn forget_one(&mut self) {
        let first = self.staying().next().cloned();
        if let Some(pi) = first {
            self.forget(&pi).await;
        }
    }

    async fn forget(&mut self, pi: &str) {
        let reply = self.http.try_send("DELETE", &format!("/api/pis/{pi}"), None).await;
        let newcomer = self.account.newcomers.get_mut(pi).expect("somebody tried to enrol it");
        newcomer.fate = match reply.map(|reply| reply.status) {
            Ok(204) => Fate::Forgotten,
            // An enrolment without an answer may have failed, a removal without an answer may have
            // been made.
            Ok(404) if newcomer.fate == Fate::Unknown => Fate::Forgotten,
            Ok(status) => {
                assert!(status >= 500, "{pi} can be forgotten: {status}");
                newcomer.fate
            }
            Err(_) => Fate::Unknown,
        };
    }

    /// Who has no answer asks again.
    pub(super) async fn forget_who_is_unknown(&mut self) {
        let unknown: Vec<_> =
            self.staying().filter(|pi| self.account.newcomers[*pi].fate == Fate::Unknown).cloned().collect();
        for pi in unknown {
            let started = Instant::now();
            while self.account.newcomers[&pi].fate == Fate::Unknown {
                assert!(started.elapsed() < SETTLE, "nobody answers");
                self.forget(&pi).await;
            }
        }
    }
}

impl Account {
    /// Whoever was enrolled comes in with its own secret, whoever was forgotten does not, and a
    /// token that was replaced lets nobody in. Gives those who came.
    pub(in super::super) async fn newcomers_come(&self, http: &Http, door: SocketAddr) -> Vec<FakeAgent> {
        let mut there = Vec::new();
        for (pi, identity) in self.identities(Fate::Enrolled) {
            let came = identity.try_connect().await;
            let mut agent = came.unwrap_or_else(|error| panic!("{pi} was enrolled, and cannot come: {error}"));
            agent.sample(1.0).await;
            there.push(agent);
        }
        // Who comes with what was revoked has to wait, longer each time: two stand for all.
        for (pi, identity) in self.identities(Fate::Forgotten).take(2) {
            assert!(identity.try_connect().await.is_err(), "{pi} was forgotten, and comes in");
        }
        if let Some(token) = self.dead_join_tokens.last() {
            let came = Identity::enrol(door, "extra-late", token).await;
            assert!(came.is_err(), "a token that was replaced lets nobody in: {came:?}");
        }
        let machines: Vec<Value> = http.get("/api/pis").await.json();
        let listed: Vec<_> = machines
            .iter()
            .filter_map(|machine| machine["id"].as_str())
            .filter(|pi| pi.starts_with("extra-"))
            .collect();
        let expected: Vec<_> = there.iter().map(|agent| agent.pi().as_str()).collect();
        assert_eq!(listed, expected, "of the newcomers, those who were enrolled and not forgotten");
        there
    }

    fn identities(&self, fate: Fate) -> impl Iterator<Item = (&String, Identity)> {
        let of_fate = self.newcomers.iter().filter(move |(_, newcomer)| newcomer.fate == fate);
        of_fate.filter_map(|(pi, newcomer)| Some((pi, newcomer.identity.clone()?)))
    }

    /// The join token that was given out last, unless nobody answered, is the one in the file and
    /// over HTTP.
    pub(in super::super) async fn join_token_is_in_force(&self, stack: &Stack) {
        let told = stack.http().get("/api/join-token").await.json::<JoinTokenView>().token;
        assert_eq!(told, stack.join_token(), "the file has the token in force");
        if let Some(known) = &self.join_token {
            assert_eq!(*known, told, "the join token is the one that was given out");
        }
    }
}
