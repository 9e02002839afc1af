import { describe, expect, test } from "vitest";
import {
  between,
  bounds,
  durationText,
  fromParameters,
  isLive,
  MAX_SECONDS,
  MIN_SECONDS,
  narrower,
  type Range,
  shift,
  toParameters,
  WINDOWS,
  wider,
  width,
} from "./range";

const NOW = 1_800_000_000;

describe("a range", () => {
  test("of the last seconds moves with the clock, a fixed one does not", () => {
    expect(bounds({ last: 300 }, NOW)).toEqual([NOW - 300, NOW]);
    expect(bounds({ last: 300 }, NOW + 9)).toEqual([NOW - 291, NOW + 9]);
    expect(bounds({ from: 5, to: 90 }, NOW)).toEqual([5, 90]);
  });
  test("is dragged in either direction, never narrower than can be seen, never into the future", () => {
    expect(between(1_000, 4_000, NOW)).toEqual({ from: 1_000, to: 4_000 });
    expect(between(4_000, 1_000, NOW)).toEqual({ from: 1_000, to: 4_000 });
    expect(width(between(1_000, 1_001, NOW))).toBe(MIN_SECONDS);
    expect(between(NOW - 60, NOW + 60, NOW)).toEqual({ from: NOW - 120, to: NOW });
  });
  test("of the present widens and narrows from window to window", () => {
    let range: Range = { last: 300 };
    for (const { seconds } of WINDOWS.slice(1)) {
      range = wider(range, NOW);
      expect(range).toEqual({ last: seconds });
    }
    expect(wider(range, NOW)).toEqual({ last: MAX_SECONDS });
    for (const { seconds } of WINDOWS.slice(0, -1).reverse()) {
      range = narrower(range, NOW);
      expect(range).toEqual({ last: seconds });
    }
    expect(narrower(range, NOW)).toEqual({ last: 300 });
  });
  test("of the past widens around its middle until it reaches the present, which it then follows", () => {
    expect(wider({ from: 2_000, to: 3_000 }, NOW)).toEqual({ from: 1_500, to: 3_500 });
    expect(wider({ from: NOW - 1_000, to: NOW - 100 }, NOW)).toEqual({ last: 1_800 });
    expect(width(wider({ from: 0, to: MAX_SECONDS }, NOW + MAX_SECONDS))).toBe(MAX_SECONDS);
  });
  test("narrows to half around its middle, and widens back", () => {
    const range = { from: 2_000, to: 3_000 };
    expect(narrower(range, NOW)).toEqual({ from: 2_250, to: 2_750 });
    expect(wider(narrower(range, NOW), NOW)).toEqual(range);
  });
  test("moves by a share of its width, and follows the present once it reaches it", () => {
    expect(shift({ last: 1_000 }, -0.5, NOW)).toEqual({ from: NOW - 1_500, to: NOW - 500 });
    expect(shift({ from: NOW - 1_500, to: NOW - 500 }, 0.5, NOW)).toEqual({ last: 1_000 });
    expect(isLive(shift({ last: 1_000 }, 2, NOW))).toBe(true);
  });
});

describe("the address", () => {
  test.each<[Range, string]>([
    [{ last: 300 }, "last=5m"],
    [{ last: 90 }, "last=90s"],
    [{ last: 86_400 }, "last=24h"],
    [{ last: 7 * 86_400 }, "last=7d"],
    [{ last: MAX_SECONDS }, "last=5y"],
    [{ from: 1_764_576_000, to: 1_764_579_600 }, "from=2025-12-01T08%3A00%3A00Z&to=2025-12-01T09%3A00%3A00Z"],
  ])("of %j is %s, and back", (range, text) => {
    const parameters = new URLSearchParams(toParameters(range));
    expect(parameters.toString()).toBe(text);
    expect(fromParameters(parameters)).toEqual(range);
  });
  test.each([
    "",
    "last=",
    "last=5",
    "last=-5m",
    "last=1s",
    "last=6y",
    "last=999999999y",
    "last=1e3s",
    "from=2025-12-01T08:00:00Z",
    "from=now&to=then",
    "from=2025-12-01T09:00:00Z&to=2025-12-01T08:00:00Z",
    "from=1970-01-01T00:00:00Z&to=2025-12-01T08:00:00Z",
  ])("%j names no range", (text) => expect(fromParameters(new URLSearchParams(text))).toBeUndefined());
  test("has every window in its shortest form", () =>
    expect(WINDOWS.map(({ seconds }) => durationText(seconds))).toEqual(["5m", "1h", "24h", "7d", "90d", "1y", "5y"]));
});
