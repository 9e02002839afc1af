import { expect, remember, test } from "./fixture";

test("a card shows status, label, id, responsibility, bars, temperature, uptime and trouble", async ({
  page,
  enter,
}) => {
  await enter();
  const card = page.locator('[data-pi="pi-4"]');
  for (const text of ["Garage Door", "pi-4", "Nightly backup", "81°C", "12d up", "under-voltage"])
    await expect(card).toContainText(text);
  await expect(card).toContainText(/cpu\s*9\d%/);
  await expect(card.locator("svg path.line")).toHaveAttribute("d", /^M0 /);
  await expect(card).toHaveAccessibleName(/warning: under-voltage/);
  await expect(page.locator('[data-pi="pi-12"]')).toContainText(/offline\s*2m ago/);
});

test("a run that waits looks unlike one that runs, and power trouble stays beside both", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  mock.controller.request({ task: "uptime", target: "pi-12", args: {}, confirmed: false }, "admin");
  const waits = page.locator('[data-pi="pi-12"] .doing');
  await expect(waits).toHaveText(/waiting: *uptime queued/);
  mock.controller.request({ task: "count", target: "pi-4", args: { lines: 150 }, confirmed: false }, "admin");
  const card = page.locator('[data-pi="pi-4"]');
  await expect(card.locator(".doing").last()).toHaveText(/running *count/);
  await expect(card.locator(".power")).toHaveText("under-voltage");
  const [grey, amber] = await Promise.all(
    [waits, card.locator(".doing").last()].map((each) => each.evaluate((node) => getComputedStyle(node).color)),
  );
  expect(grey).not.toBe(amber);
  expect(await waits.locator("svg path").getAttribute("d")).not.toBe(
    await card.locator(".doing").last().locator("svg path").getAttribute("d"),
  );
});

test("a machine that runs one task while another waits shows the one that runs", async ({ page, enter, mock }) => {
  await enter();
  const { runs } = mock.controller.request(
    { task: "count", target: "pi-1", args: { lines: 150 }, confirmed: false },
    "admin",
  );
  const doing = page.locator('[data-pi="pi-1"] .doing');
  await expect(doing).toHaveText(/running *count/);
  const first = mock.controller.runs.get(runs[0] ?? "");
  mock.controller.push({
    kind: "run",
    run: { ...first!, id: "ffffffff-ffff-7fff-8fff-ffffffffffff", task: "uptime", state: "queued", started_at: null },
  });
  await expect(page.getByRole("list", { name: "Events" })).toContainText("requested count");
  await expect(doing).toHaveText(/running *count/);
});

test("rows on the screen are whole, and a small fleet has large cells with labels", async ({ page, enter }) => {
  await enter();
  const cut = async (kind: string) =>
    page.locator(`.viewport.${kind}`).evaluate((node) => {
      const edge = node.getBoundingClientRect().bottom;
      return [...node.querySelectorAll("[data-pi]")].filter(
        (item) => item.getBoundingClientRect().top < edge - 1 && item.getBoundingClientRect().bottom > edge + 1,
      ).length;
    });
  await expect.poll(() => cut("cards")).toBe(0);
  await page.getByRole("button", { name: "table" }).click();
  await expect.poll(() => page.locator(".viewport.rows [data-pi]").count()).toBeGreaterThan(10);
  expect(
    await page.locator(".viewport.rows").evaluate((node) => {
      const edge = node.getBoundingClientRect().bottom;
      return [...node.querySelectorAll(".row")]
        .map((row) => row.getBoundingClientRect())
        .filter(({ top, bottom }) => top < edge - 2.5 && bottom > edge + 1).length;
    }),
  ).toBe(0);
  await page.getByRole("button", { name: "wall" }).click();
  await expect(page.locator('[data-pi="pi-1"] .label')).toBeVisible();
  await expect.poll(() => cut("wall")).toBe(0);
  expect((await page.locator('[data-pi="pi-1"]').boundingBox())?.height).toBeGreaterThan(70);
});

