import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "@playwright/test";
import { expect, remember, terminal, test } from "./fixture";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Violation {
  id: string;
  nodes: Array<{ target: unknown[]; failureSummary?: string }>;
}

/** What a view has at least to be judged by: a question over everything else has no more. */
const LEAST_CONTRASTS = 5;

/**
 * Over a gradient no contrast can be judged, so that one is looked at without the scan lines and
 * the glow behind everything.
 */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const { found, contrasts } = await page.evaluate(async () => {
    interface Results {
      violations: Violation[];
      passes: Array<{ nodes: unknown[] }>;
    }
    const axe = (window as unknown as { axe: { run(context: unknown, options: unknown): Promise<Results> } }).axe;
    const all = await axe.run(document, {
      resultTypes: ["violations"],
      rules: { "color-contrast": { enabled: false } },
    });
    const root = document.documentElement;
    const scan = root.dataset.scan;
    root.dataset.scan = "off";
    document.body.style.backgroundImage = "none";
    const contrast = await axe.run(document, {
      resultTypes: ["violations", "passes"],
      runOnly: { type: "rule", values: ["color-contrast"] },
    });
    root.dataset.scan = scan;
    document.body.style.backgroundImage = "";
    return {
      found: [...all.violations, ...contrast.violations],
      contrasts: contrast.passes.reduce((sum, { nodes }) => sum + nodes.length, 0),
    };
  });
  const wrong = found.flatMap((violation) =>
    violation.nodes
      .slice(0, 3)
      .map((node) => `${violation.id} at ${node.target.join(" ")}: ${node.failureSummary ?? ""}`),
  );
  return contrasts < LEAST_CONTRASTS ? [...wrong, `only ${contrasts} texts could be judged by their contrast`] : wrong;
}

const VIEWS: Array<{ name: string; hash: string; stage?: (page: Page) => Promise<void> }> = [
  {
    name: "cards",
    hash: "#/",
    stage: (page) =>
      terminal(page)
        .run("task list")
        .then(() => terminal(page).shows("8 tasks")),
  },
  { name: "table", hash: "#/", stage: (page) => page.getByRole("button", { name: "table" }).click() },
  { name: "wall", hash: "#/", stage: (page) => page.getByRole("button", { name: "wall" }).click() },
  { name: "a machine", hash: "#/pi/pi-4", stage: (page) => page.getByRole("button", { name: "Service log" }).click() },
  {
    name: "a machine being edited",
    hash: "#/pi/pi-12",
    stage: (page) => page.getByRole("button", { name: "edit" }).click(),
  },
  { name: "runs", hash: "#/runs" },
  { name: "settings", hash: "#/settings", stage: (page) => page.getByRole("button", { name: "show" }).click() },
  { name: "palette", hash: "#/runs", stage: (page) => page.keyboard.press("Control+k") },
  { name: "help", hash: "#/settings", stage: (page) => page.keyboard.press("?") },
  { name: "adding a Pi", hash: "#/", stage: (page) => page.getByRole("button", { name: "Add a Pi" }).click() },
  { name: "running a task", hash: "#/runs", stage: (page) => page.getByRole("button", { name: "run…" }).click() },
];

test.describe("with one machine", () => {
  test.use({ serve: { machines: 1 } });
  for (const theme of ["phosphor", "amber", "paper"]) {
    test(`axe finds nothing in what teaches in ${theme}`, async ({ page, enter }) => {
      await page.emulateMedia({ reducedMotion: "reduce" });
      await remember(page, { theme });
      await enter();
      await expect(page.getByText("Add the first Pi of the fleet")).toBeVisible();
      expect(await violations(page)).toEqual([]);
    });
  }
});

test.describe("with a thousand machines", () => {
  test.use({ serve: { machines: 1000 } });
  // Each theme with another number: that every step of every theme can be read is told by the unit
  // tests.
  for (const [theme, metric] of [
    ["phosphor", "ram"],
    ["amber", "temp"],
    ["paper", "disk"],
  ] as const) {
    test(`axe finds nothing in a large wall of ${metric} in ${theme}`, async ({ page, enter }) => {
      test.slow();
      await page.emulateMedia({ reducedMotion: "reduce" });
      await remember(page, { theme, density: "wall" });
      await enter();
      await page.getByLabel("Colour by").selectOption(metric);
      await expect(page.locator('[data-panel="stats"] [data-pi]').first()).toHaveClass(/heat-/);
      expect(await violations(page)).toEqual([]);
    });
  }
});

