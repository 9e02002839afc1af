//! `check`: reads everything that can be configured, and starts nothing.

use super::{
    console::Console,
    failure::{Failure, USAGE},
};
use crate::{
    catalogue::Catalogue,
    config::{Config, Flags, Problem},
    terminal,
};

pub(super) fn run(console: &mut Console<'_>, flags: &Flags, environment: Vec<(String, String)>) -> Result<(), Failure> {
    let (config, mut problems) = match Config::load(flags, environment) {
        Ok(config) => (Some(config), Vec::new()),
        Err(problems) => (None, problems),
    };
    // With a broken configuration the catalogue may still be where it always is.
    let tasks = config.map(|config| config.tasks).or_else(|| flags.tasks.clone());
    let tasks = tasks.unwrap_or_else(|| Config::default().tasks);
    let catalogue = Catalogue::read(&tasks);
    let count = catalogue.as_ref().map_or(0, |catalogue| catalogue.tasks().count());
    problems.extend(catalogue.err().unwrap_or_default());
    report(console, &problems, count)
}

fn report(console: &mut Console<'_>, problems: &[Problem], tasks: usize) -> Result<(), Failure> {
    if console.json {
        let list: Vec<_> = problems
            .iter()
            .map(|problem| serde_json::json!({"file": problem.file, "line": problem.line, "message": problem.message}))
            .collect();
        console.show(&list, |_, _| String::new())?;
    } else if problems.is_empty() {
        // As JSON it is the empty list above.
        console.done(&format!("Configuration and catalogue are good: {tasks} tasks"))?;
    }
    if problems.is_empty() {
        return Ok(());
    }
    if !console.json {
        let style = console.style();
        let lines: String = problems.iter().map(|problem| terminal::refusal(&problem.to_string(), style)).collect();
        console.print(&lines)?;
    }
    Err(Failure::Exit(USAGE))
}
