// Numbers and times for people: short, and always with a unit.

const KILO = 1000;

/** `1.7 GB`; decimal units, as disks and networks are sold. */
export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let rest = Math.max(0, value);
  let unit = 0;
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= KILO;
    unit += 1;
  }
  return `${digits(rest, unit)} ${units[unit]}`;
}

function digits(value: number, unit: number): string {
  return unit === 0 || value >= 99.5 ? value.toFixed(0) : value.toFixed(1);
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

/** `38 ms`, `12.4 s`, `4:05 min`, `1:12 h`. */
export function duration(milliseconds: number): string {
  const value = Math.max(0, milliseconds);
  if (value < 999.5) {
    return `${Math.round(value)} ms`;
  }
  if (value < 59_950) {
    return `${(value / 1000).toFixed(1)} s`;
  }
  const seconds = Math.round(value / 1000);
  const two = (part: number): string => String(Math.floor(part)).padStart(2, "0");
  return seconds < 3600
    ? `${Math.floor(seconds / 60)}:${two(seconds % 60)} min`
    : `${Math.floor(seconds / 3600)}:${two((seconds % 3600) / 60)} h`;
}

/** `21:04:37` in the browser's time zone. */
export function clock(time: string | number | Date): string {
  const date = new Date(time);
  const two = (part: number): string => String(part).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** `21:04` today, `22 Nov 21:04` otherwise. */
export function moment(time: string | number, now: number): string {
  const date = new Date(time);
  const short = clock(date).slice(0, 5);
  if (date.toDateString() === new Date(now).toDateString()) {
    return short;
  }
  return `${date.getDate()} ${date.toLocaleString("en", { month: "short" })} ${short}`;
}

/** `Sun 22 Nov 2026`, in the browser's time zone. */
export function dayName(time: string | number): string {
  const date = new Date(time);
  const part = (options: Intl.DateTimeFormatOptions): string => date.toLocaleString("en", options);
  return `${part({ weekday: "short" })} ${date.getDate()} ${part({ month: "short" })} ${date.getFullYear()}`;
}

/** The same number all day long. */
export function dayNumber(time: string | number): number {
  const date = new Date(time);
  return date.getFullYear() * 1_000 + date.getMonth() * 50 + date.getDate();
}

/** `2026-11-22 21:04:37`, in the browser's time zone as every other time on the page. */
export function fullTime(time: string | number): string {
  const date = new Date(time);
  const two = (part: number): string => String(part).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(date)}`;
}

/** `1 machine`, `25 machines`, `1,000 machines`. */
export function count(value: number, one: string, many = `${one}s`): string {
  return `${value.toLocaleString("en")} ${value === 1 ? one : many}`;
}

/** The beginning of a run's id, as people say it. UUIDv7 begins with the time, so its end tells runs apart. */
export function shortId(run: string): string {
  return run.length > 10 ? `${run.slice(0, 4)}…${run.slice(-4)}` : run;
}
