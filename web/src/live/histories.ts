// What the controller answers about the past of a machine. Pure.

import type { History } from "../protocol/types";

export type Values = Array<number | null>;

/** One column of a history: what each step was on average, at least and at most. */
export interface Band {
  mean: Values;
  min: Values;
  max: Values;
}

/** What the controller answers: one value for each step, null where nothing is known. */
export interface HistoryAnswer {
  /** When the first step begins. */
  start: string;
  /** How long a step is. */
  step_seconds: number;
  /** By name; of several alike `name[instance]`. */
  columns: Record<string, Band>;
  /** From when to when anything is known, and whether it arrived as it was measured. */
  known: ReadonlyArray<readonly [from: string, to: string, how: "live" | "late"]>;
}

/** One column of several machines. */
export interface FleetAnswer {
  start: string;
  step_seconds: number;
  /** By pi-id. */
  machines: Record<string, Band>;
}

/**
 * The answer of a controller that keeps a day in memory only, in the form of the longer history. To
 * be removed once no controller answers in this way.
 */
export function fromRings(history: History): HistoryAnswer {
  const { start, step_seconds, cpu_cores_percent, undervoltage, ...rest } = history;
  const columns: HistoryAnswer["columns"] = {};
  const put = (name: string, mean: Values): void => {
    columns[name] = { mean, min: mean, max: mean };
  };
  for (const [name, values] of Object.entries(rest)) put(name, values);
  for (const [core, values] of cpu_cores_percent.entries()) put(`cpu_cores_percent[${core}]`, values);
  put(
    "undervoltage_seconds",
    undervoltage.map((flag) => (flag === null ? null : Number(flag))),
  );
  return { start, step_seconds, columns, known: known(history) };
}

function known({ start, step_seconds, cpu_percent }: History): HistoryAnswer["known"] {
  const iso = (step: number): string => new Date(Date.parse(start) + step * step_seconds * 1000).toISOString();
  const found: Array<[string, string, "live"]> = [];
  let from: number | null = null;
  for (const [index, value] of [...cpu_percent, null].entries()) {
    if (value !== null) from ??= index;
    else if (from !== null) {
      found.push([iso(from), iso(index), "live"]);
      from = null;
    }
  }
  return found;
}
