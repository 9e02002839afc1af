// The mock controller's state: machines, runs, events, accounts, and everybody who listens. No
// network in here.

import { randomBytes } from "node:crypto";
import type {
  Account,
  ArgumentValue,
  Change,
  Enrolment,
  Event,
  EventKind,
  Group,
  Installation,
  JoinTokenInfo,
  NewRun,
  OutputPiece,
  Run,
  RunState,
  ServerMessage,
  Severity,
} from "../src/protocol/types";
import { MACHINES_PER_MESSAGE, MAX_FOLLOWED } from "../src/protocol/types";
import { duration } from "../src/ui/format";
import { character, type Simulated, sample, simulate } from "./fleet";
import { script, TASKS } from "./tasks";

export interface Options {
  machines: number;
  /** Seconds between two samples of a machine. */
  interval: number;
  /** The mock's clock; pictures stop it. */
  now: () => number;
}

/** What a request may be refused with. */
export class Refused extends Error {
  readonly status: number;

  constructor(status: number, detail: string) {
    super(detail);
    this.status = status;
  }
}

export interface Subscriber {
  send(message: ServerMessage): void;
  /** The tab is hidden: samples are left out. */
  hidden?: boolean;
  /** The runs that are followed, oldest first. */
  followed: Set<string>;
}

interface Output {
  pieces: OutputPiece[];
  done: boolean;
  followers: Set<Subscriber>;
}

/** Changes are sent in batches at this cadence, in milliseconds. */
const BATCH_EVERY = 50;

/** Every processor for which there are agents, and the machines that it is for. */
const PROCESSORS = [
  ["aarch64", "Pi 3, 4, 5 and Zero 2 with a 64-bit system"],
  ["armv7", "Pi 2 and later with a 32-bit system"],
  ["armv6", "Pi 1, Zero and Zero W"],
  ["x86_64", "PCs"],
] as const;

const FINAL: RunState[] = ["succeeded", "failed", "timed_out", "cancelled", "rejected", "expired", "lost"];

export class MockController {
  readonly options: Options;
  readonly machines = new Map<string, Simulated>();
  readonly runs = new Map<string, Run>();
  readonly groups = new Map<string, Group>();
  readonly outputs = new Map<string, Output>();
  readonly accounts = new Map<string, Account>();
  readonly enrolments = new Map<string, Enrolment>();
  readonly subscribers = new Set<Subscriber>();
  readonly watched = new Set<string>();
  events: Event[] = [];
  joinToken = "7Qm2xT9vB4kLr8Wd.c0ffee5ca1ab1e";
  readonly joinTokens = new Map<string, JoinTokenInfo>([
    [
      "default",
      {
        name: "default",
        created_at: new Date(0).toISOString(),
        expires_at: null,
        uses_left: null,
        used: 3,
        last_used: null,
        tags: [],
      },
    ],
  ]);
  installScript = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
  architectures = ["aarch64", "armv7", "armv6"];
  version = "0.1.0";
  /** Commands wait for it before they are answered. */
  answering: Promise<void> = Promise.resolve();
  /** What it says of its address in its network. */
  url = "http://10.0.0.2:8000";
  /** How many runs and events a snapshot has. */
  snapshotRuns = 500;
  snapshotEvents = 500;
  /** How many runs were let go of, since a browser followed too many. */
  unfollowed = 0;
  /** How many runs or events one answer has at most. */
  longestPage = 1000;
  #pending: Change[] = [];
  #seq = 0;
  #runs = 0;
  #timers = new Set<NodeJS.Timeout>();
  #batch: NodeJS.Timeout;
  #pulses: NodeJS.Timeout;

