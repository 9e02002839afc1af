// What is typed goes where the eyes are: into what was just opened, however slowly its script
// comes, and never into a shortcut.

import type { Page } from "@playwright/test";
import { expect, remember, terminal, test } from "./fixture";

/** Presses keys right after each other, faster than the page can draw or load anything. */
const press = (page: Page, ...keys: string[]): Promise<void> =>
  page.evaluate(async (pressed) => {
    for (const name of pressed) {
      const [key, ctrlKey] = name.startsWith("Control+") ? [name.slice(8), true] : [name, false];
      const goesOn = (document.activeElement ?? document.body).dispatchEvent(
        new KeyboardEvent("keydown", { key, ctrlKey, bubbles: true, cancelable: true }),
      );
      if (goesOn && document.activeElement?.matches("input, textarea")) document.execCommand("insertText", false, key);
      // The next key is a task of its own, as a keyboard's are.
      await new Promise<void>((resolve) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => resolve();
        port2.postMessage(null);
      });
    }
  }, keys);

test("what is typed right after the palette's key is in its field whole", async ({ page, enter }) => {
  await enter();
  // Held back for as long as this test lasts: the palette may need nothing more than what the page
  // came with.
  await page.route("**/assets/Palette-*.js", () => undefined);
  await press(page, "Control+k", ..."reboot");
  await expect(page.getByLabel("Command, machine or page")).toHaveValue("reboot", { timeout: 2_000 });
  await page.unrouteAll();
});

test("what is typed right after the filter's key is in the filter, from another page too", async ({ page, enter }) => {
  await enter("#/runs");
  await expect(page.getByRole("heading", { name: "Runs" })).toBeVisible();
  await press(page, "/", ..."rack?");
  await expect(page.getByRole("searchbox", { name: /Filter machines/ })).toHaveValue("rack?");
  await expect(page.getByRole("dialog")).toHaveCount(0);
});

test("a dialog that a key opens has the focus at once", async ({ page, enter }) => {
  await enter();
  for (const name of ["RunDialog", "Help"]) await page.route(`**/assets/${name}-*.js`, () => undefined);
  const holdsFocus = (key: string): Promise<boolean> =>
    page.evaluate(async (pressed) => {
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key: pressed, bubbles: true, cancelable: true }));
      await Promise.resolve();
      return document.querySelector("dialog[open]")?.contains(document.activeElement) ?? false;
    }, key);
  expect(await holdsFocus("r")).toBe(true);
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog")).toHaveCount(0);
  expect(await holdsFocus("?")).toBe(true);
  await page.unrouteAll();
});

test("what is typed before the terminal is there is in its line, and no key of the page", async ({
  page,
  enter,
  mock,
}) => {
  let letIn = (): void => undefined;
  const held = new Promise<void>((resolve) => (letIn = resolve));
  await page.route("**/assets/TerminalPanel-*.js", async (route) => {
    await held;
    await route.continue();
  });
  await enter("#/settings");
  await expect(page.getByRole("heading", { name: "This browser" })).toBeVisible();
  await press(page, "`", ..."pi reboot r?/");
  await expect(page).toHaveURL(`${mock.url}/#/`);
  await expect(page.getByRole("dialog")).toHaveCount(0);
  letIn();
  await terminal(page).shows("pistat> pi reboot r?/");
  await page.keyboard.type(" 1");
  await terminal(page).shows("pistat> pi reboot r?/ 1");
});

test("a line that is ended before the terminal is there runs, and Escape leaves it", async ({ page, enter }) => {
  let letIn = (): void => undefined;
  const held = new Promise<void>((resolve) => (letIn = resolve));
  await page.route("**/assets/TerminalPanel-*.js", async (route) => {
    await held;
    await route.continue();
  });
  await enter();
  await page.keyboard.press("`");
  await page.keyboard.type("nothing");
  await page.keyboard.press("Escape");
  await expect(page.locator("body")).toBeFocused();
  await page.keyboard.press("`");
  await page.keyboard.type("help\n");
  letIn();
  await terminal(page).shows("task cancel");
  await terminal(page).lacks("nothing");
});

test("Escape closes the column chooser, wherever the focus is in it, and leaves the page where it is", async ({
  page,
  enter,
  mock,
}) => {
  await remember(page, { density: "table" });
  await enter();
  const button = page.getByRole("button", { name: "columns" });
  const menu = page.getByRole("group", { name: "Columns" });
  await button.click();
  await expect(menu).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(menu).toBeHidden();
  await expect(button).toHaveAttribute("aria-expanded", "false");
  await button.click();
  await menu.getByRole("checkbox").nth(3).focus();
  await page.keyboard.press("Escape");
  await expect(menu).toBeHidden();
  await expect(page).toHaveURL(`${mock.url}/#/`);
});

test("Escape closes the form that changes a machine, and only then the machine's page", async ({
  page,
  enter,
  mock,
}) => {
  await enter("#/pi/pi-5");
  await page.getByRole("button", { name: "edit" }).click();
  await page.getByLabel("label").fill("Roof Cam");
  await page.keyboard.press("Escape");
  await expect(page.getByLabel("label")).toHaveCount(0);
  await expect(page).toHaveURL(`${mock.url}/#/pi/pi-5`);
  await page.keyboard.press("Escape");
  await expect(page).toHaveURL(`${mock.url}/#/`);
});
