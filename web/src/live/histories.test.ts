import { expect, test } from "vitest";
import { fromRings } from "./histories";

test("a day that was kept in memory reads as a history of steps, with its gap", () => {
  const values = [1, 2, null, 4];
  const answer = fromRings({
    start: "2026-11-22T12:00:00Z",
    step_seconds: 10,
    cpu_percent: values,
    cpu_cores_percent: [values],
    memory_percent: values,
    temperature_celsius: values,
    disk_read_bytes_per_second: values,
    disk_write_bytes_per_second: values,
    network_rx_bytes_per_second: values,
    network_tx_bytes_per_second: values,
    undervoltage: [false, true, null, null],
  });
  expect(answer.columns["cpu_cores_percent[0]"]).toEqual({ mean: values, min: values, max: values });
  expect(answer.columns.undervoltage_seconds?.max).toEqual([0, 1, null, null]);
  expect(answer.known).toEqual([
    ["2026-11-22T12:00:00.000Z", "2026-11-22T12:00:20.000Z", "live"],
    ["2026-11-22T12:00:30.000Z", "2026-11-22T12:00:40.000Z", "live"],
  ]);
});
