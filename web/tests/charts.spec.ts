import type { Page } from "@playwright/test";
import type { Sample } from "../src/protocol/types";
import { expect, test } from "./fixture";

/** Serves a history of constants, each column its own, that are others in a long window. */
async function constant(page: Page): Promise<Array<{ pi: string; seconds: number; from: number }>> {
  const asked: Array<{ pi: string; seconds: number; from: number }> = [];
  await page.route("**/history?**", async (route) => {
    const url = new URL(route.request().url());
    const [from = 0, to = 0] = ["from", "to"].map((name) => Date.parse(url.searchParams.get(name) ?? "") / 1_000);
    asked.push({ pi: url.pathname.split("/")[3] ?? "", seconds: Math.round(to - from), from });
    const count = 60;
    const step = (to - from) / count;
    const isLong = to - from > 3_600;
    const column = (mean: number, least = mean, most = mean) => ({
      mean: new Array<number>(count).fill(mean),
      min: new Array<number>(count).fill(least),
      max: new Array<number>(count).fill(most),
    });
    const iso = (time: number): string => new Date(time * 1_000).toISOString();
    await route.fulfill({
      json: {
        start: iso(from),
        step_seconds: step,
        columns: {
          cpu_percent: isLong ? column(66, 5, 99) : column(11),
          ...Object.fromEntries([12, 13, 14, 15].map((value, core) => [`cpu_cores_percent[${core}]`, column(value)])),
          memory_percent: column(isLong ? 77 : 33),
          temperature_celsius: column(44.4),
          network_rx_bytes_per_second: column(9_000),
          network_tx_bytes_per_second: column(1_000),
          disk_write_bytes_per_second: column(7_000_000),
          disk_read_bytes_per_second: column(2_000_000),
          undervoltage_seconds: column(0),
        },
        // Nothing is known of the second quarter.
        known: [
          [iso(from), iso(from + (to - from) / 4), "live"],
          [iso(from + (to - from) / 2), iso(to), "live"],
        ],
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

test("24 h asks the history for a day, and says what each step was at least and at most", async ({ page, enter }) => {
  const asked = await constant(page);
  await enter("#/pi/pi-12");
  await point(page, /^memory/, 0.4);
  await expect(chart(page, /^memory/)).toContainText("33 %");
  await expect(chart(page, /^cpu % · 4 cores/)).toBeVisible();
  await page.getByRole("button", { name: "24 h" }).click();
  await expect.poll(() => asked.map(({ seconds }) => seconds)).toEqual([300, 86_400]);
  await expect(page).toHaveURL(/#\/pi\/pi-12\?last=24h$/);
  await page.mouse.move(5, 5);
  await point(page, /^memory/, 0.4);
  await expect(chart(page, /^memory/)).toContainText("77 %");
  await expect(chart(page, /^cpu %/)).toContainText("66 % (5…99 %)");
});

test("a time is chosen by dragging, moved by keys, widened by a double click, and kept by the address", async ({
  page,
  enter,
}) => {
  const asked = await constant(page);
  await enter("#/pi/pi-12?last=24h");
  await expect.poll(() => asked.length).toBe(1);
  const plot = chart(page, /^memory/).locator(".u-over");
  const box = await plot.boundingBox();
  const at = (share: number): number => (box?.x ?? 0) + (box?.width ?? 0) * share;
  const y = (box?.y ?? 0) + 20;
  await page.mouse.move(at(0.25), y);
  await page.mouse.down();
  await page.mouse.move(at(0.4), y);
  await page.mouse.move(at(0.5), y);
  await page.mouse.up();
  await expect.poll(() => asked[1]?.seconds).toBeGreaterThan(21_000);
  expect(asked[1]?.seconds).toBeLessThan(22_200);
  await expect(page).toHaveURL(/\?from=[^&]+Z&to=[^&]+Z$/);
  await expect(page.getByRole("group", { name: "Time shown" }).locator("[aria-pressed=true]")).toHaveCount(0);
  await page.reload();
  await expect.poll(() => asked[2]?.seconds).toBe(asked[1]?.seconds);
  await expect(page.getByRole("button", { name: "Later" })).toBeEnabled();
  const last = () => asked[asked.length - 1] ?? { seconds: 0, from: 0 };
  const { seconds, from } = last();
  await page.keyboard.press("+");
  await expect.poll(() => last().seconds / seconds).toBeCloseTo(0.5, 2);
  await page.keyboard.press("-");
  await expect.poll(() => last().seconds / seconds).toBeCloseTo(1, 2);
  expect((last().from - from) / seconds).toBeCloseTo(0, 2);
  await page.keyboard.press("ArrowLeft");
  await expect.poll(() => (from - last().from) / seconds).toBeCloseTo(0.25, 2);
  await plot.dblclick({ position: { x: 60, y: 20 } });
  await expect.poll(() => last().seconds / seconds).toBeCloseTo(2, 1);
  await page.keyboard.press("0");
  await expect(page.getByRole("button", { name: "Later" })).toBeDisabled();
});

test("a machine is compared with another, or with itself a week before", async ({ page, enter }) => {
  const asked = await constant(page);
  await enter("#/pi/pi-12?last=24h");
  await page.getByLabel("Compare with").selectOption({ label: "a week before" });
  await expect.poll(() => asked.map(({ pi }) => pi)).toEqual(["pi-12", "pi-12"]);
  expect(Math.round((asked[0]?.from ?? 0) - (asked[1]?.from ?? 0))).toBeGreaterThan(7 * 86_400 - 60);
  await page.getByLabel("Compare with").selectOption({ label: "Rack Pi 1" });
  await expect.poll(() => asked.map(({ pi }) => pi)).toEqual(["pi-12", "pi-12", "pi-1"]);
  await expect(page).toHaveURL(/\?last=24h&with=pi-1$/);
  await point(page, /^memory/, 0.8);
  await expect(chart(page, /^memory/).locator("figcaption")).toContainText("┄ 77 %");
});

test("what is not known is hatched, and only what is known has a chart", async ({ page, enter }) => {
  await constant(page);
  await enter("#/pi/pi-12?last=24h");
  // pi-12 is offline: its charts are those of its history alone.
  await expect(page.locator(".u-over")).toHaveCount(6);
  /** How many pixels of a quarter of the plot have a colour above the lines. */
  const hatched = (quarter: number): Promise<number> =>
    chart(page, /^temperature/)
      .locator("canvas")
      .evaluate((node, part) => {
        const canvas = node as HTMLCanvasElement;
        const over = canvas.parentElement?.querySelector<HTMLElement>(".u-over");
        const [left = 0, top = 0, width = 0, height = 0] = [
          over?.offsetLeft,
          over?.offsetTop,
          over?.offsetWidth,
          over?.offsetHeight,
        ].map((at) => (at ?? 0) * devicePixelRatio);
        // Below the dotted limit, above the line across and the values.
        const { data } = canvas
          .getContext("2d")!
          .getImageData(left + (width / 4) * (part + 0.2), top + height * 0.2, (width / 4) * 0.6, height * 0.18);
        return data.filter((value, at) => at % 4 === 3 && value > 40).length;
      }, quarter);
  await expect.poll(() => hatched(1)).toBeGreaterThan(60);
  expect(await hatched(2)).toBe(0);
});

test("runs are marked where they began, and named there", async ({ page, enter, mock }) => {
  mock.controller.request({ task: "uptime", target: "pi-1", args: {}, confirmed: true }, "admin");
  await enter("#/pi/pi-1");
  await expect(page.locator(".time-bar")).toContainText("1 run");
  const figure = chart(page, /^memory/);
  await expect(async () => {
    await point(page, /^memory/, 0.97 - Math.random() * 0.06);
    await expect(figure.locator(".marked")).toHaveText(/^uptime · run /, { timeout: 300 });
  }).toPass();
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 390, height: 844 }, hasTouch: true });
  test("a tap shows the values at its time, and they stay", async ({ page, enter }) => {
    await constant(page);
    await enter("#/pi/pi-12?last=24h");
    const figure = chart(page, /^memory/);
    await figure.locator(".u-over").tap();
    await expect(figure.locator("figcaption")).toContainText(/\d\d:\d\d:\d\d *77 %/);
    await expect(chart(page, /^cpu %/).locator("figcaption")).toContainText("66 % (5…99 %)");
    await page.waitForTimeout(1_200);
    await expect(figure.locator("figcaption")).toContainText(/\d\d:\d\d:\d\d *77 %/);
  });
  test("a finger that moves across a chart reads it", async ({ page, enter }) => {
    await constant(page);
    await enter("#/pi/pi-12?last=24h");
    const figure = chart(page, /^memory/);
    await figure.locator(".u-over").tap();
    const time = figure.locator(".time");
    await expect(time).toHaveText(/\d\d:\d\d/);
    const tapped = (await time.textContent()) ?? "";
    const box = await figure.locator(".u-over").boundingBox();
    const touch = await page.context().newCDPSession(page);
    const at = (share: number) => [{ x: (box?.x ?? 0) + (box?.width ?? 0) * share, y: (box?.y ?? 0) + 20 }];
    await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: at(0.5) });
    for (const share of [0.55, 0.65, 0.75, 0.85]) {
      await touch.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: at(share) });
    }
    await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
    await expect(time).not.toHaveText(tapped);
    // It stays where the finger was lifted.
    await expect(time).toHaveText(/\d\d:\d\d/);
  });
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
  await expect(page.locator(".u-over")).toHaveCount(12);
  const sides = await page
    .locator(".u-over")
    .evaluateAll((nodes) =>
      nodes
        .map((node) => node.getBoundingClientRect())
        .map(({ left, right }) => `${Math.round(left)}…${Math.round(right)}`),
    );
  expect(new Set(sides).size).toBe(2);
});
