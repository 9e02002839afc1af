//! Tables of what runs do: each test is a story with an agent's words and the steps that follow.

use pistat_protocol::{
    api::GroupOptions,
    task::{OutputChunk, Stream},
};

use crate::records::fixtures;

use super::{
    requests::{REMEMBERED_REQUESTS, REMEMBERED_RUNS},
    *,
};

const BOOT: &str = "boot-1";

fn pi(text: &str) -> PiId {
    text.parse().unwrap()
}

fn now() -> Now {
    Now::get()
}

fn later(now: Now, seconds: u64) -> Now {
    Now { monotonic: now.monotonic + Duration::from_secs(seconds), ..now }
}

fn record(n: u8, machine: &str) -> RunRecord {
    let record = fixtures::record(1000);
    RunRecord {
        run: Run {
            id: RunId::from_parts(u64::from(n), [n; 10]),
            pi: pi(machine),
            requested_by: "anna".into(),
            created_at: now().wall,
            ..record.run
        },
        expires_milliseconds: 600_000,
        timeout_milliseconds: 600_000,
        requester: Some(account(0)),
        ..record
    }
}

fn account(created: i64) -> Requester {
    Requester::Account { created_at: Timestamp::from_unix_milliseconds(created) }
}

fn empty() -> Runs {
    let kept = KeptRuns { open: vec![], retained: vec![], recent: vec![], requests: vec![], groups: vec![] };
    Runs::new(kept, 2, Duration::from_secs(86_400), Instant::now())
}

fn with(records: Vec<RunRecord>) -> (Runs, Vec<RunId>) {
    let mut runs = empty();
    let ids: Vec<_> = records.iter().map(|record| record.run.id).collect();
    runs.add(records, None, Instant::now());
    runs.accepted(&ids);
    (runs, ids)
}

fn report(state: RunState) -> Report {
    Report {
        state,
        started_at: Some(now().wall),
        finished_at: None,
        elapsed_milliseconds: Some(38),
        exit_code: state.is_final().then_some(0),
        reason: None,
        boot_id: BOOT.into(),
        output_chunks: None,
        output_bytes: None,
        dropped_bytes: 0,
        nonce: None,
    }
}

fn chunk(seq: u64) -> OutputChunk {
    OutputChunk {
        seq,
        stream: Some(Stream::Stdout),
        data: "x".into(),
        gap_bytes: None,
        is_final: false,
        dropped_bytes: None,
    }
}

fn session(n: u8) -> Session {
    Session::from_random([n; 16])
}

fn state(runs: &Runs, id: RunId) -> RunState {
    runs.get(id).unwrap().run.state
}

/// What the hub does: stores the run as it is now, and tells that it is stored.
fn store(runs: &mut Runs, id: RunId) -> (Run, Ack) {
    let record = runs.record(id).unwrap();
    let ack = runs.stored(&record);
    (record.run, ack)
}

fn ready_on(runs: &Runs, machine: &str) -> Vec<RunId> {
    runs.ready(&pi(machine), |_| u32::MAX)
}

fn saves(steps: &[Step], id: RunId) -> bool {
    steps.contains(&Step::Save(id))
}

#[test]
fn a_run_lives_from_queued_to_succeeded() {
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    let id = ids[0];
    assert_eq!(ready_on(&runs, "pi-1"), [id]);
    assert!(saves(&runs.dispatched(id, Ends::Exit, Instant::now()), id));
    assert!(ready_on(&runs, "pi-1").is_empty());
    assert!(saves(&runs.report(&pi("pi-1"), id, report(RunState::Running), now()), id));
    let (_, ack) = store(&mut runs, id);
    assert_eq!(ack, Ack { seq: None, state: Some(RunState::Running) });
    assert!(saves(&runs.report(&pi("pi-1"), id, report(RunState::Succeeded), now()), id));
    let (run, ack) = store(&mut runs, id);
    assert_eq!((run.state, run.exit_code, ack.state), (RunState::Succeeded, Some(0), Some(RunState::Succeeded)));
    assert!(runs.get(id).is_none());
    assert_eq!(runs.newest()[0].state, RunState::Succeeded);
}

