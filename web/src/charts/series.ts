// The columns behind a machine's charts: its history from the controller, then every sample as it
// comes. Pure.

import type { History, Sample } from "../protocol/types";
import type { Columns } from "./uplot";

/** The windows that a page offers, in seconds. */
export const WINDOWS = [
  { name: "5 m", seconds: 300 },
  { name: "1 h", seconds: 3_600 },
  { name: "24 h", seconds: 86_400 },
] as const;

/** After so many intervals without a sample a line is interrupted. */
const STALE_INTERVALS = 3;

/**
 * How long the controller keeps the load of each core, in seconds: a longer window has the mean
 * only.
 */
export const CORES_SECONDS = 3_600;

type Reader = (sample: Sample) => number | null;
type Kept = keyof Omit<History, "start" | "step_seconds" | "cpu_cores_percent">;
/** What a history has, and what is known only from when somebody looks on. */
type Column = Kept | "throttled" | "temperature_limited" | "frequency_capped";

/** A state of the power as a number; null where the board cannot tell. */
const flag =
  (name: "undervoltage" | Exclude<Column, Kept>): Reader =>
  ({ power }) =>
    power?.[name] === undefined ? null : Number(power[name]);

const READERS: Record<Column, Reader> = {
  cpu_percent: (sample) => sample.cpu_percent ?? null,
  memory_percent: (sample) => sample.memory_percent ?? null,
  temperature_celsius: (sample) => sample.temperature_celsius ?? null,
  disk_read_bytes_per_second: (sample) => sample.disk_read_bytes_per_second ?? null,
  disk_write_bytes_per_second: (sample) => sample.disk_write_bytes_per_second ?? null,
  network_rx_bytes_per_second: (sample) => sample.network_rx_bytes_per_second ?? null,
  network_tx_bytes_per_second: (sample) => sample.network_tx_bytes_per_second ?? null,
  undervoltage: flag("undervoltage"),
  throttled: flag("throttled"),
  temperature_limited: flag("temperature_limited"),
  frequency_capped: flag("frequency_capped"),
};

export class Series {
  readonly seconds: number;
  /** Seconds since 1970, oldest first. */
  readonly times: number[] = [];
  readonly columns = new Map<Column, Array<number | null>>();
  /** Load of each core. */
  readonly cores: Array<Array<number | null>>;
  #step: number;

  constructor(seconds: number, history: History | null) {
    this.seconds = seconds;
    this.#step = history?.step_seconds ?? 1;
    for (const name of Object.keys(READERS) as Column[]) {
      this.columns.set(name, (history?.[name as Kept] ?? []).map(numeric));
    }
    this.cores = (history?.cpu_cores_percent ?? []).map((core) => [...core]);
    const start = history ? Date.parse(history.start) / 1000 : 0;
    const length = history?.cpu_percent.length ?? 0;
    for (let index = 0; index < length; index += 1) {
      this.times.push(start + index * this.#step);
    }
  }

  /**
   * Adds a sample that came at `now` (milliseconds); within a step of the history it replaces the
   * last value.
   * After more than three intervals without any there is a gap, as the controller calls such a
   * machine stale.
   */
  push(sample: Sample, now: number, intervalSeconds = 0): void {
    const time = now / 1000;
    const last = this.times[this.times.length - 1];
    const step = Math.max(this.#step, intervalSeconds);
    if (last !== undefined && time - last > STALE_INTERVALS * step) {
      this.#gap(last + step);
    }
    const fresh = last === undefined || time - last >= Math.max(this.#step * 0.9, 0.15);
    if (fresh) {
      this.times.push(time);
    }
    for (const [name, column] of this.columns) {
      put(column, READERS[name](sample), this.times.length, fresh);
    }
    for (const [core, value] of (sample.cpu_cores_percent ?? []).entries()) {
      put((this.cores[core] ??= []), value, this.times.length, fresh);
    }
    this.#forget(time - this.seconds);
  }

  /** Data for a chart, aligned to the times. */
  data(...columns: Array<Array<number | null>>): Columns {
    return [this.times, ...columns.map((column) => pad(column, this.times.length))];
  }

  column(name: Column): Array<number | null> {
    return this.columns.get(name) ?? [];
  }

  #gap(time: number): void {
    this.times.push(time);
    for (const column of [...this.columns.values(), ...this.cores]) {
      put(column, null, this.times.length, true);
    }
  }

  #forget(before: number): void {
    let old = 0;
    while ((this.times[old] ?? Infinity) < before) {
      old += 1;
    }
    if (old > 0) {
      const length = this.times.length;
      this.times.splice(0, old);
      for (const column of [...this.columns.values(), ...this.cores]) {
        column.splice(0, Math.max(0, old - (length - column.length)));
      }
    }
  }
}

function numeric(value: number | boolean | null): number | null {
  return typeof value === "boolean" ? Number(value) : value;
}

function put(column: Array<number | null>, value: number | null, length: number, fresh: boolean): void {
  if (fresh || column.length === 0) {
    column.push(value);
  } else {
    column[column.length - 1] = value;
  }
  // A column that began late is shorter, and stands at the end.
  column.splice(0, column.length - length);
}

/** Columns that began later are filled up at their beginning. */
function pad(column: Array<number | null>, length: number): Array<number | null> {
  return column.length >= length ? column : [...new Array<null>(length - column.length).fill(null), ...column];
}
