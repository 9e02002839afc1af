//! `login`, `events`, `account`, `join-token`, `agent`: what needs the role admin, but for
//! `events`.
//!
//! A token is the only thing on standard output, so that a script can keep it; what to do with it
//! is said on standard error.

use pistat_protocol::{
    account::Account,
    api::{
        Enrolment, EnrolmentToken, JoinTokenInfo, JoinTokenView, LoginLink, NewAccount, NewEnrolment, NewJoinToken,
        NewToken, SessionView,
    },
    dashboard::{Event, Machine},
    id::PiId,
    time::Timestamp,
};
use ureq::http::Method;

use super::{
    args,
    client::{Client, query},
    console::Console,
    failure::Failure,
};
use crate::terminal::{self, Style, View, clean};

pub(super) fn login(client: &Client, console: &mut Console<'_>) -> Result<(), Failure> {
    let link: LoginLink = client.post_empty("/api/login-links")?;
    let url = format!("{}/#login={}\n", client.elsewhere(&link.controller_url), link.code);
    let expires = link.expires_at;
    console.show(&link, |_, _| url)?;
    if !console.json {
        console.remark(&format!("It signs in one browser, until {expires}.\n"));
    }
    Ok(())
}

/// How many events one request asks for: as many as an answer has at most.
const PAGE: usize = 1000;

pub(super) fn events(client: &Client, console: &mut Console<'_>, asked: &args::Events) -> Result<(), Failure> {
    let machines: Vec<Machine> =
        if console.json && asked.pi.is_none() { Vec::new() } else { client.get("/api/pis")? };
    let limit = if asked.limit == 0 { usize::MAX } else { asked.limit };
    // One more than is shown tells whether there are more.
    let mut events = find_events(client, &event_filter(asked, &machines)?, limit.saturating_add(1))?;
    let has_more = events.len() > limit;
    events.truncate(limit);
    // On a terminal the newest belongs at the end, above the prompt.
    console.show(&events, |events, style| {
        events.iter().rev().map(|event| terminal::event(event, &machines, style)).collect()
    })?;
    if has_more {
        console
            .remark(&format!("These are the newest {limit}. There are more: --limit N shows so many, --limit 0 all\n"));
    }
    Ok(())
}

/// The query that filters events. A machine that was forgotten still has events, so an unknown name
/// is taken as its id.
fn event_filter(asked: &args::Events, machines: &[Machine]) -> Result<String, Failure> {
    let mut filter = Vec::new();
    if let Some(name) = &asked.pi {
        let pi = match (View { machines, tasks: &[], runs: &[] }).machine(name) {
            Ok(machine) => machine.id.to_string(),
            Err(refusal) => name.parse::<PiId>().map_err(|_| Failure::Refused(refusal))?.to_string(),
        };
        filter.push(format!("&pi={pi}"));
    }
    if let Some(account) = &asked.account {
        filter.push(format!("&account={}", query(account)));
    }
    if let Some(kind) = asked.kind {
        filter.push(format!("&kind={}", kind.as_str()));
    }
    if let Some(since) = asked.since {
        filter.push(format!("&since={}", query(&since.to_string())));
    }
    Ok(filter.concat())
}

/// As many as are wanted, newest first, page by page.
fn find_events(client: &Client, filter: &str, wanted: usize) -> Result<Vec<Event>, Failure> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let count = (wanted - events.len()).min(PAGE);
        let before = events.last().map(|event| format!("&before={}", event.seq)).unwrap_or_default();
        let page: Vec<Event> = client.get(&format!("/api/events?limit={count}{before}{filter}"))?;
        let is_last = page.len() < count;
        events.extend(page);
        if is_last || events.len() >= wanted {
            return Ok(events);
        }
    }
}

