//! What one machine or account can take from the others: no place, and no line of the log.

use super::*;

const UPTIME_ON_TWO: &str = "[task.uptime]\ncommand = ['uptime']\non = ['pi-1', 'pi-2']\n";

fn two_machines() -> Driven {
    let mut driven = Driven::on(tempfile::tempdir().unwrap(), |loaded| {
        for name in ["pi-1", "pi-2"] {
            loaded.access.apply(&AccessChange::PutAgent(enrolled(name)));
        }
    });
    driven.event(Event::Heard(vec![Heard::Connected]));
    driven.event(Event::Catalogue(Catalogue::parse(UPTIME_ON_TWO, "tasks.toml")));
    driven
}

#[test]
fn a_machine_with_many_queued_runs_takes_no_more_and_keeps_no_other_from_its_own() {
    let mut driven = two_machines();
    let mut ask = |target: &str| {
        let run = NewRun { target: target.parse().unwrap(), ..new_run(None) };
        let mut answer = driven.ask(|reply| Ask::Run(anna(), run, reply));
        driven.disk();
        answer.try_recv().unwrap().map(|accepted| accepted.runs.len())
    };
    for _ in 0..1000 {
        assert_eq!(ask("pi-1"), Ok(1));
    }
    let refused = ask("pi-1").unwrap_err();
    assert!(
        refused.kind == ask::RefusedKind::Conflict && refused.detail.contains("pi-1 has 1000 runs that have not ended"),
        "{refused:?}"
    );
    assert_eq!(ask("pi-2"), Ok(1));
    assert_eq!(ask("@all"), Ok(1), "the group leaves out the one that has too many");
}

#[test]
fn the_end_of_a_run_is_kept_with_what_was_asked_for() {
    let mut driven = Driven::new();
    driven.greets();
    let run = driven.run();
    driven.hear(Topic::Report(pi(), run), r#"{"state":"succeeded","exit_code":0,"boot_id":"b","dropped_bytes":0}"#);
    driven.disk();
    let register = rusqlite::Connection::open(driven.folder.path().join("register.sqlite")).unwrap();
    let shelf = |what: &str| -> u8 {
        let query = format!("SELECT shelf FROM events WHERE {what}");
        register.query_row(&query, [], |row| row.get(0)).unwrap()
    };
    let (asked, ended) =
        ("record LIKE '%requested uptime%'", format!("record LIKE '%{run}%' AND record NOT LIKE '%requested%'"));
    assert_eq!(shelf(&ended), shelf(asked));
    assert_ne!(shelf(&ended), shelf("record LIKE '%online%'"), "what a machine can cause is elsewhere");
}
