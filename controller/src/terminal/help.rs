//! What the terminal understands, in its own words. Parsing, completion and help share this table.

use pistat_protocol::account::Role;

use super::{
    Style,
    style::{Paint, clean},
};

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its words.
    pub(super) name: &'static str,
    /// What follows them.
    pub(super) usage: &'static str,
    /// What it does, in a few words.
    pub(super) summary: &'static str,
    /// More, with an example; lines.
    pub(super) details: &'static [&'static str],
    /// Who may use it.
    pub(super) role: Role,
}

const fn entry(
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    role: Role,
    details: &'static [&'static str],
) -> Entry {
    Entry { name, usage, summary, details, role }
}

/// Every command, in the order of `help`.
pub(super) const COMMANDS: [Entry; 16] = [
    entry("task list", "", "show the tasks that may run", Role::Viewer, &[]),
    entry(
        "task run",
        "<task> [<pi>|@tag|@all] [name=value]…",
        "run a task and watch its output",
        Role::Operator,
        &[
            "Without a machine it runs on the controller.",
            "--yes               do not ask, even if the task asks for it",
            "--detach            do not show its output",
            "--explain           show the same as mosquitto_pub and curl lines, run nothing",
            "--at-once N         on many machines: N at a time",
            "--stop-after N      on many machines: start no more after N failures",
            "--canary            on many machines: the first one alone, the rest only if it succeeded",
            "--expires 10m       how long it may wait for a machine that is offline; 0 is not at all",
            "Examples: task run uptime pi-1 · task run service-log @camera unit=ssh lines=50 · task run apt-upgrade @all --canary",
        ],
    ),
    entry(
        "task cancel",
        "<run>",
        "end a run",
        Role::Operator,
        &["The run is named by its id, or the last characters of it."],
    ),
    entry(
        "task assign",
        "\"<machine>\" \"<task>\"",
        "record what a machine is responsible for; runs nothing",
        Role::Operator,
        &[
            "Quotes are optional for single words. \"\" takes the responsibility away.",
            "Example: task assign \"Garage Door\" \"Nightly backup\"",
        ],
    ),
    entry(
        "assign name",
        "\"<machine>\" \"<new label>\"",
        "rename a machine",
        Role::Operator,
        &[
            "Quotes are optional for single words. \"\" gives the agent's own label back.",
            "Example: assign name pi-4 \"Garage Door\"",
        ],
    ),
    entry("pis", "", "show all machines", Role::Viewer, &[]),
    entry("pi", "<pi>", "show everything about one machine", Role::Viewer, &[]),
    entry("runs", "[<pi>]", "show the newest runs", Role::Viewer, &[]),
    entry("show", "<run>", "show everything about one run", Role::Viewer, &[]),
    entry("output", "<run>", "show the output of a run", Role::Viewer, &[]),
    entry(
        "tag add",
        "<pi> <tag>",
        "put a machine into a group, @tag",
        Role::Operator,
        &["Example: tag add pi-5 camera"],
    ),
    entry("tag remove", "<pi> <tag>", "take a machine out of a group", Role::Operator, &[]),
    entry(
        "settings",
        "<pi> --interval SECONDS|default",
        "set how often a machine measures",
        Role::Operator,
        &["0.2 to 3600 seconds; default gives the agent's own back."],
    ),
    entry("theme", "[phosphor|amber|paper]", "change the colours", Role::Viewer, &[]),
    entry("clear", "", "empty the terminal", Role::Viewer, &[]),
    entry("help", "[command]", "show this", Role::Viewer, &[]),
];

/// How a command is written.
pub(super) fn usage(name: &str) -> String {
    let entry = COMMANDS.iter().find(|entry| entry.name == name);
    entry.map_or_else(|| name.to_owned(), |entry| format!("{} {}", entry.name, entry.usage).trim_end().to_owned())
}

/// All commands, or one of them, or all that begin with a word such as `task`.
///
/// # Errors
/// There is no such command.
pub fn help(command: Option<&str>, style: Style) -> Result<String, String> {
    let Some(command) = command else { return Ok(overview(&COMMANDS, style)) };
    let command = command.to_lowercase();
    let found: Vec<Entry> = COMMANDS
        .into_iter()
        .filter(|entry| entry.name == command || entry.name.split(' ').next() == Some(command.as_str()))
        .collect();
    match found.as_slice() {
        [] => Err(unknown(&command)),
        [entry] => Ok(one(entry, style)),
        several => Ok(several.iter().map(|entry| one(entry, style)).collect::<Vec<_>>().join("\n")),
    }
}

/// The sentence for a command that does not exist.
pub(super) fn unknown(command: &str) -> String {
    let near = crate::config::reader::near(command, COMMANDS.iter().map(|entry| entry.name));
    let hint = near.map_or_else(|| "help shows all commands".to_owned(), |near| format!("did you mean {near}?"));
    let shown: String = clean(command).chars().take(60).collect();
    format!("There is no command {shown:?}; {hint}")
}

fn overview(entries: &[Entry], style: Style) -> String {
    let usage = |entry: &Entry| format!("{} {}", entry.name, entry.usage).trim_end().to_owned();
    let width = entries.iter().map(|entry| usage(entry).chars().count()).max().unwrap_or(0).min(44);
    let line = |entry: &Entry| format!("{}  {}\n", style.cell(Some(Paint::Name), &usage(entry), width), entry.summary);
    let hint = "Tab completes, arrow keys bring back what was typed, Ctrl-C leaves a running command.";
    entries.iter().map(line).collect::<String>() + &style.paint(Paint::Dim, hint) + "\n"
}

fn one(entry: &Entry, style: Style) -> String {
    let mut text = format!("{} {}\n  {}\n", style.paint(Paint::Name, entry.name), entry.usage, entry.summary);
    for line in entry.details {
        text.push_str(&style.paint(Paint::Dim, &format!("  {line}")));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_knows_every_command_and_every_first_word() {
        let all = help(None, Style::PLAIN).unwrap();
        for entry in COMMANDS {
            assert!(all.contains(&usage(entry.name)), "{}", entry.name);
            assert!(help(Some(entry.name), Style::PLAIN).unwrap().contains(entry.summary));
        }
        assert!(help(Some("TASK"), Style::PLAIN).unwrap().contains("task cancel <run>"));
        assert!(help(Some("tsk run"), Style::PLAIN).unwrap_err().contains("did you mean task run?"));
        assert!(!help(Some("\x1b[31m"), Style::PLAIN).unwrap_err().contains('\x1b'));
    }
}
