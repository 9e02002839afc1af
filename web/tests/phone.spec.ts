import type { Locator, Page } from "@playwright/test";
import { expect, test } from "./fixture";

test.use({ viewport: { width: 390, height: 844 }, hasTouch: true });

/** What of these is wider than its room. */
const cut = (places: Locator): Promise<string[]> =>
  places.evaluateAll((nodes) =>
    nodes.filter((node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.textContent?.trim() ?? ""),
  );

/** Which fields cannot show their text, or what stands in them while they are empty. */
const narrowFields = (page: Page): Promise<string[]> =>
  page.locator(".tool:visible").evaluateAll((nodes) =>
    nodes.flatMap((node) => {
      const field = node as HTMLSelectElement | HTMLInputElement;
      const text = field instanceof HTMLSelectElement ? (field.selectedOptions[0]?.text ?? "") : field.placeholder;
      const style = getComputedStyle(field);
      const pen = document.createElement("canvas").getContext("2d")!;
      pen.font = style.font;
      const room = field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      return pen.measureText(text).width > room + 1 ? [text] : [];
    }),
  );

test("runs and logs: every filter can be read, and the note too", async ({ page, enter, mock }) => {
  await enter("#/runs");
  await expect(page.getByRole("list", { name: "Runs" })).toBeVisible();
  await expect(page.locator(".tool:visible")).toHaveCount(4);
  expect(await narrowFields(page)).toEqual([]);
  expect(await cut(page.locator(".note"))).toEqual([]);
  await page.goto(`${mock.url}/#/`);
  await page.getByLabel("Panels").getByRole("button", { name: "logs" }).click();
  await expect(page.locator(".tool:visible")).toHaveCount(2);
  expect(await narrowFields(page)).toEqual([]);
});

test("a machine's page: responsibility and tags are read, its runs are whole, and a command is broken between its parts", async ({
  page,
  enter,
}) => {
  await enter("#/pi/pi-4");
  const note = page.locator(".note").first();
  await expect(note).toHaveText("pi-4 · Raspberry Pi 4 Model B Rev 1.4 · Nightly backup · @garage · @camera");
  expect(await cut(page.locator(".note"))).toEqual([]);
  await expect(page.locator(".runs .how")).toHaveCount(5);
  await expect(page.locator(".runs .how").nth(1)).toContainText("exit 100 · 12.4 s");
  expect(await cut(page.locator(".runs .how, .runs .bright, .charts figcaption span"))).toEqual([]);
  const lines = await page
    .locator(".wire code span")
    .evaluateAll((nodes) =>
      nodes.map((node) =>
        Math.round(node.getBoundingClientRect().height / parseFloat(getComputedStyle(node).lineHeight)),
      ),
    );
  expect(lines).toEqual([1, 1, 1, 1, 1, 1, 1]);
});

test("a group's header says all of it", async ({ page, enter, mock }) => {
  await enter();
  const { group } = mock.controller.request({ task: "uptime", target: "@all", args: {}, confirmed: false }, "admin");
  await page.goto(`${mock.url}/#/runs/${group}`);
  await expect(page.locator(".note").first()).toContainText(
    /@all · 25 machines · admin · \w{3} \d+, \d{4}, \d\d:\d\d:\d\d /,
  );
  expect(await cut(page.locator(".note"))).toEqual([]);
});

test("settings: the themes stand beside each other", async ({ page, enter }) => {
  await enter("#/settings");
  const themes = page.getByRole("group", { name: "Theme" }).getByRole("button");
  await expect(themes).toHaveCount(3);
  expect(new Set(await themes.evaluateAll((nodes) => nodes.map((node) => node.getBoundingClientRect().top))).size).toBe(
    1,
  );
});

test("adding a Pi: what copies the command and what waits for it are in sight", async ({ page, enter }) => {
  await enter();
  await page.getByRole("button", { name: "Add a Pi" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.locator("code")).toContainText("--controller-url");
  await expect(dialog.getByRole("button", { name: "copy" })).toBeInViewport({ ratio: 1 });
  await expect(dialog.getByText(/waiting for/)).toBeInViewport({ ratio: 1 });
  // Scrolled to its end, nothing of the command is below them.
  await dialog.evaluate((node) => (node.scrollTop = node.scrollHeight));
  const [end, row] = await Promise.all([
    dialog.locator("code").boundingBox(),
    dialog.getByRole("button", { name: "copy" }).boundingBox(),
  ]);
  expect((end?.y ?? 0) + (end?.height ?? 0)).toBeLessThan(row?.y ?? 0);
});