test.describe("with samples every 200 ms", () => {
  test.use({ serve: { interval: 0.2 } });
  test("bars and numbers move", async ({ page, enter }) => {
    await enter();
    const bar = page.locator('[data-pi="pi-4"] .bar').first();
    const before = await bar.getAttribute("style");
    await expect.poll(() => bar.getAttribute("style")).not.toBe(before);
  });
  test("with reduced motion nothing glides", async ({ page, enter }) => {
    await page.emulateMedia({ reducedMotion: "reduce" });
    await enter();
    // Bar and number say the same at any moment: none is on its way.
    for (let look = 0; look < 10; look += 1) {
      const [bar, number] = await page
        .locator('[data-pi="pi-4"]')
        .evaluate((card) => [
          parseFloat(card.querySelector<HTMLElement>(".bar")!.style.backgroundSize),
          parseFloat(card.querySelector(".value")!.textContent!),
        ]);
      expect(Math.abs((bar ?? 0) - (number ?? 0))).toBeLessThanOrEqual(0.51);
    }
    expect(await page.evaluate(() => document.getAnimations().length)).toBe(0);
  });
});

test("the filter takes text, tags, status and numbers", async ({ page, enter }) => {
  await enter();
  const filter = page.getByRole("searchbox", { name: /Filter machines/ });
  const shown = page.locator('[data-panel="stats"] [data-pi]');
  await filter.fill("garage");
  await expect(shown).toHaveCount(2);
  await filter.fill("@camera -status:offline");
  await expect(shown).toHaveCount(3);
  await filter.fill("status:offline");
  await expect(shown).toHaveCount(1);
  await filter.fill("cpu>80");
  await expect(shown).toHaveCount(1);
  await filter.fill("speed>80");
  await expect(page.getByText('"speed" is not a number of a machine')).toBeVisible();
  await filter.fill("nobody");
  await expect(page.getByText("No machine passes this filter")).toBeVisible();
  await page.getByRole("button", { name: "show all 25" }).click();
  await expect(shown.first()).toBeVisible();
});

test("the counters filter too", async ({ page, enter }) => {
  await enter();
  await page.getByRole("button", { name: "1 offline" }).click();
  await expect(page.locator('[data-panel="stats"] [data-pi]')).toHaveCount(1);
  await page.getByRole("button", { name: "1 offline" }).click();
  await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
});

test("the table sorts by any column, and the choice is remembered", async ({ page, enter }) => {
  await enter();
  await page.getByRole("button", { name: "table" }).click();
  await page.getByRole("columnheader", { name: "cpu" }).getByRole("button").click();
  await expect(page.getByRole("row").nth(1)).toContainText("Garage Door");
  await expect(page.getByRole("columnheader", { name: "cpu" })).toHaveAttribute("aria-sort", "descending");
  await page.getByRole("columnheader", { name: "label" }).getByRole("button").click();
  await expect(page.getByRole("row").nth(1)).toContainText("Aquarium");
  await page.reload();
  await expect(page.getByRole("row").nth(1)).toContainText("Aquarium");
});

