//! Tasks that run by themselves: what one machine does or is keeps no other from running, and each
//! firing that was not for all is told once.

use pistat_protocol::dashboard::Run;

use super::*;

const SCHEDULED: &str = "[task.nightly]\ncommand = ['true']\nschedule = '0 3 * * *'\ntimezone = 'UTC'\n\
                         on = ['pi-1', 'pi-2', 'pi-3', 'pi-4']\n";

/// `pi-1` and `pi-3` are connected, `pi-2` is not, and `pi-4` runs no tasks.
fn fleet(more: &str) -> Driven {
    let mut driven = Driven::on(tempfile::tempdir().unwrap(), |loaded| {
        for name in ["pi-1", "pi-2", "pi-3", "pi-4"] {
            loaded.access.apply(&AccessChange::PutAgent(enrolled(name)));
        }
    });
    driven.event(Event::Heard(vec![Heard::Connected]));
    driven.catalogue(&format!("{SCHEDULED}{more}"));
    for name in ["pi-1", "pi-3", "pi-4"] {
        driven.greets_as(&name.parse().unwrap());
    }
    let register_only = greeting().replace("\"controller\"", "\"never\"");
    driven.hear(Topic::Info("pi-4".parse().unwrap()), register_only);
    driven
}

impl Driven {
    fn catalogue(&mut self, text: &str) {
        self.event(Event::Catalogue(Catalogue::parse(text, "tasks.toml")));
        self.disk();
    }

    /// It is time: the runs that were made, and what the audit log says of the firing.
    fn fire(&mut self) -> (Vec<Run>, Vec<String>) {
        let (runs, events) = (self.hub.last_id_milliseconds, self.hub.audit.next_seq());
        self.hub.now = Now::get();
        self.hub.run_scheduled(&"nightly".parse().unwrap());
        self.hub.commit_turn();
        self.disk();
        let mut made = self.hub.runs.newest();
        made.retain(|run| run.id.unix_milliseconds() > runs);
        made.sort_by_key(|run| run.id);
        let events = self.hub.audit.recent().iter().filter(|event| event.seq >= events);
        let told = events.filter(|event| event.text.contains("was not started on schedule"));
        (made, told.map(|event| event.text.clone()).collect())
    }

