//! The state folder over starts, damage and full disks.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

use pistat_protocol::dashboard::{EventKind, Severity};

use super::{register::Shelf, *};

const RETENTION: Retention = Retention { days: 30, runs: 1000, events: 1000, audit: 1000 };

fn pi() -> PiId {
    "pi-1".parse().unwrap()
}

fn label(text: &str) -> Write {
    Write::Metadata(pi(), MetadataPatch { label: Some(Some(text.into())), ..MetadataPatch::default() })
}

fn wait(stored: &mut mpsc::UnboundedReceiver<Stored>, ticket: Ticket) -> Result<(), NotStored> {
    loop {
        let outcome = stored.blocking_recv().expect("the store lives");
        if outcome.ticket == ticket {
            return outcome.result;
        }
    }
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, loaded, mut stored) = Store::open(folder.path(), RETENTION).unwrap();
    assert!(loaded.new_admin && loaded.damaged.is_empty());
    let ticket = store.commit(Durability::Rejectable, label("Rack Pi 1"));
    wait(&mut stored, ticket).unwrap();
    let mut record = record::fixtures::record(100);
    let piece = OutputState::new(100).take(&mut record, record::fixtures::chunk(0, "hello", None));
    let writes = vec![RegisterWrite::Run(Box::new(record.clone())), RegisterWrite::Piece(piece)];
    let ticket = store.commit(Durability::Required, Write::Register(writes));
    wait(&mut stored, ticket).unwrap();
    store.close();
    let text = fs::read_to_string(folder.path().join("labels.json")).unwrap();
    assert_eq!(text, "{\n  \"pi-1\": \"Rack Pi 1\"\n}\n");
    let (store, again, _stored) = Store::open(folder.path(), RETENTION).unwrap();
    assert!(!again.new_admin);
    assert_eq!(again.given.labels[&pi()], "Rack Pi 1");
    assert_eq!(again.open_runs[0].0, record);
    assert_eq!(again.key.public(), loaded.key.public());
    assert_eq!(again.join_token, loaded.join_token);
    let (pieces, cursor) = store.reader().unwrap().output(record.run.id, Cursor::default()).unwrap();
    assert_eq!((pieces[0].data.as_str(), cursor), ("hello", Cursor { seq: 1, start: 5 }));
}

#[test]
fn a_second_controller_on_the_same_folder_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Store::open(folder.path(), RETENTION).unwrap();
    assert!(matches!(Store::open(folder.path(), RETENTION), Err(StoreError::InUse(_))));
}

#[test]
fn damaged_files_are_set_aside_and_the_start_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["labels.json", "accounts.json", "controller.key", "join.token", "register.sqlite"] {
        fs::write(folder.path().join(file), "garbage that is none of ours, long enough to be read").unwrap();
    }
    let (_store, loaded, _stored) = Store::open(folder.path(), RETENTION).unwrap();
    assert_eq!(loaded.damaged.len(), 5, "{:?}", loaded.damaged);
    let kept = fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("damaged"));
    assert_eq!(kept.count(), 5);
}

#[test]
fn a_file_that_can_be_read_and_means_nothing_is_damaged_too() {
    let folder = tempfile::tempdir().unwrap();
    let (store, first, _stored) = Store::open(folder.path(), RETENTION).unwrap();
    store.close();
    let files: [(&str, &[u8]); 3] =
        [("controller.key", b"\"abc\""), ("join.token", b"\xff\xfe"), ("admin.token", b"another's\n")];
    for (file, content) in files {
        fs::write(folder.path().join(file), content).unwrap();
    }
    let (_store, again, _stored) = Store::open(folder.path(), RETENTION).unwrap();
    assert!(again.new_admin && again.key.public() != first.key.public());
    for (file, content) in files {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let aside = |path: &PathBuf| path.to_string_lossy().contains(&format!("{file}.damaged-"));
        let kept: Vec<_> = names.filter(aside).map(|path| fs::read(path).unwrap()).collect();
        assert_eq!(kept, [content], "{file} is kept aside");
        assert!(again.damaged.iter().any(|told| told.contains(file)), "{file} is told: {:?}", again.damaged);
    }
}

