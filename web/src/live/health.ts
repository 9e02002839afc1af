// What is wrong with a machine, from its status and sample: one rule for cards, wall, counters,
// title and icon.

import type { Sample } from "../protocol/types";
import type { Held } from "./store";

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
  let fullest: number | undefined;
  for (const disk of sample?.disks ?? []) {
    if (fullest === undefined || disk.used_percent > fullest) fullest = disk.used_percent;
  }
  return fullest;
}

/** What is measured against a limit, and how that is said. */
const MEASURED: ReadonlyArray<{ metric: Metric; text: string; value: (sample: Sample | null) => number | undefined }> =
  [
    { metric: "cpu", text: "cpu %", value: (sample) => sample?.cpu_percent },
    { metric: "memory", text: "memory %", value: (sample) => sample?.memory_percent },
    { metric: "temperature", text: "°C", value: (sample) => sample?.temperature_celsius },
    { metric: "disk", text: "disk %", value: fullestDisk },
  ];

/** What a board says of its power, worst first, in words. */
export const POWER_FLAGS = [
  { name: "undervoltage", text: "under-voltage" },
  { name: "throttled", text: "throttled" },
  { name: "temperature_limited", text: "soft temperature limit" },
  { name: "frequency_capped", text: "frequency capped" },
] as const;

/** The worst power trouble at this moment, in words. */
export function powerWarning(sample: Sample | null): string | undefined {
  const power = sample?.power;
  return power && POWER_FLAGS.find(({ name }) => power[name])?.text;
}

/**
 * The power troubles at this moment, or of the time since the machine was started, as a number: the
 * worse, the greater. Nothing where the board cannot tell.
 */
export function powerBits(sample: Sample | null, when: "now" | "since boot" = "now"): number | undefined {
  const power = sample?.power;
  const flags = POWER_FLAGS.map(({ name }) => power?.[when === "now" ? name : (`${name}_since_boot` as const)]);
  return flags.every((flag) => flag === undefined)
    ? undefined
    : flags.reduce((bits, flag) => bits * 2 + Number(flag ?? false), 0);
}

/** Such a number in words; none where there is no trouble. */
const named = (bits: number): string[] =>
  POWER_FLAGS.filter((_, flag) => bits & (1 << (POWER_FLAGS.length - 1 - flag))).map(({ text }) => text);

export const namePower = (bits: number): string => named(bits).join(", ") || "good";

/** Every power trouble at this moment, in words. */
export function powerTroubles(sample: Sample | null): string[] {
  return named(powerBits(sample) ?? 0);
}

/** Everything that makes a machine a warning, in words; empty when it is well. */
export function troubles(held: Held): string[] {
  const sample = held.sample;
  const found: string[] = [];
  if (held.status === "stale") {
    found.push("no samples");
  }
  found.push(...powerTroubles(sample));
  for (const { metric, text, value } of MEASURED) {
    const measured = value(sample);
    if (level(metric, measured) === "critical") {
      found.push(`${text} ${Math.round(measured ?? 0)}`);
    }
  }
  return found;
}

/**
 * Whether there is any trouble: what `troubles` would say, without its words, for every sample of a
 * thousand machines.
 */
function isTroubled(held: Held): boolean {
  const { status, sample } = held;
  return (
    status === "stale" ||
    powerWarning(sample) !== undefined ||
    MEASURED.some(({ metric, value }) => level(metric, value(sample)) === "critical")
  );
}

export function health(held: Held): Health {
  if (held.status === "offline") {
    return "offline";
  }
  return isTroubled(held) ? "warning" : "ok";
}