#[test]
fn no_run_ends_before_it_began_though_the_clock_is_turned_back_meanwhile() {
    let start = now();
    let back = Now { wall: Timestamp::from_unix_milliseconds(start.wall.unix_milliseconds() - 3_600_000), ..start };
    let times = |runs: &Runs, id| {
        let run = &runs.get(id).unwrap().run;
        (run.created_at, run.started_at.unwrap(), run.finished_at.unwrap())
    };
    for elapsed in [None, Some(38)] {
        let (mut runs, ids) = with(vec![record(1, "pi-1"), record(2, "pi-1")]);
        for id in &ids {
            runs.dispatched(*id, Ends::Exit, start.monotonic);
            runs.report(&pi("pi-1"), *id, report(RunState::Running), start);
        }
        runs.report(&pi("pi-1"), ids[0], Report { elapsed_milliseconds: elapsed, ..report(RunState::Succeeded) }, back);
        runs.end(ids[1], RunState::Lost, "gone", back);
        for id in ids {
            let (created, started, finished) = times(&runs, id);
            assert!(created <= started && started <= finished, "{created} {started} {finished}");
        }
    }
}

#[test]
fn a_run_whose_end_is_told_late_ended_when_it_had_taken_its_time() {
    let start = now();
    let after = |seconds: u64| {
        let wall = start.wall.unix_milliseconds() + i64::try_from(seconds * 1000).unwrap();
        Now { wall: Timestamp::from_unix_milliseconds(wall), ..later(start, seconds) }
    };
    let milliseconds = |time: Timestamp| time.unix_milliseconds() - start.wall.unix_milliseconds();
    // When its beginning and its end were heard, what it took, and when it began and ended.
    for (heard, took, told) in [
        ((Some(1), 13), Some(12_000), (1_000, 13_000)),
        // The link, or the controller, was away at its end.
        ((Some(1), 90), Some(12_000), (1_000, 13_000)),
        // And at its beginning too: later than this it did not begin, and nobody knows how much
        // earlier.
        ((Some(90), 90), Some(12_000), (78_000, 90_000)),
        ((None, 90), Some(12_000), (78_000, 90_000)),
        ((Some(1), 90), None, (1_000, 90_000)),
        ((None, 90), None, (90_000, 90_000)),
        // Nothing that an agent says makes it begin before it was asked for, or end in times to
        // come.
        ((Some(1), 90), Some(500_000), (0, 90_000)),
        ((Some(1), 90), Some(u64::MAX), (1_000, 90_000)),
    ] {
        let mut asked = record(1, "pi-1");
        asked.run.created_at = start.wall;
        let (mut runs, ids) = with(vec![asked]);
        runs.dispatched(ids[0], Ends::Exit, start.monotonic);
        if let Some(began) = heard.0 {
            runs.report(&pi("pi-1"), ids[0], report(RunState::Running), after(began));
        }
        let end = Report { elapsed_milliseconds: took, ..report(RunState::Succeeded) };
        runs.report(&pi("pi-1"), ids[0], end, after(heard.1));
        let run = &runs.get(ids[0]).unwrap().run;
        let is = (milliseconds(run.started_at.unwrap()), milliseconds(run.finished_at.unwrap()));
        assert_eq!(is, told, "heard {heard:?}, took {took:?}");
    }
}

#[test]
fn nothing_starts_before_it_is_on_disk() {
    let mut runs = empty();
    let queued = record(1, "pi-1");
    let id = queued.run.id;
    runs.add(vec![queued], None, Instant::now());
    assert!(ready_on(&runs, "pi-1").is_empty());
    assert_eq!(runs.accepted(&[id]), [Step::Dispatch(pi("pi-1"))]);
    assert_eq!(ready_on(&runs, "pi-1"), [id]);
}

#[test]
fn only_what_was_stored_is_acknowledged_and_leaves() {
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    let id = ids[0];
    runs.dispatched(id, Ends::Exit, Instant::now());
    runs.report(&pi("pi-1"), id, report(RunState::Running), now());
    let running = runs.record(id).unwrap();
    runs.report(&pi("pi-1"), id, report(RunState::Succeeded), now());
    assert_eq!(runs.stored(&running).state, Some(RunState::Running));
    assert!(runs.get(id).is_some(), "its end is not on the disk yet");
    assert_eq!(store(&mut runs, id).1.state, Some(RunState::Succeeded));
    assert!(runs.get(id).is_none());
}

