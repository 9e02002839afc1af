import type { Page } from "@playwright/test";
import type { Sample } from "../src/protocol/types";
import { expect, test } from "./fixture";

/**
 * Serves a history of constants, each column its own, that are another in each window; and stops
 * the samples, so that nothing comes after it.
 */
async function constant(
  page: Page,
  more: (seconds: number) => Record<string, unknown> = () => ({}),
): Promise<number[]> {
  const asked: number[] = [];
  await page.route("**/history?**", async (route) => {
    const seconds = Number(new URL(route.request().url()).searchParams.get("seconds"));
    asked.push(seconds);
    const count = 60;
    const column = <T>(value: T): T[] => new Array<T>(count).fill(value);
    const day = seconds > 3_600;
    await route.fulfill({
      json: {
        start: new Date(Date.now() - seconds * 1_000).toISOString(),
        step_seconds: seconds / count,
        cpu_percent: column(day ? 66 : 11),
        cpu_cores_percent: day ? [] : [12, 13, 14, 15].map(column),
        memory_percent: column(day ? 77 : 33),
        temperature_celsius: column(44.4),
        network_rx_bytes_per_second: column(9_000),
        network_tx_bytes_per_second: column(1_000),
        disk_write_bytes_per_second: column(7_000_000),
        disk_read_bytes_per_second: column(2_000_000),
        undervoltage: column(false),
        ...more(seconds),
      },
    });
  });
  return asked;
}

const chart = (page: Page, title: RegExp) => page.getByRole("figure", { name: title });

/** Points at a place within a plot, from 0 to 1. */
async function point(page: Page, title: RegExp, across: number): Promise<void> {
  const plot = chart(page, title).locator(".u-over");
  const box = await plot.boundingBox();
  await plot.hover({ position: { x: (box?.width ?? 0) * across, y: 20 } });
}

/** Where a colour is highest in a plot, in pixels from above; null where it is nowhere. */
function highest(page: Page, title: RegExp, token: string): Promise<number | null> {
  return chart(page, title)
    .locator("canvas")
    .evaluate((node, name) => {
      const canvas = node as HTMLCanvasElement;
      const hex = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
      const wanted = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
      const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
      for (let at = 0; at < data.length; at += 4)
        if (wanted.every((part, index) => Math.abs(part - (data[at + index] ?? 0)) < 24) && (data[at + 3] ?? 0) > 200)
          return Math.floor(at / 4 / canvas.width);
      return null;
    }, token);
}

test("every chart has its own values under the pointer, each with its word, unit and colour", async ({
  page,
  enter,
}) => {
  await constant(page);
  await enter("#/pi/pi-12");
  await point(page, /^network/, 0.4);
  for (const [title, said] of [
    [/^cpu/, "11 %"],
    [/^memory/, "33 %"],
    [/^temperature/, "44.4 °C"],
    [/^power/, "no under-voltage"],
    [/^network · KiB\/s/, "↓ 8.8 KiB/s"],
    [/^network/, "↑ 1.0 KiB/s"],
    [/^disk · MiB\/s/, "write 6.7 MiB/s"],
    [/^disk/, "read 1.9 MiB/s"],
  ] as const) {
    await expect(chart(page, title).locator("figcaption")).toContainText(said);
    await expect(chart(page, title).locator("figcaption")).toContainText(/\d\d:\d\d:\d\d/);
  }
  await expect(page.getByRole("list", { name: "Cores" }).getByRole("listitem")).toHaveText(
    [12, 13, 14, 15].map((value, core) => new RegExp(`core ${core}: *${value} %`)),
  );
  for (const [title, first, second] of [
    [/^network/, "↓", "↑"],
    [/^disk/, "write", "read"],
  ] as const) {
    await expect(chart(page, title).locator(".accent")).toContainText(first);
    await expect(chart(page, title).locator(".info")).toContainText(second);
    // What is more is drawn higher, in the colour in which it is told.
    const [more, less] = await Promise.all([highest(page, title, "accent"), highest(page, title, "info-text")]);
    expect(more).not.toBeNull();
    expect(less ?? 0).toBeGreaterThan((more ?? Infinity) + 20);
  }
});

