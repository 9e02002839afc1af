//! `task list`, `task run`, `task cancel`, `runs`, `show`, `output`.

use pistat_protocol::{
    api::{AcceptedRuns, NewRun},
    dashboard::{Machine, Run},
    id::{RunId, Target},
    task::TaskView,
};
use ureq::http::Method;

use super::{args, client::Client, console::Console, failure::Failure, follow, machines::now};
use crate::{
    config::Config,
    terminal::{self, AskedBroker, RunCommand, View},
};

pub(super) fn tasks(client: &Client, console: &mut Console<'_>) -> Result<(), Failure> {
    let tasks: Vec<TaskView> = client.get("/api/tasks")?;
    console.show(&tasks, |tasks, style| terminal::task_list(tasks, style))
}

pub(super) fn list(client: &Client, console: &mut Console<'_>, pi: Option<&str>, limit: u32) -> Result<(), Failure> {
    let machines: Vec<Machine> = if console.json && pi.is_none() { Vec::new() } else { client.get("/api/pis")? };
    let view = View { machines: &machines, tasks: &[], runs: &[] };
    let of_machine = match pi {
        Some(name) => format!("&pi={}", view.machine(name).map_err(Failure::Refused)?.id),
        None => String::new(),
    };
    let runs: Vec<Run> = client.get(&format!("/api/runs?limit={limit}{of_machine}"))?;
    console.show(&runs, |runs, style| terminal::runs(runs, &machines, now(), style))
}

pub(super) fn show(client: &Client, console: &mut Console<'_>, name: &str) -> Result<(), Failure> {
    let run: Run = client.get(&format!("/api/runs/{}", find(client, name)?))?;
    let machines: Vec<Machine> = if console.json { Vec::new() } else { client.get("/api/pis")? };
    console.show(&run, |run, style| terminal::run(run, &machines, style))
}

pub(super) fn cancel(client: &Client, console: &mut Console<'_>, name: &str) -> Result<(), Failure> {
    let run = find(client, name)?;
    client.act(Method::POST, &format!("/api/runs/{run}/cancel"))?;
    console.done(&format!("{run} is being cancelled"))
}

pub(super) fn output(client: &Client, console: &mut Console<'_>, name: &str, wait: bool) -> Result<(), Failure> {
    let run = find(client, name)?;
    if console.json {
        return follow::output_as_json(client, console, run, wait);
    }
    if wait { follow::output(client, console, run).map(drop) } else { follow::copy_output(client, console, run) }
}

/// How many of the newest runs a short name is looked up in.
const LOOKED_UP: u32 = 1000;

fn find(client: &Client, name: &str) -> Result<RunId, Failure> {
    if let Ok(run) = name.parse() {
        return Ok(run);
    }
    let runs: Vec<Run> = client.get(&format!("/api/runs?limit={LOOKED_UP}"))?;
    let view = View { machines: &[], tasks: &[], runs: &runs };
    view.run(name).map(|run| run.id).map_err(Failure::Refused)
}

/// `config` is the configuration of the controller that is asked, when that is this machine's.
pub(super) fn run(
    client: &Client,
    console: &mut Console<'_>,
    args: args::Run,
    config: Option<&Config>,
) -> Result<(), Failure> {
    let command = command(args)?;
    let machines: Vec<Machine> = client.get("/api/pis")?;
    let tasks: Vec<TaskView> = client.get("/api/tasks")?;
    let view = View { machines: &machines, tasks: &tasks, runs: &[] };
    let mut body = terminal::new_run(&command, &view).map_err(Failure::Refused)?;
    if command.explain {
        // Whoever pastes a line has read it.
        body.confirmed |= view.asks(&body);
        let broker = |config: &Config| AskedBroker::of(config, &body.task, client.url(), config.mqtt.listen.port());
        let text = terminal::explain(&body, client.url(), config.and_then(broker).as_ref(), console.style());
        return console.show(&body, |_, _| text);
    }
    confirm(console, &mut body, &view)?;
    let accepted: AcceptedRuns = client.post("/api/runs", &body)?;
    if command.detach {
        return detached(console, &accepted);
    }
    match (accepted.group, accepted.runs.as_slice()) {
        (None, [run]) => follow::run(client, console, *run, &machines),
        (Some(group), runs) => follow::group(client, console, (group, runs), &body, &machines),
        (None, _) => detached(console, &accepted),
    }
}

fn command(args: args::Run) -> Result<RunCommand, Failure> {
    let mut command = RunCommand {
        task: args.task,
        target: None,
        args: Vec::new(),
        yes: args.yes,
        detach: args.detach,
        explain: args.explain,
        at_once: args.at_once,
        stop_after: args.stop_after,
        canary: args.canary,
        expires: args.expires,
    };
    for word in args.words {
        match word.split_once('=') {
            Some((name, value)) => command.args.push((name.to_owned(), value.to_owned())),
            None if command.target.is_none() => command.target = Some(word),
            None => {
                return Err(Failure::Usage(format!("{word} is one machine too many: name one, or @tag, or @all")));
            }
        }
    }
    Ok(command)
}

fn confirm(console: &mut Console<'_>, body: &mut NewRun, view: &View<'_>) -> Result<(), Failure> {
    if body.confirmed || !view.asks(body) {
        return Ok(());
    }
    match console.ask(&format!("Run {} on {}?", body.task, whom(&body.target, view))) {
        Some(true) => {
            body.confirmed = true;
            Ok(())
        }
        Some(false) => Err(Failure::Refused("Nothing was run".into())),
        None => Err(Failure::Usage(format!("{} asks for a confirmation: add --yes", body.task))),
    }
}

fn whom(target: &Target, view: &View<'_>) -> String {
    let count = |machines| terminal::count(machines, "machine");
    match target {
        Target::All => count(view.machines.len()),
        Target::Tag(tag) => count(view.machines.iter().filter(|machine| machine.tags.contains(tag)).count()),
        Target::Pi(pi) => {
            let machine = view.machines.iter().find(|machine| machine.id == *pi);
            machine.map_or_else(|| pi.to_string(), |machine| terminal::clean(&machine.label).into_owned())
        }
    }
}

fn detached(console: &mut Console<'_>, accepted: &AcceptedRuns) -> Result<(), Failure> {
    console
        .show(accepted, |accepted, _| accepted.runs.iter().map(|run| format!("{run}\n")).collect::<Vec<_>>().concat())
}
