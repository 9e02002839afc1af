// The columns of the table: what each says of a machine, the order that it gives, and which of them
// a width has room for.

import { fullestDisk, health, type Metric, namePower, powerBits } from "../live/health";
import type { Held } from "../live/store";
import type { Sample } from "../protocol/types";
import { bytes, span } from "../ui/format";

export interface Column {
  name: string;
  /** Description, for the tooltip and the column chooser. */
  title: string;
  /** The least width, in rem. */
  width: number;
  /** How much of the room that is left over it takes. */
  grow?: number;
  /**
   * When it is taken while there is room: the lowest first. Those of rank 0 are always there, and
   * those without are only there when chosen.
   */
  rank?: number;
  /** By what it is sorted; machines without it come last. */
  value: (held: Held) => number | string | undefined;
  /** A number as it is shown. Columns without are drawn by the row itself. */
  text?: (value: number, held: Held) => string;
  /** Whether that text is words, which begin at the left. */
  words?: boolean;
  /** Whether anything but nought is a warning. */
  alarms?: boolean;
  /** Whose limits colour it. */
  metric?: Metric;
  /** Whether a bar goes with its number. */
  meter?: boolean;
}

const SEVERITY = { offline: 2, warning: 1, ok: 0 };

/**
 * What needs attention first: offline machines, the longest first, then power warnings, then other
 * warnings.
 */
function urgency(held: Held): number {
  const state = health(held);
  return state === "offline"
    ? Number.MAX_SAFE_INTEGER - (held.seenAt ?? 0)
    : state === "ok"
      ? 0
      : powerBits(held.sample)
        ? 2
        : 1;
}

/** Between two columns, and at both ends of a row together, in rem. */
export const GAP = 0.75;
const ENDS = 1.6;

/** How much wider a bar is that stands beside its number, in rem. */
const BESIDE = 4;

/** What is known of a machine now: of one that is offline, nothing. */
const now = (held: Held): Sample | null => (held.status === "offline" ? null : held.sample);
const of =
  (name: { [Name in keyof Sample]-?: Sample[Name] extends number | undefined ? Name : never }[keyof Sample]) =>
  (held: Held): number | undefined =>
    now(held)?.[name];

const percent = (value: number): string => `${Math.round(value)}%`;
const rate = (value: number): string => `${bytes(value)}/s`;
const load = (value: number): string => value.toFixed(2);

/** What the busiest core does. */
function busiest(held: Held): number | undefined {
  const cores = now(held)?.cpu_cores_percent;
  return cores && cores.length > 0 ? Math.max(...cores) : undefined;
}

const eachCore = (_busiest: number, held: Held): string =>
  (held.sample?.cpu_cores_percent ?? []).map((core) => Math.round(core)).join(" ");

/** Used swap in per cent; a machine that has none has no answer. */
function swap(held: Held): number | undefined {
  const { swap_used_bytes: used, swap_total_bytes: total } = now(held) ?? {};
  return used === undefined || !total ? undefined : (used / total) * 100;
}