#[test]
fn a_final_state_never_changes() {
    for first in RunState::ALL.into_iter().filter(|state| state.is_final()) {
        for second in RunState::ALL {
            let (mut runs, ids) = with(vec![record(1, "pi-1")]);
            runs.end(ids[0], first, "because", now());
            runs.report(&pi("pi-1"), ids[0], report(second), now());
            runs.end(ids[0], second, "because", now());
            runs.cancel(ids[0], "anna", now());
            assert_eq!(state(&runs, ids[0]), first, "{first} then {second}");
        }
    }
}

#[test]
fn a_report_after_the_end_changes_nothing_and_is_acknowledged() {
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    runs.end(ids[0], RunState::Expired, "late", now());
    store(&mut runs, ids[0]);
    let steps = runs.report(&pi("pi-1"), ids[0], report(RunState::Succeeded), now());
    assert!(
        matches!(&steps[..], [Step::Anomaly(..), Step::Ack(_, _, Ack { state: Some(RunState::Succeeded), .. })]),
        "{steps:?}"
    );
}

#[test]
fn another_machines_word_is_dropped() {
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    runs.dispatched(ids[0], Ends::Exit, Instant::now());
    let steps = runs.report(&pi("pi-2"), ids[0], report(RunState::Succeeded), now());
    assert!(matches!(&steps[..], [Step::Anomaly(..)]));
    assert!(matches!(&runs.output(&pi("pi-2"), ids[0], chunk(0), now())[..], [Step::Anomaly(..)]));
    assert_eq!(state(&runs, ids[0]), RunState::Dispatched);
}

#[test]
fn an_agent_cannot_say_what_only_the_controller_decides() {
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    runs.dispatched(ids[0], Ends::Exit, Instant::now());
    for word in [RunState::Queued, RunState::Dispatched] {
        assert!(matches!(&runs.report(&pi("pi-1"), ids[0], report(word), now())[..], [Step::Anomaly(..)]));
    }
}

#[test]
fn output_is_stored_once_and_in_order() {
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    let id = ids[0];
    assert!(matches!(&runs.output(&pi("pi-1"), id, chunk(0), now())[..], [Step::SavePiece(_)]));
    assert!(matches!(&runs.output(&pi("pi-1"), id, chunk(0), now())[..], [Step::Ack(..)]), "a repetition");
    assert!(matches!(&runs.output(&pi("pi-1"), id, chunk(2), now())[..], [Step::Ack(..)]), "a hole");
    assert!(matches!(&runs.output(&pi("pi-1"), id, chunk(1), now())[..], [Step::SavePiece(_)]));
    assert_eq!(runs.piece_stored(id, 0).unwrap().1.seq, Some(0));
    assert_eq!(runs.piece_stored(id, 1).unwrap().1.seq, Some(1));
}

#[test]
fn a_run_ends_only_when_all_of_its_output_is_here() {
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    let id = ids[0];
    runs.dispatched(id, Ends::Exit, Instant::now());
    let last = Report { output_chunks: Some(2), ..report(RunState::Succeeded) };
    assert!(runs.report(&pi("pi-1"), id, last, now()).is_empty());
    runs.output(&pi("pi-1"), id, chunk(0), now());
    assert_eq!(state(&runs, id), RunState::Dispatched);
    let steps = runs.output(&pi("pi-1"), id, chunk(1), now());
    assert!(matches!(steps[0], Step::SavePiece(_)) && saves(&steps, id));
    assert_eq!(state(&runs, id), RunState::Succeeded);
}

#[test]
fn after_a_reconnect_every_run_is_settled() {
    let cases = [
        (RunState::Queued, false, RunState::Queued, None),
        (RunState::Dispatched, false, RunState::Dispatched, Some("execute")),
        (RunState::Dispatched, true, RunState::Dispatched, None),
        (RunState::Running, true, RunState::Running, None),
        (RunState::Running, false, RunState::Lost, None),
    ];
    for (before, known, after, sent) in cases {
        let (mut runs, ids) = with(vec![record(1, "pi-1")]);
        if before != RunState::Queued {
            runs.dispatched(ids[0], Ends::Exit, Instant::now());
        }
        if before == RunState::Running {
            runs.report(&pi("pi-1"), ids[0], report(RunState::Running), now());
        }
        let known: Vec<_> = known.then_some(ids[0]).into_iter().collect();
        let steps = runs.settle(&pi("pi-1"), &session(2), &known, BOOT, now());
        assert_eq!(state(&runs, ids[0]), after, "{before}");
        assert_eq!(steps.contains(&Step::Execute(ids[0])), sent.is_some(), "{before}");
    }
}

