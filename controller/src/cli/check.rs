//! `check`: reads everything that can be configured, and starts nothing.

use super::{
    console::Console,
    failure::{Failure, USAGE},
};
use crate::{
    catalogue::Catalogue,
    catalogue_file,
    config::{Config, Flags, Problem},
    confine, terminal,
};

pub(super) fn run(console: &mut Console<'_>, flags: &Flags, environment: Vec<(String, String)>) -> Result<(), Failure> {
    // Whatever else is wrong, the catalogue is looked for where it is said to be.
    let (config, mut problems) = Config::load_lenient(flags, environment);
    let config = config.unwrap_or_default();
    for notice in &config.notices {
        console.remark(&format!("warning: {notice}\n"));
    }
    let catalogue = catalogue_file::read(&config.tasks);
    let count = catalogue.as_ref().map_or(0, |catalogue| catalogue.tasks().count());
    if let Ok(catalogue) = &catalogue {
        warn(console, catalogue);
    }
    problems.extend(catalogue.err().unwrap_or_default());
    report(console, &problems, count)
}

/// What is no mistake, and worth a second look: free text that reaches the controller's own
/// machine.
fn warn(console: &mut Console<'_>, catalogue: &Catalogue) {
    if !confine::is_available() {
        console.remark(&format!("warning: {}\n", confine::UNAVAILABLE));
    }
    for task in catalogue.tasks().filter(|task| task.may_run_on_controller()) {
        let texts: Vec<_> = task.free_texts().map(|name| format!("{{{name}}}")).collect();
        if !texts.is_empty() {
            let user = if task.view().root { "root" } else { "the controller's own user" };
            console.remark(&format!(
                "warning: task {}: {} is free text, and the task may run on `controller` as {user}. If that is not meant, list its values with \
                 `choices`, or name other machines with `on`\n",
                task.view().id,
                texts.join(", ")
            ));
        }
    }
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
        console.done(&format!("Configuration and catalogue are good: {}", terminal::count(tasks, "task")))?;
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