  constructor(options: Options) {
    this.options = options;
    const now = options.now();
    for (let index = 0; index < options.machines; index += 1) {
      // With one machine there is only the controller's own; the sketches' fleet begins with pi-1.
      const at = options.machines === 1 ? 0 : index === 24 ? 0 : index + 1;
      const machine = simulate(at, options.interval, now, character(at));
      this.machines.set(machine.machine.id, machine);
      this.enrolments.set(machine.machine.id, {
        pi: machine.machine.id,
        serial: machine.machine.info?.serial ?? null,
        enrolled_at: new Date(now - 9e7).toISOString(),
        open: false,
      });
    }
    this.addAccount("admin", "admin");
    this.addAccount("home-assistant", "operator");
    this.addAccount("wall-display", "viewer");
    this.#past();
    this.#batch = setInterval(() => this.#tick(), BATCH_EVERY);
    this.#pulses = setInterval(() => this.push({ kind: "pulse", pulse: this.pulse() }), 1000);
  }

  stop(): void {
    clearInterval(this.#batch);
    clearInterval(this.#pulses);
    for (const timer of this.#timers) clearTimeout(timer);
  }

  later(milliseconds: number, work: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, milliseconds);
    this.#timers.add(timer);
  }

  iso(offset = 0): string {
    return new Date(this.options.now() + offset).toISOString();
  }

  pulse() {
    const online = [...this.machines.values()].filter((each) => each.machine.status !== "offline").length;
    return {
      mqtt_clients: online + 3,
      mqtt_messages_per_second: Math.round((online / this.options.interval) * 10 + 4) / 10,
      dashboards: this.subscribers.size,
    };
  }

  /** A snapshot's messages: of a large fleet the first machines come before it. */
  installation(): Installation {
    return {
      script_sha256: this.installScript,
      architectures: this.architectures,
      agents: PROCESSORS.map(([architecture, boards]) => ({
        architecture,
        boards,
        available: this.architectures.includes(architecture),
      })),
      agents_folder: "/var/lib/pistat/agents",
      controller_url: this.url,
    };
  }

  snapshot(account: string): ServerMessage[] {
    const role = this.accounts.get(account)?.role ?? "viewer";
    const machines = [...this.machines.values()].map((each) => each.machine);
    const messages: ServerMessage[] = [];
    while (machines.length > MACHINES_PER_MESSAGE) {
      messages.push({ type: "machines", machines: machines.splice(0, MACHINES_PER_MESSAGE) });
    }
    messages.push({
      type: "snapshot",
      now: this.iso(),
      me: { account, role },
      controller: {
        version: this.version,
        prefix: "pistat",
        mqtt_port: 1883,
        external_broker: null,
        mqtt_url: "mqtt://10.0.0.2:1883",
      },
      machines,
      runs: this.newest(this.runs, this.snapshotRuns),
      groups: this.newest(this.groups, 50),
      events: this.events.slice(0, this.snapshotEvents),
      tasks: TASKS,
      pulse: this.pulse(),
    });
    return messages;
  }

  newest<T>(map: Map<string, T>, limit: number): T[] {
    return [...map.values()].reverse().slice(0, limit);
  }

  push(...changes: Change[]): void {
    this.#pending.push(...changes);
  }

  /** Says that a machine changed in anything but its sample. */
  machineChanged(id: string): void {
    const simulated = this.machines.get(id);
    if (simulated) {
      this.push({ kind: "machine", machine: { ...simulated.machine, stats: null, recent_cpu_percent: [] } });
    }
  }

  event(kind: EventKind, severity: Severity, text: string, more: Partial<Event> = {}): void {
    this.#seq += 1;
    const event: Event = {
      seq: this.#seq,
      time: this.iso(),
      kind,
      severity,
      pi: null,
      run: null,
      account: null,
      text,
      ...more,
    };
    this.events = [event, ...this.events].slice(0, 5000);
    this.push({ kind: "event", event });
  }

  addAccount(name: string, role: Account["role"]): string {
    this.accounts.set(name, {
      name,
      role,
      publish: [],
      subscribe: [],
      created_at: this.iso(-9e8),
      expires_at: null,
      last_used: null,
    });
    return randomBytes(32).toString("base64url");
  }

  /** A new machine joins. */
  join(id: string, label: string, more: Partial<ReturnType<typeof character>> = {}): void {
    const who = { ...character(3), id, label, tags: [], ...more };
    const simulated = simulate(this.machines.size + 30, this.options.interval, this.options.now(), who);
    this.machines.set(id, simulated);
    this.push({ kind: "machine", machine: simulated.machine });
    this.event("access", "info", "enrolled with the join token", { pi: id });
  }

  setOffline(id: string, offline: boolean): void {
    const simulated = this.machines.get(id);
    if (simulated) {
      simulated.machine.status = offline ? "offline" : "online";
      simulated.machine.last_seen = this.iso();
      this.machineChanged(id);
      this.event("alert", offline ? "error" : "info", offline ? "offline — last will received" : "online again", {
        pi: id,
      });
    }
  }

  /** The machines of a target; an empty group is an error, never everything. */
  targets(target: string): Simulated[] {
    if (!target.startsWith("@")) {
      const one = this.machines.get(target);
      if (!one) throw new Refused(404, `There is no machine ${target}. The machines are listed by \`pis\`.`);
      return [one];
    }
    const tag = target.slice(1);
    const found = [...this.machines.values()].filter(({ machine }) => tag === "all" || machine.tags.includes(tag));
    if (found.length === 0) throw new Refused(422, `No machine has the tag ${target}.`);
    return found;
  }

  request(request: NewRun, by: string): { group: string | null; runs: string[] } {
    const task = TASKS.find((each) => each.id === request.task);
    if (!task) throw new Refused(404, `There is no task ${request.task} in the catalogue.`);
    const args = Object.fromEntries(
      task.args.map(({ name, default: usual }) => [name, request.args[name] ?? usual ?? ""]),
    );
    const targets = this.targets(request.target);
    const [only] = targets;
    const obstacle = targets.length === 1 && only?.machine.cannot_run.find((each) => each.tasks.includes(task.id));
    if (obstacle) throw new Refused(409, `${task.id} cannot run on ${only?.machine.id}: ${obstacle.message}`);
    const group = request.target.startsWith("@") ? this.#group(request, args, targets.length, by) : null;
    const runs = targets.map((machine, index) =>
      this.#run(task.id, args, machine, index, by, group, request.request_id ?? null),
    );
    this.event(
      "task",
      "info",
      `requested ${task.id} on ${targets.length === 1 ? targets[0]?.machine.label : `${targets.length} machines`}`,
      { account: by },
    );
    return { group, runs };
  }

  cancel(id: string): void {
    const run = this.runs.get(id);
    const group = this.groups.get(id);
    if (!run && !group) throw new Refused(404, `There is no run ${id}.`);
    for (const each of group ? [...this.runs.values()].filter((other) => other.group === id) : run ? [run] : []) {
      if (!FINAL.includes(each.state)) {
        this.#change(each.id, {
          state: "cancelled",
          finished_at: this.iso(),
          exit_code: 143,
          reason: "cancelled by a person",
        });
      }
    }
  }

