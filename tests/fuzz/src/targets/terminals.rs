//! What people type.

use std::sync::LazyLock;

use pistat::{
    catalogue::Catalogue,
    terminal::{self, View},
};
use pistat_protocol::{
    account::Role,
    dashboard::{Machine, Run},
    task::TaskView,
};
use serde_json::{Value, json};

use crate::catalogue;

/// The terminal's grammar: words lie where they say, and a quoted text is one word again.
pub fn lines(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    if let Ok(words) = terminal::split(&text) {
        for word in &words {
            assert!(text.get(word.start..word.end).is_some(), "{word:?} of {text:?}");
        }
    }
    if !text.contains(char::is_control) {
        let quoted = terminal::quote(&text);
        let again = terminal::split(&quoted).unwrap_or_else(|error| panic!("{quoted}: {error}"));
        assert_eq!(again.iter().map(|word| word.text.as_str()).collect::<Vec<_>>(), [&*text], "{quoted}");
    }
    match terminal::parse(&text) {
        Ok(command) => command.is_some(),
        Err(sentence) => {
            assert!(!sentence.is_empty(), "a refusal says why");
            false
        }
    }
}

/// A fleet whose names are awkward: with blanks, quotes, characters of two UTF-16 units, and the
/// same label twice.
static FLEET: LazyLock<(Vec<Machine>, Vec<TaskView>, Vec<Run>)> = LazyLock::new(|| {
    let machine = |(id, label): (&str, &str)| {
        json!({"id": id, "label": label, "status": "online", "last_seen": null, "assignment": "DNS \u{b7} Pi-hole", "tags": ["camera"],
            "interval_seconds": null, "info": null, "stats": null, "recent_cpu_percent": []})
    };
    let machines = [
        ("controller", "Controller"),
        ("pi-1", "Rack Pi 1"),
        ("pi-2", "say \"hello\""),
        ("pi-3", "\u{1f353}\u{1f353} it's"),
        ("pi-4", "twin"),
        ("pi-5", "Twin"),
    ];
    let run = json!({"id": "01938f00-0000-7000-8000-000000000000", "task": "plain", "pi": "pi-1", "state": "running", "args": {},
        "requested_by": "admin", "request_id": null, "group": null, "created_at": "2026-11-22T12:00:00Z", "started_at": null,
        "finished_at": null, "exit_code": null, "reason": null, "output_bytes": 0, "dropped_bytes": 0});
    let machines = Value::from_iter(machines.map(machine));
    let right = "the fleet of this test is right";
    let tasks = Catalogue::parse(catalogue::TEXT, "fuzz.toml").expect(right).view();
    (serde_json::from_value(machines).expect(right), tasks, serde_json::from_value(json!([run])).expect(right))
});

/// Tab completion: whatever is typed, and wherever the cursor is, what is offered fits where it
/// says and is a word of the language.
pub fn completions(data: &[u8]) -> bool {
    let line = String::from_utf8_lossy(data);
    let tried = places(&line).filter(|(cursor, role)| complete(&line, *cursor, *role));
    tried.count() > 0
}

/// The same for one cursor and one role, which the line's bytes decide. libFuzzer tries fifteen
/// times as many lines in this way.
pub fn completion(data: &[u8]) -> bool {
    let line = String::from_utf8_lossy(data);
    let sum = data.iter().fold(data.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let places: Vec<_> = places(&line).collect();
    let (cursor, role) = places[sum % places.len()];
    complete(&line, cursor, role)
}

/// Cursors of a line (its end, beyond it, its middle, its beginning), each with every role.
fn places(line: &str) -> impl Iterator<Item = (u32, Role)> {
    let units = u32::try_from(line.encode_utf16().count()).unwrap_or(u32::MAX);
    let cursors = [units, u32::MAX, units / 2, 1, 0];
    cursors.into_iter().flat_map(|cursor| [Role::Viewer, Role::Operator, Role::Admin].map(|role| (cursor, role)))
}

/// Whether something is offered.
pub(super) fn complete(line: &str, cursor: u32, role: Role) -> bool {
    let (machines, tasks, runs) = &*FLEET;
    let view = View { machines, tasks, runs };
    let mut offered = false;
    let (start, candidates) = terminal::complete(line, cursor, &view, role);
    let before: Vec<u16> = line.encode_utf16().take(usize::try_from(start).unwrap_or(usize::MAX)).collect();
    assert!(start <= cursor && before.len() == start as usize, "{start} of {line:?} at {cursor}");
    let before = String::from_utf16(&before).unwrap_or_else(|_| panic!("{start} tears a character of {line:?}"));
    for candidate in candidates {
        assert!(!candidate.value.contains(char::is_control), "{candidate:?} for {line:?}");
        let whole = format!("{before}{}", candidate.value);
        assert!(terminal::split(&whole).is_ok(), "{candidate:?} makes {whole:?} of {line:?}, which is not a line");
        offered = true;
    }
    offered
}