    fn reports(&mut self, run: &Run, state: &str) {
        let report = format!(r#"{{"state":"{state}","boot_id":"b","dropped_bytes":0}}"#);
        self.hear(Topic::Report(run.pi.clone(), run.id), report);
        self.disk();
    }
}

fn machines(runs: &[Run]) -> Vec<&str> {
    runs.iter().map(|run| run.pi.as_str()).collect()
}

#[test]
fn machines_that_are_offline_or_at_work_or_run_nothing_keep_no_other_from_a_scheduled_task() {
    let mut driven = fleet("");
    let (runs, told) = driven.fire();
    assert_eq!(machines(&runs), ["pi-1", "pi-3"]);
    let register_only = "pi-4 (its agent was started with --register-only and runs no tasks)";
    let expected =
        format!("nightly was not started on schedule: 2 of 4 machines were left out: {register_only}; pi-2 (offline)");
    assert_eq!(told, [expected]);
    // The run of pi-1 ends, that of pi-3 hangs; and a person runs the same task on pi-1, which
    // holds nothing up.
    driven.reports(&runs[0], "succeeded");
    driven.reports(&runs[1], "running");
    let mut manual =
        driven.ask(|reply| Ask::Run(anna(), NewRun { task: "nightly".parse().unwrap(), ..new_run(None) }, reply));
    driven.disk();
    assert_eq!(manual.try_recv().unwrap().unwrap().runs.len(), 1);
    for _ in 0..2 {
        let (runs, told) = driven.fire();
        assert_eq!(machines(&runs), ["pi-1"]);
        let expected = format!(
            "nightly was not started on schedule: 3 of 4 machines were left out: {register_only}; \
             pi-3 (its last run has not ended); pi-2 (offline)"
        );
        assert_eq!(told, [expected]);
        let manual = driven.hub.runs.newest().into_iter().find(|run| run.requested_by == "anna").unwrap();
        if !manual.state.is_final() {
            driven.reports(&manual, "succeeded");
        }
        driven.reports(&runs[0], "succeeded");
    }
}

#[test]
fn a_machine_that_was_offline_runs_once_when_it_is_back_if_the_task_says_so() {
    let mut driven = fleet("missed = 'run-when-back'\n");
    let (runs, told) = driven.fire();
    assert_eq!(machines(&runs), ["pi-1", "pi-2", "pi-3"]);
    assert!(told[0].contains("1 of 4") && !told[0].contains("pi-2"), "{told:?}");
    for run in [&runs[0], &runs[2]] {
        driven.reports(run, "succeeded");
    }
    let (again, told) = driven.fire();
    assert_eq!(machines(&again), ["pi-1", "pi-3"]);
    assert!(told[0].contains("pi-2 (its last run has not started yet)"), "{told:?}");
    driven.hub.outbox.take();
    driven.greets_as(&runs[1].pi);
    driven.disk();
    let orders = driven.hub.outbox.iter().filter(|message| message.topic.ends_with("/execute"));
    let orders: Vec<_> = orders.map(|message| message.topic.clone()).collect();
    assert_eq!(orders, [driven.hub.topics.format(&Topic::Execute(runs[1].pi.clone(), runs[1].id))]);
}

#[test]
fn a_scheduled_run_that_waits_is_rejected_when_its_schedule_or_its_arguments_are_others() {
    let catalogue = |schedule: &str, count: u8| {
        format!(
            "[task.nightly]\ncommand = ['echo', '{{count}}']\nargs.count = {{ integer = {{ min = 0, max = 9 }}, default = {count} }}\n\
             on = ['pi-2']\n{schedule}"
        )
    };
    let nightly = "schedule = '0 3 * * *'\ntimezone = 'UTC'\nmissed = 'run-when-back'\n";
    let cases = [
        (catalogue(nightly, 1), None),
        (catalogue(nightly, 2), Some("the arguments of nightly in the catalogue were changed")),
        (catalogue(&nightly.replace('3', "4"), 1), Some("the schedule of nightly was changed to 0 4 * * * UTC")),
        (catalogue("", 1), Some("nightly has no schedule any more")),
        ("[task.other]\ncommand = ['true']\n".into(), Some("There is no task nightly")),
    ];
    for (later, reason) in cases {
        let mut driven = fleet("");
        driven.catalogue(&catalogue(nightly, 1));
        let (runs, _) = driven.fire();
        assert_eq!(machines(&runs), ["pi-2"]);
        driven.catalogue(&later);
        driven.greets_as(&runs[0].pi);
        driven.disk();
        let seen = driven.hub.runs.newest().into_iter().find(|run| run.id == runs[0].id).unwrap();
        let expected = if reason.is_none() { RunState::Dispatched } else { RunState::Rejected };
        assert_eq!(seen.state, expected, "{later}: {:?}", seen.reason);
        assert!(seen.reason.unwrap_or_default().contains(reason.unwrap_or_default()), "{later}");
    }
}

#[test]
fn a_firing_for_no_machine_or_on_a_full_disk_is_told() {
    let mut driven = fleet("");
    driven.catalogue(&SCHEDULED.replace("'pi-1', 'pi-2', 'pi-3', 'pi-4'", "'@camera'"));
    let (runs, told) = driven.fire();
    assert_eq!(
        (runs.len(), told),
        (0, vec!["nightly was not started on schedule: no machine of the fleet is among @camera".into()])
    );
    driven.catalogue(&SCHEDULED.replace("'pi-1', 'pi-2', 'pi-3', 'pi-4'", "'pi-1'"));
    driven.hub.now = Now::get();
    driven.hub.run_scheduled(&"nightly".parse().unwrap());
    driven.hub.commit_turn();
    let is_asked = |after: &PendingCommit| matches!(after, PendingCommit::Runs(after) if after.accepted.is_some());
    let asked = driven.hub.commits.tickets().filter(|(_, after)| is_asked(after));
    let tickets: Vec<_> = asked.map(|(ticket, _)| ticket).collect();
    let refused =
        |ticket| Stored { ticket, result: Err(NotStored::Refused("the disk is full".into())), left_out: vec![] };
    assert_eq!(tickets.len(), 1);
    driven.event(Event::Stored(tickets.into_iter().map(refused).collect()));
    assert_eq!(driven.hub.audit.recent()[0].text, "nightly was not started on schedule: the disk is full");
}
