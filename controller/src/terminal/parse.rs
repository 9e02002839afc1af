//! From a line to a command. Names are not looked up here.

use super::Word;

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
pub fn parse(_line: &str) -> Result<Option<Command>, String> {
    todo!()
}