#[test]
fn what_an_agent_has_in_this_session_is_not_lost_because_an_older_word_comes_late() {
    for (before, is_sent_again) in [(RunState::Dispatched, true), (RunState::Running, false)] {
        for is_named in [false, true] {
            let (mut runs, ids) = with(vec![RunRecord { expires_milliseconds: 0, ..record(1, "pi-1") }]);
            let id = ids[0];
            runs.dispatched(id, Ends::Exit, Instant::now());
            runs.sent(id, session(1));
            if before == RunState::Running {
                runs.report(&pi("pi-1"), id, report(RunState::Running), now());
            }
            let current = if is_named { session(2) } else { session(1) };
            if is_named {
                runs.settle(&pi("pi-1"), &current, &[id], BOOT, now());
            }
            runs.tick(now(), |_| Some(Instant::now()));
            let steps = runs.settle(&pi("pi-1"), &current, &[], BOOT, later(now(), 10));
            assert_eq!(state(&runs, id), before, "named: {is_named}");
            assert_eq!(steps.contains(&Step::Execute(id)), is_sent_again, "named: {is_named}");
            runs.settle(&pi("pi-1"), &session(3), &[], BOOT, later(now(), 10));
            assert!(state(&runs, id).is_final(), "named: {is_named}");
        }
    }
}

#[test]
fn a_reboot_that_was_asked_for_has_succeeded() {
    for (boot, end) in [("boot-2", RunState::Succeeded), (BOOT, RunState::Lost)] {
        let (mut runs, ids) = with(vec![record(1, "pi-1")]);
        runs.dispatched(ids[0], Ends::Restart, Instant::now());
        runs.report(&pi("pi-1"), ids[0], report(RunState::Running), now());
        runs.settle(&pi("pi-1"), &session(2), &[], boot, now());
        assert_eq!(state(&runs, ids[0]), end);
    }
}

#[test]
fn a_cancel_is_kept_until_the_run_is_final() {
    let (mut runs, ids) = with(vec![record(1, "pi-1"), record(2, "pi-1")]);
    let queued = runs.cancel(ids[1], "berta", now()).unwrap();
    assert!(saves(&queued, ids[1]));
    assert_eq!(state(&runs, ids[1]), RunState::Cancelled);
    runs.dispatched(ids[0], Ends::Exit, Instant::now());
    assert_eq!(runs.cancel(ids[0], "berta", now()).unwrap(), [Step::Save(ids[0]), Step::Cancel(ids[0])]);
    assert!(runs.settle(&pi("pi-1"), &session(2), &[ids[0]], BOOT, now()).contains(&Step::Cancel(ids[0])));
    runs.report(&pi("pi-1"), ids[0], report(RunState::Cancelled), now());
    assert!(runs.cancel(ids[0], "berta", now()).is_none());
}

#[test]
fn a_run_that_was_cancelled_before_its_agent_knew_it_is_not_sent_again() {
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    runs.dispatched(ids[0], Ends::Exit, Instant::now());
    runs.cancel(ids[0], "berta", now());
    let steps = runs.settle(&pi("pi-1"), &session(2), &[], BOOT, now());
    assert!(steps.contains(&Step::Cancel(ids[0])) && !steps.contains(&Step::Execute(ids[0])), "{steps:?}");
    runs.report(&pi("pi-1"), ids[0], report(RunState::Cancelled), now());
    assert_eq!(state(&runs, ids[0]), RunState::Cancelled);
}

