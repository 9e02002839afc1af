import type { CannotRun } from "../src/protocol/types";
import { expect, test } from "./fixture";

test("a machine's page has charts, facts, and the line that listens to it", async ({ page, enter }) => {
  await enter("#/pi/pi-4");
  await expect(page.getByRole("heading", { name: "Garage Door" })).toBeVisible();
  await expect(page.locator(".uplot canvas")).toHaveCount(12);
  for (const text of [
    "Raspberry Pi 4 Model B Rev 1.4",
    "6.6.31+rpt-rpi-v8",
    "14 pending",
    "since boot: under-voltage, throttled",
  ])
    await expect(page.getByText(text).first()).toBeVisible();
  await expect(page.getByText("mosquitto_sub -h 10.0.0.2 -p 1883 -u admin -P '…' -v -t 'pistat/pi-4/#'")).toBeVisible();
  await page.getByRole("button", { name: "24 h" }).click();
  await expect(page.getByRole("button", { name: "24 h" })).toHaveAttribute("aria-pressed", "true");
  await expect(page.locator(".uplot canvas")).toHaveCount(12);
});

test("charts are fetched anew after a lost link, and a sample's age is shown while there is none", async ({
  page,
  enter,
  mock,
}) => {
  let asked = 0;
  page.on("request", (request) => request.url().includes("/history?") && (asked += 1));
  await enter("#/pi/pi-4");
  await expect(page.locator(".uplot canvas")).toHaveCount(12);
  expect(asked).toBe(1);
  mock.refuse(true);
  await expect(page.getByText(/^not live: from \d+s ago$/)).toBeVisible();
  mock.refuse(false);
  await expect(page.getByText(/^not live/)).toHaveCount(0, { timeout: 15_000 });
  await expect.poll(() => asked).toBe(2);
  mock.controller.setOffline("pi-4", true);
  mock.controller.setOffline("pi-4", false);
  await expect(page.locator(".uplot canvas")).toHaveCount(12);
});

test("a machine whose page is open samples every second, until the page is left", async ({ page, enter, mock }) => {
  await enter("#/pi/pi-4");
  await expect.poll(() => [...mock.controller.watched]).toEqual(["pi-4"]);
  await page.keyboard.press("Escape");
  await expect.poll(() => mock.controller.watched.size).toBe(0);
});

test("a task is run from a form that the catalogue makes", async ({ page, enter, mock }) => {
  await enter("#/pi/pi-4");
  await page.getByRole("button", { name: "Service log" }).click();
  await page.getByLabel("unit").selectOption("cron");
  await page.getByLabel("lines").fill("20");
  await expect(
    page.getByText("mosquitto_pub -h 10.0.0.2 -p 1883 -u admin -P '…' -t pistat/pi-4/task/request"),
  ).toContainText(`'{"task":"service-log","args":{"unit":"cron","lines":20}}'`);
  await page.getByRole("button", { name: "run", exact: true }).click();
  await expect(page.getByText("Accepted publickey")).toBeVisible();
  // The page may show the same output of an earlier run.
  await expect.poll(() => [...mock.controller.runs.values()].pop()?.args).toEqual({ unit: "cron", lines: 20 });
});

test("what was typed into a form stays when the link comes back", async ({ page, enter, mock }) => {
  await enter("#/pi/pi-4");
  await page.getByRole("button", { name: "Service log" }).click();
  await page.getByLabel("unit").selectOption("cron");
  await page.getByLabel("lines").fill("7");
  const before = mock.snapshots;
  mock.cut();
  await expect.poll(() => mock.snapshots).toBeGreaterThan(before);
  // Behind the snapshot in the same stream: when this is shown, it was applied.
  mock.controller.setOffline("pi-4", true);
  await expect(page.getByText(/^offline \d+s ago/)).toBeVisible();
  await expect(page.getByLabel("unit")).toHaveValue("cron");
  await expect(page.getByLabel("lines")).toHaveValue("7");
  await page.getByRole("button", { name: "Disk usage" }).click();
  await page.getByRole("button", { name: "Service log" }).click();
  await expect(page.getByLabel("lines")).toHaveValue("100");
});

