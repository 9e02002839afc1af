//! The web terminal: reads a line, asks the hub, answers in text. The language itself is
//! [`crate::terminal`]'s.

use pistat_protocol::{
    account::Role,
    api::{AcceptedRuns, NewRun, PatchMachine},
    dashboard::{Action, Machine, Run, ServerMessage},
    id::{PiId, RunId},
};
use tokio::sync::{mpsc, oneshot};

use super::{Web, api};
use crate::{
    access::Caller,
    hub::ask::{Ask, Names, Refused},
    terminal::{self, AskedBroker, Command, RunCommand, Style, View},
};

/// Text for a dashboard has colours; xterm.js shows them in the theme's.
const STYLE: Style = Style { colour: true };

impl Names {
    fn view(&self) -> View<'_> {
        View { machines: &self.machines, tasks: &self.tasks, runs: &self.runs }
    }
}

/// The candidates of Tab.
pub(super) fn complete(id: u32, line: &str, cursor: u32, names: &Names, role: Role) -> ServerMessage {
    let (start, candidates) = terminal::complete(line, cursor, &names.view(), role);
    ServerMessage::Completions { id, start, candidates }
}

/// One command at work.
pub(super) struct Terminal {
    web: Web,
    caller: Caller,
    id: u32,
    outbox: mpsc::Sender<ServerMessage>,
    answer: Option<oneshot::Receiver<bool>>,
}

/// Why a command did not do what it was asked: a sentence, which the terminal shows.
type Failed = String;

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        refused.detail
    }
}

/// What a line is answered with that is not even looked at.
pub(super) fn refusal(id: u32, sentence: &str) -> [ServerMessage; 2] {
    [ServerMessage::Text { id, text: terminal::refusal(sentence, STYLE) }, ServerMessage::Done { id, ok: false }]
}

impl Terminal {
    pub(super) fn new(
        web: Web,
        caller: Caller,
        id: u32,
        outbox: mpsc::Sender<ServerMessage>,
        answer: oneshot::Receiver<bool>,
    ) -> Self {
        Self { web, caller, id, outbox, answer: Some(answer) }
    }

    /// Does what a line asks for, and says when it is done.
    pub(super) async fn run(mut self, line: &str) {
        let result = match terminal::parse(line) {
            Ok(Some(command)) => self.perform(command).await,
            Ok(None) => Ok(()),
            Err(sentence) => Err(sentence),
        };
        if let Err(sentence) = &result {
            self.text(terminal::refusal(sentence, STYLE)).await;
        }
        self.say(ServerMessage::Done { id: self.id, ok: result.is_ok() }).await;
    }

    async fn say(&self, message: ServerMessage) {
        // A browser that has gone needs no answer.
        let _ = self.outbox.send(message).await;
    }

    async fn text(&self, text: String) {
        self.say(ServerMessage::Text { id: self.id, text }).await;
    }

    async fn names(&self) -> Result<Names, Failed> {
        Ok(self.web.ask(Ask::Names).await?)
    }

    async fn perform(&mut self, command: Command) -> Result<(), Failed> {
        match command {
            Command::Help(topic) => self.text(terminal::help(topic.as_deref(), STYLE)?).await,
            Command::Clear => self.say(ServerMessage::Perform { id: self.id, action: Action::Clear }).await,
            Command::Theme(name) => {
                self.say(ServerMessage::Perform { id: self.id, action: Action::Theme { name } }).await;
            }
            Command::Pis => {
                let names = self.names().await?;
                self.text(terminal::machines(&names.machines, now(), STYLE)).await;
            }
            Command::Pi(name) => {
                let names = self.names().await?;
                let text = terminal::machine(names.view().machine(&name)?, now(), STYLE);
                self.text(text).await;
            }
            Command::Runs(name) => self.runs(name.as_deref()).await?,
            Command::Show(run) => self.show(&run).await?,
            Command::Output(run) => self.output(&run).await?,
            Command::TaskList => {
                let names = self.names().await?;
                self.text(terminal::task_list(&names.tasks, STYLE)).await;
            }
            Command::TaskRun(run) => self.task_run(&run).await?,
            Command::TaskCancel(run) => self.cancel(&run).await?,
            Command::TaskAssign(words) => {
                let names = self.names().await?;
                let (machine, patch) = terminal::patch_assignment(&words, &names.view())?;
                self.patch(machine, patch).await?;
            }
            Command::AssignName(words) => {
                let names = self.names().await?;
                let (machine, patch) = terminal::patch_name(&words, &names.view())?;
                self.patch(machine, patch).await?;
            }
            Command::Tag(change) => {
                let names = self.names().await?;
                let (machine, patch) = terminal::patch_tags(&change, &names.view())?;
                self.patch(machine, patch).await?;
            }
            Command::Settings { machine, interval_seconds } => {
                let names = self.names().await?;
                let (machine, patch) = terminal::patch_interval(&machine, interval_seconds, &names.view())?;
                self.patch(machine, patch).await?;
            }
        }
        Ok(())
    }

    fn require(&self, role: Role) -> Result<(), Failed> {
        if self.caller.role >= role {
            Ok(())
        } else {
            Err(format!("this needs the role {role}; {} has the role {}", self.caller.account, self.caller.role))
        }
    }

    async fn patch(&self, machine: &Machine, patch: PatchMachine) -> Result<(), Failed> {
        self.require(Role::Operator)?;
        let (caller, pi, change) = (self.caller.clone(), machine.id.clone(), patch.clone());
        let changed = self.web.ask(|reply| Ask::Patch(caller, pi, change, reply)).await?;
        self.text(terminal::done(&sentence(machine, &changed, &patch), STYLE)).await;
        Ok(())
    }