#[test]
fn waiting_counts_only_while_the_machine_is_offline() {
    let start = now();
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    let offline = |_: &PiId| Some(start.monotonic);
    let online = |_: &PiId| None;
    runs.tick(start, offline);
    runs.tick(later(start, 400), offline);
    runs.tick(later(start, 401), online);
    runs.tick(later(start, 5000), online);
    runs.tick(later(start, 5001), offline);
    runs.tick(later(start, 5150), offline);
    assert_eq!(state(&runs, ids[0]), RunState::Queued);
    runs.tick(later(start, 5300), offline);
    assert_eq!(state(&runs, ids[0]), RunState::Expired);
}

#[test]
fn an_order_that_did_not_arrive_is_sent_again_until_it_has_waited_too_long() {
    let start = now();
    let offline = |_: &PiId| Some(start.monotonic);
    for (seconds, is_known, after, is_sent) in [
        (500, false, RunState::Dispatched, true),
        (700, false, RunState::Expired, false),
        (700, true, RunState::Dispatched, false),
    ] {
        let (mut runs, ids) = with(vec![record(1, "pi-1")]);
        runs.dispatched(ids[0], Ends::Exit, start.monotonic);
        runs.tick(start, |_| None);
        runs.tick(later(start, 5000), |_| None);
        runs.tick(later(start, 5001), offline);
        let known: Vec<_> = is_known.then_some(ids[0]).into_iter().collect();
        let steps = runs.settle(&pi("pi-1"), &session(2), &known, BOOT, later(start, 5001 + seconds));
        assert_eq!(state(&runs, ids[0]), after, "{seconds} s, known: {is_known}");
        assert_eq!(steps.contains(&Step::Execute(ids[0])), is_sent, "{seconds} s, known: {is_known}");
    }
}

#[test]
fn a_machine_that_stays_silent_loses_its_runs() {
    let start = now();
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    runs.dispatched(ids[0], Ends::Exit, Instant::now());
    let offline = |_: &PiId| Some(start.monotonic);
    runs.tick(later(start, 86_000), offline);
    assert_eq!(state(&runs, ids[0]), RunState::Dispatched);
    runs.tick(later(start, 86_500), offline);
    assert_eq!(state(&runs, ids[0]), RunState::Lost);
}

#[test]
fn a_machine_that_does_not_come_back_from_its_restart_in_time_has_failed() {
    let start = now();
    let gone = |_: &PiId| Some(later(start, 5).monotonic);
    for (ends, limit, after) in [
        (Ends::Restart, 600_000, RunState::Failed),
        (Ends::Restart, 0, RunState::Running),
        (Ends::Exit, 600_000, RunState::Running),
    ] {
        let (mut runs, ids) = with(vec![RunRecord { timeout_milliseconds: limit, ..record(1, "pi-1") }]);
        runs.dispatched(ids[0], ends, start.monotonic);
        runs.report(&pi("pi-1"), ids[0], report(RunState::Running), start);
        runs.tick(later(start, 600), gone);
        assert_eq!(state(&runs, ids[0]), RunState::Running, "{ends:?} {limit}");
        runs.tick(later(start, 601), |_| None);
        assert_eq!(state(&runs, ids[0]), RunState::Running, "it is there: its agent says how it ended");
        runs.tick(later(start, 601), gone);
        assert_eq!(state(&runs, ids[0]), after, "{ends:?} {limit}");
    }
}

#[test]
fn a_machine_that_powered_off_has_succeeded() {
    let start = now();
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    runs.dispatched(ids[0], Ends::PowerOff, Instant::now());
    runs.report(&pi("pi-1"), ids[0], report(RunState::Running), now());
    runs.tick(later(start, 10), |_| Some(start.monotonic));
    assert_eq!(state(&runs, ids[0]), RunState::Running);
    runs.tick(later(start, 40), |_| Some(start.monotonic));
    assert_eq!(state(&runs, ids[0]), RunState::Succeeded);
}

#[test]
fn a_machine_does_so_many_runs_at_a_time() {
    let (mut runs, ids) = with(vec![record(1, "pi-1"), record(2, "pi-1"), record(3, "pi-1"), record(4, "pi-2")]);
    assert_eq!(ready_on(&runs, "pi-1"), ids[..2]);
    runs.dispatched(ids[0], Ends::Exit, Instant::now());
    assert_eq!(ready_on(&runs, "pi-1"), ids[1..2]);
    assert_eq!(ready_on(&runs, "pi-2"), ids[3..]);
}

