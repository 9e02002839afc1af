import type { Page } from "@playwright/test";
import type { Mock } from "../mock/server";
import { expect, remember, test } from "./fixture";

/** A machine that stays connected and sends no sample any more. */
function silence(mock: Mock, id: string): void {
  const simulated = mock.controller.machines.get(id)!;
  Object.assign(simulated, { due: Infinity });
  Object.assign(simulated.machine, { status: "stale", interval_seconds: 0.5 });
  mock.controller.machineChanged(id);
}

const cell = (page: Page, id: string) => page.locator(`[data-panel="stats"] [data-pi="${id}"]`);
const AGO = /\d+[sm] ago/;

test("a card whose samples stay away says how old its values are", async ({ page, enter, mock }) => {
  await enter();
  await expect(cell(page, "pi-1")).toContainText("41d up");
  await expect(cell(page, "pi-1")).not.toContainText(AGO);
  silence(mock, "pi-1");
  await expect(cell(page, "pi-1")).toContainText(AGO);
  await expect(cell(page, "pi-1")).toHaveAccessibleName(/warning: no samples/);
});

test.describe("with samples twice a second", () => {
  test.use({ serve: { interval: 0.5 } });
  test("without a link every card says how old its values are", async ({ page, enter, mock }) => {
    await enter();
    await expect(cell(page, "pi-1")).not.toContainText(AGO);
    mock.refuse(true);
    await expect(cell(page, "pi-1")).toContainText(AGO);
    await expect(cell(page, "pi-2")).toContainText(AGO);
  });
});

test("the table says when each machine last reported", async ({ page, enter, mock }) => {
  await remember(page, { density: "table" });
  await enter();
  const row = (label: string) => page.getByRole("row").filter({ hasText: label });
  await expect(row("Rack Pi 1")).toContainText(/\ds ago/);
  await expect(row("Gate")).toContainText(/offline \d+m/);
  silence(mock, "pi-1");
  await expect(row("Rack Pi 1")).toContainText(/stale \ds/);
});

test("a wall's cell says how old its value is when that is not of now", async ({ page, enter, mock }) => {
  await remember(page, { density: "wall" });
  await enter();
  const title = async (id: string) => {
    await page.mouse.move(5, 5);
    await cell(page, id).hover();
    return (await cell(page, id).getAttribute("title")) ?? "";
  };
  expect(await title("pi-1")).toMatch(/^Rack Pi 1: \d+ %$/);
  expect(await title("pi-12")).toMatch(/^Gate: offline, 2m ago$/);
  silence(mock, "pi-3");
  await expect.poll(() => title("pi-3")).toMatch(/^Rack Pi 3: \d+ %, \d+s ago \(no samples\)$/);
  mock.refuse(true);
  await expect(page.getByText("link down")).toBeVisible();
  expect(await title("pi-1")).toMatch(/^Rack Pi 1: \d+ %, \d+s ago$/);
  await cell(page, "pi-2").focus();
  await expect(cell(page, "pi-2")).toHaveAttribute("title", AGO);
});
