//! Runs: how many are open, how the others ended, how long they took.

use pistat_protocol::task::RunState;

use super::page::{Page, number};
use crate::hub::{
    ask::Numbers,
    histogram::{BOUNDS, Histogram},
};

/// Everything about runs. Counters begin at the controller's start.
pub(super) fn write(page: &mut Page, numbers: &Numbers) {
    page.family("pistat_runs_open", "gauge", "Runs that have not ended, by state.");
    for state in RunState::ALL.into_iter().filter(|state| !state.is_final()) {
        let count = numbers.open_runs.get(&state).copied().unwrap_or(0);
        page.value("pistat_runs_open", &[("state", state.as_str())], f64::from(count));
    }
    page.family("pistat_runs_finished_total", "counter", "Runs that ended, by task and final state.");
    for ((task, state), count) in &numbers.finished_runs {
        page.value("pistat_runs_finished_total", &[("task", task), ("state", state.as_str())], number(*count));
    }
    page.family("pistat_run_duration_seconds", "histogram", "Running time of runs that ended, by task.");
    for (task, durations) in &numbers.run_seconds {
        durations_of(page, task, durations);
    }
    page.only("pistat_tasks", "gauge", "Tasks of the catalogue.", number(numbers.tasks as u64));
}

fn durations_of(page: &mut Page, task: &str, durations: &Histogram) {
    for (bound, count) in BOUNDS.iter().zip(durations.buckets) {
        let bound = bound.to_string();
        page.value("pistat_run_duration_seconds_bucket", &[("task", task), ("le", &bound)], number(count));
    }
    let labels = [("task", task), ("le", "+Inf")];
    page.value("pistat_run_duration_seconds_bucket", &labels, number(durations.count));
    page.value("pistat_run_duration_seconds_sum", &[("task", task)], durations.sum);
    page.value("pistat_run_duration_seconds_count", &[("task", task)], number(durations.count));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_every_bucket_and_its_sum() {
        let mut page = Page::default();
        let mut durations = Histogram::default();
        durations.add(0.2);
        durations.add(30.0);
        durations_of(&mut page, "uptime", &durations);
        let text = page.text();
        assert!(text.contains("pistat_run_duration_seconds_bucket{task=\"uptime\",le=\"0.1\"} 0\n"));
        assert!(text.contains("pistat_run_duration_seconds_bucket{task=\"uptime\",le=\"60\"} 2\n"));
        assert!(text.contains("pistat_run_duration_seconds_bucket{task=\"uptime\",le=\"+Inf\"} 2\n"));
        assert!(text.contains("pistat_run_duration_seconds_sum{task=\"uptime\"} 30.2\n"));
        assert!(text.ends_with("pistat_run_duration_seconds_count{task=\"uptime\"} 2\n"));
    }
}
