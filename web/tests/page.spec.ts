import type { Page } from "@playwright/test";
import { expect, remember, terminal, test } from "./fixture";

test("the palette finds commands, machines and pages", async ({ page, enter, mock }) => {
  await enter();
  await page.keyboard.press("Control+k");
  await page.getByLabel("Command, machine or page").fill("lab zero");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(`${mock.url}/#/pi/zero-1`);
  await page.keyboard.press("Control+k");
  await page.getByLabel("Command, machine or page").fill("theme amb");
  await page.keyboard.press("Enter");
  await expect(page.locator("html")).toHaveAttribute("data-theme", "amber");
  await page.keyboard.press("Control+k");
  await expect(page.getByLabel("Command, machine or page")).toBeFocused();
  await page.keyboard.press("Escape");
  await expect(page.getByLabel("Command, machine or page")).toHaveCount(0);
});

test("what is opened in the moment of going elsewhere stays open", async ({ page, enter, mock }) => {
  await enter();
  await page.keyboard.press("Control+k");
  await page.getByLabel("Command, machine or page").fill("lab zero");
  await page.getByLabel("Command, machine or page").evaluate((field) => {
    const press = (key: string, ctrlKey = false): void =>
      void field.dispatchEvent(new KeyboardEvent("keydown", { key, ctrlKey, bubbles: true }));
    press("Enter");
    press("k", true);
  });
  await expect(page).toHaveURL(`${mock.url}/#/pi/zero-1`);
  await expect(page.getByRole("heading", { name: "Lab Zero" })).toBeVisible();
  await page.getByLabel("Command, machine or page").fill("theme amb");
});

test("the palette opens from inside the terminal", async ({ page, enter }) => {
  await enter();
  await terminal(page).type("task");
  await page.keyboard.press("Control+k");
  await expect(page.getByLabel("Command, machine or page")).toBeFocused();
});

