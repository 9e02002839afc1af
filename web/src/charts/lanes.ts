// The states of the power as a chart draws them: each in a lane of its own, up while it holds.
// Pure.

import { POWER_FLAGS } from "../live/health";
import type { Power } from "../protocol/types";
import type { Look, Reading, Value } from "./uplot";

/** How high a state stands in its lane; the rest is the way to the next one. */
const HIGH = 0.68;

/** What is written beside each lane. */
const SHORT: Record<(typeof POWER_FLAGS)[number]["name"], string> = {
  undervoltage: "volt",
  throttled: "slow",
  temperature_limited: "heat",
  frequency_capped: "cap",
};

/** The worst one is on top. */
const laneOf = (flag: number): number => POWER_FLAGS.length - 1 - flag;
const flagOf = laneOf;

const raised = (value: Value, flag: number): number | null => (value == null ? null : laneOf(flag) + value * HIGH);

export const POWER_LOOK: Look = {
  bottom: -0.35,
  top: POWER_FLAGS.length,
  lanes: POWER_FLAGS.map((_, lane) => lane),
  tick: (lane) => SHORT[POWER_FLAGS[flagOf(lane)]?.name ?? "undervoltage"],
  lines: POWER_FLAGS.map(({ text }, flag) => ({
    label: text,
    colour: "accent",
    fill: "warn",
    strength: 60,
    steps: true,
    base: laneOf(flag),
  })),
};

/** The columns of the states, nought and one, as they are drawn. */
export function lanes(columns: ReadonlyArray<readonly Value[]>): Array<Array<number | null>> {
  return columns.map((column, flag) => column.map((value) => raised(value, flag)));
}

/** A sample's states as they are drawn. */
export function powerNow(power: Power | undefined): Value[] {
  return POWER_FLAGS.map(({ name }, flag) => raised(power?.[name] === undefined ? null : Number(power[name]), flag));
}

/**
 * Every trouble by its name. Where not all states are known, only the known ones are reported as
 * good.
 */
export function readPower(values: readonly Value[]): Reading[] {
  const named = (test: (value: Value, flag: number) => boolean): string[] =>
    POWER_FLAGS.filter((_, flag) => test(values[flag], flag)).map(({ text }) => text);
  const bad = named((value, flag) => value != null && value > laneOf(flag));
  if (bad.length > 0) {
    return [{ text: bad.join(", "), colour: "critical" }];
  }
  const known = named((value) => value != null);
  const good = known.length === POWER_FLAGS.length ? "good" : known.map((each) => `no ${each}`).join(", ");
  return [{ text: good || "not known" }];
}