  follow(id: string, from: number, subscriber: Subscriber): void {
    const output = this.outputs.get(id) ?? { pieces: [], done: true, followers: new Set() };
    subscriber.send({
      type: "output",
      run: id,
      pieces: output.pieces.filter((piece) => piece.seq >= from),
      done: output.done,
    });
    if (output.done) return;
    output.followers.add(subscriber);
    subscriber.followed.add(id);
    const [oldest] = subscriber.followed;
    if (subscriber.followed.size > MAX_FOLLOWED && oldest) {
      this.unfollow(oldest, subscriber);
      this.unfollowed += 1;
      subscriber.send({ type: "unfollowed", run: oldest, reason: `${MAX_FOLLOWED} other runs are followed since` });
    }
  }

  unfollow(id: string, subscriber: Subscriber): void {
    this.outputs.get(id)?.followers.delete(subscriber);
    subscriber.followed.delete(id);
  }

  /** Adds output to a run, as its agent would. */
  print(id: string, data: string, stream: "stdout" | "stderr" = "stdout", gap = 0): void {
    const output = this.outputs.get(id);
    const run = this.runs.get(id);
    if (!output || !run) return;
    const piece: OutputPiece = { seq: output.pieces.length, stream, data, gap_bytes: gap };
    output.pieces.push(piece);
    run.output_bytes += Buffer.byteLength(data);
    run.dropped_bytes += gap;
    for (const follower of output.followers) follower.send({ type: "output", run: id, pieces: [piece], done: false });
  }