test("the table has as many columns as fit, or the chosen ones, and the label stays while the rest goes by", async ({
  page,
  enter,
}) => {
  await remember(page, { density: "table" });
  await enter();
  const heads = page.getByRole("columnheader");
  const names = () => heads.allInnerTexts().then((texts) => texts.map((text) => text.replace(/[↑↓]/, "").trim()));
  const overflow = () => page.locator(".viewport.rows").evaluate((node) => node.scrollWidth - node.clientWidth);
  const fitting = await names();
  expect(fitting).not.toContain("wifi");
  expect(await overflow()).toBe(0);
  await page.getByRole("button", { name: "Fold Terminal" }).click();
  await expect(heads.filter({ hasText: "wifi" })).toBeVisible();
  for (const name of ["swap", "clock", "procs", "read", "write", "wear", "rx", "tx"])
    expect(await names()).toContain(name);
  expect(await overflow()).toBe(0);
  await expect(page.getByRole("row").filter({ hasText: "Garage Door" })).toContainText("600 MHz");
  await page.getByRole("button", { name: "Unfold Terminal" }).click();
  await expect(heads.filter({ hasText: "wifi" })).toHaveCount(0);

  await page.getByRole("button", { name: "columns" }).click();
  const menu = page.getByRole("group", { name: "Columns" });
  await expect(menu.getByLabel("as many as fit")).toBeChecked();
  for (const name of [/^wifi/, /^clock/, /^read/, /^write/, /^15 m/])
    await menu.getByRole("checkbox", { name }).check();
  await expect(menu.getByLabel("as many as fit")).not.toBeChecked();
  await menu.getByRole("checkbox", { name: /^for/ }).uncheck();
  await page.keyboard.press("Escape");
  await expect(menu).toBeHidden();
  await page.reload();
  await expect(heads.filter({ hasText: "wifi" })).toBeAttached();
  expect(await names()).not.toContain("for");
  expect(await overflow()).toBeGreaterThan(50);
  const label = page.locator('[data-pi="pi-4"]');
  const before = await label.boundingBox();
  await page.locator(".viewport.rows").evaluate((node) => (node.scrollLeft = node.scrollWidth));
  expect(Math.abs(((await label.boundingBox())?.x ?? 0) - (before?.x ?? 0))).toBeLessThan(2);
  await expect(heads.filter({ hasText: "label" })).toBeInViewport();
  await heads.filter({ hasText: "wifi" }).getByRole("button").click();
  await expect(heads.filter({ hasText: "wifi" })).toHaveAttribute("aria-sort", "descending");
  await expect(page.getByRole("row").nth(1)).toContainText("Controller");

  await page.getByRole("button", { name: "columns" }).click();
  await menu.getByLabel("as many as fit").check();
  await expect.poll(overflow).toBe(0);
});

test("a wall's cell is as hot as the chosen number, and the legend says from where on", async ({ page, enter }) => {
  await remember(page, { density: "wall", wallMetric: "temp" });
  await enter();
  await expect(page.locator('[data-pi="pi-4"]')).toHaveClass(/heat-5/);
  await expect(page.locator('[data-pi="pi-15"]')).toHaveClass(/heat-0/);
  await expect(page.locator('[data-pi="pi-4"]')).toHaveCSS("background-color", "rgb(255, 107, 97)");
  await page.getByLabel("Colour by").selectOption("ram");
  await expect(page.locator('[data-pi="pi-15"]')).toHaveClass(/heat-0/);
  await expect(page.locator('[data-pi="pi-2"]')).toHaveClass(/heat-4/);
  // The legend has the least value of each step.
  await expect(page.locator(".legend i")).toHaveText(["<25", "25", "40", "55", "75", "85"]);
  await expect(page.locator(".legend i").last()).toHaveAttribute("title", "85 % or more");
});

test.describe("with more machines than a message holds", () => {
  test.use({ serve: { machines: 150 } });
  test("a snapshot whose link is lost in the middle leaves nothing behind", async ({ page, enter, mock }) => {
    await enter();
    await expect(page.getByText("150 machines")).toBeVisible();
    const gone = [...mock.controller.machines.keys()][50] as string;
    mock.breakOff(() => mock.controller.machines.delete(gone));
    const before = mock.snapshots;
    mock.cut();
    await expect.poll(() => mock.snapshots).toBe(before + 2);
    await expect(page.getByText("149 machines")).toBeVisible();
  });
});

test.describe("with a thousand machines", () => {
  test.use({ serve: { machines: 1000, interval: 1 } });
  test("only what is on the screen exists, and scrolling shows the rest", async ({ page, enter }) => {
    await remember(page, { folded: ["terminal"] });
    await enter();
    const cells = page.locator('[data-panel="stats"] [data-pi]');
    expect(await cells.count()).toBeLessThan(60);
    await page.getByRole("button", { name: "wall" }).click();
    await expect(page.locator('[data-pi="f-100"]')).toBeVisible();
    await page.locator(".viewport.wall").evaluate((node) => (node.scrollTop = node.scrollHeight));
    await expect(page.locator('[data-pi="zero-1"]')).toBeVisible();
    await expect(page.getByText("1,000 machines")).toBeVisible();
  });
  test("the wall is coloured by a chosen metric", async ({ page, enter }) => {
    await remember(page, { density: "wall" });
    await enter();
    await page.getByLabel("Colour by").selectOption("temp");
    await page.locator('[data-pi="f-100"]').hover();
    await expect(page.locator('[data-pi="f-100"]')).toHaveAttribute("title", /°C/);
    await page.getByRole("searchbox", { name: /Filter machines/ }).fill("status:offline");
    await expect(page.locator('[data-panel="stats"] [data-pi]').first()).toContainText("off");
  });
});

