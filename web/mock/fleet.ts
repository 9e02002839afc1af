// The mock's machines: labels, tags, and samples that wander the way real ones do.

import type { CannotRun, Machine, MachineHistory, Obstacle, Sample, TaskView } from "../src/protocol/types";
import { type Random, seeded } from "./random";
import { TASKS } from "./tasks";

interface Character {
  label: string;
  id?: string;
  assignment?: string;
  tags: string[];
  cpu: number;
  ram: number;
  temp: number;
  uptimeDays: number;
  undervoltage?: boolean;
  offline?: boolean;
}

const CHARACTERS: Character[] = [
  { label: "Rack Pi 1", assignment: "DNS · Pi-hole", tags: ["rack"], cpu: 12, ram: 41, temp: 48, uptimeDays: 41 },
  { label: "Rack Pi 2", assignment: "Home Assistant", tags: ["rack"], cpu: 34, ram: 78, temp: 55, uptimeDays: 9 },
  { label: "Rack Pi 3", tags: ["rack"], cpu: 8, ram: 30, temp: 44, uptimeDays: 0.14 },
  {
    label: "Garage Door",
    assignment: "Nightly backup",
    tags: ["garage", "camera"],
    cpu: 91,
    ram: 55,
    temp: 81,
    uptimeDays: 12,
    undervoltage: true,
  },
  { label: "Attic Cam", assignment: "Camera", tags: ["camera"], cpu: 22, ram: 63, temp: 58, uptimeDays: 2 },
  { label: "Greenhouse", assignment: "Sensors", tags: ["garden"], cpu: 5, ram: 28, temp: 39, uptimeDays: 77 },
  { label: "Workshop", assignment: "OctoPrint", tags: ["garage"], cpu: 64, ram: 72, temp: 62, uptimeDays: 1 },
  {
    label: "Lab Zero",
    id: "zero-1",
    assignment: "Telemetry",
    tags: ["lab"],
    cpu: 17,
    ram: 88,
    temp: 51,
    uptimeDays: 0.2,
  },
  { label: "Kitchen", assignment: "Display", tags: ["display"], cpu: 4, ram: 24, temp: 42, uptimeDays: 30 },
  { label: "Roof Mast", assignment: "ADS-B", tags: ["field"], cpu: 44, ram: 49, temp: 56, uptimeDays: 18 },
  { label: "Cellar", tags: ["field"], cpu: 9, ram: 33, temp: 37, uptimeDays: 55 },
  {
    label: "Gate",
    assignment: "Camera",
    tags: ["camera", "garden"],
    cpu: 12,
    ram: 43,
    temp: 45,
    uptimeDays: 3,
    offline: true,
  },
  { label: "Front Door", assignment: "Doorbell", tags: ["camera"], cpu: 19, ram: 47, temp: 52, uptimeDays: 23 },
  { label: "Living Room", assignment: "Music", tags: ["display"], cpu: 11, ram: 38, temp: 46, uptimeDays: 64 },
  { label: "Weather", assignment: "Station", tags: ["garden", "field"], cpu: 3, ram: 21, temp: 31, uptimeDays: 120 },
  { label: "Pool", assignment: "Pump control", tags: ["garden"], cpu: 6, ram: 26, temp: 40, uptimeDays: 12 },
  { label: "Solar", assignment: "Inverter log", tags: ["field"], cpu: 14, ram: 35, temp: 49, uptimeDays: 200 },
  { label: "Study", assignment: "Print server", tags: ["display"], cpu: 2, ram: 44, temp: 43, uptimeDays: 6 },
  { label: "Backup NAS", assignment: "Nightly backup", tags: ["rack"], cpu: 38, ram: 66, temp: 57, uptimeDays: 33 },
  { label: "CI Runner", assignment: "Builds", tags: ["lab", "rack"], cpu: 52, ram: 70, temp: 66, uptimeDays: 4 },
  { label: "Bench 1", tags: ["lab"], cpu: 7, ram: 29, temp: 45, uptimeDays: 0.6 },
  { label: "Bench 2", tags: ["lab"], cpu: 10, ram: 31, temp: 47, uptimeDays: 0.6 },
  { label: "Aquarium", assignment: "Light and heat", tags: ["display"], cpu: 5, ram: 27, temp: 41, uptimeDays: 88 },
  { label: "Barn", assignment: "Sensors", tags: ["field"], cpu: 13, ram: 36, temp: 35, uptimeDays: 15 },
];

