// What is wrong with a machine, from its status and sample: one rule for cards, wall, counters, title and icon.

import type { Held } from "../store";
import type { Sample } from "../protocol/types";

export type Level = "ok" | "warning" | "critical";
export type Health = "ok" | "warning" | "offline";

/** From where on a metric is amber and red. */
export const LIMITS = {
  cpu: [60, 85],
  memory: [75, 85],
  temperature: [70, 80],
  disk: [80, 90],
} as const;

export type Metric = keyof typeof LIMITS;

export function level(metric: Metric, value: number | undefined): Level {
  const [warning, critical] = LIMITS[metric];
  if (value === undefined || value < warning) {
    return "ok";
  }
  return value < critical ? "warning" : "critical";
}

/** The fullest disk. */
export function fullestDisk(sample: Sample | null): number | undefined {
  const values = sample?.disks?.map((disk) => disk.used_percent) ?? [];
  return values.length === 0 ? undefined : Math.max(...values);
}

/** Power trouble at this moment, worst first, in words. */
export function powerWarning(sample: Sample | null): string | undefined {
  const power = sample?.power;
  if (power?.undervoltage) {
    return "under-voltage";
  }
  if (power?.throttled) {
    return "throttled";
  }
  if (power?.temperature_limited) {
    return "heat limit";
  }
  return power?.frequency_capped ? "clock capped" : undefined;
}

/** Everything that makes a machine a warning, in words; empty when it is well. */
export function troubles(held: Held): string[] {
  const sample = held.sample;
  const found: string[] = [];
  const note = (metric: Metric, value: number | undefined, text: string): void => {
    if (level(metric, value) === "critical") {
      found.push(`${text} ${Math.round(value ?? 0)}`);
    }
  };
  if (held.status === "stale") {
    found.push("no samples");
  }
  const power = powerWarning(sample);
  if (power) {
    found.push(power);
  }
  note("cpu", sample?.cpu_percent, "cpu %");
  note("memory", sample?.memory_percent, "memory %");
  note("temperature", sample?.temperature_celsius, "°C");
  note("disk", fullestDisk(sample), "disk %");
  return found;
}

export function health(held: Held): Health {
  if (held.status === "offline") {
    return "offline";
  }
  return troubles(held).length > 0 ? "warning" : "ok";
}
