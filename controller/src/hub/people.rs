//! Accounts, sign-ins and enrolments: decided by [`crate::access`], stored, then in force
//! everywhere at once.

use std::{net::IpAddr, sync::Arc, time::Duration};

use pistat_protocol::{
    api::{Login, NewAccount},
    dashboard::{EventKind, Severity},
    id::{AccountName, PiId},
    order::JoinToken,
    time::Timestamp,
};
use pistat_support::random::new_secret;

use super::{
    Hub, PendingAccess, PendingCommit, PendingReply,
    ask::{Browser, Refused, Reply, Rotation, SignedIn},
    attempts::CODE_LIFETIME,
    refuse,
    repeats::{Line, Repeated, source},
    tell,
};
use crate::{
    access::{
        AccessChange, AccessRefusal, AccountRecord, AgentRecord, Caller, Credential, MAX_SESSIONS_PER_ACCOUNT,
        SecretHash, SessionRecord, user_agent,
    },
    config::{check_not_brokers, check_publish_rule, parse_duration},
    directory::directory,
    store::{Durability, MetadataPatch, Stored, Write},
};

/// How long something that expires lasts at least and at most.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);
const LONGEST_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);

/// The longest that an answer to bad credentials waits.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// How long an account or a join token lasts.
///
/// # Errors
/// It is not a duration, or none that makes sense.
pub(crate) fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = parse_duration(text)?;
    if (SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&lifetime) {
        return Ok(lifetime);
    }
    Err(format!("{text:?} is not from one second to ten years: write how long it lasts, such as 24h or 30d"))
}

impl Hub {
    /// Accounts or machines changed: every way in knows it at once.
    pub(super) fn access_changed(&mut self) {
        self.access_watch.send_replace(self.access.clone());
        if let Some(broker) = &self.broker {
            let Self { access, config, join_token, controller_secret, now, .. } = self;
            broker.set_directory(directory(access, &config.accounts, join_token, *controller_secret, now.wall));
        }
    }

    /// Stores a change of accounts, machines or sessions. Its line of the audit log waits with it,
    /// so that the log never tells of a change that the disk has refused.
    pub(super) fn store_access(&mut self, changes: Vec<AccessChange>, line: Option<Line>, after: PendingAccess) {
        for name in changes.iter().filter_map(AccessChange::name) {
            self.commits.begin_change(name);
        }
        self.commits.store(
            Durability::Rejectable,
            Write::Access(changes.clone()),
            PendingCommit::Access(changes, line, after),
        );
    }

    /// Refuses to decide about a name of which another change is being stored.
    pub(super) fn check_settled(&self, key: &str, name: &str) -> Result<(), Refused> {
        let refused = || {
            Refused::unavailable(format!(
                "{name} is being changed by somebody else at this moment: look at it, then try again"
            ))
        };
        if self.commits.is_changing(key) { Err(refused()) } else { Ok(()) }
    }

    /// What has been stored is in force, before anybody is told so. A fleet that enrols all at once
    /// makes few new directories, not one for each machine.
    pub(super) fn apply_access(&mut self, batch: &[Stored]) {
        let (mut has_changed, mut accounts) = (false, Vec::new());
        for stored in batch.iter().filter(|stored| stored.result.is_ok()) {
            if let Some(PendingCommit::Access(changes, ..)) = self.commits.get_mut(stored.ticket) {
                for change in std::mem::take(changes) {
                    Arc::make_mut(&mut self.access).apply(&change);
                    self.attempts.follow(&change);
                    if let Some(name) = change.name() {
                        self.commits.end_change(&name);
                    }
                    if let AccessChange::PutAccount(account) = change {
                        accounts.push(account.name.clone());
                    }
                }
                has_changed = true;
            }
        }
        for name in accounts {
            self.name_is_taken(name.as_str(), None);
        }
        if has_changed {
            self.access_changed();
        }
    }

    pub(super) fn access_stored(&mut self, line: Option<Line>, after: PendingAccess) {
        if let Some(line) = line {
            self.line(line);
        }
        match after {
            PendingAccess::Done(reply) => tell(reply, ()),
            PendingAccess::Token { reply, token, admin } => self.token_stored(reply, token, admin),
            PendingAccess::SignedIn(reply, session) => self.signed_in(reply, session),
            PendingAccess::Enrolled(joining) => self.enrolled(joining),
            PendingAccess::Forgotten(pi, by, reply) => {
                // Nobody gives it anything and it does not come back before it has nothing any
                // more.
                self.commits.begin_change(pi.key());
                self.commits.store(
                    Durability::Required,
                    Write::Metadata(pi.clone(), MetadataPatch::forget()),
                    PendingCommit::Forgotten(pi, by, Some(PendingReply::Web(reply))),
                );
            }
            PendingAccess::Used => self.uses_stored(),
            PendingAccess::Returned => {}
        }
    }

