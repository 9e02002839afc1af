//! Which orders become runs, without any process being started.

use pistat_protocol::{
    codec::encode,
    order::{ControllerKey, Order, SignedOrder},
};
use pistat_testkit::payload;
use proptest::prelude::*;

use super::*;

struct Bench {
    runs: Runs,
    key: ControllerKey,
    session: Session,
    _folder: tempfile::TempDir,
    _outgoing: mpsc::Receiver<Outgoing>,
}

impl Bench {
    /// Needs a runtime. Its policy is `never`, so an order that is believed becomes a run and still
    /// starts nothing.
    fn new() -> Self {
        let key = ControllerKey::from_secret(&[4; 32]);
        let folder = tempfile::tempdir().unwrap();
        let (say, outgoing) = mpsc::channel(8);
        let mut options = AgentOptions::new("pi-1".parse().unwrap(), folder.path().join("runs"), key.public());
        options.policy = Policy::Never;
        let runs = Runs::load(&options, "boot".into(), say).unwrap();
        Self { runs, key, session: Session::from_random([1; 16]), _folder: folder, _outgoing: outgoing }
    }

    fn order(&self) -> ExecuteOrder {
        ExecuteOrder {
            timeout_milliseconds: 1000,
            concurrency: 1,
            ..payload::order(&"pi-1".parse().unwrap(), run_id(1), &self.session, &["uptime"])
        }
    }

    fn signed(&self) -> SignedOrder {
        self.key.sign(&Order::Execute(self.order()))
    }

    fn hear(&mut self, payload: &[u8], retain: bool) {
        let session = self.session.clone();
        let _ = self.runs.order(run_id(1), payload, retain, Some(&session));
    }
}

fn run_id(n: u64) -> RunId {
    RunId::from_parts(n, [0; 10])
}

fn within_a_runtime<T>(test: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    test()
}

#[test]
fn a_finished_run_stays_finished_however_many_come_after_it() {
    let mut finished = Finished::default();
    for n in 0..2 * MAX_FINISHED_RUNS as u64 {
        finished.insert(run_id(n + 1));
    }
    assert!(finished.runs.len() <= MAX_FINISHED_RUNS);
    assert!((1..=2 * MAX_FINISHED_RUNS as u64).all(|n| finished.contains(run_id(n))));
    assert!(!finished.contains(run_id(3 * MAX_FINISHED_RUNS as u64)));
}

#[test]
fn only_an_order_of_this_session_that_is_not_retained_becomes_a_run() {
    within_a_runtime(|| {
        let mut bench = Bench::new();
        let payload = encode(&bench.signed());
        bench.hear(&payload, true);
        let _ = bench.runs.order(run_id(1), &payload, false, None);
        let _ = bench.runs.order(run_id(1), &payload, false, Some(&Session::from_random([2; 16])));
        let _ = bench.runs.order(run_id(2), &payload, false, Some(&bench.session));
        assert_eq!((bench.runs.known(), bench.runs.refused().0), (vec![], 4));
        bench.hear(&payload, false);
        bench.hear(&payload, false);
        assert_eq!((bench.runs.known(), bench.runs.refused().0), (vec![run_id(1)], 4));
    });
}

#[test]
fn more_runs_than_anybody_waits_for_are_refused() {
    within_a_runtime(|| {
        let mut bench = Bench::new();
        for n in 0..MAX_KNOWN_RUNS as u64 + 5 {
            let order = ExecuteOrder { run: run_id(n + 1), ..bench.order() };
            let payload = encode(&bench.key.sign(&Order::Execute(order)));
            let _ = bench.runs.order(run_id(n + 1), &payload, false, Some(&bench.session));
        }
        assert_eq!((bench.runs.known().len(), bench.runs.refused().0), (MAX_KNOWN_RUNS, 5));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_bytes_without_the_controllers_signature_become_a_run(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        within_a_runtime(|| {
            let mut bench = Bench::new();
            bench.hear(&bytes, false);
            assert!(bench.runs.known().is_empty());
        });
    }

    #[test]
    fn no_altered_text_keeps_its_signature(position in 0usize..1000, replacement in "[ -~]{0,3}") {
        within_a_runtime(|| {
            let mut bench = Bench::new();
            let mut signed = bench.signed();
            let position = position % signed.payload.len();
            let before = signed.payload.clone();
            signed.payload.replace_range(position..=position, &replacement);
            let altered = signed.payload != before;
            bench.hear(&encode(&signed), false);
            assert_eq!(bench.runs.known().is_empty(), altered);
        });
    }
}