#[test]
fn a_task_that_waits_for_itself_keeps_no_place_from_others() {
    let other = |n| {
        let mut other = record(n, "pi-1");
        other.run.task = "top".parse().unwrap();
        other
    };
    let (mut runs, ids) = with(vec![record(1, "pi-1"), record(2, "pi-1"), record(3, "pi-1"), other(4), other(5)]);
    let one = |runs: &Runs| runs.ready(&pi("pi-1"), |_| 1);
    assert_eq!(one(&runs), [ids[0], ids[3]]);
    runs.dispatched(ids[0], Ends::Exit, Instant::now());
    assert_eq!(one(&runs), [ids[3]]);
    runs.dispatched(ids[3], Ends::Exit, Instant::now());
    assert!(one(&runs).is_empty());
    runs.end(ids[0], RunState::Failed, "", now());
    assert_eq!(one(&runs), [ids[1]]);
}

#[test]
fn the_newest_twenty_stay_retained_and_refusals_never() {
    let mut runs = empty();
    let mut cleared = Vec::new();
    for n in 0..25 {
        let queued = record(n, "pi-1");
        let id = queued.run.id;
        runs.add(vec![queued], None, Instant::now());
        let steps = runs.end(id, RunState::Succeeded, "", now());
        cleared.extend(steps.into_iter().filter(|step| matches!(step, Step::Clear(..))));
        store(&mut runs, id);
    }
    assert_eq!(cleared.len(), 5);
    let refused = record(30, "pi-1");
    let id = refused.run.id;
    runs.add(vec![refused], None, Instant::now());
    assert!(runs.end(id, RunState::Rejected, "no", now()).contains(&Step::Clear(pi("pi-1"), id)));
    assert!(!runs.get(id).unwrap().retained);
}

#[test]
fn the_same_request_id_by_the_same_account_is_the_same_run() {
    let mut runs = empty();
    let mut asked = record(1, "pi-1");
    asked.run.request_id = Some("r".into());
    let id = asked.run.id;
    runs.add(vec![asked], None, Instant::now());
    assert_eq!(runs.earlier("anna", &account(0), "r").unwrap().runs, [id]);
    assert_eq!(runs.earlier("berta", &account(0), "r"), None);
    assert_eq!(runs.earlier("anna", &account(1), "r"), None, "an account of the same name is another");
    runs.tick(later(now(), 86_000), |_| None);
    assert_eq!(runs.earlier("anna", &account(0), "r").unwrap().runs, [id], "whatever the wall clock says");
    runs.withdraw(&[id]);
    assert_eq!(runs.earlier("anna", &account(0), "r"), None);
}

#[test]
fn a_request_of_an_earlier_version_is_known_by_the_name_of_its_account() {
    let mut runs = empty();
    let (requested_by, request_id) = ("anna".to_owned(), "r".to_owned());
    let known =
        RequestRecord { requested_by, requester: None, request_id, group: None, runs: vec![record(1, "pi-1").run.id] };
    runs.requests.restore(known.clone(), Instant::now());
    assert_eq!(runs.earlier("anna", &account(7), "r").unwrap().runs, known.runs);
    assert_eq!(runs.earlier("berta", &account(7), "r"), None);
}

#[test]
fn requests_are_forgotten_after_a_day_and_when_there_are_too_many() {
    let mut runs = empty();
    let started = now();
    for n in 0..REMEMBERED_REQUESTS as u64 + 10 {
        let mut asked = record(1, "pi-1");
        asked.run.id = RunId::from_parts(n, [0; 10]);
        asked.run.request_id = Some(n.to_string());
        runs.add(vec![asked], None, started.monotonic);
    }
    assert!(runs.earlier("anna", &account(0), "9").is_none() && runs.earlier("anna", &account(0), "10").is_some());
    assert_eq!(runs.requests.len(), (REMEMBERED_REQUESTS, REMEMBERED_REQUESTS));
    runs.tick(later(started, 86_400), |_| Some(started.monotonic));
    assert_eq!(runs.requests.len(), (0, 0));
}

