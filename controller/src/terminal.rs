//! The command language, used by the dashboard's terminal and by the command line: words, commands,
//! names, completion, and text for people.
//!
//! Pure: it reads a [`View`] of the fleet, and changes nothing. What comes from outside is stripped
//! of control characters before it is shown.

mod complete;
mod explain;
mod help;
mod names;
mod output_filter;
pub(crate) mod parse;
mod render;
mod resolve;
#[cfg(test)]
pub(crate) mod sample;
mod style;
mod words;

pub use complete::complete;
pub use explain::{AskedBroker, explain};
pub use help::help;
pub use names::View;
pub use output_filter::OutputFilter;
pub use parse::{Command, RunCommand, TagChange, parse};
pub(crate) use render::count;
pub use render::{
    done, event, group, group_progress, how_it_ended, machine, machines, patched, refusal, run, run_footer, run_header,
    runs, task_list,
};
pub use resolve::{
    MAX_LABEL_CHARS, label, new_run, patch_assignment, patch_interval, patch_name, patch_tags, typed_arguments,
};
pub(crate) use style::is_unsafe;
pub use style::{Style, clean};
pub use words::{Word, quote, split};

/// The themes that `theme` knows.
pub const THEMES: [&str; 3] = ["phosphor", "amber", "paper"];
