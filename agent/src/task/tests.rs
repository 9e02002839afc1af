//! Orders and runs as a whole, with real processes and a channel in place of the connection.

use super::*;

#[test]
fn a_finished_run_stays_finished_however_many_come_after_it() {
    let run = |n: u64| RunId::from_parts(n, [0; 10]);
    let mut finished = Finished::default();
    for n in 0..2 * MAX_FINISHED_RUNS as u64 {
        finished.insert(run(n + 1));
    }
    assert!(finished.runs.len() <= MAX_FINISHED_RUNS);
    assert!((1..=2 * MAX_FINISHED_RUNS as u64).all(|n| finished.contains(run(n))));
    assert!(!finished.contains(run(3 * MAX_FINISHED_RUNS as u64)));
}