pub(super) fn account(client: &Client, console: &mut Console<'_>, command: args::Account) -> Result<(), Failure> {
    match command {
        args::Account::Add { name, role, publish, subscribe, expires } => {
            let account = NewAccount { name, role, publish, subscribe, expires };
            let token: NewToken = client.post("/api/accounts", &account)?;
            new_token(console, &token, "This token is shown once. Over MQTT it is the password of the user")
        }
        args::Account::List => {
            let accounts: Vec<Account> = client.get("/api/accounts")?;
            console.show(&accounts, |accounts, _| accounts.iter().map(account_line).collect())
        }
        args::Account::Remove { name } => {
            client.act(Method::DELETE, &format!("/api/accounts/{name}"))?;
            console.done(&format!("{name} is removed, and its sessions are ended"))
        }
        args::Account::Rotate { name, expires } => {
            let path = format!("/api/accounts/{name}/rotate");
            let token: NewToken = match expires {
                Some(expires) => client.post(&path, &serde_json::json!({ "expires": expires }))?,
                None => client.post_empty(&path)?,
            };
            new_token(console, &token, "The old token has ended. This one is shown once; it is for")
        }
    }
}

fn account_line(account: &Account) -> String {
    let rules = |verb: &str, filters: &[String]| {
        let filters: Vec<_> = filters.iter().map(|filter| clean(filter)).collect();
        if filters.is_empty() { String::new() } else { format!("  {verb} {}", filters.join(" ")) }
    };
    let (publish, subscribe) = (rules("publishes", &account.publish), rules("receives", &account.subscribe));
    let used = account.last_used.map_or("not used yet".to_owned(), |time| format!("used {}", minute(time)));
    let expires = account.expires_at.map(|time| format!("  expires {}", minute(time))).unwrap_or_default();
    format!(
        "{}  {:8}  {used}{expires}{publish}{subscribe}",
        Style::PLAIN.cell(None, account.name.as_str(), 20),
        account.role.as_str()
    )
    .trim_end()
    .to_owned()
        + "\n"
}

/// A time to the minute, with its time zone.
fn minute(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{} UTC", text.get(..16).unwrap_or(&text).replace('T', " "))
}

pub(super) fn sessions(
    client: &Client,
    console: &mut Console<'_>,
    command: Option<args::Sessions>,
) -> Result<(), Failure> {
    match command {
        None => {
            let sessions: Vec<SessionView> = client.get("/api/sessions")?;
            console.show(&sessions, |sessions, _| sessions.iter().map(session_line).collect())
        }
        Some(args::Sessions::End { id }) => {
            client.act(Method::DELETE, &format!("/api/sessions/{}", query(&id)))?;
            console.done(&format!("session {id} has ended"))
        }
        Some(args::Sessions::EndAll { account }) => {
            client.act(Method::DELETE, &format!("/api/sessions?account={account}"))?;
            console.done(&format!("all sessions of {account} have ended; its token is as it was"))
        }
    }
}

fn session_line(session: &SessionView) -> String {
    let used = session.last_used.unwrap_or(session.created_at);
    let address = clean(session.address.as_deref().unwrap_or("-"));
    let agent = session.user_agent.as_deref().map(|agent| format!("  {}", clean(agent))).unwrap_or_default();
    format!(
        "{}  {}  {}  signed in {}  used {}{agent}\n",
        clean(&session.id),
        Style::PLAIN.cell(None, session.account.as_str(), 16),
        Style::PLAIN.cell(None, &address, 15),
        minute(session.created_at),
        minute(used),
    )
}

