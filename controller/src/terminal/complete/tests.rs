//! What Tab offers at each place of a line.

use super::*;
use crate::terminal::sample;

fn at(line: &str, role: Role) -> (u32, Vec<String>) {
    let fleet = sample::fleet();
    let cursor = u32::try_from(line.encode_utf16().count()).unwrap();
    let (start, found) = complete(line, cursor, &fleet.view(), role);
    (start, found.into_iter().map(|completion| completion.value).collect())
}

#[test]
fn each_place_has_its_candidates() {
    for (line, start, expected) in [
        ("ta", 0, vec!["task", "tag"]),
        ("task ", 5, vec!["list", "run", "cancel", "assign"]),
        ("task r", 5, vec!["run"]),
        ("task run up", 9, vec!["uptime", "apt-update", "apt-upgrade"]),
        ("task run \"shut d", 9, vec!["\"Shut down\""]),
        ("task run uptime pi-1", 16, vec!["pi-1"]),
        ("task run uptime rack", 16, vec!["\"Rack Pi 1\"", "\"Rack Pi 2\"", "@rack"]),
        ("task run uptime @", 16, vec!["@all", "@camera", "@rack"]),
        ("task run service-log pi-1 ", 26, vec!["unit=", "lines="]),
        ("task run service-log pi-1 unit=ssh ", 35, vec!["lines="]),
        ("task run service-log unit=s", 21, vec!["unit=ssh", "unit=systemd-timesyncd", "unit=pistat-agent"]),
        ("task run service-log lines=", 21, vec!["lines=100"]),
        ("task run uptime --ca", 16, vec!["--canary"]),
        ("task assign Rack P", 12, vec!["\"Rack Pi 1\"", "\"Rack Pi 2\""]),
        ("task assign Rack Pi 1 disk", 22, vec!["\"Disk usage\""]),
        ("task assign \"Rack Pi 1\" net", 24, vec!["Network"]),
        ("assign name pi-2 x", 17, vec![]),
        ("theme a", 6, vec!["amber", "paper"]),
        ("pi con", 3, vec!["controller", "Controller"]),
        ("tag add pi-1 c", 13, vec!["camera", "rack"]),
        ("settings pi-1 ", 14, vec!["--interval"]),
        ("help ta", 5, vec!["task", "tag"]),
        ("nonsense x", 9, vec![]),
    ] {
        let (found_start, mut found) = at(line, Role::Admin);
        found.truncate(expected.len().max(1));
        assert_eq!((found_start, found), (start, expected.into_iter().map(str::to_owned).collect()), "{line}");
    }
}

#[test]
fn only_runs_that_are_not_over_can_be_cancelled() {
    let (_, open) = at("task cancel ", Role::Operator);
    let (_, all) = at("show ", Role::Operator);
    assert_eq!((open.len(), all.len()), (1, 3));
}

#[test]
fn a_viewer_is_not_offered_what_only_operators_may_do() {
    assert_eq!(at("task ", Role::Viewer).1, ["list"]);
    assert!(!at("", Role::Viewer).1.contains(&"tag".to_owned()));
}

#[test]
fn positions_count_utf16_code_units_and_the_cursor_may_stand_within_the_line() {
    let fleet = sample::fleet();
    let (start, found) = complete("pi 🍓🍓 con", 3, &fleet.view(), Role::Admin);
    assert_eq!((start, found.len()), (3, 5));
    assert_eq!(at("help 🍓🍓 x", Role::Admin).0, 10);
}

proptest::proptest! {
    #[test]
    fn no_line_panics(line in "(task|run|assign|name|pi|tag|add|show|help|settings|unit=|\"|'|-|@|🍓|Rack|pi-1| ){0,10}", cursor in 0u32..80) {
        let fleet = sample::fleet();
        let (start, _) = complete(&line, cursor, &fleet.view(), Role::Admin);
        proptest::prop_assert!(start <= cursor.min(u32::try_from(line.encode_utf16().count()).unwrap()) + 1);
    }
}