test("arrows go from machine to machine and Enter opens one", async ({ page, enter, mock }) => {
  await enter();
  await page.keyboard.press("ArrowDown");
  await expect(page.locator('[data-pi="controller"]')).toBeFocused();
  await page.keyboard.press("ArrowRight");
  await expect(page.locator('[data-pi="pi-1"]')).toBeFocused();
  await page.keyboard.press("ArrowDown");
  await expect(page.locator('[data-pi="pi-4"]')).toBeFocused();
  await page.keyboard.press("End");
  await expect(page.locator('[data-pi="zero-1"]')).toBeFocused();
  await page.keyboard.press("Home");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(`${mock.url}/#/pi/controller`);
});

test("going back leads to where one was: the machine, and what runs and logs were filtered by", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  await page.getByLabel("Search the logs").fill("garage");
  await page.locator('[data-pi="controller"]').focus();
  await page.keyboard.press("End");
  await expect(page.locator('[data-pi="zero-1"]')).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { name: "Lab Zero" })).toBeFocused();
  await page.keyboard.press("Escape");
  await expect(page.locator('[data-pi="zero-1"]')).toBeFocused();
  await expect(page.locator('[data-pi="zero-1"]')).toBeInViewport();
  await expect(page.getByLabel("Search the logs")).toHaveValue("garage");
  await page.goto(`${mock.url}/#/runs`);
  await expect(page.getByRole("heading", { name: "Runs" })).toBeFocused();
  await page.getByLabel("State").selectOption("failed");
  await page.getByRole("list", { name: "Runs" }).getByRole("link").first().click();
  await expect(page.getByRole("heading", { name: "apt-upgrade" })).toBeFocused();
  await page.keyboard.press("Escape");
  await expect(page.getByLabel("State")).toHaveValue("failed");
  await expect(page.getByRole("list", { name: "Runs" }).getByRole("listitem")).toHaveCount(1);
});

test.describe("with one machine", () => {
  test.use({ serve: { machines: 1 } });
  test("the page teaches how to add the next", async ({ page, enter }) => {
    await enter();
    await expect(page.getByText("Add the first Pi of the fleet")).toBeVisible();
    await page.getByRole("button", { name: "Add a Pi" }).last().click();
    await expect(page.getByRole("dialog").locator("code")).toContainText("--controller-url");
  });
});

test("logs show what happened by kind and text, and stand still while they are read", async ({ page, enter, mock }) => {
  await enter();
  const events = page.getByRole("list", { name: "Events" });
  await expect(events).toContainText("under-voltage detected (0x50005)");
  const logs = page.locator('[data-panel="logs"]');
  await logs.getByRole("button", { name: "mqtt" }).click();
  await expect(events).toContainText("refused: bad credentials");
  await expect(events).not.toContainText("under-voltage");
  await logs.getByRole("button", { name: "all" }).click();
  await page.getByLabel("Search the logs").fill("renamed");
  await expect(events.getByRole("listitem")).toHaveCount(1);
  await page.getByLabel("Search the logs").fill("");
  await page.getByLabel("Machine", { exact: true }).selectOption("pi-12");
  await expect(events.getByRole("listitem")).toHaveCount(1);
  await page.getByLabel("Machine", { exact: true }).selectOption("");
  for (let number = 0; number < 60; number += 1) mock.controller.event("system", "info", `line ${number}`);
  await expect(events).toContainText("line 59");
  await page.locator(".viewport.logs").evaluate((node) => (node.scrollTop = 300));
  await expect(logs.getByText("paused")).toBeVisible();
  mock.controller.event("system", "info", "while reading");
  await expect(page.getByRole("button", { name: "1 new" })).toBeVisible();
  await expect(events).not.toContainText("while reading");
  await page.getByRole("button", { name: "1 new" }).click();
  await expect(events).toContainText("while reading");
});