pub(super) fn join_token(client: &Client, console: &mut Console<'_>, command: args::JoinToken) -> Result<(), Failure> {
    let default =
        |token: JoinTokenView, console: &mut Console<'_>| console.show(&token, |token, _| format!("{}\n", token.token));
    match command {
        args::JoinToken::Show => default(client.get("/api/join-token")?, console),
        args::JoinToken::Rotate => default(client.post_empty("/api/join-token/rotate")?, console),
        args::JoinToken::Add { name, uses, expires, tags } => {
            let token: NewToken = client.post("/api/join-tokens", &NewJoinToken { name, uses, expires, tags })?;
            new_token(console, &token, "This join token is shown once:")
        }
        args::JoinToken::List => {
            let tokens: Vec<JoinTokenInfo> = client.get("/api/join-tokens")?;
            console.show(&tokens, |tokens, _| tokens.iter().map(join_token_line).collect())
        }
        args::JoinToken::Remove { name } => {
            client.act(Method::DELETE, &format!("/api/join-tokens/{name}"))?;
            console.done(&format!("the join token {name} lets in no machine any more; those that joined stay"))
        }
    }
}

fn join_token_line(token: &JoinTokenInfo) -> String {
    let left = token.uses_left.map_or("any number of uses left".to_owned(), |left| format!("{left} uses left"));
    let expires = token.expires_at.map_or("does not expire".to_owned(), |time| format!("expires {}", minute(time)));
    let last = token.last_used.map(|time| format!("  last used {}", minute(time))).unwrap_or_default();
    let tags = token.tags.iter().map(|tag| format!("  @{tag}")).collect::<Vec<_>>().concat();
    let name = Style::PLAIN.cell(None, token.name.as_str(), 20);
    format!("{name}  {left}  used {}  {expires}{last}{tags}\n", token.used)
}

pub(super) fn agent(client: &Client, console: &mut Console<'_>, command: args::Agent) -> Result<(), Failure> {
    match command {
        args::Agent::List => {
            let enrolments: Vec<Enrolment> = client.get("/api/enrolments")?;
            console.show(&enrolments, |enrolments, _| enrolments.iter().map(enrolment_line).collect())
        }
        args::Agent::Add { pi } => {
            let token: EnrolmentToken = client.post("/api/enrolments", &NewEnrolment { pi })?;
            show_enrolment(client, console, &token)
        }
        args::Agent::Reset { pi } => {
            let token: EnrolmentToken = client.post_empty(&format!("/api/enrolments/{pi}/reset"))?;
            show_enrolment(client, console, &token)
        }
        args::Agent::Remove { pi } => {
            client.act(Method::DELETE, &format!("/api/enrolments/{pi}"))?;
            console.done(&format!("{pi} is revoked, disconnected, and its topics are cleared"))
        }
    }
}

/// A token with which one machine enrols, and how.
fn show_enrolment(client: &Client, console: &mut Console<'_>, token: &EnrolmentToken) -> Result<(), Failure> {
    if !console.json {
        console.remark(&format!("This token works once, for this machine only: {}\n", token.name));
    }
    console.show(token, |token, _| format!("{}\n", token.token))?;
    start_line(console, client, token);
    Ok(())
}

fn enrolment_line(enrolment: &Enrolment) -> String {
    let state = match (enrolment.enrolled_at, enrolment.open) {
        (Some(time), false) => format!("enrolled {time}"),
        (Some(time), true) => format!("enrolled {time}, may enrol once more"),
        (None, _) => "its token waits".to_owned(),
    };
    let serial = enrolment.serial.as_deref().map(|serial| format!("  serial {}", clean(serial))).unwrap_or_default();
    format!("{}  {state}{serial}\n", Style::PLAIN.cell(None, enrolment.pi.as_str(), 20))
}

fn new_token(console: &mut Console<'_>, token: &NewToken, sentence: &str) -> Result<(), Failure> {
    if !console.json {
        console.remark(&format!("{sentence} {}\n", token.name));
    }
    console.show(token, |token, _| format!("{}\n", token.token))
}

fn start_line(console: &mut Console<'_>, client: &Client, token: &EnrolmentToken) {
    if !console.json {
        let url = client.elsewhere(&token.controller_url);
        let line = format!("pistat-agent --controller-url {url} --pi-id {} --token-file FILE", token.name);
        console.remark(&format!("On the machine, with the token in FILE: {line}\n"));
    }
}
