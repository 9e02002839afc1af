//! Views as text for people: SGR colours and `\n` only; each text ends with `\n`. Everything from
//! outside is cleaned before it is shown.

mod machine;
mod quantity;
mod run;
mod table;
mod task;

use pistat_protocol::{
    api::PatchMachine,
    dashboard::{Event, Machine, Severity},
    id::PiId,
};

use super::{
    Style,
    style::{Paint, clean},
};

pub use machine::{machine, machines};
pub(crate) use quantity::count;
pub use run::{group, group_progress, how_it_ended, run, run_footer, run_header, runs};
pub use task::task_list;

/// An event in one line: time in UTC, kind, machine, who did it, text.
pub fn event(event: &Event, machines: &[Machine], style: Style) -> String {
    let paint = match event.severity {
        Severity::Info => Paint::Name,
        Severity::Warning => Paint::Warning,
        Severity::Error => Paint::Bad,
    };
    let machine = event.pi.as_ref().map(|pi| label_of(machines, pi)).unwrap_or_default();
    let account = event.account.as_deref().unwrap_or("-");
    let kind = style.cell(Some(Paint::Dim), event.kind.as_str(), 6);
    let machine = style.cell(Some(paint), &clean(&machine), 14);
    let who = style.cell(None, &clean(account), 12);
    format!(
        "{}  {kind}  {machine}  {who}  {}\n",
        style.paint(Paint::Dim, &quantity::moment(event.time)),
        clean(&event.text)
    )
}

/// A sentence that says what was done.
pub fn done(sentence: &str, style: Style) -> String {
    format!("{} {}\n", style.paint(Paint::Good, "✔"), clean(sentence))
}

/// A sentence that says why not.
pub fn refusal(sentence: &str, style: Style) -> String {
    format!("{} {}\n", style.paint(Paint::Bad, "✖"), clean(sentence))
}

/// What a patch did to a machine, in sentences. `before` is the machine as it was, `after` as it
/// is.
pub fn patched(patch: &PatchMachine, before: &Machine, after: &Machine, style: Style) -> String {
    let (id, label) = (after.id.as_str(), style.paint(Paint::Strong, &clean(&after.label)));
    let mut sentences = Vec::new();
    if patch.label.is_some() {
        sentences.push(format!("{id} is now {label}"));
    }
    match (&patch.assignment, &after.assignment) {
        (Some(_), Some(task)) => {
            sentences.push(format!("{label} is responsible for {}", style.paint(Paint::Name, &clean(task))));
        }
        (Some(_), None) => sentences.push(format!("{label} is responsible for nothing")),
        (None, _) => {}
    }
    if patch.tags.is_some() || patch.confirm_tags.is_some() {
        let tags: Vec<_> = after.tags.iter().map(|tag| format!("@{tag}")).collect();
        let tags = if tags.is_empty() { "no tag".to_owned() } else { tags.join(" ") };
        sentences.push(format!("{label} has {}", style.paint(Paint::Name, &tags)));
    }
    if patch.interval.is_some() && before.id == after.id {
        sentences.push(match after.interval_seconds {
            Some(seconds) => format!("{label} measures every {seconds} s"),
            None => format!("{label} measures at its own interval"),
        });
    }
    let mark = style.paint(Paint::Good, "✔");
    sentences.into_iter().map(|sentence| format!("{mark} {sentence}\n")).collect::<Vec<_>>().concat()
}

/// The label of a machine, or its id when it is not known any more.
pub(super) fn label_of(machines: &[Machine], pi: &PiId) -> String {
    let machine = machines.iter().find(|machine| machine.id == *pi);
    machine.map_or_else(|| pi.to_string(), |machine| clean(&machine.label).into_owned())
}

#[cfg(test)]
mod tests;