test("a form takes numbers, patterns and switches, and does not send what cannot be", async ({ page, enter, mock }) => {
  await enter("#/pi/pi-4");
  await page.getByRole("button", { name: "Ping" }).click();
  await page.getByLabel("host").fill("not a host!");
  const before = mock.controller.runs.size;
  await page.getByRole("button", { name: "run", exact: true }).click();
  expect(mock.controller.runs.size).toBe(before);
  await page.getByLabel("host").fill("10.0.0.9");
  await page.getByLabel("wait (s)").fill("0.5");
  await page.getByLabel("verbose").check();
  await page.getByRole("button", { name: "run", exact: true }).click();
  await expect
    .poll(() => [...mock.controller.runs.values()].pop()?.args)
    .toEqual({ host: "10.0.0.9", wait: 0.5, verbose: true });
});

test("a task that asks is asked about before it runs", async ({ page, enter, mock }) => {
  await enter("#/pi/pi-4");
  const before = mock.controller.runs.size;
  await page.getByRole("button", { name: "Reboot" }).click();
  await page.getByRole("button", { name: "run", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "no" }).click();
  expect(mock.controller.runs.size).toBe(before);
  await page.getByRole("button", { name: "run", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "run it" }).click();
  await expect.poll(() => mock.controller.runs.size).toBe(before + 1);
});

test("a machine is renamed, assigned, tagged and given a cadence", async ({ page, enter, mock }) => {
  await enter("#/pi/pi-5");
  await page.getByRole("button", { name: "edit" }).click();
  await page.getByLabel("label").fill("Roof Cam");
  await page.getByLabel("responsibility").fill("Storks");
  await page.getByLabel("tags").fill("@camera birds");
  await page.getByLabel("a sample every").fill("2.5");
  await page.getByRole("button", { name: "save" }).click();
  await expect(page.getByRole("heading", { name: "Roof Cam" })).toBeVisible();
  const machine = mock.controller.machines.get("pi-5")?.machine;
  expect(machine).toMatchObject({
    label: "Roof Cam",
    assignment: "Storks",
    tags: ["camera", "birds"],
    interval_seconds: 2.5,
  });
});

test("forgetting a machine is asked about, and its page says that it is gone", async ({ page, enter, mock }) => {
  await enter("#/pi/pi-9");
  await page.getByRole("button", { name: "edit" }).click();
  await page.getByRole("button", { name: "forget this machine" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "forget it" }).click();
  await expect(page).toHaveURL(`${mock.url}/#/`);
  expect(mock.controller.machines.has("pi-9")).toBe(false);
  await page.goto(`${mock.url}/#/pi/pi-9`);
  await expect(page.getByText("There is no such machine")).toBeVisible();
});

test("a machine's page finds its runs although they are not among the fleet's newest, and leads to all of them", async ({
  page,
  enter,
  mock,
}) => {
  mock.controller.snapshotRuns = 0;
  await enter("#/pi/pi-4");
  const runs = page.locator(".runs");
  await expect(runs.getByText("apt-upgrade")).toBeVisible();
  await expect(runs).not.toContainText("Nothing was run here yet.");
  await page.getByRole("link", { name: "all", exact: true }).click();
  await expect(page).toHaveURL(`${mock.url}/#/runs?pi=pi-4`);
  await expect(page.getByLabel("Machine", { exact: true })).toHaveValue("pi-4");
  await page.goto(`${mock.url}/#/pi/pi-1`);
  await expect(page.getByText("Nothing was run here yet.")).toBeVisible();
});

test("runs are listed, found, and shown with their output", async ({ page, enter }) => {
  await enter("#/runs");
  const list = page.getByRole("list", { name: "Runs" });
  await expect(list.getByRole("listitem")).toHaveCount(5);
  await page.getByLabel("State").selectOption("failed");
  await expect(list.getByRole("listitem")).toHaveCount(1);
  await expect(list).toContainText("exit 100");
  await page.getByLabel("State").selectOption("");
  await page.getByLabel("Search runs").fill("service-log");
  await list.getByRole("link").first().click();
  await expect(page.getByRole("heading", { name: "service-log" })).toBeVisible();
  await expect(page.getByText("unit=ssh lines=100")).toBeVisible();
  await expect(page.getByRole("list", { name: "Output" })).toContainText("Server listening on 0.0.0.0 port 22.");
  await page.keyboard.press("Escape");
  await expect(page.getByRole("heading", { name: "Runs" })).toBeVisible();
});

