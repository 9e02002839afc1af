import { expect, test } from "vitest";
import { machine } from "../live/fixtures";
import { Recent } from "../live/recent";
import type { Held } from "../live/store";
import { age, overdue } from "./age";

const held = (seenAt: number | null, status: Held["status"], interval: number | null): Held => ({
  machine: machine("a", { interval_seconds: interval }),
  status,
  sample: null,
  seenAt,
  recent: Recent.from([], 0),
});

test.each<[number | null, Held["status"], number | null, string, string | undefined]>([
  [97_000, "online", 5, "3s ago", undefined],
  [85_000, "online", 5, "15s ago", undefined],
  [84_000, "online", 5, "16s ago", "16s ago"],
  [84_000, "online", null, "16s ago", "16s ago"],
  [97_500, "online", 0.2, "2s ago", undefined],
  [96_000, "stale", 0.2, "4s ago", "4s ago"],
  [99_000, "offline", 5, "1s ago", "1s ago"],
  [null, "offline", 5, "never seen", "never seen"],
  [null, "online", 5, "never seen", undefined],
])("seen at %s, %s, every %s s: %s, and too old: %s", (seenAt, status, interval, said, late) => {
  expect(age(held(seenAt, status, interval), 100_000)).toBe(said);
  expect(overdue(held(seenAt, status, interval), 100_000)).toBe(late);
});