#[test]
fn what_is_there_and_cannot_be_read_is_set_aside_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["labels.json", "tasks.json", "accounts.json", "controller.key", "admin.token", "join.token"];
    for file in files {
        fs::create_dir(folder.path().join(file)).unwrap();
    }
    let (_store, loaded, _stored) = Store::open(folder.path(), RETENTION).unwrap();
    for file in files {
        assert!(loaded.damaged.iter().any(|told| told.contains(file)), "{file}: {:?}", loaded.damaged);
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let aside = names.filter(|name| name.to_string_lossy().starts_with(&format!("{file}.damaged-")));
        assert_eq!(aside.count(), 1, "{file} is kept aside");
    }
    assert!(loaded.new_admin);
}

#[test]
fn a_lost_admin_token_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (store, first, _stored) = Store::open(folder.path(), RETENTION).unwrap();
    store.close();
    fs::remove_file(folder.path().join("admin.token")).unwrap();
    let (_store, again, _stored) = Store::open(folder.path(), RETENTION).unwrap();
    assert!(again.new_admin);
    let token = fs::read_to_string(folder.path().join("admin.token")).unwrap();
    assert!(again.access.caller_by_token(token.trim(), now()).is_some());
    assert!(first.access.caller_by_token(token.trim(), now()).is_none());
}

#[test]
fn what_cannot_be_stored_is_refused_if_asked_and_kept_if_it_happened() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _loaded, mut stored) = Store::open(folder.path(), RETENTION).unwrap();
    let labels_in_the_way = folder.path().join("labels.new");
    fs::create_dir(&labels_in_the_way).unwrap();
    let asked = store.commit(Durability::Rejectable, label("A"));
    let NotStored::Refused(sentence) = wait(&mut stored, asked).unwrap_err() else { panic!("it was asked for") };
    assert!(sentence.contains("free space") && sentence.contains("nothing was changed"), "{sentence}");
    let must = store.commit(Durability::Required, label("B"));
    let NotStored::Waits(sentence) = wait(&mut stored, must).unwrap_err() else { panic!("it has happened") };
    assert!(sentence.contains("free space") && !sentence.contains("nothing was changed"), "{sentence}");
    fs::remove_dir(&labels_in_the_way).unwrap();
    wait(&mut stored, must).unwrap();
    assert!(fs::read_to_string(folder.path().join("labels.json")).unwrap().contains('B'));
}

#[test]
fn a_change_of_several_files_changes_all_of_them_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _loaded, mut stored) = Store::open(folder.path(), RETENTION).unwrap();
    let tasks_in_the_way = folder.path().join("tasks.new");
    fs::create_dir(&tasks_in_the_way).unwrap();
    let change = || MetadataPatch {
        label: Some(Some("Rack".into())),
        assignment: Some(Some("Door".into())),
        ..MetadataPatch::default()
    };
    let asked = store.commit(Durability::Rejectable, Write::Metadata(pi(), change()));
    assert!(matches!(wait(&mut stored, asked), Err(NotStored::Refused(_))));
    assert!(!folder.path().join("labels.json").exists() && !folder.path().join("labels.new").exists());
    fs::remove_dir(&tasks_in_the_way).unwrap();
    let asked = store.commit(Durability::Rejectable, Write::Metadata(pi(), change()));
    wait(&mut stored, asked).unwrap();
    for (file, text) in [("labels.json", "Rack"), ("tasks.json", "Door")] {
        assert!(fs::read_to_string(folder.path().join(file)).unwrap().contains(text));
    }
}

#[test]
fn what_tasks_printed_is_nobody_elses_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let _store = Store::open(folder.path(), RETENTION).unwrap();
    for file in ["register.sqlite", "register.sqlite-wal", "accounts.json", "controller.key", "admin.token"] {
        let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} has mode {mode:o}");
    }
}