test("a run's page says who asked, when it was accepted, started and ended, how long it took, and how it ended", async ({
  page,
  enter,
  mock,
}) => {
  const run = [...mock.controller.runs.values()].find((each) => each.task === "apt-upgrade")!;
  run.created_at = new Date(Date.parse(run.started_at!) - 3_000).toISOString();
  await enter(`#/runs/${run.id}`);
  await expect(page.getByRole("status").filter({ hasText: "failed" })).toBeVisible();
  const written = (time: string): Promise<string> =>
    page.evaluate(
      (at) =>
        new Intl.DateTimeFormat(undefined, {
          day: "numeric",
          month: "short",
          year: "numeric",
          hour: "2-digit",
          minute: "2-digit",
          second: "2-digit",
          hourCycle: "h23",
          timeZoneName: "short",
        }).format(new Date(at)),
      time,
    );
  const facts = async () =>
    Object.fromEntries(
      await page
        .locator("dl > div")
        .evaluateAll((pairs) =>
          pairs.map((pair) => [pair.querySelector("dt")?.textContent, pair.querySelector("dd")?.textContent]),
        ),
    );
  await expect.poll(facts).toMatchObject({
    "asked by": "schedule",
    "exit code": "100",
    took: "12.4 s",
    run: run.id,
    accepted: await written(run.created_at),
    started: await written(run.started_at!),
    ended: await written(run.finished_at!),
  });
  expect(new Set(await Promise.all([run.created_at, run.started_at!, run.finished_at!].map(written))).size).toBe(3);
});

test("where nothing is yet, the page says so", async ({ page, enter, mock }) => {
  mock.controller.runs.clear();
  mock.controller.events = [];
  await enter();
  await expect(page.locator('[data-panel="logs"]')).toContainText("Nothing has happened yet");
  await page.getByLabel("Search the logs").fill("anything");
  await expect(page.locator('[data-panel="logs"]')).toContainText("Nothing has happened yet");
  await page.getByLabel("Search the logs").fill("");
  mock.controller.event("system", "info", "something");
  await expect(page.getByRole("list", { name: "Events" })).toContainText("something");
  await page.goto(`${mock.url}/#/runs`);
  await expect(page.getByText("Nothing was run yet")).toBeVisible();
  await page.getByLabel("State").selectOption("failed");
  await expect(page.getByText("No run like this")).toBeVisible();
  await page.goto(`${mock.url}/#/pi/pi-1`);
  await expect(page.getByText("Nothing was run here yet.")).toBeVisible();
});

test.describe("with no machine", () => {
  test.use({ serve: { machines: 0 } });
  test("the page says so, and leads to adding one who may", async ({ page, mock }) => {
    await page.goto(`${mock.url}/#login=mock-code`);
    await expect(page.getByText("No machine yet")).toBeVisible();
    mock.controller.join("pi-1", "First");
    await expect(page.locator('[data-pi="pi-1"]')).toContainText("First");
    await expect(page.getByText("No machine yet")).toHaveCount(0);
  });
});

test("a filter finds what is older than everything that is here", async ({ page, enter, mock }) => {
  for (let run = 0; run < 40; run += 1)
    mock.controller.request({ task: "uptime", target: "pi-1", args: {}, confirmed: false }, "admin");
  await expect
    .poll(() => [...mock.controller.runs.values()].filter((run) => run.state === "succeeded").length)
    .toBeGreaterThan(40);
  mock.controller.snapshotRuns = 3;
  mock.controller.longestPage = 7;
  await enter("#/runs");
  const list = page.getByRole("list", { name: "Runs" });
  // The page is full by itself, also where the whole list is shorter than the screen.
  await expect(page.getByText("45 shown, newest first")).toBeVisible();
  await page.getByLabel("State").selectOption("failed");
  await expect(list).toContainText("exit 100");
  await page.getByLabel("State").selectOption("");
  await page.getByLabel("Search runs").fill("ha-livingroom");
  await expect(list.getByRole("listitem")).toHaveCount(1);
  // Unknown runs are inserted when the link is back.
  await page.getByLabel("Search runs").fill("");
  mock.refuse(true);
  await expect(page.getByText("link down")).toBeVisible();
  for (let run = 0; run < 20; run += 1)
    mock.controller.request({ task: "uptime", target: "pi-1", args: {}, confirmed: false }, "admin");
  mock.refuse(false);
  await expect(page.getByText("65 shown, newest first")).toBeVisible({ timeout: 15_000 });
});

