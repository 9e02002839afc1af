//! The retained log against restarts, torn tails and damage.

use super::*;
use crate::message::{Draft, Message, SessionId};
use crate::packet::{MessageProperties, QoS};

fn frame(topic: &str, payload: &str) -> Bytes {
    let properties = MessageProperties::default();
    Draft {
        publisher: SessionId::broker(),
        topic,
        payload: payload.as_bytes(),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties,
        stamp: None,
        now_ms: 0,
    }
    .seal()
}

fn message(topic: &str, payload: &str) -> Arc<Message> {
    Arc::new(Message::open(frame(topic, payload)).unwrap())
}

fn retain(topic: &str, payload: &str) -> Record {
    Record::Retain { message: message(topic, payload), expires_unix_ms: None, owner: "u/home".into() }
}

fn key(client: &str) -> SessionKey {
    ("a/pi-1".into(), client.into())
}

fn set_will(client: &str) -> Record {
    let frame = frame("w", "offline");
    Record::SetWill(key(client), StoredWill { frame, expiry_seconds: Some(9), delay_seconds: 7, due_unix_ms: Some(8) })
}

fn open(folder: &Path) -> (Store, Restored) {
    Store::open(folder, Arc::default()).unwrap()
}

fn write(folder: &Path, records: Vec<Record>) {
    let (store, _) = open(folder);
    store.close(Some(Batch::Append { records, sync: true }));
}

fn topics(restored: &Restored) -> Vec<(String, String)> {
    let text =
        |message: &Message| (message.topic().to_owned(), String::from_utf8_lossy(&message.payload()).into_owned());
    restored.retained.iter().map(|(frame, ..)| text(&Message::open(frame.clone()).unwrap())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn what_was_written_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), vec![retain("a", "1"), retain("b", "1"), set_will("x"), set_will("y")]);
    write(folder.path(), vec![retain("a", "2"), Record::Clear("b".into()), Record::ClearWill(key("x"))]);
    let (store, restored) = open(folder.path());
    assert_eq!(topics(&restored), pairs(&[("a", "2")]));
    assert_eq!(&*restored.retained[0].2, "u/home");
    assert_eq!(restored.wills.len(), 1);
    assert_eq!(restored.wills[0].0, key("y"));
    let will = &restored.wills[0].1;
    assert_eq!((will.expiry_seconds, will.delay_seconds, will.due_unix_ms), (Some(9), 7, Some(8)));
    assert!(restored.damaged.is_none());
    store.close(None);
}

#[test]
fn what_takes_many_pieces_is_there_again_appended_and_written_anew() {
    let payload = "x".repeat(PIECE_BYTES / 3);
    let records = || ["a", "b", "c", "d", "e", "f", "g"].map(|topic| retain(topic, &payload)).to_vec();
    for is_rewrite in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(folder.path());
        let file_bytes = Arc::clone(&store.file_bytes);
        let append = Batch::Append { records: records(), sync: true };
        store.close(Some(if is_rewrite { Batch::Rewrite(records()) } else { append }));
        let path = folder.path().join(FILE);
        let mut whole = MAGIC.to_vec();
        for record in records() {
            record.encode(&mut whole);
        }
        assert!(std::fs::read(&path).unwrap() == whole, "each record once, in its order");
        assert_eq!(file_bytes.load(Ordering::Relaxed), whole.len() as u64);
        let restored = load(&path).unwrap();
        let expected = ["a", "b", "c", "d", "e", "f", "g"].map(|topic| (topic.to_owned(), payload.clone()));
        assert!(topics(&restored) == expected, "{} of them", restored.retained.len());
    }
}

