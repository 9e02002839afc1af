//! Tab completion: what could stand where the cursor is.

use pistat_protocol::{
    account::Role,
    dashboard::{Completion, Machine, MachineStatus},
    task::{ArgumentKind, ArgumentView, TaskView},
};

use super::{
    THEMES, View,
    help::COMMANDS,
    names::short_run,
    render::count,
    style::clean,
    words::{Word, quote, scan},
};
use crate::catalogue::argument::describe;

/// More candidates than this help nobody.
const MOST: usize = 50;

/// The candidates for the word under the cursor, best first, and where that word begins; both in
/// UTF-16 code units of the line.
pub fn complete(line: &str, cursor_utf16: u32, view: &View<'_>, role: Role) -> (u32, Vec<Completion>) {
    let line = &line[..byte_offset(line, cursor_utf16)];
    let (mut words, open) = scan(line);
    if open.is_none() && (words.is_empty() || line.ends_with(char::is_whitespace)) {
        words.push(Word { text: String::new(), quoted: false, start: line.len(), end: line.len() });
    }
    let Some((current, before)) = words.split_last() else { return (0, Vec::new()) };
    let typed = Typed { view, role, before, current };
    let (start, mut candidates) = typed.candidates();
    candidates.truncate(MOST);
    (utf16_length(&line[..start]), candidates)
}

fn byte_offset(line: &str, utf16: u32) -> usize {
    let mut units = 0;
    for (at, c) in line.char_indices() {
        if units >= utf16 {
            return at;
        }
        units += u32::from(c.len_utf16() == 2) + 1;
    }
    line.len()
}

fn utf16_length(text: &str) -> u32 {
    u32::try_from(text.encode_utf16().count()).unwrap_or(u32::MAX)
}

/// What has been typed so far.
struct Typed<'t, 'v> {
    view: &'t View<'v>,
    role: Role,
    before: &'t [Word],
    current: &'t Word,
}

impl Typed<'_, '_> {
    fn candidates(&self) -> (usize, Vec<Completion>) {
        let words: Vec<_> = self.before.iter().map(|word| word.text.to_lowercase()).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let found = match words.as_slice() {
            [] => self.first_words(),
            ["task" | "assign" | "tag"] => self.second_words(words[0]),
            ["help", ..] => self.commands_after(&words[1..]),
            ["theme"] => self.matching(THEMES.iter().map(|&theme| (theme.to_owned(), String::new()))),
            ["show" | "output"] => self.runs(false),
            ["task", "cancel"] => self.runs(true),
            ["task", "run"] => self.tasks(),
            ["task", "run", _] => [self.targets(), self.arguments(), self.options()].concat(),
            ["task", "run", ..] => [self.arguments(), self.options()].concat(),
            ["task", "assign", ..] => return self.machine_then(Self::task_labels),
            ["assign", "name", ..] => return self.machine_then(|_| Vec::new()),
            ["pi" | "runs" | "settings"] | ["tag", "add" | "remove"] => self.machines(),
            ["tag", "add" | "remove", _] => self.tags(),
            ["settings", _] => self.matching([("--interval".to_owned(), "seconds, or default".to_owned())]),
            ["settings", _, "--interval"] => self.matching([("default".to_owned(), "the agent's own".to_owned())]),
            _ => Vec::new(),
        };
        (self.current.start, found)
    }

    /// Those that begin with what was typed, then those that contain it.
    fn matching(&self, candidates: impl IntoIterator<Item = (String, String)>) -> Vec<Completion> {
        Self::matching_text(&self.current.text, candidates)
    }

    fn matching_text(typed: &str, candidates: impl IntoIterator<Item = (String, String)>) -> Vec<Completion> {
        let typed = typed.to_lowercase();
        let rank = |value: &str| {
            let value = value.to_lowercase();
            if value.starts_with(&typed) { Some(0) } else { value.contains(&typed).then_some(1) }
        };
        let mut found: Vec<_> =
            candidates.into_iter().filter_map(|(value, hint)| Some((rank(&value)?, value, hint))).collect();
        found.sort_by_key(|(rank, _, _)| *rank);
        found.into_iter().map(|(_, value, hint)| Completion { value, hint }).collect()
    }

