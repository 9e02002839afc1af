//! From a line to a command. Names are not looked up here.

use super::{
    THEMES, Word,
    help::{COMMANDS, unknown, usage},
    words::split,
};
use crate::config::parse_duration;

/// A command, with names as they were typed.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `help [command]`.
    Help(Option<String>),
    /// `clear`.
    Clear,
    /// `theme [name]`: without a name it lists them.
    Theme(Option<String>),
    /// `pis`.
    Pis,
    /// `pi <pi>`.
    Pi(String),
    /// `runs [<pi>]`.
    Runs(Option<String>),
    /// `show <run>`.
    Show(String),
    /// `output <run>`.
    Output(String),
    /// `task list`.
    TaskList,
    /// `task run …`.
    TaskRun(RunCommand),
    /// `task cancel <run>`.
    TaskCancel(String),
    /// `task assign "<machine>" "<task or text>"`: [`super::patch_assignment`] tells the two apart.
    TaskAssign(Vec<Word>),
    /// `assign name "<machine>" "<new label>"`: [`super::patch_name`] tells the two apart.
    AssignName(Vec<Word>),
    /// `tag add|remove <pi> <tag>`.
    Tag(TagChange),
    /// `settings <pi> --interval SECONDS|default`.
    Settings {
        /// Which machine.
        machine: String,
        /// The cadence in seconds; `None` gives the agent's own back.
        interval_seconds: Option<f64>,
    },
}

/// `task run <task> [<pi>|@tag|@all] [name=value]… [options]`.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent flags of a command line")]
pub struct RunCommand {
    /// The task's id or label.
    pub task: String,
    /// A machine's id or label, `@tag` or `@all`; `None` is the controller.
    pub target: Option<String>,
    /// Arguments, in order.
    pub args: Vec<(String, String)>,
    /// `--yes`: it is confirmed already.
    pub yes: bool,
    /// `--detach`: its output is not followed.
    pub detach: bool,
    /// `--explain`: shows the equivalent lines, runs nothing.
    pub explain: bool,
    /// `--at-once N`.
    pub at_once: Option<u32>,
    /// `--stop-after N`.
    pub stop_after: Option<u32>,
    /// `--canary`.
    pub canary: bool,
    /// `--expires 10m`.
    pub expires: Option<String>,
}

/// `tag add|remove <pi> <tag>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagChange {
    /// Whether it is added or removed.
    pub add: bool,
    /// The machine's id or label.
    pub machine: String,
    /// The tag, with or without its `@`.
    pub tag: String,
}

/// The command of a line; `None` when the line is empty.
///
/// # Errors
/// A sentence that says what is wrong and how it is written.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let words = split(line)?;
    let Some(first) = words.first() else { return Ok(None) };
    let two = words.get(1).map(|second| format!("{} {}", first.text, second.text).to_lowercase());
    // Word by word: `"task run"` in quotes is one word, and no command.
    let names = COMMANDS.iter().filter_map(|entry| Some((entry.name, after(entry.name, &words)?)));
    let Some((name, rest)) = names.min_by_key(|(_, rest)| rest.len()) else {
        return Err(incomplete(&first.text, two.as_deref()));
    };
    command(name, rest.to_vec()).map(Some)
}

/// What follows a command's name, where the words begin with it.
fn after<'a>(name: &str, words: &'a [Word]) -> Option<&'a [Word]> {
    name.split(' ').try_fold(words, |words, part| {
        let (first, rest) = words.split_first()?;
        first.text.eq_ignore_ascii_case(part).then_some(rest)
    })
}

fn incomplete(first: &str, two: Option<&str>) -> String {
    let first = first.to_lowercase();
    let group: Vec<_> =
        COMMANDS.iter().filter(|entry| entry.name.split_once(' ').is_some_and(|(a, _)| a == first)).collect();
    if COMMANDS.iter().any(|entry| entry.name == first) {
        return format!("a command is written without quotes: {}", usage(&first));
    }
    if group.is_empty() {
        return unknown(&first);
    }
    if let Some(near) = two.and_then(|two| crate::config::reader::near(two, group.iter().map(|entry| entry.name))) {
        return format!("There is no such command; did you mean {near}?");
    }
    let forms: Vec<_> = group.iter().map(|entry| usage(entry.name)).collect();
    format!("{first} is followed by one of: {}", forms.join(" · "))
}

fn command(name: &'static str, words: Vec<Word>) -> Result<Command, String> {
    Ok(match name {
        "help" => Command::Help(Some(joined(&words)).filter(|text| !text.is_empty())),
        "clear" => none(name, &words).map(|()| Command::Clear)?,
        "theme" => Command::Theme(at_most_one(name, words)?.as_deref().map(theme).transpose()?),
        "pis" => none(name, &words).map(|()| Command::Pis)?,
        "pi" => Command::Pi(name_of_several_words(name, &words)?),
        "runs" => Command::Runs(if words.is_empty() { None } else { Some(joined(&words)) }),
        "show" => Command::Show(exactly_one(name, words)?),
        "output" => Command::Output(exactly_one(name, words)?),
        "task list" => none(name, &words).map(|()| Command::TaskList)?,
        "task run" => Command::TaskRun(run_command(words)?),
        "task cancel" => Command::TaskCancel(exactly_one(name, words)?),
        "task assign" => Command::TaskAssign(at_least_two(name, words)?),
        "assign name" => Command::AssignName(at_least_two(name, words)?),
        "tag add" | "tag remove" => Command::Tag(tag_change(name, &words)?),
        _ => settings(words)?,
    })
}