test("logs are searched to their end, have no hole after a lost link, and say on which day it was", async ({
  page,
  enter,
  mock,
}) => {
  for (let number = 0; number < 300; number += 1) mock.controller.event("system", "info", `earlier ${number}`);
  mock.controller.snapshotEvents = 20;
  mock.controller.longestPage = 50;
  await enter();
  const events = page.getByRole("list", { name: "Events" });
  await page.getByLabel("Search the logs").fill("under-voltage");
  await expect(events.getByRole("listitem")).toHaveCount(1);
  await page.getByLabel("Search the logs").fill("");
  mock.refuse(true);
  await expect(page.getByText("link down")).toBeVisible();
  for (let number = 0; number < 60; number += 1) mock.controller.event("system", "info", `meanwhile ${number}`);
  mock.refuse(false);
  await expect(page.getByText("link down")).toHaveCount(0, { timeout: 15_000 });
  await page.getByLabel("Search the logs").fill("meanwhile 3");
  // 3 and 30 to 39: the first of them are older than what the new link began with.
  await expect(events.getByRole("listitem")).toHaveCount(11);
  await page.getByLabel("Search the logs").fill("");
  mock.controller.event("system", "info", "long ago", { time: "2026-01-05T12:00:00.000Z" });
  await expect(events).toContainText(/Mon, Jan 5, 2026\s*\d\d:\d\d:\d\d\s*system/);
});

test("panels resize by keyboard, fold, and the layout is remembered", async ({ page, enter }) => {
  await enter();
  const width = () => page.locator('[data-panel="terminal"]').evaluate((node) => node.getBoundingClientRect().width);
  const before = await width();
  await page.getByRole("separator", { name: "Width of the terminal" }).focus();
  for (let press = 0; press < 5; press += 1) await page.keyboard.press("ArrowLeft");
  const after = await width();
  expect(after).toBeLessThan(before - 80);
  await page.getByRole("button", { name: "Fold Logs" }).click();
  await expect(page.getByRole("list", { name: "Events" })).toBeHidden();
  await page.reload();
  await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
  await expect(page.getByRole("button", { name: "Unfold Logs" })).toBeVisible();
  expect(Math.abs((await width()) - after)).toBeLessThan(3);
});

test("panels resize by the pointer", async ({ page, enter }) => {
  await enter();
  const handle = await page.getByRole("separator", { name: "Height of the stats" }).boundingBox();
  const height = () => page.locator('[data-panel="logs"]').evaluate((node) => node.getBoundingClientRect().height);
  const before = await height();
  await page.mouse.move((handle?.x ?? 0) + 50, (handle?.y ?? 0) + 4);
  await page.mouse.down();
  await page.mouse.move((handle?.x ?? 0) + 50, (handle?.y ?? 0) - 146, { steps: 4 });
  await page.mouse.up();
  expect(await height()).toBeGreaterThan(before + 100);
});

test("the wall goes back in time by its slider, and comes back to now", async ({ page, enter, mock }) => {
  await remember(page, { density: "wall" });
  const asked: string[] = [];
  page.on("request", (request) => request.url().includes("/api/history?") && asked.push(request.url()));
  await enter();
  const [cell, offline] = ["pi-1", "pi-12"].map((id) => page.locator(`[data-panel="stats"] [data-pi="${id}"] b`));
  await expect(offline!).toHaveText("off");
  const slider = page.getByRole("slider", { name: "Time shown on the wall" });
  await expect(slider).toHaveAttribute("aria-valuetext", "now");
  await slider.focus();
  await page.keyboard.press("PageDown");
  await expect(slider).toHaveAttribute("aria-valuetext", /\w{3} \d+, \d\d:\d\d/);
  // It was there then.
  await expect(offline!).toHaveText(/^\d+$/);
  const before = await cell!.textContent();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowLeft");
  await expect(cell!).toHaveText(before ?? "");
  expect(asked.length).toBe(1);
  expect(new URL(asked[0] ?? mock.url).searchParams.get("column")).toBe("cpu_percent");
  await page.getByLabel("Colour by").selectOption("temp");
  await expect.poll(() => asked.length).toBe(2);
  await page.getByRole("button", { name: "now", exact: true }).click();
  await expect(offline!).toHaveText("off");
  await expect(slider).toHaveValue("96");
});
