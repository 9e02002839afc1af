// The time axis: which time the charts show, and how it is moved, widened, narrowed and written
// into
// the address. Pure.
//
// Times are seconds since 1970.

/** The last seconds, which moves with the clock; or a fixed time. */
export type Range = { last: number } | { from: number; to: number };

const HOUR = 3_600;
const DAY = 24 * HOUR;
const YEAR = 365 * DAY;

/** The windows that a page offers, in seconds. */
export const WINDOWS = [
  { name: "5 m", seconds: 300 },
  { name: "1 h", seconds: HOUR },
  { name: "24 h", seconds: DAY },
  { name: "7 d", seconds: 7 * DAY },
  { name: "90 d", seconds: 90 * DAY },
  { name: "1 y", seconds: YEAR },
  { name: "5 y", seconds: 5 * YEAR },
] as const;

export const DEFAULT_RANGE: Range = { last: 300 };

/** What is shown at least: three steps of the finest history. */
export const MIN_SECONDS = 30;
/** What is shown at most: as long as the controller keeps anything. */
export const MAX_SECONDS = 5 * YEAR;

export const isLive = (range: Range): range is { last: number } => "last" in range;

export const bounds = (range: Range, now: number): [from: number, to: number] =>
  isLive(range) ? [now - range.last, now] : [range.from, range.to];

export function width(range: Range): number {
  return isLive(range) ? range.last : range.to - range.from;
}

/** How long about a pixel of a chart is, in seconds: what changes faster needs no new drawing. */
export const pixelSeconds = (range: Range): number => width(range) / 600;

/**
 * The range between two times in any order, at least as wide as can be shown and not in the future.
 */
export function between(one: number, other: number, now: number): Range {
  const seconds = clamp(Math.abs(other - one));
  const middle = (one + other) / 2;
  const to = Math.min(middle + seconds / 2, now);
  return { from: to - seconds, to };
}

/** The next larger window around the same middle; one that reaches the present follows it. */
export function wider(range: Range, now: number): Range {
  if (isLive(range)) {
    return { last: WINDOWS.find(({ seconds }) => seconds > range.last)?.seconds ?? MAX_SECONDS };
  }
  return settle(range.from - width(range) / 2, range.to + width(range) / 2, now);
}

/** The next smaller one: of the present, or around the same middle. */
export function narrower(range: Range, now: number): Range {
  if (isLive(range)) {
    const smaller = WINDOWS.filter(({ seconds }) => seconds < range.last);
    return { last: smaller[smaller.length - 1]?.seconds ?? range.last };
  }
  return between(range.from + width(range) / 4, range.to - width(range) / 4, now);
}

/** Moves by a share of what is shown; a range that reaches the present follows it. */
export function shift(range: Range, share: number, now: number): Range {
  const [from, to] = bounds(range, now);
  const by = width(range) * share;
  return settle(from + by, to + by, now);
}

function settle(from: number, to: number, now: number): Range {
  const seconds = clamp(to - from);
  return to >= now ? { last: Math.round(seconds) } : { from: to - seconds, to };
}

const clamp = (seconds: number): number => Math.max(MIN_SECONDS, Math.min(seconds, MAX_SECONDS));

const UNITS = { s: 1, m: 60, h: HOUR, d: DAY, y: YEAR } as const;
type Unit = keyof typeof UNITS;

/**
 * `90s`, `5m`, `24h`, `7d`, `1y`: in the largest unit that leaves a whole number, a day in hours.
 */
export function durationText(seconds: number): string {
  const unit = (["y", "d", "h", "m"] as const).find(
    (each) => seconds % UNITS[each] === 0 && (each !== "d" || seconds > DAY),
  );
  return `${seconds / UNITS[unit ?? "s"]}${unit ?? "s"}`;
}

function parseDuration(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,9})([smhdy])$/.exec(text) ?? [];
  const seconds = Number(digits) * UNITS[(unit ?? "s") as Unit];
  return seconds >= MIN_SECONDS && seconds <= MAX_SECONDS ? seconds : undefined;
}

const isoText = (time: number): string => new Date(time * 1000).toISOString().replace(/\.\d+Z$/, "Z");

/** A range as the parameters of an address: `last=24h`, or `from=…&to=…`. */
export function toParameters(range: Range): Record<string, string> {
  return isLive(range)
    ? { last: durationText(range.last) }
    : { from: isoText(Math.round(range.from)), to: isoText(Math.round(range.to)) };
}

/** The range of an address; undefined where it names none that can be shown. */
export function fromParameters(parameters: URLSearchParams): Range | undefined {
  const last = parseDuration(parameters.get("last") ?? "");
  if (last !== undefined) {
    return { last };
  }
  const [from = NaN, to = NaN] = ["from", "to"].map((name) => Date.parse(parameters.get(name) ?? "") / 1000);
  return to - from >= MIN_SECONDS && to - from <= MAX_SECONDS ? { from, to } : undefined;
}