    pub(super) fn access_not_stored(&mut self, changes: &[AccessChange], after: PendingAccess, sentence: &str) {
        for name in changes.iter().filter_map(AccessChange::name) {
            self.commits.end_change(&name);
        }
        let refused = Refused::unavailable(sentence);
        match after {
            PendingAccess::Done(reply) | PendingAccess::Forgotten(_, _, reply) => refuse(reply, refused),
            PendingAccess::Token { reply, .. } => refuse(reply, refused),
            PendingAccess::SignedIn(reply, ..) => refuse(reply, refused),
            // The machine repeats its request until it is answered, and its next word tells that it
            // is back.
            PendingAccess::Enrolled(_) | PendingAccess::Returned | PendingAccess::Used => {}
        }
    }

    fn token_stored(&mut self, reply: Reply<String>, token: String, admin: bool) {
        if !admin {
            return tell(reply, token);
        }
        // Without its file the next start would make another one.
        self.commits.store(
            Durability::Required,
            Write::AdminToken(token.clone()),
            PendingCommit::AdminToken(token, Some(reply)),
        );
    }

    pub(super) fn sign_in(&mut self, login: Login, browser: &Browser, reply: Reply<SignedIn>) {
        let account = match login {
            Login::Code { code } => self.attempts.take_code(&code, self.now),
            Login::Token { token } => {
                self.access.caller_by_token(token.trim(), self.now.wall).map(|caller| caller.account)
            }
        };
        let account = account.and_then(|name| self.access.account(name.as_str()));
        let Some(account) = account.filter(|account| account.is_in_force(self.now.wall)).cloned() else {
            let sentence = "this sign-in link or token is not valid (a link works once, for 15 minutes): `pistat login` on the controller prints a new link";
            return refuse(reply, Refused::unauthenticated(sentence));
        };
        if self.access.session_count(&account.name, self.now.wall) >= MAX_SESSIONS_PER_ACCOUNT {
            let text = format!(
                "{name} has {MAX_SESSIONS_PER_ACCOUNT} sessions, which is as many as an account may have: end those that are \
                 not needed with `pistat sessions end-all {name}`",
                name = account.name
            );
            return refuse(reply, Refused::conflict(text));
        }
        let (Ok(cookie), Ok(key)) = (new_secret(), new_secret()) else {
            return refuse(reply, Refused::unavailable("the system has no randomness"));
        };
        let hash = SecretHash::of(&cookie);
        let caller =
            Caller { account: account.name.clone(), role: account.role, credential: Credential::Session(hash) };
        let session = SessionRecord {
            account: account.name,
            created_at: self.now.wall,
            key_sha256: Some(SecretHash::of(&key)),
            address: Some(browser.address),
            user_agent: browser.user_agent.as_deref().map(user_agent),
        };
        let change = AccessChange::PutSession { cookie: hash, session, token: account.token_sha256 };
        self.store_access(
            vec![change],
            None,
            PendingAccess::SignedIn(reply, SignedIn { caller, address: browser.address, cookie, key }),
        );
    }

    fn signed_in(&mut self, reply: Reply<SignedIn>, session: SignedIn) {
        let caller = &session.caller;
        if !self.access.still_holds(caller, self.now.wall) {
            let sentence =
                "this account was changed while you signed in: use a new sign-in link, or sign in with its new token";
            return refuse(reply, Refused::unauthenticated(sentence));
        }
        let address = session.address;
        let line = access_line(caller, Severity::Info, None, format!("signed in from {address}"));
        self.repeated_event(Repeated::SignIn, caller.account.key(), line);
        tell(reply, session);
    }

    pub(super) fn sign_out(&mut self, session: SecretHash, reply: Reply<()>) {
        self.store_access(vec![AccessChange::RemoveSession(session)], None, PendingAccess::Done(reply));
    }

    pub(super) fn login_link(&mut self, caller: &Caller, reply: Reply<(String, Timestamp)>) {
        match self.attempts.make_code(caller.account.clone(), self.now) {
            Ok(code) => {
                let lifetime = i64::try_from(CODE_LIFETIME.as_millis()).unwrap_or(0);
                let expires_at = Timestamp::from_unix_milliseconds(self.now.wall.unix_milliseconds() + lifetime);
                tell(reply, (code, expires_at));
            }
            Err(error) => refuse(reply, Refused::unavailable(format!("the system has no randomness: {error}"))),
        }
    }