test("a run's page shows live output, is cancelled, and run again", async ({ page, enter, mock }) => {
  await enter();
  const { runs } = mock.controller.request(
    { task: "count", target: "pi-1", args: { lines: 150 }, confirmed: false },
    "admin",
  );
  await page.goto(`${mock.url}/#/runs/${runs[0]}`);
  const output = page.getByRole("list", { name: "Output" });
  await expect(output).toContainText("line 5 of 150");
  await expect(output.locator(".fg-1").first()).toHaveText("line 1");
  await page.getByRole("button", { name: "cancel" }).click();
  await expect(page.getByText("cancelled by a person")).toBeVisible();
  await page.getByRole("button", { name: "run again" }).click();
  await expect(page).not.toHaveURL(new RegExp(`${runs[0]}`));
  await expect(page.getByText("running", { exact: false }).first()).toBeVisible();
});

test("a hundred thousand lines of output cost only the lines on the screen", async ({ page, enter, mock }) => {
  await enter();
  const { runs } = mock.controller.request(
    { task: "count", target: "pi-1", args: { lines: 100_000 }, confirmed: false },
    "admin",
  );
  await page.goto(`${mock.url}/#/runs/${runs[0]}`);
  await expect(page.getByText("100,000 lines")).toBeVisible({ timeout: 20_000 });
  const output = page.getByRole("list", { name: "Output" });
  await expect(output).toContainText("line 100000 of 100000");
  expect(await output.getByRole("listitem").count()).toBeLessThan(120);
});

test("a run on many machines is a matrix that fills", async ({ page, enter, mock }) => {
  await enter();
  const { group } = mock.controller.request(
    { task: "apt-upgrade", target: "@all", args: {}, confirmed: true },
    "admin",
  );
  await page.goto(`${mock.url}/#/runs/${group}`);
  await expect(page.getByRole("progressbar")).toHaveAttribute("aria-valuemax", "25");
  await expect(page.getByRole("button", { name: /17\/25 ended/ })).toBeVisible();
  await page.getByRole("button", { name: "1 failed" }).click();
  await expect(page.getByRole("list", { name: "Runs" }).getByRole("listitem")).toHaveCount(1);
  await page.getByRole("link", { name: "its run" }).click();
  await expect(page.getByRole("list", { name: "Output" })).toContainText("E: dpkg was interrupted");
  await page.getByRole("link", { name: "its group" }).click();
  await page.getByRole("button", { name: "cancel all" }).click();
  await expect(page.getByRole("button", { name: "25/25 ended" })).toBeVisible();
});

test("a group shows the output of what failed first, and of any machine that the arrows reach", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  const { group } = mock.controller.request(
    { task: "apt-upgrade", target: "@all", args: {}, confirmed: true },
    "admin",
  );
  await page.goto(`${mock.url}/#/runs/${group}`);
  const output = page.getByRole("list", { name: "Output" });
  await expect(page.getByRole("region", { name: "Output of Attic Cam" })).toContainText(/failed · exit 100/);
  await expect(output).toContainText("E: dpkg was interrupted");
  // From here on no run ends, so no cell changes its place.
  await expect(page.getByRole("button", { name: "17/25 ended" })).toBeVisible();
  const cells = page.getByRole("list", { name: "Runs" }).getByRole("button");
  await expect(cells.first()).toHaveAttribute("aria-pressed", "true");
  await cells.first().focus();
  await page.keyboard.press("ArrowRight");
  await expect(cells.nth(1)).toBeFocused();
  await expect(output).toContainText("Unpacking libssl3");
  await expect(output).not.toContainText("E: dpkg");
  await page.keyboard.press("End");
  await expect(cells.last()).toBeFocused();
  await page.keyboard.press("Home");
  await expect(output).toContainText("E: dpkg was interrupted");
  await cells.nth(5).click();
  await expect(cells.nth(5)).toHaveAttribute("aria-pressed", "true");
  // What is beneath the matrix reaches the end of the page.
  const edge = await page.locator("main").evaluate((node) => node.getBoundingClientRect().bottom);
  expect(await page.locator(".output").evaluate((node) => node.getBoundingClientRect().bottom)).toBeGreaterThan(
    edge - 30,
  );
});