  finish(id: string, exitCode: number, elapsed: number): void {
    const run = this.runs.get(id);
    if (!run || FINAL.includes(run.state)) return;
    this.#change(id, {
      state: exitCode === 0 ? "succeeded" : "failed",
      exit_code: exitCode,
      finished_at: new Date(Date.parse(run.started_at ?? run.created_at) + elapsed).toISOString(),
    });
    const took = duration(elapsed);
    const how = exitCode === 0 ? `finished · ${took}` : `failed · exit ${exitCode} · ${took}`;
    this.event("task", exitCode === 0 ? "info" : "error", `${run.task} ${how}`, { pi: run.pi, run: id });
  }

  #group(request: NewRun, args: Record<string, ArgumentValue>, total: number, by: string): string {
    const id = this.#id();
    const group: Group = {
      id,
      task: request.task,
      target: request.target,
      args,
      options: request.group ?? { canary: false },
      requested_by: by,
      created_at: this.iso(),
      total,
      states: { queued: total },
      stopped: null,
    };
    this.groups.set(id, group);
    this.push({ kind: "group", group });
    return id;
  }

  #run(
    task: string,
    args: Record<string, ArgumentValue>,
    target: Simulated,
    index: number,
    by: string,
    group: string | null,
    requestId: string | null,
  ): string {
    const id = this.#id();
    const run: Run = {
      id,
      task,
      pi: target.machine.id,
      state: "queued",
      args,
      requested_by: by,
      request_id: requestId,
      group,
      created_at: this.iso(),
      started_at: null,
      finished_at: null,
      exit_code: null,
      reason: null,
      output_bytes: 0,
      dropped_bytes: 0,
    };
    this.runs.set(id, run);
    this.outputs.set(id, { pieces: [], done: false, followers: new Set() });
    this.push({ kind: "run", run: { ...run } });
    if (target.machine.status === "offline") return id;
    const { lines, ends, exitCode } = script(task, args, target.machine.label, index);
    this.later(5 + (group ? index * 15 : 0), () => {
      this.#change(id, { state: "running", started_at: this.iso() });
      for (const line of lines)
        this.later(line.at, () => this.#alive(id) && this.print(id, line.text, line.stderr ? "stderr" : "stdout"));
      this.later(ends, () => this.finish(id, exitCode, ends));
    });
    return id;
  }

  #alive(id: string): boolean {
    return this.runs.get(id)?.state === "running";
  }

  #change(id: string, change: Partial<Run>): void {
    const run = this.runs.get(id);
    if (!run || FINAL.includes(run.state)) return;
    Object.assign(run, change);
    this.push({ kind: "run", run: { ...run } });
    if (run.group) this.#recount(run.group);
    if (FINAL.includes(run.state)) {
      const output = this.outputs.get(id);
      if (output) {
        output.done = true;
        for (const follower of output.followers) {
          this.unfollow(id, follower);
          follower.send({ type: "output", run: id, pieces: [], done: true });
        }
      }
    }
  }

  #recount(id: string): void {
    const group = this.groups.get(id);
    if (!group) return;
    const states: Group["states"] = {};
    for (const run of this.runs.values()) {
      if (run.group === id) states[run.state] = (states[run.state] ?? 0) + 1;
    }
    group.states = states;
    this.push({ kind: "group", group: { ...group } });
  }

  /** UUIDv7-shaped: time first, then a counter, so that ids sort as they were made. */
  #id(): string {
    this.#runs += 1;
    const time = Math.floor(this.options.now()).toString(16).padStart(12, "0");
    const counter = this.#runs.toString(16).padStart(3, "0");
    const rest = randomBytes(8).toString("hex");
    return `${time.slice(0, 8)}-${time.slice(8)}-7${counter.slice(-3)}-9${rest.slice(1, 4)}-${rest.slice(4)}`;
  }

  #tick(): void {
    const now = this.options.now();
    for (const [id, simulated] of this.machines) {
      if (simulated.machine.status !== "offline" && simulated.due <= now) {
        const interval = this.watched.has(id) ? 1 : (simulated.machine.interval_seconds ?? simulated.interval);
        simulated.due = Math.max(simulated.due + interval * 1000, now);
        const stats = sample(simulated, now);
        simulated.machine.stats = stats;
        simulated.machine.last_seen = new Date(now).toISOString();
        this.#pending.push({ kind: "stats", pi: id, stats });
      }
    }
    if (this.#pending.length > 0) {
      const message = { type: "changes" as const, now: this.iso(), changes: this.#pending };
      this.#pending = [];
      const fewer: ServerMessage = { ...message, changes: message.changes.filter((change) => change.kind !== "stats") };
      for (const subscriber of this.subscribers) subscriber.send(subscriber.hidden ? fewer : message);
    }
  }

  /** Something to look at in LOGS and RUNS from the first moment. */
  #past(): void {
    const at = (
      minutes: number,
      kind: EventKind,
      severity: Severity,
      text: string,
      more: Partial<Event> = {},
    ): void => {
      if (!more.pi || this.machines.has(more.pi))
        this.event(kind, severity, text, { time: this.iso(-minutes * 60_000), ...more });
    };
    at(6, "label", "info", "renamed to Garage Door", { pi: "pi-4", account: "admin" });
    at(5.6, "mqtt", "error", 'refused: bad credentials for user "pi-99"', { account: "unknown" });
    at(2.75, "mqtt", "info", "connected from 10.0.0.8 · operator", { account: "ha-livingroom" });
    at(2.6, "alert", "error", "offline — last will received, no telemetry for 15 s", { pi: "pi-12" });
    at(0.3, "alert", "warning", "under-voltage detected (0x50005)", { pi: "pi-4" });
    const past = (
      minutes: number,
      taskId: string,
      by: string,
      state: RunState,
      elapsed: number,
      exit: number | null,
    ): void => {
      const id = this.#id();
      const started = this.options.now() - minutes * 60_000;
      const output = script(taskId, {}, "", 0);
      this.runs.set(id, {
        id,
        task: taskId,
        pi: "pi-4",
        state,
        args: taskId === "service-log" ? { unit: "ssh", lines: 100 } : {},
        requested_by: by,
        request_id: null,
        group: null,
        created_at: new Date(started).toISOString(),
        started_at: new Date(started).toISOString(),
        finished_at: new Date(started + elapsed).toISOString(),
        exit_code: exit,
        reason: null,
        output_bytes: 120,
        dropped_bytes: 0,
      });
      this.outputs.set(id, {
        pieces: output.lines.map((line, seq) => ({
          seq,
          stream: line.stderr ? "stderr" : "stdout",
          data: line.text,
          gap_bytes: 0,
        })),
        done: true,
        followers: new Set(),
      });
    };
    if (this.machines.has("pi-4")) {
      past(185, "disk-usage", "ha-livingroom", "succeeded", 9_800, 0);
      past(184, "reboot", "admin", "succeeded", 41_000, 0);
      past(33, "uptime", "home-assistant", "succeeded", 38, 0);
      past(6, "apt-upgrade", "schedule", "failed", 12_400, 100);
      past(0.5, "service-log", "admin", "succeeded", 212, 0);
    }
    this.#pending = [];
  }
}
