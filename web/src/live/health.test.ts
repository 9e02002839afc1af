import { expect, test } from "vitest";
import type { Power } from "../protocol/types";
import { machine, sample } from "./fixtures";
import { namePower, powerBits, powerTroubles, powerWarning, troubles } from "./health";
import { Recent } from "./recent";

const EVERYTHING: Power = { undervoltage: true, throttled: true, frequency_capped: true, temperature_limited: true };

test.each<[Power, string | undefined, string[]]>([
  [{}, undefined, []],
  [{ undervoltage: false }, undefined, []],
  [{ frequency_capped: true }, "frequency capped", ["frequency capped"]],
  [{ throttled: true, undervoltage: true }, "under-voltage", ["under-voltage", "throttled"]],
  [EVERYTHING, "under-voltage", ["under-voltage", "throttled", "soft temperature limit", "frequency capped"]],
])("power that says %j is %s, and in full %j", (power, worst, all) => {
  expect(powerWarning(sample({ power }))).toBe(worst);
  expect(powerTroubles(sample({ power }))).toEqual(all);
});

test("power trouble since the start is told from trouble now", () => {
  const past = sample({
    power: { undervoltage: false, undervoltage_since_boot: true, temperature_limited_since_boot: true },
  });
  expect(namePower(powerBits(past) ?? NaN)).toBe("good");
  expect(namePower(powerBits(past, "since boot") ?? NaN)).toBe("under-voltage, soft temperature limit");
  expect(powerBits(sample({ power: { raw: "0x0" } }))).toBeUndefined();
});

test("every power trouble is among a machine's troubles", () => {
  const held = {
    machine: machine("a"),
    status: "online" as const,
    sample: sample({ power: EVERYTHING, cpu_percent: 97 }),
    seenAt: 0,
    recent: Recent.from([], 0),
  };
  expect(troubles(held)).toEqual([
    "under-voltage",
    "throttled",
    "soft temperature limit",
    "frequency capped",
    "cpu % 97",
  ]);
});
