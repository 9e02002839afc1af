import { describe, expect, test } from "vitest";
import { sample } from "../live/fixtures";
import { Recent, STEPS } from "../live/recent";
import type { History, Power } from "../protocol/types";
import { lanes, POWER_LOOK, powerNow, tellPower } from "./lanes";
import { Series, WINDOWS } from "./series";
import { sparkline } from "./sparkline";
import { rateTick, rateUnit, ticks, times } from "./ticks";

describe("recent values", () => {
  test("take over a snapshot and go on with means of ten seconds", () => {
    const recent = Recent.from([5, null, 7], 1_000_000);
    expect(recent.values()).toHaveLength(STEPS);
    expect(recent.values().slice(-3)).toEqual([5, null, 7]);
    recent.push(1_010_000, 20);
    recent.push(1_011_000, 40);
    expect(recent.values().slice(-3)).toEqual([null, 7, 30]);
  });
  test("show a pause as a gap", () => {
    const recent = Recent.from([5], 1_000_000);
    recent.push(1_030_000, 9);
    expect(recent.values().slice(-4)).toEqual([5, null, null, 9]);
  });
  test("survive a clock that goes back", () => {
    const recent = Recent.from([5], 1_000_000);
    recent.push(400_000, 9);
    expect(recent.values()[STEPS - 1]).toBe(7);
  });
});

describe("a sparkline", () => {
  test("has a gap where values are missing", () => {
    expect(sparkline([0, 0, null, 0], 10)).toEqual({
      line: "M0 9.5L1 9.5M3 9.5",
      area: "M0 10L0 9.5L1 9.5L1 10ZM3 10L3 9.5L3 10Z",
    });
  });
  test("of nothing is nothing", () => expect(sparkline([null], 10)).toEqual({ line: "", area: "" }));
});

const history = (count: number): History => {
  const column = Array.from({ length: count }, (_, index) => index);
  return {
    start: new Date(0).toISOString(),
    step_seconds: 1,
    cpu_percent: column,
    cpu_cores_percent: [],
    memory_percent: column,
    temperature_celsius: column,
    disk_read_bytes_per_second: column,
    disk_write_bytes_per_second: column,
    network_rx_bytes_per_second: column,
    network_tx_bytes_per_second: column,
    undervoltage: column.map(() => null),
  };
};

describe("a chart's series", () => {
  test("goes on with samples and forgets what is older than its window", () => {
    const series = new Series(5, history(6));
    series.push(sample({ cpu_percent: 50, cpu_cores_percent: [1, 2] }), 7_000);
    expect(series.times).toEqual([2, 3, 4, 5, 7]);
    expect(series.column("cpu_percent")).toEqual([2, 3, 4, 5, 50]);
    expect(series.data(series.cores[1] ?? [])).toEqual([
      [2, 3, 4, 5, 7],
      [null, null, null, null, 2],
    ]);
  });
  test("is interrupted where no sample came for more than three intervals", () => {
    const series = new Series(100, history(3));
    series.push(sample({ cpu_percent: 50, cpu_cores_percent: [7] }), 16_000, 5);
    expect([series.times, series.column("cpu_percent")]).toEqual([
      [0, 1, 2, 16],
      [0, 1, 2, 50],
    ]);
    series.push(sample({ cpu_percent: 60, cpu_cores_percent: [8] }), 32_000, 5);
    expect(series.times).toEqual([0, 1, 2, 16, 21, 32]);
    expect(series.column("cpu_percent")).toEqual([0, 1, 2, 50, null, 60]);
    expect(series.data(series.cores[0] ?? [])[1]).toEqual([null, null, null, 7, null, 8]);
  });
  test("has each core's history, and goes on with as many cores as there are then", () => {
    const series = new Series(100, { ...history(3), cpu_cores_percent: [[4, null, 6]] });
    series.push(sample({ cpu_cores_percent: [7, 8] }), 3_000);
    expect(series.data(...series.cores)).toEqual([
      [0, 1, 2, 3],
      [4, null, 6, 7],
      [null, null, null, 8],
    ]);
  });
  test("has columns as long as its times whatever comes", () => {
    const series = new Series(5, null);
    for (let second = 0; second < 20; second += 1) {
      series.push(sample(second % 3 === 0 ? { cpu_cores_percent: [second] } : {}), second * 1_000);
      for (const column of [series.column("cpu_percent"), series.column("undervoltage")])
        expect(column).toHaveLength(series.times.length);
      expect(series.data(series.cores[0] ?? [])[1]).toHaveLength(series.times.length);
    }
  });
});

