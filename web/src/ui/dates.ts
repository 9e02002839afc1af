// Points in time, in one style: the day by the browser's locale, in the browser's time zone, hours
// from 0 to 23.
//
// The hour has two digits in every locale, so that columns of times do not move and compare with
// what a machine's own journal says.

type Instant = string | number;

/** Years and digits as in logs, whatever calendar and numerals the locale prefers. */
const COMMON = { calendar: "gregory", numberingSystem: "latn", hourCycle: "h23" } as const;
const DAY = { day: "numeric", month: "short" } as const;
const MINUTE = { hour: "2-digit", minute: "2-digit" } as const;
const SECOND = { ...MINUTE, second: "2-digit" } as const;

/** A way of writing times; it is made when it is first used, since making one is slow. */
function style(options: Intl.DateTimeFormatOptions): (time: Instant) => string {
  let made: Intl.DateTimeFormat | undefined;
  return (time) => (made ??= new Intl.DateTimeFormat(undefined, { ...COMMON, ...options })).format(new Date(time));
}

/** `21:04:37` */
export const clock = style(SECOND);

/** `21:04` */
export const shortClock = style(MINUTE);

/** `Nov 22` */
export const shortDay = style(DAY);

/** `Nov` */
export const monthName = style({ month: "short" });

/** `2026` */
export const yearName = style({ year: "numeric" });

/** `Sun, Nov 22, 2026` */
export const dayName = style({ weekday: "short", ...DAY, year: "numeric" });

/** `Nov 22, 21:04` */
export const dayAndMinute = style({ ...DAY, ...MINUTE });
const yearAndMinute = style({ ...DAY, year: "numeric", ...MINUTE });
const whole = style({ ...DAY, year: "numeric", ...SECOND, timeZoneName: "short" });

/**
 * `Nov 22, 2026, 21:04:37 GMT+1`: the zone is named, since this is what is compared with other
 * machines.
 */
export const fullTime = whole;

/** `21:04` today, `Nov 22, 21:04` in this year, `Nov 22, 2025, 21:04` in another. */
export function moment(time: Instant, now: number): string {
  if (dayNumber(time) === dayNumber(now)) {
    return shortClock(time);
  }
  return new Date(time).getFullYear() === new Date(now).getFullYear() ? dayAndMinute(time) : yearAndMinute(time);
}

/** The same number all day long. */
export function dayNumber(time: Instant): number {
  const date = new Date(time);
  return date.getFullYear() * 1_000 + date.getMonth() * 50 + date.getDate();
}