const MODELS = [
  "Raspberry Pi 4 Model B Rev 1.4",
  "Raspberry Pi 5 Model B Rev 1.0",
  "Raspberry Pi Zero 2 W Rev 1.0",
  "Raspberry Pi 3 Model B Plus Rev 1.3",
];

export interface Simulated {
  machine: Machine;
  /** Milliseconds of the mock's clock at which the next sample is due. */
  due: number;
  interval: number;
  base: Character;
  cpu: number;
  ram: number;
  temp: number;
  burst: number;
  seq: number;
  random: Random;
  history: Sample[];
}

export function character(index: number): Character {
  if (index === 0) {
    return {
      label: "Controller",
      id: "controller",
      assignment: "This controller",
      tags: ["rack"],
      cpu: 9,
      ram: 46,
      temp: 50,
      uptimeDays: 41,
    };
  }
  const known = CHARACTERS[index - 1];
  if (known) {
    return { id: `pi-${index}`, ...known };
  }
  const random = seeded(index * 7919);
  const cpu = Math.floor(random() ** 1.7 * 100);
  return {
    id: `f-${index}`,
    label: `Field ${index}`,
    tags: ["field"],
    cpu,
    ram: 20 + Math.floor(random() * 55),
    temp: 36 + Math.floor(cpu / 3 + random() * 8),
    uptimeDays: random() * 200,
    offline: random() < 0.007,
  };
}

export function simulate(index: number, interval: number, now: number, who: Character = character(index)): Simulated {
  const id = who.id ?? `pi-${index}`;
  const simulated: Simulated = {
    machine: {
      id,
      label: who.label,
      status: who.offline ? "offline" : "online",
      last_seen: new Date(now - (who.offline ? 155_000 : 0)).toISOString(),
      assignment: who.assignment ?? null,
      tags: who.tags,
      interval_seconds: null,
      info: {
        label: who.label,
        model: id === "zero-1" ? MODELS[2] : MODELS[index % 7 === 2 ? 1 : index % 5 === 3 ? 3 : 0],
        serial: `10000000${(0x9abc0000 + index * 4097).toString(16)}`,
        os: "Debian GNU/Linux 12 (bookworm)",
        kernel: "6.6.31+rpt-rpi-v8",
        arch: "aarch64",
        agent_version: "0.1.0",
        boot_id: "8a5d4c2e-6f0b-4d57-9a53-0d8d0c0f3b11",
        boot_time: new Date(now - who.uptimeDays * 86_400_000).toISOString(),
        session: `s${index}`,
        execution_policy: id === "pi-15" ? "never" : "controller",
        runner: index % 3 !== 2,
        interval_seconds: interval,
        capabilities: [],
        known_runs: [],
        updates_pending: index === 4 ? 14 : index % 4,
        storage_wear_percent: 2 + (index % 9),
        failed_units: index === 7 ? ["octoprint.service"] : [],
      },
      stats: null,
      recent_cpu_percent: [],
      cannot_run: cannotRun(id, id !== "pi-15", index % 3 !== 2),
    },
    due: now + ((index * 137) % 1000) * interval,
    interval,
    base: who,
    cpu: who.cpu,
    ram: who.ram,
    temp: who.temp,
    burst: 0,
    seq: 812 + index,
    random: seeded(index + 1),
    history: [],
  };
  if (!who.offline) {
    warm(simulated, now);
  }
  return simulated;
}