test("single keys go to the terminal, the filter, a run and the help", async ({ page, enter }) => {
  await enter();
  await terminal(page).ready();
  await page.keyboard.press("/");
  await expect(page.getByRole("searchbox", { name: /Filter machines/ })).toBeFocused();
  await page.keyboard.press("Escape");
  await page.keyboard.press("`");
  await expect(page.locator(".terminal-host textarea")).toBeFocused();
  await page.keyboard.press("r");
  await terminal(page).shows("pistat> r");
  await page.keyboard.press("Escape");
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Help" })).toBeVisible();
  await page.keyboard.press("Escape");
  await page.keyboard.press("r");
  await expect(page.getByRole("dialog", { name: "Run a task" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog")).toHaveCount(0);
});

test("the keys of the terminal and the filter unfold their panels, on any keyboard", async ({ page, mock }) => {
  await remember(page, { folded: ["terminal", "stats"] });
  await page.goto(`${mock.url}/#login=mock-code`);
  await expect(page.getByRole("button", { name: "Unfold Stats" })).toBeVisible();
  await page.keyboard.press("/");
  await expect(page.getByRole("searchbox", { name: /Filter machines/ })).toBeFocused();
  await page.keyboard.press("Escape");
  await page.evaluate(() =>
    document.body.dispatchEvent(
      new KeyboardEvent("keydown", { key: "Dead", code: "Backquote", bubbles: true, cancelable: true }),
    ),
  );
  await expect(page.locator(".terminal-host textarea")).toBeFocused();
  await terminal(page).run("task list");
  await terminal(page).shows("8 tasks");
});

test("Tab reaches every part and Shift-Tab leaves the terminal", async ({ page, enter }) => {
  await enter();
  await terminal(page).ready();
  const seen = new Set<string>();
  for (let press = 0; press < 45; press += 1) {
    await page.keyboard.press("Tab");
    seen.add(
      await page.evaluate(
        () =>
          document.activeElement
            ?.closest("header.top, footer, [data-panel], [role=separator]")
            ?.getAttribute("data-panel") ??
          document.activeElement?.closest("header.top, footer, [role=separator]")?.nodeName ??
          "none",
      ),
    );
    // Tab completes inside the terminal, so a person goes out of it with Escape.
    if (await page.evaluate(() => document.activeElement?.closest(".terminal-host") !== null)) {
      await page.keyboard.press("Shift+Tab");
      expect(await page.evaluate(() => document.activeElement?.closest(".terminal-host") === null)).toBe(true);
      await page.getByRole("separator", { name: "Width of the terminal" }).focus();
    }
  }
  for (const part of ["HEADER", "terminal", "DIV", "stats", "logs", "FOOTER"]) expect([...seen]).toContain(part);
});

/** What has the focus and shows it by nothing; and a name by which a round is known to be over. */
const focused = (page: Page): Promise<{ name: string; shown: boolean }> =>
  page.evaluate(() => {
    const node = document.activeElement ?? document.body;
    const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(node);
    const outlined =
      outlineStyle !== "none" && parseFloat(outlineWidth) >= 1 && !/rgba\(.*, 0\)|transparent/.test(outlineColor);
    // The terminal shows it by its cursor, which is filled only then.
    const cursor = node.closest(".terminal-host")?.querySelector(".xterm-cursor-block") != null;
    const all = [...document.querySelectorAll("*")];
    return {
      name: `${all.indexOf(node)} ${node.tagName.toLowerCase()} ${node.getAttribute("aria-label") ?? node.textContent?.trim().slice(0, 30) ?? ""}`,
      shown: outlined || cursor,
    };
  });

const STOPS: Array<{ name: string; hash: string; least: number; stage?: (page: Page) => Promise<void> }> = [
  { name: "the dashboard", hash: "#/", least: 20 },
  { name: "the table", hash: "#/", least: 20, stage: (page) => page.getByRole("button", { name: "table" }).click() },
  { name: "the wall", hash: "#/", least: 20, stage: (page) => page.getByRole("button", { name: "wall" }).click() },
  {
    name: "a machine",
    hash: "#/pi/pi-4",
    least: 20,
    stage: (page) => page.getByRole("button", { name: "Service log" }).click(),
  },
  {
    name: "a machine being edited",
    hash: "#/pi/pi-12",
    least: 20,
    stage: (page) => page.getByRole("button", { name: "edit" }).click(),
  },
  { name: "runs", hash: "#/runs", least: 10 },
  { name: "settings", hash: "#/settings", least: 15 },
  { name: "the palette", hash: "#/runs", least: 1, stage: (page) => page.keyboard.press("Control+k") },
  { name: "help", hash: "#/settings", least: 1, stage: (page) => page.keyboard.press("?") },
  {
    name: "adding a Pi",
    hash: "#/",
    least: 4,
    stage: (page) => page.getByRole("button", { name: "Add a Pi" }).click(),
  },
  {
    name: "running a task",
    hash: "#/runs",
    least: 4,
    stage: (page) => page.getByRole("button", { name: "run…" }).click(),
  },
];

for (const { name, hash, least, stage } of STOPS) {
  test(`wherever Tab stops in ${name} is seen`, async ({ page, enter }) => {
    await page.emulateMedia({ reducedMotion: "reduce" });
    await enter();
    if (hash !== "#/") await page.goto(`${page.url().split("#")[0]}${hash}`);
    else await terminal(page).ready();
    await expect(page.locator("h1, h2").first()).toBeAttached();
    await stage?.(page);
    const seen = new Map<string, boolean>();
    for (let press = 0; press < 150; press += 1) {
      await page.keyboard.press("Tab");
      const { name: stop, shown } = await focused(page);
      if (await page.evaluate(() => document.activeElement?.closest(".terminal-host") !== null)) {
        seen.set("terminal", shown);
        // Tab completes in there.
        await page.getByRole("separator", { name: "Width of the terminal" }).focus();
        continue;
      }
      // Between the last stop and the first the browser's own parts have it.
      if (
        await page.evaluate(
          () => document.activeElement === document.body || document.activeElement?.tagName === "DIALOG",
        )
      )
        continue;
      if (seen.has(stop)) break;
      seen.set(stop, shown);
    }
    expect([...seen].filter(([, shown]) => !shown).map(([stop]) => stop)).toEqual([]);
    expect(seen.size).toBeGreaterThanOrEqual(least);
  });
}

test("logs are chosen by kind", async ({ page, enter, mock }) => {
  await enter();
  mock.controller.event("access", "info", "signed in by a link", { account: "admin" });
  mock.controller.event("system", "info", "the controller was started");
  mock.controller.request({ task: "uptime", target: "pi-1", args: {}, confirmed: false }, "admin");
  const logs = page.locator('[data-panel="logs"]');
  const events = page.getByRole("list", { name: "Events" });
  await expect(events).toContainText("uptime finished");
  const shown = { tasks: ["task"], alerts: ["alert"], mqtt: ["mqtt"], audit: ["access", "label", "system"] };
  for (const [name, kinds] of Object.entries(shown)) {
    const button = logs.getByRole("button", { name, exact: true });
    await button.click();
    await expect(button).toHaveAttribute("aria-pressed", "true");
    await expect
      .poll(async () => [...new Set(await events.locator(".kind").allTextContents())].sort(), name)
      .toEqual(kinds);
  }
  await logs.getByRole("button", { name: "all", exact: true }).click();
  await expect(events).toContainText("uptime finished");
});

test("the height of the stats and a folded terminal are remembered", async ({ page, enter }) => {
  await enter();
  const separator = page.getByRole("separator", { name: "Height of the stats" });
  const height = async (): Promise<number> =>
    Math.round((await page.locator('[data-panel="stats"]').boundingBox())?.height ?? 0);
  const before = await height();
  await separator.focus();
  for (let press = 0; press < 6; press += 1) await page.keyboard.press("ArrowUp");
  await expect.poll(height).toBeLessThan(before - 50);
  await page.getByRole("button", { name: "Fold Terminal" }).click();
  await expect(page.getByRole("button", { name: "Unfold Terminal" })).toBeVisible();
  const [chosen, share] = [await height(), await separator.getAttribute("aria-valuenow")];
  await page.reload();
  await expect(page.getByRole("button", { name: "Unfold Terminal" })).toBeVisible();
  await expect(separator).toHaveAttribute("aria-valuenow", share ?? "");
  await expect.poll(height).toBe(chosen);
});

test("a theme is chosen by the terminal, remembered, and shown in every part", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("theme paper");
  await shell.shows("✔ theme paper");
  await expect(page.locator("html")).toHaveAttribute("data-theme", "paper");
  await page.reload();
  await expect(page.locator("html")).toHaveAttribute("data-theme", "paper");
  await shell.run("theme sepia");
  await shell.shows('There is no theme "sepia": take phosphor, amber, paper.');
});

test("the first paint has the remembered theme already, before any module has come", async ({ page, mock }) => {
  await page.route("**/assets/app-*.js", () => undefined);
  await page.route("**/assets/index-*.js", () => undefined);
  await remember(page, { theme: "paper", scanLines: false });
  await page.goto(mock.url, { waitUntil: "commit" });
  await expect(page.locator(".boot")).toBeVisible();
  await expect(page.locator("html")).toHaveAttribute("data-theme", "paper");
  expect(await page.evaluate(() => getComputedStyle(document.body).backgroundColor)).toBe("rgb(241, 237, 225)");
  await page.unrouteAll();
});

test("the first page does not wait for the terminal, the charts or another page", async ({ page, enter }) => {
  const scripts: string[] = [];
  page.on("request", (request) => scripts.push(request.url()));
  await enter();
  const loaded = await page.evaluate(() =>
    [...document.querySelectorAll('link[rel="modulepreload"], script[type="module"]')].map(
      (node) => node.getAttribute("href") ?? node.getAttribute("src") ?? "",
    ),
  );
  expect(loaded.length).toBeGreaterThan(1);
  for (const name of ["MachinePage", "Settings", "RunPage"])
    expect(scripts.filter((url) => url.includes(`/${name}-`))).toEqual([]);
  const html = await (await page.request.get(page.url())).text();
  expect(html).not.toContain("TerminalPanel");
});

test("what is needed later is fetched ahead while nothing else is done", async ({ page, enter, mock }) => {
  await enter();
  await page.waitForResponse((response) => response.url().includes("/Settings-") && response.ok());
  mock.refuse(true);
  await expect(page.getByText("link down")).toBeVisible();
  await page.getByRole("link", { name: "settings" }).click();
  await expect(page.getByRole("heading", { name: "This browser" })).toBeVisible();
});

test("a view that cannot be loaded says so and offers to reload", async ({ page, enter, mock }) => {
  await page.route("**/assets/Settings-*.js", (route) => route.abort());
  await page.route("**/assets/TerminalPanel-*.js", (route) => route.abort());
  await enter();
  const alert = page.getByRole("alert").filter({ hasText: "This part of the page could not be loaded" });
  await expect(alert).toBeVisible();
  await page.keyboard.press("`");
  await page.goto(`${mock.url}/#/settings`);
  await expect(alert).toBeVisible();
  await page.unrouteAll();
  await alert.getByRole("button", { name: "reload the page" }).click();
  await expect(page.getByRole("heading", { name: "This browser" })).toBeVisible();
});

test("a controller that was replaced by another version asks for a reload", async ({ page, enter, mock }) => {
  await enter();
  const before = mock.snapshots;
  mock.cut();
  await expect.poll(() => mock.snapshots).toBeGreaterThan(before);
  await expect(page.getByText("link down")).toHaveCount(0);
  await expect(page.getByText("Reload the page")).toHaveCount(0);
  mock.controller.version = "0.2.0";
  mock.cut();
  await page.getByRole("button", { name: "The controller is version 0.2.0 now. Reload the page." }).click();
  await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
  await expect(page.getByText("Reload the page")).toHaveCount(0);
});

test("scan lines lie below the letters, and go away when asked", async ({ page, enter }) => {
  await enter();
  const image = () => page.locator('[data-panel="stats"]').evaluate((node) => getComputedStyle(node).backgroundImage);
  expect(await image()).toContain("repeating-linear-gradient");
  const above = await page.evaluate(
    () =>
      [...document.querySelectorAll("*")].filter((node) =>
        ["::before", "::after"].some((part) => getComputedStyle(node, part).backgroundImage.includes("repeating")),
      ).length,
  );
  expect(above).toBe(0);
  await page.getByRole("button", { name: "scan lines" }).click();
  expect(await image()).toBe("none");
});

for (const width of [800, 1024, 1280]) {
  test.describe(`in a window of ${width} pixels`, () => {
    test.use({ viewport: { width, height: 800 } });
    test("no control is cut off, with the wall, the terminal and without a link", async ({ page, enter, mock }) => {
      await remember(page, { density: "wall" });
      await enter();
      await terminal(page).ready();
      /** What does not lie within each of its frames, and within the window. */
      const cut = () =>
        page
          .locator(
            "header.top :is(a, button), [data-panel] header :is(button, input, select), footer button, [data-panel] .kinds button",
          )
          .evaluateAll((nodes) =>
            nodes.flatMap((node) => {
              const own = node.getBoundingClientRect();
              if (own.width === 0) return [];
              const frames = [
                node.closest("[data-panel]"),
                node.closest("header, footer"),
                document.querySelector(".page"),
              ].filter((frame): frame is Element => frame !== null);
              const outside = frames.some((frame) => {
                const { left, right, top, bottom } = frame.getBoundingClientRect();
                return own.left < left - 1 || own.right > right + 1 || own.top < top - 1 || own.bottom > bottom + 1;
              });
              return outside
                ? [
                    `${node.getAttribute("aria-label") ?? node.textContent} at ${Math.round(own.left)}…${Math.round(own.right)}`,
                  ]
                : [];
            }),
          );
      expect(await cut()).toEqual([]);
      await expect(page.getByLabel("Machine", { exact: true })).toBeVisible();
      await expect(page.getByLabel("Colour by")).toBeVisible();
      mock.refuse(true);
      await expect(page.getByText(/link down · \d+s old · next try/)).toBeVisible();
      expect(await cut()).toEqual([]);
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    });
  });
}

test("title and icon tell the fleet's state", async ({ page, enter, mock }) => {
  await enter();
  await expect(page).toHaveTitle("1 offline · 2 warning · 22 ok — Pi Stat");
  const icon = page.locator('link[rel="icon"]');
  await expect(icon).toHaveAttribute("href", "./icon-offline.svg");
  mock.controller.setOffline("pi-12", false);
  await expect(icon).toHaveAttribute("href", "./icon-warning.svg");
  mock.refuse(true);
  await expect(icon).toHaveAttribute("href", "./icon-link.svg");
});

test("a lost link is shown with its age, what was known stays, and the page resumes by itself", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  const card = page.locator('[data-pi="pi-1"]');
  await card.evaluate((node) => (node.dataset.same = "yes"));
  mock.refuse(true);
  await expect(page.getByText(/link down · \d+s old · next try in/)).toBeVisible();
  await expect(card).toContainText("Rack Pi 1");
  await expect(page.locator(".page")).toHaveClass(/old/);
  mock.controller.setOffline("pi-2", true);
  mock.refuse(false);
  await expect(page.getByText("link down")).toHaveCount(0, { timeout: 15_000 });
  await expect(page.locator('[data-pi="pi-2"]')).toContainText("offline");
  // The same element: nothing was made anew, so nothing flickered.
  expect(await card.evaluate((node) => node.dataset.same)).toBe("yes");
});

/** Hides or shows the page as another tab would; a hidden page has no frames. */
async function hide(page: Page, hidden: boolean): Promise<void> {
  await page.evaluate((value) => {
    const held = window as unknown as { real?: typeof requestAnimationFrame };
    held.real ??= window.requestAnimationFrame;
    window.requestAnimationFrame = value ? () => 1 : held.real;
    Object.defineProperty(document, "hidden", { configurable: true, get: () => value });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
}

test.describe("with samples twice a second", () => {
  test.use({ serve: { interval: 0.5 } });
  test("title and icon go on in a hidden tab, which is sent no samples", async ({ page, enter, mock }) => {
    const frames: string[] = [];
    page.on("websocket", (socket) => socket.on("framereceived", (frame) => frames.push(String(frame.payload))));
    await enter();
    await hide(page, true);
    await expect.poll(() => [...mock.controller.subscribers].every((subscriber) => subscriber.hidden)).toBe(true);
    mock.controller.setOffline("pi-1", true);
    await expect(page).toHaveTitle(/^2 offline · /);
    // What was on its way has come before that.
    frames.length = 0;
    mock.controller.setOffline("pi-1", false);
    mock.controller.setOffline("pi-12", false);
    await expect(page.locator('link[rel="icon"]')).toHaveAttribute("href", "./icon-warning.svg");
    expect(frames.filter((frame) => frame.includes('"kind":"stats"'))).toHaveLength(0);
    const before = mock.snapshots;
    await hide(page, false);
    await expect.poll(() => mock.snapshots).toBe(before + 1);
    await expect.poll(() => frames.some((frame) => frame.includes('"kind":"stats"'))).toBe(true);
  });
});

test("a hidden page keeps names of what changed, not messages, and is current when shown again", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
    const real = window.requestAnimationFrame;
    Object.assign(window, { waiting: [] as FrameRequestCallback[], real });
    window.requestAnimationFrame = (callback) =>
      (window as unknown as { waiting: FrameRequestCallback[] }).waiting.push(callback);
  });
  mock.controller.setOffline("pi-1", true);
  for (let number = 0; number < 50; number += 1) mock.controller.event("system", "info", `hidden ${number}`);
  await page.waitForTimeout(400);
  expect(await page.evaluate(() => (window as unknown as { waiting: unknown[] }).waiting.length)).toBeLessThan(4);
  await page.evaluate(() => {
    const held = window as unknown as { waiting: FrameRequestCallback[]; real: typeof requestAnimationFrame };
    window.requestAnimationFrame = held.real;
    Object.defineProperty(document, "hidden", { configurable: true, get: () => false });
    for (const callback of held.waiting) callback(performance.now());
  });
  await expect(page.locator('[data-pi="pi-1"]')).toContainText("offline");
  await expect(page.getByRole("list", { name: "Events" })).toContainText("hidden 49");
});