#[test]
fn what_can_never_be_stored_is_left_out_and_told_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _loaded, mut stored) = Store::open(folder.path(), RETENTION).unwrap();
    let mut record = record::fixtures::record(100);
    let good = OutputState::new(100).take(&mut record, record::fixtures::chunk(0, "hello", None));
    let bad = record::NewPiece { seq: 1, start: u64::MAX, ..good.clone() };
    let run = record.run.id;
    let asked = store.commit(Durability::Rejectable, Write::Register(vec![RegisterWrite::Piece(bad.clone())]));
    let writes = vec![RegisterWrite::Piece(bad), RegisterWrite::Run(Box::new(record)), RegisterWrite::Piece(good)];
    let must = store.commit(Durability::Required, Write::Register(writes));
    let NotStored::Refused(sentence) = wait(&mut stored, asked).unwrap_err() else { panic!("it was asked for") };
    assert!(sentence.contains("cannot be stored"), "{sentence}");
    let outcome = stored.blocking_recv().unwrap();
    assert_eq!((outcome.ticket, outcome.result), (must, Ok(())));
    assert!(outcome.left_out.len() == 1 && outcome.left_out[0].contains("chunk 1"), "{:?}", outcome.left_out);
    let (pieces, _) = store.reader().unwrap().output(run, Cursor::default()).unwrap();
    assert_eq!(pieces[0].data, "hello");
    let after = store.commit(Durability::Required, Write::Register(vec![RegisterWrite::Cleared(run)]));
    wait(&mut stored, after).unwrap();
}

#[test]
fn a_record_that_has_gone_bad_hides_no_other_and_stops_no_start() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _, mut stored) = Store::open(folder.path(), RETENTION).unwrap();
    let (mut good, mut bad) = (record::fixtures::record(100), record::fixtures::record(100));
    bad.run.id = pistat_protocol::id::RunId::from_parts(2, [2; 10]);
    good.run.group = Some(pistat_protocol::id::RunId::from_parts(3, [3; 10]));
    let piece = OutputState::new(100).take(&mut good, record::fixtures::chunk(0, "hello", None));
    let runs = [&good, &bad].map(|record| RegisterWrite::Run(Box::new(record.clone())));
    let ticket =
        store.commit(Durability::Required, Write::Register([&runs[..], &[RegisterWrite::Piece(piece)]].concat()));
    wait(&mut stored, ticket).unwrap();
    store.close();
    let file = rusqlite::Connection::open(folder.path().join("register.sqlite")).unwrap();
    file.execute("UPDATE runs SET record = CAST(x'7bff' AS TEXT) WHERE id = ?1", [bad.run.id.to_string()]).unwrap();
    file.execute("UPDATE output SET data = CAST(x'68ff6c6c6f' AS TEXT)", []).unwrap();
    drop(file);
    let (store, loaded, _) = Store::open(folder.path(), RETENTION).unwrap();
    let open: Vec<_> = loaded.open_runs.iter().map(|(record, _)| record.run.id).collect();
    assert_eq!(open, [good.run.id]);
    let reader = store.reader().unwrap();
    assert_eq!(reader.run(bad.run.id).unwrap(), None);
    let of_group = RunQuery { group: good.run.group, limit: 9, ..RunQuery::default() };
    assert_eq!(reader.runs(&of_group).unwrap().len(), 1);
    let (pieces, cursor) = reader.output(good.run.id, Cursor::default()).unwrap();
    assert_eq!((pieces[0].data.as_str(), cursor), ("h\u{fffd}llo", Cursor { seq: 1, start: 5 }));
}

#[test]
fn the_runs_of_a_group_are_found_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.sqlite");
    let mut register = Register::open(&path).unwrap();
    let id = |n: u8| pistat_protocol::id::RunId::from_parts(u64::from(n), [n; 10]);
    let group = Some(id(200));
    let records: Vec<_> = (0..10u8)
        .map(|n| {
            let mut record = record::fixtures::record(100);
            record.run.id = id(n);
            record.run.group = group.filter(|_| n % 2 == 0);
            RegisterWrite::Run(Box::new(record))
        })
        .collect();
    register.commit(records.iter()).unwrap();
    let reader = Reader::open(&path).unwrap();
    let page = |before| {
        let runs = reader.runs(&RunQuery { group, before, limit: 3, ..RunQuery::default() }).unwrap();
        runs.iter().map(|record| record.run.id).collect::<Vec<_>>()
    };
    assert_eq!(page(None), [id(8), id(6), id(4)]);
    assert_eq!(page(Some(id(4))), [id(2), id(0)]);
    assert_eq!(page(Some(id(0))), []);
}