test("what the pointer is at stays while the charts change their size", async ({ page, enter }) => {
  await constant(page);
  await enter("#/pi/pi-12");
  await point(page, /^memory/, 0.4);
  const figure = chart(page, /^memory/);
  await expect(figure.locator("figcaption")).toContainText(/\d\d:\d\d:\d\d *33 %/);
  for (const height of [900, 1_000]) {
    const before = (await figure.locator("canvas").boundingBox())?.height ?? 0;
    await page.setViewportSize({ width: 1_600, height });
    await expect.poll(async () => (await figure.locator("canvas").boundingBox())?.height).not.toBe(before);
    await expect(figure.locator("figcaption")).toContainText(/\d\d:\d\d:\d\d/);
  }
});

test("24 h asks the history for a day, shows it, and has no cores, of which only an hour is kept", async ({
  page,
  enter,
}) => {
  const asked = await constant(page);
  await enter("#/pi/pi-12");
  await point(page, /^memory/, 0.4);
  await expect(chart(page, /^memory/)).toContainText("33 %");
  await expect(chart(page, /^cpu % · 4 cores/)).toBeVisible();
  await page.getByRole("button", { name: "24 h" }).click();
  await expect.poll(() => asked).toEqual([300, 86_400]);
  await page.mouse.move(5, 5);
  await point(page, /^memory/, 0.4);
  await expect(chart(page, /^memory/)).toContainText("77 %");
  await expect(chart(page, /^cpu %/)).toContainText("66 %");
  await expect(page.getByRole("list", { name: "Cores" })).toHaveCount(0);
  await expect(page.getByText(/\d cores?$/)).toHaveCount(0);
});

const FLAGS = { undervoltage: true, throttled: true, frequency_capped: true, temperature_limited: true };

test.describe("with samples every second", () => {
  test.use({ serve: { interval: 1 } });
  test("every power trouble of now is named and drawn, and what the pointer is at has its own colour", async ({
    page,
    enter,
    mock,
  }) => {
    await constant(page);
    await enter("#/pi/pi-4");
    const power = chart(page, /^power/);
    await expect(power.locator("figcaption .critical")).toHaveText("under-voltage, throttled");
    const pi = mock.controller.machines.get("pi-4");
    for (const [flags, said] of [
      [FLAGS, "under-voltage, throttled, soft temperature limit, frequency capped"],
      [{ ...FLAGS, undervoltage: false, throttled: false }, "soft temperature limit, frequency capped"],
      [{ undervoltage: false, throttled: false, frequency_capped: false, temperature_limited: false }, "good"],
    ] as const) {
      const stats = { ...pi!.machine.stats, seq: 1_000_000 + said.length, power: flags } as Sample;
      await expect(async () => {
        mock.controller.push({ kind: "stats", pi: "pi-4", stats: { ...stats, seq: stats.seq + Date.now() } });
        await expect(power.locator("figcaption")).toContainText(said, { timeout: 150 });
      }).toPass();
    }
    // A chart of a machine in trouble tells of a time at which all was well.
    await expect(power.locator("figcaption .critical")).toHaveText("under-voltage, throttled");
    await point(page, /^power/, 0.3);
    await expect(power.locator("figcaption")).toContainText("no under-voltage");
    await expect(power.locator("figcaption .critical")).toHaveCount(0);
    await expect(chart(page, /^cpu/).locator("figcaption .critical")).toHaveCount(0);
  });
});

test("the charts above each other have one time axis", async ({ page, enter }) => {
  await enter("#/pi/pi-4");
  await expect(page.locator(".u-over")).toHaveCount(6);
  const sides = await page
    .locator(".u-over")
    .evaluateAll((nodes) =>
      nodes
        .map((node) => node.getBoundingClientRect())
        .map(({ left, right }) => `${Math.round(left)}…${Math.round(right)}`),
    );
  expect(new Set(sides).size).toBe(2);
});
