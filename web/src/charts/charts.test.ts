import { describe, expect, test } from "vitest";
import { sample } from "../live/fixtures";
import { Recent, STEPS } from "../live/recent";
import type { MachineHistory, Power } from "../protocol/types";
import { groups } from "./groups";
import { lanes, POWER_LOOK, powerNow, readPower } from "./lanes";
import { WINDOWS } from "./range";
import { Series } from "./series";
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

const answer = (count: number, step = 1, more: Partial<MachineHistory> = {}): MachineHistory => {
  const values = Array.from({ length: count }, (_, index) => index);
  const band = { unit: "", mean: values, min: values.map((value) => value - 1), max: values.map((value) => value + 1) };
  const iso = (time: number): string => new Date(time * 1_000).toISOString();
  return {
    start: iso(0),
    step_seconds: step,
    columns: {
      cpu_percent: band,
      "cpu_cores_percent[0]": band,
      "cpu_cores_percent[10]": band,
      "cpu_cores_percent[9]": band,
    },
    known: [[iso(0), iso(count * step), "live"]],
    ...more,
  };
};

describe("a chart's series", () => {
  test("goes on with samples and forgets what is older than its window", () => {
    const series = new Series(answer(6));
    series.push(sample({ cpu_percent: 60 }), 6_000, 5);
    expect(series.times).toEqual([1, 2, 3, 4, 5, 6]);
    expect(series.mean("cpu_percent")).toEqual([1, 2, 3, 4, 5, 60]);
    expect(series.mean("memory_percent")).toEqual([null, null, null, null, null, 40]);
  });
  test("takes the samples of one step into its mean, least and greatest value", () => {
    const series = new Series(answer(2, 60));
    for (const [at, cpu_percent] of [20, 80, 50].entries()) {
      series.push(sample({ cpu_percent }), (120 + at) * 1_000, 1e6);
    }
    expect(series.times).toEqual([0, 60, 120]);
    const { mean, min, max } = series.band("cpu_percent");
    expect([mean, min, max].map((values) => values[2])).toEqual([50, 20, 80]);
  });
  test("has a gap where a machine was silent, in its lines and in what is known", () => {
    const series = new Series(answer(2));
    series.push(sample({ cpu_percent: 7 }), 60_000, 1e6, 5);
    expect(series.mean("cpu_percent")).toEqual([0, 1, null, 7]);
    expect(series.known).toEqual([
      [0, 2, "live"],
      [60, 60, "live"],
    ]);
    series.push(sample({ cpu_percent: 8 }), 65_000, 1e6, 5);
    expect(series.known[1]).toEqual([60, 65, "live"]);
  });
  test("does not call known what lies between an old history and a sample", () => {
    const values = [1, null, null, null, null];
    const known: MachineHistory["known"] = [["1970-01-01T00:00:00Z", "1970-01-01T00:05:00Z", "live"]];
    const column = { unit: "", mean: values, min: values, max: values };
    const series = new Series(answer(5, 300, { columns: { cpu_percent: column }, known }));
    series.push(sample(), 1_400_000, 1_500, 5);
    expect(series.known).toEqual([
      [0, 300, "live"],
      [1_400, 1_400, "live"],
    ]);
  });
  test("shows every second of a short window, though the history has longer steps", () => {
    const series = new Series(answer(3, 10));
    for (const at of [30, 31, 32]) series.push(sample({ cpu_percent: at }), at * 1_000, 300);
    expect(series.times.slice(-3)).toEqual([30, 31, 32]);
    expect(series.mean("cpu_percent").slice(-3)).toEqual([30, 31, 32]);
  });
  test("keeps all columns as long as its times, whatever a sample has", () => {
    const series = new Series(answer(0));
    for (let second = 0; second < 20; second += 1) {
      series.push(
        sample(second % 3 === 0 ? { cpu_cores_percent: [second], power: { undervoltage: true } } : {}),
        second * 1_000,
        5,
      );
      for (const { mean, min, max } of series.columns.values()) {
        for (const values of [mean, min, max]) expect(values).toHaveLength(series.times.length);
      }
    }
  });
  test("without an answer begins with the first sample", () => {
    const series = new Series(null);
    series.push(sample({ cpu_percent: 3 }), 9_000, 300);
    expect(series.times).toEqual([9]);
    expect(series.known).toEqual([[9, 9, "live"]]);
  });
  test("names the instances of a column by their numbers", () =>
    expect(new Series(answer(1)).instances("cpu_cores_percent")).toEqual(["0", "9", "10"]));
  test("of nothing has nothing", () => {
    const empty = { unit: "", mean: [null], min: [null], max: [null] };
    expect(new Series(answer(1, 1, { columns: { load1: empty } })).has("load1")).toBe(false);
    expect(new Series(answer(1)).has("cpu_percent")).toBe(true);
  });
});

describe("the charts of a machine", () => {
  const band = { unit: "", mean: [1], min: [1], max: [1] };
  const of = (columns: string[], now: string[] = []) =>
    groups(
      new Series(answer(1, 1, { columns: Object.fromEntries(columns.map((name) => [name, band])) })),
      new Map(now.map((name) => [name, 1])),
    ).map(({ title, unit, lines }) => `${title} (${unit}): ${lines.map(({ label }) => label).join(" ")}`);
  test("are only those of which anything is known, the usual ones first", () =>
    expect(of(["processes", "memory_percent", "uptime_seconds"], ["cpu_percent"])).toEqual([
      "cpu (percent): cpu",
      "memory (percent): memory",
      "processes (number): ",
    ]));
  test("have a line for each disk, and the cores in that of the processor", () =>
    expect(of(["cpu_percent", "cpu_cores_percent[0]", "disk_used_percent[/]", "disk_used_percent[/data]"])).toEqual([
      "cpu (percent): cpu",
      "disk used (percent): / /data",
    ]));
  test("come for a metric that is new here, by its unit", () =>
    expect(of(["fan_celsius[cpu]", "interface_rx_bytes_per_second[eth0]", "cpu_mhz"])).toEqual([
      "cpu (mhz): ",
      "fan (celsius): cpu",
      "interface rx (rate): eth0",
    ]));
  test("share many instances among them", () =>
    expect(of(Array.from({ length: 10 }, (_, at) => `disk_used_percent[/${at}]`))).toEqual([
      "disk used (percent): /0 /1 /2 /3 /4 /5 /6 /7",
      "disk used (percent): /8 /9",
    ]));
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
    readPower(powerNow(power)).map(({ text, colour }) => (colour ? `${colour}: ${text}` : text));
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
});