#[test]
fn the_requests_of_a_day_come_back_with_all_their_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut register = Register::open(&folder.path().join("r.sqlite")).unwrap();
    let id = |n: u8| pistat_protocol::id::RunId::from_parts(u64::from(n), [n; 10]);
    let asked = [
        ("anna", Some("yesterday"), None),
        ("anna", Some("fleet"), Some(id(200))),
        ("anna", Some("fleet"), Some(id(200))),
        ("olga", Some("fleet"), None),
        ("anna", None, None),
        ("anna", Some("one"), None),
    ];
    let records: Vec<_> = (0..6u8)
        .zip(asked)
        .map(|(n, (by, request, group))| {
            let mut record = record::fixtures::record(100);
            record.run.id = id(n);
            record.run.requested_by = by.into();
            record.run.request_id = request.map(str::to_owned);
            record.run.group = group;
            record.run.created_at = Timestamp::from_unix_milliseconds(1000 * i64::from(n));
            RegisterWrite::Run(Box::new(record))
        })
        .collect();
    register.commit(records.iter()).unwrap();
    let told = |since, limit| {
        let told = register.requests(since, limit).unwrap().into_iter();
        told.map(|it| (it.requested_by, it.request_id, it.group, it.runs)).collect::<Vec<_>>()
    };
    let request = |by: &str, request: &str, group, runs: &[u8]| {
        (by.to_owned(), request.to_owned(), group, runs.iter().copied().map(id).collect::<Vec<_>>())
    };
    let fleet = request("anna", "fleet", Some(id(200)), &[1, 2]);
    let (olga, one) = (request("olga", "fleet", None, &[3]), request("anna", "one", None, &[5]));
    assert_eq!(told(1000, 100), [fleet, olga.clone(), one.clone()]);
    assert_eq!(told(0, 3), [olga, one], "of the newest three runs, one of which has no id");
}

#[test]
fn old_runs_go_and_open_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut register = Register::open(&folder.path().join("r.sqlite")).unwrap();
    let mut records = Vec::new();
    for n in 0..10u8 {
        let mut record = record::fixtures::record(100);
        record.run.id = pistat_protocol::id::RunId::from_parts(u64::from(n), [n; 10]);
        record.run.created_at = Timestamp::from_unix_milliseconds(1_000_000_000_000);
        record.retained = false;
        record.run.state =
            if n == 0 { pistat_protocol::task::RunState::Running } else { pistat_protocol::task::RunState::Succeeded };
        records.push(RegisterWrite::Run(Box::new(record)));
    }
    register.commit(records.iter()).unwrap();
    register.retain(Retention { days: 30, runs: 3, events: 10, audit: 10 }, 1_000_000_000_001).unwrap();
    assert_eq!(register.newest_runs(100).unwrap().len(), 4);
    register.retain(Retention { days: 30, runs: 3, events: 10, audit: 10 }, 1_100_000_000_000).unwrap();
    assert_eq!(register.newest_runs(100).unwrap().len(), 1);
}

fn event(seq: u64, kind: EventKind, account: Option<&str>, name: Option<&str>) -> Event {
    Event {
        seq,
        time: Timestamp::from_unix_milliseconds(1_000_000_000_000),
        kind,
        severity: Severity::Info,
        pi: name.map(|name| name.parse().unwrap()),
        run: None,
        account: account.map(Into::into),
        text: "a line".into(),
    }
}

/// How many events of each kind and account are kept.
fn kept(register: &Register) -> BTreeMap<(&'static str, String), usize> {
    let mut kept = BTreeMap::new();
    for event in register.newest_events(u32::MAX).unwrap() {
        *kept.entry((event.kind.as_str(), event.account.unwrap_or_default())).or_default() += 1;
    }
    kept
}

