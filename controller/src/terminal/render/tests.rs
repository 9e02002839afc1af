//! Views and the text that people see of them.

use pistat_protocol::{
    dashboard::{EventKind, Group},
    id::RunId,
    task::RunState,
    time::Timestamp,
};

use super::*;
use crate::terminal::sample::{NOW, fleet, run as sample_run};

fn now() -> Timestamp {
    Timestamp::from_unix_milliseconds(NOW)
}

#[test]
fn the_task_list_has_columns_marks_and_a_footer() {
    let text = task_list(&fleet().tasks, Style::PLAIN);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "uptime           Uptime                Show how long the machine has been running");
    assert!(lines.contains(&"reboot           Reboot                Restart the machine confirm root"));
    assert!(text.contains("[lines=100]") && text.contains("unit=ssh|cron"));
    assert_eq!(lines[14], "14 tasks · run one with task run <task-id> [<pi-id>]");
    assert!(task_list(&fleet().tasks, Style::COLOUR).contains("\x1b[36muptime\x1b[0m"));
}

#[test]
fn machines_are_a_table_and_absent_ones_show_no_old_values() {
    let text = machines(&fleet().machines, now(), Style::PLAIN);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "   LABEL       PI-ID       CPU  RAM  TEMP  UP        RESPONSIBLE FOR  TAGS");
    assert_eq!(lines[2], "●  Rack Pi 1   pi-1        12%  42%  48°C  41d 2h    DNS · Pi-hole    @camera @rack");
    assert_eq!(lines[5], "○  twin        pi-4        —    —    —     seen now");
    assert_eq!(lines[6], "4 online · 1 offline");
}

#[test]
fn one_machine_shows_what_is_known_and_nothing_else() {
    let text = machine(&fleet().machines[1], now(), Style::PLAIN);
    assert!(text.starts_with("● Rack Pi 1  pi-1\n"));
    for line in ["  responsible for  DNS · Pi-hole\n", "  temperature      48.3 °C\n", "  up               41d 2h\n"]
    {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("wi-fi"));
}

#[test]
fn runs_show_how_they_ended() {
    let fleet = fleet();
    let text = runs(&fleet.runs, &fleet.machines, now(), Style::PLAIN);
    assert!(text.contains("uptime       Rack Pi 1  finished exit 0  38 ms  1m ago  admin"), "{text}");
    assert!(text.contains("failed exit 1") && text.contains("▶"));
    assert!(runs(&[], &[], now(), Style::PLAIN).contains("no runs yet"));
    let one = run(&fleet.runs[2], &fleet.machines, Style::PLAIN);
    assert!(
        one.starts_with("✖ failed exit 1\n")
            && one.contains(&fleet.runs[2].id.to_string())
            && one.contains("Rack Pi 1 (pi-1)")
    );
}

#[test]
fn a_run_is_framed_like_the_picture() {
    let done = sample_run(1, "uptime", RunState::Succeeded);
    assert!(run_header(&done, "Rack Pi 1", Style::PLAIN).starts_with("┌ uptime · Rack Pi 1 · run "));
    assert_eq!(run_footer(&done, Style::PLAIN), "└ ✔ finished exit 0 · 38 ms\n");
    let mut refused = sample_run(1, "uptime", RunState::Rejected);
    (refused.exit_code, refused.started_at, refused.reason) = (None, None, Some("no\x1b[2J\nway".into()));
    assert_eq!(run_footer(&refused, Style::PLAIN), "└ ✖ rejected no[2J way\n");
}

