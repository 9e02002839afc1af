import { describe, expect, test } from "vitest";
import { machine, sample } from "../live/fixtures";
import { Recent } from "../live/recent";
import type { Held } from "../live/store";
import type { Sample } from "../protocol/types";
import { CHOICES, COLUMNS, comparison, layout, least, shown } from "./columns";

const held = (id: string, values: Partial<Sample>, status: Held["status"] = "online"): Held => ({
  machine: machine(id),
  status,
  sample: sample(values),
  seenAt: 0,
  recent: Recent.from([], 0),
});
const names = (columns: typeof COLUMNS): string[] => columns.map((column) => column.name);

/** Every number of a sample, each of which some column must say. */
const NUMBERS: Array<keyof Sample> = [
  "cpu_percent",
  "cpu_mhz",
  "load1",
  "load5",
  "load15",
  "memory_percent",
  "swap_used_bytes",
  "temperature_celsius",
  "disks",
  "disk_read_bytes_per_second",
  "disk_write_bytes_per_second",
  "network_rx_bytes_per_second",
  "network_tx_bytes_per_second",
  "wifi_signal_dbm",
  "uptime_seconds",
  "processes",
  "cpu_cores_percent",
  "power",
];

describe("the table's columns", () => {
  test.each(NUMBERS)("say %s", (name) => {
    const lists: Partial<Sample> = {
      disks: [{ mount: "/", used_bytes: 1, total_bytes: 2, used_percent: 50 }],
      cpu_cores_percent: [50, 60],
      power: { throttled: true },
    };
    const full = { swap_total_bytes: 100, swap_used_bytes: 50, [name]: lists[name] ?? 50 };
    const without = { ...full, [name]: undefined };
    const said = (values: Partial<Sample>) => COLUMNS.map((column) => column.value(held("a", values)));
    expect(said(full)).not.toEqual(said(without));
  });
  test("sort by what is known now: machines that are offline or cannot tell come last in both directions", () => {
    const fleet = [
      held("low", { wifi_signal_dbm: -80 }),
      held("none", {}),
      held("high", { wifi_signal_dbm: -40 }),
      held("gone", { wifi_signal_dbm: -10 }, "offline"),
    ];
    const sorted = (descending: boolean) =>
      [...fleet].sort(comparison("wifi", descending)).map((each) => each.machine.id);
    expect(sorted(true)).toEqual(["high", "low", "gone", "none"]);
    expect(sorted(false)).toEqual(["low", "high", "gone", "none"]);
  });
  test("say each core and every power trouble, now and since boot, and sort by the worst", () => {
    const text = (name: string, values: Partial<Sample>) => {
      const column = COLUMNS.find((each) => each.name === name);
      const value = column?.value(held("a", values));
      return typeof value === "number" ? column?.text?.(value, held("a", values)) : undefined;
    };
    expect(text("cores", { cpu_cores_percent: [9.4, 100, 0] })).toBe("9 100 0");
    expect(text("cores", {})).toBeUndefined();
    const power = { undervoltage: false, throttled: true, frequency_capped: true, undervoltage_since_boot: true };
    expect([text("power", { power }), text("since boot", { power })]).toEqual([
      "throttled, frequency capped",
      "under-voltage",
    ]);
    expect([text("power", { power: { undervoltage: false } }), text("power", {})]).toEqual(["good", undefined]);
    const fleet = [
      held("capped", { power: { frequency_capped: true } }),
      held("well", { power: { throttled: false } }),
      held("low", { power: { undervoltage: true } }),
      held("slow", { power }),
    ];
    expect([...fleet].sort(comparison("power", true)).map((each) => each.machine.id)).toEqual([
      "low",
      "slow",
      "capped",
      "well",
    ]);
  });
  test("sort the state by what needs attention first: the longest gone, bad power, any other trouble, and all others by label", () => {
    const gone = { ...held("gone", {}, "offline"), seenAt: 5_000 };
    const fleet = [
      { ...held("b", {}), seenAt: 9_000 },
      { ...held("a", {}), seenAt: 1 },
      held("stale", {}, "stale"),
      { ...gone, machine: machine("long gone"), seenAt: 1_000 },
      gone,
      held("low", { power: { undervoltage: true } }),
    ];
    expect([...fleet].sort(comparison("state", true)).map((each) => each.machine.id)).toEqual([
      "long gone",
      "gone",
      "low",
      "stale",
      "a",
      "b",
    ]);
  });
  test("are as many as there is room for, the most telling first", () => {
    for (let width = 20; width < 130; width += 1) expect(least(shown(null, "label", width))).toBeLessThanOrEqual(width);
    expect(names(shown(null, "label", 24))).toEqual(["!", "label", "cpu", "ram", "temp"]);
    expect(names(shown(null, "label", 200))).toEqual(names(COLUMNS.filter((column) => column.rank !== undefined)));
  });
  test("always have the one that sorts", () => {
    expect(names(shown(null, "15 m", 20))).toContain("15 m");
    expect(names(shown(null, "wear", 20))).toEqual(["!", "label", "cpu", "wear"]);
  });
  test("are exactly the chosen ones, however wide that is", () => {
    expect(names(shown(["swap", "gone", "cpu"], "label", 10))).toEqual(["!", "label", "cpu", "swap"]);
    expect(
      shown(
        CHOICES.map((column) => column.name),
        "label",
        10,
      ),
    ).toEqual(COLUMNS);
  });
  test("stand with their bars beside the numbers where that fits", () => {
    const columns = shown(["cpu", "ram"], "label", 0);
    expect(layout(columns, least(columns)).beside).toBe(false);
    expect(layout(columns, least(columns) + 8)).toEqual({
      beside: true,
      template: "0.8rem minmax(6.4rem, 1.5fr) minmax(7rem, 0.7fr) minmax(7rem, 0.7fr)",
    });
  });
});
