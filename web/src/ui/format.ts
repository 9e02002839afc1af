// Numbers for people: short, and always with a unit. Points in time are in `dates.ts`.

/**
 * Powers of 1024, as everywhere in Pi Stat: the controller's terminal and command line print the
 * same text.
 */
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;
export type ByteUnit = (typeof BYTE_UNITS)[number];

/** How many bytes one of a unit is. */
export const inBytes = (unit: ByteUnit): number => 1024 ** BYTE_UNITS.indexOf(unit);

/** The unit in which a number of bytes has at most three digits before its point. */
export function byteUnit(value: number): ByteUnit {
  return BYTE_UNITS.find((unit) => value / inBytes(unit) < 999.5) ?? "PiB";
}

/** `1.6 GiB` */
export function bytes(value: number): string {
  const size = Math.max(0, value);
  const unit = byteUnit(size);
  const number = size / inBytes(unit);
  return `${number.toFixed(unit === "B" || number >= 99.95 ? 0 : 1)} ${unit}`;
}

/** `41d`, `3h`, `12m`, `8s`: the largest unit only. */
export function span(seconds: number): string {
  const rest = Math.max(0, Math.floor(seconds));
  if (rest < 60) {
    return `${rest}s`;
  }
  if (rest < 3600) {
    return `${Math.floor(rest / 60)}m`;
  }
  return rest < 86_400 ? `${Math.floor(rest / 3600)}h` : `${Math.floor(rest / 86_400)}d`;
}

/**
 * `38 ms`, `12.4 s`, `4m 05s`, `1h 12m`, `41d 2h`: what has passed of the last unit is cut, not
 * rounded.
 */
export function duration(milliseconds: number): string {
  const value = Math.max(0, Math.floor(milliseconds));
  const seconds = Math.floor(value / 1000);
  const two = (part: number): string => String(Math.floor(part)).padStart(2, "0");
  if (seconds < 1) {
    return `${value} ms`;
  }
  if (seconds < 60) {
    return `${seconds}.${Math.floor((value % 1000) / 100)} s`;
  }
  if (seconds < 3600) {
    return `${Math.floor(seconds / 60)}m ${two(seconds % 60)}s`;
  }
  return seconds < 86_400
    ? `${Math.floor(seconds / 3600)}h ${two((seconds % 3600) / 60)}m`
    : `${Math.floor(seconds / 86_400)}d ${Math.floor((seconds % 86_400) / 3600)}h`;
}

/** `1,000` */
export const grouped = (value: number): string => value.toLocaleString("en");

/** `1 machine`, `25 machines`, `1,000 machines`. */
export function count(value: number, one: string, many = `${one}s`): string {
  return `${grouped(value)} ${value === 1 ? one : many}`;
}

/**
 * The beginning of a run's id, as people say it. UUIDv7 begins with the time, so its end tells runs
 * apart.
 */
export function shortId(run: string): string {
  return run.length > 10 ? `${run.slice(0, 4)}…${run.slice(-4)}` : run;
}

/**
 * The least id that a run of after a time can have, in seconds since 1970: a UUIDv7 begins with its
 * time.
 */
export function runIdAt(time: number): string {
  const hex = Math.floor(time * 1000)
    .toString(16)
    .padStart(12, "0");
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`;
}