#[test]
fn a_tail_torn_at_any_byte_costs_only_its_own_record() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), vec![retain("a", "1")]);
    let path = folder.path().join(FILE);
    let first = std::fs::metadata(&path).unwrap().len();
    write(folder.path(), vec![retain("b", "1")]);
    let whole = std::fs::read(&path).unwrap();
    for cut in usize::try_from(first).unwrap()..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (store, restored) = open(folder.path());
        store.close(Some(Batch::Append { records: vec![retain("c", "1")], sync: false }));
        assert_eq!(topics(&restored), pairs(&[("a", "1")]), "{cut}");
        assert!(restored.damaged.is_none());
        assert_eq!(topics(&load(&path).unwrap()), pairs(&[("a", "1"), ("c", "1")]), "{cut}");
    }
}

#[test]
fn a_damaged_file_is_kept_aside_and_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), vec![retain("a", "1"), retain("b", "1"), retain("c", "1")]);
    let path = folder.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xFF;
    std::fs::write(&path, &bytes).unwrap();
    let (store, restored) = open(folder.path());
    store.close(None);
    let (kept, reason) = restored.damaged.clone().unwrap();
    assert_eq!(std::fs::read(kept).unwrap(), bytes);
    assert!(reason.contains("checksum") && topics(&restored) == pairs(&[("a", "1")]));
}

#[test]
fn a_foreign_file_is_set_aside_and_an_empty_one_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    for (bytes, is_foreign) in [(&b"something else entirely"[..], true), (b"", false), (&MAGIC[..5], false)] {
        std::fs::write(&path, bytes).unwrap();
        let (store, restored) = open(folder.path());
        store.close(Some(Batch::Append { records: vec![retain("a", "1")], sync: false }));
        assert_eq!(restored.damaged.is_some(), is_foreign);
        assert_eq!(topics(&load(&path).unwrap()), pairs(&[("a", "1")]));
    }
}

#[test]
fn history_is_forgotten_when_the_file_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let large = "x".repeat(100_000);
    for _ in 0..30 {
        assert!(store.write(Batch::Append { records: vec![retain("a", &large)], sync: false }).is_ok());
    }
    while !store.wants_rewrite(|| 100_000) {
        std::thread::yield_now();
    }
    store.close(Some(Batch::Rewrite(vec![retain("a", "2"), set_will("x")])));
    assert!(std::fs::metadata(folder.path().join(FILE)).unwrap().len() < 1000);
    let (store, restored) = open(folder.path());
    assert!(topics(&restored) == pairs(&[("a", "2")]) && restored.wills.len() == 1);
    store.close(None);
}

#[test]
fn while_everything_is_written_anew_nobody_wants_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let large = "x".repeat(3_000_000);
    assert!(store.write(Batch::Append { records: vec![retain("a", &large)], sync: false }).is_ok());
    while !store.wants_rewrite(|| 100) {
        std::thread::yield_now();
    }
    let everything = || Batch::Rewrite((0..10_000).map(|n| retain(&format!("t/{n}"), "x")).collect());
    for _ in 0..3 {
        assert!(store.write(everything()).is_ok());
        assert!(!store.wants_rewrite(|| 100), "it is under way");
    }
    while store.file_bytes.load(Ordering::Relaxed) > 1_500_000 || store.rewrites.load(Ordering::Acquire) > 0 {
        std::thread::yield_now();
    }
    // Done, it may be wanted again.
    assert!(store.write(Batch::Append { records: vec![retain("a", &large)], sync: false }).is_ok());
    while !store.wants_rewrite(|| 100) {
        std::thread::yield_now();
    }
    store.close(None);
}

#[test]
fn what_expired_while_the_broker_was_off_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let record = |topic: &str, at: u64| Record::Retain {
        message: message(topic, "x"),
        expires_unix_ms: Some(at),
        owner: "u/home".into(),
    };
    write(folder.path(), vec![record("gone", 1), record("here", unix_ms() + 1_000_000)]);
    let (store, restored) = open(folder.path());
    assert_eq!(topics(&restored), pairs(&[("here", "x")]));
    assert!(restored.retained[0].1.is_some());
    store.close(None);
}
