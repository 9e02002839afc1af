// Which charts a machine has: one for each group of columns of which anything is known. Pure.
//
// What is named here comes first, in this order. Every other column of the history gets a chart of
// its own kind, with a line for each of its instances, so that a new metric needs no new view.

import type { Series } from "./series";

/** How values are written and scaled. */
export type Unit = "percent" | "celsius" | "rate" | "bytes" | "flags" | "number" | "dbm" | "mhz";

export interface LineOf {
  column: string;
  label: string;
}

export interface Group {
  id: string;
  title: string;
  unit: Unit;
  lines: LineOf[];
}

const lines = (...pairs: Array<[column: string, label: string]>): LineOf[] =>
  pairs.map(([column, label]) => ({ column, label }));

const FIRST: Group[] = [
  { id: "cpu", title: "cpu", unit: "percent", lines: lines(["cpu_percent", "cpu"]) },
  { id: "memory", title: "memory", unit: "percent", lines: lines(["memory_percent", "memory"]) },
  { id: "temperature", title: "temperature", unit: "celsius", lines: lines(["temperature_celsius", "temperature"]) },
  {
    id: "power",
    title: "power",
    unit: "flags",
    lines: lines(
      ["undervoltage_seconds", "under-voltage"],
      ["throttled_seconds", "throttled"],
      ["temperature_limited_seconds", "soft temperature limit"],
      ["frequency_capped_seconds", "frequency capped"],
    ),
  },
  {
    id: "network",
    title: "network",
    unit: "rate",
    lines: lines(["network_rx_bytes_per_second", "↓"], ["network_tx_bytes_per_second", "↑"]),
  },
  {
    id: "disk",
    title: "disk",
    unit: "rate",
    lines: lines(["disk_write_bytes_per_second", "write"], ["disk_read_bytes_per_second", "read"]),
  },
  { id: "load", title: "load", unit: "number", lines: lines(["load1", "1 m"], ["load5", "5 m"], ["load15", "15 m"]) },
];

/** Columns without a chart: what the charts say already, and what only ever grows. */
const LEFT_OUT = new Set([
  "memory_used_bytes",
  "memory_total_bytes",
  "swap_total_bytes",
  "disk_used_bytes",
  "disk_total_bytes",
  "uptime_seconds",
]);

/** So many lines one chart has at most. */
export const MAX_LINES = 8;

const SUFFIXES: Array<[suffix: string, unit: Unit]> = [
  ["_percent", "percent"],
  ["_celsius", "celsius"],
  ["_bytes_per_second", "rate"],
  ["_bytes", "bytes"],
  ["_dbm", "dbm"],
  ["_mhz", "mhz"],
];

/** `network_rx_bytes_per_second` → `network rx`, a rate. */
function describe(base: string): { title: string; unit: Unit } {
  const [suffix = "", unit = "number"] = SUFFIXES.find(([end]) => base.endsWith(end)) ?? [];
  return { title: base.slice(0, base.length - suffix.length).replaceAll("_", " "), unit };
}

/** The groups of which a history knows anything, and those of which a sample does. */
export function groups(series: Series, now: ReadonlyMap<string, number>): Group[] {
  const isKnown = (column: string): boolean => series.has(column) || now.has(column);
  const named = FIRST.filter((group) => group.lines.some(({ column }) => isKnown(column)));
  const taken = new Set(FIRST.flatMap((group) => group.lines.map(({ column }) => column)));
  const others = new Map<string, LineOf[]>();
  for (const column of new Set([...series.columns.keys(), ...now.keys()])) {
    const [, base = column, instance] = /^([^[]+)\[(.*)\]$/.exec(column) ?? [];
    // The cores have their lines in the chart of the processor.
    if (taken.has(column) || LEFT_OUT.has(base) || base === "cpu_cores_percent" || !isKnown(column)) continue;
    others.set(base, [...(others.get(base) ?? []), { column, label: instance ?? "" }]);
  }
  const rest = [...others].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([base, all]) => chartsOf(base, all));
  return [...named, ...rest];
}

function chartsOf(base: string, all: LineOf[]): Group[] {
  const sorted = all.sort((a, b) => a.label.localeCompare(b.label, "en", { numeric: true }));
  const charts: Group[] = [];
  for (let at = 0; at < sorted.length; at += MAX_LINES) {
    charts.push({ id: `${base}-${at}`, ...describe(base), lines: sorted.slice(at, at + MAX_LINES) });
  }
  return charts;
}