test("it can be installed: manifest and icons are there", async ({ page, enter, mock }) => {
  await enter();
  const manifest = await (await page.request.get(`${mock.url}/manifest.webmanifest`)).json();
  expect(manifest).toMatchObject({ name: "Pi Stat", display: "standalone" });
  for (const icon of manifest.icons as Array<{ src: string }>)
    expect((await page.request.get(new URL(icon.src, mock.url).href)).status()).toBe(200);
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 360, height: 740 }, hasTouch: true });
  test("there is one panel at a time, and nothing sticks out at 360 pixels", async ({ page, enter, mock }) => {
    await remember(page, { folded: ["stats", "terminal", "logs"] });
    await enter();
    const fits = async () =>
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
    await fits();
    await page.getByRole("button", { name: "terminal" }).click();
    await terminal(page).run("task list");
    await terminal(page).shows("8 tasks");
    await fits();
    await page.getByRole("button", { name: "logs" }).click();
    await expect(page.getByRole("list", { name: "Events" })).toBeVisible();
    await fits();
    for (const hash of ["#/pi/pi-4", "#/runs", "#/settings"]) {
      await page.goto(`${mock.url}/${hash}`);
      await expect(page.locator("h1").first()).toBeAttached();
      await fits();
    }
    await page.getByRole("button", { name: "Commands and pages" }).click();
    await expect(page.getByLabel("Command, machine or page")).toBeVisible();
    await fits();
  });
  test("whatever is touched is on the screen and as large as a finger, in every view", async ({
    page,
    enter,
    mock,
  }) => {
    await enter();
    const { group, runs } = mock.controller.request(
      { task: "count", target: "@camera", args: { lines: 100 }, confirmed: false },
      "admin",
    );
    const small = () =>
      page
        .locator(".button:visible, .tool:visible, .tabs > *:visible, .counts button:visible, .menu:visible")
        .evaluateAll((nodes) =>
          nodes.flatMap((node) => {
            const { left, right, height } = node.getBoundingClientRect();
            return left >= 0 && right <= innerWidth && height >= 38
              ? []
              : [`${node.textContent?.trim()} ${Math.round(left)}…${Math.round(right)} ${Math.round(height)} high`];
          }),
        );
    for (const tab of ["terminal", "stats", "logs"]) {
      await page.getByLabel("Panels").getByRole("button", { name: tab }).click();
      await page.waitForTimeout(200);
      expect(await small(), tab).toEqual([]);
    }
    await page.getByLabel("Panels").getByRole("link", { name: "runs" }).click();
    await expect(page.getByRole("heading", { name: "Runs" })).toBeVisible();
    for (const hash of ["#/runs", `#/runs/${group}`, `#/runs/${runs[0]}`, "#/pi/pi-4", "#/settings"]) {
      await page.goto(`${mock.url}/${hash}`);
      await expect(page.locator("h1").first()).toBeAttached();
      await page.waitForTimeout(200);
      expect(await small(), hash).toEqual([]);
    }
  });
  test("a long event is read whole, since a phone has no hover", async ({ page, enter, mock }) => {
    await enter();
    await page.getByLabel("Panels").getByRole("button", { name: "logs" }).click();
    mock.controller.event("system", "info", "offline — last will received, no telemetry for 15 s");
    const text = page.getByRole("list", { name: "Events" }).getByText("no telemetry for 15 s").first();
    await expect(text).toBeVisible();
    const [wide, room] = await text.evaluate((node) =>
      [node.getBoundingClientRect(), node.closest(".text")!.getBoundingClientRect()].map(({ right, bottom }) => [
        right,
        bottom,
      ]),
    );
    expect(wide?.[0]).toBeLessThanOrEqual((room?.[0] ?? 0) + 1);
    expect(wide?.[1]).toBeLessThanOrEqual((room?.[1] ?? 0) + 1);
  });
  test("a lost link says how old everything is", async ({ page, enter, mock }) => {
    await enter();
    mock.refuse(true);
    await expect(page.getByText(/link down · \d+s old/)).toBeVisible();
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
  });
  test("the terminal has the keys that a phone lacks, and a group's bar keeps to one line", async ({ page, enter }) => {
    await enter();
    await page.getByLabel("Panels").getByRole("button", { name: "terminal" }).click();
    const shell = terminal(page);
    await shell.type("task run apt-up");
    await page.getByRole("button", { name: "complete" }).click();
    await expect(shell.rows).toContainText("task run apt-upgrade");
    await page.keyboard.type("@all");
    await page.keyboard.press("Enter");
    await shell.shows("[y/N]");
    await page.keyboard.type("y\n");
    await shell.shows(/1[67]\/25/);
    expect((await shell.rows.innerText()).match(/\d+\/25/g)).toHaveLength(1);
    await page.getByRole("button", { name: "Control C" }).click();
    await shell.shows("Cancel it too? [y/N]");
  });
});

