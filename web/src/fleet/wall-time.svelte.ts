// The wall as it was: one number of every machine over a while, and which moment of it is shown.

import { api } from "../live/api";
import { live } from "../live/live.svelte";
import type { FleetHistory, PiId } from "../protocol/types";
import type { WallMetric } from "../ui/settings.svelte";
import { valueAt } from "./wall";

/** How far back the wall goes, in seconds. */
export const SPANS = [
  { name: "24 h", seconds: 86_400 },
  { name: "7 d", seconds: 7 * 86_400 },
  { name: "90 d", seconds: 90 * 86_400 },
] as const;

/** How many moments a span has. */
export const MOMENTS = 96;

/** The column of each number that a wall shows. */
const COLUMNS: Record<WallMetric, string> = {
  cpu: "cpu_percent",
  ram: "memory_percent",
  temp: "temperature_celsius",
  disk: "disk_used_percent[/]",
};

class WallTime {
  seconds = $state<number>(SPANS[0].seconds);
  /** The moment that is shown, from 0; at `MOMENTS` it is now. */
  moment = $state(MOMENTS);
  problem = $state<string | null>(null);
  #answer = $state.raw<FleetHistory | null>(null);
  /** When the span ends, in seconds since 1970: as it was when it was fetched. */
  #end = $state(0);
  #asked = 0;

  readonly isPast = $derived(this.moment < MOMENTS);

  /** The time that is shown, in milliseconds. */
  readonly time = $derived((this.#end - this.seconds * (1 - this.moment / MOMENTS)) * 1000);

  /** Fetches the span of a number; the newest request wins. */
  async load(metric: WallMetric): Promise<void> {
    this.#asked += 1;
    const asked = this.#asked;
    const end = live.now() / 1000;
    const [from, to] = [new Date((end - this.seconds) * 1000), new Date(end * 1000)];
    try {
      const answer = await api.fleetHistory(COLUMNS[metric], from, to, MOMENTS);
      if (asked !== this.#asked) return;
      this.#answer = answer;
      this.#end = end;
      this.problem = null;
    } catch (error) {
      if (asked === this.#asked) this.problem = error instanceof Error ? error.message : String(error);
    }
  }

  now(): void {
    this.moment = MOMENTS;
    this.#answer = null;
  }

  /** What a machine had at the moment that is shown; undefined where nothing is known. */
  value(pi: PiId): number | undefined {
    const answer = this.#answer;
    return answer ? (valueAt(answer, pi, this.time / 1000) ?? undefined) : undefined;
  }
}

export const wallTime = new WallTime();