#[test]
fn requests_to_many_machines_are_forgotten_sooner_and_the_newest_never() {
    let mut requests = Requests::default();
    let now = Instant::now();
    let mut ask = |request: u64, machines: u64| {
        for machine in 0..machines {
            let mut asked = record(1, "pi-1");
            asked.run.id = RunId::from_parts(request << 32 | machine, [0; 10]);
            asked.run.request_id = Some(request.to_string());
            requests.remember(&asked, now);
        }
        let key =
            RequestKey { requested_by: "anna".into(), requester: Some(account(0)), request_id: request.to_string() };
        (requests.len(), requests.earlier(&key).map(|accepted| accepted.runs.len()))
    };
    let half = REMEMBERED_RUNS as u64 / 2;
    assert_eq!(ask(1, half), ((1, REMEMBERED_RUNS / 2), Some(REMEMBERED_RUNS / 2)));
    assert_eq!(ask(2, half).0, (2, REMEMBERED_RUNS));
    assert_eq!(ask(3, 1).0, (2, REMEMBERED_RUNS / 2 + 1));
    let more = REMEMBERED_RUNS + 1;
    assert_eq!(ask(4, more as u64), ((1, more), Some(more)), "whatever it takes");
}

#[test]
fn finished_groups_leave_memory_and_open_ones_stay() {
    let (mut runs, ids, first) = group(GroupOptions::default());
    for n in 0..RECENT_RUNS as u64 + 50 {
        let record =
            GroupRecord { id: RunId::from_parts(1000 + n, [0; 10]), open: false, ..runs.groups[&first].clone() };
        runs.add(Vec::new(), Some(record), Instant::now());
    }
    assert_eq!(runs.groups.len(), RECENT_RUNS);
    assert!(runs.group(first).is_some(), "it is open");
    for id in ids {
        finish(&mut runs, id, RunState::Succeeded);
    }
    let record = GroupRecord { id: RunId::from_parts(9000, [0; 10]), ..runs.groups[&first].clone() };
    runs.add(Vec::new(), Some(record), Instant::now());
    assert!(runs.group(first).is_none());
}

fn group(options: GroupOptions) -> (Runs, Vec<RunId>, RunId) {
    let id = RunId::from_parts(100, [100; 10]);
    let records: Vec<_> = (1..=4)
        .map(|n| {
            let mut record = record(n, &format!("pi-{n}"));
            record.run.group = Some(id);
            record
        })
        .collect();
    let ids: Vec<_> = records.iter().map(|record| record.run.id).collect();
    let group = GroupRecord {
        id,
        task: "uptime".parse().unwrap(),
        target: pistat_protocol::id::Target::All,
        args: [("lines".to_owned(), pistat_protocol::task::ArgumentValue::Integer(20))].into(),
        requested_by: "anna".into(),
        created_at: now().wall,
        runs: ids.clone(),
        options,
        stopped: None,
        open: true,
        states: BTreeMap::new(),
    };
    let mut runs = empty();
    runs.add(records, Some(group), Instant::now());
    runs.accepted(&ids);
    (runs, ids, id)
}

fn ready(runs: &Runs) -> Vec<RunId> {
    (1..=4).flat_map(|n| ready_on(runs, &format!("pi-{n}"))).collect()
}

fn finish(runs: &mut Runs, id: RunId, state: RunState) -> Vec<Step> {
    runs.dispatched(id, Ends::Exit, Instant::now());
    let machine = runs.get(id).unwrap().run.pi.clone();
    let steps = runs.report(&machine, id, report(state), now());
    store(runs, id);
    steps
}

#[test]
fn a_rolling_group_goes_so_many_at_a_time() {
    let (mut runs, ids, _) = group(GroupOptions { at_once: Some(1), ..GroupOptions::default() });
    assert_eq!(ready(&runs).len(), 4, "none has started yet: each machine is asked in turn");
    runs.dispatched(ids[0], Ends::Exit, Instant::now());
    assert!(ready(&runs).is_empty());
    let steps = runs.report(&pi("pi-1"), ids[0], report(RunState::Succeeded), now());
    assert!(steps.contains(&Step::Dispatch(pi("pi-2"))), "{steps:?}");
    assert_eq!(ready(&runs), ids[1..]);
}