fn wrong(name: &str) -> String {
    format!("It is written: {}", usage(name))
}

fn joined(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

fn none(name: &str, words: &[Word]) -> Result<(), String> {
    if words.is_empty() { Ok(()) } else { Err(wrong(name)) }
}

fn at_most_one(name: &str, mut words: Vec<Word>) -> Result<Option<String>, String> {
    if words.len() > 1 { Err(wrong(name)) } else { Ok(words.pop().map(|word| word.text)) }
}

fn exactly_one(name: &str, words: Vec<Word>) -> Result<String, String> {
    at_most_one(name, words)?.filter(|text| !text.is_empty()).ok_or_else(|| wrong(name))
}

fn at_least_two(name: &str, words: Vec<Word>) -> Result<Vec<Word>, String> {
    if words.len() < 2 { Err(wrong(name)) } else { Ok(words) }
}

fn name_of_several_words(name: &str, words: &[Word]) -> Result<String, String> {
    Some(joined(words)).filter(|text| !text.is_empty()).ok_or_else(|| wrong(name))
}

fn theme(name: &str) -> Result<String, String> {
    let known = THEMES.into_iter().find(|theme| theme.eq_ignore_ascii_case(name));
    known.map(str::to_owned).ok_or_else(|| format!("There is no such theme; there are {}", THEMES.join(", ")))
}

fn tag_change(name: &str, words: &[Word]) -> Result<TagChange, String> {
    match words {
        [machine @ .., tag] if !machine.is_empty() => {
            Ok(TagChange { add: name == "tag add", machine: joined(machine), tag: tag.text.clone() })
        }
        _ => Err(wrong(name)),
    }
}

fn settings(words: Vec<Word>) -> Result<Command, String> {
    let mut options = Options::new("settings", words);
    let interval = options.value("--interval")?;
    let machine = joined(&options.finish()?);
    let interval = interval.filter(|_| !machine.is_empty()).ok_or_else(|| wrong("settings"))?;
    Ok(Command::Settings { machine, interval_seconds: interval_seconds(&interval)? })
}

/// A cadence in seconds, or `None` for `default`.
pub(crate) fn interval_seconds(text: &str) -> Result<Option<f64>, String> {
    if text.eq_ignore_ascii_case("default") {
        return Ok(None);
    }
    let seconds = text.parse().ok().filter(|seconds| pistat_protocol::status::INTERVAL_SECONDS.contains(seconds));
    seconds.map(Some).ok_or_else(|| "The interval is 0.2 to 3600 seconds, or default for the agent's own".to_owned())
}

fn run_command(words: Vec<Word>) -> Result<RunCommand, String> {
    let mut options = Options::new("task run", words);
    let mut run = RunCommand {
        yes: options.flag("--yes") | options.flag("-y"),
        detach: options.flag("--detach"),
        explain: options.flag("--explain"),
        canary: options.flag("--canary"),
        at_once: options.value("--at-once")?.map(|text| count("--at-once", &text)).transpose()?,
        stop_after: options.value("--stop-after")?.map(|text| count("--stop-after", &text)).transpose()?,
        expires: options.value("--expires")?,
        ..RunCommand::default()
    };
    if let Some(expires) = &run.expires {
        parse_duration(expires)?;
    }
    for word in options.finish()? {
        match word.text.split_once('=') {
            Some((name, value)) if !word.quoted => run.args.push((name.to_owned(), value.to_owned())),
            _ if run.task.is_empty() => run.task = word.text,
            _ if run.target.is_none() => run.target = Some(word.text),
            _ => {
                return Err(format!(
                    "{} is one word too many; names of several words need quotes. {}",
                    word.text,
                    wrong("task run")
                ));
            }
        }
    }
    if run.task.is_empty() { Err(wrong("task run")) } else { Ok(run) }
}

/// A count of machines or failures.
pub(crate) fn count(option: &str, text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| format!("{option} needs a whole number from 1"))
}

/// The options among the words of a command. Quoted words are never options.
struct Options {
    command: &'static str,
    words: Vec<Word>,
}

impl Options {
    fn new(command: &'static str, words: Vec<Word>) -> Self {
        Self { command, words }
    }

    fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word.quoted || word.text != name);
        self.words.len() < before
    }

    /// `--name value` or `--name=value`.
    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let of_name = |word: &Word| !word.quoted && (word.text == name || word.text.starts_with(&format!("{name}=")));
        let Some(at) = self.words.iter().position(of_name) else { return Ok(None) };
        let word = self.words.remove(at);
        if let Some((_, value)) = word.text.split_once('=') {
            return Ok(Some(value.to_owned()));
        }
        if at < self.words.len() { Ok(Some(self.words.remove(at).text)) } else { Err(format!("{name} needs a value")) }
    }

    fn finish(self) -> Result<Vec<Word>, String> {
        let stray = self.words.iter().find(|word| !word.quoted && word.text.starts_with('-') && word.text.len() > 1);
        match stray {
            Some(word) => Err(format!("{} has no option {}. {}", self.command, word.text, wrong(self.command))),
            None => Ok(self.words),
        }
    }
}

#[cfg(test)]
mod tests;