test.describe("on a wall of 4K", () => {
  test.use({ viewport: { width: 3840, height: 2160 } });
  test("letters grow with the screen", async ({ page, enter }) => {
    await enter();
    expect(await page.evaluate(() => parseFloat(getComputedStyle(document.documentElement).fontSize))).toBeGreaterThan(
      22,
    );
    await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
  });
  test("nothing sticks out or is cut off in any view", async ({ page, enter, mock }) => {
    await enter();
    const { group, runs } = mock.controller.request(
      { task: "uptime", target: "@all", args: {}, confirmed: false },
      "admin",
    );
    /** Whatever reaches beyond the window, or is wider than its title's line. */
    const out = () =>
      page.evaluate(() => [
        ...(document.documentElement.scrollWidth > innerWidth
          ? [`the page is ${document.documentElement.scrollWidth} wide`]
          : []),
        ...[...document.querySelectorAll(".page :is(button, a, input, select, h1, h2, figure, dd)")].flatMap((node) => {
          const { left, right, width } = node.getBoundingClientRect();
          return width > 0 && (left < -1 || right > innerWidth + 1) && !node.closest(".sr-only")
            ? [`${node.textContent?.trim()} ${Math.round(left)}…${Math.round(right)}`]
            : [];
        }),
      ]);
    for (const density of ["table", "wall", "cards"]) {
      await page.getByRole("button", { name: density }).click();
      await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
      expect(await out(), density).toEqual([]);
    }
    for (const hash of ["#/runs", `#/runs/${group}`, `#/runs/${runs[0]}`, "#/pi/pi-4", "#/settings"]) {
      await page.goto(`${mock.url}/${hash}`);
      await expect(page.locator("h1").first()).toBeAttached();
      await page.waitForTimeout(200);
      expect(await out(), hash).toEqual([]);
    }
  });
});