    fn allowed(&self) -> impl Iterator<Item = &'static super::help::Entry> {
        let role = self.role;
        COMMANDS.iter().filter(move |entry| entry.role <= role)
    }

    fn first_words(&self) -> Vec<Completion> {
        let mut words: Vec<(String, String)> = Vec::new();
        for entry in self.allowed() {
            let (word, hint) = match entry.name.split_once(' ') {
                Some((first, second)) => (first, second),
                None => (entry.name, entry.summary),
            };
            match words.iter_mut().find(|(known, _)| known == word) {
                Some((_, hints)) => *hints = format!("{hints} · {hint}"),
                None => words.push((word.to_owned(), hint.to_owned())),
            }
        }
        self.matching(words)
    }

    fn second_words(&self, first: &str) -> Vec<Completion> {
        self.matching(self.allowed().filter_map(|entry| {
            let (one, two) = entry.name.split_once(' ')?;
            (one == first).then(|| (two.to_owned(), entry.summary.to_owned()))
        }))
    }

    fn commands_after(&self, words: &[&str]) -> Vec<Completion> {
        match words {
            [] => self.first_words(),
            [first] => self.second_words(first),
            _ => Vec::new(),
        }
    }

    /// Ids first; labels where they are what is being typed.
    fn machines(&self) -> Vec<Completion> {
        let by_id = self.view.machines.iter().map(|machine| (machine.id.to_string(), about(machine)));
        let mut found = self.matching(by_id);
        if !self.current.text.is_empty() {
            found.extend(self.labels(&self.current.text));
        }
        found
    }

    fn labels(&self, typed: &str) -> Vec<Completion> {
        let differ = |machine: &&Machine| machine.label != machine.id.as_str();
        let label = |machine: &Machine| (clean(&machine.label).into_owned(), machine.id.to_string());
        let found = Self::matching_text(typed, self.view.machines.iter().filter(differ).map(label));
        found.into_iter().map(|found| Completion { value: quote(&found.value), ..found }).collect()
    }

    fn targets(&self) -> Vec<Completion> {
        let machines = self.view.machines.len();
        let groups = std::iter::once(("@all".to_owned(), format!("all: {}", count(machines, "machine"))))
            .chain(self.view.tags().into_iter().map(|tag| (tag, "tag".to_owned())));
        let mut found = self.matching(groups);
        let machines = self.machines();
        if self.current.text.starts_with('@') {
            found.extend(machines);
            return found;
        }
        machines.into_iter().chain(found).collect()
    }

    fn tags(&self) -> Vec<Completion> {
        self.matching(
            self.view.tags().into_iter().map(|tag| (tag.trim_start_matches('@').to_owned(), "tag".to_owned())),
        )
    }

    fn runs(&self, only_open: bool) -> Vec<Completion> {
        let runs = self.view.runs.iter().filter(|run| !only_open || !run.state.is_final());
        self.matching(runs.map(|run| (short_run(run.id), format!("{} on {} · {}", run.task, run.pi, run.state))))
    }

    fn tasks(&self) -> Vec<Completion> {
        let tasks = || self.view.tasks.iter().filter(|task| task.role <= self.role);
        let mut found = self.matching(tasks().map(|task| (task.id.to_string(), clean(&task.description).into_owned())));
        if found.is_empty() {
            let labels = self.matching(tasks().map(|task| (clean(&task.label).into_owned(), task.id.to_string())));
            found = labels.into_iter().map(|found| Completion { value: quote(&found.value), ..found }).collect();
        }
        found
    }

    fn task_labels(&self) -> Vec<Completion> {
        let labels = self.view.tasks.iter().map(|task| (clean(&task.label).into_owned(), task.id.to_string()));
        let found = self.matching(labels);
        found.into_iter().map(|found| Completion { value: quote(&found.value), ..found }).collect()
    }

    fn task(&self) -> Option<&TaskView> {
        self.view.task(&self.before.get(2)?.text).ok()
    }

    /// Names of arguments that are not given yet, or values of the one that is being given.
    fn arguments(&self) -> Vec<Completion> {
        let Some(task) = self.task() else { return Vec::new() };
        if let Some((name, value)) = self.current.text.split_once('=') {
            let argument = task.args.iter().find(|argument| argument.name == name);
            return argument.map(|argument| self.values(argument, value)).unwrap_or_default();
        }
        let given = |argument: &ArgumentView| {
            let start = format!("{}=", argument.name);
            self.before.iter().any(|word| word.text.starts_with(&start))
        };
        let open = task.args.iter().filter(|argument| !given(argument));
        self.matching(open.map(|argument| (format!("{}=", argument.name), describe(&argument.kind))))
    }

    fn values(&self, argument: &ArgumentView, typed: &str) -> Vec<Completion> {
        let values: Vec<(String, String)> = match &argument.kind {
            ArgumentKind::Choices { choices } => choices.iter().map(|choice| (choice.clone(), String::new())).collect(),
            ArgumentKind::Boolean => ["true", "false"].map(|value| (value.to_owned(), String::new())).into(),
            ArgumentKind::Machine => {
                self.view.machines.iter().map(|machine| (machine.id.to_string(), about(machine))).collect()
            }
            ArgumentKind::Integer { .. } | ArgumentKind::Number { .. } | ArgumentKind::Pattern { .. } => {
                argument.default.iter().map(|default| (default.to_string(), "default".to_owned())).collect()
            }
        };
        let found = Self::matching_text(typed, values);
        let whole =
            |found: Completion| Completion { value: format!("{}={}", argument.name, quote(&found.value)), ..found };
        found.into_iter().map(whole).collect()
    }

    fn options(&self) -> Vec<Completion> {
        if !self.current.text.starts_with('-') {
            return Vec::new();
        }
        let options = [
            ("--yes", "do not ask"),
            ("--detach", "do not show its output"),
            ("--explain", "show the same as mosquitto_pub and curl lines"),
            ("--at-once", "how many machines at a time"),
            ("--stop-after", "after how many failures to stop"),
            ("--canary", "the first machine alone"),
            ("--expires", "how long to wait for an offline machine"),
        ];
        let open = options.into_iter().filter(|(name, _)| !self.before.iter().any(|word| word.text == *name));
        self.matching(open.map(|(name, hint)| (name.to_owned(), hint.to_owned())))
    }

    /// A machine, perhaps by a label of several words without quotes; once it is named, what
    /// follows it.
    fn machine_then(&self, next: impl Fn(&Self) -> Vec<Completion>) -> (usize, Vec<Completion>) {
        let words = &self.before[2..];
        let joined = |words: &[Word]| words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let named = !words.is_empty() && self.view.machine(&joined(words)).is_ok();
        if named || self.view.machine_and_rest(words).is_ok() {
            return (self.current.start, next(self));
        }
        let Some(first) = words.first() else { return (self.current.start, self.machines()) };
        let typed = format!("{} {}", joined(words), self.current.text);
        (first.start, self.labels(typed.trim_end()))
    }
}

fn about(machine: &Machine) -> String {
    let status = match machine.status {
        MachineStatus::Online => "",
        MachineStatus::Stale => " · stale",
        MachineStatus::Offline => " · offline",
    };
    format!("{}{status}", clean(&machine.label))
}

#[cfg(test)]
mod tests;
