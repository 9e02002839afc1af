// Small honest values for the unit tests.

import type { Event, Machine, Run, Sample, ServerMessage } from "../protocol/types";

export const NOW = "2026-11-22T12:00:00.000Z";

export function sample(more: Partial<Sample> = {}): Sample {
  return {
    time: NOW,
    clock_synchronized: true,
    seq: 1,
    cpu_percent: 12,
    memory_percent: 40,
    temperature_celsius: 48,
    ...more,
  };
}

export function machine(id: string, more: Partial<Machine> = {}): Machine {
  return {
    id,
    label: id,
    status: "online",
    last_seen: NOW,
    assignment: null,
    tags: [],
    interval_seconds: null,
    info: null,
    stats: sample(),
    recent_cpu_percent: [10, 11, 12],
    cannot_run: [],
    ...more,
  };
}

export function run(id: string, more: Partial<Run> = {}): Run {
  return {
    id,
    task: "uptime",
    pi: "pi-1",
    state: "queued",
    args: {},
    requested_by: "admin",
    request_id: null,
    group: null,
    created_at: NOW,
    started_at: null,
    finished_at: null,
    exit_code: null,
    reason: null,
    output_bytes: 0,
    dropped_bytes: 0,
    ...more,
  };
}

export function event(seq: number, more: Partial<Event> = {}): Event {
  return {
    seq,
    time: NOW,
    kind: "task",
    severity: "info",
    pi: null,
    run: null,
    account: null,
    text: `event ${seq}`,
    ...more,
  };
}

export function snapshot(
  more: Partial<Extract<ServerMessage, { type: "snapshot" }>> = {},
): Extract<ServerMessage, { type: "snapshot" }> {
  return {
    type: "snapshot",
    now: NOW,
    me: { account: "admin", role: "admin" },
    controller: {
      version: "0.1.0",
      prefix: "pistat",
      mqtt_port: 1883,
      external_broker: null,
      mqtt_url: "mqtt://10.0.0.2:1883",
    },
    machines: [],
    runs: [],
    groups: [],
    events: [],
    tasks: [],
    pulse: { mqtt_clients: 0, mqtt_messages_per_second: 0, dashboards: 1 },
    ...more,
  };
}