describe("the lines across a chart", () => {
  test.each([
    [0, 100, [25, 50, 75]],
    [20, 90, [40, 60, 80]],
    [0, 36_000, [10_000, 20_000, 30_000]],
    [0, 1.15, [0.5, 1]],
    [0, 0, []],
  ])("between %d and %d stand at round values", (bottom, top, expected) =>
    expect(ticks(bottom, top)).toEqual(expected),
  );
  test("stand at round values of their unit", () => {
    expect(ticks(0, 3.5 * 1024, 1024)).toEqual([1024, 2048, 3072]);
    expect(ticks(0, 36 * 1024 ** 2, 1024 ** 2)).toEqual([10, 20, 30].map((value) => value * 1024 ** 2));
  });
  test.each([
    [[], "B", 1, "1"],
    [[[0, null, 912], [3]], "B", 750, "750"],
    [[[1_000], [36_000]], "KiB", 2_560, "2.5"],
    [[[999_999]], "KiB", 768_000, "750"],
    [[[7.5e6], [null]], "MiB", 262_144, "0.25"],
  ] as const)("of the rates %j are told in %s", (columns, unit, value, text) => {
    expect(rateUnit(...columns)).toBe(unit);
    expect(rateTick(unit)(value)).toBe(text);
  });
  test.each(WINDOWS)("have three times or more beside each other in $name on a phone", ({ seconds }) => {
    const [width, font] = [280, 11];
    const { steps, room } = times(seconds);
    const step = steps.find((each) => (each / seconds) * width >= room * font) ?? Infinity;
    expect(Math.floor(seconds / step)).toBeGreaterThanOrEqual(3);
  });
});

describe("power in a chart", () => {
  const told = (power: Power | undefined): string[] =>
    tellPower(powerNow(power)).map(({ text, colour }) => (colour ? `${colour}: ${text}` : text));
  const well = { undervoltage: false, throttled: false, temperature_limited: false, frequency_capped: false };
  test.each<[Power | undefined, string]>([
    [undefined, "not known"],
    [{}, "not known"],
    [well, "good"],
    [{ undervoltage: false }, "no under-voltage"],
    [{ ...well, undervoltage: true }, "critical: under-voltage"],
    [{ ...well, throttled: true, frequency_capped: true }, "critical: throttled, frequency capped"],
    [{ ...well, temperature_limited: true }, "critical: soft temperature limit"],
    [
      { undervoltage: true, throttled: true, temperature_limited: true, frequency_capped: true },
      "critical: under-voltage, throttled, soft temperature limit, frequency capped",
    ],
  ])("of %j is told as %s", (power, expected) => expect(told(power)).toEqual([expected]));
  test("has a lane for each state, that none leaves, and nothing where nothing is known", () => {
    const drawn = lanes([
      [0, 1],
      [null, 1],
      [0, 0],
      [1, null],
    ]);
    drawn.forEach((column, flag) => {
      const base = POWER_LOOK.lines[flag]?.base ?? NaN;
      for (const value of column) if (value !== null) expect(value - base).toSatisfy((up: number) => up >= 0 && up < 1);
    });
    expect(drawn.map((column) => column.map((value) => value === null))).toEqual([
      [false, false],
      [true, false],
      [false, false],
      [false, true],
    ]);
    expect(POWER_LOOK.lanes?.map(POWER_LOOK.tick)).toEqual(["cap", "heat", "slow", "volt"]);
  });
  test("is known of all states from the first sample on, and of under-voltage before", () => {
    const series = new Series(100, { ...history(3), undervoltage: [true, false, null] });
    series.push(sample({ power: { undervoltage: false, throttled: true } }), 3_000);
    expect(
      series
        .data(series.column("undervoltage"), series.column("throttled"), series.column("frequency_capped"))
        .slice(1),
    ).toEqual([
      [1, 0, null, 0],
      [null, null, null, 1],
      [null, null, null, null],
    ]);
  });
});