    /// Each bad try of an address makes its next answer slower; good credentials are never delayed.
    pub(super) fn bad_credentials(&mut self, address: IpAddr, reply: Reply<Duration>) {
        let count = self.attempts.bad_credentials(address, self.now.monotonic);
        if count == 3 {
            let line = Line {
                kind: EventKind::Access,
                severity: Severity::Warning,
                pi: None,
                run: None,
                account: None,
                text: format!("refused from {address}: bad credentials, three times"),
            };
            self.repeated_event(Repeated::Credentials, source(address), line);
        }
        tell(reply, Duration::from_millis(50).saturating_mul(1 << count.min(10)).min(MAX_DELAY));
    }

    pub(super) fn add_account(&mut self, caller: &Caller, account: NewAccount, reply: Reply<String>) {
        let is_machine = |name: &str| self.fleet.ids().any(|pi| pi.as_str().eq_ignore_ascii_case(name));
        let name = &account.name;
        let free = || self.access.check_new_account(name, is_machine).map_err(Refused::conflict);
        if let Err(refused) = self.check_settled(&name.key(), name.as_str()).and_then(|()| free()) {
            return refuse(reply, refused);
        }
        if let Err(sentence) = self.check_rules(&account) {
            return refuse(reply, Refused::bad(sentence));
        }
        let lifetime = match account.expires.as_deref().map(lifetime).transpose() {
            Ok(lifetime) => lifetime,
            Err(sentence) => return refuse(reply, Refused::bad(sentence)),
        };
        let mut record = AccountRecord {
            name: account.name,
            role: account.role,
            token_sha256: SecretHash([0; 32]),
            publish: account.publish,
            subscribe: account.subscribe,
            created_at: self.now.wall,
            expires_at: None,
            lifetime_milliseconds: None,
            rotations: 0,
        };
        record.expire_after(lifetime, self.now.wall);
        let text = format!("made account {} ({})", record.name, record.role);
        self.give_token(record, access_line(caller, Severity::Info, None, text), reply);
    }

    fn check_rules(&self, account: &NewAccount) -> Result<(), String> {
        for filter in account.publish.iter().chain(&account.subscribe) {
            let levels: Vec<_> = filter.split('/').collect();
            let last = levels.len() - 1;
            let valid = |(index, level): (usize, &&str)| {
                *level == "+" || (*level == "#" && index == last) || !level.contains(['+', '#', '\0'])
            };
            if filter.is_empty() || filter.len() > 1024 || !levels.iter().enumerate().all(valid) {
                return Err(format!(
                    "{filter:?} is not a topic filter: `+` stands for one level, `#` for all that follow, at the end"
                ));
            }
        }
        account
            .publish
            .iter()
            .try_for_each(|filter| check_publish_rule(filter, &self.topics).and_then(|()| check_not_brokers(filter)))
    }

    fn give_token(&mut self, mut record: AccountRecord, line: Line, reply: Reply<String>) {
        let Ok(token) = new_secret() else {
            return refuse(reply, Refused::unavailable("the system has no randomness"));
        };
        record.token_sha256 = SecretHash::of(&token);
        let admin = record.name == AccountName::admin();
        let after = PendingAccess::Token { reply, token, admin };
        self.store_access(vec![AccessChange::PutAccount(record)], Some(line), after);
    }

    pub(super) fn remove_account(&mut self, caller: &Caller, name: AccountName, reply: Reply<()>) {
        if name.key() == AccountName::admin().key() {
            return refuse(reply, Refused::conflict(AccessRefusal::Admin));
        }
        if let Err(refused) = self.check_settled(&name.key(), name.as_str()) {
            return refuse(reply, refused);
        }
        if self.access.account(name.as_str()).is_none() {
            return refuse(reply, Refused::missing(AccessRefusal::NoAccount(name.to_string())));
        }
        let line = access_line(caller, Severity::Warning, None, format!("removed account {name}"));
        self.store_access(vec![AccessChange::RemoveAccount(name)], Some(line), PendingAccess::Done(reply));
    }