/** The tasks that cannot run on a machine, in the controller's words. */
export function cannotRun(pi: string, takesOrders: boolean, runner: boolean): CannotRun[] {
  const allowed = TASKS.filter((task) => task.on.includes("@all") || task.on.includes(pi));
  const entry = (reason: Obstacle, message: string, tasks: TaskView[]): CannotRun[] =>
    tasks.length === 0 ? [] : [{ reason, message, tasks: tasks.map((task) => task.id) }];
  return [
    ...entry(
      "not_on",
      "the catalogue does not allow it on this machine",
      TASKS.filter((task) => !allowed.includes(task)),
    ),
    ...(takesOrders
      ? entry("no_runner", NO_RUNNER, runner ? [] : allowed.filter((task) => task.root))
      : entry("register_only", "its agent was started with --register-only and runs no tasks", allowed)),
  ];
}

const NO_RUNNER =
  "it needs root, and this machine has no root runner: install the package pistat-runner there, or run its install script again with --with-root-tasks";

/** The minutes before the mock was started. */
function warm(simulated: Simulated, now: number): void {
  const values: number[] = [];
  for (let step = 59; step >= 0; step -= 1) {
    simulated.machine.stats = sample(simulated, now - step * 10_000);
    values.push(Math.round(simulated.machine.stats.cpu_percent ?? 0));
  }
  simulated.machine.recent_cpu_percent = values;
}

const clamp = (value: number, least: number, most: number): number => Math.max(least, Math.min(most, value));
const round = (value: number): number => Math.round(value * 10) / 10;

/** How busy each core is, as a share of all of them. */
const CORES = [0.8, 1.2, 0.6, 1.4];

const coreOf = (cpu: number, share: number, random: Random): number =>
  Math.round(clamp(cpu * share + (random() - 0.5) * 6, 0, 100));

/** The next sample. */
export function sample(simulated: Simulated, now: number): Sample {
  const { base, random } = simulated;
  if (random() < 0.06) {
    simulated.burst = random() * 26;
  }
  simulated.burst *= 0.55;
  simulated.cpu = clamp(simulated.cpu + (base.cpu - simulated.cpu) * 0.4 + (random() - 0.5) * 9, 0, 99);
  simulated.ram = clamp(simulated.ram + (base.ram - simulated.ram) * 0.1 + (random() - 0.5) * 0.4, 1, 99);
  simulated.temp = clamp(simulated.temp + (base.temp - simulated.temp) * 0.1 + (random() - 0.5) * 0.3, 20, 90);
  simulated.seq += 1;
  const cpu = clamp(simulated.cpu + simulated.burst, 0, 100);
  const total = 4_126_457_856;
  return {
    time: new Date(now).toISOString(),
    clock_synchronized: true,
    seq: simulated.seq,
    cpu_percent: round(cpu),
    cpu_cores_percent: CORES.map((share) => coreOf(cpu, share, random)),
    cpu_mhz: base.undervoltage ? 600 : 1500,
    load1: Math.round(cpu * 3.2) / 100,
    load5: Math.round(cpu * 2.9) / 100,
    load15: Math.round(cpu * 2.7) / 100,
    memory_used_bytes: Math.round((total * simulated.ram) / 100),
    memory_total_bytes: total,
    memory_percent: round(simulated.ram),
    swap_used_bytes: Math.round((104_857_600 * Math.max(0, simulated.ram - 40)) / 100),
    swap_total_bytes: 104_857_600,
    temperature_celsius: round(simulated.temp),
    disks: [{ mount: "/", used_bytes: 11_811_160_064, total_bytes: 31_268_536_320, used_percent: 37.8 }],
    disk_read_bytes_per_second: random() < 0.1 ? Math.round(random() * 90_000) : 0,
    disk_write_bytes_per_second: Math.round(8_192 + random() * 90_000 * (cpu / 100)),
    network_rx_bytes_per_second: Math.round(1_830 + simulated.burst * 400 + random() * 600),
    network_tx_bytes_per_second: Math.round(912 + simulated.burst * 120 + random() * 300),
    wifi_signal_dbm: -48 - (base.temp % 25) - Math.round(random() * 3),
    uptime_seconds: Math.round(base.uptimeDays * 86_400),
    processes: 120 + Math.round(base.ram / 2),
    power: {
      undervoltage: base.undervoltage ?? false,
      throttled: base.undervoltage ?? false,
      frequency_capped: false,
      temperature_limited: false,
      undervoltage_since_boot: base.undervoltage ?? false,
      throttled_since_boot: base.undervoltage ?? false,
      frequency_capped_since_boot: false,
      temperature_limited_since_boot: false,
      raw: base.undervoltage ? "0x50005" : "0x0",
    },
  };
}

