//! A small fleet for the tests of the command language and the command line.

use pistat_protocol::{
    dashboard::{Machine, MachineStatus, Run},
    id::RunId,
    stats::Sample,
    task::{RunState, TaskView},
    time::Timestamp,
};

use super::View;
use crate::catalogue::Catalogue;

pub(crate) struct Fleet {
    pub(crate) machines: Vec<Machine>,
    pub(crate) tasks: Vec<TaskView>,
    pub(crate) runs: Vec<Run>,
}

impl Fleet {
    pub(crate) fn view(&self) -> View<'_> {
        View { machines: &self.machines, tasks: &self.tasks, runs: &self.runs }
    }
}

pub(crate) const NOW: i64 = 1_795_348_800_000;

pub(crate) fn fleet() -> Fleet {
    let mut machines = vec![
        machine("controller", "Controller"),
        machine("pi-1", "Rack Pi 1"),
        machine("pi-2", "Rack Pi 2"),
        machine("pi-3", "Twin"),
        machine("pi-4", "twin"),
    ];
    machines[1].tags = vec!["camera".parse().unwrap(), "rack".parse().unwrap()];
    machines[1].assignment = Some("DNS · Pi-hole".into());
    machines[4].status = MachineStatus::Offline;
    machines[4].stats = None;
    let tasks = Catalogue::parse(include_str!("../../../config/tasks.toml"), "tasks.toml").unwrap().view();
    let runs = vec![
        run(3, "uptime", RunState::Succeeded),
        run(2, "apt-upgrade", RunState::Running),
        run(1, "uptime", RunState::Failed),
    ];
    Fleet { machines, tasks, runs }
}

pub(crate) fn machine(id: &str, label: &str) -> Machine {
    let mut stats = Sample::new(Timestamp::from_unix_milliseconds(NOW), true, 1);
    stats.cpu_percent = Some(12.4);
    stats.memory_percent = Some(41.6);
    stats.temperature_celsius = Some(48.3);
    stats.uptime_seconds = Some(3_551_023);
    Machine {
        id: id.parse().unwrap(),
        label: label.into(),
        status: MachineStatus::Online,
        last_seen: Some(Timestamp::from_unix_milliseconds(NOW - 2000)),
        assignment: None,
        tags: Vec::new(),
        interval_seconds: None,
        info: None,
        stats: Some(stats.into()),
        recent_cpu_percent: Vec::new(),
        cannot_run: Vec::new(),
    }
}

pub(crate) fn run(number: u8, task: &str, state: RunState) -> Run {
    let at = |offset: i64| Timestamp::from_unix_milliseconds(NOW + offset);
    Run {
        id: RunId::from_parts(NOW.unsigned_abs(), [number.wrapping_mul(37); 10]),
        task: task.parse().unwrap(),
        pi: "pi-1".parse().unwrap(),
        state,
        args: pistat_protocol::task::Arguments::new(),
        requested_by: "admin".into(),
        request_id: None,
        group: None,
        created_at: at(-60_000),
        started_at: Some(at(-59_000)),
        finished_at: state.is_final().then(|| at(-58_962)),
        exit_code: state.is_final().then_some(i32::from(state != RunState::Succeeded)),
        reason: None,
        output_bytes: 71,
        dropped_bytes: 0,
    }
}
