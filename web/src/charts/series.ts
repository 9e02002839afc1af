// The columns behind a machine's charts: its history from the controller, then every sample as it
// arrives. Pure.

import type { Column, MachineHistory, Sample } from "../protocol/types";
import { type Interval, joined } from "./known";

export type Values = Column["mean"];

/** One column: what each step was on average, at least and at most. */
export type Band = Omit<Column, "unit">;

/** After so many intervals without a sample a line is interrupted. */
const STALE_INTERVALS = 3;

/** Samples that arrive are drawn one by one as long as a window has room for so many. */
const DRAWN = 300;

/** The least time between two samples that are shown as two, in seconds. */
const CLOSEST = 0.15;

const FLAGS = ["undervoltage", "throttled", "temperature_limited", "frequency_capped"] as const;

/** A sample as values of the columns of a history. */
export function readings(sample: Sample): Map<string, number> {
  const found = new Map<string, number>();
  for (const [name, value] of Object.entries(sample)) {
    if (typeof value === "number" && name !== "seq") found.set(name, value);
  }
  for (const [core, percent] of (sample.cpu_cores_percent ?? []).entries()) {
    found.set(`cpu_cores_percent[${core}]`, percent);
  }
  for (const { mount, used_percent } of sample.disks ?? []) {
    found.set(`disk_used_percent[${mount}]`, used_percent);
  }
  // The history counts for how many seconds of a step they held: here, whether they hold.
  for (const flag of FLAGS) {
    const value = sample.power?.[flag];
    if (value !== undefined) found.set(`${flag}_seconds`, Number(value));
  }
  return found;
}

export class Series {
  /** Seconds since 1970, oldest first. */
  readonly times: number[] = [];
  readonly columns = new Map<string, Band>();
  readonly known: Interval[];
  /** How long a step of the history is. */
  readonly step: number;
  /** How many samples the newest step has. */
  #count = 1;

  constructor(answer: MachineHistory | null) {
    this.step = answer?.step_seconds ?? 1;
    this.known = joined((answer?.known ?? []).map(([from, to, how]) => [seconds(from), seconds(to), how]));
    const start = answer ? seconds(answer.start) : 0;
    for (const [name, { mean, min, max }] of Object.entries(answer?.columns ?? {})) {
      this.columns.set(name, { mean: [...mean], min: [...min], max: [...max] });
      while (this.times.length < mean.length) this.times.push(start + this.times.length * this.step);
    }
  }

  /**
   * Adds a sample that came at `now` (milliseconds); within a step of the history it becomes part
   * of
   * the last one. After more than three intervals without any there is a gap, as the controller
   * calls
   * such a machine stale. What is older than `keepSeconds` is dropped.
   */
  push(sample: Sample, now: number, keepSeconds: number, intervalSeconds = 0): void {
    const time = now / 1000;
    const last = this.times[this.times.length - 1];
    const step = Math.max(this.step, intervalSeconds);
    const isAfterGap = last !== undefined && time - last > STALE_INTERVALS * step;
    if (isAfterGap) this.#begin(last + step);
    const grain = Math.min(this.step, keepSeconds / DRAWN);
    const begins = last === undefined || time - last >= Math.max(grain * 0.9, CLOSEST);
    if (begins) {
      this.#begin(time);
      this.#count = 0;
    }
    this.#count += 1;
    for (const [name, value] of readings(sample)) this.#put(name, value);
    this.#extend(time, STALE_INTERVALS * step);
    this.#forget(time - keepSeconds);
  }

  /** A column's means; as long as the times, and without any value where it is not known. */
  mean(name: string): Values {
    return this.columns.get(name)?.mean ?? this.#empty();
  }

  band(name: string): Band {
    return this.columns.get(name) ?? { mean: this.#empty(), min: this.#empty(), max: this.#empty() };
  }

  /** Whether a column has any value. */
  has(name: string): boolean {
    return this.columns.get(name)?.mean.some((value) => value !== null) ?? false;
  }

  /** The instances of a column, such as the mounts of `disk_used_percent`, in their order. */
  instances(name: string): string[] {
    const found = [...this.columns.keys()].flatMap((key) => {
      const [, base, instance] = /^([^[]+)\[(.*)\]$/.exec(key) ?? [];
      return base === name && instance !== undefined ? [instance] : [];
    });
    return found.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  }

  #empty(): Values {
    return new Array<null>(this.times.length).fill(null);
  }

  #begin(time: number): void {
    this.times.push(time);
    for (const { mean, min, max } of this.columns.values()) {
      for (const values of [mean, min, max]) values.push(null);
    }
  }

  #put(name: string, value: number): void {
    let band = this.columns.get(name);
    if (!band) {
      band = this.band(name);
      this.columns.set(name, band);
    }
    const at = this.times.length - 1;
    const mean = band.mean[at] ?? null;
    band.mean[at] = mean === null ? value : mean + (value - mean) / this.#count;
    band.min[at] = Math.min(band.min[at] ?? value, value);
    band.max[at] = Math.max(band.max[at] ?? value, value);
  }

  /** Notes that a machine reported at a time. A longer pause is a gap. */
  #extend(time: number, pause: number): void {
    const newest = this.known[this.known.length - 1];
    const isNear = newest !== undefined && time - newest[1] <= pause;
    if (isNear && newest[2] === "live") newest[1] = Math.max(newest[1], time);
    else this.known.push([isNear ? newest[1] : time, time, "live"]);
  }

  #forget(before: number): void {
    const first = this.times.findIndex((time) => time >= before);
    if (first <= 0) return;
    this.times.splice(0, first);
    for (const { mean, min, max } of this.columns.values()) {
      for (const values of [mean, min, max]) values.splice(0, first);
    }
  }
}

const seconds = (time: string): number => Date.parse(time) / 1000;
