// The state of the dashboard and the one function that changes it.
//
// Pure: no socket, no clock, no framework. `apply` mutates the state in place and says in a `Dirty`
// what it touched,
// so that a thousand machines cost what changed and not what exists. Everything is stored once;
// views derive the rest.

import type {
  Change,
  ControllerView,
  Event,
  Group,
  Machine,
  MachineStatus,
  Me,
  PiId,
  Pulse,
  Run,
  RunId,
  RunState,
  Sample,
  ServerMessage,
  TaskView,
} from "../protocol/types";
import { Recent } from "./recent";

/** The newest events that are kept; older ones are fetched by scrolling. */
export const EVENTS_KEPT = 2_000;

/** The newest runs that are kept; a group of a thousand machines fits several times. */
export const RUNS_KEPT = 5_000;

/** The newest groups that are kept. */
export const GROUPS_KEPT = 200;

/** A machine as it is held: the parts that change with each sample stand beside the rest. */
export interface Held {
  machine: Machine;
  status: MachineStatus;
  sample: Sample | null;
  /**
   * The controller's clock when the machine's last message arrived, in milliseconds; null if never.
   */
  seenAt: number | null;
  /** CPU of the last minutes. */
  recent: Recent;
}

export interface State {
  /** False until the first snapshot. */
  ready: boolean;
  /** The controller's clock at the newest frame, in milliseconds. */
  now: number;
  me: Me | null;
  controller: ControllerView | null;
  machines: Map<PiId, Held>;
  /** Machines of a snapshot that is on its way. */
  coming: Machine[];
  runs: Map<RunId, Run>;
  /** The runs of each machine that are not final. */
  active: Map<PiId, Set<RunId>>;
  groups: Map<RunId, Group>;
  /** Newest first. */
  events: Event[];
  tasks: TaskView[];
  pulse: Pulse;
}

/** What an `apply` touched. */
export interface Dirty {
  /** Machines with any change. */
  machines: Set<PiId>;
  /** Machines came, went, or changed in more than their sample. */
  membership: boolean;
  /** Some sample is new. */
  samples: boolean;
  runs: boolean;
  groups: boolean;
  events: boolean;
  tasks: boolean;
  pulse: boolean;
  session: boolean;
}

type Snapshot = Extract<ServerMessage, { type: "snapshot" }>;
type Changes = Extract<ServerMessage, { type: "changes" }>;
type Machines = Extract<ServerMessage, { type: "machines" }>;

export function emptyState(): State {
  return {
    ready: false,
    now: 0,
    me: null,
    controller: null,
    machines: new Map(),
    coming: [],
    runs: new Map(),
    active: new Map(),
    groups: new Map(),
    events: [],
    tasks: [],
    pulse: { mqtt_clients: 0, mqtt_messages_per_second: 0, dashboards: 0 },
  };
}

export function clean(): Dirty {
  return {
    machines: new Set(),
    membership: false,
    samples: false,
    runs: false,
    groups: false,
    events: false,
    tasks: false,
    pulse: false,
    session: false,
  };
}

/** Keeps machines of the snapshot that follows: all of a fleet changes at once. */
export function gather(state: State, message: Machines): void {
  state.coming.push(...message.machines);
}

/** Applies a snapshot or a batch of changes. */
export function apply(state: State, message: Snapshot | Changes, dirty: Dirty): void {
  state.now = Date.parse(message.now);
  if (message.type === "snapshot") {
    applySnapshot(state, message, dirty);
  } else {
    for (const change of message.changes) {
      applyChange(state, change, dirty);
    }
  }
}

const FINAL: ReadonlySet<RunState> = new Set<RunState>([
  "succeeded",
  "failed",
  "timed_out",
  "cancelled",
  "rejected",
  "expired",
  "lost",
]);

/** Whether nothing changes any more. */
export function isFinal(state: RunState): boolean {
  return FINAL.has(state);
}

/**
 * What a machine is at: of its runs that are not final the newest one that runs, else the newest
 * one that waits.
 */
export function activeRun(state: State, pi: PiId): Run | undefined {
  let found: Run | undefined;
  for (const id of state.active.get(pi) ?? []) {
    const run = state.runs.get(id);
    if (run && (found === undefined || goesBefore(run, found))) {
      found = run;
    }
  }
  return found;
}

function goesBefore(run: Run, other: Run): boolean {
  return isRunning(run) === isRunning(other) ? run.id > other.id : isRunning(run);
}

/** Whether a machine is at it: not while it waits for the machine or for its turn. */
export function isRunning(run: Run): boolean {
  return run.state === "running";
}

