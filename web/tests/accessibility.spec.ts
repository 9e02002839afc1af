import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "@playwright/test";
import { expect, remember, terminal, test } from "./fixture";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Violation {
  id: string;
  nodes: Array<{ target: unknown[]; failureSummary?: string }>;
}

async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const axe = (window as unknown as { axe: { run(context: unknown, options: unknown): Promise<{ violations: Violation[] }> } }).axe;
    return (await axe.run(document, { resultTypes: ["violations"] })).violations;
  });
  return found.flatMap((violation) => violation.nodes.slice(0, 3).map((node) => `${violation.id} at ${node.target.join(" ")}: ${node.failureSummary ?? ""}`));
}

const VIEWS: Array<{ name: string; hash?: string; settings?: Record<string, unknown>; stage?: (page: Page) => Promise<void> }> = [
  { name: "cards", stage: async (page) => terminal(page).run("task list").then(() => terminal(page).shows("8 tasks")) },
  { name: "table", settings: { density: "table", folded: ["terminal"] } },
  { name: "wall", settings: { density: "wall" } },
  { name: "a machine", hash: "#/pi/pi-4", stage: (page) => page.getByRole("button", { name: "Service log" }).click() },
  { name: "a machine being edited", hash: "#/pi/pi-12", stage: (page) => page.getByRole("button", { name: "edit" }).click() },
  { name: "runs", hash: "#/runs" },
  { name: "settings", hash: "#/settings", stage: (page) => page.getByRole("button", { name: "show" }).click() },
  { name: "palette", stage: (page) => page.keyboard.press("Control+k") },
  { name: "help", stage: (page) => page.keyboard.press("?") },
  { name: "adding a Pi", stage: (page) => page.getByRole("button", { name: "Add a Pi" }).click() },
  { name: "running a task", stage: (page) => page.keyboard.press("r") },
];

for (const theme of ["phosphor", "amber", "paper"]) {
  test.describe(`axe finds nothing in ${theme}`, () => {
    for (const view of VIEWS) {
      test(view.name, async ({ page, enter }) => {
        await page.emulateMedia({ reducedMotion: "reduce" });
        await remember(page, { theme, ...view.settings });
        await enter(view.hash);
        await expect(page.locator("h1, h2").first()).toBeAttached();
        await view.stage?.(page);
        await page.waitForTimeout(150);
        expect(await violations(page)).toEqual([]);
      });
    }

    test("a run, a group and a phone", async ({ page, enter, mock }) => {
      await page.emulateMedia({ reducedMotion: "reduce" });
      await remember(page, { theme });
      await enter();
      const { group, runs } = mock.controller.request({ task: "apt-upgrade", target: "@all", args: {}, confirmed: true }, "admin");
      await page.goto(`${mock.url}/#/runs/${group}`);
      await expect(page.getByRole("button", { name: /\/25 ended/ })).toBeVisible();
      expect(await violations(page)).toEqual([]);
      await page.goto(`${mock.url}/#/runs/${runs[0]}`);
      await expect(page.getByRole("list", { name: "Output" })).toBeVisible();
      expect(await violations(page)).toEqual([]);
      await page.setViewportSize({ width: 390, height: 844 });
      await page.goto(`${mock.url}/#/`);
      await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
      expect(await violations(page)).toEqual([]);
    });

    test("signing in", async ({ page, mock }) => {
      await remember(page, { theme });
      await page.goto(mock.url);
      await expect(page.getByLabel("Token or sign-in link")).toBeVisible();
      expect(await violations(page)).toEqual([]);
    });
  });
}