test("long lines of output go on in the next row, or to the right when wrapping is off", async ({ page, enter }) => {
  await enter("#/pi/pi-4");
  await page.getByRole("button", { name: "Service log" }).click();
  await page.getByRole("button", { name: "run", exact: true }).click();
  const output = page.getByRole("list", { name: "Output" });
  await expect(output).toContainText("port 22.");
  const cut = () => page.locator(".output-lines").evaluate((node) => node.scrollWidth - node.clientWidth);
  await expect(page.getByText("2 lines")).toBeVisible();
  await expect(output.getByRole("listitem")).toHaveCount(4);
  await expect.poll(cut).toBe(0);
  await page.getByRole("button", { name: "wrap" }).click();
  await expect(output.getByRole("listitem")).toHaveCount(2);
  await expect.poll(cut).toBeGreaterThan(20);
  await page.reload();
  await expect(page.getByRole("button", { name: "wrap" })).toHaveAttribute("aria-pressed", "false");
});

test("a machine's page shows its newest output without being asked, its cores one by one, and leaves no hole", async ({
  page,
  enter,
}) => {
  await enter("#/pi/pi-4");
  await expect(page.getByRole("list", { name: "Output" })).toContainText("Server listening");
  const cores = page.getByRole("list", { name: "Cores" }).getByRole("listitem");
  await expect(cores).toHaveCount(4);
  await expect(cores.nth(1)).toHaveText(/core 1: *\d+ %/);
  const before = await cores.allInnerTexts();
  await expect.poll(() => cores.allInnerTexts()).not.toEqual(before);
  await page.setViewportSize({ width: 1920, height: 1800 });
  const gap = () =>
    page.evaluate(
      () =>
        document.querySelector(".left .panel")!.getBoundingClientRect().bottom -
        document.querySelector(".left .wire")!.getBoundingClientRect().bottom,
    );
  await expect.poll(gap).toBeLessThan(30);
});

test("an older group's runs are asked for once, page by page", async ({ page, enter, mock }) => {
  const { group } = mock.controller.request({ task: "uptime", target: "@all", args: {}, confirmed: false }, "admin");
  for (let run = 0; run < 12; run += 1)
    mock.controller.request({ task: "uptime", target: "pi-1", args: {}, confirmed: false }, "admin");
  await expect
    .poll(
      () => [...mock.controller.runs.values()].filter((run) => run.state === "succeeded" && run.group === group).length,
    )
    .toBe(24);
  mock.controller.snapshotRuns = 3;
  mock.controller.longestPage = 10;
  const asked: string[] = [];
  page.on("request", (request) => request.url().includes("/api/runs?") && asked.push(request.url()));
  await enter(`#/runs/${group}`);
  await expect(page.getByRole("list", { name: "Runs" }).getByRole("listitem")).toHaveCount(25);
  await page.waitForTimeout(300);
  expect(asked).toHaveLength(3);
  for (const url of asked) expect(url).toContain(`group=${group}`);
});

test("a task is run on a group from anywhere, one machine first", async ({ page, enter, mock }) => {
  await enter();
  await page.keyboard.press("r");
  const dialog = page.getByRole("dialog");
  await dialog.locator("[name=target]").selectOption("@camera");
  await dialog.locator("[name=task]").selectOption("disk-usage");
  await dialog.getByLabel("at a time").fill("2");
  await dialog.getByLabel("one machine first").check();
  const asked = page.waitForRequest((request) => request.url().endsWith("/api/runs"));
  await dialog.getByRole("button", { name: "run", exact: true }).click();
  expect((await asked).postDataJSON()).toEqual({
    task: "disk-usage",
    target: "@camera",
    args: {},
    confirmed: false,
    group: { canary: true, at_once: 2 },
  });
  await expect(page.getByRole("progressbar")).toHaveAttribute("aria-valuemax", "4");
  expect(mock.controller.groups.size).toBe(1);
});