function applySnapshot(state: State, snapshot: Snapshot, dirty: Dirty): void {
  state.ready = true;
  state.me = snapshot.me;
  state.controller = snapshot.controller;
  state.tasks = snapshot.tasks;
  state.pulse = snapshot.pulse;
  state.events = snapshot.events.slice(0, EVENTS_KEPT);
  state.groups = new Map(snapshot.groups.map((group) => [group.id, group]));
  state.runs = new Map();
  state.active = new Map();
  // Oldest first, so that the map's order is the order of the runs.
  for (const run of [...snapshot.runs].reverse()) {
    putRun(state, run);
  }
  replaceMachines(state, [...state.coming, ...snapshot.machines], dirty);
  state.coming = [];
  dirty.membership = dirty.samples = dirty.runs = dirty.groups = true;
  dirty.events = dirty.tasks = dirty.pulse = dirty.session = true;
}

/**
 * Keeps what is held of machines that are still there, so that nothing on the screen is made anew.
 */
function replaceMachines(state: State, machines: Machine[], dirty: Dirty): void {
  const known = state.machines;
  state.machines = new Map();
  for (const machine of machines) {
    const held = known.get(machine.id) ?? hold(machine);
    held.recent = Recent.from(machine.recent_cpu_percent, state.now);
    held.sample = machine.stats;
    setMachine(held, machine);
    state.machines.set(machine.id, held);
    dirty.machines.add(machine.id);
    known.delete(machine.id);
  }
  for (const gone of known.keys()) {
    dirty.machines.add(gone);
  }
}

function applyChange(state: State, change: Change, dirty: Dirty): void {
  switch (change.kind) {
    case "stats":
      return applyStats(state, change.pi, change.stats, dirty);
    case "machine":
      return applyMachine(state, change.machine, dirty);
    case "forgotten":
      state.machines.delete(change.pi);
      dirty.machines.add(change.pi);
      dirty.membership = true;
      return;
    case "run":
      putRun(state, change.run);
      dirty.machines.add(change.run.pi);
      dirty.runs = true;
      return;
    case "group":
      state.groups.set(change.group.id, change.group);
      trimOldest(state.groups, GROUPS_KEPT);
      dirty.groups = true;
      return;
    case "event":
      applyEvent(state, change.event);
      dirty.events = true;
      return;
    case "tasks":
      state.tasks = change.tasks;
      dirty.tasks = true;
      return;
    case "pulse":
      state.pulse = change.pulse;
      dirty.pulse = true;
      return;
  }
}

function applyStats(state: State, pi: PiId, sample: Sample, dirty: Dirty): void {
  const held = state.machines.get(pi);
  if (!held) {
    return;
  }
  if (held.status !== "online") {
    held.status = "online";
    dirty.membership = true;
  }
  held.sample = sample;
  held.seenAt = state.now;
  held.recent.push(state.now, sample.cpu_percent);
  dirty.machines.add(pi);
  dirty.samples = true;
}

function applyMachine(state: State, machine: Machine, dirty: Dirty): void {
  let held = state.machines.get(machine.id);
  if (!held) {
    held = hold(machine);
    state.machines.set(machine.id, held);
  }
  if (machine.recent_cpu_percent.length > 0) {
    held.recent = Recent.from(machine.recent_cpu_percent, state.now);
  }
  held.sample = machine.stats ?? held.sample;
  setMachine(held, machine);
  dirty.machines.add(machine.id);
  dirty.membership = true;
}

function applyEvent(state: State, event: Event): void {
  const newest = state.events[0];
  // A snapshot may already hold what a change repeats.
  if (newest && event.seq <= newest.seq) {
    return;
  }
  state.events = [event, ...state.events.slice(0, EVENTS_KEPT - 1)];
}

function hold(machine: Machine): Held {
  return { machine, status: machine.status, sample: machine.stats, seenAt: null, recent: new Recent() };
}

function setMachine(held: Held, machine: Machine): void {
  held.status = machine.status;
  held.seenAt = machine.last_seen === null ? null : Date.parse(machine.last_seen);
  // The sample and the recent values are held beside it: keeping them here too would keep old ones
  // alive.
  held.machine = { ...machine, stats: null, recent_cpu_percent: [] };
}

function putRun(state: State, run: Run): void {
  const known = state.runs.get(run.id);
  // A final state never changes; a late frame must not bring a run back to life.
  if (known && isFinal(known.state) && !isFinal(run.state)) {
    return;
  }
  state.runs.set(run.id, run);
  let active = state.active.get(run.pi);
  if (isFinal(run.state)) {
    active?.delete(run.id);
  } else {
    if (!active) {
      active = new Set();
      state.active.set(run.pi, active);
    }
    active.add(run.id);
  }
  trimOldest(state.runs, RUNS_KEPT);
}

function trimOldest<K, V>(map: Map<K, V>, kept: number): void {
  while (map.size > kept) {
    const oldest = map.keys().next();
    if (oldest.done) {
      return;
    }
    map.delete(oldest.value);
  }
}
