// What a wall's cell shows of a machine: one number, and how hot it is on a scale of six.

import { fullestDisk } from "../live/health";
import type { Held } from "../live/store";
import type { FleetHistory, PiId } from "../protocol/types";
import type { WallMetric } from "../ui/settings.svelte";

/** The least value of each step of colour but the first, by metric. */
export const HEAT_STEPS: Record<WallMetric, readonly number[]> = {
  cpu: [10, 25, 45, 70, 88],
  ram: [25, 40, 55, 75, 85],
  temp: [40, 48, 55, 70, 80],
  disk: [20, 40, 60, 80, 90],
};

export const WALL_UNITS: Record<WallMetric, string> = { cpu: "%", ram: "%", temp: "°C", disk: "%" };

export function wallValue(held: Held, metric: WallMetric): number | undefined {
  switch (metric) {
    case "cpu":
      return held.sample?.cpu_percent;
    case "ram":
      return held.sample?.memory_percent;
    case "temp":
      return held.sample?.temperature_celsius;
    case "disk":
      return fullestDisk(held.sample);
  }
}

export function heat(metric: WallMetric, value: number | undefined): number {
  return value === undefined ? 0 : HEAT_STEPS[metric].filter((least) => value >= least).length;
}

/** The mean of the step in which a time lies. */
export function valueAt(answer: FleetHistory, pi: PiId, time: number): number | null | undefined {
  const step = Math.floor((time - Date.parse(answer.start) / 1000) / answer.step_seconds);
  return answer.machines[pi]?.mean[step];
}
