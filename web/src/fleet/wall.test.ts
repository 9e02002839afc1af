import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { heat, valueAt } from "./wall";

const tokens = readFileSync(new URL("../styles/tokens.css", import.meta.url), "utf8");

/** The heat colours of a theme, by name. */
function colours(theme: string): Record<string, string> {
  const block = tokens.split(`[data-theme="${theme}"] {`)[1]?.split("}")[0] ?? "";
  return Object.fromEntries(
    [...block.matchAll(/--(heat-\w+): (#[0-9a-f]{6});/g)].map(([, name = "", value = ""]) => [name, value]),
  );
}

/** Relative luminance and contrast, as WCAG 2 defines them. */
function luminance(colour = ""): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one?: string, other?: string): number {
  const [dark = 0, light = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

describe.each(["phosphor", "amber", "paper"])("the wall in %s", (theme) => {
  const heat = colours(theme);
  test.each([0, 1, 2, 3, 4, 5])("has readable text on step %d", (step) => {
    expect(contrast(heat[`heat-${step}`], heat[step < 3 ? "heat-light" : "heat-dark"])).toBeGreaterThanOrEqual(4.5);
  });
  test.each([0, 1, 2])("has step %d well apart from the next", (step) => {
    expect(contrast(heat[`heat-${step}`], heat[`heat-${step + 1}`])).toBeGreaterThanOrEqual(1.3);
  });
});

test.each([
  [
    "cpu",
    [
      [undefined, 0],
      [0, 0],
      [9.9, 0],
      [10, 1],
      [25, 2],
      [44, 2],
      [45, 3],
      [70, 4],
      [87.9, 4],
      [88, 5],
      [100, 5],
    ],
  ],
  [
    "ram",
    [
      [24, 0],
      [25, 1],
      [40, 2],
      [55, 3],
      [75, 4],
      [85, 5],
    ],
  ],
  [
    "temp",
    [
      [-5, 0],
      [39, 0],
      [40, 1],
      [48, 2],
      [55, 3],
      [70, 4],
      [79.9, 4],
      [80, 5],
    ],
  ],
  [
    "disk",
    [
      [19, 0],
      [20, 1],
      [40, 2],
      [60, 3],
      [80, 4],
      [90, 5],
    ],
  ],
] as const)("%s is as hot as its thresholds say", (metric, table) => {
  for (const [value, step] of table) expect([value, heat(metric, value)]).toEqual([value, step]);
});

describe("the wall of the past", () => {
  const values = [1, null, 3];
  const answer = {
    start: "2026-11-22T12:00:00Z",
    step_seconds: 600,
    machines: { "pi-1": { unit: "%", mean: values, min: values, max: values } },
  };
  const noon = Date.parse(answer.start) / 1000;
  test.each([
    ["the step in which the time lies", "pi-1", noon + 599, 1],
    ["nothing where nothing is known", "pi-1", noon + 600, null],
    ["the last step", "pi-1", noon + 1_200, 3],
    ["nothing before", "pi-1", noon - 1, undefined],
    ["nothing after", "pi-1", noon + 1_800, undefined],
    ["nothing of other machines", "pi-2", noon, undefined],
  ])("has %s", (_name, pi, time, expected) => expect(valueAt(answer, pi, time)).toBe(expected));
});