/** Of two hours of the day before yesterday nothing is known; two more arrived late. */
const GAP = [40, 38, 36].map((hours) => hours * 3_600);

/** What the controller keeps of a machine between two times, in at most so many steps. */
export function history(simulated: Simulated, from: number, to: number, points: number, now: number): MachineHistory {
  const finest = to - from <= 3_600 ? 1 : to - from <= 86_400 ? 10 : 60;
  const step = Math.max(finest, Math.ceil((to - from) / points / finest) * finest);
  const times = Array.from({ length: Math.floor((to - from) / step) }, (_, index) => from + index * step);
  const [gone = 0, back = 0, caughtUp = 0] = GAP.map((ago) => now - ago);
  const offline = simulated.machine.status === "offline";
  const last = offline ? Date.parse(simulated.machine.last_seen ?? "") / 1_000 : now;
  const { base } = simulated;
  const began = now - base.uptimeDays * 86_400;
  const isKnown = (time: number): boolean => time < last && (time < gone || time >= back);
  const columns: MachineHistory["columns"] = {};
  const put = (name: string, value: (time: number, random: Random) => number): void => {
    const random = seeded(name.length * 31 + Math.floor(from) + base.label.length);
    const mean = times.map((time) => (isKnown(time) ? round(value(time, random)) : null));
    const spread = (sign: number) => mean.map((each) => each && round(each * (1 + sign * random() * 0.4)));
    const percent = name.endsWith("_percent");
    columns[name] = {
      unit: "",
      mean,
      min: step < 60 ? mean : spread(-1),
      max: step < 60 ? mean : spread(1).map((each) => (percent && each ? Math.min(each, 100) : each)),
    };
  };
  // Warmer by day than by night, and on some days busier than on others.
  const day = (time: number): number => Math.sin((time / 86_400) * 2 * Math.PI) + Math.sin(time / 86_400 / 5) * 0.6;
  const hot = (time: number): boolean => base.cpu > 85 && time > now - 900;
  const cpu = (time: number, random: Random): number =>
    clamp((base.cpu > 85 && !hot(time) ? 20 : base.cpu) * (1 + day(time) * 0.2) + (random() - 0.5) * 6, 0, 100);
  put("cpu_percent", cpu);
  if (step < 60) {
    for (const [core, share] of CORES.entries())
      put(`cpu_cores_percent[${core}]`, (time, random) => coreOf(cpu(time, random), share, random));
  }
  put("memory_percent", (time, random) => base.ram + day(time) * 2 + random() * 0.8);
  put("temperature_celsius", (time, random) => base.temp - (hot(time) ? 0 : base.cpu / 5) + day(time) * 3 + random());
  put("disk_used_percent[/]", () => 37.8);
  put("disk_read_bytes_per_second", (_time, random) => random() * 9_000);
  put("disk_write_bytes_per_second", (time, random) => (hot(time) ? 2e6 + random() * 6e6 : random() * 300_000));
  put("network_rx_bytes_per_second", (time, random) => 2_000 + Math.max(0, day(time)) * 30_000 + random() * 3_000);
  put("network_tx_bytes_per_second", (time, random) => 1_000 + Math.max(0, day(time)) * 12_000 + random() * 2_000);
  put("load1", (time, random) => cpu(time, random) / 30);
  put("uptime_seconds", (time) => (time < began ? time - began + 1e9 : time - began));
  put("undervoltage_seconds", (time) => Number(base.undervoltage === true && hot(time)));
  const iso = (time: number): string => new Date(time * 1_000).toISOString();
  return {
    start: iso(from),
    step_seconds: step,
    columns,
    known: [
      [iso(0), iso(gone), "live"],
      [iso(back), iso(caughtUp), "late"],
      [iso(caughtUp), iso(last), "live"],
    ],
  };
}
