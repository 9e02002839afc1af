// Where a chart's lines across stand, what is written beside them, and how far apart times are.
// Pure.

import { type ByteUnit, byteUnit, inBytes } from "../ui/format";

/** About how many there are. */
const WANTED = 3.4;

/** Steps that people read without counting. */
const ROUND = [1, 2, 2.5, 5, 10];

/** Round values between two bounds, neither of them included. They are round in units of `one`. */
export function ticks(bottom: number, top: number, one = 1): number[] {
  if (one !== 1) {
    return ticks(bottom / one, top / one).map((value) => value * one);
  }
  const rough = (top - bottom) / WANTED;
  if (!(rough > 0)) {
    return [];
  }
  const scale = 10 ** Math.floor(Math.log10(rough));
  const step = scale * (ROUND.find((each) => each * scale >= rough * 0.85) ?? 10);
  const found: number[] = [];
  for (let count = Math.floor(bottom / step) + 1; count * step < top * 0.999; count += 1) {
    found.push(count * step);
  }
  return found;
}

/**
 * The unit in which the greatest of some rates has up to three digits: a title names it, so that
 * the numbers beside the lines need none.
 */
export function rateUnit(...columns: ReadonlyArray<ReadonlyArray<number | null>>): ByteUnit {
  return byteUnit(
    columns.reduce((sofar, column) => column.reduce<number>((great, value) => Math.max(great, value ?? 0), sofar), 0),
  );
}

/** `2.5`: a rate beside its line, in the unit that the title has. */
export function rateTick(unit: ByteUnit): (value: number) => string {
  return (value) => String(Math.round((value / inBytes(unit)) * 100) / 100);
}

/**
 * How far apart times may stand, in seconds. uPlot's own steps leap from one minute to five, which
 * leaves a phone with a single time.
 */
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600, 43_200];

/**
 * The same in days. uPlot puts steps of 30 days on the first of a month, those of 365 on the first
 * of a year.
 */
const DAY_STEPS = [1, 2, 7, 14, 30, 60, 90, 180, 365].map((days) => days * 86_400);

/** From this many seconds on times are without their seconds, so that they take less room. */
const WITHOUT_SECONDS = 240;

/**
 * What may stand below so many seconds: the steps between two times, and the room of each in sizes
 * of the font.
 */
export function times(seconds: number): { steps: number[]; room: number } {
  return seconds < WITHOUT_SECONDS
    ? { steps: TIME_STEPS, room: 5.7 }
    : { steps: [...TIME_STEPS.filter((step) => step >= 60), ...DAY_STEPS], room: 4.6 };
}

/** What is written below a plot whose times are so many seconds apart. */
export function timeStyle(apart: number): "seconds" | "minutes" | "days" | "months" | "years" {
  if (apart < 60) return "seconds";
  if (apart < 20 * 3600) return "minutes";
  if (apart < 27 * 86_400) return "days";
  return apart < 360 * 86_400 ? "months" : "years";
}