#[test]
fn a_canary_goes_alone_and_stops_the_rest_if_it_fails() {
    for (end, rest) in [(RunState::Succeeded, RunState::Queued), (RunState::Failed, RunState::Cancelled)] {
        let (mut runs, ids, id) = group(GroupOptions { canary: true, ..GroupOptions::default() });
        assert_eq!(ready(&runs), ids[..1]);
        finish(&mut runs, ids[0], end);
        assert_eq!(state(&runs, ids[3]), rest, "{end}");
        assert_eq!(runs.group(id).unwrap().stopped.is_some(), end == RunState::Failed);
    }
}

#[test]
fn a_group_stops_after_so_many_failures_and_closes_when_all_are_done() {
    let (mut runs, ids, id) = group(GroupOptions { stop_after: Some(2), ..GroupOptions::default() });
    finish(&mut runs, ids[0], RunState::Failed);
    assert!(runs.group_record(id).unwrap().open);
    finish(&mut runs, ids[1], RunState::TimedOut);
    assert_eq!(state(&runs, ids[2]), RunState::Cancelled);
    let record = runs.group_record(id).unwrap();
    assert!(!record.open && record.stopped.is_some(), "{record:?}");
    let view = runs.group(id).unwrap();
    assert_eq!(view.states, [(RunState::Failed, 1), (RunState::TimedOut, 1), (RunState::Cancelled, 2)].into());
    assert_eq!(view.total, 4);
    // Whoever wants it again knows how it was.
    assert_eq!(view.options, GroupOptions { stop_after: Some(2), ..GroupOptions::default() });
    assert_eq!(view.args["lines"], pistat_protocol::task::ArgumentValue::Integer(20));
}

#[test]
fn a_root_runners_nonce_is_answered_only_for_a_run_that_is_sent_and_wanted() {
    let nonce = Nonce::from_random([3; 16]);
    let asks = Report { nonce: Some(nonce.clone()), ..report(RunState::Dispatched) };
    let (mut runs, ids) = with(vec![record(1, "pi-1"), record(2, "pi-1"), record(3, "pi-1")]);
    for id in &ids {
        runs.dispatched(*id, Ends::Exit, now().monotonic);
    }
    assert_eq!(runs.report(&pi("pi-1"), ids[0], asks.clone(), now()), [Step::Confirm(ids[0], nonce)]);
    let of_another = runs.report(&pi("pi-2"), ids[0], asks.clone(), now());
    assert!(matches!(of_another[..], [Step::Anomaly(..)]), "{of_another:?}");
    runs.report(&pi("pi-1"), ids[1], report(RunState::Running), now());
    assert_eq!(runs.report(&pi("pi-1"), ids[1], asks.clone(), now()), [], "it runs already");
    runs.cancel(ids[2], "anna", now());
    assert_eq!(runs.report(&pi("pi-1"), ids[2], asks, now()), [], "nobody wants it any more");
    assert_eq!(state(&runs, ids[2]), RunState::Dispatched);
}

#[test]
fn a_root_run_counts_as_cancelled_only_when_its_order_can_start_nothing_any_more() {
    for claimed in [RunState::Cancelled, RunState::Rejected] {
        for first in [None, Some(RunState::Running)] {
            let (mut runs, ids) = with(vec![record(1, "pi-1")]);
            let sent = now();
            runs.dispatched(ids[0], Ends::Exit, sent.monotonic);
            runs.confirmed(ids[0], sent.monotonic);
            first.map(|first| runs.report(&pi("pi-1"), ids[0], report(first), sent));
            assert_eq!(runs.report(&pi("pi-1"), ids[0], report(claimed), sent), [], "{claimed}");
            assert_eq!(runs.tick(later(sent, ROOT_NONCE_LIFETIME.as_secs() - 1), |_| None), []);
            assert!(!state(&runs, ids[0]).is_final());
            let steps = runs.tick(later(sent, ROOT_NONCE_LIFETIME.as_secs()), |_| None);
            assert!(saves(&steps, ids[0]), "{steps:?}");
            assert_eq!(state(&runs, ids[0]), claimed);
        }
    }
    // What it did is told at once.
    let (mut runs, ids) = with(vec![record(1, "pi-1")]);
    runs.dispatched(ids[0], Ends::Exit, now().monotonic);
    runs.confirmed(ids[0], now().monotonic);
    assert!(saves(&runs.report(&pi("pi-1"), ids[0], report(RunState::Succeeded), now()), ids[0]));
}