#[test]
fn a_source_that_causes_many_events_loses_its_own_and_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let mut register = Register::open(&folder.path().join("r.sqlite")).unwrap();
    let story: [(usize, EventKind, Option<&str>, Option<&str>); 8] = [
        (30, EventKind::Access, Some("admin"), None),
        (20, EventKind::Task, Some("anna"), None),
        (40, EventKind::Alert, None, Some("pi-1")),
        (5000, EventKind::Access, Some("vera"), None),
        (5000, EventKind::Access, None, Some("joined")),
        (5000, EventKind::Task, Some("olga"), None),
        (5000, EventKind::Mqtt, Some("vera"), None),
        (5000, EventKind::Alert, None, Some("pi-2")),
    ];
    let mut seq = 0;
    let mut writes = Vec::new();
    for (count, kind, account, name) in story {
        for _ in 0..count {
            writes.push(RegisterWrite::Event(event(seq, kind, account, name), Shelf::of(kind)));
            seq += 1;
        }
    }
    register.commit(writes.iter()).unwrap();
    register.retain(Retention { days: 30, runs: 10, events: 200, audit: 100 }, 1_000_000_000_001).unwrap();
    let counts: Vec<_> = kept(&register).into_iter().map(|((kind, who), count)| (kind, who, count)).collect();
    let expected = [
        ("access", "", 35),
        ("access", "admin", 30),
        ("access", "vera", 35),
        ("alert", "", 40 + 80),
        ("mqtt", "vera", 80),
        ("task", "anna", 20),
        ("task", "olga", 80),
    ];
    assert_eq!(counts, expected.map(|(kind, who, count)| (kind, who.to_owned(), count)));
}

#[test]
fn events_of_an_earlier_version_are_sorted_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.sqlite");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(
        "CREATE TABLE events (seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, record TEXT NOT NULL);
         INSERT INTO events VALUES (0, 1, 'no JSON');",
    )
    .unwrap();
    for seq in 1..=300 {
        let (kind, account) = if seq <= 50 { (EventKind::Access, "Admin") } else { (EventKind::Mqtt, "vera") };
        let record = serde_json::to_string(&event(seq, kind, Some(account), None)).unwrap();
        old.execute("INSERT INTO events VALUES (?1, ?2, ?3)", rusqlite::params![seq, 1_000_000_000_000_i64, record])
            .unwrap();
    }
    drop(old);
    for _ in 0..2 {
        let mut register = Register::open(&path).unwrap();
        let more = event(301, EventKind::Access, Some("admin"), None);
        register.commit([RegisterWrite::Event(more, Shelf::Access)].iter()).unwrap();
        register.retain(Retention { days: 30, runs: 10, events: 100, audit: 51 }, 1_000_000_000_001).unwrap();
        let kept: Vec<_> = kept(&register).into_iter().map(|((kind, who), count)| (kind, who, count)).collect();
        let expected = [("access", "Admin", 50), ("access", "admin", 1), ("mqtt", "vera", 100)];
        assert_eq!(kept, expected.map(|(kind, who, count)| (kind, who.to_owned(), count)));
    }
}

#[test]
fn a_clock_that_is_400_days_ahead_deletes_nothing() {
    const DAY: i64 = 86_400_000;
    let folder = tempfile::tempdir().unwrap();
    // Whatever this machine's clock says now: what is kept was written 400 days before.
    let then = now().unix_milliseconds() - 400 * DAY;
    let mut register = Register::open(&folder.path().join(name::REGISTER)).unwrap();
    let writes: Vec<_> = (0..20)
        .map(|seq: u64| {
            let time = Timestamp::from_unix_milliseconds(then - DAY * i64::try_from(20 - seq).unwrap());
            RegisterWrite::Event(Event { time, ..event(seq, EventKind::Access, Some("admin"), None) }, Shelf::Access)
        })
        .collect();
    register.commit(writes.iter()).unwrap();
    drop(register);
    for start in 0..2 {
        let (store, loaded, _stored) = Store::open(folder.path(), RETENTION).unwrap();
        assert_eq!(loaded.events.len(), 20, "start {start}");
        // Its thread deletes what is old before it ends.
        store.close();
    }
}