for (const theme of ["phosphor", "amber", "paper"]) {
  test(`axe finds nothing in what is seen seldom in ${theme}`, async ({ page, enter, mock }) => {
    test.slow();
    await page.emulateMedia({ reducedMotion: "reduce" });
    await remember(page, { theme });
    const check = async (name: string) => expect.soft(await violations(page), name).toEqual([]);
    await enter();
    await terminal(page).ready();
    await page.locator('[data-panel="terminal"]').getByRole("button", { name: "search" }).click();
    await page.keyboard.type("type");
    await check("searching the terminal");
    await page.getByRole("button", { name: "table" }).click();
    await page.getByRole("button", { name: "columns" }).click();
    await expect(page.getByRole("group", { name: "Columns" })).toBeVisible();
    await check("the menu of columns");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "cards" }).click();
    for (const panel of ["Terminal", "Stats", "Logs"])
      await page.getByRole("button", { name: `Fold ${panel}`, exact: true }).click();
    await check("folded panels");
    for (const panel of ["Terminal", "Stats", "Logs"])
      await page.getByRole("button", { name: `Unfold ${panel}` }).click();
    await page.getByRole("button", { name: "Add a Pi" }).click();
    await page.getByLabel("pi-id").fill("new-1");
    mock.controller.join("new-1", "New One");
    await expect(page.getByText("is here.")).toBeVisible();
    await check("a Pi that has arrived");
    await page.goto(`${mock.url}/#/pi/pi-12`);
    await expect(page.getByText(/^offline \d+m ago/)).toBeVisible();
    await check("a machine that is offline");
    await page.goto(`${mock.url}/#/runs/nothing`);
    await expect(page.getByText("There is no such run")).toBeVisible();
    await check("an unknown run");
    await page.goto(`${mock.url}/#/settings`);
    await page.getByLabel("Name of the new account").fill("display-2");
    await page.getByRole("button", { name: "add", exact: true }).click();
    await expect(page.getByText("It is shown once")).toBeVisible();
    await check("a fresh token");
    await page.setViewportSize({ width: 390, height: 844 });
    await page.goto(`${mock.url}/#/`);
    await page.getByRole("button", { name: "wall" }).click();
    await expect(page.locator('[data-pi="controller"]')).toBeVisible();
    await check("a phone's wall");
    await page.getByRole("button", { name: "Commands and pages" }).click();
    await expect(page.getByLabel("Command, machine or page")).toBeVisible();
    await check("a phone's palette");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Add a Pi" }).click();
    await expect(page.getByRole("dialog").locator("code")).toContainText("--controller-url");
    await check("adding a Pi on a phone");
    mock.expire();
    await expect(page.getByLabel("Token or sign-in link")).toBeVisible();
    await check("a session that has ended");
  });
}

for (const theme of ["phosphor", "amber", "paper"]) {
  test(`axe finds nothing in any view in ${theme}`, async ({ page, mock }) => {
    test.slow();
    await page.emulateMedia({ reducedMotion: "reduce" });
    await remember(page, { theme });
    const check = (name: string) =>
      expect.soft(violations(page).then((found) => found.map((each) => `${name}: ${each}`))).resolves.toEqual([]);
    await page.goto(mock.url);
    await expect(page.getByLabel("Token or sign-in link")).toBeVisible();
    await check("signing in");
    await page.getByLabel("Token or sign-in link").fill("admin-token");
    await page.getByRole("button", { name: "sign in" }).click();
    await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
    for (const view of VIEWS) {
      await page.goto(`${mock.url}/${view.hash}`);
      await expect(page.getByRole("dialog")).toHaveCount(0);
      await view.stage?.(page);
      await page.waitForTimeout(150);
      await check(view.name);
    }
    const { group, runs } = mock.controller.request(
      { task: "apt-upgrade", target: "@all", args: {}, confirmed: true },
      "admin",
    );
    await page.goto(`${mock.url}/#/runs/${group}`);
    await expect(page.getByRole("button", { name: /\/25 ended/ })).toBeVisible();
    await check("a group");
    await page.goto(`${mock.url}/#/runs/${runs[0]}`);
    await expect(page.getByRole("list", { name: "Output" })).toBeVisible();
    await check("a run");
    await page.goto(`${mock.url}/#/pi/pi-4`);
    await page.getByRole("button", { name: "Reboot" }).click();
    await page.getByRole("button", { name: "run", exact: true }).click();
    await expect(page.getByRole("dialog")).toBeVisible();
    await check("a question");
    await page.getByRole("dialog").getByRole("button", { name: "no" }).click();
    await page.goto(`${mock.url}/#/`);
    await page.getByRole("searchbox", { name: /Filter machines/ }).fill("speed>80 nobody");
    await expect(page.getByText("No machine passes this filter")).toBeVisible();
    await check("a filter that nothing passes");
    await page.getByRole("button", { name: "show all" }).click();
    await page.goto(`${mock.url}/#/pi/nobody`);
    await expect(page.getByText("There is no such machine")).toBeVisible();
    await check("an unknown machine");
    await page.setViewportSize({ width: 390, height: 844 });
    await page.goto(`${mock.url}/#/`);
    await expect(page.locator('[data-pi="controller"]')).toBeVisible();
    await check("a phone");
    for (const tab of ["terminal", "logs"]) {
      await page.getByLabel("Panels").getByRole("button", { name: tab }).click();
      await page.waitForTimeout(150);
      await check(`a phone's ${tab}`);
    }
    for (const hash of ["#/runs", `#/runs/${group}`, "#/pi/pi-4", "#/settings"]) {
      await page.goto(`${mock.url}/${hash}`);
      await page.waitForTimeout(150);
      await check(`a phone at ${hash}`);
    }
    mock.refuse(true);
    await expect(page.getByText(/link down · /)).toBeVisible();
    await page.waitForTimeout(400);
    await check("without a link");
  });
}