#[test]
fn a_run_that_was_ended_from_outside_says_why_once_and_not_by_its_signal() {
    for (state, reason, table, footer, line) in [
        (
            RunState::TimedOut,
            Some("ended by its time limit of 30 s"),
            "timed out  38 ms",
            "└ ✖ timed out 38 ms · ended by its time limit of 30 s\n",
            "timed out · 38 ms · ended by its time limit of 30 s",
        ),
        (RunState::Cancelled, Some("cancelled"), "cancelled  38 ms", "└ ✖ cancelled 38 ms\n", "cancelled · 38 ms"),
        (
            RunState::Cancelled,
            Some("cancelled before its order reached this machine"),
            "cancelled  38 ms",
            "└ ✖ cancelled 38 ms · before its order reached this machine\n",
            "cancelled · 38 ms · before its order reached this machine",
        ),
        (
            RunState::Failed,
            Some("ended by signal 9 (SIGKILL), as when memory runs out"),
            "failed exit 143  38 ms",
            "└ ✖ failed exit 143 · 38 ms · ended by signal 9 (SIGKILL), as when memory runs out\n",
            "failed · exit 143 · 38 ms · ended by signal 9 (SIGKILL), as when memory runs out",
        ),
    ] {
        let mut ended = sample_run(1, "uptime", state);
        (ended.exit_code, ended.reason) = (Some(143), reason.map(Into::into));
        let rows = runs(std::slice::from_ref(&ended), &fleet().machines, now(), Style::PLAIN);
        assert!(rows.contains(table), "{rows}");
        assert_eq!(run_footer(&ended, Style::PLAIN), footer);
        assert_eq!(how_it_ended(&ended), line);
        assert_eq!(
            run(&ended, &[], Style::PLAIN).matches("cancelled").count(),
            usize::from(state == RunState::Cancelled)
        );
    }
}

#[test]
fn one_is_counted_as_one() {
    let mut fleet = fleet();
    let mut one = sample_group();
    one.total = 1;
    assert!(group(&one, Style::PLAIN).starts_with("┌ apt-upgrade · @all · 1 machine\n"));
    fleet.tasks.truncate(1);
    assert!(task_list(&fleet.tasks, Style::PLAIN).contains("1 task ·"));
}

fn sample_group() -> Group {
    Group {
        id: RunId::from_parts(1, [1; 10]),
        task: "apt-upgrade".parse().unwrap(),
        target: "@all".parse().unwrap(),
        args: pistat_protocol::task::Arguments::new(),
        options: pistat_protocol::api::GroupOptions::default(),
        requested_by: "admin".into(),
        created_at: now(),
        total: 24,
        states: [(RunState::Succeeded, 15), (RunState::Failed, 1), (RunState::Running, 6), (RunState::Queued, 2)]
            .into(),
        stopped: None,
    }
}

#[test]
fn a_group_shows_how_far_it_is() {
    let group = sample_group();
    assert_eq!(group_progress(&group, Style::PLAIN), "████████████████░░░░░░░░ 16/24  15 ✔ 1 ✖ 6 running 2 waiting");
    let none = Group { total: 0, states: std::collections::BTreeMap::default(), ..group };
    assert!(group_progress(&none, Style::PLAIN).starts_with("░"));
}

#[test]
fn events_and_sentences_are_one_clean_line() {
    let alert = Event {
        seq: 1,
        time: now(),
        kind: EventKind::Alert,
        severity: Severity::Warning,
        pi: Some("pi-1".parse().unwrap()),
        run: None,
        account: None,
        text: "under-voltage\n\x1b]0;x\x07detected".into(),
    };
    let line = |changed: Event| event(&changed, &fleet().machines, Style::PLAIN);
    assert_eq!(
        line(alert.clone()),
        "2026-11-22 12:00:00 UTC  alert   Rack Pi 1       -             under-voltage ]0;xdetected\n"
    );
    let renamed = Event { account: Some("alice\n".into()), text: "renamed".into(), ..alert.clone() };
    assert_eq!(line(renamed.clone()), "2026-11-22 12:00:00 UTC  alert   Rack Pi 1       alice         renamed\n");
    assert_eq!(
        line(Event { pi: None, ..renamed }),
        "2026-11-22 12:00:00 UTC  alert                   alice         renamed\n"
    );
    assert_eq!(refusal("no\nway", Style::PLAIN), "✖ no way\n");
}

#[test]
fn a_patch_is_told_in_sentences() {
    let before = fleet().machines.remove(1);
    let mut after = before.clone();
    after.label = "Garage Door".into();
    after.assignment = None;
    after.interval_seconds = Some(2.5);
    let patch = PatchMachine {
        label: Some(Some("Garage Door".into())),
        assignment: Some(None),
        tags: Some(after.tags.clone()),
        confirm_tags: None,
        interval: Some(Some(2.5)),
    };
    assert_eq!(
        patched(&patch, &before, &after, Style::PLAIN),
        "✔ pi-1 is now Garage Door\n✔ Garage Door is responsible for nothing\n✔ Garage Door has @camera @rack\n✔ Garage Door measures every 2.5 s\n"
    );
}
