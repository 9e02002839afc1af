// Of which times anything is known, and how well. Pure.

/** From when to when, in seconds since 1970, and whether it arrived as it was measured or later. */
export type Interval = [from: number, to: number, how: "live" | "late"];

/**
 * The times between two bounds of which nothing is known. Gaps of at most `slack` seconds, as there
 * are between two samples, are not counted.
 */
export function unknown(
  known: readonly Interval[],
  from: number,
  to: number,
  slack: number,
): Array<[from: number, to: number]> {
  const gaps: Array<[number, number]> = [];
  let reached = from;
  for (const [start, end] of [...known].sort((a, b) => a[0] - b[0])) {
    if (start >= to) break;
    if (start - reached > slack) gaps.push([reached, start]);
    reached = Math.max(reached, end);
  }
  if (to - reached > slack) gaps.push([reached, to]);
  return gaps;
}

/** An agent remembers one sample in so many seconds: more between two of them is a gap. */
const REMEMBERED_EVERY = 60;

/** The same intervals; late ones are joined with their neighbours. */
export function joined(known: readonly Interval[]): Interval[] {
  const found: Interval[] = [];
  for (const [from, to, how] of known) {
    const last = found[found.length - 1];
    const isNear = last !== undefined && from - last[1] <= REMEMBERED_EVERY;
    if (!last || !isNear || (last[2] === "live" && how === "live")) {
      found.push([from, to, how]);
    } else if (last[2] === how) {
      last[1] = to;
    } else if (how === "late") {
      found.push([last[1], to, how]);
    } else {
      last[1] = from;
      found.push([from, to, how]);
    }
  }
  return found;
}

/**
 * The values of a line that arrived late, to be drawn in another way: null elsewhere. The values
 * before and after them are repeated, so that the two lines meet.
 */
export function late(
  times: readonly number[],
  values: ReadonlyArray<number | null>,
  known: readonly Interval[],
): Array<number | null> {
  const intervals = known.filter(([, , how]) => how === "late");
  const isLate = (index: number): boolean => {
    const time = times[index];
    return time !== undefined && intervals.some(([from, to]) => time >= from && time < to);
  };
  return values.map((value, index) => (isLate(index - 1) || isLate(index) || isLate(index + 1) ? value : null));
}

/** The values of a line without those that arrived late. */
export function live(
  times: readonly number[],
  values: ReadonlyArray<number | null>,
  known: readonly Interval[],
): Array<number | null> {
  const intervals = known.filter(([, , how]) => how === "late");
  return values.map((value, index) => {
    const time = times[index] ?? 0;
    return intervals.some(([from, to]) => time >= from && time < to) ? null : value;
  });
}

/**
 * The values of another line at the times of this one: the nearest within half a step, null where
 * there is none. `shift` is added to the other's times.
 */
export function align(
  times: readonly number[],
  otherTimes: readonly number[],
  otherValues: ReadonlyArray<number | null>,
  reach: number,
  shift = 0,
): Array<number | null> {
  let at = 0;
  return times.map((time) => {
    const distance = (index: number): number => Math.abs((otherTimes[index] ?? Infinity) + shift - time);
    while (at + 1 < otherTimes.length && distance(at + 1) <= distance(at)) at += 1;
    return distance(at) <= reach ? (otherValues[at] ?? null) : null;
  });
}

/** A moment that is marked in the charts. */
export interface Mark {
  time: number;
  kind: "run" | "reboot";
  text: string;
}

/** Marks that are closer to each other than `apart` seconds become one, which names them all. */
export function thin(marks: readonly Mark[], apart: number): Mark[] {
  const found: Mark[] = [];
  for (const mark of [...marks].sort((a, b) => a.time - b.time)) {
    const last = found[found.length - 1];
    if (last && mark.time - last.time < apart) {
      last.text = `${last.text} · ${mark.text}`;
      if (mark.kind === "reboot") last.kind = "reboot";
    } else {
      found.push({ ...mark });
    }
  }
  return found;
}

/** When a machine was started anew, by its uptime: where that is less than it was. */
export function reboots(times: readonly number[], uptimes: ReadonlyArray<number | null>): number[] {
  const found: number[] = [];
  let before: number | null = null;
  for (const [index, uptime] of uptimes.entries()) {
    if (uptime === null) continue;
    const time = times[index] ?? 0;
    if (before !== null && uptime < before) found.push(time - uptime);
    before = uptime;
  }
  return found;
}