    pub(super) fn rotate_account(
        &mut self,
        caller: &Caller,
        name: &AccountName,
        rotation: Rotation,
        reply: Reply<String>,
    ) {
        if let Err(refused) = self.check_settled(&name.key(), name.as_str()) {
            return refuse(reply, refused);
        }
        let Some(mut record) = self.access.account(name.as_str()).cloned() else {
            return refuse(reply, Refused::missing(AccessRefusal::NoAccount(name.to_string())));
        };
        let is_admin = record.name == AccountName::admin();
        if is_admin && (rotation.lifetime.is_some() || rotation.role.is_some_and(|role| role != record.role)) {
            let text = "the account admin keeps its role and does not expire: it is how you get in";
            return refuse(reply, Refused::conflict(text));
        }
        record.role = rotation.role.unwrap_or(record.role);
        record.rotations = record.rotations.saturating_add(1);
        record.expire_after(rotation.lifetime.or_else(|| record.lifetime()), self.now.wall);
        let text = format!("gave account {} a new token ({})", record.name, record.role);
        self.give_token(record, access_line(caller, Severity::Info, None, text), reply);
    }

    pub(super) fn rotate_join_token(&mut self, caller: &Caller, reply: Reply<JoinToken>) {
        let Ok(secret) = new_secret() else {
            return refuse(reply, Refused::unavailable("the system has no randomness"));
        };
        let token = JoinToken { secret, fingerprint: self.key.public().fingerprint() };
        self.commits.store(
            Durability::Rejectable,
            Write::JoinToken(token.clone()),
            PendingCommit::JoinToken(token, caller.account.to_string(), reply),
        );
    }

    pub(super) fn join_token_stored(&mut self, token: JoinToken, by: &str, reply: Reply<JoinToken>) {
        self.join_token = token.clone();
        self.access_changed();
        self.event(EventKind::Access, Severity::Info, None, None, Some(by), "made a new join token".into());
        self.restore_default_token();
        tell(reply, token);
    }

    /// Whether a machine that is not known yet may have its pi-id: what is let in by name must not
    /// be found by the name of another.
    pub(super) fn check_name(&self, pi: &PiId) -> Result<(), AccessRefusal> {
        match self.fleet.other_named(pi).filter(|_| self.access.agent(pi.as_str()).is_none()) {
            Some(owner) => Err(AccessRefusal::NameOfMachine { name: pi.to_string(), owner: owner.clone() }),
            None => Ok(()),
        }
    }

    pub(super) fn add_agent(&mut self, caller: &Caller, pi: PiId, reply: Reply<String>) {
        let free = || self.access.check_new_agent(&pi).and_then(|()| self.check_name(&pi)).map_err(Refused::conflict);
        if let Err(refused) = self.check_settled(&pi.key(), pi.as_str()).and_then(|()| free()) {
            return refuse(reply, refused);
        }
        let known = self.access.agent(pi.as_str()).cloned();
        if known.as_ref().is_some_and(|agent| agent.secret_sha256.is_some() && !agent.open) {
            return refuse(reply, Refused::conflict(AccessRefusal::Enrolled(pi)));
        }
        let fresh = AgentRecord {
            pi: pi.clone(),
            secret_sha256: None,
            serial: None,
            enrolled_at: None,
            open: false,
            token_sha256: None,
        };
        let text = "may enrol with a token of its own";
        self.give_agent_token(caller, known.unwrap_or(fresh), Severity::Info, text, reply);
    }

    /// Allows one new enrolment, with a token that is made for it: any other join token is known to
    /// others.
    pub(super) fn reset_agent(&mut self, caller: &Caller, pi: &PiId, reply: Reply<String>) {
        if let Err(refused) = self.check_settled(&pi.key(), pi.as_str()) {
            return refuse(reply, refused);
        }
        let Some(agent) = self.access.agent(pi.as_str()).cloned() else {
            return refuse(reply, Refused::missing(AccessRefusal::NoAgent(pi.to_string())));
        };
        let text = "may enrol anew, once, with a token of its own";
        self.give_agent_token(caller, AgentRecord { open: true, ..agent }, Severity::Warning, text, reply);
    }

    fn give_agent_token(
        &mut self,
        caller: &Caller,
        agent: AgentRecord,
        severity: Severity,
        text: &str,
        reply: Reply<String>,
    ) {
        let Ok(secret) = new_secret() else {
            return refuse(reply, Refused::unavailable("the system has no randomness"));
        };
        let line = access_line(caller, severity, Some(agent.pi.clone()), text.into());
        let agent = AgentRecord { token_sha256: Some(SecretHash::of(&secret)), ..agent };
        let token = JoinToken { secret, fingerprint: self.key.public().fingerprint() }.to_string();
        let after = PendingAccess::Token { reply, token, admin: false };
        self.store_access(vec![AccessChange::PutAgent(agent)], Some(line), after);
    }
}

/// A line of the audit log about a change that a caller makes.
pub(super) fn access_line(caller: &Caller, severity: Severity, pi: Option<PiId>, text: String) -> Line {
    let account = Some(caller.account.to_string());
    Line { kind: EventKind::Access, severity, pi, run: None, account, text }
}
