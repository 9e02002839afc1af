import { describe, expect, test } from "vitest";
import { machine, sample } from "../live/fixtures";
import { Recent } from "../live/recent";
import type { Held } from "../live/store";
import { parseFilter } from "./filter";

function held(id: string, cpu: number, more: Parameters<typeof machine>[1] = {}): Held {
  const made = machine(id, more);
  return {
    machine: made,
    status: made.status,
    sample: sample({ cpu_percent: cpu, uptime_seconds: 7200 }),
    seenAt: 0,
    recent: new Recent(),
  };
}

const FLEET = [
  held("pi-1", 12, { label: "Rack Pi 1", tags: ["rack"], assignment: "DNS" }),
  held("pi-2", 91, { label: "Garage Door", tags: ["garage", "camera"] }),
  held("pi-3", 50, { label: "Gate", tags: ["camera"], status: "offline" }),
];

describe("a filter", () => {
  const cases: Array<[string, string[]]> = [
    ["", ["pi-1", "pi-2", "pi-3"]],
    ["garage", ["pi-2"]],
    ["dns", ["pi-1"]],
    ["@camera", ["pi-2", "pi-3"]],
    ["@cam", ["pi-2", "pi-3"]],
    ["@all", ["pi-1", "pi-2", "pi-3"]],
    ["@camera cpu>80", ["pi-2"]],
    ["cpu>=50", ["pi-2", "pi-3"]],
    ["cpu<20%", ["pi-1"]],
    ["uptime>1h", ["pi-1", "pi-2", "pi-3"]],
    ["uptime>1d", []],
    ["status:offline", ["pi-3"]],
    ["status:warn", ["pi-2"]],
    ["-@camera", ["pi-1"]],
    ['"rack pi"', ["pi-1"]],
    ['-"rack pi" -status:offline', ["pi-2"]],
    ["cpu>", ["pi-1", "pi-2", "pi-3"]],
  ];
  test.each(cases)("%s", (text, expected) => {
    const filter = parseFilter(text);
    expect(FLEET.filter((each) => filter.test(each)).map((each) => each.machine.id)).toEqual(expected);
  });

  test("knows whether samples change its answer", () => {
    expect(parseFilter("@camera garage status:offline").live).toBe(false);
    expect(parseFilter("cpu>80").live).toBe(true);
    expect(parseFilter("status:warning").live).toBe(true);
  });

  test("says what it does not understand", () => {
    expect(parseFilter("speed>3").problems[0]).toContain('"speed"');
    expect(parseFilter("status:sleepy").problems[0]).toContain("sleepy");
  });
});