test("a group that is run again goes as it went, and may be changed before", async ({ page, enter, mock }) => {
  await enter();
  const { group } = mock.controller.request(
    {
      task: "service-log",
      target: "@camera",
      args: { unit: "cron", lines: 7 },
      confirmed: false,
      group: { at_once: 2, stop_after: 1, canary: true },
    },
    "admin",
  );

  mock.controller.cancel(group ?? "");
  await page.goto(`${mock.url}/#/runs/${group}`);
  await page.getByRole("button", { name: "run again…" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.locator("[name=target]")).toHaveValue("@camera");
  await expect(dialog.getByLabel("unit")).toHaveValue("cron");
  const asked = page.waitForRequest((request) => request.url().endsWith("/api/runs"));
  await dialog.getByRole("button", { name: "run", exact: true }).click();
  expect((await asked).postDataJSON()).toEqual({
    task: "service-log",
    target: "@camera",
    args: { unit: "cron", lines: 7 },
    confirmed: false,
    group: { canary: true, at_once: 2, stop_after: 1 },
  });
});

/**
 * What only the controller knows yet: a machine that has just been started with --register-only.
 */
const REGISTER_ONLY: CannotRun[] = [
  {
    reason: "register_only",
    message: "its agent was started with --register-only and runs no tasks",
    tasks: ["uptime", "reboot"],
  },
];

test("a refusal is shown in the dialog that asked, until something else is tried", async ({ page, enter, mock }) => {
  await enter();
  mock.controller.machines.get("pi-1")!.machine.cannot_run = REGISTER_ONLY;
  await page.keyboard.press("r");
  const dialog = page.getByRole("dialog");
  await dialog.locator("[name=target]").selectOption("pi-1");
  await dialog.getByRole("button", { name: "run", exact: true }).click();
  await expect(dialog.getByRole("alert")).toHaveText(
    "uptime cannot run on pi-1: its agent was started with --register-only and runs no tasks",
  );
  await dialog.locator("[name=target]").selectOption("pi-3");
  await expect(dialog.getByRole("alert")).toHaveCount(0);
  await dialog.locator("[name=target]").selectOption("pi-1");
  await dialog.locator("[name=task]").selectOption("reboot");
  await dialog.getByRole("button", { name: "run", exact: true }).click();
  await page.getByRole("button", { name: "run it" }).click();
  await expect(page.getByRole("dialog")).toHaveCount(1);
  await expect(dialog.getByRole("alert")).toContainText("reboot cannot run on pi-1");
});

test("a refusal of the controller is shown as it said it", async ({ page, enter, mock }) => {
  await enter("#/pi/pi-1");
  mock.controller.machines.get("pi-1")!.machine.cannot_run = REGISTER_ONLY;
  await page.getByRole("button", { name: "Uptime" }).click();
  await page.getByRole("button", { name: "run", exact: true }).click();
  await expect(
    page.getByText("uptime cannot run on pi-1: its agent was started with --register-only and runs no tasks"),
  ).toBeVisible();
});

test("a task that cannot run on a machine is not offered there, and the page says why", async ({
  page,
  enter,
  mock,
}) => {
  await enter("#/pi/pi-5");
  const tasks = page.locator(".tasks");
  await expect(tasks.getByRole("button", { name: "Uptime" })).toBeVisible();
  await expect(tasks.getByRole("button", { name: /Reboot|Upgrade packages/ })).toHaveCount(0);
  await expect(
    tasks.getByText(
      /^Upgrade packages, Reboot cannot run here: it needs root, and this machine has no root runner: install/,
    ),
  ).toBeVisible();
  await page.goto(`${mock.url}/#/pi/pi-15`);
  await expect(tasks.getByText(/cannot run here: its agent was started with --register-only/)).toBeVisible();
  await expect(tasks.getByRole("button")).toHaveCount(0);
  // Here it can, and then it cannot any more.
  await page.goto(`${mock.url}/#/pi/pi-4`);
  await expect(tasks.getByRole("button", { name: "Reboot" })).toBeVisible();
  const { machine } = mock.controller.machines.get("pi-4")!;
  machine.cannot_run = [
    { reason: "no_runner", message: "it needs root, and this machine has no root runner", tasks: ["reboot"] },
  ];
  mock.controller.push({ kind: "machine", machine: { ...machine, stats: null, recent_cpu_percent: [] } });
  await expect(tasks.getByRole("button", { name: "Reboot" })).toHaveCount(0);
});

test("the dialog that runs a task says where it cannot run, before anything is asked", async ({ page, enter }) => {
  await enter("#/pi/pi-15");
  await expect(page.getByRole("heading", { name: "Weather" })).toBeVisible();
  await page.keyboard.press("r");
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByText(/^Uptime cannot run there: its agent was started with --register-only/)).toBeVisible();
  await expect(dialog.getByRole("button", { name: "run" })).toHaveCount(0);
  await dialog.locator('[name="target"]').selectOption("pi-5");
  await expect(dialog.getByRole("button", { name: "run" })).toBeVisible();
  await expect(dialog.locator('[name="task"] option:disabled')).toHaveText([
    "Upgrade packages · cannot run there",
    "Reboot · cannot run there",
  ]);
  await dialog.locator('[name="target"]').selectOption("@all");
  await dialog.locator('[name="task"]').selectOption("reboot");
  await expect(
    dialog.getByText(/^Not on 1 machine of 25 \(Weather\): its agent was started with --register-only/),
  ).toBeVisible();
  await expect(
    dialog.getByText(/^Not on 8 machines of 25 \(Rack Pi 2, Attic Cam, Lab Zero, .*, 4 more\): it needs root/),
  ).toBeVisible();
  await expect(dialog.getByRole("button", { name: "run" })).toBeVisible();
});

