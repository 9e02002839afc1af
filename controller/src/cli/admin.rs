//! `login`, `events`, `account`, `join-token`, `agent`: what needs the role admin, but for `events`.
//!
//! A token is the only thing on standard output, so that a script can keep it; what to do with it is said on standard error.

use pistat_protocol::{
    account::Account,
    api::{Enrolment, EnrolmentToken, JoinTokenView, LoginLink, NewAccount, NewEnrolment, NewToken},
    dashboard::{Event, Machine},
};
use ureq::http::Method;

use super::{args, client::Client, console::Console, failure::Failure};
use crate::terminal::{self, Style, clean};

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

pub(super) fn events(client: &Client, console: &mut Console<'_>) -> Result<(), Failure> {
    let events: Vec<Event> = client.get("/api/events")?;
    let machines: Vec<Machine> = if console.json { Vec::new() } else { client.get("/api/pis")? };
    // On a terminal the newest belongs at the end, above the prompt.
    console.show(&events, |events, style| {
        events.iter().rev().map(|event| terminal::event(event, &machines, style)).collect()
    })
}

pub(super) fn account(client: &Client, console: &mut Console<'_>, command: args::Account) -> Result<(), Failure> {
    match command {
        args::Account::Add { name, role, publish, subscribe } => {
            let token: NewToken = client.post("/api/accounts", &NewAccount { name, role, publish, subscribe })?;
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
        args::Account::Rotate { name } => {
            let token: NewToken = client.post_empty(&format!("/api/accounts/{name}/rotate"))?;
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
    format!("{}  {:8}{publish}{subscribe}", Style::PLAIN.cell(None, account.name.as_str(), 20), account.role.as_str())
        .trim_end()
        .to_owned()
        + "\n"
}

pub(super) fn join_token(client: &Client, console: &mut Console<'_>, command: args::JoinToken) -> Result<(), Failure> {
    let token: JoinTokenView = match command {
        args::JoinToken::Show => client.get("/api/join-token")?,
        args::JoinToken::Rotate => client.post_empty("/api/join-token/rotate")?,
    };
    console.show(&token, |token, _| format!("{}\n", token.token))
}

pub(super) fn agent(client: &Client, console: &mut Console<'_>, command: args::Agent) -> Result<(), Failure> {
    match command {
        args::Agent::List => {
            let enrolments: Vec<Enrolment> = client.get("/api/enrolments")?;
            console.show(&enrolments, |enrolments, _| enrolments.iter().map(enrolment_line).collect())
        }
        args::Agent::Add { pi } => {
            let token: EnrolmentToken = client.post("/api/enrolments", &NewEnrolment { pi })?;
            if !console.json {
                console.remark(&format!("This token works once, for this machine only: {}\n", token.name));
            }
            console.show(&token, |token, _| format!("{}\n", token.token))?;
            start_line(console, client, &token);
            Ok(())
        }
        args::Agent::Reset { pi } => {
            client.act(Method::POST, &format!("/api/enrolments/{pi}/reset"))?;
            console.done(&format!("{pi} may enrol once more, with a join token"))
        }
        args::Agent::Remove { pi } => {
            client.act(Method::DELETE, &format!("/api/enrolments/{pi}"))?;
            console.done(&format!("{pi} is revoked, disconnected, and its topics are cleared"))
        }
    }
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
        let line = format!("pistat-agent --controller-url {url} --pi-id {} --token TOKEN", token.name);
        console.remark(&format!("On the machine: {line}\n"));
    }
}
