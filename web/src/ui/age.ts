// How old what is shown of a machine is. Pure.

import type { Held } from "../live/store";
import { span } from "./format";

/** A sample is late after so many intervals, and never before so many seconds. */
const LATE = 3;

const secondsSince = (seenAt: number, now: number): number => (now - seenAt) / 1000;

/** `12s ago`, `never seen`. */
export function age({ seenAt }: Held, now: number): string {
  return seenAt === null ? "never seen" : `${span(secondsSince(seenAt, now))} ago`;
}

/** The age of what is older than it should be. */
export function overdue(held: Held, now: number): string | undefined {
  const { machine, seenAt, status } = held;
  if (status === "offline") return age(held, now);
  const interval = machine.interval_seconds ?? machine.info?.interval_seconds ?? 5;
  return seenAt !== null && secondsSince(seenAt, now) > LATE * Math.max(interval, 1) ? age(held, now) : undefined;
}