test("the palette and a run's page offer nothing that cannot run", async ({ page, enter, mock }) => {
  const run = [...mock.controller.runs.values()].find((each) => each.group === null && each.state === "succeeded")!;
  Object.assign(run, { pi: "pi-5", task: "reboot" });
  await enter("#/pi/pi-5");
  await page.keyboard.press("Control+k");
  await page.getByLabel("Command, machine or page").fill("run ");
  await expect(page.getByRole("option", { name: "Run Uptime" })).toBeVisible();
  await expect(page.getByRole("option", { name: "Run Reboot" })).toHaveCount(0);
  await page.keyboard.press("Escape");
  await page.goto(`${mock.url}/#/runs/${run.id}`);
  await expect(page.getByText("It cannot run there again: it needs root")).toBeVisible();
  await expect(page.getByRole("button", { name: "run again" })).toBeDisabled();
});

test("the log says who did something to a machine", async ({ page, enter, mock }) => {
  await enter();
  mock.controller.event("label", "info", "is now called Attic", { pi: "pi-5", account: "alice\u202e" });
  const event = page.getByRole("list", { name: "Events" }).getByRole("listitem").first();
  await expect(event).toContainText("Attic Cam");
  await expect(event.locator(".text")).toHaveText("alice⟨202E⟩ · is now called Attic");
  await expect(event.locator(".text")).toHaveAttribute("title", "alice⟨202E⟩: is now called Attic");
});

test("adding a Pi names the processors that there are agents for, and how to make the others", async ({
  page,
  enter,
  mock,
}) => {
  mock.controller.architectures = ["x86_64"];
  await enter();
  await page.getByRole("button", { name: "Add a Pi" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog).toContainText("There are agents for x86_64 (PCs).");
  await expect(dialog).toContainText(
    "Not for aarch64 (Pi 3, 4, 5 and Zero 2 with a 64-bit system), armv7 (Pi 2 and later with a 32-bit system) and armv6 (Pi 1, Zero and Zero W)",
  );
  await expect(dialog).toContainText(
    "packaging/build aarch64 in the source tree builds it, and from target/packages/ it is copied to /var/lib/pistat/agents/ on the controller.",
  );
  await page.keyboard.press("Escape");
  mock.controller.architectures = [];
  await page.getByRole("button", { name: "Add a Pi" }).click();
  await expect(dialog).toContainText("This controller has no agent to hand out yet.");
  await expect(dialog).toContainText("It has none for aarch64");
});
