// One way to write each thing: sizes, times, counts, names, and how a run ended.

import type { Page } from "@playwright/test";
import { expect, remember, test } from "./fixture";

/** Everything that is written on a canvas from now on. */
const written = async (page: Page): Promise<() => Promise<string[]>> => {
  await page.addInitScript(() => {
    const texts: string[] = [];
    Object.assign(window, { texts });
    const draw = CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (
      this: CanvasRenderingContext2D,
      text: string,
      ...rest: [number, number, number?]
    ): void {
      texts.push(text);
      draw.call(this, text, ...rest);
    };
  });
  return () => page.evaluate(() => (window as unknown as { texts: string[] }).texts);
};
for (const { locale, timezoneId, day, full, moment, midnight } of [
  {
    locale: "en-US",
    timezoneId: "America/New_York",
    day: /^\w{3}, \w{3} \d{1,2}, \d{4}$/,
    full: /^\w{3} \d{1,2}, \d{4}, \d\d:\d\d:\d\d (?:EST|EDT)$/,
    moment: /^\w{3} \d{1,2}, \d\d:\d\d$/,
    midnight: /^\w{3} \d{1,2}$/,
  },
  {
    locale: "de-DE",
    timezoneId: "Asia/Kolkata",
    day: /^\w\w\., \d{1,2}\. \S+ \d{4}$/,
    full: /^\d{1,2}\. \S+ \d{4}, \d\d:\d\d:\d\d GMT\+5:30$/,
    moment: /^\d{1,2}\. \S+, \d\d:\d\d$/,
    midnight: /^\d{1,2}\. \S+$/,
  },
  {
    locale: "fa-IR",
    timezoneId: "Asia/Tehran",
    day: /20\d\d/,
    full: /20\d\d.*\d\d:\d\d:\d\d/,
    moment: /\d\d:\d\d$/,
    midnight: /^\d{1,2} \S+$/,
  },
]) {
  test.describe(`in ${locale}`, () => {
    test.use({ locale, timezoneId });
    test("days, times and the axis of a chart are written in one style, and the zone is named where times are compared", async ({
      page,
      enter,
      mock,
    }) => {
      const texts = await written(page);
      const old = Date.now() - 3 * 86_400_000;
      const run = [...mock.controller.runs.values()].find((each) => each.task === "apt-upgrade")!;
      Object.assign(run, {
        created_at: new Date(old).toISOString(),
        started_at: new Date(old).toISOString(),
        finished_at: new Date(old + 1_000).toISOString(),
      });
      mock.controller.event("system", "info", "long ago", {});
      mock.controller.events[0]!.time = new Date(old).toISOString();
      await enter();
      await expect(page.locator(".logs .day").first()).toHaveText(day);
      await expect(page.locator(".logs time").first()).toHaveAttribute("title", full);
      await expect(page.locator(".logs time").first()).toHaveText(/^\d\d.\d\d.\d\d$/);
      await page.goto(`${mock.url}/#/runs`);
      await expect(page.locator(`a[href="#/runs/${run.id}"] time`)).toHaveText(moment);
      expect(
        await page
          .locator(".runs-list time")
          .evaluateAll((nodes) => nodes.filter((node) => node.scrollWidth > node.clientWidth + 1).length),
      ).toBe(0);
      await page.goto(`${mock.url}/#/runs/${run.id}`);
      await expect(page.locator("dl > div", { hasText: "ended" }).locator("dd")).toHaveText(full);
      await page.goto(`${mock.url}/#/pi/pi-12`);
      await page.getByRole("button", { name: "24 h" }).click();
      await expect.poll(async () => (await texts()).some((text) => midnight.test(text))).toBe(true);
      expect((await texts()).filter((text) => /^\d{1,2}\.\d{1,2}\.$/.test(text))).toEqual([]);
    });
  });
}

