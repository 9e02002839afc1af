//! The catalogue as people see it.

use pistat_protocol::task::{ArgumentKind, ArgumentView, TaskView};

use super::{
    quantity::count,
    table::{Cell, table},
};
use crate::terminal::{
    Style,
    style::{Paint, clean},
};

/// `task list`.
pub fn task_list(tasks: &[TaskView], style: Style) -> String {
    let rows: Vec<_> = tasks.iter().map(|task| row(task, style)).collect();
    let count = count(tasks.len(), "task");
    let footer = format!(
        "{}{}\n",
        style.paint(Paint::Dim, &format!("{count} · run one with ")),
        style.paint(Paint::Strong, "task run <task-id> [<pi-id>]")
    );
    table(&[], &rows, style) + &footer
}

fn row(task: &TaskView, style: Style) -> Vec<Cell> {
    let mut description = clean(&task.description).into_owned();
    for argument in &task.args {
        description.push(' ');
        description.push_str(&style.paint(Paint::Dim, &form(argument)));
    }
    let marks = [(task.confirm, "confirm"), (task.root, "root"), (task.schedule.is_some(), "scheduled")];
    for (_, mark) in marks.iter().filter(|(marked, _)| *marked) {
        description.push(' ');
        description.push_str(&style.paint(Paint::Warning, mark));
    }
    vec![(Some(Paint::Name), task.id.to_string()), (None, clean(&task.label).into_owned()), (None, description)]
}

/// How an argument is written: `unit=ssh|cron`, `[lines=100]`.
fn form(argument: &ArgumentView) -> String {
    let value = match (&argument.kind, &argument.default) {
        (_, Some(default)) => default.to_string(),
        (ArgumentKind::Choices { choices }, None) => choices.join("|"),
        (ArgumentKind::Integer { min, max }, None) => format!("{min}…{max}"),
        (ArgumentKind::Number { min, max }, None) => format!("{min}…{max}"),
        (ArgumentKind::Boolean, None) => "true|false".into(),
        (ArgumentKind::Machine, None) => "<pi>".into(),
        (ArgumentKind::Pattern { .. }, None) => "…".into(),
    };
    let text = format!("{}={value}", argument.name);
    clean(&if argument.default.is_some() { format!("[{text}]") } else { text }).into_owned()
}
