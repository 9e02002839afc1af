import { expect, test } from "./fixture";

test("the lines for MQTT name broker and account, and are copied as they stand", async ({ page, enter, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await enter("#/pi/pi-4");
  const copied = () => page.evaluate(() => navigator.clipboard.readText());
  const wire = page.locator(".wire");
  await wire.getByRole("button", { name: "copy" }).click();
  await expect(wire.getByRole("button", { name: "copied" })).toBeVisible();
  expect(await copied()).toBe("mosquitto_sub -h 10.0.0.2 -p 1883 -u admin -P '…' -v -t 'pistat/pi-4/#'");
  await page.getByRole("button", { name: "Service log" }).click();
  const form = page.locator(".form");
  await form.getByRole("button", { name: "copy" }).click();
  expect(await copied()).toBe(
    `mosquitto_pub -h 10.0.0.2 -p 1883 -u admin -P '…' -t pistat/pi-4/task/request -m '{"task":"service-log","args":{"unit":"ssh","lines":100}}'`,
  );
  // Another command is to be copied again.
  await page.getByLabel("lines").fill("7");
  await expect(form.getByRole("button", { name: "copy", exact: true })).toBeVisible();
});

test.describe("with one machine", () => {
  test.use({ serve: { machines: 1 } });
  test("what teaches has a line that can be run, and a button for a task", async ({ page, enter, context }) => {
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await enter();
    const hint = page.locator(".hint");
    await expect(hint).not.toContainText("press");
    await hint.getByRole("button", { name: "copy" }).click();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(
      "mosquitto_sub -h 10.0.0.2 -p 1883 -u admin -P '…' -v -t 'pistat/#'",
    );
    await hint.getByRole("button", { name: "run a task…" }).click();
    await expect(page.getByRole("dialog", { name: "Run a task" })).toBeVisible();
  });
});

test("without a link the counters are grey and say of when they are", async ({ page, enter, mock }) => {
  await enter();
  const counts = page.locator(".counts");
  await expect(counts).toHaveText(/22 *online *2 *warning *1 *offline *$/);
  await expect(counts).toHaveCSS("filter", "none");
  mock.refuse(true);
  await expect(counts).toContainText(/as of \d\d:\d\d:\d\d/);
  await expect(counts).toHaveCSS("filter", "saturate(0.15)");
  const said = await counts.innerText();
  await page.waitForTimeout(1_200);
  expect(await counts.innerText()).toBe(said);
  mock.refuse(false);
  await expect(counts).not.toContainText("as of", { timeout: 15_000 });
  await expect(counts).toHaveCSS("filter", "none");
});