    async fn runs(&self, name: Option<&str>) -> Result<(), Failed> {
        let names = self.names().await?;
        let pi: Option<PiId> =
            name.map(|name| names.view().machine(name).map(|machine| machine.id.clone())).transpose()?;
        let query = crate::store::RunQuery { pi: pi.map(Into::into), limit: 30, ..crate::store::RunQuery::default() };
        let records = self.web.read(move |reader| reader.runs(&query)).await?;
        // What is open is newer in memory than on the disk.
        let open = |run: &Run| names.runs.iter().find(|other| other.id == run.id).cloned();
        let runs: Vec<Run> = records.into_iter().map(|record| open(&record.run).unwrap_or(record.run)).collect();
        self.text(terminal::runs(&runs, &names.machines, now(), STYLE)).await;
        Ok(())
    }

    /// A run by what was typed: among the newest, else by its whole id.
    async fn find(&self, names: &Names, typed: &str) -> Result<Run, Failed> {
        if let Ok(id) = typed.parse::<RunId>() {
            return Ok(api::find_run(&self.web, id).await?);
        }
        names.view().run(typed).cloned()
    }

    async fn show(&self, typed: &str) -> Result<(), Failed> {
        let names = self.names().await?;
        let run = self.find(&names, typed).await?;
        self.text(terminal::run(&run, &names.machines, STYLE)).await;
        Ok(())
    }

    async fn output(&self, typed: &str) -> Result<(), Failed> {
        let names = self.names().await?;
        let run = self.find(&names, typed).await?;
        // The dashboard shows a run's output by following it, and cleans what is not plain text
        // there.
        self.say(ServerMessage::Started { id: self.id, runs: vec![run.id], group: None }).await;
        Ok(())
    }

    async fn cancel(&self, typed: &str) -> Result<(), Failed> {
        self.require(Role::Operator)?;
        let names = self.names().await?;
        let id = match typed.parse::<RunId>() {
            Ok(id) => id,
            Err(_) => names.view().run(typed)?.id,
        };
        let caller = self.caller.clone();
        self.web.ask(|reply| Ask::Cancel(caller, id, reply)).await?;
        self.text(terminal::done("asked to cancel", STYLE)).await;
        Ok(())
    }

    async fn task_run(&mut self, command: &RunCommand) -> Result<(), Failed> {
        let names = self.names().await?;
        let mut request = terminal::new_run(command, &names.view())?;
        let asks = names.view().asks(&request);
        if command.explain {
            // Whoever pastes a line has read it.
            request.confirmed |= asks;
            return self.explain(&request).await;
        }
        self.require(Role::Operator)?;
        if asks && !request.confirmed {
            let question = question(&request, &names);
            if !self.ask(question).await {
                self.text(terminal::done("nothing was run", STYLE)).await;
                return Ok(());
            }
            request.confirmed = true;
        }
        let caller = self.caller.clone();
        let AcceptedRuns { group, runs } = self.web.ask(|reply| Ask::Run(caller, request, reply)).await?;
        if command.detach {
            let ids: Vec<_> = runs.iter().map(ToString::to_string).collect();
            self.text(terminal::done(&format!("started {}", ids.join(" ")), STYLE)).await;
        } else {
            self.say(ServerMessage::Started { id: self.id, runs, group }).await;
        }
        Ok(())
    }

    async fn explain(&self, request: &NewRun) -> Result<(), Failed> {
        let config = &self.web.config;
        let base = self.web.own_address.elsewhere();
        let port = self.web.mqtt.map_or(0, |address| address.port());
        let broker = AskedBroker::of(config, &request.task, &base, port);
        self.text(terminal::explain(request, &base, broker.as_ref(), STYLE)).await;
        Ok(())
    }

    /// Asks a person; anything but a yes is a no.
    async fn ask(&mut self, question: String) -> bool {
        let Some(answer) = self.answer.take() else { return false };
        self.say(ServerMessage::Ask { id: self.id, question }).await;
        answer.await.unwrap_or(false)
    }
}

fn question(request: &NewRun, names: &Names) -> String {
    use pistat_protocol::id::Target;
    let tagged = |tag| names.machines.iter().filter(|machine| machine.tags.contains(tag)).count();
    match &request.target {
        Target::Pi(pi) => {
            let label = names
                .machines
                .iter()
                .find(|machine| machine.id == *pi)
                .map_or(pi.as_str(), |machine| machine.label.as_str());
            format!("Run {} on {label}?", request.task)
        }
        Target::Tag(tag) => format!("Run {} on {} (@{tag})?", request.task, terminal::count(tagged(tag), "machine")),
        Target::All => format!("Run {} on {} (@all)?", request.task, terminal::count(names.machines.len(), "machine")),
    }
}

/// What was done to a machine, in a sentence.
fn sentence(before: &Machine, after: &Machine, patch: &PatchMachine) -> String {
    if patch.label.is_some() {
        return format!("{} is now {}", before.id, after.label);
    }
    if patch.assignment.is_some() {
        return match &after.assignment {
            Some(assignment) => format!("{} is responsible for {assignment}", after.label),
            None => format!("{} has no responsibility any more", after.label),
        };
    }
    if patch.tags.is_some() || patch.confirm_tags.is_some() {
        let tags: Vec<_> = after.tags.iter().map(|tag| format!("@{tag}")).collect();
        return if tags.is_empty() {
            format!("{} has no tags", after.label)
        } else {
            format!("{} is tagged {}", after.label, tags.join(" "))
        };
    }
    match after.interval_seconds {
        Some(seconds) => format!("{} samples every {seconds} s", after.label),
        None => format!("{} samples at its agent's own interval", after.label),
    }
}

fn now() -> pistat_protocol::time::Timestamp {
    std::time::SystemTime::now().into()
}