export const COLUMNS: Column[] = [
  { name: "!", title: "trouble", width: 0.8, rank: 0, value: (held) => SEVERITY[health(held)] },
  { name: "label", title: "label", width: 6.4, grow: 1.5, rank: 0, value: (held) => held.machine.label.toLowerCase() },
  { name: "id", title: "pi-id", width: 5.7, grow: 0.3, rank: 9, value: (held) => held.machine.id },
  {
    name: "for",
    title: "responsibility",
    width: 6,
    grow: 2.2,
    rank: 7,
    value: (held) => held.machine.assignment?.toLowerCase(),
  },
  {
    name: "cpu",
    title: "CPU",
    width: 3,
    grow: 0.7,
    rank: 1,
    meter: true,
    metric: "cpu",
    value: of("cpu_percent"),
    text: percent,
  },
  {
    name: "cores",
    title: "each core in %, by the busiest",
    width: 8.4,
    rank: 21,
    words: true,
    value: busiest,
    text: eachCore,
  },
  { name: "load", title: "load of one minute", width: 2.7, rank: 8, value: of("load1"), text: load },
  { name: "5 m", title: "load of five minutes", width: 2.7, value: of("load5"), text: load },
  { name: "15 m", title: "load of fifteen minutes", width: 2.7, value: of("load15"), text: load },
  {
    name: "clock",
    title: "clock of the fastest core",
    width: 4.6,
    rank: 17,
    value: of("cpu_mhz"),
    text: (value) => `${Math.round(value)} MHz`,
  },
  {
    name: "ram",
    title: "memory",
    width: 3,
    grow: 0.7,
    rank: 2,
    meter: true,
    metric: "memory",
    value: of("memory_percent"),
    text: percent,
  },
  { name: "swap", title: "swap", width: 2.9, rank: 14, value: swap, text: percent },
  { name: "procs", title: "processes", width: 3, rank: 18, value: of("processes"), text: String },
  {
    name: "temp",
    title: "temperature",
    width: 2.8,
    rank: 3,
    metric: "temperature",
    value: of("temperature_celsius"),
    text: (value) => `${Math.round(value)}°C`,
  },
  {
    name: "power",
    title: "power trouble now",
    width: 8,
    grow: 0.6,
    rank: 12,
    words: true,
    alarms: true,
    value: (held) => powerBits(now(held)),
    text: namePower,
  },
  {
    name: "since boot",
    title: "power trouble since boot",
    width: 8,
    grow: 0.6,
    words: true,
    value: (held) => powerBits(now(held), "since boot"),
    text: namePower,
  },
  {
    name: "disk",
    title: "the fullest disk",
    width: 2.7,
    rank: 5,
    metric: "disk",
    value: (held) => fullestDisk(now(held)),
    text: percent,
  },
  {
    name: "read",
    title: "bytes read from disks",
    width: 5.7,
    rank: 16,
    value: of("disk_read_bytes_per_second"),
    text: rate,
  },
  {
    name: "write",
    title: "bytes written to disks",
    width: 5.7,
    rank: 15,
    value: of("disk_write_bytes_per_second"),
    text: rate,
  },
  {
    name: "wear",
    title: "wear of the card",
    width: 2.9,
    rank: 19,
    value: (held) => held.machine.info?.storage_wear_percent ?? undefined,
    text: percent,
  },
  { name: "rx", title: "bytes received", width: 5.7, rank: 10, value: of("network_rx_bytes_per_second"), text: rate },
  { name: "tx", title: "bytes sent", width: 5.7, rank: 11, value: of("network_tx_bytes_per_second"), text: rate },
  {
    name: "wifi",
    title: "Wi-Fi signal",
    width: 4.2,
    rank: 13,
    value: of("wifi_signal_dbm"),
    text: (value) => `${value} dBm`,
  },
  {
    name: "updates",
    title: "pending updates",
    width: 4.1,
    rank: 20,
    value: (held) => held.machine.info?.updates_pending ?? undefined,
    text: String,
  },
  { name: "up", title: "uptime", width: 2.5, rank: 6, value: of("uptime_seconds"), text: span },
  { name: "state", title: "trouble, the run, when it last reported", width: 8, grow: 1, rank: 4, value: urgency },
];

/** The columns that can be chosen. */
export const CHOICES = COLUMNS.filter((column) => column.rank !== 0);

/**
 * The columns to show: the chosen ones, or, by default as many as there is room for, and the one
 * that sorts.
 */
export function shown(chosen: readonly string[] | null, sort: string, width: number): Column[] {
  if (chosen) {
    return COLUMNS.filter((column) => column.rank === 0 || chosen.includes(column.name));
  }
  const wanted = COLUMNS.filter((column) => column.rank !== undefined || column.name === sort).sort(
    (a, b) => rank(a, sort) - rank(b, sort),
  );
  const taken = new Set<Column>();
  let needed = ENDS - GAP;
  for (const column of wanted) {
    needed += column.width + GAP;
    if (needed > width && rank(column, sort) > 0) {
      break;
    }
    taken.add(column);
  }
  return COLUMNS.filter((column) => taken.has(column));
}

function rank(column: Column, sort: string): number {
  return column.name === sort ? 0 : (column.rank ?? 0);
}

/** The least width of a row of these columns, in rem. */
export function least(columns: readonly Column[]): number {
  return columns.reduce((sum, column) => sum + column.width + GAP, ENDS - GAP);
}

/** How the columns share a row, and whether there is room for bars beside their numbers. */
export function layout(columns: readonly Column[], width: number): { template: string; beside: boolean } {
  const meters = columns.filter((column) => column.meter).length;
  const beside = least(columns) + meters * BESIDE <= width;
  const widths = columns.map((column) => {
    const own = column.width + (column.meter && beside ? BESIDE : 0);
    return column.grow ? `minmax(${own}rem, ${column.grow}fr)` : `${own}rem`;
  });
  return { template: widths.join(" "), beside };
}

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Compares by a column; machines without a value come last, and equals stand by label and id. */
export function comparison(name: string, descending: boolean): (a: Held, b: Held) => number {
  const column = COLUMNS.find((each) => each.name === name) ?? COLUMNS[1];
  const sign = descending ? -1 : 1;
  return (a, b) => {
    const left = column?.value(a);
    const right = column?.value(b);
    if (left === undefined || right === undefined) {
      return left === right ? byLabel(a, b) : left === undefined ? 1 : -1;
    }
    const order =
      typeof left === "number" && typeof right === "number"
        ? left - right
        : collator.compare(String(left), String(right));
    return order === 0 ? byLabel(a, b) : sign * order;
  };
}

/** The order of cards and wall: the numbers in pi-ids count as numbers. */
export function byId(a: Held, b: Held): number {
  return collator.compare(a.machine.id, b.machine.id);
}

function byLabel(a: Held, b: Held): number {
  return collator.compare(a.machine.label, b.machine.label) || byId(a, b);
}