test("sizes and rates are in units of 1024, as in the terminal", async ({ page, enter, mock }) => {
  await remember(page, { density: "table", columns: ["rx", "tx", "read", "write"] });
  await enter();
  await expect(page.locator('[data-pi="pi-12"]')).toBeVisible();
  await expect
    .poll(
      async () =>
        (await page.locator('[role="table"] .number').allTextContents()).filter((text) => text.includes("/s")).length,
    )
    .toBeGreaterThan(10);
  const rates = (await page.locator('[role="table"] .number').allTextContents()).filter((text) => text.includes("/s"));
  expect(rates.filter((text) => !/^[\d.]+ (?:B|KiB|MiB|GiB)\/s$/.test(text))).toEqual([]);
  expect(
    await page
      .locator('[role="table"] .number')
      .evaluateAll((nodes) =>
        nodes.filter((node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.textContent),
      ),
  ).toEqual([]);
  await page.goto(`${mock.url}/#/pi/pi-12`);
  await expect(async () => {
    const { machine } = mock.controller.machines.get("pi-12")!;
    mock.controller.push({
      kind: "stats",
      pi: "pi-12",
      stats: { ...machine.stats!, seq: Date.now(), memory_total_bytes: 4_126_457_856 },
    });
    await expect(page.locator("figcaption", { hasText: "memory" })).toContainText("3.8 GiB", { timeout: 200 });
  }).toPass();
  await expect(page.locator("figcaption", { hasText: "network" })).toContainText(/· (?:B|KiB|MiB)\/s/);
});

test("one is counted as one", async ({ page, enter, mock }) => {
  for (const id of [...mock.controller.machines.keys()])
    if (id !== "controller" && id !== "pi-1") mock.controller.machines.delete(id);
  mock.controller.machines.get("pi-1")!.machine.tags = ["alone"];
  await enter();
  mock.controller.push({ kind: "pulse", pulse: { mqtt_clients: 1, mqtt_messages_per_second: 1, dashboards: 1 } });
  await expect(page.locator(".top")).toContainText("1 client ·");
  const { group } = mock.controller.request({ task: "uptime", target: "@alone", args: {}, confirmed: true }, "admin");
  await page.goto(`${mock.url}/#/runs/${group}`);
  await expect(page.locator(".note").first()).toContainText("1 machine ·");
  await page.keyboard.press("r");
  const options = page.locator('select[name="target"] option');
  await expect(options.filter({ hasText: "@alone" })).toHaveText("@alone (1 machine)");
  await expect(options.filter({ hasText: "@all" })).toHaveText("@all (2 machines)");
});

test("a run that was ended from outside says why, once, and not by its signal", async ({ page, enter, mock }) => {
  const [timedOut, cancelled, killed] = [...mock.controller.runs.values()].filter((run) => run.group === null);
  const ended = { started_at: "2026-11-22T12:00:00.000Z", finished_at: "2026-11-22T12:00:30.000Z", exit_code: 143 };
  Object.assign(timedOut!, ended, { state: "timed_out", reason: "ended by its time limit of 30 s" });
  Object.assign(cancelled!, ended, { state: "cancelled", reason: "cancelled" });
  Object.assign(killed!, ended, {
    state: "failed",
    exit_code: 137,
    reason: "ended by signal 9 (SIGKILL), as when memory runs out",
  });
  await enter("#/runs");
  const row = (id: string) => page.locator(`a[href="#/runs/${id}"] .how`);
  await expect(row(timedOut!.id)).toContainText("timed out · 30.0 s");
  await expect(row(cancelled!.id)).toContainText("cancelled · 30.0 s");
  await expect(row(killed!.id)).toContainText("ended by signal 9 (SIGKILL), as when memory runs out · 30.0 s");
  await expect(page.locator(".runs-list")).not.toContainText(/exit 1(?:43|37)/);
  const said: Array<[string, string]> = [
    [timedOut!.id, "✖ timed out · ended by its time limit of 30 s"],
    [cancelled!.id, "■ cancelled"],
    [killed!.id, "✖ failed · ended by signal 9 (SIGKILL), as when memory runs out"],
  ];
  for (const [id, text] of said) {
    await page.goto(`${mock.url}/#/runs/${id}`);
    await expect(page.locator("p.state")).toHaveText(text);
  }
  await page.goto(`${mock.url}/#/runs/${timedOut!.id}`);
  await expect(page.locator("dt", { hasText: "exit code" })).toHaveCount(0);
});

test("names are shown as they were written", async ({ page, enter, mock }) => {
  mock.controller.machines.get("pi-4")!.machine.label = "ßtraße İı camelCase";
  await enter("#/pi/pi-4");
  const heading = page.getByRole("heading", { level: 1 });
  await expect(heading).toHaveText("ßtraße İı camelCase");
  // What is drawn, not what the document has.
  expect(await heading.evaluate((node) => (node as HTMLElement).innerText)).toBe("ßtraße İı camelCase");
  await page.getByRole("button", { name: "edit" }).click();
  await page.getByRole("button", { name: "forget this machine" }).click();
  expect(
    await page
      .getByRole("dialog")
      .getByRole("heading")
      .evaluate((node) => (node as HTMLElement).innerText),
  ).toBe("Forget ßtraße İı camelCase?");
  await page.keyboard.press("Escape");
  const run = [...mock.controller.runs.values()][0]!;
  await page.goto(`${mock.url}/#/runs/${run.id}`);
  expect(await heading.evaluate((node) => (node as HTMLElement).innerText)).toBe(run.task);
  await page.goto(`${mock.url}/#/`);
  for (const density of ["cards", "table", "wall"]) {
    await page.getByRole("button", { name: density }).click();
    const labels = page.locator('[data-pi="pi-4"]');
    await expect(labels).toBeVisible();
    expect(
      await labels.evaluate((node) =>
        [node, ...node.querySelectorAll("*")]
          .map((each) => getComputedStyle(each).textTransform)
          .filter((each) => each !== "none"),
      ),
    ).toEqual([]);
  }
});

test("a picture of several characters is one in a label, and a direction mark is shown", async ({
  page,
  enter,
  mock,
}) => {
  mock.controller.machines.get("pi-4")!.machine.label = "👩‍💻 می‌خواهم ad\u200dmin \u202egnp";
  await enter("#/pi/pi-4");
  await expect(page.getByRole("heading", { level: 1 })).toHaveText("👩‍💻 می‌خواهم ad⟨200D⟩min ⟨202E⟩gnp");
});

for (const viewport of [
  { width: 1600, height: 1000 },
  { width: 1280, height: 720 },
  { width: 390, height: 844 },
]) {
  test(`the charts stand still while the pointer moves over them at ${viewport.width} × ${viewport.height}`, async ({
    page,
    enter,
  }) => {
    await page.setViewportSize(viewport);
    // The longest that values are written.
    await page.route("**/history?**", async (route) => {
      const column = (value: number) => {
        const values = new Array<number>(300).fill(value);
        return { mean: values, min: values, max: values };
      };
      const [from = "", to = ""] = ["from", "to"].map((name) => new URL(route.request().url()).searchParams.get(name));
      await route.fulfill({
        json: {
          start: from,
          step_seconds: 1,
          columns: {
            cpu_percent: column(100),
            ...Object.fromEntries([0, 1, 2, 3].map((core) => [`cpu_cores_percent[${core}]`, column(100)])),
            memory_percent: column(100),
            temperature_celsius: column(88.8),
            disk_read_bytes_per_second: column(99.9 * 1024),
            disk_write_bytes_per_second: column(99.9 * 1024),
            network_rx_bytes_per_second: column(99.9 * 1024),
            network_tx_bytes_per_second: column(99.9 * 1024),
            undervoltage_seconds: column(1),
          },
          known: [[from, to, "live"]],
        },
      });
    });
    await enter("#/pi/pi-4");
    await expect(page.locator(".uplot canvas")).toHaveCount(12);
    const places = (): Promise<string> =>
      page
        .locator("figure .plot, figcaption > *")
        .evaluateAll((nodes) =>
          (nodes as HTMLElement[])
            .map((node) =>
              [node.offsetTop, node.offsetHeight, node.classList.contains("plot") ? node.offsetWidth : ""].join(" "),
            )
            .join("; "),
        );
    /** What of a caption is wider than its room, at either side. */
    const cutOff = (): Promise<string[]> =>
      page
        .locator("figcaption > *, figcaption b > *")
        .evaluateAll((nodes) =>
          nodes
            .filter(
              (node) =>
                node.scrollWidth > node.clientWidth + 1 ||
                node.getBoundingClientRect().left < node.parentElement!.getBoundingClientRect().left - 1,
            )
            .map((node) => node.textContent ?? ""),
        );
    const still = await places();
    const figures = page.locator("figure");
    for (let at = 0; at < 6; at += 1) {
      const plot = figures.nth(at).locator(".u-over");
      await plot.scrollIntoViewIfNeeded();
      const width = (await plot.boundingBox())?.width ?? 0;
      for (const across of [0.2, 0.5, 0.9]) {
        await plot.hover({ position: { x: width * across, y: 12 } });
        await expect(figures.nth(at).locator("figcaption .time")).toHaveText(/\d\d:\d\d:\d\d/);
        expect(await places()).toBe(still);
        expect(await cutOff()).toEqual([]);
      }
    }
  });
}
