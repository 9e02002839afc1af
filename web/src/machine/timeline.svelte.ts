// What a machine's charts show: the range and the comparison that the address names, the histories
// for them, and what is marked. To be made while a component is set up: it lives as long.

import { type Mark, reboots } from "../charts/known";
import { bounds, DEFAULT_RANGE, fromParameters, isLive, pixelSeconds, type Range, toParameters } from "../charts/range";
import { Series } from "../charts/series";
import { api } from "../live/api";
import { live } from "../live/live.svelte";
import type { PiId, Run, Sample } from "../protocol/types";
import { clock } from "../ui/dates";
import { runIdAt, shortId } from "../ui/format";
import { screen } from "../ui/screen.svelte";
import { ui } from "../ui/ui.svelte";
import type { Other } from "./looks";

/** How many steps a history has: as many as a chart has pixels for. */
const POINTS = { narrow: 240, wide: 480 };

/**
 * How often a history that goes on is fetched anew, in ms: what was missing may have arrived late.
 */
const AGAIN_EVERY = 300_000;

/** How many runs are marked at most. */
const MARKED = 200;

/** The comparison with the same machine, a week before. It is not a valid pi-id. */
export const WEEK = "-7d";
const WEEK_SECONDS = 7 * 86_400;

const seconds = (): number => live.now() / 1000;

export class Timeline {
  /** Counts the changes of the series. */
  version = $state(0);
  series = $state.raw<Series | null>(null);
  other = $state.raw<Other | null>(null);
  /** The runs of what is shown, besides the newest of the machine. */
  #runs = $state.raw<Run[]>([]);
  #lastSeq = -1;
  /** When a sample was last drawn. */
  #drawnAt = 0;
  #again = $state(0);
  readonly #pi: PiId;
  readonly #newest: () => Run[];

  readonly #parameters = $derived(new URLSearchParams(ui.route.view === "machine" ? ui.route.parameters : ""));
  // Compared as text: an address that names the same range is the same range.
  readonly #rangeText = $derived(JSON.stringify(fromParameters(this.#parameters) ?? DEFAULT_RANGE));
  readonly range = $derived(JSON.parse(this.#rangeText) as Range);
  readonly comparison = $derived(this.#parameters.get("with") ?? "");

  readonly marks = $derived.by((): Mark[] => {
    void this.version;
    const [from, to] = bounds(this.range, seconds());
    const runs = new Map([...this.#runs, ...this.#newest()].map((run) => [run.id, run]));
    const { series } = this;
    return [
      ...[...runs.values()].flatMap(started),
      ...(series ? reboots(series.times, series.mean("uptime_seconds")).map(restarted) : []),
    ].filter(({ time }) => time >= from && time <= to);
  });

  /** `isAway` says whether the machine is offline; `newest` are the runs that are known already. */
  constructor(pi: PiId, isAway: () => boolean, newest: () => Run[]) {
    this.#pi = pi;
    this.#newest = newest;
    $effect(() => {
      // What arrived while this page was not connected, or while the machine was offline, is in the
      // controller's history only.
      void [live.snapshots.read(), isAway(), this.#again];
      const { range } = this;
      return latest(
        () => fetched(pi, range, 0),
        (found) => this.#take(found),
        () => this.series ?? this.#take(new Series(null)),
      );
    });
    $effect(() => {
      if (!isLive(this.range)) return;
      const timer = setInterval(() => (this.#again += 1), AGAIN_EVERY);
      return () => clearInterval(timer);
    });
    $effect(() => this.#compare(this.range, this.comparison));
    $effect(() => {
      const [, to] = bounds(this.range, seconds());
      if (!live.ready) return;
      return latest(
        () => api.runs({ pi, limit: MARKED, before: runIdAt(to) }),
        (found) => (this.#runs = found),
        () => undefined,
      );
    });
  }

  choose(range: Range): void {
    this.#show(range, this.comparison);
  }

  compare(comparison: string): void {
    this.#show(this.range, comparison);
  }

  /** Adds a sample that has just arrived. A time in the past has all its samples already. */
  push(sample: Sample, interval: number): void {
    if (sample.seq === this.#lastSeq || !this.series) return;
    this.#lastSeq = sample.seq;
    if (!isLive(this.range)) return;
    this.series.push(sample, live.now(), this.range.last, interval);
    if (seconds() - this.#drawnAt < pixelSeconds(this.range)) return;
    this.#drawnAt = seconds();
    this.version += 1;
  }

  #show(range: Range, comparison: string): void {
    ui.parameters({ ...toParameters(range), ...(comparison === "" ? {} : { with: comparison }) });
  }

  #take(series: Series): void {
    this.series = series;
    this.version += 1;
  }

  #compare(range: Range, comparison: string): (() => void) | undefined {
    if (comparison === "") {
      this.other = null;
      return undefined;
    }
    const [pi, shift] = comparison === WEEK ? [this.#pi, WEEK_SECONDS] : [comparison, 0];
    const show = (series: Series): void => {
      this.other = { series, shift };
    };
    return latest(
      () => fetched(pi, range, shift),
      show,
      () => show(new Series(null)),
    );
  }
}

/** Asks for something; the answer is dropped once the returned function was called. */
function latest<T>(ask: () => Promise<T>, take: (found: T) => void, failed: () => void): () => void {
  let isStale = false;
  void ask().then(
    (found) => !isStale && take(found),
    () => !isStale && failed(),
  );
  return () => (isStale = true);
}

/** The history of a machine for a range, as it was `earlier` seconds before. */
async function fetched(pi: PiId, range: Range, earlier: number): Promise<Series> {
  const [from, to] = bounds(range, seconds());
  const at = (time: number): Date => new Date((time - earlier) * 1000);
  return new Series(await api.history(pi, at(from), at(to), screen.narrow ? POINTS.narrow : POINTS.wide));
}

function started(run: Run): Mark[] {
  return run.started_at === null
    ? []
    : [{ time: Date.parse(run.started_at) / 1000, kind: "run", text: `${run.task} · run ${shortId(run.id)}` }];
}

const restarted = (time: number): Mark => ({ time, kind: "reboot", text: `restarted ${clock(time * 1000)}` });
